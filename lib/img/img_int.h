/* img/img_int.h - what formats and the code above them share. */
#ifndef IMG_IMG_INT_H
#define IMG_IMG_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "codec/block.h"
#include "img/file.h"
#include "img/img.h"

/* A place for new data, from alloc(). */
struct img_place {
	uint64_t len;          /* bytes, whole grains */
	uint64_t file_off;     /* where the first of them goes */
	struct img_file *file; /* borrowed */
	bool zero;             /* reads as zeros now */
	bool fresh;            /* was taken for this, not there before */
};

/*
 * A disk format. Only probe, open, close and map are needed to read. Everything but probe, open, close and
 * create may be called by many threads at once; alloc to unalloc, zero and discard for one cluster
 * by one at a time (img/io.c has its range locked).
 */
struct img_format {
	const char *name;
	/* Is it this format? `head` is the file's first IMG_PROBE_LEN bytes, fewer if it is shorter. */
	bool (*probe)(const void *head, size_t len);
	/* img->file is there. Sets img->size, img->unit, the backing names, img->priv. On failure close()
	 * is called, with what is there. */
	int (*open)(struct img *img, struct err *err);
	/* Writes what is cached (if img->file is writable) and frees. The first error. */
	int (*close)(struct img *img);
	/* What [off, ..) is, for at most len bytes; within img->size rounded up to the unit. */
	int (*map)(struct img *img, uint64_t off, uint64_t len, struct img_extent *e);
	void (*info)(struct img *img, struct img_info *info);

	/* Before the first change since the image was opened. */
	int (*begin_write)(struct img *img);
	/* Finds a place for [off, off + len), both multiples of the grain that map() told, all of
	 * one extent that is not writable. */
	int (*alloc)(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
	/* The data of [off, off + p->len) is at `p` now. */
	int (*link)(struct img *img, uint64_t off, const struct img_place *p);
	/* It is not: the place is not needed. */
	void (*unalloc)(struct img *img, const struct img_place *p);
	/* Makes a prefix of [off, off + len), multiples of img->zero_unit, read as zeros; *done bytes of it.
	 * -EOPNOTSUPP: write zeros instead. */
	int (*zero)(struct img *img, uint64_t off, uint64_t len, bool unmap,
		    uint64_t *done);
	/* Gives back a prefix of [off, off + len), multiples of img->unit. */
	int (*discard)(struct img *img, uint64_t off, uint64_t len, uint64_t *done);
	int (*flush)(struct img *img);

	/* Writes an empty image to `f`, an empty file. */
	int (*create)(struct img_file *f, const struct img_create_opts *opts,
		      struct err *err);
};

/* A range of the image that one thread changes the mapping of. */
struct img_busy {
	uint64_t off, end;
	struct img_busy *next;
};

/*
 * Requests under way, in two generations: what was unlinked in one generation may be used again when
 * no request of it is left.
 */
struct img_grace {
	atomic_uint epoch, active[2];
};

struct img {
	const struct img_format *fmt;
	struct img_file *file;
	struct img *backing; /* owned */
	void *priv;          /* the format's */
	char *path;
	uint64_t size;      /* bytes */
	uint32_t unit;      /* cluster: ranges are locked in these */
	uint32_t zero_unit; /* what zero() can do */
	bool read_only;
	bool no_sync;
	bool discard_all; /* temporary: nothing needs to be written when it is closed */
	bool has_backing; /* even if it was not opened */
	bool guard_head;  /* raw because nothing else was found: must stay so */
	char *backing_path;   /* as the image says it */
	char *backing_format; /* as the image says it, NULL: not */
	struct img_opts opts; /* format is not valid after open */

	pthread_mutex_t busy_lock; /* leaf */
	pthread_cond_t busy_gone;
	struct img_busy *busy;

	pthread_mutex_t begin_lock; /* before the format's own locks */
	atomic_bool writing;        /* begin_write() was called */

	struct img_grace grace;

	pthread_mutex_t work_lock; /* leaf */
	struct img_work *work;     /* idle work spaces */
	struct img_unit_cache *units;
};

/* ---- grace (img/busy.c) ---- */

unsigned grace_enter(struct img_grace *g); /* returns what grace_exit() wants */
void grace_exit(struct img_grace *g, unsigned ticket);
/* Are all requests of the generation before this one gone? */
bool grace_old_gone(struct img_grace *g);
/* Begins a new generation; only if grace_old_gone(). The format's lock is held. */
void grace_turn(struct img_grace *g);

/* ---- ranges (img/busy.c) ---- */

/* Waits until nobody else changes the mapping of [off, end). One at a time per thread. */
void busy_lock(struct img *img, struct img_busy *b, uint64_t off, uint64_t end);
void busy_unlock(struct img *img, struct img_busy *b);

/* ---- compressed units (img/unpack.c) ---- */

/* Reads `len` bytes of a packed extent. */
int unpack_read(struct img *img, const struct img_extent *e, struct iov_pos *p,
		uint64_t len);
/* The units in [off, off + len) of the file are not there any more. */
void unpack_forget(struct img *img);
void unpack_fini(struct img *img);

/* ---- formats (img/img.c) ---- */

/* What probing looks at. */
#define IMG_PROBE_LEN 4096

/* The format whose file begins with `head`; raw if there is no other. */
const struct img_format *img_probe(const void *head, size_t len);

extern const struct img_format img_raw, img_qcow2;

/* An image of one format on an open file, without backing; used for temporary overlays. Takes `f` over. */
int img_open_file(struct img_file *f, const char *path, const struct img_format *fmt,
		  const struct img_opts *opts, struct img **out, struct err *err);

#endif

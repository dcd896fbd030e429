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
	struct crypt *crypt;   /* what is written is to be encrypted; borrowed */
	uint64_t crypt_off;    /* as in struct img_extent */
};

/* What a format is recognized by. */
struct img_probe {
	const uint8_t *head; /* the file's first bytes: at most IMG_PROBE_LEN */
	size_t head_len;
	const uint8_t
		*tail; /* the file's last bytes: at most IMG_TAIL_LEN, up to its end */
	size_t tail_len;
	uint64_t size; /* of the file */
};

/* What probing looks at: enough for a descriptor, an XML file's first lines, a footer. */
#define IMG_PROBE_LEN 4096
#define IMG_TAIL_LEN  1024

/*
 * An image that is being made (img/target.c). The main file gets the image's name, and the further ones
 * theirs, only when everything is written.
 */
struct img_target {
	struct img_file *file;     /* the main one, empty */
	const char *path;          /* the name that the image will have; borrowed */
	struct target_file *files; /* all of them, the main one last; owned */
	bool stream;               /* a pipe: written from its beginning to its end */
	bool replace;              /* what is there may be replaced */
	bool no_sync;              /* do not wait for the disk */
};

/* Begins one at `path`, which is borrowed: makes the main file. */
int target_begin(struct img_target *t, const char *path,
		 const struct img_create_opts *opts, struct err *err);
/* Begins one that goes to a descriptor, from where that stands on, in one pass. `name`, for messages, is borrowed. */
int target_begin_fd(struct img_target *t, int fd, const char *name, struct err *err);
/* Begins one that goes to standard output. */
int target_begin_stdout(struct img_target *t, struct err *err);
/* Everything is written, and the image, if one was opened on it, closed: brings it to the disk and gives
 * the files their names. Ends the target in any case. */
int target_commit(struct img_target *t, struct err *err);
/* Leaves nothing behind. */
void target_abort(struct img_target *t);

/*
 * A further file of the image that is made: `name` is its name in the folder of t->path (without a slash).
 * *out is borrowed, of the target. For formats' create().
 */
int target_add_file(struct img_target *t, const char *name, struct img_file **out,
		    struct err *err);
/* The file of that name, if it was added. */
struct img_file *target_find(const struct img_target *t, const char *name);

struct img_snapshot_ops {
	int (*list)(struct img *img, struct img_snapshot **v, size_t *n,
		    struct err *err);
	int (*create)(struct img *img, const char *name, struct err *err);
	int (*remove)(struct img *img, const char *name, struct err *err);
	int (*apply)(struct img *img, const char *name, struct err *err);
	/* From now on map() shows this snapshot, and img->size is its size. Right after open(). */
	int (*load)(struct img *img, const char *name, struct err *err);
};

/*
 * A disk format. Only probe, open, close and map are needed to read. Everything but probe, open, close and
 * create may be called by many threads at once; alloc to unalloc, zero and discard for one cluster
 * by one at a time (img/io.c has its range locked).
 */
struct img_format {
	const char *name;                      /* as qemu-img calls it */
	const char *title;                     /* for people */
	const char *const *aliases;            /* ends with NULL; NULL: none */
	const struct img_option_desc *options; /* of create; ends with .name NULL */
	bool backing;                          /* can have a backing file */
	bool in_place; /* is written where it is: needs no alloc() */
	bool (*probe)(const struct img_probe *p);
	/* img->file is there; further files come from img_open_extern(). Sets img->size, img->unit, the
	 * backing names, img->priv. On failure close() is called, with what is there. */
	int (*open)(struct img *img, struct err *err);
	/* img->backing was opened: is it the right one (identifiers)? For formats that can tell. */
	int (*check_backing)(struct img *img, struct err *err);
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

	/* Writes an empty image to t->file, an empty file. opts->options are of the table, their values of
	 * the right kind (img_option_...() below reads them). */
	int (*create)(struct img_target *t, const struct img_create_opts *opts,
		      struct err *err);
	/* How large such an image will be. */
	int (*measure)(const struct img_create_opts *opts, const struct img_plan *plan,
		       struct img_measure *m, struct err *err);

	/*
	 * Packed units. packer() tells how this image's are made (NULL: has none): their size, the level;
	 * *room is how much memory pack() is given for its output: more means that a unit that does not
	 * become smaller has to be packed all the same. write_packed() takes the unit at `off` (a multiple of it;
	 * the last one is filled with zeros to a whole one) in `len` bytes; of different units by many threads
	 * at once, unless img->one_pass. -ENOSPC and the like, or -EEXIST: what is there cannot be
	 * replaced by a packed unit.
	 */
	const struct codec_block *(*packer)(struct img *img, uint32_t *unit,
					    uint32_t *room, int *level);
	int (*write_packed)(struct img *img, uint64_t off, const void *data,
			    size_t len);

	/*
	 * Begins an image that is written in one pass: img->file is empty and is only appended to, with
	 * img->append (img_append() below). Sets what open() sets and img->one_pass; then come write_packed() calls
	 * or, without a packer, write_unit() calls, by one thread with rising offsets for all of the plan's data;
	 * close() ends it. -EOPNOTSUPP before anything is written: these options are not written in one pass.
	 */
	int (*stream_begin)(struct img *img, const struct img_create_opts *opts,
			    const struct img_plan *plan, struct err *err);
	int (*write_unit)(struct img *img, uint64_t off, const void *data, size_t len);
	/*
	 * A format whose tables come first and tell packed lengths sets img->first_pass in stream_begin(): it gets all
	 * units once without writing them, then this call, which clears first_pass and writes the tables, and then
	 * all units again. A unit that is not the same then: -ESTALE.
	 */
	int (*stream_second)(struct img *img, struct err *err);

	/* Tells img_check()'s answer; with c->fix repairs. check_say() below for each finding. */
	int (*check)(struct img *img, struct img_check *c, struct err *err);
	unsigned can_fix; /* IMG_FIX_... */
	bool can_undo;    /* check() takes c->undo_path */
	int (*resize)(struct img *img, uint64_t size, enum img_prealloc prealloc,
		      struct err *err);
	int (*amend)(struct img *img, const struct img_option *options, unsigned n,
		     struct err *err);
	int (*set_backing)(struct img *img, const char *path, const char *format,
			   struct err *err);
	/* Drops all data, so that what is behind shows through (after a commit). */
	int (*make_empty)(struct img *img, struct err *err);
	const struct img_snapshot_ops *snapshots;
	int (*bitmap)(struct img *img, enum img_bitmap_action action, const char *name,
		      uint64_t granularity, struct img *from, const char *source,
		      struct err *err);
	/* Puts copies of `from`'s, of this format, into img (NULL: only looks whether they can be copied). */
	int (*bitmaps_copy)(struct img *img, struct img *from,
			    const struct img_bitmap_copy *how, struct err *err);
	/* What it can tell, in the order and with the names of qemu-img's "format-specific": "data". */
	void (*details)(struct img *img, struct details *d);
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
	struct img_file **extra; /* further ones, owned: of img_open_extern() */
	unsigned n_extra;
	const struct img_target
		*target;     /* borrowed: it is being made; NULL: it is not */
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
	bool overwritten; /* img_overwrite_done() */
	bool one_pass;    /* is written from its beginning to its end */
	bool first_pass;  /* of two: only to learn lengths, see stream_second() */
	bool sealed;      /* its data is encrypted, in whole sectors */
	uint64_t append;  /* one pass: bytes written so far */
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

/* ---- formats (img/formats.c) ---- */

/* By name or alias; NULL with the message set. */
const struct img_format *format_find(const char *name, struct err *err);
/* The format by content; raw if there is no other. */
const struct img_format *format_probe(const struct img_probe *p);
/* The same for a file; also by the names of the files beside it (img/other/split.c). */
int format_probe_file(struct img_file *f, const char *path,
		      const struct img_format **fmt, struct err *err);
/* Is the raw file at `path`, of `size` bytes, the first of several that are one disk? */
bool split_is_first(const char *path, uint64_t size);
/* Are the options in the format's table, and do the values fit? */
int format_check_options(const struct img_format *fmt, const struct img_option *options,
			 unsigned n, struct err *err);

#define IMG_FORMAT(id) extern const struct img_format img_##id;
#include "img/formats.h"
#undef IMG_FORMAT

/* The value of a setting, or `usual`. For create(), amend(). The last one of a name counts. */
const char *img_option_text(const struct img_option *o, unsigned n, const char *name,
			    const char *usual);
bool img_option_bool(const struct img_option *o, unsigned n, const char *name,
		     bool usual);
uint64_t img_option_number(const struct img_option *o, unsigned n, const char *name,
			   uint64_t usual);

/* ---- telling ---- */

void detail_text(struct details *d, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void detail_number(struct details *d, const char *key, uint64_t v);
void detail_bool(struct details *d, const char *key, bool v);
void detail_begin(struct details *d, const char *key, enum detail_kind kind);
void detail_end(struct details *d);

/* One finding of a check. */
void check_say(const struct img_check *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- other files (img/extern.c) ---- */

/*
 * Opens a further file that the image names (`what`: "data file", "extent"), relative to the image's folder and only
 * where opts.allow_external lets it; read-only if the image is. It belongs to the image, which closes it
 * behind the format's close(). Known protocols ("file:") are stripped. -EACCES: outside; -ELOOP: a file of
 * the image already.
 */
int img_open_extern(struct img *img, const char *name, const char *what,
		    struct img_file **out, struct err *err);

/* The path of a file that the image at `path` names, if it may be opened; the caller's to free(). */
int extern_resolve(const char *path, const char *name, const char *what,
		   const char *allow, char **out, struct err *err);

/* img->backing_path from `len` bytes of the image's file; has_backing is set. */
int img_read_backing_path(struct img *img, uint64_t off, uint32_t len, struct err *err);
/* *to becomes a copy of `text` (NULL: none); what it was is freed. 0 or -ENOMEM, and *to as it was. */
int img_set_text(char **to, const char *text);

/* ---- cloning (img/io.c) ---- */

/*
 * [off, off + len) becomes what is at `from` of a host file, as file_clone() does it. -EOPNOTSUPP, or any other failure: has to be
 * written.
 */
int img_clone(struct img *img, uint64_t off, const struct img_file *src, uint64_t from,
	      uint64_t len, bool copy);

/* ---- opening (img/img.c) ---- */

/* An image of one format on an open file, without backing; used for temporary overlays. Takes `f` over. */
int img_open_file(struct img_file *f, const char *path, const struct img_format *fmt,
		  const struct img_opts *opts, struct img **out, struct err *err);

/* Adds to the end of an image that is written in one pass. */
int img_append(struct img *img, const void *data, uint64_t len);

/* Opens for writing what create() wrote to a target's files, which stay the target's. */
int img_open_made(struct img_target *t, const struct img_format *fmt,
		  const struct img_opts *opts, struct img **out, struct err *err);
/* Begins an image on a target's empty file with stream_begin(). */
int img_begin_stream(struct img_target *t, const struct img_format *fmt,
		     const struct img_create_opts *opts, const struct img_plan *plan,
		     struct img **out, struct err *err);

#endif

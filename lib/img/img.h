/*
 * img/img.h - disk images of any format, as one array of bytes.
 *
 * Calls are synchronous. Reading, writing, zeroing, discarding, flushing, mapping: any thread, any number
 * at once on one image. Opening and closing: one thread. After img_open() no path is opened.
 * Hot calls return 0 or -errno; the others have a message in *err.
 */
#ifndef IMG_IMG_H
#define IMG_IMG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct img;
struct img_file;
struct codec_block;

/* The longest chain of backing files that is opened. */
#define IMG_MAX_DEPTH 200

struct img_opts {
	const char *format; /* NULL: probed */
	bool read_only;
	bool no_backing; /* do not open backing files: what lies in them is -ENXIO */
	bool no_lock; /* even if another program has it open; what is read may change */
	bool snapshot; /* writes go to a temporary file that nobody sees; path is not changed */
	bool no_sync; /* img_flush() leaves the data to the host's page cache */
};

/*
 * Opens the image at `path` and its backing files (relative to the image's folder). `opts` may be
 * NULL. 0 and *out (img_close()), or -errno: -EBUSY in use by another program, -ELOOP a backing chain
 * that does not end, -ENOTSUP something in the format that is not known here.
 */
int img_open(const char *path, const struct img_opts *opts, struct img **out,
	     struct err *err);

/* As img_open() for an open file, which now belongs to the image (also on failure). `name` is for
 * messages and the place backing files are relative to. Locks as opts say. */
int img_open_fd(int fd, const char *name, const struct img_opts *opts, struct img **out,
		struct err *err);

/* Writes what is cached and closes the whole chain. The first error of the last writes, if any: the image
 * is closed in any case. `img` may be NULL. */
int img_close(struct img *img);

/* ---- what it is ---- */

uint64_t img_size(const struct img *img); /* bytes */
bool img_read_only(const struct img *img);
bool img_can_discard(const struct img *img);
const char *img_format_name(const struct img *img); /* "raw", "qcow2" */
const char *img_path(const struct img *img);
/* The image behind, NULL if there is none (or it was not opened). */
struct img *img_backing(const struct img *img);
/* What allocation is done in; 512 for raw. Bytes. */
uint32_t img_cluster_size(const struct img *img);

/* What a format tells beyond that. Strings belong to the image; NULL or 0: has none. */
struct img_info {
	const char *backing_path;   /* as the image says it, not resolved */
	const char *backing_format; /* as the image says it */
	const char *data_path;      /* external data file, as the image says it */
	const char *compression;
	uint64_t file_bytes;      /* length of the file */
	uint64_t allocated_bytes; /* what the file takes on the host's disk */
	uint32_t version;
	uint32_t refcount_bits;
	uint32_t snapshots; /* internal ones */
	bool extended_l2, lazy_refcounts, dirty, corrupt, encrypted, has_bitmaps;
};

void img_info(struct img *img, struct img_info *info);

/* ---- data; offsets and lengths in bytes, of any alignment ---- */

/* [off, off + len) must lie within the image: -EINVAL. The iovecs hold at least len bytes. */
int img_readv(struct img *img, const struct iovec *iov, unsigned n_iov, uint64_t off,
	      uint64_t len);
int img_writev(struct img *img, const struct iovec *iov, unsigned n_iov, uint64_t off,
	       uint64_t len);
int img_read(struct img *img, void *buf, uint64_t off, uint64_t len);
int img_write(struct img *img, const void *buf, uint64_t off, uint64_t len);

/* Reads as zeros afterwards; with `unmap` space is given back where the format can. */
int img_write_zeroes(struct img *img, uint64_t off, uint64_t len, bool unmap);

/* The content is not needed any more: whole clusters of it are given back and then read as zeros
 * (qcow2 v3) or keep their old content; parts of clusters stay. */
int img_discard(struct img *img, uint64_t off, uint64_t len);

/* What was written before this call is on the disk when it returns 0. */
int img_flush(struct img *img);

/* ---- where the bytes are ---- */

enum img_kind {
	IMG_DATA,    /* at file_off of file */
	IMG_ZERO,    /* reads as zeros */
	IMG_BACKING, /* not in this image: the one behind it, zeros if there is none */
	IMG_PACKED,  /* in a compressed unit */
};

struct img_extent {
	enum img_kind kind;
	bool writable;  /* data: may be changed where it is */
	uint32_t depth; /* img_map(): 0 the image itself, 1 what is behind it, ... */
	uint64_t len;   /* bytes; more of the same kind may follow */
	uint64_t
		file_off; /* data: of its first byte; packed: of the compressed stream */
	struct img_file *file; /* data, packed: borrowed from the image */
	uint32_t grain; /* not writable: what a first write must fill; a power of two */
	/* packed: the unit's stream takes at most packed_len bytes, unpacks to unit_len bytes, and this
	 * extent begins unit_off bytes into them */
	const struct codec_block *codec;
	uint32_t packed_len, unit_len, unit_off;
};

/*
 * Where [off, off + len) begins to live: fills *e for a prefix of it, down the backing chain, so kind is
 * never IMG_BACKING; holes in host files count as zeros. len > 0.
 */
int img_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e);

/* ---- making images ---- */

struct img_create_opts {
	const char *format;         /* required */
	uint64_t size;              /* bytes; 0 with a backing file: its size */
	const char *backing_path;   /* NULL: none. As it will stand in the image */
	const char *backing_format; /* required with a backing path */
	uint32_t cluster_size;      /* 0: the format's usual one */
	uint32_t refcount_bits;     /* 0: 16 */
	uint32_t version;           /* qcow2: 2 or 3; 0: 3 */
	bool extended_l2;
	bool zstd;    /* compressed clusters are zstd, else deflate */
	bool replace; /* an existing file may be replaced */
};

/* Makes a new, empty image file. 0 or -errno; nothing is left behind on failure. */
int img_create(const char *path, const struct img_create_opts *opts, struct err *err);

#endif

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
struct crypt;

/* The longest chain of backing files that is opened. */
#define IMG_MAX_DEPTH 200

struct img_opts {
	const char *format; /* NULL: probed */
	bool read_only;
	bool no_backing; /* do not open backing files: what lies in them is -ENXIO */
	bool no_lock; /* even if another program has it open; what is read may change */
	bool snapshot; /* writes go to a temporary file that nobody sees; path is not changed */
	bool no_sync;   /* img_flush() leaves the data to the host's page cache */
	bool overwrite; /* see img_overwrite_begin(); also one that is unfinished */
	bool repair;    /* opened for img_check(): what it can repair is not refused */
	/*
	 * Files that an image names (backing files, extents, data files) are followed inside the image's
	 * own folder; and inside this one, "/" for everywhere. NULL: no other.
	 */
	const char *allow_external;
	const char *
		snapshot_name; /* read this internal snapshot (id or name), read-only */
	/* img_open_fd(), read-only: only these bytes of the file are the image (part_len 0: all). */
	uint64_t part_off, part_len;
	/* Passphrase of an encrypted image, and of those behind it: text, or secret_len bytes. NULL: none; such
	 * an image is then opened (-ENOKEY otherwise) only read-only with no_backing or repair, without
	 * its data. A wrong one: -EKEYREJECTED. Borrowed while it is opened. */
	const char *secret;
	size_t secret_len; /* 0: secret is text */
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

/* `len` bytes of an image, at `off`, are at `file_off` of a file. */
struct img_piece {
	uint64_t off, file_off;
	uint32_t len;
};

/*
 * A read-only image of `size` bytes whose pieces lie anywhere in a file; between them it is zeros. Takes `fd` over, and
 * `v` (from malloc()), also on failure. The pieces are sorted, and must not meet: else -EINVAL.
 */
int img_open_pieces(int fd, const char *name, uint64_t size, struct img_piece *v,
		    size_t n, struct img **out, struct err *err);

/* Is the file recognized by its content as an image of some format (raw is none)? False also if it cannot be read. */
bool img_fd_recognized(int fd);

/*
 * Puts an overlay in front of *img that keeps what is written until it is closed: opts->snapshot for an image that is open.
 * 0 or -errno; *img is then closed and NULL.
 */
int img_overlay(struct img **img, struct err *err);

/* A nameless temporary file, on disk if possible: a descriptor, or -errno. */
int img_temp_fd(struct err *err);

/* Writes what is cached and closes the whole chain. The first error of the last writes, if any: the image
 * is closed in any case. `img` may be NULL. */
int img_close(struct img *img);

/*
 * Before a process gives up the right to open files and make connections: what requests may want is there already. Is
 * any file of the image, or of those behind it, held by another program or computer (NBD, http, ssh)? Sending and receiving
 * must then stay possible. Before other threads use the image.
 */
bool img_settle(struct img *img);

/* ---- what it is ---- */

uint64_t img_size(const struct img *img); /* bytes */
bool img_read_only(const struct img *img);
/* Is it being made in one pass? Then units are written with rising offsets, by img_write_unit(). */
bool img_one_pass(const struct img *img);
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
	uint32_t cluster_bytes;   /* what allocation is done in; 0: has no such thing */
	uint32_t version;
	uint32_t refcount_bits;
	uint32_t snapshots; /* internal ones */
	bool extended_l2, lazy_refcounts, dirty, corrupt, encrypted, has_bitmaps,
		compressed;
};

void img_info(struct img *img, struct img_info *info);

/* One more thing that a format tells, in the names of qemu-img's "format-specific". */
enum detail_kind {
	DETAIL_TEXT,
	DETAIL_NUMBER,
	DETAIL_BOOL,
	DETAIL_GROUP, /* what follows, up to DETAIL_END, has names and belongs to it */
	DETAIL_LIST,  /* what follows, up to DETAIL_END, are its members */
	DETAIL_END,
};

struct detail {
	enum detail_kind kind;
	const char *key; /* static; NULL for members of a list, and DETAIL_END */
	char *text;      /* owned */
	uint64_t number; /* DETAIL_BOOL: 0 or 1 */
};

struct details {
	struct detail *v; /* owned */
	size_t n, size;
	bool failed; /* no memory: something is missing */
};

/* What the image's format tells about it beyond struct img_info, to be freed by details_fini(). */
void img_details(struct img *img, struct details *d);
void details_fini(struct details *d);

/* How many files the image consists of, and the name and length of each. */
unsigned img_n_files(const struct img *img);
const char *img_file_path(const struct img *img, unsigned i);

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

/*
 * The packed unit at `off`, or a whole unit of an image that is made in one pass: see struct img_format. -EOPNOTSUPP:
 * not with this image.
 */
int img_write_packed(struct img *img, uint64_t off, const void *data, size_t len);
int img_write_unit(struct img *img, uint64_t off, const void *data, size_t len);

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
	bool present;   /* img_map(): some image of the chain has it */
	bool hole;      /* img_map(): zeros, because the host's file has a hole there */
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
	struct crypt
		*crypt; /* data: encrypted, borrowed from the image; NULL: is not */
	uint64_t
		crypt_off; /* and of its first byte, what the cipher counts sectors by */
};

/*
 * Where [off, off + len) begins to live: fills *e for a prefix of it, down the backing chain, so kind is
 * never IMG_BACKING; holes in host files count as zeros. len > 0.
 */
int img_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e);

/* ---- formats ---- */

struct img_option_desc {
	const char *name;
	enum { OPTION_TEXT, OPTION_BOOL, OPTION_SIZE, OPTION_NUMBER } kind;
	const char *choices; /* "a|b|c": nothing else; NULL: any */
	const char *usual;   /* what it is if not given, for people; NULL: nothing */
	const char *help;
};

/* A setting as given: "cluster_size=64k". */
struct img_option {
	const char *name, *value;
};

struct img_format_info {
	const char *name, *title;
	const char *const *aliases; /* ends with NULL; NULL: none */
	const struct img_option_desc
		*options; /* of create; ends with .name NULL; NULL: none */
	bool creates, writes, checks, repairs, resizes, snapshots, backing, packs;
};

/* The i-th known format; false behind the last. */
bool img_format_at(unsigned i, struct img_format_info *info);
/* The same by name or alias: 0 or -ENOTSUP. */
int img_format_find(const char *name, struct img_format_info *info, struct err *err);

/* The name of the file that an extent of `img` itself is in. */
const char *img_extent_path(const struct img *img, const struct img_extent *e);

/* ---- making images ---- */

struct img_create_opts {
	const char *format;         /* required */
	uint64_t size;              /* bytes; 0 with a backing file: its size */
	const char *backing_path;   /* NULL: none. As it will stand in the image */
	const char *backing_format; /* required with a backing path */
	bool no_backing_check;  /* the backing file need not be there; needs a size */
	uint32_t cluster_size;  /* 0: the format's usual one */
	uint32_t refcount_bits; /* 0: 16 */
	uint32_t version;       /* qcow2: 2 or 3; 0: 3 */
	bool extended_l2;
	bool zstd;    /* compressed clusters are zstd, else deflate */
	bool replace; /* an existing file may be replaced */
	bool no_sync; /* do not wait for the disk at the end */
	const char *
		secret; /* passphrase of an image to be encrypted, if "key-secret" is not among the options */
	size_t secret_len;          /* 0: secret is text */
	const char *allow_external; /* as in img_opts */
	/* Settings by name, of the format's table (img_format_info.options). Borrowed. Those that img_create()
	 * knows itself, whatever the format: size, backing_file, backing_fmt. */
	const struct img_option *options;
	unsigned n_options;
};

/* Makes a new, empty image file. 0 or -errno; nothing is left behind on failure. */
int img_create(const char *path, const struct img_create_opts *opts, struct err *err);

struct img_plan;
struct img_target;

/*
 * Makes a new image that is to be filled, and opens it as *img for writing. Nothing stands at `path` before
 * img_target_commit(); "-" is standard output. `plan`: what will be written, for formats that are
 * written in one pass (see img_one_pass()); valid until the image is closed. NULL: such formats are refused.
 */
int img_target_new(const char *path, const struct img_create_opts *opts,
		   const struct img_plan *plan, struct img_target **t, struct img **img,
		   struct err *err);
/* The same into an open file or pipe, from where it stands on, in one pass; `fd` stays the caller's. `name` is for
 * messages, and must be valid until the image is closed. */
int img_target_new_fd(int fd, const char *name, const struct img_create_opts *opts,
		      const struct img_plan *plan, struct img_target **t,
		      struct img **img, struct err *err);
/* Does a new image read as zeros where nothing was written? Not so a device that holds a raw one. */
bool img_starts_zero(const struct img *img);
/* Closes the image, brings it to the disk, gives it its name. Ends `t` in any case. */
int img_target_commit(struct img_target *t, struct img *img, struct err *err);
/* Leaves nothing behind. NULLs are fine. */
void img_target_drop(struct img_target *t, struct img *img);

/*
 * For an image that was opened with .overwrite, before its content is replaced: from now on it counts as unfinished
 * (img_is_unfinished()), until it is closed after img_overwrite_done(). Other opens refuse it with -EUCLEAN until then, and if
 * that never comes. One thread.
 */
int img_overwrite_begin(struct img *img, struct err *err);
void img_overwrite_done(struct img *img);
/* Did writing to this file or device not get to its end? Not so if that cannot be told. */
bool img_is_unfinished(const char *path);

/* ---- checking and repairing ---- */

enum { IMG_FIX_LEAKS = 1, IMG_FIX_ERRORS = 2 };

struct img_check {
	/* set by the caller */
	unsigned fix; /* IMG_FIX_...: what may be repaired; 0: nothing is written */
	bool dry_run; /* only says what repairing would do */
	const char *
		undo_path; /* NULL: none. New file with what repairing changes (img/undo.h) */
	void (*say)(void *ctx, const char *line); /* each finding; may be NULL */
	void *ctx;
	/* the answer */
	uint64_t corruptions, leaks, check_errors; /* as they were found */
	uint64_t corruptions_fixed, leaks_fixed;   /* of these */
	uint64_t total_clusters, allocated_clusters, fragmented_clusters,
		compressed_clusters;
	uint64_t image_end_offset; /* 0: the format has no such thing */
};

/*
 * Checks the image's tables; with c->fix repairs them (the image must be open for writing, with .repair).
 * 0: the answer is in *c; -ENOTSUP: the format has no check, or cannot be repaired; else it could not be told.
 */
int img_check(struct img *img, struct img_check *c, struct err *err);

/* ---- other changes ---- */

enum img_prealloc {
	IMG_PREALLOC_OFF,
	IMG_PREALLOC_METADATA,
	IMG_PREALLOC_FALLOC,
	IMG_PREALLOC_FULL
};

/* A new size in bytes. Shrinking drops what lies behind it. -ENOTSUP if the format cannot. */
int img_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err);

/* Changes settings of an existing image (-o of amend). -ENOTSUP, -EINVAL. */
int img_amend(struct img *img, const struct img_option *options, unsigned n,
	      struct err *err);

/* Writes another backing file's name (NULL: none) into the image; the guest's data is not touched. */
int img_set_backing(struct img *img, const char *path, const char *format,
		    struct err *err);

/* Drops the image's own data: what is behind it shows through. */
int img_make_empty(struct img *img, struct err *err);

/* ---- internal snapshots ---- */

struct img_snapshot {
	char *id, *name;
	uint64_t vm_state_size, date_sec, vm_clock_nsec, icount, disk_size;
	uint32_t date_nsec;
	bool has_icount;
};

/* The list, to be freed by img_snapshots_free(). 0, -ENOTSUP. */
int img_snapshots(struct img *img, struct img_snapshot **v, size_t *n, struct err *err);
void img_snapshots_free(struct img_snapshot *v, size_t n);
/* `name`: an id or a name. */
int img_snapshot_create(struct img *img, const char *name, struct err *err);
int img_snapshot_delete(struct img *img, const char *name, struct err *err);
int img_snapshot_apply(struct img *img, const char *name, struct err *err);

/* ---- persistent dirty bitmaps ---- */

enum img_bitmap_action {
	IMG_BITMAP_ADD,
	IMG_BITMAP_REMOVE,
	IMG_BITMAP_CLEAR,
	IMG_BITMAP_ENABLE,
	IMG_BITMAP_DISABLE,
	IMG_BITMAP_MERGE
};

/* `granularity`: bytes, of ADD, 0: the usual one. `from`, `source`: of MERGE, a bitmap of an image, which may be
 * `img` itself. */
int img_bitmap(struct img *img, enum img_bitmap_action action, const char *name,
	       uint64_t granularity, struct img *from, const char *source,
	       struct err *err);

struct img_bitmap_copy {
	bool skip_broken; /* those that were not closed properly are left out, and told: */
	void (*say)(void *ctx, const char *name); /* may be NULL */
	void *ctx;
};

/*
 * Copies all persistent bitmaps of `from` to `img`, which may be larger. img NULL: only looks whether they can be copied.
 * -ENOTSUP: one of the two has no bitmaps at all.
 */
int img_bitmaps_copy(struct img *img, struct img *from,
		     const struct img_bitmap_copy *how, struct err *err);

/* ---- measuring ---- */

struct img_range {
	uint64_t off, len;
};

/* What will be in an image: sorted ranges that do not meet; what is between them reads as zeros. */
struct img_plan {
	const struct img_range *data;
	size_t n_data;
	bool packed; /* every unit will be compressed */
};

struct img_measure {
	uint64_t required, fully_allocated; /* bytes of the file */
	uint64_t bitmaps;
	bool has_bitmaps;
};

/* How large an image made with `opts` will be. -ENOTSUP if the format cannot tell. */
int img_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err);

#endif

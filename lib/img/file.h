/*
 * img/file.h - a host file, block device or remote disk (img/nbd/remote.h) that holds an image: vectored whole reads
 * and writes, holes, locks. Any thread, any number at once.
 */
#ifndef IMG_FILE_H
#define IMG_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct img_file;

struct img_file_opts {
	bool read_only;
	bool no_lock;
	bool no_sync; /* file_sync() does nothing */
	bool eager; /* new: what is written goes to the disk soon, for a short file_commit() */
	bool stream; /* a pipe, or whatever: only written, from the beginning on */
	/* Only these bytes of a regular file, read-only (part_len 0: all of it). */
	uint64_t part_off, part_len;
};

/* As many pieces as are handed to the host at once. */
#define IOV_BATCH 64

/* A position in an iovec array. */
struct iov_pos {
	const struct iovec *v;
	unsigned n;
	size_t skip; /* bytes of *v that are used up */
};

/* Moves on by `len` bytes. */
void iov_pos_advance(struct iov_pos *p, uint64_t len);
/* Zeroes the next `len` bytes, or copies to them, and moves on. */
void iov_pos_zero(struct iov_pos *p, uint64_t len);
void iov_pos_put(struct iov_pos *p, const void *src, uint64_t len);
/* Copies the next `len` bytes to `dst` and moves on. */
void iov_pos_get(struct iov_pos *p, void *dst, uint64_t len);
/* The next at most `len` bytes as an array of at most `max` pieces; returns how many bytes it has. */
uint64_t iov_pos_take(const struct iov_pos *p, uint64_t len, struct iovec *out, int max,
		      int *n_out);

/* Opens and locks a regular file or block device, or connects to an address. 0 or -errno: -EBUSY in use. */
int file_open(const char *path, const struct img_file_opts *opts, struct img_file **out,
	      struct err *err);
/* As file_open() for an open descriptor, which it takes over (also on failure). */
int file_open_fd(int fd, const char *path, const struct img_file_opts *opts,
		 struct img_file **out, struct err *err);
void file_close(struct img_file *f);
/* Is it held by another program or computer? Then remote_settle(). */
bool file_settle(struct img_file *f);

/* The name it was opened by. */
const char *file_path(const struct img_file *f);
/* Length in bytes at this moment, 0 if it cannot be told. */
uint64_t file_size(const struct img_file *f);
/* Has it a size that does not change? A block device or a remote disk. */
bool file_is_device(const struct img_file *f);
bool file_read_only(const struct img_file *f);
/* Bytes that it takes on the host's disk. */
uint64_t file_allocated(const struct img_file *f);
/* The same file under two names? */
bool file_same(const struct img_file *a, const struct img_file *b);

/* Whole transfers: 0 or -errno. What lies behind the end of the file reads as zeros. The position moves on. */
int file_readv(struct img_file *f, struct iov_pos *p, uint64_t off, uint64_t len);
int file_writev(struct img_file *f, struct iov_pos *p, uint64_t off, uint64_t len);
int file_read(struct img_file *f, void *buf, uint64_t off, uint64_t len);
int file_write(struct img_file *f, const void *buf, uint64_t off, uint64_t len);

/* Makes a range read as zeros; with `unmap` its blocks are given back where the host can. Extends the file. */
int file_zero(struct img_file *f, uint64_t off, uint64_t len, bool unmap);
/* Gives the blocks of a range back if the host can; what it then reads as is open. */
void file_discard(struct img_file *f, uint64_t off, uint64_t len);
/* Takes the space of a range on the host's disk; makes the file longer. By the host, or by writing zeros. */
int file_preallocate(struct img_file *f, uint64_t off, uint64_t len);
int file_fill(struct img_file *f, uint64_t off, uint64_t len);
/*
 * [to, to + len) of `f` becomes what is at `from` of `src`, without the data going through memory: both share the blocks, or
 * (`copy`) the host copies them. -EOPNOTSUPP: not with these files, or not there.
 */
int file_clone(struct img_file *f, uint64_t to, const struct img_file *src,
	       uint64_t from, uint64_t len, bool copy);
/* May it still be possible? False when the host has said no. */
bool file_may_clone(const struct img_file *f, bool copy);
int file_truncate(struct img_file *f, uint64_t size);
int file_sync(struct img_file *f);
/* As file_sync(), even if that does nothing. */
int file_commit(struct img_file *f);

/*
 * The unfinished mark. A device, or a file that is overwritten in place, is no image before all of it is there: so its
 * first bytes are held back, and a mark stands in their place on the disk.
 *
 * file_hold(): from now on the first bytes are in memory: zeros if `fresh`, else as they are on the disk; what an older
 * mark put aside comes back. file_mark(): the mark goes to the disk. file_release(): when all else is on the
 * disk (`sync`: waits for that), the first bytes go there, too; without file_mark(), or without file_hold(), nothing. A file that is closed
 * without it stays marked. One thread; files of less than 4 KiB are not held.
 */
int file_hold(struct img_file *f, bool fresh);
int file_mark(struct img_file *f);
int file_release(struct img_file *f, bool sync);
/* Are these, at least 16, the first bytes of a marked file? */
bool file_head_is_mark(const void *head, size_t len);

/* Is `off` data, and for how many bytes at most `len` is that so? */
bool file_is_data(struct img_file *f, uint64_t off, uint64_t len, uint64_t *n);

#endif

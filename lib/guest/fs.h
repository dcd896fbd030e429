/*
 * guest/fs.h - file systems inside images, read-only and by their own metadata: how much is used, which bytes,
 * whether they were left in order, and files of some of them. One thread for each open file system.
 */
#ifndef GUEST_FS_H
#define GUEST_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "guest/ranges.h"

struct img;
struct fs;

enum fs_state {
	FS_CLEAN,
	FS_DIRTY,      /* in use, or not left in order: its maps cannot be trusted */
	FS_HIBERNATED, /* a system sleeps in it and has parts of it in memory */
};

struct fs_info {
	char type[16]; /* "ext4" */
	char label[256], uuid[40];
	uint64_t size, free; /* bytes; free only with has_free */
	uint32_t block;      /* bytes */
	bool has_free;
	enum fs_state state;
	char why[96]; /* not clean: the reason, for people */
};

/* Is the type (libblkid's name) one that fs_open() knows? */
bool fs_known(const char *type);

/*
 * Opens the file system of this type in [off, off + len). 0 and *out (fs_close()), or -ENOTSUP: not known, or a
 * feature of it is not; -EUCLEAN: damaged.
 */
int fs_open(struct img *img, uint64_t off, uint64_t len, const char *type,
	    struct fs **out, struct err *err);
void fs_close(struct fs *fs);
const struct fs_info *fs_info(const struct fs *fs);

/*
 * Adds to `used` what of the range holds anything: offsets from the file system's own beginning, up to the end
 * of the range that was given to fs_open(). What is behind the file system's end counts as used.
 * -EUCLEAN: it is not clean, or its maps contradict each other; -ENOTSUP: a feature is not known. Then
 * all of it has to be taken as used.
 */
int fs_used(struct fs *fs, struct ranges *used, struct err *err);

struct fs_file;

/*
 * A file by its path ("/etc/os-release"; symbolic links within the file system are followed where it has them;
 * FAT and NTFS: case does not matter). -ENOENT; -ENOTSUP: files of this kind of file system are not read.
 * Ends with fs_file_close(), before fs_close().
 */
int fs_file_open(struct fs *fs, const char *path, struct fs_file **out);
uint64_t fs_file_size(const struct fs_file *f);
/* Reads exactly len bytes at off: 0, -ENXIO behind the end, -EIO, -EUCLEAN. */
int fs_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len);
void fs_file_close(struct fs_file *f);
/* Where its bytes are, as ranges of the file system in the order of the file; what is not allocated is
 * left out. -ENOTSUP. */
int fs_file_ranges(struct fs_file *f, struct ranges *r);

/* The first bytes of a file, at most `max`, with one 0 byte behind them (free()); NULL: there is none. */
char *fs_load(struct fs *fs, const char *path, size_t max, size_t *len);

#endif

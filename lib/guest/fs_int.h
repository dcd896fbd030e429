/* guest/fs_int.h - how a file system is added: a table of operations, in fs.c. Private to lib/guest. */
#ifndef GUEST_FS_INT_H
#define GUEST_FS_INT_H

#include "guest/fs.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "img/img.h"

/* Larger ones are not looked into: 256 TiB. */
#define FS_MAX_BYTES (1ull << 48)

struct fs_ops {
	const char *const *types; /* ends with NULL */
	/* Fills fs->info; priv is freed by close, also after a failure. */
	int (*open)(struct fs *fs, struct err *err);
	void (*close)(struct fs *fs); /* may be NULL */
	/* As fs_used(); the state was looked at already. Need not be sorted. */
	int (*used)(struct fs *fs, struct ranges *used, struct err *err);
	/* May be NULL. `f` is zeroed, but for fs. */
	int (*file_open)(struct fs *fs, const char *path, struct fs_file *f);
	int (*file_read)(struct fs_file *f, void *buf, uint64_t off, size_t len);
	void (*file_close)(struct fs_file *f);
	int (*file_ranges)(struct fs_file *f, struct ranges *r);
};

struct fs {
	struct img *img; /* borrowed */
	uint64_t off, len;
	const struct fs_ops *ops;
	struct fs_info info;
	void *priv;
};

struct fs_file {
	struct fs *fs;
	uint64_t size;
	void *priv;
};

extern const struct fs_ops fs_ext, fs_swap, fs_fat, fs_exfat, fs_ntfs, fs_xfs, fs_btrfs;

/* Reads at an offset of the file system: -ENXIO outside. */
int fs_read(const struct fs *fs, void *buf, uint64_t off, uint64_t len);
/* In new memory (free()); NULL: outside, not readable, or no memory. */
void *fs_read_new(const struct fs *fs, uint64_t off, uint64_t len);
/* Sets the state and its reason, unless there is a worse one. */
void fs_not_clean(struct fs *fs, enum fs_state state, const char *why);
/* -EUCLEAN with a message. */
int fs_damaged(const struct fs *fs, struct err *err, const char *what);
void fs_uuid(struct fs *fs, const uint8_t b[16]);
/* A label of at most n bytes in some 8-bit code; blanks at the end go. */
void fs_label(struct fs *fs, const void *p, size_t n);

#endif

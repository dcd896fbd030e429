/* guest/ext_int.h - ext2, ext3, ext4: what its files share. Private to lib/guest. */
#ifndef GUEST_EXT_INT_H
#define GUEST_EXT_INT_H

#include "guest/fs_int.h"

enum {
	COMPAT_SPARSE2 = 0x200,
	INCOMPAT_RECOVER = 0x4,
	INCOMPAT_JOURNAL_DEV = 0x8,
	INCOMPAT_META_BG = 0x10,
	INCOMPAT_64BIT = 0x80,
	RO_SPARSE = 0x1,
	RO_GDT_CSUM = 0x10,
	RO_BIGALLOC = 0x200,
	RO_METADATA_CSUM = 0x400,
};

struct ext {
	uint32_t block, groups, group_blocks, group_inodes, inodes;
	uint32_t inode_size, desc_size, cluster; /* cluster: blocks */
	uint32_t compat, incompat, ro_compat, first_meta_bg, reserved_gdt, backup[2];
	uint64_t blocks, first;
	uint8_t *desc; /* owned: all group descriptors, once they are wanted */
};

struct ext_group {
	uint64_t block_bitmap, inode_bitmap, inode_table;
	uint32_t free;
	bool block_uninit;
};

/* The descriptors have to be loaded: 0 or -EIO, -ENOMEM. */
int ext_load_groups(struct fs *fs);
void ext_group(const struct ext *x, uint32_t n, struct ext_group *g);

int ext_file_open(struct fs *fs, const char *path, struct fs_file *f);
int ext_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len);

#endif

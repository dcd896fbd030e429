/* pack/ext4.h - a new ext4 file system with a tree in it, by libext2fs. One thread. */
#ifndef PACK_EXT4_H
#define PACK_EXT4_H

#include <stdint.h>

#include "boot/boot.h"
#include "pack/tree.h"

/* How many bytes a file system for the tree takes, with room to work in. */
uint64_t ext4_size_for(const struct tree *t);

#define EXT4_MAX_RUNS 4096

/* A regular file whose place on the disk is wanted. */
struct ext4_file {
	uint32_t object; /* of the tree */
	/* Results; `run` is the caller's to free, also after a failure. */
	struct boot_run *run;
	unsigned n;
	uint64_t size;
};

/*
 * Writes the file system to `fd`, an empty file, from `at` on (whole MiB), where it is `size` bytes long (whole MiB, at least 16).
 * `label` may be NULL. The layers are those the tree was built from. 0 or -errno: -ENOSPC it does not fit.
 */
int ext4_write(int fd, uint64_t at, uint64_t size, const char *label, struct tree *t,
	       const struct tree_layer *v, unsigned n, struct ext4_file *files,
	       unsigned n_files, struct err *err);

#endif

/*
 * pack/rootfs.h - trees of files that become a disk: tar files of a root file system, archives of `docker save` and OCI image layouts
 * (as a tar file or a folder), plain folders. One thread.
 */
#ifndef PACK_ROOTFS_H
#define PACK_ROOTFS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct rootfs;

/* Opens what is at `path`, or an open file, which is taken over. 0 and *out; 0 and NULL: no tree. */
int rootfs_open(const char *path, const atomic_bool *stop, struct rootfs **out,
		struct err *err);
int rootfs_open_fd(int fd, const char *name, const atomic_bool *stop,
		   struct rootfs **out, struct err *err);
void rootfs_close(struct rootfs *r);

const char *rootfs_kind(const struct rootfs *r); /* "tar", "docker", "oci", "folder" */
unsigned rootfs_layers(const struct rootfs *r);

/* What is to become of a tree. */
struct rootfs_disk {
	uint64_t
		size; /* bytes of the file system; 0: what it needs, and a quarter more */
	const char *label; /* of the file system; NULL: none */
	const char *
		command; /* the kernel's command line, behind root=; NULL: the usual one */
	/* Results. A disk without a kernel is the file system alone. */
	bool bootable;
	bool has_init;                 /* what a kernel starts by itself is there */
	char kernel[256], initrd[256]; /* "" if there is none */
	char line[2048];               /* the whole command line */
};

/* One more layer: a tar file, which stays the caller's, and open until the tree is written. */
int rootfs_add_tar(struct rootfs *r, int fd, struct err *err);

/*
 * Writes an ext4 file system with the tree in it to `fd`, an empty file. If there is a kernel in /boot, the disk gets a partition
 * table and a loader that starts it. 0 or -errno.
 */
int rootfs_write(struct rootfs *r, int fd, struct rootfs_disk *d, struct err *err);

#endif

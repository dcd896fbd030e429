/*
 * pack/rootfs.h - trees of files that become a disk: tar files of a root file system, archives of `docker save` and OCI image layouts
 * (as a tar file or a folder), plain folders. One thread.
 */
#ifndef PACK_ROOTFS_H
#define PACK_ROOTFS_H

#include <stdatomic.h>
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

/* Writes an ext4 file system with the tree in it to `fd`, an empty file. size 0: what it needs, and a quarter more. */
int rootfs_write_ext4(struct rootfs *r, int fd, uint64_t size, const char *label,
		      struct err *err);

#endif

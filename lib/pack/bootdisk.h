/* pack/bootdisk.h - a tree of files as a disk: with a kernel in /boot one that a BIOS starts. One thread. */
#ifndef PACK_BOOTDISK_H
#define PACK_BOOTDISK_H

#include "pack/rootfs.h"
#include "pack/tree.h"

/*
 * Writes the disk to `fd`, an empty file; its file system has `size` bytes. `command`: what a container of the tree would run, or NULL.
 * The results are left in *d. 0 or -errno.
 */
int bootdisk_write(int fd, uint64_t size, struct rootfs_disk *d, const char *command,
		   struct tree *t, const struct tree_layer *v, unsigned n,
		   struct err *err);

/* A tar file with these files (initrd may be NULL) as /boot/vmlinuz and /boot/initrd.img, for rootfs_add_tar(): its descriptor
 * or -errno. */
int bootdisk_kernel_tar(const char *kernel, const char *initrd, struct err *err);

#endif

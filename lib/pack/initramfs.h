/*
 * pack/initramfs.h - writes a Linux initramfs: a cpio archive of the "newc" kind, by libarchive.
 * Everything belongs to root in it. Any thread, one archive per thread.
 */
#ifndef PACK_INITRAMFS_H
#define PACK_INITRAMFS_H

#include "base/err.h"

struct initramfs;

/* Starts archive `path` (written beside and renamed by _close); NULL with *err. */
struct initramfs *initramfs_new(const char *path, struct err *err);

/* Adds; parents must have been added before. mode: permission bits. 0 or -errno. */
int initramfs_dir(struct initramfs *a, const char *name, struct err *err);
int initramfs_file(struct initramfs *a, const char *name, const char *host_path,
		   unsigned mode, struct err *err);
int initramfs_link(struct initramfs *a, const char *name, const char *target,
		   struct err *err);
int initramfs_chardev(struct initramfs *a, const char *name, unsigned major,
		      unsigned minor, struct err *err);

/* Ends the archive and gives it its name; on an error nothing is left. Frees `a`. */
int initramfs_close(struct initramfs *a, struct err *err);
/* Gives up: removes what was written. Frees `a`. */
void initramfs_abort(struct initramfs *a);

#endif

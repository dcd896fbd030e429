/* host/disk.h - a disk image as a block device, with worker threads. */
#ifndef HOST_DISK_H
#define HOST_DISK_H

#include "base/err.h"
#include "img/img.h"
#include "vm/blk.h"

struct disk_opts {
	char *path;
	char *format;         /* NULL: recognized */
	char *allow_external; /* where files that the image names may be; NULL: its folder */
	char serial[21];
	bool read_only, snapshot;
	char *key_file; /* the passphrase of an encrypted image is in it; NULL: none */
	char *secret; /* the passphrase; owned, wiped by disk_opts_free(). NULL: none */
	size_t secret_len;
	/* Opens the image; NULL: img_open(). */
	int (*open)(const char *path, const struct img_opts *o, struct img **out,
		    struct err *err);
};

/*
 * Reads "FILE[,ro][,snapshot][,format=NAME][,allow-external=DIR][,serial=TEXT][,key-file=FILE]"; a comma in FILE is
 * written twice. 0 or -EINVAL; the caller ends with disk_opts_free() either way.
 */
int disk_opts_parse(const char *text, struct disk_opts *o, struct err *err);
void disk_opts_free(struct disk_opts *o);

/* Opens the image (-ENOKEY in *err: o->secret is wanted) and starts `workers` threads (1..16) for it. NULL with *err. */
struct blk *disk_open(const struct disk_opts *o, unsigned workers, struct err *err);

/* Is it held by another program or computer, of a disk_open() block device? The sandbox must then let it talk. */
bool disk_is_remote(struct blk *b);

#endif

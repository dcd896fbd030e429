/* host/disk.h - a disk image as a block device, with worker threads. */
#ifndef HOST_DISK_H
#define HOST_DISK_H

#include "base/err.h"
#include "vm/blk.h"

struct disk_opts {
	char *path;
	char *format;         /* NULL: recognized */
	char *allow_external; /* where files that the image names may be; NULL: its folder */
	char serial[21];
	bool read_only, snapshot;
};

/*
 * Reads "FILE[,ro][,snapshot][,format=NAME][,allow-external=DIR][,serial=TEXT]"; a comma in FILE is
 * written twice. 0 or -EINVAL; the caller ends with disk_opts_free() either way.
 */
int disk_opts_parse(const char *text, struct disk_opts *o, struct err *err);
void disk_opts_free(struct disk_opts *o);

/* Opens the image and starts `workers` threads (1..16) for it. NULL with *err. */
struct blk *disk_open(const struct disk_opts *o, unsigned workers, struct err *err);

#endif

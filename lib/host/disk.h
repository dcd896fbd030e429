/* host/disk.h - a disk image as a block device, with worker threads. */
#ifndef HOST_DISK_H
#define HOST_DISK_H

#include "base/err.h"
#include "vm/blk.h"

struct disk_opts {
	char *path;           /* owned by whoever parsed it */
	char *format;         /* NULL: recognized */
	char *allow_external; /* where files that the image names may be; NULL: its folder */
	char serial[21];
	bool read_only, snapshot;
};

/*
 * Reads "FILE[,ro][,snapshot][,format=NAME][,allow-external=DIR][,serial=TEXT]"; a comma in FILE is
 * written twice. 0 or -EINVAL. path, format and allow_external are the caller's to free().
 */
int disk_opts_parse(const char *text, struct disk_opts *o, struct err *err);

/* Opens the image and starts `workers` threads (1..16) for it. NULL with *err. */
struct blk *disk_open(const struct disk_opts *o, unsigned workers, struct err *err);

#endif

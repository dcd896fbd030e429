/*
 * part/view.h - a range of an image as a file that libblkid and libfdisk can read: a nameless, sparse file in
 * memory that holds only the pieces that were asked for and reads as zeros elsewhere. One thread.
 */
#ifndef PART_VIEW_H
#define PART_VIEW_H

#include <stdint.h>

#include "base/err.h"

struct img;

struct view {
	struct img *img; /* borrowed */
	int fd;          /* owned */
	uint64_t off, len;
	uint64_t filled; /* bytes, all pieces together */
};

/* A view of [off, off + len). 0, or -errno and nothing to close. */
int view_open(struct view *v, struct img *img, uint64_t off, uint64_t len,
	      struct err *err);
void view_close(struct view *v);
/* Brings a piece into it; what of it lies behind the end is left out. 0 or -errno. */
int view_fill(struct view *v, uint64_t off, uint64_t len, struct err *err);
/* Reads from the image itself; -ENXIO outside the view. */
int view_read(struct view *v, void *buf, uint64_t off, uint64_t len);

#endif

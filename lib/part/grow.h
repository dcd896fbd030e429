/*
 * part/grow.h - the last partition up to the end of the disk: what would have to be written where. One thread; the image is only
 * read.
 */
#ifndef PART_GROW_H
#define PART_GROW_H

#include <stddef.h>

#include "part/part.h"

/* Bytes of the image that get other content. */
struct part_patch {
	uint64_t off;
	uint32_t len;
	uint8_t *data; /* owned */
};

struct part_growth {
	unsigned
		number; /* of the partition; 0: the disk has no table, all of it is meant */
	uint64_t off, len, new_len;
	struct part_patch *v; /* owned; sorted */
	size_t n;
};

/*
 * The partition that ends last gets all that is behind it, and the extended one around it too; a GPT's second table
 * moves to the end of the disk. 0, even if there is nothing to gain (len == new_len: only the table moves); -ENOTSUP: not with
 * this kind of table. part_growth_free().
 */
int part_grow_last(struct img *img, struct part_growth *g, struct err *err);
void part_growth_free(struct part_growth *g);

#endif

/* guest/ranges.h - lists of byte ranges. One thread. */
#ifndef GUEST_RANGES_H
#define GUEST_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "img/img.h"

/* Zero-initialise. */
struct ranges {
	struct img_range *v; /* owned */
	size_t n, size;
};

/* More pieces than this are refused: 256 MiB. */
#define RANGES_MAX (16u << 20)

/* Adds one at the end; one that continues the last is put together with it. 0, -ENOMEM, -EFBIG. */
int ranges_add(struct ranges *r, uint64_t off, uint64_t len);
/* Sorts, and puts together what meets. */
void ranges_sort(struct ranges *r);
uint64_t ranges_bytes(const struct ranges *r);
void ranges_fini(struct ranges *r);

/*
 * Adds to `used` what of [0, end) is in no range of the sorted `free`, shifted by `base`; pieces
 * of `free` behind `end` do not matter.
 */
int ranges_invert(const struct ranges *free, uint64_t end, uint64_t base,
		  struct ranges *used);

/* Adds the runs of bits that are `value` of an LSB-first bitmap of n bits; bit 0 stands for `base`, each for `unit`
 * bytes. */
int ranges_add_bits(struct ranges *r, const uint8_t *bits, uint64_t n, bool value,
		    uint64_t base, uint64_t unit);

#endif

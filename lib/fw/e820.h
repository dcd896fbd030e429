/*
 * fw/e820.h - the memory map a guest is given: sorted ranges of RAM and of what is not to be used
 * (ACPI 6.5, 15). Built before the processors start, by one thread.
 */
#ifndef FW_E820_H
#define FW_E820_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vm/ram.h"

enum e820_type {
	E820_RAM = 1,
	E820_RESERVED = 2,
	E820_ACPI = 3, /* tables: memory again once they were read */
	E820_NVS = 4,
	E820_UNUSABLE = 5
};

#define E820_MAX 128 /* as many as Linux' zero page holds */

struct e820_entry {
	uint64_t base, len; /* bytes, len > 0, the end does not wrap */
	enum e820_type type;
};

/* Zero-initialise. Sorted by base, disjoint, neighbours of one type merged. */
struct e820 {
	struct e820_entry entry[E820_MAX];
	unsigned n;
};

/* An entry as BIOS, Linux and fw_cfg lay it out. */
struct e820_raw {
	le64 base, len;
	le32 type;
};

/*
 * Makes [base, base + len) of `type`, whatever it was before. len 0 changes nothing. 0, -EINVAL
 * (wraps), -ENOSPC (more than E820_MAX entries; then the map is as before).
 */
int e820_add(struct e820 *map, uint64_t base, uint64_t len, enum e820_type type,
	     struct err *err);

/* Adds each region of RAM as such. What is reserved within it is added afterwards. */
int e820_add_ram(struct e820 *map, const struct ram *ram, struct err *err);

/* Is every byte of [base, base + len) of this type? */
bool e820_all(const struct e820 *map, uint64_t base, uint64_t len, enum e820_type type);

/* The end of the highest RAM below `limit`, cut to it; 0 when there is none. */
uint64_t e820_ram_end(const struct e820 *map, uint64_t limit);

/* Entry i in the layout of the BIOS. */
struct e820_raw e820_raw(const struct e820 *map, unsigned i);

#endif

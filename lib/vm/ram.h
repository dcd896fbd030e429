/*
 * vm/ram.h - guest-physical memory that is host memory: RAM (one private mapping: to such the kernel
 * gives huge pages, to a memfd by default not) and ROM, as one sorted table of regions. It serves
 * KVM's slots, the emulator's TLB fill and device DMA alike.
 * The table is built before the vCPUs start and does not change after; lookups: any thread.
 */
#ifndef VM_RAM_H
#define VM_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum ram_kind { RAM_RAM, RAM_ROM };

struct ram_region {
	uint64_t gpa, size; /* multiples of 4 KiB */
	uint8_t *host;
	enum ram_kind kind;
};

#define RAM_MAX_REGIONS 32

struct ram {
	struct ram_region region[RAM_MAX_REGIONS]; /* sorted by gpa, disjoint */
	unsigned n_regions;
	uint64_t ram_size; /* bytes of RAM_RAM */
	uint8_t *base;
	uint64_t used; /* bytes of it given to regions */
	/* Called after a device wrote guest memory: the emulator drops decoded code. May be NULL. */
	void (*written)(void *ctx, uint64_t gpa, uint64_t len);
	void *written_ctx;
};

/* `size` bytes of zeroed memory to make RAM regions of; 0 or -ENOMEM, -EINVAL. */
int ram_init(struct ram *ram, uint64_t size, struct err *err);
void ram_fini(struct ram *ram);

/* Puts the next `size` bytes of the memory at `gpa`. 0, -EEXIST (overlap), -ENOSPC. */
int ram_add(struct ram *ram, uint64_t gpa, uint64_t size, struct err *err);
/* A ROM region with a copy of `len` bytes, filled up to whole pages with 0xff. */
int ram_add_rom(struct ram *ram, uint64_t gpa, const void *data, size_t len,
		struct err *err);

/* The region that holds gpa, or NULL. */
const struct ram_region *ram_find(const struct ram *ram, uint64_t gpa);

/* Host address of [gpa, gpa + len) when one region of RAM (or, for reading, ROM) holds all of it. */
void *ram_ptr(const struct ram *ram, uint64_t gpa, uint64_t len, bool write);

#endif

/*
 * vm/bus.h - an address space of device registers: I/O ports or device memory.
 *
 * A range's handlers run under the machine lock, unless its ops say `unlocked`; those keep their
 * own lock and must never take the machine lock. Mapping and unmapping: machine lock held;
 * unmapping returns when no other thread is inside an unlocked handler of the range.
 */
#ifndef VM_BUS_H
#define VM_BUS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct io_ops {
	/* off: from the range's base; size: one that the range accepts. */
	uint64_t (*read)(void *dev, uint64_t off, unsigned size);
	void (*write)(void *dev, uint64_t off, unsigned size, uint64_t val);
	uint8_t min, max; /* access sizes in bytes that the handlers take; 0: 1 and 8 */
	bool unlocked;
};

/* Embedded in the device. base, len and mapped belong to the bus. */
struct io_range {
	const struct io_ops *ops; /* borrowed */
	void *dev;                /* borrowed: the handlers' first argument */
	const char *name;         /* borrowed: for messages */
	uint64_t base, len;
	bool mapped;
	int priority; /* overlapping ranges: the higher one answers; set before mapping */
	_Atomic unsigned users; /* threads inside an unlocked handler */
};

#define BUS_MAX_RANGES 256

struct bus {
	const char *name;
	uint64_t size;         /* of the address space: addresses are below it */
	pthread_mutex_t *lock; /* borrowed: the machine lock */
	pthread_rwlock_t table_lock;
	struct io_range *range[BUS_MAX_RANGES]; /* borrowed, sorted by base */
	unsigned n;
};

/* `lock` is the machine lock (recursive); it stays the caller's. */
void bus_init(struct bus *bus, const char *name, uint64_t size, pthread_mutex_t *lock);
void bus_fini(struct bus *bus);

/*
 * Maps [base, base + len). 0; -EINVAL (outside the space, or empty), -EEXIST (overlaps a range of the
 * same priority), -ENOSPC. Machine lock held, or before the machine runs.
 */
int bus_map(struct bus *bus, struct io_range *r, uint64_t base, uint64_t len);
void bus_unmap(struct bus *bus, struct io_range *r); /* nothing when it is not mapped */

/*
 * An access of 1, 2, 4 or 8 bytes by a vCPU, not holding the machine lock (it is recursive, so
 * holding it is harmless for locked ranges). Wider accesses than a range takes are split, narrower ones widened
 * (reads) or merged by read-modify-write (writes). Returns false when nothing is mapped at `addr`
 * (a read then gives all ones).
 */
bool bus_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *val);
bool bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val);

#endif

/*
 * vm/bus.c - an address space of device registers.
 *
 * Lock order: machine lock, then table_lock. The table lock is never held while a handler runs:
 * a locked range is looked up again under the machine lock (which mapping needs), an unlocked
 * one is pinned by its `users` count.
 */
#include "vm/bus.h"

#include <sched.h>
#include <stddef.h>
#include <string.h>

#include "base/bits.h"

void bus_init(struct bus *bus, const char *name, uint64_t size, pthread_mutex_t *lock)
{
	*bus = (struct bus){.name = name, .size = size, .lock = lock};
	pthread_rwlock_init(&bus->table_lock, NULL);
}

void bus_fini(struct bus *bus)
{
	pthread_rwlock_destroy(&bus->table_lock);
}

int bus_map(struct bus *bus, struct io_range *r, uint64_t base, uint64_t len)
{
	unsigned at = 0;
	int rc = 0;

	if (!len || !range_ok(base, len, bus->size))
		return -EINVAL;
	bus_unmap(bus, r);
	pthread_rwlock_wrlock(&bus->table_lock);
	if (bus->n == BUS_MAX_RANGES)
		rc = -ENOSPC;
	for (unsigned i = 0; i < bus->n; i++) {
		const struct io_range *o = bus->range[i];

		if (o->priority == r->priority &&
		    range_overlap(o->base, o->len, base, len))
			rc = -EEXIST;
		if (o->base < base)
			at = i + 1;
	}
	if (!rc) {
		memmove(&bus->range[at + 1], &bus->range[at],
			(bus->n - at) * sizeof(bus->range[0]));
		bus->range[at] = r;
		bus->n++;
		r->base = base;
		r->len = len;
		r->mapped = true;
	}
	pthread_rwlock_unlock(&bus->table_lock);
	return rc;
}

void bus_unmap(struct bus *bus, struct io_range *r)
{
	if (!r->mapped)
		return;
	pthread_rwlock_wrlock(&bus->table_lock);
	for (unsigned i = 0; i < bus->n; i++) {
		if (bus->range[i] != r)
			continue;
		bus->n--;
		memmove(&bus->range[i], &bus->range[i + 1],
			(bus->n - i) * sizeof(bus->range[0]));
		break;
	}
	r->mapped = false;
	pthread_rwlock_unlock(&bus->table_lock);
	while (atomic_load(&r->users)) /* handlers without the lock are short */
		sched_yield();
}

/* The range that answers at `addr`; table lock held. */
static struct io_range *find(const struct bus *bus, uint64_t addr)
{
	struct io_range *best = NULL;

	for (unsigned i = 0; i < bus->n; i++) {
		struct io_range *r = bus->range[i];

		if (r->base > addr)
			break;
		if (addr - r->base < r->len && (!best || r->priority > best->priority))
			best = r;
	}
	return best;
}

/* Finds and pins the range at addr: takes the machine lock, or counts a user. */
static struct io_range *enter(struct bus *bus, uint64_t addr)
{
	struct io_range *r;

	pthread_rwlock_rdlock(&bus->table_lock);
	r = find(bus, addr);
	if (r && r->ops->unlocked)
		atomic_fetch_add(&r->users, 1);
	pthread_rwlock_unlock(&bus->table_lock);
	if (!r || r->ops->unlocked)
		return r;
	pthread_mutex_lock(bus->lock);
	pthread_rwlock_rdlock(&bus->table_lock);
	r = find(bus, addr); /* it may have been moved meanwhile */
	pthread_rwlock_unlock(&bus->table_lock);
	if (r && !r->ops->unlocked)
		return r;
	pthread_mutex_unlock(bus->lock);
	return NULL;
}

static void leave(struct bus *bus, struct io_range *r)
{
	if (r->ops->unlocked)
		atomic_fetch_sub(&r->users, 1);
	else
		pthread_mutex_unlock(bus->lock);
}

static unsigned min_size(const struct io_ops *ops)
{
	return ops->min ? ops->min : 1;
}

static unsigned max_size(const struct io_ops *ops)
{
	return ops->max ? ops->max : 8;
}

static uint64_t size_mask(unsigned size)
{
	return size >= 8 ? ~0ull : BIT(8 * size) - 1;
}

/* One read that the handler takes, or a wider aligned one cut to size. */
static uint64_t read_one(const struct io_range *r, uint64_t off, unsigned size)
{
	unsigned min = min_size(r->ops);
	uint64_t v, at;

	if (!r->ops->read)
		return ~0ull;
	if (size >= min)
		return r->ops->read(r->dev, off, size);
	at = align_down(off, min);
	v = r->ops->read(r->dev, at, min);
	return v >> 8 * (off - at);
}

static void write_one(const struct io_range *r, uint64_t off, unsigned size,
		      uint64_t val)
{
	unsigned min = min_size(r->ops);
	uint64_t old, at, mask;

	if (!r->ops->write)
		return;
	if (size >= min) {
		r->ops->write(r->dev, off, size, val & size_mask(size));
		return;
	}
	at = align_down(off, min);
	old = r->ops->read ? r->ops->read(r->dev, at, min) : 0;
	mask = size_mask(size) << 8 * (off - at);
	r->ops->write(r->dev, at, min,
		      (old & ~mask) | ((val << 8 * (off - at)) & mask));
}

/* The size of the next piece of an access at `off` with `left` bytes to go. */
static unsigned piece(const struct io_range *r, uint64_t off, unsigned left)
{
	unsigned size = max_size(r->ops);

	while (size > left || (size > 1 && size > min_size(r->ops) && off % size))
		size /= 2;
	return size ? size : 1;
}

bool bus_read(struct bus *bus, uint64_t addr, unsigned size, uint64_t *val)
{
	struct io_range *r = enter(bus, addr);
	uint64_t v = 0;

	if (!r) {
		*val = size_mask(size);
		return false;
	}
	for (unsigned done = 0; done < size;) {
		uint64_t off = addr + done - r->base;
		unsigned n = piece(r, off, size - done);
		uint64_t part = off < r->len ? read_one(r, off, n) : ~0ull;

		v |= (part & size_mask(n)) << 8 * done;
		done += n;
	}
	leave(bus, r);
	*val = v;
	return true;
}

bool bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t val)
{
	struct io_range *r = enter(bus, addr);

	if (!r)
		return false;
	for (unsigned done = 0; done < size;) {
		uint64_t off = addr + done - r->base;
		unsigned n = piece(r, off, size - done);

		if (off < r->len)
			write_one(r, off, n, (val >> 8 * done) & size_mask(n));
		done += n;
	}
	leave(bus, r);
	return true;
}

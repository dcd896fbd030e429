/*
 * dev/virtq.c - one split virtqueue (virtio 1.2, 2.7).
 *
 * Indices of the rings are read and written as whole 16-bit words with the ordering that 2.7.13
 * asks for. Each access translates its guest address: a word that is not RAM makes the queue broken.
 */
#include "dev/virtq.h"

#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

/* 2.7.5 */
struct virtq_desc {
	le64 addr;
	le32 len;
	le16 flags, next;
};
_Static_assert(sizeof(struct virtq_desc) == 16, "layout of a descriptor");

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

/* 2.7.8 */
struct virtq_used_elem {
	le32 id, len;
};

/* Offsets in the available and used rings (2.7.6, 2.7.8). */
enum { RING_FLAGS = 0, RING_IDX = 2, RING_ENTRIES = 4 };
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY     1

void virtq_reset(struct virtq *q)
{
	*q = (struct virtq){
		.ram = q->ram, .max = q->max, .size = q->max, .vector = 0xffff};
}

/* ---- words of the rings ---- */

static void *word_at(const struct virtq *q, uint64_t gpa)
{
	struct iovec iov;
	unsigned n = 0;

	return dma_map(q->ram, gpa, 2, &iov, &n, 1) ? iov.iov_base : NULL;
}

static bool get16(const struct virtq *q, uint64_t gpa, uint16_t *v)
{
	const uint16_t *p = word_at(q, gpa);

	if (p)
		*v = __atomic_load_n(p, __ATOMIC_ACQUIRE);
	return p != NULL;
}

static bool set16(const struct virtq *q, uint64_t gpa, uint16_t v)
{
	uint16_t *p = word_at(q, gpa);

	if (!p)
		return false;
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
	dma_written(q->ram, gpa, 2);
	return true;
}

static uint64_t used_event_gpa(const struct virtq *q)
{
	return q->avail + RING_ENTRIES + 2ull * q->size;
}

static uint64_t avail_event_gpa(const struct virtq *q)
{
	return q->used + RING_ENTRIES + 8ull * q->size;
}

/* ---- is it sound? ---- */

static bool all_ram(const struct ram *ram, uint64_t gpa, uint64_t len)
{
	struct iovec iov[8];
	unsigned n = 0;

	return gpa + len >= gpa && dma_map(ram, gpa, len, iov, &n, ARRAY_LEN(iov));
}

bool virtq_usable(const struct virtq *q)
{
	return is_pow2(q->size) && q->size <= q->max && !(q->desc % 16) &&
	       !(q->avail % 2) && !(q->used % 4) &&
	       all_ram(q->ram, q->desc, 16ull * q->size) &&
	       all_ram(q->ram, q->avail, 6 + 2ull * q->size) &&
	       all_ram(q->ram, q->used, 6 + 8ull * q->size);
}

/* ---- taking chains ---- */

/* Where a chain's descriptors are: the queue's table, or an indirect one. */
struct table {
	uint64_t gpa;
	uint32_t n;
	bool indirect;
};

static bool desc_get(const struct virtq *q, const struct table *t, uint32_t i,
		     struct virtq_desc *d)
{
	return i < t->n && dma_read(q->ram, t->gpa + 16ull * i, d, sizeof(*d));
}

/* Adds one buffer to the chain. */
static bool chain_add(const struct virtq *q, struct virtq_chain *c,
		      const struct virtq_desc *d)
{
	uint64_t gpa = le64_get(d->addr);
	uint32_t len = le32_get(d->len);
	unsigned n = c->n_out + c->n_in, before = n;

	if (!dma_map(q->ram, gpa, len, c->iov, &n, VIRTQ_MAX_IOV))
		return false;
	for (unsigned i = before; i < n; i++) {
		c->gpa[i] = gpa;
		gpa += c->iov[i].iov_len;
	}
	if (le16_get(d->flags) & DESC_WRITE) {
		c->n_in += n - before;
		c->in_len += len;
	} else if (c->in_len) {
		return false; /* 2.7.4.2: what is read comes first */
	} else {
		c->n_out += n - before;
		c->out_len += len;
	}
	return true;
}

/* An indirect descriptor switches to its table: only from the queue's, and as its last (2.7.5.3). */
static bool enter_indirect(const struct virtq_desc *d, struct table *t)
{
	uint32_t len = le32_get(d->len);

	if (t->indirect || (le16_get(d->flags) & DESC_NEXT) || !len || len % 16 ||
	    len / 16 > VIRTQ_MAX_SIZE)
		return false;
	*t = (struct table){.gpa = le64_get(d->addr), .n = len / 16, .indirect = true};
	return true;
}

static bool chain_walk(const struct virtq *q, struct virtq_chain *c)
{
	struct table t = {.gpa = q->desc, .n = q->size};
	uint32_t i = c->head, left = t.n;

	c->n_out = c->n_in = 0;
	c->out_len = c->in_len = 0;
	while (left--) {
		struct virtq_desc d;
		uint16_t flags;

		if (!desc_get(q, &t, i, &d))
			return false;
		flags = le16_get(d.flags);
		if (flags & DESC_INDIRECT) {
			if (!enter_indirect(&d, &t))
				return false;
			i = 0;
			left = t.n;
			continue;
		}
		if (!chain_add(q, c, &d))
			return false;
		if (!(flags & DESC_NEXT))
			return true;
		i = le16_get(d.next);
	}
	return false; /* more links than descriptors: a loop */
}

enum virtq_result virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	uint16_t idx;

	if (!q->enabled)
		return VIRTQ_EMPTY;
	if (!get16(q, q->avail + RING_IDX, &idx))
		return VIRTQ_BROKEN;
	if (idx == q->next_avail)
		return VIRTQ_EMPTY;
	if ((uint16_t)(idx - q->next_avail) > q->size || q->in_flight >= q->size)
		return VIRTQ_BROKEN;
	if (!get16(q, q->avail + RING_ENTRIES + 2ull * (q->next_avail & (q->size - 1)),
		   &c->head) ||
	    c->head >= q->size || !chain_walk(q, c))
		return VIRTQ_BROKEN;
	q->next_avail++;
	q->in_flight++;
	return VIRTQ_OK;
}

void virtq_unpop(struct virtq *q, unsigned n)
{
	q->next_avail = (uint16_t)(q->next_avail - n);
	q->in_flight = (uint16_t)(q->in_flight - n);
}

bool virtq_fill(struct virtq *q, uint16_t head, uint32_t len)
{
	struct virtq_used_elem e = {le32_make(head), le32_make(len)};
	uint64_t slot = q->next_used & (q->size - 1);

	if (q->in_flight)
		q->in_flight--;
	q->next_used++;
	return dma_write(q->ram, q->used + RING_ENTRIES + sizeof(e) * slot, &e,
			 sizeof(e));
}

bool virtq_publish(struct virtq *q)
{
	return set16(q, q->used + RING_IDX, q->next_used);
}

/* ---- who wants to be told ---- */

bool virtq_wants_irq(struct virtq *q)
{
	uint16_t old = q->signalled, now = q->next_used, event = 0;
	bool valid = q->signalled_valid;

	/* The index must be visible before the driver's wish is read (2.7.13.4.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx) {
		get16(q, q->avail + RING_FLAGS, &event);
		return !(event & AVAIL_NO_INTERRUPT);
	}
	q->signalled = now;
	q->signalled_valid = true;
	get16(q, used_event_gpa(q), &event);
	return !valid || (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

void virtq_set_kicks(struct virtq *q, bool on)
{
	if (!q->enabled)
		return;
	if (!q->event_idx)
		set16(q, q->used + RING_FLAGS, on ? 0 : USED_NO_NOTIFY);
	else if (on)
		set16(q, avail_event_gpa(q), q->next_avail);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool virtq_has_more(struct virtq *q)
{
	uint16_t idx;

	return q->enabled && get16(q, q->avail + RING_IDX, &idx) &&
	       idx != q->next_avail;
}

/* ---- chains as byte strings ---- */

/* The part of iov i that lies `*off` bytes on: false (and *off lowered) when it starts behind it. */
static bool skip(const struct iovec *iov, uint64_t *off)
{
	if (*off < iov->iov_len)
		return true;
	*off -= iov->iov_len;
	return false;
}

size_t virtq_copy_out(const struct virtq_chain *c, uint64_t off, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < c->n_out && done < len; i++) {
		const struct iovec *v = &c->iov[i];
		size_t part;

		if (!skip(v, &off))
			continue;
		part = min_u64(v->iov_len - off, len - done);
		memcpy((char *)buf + done, (const char *)v->iov_base + off, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t virtq_copy_in(const struct ram *ram, const struct virtq_chain *c, uint64_t off,
		     const void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = c->n_out; i < c->n_out + c->n_in && done < len; i++) {
		const struct iovec *v = &c->iov[i];
		size_t part;

		if (!skip(v, &off))
			continue;
		part = min_u64(v->iov_len - off, len - done);
		memcpy((char *)v->iov_base + off, (const char *)buf + done, part);
		dma_written(ram, c->gpa[i] + off, part);
		done += part;
		off = 0;
	}
	return done;
}

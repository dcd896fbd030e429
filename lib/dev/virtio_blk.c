/*
 * dev/virtio_blk.c - virtio block device (virtio 1.2, 5.2).
 *
 * Requests are taken in the thread that was notified (a vCPU's or the loop) and completed in the backend's
 * workers, without the machine lock. Data moves between the image and guest memory directly.
 */
#include "dev/virtio_blk.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "dev/virtio_pci.h"

#define MAX_QUEUES  8
#define QUEUE_SIZE  256
#define SECTOR      512
#define MAX_BYTES   (256u << 20) /* one request */
#define MAX_SECTORS (1u << 22)   /* discard, write zeroes: 2 GiB */
#define ID_LEN      20
#define BUDGET      512 /* requests taken in one go */

/* 5.2.3 */
enum {
	F_SIZE_MAX = 1,
	F_SEG_MAX = 2,
	F_RO = 5,
	F_BLK_SIZE = 6,
	F_FLUSH = 9,
	F_TOPOLOGY = 10,
	F_MQ = 12,
	F_DISCARD = 13,
	F_WRITE_ZEROES = 14,
};

/* 5.2.4 */
struct blk_config {
	le64 capacity; /* 512-byte sectors */
	le32 size_max, seg_max;
	le16 cylinders;
	uint8_t heads, sectors;
	le32 blk_size;
	uint8_t physical_block_exp, alignment_offset;
	le16 min_io_size;
	le32 opt_io_size;
	uint8_t writeback, unused0;
	le16 num_queues;
	le32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
	le32 max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_config) == 60, "layout of the configuration");

/* 5.2.6 */
struct blk_header {
	le32 type, reserved;
	le64 sector;
};
_Static_assert(sizeof(struct blk_header) == 16, "layout of a request");

struct blk_range {
	le64 sector;
	le32 num_sectors, flags;
};
_Static_assert(sizeof(struct blk_range) == 16, "layout of a discard segment");

enum {
	T_IN = 0,
	T_OUT = 1,
	T_FLUSH = 4,
	T_GET_ID = 8,
	T_DISCARD = 11,
	T_WRITE_ZEROES = 13,
};

enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
#define RANGE_UNMAP 1u

struct virtio_blk {
	struct virtio v;
	struct virtio_pci *pci; /* owned */
	struct blk *blk;        /* borrowed */
	struct blk_config config;
};

/* A request on its way through the backend. */
struct request {
	struct blk_req r;
	struct virtio_blk *b;
	unsigned queue;
	uint16_t head;
	bool flush_after; /* a driver without flushes expects its writes to last */
	uint64_t status_gpa;
	uint64_t *gpa; /* of each iov */
	struct iovec iov[];
};

/* ---- completion ---- */

static void finish(struct virtio_blk *b, unsigned queue, uint16_t head,
		   uint64_t status_gpa, uint8_t status, uint64_t data_in)
{
	dma_write(b->v.env->ram, status_gpa, &status, 1);
	virtio_push(&b->v, queue, head, (uint32_t)data_in + 1);
}

/* Worker thread. */
static void on_done(struct blk_req *r, int rc)
{
	struct request *q = container_of(r, struct request, r);
	uint64_t data_in = 0;

	if (!rc && q->flush_after) {
		q->flush_after = false;
		r->op = BLK_FLUSH;
		q->b->blk->ops->submit(q->b->blk, r);
		return;
	}
	if (r->op == BLK_READ) {
		for (unsigned i = 0; i < r->n_iov; i++)
			dma_written(q->b->v.env->ram, q->gpa[i], q->iov[i].iov_len);
		data_in = r->len;
	}
	finish(q->b, q->queue, q->head, q->status_gpa, rc ? S_IOERR : S_OK, data_in);
	free(q);
}

/* ---- requests ---- */

/* A chain being looked at. */
struct parse {
	struct virtio_blk *b;
	unsigned queue;
	const struct virtq_chain *c;
	struct blk_header h;
	uint64_t status_gpa;
	uint64_t data_out, data_in; /* bytes besides header and status */
};

static void reply(const struct parse *p, uint8_t status, uint64_t data_in)
{
	finish(p->b, p->queue, p->c->head, p->status_gpa, status, data_in);
}

/* Adds iov [from, from + n) without the first `skip` bytes, `len` bytes in all. */
static void take_iov(struct request *q, const struct parse *p, unsigned from,
		     unsigned n, uint64_t skip, uint64_t len)
{
	for (unsigned i = from; i < from + n && len; i++) {
		const struct iovec *v = &p->c->iov[i];
		uint64_t part, drop = min_u64(skip, v->iov_len);

		skip -= drop;
		part = min_u64(v->iov_len - drop, len);
		if (!part)
			continue;
		q->iov[q->r.n_iov] = (struct iovec){(char *)v->iov_base + drop, part};
		q->gpa[q->r.n_iov] = p->c->gpa[i] + drop;
		q->r.n_iov++;
		len -= part;
	}
}

static struct request *request_new(const struct parse *p, enum blk_op op, uint64_t off,
				   uint64_t len)
{
	unsigned n = p->c->n_out + p->c->n_in;
	struct request *q =
		mem_new(1, sizeof(*q) + n * (sizeof(q->iov[0]) + sizeof(q->gpa[0])));

	if (!q)
		return NULL;
	q->b = p->b;
	q->queue = p->queue;
	q->head = p->c->head;
	q->status_gpa = p->status_gpa;
	q->gpa = (uint64_t *)&q->iov[n];
	q->r = (struct blk_req){
		.op = op, .off = off, .len = len, .iov = q->iov, .done = on_done};
	return q;
}

static void submit(const struct parse *p, struct request *q)
{
	struct blk *blk = p->b->blk;

	if (!q) {
		reply(p, S_IOERR, 0);
		return;
	}
	if (q->r.op == BLK_WRITE || q->r.op == BLK_WRITE_ZEROES)
		q->flush_after = !virtio_has(&p->b->v, F_FLUSH);
	blk->ops->submit(blk, &q->r);
}

/* Is [sector, sector + len bytes) on the disk and made of whole blocks? Gives the byte offset. */
static bool on_disk(const struct virtio_blk *b, uint64_t sector, uint64_t len,
		    uint64_t *off)
{
	const struct blk *blk = b->blk;

	if (sector > blk->size / SECTOR)
		return false;
	*off = sector * SECTOR;
	return !(*off % blk->block_size) && !(len % blk->block_size) &&
	       range_ok(*off, len, blk->size);
}

static void do_transfer(const struct parse *p, bool write)
{
	uint64_t off, len = write ? p->data_out : p->data_in;
	const struct virtq_chain *c = p->c;
	struct request *q;

	if (!on_disk(p->b, le64_get(p->h.sector), len, &off) || len > MAX_BYTES ||
	    (write && p->b->blk->read_only)) {
		reply(p, S_IOERR, 0);
		return;
	}
	if (!len) {
		reply(p, S_OK, 0);
		return;
	}
	q = request_new(p, write ? BLK_WRITE : BLK_READ, off, len);
	if (q && write)
		take_iov(q, p, 0, c->n_out, sizeof(p->h), len);
	else if (q)
		take_iov(q, p, c->n_out, c->n_in, 0, len);
	submit(p, q);
}

static void do_flush(const struct parse *p)
{
	submit(p, request_new(p, BLK_FLUSH, 0, 0));
}

static void do_get_id(const struct parse *p)
{
	char id[ID_LEN] = {0};
	size_t len;

	memcpy(id, p->b->blk->serial, strnlen(p->b->blk->serial, ID_LEN));
	len = virtq_copy_in(p->b->v.env->ram, p->c, 0, id, min_u64(ID_LEN, p->data_in));
	reply(p, S_OK, len);
}

/* One segment a request, as max_discard_seg and max_write_zeroes_seg say. */
static void do_range(const struct parse *p, enum blk_op op)
{
	struct blk_range r;
	struct request *q;
	uint64_t off, len;
	uint32_t flags;

	if (p->data_out != sizeof(r)) {
		reply(p, S_UNSUPP, 0);
		return;
	}
	virtq_copy_out(p->c, sizeof(p->h), &r, sizeof(r));
	len = (uint64_t)le32_get(r.num_sectors) * SECTOR;
	flags = le32_get(r.flags);
	if (flags & ~(op == BLK_DISCARD ? 0 : RANGE_UNMAP)) {
		reply(p, S_UNSUPP, 0);
		return;
	}
	if (p->b->blk->read_only || len > (uint64_t)MAX_SECTORS * SECTOR ||
	    !on_disk(p->b, le64_get(r.sector), len, &off)) {
		reply(p, S_IOERR, 0);
		return;
	}
	if (!len) {
		reply(p, S_OK, 0);
		return;
	}
	q = request_new(p, op, off, len);
	if (q)
		q->r.unmap = flags & RANGE_UNMAP;
	submit(p, q);
}

static void do_request(const struct parse *p)
{
	const struct virtio *v = &p->b->v;

	switch (le32_get(p->h.type)) {
	case T_IN: do_transfer(p, false); break;
	case T_OUT: do_transfer(p, true); break;
	case T_FLUSH: do_flush(p); break;
	case T_GET_ID: do_get_id(p); break;
	case T_DISCARD:
		if (virtio_has(v, F_DISCARD))
			do_range(p, BLK_DISCARD);
		else
			reply(p, S_UNSUPP, 0);
		break;
	case T_WRITE_ZEROES:
		if (virtio_has(v, F_WRITE_ZEROES))
			do_range(p, BLK_WRITE_ZEROES);
		else
			reply(p, S_UNSUPP, 0);
		break;
	default: reply(p, S_UNSUPP, 0);
	}
}

/* False: there is no place for header or status. */
static bool parse_chain(struct parse *p)
{
	const struct virtq_chain *c = p->c;
	unsigned last = c->n_out + c->n_in - 1;

	if (c->out_len < sizeof(p->h) || !c->in_len)
		return false;
	virtq_copy_out(c, 0, &p->h, sizeof(p->h));
	p->status_gpa = c->gpa[last] + c->iov[last].iov_len - 1;
	p->data_out = c->out_len - sizeof(p->h);
	p->data_in = c->in_len - 1;
	return true;
}

/* Any thread. */
static void blk_kick(void *dev, unsigned queue)
{
	struct virtio_blk *b = dev;
	struct virtq_chain c;
	unsigned budget = BUDGET;

	do {
		virtio_kicks(&b->v, queue, false);
		while (budget && virtio_pop(&b->v, queue, &c)) {
			struct parse p = {.b = b, .queue = queue, .c = &c};

			budget--;
			if (parse_chain(&p)) {
				do_request(&p);
			} else {
				virtio_break(&b->v);
				virtio_push(&b->v, queue, c.head, 0);
			}
		}
		if (!budget) {
			virtio_kick_later(&b->v, queue);
			return;
		}
	} while (virtio_kicks(&b->v, queue, true));
}

/* ---- life ---- */

static void blk_drain(void *dev)
{
	struct virtio_blk *b = dev;

	b->blk->ops->drain(b->blk);
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.id = 2,
	.class_code = 0x010000,
	.kick = blk_kick,
	.kick_any_thread = true,
	.drain = blk_drain,
};

static void fill_config(struct virtio_blk *b, unsigned n_queues)
{
	const struct blk *blk = b->blk;
	uint32_t per_4k = blk->block_size < 4096 ? 4096 / blk->block_size : 1;

	b->config = (struct blk_config){
		.capacity = le64_make(blk->size / SECTOR),
		.size_max = le32_make(1u << 20),
		.seg_max = le32_make(QUEUE_SIZE - 2),
		.blk_size = le32_make(blk->block_size),
		.physical_block_exp = (uint8_t)__builtin_ctz(per_4k),
		.min_io_size = le16_make((uint16_t)per_4k),
		.num_queues = le16_make((uint16_t)n_queues),
		.max_discard_sectors = le32_make(MAX_SECTORS),
		.max_discard_seg = le32_make(1),
		.discard_sector_alignment = le32_make(blk->block_size / SECTOR),
		.max_write_zeroes_sectors = le32_make(MAX_SECTORS),
		.max_write_zeroes_seg = le32_make(1),
		.write_zeroes_may_unmap = blk->can_discard,
	};
}

static uint64_t features(const struct blk *blk)
{
	uint64_t f = BIT(F_SIZE_MAX) | BIT(F_SEG_MAX) | BIT(F_BLK_SIZE) | BIT(F_FLUSH) |
		     BIT(F_TOPOLOGY) | BIT(F_MQ);

	if (blk->read_only)
		return f | BIT(F_RO);
	return f | BIT(F_WRITE_ZEROES) | (blk->can_discard ? BIT(F_DISCARD) : 0);
}

struct virtio_blk *virtio_blk_new(const struct vm_env *env, struct pci_bus *pci,
				  unsigned devfn, struct blk *blk, unsigned n_queues,
				  struct err *err)
{
	struct virtio_blk *b;

	if (!n_queues || n_queues > MAX_QUEUES) {
		err_set(err, EINVAL, "%u queues for a virtio disk, it takes 1 to %d",
			n_queues, MAX_QUEUES);
		return NULL;
	}
	if (blk->block_size < SECTOR || blk->block_size > 65536 ||
	    !is_pow2(blk->block_size)) {
		err_set(err, EINVAL, "a virtio disk cannot have blocks of %u bytes",
			blk->block_size);
		return NULL;
	}
	b = NEW(struct virtio_blk);
	if (!b) {
		err_set(err, ENOMEM, "no memory for a virtio disk");
		return NULL;
	}
	b->blk = blk;
	fill_config(b, n_queues);
	virtio_init(&b->v, &blk_ops, b, env, features(blk), n_queues, QUEUE_SIZE,
		    &b->config, sizeof(b->config));
	b->pci = virtio_pci_new(&b->v, pci, devfn, err);
	if (!b->pci) {
		virtio_blk_free(b);
		return NULL;
	}
	return b;
}

void virtio_blk_free(struct virtio_blk *b)
{
	if (!b)
		return;
	blk_drain(b);
	virtio_pci_free(b->pci);
	virtio_fini(&b->v);
	free(b);
}

void virtio_blk_quiesce(struct virtio_blk *b)
{
	blk_drain(b);
}

void virtio_blk_resized(struct virtio_blk *b)
{
	b->config.capacity = le64_make(b->blk->size / SECTOR);
	virtio_config_changed(&b->v);
}

/*
 * dev/virtio_balloon.c - virtio memory balloon (virtio 1.2, 5.5). Loop thread, machine lock held.
 *
 * Pages that the driver gives are punched out of the memory's file; they read as zeros afterwards and
 * come back by themselves when the guest touches them, so that deflating needs no work.
 *
 * Free page reporting uses queue 4 by the specification; Linux before 6.11 numbers queues of negotiated features
 * without gaps and uses 3, or 2 without statistics. Each of them is taken for what it is.
 */
#include "dev/virtio_balloon.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "dev/virtio_pci.h"

#define QUEUE_SIZE 128
#define BUDGET     128   /* chains in one go */
#define MAX_PFNS   65536 /* pages of one chain */
#define PAGE       4096ull
#define HOST_ALIGN 4096ull

enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_FREE_PAGE, Q_REPORTING, N_QUEUES };

/* 5.5.3 */
enum { F_STATS_VQ = 1, F_DEFLATE_ON_OOM = 2, F_REPORTING = 5 };

/* 5.5.4 */
struct balloon_config {
	le32 num_pages, actual;
};
_Static_assert(sizeof(struct balloon_config) == 8, "layout of the configuration");

/* 5.5.6.3 */
struct balloon_entry {
	le16 tag;
	le64 val;
};
_Static_assert(sizeof(struct balloon_entry) == 10, "layout of a statistic");

struct virtio_balloon {
	struct virtio v;
	struct virtio_pci *pci; /* owned */
	struct balloon_config config;
	uint32_t target, actual; /* pages */
	uint64_t stat[BALLOON_STATS];
};

/* ---- giving memory back ---- */

/* Drops whole pages of [gpa, gpa + len); what is not RAM is left alone. */
static void drop(struct virtio_balloon *b, uint64_t gpa, uint64_t len)
{
	const struct ram *ram = b->v.env->ram;
	struct iovec iov[4];
	unsigned n = 0;

	if (gpa + len < gpa || !dma_map(ram, gpa, len, iov, &n, ARRAY_LEN(iov)))
		return;
	for (unsigned i = 0; i < n; i++) {
		uintptr_t p = (uintptr_t)iov[i].iov_base;
		uintptr_t from = align_up(p, HOST_ALIGN);
		uintptr_t to = align_down(p + iov[i].iov_len, HOST_ALIGN);

		if (from < to)
			madvise((void *)from, to - from, MADV_DONTNEED);
	}
	dma_written(ram, gpa, len);
}

/* A chain of page numbers; neighbours are dropped together. */
static void inflate_chain(struct virtio_balloon *b, const struct virtq_chain *c)
{
	uint64_t n = min_u64(c->out_len / 4, MAX_PFNS), from = 0, len = 0;
	le32 part[256];

	for (uint64_t i = 0; i < n; i++) {
		uint64_t gpa;

		if (i % ARRAY_LEN(part) == 0)
			virtq_copy_out(c, i * 4, part, sizeof(part));
		gpa = le32_get(part[i % ARRAY_LEN(part)]) * PAGE;
		if (len && gpa == from + len) {
			len += PAGE;
		} else if (len && gpa + PAGE == from) {
			from = gpa;
			len += PAGE;
		} else {
			drop(b, from, len);
			from = gpa;
			len = PAGE;
		}
	}
	drop(b, from, len);
}

/* Each buffer of the chain is free memory of the guest (5.5.6.7). */
static void report_chain(struct virtio_balloon *b, const struct virtq_chain *c)
{
	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++)
		drop(b, c->gpa[i], c->iov[i].iov_len);
}

static void deflate_chain(struct virtio_balloon *b, const struct virtq_chain *c)
{
	(void)b;
	(void)c;
}

static void serve(struct virtio_balloon *b, unsigned queue,
		  void (*chain)(struct virtio_balloon *b, const struct virtq_chain *c))
{
	struct virtq_chain c;
	unsigned budget = BUDGET;

	do {
		while (budget && virtio_pop(&b->v, queue, &c)) {
			budget--;
			chain(b, &c);
			virtio_fill(&b->v, queue, c.head, 0);
		}
		virtio_flush(&b->v, queue);
		if (!budget) {
			virtio_kick_later(&b->v, queue);
			return;
		}
	} while (virtio_kicks(&b->v, queue, true));
}

/* ---- statistics: the driver's buffer stays in its queue until the next ones are wanted ---- */

static void read_stats(struct virtio_balloon *b)
{
	struct virtq_chain c;
	uint64_t n;

	virtio_kicks(&b->v, Q_STATS, true);
	if (!virtio_pop(&b->v, Q_STATS, &c))
		return;
	memset(b->stat, 0xff, sizeof(b->stat));
	n = min_u64(c.out_len / sizeof(struct balloon_entry), 64);
	for (uint64_t i = 0; i < n; i++) {
		struct balloon_entry e;

		virtq_copy_out(&c, i * sizeof(e), &e, sizeof(e));
		if (le16_get(e.tag) < BALLOON_STATS)
			b->stat[le16_get(e.tag)] = le64_get(e.val);
	}
	virtio_unpop(&b->v, Q_STATS, 1);
}

bool virtio_balloon_ask_stats(struct virtio_balloon *b)
{
	struct virtq_chain c;

	if (!virtio_has(&b->v, F_STATS_VQ) || !virtio_pop(&b->v, Q_STATS, &c))
		return false;
	virtio_push(&b->v, Q_STATS, c.head, 0);
	virtio_kicks(&b->v, Q_STATS, true);
	return true;
}

uint64_t virtio_balloon_stat(const struct virtio_balloon *b,
			     enum virtio_balloon_stat which)
{
	return b->stat[which];
}

/* ---- the device ---- */

static void balloon_kick(void *dev, unsigned queue)
{
	struct virtio_balloon *b = dev;

	if (queue == Q_INFLATE)
		serve(b, queue, inflate_chain);
	else if (queue == Q_DEFLATE)
		serve(b, queue, deflate_chain);
	else if (queue == Q_STATS && virtio_has(&b->v, F_STATS_VQ))
		read_stats(b);
	else if (virtio_has(&b->v, F_REPORTING))
		serve(b, queue, report_chain);
}

static void balloon_config_write(void *dev, unsigned off, unsigned size, uint32_t val)
{
	struct virtio_balloon *b = dev;

	if (off != offsetof(struct balloon_config, actual) || size != 4)
		return;
	b->actual = val;
	b->config.actual = le32_make(val);
}

/* All chains are back: nobody else looks at these now. */
static void balloon_reset(void *dev)
{
	struct virtio_balloon *b = dev;

	b->actual = 0;
	b->config.actual = le32_make(0);
}

void virtio_balloon_set_target(struct virtio_balloon *b, uint64_t bytes)
{
	b->target = (uint32_t)min_u64(bytes / PAGE, UINT32_MAX);
	b->config.num_pages = le32_make(b->target);
	virtio_config_changed(&b->v);
}

uint64_t virtio_balloon_actual(const struct virtio_balloon *b)
{
	return b->actual * PAGE;
}

static const struct virtio_ops balloon_ops = {
	.name = "virtio-balloon",
	.id = 5,
	.class_code = 0x00ff00,
	.kick = balloon_kick,
	.config_write = balloon_config_write,
	.reset = balloon_reset,
};

static const struct state_field balloon_fields[] = {
	STATE(struct virtio_balloon, target),
	STATE(struct virtio_balloon, actual),
	{0},
};

static int balloon_loaded(void *dev)
{
	struct virtio_balloon *b = dev;

	b->config.num_pages = le32_make(b->target);
	b->config.actual = le32_make(b->actual);
	return 0;
}

struct virtio_balloon *virtio_balloon_new(const struct vm_env *env, struct pci_bus *pci,
					  unsigned devfn, struct err *err)
{
	struct virtio_balloon *b = NEW(struct virtio_balloon);

	if (!b) {
		err_set(err, ENOMEM, "no memory for a virtio balloon");
		return NULL;
	}
	memset(b->stat, 0xff, sizeof(b->stat));
	virtio_init(&b->v, &balloon_ops, b, env,
		    BIT(F_STATS_VQ) | BIT(F_DEFLATE_ON_OOM) | BIT(F_REPORTING),
		    N_QUEUES, QUEUE_SIZE, &b->config, sizeof(b->config));
	b->pci = virtio_pci_new(&b->v, pci, devfn, err);
	if (!b->pci) {
		virtio_balloon_free(b);
		return NULL;
	}
	state_add(env->state, "virtio-balloon", (int)devfn, b, balloon_fields, NULL,
		  balloon_loaded);
	return b;
}

void virtio_balloon_free(struct virtio_balloon *b)
{
	if (!b)
		return;
	virtio_pci_free(b->pci);
	virtio_fini(&b->v);
	free(b);
}

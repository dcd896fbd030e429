/* dev/virtio_rng.c - virtio entropy device (virtio 1.2, 5.4). Loop thread, machine lock held. */
#include "dev/virtio_rng.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"
#include "dev/virtio_pci.h"

#define QUEUE_SIZE 8
#define PERIOD     (NS_PER_SEC / 10)
#define PER_PERIOD (VIRTIO_RNG_RATE / 10)
#define PART       4096

struct virtio_rng {
	struct virtio v;
	struct virtio_pci *pci; /* owned */
	struct timer timer;     /* the next period's start, when requests wait for it */
	uint64_t period_end;    /* guest clock, ns */
	uint32_t left;          /* bytes this period still has */
};

/* Fills as much of the chain as this period allows; returns the bytes written. */
static uint32_t fill_chain(struct virtio_rng *r, const struct virtq_chain *c)
{
	uint8_t part[PART];
	uint64_t want = min_u64(c->in_len, r->left), done = 0;

	while (done < want) {
		size_t n = min_u64(want - done, sizeof(part));
		ssize_t got = getrandom(part, n, 0);

		if (got <= 0)
			break;
		virtq_copy_in(r->v.env->ram, c, done, part, (size_t)got);
		done += (uint64_t)got;
	}
	r->left -= (uint32_t)done;
	return (uint32_t)done;
}

static void serve(void *ctx)
{
	struct virtio_rng *r = ctx;
	uint64_t now = clock_now(r->v.env->loop);
	unsigned budget = QUEUE_SIZE;
	struct virtq_chain c;

	if (now >= r->period_end) {
		r->period_end = now + PERIOD;
		r->left = PER_PERIOD;
	}
	do {
		while (r->left && budget && virtio_pop(&r->v, 0, &c)) {
			budget--;
			virtio_push(&r->v, 0, c.head, fill_chain(r, &c));
		}
		if (!r->left || !budget) {
			timer_set(&r->timer, r->period_end);
			return;
		}
	} while (virtio_kicks(&r->v, 0, true));
}

static void rng_kick(void *dev, unsigned queue)
{
	(void)queue;
	serve(dev);
}

static const struct virtio_ops rng_ops = {
	.name = "virtio-rng",
	.id = 4,
	.class_code = 0x00ff00,
	.kick = rng_kick,
};

struct virtio_rng *virtio_rng_new(const struct vm_env *env, struct pci_bus *pci,
				  unsigned devfn, struct err *err)
{
	struct virtio_rng *r = NEW(struct virtio_rng);

	if (!r) {
		err_set(err, ENOMEM, "no memory for a virtio entropy device");
		return NULL;
	}
	timer_init(&r->timer, env->loop, serve, r);
	virtio_init(&r->v, &rng_ops, r, env, 0, 1, QUEUE_SIZE, NULL, 0);
	r->pci = virtio_pci_new(&r->v, pci, devfn, err);
	if (!r->pci) {
		virtio_rng_free(r);
		return NULL;
	}
	return r;
}

void virtio_rng_free(struct virtio_rng *r)
{
	if (!r)
		return;
	timer_cancel(&r->timer);
	virtio_pci_free(r->pci);
	virtio_fini(&r->v);
	free(r);
}

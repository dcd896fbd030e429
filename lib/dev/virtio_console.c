/*
 * dev/virtio_console.c - virtio console device (virtio 1.2, 5.3), one port. Loop thread, machine lock held.
 *
 * Input that comes before the driver has given buffers waits in a ring of INPUT_SIZE bytes.
 */
#include "dev/virtio_console.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "dev/virtio_pci.h"

#define QUEUE_SIZE 128
#define BUDGET     128        /* chains written in one go */
#define MAX_OUTPUT (1u << 20) /* of one chain; what is longer is cut */
#define INPUT_SIZE 4096

enum { Q_RX, Q_TX, N_QUEUES };

/* 5.3.3 */
enum { F_SIZE = 0, F_EMERG_WRITE = 2 };

/* 5.3.4 */
struct console_config {
	le16 cols, rows;
	le32 max_nr_ports, emerg_wr;
};
_Static_assert(sizeof(struct console_config) == 12, "layout of the configuration");

struct virtio_console {
	struct virtio v;
	struct virtio_pci *pci; /* owned */
	struct chr *chr;        /* borrowed */
	struct console_config config;
	uint32_t head, count; /* of input */
	uint8_t input[INPUT_SIZE];
};

/* ---- output ---- */

static void write_chain(struct virtio_console *c, const struct virtq_chain *ch)
{
	uint64_t left = min_u64(ch->out_len, MAX_OUTPUT);

	for (unsigned i = 0; i < ch->n_out && left; i++) {
		size_t n = min_u64(ch->iov[i].iov_len, left);

		c->chr->ops->write(c->chr, ch->iov[i].iov_base, n);
		left -= n;
	}
}

static void write_all(struct virtio_console *c)
{
	struct virtq_chain ch;
	unsigned budget = BUDGET;

	do {
		virtio_kicks(&c->v, Q_TX, false);
		while (budget && virtio_pop(&c->v, Q_TX, &ch)) {
			budget--;
			write_chain(c, &ch);
			virtio_fill(&c->v, Q_TX, ch.head, 0);
		}
		virtio_flush(&c->v, Q_TX);
		if (!budget) {
			virtio_kick_later(&c->v, Q_TX);
			return;
		}
	} while (virtio_kicks(&c->v, Q_TX, true));
}

/* ---- input ---- */

static void feed_chain(struct virtio_console *c, const struct virtq_chain *ch)
{
	size_t done = 0;

	while (c->count && done < ch->in_len) {
		size_t n = min_u64(min_u64(c->count, INPUT_SIZE - c->head),
				   ch->in_len - done);

		virtq_copy_in(c->v.env->ram, ch, done, c->input + c->head, n);
		c->head = (uint32_t)(c->head + n) % INPUT_SIZE;
		c->count -= (uint32_t)n;
		done += n;
	}
	virtio_fill(&c->v, Q_RX, ch->head, (uint32_t)done);
}

/* Gives waiting input to the driver as far as it has buffers. */
static void feed(struct virtio_console *c)
{
	struct virtq_chain ch;
	bool any = false;

	do {
		while (c->count && virtio_pop(&c->v, Q_RX, &ch)) {
			feed_chain(c, &ch);
			any = true;
		}
	} while (c->count && virtio_kicks(&c->v, Q_RX, true));
	if (any)
		virtio_flush(&c->v, Q_RX);
}

static size_t console_room(void *dev)
{
	struct virtio_console *c = dev;

	return INPUT_SIZE - c->count;
}

static void console_receive(void *dev, const uint8_t *p, size_t len)
{
	struct virtio_console *c = dev;

	for (size_t i = 0; i < len && c->count < INPUT_SIZE; i++, c->count++)
		c->input[(c->head + c->count) % INPUT_SIZE] = p[i];
	feed(c);
}

static void console_kick(void *dev, unsigned queue)
{
	struct virtio_console *c = dev;
	uint32_t before = c->count;

	if (queue == Q_TX) {
		write_all(c);
		return;
	}
	feed(c);
	if (c->count < before)
		c->chr->ops->poke(c->chr);
}

/* ---- configuration ---- */

static void console_config_write(void *dev, unsigned off, unsigned size, uint32_t val)
{
	struct virtio_console *c = dev;
	uint8_t ch = (uint8_t)val;

	(void)size;
	if (off == offsetof(struct console_config, emerg_wr))
		c->chr->ops->write(c->chr, &ch, 1);
}

void virtio_console_set_size(struct virtio_console *c, uint16_t cols, uint16_t rows)
{
	c->config.cols = le16_make(cols);
	c->config.rows = le16_make(rows);
	virtio_config_changed(&c->v);
}

/* ---- life ---- */

static const struct virtio_ops console_ops = {
	.name = "virtio-console",
	.id = 3,
	.class_code = 0x078000,
	.kick = console_kick,
	.config_write = console_config_write,
};

static const struct state_field console_fields[] = {
	STATE(struct virtio_console, head),
	STATE(struct virtio_console, count),
	STATE(struct virtio_console, input),
	{0},
};

static int console_loaded(void *dev)
{
	struct virtio_console *c = dev;

	return c->head < INPUT_SIZE && c->count <= INPUT_SIZE ? 0 : -EINVAL;
}

struct virtio_console *virtio_console_new(const struct vm_env *env, struct pci_bus *pci,
					  unsigned devfn, struct chr *chr,
					  struct err *err)
{
	struct virtio_console *c = NEW(struct virtio_console);

	if (!c) {
		err_set(err, ENOMEM, "no memory for a virtio console");
		return NULL;
	}
	c->chr = chr;
	c->config.max_nr_ports = le32_make(1);
	virtio_init(&c->v, &console_ops, c, env, BIT(F_SIZE) | BIT(F_EMERG_WRITE),
		    N_QUEUES, QUEUE_SIZE, &c->config, sizeof(c->config));
	c->pci = virtio_pci_new(&c->v, pci, devfn, err);
	if (!c->pci) {
		virtio_console_free(c);
		return NULL;
	}
	state_add(env->state, "virtio-console", (int)devfn, c, console_fields, NULL,
		  console_loaded);
	chr->peer = (struct chr_peer){
		.room = console_room, .receive = console_receive, .dev = c};
	return c;
}

void virtio_console_free(struct virtio_console *c)
{
	if (!c)
		return;
	if (c->chr->peer.dev == c)
		c->chr->peer = (struct chr_peer){0};
	virtio_pci_free(c->pci);
	virtio_fini(&c->v);
	free(c);
}

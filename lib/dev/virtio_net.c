/*
 * dev/virtio_net.c - virtio network device (virtio 1.2, 5.1), one queue pair. Loop thread, machine lock
 * held.
 *
 * No offloads are offered, as backends take and give plain frames; all frames are handed to the driver
 * (as in promiscuous mode), which drops what is not for it.
 */
#include "dev/virtio_net.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "dev/virtio_pci.h"

#define QUEUE_SIZE 256
#define BUDGET     256 /* frames sent in one go */
#define MIN_FRAME  14  /* an Ethernet header */
#define MAX_MERGED 64  /* buffers that one received frame may fill */

enum { Q_RX, Q_TX, N_QUEUES };

/* 5.1.3 */
enum { F_MTU = 3, F_MAC = 5, F_MRG_RXBUF = 15, F_STATUS = 16 };

/* 5.1.4 */
struct net_config {
	uint8_t mac[6];
	le16 status, max_virtqueue_pairs, mtu;
};
_Static_assert(sizeof(struct net_config) == 12, "layout of the configuration");
#define S_LINK_UP 1

/* 5.1.6: in front of each frame */
struct net_header {
	uint8_t flags, gso_type;
	le16 hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_header) == 12, "layout of the header");

struct virtio_net {
	struct virtio v;
	struct virtio_pci *pci; /* owned */
	struct net *net;        /* borrowed */
	struct net_config config;
	uint8_t link_up;
};

/* ---- to the network ---- */

/* Hands the frame behind the header to the backend; false: malformed. */
static bool send_chain(struct virtio_net *n, const struct virtq_chain *c)
{
	struct iovec iov[VIRTQ_MAX_IOV];
	uint64_t skip = sizeof(struct net_header);
	unsigned n_iov = 0;

	if (c->out_len < skip)
		return false;
	if (!n->link_up || c->out_len - skip < MIN_FRAME ||
	    c->out_len - skip > NET_MAX_FRAME)
		return true; /* no such frame fits a wire: dropped */
	for (unsigned i = 0; i < c->n_out; i++) {
		uint64_t drop = min_u64(skip, c->iov[i].iov_len);

		skip -= drop;
		if (c->iov[i].iov_len > drop)
			iov[n_iov++] = (struct iovec){(char *)c->iov[i].iov_base + drop,
						      c->iov[i].iov_len - drop};
	}
	n->net->ops->send(n->net, iov, n_iov);
	return true;
}

static void send_all(struct virtio_net *n)
{
	struct virtq_chain c;
	unsigned budget = BUDGET;

	do {
		virtio_kicks(&n->v, Q_TX, false);
		while (budget && virtio_pop(&n->v, Q_TX, &c)) {
			budget--;
			if (!send_chain(n, &c))
				virtio_break(&n->v);
			virtio_fill(&n->v, Q_TX, c.head, 0);
		}
		virtio_flush(&n->v, Q_TX);
		if (!budget) {
			virtio_kick_later(&n->v, Q_TX);
			return;
		}
	} while (virtio_kicks(&n->v, Q_TX, true));
}

/* ---- from the network ---- */

static bool net_can_receive(void *dev)
{
	struct virtio_net *n = dev;

	if (virtio_has_chain(&n->v, Q_RX))
		return true;
	/* Ask to be told of new buffers; they may have come just now. */
	return virtio_kicks(&n->v, Q_RX, true);
}

/* A buffer that holds a part of a received frame. */
struct piece {
	uint16_t head;
	uint32_t len;
};

/*
 * Spreads header and frame over buffers; returns how many, 0 when there are not enough (then none is
 * taken). The header is written last, as it counts them.
 */
static unsigned fill_buffers(struct virtio_net *n, const uint8_t *frame, size_t len,
			     struct piece piece[MAX_MERGED])
{
	const struct ram *ram = n->v.env->ram;
	unsigned max = virtio_has(&n->v, F_MRG_RXBUF) ? MAX_MERGED : 1, used = 0;
	struct net_header h = {0};
	struct virtq_chain first, c;
	size_t done = 0;

	while (done < len && used < max) {
		struct virtq_chain *to = used ? &c : &first;
		uint64_t off = used ? 0 : sizeof(h);
		size_t part;

		if (!virtio_pop(&n->v, Q_RX, to))
			break;
		piece[used++].head = to->head;
		if (to->in_len < off) {
			virtio_break(&n->v);
			break;
		}
		part = virtq_copy_in(ram, to, off, frame + done, len - done);
		piece[used - 1].len = (uint32_t)(off + part);
		done += part;
	}
	if (done < len) {
		virtio_unpop(&n->v, Q_RX, used);
		return 0;
	}
	h.num_buffers = le16_make((uint16_t)used);
	virtq_copy_in(ram, &first, 0, &h, sizeof(h));
	return used;
}

static void net_receive(void *dev, const void *frame, size_t len)
{
	struct virtio_net *n = dev;
	struct piece piece[MAX_MERGED];
	unsigned used;

	if (!n->link_up || len < MIN_FRAME || len > NET_MAX_FRAME)
		return;
	used = fill_buffers(n, frame, len, piece);
	for (unsigned i = 0; i < used; i++)
		virtio_fill(&n->v, Q_RX, piece[i].head, piece[i].len);
	if (used)
		virtio_flush(&n->v, Q_RX);
}

static void net_kick(void *dev, unsigned queue)
{
	struct virtio_net *n = dev;

	if (queue == Q_TX) {
		send_all(n);
		return;
	}
	virtio_kicks(&n->v, Q_RX, false);
	n->net->ops->poke(n->net);
}

/* ---- life ---- */

static const struct virtio_ops net_ops = {
	.name = "virtio-net",
	.id = 1,
	.class_code = 0x020000,
	.kick = net_kick,
};

static void config_link(struct virtio_net *n)
{
	n->config.status = le16_make(n->link_up ? S_LINK_UP : 0);
}

void virtio_net_set_link(struct virtio_net *n, bool up)
{
	n->link_up = up;
	config_link(n);
	virtio_config_changed(&n->v);
}

static const struct state_field net_fields[] = {
	STATE(struct virtio_net, link_up),
	{0},
};

static int net_loaded(void *dev)
{
	struct virtio_net *n = dev;

	n->link_up = n->link_up != 0;
	config_link(n);
	return 0;
}

struct virtio_net *virtio_net_new(const struct vm_env *env, struct pci_bus *pci,
				  unsigned devfn, struct net *net, struct err *err)
{
	struct virtio_net *n = NEW(struct virtio_net);

	if (!n) {
		err_set(err, ENOMEM, "no memory for a virtio network card");
		return NULL;
	}
	n->net = net;
	n->link_up = 1;
	memcpy(n->config.mac, net->mac, sizeof(n->config.mac));
	n->config.max_virtqueue_pairs = le16_make(1);
	config_link(n);
	virtio_init(&n->v, &net_ops, n, env,
		    BIT(F_MAC) | BIT(F_STATUS) | BIT(F_MRG_RXBUF), N_QUEUES, QUEUE_SIZE,
		    &n->config, sizeof(n->config));
	n->pci = virtio_pci_new(&n->v, pci, devfn, err);
	if (!n->pci) {
		virtio_net_free(n);
		return NULL;
	}
	state_add(env->state, "virtio-net", (int)devfn, n, net_fields, NULL,
		  net_loaded);
	net->peer = (struct net_peer){
		.can_receive = net_can_receive, .receive = net_receive, .dev = n};
	return n;
}

void virtio_net_free(struct virtio_net *n)
{
	if (!n)
		return;
	if (n->net->peer.dev == n)
		n->net->peer = (struct net_peer){0};
	virtio_pci_free(n->pci);
	virtio_fini(&n->v);
	free(n);
}

/*
 * dev/virtq.h - one split virtqueue (virtio 1.2, 2.7): taking buffers the driver offers, giving them
 * back, and telling when the driver wants to know. The rings belong to the guest: nothing in them
 * is trusted. The caller serialises calls for one queue.
 */
#ifndef DEV_VIRTQ_H
#define DEV_VIRTQ_H

#include <sys/uio.h>

#include "vm/dma.h"

#define VIRTQ_MAX_SIZE 256 /* entries of a queue, descriptors of a chain */
#define VIRTQ_MAX_IOV  (VIRTQ_MAX_SIZE + 32) /* a buffer may span memory regions */

/* A descriptor chain as host memory: what the device reads first, then what it writes. */
struct virtq_chain {
	uint16_t head;
	unsigned n_out,
		n_in; /* of iov: [0, n_out) to read, [n_out, n_out + n_in) to write */
	uint64_t out_len, in_len; /* bytes */
	struct iovec iov[VIRTQ_MAX_IOV];
	uint64_t gpa[VIRTQ_MAX_IOV]; /* where each iov is in the guest */
};

/* Embedded. The guest-visible part; widths are those of the saved state. */
struct virtq {
	const struct ram *ram;      /* borrowed */
	uint64_t desc, avail, used; /* guest addresses of the three parts */
	uint16_t max, size;         /* entries: offered, chosen by the driver */
	uint16_t vector;            /* MSI-X vector */
	uint8_t enabled;
	bool event_idx;      /* VIRTIO_F_EVENT_IDX was negotiated */
	uint16_t next_avail; /* what of the available ring was taken */
	uint16_t next_used;  /* what of the used ring was filled */
	uint16_t signalled;  /* next_used at the last decision to interrupt */
	bool signalled_valid;
	uint16_t in_flight; /* chains taken and not given back */
};

/* Back to the state after a reset; size is `max`. */
void virtq_reset(struct virtq *q);

/* May a queue work with these addresses and this size? Checks alignment and that all is RAM. */
bool virtq_usable(const struct virtq *q);

enum virtq_result {
	VIRTQ_OK,
	VIRTQ_EMPTY,  /* nothing offered */
	VIRTQ_BROKEN, /* the driver broke the rules: the device needs a reset */
};

/* Takes the next chain. */
enum virtq_result virtq_pop(struct virtq *q, struct virtq_chain *c);
/* Puts the last `n` popped chains back, as if never taken; none of them was pushed. */
void virtq_unpop(struct virtq *q, unsigned n);
/*
 * Gives chain `head` back with `len` bytes written. With several pushes, the driver sees them at once after
 * virtq_publish(). False: the used ring is not RAM.
 */
bool virtq_fill(struct virtq *q, uint16_t head, uint32_t len);
bool virtq_publish(struct virtq *q);
/* Does the driver want an interrupt for what was published? Asked once per batch. */
bool virtq_wants_irq(struct virtq *q);

/*
 * Asks for (on) or against (off) notifications. After switching on, the caller must look once more: chains offered
 * meanwhile come without one.
 */
void virtq_set_kicks(struct virtq *q, bool on);
bool virtq_has_more(struct virtq *q);

/* ---- chains as byte strings ---- */

/* Copies out of what the device reads, from `off` on; returns the bytes copied. */
size_t virtq_copy_out(const struct virtq_chain *c, uint64_t off, void *buf, size_t len);
/*
 * Copies into what the device writes, from `off` on, and tells the memory so; returns the bytes copied.
 */
size_t virtq_copy_in(const struct ram *ram, const struct virtq_chain *c, uint64_t off,
		     const void *buf, size_t len);

#endif

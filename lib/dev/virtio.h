/*
 * dev/virtio.h - a virtio device without its transport (virtio 1.2, chapters 2 and 3): feature
 * negotiation, status, queues, configuration; no legacy interface.
 *
 * Lock order: machine lock, virtio->lock, msix->lock. The functions below take virtio->lock themselves and
 * leave it before an interrupt is sent: a device calls its backend without it.
 */
#ifndef DEV_VIRTIO_H
#define DEV_VIRTIO_H

#include "dev/virtq.h"
#include "vm/env.h"

#define VIRTIO_MAX_QUEUES 16
#define VIRTIO_NO_VECTOR  0xffff

/* Features of all devices (6). */
#define VIRTIO_F_INDIRECT  28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1 32

enum virtio_status {
	VIRTIO_S_ACKNOWLEDGE = 1,
	VIRTIO_S_DRIVER = 2,
	VIRTIO_S_DRIVER_OK = 4,
	VIRTIO_S_FEATURES_OK = 8,
	VIRTIO_S_NEEDS_RESET = 64,
	VIRTIO_S_FAILED = 128,
};

/* A kind of device. `dev` is what virtio_init() was given. */
struct virtio_ops {
	const char *name;    /* "virtio-blk" */
	uint16_t id;         /* device type (5) */
	uint32_t class_code; /* of PCI */
	/*
	 * There may be something new in a queue. In the loop thread with the machine lock held, or
	 * with kick_any_thread in any thread, perhaps a vCPU's.
	 */
	void (*kick)(void *dev, unsigned queue);
	bool kick_any_thread;
	/* The driver wrote its configuration. Machine lock held. May be NULL: read-only. */
	void (*config_write)(void *dev, unsigned off, unsigned size, uint32_t val);
	/* Configuration is about to be read. Machine lock held. May be NULL. */
	void (*config_read)(void *dev);
	/* The driver is ready (DRIVER_OK). Machine lock held. May be NULL. */
	void (*started)(void *dev);
	/*
	 * Reset by the driver: what the device holds of chains is void. Any thread, virtio->lock held; all
	 * chains that were passed to workers are back. May be NULL.
	 */
	void (*reset)(void *dev);
	/* Waits until no chain is with a worker. Machine lock held. NULL: they never are. */
	void (*drain)(void *dev);
};

/* How the transport interrupts: queue's index, or -1 for a configuration change. Any thread, no lock. */
struct virtio_irq {
	void (*raise)(void *ctx, int queue, uint16_t vector);
	void *ctx; /* borrowed */
};

/* Embedded in a device. */
struct virtio {
	const struct virtio_ops *ops; /* borrowed */
	void *dev;                    /* borrowed */
	const struct vm_env *env;     /* borrowed */
	struct virtio_irq irq;
	pthread_mutex_t lock; /* all below, save `kicked` */

	uint64_t offered, accepted; /* features */
	uint8_t status, config_gen;
	bool resetting; /* a reset waits for chains that workers have */
	bool dma_ok;    /* the transport may reach memory */
	uint16_t config_vector;
	unsigned n_queues;
	struct virtq q[VIRTIO_MAX_QUEUES];
	uint8_t *config; /* borrowed: the device's own structure */
	unsigned config_len;
	_Atomic uint64_t kicked; /* queues whose kick() the loop will call */

	struct {
		uint64_t desc[VIRTIO_MAX_QUEUES], avail[VIRTIO_MAX_QUEUES],
			used[VIRTIO_MAX_QUEUES];
		uint16_t size[VIRTIO_MAX_QUEUES], vector[VIRTIO_MAX_QUEUES],
			next_avail[VIRTIO_MAX_QUEUES], next_used[VIRTIO_MAX_QUEUES];
		uint8_t enabled[VIRTIO_MAX_QUEUES];
	} saved;
};

/*
 * Features: those of the device type; the common ones are added. `config`: the device type's structure as the
 * driver reads it, borrowed, changed under the machine lock. All queues have `queue_size` entries.
 */
void virtio_init(struct virtio *v, const struct virtio_ops *ops, void *dev,
		 const struct vm_env *env, uint64_t features, unsigned n_queues,
		 uint16_t queue_size, void *config, unsigned config_len);
/* Registers the saved state, "virtio.INSTANCE". */
void virtio_add_state(struct virtio *v, int instance);
void virtio_fini(struct virtio *v);

/* ---- for device types: any thread ---- */

static inline bool virtio_has(const struct virtio *v, unsigned feature)
{
	return v->accepted >> feature & 1;
}

/* Takes the next chain of a queue; false when there is none now. */
bool virtio_pop(struct virtio *v, unsigned queue, struct virtq_chain *c);
/* Puts the last n chains back, none of which was filled or pushed. */
void virtio_unpop(struct virtio *v, unsigned queue, unsigned n);
/* Gives a chain back with `len` bytes written, and interrupts if the driver wants it. */
void virtio_push(struct virtio *v, unsigned queue, uint16_t head, uint32_t len);
/* The same in two steps, for chains that belong together. */
void virtio_fill(struct virtio *v, unsigned queue, uint16_t head, uint32_t len);
void virtio_flush(struct virtio *v, unsigned queue);
/*
 * Notifications from the driver on or off. Returns, for on, whether chains came meanwhile: the caller goes on
 * with them.
 */
bool virtio_kicks(struct virtio *v, unsigned queue, bool on);
/* Is a chain there to take? */
bool virtio_has_chain(struct virtio *v, unsigned queue);
/* The driver broke the device type's rules: DEVICE_NEEDS_RESET. */
void virtio_break(struct virtio *v);
/* The configuration structure was changed. Machine lock held. */
void virtio_config_changed(struct virtio *v);
/* Calls ops->kick() in the loop thread soon. */
void virtio_kick_later(struct virtio *v, unsigned queue);

/* ---- for transports ---- */

/* The driver notified a queue. Any thread; `queue` is unchecked. */
void virtio_kick(struct virtio *v, unsigned queue);
/* Machine lock held for all of these. */
uint8_t virtio_status(struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t status);
void virtio_set_features(struct virtio *v, unsigned word, uint32_t val);
void virtio_set_queue_enable(struct virtio *v, unsigned queue, uint16_t val);
/* Changes part of a queue: 0 desc, 1 avail, 2 used; half 0 is the low doubleword. */
void virtio_set_queue_addr(struct virtio *v, unsigned queue, unsigned part,
			   unsigned half, uint32_t val);
void virtio_set_queue_size(struct virtio *v, unsigned queue, uint16_t size);
/* Bus mastering was switched. */
void virtio_set_dma(struct virtio *v, bool on);
/* Power-on reset; waits for workers. */
void virtio_reset(struct virtio *v);

#endif

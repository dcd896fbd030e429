/*
 * vm/env.h - what a device model needs of the machine besides its lines: handed to constructors.
 * Everything is borrowed and outlives the devices.
 */
#ifndef VM_ENV_H
#define VM_ENV_H

#include "base/log.h"
#include "vm/bus.h"
#include "vm/dma.h"
#include "vm/irq.h"
#include "vm/loop.h"
#include "vm/state.h"

struct vm_env {
	const struct log *log;
	pthread_mutex_t *lock; /* the machine lock, recursive */
	struct bus *pio, *mmio;
	struct ram *ram;
	struct loop *loop; /* and the guest's clock */
	struct state *state;
	struct msi_target msi;
	/* See engine_ops.ioeventfd; NULL where there is none. */
	int (*ioeventfd)(void *ctx, uint64_t gpa, unsigned size, int fd, bool add);
	void *ioeventfd_ctx;
};

#endif

/*
 * dev/pvpanic.c - the guest says that it panicked. No state.
 *
 * Specification: QEMU docs/specs/pvpanic.txt. Threads: machine lock held.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "dev/isa_misc.h"

#define EVENTS (PVPANIC_PANICKED | PVPANIC_CRASHED)

struct pvpanic {
	void (*event)(void *ctx, unsigned events);
	void *ctx;       /* borrowed */
	struct bus *pio; /* borrowed */
	struct io_range io;
};

static uint64_t read_port(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return EVENTS;
}

static void write_port(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct pvpanic *p = dev;

	(void)off;
	(void)size;
	if (val & EVENTS)
		p->event(p->ctx, (unsigned)val & EVENTS);
}

static const struct io_ops ops = {
	.read = read_port, .write = write_port, .min = 1, .max = 1};

void pvpanic_free(struct pvpanic *p)
{
	if (!p)
		return;
	bus_unmap(p->pio, &p->io);
	free(p);
}

struct pvpanic *pvpanic_new(const struct vm_env *env,
			    void (*event)(void *ctx, unsigned events), void *ctx,
			    struct err *err)
{
	struct pvpanic *p = NEW(struct pvpanic);

	if (!p) {
		err_set(err, ENOMEM, "no memory for the panic port");
		return NULL;
	}
	p->pio = env->pio;
	p->event = event;
	p->ctx = ctx;
	p->io = (struct io_range){.ops = &ops, .dev = p, .name = "pvpanic"};
	if (bus_map(env->pio, &p->io, PVPANIC_PORT, 1)) {
		err_set(err, EEXIST, "port 0x%x is taken: no panic port", PVPANIC_PORT);
		pvpanic_free(p);
		return NULL;
	}
	return p;
}

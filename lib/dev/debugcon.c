/*
 * dev/debugcon.c - a port that prints what is written to it. No state. Threads: any; the other end
 * takes bytes from any thread.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "dev/isa_misc.h"

#define HERE 0xe9

struct debugcon {
	struct chr *chr; /* borrowed */
	struct bus *pio; /* borrowed */
	struct io_range io;
};

static uint64_t read_port(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return HERE;
}

static void write_port(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct debugcon *d = dev;
	uint8_t byte = (uint8_t)val;

	(void)off;
	(void)size;
	if (d->chr)
		d->chr->ops->write(d->chr, &byte, 1);
}

static const struct io_ops ops = {
	.read = read_port, .write = write_port, .min = 1, .max = 1, .unlocked = true};

void debugcon_free(struct debugcon *d)
{
	if (!d)
		return;
	bus_unmap(d->pio, &d->io);
	free(d);
}

struct debugcon *debugcon_new(const struct vm_env *env, uint16_t port, struct chr *chr,
			      struct err *err)
{
	struct debugcon *d = NEW(struct debugcon);

	if (!d) {
		err_set(err, ENOMEM, "no memory for the debug console");
		return NULL;
	}
	d->pio = env->pio;
	d->chr = chr;
	d->io = (struct io_range){.ops = &ops, .dev = d, .name = "debugcon"};
	if (bus_map(env->pio, &d->io, port, 1)) {
		err_set(err, EEXIST, "port 0x%x is taken: no debug console", port);
		debugcon_free(d);
		return NULL;
	}
	return d;
}

/*
 * dev/debug_exit.c - a write ends the machine: how test kernels report their result. No state.
 * Threads: machine lock held.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "dev/isa_misc.h"

struct debug_exit {
	void (*exit)(void *ctx, uint32_t value);
	void *ctx;       /* borrowed */
	struct bus *pio; /* borrowed */
	struct io_range io;
};

static uint64_t read_port(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return 0;
}

static void write_port(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct debug_exit *d = dev;

	(void)off;
	(void)size;
	d->exit(d->ctx, (uint32_t)val);
}

static const struct io_ops ops = {
	.read = read_port, .write = write_port, .min = 1, .max = 4};

void debug_exit_free(struct debug_exit *d)
{
	if (!d)
		return;
	bus_unmap(d->pio, &d->io);
	free(d);
}

struct debug_exit *debug_exit_new(const struct vm_env *env, uint16_t port,
				  void (*exit)(void *ctx, uint32_t value), void *ctx,
				  struct err *err)
{
	struct debug_exit *d = NEW(struct debug_exit);

	if (!d) {
		err_set(err, ENOMEM, "no memory for the exit port");
		return NULL;
	}
	d->pio = env->pio;
	d->exit = exit;
	d->ctx = ctx;
	d->io = (struct io_range){.ops = &ops, .dev = d, .name = "debug_exit"};
	if (bus_map(env->pio, &d->io, port, 4)) {
		err_set(err, EEXIST, "port 0x%x is taken: no exit port", port);
		debug_exit_free(d);
		return NULL;
	}
	return d;
}

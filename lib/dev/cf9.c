/*
 * dev/cf9.c - the reset control register of Intel chipsets.
 *
 * Specification: ICH9 data sheet 13.7.5. It lies among the PCI configuration ports and answers byte
 * accesses. Threads: machine lock held.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "dev/isa_misc.h"

enum { SYSTEM_RESET = 2, RESET_CPU = 4, FULL_RESET = 8 };

struct cf9 {
	uint8_t val;
	void (*reset)(void *ctx, bool hard);
	void *ctx;       /* borrowed */
	struct bus *pio; /* borrowed */
	struct io_range io;
};

static uint64_t read_port(void *dev, uint64_t off, unsigned size)
{
	const struct cf9 *c = dev;

	(void)off;
	(void)size;
	return c->val;
}

static void write_port(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct cf9 *c = dev;
	uint8_t old = c->val;

	(void)off;
	(void)size;
	c->val = val & (SYSTEM_RESET | RESET_CPU | FULL_RESET);
	if (!(old & RESET_CPU) && (val & RESET_CPU))
		c->reset(c->ctx, val & (SYSTEM_RESET | FULL_RESET));
}

static const struct io_ops ops = {
	.read = read_port, .write = write_port, .min = 1, .max = 1};

static const struct state_field fields[] = {STATE(struct cf9, val), {0}};

void cf9_reset(struct cf9 *c)
{
	c->val = 0;
}

void cf9_free(struct cf9 *c)
{
	if (!c)
		return;
	bus_unmap(c->pio, &c->io);
	free(c);
}

struct cf9 *cf9_new(const struct vm_env *env, void (*reset)(void *ctx, bool hard),
		    void *ctx, struct err *err)
{
	struct cf9 *c = NEW(struct cf9);

	if (!c) {
		err_set(err, ENOMEM, "no memory for the reset register");
		return NULL;
	}
	c->pio = env->pio;
	c->reset = reset;
	c->ctx = ctx;
	c->io = (struct io_range){.ops = &ops, .dev = c, .name = "cf9", .priority = 1};
	if (bus_map(env->pio, &c->io, 0xcf9, 1)) {
		err_set(err, EEXIST, "port CF9h is taken");
		cf9_free(c);
		return NULL;
	}
	state_add(env->state, "cf9", -1, c, fields, NULL, NULL);
	return c;
}

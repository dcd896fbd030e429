/*
 * dev/port92.c - system control port A of the PS/2 and everything since: A20 gate, fast reset.
 *
 * Specification: ICH9 data sheet 13.7.2. Threads: machine lock held.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "dev/isa_misc.h"

enum { FAST_RESET = 1, A20 = 2, WRITABLE = 0xdb /* but the reserved bits 2 and 5 */ };

struct port92 {
	uint8_t val;
	struct port92_user user;
	struct bus *pio; /* borrowed */
	struct io_range io;
};

static uint64_t read_port(void *dev, uint64_t off, unsigned size)
{
	const struct port92 *p = dev;

	(void)off;
	(void)size;
	return p->val;
}

static void write_port(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct port92 *p = dev;
	uint8_t old = p->val;

	(void)off;
	(void)size;
	p->val = val & WRITABLE;
	if (((old ^ val) & A20) && p->user.a20)
		p->user.a20(p->user.ctx, val & A20);
	if (!(old & FAST_RESET) && (val & FAST_RESET) && p->user.reset)
		p->user.reset(p->user.ctx);
}

static const struct io_ops ops = {
	.read = read_port, .write = write_port, .min = 1, .max = 1};

static const struct state_field fields[] = {STATE(struct port92, val), {0}};

static int loaded(void *dev)
{
	struct port92 *p = dev;

	p->val &= WRITABLE;
	if (p->user.a20)
		p->user.a20(p->user.ctx, p->val & A20);
	return 0;
}

void port92_reset(struct port92 *p)
{
	p->val = A20;
	if (p->user.a20)
		p->user.a20(p->user.ctx, true);
}

void port92_free(struct port92 *p)
{
	if (!p)
		return;
	bus_unmap(p->pio, &p->io);
	free(p);
}

struct port92 *port92_new(const struct vm_env *env, const struct port92_user *user,
			  struct err *err)
{
	struct port92 *p = NEW(struct port92);

	if (!p) {
		err_set(err, ENOMEM, "no memory for port 92h");
		return NULL;
	}
	p->pio = env->pio;
	p->val = A20;
	if (user)
		p->user = *user;
	p->io = (struct io_range){.ops = &ops, .dev = p, .name = "port92"};
	if (bus_map(env->pio, &p->io, 0x92, 1)) {
		err_set(err, EEXIST, "port 92h is taken");
		port92_free(p);
		return NULL;
	}
	state_add(env->state, "port92", -1, p, fields, NULL, loaded);
	return p;
}

/*
 * dev/ioapic.c - an I/O APIC with 24 inputs.
 *
 * Specification: Intel 82093AA data sheet; version 20h with the EOI register: ICH9 data sheet 13.5.
 * Interrupts are message-signalled (SDM 3A 11.11). Threads: machine lock held.
 */
#include "dev/ioapic.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"

enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40 };
enum { REG_ID, REG_VERSION, REG_ARB, REG_TABLE = 0x10 };

#define VERSION (0x20 | (IOAPIC_PINS - 1) << 16)

/* Redirection entry. */
enum {
	E_VECTOR = 0xff,
	E_LOGICAL = 1 << 11,
	E_LOW = 1 << 13,
	E_REMOTE_IRR = 1 << 14,
	E_LEVEL = 1 << 15,
	E_MASKED = 1 << 16,
	E_WRITABLE = 0x1afff, /* of the lower half */
};
#define E_DEST_SHIFT 56

#define MSI_BASE    0xfee00000u
#define MSI_ASSERT  0x4000
#define MODE_LOWEST 1

struct ioapic {
	uint64_t entry[IOAPIC_PINS];
	uint32_t lines; /* levels of the inputs, after polarity: 1 = asserted */
	uint8_t select, id;
	uint8_t reset_id;
	const struct vm_env *env; /* borrowed */
	struct ioapic_user user;
	struct io_range io;
};

static void send(struct ioapic *io, unsigned n)
{
	uint64_t e = io->entry[n], addr;
	uint32_t data;

	addr = MSI_BASE | (e >> E_DEST_SHIFT) << 12 | (e & E_LOGICAL ? 4 : 0);
	data = (uint32_t)e & (E_VECTOR | 7 << 8 | E_LEVEL);
	if (e & E_LEVEL)
		data |= MSI_ASSERT;
	msi_send(&io->env->msi, addr, data);
}

/* Sends a level-triggered input that is asserted and not being served. */
static void service_level(struct ioapic *io, unsigned n)
{
	uint64_t e = io->entry[n];

	if ((e & (E_LEVEL | E_MASKED | E_REMOTE_IRR)) != E_LEVEL ||
	    !(io->lines & BIT(n)))
		return;
	if ((e >> 8 & 7) <= MODE_LOWEST) /* others know no remote IRR */
		io->entry[n] |= E_REMOTE_IRR;
	send(io, n);
}

static void set_line(void *ctx, unsigned n, bool level)
{
	struct ioapic *io = ctx;
	bool was;

	if (n >= IOAPIC_PINS)
		return;
	was = io->lines & BIT(n);
	io->lines =
		level ? io->lines | (uint32_t)BIT(n) : io->lines & ~(uint32_t)BIT(n);
	if (!level || was)
		return;
	if (io->entry[n] & E_LEVEL)
		service_level(io, n);
	else if (!(io->entry[n] & E_MASKED)) /* masked edges are lost */
		send(io, n);
}

static void end_one(struct ioapic *io, unsigned n, unsigned vector)
{
	if ((io->entry[n] & (E_VECTOR | E_REMOTE_IRR | E_LEVEL)) !=
	    (vector | E_REMOTE_IRR | E_LEVEL))
		return;
	io->entry[n] &= ~(uint64_t)E_REMOTE_IRR;
	service_level(io, n);
}

void ioapic_eoi(struct ioapic *io, unsigned vector)
{
	for (unsigned n = 0; n < IOAPIC_PINS; n++)
		end_one(io, n, vector & E_VECTOR);
}

/* ---- registers ---- */

static uint32_t reg_read(const struct ioapic *io, unsigned r)
{
	unsigned n = (r - REG_TABLE) / 2;

	switch (r) {
	case REG_ID: return (uint32_t)io->id << 24;
	case REG_VERSION: return VERSION;
	case REG_ARB: return (uint32_t)io->id << 24;
	default: break;
	}
	if (r < REG_TABLE || n >= IOAPIC_PINS)
		return 0;
	return (uint32_t)(io->entry[n] >> (r & 1 ? 32 : 0));
}

static void entry_write(struct ioapic *io, unsigned n, bool high, uint32_t val)
{
	uint64_t e = io->entry[n];

	if (high) {
		e = (e & UINT32_MAX) | (uint64_t)(val & 0xff000000) << 32;
	} else {
		e = (e & ~(uint64_t)E_WRITABLE) | (val & E_WRITABLE);
		if (!(val & E_LEVEL)) /* how old kernels clear a stuck remote IRR */
			e &= ~(uint64_t)E_REMOTE_IRR;
	}
	io->entry[n] = e;
	if (io->user.routes)
		io->user.routes(io->user.ctx, io->entry, IOAPIC_PINS);
	service_level(io, n);
}

static void reg_write(struct ioapic *io, unsigned r, uint32_t val)
{
	if (r == REG_ID)
		io->id = val >> 24 & 15;
	else if (r >= REG_TABLE && r < REG_TABLE + 2 * IOAPIC_PINS)
		entry_write(io, (r - REG_TABLE) / 2, r & 1, val);
}

static uint64_t io_read(void *dev, uint64_t off, unsigned size)
{
	const struct ioapic *io = dev;

	(void)size;
	switch (off) {
	case IOREGSEL: return io->select;
	case IOWIN: return reg_read(io, io->select);
	default: return 0;
	}
}

static void io_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct ioapic *io = dev;

	(void)size;
	switch (off) {
	case IOREGSEL: io->select = (uint8_t)val; break;
	case IOWIN: reg_write(io, io->select, (uint32_t)val); break;
	case IOEOI: ioapic_eoi(io, (unsigned)val & E_VECTOR); break;
	default: break;
	}
}

static const struct io_ops io_ops = {
	.read = io_read, .write = io_write, .min = 4, .max = 4};

/* ---- state ---- */

static const struct state_field fields[] = {
	STATE(struct ioapic, entry),
	STATE(struct ioapic, lines),
	STATE(struct ioapic, select),
	STATE(struct ioapic, id),
	{0},
};

static int loaded(void *dev)
{
	struct ioapic *io = dev;

	io->lines &= (uint32_t)BIT(IOAPIC_PINS) - 1;
	io->id &= 15;
	for (unsigned n = 0; n < IOAPIC_PINS; n++)
		io->entry[n] &=
			(uint64_t)0xff << E_DEST_SHIFT | E_WRITABLE | E_REMOTE_IRR;
	if (io->user.routes)
		io->user.routes(io->user.ctx, io->entry, IOAPIC_PINS);
	return 0;
}

/* ---- public ---- */

struct irq ioapic_line(struct ioapic *io, unsigned n)
{
	return (struct irq){set_line, io, n};
}

void ioapic_reset(struct ioapic *io)
{
	for (unsigned n = 0; n < IOAPIC_PINS; n++)
		io->entry[n] = E_MASKED;
	io->select = 0;
	io->id = io->reset_id;
	if (io->user.routes)
		io->user.routes(io->user.ctx, io->entry, IOAPIC_PINS);
}

void ioapic_free(struct ioapic *io)
{
	if (!io)
		return;
	bus_unmap(io->env->mmio, &io->io);
	free(io);
}

struct ioapic *ioapic_new(const struct vm_env *env, uint8_t id,
			  const struct ioapic_user *user, struct err *err)
{
	struct ioapic *io = NEW(struct ioapic);

	if (!io) {
		err_set(err, ENOMEM, "no memory for the I/O APIC");
		return NULL;
	}
	io->env = env;
	io->reset_id = id & 15;
	if (user)
		io->user = *user;
	io->io = (struct io_range){.ops = &io_ops, .dev = io, .name = "ioapic"};
	ioapic_reset(io);
	if (bus_map(env->mmio, &io->io, IOAPIC_BASE, 0x1000)) {
		err_set(err, EEXIST, "the I/O APIC's address is taken");
		ioapic_free(io);
		return NULL;
	}
	state_add(env->state, "ioapic", -1, io, fields, NULL, loaded);
	return io;
}

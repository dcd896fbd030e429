/*
 * x86/op_io.c - I/O ports: IN OUT INS OUTS, with IOPL and the permission bitmap of the TSS.
 * SDM 1 chapter 18 (19 in newer editions), 2A/2B. vCPU thread.
 */
#include "x86/sys.h"

#define RCX R_OFF(X86_RCX)
#define RSI R_OFF(X86_RSI)
#define RDI R_OFF(X86_RDI)

/* ---- permission ----------------------------------------------------------------------------------------- */

/* The bitmap's bits of all ports of the access must be 0; two bytes are read, as processors do. */
static void check_bitmap(struct x86_cpu *c, uint16_t port, unsigned size)
{
	const struct x86_seg *tr = &c->seg[X86_TR];
	uint32_t at, bits;

	if (!seg_is_usable(tr) || !(tr->attr & 8) || tr->limit < 103)
		x86_raise_code(c, EX_GP, 0);
	at = (uint32_t)sys_load(c, tr->base + 102, 2) + port / 8;
	if (at + 1 > tr->limit)
		x86_raise_code(c, EX_GP, 0);
	bits = (uint32_t)sys_load(c, tr->base + at, 2) >> (port & 7);
	if (bits & ((1u << size) - 1))
		x86_raise_code(c, EX_GP, 0);
}

static void check_port(struct x86_cpu *c, uint16_t port, unsigned size)
{
	if (!in_real(c) && (in_v86(c) || c->cpl > iopl(c)))
		check_bitmap(c, port, size);
	if (unlikely(c->dr[7] & 0xff && c->cr4 & CR4_DE))
		debug_access(c, port, size, false, true);
}

/* ---- the ports -------------------------------------------------------------------------------------------- */

static uint32_t port_in(struct x86_cpu *c, uint16_t port, unsigned size)
{
	uint32_t v;

	c->stats.pio++;
	callback_begin(c);
	v = c->ops->pio_in(c->ctx, port, size);
	callback_end(c);
	return size == 4 ? v : v & ((1u << size * 8) - 1);
}

static void port_out(struct x86_cpu *c, uint16_t port, unsigned size, uint32_t v)
{
	c->stats.pio++;
	callback_begin(c);
	c->ops->pio_out(c->ctx, port, size, size == 4 ? v : v & ((1u << size * 8) - 1));
	callback_end(c);
}

/* 1, 2 or 4 bytes: REX.W means nothing here. */
static unsigned io_size(const struct insn *i)
{
	if (!(i->op & 1))
		return 1;
	return i->osize == 2 ? 2 : 4;
}

static void in(struct x86_cpu *c, const struct insn *i, uint16_t port)
{
	unsigned size = io_size(i);

	check_port(c, port, size);
	reg_set(c, R_OFF(X86_RAX), size, port_in(c, port, size));
}

static void out(struct x86_cpu *c, const struct insn *i, uint16_t port)
{
	unsigned size = io_size(i);

	check_port(c, port, size);
	port_out(c, port, size, (uint32_t)c->gpr[X86_RAX]);
}

void op_in_imm(struct x86_cpu *c, const struct insn *i)
{
	in(c, i, i->imm & 0xff);
}

void op_in_dx(struct x86_cpu *c, const struct insn *i)
{
	in(c, i, (uint16_t)c->gpr[X86_RDX]);
}

void op_out_imm(struct x86_cpu *c, const struct insn *i)
{
	out(c, i, i->imm & 0xff);
}

void op_out_dx(struct x86_cpu *c, const struct insn *i)
{
	out(c, i, (uint16_t)c->gpr[X86_RDX]);
}

/* ---- strings -------------------------------------------------------------------------------------------------- */

static uint64_t index_linear(struct x86_cpu *c, const struct insn *i, unsigned reg,
			     unsigned seg, unsigned size, enum access acc)
{
	uint64_t off = reg_get(c, reg, i->asize);

	if (in_long64(c))
		return off + c->seg_base[seg];
	return seg_linear_checked(c, seg, off, size, acc);
}

static void advance(struct x86_cpu *c, const struct insn *i, unsigned reg,
		    unsigned size)
{
	uint64_t v = reg_get(c, reg, i->asize);

	reg_set(c, reg, i->asize, c->rflags & FL_DF ? v - size : v + size);
}

/* The destination is probed first: a fault must not come after the port was read. */
static void ins_one(struct x86_cpu *c, const struct insn *i, uint16_t port,
		    unsigned size)
{
	unsigned seg = in_long64(c) ? SEG_FLAT : X86_ES;
	uint64_t va = index_linear(c, i, RDI, seg, size, ACC_WRITE);

	mem_probe_write(c, va, size);
	mem_store(c, va, size, port_in(c, port, size));
	advance(c, i, RDI, size);
}

static void outs_one(struct x86_cpu *c, const struct insn *i, uint16_t port,
		     unsigned size)
{
	uint64_t va = index_linear(c, i, RSI, i->seg, size, ACC_READ);

	port_out(c, port, size, (uint32_t)mem_load(c, va, size));
	advance(c, i, RSI, size);
}

/* With REP, requests are looked at between elements: rip then stays at the instruction. */
static void string(struct x86_cpu *c, const struct insn *i,
		   void (*one)(struct x86_cpu *, const struct insn *, uint16_t,
			       unsigned))
{
	uint16_t port = (uint16_t)c->gpr[X86_RDX];
	unsigned size = io_size(i);
	uint64_t n;

	check_port(c, port, size); /* even when rCX is 0 */
	if (!(i->flags & (I_REP | I_REPNE))) {
		one(c, i, port, size);
		return;
	}
	while ((n = reg_get(c, RCX, i->asize)) != 0) {
		one(c, i, port, size);
		reg_set(c, RCX, i->asize, n - 1);
		if (n > 1 && atomic_load_explicit(&c->request, memory_order_relaxed)) {
			c->rip = insn_rip(c, i);
			return;
		}
	}
	c->rip = next_rip(c, i);
}

void op_ins(struct x86_cpu *c, const struct insn *i)
{
	string(c, i, ins_one);
}

void op_outs(struct x86_cpu *c, const struct insn *i)
{
	string(c, i, outs_one);
}

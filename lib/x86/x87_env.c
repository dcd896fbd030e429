/*
 * x86/x87_env.c - FLDENV, FNSTENV, FRSTOR, FNSAVE: the x87 state in the layouts of the 8087.
 *
 * SDM volume 1, figures 8-9 to 8-12. The segment selectors FCS and FDS are stored as 0, as
 * CPUID.(7,0):EBX[13] says. vCPU thread.
 */
#include "x86/vec.h"

#include <string.h>

enum { ENV16 = 14, ENV32 = 28, REGS = 80 };

/* The environment as numbers. */
struct env {
	uint16_t fcw, fsw, ftw, fop;
	uint64_t fip, fdp;
};

/* Two tag bits of the register at `st` (SDM 1 8.1.7). */
static unsigned tag_of(const uint8_t st[10])
{
	uint64_t mant;
	uint16_t exp;

	memcpy(&mant, st, 8);
	memcpy(&exp, st + 8, 2);
	exp &= 0x7fff;
	if (exp == 0x7fff)
		return 2;
	if (exp == 0)
		return mant ? 2 : 1;
	return mant >> 63 ? 0 : 2;
}

static uint16_t tags_expand(struct x86_cpu *c)
{
	unsigned top = *xs16(c, XS_FSW) >> 11 & 7, r = 0;

	for (unsigned n = 0; n < 8; n++) {
		const uint8_t *st = c->xsave + XS_ST + 16 * ((n - top) & 7);

		r |= (c->xsave[XS_FTW] >> n & 1 ? tag_of(st) : 3) << 2 * n;
	}
	return (uint16_t)r;
}

static uint8_t tags_contract(uint16_t ftw)
{
	unsigned r = 0;

	for (unsigned n = 0; n < 8; n++)
		r |= ((ftw >> 2 * n & 3) != 3) << n;
	return (uint8_t)r;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static unsigned get16(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

static void put32(uint8_t *p, uint64_t v)
{
	put16(p, (unsigned)v);
	put16(p + 2, (unsigned)(v >> 16));
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

/* Real-address and virtual-8086 mode keep linear addresses in pieces. */
static bool real_layout(const struct x86_cpu *c)
{
	return !in_protected(c);
}

static unsigned env_size(const struct insn *i)
{
	return i->osize == 2 ? ENV16 : ENV32;
}

static void env_put(const struct x86_cpu *c, unsigned size, const struct env *e,
		    uint8_t *p)
{
	memset(p, 0, size);
	if (size == ENV16) {
		put16(p, e->fcw);
		put16(p + 2, e->fsw);
		put16(p + 4, e->ftw);
		put16(p + 6, (unsigned)e->fip);
		put16(p + 10, (unsigned)e->fdp);
		if (real_layout(c)) {
			put16(p + 8, (unsigned)(e->fip >> 16 & 15) << 12 | e->fop);
			put16(p + 12, (unsigned)(e->fdp >> 16 & 15) << 12);
		}
		return;
	}
	put32(p, 0xffff0000 | e->fcw);
	put32(p + 4, 0xffff0000 | e->fsw);
	put32(p + 8, 0xffff0000 | e->ftw);
	if (real_layout(c)) {
		put32(p + 12, e->fip & 0xffff);
		put32(p + 16, (e->fip >> 16 & 0xffff) << 12 | e->fop);
		put32(p + 20, e->fdp & 0xffff);
		put32(p + 24, (e->fdp >> 16 & 0xffff) << 12);
		return;
	}
	put32(p + 12, e->fip);
	put32(p + 16, (uint32_t)e->fop << 16);
	put32(p + 20, e->fdp);
	put32(p + 24, 0xffff0000);
}

static void env_get(const struct x86_cpu *c, unsigned size, const uint8_t *p,
		    struct env *e)
{
	memset(e, 0, sizeof(*e));
	e->fcw = (uint16_t)get16(p);
	if (size == ENV16) {
		e->fsw = (uint16_t)get16(p + 2);
		e->ftw = (uint16_t)get16(p + 4);
		e->fip = get16(p + 6);
		e->fdp = get16(p + 10);
		if (real_layout(c)) {
			e->fip |= (uint64_t)(get16(p + 8) >> 12) << 16;
			e->fop = get16(p + 8) & 0x7ff;
			e->fdp |= (uint64_t)(get16(p + 12) >> 12) << 16;
		}
		return;
	}
	e->fsw = (uint16_t)get16(p + 4);
	e->ftw = (uint16_t)get16(p + 8);
	if (real_layout(c)) {
		e->fip = get16(p + 12) | (uint64_t)(get32(p + 16) >> 12 & 0xffff) << 16;
		e->fop = get16(p + 16) & 0x7ff;
		e->fdp = get16(p + 20) | (uint64_t)(get32(p + 24) >> 12 & 0xffff) << 16;
		return;
	}
	e->fip = get32(p + 12);
	e->fop = get32(p + 16) >> 16 & 0x7ff;
	e->fdp = get32(p + 20);
}

static void env_read(struct x86_cpu *c, struct env *e)
{
	e->fcw = *xs16(c, XS_FCW);
	e->fsw = *xs16(c, XS_FSW);
	e->ftw = tags_expand(c);
	e->fop = *xs16(c, XS_FOP);
	e->fip = *xs64(c, XS_FIP);
	e->fdp = *xs64(c, XS_FDP);
}

static void env_write(struct x86_cpu *c, const struct env *e)
{
	*xs16(c, XS_FCW) = (e->fcw & 0x1f3f) | 0x40;
	x87_rotate(c, e->fsw >> 11 & 7);
	*xs16(c, XS_FSW) = e->fsw;
	c->xsave[XS_FTW] = tags_contract(e->ftw);
	*xs16(c, XS_FOP) = e->fop;
	*xs64(c, XS_FIP) = e->fip;
	*xs64(c, XS_FDP) = e->fdp;
	x87_fix_es(c);
}

void x87_fldenv(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = env_size(i);
	uint8_t b[ENV32];
	struct env e;
	uint64_t va;

	x87_check_wait(c);
	va = ea_linear(c, i, size, ACC_READ);
	vec_probe_read(c, va, size, size == ENV16 ? 2 : 4);
	mem_read(c, va, b, size);
	x87_sync(c);
	env_get(c, size, b, &e);
	env_write(c, &e);
}

void x87_fnstenv(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = env_size(i);
	uint8_t b[ENV32];
	struct env e;
	uint64_t va;

	if (c->cr0 & (CR0_EM | CR0_TS))
		x86_raise(c, EX_NM);
	x87_sync(c);
	env_read(c, &e);
	env_put(c, size, &e, b);
	va = ea_linear(c, i, size, ACC_WRITE);
	vec_probe_write(c, va, size, size == ENV16 ? 2 : 4);
	mem_write(c, va, b, size);
	*xs16(c, XS_FCW) |= FSW_EXC; /* all exceptions masked */
	x87_fix_es(c);
}

void x87_frstor(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = env_size(i);
	uint8_t b[ENV32 + REGS];
	struct env e;
	uint64_t va;

	x87_check_wait(c);
	va = ea_linear(c, i, size + REGS, ACC_READ);
	vec_probe_read(c, va, size + REGS, size == ENV16 ? 2 : 4);
	mem_read(c, va, b, size + REGS);
	x87_sync(c);
	env_get(c, size, b, &e);
	env_write(c, &e);
	for (unsigned n = 0; n < 8; n++) {
		memset(c->xsave + XS_ST + 16 * n, 0, 16);
		memcpy(c->xsave + XS_ST + 16 * n, b + size + 10 * n, 10);
	}
}

void x87_fnsave(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = env_size(i);
	uint8_t b[ENV32 + REGS];
	struct env e;
	uint64_t va;

	if (c->cr0 & (CR0_EM | CR0_TS))
		x86_raise(c, EX_NM);
	x87_sync(c);
	env_read(c, &e);
	env_put(c, size, &e, b);
	for (unsigned n = 0; n < 8; n++)
		memcpy(b + size + 10 * n, c->xsave + XS_ST + 16 * n, 10);
	va = ea_linear(c, i, size + REGS, ACC_WRITE);
	vec_probe_write(c, va, size + REGS, size == ENV16 ? 2 : 4);
	mem_write(c, va, b, size + REGS);
	x87_init_state(c);
}

/*
 * x86/seg.c - segments: descriptors, segment registers, limits and rights, the stack.
 * SDM 3A chapter 3 and 5; MOV, POP, LDS in 2A/2B for the order of checks. vCPU thread.
 */
#include "x86/sys.h"

/* ---- descriptors --------------------------------------------------------------------------------- */

static void desc_parse(struct desc *d, uint16_t sel)
{
	uint32_t lo = (uint32_t)d->raw, hi = (uint32_t)(d->raw >> 32);
	uint32_t limit = (lo & 0xffff) | (hi & 0xf0000);

	d->type = hi >> 8 & 15;
	d->s = hi >> 12 & 1;
	d->dpl = hi >> 13 & 3;
	d->present = hi >> 15 & 1;
	d->seg.sel = sel;
	d->seg.attr = (uint16_t)(hi >> 8 & 0xf0ff);
	d->seg.limit = hi >> 23 & 1 ? limit << 12 | 0xfff : limit;
	d->seg.base = lo >> 16 | (hi & 0xff) << 16 | (hi & 0xff000000);
}

bool desc_try(struct x86_cpu *c, uint16_t sel, bool wide, struct desc *d)
{
	unsigned at = sel & 0xfff8, len = 8;
	uint64_t base, limit;

	if (sel & 4) {
		if (!seg_is_usable(&c->seg[X86_LDTR]))
			return false;
		base = c->seg[X86_LDTR].base;
		limit = c->seg[X86_LDTR].limit;
	} else {
		base = c->gdtr.base;
		limit = c->gdtr.limit;
	}
	if (at + len - 1 > limit)
		return false;
	*d = (struct desc){.va = base + at};
	if (!c->long_mode)
		d->va = (uint32_t)d->va;
	d->raw = sys_load(c, d->va, 8);
	desc_parse(d, sel);
	if (!wide || d->s)
		return true;
	if (at + 15 > limit)
		return false;
	d->raw_hi = sys_load(c, d->va + 8, 8);
	d->seg.base |= d->raw_hi << 32;
	return true;
}

void desc_read(struct x86_cpu *c, uint16_t sel, unsigned vec, bool wide, struct desc *d)
{
	if (!desc_try(c, sel, wide, d))
		x86_raise_code(c, vec, sel_err(c, sel));
}

void gate_code(struct x86_cpu *c, uint16_t sel, struct desc *cs)
{
	if (sel_is_null(sel))
		x86_raise_code(c, EX_GP, ext_bit(c));
	desc_read(c, sel, EX_GP, false, cs);
	if (!desc_is_code(cs) || cs->dpl > c->cpl)
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (c->long_mode && (cs->seg.attr & (X86_ATTR_L | X86_ATTR_DB)) != X86_ATTR_L)
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (!cs->present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
}

/* Changes bits of byte 5 of the descriptor at va, atomically where it is memory. */
static void desc_flags(struct x86_cpu *c, uint64_t va, uint8_t set, uint8_t clear)
{
	uint8_t *p = mmu_rmw_ptr(c, MMU_KERN, va + 5, 1);

	if (!p) {
		uint8_t b = (uint8_t)sys_load(c, va + 5, 1);

		sys_store(c, va + 5, 1, (b | set) & ~clear);
	} else if (set) {
		__atomic_fetch_or(p, set, __ATOMIC_SEQ_CST);
	} else {
		__atomic_fetch_and(p, (uint8_t)~clear, __ATOMIC_SEQ_CST);
	}
}

void desc_accessed(struct x86_cpu *c, struct desc *d)
{
	if (!d->s || d->type & TYPE_A)
		return;
	desc_flags(c, d->va, TYPE_A, 0);
	d->type |= TYPE_A;
	d->seg.attr |= TYPE_A;
}

void desc_busy(struct x86_cpu *c, const struct desc *d, bool busy)
{
	desc_flags(c, d->va, busy ? 2 : 0, busy ? 0 : 2);
}

/* ---- segment registers ----------------------------------------------------------------------------- */

void seg_set(struct x86_cpu *c, unsigned seg, const struct x86_seg *s)
{
	c->seg[seg] = *s;
	if (in_long64(c) && seg < X86_FS)
		c->seg_base[seg] = 0;
	else
		c->seg_base[seg] = s->base;
}

void seg_set_null(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
	seg_set(c, seg, &(struct x86_seg){.sel = sel});
}

/* Real mode keeps the limit and the D/B and G bits ("unreal" mode). */
void seg_set_real(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
	struct x86_seg s = c->seg[seg];

	s.sel = sel;
	s.base = (uint32_t)sel << 4;
	if (in_v86(c)) {
		s.limit = 0xffff;
		s.attr = 0xf3;
	} else {
		s.attr = (s.attr & 0xf000) | 0x93;
	}
	seg_set(c, seg, &s);
}

static void load_ss(struct x86_cpu *c, uint16_t sel)
{
	unsigned rpl = sel & 3;
	struct desc d;

	if (sel_is_null(sel)) {
		if (!in_long64(c) || c->cpl == 3 || rpl != c->cpl)
			x86_raise_code(c, EX_GP, ext_bit(c));
		d.seg = (struct x86_seg){
			.sel = sel, .attr = (uint16_t)(c->cpl << X86_ATTR_DPL_SHIFT)};
	} else {
		desc_read(c, sel, EX_GP, false, &d);
		if (rpl != c->cpl || d.dpl != c->cpl || !desc_is_writable_data(&d))
			x86_raise_code(c, EX_GP, sel_err(c, sel));
		if (!d.present)
			x86_raise_code(c, EX_SS, sel_err(c, sel));
		desc_accessed(c, &d);
	}
	seg_set(c, X86_SS, &d.seg);
	x86_update_mode(c);
}

void seg_load(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
	struct desc d;

	if (!in_protected(c)) {
		seg_set_real(c, seg, sel);
		return;
	}
	if (seg == X86_SS) {
		load_ss(c, sel);
		return;
	}
	if (sel_is_null(sel)) {
		seg_set_null(c, seg, sel);
		return;
	}
	desc_read(c, sel, EX_GP, false, &d);
	if (!d.s || (d.type & (TYPE_CODE | TYPE_R)) == TYPE_CODE)
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (!desc_is_conforming(&d) && ((sel & 3u) > d.dpl || c->cpl > d.dpl))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (!d.present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
	desc_accessed(c, &d);
	seg_set(c, seg, &d.seg);
}

void seg_load_ldtr(struct x86_cpu *c, uint16_t sel, unsigned vec, unsigned np)
{
	struct desc d;

	if (sel_is_null(sel)) {
		seg_set_null(c, X86_LDTR, sel);
		return;
	}
	if (sel & 4)
		x86_raise_code(c, vec, sel_err(c, sel));
	desc_read(c, sel, vec, c->long_mode, &d);
	if (d.s || d.type != DT_LDT || (c->long_mode && d.raw_hi >> 40 & 0x1f))
		x86_raise_code(c, vec, sel_err(c, sel));
	if (!d.present)
		x86_raise_code(c, np, sel_err(c, sel));
	if (!is_canonical(d.seg.base))
		x86_raise_code(c, vec, sel_err(c, sel));
	seg_set(c, X86_LDTR, &d.seg);
}

void seg_check_inner_ss(struct x86_cpu *c, uint16_t sel, unsigned cpl, struct desc *d)
{
	if (sel_is_null(sel))
		x86_raise_code(c, EX_TS, ext_bit(c));
	desc_read(c, sel, EX_TS, false, d);
	if ((sel & 3u) != cpl || d->dpl != cpl || !desc_is_writable_data(d))
		x86_raise_code(c, EX_TS, sel_err(c, sel));
	if (!d->present)
		x86_raise_code(c, EX_SS, sel_err(c, sel));
	desc_accessed(c, d);
}

/*
 * Return to an outer ring: segments that it may not have become null. Their bases stay: 64-bit
 * code uses those of FS and GS whatever the selectors are.
 */
void seg_drop_privileged(struct x86_cpu *c)
{
	static const uint8_t segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

	for (unsigned n = 0; n < ARRAY_LEN(segs); n++) {
		struct x86_seg *s = &c->seg[segs[n]];
		unsigned type = s->attr & X86_ATTR_TYPE;

		if (seg_is_usable(s) &&
		    ((type & (TYPE_CODE | TYPE_C)) == (TYPE_CODE | TYPE_C) ||
		     seg_dpl(s) >= c->cpl))
			continue;
		if (seg_is_usable(s) || !(s->sel & 0xfffc)) {
			s->sel = 0;
			s->attr = 0;
			s->limit = 0;
		}
	}
}

/* ---- limits and rights --------------------------------------------------------------------------------- */

/* Is [off, off + len) inside the segment? */
static bool in_limit(const struct x86_seg *s, uint64_t off, unsigned len)
{
	uint64_t last = off + (len ? len : 1) - 1;

	if ((s->attr & (X86_ATTR_S | TYPE_CODE | TYPE_E)) == (X86_ATTR_S | TYPE_E))
		return off > s->limit &&
		       last <= (s->attr & X86_ATTR_DB ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

static bool has_rights(const struct x86_seg *s, enum access acc)
{
	unsigned type = s->attr & X86_ATTR_TYPE;

	if (!seg_is_usable(s))
		return false;
	if (acc == ACC_WRITE)
		return (type & (TYPE_CODE | TYPE_W)) == TYPE_W;
	if (acc == ACC_READ)
		return (type & (TYPE_CODE | TYPE_R)) != TYPE_CODE;
	return true;
}

uint64_t seg_linear_checked(struct x86_cpu *c, unsigned seg, uint64_t off, unsigned len,
			    enum access acc)
{
	const struct x86_seg *s;

	if (seg >= X86_NSEG)
		return in_long64(c) ? off : (uint32_t)off;
	if (in_long64(c))
		return off + c->seg_base[seg];
	s = &c->seg[seg];
	if ((in_protected(c) && !has_rights(s, acc)) || !in_limit(s, off, len))
		x86_raise_code(c, seg == X86_SS ? EX_SS : EX_GP, ext_bit(c));
	return (uint32_t)(s->base + off);
}

/* ---- the stack -------------------------------------------------------------------------------------------- */

static uint64_t sp_mask(unsigned width)
{
	return width == 8 ? ~0ull : width == 4 ? 0xffffffffull : 0xffffull;
}

static void sp_set(struct x86_cpu *c, uint64_t sp)
{
	if (c->stack_size == 2)
		*reg16(c, R_OFF(X86_RSP)) = (uint16_t)sp;
	else if (c->stack_size == 4)
		*reg64(c, R_OFF(X86_RSP)) = (uint32_t)sp;
	else
		*reg64(c, R_OFF(X86_RSP)) = sp;
}

static uint64_t stack_linear(struct x86_cpu *c, uint64_t sp, unsigned size,
			     enum access acc)
{
	sp &= sp_mask(c->stack_size);
	return in_long64(c) ? sp : seg_linear_checked(c, X86_SS, sp, size, acc);
}

void stack_push(struct x86_cpu *c, unsigned size, uint64_t v)
{
	uint64_t sp = c->gpr[X86_RSP] - size;

	mem_store(c, stack_linear(c, sp, size, ACC_WRITE), size, v);
	sp_set(c, sp);
}

uint64_t stack_peek(struct x86_cpu *c, unsigned size, unsigned at)
{
	return mem_load(c, stack_linear(c, c->gpr[X86_RSP] + at, size, ACC_READ), size);
}

void stack_drop(struct x86_cpu *c, unsigned bytes)
{
	sp_set(c, c->gpr[X86_RSP] + bytes);
}

/* ---- stacks that are not yet the processor's ---------------------------------------------------------------- */

void stack_now(struct x86_cpu *c, struct stack *s)
{
	*s = (struct stack){.ss = c->seg[X86_SS],
			    .sp = c->gpr[X86_RSP],
			    .width = c->stack_size,
			    .mode = c->mmu_mode,
			    .err = ext_bit(c)};
}

static uint64_t stack_at(struct x86_cpu *c, const struct stack *s, uint64_t sp,
			 unsigned size, enum access acc)
{
	sp &= sp_mask(s->width);
	if (s->width == 8) {
		if (!is_canonical(sp) || !is_canonical(sp + size - 1))
			x86_raise_code(c, EX_SS, s->err);
		return sp;
	}
	if ((!in_real(c) && !has_rights(&s->ss, acc)) || !in_limit(&s->ss, sp, size))
		x86_raise_code(c, EX_SS, s->err);
	return (uint32_t)(s->ss.base + sp);
}

void stack_put(struct x86_cpu *c, struct stack *s, unsigned size, uint64_t v)
{
	uint64_t sp = s->sp - size;

	mmu_write(c, s->mode, stack_at(c, s, sp, size, ACC_WRITE), &v, size);
	s->sp = (s->sp & ~sp_mask(s->width)) | (sp & sp_mask(s->width));
}

uint64_t stack_take(struct x86_cpu *c, struct stack *s, unsigned size)
{
	uint64_t v = 0;

	mmu_read(c, s->mode, stack_at(c, s, s->sp, size, ACC_READ), &v, size);
	s->sp = (s->sp & ~sp_mask(s->width)) | ((s->sp + size) & sp_mask(s->width));
	return v;
}

void stack_commit_sp(struct x86_cpu *c, const struct stack *s)
{
	if (s->width == 2)
		*reg16(c, R_OFF(X86_RSP)) = (uint16_t)s->sp;
	else if (s->width == 4)
		*reg64(c, R_OFF(X86_RSP)) = (uint32_t)s->sp;
	else
		*reg64(c, R_OFF(X86_RSP)) = s->sp;
}

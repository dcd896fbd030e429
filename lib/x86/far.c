/*
 * x86/far.c - far JMP, CALL, RET and IRET: between segments, privileges, modes and tasks.
 * SDM 2A/2B (the instructions' operation sections), 3A 5.8 (privilege), 3B 20.2 (virtual-8086).
 * vCPU thread.
 *
 * As everywhere: all reads, checks and writes that can fault come before the first change of state.
 */
#include "x86/sys.h"

/* ---- code segments ------------------------------------------------------------------------------------- */

void cs_commit(struct x86_cpu *c, const struct desc *d, unsigned cpl)
{
	c->seg[X86_CS] = d->seg;
	c->seg[X86_CS].sel = (uint16_t)((d->seg.sel & ~3u) | cpl);
	c->cpl = (uint8_t)cpl;
	x86_update_mode(c);
}

static bool is_code64(const struct x86_cpu *c, const struct desc *d)
{
	return c->long_mode && d->seg.attr & X86_ATTR_L;
}

void cs_check_rip(struct x86_cpu *c, const struct desc *d, uint64_t rip)
{
	if (is_code64(c, d) ? !is_canonical(rip) : rip > d->seg.limit)
		x86_raise_code(c, EX_GP, ext_bit(c));
}

/* A code segment must not be 64 and 32 bits wide at once. */
static void check_code_width(struct x86_cpu *c, const struct desc *d)
{
	if (is_code64(c, d) && d->seg.attr & X86_ATTR_DB)
		x86_raise_code(c, EX_GP, sel_err(c, d->seg.sel));
}

/* The target of a JMP or CALL without change of privilege. */
static void check_same_level(struct x86_cpu *c, const struct desc *d, bool via_gate)
{
	uint16_t sel = d->seg.sel;

	if (!desc_is_code(d))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (desc_is_conforming(d)
		    ? d->dpl > c->cpl
		    : (!via_gate && (sel & 3u) > c->cpl) || d->dpl != c->cpl)
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	check_code_width(c, d);
	if (!d->present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
}

static uint64_t rip_mask(uint64_t rip, unsigned size)
{
	return size == 2 ? rip & 0xffff : size == 4 ? rip & 0xffffffff : rip;
}

/* ---- targets of JMP and CALL ---------------------------------------------------------------------------- */

static void far_pointer(struct x86_cpu *c, const struct insn *i, uint16_t *sel,
			uint64_t *rip)
{
	uint64_t va;

	if (!(i->flags & I_MEM)) {
		*sel = i->sel;
		*rip = rip_mask(i->imm, i->osize);
		return;
	}
	va = ea_linear(c, i, i->osize + 2u, ACC_READ);
	*rip = mem_load(c, va, i->osize);
	va += i->osize;
	*sel = (uint16_t)mem_load(c, in_long64(c) ? va : (uint32_t)va, 2);
}

/* Does a gate or TSS let this privilege through? Present comes after. */
static void check_gate(struct x86_cpu *c, const struct desc *d, uint16_t sel)
{
	if (d->dpl < c->cpl || d->dpl < (sel & 3u))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (!d->present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
}

struct call_gate {
	uint16_t sel;
	uint64_t rip;
	unsigned size, params; /* bytes of pushes; number of parameters */
};

/* d: the gate. Reads its target code segment. */
static void gate_open(struct x86_cpu *c, const struct desc *d, struct call_gate *g,
		      struct desc *cs)
{
	*g = (struct call_gate){.sel = (uint16_t)(d->raw >> 16),
				.rip = (d->raw & 0xffff) | (d->raw >> 32 & 0xffff0000),
				.size = d->type == DT_CALL16 ? 2 : 4,
				.params = d->raw >> 32 & 31};
	if (c->long_mode) {
		g->rip |= d->raw_hi << 32;
		g->size = 8;
		g->params = 0;
		if (d->raw_hi >> 40 & 31)
			x86_raise_code(c, EX_GP, sel_err(c, d->seg.sel));
	}
	if (g->size == 2)
		g->rip &= 0xffff;
	gate_code(c, g->sel, cs);
}

/* A TSS or task gate as the target; d is its descriptor. */
static void far_task(struct x86_cpu *c, const struct insn *i, const struct desc *d,
		     uint16_t sel, enum task_why why)
{
	check_gate(c, d, sel);
	c->rip = next_rip(c, i);
	if (d->type == DT_TASK)
		sel = (uint16_t)(d->raw >> 16);
	task_switch(c, sel, why, false, 0);
}

static bool is_task_desc(const struct x86_cpu *c, const struct desc *d)
{
	return !c->long_mode &&
	       (d->type == DT_TSS16 || d->type == DT_TSS32 || d->type == DT_TASK);
}

static bool is_call_gate(const struct x86_cpu *c, const struct desc *d)
{
	return d->type == DT_CALL32 || (d->type == DT_CALL16 && !c->long_mode);
}

/* ---- JMP ---------------------------------------------------------------------------------------------------- */

static void jmp_real(struct x86_cpu *c, uint16_t sel, uint64_t rip)
{
	if (rip > (in_v86(c) ? 0xffff : c->seg[X86_CS].limit))
		x86_raise_code(c, EX_GP, 0);
	seg_set_real(c, X86_CS, sel);
	c->rip = rip;
	x86_update_mode(c);
}

static void jmp_protected(struct x86_cpu *c, const struct insn *i, uint16_t sel,
			  uint64_t rip)
{
	struct call_gate g;
	struct desc d, cs;

	if (sel_is_null(sel))
		x86_raise_code(c, EX_GP, 0);
	desc_read(c, sel, EX_GP, c->long_mode, &d);
	if (d.s) {
		cs = d;
		check_same_level(c, &cs, false);
	} else if (is_task_desc(c, &d)) {
		far_task(c, i, &d, sel, TASK_JMP);
		return;
	} else if (is_call_gate(c, &d)) {
		check_gate(c, &d, sel);
		gate_open(c, &d, &g, &cs);
		check_same_level(c, &cs, true);
		rip = g.rip;
	} else {
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	}
	cs_check_rip(c, &cs, rip);
	desc_accessed(c, &cs);
	cs_commit(c, &cs, c->cpl);
	c->rip = rip;
}

void op_jmp_far(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel;
	uint64_t rip;

	far_pointer(c, i, &sel, &rip);
	if (in_protected(c))
		jmp_protected(c, i, sel, rip);
	else
		jmp_real(c, sel, rip);
}

/* ---- CALL ------------------------------------------------------------------------------------------------------ */

static void call_real(struct x86_cpu *c, const struct insn *i, uint16_t sel,
		      uint64_t rip)
{
	struct stack st;

	stack_now(c, &st);
	stack_put(c, &st, i->osize, c->seg[X86_CS].sel);
	stack_put(c, &st, i->osize, next_rip(c, i));
	if (rip > (in_v86(c) ? 0xffff : c->seg[X86_CS].limit))
		x86_raise_code(c, EX_GP, 0);
	stack_commit_sp(c, &st);
	seg_set_real(c, X86_CS, sel);
	c->rip = rip;
	x86_update_mode(c);
}

/* Pushes the return address on the current stack and goes to cs:rip. */
static void call_same(struct x86_cpu *c, const struct insn *i, struct desc *cs,
		      uint64_t rip, unsigned size)
{
	struct stack st;

	stack_now(c, &st);
	stack_put(c, &st, size, c->seg[X86_CS].sel);
	stack_put(c, &st, size, next_rip(c, i));
	cs_check_rip(c, cs, rip);
	desc_accessed(c, cs);
	stack_commit_sp(c, &st);
	cs_commit(c, cs, c->cpl);
	c->rip = rip;
}

/* Through a call gate to inner privilege: new stack, parameters copied. */
static void call_inner(struct x86_cpu *c, const struct insn *i, struct desc *cs,
		       const struct call_gate *g)
{
	struct stack st, old;
	unsigned cpl = cs->dpl;
	uint64_t params[32];

	stack_now(c, &old);
	if (c->long_mode) {
		st = (struct stack){
			.ss = {.sel = (uint16_t)cpl,
			       .attr = (uint16_t)(cpl << X86_ATTR_DPL_SHIFT)},
			.sp = tss_rsp(c, cpl, 0),
			.width = 8,
			.mode = MMU_KERN};
	} else {
		tss_inner_stack(c, cpl, &st);
	}
	for (unsigned n = 0; n < g->params; n++)
		params[n] = stack_take(c, &old, g->size);
	stack_put(c, &st, g->size, c->seg[X86_SS].sel);
	stack_put(c, &st, g->size, c->gpr[X86_RSP]);
	for (unsigned n = g->params; n-- > 0;)
		stack_put(c, &st, g->size, params[n]);
	stack_put(c, &st, g->size, c->seg[X86_CS].sel);
	stack_put(c, &st, g->size, next_rip(c, i));
	cs_check_rip(c, cs, g->rip);
	desc_accessed(c, cs);
	c->seg[X86_SS] = st.ss;
	stack_commit_sp(c, &st);
	cs_commit(c, cs, cpl);
	c->rip = g->rip;
}

static void call_protected(struct x86_cpu *c, const struct insn *i, uint16_t sel,
			   uint64_t rip)
{
	struct call_gate g;
	struct desc d, cs;

	if (sel_is_null(sel))
		x86_raise_code(c, EX_GP, 0);
	desc_read(c, sel, EX_GP, c->long_mode, &d);
	if (d.s) {
		check_same_level(c, &d, false);
		call_same(c, i, &d, rip, i->osize);
	} else if (is_task_desc(c, &d)) {
		far_task(c, i, &d, sel, TASK_CALL);
	} else if (is_call_gate(c, &d)) {
		check_gate(c, &d, sel);
		gate_open(c, &d, &g, &cs);
		if (!desc_is_conforming(&cs) && cs.dpl < c->cpl)
			call_inner(c, i, &cs, &g);
		else
			call_same(c, i, &cs, g.rip, g.size);
	} else {
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	}
}

void op_call_far(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel;
	uint64_t rip;

	far_pointer(c, i, &sel, &rip);
	if (in_protected(c))
		call_protected(c, i, sel, rip);
	else
		call_real(c, i, sel, rip);
}

/* ---- returns ------------------------------------------------------------------------------------------------------ */

/* The code segment that RET or IRET goes back to; its RPL is the new privilege. */
static void return_cs(struct x86_cpu *c, uint16_t sel, struct desc *d)
{
	unsigned rpl = sel & 3;

	if (sel_is_null(sel))
		x86_raise_code(c, EX_GP, 0);
	desc_read(c, sel, EX_GP, false, d);
	if (!desc_is_code(d) || rpl < c->cpl ||
	    (desc_is_conforming(d) ? d->dpl > rpl : d->dpl != rpl))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	check_code_width(c, d);
	if (!d->present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
}

/* The stack segment that goes with it. */
static void return_ss(struct x86_cpu *c, uint16_t sel, const struct desc *cs,
		      struct desc *d)
{
	unsigned cpl = cs->seg.sel & 3;

	if (sel_is_null(sel)) {
		if (!is_code64(c, cs) || cpl == 3 || (sel & 3u) != cpl)
			x86_raise_code(c, EX_GP, 0);
		*d = (struct desc){
			.seg = {.sel = sel,
				.attr = (uint16_t)(cpl << X86_ATTR_DPL_SHIFT)}};
		return;
	}
	desc_read(c, sel, EX_GP, false, d);
	if ((sel & 3u) != cpl || d->dpl != cpl || !desc_is_writable_data(d))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (!d->present)
		x86_raise_code(c, EX_SS, sel_err(c, sel));
	desc_accessed(c, d);
}

/* Takes the new SS:SP into use once CS is loaded. */
static void commit_ss_sp(struct x86_cpu *c, const struct desc *ss, uint64_t sp)
{
	c->seg[X86_SS] = ss->seg;
	x86_update_mode(c);
	if (c->stack_size == 8)
		c->gpr[X86_RSP] = sp;
	else if (c->stack_size == 4)
		c->gpr[X86_RSP] = (uint32_t)sp;
	else
		*reg16(c, R_OFF(X86_RSP)) = (uint16_t)sp;
}

static void ret_real(struct x86_cpu *c, const struct insn *i)
{
	struct stack st;
	uint64_t rip;
	uint16_t sel;

	stack_now(c, &st);
	rip = stack_take(c, &st, i->osize);
	sel = (uint16_t)stack_take(c, &st, i->osize);
	if (rip > (in_v86(c) ? 0xffff : c->seg[X86_CS].limit))
		x86_raise_code(c, EX_GP, 0);
	st.sp += i->imm;
	stack_commit_sp(c, &st);
	seg_set_real(c, X86_CS, sel);
	c->rip = rip;
	x86_update_mode(c);
}

static void ret_protected(struct x86_cpu *c, const struct insn *i)
{
	struct stack st;
	struct desc cs, ss;
	uint64_t rip, sp;
	uint16_t sel, ss_sel;
	bool outer;

	stack_now(c, &st);
	rip = stack_take(c, &st, i->osize);
	sel = (uint16_t)stack_take(c, &st, i->osize);
	return_cs(c, sel, &cs);
	outer = (sel & 3u) > c->cpl;
	st.sp += i->imm;
	if (outer) {
		sp = stack_take(c, &st, i->osize);
		ss_sel = (uint16_t)stack_take(c, &st, i->osize);
		return_ss(c, ss_sel, &cs, &ss);
	}
	cs_check_rip(c, &cs, rip);
	desc_accessed(c, &cs);
	if (!outer)
		stack_commit_sp(c, &st);
	cs_commit(c, &cs, sel & 3);
	if (outer) {
		commit_ss_sp(c, &ss, sp + i->imm);
		seg_drop_privileged(c);
	}
	c->rip = rip;
}

void op_ret_far(struct x86_cpu *c, const struct insn *i)
{
	if (in_protected(c))
		ret_protected(c, i);
	else
		ret_real(c, i);
}

/* ---- IRET ------------------------------------------------------------------------------------------------------------ */

/* RFLAGS bits that IRET loads outside virtual-8086 mode. */
static uint64_t iret_mask(const struct x86_cpu *c, unsigned size)
{
	uint64_t m = FL_STATUS | FL_TF | FL_DF | FL_NT;

	if (size > 2)
		m |= FL_RF | FL_AC | FL_ID;
	if (c->cpl <= iopl(c))
		m |= FL_IF;
	if (c->cpl == 0)
		m |= FL_IOPL | (size > 2 ? FL_VIF | FL_VIP : 0);
	return m;
}

static void load_flags(struct x86_cpu *c, uint64_t fl, uint64_t mask)
{
	rflags_set(c, fl, mask);
	c->rf_loaded = fl & mask & FL_RF;
}

static void iret_real(struct x86_cpu *c, const struct insn *i)
{
	uint64_t rip, fl, mask;
	struct stack st;
	uint16_t sel;

	stack_now(c, &st);
	rip = stack_take(c, &st, i->osize);
	sel = (uint16_t)stack_take(c, &st, i->osize);
	fl = stack_take(c, &st, i->osize);
	mask = FL_STATUS | FL_TF | FL_IF | FL_DF | FL_NT;
	if (i->osize > 2)
		mask |= FL_RF | FL_AC | FL_ID;
	if (!in_v86(c)) {
		mask |= FL_IOPL;
	} else if (iopl(c) < 3) { /* VME: VIF in the place of IF */
		if (fl & FL_TF || (fl & FL_IF && c->rflags & FL_VIP))
			x86_raise_code(c, EX_GP, 0);
		mask = (mask & ~(uint64_t)FL_IF) | FL_VIF;
		fl = (fl & ~(uint64_t)FL_VIF) | (fl & FL_IF ? FL_VIF : 0);
	}
	if (rip > (in_v86(c) ? 0xffff : c->seg[X86_CS].limit))
		x86_raise_code(c, EX_GP, 0);
	c->ev.nmi_blocked = false;
	stack_commit_sp(c, &st);
	seg_set_real(c, X86_CS, sel);
	c->rip = rip;
	load_flags(c, fl, mask);
	x86_update_mode(c);
}

/* From privilege 0 into virtual-8086 mode. */
static void iret_to_v86(struct x86_cpu *c, struct stack *st, uint64_t rip, uint16_t cs,
			uint64_t fl)
{
	static const uint8_t order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
	uint16_t sel[ARRAY_LEN(order)], ss;
	uint64_t sp = stack_take(c, st, 4);

	ss = (uint16_t)stack_take(c, st, 4);
	for (unsigned n = 0; n < ARRAY_LEN(order); n++)
		sel[n] = (uint16_t)stack_take(c, st, 4);
	if ((uint32_t)rip > 0xffff)
		x86_raise_code(c, EX_GP, 0);
	load_flags(c, fl,
		   FL_STATUS | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM |
			   FL_AC | FL_VIF | FL_VIP | FL_ID);
	for (unsigned n = 0; n < ARRAY_LEN(order); n++)
		seg_set_real(c, order[n], sel[n]);
	seg_set_real(c, X86_CS, cs);
	seg_set_real(c, X86_SS, ss);
	c->gpr[X86_RSP] = (uint32_t)sp;
	c->rip = rip;
	x86_update_mode(c);
}

/* Back to the task that the back link names. */
static void iret_task(struct x86_cpu *c, const struct insn *i)
{
	uint16_t link;

	if (c->long_mode)
		x86_raise_code(c, EX_GP, 0);
	link = (uint16_t)sys_load(c, c->seg[X86_TR].base, 2);
	c->rip = next_rip(c, i);
	task_switch(c, link, TASK_IRET, false, 0);
}

static void iret_protected(struct x86_cpu *c, const struct insn *i)
{
	uint64_t rip, fl, sp = 0, mask;
	struct desc cs, ss;
	struct stack st;
	uint16_t sel;
	bool outer, with_ss;

	if (c->rflags & FL_NT) {
		c->ev.nmi_blocked = false;
		iret_task(c, i);
		return;
	}
	stack_now(c, &st);
	rip = stack_take(c, &st, i->osize);
	sel = (uint16_t)stack_take(c, &st, i->osize);
	fl = stack_take(c, &st, i->osize);
	if (fl & FL_VM && i->osize == 4 && c->cpl == 0 && !c->long_mode) {
		c->ev.nmi_blocked = false;
		iret_to_v86(c, &st, rip, sel, fl);
		return;
	}
	return_cs(c, sel, &cs);
	outer = (sel & 3u) > c->cpl;
	with_ss = outer || in_long64(c);
	if (with_ss) {
		uint16_t ss_sel;

		sp = stack_take(c, &st, i->osize);
		ss_sel = (uint16_t)stack_take(c, &st, i->osize);
		return_ss(c, ss_sel, &cs, &ss);
	}
	cs_check_rip(c, &cs, rip);
	desc_accessed(c, &cs);
	c->ev.nmi_blocked = false;
	mask = iret_mask(c, i->osize);
	if (!with_ss)
		stack_commit_sp(c, &st);
	cs_commit(c, &cs, sel & 3);
	if (with_ss)
		commit_ss_sp(c, &ss, sp);
	load_flags(c, fl, mask);
	if (outer)
		seg_drop_privileged(c);
	c->rip = rip;
}

void op_iret(struct x86_cpu *c, const struct insn *i)
{
	if (in_protected(c)) {
		iret_protected(c, i);
		return;
	}
	if (in_v86(c) && iopl(c) < 3 && !(c->cr4 & CR4_VME && i->osize == 2))
		x86_raise_code(c, EX_GP, 0);
	iret_real(c, i);
}

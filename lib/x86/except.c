/*
 * x86/except.c - exceptions and interrupts: raising, priorities of faults within faults, delivery
 * through the real-mode table, 16- and 32-bit gates, task gates, and 64-bit gates with IST.
 * SDM 3A chapter 6; 6.15 for double faults; INT n in 2A for the order of checks; 17.3 for RF.
 * vCPU thread.
 *
 * Delivery checks and writes the frame first, and changes the processor's state only then; so a
 * fault while delivering finds the state of the interrupted program.
 */
#include "x86/sys.h"

#define FL_ON_ENTRY (FL_TF | FL_NT | FL_RF | FL_VM) /* cleared by every gate */

/* ---- raising --------------------------------------------------------------------------------------- */

static _Noreturn void leave(struct x86_cpu *c, struct exc e)
{
	e.pending = true;
	c->exc = e;
	c->stats.exceptions++;
	longjmp(c->jmp, 1);
}

_Noreturn void x86_raise(struct x86_cpu *c, unsigned vec)
{
	leave(c, (struct exc){.vec = (uint8_t)vec});
}

_Noreturn void x86_raise_code(struct x86_cpu *c, unsigned vec, uint32_t code)
{
	leave(c, (struct exc){.vec = (uint8_t)vec, .has_code = true, .code = code});
}

_Noreturn void x86_raise_pf(struct x86_cpu *c, uint64_t va, uint32_t code)
{
	c->exc_cr2 = va;
	leave(c, (struct exc){.vec = EX_PF, .has_code = true, .code = code});
}

_Noreturn void x86_raise_soft(struct x86_cpu *c, unsigned vec, bool icebp)
{
	struct exc e = {
		.vec = (uint8_t)vec, .soft = !icebp, .trap = true, .rip = c->rip};

	if (c->cur) {
		e.rip = insn_rip(c, c->cur);
		c->stats.insns += c->cur->idx + 1u;
		c->cur = NULL;
	}
	leave(c, e);
}

/* ---- frames ----------------------------------------------------------------------------------------- */

/* Faults set RF in the frame, so that going on does not meet a breakpoint again. */
static uint64_t frame_flags(const struct x86_cpu *c, const struct exc *e)
{
	uint64_t fl = rflags_get(c) & ~(uint64_t)FL_RF;

	return e->trap || e->irq ? fl : fl | FL_RF;
}

/* Error code of a descriptor in the IDT. */
static uint32_t idt_err(const struct x86_cpu *c, unsigned vec)
{
	return vec * 8 + 2 + ext_bit(c);
}

static void enter_handler(struct x86_cpu *c, uint64_t clear)
{
	rflags_set(c, 0, clear);
	c->tf_armed = false;
}

/* ---- real mode ----------------------------------------------------------------------------------------- */

static void deliver_real(struct x86_cpu *c, const struct exc *e)
{
	struct stack st;
	uint32_t entry;

	if (e->vec * 4u + 3 > c->idtr.limit)
		x86_raise_code(c, EX_GP, idt_err(c, e->vec));
	entry = (uint32_t)sys_load(c, c->idtr.base + e->vec * 4u, 4);
	stack_now(c, &st);
	stack_put(c, &st, 2, rflags_get(c));
	stack_put(c, &st, 2, c->seg[X86_CS].sel);
	stack_put(c, &st, 2, c->rip);
	stack_commit_sp(c, &st);
	enter_handler(c, FL_IF | FL_TF | FL_AC | FL_RF);
	seg_set_real(c, X86_CS, (uint16_t)(entry >> 16));
	c->rip = entry & 0xffff;
	x86_update_mode(c);
}

/* VME: as in real mode, with VIF in the place of IF when IOPL < 3 (SDM 3B 20.3.3.4). */
void v86_redirect(struct x86_cpu *c, unsigned vec)
{
	uint32_t entry = (uint32_t)mem_load32(c, vec * 4);
	uint64_t fl = rflags_get(c);
	bool virt = iopl(c) < 3;
	struct stack st;

	if (virt)
		fl = (fl & ~(uint64_t)FL_IF) | FL_IOPL | (fl & FL_VIF ? FL_IF : 0);
	stack_now(c, &st);
	stack_put(c, &st, 2, fl);
	stack_put(c, &st, 2, c->seg[X86_CS].sel);
	stack_put(c, &st, 2, c->rip);
	stack_commit_sp(c, &st);
	rflags_set(c, 0, FL_TF | FL_NT | (virt ? FL_VIF : FL_IF));
	seg_set_real(c, X86_CS, (uint16_t)(entry >> 16));
	c->rip = entry & 0xffff;
	x86_update_mode(c);
}

/* ---- gates ---------------------------------------------------------------------------------------------- */

struct gate {
	unsigned type, dpl, ist;
	bool present;
	uint16_t sel;
	uint64_t offset;
};

static void gate_read(struct x86_cpu *c, unsigned vec, struct gate *g)
{
	unsigned size = c->long_mode ? 16 : 8;
	uint64_t va = c->idtr.base + vec * size, lo, hi = 0;

	if (vec * size + size - 1 > c->idtr.limit)
		x86_raise_code(c, EX_GP, idt_err(c, vec));
	lo = sys_load(c, c->long_mode ? va : (uint32_t)va, 8);
	if (c->long_mode)
		hi = sys_load(c, va + 8, 8);
	*g = (struct gate){.type = lo >> 40 & 31,
			   .dpl = lo >> 45 & 3,
			   .present = lo >> 47 & 1,
			   .ist = lo >> 32 & 7,
			   .sel = (uint16_t)(lo >> 16),
			   .offset =
				   (lo & 0xffff) | (lo >> 32 & 0xffff0000) | hi << 32};
}

/* Type, privilege of INT n, present. */
static void gate_check(struct x86_cpu *c, const struct exc *e, const struct gate *g)
{
	uint32_t types = c->long_mode ? BIT(DT_INT32) | BIT(DT_TRAP32)
				      : BIT(DT_TASK) | BIT(DT_INT16) | BIT(DT_TRAP16) |
						BIT(DT_INT32) | BIT(DT_TRAP32);

	if (!(types >> g->type & 1) || (e->soft && g->dpl < c->cpl))
		x86_raise_code(c, EX_GP, idt_err(c, e->vec));
	if (!g->present)
		x86_raise_code(c, EX_NP, idt_err(c, e->vec));
}

/* The gate's code segment; returns the privilege of the handler. */
static unsigned gate_target(struct x86_cpu *c, const struct gate *g, struct desc *cs)
{
	gate_code(c, g->sel, cs);
	if (in_v86(c) && (desc_is_conforming(cs) || cs->dpl != 0))
		x86_raise_code(c, EX_GP, sel_err(c, g->sel));
	return desc_is_conforming(cs) ? c->cpl : cs->dpl;
}

static uint64_t flags_cleared(const struct gate *g)
{
	bool interrupt = !(g->type & 1);

	return FL_ON_ENTRY | (interrupt ? FL_IF : 0);
}

/* ---- 16- and 32-bit protected mode -------------------------------------------------------------------------- */

static void push_v86_segs(struct x86_cpu *c, struct stack *st, unsigned size)
{
	stack_put(c, st, size, c->seg[X86_GS].sel);
	stack_put(c, st, size, c->seg[X86_FS].sel);
	stack_put(c, st, size, c->seg[X86_DS].sel);
	stack_put(c, st, size, c->seg[X86_ES].sel);
}

static void deliver_legacy(struct x86_cpu *c, const struct exc *e)
{
	bool v86 = in_v86(c), inner;
	unsigned cpl, size;
	struct stack st;
	struct gate g;
	struct desc cs;

	gate_read(c, e->vec, &g);
	gate_check(c, e, &g);
	if (g.type == DT_TASK) {
		task_switch(c, g.sel, TASK_GATE, e->has_code, e->code);
		return;
	}
	size = g.type & 8 ? 4 : 2;
	if (size == 2)
		g.offset &= 0xffff;
	cpl = gate_target(c, &g, &cs);
	inner = cpl != c->cpl;
	if (inner)
		tss_inner_stack(c, cpl, &st);
	else
		stack_now(c, &st);
	if (v86)
		push_v86_segs(c, &st, size);
	if (inner) {
		stack_put(c, &st, size, c->seg[X86_SS].sel);
		stack_put(c, &st, size, c->gpr[X86_RSP]);
	}
	stack_put(c, &st, size, frame_flags(c, e));
	stack_put(c, &st, size, c->seg[X86_CS].sel);
	stack_put(c, &st, size, c->rip);
	if (e->has_code)
		stack_put(c, &st, size, e->code);
	cs_check_rip(c, &cs, g.offset);
	desc_accessed(c, &cs);

	enter_handler(c, flags_cleared(&g));
	if (inner)
		c->seg[X86_SS] = st.ss;
	stack_commit_sp(c, &st);
	cs_commit(c, &cs, cpl);
	if (v86) {
		seg_set_null(c, X86_GS, 0);
		seg_set_null(c, X86_FS, 0);
		seg_set_null(c, X86_DS, 0);
		seg_set_null(c, X86_ES, 0);
	}
	c->rip = g.offset;
}

/* ---- 64-bit gates --------------------------------------------------------------------------------------------- */

static void deliver_long(struct x86_cpu *c, const struct exc *e)
{
	struct stack st = {.width = 8, .err = ext_bit(c)};
	unsigned cpl;
	struct gate g;
	struct desc cs;
	bool inner;

	gate_read(c, e->vec, &g);
	gate_check(c, e, &g);
	cpl = gate_target(c, &g, &cs);
	inner = cpl != c->cpl;
	if (g.ist || inner)
		st.sp = tss_rsp(c, cpl, g.ist);
	else
		st.sp = c->gpr[X86_RSP];
	st.sp &= ~15ull;
	st.mode = cpl == 3 ? MMU_USER : MMU_KERN;
	stack_put(c, &st, 8, c->seg[X86_SS].sel);
	stack_put(c, &st, 8, c->gpr[X86_RSP]);
	stack_put(c, &st, 8, frame_flags(c, e));
	stack_put(c, &st, 8, c->seg[X86_CS].sel);
	stack_put(c, &st, 8, c->rip);
	if (e->has_code)
		stack_put(c, &st, 8, e->code);
	cs_check_rip(c, &cs, g.offset);
	desc_accessed(c, &cs);

	enter_handler(c, flags_cleared(&g));
	if (inner)
		c->seg[X86_SS] =
			(struct x86_seg){.sel = (uint16_t)cpl,
					 .attr = (uint16_t)(cpl << X86_ATTR_DPL_SHIFT)};
	c->gpr[X86_RSP] = st.sp;
	cs_commit(c, &cs, cpl);
	c->rip = g.offset;
}

/* ---- which one, and faults within ------------------------------------------------------------------------------- */

static void deliver(struct x86_cpu *c, struct exc e)
{
	c->delivering = e;
	c->delivering.pending = true;
	c->ev.halted = false;
	c->ev.int_shadow = false;
	c->ss_shadow = false;
	atomic_fetch_and_explicit(&c->request, ~(uint32_t)REQ_SHADOW,
				  memory_order_relaxed);
	if (e.vec == EX_DB)
		c->dr[7] &= ~(1ull << 13); /* GD */
	if (in_real(c))
		deliver_real(c, &e);
	else if (c->long_mode)
		deliver_long(c, &e);
	else
		deliver_legacy(c, &e);
	c->delivering.pending = false;
}

enum exc_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum exc_class class_of(const struct exc *e)
{
	if (e->soft || e->irq)
		return BENIGN;
	switch (e->vec) {
	case EX_DE:
	case EX_TS:
	case EX_NP:
	case EX_SS:
	case EX_GP: return CONTRIBUTORY;
	case EX_PF: return PAGE_FAULT;
	case EX_DF: return DOUBLE_FAULT;
	default: return BENIGN;
	}
}

/* Exception `e` came while delivering `first`: what happens now; false: shutdown. */
static bool combine(const struct exc *first, struct exc *e)
{
	enum exc_class a = class_of(first), b = class_of(e);

	if (a == DOUBLE_FAULT && b != BENIGN)
		return false;
	if ((a == CONTRIBUTORY && b == CONTRIBUTORY) ||
	    (a == PAGE_FAULT && b != BENIGN))
		*e = (struct exc){.vec = EX_DF, .has_code = true};
	return true;
}

void x86_deliver_exception(struct x86_cpu *c)
{
	struct exc e = c->exc;

	c->exc.pending = false;
	if (e.vec == EX_PF)
		c->cr2 = c->exc_cr2;
	if (c->delivering.pending) {
		if (c->delivering.soft || c->delivering.trap) {
			if (c->delivering.rip)
				c->rip = c->delivering.rip;
		}
		if (!combine(&c->delivering, &e)) {
			log_msg(c->sys->log, LOG_DEBUG,
				"processor %u: triple fault at rip %#llx", c->index,
				(unsigned long long)c->rip);
			c->delivering.pending = false;
			c->shutdown = true;
			return;
		}
	}
	deliver(c, e);
}

void x86_deliver_interrupt(struct x86_cpu *c, unsigned vec)
{
	if (vec == EX_NMI)
		c->ev.nmi_blocked = true;
	deliver(c, (struct exc){.vec = (uint8_t)vec, .irq = true});
}

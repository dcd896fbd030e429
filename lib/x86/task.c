/*
 * x86/task.c - task state segments: stacks for inner privilege, hardware task switches.
 * SDM 3A chapter 7 (7.2 the segments, 7.3 switching and the order of checks, 7.4 nesting).
 * vCPU thread.
 *
 * A switch saves the old task, then is in the new one: faults in loading the new task's segments
 * are reported there, with the new task's registers.
 */
#include "x86/sys.h"

/* Where the fields of a TSS are. */
struct tss_layout {
	unsigned limit; /* the smallest that a TSS may have */
	unsigned size;  /* of registers: 2, 4 */
	unsigned cr3;   /* 0: none */
	unsigned ip, flags, gpr, sregs, n_sregs, ldt;
	unsigned save_from, save_to; /* what a switch writes */
};

static const struct tss_layout tss16 = {.limit = 0x2b,
					.size = 2,
					.ip = 0x0e,
					.flags = 0x10,
					.gpr = 0x12,
					.sregs = 0x22,
					.n_sregs = 4,
					.ldt = 0x2a,
					.save_from = 0x0e,
					.save_to = 0x2a};

static const struct tss_layout tss32 = {.limit = 0x67,
					.size = 4,
					.cr3 = 0x1c,
					.ip = 0x20,
					.flags = 0x24,
					.gpr = 0x28,
					.sregs = 0x48,
					.n_sregs = 6,
					.ldt = 0x60,
					.save_from = 0x20,
					.save_to = 0x60};

enum { TSS32_TRAP = 0x64 };
#define DR6_BT (1u << 15)

/* Both layouts hold ES CS SS DS (FS GS) in the order of enum x86_seg_id, and rAX .. rDI likewise. */
static const struct tss_layout *layout_of(unsigned type)
{
	return type & 8 ? &tss32 : &tss16;
}

static uint64_t tss_va(const struct x86_cpu *c, uint64_t base, unsigned off)
{
	return c->long_mode ? base + off : (uint32_t)(base + off);
}

/* ---- stacks ---------------------------------------------------------------------------------------------- */

void tss_inner_stack(struct x86_cpu *c, unsigned cpl, struct stack *s)
{
	const struct x86_seg *tr = &c->seg[X86_TR];
	unsigned size = tr->attr & 8 ? 4 : 2;
	unsigned at = size + cpl * size * 2;
	struct desc ss;
	uint16_t sel;

	if (at + size + 1 > tr->limit)
		x86_raise_code(c, EX_TS, sel_err(c, tr->sel));
	*s = (struct stack){.mode = MMU_KERN};
	s->sp = sys_load(c, tss_va(c, tr->base, at), size);
	sel = (uint16_t)sys_load(c, tss_va(c, tr->base, at + size), 2);
	seg_check_inner_ss(c, sel, cpl, &ss);
	s->ss = ss.seg;
	s->width = ss.seg.attr & X86_ATTR_DB ? 4 : 2;
	s->err = sel_err(c, sel);
}

uint64_t tss_rsp(struct x86_cpu *c, unsigned cpl, unsigned ist)
{
	const struct x86_seg *tr = &c->seg[X86_TR];
	unsigned at = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;
	uint64_t rsp;

	if (at + 7 > tr->limit)
		x86_raise_code(c, EX_TS, sel_err(c, tr->sel));
	rsp = sys_load(c, tr->base + at, 8);
	if (!is_canonical(rsp))
		x86_raise_code(c, EX_SS, ext_bit(c));
	return rsp;
}

/* ---- the new task's descriptor --------------------------------------------------------------------------- */

static void find_tss(struct x86_cpu *c, uint16_t sel, enum task_why why, struct desc *d)
{
	unsigned vec = why == TASK_IRET ? EX_TS : EX_GP, want;

	if (sel_is_null(sel) || sel & 4)
		x86_raise_code(c, vec, sel_err(c, sel));
	desc_read(c, sel, vec, false, d);
	want = why == TASK_IRET ? DT_TSS16_BUSY : DT_TSS16;
	if (d->s || (d->type & 7) != want)
		x86_raise_code(c, vec, sel_err(c, sel));
	if (!d->present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
	if (d->seg.limit < layout_of(d->type)->limit)
		x86_raise_code(c, EX_TS, sel_err(c, sel));
}

/* The descriptor of the running task, for its busy flag. */
static void old_desc(const struct x86_cpu *c, struct desc *d)
{
	d->va = (uint32_t)(c->gdtr.base + (c->seg[X86_TR].sel & 0xfff8));
}

/* ---- saving and loading ------------------------------------------------------------------------------------- */

/* What a TSS holds, as numbers. */
struct task {
	uint32_t cr3, ip, flags, gpr[8];
	uint16_t sreg[6], ldt;
	bool trap;
};

static void save_task(struct x86_cpu *c, const struct tss_layout *l, uint64_t flags)
{
	uint64_t base = c->seg[X86_TR].base;

	sys_store(c, tss_va(c, base, l->ip), l->size, c->rip);
	sys_store(c, tss_va(c, base, l->flags), l->size, flags);
	for (unsigned n = 0; n < 8; n++)
		sys_store(c, tss_va(c, base, l->gpr + n * l->size), l->size, c->gpr[n]);
	for (unsigned n = 0; n < l->n_sregs; n++)
		sys_store(c, tss_va(c, base, l->sregs + n * l->size), 2, c->seg[n].sel);
}

static void read_task(struct x86_cpu *c, const struct tss_layout *l, uint64_t base,
		      struct task *t)
{
	*t = (struct task){0};
	if (l->cr3)
		t->cr3 = (uint32_t)sys_load(c, tss_va(c, base, l->cr3), 4);
	t->ip = (uint32_t)sys_load(c, tss_va(c, base, l->ip), l->size);
	t->flags = (uint32_t)sys_load(c, tss_va(c, base, l->flags), l->size);
	for (unsigned n = 0; n < 8; n++)
		t->gpr[n] = (uint32_t)sys_load(c, tss_va(c, base, l->gpr + n * l->size),
					       l->size);
	for (unsigned n = 0; n < l->n_sregs; n++)
		t->sreg[n] = (uint16_t)sys_load(
			c, tss_va(c, base, l->sregs + n * l->size), 2);
	t->ldt = (uint16_t)sys_load(c, tss_va(c, base, l->ldt), 2);
	if (l->size == 4)
		t->trap = sys_load(c, tss_va(c, base, TSS32_TRAP), 2) & 1;
}

static void load_cr3(struct x86_cpu *c, uint32_t cr3)
{
	if (!(c->cr0 & CR0_PG))
		return;
	if (c->cr4 & CR4_PAE)
		mmu_load_pdptes(c, cr3);
	c->cr3 = cr3;
	tlb_flush_nonglobal(c);
}

/* ---- the new task's segments: faults belong to it --------------------------------------------------------------- */

static void new_cs(struct x86_cpu *c, uint16_t sel)
{
	struct desc d;

	if (sel_is_null(sel))
		x86_raise_code(c, EX_TS, ext_bit(c));
	desc_read(c, sel, EX_TS, false, &d);
	if (!desc_is_code(&d) ||
	    (desc_is_conforming(&d) ? d.dpl > (sel & 3u) : d.dpl != (sel & 3u)))
		x86_raise_code(c, EX_TS, sel_err(c, sel));
	if (!d.present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
	desc_accessed(c, &d);
	cs_commit(c, &d, sel & 3);
}

static void new_ss(struct x86_cpu *c, uint16_t sel)
{
	struct desc d;

	seg_check_inner_ss(c, sel, c->cpl, &d);
	seg_set(c, X86_SS, &d.seg);
	x86_update_mode(c);
}

static void new_data(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
	struct desc d;

	if (sel_is_null(sel)) {
		seg_set_null(c, seg, sel);
		return;
	}
	desc_read(c, sel, EX_TS, false, &d);
	if (!d.s || (d.type & (TYPE_CODE | TYPE_R)) == TYPE_CODE ||
	    (!desc_is_conforming(&d) && ((sel & 3u) > d.dpl || c->cpl > d.dpl)))
		x86_raise_code(c, EX_TS, sel_err(c, sel));
	if (!d.present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
	desc_accessed(c, &d);
	seg_set(c, seg, &d.seg);
}

static void new_segments(struct x86_cpu *c, const struct task *t)
{
	if (in_v86(c)) {
		for (unsigned n = 0; n < 6; n++)
			seg_set_real(c, n, t->sreg[n]);
		x86_update_mode(c);
		seg_load_ldtr(c, t->ldt, EX_TS, EX_TS);
		return;
	}
	/* Until each is loaded, the hidden part stays the old task's: the SDM leaves that open. */
	for (unsigned n = 0; n < 6; n++)
		c->seg[n].sel = t->sreg[n];
	c->cpl = t->sreg[X86_CS] & 3;
	x86_update_mode(c);
	seg_load_ldtr(c, t->ldt, EX_TS, EX_TS);
	new_cs(c, t->sreg[X86_CS]);
	new_ss(c, t->sreg[X86_SS]);
	new_data(c, X86_DS, t->sreg[X86_DS]);
	new_data(c, X86_ES, t->sreg[X86_ES]);
	new_data(c, X86_FS, t->sreg[X86_FS]);
	new_data(c, X86_GS, t->sreg[X86_GS]);
}

/* ---- switching ---------------------------------------------------------------------------------------------------- */

/* The state of the new task, all but its segments. From here on it is the one that runs. */
static void enter_task(struct x86_cpu *c, const struct desc *d, const struct task *t,
		       bool nested)
{
	uint32_t flags = t->flags | (nested ? FL_NT : 0);
	uint32_t mask = d->type & 8 ? 0xffffffffu : 0xffffu;

	c->cur = NULL; /* faults are no longer the instruction's that switched */
	c->rip = t->ip;
	for (unsigned n = 0; n < 8; n++) {
		if (d->type & 8)
			c->gpr[n] = t->gpr[n];
		else
			*reg16(c, R_OFF(n)) = (uint16_t)t->gpr[n];
	}
	c->seg[X86_TR] = d->seg;
	c->seg[X86_TR].attr |= 2; /* busy */
	c->cr0 |= CR0_TS;
	c->dr[7] &= ~0x155ull; /* local breakpoints */
	rflags_set(c, flags & mask, ~0ull);
	c->rf_loaded = c->rflags & FL_RF;
	debug_update(c);
}

static void push_code(struct x86_cpu *c, const struct desc *d, uint32_t code)
{
	struct stack st;

	stack_now(c, &st);
	stack_put(c, &st, d->type & 8 ? 4 : 2, code);
	stack_commit_sp(c, &st);
}

void task_switch(struct x86_cpu *c, uint16_t sel, enum task_why why, bool has_code,
		 uint32_t code)
{
	const struct tss_layout *old = layout_of(c->seg[X86_TR].attr & 15), *l;
	uint16_t old_sel = c->seg[X86_TR].sel;
	uint64_t flags = rflags_get(c);
	bool nested = why == TASK_CALL || why == TASK_GATE;
	const struct insn *cur = c->cur;
	struct desc d, od;
	struct task t;

	find_tss(c, sel, why, &d);
	l = layout_of(d.type);
	if (c->seg[X86_TR].limit < old->limit)
		x86_raise_code(c, EX_TS, sel_err(c, old_sel));
	mmu_probe(c, MMU_KERN, c->seg[X86_TR].base + old->save_from,
		  old->save_to - old->save_from, ACC_WRITE);
	mmu_probe(c, MMU_KERN, d.seg.base, l->limit + 1, nested ? ACC_WRITE : ACC_READ);
	read_task(c, l, d.seg.base, &t);
	if (!nested) {
		old_desc(c, &od);
		desc_busy(c, &od, false);
	}
	if (why == TASK_IRET)
		flags &= ~(uint64_t)FL_NT;
	if (c->delivering.pending && !c->delivering.trap && !c->delivering.irq)
		flags |= FL_RF;
	save_task(c, old, flags);
	if (nested)
		sys_store(c, d.seg.base, 2, old_sel);
	if (why != TASK_IRET)
		desc_busy(c, &d, true);
	enter_task(c, &d, &t, nested);
	if (l->cr3)
		load_cr3(c, t.cr3);
	new_segments(c, &t);
	if (has_code)
		push_code(c, &d, code);
	if (c->rip > c->seg[X86_CS].limit)
		x86_raise_code(c, EX_GP, ext_bit(c));
	if (t.trap) {
		c->dr[6] |= DR6_BT;
		c->exc = (struct exc){.vec = EX_DB, .pending = true, .trap = true};
		c->delivering.pending = false;
		c->stats.exceptions++;
		longjmp(c->jmp, 1);
	}
	c->cur = cur;
}

/*
 * x86/op_flags.c - RFLAGS as the system sees them, software interrupts, HLT and its relatives:
 * CLI STI PUSHF POPF CLAC STAC, INT n INT3 INTO INT1, HLT MONITOR MWAIT, RSM, caches.
 * SDM 2A/2B; virtual interrupts: 3B 20.3, 20.4. vCPU thread.
 */
#include "x86/sys.h"

static _Noreturn void gp0(struct x86_cpu *c)
{
	x86_raise_code(c, EX_GP, 0);
}

/* Does IF belong to VIF here: VME in virtual-8086 mode, PVI at CPL 3, both with IOPL < 3? */
static bool has_virtual_if(const struct x86_cpu *c)
{
	if (in_v86(c))
		return c->cr4 & CR4_VME && iopl(c) < 3;
	return !in_real(c) && c->cr4 & CR4_PVI && c->cpl == 3 && iopl(c) < 3;
}

/* ---- IF ---------------------------------------------------------------------------------------------- */

void op_cli(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	if (has_virtual_if(c))
		c->rflags &= ~(uint64_t)FL_VIF;
	else if (c->cpl <= iopl(c))
		c->rflags &= ~(uint64_t)FL_IF;
	else
		gp0(c);
}

void op_sti(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	if (has_virtual_if(c)) {
		if (c->rflags & FL_VIP)
			gp0(c);
		c->rflags |= FL_VIF;
		return;
	}
	if (c->cpl > iopl(c))
		gp0(c);
	if (c->rflags & FL_IF)
		return;
	c->rflags |= FL_IF;
	c->ev.int_shadow = true;
	atomic_fetch_or_explicit(&c->request, REQ_SHADOW, memory_order_relaxed);
}

/* ---- PUSHF, POPF ---------------------------------------------------------------------------------------- */

void op_pushf(struct x86_cpu *c, const struct insn *i)
{
	uint64_t fl = rflags_get(c) & ~(uint64_t)(FL_VM | FL_RF);

	if (in_v86(c) && iopl(c) < 3) {
		if (!(c->cr4 & CR4_VME) || i->osize != 2)
			gp0(c);
		fl = (fl & ~(uint64_t)FL_IF) | FL_IOPL | (fl & FL_VIF ? FL_IF : 0);
	}
	stack_push(c, i->osize, fl);
}

void op_popf(struct x86_cpu *c, const struct insn *i)
{
	uint64_t mask = FL_STATUS | FL_TF | FL_DF | FL_NT, fl;

	if (in_v86(c) && iopl(c) < 3) {
		if (!(c->cr4 & CR4_VME) || i->osize != 2)
			gp0(c);
		fl = stack_peek(c, 2, 0);
		if (fl & FL_TF || (fl & FL_IF && c->rflags & FL_VIP))
			gp0(c);
		fl = (fl & ~(uint64_t)FL_VIF) | (fl & FL_IF ? FL_VIF : 0);
		mask |= FL_VIF;
	} else {
		fl = stack_peek(c, i->osize, 0);
		if (i->osize > 2)
			mask |= FL_AC | FL_ID;
		if (c->cpl <= iopl(c))
			mask |= FL_IF;
		if (c->cpl == 0)
			mask |= FL_IOPL;
	}
	stack_drop(c, i->osize);
	c->rflags &= ~(uint64_t)FL_RF;
	rflags_set(c, fl, mask);
}

static void set_ac(struct x86_cpu *c, uint64_t v)
{
	if (!(c->feat & FEAT_SMAP) || c->cpl)
		x86_raise(c, EX_UD);
	rflags_set(c, v, FL_AC);
}

void op_clac(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	set_ac(c, 0);
}

void op_stac(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	set_ac(c, FL_AC);
}

/* ---- software interrupts ------------------------------------------------------------------------------------ */

/* VME: does the TSS's bitmap send INT vec to the virtual-8086 program's own table? */
static bool is_redirected(struct x86_cpu *c, unsigned vec)
{
	const struct x86_seg *tr = &c->seg[X86_TR];
	uint32_t at;

	if (!(c->cr4 & CR4_VME) || tr->limit < 103)
		return false;
	at = (uint32_t)sys_load(c, (uint32_t)(tr->base + 102), 2);
	if (at < 32 || at - 32 + vec / 8 > tr->limit)
		return false;
	at += vec / 8 - 32;
	return !(sys_load(c, (uint32_t)(tr->base + at), 1) >> (vec & 7) & 1);
}

void op_int(struct x86_cpu *c, const struct insn *i)
{
	if (in_v86(c)) {
		if (is_redirected(c, i->imm & 0xff)) {
			c->rip = next_rip(c, i);
			v86_redirect(c, i->imm & 0xff);
			return;
		}
		if (iopl(c) < 3)
			gp0(c);
	}
	c->rip = next_rip(c, i);
	x86_raise_soft(c, i->imm & 0xff, false);
}

void op_int3(struct x86_cpu *c, const struct insn *i)
{
	c->rip = next_rip(c, i);
	x86_raise_soft(c, EX_BP, false);
}

void op_into(struct x86_cpu *c, const struct insn *i)
{
	if (!c->st.of)
		return;
	c->rip = next_rip(c, i);
	x86_raise_soft(c, EX_OF, false);
}

void op_int1(struct x86_cpu *c, const struct insn *i)
{
	c->rip = next_rip(c, i);
	x86_raise_soft(c, EX_DB, true);
}

/* ---- halting ---------------------------------------------------------------------------------------------- */

void op_hlt(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
	c->ev.halted = true;
}

static void need_monitor(struct x86_cpu *c)
{
	if (!(c->feat & FEAT_MONITOR) || c->cpl)
		x86_raise(c, EX_UD);
}

/* MONITOR only checks its address; MWAIT is then a wait that ends at once. */
void op_monitor(struct x86_cpu *c, const struct insn *i)
{
	uint64_t off = c->gpr[X86_RAX];

	need_monitor(c);
	if ((uint32_t)c->gpr[X86_RCX])
		gp0(c);
	off = i->asize == 8 ? off : i->asize == 4 ? (uint32_t)off : (uint16_t)off;
	mem_load8(c, seg_linear_checked(c, i->seg < X86_NSEG ? i->seg : X86_DS, off, 1,
					ACC_READ));
}

void op_mwait(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	need_monitor(c);
	if ((uint32_t)c->gpr[X86_RCX] & ~1u)
		gp0(c);
}

/* There is no system management mode. */
void op_rsm(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x86_raise(c, EX_UD);
}

/* Caches are the host's and coherent. */
void op_invd(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
}

void op_wbinvd(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
}

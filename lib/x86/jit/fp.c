/*
 * x86/jit/fp.c - floating-point and vector state between c->xsave and the host's registers.
 *
 * While translated code runs, the guest's vector registers are the host's as soon as a block asks
 * for them; c->jit_fp has a bit (enum lift_fp) for each thing that is not so. Before any C code runs
 * they go back to c->xsave. x87 registers and MXCSR stay with the host as the interpreter leaves
 * them (enum fp_live). Code that uses only SSE is spared the upper halves. vCPU thread.
 */
#include "x86/jit/emit.h"
#include "x86/jit/lift.h"

#include "x86/vec.h"

/* What enter() has loaded. */
enum { LOAD_NONE, LOAD_XMM, LOAD_YMM };

/* Makes true what it can of `need`; returns which registers are to be loaded then. */
static unsigned enter(struct x86_cpu *c, unsigned need)
{
	unsigned ok = 0;
	bool ts = c->cr0 & CR0_TS;

	if (need & FP_X87 && x87_enter(c))
		ok |= FP_X87;
	if (!ts && !(c->cr0 & CR0_EM) && c->cr4 & CR4_OSFXSR)
		ok |= FP_SSE;
	if (need & FP_VEX && !ts && vec_vex_enabled(c))
		ok |= FP_VEX;
	if (need & FP_MXCSR && vec_mxcsr_enter(c))
		ok |= FP_MXCSR;
	c->jit_fp = (uint8_t)~ok;
	if (!(need & FP_HERE) || !(ok & (FP_SSE | FP_VEX)))
		return LOAD_NONE;
	return ok & FP_VEX ? LOAD_YMM : LOAD_XMM;
}

static struct host_rm xmm_at(unsigned base, unsigned n, bool high)
{
	return rm_mem(base, H_SP,
		      CPU_OFF(xsave) + (high ? XS_YMM : XS_XMM) + 16 * (int32_t)n);
}

static void put_xmm(struct emit *e, bool store, unsigned base)
{
	for (unsigned n = 0; n < 16; n++)
		e_op(e, 4, 0, 1, store ? 0x11 : 0x10, n, xmm_at(base, n, false), false,
		     false);
}

static void put_ymm(struct emit *e, bool store, unsigned base)
{
	for (unsigned n = 0; n < 16; n++) {
		e_vex(e, false, false, 0, 1, store ? 0x11 : 0x10, n, 0,
		      xmm_at(base, n, false));
		e_vex(e, false, true, 1, 3, store ? 0x19 : 0x18, n, store ? 0 : n,
		      xmm_at(base, n, true));
		e8(e, 1);
	}
}

static void put_test(struct emit *e, unsigned base, unsigned bits)
{
	e_rm(e, 1, 0xf6, 0, rm_mem(base, H_SP, CPU_OFF(jit_fp)));
	e8(e, bits);
}

/* rdi: c. Vector registers go to c->xsave if they are here; nothing is true any more. */
static void make_save(struct emit *e)
{
	uint8_t *skip, *low, *end;

	put_test(e, H_DI, FP_HERE);
	skip = e_jcc(e, CC_NZ);
	put_test(e, H_DI, FP_VEX);
	low = e_jcc(e, CC_NZ);
	put_ymm(e, true, H_DI);
	e8(e, 0xc5), e8(e, 0xf8), e8(e, 0x77); /* vzeroupper */
	end = e_jmp(e);
	e_patch(low, e->p);
	put_xmm(e, true, H_DI);
	e_patch(end, e->p);
	e_patch(skip, e->p);
	e_rm(e, 1, 0xc6, 0, rm_mem(H_DI, H_SP, CPU_OFF(jit_fp)));
	e8(e, 0xff);
	e8(e, 0xc3);
}

/* Called in translated code; T_B: enum lift_fp. What was true before stays so. */
static void make_enter(struct jit *j, struct emit *e)
{
	uint8_t *none, *low, *end;

	jit_put_regs(e, true, 8);
	e_rm(e, 8, 0x8d, H_DI, rm_mem(H_SP, H_SP, 8)); /* lea */
	e_op(e, 4, 0, 1, 0xb6, H_SI, rm_mem(H_DI, H_SP, CPU_OFF(jit_fp)), false, false);
	e_rm(e, 4, 0xf7, 2, rm_reg(H_SI)); /* not */
	e_rm(e, 4, 0x09, T_B, rm_reg(H_SI));
	e_call_to(j, e, j->fp_save);
	e_mov(e, 8, H_BX, H_SP);
	e_load(e, 8, H_SP, CPU_OFF(jit_sp) + 8);
	e_imm(e, H_AX, (uint64_t)(uintptr_t)enter);
	e_rm(e, 4, 0xff, 2, rm_reg(H_AX)); /* call */
	e_mov(e, 8, H_SP, H_BX);
	e_rm(e, 8, 0x8d, H_DI, rm_mem(H_SP, H_SP, 8)); /* lea */
	e_alu_imm(e, 4, 7, rm_reg(H_AX), LOAD_XMM);
	none = e_jcc(e, CC_B);
	low = e_jcc(e, CC_Z);
	put_ymm(e, false, H_DI);
	end = e_jmp(e);
	e_patch(low, e->p);
	put_xmm(e, false, H_DI);
	e_patch(end, e->p);
	e_rm(e, 1, 0x80, 4, rm_mem(H_DI, H_SP, CPU_OFF(jit_fp))); /* and */
	e8(e, ~(unsigned)FP_HERE);
	e_patch(none, e->p);
	jit_put_regs(e, false, 8);
	e8(e, 0xc3);
}

void jit_make_fp(struct jit *j, struct emit *e)
{
	j->fp_save = jit_to_rx(j, e->p);
	make_save(e);
	j->fp_enter = jit_to_rx(j, e->p);
	make_enter(j, e);
}

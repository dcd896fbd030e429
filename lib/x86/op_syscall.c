/*
 * x86/op_syscall.c - fast system calls, FS and GS bases, time stamps, hypercalls: SYSCALL SYSRET
 * SYSENTER SYSEXIT, SWAPGS RDFSBASE.., RDTSC RDTSCP RDPMC RDPID, VMCALL. SDM 2A/2B. vCPU thread.
 */
#include "x86/sys.h"

static _Noreturn void gp0(struct x86_cpu *c)
{
	x86_raise_code(c, EX_GP, 0);
}

/* The flat segments that these instructions load without looking at tables. */
static void flat_cs(struct x86_cpu *c, uint16_t sel, unsigned dpl, bool wide)
{
	c->seg[X86_CS] = (struct x86_seg){
		.sel = sel,
		.attr = (uint16_t)(X86_ATTR_G | (wide ? X86_ATTR_L : X86_ATTR_DB) |
				   X86_ATTR_P | X86_ATTR_S | 11 |
				   dpl << X86_ATTR_DPL_SHIFT),
		.limit = 0xffffffff};
}

static void flat_ss(struct x86_cpu *c, uint16_t sel, unsigned dpl)
{
	c->seg[X86_SS] = (struct x86_seg){
		.sel = sel,
		.attr = (uint16_t)(X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S |
				   3 | dpl << X86_ATTR_DPL_SHIFT),
		.limit = 0xffffffff};
}

/* ---- SYSCALL, SYSRET ----------------------------------------------------------------------------------- */

/* Outside long mode SYSCALL is AMD's (APM 3): EIP from STAR, IF and VM cleared. */
static void syscall_legacy(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel = c->star >> 32 & 0xfffc;

	c->gpr[X86_RCX] = next_rip(c, i);
	rflags_set(c, 0, FL_VM | FL_IF | FL_RF);
	c->cpl = 0;
	flat_cs(c, sel, 0, false);
	flat_ss(c, (uint16_t)(sel + 8), 0);
	c->rip = (uint32_t)c->star;
	x86_update_mode(c);
}

void op_syscall(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel = c->star >> 32 & 0xfffc;
	bool amd = cpuid_is_amd(c);

	if (!(c->efer & EFER_SCE) || (!amd && !in_long64(c)) || in_real(c))
		x86_raise(c, EX_UD);
	if (!c->long_mode) {
		syscall_legacy(c, i);
		return;
	}
	c->rip = in_long64(c) ? c->lstar : c->cstar;
	c->gpr[X86_RCX] = next_rip(c, i);
	c->gpr[11] = rflags_get(c) & ~(uint64_t)FL_RF;
	if (c->sfmask & FL_TF)
		c->tf_armed = false;
	rflags_set(c, 0, c->sfmask | FL_RF);
	c->cpl = 0;
	flat_cs(c, sel, 0, true);
	flat_ss(c, (uint16_t)(sel + 8), 0);
	x86_update_mode(c);
}

static void sysret_legacy(struct x86_cpu *c)
{
	uint16_t sel = c->star >> 48 | 3;

	c->rip = (uint32_t)c->gpr[X86_RCX];
	rflags_set(c, FL_IF, FL_IF);
	c->cpl = 3;
	flat_cs(c, sel, 3, false);
	flat_ss(c, (uint16_t)((sel + 8) | 3), 3);
	x86_update_mode(c);
}

void op_sysret(struct x86_cpu *c, const struct insn *i)
{
	bool amd = cpuid_is_amd(c), wide = i->osize == 8;
	uint16_t base = (uint16_t)(c->star >> 48);

	if (!(c->efer & EFER_SCE) || (!amd && !in_long64(c)) || in_real(c))
		x86_raise(c, EX_UD);
	need_cpl0(c);
	if (!c->long_mode) {
		sysret_legacy(c);
		return;
	}
	if (wide && !is_canonical(c->gpr[X86_RCX]))
		gp0(c);
	c->rip = wide ? c->gpr[X86_RCX] : (uint32_t)c->gpr[X86_RCX];
	rflags_set(c, c->gpr[11], ~(uint64_t)(FL_RF | FL_VM));
	c->rflags &= ~(uint64_t)FL_RF;
	c->cpl = 3;
	flat_cs(c, (uint16_t)((base + (wide ? 16 : 0)) | 3), 3, wide);
	flat_ss(c, (uint16_t)((base + 8) | 3), 3);
	x86_update_mode(c);
}

/* ---- SYSENTER, SYSEXIT ------------------------------------------------------------------------------------ */

void op_sysenter(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel = c->sysenter_cs & 0xfffc;

	(void)i;
	if (cpuid_is_amd(c) && c->long_mode)
		x86_raise(c, EX_UD);
	if (in_real(c) || !sel)
		gp0(c);
	rflags_set(c, 0, FL_VM | FL_IF | FL_RF);
	c->cpl = 0;
	flat_cs(c, sel, 0, c->long_mode);
	flat_ss(c, (uint16_t)(sel + 8), 0);
	c->gpr[X86_RSP] = c->long_mode ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
	c->rip = c->long_mode ? c->sysenter_eip : (uint32_t)c->sysenter_eip;
	x86_update_mode(c);
}

void op_sysexit(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel = c->sysenter_cs & 0xfffc;
	bool wide = i->osize == 8;
	uint64_t rip = c->gpr[X86_RDX], rsp = c->gpr[X86_RCX];

	if (cpuid_is_amd(c) && c->long_mode)
		x86_raise(c, EX_UD);
	if (in_real(c) || !sel)
		gp0(c);
	need_cpl0(c);
	if (wide && (!is_canonical(rip) || !is_canonical(rsp)))
		gp0(c);
	c->cpl = 3;
	flat_cs(c, (uint16_t)((sel + (wide ? 32 : 16)) | 3), 3, wide);
	flat_ss(c, (uint16_t)((sel + (wide ? 40 : 24)) | 3), 3);
	c->rip = wide ? rip : (uint32_t)rip;
	c->gpr[X86_RSP] = wide ? rsp : (uint32_t)rsp;
	x86_update_mode(c);
}

/* ---- FS and GS bases ------------------------------------------------------------------------------------------ */

static void set_base(struct x86_cpu *c, unsigned seg, uint64_t v)
{
	c->seg[seg].base = v;
	c->seg_base[seg] = v;
}

void op_swapgs(struct x86_cpu *c, const struct insn *i)
{
	uint64_t old = c->seg[X86_GS].base;

	(void)i;
	need_cpl0(c);
	set_base(c, X86_GS, c->kernel_gs_base);
	c->kernel_gs_base = old;
}

/* RDFSBASE RDGSBASE WRFSBASE WRGSBASE: modrm.reg 0 to 3. */
void op_rdfsbase(struct x86_cpu *c, const struct insn *i)
{
	unsigned reg = i->modrm >> 3 & 7;
	unsigned seg = reg & 1 ? X86_GS : X86_FS;
	uint64_t v;

	if (!(c->cr4 & CR4_FSGSBASE))
		x86_raise(c, EX_UD);
	if (reg < 2) {
		reg_set(c, i->rm, i->osize, c->seg[seg].base);
		return;
	}
	v = reg_get(c, i->rm, i->osize);
	if (!is_canonical(v))
		gp0(c);
	set_base(c, seg, v);
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

static uint64_t tsc(struct x86_cpu *c)
{
	if (c->cr4 & CR4_TSD && c->cpl)
		gp0(c);
	lockstep_once(c);
	return tsc_source(c) + c->tsc_offset;
}

static void set_edx_eax(struct x86_cpu *c, uint64_t v)
{
	c->gpr[X86_RAX] = (uint32_t)v;
	c->gpr[X86_RDX] = v >> 32;
}

void op_rdtsc(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	set_edx_eax(c, tsc(c));
}

void op_rdtscp(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	if (!(c->feat & FEAT_RDTSCP))
		x86_raise(c, EX_UD);
	set_edx_eax(c, tsc(c));
	c->gpr[X86_RCX] = (uint32_t)c->tsc_aux;
}

void op_rdpid(struct x86_cpu *c, const struct insn *i)
{
	if (!(c->feat & FEAT_RDPID))
		x86_raise(c, EX_UD);
	reg_set(c, i->rm, in_long64(c) ? 8 : 4, c->tsc_aux);
}

/* There are no performance counters. */
void op_rdpmc(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	gp0(c);
}

/* ---- hypercalls --------------------------------------------------------------------------------------------------- */

void op_vmcall(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = in_long64(c) ? 8 : 4;
	static const uint8_t regs[5] = {X86_RAX, X86_RBX, X86_RCX, X86_RDX, X86_RSI};
	uint64_t arg[5], ret;

	(void)i;
	if (!c->ops->hypercall)
		x86_raise(c, EX_UD);
	need_cpl0(c);
	for (unsigned n = 0; n < 5; n++)
		arg[n] = reg_get(c, R_OFF(regs[n]), size);
	callback_begin(c);
	ret = c->ops->hypercall(c->ctx, arg);
	callback_end(c);
	reg_set(c, R_OFF(X86_RAX), size, ret);
}

/*
 * x86/op_cr.c - control and debug registers, and what manages the TLB: MOV CR, MOV DR, CLTS, LMSW,
 * SMSW, INVLPG, INVPCID, XSETBV, XGETBV. SDM 3A 2.5, 4.10; 2A/2B; EFER.LMA: 3A 9.8.5. vCPU thread.
 */
#include "x86/sys.h"

#define CR0_VALID                                                                  \
	((uint64_t)(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | \
		    CR0_AM | CR0_NW | CR0_CD) |                                    \
	 CR0_PG)
#define CR3_NOFLUSH (1ull << 63)

#define DR6_BD (1u << 13)
#define DR7_GD (1u << 13)

static _Noreturn void gp0(struct x86_cpu *c)
{
	x86_raise_code(c, EX_GP, 0);
}

/* ---- CR0 ------------------------------------------------------------------------------------------- */

/* Paging goes on or off: does long mode begin or end? */
static uint64_t efer_after(struct x86_cpu *c, uint64_t cr0)
{
	bool on = cr0 & CR0_PG, l = c->seg[X86_CS].attr & X86_ATTR_L;

	if (on && c->efer & EFER_LME) {
		if (!(c->cr4 & CR4_PAE) || l)
			gp0(c);
		return c->efer | EFER_LMA;
	}
	if (!on && (c->cr4 & CR4_PCIDE || (c->long_mode && l)))
		gp0(c);
	return c->efer & ~(uint64_t)EFER_LMA;
}

void cr0_write(struct x86_cpu *c, uint64_t v)
{
	uint64_t diff, efer = c->efer;

	if (v >> 32)
		gp0(c);
	v = (v & CR0_VALID) | CR0_ET;
	if ((v & CR0_PG && !(v & CR0_PE)) || (v & CR0_NW && !(v & CR0_CD)))
		gp0(c);
	diff = v ^ c->cr0;
	if (diff & CR0_PG)
		efer = efer_after(c, v);
	if (diff & (CR0_PG | CR0_CD | CR0_NW) && v & CR0_PG && c->cr4 & CR4_PAE &&
	    !(efer & EFER_LMA))
		mmu_load_pdptes(c, c->cr3);
	c->cr0 = v;
	c->efer = efer;
	if (diff & (CR0_PG | CR0_WP | CR0_PE))
		tlb_flush_all(c);
	x86_update_mode(c);
}

void op_clts(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	need_cpl0(c);
	c->cr0 &= ~(uint64_t)CR0_TS;
}

/* Sets PE but cannot clear it. */
void op_lmsw(struct x86_cpu *c, const struct insn *i)
{
	uint64_t v;

	need_cpl0(c);
	v = i->flags & I_MEM ? mem_load16(c, ea_linear(c, i, 2, ACC_READ))
			     : *reg16(c, i->rm);
	v = (v & 15) | (c->cr0 & CR0_PE);
	cr0_write(c, (c->cr0 & ~15ull) | v);
}

void op_smsw(struct x86_cpu *c, const struct insn *i)
{
	if (c->cr4 & CR4_UMIP && c->cpl)
		gp0(c);
	if (i->flags & I_MEM)
		mem_store16(c, ea_linear(c, i, 2, ACC_WRITE), (uint16_t)c->cr0);
	else
		reg_set(c, i->rm, i->osize, c->cr0);
}

/* ---- CR3, CR4 ----------------------------------------------------------------------------------------- */

void cr3_write(struct x86_cpu *c, uint64_t v)
{
	if (c->long_mode) {
		if (c->cr4 & CR4_PCIDE)
			v &= ~CR3_NOFLUSH; /* it may be flushed all the same */
		if (v & ~(c->phys_mask | 0xfff))
			gp0(c);
	}
	if (is_pae_legacy(c))
		mmu_load_pdptes(c, v);
	c->cr3 = v;
	tlb_flush_nonglobal(c);
}

/* A bit of CR4 exists when the processor has the feature. */
static const struct {
	uint32_t bit, leaf, reg, mask;
} cr4_bits[] = {
	{CR4_VME | CR4_PVI, 1, 3, 1 << 1},
	{CR4_TSD, 1, 3, 1 << 4},
	{CR4_DE, 1, 3, 1 << 2},
	{CR4_PSE, 1, 3, 1 << 3},
	{CR4_PAE, 1, 3, 1 << 6},
	{CR4_MCE, 1, 3, 1 << 7},
	{CR4_PGE, 1, 3, 1 << 13},
	{CR4_PCE, 1, 3, 1},
	{CR4_OSFXSR, 1, 3, 1 << 24},
	{CR4_OSXMMEXCPT, 1, 3, 1 << 25},
	{CR4_UMIP, 7, 2, 1 << 2},
	{CR4_FSGSBASE, 7, 1, 1},
	{CR4_PCIDE, 1, 2, 1 << 17},
	{CR4_OSXSAVE, 1, 2, 1 << 26},
	{CR4_SMEP, 7, 1, 1 << 7},
	{CR4_SMAP, 7, 1, 1 << 20},
};

static uint64_t cr4_valid(const struct x86_cpu *c)
{
	uint64_t valid = 0;

	for (unsigned n = 0; n < ARRAY_LEN(cr4_bits); n++) {
		if (cpuid_reg(c, cr4_bits[n].leaf, 0, cr4_bits[n].reg) &
		    cr4_bits[n].mask)
			valid |= cr4_bits[n].bit;
	}
	return valid;
}

void cr4_write(struct x86_cpu *c, uint64_t v)
{
	uint64_t diff = v ^ c->cr4;

	if (diff & ~cr4_valid(c))
		gp0(c);
	if (c->long_mode && !(v & CR4_PAE))
		gp0(c);
	if (diff & v & CR4_PCIDE && (!c->long_mode || c->cr3 & 0xfff))
		gp0(c);
	if (diff & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) && v & CR4_PAE &&
	    c->cr0 & CR0_PG && !c->long_mode)
		mmu_load_pdptes(c, c->cr3);
	c->cr4 = v;
	if (diff & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		tlb_flush_all(c);
	x86_update_mode(c);
}

/* ---- MOV CR ---------------------------------------------------------------------------------------------- */

static uint64_t cr8_get(struct x86_cpu *c)
{
	uint64_t v;

	callback_begin(c);
	v = c->ops->cr8_get(c->ctx);
	callback_end(c);
	return v;
}

static void cr8_set(struct x86_cpu *c, uint64_t v)
{
	if (v > 15)
		gp0(c);
	callback_begin(c);
	c->ops->cr8_set(c->ctx, v);
	callback_end(c);
}

static void cr_write(struct x86_cpu *c, unsigned n, uint64_t v)
{
	switch (n) {
	case 0: cr0_write(c, v); break;
	case 2: c->cr2 = v; break;
	case 3: cr3_write(c, v); break;
	case 4: cr4_write(c, v); break;
	default: cr8_set(c, v); break;
	}
}

static uint64_t cr_read(struct x86_cpu *c, unsigned n)
{
	switch (n) {
	case 0: return c->cr0;
	case 2: return c->cr2;
	case 3: return c->cr3;
	case 4: return c->cr4;
	default: return cr8_get(c);
	}
}

void op_mov_cr(struct x86_cpu *c, const struct insn *i)
{
	unsigned n = i->reg / 8, size = in_long64(c) ? 8 : 4;

	if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
		x86_raise(c, EX_UD);
	need_cpl0(c);
	if (i->op == 0x22)
		cr_write(c, n, reg_get(c, i->rm, size));
	else
		reg_set(c, i->rm, size, cr_read(c, n));
}

/* ---- MOV DR ------------------------------------------------------------------------------------------------ */

static void dr_write(struct x86_cpu *c, unsigned n, uint64_t v)
{
	if (n >= 6 && v >> 32)
		gp0(c);
	if (n == 6)
		v = (v & 0xe00f) | 0xffff0ff0;
	else if (n == 7)
		v = (v & 0xffff2bff) | 0x400;
	c->dr[n] = v;
	c->rflags &= ~(uint64_t)FL_RF;
	debug_update(c);
}

void op_mov_dr(struct x86_cpu *c, const struct insn *i)
{
	unsigned n = i->reg / 8, size = in_long64(c) ? 8 : 4;

	if (n > 7)
		x86_raise(c, EX_UD);
	need_cpl0(c);
	if ((n == 4 || n == 5) && c->cr4 & CR4_DE)
		x86_raise(c, EX_UD);
	if (n == 4 || n == 5)
		n += 2;
	if (c->dr[7] & DR7_GD) {
		c->dr[6] |= DR6_BD;
		x86_raise(c, EX_DB);
	}
	if (i->op == 0x23)
		dr_write(c, n, reg_get(c, i->rm, size));
	else
		reg_set(c, i->rm, size, c->dr[n]);
}

/* ---- TLB ---------------------------------------------------------------------------------------------------- */

/* A non-canonical address is no fault: nothing is translated there. */
void op_invlpg(struct x86_cpu *c, const struct insn *i)
{
	uint64_t va = ea_offset(c, i) + c->seg_base[i->seg];

	need_cpl0(c);
	tlb_flush_page(c, in_long64(c) ? va : (uint32_t)va);
}

/* Translations are kept for the current PCID only, so only that one can be left to invalidate. */
void op_invpcid(struct x86_cpu *c, const struct insn *i)
{
	enum { ONE_PAGE, ONE_PCID, ALL_AND_GLOBAL, ALL };
	uint64_t type, va, desc[2], pcid;

	if (!(c->feat & FEAT_INVPCID) || in_real(c))
		x86_raise(c, EX_UD);
	if (in_v86(c))
		gp0(c);
	need_cpl0(c);
	type = reg_get(c, i->reg, in_long64(c) ? 8 : 4);
	va = ea_linear(c, i, 16, ACC_READ);
	mem_read(c, va, desc, 16);
	if (type > ALL)
		gp0(c);
	if (type <= ONE_PCID) {
		if (desc[0] >> 12)
			gp0(c);
		if (!(c->cr4 & CR4_PCIDE) && desc[0])
			gp0(c);
	}
	if (type == ONE_PAGE && !is_canonical(desc[1]))
		gp0(c);
	pcid = c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
	switch (type) {
	case ONE_PAGE:
		if (desc[0] == pcid)
			tlb_flush_page(c, desc[1]);
		break;
	case ONE_PCID:
		if (desc[0] == pcid)
			tlb_flush_nonglobal(c);
		break;
	case ALL_AND_GLOBAL: tlb_flush_all(c); break;
	default: tlb_flush_nonglobal(c); break;
	}
}

/* ---- XCR0 ---------------------------------------------------------------------------------------------------- */

static void need_osxsave(struct x86_cpu *c)
{
	if (!(c->cr4 & CR4_OSXSAVE))
		x86_raise(c, EX_UD);
}

void op_xgetbv(struct x86_cpu *c, const struct insn *i)
{
	uint32_t n = (uint32_t)c->gpr[X86_RCX];
	uint64_t v;

	(void)i;
	need_osxsave(c);
	if (n == 0)
		v = c->xcr0;
	else if (n == 1 && cpuid_reg(c, 13, 1, 0) & 4)
		v = c->xcr0 & x86_xinuse(c);
	else
		gp0(c);
	c->gpr[X86_RAX] = (uint32_t)v;
	c->gpr[X86_RDX] = v >> 32;
}

void op_xsetbv(struct x86_cpu *c, const struct insn *i)
{
	uint64_t v = c->gpr[X86_RDX] << 32 | (uint32_t)c->gpr[X86_RAX];
	uint64_t valid = cpuid_reg(c, 13, 0, 0);

	(void)i;
	need_osxsave(c);
	need_cpl0(c);
	if ((uint32_t)c->gpr[X86_RCX] || !(v & 1) || v & ~valid || (v & 6) == 4)
		gp0(c);
	c->xcr0 = v;
}

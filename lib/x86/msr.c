/*
 * x86/msr.c - model-specific registers: RDMSR, WRMSR and the list to save.
 * SDM 4 chapter 2; AMD APM 2 appendix A and the family 17h/19h PPR for the AMD ones. vCPU thread.
 *
 * A register is a row: where it is kept, which bits may be set. Registers that do something have
 * functions. What is not here is the machine's (ops->msr_*), or raises #GP(0).
 */
#include "x86/sys.h"

enum msr_number {
	MSR_P5_MC_ADDR = 0x0,
	MSR_P5_MC_TYPE = 0x1,
	MSR_TSC = 0x10,
	MSR_PLATFORM_ID = 0x17,
	MSR_APIC_BASE = 0x1b,
	MSR_FEATURE_CONTROL = 0x3a,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_UCODE_WRITE = 0x79,
	MSR_UCODE_REV = 0x8b,
	MSR_MTRRCAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_FLUSH_CMD = 0x10b,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MCG_CTL = 0x17b,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_MTRR_VAR = 0x200,
	MSR_MTRR_FIX64K = 0x250,
	MSR_MTRR_FIX16K = 0x258,
	MSR_MTRR_FIX4K = 0x268,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_MC0_CTL = 0x400,
	MSR_EFER = 0xc0000080,
	MSR_STAR,
	MSR_LSTAR,
	MSR_CSTAR,
	MSR_SFMASK,
	MSR_FS_BASE = 0xc0000100,
	MSR_GS_BASE,
	MSR_KERNEL_GS_BASE,
	MSR_TSC_AUX,
	MSR_AMD_SYSCFG = 0xc0010010,
	MSR_AMD_HWCR = 0xc0010015,
	MSR_AMD_NB_CFG = 0xc001001f,
	MSR_AMD_INT_PENDING = 0xc0010055,
	MSR_AMD_TSC_RATIO = 0xc0000104,
	MSR_AMD_CPUID_7 = 0xc0011002,
	MSR_AMD_CPUID_1 = 0xc0011004,
	MSR_AMD_CPUID_81 = 0xc0011005,
	MSR_AMD_LS_CFG = 0xc0011020,
	MSR_AMD_DC_CFG = 0xc0011022,
	MSR_AMD_BU_CFG2 = 0xc001102a,
	MSR_AMD_DE_CFG = 0xc0011029,
};

#define N_BANKS 10                 /* as many as KVM's */
#define MCG_CAP (N_BANKS | 1 << 8) /* MCG_CTL is there */
#define MTRRCAP \
	(8 | 1 << 8 | 1 << 10) /* 8 variable ranges, fixed ones, write-combining */
#define UCODE_INTEL 0x100000000ull
#define UCODE_AMD   0x1000065ull

/* IA32_ARCH_CAPABILITIES: what this processor is not vulnerable to (it does not speculate). */
#define ARCH_CAPS                                                                    \
	(1ull << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | \
	 1 << 14 | 1 << 15 | 1 << 20 | 1 << 24 | 1 << 26 | 1ull << 27 | 1ull << 62)

/* ---- registers that are only kept -------------------------------------------------------------------- */

enum msr_flag {
	M_CANONICAL = 1, /* #GP(0) for a value that is no canonical address */
	M_AMD = 2,       /* only on AMD's */
	M_IGNORE = 4,    /* writes change nothing */
	M_SAVE = 8,      /* part of the state to save */
	M_CONST = 16,    /* reads give .valid */
};

struct msr_row {
	uint32_t index;
	uint32_t off;   /* in struct x86_cpu; 0 with M_CONST */
	uint64_t valid; /* bits that may be set, others #GP(0); M_CONST: the value */
	uint32_t flags;
};

#define KEEP(n, member, bits, f)                                       \
	{                                                              \
		.index = (n), .off = offsetof(struct x86_cpu, member), \
		.valid = (bits), .flags = (f) | M_SAVE                 \
	}
#define CONST(n, val, f)                                             \
	{                                                            \
		.index = (n), .valid = (val), .flags = (f) | M_CONST \
	}

/* clang-format off */
static const struct msr_row rows[] = {
	CONST(MSR_P5_MC_ADDR, 0, M_IGNORE),
	CONST(MSR_P5_MC_TYPE, 0, M_IGNORE),
	CONST(MSR_PLATFORM_ID, 0, 0),
	KEEP(MSR_FEATURE_CONTROL, feature_control, 1, M_IGNORE),
	CONST(MSR_UCODE_WRITE, 0, M_IGNORE),
	CONST(MSR_MTRRCAP, MTRRCAP, 0),
	KEEP(MSR_SYSENTER_CS, sysenter_cs, ~0ull, 0),
	KEEP(MSR_SYSENTER_ESP, sysenter_esp, ~0ull, M_CANONICAL),
	KEEP(MSR_SYSENTER_EIP, sysenter_eip, ~0ull, M_CANONICAL),
	CONST(MSR_MCG_CAP, MCG_CAP, 0),
	KEEP(MSR_MCG_STATUS, mcg_status, 7, 0),
	KEEP(MSR_MCG_CTL, mcg_ctl, ~0ull, 0),
	KEEP(MSR_MISC_ENABLE, misc_enable, ~0ull, 0),
	KEEP(MSR_STAR, star, ~0ull, 0),
	KEEP(MSR_LSTAR, lstar, ~0ull, M_CANONICAL),
	KEEP(MSR_CSTAR, cstar, ~0ull, M_CANONICAL),
	KEEP(MSR_SFMASK, sfmask, 0xffffffff, 0),
	KEEP(MSR_KERNEL_GS_BASE, kernel_gs_base, ~0ull, M_CANONICAL),
	KEEP(MSR_TSC_AUX, tsc_aux, 0xffffffff, 0),
	CONST(MSR_AMD_SYSCFG, 0, M_AMD | M_IGNORE),
	KEEP(MSR_AMD_HWCR, hwcr, 0x01040008, M_AMD),
	CONST(MSR_AMD_NB_CFG, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_INT_PENDING, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_LS_CFG, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_DC_CFG, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_BU_CFG2, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_DE_CFG, 2, M_AMD | M_IGNORE), /* LFENCE is serialising */
	CONST(MSR_AMD_CPUID_7, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_CPUID_1, 0, M_AMD | M_IGNORE),
	CONST(MSR_AMD_CPUID_81, 0, M_AMD | M_IGNORE),
};
/* clang-format on */

static const struct msr_row *row_find(const struct x86_cpu *c, uint32_t n)
{
	for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
		if (rows[k].index == n)
			return rows[k].flags & M_AMD && !cpuid_is_amd(c) ? NULL
									 : &rows[k];
	}
	return NULL;
}

static uint64_t *row_place(struct x86_cpu *c, const struct msr_row *r)
{
	return (uint64_t *)((char *)c + r->off);
}

static bool row_set(struct x86_cpu *c, const struct msr_row *r, uint64_t v)
{
	if (r->flags & M_IGNORE)
		return true;
	if (r->flags & M_CONST || v & ~r->valid)
		return false;
	if (r->flags & M_CANONICAL && !is_canonical(v))
		return false;
	*row_place(c, r) = v;
	return true;
}

/* ---- memory types: kept and read back; the caches are the host's --------------------------------------- */

static uint64_t *mtrr_place(struct x86_cpu *c, uint32_t n)
{
	if (n >= MSR_MTRR_VAR && n < MSR_MTRR_VAR + 16)
		return &c->mtrr_var[n - MSR_MTRR_VAR];
	if (n == MSR_MTRR_FIX64K)
		return &c->mtrr_fix[0];
	if (n == MSR_MTRR_FIX16K || n == MSR_MTRR_FIX16K + 1)
		return &c->mtrr_fix[1 + n - MSR_MTRR_FIX16K];
	if (n >= MSR_MTRR_FIX4K && n < MSR_MTRR_FIX4K + 8)
		return &c->mtrr_fix[3 + n - MSR_MTRR_FIX4K];
	if (n == MSR_MTRR_DEF_TYPE)
		return &c->mtrr_def_type;
	return NULL;
}

/* UC, WC, WT, WP, WB; in the PAT also UC-. */
static bool is_memory_type(unsigned t, bool pat)
{
	return t == 0 || t == 1 || t == 4 || t == 5 || t == 6 || (pat && t == 7);
}

static bool types_valid(uint64_t v, bool pat)
{
	for (unsigned n = 0; n < 8; n++) {
		if (!is_memory_type(v >> (n * 8) & 0xff, pat))
			return false;
	}
	return true;
}

static bool mtrr_valid(const struct x86_cpu *c, uint32_t n, uint64_t v)
{
	if (n == MSR_MTRR_DEF_TYPE)
		return !(v & ~0xcffull) && is_memory_type(v & 0xff, false);
	if (n >= MSR_MTRR_FIX64K)
		return types_valid(v, false);
	if (v & ~(c->phys_mask | 0xfff))
		return false;
	if (n & 1)
		return !(v & 0x7ff);
	return !(v & 0xf00) && is_memory_type(v & 0xff, false);
}

/* ---- registers that do something --------------------------------------------------------------------------- */

static bool efer_set(struct x86_cpu *c, uint64_t v)
{
	uint64_t valid = EFER_LMA, diff;
	uint32_t edx = cpuid_reg(c, 0x80000001, 0, 3);

	if (edx & 1 << 11)
		valid |= EFER_SCE;
	if (edx & 1 << 29)
		valid |= EFER_LME;
	if (edx & 1 << 20)
		valid |= EFER_NXE;
	if (edx & 1 << 25)
		valid |=
			1 << 14; /* FFXSR: kept; FXSAVE saves everything all the same */
	if (cpuid_reg(c, 0x80000021, 0, 0) & 1 << 8)
		valid |= 1 << 21; /* automatic IBRS */
	if (v & ~valid)
		return false;
	v = (v & ~(uint64_t)EFER_LMA) | (c->efer & EFER_LMA);
	diff = v ^ c->efer;
	if (diff & EFER_LME && c->cr0 & CR0_PG)
		return false;
	c->efer = v;
	if (diff & EFER_NXE)
		tlb_flush_all(c);
	return true;
}

/* A write to one of TSC and TSC_ADJUST moves the other by the same amount. */
static void tsc_move(struct x86_cpu *c, uint64_t by)
{
	c->tsc_adjust += by;
	c->tsc_offset += by;
}

static bool base_set(struct x86_cpu *c, unsigned seg, uint64_t v)
{
	if (!is_canonical(v))
		return false;
	c->seg[seg].base = v;
	c->seg_base[seg] = v;
	return true;
}

static bool has_spec_ctrl(const struct x86_cpu *c)
{
	if (cpuid_is_amd(c))
		return cpuid_reg(c, 0x80000008, 0, 1) & (1 << 14 | 1 << 15 | 1 << 24);
	return cpuid_reg(c, 7, 0, 3) & (1u << 26 | 1u << 27 | 1u << 31);
}

/* Barriers: nothing is predicted here. */
static bool command_set(const struct x86_cpu *c, uint64_t v)
{
	return has_spec_ctrl(c) && !(v & ~1ull);
}

static uint64_t ucode_rev(const struct x86_cpu *c)
{
	return cpuid_is_amd(c) ? UCODE_AMD : UCODE_INTEL;
}

static bool is_bank(uint32_t n)
{
	return n >= MSR_MC0_CTL && n < MSR_MC0_CTL + N_BANKS * 4;
}

/* STATUS may be cleared by anybody, set only with HWCR.McStatusWrEn. */
static bool bank_set(struct x86_cpu *c, uint32_t n, uint64_t v)
{
	if ((n & 3) == 1 && v && !(c->hwcr & 1 << 18))
		return false;
	c->mci[n - MSR_MC0_CTL] = v;
	return true;
}

/* The registers of this file; false: not here, or #GP. */
static bool own_get(struct x86_cpu *c, uint32_t n, uint64_t *v, bool *known)
{
	const struct msr_row *r = row_find(c, n);
	const uint64_t *p = mtrr_place(c, n);

	*known = true;
	if (r) {
		*v = r->flags & M_CONST ? r->valid : *row_place(c, r);
		return true;
	}
	if (p) {
		*v = *p;
		return true;
	}
	if (is_bank(n)) {
		*v = c->mci[n - MSR_MC0_CTL];
		return true;
	}
	switch (n) {
	case MSR_TSC:
		lockstep_once(c);
		*v = tsc_source(c) + c->tsc_offset;
		return true;
	case MSR_TSC_ADJUST: *v = c->tsc_adjust; return true;
	case MSR_PAT: *v = c->pat; return true;
	case MSR_EFER: *v = c->efer; return true;
	case MSR_FS_BASE: *v = c->seg[X86_FS].base; return true;
	case MSR_GS_BASE: *v = c->seg[X86_GS].base; return true;
	case MSR_UCODE_REV: *v = ucode_rev(c); return true;
	case MSR_SPEC_CTRL: *v = c->spec_ctrl; return has_spec_ctrl(c);
	case MSR_ARCH_CAPABILITIES:
		*v = ARCH_CAPS;
		return cpuid_reg(c, 7, 0, 3) & 1 << 29;
	default: *known = false; return false;
	}
}

/* inside: by WRMSR; else the machine restores, and sets the TSC by itself. */
static bool own_set(struct x86_cpu *c, uint32_t n, uint64_t v, bool inside, bool *known)
{
	const struct msr_row *r = row_find(c, n);
	uint64_t *p = mtrr_place(c, n);

	*known = true;
	if (r)
		return row_set(c, r, v);
	if (p) {
		if (!mtrr_valid(c, n, v))
			return false;
		*p = v;
		return true;
	}
	if (is_bank(n))
		return bank_set(c, n, v);
	switch (n) {
	case MSR_TSC:
		lockstep_once(c);
		tsc_move(c, v - (tsc_source(c) + c->tsc_offset));
		return true;
	case MSR_TSC_ADJUST:
		if (inside)
			tsc_move(c, v - c->tsc_adjust);
		else
			c->tsc_adjust = v;
		return true;
	case MSR_PAT:
		if (!types_valid(v, true))
			return false;
		c->pat = v;
		return true;
	case MSR_EFER: return efer_set(c, v);
	case MSR_FS_BASE: return base_set(c, X86_FS, v);
	case MSR_GS_BASE: return base_set(c, X86_GS, v);
	case MSR_UCODE_REV: return true;
	case MSR_SPEC_CTRL:
		if (!has_spec_ctrl(c) || v & ~0x87ull)
			return false;
		c->spec_ctrl = v;
		return true;
	case MSR_PRED_CMD: return command_set(c, v);
	case MSR_FLUSH_CMD: return cpuid_reg(c, 7, 0, 3) & 1 << 28 && !(v & ~1ull);
	default: *known = false; return false;
	}
}

/* ---- the machine's -------------------------------------------------------------------------------------------- */

static void note_refused(const struct x86_cpu *c, const char *what, uint32_t n)
{
	log_msg(c->sys->log, LOG_DEBUG,
		"processor %u: %s of unknown msr %#x at rip %#llx", c->index, what, n,
		(unsigned long long)c->rip);
}

static bool msr_get(struct x86_cpu *c, uint32_t msr, uint64_t *val, bool inside)
{
	bool known, ok = own_get(c, msr, val, &known);

	if (known)
		return ok;
	if (inside)
		callback_begin(c);
	ok = c->ops->msr_get && c->ops->msr_get(c->ctx, msr, val);
	if (inside)
		callback_end(c);
	if (ok && msr == MSR_APIC_BASE)
		c->apic_base = *val;
	return ok;
}

static bool msr_set(struct x86_cpu *c, uint32_t msr, uint64_t val, bool inside)
{
	bool known, ok = own_set(c, msr, val, inside, &known);

	if (known)
		return ok;
	if (inside)
		callback_begin(c);
	ok = c->ops->msr_set && c->ops->msr_set(c->ctx, msr, val);
	if (inside)
		callback_end(c);
	if (ok && msr == MSR_APIC_BASE)
		c->apic_base = val;
	return ok;
}

bool x86_get_msr(struct x86_cpu *c, uint32_t msr, uint64_t *val)
{
	return msr_get(c, msr, val, false);
}

bool x86_set_msr(struct x86_cpu *c, uint32_t msr, uint64_t val)
{
	return msr_set(c, msr, val, false);
}

/* The state is also in x86_regs: EFER, bases; those are listed for who saves by MSR only. */
static const uint32_t saved[] = {MSR_TSC_ADJUST, MSR_PAT,     MSR_SPEC_CTRL,
				 MSR_EFER,       MSR_FS_BASE, MSR_GS_BASE};

static size_t list_put(uint32_t *list, size_t n, size_t at, uint32_t msr)
{
	if (at < n)
		list[at] = msr;
	return at + 1;
}

size_t x86_msr_list(const struct x86_cpu *c, uint32_t *list, size_t n)
{
	size_t at = 0;

	for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
		if (rows[k].flags & M_SAVE && row_find(c, rows[k].index))
			at = list_put(list, n, at, rows[k].index);
	}
	for (size_t k = 0; k < ARRAY_LEN(saved); k++) {
		if (saved[k] != MSR_SPEC_CTRL || has_spec_ctrl(c))
			at = list_put(list, n, at, saved[k]);
	}
	for (uint32_t k = 0; k < 16; k++)
		at = list_put(list, n, at, MSR_MTRR_VAR + k);
	at = list_put(list, n, at, MSR_MTRR_FIX64K);
	at = list_put(list, n, at, MSR_MTRR_FIX16K);
	at = list_put(list, n, at, MSR_MTRR_FIX16K + 1);
	for (uint32_t k = 0; k < 8; k++)
		at = list_put(list, n, at, MSR_MTRR_FIX4K + k);
	at = list_put(list, n, at, MSR_MTRR_DEF_TYPE);
	for (uint32_t k = 0; k < N_BANKS * 4; k++)
		at = list_put(list, n, at, MSR_MC0_CTL + k);
	return at;
}

/* ---- the instructions -------------------------------------------------------------------------------------------- */

void op_rdmsr(struct x86_cpu *c, const struct insn *i)
{
	uint32_t n = (uint32_t)c->gpr[X86_RCX];
	uint64_t v = 0;

	need_cpl0(c);
	if (!msr_get(c, n, &v, true)) {
		c->rip = insn_rip(c, i);
		note_refused(c, "read", n);
		x86_raise_code(c, EX_GP, 0);
	}
	c->gpr[X86_RAX] = (uint32_t)v;
	c->gpr[X86_RDX] = v >> 32;
}

void op_wrmsr(struct x86_cpu *c, const struct insn *i)
{
	uint32_t n = (uint32_t)c->gpr[X86_RCX];
	uint64_t v = c->gpr[X86_RDX] << 32 | (uint32_t)c->gpr[X86_RAX];

	need_cpl0(c);
	if (!msr_set(c, n, v, true)) {
		c->rip = insn_rip(c, i);
		note_refused(c, "write", n);
		x86_raise_code(c, EX_GP, 0);
	}
}

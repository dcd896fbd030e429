/*
 * x86/cpuid.c - the CPUID leaves that this processor can do, and the instruction.
 * SDM 2A CPUID; AMD APM 3 appendix E. x86_cpuid_supported(): any thread; else vCPU thread.
 *
 * User-mode features are the host's, since vector instructions run as its own; system features are
 * what this library does whatever the host has. Speculation is said to be safe: an interpreter does
 * not leak by it, and guests then leave out their slow defences.
 */
#include <cpuid.h>
#include <string.h>

#include "x86/sys.h"

#define VENDOR_AMD_EBX   0x68747541 /* "Auth" */
#define VENDOR_HYGON_EBX 0x6f677948 /* "Hygo" */

#define PHYS_BITS_MAX 46
#define LINEAR_BITS   48

enum { XSAVE_LEGACY = 576, XSAVE_AVX = 256 };

/* ---- features by leaf and register -------------------------------------------------------------------- */

/* clang-format off */
/* Leaf 1 ecx: SSE3 PCLMULQDQ SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND */
#define F1_ECX_HOST (1u << 0 | 1u << 1 | 1u << 9 | 1u << 12 | 1u << 13 | 1u << 19 | 1u << 20 |  \
		     1u << 22 | 1u << 23 | 1u << 25 | 1u << 26 | 1u << 28 | 1u << 29 | 1u << 30)
#define F1_ECX_OWN  (1u << 17)
/* Leaf 1 edx, host: FPU CMOV MMX FXSR SSE SSE2; own: VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE
 * MCA PAT PSE36 CLFSH */
#define F1_EDX_HOST (1u << 0 | 1u << 15 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26)
#define F1_EDX_OWN  (1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 |  \
		     1u << 9 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 16 | 1u << 17 |    \
		     1u << 19)
/* Leaf 7 ebx, host: BMI1 AVX2 BMI2 FDP_EXCPTN_ONLY RDSEED ADX CLFLUSHOPT CLWB SHA; own: FSGSBASE TSC_ADJUST
 * SMEP ERMS INVPCID, zero FCS/FDS (x87_env.c), SMAP */
#define F7_EBX_HOST (1u << 3 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 18 | 1u << 19 | 1u << 23 |    \
		     1u << 24 | 1u << 29)
#define F7_EBX_OWN  (1u << 0 | 1u << 1 | 1u << 7 | 1u << 9 | 1u << 10 | 1u << 13 | 1u << 20)
/* Leaf 7 ecx: UMIP RDPID; edx: FSRM, ARCH_CAPABILITIES; Intel: IBRS STIBP L1D_FLUSH SSBD */
#define F7_ECX_OWN  (1u << 2 | 1u << 22)
#define F7_EDX_OWN  (1u << 4 | 1u << 29)
#define F7_EDX_INTEL (1u << 26 | 1u << 27 | 1u << 28 | 1u << 31)
/* Leaf 80000001h ecx, host: LAHF LZCNT PREFETCHW; edx own: SYSCALL NX 1G RDTSCP LM; AMD's copy of leaf 1 */
#define FE1_ECX_HOST (1u << 0 | 1u << 5 | 1u << 8)
#define FE1_EDX_OWN  (1u << 11 | 1u << 20 | 1u << 26 | 1u << 27 | 1u << 29)
#define FE1_EDX_COPY 0x0183f3ffu
#define FE1_EDX_MMXEXT (1u << 22)
/* Leaf 80000008h ebx, AMD: IBPB IBRS STIBP, both always on, IBRS preferred, SSBD, SSB_NO, BTC_NO */
#define FE8_EBX_AMD (1u << 12 | 1u << 14 | 1u << 15 | 1u << 16 | 1u << 17 | 1u << 18 | 1u << 24 |   \
		     1u << 26 | 1u << 29)
/* Leaf 80000021h eax: no nested data breakpoints, LFENCE serialises, null selectors clear the base,
 * automatic IBRS, SRSO_NO; ecx: TSA_SQ_NO TSA_L1_NO */
#define FE21_EAX (1u << 0 | 1u << 2 | 1u << 6 | 1u << 8 | 1u << 29)
#define FE21_ECX (1u << 1 | 1u << 2)
/* clang-format on */

/* ---- what the host has ------------------------------------------------------------------------------------ */

struct list {
	struct x86_cpuid *out;
	size_t max, n;
	bool amd;
};

static struct x86_cpuid host(uint32_t leaf, uint32_t sub)
{
	struct x86_cpuid l = {.leaf = leaf, .subleaf = sub};

	if (leaf <= (uint32_t)__get_cpuid_max(leaf & 0x80000000, NULL))
		__cpuid_count(leaf, sub, l.eax, l.ebx, l.ecx, l.edx);
	return l;
}

static void put(struct list *k, struct x86_cpuid l)
{
	if (k->n < k->max)
		k->out[k->n] = l;
	k->n++;
}

/* Can vector registers of 256 bits be used: does the host's system save them? */
static bool host_has_avx(void)
{
	uint32_t lo, hi;

	if ((host(1, 0).ecx & (1u << 27 | 1u << 28)) != (1u << 27 | 1u << 28))
		return false;
	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (lo & 6) == 6;
}

static void basic_leaves(struct list *k)
{
	struct x86_cpuid l = host(0, 0);
	bool avx = host_has_avx();

	l.eax = 0xd;
	put(k, l);
	l = host(1, 0);
	l.ebx = 8 << 8; /* CLFLUSH: 64 bytes */
	l.ecx = (l.ecx & F1_ECX_HOST) | F1_ECX_OWN;
	l.edx = (l.edx & F1_EDX_HOST) | F1_EDX_OWN;
	if (!avx)
		l.ecx &= ~(1u << 12 | 1u << 28 | 1u << 29);
	put(k, l);
	if (!k->amd) {
		put(k, host(2, 0));
		for (uint32_t sub = 0; sub < 8; sub++) {
			l = host(4, sub);
			l.has_subleaf = true;
			put(k, l);
			if (!(l.eax & 31))
				break;
		}
	}
	put(k, (struct x86_cpuid){.leaf = 6, .eax = 4}); /* ARAT */
	l = host(7, 0);
	l.has_subleaf = true;
	l.eax = 0;
	l.ebx = (l.ebx & F7_EBX_HOST) | F7_EBX_OWN;
	l.ecx = F7_ECX_OWN;
	l.edx = F7_EDX_OWN | (k->amd ? 0 : F7_EDX_INTEL);
	if (!avx)
		l.ebx &= ~(1u << 5);
	put(k, l);
}

/* State components x87, SSE, AVX. */
static void xsave_leaves(struct list *k)
{
	bool avx = host_has_avx();
	uint32_t size = XSAVE_LEGACY + (avx ? XSAVE_AVX : 0);

	if (!(host(1, 0).ecx & 1u << 26))
		return;
	put(k, (struct x86_cpuid){.leaf = 0xd,
				  .has_subleaf = true,
				  .eax = avx ? 7 : 3,
				  .ebx = size,
				  .ecx = size});
	put(k, (struct x86_cpuid){.leaf = 0xd,
				  .subleaf = 1,
				  .has_subleaf = true,
				  .eax = host(0xd, 1).eax &
					 7, /* XSAVEOPT XSAVEC XGETBV1 */
				  .ebx = size});
	if (avx)
		put(k, (struct x86_cpuid){.leaf = 0xd,
					  .subleaf = 2,
					  .has_subleaf = true,
					  .eax = XSAVE_AVX,
					  .ebx = XSAVE_LEGACY});
}

static void extended_leaves(struct list *k)
{
	struct x86_cpuid l = host(0x80000000, 0);
	uint32_t bits = host(0x80000008, 0).eax & 0xff;

	l.eax = k->amd ? 0x80000021 : 0x80000008;
	put(k, l);
	l = host(0x80000001, 0);
	l.ecx &= FE1_ECX_HOST;
	l.edx = FE1_EDX_OWN |
		(k->amd ? (l.edx & FE1_EDX_MMXEXT) |
				  (((host(1, 0).edx & F1_EDX_HOST) | F1_EDX_OWN) &
				   FE1_EDX_COPY)
			: 0);
	put(k, l);
	for (uint32_t n = 0x80000002; n <= 0x80000004; n++)
		put(k, host(n, 0));
	if (k->amd) {
		put(k, host(0x80000005, 0));
	}
	put(k, host(0x80000006, 0));
	put(k, (struct x86_cpuid){.leaf = 0x80000007, .edx = 1 << 8});
	bits = bits < 36 ? 36 : (uint32_t)min_u64(bits, PHYS_BITS_MAX);
	put(k, (struct x86_cpuid){.leaf = 0x80000008,
				  .eax = bits | LINEAR_BITS << 8,
				  .ebx = k->amd ? FE8_EBX_AMD : 0});
	if (!k->amd)
		return;
	for (uint32_t sub = 0; sub < 8; sub++) {
		l = host(0x8000001d, sub);
		l.has_subleaf = true;
		put(k, l);
		if (!(l.eax & 31))
			break;
	}
	put(k,
	    (struct x86_cpuid){.leaf = 0x80000021, .eax = FE21_EAX, .ecx = FE21_ECX});
}

static bool is_amd_vendor(uint32_t ebx)
{
	return ebx == VENDOR_AMD_EBX || ebx == VENDOR_HYGON_EBX;
}

size_t x86_cpuid_supported(struct x86_cpuid *out, size_t n)
{
	struct list k = {.out = out, .max = n, .amd = is_amd_vendor(host(0, 0).ebx)};

	basic_leaves(&k);
	xsave_leaves(&k);
	extended_leaves(&k);
	return k.n;
}

/* ---- what the processor was given ------------------------------------------------------------------------- */

const struct x86_cpuid *cpuid_find(const struct x86_cpu *c, uint32_t leaf, uint32_t sub)
{
	for (size_t n = 0; n < c->n_cpuid; n++) {
		const struct x86_cpuid *l = &c->cpuid[n];

		if (l->leaf == leaf && (!l->has_subleaf || l->subleaf == sub))
			return l;
	}
	return NULL;
}

uint32_t cpuid_reg(const struct x86_cpu *c, uint32_t leaf, uint32_t sub, unsigned reg)
{
	const struct x86_cpuid *l = cpuid_find(c, leaf, sub);

	if (!l)
		return 0;
	switch (reg) {
	case 0: return l->eax;
	case 1: return l->ebx;
	case 2: return l->ecx;
	default: return l->edx;
	}
}

void cpuid_note_features(struct x86_cpu *c)
{
	static const struct {
		uint32_t feature, leaf, reg, bit;
	} map[] = {
		{FEAT_RDTSCP, 0x80000001, 3, 27},
		{FEAT_RDPID, 7, 2, 22},
		{FEAT_SMAP, 7, 1, 20},
		{FEAT_INVPCID, 7, 1, 10},
		{FEAT_MONITOR, 1, 2, 3},
	};

	c->feat = is_amd_vendor(cpuid_reg(c, 0, 0, 1)) ? FEAT_AMD : 0;
	for (unsigned n = 0; n < ARRAY_LEN(map); n++) {
		if (cpuid_reg(c, map[n].leaf, 0, map[n].reg) >> map[n].bit & 1)
			c->feat |= map[n].feature;
	}
}

/* ---- the instruction ----------------------------------------------------------------------------------------- */

/* Size of the standard-format area for what is enabled. */
static uint32_t xsave_size(uint64_t xcr0)
{
	return XSAVE_LEGACY + (xcr0 & 4 ? XSAVE_AVX : 0);
}

/* What depends on the state of the processor. */
static void adjust(const struct x86_cpu *c, struct x86_cpuid *l)
{
	bool apic = c->apic_base >> 11 & 1;

	switch (l->leaf) {
	case 1:
		l->ecx &= ~(1u << 27);
		if (c->cr4 & CR4_OSXSAVE)
			l->ecx |= 1u << 27;
		if (!apic)
			l->edx &= ~(1u << 9);
		break;
	case 0xd:
		if (l->subleaf < 2)
			l->ebx = xsave_size(c->xcr0);
		break;
	case 0x80000001:
		if (!apic)
			l->edx &= ~(1u << 9);
		break;
	default: break;
	}
}

void op_cpuid(struct x86_cpu *c, const struct insn *i)
{
	uint32_t leaf = (uint32_t)c->gpr[X86_RAX], sub = (uint32_t)c->gpr[X86_RCX];
	const struct x86_cpuid *found = cpuid_find(c, leaf, sub);
	struct x86_cpuid l = {.leaf = leaf, .subleaf = sub};

	(void)i;
	if (found) {
		l = *found;
		adjust(c, &l);
	} else if (leaf == 0xb || leaf == 0x1f) {
		l.ecx = sub & 0xff;
		l.edx = cpuid_reg(c, leaf, 0, 3);
	}
	c->gpr[X86_RAX] = l.eax;
	c->gpr[X86_RBX] = l.ebx;
	c->gpr[X86_RCX] = l.ecx;
	c->gpr[X86_RDX] = l.edx;
}

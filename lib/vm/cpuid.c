/*
 * vm/cpuid.c - CPUID leaves that depend on the machine, for both engines.
 * Specifications: SDM volume 2A, CPUID; AMD APM volume 3 appendix E; the KVM paravirtual leaves as
 * Linux documents them (Documentation/virt/kvm/x86/cpuid.rst).
 */
#include <string.h>

#include "base/bits.h"
#include "vm/cpu.h"

enum {
	ECX1_X2APIC = 1 << 21,
	ECX1_TSC_DEADLINE = 1 << 24,
	ECX80000001_CMP_LEGACY = 1 << 1,
	ECX80000001_TOPOEXT = 1 << 22,
	EDX80000007_INVARIANT_TSC = 1 << 8,
	EDX1_HTT = 1 << 28,
};
#define ECX1_HYPERVISOR (1u << 31)

#define LEAF_HV 0x40000000u

static struct cpuid_leaf *find(struct cpuid_leaf *leaf, unsigned n, uint32_t l,
			       uint32_t sub)
{
	for (unsigned i = 0; i < n; i++)
		if (leaf[i].leaf == l &&
		    (!leaf[i].has_subleaf || leaf[i].subleaf == sub))
			return &leaf[i];
	return NULL;
}

static void drop(struct cpuid_leaf *leaf, unsigned *n, uint32_t first, uint32_t last)
{
	unsigned out = 0;

	for (unsigned i = 0; i < *n; i++)
		if (leaf[i].leaf < first || leaf[i].leaf > last)
			leaf[out++] = leaf[i];
	*n = out;
}

static void add(struct cpuid_leaf *leaf, unsigned *n, struct cpuid_leaf l)
{
	if (*n < CPUID_MAX_LEAVES)
		leaf[(*n)++] = l;
}

/* Bits that number `n` things. */
static unsigned id_bits(unsigned n)
{
	unsigned bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

/* Extended topology: one thread a core, n cores in the package (0Bh, and 1Fh where it is). */
static void topology(struct cpuid_leaf *leaf, unsigned *n,
		     const struct cpuid_topology *t, uint32_t number)
{
	enum { LEVEL_SMT = 1, LEVEL_CORE = 2 };

	drop(leaf, n, number, number);
	add(leaf, n, (struct cpuid_leaf){number, 0, 1, 0, 1, LEVEL_SMT << 8, t->index});
	add(leaf, n,
	    (struct cpuid_leaf){number, 1, 1, id_bits(t->n_cpus), t->n_cpus,
				LEVEL_CORE << 8 | 1, t->index});
	add(leaf, n, (struct cpuid_leaf){number, 2, 1, 0, 0, 2, t->index});
}

static void basic(struct cpuid_leaf *leaf, unsigned n, const struct cpuid_topology *t)
{
	struct cpuid_leaf *l = find(leaf, n, 1, 0);

	if (l) {
		l->ebx = (l->ebx & 0xffff) | t->index << 24 | (t->n_cpus & 0xff) << 16;
		l->ecx |= ECX1_X2APIC | ECX1_TSC_DEADLINE;
		if (t->n_cpus > 1)
			l->edx |= EDX1_HTT;
		else
			l->edx &= ~(uint32_t)EDX1_HTT;
		if (t->hypervisor)
			l->ecx |= ECX1_HYPERVISOR;
		else
			l->ecx &= ~ECX1_HYPERVISOR;
	}
	l = find(leaf, n, 0x80000001, 0);
	if (l) {
		l->ecx &= ~(uint32_t)(ECX80000001_TOPOEXT | ECX80000001_CMP_LEGACY);
		if (t->n_cpus > 1)
			l->ecx |= ECX80000001_CMP_LEGACY;
	}
	l = find(leaf, n, 0x80000007, 0);
	if (l)
		l->edx |= EDX80000007_INVARIANT_TSC;
	l = find(leaf, n, 0x80000008, 0);
	if (l)
		l->ecx = (t->n_cpus - 1) | id_bits(t->n_cpus) << 12;
}

/* Cache leaves (4, 8000001Dh): each cache belongs to one core, as cores have one thread. */
static void caches(struct cpuid_leaf *leaf, unsigned n, const struct cpuid_topology *t)
{
	for (unsigned i = 0; i < n; i++) {
		struct cpuid_leaf *l = &leaf[i];
		unsigned level = (l->eax >> 5) & 7, sharing;

		if ((l->leaf != 4 && l->leaf != 0x8000001d) || !(l->eax & 0x1f))
			continue;
		sharing = level == 3 ? t->n_cpus - 1 : 0;
		l->eax = (l->eax & 0x3fff) | sharing << 14;
		if (l->leaf == 4)
			l->eax |= ((1u << id_bits(t->n_cpus)) - 1) << 26;
	}
}

static void hypervisor(struct cpuid_leaf *leaf, unsigned *n,
		       const struct cpuid_topology *t)
{
	static const char sig[12] = "KVMKVMKVM\0\0";
	struct cpuid_leaf l = {.leaf = LEAF_HV, .eax = LEAF_HV + 0x10};

	drop(leaf, n, LEAF_HV, LEAF_HV + 0xffff);
	if (!t->hypervisor)
		return;
	memcpy(&l.ebx, sig, 4);
	memcpy(&l.ecx, sig + 4, 4);
	memcpy(&l.edx, sig + 8, 4);
	add(leaf, n, l);
	add(leaf, n, (struct cpuid_leaf){.leaf = LEAF_HV + 1, .eax = t->kvm_features});
	/* VMware's timing leaf, which Linux and the BSDs read: kHz of the TSC and of the bus. */
	add(leaf, n,
	    (struct cpuid_leaf){.leaf = LEAF_HV + 0x10,
				.eax = t->tsc_khz,
				.ebx = t->bus_hz / 1000});
}

/* 15h: TSC = crystal * ebx / eax; the crystal is the local APIC timer's clock. 16h: MHz. */
static void frequencies(struct cpuid_leaf *leaf, unsigned *n,
			const struct cpuid_topology *t)
{
	uint32_t mhz = t->tsc_khz / 1000;
	uint64_t num = t->tsc_khz, den = t->bus_hz / 1000, a, b;

	for (a = num, b = den; b;) { /* greatest common divisor */
		uint64_t r = a % b;

		a = b;
		b = r;
	}
	drop(leaf, n, 0x15, 0x16);
	if (!a)
		return;
	add(leaf, n,
	    (struct cpuid_leaf){.leaf = 0x15,
				.eax = (uint32_t)(den / a),
				.ebx = (uint32_t)(num / a),
				.ecx = t->bus_hz});
	add(leaf, n,
	    (struct cpuid_leaf){.leaf = 0x16, .eax = mhz, .ebx = mhz, .ecx = 100});
}

void cpuid_apply(struct cpuid_leaf *leaf, unsigned *n, const struct cpuid_topology *t)
{
	struct cpuid_leaf *l;

	basic(leaf, *n, t);
	caches(leaf, *n, t);
	topology(leaf, n, t, 0x0b);
	drop(leaf, n, 0x1f, 0x1f);
	drop(leaf, n, 0x8000001e, 0x8000001e);
	frequencies(leaf, n, t);
	hypervisor(leaf, n, t);
	l = find(leaf, *n, 0, 0);
	if (l && l->eax < 0x16)
		l->eax = 0x16;
}

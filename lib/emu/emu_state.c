/*
 * emu/emu_state.c - a processor's whole state, out of and into lib/x86 and the local APIC.
 *
 * The processor's thread is outside run(). Values to set are hostile.
 */
#include "emu/emu_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"

static_assert(CPU_XSAVE_SIZE == X86_XSAVE_SIZE, "XSAVE areas");
static_assert(CPU_LAPIC_SIZE == LAPIC_PAGE_SIZE, "local APIC pages");
static_assert((int)SEG_COUNT == (int)X86_NSEG && (int)SEG_TR == (int)X86_TR,
	      "segment numbers");

#define MSR_TSC          0x10u
#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_EFER         0xc0000080u
#define MSR_FS_BASE      0xc0000100u
#define MSR_GS_BASE      0xc0000101u
/* Not MSRs, but kept among them: what cpu_state has no place for. */
#define EXTRA_PDPTE      0xffff0000u /* and 3 more */
#define EXTRA_SMBASE     0xffff0004u

/* MSRs of this folder, in the order in which they are to be set. */
static const uint32_t own_msrs[] = {MSR_TSC_DEADLINE, MSR_KVM_WALL, MSR_KVM_TIME};

/* Is it kept elsewhere, or one of own_msrs? */
static bool msr_is_ours(uint32_t msr)
{
	return msr == MSR_EFER || msr == MSR_FS_BASE || msr == MSR_GS_BASE ||
	       msr == MSR_TSC || msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE ||
	       (msr >= 0x800 && msr < 0x900) || msr == MSR_KVM_WALL ||
	       msr == MSR_KVM_TIME || msr == MSR_KVM_WALL_OLD ||
	       msr == MSR_KVM_TIME_OLD;
}

static void add_msr(struct cpu_state *s, uint32_t index, uint64_t val)
{
	if (s->n_msrs == CPU_MAX_MSRS)
		return;
	s->msr[s->n_msrs].index = index;
	s->msr[s->n_msrs].val = val;
	s->n_msrs++;
}

static void get_msrs(struct emu_cpu *c, const struct x86_regs *r, struct cpu_state *s)
{
	uint32_t list[CPU_MAX_MSRS];
	size_t n = min_u64(x86_msr_list(c->x, list, ARRAY_LEN(list)), ARRAY_LEN(list));
	uint64_t val;

	for (size_t i = 0; i < n; i++)
		if (!msr_is_ours(list[i]) && x86_get_msr(c->x, list[i], &val))
			add_msr(s, list[i], val);
	for (unsigned i = 0; i < 4; i++)
		add_msr(s, EXTRA_PDPTE + i, r->pdpte[i]);
	add_msr(s, EXTRA_SMBASE, r->ev.smbase);
	add_msr(s, MSR_TSC_DEADLINE, lapic_timer_deadline(&c->lapic));
	add_msr(s, MSR_KVM_WALL, c->msr_wall);
	add_msr(s, MSR_KVM_TIME, c->msr_time);
}

static void get_segs(const struct x86_regs *r, struct cpu_state *s)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct cpu_seg){r->seg[i].sel, r->seg[i].attr,
					     r->seg[i].limit, r->seg[i].base};
	s->gdtr = (struct cpu_dtable){r->gdtr.base, r->gdtr.limit};
	s->idtr = (struct cpu_dtable){r->idtr.base, r->idtr.limit};
}

int emu_get_state(struct engine *en, unsigned index, struct cpu_state *s,
		  struct err *err)
{
	struct emu *e = emu_of(en);
	struct emu_cpu *c = &e->cpu[index];
	struct x86_regs *r;
	int rc = emu_cpu_make(e, index, NULL, 0, err);

	if (rc)
		return rc;
	r = NEW(struct x86_regs);
	if (!r)
		return err_set(err, ENOMEM, "no memory for the processor's state");
	x86_get_regs(c->x, r);
	memset(s, 0, sizeof(*s));
	memcpy(s->gpr, r->gpr, sizeof(s->gpr));
	s->rip = r->rip;
	s->rflags = r->rflags;
	get_segs(r, s);
	s->cr0 = r->cr0;
	s->cr2 = r->cr2;
	s->cr3 = r->cr3;
	s->cr4 = r->cr4;
	s->cr8 = lapic_cr8(&c->lapic);
	s->xcr0 = r->xcr0;
	s->efer = r->efer;
	s->apic_base = atomic_load(&c->lapic.base);
	memcpy(s->dr, r->dr, sizeof(s->dr));
	s->mp = r->ev.wait_sipi ? CPU_WAIT_SIPI
		: r->ev.halted  ? CPU_HALTED
				: CPU_RUNNING;
	s->nmi_pending = r->ev.nmi_pending;
	s->nmi_blocked = r->ev.nmi_blocked;
	s->int_shadow = r->ev.int_shadow;
	s->tsc = emu_clock_stop(e, false) + x86_tsc_offset(c->x);
	memcpy(s->xsave, r->xsave, sizeof(s->xsave));
	lapic_save(&c->lapic, s->lapic, &s->lapic_timer_left);
	get_msrs(c, r, s);
	free(r);
	return 0;
}

static void set_regs(const struct cpu_state *s, struct x86_regs *r)
{
	memcpy(r->gpr, s->gpr, sizeof(r->gpr));
	r->rip = s->rip;
	r->rflags = s->rflags;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		r->seg[i] = (struct x86_seg){s->seg[i].sel, s->seg[i].attr,
					     s->seg[i].limit, s->seg[i].base};
	r->gdtr = (struct x86_dtable){s->gdtr.base, s->gdtr.limit};
	r->idtr = (struct x86_dtable){s->idtr.base, s->idtr.limit};
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->cr8 = s->cr8;
	r->xcr0 = s->xcr0;
	r->efer = s->efer;
	r->apic_base = s->apic_base;
	memcpy(r->dr, s->dr, sizeof(r->dr));
	r->ev.nmi_pending = s->nmi_pending;
	r->ev.nmi_blocked = s->nmi_blocked;
	r->ev.int_shadow = s->int_shadow;
	r->ev.halted = s->mp == CPU_HALTED;
	r->ev.wait_sipi = s->mp == CPU_WAIT_SIPI;
	memcpy(r->xsave, s->xsave, sizeof(r->xsave));
	for (uint32_t i = 0; i < s->n_msrs; i++) {
		uint32_t m = s->msr[i].index;

		if (m >= EXTRA_PDPTE && m < EXTRA_PDPTE + 4)
			r->pdpte[m - EXTRA_PDPTE] = s->msr[i].val;
		else if (m == EXTRA_SMBASE)
			r->ev.smbase = s->msr[i].val;
	}
}

static int set_one_msr(struct emu_cpu *c, uint32_t msr, uint64_t val, struct err *err)
{
	if (!x86_set_msr(c->x, msr, val))
		return err_set(err, EINVAL,
			       "processor %u cannot have 0x%llx in MSR 0x%x", c->index,
			       (unsigned long long)val, msr);
	return 0;
}

/* The processor's own MSRs, then the deadline and the clock, which need the TSC to be right. */
static int set_msrs(struct emu_cpu *c, const struct cpu_state *s, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < s->n_msrs && !rc; i++)
		if (!msr_is_ours(s->msr[i].index) && s->msr[i].index < EXTRA_PDPTE)
			rc = set_one_msr(c, s->msr[i].index, s->msr[i].val, err);
	x86_set_tsc_offset(c->x, s->tsc - emu_clock_stop(c->emu, true));
	for (unsigned k = 0; k < ARRAY_LEN(own_msrs); k++)
		for (uint32_t i = 0; i < s->n_msrs && !rc; i++)
			if (s->msr[i].index == own_msrs[k] && s->msr[i].val)
				rc = set_one_msr(c, own_msrs[k], s->msr[i].val, err);
	return rc;
}

int emu_set_state(struct engine *en, unsigned index, const struct cpu_state *s,
		  struct err *err)
{
	struct emu *e = emu_of(en);
	struct emu_cpu *c = &e->cpu[index];
	struct x86_regs *r;
	int rc = emu_cpu_make(e, index, NULL, 0, err);

	if (rc)
		return rc;
	if (s->n_msrs > CPU_MAX_MSRS || s->mp > CPU_WAIT_SIPI)
		return err_set(err, EINVAL, "the state of processor %u makes no sense",
			       index);
	r = NEW(struct x86_regs);
	if (!r)
		return err_set(err, ENOMEM, "no memory for the processor's state");
	x86_get_regs(c->x, r);
	set_regs(s, r);
	rc = x86_set_regs(c->x, r);
	free(r);
	if (rc < 0)
		return err_set(err, EINVAL,
			       "the registers of processor %u make no sense", index);
	c->msr_time = 0;
	c->msr_wall = 0;
	atomic_store(&c->init_came, false);
	atomic_store(&c->unhalt, false);
	if (lapic_load(&c->lapic, s->apic_base, s->lapic, s->lapic_timer_left) < 0)
		return err_set(err, EINVAL,
			       "the local APIC of processor %u makes no sense", index);
	return set_msrs(c, s, err);
}

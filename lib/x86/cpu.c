/*
 * x86/cpu.c - a processor's life and state: creation, reset, INIT, SIPI, registers, requests, and
 * what is derived from its mode. SDM 3A 9.1, table 9-1. vCPU thread, unless x86.h says any.
 */
#include "x86/sys.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "x86/jit/jit.h"
#include "x86/jit/lockstep.h"

/* Bits that may be set in RFLAGS; bit 1 always is. */
#define RFLAGS_VALID                                                                   \
	(FL_STATUS | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | \
	 FL_VIF | FL_VIP | FL_ID)

enum {
	APIC_BASE_BSP = 1 << 8,
	APIC_BASE_ENABLE = 1 << 11,
	APIC_BASE_ADDR = 0xfee00000
};

#define MISC_ENABLE_RESET 0x1ull /* fast strings */
#define PAT_RESET         0x0007040600070406ull

static void request(struct x86_cpu *c, uint32_t bits)
{
	atomic_fetch_or_explicit(&c->request, bits, memory_order_release);
}

/* ---- what hangs on the mode --------------------------------------------------------------------- */

static void update_mmu_mode(struct x86_cpu *c)
{
	unsigned m;

	if (c->cpl == 3)
		m = c->cr0 & CR0_AM && c->rflags & FL_AC ? MMU_USER_AC : MMU_USER;
	else
		m = c->cr4 & CR4_SMAP && c->rflags & FL_AC ? MMU_KERN_AC : MMU_KERN;
	c->mmu_mode = (uint8_t)m;
	c->tlb = c->tlbs[m];
}

void x86_update_mode(struct x86_cpu *c)
{
	const struct x86_seg *cs = &c->seg[X86_CS], *ss = &c->seg[X86_SS];

	c->long_mode = c->efer & EFER_LMA;
	if (!(c->cr0 & CR0_PE))
		c->cpl = 0;
	else if (c->rflags & FL_VM)
		c->cpl = 3;
	if (c->long_mode && cs->attr & X86_ATTR_L)
		c->code_size = 8;
	else
		c->code_size = cs->attr & X86_ATTR_DB ? 4 : 2;
	c->stack_size = c->code_size == 8 ? 8 : ss->attr & X86_ATTR_DB ? 4 : 2;
	for (unsigned n = 0; n < X86_NSEG; n++)
		c->seg_base[n] = c->seg[n].base;
	if (c->code_size == 8) {
		c->seg_base[X86_ES] = c->seg_base[X86_CS] = 0;
		c->seg_base[X86_SS] = c->seg_base[X86_DS] = 0;
	}
	c->seg_base[SEG_FLAT] = 0;
	update_mmu_mode(c);
}

void rflags_set(struct x86_cpu *c, uint64_t v, uint64_t mask)
{
	uint64_t old = c->rflags;

	mask &= RFLAGS_VALID;
	if (mask & FL_STATUS) {
		uint64_t now = rflags_get(c);

		status_set(c, (now & ~mask) | (v & mask));
	}
	mask &= ~(uint64_t)FL_STATUS;
	c->rflags = (old & ~mask) | (v & mask);
	old ^= c->rflags;
	if (old & FL_AC)
		update_mmu_mode(c);
	if (unlikely(old & FL_TF)) {
		/* where single instructions run already, x86_check_traps() follows and knows */
		if (c->rflags & FL_TF && !(atomic_load(&c->request) & REQ_TRAP))
			c->tf_armed = true;
		debug_update(c);
	}
}

/* ---- reset --------------------------------------------------------------------------------------- */

static void seg_reset(struct x86_cpu *c)
{
	for (unsigned n = 0; n < X86_NSEG; n++)
		c->seg[n] = (struct x86_seg){.attr = 0x93, .limit = 0xffff};
	c->seg[X86_CS].sel = 0xf000;
	c->seg[X86_CS].base = 0xffff0000;
	c->seg[X86_CS].attr = 0x9b;
	c->seg[X86_LDTR].attr = 0x82;
	c->seg[X86_TR].attr = 0x8b;
	c->gdtr = c->idtr = (struct x86_dtable){.limit = 0xffff};
}

/* What RESET# and INIT# have in common. */
static void reset_common(struct x86_cpu *c)
{
	memset(c->gpr, 0, sizeof(c->gpr));
	c->gpr[X86_RDX] = cpuid_reg(c, 1, 0, 0);
	c->rip = 0xfff0;
	c->rflags = 0;
	c->st.w = 0;
	c->st.lo = 2;
	c->cur = NULL;
	c->cpl = 0;
	seg_reset(c);
	c->cr0 = CR0_ET | (c->cr0 & (CR0_NW | CR0_CD));
	c->cr2 = c->cr3 = c->cr4 = c->efer = 0;
	c->xcr0 = 1;
	memset(c->dr, 0, sizeof(c->dr));
	c->dr[6] = 0xffff0ff0;
	c->dr[7] = 0x400;
	memset(c->pdpte, 0, sizeof(c->pdpte));
	c->exc.pending = c->delivering.pending = false;
	c->ev.nmi_pending = c->ev.nmi_blocked = c->ev.int_shadow = false;
	c->ev.halted = false;
	c->shutdown = false;
	c->tf_armed = false;
	c->dr_hit = 0;
	tlb_flush_all(c);
	debug_update(c);
	x86_update_mode(c);
}

static void reset_msrs(struct x86_cpu *c)
{
	c->star = c->lstar = c->cstar = c->sfmask = c->kernel_gs_base = 0;
	c->sysenter_cs = c->sysenter_esp = c->sysenter_eip = 0;
	c->pat = PAT_RESET;
	c->misc_enable = MISC_ENABLE_RESET;
	c->tsc_aux = c->spec_ctrl = c->xss = c->mcg_status = c->mcg_ctl = 0;
	c->feature_control = 1; /* locked, VMX off */
	c->hwcr = 1u << 24;     /* TscFreqSel: the TSC counts at the P0 frequency */
	c->mtrr_def_type = 0;
	memset(c->mtrr_fix, 0, sizeof(c->mtrr_fix));
	memset(c->mtrr_var, 0, sizeof(c->mtrr_var));
	memset(c->mci, 0, sizeof(c->mci));
	c->tsc_adjust = 0;
	c->tsc_offset = sys_tsc_base(c->sys);
	c->apic_base =
		APIC_BASE_ADDR | APIC_BASE_ENABLE | (c->index ? 0 : APIC_BASE_BSP);
}

void x86_cpu_reset(struct x86_cpu *c)
{
	c->cr0 = CR0_NW | CR0_CD;
	reset_common(c);
	reset_msrs(c);
	x86_fp_reset(c, false);
	c->ev.smbase = 0x30000;
	c->ev.wait_sipi = c->index != 0;
	atomic_store(&c->request, REQ_IRQ);
	debug_update(c);
}

void cpu_init_signal(struct x86_cpu *c)
{
	reset_common(c);
	x86_fp_reset(c, true);
	c->ev.wait_sipi = !(c->apic_base & APIC_BASE_BSP);
	atomic_fetch_and(&c->request, ~(uint32_t)(REQ_NMI | REQ_SHADOW | REQ_SIPI));
}

void cpu_startup(struct x86_cpu *c, uint8_t vector)
{
	c->seg[X86_CS].sel = (uint16_t)(vector << 8);
	c->seg[X86_CS].base = (uint64_t)vector << 12;
	c->rip = 0;
	c->ev.wait_sipi = false;
	c->ev.halted = false;
	x86_update_mode(c);
}

/* ---- life ------------------------------------------------------------------------------------------- */

static int set_leaves(struct x86_cpu *c, const struct x86_cpuid *leaves, size_t n)
{
	unsigned bits;

	c->cpuid = mem_new(n ? n : 1, sizeof(*leaves));
	if (!c->cpuid)
		return -ENOMEM;
	if (n)
		memcpy(c->cpuid, leaves, n * sizeof(*leaves));
	c->n_cpuid = n;
	cpuid_note_features(c);
	bits = cpuid_reg(c, 0x80000008, 0, 0) & 0xff;
	if (bits < 32)
		bits = 36;
	c->phys_mask = (1ull << min_u64(bits, 52)) - 1;
	return 0;
}

/*
 * The processor, and below it the stack of translated code. Stays as it is: c->gpr[16] is 0.
 */
static struct x86_cpu *cpu_alloc(void)
{
	char *p = NULL;

	if (posix_memalign((void **)&p, 64, JIT_STACK + sizeof(struct x86_cpu)))
		return NULL;
	memset(p + JIT_STACK, 0, sizeof(struct x86_cpu));
	return (struct x86_cpu *)(p + JIT_STACK);
}

static void cpu_dealloc(struct x86_cpu *c)
{
	free((char *)c - JIT_STACK);
}

/* And the profile. false: no memory. */
static bool make_translator(struct x86_cpu *c)
{
	c->profile.on = c->sys->profile;
	c->profile.since = __builtin_ia32_rdtsc();
	if (!c->sys->translates)
		return true;
	c->jit = c->blocks->jit =
		jit_new(c, max_u64(c->sys->code_cache, JIT_CACHE_MIN));
	if (c->sys->lockstep && !(c->lockstep = lockstep_new(c)))
		return false;
	return c->jit;
}

struct x86_cpu *x86_cpu_new(struct x86_system *sys, unsigned index, void *cpu_ctx,
			    const struct x86_cpuid *leaves, size_t n_leaves,
			    struct err *err)
{
	struct x86_cpu *c = cpu_alloc();

	if (!c) {
		err_set(err, ENOMEM, "no memory for a processor");
		return NULL;
	}
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned n = 0; n < TLB_SLOTS; n++) {
			struct tlb_entry *t = &c->tlbs[m][n];

			t->tag_read = t->tag_write = t->tag_exec = TLB_NONE;
			t->va = TLB_NONE;
		}
	}
	c->sys = sys;
	c->ops = sys->ops;
	c->ctx = cpu_ctx;
	c->counts = sys->counts;
	c->index = index;
	c->blocks = block_cache_new();
	if (!c->blocks || set_leaves(c, leaves, n_leaves) || !make_translator(c)) {
		err_set(err, ENOMEM, "no memory for a processor");
		goto fail;
	}
	if (sys_attach(sys, c)) {
		err_set(err, EINVAL, "processor number %u is taken or above 255",
			index);
		goto fail;
	}
	x86_cpu_reset(c);
	return c;
fail:
	block_cache_free(c->blocks);
	lockstep_free(c->lockstep);
	jit_free(c->jit);
	free(c->cpuid);
	cpu_dealloc(c);
	return NULL;
}

void x86_cpu_free(struct x86_cpu *c)
{
	if (!c)
		return;
	sys_detach(c->sys, c);
	block_cache_free(c->blocks);
	lockstep_free(c->lockstep);
	jit_free(c->jit);
	free(c->cpuid);
	cpu_dealloc(c);
}

/* ---- requests: any thread -------------------------------------------------------------------------- */

void x86_kick(struct x86_cpu *c)
{
	request(c, REQ_KICK);
}

void x86_irq_notify(struct x86_cpu *c)
{
	request(c, REQ_IRQ);
}

void x86_nmi(struct x86_cpu *c)
{
	request(c, REQ_NMI);
}

void x86_init(struct x86_cpu *c)
{
	request(c, REQ_INIT);
}

void x86_sipi(struct x86_cpu *c, uint8_t vector)
{
	__atomic_store_n(&c->sipi_vector, vector, __ATOMIC_RELAXED);
	request(c, REQ_SIPI);
}

bool x86_wakeup_pending(struct x86_cpu *c)
{
	uint32_t req = atomic_load(&c->request);

	if (req & REQ_INIT)
		return true;
	if (c->ev.wait_sipi)
		return req & REQ_SIPI;
	if (c->shutdown)
		return false;
	if (!c->ev.halted)
		return true;
	if (req & REQ_NMI && !c->ev.nmi_blocked)
		return true;
	return c->rflags & FL_IF && c->ops->irq_ready(c->ctx);
}

/* ---- the whole state -------------------------------------------------------------------------------- */

void x86_get_regs(struct x86_cpu *c, struct x86_regs *r)
{
	x86_fp_sync(c);
	memset(r, 0, sizeof(*r));
	memcpy(r->gpr, c->gpr, sizeof(r->gpr));
	r->rip = c->rip;
	r->rflags = rflags_get(c);
	memcpy(r->seg, c->seg, sizeof(r->seg));
	r->gdtr = c->gdtr;
	r->idtr = c->idtr;
	r->cr0 = c->cr0;
	r->cr2 = c->cr2;
	r->cr3 = c->cr3;
	r->cr4 = c->cr4;
	r->cr8 = c->ops->cr8_get ? c->ops->cr8_get(c->ctx) : 0;
	r->xcr0 = c->xcr0;
	r->efer = c->efer;
	r->apic_base = c->apic_base;
	memcpy(r->dr, c->dr, sizeof(r->dr));
	memcpy(r->pdpte, c->pdpte, sizeof(r->pdpte));
	r->ev = c->ev;
	r->ev.nmi_pending = atomic_load(&c->request) & REQ_NMI;
	x86_fp_get(c, r->xsave);
}

/* Could the processor have come to this state? */
static bool regs_valid(const struct x86_cpu *c, const struct x86_regs *r)
{
	bool lma = r->efer & EFER_LMA, pg = r->cr0 & CR0_PG;

	if (r->cr0 >> 32 || (pg && !(r->cr0 & CR0_PE)))
		return false;
	if (lma && (!(r->efer & EFER_LME) || !pg || !(r->cr4 & CR4_PAE)))
		return false;
	if (r->efer & EFER_LME && pg && !lma)
		return false;
	if (r->rflags & FL_VM && (lma || !(r->cr0 & CR0_PE)))
		return false;
	if (lma && !is_canonical(r->rip) && r->seg[X86_CS].attr & X86_ATTR_L)
		return false;
	if (r->cr3 & ~(c->phys_mask | 0xfff) || r->cr4 >> 23)
		return false;
	return (r->xcr0 & 1) && !(r->xcr0 & ~7ull) && (r->xcr0 & 6) != 4;
}

int x86_set_regs(struct x86_cpu *c, const struct x86_regs *r)
{
	if (!regs_valid(c, r) || !x86_fp_set(c, r->xsave))
		return -EINVAL;
	memcpy(c->gpr, r->gpr, sizeof(r->gpr));
	c->rip = r->rip;
	c->rflags = r->rflags & RFLAGS_VALID & ~(uint64_t)FL_STATUS;
	status_set(c, r->rflags);
	memcpy(c->seg, r->seg, sizeof(c->seg));
	c->gdtr = r->gdtr;
	c->idtr = r->idtr;
	c->cr0 = r->cr0 | CR0_ET;
	c->cr2 = r->cr2;
	c->cr3 = r->cr3;
	c->cr4 = r->cr4;
	if (c->ops->cr8_set)
		c->ops->cr8_set(c->ctx, r->cr8);
	c->xcr0 = r->xcr0;
	c->efer = r->efer;
	c->apic_base = r->apic_base;
	memcpy(c->dr, r->dr, sizeof(c->dr));
	memcpy(c->pdpte, r->pdpte, sizeof(c->pdpte));
	c->ev = r->ev;
	c->ev.nmi_pending = false;
	atomic_fetch_and(&c->request, ~(uint32_t)(REQ_NMI | REQ_SHADOW));
	request(c, (r->ev.nmi_pending ? REQ_NMI : 0) |
			   (r->ev.int_shadow ? REQ_SHADOW : 0) | REQ_IRQ);
	c->cpl = (uint8_t)seg_dpl(&c->seg[X86_SS]);
	c->exc.pending = c->delivering.pending = c->shutdown = false;
	c->cur = NULL;
	tlb_flush_all(c);
	x86_update_mode(c);
	debug_update(c);
	c->tf_armed = c->rflags & FL_TF;
	return 0;
}

void x86_get_stats(const struct x86_cpu *c, struct x86_stats *st)
{
	*st = c->stats;
	st->insns += c->count_base;
	memcpy(st->ticks, c->profile.ticks, sizeof(st->ticks));
	if (c->blocks)
		st->forget_ticks = c->blocks->flush_ticks;
	if (c->profile.on)
		st->ticks[c->profile.now] += __builtin_ia32_rdtsc() - c->profile.since;
	if (c->jit)
		jit_stats(c->jit, st);
	if (c->lockstep)
		lockstep_stats(c->lockstep, st);
}

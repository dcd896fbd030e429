/*
 * kvm/state.c - a processor's state from and into KVM. The order matters (api.rst, and what saved
 * machines of other programs have shown): the processor's run state first, the local APIC before the
 * MSRs, the TSC before its deadline, pending events last. vCPU outside KVM_RUN.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bits.h"
#include "base/mem.h"
#include "kvm/kvm_int.h"

#define MSR_TSC 0x10u

static_assert(CPU_LAPIC_SIZE == sizeof(struct kvm_lapic_state),
	      "the APIC page as KVM has it");
static_assert(CPU_XSAVE_SIZE == sizeof(struct kvm_xsave),
	      "the XSAVE area as KVM has it");

/* ---- MSRs ---- */

static bool msr_can_be_read(int vcpu, uint32_t index)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = {.head.nmsrs = 1, .e.index = index};

	return ioctl(vcpu, KVM_GET_MSRS, &m) == 1;
}

int kvm_state_list_msrs(struct kvm_engine *k, struct err *err)
{
	enum { MAX = 1024 };
	struct kvm_msr_list *l = mem_new(1, sizeof(*l) + MAX * sizeof(l->indices[0]));
	unsigned n = 0;

	k->msrs = mem_new(CPU_MAX_MSRS, sizeof(*k->msrs));
	if (!l || !k->msrs) {
		free(l);
		return err_set(err, ENOMEM, "no memory for the list of MSRs");
	}
	l->nmsrs = MAX;
	if (ioctl(k->kvm, KVM_GET_MSR_INDEX_LIST, l) < 0) {
		int code = errno;

		free(l);
		return err_sys(err, code, "KVM does not list its MSRs");
	}
	for (unsigned i = 0; i < l->nmsrs && n < CPU_MAX_MSRS; i++)
		if (msr_can_be_read(k->vcpu[0].fd, l->indices[i]))
			k->msrs[n++] = l->indices[i];
	k->n_msrs = n;
	free(l);
	return 0;
}

static int get_msrs(struct kvm_engine *k, struct kvm_vcpu *v, struct cpu_state *s)
{
	s->n_msrs = 0;
	for (unsigned i = 0; i < k->n_msrs; i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry e;
		} m = {.head.nmsrs = 1, .e.index = k->msrs[i]};

		if (ioctl(v->fd, KVM_GET_MSRS, &m) != 1)
			continue;
		s->msr[s->n_msrs].index = k->msrs[i];
		s->msr[s->n_msrs++].val = m.e.data;
		if (k->msrs[i] == MSR_TSC)
			s->tsc = m.e.data;
	}
	return 0;
}

static void set_msr(struct kvm_vcpu *v, uint32_t index, uint64_t val)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = {.head.nmsrs = 1, .e.index = index, .e.data = val};

	ioctl(v->fd, KVM_SET_MSRS, &m); /* one that is read-only is as it was */
}

static void set_msrs(struct kvm_vcpu *v, const struct cpu_state *s)
{
	for (unsigned i = 0; i < s->n_msrs; i++)
		if (s->msr[i].index == MSR_TSC)
			set_msr(v, MSR_TSC, s->msr[i].val);
	for (unsigned i = 0; i < s->n_msrs; i++)
		if (s->msr[i].index != MSR_TSC)
			set_msr(v, s->msr[i].index, s->msr[i].val);
}

/* ---- registers ---- */

static void seg_get(struct cpu_seg *to, const struct kvm_segment *s)
{
	to->sel = s->selector;
	to->base = s->base;
	to->limit = s->limit;
	to->attr = (uint16_t)(s->type | s->s << 4 | s->dpl << 5 | s->present << 7 |
			      s->avl << 12 | s->l << 13 | s->db << 14 | s->g << 15);
	if (s->unusable)
		to->attr &= (uint16_t)~0x80u;
}

static void seg_set(struct kvm_segment *to, const struct cpu_seg *s)
{
	*to = (struct kvm_segment){
		.selector = s->sel,
		.base = s->base,
		.limit = s->limit,
		.type = s->attr & 15,
		.s = s->attr >> 4 & 1,
		.dpl = s->attr >> 5 & 3,
		.present = s->attr >> 7 & 1,
		.avl = s->attr >> 12 & 1,
		.l = s->attr >> 13 & 1,
		.db = s->attr >> 14 & 1,
		.g = s->attr >> 15 & 1,
	};
	to->unusable = !to->present;
}

/* Our order of segments in KVM's structure. */
#define SEGMENTS(S)                                                             \
	{                                                                       \
		&(S).es, &(S).cs, &(S).ss, &(S).ds, &(S).fs, &(S).gs, &(S).ldt, \
			&(S).tr                                                 \
	}

static int get_regs(struct kvm_vcpu *v, struct cpu_state *s)
{
	struct kvm_regs r;
	struct kvm_sregs g;
	const struct kvm_segment *const segs[SEG_COUNT] = SEGMENTS(g);

	if (ioctl(v->fd, KVM_GET_REGS, &r) < 0 || ioctl(v->fd, KVM_GET_SREGS, &g) < 0)
		return -errno;
	memcpy(s->gpr,
	       (uint64_t[16]){r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
			      r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15},
	       sizeof(s->gpr));
	s->rip = r.rip;
	s->rflags = r.rflags;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		seg_get(&s->seg[i], segs[i]);
	s->gdtr = (struct cpu_dtable){g.gdt.base, g.gdt.limit};
	s->idtr = (struct cpu_dtable){g.idt.base, g.idt.limit};
	s->cr0 = g.cr0;
	s->cr2 = g.cr2;
	s->cr3 = g.cr3;
	s->cr4 = g.cr4;
	s->cr8 = g.cr8;
	s->efer = g.efer;
	s->apic_base = g.apic_base;
	return 0;
}

static int set_regs(struct kvm_vcpu *v, const struct cpu_state *s)
{
	const uint64_t *p = s->gpr;
	struct kvm_regs r = {
		.rax = p[0],
		.rcx = p[1],
		.rdx = p[2],
		.rbx = p[3],
		.rsp = p[4],
		.rbp = p[5],
		.rsi = p[6],
		.rdi = p[7],
		.r8 = p[8],
		.r9 = p[9],
		.r10 = p[10],
		.r11 = p[11],
		.r12 = p[12],
		.r13 = p[13],
		.r14 = p[14],
		.r15 = p[15],
		.rip = s->rip,
		.rflags = s->rflags,
	};
	struct kvm_sregs g;
	struct kvm_segment *const segs[SEG_COUNT] = SEGMENTS(g);

	memset(&g, 0, sizeof(g));
	for (unsigned i = 0; i < SEG_COUNT; i++)
		seg_set(segs[i], &s->seg[i]);
	g.gdt.base = s->gdtr.base;
	g.gdt.limit = s->gdtr.limit;
	g.idt.base = s->idtr.base;
	g.idt.limit = s->idtr.limit;
	g.cr0 = s->cr0;
	g.cr2 = s->cr2;
	g.cr3 = s->cr3;
	g.cr4 = s->cr4;
	g.cr8 = s->cr8;
	g.efer = s->efer;
	g.apic_base = s->apic_base;
	if (ioctl(v->fd, KVM_SET_REGS, &r) < 0 || ioctl(v->fd, KVM_SET_SREGS, &g) < 0)
		return -errno;
	return 0;
}

/* ---- the rest ---- */

static int get_run_state(struct kvm_vcpu *v, struct cpu_state *s)
{
	struct kvm_mp_state mp;

	if (ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0)
		return -errno;
	s->mp = mp.mp_state == KVM_MP_STATE_RUNNABLE ? CPU_RUNNING
		: mp.mp_state == KVM_MP_STATE_HALTED ? CPU_HALTED
						     : CPU_WAIT_SIPI;
	return 0;
}

static int set_run_state(struct kvm_vcpu *v, const struct cpu_state *s)
{
	struct kvm_mp_state mp = {
		.mp_state = s->mp == CPU_RUNNING  ? KVM_MP_STATE_RUNNABLE
			    : s->mp == CPU_HALTED ? KVM_MP_STATE_HALTED
						  : KVM_MP_STATE_UNINITIALIZED,
	};

	return ioctl(v->fd, KVM_SET_MP_STATE, &mp) < 0 ? -errno : 0;
}

static int get_events(struct kvm_vcpu *v, struct cpu_state *s)
{
	struct kvm_vcpu_events ev;

	if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev) < 0)
		return -errno;
	s->nmi_pending = ev.nmi.pending || ev.nmi.injected;
	s->nmi_blocked = ev.nmi.masked;
	s->int_shadow = ev.interrupt.shadow;
	s->exc_pending = ev.exception.injected || ev.exception.pending;
	s->exc_vec = ev.exception.nr;
	s->exc_has_code = ev.exception.has_error_code;
	s->exc_code = ev.exception.error_code;
	s->irq_injected = ev.interrupt.injected;
	s->irq_vec = ev.interrupt.nr;
	s->irq_soft = ev.interrupt.soft;
	return 0;
}

static int set_events(struct kvm_vcpu *v, const struct cpu_state *s)
{
	struct kvm_vcpu_events ev = {
		.nmi.pending = s->nmi_pending,
		.nmi.masked = s->nmi_blocked,
		.interrupt.shadow = s->int_shadow,
		.interrupt.injected = s->irq_injected,
		.interrupt.nr = s->irq_vec,
		.interrupt.soft = s->irq_soft,
		.exception.injected = s->exc_pending,
		.exception.nr = s->exc_vec,
		.exception.has_error_code = s->exc_has_code,
		.exception.error_code = s->exc_code,
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
	};

	return ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev) < 0 ? -errno : 0;
}

static int get_debug(struct kvm_vcpu *v, struct cpu_state *s)
{
	struct kvm_debugregs d;

	if (ioctl(v->fd, KVM_GET_DEBUGREGS, &d) < 0)
		return -errno;
	memcpy(s->dr, d.db, sizeof(d.db));
	s->dr[6] = d.dr6;
	s->dr[7] = d.dr7;
	return 0;
}

static int set_debug(struct kvm_vcpu *v, const struct cpu_state *s)
{
	struct kvm_debugregs d = {.dr6 = s->dr[6], .dr7 = s->dr[7]};

	memcpy(d.db, s->dr, sizeof(d.db));
	return ioctl(v->fd, KVM_SET_DEBUGREGS, &d) < 0 ? -errno : 0;
}

static int get_xcr0(struct kvm_vcpu *v, struct cpu_state *s)
{
	struct kvm_xcrs x;

	if (ioctl(v->fd, KVM_GET_XCRS, &x) < 0)
		return -errno;
	for (unsigned i = 0; i < x.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (x.xcrs[i].xcr == 0)
			s->xcr0 = x.xcrs[i].value;
	return 0;
}

static int set_xcr0(struct kvm_vcpu *v, const struct cpu_state *s)
{
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0].value = s->xcr0 ? s->xcr0 : 1};

	return ioctl(v->fd, KVM_SET_XCRS, &x) < 0 ? -errno : 0;
}

int kvm_state_get(struct kvm_engine *k, struct kvm_vcpu *v, struct cpu_state *s,
		  struct err *err)
{
	int rc;

	memset(s, 0, sizeof(*s));
	rc = get_run_state(v, s); /* first: KVM settles pending INITs and SIPIs */
	rc = rc ? rc : get_regs(v, s);
	if (!rc && (ioctl(v->fd, KVM_GET_XSAVE, s->xsave) < 0 ||
		    ioctl(v->fd, KVM_GET_LAPIC, s->lapic) < 0))
		rc = -errno;
	rc = rc ? rc : get_xcr0(v, s);
	rc = rc ? rc : get_debug(v, s);
	rc = rc ? rc : get_msrs(k, v, s);
	rc = rc ? rc : get_events(v, s);
	return rc ? err_sys(err, -rc, "KVM does not give the state of processor %u",
			    v->index)
		  : 0;
}

int kvm_state_set(struct kvm_engine *k, struct kvm_vcpu *v, const struct cpu_state *s,
		  struct err *err)
{
	int rc;

	(void)k;
	rc = set_run_state(v, s);
	rc = rc ? rc : set_regs(v, s);
	rc = rc ? rc : set_xcr0(v, s);
	if (!rc && ioctl(v->fd, KVM_SET_XSAVE, s->xsave) < 0)
		rc = -errno;
	rc = rc ? rc : set_debug(v, s);
	if (!rc && ioctl(v->fd, KVM_SET_LAPIC, s->lapic) < 0)
		rc = -errno;
	if (!rc)
		set_msrs(v, s);
	rc = rc ? rc : set_events(v, s);
	return rc ? err_sys(err, -rc, "KVM refuses the state of processor %u", v->index)
		  : 0;
}

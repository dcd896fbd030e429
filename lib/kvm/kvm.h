/*
 * kvm/kvm.h - the engine over /dev/kvm (Documentation/virt/kvm/api.rst), and the proof that it can
 * run guests here at all.
 */
#ifndef KVM_KVM_H
#define KVM_KVM_H

#include <stdbool.h>

#include "vm/cpu.h"

/*
 * Split interrupt controller: the local APICs are in the kernel; 8259, I/O APIC and PIT are our device models.
 * Uses one real-time signal (kvm_signal()), which must be blocked in the vCPU threads.
 */
extern const struct engine_ops engine_kvm;

enum kvm_verdict {
	KVM_WORKS,
	KVM_MISSING,   /* no /dev/kvm */
	KVM_FORBIDDEN, /* no right to open it */
	KVM_UNFIT,     /* too old, or lacks something that is needed */
	KVM_BROKEN,    /* opens, but a small guest does not come to its answer */
	KVM_SLOW,      /* right answers, but guest code is interpreted */
};

enum kvm_mode { KVM_REAL, KVM_PROTECTED, KVM_LONG, KVM_N_MODES };

struct kvm_probe_result {
	enum kvm_verdict verdict;
	bool ok[KVM_N_MODES];        /* the guest of this mode computed its answer */
	double exit_ns[KVM_N_MODES]; /* time of one port access, there and back */
	double guest_mips,
		native_mips; /* the same loop in ring 0 of a guest and here */
	char reason[200];    /* one line for people: why (not) */
};

/*
 * Runs small guests in real, protected and 64-bit mode with paging, exceptions and page-table changes, for at
 * most about 250 ms. 0: the engine is worth choosing; else -errno and err->msg = r->reason.
 */
int kvm_probe(struct kvm_probe_result *r, struct err *err);

/* The signal that ends KVM_RUN; an empty handler is installed by kvm_probe() and the engine. */
int kvm_signal(void);

#endif

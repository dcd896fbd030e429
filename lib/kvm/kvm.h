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
	KVM_BUSY,      /* another hypervisor holds the processor */
	KVM_HANGS,     /* no answer in time; `stage` says where */
	KVM_NONSENSE,  /* what stands there is not KVM */
	KVM_N_VERDICTS
};

enum kvm_mode { KVM_REAL, KVM_PROTECTED, KVM_PAE, KVM_LONG, KVM_N_MODES };

enum kvm_stage { KVM_STAGE_OPEN, KVM_STAGE_ASK, KVM_STAGE_MAKE, KVM_STAGE_RUN };

#define KVM_N_CAPS 24

struct kvm_probe_result {
	enum kvm_verdict verdict;
	enum kvm_stage stage;        /* how far it came */
	int error;                   /* errno value behind the verdict, 0: none */
	int api_version;             /* KVM_GET_API_VERSION, 0: not asked */
	int caps[KVM_N_CAPS];        /* KVM_CHECK_EXTENSION; names: kvm_cap_id() */
	bool ok[KVM_N_MODES];        /* the guest of this mode computed its answer */
	unsigned exits[KVM_N_MODES]; /* exits it made */
	double exit_ns[KVM_N_MODES]; /* time of one port access, there and back */
	double guest_mips,
		native_mips; /* the same loop in ring 0 of a guest and here */
	double seconds;      /* what the whole probe took */
	char device[64];     /* "/dev/kvm" */
	char reason[200];    /* one line for people: why (not) */
};

/*
 * Runs small guests in real, protected, PAE and 64-bit mode with paging, exceptions and page-table changes, for at
 * most about 400 ms, in a child process: a device that hangs costs 1.5 s and is KVM_HANGS. `device` NULL: /dev/kvm.
 * 0: the engine is worth choosing; else -errno and err->msg = r->reason. Not from a process with several threads.
 */
int kvm_probe(const char *device, struct kvm_probe_result *r, struct err *err);

/* The name of r->caps[i], as in "max-vcpus". */
const char *kvm_cap_id(unsigned i);

/* The signal that ends KVM_RUN; an empty handler is installed by kvm_probe() and the engine. */
int kvm_signal(void);

#endif

/* kvm/kvm_int.h - inside the KVM engine. Private to lib/kvm. */
#ifndef KVM_INT_H
#define KVM_INT_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "kvm/kvm.h"

#define KVM_MAX_EXIT 48

struct kvm_vcpu {
	struct kvm_engine *engine;
	unsigned index;
	int fd;
	struct kvm_run *run; /* mapped */
	_Atomic bool kicked;
	_Atomic bool running; /* `thread` is valid */
	pthread_t thread;
	bool fresh; /* `reset` was not taken yet */
	struct cpu_state reset;
	struct kvm_cpuid2 *cpuid; /* owned */
	uint64_t exits[KVM_MAX_EXIT];
	uint64_t guest_ns, device_ns; /* env.profile: in KVM_RUN, behind it */
};

struct kvm_engine {
	struct engine engine;
	struct engine_env env;
	int kvm, vm;
	size_t run_size;
	_Atomic bool extint;   /* the 8259's output */
	struct kvm_vcpu *vcpu; /* env.n_cpus of them */
	uint32_t *msrs;        /* owned: what to save */
	unsigned n_msrs;
};

/*
 * probe.c: the probe itself, in this process: may hang where /dev/kvm does. r->device is set, the rest is
 * zero. As kvm_probe().
 */
int kvm_probe_here(struct kvm_probe_result *r, struct err *err);
void kvm_install_signal(void);

/* state.c */
int kvm_state_get(struct kvm_engine *k, struct kvm_vcpu *v, struct cpu_state *s,
		  struct err *err);
int kvm_state_set(struct kvm_engine *k, struct kvm_vcpu *v, const struct cpu_state *s,
		  struct err *err);
int kvm_state_list_msrs(struct kvm_engine *k, struct err *err);

#endif

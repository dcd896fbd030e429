/*
 * vm/cpu.h - processors as the machine sees them: one interface over the KVM engine and the
 * emulator. A processor's state here is engine-neutral (save on one, restore on the same kind).
 */
#ifndef VM_CPU_H
#define VM_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "vm/bus.h"
#include "vm/loop.h"
#include "vm/ram.h"

enum cpu_seg_id {
	SEG_ES,
	SEG_CS,
	SEG_SS,
	SEG_DS,
	SEG_FS,
	SEG_GS,
	SEG_LDTR,
	SEG_TR,
	SEG_COUNT
};

struct cpu_seg {
	uint16_t sel;
	uint16_t
		attr; /* descriptor bits 40-47, and 52-55 << 8 (as lib/x86 and VMX order them) */
	uint32_t limit; /* bytes */
	uint64_t base;
};

struct cpu_dtable {
	uint64_t base;
	uint16_t limit;
};

enum cpu_mp { CPU_RUNNING, CPU_HALTED, CPU_WAIT_SIPI };

#define CPU_XSAVE_SIZE 4096
#define CPU_MAX_MSRS   192
#define CPU_LAPIC_SIZE 1024 /* registers at 0x00, 0x10, ... as the APIC page has them */

/* All of a processor's state. */
struct cpu_state {
	uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
	uint64_t rip, rflags;
	struct cpu_seg seg[SEG_COUNT];
	struct cpu_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer, apic_base;
	uint64_t dr[8];
	uint32_t mp; /* enum cpu_mp */
	uint8_t nmi_pending, nmi_blocked, int_shadow;
	uint8_t exc_pending, exc_vec, exc_has_code; /* KVM: injected or pending event */
	uint8_t irq_injected, irq_vec, irq_soft;
	uint32_t exc_code;
	uint64_t tsc; /* at the moment of saving */
	uint64_t
		lapic_timer_left; /* emulator: ns to the timer's expiry, ~0 = not running */
	uint8_t xsave[CPU_XSAVE_SIZE]; /* standard format */
	uint8_t lapic[CPU_LAPIC_SIZE];
	uint32_t n_msrs;
	struct {
		uint32_t index, spare;
		uint64_t val;
	} msr[CPU_MAX_MSRS];
};

struct cpuid_leaf {
	uint32_t leaf, subleaf;
	uint32_t has_subleaf; /* 1: matches only this subleaf */
	uint32_t eax, ebx, ecx, edx;
};

#define CPUID_MAX_LEAVES 128

/* What an engine needs of its machine; all borrowed, alive as long as the engine. */
struct engine_env {
	const struct log *log;
	struct ram *ram;
	struct bus *pio, *mmio;
	struct loop *loop;
	pthread_mutex_t *lock; /* the machine lock, recursive */
	unsigned n_cpus;
	/* The emulator translates code to the host's; bytes of that for each processor, at most. */
	bool translate;
	bool lockstep; /* and compares it with the interpreter: for debugging */
	uint64_t code_cache;
	bool profile; /* note what processors' time goes to */
	/* The 8259 pair's output goes to LINT0 of the boot processor (ExtINT): vector now, or -1.
	 * Machine lock is taken inside. Any thread. */
	int (*pic_take)(void *ctx);
	bool (*pic_ready)(void *ctx);
	/* A local APIC ended a level-triggered interrupt. Any thread; takes the lock inside. */
	void (*ioapic_eoi)(void *ctx, unsigned vector);
	void *ctx;
};

enum vcpu_exit {
	VCPU_KICKED,   /* vcpu_kick() was called */
	VCPU_SHUTDOWN, /* triple fault */
	VCPU_FAILED,   /* the engine cannot go on: *err says why */
};

/* One figure of a processor's profile. */
struct figure {
	const char *key;  /* lower-case-hyphen */
	const char *text; /* for people */
	enum figure_unit {
		FIGURE_COUNT,
		FIGURE_BYTES,
		FIGURE_NS,
		FIGURE_MAX_NS, /* of several processors: the longest, no sum */
	} unit;
	uint64_t value;
};

#define FIGURES_MAX 48

struct engine;
struct vcpu;

struct engine_ops {
	const char *name; /* "kvm", "emulator" */
	/*
	 * Makes the engine with its env->n_cpus processors in reset state (processor 0 running,
	 * others waiting for a SIPI). `env` is copied. NULL with *err.
	 */
	struct engine *(*create)(const struct engine_env *env, struct err *err);
	void (*destroy)(struct engine *e); /* no vCPU thread runs any more */
	/* CPUID leaves this engine can offer on this host; how many. Before set_cpuid. */
	unsigned (*cpuid_supported)(struct engine *e, struct cpuid_leaf *out,
				    unsigned max);
	/* The leaves of processor `index` (its APIC id included). Before it runs. 0 or -errno. */
	int (*set_cpuid)(struct engine *e, unsigned index,
			 const struct cpuid_leaf *leaf, unsigned n, struct err *err);
	/* The guest's TSC frequency in kHz (constant, synchronised). */
	uint32_t (*tsc_khz)(struct engine *e);
	/*
	 * Runs processor `index` in the calling thread, always the same one per processor, until
	 * one of the exits. Halting waits inside. Device accesses go to env's buses.
	 */
	enum vcpu_exit (*run)(struct engine *e, unsigned index, struct err *err);
	/* Makes a running or the next run() return VCPU_KICKED soon. Any thread, signal-safe. */
	void (*kick)(struct engine *e, unsigned index);
	/* State; the processor does not run (its thread is outside run()). 0 or -errno. */
	int (*get_state)(struct engine *e, unsigned index, struct cpu_state *s,
			 struct err *err);
	int (*set_state)(struct engine *e, unsigned index, const struct cpu_state *s,
			 struct err *err);
	/* Back to RESET# state, local APIC included; paused. */
	int (*reset)(struct engine *e, unsigned index, struct err *err);
	/* A message-signalled interrupt. Any thread. */
	void (*msi)(struct engine *e, uint64_t addr, uint32_t data);
	/* The PIC's output changed (see pic_ready). Any thread. */
	void (*extint)(struct engine *e, bool level);
	/* NMI to a processor. Any thread. */
	void (*nmi)(struct engine *e, unsigned index);
	/* A level-triggered vector the I/O APIC routes: whose EOI must be reported. Lock held. */
	void (*ioapic_routes)(struct engine *e, const uint64_t entry[24], unsigned n);
	/* The clock was paused and goes on (after save, restore): paravirtual clocks follow. */
	void (*resumed)(struct engine *e);
	/* A writable eventfd that becomes readable on a 1-4 byte write at mmio address `gpa` instead of
	 * an exit; -ENOTSUP where the engine cannot. add = false removes. Lock held. */
	int (*ioeventfd)(struct engine *e, uint64_t gpa, unsigned size, int fd,
			 bool add);
	/*
	 * A processor's profile so far: fills `out`, returns how many figures, the same ones in the same
	 * order for all processors. Times only with env->profile. Any thread.
	 */
	unsigned (*figures)(struct engine *e, unsigned index,
			    struct figure out[FIGURES_MAX]);
};

/* First member of an engine's own structure. */
struct engine {
	const struct engine_ops *ops;
};

/* ---- CPUID for both engines (vm/cpuid.c) ---- */

struct cpuid_topology {
	unsigned n_cpus; /* one package, one core each */
	unsigned index;  /* this processor; its APIC id */
	uint32_t tsc_khz;
	uint32_t bus_hz; /* local APIC timer frequency */
	bool hypervisor; /* fill leaves 40000000h.. ("KVM" signature, 40000010h frequencies) */
	uint32_t kvm_features; /* bits of leaf 40000001h eax */
};

/*
 * Turns an engine's supported leaves into those of one processor: topology (1, 4, 0Bh, 1Fh, 80000008h,
 * 8000001Eh), TSC and bus frequencies (15h, 16h, 40000010h), the hypervisor bit and leaves. In place;
 * *n may grow up to CPUID_MAX_LEAVES.
 */
void cpuid_apply(struct cpuid_leaf *leaf, unsigned *n, const struct cpuid_topology *t);

#endif

/*
 * x86/x86.h - an x86-64 processor in software: memory and devices by callbacks, knows no machine.
 *
 * Specification: Intel 64 and IA-32 Architectures Software Developer's Manual (SDM), AMD64
 * Architecture Programmer's Manual (APM); where they differ, SDM unless CPUID says AMD.
 *
 * A system (struct x86_system) is what the processors of one machine share: the callbacks and the
 * record of which guest pages hold decoded code. Each processor is run by one thread at a time
 * (the vCPU thread); functions marked "any thread" may be called while it runs.
 */
#ifndef X86_X86_H
#define X86_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct x86_system;
struct x86_cpu;

enum x86_seg_id {
	X86_ES,
	X86_CS,
	X86_SS,
	X86_DS,
	X86_FS,
	X86_GS,
	X86_LDTR,
	X86_TR,
	X86_NSEG
};

/* A segment register with its hidden part. */
struct x86_seg {
	uint16_t sel;
	uint16_t
		attr; /* descriptor bits 40-47 and 52-55: type, S, DPL, P | AVL, L, D/B, G << 8 */
	uint32_t limit; /* in bytes, expanded by the granularity */
	uint64_t base;
};

/* Bits of x86_seg.attr. */
enum {
	X86_ATTR_TYPE = 0x000f,
	X86_ATTR_S = 0x0010,
	X86_ATTR_DPL_SHIFT = 5,
	X86_ATTR_P = 0x0080,
	X86_ATTR_L = 0x2000,
	X86_ATTR_DB = 0x4000,
	X86_ATTR_G = 0x8000,
};

struct x86_dtable {
	uint64_t base;
	uint16_t limit;
};

enum x86_reg { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI };

#define X86_XSAVE_SIZE 4096 /* room for the standard-format XSAVE area */

/* What waits to be delivered, besides the lines of the interrupt controller. */
struct x86_events {
	bool nmi_pending, nmi_blocked; /* blocked: from an NMI's delivery to IRET */
	bool int_shadow; /* after STI or MOV SS: one instruction without interrupts */
	bool halted;     /* in HLT or MWAIT */
	bool wait_sipi;  /* after INIT */
	uint64_t smbase;
};

/* The whole architectural state of a processor, as saved and restored. */
struct x86_regs {
	uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
	uint64_t rip, rflags;
	struct x86_seg seg[X86_NSEG];
	struct x86_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, xcr0;
	uint64_t efer, apic_base;
	uint64_t dr[8];
	uint64_t pdpte[4]; /* PAE: loaded by MOV CR3, not read again (SDM 3A 4.4.1) */
	struct x86_events ev;
	uint8_t xsave
		[X86_XSAVE_SIZE]; /* standard format: x87, SSE, AVX, as xcr0 enables */
};

struct x86_cpuid {
	uint32_t leaf, subleaf;
	bool has_subleaf; /* matches only this subleaf */
	uint32_t eax, ebx, ecx, edx;
};

/*
 * What the processor needs of its machine. All are called in the vCPU thread with the
 * architectural state in memory; none may call x86_run(). `cpu_ctx` is x86_cpu_new()'s.
 */
struct x86_ops {
	/*
	 * Host address of the 4 KiB guest-physical page at `gpa`, or NULL when it is not memory
	 * (then mmio_*). *writable: false for ROM (writes then go to mmio_write). The address stays
	 * valid until x86_flush_memory().
	 */
	void *(*page)(void *sys_ctx, uint64_t gpa, bool *writable);
	/* Device memory; size 1, 2, 4 or 8, never across a 4 KiB page. */
	uint64_t (*mmio_read)(void *cpu_ctx, uint64_t gpa, unsigned size);
	void (*mmio_write)(void *cpu_ctx, uint64_t gpa, unsigned size, uint64_t val);
	/* I/O ports; size 1, 2 or 4. */
	uint32_t (*pio_in)(void *cpu_ctx, uint16_t port, unsigned size);
	void (*pio_out)(void *cpu_ctx, uint16_t port, unsigned size, uint32_t val);
	/* Vector of the interrupt to deliver now, which is thereby acknowledged; -1: none. */
	int (*irq_take)(void *cpu_ctx);
	/* Is there an interrupt that irq_take() would give? */
	bool (*irq_ready)(void *cpu_ctx);
	/* MOV CR8: the local APIC's task priority (bits 7:4 of TPR). */
	uint64_t (*cr8_get)(void *cpu_ctx);
	void (*cr8_set)(void *cpu_ctx, uint64_t val);
	/*
	 * MSRs that the processor itself does not hold: x2APIC 0x800-0x8ff, APIC_BASE, TSC_DEADLINE,
	 * paravirtual ones. Return false for #GP(0).
	 */
	bool (*msr_get)(void *cpu_ctx, uint32_t msr, uint64_t *val);
	bool (*msr_set)(void *cpu_ctx, uint32_t msr, uint64_t val);
	/*
	 * For machines that repeat a run exactly: what stands for the host's TSC, and the numbers of RDRAND
	 * and RDSEED. NULL: the host's.
	 */
	uint64_t (*tsc)(void *cpu_ctx);
	uint64_t (*random)(void *cpu_ctx);
	/* A VMCALL/VMMCALL hypercall with rax, rbx, rcx, rdx, rsi as arguments; returns rax. */
	uint64_t (*hypercall)(void *cpu_ctx, const uint64_t arg[5]);
};

enum x86_exit {
	X86_EXIT_KICK, /* x86_kick() was called */
	X86_EXIT_HALT, /* HLT or MWAIT, and nothing to deliver: wait, then run again */
	X86_EXIT_SHUTDOWN, /* triple fault: the processor is stopped until reset or INIT */
	X86_EXIT_INIT,     /* INIT arrived: the processor waits for a start-up IPI */
	X86_EXIT_COUNT,    /* as many instructions as x86_run_for() was told */
	X86_EXIT_DIFFERENCE, /* lockstep: the log says which; the processor is stopped */
};

/* Shared by the processors of a machine. `ops` is borrowed and stays; NULL without memory. */
struct x86_system *x86_system_new(const struct x86_ops *ops, void *sys_ctx,
				  const struct log *log);
void x86_system_free(struct x86_system *sys); /* after its processors */
/*
 * Processors made from now on translate what runs often to host code instead of interpreting it;
 * each keeps at most `code_cache` bytes of it (at least 1 MiB). Often: after `runs` times, 1 at least.
 * 0, or -EBUSY: there are some already.
 */
int x86_system_translate(struct x86_system *sys, size_t code_cache, unsigned runs);
/*
 * After that: each block that has a translation is interpreted as well, and both results are
 * compared; the first difference is reported to the log as an error, and x86_run() returns
 * X86_EXIT_DIFFERENCE. For debugging: hundreds of times slower. 0, -EBUSY as above, or -EINVAL
 * without a translator.
 */
int x86_system_lockstep(struct x86_system *sys);
/* Processors made from now on note what their time goes to (x86_stats.ticks). 0 or -EBUSY as above. */
int x86_system_profile(struct x86_system *sys);

/*
 * Processors made from now on count instructions exactly, and run by x86_run_for() (count.c). 0, -EBUSY as above,
 * or -EINVAL with lockstep.
 */
int x86_system_count(struct x86_system *sys);

/*
 * A processor in reset state. index: 0.. (at most 255 per system). The CPUID leaves are copied;
 * MSR_IA32_TSC reads host TSC + offset, the offset common to the system until the guest writes.
 */
struct x86_cpu *x86_cpu_new(struct x86_system *sys, unsigned index, void *cpu_ctx,
			    const struct x86_cpuid *leaves, size_t n_leaves,
			    struct err *err);
void x86_cpu_free(struct x86_cpu *c);

/* Back to the state after RESET# (SDM 3A table 9-1). vCPU thread. */
void x86_cpu_reset(struct x86_cpu *c);

/* Runs guest instructions until one of the exits. vCPU thread. */
enum x86_exit x86_run(struct x86_cpu *c);

/*
 * After x86_system_count(): the same, until `n` more instructions were executed (X86_EXIT_COUNT) or one of the
 * other exits. An exception counts as an instruction, a repeated string instruction as one for each time it is begun. What
 * callbacks bring about (an interrupt, a kick) takes effect behind the instruction that called.
 */
enum x86_exit x86_run_for(struct x86_cpu *c, uint64_t n);
/* Instructions executed so far; in a callback, those before the calling one. vCPU thread. */
uint64_t x86_count(const struct x86_cpu *c);

/* Makes a running or the next x86_run() return X86_EXIT_KICK soon. Any thread, signal-safe. */
void x86_kick(struct x86_cpu *c);

/* Tells that irq_ready() may have become true. Any thread. */
void x86_irq_notify(struct x86_cpu *c);
/* Latches a non-maskable interrupt, an INIT, a start-up IPI at vector << 12. Any thread. */
void x86_nmi(struct x86_cpu *c);
void x86_init(struct x86_cpu *c);
void x86_sipi(struct x86_cpu *c, uint8_t vector);

/* Whether HLT would end now: an interrupt that can be delivered, NMI, INIT, SIPI. vCPU thread. */
bool x86_wakeup_pending(struct x86_cpu *c);

/* Guest TSC = host TSC + offset. Get: any thread; set: the processor does not run. */
uint64_t x86_tsc_offset(const struct x86_cpu *c);
void x86_set_tsc_offset(struct x86_cpu *c, uint64_t offset);
/* Ends HLT without an interrupt: paravirtual wake-up. vCPU thread, outside x86_run(). */
void x86_unhalt(struct x86_cpu *c);

/* The architectural state. vCPU thread, outside x86_run(). set: 0 or -EINVAL. */
void x86_get_regs(struct x86_cpu *c, struct x86_regs *r);
int x86_set_regs(struct x86_cpu *c, const struct x86_regs *r);

/* MSRs, the ones of ops->msr_* included; false: there is no such MSR. vCPU thread. */
bool x86_get_msr(struct x86_cpu *c, uint32_t msr, uint64_t *val);
bool x86_set_msr(struct x86_cpu *c, uint32_t msr, uint64_t val);
/* The MSRs to save: fills `list` up to `n`, returns how many there are. */
size_t x86_msr_list(const struct x86_cpu *c, uint32_t *list, size_t n);

/*
 * The CPUID leaves that the processor can do on this host (the host's user-mode features of level
 * x86-64-v3 that this library lists, and the system features built here). Fills `out` up to
 * `n`, returns how many there are. Topology, TSC and hypervisor leaves are the machine's to add.
 */
size_t x86_cpuid_supported(struct x86_cpuid *out, size_t n);

/* The memory map changed: forget translations of [gpa, gpa + len) on all processors. Any thread. */
void x86_flush_memory(struct x86_system *sys, uint64_t gpa, uint64_t len);
/* Something else than a processor wrote guest memory (DMA): drop code decoded there. Any thread. */
void x86_memory_written(struct x86_system *sys, uint64_t gpa, uint64_t len);

/* What a processor's time goes to. */
enum x86_time {
	X86_TIME_OUTSIDE, /* between x86_run()s: halted or paused */
	X86_TIME_INTERPRETER,
	X86_TIME_TRANSLATED, /* in translated code */
	X86_TIME_HELPERS,    /* interpreting instructions for it */
	X86_TIME_TRANSLATOR, /* making it */
	X86_TIME_DEVICES,    /* in callbacks: devices, interrupt controller */
	X86_TIMES
};

enum {
	X86_TLBS = 4
}; /* user, kernel, kernel with AC set, user with alignment checks */

struct x86_stats {
	uint64_t
		insns; /* guest instructions executed; with a translator that does not count: interpreted */
	uint64_t blocks; /* blocks decoded */
	uint64_t tlb_misses;
	uint64_t tlb_misses_of[X86_TLBS];
	uint64_t mmio, pio, exceptions, irqs;
	uint64_t translated;   /* blocks */
	uint64_t entered;      /* times translated code was entered */
	uint64_t single;       /* instructions interpreted from within it */
	uint64_t forgotten;    /* times that the code cache was full */
	uint64_t forget_ticks; /* of the TSC, the longest of them */
	uint64_t unlinked; /* times it was left by a jump whose target was not known */
	uint64_t
		dropped; /* pages whose translations were forgotten: code was written */
	uint64_t ticks[X86_TIMES]; /* of the host's TSC, by x86_system_profile() */
	uint64_t code_bytes;       /* in the code cache now */
	uint64_t compared; /* lockstep: blocks that were run both ways and agreed */
	uint64_t unique;   /* and that cannot be run twice */
};

/* Any thread; figures of a running processor are not all of one moment. */
void x86_get_stats(const struct x86_cpu *c, struct x86_stats *st);

#endif

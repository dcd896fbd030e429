/*
 * emu/lapic.h - local APICs of a machine and the messages between them.
 *
 * Specification: SDM volume 3A chapter 11 (xAPIC, x2APIC). Knows no processor: what a message
 * does to one goes through lapic_ops. "vCPU" below is the thread that runs this APIC's processor.
 */
#ifndef EMU_LAPIC_H
#define EMU_LAPIC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vm/loop.h"

#define LAPIC_BUS_HZ    1000000000u /* the timer's clock: 1 GHz, which OVMF assumes */
#define LAPIC_BASE      0xfee00000u
#define LAPIC_PAGE_SIZE 1024 /* of lapic_save(): registers at their xAPIC offsets */

/* IA32_APIC_BASE */
#define APIC_BASE_BSP  (1ull << 8)
#define APIC_BASE_X2   (1ull << 10)
#define APIC_BASE_EN   (1ull << 11)
#define APIC_BASE_ADDR 0xffffffffff000ull

/* Register numbers: xAPIC offset / 16, x2APIC MSR - 800h. */
enum lapic_reg {
	APIC_ID = 0x02,
	APIC_VERSION = 0x03,
	APIC_TPR = 0x08,
	APIC_APR = 0x09,
	APIC_PPR = 0x0a,
	APIC_EOI = 0x0b,
	APIC_RRD = 0x0c,
	APIC_LDR = 0x0d,
	APIC_DFR = 0x0e,
	APIC_SVR = 0x0f,
	APIC_ISR = 0x10,
	APIC_TMR = 0x18,
	APIC_IRR = 0x20,
	APIC_ESR = 0x28,
	APIC_ICR = 0x30,
	APIC_ICR2 = 0x31,
	APIC_LVT_TIMER = 0x32, /* the first of LAPIC_LVTS */
	APIC_LVT_THERMAL = 0x33,
	APIC_LVT_PERF = 0x34,
	APIC_LVT_LINT0 = 0x35,
	APIC_LVT_LINT1 = 0x36,
	APIC_LVT_ERROR = 0x37,
	APIC_TIMER_INIT = 0x38,
	APIC_TIMER_CUR = 0x39,
	APIC_TIMER_DIV = 0x3e,
	APIC_SELF_IPI = 0x3f,
};

#define LAPIC_LVTS 6

/* Delivery modes (ICR, LVT, MSI data bits 10:8). */
enum lapic_mode {
	APIC_FIXED,
	APIC_LOWEST,
	APIC_SMI,
	APIC_NMI = 4,
	APIC_INIT,
	APIC_SIPI,
	APIC_EXTINT,
};

struct lapic_ops {
	/* `cpu` is lapic_init()'s. */
	void (*notify)(void *cpu); /* an interrupt may be deliverable now. Any thread */
	void (*nmi)(void *cpu);    /* any thread */
	void (*init)(void *cpu);
	void (*sipi)(void *cpu, uint8_t vector);
	uint64_t (*tsc)(void *cpu); /* the processor's TSC now. Any thread */
	/* `ctx` is lapic_set's. */
	void (*eoi)(void *ctx, unsigned vector); /* a level-triggered one ended. vCPU */
	bool (*pic_ready)(void *ctx);            /* any thread */
	int (*pic_take)(void *ctx);              /* vector or -1. vCPU */
};

struct lapic;

/* The APICs of a machine; members up to n_cpus are set by the user. */
struct lapic_set {
	const struct lapic_ops *ops; /* borrowed */
	void *ctx;                   /* borrowed */
	struct loop *loop;           /* borrowed: the clock, the timers */
	uint32_t tsc_khz;
	unsigned n_cpus;
	struct lapic **apic; /* n_cpus of them: borrowed */
	_Atomic unsigned
		rotate; /* lowest-priority arbitration: where to start looking */
};

struct lapic {
	struct lapic_set *set; /* borrowed */
	void *cpu;             /* borrowed: first argument of the callbacks */
	unsigned index;        /* its initial APIC id */

	/* Written by the vCPU, read by who sends a message. */
	_Atomic uint64_t base;
	_Atomic uint32_t id; /* 8 bits in xAPIC mode */
	_Atomic uint32_t ldr, dfr, svr, tpr;
	_Atomic uint32_t lvt[LAPIC_LVTS];
	/* Written by anyone. */
	_Atomic uint64_t irr[4], tmr[4];
	_Atomic uint32_t esr_new;
	_Atomic bool ext_latched; /* an ExtINT message came */
	/* The vCPU's own. */
	uint64_t isr[4];
	uint32_t esr, icr, icr2;

	pthread_mutex_t lock; /* of the timer; innermost but for the loop's own */
	struct timer timer;
	uint32_t count, divide; /* initial count, divide configuration */
	uint64_t start;         /* guest clock when the count began; ns */
	uint64_t tsc_deadline;
	bool running;
};

/* In the state after RESET#; `set` already has its members. */
void lapic_init(struct lapic *l, struct lapic_set *set, unsigned index, void *cpu);
void lapic_fini(struct lapic *l); /* no callback of it runs any more */

/* RESET# (init = false), or INIT#, which keeps the base address and the id. vCPU. */
void lapic_reset(struct lapic *l, bool init);

/* ---- the processor's side; vCPU ---- */

/* The vector to deliver now, thereby acknowledged; -1: none. */
int lapic_take(struct lapic *l);
/* Is there one? Cheap. */
bool lapic_ready(struct lapic *l);

uint64_t lapic_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint64_t val);

/* Is `gpa` in this processor's xAPIC page? */
static inline bool lapic_owns(const struct lapic *l, uint64_t gpa)
{
	uint64_t base = atomic_load_explicit(&l->base, memory_order_relaxed);

	return ((gpa ^ base) & APIC_BASE_ADDR) == 0 &&
	       (base & (APIC_BASE_EN | APIC_BASE_X2)) == APIC_BASE_EN;
}

uint64_t lapic_mmio_read(struct lapic *l, uint64_t off, unsigned size);
void lapic_mmio_write(struct lapic *l, uint64_t off, unsigned size, uint64_t val);

/* IA32_APIC_BASE, 800h-8ffh, IA32_TSC_DEADLINE. false: #GP. */
bool lapic_msr_get(struct lapic *l, uint32_t msr, uint64_t *val);
bool lapic_msr_set(struct lapic *l, uint32_t msr, uint64_t val);

/* ---- messages; any thread ---- */

struct lapic_msg {
	uint32_t dest;
	uint8_t vector, mode; /* enum lapic_mode */
	bool logical;
	bool level; /* level-triggered */
	bool wide;  /* dest has 32 bits (x2APIC), else 8 */
};

/* Delivers to every APIC that `m` addresses but `except` (NULL: no exception). */
void lapic_send(struct lapic_set *set, const struct lapic_msg *m,
		const struct lapic *except);
/* A write to fee00000h-feefffffh by a device or the I/O APIC (SDM 3A 11.11). */
void lapic_msi(struct lapic_set *set, uint64_t addr, uint32_t data);
/* Puts a vector into the IRR, as a fixed message to this APIC does. */
void lapic_deliver(struct lapic *l, unsigned vector, bool level);
/* The level of the line from the 8259 went up: tells the processors it is wired to. */
void lapic_extint(struct lapic_set *set);

/* ---- saving; the vCPU is outside its run loop ---- */

/* Registers at their xAPIC offsets; *left: ns to the timer's expiry, ~0 = not running. */
void lapic_save(struct lapic *l, uint8_t page[LAPIC_PAGE_SIZE], uint64_t *left);
/* Base: IA32_APIC_BASE. 0, or -EINVAL when the values make no sense. */
int lapic_load(struct lapic *l, uint64_t base, const uint8_t page[LAPIC_PAGE_SIZE],
	       uint64_t left);
/* The TSC was changed under it: the deadline is converted again. */
void lapic_tsc_changed(struct lapic *l);

/* ---- lapic_timer.c, for lapic.c ---- */

void lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
/* The LVT's timer entry changes from `old` to `val`. */
void lapic_timer_lvt(struct lapic *l, uint32_t old, uint32_t val);
void lapic_timer_set_count(struct lapic *l, uint32_t val);
void lapic_timer_set_divide(struct lapic *l, uint32_t val);
uint32_t lapic_timer_current(struct lapic *l);
uint64_t lapic_timer_deadline(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
uint64_t lapic_timer_left(struct lapic *l);
void lapic_timer_load(struct lapic *l, uint32_t count, uint32_t divide, uint64_t left);

enum {
	LVT_VECTOR = 0xff,
	LVT_MODE_SHIFT = 8,
	LVT_PENDING = 1 << 12,
	LVT_REMOTE_IRR = 1 << 14,
	LVT_LEVEL = 1 << 15,
	LVT_MASKED = 1 << 16,
	LVT_PERIODIC = 1 << 17,
	LVT_DEADLINE = 2 << 17,
	LVT_TIMER_MODE = 3 << 17,
};

/* Delivers what LVT entry `i` (register APIC_LVT_TIMER + i) says, unless masked. */
void lapic_lvt_fire(struct lapic *l, unsigned i);

#endif

/* emu/emu_int.h - the emulator engine's own structures. */
#ifndef EMU_EMU_INT_H
#define EMU_EMU_INT_H

#include "emu/emu.h"
#include "emu/lapic.h"
#include "x86/x86.h"

struct emu;

#define EMU_EXITS (X86_EXIT_DIFFERENCE + 1)

struct emu_cpu {
	struct emu *emu; /* borrowed */
	struct x86_cpu *x;
	struct lapic lapic;
	unsigned index;
	_Atomic uint32_t sleeping; /* 1: the thread waits on it (futex) */
	atomic_bool kicked;        /* run() is to return */
	atomic_bool init_came; /* the local APIC is to follow the processor's INIT */
	atomic_bool unhalt;    /* KVM_HC_KICK_CPU */
	uint64_t msr_time, msr_wall; /* paravirtual clock: as the guest wrote them */
	uint32_t pv_version;
	uint64_t exits[EMU_EXITS]; /* by enum x86_exit */
};

struct emu {
	struct engine engine; /* first */
	struct engine_env env;
	struct x86_system *sys;
	struct lapic_set set;
	struct emu_cpu *cpu; /* env.n_cpus of them */
	uint32_t tsc_khz;
	atomic_bool extint; /* the 8259 pair's output */
	/*
	 * Time (pvclock.c). Guest TSCs stand still while the guest's clock does: what the clock was
	 * paused since `pause_ns` was noted is taken off the TSC offsets when it goes on.
	 */
	uint64_t pause_ns; /* host monotonic time - guest clock, as accounted for */
	uint64_t ref_tsc, ref_ns; /* the same moment in host TSC and guest clock */
	/* Host TSC that all processors' states refer to while the clock stands at stop_ns. */
	uint64_t stop_tsc, stop_ns;
};

static inline struct emu *emu_of(struct engine *e)
{
	return (struct emu *)e;
}

/* ---- emu.c ---- */

/* Makes the processor's thread look again if it sleeps. Any thread, signal-safe. */
void emu_wake(struct emu_cpu *c);
/* Makes the processor with CPUID leaves (NULL: all that are supported). 0 or -errno. */
int emu_cpu_make(struct emu *e, unsigned index, const struct x86_cpuid *leaf, size_t n,
		 struct err *err);

/* ---- emu_figures.c ---- */
unsigned emu_figures(struct engine *e, unsigned index, struct figure out[FIGURES_MAX]);

/* ---- emu_state.c ---- */
int emu_get_state(struct engine *e, unsigned index, struct cpu_state *s,
		  struct err *err);
int emu_set_state(struct engine *e, unsigned index, const struct cpu_state *s,
		  struct err *err);

/* ---- pvclock.c ---- */

#define MSR_KVM_WALL_OLD 0x11u
#define MSR_KVM_TIME_OLD 0x12u
#define MSR_KVM_WALL     0x4b564d00u
#define MSR_KVM_TIME     0x4b564d01u

/* Measures the host's TSC frequency in kHz; takes 5 ms. */
uint32_t emu_tsc_measure(void);
uint64_t emu_host_tsc(void);
/* The clocks' common moment; when the engine is made. */
void emu_clock_init(struct emu *e);
/* The guest's clock goes on. */
void emu_clock_resumed(struct emu *e);
/* The host TSC that all processors' states refer to; the processors are stopped. */
uint64_t emu_clock_stop(struct emu *e, bool load);
bool emu_pv_msr_get(struct emu_cpu *c, uint32_t msr, uint64_t *val);
bool emu_pv_msr_set(struct emu_cpu *c, uint32_t msr, uint64_t val);
uint64_t emu_hypercall(struct emu_cpu *c, const uint64_t arg[5]);

#endif

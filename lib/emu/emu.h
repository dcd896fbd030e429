/*
 * emu/emu.h - the emulator engine: lib/x86 with local APICs behind vm/cpu.h.
 */
#ifndef EMU_EMU_H
#define EMU_EMU_H

#include "vm/cpu.h"

extern const struct engine_ops engine_emulator;

/* Frequency of the local APIC timer, for struct cpuid_topology: Hz. */
#define EMU_BUS_HZ 1000000000u

/*
 * What leaf 40000001h offers (Linux: Documentation/virt/kvm/x86/cpuid.rst): the paravirtual clock at
 * both pairs of MSRs and its "stable" bit, no I/O delays, wake-up of a halted processor (KICK_CPU), many
 * IPIs at once (SEND_IPI), yielding to a processor (SCHED_YIELD).
 */
#define EMU_KVM_FEATURES \
	(1u << 0 | 1u << 1 | 1u << 3 | 1u << 7 | 1u << 11 | 1u << 13 | 1u << 24)

#endif

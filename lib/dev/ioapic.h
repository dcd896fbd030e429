/* dev/ioapic.h - an I/O APIC with 24 inputs. */
#ifndef DEV_IOAPIC_H
#define DEV_IOAPIC_H

#include "vm/env.h"

#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_PINS 24

struct ioapic;

/* Told of every change of the redirection table, for engine_ops.ioapic_routes. Lock held. */
struct ioapic_user {
	void (*routes)(void *ctx, const uint64_t entry[IOAPIC_PINS], unsigned n);
	void *ctx; /* borrowed */
};

/*
 * At IOAPIC_BASE with APIC id `id`. Interrupts leave through env->msi. NULL with *err. `user` is
 * copied. Machine lock held for all functions.
 */
struct ioapic *ioapic_new(const struct vm_env *env, uint8_t id,
			  const struct ioapic_user *user, struct err *err);
void ioapic_free(struct ioapic *io);
void ioapic_reset(struct ioapic *io);

/* The line into input `n`, 0-23; valid as long as the device. */
struct irq ioapic_line(struct ioapic *io, unsigned n);

/* A local APIC ended a level-triggered interrupt of this vector. */
void ioapic_eoi(struct ioapic *io, unsigned vector);

#endif

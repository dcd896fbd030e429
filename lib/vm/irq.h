/* vm/irq.h - interrupt lines and messages, as a device sees them. */
#ifndef VM_IRQ_H
#define VM_IRQ_H

#include <stdbool.h>
#include <stdint.h>

/* One line into an interrupt controller. Machine lock held. `set` NULL: not connected. */
struct irq {
	void (*set)(void *ctx, unsigned n, bool level);
	void *ctx; /* borrowed */
	unsigned n;
};

static inline void irq_set(const struct irq *irq, bool level)
{
	if (irq && irq->set)
		irq->set(irq->ctx, irq->n, level);
}

/* An edge: up and down. */
static inline void irq_pulse(const struct irq *irq)
{
	irq_set(irq, true);
	irq_set(irq, false);
}

/*
 * Message-signalled interrupts: a write of `data` to `addr` (0xfeexxxxx), as PCI's MSI-X and the
 * I/O APIC send them (SDM 3A 11.11). Any thread.
 */
struct msi_target {
	void (*send)(void *ctx, uint64_t addr, uint32_t data);
	void *ctx; /* borrowed */
};

static inline void msi_send(const struct msi_target *t, uint64_t addr, uint32_t data)
{
	if (t && t->send)
		t->send(t->ctx, addr, data);
}

#endif

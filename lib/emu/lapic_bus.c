/*
 * emu/lapic_bus.c - messages between local APICs, and from devices: who is addressed.
 *
 * Specification: SDM volume 3A 11.6.2 (destinations), 11.11 (message-signalled interrupts),
 * 11.12.10 (x2APIC). Any thread, no lock: ids are read as they are at the moment.
 */
#include "emu/lapic.h"

#include "base/bits.h"

#define LOAD(x) atomic_load_explicit(&(x), memory_order_relaxed)

static bool is_x2(const struct lapic *l)
{
	return LOAD(l->base) & APIC_BASE_X2;
}

static bool match_physical(const struct lapic *l, const struct lapic_msg *m)
{
	uint32_t broadcast = m->wide ? UINT32_MAX : 0xff;

	return m->dest == broadcast || LOAD(l->id) == m->dest;
}

static bool match_logical(const struct lapic *l, const struct lapic_msg *m)
{
	uint32_t ldr = LOAD(l->ldr), dest = m->dest;

	if (is_x2(l)) {
		if (dest == (m->wide ? UINT32_MAX : 0xff))
			return true;
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	}
	ldr >>= 24;
	if (dest == 0xff || (m->wide && dest == UINT32_MAX))
		return true;
	if (dest > 0xff)
		return false;
	if (LOAD(l->dfr) >> 28 == 0xf) /* flat model */
		return ldr & dest;
	return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
}

static bool match(const struct lapic *l, const struct lapic_msg *m)
{
	return m->logical ? match_logical(l, m) : match_physical(l, m);
}

static void deliver_mode(struct lapic *l, const struct lapic_msg *m)
{
	const struct lapic_ops *ops = l->set->ops;

	switch (m->mode) {
	case APIC_FIXED:
	case APIC_LOWEST: lapic_deliver(l, m->vector, m->level); break;
	case APIC_NMI: ops->nmi(l->cpu); break;
	case APIC_INIT: ops->init(l->cpu); break;
	case APIC_SIPI: ops->sipi(l->cpu, m->vector); break;
	case APIC_EXTINT:
		atomic_store(&l->ext_latched, true);
		ops->notify(l->cpu);
		break;
	default: break; /* SMI: these processors have no SMM; 3: reserved */
	}
}

/* One of the addressed APICs that accept interrupts: the lowest task priority, in turn. */
static void send_lowest(struct lapic_set *set, const struct lapic_msg *m,
			const struct lapic *except)
{
	unsigned first = atomic_fetch_add(&set->rotate, 1) % set->n_cpus;
	struct lapic *best = NULL;

	for (unsigned n = 0; n < set->n_cpus; n++) {
		struct lapic *l = set->apic[(first + n) % set->n_cpus];

		if (!l || l == except || !match(l, m) || !(LOAD(l->svr) & BIT(8)))
			continue;
		if (!best || LOAD(l->tpr) >> 4 < LOAD(best->tpr) >> 4)
			best = l;
	}
	if (best)
		deliver_mode(best, m);
}

void lapic_send(struct lapic_set *set, const struct lapic_msg *m,
		const struct lapic *except)
{
	if (m->mode == APIC_LOWEST) {
		send_lowest(set, m, except);
		return;
	}
	/* Nearly always the id is the index. */
	if (!m->logical && m->dest < set->n_cpus && set->apic[m->dest] &&
	    LOAD(set->apic[m->dest]->id) == m->dest && (m->wide || m->dest != 0xff)) {
		if (set->apic[m->dest] != except)
			deliver_mode(set->apic[m->dest], m);
		return;
	}
	for (unsigned i = 0; i < set->n_cpus; i++) {
		struct lapic *l = set->apic[i];

		if (l && l != except && match(l, m))
			deliver_mode(l, m);
	}
}

void lapic_msi(struct lapic_set *set, uint64_t addr, uint32_t data)
{
	struct lapic_msg m = {
		.dest = bits_get(addr, 12, 8),
		.vector = (uint8_t)data,
		.mode = (data >> 8) & 7,
		.logical = addr & 4,
		.level = data & 0x8000,
	};

	if (addr >> 20 != 0xfee)
		return;
	if (m.level && !(data & 0x4000)) /* de-assertion: nothing to deliver */
		return;
	/* Redirection hint with a logical destination: one of them (SDM 11.11.1). */
	if ((addr & 8) && m.logical && m.mode == APIC_FIXED)
		m.mode = APIC_LOWEST;
	lapic_send(set, &m, NULL);
}

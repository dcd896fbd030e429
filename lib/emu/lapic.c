/*
 * emu/lapic.c - the local APIC: registers, priorities, acknowledgement.
 *
 * Specification: SDM volume 3A chapter 11. Registers are the vCPU's; IRR and TMR are set by any
 * thread with atomics, so that a message needs no lock. An interrupt is put into TMR before IRR,
 * and IRR before ops->notify(): who sees the notice finds the interrupt.
 */
#include "emu/lapic.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

#define MSR_APIC_BASE    0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC       0x800

#define VERSION (0x14 | (LAPIC_LVTS - 1) << 16)

enum { SVR_ENABLE = 1 << 8 };

/* Error status register. */
enum {
	ESR_SEND_VECTOR = 1 << 5,
	ESR_RECV_VECTOR = 1 << 6,
	ESR_REGISTER = 1 << 7,
};

/* Interrupt command register. */
enum {
	ICR_LOGICAL = 1 << 11,
	ICR_ASSERT = 1 << 14,
	ICR_LEVEL = 1 << 15,
	ICR_SHORTHAND_SHIFT = 18,
	ICR_WRITABLE = 0xccfff,
};

enum { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

/* Bits that can be written in the LVT entries: timer, thermal, performance, LINT0, LINT1, error. */
static const uint32_t lvt_bits[LAPIC_LVTS] = {
	0x710ff, 0x117ff, 0x117ff, 0x1b7ff, 0x1b7ff, 0x110ff,
};

#define LOAD(x)     atomic_load_explicit(&(x), memory_order_relaxed)
#define STORE(x, v) atomic_store_explicit(&(x), (v), memory_order_relaxed)

static bool x2_mode(const struct lapic *l)
{
	return LOAD(l->base) & APIC_BASE_X2;
}

static bool hw_enabled(const struct lapic *l)
{
	return LOAD(l->base) & APIC_BASE_EN;
}

/* ---- 256-bit registers ---- */

static int highest(const uint64_t w[4])
{
	for (int i = 3; i >= 0; i--)
		if (w[i])
			return 64 * i + 63 - __builtin_clzll(w[i]);
	return -1;
}

static int highest_irr(struct lapic *l)
{
	for (int i = 3; i >= 0; i--) {
		uint64_t w = atomic_load(&l->irr[i]);

		if (w)
			return 64 * i + 63 - __builtin_clzll(w);
	}
	return -1;
}

static uint32_t part32(uint64_t w, unsigned n)
{
	return (uint32_t)(w >> (n & 1 ? 32 : 0));
}

/* ---- priorities (SDM 11.8.3.1) ---- */

static unsigned ppr(const struct lapic *l)
{
	unsigned tpr = LOAD(l->tpr);
	int isr = highest(l->isr);

	if (isr < 0 || (tpr & 0xf0) >= ((unsigned)isr & 0xf0))
		return tpr;
	return (unsigned)isr & 0xf0;
}

/* Is the local APIC on and an interrupt above the processor's priority? */
static int deliverable(struct lapic *l)
{
	int v = highest_irr(l);

	if (v < 0 || ((unsigned)v & 0xf0) <= (ppr(l) & 0xf0))
		return -1;
	return hw_enabled(l) ? v : -1;
}

/* Does the 8259's output reach this processor? With the APIC off, LINT0 is its INTR pin. */
static bool takes_extint(struct lapic *l)
{
	uint32_t v = LOAD(l->lvt[APIC_LVT_LINT0 - APIC_LVT_TIMER]);

	if (LOAD(l->ext_latched))
		return true;
	if (!hw_enabled(l))
		return LOAD(l->base) & APIC_BASE_BSP;
	return !(v & LVT_MASKED) && ((v >> LVT_MODE_SHIFT) & 7) == APIC_EXTINT;
}

static bool extint_ready(struct lapic *l)
{
	return l->set->ops->pic_ready(l->set->ctx) && takes_extint(l);
}

bool lapic_ready(struct lapic *l)
{
	return deliverable(l) >= 0 || extint_ready(l);
}

int lapic_take(struct lapic *l)
{
	int v;

	if (extint_ready(l)) {
		v = l->set->ops->pic_take(l->set->ctx);
		STORE(l->ext_latched, false);
		if (v >= 0)
			return v;
	}
	v = deliverable(l);
	if (v < 0)
		return -1;
	atomic_fetch_and(&l->irr[v / 64], ~BIT(v % 64));
	l->isr[v / 64] |= BIT(v % 64);
	return v;
}

/* After a register was written that the priority or the LINT0 pin depends on. */
static void recheck(struct lapic *l)
{
	if (lapic_ready(l))
		l->set->ops->notify(l->cpu);
}

static void end_of_interrupt(struct lapic *l)
{
	int v = highest(l->isr);

	if (v < 0)
		return;
	l->isr[v / 64] &= ~BIT(v % 64);
	if (LOAD(l->tmr[v / 64]) & BIT(v % 64))
		l->set->ops->eoi(l->set->ctx, (unsigned)v);
	if (deliverable(l) >= 0)
		l->set->ops->notify(l->cpu);
}

uint64_t lapic_cr8(const struct lapic *l)
{
	return LOAD(l->tpr) >> 4;
}

static void set_tpr(struct lapic *l, uint32_t val)
{
	uint32_t old = LOAD(l->tpr);

	STORE(l->tpr, val & 0xff);
	if ((val & 0xff) < old && deliverable(l) >= 0)
		l->set->ops->notify(l->cpu);
}

void lapic_set_cr8(struct lapic *l, uint64_t val)
{
	set_tpr(l, (uint32_t)(val & 15) << 4);
}

/* ---- delivery ---- */

/* Records an error; an LVT error interrupt follows when it is new. */
static void error(struct lapic *l, uint32_t bit)
{
	if (!(atomic_fetch_or(&l->esr_new, bit) & bit))
		lapic_lvt_fire(l, APIC_LVT_ERROR - APIC_LVT_TIMER);
}

/* The interrupt of a valid vector; the error LVT's own vector must not raise an error again. */
static void put_irr(struct lapic *l, unsigned vector, bool level)
{
	uint64_t bit = BIT(vector % 64);
	_Atomic uint64_t *tmr = &l->tmr[vector / 64];

	if (level)
		atomic_fetch_or(tmr, bit);
	else if (LOAD(*tmr) & bit)
		atomic_fetch_and(tmr, ~bit);
	if (!(atomic_fetch_or(&l->irr[vector / 64], bit) & bit))
		l->set->ops->notify(l->cpu);
}

void lapic_deliver(struct lapic *l, unsigned vector, bool level)
{
	if (!hw_enabled(l) || !(LOAD(l->svr) & SVR_ENABLE))
		return;
	if (vector < 16)
		error(l, ESR_RECV_VECTOR);
	else
		put_irr(l, vector & 0xff, level);
}

void lapic_lvt_fire(struct lapic *l, unsigned i)
{
	uint32_t v = LOAD(l->lvt[i]);

	if (v & LVT_MASKED || !hw_enabled(l))
		return;
	if (i == 0 || i == APIC_LVT_ERROR - APIC_LVT_TIMER) { /* always fixed */
		if ((v & LVT_VECTOR) >= 16)
			put_irr(l, v & LVT_VECTOR, false);
		else if (i == 0)
			error(l, ESR_RECV_VECTOR);
		return;
	}
	switch ((v >> LVT_MODE_SHIFT) & 7) {
	case APIC_FIXED: lapic_deliver(l, v & LVT_VECTOR, v & LVT_LEVEL); break;
	case APIC_NMI: l->set->ops->nmi(l->cpu); break;
	case APIC_INIT: l->set->ops->init(l->cpu); break;
	case APIC_EXTINT:
		STORE(l->ext_latched, true);
		l->set->ops->notify(l->cpu);
		break;
	default: break;
	}
}

void lapic_extint(struct lapic_set *set)
{
	for (unsigned i = 0; i < set->n_cpus; i++)
		if (set->apic[i] && takes_extint(set->apic[i]))
			set->ops->notify(set->apic[i]->cpu);
}

/* ---- interrupt command register (SDM 11.6.1) ---- */

static void icr_write(struct lapic *l, uint32_t low, uint32_t high)
{
	unsigned to = (low >> ICR_SHORTHAND_SHIFT) & 3;
	struct lapic_msg m = {
		.dest = x2_mode(l) ? high : high >> 24,
		.vector = (uint8_t)low,
		.mode = (low >> LVT_MODE_SHIFT) & 7,
		.logical = low & ICR_LOGICAL,
		.level = false, /* IPIs are edge-triggered, but for INIT below */
		.wide = x2_mode(l),
	};

	l->icr = low & ICR_WRITABLE;
	l->icr2 = high;
	if (m.mode == APIC_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
		return; /* "INIT level de-assert": not supported since Pentium 4 */
	if (m.mode <= APIC_LOWEST && m.vector < 16) {
		error(l, ESR_SEND_VECTOR);
		return;
	}
	if (to == TO_SELF) {
		if (m.mode == APIC_FIXED)
			lapic_deliver(l, m.vector, false);
		else if (m.mode == APIC_NMI)
			l->set->ops->nmi(l->cpu);
		return;
	}
	if (to != TO_DEST) {
		m.dest = UINT32_MAX;
		m.wide = true;
		m.logical = false;
	}
	lapic_send(l->set, &m, to == TO_OTHERS ? l : NULL);
}

/* ---- registers, the same for both modes ---- */

static uint32_t reg_read(struct lapic *l, unsigned r)
{
	switch (r) {
	case APIC_ID: return x2_mode(l) ? LOAD(l->id) : LOAD(l->id) << 24;
	case APIC_VERSION: return VERSION;
	case APIC_TPR: return LOAD(l->tpr);
	case APIC_PPR: return ppr(l);
	case APIC_LDR: return LOAD(l->ldr);
	case APIC_DFR: return LOAD(l->dfr);
	case APIC_SVR: return LOAD(l->svr);
	case APIC_ESR: return l->esr;
	case APIC_ICR: return l->icr;
	case APIC_ICR2: return l->icr2;
	case APIC_TIMER_INIT: return l->count;
	case APIC_TIMER_CUR: return lapic_timer_current(l);
	case APIC_TIMER_DIV: return l->divide;
	default: break;
	}
	if (r >= APIC_ISR && r < APIC_ISR + 8)
		return part32(l->isr[(r - APIC_ISR) / 2], r);
	if (r >= APIC_TMR && r < APIC_TMR + 8)
		return part32(LOAD(l->tmr[(r - APIC_TMR) / 2]), r);
	if (r >= APIC_IRR && r < APIC_IRR + 8)
		return part32(LOAD(l->irr[(r - APIC_IRR) / 2]), r);
	if (r >= APIC_LVT_TIMER && r < APIC_LVT_TIMER + LAPIC_LVTS)
		return LOAD(l->lvt[r - APIC_LVT_TIMER]);
	return 0;
}

static void lvt_write(struct lapic *l, unsigned i, uint32_t val)
{
	val &= lvt_bits[i];
	if (!(LOAD(l->svr) & SVR_ENABLE))
		val |= LVT_MASKED;
	if (i == 0)
		lapic_timer_lvt(l, LOAD(l->lvt[0]), val);
	else
		STORE(l->lvt[i], val);
	if (i == APIC_LVT_LINT0 - APIC_LVT_TIMER)
		recheck(l);
}

static void svr_write(struct lapic *l, uint32_t val)
{
	STORE(l->svr, val & 0x3ff);
	if (!(val & SVR_ENABLE)) /* the masks are set and stay (SDM 11.4.7.2) */
		for (unsigned i = 0; i < LAPIC_LVTS; i++)
			lvt_write(l, i, LOAD(l->lvt[i]));
}

static void reg_write(struct lapic *l, unsigned r, uint32_t val)
{
	switch (r) {
	case APIC_ID:
		if (!x2_mode(l))
			STORE(l->id, val >> 24);
		break;
	case APIC_TPR: set_tpr(l, val); break;
	case APIC_EOI: end_of_interrupt(l); break;
	case APIC_LDR: STORE(l->ldr, val & 0xff000000); break;
	case APIC_DFR: STORE(l->dfr, val | 0x0fffffff); break;
	case APIC_SVR: svr_write(l, val); break;
	case APIC_ESR: l->esr = atomic_exchange(&l->esr_new, 0); break;
	case APIC_ICR: icr_write(l, val, l->icr2); break;
	case APIC_ICR2: l->icr2 = val; break;
	case APIC_TIMER_INIT: lapic_timer_set_count(l, val); break;
	case APIC_TIMER_DIV: lapic_timer_set_divide(l, val); break;
	default:
		if (r >= APIC_LVT_TIMER && r < APIC_LVT_TIMER + LAPIC_LVTS)
			lvt_write(l, r - APIC_LVT_TIMER, val);
		break;
	}
}

/* Which registers there are: R readable, W writable, Z only zero may be written (x2APIC). */
enum { R = 1, W = 2, Z = 4, X2_ONLY = 8, X_ONLY = 16 };

static const uint8_t access[0x40] = {
	[APIC_ID] = R | W,
	[APIC_VERSION] = R,
	[APIC_TPR] = R | W,
	[APIC_APR] = R | X_ONLY,
	[APIC_PPR] = R,
	[APIC_EOI] = W | Z,
	[APIC_RRD] = R | X_ONLY,
	[APIC_LDR] = R | W,
	[APIC_DFR] = R | W | X_ONLY,
	[APIC_SVR] = R | W,
	[APIC_ISR... APIC_ISR + 7] = R,
	[APIC_TMR... APIC_TMR + 7] = R,
	[APIC_IRR... APIC_IRR + 7] = R,
	[APIC_ESR] = R | W | Z,
	[APIC_ICR] = R | W,
	[APIC_ICR2] = R | W | X_ONLY,
	[APIC_LVT_TIMER... APIC_LVT_ERROR] = R | W,
	[APIC_TIMER_INIT] = R | W,
	[APIC_TIMER_CUR] = R,
	[APIC_TIMER_DIV] = R | W,
	[APIC_SELF_IPI] = W | X2_ONLY,
};

/* ---- xAPIC: memory-mapped ---- */

uint64_t lapic_mmio_read(struct lapic *l, uint64_t off, unsigned size)
{
	unsigned r = (unsigned)(off & 0xfff) >> 4, at = off & 15;
	uint64_t v;

	if (r >= ARRAY_LEN(access) || !(access[r] & ~W) || (access[r] & X2_ONLY)) {
		error(l, ESR_REGISTER);
		return 0;
	}
	if (!(access[r] & R) || at >= 4) /* only the first 4 of 16 bytes exist */
		return 0;
	v = (uint64_t)reg_read(l, r) >> 8 * at;
	return size >= 4 ? v : v & (BIT(8 * size) - 1);
}

void lapic_mmio_write(struct lapic *l, uint64_t off, unsigned size, uint64_t val)
{
	unsigned r = (unsigned)(off & 0xfff) >> 4;

	if (off & 15 || size < 4) /* undefined by the manual: ignored */
		return;
	if (r >= ARRAY_LEN(access) || !(access[r] & W) || (access[r] & X2_ONLY)) {
		error(l, ESR_REGISTER);
		return;
	}
	reg_write(l, r, (uint32_t)val);
}

/* ---- x2APIC: MSRs (SDM 11.12) ---- */

static bool x2_get(struct lapic *l, unsigned r, uint64_t *val)
{
	if (r >= ARRAY_LEN(access) || !(access[r] & R) || (access[r] & X_ONLY))
		return false;
	*val = reg_read(l, r);
	if (r == APIC_ICR)
		*val |= (uint64_t)l->icr2 << 32;
	return true;
}

/* The bits that a write may have set, else #GP. */
static uint64_t x2_valid(unsigned r)
{
	if (access[r] & Z)
		return 0;
	if (r >= APIC_LVT_TIMER && r < APIC_LVT_TIMER + LAPIC_LVTS)
		return lvt_bits[r - APIC_LVT_TIMER] | LVT_PENDING | LVT_REMOTE_IRR;
	switch (r) {
	case APIC_TPR:
	case APIC_SELF_IPI: return 0xff;
	case APIC_SVR: return 0x3ff;
	case APIC_ICR: return 0xffffffff00000000 | ICR_WRITABLE | LVT_PENDING;
	case APIC_TIMER_DIV: return 0xb;
	default: return UINT32_MAX;
	}
}

static bool x2_set(struct lapic *l, unsigned r, uint64_t val)
{
	if (r >= ARRAY_LEN(access) || !(access[r] & W) || (access[r] & X_ONLY) ||
	    r == APIC_ID || r == APIC_LDR || (val & ~x2_valid(r)))
		return false;
	if (r == APIC_SELF_IPI)
		icr_write(l, TO_SELF << ICR_SHORTHAND_SHIFT | (uint32_t)val, 0);
	else if (r == APIC_ICR)
		icr_write(l, (uint32_t)val, (uint32_t)(val >> 32));
	else
		reg_write(l, r, (uint32_t)val);
	return true;
}

/* The logical id that x2APIC mode derives (SDM 11.12.10.2). */
static void set_x2_ids(struct lapic *l)
{
	STORE(l->id, l->index);
	STORE(l->ldr, (l->index >> 4) << 16 | 1u << (l->index & 15));
}

/* Mode changes by IA32_APIC_BASE (SDM 11.12.5): off -> xAPIC -> x2APIC -> off only. */
static bool base_write(struct lapic *l, uint64_t val)
{
	uint64_t old = LOAD(l->base), mode = APIC_BASE_EN | APIC_BASE_X2;

	if (val & ~(APIC_BASE_ADDR | mode | APIC_BASE_BSP))
		return false;
	if ((val & mode) == APIC_BASE_X2)
		return false;
	if ((old & mode) == mode && (val & mode) == APIC_BASE_EN)
		return false;
	if (!(old & mode) && (val & mode) == mode)
		return false;
	if ((old & mode) && !(val & mode)) {
		lapic_reset(l, true);
		STORE(l->id, l->index);
	}
	STORE(l->base, val);
	if ((val & mode) == mode && !(old & APIC_BASE_X2))
		set_x2_ids(l);
	recheck(l);
	return true;
}

bool lapic_msr_get(struct lapic *l, uint32_t msr, uint64_t *val)
{
	if (msr == MSR_APIC_BASE) {
		*val = LOAD(l->base);
		return true;
	}
	if (msr == MSR_TSC_DEADLINE) {
		*val = lapic_timer_deadline(l);
		return true;
	}
	return x2_mode(l) && msr >= MSR_X2APIC && x2_get(l, msr - MSR_X2APIC, val);
}

bool lapic_msr_set(struct lapic *l, uint32_t msr, uint64_t val)
{
	if (msr == MSR_APIC_BASE)
		return base_write(l, val);
	if (msr == MSR_TSC_DEADLINE) {
		lapic_timer_set_deadline(l, val);
		return true;
	}
	return x2_mode(l) && msr >= MSR_X2APIC && x2_set(l, msr - MSR_X2APIC, val);
}

/* ---- reset, saving ---- */

void lapic_reset(struct lapic *l, bool init)
{
	uint64_t bsp = l->index ? 0 : APIC_BASE_BSP;

	lapic_timer_reset(l);
	if (!init) {
		STORE(l->base, LAPIC_BASE | APIC_BASE_EN | bsp);
		STORE(l->id, l->index);
	}
	for (unsigned i = 0; i < LAPIC_LVTS; i++)
		STORE(l->lvt[i], LVT_MASKED);
	/* Virtual wire: PCs reach the boot processor through LINT0 before anything set it up. */
	if (bsp)
		STORE(l->lvt[APIC_LVT_LINT0 - APIC_LVT_TIMER],
		      APIC_EXTINT << LVT_MODE_SHIFT);
	STORE(l->ldr, 0);
	STORE(l->dfr, UINT32_MAX);
	STORE(l->svr, 0xff);
	STORE(l->tpr, 0);
	STORE(l->esr_new, 0);
	STORE(l->ext_latched, false);
	for (unsigned i = 0; i < 4; i++) {
		atomic_store(&l->irr[i], 0);
		atomic_store(&l->tmr[i], 0);
		l->isr[i] = 0;
	}
	l->esr = 0;
	l->icr = 0;
	l->icr2 = 0;
	if (x2_mode(l))
		set_x2_ids(l);
}

void lapic_init(struct lapic *l, struct lapic_set *set, unsigned index, void *cpu)
{
	memset(l, 0, sizeof(*l));
	l->set = set;
	l->index = index;
	l->cpu = cpu;
	lapic_timer_init(l);
	lapic_reset(l, false);
}

void lapic_fini(struct lapic *l)
{
	if (!l->set)
		return;
	timer_cancel(&l->timer);
	pthread_mutex_destroy(&l->lock);
}

static void page_put(uint8_t *page, unsigned r, uint32_t v)
{
	memcpy(page + 16 * r, &v, sizeof(v));
}

static uint32_t page_get(const uint8_t *page, unsigned r)
{
	return load_u32(page + 16 * r);
}

void lapic_save(struct lapic *l, uint8_t page[LAPIC_PAGE_SIZE], uint64_t *left)
{
	memset(page, 0, LAPIC_PAGE_SIZE);
	for (unsigned r = 0; r < ARRAY_LEN(access); r++)
		if (access[r] & R)
			page_put(page, r, reg_read(l, r));
	*left = lapic_timer_left(l);
}

int lapic_load(struct lapic *l, uint64_t base, const uint8_t page[LAPIC_PAGE_SIZE],
	       uint64_t left)
{
	uint64_t mode = base & (APIC_BASE_EN | APIC_BASE_X2);

	if (mode == APIC_BASE_X2 ||
	    (base & ~(APIC_BASE_ADDR | APIC_BASE_EN | APIC_BASE_X2 | APIC_BASE_BSP)))
		return -EINVAL;
	STORE(l->base, base);
	if (mode & APIC_BASE_X2) {
		set_x2_ids(l);
	} else {
		STORE(l->id, page_get(page, APIC_ID) >> 24);
		STORE(l->ldr, page_get(page, APIC_LDR) & 0xff000000);
	}
	STORE(l->dfr, page_get(page, APIC_DFR) | 0x0fffffff);
	STORE(l->svr, page_get(page, APIC_SVR) & 0x3ff);
	STORE(l->tpr, page_get(page, APIC_TPR) & 0xff);
	for (unsigned i = 0; i < LAPIC_LVTS; i++)
		STORE(l->lvt[i], page_get(page, APIC_LVT_TIMER + i) & lvt_bits[i]);
	for (unsigned i = 0; i < 4; i++) {
		const unsigned lo = 2 * i, hi = 2 * i + 1;

		l->isr[i] = page_get(page, APIC_ISR + lo) |
			    (uint64_t)page_get(page, APIC_ISR + hi) << 32;
		atomic_store(&l->irr[i], page_get(page, APIC_IRR + lo) |
						 (uint64_t)page_get(page, APIC_IRR + hi)
							 << 32);
		atomic_store(&l->tmr[i], page_get(page, APIC_TMR + lo) |
						 (uint64_t)page_get(page, APIC_TMR + hi)
							 << 32);
	}
	/* Vectors below 16 cannot be there. */
	l->isr[0] &= ~0xffffull;
	atomic_fetch_and(&l->irr[0], ~0xffffull);
	l->esr = page_get(page, APIC_ESR);
	l->icr = page_get(page, APIC_ICR) & ICR_WRITABLE;
	l->icr2 = page_get(page, APIC_ICR2);
	lapic_timer_load(l, page_get(page, APIC_TIMER_INIT),
			 page_get(page, APIC_TIMER_DIV), left);
	recheck(l);
	return 0;
}

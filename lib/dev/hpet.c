/*
 * dev/hpet.c - a high precision event timer.
 *
 * Specification: IA-PC HPET 1.0a. No FSB (message) delivery. Threads: machine lock held.
 *
 * The main counter is the guest's clock in units of 10 ns, plus an offset. A periodic timer that is
 * late makes up for up to a second's worth of interrupts at twice the rate.
 */
#include "dev/hpet.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"

#define TICK_NS 10u
#define SECOND  100000000ull /* in ticks */

enum { CAPS = 0x00, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, TIMER0 = 0x100 };
enum { T_CONFIG = 0x00, T_COMPARE = 0x08, T_STRIDE = 0x20 };

enum { CFG_ENABLE = 1, CFG_LEGACY = 2 };

enum {
	TN_LEVEL = 1 << 1,
	TN_ENABLE = 1 << 2,
	TN_PERIODIC = 1 << 3,
	TN_CAN_PERIODIC = 1 << 4,
	TN_CAN_64 = 1 << 5,
	TN_SET_VALUE = 1 << 6,
	TN_32BIT = 1 << 8,
	TN_ROUTE = 0x1f << 9,
	TN_WRITABLE =
		TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32BIT | TN_ROUTE,
};
#define CAPABILITIES \
	(0x8086a001u | (HPET_TIMERS - 1) << 8 | (uint64_t)HPET_PERIOD_FS << 32)

#define MIN_PERIOD 2000u /* ticks: 20 us; faster ones are spread out */

struct comparator {
	uint64_t config;  /* the writable bits */
	uint64_t compare; /* as the guest reads it */
	uint64_t period;
	uint64_t due; /* periodic and running: value of the whole counter */
};

struct hpet {
	struct comparator t[HPET_TIMERS];
	uint64_t config, status;
	uint64_t counter; /* while stopped; running: added to the clock's ticks */
	uint32_t written; /* low half of a register that is written in two */
	struct hpet_cfg cfg;
	struct loop *loop; /* borrowed */
	struct bus *mmio;  /* borrowed */
	struct io_range io;
	struct hpet_timer {
		struct hpet *h;
		unsigned n;
		struct timer timer;
	} timer[HPET_TIMERS];
};

static uint64_t counter(const struct hpet *h)
{
	if (!(h->config & CFG_ENABLE))
		return h->counter;
	return h->counter + clock_now(h->loop) / TICK_NS;
}

static uint64_t mask(const struct comparator *t)
{
	return t->config & TN_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* ---- lines ---- */

static bool legacy(const struct hpet *h, unsigned n)
{
	return n < 2 && (h->config & CFG_LEGACY);
}

static void drive(struct hpet *h, unsigned n, bool level)
{
	struct irq line = h->cfg.gsi;

	line.n = bits_get(h->t[n].config, 9, 5);
	if (legacy(h, n))
		irq_set(&h->cfg.legacy[n], level);
	else if (h->cfg.routes & BIT(line.n))
		irq_set(&line, level);
}

/* Level-triggered lines follow the status bit. */
static void update_level(struct hpet *h, unsigned n)
{
	uint64_t c = h->t[n].config;

	if (c & TN_LEVEL)
		drive(h, n, (h->status & BIT(n)) && (c & TN_ENABLE));
}

static void interrupt(struct hpet *h, unsigned n)
{
	uint64_t c = h->t[n].config;

	if (c & TN_LEVEL) {
		h->status |= BIT(n);
		update_level(h, n);
	} else if (c & TN_ENABLE) {
		drive(h, n, true);
		drive(h, n, false);
	}
}

/* ---- expiry ---- */

/* Waits until the whole counter has value `at`. */
static void wait_until(struct hpet *h, unsigned n, uint64_t at)
{
	uint64_t left = at - counter(h), now = clock_now(h->loop);

	if (left > (UINT64_MAX / 2 - now) / TICK_NS) /* centuries away */
		timer_cancel(&h->timer[n].timer);
	else
		timer_set(&h->timer[n].timer, now + left * TICK_NS);
}

/* The comparator or the counter was changed: when will they be equal? */
static void arm(struct hpet *h, unsigned n)
{
	struct comparator *t = &h->t[n];
	uint64_t now = counter(h);

	if (!(h->config & CFG_ENABLE)) {
		timer_cancel(&h->timer[n].timer);
		return;
	}
	t->due = now + ((t->compare - now) & mask(t));
	wait_until(h, n, t->due);
}

static void arm_all(struct hpet *h)
{
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		arm(h, n);
}

static void next_period(struct hpet *h, unsigned n)
{
	struct comparator *t = &h->t[n];
	uint64_t now = counter(h), late, at;

	t->due += t->period;
	late = now - t->due;
	if (late > UINT64_MAX / 2) { /* not due yet */
		at = t->due;
	} else if (late > SECOND) { /* the guest was away: not worth making up for */
		t->due += (late / t->period + 1) * t->period;
		at = t->due;
	} else {
		at = now + t->period / 2;
	}
	t->compare = t->due & mask(t);
	if (at - now < MIN_PERIOD)
		at = now + MIN_PERIOD;
	wait_until(h, n, at);
}

static void fire(void *ctx)
{
	struct hpet_timer *ht = ctx;
	struct hpet *h = ht->h;
	struct comparator *t = &h->t[ht->n];

	if (!(h->config & CFG_ENABLE))
		return;
	if (counter(h) - t->due > UINT64_MAX / 2) { /* the counter was set back */
		arm(h, ht->n);
		return;
	}
	interrupt(h, ht->n);
	if ((t->config & TN_PERIODIC) && t->period)
		next_period(h, ht->n);
	else if (t->config & TN_32BIT) /* equal again after a turn */
		wait_until(h, ht->n, t->due += BIT(32));
}

/* ---- registers: 64 bits each, written whole ---- */

static uint64_t reg_read(const struct hpet *h, uint64_t reg)
{
	const struct comparator *t;
	unsigned n = (unsigned)((reg - TIMER0) / T_STRIDE);

	switch (reg) {
	case CAPS: return CAPABILITIES;
	case CONFIG: return h->config;
	case STATUS: return h->status;
	case COUNTER: return counter(h);
	default: break;
	}
	if (reg < TIMER0 || n >= HPET_TIMERS)
		return 0;
	t = &h->t[n];
	switch (reg % T_STRIDE) {
	case T_CONFIG:
		return t->config | TN_CAN_PERIODIC | TN_CAN_64 |
		       (uint64_t)h->cfg.routes << 32;
	case T_COMPARE: return t->compare;
	default: return 0;
	}
}

static void config_write(struct hpet *h, uint64_t val)
{
	uint64_t old = h->config, now = clock_now(h->loop) / TICK_NS;

	if ((val ^ old) & CFG_ENABLE)
		h->counter += val & CFG_ENABLE ? -now : now;
	if ((val ^ old) & CFG_LEGACY) {
		for (unsigned n = 0; n < 2; n++)
			drive(h, n, false);
		if (h->cfg.legacy_changed)
			h->cfg.legacy_changed(h->cfg.ctx, val & CFG_LEGACY);
	}
	h->config = val & (CFG_ENABLE | CFG_LEGACY);
	if ((val ^ old) & CFG_ENABLE)
		arm_all(h);
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		update_level(h, n);
}

static void status_write(struct hpet *h, uint64_t val)
{
	h->status &= ~val;
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		if (val & BIT(n))
			update_level(h, n);
}

static void counter_write(struct hpet *h, uint64_t val)
{
	h->counter = val;
	if (h->config & CFG_ENABLE)
		h->counter -= clock_now(h->loop) / TICK_NS;
	arm_all(h);
}

static void timer_config_write(struct hpet *h, unsigned n, uint64_t val)
{
	struct comparator *t = &h->t[n];
	uint64_t old = t->config;

	val &= TN_WRITABLE;
	if ((old ^ val) & (TN_ROUTE | TN_LEVEL | TN_ENABLE) && (old & TN_LEVEL))
		drive(h, n, false); /* leaves the old line low */
	t->config = val;
	if (val & TN_32BIT) {
		t->compare &= UINT32_MAX;
		t->period &= UINT32_MAX;
	}
	if (!(val & TN_LEVEL))
		h->status &= ~BIT(n);
	update_level(h, n);
	if ((old ^ val) & (TN_32BIT | TN_PERIODIC))
		arm(h, n);
}

static void compare_write(struct hpet *h, unsigned n, uint64_t val)
{
	struct comparator *t = &h->t[n];

	val &= mask(t);
	/* Periodic: the write sets the period, and the comparator only when "set value" is on. */
	if (!(t->config & TN_PERIODIC) || (t->config & TN_SET_VALUE))
		t->compare = val;
	if (t->config & TN_PERIODIC)
		t->period = val;
	t->config &= ~(uint64_t)TN_SET_VALUE;
	arm(h, n);
}

static void reg_write(struct hpet *h, uint64_t reg, uint64_t val)
{
	unsigned n = (unsigned)((reg - TIMER0) / T_STRIDE);

	switch (reg) {
	case CONFIG: config_write(h, val); return;
	case STATUS: status_write(h, val); return;
	case COUNTER: counter_write(h, val); return;
	default: break;
	}
	if (reg < TIMER0 || n >= HPET_TIMERS)
		return;
	if (reg % T_STRIDE == T_CONFIG)
		timer_config_write(h, n, val);
	else if (reg % T_STRIDE == T_COMPARE)
		compare_write(h, n, val);
}

static uint64_t hpet_read(void *dev, uint64_t off, unsigned size)
{
	uint64_t v = reg_read(dev, off & ~7ull);

	return size == 8 ? v : (uint32_t)(v >> 8 * (off & 4));
}

/*
 * Half a comparator: with "set value" the other half follows and must not be taken for the next
 * write, so only the half that is written last ends it.
 */
static void half_write(struct hpet *h, uint64_t reg, bool high, uint32_t val)
{
	unsigned n = (unsigned)((reg - TIMER0) / T_STRIDE);
	uint64_t old = reg_read(h, reg);
	bool comparator =
		reg >= TIMER0 && n < HPET_TIMERS && reg % T_STRIDE == T_COMPARE;
	bool set;

	if (!comparator || !(h->t[n].config & TN_PERIODIC)) {
		if (reg == STATUS) /* ones clear: the other half has none */
			old = 0;
		reg_write(h, reg,
			  high ? (old & UINT32_MAX) | (uint64_t)val << 32
			       : (old & ~(uint64_t)UINT32_MAX) | val);
		return;
	}
	if (h->t[n].config & TN_32BIT) {
		if (!high)
			compare_write(h, n, val);
		return;
	}
	set = h->t[n].config & TN_SET_VALUE;
	if (!high) {
		h->written = val;
		compare_write(h, n, (h->t[n].period & ~(uint64_t)UINT32_MAX) | val);
		if (set) /* stays for the upper half */
			h->t[n].config |= TN_SET_VALUE;
	} else {
		compare_write(h, n, (uint64_t)val << 32 | h->written);
	}
}

static void hpet_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	if (size == 8)
		reg_write(dev, off, val);
	else
		half_write(dev, off & ~7ull, off & 4, (uint32_t)val);
}

static const struct io_ops hpet_ops = {
	.read = hpet_read, .write = hpet_write, .min = 4, .max = 8};

/* ---- state ---- */

#define COMPARATOR_STATE(n)                                                \
	STATE(struct hpet, t[n].config), STATE(struct hpet, t[n].compare), \
		STATE(struct hpet, t[n].period), STATE(struct hpet, t[n].due)

static const struct state_field fields[] = {
	COMPARATOR_STATE(0),         COMPARATOR_STATE(1),
	COMPARATOR_STATE(2),         STATE(struct hpet, config),
	STATE(struct hpet, status),  STATE(struct hpet, counter),
	STATE(struct hpet, written), {0},
};

static int loaded(void *dev)
{
	struct hpet *h = dev;

	h->config &= CFG_ENABLE | CFG_LEGACY;
	h->status &= BIT(HPET_TIMERS) - 1;
	if (h->cfg.legacy_changed)
		h->cfg.legacy_changed(h->cfg.ctx, h->config & CFG_LEGACY);
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		h->t[n].config &= TN_WRITABLE;
		h->t[n].compare &= mask(&h->t[n]);
		h->t[n].period &= mask(&h->t[n]);
		if (h->config & CFG_ENABLE)
			wait_until(h, n, h->t[n].due);
		else
			timer_cancel(&h->timer[n].timer);
	}
	return 0;
}

/* ---- public ---- */

void hpet_reset(struct hpet *h)
{
	if (h->config & CFG_LEGACY && h->cfg.legacy_changed)
		h->cfg.legacy_changed(h->cfg.ctx, false);
	h->config = 0;
	h->status = 0;
	h->counter = 0;
	h->written = 0;
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		update_level(h, n);
		h->t[n] = (struct comparator){.compare = UINT64_MAX};
		timer_cancel(&h->timer[n].timer);
	}
}

void hpet_free(struct hpet *h)
{
	if (!h)
		return;
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		timer_cancel(&h->timer[n].timer);
	bus_unmap(h->mmio, &h->io);
	free(h);
}

struct hpet *hpet_new(const struct vm_env *env, const struct hpet_cfg *cfg,
		      struct err *err)
{
	struct hpet *h = NEW(struct hpet);

	if (!h) {
		err_set(err, ENOMEM, "no memory for the HPET");
		return NULL;
	}
	h->mmio = env->mmio;
	h->loop = env->loop;
	h->cfg = *cfg;
	h->io = (struct io_range){.ops = &hpet_ops, .dev = h, .name = "hpet"};
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		h->timer[n].h = h;
		h->timer[n].n = n;
		timer_init(&h->timer[n].timer, env->loop, fire, &h->timer[n]);
	}
	hpet_reset(h);
	if (bus_map(env->mmio, &h->io, HPET_BASE, 0x400)) {
		err_set(err, EEXIST, "the HPET's address is taken");
		hpet_free(h);
		return NULL;
	}
	state_add(env->state, "hpet", -1, h, fields, NULL, loaded);
	return h;
}

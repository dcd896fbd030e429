/*
 * dev/i8254.c - the 8254 interval timer of a PC, with the speaker's port 61h.
 *
 * Specification: Intel 8254 data sheet (231164); port 61h: ICH9 data sheet 13.7.1. Threads: machine
 * lock held.
 *
 * Nothing counts here: each counter knows the tick (1.193182 MHz, of the guest's clock) at which its
 * count was loaded, and everything else follows from the time now. Only counter 0 has a timer, for
 * the rising edges of its output. A late tick is made up for: edges that are due follow at twice the
 * rate until the guest has had all of them, unless it is more than a second behind.
 */
#include "dev/i8254.h"

#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"

#define PIT_HZ        1193182ull
#define NEVER         UINT64_MAX
#define MIN_PERIOD_NS 20000 /* faster edges than this are spread out */
#define REFRESH_NS    15085 /* port 61h bit 4 toggles with the memory refresh */

enum { RW_LATCH, RW_LOW, RW_HIGH, RW_BOTH };

struct counter {
	uint8_t mode, bcd, rw; /* of the control word */
	uint8_t gate;
	uint8_t counting;            /* a count was written since the control word */
	uint8_t triggered;           /* modes 1, 5: the gate went up since then */
	uint8_t write_low, have_low; /* RW_BOTH: the first byte waits for the second */
	uint8_t read_high;           /* RW_BOTH: the next read gives the high byte */
	uint8_t latched, status_latched, status;
	uint16_t latch;
	uint32_t count;   /* 1-65536 (10000 in BCD) */
	uint32_t next;    /* modes 2, 3: written while counting; 0: none */
	uint64_t next_at; /* the tick at which it is loaded */
	uint64_t start;   /* the tick at which `count` was loaded */
	uint64_t held;    /* gate low in modes 0, 4: ticks gone when it fell */
};

struct i8254 {
	struct counter c[3];
	uint8_t port61;
	uint8_t connected;
	uint64_t edge; /* counter 0: tick of the next rising edge to deliver; NEVER */
	struct irq irq;
	struct timer timer;
	struct loop *loop; /* borrowed */
	struct bus *pio;   /* borrowed */
	struct io_range io, io61;
};

/* ---- time ---- */

static uint64_t tick_now(const struct i8254 *pit)
{
	return clock_ticks(pit->loop, PIT_HZ);
}

/* The first nanosecond of tick `t`. */
static uint64_t tick_to_ns(uint64_t t)
{
	unsigned __int128 ns =
		((unsigned __int128)t * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ;

	return ns > NEVER ? NEVER : (uint64_t)ns;
}

/* Loads the count that waited for the end of the period. */
static void settle(struct counter *c, uint64_t t)
{
	if (!c->next || t < c->next_at)
		return;
	c->start = c->next_at;
	/* Mode 3 loads at the end of a half too: then the low half of the new one begins. */
	if (c->mode == 3 && c->held)
		c->start -= min_u64((c->next + 1) / 2, c->start);
	c->count = c->next;
	c->next = 0;
	c->held = 0;
}

/* Ticks since the count was loaded, as the gate let them count. */
static uint64_t elapsed(const struct counter *c, uint64_t t)
{
	if (!c->gate && (c->mode == 0 || c->mode == 4))
		return c->held;
	return t > c->start ? t - c->start : 0;
}

static bool is_running(const struct counter *c)
{
	return c->counting && (c->triggered || (c->mode != 1 && c->mode != 5));
}

/* In modes 0, 1, 4, 5 the first clock after the count or the trigger only loads it. */
static bool output(const struct counter *c, uint64_t t)
{
	uint64_t e = elapsed(c, t);

	switch (c->mode) {
	case 0: return is_running(c) && e > c->count;
	case 1: return !is_running(c) || e == 0 || e > c->count;
	case 2: return !is_running(c) || !c->gate || e % c->count != c->count - 1;
	case 3: return !is_running(c) || !c->gate || e % c->count < (c->count + 1) / 2;
	default: return !is_running(c) || e != c->count + 1ull; /* 4, 5 */
	}
}

/* The counting element, as a latch command sees it. */
static uint16_t value(const struct counter *c, uint64_t t)
{
	uint64_t e = elapsed(c, t);
	uint32_t full = c->bcd ? 10000 : 65536, v;

	if (!is_running(c))
		v = c->count;
	else if (c->mode == 2)
		v = c->gate ? c->count - (uint32_t)(e % c->count) : c->count;
	else if (c->mode == 3) {
		/* Counts down by two in each half. */
		uint32_t at = (uint32_t)(e % c->count), half = (c->count + 1) / 2;

		v = (c->count & ~1u) - 2 * (at < half ? at : at - half);
		if (!c->gate)
			v = c->count;
	} else {
		v = c->count + full - (uint32_t)((e ? e - 1 : 0) % full);
	}
	v %= full;
	if (c->bcd)
		v = v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12;
	return (uint16_t)v;
}

/* ---- counter 0's interrupt ---- */

/* The tick of the first rising edge of the output after tick t. */
static uint64_t next_edge(const struct counter *c, uint64_t t)
{
	uint64_t e = elapsed(c, t), at;

	if (!is_running(c))
		return NEVER;
	switch (c->mode) {
	case 0: at = c->start + c->count + 1; return at > t ? at : NEVER;
	case 2:
	case 3:
		at = c->start + (e / c->count + 1) * c->count;
		if (c->next && at > c->next_at)
			at = c->next_at + (c->held ? c->next / 2 : 0);
		return at;
	case 4: at = c->start + c->count + 2; return at > t ? at : NEVER;
	default: return NEVER; /* 1, 5: counter 0's gate never moves */
	}
}

static void arm(struct i8254 *pit)
{
	if (pit->edge == NEVER)
		timer_cancel(&pit->timer);
	else
		timer_set(&pit->timer, tick_to_ns(pit->edge));
}

/* The count or mode of counter 0 changed. */
static void rearm(struct i8254 *pit)
{
	pit->edge = next_edge(&pit->c[0], tick_now(pit));
	arm(pit);
}

static void raise_irq(struct i8254 *pit)
{
	if (!pit->connected)
		return;
	irq_set(&pit->irq, false);
	irq_set(&pit->irq, true);
}

static void fire(void *ctx)
{
	struct i8254 *pit = ctx;
	struct counter *c = &pit->c[0];
	uint64_t now = clock_now(pit->loop), t = tick_now(pit), due;

	if (pit->edge == NEVER || t < pit->edge) {
		arm(pit);
		return;
	}
	settle(c, pit->edge);
	raise_irq(pit);
	if (t - pit->edge > PIT_HZ) /* the guest was away: not worth making up for */
		settle(c, t);
	pit->edge = next_edge(c, t - pit->edge > PIT_HZ ? t : pit->edge);
	if (pit->edge == NEVER)
		return;
	due = tick_to_ns(pit->edge);
	if (due <= now)
		due = now + tick_to_ns(c->count) / 2;
	timer_set(&pit->timer, max_u64(due, now + MIN_PERIOD_NS));
}

/* ---- registers ---- */

static unsigned index_of(const struct i8254 *pit, const struct counter *c)
{
	return (unsigned)(c - pit->c);
}

/* A whole count was written. */
static void load_count(struct i8254 *pit, struct counter *c, uint16_t raw)
{
	uint32_t full = c->bcd ? 10000 : 65536, v = raw;
	uint64_t t = tick_now(pit);

	if (c->bcd)
		v = (raw & 15) + (raw >> 4 & 15) * 10 + (raw >> 8 & 15) * 100 +
		    (raw >> 12) * 1000;
	v = v % full ? v % full : full;
	if (v == 1 && (c->mode == 2 || c->mode == 3))
		v = 2; /* 1 is not allowed there */
	settle(c, t);
	if (is_running(c) && (c->mode == 2 || c->mode == 3) && c->gate) {
		uint64_t e = elapsed(c, t) % c->count, half = (c->count + 1) / 2;
		bool high = c->mode == 3 && e < half;

		c->next = v;
		c->next_at = t - e + (high ? half : c->count);
		c->held = high; /* see settle() */
	} else if (c->counting && (c->mode == 1 || c->mode == 5)) {
		c->next = v; /* counts from the next trigger on */
		c->next_at = NEVER;
	} else {
		c->count = v;
		c->next = 0;
		c->start = t;
		c->held = 0;
		c->counting = 1;
	}
	if (index_of(pit, c) == 0) {
		if (c->mode == 0 && pit->connected)
			irq_set(&pit->irq, false);
		rearm(pit);
	}
}

static uint8_t status(const struct counter *c, uint64_t t)
{
	return (uint8_t)(output(c, t) << 7 | (!c->counting || c->next) << 6 |
			 c->rw << 4 | c->mode << 1 | c->bcd);
}

static void latch_count(struct counter *c, uint64_t t)
{
	if (c->latched)
		return; /* the first latch holds until it is read */
	c->latch = value(c, t);
	c->latched = c->rw == RW_BOTH ? 2 : 1;
}

static void read_back(struct i8254 *pit, uint8_t val, uint64_t t)
{
	for (unsigned n = 0; n < 3; n++) {
		struct counter *c = &pit->c[n];

		if (!(val & (2u << n)))
			continue;
		settle(c, t);
		if (!(val & 0x20))
			latch_count(c, t);
		if (!(val & 0x10) && !c->status_latched) {
			c->status = status(c, t);
			c->status_latched = 1;
		}
	}
}

static void control_write(struct i8254 *pit, uint8_t val)
{
	unsigned n = val >> 6, mode = val >> 1 & 7;
	uint64_t t = tick_now(pit);
	struct counter *c;

	if (n == 3) {
		read_back(pit, val, t);
		return;
	}
	c = &pit->c[n];
	settle(c, t);
	if ((val >> 4 & 3) == RW_LATCH) {
		latch_count(c, t);
		return;
	}
	*c = (struct counter){.mode = (uint8_t)(mode > 5 ? mode - 4 : mode),
			      .bcd = val & 1,
			      .rw = val >> 4 & 3,
			      .gate = c->gate,
			      .count = c->count,
			      .start = t};
	if (n == 0) {
		rearm(pit);
		if (pit->connected) /* the output's first level: mode 0 starts low */
			irq_set(&pit->irq, c->mode != 0);
	}
}

static void count_write(struct i8254 *pit, struct counter *c, uint8_t val)
{
	switch (c->rw) {
	case RW_LOW: load_count(pit, c, val); break;
	case RW_HIGH: load_count(pit, c, (uint16_t)(val << 8)); break;
	default:
		if (!c->have_low) {
			c->write_low = val;
			c->have_low = 1;
			if (c->mode == 0)
				c->counting = 0; /* stops until the second byte */
		} else {
			c->have_low = 0;
			load_count(pit, c, (uint16_t)(val << 8 | c->write_low));
		}
		break;
	}
}

static uint8_t count_read(struct i8254 *pit, struct counter *c)
{
	uint64_t t = tick_now(pit);
	uint16_t v;
	bool high = c->rw == RW_HIGH;

	settle(c, t);
	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	v = c->latched ? c->latch : value(c, t);
	if (c->latched)
		c->latched--;
	if (c->rw == RW_BOTH) {
		high = c->read_high;
		c->read_high = !high;
	}
	return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t pit_read(void *dev, uint64_t off, unsigned size)
{
	struct i8254 *pit = dev;

	(void)size;
	return off == 3 ? 0xff : count_read(pit, &pit->c[off]);
}

static void pit_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct i8254 *pit = dev;

	(void)size;
	if (off == 3)
		control_write(pit, (uint8_t)val);
	else
		count_write(pit, &pit->c[off], (uint8_t)val);
}

/* ---- port 61h ---- */

static void set_gate(struct counter *c, bool gate, uint64_t t)
{
	if (c->gate == gate)
		return;
	settle(c, t);
	if (!gate) {
		if (c->mode == 0 || c->mode == 4)
			c->held = elapsed(c, t);
		c->gate = 0;
		return;
	}
	c->gate = 1;
	switch (c->mode) {
	case 0:
	case 4: c->start = t - min_u64(c->held, t); break;
	default: /* the rising edge triggers, or starts a new period */
		if (c->next)
			c->count = c->next;
		c->next = 0;
		c->held = 0;
		c->start = t;
		c->triggered = 1;
		break;
	}
}

static uint64_t port61_read(void *dev, uint64_t off, unsigned size)
{
	struct i8254 *pit = dev;
	uint64_t t = tick_now(pit);
	bool refresh = clock_now(pit->loop) / REFRESH_NS & 1;

	(void)off;
	(void)size;
	settle(&pit->c[2], t);
	return pit->port61 | refresh << 4 | output(&pit->c[2], t) << 5;
}

static void port61_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct i8254 *pit = dev;

	(void)off;
	(void)size;
	pit->port61 = val & 0x0f;
	set_gate(&pit->c[2], val & 1, tick_now(pit));
}

static const struct io_ops pit_ops = {
	.read = pit_read, .write = pit_write, .min = 1, .max = 1};
static const struct io_ops port61_ops = {
	.read = port61_read, .write = port61_write, .min = 1, .max = 1};

/* ---- state ---- */

#define COUNTER_STATE(n)                                                            \
	STATE(struct i8254, c[n].mode), STATE(struct i8254, c[n].bcd),              \
		STATE(struct i8254, c[n].rw), STATE(struct i8254, c[n].gate),       \
		STATE(struct i8254, c[n].counting),                                 \
		STATE(struct i8254, c[n].triggered),                                \
		STATE(struct i8254, c[n].write_low),                                \
		STATE(struct i8254, c[n].have_low),                                 \
		STATE(struct i8254, c[n].read_high),                                \
		STATE(struct i8254, c[n].latched),                                  \
		STATE(struct i8254, c[n].status_latched),                           \
		STATE(struct i8254, c[n].status), STATE(struct i8254, c[n].latch),  \
		STATE(struct i8254, c[n].count), STATE(struct i8254, c[n].next),    \
		STATE(struct i8254, c[n].next_at), STATE(struct i8254, c[n].start), \
		STATE(struct i8254, c[n].held)

static const struct state_field fields[] = {
	COUNTER_STATE(0),
	COUNTER_STATE(1),
	COUNTER_STATE(2),
	STATE(struct i8254, port61),
	STATE(struct i8254, connected),
	STATE(struct i8254, edge),
	{0},
};

#define MAX_TICK (UINT64_MAX / 4)

static int loaded(void *dev)
{
	struct i8254 *pit = dev;

	for (unsigned n = 0; n < 3; n++) {
		const struct counter *c = &pit->c[n];

		if (c->mode > 5 || c->rw > RW_BOTH || c->bcd > 1 || c->gate > 1 ||
		    c->latched > 2 || c->count < 1 || c->count > 65536 ||
		    c->next > 65536 || c->start > MAX_TICK || c->held > MAX_TICK)
			return -EINVAL;
		if ((c->mode == 2 || c->mode == 3) && (c->count < 2 || c->next == 1))
			return -EINVAL;
	}
	arm(pit);
	return 0;
}

/* ---- public ---- */

void i8254_connect(struct i8254 *pit, bool connected)
{
	pit->connected = connected;
}

void i8254_reset(struct i8254 *pit)
{
	for (unsigned n = 0; n < 3; n++)
		pit->c[n] = (struct counter){
			.mode = 3, .rw = RW_BOTH, .gate = n < 2, .count = 65536};
	pit->port61 = 0;
	pit->edge = NEVER;
	pit->connected = 1;
	timer_cancel(&pit->timer);
}

void i8254_free(struct i8254 *pit)
{
	if (!pit)
		return;
	timer_cancel(&pit->timer);
	bus_unmap(pit->pio, &pit->io);
	bus_unmap(pit->pio, &pit->io61);
	free(pit);
}

struct i8254 *i8254_new(const struct vm_env *env, const struct irq *irq,
			struct err *err)
{
	struct i8254 *pit = NEW(struct i8254);

	if (!pit) {
		err_set(err, ENOMEM, "no memory for the interval timer");
		return NULL;
	}
	pit->pio = env->pio;
	pit->loop = env->loop;
	pit->irq = *irq;
	pit->io = (struct io_range){.ops = &pit_ops, .dev = pit, .name = "i8254"};
	pit->io61 = (struct io_range){.ops = &port61_ops, .dev = pit, .name = "port61"};
	timer_init(&pit->timer, env->loop, fire, pit);
	i8254_reset(pit);
	if (bus_map(env->pio, &pit->io, 0x40, 4) ||
	    bus_map(env->pio, &pit->io61, 0x61, 1)) {
		err_set(err, EEXIST, "the interval timer's ports are taken");
		i8254_free(pit);
		return NULL;
	}
	state_add(env->state, "i8254", -1, pit, fields, NULL, loaded);
	return pit;
}

/*
 * dev/i8259.c - the pair of 8259A interrupt controllers of a PC, with the ELCR.
 *
 * Specification: Intel 8259A data sheet (231468); ELCR: 82371SB (PIIX3) data sheet. Not modelled: the
 * MCS-80 mode. Threads: machine lock held, but for i8259_ready().
 */
#include "dev/i8259.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"

enum { MASTER, SLAVE, CHIPS };
#define CASCADE 2 /* the master's input that the slave drives */

/* ICW1 */
enum { ICW1_ICW4 = 1, ICW1_SINGLE = 2, ICW1_LEVEL = 8, ICW1_INIT = 0x10 };
/* ICW4 */
enum { ICW4_AUTO_EOI = 2, ICW4_NESTED = 0x10 };
/* OCW3 */
enum { OCW3_READ_ISR = 1, OCW3_READ = 2, OCW3_POLL = 4, OCW3_OCW3 = 8 };
enum { OCW3_SPECIAL = 0x20, OCW3_SPECIAL_SET = 0x40 };

/* Which command word the data port expects next. */
enum { READY, WANT_ICW2, WANT_ICW3, WANT_ICW4 };

struct chip {
	uint8_t lines; /* levels of the inputs */
	uint8_t irr, imr, isr;
	uint8_t base;   /* vector of input 0 */
	uint8_t lowest; /* the input of lowest priority */
	uint8_t step;   /* READY, WANT_... */
	uint8_t icw1, icw4;
	uint8_t read_isr, poll, special_mask, rotate;
	uint8_t elcr; /* 1: the input is level-triggered */
};

struct i8259 {
	struct chip chip[CHIPS];
	atomic_bool intr;
	struct irq out;
	struct bus *pio; /* borrowed */
	struct io_range io[CHIPS], io_elcr;
};

/* Inputs that can be level-triggered: not the timer, keyboard, cascade, RTC, FPU. */
static const uint8_t elcr_mask[CHIPS] = {0xf8, 0xde};

/* ---- priorities ---- */

/* The input of `set` with the highest priority, or 8. */
static unsigned first(const struct chip *c, uint8_t set)
{
	for (unsigned i = 1; i <= 8; i++) {
		unsigned n = (c->lowest + i) & 7;

		if (set & (1u << n))
			return n;
	}
	return 8;
}

/* Place of input n in the order, 0 = highest. */
static unsigned rank(const struct chip *c, unsigned n)
{
	return n == 8 ? 8 : (n - c->lowest - 1) & 7;
}

/* The input to be served now, or 8. */
static unsigned pending(const struct chip *c, bool master)
{
	uint8_t busy = c->isr;
	unsigned want = first(c, c->irr & ~c->imr), now;

	if (want == 8)
		return 8;
	if (c->special_mask)
		busy &= ~c->imr;
	/* Special fully nested: the slave may interrupt its own service routine. */
	if (master && (c->icw4 & ICW4_NESTED) && want == CASCADE)
		busy &= ~(1u << CASCADE);
	now = first(c, busy);
	return rank(c, want) < rank(c, now) ? want : 8;
}

/* Inputs that are level-triggered: requested as long as the line is up. */
static void follow_levels(struct chip *c)
{
	uint8_t level = c->icw1 & ICW1_LEVEL ? 0xff : c->elcr;

	c->irr = (c->irr & ~level) | (c->lines & level);
}

static void input(struct chip *c, unsigned n, bool level)
{
	uint8_t bit = (uint8_t)(1u << n);

	if (level && !(c->lines & bit))
		c->irr |= bit;
	c->lines = level ? c->lines | bit : c->lines & ~bit;
}

/* The slave's output into the master, and the master's to the processor. */
static void update(struct i8259 *pic)
{
	struct chip *m = &pic->chip[MASTER], *s = &pic->chip[SLAVE];
	bool out;

	follow_levels(m);
	follow_levels(s);
	if (pending(s, false) != 8) {
		input(m, CASCADE, true);
		m->irr |= 1u << CASCADE;
	} else {
		input(m, CASCADE, false);
		m->irr &= ~(1u << CASCADE);
	}
	out = pending(m, true) != 8;
	if (atomic_exchange(&pic->intr, out) != out)
		irq_set(&pic->out, out);
}

static void set_line(void *ctx, unsigned n, bool level)
{
	struct i8259 *pic = ctx;

	if (n == CASCADE || n >= 16)
		return;
	input(&pic->chip[n / 8], n % 8, level);
	update(pic);
}

/* ---- acknowledgement ---- */

static void acknowledge(struct chip *c, unsigned n)
{
	uint8_t bit = (uint8_t)(1u << n);

	if (!((c->elcr & bit) || (c->icw1 & ICW1_LEVEL)))
		c->irr &= ~bit;
	if (!(c->icw4 & ICW4_AUTO_EOI))
		c->isr |= bit;
	else if (c->rotate)
		c->lowest = (uint8_t)n;
}

/* The vector of the chip's interrupt; input 7's when there is none (spurious). */
static int chip_take(struct chip *c, bool master)
{
	unsigned n = pending(c, master);

	if (n == 8)
		return c->base + 7;
	acknowledge(c, n);
	return c->base + (int)n;
}

int i8259_take(struct i8259 *pic)
{
	struct chip *m = &pic->chip[MASTER];
	unsigned n = pending(m, true);
	int vector;

	if (n == 8)
		return -1;
	acknowledge(m, n);
	vector = n == CASCADE ? chip_take(&pic->chip[SLAVE], false) : m->base + (int)n;
	update(pic);
	return vector;
}

bool i8259_ready(const struct i8259 *pic)
{
	return atomic_load_explicit(&pic->intr, memory_order_acquire);
}

/* ---- registers ---- */

static void icw1(struct chip *c, uint8_t val)
{
	/* The edge detectors are reset: a line must go up again. */
	c->irr = 0;
	c->imr = 0;
	c->isr = 0;
	c->lowest = 7;
	c->special_mask = 0;
	c->read_isr = 0;
	c->poll = 0;
	c->rotate = 0;
	c->icw1 = val;
	if (!(val & ICW1_ICW4))
		c->icw4 = 0;
	c->step = WANT_ICW2;
}

/* OCW2: end of interrupt and rotation, by bits R, SL, EOI. */
static void ocw2(struct chip *c, uint8_t val)
{
	unsigned n = val & 7;

	switch (val >> 5) {
	case 0: c->rotate = 0; break;
	case 4: c->rotate = 1; break;
	case 1: /* non-specific EOI */
	case 5: /* and rotate */
		n = first(c, c->special_mask ? c->isr & ~c->imr : c->isr);
		if (n == 8)
			break;
		c->isr &= ~(1u << n);
		if (val >> 5 == 5)
			c->lowest = (uint8_t)n;
		break;
	case 7: c->lowest = (uint8_t)n; /* fall through */
	case 3: c->isr &= ~(1u << n); break;
	case 6: c->lowest = (uint8_t)n; break;
	default: break; /* 2: no operation */
	}
}

static void ocw3(struct chip *c, uint8_t val)
{
	if (val & OCW3_SPECIAL_SET)
		c->special_mask = !!(val & OCW3_SPECIAL);
	if (val & OCW3_POLL)
		c->poll = 1;
	else if (val & OCW3_READ)
		c->read_isr = val & OCW3_READ_ISR;
}

static void data_write(struct chip *c, uint8_t val)
{
	switch (c->step) {
	case WANT_ICW2:
		c->base = val & 0xf8;
		c->step = c->icw1 & ICW1_SINGLE ? WANT_ICW4 : WANT_ICW3;
		if (c->step == WANT_ICW4 && !(c->icw1 & ICW1_ICW4))
			c->step = READY;
		break;
	case WANT_ICW3: /* the wiring is fixed */
		c->step = c->icw1 & ICW1_ICW4 ? WANT_ICW4 : READY;
		break;
	case WANT_ICW4:
		c->icw4 = val;
		c->step = READY;
		break;
	default: c->imr = val; break;
	}
}

static void pic_write(struct i8259 *pic, unsigned n, uint64_t off, uint8_t val)
{
	struct chip *c = &pic->chip[n];

	if (off & 1)
		data_write(c, val);
	else if (val & ICW1_INIT)
		icw1(c, val);
	else if (val & OCW3_OCW3)
		ocw3(c, val);
	else
		ocw2(c, val);
	update(pic);
}

/* The read after a poll command acknowledges: bit 7 and the input's number. */
static uint8_t poll_read(struct i8259 *pic, unsigned n)
{
	struct chip *c = &pic->chip[n];
	unsigned in = pending(c, n == MASTER);

	c->poll = 0;
	if (in == 8)
		return 0;
	acknowledge(c, in);
	update(pic);
	return (uint8_t)(0x80 | in);
}

static uint8_t pic_read(struct i8259 *pic, unsigned n, uint64_t off)
{
	struct chip *c = &pic->chip[n];

	if (c->poll)
		return poll_read(pic, n);
	if (off & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *dev, uint64_t off, unsigned size)
{
	(void)size;
	return pic_read(dev, MASTER, off);
}

static uint64_t slave_read(void *dev, uint64_t off, unsigned size)
{
	(void)size;
	return pic_read(dev, SLAVE, off);
}

static void master_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)size;
	pic_write(dev, MASTER, off, (uint8_t)val);
}

static void slave_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	(void)size;
	pic_write(dev, SLAVE, off, (uint8_t)val);
}

static uint64_t elcr_read(void *dev, uint64_t off, unsigned size)
{
	struct i8259 *pic = dev;

	(void)size;
	return pic->chip[off & 1].elcr;
}

static void elcr_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct i8259 *pic = dev;

	(void)size;
	pic->chip[off & 1].elcr = (uint8_t)val & elcr_mask[off & 1];
	update(pic);
}

static const struct io_ops io_ops[CHIPS] = {
	{.read = master_read, .write = master_write, .min = 1, .max = 1},
	{.read = slave_read, .write = slave_write, .min = 1, .max = 1},
};

static const struct io_ops elcr_ops = {
	.read = elcr_read, .write = elcr_write, .min = 1, .max = 1};

/* ---- state ---- */

#define CHIP_STATE(n)                                                                 \
	STATE(struct i8259, chip[n].lines), STATE(struct i8259, chip[n].irr),         \
		STATE(struct i8259, chip[n].imr), STATE(struct i8259, chip[n].isr),   \
		STATE(struct i8259, chip[n].base),                                    \
		STATE(struct i8259, chip[n].lowest),                                  \
		STATE(struct i8259, chip[n].step), STATE(struct i8259, chip[n].icw1), \
		STATE(struct i8259, chip[n].icw4),                                    \
		STATE(struct i8259, chip[n].read_isr),                                \
		STATE(struct i8259, chip[n].poll),                                    \
		STATE(struct i8259, chip[n].special_mask),                            \
		STATE(struct i8259, chip[n].rotate), STATE(struct i8259, chip[n].elcr)

static const struct state_field fields[] = {CHIP_STATE(0), CHIP_STATE(1), {0}};

static int loaded(void *dev)
{
	struct i8259 *pic = dev;

	for (unsigned n = 0; n < CHIPS; n++) {
		struct chip *c = &pic->chip[n];

		if (c->lowest > 7 || c->step > WANT_ICW4 || (c->base & 7) ||
		    (c->elcr & ~elcr_mask[n]))
			return -EINVAL;
	}
	update(pic);
	irq_set(&pic->out, atomic_load(&pic->intr)); /* the engine's is new */
	return 0;
}

/* ---- public ---- */

struct irq i8259_line(struct i8259 *pic, unsigned n)
{
	return (struct irq){set_line, pic, n};
}

void i8259_reset(struct i8259 *pic)
{
	for (unsigned n = 0; n < CHIPS; n++) {
		uint8_t lines = pic->chip[n].lines;

		pic->chip[n] = (struct chip){.lines = lines, .lowest = 7};
	}
	update(pic);
}

void i8259_free(struct i8259 *pic)
{
	if (!pic)
		return;
	bus_unmap(pic->pio, &pic->io[MASTER]);
	bus_unmap(pic->pio, &pic->io[SLAVE]);
	bus_unmap(pic->pio, &pic->io_elcr);
	free(pic);
}

struct i8259 *i8259_new(const struct vm_env *env, const struct irq *intr,
			struct err *err)
{
	struct i8259 *pic = NEW(struct i8259);

	if (!pic) {
		err_set(err, ENOMEM, "no memory for the interrupt controller");
		return NULL;
	}
	pic->pio = env->pio;
	pic->out = *intr;
	for (unsigned n = 0; n < CHIPS; n++)
		pic->io[n] = (struct io_range){
			.ops = &io_ops[n], .dev = pic, .name = "i8259"};
	pic->io_elcr = (struct io_range){.ops = &elcr_ops, .dev = pic, .name = "elcr"};
	i8259_reset(pic);
	if (bus_map(env->pio, &pic->io[MASTER], 0x20, 2) ||
	    bus_map(env->pio, &pic->io[SLAVE], 0xa0, 2) ||
	    bus_map(env->pio, &pic->io_elcr, 0x4d0, 2)) {
		err_set(err, EEXIST, "the interrupt controller's ports are taken");
		i8259_free(pic);
		return NULL;
	}
	state_add(env->state, "i8259", -1, pic, fields, NULL, loaded);
	return pic;
}

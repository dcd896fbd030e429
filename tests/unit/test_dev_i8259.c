/* tests/unit/test_dev_i8259.c - the interrupt controllers against the 8259A data sheet. */
#include "machine.h"

#include "dev/i8259.h"

#define INTR 0 /* the machine's line that INT drives */

struct fixture {
	struct machine m;
	struct i8259 *pic;
	struct irq in[16];
};

static void init_chip(struct machine *m, unsigned port, unsigned base, unsigned icw3,
		      unsigned icw4)
{
	outb(m, port, 0x11);
	outb(m, port + 1, base);
	outb(m, port + 1, icw3);
	outb(m, port + 1, icw4);
	outb(m, port + 1, 0); /* nothing masked */
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct irq intr;

	machine_init(&f->m);
	intr = machine_irq(&f->m, INTR);
	f->pic = i8259_new(&f->m.env, &intr, NULL);
	assert_non_null(f->pic);
	for (unsigned n = 0; n < 16; n++)
		f->in[n] = i8259_line(f->pic, n);
	init_chip(&f->m, 0x20, 0x30, 4, 1);
	init_chip(&f->m, 0xa0, 0x38, 2, 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	i8259_free(f->pic);
	machine_fini(&f->m);
	free(f);
	return 0;
}

static void test_edge(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(i8259_take(f->pic), -1);
	irq_set(&f->in[4], true);
	assert_true(f->m.line[INTR]);
	assert_true(i8259_ready(f->pic));
	assert_int_equal(i8259_take(f->pic), 0x34);
	assert_false(f->m.line[INTR]);
	outb(&f->m, 0x20, 0x20); /* the line is still high: no second one */
	assert_int_equal(i8259_take(f->pic), -1);
	irq_pulse(&f->in[4]);
	assert_int_equal(i8259_take(f->pic), -1); /* it was high already */
	irq_pulse(&f->in[4]);
	assert_int_equal(i8259_take(f->pic), 0x34);
}

static void test_priority(void **state)
{
	struct fixture *f = *state;

	irq_pulse(&f->in[5]);
	assert_int_equal(i8259_take(f->pic), 0x35);
	irq_pulse(&f->in[6]); /* lower: waits */
	assert_int_equal(i8259_take(f->pic), -1);
	irq_pulse(&f->in[1]); /* higher: nests */
	assert_int_equal(i8259_take(f->pic), 0x31);
	outb(&f->m, 0x20, 0x0b);
	assert_int_equal(inb(&f->m, 0x20), 0x22); /* ISR: 1 and 5 */
	outb(&f->m, 0x20, 0x0a);
	assert_int_equal(inb(&f->m, 0x20), 0x40); /* IRR: 6 */
	outb(&f->m, 0x20, 0x20);                  /* ends 1 */
	assert_int_equal(i8259_take(f->pic), -1);
	outb(&f->m, 0x20, 0x65); /* specific: ends 5 */
	assert_int_equal(i8259_take(f->pic), 0x36);
}

static void test_cascade(void **state)
{
	struct fixture *f = *state;

	irq_pulse(&f->in[12]);
	irq_pulse(&f->in[9]);
	assert_int_equal(i8259_take(f->pic), 0x39);
	outb(&f->m, 0xa0, 0x20);
	outb(&f->m, 0x20, 0x20);
	assert_int_equal(i8259_take(f->pic), 0x3c);
	/* The slave's next waits for the master's EOI. */
	irq_pulse(&f->in[8]);
	assert_int_equal(i8259_take(f->pic), -1);
	outb(&f->m, 0x20, 0x62);
	assert_int_equal(i8259_take(f->pic), 0x38);
}

static void test_special_fully_nested(void **state)
{
	struct fixture *f = *state;

	init_chip(&f->m, 0x20, 0x30, 4, 0x11);
	irq_pulse(&f->in[12]);
	assert_int_equal(i8259_take(f->pic), 0x3c);
	irq_pulse(&f->in[8]);
	assert_int_equal(i8259_take(f->pic), 0x38);
}

static void test_mask(void **state)
{
	struct fixture *f = *state;

	outb(&f->m, 0x21, 0x10);
	irq_pulse(&f->in[4]);
	assert_int_equal(i8259_take(f->pic), -1);
	assert_int_equal(inb(&f->m, 0x21), 0x10);
	outb(&f->m, 0x21, 0);
	assert_int_equal(i8259_take(f->pic), 0x34);
	/* Special mask mode: a masked one in service holds nobody up. */
	irq_pulse(&f->in[6]);
	assert_int_equal(i8259_take(f->pic), -1);
	outb(&f->m, 0x21, 0x10);
	outb(&f->m, 0x20, 0x68);
	assert_int_equal(i8259_take(f->pic), 0x36);
}

static void test_level(void **state)
{
	struct fixture *f = *state;

	outb(&f->m, 0x4d0, 0xff);
	outb(&f->m, 0x4d1, 0xff);
	assert_int_equal(inb(&f->m, 0x4d0), 0xf8); /* timer, keyboard, cascade cannot */
	assert_int_equal(inb(&f->m, 0x4d1), 0xde);
	irq_set(&f->in[10], true);
	assert_int_equal(i8259_take(f->pic), 0x3a);
	outb(&f->m, 0xa0, 0x20);
	outb(&f->m, 0x20, 0x20);
	assert_int_equal(i8259_take(f->pic), 0x3a); /* still asserted */
	irq_set(&f->in[10], false);
	outb(&f->m, 0xa0, 0x20);
	outb(&f->m, 0x20, 0x20);
	assert_int_equal(i8259_take(f->pic), -1);
}

static void test_auto_eoi_rotate(void **state)
{
	struct fixture *f = *state;

	init_chip(&f->m, 0x20, 0x30, 4, 3);
	irq_pulse(&f->in[3]);
	irq_pulse(&f->in[4]);
	assert_int_equal(i8259_take(f->pic), 0x33);
	assert_int_equal(i8259_take(f->pic), 0x34); /* no EOI needed */
	outb(&f->m, 0x20, 0x80);                    /* rotate in automatic EOI mode */
	irq_pulse(&f->in[3]);
	assert_int_equal(i8259_take(f->pic), 0x33); /* 3 becomes the lowest */
	irq_pulse(&f->in[3]);
	irq_pulse(&f->in[7]);
	assert_int_equal(i8259_take(f->pic), 0x37);
	assert_int_equal(i8259_take(f->pic), 0x33);
	outb(&f->m, 0x20, 0xc5); /* lowest is 5: 6 is the highest */
	irq_pulse(&f->in[1]);
	irq_pulse(&f->in[6]);
	assert_int_equal(i8259_take(f->pic), 0x36);
}

static void test_poll(void **state)
{
	struct fixture *f = *state;

	irq_pulse(&f->in[3]);
	outb(&f->m, 0x20, 0x0c);
	assert_int_equal(inb(&f->m, 0x20), 0x83);
	outb(&f->m, 0x20, 0x0b);
	assert_int_equal(inb(&f->m, 0x20), 0x08); /* in service */
	outb(&f->m, 0x20, 0x0c);
	assert_int_equal(inb(&f->m, 0x20), 0);
}

static void test_save(void **state)
{
	struct fixture *f = *state;
	struct str s;

	irq_pulse(&f->in[9]);
	irq_pulse(&f->in[3]);
	assert_int_equal(i8259_take(f->pic), 0x39);
	s = machine_save(&f->m);
	i8259_reset(f->pic);
	assert_int_equal(i8259_take(f->pic), -1);
	machine_load(&f->m, &s);
	assert_int_equal(i8259_take(f->pic), -1);
	outb(&f->m, 0xa0, 0x20);
	outb(&f->m, 0x20, 0x20);
	assert_int_equal(i8259_take(f->pic), 0x33);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_edge),
		T(test_priority),
		T(test_cascade),
		T(test_special_fully_nested),
		T(test_mask),
		T(test_level),
		T(test_auto_eoi_rotate),
		T(test_poll),
		T(test_save),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_dev_uart.c - the serial port against the PC16550D data sheet. */
#include "machine.h"

#include "dev/uart16550.h"

#define PORT 0x3f8
#define LINE 4

struct wire {
	struct chr chr; /* first */
	uint8_t out[256];
	unsigned n, pokes;
};

struct fixture {
	struct machine m;
	struct wire wire;
	struct uart16550 *u;
};

static void wire_write(struct chr *c, const uint8_t *p, size_t len)
{
	struct wire *w = (struct wire *)c;

	for (size_t i = 0; i < len && w->n < sizeof(w->out); i++)
		w->out[w->n++] = p[i];
}

static void wire_poke(struct chr *c)
{
	((struct wire *)c)->pokes++;
}

static const struct chr_ops wire_ops = {.write = wire_write, .poke = wire_poke};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct irq irq;

	machine_init(&f->m);
	irq = machine_irq(&f->m, LINE);
	f->wire.chr.ops = &wire_ops;
	f->u = uart16550_new(&f->m.env, 0, PORT, &irq, &f->wire.chr, NULL);
	assert_non_null(f->u);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	uart16550_free(f->u);
	machine_fini(&f->m);
	free(f);
	return 0;
}

static unsigned get(struct fixture *f, unsigned r)
{
	return inb(&f->m, PORT + r);
}

static void set(struct fixture *f, unsigned r, unsigned val)
{
	outb(&f->m, PORT + r, val);
}

static size_t receive(struct fixture *f, const char *text)
{
	const struct chr_peer *p = &f->wire.chr.peer;
	size_t n = min_u64(strlen(text), p->room(p->dev));

	p->receive(p->dev, (const uint8_t *)text, n);
	return n;
}

static void test_detect(void **state)
{
	struct fixture *f = *state;

	/* As Linux's 8250 driver finds out what it has. */
	set(f, 1, 0);
	assert_int_equal(get(f, 1), 0);
	set(f, 1, 0x0f);
	assert_int_equal(get(f, 1), 0x0f);
	set(f, 1, 0);
	set(f, 4, 0x1a); /* loopback, RTS, OUT2 */
	assert_int_equal(get(f, 6) & 0xf0, 0x90);
	set(f, 4, 0);
	assert_int_equal(get(f, 6) & 0xf0, 0xb0);
	set(f, 2, 1);
	assert_int_equal(get(f, 2) & 0xc0, 0xc0);
	set(f, 7, 0xa5);
	assert_int_equal(get(f, 7), 0xa5);
	set(f, 3, 0x80);
	set(f, 0, 0x34);
	set(f, 1, 0x12);
	assert_int_equal(get(f, 0), 0x34);
	assert_int_equal(get(f, 1), 0x12);
	set(f, 3, 0x03);
	assert_int_equal(get(f, 1), 0);
}

static void test_transmit(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 5), 0x60);
	set(f, 4, 8);
	set(f, 1, 2);
	assert_true(f->m.line[LINE]); /* empty at once */
	assert_int_equal(get(f, 2), 0x02);
	assert_false(f->m.line[LINE]); /* reading ends it */
	assert_int_equal(get(f, 2), 0x01);
	set(f, 0, 'x');
	assert_true(f->m.line[LINE]);
	assert_int_equal(f->wire.n, 1);
	assert_int_equal(f->wire.out[0], 'x');
	set(f, 4, 0); /* OUT2 off: no line */
	assert_false(f->m.line[LINE]);
}

static void test_receive(void **state)
{
	struct fixture *f = *state;

	set(f, 4, 8);
	set(f, 1, 1);
	assert_int_equal(receive(f, "ab"), 1); /* no FIFO: one */
	assert_true(f->m.line[LINE]);
	assert_int_equal(get(f, 2), 0x04);
	assert_int_equal(get(f, 5) & 1, 1);
	f->wire.pokes = 0;
	assert_int_equal(get(f, 0), 'a');
	assert_int_equal(f->wire.pokes, 1);
	assert_false(f->m.line[LINE]);
	assert_int_equal(get(f, 5) & 1, 0);
}

static void test_fifo(void **state)
{
	struct fixture *f = *state;

	set(f, 4, 8);
	set(f, 1, 1);
	set(f, 2, 0x81); /* trigger at 8 */
	assert_int_equal(receive(f, "0123456"), 7);
	assert_false(f->m.line[LINE]);
	assert_int_equal(get(f, 5) & 1, 1);
	machine_advance(&f->m, NS_PER_SEC);
	assert_true(f->m.line[LINE]); /* four characters' time went by */
	assert_int_equal(get(f, 2), 0xcc);
	assert_int_equal(get(f, 0), '0');
	assert_false(f->m.line[LINE]);
	assert_int_equal(receive(f, "789abcdefghijk"), 10); /* 16 in all */
	assert_true(f->m.line[LINE]);
	assert_int_equal(get(f, 2), 0xc4);
	for (unsigned i = 0; i < 9; i++)
		get(f, 0);
	assert_int_equal(get(f, 2), 0xc1); /* 7 are left */
	set(f, 2, 0x83);
	assert_int_equal(get(f, 5) & 1, 0);
}

static void test_overrun(void **state)
{
	struct fixture *f = *state;

	set(f, 4, 0x10); /* loopback */
	assert_int_equal(receive(f, "x"), 0);
	set(f, 0, '1');
	set(f, 0, '2');
	assert_int_equal(get(f, 5) & 3, 3);
	assert_int_equal(get(f, 5) & 3, 1);
	assert_int_equal(get(f, 0), '2');
	assert_int_equal(f->wire.n, 0);
}

static void test_modem(void **state)
{
	struct fixture *f = *state;

	set(f, 1, 8);
	set(f, 4, 0x10);
	assert_int_equal(get(f, 2), 0x00);
	assert_int_equal(get(f, 6), 0x0b); /* CTS, DSR, DCD went away */
	assert_int_equal(get(f, 6), 0x00);
	set(f, 4, 0x14);
	assert_int_equal(get(f, 6), 0x40); /* RI comes: not yet */
	set(f, 4, 0x10);
	assert_int_equal(get(f, 6), 0x04); /* it went */
	assert_int_equal(get(f, 2), 0x01);
}

static void test_save(void **state)
{
	struct fixture *f = *state;
	struct str s;

	set(f, 4, 8);
	set(f, 1, 1);
	set(f, 2, 0xc1);
	receive(f, "hello");
	get(f, 0);
	s = machine_save(&f->m);
	uart16550_reset(f->u);
	assert_int_equal(get(f, 5) & 1, 0);
	machine_load(&f->m, &s);
	machine_advance(&f->m, NS_PER_SEC);
	assert_int_equal(get(f, 2), 0xcc);
	assert_int_equal(get(f, 0), 'e');
	assert_int_equal(get(f, 0), 'l');
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_detect),  T(test_transmit), T(test_receive), T(test_fifo),
		T(test_overrun), T(test_modem),    T(test_save),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

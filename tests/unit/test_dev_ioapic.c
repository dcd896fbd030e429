/* tests/unit/test_dev_ioapic.c - the I/O APIC against the 82093AA data sheet. */
#include "machine.h"

#include "dev/ioapic.h"

struct fixture {
	struct machine m;
	struct ioapic *io;
	struct irq in[IOAPIC_PINS];
	unsigned routed;
	uint64_t entry[IOAPIC_PINS];
};

static void routes(void *ctx, const uint64_t entry[IOAPIC_PINS], unsigned n)
{
	struct fixture *f = ctx;

	assert_int_equal(n, IOAPIC_PINS);
	f->routed++;
	memcpy(f->entry, entry, sizeof(f->entry));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct ioapic_user user = {routes, f};

	machine_init(&f->m);
	f->io = ioapic_new(&f->m.env, 5, &user, NULL);
	assert_non_null(f->io);
	for (unsigned n = 0; n < IOAPIC_PINS; n++)
		f->in[n] = ioapic_line(f->io, n);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	ioapic_free(f->io);
	machine_fini(&f->m);
	free(f);
	return 0;
}

static uint32_t reg(struct fixture *f, unsigned r)
{
	mmio_write(&f->m, IOAPIC_BASE, 4, r);
	return (uint32_t)mmio_read(&f->m, IOAPIC_BASE + 0x10, 4);
}

static void set_reg(struct fixture *f, unsigned r, uint32_t val)
{
	mmio_write(&f->m, IOAPIC_BASE, 4, r);
	mmio_write(&f->m, IOAPIC_BASE + 0x10, 4, val);
}

static void set_entry(struct fixture *f, unsigned n, uint64_t e)
{
	set_reg(f, 0x11 + 2 * n, (uint32_t)(e >> 32));
	set_reg(f, 0x10 + 2 * n, (uint32_t)e);
}

static void test_registers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(reg(f, 0), 5 << 24);
	assert_int_equal(reg(f, 1), 0x170020);
	set_reg(f, 0, 0xffffffff);
	assert_int_equal(reg(f, 0), 15 << 24);
	assert_int_equal(reg(f, 0x10), 0x10000);
	set_entry(f, 3, 0xabffffffffffffffull);
	assert_int_equal(reg(f, 0x16), 0x1afff); /* status bits: read-only */
	assert_int_equal(reg(f, 0x17), 0xab000000);
	assert_int_equal(reg(f, 0x40), 0);
	assert_true(f->routed > 0);
	assert_int_equal(f->entry[3] >> 56, 0xab);
}

static void test_edge(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	irq_set(&f->in[4], true); /* masked edges are lost */
	set_entry(f, 4, 3ull << 56 | 0x41);
	assert_int_equal(m->n_msis, 0);
	irq_set(&f->in[4], false);
	irq_set(&f->in[4], true);
	assert_int_equal(m->n_msis, 1);
	assert_int_equal(m->msi[0].addr, 0xfee03000);
	assert_int_equal(m->msi[0].data, 0x41);
	irq_set(&f->in[4], true);
	assert_int_equal(m->n_msis, 1);
	/* Logical destination, lowest priority. */
	set_entry(f, 4, 0xffull << 56 | 0x942);
	irq_pulse(&f->in[4]);
	irq_pulse(&f->in[4]);
	assert_int_equal(m->msi[1].addr, 0xfeeff004);
	assert_int_equal(m->msi[1].data, 0x142);
}

static void test_level(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	set_entry(f, 16, 0x8000 | 0x51);
	irq_set(&f->in[16], true);
	assert_int_equal(m->n_msis, 1);
	assert_int_equal(m->msi[0].data, 0xc051);
	assert_int_equal(reg(f, 0x30) & 0x4000, 0x4000); /* remote IRR */
	irq_set(&f->in[16], false);
	irq_set(&f->in[16], true);
	assert_int_equal(m->n_msis, 1); /* waits for the EOI */
	ioapic_eoi(f->io, 0x52);
	assert_int_equal(m->n_msis, 1); /* not its vector */
	ioapic_eoi(f->io, 0x51);
	assert_int_equal(m->n_msis, 2); /* still asserted */
	irq_set(&f->in[16], false);
	mmio_write(m, IOAPIC_BASE + 0x40, 4, 0x51); /* the EOI register */
	assert_int_equal(m->n_msis, 2);
	assert_int_equal(reg(f, 0x30) & 0x4000, 0);
	/* Asserted while masked: sent when it is unmasked. */
	set_entry(f, 16, 0x18051);
	irq_set(&f->in[16], true);
	assert_int_equal(m->n_msis, 2);
	set_entry(f, 16, 0x8051);
	assert_int_equal(m->n_msis, 3);
	/* Edge mode clears a stuck remote IRR. */
	set_entry(f, 16, 0x10051);
	set_entry(f, 16, 0x8051);
	assert_int_equal(m->n_msis, 4);
}

static void test_save(void **state)
{
	struct fixture *f = *state;
	struct str s;

	set_entry(f, 20, 0x8000 | 0x61);
	irq_set(&f->in[20], true);
	s = machine_save(&f->m);
	ioapic_reset(f->io);
	f->m.n_msis = 0;
	f->routed = 0;
	machine_load(&f->m, &s);
	assert_int_equal(f->routed, 1);
	ioapic_eoi(f->io, 0x61);
	assert_int_equal(f->m.n_msis, 1);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {T(test_registers), T(test_edge),
					   T(test_level), T(test_save)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_pci.c - PCI: configuration space, BARs, bridges, interrupt routing, MSI-X. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "virtio_machine.h"

#include "dev/msix.h"

/* A device with one BAR of each kind. */
struct dummy {
	struct pci_dev pci;
	struct io_range io, mem;
	uint32_t reg;
	unsigned moved, resets;
};

static uint64_t dummy_read(void *dev, uint64_t off, unsigned size)
{
	struct dummy *d = dev;

	(void)size;
	return d->reg + off;
}

static void dummy_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct dummy *d = dev;

	(void)off;
	(void)size;
	d->reg = (uint32_t)val;
}

static const struct io_ops dummy_ops = {
	.read = dummy_read, .write = dummy_write, .min = 1, .max = 4};

static void dummy_moved(void *dev)
{
	((struct dummy *)dev)->moved++;
}

static void dummy_reset(void *dev)
{
	((struct dummy *)dev)->resets++;
}

static const struct pci_dev_ops dummy_pci_ops = {
	.moved = dummy_moved,
	.reset = dummy_reset,
};

static const uint8_t rom[3000] = {0x55, 0xaa, 6};

static void dummy_add(struct dummy *d, struct machine *m, unsigned devfn)
{
	static const struct pci_ident id = {.vendor = 0x1234,
					    .device = 0x5678,
					    .class_code = 0x030000,
					    .revision = 9,
					    .pin = 1};

	memset(d, 0, sizeof(*d));
	pci_dev_init(&d->pci, "dummy", &id, &dummy_pci_ops, d);
	d->io = (struct io_range){.ops = &dummy_ops, .dev = d};
	d->mem = (struct io_range){.ops = &dummy_ops, .dev = d};
	pci_bar_set(&d->pci, 0, PCI_BAR_IO, false, 32);
	pci_bar_add_part(&d->pci, 0, &d->io, 0, 32);
	pci_bar_set(&d->pci, 2, PCI_BAR_MEM64, true, 0x10000);
	pci_bar_add_part(&d->pci, 2, &d->mem, 0x100, 0x200);
	pci_rom_set(&d->pci, rom, sizeof(rom));
	assert_int_equal(pci_dev_add(&m->pci, &d->pci, devfn), 0);
}

static void test_config(void **state)
{
	struct machine *m = machine_new(true);
	uint64_t v;

	(void)state;
	assert_int_equal(cfg_rd(m, 0, 0, 4), 0x29c08086);
	assert_int_equal(cfg_rd(m, PCI_DEVFN(31, 0), 0, 4), 0x29188086);
	assert_int_equal(cfg_rd(m, PCI_DEVFN(31, 0), 0x0e, 1), 0x80);
	assert_int_equal(cfg_rd(m, PCI_DEVFN(5, 0), 0, 4), UINT32_MAX);
	assert_int_equal(cfg_rd(m, PCI_DEVFN(5, 0), 1, 1), 0xff);
	assert_int_equal(cfg_rd(m, 0, 2, 2), 0x29c0);
	assert_int_equal(cfg_rd(m, 0, 3, 1), 0x29);
	/* Another bus, a disabled address register, a narrow write to it. */
	bus_write(&m->pio, 0xcf8, 4, 0x80010000);
	bus_read(&m->pio, 0xcfc, 4, &v);
	assert_int_equal(v, UINT32_MAX);
	bus_write(&m->pio, 0xcf8, 4, 0);
	bus_read(&m->pio, 0xcfc, 4, &v);
	assert_int_equal(v, UINT32_MAX);
	bus_write(&m->pio, 0xcf8, 4, 0x80000000);
	bus_write(&m->pio, 0xcf9, 1, 0xff);
	bus_read(&m->pio, 0xcf8, 4, &v);
	assert_int_equal(v, 0x80000000);
	/* The same through memory; what a function lacks reads as ones. */
	assert_int_equal(rd(m, ECAM, 4), 0x29c08086);
	assert_int_equal(rd(m, ECAM + (31 << 15) + 2, 2), 0x2918);
	assert_int_equal(rd(m, ECAM + 0x100, 4), UINT32_MAX);
	assert_int_equal(rd(m, ECAM + (1 << 20), 4), UINT32_MAX);
	/* Read-only registers stay. */
	wr(m, ECAM, 4, 0);
	assert_int_equal(rd(m, ECAM, 4), 0x29c08086);
	/* PAM is kept. */
	cfg_wr(m, 0, 0x91, 1, 0xff);
	assert_int_equal(cfg_rd(m, 0, 0x91, 1), 0x33);
	machine_free(m);
}

static void test_ecam_moves(void **state)
{
	struct machine *m = machine_new(true);

	(void)state;
	assert_int_equal(pci_host_ecam(m->host).base, ECAM);
	cfg_wr(m, 0, 0x60, 4, 0xe0000001 | 1 << 1); /* 128 MiB */
	assert_int_equal(rd(m, 0xe0000000, 4), 0x29c08086);
	assert_int_equal(pci_host_ecam(m->host).size, 128 << 20);
	assert_int_equal(rd(m, ECAM, 4), UINT32_MAX);
	cfg_wr(m, 0, 0x60, 4, 0x00000001); /* over RAM: nowhere */
	assert_int_equal(pci_host_ecam(m->host).size, 0);
	cfg_wr(m, 0, 0x60, 4, 0xb0000000); /* off */
	assert_int_equal(rd(m, ECAM, 4), UINT32_MAX);
	pci_bus_reset(&m->pci);
	assert_int_equal(rd(m, ECAM, 4), 0x29c08086);
	machine_free(m);
}

static void test_bars(void **state)
{
	struct machine *m = machine_new(true);
	unsigned fn = PCI_DEVFN(3, 0);
	struct dummy d;
	uint64_t v;

	(void)state;
	dummy_add(&d, m, fn);
	assert_int_equal(pci_dev_add(&m->pci, &d.pci, fn), -EEXIST);
	/* Sizes. */
	cfg_wr(m, fn, 0x10, 4, UINT32_MAX);
	assert_int_equal(cfg_rd(m, fn, 0x10, 4), 0xffffffe1);
	cfg_wr(m, fn, 0x18, 4, UINT32_MAX);
	cfg_wr(m, fn, 0x1c, 4, UINT32_MAX);
	assert_int_equal(cfg_rd(m, fn, 0x18, 4), 0xffff000c);
	assert_int_equal(cfg_rd(m, fn, 0x1c, 4), UINT32_MAX);
	cfg_wr(m, fn, 0x30, 4, 0xfffff800);
	assert_int_equal(cfg_rd(m, fn, 0x30, 4), 0xfffff000);
	assert_int_equal(cfg_rd(m, fn, 0x14, 4), 0);
	/* All ones is being sized, not an address. */
	cfg_wr(m, fn, PCI_COMMAND, 2, 7);
	assert_int_equal(pci_bar_at(&d.pci, 2), PCI_NOT_MAPPED);
	/* Placed. */
	cfg_wr(m, fn, 0x10, 4, 0xc000);
	cfg_wr(m, fn, 0x18, 4, 0x00010000);
	cfg_wr(m, fn, 0x1c, 4, 0x80);
	assert_int_equal(pci_bar_at(&d.pci, 0), 0xc000);
	assert_int_equal(pci_bar_at(&d.pci, 2), 0x8000010000);
	d.reg = 5;
	bus_read(&m->pio, 0xc003, 1, &v);
	assert_int_equal(v, 8);
	wr(m, 0x8000010100, 4, 77);
	assert_int_equal(d.reg, 77);
	assert_int_equal(rd(m, 0x8000010000, 4), UINT32_MAX); /* no part there */
	/* Decoding off and on. */
	cfg_wr(m, fn, PCI_COMMAND, 2, 0);
	assert_false(bus_read(&m->pio, 0xc003, 1, &v));
	assert_int_equal(rd(m, 0x8000010100, 4), UINT32_MAX);
	cfg_wr(m, fn, PCI_COMMAND, 2, 7);
	assert_int_equal(rd(m, 0x8000010100, 4), 77);
	/* The ROM has an enable bit of its own. */
	cfg_wr(m, fn, 0x30, 4, 0xd0000000);
	assert_int_equal(rd(m, 0xd0000000, 2), 0xffff);
	cfg_wr(m, fn, 0x30, 4, 0xd0000001);
	assert_int_equal(rd(m, 0xd0000000, 2), 0xaa55);
	assert_int_equal(rd(m, 0xd0000000 + 2999, 4), 0xffffff00);
	pci_bus_reset(&m->pci);
	assert_int_equal(d.resets, 1);
	assert_int_equal(pci_bar_at(&d.pci, 0), PCI_NOT_MAPPED);
	assert_int_equal(cfg_rd(m, fn, 0x10, 4), 1);
	pci_dev_remove(&d.pci);
	machine_free(m);
}

static void test_bar_overlaps(void **state)
{
	static const uint32_t bad[] = {
		0x100000,   /* RAM */
		0x40000000, /* RAM above */
		0xfee00000, /* messages */
		0xfeef0000, 0xffff0000 /* ROM in it */, 0xb0000000 /* ECAM */,
	};
	struct machine *m = machine_new(true);
	unsigned fa = PCI_DEVFN(3, 0), fb = PCI_DEVFN(4, 0);
	struct dummy a, b;

	(void)state;
	dummy_add(&a, m, fa);
	dummy_add(&b, m, fb);
	cfg_wr(m, fa, PCI_COMMAND, 2, 2);
	cfg_wr(m, fb, PCI_COMMAND, 2, 2);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		cfg_wr(m, fa, 0x18, 4, bad[i]);
		assert_int_equal(pci_bar_at(&a.pci, 2), PCI_NOT_MAPPED);
	}
	assert_int_equal(rd(m, 0xb0000000, 4), 0x29c08086);
	/* The second on the first's place waits until that goes away. */
	cfg_wr(m, fa, 0x18, 4, 0xd0000000);
	cfg_wr(m, fb, 0x18, 4, 0xd0000000);
	assert_int_equal(pci_bar_at(&a.pci, 2), 0xd0000000);
	assert_int_equal(pci_bar_at(&b.pci, 2), PCI_NOT_MAPPED);
	cfg_wr(m, fa, 0x18, 4, 0xd1000000);
	assert_int_equal(pci_bar_at(&b.pci, 2), 0xd0000000);
	/* They change places through the command register. */
	cfg_wr(m, fa, 0x18, 4, 0xd0000000);
	cfg_wr(m, fb, PCI_COMMAND, 2, 0);
	assert_int_equal(pci_bar_at(&a.pci, 2), 0xd0000000);
	/* Beyond the address space. */
	cfg_wr(m, fa, 0x1c, 4, 0x7fffffff);
	assert_int_equal(pci_bar_at(&a.pci, 2), PCI_NOT_MAPPED);
	pci_dev_remove(&a.pci);
	pci_dev_remove(&b.pci);
	machine_free(m);
}

static void test_assign(void **state)
{
	struct machine *m = machine_new(true);
	struct pci_window w32 = {MMIO32, 0x8000}, io = {0xc000, 0x1000};
	struct dummy a, b;
	struct err err;

	(void)state;
	dummy_add(&a, m, PCI_DEVFN(3, 0));
	dummy_add(&b, m, PCI_DEVFN(3, 1));
	assert_int_equal(cfg_rd(m, PCI_DEVFN(3, 0), 0x0e, 1), 0x80);
	assert_int_equal(machine_start(m, false), 0);
	assert_int_not_equal(pci_bar_at(&a.pci, 0), pci_bar_at(&b.pci, 0));
	assert_true(pci_bar_at(&a.pci, 0) >= 0xc000);
	assert_true(pci_bar_at(&a.pci, 2) >= MMIO64); /* prefetchable */
	assert_true(pci_bar_at(&b.pci, 2) >= MMIO64);
	assert_int_equal(pci_command(&a.pci) & 7, 7);
	/* Slot 3, INTA#: PIRQH, which is on interrupt 11. */
	assert_int_equal(pci_bus_pirq(&m->pci, 3, 0), 7);
	assert_int_equal(cfg_rd(m, PCI_DEVFN(3, 0), PCI_INT_LINE, 1), 11);
	/* A window too small for two. */
	assert_int_equal(pci_assign_resources(&m->pci, &w32, NULL, &io, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "32-bit"));
	pci_dev_remove(&a.pci);
	pci_dev_remove(&b.pci);
	machine_free(m);
}

static void test_intx_q35(void **state)
{
	struct machine *m = machine_new(true);
	unsigned fn = PCI_DEVFN(3, 0), lpc = PCI_DEVFN(31, 0);
	struct dummy a, b, c;

	(void)state;
	dummy_add(&a, m, fn);
	dummy_add(&b, m, PCI_DEVFN(7, 0)); /* the same PIRQ */
	dummy_add(&c, m, PCI_DEVFN(31, 2));
	assert_int_equal(machine_start(m, false), 0);
	pci_intx_set(&a.pci, true);
	pci_intx_set(&b.pci, true);
	assert_true(m->apic[7] && m->isa[11]);
	assert_int_equal(cfg_rd(m, fn, PCI_STATUS, 2) & 8, 8);
	pci_intx_set(&a.pci, false);
	assert_true(m->apic[7] && m->isa[11]); /* b holds it */
	pci_intx_set(&b.pci, false);
	assert_false(m->apic[7] || m->isa[11]);
	/* INTx disable. */
	pci_intx_set(&a.pci, true);
	cfg_wr(m, fn, PCI_COMMAND, 2, 0x407);
	assert_false(m->apic[7]);
	assert_int_equal(cfg_rd(m, fn, PCI_STATUS, 2) & 8, 8);
	cfg_wr(m, fn, PCI_COMMAND, 2, 7);
	assert_true(m->apic[7]);
	/* The router moves it while it is asserted. */
	cfg_wr(m, lpc, 0x6b, 1, 5);
	assert_true(m->isa[5] && !m->isa[11]);
	cfg_wr(m, lpc, 0x6b, 1, 0x80); /* I/O APIC only */
	assert_true(!m->isa[5] && m->apic[7]);
	cfg_wr(m, lpc, 0x6b, 1, 13); /* not an interrupt it may use */
	assert_false(m->isa[13]);
	/* Slot 31's pins follow D31IR. */
	pci_intx_set(&c.pci, true);
	assert_true(m->apic[0]);
	cfg_wr(m, lpc, 0xf0, 4, 0xfed1c001);
	assert_int_equal(rd(m, 0xfed1c000 + 0x3140, 2), 0x3210);
	wr(m, 0xfed1c000 + 0x3140, 2, 0x3213);
	assert_true(!m->apic[0] && m->apic[3]);
	pci_bus_reset(&m->pci);
	for (unsigned i = 0; i < 8; i++)
		assert_false(m->apic[i]);
	for (unsigned i = 0; i < 16; i++)
		assert_false(m->isa[i]);
	pci_dev_remove(&a.pci);
	pci_dev_remove(&b.pci);
	pci_dev_remove(&c.pci);
	machine_free(m);
}

static void test_piix(void **state)
{
	struct machine *m = machine_new(false);
	unsigned fn = PCI_DEVFN(3, 0), pm = PCI_DEVFN(1, 3);
	struct dummy a;

	(void)state;
	dummy_add(&a, m, fn);
	assert_int_equal(machine_start(m, false), 0);
	assert_int_equal(cfg_rd(m, 0, 0, 4), 0x12378086);
	assert_int_equal(cfg_rd(m, PCI_DEVFN(1, 0), 0, 4), 0x70008086);
	assert_int_equal(cfg_rd(m, pm, 0, 4), 0x71138086);
	assert_int_equal(cfg_rd(m, pm, PCI_INT_LINE, 1), 9);
	assert_int_equal(m->pm_at, 0x600);
	cfg_wr(m, pm, 0x40, 4, 0xb000);
	assert_int_equal(m->pm_at, 0xb000);
	assert_int_equal(cfg_rd(m, pm, 0x40, 4), 0xb001);
	cfg_wr(m, pm, 0x80, 1, 0);
	assert_int_equal(m->pm_at, 0);
	/* Slot 3, INTA#: PIRQC, interrupt 11; no I/O APIC inputs of its own. */
	assert_int_equal(cfg_rd(m, fn, PCI_INT_LINE, 1), 11);
	pci_intx_set(&a.pci, true);
	assert_true(m->isa[11]);
	for (unsigned i = 0; i < 8; i++)
		assert_false(m->apic[i]);
	pci_bus_reset(&m->pci);
	assert_false(m->isa[11]);
	assert_int_equal(m->pm_at, 0x600);
	pci_dev_remove(&a.pci);
	machine_free(m);
}

/* ---- MSI-X ---- */

struct msix_dev {
	struct pci_dev pci;
	struct msix msix;
};

static void msix_written(void *dev, unsigned off, unsigned len)
{
	(void)off;
	(void)len;
	msix_cfg_written(&((struct msix_dev *)dev)->msix);
}

static const struct pci_dev_ops msix_pci_ops = {.written = msix_written};

static void msix_add(struct msix_dev *d, struct machine *m, unsigned devfn)
{
	static const struct pci_ident id = {.vendor = 1, .device = 2};

	memset(d, 0, sizeof(*d));
	pci_dev_init(&d->pci, "msix", &id, &msix_pci_ops, d);
	pci_bar_set(&d->pci, 1, PCI_BAR_MEM32, false, 0x4000);
	msix_init(&d->msix, &d->pci, &m->env, 3, 1, 0x1000);
	assert_int_equal(pci_dev_add(&m->pci, &d->pci, devfn), 0);
	msix_add_state(&d->msix, &m->state);
}

static void test_msix(void **state)
{
	struct machine *m = machine_new(true);
	unsigned fn = PCI_DEVFN(3, 0), cap;
	struct msix_dev d;
	uint64_t table, pba;

	(void)state;
	msix_add(&d, m, fn);
	assert_int_equal(machine_start(m, false), 0);
	cap = cfg_rd(m, fn, 0x34, 1);
	assert_int_equal(cfg_rd(m, fn, cap, 1), 0x11);
	assert_int_equal(cfg_rd(m, fn, cap + 2, 2), 2);
	assert_int_equal(cfg_rd(m, fn, cap + 4, 4), 0x1001);
	table = pci_bar_at(&d.pci, 1) + 0x1000;
	pba = table + 0x1000;
	assert_int_equal(rd(m, table + 12, 4), 1); /* masked after a reset */
	for (unsigned v = 0; v < 3; v++) {
		wr(m, table + 16 * v, 4, MSI_ADDR);
		wr(m, table + 16 * v + 8, 4, v);
	}
	wr(m, table + 12, 4, 0);
	wr(m, table + 16 * 3 + 8, 4, 55); /* behind the table */
	assert_int_equal(rd(m, table + 16 * 3 + 8, 4), 0);
	msix_notify(&d.msix, 0); /* not enabled */
	cfg_wr(m, fn, cap + 2, 2, 0x8000);
	assert_int_equal(msi_count(m, 0), 0);
	msix_notify(&d.msix, 0);
	msix_notify(&d.msix, 3); /* there is none */
	msix_notify(&d.msix, 0xffff);
	assert_int_equal(msi_count(m, 0), 1);
	/* A masked vector waits. */
	msix_notify(&d.msix, 1);
	msix_notify(&d.msix, 1);
	assert_int_equal(rd(m, pba, 4), 2);
	wr(m, pba, 4, 0); /* read-only */
	assert_int_equal(rd(m, pba, 4), 2);
	wr(m, table + 16 + 12, 4, 0);
	assert_int_equal(msi_count(m, 1), 1);
	assert_int_equal(rd(m, pba, 4), 0);
	/* The function mask holds all of them. */
	cfg_wr(m, fn, cap + 2, 2, 0xc000);
	msix_notify(&d.msix, 0);
	assert_int_equal(msi_count(m, 0), 1);
	cfg_wr(m, fn, cap + 2, 2, 0x8000);
	assert_int_equal(msi_count(m, 0), 2);
	/* Without bus mastering no message leaves. */
	cfg_wr(m, fn, PCI_COMMAND, 2, 2);
	msix_notify(&d.msix, 0);
	assert_int_equal(msi_count(m, 0), 2);
	cfg_wr(m, fn, PCI_COMMAND, 2, 6);
	assert_int_equal(msi_count(m, 0), 3);
	pci_dev_remove(&d.pci);
	msix_fini(&d.msix);
	machine_free(m);
}

/* ---- saved state ---- */

static void test_state(void **state)
{
	struct machine *m = machine_new(true), *n = machine_new(true);
	unsigned fn = PCI_DEVFN(3, 0), fx = PCI_DEVFN(4, 0);
	struct str s = {0};
	struct dummy a, b;
	struct msix_dev x, y;
	struct err err;

	(void)state;
	dummy_add(&a, m, fn);
	msix_add(&x, m, fx);
	dummy_add(&b, n, fn);
	msix_add(&y, n, fx);
	assert_int_equal(machine_start(m, false), 0);
	wr(m, pci_bar_at(&x.pci, 1) + 0x1000, 4, 0x12345678);
	cfg_wr(m, 0, 0x60, 4, 0xe0000001);
	pci_intx_set(&a.pci, true);
	assert_int_equal(state_save(&m->state, &s, &err), 0);
	assert_int_equal(state_load(&n->state, s.p, s.len, &err), 0);
	assert_int_equal(pci_bar_at(&b.pci, 2), pci_bar_at(&a.pci, 2));
	assert_int_equal(pci_host_ecam(n->host).base, 0xe0000000);
	assert_int_equal(rd(n, pci_bar_at(&y.pci, 1) + 0x1000, 4), 0x12345678);
	assert_true(n->apic[7] && n->isa[11]);
	assert_memory_equal(a.pci.cfg, b.pci.cfg, PCI_CFG_SIZE);
	str_fini(&s);
	pci_dev_remove(&a.pci);
	pci_dev_remove(&b.pci);
	pci_dev_remove(&x.pci);
	pci_dev_remove(&y.pci);
	msix_fini(&x.msix);
	msix_fini(&y.msix);
	machine_free(m);
	machine_free(n);
}

/* Any configuration space in a file leaves identity and sizes alone. */
static void test_hostile_state(void **state)
{
	struct machine *m = machine_new(true);
	unsigned fn = PCI_DEVFN(3, 0);
	struct str s = {0};
	struct dummy a;
	struct err err;

	(void)state;
	dummy_add(&a, m, fn);
	assert_int_equal(machine_start(m, false), 0);
	memset(a.pci.cfg, 0xff, sizeof(a.pci.cfg));
	a.pci.intx = 77;
	assert_int_equal(state_save(&m->state, &s, &err), 0);
	assert_int_equal(state_load(&m->state, s.p, s.len, &err), 0);
	assert_int_equal(cfg_rd(m, fn, 0, 4), 0x56781234);
	assert_int_equal(cfg_rd(m, fn, 0x10, 4), 0xffffffe1);
	assert_int_equal(pci_bar_at(&a.pci, 0), PCI_NOT_MAPPED);
	assert_int_equal(a.pci.intx, 1);
	str_fini(&s);
	pci_dev_remove(&a.pci);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config), cmocka_unit_test(test_ecam_moves),
		cmocka_unit_test(test_bars),   cmocka_unit_test(test_bar_overlaps),
		cmocka_unit_test(test_assign), cmocka_unit_test(test_intx_q35),
		cmocka_unit_test(test_piix),   cmocka_unit_test(test_msix),
		cmocka_unit_test(test_state),  cmocka_unit_test(test_hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_lapic.c - the local APICs against the SDM, volume 3A chapter 11. */
#include "machine.h"

#include "emu/lapic.h"

#define CPUS 4

struct cpu {
	struct lapic apic;
	unsigned notices, nmis, inits, sipis, vector;
};

struct fixture {
	struct machine m;
	struct lapic_set set;
	struct lapic *apic[CPUS];
	struct cpu cpu[CPUS];
	unsigned eois, eoi_vector;
	bool pic;
	uint64_t tsc_offset;
};

static struct fixture *the; /* for the TSC, whose callback knows only the processor */

static void on_notify(void *cpu)
{
	((struct cpu *)cpu)->notices++;
}

static void on_nmi(void *cpu)
{
	((struct cpu *)cpu)->nmis++;
}

static void on_init(void *cpu)
{
	((struct cpu *)cpu)->inits++;
}

static void on_sipi(void *cpu, uint8_t vector)
{
	((struct cpu *)cpu)->sipis++;
	((struct cpu *)cpu)->vector = vector;
}

static uint64_t on_tsc(void *cpu)
{
	(void)cpu;
	return the->m.loop.now * 2 + the->tsc_offset; /* 2 GHz */
}

static void on_eoi(void *ctx, unsigned vector)
{
	struct fixture *f = ctx;

	f->eois++;
	f->eoi_vector = vector;
}

static bool on_pic_ready(void *ctx)
{
	return ((struct fixture *)ctx)->pic;
}

static int on_pic_take(void *ctx)
{
	((struct fixture *)ctx)->pic = false;
	return 0x20;
}

static const struct lapic_ops ops = {
	.notify = on_notify,
	.nmi = on_nmi,
	.init = on_init,
	.sipi = on_sipi,
	.tsc = on_tsc,
	.eoi = on_eoi,
	.pic_ready = on_pic_ready,
	.pic_take = on_pic_take,
};

static unsigned rd(struct fixture *f, unsigned n, unsigned off)
{
	return (unsigned)lapic_mmio_read(&f->cpu[n].apic, off, 4);
}

static void wr(struct fixture *f, unsigned n, unsigned off, uint32_t val)
{
	lapic_mmio_write(&f->cpu[n].apic, off, 4, val);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	machine_init(&f->m);
	the = f;
	f->set = (struct lapic_set){.ops = &ops,
				    .ctx = f,
				    .loop = &f->m.loop,
				    .tsc_khz = 2000000,
				    .n_cpus = CPUS,
				    .apic = f->apic};
	for (unsigned n = 0; n < CPUS; n++) {
		lapic_init(&f->cpu[n].apic, &f->set, n, &f->cpu[n]);
		f->apic[n] = &f->cpu[n].apic;
		wr(f, n, 0xf0, 0x1ff); /* on */
		wr(f, n, 0xd0, 1u << (24 + n));
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 0; n < CPUS; n++)
		lapic_fini(&f->cpu[n].apic);
	machine_fini(&f->m);
	free(f);
	return 0;
}

static int take(struct fixture *f, unsigned n)
{
	struct lapic *l = &f->cpu[n].apic;
	bool ready = lapic_ready(l);
	int v = lapic_take(l);

	assert_int_equal(ready, v >= 0);
	return v;
}

static void msi(struct fixture *f, unsigned dest, unsigned vector, unsigned flags)
{
	lapic_msi(&f->set, 0xfee00000 | dest << 12, vector | flags);
}

static void test_registers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, 2, 0x20), 2u << 24);
	assert_int_equal(rd(f, 0, 0x30), 0x00050014);
	assert_int_equal(rd(f, 0, 0xe0), 0xffffffff);
	wr(f, 0, 0x80, 0x12345678);
	assert_int_equal(rd(f, 0, 0x80), 0x78);
	assert_int_equal(rd(f, 0, 0xa0), 0x78);
	wr(f, 1, 0x370, 0xffffffff);
	assert_int_equal(rd(f, 1, 0x370), 0x110ff);
	/* An unknown register sets the error bit, which a write to ESR makes visible. */
	rd(f, 0, 0x40);
	assert_int_equal(rd(f, 0, 0x280), 0);
	wr(f, 0, 0x280, 0);
	assert_int_equal(rd(f, 0, 0x280), 0x80);
	wr(f, 0, 0x280, 0);
	assert_int_equal(rd(f, 0, 0x280), 0);
	/* Switching it off masks the local vectors for good. */
	wr(f, 1, 0x350, 0x700);
	wr(f, 1, 0xf0, 0xff);
	assert_int_equal(rd(f, 1, 0x350), 0x10700);
	wr(f, 1, 0x350, 0x700);
	assert_int_equal(rd(f, 1, 0x350), 0x10700);
}

static void test_priority(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(take(f, 0), -1);
	msi(f, 0, 0x41, 0);
	msi(f, 0, 0x55, 0);
	assert_int_equal(f->cpu[0].notices, 2);
	msi(f, 0, 0x41, 0);
	assert_int_equal(f->cpu[0].notices, 2); /* was pending */
	assert_int_equal(take(f, 0), 0x55);
	assert_int_equal(take(f, 0), -1); /* 41 is lower */
	assert_int_equal(rd(f, 0, 0xa0), 0x50);
	msi(f, 0, 0x5f, 0);
	assert_int_equal(take(f, 0), -1); /* same class */
	msi(f, 0, 0x60, 0);
	assert_int_equal(take(f, 0), 0x60);
	assert_int_equal(rd(f, 0, 0x130), 1); /* ISR: 60 */
	wr(f, 0, 0xb0, 0);
	f->cpu[0].notices = 0;
	wr(f, 0, 0xb0, 0); /* ends 55: 5f and 41 wait */
	assert_int_equal(f->cpu[0].notices, 1);
	lapic_set_cr8(&f->cpu[0].apic, 5);
	assert_int_equal(take(f, 0), -1);
	assert_int_equal(rd(f, 0, 0x80), 0x50);
	f->cpu[0].notices = 0;
	lapic_set_cr8(&f->cpu[0].apic, 4);
	assert_int_equal(f->cpu[0].notices, 1);
	assert_int_equal(take(f, 0), 0x5f);
	wr(f, 0, 0xb0, 0);
	assert_int_equal(take(f, 0), -1); /* 41 is not above 4 */
	lapic_set_cr8(&f->cpu[0].apic, 3);
	assert_int_equal(take(f, 0), 0x41);
}

static void test_level(void **state)
{
	struct fixture *f = *state;

	msi(f, 1, 0x71, 0xc000);
	assert_int_equal(rd(f, 1, 0x180 + 0x30), 1u << 17);
	assert_int_equal(take(f, 1), 0x71);
	wr(f, 1, 0xb0, 0);
	assert_int_equal(f->eois, 1);
	assert_int_equal(f->eoi_vector, 0x71);
	msi(f, 1, 0x71, 0); /* now as an edge */
	assert_int_equal(take(f, 1), 0x71);
	wr(f, 1, 0xb0, 0);
	assert_int_equal(f->eois, 1);
	msi(f, 1, 0x71, 0x8000); /* de-assertion */
	assert_int_equal(take(f, 1), -1);
	wr(f, 1, 0xb0, 0); /* nothing in service */
	assert_int_equal(f->eois, 1);
}

static void test_destinations(void **state)
{
	struct fixture *f = *state;
	int got = 0;

	msi(f, 0xff, 0x40, 0); /* everybody */
	for (unsigned n = 0; n < CPUS; n++)
		assert_int_equal(take(f, n), 0x40);
	lapic_msi(&f->set, 0xfee00004 | 0x0a << 12, 0x50); /* logical: 1 and 3 */
	assert_int_equal(take(f, 0), -1);
	assert_int_equal(take(f, 1), 0x50);
	assert_int_equal(take(f, 2), -1);
	assert_int_equal(take(f, 3), 0x50);
	/* Cluster model: cluster 1, members 0 and 2. */
	for (unsigned n = 0; n < CPUS; n++) {
		wr(f, n, 0xe0, 0x0fffffff);
		wr(f, n, 0xd0, (n < 3 ? 0x10u : 0x20u) << 24 | 1u << (24 + n));
	}
	lapic_msi(&f->set, 0xfee00004 | 0x1d << 12, 0x60);
	assert_int_equal(take(f, 0), 0x60);
	assert_int_equal(take(f, 1), -1);
	assert_int_equal(take(f, 2), 0x60);
	assert_int_equal(take(f, 3), -1); /* bit 3, but cluster 2 */
	/* Lowest priority: one of them, not the busy one. */
	wr(f, 0, 0x80, 0xf0);
	for (unsigned i = 0; i < 8; i++) {
		lapic_msi(&f->set, 0xfee00004 | 0x15 << 12, 0x170);
		assert_int_equal(take(f, 0), -1);
		got += take(f, 2) == 0x70;
		wr(f, 2, 0xb0, 0);
	}
	assert_int_equal(got, 8);
	/* It goes round among equals. */
	wr(f, 0, 0x80, 0);
	for (unsigned i = 0; i < 32; i++) {
		lapic_msi(&f->set, 0xfee00004 | 0x15 << 12, 0x180);
		got += take(f, 0) == 0x80;
		wr(f, 0, 0xb0, 0);
		wr(f, 2, 0xb0, 0), lapic_take(&f->cpu[2].apic), wr(f, 2, 0xb0, 0);
	}
	assert_in_range(got - 8, 8, 24);
}

static void test_ipi(void **state)
{
	struct fixture *f = *state;

	wr(f, 0, 0x310, 2u << 24);
	wr(f, 0, 0x300, 0x4031);
	assert_int_equal(take(f, 2), 0x31);
	wr(f, 0, 0x300, 0x44032); /* self */
	assert_int_equal(take(f, 0), 0x32);
	wr(f, 0, 0xb0, 0);
	wr(f, 0, 0x300, 0xc4033); /* all but self */
	assert_int_equal(take(f, 0), -1);
	assert_int_equal(take(f, 3), 0x33);
	wr(f, 1, 0x300, 0x84044); /* all with self */
	assert_int_equal(take(f, 0), 0x44);
	assert_int_equal(take(f, 1), 0x44);
	wr(f, 0, 0x300, 0xc0400);
	assert_int_equal(f->cpu[0].nmis, 0);
	assert_int_equal(f->cpu[1].nmis, 1);
	wr(f, 0, 0x300, 0xc4500); /* as firmware starts the others */
	wr(f, 0, 0x300, 0xc4610);
	assert_int_equal(f->cpu[0].inits, 0);
	assert_int_equal(f->cpu[3].inits, 1);
	assert_int_equal(f->cpu[3].sipis, 1);
	assert_int_equal(f->cpu[3].vector, 0x10);
	wr(f, 0, 0x300, 0x88500); /* INIT level de-assert: nothing */
	assert_int_equal(f->cpu[3].inits, 1);
	wr(f, 0, 0x300, 0x0400f); /* no such vector */
	wr(f, 0, 0x280, 0);
	assert_int_equal(rd(f, 0, 0x280), 0x20);
}

static void test_errors(void **state)
{
	struct fixture *f = *state;

	wr(f, 1, 0x370, 0xee);
	msi(f, 1, 0x05, 0);
	assert_int_equal(take(f, 1), 0xee);
	wr(f, 1, 0x280, 0);
	assert_int_equal(rd(f, 1, 0x280), 0x40);
	wr(f, 2, 0xf0, 0xff); /* off: drops interrupts, not NMIs */
	msi(f, 2, 0x77, 0);
	assert_int_equal(take(f, 2), -1);
	msi(f, 2, 0, 0x400);
	assert_int_equal(f->cpu[2].nmis, 1);
	lapic_msi(&f->set, 0xfed00000, 0x50); /* not an interrupt address */
	assert_int_equal(take(f, 0), -1);
}

static void test_extint(void **state)
{
	struct fixture *f = *state;

	/* After reset, the boot processor takes the 8259's. */
	lapic_reset(&f->cpu[0].apic, false);
	f->pic = true;
	lapic_extint(&f->set);
	assert_true(f->cpu[0].notices > 0);
	assert_int_equal(f->cpu[1].notices, 0);
	assert_int_equal(take(f, 0), 0x20);
	f->pic = true;
	assert_int_equal(take(f, 1), -1);
	wr(f, 0, 0xf0, 0x1ff);
	wr(f, 0, 0x350, 0x10700);
	assert_int_equal(take(f, 0), -1);
	wr(f, 0, 0x350, 0x700);
	assert_int_equal(take(f, 0), 0x20);
	/* Globally off: the pin is the processor's INTR. */
	wr(f, 0, 0x350, 0x10700);
	f->pic = true;
	assert_true(lapic_msr_set(&f->cpu[0].apic, 0x1b, 0xfee00100));
	assert_int_equal(take(f, 0), 0x20);
	/* A message through the I/O APIC. */
	f->pic = true;
	msi(f, 3, 0, 0x700);
	assert_int_equal(take(f, 3), 0x20);
	f->pic = true;
	assert_int_equal(take(f, 3), -1); /* one message, one interrupt */
}

static void test_timer(void **state)
{
	struct fixture *f = *state;

	wr(f, 0, 0x320, 0x40);
	wr(f, 0, 0x3e0, 0x0b); /* by 1: nanoseconds */
	wr(f, 0, 0x380, 1000000);
	machine_advance(&f->m, 400000);
	assert_int_equal(rd(f, 0, 0x390), 600000);
	assert_int_equal(take(f, 0), -1);
	machine_advance(&f->m, 600000);
	assert_int_equal(take(f, 0), 0x40);
	assert_int_equal(rd(f, 0, 0x390), 0);
	wr(f, 0, 0xb0, 0);
	machine_advance(&f->m, NS_PER_SEC);
	assert_int_equal(take(f, 0), -1);
	/* Divided by 16; changed to 2 half way. */
	wr(f, 0, 0x3e0, 0x03);
	wr(f, 0, 0x380, 1000);
	machine_advance(&f->m, 8000);
	assert_int_equal(rd(f, 0, 0x390), 500);
	wr(f, 0, 0x3e0, 0x00);
	machine_advance(&f->m, 999);
	assert_int_equal(take(f, 0), -1);
	machine_advance(&f->m, 1);
	assert_int_equal(take(f, 0), 0x40);
	wr(f, 0, 0xb0, 0);
	wr(f, 0, 0x380, 0); /* stops */
	/* Masked, it counts and wakes nobody. */
	wr(f, 0, 0x320, 0x10040);
	wr(f, 0, 0x380, 1000);
	f->m.fired = 0;
	machine_advance(&f->m, NS_PER_SEC);
	assert_int_equal(f->m.fired, 0);
	wr(f, 0, 0x320, 0x40);
	assert_int_equal(take(f, 0), -1);
}

static void test_periodic(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	wr(f, 0, 0x320, 0x20040);
	wr(f, 0, 0x3e0, 0x0b);
	wr(f, 0, 0x380, 1000000);
	for (unsigned i = 0; i < 100000; i++) {
		machine_advance(&f->m, 10000);
		if (take(f, 0) == 0x40) {
			n++;
			wr(f, 0, 0xb0, 0);
		}
	}
	assert_int_equal(n, 1000);
	/* Late: the phase stays. */
	machine_stall(&f->m, 2500000);
	assert_int_equal(take(f, 0), 0x40);
	wr(f, 0, 0xb0, 0);
	assert_int_equal(rd(f, 0, 0x390), 500000);
	machine_advance(&f->m, 499999);
	assert_int_equal(take(f, 0), -1);
	machine_advance(&f->m, 1);
	assert_int_equal(take(f, 0), 0x40);
}

static void test_deadline(void **state)
{
	struct fixture *f = *state;
	struct lapic *l = &f->cpu[1].apic;
	uint64_t tsc = on_tsc(NULL), v;

	assert_true(lapic_msr_set(l, 0x6e0, tsc + 100));
	assert_true(lapic_msr_get(l, 0x6e0, &v));
	assert_int_equal(v, 0); /* not in that mode */
	wr(f, 1, 0x320, 0x40041);
	lapic_msr_set(l, 0x6e0, tsc + 2000000);
	lapic_msr_get(l, 0x6e0, &v);
	assert_int_equal(v, tsc + 2000000);
	wr(f, 1, 0x380, 5); /* ignored in this mode */
	machine_advance(&f->m, 999000);
	assert_int_equal(take(f, 1), -1);
	machine_advance(&f->m, 2000);
	assert_int_equal(take(f, 1), 0x41);
	wr(f, 1, 0xb0, 0);
	lapic_msr_get(l, 0x6e0, &v);
	assert_int_equal(v, 0);
	lapic_msr_set(l, 0x6e0, 1); /* in the past: at once */
	machine_advance(&f->m, 0);
	assert_int_equal(take(f, 1), 0x41);
	wr(f, 1, 0xb0, 0);
	/* The TSC is set back meanwhile: it waits on. */
	lapic_msr_set(l, 0x6e0, on_tsc(NULL) + 2000);
	f->tsc_offset -= 2000;
	machine_advance(&f->m, 1500);
	assert_int_equal(take(f, 1), -1);
	machine_advance(&f->m, 600);
	assert_int_equal(take(f, 1), 0x41);
	wr(f, 1, 0xb0, 0);
	/* Leaving the mode disarms. */
	lapic_msr_set(l, 0x6e0, on_tsc(NULL) + 2000);
	wr(f, 1, 0x320, 0x41);
	machine_advance(&f->m, 5000);
	assert_int_equal(take(f, 1), -1);
}

static bool rdmsr(struct fixture *f, unsigned n, uint32_t msr)
{
	uint64_t v;

	return lapic_msr_get(&f->cpu[n].apic, msr, &v);
}

static bool wrmsr(struct fixture *f, unsigned n, uint32_t msr, uint64_t v)
{
	return lapic_msr_set(&f->cpu[n].apic, msr, v);
}

static uint64_t msr(struct fixture *f, unsigned n, uint32_t index)
{
	uint64_t v = 0;

	assert_true(lapic_msr_get(&f->cpu[n].apic, index, &v));
	return v;
}

static void test_x2apic(void **state)
{
	struct fixture *f = *state;

	assert_true(lapic_owns(&f->cpu[0].apic, 0xfee00020));
	assert_false(rdmsr(f, 0, 0x802));
	assert_false(wrmsr(f, 0, 0x1b, 0xfee00500)); /* x2APIC without the enable bit */
	for (unsigned n = 0; n < CPUS; n++)
		assert_true(wrmsr(f, n, 0x1b, 0xfee00c00 | (n ? 0 : 0x100)));
	assert_false(wrmsr(f, 0, 0x1b, 0xfee00900)); /* not back to xAPIC */
	assert_false(lapic_owns(&f->cpu[0].apic, 0xfee00020));
	assert_int_equal(msr(f, 3, 0x802), 3);
	assert_int_equal(msr(f, 3, 0x80d), 8);
	assert_false(rdmsr(f, 0, 0x80e)); /* no DFR */
	assert_false(rdmsr(f, 0, 0x831)); /* no upper ICR */
	assert_false(rdmsr(f, 0, 0x80b));
	assert_false(rdmsr(f, 0, 0x8ff));
	assert_false(wrmsr(f, 0, 0x802, 0));
	assert_false(wrmsr(f, 0, 0x80b, 1));
	assert_false(wrmsr(f, 0, 0x808, 0x100));
	assert_false(wrmsr(f, 0, 0x83e, 0x10));
	assert_true(wrmsr(f, 0, 0x83f, 0x66)); /* self IPI */
	assert_int_equal(take(f, 0), 0x66);
	assert_true(wrmsr(f, 0, 0x80b, 0));
	/* Physical, logical (cluster 0, members 1 and 2), broadcast. */
	assert_true(wrmsr(f, 0, 0x830, 3ull << 32 | 0x4051));
	assert_int_equal(take(f, 3), 0x51);
	wrmsr(f, 3, 0x80b, 0);
	assert_int_equal(msr(f, 0, 0x830), 3ull << 32 | 0x4051);
	wrmsr(f, 0, 0x830, 6ull << 32 | 0x4852);
	assert_int_equal(take(f, 0), -1);
	assert_int_equal(take(f, 1), 0x52);
	assert_int_equal(take(f, 2), 0x52);
	assert_int_equal(take(f, 3), -1);
	wrmsr(f, 0, 0x830, 0xffffffffull << 32 | 0x4063);
	assert_int_equal(take(f, 3), 0x63);
	wrmsr(f, 3, 0x80b, 0);
	msi(f, 3, 0x71, 0); /* devices address them with 8 bits */
	assert_int_equal(take(f, 3), 0x71);
	/* Off and on again: xAPIC in reset state. */
	assert_true(wrmsr(f, 3, 0x1b, 0xfee00000));
	assert_false(wrmsr(f, 3, 0x1b, 0xfee00c00)); /* not in one step */
	assert_true(wrmsr(f, 3, 0x1b, 0xfee00800));
	assert_int_equal(rd(f, 3, 0xf0), 0xff);
}

static void test_moved(void **state)
{
	struct fixture *f = *state;

	assert_true(wrmsr(f, 1, 0x1b, 0xfed10800));
	assert_false(lapic_owns(&f->cpu[1].apic, 0xfee00000));
	assert_true(lapic_owns(&f->cpu[1].apic, 0xfed10fff));
	assert_false(wrmsr(f, 1, 0x1b, 1ull << 60 | 0x800));
	assert_false(wrmsr(f, 1, 0x1b, 0xfee00801)); /* reserved bit */
}

static void test_save(void **state)
{
	struct fixture *f = *state;
	struct lapic *l = &f->cpu[1].apic;
	uint8_t page[LAPIC_PAGE_SIZE];
	uint64_t left, base;

	wr(f, 1, 0x320, 0x20040);
	wr(f, 1, 0x3e0, 0x0b);
	wr(f, 1, 0x380, 1000000);
	msi(f, 1, 0x55, 0xc000);
	assert_int_equal(take(f, 1), 0x55);
	msi(f, 1, 0x77, 0);
	lapic_set_cr8(l, 3);
	machine_advance(&f->m, 300000);
	lapic_save(l, page, &left);
	base = msr(f, 1, 0x1b);
	assert_int_equal(left, 700000);
	lapic_reset(l, false);
	assert_int_equal(take(f, 1), -1);
	machine_advance(&f->m, 12345678);
	assert_int_equal(lapic_load(l, base, page, left), 0);
	assert_int_equal(rd(f, 1, 0x390), 700000);
	assert_int_equal(take(f, 1), 0x77);
	wr(f, 1, 0xb0, 0);
	wr(f, 1, 0xb0, 0);
	assert_int_equal(f->eoi_vector, 0x55); /* still known as level-triggered */
	machine_advance(&f->m, 700000);
	assert_int_equal(take(f, 1), 0x40);
	/* Values that cannot be. */
	assert_int_equal(lapic_load(l, 0xfee00400, page, left), -EINVAL);
	memset(page, 0xff, sizeof(page));
	assert_int_equal(lapic_load(l, base, page, UINT64_MAX / 2), 0);
	assert_int_equal(rd(f, 1, 0x200), 0xffff0000);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers),    T(test_priority), T(test_level),
		T(test_destinations), T(test_ipi),      T(test_errors),
		T(test_extint),       T(test_timer),    T(test_periodic),
		T(test_deadline),     T(test_x2apic),   T(test_moved),
		T(test_save),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

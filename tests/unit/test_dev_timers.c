/* tests/unit/test_dev_timers.c - 8254, MC146818, HPET, ACPI timer against their data sheets. */
#include "machine.h"

#include "dev/acpi_pm.h"
#include "dev/hpet.h"
#include "dev/i8254.h"
#include "dev/rtc.h"

#define IRQ0     0
#define IRQ8     8
#define SCI      9
#define GSI      16           /* and up */
#define EPOCH    1709164799ll /* 2024-02-28 23:59:59 UTC, a Wednesday */
#define TICKS(n) ((n)*NS_PER_SEC / 1193182 + 1)

struct fixture {
	struct machine m;
	struct i8254 *pit;
	struct rtc *rtc;
	struct hpet *hpet;
	struct acpi_pm *pm;
};

static void legacy_changed(void *ctx, bool on)
{
	struct fixture *f = ctx;

	f->m.calls++;
	i8254_connect(f->pit, !on);
	rtc_connect(f->rtc, !on);
}

static void any_gsi(void *ctx, unsigned n, bool level)
{
	machine_line(ctx, GSI + n, level);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct machine *m = &f->m;
	struct irq irq0, irq8, sci;
	struct acpi_pm_user user = {machine_called, m};
	struct hpet_cfg cfg;

	machine_init(m);
	irq0 = machine_irq(m, IRQ0);
	irq8 = machine_irq(m, IRQ8);
	sci = machine_irq(m, SCI);
	cfg = (struct hpet_cfg){.gsi = {any_gsi, m, 0},
				.routes = 0xf00000,
				.legacy = {irq0, irq8},
				.legacy_changed = legacy_changed,
				.ctx = f};
	f->pit = i8254_new(&m->env, &irq0, NULL);
	f->rtc = rtc_new(&m->env, &irq8, EPOCH, NULL);
	f->hpet = hpet_new(&m->env, &cfg, NULL);
	f->pm = acpi_pm_new(&m->env, ACPI_PM_BASE, &sci, &user, NULL);
	assert_non_null(f->pit);
	assert_non_null(f->rtc);
	assert_non_null(f->hpet);
	assert_non_null(f->pm);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	i8254_free(f->pit);
	rtc_free(f->rtc);
	hpet_free(f->hpet);
	acpi_pm_free(f->pm);
	machine_fini(&f->m);
	free(f);
	return 0;
}

/* ---- 8254 ---- */

static void pit_program(struct machine *m, unsigned n, unsigned mode, unsigned count)
{
	outb(m, 0x43, n << 6 | 3 << 4 | mode << 1);
	outb(m, 0x40 + n, count & 0xff);
	outb(m, 0x40 + n, count >> 8);
}

static unsigned pit_latch(struct machine *m, unsigned n)
{
	unsigned low;

	outb(m, 0x43, n << 6);
	low = inb(m, 0x40 + n);
	return low | inb(m, 0x40 + n) << 8;
}

static void test_pit_rate(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	for (unsigned mode = 2; mode <= 3; mode++) {
		m->edges[IRQ0] = 0;
		pit_program(m, 0, mode, 11932);
		m->edges[IRQ0] = 0; /* the output goes up with the control word */
		machine_advance(m, 100 * NS_PER_SEC);
		/* 100 s of 1193182 / 11932 Hz: 9999.8 periods, none lost, none too many. */
		assert_int_equal(m->edges[IRQ0], 9999);
	}
}

static void test_pit_late(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	pit_program(m, 0, 2, 11932);
	m->edges[IRQ0] = 0;
	machine_stall(m, 200 * NS_PER_MS); /* 20 ticks late */
	machine_advance(m, 800 * NS_PER_MS);
	assert_int_equal(m->edges[IRQ0], 99);
	/* Three seconds away: those ticks are not made up for. */
	m->edges[IRQ0] = 0;
	machine_stall(m, 3 * NS_PER_SEC);
	machine_advance(m, NS_PER_SEC);
	assert_in_range(m->edges[IRQ0], 100, 102);
}

static void test_pit_oneshot(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	pit_program(m, 0, 0, 1000);
	assert_false(m->line[IRQ0]);
	machine_advance(m, TICKS(999));
	assert_false(m->line[IRQ0]);
	machine_advance(m, TICKS(3));
	assert_true(m->line[IRQ0]);
	m->edges[IRQ0] = 0;
	machine_advance(m, NS_PER_SEC);
	assert_int_equal(m->edges[IRQ0], 0); /* once */
	pit_program(m, 0, 4, 1000);
	m->edges[IRQ0] = 0;
	machine_advance(m, NS_PER_SEC);
	assert_int_equal(m->edges[IRQ0], 1);
}

static void test_pit_counting(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	unsigned a, b;

	pit_program(m, 0, 2, 0); /* 65536 */
	a = pit_latch(m, 0);
	machine_advance(m, TICKS(1000));
	b = pit_latch(m, 0);
	assert_in_range((a - b) & 0xffff, 1000, 1001);
	/* Mode 3 counts by two; the read-back command latches status and count. */
	pit_program(m, 0, 3, 1000);
	machine_advance(m, TICKS(100));
	outb(m, 0x43, 0xc2);
	assert_int_equal(inb(m, 0x40), 0xb6); /* high, loaded, both bytes, mode 3 */
	a = inb(m, 0x40);
	a |= inb(m, 0x40) << 8;
	assert_in_range(a, 796, 800);
	machine_advance(m, TICKS(500));
	outb(m, 0x43, 0xe2);
	assert_int_equal(inb(m, 0x40), 0x36); /* the low half */
	/* BCD. */
	outb(m, 0x43, 0x31);
	outb(m, 0x40, 0x00);
	outb(m, 0x40, 0x20);
	machine_advance(m, TICKS(502));
	assert_in_range(pit_latch(m, 0), 0x1498, 0x1500);
}

static void test_pit_new_count(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	/* In mode 2 a new count waits for the end of the period. */
	pit_program(m, 0, 2, 2000);
	machine_advance(m, TICKS(500));
	outb(m, 0x40, 0xe8);
	outb(m, 0x40, 0x03); /* 1000 */
	m->edges[IRQ0] = 0;
	machine_advance(m, TICKS(1497));
	assert_int_equal(m->edges[IRQ0], 0);
	machine_advance(m, TICKS(4));
	assert_int_equal(m->edges[IRQ0], 1);
	machine_advance(m, TICKS(1000));
	assert_int_equal(m->edges[IRQ0], 2);
}

static void test_pit_speaker(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	unsigned was;

	/* How kernels measure the TSC: counter 2 in mode 0 behind its gate. */
	outb(m, 0x61, 0x01);
	pit_program(m, 2, 0, 10000);
	assert_int_equal(inb(m, 0x61) & 0x21, 0x01);
	machine_advance(m, TICKS(5000));
	outb(m, 0x61, 0x00); /* stands still */
	machine_advance(m, TICKS(50000));
	assert_int_equal(inb(m, 0x61) & 0x20, 0);
	outb(m, 0x61, 0x01);
	machine_advance(m, TICKS(4990));
	assert_int_equal(inb(m, 0x61) & 0x20, 0);
	machine_advance(m, TICKS(20));
	assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
	/* The refresh bit toggles. */
	was = inb(m, 0x61) & 0x10;
	machine_advance(m, 15085);
	assert_int_not_equal(inb(m, 0x61) & 0x10, was);
}

static void test_pit_save(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	unsigned a;
	struct str s;

	pit_program(m, 0, 2, 20000);
	machine_advance(m, TICKS(5000));
	outb(m, 0x43, 0x00);
	a = inb(m, 0x40); /* the low byte; the high one after restoring */
	s = machine_save(m);
	i8254_reset(f->pit);
	machine_load(m, &s);
	a |= inb(m, 0x40) << 8;
	assert_in_range(a, 14990, 15000);
	m->edges[IRQ0] = 0;
	machine_advance(m, TICKS(14990));
	assert_int_equal(m->edges[IRQ0], 0);
	machine_advance(m, TICKS(10));
	assert_int_equal(m->edges[IRQ0], 1);
}

/* ---- MC146818 ---- */

static uint8_t cmos(struct machine *m, unsigned at)
{
	outb(m, 0x70, at | 0x80);
	return inb(m, 0x71);
}

static void cmos_write(struct machine *m, unsigned at, unsigned val)
{
	outb(m, 0x70, at);
	outb(m, 0x71, val);
}

static void test_rtc_time(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	assert_int_equal(cmos(m, 0), 0x59);
	assert_int_equal(cmos(m, 2), 0x59);
	assert_int_equal(cmos(m, 4), 0x23);
	assert_int_equal(cmos(m, 6), 4);
	assert_int_equal(cmos(m, 7), 0x28);
	assert_int_equal(cmos(m, 8), 2);
	assert_int_equal(cmos(m, 9), 0x24);
	assert_int_equal(cmos(m, 0x32), 0x20);
	assert_int_equal(cmos(m, 0x0d), 0x80);
	machine_advance(m, NS_PER_SEC); /* into the leap day */
	assert_int_equal(cmos(m, 7), 0x29);
	assert_int_equal(cmos(m, 4), 0);
	cmos_write(m, 0x0b, 0x04); /* binary, 12 hours */
	assert_int_equal(cmos(m, 4), 12);
	machine_advance(m, 13ull * 3600 * NS_PER_SEC);
	assert_int_equal(cmos(m, 4), 0x81);
	assert_int_equal(cmos(m, 7), 29);
	assert_int_equal(cmos(m, 9), 24);
}

static void test_rtc_set(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	static const uint8_t val[][2] = {{0, 0x58}, {2, 0x59}, {4, 0x23},   {7, 0x31},
					 {8, 0x12}, {9, 0x99}, {0x32, 0x19}};

	cmos_write(m, 0x0b, 0x82);
	for (unsigned i = 0; i < ARRAY_LEN(val); i++)
		cmos_write(m, val[i][0], val[i][1]);
	machine_advance(m, 5 * NS_PER_SEC);
	assert_int_equal(cmos(m, 0), 0x58); /* stands still */
	cmos_write(m, 0x0b, 0x02);
	assert_int_equal(rtc_time(f->rtc), 946684798);
	machine_advance(m, 2 * NS_PER_SEC);
	assert_int_equal(cmos(m, 9), 0);
	assert_int_equal(cmos(m, 0x32), 0x20);
	assert_int_equal(rtc_time(f->rtc), 946684800);
	/* UIP in the last 244 us of a second only. */
	rtc_set_time(f->rtc, EPOCH);
	assert_int_equal(cmos(m, 0x0a) & 0x80, 0);
	machine_advance(m, NS_PER_SEC - 100000);
	assert_int_equal(cmos(m, 0x0a) & 0x80, 0x80);
	machine_advance(m, 100000);
	assert_int_equal(cmos(m, 0x0a) & 0x80, 0);
}

static void test_rtc_periodic(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	unsigned n = 0;

	cmos_write(m, 0x0b, 0x42); /* 1024 Hz */
	for (unsigned i = 0; i < 10000; i++) {
		machine_advance(m, 100000);
		if (m->line[IRQ8]) {
			assert_int_equal(cmos(m, 0x0c) & 0xc0, 0xc0);
			assert_false(m->line[IRQ8]);
			n++;
		}
	}
	assert_in_range(n, 1023, 1024);
	/* The guest looks away for 100 periods; each is made up for. */
	machine_advance(m, 100 * NS_PER_SEC / 1024);
	for (unsigned i = n = 0; i < 10000; i++) {
		machine_advance(m, 100000);
		if (m->line[IRQ8])
			n += cmos(m, 0x0c) >> 7;
	}
	assert_in_range(n, 1022 + 100, 1026 + 100);
	/* Without the interrupt the flag comes all the same. */
	cmos_write(m, 0x0b, 0x02);
	cmos(m, 0x0c);
	assert_int_equal(cmos(m, 0x0c), 0);
	machine_advance(m, NS_PER_MS);
	assert_int_equal(cmos(m, 0x0c) & 0x40, 0x40);
}

static void test_rtc_alarm(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	cmos_write(m, 1, 0x05);
	cmos_write(m, 3, 0x00);
	cmos_write(m, 5, 0x00);
	cmos_write(m, 0x0b, 0x22);
	machine_advance(m, 5 * NS_PER_SEC);
	assert_false(m->line[IRQ8]);
	machine_advance(m, NS_PER_SEC);
	assert_true(m->line[IRQ8]);
	assert_int_equal(cmos(m, 0x0c) & 0xa0, 0xa0);
	machine_advance(m, 86000 * NS_PER_SEC);
	assert_int_equal(cmos(m, 0x0c) & 0xa0, 0);
	cmos_write(m, 3, 0xff); /* any minute, any hour */
	cmos_write(m, 5, 0xff);
	machine_advance(m, 60 * NS_PER_SEC);
	assert_true(m->line[IRQ8]);
	/* Update-ended interrupt. */
	cmos(m, 0x0c);
	cmos_write(m, 0x0b, 0x12);
	cmos(m, 0x0c);
	machine_advance(m, NS_PER_SEC);
	assert_int_equal(cmos(m, 0x0c) & 0x90, 0x90);
	/* Polled: the alarm's flag without a timer. */
	cmos_write(m, 0x0b, 0x02);
	cmos(m, 0x0c);
	machine_advance(m, 59 * NS_PER_SEC);
	m->fired = 0;
	machine_advance(m, 3 * NS_PER_SEC);
	assert_int_equal(m->fired, 0);
	assert_int_equal(cmos(m, 0x0c) & 0x10, 0x10);
}

static void test_rtc_memory(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct str s;

	rtc_set_nvram(f->rtc, 0x5f, 3);
	rtc_set_nvram(f->rtc, 5, 0x77); /* not memory */
	assert_int_equal(cmos(m, 0x5f), 3);
	assert_int_not_equal(cmos(m, 5), 0x77);
	cmos_write(m, 0x0f, 0x0a);
	outb(m, 0x72, 0x12);
	outb(m, 0x73, 0x34);
	assert_int_equal(rtc_nvram(f->rtc, 0x92), 0x34);
	rtc_reset(f->rtc);
	assert_int_equal(cmos(m, 0x0f), 0x0a); /* memory stays */
	s = machine_save(m);
	cmos_write(m, 0x0f, 0);
	rtc_set_time(f->rtc, 0);
	machine_load(m, &s);
	assert_int_equal(cmos(m, 0x0f), 0x0a);
	assert_int_equal(rtc_time(f->rtc), EPOCH);
}

/* ---- HPET ---- */

static uint64_t hpet(struct machine *m, unsigned at)
{
	return mmio_read(m, HPET_BASE + at, 8);
}

static void hpet_set(struct machine *m, unsigned at, uint64_t val)
{
	mmio_write(m, HPET_BASE + at, 8, val);
}

static void test_hpet_counter(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	assert_int_equal(hpet(m, 0) >> 32, HPET_PERIOD_FS);
	assert_int_equal(hpet(m, 0) & 0xffffffff, 0x8086a201);
	machine_advance(m, NS_PER_SEC);
	assert_int_equal(hpet(m, 0xf0), 0); /* off */
	hpet_set(m, 0x10, 1);
	machine_advance(m, NS_PER_MS);
	assert_int_equal(hpet(m, 0xf0), 100000);
	assert_int_equal(mmio_read(m, HPET_BASE + 0xf0, 4), 100000);
	hpet_set(m, 0xf0, 0xfffffffff);
	machine_advance(m, 10);
	assert_int_equal(mmio_read(m, HPET_BASE + 0xf4, 4), 0x10);
	hpet_set(m, 0x10, 0);
	machine_advance(m, NS_PER_MS);
	assert_int_equal(hpet(m, 0xf0), 0x1000000000);
}

static void test_hpet_oneshot(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	unsigned line = GSI + 20;

	hpet_set(m, 0x10, 1);
	hpet_set(m, 0x140, 20 << 9 | 4); /* timer 2, input 20, edge */
	hpet_set(m, 0x148, 1000);
	machine_advance(m, 9990);
	assert_int_equal(m->edges[line], 0);
	machine_advance(m, 10);
	assert_int_equal(m->edges[line], 1);
	assert_int_equal(hpet(m, 0x20), 0);
	/* Level: until the status bit is cleared. */
	hpet_set(m, 0x140, 20 << 9 | 4 | 2);
	hpet_set(m, 0x148, 2000);
	machine_advance(m, 20000);
	assert_true(m->line[line]);
	assert_int_equal(hpet(m, 0x20), 4);
	hpet_set(m, 0x20, 4);
	assert_false(m->line[line]);
}

static void test_hpet_periodic(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;

	hpet_set(m, 0x100, 4 | 8 | 0x40);
	hpet_set(m, 0x108, 100000); /* first at 1 ms */
	hpet_set(m, 0x108, 100000); /* period 1 ms */
	hpet_set(m, 0x10, 3);       /* legacy replacement */
	assert_int_equal(m->calls, 1);
	m->edges[IRQ0] = 0;
	pit_program(m, 0, 2, 1193); /* not connected any more */
	machine_advance(m, NS_PER_SEC);
	assert_int_equal(m->edges[IRQ0], 1000);
	machine_stall(m, 50 * NS_PER_MS);
	machine_advance(m, 950 * NS_PER_MS);
	assert_int_equal(m->edges[IRQ0], 2000);
	machine_stall(m, 10 * NS_PER_SEC);
	machine_advance(m, NS_PER_SEC);
	assert_in_range(m->edges[IRQ0], 3000, 3001);
	hpet_reset(f->hpet);
	assert_int_equal(m->calls, 2);
}

static void test_hpet_halves(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	unsigned line = GSI + 21;

	/* A 64-bit periodic comparator by two 32-bit writes, as Linux programs it. */
	hpet_set(m, 0x10, 1);
	mmio_write(m, HPET_BASE + 0x140, 4, 21 << 9 | 4 | 8 | 0x40);
	mmio_write(m, HPET_BASE + 0x148, 4, 5000);
	mmio_write(m, HPET_BASE + 0x14c, 4, 0);
	mmio_write(m, HPET_BASE + 0x148, 4, 1000);
	assert_int_equal(hpet(m, 0x148), 5000);
	machine_advance(m, 50000);
	assert_int_equal(m->edges[line], 1);
	machine_advance(m, 1000000);
	assert_int_equal(m->edges[line], 1 + 50); /* faster than 20 us is spread out */
	mmio_write(m, HPET_BASE + 0x10, 4, 0);
	assert_int_equal(hpet(m, 0x10), 0);
}

static void test_hpet_save(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct str s;

	hpet_set(m, 0x100, 4 | 8 | 0x40);
	hpet_set(m, 0x108, 100000);
	hpet_set(m, 0x108, 100000);
	hpet_set(m, 0x10, 3);
	m->edges[IRQ0] = 0;
	machine_advance(m, 5 * NS_PER_MS + 500000);
	s = machine_save(m);
	hpet_reset(f->hpet);
	machine_load(m, &s);
	assert_int_equal(hpet(m, 0xf0), 550000);
	machine_advance(m, 499990);
	assert_int_equal(m->edges[IRQ0], 5);
	machine_advance(m, 10);
	assert_int_equal(m->edges[IRQ0], 6);
}

/* ---- ACPI power management ---- */

static void test_pm_timer(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	uint32_t a = inl(m, 0x608);

	machine_advance(m, NS_PER_SEC);
	assert_int_equal((inl(m, 0x608) - a) & 0xffffff, 3579545);
	/* The top bit changes every 2.34 s. */
	outw(m, 0x604, 1);
	outw(m, 0x600, 1);
	outw(m, 0x602, 1);
	assert_false(m->line[SCI]);
	machine_advance(m, 2343484438ull);
	assert_true(m->line[SCI]);
	outw(m, 0x600, 1);
	assert_false(m->line[SCI]);
	outw(m, 0x602, 0);
	machine_advance(m, 2343484438ull);
	assert_false(m->line[SCI]);
	assert_int_equal(inb(m, 0x600) & 1, 1);
}

static void test_pm_buttons(void **state)
{
	struct fixture *f = *state;
	struct machine *m = &f->m;
	struct str s;

	assert_false(acpi_pm_power_button(f->pm)); /* nobody listens */
	outw(m, 0x600, 0x100);
	outb(m, 0xb2, ACPI_ENABLE);
	assert_int_equal(inb(m, 0x604), 1);
	outw(m, 0x602, 0x100);
	assert_true(acpi_pm_power_button(f->pm));
	assert_true(m->line[SCI]);
	outb(m, 0x601, 1);
	assert_false(m->line[SCI]);
	/* A general-purpose event. */
	acpi_pm_gpe(f->pm, 13);
	outb(m, 0x629, 0x20);
	assert_true(m->line[SCI]);
	s = machine_save(m);
	acpi_pm_reset(f->pm);
	assert_false(m->line[SCI]);
	machine_load(m, &s);
	assert_true(m->line[SCI]);
	outb(m, 0x621, 0x20);
	assert_false(m->line[SCI]);
	assert_int_equal(inl(m, 0x630) & 0x20, 0x20); /* SeaBIOS: SMM is set up */
	/* Sleep type 5; then the registers move. */
	m->calls = 0;
	outw(m, 0x604, 5 << 10 | 1 << 13);
	assert_int_equal(m->calls, 1);
	assert_int_equal(m->called, 5);
	assert_int_equal(acpi_pm_set_base(f->pm, 0xb000), 0);
	assert_int_equal(inb(m, 0x604), 0xff);
	assert_int_equal(inb(m, 0xb005), 5 << 2);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_pit_rate),     T(test_pit_late),      T(test_pit_oneshot),
		T(test_pit_counting), T(test_pit_new_count), T(test_pit_speaker),
		T(test_pit_save),     T(test_rtc_time),      T(test_rtc_set),
		T(test_rtc_periodic), T(test_rtc_alarm),     T(test_rtc_memory),
		T(test_hpet_counter), T(test_hpet_oneshot),  T(test_hpet_periodic),
		T(test_hpet_halves),  T(test_hpet_save),     T(test_pm_timer),
		T(test_pm_buttons),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

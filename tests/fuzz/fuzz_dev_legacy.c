/*
 * tests/fuzz/fuzz_dev_legacy.c - a guest that does anything to the legacy devices: each input is a
 * string of actions (port and memory accesses, time, input, saving, restoring of damaged state).
 * Besides crashes it finds: timers that run wild, state that does not survive saving.
 */
#include "../unit/machine.h"

#include <stdio.h>

#include "dev/acpi_pm.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/ioapic.h"
#include "dev/isa_misc.h"
#include "dev/rtc.h"
#include "dev/uart16550.h"
#include "emu/lapic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CPUS        2
#define MAX_ADVANCE (20 * NS_PER_MS)
/* Timers per 20 ms: no device may ask for more than one in 20 us; there are less than 20. */
#define MAX_FIRED   (20 * 1000 + 1000)

struct box {
	struct machine m;
	struct i8259 *pic;
	struct i8254 *pit;
	struct rtc *rtc;
	struct hpet *hpet;
	struct acpi_pm *pm;
	struct ioapic *io;
	struct uart16550 *uart;
	struct i8042 *kbd;
	struct fw_cfg *fw;
	struct port92 *p92;
	struct cf9 *cf9;
	struct chr chr;
	struct lapic_set set;
	struct lapic *apic[CPUS], cpu[CPUS];
};

static struct box *the;

/* ---- what the devices reach ---- */

static void isa_line(void *ctx, unsigned n, bool level)
{
	struct box *b = ctx;
	struct irq pic, io;

	if (!b->pic || !b->io)
		return;
	pic = i8259_line(b->pic, n);
	io = ioapic_line(b->io, n ? n : 2);
	irq_set(&pic, level);
	irq_set(&io, level);
}

static void gsi_line(void *ctx, unsigned n, bool level)
{
	struct box *b = ctx;
	struct irq io = ioapic_line(b->io, n);

	irq_set(&io, level);
}

static void on_legacy(void *ctx, bool on)
{
	struct box *b = ctx;

	i8254_connect(b->pit, !on);
	rtc_connect(b->rtc, !on);
}

static void on_msi(void *ctx, uint64_t addr, uint32_t data)
{
	lapic_msi(&((struct box *)ctx)->set, addr, data);
}

static void on_int(void *ctx, unsigned n, bool level)
{
	(void)n;
	if (level)
		lapic_extint(&((struct box *)ctx)->set);
}

static void chr_write(struct chr *c, const uint8_t *p, size_t len)
{
	(void)c;
	(void)p;
	(void)len;
}

static const struct chr_ops chr_ops = {.write = chr_write};

static void cpu_nothing(void *cpu)
{
	(void)cpu;
}

static void cpu_sipi(void *cpu, uint8_t vector)
{
	(void)cpu;
	(void)vector;
}

static uint64_t cpu_tsc(void *cpu)
{
	(void)cpu;
	return the->m.loop.now * 3;
}

static void on_eoi(void *ctx, unsigned vector)
{
	ioapic_eoi(((struct box *)ctx)->io, vector);
}

static bool on_pic_ready(void *ctx)
{
	return i8259_ready(((struct box *)ctx)->pic);
}

static int on_pic_take(void *ctx)
{
	return i8259_take(((struct box *)ctx)->pic);
}

static const struct lapic_ops lapic_ops = {
	.notify = cpu_nothing,
	.nmi = cpu_nothing,
	.init = cpu_nothing,
	.sipi = cpu_sipi,
	.tsc = cpu_tsc,
	.eoi = on_eoi,
	.pic_ready = on_pic_ready,
	.pic_take = on_pic_take,
};

static void on_reset(void *ctx)
{
	(void)ctx;
}

/* ---- life ---- */

static void box_init(struct box *b)
{
	struct irq line[16], intr = {on_int, b, 0};
	struct hpet_cfg hpet;
	struct i8042_user user = {.reset = on_reset, .ctx = b};
	struct port92_user user92 = {.reset = on_reset, .ctx = b};
	struct vm_env *env = &b->m.env;

	machine_init(&b->m);
	env->msi = (struct msi_target){on_msi, b};
	b->set = (struct lapic_set){.ops = &lapic_ops,
				    .ctx = b,
				    .loop = &b->m.loop,
				    .tsc_khz = 3000000,
				    .n_cpus = CPUS,
				    .apic = b->apic};
	if (ram_init(&b->m.ram, 1 << 16, NULL) || ram_add(&b->m.ram, 0, 1 << 16, NULL))
		abort();
	for (unsigned i = 0; i < 16; i++)
		line[i] = (struct irq){isa_line, b, i};
	b->pic = i8259_new(env, &intr, NULL);
	b->io = ioapic_new(env, 0, NULL, NULL);
	for (unsigned i = 0; i < CPUS; i++) {
		lapic_init(&b->cpu[i], &b->set, i, b);
		b->apic[i] = &b->cpu[i];
	}
	b->pit = i8254_new(env, &line[0], NULL);
	b->rtc = rtc_new(env, &line[8], 1700000000, NULL);
	hpet = (struct hpet_cfg){.gsi = {gsi_line, b, 0},
				 .routes = 0xff0104,
				 .legacy = {line[0], line[8]},
				 .legacy_changed = on_legacy,
				 .ctx = b};
	b->hpet = hpet_new(env, &hpet, NULL);
	b->pm = acpi_pm_new(env, ACPI_PM_BASE, &line[9], NULL, NULL);
	b->chr.ops = &chr_ops;
	b->uart = uart16550_new(env, 0, 0x3f8, &line[4], &b->chr, NULL);
	b->kbd = i8042_new(env, &line[1], &line[12], &user, NULL);
	b->fw = fw_cfg_new(env, NULL);
	b->p92 = port92_new(env, &user92, NULL);
	fw_cfg_file(b->fw, "etc/test", "0123456789", 10, NULL);
	fw_cfg_writable(b->fw, "etc/written", 8, NULL, NULL, NULL);
}

static void box_reset(struct box *b)
{
	i8259_reset(b->pic);
	i8254_reset(b->pit);
	rtc_reset(b->rtc);
	hpet_reset(b->hpet);
	acpi_pm_reset(b->pm);
	ioapic_reset(b->io);
	uart16550_reset(b->uart);
	i8042_reset(b->kbd);
	fw_cfg_reset(b->fw);
	port92_reset(b->p92);
	for (unsigned i = 0; i < CPUS; i++)
		lapic_reset(&b->cpu[i], false);
}

static void box_fini(struct box *b)
{
	i8254_free(b->pit);
	rtc_free(b->rtc);
	hpet_free(b->hpet);
	acpi_pm_free(b->pm);
	uart16550_free(b->uart);
	i8042_free(b->kbd);
	fw_cfg_free(b->fw);
	port92_free(b->p92);
	for (unsigned i = 0; i < CPUS; i++)
		lapic_fini(&b->cpu[i]);
	ioapic_free(b->io);
	i8259_free(b->pic);
	machine_fini(&b->m);
}

static void broken(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

/* ---- actions ---- */

struct input {
	const uint8_t *p;
	size_t left;
};

static uint64_t number(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

/* Ports of all devices; others would be a waste. */
static const uint16_t ports[] = {
	0x20,  0x21,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,  0x64,  0x70,
	0x71,  0x72,  0x73,  0x92,  0xa0,  0xa1,  0xb2,  0xb3,  0x3f8, 0x3f9,
	0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x4d0, 0x4d1, 0x510, 0x511,
	0x514, 0x518, 0x600, 0x602, 0x604, 0x608, 0x620, 0x628, 0x630, 0x634,
};

static void on_port(struct box *b, struct input *in)
{
	unsigned n = (unsigned)number(in, 1), op = (unsigned)number(in, 1);
	unsigned port = ports[n % ARRAY_LEN(ports)], size = 1u << op % 3;
	uint64_t v;

	if (op & 8)
		bus_write(&b->m.pio, port, size, number(in, size));
	else
		bus_read(&b->m.pio, port, size, &v);
}

static void on_memory(struct box *b, struct input *in)
{
	unsigned off = (unsigned)number(in, 2), op = (unsigned)number(in, 1);
	unsigned size = 1u << op % 4;
	uint64_t v, addr;

	addr = (op & 0x10 ? HPET_BASE : IOAPIC_BASE) + off % 0x400;
	if (op & 8)
		bus_write(&b->m.mmio, addr, size, number(in, size));
	else
		bus_read(&b->m.mmio, addr, size, &v);
}

static void on_lapic(struct box *b, struct input *in)
{
	unsigned off = (unsigned)number(in, 1) << 4, op = (unsigned)number(in, 1);
	struct lapic *l = &b->cpu[op & 1];
	uint64_t v;

	switch (op >> 1 & 7) {
	case 0: lapic_mmio_read(l, off & 0x3ff, 4); break;
	case 1: lapic_mmio_write(l, off & 0x3ff, 4, number(in, 4)); break;
	case 2: lapic_msr_get(l, 0x800 + (off >> 4), &v); break;
	case 3: lapic_msr_set(l, 0x800 + (off >> 4), number(in, 8)); break;
	case 4: lapic_msr_set(l, 0x1b, 0xfee00000 | number(in, 2)); break;
	case 5: lapic_msr_set(l, 0x6e0, cpu_tsc(l) + number(in, 4)); break;
	case 6: lapic_set_cr8(l, off >> 4); break;
	default:
		if (lapic_ready(l) && lapic_take(l) < 0 && lapic_ready(l))
			broken("an interrupt is ready and cannot be taken");
		break;
	}
}

static void on_time(struct box *b, struct input *in)
{
	uint64_t ns = number(in, 4) % MAX_ADVANCE;

	b->m.fired = 0;
	if (number(in, 1) % 8 == 0)
		machine_stall(&b->m, ns * 256);
	else
		machine_advance(&b->m, ns);
	if (b->m.fired > MAX_FIRED)
		broken("timers run wild");
}

static void on_input(struct box *b, struct input *in)
{
	uint8_t byte = (uint8_t)number(in, 1);

	switch (number(in, 1) % 4) {
	case 0: i8042_key(b->kbd, byte | (unsigned)number(in, 2), byte & 1); break;
	case 1:
		i8042_mouse(b->kbd, (int)number(in, 4), (int8_t)byte, byte, byte);
		break;
	case 2:
		if (b->chr.peer.room(b->chr.peer.dev))
			b->chr.peer.receive(b->chr.peer.dev, &byte, 1);
		break;
	default: acpi_pm_gpe(b->pm, byte); break;
	}
}

/* Names the section and field where two states begin to differ. */
static void differ(const struct str *one, const struct str *two)
{
	size_t at = 0, from;

	while (at < one->len && at < two->len && one->p[at] == two->p[at])
		at++;
	for (from = at; from && at - from < 400 && memcmp(one->p + from, "SECT", 4);)
		from--;
	fprintf(stderr, "restored state differs at byte %zu:", at);
	for (; from < at; from++)
		if (one->p[from] >= ' ' && one->p[from] < 127)
			fputc(one->p[from], stderr);
	fprintf(stderr, " %02x became %02x\n", one->p[at] & 0xff, two->p[at] & 0xff);
	broken("");
}

/* Restoring what was saved changes nothing; restoring something damaged fails or goes well. */
static void on_state(struct box *b, struct input *in)
{
	struct str one = {0}, two = {0};
	unsigned flips = (unsigned)number(in, 1) % 8;
	struct err err = {0};

	if (state_save(&b->m.state, &one, &err) ||
	    state_load(&b->m.state, one.p, one.len, &err) ||
	    state_save(&b->m.state, &two, &err))
		broken(err.msg);
	if (one.len != two.len || memcmp(one.p, two.p, one.len))
		differ(&one, &two);
	for (unsigned i = 0; i < flips; i++)
		one.p[number(in, 2) % one.len] = (char)number(in, 1);
	/* A machine whose state could not be restored does not run: back to the good one. */
	if (flips && state_load(&b->m.state, one.p, one.len, NULL) &&
	    state_load(&b->m.state, two.p, two.len, &err))
		broken(err.msg);
	str_fini(&one);
	str_fini(&two);
}

static void on_lapic_state(struct box *b, struct input *in)
{
	struct lapic *l = &b->cpu[number(in, 1) & 1];
	uint8_t page[LAPIC_PAGE_SIZE];
	uint64_t left;

	lapic_save(l, page, &left);
	for (unsigned i = 0; i < 4; i++)
		page[number(in, 2) % sizeof(page)] = (uint8_t)number(in, 1);
	lapic_load(l, 0xfee00000 | (number(in, 2) & 0xd00), page, number(in, 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct box b;
	struct input in = {data, min_u64(len, 4096)};

	memset(&b, 0, sizeof(b));
	the = &b;
	box_init(&b);
	while (in.left) {
		switch (number(&in, 1) % 16) {
		case 0 ... 5: on_port(&b, &in); break;
		case 6 ... 7: on_memory(&b, &in); break;
		case 8 ... 9: on_lapic(&b, &in); break;
		case 10 ... 12: on_time(&b, &in); break;
		case 13: on_input(&b, &in); break;
		case 14: on_state(&b, &in); break;
		default:
			if (number(&in, 1) % 8)
				on_lapic_state(&b, &in);
			else
				box_reset(&b);
			break;
		}
	}
	box_fini(&b);
	return 0;
}

/*
 * fw/acpi.c - the ACPI tables of a board.
 *
 * ACPI 6.3, 5.2; HPET 1.0a, 3.2.4; PCI Firmware 3.2, 4.1.2 (MCFG); Windows ACPI emulated devices
 * table (WAET). One thread, before the processors start.
 */
#include "fw/acpi.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "fw/acpi_int.h"
#include "vm/dma.h"

#define OEM_ID     "VMTOOL"
#define OEM_TABLE  "VMTABLES"
#define CREATOR_ID "VMTK"

#define LAPIC_BASE 0xfee00000u
#define RSDP_LEN   36
#define FACS_OFF   64 /* in the blob, behind the RSDP; its alignment is 64 */
#define FACS_LEN   64
#define DATA_OFF   (FACS_OFF + FACS_LEN)

/* Generic address structure (5.2.3.2). */
enum { GAS_MEMORY = 0, GAS_IO = 1 };

/* FADT flags (5.2.9). */
enum {
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_NO_SLEEP_BUTTON =
		1 << 5, /* ... in fixed hardware; the power button is there */
	FADT_NO_FIXED_RTC = 1 << 6, /* the RTC does not wake the machine */
	FADT_TMR_VAL_EXT = 1 << 8,
	FADT_RESET_REG_SUP = 1 << 10,
	FADT_USE_PLATFORM_CLOCK = 1 << 15,
};

/* IA-PC boot architecture flags. */
enum {
	BOOT_LEGACY_DEVICES = 1 << 0,
	BOOT_8042 = 1 << 1,
	BOOT_NO_VGA = 1 << 2,
	BOOT_NO_RTC = 1 << 5,
};

/* Tables under construction. */
struct build {
	const struct acpi_config *cfg;
	struct acpi_tables *t;
	struct str out;                   /* the blob */
	uint64_t dsdt, fadt;              /* guest addresses */
	uint32_t listed[ACPI_MAX_TABLES]; /* tables for RSDT and XSDT */
	unsigned n_listed;
	size_t at; /* the open table */
};

static uint8_t checksum(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint8_t sum = 0;

	while (len--)
		sum += *b++;
	return (uint8_t)-sum;
}

static void put(struct build *b, uint64_t v, unsigned bytes)
{
	str_add(&b->out, &v, bytes);
}

static void name_table(struct build *b, const char *name, size_t off, size_t len)
{
	struct acpi_table *t = &b->t->table[b->t->n_tables++];

	memcpy(t->name, name, 4);
	t->off = off;
	t->len = len;
}

/* A table with its header (5.2.6); length and checksum come with table_end(). */
static void table_begin(struct build *b, const char *sig, uint8_t revision)
{
	str_add(&b->out, NULL, align_up(b->out.len, 16) - b->out.len);
	b->at = b->out.len;
	str_add(&b->out, sig, 4);
	put(b, 0, 4);
	put(b, revision, 1);
	put(b, 0, 1);
	str_add(&b->out, OEM_ID, 6);
	str_add(&b->out, OEM_TABLE, 8);
	put(b, 1, 4);
	str_add(&b->out, CREATOR_ID, 4);
	put(b, 1, 4);
}

/* Returns the table's guest address. */
static uint64_t table_end(struct build *b)
{
	uint32_t len = (uint32_t)(b->out.len - b->at);
	char *h = b->out.p + b->at;

	if (b->out.failed)
		return 0;
	memcpy(h + 4, &len, sizeof(len));
	h[9] = 0;
	h[9] = (char)checksum(h, len);
	name_table(b, h, b->at, len);
	return b->t->base + b->at;
}

static void table_end_listed(struct build *b)
{
	uint64_t gpa = table_end(b);

	b->listed[b->n_listed++] = (uint32_t)gpa;
}

/* `access`: in bytes, or 0 for any. Address 0: absent. */
static void put_gas(struct build *b, unsigned space, uint64_t addr, unsigned bytes,
		    unsigned access)
{
	static const uint8_t code[] = {[1] = 1, [2] = 2, [4] = 3};

	put(b, space, 1);
	put(b, addr ? bytes * 8 : 0, 1);
	put(b, 0, 1);
	put(b, addr ? code[access] : 0, 1);
	put(b, addr, 8);
}

/* ---- the tables ---- */

static void build_facs(struct build *b)
{
	uint8_t f[FACS_LEN] = "FACS";

	f[4] = FACS_LEN;
	f[32] = 2; /* version */
	memcpy(b->out.p + FACS_OFF, f, sizeof(f));
	name_table(b, "FACS", FACS_OFF, FACS_LEN);
}

static uint32_t fadt_flags(const struct acpi_config *c)
{
	uint32_t f =
		FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC;

	if (c->pm_timer_32)
		f |= FADT_TMR_VAL_EXT;
	if (c->acpi1)
		return f;
	if (c->reset_cf9)
		f |= FADT_RESET_REG_SUP;
	return f | FADT_USE_PLATFORM_CLOCK;
}

static uint16_t boot_arch(const struct acpi_config *c)
{
	uint16_t f = 0;

	if (c->n_serial || c->pit || c->pic)
		f |= BOOT_LEGACY_DEVICES;
	if (c->i8042)
		f |= BOOT_8042;
	if (!c->vga)
		f |= BOOT_NO_VGA;
	if (!c->rtc)
		f |= BOOT_NO_RTC;
	return f;
}

/* The part that came with ACPI 1.0, up to offset 116. */
static void fadt_1(struct build *b)
{
	const struct acpi_config *c = b->cfg;
	uint32_t pm = c->pm_base;

	put(b, b->t->base + FACS_OFF, 4);
	put(b, b->dsdt, 4);
	put(b, c->acpi1, 1);         /* interrupt model: 1 = APIC; reserved later */
	put(b, c->acpi1 ? 0 : 1, 1); /* profile: desktop */
	put(b, c->sci, 2);
	put(b, c->smi_port, 4);
	put(b, c->acpi_enable, 1);
	put(b, c->acpi_disable, 1);
	put(b, 0, 2); /* S4BIOS, P states */
	put(b, pm, 4);
	put(b, 0, 4);
	put(b, pm ? pm + 4 : 0, 4);
	put(b, 0, 8); /* PM1b control, PM2 control */
	put(b, pm ? pm + 8 : 0, 4);
	put(b, c->gpe0_base, 4);
	put(b, 0, 4);
	put(b, 4, 1); /* PM1 event, control, PM2 control, timer lengths */
	put(b, 2, 1);
	put(b, 0, 1);
	put(b, 4, 1);
	put(b, c->gpe0_base ? c->gpe0_len : 0, 1);
	put(b, 0, 3);
	put(b, 0x0fff, 2); /* no C2, no C3 */
	put(b, 0x0fff, 2);
	put(b, 0, 4);                 /* cache flushing without WBINVD */
	put(b, 0, 4);                 /* duty cycle, alarms */
	put(b, c->rtc ? 0x32 : 0, 1); /* the century in CMOS memory */
	put(b, c->acpi1 ? 0 : boot_arch(c), 2);
	put(b, 0, 1);
	put(b, fadt_flags(c), 4);
}

static void build_fadt(struct build *b)
{
	const struct acpi_config *c = b->cfg;
	uint32_t pm = c->pm_base;

	table_begin(b, "FACP", c->acpi1 ? 1 : 6);
	fadt_1(b);
	if (!c->acpi1) {
		put_gas(b, GAS_IO, c->reset_cf9 ? 0xcf9 : 0, 1, 1);
		put(b, c->reset_cf9 ? 6 : 0, 1);
		put(b, 0, 2);
		put(b, 3, 1); /* 6.3 */
		put(b, 0, 8); /* the FACS' address is in the 32-bit field */
		put(b, b->dsdt, 8);
		put_gas(b, GAS_IO, pm, 4, 2);
		put_gas(b, GAS_IO, 0, 0, 0);
		put_gas(b, GAS_IO, pm ? pm + 4 : 0, 2, 2);
		put_gas(b, GAS_IO, 0, 0, 0);
		put_gas(b, GAS_IO, 0, 0, 0);
		put_gas(b, GAS_IO, pm ? pm + 8 : 0, 4, 4);
		put_gas(b, GAS_IO, c->gpe0_base, c->gpe0_len, 1);
		put_gas(b, GAS_IO, 0, 0, 0);
		put_gas(b, GAS_IO, 0, 0,
			0); /* sleep registers: hardware-reduced only */
		put_gas(b, GAS_IO, 0, 0, 0);
		put(b, 0, 8); /* hypervisor vendor: the guest asks CPUID */
	}
	table_end_listed(b);
}

/* An ISA interrupt that is not edge, active high, at the input of its number. */
static void madt_override(struct build *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	put(b, 2, 1);
	put(b, 10, 1);
	put(b, 0, 1);
	put(b, irq, 1);
	put(b, gsi, 4);
	put(b, flags, 2);
}

static void build_madt(struct build *b)
{
	enum { LEVEL_HIGH = 0x0d, PCAT_COMPAT = 1 };
	const struct acpi_config *c = b->cfg;

	table_begin(b, "APIC", c->acpi1 ? 1 : 5);
	put(b, LAPIC_BASE, 4);
	put(b, c->pic ? PCAT_COMPAT : 0, 4);
	for (unsigned i = 0; i < c->n_cpus; i++) {
		put(b, 0, 1); /* local APIC */
		put(b, 8, 1);
		put(b, i, 1);
		put(b, i, 1);
		put(b, 1, 4); /* enabled */
	}
	put(b, 1, 1); /* I/O APIC */
	put(b, 12, 1);
	put(b, 0, 2);
	put(b, c->ioapic_base, 4);
	put(b, 0, 4);
	if (c->pit)
		madt_override(b, 0, 2, 0);
	madt_override(b, c->sci, c->sci, LEVEL_HIGH);
	put(b, 4, 1); /* NMI at LINT1 of every processor */
	put(b, 6, 1);
	put(b, 0xff, 1);
	put(b, 0, 2);
	put(b, 1, 1);
	table_end_listed(b);
}

static void build_hpet(struct build *b)
{
	table_begin(b, "HPET", 1);
	put(b, 0x8086a201, 4); /* three comparators, 64 bits, legacy routing */
	put_gas(b, GAS_MEMORY, b->cfg->hpet_base, 8, 0);
	put(b, 0, 1);
	put(b, 100, 2); /* least ticks between periodic interrupts */
	put(b, 0, 1);
	table_end_listed(b);
}

static void build_mcfg(struct build *b)
{
	table_begin(b, "MCFG", 1);
	put(b, 0, 8);
	put(b, b->cfg->ecam.base, 8);
	put(b, 0, 2); /* segment, first and last bus */
	put(b, 0, 1);
	put(b, b->cfg->last_bus, 1);
	put(b, 0, 4);
	table_end_listed(b);
}

/* Reading the RTC and the PM timer once is enough here. */
static void build_waet(struct build *b)
{
	table_begin(b, "WAET", 1);
	put(b, 3, 4);
	table_end_listed(b);
}

static void build_roots(struct build *b)
{
	uint64_t xsdt = 0, rsdt;
	uint8_t *r;

	if (!b->cfg->acpi1) {
		table_begin(b, "XSDT", 1);
		for (unsigned i = 0; i < b->n_listed; i++)
			put(b, b->listed[i], 8);
		xsdt = table_end(b);
	}
	table_begin(b, "RSDT", 1);
	for (unsigned i = 0; i < b->n_listed; i++)
		put(b, b->listed[i], 4);
	rsdt = table_end(b);
	if (b->out.failed)
		return;
	r = (uint8_t *)b->out.p;
	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, OEM_ID, 6);
	r[15] = b->cfg->acpi1 ? 0 : 2;
	memcpy(r + 16, &rsdt, 4);
	r[8] = checksum(r, 20);
	name_table(b, "RSDP", 0, b->cfg->acpi1 ? 20 : RSDP_LEN);
	if (b->cfg->acpi1)
		return;
	r[20] = RSDP_LEN;
	memcpy(r + 24, &xsdt, 8);
	r[32] = checksum(r, RSDP_LEN);
}

/* ---- all of it ---- */

static int check_ranges(const struct acpi_config *c, struct err *err)
{
	for (unsigned i = 0; i < ACPI_MAX_WINDOWS; i++) {
		if (!range_ok(c->io[i].base, c->io[i].len, 0x10000) ||
		    !range_ok(c->mmio[i].base, c->mmio[i].len, BIT(32)))
			return err_set(err, EINVAL, "ACPI: PCI window %u is too large",
				       i);
	}
	if (c->mmio64.len && c->mmio64.base + c->mmio64.len < c->mmio64.base)
		return err_set(err, EINVAL, "ACPI: the 64-bit PCI window wraps");
	if (c->ecam.len && (!range_ok(c->ecam.base, c->ecam.len, BIT(32)) ||
			    c->ecam.len < (c->last_bus + 1ull) << 20))
		return err_set(err, EINVAL,
			       "ACPI: 0x%" PRIx64
			       " bytes of PCI configuration space are not enough for "
			       "%u buses, or not below 4 GiB",
			       c->ecam.len, c->last_bus + 1u);
	return 0;
}

static int check_config(const struct acpi_config *c, uint64_t base, struct err *err)
{
	if (!c->n_cpus || c->n_cpus > ACPI_MAX_CPUS)
		return err_set(err, EINVAL, "ACPI: %u processors, 1 to %d are possible",
			       c->n_cpus, ACPI_MAX_CPUS);
	if (base % 64 || base >= BIT(32) - BIT(20))
		return err_set(err, EINVAL, "ACPI: tables cannot be at 0x%" PRIx64,
			       base);
	if (c->n_pirqs && c->n_pirqs != 4 && c->n_pirqs != 8)
		return err_set(err, EINVAL, "ACPI: %u PIRQs, 4 or 8 are possible",
			       c->n_pirqs);
	if (!c->sci || c->sci > 15 || c->n_serial > 4)
		return err_set(err, EINVAL,
			       "ACPI: SCI %u, %u serial ports: out of range", c->sci,
			       c->n_serial);
	for (unsigned i = 0; i < ACPI_PCI_SLOTS * 4; i++)
		if (c->pirq[i / 4][i % 4] >= (c->n_pirqs ? c->n_pirqs : 8))
			return err_set(err, EINVAL,
				       "ACPI: slot %u pin %u goes to PIRQ %u of %u",
				       i / 4, i % 4, c->pirq[i / 4][i % 4], c->n_pirqs);
	return check_ranges(c, err);
}

int acpi_build(const struct acpi_config *cfg, uint64_t base, struct acpi_tables *out,
	       struct err *err)
{
	struct build b = {.cfg = cfg, .t = out};
	int rc = check_config(cfg, base, err);

	*out = (struct acpi_tables){.base = base, .rsdp = base};
	if (rc)
		return rc;
	str_add(&b.out, NULL, DATA_OFF);
	if (!b.out.failed)
		build_facs(&b);
	table_begin(&b, "DSDT", cfg->acpi1 ? 1 : 2);
	dsdt_build(cfg, &b.out);
	b.dsdt = table_end(&b);
	build_fadt(&b);
	if (cfg->ioapic_base)
		build_madt(&b);
	if (cfg->hpet_base)
		build_hpet(&b);
	if (cfg->ecam.len)
		build_mcfg(&b);
	build_waet(&b);
	build_roots(&b);
	if (b.out.failed) {
		str_fini(&b.out);
		*out = (struct acpi_tables){.base = base};
		return err_set(err, ENOMEM, "no memory for the ACPI tables");
	}
	out->blob = (uint8_t *)b.out.p;
	out->len = b.out.len;
	return 0;
}

int acpi_place(const struct acpi_tables *t, struct ram *ram, struct err *err)
{
	if (!dma_write(ram, t->base, t->blob, t->len))
		return err_set(err, ENOSPC,
			       "no memory for %zu bytes of ACPI tables at 0x%" PRIx64,
			       t->len, t->base);
	return 0;
}

void acpi_tables_fini(struct acpi_tables *t)
{
	free(t->blob);
	*t = (struct acpi_tables){.blob = NULL};
}

void acpi_config_q35(struct acpi_config *cfg)
{
	*cfg = (struct acpi_config){
		.n_cpus = 1,
		.pm_base = 0x600,
		.gpe0_base = 0x620,
		.gpe0_len = 16,
		.sci = 9,
		.reset_cf9 = true,
		.ioapic_base = 0xfec00000,
		.pic = true,
		.n_pirqs = 8,
		.pirq_gsi = 16,
		.pirq_dev = 0x1f,
		.pcie = true,
		.ecam = {0xb0000000, 256 << 20},
		.last_bus = 255,
		.io = {{0, 0xcf8}, {0xd00, 0xf300}},
		.hpet_base = 0xfed00000,
		.n_serial = 1,
		.i8042 = true,
		.rtc = true,
		.pit = true,
	};
	/* Pins of slots 0-24 turn over PIRQ E-H, those of the chipset's own functions over A-D. */
	for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < 4; pin++)
			cfg->pirq[slot][pin] = slot < 25 ? 4 + (slot + pin) % 4 : pin;
}

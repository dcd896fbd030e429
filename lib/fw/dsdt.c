/*
 * fw/dsdt.c - the differentiated system description: the devices a bus cannot tell about.
 *
 * ACPI 6.3: 6 (configuration), 6.2.11.3 (_OSC), 7.4.2 (sleep states); PCI Firmware 3.2, 4.5.
 * One thread, before the processors start.
 */
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "fw/acpi_int.h"
#include "fw/aml.h"

/* ISA interrupts that PIRQs may be given by the guest. */
#define LINK_IRQS \
	(BIT(10) | BIT(11)) /* level-triggered: the board sets their ELCR bits */

#define PIRQ_OFF 0x80 /* in a PIRQ register: not connected */

/* ---- devices with fixed resources ---- */

struct isa_io {
	uint16_t port;
	uint8_t len;
};

static bool has_com(const struct acpi_config *c, unsigned uid)
{
	return c->n_serial >= uid;
}

static bool has_i8042(const struct acpi_config *c, unsigned uid)
{
	(void)uid;
	return c->i8042;
}

static bool has_rtc(const struct acpi_config *c, unsigned uid)
{
	(void)uid;
	return c->rtc;
}

static bool has_pit(const struct acpi_config *c, unsigned uid)
{
	(void)uid;
	return c->pit;
}

static bool has_pic(const struct acpi_config *c, unsigned uid)
{
	(void)uid;
	return c->pic;
}

static bool has_dma(const struct acpi_config *c, unsigned uid)
{
	(void)uid;
	return c->dma;
}

static bool has_speaker(const struct acpi_config *c, unsigned uid)
{
	(void)uid;
	return c->speaker;
}

/* clang-format off */
static const struct isa_device {
	const char *name, *hid;
	unsigned uid; /* 0: there is only one */
	bool (*present)(const struct acpi_config *c, unsigned uid);
	struct isa_io io[3];
	int irq, dma; /* -1: none */
} isa_devices[] = {
	{"PIC",  "PNP0000", 0, has_pic,     {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}}, 2, -1},
	{"TIMR", "PNP0100", 0, has_pit,     {{0x40, 4}},                  0, -1},
	{"DMAC", "PNP0200", 0, has_dma,     {{0x00, 16}, {0x81, 15}, {0xc0, 32}}, -1, 4},
	{"SPKR", "PNP0800", 0, has_speaker, {{0x61, 1}},                 -1, -1},
	{"RTC",  "PNP0B00", 0, has_rtc,     {{0x70, 8}},                  8, -1},
	{"KBD",  "PNP0303", 0, has_i8042,   {{0x60, 1}, {0x64, 1}},       1, -1},
	{"MOU",  "PNP0F13", 0, has_i8042,   {{0}},                       12, -1},
	{"COM1", "PNP0501", 1, has_com,     {{0x3f8, 8}},                 4, -1},
	{"COM2", "PNP0501", 2, has_com,     {{0x2f8, 8}},                 3, -1},
	{"COM3", "PNP0501", 3, has_com,     {{0x3e8, 8}},                 4, -1},
	{"COM4", "PNP0501", 4, has_com,     {{0x2e8, 8}},                 3, -1},
};
/* clang-format on */

static void isa_device(struct aml *a, const struct isa_device *d)
{
	struct aml_res res = {.len = 0};

	aml_device(a, d->name);
	aml_name_eisa(a, "_HID", d->hid);
	if (d->uid)
		aml_name_int(a, "_UID", d->uid);
	for (unsigned i = 0; i < ARRAY_LEN(d->io); i++)
		if (d->io[i].len)
			aml_res_io(&res, d->io[i].port, d->io[i].len);
	if (d->irq >= 0)
		aml_res_irq(&res, (unsigned)d->irq);
	if (d->dma >= 0)
		aml_res_dma(&res, (unsigned)d->dma);
	aml_name_res(a, "_CRS", &res);
	aml_end(a);
}

static void pvpanic(struct aml *a, uint16_t port)
{
	struct aml_res res = {.len = 0};

	aml_device(a, "PEVT");
	aml_name_text(a, "_HID",
		      "QEMU0001"); /* what Linux' and Windows' drivers look for */
	aml_res_io(&res, port, 1);
	aml_name_res(a, "_CRS", &res);
	aml_end(a);
}

/* What is taken and belongs to no device: the guest must not put anything there. */
static void motherboard(struct aml *a, const struct acpi_config *c)
{
	struct aml_res res = {.len = 0};

	aml_device(a, "MBRD");
	aml_name_eisa(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 1);
	if (c->pm_base)
		aml_res_io(&res, c->pm_base, 0x80);
	if (c->gpe0_base &&
	    (c->gpe0_base < c->pm_base || c->gpe0_base >= c->pm_base + 0x80))
		aml_res_io(&res, c->gpe0_base, c->gpe0_len);
	if (c->smi_port)
		aml_res_io(&res, c->smi_port, 2);
	if (c->debug_port)
		aml_res_io(&res, c->debug_port, 1);
	aml_res_io(&res, 0x92, 1); /* A20 and fast reset */
	if (c->ecam.len)
		aml_res_mem32(&res, (uint32_t)c->ecam.base, (uint32_t)c->ecam.len);
	aml_name_res(a, "_CRS", &res);
	aml_end(a);
}

static void hpet(struct aml *a, uint32_t base)
{
	struct aml_res res = {.len = 0};

	aml_device(a, "HPET");
	aml_name_eisa(a, "_HID", "PNP0103");
	aml_name_int(a, "_UID", 0);
	aml_res_mem32(&res, base, 0x400);
	aml_name_res(a, "_CRS", &res);
	aml_end(a);
}

/* ---- PCI interrupts ---- */

/* "\_SB.PCI0.ISA.PRQA" and "LNKA" of PIRQ n. */
struct link_names {
	char reg[24], link[8];
};

static struct link_names link_names(unsigned n)
{
	struct link_names s;

	snprintf(s.reg, sizeof(s.reg), "\\_SB.PCI0.ISA.PRQ%c", 'A' + (int)n);
	snprintf(s.link, sizeof(s.link), "LNK%c", 'A' + (int)n);
	return s;
}

/* The function with the PIRQ registers, and the ISA bus behind it. */
static void isa_bridge(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "ISA");
	aml_name_int(a, "_ADR", (uint64_t)c->pirq_dev << 16 | c->pirq_fn);
	if (c->n_pirqs) {
		aml_region(a, "PIRR", AML_PCI_CONFIG, 0x60, 12);
		aml_field(a, "PIRR");
		for (unsigned i = 0; i < c->n_pirqs; i++) {
			char name[] = {'P', 'R', 'Q', (char)('A' + i), 0};

			if (i == 4)
				aml_unit_skip(a, 32);
			aml_unit(a, name, 8);
		}
		aml_end(a);
	}
	for (unsigned i = 0; i < ARRAY_LEN(isa_devices); i++)
		if (isa_devices[i].present(c, isa_devices[i].uid))
			isa_device(a, &isa_devices[i]);
	if (c->pvpanic_port)
		pvpanic(a, c->pvpanic_port);
	aml_end(a);
}

/* Method(name) { CreateDWordField(buffer, 5, IRQ): the first interrupt of a descriptor ... */
static void link_irq_field(struct aml *a)
{
	aml_int(a, 5);
	aml_ref(a, "IRQ");
}

/* A PIRQ's link device: which ISA interrupt it is routed to. */
static void link_device(struct aml *a, unsigned n)
{
	struct link_names s = link_names(n);
	struct aml_res res = {.len = 0};

	aml_device(a, s.link);
	aml_name_eisa(a, "_HID", "PNP0C0F");
	aml_name_int(a, "_UID", n + 1);
	aml_res_pci_irq(&res, LINK_IRQS);
	aml_name_res(a, "_PRS", &res);

	aml_method(a, "_STA", 0, false); /* present; enabled when it is connected */
	aml_if(a);
	aml_op(a, AML_AND);
	aml_ref(a, s.reg);
	aml_int(a, PIRQ_OFF);
	aml_op(a, AML_ZERO);
	aml_op(a, AML_RETURN);
	aml_int(a, 0x09);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_int(a, 0x0b);
	aml_end(a);

	aml_method(a, "_DIS", 0, false);
	aml_op(a, AML_OR);
	aml_ref(a, s.reg);
	aml_int(a, PIRQ_OFF);
	aml_ref(a, s.reg);
	aml_end(a);

	aml_method(a, "_CRS", 0, true);
	aml_res_pci_irq(&res, BIT(0));
	aml_name_res(a, "BUF", &res);
	aml_op(a, AML_CREATE_DWORD);
	aml_ref(a, "BUF");
	link_irq_field(a);
	aml_op(a, AML_AND);
	aml_ref(a, s.reg);
	aml_int(a, 0x0f);
	aml_ref(a, "IRQ");
	aml_op(a, AML_RETURN);
	aml_ref(a, "BUF");
	aml_end(a);

	aml_method(a, "_SRS", 1, true);
	aml_op(a, AML_CREATE_DWORD);
	aml_arg(a, 0);
	link_irq_field(a);
	aml_op(a, AML_STORE);
	aml_ref(a, "IRQ");
	aml_ref(a, s.reg);
	aml_end(a);
	aml_end(a);
}

/* Name(name, the routing of every pin of bus 0): to links, or to the I/O APIC directly. */
static void routing_table(struct aml *a, const struct acpi_config *c, const char *name,
			  bool links)
{
	aml_name(a, name);
	aml_package(a, ACPI_PCI_SLOTS * 4);
	for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < 4; pin++) {
			unsigned pirq = c->pirq[slot][pin];

			aml_package(a, 4);
			aml_int(a, slot << 16 | 0xffff);
			aml_int(a, pin);
			if (links) {
				struct link_names s = link_names(pirq);

				aml_ref(a, s.link);
				aml_int(a, 0);
			} else {
				aml_int(a, 0);
				aml_int(a, c->pirq_gsi + pirq);
			}
			aml_end(a);
		}
	}
	aml_end(a);
}

static void pci_routing(struct aml *a, const struct acpi_config *c)
{
	bool apic = c->ioapic_base && !c->pirq_apic_links;

	if (c->n_pirqs)
		routing_table(a, c, "PRTP", true);
	if (apic)
		routing_table(a, c, "PRTA", false);
	aml_method(a, "_PRT", 0, false);
	if (apic && c->n_pirqs) {
		aml_if(a);
		aml_ref(a, "\\PICF");
		aml_op(a, AML_RETURN);
		aml_ref(a, "PRTA");
		aml_end(a);
	}
	aml_op(a, AML_RETURN);
	aml_ref(a, c->n_pirqs ? "PRTP" : "PRTA");
	aml_end(a);
}

/* ---- the PCI root ---- */

static void pci_windows(struct aml *a, const struct acpi_config *c)
{
	struct aml_res res = {.len = 0};

	aml_res_window(&res, AML_RES_BUS, 2, 0, c->last_bus + 1u);
	aml_res_io(&res, 0xcf8, 8);
	for (unsigned i = 0; i < ACPI_MAX_WINDOWS; i++)
		aml_res_window(&res, AML_RES_IO, 2, c->io[i].base, c->io[i].len);
	if (c->vga)
		aml_res_window(&res, AML_RES_MEMORY, 4, 0xa0000, 0x20000);
	for (unsigned i = 0; i < ACPI_MAX_WINDOWS; i++)
		aml_res_window(&res, AML_RES_MEMORY, 4, c->mmio[i].base,
			       c->mmio[i].len);
	if (!c->acpi1) /* there, integers have 32 bits */
		aml_res_window(&res, AML_RES_MEMORY, 8, c->mmio64.base, c->mmio64.len);
	aml_name_res(a, "_CRS", &res);
}

/* Or(CDW1, bit, CDW1) */
static void osc_status(struct aml *a, unsigned bit)
{
	aml_op(a, AML_OR);
	aml_ref(a, "CDW1");
	aml_int(a, bit);
	aml_ref(a, "CDW1");
}

/* _OSC: the guest may control all of PCI Express but the standard hot-plug controller. */
static void pci_osc(struct aml *a)
{
	/* 33DB4D5B-1FF7-401C-9657-7441C03DD766 */
	static const uint8_t uuid[16] = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f,
					 0x1c, 0x40, 0x96, 0x57, 0x74, 0x41,
					 0xc0, 0x3d, 0xd7, 0x66};
	enum { GRANTED = 0x1d, BAD_UUID = 4, BAD_REVISION = 8, MASKED = 16 };

	aml_method(a, "_OSC", 4, true);
	aml_op(a, AML_CREATE_DWORD);
	aml_arg(a, 3);
	aml_int(a, 0);
	aml_ref(a, "CDW1");
	aml_if(a);
	aml_op(a, AML_EQUAL);
	aml_arg(a, 0);
	aml_buffer(a, uuid, sizeof(uuid));
	aml_op(a, AML_CREATE_DWORD);
	aml_arg(a, 3);
	aml_int(a, 8);
	aml_ref(a, "CDW3");
	aml_op(a, AML_AND);
	aml_ref(a, "CDW3");
	aml_int(a, GRANTED);
	aml_local(a, 0);
	aml_if(a);
	aml_op(a, AML_NOT);
	aml_op(a, AML_EQUAL);
	aml_arg(a, 1);
	aml_int(a, 1);
	osc_status(a, BAD_REVISION);
	aml_end(a);
	aml_if(a);
	aml_op(a, AML_NOT);
	aml_op(a, AML_EQUAL);
	aml_ref(a, "CDW3");
	aml_local(a, 0);
	osc_status(a, MASKED);
	aml_end(a);
	aml_op(a, AML_STORE);
	aml_local(a, 0);
	aml_ref(a, "CDW3");
	aml_end(a);
	aml_else(a);
	osc_status(a, BAD_UUID);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_arg(a, 3);
	aml_end(a);
}

static void pci_root(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "PCI0");
	aml_name_eisa(a, "_HID", c->pcie ? "PNP0A08" : "PNP0A03");
	if (c->pcie)
		aml_name_eisa(a, "_CID", "PNP0A03");
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_BBN", 0);
	pci_windows(a, c);
	if (c->n_pirqs || c->ioapic_base)
		pci_routing(a, c);
	if (c->pcie)
		pci_osc(a);
	isa_bridge(a, c);
	aml_end(a);
}

/* ---- processors, sleep states, all of it ---- */

static void processors(struct aml *a, const struct acpi_config *c)
{
	aml_scope(a, c->acpi1 ? "\\_PR" : "\\_SB");
	for (unsigned i = 0; i < c->n_cpus; i++) {
		char name[8];

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		if (c->acpi1) {
			aml_processor(a, name, (uint8_t)i);
		} else {
			aml_device(a, name);
			aml_name_text(a, "_HID", "ACPI0007");
			aml_name_int(a, "_UID", i);
		}
		aml_end(a);
	}
	aml_end(a);
}

static void sleep_states(struct aml *a, const struct acpi_config *c)
{
	aml_name(a, "\\_S5");
	aml_package(a, 4);
	aml_int(a, c->s5_type);
	aml_int(a, c->s5_type);
	aml_int(a, 0);
	aml_int(a, 0);
	aml_end(a);
}

/* _PIC: the guest tells whether it uses the PIC (0) or the I/O APIC (1). */
static void pic_mode(struct aml *a)
{
	aml_name_int(a, "\\PICF", 0);
	aml_method(a, "\\_PIC", 1, false);
	aml_op(a, AML_STORE);
	aml_arg(a, 0);
	aml_ref(a, "\\PICF");
	aml_end(a);
}

void dsdt_build(const struct acpi_config *cfg, struct str *out)
{
	struct aml a = {.out = *out};

	pic_mode(&a);
	aml_scope(&a, "\\_SB");
	pci_root(&a, cfg);
	for (unsigned i = 0; i < cfg->n_pirqs; i++)
		link_device(&a, i);
	if (cfg->hpet_base)
		hpet(&a, cfg->hpet_base);
	motherboard(&a, cfg);
	aml_end(&a);
	processors(&a, cfg);
	if (cfg->pm_base)
		sleep_states(&a, cfg);
	*out = a.out;
}

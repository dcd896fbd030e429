/*
 * dev/pci_lpc.c - south bridges: ICH9 LPC interface (Intel 316972), PIIX3 ISA bridge and PIIX4 power
 * management function (Intel 290550, 290562). Machine lock held.
 *
 * Interrupt pins: slots 0-24 of the ICH9 board rotate over PIRQE-H, slots 25-31 follow the chipset's
 * D25IR-D31IR registers (reset: INTA-D to PIRQA-D). On the PIIX board slot 1 is PIRQA-D, and so on
 * round.
 */
#include "dev/pci_lpc.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"

#define PIRQ_OFF 0x80 /* PIRQx_ROUT bit 7: not to the 8259 */

/* ICH9 configuration space (13.1). */
#define ICH9_PMBASE    0x40
#define ICH9_ACPI_CNTL 0x44
#define ICH9_RCBA      0xf0
#define ACPI_EN        0x80

/* PIIX4 function 3 (7.1). */
#define PIIX4_PMBASE    0x40
#define PIIX4_PMREGMISC 0x80

/* ICH9 chipset configuration registers (10.1): which PIRQ a device's pins go to. */
#define RCRB_SIZE     0x4000
#define RCRB_D31IR    0x3140
#define RCRB_GCS      0x3410
#define RCRB_IR_COUNT 9 /* 16-bit registers at 3140h-3150h */

struct pci_lpc {
	struct pci_dev isa, pm;
	struct pci_bus *bus; /* borrowed */
	struct pci_lpc_cfg cfg;
	struct io_range rcrb;
	uint16_t pm_at; /* as told to pm_moved() */
	uint16_t ir[RCRB_IR_COUNT];
	uint32_t gcs;
	bool level[PCI_PIRQS];
	bool isa_level[16]; /* what we drive */
};

/* ---- routing ---- */

static unsigned rout_reg(unsigned pirq)
{
	return pirq < 4 ? 0x60 + pirq : 0x68 + pirq - 4;
}

static unsigned n_pirqs(const struct pci_lpc *lpc)
{
	return lpc->cfg.kind == PCI_LPC_ICH9 ? 8 : 4;
}

/* Interrupts that a PIRQ may be sent to: 3-7, 9-12, 14, 15. */
static bool routable(unsigned isa)
{
	return 0xdef8u >> isa & 1;
}

static unsigned route_line(void *ctx, unsigned pirq)
{
	const struct pci_lpc *lpc = ctx;
	uint8_t r;

	if (pirq >= n_pirqs(lpc))
		return 255;
	r = lpc->isa.cfg[rout_reg(pirq)];
	return (r & PIRQ_OFF) || !routable(r & 15) ? 255 : r & 15;
}

/* The D25IR-D31IR register of a slot, or -1 (D30 has none). */
static int ir_of_slot(unsigned slot)
{
	static const uint8_t off[32] = {
		[31] = 0x40, [29] = 0x44, [28] = 0x46,
		[27] = 0x48, [26] = 0x4c, [25] = 0x50,
	};

	return slot < 32 && off[slot] ? (off[slot] - 0x40) / 2 : -1;
}

static unsigned route_pirq(void *ctx, unsigned slot, unsigned pin)
{
	const struct pci_lpc *lpc = ctx;
	int ir = ir_of_slot(slot);

	if (lpc->cfg.kind == PCI_LPC_PIIX3)
		return (slot + pin - 1) & 3;
	if (ir >= 0)
		return lpc->ir[ir] >> 4 * pin & 7;
	return slot < 25 ? 4 + ((slot + pin) & 3) : pin;
}

static void drive_isa(struct pci_lpc *lpc, unsigned isa)
{
	bool level = false;

	for (unsigned i = 0; i < n_pirqs(lpc); i++)
		level |= lpc->level[i] && route_line(lpc, i) == isa;
	if (level == lpc->isa_level[isa])
		return;
	lpc->isa_level[isa] = level;
	irq_set(&lpc->cfg.isa[isa], level);
}

static void route_set(void *ctx, unsigned pirq, bool level)
{
	struct pci_lpc *lpc = ctx;
	unsigned isa = route_line(lpc, pirq);

	if (lpc->level[pirq] == level)
		return;
	lpc->level[pirq] = level;
	if (lpc->cfg.kind == PCI_LPC_ICH9)
		irq_set(&lpc->cfg.apic[pirq], level);
	if (isa < 16)
		drive_isa(lpc, isa);
}

static void drive_all(struct pci_lpc *lpc)
{
	for (unsigned i = 0; i < 16; i++)
		drive_isa(lpc, i);
}

/* ---- ICH9: root complex register block ---- */

static uint64_t rcrb_read(void *dev, uint64_t off, unsigned size)
{
	const struct pci_lpc *lpc = dev;
	uint8_t image[4] = {0};
	uint32_t v = 0;

	/* The registers are built in the aligned doubleword that holds the access. */
	for (unsigned i = 0; i < RCRB_IR_COUNT; i++)
		if ((RCRB_D31IR + 2 * i) / 4 == off / 4)
			memcpy(image + 2 * (i & 1), &lpc->ir[i], 2);
	if (off / 4 == RCRB_GCS / 4)
		memcpy(image, &lpc->gcs, 4);
	memcpy(&v, image + off % 4, min_u64(size, 4 - off % 4));
	return v;
}

static void rcrb_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct pci_lpc *lpc = dev;

	if (off == RCRB_GCS && size == 4)
		lpc->gcs = (uint32_t)val;
	if (off < RCRB_D31IR || off % 2 || size < 2)
		return;
	for (unsigned i = 0; i < size / 2; i++) {
		uint64_t n = (off - RCRB_D31IR) / 2 + i;

		if (n < RCRB_IR_COUNT)
			lpc->ir[n] = (val >> 16 * i) & 0x7777;
	}
	pci_bus_reroute(lpc->bus);
}

static const struct io_ops rcrb_ops = {
	.read = rcrb_read, .write = rcrb_write, .min = 1, .max = 4};

static void rcrb_update(struct pci_lpc *lpc)
{
	const struct vm_env *env = lpc->bus->env;
	uint32_t reg = load_u32(lpc->isa.cfg + ICH9_RCBA);
	uint64_t base = reg & 0xffffc000u;

	if (lpc->rcrb.mapped && (reg & 1) && lpc->rcrb.base == base)
		return;
	bus_unmap(env->mmio, &lpc->rcrb);
	if ((reg & 1) && (!env->ram || !ram_find(env->ram, base)) &&
	    bus_map(env->mmio, &lpc->rcrb, base, RCRB_SIZE) < 0)
		log_msg(env->log, LOG_DEBUG,
			"chipset registers at 0x%x overlap something and stay unmapped",
			(unsigned)base);
}

/* ---- power management block ---- */

static uint16_t pm_wanted(const struct pci_lpc *lpc)
{
	const uint8_t *c = lpc->isa.cfg;

	if (lpc->cfg.kind == PCI_LPC_ICH9)
		return c[ICH9_ACPI_CNTL] & ACPI_EN ? load_u16(c + ICH9_PMBASE) & 0xff80
						   : 0;
	c = lpc->pm.cfg;
	return c[PIIX4_PMREGMISC] & 1 ? load_u16(c + PIIX4_PMBASE) & 0xffc0 : 0;
}

static void pm_update(struct pci_lpc *lpc)
{
	uint16_t at = pm_wanted(lpc);

	if (at == lpc->pm_at)
		return;
	lpc->pm_at = at;
	if (lpc->cfg.pm_moved)
		lpc->cfg.pm_moved(lpc->cfg.pm_ctx, at);
}

/* ---- PCI functions ---- */

static void update_all(struct pci_lpc *lpc)
{
	drive_all(lpc);
	pm_update(lpc);
	if (lpc->cfg.kind == PCI_LPC_ICH9)
		rcrb_update(lpc);
}

static void lpc_written(void *dev, unsigned off, unsigned len)
{
	(void)off;
	(void)len;
	update_all(dev);
}

static void registers_reset(struct pci_lpc *lpc)
{
	for (unsigned i = 0; i < RCRB_IR_COUNT; i++)
		lpc->ir[i] = 0x3210;
	lpc->gcs = 0;
}

static void lpc_reset(void *dev)
{
	registers_reset(dev);
	update_all(dev);
}

static int lpc_loaded(void *dev)
{
	update_all(dev);
	return 0;
}

static const struct pci_dev_ops lpc_ops = {
	.written = lpc_written,
	.reset = lpc_reset,
	.loaded = lpc_loaded,
};

static int router_loaded(void *dev)
{
	struct pci_lpc *lpc = dev;

	for (unsigned i = 0; i < RCRB_IR_COUNT; i++)
		lpc->ir[i] &= 0x7777;
	pci_bus_reroute(lpc->bus);
	return 0;
}

static const struct state_field lpc_fields[] = {
	STATE(struct pci_lpc, ir),
	STATE(struct pci_lpc, gcs),
	{0},
};

static void ich9_init(struct pci_lpc *lpc)
{
	static const struct pci_ident id = {
		.vendor = 0x8086,
		.device = 0x2918,
		.sub_vendor = 0x1af4,
		.sub_device = 0x1100,
		.class_code = 0x060100,
		.revision = 2,
	};
	struct pci_dev *d = &lpc->isa;
	uint16_t pm = lpc->cfg.pm_base;

	pci_dev_init(d, "LPC bridge", &id, &lpc_ops, lpc);
	pci_reg8(d, PCI_HEADER, 0x80, 0);
	pci_reg32(d, ICH9_PMBASE, pm | 1, 0xff80);
	pci_reg8(d, ICH9_ACPI_CNTL, pm ? ACPI_EN : 0, ACPI_EN | 7);
	for (unsigned i = 0; i < 8; i++)
		pci_reg8(d, rout_reg(i), PIRQ_OFF, 0x8f);
	pci_reg8(d, 0x64, 0x10, 0xff);           /* serial IRQ control */
	pci_reg32(d, 0x80, 0, 0x3f0f1377);       /* LPC I/O decode ranges, enables */
	pci_reg16(d, 0xa0, 0, 0x1f9f);           /* GEN_PMCON_1 */
	pci_reg32(d, ICH9_RCBA, 0, 0xffffc001u); /* RCBA */
	lpc->rcrb = (struct io_range){.ops = &rcrb_ops, .dev = lpc, .name = "rcrb"};
}

static void piix_init(struct pci_lpc *lpc)
{
	static const struct pci_ident isa_id = {
		.vendor = 0x8086,
		.device = 0x7000,
		.sub_vendor = 0x1af4,
		.sub_device = 0x1100,
		.class_code = 0x060100,
	};
	static const struct pci_ident pm_id = {
		.vendor = 0x8086,
		.device = 0x7113,
		.sub_vendor = 0x1af4,
		.sub_device = 0x1100,
		.class_code = 0x068000,
		.revision = 3,
		.pin = 1,
	};
	struct pci_dev *d = &lpc->isa;
	uint16_t pm = lpc->cfg.pm_base;

	pci_dev_init(d, "ISA bridge", &isa_id, &lpc_ops, lpc);
	pci_reg8(d, PCI_HEADER, 0x80, 0);
	pci_reg8(d, 0x4c, 0x4d, 0xff);   /* I/O recovery time */
	pci_reg16(d, 0x4e, 0x03, 0x1ff); /* X-bus chip select */
	for (unsigned i = 0; i < 4; i++)
		pci_reg8(d, rout_reg(i), PIRQ_OFF, 0x8f);
	pci_reg8(d, 0x69, 0x02, 0xfe); /* top of memory */
	d = &lpc->pm;
	pci_dev_init(d, "power management", &pm_id, &lpc_ops, lpc);
	pci_reg8(d, PCI_INT_LINE, 9, 0); /* the SCI, whatever firmware writes */
	pci_reg32(d, PIIX4_PMBASE, pm | 1, 0xffc0);
	pci_reg32(d, 0x58, 0, 0xffffffff);           /* DEVACTB */
	pci_reg8(d, PIIX4_PMREGMISC, pm ? 1 : 0, 1); /* I/O enable */
	pci_reg32(d, 0x90, 1, 0xfff0);               /* SMBus base */
	pci_reg8(d, 0xd2, 0, 0x0f);                  /* SMBus host configuration */
}

static int add_functions(struct pci_lpc *lpc)
{
	if (lpc->cfg.kind == PCI_LPC_ICH9)
		return pci_dev_add(lpc->bus, &lpc->isa, PCI_DEVFN(31, 0));
	if (pci_dev_add(lpc->bus, &lpc->isa, PCI_DEVFN(1, 0)) < 0)
		return -EEXIST;
	return pci_dev_add(lpc->bus, &lpc->pm, PCI_DEVFN(1, 3));
}

struct pci_lpc *pci_lpc_new(struct pci_bus *bus, const struct pci_lpc_cfg *cfg,
			    struct err *err)
{
	struct pci_lpc *lpc = NEW(struct pci_lpc);

	if (!lpc) {
		err_set(err, ENOMEM, "no memory for the south bridge");
		return NULL;
	}
	lpc->bus = bus;
	lpc->cfg = *cfg;
	if (cfg->kind == PCI_LPC_ICH9)
		ich9_init(lpc);
	else
		piix_init(lpc);
	registers_reset(lpc);
	if (add_functions(lpc) < 0) {
		err_set(err, EEXIST, "the south bridge's place is taken");
		pci_lpc_free(lpc);
		return NULL;
	}
	pci_bus_set_router(bus, &(struct pci_router){.pirq = route_pirq,
						     .set = route_set,
						     .line = route_line,
						     .ctx = lpc});
	state_add(bus->env->state, "pci-router", -1, lpc, lpc_fields, NULL,
		  router_loaded);
	update_all(lpc);
	pci_bus_reroute(bus);
	return lpc;
}

void pci_lpc_free(struct pci_lpc *lpc)
{
	if (!lpc)
		return;
	if (lpc->bus->router.ctx == lpc)
		lpc->bus->router = (struct pci_router){0};
	bus_unmap(lpc->bus->env->mmio, &lpc->rcrb);
	pci_dev_remove(&lpc->isa);
	pci_dev_remove(&lpc->pm);
	free(lpc);
}

void pci_lpc_route(struct pci_lpc *lpc, const uint8_t isa[PCI_PIRQS])
{
	for (unsigned i = 0; i < n_pirqs(lpc); i++)
		pci_cfg_write(lpc->bus, lpc->isa.devfn, rout_reg(i), 1, isa[i]);
}

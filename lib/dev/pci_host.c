/*
 * dev/pci_host.c - host bridges of the 440FX (Intel 290549) and Q35 (Intel 316966): configuration
 * mechanism 1 at CF8h/CFCh, and the Q35's PCI Express window. Machine lock held.
 *
 * PAM and SMRAM registers are kept for firmware to read back; the memory map is the board's and
 * does not change with them: C0000h-FFFFFh is always writable, and there is no SMM.
 */
#include "dev/pci_host.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"

#define PORT_ADDRESS 0xcf8
#define PORT_DATA    0xcfc
#define ADDR_ENABLE  0x80000000u

/* Q35: 5.1.14 PCIEXBAR. */
#define PCIEXBAR     0x60
#define EXBAR_ENABLE 1u

struct pci_host {
	struct pci_dev pci;
	struct pci_bus *bus; /* borrowed */
	enum pci_host_kind kind;
	uint32_t address; /* CONFIG_ADDRESS */
	struct io_range cf8, cfc, ecam;
};

/* ---- CF8h, CFCh (PCI 3.2.2.3.2) ---- */

static uint64_t cf8_read(void *dev, uint64_t off, unsigned size)
{
	const struct pci_host *h = dev;

	return off == 0 && size == 4 ? h->address : UINT32_MAX;
}

/* Only whole doublewords reach the register; narrower ones are ordinary port accesses. */
static void cf8_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct pci_host *h = dev;

	if (off == 0 && size == 4)
		h->address = (uint32_t)val & 0x80fffffcu;
}

/* Bus 0 is the only one. */
static bool cf8_selects(const struct pci_host *h)
{
	return (h->address & ADDR_ENABLE) && !(h->address >> 16 & 0xff);
}

static uint64_t cfc_read(void *dev, uint64_t off, unsigned size)
{
	const struct pci_host *h = dev;

	if (!cf8_selects(h))
		return UINT32_MAX;
	return pci_cfg_read(h->bus, h->address >> 8 & 0xff,
			    (h->address & 0xfc) + (unsigned)off, size);
}

static void cfc_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	const struct pci_host *h = dev;

	if (cf8_selects(h))
		pci_cfg_write(h->bus, h->address >> 8 & 0xff,
			      (h->address & 0xfc) + (unsigned)off, size, (uint32_t)val);
}

static const struct io_ops cf8_ops = {
	.read = cf8_read, .write = cf8_write, .min = 1, .max = 4};
static const struct io_ops cfc_ops = {
	.read = cfc_read, .write = cfc_write, .min = 1, .max = 4};

/* ---- the memory-mapped window: bus 27:20, device and function 19:12, register 11:0 ---- */

static uint64_t ecam_read(void *dev, uint64_t off, unsigned size)
{
	const struct pci_host *h = dev;

	if (off >> 20)
		return UINT32_MAX;
	return pci_cfg_read(h->bus, (unsigned)(off >> 12), (unsigned)off & 0xfff, size);
}

static void ecam_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	const struct pci_host *h = dev;

	if (!(off >> 20))
		pci_cfg_write(h->bus, (unsigned)(off >> 12), (unsigned)off & 0xfff,
			      size, (uint32_t)val);
}

static const struct io_ops ecam_ops = {
	.read = ecam_read, .write = ecam_write, .min = 1, .max = 4};

/* What PCIEXBAR asks for. */
static struct pci_window ecam_wanted(const struct pci_host *h)
{
	static const uint64_t sizes[4] = {256ull << 20, 128ull << 20, 64ull << 20, 0};
	uint64_t reg = load_u64(h->pci.cfg + PCIEXBAR);
	struct pci_window w = {.size = sizes[reg >> 1 & 3]};

	if (h->kind != PCI_HOST_Q35 || !(reg & EXBAR_ENABLE) || !w.size)
		return (struct pci_window){0};
	w.base = reg & 0xfffffc000000ull & ~(w.size - 1);
	return w;
}

static bool overlaps_ram(const struct vm_env *env, const struct pci_window *w)
{
	const struct ram *ram = env->ram;

	for (unsigned i = 0; ram && i < ram->n_regions; i++)
		if (range_overlap(w->base, w->size, ram->region[i].gpa,
				  ram->region[i].size))
			return true;
	return false;
}

static void ecam_update(struct pci_host *h)
{
	const struct vm_env *env = h->bus->env;
	struct pci_window w = ecam_wanted(h);

	if (h->ecam.mapped && w.size == h->ecam.len && w.base == h->ecam.base)
		return;
	bus_unmap(env->mmio, &h->ecam);
	if (!w.size)
		return;
	if (overlaps_ram(env, &w) || bus_map(env->mmio, &h->ecam, w.base, w.size) < 0)
		log_msg(env->log, LOG_DEBUG,
			"PCI configuration window at 0x%" PRIx64
			" overlaps something and stays unmapped",
			w.base);
}

struct pci_window pci_host_ecam(const struct pci_host *h)
{
	if (!h->ecam.mapped)
		return (struct pci_window){0};
	return (struct pci_window){h->ecam.base, h->ecam.len};
}

/* ---- the bridge's own function ---- */

static void host_written(void *dev, unsigned off, unsigned len)
{
	struct pci_host *h = dev;

	if (range_overlap(off, len, PCIEXBAR, 8))
		ecam_update(h);
}

static void host_reset(void *dev)
{
	struct pci_host *h = dev;

	h->address = 0;
	ecam_update(h);
}

static int host_loaded(void *dev)
{
	struct pci_host *h = dev;

	h->address &= 0x80fffffcu;
	ecam_update(h);
	return 0;
}

static const struct pci_dev_ops host_ops = {
	.written = host_written,
	.reset = host_reset,
	.loaded = host_loaded,
};

static const struct state_field host_fields[] = {
	STATE(struct pci_host, address),
	{0},
};

static void q35_registers(struct pci_dev *d, uint64_t ecam)
{
	pci_reg32(d, PCIEXBAR, (uint32_t)ecam | (ecam ? EXBAR_ENABLE : 0), 0xfc000007u);
	pci_reg32(d, PCIEXBAR + 4, (uint32_t)(ecam >> 32), 0x0000ffffu);
	for (unsigned i = 0; i < 7; i++)
		pci_reg8(d, 0x90 + i, 0, i ? 0x33 : 0x30); /* PAM0-6 */
	pci_reg8(d, 0x9d, 0x02, 0x70);                     /* SMRAM */
	pci_reg8(d, 0x9e, 0x38, 0x87);                     /* ESMRAMC */
}

static void i440fx_registers(struct pci_dev *d)
{
	for (unsigned i = 0; i < 7; i++)
		pci_reg8(d, 0x59 + i, 0, i ? 0x33 : 0x30); /* PAM0-6 */
	pci_reg8(d, 0x72, 0x02, 0x70);                     /* SMRAM */
}

static const struct pci_ident idents[] = {
	[PCI_HOST_Q35] = {.vendor = 0x8086,
			  .device = 0x29c0,
			  .sub_vendor = 0x1af4,
			  .sub_device = 0x1100,
			  .class_code = 0x060000},
	[PCI_HOST_I440FX] = {.vendor = 0x8086,
			     .device = 0x1237,
			     .sub_vendor = 0x1af4,
			     .sub_device = 0x1100,
			     .class_code = 0x060000,
			     .revision = 2},
};

struct pci_host *pci_host_new(struct pci_bus *bus, enum pci_host_kind kind,
			      uint64_t ecam, struct err *err)
{
	const struct vm_env *env = bus->env;
	struct pci_host *h = NEW(struct pci_host);

	if (!h) {
		err_set(err, ENOMEM, "no memory for the PCI host bridge");
		return NULL;
	}
	h->bus = bus;
	h->kind = kind;
	h->cf8 = (struct io_range){.ops = &cf8_ops, .dev = h, .name = "pci address"};
	h->cfc = (struct io_range){.ops = &cfc_ops, .dev = h, .name = "pci data"};
	h->ecam = (struct io_range){.ops = &ecam_ops, .dev = h, .name = "pci window"};
	pci_dev_init(&h->pci, "host bridge", &idents[kind], &host_ops, h);
	if (kind == PCI_HOST_Q35)
		q35_registers(&h->pci, ecam);
	else
		i440fx_registers(&h->pci);
	if (pci_dev_add(bus, &h->pci, PCI_DEVFN(0, 0)) < 0 ||
	    bus_map(env->pio, &h->cf8, PORT_ADDRESS, 4) < 0 ||
	    bus_map(env->pio, &h->cfc, PORT_DATA, 4) < 0) {
		err_set(err, EEXIST, "the PCI host bridge's place is taken");
		goto fail;
	}
	ecam_update(h);
	if (ecam_wanted(h).size && !h->ecam.mapped) {
		err_set(err, EEXIST,
			"no room for PCI configuration space at 0x%" PRIx64, ecam);
		goto fail;
	}
	state_add(env->state, "pci-host", -1, h, host_fields, NULL, NULL);
	return h;
fail:
	pci_host_free(h);
	return NULL;
}

void pci_host_free(struct pci_host *h)
{
	if (!h)
		return;
	bus_unmap(h->bus->env->pio, &h->cf8);
	bus_unmap(h->bus->env->pio, &h->cfc);
	bus_unmap(h->bus->env->mmio, &h->ecam);
	pci_dev_remove(&h->pci);
	free(h);
}

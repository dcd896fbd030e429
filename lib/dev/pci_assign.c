/*
 * dev/pci_assign.c - gives PCI devices their resources, as firmware does at power-on; for machines
 * that start a kernel without firmware. Machine lock held, or before the machine runs.
 */
#include "dev/pci.h"

#include "base/bits.h"

struct pool {
	const struct pci_window *w;
	const char *name;
	uint64_t used;
};

/* The next `size` bytes of a pool, aligned to `size`. */
static bool pool_take(struct pool *p, uint64_t size, uint64_t *at)
{
	uint64_t base;

	if (!p->w || !p->w->size)
		return false;
	base = align_up(p->w->base + p->used, size);
	if (base < p->w->base || !range_ok(base - p->w->base, size, p->w->size))
		return false;
	p->used = base - p->w->base + size;
	*at = base;
	return true;
}

struct pools {
	struct pool io, mmio32, mmio64;
};

static int place(struct pci_bus *bus, struct pci_dev *d, unsigned bar, struct pools *p,
		 struct err *err)
{
	const struct pci_bar *b = &d->bar[bar];
	unsigned reg = bar == PCI_BAR_ROM ? PCI_ROM : PCI_BAR0 + 4 * bar;
	bool wide = b->kind == PCI_BAR_MEM64, pref = d->cfg[reg] & 8;
	struct pool *pool = b->kind == PCI_BAR_IO ? &p->io : &p->mmio32;
	uint64_t at;

	if (!(wide && pref && pool_take(&p->mmio64, b->size, &at)) &&
	    !pool_take(pool, b->size, &at) &&
	    !(wide && pool_take(&p->mmio64, b->size, &at)))
		return err_set(err, ENOSPC,
			       "no room in the %s window for the %llu bytes of %s's "
			       "BAR %u",
			       pool->name, (unsigned long long)b->size, d->name, bar);
	pci_cfg_write(bus, d->devfn, reg, 4, (uint32_t)at);
	if (wide)
		pci_cfg_write(bus, d->devfn, reg + 4, 4, (uint32_t)(at >> 32));
	return 0;
}

/* Largest first, so that alignment wastes nothing. */
static int place_size(struct pci_bus *bus, uint64_t size, struct pools *p,
		      struct err *err)
{
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		struct pci_dev *d = bus->dev[i];

		for (unsigned bar = 0; d && bar < PCI_BAR_COUNT; bar++) {
			int rc = 0;

			if (d->bar[bar].kind != PCI_BAR_NONE &&
			    d->bar[bar].size == size)
				rc = place(bus, d, bar, p, err);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static void enable(struct pci_bus *bus, struct pci_dev *d)
{
	const struct pci_router *r = &bus->router;
	unsigned pin = d->cfg[PCI_INT_PIN];

	if (pin && r->pirq && r->line)
		pci_cfg_write(
			bus, d->devfn, PCI_INT_LINE, 1,
			r->line(r->ctx, r->pirq(r->ctx, PCI_SLOT(d->devfn), pin - 1)));
	pci_cfg_write(bus, d->devfn, PCI_COMMAND, 2,
		      PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER);
}

int pci_assign_resources(struct pci_bus *bus, const struct pci_window *mmio32,
			 const struct pci_window *mmio64, const struct pci_window *io,
			 struct err *err)
{
	struct pools p = {
		.io = {.w = io, .name = "I/O"},
		.mmio32 = {.w = mmio32, .name = "32-bit memory"},
		.mmio64 = {.w = mmio64, .name = "64-bit memory"},
	};

	for (unsigned i = 0; i < PCI_MAX_DEVS; i++)
		if (bus->dev[i])
			pci_cfg_write(bus, i, PCI_COMMAND, 2, 0);
	for (unsigned bit = 46; bit >= 2; bit--) {
		int rc = place_size(bus, BIT(bit), &p, err);

		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++)
		if (bus->dev[i])
			enable(bus, bus->dev[i]);
	return 0;
}

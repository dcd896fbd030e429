/*
 * dev/pci.c - conventional PCI (PCI Local Bus Specification 3.0, chapter 6).
 *
 * Machine lock held everywhere. Which BARs are mapped is always computed from the configuration
 * spaces as a whole: a BAR that overlaps something stays unmapped until it or the other one moves.
 */
#include "dev/pci.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"

/* Messages to local APICs: no device may answer there (SDM 3A 11.11.1). */
#define MSI_BASE 0xfee00000ull
#define MSI_SIZE 0x00100000ull

static void put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* ---- BARs ---- */

static unsigned bar_reg(unsigned bar)
{
	return bar == PCI_BAR_ROM ? PCI_ROM : PCI_BAR0 + 4 * bar;
}

/* The address that the registers ask for, or PCI_NOT_MAPPED. */
static uint64_t bar_wanted(const struct pci_dev *d, unsigned bar)
{
	const struct pci_bar *b = &d->bar[bar];
	uint32_t low = load_u32(d->cfg + bar_reg(bar));
	uint64_t at = low & ~0xfull, ones = UINT32_MAX;

	if (b->kind == PCI_BAR_NONE ||
	    !(pci_command(d) & (b->kind == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM)))
		return PCI_NOT_MAPPED;
	if (bar == PCI_BAR_ROM) {
		if (!(low & 1))
			return PCI_NOT_MAPPED;
		at = low & ~0x7ffull;
	} else if (b->kind == PCI_BAR_IO) {
		at = low & ~3ull;
		if (at >> 16)
			return PCI_NOT_MAPPED;
	} else if (b->kind == PCI_BAR_MEM64) {
		at |= (uint64_t)load_u32(d->cfg + bar_reg(bar) + 4) << 32;
		ones = UINT64_MAX;
	}
	/* Not set yet, or being sized. */
	if (!at || at == (ones & ~(b->size - 1)))
		return PCI_NOT_MAPPED;
	return at;
}

static bool overlaps_memory(const struct vm_env *env, uint64_t at, uint64_t size)
{
	const struct ram *ram = env->ram;

	if (at + size < at || range_overlap(at, size, MSI_BASE, MSI_SIZE))
		return true;
	for (unsigned i = 0; ram && i < ram->n_regions; i++)
		if (range_overlap(at, size, ram->region[i].gpa, ram->region[i].size))
			return true;
	return false;
}

static struct bus *bar_bus(const struct pci_dev *d, const struct pci_bar *b)
{
	return b->kind == PCI_BAR_IO ? d->bus->env->pio : d->bus->env->mmio;
}

static void bar_unmap(struct pci_dev *d, struct pci_bar *b)
{
	for (unsigned i = 0; i < b->n_parts; i++)
		bus_unmap(bar_bus(d, b), b->part[i].range);
	b->at = PCI_NOT_MAPPED;
}

static bool bar_map(struct pci_dev *d, struct pci_bar *b, uint64_t at)
{
	struct bus *bus = bar_bus(d, b);

	if (b->kind != PCI_BAR_IO && overlaps_memory(d->bus->env, at, b->size))
		return false;
	for (unsigned i = 0; i < b->n_parts; i++)
		if (bus_map(bus, b->part[i].range, at + b->part[i].off,
			    b->part[i].len) < 0) {
			bar_unmap(d, b);
			return false;
		}
	b->at = at;
	return true;
}

/* Unmaps the BARs that are not where they are wanted; returns whether there were any. */
static bool unmap_moved(struct pci_dev *d)
{
	bool any = false;

	for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
		struct pci_bar *b = &d->bar[i];

		if (b->at == PCI_NOT_MAPPED || b->at == bar_wanted(d, i))
			continue;
		bar_unmap(d, b);
		any = true;
	}
	return any;
}

static bool map_wanted(struct pci_dev *d)
{
	bool any = false;

	for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
		struct pci_bar *b = &d->bar[i];
		uint64_t at;

		if (b->at != PCI_NOT_MAPPED)
			continue;
		at = bar_wanted(d, i);
		if (at == PCI_NOT_MAPPED)
			continue;
		if (bar_map(d, b, at))
			any = true;
		else
			log_msg(d->bus->env->log, LOG_DEBUG,
				"%s: BAR %u at 0x%llx overlaps something and stays "
				"unmapped",
				d->name, i, (unsigned long long)at);
	}
	return any;
}

static void update_maps(struct pci_bus *bus)
{
	bool moved[PCI_MAX_DEVS] = {false};

	for (unsigned i = 0; i < PCI_MAX_DEVS; i++)
		if (bus->dev[i])
			moved[i] = unmap_moved(bus->dev[i]);
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++)
		if (bus->dev[i])
			moved[i] |= map_wanted(bus->dev[i]);
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		struct pci_dev *d = bus->dev[i];

		if (d && moved[i] && d->ops && d->ops->moved)
			d->ops->moved(d->dev);
	}
}

uint64_t pci_bar_at(const struct pci_dev *d, unsigned bar)
{
	return d->bar[bar].at;
}

/* The part of a BAR that holds all of [off, off + size), and takes that size. */
static struct io_range *part_at(struct pci_dev *d, unsigned bar, uint32_t *off,
				unsigned size)
{
	struct pci_bar *b = &d->bar[bar];

	for (unsigned i = 0; i < b->n_parts; i++) {
		struct io_range *r = b->part[i].range;
		unsigned min = r->ops->min ? r->ops->min : 1;
		unsigned max = r->ops->max ? r->ops->max : 8;

		if (*off < b->part[i].off ||
		    !range_ok(*off - b->part[i].off, size, b->part[i].len))
			continue;
		*off -= (uint32_t)b->part[i].off;
		return size >= min && size <= max ? r : NULL;
	}
	return NULL;
}

uint32_t pci_bar_read(struct pci_dev *d, unsigned bar, uint32_t off, unsigned size)
{
	struct io_range *r = bar < PCI_BAR_ROM ? part_at(d, bar, &off, size) : NULL;

	return r && r->ops->read ? (uint32_t)r->ops->read(r->dev, off, size)
				 : UINT32_MAX;
}

void pci_bar_write(struct pci_dev *d, unsigned bar, uint32_t off, unsigned size,
		   uint32_t val)
{
	struct io_range *r = bar < PCI_BAR_ROM ? part_at(d, bar, &off, size) : NULL;

	if (size < 4)
		val &= (1u << 8 * size) - 1;
	if (r && r->ops->write)
		r->ops->write(r->dev, off, size, val);
}

/* ---- interrupt pins ---- */

static unsigned dev_pirq(const struct pci_dev *d)
{
	const struct pci_router *r = &d->bus->router;
	unsigned pin = d->cfg[PCI_INT_PIN];

	return r->pirq(r->ctx, PCI_SLOT(d->devfn), (pin - 1) & 3) % PCI_PIRQS;
}

static void update_intx(struct pci_dev *d)
{
	bool level = d->intx && !(pci_command(d) & PCI_CMD_INTX_OFF);
	struct pci_bus *bus = d->bus;
	unsigned pirq;

	if (d->intx)
		d->cfg[PCI_STATUS] |= PCI_STS_INTX;
	else
		d->cfg[PCI_STATUS] &= (uint8_t)~PCI_STS_INTX;
	if (level == d->asserted || !bus->router.set || !d->cfg[PCI_INT_PIN])
		return;
	d->asserted = level;
	pirq = dev_pirq(d);
	if (level ? bus->asserted[pirq]++ == 0 : --bus->asserted[pirq] == 0)
		bus->router.set(bus->router.ctx, pirq, level);
}

void pci_intx_set(struct pci_dev *d, bool level)
{
	if (d->intx == level)
		return;
	d->intx = level;
	if (d->bus)
		update_intx(d);
}

void pci_bus_reroute(struct pci_bus *bus)
{
	const struct pci_router *r = &bus->router;

	if (!r->set)
		return;
	memset(bus->asserted, 0, sizeof(bus->asserted));
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		struct pci_dev *d = bus->dev[i];

		if (!d || !d->cfg[PCI_INT_PIN])
			continue;
		d->asserted = d->intx && !(pci_command(d) & PCI_CMD_INTX_OFF);
		if (d->asserted)
			bus->asserted[dev_pirq(d)]++;
	}
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		r->set(r->ctx, i, bus->asserted[i] > 0);
}

void pci_bus_set_router(struct pci_bus *bus, const struct pci_router *router)
{
	bus->router = *router;
}

unsigned pci_bus_pirq(const struct pci_bus *bus, unsigned slot, unsigned pin)
{
	const struct pci_router *r = &bus->router;

	return r->pirq ? r->pirq(r->ctx, slot, pin & 3) : 0;
}

/* ---- configuration space ---- */

uint32_t pci_cfg_read(struct pci_bus *bus, unsigned devfn, unsigned off, unsigned size)
{
	struct pci_dev *d = devfn < PCI_MAX_DEVS ? bus->dev[devfn] : NULL;
	uint32_t v = UINT32_MAX;

	if (!d || size > 4 || !range_ok(off, size, PCI_CFG_SIZE))
		return v;
	if (d->ops && d->ops->reading)
		d->ops->reading(d->dev, off, size);
	v = 0;
	memcpy(&v, d->cfg + off, size);
	return v;
}

static bool touches(unsigned off, unsigned size, unsigned reg, unsigned len)
{
	return range_overlap(off, size, reg, len);
}

void pci_cfg_write(struct pci_bus *bus, unsigned devfn, unsigned off, unsigned size,
		   uint32_t val)
{
	struct pci_dev *d = devfn < PCI_MAX_DEVS ? bus->dev[devfn] : NULL;

	if (!d || size > 4 || !range_ok(off, size, PCI_CFG_SIZE))
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t v = (uint8_t)(val >> 8 * i), m = d->wmask[off + i];
		uint8_t *c = &d->cfg[off + i];

		*c = (uint8_t)((*c & ~m) | (v & m));
		*c &= (uint8_t) ~(v & d->w1c[off + i]);
	}
	if (touches(off, size, PCI_COMMAND, 2)) {
		update_maps(bus);
		update_intx(d);
	} else if (touches(off, size, PCI_BAR0, 24) || touches(off, size, PCI_ROM, 4)) {
		update_maps(bus);
	}
	if (d->ops && d->ops->written)
		d->ops->written(d->dev, off, size);
}

/* ---- saved state ---- */

static const struct state_field pci_fields[] = {
	STATE(struct pci_dev, cfg),
	STATE(struct pci_dev, intx),
	{0},
};

static int pci_loaded(void *dev)
{
	struct pci_dev *d = dev;

	for (unsigned i = 0; i < PCI_CFG_SIZE; i++) {
		uint8_t m = d->wmask[i] | d->w1c[i];

		d->cfg[i] = (uint8_t)((d->initial[i] & ~m) | (d->cfg[i] & m));
	}
	d->intx = d->intx != 0 && d->cfg[PCI_INT_PIN];
	if (d->intx)
		d->cfg[PCI_STATUS] |= PCI_STS_INTX;
	update_maps(d->bus);
	if (d->ops && d->ops->loaded && d->ops->loaded(d->dev) < 0)
		return -EINVAL;
	pci_bus_reroute(d->bus);
	return 0;
}

/* ---- life ---- */

void pci_dev_init(struct pci_dev *d, const char *name, const struct pci_ident *id,
		  const struct pci_dev_ops *ops, void *dev)
{
	*d = (struct pci_dev){.name = name, .ops = ops, .dev = dev, .cap_end = 0x40};
	for (unsigned i = 0; i < PCI_BAR_COUNT; i++)
		d->bar[i].at = PCI_NOT_MAPPED;
	pci_reg16(d, PCI_VENDOR, id->vendor, 0);
	pci_reg16(d, PCI_DEVICE, id->device, 0);
	pci_reg32(d, PCI_REVISION, id->class_code << 8 | id->revision, 0);
	pci_reg16(d, PCI_SUB_VENDOR, id->sub_vendor, 0);
	pci_reg16(d, PCI_SUB_DEVICE, id->sub_device, 0);
	pci_reg8(d, PCI_INT_LINE, 0, 0xff);
	pci_reg8(d, PCI_INT_PIN, id->pin, 0);
	pci_reg8(d, 0x0c, 0, 0xff); /* cache line size */
	/* Parity and SERR# answers can be set; nothing here ever reports such an error. */
	pci_reg16(d, PCI_COMMAND, 0,
		  PCI_CMD_MASTER | 0x0140 | (id->pin ? PCI_CMD_INTX_OFF : 0));
}

void pci_bar_set(struct pci_dev *d, unsigned bar, enum pci_bar_kind kind,
		 bool prefetchable, uint64_t size)
{
	unsigned reg = bar_reg(bar);
	uint64_t mask = ~(size - 1);

	assert(bar < PCI_BAR_COUNT && is_pow2(size));
	d->bar[bar].kind = kind;
	d->bar[bar].size = size;
	if (kind == PCI_BAR_IO) {
		assert(size >= 4 && size <= 256);
		pci_reg32(d, reg, 1, (uint32_t)mask & ~3u);
		d->wmask[PCI_COMMAND] |= PCI_CMD_IO;
		return;
	}
	assert(size >= 16);
	d->wmask[PCI_COMMAND] |= PCI_CMD_MEM;
	if (bar == PCI_BAR_ROM) {
		assert(size >= 2048 && kind == PCI_BAR_MEM32);
		pci_reg32(d, reg, 0, ((uint32_t)mask & ~0x7ffu) | 1);
		return;
	}
	pci_reg32(d, reg, (kind == PCI_BAR_MEM64 ? 4 : 0) | (prefetchable ? 8 : 0),
		  (uint32_t)mask & ~0xfu);
	if (kind == PCI_BAR_MEM64) {
		assert(bar < 5);
		pci_reg32(d, reg + 4, 0, (uint32_t)(mask >> 32));
	}
}

void pci_bar_add_part(struct pci_dev *d, unsigned bar, struct io_range *range,
		      uint64_t off, uint64_t len)
{
	struct pci_bar *b = &d->bar[bar];

	assert(b->kind != PCI_BAR_NONE && b->n_parts < PCI_BAR_PARTS &&
	       range_ok(off, len, b->size));
	b->part[b->n_parts].range = range;
	b->part[b->n_parts].off = off;
	b->part[b->n_parts].len = len;
	b->n_parts++;
}

static uint64_t rom_read(void *dev, uint64_t off, unsigned size)
{
	const struct pci_dev *d = dev;
	uint64_t v = UINT64_MAX;

	if (off < d->rom_len)
		memcpy(&v, d->rom + off, min_u64(size, d->rom_len - off));
	return v;
}

static const struct io_ops rom_ops = {.read = rom_read};

void pci_rom_set(struct pci_dev *d, const void *data, size_t len)
{
	uint64_t size = 2048;

	while (size < len)
		size *= 2;
	d->rom = data;
	d->rom_len = len;
	d->rom_range = (struct io_range){.ops = &rom_ops, .dev = d, .name = d->name};
	pci_bar_set(d, PCI_BAR_ROM, PCI_BAR_MEM32, false, size);
	pci_bar_add_part(d, PCI_BAR_ROM, &d->rom_range, 0, size);
}

unsigned pci_cap_add(struct pci_dev *d, uint8_t id, unsigned len)
{
	unsigned at = (unsigned)align_up(d->cap_end, 4);
	uint8_t *next = &d->cfg[PCI_CAPS];

	assert(range_ok(at, len, PCI_CFG_SIZE));
	while (*next)
		next = &d->cfg[*next + 1];
	*next = (uint8_t)at;
	d->cfg[at] = id;
	d->cfg[PCI_STATUS] |= PCI_STS_CAPS;
	d->cap_end = at + len;
	return at;
}

void pci_reg8(struct pci_dev *d, unsigned off, uint8_t val, uint8_t wmask)
{
	d->cfg[off] = val;
	d->wmask[off] = wmask;
}

void pci_reg16(struct pci_dev *d, unsigned off, uint16_t val, uint16_t wmask)
{
	put16(d->cfg + off, val);
	put16(d->wmask + off, wmask);
}

void pci_reg32(struct pci_dev *d, unsigned off, uint32_t val, uint32_t wmask)
{
	put32(d->cfg + off, val);
	put32(d->wmask + off, wmask);
}

/* Bit 7 of the header type of each slot's function 0 tells of further functions. */
static void update_multifunction(struct pci_bus *bus, unsigned slot)
{
	struct pci_dev *first = bus->dev[PCI_DEVFN(slot, 0)];
	bool more = false;

	for (unsigned fn = 1; fn < 8; fn++)
		more |= bus->dev[PCI_DEVFN(slot, fn)] != NULL;
	if (first && more) {
		first->cfg[PCI_HEADER] |= 0x80;
		first->initial[PCI_HEADER] |= 0x80;
	}
}

int pci_dev_add(struct pci_bus *bus, struct pci_dev *d, unsigned devfn)
{
	if (devfn >= PCI_MAX_DEVS)
		return -EINVAL;
	if (bus->dev[devfn])
		return -EEXIST;
	memcpy(d->initial, d->cfg, sizeof(d->initial));
	d->bus = bus;
	d->devfn = devfn;
	bus->dev[devfn] = d;
	update_multifunction(bus, PCI_SLOT(devfn));
	state_add(bus->env->state, "pci", (int)devfn, d, pci_fields, NULL, pci_loaded);
	return 0;
}

void pci_dev_remove(struct pci_dev *d)
{
	if (!d->bus)
		return;
	for (unsigned i = 0; i < PCI_BAR_COUNT; i++)
		if (d->bar[i].at != PCI_NOT_MAPPED)
			bar_unmap(d, &d->bar[i]);
	d->bus->dev[d->devfn] = NULL;
	d->bus = NULL;
}

void pci_bus_init(struct pci_bus *bus, const struct vm_env *env)
{
	*bus = (struct pci_bus){.env = env};
}

void pci_bus_reset(struct pci_bus *bus)
{
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		struct pci_dev *d = bus->dev[i];

		if (!d)
			continue;
		memcpy(d->cfg, d->initial, sizeof(d->cfg));
		d->intx = 0;
	}
	update_maps(bus);
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		struct pci_dev *d = bus->dev[i];

		if (d && d->ops && d->ops->reset)
			d->ops->reset(d->dev);
	}
	pci_bus_reroute(bus);
}

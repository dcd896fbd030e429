/*
 * tests/fuzz/fuzz_pci_config.c - a guest that writes anything to configuration space and reads and writes where the
 * BARs are. Input: records of 8 bytes. Checked: no BAR lies over memory, identities stay, a saved state
 * loads back to itself, a reset undoes everything.
 */
#include <stdio.h>

#include "../unit/virtio_machine.h"

#include "dev/virtio_balloon.h"
#include "dev/virtio_rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_RECORDS 512

/* A device with a BAR of each kind and a ROM. */
struct card {
	struct pci_dev pci;
	struct io_range io, mem;
};

static uint64_t card_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	return off + size;
}

static void card_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct card *c = dev;

	(void)off;
	(void)size;
	pci_intx_set(&c->pci, val & 1);
}

static const struct io_ops card_ops = {.read = card_read, .write = card_write};

static const unsigned fns[] = {
	PCI_DEVFN(0, 0), PCI_DEVFN(31, 0), PCI_DEVFN(1, 0), PCI_DEVFN(1, 3),
	PCI_DEVFN(3, 0), PCI_DEVFN(4, 0),  PCI_DEVFN(5, 0), PCI_DEVFN(6, 0),
};

struct world {
	struct machine *m;
	struct card card[2];
	struct virtio_rng *rng;
	struct virtio_balloon *balloon;
};

static void card_add(struct card *c, struct machine *m, unsigned devfn)
{
	static const struct pci_ident id = {
		.vendor = 0x1234, .device = 0x5678, .class_code = 0x030000, .pin = 2};
	static const uint8_t rom[2048] = {0x55, 0xaa};

	pci_dev_init(&c->pci, "card", &id, NULL, c);
	c->io = (struct io_range){.ops = &card_ops, .dev = c};
	c->mem = (struct io_range){.ops = &card_ops, .dev = c};
	pci_bar_set(&c->pci, 0, PCI_BAR_IO, false, 32);
	pci_bar_add_part(&c->pci, 0, &c->io, 0, 32);
	pci_bar_set(&c->pci, 2, PCI_BAR_MEM64, true, 1u << 24);
	pci_bar_add_part(&c->pci, 2, &c->mem, 0, 1u << 24);
	pci_rom_set(&c->pci, rom, sizeof(rom));
	pci_dev_add(&m->pci, &c->pci, devfn);
}

static struct world *world_new(bool q35)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err;

	assert(w);
	w->m = machine_new(q35);
	card_add(&w->card[0], w->m, PCI_DEVFN(3, 0));
	card_add(&w->card[1], w->m, PCI_DEVFN(4, 0));
	w->rng = virtio_rng_new(&w->m->env, &w->m->pci, PCI_DEVFN(5, 0), &err);
	w->balloon = virtio_balloon_new(&w->m->env, &w->m->pci, PCI_DEVFN(6, 0), &err);
	assert(w->rng && w->balloon);
	return w;
}

static void check(struct world *w)
{
	struct machine *m = w->m;

	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		const struct pci_dev *d = m->pci.dev[i];

		for (unsigned b = 0; d && b < PCI_BAR_COUNT; b++) {
			const struct pci_bar *bar = &d->bar[b];

			if (bar->at == PCI_NOT_MAPPED)
				continue;
			if (bar->kind == PCI_BAR_IO) {
				if (bar->at + bar->size > 0x10000)
					abort();
				continue;
			}
			for (unsigned r = 0; r < m->ram.n_regions; r++)
				if (range_overlap(bar->at, bar->size,
						  m->ram.region[r].gpa,
						  m->ram.region[r].size))
					abort();
		}
		if (d && memcmp(d->cfg, d->initial, 4))
			abort();
	}
}

/* Saves, loads, saves: the same bytes. */
static void check_state(struct world *w)
{
	struct str a = {0}, b = {0};
	struct err err;

	if (state_save(&w->m->state, &a, &err) ||
	    state_load(&w->m->state, a.p, a.len, &err) ||
	    state_save(&w->m->state, &b, &err) || a.len != b.len ||
	    memcmp(a.p, b.p, a.len)) {
		fprintf(stderr, "state: %s\n", err.msg);
		abort();
	}
	str_fini(&a);
	str_fini(&b);
}

/* A damaged state is refused or loaded; what is refused leaves a machine that a reset repairs. */
static void load_damaged(struct world *w, const uint8_t *p)
{
	struct str s = {0};
	struct err err;

	if (state_save(&w->m->state, &s, &err))
		abort();
	for (unsigned i = 0; i < 3; i++) {
		size_t at = (load_u16(p + 2) * 7919u + i * 104729u) % s.len;

		s.p[at] = (char)(i ? s.p[at] ^ p[4 + i] : p[4]);
	}
	if (state_load(&w->m->state, s.p, s.len, &err))
		pci_bus_reset(&w->m->pci);
	str_fini(&s);
}

static void step(struct world *w, const uint8_t *p)
{
	static const uint64_t edges[] = {
		0,          0x1000,     RAM_EDGE,   RAM_HIGH,   0xb0000000, 0xc0000000,
		0xfee00000, 0xfec00000, 0xfffff000, 0xff000000, 0xd0000000, 0x600,
		0xffffffff, 0xcf8,      0x80,       7,
	};
	unsigned fn = fns[p[1] % ARRAY_LEN(fns)], size = 1u << (p[0] >> 3 & 3);
	uint32_t val = load_u32(p + 4);
	struct pci_dev *d = w->m->pci.dev[fn];

	if (p[0] & 0x40)
		val = (uint32_t)edges[val % ARRAY_LEN(edges)] + (val >> 28);
	switch (p[0] & 7) {
	case 0:
	case 1:
	case 2: cfg_wr(w->m, fn, p[2], size, val); break;
	case 3:
		wr(w->m, pci_host_ecam(w->m->host).base + (fn << 12) + p[2], size, val);
		break;
	case 4: cfg_rd(w->m, fn, p[2], size); break;
	case 5:
	case 6:
		if (d && d->bar[p[2] % PCI_BAR_COUNT].at != PCI_NOT_MAPPED) {
			uint64_t at = d->bar[p[2] % PCI_BAR_COUNT].at + load_u16(p + 4);

			if (p[0] & 0x80)
				wr(w->m, at, size, p[3]);
			else
				rd(w->m, at, size);
			bus_write(&w->m->pio, at & 0xffff, size, p[3]);
		}
		break;
	case 7:
		if ((p[0] & 0xc0) == 0x80)
			check_state(w);
		else if (p[0] & 0x80)
			load_damaged(w, p);
		else
			bus_write(&w->m->pio, 0xcf8 + p[2] % 8, size, val);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct world *worlds[2];
	struct world *w;
	unsigned n = 0;

	if (len < 1)
		return 0;
	if (!worlds[0]) {
		worlds[0] = world_new(false);
		worlds[1] = world_new(true);
	}
	w = worlds[data[0] & 1];
	for (size_t at = 1; at + 8 <= len && n++ < MAX_RECORDS; at += 8) {
		step(w, data + at);
		check(w);
	}
	check_state(w);
	pci_bus_reset(&w->m->pci);
	for (unsigned i = 0; i < PCI_MAX_DEVS; i++) {
		const struct pci_dev *d = w->m->pci.dev[i];

		if (d && memcmp(d->cfg, d->initial, PCI_CFG_SIZE))
			abort();
	}
	for (unsigned i = 0; i < 16; i++)
		if (w->m->isa[i])
			abort();
	return 0;
}

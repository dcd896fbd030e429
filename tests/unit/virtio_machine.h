/*
 * tests/unit/virtio_machine.h - a machine of RAM, buses, a PCI bus and a loop, without processors; and
 * a driver that talks to a virtio device of it as a guest would. Included by tests and fuzz targets.
 */
#ifndef VIRTIO_MACHINE_H
#define VIRTIO_MACHINE_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/time.h"
#include "dev/pci_host.h"
#include "dev/pci_lpc.h"
#include "dev/virtio.h"

#define RAM_LOW   (8u << 20)
#define RAM_HIGH  0x40000000ull /* one more MiB here */
#define RAM_EDGE  0x400000ull   /* two regions of low memory meet here */
#define ECAM      0xb0000000ull
#define MMIO32    0xc0000000ull
#define MMIO64    0x8000000000ull
#define MSI_ADDR  0xfee00000ull
#define MSI_SLOTS 64

struct machine {
	pthread_mutex_t lock;
	struct bus pio, mmio;
	struct ram ram;
	struct loop *loop;
	struct state state;
	struct vm_env env;
	struct pci_bus pci;
	struct pci_host *host;
	struct pci_lpc *lpc;
	pthread_t thread;
	bool threaded;
	atomic_uint msi[MSI_SLOTS]; /* messages by their data */
	atomic_bool isa[16], apic[8];
	uint16_t pm_at;
};

static inline void machine_msi(void *ctx, uint64_t addr, uint32_t data)
{
	struct machine *m = ctx;

	if (addr == MSI_ADDR && data < MSI_SLOTS)
		atomic_fetch_add(&m->msi[data], 1);
}

static inline void machine_isa(void *ctx, unsigned n, bool level)
{
	struct machine *m = ctx;

	m->isa[n] = level;
}

static inline void machine_apic(void *ctx, unsigned n, bool level)
{
	struct machine *m = ctx;

	m->apic[n] = level;
}

static inline void machine_pm(void *ctx, uint16_t base)
{
	struct machine *m = ctx;

	m->pm_at = base;
}

static inline void *machine_loop(void *ctx)
{
	struct machine *m = ctx;

	loop_run(m->loop);
	return NULL;
}

static inline struct pci_lpc_cfg machine_lpc_cfg(struct machine *m, bool q35)
{
	struct pci_lpc_cfg cfg = {
		.kind = q35 ? PCI_LPC_ICH9 : PCI_LPC_PIIX3,
		.pm_moved = machine_pm,
		.pm_ctx = m,
		.pm_base = 0x600,
	};

	for (unsigned i = 0; i < 16; i++)
		cfg.isa[i] = (struct irq){machine_isa, m, i};
	for (unsigned i = 0; i < 8; i++)
		cfg.apic[i] = (struct irq){machine_apic, m, i};
	return cfg;
}

static inline struct machine *machine_new(bool q35)
{
	struct machine *m = calloc(1, sizeof(*m));
	pthread_mutexattr_t a;
	struct pci_lpc_cfg cfg;
	struct err err = {0};
	int rc;

	assert(m);
	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&m->lock, &a);
	bus_init(&m->pio, "io", 0x10000, &m->lock);
	bus_init(&m->mmio, "memory", 1ull << 46, &m->lock);
	rc = ram_init(&m->ram, RAM_LOW + (1 << 20), &err);
	rc |= ram_add(&m->ram, 0, RAM_EDGE, &err);
	rc |= ram_add(&m->ram, RAM_HIGH, 1 << 20, &err);
	rc |= ram_add(&m->ram, RAM_EDGE, RAM_LOW - RAM_EDGE, &err);
	rc |= ram_add_rom(&m->ram, 0xfffff000, "rom", 4, &err);
	m->loop = loop_new(&m->lock, &err);
	assert(!rc && m->loop);
	m->env = (struct vm_env){
		.lock = &m->lock,
		.pio = &m->pio,
		.mmio = &m->mmio,
		.ram = &m->ram,
		.loop = m->loop,
		.state = &m->state,
		.msi = {machine_msi, m},
	};
	pci_bus_init(&m->pci, &m->env);
	m->host = pci_host_new(&m->pci, q35 ? PCI_HOST_Q35 : PCI_HOST_I440FX,
			       q35 ? ECAM : 0, &err);
	cfg = machine_lpc_cfg(m, q35);
	m->lpc = pci_lpc_new(&m->pci, &cfg, &err);
	assert(m->host && m->lpc);
	return m;
}

static inline void machine_run(struct machine *m)
{
	m->threaded = true;
	pthread_create(&m->thread, NULL, machine_loop, m);
}

/* All devices are there: what firmware would do, and the loop starts. */
static inline int machine_start(struct machine *m, bool threaded)
{
	static const uint8_t isa[8] = {10, 10, 11, 11, 10, 10, 11, 11};
	struct pci_window mmio32 = {MMIO32, 0x10000000}, mmio64 = {MMIO64, 1ull << 40},
			  io = {0xc000, 0x1000};
	struct err err;
	int rc;

	pci_lpc_route(m->lpc, isa);
	rc = pci_assign_resources(&m->pci, &mmio32, &mmio64, &io, &err);
	if (threaded)
		machine_run(m);
	return rc;
}

static inline void machine_stop(struct machine *m)
{
	if (m->threaded) {
		loop_stop(m->loop);
		pthread_join(m->thread, NULL);
		m->threaded = false;
	}
}

/* After machine_stop(), and when the devices are freed. */
static inline void machine_free(struct machine *m)
{
	pci_lpc_free(m->lpc);
	pci_host_free(m->host);
	loop_free(m->loop);
	ram_fini(&m->ram);
	bus_fini(&m->pio);
	bus_fini(&m->mmio);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static inline void sync_call(void *ctx)
{
	atomic_store((atomic_bool *)ctx, true);
}

static inline void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

/* Returns when the loop has run all calls that were posted before. */
static inline void machine_sync(struct machine *m)
{
	atomic_bool done = false;

	loop_post(m->loop, sync_call, &done);
	while (!atomic_load(&done))
		nap();
}

static inline unsigned msi_count(struct machine *m, unsigned data)
{
	return atomic_load(&m->msi[data]);
}

/* Is any PCI interrupt line up? */
static inline bool m_apic_any(struct machine *m)
{
	bool any = false;

	for (unsigned i = 0; i < 8; i++)
		any |= atomic_load(&m->apic[i]);
	return any;
}

/* ---- accesses of a processor ---- */

static inline uint32_t rd(struct machine *m, uint64_t gpa, unsigned size)
{
	uint64_t v;

	bus_read(&m->mmio, gpa, size, &v);
	return (uint32_t)v;
}

static inline void wr(struct machine *m, uint64_t gpa, unsigned size, uint32_t v)
{
	bus_write(&m->mmio, gpa, size, v);
}

static inline uint32_t cfg_rd(struct machine *m, unsigned devfn, unsigned off,
			      unsigned size)
{
	uint64_t v;

	bus_write(&m->pio, 0xcf8, 4, 0x80000000u | devfn << 8 | (off & 0xfc));
	bus_read(&m->pio, 0xcfc + (off & 3), size, &v);
	return (uint32_t)v;
}

static inline void cfg_wr(struct machine *m, unsigned devfn, unsigned off,
			  unsigned size, uint32_t v)
{
	bus_write(&m->pio, 0xcf8, 4, 0x80000000u | devfn << 8 | (off & 0xfc));
	bus_write(&m->pio, 0xcfc + (off & 3), size, v);
}

static inline void put(struct machine *m, uint64_t gpa, const void *p, size_t len)
{
	bool ok = dma_write(&m->ram, gpa, p, len);

	assert(ok);
	(void)ok;
}

static inline void get(struct machine *m, uint64_t gpa, void *p, size_t len)
{
	bool ok = dma_read(&m->ram, gpa, p, len);

	assert(ok);
	(void)ok;
}

static inline void put16(struct machine *m, uint64_t gpa, uint16_t v)
{
	put(m, gpa, &v, 2);
}

static inline uint16_t get16(struct machine *m, uint64_t gpa)
{
	uint16_t v;

	get(m, gpa, &v, 2);
	return v;
}

static inline uint32_t get32(struct machine *m, uint64_t gpa)
{
	uint32_t v;

	get(m, gpa, &v, 4);
	return v;
}

/* ---- a driver ---- */

/* Registers of the common structure. */
enum {
	C_DEV_SEL = 0,
	C_DEV_FEAT = 4,
	C_DRV_SEL = 8,
	C_DRV_FEAT = 12,
	C_CFG_VECTOR = 16,
	C_NUM_QUEUES = 18,
	C_STATUS = 20,
	C_GENERATION = 21,
	C_Q_SEL = 22,
	C_Q_SIZE = 24,
	C_Q_VECTOR = 26,
	C_Q_ENABLE = 28,
	C_Q_NOTIFY = 30,
	C_Q_DESC = 32,
	C_Q_AVAIL = 40,
	C_Q_USED = 48,
};

enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

#define Q_AREA(q)  (0x100000ull + (q)*0x10000ull)
#define Q_DESC(q)  (Q_AREA(q))
#define Q_AVAIL(q) (Q_AREA(q) + 0x4000)
#define Q_USED(q)  (Q_AREA(q) + 0x8000)
#define Q_LEN      16 /* entries the driver uses */
#define DATA       0x200000ull

struct driver {
	struct machine *m;
	unsigned devfn;
	uint64_t common, notify, isr, config, msix;
	uint32_t stride;
	uint16_t len;       /* entries of each queue */
	uint16_t avail[16]; /* next index to offer */
	uint16_t used[16];  /* next index to look at */
};

/* Finds the structures by their capabilities (4.1.4). */
static inline void driver_probe(struct driver *d, struct machine *m, unsigned devfn)
{
	unsigned cap = cfg_rd(m, devfn, 0x34, 1);

	*d = (struct driver){.m = m, .devfn = devfn, .len = Q_LEN};
	for (unsigned i = 0; cap && i < 32; i++, cap = cfg_rd(m, devfn, cap + 1, 1)) {
		bool msix = cfg_rd(m, devfn, cap, 1) == 0x11;
		unsigned bar = msix ? cfg_rd(m, devfn, cap + 4, 1) & 7
				    : cfg_rd(m, devfn, cap + 4, 1);
		uint64_t base = cfg_rd(m, devfn, 0x10 + 4 * (bar % 6), 4) & ~0xfull;
		uint64_t at = base + cfg_rd(m, devfn, cap + 8, 4);

		if (msix)
			d->msix = base + (cfg_rd(m, devfn, cap + 4, 4) & ~7ull);
		switch (msix ? 0 : cfg_rd(m, devfn, cap + 3, 1)) {
		case 1: d->common = at; break;
		case 2:
			d->notify = at;
			d->stride = cfg_rd(m, devfn, cap + 16, 4);
			break;
		case 3: d->isr = at; break;
		case 4: d->config = at; break;
		}
	}
}

static inline unsigned driver_cap(struct driver *d, uint8_t id, int type)
{
	unsigned cap = cfg_rd(d->m, d->devfn, 0x34, 1);

	for (unsigned i = 0; cap && i < 32;
	     i++, cap = cfg_rd(d->m, d->devfn, cap + 1, 1))
		if (cfg_rd(d->m, d->devfn, cap, 1) == id &&
		    (type < 0 || (int)cfg_rd(d->m, d->devfn, cap + 3, 1) == type))
			return cap;
	return 0;
}

/* Vector v sends data v to MSI_ADDR. */
static inline void driver_msix(struct driver *d, unsigned n)
{
	unsigned cap = driver_cap(d, 0x11, -1);

	for (unsigned v = 0; v < n; v++) {
		wr(d->m, d->msix + 16 * v, 4, MSI_ADDR);
		wr(d->m, d->msix + 16 * v + 4, 4, 0);
		wr(d->m, d->msix + 16 * v + 8, 4, v);
		wr(d->m, d->msix + 16 * v + 12, 4, 0);
	}
	cfg_wr(d->m, d->devfn, cap + 2, 2, 0x8000);
}

static inline uint64_t driver_offered(struct driver *d)
{
	uint64_t f;

	wr(d->m, d->common + C_DEV_SEL, 4, 0);
	f = rd(d->m, d->common + C_DEV_FEAT, 4);
	wr(d->m, d->common + C_DEV_SEL, 4, 1);
	return f | (uint64_t)rd(d->m, d->common + C_DEV_FEAT, 4) << 32;
}

static inline uint8_t driver_status(struct driver *d)
{
	return (uint8_t)rd(d->m, d->common + C_STATUS, 1);
}

static inline void driver_set_status(struct driver *d, uint8_t s)
{
	wr(d->m, d->common + C_STATUS, 1, s);
}

/* Up to FEATURES_OK; false when the device refuses. */
static inline bool driver_negotiate(struct driver *d, uint64_t features)
{
	driver_set_status(d, 0);
	driver_set_status(d, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		wr(d->m, d->common + C_DRV_SEL, 4, i);
		wr(d->m, d->common + C_DRV_FEAT, 4, (uint32_t)(features >> 32 * i));
	}
	driver_set_status(d, VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER |
				     VIRTIO_S_FEATURES_OK);
	return driver_status(d) & VIRTIO_S_FEATURES_OK;
}

static inline void driver_queue_at(struct driver *d, unsigned q, uint64_t desc,
				   uint64_t avail, uint64_t used)
{
	struct machine *m = d->m;

	wr(m, d->common + C_Q_SEL, 2, q);
	wr(m, d->common + C_Q_SIZE, 2, d->len);
	wr(m, d->common + C_Q_VECTOR, 2, q + 1);
	wr(m, d->common + C_Q_DESC, 4, (uint32_t)desc);
	wr(m, d->common + C_Q_DESC + 4, 4, (uint32_t)(desc >> 32));
	wr(m, d->common + C_Q_AVAIL, 4, (uint32_t)avail);
	wr(m, d->common + C_Q_AVAIL + 4, 4, (uint32_t)(avail >> 32));
	wr(m, d->common + C_Q_USED, 4, (uint32_t)used);
	wr(m, d->common + C_Q_USED + 4, 4, (uint32_t)(used >> 32));
	wr(m, d->common + C_Q_ENABLE, 2, 1);
	d->avail[q] = d->used[q] = 0;
}

static inline void driver_queue(struct driver *d, unsigned q)
{
	static const uint8_t zero[0x10000];

	put(d->m, Q_AREA(q), zero, sizeof(zero));
	driver_queue_at(d, q, Q_DESC(q), Q_AVAIL(q), Q_USED(q));
}

static inline void driver_ready(struct driver *d)
{
	wr(d->m, d->common + C_CFG_VECTOR, 2, 0);
	driver_set_status(d, 0x0f);
}

/* The whole initialisation (3.1.1) with MSI-X, all features offered and not in `without`. */
static inline bool driver_start(struct driver *d, unsigned n_queues, uint64_t without)
{
	if (!driver_negotiate(d, driver_offered(d) & ~without))
		return false;
	driver_msix(d, n_queues + 1);
	for (unsigned q = 0; q < n_queues; q++)
		driver_queue(d, q);
	driver_ready(d);
	return driver_status(d) == 0x0f;
}

static inline void table_desc(struct driver *d, uint64_t table, unsigned i,
			      uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
	uint64_t at = table + 16ull * i;

	put(d->m, at, &gpa, 8);
	put(d->m, at + 8, &len, 4);
	put16(d->m, at + 12, flags);
	put16(d->m, at + 14, next);
}

static inline void driver_desc(struct driver *d, unsigned q, unsigned i, uint64_t gpa,
			       uint32_t len, uint16_t flags, uint16_t next)
{
	table_desc(d, Q_DESC(q), i, gpa, len, flags, next);
}

static inline void driver_offer(struct driver *d, unsigned q, uint16_t head)
{
	put16(d->m, Q_AVAIL(q) + 4 + 2ull * (d->avail[q] % d->len), head);
	put16(d->m, Q_AVAIL(q) + 2, ++d->avail[q]);
}

static inline void driver_kick(struct driver *d, unsigned q)
{
	wr(d->m, d->notify + d->stride * q, 2, q);
}

/* Waits for the next used chain; false after 3 s. */
static inline bool driver_wait(struct driver *d, unsigned q, uint32_t *id,
			       uint32_t *len)
{
	uint64_t end = time_mono_ns() + 3 * NS_PER_SEC;
	uint64_t elem;

	while (get16(d->m, Q_USED(q) + 2) == d->used[q]) {
		if (time_mono_ns() > end)
			return false;
		nap();
	}
	elem = Q_USED(q) + 4 + 8ull * (d->used[q]++ % d->len);
	if (id)
		*id = get32(d->m, elem);
	if (len)
		*len = get32(d->m, elem + 4);
	return true;
}

/* Waits until the device asks to be reset. */
static inline bool driver_broken(struct driver *d)
{
	uint64_t end = time_mono_ns() + 3 * NS_PER_SEC;

	while (!(driver_status(d) & VIRTIO_S_NEEDS_RESET)) {
		if (time_mono_ns() > end)
			return false;
		nap();
	}
	return true;
}

#endif

/*
 * tests/fuzz/fuzz_virtq.c - a driver that breaks the rules of virtqueues, against each kind of device. Input: a byte
 * for the device, one for the features it leaves out, then records of 8 bytes that write descriptors and
 * rings, notify, and touch registers. Checked: nothing hangs, and after a reset the device works.
 */
#include <sched.h>
#include <stdio.h>

#include "../unit/virtio_machine.h"

#include "dev/virtio_balloon.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_RECORDS 256
#define DISK_SIZE   65536
#define TABLE       (DATA + 0x80000) /* indirect descriptors */

/* ---- backends ---- */

static uint8_t disk[DISK_SIZE];

static void disk_submit(struct blk *b, struct blk_req *r)
{
	uint64_t off = r->off;

	(void)b;
	if (!range_ok(r->off, r->len, DISK_SIZE))
		abort();
	for (unsigned i = 0; i < r->n_iov; i++, off += r->iov[i - 1].iov_len) {
		if (!range_ok(off, r->iov[i].iov_len, DISK_SIZE))
			abort();
		if (r->op == BLK_READ)
			memcpy(r->iov[i].iov_base, disk + off, r->iov[i].iov_len);
		else
			memcpy(disk + off, r->iov[i].iov_base, r->iov[i].iov_len);
	}
	r->done(r, 0);
}

static void disk_drain(struct blk *b)
{
	(void)b;
}

static const struct blk_ops disk_ops = {.submit = disk_submit, .drain = disk_drain};
static struct blk blk = {
	.ops = &disk_ops, .size = DISK_SIZE, .can_discard = true, .block_size = 512};

static void net_send(struct net *n, const struct iovec *iov, unsigned n_iov)
{
	static uint8_t frame[NET_MAX_FRAME];
	size_t len = 0;

	for (unsigned i = 0; i < n_iov; i++) {
		if (!range_ok(len, iov[i].iov_len, sizeof(frame)))
			abort();
		memcpy(frame + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	if (n->peer.can_receive(n->peer.dev))
		n->peer.receive(n->peer.dev, frame, len);
}

static void net_poke(struct net *n)
{
	(void)n;
}

static const struct net_ops net_ops = {.send = net_send, .poke = net_poke};
static struct net net = {.ops = &net_ops};

static void chr_write(struct chr *c, const uint8_t *p, size_t len)
{
	volatile uint8_t sum = 0;

	(void)c;
	for (size_t i = 0; i < len; i++)
		sum ^= p[i];
	(void)sum;
}

static void chr_poke(struct chr *c)
{
	(void)c;
}

static const struct chr_ops chr_ops = {.write = chr_write, .poke = chr_poke};
static struct chr chr = {.ops = &chr_ops};

/* ---- the machine, made once ---- */

enum { N_DEVICES = 5, FIRST_SLOT = 4 };
static const unsigned n_queues[N_DEVICES] = {2, 2, 2, 1, 5};
static struct machine *machine;

static void machine_make(void)
{
	struct err err;
	bool ok;

	machine = machine_new(true);
	ok = virtio_blk_new(&machine->env, &machine->pci, PCI_DEVFN(4, 0), &blk, 2,
			    &err) != NULL;
	ok &= virtio_net_new(&machine->env, &machine->pci, PCI_DEVFN(5, 0), &net,
			     &err) != NULL;
	ok &= virtio_console_new(&machine->env, &machine->pci, PCI_DEVFN(6, 0), &chr,
				 &err) != NULL;
	ok &= virtio_rng_new(&machine->env, &machine->pci, PCI_DEVFN(7, 0), &err) !=
	      NULL;
	ok &= virtio_balloon_new(&machine->env, &machine->pci, PCI_DEVFN(8, 0), &err) !=
	      NULL;
	if (!ok)
		abort();
	machine_run(machine);
}

static void sync_loop(void)
{
	atomic_bool done = false;

	loop_post(machine->loop, sync_call, &done);
	while (!atomic_load(&done))
		sched_yield();
}

/* ---- the driver ---- */

static uint64_t pick_address(uint8_t how, uint16_t low)
{
	static const uint64_t base[] = {
		DATA,
		TABLE,
		RAM_EDGE - 64,
		RAM_LOW - 256,
		RAM_HIGH,
		ECAM,
		MMIO32,
		0xfffff000,
		UINT64_MAX - 64,
		Q_DESC(0),
		Q_AVAIL(0),
		Q_USED(0),
		RAM_HIGH + 0xfff00,
		0,
		1ull << 63,
		0xfee00000,
	};

	return base[how % ARRAY_LEN(base)] + (how & 0x10 ? low : low & 0xff);
}

static uint32_t pick_length(uint8_t how)
{
	static const uint32_t len[] = {1,        12, 16,         17,        512,  513,
				       4096,     0,  256,        1526,      8192, 65536,
				       1u << 20, 20, 0x80000000, UINT32_MAX};

	return len[how % ARRAY_LEN(len)];
}

static void record(struct driver *d, unsigned dev, const uint8_t *p)
{
	struct machine *m = machine;
	unsigned q = p[1] % n_queues[dev], i = p[1] >> 4;
	uint16_t val = load_u16(p + 6);

	switch (p[0] & 15) {
	case 0:
	case 1:
	case 2:
	case 3:
		table_desc(d, p[0] & 0x80 ? TABLE : Q_DESC(q), i,
			   pick_address(p[2], val), pick_length(p[3]), p[4] & 7, p[5]);
		break;
	case 4:
	case 5:
	case 6:
		driver_offer(d, q, p[2] & 0x80 ? val : p[2] % Q_LEN);
		driver_kick(d, q);
		break;
	case 7: put16(m, Q_AVAIL(q) + 2, val); break;
	case 8: put16(m, Q_AVAIL(q) + p[2] % 64, val); break;
	case 9: put16(m, Q_USED(q) + p[2], val); break;
	case 10:
		driver_kick(d, q + (p[2] & 0x80 ? val : 0));
		sync_loop();
		break;
	case 11: wr(m, d->common + p[2] % 64, 1u << p[3] % 3, load_u32(p + 4)); break;
	case 12: wr(m, d->config + p[2], 1u << p[3] % 3, load_u32(p + 4)); break;
	case 13: put(m, DATA + p[2] % 128, p + 3, 5); break;
	case 14:
		if (p[2] & 1)
			cfg_wr(m, d->devfn, PCI_COMMAND, 2, p[3] & 7);
		else
			rd(m, d->isr, 1);
		break;
	case 15:
		pthread_mutex_lock(&m->lock);
		if (chr.peer.room(chr.peer.dev) >= 8)
			chr.peer.receive(chr.peer.dev, p, 8);
		pthread_mutex_unlock(&m->lock);
		break;
	}
}

/* Every device but the balloon gives a plain chain back. */
static void must_work(struct driver *d, unsigned dev)
{
	unsigned q = dev == 1 || dev == 2; /* the queue that sends */
	uint64_t end = time_mono_ns() + 10 * NS_PER_SEC;
	static const uint8_t zero[128];

	put(machine, DATA, zero, sizeof(zero));
	d->len = 8;
	if (!driver_start(d, n_queues[dev], 0))
		abort();
	driver_desc(d, q, 0, DATA, 64, dev == 0 ? D_NEXT : 0, 1);
	driver_desc(d, q, 1, DATA + 64, dev == 0 ? 513 : 64, D_WRITE, 0);
	driver_offer(d, q, dev == 3 ? 1 : 0);
	driver_kick(d, q);
	while (get16(machine, Q_USED(q) + 2) != 1) {
		if (time_mono_ns() > end)
			abort();
		sched_yield();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t zero[0x10000];
	static const uint8_t isa[8] = {10, 10, 11, 11, 10, 10, 11, 11};
	static const struct pci_window w32 = {MMIO32, 1u << 24}, io = {0xc000, 0x1000};
	struct driver d;
	unsigned dev, n = 0;
	struct err err;

	if (len < 2)
		return 0;
	if (!machine)
		machine_make();
	dev = data[0] % N_DEVICES;
	pthread_mutex_lock(&machine->lock);
	pci_bus_reset(&machine->pci);
	pci_lpc_route(machine->lpc, isa);
	if (pci_assign_resources(&machine->pci, &w32, NULL, &io, &err))
		abort();
	pthread_mutex_unlock(&machine->lock);
	put(machine, DATA, zero, sizeof(zero));
	put(machine, TABLE, zero, 0x1000);
	driver_probe(&d, machine, PCI_DEVFN(FIRST_SLOT + dev, 0));
	d.len = 8;
	driver_start(&d, n_queues[dev], (uint64_t)(data[1] & 7) << 27);
	d.len = Q_LEN / 2;
	for (size_t at = 2; at + 8 <= len && n++ < MAX_RECORDS; at += 8)
		record(&d, dev, data + at);
	sync_loop();
	cfg_wr(machine, d.devfn, PCI_COMMAND, 2, 7);
	must_work(&d, dev);
	driver_set_status(&d, 0);
	sync_loop();
	return 0;
}

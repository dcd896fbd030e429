/* tests/unit/test_virtio_blk.c - virtio disks: requests, resets, saved state, hostile queues. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "virtio_machine.h"

#include "dev/virtio_blk.h"

#define DISK_SIZE (1u << 20)
#define FN        PCI_DEVFN(4, 0)
#define HDR       (DATA)           /* where the driver has a request's header, */
#define BUF       (DATA + 0x1000)  /* its data */
#define STATUS    (DATA + 0xf0000) /* and its status byte */

/* A disk in memory whose requests are done at once, or wait until they are let go. */
struct fake {
	struct blk blk;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool hold;
	struct blk_req *held;
	unsigned n_held, flushes, discards, zeroes, unmaps;
	int rc;
	uint8_t data[DISK_SIZE];
};

static void fake_do(struct fake *f, struct blk_req *r)
{
	uint64_t off = r->off;

	for (unsigned i = 0; i < r->n_iov && !f->rc; i++) {
		uint8_t *at = f->data + off;

		assert_true(range_ok(off, r->iov[i].iov_len, DISK_SIZE));
		if (r->op == BLK_READ)
			memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
		else
			memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
		off += r->iov[i].iov_len;
	}
	if (r->op == BLK_READ || r->op == BLK_WRITE)
		assert_int_equal(off - r->off, f->rc ? 0 : r->len);
	f->flushes += r->op == BLK_FLUSH;
	f->discards += r->op == BLK_DISCARD;
	f->zeroes += r->op == BLK_WRITE_ZEROES;
	f->unmaps += r->unmap;
	if (r->op == BLK_WRITE_ZEROES)
		memset(f->data + r->off, 0, r->len);
	r->done(r, f->rc);
}

static void fake_submit(struct blk *b, struct blk_req *r)
{
	struct fake *f = container_of(b, struct fake, blk);

	if (!f->hold) {
		fake_do(f, r);
		return;
	}
	pthread_mutex_lock(&f->lock);
	r->next = f->held;
	f->held = r;
	f->n_held++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static void fake_drain(struct blk *b)
{
	struct fake *f = container_of(b, struct fake, blk);

	pthread_mutex_lock(&f->lock);
	while (f->n_held)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

/* Completes `n` held requests, as a worker would. */
static void fake_release(struct fake *f, unsigned n)
{
	while (n--) {
		struct blk_req *r;

		pthread_mutex_lock(&f->lock);
		while (!f->held)
			pthread_cond_wait(&f->changed, &f->lock);
		r = f->held;
		f->held = r->next;
		pthread_mutex_unlock(&f->lock);
		fake_do(f, r);
		pthread_mutex_lock(&f->lock);
		f->n_held--;
		pthread_cond_broadcast(&f->changed);
		pthread_mutex_unlock(&f->lock);
	}
}

static void *release_soon(void *ctx)
{
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	fake_release(ctx, 1);
	return NULL;
}

static const struct blk_ops fake_ops = {.submit = fake_submit, .drain = fake_drain};

struct disk {
	struct machine *m;
	struct fake f;
	struct virtio_blk *b;
	struct driver d;
};

/* Not running yet. */
static struct disk *disk_make(bool read_only, unsigned n_queues)
{
	struct disk *k = calloc(1, sizeof(*k));
	struct err err;

	assert_non_null(k);
	k->m = machine_new(true);
	k->f.blk = (struct blk){.ops = &fake_ops,
				.size = DISK_SIZE,
				.read_only = read_only,
				.can_discard = true,
				.block_size = 512,
				.serial = "serial-0123456789abc"};
	pthread_mutex_init(&k->f.lock, NULL);
	pthread_cond_init(&k->f.changed, NULL);
	for (unsigned i = 0; i < DISK_SIZE; i++)
		k->f.data[i] = (uint8_t)(i / 512 + i);
	k->b = virtio_blk_new(&k->m->env, &k->m->pci, FN, &k->f.blk, n_queues, &err);
	assert_non_null(k->b);
	return k;
}

static struct disk *disk_new(bool read_only, unsigned n_queues)
{
	struct disk *k = disk_make(read_only, n_queues);

	assert_int_equal(machine_start(k->m, true), 0);
	driver_probe(&k->d, k->m, FN);
	return k;
}

static void disk_free(struct disk *k)
{
	machine_stop(k->m);
	virtio_blk_free(k->b);
	machine_free(k->m);
	free(k);
}

static void header(struct disk *k, uint32_t type, uint64_t sector)
{
	uint32_t h[2] = {type, 0};

	put(k->m, HDR, h, 8);
	put(k->m, HDR + 8, &sector, 8);
	put(k->m, STATUS, "\xee", 1);
}

/* Builds the chain 0-1-2 and runs it; returns the status byte, 0xee when nothing came back. */
static uint8_t request_at(struct disk *k, uint32_t type, uint64_t sector, uint64_t gpa,
			  uint32_t len, bool to_guest, uint32_t *written)
{
	struct driver *d = &k->d;
	uint8_t status = 0xee;
	uint32_t id = 99;

	header(k, type, sector);
	driver_desc(d, 0, 0, HDR, 16, D_NEXT, len ? 1 : 2);
	driver_desc(d, 0, 1, gpa, len, D_NEXT | (to_guest ? D_WRITE : 0), 2);
	driver_desc(d, 0, 2, STATUS, 1, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_kick(d, 0);
	if (driver_wait(d, 0, &id, written))
		assert_int_equal(id, 0);
	get(k->m, STATUS, &status, 1);
	return status;
}

static uint8_t request(struct disk *k, uint32_t type, uint64_t sector, uint32_t len,
		       bool to_guest, uint32_t *written)
{
	return request_at(k, type, sector, BUF, len, to_guest, written);
}

static void test_setup(void **state)
{
	struct disk *k = disk_new(false, 2);
	struct driver *d = &k->d;
	struct machine *m = k->m;

	(void)state;
	assert_int_equal(cfg_rd(m, FN, 0, 4), 0x10421af4);
	assert_int_equal(cfg_rd(m, FN, 8, 1), 1);
	assert_int_equal(rd(m, d->common + C_NUM_QUEUES, 2), 2);
	assert_true(driver_offered(d) & BIT(VIRTIO_F_VERSION_1));
	/* Without VERSION_1, or with a feature nobody offered: refused. */
	assert_false(driver_negotiate(d, 0));
	assert_false(driver_negotiate(d, driver_offered(d) | BIT(50)));
	assert_false(driver_negotiate(d, driver_offered(d) & ~BIT(VIRTIO_F_VERSION_1)));
	driver_set_status(d, 0);
	wr(m, d->common + C_DRV_SEL, 4, 2); /* bits 64-95 */
	wr(m, d->common + C_DRV_FEAT, 4, 1);
	wr(m, d->common + C_DRV_SEL, 4, 1);
	wr(m, d->common + C_DRV_FEAT, 4, 1);
	driver_set_status(d, 11);
	assert_int_equal(driver_status(d), 3);
	/* DRIVER_OK before features: not running. */
	driver_set_status(d, 0);
	driver_set_status(d, 7);
	assert_int_equal(driver_status(d), 3);
	assert_true(driver_start(d, 2, 0));
	/* Features are fixed now. */
	wr(m, d->common + C_DRV_FEAT, 4, 0);
	assert_int_equal(rd(m, d->common + C_DRV_FEAT, 4), 1);
	assert_int_equal(rd(m, d->config, 4), DISK_SIZE / 512);
	assert_int_equal(rd(m, d->config + 20, 4), 512);
	assert_int_equal(rd(m, d->config + 24, 1), 3); /* 4 KiB physical blocks */
	assert_int_equal(rd(m, d->config + 34, 2), 2);
	assert_int_equal(rd(m, d->config + 0x100, 4), 0);
	/* A vector that is not there. */
	wr(m, d->common + C_Q_VECTOR, 2, 3);
	assert_int_equal(rd(m, d->common + C_Q_VECTOR, 2), 0xffff);
	/* A queue that is not there. */
	wr(m, d->common + C_Q_SEL, 2, 2);
	assert_int_equal(rd(m, d->common + C_Q_SIZE, 2), 0);
	wr(m, d->common + C_Q_ENABLE, 2, 1);
	driver_kick(d, 900);
	assert_int_equal(driver_status(d), 15);
	disk_free(k);
}

static void test_transfers(void **state)
{
	struct disk *k = disk_new(false, 1);
	uint8_t buf[4096];
	uint32_t n;

	(void)state;
	assert_true(driver_start(&k->d, 1, 0));
	assert_int_equal(request(k, 0, 3, 4096, true, &n), 0);
	assert_int_equal(n, 4097);
	get(k->m, BUF, buf, sizeof(buf));
	assert_memory_equal(buf, k->f.data + 3 * 512, sizeof(buf));
	assert_int_equal(msi_count(k->m, 1), 1);
	memset(buf, 0x5a, sizeof(buf));
	put(k->m, BUF, buf, sizeof(buf));
	assert_int_equal(request(k, 1, 8, 4096, false, &n), 0);
	assert_int_equal(n, 1);
	assert_memory_equal(buf, k->f.data + 8 * 512, sizeof(buf));
	assert_int_equal(k->f.flushes, 0);
	assert_int_equal(request(k, 4, 0, 0, false, &n), 0);
	assert_int_equal(k->f.flushes, 1);
	/* The last sector, and what is behind it. */
	assert_int_equal(request(k, 0, DISK_SIZE / 512 - 1, 512, true, &n), 0);
	assert_int_equal(request(k, 0, DISK_SIZE / 512 - 1, 1024, true, &n), 1);
	assert_int_equal(n, 1);
	assert_int_equal(request(k, 0, DISK_SIZE / 512, 512, true, &n), 1);
	assert_int_equal(request(k, 0, UINT64_MAX, 512, true, &n), 1);
	assert_int_equal(request(k, 0, UINT64_MAX / 512, 512, true, &n), 1);
	assert_int_equal(request(k, 0, 0, 100, true, &n), 1); /* not whole sectors */
	/* The buffer spans two regions of memory. */
	assert_int_equal(request_at(k, 0, 1, RAM_EDGE - 512, 1024, true, &n), 0);
	get(k->m, RAM_EDGE - 512, buf, 1024);
	assert_memory_equal(buf, k->f.data + 512, 1024);
	/* Serial number; requests nobody knows. */
	assert_int_equal(request(k, 8, 0, 20, true, &n), 0);
	get(k->m, BUF, buf, 20);
	assert_memory_equal(buf, "serial-0123456789abc", 20);
	assert_int_equal(request(k, 99, 0, 512, true, &n), 2);
	/* The backend fails. */
	k->f.rc = -EIO;
	assert_int_equal(request(k, 0, 0, 512, true, &n), 1);
	disk_free(k);
}

static void range(struct disk *k, uint64_t sector, uint32_t n, uint32_t flags)
{
	put(k->m, BUF, &sector, 8);
	put(k->m, BUF + 8, &n, 4);
	put(k->m, BUF + 12, &flags, 4);
}

static void test_discard(void **state)
{
	struct disk *k = disk_new(false, 1);
	uint32_t n;

	(void)state;
	assert_true(driver_start(&k->d, 1, 0));
	range(k, 8, 8, 0);
	assert_int_equal(request(k, 11, 0, 16, false, &n), 0);
	assert_int_equal(k->f.discards, 1);
	range(k, 8, 8, 1); /* no flag is defined for a discard */
	assert_int_equal(request(k, 11, 0, 16, false, &n), 2);
	range(k, 16, 8, 1);
	assert_int_equal(request(k, 13, 0, 16, false, &n), 0);
	assert_int_equal(k->f.zeroes, 1);
	assert_int_equal(k->f.unmaps, 1);
	assert_int_equal(k->f.data[16 * 512 + 4095], 0);
	range(k, 16, 8, 2);
	assert_int_equal(request(k, 13, 0, 16, false, &n), 2);
	range(k, DISK_SIZE / 512 - 1, 2, 0);
	assert_int_equal(request(k, 13, 0, 16, false, &n), 1);
	range(k, 0, UINT32_MAX, 0);
	assert_int_equal(request(k, 11, 0, 16, false, &n), 1);
	assert_int_equal(request(k, 11, 0, 32, false, &n), 2); /* two segments */
	assert_int_equal(k->f.discards + k->f.zeroes, 2);
	disk_free(k);
}

/* Without F_FLUSH a completed write is on the disk; without F_DISCARD there is no discard. */
static void test_without_flush(void **state)
{
	struct disk *k = disk_new(false, 1);
	uint32_t n;

	(void)state;
	assert_true(driver_start(&k->d, 1, BIT(9) | BIT(13)));
	assert_int_equal(request(k, 1, 0, 512, false, &n), 0);
	assert_int_equal(k->f.flushes, 1);
	assert_int_equal(request(k, 0, 0, 512, true, &n), 0);
	assert_int_equal(k->f.flushes, 1);
	range(k, 8, 8, 0);
	assert_int_equal(request(k, 11, 0, 16, false, &n), 2);
	disk_free(k);
}

static void test_read_only(void **state)
{
	struct disk *k = disk_new(true, 1);
	uint8_t before = k->f.data[0];
	uint32_t n;

	(void)state;
	assert_true(driver_offered(&k->d) & BIT(5));
	assert_true(driver_start(&k->d, 1, 0));
	assert_int_equal(request(k, 1, 0, 512, false, &n), 1);
	range(k, 0, 8, 0);
	assert_int_equal(request(k, 13, 0, 16, false, &n), 2);
	assert_int_equal(k->f.data[0], before);
	assert_int_equal(request(k, 0, 0, 512, true, &n), 0);
	disk_free(k);
}

/* An indirect table; header and data cut into odd pieces. */
static void test_indirect(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	uint64_t table = DATA + 0x80000;
	uint8_t buf[1024], status;
	uint32_t n;

	(void)state;
	assert_true(driver_start(d, 1, 0));
	header(k, 0, 5);
	table_desc(d, table, 0, HDR, 5, D_NEXT, 1);
	table_desc(d, table, 1, HDR + 5, 11, D_NEXT, 2);
	table_desc(d, table, 2, BUF, 100, D_NEXT | D_WRITE, 3);
	table_desc(d, table, 3, BUF, 0, D_NEXT | D_WRITE, 4); /* empty: allowed */
	table_desc(d, table, 4, BUF + 100, 924, D_NEXT | D_WRITE, 5);
	table_desc(d, table, 5, STATUS, 1, D_WRITE, 0);
	driver_desc(d, 0, 7, table, 6 * 16, D_INDIRECT, 0);
	driver_offer(d, 0, 7);
	driver_kick(d, 0);
	assert_true(driver_wait(d, 0, &n, NULL));
	assert_int_equal(n, 7);
	get(k->m, STATUS, &status, 1);
	assert_int_equal(status, 0);
	get(k->m, BUF, buf, sizeof(buf));
	assert_memory_equal(buf, k->f.data + 5 * 512, sizeof(buf));
	disk_free(k);
}

/* Status and data in one buffer: the last byte is the status. */
static void test_shared_status(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	uint8_t buf[513];
	uint32_t len;

	(void)state;
	assert_true(driver_start(d, 1, 0));
	header(k, 0, 5);
	memset(buf, 0xee, sizeof(buf));
	put(k->m, BUF, buf, sizeof(buf));
	driver_desc(d, 0, 0, HDR, 16, D_NEXT, 1);
	driver_desc(d, 0, 1, BUF, 513, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_kick(d, 0);
	assert_true(driver_wait(d, 0, NULL, &len));
	assert_int_equal(len, 513);
	get(k->m, BUF, buf, sizeof(buf));
	assert_memory_equal(buf, k->f.data + 5 * 512, 512);
	assert_int_equal(buf[512], 0);
	disk_free(k);
}

/* Interrupts only when wanted: flag without, index with event indices. */
static void test_irq_suppression(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	uint32_t n;

	(void)state;
	assert_true(driver_start(d, 1, BIT(VIRTIO_F_EVENT_IDX)));
	put16(k->m, Q_AVAIL(0), 1);
	request(k, 0, 0, 512, true, &n);
	machine_sync(k->m);
	assert_int_equal(msi_count(k->m, 1), 0);
	put16(k->m, Q_AVAIL(0), 0);
	request(k, 0, 0, 512, true, &n);
	assert_int_equal(msi_count(k->m, 1), 1);

	assert_true(driver_start(d, 1, 0));
	put16(k->m, Q_AVAIL(0) + 4 + 2 * Q_LEN, 2); /* used_event: after the third */
	request(k, 0, 0, 512, true, &n); /* the first decision is always yes */
	assert_int_equal(msi_count(k->m, 1), 2);
	request(k, 0, 0, 512, true, &n);
	assert_int_equal(msi_count(k->m, 1), 2);
	request(k, 0, 0, 512, true, &n);
	assert_int_equal(msi_count(k->m, 1), 3);
	/* And the device says when it wants to be told. */
	assert_int_equal(get16(k->m, Q_USED(0) + 4 + 8 * Q_LEN), 3);
	disk_free(k);
}

/* Without MSI-X: the pin and the ISR register. */
static void test_intx(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	uint64_t end = time_mono_ns() + 3 * NS_PER_SEC;
	uint32_t n;

	(void)state;
	assert_true(driver_negotiate(d, driver_offered(d)));
	driver_queue(d, 0);
	driver_ready(d);
	assert_int_equal(request(k, 0, 0, 512, true, &n), 0);
	while (!m_apic_any(k->m) && time_mono_ns() < end)
		nap();
	assert_true(m_apic_any(k->m));
	assert_int_equal(rd(k->m, d->isr, 1), 1);
	assert_false(m_apic_any(k->m));
	assert_int_equal(rd(k->m, d->isr, 1), 0);
	/* A change of configuration. */
	pthread_mutex_lock(&k->m->lock);
	k->f.blk.size = DISK_SIZE / 2;
	virtio_blk_resized(k->b);
	pthread_mutex_unlock(&k->m->lock);
	machine_sync(k->m);
	assert_true(m_apic_any(k->m));
	assert_int_equal(rd(k->m, d->isr, 1), 2);
	assert_int_equal(rd(k->m, d->config, 4), DISK_SIZE / 1024);
	assert_int_equal(rd(k->m, d->common + C_GENERATION, 1), 1);
	assert_int_equal(request(k, 0, DISK_SIZE / 1024, 512, true, &n), 1);
	disk_free(k);
}

/* A reset while a request is with a worker is done when that comes back, and writes nothing. */
static void test_reset_in_flight(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	uint32_t n;

	(void)state;
	assert_true(driver_start(d, 1, 0));
	k->f.hold = true;
	header(k, 0, 3);
	driver_desc(d, 0, 0, HDR, 16, D_NEXT, 1);
	driver_desc(d, 0, 1, BUF, 512, D_NEXT | D_WRITE, 2);
	driver_desc(d, 0, 2, STATUS, 1, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_kick(d, 0);
	assert_int_equal(k->f.n_held, 1);
	driver_set_status(d, 0);
	assert_int_not_equal(driver_status(d), 0); /* not yet */
	driver_set_status(d, 1);                   /* too early: no effect */
	driver_kick(d, 0);
	fake_release(&k->f, 1);
	assert_int_equal(driver_status(d), 0);
	assert_int_equal(get16(k->m, Q_USED(0) + 2), 0);
	assert_int_equal(msi_count(k->m, 1), 0);
	k->f.hold = false;
	assert_true(driver_start(d, 1, 0));
	assert_int_equal(request(k, 0, 0, 512, true, &n), 0);
	disk_free(k);
}

static void test_save_restore(void **state)
{
	struct disk *k = disk_new(false, 1), *l = disk_make(false, 1);
	struct driver *d = &k->d;
	struct str s = {0};
	struct err err;
	pthread_t t;
	uint8_t *ram = malloc(RAM_LOW);
	uint32_t n;

	(void)state;
	assert_non_null(ram);
	assert_true(driver_start(d, 1, 0));
	assert_int_equal(request(k, 0, 3, 512, true, &n), 0);
	d->used[0] = 2;
	k->f.hold = true;
	header(k, 0, 3);
	driver_offer(d, 0, 0);
	driver_kick(d, 0);
	pthread_create(&t, NULL, release_soon, &k->f);
	machine_stop(k->m);
	virtio_blk_quiesce(k->b);
	assert_int_equal(k->f.n_held, 0);
	pthread_join(t, NULL);
	assert_int_equal(get16(k->m, Q_USED(0) + 2), 2); /* it was completed */
	/* One more that the device has not seen: the restored machine does it. */
	header(k, 0, 9);
	driver_offer(d, 0, 0);
	assert_int_equal(state_save(&k->m->state, &s, &err), 0);
	get(k->m, 0, ram, RAM_LOW);
	put(l->m, 0, ram, RAM_LOW);
	assert_int_equal(state_load(&l->m->state, s.p, s.len, &err), 0);
	l->d = *d;
	l->d.m = l->m;
	d = &l->d;
	machine_run(l->m);
	assert_true(driver_wait(d, 0, NULL, &n));
	assert_int_equal(n, 513);
	get(l->m, BUF, ram, 512);
	assert_memory_equal(ram, l->f.data + 9 * 512, 512);
	assert_int_equal(msi_count(l->m, 1), 1);
	assert_int_equal(request(l, 0, 0, 512, true, &n), 0);
	disk_free(k);
	disk_free(l);
	free(ram);
	str_fini(&s);
}

/* ---- hostile drivers ---- */

/* What makes the device ask for a reset; each starts with a running device. */
static void bad_loop(struct driver *d)
{
	driver_desc(d, 0, 0, HDR, 16, D_NEXT, 1);
	driver_desc(d, 0, 1, BUF, 16, D_NEXT, 0);
	driver_offer(d, 0, 0);
}

static void bad_next(struct driver *d)
{
	driver_desc(d, 0, 0, HDR, 16, D_NEXT, Q_LEN);
	driver_offer(d, 0, 0);
}

static void bad_head(struct driver *d)
{
	driver_offer(d, 0, Q_LEN);
}

static void bad_jump(struct driver *d)
{
	put16(d->m, Q_AVAIL(0) + 2, Q_LEN + 1);
}

static void bad_address(struct driver *d)
{
	driver_desc(d, 0, 0, ECAM, 16, 0, 0);
	driver_offer(d, 0, 0);
}

static void bad_wrap(struct driver *d)
{
	driver_desc(d, 0, 0, UINT64_MAX - 4, 16, 0, 0);
	driver_offer(d, 0, 0);
}

static void bad_length(struct driver *d)
{
	driver_desc(d, 0, 0, HDR, UINT32_MAX, 0, 0);
	driver_offer(d, 0, 0);
}

static void bad_rom(struct driver *d)
{
	driver_desc(d, 0, 0, 0xfffff000, 16, D_WRITE, 0);
	driver_offer(d, 0, 0);
}

static void bad_order(struct driver *d)
{
	driver_desc(d, 0, 0, STATUS, 1, D_WRITE | D_NEXT, 1);
	driver_desc(d, 0, 1, HDR, 16, 0, 0);
	driver_offer(d, 0, 0);
}

static void bad_empty(struct driver *d)
{
	driver_desc(d, 0, 0, HDR, 0, 0, 0);
	driver_offer(d, 0, 0);
}

static void bad_no_status(struct driver *d)
{
	driver_desc(d, 0, 0, HDR, 16, 0, 0);
	driver_offer(d, 0, 0);
}

static void bad_short_header(struct driver *d)
{
	driver_desc(d, 0, 0, HDR, 15, D_NEXT, 1);
	driver_desc(d, 0, 1, STATUS, 1, D_WRITE, 0);
	driver_offer(d, 0, 0);
}

#define TABLE (DATA + 0x80000)

static void bad_nested(struct driver *d)
{
	table_desc(d, TABLE, 0, TABLE, 16, D_INDIRECT, 0);
	driver_desc(d, 0, 0, TABLE, 16, D_INDIRECT, 0);
	driver_offer(d, 0, 0);
}

static void bad_indirect_next(struct driver *d)
{
	driver_desc(d, 0, 0, TABLE, 16, D_INDIRECT | D_NEXT, 1);
	driver_offer(d, 0, 0);
}

static void bad_indirect_length(struct driver *d)
{
	driver_desc(d, 0, 0, TABLE, 17, D_INDIRECT, 0);
	driver_offer(d, 0, 0);
}

static void bad_indirect_empty(struct driver *d)
{
	driver_desc(d, 0, 0, TABLE, 0, D_INDIRECT, 0);
	driver_offer(d, 0, 0);
}

static void bad_indirect_huge(struct driver *d)
{
	driver_desc(d, 0, 0, TABLE, 16 * 257, D_INDIRECT, 0);
	driver_offer(d, 0, 0);
}

static void bad_indirect_address(struct driver *d)
{
	driver_desc(d, 0, 0, ECAM, 16, D_INDIRECT, 0);
	driver_offer(d, 0, 0);
}

static void bad_indirect_loop(struct driver *d)
{
	table_desc(d, TABLE, 0, HDR, 16, D_NEXT, 1);
	table_desc(d, TABLE, 1, HDR, 16, D_NEXT, 0);
	driver_desc(d, 0, 0, TABLE, 32, D_INDIRECT, 0);
	driver_offer(d, 0, 0);
}

static void bad_move(struct driver *d)
{
	wr(d->m, d->common + C_Q_SEL, 2, 0);
	wr(d->m, d->common + C_Q_USED, 4, 0x1000);
}

static void bad_resize(struct driver *d)
{
	wr(d->m, d->common + C_Q_SEL, 2, 0);
	wr(d->m, d->common + C_Q_SIZE, 2, 8);
}

static const struct {
	const char *name;
	void (*make)(struct driver *d);
} bad[] = {
	{"descriptor loop", bad_loop},
	{"next outside the table", bad_next},
	{"head outside the table", bad_head},
	{"index too far ahead", bad_jump},
	{"buffer in device memory", bad_address},
	{"buffer that wraps", bad_wrap},
	{"buffer of 4 GiB", bad_length},
	{"buffer in ROM", bad_rom},
	{"readable after writable", bad_order},
	{"empty chain", bad_empty},
	{"no status", bad_no_status},
	{"short header", bad_short_header},
	{"indirect in indirect", bad_nested},
	{"indirect with next", bad_indirect_next},
	{"indirect of odd length", bad_indirect_length},
	{"indirect of no length", bad_indirect_empty},
	{"indirect too long", bad_indirect_huge},
	{"indirect in device memory", bad_indirect_address},
	{"indirect loop", bad_indirect_loop},
	{"queue moved in use", bad_move},
	{"queue resized in use", bad_resize},
};

static void test_hostile(void **state)
{
	struct disk *k = disk_new(false, 1);
	uint32_t n;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		unsigned before = msi_count(k->m, 0);

		assert_true(driver_start(&k->d, 1, 0));
		bad[i].make(&k->d);
		driver_kick(&k->d, 0);
		if (!driver_broken(&k->d))
			fail_msg("%s is accepted", bad[i].name);
		assert_int_equal(msi_count(k->m, 0), before + 1);
		/* It takes nothing more until a reset, then works. */
		driver_kick(&k->d, 0);
		driver_set_status(&k->d, 15);
		assert_true(driver_status(&k->d) & VIRTIO_S_NEEDS_RESET);
		assert_true(driver_start(&k->d, 1, 0));
		assert_int_equal(request(k, 0, 0, 512, true, &n), 0);
	}
	disk_free(k);
}

static void test_bad_queues(void **state)
{
	static const uint64_t at[][3] = {
		{ECAM, Q_AVAIL(0), Q_USED(0)},
		{Q_DESC(0), ECAM, Q_USED(0)},
		{Q_DESC(0), Q_AVAIL(0), ECAM},
		{Q_DESC(0), Q_AVAIL(0), 0xfffff000},          /* ROM */
		{Q_DESC(0) + 8, Q_AVAIL(0), Q_USED(0)},       /* alignment */
		{Q_DESC(0), Q_AVAIL(0) + 1, Q_USED(0)},       /* alignment */
		{Q_DESC(0), Q_AVAIL(0), Q_USED(0) + 2},       /* alignment */
		{RAM_LOW - 16, Q_AVAIL(0), Q_USED(0)},        /* over the end */
		{UINT64_MAX & ~15ull, Q_AVAIL(0), Q_USED(0)}, /* wraps */
		{Q_DESC(0), Q_AVAIL(0), UINT64_MAX & ~7ull},  /* wraps */
	};
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	uint32_t n;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
		assert_true(driver_negotiate(d, driver_offered(d)));
		driver_queue_at(d, 0, at[i][0], at[i][1], at[i][2]);
		assert_int_equal(rd(k->m, d->common + C_Q_ENABLE, 2), 0);
		assert_true(driver_broken(d));
		driver_ready(d);
		driver_kick(d, 0);
	}
	for (unsigned size = 0; size < 1024; size = size * 2 + 3) { /* 0, 3, 9, ... */
		assert_true(driver_negotiate(d, driver_offered(d)));
		d->len = (uint16_t)(size == 765 ? 512 : size);
		driver_queue_at(d, 0, Q_DESC(0), Q_AVAIL(0), Q_USED(0));
		assert_int_equal(rd(k->m, d->common + C_Q_ENABLE, 2), 0);
	}
	d->len = Q_LEN;
	/* Rings that span two regions of memory work. */
	assert_true(driver_negotiate(d, driver_offered(d)));
	driver_queue_at(d, 0, RAM_EDGE - 128, Q_AVAIL(0), Q_USED(0));
	assert_int_equal(rd(k->m, d->common + C_Q_ENABLE, 2), 1);
	assert_true(driver_start(d, 1, 0));
	assert_int_equal(request(k, 0, 0, 512, true, &n), 0);
	disk_free(k);
}

/* Without bus mastering the device reaches no memory; with it, it goes on. */
static void test_bus_master(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;

	(void)state;
	assert_true(driver_start(d, 1, 0));
	cfg_wr(k->m, FN, PCI_COMMAND, 2, 2);
	header(k, 0, 3);
	driver_desc(d, 0, 0, HDR, 16, D_NEXT, 1);
	driver_desc(d, 0, 1, BUF, 512, D_NEXT | D_WRITE, 2);
	driver_desc(d, 0, 2, STATUS, 1, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_kick(d, 0);
	machine_sync(k->m);
	assert_int_equal(get16(k->m, Q_USED(0) + 2), 0);
	cfg_wr(k->m, FN, PCI_COMMAND, 2, 6);
	assert_true(driver_wait(d, 0, NULL, NULL));
	disk_free(k);
}

/* The window to the BAR in configuration space (4.1.4.9). */
static void test_cfg_window(void **state)
{
	struct disk *k = disk_new(false, 1);
	struct driver *d = &k->d;
	unsigned cap = driver_cap(d, 9, 5);

	(void)state;
	assert_int_not_equal(cap, 0);
	cfg_wr(k->m, FN, cap + 4, 1, 0);
	cfg_wr(k->m, FN, cap + 8, 4, 0x2000); /* device configuration */
	cfg_wr(k->m, FN, cap + 12, 4, 4);
	assert_int_equal(cfg_rd(k->m, FN, cap + 16, 4), DISK_SIZE / 512);
	cfg_wr(k->m, FN, cap + 8, 4, C_STATUS);
	cfg_wr(k->m, FN, cap + 12, 4, 1);
	cfg_wr(k->m, FN, cap + 16, 1, 1);
	assert_int_equal(driver_status(d), 1);
	/* Nonsense changes nothing. */
	cfg_wr(k->m, FN, cap + 8, 4, 0xfffffff0);
	cfg_wr(k->m, FN, cap + 16, 1, 0);
	cfg_rd(k->m, FN, cap + 16, 4);
	cfg_wr(k->m, FN, cap + 12, 4, 3);
	cfg_wr(k->m, FN, cap + 16, 4, 0);
	cfg_wr(k->m, FN, cap + 4, 1, 5);
	cfg_wr(k->m, FN, cap + 12, 4, 4);
	cfg_wr(k->m, FN, cap + 16, 4, 0);
	assert_int_equal(driver_status(d), 1);
	disk_free(k);
}

static void test_many(void **state)
{
	struct disk *k = disk_new(false, 4);
	struct driver *d = &k->d;

	(void)state;
	assert_true(driver_start(d, 4, 0));
	for (unsigned i = 0; i < 2000; i++) {
		unsigned q = i % 4;

		header(k, 0, i % 1000);
		driver_desc(d, q, 0, HDR, 16, D_NEXT, 1);
		driver_desc(d, q, 1, BUF, 512, D_NEXT | D_WRITE, 2);
		driver_desc(d, q, 2, STATUS, 1, D_WRITE, 0);
		driver_offer(d, q, 0);
		driver_kick(d, q);
		assert_true(driver_wait(d, q, NULL, NULL));
	}
	disk_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_setup),
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_without_flush),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_indirect),
		cmocka_unit_test(test_shared_status),
		cmocka_unit_test(test_irq_suppression),
		cmocka_unit_test(test_intx),
		cmocka_unit_test(test_reset_in_flight),
		cmocka_unit_test(test_save_restore),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_bad_queues),
		cmocka_unit_test(test_bus_master),
		cmocka_unit_test(test_cfg_window),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

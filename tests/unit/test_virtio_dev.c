/* tests/unit/test_virtio_dev.c - virtio network card, console, entropy source, balloon. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio_machine.h"

#include "dev/virtio_balloon.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_rng.h"

#define FN PCI_DEVFN(4, 0)

static void lock(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
}

static void unlock(struct machine *m)
{
	pthread_mutex_unlock(&m->lock);
}

/* ---- network ---- */

struct fake_net {
	struct net net;
	unsigned n_sent, n_pokes;
	size_t len;
	uint8_t frame[NET_MAX_FRAME];
	bool echo; /* what is sent comes back, from inside send() */
};

static void fake_send(struct net *n, const struct iovec *iov, unsigned n_iov)
{
	struct fake_net *f = container_of(n, struct fake_net, net);

	f->len = 0;
	for (unsigned i = 0; i < n_iov; i++) {
		assert_true(range_ok(f->len, iov[i].iov_len, sizeof(f->frame)));
		memcpy(f->frame + f->len, iov[i].iov_base, iov[i].iov_len);
		f->len += iov[i].iov_len;
	}
	f->n_sent++;
	if (f->echo && n->peer.can_receive(n->peer.dev))
		n->peer.receive(n->peer.dev, f->frame, f->len);
}

static void fake_poke(struct net *n)
{
	container_of(n, struct fake_net, net)->n_pokes++;
}

static const struct net_ops fake_net_ops = {.send = fake_send, .poke = fake_poke};

struct nic {
	struct machine *m;
	struct fake_net f;
	struct virtio_net *n;
	struct driver d;
};

static struct nic *nic_new(void)
{
	struct nic *k = calloc(1, sizeof(*k));
	struct err err;

	assert_non_null(k);
	k->m = machine_new(true);
	k->f.net = (struct net){.ops = &fake_net_ops, .mac = {0x52, 0x54, 0, 1, 2, 3}};
	k->n = virtio_net_new(&k->m->env, &k->m->pci, FN, &k->f.net, &err);
	assert_non_null(k->n);
	assert_int_equal(machine_start(k->m, true), 0);
	driver_probe(&k->d, k->m, FN);
	return k;
}

static void nic_free(struct nic *k)
{
	machine_stop(k->m);
	virtio_net_free(k->n);
	assert_null(k->f.net.peer.dev);
	machine_free(k->m);
	free(k);
}

/* A frame from the network; false: the card has no room. */
static bool net_in(struct nic *k, const void *frame, size_t len)
{
	struct net_peer *p = &k->f.net.peer;
	bool room;

	lock(k->m);
	room = p->can_receive(p->dev);
	if (room)
		p->receive(p->dev, frame, len);
	unlock(k->m);
	return room;
}

static void test_net_send(void **state)
{
	struct nic *k = nic_new();
	struct driver *d = &k->d;
	uint8_t frame[100];

	(void)state;
	assert_int_equal(cfg_rd(k->m, FN, 0, 4), 0x10411af4);
	assert_int_equal(rd(k->m, d->config, 4), 0x01005452);
	assert_int_equal(rd(k->m, d->config + 6, 2), 1); /* link is up */
	assert_true(driver_start(d, 2, 0));
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 3);
	put(k->m, DATA + 0x100, frame, sizeof(frame));
	/* Header apart, frame in two buffers. */
	driver_desc(d, 1, 0, DATA, 12, D_NEXT, 1);
	driver_desc(d, 1, 1, DATA + 0x100, 60, D_NEXT, 2);
	driver_desc(d, 1, 2, DATA + 0x100 + 60, 40, 0, 0);
	driver_offer(d, 1, 0);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	assert_int_equal(k->f.n_sent, 1);
	assert_int_equal(k->f.len, 100);
	assert_memory_equal(k->f.frame, frame, 100);
	/* Header and frame in one. */
	put(k->m, DATA + 12, frame, sizeof(frame));
	driver_desc(d, 1, 3, DATA, 112, 0, 0);
	driver_offer(d, 1, 3);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	machine_sync(k->m);
	assert_int_equal(k->f.n_sent, 2);
	assert_memory_equal(k->f.frame, frame, 100);
	/* Too short and too long for a frame: given back, not sent. */
	driver_desc(d, 1, 3, DATA, 25, 0, 0);
	driver_offer(d, 1, 3);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	driver_desc(d, 1, 3, DATA, 12 + NET_MAX_FRAME + 1, 0, 0);
	driver_offer(d, 1, 3);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	assert_int_equal(k->f.n_sent, 2);
	/* No header: malformed. */
	driver_desc(d, 1, 3, DATA, 11, 0, 0);
	driver_offer(d, 1, 3);
	driver_kick(d, 1);
	assert_true(driver_broken(d));
	nic_free(k);
}

static void test_net_receive(void **state)
{
	struct nic *k = nic_new();
	struct driver *d = &k->d;
	uint8_t frame[1500], got[1512];
	uint32_t id, len;

	(void)state;
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 5);
	assert_false(net_in(k, frame, 60)); /* no driver yet */
	assert_true(driver_start(d, 2, 0));
	assert_false(net_in(k, frame, 60)); /* no buffers yet */
	driver_desc(d, 0, 0, DATA, 2048, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_kick(d, 0);
	machine_sync(k->m);
	assert_true(k->f.n_pokes > 0);
	assert_true(net_in(k, frame, 1500));
	assert_true(driver_wait(d, 0, &id, &len));
	assert_int_equal(len, 1512);
	get(k->m, DATA, got, sizeof(got));
	assert_int_equal(got[10], 1); /* one buffer */
	assert_memory_equal(got + 12, frame, 1500);
	assert_int_equal(msi_count(k->m, 1), 1);
	/* Three small buffers are merged. */
	for (unsigned i = 0; i < 3; i++) {
		driver_desc(d, 0, i, DATA + 0x1000 * i, 600, D_WRITE, 0);
		driver_offer(d, 0, (uint16_t)i);
	}
	assert_true(net_in(k, frame, 1500));
	for (unsigned i = 0; i < 3; i++) {
		assert_true(driver_wait(d, 0, &id, &len));
		assert_int_equal(id, i);
		assert_int_equal(len, i == 2 ? 312 : 600);
	}
	get(k->m, DATA, got, 12);
	assert_int_equal(got[10], 3);
	get(k->m, DATA + 0x2000, got, 312);
	assert_memory_equal(got, frame + 588 + 600, 312);
	/* Not enough of them: the frame is dropped, the buffer stays. */
	driver_desc(d, 0, 0, DATA, 600, D_WRITE, 0);
	driver_offer(d, 0, 0);
	assert_true(net_in(k, frame, 1500));
	assert_int_equal(get16(k->m, Q_USED(0) + 2), d->used[0]);
	assert_true(net_in(k, frame, 60));
	assert_true(driver_wait(d, 0, &id, &len));
	assert_int_equal(len, 72);
	assert_false(net_in(k, frame, 60));
	/* A buffer too small for the header. */
	driver_desc(d, 0, 0, DATA, 11, D_WRITE, 0);
	driver_offer(d, 0, 0);
	net_in(k, frame, 60);
	assert_true(driver_broken(d));
	nic_free(k);
}

/* Without merging, a frame needs one buffer. */
static void test_net_unmerged(void **state)
{
	struct nic *k = nic_new();
	struct driver *d = &k->d;
	uint8_t frame[1500] = {1};
	uint32_t len;

	(void)state;
	assert_true(driver_start(d, 2, BIT(15)));
	for (unsigned i = 0; i < 3; i++) {
		driver_desc(d, 0, i, DATA + 0x1000 * i, 600, D_WRITE, 0);
		driver_offer(d, 0, (uint16_t)i);
	}
	assert_true(net_in(k, frame, 1500));
	assert_int_equal(get16(k->m, Q_USED(0) + 2), 0);
	assert_true(net_in(k, frame, 588));
	assert_true(driver_wait(d, 0, NULL, &len));
	assert_int_equal(len, 600);
	nic_free(k);
}

/* The backend answers from inside send(); the cable is pulled. */
static void test_net_echo_link(void **state)
{
	struct nic *k = nic_new();
	struct driver *d = &k->d;

	(void)state;
	k->f.echo = true;
	assert_true(driver_start(d, 2, 0));
	driver_desc(d, 0, 0, DATA + 0x1000, 2048, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_desc(d, 1, 0, DATA, 112, 0, 0);
	driver_offer(d, 1, 0);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 0, NULL, NULL));
	lock(k->m);
	virtio_net_set_link(k->n, false);
	unlock(k->m);
	assert_int_equal(rd(k->m, d->config + 6, 2), 0);
	assert_int_equal(msi_count(k->m, 0), 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	driver_offer(d, 1, 0);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	assert_int_equal(k->f.n_sent, 1);
	nic_free(k);
}

/* More frames than one turn of the loop sends, offered at once and again and again. */
static void test_net_flood(void **state)
{
	struct nic *k = nic_new();
	struct driver *d = &k->d;

	(void)state;
	d->len = 256;
	assert_true(driver_start(d, 2, 0));
	driver_desc(d, 1, 0, DATA, 112, 0, 0);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 256; i++)
			driver_offer(d, 1, 0);
		driver_kick(d, 1);
		for (unsigned i = 0; i < 256; i++)
			assert_true(driver_wait(d, 1, NULL, NULL));
	}
	machine_sync(k->m);
	assert_int_equal(k->f.n_sent, 2560);
	nic_free(k);
}

/* Where the engine watches doorbells, a write to the eventfd is a notification. */
static struct {
	int fd[4];
	uint64_t addr[4];
	unsigned n;
} bells;

static int fake_ioeventfd(void *ctx, uint64_t gpa, unsigned size, int fd, bool add)
{
	(void)ctx;
	assert_int_equal(size, 2);
	for (unsigned i = 0; i < bells.n; i++)
		if (bells.addr[i] == gpa && bells.fd[i] == fd) {
			assert_false(add);
			bells.n--;
			bells.addr[i] = bells.addr[bells.n];
			bells.fd[i] = bells.fd[bells.n];
			return 0;
		}
	assert_true(add && bells.n < 4);
	bells.addr[bells.n] = gpa;
	bells.fd[bells.n++] = fd;
	return 0;
}

static void test_ioeventfd(void **state)
{
	struct nic *k = calloc(1, sizeof(*k));
	struct driver *d = &k->d;
	struct err err;

	(void)state;
	k->m = machine_new(true);
	k->m->env.ioeventfd = fake_ioeventfd;
	k->f.net.ops = &fake_net_ops;
	k->n = virtio_net_new(&k->m->env, &k->m->pci, FN, &k->f.net, &err);
	assert_int_equal(machine_start(k->m, true), 0);
	driver_probe(d, k->m, FN);
	assert_int_equal(bells.n, 0);
	assert_true(driver_start(d, 2, 0));
	assert_int_equal(bells.n, 2);
	assert_int_equal(bells.addr[1], d->notify + d->stride);
	driver_desc(d, 1, 0, DATA, 112, 0, 0);
	driver_offer(d, 1, 0);
	eventfd_write(bells.fd[1], 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	/* They follow the BAR, and go with decoding and reset. */
	cfg_wr(k->m, FN, 0x10, 4, 0xd0000000);
	assert_int_equal(bells.n, 2);
	assert_true(bells.addr[0] >= 0xd0000000 && bells.addr[1] >= 0xd0000000);
	cfg_wr(k->m, FN, PCI_COMMAND, 2, 4);
	assert_int_equal(bells.n, 0);
	cfg_wr(k->m, FN, PCI_COMMAND, 2, 6);
	assert_int_equal(bells.n, 2);
	driver_probe(d, k->m, FN);
	driver_set_status(d, 0);
	assert_int_equal(bells.n, 0);
	nic_free(k);
}

/* ---- console ---- */

struct fake_chr {
	struct chr chr;
	unsigned pokes;
	size_t len;
	char out[4096];
};

static void fake_write(struct chr *c, const uint8_t *p, size_t len)
{
	struct fake_chr *f = container_of(c, struct fake_chr, chr);

	assert_true(range_ok(f->len, len, sizeof(f->out)));
	memcpy(f->out + f->len, p, len);
	f->len += len;
}

static void fake_chr_poke(struct chr *c)
{
	container_of(c, struct fake_chr, chr)->pokes++;
}

static const struct chr_ops fake_chr_ops = {.write = fake_write, .poke = fake_chr_poke};

struct term {
	struct machine *m;
	struct fake_chr f;
	struct virtio_console *c;
	struct driver d;
};

/* Not running yet. */
static struct term *term_make(void)
{
	struct term *k = calloc(1, sizeof(*k));
	struct err err;

	assert_non_null(k);
	k->m = machine_new(true);
	k->f.chr.ops = &fake_chr_ops;
	k->c = virtio_console_new(&k->m->env, &k->m->pci, FN, &k->f.chr, &err);
	assert_non_null(k->c);
	return k;
}

static struct term *term_new(void)
{
	struct term *k = term_make();

	assert_int_equal(machine_start(k->m, true), 0);
	driver_probe(&k->d, k->m, FN);
	return k;
}

static void term_free(struct term *k)
{
	machine_stop(k->m);
	virtio_console_free(k->c);
	machine_free(k->m);
	free(k);
}

static void type(struct term *k, const char *s, size_t len)
{
	struct chr_peer *p = &k->f.chr.peer;

	lock(k->m);
	assert_true(p->room(p->dev) >= len);
	p->receive(p->dev, (const uint8_t *)s, len);
	unlock(k->m);
}

static void test_console(void **state)
{
	struct term *k = term_new();
	struct driver *d = &k->d;
	char buf[8], many[4096];
	uint32_t len;

	(void)state;
	type(k, "early", 5); /* waits for the driver */
	assert_true(driver_start(d, 2, 0));
	driver_desc(d, 0, 0, DATA, 3, D_WRITE, 0);
	driver_desc(d, 0, 1, DATA + 8, 8, D_WRITE, 0);
	driver_offer(d, 0, 0);
	driver_offer(d, 0, 1);
	driver_kick(d, 0);
	assert_true(driver_wait(d, 0, NULL, &len));
	assert_int_equal(len, 3);
	assert_true(driver_wait(d, 0, NULL, &len));
	assert_int_equal(len, 2);
	get(k->m, DATA, buf, 3);
	get(k->m, DATA + 8, buf + 3, 2);
	assert_memory_equal(buf, "early", 5);
	machine_sync(k->m);
	assert_true(k->f.pokes > 0);
	driver_offer(d, 0, 0);
	type(k, "x", 1);
	assert_true(driver_wait(d, 0, NULL, &len));
	assert_int_equal(len, 1);
	/* Full. */
	memset(many, 'm', sizeof(many));
	type(k, many, sizeof(many));
	lock(k->m);
	assert_int_equal(k->f.chr.peer.room(k->f.chr.peer.dev), 0);
	unlock(k->m);
	/* Output in two pieces. */
	put(k->m, DATA, "hello ", 6);
	put(k->m, DATA + 64, "world", 5);
	driver_desc(d, 1, 0, DATA, 6, D_NEXT, 1);
	driver_desc(d, 1, 1, DATA + 64, 5, 0, 0);
	driver_offer(d, 1, 0);
	driver_kick(d, 1);
	assert_true(driver_wait(d, 1, NULL, NULL));
	machine_sync(k->m);
	assert_int_equal(k->f.len, 11);
	assert_memory_equal(k->f.out, "hello world", 11);
	/* Emergency write, size of the terminal. */
	wr(k->m, d->config + 8, 4, '!');
	assert_int_equal(k->f.out[11], '!');
	lock(k->m);
	virtio_console_set_size(k->c, 132, 43);
	unlock(k->m);
	assert_int_equal(rd(k->m, d->config, 4), 43 << 16 | 132);
	assert_int_equal(msi_count(k->m, 0), 1);
	term_free(k);
}

static void test_console_state(void **state)
{
	struct term *k = term_new(), *l = term_make();
	struct str s = {0};
	struct err err;
	char buf[5];
	uint32_t len;

	(void)state;
	type(k, "typed", 5);
	assert_true(driver_start(&k->d, 2, 0));
	machine_stop(k->m);
	assert_int_equal(state_save(&k->m->state, &s, &err), 0);
	assert_int_equal(state_load(&l->m->state, s.p, s.len, &err), 0);
	l->d = k->d;
	l->d.m = l->m;
	term_free(k);
	/* The other machine's memory is empty, as the queues of the driver were. */
	machine_run(l->m);
	driver_desc(&l->d, 0, 0, DATA, 16, D_WRITE, 0);
	driver_offer(&l->d, 0, 0);
	driver_kick(&l->d, 0);
	assert_true(driver_wait(&l->d, 0, NULL, &len));
	assert_int_equal(len, 5);
	get(l->m, DATA, buf, 5);
	assert_memory_equal(buf, "typed", 5);
	term_free(l);
	str_fini(&s);
}

/* Positions of the ring in a file that are outside of it. */
static void test_console_hostile_state(void **state)
{
	struct term *k = term_new();
	struct str s = {0};
	struct err err;
	char *at;

	(void)state;
	machine_stop(k->m);
	assert_int_equal(state_save(&k->m->state, &s, &err), 0);
	at = memmem(s.p, s.len, "\5\0count", 7);
	assert_non_null(at);
	memset(at + 7 + 4, 0xff, 4);
	assert_int_equal(state_load(&k->m->state, s.p, s.len, &err), -EINVAL);
	str_fini(&s);
	term_free(k);
}

/* ---- entropy ---- */

static void test_rng(void **state)
{
	struct machine *m = machine_new(true);
	uint8_t buf[64], zero[64] = {0};
	uint64_t start;
	struct virtio_rng *r;
	struct driver d;
	struct err err;
	uint32_t len, total = 0;

	(void)state;
	r = virtio_rng_new(&m->env, &m->pci, FN, &err);
	assert_non_null(r);
	assert_int_equal(machine_start(m, true), 0);
	driver_probe(&d, m, FN);
	assert_int_equal(d.config, 0); /* has none */
	d.len = 8;
	assert_true(driver_start(&d, 1, 0));
	driver_desc(&d, 0, 0, DATA, 64, D_WRITE, 0);
	driver_offer(&d, 0, 0);
	driver_kick(&d, 0);
	assert_true(driver_wait(&d, 0, NULL, &len));
	assert_int_equal(len, 64);
	get(m, DATA, buf, 64);
	assert_memory_not_equal(buf, zero, 64);
	/* A greedy driver waits: 200 KiB are two tenths of a second's. */
	start = time_mono_ns();
	driver_desc(&d, 0, 0, DATA, 0x40000, D_WRITE, 0);
	while (total < 300 << 10) {
		driver_offer(&d, 0, 0);
		driver_kick(&d, 0);
		assert_true(driver_wait(&d, 0, NULL, &len));
		assert_in_range(len, 1, VIRTIO_RNG_RATE / 10);
		total += len;
	}
	assert_true(time_mono_ns() - start > NS_PER_SEC / 10);
	/* An empty buffer, and one to read from. */
	driver_desc(&d, 0, 0, DATA, 64, 0, 0);
	driver_offer(&d, 0, 0);
	driver_kick(&d, 0);
	assert_true(driver_wait(&d, 0, NULL, &len));
	assert_int_equal(len, 0);
	machine_stop(m);
	virtio_rng_free(r);
	machine_free(m);
}

/* ---- balloon ---- */

static void test_balloon(void **state)
{
	struct machine *m = machine_new(true);
	uint32_t pfn[5] = {(DATA >> 12) + 16, (DATA >> 12) + 17, 0xb0000, UINT32_MAX,
			   (DATA >> 12) + 15};
	uint8_t stats[20] = {4, 0, 7, 0, 0, 0, 0, 0, 0, 0, 99, 0, 1};
	struct virtio_balloon *b;
	struct driver d;
	struct err err;

	(void)state;
	b = virtio_balloon_new(&m->env, &m->pci, FN, &err);
	assert_non_null(b);
	assert_int_equal(machine_start(m, true), 0);
	driver_probe(&d, m, FN);
	assert_true(driver_start(&d, 5, 0));
	lock(m);
	virtio_balloon_set_target(b, 5 << 20);
	assert_false(virtio_balloon_ask_stats(b));
	unlock(m);
	assert_int_equal(rd(m, d.config, 4), 1280);
	assert_int_equal(msi_count(m, 0), 1);
	/* Pages 15 to 17 go; device memory, what is beyond and the neighbours are left. */
	for (unsigned i = 14; i < 19; i++)
		put(m, DATA + 4096 * i, "page", 4);
	put(m, DATA, pfn, sizeof(pfn));
	driver_desc(&d, 0, 0, DATA, sizeof(pfn), 0, 0);
	driver_offer(&d, 0, 0);
	driver_kick(&d, 0);
	assert_true(driver_wait(&d, 0, NULL, NULL));
	for (unsigned i = 14; i < 19; i++)
		assert_int_equal(get32(m, DATA + 4096 * i) != 0, i == 14 || i == 18);
	wr(m, d.config + 4, 4, 3);
	lock(m);
	assert_int_equal(virtio_balloon_actual(b), 3 * 4096);
	unlock(m);
	/* Deflating only gives the chain back. */
	driver_desc(&d, 1, 0, DATA, sizeof(pfn), 0, 0);
	driver_offer(&d, 1, 0);
	driver_kick(&d, 1);
	assert_true(driver_wait(&d, 1, NULL, NULL));
	/* Reported pages, by both numbers of that queue. */
	for (unsigned q = 3; q < 5; q++) {
		put(m, DATA + 0x20000, "page", 4);
		driver_desc(&d, q, 0, DATA + 0x20000, 8192, D_WRITE, 0);
		driver_offer(&d, q, 0);
		driver_kick(&d, q);
		assert_true(driver_wait(&d, q, NULL, NULL));
		assert_int_equal(get32(m, DATA + 0x20000), 0);
	}
	/* Statistics stay in the queue until new ones are asked for. */
	put(m, DATA, stats, sizeof(stats));
	driver_desc(&d, 2, 0, DATA, sizeof(stats), 0, 0);
	driver_offer(&d, 2, 0);
	driver_kick(&d, 2);
	machine_sync(m);
	assert_int_equal(get16(m, Q_USED(2) + 2), 0);
	lock(m);
	assert_int_equal(virtio_balloon_stat(b, BALLOON_FREE), 7);
	assert_int_equal(virtio_balloon_stat(b, BALLOON_TOTAL), UINT64_MAX);
	assert_true(virtio_balloon_ask_stats(b));
	unlock(m);
	assert_true(driver_wait(&d, 2, NULL, NULL));
	driver_set_status(&d, 0);
	assert_int_equal(driver_status(&d), 0);
	assert_int_equal(virtio_balloon_actual(b), 0);
	machine_stop(m);
	virtio_balloon_free(b);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_net_send),
		cmocka_unit_test(test_net_receive),
		cmocka_unit_test(test_net_unmerged),
		cmocka_unit_test(test_net_echo_link),
		cmocka_unit_test(test_net_flood),
		cmocka_unit_test(test_ioeventfd),
		cmocka_unit_test(test_console),
		cmocka_unit_test(test_console_state),
		cmocka_unit_test(test_console_hostile_state),
		cmocka_unit_test(test_rng),
		cmocka_unit_test(test_balloon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

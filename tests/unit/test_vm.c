/* tests/unit/test_vm.c - memory, buses, state, clock and timers, CPUID. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/size.h"
#include "base/time.h"
#include "vm/cpu.h"
#include "vm/dma.h"
#include "vm/state.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- memory ---- */

static void test_ram(void **state)
{
	struct ram ram;
	struct iovec iov[4];
	struct err err;
	uint8_t buf[8192];
	unsigned n = 0;

	(void)state;
	assert_int_equal(ram_init(&ram, 1 << 20, &err), 0);
	assert_int_equal(ram_add(&ram, 0x80000, 0x80000, &err), 0);
	assert_int_equal(ram_add(&ram, 0, 0x80000, &err), 0);
	assert_int_equal(ram_add(&ram, 0x200000, 4096, &err),
			 -EINVAL); /* nothing left */
	assert_int_equal(ram_add_rom(&ram, 0xff000, "x", 1, &err), -EEXIST);
	assert_int_equal(ram_add_rom(&ram, 0x100000, "rom", 3, &err), 0);
	assert_true(ram_find(&ram, 0)->gpa == 0 &&
		    ram_find(&ram, 0x80000)->gpa == 0x80000);
	assert_null(ram_find(&ram, 0x101000));
	assert_non_null(ram_ptr(&ram, 0x100000, 4096, false));
	assert_null(ram_ptr(&ram, 0x100000, 1, true));    /* ROM */
	assert_null(ram_ptr(&ram, 0x7ffff, 2, false));    /* two regions */
	assert_null(ram_ptr(&ram, 0x1000, ~0ull, false)); /* wraps */

	memset(buf, 0xa5, sizeof(buf));
	assert_true(dma_write(&ram, 0x7f000, buf, 8192)); /* over both */
	memset(buf, 0, sizeof(buf));
	assert_true(dma_read(&ram, 0x7f000, buf, 8192));
	assert_int_equal(buf[8191], 0xa5);
	assert_false(
		dma_write(&ram, 0xff000, buf, 8192)); /* into ROM: nothing is done */
	assert_int_equal(*(uint8_t *)ram_ptr(&ram, 0xff000, 1, false), 0);
	assert_true(dma_map(&ram, 0x7f000, 8192, iov, &n, 4));
	assert_int_equal(n, 2);
	assert_false(dma_map(&ram, 0x7f000, 8192, iov, &n, 3)); /* too many pieces */
	ram_fini(&ram);
}

/* ---- buses ---- */

struct regs {
	uint8_t b[16];
	unsigned reads, writes, last_size;
};

static uint64_t regs_read(void *dev, uint64_t off, unsigned size)
{
	struct regs *r = dev;
	uint64_t v = 0;

	r->reads++;
	r->last_size = size;
	memcpy(&v, r->b + off, size);
	return v;
}

static void regs_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct regs *r = dev;

	r->writes++;
	r->last_size = size;
	memcpy(r->b + off, &val, size);
}

static void test_bus(void **state)
{
	static const struct io_ops ops32 = {regs_read, regs_write, 4, 4, false};
	static const struct io_ops ops8 = {regs_read, regs_write, 1, 1, true};
	struct regs a = {.b = "0123456789abcde"}, b = {.b = "ABCDEFGHIJKLMNO"};
	struct io_range ra = {.ops = &ops32, .dev = &a}, rb = {.ops = &ops8, .dev = &b};
	struct bus bus;
	uint64_t v;

	(void)state;
	bus_init(&bus, "test", 0x10000, &lock);
	assert_int_equal(bus_map(&bus, &ra, 0x100, 16), 0);
	assert_int_equal(bus_map(&bus, &rb, 0x108, 16), -EEXIST);
	assert_int_equal(bus_map(&bus, &rb, 0xfff8, 16), -EINVAL);
	assert_int_equal(bus_map(&bus, &rb, 0x200, 16), 0);

	assert_true(bus_read(&bus, 0x101, 1, &v)); /* narrower: widened */
	assert_int_equal(v, '1');
	assert_int_equal(a.last_size, 4);
	assert_true(bus_read(&bus, 0x100, 8, &v)); /* wider: split */
	assert_true(v == load_u64("01234567"));
	assert_true(bus_write(&bus, 0x105, 1, 'x')); /* narrower: merged */
	assert_memory_equal(a.b, "01234x67", 8);
	assert_true(bus_read(&bus, 0x200, 4, &v));
	assert_true(v == load_u32("ABCD"));
	assert_false(bus_read(&bus, 0x300, 2, &v));
	assert_int_equal(v, 0xffff);
	assert_false(bus_write(&bus, 0x300, 2, 0));

	/* The last bytes of a range: what lies behind it reads as ones. */
	assert_true(bus_read(&bus, 0x20e, 4, &v));
	assert_int_equal(v, 0xffff004f);

	rb.priority = 1; /* on top of the other one */
	assert_int_equal(bus_map(&bus, &rb, 0x108, 4), 0);
	assert_true(bus_read(&bus, 0x108, 1, &v));
	assert_int_equal(v, 'A');
	bus_unmap(&bus, &rb);
	assert_true(bus_read(&bus, 0x108, 1, &v));
	assert_int_equal(v, '8');
	bus_fini(&bus);
}

/* ---- state ---- */

struct dev {
	uint32_t a;
	uint8_t fifo[5];
	uint64_t derived;
};

static int dev_loaded(void *p)
{
	struct dev *d = p;

	if (d->a > 1000)
		return -EINVAL;
	d->derived = d->a * 2;
	return 0;
}

static void test_state(void **unused)
{
	static const struct state_field fields[] = {
		STATE(struct dev, a), STATE(struct dev, fifo), {0}};
	struct dev x = {7, "abcd", 0}, y = {9, "efgh", 0}, bad = {2000, "", 0};
	struct state s = {0}, only_x = {0}, with_bad = {0};
	struct str out = {0}, out2 = {0};
	struct err err;

	(void)unused;
	state_add(&s, "dev", 0, &x, fields, NULL, dev_loaded);
	state_add(&s, "dev", 1, &y, fields, NULL, dev_loaded);
	assert_int_equal(state_save(&s, &out, &err), 0);
	x = (struct dev){0};
	y = (struct dev){0};
	assert_int_equal(state_load(&s, out.p, out.len, &err), 0);
	assert_int_equal(x.a, 7);
	assert_string_equal(y.fifo, "efgh");
	assert_int_equal(y.derived, 18);
	for (size_t len = 0; len < out.len; len++) /* every cut is noticed */
		assert_true(state_load(&s, out.p, len, &err) < 0);

	state_add(&only_x, "dev", 0, &x, fields, NULL, dev_loaded);
	assert_true(state_load(&only_x, out.p, out.len, &err) < 0);
	assert_non_null(strstr(err.msg, "'dev.1'"));
	assert_int_equal(state_save(&only_x, &out2, &err), 0);
	assert_true(state_load(&s, out2.p, out2.len, &err) < 0);
	assert_non_null(strstr(err.msg, "lacks the device 'dev.1'"));

	state_add(&with_bad, "dev", 0, &bad, fields, NULL, dev_loaded);
	str_fini(&out2);
	assert_int_equal(state_save(&with_bad, &out2, &err), 0);
	assert_true(state_load(&only_x, out2.p, out2.len, &err) < 0);
	assert_non_null(strstr(err.msg, "makes no sense"));
	str_fini(&out);
	str_fini(&out2);
}

/* ---- loop ---- */

static struct timer t1, t2, t3;
static char order[8];
static unsigned n_order;
static struct loop *loop;

static void note(void *ctx)
{
	order[n_order++] = *(const char *)ctx;
	if (ctx == t3.ctx)
		loop_stop(loop);
}

static void test_timers(void **state)
{
	static const char name[] = "123p";
	struct err err;
	uint64_t now;

	(void)state;
	loop = loop_new(&lock, &err);
	assert_non_null(loop);
	timer_init(&t1, loop, note, (void *)&name[0]);
	timer_init(&t2, loop, note, (void *)&name[1]);
	timer_init(&t3, loop, note, (void *)&name[2]);
	clock_pause(loop);
	now = clock_now(loop);
	usleep(2000);
	assert_true(clock_now(loop) == now); /* stands still */
	clock_resume(loop);
	timer_set(&t3, now + 9 * NS_PER_MS);
	timer_set(&t2, now + 6 * NS_PER_MS);
	timer_set(&t1, now + 50 * NS_PER_MS);
	timer_set(&t1, now + 3 * NS_PER_MS); /* moved forward */
	assert_int_equal(loop_post(loop, note, (void *)&name[3]), 0);
	loop_run(loop);
	assert_int_equal(n_order, 4);
	assert_memory_equal(order, "p123", 4);
	assert_true(clock_now(loop) >= now + 9 * NS_PER_MS);
	timer_set(&t1, 0);
	timer_cancel(&t1);
	assert_int_equal(t1.heap_at, 0);
	loop_free(loop);
}

/* ---- CPUID, sizes ---- */

static const struct cpuid_leaf *leaf_of(const struct cpuid_leaf *l, unsigned n,
					uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < n; i++)
		if (l[i].leaf == leaf && (!l[i].has_subleaf || l[i].subleaf == sub))
			return &l[i];
	return NULL;
}

/* ---- descriptors that are silent for a while ---- */

struct silent {
	struct loop *loop;
	int fd;
	unsigned early, calls;
	bool watched;
};

static void on_silent(void *ctx, uint32_t events)
{
	struct silent *s = ctx;

	assert_true(events & EPOLLHUP);
	s->calls++;
	s->early += !s->watched;
	loop_stop(s->loop);
}

static void watch_again(void *ctx)
{
	struct silent *s = ctx;

	s->watched = true;
	assert_int_equal(loop_fd_set(s->loop, s->fd, EPOLLIN, on_silent, s), 0);
}

/* epoll tells of a hang-up even when no event was asked for; the loop must not. */
static void test_silent_fd(void **state)
{
	struct silent s = {.loop = loop_new(&lock, NULL)};
	struct timer t;
	int fd[2];

	(void)state;
	assert_int_equal(pipe(fd), 0);
	s.fd = fd[0];
	assert_int_equal(loop_fd_set(s.loop, fd[0], EPOLLIN, on_silent, &s), 0);
	assert_int_equal(loop_fd_set(s.loop, fd[0], 0, NULL, NULL), 0);
	assert_int_equal(loop_fd_set(s.loop, fd[0], 0, NULL, NULL), 0);
	close(fd[1]);
	timer_init(&t, s.loop, watch_again, &s);
	timer_set(&t, clock_now(s.loop) + 10 * NS_PER_MS);
	loop_run(s.loop);
	assert_int_equal(s.early, 0);
	assert_int_equal(s.calls, 1);
	loop_fd_remove(s.loop, fd[0]);
	loop_free(s.loop);
	close(fd[0]);
}

static void test_cpuid(void **state)
{
	struct cpuid_leaf l[CPUID_MAX_LEAVES] = {{.leaf = 0, .eax = 0xd}, {.leaf = 1}};
	const struct cpuid_topology t = {.n_cpus = 4,
					 .index = 3,
					 .tsc_khz = 2600000,
					 .bus_hz = 1000000000,
					 .hypervisor = true,
					 .kvm_features = 9};
	unsigned n = 2;
	const struct cpuid_leaf *p;

	(void)state;
	cpuid_apply(l, &n, &t);
	assert_int_equal(leaf_of(l, n, 0, 0)->eax, 0x16);
	p = leaf_of(l, n, 1, 0);
	assert_int_equal(p->ebx >> 24, 3);
	assert_int_equal(p->ebx >> 16 & 0xff, 4);
	assert_true(p->ecx >> 31);
	p = leaf_of(l, n, 0x15, 0); /* TSC = crystal * ebx / eax */
	assert_true((uint64_t)p->ecx * p->ebx / p->eax == 2600000000ull);
	assert_int_equal(leaf_of(l, n, 0x40000010, 0)->eax, 2600000);
	assert_int_equal(leaf_of(l, n, 0x40000001, 0)->eax, 9);
	assert_int_equal(leaf_of(l, n, 0x0b, 1)->eax, 2); /* 2 bits number 4 cores */
	assert_int_equal(leaf_of(l, n, 0x0b, 0)->edx, 3);
}

static void test_sizes(void **state)
{
	struct err err;
	char buf[16];
	uint64_t v;

	(void)state;
	assert_int_equal(size_parse("512", &v, &err), 0);
	assert_true(v == 512);
	assert_int_equal(size_parse("1.5G", &v, &err), 0);
	assert_true(v == 3ull << 29);
	assert_int_equal(size_parse("64KiB", &v, &err), 0);
	assert_true(v == 65536);
	assert_int_equal(size_parse("16E", &v, &err), -ERANGE);
	assert_int_equal(size_parse("1.5", &v, &err), -EINVAL);
	assert_int_equal(size_parse("12q", &v, &err), -EINVAL);
	assert_int_equal(size_parse("", &v, &err), -EINVAL);
	assert_string_equal(size_format(1536, buf, sizeof(buf)), "1.5 KiB");
	assert_string_equal(size_format(4ull << 30, buf, sizeof(buf)), "4 GiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ram),       cmocka_unit_test(test_bus),
		cmocka_unit_test(test_state),     cmocka_unit_test(test_timers),
		cmocka_unit_test(test_silent_fd), cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

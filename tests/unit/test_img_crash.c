/*
 * tests/unit/test_img_crash.c - the power fails: what qcow2 writes is recorded, and of the writes behind the
 * last sync any may or may not have reached the disk. Whatever is left must refer to no cluster
 * that counts as free, and hold what was flushed.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "img/img.h"

#define DISK       (2u << 20)
#define MAX_EVENTS 100000
#define MAX_FILE   (64u << 20)

/* ---- the record ---- */

struct event {
	uint64_t off, len;
	uint8_t *data; /* NULL: zeros */
	bool sync;
};

static struct event events[MAX_EVENTS];
static size_t n_events;
static int watched = -1;

static void record(struct event e)
{
	assert_true(n_events < MAX_EVENTS);
	events[n_events++] = e;
}

/* The library's system calls come by here: the program's own symbols are found before libc's. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t done = syscall(SYS_pwritev, fd, iov, n, off, 0);
	struct event e = {(uint64_t)off, 0, NULL, false};

	if (fd != watched || done <= 0)
		return done;
	e.data = malloc((size_t)done);
	for (int i = 0; i < n && e.len < (uint64_t)done; i++) {
		uint64_t here = min_u64(iov[i].iov_len, (uint64_t)done - e.len);

		memcpy(e.data + e.len, iov[i].iov_base, here);
		e.len += here;
	}
	record(e);
	return done;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	long rc = syscall(SYS_fallocate, fd, mode, off, len);

	if (fd == watched && !rc)
		record((struct event){(uint64_t)off, (uint64_t)len, NULL, false});
	return (int)rc;
}

int fdatasync(int fd)
{
	if (fd == watched)
		record((struct event){.sync = true});
	return 0;
}

static void record_clear(void)
{
	for (size_t i = 0; i < n_events; i++)
		free(events[i].data);
	n_events = 0;
}

static uint64_t seed;

static uint64_t rng(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* ---- the image after the crash ---- */

struct state {
	uint8_t *p;
	uint64_t len;
};

static void apply(struct state *s, const struct event *e)
{
	uint64_t end = e->off + e->len;

	if (e->sync)
		return;
	assert_true(end <= MAX_FILE);
	if (e->data)
		memcpy(s->p + e->off, e->data, e->len);
	else
		memset(s->p + e->off, 0, e->len);
	s->len = max_u64(s->len, end);
}

/* `at` events were issued: what was synced is there, of the rest one in `chance` is missing. */
static void crash_at(struct state *s, const uint8_t *start, uint64_t start_len,
		     size_t at, unsigned chance)
{
	size_t synced = 0;

	memset(s->p, 0, MAX_FILE);
	memcpy(s->p, start, start_len);
	s->len = start_len;
	for (size_t i = 0; i < at; i++)
		if (events[i].sync)
			synced = i;
	for (size_t i = 0; i < at; i++)
		if (i < synced || rng() % chance)
			apply(s, &events[i]);
}

/* ---- a check that knows as little as possible of the code under test ---- */

static uint64_t be(const struct state *s, uint64_t off, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 8 | (off + i < s->len ? s->p[off + i] : 0);
	return v;
}

/* Counts of 16 bits. */
static uint64_t count_of(const struct state *s, uint64_t cluster, unsigned bits)
{
	uint64_t per_block = (1ull << bits) / 2, rt = be(s, 48, 8);
	uint64_t n = (be(s, 56, 4) << bits) / 8, i = cluster / per_block, block;

	block = i < n ? be(s, rt + i * 8, 8) : 0;
	return block ? be(s, block + cluster % per_block * 2, 2) : 0;
}

static void refer(const struct state *s, uint16_t *refs, uint64_t off, uint64_t len,
		  unsigned bits, const char *what)
{
	for (uint64_t c = off >> bits; c <= (off + len - 1) >> bits; c++) {
		assert_true(c < MAX_FILE >> 9);
		refs[c]++;
		if (refs[c] > count_of(s, c, bits))
			fail_msg("%s: cluster %llu is used %u times and counted %llu",
				 what, (unsigned long long)c, refs[c],
				 (unsigned long long)count_of(s, c, bits));
	}
}

/* Nothing refers to a cluster more often than its count says. */
static void check_counts(const struct state *s)
{
	unsigned bits = (unsigned)be(s, 20, 4);
	uint64_t mask = 0x00fffffffffffe00ull, size = 1ull << bits;
	uint64_t l1 = be(s, 40, 8), l1_n = be(s, 36, 4), rt = be(s, 48, 8);
	uint64_t rt_n = (be(s, 56, 4) << bits) / 8;
	uint16_t *refs = calloc(MAX_FILE >> 9, sizeof(*refs));

	refer(s, refs, 0, size, bits, "header");
	refer(s, refs, l1, l1_n * 8, bits, "L1");
	refer(s, refs, rt, rt_n * 8, bits, "table");
	for (uint64_t i = 0; i < rt_n; i++)
		if (be(s, rt + i * 8, 8))
			refer(s, refs, be(s, rt + i * 8, 8), size, bits, "block");
	for (uint64_t i = 0; i < l1_n; i++) {
		uint64_t l2 = be(s, l1 + i * 8, 8) & mask;

		if (!l2)
			continue;
		refer(s, refs, l2, size, bits, "L2");
		for (uint64_t k = 0; k < size / 8; k++) {
			uint64_t e = be(s, l2 + k * 8, 8);

			if (e & BIT(62)) {
				unsigned x = 62 - (bits - 8);
				uint64_t off = e & (BIT(x) - 1);
				uint64_t n = ((e & ~(3ull << 62)) >> x) + 1;

				refer(s, refs, off, n * 512 - off % 512, bits,
				      "compressed");
			} else if (e & mask) {
				refer(s, refs, e & mask, size, bits, "data");
			}
		}
	}
	free(refs);
}

/* ---- the run ---- */

static uint8_t model[DISK];

/* Changes blocks of 4 KiB whose number is odd, or all. */
static void change(struct img *img, unsigned ops, bool odd_only)
{
	static uint8_t buf[65536];

	while (ops--) {
		uint64_t b = rng() % (DISK / 4096), off, len;
		uint8_t byte = (uint8_t)(1 + rng() % 255);

		b |= odd_only;
		off = b * 4096 + rng() % 2048;
		len = 1 + rng() % (odd_only ? 2048 : min_u64(50000, DISK - off));
		switch (rng() % 8) {
		case 0:
			assert_int_equal(img_write_zeroes(img, off, len, rng() & 1), 0);
			memset(model + off, 0, len);
			break;
		case 1:
			if (odd_only) {
				off = b * 4096;
				len = 4096;
			}
			assert_int_equal(img_discard(img, off, len), 0);
			assert_int_equal(img_read(img, model + off, off, len), 0);
			break;
		case 2:
			if (odd_only || rng() % 4)
				break;
			assert_int_equal(img_flush(img), 0);
			break;
		default:
			memset(buf, byte, len);
			assert_int_equal(img_write(img, buf, off, len), 0);
			memset(model + off, byte, len);
		}
	}
}

/* What was flushed and not changed since is there. */
static void check_flushed(const struct state *s)
{
	struct img_opts o = {.format = "qcow2", .read_only = true, .no_lock = true};
	static uint8_t got[DISK];
	struct img *img;
	int fd = memfd_create("crashed", MFD_CLOEXEC);

	assert_int_equal(fd_write_full(fd, s->p, s->len), 0);
	assert_int_equal(img_open_fd(fd, "crashed", &o, &img, NULL), 0);
	assert_int_equal(img_read(img, got, 0, DISK), 0);
	for (uint64_t b = 0; b < DISK / 4096; b += 2)
		assert_memory_equal(got + b * 4096, model + b * 4096, 4096);
	img_close(img);
}

static void test_one(const char *make, unsigned rounds)
{
	char path[] = "/tmp/crashXXXXXX", cmd[512];
	struct state s = {malloc(MAX_FILE), 0};
	struct img_opts o = {.format = "qcow2", .no_lock = true};
	uint64_t start_len;
	struct img *img;
	void *start;
	size_t flushed;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	snprintf(cmd, sizeof(cmd), make, path);
	if (system(cmd)) {
		print_message("# no qemu-img\n");
		rounds = 0;
	}
	assert_int_equal(fd_load_file(path, MAX_FILE, &start, &start_len, NULL), 0);
	close(fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	unlink(path);
	if (!rounds) {
		free(start);
		free(s.p);
		close(fd);
		return;
	}
	watched = fd;
	assert_int_equal(img_open_fd(fd, "image", &o, &img, NULL), 0);
	assert_int_equal(img_read(img, model, 0, DISK), 0);
	change(img, 150, false);
	assert_int_equal(img_flush(img), 0);
	flushed = n_events;
	change(img, 100, true);
	assert_int_equal(img_flush(img), 0);
	change(img, 100, true);
	assert_int_equal(img_close(img), 0);
	watched = -1;
	for (unsigned i = 0; i < rounds; i++) {
		size_t at = rng() % (n_events + 1);

		crash_at(&s, start, start_len, at, i % 3 ? 2 : 1000000);
		check_counts(&s);
		if (at >= flushed)
			check_flushed(&s);
	}
	record_clear();
	free(start);
	free(s.p);
}

/* clang-format off */
static const char *const makes[] = {
	"qemu-img create -q -f qcow2 -o cluster_size=512 %s 2M",
	"qemu-img create -q -f qcow2 -o cluster_size=4k %s 2M",
	"qemu-img create -q -f qcow2 -o cluster_size=1k,compat=0.10 %s 2M",
	"head -c 2M /dev/zero | tr '\\0' x >%1$s.raw && qemu-img convert -c -f raw -O qcow2 "
		"-o cluster_size=2k %1$s.raw %1$s && rm %1$s.raw",
};
/* clang-format on */

static void test_crashes(void **state)
{
	(void)state;
	for (seed = 1; seed < 4; seed++) {
		uint64_t keep = seed;

		for (unsigned i = 0; i < ARRAY_LEN(makes); i++) {
			seed = keep * 7919 + i;
			test_one(makes[i], 60);
		}
		seed = keep;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_crashes)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

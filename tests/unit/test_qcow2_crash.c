/*
 * tests/unit/test_qcow2_crash.c - the power fails while a qcow2 image is changed as a whole (snapshots, size, settings,
 * bitmaps, repair): the writes are recorded, the command is cut behind each of them, and of those behind the last
 * sync any may be missing. What is left has leaks at worst, and shows the disk of before or of after.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "img/img.h"

#define DISK     (1u << 20)
#define MAX_FILE (16u << 20)

/* ---- the record ---- */

enum kind { WRITE, ZERO, LENGTH, SYNC };

struct event {
	enum kind kind;
	uint64_t off, len;
	uint8_t *data;
};

static struct event events[20000];
static size_t n_events;
static int watched = -1;

static void record(struct event e)
{
	assert_true(n_events < ARRAY_LEN(events));
	events[n_events++] = e;
}

/* The library's system calls come by here: the program's own symbols are found before libc's. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t done = syscall(SYS_pwritev, fd, iov, n, off, 0);
	struct event e = {WRITE, (uint64_t)off, 0, NULL};

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

	if (fd == watched && !rc && mode)
		record((struct event){ZERO, (uint64_t)off, (uint64_t)len, NULL});
	return (int)rc;
}

int ftruncate(int fd, off_t len)
{
	long rc = syscall(SYS_ftruncate, fd, len);

	if (fd == watched && !rc)
		record((struct event){LENGTH, 0, (uint64_t)len, NULL});
	return (int)rc;
}

int fdatasync(int fd)
{
	if (fd == watched)
		record((struct event){.kind = SYNC});
	return 0;
}

static uint64_t seed = 88172645463325252ull;

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

	assert_true(end <= MAX_FILE);
	if (e->kind == LENGTH) {
		if (e->len < s->len)
			memset(s->p + e->len, 0, s->len - e->len);
		s->len = e->len;
	} else if (e->kind == WRITE) {
		memcpy(s->p + e->off, e->data, e->len);
		s->len = max_u64(s->len, end);
	} else if (e->kind == ZERO) {
		memset(s->p + e->off, 0, e->len);
		s->len = max_u64(s->len, end);
	}
}

static void crash_at(struct state *s, const uint8_t *start, uint64_t start_len,
		     size_t at, bool lose)
{
	size_t synced = 0;

	memset(s->p, 0, MAX_FILE);
	memcpy(s->p, start, start_len);
	s->len = start_len;
	for (size_t i = 0; i < at; i++)
		if (events[i].kind == SYNC)
			synced = i;
	for (size_t i = 0; i < at; i++)
		if (i < synced || !lose || rng() % 2)
			apply(s, &events[i]);
}

static int to_fd(const struct state *s)
{
	int fd = memfd_create("crashed", MFD_CLOEXEC);

	assert_int_equal(fd_write_full(fd, s->p, s->len), 0);
	return fd;
}

static void say(void *ctx, const char *line)
{
	(void)ctx;
	print_message("# %s\n", line);
}

/* The bytes of the disk, as far as both have it. */
static void check_state(const struct state *s, const uint8_t *before,
			const uint8_t *after, const char *what, size_t at)
{
	struct img_opts o = {.format = "qcow2", .read_only = true, .no_backing = true};
	struct img_check c = {.say = NULL};
	static uint8_t got[DISK];
	struct err err = {0};
	struct img_info info;
	struct img *img;
	uint64_t n;

	if (img_open_fd(to_fd(s), "crashed", &o, &img, &err))
		fail_msg("%s, cut at %zu of %zu: %s", what, at, n_events, err.msg);
	assert_int_equal(img_check(img, &c, &err), 0);
	if (c.corruptions || c.check_errors) {
		c.say = say;
		img_check(img, &c, &err);
		fail_msg("%s, cut at %zu of %zu: damaged", what, at, n_events);
	}
	n = min_u64(img_size(img), DISK);
	img_info(img, &info);
	if (!info.backing_path) { /* one that is not there */
		assert_int_equal(img_read(img, got, 0, n), 0);
		if (memcmp(got, before, n) && memcmp(got, after, n))
			fail_msg("%s, cut at %zu of %zu: content", what, at, n_events);
	}
	img_close(img);
}

static bool qemu_agrees(const struct state *s)
{
	char cmd[128];
	int fd = to_fd(s), rc;

	snprintf(cmd, sizeof(cmd),
		 "qemu-img check -q -f qcow2 /proc/%d/fd/%d >/dev/null 2>&1",
		 (int)getpid(), fd);
	rc = system(cmd);
	close(fd);
	return rc == 0 || WEXITSTATUS(rc) == 3 || WEXITSTATUS(rc) == 127;
}

/* ---- the commands ---- */

static int do_create(struct img *img)
{
	return img_snapshot_create(img, "new", NULL);
}

static int do_apply(struct img *img)
{
	return img_snapshot_apply(img, "one", NULL);
}

static int do_delete(struct img *img)
{
	return img_snapshot_delete(img, "one", NULL);
}

static int do_grow(struct img *img)
{
	return img_resize(img, 300u << 20, IMG_PREALLOC_OFF, NULL);
}

static int do_grow_full(struct img *img)
{
	return img_resize(img, DISK + 300000, IMG_PREALLOC_METADATA, NULL);
}

static int do_shrink(struct img *img)
{
	return img_resize(img, 500224, IMG_PREALLOC_OFF, NULL);
}

static int do_amend(struct img *img)
{
	struct img_option o = {"refcount_bits", "64"};

	return img_amend(img, &o, 1, NULL);
}

static int do_empty(struct img *img)
{
	return img_make_empty(img, NULL);
}

static int do_backing(struct img *img)
{
	return img_set_backing(img, "another", "raw", NULL);
}

static int do_bitmap(struct img *img)
{
	return img_bitmap(img, IMG_BITMAP_ADD, "b", 512, NULL, NULL, NULL);
}

static int do_bitmap_gone(struct img *img)
{
	return img_bitmap(img, IMG_BITMAP_REMOVE, "a", 0, NULL, NULL, NULL);
}

static int do_repair(struct img *img)
{
	struct img_check c = {.fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS};

	return img_check(img, &c, NULL);
}

/* clang-format off */
static const struct command {
	const char *name;
	int (*run)(struct img *img);
} commands[] = {
	{"snapshot made", do_create}, {"snapshot applied", do_apply}, {"snapshot deleted", do_delete},
	{"grown", do_grow}, {"grown with places", do_grow_full}, {"shrunk", do_shrink}, {"amended", do_amend},
	{"backing file", do_backing}, {"repaired", do_repair},
	{"bitmap added", do_bitmap}, {"bitmap removed", do_bitmap_gone}, {"emptied", do_empty},
};
/* clang-format on */

static void change(struct img *img, unsigned ops)
{
	static uint8_t buf[40000];

	while (ops--) {
		uint64_t off = rng() % DISK,
			 len = 1 + rng() % min_u64(40000, DISK - off);

		memset(buf, (int)(1 + rng() % 255), len);
		if (rng() % 5)
			assert_int_equal(img_write(img, buf, off, len), 0);
		else
			assert_int_equal(img_discard(img, off, len), 0);
	}
}

/* An image with a snapshot, changed since, and with a bitmap. */
static int make_image(const char *cluster)
{
	char path[] = "/tmp/crashXXXXXX";
	struct img_option o = {"cluster_size", cluster};
	struct img_create_opts co = {.format = "qcow2",
				     .size = DISK,
				     .replace = true,
				     .options = &o,
				     .n_options = 1};
	struct img_opts io = {.format = "qcow2", .no_lock = true, .no_sync = true};
	struct img *img;
	int fd = mkstemp(path);

	close(fd);
	assert_int_equal(img_create(path, &co, NULL), 0);
	assert_int_equal(img_open(path, &io, &img, NULL), 0);
	change(img, 20);
	assert_int_equal(img_snapshot_create(img, "one", NULL), 0);
	change(img, 10);
	assert_int_equal(img_snapshot_create(img, "two", NULL), 0);
	change(img, 10);
	assert_int_equal(img_bitmap(img, IMG_BITMAP_ADD, "a", 0, NULL, NULL, NULL), 0);
	assert_int_equal(img_close(img), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	unlink(path);
	return fd;
}

/* Runs the command on a copy and records it. False: it refused. */
static bool run_command(const struct command *k, const uint8_t *start, uint64_t len,
			uint8_t *after)
{
	struct img_opts o = {.format = "qcow2",
			     .no_lock = true,
			     .no_backing = true,
			     .repair = k->run == do_repair};
	struct state s = {(uint8_t *)start, len};
	struct img *img;
	int fd = to_fd(&s), rc;

	watched = fd;
	assert_int_equal(img_open_fd(fd, "image", &o, &img, NULL), 0);
	rc = k->run(img);
	if (!rc && k->run != do_backing)
		assert_int_equal(img_read(img, after, 0, min_u64(DISK, img_size(img))),
				 0);
	assert_int_equal(img_close(img), 0);
	watched = -1;
	return !rc;
}

static void test_command(const struct command *k, const char *cluster)
{
	static uint8_t before[DISK], after[DISK];
	struct img_opts o = {.format = "qcow2", .no_lock = true, .no_sync = true};
	struct state s = {malloc(MAX_FILE), 0};
	uint64_t len;
	uint8_t *start;
	struct img *img;
	int fd = make_image(cluster);

	assert_int_equal(img_open_fd(fd, "image", &o, &img, NULL), 0);
	/* Bitmaps are of one size. */
	if (k->run == do_grow || k->run == do_grow_full || k->run == do_shrink)
		assert_int_equal(
			img_bitmap(img, IMG_BITMAP_REMOVE, "a", 0, NULL, NULL, NULL),
			0);
	assert_int_equal(img_read(img, before, 0, DISK), 0);
	len = (uint64_t)lseek(fd, 0, SEEK_END);
	start = malloc(len);
	assert_int_equal(fd_pread_full(fd, start, len, 0), (int64_t)len);
	img_close(img);
	if (k->run == do_repair) /* a count too many */
		start[2 * strtoul(cluster, NULL, 10) + 1] ^= 2;
	memcpy(after, before, DISK);
	assert_true(run_command(k, start, len, after));
	for (size_t at = 0; at <= n_events; at++) {
		for (unsigned lose = 0; lose < 3; lose++) {
			crash_at(&s, start, len, at, lose);
			check_state(&s, before, after, k->name, at);
			if (k->run != do_backing && (at % 16 == 15 || at == n_events))
				assert_true(qemu_agrees(&s));
		}
	}
	for (size_t i = 0; i < n_events; i++)
		free(events[i].data);
	n_events = 0;
	free(start);
	free(s.p);
}

static void test_all(const char *cluster)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		test_command(&commands[i], cluster);
}

static void test_large_clusters(void **state)
{
	(void)state;
	test_all("65536");
}

static void test_small_clusters(void **state)
{
	(void)state;
	test_all("4096");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_small_clusters),
					   cmocka_unit_test(test_large_clusters)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * tests/unit/vhd_crash.h - the power fails while a VDI, VHD or VHDX image is written: what the library writes is
 * recorded, and of the writes behind the last sync any sector may or may not have reached the disk. What
 * is left must open, read without an error, hold what was flushed, and be writable. For one
 * program's main file only: it takes the place of system calls.
 */
#ifndef VHD_CRASH_H
#define VHD_CRASH_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "img/img.h"

#define CRASH_DISK   (6u << 20)
#define CRASH_FILE   (160u << 20)
#define CRASH_EVENTS 20000

/* ---- the record ---- */

enum crash_kind { CRASH_WRITE, CRASH_ZERO, CRASH_LENGTH, CRASH_SYNC };

struct crash_event {
	enum crash_kind kind;
	uint64_t off, len;
	uint8_t *data;
};

static struct crash_event crash_events[CRASH_EVENTS];
static size_t crash_n;
static int crash_watched = -1;

static void crash_record(struct crash_event e)
{
	assert_true(crash_n < CRASH_EVENTS);
	crash_events[crash_n++] = e;
}

/* The library's system calls come by here: the program's own symbols are found before libc's. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	ssize_t done = syscall(SYS_pwritev, fd, iov, n, off, 0);
	struct crash_event e = {CRASH_WRITE, (uint64_t)off, 0, NULL};

	if (fd != crash_watched || done <= 0)
		return done;
	e.data = malloc((size_t)done);
	for (int i = 0; i < n && e.len < (uint64_t)done; i++) {
		uint64_t here = min_u64(iov[i].iov_len, (uint64_t)done - e.len);

		memcpy(e.data + e.len, iov[i].iov_base, here);
		e.len += here;
	}
	crash_record(e);
	return done;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	long rc = syscall(SYS_fallocate, fd, mode, off, len);

	if (fd == crash_watched && !rc)
		crash_record((struct crash_event){CRASH_ZERO, (uint64_t)off,
						  (uint64_t)len, NULL});
	return (int)rc;
}

int ftruncate(int fd, off_t len)
{
	long rc = syscall(SYS_ftruncate, fd, len);

	if (fd == crash_watched && !rc)
		crash_record(
			(struct crash_event){CRASH_LENGTH, 0, (uint64_t)len, NULL});
	return (int)rc;
}

int fdatasync(int fd)
{
	if (fd == crash_watched)
		crash_record((struct crash_event){CRASH_SYNC, 0, 0, NULL});
	return 0;
}

static uint64_t crash_seed;

static uint64_t crash_rng(void)
{
	crash_seed ^= crash_seed << 13;
	crash_seed ^= crash_seed >> 7;
	crash_seed ^= crash_seed << 17;
	return crash_seed;
}

/* ---- the file after the crash ---- */

struct crash_state {
	uint8_t *p;
	uint64_t len;
};

/* `torn`: each sector for itself. */
static void crash_apply(struct crash_state *s, const struct crash_event *e, bool torn)
{
	uint64_t end = e->off + e->len;

	if (e->kind == CRASH_SYNC)
		return;
	assert_true(end <= CRASH_FILE);
	if (e->kind == CRASH_LENGTH) {
		if (e->len < s->len)
			memset(s->p + e->len, 0, s->len - e->len);
		s->len = e->len;
		return;
	}
	for (uint64_t at = e->off; at < end;) {
		uint64_t n = min_u64(end - at, 512 - at % 512);

		if (!torn || crash_rng() % 2) {
			if (e->data)
				memcpy(s->p + at, e->data + (at - e->off), n);
			else
				memset(s->p + at, 0, n);
			s->len = max_u64(s->len, at + n);
		}
		at += n;
	}
}

/* `at` events were issued: what was synced is there, of the rest something is missing (mode 1 and 2), or torn
 * (2). */
static void crash_at(struct crash_state *s, const uint8_t *start, uint64_t start_len,
		     size_t at, unsigned mode)
{
	size_t synced = 0;

	memset(s->p, 0, s->len);
	memcpy(s->p, start, start_len);
	s->len = start_len;
	for (size_t i = 0; i < at; i++)
		if (crash_events[i].kind == CRASH_SYNC)
			synced = i;
	for (size_t i = 0; i < at; i++) {
		bool lost = i > synced && mode && crash_rng() % 2;
		bool torn = i > synced && mode == 2 && crash_rng() % 2;

		if (!lost)
			crash_apply(s, &crash_events[i], torn);
	}
}

/* ---- the run ---- */

static uint8_t crash_model[CRASH_DISK], crash_got[CRASH_DISK];

/* Changes blocks of 4 KiB whose number is odd, or all. */
static void crash_change(struct img *img, unsigned ops, bool odd_only)
{
	static uint8_t buf[400000];

	while (ops--) {
		uint64_t b = crash_rng() % (CRASH_DISK / 4096), off, len;
		uint8_t byte = (uint8_t)(1 + crash_rng() % 255);

		b |= odd_only;
		off = b * 4096 + crash_rng() % 2048;
		len = 1 + crash_rng() %
				  (odd_only ? 2048 : min_u64(300000, CRASH_DISK - off));
		switch (crash_rng() % 8) {
		case 0:
			assert_int_equal(
				img_write_zeroes(img, off, len, crash_rng() & 1), 0);
			memset(crash_model + off, 0, len);
			break;
		case 1:
			if (odd_only || crash_rng() % 4)
				break;
			assert_int_equal(img_flush(img), 0);
			break;
		default:
			memset(buf, byte, len);
			assert_int_equal(img_write(img, buf, off, len), 0);
			memset(crash_model + off, byte, len);
		}
	}
}

/* Opens what is left for reading, then for writing. */
static void crash_check(const struct crash_state *s, const char *path,
			const char *format, bool flushed)
{
	struct img_opts o = {.format = format, .read_only = true, .no_lock = true};
	struct err err = {0};
	struct img *img;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(fd_write_full(fd, s->p, s->len), 0);
	close(fd);
	for (unsigned i = 0; i < 2; i++, o.read_only = false) {
		/* Parallels images that are marked as in use are repaired first. */
		if (!o.read_only && !strcmp(format, "parallels")) {
			struct img_check c = {.fix = IMG_FIX_ERRORS};

			o.repair = true;
			if (img_open(path, &o, &img, &err) || img_check(img, &c, &err))
				fail_msg("%s", err.msg);
			assert_true(c.corruptions <= 1);
			assert_int_equal(img_close(img), 0);
			o.repair = false;
		}
		if (img_open(path, &o, &img, &err))
			fail_msg("%s", err.msg);
		assert_int_equal(img_read(img, crash_got, 0, CRASH_DISK), 0);
		for (uint64_t b = 0; flushed && b < CRASH_DISK / 4096; b += 2)
			assert_memory_equal(crash_got + b * 4096,
					    crash_model + b * 4096, 4096);
		if (!o.read_only) {
			struct img_check c = {0};

			memset(crash_got, 7, 400000);
			assert_int_equal(img_write(img, crash_got, 100000, 400000), 0);
			assert_int_equal(img_flush(img), 0);
			/* What readers see to themselves, like a missing footer, is right now. */
			if (!img_check(img, &c, &err))
				assert_int_equal(c.corruptions, 0);
		}
		assert_int_equal(img_close(img), 0);
	}
	o.read_only = true;
	assert_int_equal(img_open(path, &o, &img, &err), 0);
	assert_int_equal(img_read(img, crash_got, 0, CRASH_DISK), 0);
	for (unsigned i = 100000; i < 500000; i++)
		assert_int_equal(crash_got[i], 7);
	img_close(img);
}

/*
 * One image: made with `opts` and, if `parent` is set, in front of one that is full. Moments `step` events apart, and
 * those before each sync, are tried with each kind of loss.
 */
static void crash_test(const struct img_create_opts *opts, bool parent, size_t step)
{
	char dir[] = "/tmp/vhdcrashXXXXXX", path[64], back[64], after[64];
	struct img_opts o = {.format = opts->format, .no_lock = true};
	struct img_create_opts co = *opts;
	struct crash_state s = {calloc(1, CRASH_FILE), 0};
	uint64_t start_len;
	struct img *img;
	size_t flushed;
	void *start;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/image", dir);
	snprintf(after, sizeof(after), "%s/after", dir);
	snprintf(back, sizeof(back), "%s/back.vdi", dir);
	co.size = CRASH_DISK;
	memset(crash_model, 0, CRASH_DISK);
	if (parent) {
		assert_int_equal(img_create(back, &co, NULL), 0);
		assert_int_equal(img_open(back, &o, &img, NULL), 0);
		memset(crash_model, 0x55, CRASH_DISK);
		assert_int_equal(img_write(img, crash_model, 0, CRASH_DISK), 0);
		assert_int_equal(img_close(img), 0);
		co.backing_path = "back.vdi";
		co.backing_format = co.format;
	}
	assert_int_equal(img_create(path, &co, NULL), 0);
	assert_int_equal(fd_load_file(path, CRASH_FILE, &start, &start_len, NULL), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	crash_watched = fd;
	assert_int_equal(img_open_fd(fd, path, &o, &img, NULL), 0);
	crash_change(img, 12, false);
	assert_int_equal(img_flush(img), 0);
	flushed = crash_n;
	crash_change(img, 30, true);
	assert_int_equal(img_flush(img), 0);
	crash_change(img, 30, true);
	assert_int_equal(img_close(img), 0);
	crash_watched = -1;
	for (size_t at = 0; at <= crash_n; at++)
		for (unsigned mode = 0; mode < 3; mode++) {
			if (at % step &&
			    (at == crash_n || crash_events[at].kind != CRASH_SYNC))
				continue;
			crash_at(&s, start, start_len, at, mode);
			crash_check(&s, after, co.format, at >= flushed);
		}
	for (size_t i = 0; i < crash_n; i++)
		free(crash_events[i].data);
	crash_n = 0;
	free(start);
	free(s.p);
	unlink(path);
	unlink(after);
	unlink(back);
	rmdir(dir);
}

/* What is left of a resize has one of the two sizes and all of the data, and can be repaired. */
static void crash_check_size(const struct crash_state *s, const char *path,
			     const char *format, uint64_t before, uint64_t after)
{
	struct img_opts o = {.format = format, .repair = true, .no_lock = true};
	struct img_check c = {.fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS};
	uint64_t n = min_u64(min_u64(before, after), CRASH_DISK);
	struct err err = {0};
	struct img *img;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(fd_write_full(fd, s->p, s->len), 0);
	close(fd);
	for (unsigned i = 0; i < 3; i++) {
		o.read_only = i != 1;
		if (img_open(path, &o, &img, &err))
			fail_msg("%s", err.msg);
		if (i == 1 && img_check(img, &c, &err))
			fail_msg("%s", err.msg);
		assert_true(img_size(img) == before || img_size(img) == after);
		assert_int_equal(img_read(img, crash_got, 0, n), 0);
		assert_memory_equal(crash_got, crash_model, n);
		assert_int_equal(img_close(img), 0);
	}
	c = (struct img_check){0};
	assert_int_equal(img_open(path, &o, &img, &err), 0);
	assert_int_equal(img_check(img, &c, &err), 0);
	assert_int_equal(c.corruptions, 0);
	assert_int_equal(c.leaks, 0);
	img_close(img);
}

/* A full image gets another size. */
__attribute__((unused)) static void
crash_test_resize(const struct img_create_opts *opts, uint64_t size, size_t step)
{
	char dir[] = "/tmp/vhdcrashXXXXXX", path[64], after[64];
	struct img_opts o = {.format = opts->format, .no_lock = true};
	struct img_create_opts co = *opts;
	struct crash_state s = {calloc(1, CRASH_FILE), 0};
	struct err err = {0};
	uint64_t start_len;
	struct img *img;
	void *start;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/image", dir);
	snprintf(after, sizeof(after), "%s/after", dir);
	co.size = CRASH_DISK;
	for (size_t i = 0; i < CRASH_DISK; i++)
		crash_model[i] = (uint8_t)(i / 1000 % 3 ? crash_rng() : 0);
	memset(crash_model + (1 << 20), 0, 1 << 20);
	assert_int_equal(img_create(path, &co, NULL), 0);
	assert_int_equal(img_open(path, &o, &img, NULL), 0);
	assert_int_equal(img_write(img, crash_model, 0, 1 << 20), 0);
	assert_int_equal(img_write(img, crash_model + (2 << 20), 2 << 20,
				   CRASH_DISK - (2 << 20)),
			 0);
	assert_int_equal(img_close(img), 0);
	assert_int_equal(fd_load_file(path, CRASH_FILE, &start, &start_len, NULL), 0);
	crash_watched = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(img_open_fd(crash_watched, path, &o, &img, NULL), 0);
	if (img_resize(img, size, IMG_PREALLOC_OFF, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(img_close(img), 0);
	crash_watched = -1;
	for (size_t at = 0; at <= crash_n; at++)
		for (unsigned mode = 0; mode < 3; mode++) {
			if (at % step &&
			    (at == crash_n || crash_events[at].kind != CRASH_SYNC))
				continue;
			crash_at(&s, start, start_len, at, mode);
			crash_check_size(&s, after, co.format, CRASH_DISK, size);
		}
	for (size_t i = 0; i < crash_n; i++)
		free(crash_events[i].data);
	crash_n = 0;
	free(start);
	free(s.p);
	unlink(path);
	unlink(after);
	rmdir(dir);
}

#endif

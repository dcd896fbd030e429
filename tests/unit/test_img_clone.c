/*
 * tests/unit/test_img_clone.c - copies of images that share blocks: on a host that can (an ioctl() of this program's own
 * stands for it), on one that cannot, and on one that changes its mind.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "img/copy.h"
#include "img/img.h"

#define DISK (24u << 20)

/* ---- the host ---- */

static atomic_uint n_shared, n_asked;
static int refuses;          /* errno of every call; 0: none */
static unsigned until = ~0u; /* the calls behind this one fail in their middle */

/* The library's calls come by here: the program's own symbols are found before libc's. */
int ioctl(int fd, unsigned long what, ...)
{
	struct file_clone_range *r;
	uint8_t *buf;
	va_list ap;
	ssize_t n;

	va_start(ap, what);
	r = va_arg(ap, struct file_clone_range *);
	va_end(ap);
	assert_int_equal(what, FICLONERANGE);
	assert_int_equal((r->src_offset | r->src_length | r->dest_offset) % 4096, 0);
	n_asked++;
	if (refuses) {
		errno = refuses;
		return -1;
	}
	buf = malloc(r->src_length);
	n = pread((int)r->src_fd, buf, r->src_length, (off_t)r->src_offset);
	assert_int_equal(n, r->src_length);
	if (n_shared >= until)
		r->src_length /= 2;
	assert_int_equal(pwrite(fd, buf, r->src_length, (off_t)r->dest_offset),
			 r->src_length);
	free(buf);
	if (n_shared >= until) {
		errno = EOPNOTSUPP;
		return -1;
	}
	n_shared++;
	return 0;
}

/* ---- a disk ---- */

static char folder[] = "/tmp/img-clone.XXXXXX";

static const char *in_folder(const char *name)
{
	static char path[4][128];
	static unsigned at;
	char *p = path[at++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", folder, name);
	return p;
}

/* Data of odd lengths with holes and written zeros between; the last block of the file is cut. */
static int setup(void **state)
{
	uint8_t *buf = malloc(3 << 20);
	int fd;

	(void)state;
	if (!mkdtemp(folder) || !buf)
		return -1;
	fd = open(in_folder("a.raw"), O_RDWR | O_CREAT, 0600);
	for (unsigned i = 0; i < 3u << 20; i++)
		buf[i] = (uint8_t)(i * 2654435761u >> 13);
	memset(buf + 100000, 0, 300000);
	for (unsigned i = 0; i < 5; i++)
		if (pwrite(fd, buf, (3u << 20) - i * 70001, (off_t)i * 4500000) < 0)
			return -1;
	free(buf);
	if (ftruncate(fd, DISK - 1536))
		return -1;
	return close(fd);
}

static int teardown(void **state)
{
	static const char *const names[] = {"a.raw", "b", "c"};

	(void)state;
	for (size_t i = 0; i < 3; i++)
		unlink(in_folder(names[i]));
	return rmdir(folder);
}

static void same(struct img *a, const char *path, const char *format)
{
	struct img_opts o = {.format = format, .read_only = true};
	struct img_compare_opts co = {0};
	struct img_compare c = {0};
	struct err err;
	struct img *b;

	if (img_open(path, &o, &b, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(img_compare(a, b, &co, &c, &err), 0);
	if (c.differ)
		fail_msg("%s differs at %llu", format, (unsigned long long)c.offset);
	img_close(b);
}

/* Copies `from` to a new image of a format; returns how many times blocks were shared. */
static unsigned copy(const char *from, const char *from_format, const char *to,
		     const char *format, bool clone)
{
	struct img_opts o = {.format = from_format, .read_only = true};
	struct img_create_opts co = {
		.format = format, .replace = true, .no_sync = true};
	struct img_copy_opts opts = {
		.sparse = 4096, .zero_known = true, .clone = clone, .threads = 2};
	struct img_work_list w;
	struct img_plan plan;
	struct img_target *t;
	struct img *a, *b;
	struct err err = {0};
	struct img_source src = {.img = &a, .n = 1};

	n_shared = n_asked = 0;
	assert_int_equal(img_open(from, &o, &a, &err), 0);
	assert_int_equal(img_work_list(&src, false, &w, &err), 0);
	plan = (struct img_plan){w.data, w.n_data, false};
	co.size = w.size;
	if (img_target_new(to, &co, &plan, &t, &b, &err))
		fail_msg("%s: %s", format, err.msg);
	if (img_copy(&src, b, &w, &opts, &err))
		fail_msg("%s: %s", format, err.msg);
	if (img_target_commit(t, b, &err))
		fail_msg("%s: %s", format, err.msg);
	same(a, to, format);
	img_work_free(&w);
	img_close(a);
	return n_shared;
}

static const char *const formats[] = {"raw",  "qcow2", "vdi",      "vhdx",
				      "vmdk", "vpc",   "parallels"};

static void test_shares(void **state)
{
	(void)state;
	refuses = 0;
	until = ~0u;
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		unsigned n = copy(in_folder("a.raw"), "raw", in_folder("b"), formats[i],
				  true);

		/* VHD's blocks begin behind a bitmap of one sector. */
		if (strcmp(formats[i], "vpc"))
			assert_true(n > 0);
		n = copy(in_folder("b"), formats[i], in_folder("c"), "raw", true);
		if (!strcmp(formats[i], "raw") || !strcmp(formats[i], "qcow2"))
			assert_true(n > 0);
	}
}

static void test_not_asked(void **state)
{
	(void)state;
	refuses = 0;
	copy(in_folder("a.raw"), "raw", in_folder("b"), "raw", false);
	assert_int_equal(n_asked, 0);
}

static void test_cannot(void **state)
{
	static const int why[] = {EOPNOTSUPP, EXDEV, EINVAL, ENOTTY, EIO};

	(void)state;
	for (size_t k = 0; k < sizeof(why) / sizeof(why[0]); k++) {
		refuses = why[k];
		for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
			assert_int_equal(copy(in_folder("a.raw"), "raw", in_folder("b"),
					      formats[i], true),
					 0);
		/* It is not asked for ever. */
		assert_true(n_asked <= 20);
	}
	refuses = 0;
}

/* What a failed call left is written over. */
static void test_changes_its_mind(void **state)
{
	(void)state;
	refuses = 0;
	for (until = 0; until < 8; until++)
		for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
			copy(in_folder("a.raw"), "raw", in_folder("b"), formats[i],
			     true);
	until = ~0u;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_not_asked),
		cmocka_unit_test(test_cannot),
		cmocka_unit_test(test_changes_its_mind),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* tests/unit/test_img_worklist.c - the list of what is to be copied, with fewer ranges than the disk has. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_RANGES 64
#include "../../lib/img/worklist.c"

/* A file with `n` blocks of data, every `step` bytes one; its image. */
static struct img *disk(unsigned n, uint64_t step)
{
	char path[] = "/tmp/img-list.XXXXXX", block[4096];
	int fd = mkstemp(path);
	struct img_opts o = {.format = "raw"};
	struct err err;
	struct img *img;

	assert_true(fd >= 0);
	unlink(path);
	memset(block, 'x', sizeof(block));
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pwrite(fd, block, sizeof(block), (off_t)(i * step)),
				 sizeof(block));
	assert_int_equal(ftruncate(fd, (off_t)(n * step)), 0);
	if (img_open_fd(fd, path, &o, &img, &err))
		fail_msg("%s", err.msg);
	return img;
}

/* All data is in the list, in order, and the sum is right. */
static void check(const struct img_work_list *w, unsigned n, uint64_t step)
{
	uint64_t sum = 0, end = 0;
	size_t r = 0;

	for (size_t i = 0; i < w->n_data; i++) {
		assert_true(i == 0 || w->data[i].off > end);
		end = w->data[i].off + w->data[i].len;
		sum += w->data[i].len;
	}
	assert_int_equal(sum, w->data_bytes);
	for (unsigned i = 0; i < n; i++) {
		while (r < w->n_data && w->data[r].off + w->data[r].len <= i * step)
			r++;
		assert_true(r < w->n_data && w->data[r].off <= i * step &&
			    w->data[r].off + w->data[r].len >= i * step + 4096);
	}
}

static void list(unsigned n, uint64_t step, struct img_work_list *w)
{
	struct img *img = disk(n, step);
	struct img_source src = {.img = &img, .n = 1};
	struct err err;

	assert_int_equal(img_work_list(&src, false, w, &err), 0);
	assert_int_equal(w->size, n * step);
	check(w, n, step);
	img_close(img);
}

static void test_few(void **state)
{
	struct img_work_list w;

	(void)state;
	list(60, 65536, &w);
	assert_int_equal(w.n_data, 60);
	assert_int_equal(w.data_bytes, 60 * 4096);
	img_work_free(&w);
}

static void test_too_many(void **state)
{
	static const struct {
		unsigned n;
		uint64_t step;
	} disks[] = {{65, 65536}, {1000, 8192}, {1000, 65536}, {500, 1 << 20}};

	(void)state;
	for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
		struct img_work_list w;

		list(disks[i].n, disks[i].step, &w);
		assert_true(w.n_data <= MAX_RANGES);
		assert_true(w.gap >= disks[i].step - 4096);
		img_work_free(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_few),
		cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

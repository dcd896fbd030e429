/* tests/unit/test_img_passes.c - a packed qcow2 image for a pipe: what differs in the second pass is noticed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "img/img_int.h"

#define UNIT 65536

static const struct img_range data[] = {{0, 3 * UNIT}, {5 * UNIT, 10}};
static const struct img_plan plan = {data, 2, true};

/* Begins an image in a nameless file and gives it a first pass. */
static int begin(struct img_target **t, struct img **img)
{
	const struct img_create_opts o = {.format = "qcow2", .size = 10 * UNIT};
	static const uint8_t unit[UNIT];
	FILE *f = tmpfile();
	struct err err;
	int fd;

	assert_non_null(f);
	fd = dup(fileno(f));
	fclose(f);
	if (img_target_new_fd(fd, "test", &o, &plan, t, img, &err))
		fail_msg("%s", err.msg);
	assert_true((*img)->first_pass);
	assert_int_equal(img_write_packed(*img, 0, unit, 100), 0);
	assert_int_equal(img_write_unit(*img, UNIT, unit, UNIT), 0);
	assert_int_equal(img_write_packed(*img, 5 * UNIT, unit, 7), 0);
	/* what is not in the plan, or behind what was written */
	assert_int_equal(img_write_packed(*img, 6 * UNIT, unit, 7), -EINVAL);
	if ((*img)->fmt->stream_second(*img, &err))
		fail_msg("%s", err.msg);
	assert_false((*img)->first_pass);
	return fd;
}

static void test_same(void **state)
{
	static const uint8_t unit[UNIT];
	struct img_target *t;
	struct img *img;
	struct err err;
	int fd = begin(&t, &img);

	(void)state;
	assert_int_equal(img_write_packed(img, 0, unit, 100), 0);
	assert_int_equal(img_write_unit(img, UNIT, unit, UNIT), 0);
	assert_int_equal(img_write_packed(img, 5 * UNIT, unit, 7), 0);
	if (img_target_commit(t, img, &err))
		fail_msg("%s", err.msg);
	close(fd);
}

static void test_other_length(void **state)
{
	static const uint8_t unit[UNIT];
	struct img_target *t;
	struct img *img;
	int fd = begin(&t, &img);

	(void)state;
	assert_int_equal(img_write_packed(img, 0, unit, 101), -ESTALE);
	assert_int_equal(img_write_unit(img, 0, unit, UNIT), -ESTALE);
	assert_int_equal(img_write_packed(img, 0, unit, 100), 0);
	assert_int_equal(img_write_packed(img, UNIT, unit, 100), -ESTALE);
	/* zeros then, data now */
	assert_int_equal(img_write_packed(img, 2 * UNIT, unit, 100), -ESTALE);
	img_target_drop(t, img);
	close(fd);
}

static void test_left_out(void **state)
{
	static const uint8_t unit[UNIT];
	struct img_target *t;
	struct img *img;
	struct err err;
	int fd = begin(&t, &img);

	(void)state;
	assert_int_equal(img_write_packed(img, 0, unit, 100), 0);
	assert_int_equal(img_write_unit(img, UNIT, unit, UNIT), 0);
	/* data then, zeros now */
	assert_true(img_target_commit(t, img, &err) < 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_other_length),
		cmocka_unit_test(test_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

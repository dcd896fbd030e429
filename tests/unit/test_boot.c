/* tests/unit/test_boot.c - boot_make(): what it takes from a kernel's head, the lists it makes, and what it refuses. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/boot.h"

static uint8_t head[BOOT_KERNEL_HEAD];

static void put32(unsigned at, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		head[at + i] = (uint8_t)(v >> 8 * i);
}

/* A kernel with a real-mode part of 5 sectors. */
static int setup(void **state)
{
	(void)state;
	memset(head, 0, sizeof(head));
	head[0x1fe] = 0x55;
	head[0x1ff] = 0xaa;
	memcpy(head + 0x202, "HdrS", 4);
	head[0x206] = 0x0f;
	head[0x207] = 2;
	head[0x211] = 1;
	head[0x1f1] = 4;
	put32(0x22c, 0x7fffffff);
	put32(0x258, 0x1000000);
	put32(0x260, 0x2000000);
	return 0;
}

static struct boot_run kernel_run[] = {{5000, 3}, {0, 8}, {9000, 100}};
static struct boot_file kernel = {kernel_run, 3, 111 * 512 - 10};
static struct boot_run initrd_run[] = {{20000, 50}};
static struct boot_file initrd = {initrd_run, 1, 50 * 512};

static int make(uint8_t *gap, const char *line, const struct boot_file *k,
		const struct boot_file *i)
{
	struct err err = {0};

	memset(gap, 0, BOOT_GAP);
	return boot_make(gap, 100000, 0x12345678, head, k, i, line, &err);
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static void test_lists(void **state)
{
	/* sector, count, address: the real-mode part ends in the middle of a run */
	static const uint32_t want[][3] = {{5000, 3, 0x90000}, {0, 2, 0},
					   {0, 6, 0x100000},   {9000, 100, 0},
					   {20000, 50, 1},     {0, 0, 0}};
	uint8_t *gap = malloc(BOOT_GAP);
	const uint8_t *p = NULL;

	(void)state;
	assert_int_equal(make(gap, "root=x", &kernel, &initrd), 0);
	assert_int_equal(gap[510], 0x55);
	assert_int_equal(get32(gap + 440), 0x12345678);
	assert_int_equal(gap[446], 0x80);
	assert_int_equal(get32(gap + 454), BOOT_GAP / 512);
	assert_int_equal(get32(gap + 458), 100000);
	for (unsigned at = 512; at < 8192 && !p; at++) /* the command line */
		if (!strcmp((const char *)gap + at, "root=x"))
			p = gap + at;
	assert_non_null(p);
	assert_int_equal(get32(p - 16), 50 * 512);             /* initrd_size */
	assert_int_equal(get32(p - 12), 28672);                /* whole pages */
	assert_int_equal(get32(p - 8), 0x80000000u);           /* limit */
	assert_int_equal(get32(p - 4), 0x1000000 + 0x2000000); /* kernel_end */
	p += BOOT_COMMAND + 1;
	for (unsigned i = 0; i < 6; i++, p += 16) {
		assert_int_equal(get32(p), want[i][0]);
		assert_int_equal(get32(p + 4), 0);
		assert_int_equal(get32(p + 8), want[i][1]);
		assert_int_equal(get32(p + 12), want[i][2]);
	}
	free(gap);
}

static void test_refused(void **state)
{
	/* clang-format off */
	static const struct { unsigned at; uint8_t v; int rc; } bad[] = {
		{0x1fe, 0, EINVAL}, {0x202, 'h', EINVAL}, {0x206, 9, ENOTSUP},
		{0x211, 0, ENOTSUP}, {0x1f1, 64, EINVAL}, {0x25c, 1, EINVAL},
		{0x263, 0xff, EINVAL}, /* init_size of nearly 4 GiB */
	};
	/* clang-format on */
	uint8_t *gap = malloc(BOOT_GAP);
	struct boot_file none = {0}, small = {kernel_run, 3, 900};
	struct boot_file cut = {kernel_run, 2, 111 * 512};
	struct boot_file tiny = {kernel_run, 3, 5 * 512};
	static struct boot_run many[4096];
	struct boot_file pieces = {many, 4096, 4096 * 512};
	char line[BOOT_COMMAND + 2];

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setup(state);
		head[bad[i].at] = bad[i].v;
		assert_int_equal(make(gap, "", &kernel, &none), -bad[i].rc);
	}
	setup(state);
	assert_int_equal(make(gap, "", &small, &none), -EINVAL);
	assert_int_equal(make(gap, "", &cut, &none), -EINVAL);
	assert_int_equal(make(gap, "", &tiny, &none), -EINVAL);
	for (unsigned i = 0; i < 4096; i++)
		many[i] = (struct boot_run){1000 + i * 2, 1};
	assert_int_equal(make(gap, "", &kernel, &pieces), -E2BIG);
	memset(line, 'x', sizeof(line));
	line[BOOT_COMMAND + 1] = 0;
	assert_int_equal(make(gap, line, &kernel, &none), -E2BIG);
	line[BOOT_COMMAND] = 0;
	assert_int_equal(make(gap, line, &kernel, &none), 0);
	head[0x1f1] = 0; /* means 4 */
	assert_int_equal(make(gap, "", &kernel, &none), 0);
	free(gap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_lists, setup),
		cmocka_unit_test_setup(test_refused, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_vhdx.c - VHDX images in a power failure. */
#include "vhd_crash.h"

static void test_alone(void **state)
{
	struct img_create_opts o = {.format = "vhdx"};

	(void)state;
	for (crash_seed = 1; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, false, 5);
		crash_seed = keep;
	}
}

static void test_parent(void **state)
{
	struct img_create_opts o = {.format = "vhdx"};

	(void)state;
	for (crash_seed = 2; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, true, 5);
		crash_seed = keep;
	}
}

/* Larger, larger with a table that has to move, smaller, smaller within a block. */
static void test_resize(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t block;
	} rows[] = {
		{1048576ull * 20, 0},
		{1048576ull << 18, 1048576},
		{3 << 20, 1048576},
		{5000192, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct img_create_opts o = {.format = "vhdx",
					    .cluster_size = rows[i].block};

		crash_seed = i + 1;
		crash_test_resize(&o, rows[i].size, 50);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_parent),
		cmocka_unit_test(test_resize),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

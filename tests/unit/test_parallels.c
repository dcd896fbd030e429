/* tests/unit/test_parallels.c - Parallels images in a power failure. */
#include "vhd_crash.h"

static void run(uint32_t block)
{
	struct img_create_opts o = {.format = "parallels", .cluster_size = block};

	for (crash_seed = 1; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, false, 5);
		crash_seed = keep;
	}
}

static void test_usual(void **state)
{
	(void)state;
	run(0);
}

static void test_small(void **state)
{
	(void)state;
	run(16384);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usual),
		cmocka_unit_test(test_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

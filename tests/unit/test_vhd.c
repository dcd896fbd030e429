/* tests/unit/test_vhd.c - VHD images in a power failure. */
#include "vhd_crash.h"

static void test_alone(void **state)
{
	struct img_create_opts o = {.format = "vpc"};

	(void)state;
	for (crash_seed = 1; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, false, 5);
		crash_seed = keep;
	}
}

static void test_parent(void **state)
{
	struct img_create_opts o = {.format = "vpc"};

	(void)state;
	for (crash_seed = 2; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, true, 5);
		crash_seed = keep;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

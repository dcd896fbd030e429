/* tests/unit/test_bochs.c - growing disks of Bochs in a power failure. */
#include "vhd_crash.h"

static void test_growing(void **state)
{
	struct img_create_opts o = {.format = "bochs"};

	(void)state;
	for (crash_seed = 1; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, false, 5);
		crash_seed = keep;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

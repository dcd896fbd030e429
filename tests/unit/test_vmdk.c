/* tests/unit/test_vmdk.c - VMDK images in a power failure. */
#include "vhd_crash.h"

static void run(const char *subformat, const char *zeroed, bool parent)
{
	const struct img_option options[] = {{"subformat", subformat},
					     {"zeroed_grain", zeroed}};
	struct img_create_opts o = {
		.format = "vmdk", .options = options, .n_options = 2};

	for (crash_seed = 1; crash_seed < 3000; crash_seed += 2000) {
		uint64_t keep = crash_seed;

		crash_test(&o, parent, 5);
		crash_seed = keep;
	}
}

static void test_alone(void **state)
{
	(void)state;
	run("monolithicSparse", "off", false);
}

static void test_parent(void **state)
{
	(void)state;
	run("monolithicSparse", "on", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_fw_e820.c - the memory map: order, overlaps, merging, limits, against a model. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "fw/e820.h"

static void expect(const struct e820 *map, const struct e820_entry *want, unsigned n)
{
	assert_int_equal(map->n, n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(map->entry[i].base, want[i].base);
		assert_int_equal(map->entry[i].len, want[i].len);
		assert_int_equal(map->entry[i].type, want[i].type);
	}
}

static void test_pc(void **state)
{
	static const struct e820_entry want[] = {
		{0, 0x9fc00, E820_RAM},
		{0x9fc00, 0x400, E820_RESERVED},
		{0xe0000, 0x20000, E820_RESERVED},
		{0x100000, 0x3ff00000, E820_RAM},
		{0x100000000, 0x1000, E820_RAM},
	};
	struct e820 map = {.n = 0};

	(void)state;
	assert_int_equal(e820_add(&map, 0x100000000, 0x1000, E820_RAM, NULL), 0);
	assert_int_equal(e820_add(&map, 0, 0x40000000, E820_RAM, NULL), 0);
	assert_int_equal(e820_add(&map, 0x9fc00, 0x60400, E820_RESERVED, NULL), 0);
	assert_int_equal(e820_add(&map, 0xa0000, 0x40000, E820_RAM, NULL), 0);
	assert_int_equal(e820_add(&map, 0x5000, 0, E820_RESERVED, NULL), 0);
	/* The hole of the VGA: what was RAM becomes reserved, then nothing puts it back. */
	assert_int_equal(e820_add(&map, 0xa0000, 0x40000, E820_NVS, NULL), 0);
	assert_int_equal(map.n, 6);
	assert_true(e820_all(&map, 0xb0000, 0x10000, E820_NVS));
	assert_false(e820_all(&map, 0xb0000, 0x40000, E820_NVS));
	assert_int_equal(e820_ram_end(&map, UINT64_MAX), 0x100001000);
	assert_int_equal(e820_ram_end(&map, 0x100000000), 0x40000000);
	assert_int_equal(e820_ram_end(&map, 0x9fd00), 0x9fc00);
	assert_int_equal(map.entry[2].type, E820_NVS);
	memmove(&map.entry[2], &map.entry[3], 3 * sizeof(map.entry[0]));
	map.n--;
	expect(&map, want, 5);
	assert_int_equal(le64_get(e820_raw(&map, 1).base), 0x9fc00);
	assert_int_equal(le64_get(e820_raw(&map, 1).len), 0x400);
	assert_int_equal(le32_get(e820_raw(&map, 1).type), 2);
}

static void test_limits(void **state)
{
	struct e820 map = {.n = 0}, old;
	struct err err;

	(void)state;
	assert_int_equal(e820_add(&map, UINT64_MAX, 2, E820_RAM, &err), -EINVAL);
	assert_int_equal(e820_add(&map, 5, UINT64_MAX - 4, E820_RAM, &err), -EINVAL);
	for (unsigned i = 0; i < E820_MAX; i++)
		assert_int_equal(e820_add(&map, i * 0x2000, 0x1000, E820_RAM, &err), 0);
	assert_int_equal(map.n, E820_MAX);
	old = map;
	assert_int_equal(e820_add(&map, 0x10, 0x10, E820_RESERVED, &err), -ENOSPC);
	assert_memory_equal(&map, &old, sizeof(map));
	/* What covers them all fits again. */
	assert_int_equal(e820_add(&map, 0, E820_MAX * 0x2000, E820_RESERVED, &err), 0);
	assert_int_equal(map.n, 1);
}

/* Random additions against one byte a page. */
static void test_model(void **state)
{
	uint8_t model[64];
	uint32_t x = 1;

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		struct e820 map = {.n = 0};

		memset(model, 0, sizeof(model));
		for (unsigned i = 0; i < 12; i++) {
			unsigned a, n, type;

			x = x * 1664525 + 1013904223;
			a = x >> 26;
			n = (x >> 18) % (sizeof(model) - a + 1);
			type = 1 + (x >> 10) % 3;
			assert_int_equal(
				e820_add(&map, a * 0x1000, n * 0x1000, type, NULL), 0);
			memset(model + a, (int)type, n);
		}
		for (unsigned i = 0; i < map.n; i++) {
			const struct e820_entry *e = &map.entry[i];

			assert_true(e->len > 0);
			if (i &&
			    map.entry[i - 1].base + map.entry[i - 1].len == e->base)
				assert_int_not_equal(map.entry[i - 1].type, e->type);
			for (uint64_t at = e->base; at < e->base + e->len;
			     at += 0x1000) {
				assert_int_equal(model[at / 0x1000], e->type);
				model[at / 0x1000] = 0;
			}
		}
		for (unsigned i = 0; i < sizeof(model); i++)
			assert_int_equal(model[i], 0);
	}
}

static void test_ram(void **state)
{
	struct e820 map = {.n = 0};
	struct ram ram;
	struct err err;

	(void)state;
	assert_int_equal(ram_init(&ram, 8 << 20, &err), 0);
	assert_int_equal(ram_add(&ram, 0, 0xa0000, &err), 0);
	assert_int_equal(ram_add(&ram, 0x100000, 4 << 20, &err), 0);
	assert_int_equal(ram_add_rom(&ram, 0xf0000, "x", 1, &err), 0);
	assert_int_equal(e820_add_ram(&map, &ram, &err), 0);
	assert_int_equal(map.n, 2);
	assert_int_equal(map.entry[1].base, 0x100000);
	ram_fini(&ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pc),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_ram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

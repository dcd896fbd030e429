/*
 * unit/test_vec.c - the tables of vector instructions and the memory of their host code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "x86/vec.h"

static const struct map {
	const struct vec_op *rows;
	const unsigned *n;
} maps[] = {{vec_map1, &vec_map1_n}, {vec_map2, &vec_map2_n}, {vec_map3, &vec_map3_n}};

static void rows_are_in_order(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 3; m++)
		for (unsigned n = 1; n < *maps[m].n; n++)
			assert_in_range(maps[m].rows[n].op, maps[m].rows[n - 1].op,
					255);
}

/* A number of a row must fit into the key of the code cache. */
static void rows_are_few(void **state)
{
	(void)state;
	for (unsigned m = 0; m < 3; m++)
		assert_in_range(*maps[m].n, 1, 511);
}

static bool has_imm(const struct vec_op *o)
{
	for (unsigned n = 0; n < 4; n++)
		if (VEC_KIND(o->opr[n]) == K_I)
			return true;
	return false;
}

/* Does the form exist? As vec_find.c and vec_run.c have it. */
static bool exists(const struct vec_want *w)
{
	const struct vec_op *o = w->op;
	bool w_matters = o->flags & (V_W1 | V_WX);

	for (unsigned n = 0; n < 4; n++)
		w_matters |= o->opr[n] && VEC_SIZE(o->opr[n]) == S_Y;
	if (o->special || (w->w && !w_matters) || o->flags & (w->mem ? V_REG : V_MEM))
		return false;
	return w->l1 ? w->vex && o->vex256 : w->vex ? o->vex128 : o->legacy;
}

/* All code of a row: every form with every immediate. Returns the longest in bytes. */
static unsigned get_all(struct vec_cache *vc, const struct vec_op *o, unsigned map,
			unsigned *n)
{
	unsigned longest = 0;
	uint8_t code[4 * VEC_CODE_MAX];

	for (unsigned x = 0; x < 16; x++) {
		struct vec_want w = {.op = o,
				     .map = (uint8_t)map,
				     .vex = x & 1,
				     .l1 = x & 2,
				     .w = x & 4,
				     .mem = x & 8};

		if (!exists(&w))
			continue;
		for (unsigned imm = 0; imm < (has_imm(o) ? 256u : 1u); imm++, (*n)++) {
			unsigned len;

			w.imm = (uint8_t)imm;
			len = vec_emit(&w, code);
			longest = len > longest ? len : longest;
			assert_non_null(vec_cache_get(vc, &w));
		}
	}
	return longest;
}

static void all_code_fits(void **state)
{
	struct x86_system sys = {0};
	unsigned n = 0, longest = 0;

	(void)state;
	assert_int_equal(x86_vec_init(&sys), 0);
	for (unsigned m = 0; m < 3; m++)
		for (unsigned k = 0; k < *maps[m].n; k++) {
			unsigned len = get_all(sys.vec, &maps[m].rows[k], m + 1, &n);

			longest = len > longest ? len : longest;
		}
	for (unsigned op = 0; op < 8; op++)
		for (unsigned modrm = 0; modrm < 256; modrm++)
			assert_non_null(vec_cache_get_x87(
				sys.vec, op,
				(uint8_t)(modrm < 0xc0 ? modrm & 0x38 : modrm), true));
	print_message("# %u forms, longest %u bytes\n", n, longest);
	assert_in_range(longest, 1, VEC_CODE_MAX);
	x86_vec_fini(&sys);
}

static void same_form_same_code(void **state)
{
	struct x86_system sys = {0};
	struct vec_want w = {.op = &vec_map1[0], .map = 1};
	const struct vec_code_entry *e;

	(void)state;
	assert_int_equal(x86_vec_init(&sys), 0);
	e = vec_cache_get(sys.vec, &w);
	assert_ptr_equal(vec_cache_get(sys.vec, &w), e);
	w.vex = true;
	assert_ptr_not_equal(vec_cache_get(sys.vec, &w), e);
	x86_vec_fini(&sys);
}

/* What the host has, and neighbours that are undefined. */
static void finding(void **state)
{
	bool imm8;

	(void)state;
	assert_non_null(vec_find(1, 0x58, 0, 0, 0xc1, &imm8)); /* addps */
	assert_false(imm8);
	assert_non_null(vec_find(1, 0xc6, 1, 0, 0x01, &imm8)); /* shufpd */
	assert_true(imm8);
	assert_null(vec_find(1, 0x28, 2, 0, 0xc1, &imm8)); /* F3 movaps */
	assert_null(vec_find(1, 0x13, 0, 0, 0xc1, &imm8)); /* movlps to a register */
	assert_null(vec_find(1, 0x71, 0, 0, 0xc1, &imm8)); /* a group's /0 */
	assert_null(vec_find(1, 0x58, 0, I_EVEX, 0xc1, &imm8)); /* AVX-512 */
	assert_null(vec_find(0, 0xd9, 0, 0, 0xd1, &imm8));      /* beside fnop */
	assert_non_null(vec_find(0, 0xd9, 0, 0, 0xd0, &imm8));
	if (vec_host_has(AVX2)) {
		assert_non_null(
			vec_find(2, 0x36, 1, I_VEX | I_L1, 0xc1, &imm8)); /* vpermd */
		assert_null(vec_find(2, 0x36, 1, I_VEX, 0xc1, &imm8));
		assert_null(vec_find(2, 0x36, 1, 0, 0xc1, &imm8));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_in_order),
		cmocka_unit_test(rows_are_few),
		cmocka_unit_test(all_code_fits),
		cmocka_unit_test(same_form_same_code),
		cmocka_unit_test(finding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

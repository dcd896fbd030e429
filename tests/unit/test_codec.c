/*
 * tests/unit/test_codec.c - each codec against the program that made its format, and against
 * damage: cut short, changed, larger than allowed.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "codec/block.h"
#include "codec/codec.h"

#define RAW_LEN (3u << 20)

/* Compressible, but not trivially. */
static uint8_t *raw_new(void)
{
	uint8_t *p = malloc(RAW_LEN);
	uint32_t x = 1;

	assert_non_null(p);
	for (size_t i = 0; i < RAW_LEN; i++) {
		if (i % 7 == 0)
			x = x * 1103515245 + 12345;
		p[i] = (uint8_t)(x >> 16);
	}
	return p;
}

static const struct {
	const char *name, *command;
} programs[] = {
	{"gzip", "gzip -c"},
	{"xz", "xz -c --check=crc32"},
	{"lzma", "xz -c --format=lzma"},
	{"bzip2", "bzip2 -c"},
	{"zstd", "zstd -qc"},
	{"lz4", "lz4 -qlc"},
	{"lz4 frame", "lz4 -qc"},
	{"lzop", "lzop -qc"},
};

static void test_one(const char *name, const char *command, const uint8_t *raw)
{
	char dir[] = "/tmp/codecXXXXXX", in[64], out[64], cmd[256];
	struct err err = {0};
	const struct codec *c;
	size_t len, got, used;
	void *p, *q;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(in, sizeof(in), "%s/in", dir);
	snprintf(out, sizeof(out), "%s/out", dir);
	f = fopen(in, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(raw, 1, RAW_LEN, f), RAW_LEN);
	fclose(f);
	snprintf(cmd, sizeof(cmd), "%s <%s >%s 2>/dev/null && printf 1234 >>%s",
		 command, in, out, out);
	if (system(cmd) != 0) {
		print_message("# no program for %s\n", name);
	} else {
		assert_int_equal(fd_load_file(out, 1 << 30, &p, &len, &err), 0);
		c = codec_find_magic(p, len);
		assert_non_null(c);
		assert_string_equal(c->name, name);
		/* The 4 bytes behind the stream are not taken for a part of it. */
		assert_int_equal(
			codec_unpack(c, p, len, RAW_LEN, &q, &got, &used, &err), 0);
		assert_int_equal(got, RAW_LEN);
		assert_int_equal(used, len - 4);
		assert_memory_equal(q, raw, RAW_LEN);
		free(q);
		assert_true(codec_unpack(c, p, len, RAW_LEN - 1, &q, &got, NULL, &err) <
			    0);
		assert_null(q);
		assert_true(codec_unpack(c, p, len / 2, RAW_LEN, &q, &got, NULL, &err) <
				    0 ||
			    got < RAW_LEN);
		free(q);
		for (unsigned i = 0; i < 64;
		     i++) { /* must not crash, whatever it says */
			((uint8_t *)p)[(size_t)i * 37 % 400] ^= (uint8_t)(1 + i);
			if (codec_unpack(c, p, len, RAW_LEN, &q, &got, NULL, &err) == 0)
				free(q);
		}
		free(p);
	}
	unlink(in);
	unlink(out);
	rmdir(dir);
}

static void test_streams(void **state)
{
	uint8_t *raw = raw_new();

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(programs); i++)
		test_one(programs[i].name, programs[i].command, raw);
	free(raw);
}

static void test_block(const struct codec_block *c)
{
	uint8_t *raw = raw_new(), *packed = malloc(1 << 17), *back = malloc(1 << 16);
	struct codec_work *w = codec_work_new();
	size_t n;

	assert_non_null(packed);
	assert_non_null(back);
	assert_non_null(w);
	for (unsigned i = 0; i < 4; i++) { /* the work space serves again */
		memset(packed, 0xa5, 1 << 17);
		memset(back, 0, 1 << 16);
		n = c->pack(w, i == 3 ? 1 : 0, raw + i * 1000, 1 << 16, packed,
			    1 << 17);
		assert_true(n > 0 && n < 1 << 16);
		/* What stands behind the stream is not looked at. */
		assert_int_equal(c->unpack(w, packed, n + 100, back, 1 << 16), 0);
		assert_memory_equal(raw + i * 1000, back, 1 << 16);
		assert_int_equal(c->unpack(w, packed, n, back, 1 << 16), 0);
		assert_int_equal(c->unpack(w, packed, n / 2, back, 1 << 16), -EINVAL);
		assert_int_equal(c->unpack(w, packed, n, back, (1 << 16) - 1), -EINVAL);
		assert_int_equal(c->unpack(w, packed, 0, back, 1 << 16), -EINVAL);
		assert_int_equal(c->pack(w, 0, raw, 1 << 16, packed, 100), 0);
	}
	codec_work_free(w);
	free(raw);
	free(packed);
	free(back);
}

static void test_blocks(void **state)
{
	(void)state;
	test_block(&codec_block_deflate);
	test_block(&codec_block_zstd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_luks.c - sector ciphers against vectors of their standards; LUKS headers in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "crypt/luks1.h"

static struct crypt *cipher(const char *name, const char *mode, const uint8_t *key,
			    size_t n)
{
	struct crypt_key k = {.n = n};
	struct crypt *c;

	memcpy(k.b, key, n);
	assert_int_equal(crypt_new(name, mode, &k, &c, NULL), 0);
	return c;
}

/* IEEE 1619, vector 2: XTS-AES-128, data unit 0x3333333333. */
static void test_xts(void **state)
{
	static const uint8_t want[32] = {
		0xc4, 0x54, 0x18, 0x5e, 0x6a, 0x16, 0x93, 0x6e, 0x39, 0x33, 0x40,
		0x38, 0xac, 0xef, 0x83, 0x8b, 0xfb, 0x18, 0x6f, 0xff, 0x74, 0x80,
		0xad, 0xc4, 0x28, 0x93, 0x82, 0xec, 0xd6, 0xd3, 0x94, 0xf0};
	uint8_t key[32], data[32];
	struct crypt *c;

	(void)state;
	memset(key, 0x11, 16);
	memset(key + 16, 0x22, 16);
	memset(data, 0x44, 32);
	c = cipher("aes", "xts-plain64", key, 32);
	assert_int_equal(crypt_encrypt(c, 0x3333333333, data, 32), 0);
	assert_memory_equal(data, want, 32);
	assert_int_equal(crypt_decrypt(c, 0x3333333333, data, 32), 0);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(data[i], 0x44);
	assert_int_equal(crypt_encrypt(c, 0, data, 24), -EINVAL);
	crypt_free(c);
}

/* plain counts in 32 bits, plain64 in 64: they differ from sector 2^32 on. */
static void test_vectors(void **state)
{
	uint8_t key[16] = {1, 2, 3}, a[1024] = {0}, b[1024] = {0};
	struct crypt *p = cipher("aes", "cbc-plain", key, 16);
	struct crypt *q = cipher("aes", "cbc-plain64", key, 16);

	(void)state;
	crypt_encrypt(p, UINT32_MAX, a, 1024);
	crypt_encrypt(q, UINT32_MAX, b, 1024);
	assert_memory_equal(a, b, 512);
	assert_memory_not_equal(a + 512, b + 512, 512);
	memset(b, 0, 512);
	crypt_encrypt(q, 0, b, 512);
	assert_memory_equal(a + 512, b, 512);
	crypt_free(p);
	crypt_free(q);
}

static void test_unknown(void **state)
{
	struct crypt_key k = {.n = 32};
	struct crypt *c;

	(void)state;
	assert_int_equal(crypt_new("rot13", "xts-plain64", &k, &c, NULL), -ENOTSUP);
	assert_int_equal(crypt_new("aes", "xts", &k, &c, NULL), -ENOTSUP);
	assert_int_equal(crypt_new("aes", "gcm-plain", &k, &c, NULL), -ENOTSUP);
	assert_int_equal(crypt_new("aes", "cbc-essiv:md4", &k, &c, NULL), -ENOTSUP);
	assert_int_equal(crypt_new("aes", "cbc-essiv:sha512", &k, &c, NULL), -ENOTSUP);
	k.n = 17;
	assert_int_equal(crypt_new("aes", "cbc-plain", &k, &c, NULL), -ENOTSUP);
	assert_null(c);
	crypt_free(NULL);
}

/* RFC 6070. */
static void test_pbkdf2(void **state)
{
	static const uint8_t want[20] = {0x4b, 0x00, 0x79, 0x01, 0xb7, 0x65, 0x48,
					 0x9a, 0xbe, 0xad, 0x49, 0xd9, 0x26, 0xf7,
					 0x21, 0xd0, 0x65, 0xa4, 0x29, 0xc1};
	uint8_t out[20];

	(void)state;
	assert_int_equal(crypt_pbkdf2(crypt_hash("sha1"), "password", 8, "salt", 4,
				      4096, out, 20),
			 0);
	assert_memory_equal(out, want, 20);
}

/* ---- headers ---- */

static uint8_t disk[4 << 20];
static uint64_t fail_at; /* the write that does not succeed; 0: none */
static uint64_t writes;

static int io(void *ctx, uint64_t off, void *buf, size_t len, bool write)
{
	(void)ctx;
	assert_true(range_ok(off, len, sizeof(disk)));
	if (write && ++writes == fail_at)
		return -EIO;
	if (write)
		memcpy(disk + off, buf, len);
	else
		memcpy(buf, disk + off, len);
	return 0;
}

static void make(struct luks1 *l, struct crypt_key *key)
{
	memset(disk, 0, sizeof(disk));
	fail_at = writes = 0;
	assert_int_equal(luks1_make(&(struct luks1_options){0}, l, key, NULL), 0);
	assert_int_equal(luks1_add(l, 0, io, NULL, key, "one", 3, 1, NULL), 0);
	assert_int_equal(luks1_parse(disk, sizeof(disk), "disk", l, NULL), 0);
}

static int opens(const char *pass, struct crypt_key *got, unsigned *slot)
{
	struct luks1 l;

	assert_int_equal(luks1_parse(disk, sizeof(disk), "disk", &l, NULL), 0);
	return luks1_unlock(&l, io, NULL, "disk", pass, strlen(pass), LUKS1_MAX_ROUNDS,
			    got, slot, NULL);
}

static void test_keys(void **state)
{
	struct crypt_key key, got;
	struct luks1 l;
	unsigned slot;

	(void)state;
	make(&l, &key);
	assert_int_equal(opens("one", &got, &slot), 0);
	assert_int_equal(slot, 0);
	assert_memory_equal(got.b, key.b, 64);
	assert_int_equal(opens("two", &got, &slot), -EKEYREJECTED);
	assert_int_equal(luks1_add(&l, 5, io, NULL, &key, "two", 3, 1, NULL), 0);
	assert_int_equal(opens("two", &got, &slot), 0);
	assert_int_equal(slot, 5);
	assert_memory_equal(got.b, key.b, 64);
	assert_int_equal(luks1_remove(&l, 0, io, NULL, NULL), 0);
	assert_int_equal(opens("one", &got, &slot), -EKEYREJECTED);
	assert_int_equal(opens("two", &got, &slot), 0);
	assert_int_equal(luks1_remove(&l, 5, io, NULL, NULL), 0);
	assert_int_equal(opens("two", &got, &slot), -EKEYREJECTED);
}

/* Whatever write fails while a key is added or removed: the other one opens. */
static void test_cut(void **state)
{
	struct crypt_key key, got;
	struct luks1 l;

	(void)state;
	for (unsigned n = 1; n <= 2; n++) {
		make(&l, &key);
		fail_at = writes + n;
		assert_int_equal(luks1_add(&l, 1, io, NULL, &key, "two", 3, 1, NULL),
				 -EIO);
		assert_int_equal(opens("one", &got, NULL), 0);
		assert_int_equal(opens("two", &got, NULL), -EKEYREJECTED);
		make(&l, &key);
		luks1_add(&l, 1, io, NULL, &key, "two", 3, 1, NULL);
		fail_at = writes + n;
		assert_int_equal(luks1_remove(&l, 1, io, NULL, NULL), -EIO);
		assert_int_equal(opens("one", &got, NULL), 0);
	}
}

static void test_rounds(void **state)
{
	struct crypt_key key, got;
	struct err err;
	struct luks1 l;

	(void)state;
	make(&l, &key);
	l.slot[0].rounds = UINT32_MAX;
	assert_int_equal(luks1_unlock(&l, io, NULL, "disk", "one", 3, LUKS1_MAX_ROUNDS,
				      &got, NULL, &err),
			 -EINVAL);
	assert_non_null(strstr(err.msg, "made to stall"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_xts),     cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_unknown), cmocka_unit_test(test_pbkdf2),
		cmocka_unit_test(test_keys),    cmocka_unit_test(test_cut),
		cmocka_unit_test(test_rounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/test_img.c - lib/img: what the tests against qemu-img do not reach. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "img/file.h"
#include "img/img.h"

#define MB (1u << 20)

static struct err err;

/* An image in a new file in `dir`; returns its path. */
static char *make(const char *dir, const char *name, const struct img_create_opts *o)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(img_create(path, o, &err), 0);
	return path;
}

static char *temp_dir(void)
{
	static char dir[64];

	strcpy(dir, "/tmp/imgXXXXXX");
	assert_non_null(mkdtemp(dir));
	return dir;
}

static void remove_dir(const char *dir)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

/* ---- iovecs ---- */

static void test_iov(void **state)
{
	char a[10], b[5], c[20], all[36];
	struct iovec v[] = {{a, 0}, {a, 10}, {NULL, 0}, {b, 5}, {c, 20}, {c, 0}};
	struct iov_pos p = {v, 6, 0};
	struct iovec out[8];
	int n;

	(void)state;
	iov_pos_put(&p, "0123456789abcdefghijklmnopqrstuvwxyz", 17);
	assert_memory_equal(a, "0123456789", 10);
	assert_memory_equal(b, "abcde", 5);
	assert_memory_equal(c, "fg", 2);
	assert_int_equal(iov_pos_take(&p, 100, out, 8, &n), 18);
	assert_int_equal(n, 1);
	assert_ptr_equal(out[0].iov_base, c + 2);
	iov_pos_zero(&p, 18);
	for (int i = 2; i < 20; i++)
		assert_int_equal(c[i], 0);
	p = (struct iov_pos){v, 6, 0};
	iov_pos_get(&p, all, 3);
	assert_memory_equal(all, "012", 3);
	iov_pos_advance(&p, 9);
	iov_pos_get(&p, all, 4);
	assert_memory_equal(all, "cdef", 4);
	p = (struct iov_pos){v, 6, 0};
	assert_int_equal(iov_pos_take(&p, 12, out, 2, &n), 12);
	assert_int_equal(n, 2);
	assert_int_equal(out[1].iov_len, 2);
	assert_int_equal(iov_pos_take(&p, 12, out, 1, &n), 10);
}

/* ---- a guest must not choose the format ---- */

static void test_guard(void **state)
{
	struct img_create_opts co = {.format = "raw", .size = MB};
	struct img_opts named = {.format = "raw"};
	const char *dir = temp_dir(), *path = make(dir, "raw", &co);
	uint8_t head[512] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};
	struct img *img;

	(void)state;
	assert_int_equal(img_open(path, NULL, &img, &err), 0);
	assert_string_equal(img_format_name(img), "raw");
	assert_int_equal(img_write(img, head, 0, 512), -EPERM);
	/* Nor in pieces. */
	assert_int_equal(img_write(img, head, 0, 3), 0);
	assert_int_equal(img_write(img, head + 3, 3, 509), -EPERM);
	assert_int_equal(img_write(img, head, 512, 512), 0);
	img_close(img);
	/* Whoever says that it is raw may write anything. */
	assert_int_equal(img_open(path, &named, &img, &err), 0);
	assert_int_equal(img_write(img, head, 0, 512), 0);
	img_close(img);
	assert_int_equal(img_open(path, &named, &img, &err), 0);
	assert_int_equal(img_size(img), MB);
	img_close(img);
	assert_true(img_open(path, NULL, &img, &err) < 0); /* qcow2, and damaged */
	assert_null(img);
	remove_dir(dir);
}

/* ---- limits ---- */

static void test_limits(void **state)
{
	struct img_create_opts co = {.format = "qcow2", .size = MB + 512};
	const char *dir = temp_dir(), *path = make(dir, "x", &co);
	struct img_extent e;
	struct img_info info;
	struct img *img;
	char buf[200];

	(void)state;
	assert_int_equal(img_create(path, &co, &err), -EEXIST);
	assert_int_equal(img_open(path, NULL, &img, &err), 0);
	assert_int_equal(img_size(img), MB + 512);
	assert_int_equal(img_read(img, buf, MB + 512, 0), 0);
	assert_int_equal(img_read(img, buf, MB + 512, 1), -EINVAL);
	assert_int_equal(img_read(img, buf, MB, 513), -EINVAL);
	assert_int_equal(img_read(img, buf, UINT64_MAX, 2), -EINVAL);
	assert_int_equal(img_write(img, buf, MB, 513), -EINVAL);
	assert_int_equal(img_write_zeroes(img, 1, UINT64_MAX, true), -EINVAL);
	assert_int_equal(img_discard(img, MB, 513), -EINVAL);
	assert_int_equal(img_map(img, MB + 512, 1, &e), -EINVAL);
	assert_int_equal(img_map(img, 0, 0, &e), -EINVAL);
	assert_int_equal(img_map(img, 0, MB + 512, &e), 0);
	assert_int_equal(e.kind, IMG_ZERO);
	assert_int_equal(e.len, MB + 512);
	/* The last cluster is as good as the others. */
	memset(buf, 5, sizeof(buf));
	assert_int_equal(img_write(img, buf, MB, 77), 0);
	assert_int_equal(img_write_zeroes(img, MB + 10, 67, true), 0);
	memset(buf, 9, sizeof(buf));
	assert_int_equal(img_read(img, buf, MB, 77), 0);
	assert_int_equal(buf[9], 5);
	assert_int_equal(buf[10], 0);
	assert_int_equal(img_discard(img, 0, MB + 512), 0);
	assert_int_equal(img_read(img, buf, MB, 77), 0);
	assert_int_equal(buf[9], 0);
	img_info(img, &info);
	assert_int_equal(info.version, 3);
	assert_string_equal(info.compression, "zlib");
	assert_null(info.backing_path);
	assert_int_equal(img_close(img), 0);
	remove_dir(dir);
}

/* ---- many at once ---- */

struct shared {
	struct img *img;
	unsigned index;
};

enum { THREADS = 4, ROUNDS = 400 };

/* Writers of neighbouring 512-byte sectors of new clusters, beside others that read, zero and flush. */
static void *share(void *arg)
{
	struct shared *s = arg;
	uint8_t buf[512], back[512];

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t off = (uint64_t)(i * THREADS + s->index) * 512;

		memset(buf, (int)(i + s->index * 50), sizeof(buf));
		if (img_write(s->img, buf, off, 512) ||
		    img_read(s->img, back, off, 512) || memcmp(buf, back, 512))
			return (void *)"a write was lost";
		if (i % 64 == 0 && img_flush(s->img))
			return (void *)"flush";
		if (i % 16 == 0 &&
		    img_discard(s->img, MB * 4 + s->index * 65536, 65536))
			return (void *)"discard";
		if (i % 16 == 8 && img_write(s->img, buf, MB * 4 + s->index * 65536, 9))
			return (void *)"write";
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct img_create_opts co = {.format = "qcow2", .size = 8 * MB};
	static const uint32_t sizes[] = {512, 4096, 65536};
	struct img_opts o = {.no_sync = true};
	const char *dir = temp_dir();

	(void)state;
	for (unsigned k = 0; k < ARRAY_LEN(sizes); k++) {
		struct shared s[THREADS];
		pthread_t t[THREADS];
		struct img *img;
		uint8_t buf[512];

		co.cluster_size = sizes[k];
		co.replace = true;
		assert_int_equal(img_open(make(dir, "x", &co), &o, &img, &err), 0);
		for (unsigned i = 0; i < THREADS; i++) {
			s[i] = (struct shared){img, i};
			pthread_create(&t[i], NULL, share, &s[i]);
		}
		for (unsigned i = 0; i < THREADS; i++) {
			void *said;

			pthread_join(t[i], &said);
			assert_ptr_equal(said, NULL);
		}
		for (unsigned i = 0; i < ROUNDS * THREADS; i++) {
			assert_int_equal(img_read(img, buf, i * 512, 512), 0);
			assert_int_equal(buf[0],
					 (uint8_t)(i / THREADS + i % THREADS * 50));
		}
		assert_int_equal(img_close(img), 0);
	}
	remove_dir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_iov),
		cmocka_unit_test(test_guard),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * tests/fuzz/fuzz_qcow2.c - any bytes as a qcow2 image: opened, read, changed, flushed, closed; checked and
 * repaired; its snapshots, bitmaps and size changed. Nothing is said about content: a damaged image may have one
 * cluster in two places. What was repaired is no worse than before.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "img/img.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Writes here stay within what a machine under test has. */
#define MAX_WRITE (256u << 10)

static uint8_t buf[MAX_WRITE];

static void read_all(struct img *img)
{
	static const uint64_t lens[] = {1, 512, 65536, 100000};
	uint64_t size = img_size(img), at = 0;

	for (unsigned i = 0; i < 16 && at < size; i++) {
		uint64_t n = min_u64(lens[i % 4], size - at);
		struct img_extent e;

		img_read(img, buf, at, n);
		at = img_map(img, at, size - at, &e) ? at + n : at + e.len;
	}
	if (size)
		img_read(img, buf, size - 1, 1);
}

/* `code` chooses what is done where. */
static void change(struct img *img, const uint8_t *code, size_t n)
{
	uint64_t size = img_size(img);

	for (size_t i = 0; i + 4 <= n && i < 64; i += 4) {
		uint64_t off =
			size ? (code[i + 1] * 257ull * 4099 + code[i]) % size : 0;
		uint64_t len = min_u64(size - off, code[i + 2] * 1025ull % MAX_WRITE);

		switch (code[i + 3] % 6) {
		case 0:
			memset(buf, code[i + 2], len);
			img_write(img, buf, off, len);
			break;
		case 1: img_write_zeroes(img, off, len, code[i + 3] & 8); break;
		case 2: img_discard(img, off, len); break;
		case 3: img_flush(img); break;
		case 4: img_write_zeroes(img, off, size - off, true); break;
		default: img_read(img, buf, off, len); break;
		}
	}
}

/* Checks, repairs and checks again. */
static void repair(struct img *img)
{
	struct img_check before = {.fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS};
	struct img_check after = {0};

	if (!img_check(img, &before, NULL) && !img_check(img, &after, NULL) &&
	    after.corruptions > before.corruptions)
		abort();
	img_snapshot_create(img, "fuzz", NULL);
	change(img, (const uint8_t *)"abcdefghijklmno", 15);
	img_bitmap(img, IMG_BITMAP_ADD, "fuzz", 0, NULL, NULL, NULL);
	img_snapshot_apply(img, "1", NULL);
	img_bitmap(img, IMG_BITMAP_REMOVE, "fuzz", 0, NULL, NULL, NULL);
	img_resize(img, img_size(img) / 2, IMG_PREALLOC_OFF, NULL);
	img_snapshot_delete(img, "fuzz", NULL);
}

enum mode { READ, CHANGE, REPAIR };

static void run(const uint8_t *data, size_t len, enum mode mode)
{
	struct img_opts o = {.format = "qcow2",
			     .read_only = mode == READ,
			     .repair = mode == REPAIR,
			     .no_backing = true,
			     .no_sync = true,
			     .no_lock = true};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct img *img;

	/* With AES (method 1) also its data; the rounds of LUKS would take their time. */
	if (len > 35 && data[35] == 1)
		o.secret = "key";
	if (fd < 0 || fd_write_full(fd, data, len)) {
		close(fd);
		return;
	}
	if (img_open_fd(fd, "fuzz", &o, &img, NULL))
		return;
	if (mode == READ)
		read_all(img);
	else if (mode == CHANGE)
		change(img, data + len - min_u64(len, 256), min_u64(len, 256));
	else
		repair(img);
	img_close(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	run(data, len, READ);
	run(data, len, CHANGE);
	run(data, len, REPAIR);
	return 0;
}

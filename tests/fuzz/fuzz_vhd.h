/*
 * tests/fuzz/fuzz_vhd.h - any bytes as a VDI, VHD or VHDX image: opened, read, changed, flushed, checked, repaired,
 * resized, closed. Nothing is said about content: a damaged image may have one block in two places.
 */
#ifndef FUZZ_VHD_H
#define FUZZ_VHD_H

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
#define FUZZ_WRITE (256u << 10)

static uint8_t fuzz_buf[FUZZ_WRITE];

static void fuzz_read(struct img *img)
{
	static const uint64_t lens[] = {1, 512, 65536, 100000};
	uint64_t size = img_size(img), at = 0;

	for (unsigned i = 0; i < 16 && at < size; i++) {
		uint64_t n = min_u64(lens[i % 4], size - at);
		struct img_extent e;

		img_read(img, fuzz_buf, at, n);
		at = img_map(img, at, size - at, &e) ? at + n : at + e.len;
	}
	if (size)
		img_read(img, fuzz_buf, size - 1, 1);
}

/* `code` chooses what is done where. */
static void fuzz_change(struct img *img, const uint8_t *code, size_t n)
{
	for (size_t i = 0; i + 4 <= n && i < 48; i += 4) {
		uint64_t size = img_size(img);
		uint64_t off =
			size ? (code[i + 1] * 257ull * 4099 + code[i]) % size : 0;
		uint64_t len = min_u64(size - off, code[i + 2] * 1025ull % FUZZ_WRITE);

		switch (code[i + 3] % 6) {
		case 0:
			memset(fuzz_buf, code[i + 2], len);
			img_write(img, fuzz_buf, off, len);
			break;
		case 1: img_write_zeroes(img, off, len, code[i + 3] & 8); break;
		case 2: img_discard(img, off, len); break;
		case 3: img_flush(img); break;
		case 4: img_read(img, fuzz_buf, off, len); break;
		default:
			if (code[i + 3] & 0x80)
				img_resize(img, code[i + 1] * 70001ull,
					   IMG_PREALLOC_OFF, NULL);
		}
	}
}

enum fuzz_mode { FUZZ_READ, FUZZ_WRITES, FUZZ_REPAIR, FUZZ_MODES };

/* `fd` holds the image; `code` are the last bytes of the input. */
static void fuzz_image(int fd, const char *format, enum fuzz_mode mode,
		       const uint8_t *code, size_t n)
{
	struct img_opts o = {.format = format,
			     .read_only = mode == FUZZ_READ,
			     .repair = mode == FUZZ_REPAIR,
			     /* qcow's AES; the rounds of LUKS would take their time */
			     .secret = strcmp(format, "luks") ? "key" : NULL,
			     .no_backing = true,
			     .no_sync = true,
			     .no_lock = true};
	struct img_check c = {
		.fix = mode == FUZZ_REPAIR ? IMG_FIX_LEAKS | IMG_FIX_ERRORS : 0};
	struct img *img;

	if (img_open_fd(fd, "/nonexistent/fuzz", &o, &img, NULL))
		return;
	if (mode == FUZZ_WRITES)
		fuzz_change(img, code, n);
	else
		img_check(img, &c, NULL);
	if (mode == FUZZ_READ)
		fuzz_read(img);
	img_close(img);
}

#endif

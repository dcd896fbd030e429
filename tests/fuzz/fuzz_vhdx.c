/*
 * tests/fuzz/fuzz_vhdx.c - any bytes as the tables of a VHDX image, which lie far apart: the input has them one
 * behind the other. Checksums are made right, so that what is behind them is reached.
 */
#include "fuzz_vhd.h"

#include "base/bytes.h"
#include "base/crc.h"

#define MB (1u << 20)

/* clang-format off */
static const struct { uint32_t off, len; } pieces[] = {
	{64 << 10, 128}, {192 << 10, 128}, {2 * MB, 256}, {2 * MB + 65536, 512},
	{3 * MB, 256}, {1 * MB, 12288}, {4 * MB, 512}, {5 * MB, 64},
};
/* clang-format on */

static void seal(uint8_t *p, size_t len)
{
	le32 v;

	memset(p + 4, 0, 4);
	v = le32_make(crc32c(0, p, len));
	memcpy(p + 4, &v, 4);
}

/* Entries at the log's beginning, as far as their lengths lead. */
static void seal_log(uint8_t *log)
{
	for (unsigned at = 0, i = 0; i < 3 && at + 64 <= 12288; i++) {
		uint32_t len = load_u32(log + at + 8);

		if (len < 64 || len > 12288 - at)
			return;
		seal(log + at, len);
		at += len;
	}
}

/* The pieces in a file of their own; the rest is a hole. */
static int image_fd(const uint8_t *image)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	bool ok = fd >= 0 && !ftruncate(fd, 6 * MB) && pwrite(fd, image, 8, 0) == 8;

	for (size_t i = 0; i < ARRAY_LEN(pieces) && ok; i++)
		ok = pwrite(fd, image + pieces[i].off, pieces[i].len, pieces[i].off) ==
		     pieces[i].len;
	if (!ok && fd >= 0)
		close(fd);
	return ok ? fd : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t image[6 * MB]; /* zeros but for the pieces */
	size_t n = min_u64(len, 64), at = 0;

	memcpy(image, "vhdxfile", 8);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		size_t here = min_u64(pieces[i].len, len - at);

		memset(image + pieces[i].off, 0, pieces[i].len);
		if (here)
			memcpy(image + pieces[i].off, data + at, here);
		at += here;
	}
	seal(image + 65536, 4096);
	seal(image + (192 << 10), 65536);
	seal_log(image + MB);
	for (unsigned mode = 0; mode < FUZZ_MODES; mode++) {
		int fd = image_fd(image);

		if (fd >= 0)
			fuzz_image(fd, "vhdx", mode, data + len - n, n);
	}
	return 0;
}

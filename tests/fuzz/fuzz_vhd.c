/* tests/fuzz/fuzz_vhd.c - any bytes as a VHD image; checksums are made right, so that what is behind them is
 * reached. */
#include "fuzz_vhd.h"

#include "base/bytes.h"

static void seal(uint8_t *p, size_t len, size_t field)
{
	uint32_t sum = 0;
	be32 v;

	memset(p + field, 0, 4);
	for (size_t i = 0; i < len; i++)
		sum += p[i];
	v = be32_make(~sum);
	memcpy(p + field, &v, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t n = min_u64(len, 64);
	uint8_t *image = malloc(len + 1);
	uint64_t header;

	memcpy(image, data, len);
	if (len >= 1024) {
		header = __builtin_bswap64(load_u64(image + 16));
		if (range_ok(header, 1024, len))
			seal(image + header, 1024, 36);
		seal(image, 512, 64);
		seal(image + len - 512, 512, 64);
	}
	for (unsigned mode = 0; mode < FUZZ_MODES; mode++) {
		int fd = memfd_create("fuzz", MFD_CLOEXEC);

		if (fd < 0)
			break;
		if (fd_write_full(fd, image, len))
			close(fd);
		else
			fuzz_image(fd, "vpc", mode, data + len - n, n);
	}
	free(image);
	return 0;
}

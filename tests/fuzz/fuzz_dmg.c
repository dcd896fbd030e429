/* tests/fuzz/fuzz_dmg.c - any bytes as a disk image of Apple. */
#include "fuzz_vhd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t n = min_u64(len, 64);

	for (unsigned mode = 0; mode < FUZZ_MODES; mode++) {
		int fd = memfd_create("fuzz", MFD_CLOEXEC);

		if (fd < 0)
			return 0;
		if (fd_write_full(fd, data, len))
			close(fd);
		else
			fuzz_image(fd, "dmg", mode, data + len - n, n);
	}
	return 0;
}

/* tests/fuzz/fuzz_bzimage.c - Linux bzImages, header and payload damaged. */
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);

	if (!p)
		return 0;
	memcpy(p, data, len);
	if (len >= 0x210 &&
	    len % 16) { /* mostly with the magic numbers as they must be */
		p[0x1fe] = 0x55;
		p[0x1ff] = 0xaa;
		memcpy(p + 0x202, "HdrS", 4);
	}
	fuzz_boot(p, len);
	free(p);
	return 0;
}

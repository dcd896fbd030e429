/* tests/fuzz/fuzz_multiboot.c - multiboot kernels: the header's addresses and flags damaged. */
#include "base/bytes.h"
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);
	const uint32_t magic = 0x1badb002;
	size_t at;

	if (!p)
		return 0;
	memcpy(p, data, len);
	if (len >=
	    64) { /* a header with its checksum, at a place that the input chooses */
		at = load_u16(p) % min_u64(len - 12, 8192) & ~3ull;
		memcpy(p + at, &magic, 4);
		if (p[2] & 1)
			p[at + 6] |= 1; /* it has addresses */
		*(le32 *)(p + at + 8) = le32_make(-(magic + load_u32(p + at + 4)));
	}
	fuzz_boot(p, len);
	free(p);
	return 0;
}

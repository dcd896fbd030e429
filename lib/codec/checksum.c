/* codec/checksum.c - CRC-32 by libdeflate and zlib. Any thread. */
#include "codec/checksum.h"

#include <libdeflate.h>
#include <zlib.h>

uint32_t codec_crc32(uint32_t crc, const void *p, size_t len)
{
	return libdeflate_crc32(crc, p, len);
}

/* Joins sums of 1, 2, 4, ... zeros, as `len` has bits. */
uint32_t codec_crc32_zeros(uint32_t crc, uint64_t len)
{
	static const uint8_t zero;
	uint32_t some = libdeflate_crc32(0, &zero, 1);

	for (unsigned k = 0; k < 62 && len >> k; k++) {
		z_off64_t n = (z_off64_t)1 << k;

		if (len >> k & 1)
			crc = (uint32_t)crc32_combine64(crc, some, n);
		some = (uint32_t)crc32_combine64(some, some, n);
	}
	return crc;
}

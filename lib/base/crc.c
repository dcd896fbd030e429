/* base/crc.c - CRC-32C, by the processor's instruction where there is one. RFC 3720 appendix B.4. Any thread. */
#include "base/crc.h"

#include "base/bytes.h"

/* The polynomial 0x1edc6f41 with its bits reversed. */
#define CASTAGNOLI 0x82f63b78u

/* 8 bits at a time, from 16 entries for 4 bits: small enough to be spelled out by the compiler. */
#define STEP1(v) (((v) >> 1) ^ ((v)&1 ? CASTAGNOLI : 0))
#define STEP4(v) STEP1(STEP1(STEP1(STEP1(v))))

/* clang-format off */
static const uint32_t nibble[16] = {
	STEP4(0u), STEP4(1u), STEP4(2u), STEP4(3u), STEP4(4u), STEP4(5u), STEP4(6u), STEP4(7u),
	STEP4(8u), STEP4(9u), STEP4(10u), STEP4(11u), STEP4(12u), STEP4(13u), STEP4(14u), STEP4(15u),
};
/* clang-format on */

static uint32_t crc32c_table(uint32_t crc, const uint8_t *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		crc = (crc >> 4) ^ nibble[crc & 15];
		crc = (crc >> 4) ^ nibble[crc & 15];
	}
	return crc;
}

__attribute__((target("sse4.2"))) static uint32_t
crc32c_sse(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t c = crc;

	for (; len >= 8; p += 8, len -= 8)
		c = __builtin_ia32_crc32di(c, load_u64(p));
	crc = (uint32_t)c;
	while (len--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}

uint32_t crc32c(uint32_t crc, const void *p, size_t len)
{
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc32c_sse(~crc, p, len);
	return ~crc32c_table(~crc, p, len);
}

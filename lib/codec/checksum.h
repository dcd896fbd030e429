/* codec/checksum.h - CRC-32 as zlib, gzip and Apple's disk images have it. Any thread. */
#ifndef CODEC_CHECKSUM_H
#define CODEC_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Of `len` bytes; `crc` is 0, or the result for the bytes before them. */
uint32_t codec_crc32(uint32_t crc, const void *p, size_t len);
/* The same for `len` zeros, in a time that hardly depends on how many they are. */
uint32_t codec_crc32_zeros(uint32_t crc, uint64_t len);

#endif

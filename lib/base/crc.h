/* base/crc.h - checksums of the CRC family. Any thread. */
#ifndef BASE_CRC_H
#define BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `len` bytes; `crc` is 0, or the result for the bytes before
 * them. */
uint32_t crc32c(uint32_t crc, const void *p, size_t len);

#endif

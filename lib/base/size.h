/* base/size.h - byte counts as people write and read them: 512, 10k, 1.5G (powers of 1024). */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdint.h>

#include "base/err.h"

/*
 * Reads "4096", "64k", "1.5G", "2TiB", "1GB" (all powers of 1024; case ignored) into *out.
 * Returns 0 or -EINVAL, -ERANGE.
 */
int size_parse(const char *text, uint64_t *out, struct err *err);

/* "1.5 GiB", "512 B"; returns buf. 16 bytes are enough. */
char *size_format(uint64_t bytes, char *buf, unsigned buf_len);

#endif

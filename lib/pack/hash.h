/* pack/hash.h - the digests that packages carry, by nettle. Any thread. */
#ifndef PACK_HASH_H
#define PACK_HASH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define HASH_MAX  64
/* A digest in hexadecimal and the terminator. */
#define HASH_TEXT (2 * HASH_MAX + 1)

/* Is a digest of that name ("md5", "SHA256", any case) known? */
bool hash_known(const char *name);
/* How many bytes it has; 0: not known. */
unsigned hash_len(const char *name);
/* The digest of memory, to hash_len() bytes at `out`. */
void hash_memory(const char *name, const void *p, size_t len, uint8_t *out);
/* The same of `len` bytes (UINT64_MAX: up to the end) of a file from `off` on, as lower-case text. `stop` may be NULL.
 * 0 or -errno: -EINTR stopped, -EIO the file is shorter. */
int hash_file(const char *name, int fd, uint64_t off, uint64_t len,
	      const atomic_bool *stop, char out[HASH_TEXT]);
/* XXH64 with seed 0, as text: what newer Xen packages have. Same result. */
int hash_xxh64(int fd, uint64_t off, uint32_t len, char out[HASH_TEXT]);

#endif

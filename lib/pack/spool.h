/*
 * pack/spool.h - unpacks a file or a pipe, whatever it is packed with (gzip, xz, zstd, bzip2, lz4, lzip, lzop, nothing), to
 * another file, by libarchive. Any thread.
 */
#ifndef PACK_SPOOL_H
#define PACK_SPOOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Does a file that begins like this look packed? 8 bytes are enough. */
bool spool_is_packed(const void *head, size_t len);

/*
 * Reads `in` from where it stands to its end and writes what is in it to `out`, a file without content; blocks of zeros
 * become holes. `name` is for messages. `stop` (may be NULL): gives up when it is set. 0; -EINVAL damaged; -errno of
 * reading or writing.
 */
int spool_unpack(int in, const char *name, int out, const atomic_bool *stop,
		 struct err *err);

#endif

/* codec/lzop.h - unpacks lzop files of any length, a block at a time. Any thread. */
#ifndef CODEC_LZOP_H
#define CODEC_LZOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define LZOP_MAX_BLOCK (64u << 20)

#define LZOP_MAGIC_LEN 9

/* Does a file that begins with these LZOP_MAGIC_LEN bytes look like one? */
bool lzop_looks_like(const void *p, size_t len);

/*
 * Reads the file from behind its first 9 bytes, where `fd` stands, and hands each block to put() in its order; its result, if it is not 0, ends the
 * work and is returned. Checksums are compared. `name` is for messages. 0; -EINVAL damaged; -errno.
 */
int lzop_unpack_fd(int fd, const char *name,
		   int (*put)(void *ctx, const void *p, size_t len, struct err *err),
		   void *ctx, struct err *err);

#endif

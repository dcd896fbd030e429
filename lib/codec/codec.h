/*
 * codec/codec.h - compressed streams behind one structure; the work is done by the libraries.
 * Any thread.
 */
#ifndef CODEC_CODEC_H
#define CODEC_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct codec {
	const char *name; /* "gzip", "zstd", ... */
	uint8_t magic[9]; /* what a stream begins with */
	uint8_t magic_len;
	/*
	 * Unpacks the stream at `in` (bytes behind it are left alone) into new memory: 0 and *out, *out_len,
	 * *in_used; or -EINVAL (damaged), -EFBIG (more than max_out), -ENOMEM.
	 */
	int (*unpack)(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
		      size_t *out_len, size_t *in_used);
};

/* The codec whose stream begins at `p`, or NULL: gzip, xz, lzma, bzip2, lzop, lz4 (frame and the
 * legacy frame that Linux uses), zstd. */
const struct codec *codec_find_magic(const void *p, size_t len);

/*
 * Unpacks one stream. *out is the caller's to free(); in_used may be NULL. 0, or -errno with the
 * codec's name in the message.
 */
int codec_unpack(const struct codec *c, const void *in, size_t in_len, size_t max_out,
		 void **out, size_t *out_len, size_t *in_used, struct err *err);

#endif

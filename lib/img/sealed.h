/* img/sealed.h - reading and writing places of an image's file that are encrypted. Any thread. */
#ifndef IMG_SEALED_H
#define IMG_SEALED_H

#include "crypt/sector.h"
#include "img/file.h"

/* An encrypted place: file and byte, cipher and the byte that it counts sectors from. */
struct sealed {
	struct img_file *file; /* borrowed */
	uint64_t off;
	struct crypt *crypt; /* borrowed */
	uint64_t crypt_off;
};

/* Reads `len` bytes: 0 or -errno. The position moves on. */
int sealed_readv(const struct sealed *s, struct iov_pos *p, uint64_t len);

/* Bytes that are written: `head` (NULL: zeros), then n of `p` (NULL: zeros), then `tail` (NULL: zeros). */
struct sealed_data {
	const uint8_t *head;
	uint64_t head_len;
	struct iov_pos *p; /* moves on */
	uint64_t n;
	const uint8_t *tail;
	uint64_t tail_len;
};

/*
 * Writes them, from s->off on. Where they begin or end within a sector the rest of it is read and written again: the
 * caller sees to it that nobody else writes to that sector.
 */
int sealed_write(const struct sealed *s, const struct sealed_data *d);

#endif

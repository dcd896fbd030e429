/* img/sealed.c - encrypted places of an image's file: whole sectors, by way of a buffer. Any thread. */
#include "img/sealed.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"

/* The buffer: enough for the host's and the cipher's calls to be few. */
#define PIECE (128u << 10)

/* The place `n` bytes further on. */
static struct sealed sealed_at(const struct sealed *s, uint64_t n)
{
	return (struct sealed){s->file, s->off + n, s->crypt, s->crypt_off + n};
}

/* Bytes from the start of its sector to the place. */
static uint64_t into_sector(const struct sealed *s)
{
	return s->crypt_off % CRYPT_SECTOR;
}

static uint8_t *buffer_new(uint64_t len)
{
	return malloc(min_u64(PIECE, len + 2 * CRYPT_SECTOR));
}

/* Reads and decrypts whole sectors. */
static int read_sectors(const struct sealed *s, uint8_t *buf, uint64_t len)
{
	int rc = file_read(s->file, buf, s->off, len);

	return rc ? rc : crypt_decrypt(s->crypt, s->crypt_off / CRYPT_SECTOR, buf, len);
}

int sealed_readv(const struct sealed *s, struct iov_pos *p, uint64_t len)
{
	struct sealed at = *s;
	uint64_t skip = into_sector(s);
	uint8_t *buf = buffer_new(len);
	int rc = buf ? 0 : -ENOMEM;

	at.off -= skip;
	at.crypt_off -= skip;
	while (len && !rc) {
		uint64_t all = min_u64(PIECE, align_up(skip + len, CRYPT_SECTOR));
		uint64_t n = min_u64(len, all - skip);

		rc = read_sectors(&at, buf, all);
		if (rc)
			break;
		iov_pos_put(p, buf + skip, n);
		at = sealed_at(&at, all);
		len -= n;
		skip = 0;
	}
	free(buf);
	return rc;
}

/* The next `n` bytes of one source. */
static void take(uint8_t *to, uint64_t n, const uint8_t *from, uint64_t at)
{
	if (from)
		memcpy(to, from + at, n);
	else
		memset(to, 0, n);
}

/* Bytes [at, at + n) of what is written, for rising `at`. */
static void data_get(const struct sealed_data *d, uint64_t at, uint8_t *to, uint64_t n)
{
	uint64_t end[3] = {d->head_len, d->head_len + d->n,
			   d->head_len + d->n + d->tail_len};

	for (unsigned i = 0; i < 3; i++) {
		uint64_t from = i ? end[i - 1] : 0, k;

		if (!n || at >= end[i])
			continue;
		k = min_u64(n, end[i] - at);
		if (i == 0)
			take(to, k, d->head, at);
		else if (i == 2)
			take(to, k, d->tail, at - from);
		else if (d->p)
			iov_pos_get(d->p, to, k);
		else
			memset(to, 0, k);
		to += k;
		at += k;
		n -= k;
	}
}

/* What stands in the first and in the last sector of a piece and is not written anew. */
static int keep_ends(const struct sealed *at, uint8_t *buf, uint64_t all, uint64_t skip,
		     uint64_t end)
{
	struct sealed last = sealed_at(at, all - CRYPT_SECTOR);
	int rc = 0;

	if (skip)
		rc = read_sectors(at, buf, CRYPT_SECTOR);
	if (!rc && end % CRYPT_SECTOR && !(skip && all == CRYPT_SECTOR))
		rc = read_sectors(&last, buf + all - CRYPT_SECTOR, CRYPT_SECTOR);
	return rc;
}

int sealed_write(const struct sealed *s, const struct sealed_data *d)
{
	uint64_t len = d->head_len + d->n + d->tail_len, done = 0,
		 skip = into_sector(s);
	struct sealed at = *s;
	uint8_t *buf = buffer_new(len);
	int rc = buf ? 0 : -ENOMEM;

	at.off -= skip;
	at.crypt_off -= skip;
	while (done < len && !rc) {
		uint64_t all =
			min_u64(PIECE, align_up(skip + len - done, CRYPT_SECTOR));
		uint64_t n = min_u64(len - done, all - skip);

		rc = keep_ends(&at, buf, all, skip, skip + n);
		if (rc)
			break;
		data_get(d, done, buf + skip, n);
		rc = crypt_encrypt(at.crypt, at.crypt_off / CRYPT_SECTOR, buf, all);
		if (!rc)
			rc = file_write(at.file, buf, at.off, all);
		at = sealed_at(&at, all);
		done += n;
		skip = 0;
	}
	free(buf);
	return rc;
}

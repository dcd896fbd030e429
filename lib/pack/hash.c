/* pack/hash.c - digests. Any thread. XXH64: the xxHash specification 0.1.1. */
#include "pack/hash.h"

#include <nettle/nettle-meta.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"

#define BLOCK     (256u << 10)
#define MAX_XXH   (4u << 20)
#define XXH_LANES 4

static const struct nettle_hash *find(const char *name)
{
	static const struct nettle_hash *const known[] = {
		&nettle_md5, &nettle_sha1, &nettle_sha256, &nettle_sha512};

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (!strcasecmp(known[i]->name, name))
			return known[i];
	return NULL;
}

bool hash_known(const char *name)
{
	return find(name);
}

unsigned hash_len(const char *name)
{
	const struct nettle_hash *h = find(name);

	return h ? h->digest_size : 0;
}

/* Working memory of any of them. */
union state {
	uint64_t align;
	uint8_t b[512];
};

void hash_memory(const char *name, const void *p, size_t len, uint8_t *out)
{
	const struct nettle_hash *h = find(name);
	union state s;

	h->init(&s);
	h->update(&s, len, p);
	h->digest(&s, h->digest_size, out);
}

static void to_text(const uint8_t *p, unsigned n, char *out)
{
	for (unsigned i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", p[i]);
}

int hash_file(const char *name, int fd, uint64_t off, uint64_t len,
	      const atomic_bool *stop, char out[HASH_TEXT])
{
	const struct nettle_hash *h = find(name);
	uint8_t *buf = malloc(BLOCK), digest[HASH_MAX];
	union state s;
	int rc = h && buf ? 0 : -ENOMEM;

	if (!rc)
		h->init(&s);
	while (!rc && len) {
		size_t want = min_u64(len, BLOCK);
		int64_t n = fd_pread_full(fd, buf, want, off);

		if (n < 0 || (stop && atomic_load(stop))) {
			rc = n < 0 ? (int)n : -EINTR;
			break;
		}
		h->update(&s, (size_t)n, buf);
		if ((size_t)n < want) {
			rc = len == UINT64_MAX ? 0 : -EIO;
			break;
		}
		off += want;
		len -= len == UINT64_MAX ? 0 : want;
	}
	if (!rc) {
		h->digest(&s, h->digest_size, digest);
		to_text(digest, h->digest_size, out);
	}
	free(buf);
	return rc;
}

/* ---- XXH64 ---- */

static const uint64_t prime[5] = {0x9e3779b185ebca87u, 0xc2b2ae3d27d4eb4fu,
				  0x165667b19e3779f9u, 0x85ebca77c2b2ae63u,
				  0x27d4eb2f165667c5u};

static uint64_t rotate(uint64_t v, unsigned n)
{
	return v << n | v >> (64 - n);
}

static uint64_t xxh_round(uint64_t acc, uint64_t lane)
{
	return rotate(acc + lane * prime[1], 31) * prime[0];
}

static uint64_t xxh_tail(uint64_t acc, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8)
		acc = rotate(acc ^ xxh_round(0, load_u64(p)), 27) * prime[0] + prime[3];
	if (len >= 4) {
		acc = rotate(acc ^ load_u32(p) * prime[0], 23) * prime[1] + prime[2];
		p += 4;
		len -= 4;
	}
	for (; len; p++, len--)
		acc = rotate(acc ^ *p * prime[4], 11) * prime[0];
	acc = (acc ^ acc >> 33) * prime[1];
	acc = (acc ^ acc >> 29) * prime[2];
	return acc ^ acc >> 32;
}

static uint64_t xxh64(const uint8_t *p, size_t len)
{
	uint64_t acc[XXH_LANES] = {prime[0] + prime[1], prime[1], 0, 0 - prime[0]};
	static const unsigned turn[XXH_LANES] = {1, 7, 12, 18};
	uint64_t total = len, h = 0;

	if (len < 32)
		return xxh_tail(prime[4] + total, p, len);
	for (; len >= 32; p += 32, len -= 32)
		for (unsigned i = 0; i < XXH_LANES; i++)
			acc[i] = xxh_round(acc[i], load_u64(p + 8 * i));
	for (unsigned i = 0; i < XXH_LANES; i++)
		h += rotate(acc[i], turn[i]);
	for (unsigned i = 0; i < XXH_LANES; i++)
		h = (h ^ xxh_round(0, acc[i])) * prime[0] + prime[3];
	return xxh_tail(h + total, p, len);
}

int hash_xxh64(int fd, uint64_t off, uint32_t len, char out[HASH_TEXT])
{
	uint8_t *buf = len <= MAX_XXH ? malloc(len + 1) : NULL;
	int64_t n;

	if (!buf)
		return -ENOMEM;
	n = fd_pread_full(fd, buf, len, off);
	if (n == len)
		snprintf(out, HASH_TEXT, "%016llx",
			 (unsigned long long)xxh64(buf, len));
	free(buf);
	return n == len ? 0 : n < 0 ? (int)n : -EIO;
}

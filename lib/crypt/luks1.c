/*
 * crypt/luks1.c - the LUKS header, version 1. Specification: LUKS On-Disk Format, version 1.2.3. Any thread, one
 * header at a time.
 *
 * A slot's material is the master key, blown up to some thousand stripes of which all are needed (so that a
 * disk that keeps one old sector keeps nothing), encrypted with a key that PBKDF2 makes from the passphrase.
 */
#include "crypt/luks1.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/guid.h"
#include "base/mem.h"

struct disk_slot {
	be32 active, rounds;
	uint8_t salt[LUKS1_SALT];
	be32 sector, stripes;
};

struct disk_header {
	uint8_t magic[6];
	be16 version;
	char cipher[LUKS1_NAME], mode[LUKS1_NAME], hash[LUKS1_NAME];
	be32 data_sector, key_bytes;
	uint8_t digest[LUKS1_DIGEST], salt[LUKS1_SALT];
	be32 rounds;
	char uuid[40];
	struct disk_slot slot[LUKS1_SLOTS];
};
static_assert(sizeof(struct disk_header) == LUKS1_HEADER,
	      "as the specification has it");

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

#define SLOT_ACTIVE   0x00ac71f3
#define SLOT_DISABLED 0x0000dead

enum {
	STRIPES = 4000, /* of new slots: what every program writes */
	MAX_STRIPES = 16384,
	MIN_ROUNDS = 1000,
	AREA_ALIGN = 4096, /* of new slots' material */
};

/* ---- the header ---- */

bool luks1_probe(const void *head, size_t len, unsigned *version)
{
	const struct disk_header *h = head;

	if (len < LUKS1_HEADER || memcmp(h->magic, magic, sizeof(magic)))
		return false;
	*version = be16_get(h->version);
	return true;
}

static uint64_t material_len(const struct luks1 *l, const struct luks1_slot *s)
{
	return (uint64_t)l->key_bytes * s->stripes;
}

static int slot_parse(const struct disk_slot *d, unsigned i, const char *name,
		      struct luks1 *l, struct err *err)
{
	struct luks1_slot *s = &l->slot[i];
	uint32_t active = be32_get(d->active);

	s->rounds = be32_get(d->rounds);
	s->stripes = be32_get(d->stripes);
	s->off = (uint64_t)be32_get(d->sector) * CRYPT_SECTOR;
	memcpy(s->salt, d->salt, sizeof(s->salt));
	s->active = active == SLOT_ACTIVE;
	if (active != SLOT_ACTIVE && active != SLOT_DISABLED)
		return err_set(err, EINVAL,
			       "'%s' is damaged: key slot %u is in state "
			       "%#x",
			       name, i, active);
	if (!s->stripes || s->stripes > MAX_STRIPES || s->off < LUKS1_HEADER ||
	    s->off + material_len(l, s) > l->data_off || (s->active && !s->rounds))
		return err_set(err, EINVAL,
			       "'%s' is damaged: key slot %u has %u stripes at %llu",
			       name, i, s->stripes, (unsigned long long)s->off);
	for (unsigned k = 0; k < i; k++)
		if (s->off < l->slot[k].off + material_len(l, &l->slot[k]) &&
		    l->slot[k].off < s->off + material_len(l, s))
			return err_set(err, EINVAL,
				       "'%s' is damaged: key slots %u and %u overlap",
				       name, k, i);
	return 0;
}

int luks1_parse(const void *head, uint64_t area, const char *name, struct luks1 *l,
		struct err *err)
{
	const struct disk_header *h = head;
	unsigned version;
	int rc = 0;

	memset(l, 0, sizeof(*l));
	if (!luks1_probe(head, LUKS1_HEADER, &version))
		return err_set(err, EINVAL, "'%s' has no LUKS header", name);
	if (version != 1)
		return err_set(err, ENOTSUP,
			       "'%s' is encrypted with LUKS version %u: only version 1 "
			       "is known",
			       name, version);
	memcpy(l->cipher, h->cipher, LUKS1_NAME);
	memcpy(l->mode, h->mode, LUKS1_NAME);
	memcpy(l->hash, h->hash, LUKS1_NAME);
	memcpy(l->uuid, h->uuid, sizeof(h->uuid));
	memcpy(l->digest, h->digest, sizeof(l->digest));
	memcpy(l->salt, h->salt, sizeof(l->salt));
	l->data_off = (uint64_t)be32_get(h->data_sector) * CRYPT_SECTOR;
	l->key_bytes = be32_get(h->key_bytes);
	l->rounds = be32_get(h->rounds);
	l->md = crypt_hash(l->hash);
	if (!l->md)
		return err_set(err, ENOTSUP, "'%s': hash '%s' is not known", name,
			       l->hash);
	if (l->key_bytes < 16 || l->key_bytes > CRYPT_MAX_KEY || l->key_bytes % 8 ||
	    !l->rounds || l->data_off < LUKS1_HEADER || l->data_off > area)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a key of %u bytes, %u rounds, data at "
			       "%llu",
			       name, l->key_bytes, l->rounds,
			       (unsigned long long)l->data_off);
	for (unsigned i = 0; i < LUKS1_SLOTS && !rc; i++)
		rc = slot_parse(&h->slot[i], i, name, l, err);
	return rc;
}

void luks1_build(const struct luks1 *l, uint8_t head[LUKS1_HEADER])
{
	struct disk_header *h = (struct disk_header *)head;

	memset(h, 0, sizeof(*h));
	memcpy(h->magic, magic, sizeof(magic));
	h->version = be16_make(1);
	memcpy(h->cipher, l->cipher, LUKS1_NAME);
	memcpy(h->mode, l->mode, LUKS1_NAME);
	memcpy(h->hash, l->hash, LUKS1_NAME);
	memcpy(h->uuid, l->uuid, sizeof(h->uuid));
	memcpy(h->digest, l->digest, sizeof(h->digest));
	memcpy(h->salt, l->salt, sizeof(h->salt));
	h->data_sector = be32_make((uint32_t)(l->data_off / CRYPT_SECTOR));
	h->key_bytes = be32_make(l->key_bytes);
	h->rounds = be32_make(l->rounds);
	for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
		const struct luks1_slot *s = &l->slot[i];
		struct disk_slot *d = &h->slot[i];

		d->active = be32_make(s->active ? SLOT_ACTIVE : SLOT_DISABLED);
		d->rounds = be32_make(s->rounds);
		memcpy(d->salt, s->salt, sizeof(d->salt));
		d->sector = be32_make((uint32_t)(s->off / CRYPT_SECTOR));
		d->stripes = be32_make(s->stripes);
	}
}

static int header_write(const struct luks1 *l, luks1_io *io, void *ctx)
{
	uint8_t head[LUKS1_HEADER];

	luks1_build(l, head);
	return io(ctx, 0, head, sizeof(head), true);
}

/* ---- stripes ---- */

/* Each piece of the block becomes its hash, with its number. */
static void diffuse(int md, uint8_t *block, size_t len)
{
	size_t piece = crypt_hash_len(md);
	uint8_t out[CRYPT_MAX_HASH];
	uint32_t i = 0;

	for (size_t at = 0; at < len; at += piece, i++) {
		be32 number = be32_make(i);
		size_t n = min_u64(piece, len - at);

		crypt_hash_two(md, &number, sizeof(number), block + at, n, out);
		memcpy(block + at, out, n);
	}
	crypt_wipe(out, sizeof(out));
}

/* All stripes but the last one, folded. */
static void fold(int md, const uint8_t *stripes, uint32_t n, uint8_t *block, size_t len)
{
	memset(block, 0, len);
	for (uint32_t i = 0; i + 1 < n; i++) {
		for (size_t k = 0; k < len; k++)
			block[k] ^= stripes[i * len + k];
		diffuse(md, block, len);
	}
}

static void stripes_merge(int md, const uint8_t *stripes, uint32_t n,
			  struct crypt_key *key)
{
	const uint8_t *last = stripes + (size_t)(n - 1) * key->n;

	fold(md, stripes, n, key->b, key->n);
	for (size_t k = 0; k < key->n; k++)
		key->b[k] ^= last[k];
}

static int stripes_split(int md, uint8_t *stripes, uint32_t n,
			 const struct crypt_key *key)
{
	size_t before = (size_t)(n - 1) * key->n;
	uint8_t block[CRYPT_MAX_KEY];
	int rc = crypt_random(stripes, before);

	if (rc)
		return rc;
	fold(md, stripes, n, block, key->n);
	for (size_t k = 0; k < key->n; k++)
		stripes[before + k] = block[k] ^ key->b[k];
	crypt_wipe(block, sizeof(block));
	return 0;
}

/* ---- slots ---- */

static int digest_of(const struct luks1 *l, const struct crypt_key *key,
		     uint8_t out[LUKS1_DIGEST])
{
	return crypt_pbkdf2(l->md, key->b, key->n, l->salt, sizeof(l->salt), l->rounds,
			    out, LUKS1_DIGEST);
}

/* The cipher of a slot's material. */
static int slot_cipher(const struct luks1 *l, const struct luks1_slot *s,
		       const void *pass, size_t pass_len, struct crypt **out,
		       struct err *err)
{
	struct crypt_key key = {.n = l->key_bytes};
	int rc = crypt_pbkdf2(l->md, pass, pass_len, s->salt, sizeof(s->salt),
			      s->rounds, key.b, key.n);

	*out = NULL;
	if (rc)
		err_sys(err, -rc, "cannot make a key from the passphrase");
	else
		rc = crypt_new(l->cipher, l->mode, &key, out, err);
	crypt_key_wipe(&key);
	return rc;
}

int luks1_try_slot(const struct luks1 *l, unsigned i, luks1_io *io, void *ctx,
		   const void *pass, size_t pass_len, struct crypt_key *key)
{
	const struct luks1_slot *s = &l->slot[i];
	size_t len = material_len(l, s);
	uint8_t *m = mem_new(len, 1), digest[LUKS1_DIGEST];
	struct crypt *c = NULL;
	int rc = m ? io(ctx, s->off, m, len, false) : -ENOMEM;

	key->n = l->key_bytes;
	if (!rc)
		rc = slot_cipher(l, s, pass, pass_len, &c, NULL);
	if (!rc)
		rc = crypt_decrypt(c, 0, m, len);
	if (!rc) {
		stripes_merge(l->md, m, s->stripes, key);
		rc = digest_of(l, key, digest);
	}
	if (!rc && memcmp(digest, l->digest, sizeof(digest)))
		rc = -EKEYREJECTED;
	if (rc)
		crypt_key_wipe(key);
	crypt_free(c);
	if (m)
		crypt_wipe(m, len);
	free(m);
	return rc;
}

/* Rounds of the hash that a key of so many bytes takes. */
static uint64_t rounds_of(const struct luks1 *l, uint32_t rounds, size_t len)
{
	size_t piece = crypt_hash_len(l->md);

	return (uint64_t)rounds * ((len + piece - 1) / piece);
}

int luks1_unlock(const struct luks1 *l, luks1_io *io, void *ctx, const char *name,
		 const void *pass, size_t pass_len, uint64_t max_rounds,
		 struct crypt_key *key, unsigned *slot, struct err *err)
{
	unsigned active = 0;

	for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
		const struct luks1_slot *s = &l->slot[i];
		uint64_t n = rounds_of(l, s->rounds, l->key_bytes) +
			     rounds_of(l, l->rounds, LUKS1_DIGEST) +
			     rounds_of(l, s->stripes, l->key_bytes);
		int rc;

		if (!s->active)
			continue;
		active++;
		if (n > max_rounds)
			return err_set(err, EINVAL,
				       "'%s' is damaged, or made to stall: key slot %u "
				       "wants %u rounds, its digest %u",
				       name, i, s->rounds, l->rounds);
		max_rounds -= n;
		rc = luks1_try_slot(l, i, io, ctx, pass, pass_len, key);
		if (!rc && slot)
			*slot = i;
		if (!rc)
			return 0;
		if (rc != -EKEYREJECTED)
			return rc == -ENOTSUP || rc == -EINVAL
				       ? err_set(err, ENOTSUP,
						 "'%s': cipher '%s-%s' with a key of "
						 "%u bits is not known",
						 name, l->cipher, l->mode,
						 l->key_bytes * 8)
				       : err_sys(err, -rc,
						 "cannot read the keys of '%s'", name);
	}
	return err_set(err, EKEYREJECTED,
		       active ? "the passphrase does not open '%s'"
			      : "'%s' has no keys any more",
		       name);
}

/* ---- making ---- */

struct cipher_names {
	const char *qemu, *cipher;
	uint32_t key;
};

/* clang-format off */
static const struct cipher_names known[] = {
	{"aes-128", "aes", 16}, {"aes-192", "aes", 24}, {"aes-256", "aes", 32},
	{"cast5-128", "cast5", 16},
	{"serpent-128", "serpent", 16}, {"serpent-192", "serpent", 24}, {"serpent-256", "serpent", 32},
	{"twofish-128", "twofish", 16}, {"twofish-256", "twofish", 32},
};
/* clang-format on */

static void place_slots(struct luks1 *l)
{
	uint64_t off = AREA_ALIGN;

	for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
		l->slot[i] = (struct luks1_slot){.stripes = STRIPES, .off = off};
		off += align_up(material_len(l, &l->slot[i]), AREA_ALIGN);
	}
	l->data_off = off;
}

static int names_take(const struct luks1_options *o, struct luks1 *l, struct err *err)
{
	const char *want = o->cipher ? o->cipher : "aes-256";
	const char *mode = o->mode ? o->mode : "xts";
	const char *ivgen = o->ivgen ? o->ivgen : "plain64";
	const char *hash = o->hash ? o->hash : "sha256";
	const struct cipher_names *c = NULL;

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (!strcmp(known[i].qemu, want))
			c = &known[i];
	if (!c)
		return err_set(err, ENOTSUP, "cipher '%s' is not known", want);
	snprintf(l->cipher, sizeof(l->cipher), "%s", c->cipher);
	l->key_bytes = !strcmp(mode, "xts") ? 2 * c->key : c->key;
	if (!strcmp(ivgen, "essiv"))
		snprintf(l->mode, sizeof(l->mode), "%.8s-essiv:%.16s", mode,
			 o->ivgen_hash ? o->ivgen_hash : "sha256");
	else
		snprintf(l->mode, sizeof(l->mode), "%.8s-%.16s", mode, ivgen);
	snprintf(l->hash, sizeof(l->hash), "%.30s", hash);
	l->md = crypt_hash(hash);
	return l->md ? 0 : err_set(err, ENOTSUP, "hash '%s' is not known", hash);
}

static uint32_t rounds_for(const struct luks1 *l, size_t len, unsigned ms)
{
	uint64_t n = crypt_pbkdf2_rounds(l->md, len, ms);
	/* What is read here again must be within what is allowed, in each of the slots. */
	uint64_t most = LUKS1_MAX_ROUNDS / (LUKS1_SLOTS * 2) / rounds_of(l, 1, len);

	return (uint32_t)min_u64(max_u64(n, MIN_ROUNDS), most);
}

int luks1_make(const struct luks1_options *o, struct luks1 *l, struct crypt_key *key,
	       struct err *err)
{
	char text[GUID_TEXT];
	struct crypt *c;
	struct guid g;
	int rc;

	memset(l, 0, sizeof(*l));
	rc = names_take(o, l, err);
	if (rc)
		return rc;
	place_slots(l);
	key->n = l->key_bytes;
	rc = crypt_random(key->b, key->n);
	if (!rc)
		rc = crypt_random(l->salt, sizeof(l->salt));
	if (!rc)
		rc = guid_make(&g, true);
	if (rc)
		return err_sys(err, -rc, "no random numbers");
	guid_format(&g, true, text);
	snprintf(l->uuid, sizeof(l->uuid), "%.36s", text + 1); /* without the braces */
	rc = crypt_new(l->cipher, l->mode, key, &c, err);      /* do they fit? */
	crypt_free(c);
	if (rc)
		return rc;
	l->rounds = rounds_for(l, LUKS1_DIGEST, o->iter_ms / 8);
	rc = digest_of(l, key, l->digest);
	return rc ? err_sys(err, -rc, "cannot make the key's digest") : 0;
}

int luks1_add(struct luks1 *l, unsigned i, luks1_io *io, void *ctx,
	      const struct crypt_key *key, const void *pass, size_t pass_len,
	      unsigned iter_ms, struct err *err)
{
	struct luks1_slot *s = &l->slot[i];
	size_t len;
	uint8_t *m;
	struct crypt *c = NULL;
	int rc;

	s->stripes = STRIPES;
	len = material_len(l, s);
	s->rounds = rounds_for(l, l->key_bytes, iter_ms);
	m = mem_new(len, 1);
	rc = m ? crypt_random(s->salt, sizeof(s->salt)) : -ENOMEM;
	if (!rc)
		rc = stripes_split(l->md, m, s->stripes, key);
	if (!rc)
		rc = slot_cipher(l, s, pass, pass_len, &c, NULL);
	if (!rc)
		rc = crypt_encrypt(c, 0, m, len);
	if (!rc)
		rc = io(ctx, s->off, m, len, true);
	if (!rc) {
		s->active = true;
		rc = header_write(l, io, ctx);
	}
	crypt_free(c);
	if (m)
		crypt_wipe(m, len);
	free(m);
	return rc ? err_sys(err, -rc, "cannot write key slot %u", i) : 0;
}

int luks1_remove(struct luks1 *l, unsigned i, luks1_io *io, void *ctx, struct err *err)
{
	struct luks1_slot *s = &l->slot[i];
	size_t len = material_len(l, s);
	uint8_t *m = mem_new(len, 1);
	int rc = m ? crypt_random(m, len) : -ENOMEM;

	/* The header first: a slot that is called active must open. */
	if (!rc) {
		s->active = false;
		s->rounds = 0;
		memset(s->salt, 0, sizeof(s->salt));
		rc = header_write(l, io, ctx);
	}
	if (!rc)
		rc = io(ctx, s->off, m, len, true);
	free(m);
	return rc ? err_sys(err, -rc, "cannot remove key slot %u", i) : 0;
}

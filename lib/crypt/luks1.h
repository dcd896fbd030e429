/*
 * crypt/luks1.h - the LUKS header, version 1: a master key, kept in up to eight slots, each opened by its own
 * passphrase. Specification: LUKS On-Disk Format, version 1.2.3 (cryptsetup). Any thread, one header at a time.
 */
#ifndef CRYPT_LUKS1_H
#define CRYPT_LUKS1_H

#include "crypt/sector.h"

enum {
	LUKS1_SLOTS = 8,
	LUKS1_HEADER = 592, /* bytes */
	LUKS1_DIGEST = 20,
	LUKS1_SALT = 32,
	LUKS1_NAME = 32
};

/* The rounds of PBKDF2 that trying a passphrase on all of a header's slots may take. */
#define LUKS1_MAX_ROUNDS (1ull << 27)

struct luks1_slot {
	bool active;
	uint32_t rounds, stripes;
	uint64_t off; /* of the key material, in bytes from the header on */
	uint8_t salt[LUKS1_SALT];
};

/* A header, checked. Names end with a zero. */
struct luks1 {
	char cipher[LUKS1_NAME + 1], mode[LUKS1_NAME + 1], hash[LUKS1_NAME + 1];
	char uuid[41];
	int md; /* the hash, as crypt_hash() has it */
	uint64_t
		data_off; /* where what is encrypted begins, in bytes from the header on */
	uint32_t key_bytes; /* of the master key */
	uint32_t rounds;    /* of the master key's digest */
	uint8_t digest[LUKS1_DIGEST], salt[LUKS1_SALT];
	struct luks1_slot slot[LUKS1_SLOTS];
};

/* Reads (`write`: writes) bytes at `off` from the header on: 0 or -errno. */
typedef int luks1_io(void *ctx, uint64_t off, void *buf, size_t len, bool write);

/* Is it such a header (of any version: *version)? */
bool luks1_probe(const void *head, size_t len, unsigned *version);
/*
 * Checks the header at `head` (LUKS1_HEADER bytes); `area` is how many bytes there are from it on. `name` is
 * for messages. -EINVAL damaged, -ENOTSUP a version or a hash that is not known.
 */
int luks1_parse(const void *head, uint64_t area, const char *name, struct luks1 *l,
		struct err *err);
/* The header as it lies on the disk. */
void luks1_build(const struct luks1 *l, uint8_t head[LUKS1_HEADER]);

/*
 * Finds the master key with a passphrase; *slot (may be NULL) is which one it opens. At most `max_rounds` rounds are
 * done. -EKEYREJECTED: it opens none of them.
 */
int luks1_unlock(const struct luks1 *l, luks1_io *io, void *ctx, const char *name,
		 const void *pass, size_t pass_len, uint64_t max_rounds,
		 struct crypt_key *key, unsigned *slot, struct err *err);
/* Does the passphrase open this slot? 0, -EKEYREJECTED. */
int luks1_try_slot(const struct luks1 *l, unsigned i, luks1_io *io, void *ctx,
		   const void *pass, size_t pass_len, struct crypt_key *key);

struct luks1_options {
	const char *cipher;                    /* "aes-256"; NULL: that */
	const char *mode;                      /* "xts"; NULL: that */
	const char *ivgen, *ivgen_hash, *hash; /* NULL: plain64, sha256, sha256 */
	unsigned iter_ms;                      /* time that opening a slot is to take */
};

/* A new header without slots and a new master key. -EINVAL, -ENOTSUP. */
int luks1_make(const struct luks1_options *o, struct luks1 *l, struct crypt_key *key,
	       struct err *err);
/* Makes slot `i` one that `pass` opens: writes its key material, and then the header. */
int luks1_add(struct luks1 *l, unsigned i, luks1_io *io, void *ctx,
	      const struct crypt_key *key, const void *pass, size_t pass_len,
	      unsigned iter_ms, struct err *err);
/* Overwrites slot `i`'s key material, and writes the header without it. */
int luks1_remove(struct luks1 *l, unsigned i, luks1_io *io, void *ctx, struct err *err);

#endif

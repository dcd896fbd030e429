/*
 * crypt/sector.h - disk sectors of 512 bytes encrypted each by itself, as LUKS, dm-crypt and qcow do it: a block
 * cipher, a mode, and an initial vector made of the sector's number. The ciphers are libgcrypt's.
 */
#ifndef CRYPT_SECTOR_H
#define CRYPT_SECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define CRYPT_SECTOR  512
#define CRYPT_MAX_KEY 64

/* A key; crypt_key_wipe() when it is not needed any more. */
struct crypt_key {
	uint8_t b[CRYPT_MAX_KEY];
	size_t n;
};

void crypt_key_wipe(struct crypt_key *k);
/* Overwrites memory that held a secret, whatever the compiler thinks of it. */
void crypt_wipe(void *p, size_t n);
/* Random bytes from the kernel: 0 or -errno. */
int crypt_random(void *p, size_t n);

struct crypt;

/*
 * The cipher that dm-crypt calls "CIPHER-MODE" ("aes", "xts-plain64"; "cbc-essiv:sha256") with this key. Ciphers: aes,
 * serpent, twofish, cast5; modes: xts, cbc, ecb; vectors: plain, plain64, essiv:HASH. 0 and *out (crypt_free()),
 * -ENOTSUP with what is not known, -EINVAL a key of a wrong length.
 */
int crypt_new(const char *cipher, const char *mode, const struct crypt_key *key,
	      struct crypt **out, struct err *err);
/* Wipes the key and frees. NULL is fine. */
void crypt_free(struct crypt *c);
/* "aes-256", of a cipher's name and the length of its key in bytes for a mode: how QEMU calls it. */
void crypt_name(const char *cipher, const char *mode, size_t key_len, char out[32]);

/*
 * Encrypts or decrypts `len` bytes in place, that begin with sector number `sector`; the last one may be shorter (a
 * multiple of 16 bytes). 0 or -errno. Any thread, any number at once.
 */
int crypt_encrypt(struct crypt *c, uint64_t sector, void *buf, size_t len);
int crypt_decrypt(struct crypt *c, uint64_t sector, void *buf, size_t len);

/* ---- hashes ---- */

#define CRYPT_MAX_HASH 64

/* libgcrypt's number of a hash that LUKS headers name, 0: not known. */
int crypt_hash(const char *name);
size_t crypt_hash_len(int hash);
/* The hash of two pieces, one behind the other. */
void crypt_hash_two(int hash, const void *a, size_t a_len, const void *b, size_t b_len,
		    uint8_t out[CRYPT_MAX_HASH]);
/* PBKDF2: `out_len` bytes of key. 0 or -errno. */
int crypt_pbkdf2(int hash, const void *secret, size_t secret_len, const void *salt,
		 size_t salt_len, uint32_t rounds, void *out, size_t out_len);
/* How many rounds of it, for `out_len` bytes, this processor does in `ms` milliseconds. */
uint64_t crypt_pbkdf2_rounds(int hash, size_t out_len, unsigned ms);

#endif

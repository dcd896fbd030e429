/*
 * crypt/sector.c - sectors encrypted one by one, over libgcrypt. Specification: the names and vectors of Linux'
 * dm-crypt. Any thread: each call takes a handle of its own from a stock.
 */
#include "crypt/sector.h"

#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "base/time.h"

enum vector { VECTOR_NONE, VECTOR_PLAIN, VECTOR_PLAIN64, VECTOR_ESSIV };

/* A libgcrypt handle is one thread's at a time. */
struct handle {
	gcry_cipher_hd_t data, essiv;
	struct handle *next;
};

struct crypt {
	int algo, mode, essiv_algo;
	size_t block; /* bytes */
	enum vector vector;
	struct crypt_key key, essiv_key;
	pthread_mutex_t lock; /* leaf */
	struct handle *idle;
};

struct cipher {
	const char *name;
	size_t key; /* bytes */
	int algo;
};

/* clang-format off */
static const struct cipher ciphers[] = {
	{"aes", 16, GCRY_CIPHER_AES128},
	{"aes", 24, GCRY_CIPHER_AES192},
	{"aes", 32, GCRY_CIPHER_AES256},
	{"serpent", 16, GCRY_CIPHER_SERPENT128},
	{"serpent", 24, GCRY_CIPHER_SERPENT192},
	{"serpent", 32, GCRY_CIPHER_SERPENT256},
	{"twofish", 16, GCRY_CIPHER_TWOFISH128},
	{"twofish", 32, GCRY_CIPHER_TWOFISH},
	{"cast5", 16, GCRY_CIPHER_CAST5},
};

static const struct {
	const char *name;
	int algo;
} hashes[] = {
	{"sha1", GCRY_MD_SHA1},
	{"sha224", GCRY_MD_SHA224},
	{"sha256", GCRY_MD_SHA256},
	{"sha384", GCRY_MD_SHA384},
	{"sha512", GCRY_MD_SHA512},
	{"ripemd160", GCRY_MD_RMD160},
	{"whirlpool", GCRY_MD_WHIRLPOOL},
};
/* clang-format on */

/* ---- the library ---- */

static void library_start(void)
{
	/* A program that uses it, too, may have done so already. */
	if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
		return;
	gcry_check_version(NULL);
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

static void library(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, library_start);
}

static int library_error(gcry_error_t e)
{
	switch (gcry_err_code(e)) {
	case GPG_ERR_NO_ERROR: return 0;
	case GPG_ERR_ENOMEM: return -ENOMEM;
	case GPG_ERR_INV_KEYLEN: return -EINVAL;
	default: return -EIO;
	}
}

/* ---- secrets ---- */

void crypt_wipe(void *p, size_t n)
{
	explicit_bzero(p, n);
}

void crypt_key_wipe(struct crypt_key *k)
{
	crypt_wipe(k, sizeof(*k));
}

int crypt_random(void *p, size_t n)
{
	uint8_t *at = p;

	while (n) {
		ssize_t got = getrandom(at, n, 0);

		if (got < 0 && errno != EINTR)
			return -errno;
		if (got > 0) {
			at += got;
			n -= (size_t)got;
		}
	}
	return 0;
}

/* ---- hashes ---- */

int crypt_hash(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(hashes); i++)
		if (!strcmp(hashes[i].name, name))
			return hashes[i].algo;
	return 0;
}

size_t crypt_hash_len(int hash)
{
	return gcry_md_get_algo_dlen(hash);
}

void crypt_hash_two(int hash, const void *a, size_t a_len, const void *b, size_t b_len,
		    uint8_t out[CRYPT_MAX_HASH])
{
	gcry_buffer_t v[2] = {{.data = (void *)a, .len = a_len},
			      {.data = (void *)b, .len = b_len}};

	library();
	gcry_md_hash_buffers(hash, 0, out, v, 2);
}

int crypt_pbkdf2(int hash, const void *secret, size_t secret_len, const void *salt,
		 size_t salt_len, uint32_t rounds, void *out, size_t out_len)
{
	library();
	return library_error(gcry_kdf_derive(secret, secret_len, GCRY_KDF_PBKDF2, hash,
					     salt, salt_len, rounds, out_len, out));
}

uint64_t crypt_pbkdf2_rounds(int hash, size_t out_len, unsigned ms)
{
	static const char salt[32] = "0123456789abcdef0123456789abcde";
	uint8_t out[CRYPT_MAX_KEY];
	uint64_t ns = 0;
	uint32_t rounds = 1 << 10;

	/* Enough of them for a time that can be measured. */
	for (; rounds < 1u << 28; rounds *= 2) {
		uint64_t start = time_mono_ns();

		if (crypt_pbkdf2(hash, "speed", 5, salt, sizeof(salt), rounds, out,
				 min_u64(out_len, sizeof(out))))
			return 0;
		ns = time_mono_ns() - start;
		if (ns > 20000000 || ns / 1000000 >= ms)
			break;
	}
	return (uint64_t)((double)rounds * ms * 1e6 / (double)(ns ? ns : 1));
}

/* ---- making ---- */

static const struct cipher *cipher_find(const char *name, size_t key)
{
	for (size_t i = 0; i < ARRAY_LEN(ciphers); i++)
		if (!strcmp(ciphers[i].name, name) && ciphers[i].key == key)
			return &ciphers[i];
	return NULL;
}

void crypt_name(const char *cipher, const char *mode, size_t key_len, char out[32])
{
	size_t n = strncmp(mode, "xts", 3) ? key_len : key_len / 2;

	snprintf(out, 32, "%.20s-%zu", cipher, n * 8);
}

/* The vectors' own cipher: its key is the hash of the key. */
static int essiv_prepare(struct crypt *c, const char *cipher, const char *hash,
			 struct err *err)
{
	const struct cipher *found;
	int md = crypt_hash(hash);

	if (!md)
		return err_set(err, ENOTSUP, "hash '%s' is not known", hash);
	c->essiv_key.n = crypt_hash_len(md);
	found = cipher_find(cipher, c->essiv_key.n);
	if (!found)
		return err_set(err, ENOTSUP, "%s has no keys of %zu bits, as %s makes",
			       cipher, c->essiv_key.n * 8, hash);
	c->essiv_algo = found->algo;
	crypt_hash_two(md, c->key.b, c->key.n, NULL, 0, c->essiv_key.b);
	return 0;
}

static int mode_take(struct crypt *c, const char *cipher, const char *mode,
		     struct err *err)
{
	const char *dash = strchr(mode, '-'), *iv = dash ? dash + 1 : "";
	size_t n = dash ? (size_t)(dash - mode) : strlen(mode);

	if (n == 3 && !memcmp(mode, "xts", 3))
		c->mode = GCRY_CIPHER_MODE_XTS;
	else if (n == 3 && !memcmp(mode, "cbc", 3))
		c->mode = GCRY_CIPHER_MODE_CBC;
	else if (n == 3 && !memcmp(mode, "ecb", 3))
		c->mode = GCRY_CIPHER_MODE_ECB;
	else
		return err_set(err, ENOTSUP, "mode '%s' of encryption is not known",
			       mode);
	if (c->mode == GCRY_CIPHER_MODE_ECB)
		return 0;
	if (!strcmp(iv, "plain"))
		c->vector = VECTOR_PLAIN;
	else if (!strcmp(iv, "plain64"))
		c->vector = VECTOR_PLAIN64;
	else if (!strncmp(iv, "essiv:", 6))
		c->vector = VECTOR_ESSIV;
	else
		return err_set(err, ENOTSUP, "mode '%s' of encryption is not known",
			       mode);
	return c->vector == VECTOR_ESSIV ? essiv_prepare(c, cipher, iv + 6, err) : 0;
}

static void handle_free(struct handle *h)
{
	if (h->data)
		gcry_cipher_close(h->data);
	if (h->essiv)
		gcry_cipher_close(h->essiv);
	free(h);
}

static int handle_new(const struct crypt *c, struct handle **out)
{
	struct handle *h = NEW(struct handle);
	gcry_error_t e;

	if (!h)
		return -ENOMEM;
	e = gcry_cipher_open(&h->data, c->algo, c->mode, 0);
	if (!e)
		e = gcry_cipher_setkey(h->data, c->key.b, c->key.n);
	if (!e && c->vector == VECTOR_ESSIV)
		e = gcry_cipher_open(&h->essiv, c->essiv_algo, GCRY_CIPHER_MODE_ECB, 0);
	if (!e && h->essiv)
		e = gcry_cipher_setkey(h->essiv, c->essiv_key.b, c->essiv_key.n);
	/* A weak key is what the image was made with. */
	if (e && gcry_err_code(e) != GPG_ERR_WEAK_KEY) {
		handle_free(h);
		return library_error(e);
	}
	*out = h;
	return 0;
}

int crypt_new(const char *cipher, const char *mode, const struct crypt_key *key,
	      struct crypt **out, struct err *err)
{
	bool xts = !strncmp(mode, "xts-", 4);
	const struct cipher *found = cipher_find(cipher, xts ? key->n / 2 : key->n);
	struct crypt *c;
	int rc;

	library();
	*out = NULL;
	if (!found || (xts && key->n % 2))
		return err_set(err, ENOTSUP,
			       "cipher '%s' with a key of %zu bits is not known",
			       cipher, key->n * 8);
	c = NEW(struct crypt);
	if (!c)
		return err_set(err, ENOMEM, "no memory for a cipher");
	pthread_mutex_init(&c->lock, NULL);
	c->key = *key;
	c->algo = found->algo;
	c->block = gcry_cipher_get_algo_blklen(c->algo);
	rc = mode_take(c, cipher, mode, err);
	if (!rc && xts && c->block != 16)
		rc = err_set(err, ENOTSUP, "cipher '%s' has no mode xts", cipher);
	if (!rc && c->vector == VECTOR_ESSIV &&
	    gcry_cipher_get_algo_blklen(c->essiv_algo) != c->block)
		rc = err_set(err, ENOTSUP, "mode '%s' does not fit '%s'", mode, cipher);
	if (!rc && (rc = handle_new(c, &c->idle)))
		err_sys(err, -rc, "cipher '%s' with mode '%s' cannot be used", cipher,
			mode);
	if (rc) {
		crypt_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

void crypt_free(struct crypt *c)
{
	if (!c)
		return;
	while (c->idle) {
		struct handle *h = c->idle;

		c->idle = h->next;
		handle_free(h);
	}
	pthread_mutex_destroy(&c->lock);
	crypt_key_wipe(&c->key);
	crypt_key_wipe(&c->essiv_key);
	free(c);
}

/* ---- sectors ---- */

static int handle_take(struct crypt *c, struct handle **out)
{
	pthread_mutex_lock(&c->lock);
	*out = c->idle;
	if (c->idle)
		c->idle = c->idle->next;
	pthread_mutex_unlock(&c->lock);
	return *out ? 0 : handle_new(c, out);
}

static void handle_give(struct crypt *c, struct handle *h)
{
	pthread_mutex_lock(&c->lock);
	h->next = c->idle;
	c->idle = h;
	pthread_mutex_unlock(&c->lock);
}

/* Readies the handle for one sector. */
static gcry_error_t vector_set(const struct crypt *c, struct handle *h, uint64_t sector)
{
	uint8_t iv[16] = {0};
	le64 number = le64_make(c->vector == VECTOR_PLAIN ? (uint32_t)sector : sector);
	gcry_error_t e = 0;

	if (c->vector == VECTOR_NONE)
		return 0;
	memcpy(iv, &number, sizeof(number));
	if (c->vector == VECTOR_ESSIV)
		e = gcry_cipher_encrypt(h->essiv, iv, c->block, NULL, 0);
	return e ? e : gcry_cipher_setiv(h->data, iv, c->block);
}

static int run(struct crypt *c, bool encrypt, uint64_t sector, uint8_t *p, size_t len)
{
	struct handle *h;
	gcry_error_t e = 0;
	int rc;

	if (len % 16)
		return -EINVAL;
	rc = handle_take(c, &h);
	if (rc)
		return rc;
	for (; len && !e; sector++) {
		size_t n = min_u64(len, CRYPT_SECTOR);

		e = vector_set(c, h, sector);
		if (!e)
			e = encrypt ? gcry_cipher_encrypt(h->data, p, n, NULL, 0)
				    : gcry_cipher_decrypt(h->data, p, n, NULL, 0);
		p += n;
		len -= n;
	}
	handle_give(c, h);
	return library_error(e);
}

int crypt_encrypt(struct crypt *c, uint64_t sector, void *buf, size_t len)
{
	return run(c, true, sector, buf, len);
}

int crypt_decrypt(struct crypt *c, uint64_t sector, void *buf, size_t len)
{
	return run(c, false, sector, buf, len);
}

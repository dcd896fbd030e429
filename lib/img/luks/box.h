/*
 * img/luks/box.h - a LUKS header in an image's file, and what a passphrase gets out of it: what qcow2 and plain LUKS
 * images share. Options are named as QEMU names them, with a prefix ("encrypt." in qcow2). One thread.
 */
#ifndef IMG_LUKS_BOX_H
#define IMG_LUKS_BOX_H

#include "crypt/luks1.h"
#include "img/img_int.h"

struct luks_box {
	struct img_file *file; /* borrowed */
	uint64_t off;          /* of the header in it */
	const char *path;      /* borrowed; for messages */
	struct luks1 l;
	struct crypt_key key; /* the master key, once it is open */
	struct crypt *crypt;  /* owned; NULL: is not open */
};

/* Takes the header at [off, off + len) of the file. */
int luks_box_read(struct luks_box *b, struct img_file *file, uint64_t off, uint64_t len,
		  const char *path, struct err *err);
/* Opens it with opts->secret. -ENOKEY: there is none; -EKEYREJECTED: a wrong one. */
int luks_box_open(struct luks_box *b, const struct img_opts *opts, struct err *err);
/* Wipes and frees what it holds; of zeros, too. */
void luks_box_fini(struct luks_box *b);

/* qcow's old way, without a header: AES whose key is the passphrase's first 16 bytes. */
int qcow_aes_open(const struct img_opts *opts, const char *path, struct crypt **out,
		  struct err *err);

/*
 * A new one: its header's length is b->l.data_off then; luks_box_write() writes it to [off, ..) of the file, which
 * reads as zeros, or nothing, there.
 */
int luks_box_make(struct luks_box *b, const struct img_create_opts *o,
		  const char *prefix, struct err *err);
int luks_box_write(struct luks_box *b, struct img_file *file, uint64_t off,
		   const struct img_create_opts *o, const char *prefix,
		   struct err *err);
/* The passphrase that a new image gets, and its length. -ENOKEY: none was given. */
int luks_new_secret(const struct img_create_opts *o, const char *prefix,
		    const char **secret, size_t *len, struct err *err);
/* How long the header of such an image will be; bytes. */
int luks_box_measure(const struct img_create_opts *o, const char *prefix, uint64_t *len,
		     struct err *err);

/* Adds or removes keys, as QEMU's amend does: state, new-secret, old-secret, keyslot, iter-time. */
int luks_box_amend(struct luks_box *b, const struct img_option *o, unsigned n,
		   const char *prefix, struct err *err);

void luks_box_details(const struct luks_box *b, bool nested, struct details *d);

/* "'path' is encrypted: ..." */
int luks_need_key(const char *path, struct err *err);

/* Rows of a format's table of settings. */
/* clang-format off */
#define LUKS_OPTIONS(prefix) \
	{prefix "key-secret", OPTION_TEXT, NULL, NULL, "the passphrase, of --object secret"}, \
	{prefix "cipher-alg", OPTION_TEXT, "aes-128|aes-192|aes-256|cast5-128|serpent-128|serpent-192|serpent-256|twofish-128|twofish-256", "aes-256", "cipher and its key"}, \
	{prefix "cipher-mode", OPTION_TEXT, "xts|cbc|ecb", "xts", "of the cipher"}, \
	{prefix "ivgen-alg", OPTION_TEXT, "plain|plain64|essiv", "plain64", "what each sector's vector is made of"}, \
	{prefix "ivgen-hash-alg", OPTION_TEXT, "sha1|sha224|sha256|sha384|sha512|ripemd160", "sha256", "hash of essiv"}, \
	{prefix "hash-alg", OPTION_TEXT, "sha1|sha224|sha256|sha384|sha512|ripemd160", "sha256", "what the passphrase is hashed with"}, \
	{prefix "iter-time", OPTION_NUMBER, NULL, "2000", "milliseconds that opening takes"}, \
	{prefix "state", OPTION_TEXT, "active|inactive", NULL, "amend: of the keys that are meant"}, \
	{prefix "keyslot", OPTION_NUMBER, NULL, NULL, "amend: the key that is meant"}, \
	{prefix "new-secret", OPTION_TEXT, NULL, NULL, "amend: passphrase to add"}, \
	{prefix "old-secret", OPTION_TEXT, NULL, NULL, "amend: passphrase to remove"}
/* clang-format on */

#endif

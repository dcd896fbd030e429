/* img/luks/box.c - LUKS headers in images' files: opening, making and changing them. One thread. */
#include "img/luks/box.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum { ITER_MS = 2000, MAX_ITER_MS = 60000 };

static int box_io(void *ctx, uint64_t off, void *buf, size_t len, bool write)
{
	struct luks_box *b = ctx;

	return write ? file_write(b->file, buf, b->off + off, len)
		     : file_read(b->file, buf, b->off + off, len);
}

/* ---- opening ---- */

int luks_box_read(struct luks_box *b, struct img_file *file, uint64_t off, uint64_t len,
		  const char *path, struct err *err)
{
	uint8_t head[LUKS1_HEADER];
	int rc;

	*b = (struct luks_box){.file = file, .off = off, .path = path};
	if (len < sizeof(head) || !range_ok(off, len, file_size(file)))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a LUKS header of %llu bytes at %llu",
			       path, (unsigned long long)len, (unsigned long long)off);
	rc = file_read(file, head, off, sizeof(head));
	return rc ? err_sys(err, -rc, "cannot read '%s'", path)
		  : luks1_parse(head, len, path, &b->l, err);
}

int luks_need_key(const char *path, struct err *err)
{
	return err_set(err, ENOKEY,
		       "'%s' is encrypted: its passphrase is needed (key-file=FILE)",
		       path);
}

static int box_crypt(struct luks_box *b, struct err *err)
{
	int rc = crypt_new(b->l.cipher, b->l.mode, &b->key, &b->crypt, err);

	return rc ? err_prefix(err, "'%s'", b->path) : 0;
}

int luks_box_open(struct luks_box *b, const struct img_opts *opts, struct err *err)
{
	size_t len;
	int rc;

	if (!opts->secret)
		return luks_need_key(b->path, err);
	len = opts->secret_len ? opts->secret_len : strlen(opts->secret);
	rc = luks1_unlock(&b->l, box_io, b, b->path, opts->secret, len,
			  LUKS1_MAX_ROUNDS, &b->key, NULL, err);
	return rc ? rc : box_crypt(b, err);
}

int qcow_aes_open(const struct img_opts *opts, const char *path, struct crypt **out,
		  struct err *err)
{
	struct crypt_key key = {.n = 16};
	size_t len;
	int rc;

	if (!opts->secret)
		return luks_need_key(path, err);
	len = opts->secret_len ? opts->secret_len : strlen(opts->secret);
	memcpy(key.b, opts->secret, min_u64(len, key.n));
	rc = crypt_new("aes", "cbc-plain64", &key, out, err);
	crypt_key_wipe(&key);
	return rc;
}

void luks_box_fini(struct luks_box *b)
{
	crypt_free(b->crypt);
	crypt_key_wipe(&b->key);
	b->crypt = NULL;
}

/* ---- options ---- */

/* The value of option "PREFIXname", NULL if it was not given. */
static const char *text_of(const struct img_option *o, unsigned n, const char *prefix,
			   const char *name)
{
	char full[64];

	snprintf(full, sizeof(full), "%s%s", prefix, name);
	return img_option_text(o, n, full, NULL);
}

static unsigned iter_ms(const struct img_option *o, unsigned n, const char *prefix)
{
	char full[64];

	snprintf(full, sizeof(full), "%siter-time", prefix);
	return (unsigned)min_u64(img_option_number(o, n, full, ITER_MS), MAX_ITER_MS);
}

int luks_new_secret(const struct img_create_opts *o, const char *prefix,
		    const char **secret, size_t *len, struct err *err)
{
	const char *named = text_of(o->options, o->n_options, prefix, "key-secret");

	*secret = named ? named : o->secret;
	if (!*secret)
		return err_set(err, ENOKEY,
			       "an encrypted image needs a passphrase: give "
			       "%skey-secret",
			       prefix);
	*len = !named && o->secret_len ? o->secret_len : strlen(*secret);
	return 0;
}

/* ---- making ---- */

static struct luks1_options options_of(const struct img_create_opts *o,
				       const char *prefix)
{
	const struct img_option *v = o->options;
	unsigned n = o->n_options;

	return (struct luks1_options){
		.cipher = text_of(v, n, prefix, "cipher-alg"),
		.mode = text_of(v, n, prefix, "cipher-mode"),
		.ivgen = text_of(v, n, prefix, "ivgen-alg"),
		.ivgen_hash = text_of(v, n, prefix, "ivgen-hash-alg"),
		.hash = text_of(v, n, prefix, "hash-alg"),
		.iter_ms = iter_ms(v, n, prefix),
	};
}

int luks_box_make(struct luks_box *b, const struct img_create_opts *o,
		  const char *prefix, struct err *err)
{
	struct luks1_options lo = options_of(o, prefix);

	*b = (struct luks_box){0};
	return luks1_make(&lo, &b->l, &b->key, err);
}

int luks_box_write(struct luks_box *b, struct img_file *file, uint64_t off,
		   const struct img_create_opts *o, const char *prefix, struct err *err)
{
	const char *secret;
	size_t len;
	int rc = luks_new_secret(o, prefix, &secret, &len, err);

	b->file = file;
	b->off = off;
	b->path = "the new image";
	if (!rc)
		rc = luks1_add(&b->l, 0, box_io, b, &b->key, secret, len,
			       iter_ms(o->options, o->n_options, prefix), err);
	return rc ? rc : box_crypt(b, err);
}

int luks_box_measure(const struct img_create_opts *o, const char *prefix, uint64_t *len,
		     struct err *err)
{
	struct luks1_options lo = options_of(o, prefix);
	struct crypt_key key;
	struct luks1 l;
	int rc;

	lo.iter_ms = 0;
	rc = luks1_make(&lo, &l, &key, err);
	crypt_key_wipe(&key);
	*len = l.data_off;
	return rc;
}

/* ---- changing the keys ---- */

static unsigned count_active(const struct luks1 *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LUKS1_SLOTS; i++)
		n += l->slot[i].active;
	return n;
}

static int keys_add(struct luks_box *b, int slot, const char *secret, unsigned ms,
		    struct err *err)
{
	for (int i = 0; slot < 0 && i < LUKS1_SLOTS; i++)
		if (!b->l.slot[i].active)
			slot = i;
	if (slot < 0)
		return err_set(err, ENOSPC, "all %d key slots of '%s' are in use",
			       LUKS1_SLOTS, b->path);
	if (b->l.slot[slot].active)
		return err_set(err, EEXIST,
			       "key slot %d of '%s' is in use: remove its key first",
			       slot, b->path);
	return luks1_add(&b->l, (unsigned)slot, box_io, b, &b->key, secret,
			 strlen(secret), ms, err);
}

/* Marks the slots that a passphrase opens. */
static int keys_match(struct luks_box *b, const char *secret, bool match[LUKS1_SLOTS],
		      unsigned *n, struct err *err)
{
	struct crypt_key key;
	int rc = 0;

	*n = 0;
	for (unsigned i = 0; i < LUKS1_SLOTS && !rc; i++) {
		match[i] = false;
		if (!b->l.slot[i].active)
			continue;
		rc = luks1_try_slot(&b->l, i, box_io, b, secret, strlen(secret), &key);
		match[i] = !rc;
		*n += !rc;
		rc = rc == -EKEYREJECTED ? 0 : rc;
		crypt_key_wipe(&key);
	}
	return rc ? err_sys(err, -rc, "cannot read the keys of '%s'", b->path) : 0;
}

static int keys_remove(struct luks_box *b, int slot, const char *secret,
		       struct err *err)
{
	bool match[LUKS1_SLOTS] = {0};
	unsigned n = 1;
	int rc = 0;

	if (slot < 0 && !secret)
		return err_set(err, EINVAL, "which key? Give keyslot or old-secret");
	if (secret)
		rc = keys_match(b, secret, match, &n, err);
	else
		match[slot] = true;
	if (rc)
		return rc;
	if (secret && slot >= 0)
		for (int i = 0; i < LUKS1_SLOTS; i++)
			if (i != slot && match[i]) {
				match[i] = false;
				n--;
			}
	if (!n)
		return err_set(err, EKEYREJECTED, "no key of '%s' has this passphrase",
			       b->path);
	if (slot >= 0 && !b->l.slot[slot].active)
		return err_set(err, ENOENT, "key slot %d of '%s' is empty", slot,
			       b->path);
	if (n >= count_active(&b->l))
		return err_set(err, EPERM,
			       "without its last key '%s' could never be read again: "
			       "add another one first",
			       b->path);
	for (unsigned i = 0; i < LUKS1_SLOTS && !rc; i++)
		if (match[i])
			rc = luks1_remove(&b->l, i, box_io, b, err);
	return rc;
}

int luks_box_amend(struct luks_box *b, const struct img_option *o, unsigned n,
		   const char *prefix, struct err *err)
{
	const char *state = text_of(o, n, prefix, "state");
	const char *fresh = text_of(o, n, prefix, "new-secret");
	const char *old = text_of(o, n, prefix, "old-secret");
	const char *slot_text = text_of(o, n, prefix, "keyslot");
	bool on = state ? !strcmp(state, "active") : fresh && *fresh;
	long slot = slot_text ? strtol(slot_text, NULL, 10) : -1;
	int rc;

	if (slot_text && (slot < 0 || slot >= LUKS1_SLOTS))
		return err_set(err, EINVAL, "key slot %ld: there are 0 to %d", slot,
			       LUKS1_SLOTS - 1);
	if (!b->crypt)
		return luks_need_key(b->path, err);
	if (on && (!fresh || old))
		return err_set(err, EINVAL,
			       old ? "old-secret is for removing keys"
				   : "a new key needs new-secret");
	if (!on && fresh && *fresh)
		return err_set(err, EINVAL, "new-secret is for adding keys");
	rc = on ? keys_add(b, (int)slot, fresh, iter_ms(o, n, prefix), err)
		: keys_remove(b, (int)slot, old, err);
	if (!rc && (rc = file_sync(b->file)))
		err_sys(err, -rc, "cannot write '%s'", b->path);
	return rc;
}

/* ---- telling ---- */

static void slots_details(const struct luks1 *l, struct details *d)
{
	detail_begin(d, "slots", DETAIL_LIST);
	for (unsigned i = 0; i < LUKS1_SLOTS; i++) {
		const struct luks1_slot *s = &l->slot[i];

		detail_begin(d, NULL, DETAIL_GROUP);
		detail_bool(d, "active", s->active);
		if (s->active)
			detail_number(d, "iters", s->rounds);
		detail_number(d, "key-offset", s->off);
		if (s->active)
			detail_number(d, "stripes", s->stripes);
		detail_end(d);
	}
	detail_end(d);
}

void luks_box_details(const struct luks_box *b, bool nested, struct details *d)
{
	const struct luks1 *l = &b->l;
	const char *dash = strchr(l->mode, '-'), *iv = dash ? dash + 1 : "";
	size_t mode = dash ? (size_t)(dash - l->mode) : strlen(l->mode);
	const char *colon = strchr(iv, ':');
	char name[32];

	crypt_name(l->cipher, l->mode, l->key_bytes, name);
	if (*iv)
		detail_text(d, "ivgen-alg", "%.*s",
			    (int)(colon ? (size_t)(colon - iv) : strlen(iv)), iv);
	if (colon)
		detail_text(d, "ivgen-hash-alg", "%s", colon + 1);
	detail_text(d, "hash-alg", "%s", l->hash);
	detail_text(d, "cipher-alg", "%s", name);
	detail_text(d, "uuid", "%s", l->uuid);
	if (nested)
		detail_text(d, "format", "luks");
	detail_text(d, "cipher-mode", "%.*s", (int)mode, l->mode);
	slots_details(l, d);
	detail_number(d, "payload-offset", l->data_off);
	detail_number(d, "master-key-iters", l->rounds);
}

/*
 * img/qcow2/crypt.c - encryption of qcow2 images: LUKS, whose header is in clusters of the image (sectors are counted
 * by their place in the file), and qcow's own AES (by their place on the disk). One thread.
 */
#include <string.h>

#include "base/bits.h"
#include "img/qcow2/qcow2_int.h"

#define PREFIX "encrypt."

/* ---- opening ---- */

static int luks_open(struct qcow2 *q, struct err *err)
{
	if (!q->crypto_len || q->crypto_off & (q->cluster_size - 1))
		return err_set(err, EINVAL,
			       "'%s' is damaged: it has a LUKS header of %llu bytes at "
			       "%llu",
			       q->img->path, (unsigned long long)q->crypto_len,
			       (unsigned long long)q->crypto_off);
	return luks_box_read(&q->luks, q->file, q->crypto_off, q->crypto_len,
			     q->img->path, err);
}

int qcow2_crypt_open(struct qcow2 *q, struct err *err)
{
	const struct img_opts *o = &q->img->opts;
	/* Tables are not encrypted: they can be looked at, and repaired. */
	bool outside =
		!o->secret && (o->repair || (q->img->read_only && o->no_backing));
	int rc = 0;

	if (q->crypt > CRYPT_LUKS)
		return err_set(err, ENOTSUP,
			       "'%s' is encrypted by method %u: known "
			       "are 1 (AES) and 2 (LUKS)",
			       q->img->path, q->crypt);
	if (q->crypt == CRYPT_LUKS) {
		rc = luks_open(q, err);
		if (!rc && !outside)
			rc = luks_box_open(&q->luks, o, err);
		q->cipher = q->luks.crypt;
	} else if (q->crypt == CRYPT_AES && !outside) {
		rc = qcow_aes_open(o, q->img->path, &q->aes, err);
		q->cipher = q->aes;
	}
	q->img->sealed = q->cipher;
	return rc;
}

void qcow2_crypt_close(struct qcow2 *q)
{
	luks_box_fini(&q->luks);
	crypt_free(q->aes);
	q->aes = q->cipher = NULL;
}

uint64_t qcow2_crypt_off(const struct qcow2 *q, uint64_t off, uint64_t file_off)
{
	return q->crypt == CRYPT_AES ? off : file_off;
}

/* ---- making ---- */

/* CRYPT_..., of the options. */
static uint32_t method_of(const struct img_create_opts *o)
{
	const char *how =
		img_option_text(o->options, o->n_options, PREFIX "format", NULL);

	if (how)
		return !strcmp(how, "luks") ? CRYPT_LUKS : CRYPT_AES;
	return img_option_bool(o->options, o->n_options, "encryption", false)
		       ? CRYPT_AES
		       : CRYPT_NONE;
}

bool qcow2_crypt_wanted(const struct img_create_opts *o)
{
	return method_of(o) != CRYPT_NONE;
}

int qcow2_crypt_plan(const struct img_create_opts *o, struct crypt_plan *p,
		     struct err *err)
{
	const char *secret;
	size_t len;
	int rc;

	*p = (struct crypt_plan){.method = method_of(o)};
	for (unsigned i = 0; !p->method && i < o->n_options; i++)
		if (!strncmp(o->options[i].name, PREFIX, sizeof(PREFIX) - 1))
			return err_set(err, EINVAL,
				       "'%s' is nothing without " PREFIX "format",
				       o->options[i].name);
	if (!p->method)
		return 0;
	rc = luks_new_secret(o, PREFIX, &secret, &len, err);
	if (rc || p->method != CRYPT_LUKS)
		return rc;
	rc = luks_box_make(&p->luks, o, PREFIX, err);
	p->len = p->luks.l.data_off;
	return rc;
}

int qcow2_crypt_measure(const struct img_create_opts *o, uint64_t *len, struct err *err)
{
	*len = 0;
	return method_of(o) == CRYPT_LUKS ? luks_box_measure(o, PREFIX, len, err) : 0;
}

/* ---- telling ---- */

void qcow2_crypt_details(const struct qcow2 *q, struct details *d)
{
	if (!q->crypt)
		return;
	detail_begin(d, "encrypt", DETAIL_GROUP);
	if (q->crypt == CRYPT_LUKS)
		luks_box_details(&q->luks, true, d);
	else
		detail_text(d, "format", "aes");
	detail_end(d);
}

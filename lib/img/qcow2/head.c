/*
 * img/qcow2/head.c - changes of a qcow2 image's first cluster: header, extensions, the backing file's name. What is not
 * known here is kept. One thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"

void head_fini(struct head *h)
{
	str_fini(&h->raw);
	for (size_t i = 0; i < h->n_ext; i++)
		free(h->ext[i].data);
	free(h->ext);
	free(h->backing);
	*h = (struct head){0};
}

static struct head_ext *ext_find(struct head *h, uint32_t type)
{
	for (size_t i = 0; i < h->n_ext; i++)
		if (h->ext[i].type == type)
			return &h->ext[i];
	return NULL;
}

int head_set_ext(struct head *h, uint32_t type, const void *data, uint32_t len)
{
	struct head_ext *e = ext_find(h, type), *v;
	uint8_t *copy;

	if (!data) {
		if (e) {
			free(e->data);
			*e = h->ext[--h->n_ext];
		}
		return 0;
	}
	copy = malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, data, len);
	if (!e) {
		v = mem_resize(h->ext, h->n_ext + 1, sizeof(*v));
		if (!v) {
			free(copy);
			return -ENOMEM;
		}
		h->ext = v;
		e = &v[h->n_ext++];
		*e = (struct head_ext){.type = type};
	}
	free(e->data);
	e->data = copy;
	e->len = len;
	return 0;
}

/* Takes the cluster's content apart. */
static int head_parse(struct head *h, const uint8_t *p, uint64_t size)
{
	const struct qcow2_header *d = (const void *)p;
	uint64_t len = QCOW2_V2_LEN, at, end, back = be64_get(d->backing_off);
	uint32_t back_len = be32_get(d->backing_len);
	int rc = 0;

	if (be32_get(d->version) >= 3)
		len = be32_get(d->header_len);
	if (len < QCOW2_V2_LEN || len > size)
		return -EINVAL;
	str_add(&h->raw, p, len);
	if (len < sizeof(*d))
		str_add(&h->raw, NULL, sizeof(*d) - len);
	if (h->raw.failed)
		return -ENOMEM;
	h->h = (struct qcow2_header *)h->raw.p;
	h->raw.len = len;
	end = h->used = len;
	if (back && back_len) {
		if (!range_ok(back, back_len, size))
			return -EINVAL;
		h->backing = strndup((const char *)p + back, back_len);
		if (!h->backing)
			return -ENOMEM;
		h->used = back + back_len;
		end = back;
	} else {
		end = size;
	}
	for (at = len; !rc && range_ok(at, 8, end);) {
		uint32_t type = be32_get(*(const be32 *)(p + at));
		uint32_t n = be32_get(*(const be32 *)(p + at + 4));

		h->used = max_u64(h->used, at + 8);
		if (type == EXT_END)
			break;
		if (!range_ok(at + 8, n, end))
			return -EINVAL;
		rc = head_set_ext(h, type, p + at + 8, n);
		at += 8 + align_up(n, 8);
		h->used = max_u64(h->used, at);
	}
	return rc;
}

int head_load(struct qcow2 *q, struct head *h, struct err *err)
{
	uint8_t *p = mem_new(q->cluster_size, 1);
	int rc = p ? file_read(q->file, p, 0, q->cluster_size) : -ENOMEM;

	*h = (struct head){0};
	if (!rc)
		rc = head_parse(h, p, q->cluster_size);
	free(p);
	if (!rc)
		return 0;
	head_fini(h);
	return err_sys(err, -rc, "cannot read the header of '%s'", q->img->path);
}

int head_upgrade(struct head *h)
{
	uint64_t len = sizeof(struct qcow2_header);

	if (be32_get(h->h->version) >= 3)
		return 0;
	memset((uint8_t *)h->raw.p + QCOW2_V2_LEN, 0, len - QCOW2_V2_LEN);
	h->raw.len = len;
	h->h->version = be32_make(3);
	h->h->refcount_order = be32_make(4);
	h->h->header_len = be32_make((uint32_t)len);
	return 0;
}

void head_downgrade(struct head *h)
{
	h->h->version = be32_make(2);
	h->raw.len = QCOW2_V2_LEN;
	head_set_ext(h, EXT_FEATURE_NAMES, NULL, 0);
}

static void add_u32(struct str *s, uint32_t v)
{
	be32 b = be32_make(v);

	str_add(s, &b, sizeof(b));
}

static void head_build(struct head *h, struct str *out)
{
	uint64_t name = 0;

	str_add(out, h->raw.p, h->raw.len);
	for (size_t i = 0; i < h->n_ext; i++) {
		add_u32(out, h->ext[i].type);
		add_u32(out, h->ext[i].len);
		str_add(out, h->ext[i].data, h->ext[i].len);
		str_add(out, NULL, align_up(h->ext[i].len, 8) - h->ext[i].len);
	}
	str_add(out, NULL, 8); /* EXT_END */
	if (h->backing)
		name = str_add(out, h->backing, strlen(h->backing));
	if (!out->failed) {
		struct qcow2_header *d = (struct qcow2_header *)out->p;

		d->backing_off = be64_make(name);
		d->backing_len =
			be32_make(h->backing ? (uint32_t)strlen(h->backing) : 0);
	}
}

int head_write(struct qcow2 *q, struct head *h, struct err *err)
{
	struct str out = {0};
	int rc;

	head_build(h, &out);
	if (!out.failed && out.len < h->used)
		str_add(&out, NULL, h->used - out.len);
	if (out.failed)
		rc = err_set(err, ENOMEM, "no memory for the header of '%s'",
			     q->img->path);
	else if (out.len > q->cluster_size)
		rc = err_set(
			err, ENAMETOOLONG,
			"the header of '%s' would not fit in a cluster of %u bytes",
			q->img->path, q->cluster_size);
	else if ((rc = file_sync(q->file)) ||
		 (rc = file_write(q->file, out.p, 0, out.len)) ||
		 (rc = file_sync(q->file)))
		rc = err_sys(err, -rc, "cannot write the header of '%s'", q->img->path);
	str_fini(&out);
	return rc;
}

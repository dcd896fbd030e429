/*
 * img/qcow2/qcow2.c - the qcow2 format, versions 2 and 3: its header, opening and closing.
 * Specification: docs/interop/qcow2.txt of QEMU. Opening and closing: one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"

enum { MIN_CLUSTER_BITS = 9, MAX_CLUSTER_BITS = 21, MAX_NAME = 1023 };
#define MAX_SNAPSHOTS 65536

/* An entry of the feature name table: kind (0 incompatible), bit, name. */
enum { FEATURE_LEN = 48, FEATURE_NAME = 46 };

static bool qcow2_probe(const struct img_probe *p)
{
	const struct qcow2_header *h = (const void *)p->head;
	uint32_t version;

	if (p->head_len < QCOW2_V2_LEN || be32_get(h->magic) != QCOW2_MAGIC)
		return false;
	version = be32_get(h->version);
	return version == 2 || version == 3;
}

/* ---- header ---- */

/* Checks what can be checked without looking at other values, and takes it over. */
static int header_geometry(struct qcow2 *q, const struct qcow2_header *h,
			   uint64_t header_len, struct err *err)
{
	const char *path = q->img->path;
	bool ext = q->incompatible & INC_EXTENDED_L2;

	q->cluster_bits = be32_get(h->cluster_bits);
	if (q->cluster_bits < MIN_CLUSTER_BITS || q->cluster_bits > MAX_CLUSTER_BITS)
		return err_set(err, EINVAL,
			       "'%s' is damaged: clusters of 2^%u bytes, 2^9 to 2^21 "
			       "are possible",
			       path, q->cluster_bits);
	q->cluster_size = 1u << q->cluster_bits;
	if (header_len > q->cluster_size)
		return err_set(err, EINVAL, "'%s' is damaged: header of %llu bytes",
			       path, (unsigned long long)header_len);
	if (ext && q->cluster_bits < 14)
		return err_set(err, EINVAL,
			       "'%s' is damaged: subclusters in clusters of %u bytes",
			       path, q->cluster_size);
	if (q->rc_order > 6)
		return err_set(err, EINVAL,
			       "'%s' is damaged: reference counts of 2^%u bits", path,
			       q->rc_order);
	q->l2e_size = ext ? 16 : 8;
	q->l2_bits = q->cluster_bits - (ext ? 4 : 3);
	q->n_subs = ext ? SUBCLUSTERS : 1;
	q->sub_bits = q->cluster_bits - (ext ? 5 : 0);
	q->slice_size = (uint32_t)min_u64(q->cluster_size, 4096);
	q->rb_bits = q->cluster_bits + 3 - q->rc_order;
	return 0;
}

/* The feature's name from the image, or its number. */
static void feature_name(const uint8_t *p, uint64_t len, unsigned bit, char out[64])
{
	snprintf(out, 64, "feature %u", bit);
	for (; p && len >= FEATURE_LEN; p += FEATURE_LEN, len -= FEATURE_LEN)
		if (p[0] == 0 && p[1] == bit)
			snprintf(out, 64, "'%.*s'", FEATURE_NAME, (const char *)p + 2);
}

static int header_features(struct qcow2 *q, const struct qcow2_header *h,
			   struct err *err)
{
	const char *path = q->img->path;

	q->crypt = be32_get(h->crypt_method);
	q->codec = &codec_block_deflate;
	if (q->incompatible & INC_COMPRESSION) {
		if (h->compression > 1)
			return err_set(err, ENOTSUP,
				       "'%s' uses compression method %u, known are 0 "
				       "(zlib) and 1 (zstd)",
				       path, h->compression);
		q->codec = h->compression ? &codec_block_zstd : &codec_block_deflate;
	}
	if (q->img->read_only || q->img->opts.repair)
		return 0;
	if (q->incompatible & INC_CORRUPT)
		return err_set(
			err, EROFS,
			"'%s' is marked corrupt: open it read-only, or repair it "
			"with 'vm-img repair' first",
			path);
	return 0;
}

/* Was it not closed properly, so that its reference counts are out of date? Then they are made anew for writing. */
static bool counts_stale(const struct qcow2 *q)
{
	return !q->img->read_only && !q->img->opts.repair &&
	       q->incompatible & INC_DIRTY;
}

/* What QEMU with lazy reference counts leaves when it is killed. The new counts come into force at once, as with
 * any repair, and are in memory then. */
static int counts_renew(struct qcow2 *q, struct err *err)
{
	struct img_check c = {.fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS};
	int rc = qcow2_check(q->img, &c, err);

	if (rc)
		return rc;
	if (c.check_errors || c.corruptions > c.corruptions_fixed)
		return err_set(
			err, EROFS,
			"'%s' was not closed properly, and of %llu errors only %llu "
			"could be repaired: open it read-only",
			q->img->path,
			(unsigned long long)(c.corruptions + c.check_errors),
			(unsigned long long)c.corruptions_fixed);
	return 0;
}

static char *text_dup(const uint8_t *p, uint64_t len)
{
	return strndup((const char *)p, len);
}

/* The extensions between the header and the backing file's name. */
static int header_extensions(struct qcow2 *q, const uint8_t *head, uint64_t at,
			     uint64_t end, struct err *err)
{
	uint64_t unknown = q->incompatible & ~INC_KNOWN, features_len = 0;
	const uint8_t *features = NULL;
	char name[64];

	while (range_ok(at, 8, end)) {
		uint32_t type = be32_get(*(const be32 *)(head + at));
		uint32_t len = be32_get(*(const be32 *)(head + at + 4));
		const uint8_t *p = head + at + 8;

		if (type == EXT_END)
			break;
		if (!range_ok(at + 8, len, end))
			return err_set(err, EINVAL,
				       "'%s' is damaged: a header extension has %u "
				       "bytes",
				       q->img->path, len);
		if (type == EXT_FEATURE_NAMES) {
			features = p;
			features_len = len;
		} else if (type == EXT_BACKING_FORMAT && !q->img->backing_format) {
			q->img->backing_format = text_dup(p, len);
		} else if (type == EXT_DATA_FILE && !q->data_name) {
			q->data_name = text_dup(p, len);
		} else if (type == EXT_CRYPTO && len == 16) {
			q->crypto_off = be64_at(p);
			q->crypto_len = be64_at(p + 8);
		} else if (type == EXT_BITMAPS && len == 24 &&
			   q->autoclear & AUTO_BITMAPS) {
			q->bm_n = be32_get(*(const be32 *)p);
			q->bm_bytes = be64_at(p + 8);
			q->bm_off = be64_at(p + 16);
		}
		at += 8 + align_up(len, 8);
	}
	if (!unknown)
		return 0;
	feature_name(features, features_len, (unsigned)__builtin_ctzll(unknown), name);
	return err_set(err, ENOTSUP, "'%s' needs %s, which is not supported",
		       q->img->path, name);
}

static int header_backing(struct qcow2 *q, const struct qcow2_header *h,
			  const uint8_t *head, struct err *err)
{
	uint64_t off = be64_get(h->backing_off);
	uint32_t len = be32_get(h->backing_len);

	if (!off || !len)
		return 0;
	if (len > MAX_NAME || !range_ok(off, len, q->cluster_size))
		return err_set(err, EINVAL,
			       "'%s' is damaged: the backing file's name has %u bytes "
			       "at %llu",
			       q->img->path, len, (unsigned long long)off);
	q->img->backing_path = text_dup(head + off, len);
	q->img->has_backing = true;
	return q->img->backing_path ? 0 : err_set(err, ENOMEM, "no memory");
}

/* Everything that is in the first cluster. */
static int header_read(struct qcow2 *q, struct qcow2_header *h, struct err *err)
{
	uint64_t header_len = QCOW2_V2_LEN, backing;
	uint8_t *head = NULL;
	int rc;

	memset(h, 0, sizeof(*h));
	rc = file_read(q->file, h, 0, sizeof(*h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", q->img->path);
	if (!qcow2_probe(
		    &(struct img_probe){.head = (void *)h, .head_len = sizeof(*h)}))
		return err_set(err, EINVAL, "'%s' is not a qcow2 image", q->img->path);
	q->version = be32_get(h->version);
	q->rc_order = 4;
	if (q->version >= 3) {
		header_len = be32_get(h->header_len);
		if (header_len < QCOW2_V3_LEN)
			return err_set(err, EINVAL,
				       "'%s' is damaged: header of %llu bytes",
				       q->img->path, (unsigned long long)header_len);
		q->incompatible = be64_get(h->incompatible);
		q->compatible = be64_get(h->compatible);
		q->autoclear = be64_get(h->autoclear);
		q->rc_order = be32_get(h->refcount_order);
		if (header_len <= QCOW2_V3_LEN)
			h->compression = 0;
	}
	rc = header_geometry(q, h, header_len, err);
	if (rc)
		return rc;
	head = mem_new(q->cluster_size, 1);
	if (!head)
		return err_set(err, ENOMEM, "no memory to open '%s'", q->img->path);
	rc = file_read(q->file, head, 0, q->cluster_size);
	backing = be64_get(h->backing_off);
	if (rc)
		err_sys(err, -rc, "cannot read '%s'", q->img->path);
	rc = rc ? rc : header_backing(q, h, head, err);
	rc = rc ? rc
		: header_extensions(q, head, header_len,
				    q->img->has_backing ? backing : q->cluster_size,
				    err);
	rc = rc ? rc : header_features(q, h, err);
	free(head);
	return rc;
}

/* ---- tables ---- */

static int table_load(struct qcow2 *q, struct table *t, const char *what, uint64_t off,
		      uint64_t n, struct err *err)
{
	int rc;

	if (off & (q->cluster_size - 1) || (n && !off))
		return err_set(err, EINVAL, "'%s' is damaged: the %s begins at %llu",
			       q->img->path, what, (unsigned long long)off);
	t->off = off;
	t->n = n;
	t->e = mem_new(n + 1, 8);
	t->dirty = mem_new(n / TABLE_PIECE + 1, 1);
	if (!t->e || !t->dirty)
		return err_set(err, ENOMEM, "no memory for the %s of '%s'", what,
			       q->img->path);
	/* What is behind the end of the file is zeros, and zeros are there already. */
	if (off >= file_size(q->file))
		return 0;
	rc = file_read(q->file, t->e, off, min_u64(n * 8, file_size(q->file) - off));
	return rc ? err_sys(err, -rc, "cannot read '%s'", q->img->path) : 0;
}

static int tables_load(struct qcow2 *q, const struct qcow2_header *h, struct err *err)
{
	const char *path = q->img->path;
	unsigned l1_span = q->cluster_bits + q->l2_bits;
	uint64_t l1_n = be32_get(h->l1_size), rt_n, size = be64_get(h->size);
	int rc;

	q->rt_clusters = be32_get(h->rt_clusters);
	rt_n = ((uint64_t)q->rt_clusters << q->cluster_bits) / 8;
	if (l1_n * 8 > MAX_L1_BYTES || size > INT64_MAX / 2 ||
	    (size + BIT(l1_span) - 1) >> l1_span > l1_n)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu bytes in an L1 table of %llu "
			       "entries",
			       path, (unsigned long long)size,
			       (unsigned long long)l1_n);
	if (rt_n * 8 > MAX_RT_BYTES ||
	    (!rt_n && !q->img->read_only && !q->img->opts.repair))
		return err_set(err, EINVAL,
			       "'%s' is damaged: reference count table of %u clusters",
			       path, q->rt_clusters);
	q->n_snapshots = be32_get(h->n_snapshots);
	q->snapshots_off = be64_get(h->snapshots_off);
	if (q->n_snapshots > MAX_SNAPSHOTS)
		return err_set(err, EINVAL, "'%s' is damaged: %u snapshots", path,
			       q->n_snapshots);
	rc = table_load(q, &q->l1, "L1 table", be64_get(h->l1_off), l1_n, err);
	q->rt.off = be64_get(h->rt_off);
	if (!rc && !q->img->read_only && !q->img->opts.repair && !counts_stale(q))
		rc = table_load(q, &q->rt, "reference count table", be64_get(h->rt_off),
				rt_n, err);
	q->img->size = size;
	return rc;
}

/* ---- external data file ---- */

static int data_open(struct qcow2 *q, struct err *err)
{
	struct img *img = q->img;

	q->external = true;
	q->data = NULL;
	if (!q->data_name)
		return err_set(err, ENOTSUP, "'%s' does not say which its data file is",
			       img->path);
	if (img->opts.no_backing) {
		if (img->read_only)
			return 0; /* reads say so */
		return err_set(err, ENOTSUP,
			       "'%s' has a data file, which is not to be opened",
			       img->path);
	}
	return img_open_extern(img, q->data_name, "data file", &q->data, err);
}

/* ---- operations ---- */

static int qcow2_open(struct img *img, struct err *err)
{
	struct qcow2 *q = NEW(struct qcow2);
	struct qcow2_header h;
	int rc;

	if (!q)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = q;
	q->img = img;
	q->file = q->data = img->file;
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->flush_lock, NULL);
	rc = header_read(q, &h, err);
	if (!rc)
		rc = tables_load(q, &h, err);
	if (!rc)
		rc = qcow2_crypt_open(q, err);
	if (!rc && q->incompatible & INC_DATA_FILE)
		rc = data_open(q, err);
	if (rc)
		return rc;
	q->virgin = (file_size(q->file) + q->cluster_size - 1) >> q->cluster_bits;
	img->unit = q->cluster_size;
	img->zero_unit = 1u << q->sub_bits;
	return counts_stale(q) ? counts_renew(q, err) : 0;
}

static int qcow2_flush(struct img *img)
{
	return meta_flush(img->priv, true);
}

static int qcow2_close(struct img *img)
{
	struct qcow2 *q = img->priv;
	int rc = 0;

	if (img->target && img->target->stream)
		return qcow2_stream_close(img);
	if (!q)
		return 0;
	/* The second one is for what the first one allowed to be given back. */
	if (img->writing && !img->discard_all) {
		rc = meta_flush(q, true);
		if (!rc)
			rc = meta_flush(q, true);
	}
	meta_fini(q);
	qcow2_crypt_close(q);
	free(q->data_name);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->flush_lock);
	free(q);
	img->priv = NULL;
	return rc;
}

/*
 * Features that we do not keep up to date are not valid from here on. Bitmaps that follow what is written are marked
 * as not closed properly, for good; disabled ones stay as they are. Bitmaps that cannot be read are dropped.
 */
int qcow2_begin_write(struct img *img)
{
	struct qcow2 *q = img->priv;
	uint64_t keep = q->autoclear & (q->external ? AUTO_RAW_DATA : 0);
	be64 v;
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	if (q->bm_n && !bitmaps_in_use(q))
		keep |= AUTO_BITMAPS;
	else
		q->bm_n = 0;
	v = be64_make(keep);
	if (keep != q->autoclear)
		rc = file_write(q->file, &v, offsetof(struct qcow2_header, autoclear),
				sizeof(v));
	if (!rc && keep != q->autoclear)
		rc = file_sync(q->file);
	if (!rc)
		q->autoclear = keep;
	if (!rc)
		rc = own_build(q);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

static void qcow2_info(struct img *img, struct img_info *info)
{
	const struct qcow2 *q = img->priv;

	info->data_path = q->data_name;
	info->compression = q->codec->name;
	info->version = q->version;
	info->refcount_bits = 1u << q->rc_order;
	info->snapshots = q->n_snapshots;
	info->extended_l2 = q->incompatible & INC_EXTENDED_L2;
	info->lazy_refcounts = q->compatible & COM_LAZY;
	info->dirty = q->incompatible & INC_DIRTY;
	info->corrupt = q->incompatible & INC_CORRUPT;
	info->encrypted = q->crypt != 0;
	info->has_bitmaps = q->autoclear & AUTO_BITMAPS;
}

const struct img_format img_qcow2 = {
	.name = "qcow2",
	.title = "QEMU copy-on-write, versions 2 and 3",
	.backing = true,
	.options = qcow2_options,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.map = qcow2_map,
	.info = qcow2_info,
	.begin_write = qcow2_begin_write,
	.alloc = qcow2_alloc,
	.link = qcow2_link,
	.unalloc = qcow2_unalloc,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.flush = qcow2_flush,
	.packer = qcow2_packer,
	.write_packed = qcow2_write_packed,
	.details = qcow2_details,
	.measure = qcow2_measure,
	.stream_begin = qcow2_stream_begin,
	.stream_second = qcow2_stream_second,
	.write_unit = qcow2_stream_write,
	.create = qcow2_create,
	.check = qcow2_check,
	.can_fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS,
	.can_undo = true,
	.resize = qcow2_resize,
	.amend = qcow2_amend,
	.set_backing = qcow2_set_backing,
	.make_empty = qcow2_make_empty,
	.bitmap = qcow2_bitmap,
	.bitmaps_copy = qcow2_bitmaps_copy,
	.snapshots = &qcow2_snapshot_ops,
};

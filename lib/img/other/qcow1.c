/*
 * img/other/qcow1.c - QEMU's first qcow format, to be read and checked: two levels of tables of 64-bit big-endian offsets,
 * clusters plain or deflated. Opening and closing: one thread; mapping: any.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/img_int.h"
#include "img/luks/box.h"
#include "img/meta.h"

struct qcow1_header {
	char magic[4]; /* "QFI", 0xfb */
	be32 version;
	be64 backing_off;
	be32 backing_len, mtime;
	be64 size;
	uint8_t cluster_bits, l2_bits, unused[2];
	be32 crypt;
	be64 l1_off;
};
static_assert(sizeof(struct qcow1_header) == 48, "as QEMU has it");

#define MAX_L1 (8u << 20) /* entries */

struct qcow1 {
	struct img *img; /* borrowed */
	struct qcow1_header h;
	uint64_t file_len, n_l1;
	uint32_t cluster, l2_len; /* bytes; entries */
	be64 *l1;
	struct crypt *crypt; /* owned; NULL: is not encrypted, or has no key */
	pthread_mutex_t lock;
	struct meta_pages pages;
};

static bool is_qcow1(const void *head)
{
	const struct qcow1_header *h = head;

	return !memcmp(h->magic, "QFI\xfb", 4) && be32_get(h->version) == 1;
}

static bool qcow1_probe(const struct img_probe *p)
{
	return p->head_len >= sizeof(struct qcow1_header) && is_qcow1(p->head);
}

static int take_header(struct qcow1 *q, struct err *err)
{
	const char *path = q->img->path;
	uint64_t size = be64_get(q->h.size), per_table;

	if (!is_qcow1(&q->h))
		return err_set(err, EINVAL, "'%s' is no qcow image of version 1", path);
	if (be32_get(q->h.crypt) > 1)
		return err_set(err, ENOTSUP,
			       "'%s' is encrypted by method %u: 1 (AES) is known", path,
			       be32_get(q->h.crypt));
	if (q->h.cluster_bits < 9 || q->h.cluster_bits > 16)
		return err_set(err, EINVAL,
			       "'%s' is damaged: clusters of 2^%u bytes, 2^9 to 2^16 "
			       "are possible",
			       path, q->h.cluster_bits);
	if (q->h.l2_bits < 6 || q->h.l2_bits > 13)
		return err_set(err, EINVAL,
			       "'%s' is damaged: tables of 2^%u entries, 2^6 to 2^13 "
			       "are possible",
			       path, q->h.l2_bits);
	q->cluster = 1u << q->h.cluster_bits;
	q->l2_len = 1u << q->h.l2_bits;
	per_table = (uint64_t)q->cluster * q->l2_len;
	q->n_l1 = size / per_table + !!(size % per_table);
	if (q->n_l1 > MAX_L1 || size > INT64_MAX / 2)
		return err_set(err, EFBIG,
			       "'%s' is damaged or too large: a disk of %llu bytes",
			       path, (unsigned long long)size);
	if (!range_ok(be64_get(q->h.l1_off), q->n_l1 * 8, q->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its table is at %llu, the file ends "
			       "at %llu",
			       path, (unsigned long long)be64_get(q->h.l1_off),
			       (unsigned long long)q->file_len);
	q->img->size = size;
	return 0;
}

static int take_backing(struct qcow1 *q, struct err *err)
{
	uint64_t off = be64_get(q->h.backing_off);
	uint32_t len = be32_get(q->h.backing_len);
	struct img *img = q->img;

	if (!off)
		return 0;
	if (!len || len > 1023 || !range_ok(off, len, q->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its backing file's name has %u bytes "
			       "at %llu",
			       img->path, len, (unsigned long long)off);
	return img_read_backing_path(img, off, len, err);
}

static int qcow1_open(struct img *img, struct err *err)
{
	struct qcow1 *q = NEW(struct qcow1);
	int rc;

	if (!q)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = q;
	q->img = img;
	q->file_len = file_size(img->file);
	pthread_mutex_init(&q->lock, NULL);
	rc = meta_pages_init(&q->pages, img->file, 512);
	if (!rc)
		rc = file_read(img->file, &q->h, 0, sizeof(q->h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	rc = take_header(q, err);
	if (rc)
		return rc;
	img->unit = img->zero_unit = q->cluster;
	if (be32_get(q->h.crypt) &&
	    (img->opts.secret || !(img->opts.repair || img->opts.no_backing)))
		rc = qcow_aes_open(&img->opts, img->path, &q->crypt, err);
	if (rc)
		return rc;
	q->l1 = mem_new(q->n_l1 + 1, sizeof(*q->l1));
	rc = q->l1 ? file_read(img->file, q->l1, be64_get(q->h.l1_off), q->n_l1 * 8)
		   : -ENOMEM;
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	return take_backing(q, err);
}

static int qcow1_close(struct img *img)
{
	struct qcow1 *q = img->priv;

	if (!q)
		return 0;
	crypt_free(q->crypt);
	meta_pages_fini(&q->pages);
	pthread_mutex_destroy(&q->lock);
	free(q->l1);
	free(q);
	img->priv = NULL;
	return 0;
}

static int entry_get(struct qcow1 *q, uint64_t cluster, uint64_t *entry)
{
	uint64_t i = cluster >> q->h.l2_bits, table;
	be64 e;
	int rc;

	*entry = 0;
	if (i >= q->n_l1)
		return -EIO;
	table = be64_get(q->l1[i]);
	if (!table)
		return 0;
	if (table % 512 || !range_ok(table, q->l2_len * 8ull, q->file_len))
		return -EIO;
	rc = meta_read(&q->pages, table + (cluster & (q->l2_len - 1)) * 8, &e,
		       sizeof(e));
	*entry = be64_get(e);
	return rc;
}

static int packed_extent(const struct qcow1 *q, uint64_t entry, uint64_t in,
			 struct img_extent *e)
{
	unsigned shift = 63 - q->h.cluster_bits;
	uint64_t off = entry & (BIT(shift) - 1);
	uint32_t len = (uint32_t)(entry >> shift) & (q->cluster - 1);

	if (!len || off >= q->file_len)
		return -EIO;
	e->kind = IMG_PACKED;
	e->codec = &codec_block_deflate;
	e->file_off = off;
	e->packed_len = (uint32_t)min_u64(len, q->file_len - off);
	e->unit_len = q->cluster;
	e->unit_off = (uint32_t)in;
	return 0;
}

static int extent_of(const struct qcow1 *q, uint64_t entry, uint64_t in,
		     struct img_extent *e)
{
	e->file = q->img->file;
	e->grain = q->cluster;
	if (!entry) {
		e->kind = q->img->has_backing ? IMG_BACKING : IMG_ZERO;
		return 0;
	}
	if (entry >> 63)
		return packed_extent(q, entry, in, e);
	if (entry >= q->file_len)
		return -EIO;
	e->kind = IMG_DATA;
	e->file_off = entry + in;
	return 0;
}

static int map_locked(struct qcow1 *q, uint64_t off, uint64_t len, struct img_extent *e)
{
	uint64_t cluster = off / q->cluster, in = off % q->cluster, n, entry;
	int rc = entry_get(q, cluster, &entry);

	*e = (struct img_extent){0};
	if (!rc)
		rc = extent_of(q, entry, in, e);
	if (rc)
		return rc;
	for (n = q->cluster - in; n < len && e->kind != IMG_PACKED; n += q->cluster) {
		struct img_extent next = {0};

		if (entry_get(q, ++cluster, &entry) || extent_of(q, entry, 0, &next) ||
		    next.kind != e->kind ||
		    (e->kind == IMG_DATA && next.file_off != e->file_off + n))
			break;
	}
	e->len = min_u64(n, len);
	return 0;
}

static int qcow1_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct qcow1 *q = img->priv;
	int rc;

	pthread_mutex_lock(&q->lock);
	rc = map_locked(q, off, len, e);
	pthread_mutex_unlock(&q->lock);
	if (!rc && e->kind == IMG_DATA && be32_get(q->h.crypt)) {
		e->crypt = q->crypt;
		e->crypt_off = off;
		rc = q->crypt ? 0 : -ENOKEY;
	}
	return rc;
}

/* Every cluster's place, and no table named twice. */
static int qcow1_check(struct img *img, struct img_check *c, struct err *err)
{
	struct qcow1 *q = img->priv;
	uint64_t n = (img->size + q->cluster - 1) / q->cluster;
	int rc = 0;

	c->total_clusters = n;
	pthread_mutex_lock(&q->lock);
	for (uint64_t i = 0; i < n && !rc; i++) {
		struct img_extent e = {0};
		uint64_t entry;
		int bad = be64_get(q->l1[i >> q->h.l2_bits]) ? entry_get(q, i, &entry)
							     : -ENODATA;

		if (!bad)
			bad = extent_of(q, entry, 0, &e);
		c->allocated_clusters += !bad && entry;
		c->compressed_clusters += !bad && e.kind == IMG_PACKED;
		if (bad == -EIO) {
			check_say(c, "ERROR cluster %llu is not in the file",
				  (unsigned long long)i);
			c->corruptions++;
		} else if (bad && bad != -ENODATA) {
			rc = bad;
		}
		if (bad == -ENODATA || (bad && i % q->l2_len == 0))
			i |= q->l2_len - 1;
	}
	pthread_mutex_unlock(&q->lock);
	c->image_end_offset = q->file_len;
	return rc ? err_sys(err, -rc, "cannot read '%s'", img->path) : 0;
}

static void qcow1_info(struct img *img, struct img_info *info)
{
	const struct qcow1 *q = img->priv;

	info->cluster_bytes = q->cluster;
	info->encrypted = be32_get(q->h.crypt);
}

const struct img_format img_qcow1 = {
	.name = "qcow",
	.title = "QEMU copy-on-write, version 1",
	.probe = qcow1_probe,
	.open = qcow1_open,
	.close = qcow1_close,
	.map = qcow1_map,
	.info = qcow1_info,
	.check = qcow1_check,
};

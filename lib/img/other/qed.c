/*
 * img/other/qed.c - QEMU's QED format, to be read and checked. Two levels of tables of 64-bit little-endian offsets
 * (docs/interop/qed_spec). Opening and closing: one thread; mapping: any.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/img_int.h"
#include "img/meta.h"

struct qed_header {
	char magic[4];               /* "QED", 0 */
	le32 cluster, table, header; /* bytes; clusters; clusters */
	le64 features, compat, autoclear, l1_off, size;
	le32 backing_off, backing_len;
};
static_assert(sizeof(struct qed_header) == 64, "as specified");

enum { QED_BACKING = 1, QED_NEED_CHECK = 2, QED_RAW_BACKING = 4, QED_KNOWN = 7 };

struct qed {
	struct img *img; /* borrowed */
	struct qed_header h;
	uint64_t file_len, entries; /* entries of a table */
	uint32_t cluster;
	le64 *l1;
	pthread_mutex_t lock;
	struct meta_pages pages;
};

static bool qed_probe(const struct img_probe *p)
{
	return p->head_len >= sizeof(struct qed_header) && !memcmp(p->head, "QED", 4);
}

static int take_header(struct qed *q, struct err *err)
{
	const char *path = q->img->path;
	uint32_t table = le32_get(q->h.table);
	uint64_t features = le64_get(q->h.features), size = le64_get(q->h.size), most;

	if (memcmp(q->h.magic, "QED", 4))
		return err_set(err, EINVAL, "'%s' is no QED image", path);
	q->cluster = le32_get(q->h.cluster);
	if (!is_pow2(q->cluster) || q->cluster < 4096 || q->cluster > 64 << 20)
		return err_set(err, EINVAL,
			       "'%s' is damaged: clusters of %u bytes, a power of two "
			       "from 4 KiB to 64 MiB is needed",
			       path, q->cluster);
	if (!is_pow2(table) || table > 16)
		return err_set(err, EINVAL,
			       "'%s' is damaged: tables of %u clusters, at most 16 are "
			       "possible",
			       path, table);
	if (features & ~(uint64_t)QED_KNOWN)
		return err_set(err, ENOTSUP, "'%s' has features not known here: %#llx",
			       path, (unsigned long long)(features & ~7ull));
	q->entries = (uint64_t)table * q->cluster / 8;
	most = q->entries * q->entries > INT64_MAX / q->cluster
		       ? INT64_MAX
		       : q->entries * q->entries * q->cluster;
	if (size > most)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a disk of %llu bytes, its tables hold "
			       "%llu",
			       path, (unsigned long long)size,
			       (unsigned long long)most);
	if (le64_get(q->h.l1_off) % q->cluster ||
	    !range_ok(le64_get(q->h.l1_off), q->entries * 8, q->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its table is at %llu, the file ends "
			       "at %llu",
			       path, (unsigned long long)le64_get(q->h.l1_off),
			       (unsigned long long)q->file_len);
	q->img->size = size;
	return 0;
}

static int take_backing(struct qed *q, struct err *err)
{
	uint32_t off = le32_get(q->h.backing_off), len = le32_get(q->h.backing_len);
	uint64_t features = le64_get(q->h.features);
	struct img *img = q->img;
	int rc;

	if (!(features & QED_BACKING))
		return 0;
	if (!len || len > 1023 || !range_ok(off, len, q->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its backing file's name has %u bytes "
			       "at %u",
			       img->path, len, off);
	img->has_backing = true;
	img->backing_path = mem_new(len + 1, 1);
	if (!img->backing_path)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	rc = file_read(img->file, img->backing_path, off, len);
	if (features & QED_RAW_BACKING)
		img->backing_format = strdup("raw");
	return rc ? err_sys(err, -rc, "cannot read '%s'", img->path) : 0;
}

static int qed_open(struct img *img, struct err *err)
{
	struct qed *q = NEW(struct qed);
	int rc;

	if (!q)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = q;
	q->img = img;
	q->file_len = file_size(img->file);
	pthread_mutex_init(&q->lock, NULL);
	rc = meta_pages_init(&q->pages, img->file, 4096);
	if (!rc)
		rc = file_read(img->file, &q->h, 0, sizeof(q->h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	rc = take_header(q, err);
	if (rc)
		return rc;
	img->unit = img->zero_unit = q->cluster;
	q->l1 = mem_new(q->entries, sizeof(*q->l1));
	rc = q->l1 ? file_read(img->file, q->l1, le64_get(q->h.l1_off), q->entries * 8)
		   : -ENOMEM;
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	return take_backing(q, err);
}

static int qed_close(struct img *img)
{
	struct qed *q = img->priv;

	if (!q)
		return 0;
	meta_pages_fini(&q->pages);
	pthread_mutex_destroy(&q->lock);
	free(q->l1);
	free(q);
	img->priv = NULL;
	return 0;
}

/* Entry `cluster` of the second level; 0 without a table. lock held. */
static int entry_get(struct qed *q, uint64_t cluster, uint64_t *entry)
{
	uint64_t table = le64_get(q->l1[cluster / q->entries]);
	le64 e;
	int rc;

	*entry = 0;
	if (!table)
		return 0;
	if (table % q->cluster || !range_ok(table, q->entries * 8, q->file_len))
		return -EIO;
	rc = meta_read(&q->pages, table + cluster % q->entries * 8, &e, sizeof(e));
	*entry = le64_get(e);
	return rc;
}

static int extent_of(const struct qed *q, uint64_t entry, uint64_t in,
		     struct img_extent *e)
{
	e->file = q->img->file;
	e->grain = q->cluster;
	if (entry <= 1) {
		e->kind = !entry && q->img->has_backing ? IMG_BACKING : IMG_ZERO;
		return 0;
	}
	if (entry % q->cluster || entry >= q->file_len)
		return -EIO;
	e->kind = IMG_DATA;
	e->file_off = entry + in;
	return 0;
}

static int map_locked(struct qed *q, uint64_t off, uint64_t len, struct img_extent *e)
{
	uint64_t cluster = off / q->cluster, in = off % q->cluster, n, entry;
	int rc = entry_get(q, cluster, &entry);

	*e = (struct img_extent){0};
	if (!rc)
		rc = extent_of(q, entry, in, e);
	if (rc)
		return rc;
	for (n = q->cluster - in; n < len; n += q->cluster) {
		struct img_extent next = {0};

		if (entry_get(q, ++cluster, &entry) || extent_of(q, entry, 0, &next) ||
		    next.kind != e->kind ||
		    (e->kind == IMG_DATA && next.file_off != e->file_off + n))
			break;
	}
	e->len = min_u64(n, len);
	return 0;
}

static int qed_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct qed *q = img->priv;
	int rc;

	pthread_mutex_lock(&q->lock);
	rc = map_locked(q, off, len, e);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

/* ---- checking ---- */

struct seen {
	uint8_t *bits; /* of the file's clusters */
	uint64_t n, used;
};

/* Takes a cluster; counts it if it is not there, or taken. */
static bool take(struct qed *q, struct seen *s, struct img_check *c, uint64_t off,
		 const char *what)
{
	uint64_t i = off / q->cluster;
	bool ok = !(off % q->cluster) && i < s->n;

	if (ok && s->bits[i / 8] >> i % 8 & 1)
		ok = false;
	if (!ok) {
		check_say(c, "ERROR %s at %llu: behind the end, or used twice", what,
			  (unsigned long long)off);
		c->corruptions++;
		return false;
	}
	s->bits[i / 8] |= (uint8_t)(1u << i % 8);
	s->used++;
	return true;
}

static bool take_table(struct qed *q, struct seen *s, struct img_check *c, uint64_t off)
{
	bool ok = true;

	for (uint64_t i = 0; i < q->entries * 8 && ok; i += q->cluster)
		ok = take(q, s, c, off + i, "table");
	return ok;
}

static int check_tables(struct qed *q, struct seen *s, struct img_check *c)
{
	uint64_t n = (q->img->size + q->cluster - 1) / q->cluster, last = 0, entry;
	int rc = 0;

	c->total_clusters = n;
	for (uint64_t i = 0; i < n && !rc; i++) {
		if (i % q->entries == 0 &&
		    (!le64_get(q->l1[i / q->entries]) ||
		     !take_table(q, s, c, le64_get(q->l1[i / q->entries])))) {
			i += q->entries - 1;
			continue;
		}
		rc = entry_get(q, i, &entry);
		if (rc || entry <= 1 || !take(q, s, c, entry, "cluster"))
			continue;
		c->allocated_clusters++;
		c->fragmented_clusters += last && entry != last + q->cluster;
		last = entry;
	}
	return rc;
}

static int qed_check(struct img *img, struct img_check *c, struct err *err)
{
	struct qed *q = img->priv;
	struct seen s = {.n = (q->file_len + q->cluster - 1) / q->cluster};
	uint64_t heads = max_u64(1, le32_get(q->h.header));
	int rc;

	s.bits = mem_new(s.n / 8 + 1, 1);
	if (!s.bits)
		return err_set(err, ENOMEM, "no memory to check '%s'", img->path);
	for (uint64_t i = 0; i < min_u64(heads, s.n); i++)
		take(q, &s, c, i * q->cluster, "header");
	take_table(q, &s, c, le64_get(q->h.l1_off));
	rc = check_tables(q, &s, c);
	if (!c->corruptions && s.n > s.used)
		c->leaks = s.n - s.used;
	c->image_end_offset = q->file_len;
	free(s.bits);
	return rc ? err_sys(err, -rc, "cannot read '%s'", img->path) : 0;
}

static void qed_info(struct img *img, struct img_info *info)
{
	const struct qed *q = img->priv;

	info->dirty = le64_get(q->h.features) & QED_NEED_CHECK;
	info->cluster_bytes = q->cluster;
}

const struct img_format img_qed = {
	.name = "qed",
	.title = "QEMU enhanced disk",
	.probe = qed_probe,
	.open = qed_open,
	.close = qed_close,
	.map = qed_map,
	.info = qed_info,
	.check = qed_check,
};

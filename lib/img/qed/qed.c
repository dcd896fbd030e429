/*
 * img/qed/qed.c - QEMU's QED format: opening, closing, mapping. Opening and closing: one thread; mapping: any.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "img/qed/qed_int.h"

static bool qed_probe(const struct img_probe *p)
{
	return p->head_len >= sizeof(struct qed_header) && !memcmp(p->head, "QED", 4);
}

uint64_t qed_most(uint64_t entries, uint32_t cluster)
{
	uint64_t clusters = entries * entries; /* of at most 2^27 each */

	return clusters > INT64_MAX / cluster ? INT64_MAX : clusters * cluster;
}

static int damaged(const struct qed *q, struct err *err, const char *what, uint64_t n,
		   const char *bound)
{
	return err_set(err, EINVAL, "'%s' is damaged: %s %llu, %s", q->img->path, what,
		       (unsigned long long)n, bound);
}

static int take_header(struct qed *q, struct err *err)
{
	const char *path = q->img->path;
	uint32_t table = le32_get(q->h.table);
	uint64_t features = le64_get(q->h.features), size = le64_get(q->h.size);
	uint64_t l1 = le64_get(q->h.l1_off), file_len = file_size(q->file);

	if (memcmp(q->h.magic, "QED", 4))
		return err_set(err, EINVAL, "'%s' is no QED image", path);
	q->cluster = le32_get(q->h.cluster);
	if (!is_pow2(q->cluster) || q->cluster < QED_MIN_CLUSTER ||
	    q->cluster > QED_MAX_CLUSTER)
		return err_set(err, EINVAL,
			       "'%s' is damaged: clusters of %u bytes, a power of two "
			       "from 4 KiB to 64 MiB is needed",
			       path, q->cluster);
	if (!is_pow2(table) || table > QED_MAX_TABLE)
		return err_set(err, EINVAL,
			       "'%s' is damaged: tables of %u clusters, at most 16 are "
			       "possible",
			       path, table);
	if (features & ~(uint64_t)QED_KNOWN)
		return err_set(err, ENOTSUP, "'%s' has features not known here: %#llx",
			       path, (unsigned long long)(features & ~7ull));
	q->table_len = (uint64_t)table * q->cluster;
	q->entries = q->table_len / 8;
	q->first = (uint64_t)le32_get(q->h.header) * q->cluster;
	q->first = max_u64(q->first, q->cluster);
	q->limit = align_up(file_len, q->cluster);
	if (size > qed_most(q->entries, q->cluster))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a disk of %llu bytes, its tables hold "
			       "%llu",
			       path, (unsigned long long)size,
			       (unsigned long long)qed_most(q->entries, q->cluster));
	if (size % 512)
		return damaged(q, err, "a disk of", size, "which is not whole sectors");
	if (l1 % q->cluster || l1 < q->first || !range_ok(l1, q->table_len, file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its table is at %llu, the file ends "
			       "at %llu",
			       path, (unsigned long long)l1,
			       (unsigned long long)file_len);
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
	if (!len || len > QED_MAX_NAME ||
	    !range_ok(off, len, min_u64(q->first, q->limit)))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its backing file's name has %u bytes "
			       "at %u",
			       img->path, len, off);
	rc = img_read_backing_path(img, off, len, err);
	/* Without the format it would be guessed. */
	if (!rc && features & QED_RAW_BACKING &&
	    img_set_text(&img->backing_format, "raw"))
		rc = err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	return rc;
}

static int qed_open(struct img *img, struct err *err)
{
	struct qed *q = NEW(struct qed);
	int rc;

	if (!q)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = q;
	q->img = img;
	q->file = img->file;
	rc = blockmap_init(&q->m, q->file, 4096);
	if (!rc)
		rc = file_read(q->file, &q->h, 0, sizeof(q->h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	rc = take_header(q, err);
	if (rc)
		return rc;
	img->unit = img->zero_unit = q->cluster;
	rc = take_backing(q, err);
	if (!rc && !img->read_only && !img->opts.repair)
		rc = qed_survey(q, err);
	return rc;
}

static int qed_close(struct img *img)
{
	struct qed *q = img->priv;
	int rc = 0;

	if (!q)
		return 0;
	if (!img->read_only && !img->discard_all && atomic_load(&img->writing))
		rc = qed_end_write(q);
	blockmap_fini(&q->m);
	free(q);
	img->priv = NULL;
	return rc;
}

/* ---- mapping ---- */

bool qed_place_ok(const struct qed *q, uint64_t off, uint64_t n)
{
	uint64_t l1 = le64_get(q->h.l1_off);

	return !(off % q->cluster) && off >= q->first && range_ok(off, n, q->limit) &&
	       (off + n <= l1 || off >= l1 + q->table_len);
}

int qed_entry(struct qed *q, uint64_t cluster, uint64_t *entry)
{
	uint64_t l1 = le64_get(q->h.l1_off), i = cluster / q->entries, table;
	le64 e;
	int rc;

	*entry = 0;
	if (i >= q->entries)
		return -EIO;
	rc = meta_read(&q->m.pages, l1 + i * 8, &e, sizeof(e));
	table = le64_get(e);
	if (rc || !table)
		return rc;
	if (!qed_place_ok(q, table, q->table_len))
		return -EIO;
	rc = meta_read(&q->m.pages, table + cluster % q->entries * 8, &e, sizeof(e));
	*entry = le64_get(e);
	return rc;
}

static int map_cluster(void *ctx, uint64_t cluster, uint64_t in, uint64_t len,
		       struct img_extent *e)
{
	struct qed *q = ctx;
	uint64_t entry;
	int rc = qed_entry(q, cluster, &entry);

	*e = (struct img_extent){
		.kind = IMG_ZERO, .grain = q->cluster, .file = q->file, .len = len};
	if (rc)
		return rc;
	if (!entry)
		e->kind = IMG_BACKING;
	if (entry <= QED_ZERO)
		return 0;
	if (!qed_place_ok(q, entry, q->cluster))
		return -EIO;
	e->kind = IMG_DATA;
	e->writable = true;
	e->file_off = entry + in;
	return 0;
}

static int qed_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct qed *q = img->priv;

	return blockmap_map(&q->m, q->cluster, map_cluster, q, off, len, e);
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
	.options = qed_options,
	.backing = true,
	.probe = qed_probe,
	.open = qed_open,
	.close = qed_close,
	.map = qed_map,
	.info = qed_info,
	.begin_write = qed_begin_write,
	.alloc = qed_alloc,
	.link = qed_link,
	.unalloc = qed_unalloc,
	.zero = qed_zero,
	.discard = blockmap_discard,
	.flush = qed_flush,
	.create = qed_create,
	.measure = qed_measure,
	.check = qed_check,
	.can_fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS,
	.resize = qed_resize,
	.set_backing = qed_set_backing,
};

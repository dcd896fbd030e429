/* img/qed/write.c - changes of QED images: places for new clusters and tables, entries, the header. Any thread. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "img/qed/qed_int.h"

/* ---- header ---- */

int qed_header_write(struct qed *q)
{
	return file_write(q->file, &q->h, 0, sizeof(q->h));
}

static int mark_set(struct qed *q, bool dirty)
{
	uint64_t was = le64_get(q->h.features),
		 features = was & ~(uint64_t)QED_NEED_CHECK;
	le64 autoclear = q->h.autoclear;
	int rc;

	if (dirty)
		features |= QED_NEED_CHECK;
	if (features == was && !le64_get(autoclear))
		return 0;
	q->h.features = le64_make(features);
	q->h.autoclear = le64_make(0); /* whatever they are, they are not known here */
	rc = qed_header_write(q);
	if (!rc)
		rc = file_sync(q->file);
	if (rc) {
		q->h.features = le64_make(was);
		q->h.autoclear = autoclear;
	}
	return rc;
}

int qed_begin_write(struct img *img)
{
	return mark_set(img->priv, true);
}

/* Room at the end that nothing was put into would count as lost. */
static int end_trim(struct qed *q)
{
	if (file_is_device(q->file) || q->next >= q->limit)
		return 0;
	return file_truncate(q->file, q->limit = q->next);
}

int qed_end_write(struct qed *q)
{
	int rc = blockmap_flush(&q->m, true, NULL, NULL);

	if (!rc)
		rc = end_trim(q);
	return rc ? rc : mark_set(q, false);
}

int qed_flush(struct img *img)
{
	struct qed *q = img->priv;

	return blockmap_flush(&q->m, true, NULL, NULL);
}

static int step_begin(struct qed *q)
{
	return blockmap_pressed(&q->m) ? blockmap_flush(&q->m, false, NULL, NULL) : 0;
}

/* ---- places ---- */

int qed_extend(struct qed *q, uint64_t end)
{
	int rc = 0;

	if (end <= q->limit)
		return 0;
	if (file_is_device(q->file))
		rc = -ENOSPC;
	else if (end > INT64_MAX)
		rc = -EFBIG;
	else
		rc = file_truncate(q->file, end);
	if (!rc)
		q->limit = end;
	return rc;
}

/* Does what is at `off` read as zeros, as the end of a file that grows? */
static bool is_fresh(const struct qed *q, uint64_t off, uint64_t limit_before)
{
	return off >= limit_before && !file_is_device(q->file);
}

/* The table for the i-th entry of L1; a new one if there was none. lock held. */
static int table_own(struct qed *q, uint64_t i, uint64_t *table)
{
	uint64_t l1 = le64_get(q->h.l1_off), at = q->next, limit = q->limit;
	le64 e;
	int rc;

	if (i >= q->entries)
		return -EIO;
	rc = meta_read(&q->m.pages, l1 + i * 8, &e, sizeof(e));
	*table = le64_get(e);
	if (rc || *table)
		return rc ? rc : qed_place_ok(q, *table, q->table_len) ? 0 : -EIO;
	rc = qed_extend(q, at + q->table_len);
	if (!rc && !is_fresh(q, at, limit))
		rc = file_zero(q->file, at, q->table_len, false);
	if (rc)
		return rc;
	meta_pages_forget(&q->m.pages, at, q->table_len);
	e = le64_make(at);
	rc = meta_write(&q->m.pages, l1 + i * 8, &e, sizeof(e));
	if (rc)
		return rc;
	q->next = at + q->table_len;
	*table = at;
	return 0;
}

/* A place for at most *len bytes that was given back. */
static bool free_take(struct qed *q, uint64_t *len, uint64_t *off)
{
	struct qed_run *r;

	if (!q->n_free)
		return false;
	r = &q->free[q->n_free - 1];
	*off = r->off;
	*len = min_u64(*len, r->len);
	r->off += *len;
	r->len -= *len;
	if (!r->len)
		q->n_free--;
	return true;
}

/* Takes a place back. What stands at the end is simply not there; more runs than there is room for are lost. */
static void free_put(struct qed *q, uint64_t off, uint64_t len)
{
	if (off + len != q->next) {
		if (q->n_free < sizeof(q->free) / sizeof(q->free[0]))
			q->free[q->n_free++] = (struct qed_run){off, len};
		return;
	}
	q->next = off;
	for (unsigned i = 0; i < q->n_free; i++) {
		if (q->free[i].off + q->free[i].len != q->next)
			continue;
		q->next = q->free[i].off;
		q->free[i] = q->free[--q->n_free];
		i = UINT_MAX; /* from the first one again */
	}
}

static int place_take(struct qed *q, struct img_place *p)
{
	uint64_t limit = q->limit;
	int rc;

	if (free_take(q, &p->len, &p->file_off))
		return 0;
	rc = qed_extend(q, q->next + p->len);
	if (rc)
		return rc;
	p->file_off = q->next;
	p->zero = is_fresh(q, p->file_off, limit);
	q->next += p->len;
	return 0;
}

int qed_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	struct qed *q = img->priv;
	uint64_t cluster = off / q->cluster, n, table;
	int rc = step_begin(q);

	if (rc)
		return rc;
	pthread_mutex_lock(&q->m.lock);
	n = min_u64(len / q->cluster, q->entries - cluster % q->entries);
	*p = (struct img_place){.len = n * q->cluster, .file = q->file, .fresh = true};
	rc = table_own(q, cluster / q->entries, &table);
	if (!rc)
		rc = place_take(q, p);
	pthread_mutex_unlock(&q->m.lock);
	return rc;
}

void qed_unalloc(struct img *img, const struct img_place *p)
{
	struct qed *q = img->priv;

	pthread_mutex_lock(&q->m.lock);
	free_put(q, p->file_off, p->len);
	pthread_mutex_unlock(&q->m.lock);
}

/* ---- entries ---- */

static int entry_set(struct qed *q, uint64_t cluster, uint64_t entry)
{
	uint64_t table;
	le64 e = le64_make(entry);
	int rc = table_own(q, cluster / q->entries, &table);

	return rc ? rc
		  : meta_write(&q->m.pages, table + cluster % q->entries * 8, &e,
			       sizeof(e));
}

int qed_link(struct img *img, uint64_t off, const struct img_place *p)
{
	struct qed *q = img->priv;
	uint64_t n = p->len / q->cluster, cluster = off / q->cluster, i = 0, old = 0;
	int rc = step_begin(q);

	if (rc)
		return rc;
	pthread_mutex_lock(&q->m.lock);
	rc = qed_entry(q, cluster, &old); /* all are alike */
	for (; i < n && !rc; i++)
		rc = entry_set(q, cluster + i, p->file_off + i * q->cluster);
	/* What was set is in memory: setting it again cannot fail. */
	for (; rc && i > 0; i--)
		entry_set(q, cluster + i - 1, old);
	pthread_mutex_unlock(&q->m.lock);
	return rc;
}

static int hide(void *ctx, uint64_t cluster)
{
	struct qed *q = ctx;
	uint64_t entry;
	int rc = qed_entry(q, cluster, &entry);

	if (!rc && !entry)
		rc = entry_set(q, cluster, QED_ZERO);
	else if (!rc && entry != QED_ZERO)
		return 0;
	return rc ? rc : 1;
}

int qed_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done)
{
	struct qed *q = img->priv;
	int rc = step_begin(q);

	(void)unmap;
	return rc ? rc : blockmap_zero(&q->m, img, off, len, hide, q, done);
}

/* ---- settings ---- */

int qed_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err)
{
	struct qed *q = img->priv;
	uint64_t old = img->size, end;
	int rc;

	size = align_up(size, 512);
	if (prealloc != IMG_PREALLOC_OFF)
		return err_set(err, ENOTSUP, "QED images are not grown preallocated");
	if (size < old)
		return err_set(err, ENOTSUP,
			       "'%s' cannot become smaller: QED has no way to give "
			       "clusters back",
			       img->path);
	if (size > qed_most(q->entries, q->cluster))
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in '%s', whose tables hold %llu",
			       (unsigned long long)size, img->path,
			       (unsigned long long)qed_most(q->entries, q->cluster));
	if (img->has_backing && !img->backing && size > old)
		return err_set(err, ENXIO,
			       "the backing file of '%s' is not open: what it has "
			       "behind the disk's end would come to light",
			       img->path);
	q->h.size = le64_make(size);
	rc = qed_header_write(q);
	if (!rc)
		rc = file_sync(q->file);
	if (rc) {
		q->h.size = le64_make(old);
		return err_sys(err, -rc, "cannot resize '%s'", img->path);
	}
	img->size = size;
	/* What the last cluster, and the backing file, have behind the old end must not show. */
	end = align_up(old, q->cluster);
	if (img->backing && img->backing->size > end)
		end = img->backing->size;
	end = min_u64(end, size);
	if (end > old)
		rc = img_write_zeroes(img, old, end - old, false);
	return rc ? err_sys(err, -rc, "cannot resize '%s'", img->path) : 0;
}

int qed_set_backing(struct img *img, const char *path, const char *format,
		    struct err *err)
{
	struct qed *q = img->priv;
	struct qed_header h = q->h, old = q->h;
	/* Beside the old name, so that there is always one of them. */
	uint32_t at =
		le32_get(h.backing_off) == sizeof(h) ? QED_MIN_CLUSTER / 2 : sizeof(h);
	int rc = qed_header_backing(&h, path, format, at, err);

	if (rc)
		return rc;
	rc = qed_flush(img);
	if (!rc && path)
		rc = file_write(q->file, path, at, strlen(path));
	if (!rc && path)
		rc = file_sync(q->file);
	if (!rc) {
		q->h = h;
		rc = qed_header_write(q);
	}
	if (!rc)
		rc = file_sync(q->file);
	if (rc) {
		q->h = old;
		return err_sys(err, -rc, "cannot write '%s'", img->path);
	}
	if (img_set_text(&img->backing_path, path) ||
	    img_set_text(&img->backing_format,
			 path && format && !strcmp(format, "raw") ? format : NULL))
		return err_set(err, ENOMEM, "no memory to change '%s'", img->path);
	img->has_backing = path != NULL;
	return 0;
}

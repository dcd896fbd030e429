/* img/vmdk/write.c - changes of VMDK images: new grains and tables, the content identifier. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vmdk/vmdk_int.h"

/* ---- may it be written? ---- */

int vmdk_check_writable(struct vmdk *v, struct err *err)
{
	const char *path = v->img->path;
	struct img_check c = {0};
	int rc;

	for (size_t i = 0; i < v->n; i++) {
		const struct vmdk_extent *x = &v->ext[i];

		if (x->compressed)
			return err_set(err, EROFS,
				       "'%s' is a compressed VMDK image, which is "
				       "written in one pass: open it read-only, or "
				       "convert it",
				       path);
		if (x->kind == VMDK_SESPARSE)
			return err_set(err, EROFS,
				       "'%s' is an SEsparse image, which can only be "
				       "read",
				       path);
		if (x->grain &&
		    (x->start % x->grain || (i + 1 < v->n && x->size % x->grain)))
			return err_set(err, ENOTSUP,
				       "'%s' has extents that share a grain: it can "
				       "only be read",
				       path);
	}
	rc = vmdk_check(v->img, &c, err);
	if (!rc && c.corruptions)
		return err_set(err, EIO,
			       "'%s' is damaged in %llu places: it can only be read",
			       path, (unsigned long long)c.corruptions);
	return rc;
}

/* ---- the content identifier ---- */

/* Children see by it that their parent was changed. */
int vmdk_begin_write(struct img *img)
{
	struct vmdk *v = img->priv;
	struct vmdk_desc *d = &v->desc;
	char digits[9];
	uint32_t cid;

	if (!v->desc_room || d->cid_len != 8)
		return 0;
	do {
		if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
			return -EIO;
	} while (cid == VMDK_NO_PARENT || cid == d->cid);
	snprintf(digits, sizeof(digits), "%08x", cid);
	memcpy(d->text + d->cid_at, digits, 8);
	d->cid = cid;
	return file_write(img->file, digits, v->desc_off + d->cid_at, 8);
}

/* ---- writing back ---- */

/* COWD: the first sector behind everything. */
static int cowd_free(struct vmdk_extent *x)
{
	uint64_t now = x->next / VMDK_SECTOR;
	le32 e = le32_make((uint32_t)min_u64(now, UINT32_MAX));
	int rc;

	if (x->kind != VMDK_COWD || now <= x->free_on_disk)
		return 0;
	rc = file_write(x->file, &e, offsetof(struct cowd_header, free), sizeof(e));
	if (!rc)
		x->free_on_disk = now;
	return rc;
}

/* flush_lock held. */
static int write_extent(struct vmdk *v, struct vmdk_extent *x, bool durable)
{
	struct meta_list l = {0};
	int rc = 0;

	if (!x->file || x->access != VMDK_RW)
		return 0;
	if (!x->has_pages)
		return durable ? file_sync(x->file) : 0;
	pthread_mutex_lock(&v->lock);
	rc = meta_list_take(&x->pages, &l);
	if (!rc)
		rc = cowd_free(x);
	pthread_mutex_unlock(&v->lock);
	if (!rc && (l.n || durable))
		rc = file_sync(x->file);
	if (!rc)
		rc = meta_list_write(x->file, &l);
	if (!rc && l.n && durable)
		rc = file_sync(x->file);
	pthread_mutex_lock(&v->lock);
	meta_list_done(&x->pages, &l, rc);
	pthread_mutex_unlock(&v->lock);
	meta_list_free(&l);
	return rc;
}

int vmdk_write_all(struct vmdk *v, bool durable)
{
	int rc = 0;

	pthread_mutex_lock(&v->flush_lock);
	for (size_t i = 0; i < v->n; i++) {
		int one = write_extent(v, &v->ext[i], durable);

		rc = rc ? rc : one;
	}
	if (!rc && durable && v->text)
		rc = file_sync(v->img->file);
	pthread_mutex_unlock(&v->flush_lock);
	return rc;
}

int vmdk_flush(struct img *img)
{
	return vmdk_write_all(img->priv, true);
}

static int step_begin(struct vmdk *v, struct vmdk_extent *x)
{
	bool pressed;
	int rc = 0;

	pthread_mutex_lock(&v->lock);
	pressed = meta_pages_pressed(&x->pages);
	pthread_mutex_unlock(&v->lock);
	if (pressed) {
		pthread_mutex_lock(&v->flush_lock);
		rc = write_extent(v, x, false);
		pthread_mutex_unlock(&v->flush_lock);
	}
	return rc;
}

/* ---- new grains ---- */

/* Makes the file `end` bytes long; what is new in it reads as zeros. */
static int extend(struct vmdk_extent *x, uint64_t end)
{
	int rc;

	if (end / VMDK_SECTOR > UINT32_MAX)
		return -EFBIG;
	if (end <= x->file_len)
		return 0;
	if (file_is_device(x->file))
		return -ENOSPC;
	rc = file_truncate(x->file, end);
	if (!rc)
		x->file_len = end;
	return rc;
}

int vmdk_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	struct vmdk *v = img->priv;
	struct vmdk_extent *x = vmdk_extent_at(v, off);
	uint64_t old;
	int rc;

	if (x->kind != VMDK_SPARSE && x->kind != VMDK_COWD)
		return -EROFS; /* "ZERO" */
	if (x->access != VMDK_RW)
		return -EROFS;
	rc = step_begin(v, x);
	if (rc)
		return rc;
	len = min_u64(len, align_up(x->size, x->grain) - (off - x->start));
	pthread_mutex_lock(&v->lock);
	old = x->file_len;
	rc = extend(x, x->next + len);
	*p = (struct img_place){
		.len = len,
		.file_off = x->next,
		.file = x->file,
		.zero = x->next >= old,
		.fresh = true,
	};
	if (!rc)
		x->next += len;
	pthread_mutex_unlock(&v->lock);
	return rc;
}

void vmdk_unalloc(struct img *img, const struct img_place *p)
{
	struct vmdk *v = img->priv;

	pthread_mutex_lock(&v->lock);
	for (size_t i = 0; i < v->n; i++)
		if (v->ext[i].file == p->file && v->ext[i].next == p->file_off + p->len)
			v->ext[i].next = p->file_off;
	pthread_mutex_unlock(&v->lock);
}

/* A new table, of zeros; its name goes to the directory at gd_off, entry i. */
static int table_new(struct vmdk_extent *x, uint32_t *gd, uint64_t gd_off, uint64_t i)
{
	uint64_t at = x->next, len = align_up(x->gtes * 4ull, 512);
	bool virgin = at >= x->file_len;
	le32 e = le32_make((uint32_t)(at / VMDK_SECTOR));
	int rc = extend(x, at + len);

	if (!rc && !virgin)
		rc = file_zero(x->file, at, len, false);
	if (!rc)
		rc = meta_write(&x->pages, gd_off + i * 4, &e, sizeof(e));
	if (rc)
		return rc;
	x->next = align_up(at + len, x->grain);
	gd[i] = (uint32_t)(at / VMDK_SECTOR);
	return 0;
}

/* Sets an entry in both tables; makes them if they are not there. lock held. */
static int entry_set(struct vmdk_extent *x, uint64_t grain, uint32_t entry)
{
	uint64_t i = grain / x->gtes, in = grain % x->gtes * 4;
	le32 e = le32_make(entry);
	int rc = 0;

	if (i >= x->n_gd)
		return -EIO;
	if (!x->gd[i])
		rc = table_new(x, x->gd, x->gd_off, i);
	if (!rc && x->rgd && !x->rgd[i])
		rc = table_new(x, x->rgd, x->rgd_off, i);
	if (!rc && x->rgd)
		rc = meta_write(&x->pages, x->rgd[i] * VMDK_SECTOR + in, &e, sizeof(e));
	if (!rc)
		rc = meta_write(&x->pages, x->gd[i] * VMDK_SECTOR + in, &e, sizeof(e));
	return rc;
}

int vmdk_link(struct img *img, uint64_t off, const struct img_place *p)
{
	struct vmdk *v = img->priv;
	struct vmdk_extent *x = vmdk_extent_at(v, off);
	uint64_t grain = (off - x->start) / x->grain, n = p->len / x->grain, i = 0;
	uint64_t sector = p->file_off / VMDK_SECTOR, old = 0, at;
	int rc = step_begin(v, x);

	if (rc)
		return rc;
	pthread_mutex_lock(&v->lock);
	rc = vmdk_entry(x, grain, &old, &at); /* all are alike */
	for (; i < n && !rc; i++)
		rc = entry_set(x, grain + i,
			       (uint32_t)(sector + i * (x->grain / VMDK_SECTOR)));
	/* What was set is in memory: setting it again cannot fail. */
	for (; rc && i > 1; i--)
		entry_set(x, grain + i - 2, (uint32_t)old);
	pthread_mutex_unlock(&v->lock);
	return rc;
}

/* In front of a parent, grains that are nowhere need an entry that says so, if the extent knows such. */
int vmdk_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done)
{
	struct vmdk *v = img->priv;
	struct vmdk_extent *x = vmdk_extent_at(v, off);
	uint64_t grain, n, i = 0;
	int rc;

	(void)unmap;
	if (!img->has_backing || x->kind != VMDK_SPARSE || !x->zero_grains ||
	    x->access != VMDK_RW)
		return -EOPNOTSUPP;
	rc = step_begin(v, x);
	if (rc)
		return rc;
	grain = (off - x->start) / x->grain;
	n = min_u64(len, align_up(x->size, x->grain) - (off - x->start)) / x->grain;
	pthread_mutex_lock(&v->lock);
	for (; i < n && !rc; i++) {
		uint64_t entry, at;

		rc = vmdk_entry(x, grain + i, &entry, &at);
		if (!rc && entry > 1)
			break;
		if (!rc && !entry)
			rc = entry_set(x, grain + i, 1);
	}
	pthread_mutex_unlock(&v->lock);
	*done = i * x->grain;
	return rc ? rc : i ? 0 : -EOPNOTSUPP;
}

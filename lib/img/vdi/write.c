/* img/vdi/write.c - changes of VDI images: places for new blocks, the map, the header. Any thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vdi/vdi_int.h"

/* ---- places ---- */

bool vdi_place_used(const struct vdi *v, uint64_t place)
{
	return place / 8 < v->used_len && v->used[place / 8] >> (place % 8) & 1;
}

int vdi_place_use(struct vdi *v, uint64_t place, bool used)
{
	if (place / 8 >= v->used_len) {
		uint64_t n = max_u64(4096, place / 4 + 1);
		uint8_t *bits = mem_resize(v->used, n, 1);

		if (!bits)
			return -ENOMEM;
		memset(bits + v->used_len, 0, n - v->used_len);
		v->used = bits;
		v->used_len = n;
	}
	if (used)
		v->used[place / 8] |= (uint8_t)(1u << place % 8);
	else
		v->used[place / 8] &= (uint8_t) ~(1u << place % 8);
	if (used && place >= v->next)
		v->next = place + 1;
	if (!used && place < v->scan)
		v->scan = place;
	return 0;
}

int vdi_places(struct vdi *v, struct err *err)
{
	const char *path = v->img->path;

	if (v->old || v->map_off % 512 || v->data_off % 512)
		return err_set(
			err, ENOTSUP,
			"'%s' is an old VDI image whose tables share sectors: it "
			"can be read, not written; convert it first",
			path);
	for (uint64_t i = 0; i < v->n_blocks; i++) {
		uint32_t entry;
		int rc = vdi_entry(v, i, &entry);

		if (rc)
			return err_sys(err, -rc, "cannot read '%s'", path);
		if (entry == VDI_FREE || entry == VDI_ZERO)
			continue;
		if (entry >= vdi_place_limit(v))
			return err_set(err, EIO,
				       "'%s' is damaged: block %llu is said to be at "
				       "place %u, the file ends after %llu: repair it "
				       "first",
				       path, (unsigned long long)i, entry,
				       (unsigned long long)v->room);
		if (vdi_place_used(v, entry))
			return err_set(err, EIO,
				       "'%s' is damaged: two blocks are at place %u: "
				       "repair it first",
				       path, entry);
		rc = vdi_place_use(v, entry, true);
		if (rc)
			return err_set(err, ENOMEM, "no memory to open '%s'", path);
	}
	return 0;
}

/* Makes the file long enough for places below `end`. */
static int places_extend(struct vdi *v, uint64_t end)
{
	uint64_t len = v->data_off + end * v->stride;
	int rc = 0;

	if (file_is_device(v->file))
		rc = len <= file_size(v->file) ? 0 : -ENOSPC;
	else if (len > file_size(v->file))
		rc = file_truncate(v->file, len);
	if (!rc)
		v->room = max_u64(v->room, end);
	return rc;
}

/* ---- header ---- */

int vdi_header_write(struct vdi *v)
{
	return file_write(v->file, &v->h, 0, sizeof(v->h));
}

int vdi_begin_write(struct img *img)
{
	struct vdi *v = img->priv;
	int rc;

	/* Images in front of this one see by it that their parent was changed. */
	rc = guid_make(&v->h.modify, false);
	return rc ? rc : vdi_header_write(v);
}

/* ---- writing back ---- */

/* Other programs put new blocks behind the number of those in use: it is never too small. */
static int count_write(void *ctx)
{
	struct vdi *v = ctx;
	int rc;

	if (v->next <= v->count_on_disk)
		return 0;
	v->h.n_used = le32_make((uint32_t)v->next);
	rc = vdi_header_write(v);
	if (!rc)
		v->count_on_disk = (uint32_t)v->next;
	return rc;
}

int vdi_write_all(struct vdi *v, bool durable)
{
	return blockmap_flush(&v->m, durable, count_write, v);
}

int vdi_flush(struct img *img)
{
	return vdi_write_all(img->priv, true);
}

/* ---- new blocks ---- */

int vdi_entry_set(struct vdi *v, uint64_t block, uint32_t entry)
{
	le32 e = le32_make(entry);

	if (block >= v->n_blocks)
		return -EIO;
	return meta_write(&v->m.pages, v->map_off + block * 4, &e, sizeof(e));
}

static int step_begin(struct vdi *v)
{
	return blockmap_pressed(&v->m) ? vdi_write_all(v, false) : 0;
}

/* Up to n free places in a row from *first on. */
static uint64_t places_find(const struct vdi *v, uint64_t n, uint64_t *first)
{
	uint64_t at = v->scan, got = 1;

	while (at < v->next && vdi_place_used(v, at))
		at++;
	while (got < n && !vdi_place_used(v, at + got))
		got++;
	*first = at;
	return got;
}

int vdi_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	struct vdi *v = img->priv;
	uint64_t n = len / v->block_size, first, virgin;
	int rc = step_begin(v);

	(void)off;
	if (rc)
		return rc;
	if (v->extra)
		n = 1; /* there is something between them */
	pthread_mutex_lock(&v->m.lock);
	n = places_find(v, n, &first);
	virgin = v->room;
	if (first + n >= VDI_ZERO)
		rc = -EFBIG;
	else if (first + n > virgin)
		rc = places_extend(v, first + n);
	for (uint64_t i = 0; i < n && !rc; i++)
		rc = vdi_place_use(v, first + i, true);
	if (!rc)
		v->scan = first + n;
	pthread_mutex_unlock(&v->m.lock);
	*p = (struct img_place){
		.len = n * v->block_size,
		.file_off = vdi_place_off(v, first),
		.file = v->file,
		.zero = first >= virgin && !file_is_device(v->file),
		.fresh = true,
	};
	return rc;
}

static uint64_t place_at(const struct vdi *v, uint64_t file_off)
{
	return (file_off - v->extra - v->data_off) / v->stride;
}

int vdi_link(struct img *img, uint64_t off, const struct img_place *p)
{
	struct vdi *v = img->priv;
	uint64_t n = p->len / v->block_size, block = off / v->block_size, i = 0;
	uint64_t place = place_at(v, p->file_off);
	uint32_t old = VDI_FREE;
	int rc = step_begin(v);

	if (rc)
		return rc;
	pthread_mutex_lock(&v->m.lock);
	rc = vdi_entry(v, block, &old); /* all are alike */
	for (; i < n && !rc; i++)
		rc = vdi_entry_set(v, block + i, (uint32_t)(place + i));
	/* What was set is in memory: setting it again cannot fail. */
	for (; rc && i > 0; i--)
		vdi_entry_set(v, block + i - 1, old);
	pthread_mutex_unlock(&v->m.lock);
	return rc;
}

void vdi_unalloc(struct img *img, const struct img_place *p)
{
	struct vdi *v = img->priv;
	uint64_t n = p->len / v->block_size, place = place_at(v, p->file_off);

	pthread_mutex_lock(&v->m.lock);
	for (uint64_t i = 0; i < n; i++)
		vdi_place_use(v, place + i, false);
	pthread_mutex_unlock(&v->m.lock);
}

/* ---- zeros ---- */

static int hide(void *ctx, uint64_t block)
{
	struct vdi *v = ctx;
	uint32_t entry;
	int rc = vdi_entry(v, block, &entry);

	if (!rc && entry == VDI_FREE)
		rc = vdi_entry_set(v, block, VDI_ZERO);
	else if (!rc && entry != VDI_ZERO)
		return 0;
	return rc ? rc : 1;
}

int vdi_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done)
{
	struct vdi *v = img->priv;
	int rc = step_begin(v);

	(void)unmap;
	return rc ? rc : blockmap_zero(&v->m, img, off, len, hide, v, done);
}

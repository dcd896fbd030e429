/* img/vhdx/resize.c - other sizes of VHDX images. One thread, nobody else uses the image meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhdx/vhdx_int.h"

/* The size stands in the metadata; the log makes it one change. */
static int size_write(struct vhdx *v, uint64_t size)
{
	le64 raw = le64_make(size);
	int rc = 0;

	for (unsigned i = 0; i < sizeof(raw) && !rc; i++)
		rc = meta_write(&v->m.pages, v->size_at + i, &raw.b[i], 1);
	return rc ? rc : vhdx_write_all(v, true);
}

/* Takes over how many blocks such a disk has. */
static void size_take(struct vhdx *v, uint64_t size, uint64_t n_blocks)
{
	v->img->size = size;
	v->n_blocks = n_blocks;
	v->n_entries = vhdx_bat_entries(v, n_blocks);
}

/* A larger BAT at the end of the file. Both tables of regions say where the old one is until they are
 * written, one after the other: each is whole by itself. */
static int bat_move(struct vhdx *v, uint64_t len)
{
	uint64_t at = v->end, old = v->bat_off;
	uint8_t *buf = malloc(VHDX_MB);
	int rc = buf ? 0 : -ENOMEM;

	if (!rc)
		rc = vhdx_write_all(v, true);
	if (!rc && !file_is_device(v->file))
		rc = file_truncate(v->file, at + len);
	else if (!rc)
		rc = at + len > file_size(v->file) ? -ENOSPC
						   : file_zero(v->file, at, len, false);
	for (uint64_t i = 0; i < v->bat_len && !rc; i += VHDX_MB) {
		rc = file_read(v->file, buf, old + i, VHDX_MB);
		if (!rc)
			rc = file_write(v->file, buf, at + i, VHDX_MB);
	}
	free(buf);
	/* What the log has is for the old place: it must be empty. */
	if (!rc)
		rc = vhdx_finish(v);
	if (rc)
		return rc;
	v->end = at + len;
	v->bat_off = at;
	v->bat_len = len;
	rc = vhdx_regions_write(v);
	meta_pages_fini(&v->m.pages);
	return rc ? rc : meta_pages_init(&v->m.pages, v->file, VHDX_PAGE);
}

/* Entries that come into use: of blocks that are not there, or (fixed) of new ones. */
static int entries_begin(struct vhdx *v, uint64_t from, uint64_t n_entries)
{
	int rc = 0;

	for (uint64_t i = from; i < n_entries && !rc; i++) {
		bool bitmap = i % (v->chunk_ratio + 1) == v->chunk_ratio;
		uint64_t e = 0;

		if (v->fixed && !bitmap) {
			uint64_t end = v->end + v->block_size;

			if (file_is_device(v->file))
				return -ENOTSUP;
			rc = file_truncate(v->file, end);
			if (rc)
				break;
			e = v->end | VHDX_PRESENT;
			v->end = end;
		}
		rc = vhdx_entry_set(v, i, e);
		if (!rc && meta_pages_pressed(&v->m.pages))
			rc = vhdx_write_all(v, false);
	}
	return rc ? rc : vhdx_write_all(v, true);
}

static int grow(struct vhdx *v, uint64_t size, uint64_t n_blocks)
{
	uint64_t from = v->n_entries, n = vhdx_bat_entries(v, n_blocks);
	int rc = 0;

	if (n * 8 > v->bat_len)
		rc = bat_move(v, align_up(n * 8, VHDX_MB));
	if (rc)
		return rc;
	v->n_entries = n;
	rc = entries_begin(v, from, n);
	if (!rc)
		rc = size_write(v, size);
	if (rc) {
		v->n_entries = from;
		return rc;
	}
	size_take(v, size, n_blocks);
	return 0;
}

static int shrink(struct vhdx *v, uint64_t size, uint64_t n_blocks)
{
	uint64_t n = vhdx_bat_entries(v, n_blocks);
	int rc = size_write(v, size);

	for (uint64_t i = n; i < v->n_entries && !rc; i++) {
		rc = vhdx_entry_set(v, i, 0);
		if (!rc && meta_pages_pressed(&v->m.pages))
			rc = vhdx_write_all(v, false);
	}
	if (!rc)
		rc = vhdx_write_all(v, true);
	if (rc)
		return rc;
	size_take(v, size, n_blocks);
	return vhdx_compact(v);
}

int vhdx_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
		struct err *err)
{
	struct vhdx *v = img->priv;
	uint64_t old = img->size, n, end;
	int rc;

	size = align_up(size, v->sector);
	n = size / v->block_size + !!(size % v->block_size);
	if (img->has_backing)
		return err_set(err, ENOTSUP,
			       "'%s' is a differencing image, which has its parent's "
			       "size",
			       img->path);
	if (prealloc != IMG_PREALLOC_OFF && !v->fixed)
		return err_set(err, ENOTSUP,
			       "dynamic VHDX images are not grown preallocated");
	if (size > VHDX_MAX_SIZE)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VHDX image, which holds 64 "
			       "TiB",
			       (unsigned long long)size);
	rc = img_write_zeroes(img, 0, 0, false); /* begins to write */
	if (!rc)
		rc = size < old ? shrink(v, size, n) : grow(v, size, n);
	/* What the last block has behind the disk's old end would come to light. */
	end = min_u64(align_up(old, v->block_size), size);
	if (!rc && end > old)
		rc = img_write_zeroes(img, old, end - old, false);
	return rc ? err_sys(err, -rc, "cannot resize '%s'", img->path) : 0;
}

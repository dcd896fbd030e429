/*
 * img/vhdx/write.c - changes of VHDX images: new blocks, sectors' bits, the table, all through the log. Any
 * thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhdx/vhdx_int.h"

/* ---- the file's end ---- */

/* Makes the file `len` longer, with zeros. *at is where. lock held. */
static int extend(struct vhdx *v, uint64_t len, uint64_t *at)
{
	uint64_t end = v->end + len;
	int rc = 0;

	if (end > (uint64_t)INT64_MAX / 2)
		return -EFBIG;
	if (!file_is_device(v->file))
		rc = file_truncate(v->file, end);
	else if (end > file_size(v->file))
		rc = -ENOSPC;
	if (rc)
		return rc;
	*at = v->end;
	v->end = end;
	return 0;
}

/* ---- opening for writing ---- */

int vhdx_replay(struct vhdx *v, struct err *err)
{
	struct meta_list l = {0};
	int rc;

	if (guid_is_zero(&v->header.log))
		return 0;
	/* The file is changed: whoever knows it by this identifier has to see that. */
	rc = guid_make(&v->header.file_write, false);
	if (!rc)
		rc = vhdx_header_update(v);
	if (!rc && v->replay_file_len > file_size(v->file) && !file_is_device(v->file))
		rc = file_truncate(v->file, v->replay_file_len);
	if (!rc)
		rc = meta_list_take(&v->m.pages, &l);
	if (!rc)
		rc = meta_list_write(v->file, &l);
	if (!rc)
		rc = file_sync(v->file);
	meta_list_done(&v->m.pages, &l, rc);
	meta_list_free(&l);
	if (!rc) {
		memset(&v->header.log, 0, sizeof(v->header.log));
		rc = vhdx_header_update(v);
	}
	v->end = max_u64(v->end, align_up(file_size(v->file), VHDX_MB));
	return rc ? err_sys(err, -rc, "cannot replay the log of '%s'", v->img->path)
		  : 0;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Where things are: the first MiB, and how many. */
#define SPAN(mib, n)  ((uint64_t)(mib) << 16 | (n))
#define SPAN_START(s) ((s) >> 16)
#define SPAN_END(s)   (((s) >> 16) + ((s)&0xffff))

/* Is entry `index` a place in the file, and of how many MiB? */
static uint64_t entry_span(const struct vhdx *v, uint64_t index, uint64_t e)
{
	bool bitmap = index % (v->chunk_ratio + 1) == v->chunk_ratio;
	unsigned state = VHDX_STATE(e);

	if (state != VHDX_PRESENT && (bitmap || state != VHDX_PARTIAL))
		return 0;
	return SPAN(VHDX_MIB(e), bitmap ? 1 : v->block_size / VHDX_MB);
}

int vhdx_blocks_check(struct vhdx *v, struct err *err)
{
	uint64_t most = v->end / VHDX_MB + 3, n = 0, last;
	uint64_t *list = mem_new(min_u64(most, v->n_entries) + 4, sizeof(*list));
	int rc =
		list ? 0 : err_set(err, ENOMEM, "no memory to open '%s'", v->img->path);

	if (rc)
		return rc;
	list[n++] = SPAN(0, 1);
	list[n++] = SPAN(v->log_off / VHDX_MB, v->log_len / VHDX_MB);
	list[n++] = SPAN(v->bat_off / VHDX_MB, min_u64(0xffff, v->bat_len / VHDX_MB));
	list[n++] = SPAN(v->meta_off / VHDX_MB, min_u64(0xffff, v->meta_len / VHDX_MB));
	for (uint64_t i = 0; i < v->n_entries && !rc; i++) {
		uint64_t e, span;

		rc = vhdx_entry(v, i, &e);
		if (rc) {
			err_sys(err, -rc, "cannot read '%s'", v->img->path);
			break;
		}
		span = entry_span(v, i, e);
		if (!span)
			continue;
		if (n >= most || SPAN_START(span) >= v->end / VHDX_MB)
			rc = err_set(err, EIO,
				     "'%s' is damaged: entry %llu of its BAT is at MiB "
				     "%llu, the file has %llu: repair it first",
				     v->img->path, (unsigned long long)i,
				     (unsigned long long)VHDX_MIB(e),
				     (unsigned long long)v->end / VHDX_MB);
		else
			list[n++] = span;
	}
	qsort(list, n, sizeof(*list), by_number);
	for (uint64_t i = 1; i < n && !rc; i++)
		if (SPAN_START(list[i]) < SPAN_END(list[i - 1]))
			rc = err_set(err, EIO,
				     "'%s' is damaged: what is at MiB %llu overlaps "
				     "what is at %llu: repair it first",
				     v->img->path,
				     (unsigned long long)SPAN_START(list[i]),
				     (unsigned long long)SPAN_START(list[i - 1]));
	/* The last block may be cut where the disk ends. */
	last = SPAN_END(list[n - 1]) * VHDX_MB;
	v->end = max_u64(v->end, last);
	free(list);
	return rc;
}

int vhdx_begin_write(struct img *img)
{
	struct vhdx *v = img->priv;
	int rc = guid_make(&v->header.file_write, false);

	if (!rc)
		rc = guid_make(&v->header.data_write, false);
	if (!rc)
		rc = guid_make(&v->log_id, false);
	if (!rc && !file_is_device(v->file) && file_size(v->file) < v->end)
		rc = file_truncate(v->file, v->end);
	if (!rc && v->regions_differ) /* a crash came between the two */
		rc = vhdx_regions_write(v);
	return rc ? rc : vhdx_header_update(v);
}

/* ---- writing back ---- */

int vhdx_write_all(struct vhdx *v, bool durable)
{
	size_t room = vhdx_log_room(v);
	struct meta_list l;
	int rc;

	pthread_mutex_lock(&v->m.flush_lock);
	pthread_mutex_lock(&v->m.lock);
	rc = meta_list_take(&v->m.pages, &l);
	v->log_file_len = v->end;
	pthread_mutex_unlock(&v->m.lock);
	if (!rc && (l.n || durable)) {
		rc = file_sync(v->file);
		if (!rc)
			v->in_place = false;
	}
	for (size_t i = 0; i < l.n && !rc; i += room)
		rc = vhdx_log_write(v, &l, i, min_u64(room, l.n - i));
	pthread_mutex_lock(&v->m.lock);
	meta_list_done(&v->m.pages, &l, rc);
	pthread_mutex_unlock(&v->m.lock);
	meta_list_free(&l);
	pthread_mutex_unlock(&v->m.flush_lock);
	return rc;
}

int vhdx_flush(struct img *img)
{
	return vhdx_write_all(img->priv, true);
}

int vhdx_finish(struct vhdx *v)
{
	int rc = vhdx_write_all(v, true);

	if (rc || guid_is_zero(&v->header.log))
		return rc;
	rc = file_sync(v->file);
	if (rc)
		return rc;
	v->in_place = false;
	memset(&v->header.log, 0, sizeof(v->header.log));
	return vhdx_header_update(v);
}

static int step_begin(struct vhdx *v)
{
	return blockmap_pressed(&v->m) ? vhdx_write_all(v, false) : 0;
}

/* ---- new blocks ---- */

static int alloc_locked(struct vhdx *v, uint64_t off, uint64_t len, struct img_place *p)
{
	uint64_t block = off / v->block_size, in = off % v->block_size, e, at;
	int rc = vhdx_entry(v, vhdx_block_index(v, block), &e);

	if (rc)
		return rc;
	if (VHDX_STATE(e) == VHDX_PARTIAL) { /* in its place, but not all of it */
		p->len = min_u64(len, v->block_size - in);
		p->file_off = VHDX_MIB(e) * VHDX_MB + in;
		return 0;
	}
	p->len = in || len < v->block_size ? min_u64(len, v->block_size - in)
					   : len - len % v->block_size;
	rc = extend(v, align_up(in + p->len, v->block_size), &at);
	p->file_off = at + in;
	p->fresh = true;
	p->zero = !file_is_device(v->file);
	return rc;
}

int vhdx_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	struct vhdx *v = img->priv;
	int rc = step_begin(v);

	*p = (struct img_place){.file = v->file};
	if (rc)
		return rc;
	pthread_mutex_lock(&v->m.lock);
	rc = alloc_locked(v, off, len, p);
	pthread_mutex_unlock(&v->m.lock);
	return rc;
}

/* ---- sectors' bits ---- */

/* The bitmap block of a block's chunk: a new one if there is none. */
static int bitmap_own(struct vhdx *v, uint64_t block)
{
	uint64_t index = vhdx_bitmap_index(v, block), e, at;
	int rc = vhdx_entry(v, index, &e);

	if (rc || VHDX_STATE(e) == VHDX_PRESENT)
		return rc;
	rc = extend(v, VHDX_MB, &at);
	if (!rc && file_is_device(v->file))
		rc = file_zero(v->file, at, VHDX_MB, false);
	return rc ? rc : vhdx_entry_set(v, index, at | VHDX_PRESENT);
}

static int bits_set(struct vhdx *v, uint64_t bits_off, uint64_t first, uint64_t n,
		    bool set)
{
	for (uint64_t i = first; i < first + n;) {
		uint64_t pos = bits_off + i / 8;
		struct meta_page *p;
		int rc = meta_page_get(&v->m.pages, pos, &p);
		uint8_t *byte;

		if (rc)
			return rc;
		byte = &p->data[pos % VHDX_PAGE];
		if (!(i % 8) && first + n - i >= 8) {
			*byte = set ? 0xff : 0;
			i += 8;
		} else {
			uint8_t bit = (uint8_t)(1u << i % 8);

			*byte = set ? *byte | bit : *byte & (uint8_t)~bit;
			i++;
		}
		meta_page_dirty(&v->m.pages, p);
	}
	return 0;
}

/* ---- what is written counts ---- */

/* A block of which only some sectors are here. */
static int link_part(struct vhdx *v, uint64_t off, const struct img_place *p)
{
	uint64_t block = off / v->block_size, in = off % v->block_size, bits_off;
	int rc = bitmap_own(v, block);

	if (!rc)
		rc = vhdx_bits_off(v, block, &bits_off);
	if (!rc && p->fresh) /* nothing that was there before counts */
		rc = bits_set(v, bits_off, 0, v->block_size / v->sector, false);
	if (!rc)
		rc = bits_set(v, bits_off, in / v->sector,
			      (p->len + v->sector - 1) / v->sector, true);
	if (!rc && p->fresh)
		rc = vhdx_entry_set(v, vhdx_block_index(v, block),
				    (p->file_off - in) | VHDX_PARTIAL);
	return rc;
}

static int link_whole(struct vhdx *v, uint64_t off, const struct img_place *p)
{
	uint64_t block = off / v->block_size, n = p->len / v->block_size, i = 0, old;
	int rc = vhdx_entry(v, vhdx_block_index(v, block), &old);

	if (rc)
		return rc;
	/* All were alike, as far as one sees from outside. */
	old = VHDX_STATE(old) == VHDX_NOT_PRESENT ? VHDX_NOT_PRESENT : VHDX_ZERO;
	for (; i < n && !rc; i++)
		rc = vhdx_entry_set(v, vhdx_block_index(v, block + i),
				    (p->file_off + i * v->block_size) | VHDX_PRESENT);
	/* What was set is in memory: setting it again cannot fail. */
	for (; rc && i > 0; i--)
		vhdx_entry_set(v, vhdx_block_index(v, block + i - 1), old);
	return rc;
}

int vhdx_link(struct img *img, uint64_t off, const struct img_place *p)
{
	struct vhdx *v = img->priv;
	bool whole = p->fresh && !(off % v->block_size) && !(p->len % v->block_size);
	int rc = step_begin(v);

	if (rc)
		return rc;
	pthread_mutex_lock(&v->m.lock);
	rc = whole ? link_whole(v, off, p) : link_part(v, off, p);
	pthread_mutex_unlock(&v->m.lock);
	return rc;
}

/* The file's end goes back if nothing came behind it. */
void vhdx_unalloc(struct img *img, const struct img_place *p)
{
	struct vhdx *v = img->priv;

	if (!p->fresh || p->file_off % VHDX_MB || p->len % v->block_size)
		return;
	pthread_mutex_lock(&v->m.lock);
	if (p->file_off + p->len == v->end && !file_is_device(v->file) &&
	    p->file_off >= v->log_file_len && !file_truncate(v->file, p->file_off))
		v->end = p->file_off;
	pthread_mutex_unlock(&v->m.lock);
}

/* ---- zeros ---- */

static int hide(void *ctx, uint64_t block)
{
	struct vhdx *v = ctx;
	uint64_t index = vhdx_block_index(v, block), e;
	int rc = vhdx_entry(v, index, &e);

	if (!rc && VHDX_STATE(e) == VHDX_NOT_PRESENT)
		rc = vhdx_entry_set(v, index, VHDX_ZERO);
	else if (!rc && VHDX_STATE(e) != VHDX_ZERO)
		return 0;
	return rc ? rc : 1;
}

int vhdx_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done)
{
	struct vhdx *v = img->priv;
	int rc = step_begin(v);

	(void)unmap;
	return rc ? rc : blockmap_zero(&v->m, img, off, len, hide, v, done);
}

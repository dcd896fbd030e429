/* img/blockmap.c - what formats with a table of blocks share. Any thread. */
#include "img/blockmap.h"

#include "base/bits.h"

int blockmap_init(struct blockmap *m, struct img_file *file, uint32_t page)
{
	pthread_mutex_init(&m->flush_lock, NULL);
	pthread_mutex_init(&m->lock, NULL);
	return meta_pages_init(&m->pages, file, page);
}

void blockmap_fini(struct blockmap *m)
{
	meta_pages_fini(&m->pages);
	pthread_mutex_destroy(&m->lock);
	pthread_mutex_destroy(&m->flush_lock);
}

bool blockmap_pressed(struct blockmap *m)
{
	bool pressed;

	pthread_mutex_lock(&m->lock);
	pressed = meta_pages_pressed(&m->pages);
	pthread_mutex_unlock(&m->lock);
	return pressed;
}

int blockmap_flush(struct blockmap *m, bool durable, int (*head)(void *ctx), void *ctx)
{
	struct img_file *f = m->pages.file;
	struct meta_list l;
	int rc;

	pthread_mutex_lock(&m->flush_lock);
	pthread_mutex_lock(&m->lock);
	rc = meta_list_take(&m->pages, &l);
	if (!rc && head)
		rc = head(ctx);
	pthread_mutex_unlock(&m->lock);
	if (!rc && (l.n || durable))
		rc = file_sync(f);
	if (!rc)
		rc = meta_list_write(f, &l);
	if (!rc && l.n && durable)
		rc = file_sync(f);
	pthread_mutex_lock(&m->lock);
	meta_list_done(&m->pages, &l, rc);
	pthread_mutex_unlock(&m->lock);
	meta_list_free(&l);
	pthread_mutex_unlock(&m->flush_lock);
	return rc;
}

static int map_locked(uint32_t block_size, blockmap_one *one, void *ctx, uint64_t off,
		      uint64_t len, struct img_extent *e)
{
	uint64_t block = off / block_size, in = off % block_size;
	int rc = one(ctx, block, in, min_u64(len, block_size - in), e);

	if (rc || e->len < block_size - in)
		return rc;
	while (e->len < len) {
		struct img_extent next;

		if (one(ctx, ++block, 0, min_u64(len - e->len, block_size), &next) ||
		    next.kind != e->kind || next.grain != e->grain ||
		    (e->kind == IMG_DATA && next.file_off != e->file_off + e->len))
			break;
		e->len += next.len;
		if (next.len < block_size)
			break;
	}
	return 0;
}

int blockmap_map(struct blockmap *m, uint32_t block_size, blockmap_one *one, void *ctx,
		 uint64_t off, uint64_t len, struct img_extent *e)
{
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = map_locked(block_size, one, ctx, off, len, e);
	pthread_mutex_unlock(&m->lock);
	return rc;
}

int blockmap_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done)
{
	struct img_extent e;
	int rc;

	*done = len;
	if (off >= img->size)
		return 0;
	rc = img->fmt->map(img, off, min_u64(len, img->size - off), &e);
	if (rc)
		return rc;
	if (e.kind == IMG_DATA)
		file_discard(e.file, e.file_off, e.len);
	*done = off + e.len < img->size ? e.len : len;
	return 0;
}

int blockmap_zero(struct blockmap *m, struct img *img, uint64_t off, uint64_t len,
		  int (*hide)(void *ctx, uint64_t block), void *ctx, uint64_t *done)
{
	uint64_t block = off / img->unit, n = len / img->unit, i = 0;
	int did = 1;

	if (!img->has_backing)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&m->lock);
	while (i < n && (did = hide(ctx, block + i)) > 0)
		i++;
	pthread_mutex_unlock(&m->lock);
	*done = i * img->unit;
	return did < 0 ? did : i ? 0 : -EOPNOTSUPP;
}

/*
 * img/unpack.c - reads compressed units: codec work spaces that are used again, and the last few units
 * for readers that take them in small pieces. Any thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

/* Units kept per image. */
#define KEEP     8
/* Larger numbers are damage: the largest cluster of any format here is 2 MiB, of others 64 MiB. */
#define MAX_UNIT (64u << 20)

struct img_work {
	struct img_work *next;
	struct codec_work *codec;
	uint8_t *packed;
	size_t packed_size;
};

struct unit {
	const struct img_file *file;
	uint64_t file_off;
	uint8_t *data;
	uint32_t len;
	uint32_t users; /* being read; also 1 while it stands in the cache */
	uint64_t used;  /* the cache's count of uses when it was last used */
};

struct img_unit_cache {
	struct unit *unit[KEEP];
	uint64_t uses;
};

/* ---- work spaces ---- */

static void work_free(struct img_work *w)
{
	codec_work_free(w->codec);
	free(w->packed);
	free(w);
}

static struct img_work *work_take(struct img *img)
{
	struct img_work *w;

	pthread_mutex_lock(&img->work_lock);
	w = img->work;
	if (w)
		img->work = w->next;
	pthread_mutex_unlock(&img->work_lock);
	if (w)
		return w;
	w = NEW(struct img_work);
	if (w && !(w->codec = codec_work_new())) {
		free(w);
		w = NULL;
	}
	return w;
}

static void work_give(struct img *img, struct img_work *w)
{
	pthread_mutex_lock(&img->work_lock);
	w->next = img->work;
	img->work = w;
	pthread_mutex_unlock(&img->work_lock);
}

/* ---- kept units ---- */

static void unit_put_locked(struct unit *u)
{
	if (--u->users)
		return;
	free(u->data);
	free(u);
}

static void unit_put(struct img *img, struct unit *u)
{
	pthread_mutex_lock(&img->work_lock);
	unit_put_locked(u);
	pthread_mutex_unlock(&img->work_lock);
}

static struct unit *unit_find(struct img *img, const struct img_extent *e)
{
	struct unit *found = NULL;

	pthread_mutex_lock(&img->work_lock);
	for (unsigned i = 0; img->units && i < KEEP && !found; i++) {
		struct unit *u = img->units->unit[i];

		if (u && u->file_off == e->file_off && u->file == e->file &&
		    u->len == e->unit_len) {
			u->used = ++img->units->uses;
			u->users++;
			found = u;
		}
	}
	pthread_mutex_unlock(&img->work_lock);
	return found;
}

/* Puts it in the place of the one that was not used for longest. */
static void unit_keep(struct img *img, struct unit *u)
{
	struct img_unit_cache *c;
	unsigned at = 0;

	pthread_mutex_lock(&img->work_lock);
	if (!img->units)
		img->units = NEW(struct img_unit_cache);
	c = img->units;
	for (unsigned i = 0; c && i < KEEP; i++) {
		if (!c->unit[i]) {
			at = i;
			break;
		}
		if (c->unit[i]->used < c->unit[at]->used)
			at = i;
	}
	if (c) {
		if (c->unit[at])
			unit_put_locked(c->unit[at]);
		c->unit[at] = u;
		u->used = ++c->uses;
		u->users++;
	}
	pthread_mutex_unlock(&img->work_lock);
}

void unpack_forget(struct img *img)
{
	pthread_mutex_lock(&img->work_lock);
	for (unsigned i = 0; img->units && i < KEEP; i++) {
		if (img->units->unit[i])
			unit_put_locked(img->units->unit[i]);
		img->units->unit[i] = NULL;
	}
	pthread_mutex_unlock(&img->work_lock);
}

void unpack_fini(struct img *img)
{
	unpack_forget(img);
	free(img->units);
	img->units = NULL;
	while (img->work) {
		struct img_work *w = img->work;

		img->work = w->next;
		work_free(w);
	}
}

/* ---- reading ---- */

static int work_read_packed(struct img_work *w, const struct img_extent *e)
{
	if (w->packed_size < e->packed_len) {
		free(w->packed);
		w->packed_size = 0;
		w->packed = mem_new(e->packed_len, 1);
		if (!w->packed)
			return -ENOMEM;
		w->packed_size = e->packed_len;
	}
	return file_read(e->file, w->packed, e->file_off, e->packed_len);
}

static int unit_load(struct img *img, const struct img_extent *e, struct unit **out)
{
	struct unit *u = NEW(struct unit);
	struct img_work *w = work_take(img);
	int rc = u && w ? 0 : -ENOMEM;

	if (!rc && !(u->data = malloc(e->unit_len)))
		rc = -ENOMEM;
	if (!rc)
		rc = work_read_packed(w, e);
	if (!rc &&
	    e->codec->unpack(w->codec, w->packed, e->packed_len, u->data, e->unit_len))
		rc = -EIO;
	if (w)
		work_give(img, w);
	if (rc) {
		if (u)
			free(u->data);
		free(u);
		return rc;
	}
	u->file = e->file;
	u->file_off = e->file_off;
	u->len = e->unit_len;
	u->users = 1;
	*out = u;
	return 0;
}

/* A whole unit that goes to one piece of memory is unpacked there. */
static int unpack_whole(struct img *img, const struct img_extent *e, struct iov_pos *p)
{
	struct img_work *w = work_take(img);
	int rc = w ? work_read_packed(w, e) : -ENOMEM;

	if (!rc && e->codec->unpack(w->codec, w->packed, e->packed_len,
				    (uint8_t *)p->v->iov_base + p->skip, e->unit_len))
		rc = -EIO;
	if (w)
		work_give(img, w);
	if (!rc)
		iov_pos_advance(p, e->unit_len);
	return rc;
}

int unpack_read(struct img *img, const struct img_extent *e, struct iov_pos *p,
		uint64_t len)
{
	struct unit *u;
	int rc;

	if (e->unit_len > MAX_UNIT || e->packed_len > MAX_UNIT ||
	    !range_ok(e->unit_off, len, e->unit_len))
		return -EIO;
	if (!e->unit_off && len == e->unit_len && p->n &&
	    p->v->iov_len - p->skip >= len)
		return unpack_whole(img, e, p);
	u = unit_find(img, e);
	if (!u) {
		rc = unit_load(img, e, &u);
		if (rc)
			return rc;
		if (len < e->unit_len) /* the rest of it is wanted soon */
			unit_keep(img, u);
	}
	iov_pos_put(p, u->data + e->unit_off, len);
	unit_put(img, u);
	return 0;
}

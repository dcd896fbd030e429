/* img/meta.c - pieces of an image's tables in memory. The format's lock is held; any thread. */
#include "img/meta.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"

#define N_BUCKETS 4096
/* Pages that are as in the file are dropped when there are more bytes of pages than this. */
#define MAX_BYTES (16u << 20)
/* As many changed pages are worth a flush: a VHDX log entry of the smallest log holds them. */
#define MAX_DIRTY 128

int meta_pages_init(struct meta_pages *m, struct img_file *file, uint32_t size)
{
	*m = (struct meta_pages){.file = file, .size = size};
	m->buckets = mem_new(N_BUCKETS, sizeof(m->buckets[0]));
	return m->buckets ? 0 : -ENOMEM;
}

/* Frees what is clean, or everything. */
static void drop(struct meta_pages *m, bool all)
{
	for (size_t i = 0; i < N_BUCKETS; i++) {
		struct meta_page **at = &m->buckets[i], *p;

		while ((p = *at)) {
			if (!all && (p->dirty || p->writing)) {
				at = &p->next;
				continue;
			}
			*at = p->next;
			free(p);
			m->n--;
		}
	}
}

void meta_pages_fini(struct meta_pages *m)
{
	if (m->buckets)
		drop(m, true);
	free(m->buckets);
	m->buckets = NULL;
}

static struct meta_page **bucket(const struct meta_pages *m, uint64_t off)
{
	uint64_t h = off / m->size * 0x9e3779b97f4a7c15ull;

	return &m->buckets[h >> 52];
}

int meta_page_get(struct meta_pages *m, uint64_t off, struct meta_page **out)
{
	struct meta_page *p;
	int rc;

	off = align_down(off, m->size);
	for (p = *bucket(m, off); p; p = p->next)
		if (p->off == off) {
			*out = p;
			return 0;
		}
	if (m->n * m->size >= MAX_BYTES)
		drop(m, false);
	p = malloc(sizeof(*p) + m->size);
	if (!p)
		return -ENOMEM;
	rc = file_read(m->file, p->data, off, m->size);
	if (rc) {
		free(p);
		return rc;
	}
	p->off = off;
	p->dirty = p->writing = false;
	p->next = *bucket(m, off);
	*bucket(m, off) = p;
	m->n++;
	*out = p;
	return 0;
}

void meta_page_dirty(struct meta_pages *m, struct meta_page *p)
{
	m->n_dirty += !p->dirty;
	p->dirty = true;
}

bool meta_pages_pressed(const struct meta_pages *m)
{
	return m->n_dirty >= MAX_DIRTY;
}

void meta_pages_forget(struct meta_pages *m, uint64_t off, uint64_t len)
{
	for (uint64_t o = align_down(off, m->size); o < off + len; o += m->size) {
		struct meta_page **at = bucket(m, o), *p;

		while ((p = *at) && p->off != o)
			at = &p->next;
		if (!p)
			continue;
		*at = p->next;
		m->n_dirty -= p->dirty;
		m->n--;
		free(p);
	}
}

int meta_read(struct meta_pages *m, uint64_t off, void *buf, uint32_t len)
{
	struct meta_page *p;
	int rc = meta_page_get(m, off, &p);

	if (!rc)
		memcpy(buf, p->data + (off & (m->size - 1)), len);
	return rc;
}

int meta_write(struct meta_pages *m, uint64_t off, const void *buf, uint32_t len)
{
	struct meta_page *p;
	int rc = meta_page_get(m, off, &p);

	if (rc)
		return rc;
	memcpy(p->data + (off & (m->size - 1)), buf, len);
	meta_page_dirty(m, p);
	return 0;
}

/* ---- writing back ---- */

static int by_offset(const void *a, const void *b)
{
	const struct meta_copy *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

int meta_list_take(struct meta_pages *m, struct meta_list *l)
{
	*l = (struct meta_list){.size = m->size};
	if (!m->n_dirty)
		return 0;
	l->v = mem_new(m->n_dirty, sizeof(l->v[0]));
	if (!l->v)
		return -ENOMEM;
	for (size_t i = 0; i < N_BUCKETS; i++)
		for (struct meta_page *p = m->buckets[i]; p; p = p->next) {
			if (!p->dirty)
				continue;
			l->v[l->n].data = malloc(m->size);
			if (!l->v[l->n].data) {
				meta_list_done(m, l, true);
				meta_list_free(l);
				return -ENOMEM;
			}
			memcpy(l->v[l->n].data, p->data, m->size);
			l->v[l->n++].off = p->off;
			p->dirty = false;
			p->writing = true;
			m->n_dirty--;
		}
	qsort(l->v, l->n, sizeof(l->v[0]), by_offset);
	return 0;
}

int meta_list_write(struct img_file *f, const struct meta_list *l)
{
	int rc = 0;

	for (size_t i = 0; i < l->n && !rc;) {
		struct iovec v[IOV_BATCH];
		struct iov_pos p = {v, 0, 0};
		size_t first = i;

		/* Neighbours go out together. */
		while (i < l->n && p.n < IOV_BATCH &&
		       l->v[i].off == l->v[first].off + (i - first) * l->size)
			v[p.n++] = (struct iovec){l->v[i++].data, l->size};
		rc = file_writev(f, &p, l->v[first].off, (i - first) * l->size);
	}
	return rc;
}

void meta_list_done(struct meta_pages *m, const struct meta_list *l, bool failed)
{
	for (size_t i = 0; i < l->n; i++) {
		struct meta_page *p = *bucket(m, l->v[i].off);

		while (p && p->off != l->v[i].off)
			p = p->next;
		if (!p)
			continue;
		p->writing = false;
		if (failed)
			meta_page_dirty(m, p);
	}
}

void meta_list_free(struct meta_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].data);
	free(l->v);
	*l = (struct meta_list){0};
}

/*
 * img/qcow2/meta.c - qcow2's tables: a bounded cache of the pieces in use, and the one place that writes
 * them back, in an order that keeps the image whole. Any thread; see qcow2_int.h for the locks.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/qcow2_int.h"

/* Clean slices are dropped above this; half of it may be dirty. Bytes. */
#define CACHE_BYTES (32u << 20)
#define N_BUCKETS   4096
/* As many ranges wait to be freed before that is worth a flush. */
#define MANY_UNREFS 65536

/* ---- cache ---- */

static struct slice **bucket_of(struct qcow2 *q, uint64_t off)
{
	return &q->buckets[(off / q->slice_size) & (q->n_buckets - 1)];
}

static void bucket_remove(struct qcow2 *q, struct slice *s)
{
	struct slice **at = bucket_of(q, s->off);

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
}

/* A slice that nobody needs, out of its bucket; NULL if there is none. */
static struct slice *slice_evict(struct qcow2 *q)
{
	for (unsigned i = 0; i < 2 * q->n_slices; i++) {
		struct slice *s = q->slices[q->clock++ % q->n_slices];

		if (s->dirty || s->writing)
			continue;
		if (!s->recent) {
			bucket_remove(q, s);
			return s;
		}
		s->recent = false;
	}
	return NULL;
}

static struct slice *slice_new(struct qcow2 *q)
{
	struct slice *s;

	if (!q->buckets) {
		q->buckets = mem_new(N_BUCKETS, sizeof(q->buckets[0]));
		if (!q->buckets)
			return NULL;
		q->n_buckets = N_BUCKETS;
	}
	if (!(q->n_slices &
	      (q->n_slices - 1))) { /* a power of two: the array is full */
		unsigned n = q->n_slices ? q->n_slices * 2 : 1;
		struct slice **v = mem_resize(q->slices, n, sizeof(*v));

		if (!v)
			return NULL;
		q->slices = v;
	}
	s = NEW(struct slice);
	if (!s || !(s->data = malloc(q->slice_size))) {
		free(s);
		return NULL;
	}
	s->at = q->n_slices;
	q->slices[q->n_slices++] = s;
	return s;
}

/* Takes it out of slices[] for good; it is in no bucket. */
static void slice_free(struct qcow2 *q, struct slice *s)
{
	struct slice *last = q->slices[--q->n_slices];

	q->slices[s->at] = last;
	last->at = s->at;
	free(s->data);
	free(s);
}

int meta_get(struct qcow2 *q, uint64_t off, enum slice_kind kind, struct slice **out)
{
	struct slice *s = NULL, **bucket;
	int rc;

	off = align_down(off, q->slice_size);
	for (s = q->buckets ? *bucket_of(q, off) : NULL; s && s->off != off;)
		s = s->next;
	if (s) {
		s->recent = true;
		*out = s;
		/* One cluster in two roles: the image is damaged. */
		return s->kind == kind ? 0 : -EIO;
	}
	if ((uint64_t)q->n_slices * q->slice_size >= CACHE_BYTES)
		s = slice_evict(q);
	if (!s)
		s = slice_new(q);
	if (!s)
		return -ENOMEM;
	rc = file_read(q->file, s->data, off, q->slice_size);
	if (rc) {
		slice_free(q, s);
		return rc;
	}
	bucket = bucket_of(q, off);
	s->off = off;
	s->kind = (uint8_t)kind;
	s->recent = true;
	s->next = *bucket;
	*bucket = s;
	*out = s;
	return 0;
}

void meta_dirty(struct qcow2 *q, struct slice *s)
{
	if (!s->dirty)
		q->n_dirty++;
	s->dirty = true;
}

void meta_forget(struct qcow2 *q, uint64_t cluster)
{
	uint64_t off = cluster << q->cluster_bits, end = off + q->cluster_size;

	for (; q->buckets && off < end; off += q->slice_size) {
		struct slice *s = *bucket_of(q, off);

		while (s && s->off != off)
			s = s->next;
		if (!s || s->writing)
			continue;
		if (s->dirty)
			q->n_dirty--;
		bucket_remove(q, s);
		slice_free(q, s);
	}
}

bool meta_pressed(const struct qcow2 *q)
{
	return (uint64_t)q->n_dirty * q->slice_size > CACHE_BYTES / 2 ||
	       (q->fresh.n > MANY_UNREFS && !q->aging.n);
}

void table_set(struct table *t, uint64_t i, uint64_t v)
{
	t->e[i] = be64_make(v);
	t->dirty[i / TABLE_PIECE] = 1;
	t->any_dirty = true;
}

void meta_drop(struct qcow2 *q)
{
	while (q->n_slices)
		slice_free(q, q->slices[q->n_slices - 1]);
	for (unsigned i = 0; i < q->n_buckets; i++)
		q->buckets[i] = NULL;
	free(q->slices);
	q->slices = NULL;
	q->n_dirty = q->clock = 0;
	unref_free(&q->fresh);
	unref_free(&q->aging);
}

void meta_fini(struct qcow2 *q)
{
	meta_drop(q);
	free(q->buckets);
	free(q->l1.e);
	free(q->l1.dirty);
	free(q->rt.e);
	free(q->rt.dirty);
	free(q->own);
}

/* ---- write-back ---- */

/* A copy of something to be written. */
struct piece {
	uint64_t off;
	uint64_t len;
	uint8_t *data;       /* owned */
	struct slice *slice; /* or: */
	uint8_t *dirty;      /* a table's flag */
};

struct pieces {
	struct piece *v;
	size_t n, size;
};

/* In the order in which they are written. */
enum { REFCOUNTS, RT, L2, L1, N_STAGES };

struct writeback {
	struct pieces stage[N_STAGES];
	struct unref_list freed;
};

static int piece_add(struct pieces *l, uint64_t off, const void *data, uint64_t len,
		     struct piece **out)
{
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 16;
		struct piece *v = mem_resize(l->v, size, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->size = size;
	}
	*out = &l->v[l->n];
	**out = (struct piece){.off = off, .len = len, .data = malloc(len)};
	if (!(*out)->data)
		return -ENOMEM;
	memcpy((*out)->data, data, len);
	l->n++;
	return 0;
}

static int collect_slices(struct qcow2 *q, struct writeback *w)
{
	for (unsigned i = 0; q->n_dirty && i < q->n_slices; i++) {
		struct slice *s = q->slices[i];
		struct piece *p;
		int rc;

		if (!s->dirty)
			continue;
		rc = piece_add(&w->stage[s->kind == SLICE_L2 ? L2 : REFCOUNTS], s->off,
			       s->data, q->slice_size, &p);
		if (rc)
			return rc;
		p->slice = s;
		s->dirty = false;
		s->writing = true;
		q->n_dirty--;
	}
	return 0;
}

static int collect_table(struct table *t, struct pieces *l)
{
	for (uint64_t i = 0; t->any_dirty && i * TABLE_PIECE < t->n; i++) {
		uint64_t first = i * TABLE_PIECE;
		struct piece *p;
		int rc;

		if (!t->dirty[i])
			continue;
		rc = piece_add(l, t->off + first * 8, t->e + first,
			       min_u64(TABLE_PIECE, t->n - first) * 8, &p);
		if (rc)
			return rc;
		p->dirty = &t->dirty[i];
		t->dirty[i] = 0;
	}
	t->any_dirty = false;
	return 0;
}

/* Ends a write-back: what was not written is dirty again. lock held. */
static void writeback_end(struct qcow2 *q, struct writeback *w, int rc)
{
	for (unsigned st = 0; st < N_STAGES; st++) {
		for (size_t i = 0; i < w->stage[st].n; i++) {
			struct piece *p = &w->stage[st].v[i];

			if (p->slice)
				p->slice->writing = false;
			if (rc && p->slice)
				meta_dirty(q, p->slice);
			if (rc && p->dirty) {
				*p->dirty = 1;
				(st == RT ? &q->rt : &q->l1)->any_dirty = true;
			}
			free(p->data);
		}
		free(w->stage[st].v);
	}
	if (rc) { /* they are still referred to, as far as we know */
		for (size_t i = 0; i < w->freed.n; i++)
			ref_drop(q, w->freed.v[i].first, w->freed.v[i].n,
				 w->freed.v[i].punch);
		unref_free(&w->freed);
	} else {
		ref_release(q, &w->freed);
	}
}

static int piece_order(const void *a, const void *b)
{
	uint64_t x = ((const struct piece *)a)->off, y = ((const struct piece *)b)->off;

	return x < y ? -1 : x > y;
}

/* Neighbours go out in one call. */
static int write_pieces(struct qcow2 *q, struct pieces *l)
{
	int rc = 0;

	if (l->n)
		qsort(l->v, l->n, sizeof(l->v[0]), piece_order);
	for (size_t i = 0; i < l->n && !rc;) {
		struct iovec iov[IOV_BATCH];
		struct iov_pos p = {iov, 0, 0};
		uint64_t off = l->v[i].off, len = 0;

		do {
			iov[p.n++] = (struct iovec){l->v[i].data, l->v[i].len};
			len += l->v[i].len;
			i++;
		} while (i < l->n && p.n < IOV_BATCH && l->v[i].off == off + len);
		rc = file_writev(q->file, &p, off, len);
	}
	return rc;
}

/* Writes stage after stage; a sync stands between two that have something to write. */
static int write_stages(struct qcow2 *q, struct writeback *w)
{
	bool unsynced = false;
	int rc = 0;

	/* Guests' data comes before the tables that make it visible. */
	if (w->stage[L2].n && q->external)
		rc = file_sync(q->data);
	for (unsigned st = 0; st < N_STAGES && !rc; st++) {
		if (!w->stage[st].n)
			continue;
		/* The first sync is for the data, too, even if no count was changed. */
		if (unsynced || (st >= L2 && !q->external))
			rc = file_sync(q->file);
		if (!rc)
			rc = write_pieces(q, &w->stage[st]);
		unsynced = true;
	}
	return rc;
}

int meta_flush(struct qcow2 *q, bool durable)
{
	struct writeback w = {0};
	int rc;

	pthread_mutex_lock(&q->flush_lock);
	pthread_mutex_lock(&q->lock);
	rc = collect_slices(q, &w);
	if (!rc)
		rc = collect_table(&q->rt, &w.stage[RT]);
	if (!rc)
		rc = collect_table(&q->l1, &w.stage[L1]);
	w.freed = q->fresh;
	q->fresh = (struct unref_list){0};
	pthread_mutex_unlock(&q->lock);
	if (!rc)
		rc = write_stages(q, &w);
	if (!rc && durable && q->external)
		rc = file_sync(q->data);
	if (!rc && (durable || w.freed.n))
		rc = file_sync(q->file);
	pthread_mutex_lock(&q->lock);
	writeback_end(q, &w, rc);
	pthread_mutex_unlock(&q->lock);
	pthread_mutex_unlock(&q->flush_lock);
	return rc;
}

/* ---- a larger reference count table ---- */

/* Blocks that [s, s + n) clusters need beside those there are, to stand behind them and count themselves. */
static uint64_t blocks_needed(const struct qcow2 *q, uint64_t s, uint64_t n)
{
	uint64_t blocks = 0, need = 0;

	do {
		blocks = need;
		need = 0;
		for (uint64_t rb = s >> q->rb_bits;
		     rb <= (s + n + blocks - 1) >> q->rb_bits; rb++)
			need += rb >= q->rt.n || !be64_get(q->rt.e[rb]);
	} while (need > blocks);
	return blocks;
}

/* Where `n` clusters and the blocks that count them can stand: behind everything, in a row. */
static int grow_place(struct qcow2 *q, uint64_t n, uint64_t *start, uint64_t *n_blocks)
{
	uint64_t s = max_u64(q->virgin, q->scan), c = s, v;

	*n_blocks = blocks_needed(q, s, n);
	while (c < s + n + *n_blocks) {
		int rc = ref_get(q, c, &v);

		if (rc)
			return rc;
		c++;
		if (v || own_meets(q, c - 1, 1)) {
			s = c;
			*n_blocks = blocks_needed(q, s, n);
		}
		if (s > q->virgin + QCOW2_MAX_BEYOND)
			return -EIO;
	}
	*start = s;
	return 0;
}

/* Puts `n` table clusters at s, blocks behind them, and counts them all, in the cache and the new table. */
static int grow_fill(struct qcow2 *q, uint64_t s, uint64_t n, uint64_t n_blocks)
{
	uint64_t at = s + n;
	int rc = own_add(q, s, n + n_blocks);

	for (uint64_t rb = s >> q->rb_bits; !rc && at < s + n + n_blocks; rb++) {
		if (be64_get(q->rt.e[rb]))
			continue;
		rc = file_zero(q->file, at << q->cluster_bits, q->cluster_size, false);
		table_set(&q->rt, rb, at++ << q->cluster_bits);
	}
	for (uint64_t c = s; !rc && c < s + n + n_blocks; c++)
		rc = ref_set(q, c, 1);
	q->virgin = max_u64(q->virgin, s + n + n_blocks);
	return rc;
}

/* Counts, then the table, then the header that points to it; a sync behind each. */
static int grow_write(struct qcow2 *q, uint64_t off, uint32_t n_clusters)
{
	struct {
		be64 off;
		be32 clusters;
	} ptr = {be64_make(off), be32_make(n_clusters)};
	int rc = 0;

	for (unsigned i = 0; i < q->n_slices && !rc; i++) {
		struct slice *s = q->slices[i];

		if (!s->dirty || s->kind != SLICE_REFCOUNT)
			continue;
		rc = file_write(q->file, s->data, s->off, q->slice_size);
		if (!rc) {
			s->dirty = false;
			q->n_dirty--;
		}
	}
	rc = rc ? rc : file_sync(q->file);
	rc = rc ? rc : file_write(q->file, q->rt.e, off, q->rt.n * 8);
	rc = rc ? rc : file_sync(q->file);
	rc = rc ? rc
		: file_write(q->file, &ptr, offsetof(struct qcow2_header, rt_off),
			     sizeof(ptr));
	return rc ? rc : file_sync(q->file);
}

static int grow_locked(struct qcow2 *q, uint64_t entries)
{
	uint64_t per_cluster = q->cluster_size / 8, n, start, n_blocks;
	struct table old = q->rt, new = {0};
	uint32_t n_clusters;
	int rc;

	if (q->rt.n >= entries)
		return 0;
	n = align_up(max_u64(entries + 16, q->rt.n + q->rt.n / 2), per_cluster);
	n = min_u64(n, MAX_RT_BYTES / 8);
	if (n < entries)
		return -EFBIG;
	n_clusters = (uint32_t)(n / per_cluster);
	new.e = mem_new(n, 8);
	new.dirty = mem_new(n / TABLE_PIECE + 1, 1);
	if (!new.e || !new.dirty) {
		free(new.e);
		free(new.dirty);
		return -ENOMEM;
	}
	memcpy(new.e, old.e, old.n * 8);
	new.n = n;
	q->rt = new;
	rc = grow_place(q, n_clusters, &start, &n_blocks);
	if (!rc && (start + n_clusters + n_blocks - 1) >> q->rb_bits >= n)
		rc = -EFBIG;
	if (!rc)
		rc = grow_fill(q, start, n_clusters, n_blocks);
	if (!rc)
		rc = grow_write(q, start << q->cluster_bits, n_clusters);
	if (rc) { /* the old one still stands; what was taken is lost */
		free(q->rt.e);
		free(q->rt.dirty);
		q->rt = old;
		return rc;
	}
	memset(q->rt.dirty, 0, n / TABLE_PIECE + 1);
	q->rt.any_dirty = false;
	q->rt.off = start << q->cluster_bits;
	own_remove(q, old.off >> q->cluster_bits, q->rt_clusters);
	ref_drop(q, old.off >> q->cluster_bits, q->rt_clusters, true);
	q->rt_clusters = n_clusters;
	free(old.e);
	free(old.dirty);
	return 0;
}

int meta_grow_rt(struct qcow2 *q, uint64_t entries)
{
	int rc;

	/* No write-back may be under way: it would write to the old table. */
	pthread_mutex_lock(&q->flush_lock);
	pthread_mutex_lock(&q->lock);
	rc = grow_locked(q, entries);
	pthread_mutex_unlock(&q->lock);
	pthread_mutex_unlock(&q->flush_lock);
	return rc;
}

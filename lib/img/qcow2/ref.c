/*
 * img/qcow2/ref.c - qcow2's reference counts: finding free clusters, and giving them back when neither the
 * disk nor a request under way refers to them. q->lock is held.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/qcow2_int.h"

/* ---- one count ---- */

static uint64_t count_get(const struct qcow2 *q, const uint8_t *slice, uint64_t bit)
{
	const uint8_t *p = slice + ((bit >> 3) & (q->slice_size - 1));
	unsigned bits = 1u << q->rc_order;

	switch (q->rc_order) {
	case 3: return *p;
	case 4: return __builtin_bswap16(load_u16(p));
	case 5: return __builtin_bswap32(load_u32(p));
	case 6: return be64_at(p);
	default: return bits_get(*p, bit & 7, bits); /* from the low bits up */
	}
}

static void count_set(const struct qcow2 *q, uint8_t *slice, uint64_t bit, uint64_t v)
{
	uint8_t *p = slice + ((bit >> 3) & (q->slice_size - 1));
	unsigned bits = 1u << q->rc_order, mask = (1u << (bits & 7)) - 1;

	if (q->rc_order < 3) {
		*p = (uint8_t)((*p & ~(mask << (bit & 7))) | v << (bit & 7));
		return;
	}
	v = __builtin_bswap64(v) >> (64 - bits);
	memcpy(p, &v, bits / 8);
}

/* The slice that counts `cluster`, and its bit in the block; *out is NULL where there is no block. */
static int count_find(struct qcow2 *q, uint64_t cluster, struct slice **out,
		      uint64_t *bit)
{
	uint64_t rb = cluster >> q->rb_bits, off;

	*out = NULL;
	*bit = (cluster & (BIT(q->rb_bits) - 1)) << q->rc_order;
	off = rb < q->rt.n ? be64_get(q->rt.e[rb]) & ENTRY_OFFSET : 0;
	if (!off)
		return 0;
	if (off & (q->cluster_size - 1))
		return -EIO;
	return meta_get(q, off + (*bit >> 3), SLICE_REFCOUNT, out);
}

int ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *value)
{
	struct slice *s;
	uint64_t bit;
	int rc = count_find(q, cluster, &s, &bit);

	*value = 0;
	if (!rc && s)
		*value = count_get(q, s->data, bit);
	return rc;
}

int ref_set(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
	struct slice *s;
	uint64_t bit;
	int rc = count_find(q, cluster, &s, &bit);

	if (rc || !s)
		return rc ? rc : -EINVAL;
	count_set(q, s->data, bit, value);
	meta_dirty(q, s);
	return 0;
}

/* ---- the image's own tables ---- */

static int order_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Index of the first own cluster that is not below `c`. */
static size_t own_find(const struct qcow2 *q, uint64_t c)
{
	size_t lo = 0, hi = q->n_own;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (q->own[mid] < c)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool own_meets(const struct qcow2 *q, uint64_t first, uint64_t n)
{
	size_t i = own_find(q, first);

	return i < q->n_own && q->own[i] - first < n;
}

static int own_room(struct qcow2 *q, uint64_t n)
{
	uint64_t size = max_u64(q->own_size * 2, q->n_own + n);
	uint64_t *v;

	if (q->n_own + n <= q->own_size)
		return 0;
	v = mem_resize(q->own, size, sizeof(*v));
	if (!v)
		return -ENOMEM;
	q->own = v;
	q->own_size = size;
	return 0;
}

int own_add(struct qcow2 *q, uint64_t first, uint64_t n)
{
	size_t i = own_find(q, first);

	if (own_room(q, n))
		return -ENOMEM;
	memmove(q->own + i + n, q->own + i, (q->n_own - i) * sizeof(q->own[0]));
	for (uint64_t k = 0; k < n; k++)
		q->own[i + k] = first + k;
	q->n_own += n;
	return 0;
}

void own_remove(struct qcow2 *q, uint64_t first, uint64_t n)
{
	size_t i = own_find(q, first), k = i;

	while (k < q->n_own && q->own[k] - first < n)
		k++;
	memmove(q->own + i, q->own + k, (q->n_own - k) * sizeof(q->own[0]));
	q->n_own -= k - i;
}

static void own_append(struct qcow2 *q, uint64_t first, uint64_t n)
{
	while (n--)
		q->own[q->n_own++] = first++;
}

/* What the entries of a table point to. */
static void own_append_table(struct qcow2 *q, const struct table *t)
{
	for (uint64_t i = 0; i < t->n; i++) {
		uint64_t off = be64_get(t->e[i]) & ENTRY_OFFSET;

		if (off)
			own_append(q, off >> q->cluster_bits, 1);
	}
}

static uint64_t clusters_of(const struct qcow2 *q, uint64_t bytes)
{
	return (bytes + q->cluster_size - 1) >> q->cluster_bits;
}

int own_build(struct qcow2 *q)
{
	uint64_t l1 = clusters_of(q, q->l1.n * 8);
	uint64_t crypto = clusters_of(q, q->crypt == CRYPT_LUKS ? q->crypto_len : 0);

	q->n_own = 0;
	if (own_room(q, 2 + l1 + q->rt_clusters + q->l1.n + q->rt.n + crypto))
		return -ENOMEM;
	own_append(q, q->crypto_off >> q->cluster_bits, crypto);
	own_append(q, 0, 1);
	own_append(q, q->l1.off >> q->cluster_bits, l1);
	own_append(q, q->rt.off >> q->cluster_bits, q->rt_clusters);
	if (q->n_snapshots)
		own_append(q, q->snapshots_off >> q->cluster_bits, 1);
	own_append_table(q, &q->l1);
	own_append_table(q, &q->rt);
	qsort(q->own, q->n_own, sizeof(q->own[0]), order_u64);
	return 0;
}

/* ---- taking ---- */

/* Makes free cluster `c`, which no block counts, the block that counts it and its neighbours. */
static int ref_new_block(struct qcow2 *q, uint64_t c)
{
	uint64_t rb = c >> q->rb_bits;
	int rc;

	rc = file_zero(q->file, c << q->cluster_bits, q->cluster_size, false);
	if (rc)
		return rc;
	rc = own_add(q, c, 1);
	if (rc)
		return rc;
	meta_forget(q, c);
	table_set(&q->rt, rb, c << q->cluster_bits);
	rc = ref_set(q, c, 1);
	if (rc) {
		table_set(&q->rt, rb, 0);
		own_remove(q, c, 1);
		return rc;
	}
	q->virgin = max_u64(q->virgin, c + 1);
	return 0;
}

static bool ref_usable(const struct qcow2 *q, const struct slice *s, uint64_t bit,
		       uint64_t c)
{
	return !count_get(q, s->data, bit) && !own_meets(q, c, 1);
}

/* Looks through the slice that counts *c: moves *c to the first free cluster, and takes up to n from there. */
static int ref_take(struct qcow2 *q, uint64_t *c, uint64_t n, uint64_t *got)
{
	struct slice *s;
	uint64_t bit, left;
	int rc = count_find(q, *c, &s, &bit);

	*got = 0;
	if (rc)
		return rc;
	left = (q->slice_size - ((bit >> 3) & (q->slice_size - 1))) * 8;
	left = (left - (bit & 7)) >> q->rc_order; /* counts up to the slice's end */
	for (; left && !ref_usable(q, s, bit, *c); left--) {
		bit += BIT(q->rc_order);
		++*c;
	}
	for (; left && *got < n && ref_usable(q, s, bit, *c + *got); left--) {
		count_set(q, s->data, bit, 1);
		bit += BIT(q->rc_order);
		++*got;
	}
	if (*got)
		meta_dirty(q, s);
	return 0;
}

int ref_alloc(struct qcow2 *q, uint64_t n, uint64_t *first, uint64_t *got)
{
	uint64_t c = q->scan;
	int rc = 0;

	while (!rc) {
		uint64_t rb = c >> q->rb_bits;

		if (c > q->virgin + QCOW2_MAX_BEYOND || c >> (55 - q->cluster_bits))
			return -EIO;
		if (rb >= q->rt.n)
			return -EAGAIN;
		if (!(be64_get(q->rt.e[rb]) & ENTRY_OFFSET)) {
			if (!own_meets(q, c, 1))
				rc = ref_new_block(q, c);
			c++;
			continue;
		}
		rc = ref_take(q, &c, n, got);
		if (!rc && *got) {
			*first = c;
			q->scan = c + *got;
			q->virgin = max_u64(q->virgin, q->scan);
			break;
		}
	}
	return rc;
}

/* ---- giving back ---- */

void unref_free(struct unref_list *l)
{
	free(l->v);
	*l = (struct unref_list){0};
}

void ref_drop(struct qcow2 *q, uint64_t first, uint64_t n, bool punch)
{
	struct unref_list *l = &q->fresh;
	struct unref *last = l->n ? &l->v[l->n - 1] : NULL;

	if (last && last->first + last->n == first && last->punch == punch) {
		last->n += n;
		return;
	}
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 16;
		struct unref *v = mem_resize(l->v, size, sizeof(*v));

		if (!v)
			return; /* lost until the image is checked, no harm */
		l->v = v;
		l->size = size;
	}
	l->v[l->n++] = (struct unref){first, n, punch};
}

/* Takes one reference; true when it was the last. */
static bool ref_put(struct qcow2 *q, uint64_t c)
{
	uint64_t v;

	/* A count of 0 is damage: leave it. */
	if (ref_get(q, c, &v) || !v || own_meets(q, c, 1) || ref_set(q, c, v - 1))
		return false;
	if (v > 1)
		return false;
	meta_forget(q, c);
	if (c == (q->pack_at - !!q->pack_at) >> q->cluster_bits)
		q->pack_at = 0; /* it may get another use */
	if (c < q->scan)
		q->scan = c;
	return true;
}

static void unref_release(struct qcow2 *q, const struct unref *u)
{
	uint64_t run = 0, c;

	for (c = u->first; c < u->first + u->n; c++) {
		if (ref_put(q, c)) {
			run++;
			continue;
		}
		if (run && u->punch)
			file_discard(q->file, (c - run) << q->cluster_bits,
				     run << q->cluster_bits);
		run = 0;
	}
	if (run && u->punch)
		file_discard(q->file, (c - run) << q->cluster_bits,
			     run << q->cluster_bits);
}

/* Nobody refers to what is in the list. */
static void list_release(struct qcow2 *q, struct unref_list *l)
{
	if (!l->n)
		return;
	for (size_t i = 0; i < l->n; i++)
		unref_release(q, &l->v[i]);
	unpack_forget(q->img);
	unref_free(l);
}

/*
 * Requests that looked at the old tables may still be under way: what is in `aging` was taken off before the
 * present generation of them began, so it is free when the generation before has gone.
 */
void ref_release(struct qcow2 *q, struct unref_list *done)
{
	struct img_grace *g = &q->img->grace;

	if (q->aging.n && grace_old_gone(g))
		list_release(q, &q->aging);
	if (q->aging.n || !done->n || !grace_old_gone(g)) {
		for (size_t i = 0; i < done->n; i++)
			ref_drop(q, done->v[i].first, done->v[i].n, done->v[i].punch);
		unref_free(done);
		return;
	}
	unref_free(&q->aging);
	q->aging = *done;
	*done = (struct unref_list){0};
	grace_turn(g);
	if (grace_old_gone(g))
		list_release(q, &q->aging);
}

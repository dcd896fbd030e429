/*
 * img/qcow2/walk.c - goes through all of a qcow2 image's tables and counts what refers to each cluster.
 * An L2 table that many snapshots share is read once. One thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"

/* More findings than this are counted and not told. */
#define MAX_SAID     1000
/* As QEMU has it. */
#define MAX_CLUSTERS INT32_MAX
/* Together; more are damage, or would be read for hours. */
#define MAX_L1_SUM   (4ull << 30)
#define MAX_TABLES   (16u << 20)
/* Tables that lie near each other are read at once. */
#define WALK_WINDOW  (2u << 20)
#define NEAR         (64u << 10)

#define L1_RESERVED     0x7f000000000001ffull
#define L2_RESERVED     0x3f000000000001feull
#define BITMAP_RESERVED 0xff000000000001feull

enum { CHUNK_BYTES = 4096 };

/* ---- counts ---- */

static unsigned chunk_shift(const struct refs *r)
{
	return 12 - r->shift;
}

uint32_t refs_get(const struct refs *r, uint64_t c)
{
	const uint8_t *p = c < r->n ? r->chunk[c >> chunk_shift(r)] : NULL;
	uint64_t i = c & (BIT(chunk_shift(r)) - 1);

	if (!p)
		return 0;
	switch (r->shift) {
	case 0: return p[i];
	case 1: return ((const uint16_t *)p)[i];
	default: return ((const uint32_t *)p)[i];
	}
}

void refs_set(struct refs *r, uint64_t c, uint32_t v)
{
	uint8_t *p = c < r->n ? r->chunk[c >> chunk_shift(r)] : NULL;
	uint64_t i = c & (BIT(chunk_shift(r)) - 1);

	if (!p)
		return;
	switch (r->shift) {
	case 0: p[i] = (uint8_t)v; break;
	case 1: ((uint16_t *)p)[i] = (uint16_t)v; break;
	default: ((uint32_t *)p)[i] = v; break;
	}
}

/* *over: how many did not fit. */
static int refs_add(struct refs *r, uint64_t c, uint32_t times, uint32_t *over)
{
	uint8_t **chunk = &r->chunk[c >> chunk_shift(r)];
	uint64_t sum;

	if (!*chunk) {
		if (r->bytes + CHUNK_BYTES > REFS_MAX_BYTES)
			return -EFBIG;
		*chunk = mem_new(CHUNK_BYTES, 1);
		if (!*chunk)
			return -ENOMEM;
		r->bytes += CHUNK_BYTES;
	}
	sum = (uint64_t)refs_get(r, c) + times;
	*over = sum > r->max ? (uint32_t)(sum - r->max) : 0;
	refs_set(r, c, (uint32_t)min_u64(sum, r->max));
	return 0;
}

static int refs_init(struct refs *r, unsigned rc_order, uint64_t n)
{
	r->shift = rc_order <= 3 ? 0 : rc_order == 4 ? 1 : 2;
	r->max = rc_order >= 5 ? UINT32_MAX : (uint32_t)(BIT(1u << rc_order) - 1);
	r->n = n;
	r->chunk = mem_new((n >> chunk_shift(r)) + 1, sizeof(r->chunk[0]));
	return r->chunk ? 0 : -ENOMEM;
}

static void refs_fini(struct refs *r)
{
	for (uint64_t i = 0; r->chunk && i <= r->n >> chunk_shift(r); i++)
		free(r->chunk[i]);
	free(r->chunk);
	r->chunk = NULL;
}

/* ---- the walk ---- */

int walk_init(struct walk *w, struct qcow2 *q, struct img_check *c)
{
	*w = (struct walk){.q = q, .c = c, .file_len = file_size(q->file)};
	w->n = (w->file_len + q->cluster_size - 1) >> q->cluster_bits;
	if (w->n > MAX_CLUSTERS)
		return -EFBIG;
	w->buf = malloc(WALK_WINDOW);
	if (!w->buf)
		return -ENOMEM;
	/* Room for new clusters behind the end. */
	return refs_init(&w->refs, q->rc_order, w->n * 2 + (1u << 20));
}

void walk_fini(struct walk *w)
{
	refs_fini(&w->refs);
	free(w->l2);
	free(w->buf);
	*w = (struct walk){0};
}

void walk_say(struct walk *w, const char *fmt, ...)
{
	char line[300];
	va_list ap;

	if (!w->c->say || w->said > MAX_SAID)
		return;
	if (w->said++ == MAX_SAID) {
		check_say(w->c, "more findings are counted, but not shown");
		return;
	}
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	check_say(w->c, "%s", line);
}

int walk_add(struct walk *w, uint64_t off, uint64_t len, uint32_t times)
{
	unsigned bits = w->q->cluster_bits;
	uint64_t last;

	if (!len)
		return 0;
	/* The last cluster of the file may be there in part. */
	if (!range_ok(off, len, w->file_len + w->q->cluster_size - 1)) {
		walk_say(w,
			 "ERROR: offset 0x%llx, %llu bytes (cluster %llu) lie behind "
			 "the end of the file",
			 (unsigned long long)off, (unsigned long long)len,
			 (unsigned long long)(off >> bits));
		w->c->corruptions += times;
		last = (off >> bits) + (len >> bits) + 1;
		if (last < w->refs.n)
			w->beyond = max_u64(w->beyond, last);
		return 0;
	}
	last = (off + len - 1) >> bits;
	for (uint64_t c = off >> bits; c <= last; c++) {
		uint32_t over;
		int rc = c < w->refs.n ? refs_add(&w->refs, c, times, &over) : -EFBIG;

		if (rc)
			return rc;
		if (over)
			walk_say(w,
				 "ERROR: cluster %llu at 0x%llx has more references "
				 "than a count can hold",
				 (unsigned long long)c,
				 (unsigned long long)(c << bits));
		w->c->corruptions += over;
		w->n = max_u64(w->n, c + 1);
	}
	return 0;
}

/* ---- L1 tables ---- */

static int l2_order(const void *a, const void *b)
{
	uint64_t x = ((const struct l2_ref *)a)->off,
		 y = ((const struct l2_ref *)b)->off;

	return x < y ? -1 : x > y;
}

/* Each table once, by rising offset. */
static void l2_merge(struct walk *w)
{
	size_t n = 0;

	if (w->n_l2)
		qsort(w->l2, w->n_l2, sizeof(w->l2[0]), l2_order);
	for (size_t i = 0; i < w->n_l2; i++) {
		if (n && w->l2[n - 1].off == w->l2[i].off) {
			w->l2[n - 1].all += w->l2[i].all;
			w->l2[n - 1].active += w->l2[i].active;
		} else {
			w->l2[n++] = w->l2[i];
		}
	}
	w->n_l2 = n;
}

static int l2_note(struct walk *w, struct l2_ref t)
{
	if (w->n_l2 == w->size_l2) {
		size_t size;
		struct l2_ref *v;

		l2_merge(w);
		size = w->size_l2;
		if (w->n_l2 * 2 >= size)
			size = max_u64(size * 2, 1024);
		if (size > MAX_TABLES)
			return -EFBIG;
		v = mem_resize(w->l2, size, sizeof(*v));
		if (!v)
			return -ENOMEM;
		w->l2 = v;
		w->size_l2 = size;
	}
	w->l2[w->n_l2++] = t;
	return 0;
}

int walk_l1(struct walk *w, const be64 *l1, uint64_t n, uint32_t all, uint32_t active)
{
	int rc = 0;

	for (uint64_t i = 0; i < n && !rc; i++) {
		uint64_t e = be64_get(l1[i]), off = e & ENTRY_OFFSET;

		if (!e)
			continue;
		if (e & L1_RESERVED) {
			walk_say(w,
				 "ERROR: entry %llu of an L1 table has reserved bits: "
				 "0x%llx",
				 (unsigned long long)i, (unsigned long long)e);
			w->c->corruptions += all;
		}
		rc = walk_add(w, off, w->q->cluster_size, all);
		if (off & (w->q->cluster_size - 1)) {
			walk_say(w,
				 "ERROR: entry %llu of an L1 table: the L2 table's "
				 "offset 0x%llx is not that of a cluster",
				 (unsigned long long)i, (unsigned long long)off);
			w->c->corruptions += all;
		}
		if (!rc)
			rc = l2_note(w, (struct l2_ref){off, all, active});
	}
	return rc;
}

/* ---- L2 tables ---- */

enum entry_kind { E_NONE, E_ZERO, E_NORMAL, E_PACKED };

static enum entry_kind entry_kind(const struct qcow2 *q, struct l2e v)
{
	if (v.e & ENTRY_COMPRESSED)
		return E_PACKED;
	if (v.e & ENTRY_ZERO && q->n_subs == 1)
		return v.e & ENTRY_OFFSET ? E_NORMAL : E_ZERO;
	if (v.e & ENTRY_OFFSET || (q->external && v.e & ENTRY_COPIED))
		return E_NORMAL;
	return E_NONE;
}

static bool entry_has_data(const struct qcow2 *q, struct l2e v)
{
	return q->n_subs > 1 ? (uint32_t)v.bitmap != 0 : !(v.e & ENTRY_ZERO);
}

static bool bitmap_wrong(struct l2e v)
{
	return (v.bitmap >> 32 & v.bitmap) != 0;
}

static void entry_wrong(struct walk *w, const struct l2_ref *t, struct l2e v,
			const char *what)
{
	w->c->corruptions += t->all;
	walk_say(w, "ERROR: L2 table at 0x%llx, entry 0x%llx (cluster %llu): %s",
		 (unsigned long long)t->off, (unsigned long long)v.e,
		 (unsigned long long)((v.e & ENTRY_OFFSET) >> w->q->cluster_bits),
		 what);
}

static int walk_packed(struct walk *w, const struct l2_ref *t, struct l2e v)
{
	if (v.e & ENTRY_COPIED)
		entry_wrong(w, t, v, "a compressed cluster is marked as used once");
	if (w->q->external || v.bitmap) {
		entry_wrong(w, t, v,
			    w->q->external ? "a compressed cluster with a data file"
					   : "a compressed cluster has subclusters");
		return 0;
	}
	w->c->allocated_clusters += t->active;
	w->c->compressed_clusters += t->active;
	w->c->fragmented_clusters += t->active;
	return walk_add(w, compressed_off(w->q, v.e), compressed_len(w->q, v.e),
			t->all);
}

/* Beyond repair: what it is, nobody knows, or there is nothing. */
static bool entry_useless(const struct qcow2 *q, struct l2e v)
{
	return bitmap_wrong(v) ||
	       (v.e & ENTRY_OFFSET & (q->cluster_size - 1) && !entry_has_data(q, v));
}

static int walk_normal(struct walk *w, const struct l2_ref *t, struct l2e v,
		       uint64_t *next)
{
	uint64_t off = v.e & ENTRY_OFFSET;
	uint32_t times = t->all;

	if (bitmap_wrong(v))
		entry_wrong(w, t, v, "subclusters are data and zeros at once");
	if (off & (w->q->cluster_size - 1))
		entry_wrong(w, t, v, "the offset is not that of a cluster");
	if (t->active) {
		w->c->allocated_clusters += t->active;
		if (*next && off != *next)
			w->c->fragmented_clusters += t->active;
		*next = off + w->q->cluster_size;
	}
	if (w->fix && entry_useless(w->q, v))
		times -= t->active;
	return w->q->external || !times ? 0
					: walk_add(w, off, w->q->cluster_size, times);
}

static int walk_table(struct walk *w, const struct l2_ref *t, const uint8_t *p)
{
	struct qcow2 *q = w->q;
	uint64_t next = 0;
	int rc = 0;

	for (uint64_t i = 0; i < BIT(q->l2_bits) && !rc; i++, p += q->l2e_size) {
		struct l2e v = l2e_read(q, p);

		if (!v.e && !v.bitmap)
			continue;
		if (!(v.e & ENTRY_COMPRESSED) && v.e & L2_RESERVED)
			entry_wrong(w, t, v, "reserved bits are set");
		switch (entry_kind(q, v)) {
		case E_PACKED: rc = walk_packed(w, t, v); break;
		case E_NORMAL: rc = walk_normal(w, t, v, &next); break;
		case E_NONE:
			if ((uint32_t)v.bitmap)
				entry_wrong(w, t, v, "subclusters without a cluster");
			break;
		case E_ZERO: break;
		}
	}
	return rc;
}

int walk_l2(struct walk *w)
{
	uint32_t size = w->q->cluster_size;
	uint64_t start = 0, end = 0, n;
	int rc = 0;

	l2_merge(w);
	for (size_t i = 0; i < w->n_l2 && !rc; i++) {
		const struct l2_ref *t = &w->l2[i];

		if (t->off < start || t->off + size > end) {
			start = t->off;
			end = start + size;
			for (size_t k = i + 1;
			     k < w->n_l2 && w->l2[k].off <= end + NEAR &&
			     w->l2[k].off + size - start <= WALK_WINDOW;
			     k++)
				end = w->l2[k].off + size;
			if (!file_is_data(w->q->file, start, end - start, &n) &&
			    n == end - start) {
				end = start; /* all of it zeros */
				continue;
			}
			if (file_read(w->q->file, w->buf, start, end - start)) {
				walk_say(w, "ERROR: cannot read the L2 table at 0x%llx",
					 (unsigned long long)t->off);
				w->c->check_errors += t->all;
				end = start;
				continue;
			}
		}
		rc = walk_table(w, t, w->buf + (t->off - start));
	}
	return rc;
}

struct l2e walk_right_entry(const struct walk *w, struct l2e v, bool fix)
{
	struct qcow2 *q = w->q;
	uint64_t off = v.e & ENTRY_OFFSET;
	bool once;

	switch (entry_kind(q, v)) {
	case E_PACKED:
		if (fix)
			v.e &= ~ENTRY_COPIED;
		return v;
	case E_NONE:
		if (fix && (uint32_t)v.bitmap)
			v.bitmap = 0xffffffffull << 32;
		return v;
	case E_ZERO: return v;
	case E_NORMAL: break;
	}
	if (fix && entry_useless(q, v))
		return q->n_subs > 1 ? (struct l2e){0, 0xffffffffull << 32}
				     : (struct l2e){ENTRY_ZERO, 0};
	if (fix)
		v.e &= ~L2_RESERVED;
	once = q->external || refs_get(&w->refs, off >> q->cluster_bits) == 1;
	v.e = once ? v.e | ENTRY_COPIED : v.e & ~ENTRY_COPIED;
	return v;
}

/* ---- what else there is ---- */

static int walk_snapshot(struct walk *w, const struct snap *s)
{
	struct qcow2 *q = w->q;
	uint64_t len = (uint64_t)s->l1_n * 8, n;
	be64 *l1;
	int rc;

	if (s->l1_off & (q->cluster_size - 1) || len > MAX_L1_BYTES) {
		walk_say(
			w,
			"ERROR: snapshot '%s' (%s): L1 table at 0x%llx with %u entries",
			s->id, s->name, (unsigned long long)s->l1_off, s->l1_n);
		w->c->corruptions++;
		return 0;
	}
	rc = walk_add(w, s->l1_off, len, 1);
	w->l1_bytes += len;
	if (rc || !len || w->l1_bytes > MAX_L1_SUM)
		return rc ? rc : len ? -EFBIG : 0;
	if (!file_is_data(q->file, s->l1_off, len, &n) && n == len)
		return 0;
	l1 = mem_new(s->l1_n, 8);
	if (!l1)
		return -ENOMEM;
	if (file_read(q->file, l1, s->l1_off, len)) {
		walk_say(w, "ERROR: cannot read the L1 table at 0x%llx",
			 (unsigned long long)s->l1_off);
		w->c->check_errors++;
	} else {
		rc = walk_l1(w, l1, s->l1_n, 1, 0);
	}
	free(l1);
	return rc;
}

static int walk_bitmap(struct walk *w, const struct bitmap *b)
{
	uint64_t len = (uint64_t)b->table_n * 8;
	be64 *t;
	int rc = walk_add(w, b->table_off, len, 1);

	if (rc || !len)
		return rc;
	t = mem_new(b->table_n, 8);
	if (!t)
		return -ENOMEM;
	if (file_read(w->q->file, t, b->table_off, len)) {
		w->c->check_errors++;
		free(t);
		return 0;
	}
	for (uint32_t i = 0; i < b->table_n && !rc; i++) {
		uint64_t e = be64_get(t[i]), off = e & ENTRY_OFFSET;

		if (e & BITMAP_RESERVED || (off && e & 1) ||
		    off & (w->q->cluster_size - 1)) {
			walk_say(w, "ERROR: bitmap '%s', entry %u: 0x%llx", b->name, i,
				 (unsigned long long)e);
			w->c->corruptions++;
		} else if (off) {
			rc = walk_add(w, off, w->q->cluster_size, 1);
		}
	}
	free(t);
	return rc;
}

static int walk_bitmaps(struct walk *w)
{
	struct qcow2 *q = w->q;
	struct bitmaps b = {0};
	struct err err = {0};
	int rc;

	if (!q->bm_n)
		return 0;
	rc = walk_add(w, q->bm_off, q->bm_bytes, 1);
	if (rc)
		return rc;
	rc = bitmaps_load(q, &b, &err);
	if (rc == -ENOMEM)
		return rc;
	if (rc) {
		walk_say(w, "ERROR: %s", err.msg);
		w->c->corruptions++;
		return 0;
	}
	for (size_t i = 0; i < b.n && !rc; i++)
		rc = walk_bitmap(w, &b.v[i]);
	bitmaps_fini(&b);
	return rc;
}

int walk_others(struct walk *w, const struct snaps *s, uint64_t table_off)
{
	struct qcow2 *q = w->q;
	int rc = walk_add(w, 0, q->cluster_size, 1);

	if (!rc && s->n && q->external) {
		walk_say(w, "ERROR: %zu snapshots in an image with a data file", s->n);
		w->c->corruptions++;
	}
	for (size_t i = 0; i < s->n && !rc; i++)
		rc = walk_snapshot(w, &s->v[i]);
	if (!rc && s->n)
		rc = walk_add(w, table_off, s->bytes, 1);
	if (!rc)
		rc = walk_add(w, q->crypto_off, q->crypto_len, 1);
	return rc ? rc : walk_bitmaps(w);
}

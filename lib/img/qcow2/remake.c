/*
 * img/qcow2/remake.c - changes the metadata of a qcow2 image as a whole: new tables and a new structure of reference
 * counts are written to clusters that nothing refers to, and then the header, in one write, switches to them. So an
 * image is always as before or as after, whatever happens; and its counts are right afterwards, whatever
 * they were. One thread; nobody else uses the image.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"

static int no_memory(const struct remake *r, struct err *err)
{
	return err_set(err, ENOMEM, "no memory to change '%s'", r->q->img->path);
}

void remake_abort(struct remake *r)
{
	walk_fini(&r->w);
	head_fini(&r->head);
	snaps_fini(&r->snaps);
	str_fini(&r->bm_dir);
	free(r->busy);
	free(r->l1);
	*r = (struct remake){.q = r->q};
}

int remake_begin(struct remake *r, struct qcow2 *q, bool fix, struct err *err)
{
	int rc = 0;

	*r = (struct remake){.q = q, .fix = fix, .rc_order = q->rc_order};
	for (unsigned i = 0; q->img->writing && i < 2 && !rc; i++)
		rc = meta_flush(q, true);
	if (rc)
		return err_sys(err, -rc, "cannot write '%s'", q->img->path);
	rc = check_walk(&r->w, q, &r->c, &r->busy, err);
	if (!rc && !fix && (r->c.corruptions || r->c.check_errors))
		rc = err_set(
			err, EIO,
			"'%s' is damaged in %llu places: repair it first ('vm-img "
			"repair')",
			q->img->path,
			(unsigned long long)(r->c.corruptions + r->c.check_errors));
	if (!rc) {
		r->n_old = r->w.n;
		r->n_busy = r->w.refs.n;
		r->beyond = r->w.beyond;
		/* What damage refers to must not come to life. */
		for (uint64_t k = r->n_old; k <= r->w.beyond; k++)
			r->busy[k / 64] |= BIT(k % 64);
		rc = head_load(q, &r->head, err);
	}
	if (!rc && snaps_load(q, &r->snaps, fix ? NULL : err)) {
		if (!fix)
			rc = -EINVAL;
		else
			r->snaps_changed =
				true; /* a table that cannot be read is dropped */
	}
	if (!rc) {
		r->l1_n = q->l1.n;
		r->l1 = mem_new(r->l1_n + 1, 8);
		if (!r->l1)
			rc = no_memory(r, err);
		else
			memcpy(r->l1, q->l1.e, r->l1_n * 8);
	}
	/* Flags without a table: the header is not one. */
	for (uint64_t i = 0; fix && !rc && i < r->l1_n; i++)
		if (!(be64_get(r->l1[i]) & ENTRY_OFFSET))
			r->l1[i] = be64_make(0);
	walk_fini(&r->w);
	if (rc)
		remake_abort(r);
	return rc;
}

/* ---- places ---- */

static bool is_busy(const struct remake *r, uint64_t c)
{
	return r->busy[c / 64] & BIT(c % 64);
}

int remake_alloc(struct remake *r, uint64_t n, uint64_t *first)
{
	uint64_t c = r->cursor, run = 0;

	for (; run < n; c++) {
		if (c >= r->n_busy)
			return -EFBIG;
		run = is_busy(r, c) ? 0 : run + 1;
	}
	*first = c - n;
	for (uint64_t i = *first; i < c; i++)
		r->busy[i / 64] |= BIT(i % 64);
	if (n == 1)
		r->cursor = c;
	return 0;
}

int remake_put(struct remake *r, const void *data, uint64_t len, uint64_t *off)
{
	struct qcow2 *q = r->q;
	uint64_t n = max_u64(1, (len + q->cluster_size - 1) >> q->cluster_bits), first;
	int rc = remake_alloc(r, n, &first);

	if (rc)
		return rc;
	*off = first << q->cluster_bits;
	rc = file_write(q->file, data, *off, len);
	if (!rc && (n << q->cluster_bits) > len)
		rc = file_zero(q->file, *off + len, (n << q->cluster_bits) - len,
			       false);
	return rc;
}

/* ---- references of the new state ---- */

static int count_new(struct remake *r, uint64_t snaps_off)
{
	struct walk *w = &r->w;
	uint32_t times = r->twin_off ? 2 : 1;
	int rc = walk_l1(w, r->l1, r->l1_n, times, 1);

	if (!rc)
		rc = walk_others(w, &r->snaps, snaps_off);
	return rc ? rc : walk_l2(w);
}

/* A table whose entries are not as they should be gets a copy that has them right. */
static int right_table(struct remake *r, be64 *entry, uint8_t *table)
{
	struct qcow2 *q = r->q;
	uint64_t off = be64_get(*entry) & ENTRY_OFFSET, new;
	uint32_t times = r->twin_off ? 2 : 1, old_refs;
	bool changed = false;
	int rc = file_read(q->file, table, off, q->cluster_size);

	if (rc)
		return r->fix ? 0 : rc;
	for (uint64_t i = 0; i < BIT(q->l2_bits); i++) {
		uint8_t *p = table + i * q->l2e_size;
		struct l2e v = l2e_read(q, p), x;

		if (!v.e && !v.bitmap)
			continue;
		x = walk_right_entry(&r->w, v, r->fix);
		if (x.e == v.e && x.bitmap == v.bitmap)
			continue;
		l2e_write(q, p, x);
		changed = true;
	}
	if (!changed)
		return 0;
	rc = remake_put(r, table, q->cluster_size, &new);
	if (rc)
		return rc;
	old_refs = refs_get(&r->w.refs, off >> q->cluster_bits);
	refs_set(&r->w.refs, off >> q->cluster_bits,
		 old_refs > times ? old_refs - times : 0);
	r->w.file_len = max_u64(r->w.file_len, file_size(q->file));
	*entry = be64_make(new);
	return walk_add(&r->w, new, q->cluster_size, times);
}

static int right_tables(struct remake *r)
{
	struct qcow2 *q = r->q;
	uint8_t *table = malloc(q->cluster_size);
	int rc = table ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < r->l1_n && !rc; i++) {
		uint64_t off = be64_get(r->l1[i]) & ENTRY_OFFSET;

		if (off && !(off & (q->cluster_size - 1)))
			rc = right_table(r, &r->l1[i], table);
	}
	for (uint64_t i = 0; i < r->l1_n && !rc; i++) {
		uint64_t off = be64_get(r->l1[i]) & ENTRY_OFFSET;
		bool once = refs_get(&r->w.refs, off >> q->cluster_bits) == 1;

		if (off)
			r->l1[i] = be64_make(off | (once ? ENTRY_COPIED : 0));
	}
	free(table);
	return rc;
}

static int add_new(struct remake *r, uint64_t off, uint64_t len)
{
	r->w.file_len = max_u64(r->w.file_len, off + len);
	return walk_add(&r->w, off, len, 1);
}

/* The active L1 table, and the same without flags for the snapshot. */
static int put_l1(struct remake *r, uint64_t *off)
{
	struct qcow2 *q = r->q;
	uint64_t len = r->l1_n * 8;
	be64 *twin;
	int rc = remake_put(r, r->l1, len, off);

	if (!rc)
		rc = add_new(r, *off, max_u64(len, 1));
	if (rc || !r->twin_off)
		return rc;
	twin = mem_new(r->l1_n + 1, 8);
	if (!twin)
		return -ENOMEM;
	for (uint64_t i = 0; i < r->l1_n; i++)
		twin[i] = be64_make(be64_get(r->l1[i]) & ENTRY_OFFSET);
	rc = file_write(q->file, twin, r->twin_off, len);
	free(twin);
	return rc;
}

/* ---- reference counts ---- */

struct counts {
	be64 *rt;
	uint64_t n, rt_clusters, rt_off; /* n: entries */
	unsigned rb_bits;
};

/* Is anything in the `rb`-th block's range used? */
static bool range_used(const struct remake *r, uint64_t rb, unsigned rb_bits)
{
	const struct refs *f = &r->w.refs;
	unsigned shift = 12 - f->shift;
	uint64_t c = rb << rb_bits, end = min_u64(f->n, c + BIT(rb_bits));

	while (c < end) {
		uint64_t next = min_u64(end, ((c >> shift) + 1) << shift);

		if (f->chunk[c >> shift])
			for (uint64_t i = c; i < next; i++)
				if (refs_get(f, i))
					return true;
		c = next;
	}
	return false;
}

/* Places for blocks until all are counted, the blocks and the table themselves too. */
static int place_counts(struct remake *r, struct counts *k)
{
	struct qcow2 *q = r->q;
	uint64_t per = q->cluster_size / 8, top = r->n_busy, c;
	bool more = true;
	int rc = 0;

	while (top && !is_busy(r, top - 1))
		top--;
	/* The new table and blocks may stand behind everything: room for their own blocks. */
	top += 2 * ((top >> k->rb_bits) + 2) + 64;
	k->n = (top >> k->rb_bits) + 2;
	k->rt_clusters = (k->n + per - 1) / per;
	k->n = k->rt_clusters * per;
	if (k->n * 8 > MAX_RT_BYTES)
		return -EFBIG;
	k->rt = mem_new(k->n, 8);
	if (!k->rt)
		return -ENOMEM;
	rc = remake_alloc(r, k->rt_clusters, &c);
	k->rt_off = c << q->cluster_bits;
	if (!rc)
		rc = add_new(r, k->rt_off, k->rt_clusters << q->cluster_bits);
	while (more && !rc) {
		more = false;
		for (uint64_t rb = 0; rb < k->n && !rc; rb++) {
			if (be64_get(k->rt[rb]) || !range_used(r, rb, k->rb_bits))
				continue;
			rc = remake_alloc(r, 1, &c);
			if (!rc)
				rc = add_new(r, c << q->cluster_bits, q->cluster_size);
			k->rt[rb] = be64_make(c << q->cluster_bits);
			more = true;
		}
	}
	/* Everything lies within what the table covers? */
	return !rc && (r->w.n - 1) >> k->rb_bits >= k->n ? -EFBIG : rc;
}

static int write_counts(struct remake *r, struct counts *k)
{
	struct qcow2 *q = r->q;
	uint8_t *block = malloc(q->cluster_size);
	int rc = block ? 0 : -ENOMEM;

	for (uint64_t rb = 0; rb < k->n && !rc; rb++) {
		uint64_t first = rb << k->rb_bits;

		if (!be64_get(k->rt[rb]))
			continue;
		memset(block, 0, q->cluster_size);
		for (uint64_t i = 0; i < BIT(k->rb_bits); i++) {
			uint32_t v = refs_get(&r->w.refs, first + i);

			if (r->rc_order < 5 && v >> (1u << r->rc_order))
				rc = -ERANGE;
			if (v)
				count_put(block, i, r->rc_order, v);
		}
		if (!rc)
			rc = file_write(q->file, block, be64_get(k->rt[rb]),
					q->cluster_size);
	}
	if (!rc)
		rc = file_write(q->file, k->rt, k->rt_off, k->n * 8);
	free(block);
	return rc;
}

/* ---- the switch ---- */

/* What was used and is not any more. */
static void give_back(struct remake *r)
{
	struct qcow2 *q = r->q;
	uint64_t run = 0, c;

	for (c = 0; c <= r->n_old; c++) {
		bool gone = c < r->n_old && is_busy(r, c) && !refs_get(&r->w.refs, c);

		if (!gone && run)
			file_discard(q->file, (c - run) << q->cluster_bits,
				     run << q->cluster_bits);
		run = gone ? run + 1 : 0;
	}
	for (c = r->w.refs.n; c && !refs_get(&r->w.refs, c - 1);)
		c--;
	/* What stands behind the last cluster in use goes, too. */
	if (!file_is_device(q->file) && c << q->cluster_bits < file_size(q->file))
		file_truncate(q->file, c << q->cluster_bits);
}

/* Takes what is in memory for what is in the file now. */
static int reload(struct remake *r, struct counts *k, uint64_t l1_off,
		  uint64_t snaps_off)
{
	struct qcow2 *q = r->q;
	const struct qcow2_header *h = r->head.h;
	uint8_t *l1_dirty = mem_new(r->l1_n / TABLE_PIECE + 1, 1);
	uint8_t *rt_dirty = mem_new(k->n / TABLE_PIECE + 1, 1);

	if (!l1_dirty || !rt_dirty) {
		free(l1_dirty);
		free(rt_dirty);
		return -ENOMEM;
	}
	meta_drop(q);
	free(q->l1.dirty);
	free(q->rt.dirty);
	free(q->l1.e);
	free(q->rt.e);
	q->l1 = (struct table){r->l1, r->l1_n, l1_off, l1_dirty, false};
	q->rt = (struct table){k->rt, k->n, k->rt_off, rt_dirty, false};
	r->l1 = NULL;
	k->rt = NULL;
	q->rt_clusters = (uint32_t)k->rt_clusters;
	q->n_snapshots = (uint32_t)r->snaps.n;
	q->snapshots_off = snaps_off;
	q->rc_order = r->rc_order;
	q->rb_bits = k->rb_bits;
	q->version = be32_get(h->version);
	q->incompatible = q->version >= 3 ? be64_get(h->incompatible) : 0;
	q->compatible = q->version >= 3 ? be64_get(h->compatible) : 0;
	q->autoclear = q->version >= 3 ? be64_get(h->autoclear) : 0;
	q->img->size = be64_get(h->size);
	q->scan = q->pack_at = 0;
	q->virgin = (file_size(q->file) + q->cluster_size - 1) >> q->cluster_bits;
	unpack_forget(q->img);
	return q->img->writing ? own_build(q) : 0;
}

static int put_snaps(struct remake *r, uint64_t *off)
{
	struct str s = {0};
	int rc = 0;

	*off = r->q->snapshots_off;
	if (!r->snaps_changed)
		return 0;
	*off = 0;
	snaps_build(&r->snaps, &s);
	r->snaps.bytes = s.len;
	if (s.failed)
		rc = -ENOMEM;
	else if (s.len > MAX_SNAPSHOT_TABLE)
		rc = -EFBIG;
	else if (s.len)
		rc = remake_put(r, s.p, s.len, off);
	str_fini(&s);
	return rc;
}

/* The directory of bitmaps and the extension that points to it. */
static int put_bitmaps(struct remake *r)
{
	struct qcow2 *q = r->q;
	struct {
		be32 n, zero;
		be64 bytes, off;
	} ext = {0};
	uint64_t off = 0, flags;
	int rc = 0;

	if (!r->bm_changed)
		return 0;
	flags = be64_get(r->head.h->autoclear) & ~AUTO_BITMAPS;
	if (r->bm_n) {
		rc = r->bm_dir.failed ? -ENOMEM
				      : remake_put(r, r->bm_dir.p, r->bm_dir.len, &off);
		ext.n = be32_make((uint32_t)r->bm_n);
		ext.bytes = be64_make(r->bm_dir.len);
		ext.off = be64_make(off);
		flags |= AUTO_BITMAPS;
	}
	if (!rc)
		rc = head_set_ext(&r->head, EXT_BITMAPS, r->bm_n ? &ext : NULL,
				  sizeof(ext));
	r->head.h->autoclear = be64_make(flags);
	q->bm_n = (uint32_t)r->bm_n;
	q->bm_off = off;
	q->bm_bytes = r->bm_n ? r->bm_dir.len : 0;
	return rc;
}

static void fill_head(struct remake *r, const struct counts *k, uint64_t l1_off,
		      uint64_t snaps_off)
{
	struct qcow2_header *h = r->head.h;

	h->l1_off = be64_make(l1_off);
	h->l1_size = be32_make((uint32_t)r->l1_n);
	h->rt_off = be64_make(k->rt_off);
	h->rt_clusters = be32_make((uint32_t)k->rt_clusters);
	h->n_snapshots = be32_make((uint32_t)r->snaps.n);
	h->snapshots_off = be64_make(r->snaps.n ? snaps_off : 0);
	if (be32_get(h->version) < 3)
		return;
	h->refcount_order = be32_make(r->rc_order);
	h->autoclear =
		be64_make(be64_get(h->autoclear) & (AUTO_BITMAPS | AUTO_RAW_DATA));
	h->incompatible =
		be64_make(be64_get(h->incompatible) & ~(INC_DIRTY | INC_CORRUPT));
}

/* What is referred to behind the end of the file reads as zeros. New tables behind it would bring it into the file: so
 * it is, and is counted. */
static int reach_beyond(const struct remake *r)
{
	struct qcow2 *q = r->q;
	uint64_t end = r->beyond << q->cluster_bits;

	if (!r->fix || file_is_device(q->file) || end <= file_size(q->file))
		return 0;
	return file_truncate(q->file, end);
}

static int tables_write(struct remake *r, struct counts *k, uint64_t *l1_off,
			uint64_t *snaps_off)
{
	int rc = reach_beyond(r);

	if (!rc)
		rc = put_snaps(r, snaps_off);
	if (!rc)
		rc = put_bitmaps(r);
	if (!rc)
		rc = walk_init(&r->w, r->q, &r->c);
	if (!rc && r->w.refs.n > r->n_busy)
		r->w.refs.n = r->n_busy;
	r->w.fix = r->fix;
	r->w.refs.max = UINT32_MAX >> (32 - (8u << r->w.refs.shift));
	if (!rc)
		rc = count_new(r, *snaps_off);
	if (!rc && !r->fix && r->c.corruptions)
		rc = -ERANGE; /* there were none before: a count is too small */
	if (!rc)
		rc = right_tables(r);
	if (!rc)
		rc = put_l1(r, l1_off);
	if (!rc)
		rc = place_counts(r, k);
	return rc ? rc : write_counts(r, k);
}

int remake_commit(struct remake *r, struct err *err)
{
	struct qcow2 *q = r->q;
	struct counts k = {.rb_bits = q->cluster_bits + 3 - r->rc_order};
	uint64_t l1_off = 0, snaps_off = 0, bm_off = q->bm_off, bm_bytes = q->bm_bytes;
	uint32_t bm_n = q->bm_n;
	int rc;

	r->c = (struct img_check){0};
	rc = tables_write(r, &k, &l1_off, &snaps_off);
	if (rc == -ERANGE)
		err_set(err, ERANGE,
			"a cluster of '%s' has more references than %u bits can count: "
			"use more refcount_bits",
			q->img->path, 1u << r->rc_order);
	else if (rc)
		err_sys(err, -rc, "cannot write new tables of '%s'", q->img->path);
	if (!rc) {
		fill_head(r, &k, l1_off, snaps_off);
		rc = head_write(q, &r->head, err);
	}
	if (rc) {
		q->bm_n = bm_n;
		q->bm_off = bm_off;
		q->bm_bytes = bm_bytes;
	} else {
		if (!r->keep)
			give_back(r);
		rc = reload(r, &k, l1_off, snaps_off);
		if (rc)
			no_memory(r, err);
	}
	free(k.rt);
	remake_abort(r);
	return rc;
}

/*
 * img/qcow2/check.c - compares a qcow2 image's reference counts and "used once" flags with what its tables refer
 * to; repairs by new tables (qcow2_remake.c). The numbers are those of "qemu-img check". One thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"
#include "img/undo.h"

#define RT_RESERVED 0x1ffull
#define RT_OFFSET   0xfffffffffffffe00ull

struct chk {
	struct walk *w;
	be64 *rt; /* owned */
	uint64_t rt_n;
	uint64_t highest; /* the last cluster in use */
	uint64_t *busy;   /* NULL: not wanted */
	bool rebuild;     /* the reference count table or its blocks are damaged */
	uint8_t *block;   /* a cluster */
};

/* ---- the structure of reference counts ---- */

static int rt_load(struct chk *k, struct err *err)
{
	struct qcow2 *q = k->w->q;
	uint64_t len, there;

	k->rt_n = ((uint64_t)q->rt_clusters << q->cluster_bits) / 8;
	len = k->rt_n * 8;
	k->rt = mem_new(k->rt_n + 1, 8);
	k->block = malloc(q->cluster_size);
	if (!k->rt || !k->block)
		return err_set(err, ENOMEM, "no memory to check '%s'", q->img->path);
	if (q->rt.off & (q->cluster_size - 1)) {
		k->w->c->corruptions++;
		k->rebuild = true;
		walk_say(k->w, "ERROR: the reference count table begins at 0x%llx",
			 (unsigned long long)q->rt.off);
		k->rt_n = 0;
		return 0;
	}
	there = q->rt.off < k->w->file_len ? min_u64(len, k->w->file_len - q->rt.off)
					   : 0;
	if (there && file_read(q->file, k->rt, q->rt.off, there))
		return err_set(err, EIO,
			       "cannot read the reference count table of '%s'",
			       q->img->path);
	return 0;
}

static void rt_wrong(struct chk *k, uint64_t i, uint64_t e, const char *what)
{
	k->w->c->corruptions++;
	k->rebuild = true;
	walk_say(k->w, "ERROR: reference count block %llu at 0x%llx: %s",
		 (unsigned long long)i, (unsigned long long)e, what);
}

static int walk_blocks(struct chk *k)
{
	struct walk *w = k->w;
	struct qcow2 *q = w->q;
	uint64_t n = w->n;
	int rc = walk_add(w, q->rt.off, k->rt_n * 8, 1);

	n = max_u64(n, w->n);
	for (uint64_t i = 0; i < k->rt_n && !rc; i++) {
		uint64_t e = be64_get(k->rt[i]), off = e & RT_OFFSET;
		uint32_t refs;

		if (e & RT_RESERVED) {
			rt_wrong(k, i, e, "reserved bits are set");
		} else if (off & (q->cluster_size - 1)) {
			rt_wrong(k, i, e, "the offset is not that of a cluster");
		} else if (off >> q->cluster_bits >= n) {
			rt_wrong(k, i, e, "behind the end of the file");
		} else if (off) {
			rc = walk_add(w, off, q->cluster_size, 1);
			refs = refs_get(&w->refs, off >> q->cluster_bits);
			if (refs != 1)
				rt_wrong(k, i, e, "has another use, too");
		}
	}
	return rc;
}

/* ---- comparing ---- */

static void compare_one(struct chk *k, uint64_t c, uint64_t have)
{
	struct walk *w = k->w;
	uint64_t want = refs_get(&w->refs, c);

	if (!have && !want)
		return;
	k->highest = c;
	if (k->busy)
		k->busy[c / 64] |= BIT(c % 64);
	if (have == want)
		return;
	if (!have)
		k->rebuild = true;
	walk_say(w,
		 "%s: cluster %llu at 0x%llx is counted %llu times and used %llu times",
		 have < want ? "ERROR" : "leaked", (unsigned long long)c,
		 (unsigned long long)(c << w->q->cluster_bits),
		 (unsigned long long)have, (unsigned long long)want);
	if (have < want)
		w->c->corruptions++;
	else
		w->c->leaks++;
}

/* No block counts [c, end): what is used there? */
static void compare_uncounted(struct chk *k, uint64_t c, uint64_t end)
{
	const struct refs *r = &k->w->refs;
	unsigned shift = 12 - r->shift;

	while (c < end) {
		uint64_t next = min_u64(end, ((c >> shift) + 1) << shift);

		if (c < r->n && r->chunk[c >> shift])
			for (uint64_t i = c; i < next; i++)
				compare_one(k, i, 0);
		c = next;
	}
}

static void compare_counts(struct chk *k)
{
	struct walk *w = k->w;
	struct qcow2 *q = w->q;
	uint64_t per = BIT(q->rb_bits), got;

	for (uint64_t rb = 0; rb << q->rb_bits < w->n; rb++) {
		uint64_t c = rb << q->rb_bits, end = min_u64(w->n, c + per);
		uint64_t off = rb < k->rt_n ? be64_get(k->rt[rb]) & RT_OFFSET : 0;

		if (!off || off & (q->cluster_size - 1) ||
		    (!file_is_data(q->file, off, q->cluster_size, &got) &&
		     got == q->cluster_size)) {
			compare_uncounted(k, c, end);
			if (off & (q->cluster_size - 1))
				w->c->check_errors += end - c;
			continue;
		}
		if (file_read(q->file, k->block, off, q->cluster_size)) {
			w->c->check_errors += end - c;
			continue;
		}
		for (uint64_t i = c; i < end; i++)
			compare_one(k, i, count_at(k->block, i - c, q->rc_order));
	}
}

/* ---- flags ---- */

/* A count as it stands in the file. `last` is the block that k->block holds, or ~0. */
static uint64_t count_on_disk(struct chk *k, uint64_t c, uint64_t *last)
{
	struct qcow2 *q = k->w->q;
	uint64_t rb = c >> q->rb_bits;
	uint64_t off = rb < k->rt_n ? be64_get(k->rt[rb]) & RT_OFFSET : 0;

	if (!off || off & (q->cluster_size - 1))
		return 0;
	if (*last != rb && file_read(q->file, k->block, off, q->cluster_size))
		return 0;
	*last = rb;
	return count_at(k->block, c & (BIT(q->rb_bits) - 1), q->rc_order);
}

static void flag_check(struct chk *k, const char *what, uint64_t e, uint64_t *last)
{
	uint64_t c = (e & ENTRY_OFFSET) >> k->w->q->cluster_bits;
	uint64_t count =
		k->w->q->external && *what == 'd' ? 1 : count_on_disk(k, c, last);

	if ((count == 1) == !!(e & ENTRY_COPIED))
		return;
	k->w->c->corruptions++;
	walk_say(k->w,
		 "ERROR: %s cluster %llu at 0x%llx is counted %llu times and %smarked "
		 "as used once",
		 what, (unsigned long long)c, (unsigned long long)(e & ENTRY_OFFSET),
		 (unsigned long long)count, e & ENTRY_COPIED ? "" : "not ");
}

/* The active tables' flags against the counts in the file. */
static void check_flags(struct chk *k)
{
	struct qcow2 *q = k->w->q;
	uint64_t last = ~0ull, n;

	for (uint64_t i = 0; i < q->l1.n; i++) {
		uint64_t e = be64_get(q->l1.e[i]), off = e & ENTRY_OFFSET;
		const uint8_t *p = k->w->buf;

		if (!off)
			continue;
		flag_check(k, "L2 table", e, &last);
		if (!file_is_data(q->file, off, q->cluster_size, &n) &&
		    n == q->cluster_size)
			continue;
		if (file_read(q->file, k->w->buf, off, q->cluster_size)) {
			k->w->c->check_errors++;
			continue;
		}
		for (uint64_t j = 0; j < BIT(q->l2_bits); j++, p += q->l2e_size) {
			struct l2e v = l2e_read(q, p);
			bool host = v.e & ENTRY_OFFSET ||
				    (q->external && v.e & ENTRY_COPIED &&
				     !(v.e & ENTRY_ZERO && q->n_subs == 1));

			if (host && !(v.e & ENTRY_COMPRESSED))
				flag_check(k, "data", v.e, &last);
		}
	}
}

/* ---- all of it ---- */

static int count_all(struct chk *k, struct err *err)
{
	struct walk *w = k->w;
	struct qcow2 *q = w->q;
	struct snaps s = {0};
	struct err why = {0};
	int rc;

	if (q->n_snapshots && snaps_load(q, &s, &why)) {
		walk_say(w, "ERROR: %s", why.msg);
		w->c->corruptions++;
	}
	rc = walk_add(w, q->l1.off, q->l1.n * 8, 1);
	if (!rc)
		rc = walk_l1(w, q->l1.e, q->l1.n, 1, 1);
	if (!rc)
		rc = walk_others(w, &s, q->snapshots_off);
	if (!rc)
		rc = walk_l2(w);
	snaps_fini(&s);
	if (!rc)
		rc = rt_load(k, err);
	if (!rc)
		rc = walk_blocks(k);
	return rc;
}

static int out_of_bounds(const struct qcow2 *q, int rc, struct err *err)
{
	if (rc == -EFBIG)
		return err_set(err, EFBIG,
			       "'%s' has more clusters and tables than can be checked: "
			       "it is damaged",
			       q->img->path);
	return err_sys(err, -rc, "cannot check '%s'", q->img->path);
}

int check_walk(struct walk *w, struct qcow2 *q, struct img_check *c, uint64_t **busy,
	       struct err *err)
{
	struct chk k = {.w = w};
	int rc = walk_init(w, q, c);

	c->total_clusters = (q->img->size + q->cluster_size - 1) >> q->cluster_bits;
	if (rc)
		return out_of_bounds(q, rc, err);
	rc = count_all(&k, err);
	if (rc)
		rc = out_of_bounds(q, rc, err);
	if (!rc && busy) {
		*busy = k.busy = mem_new(w->refs.n / 64 + 1, 8);
		if (!k.busy)
			rc = err_set(err, ENOMEM, "no memory to check '%s'",
				     q->img->path);
	}
	if (!rc) {
		compare_counts(&k);
		check_flags(&k);
		c->image_end_offset = (k.highest + 1) << q->cluster_bits;
	}
	free(k.rt);
	free(k.block);
	return rc;
}

/* What repairing will have done, if it can do all. */
static void tell_fixes(struct img_check *c, const struct img_check *found)
{
	c->leaks_fixed = found->leaks;
	if (c->fix & IMG_FIX_ERRORS)
		c->corruptions_fixed = found->corruptions;
}

static int repair(struct qcow2 *q, struct img_check *c, struct err *err)
{
	struct img_check after = {0};
	struct remake r;
	struct walk w;
	int rc;

	if (c->undo_path &&
	    (rc = undo_write(c->undo_path, q->file, q->cluster_size, err)))
		return rc;
	rc = remake_begin(&r, q, true, err);
	if (rc)
		return rc;
	r.keep = true;
	rc = remake_commit(&r, err);
	if (rc)
		return rc;
	rc = check_walk(&w, q, &after, NULL, err);
	walk_fini(&w);
	if (rc)
		return rc;
	c->corruptions_fixed = c->corruptions > after.corruptions
				       ? c->corruptions - after.corruptions
				       : 0;
	c->leaks_fixed = c->leaks > after.leaks ? c->leaks - after.leaks : 0;
	c->image_end_offset = after.image_end_offset;
	return 0;
}

int qcow2_check(struct img *img, struct img_check *c, struct err *err)
{
	struct qcow2 *q = img->priv;
	bool marked = q->incompatible & (INC_DIRTY | INC_CORRUPT);
	struct walk w = {0};
	int rc = img->writing ? meta_flush(q, true) : 0;

	if (rc)
		return err_sys(err, -rc, "cannot write '%s'", img->path);
	rc = check_walk(&w, q, c, NULL, err);
	walk_fini(&w);
	if (rc || !c->fix || (!c->leaks && !c->corruptions && !marked))
		return rc;
	if (c->corruptions && !(c->fix & IMG_FIX_ERRORS)) {
		check_say(c, "leaks are not repaired: the image is damaged, repair "
			     "that as well");
		return 0;
	}
	if (c->dry_run) {
		check_say(c,
			  "would write new reference counts%s, and then switch to them",
			  c->corruptions ? " and tables with the right flags" : "");
		tell_fixes(c, &(struct img_check){.leaks = c->leaks,
						  .corruptions = c->corruptions});
		return 0;
	}
	return repair(q, c, err);
}

/*
 * img/qcow2/write.c - new clusters, zero clusters and discarded ones: changes of qcow2's L2 tables. The
 * caller holds the range of clusters (img/io.c). Any thread.
 */
#include <stdlib.h>

#include "base/bits.h"
#include "img/qcow2/qcow2_int.h"

/* ---- steps that may need a larger reference count table ---- */

static int step_begin(struct qcow2 *q)
{
	bool pressed;
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	pressed = meta_pressed(q);
	if (pressed) {
		pthread_mutex_unlock(&q->lock);
		rc = meta_flush(q, false);
		pthread_mutex_lock(&q->lock);
	}
	return rc;
}

/* Must it be done again? Only steps that changed nothing yet return -EAGAIN. */
static bool step_again(struct qcow2 *q, int *rc)
{
	uint64_t n = q->rt.n;

	pthread_mutex_unlock(&q->lock);
	if (*rc != -EAGAIN)
		return false;
	*rc = meta_grow_rt(q, n + 1);
	return !*rc;
}

/* ---- L2 tables ---- */

static uint64_t in_cluster(const struct qcow2 *q, uint64_t off)
{
	return off & (q->cluster_size - 1);
}

/* Bytes of the image from `off` to the end of what its slice of the L2 table maps. */
static uint64_t slice_span(const struct qcow2 *q, uint64_t off)
{
	uint64_t per_slice = (uint64_t)(q->slice_size / q->l2e_size) << q->cluster_bits;

	return per_slice - (off & (per_slice - 1));
}

/* Bytes from `off` to the end of what its L2 table maps. */
static uint64_t table_span(const struct qcow2 *q, uint64_t off)
{
	uint64_t n = BIT(q->cluster_bits + q->l2_bits);

	return n - (off & (n - 1));
}

/* Fills a new table with zeros, or with what the old one has. */
static int l2_fill(struct qcow2 *q, uint64_t new_off, uint64_t old_off)
{
	int rc = 0;

	if (!old_off)
		return file_zero(q->file, new_off, q->cluster_size, false);
	if (old_off & (q->cluster_size - 1))
		return -EIO;
	for (uint64_t at = 0; at < q->cluster_size && !rc; at += q->slice_size) {
		struct slice *s;

		rc = meta_get(q, old_off + at, SLICE_L2, &s);
		if (!rc)
			rc = file_write(q->file, s->data, new_off + at, q->slice_size);
	}
	return rc;
}

/*
 * The L2 table for `off`, which may be changed: a new one if there was none, a copy if snapshots share it.
 * Nothing refers to the new table before L1 is written, so its content may go to the file at once.
 */
static int l2_own(struct qcow2 *q, uint64_t off, uint64_t *l2_off)
{
	uint64_t i = l1_index(q, off), entry, old, c, got;
	int rc;

	if (i >= q->l1.n)
		return -EIO;
	entry = be64_get(q->l1.e[i]);
	old = entry & ENTRY_OFFSET;
	if (old && entry & ENTRY_COPIED) {
		*l2_off = old;
		return old & (q->cluster_size - 1) ? -EIO : 0;
	}
	rc = ref_alloc(q, 1, &c, &got);
	if (rc)
		return rc;
	meta_forget(q, c);
	rc = l2_fill(q, c << q->cluster_bits, old);
	if (!rc)
		rc = own_add(q, c, 1);
	if (rc) {
		ref_drop(q, c, 1, false);
		return rc;
	}
	*l2_off = c << q->cluster_bits;
	table_set(&q->l1, i, *l2_off | ENTRY_COPIED);
	if (old) {
		own_remove(q, old >> q->cluster_bits, 1);
		ref_drop(q, old >> q->cluster_bits, 1, false);
	}
	return 0;
}

/* The slice of table l2_off with the entry for `off`, and where in it. */
static int l2_slice(struct qcow2 *q, uint64_t l2_off, uint64_t off, struct slice **s,
		    uint8_t **p)
{
	uint64_t pos = l2_entry_pos(q, off);
	int rc = meta_get(q, l2_off + pos, SLICE_L2, s);

	if (!rc)
		*p = (*s)->data + (pos & (q->slice_size - 1));
	return rc;
}

/* The clusters an entry refers to get one reference less. */
static void entry_drop(struct qcow2 *q, struct l2e v, bool punch)
{
	uint64_t off = v.e & ENTRY_OFFSET, end = off + 1;

	if (v.e & ENTRY_COMPRESSED) {
		off = compressed_off(q, v.e);
		end = off + compressed_len(q, v.e);
	}
	if (off && !q->external)
		ref_drop(q, off >> q->cluster_bits,
			 ((end - 1) >> q->cluster_bits) - (off >> q->cluster_bits) + 1,
			 punch);
}

/* ---- new data ---- */

/* May this cluster's place be filled as it is? Zero clusters and subclusters can have one already. */
static bool entry_reusable(const struct qcow2 *q, struct l2e v, bool own_table)
{
	uint64_t host = v.e & ENTRY_OFFSET;

	return own_table && host && v.e & ENTRY_COPIED && !(v.e & ENTRY_COMPRESSED) &&
	       !(host & (q->cluster_size - 1)) &&
	       !own_meets(q, host >> q->cluster_bits, 1);
}

/* Clusters from `off` on, at most n and within one slice, that are like the first: there already at *host,
 * in a row (*reuse), or to be taken. */
static int alloc_count(struct qcow2 *q, uint64_t off, uint64_t *n, bool *reuse,
		       uint64_t *host)
{
	uint64_t l1e = be64_get(q->l1.e[l1_index(q, off)]), i = 1;
	bool own_table = l1e & ENTRY_COPIED;
	struct slice *s;
	struct l2e v;
	uint8_t *p;
	int rc;

	*reuse = false;
	if (!(l1e & ENTRY_OFFSET))
		return 0;
	rc = l2_slice(q, l1e & ENTRY_OFFSET, off, &s, &p);
	if (rc)
		return rc;
	v = l2e_read(q, p);
	*reuse = entry_reusable(q, v, own_table);
	*host = v.e & ENTRY_OFFSET;
	for (; i < *n; i++) {
		v = l2e_read(q, p + i * q->l2e_size);
		if (entry_reusable(q, v, own_table) != *reuse ||
		    (*reuse && (v.e & ENTRY_OFFSET) != *host + (i << q->cluster_bits)))
			break;
	}
	*n = i;
	return 0;
}

static int alloc_locked(struct qcow2 *q, uint64_t off, uint64_t len,
			struct img_place *p)
{
	uint64_t in = in_cluster(q, off), n, first, host = 0;
	bool reuse;
	int rc;

	len = min_u64(len, slice_span(q, off));
	*p = (struct img_place){.len = len,
				.file = q->data,
				.file_off = off,
				.crypt = q->cipher,
				.crypt_off = off};
	if (q->external) /* an external data file is laid out like the disk */
		return 0;
	if (l1_index(q, off) >= q->l1.n)
		return -EIO;
	n = (in + len + q->cluster_size - 1) >> q->cluster_bits;
	rc = alloc_count(q, off, &n, &reuse, &host);
	if (rc)
		return rc;
	if (!reuse) {
		uint64_t virgin = q->virgin;

		rc = ref_alloc(q, n, &first, &n);
		if (rc)
			return rc;
		host = first << q->cluster_bits;
		p->fresh = true;
		p->zero = first >= virgin && !file_is_device(q->file) && !q->cipher;
	}
	p->file_off = host + in;
	p->crypt_off = qcow2_crypt_off(q, off, p->file_off);
	p->len = min_u64(len, (n << q->cluster_bits) - in);
	return 0;
}

int qcow2_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	struct qcow2 *q = img->priv;
	int rc;

	do {
		rc = step_begin(q);
		if (!rc)
			rc = alloc_locked(q, off, len, p);
	} while (step_again(q, &rc));
	return rc;
}

/* Bits of the subclusters in [in, end) of a cluster. */
static uint64_t sub_mask(const struct qcow2 *q, uint64_t in, uint64_t end)
{
	unsigned a = (unsigned)(in >> q->sub_bits), b = (unsigned)(end >> q->sub_bits);

	return (BIT(b) - 1) & ~(BIT(a) - 1);
}

static int link_locked(struct qcow2 *q, uint64_t off, const struct img_place *place)
{
	uint64_t at = off, end = off + place->len, l2_off;
	struct slice *s;
	uint8_t *p;
	int rc = l2_own(q, off, &l2_off);

	if (!rc)
		rc = l2_slice(q, l2_off, off, &s, &p);
	if (rc)
		return rc;
	for (; at < end; p += q->l2e_size) {
		uint64_t in = in_cluster(q, at);
		uint64_t to = min_u64(q->cluster_size, in + end - at);
		struct l2e old = l2e_read(q, p), new = {0};

		new.e = (place->file_off + (at - off) - in) | ENTRY_COPIED;
		if (q->n_subs > 1) {
			uint64_t mask = sub_mask(q, in, to);

			new.bitmap = old.e &ENTRY_COMPRESSED ? 0 : old.bitmap;
			new.bitmap = (new.bitmap | mask) & ~(mask << 32);
		}
		l2e_write(q, p, new);
		if (old.e & ENTRY_COMPRESSED ||
		    (old.e & ENTRY_OFFSET) != (new.e &ENTRY_OFFSET))
			entry_drop(q, old, false);
		at += to - in;
	}
	meta_dirty(q, s);
	return 0;
}

int qcow2_link(struct img *img, uint64_t off, const struct img_place *place)
{
	struct qcow2 *q = img->priv;
	int rc;

	do {
		rc = step_begin(q);
		if (!rc)
			rc = link_locked(q, off, place);
	} while (step_again(q, &rc));
	return rc;
}

void qcow2_unalloc(struct img *img, const struct img_place *p)
{
	struct qcow2 *q = img->priv;
	uint64_t first = p->file_off >> q->cluster_bits;

	if (!p->fresh)
		return;
	pthread_mutex_lock(&q->lock);
	ref_drop(q, first, ((p->file_off + p->len - 1) >> q->cluster_bits) - first + 1,
		 false);
	pthread_mutex_unlock(&q->lock);
}

/* ---- zeros ---- */

/* What a cluster of zeros with the old entry `v` gets; *drop: its place is given back. */
static struct l2e entry_zeroed(const struct qcow2 *q, struct l2e v, bool unmap,
			       bool *drop)
{
	bool keep = !unmap && !(v.e & ENTRY_COMPRESSED);
	struct l2e z = {keep ? v.e & ~ENTRY_ZERO : 0, 0};

	*drop = !keep;
	if (q->n_subs > 1)
		z.bitmap = 0xffffffffull << 32;
	else
		z.e |= ENTRY_ZERO;
	return z;
}

/* Is there nothing in the cluster, and nothing behind it? */
static bool entry_empty(const struct qcow2 *q, struct l2e v)
{
	return !q->img->has_backing && !v.bitmap && !(v.e & ~ENTRY_COPIED) &&
	       !q->external;
}

/* Zeroes the part [in, to) of a cluster. */
static int entry_zero(struct qcow2 *q, uint8_t *p, uint64_t in, uint64_t to, bool unmap)
{
	struct l2e old = l2e_read(q, p), new = old;
	bool drop = false;

	if (entry_empty(q, old))
		return 0;
	if (!in && to == q->cluster_size) {
		new = entry_zeroed(q, old, unmap, &drop);
	} else {
		uint64_t mask = sub_mask(q, in, to);

		if (old.e & ENTRY_COMPRESSED)
			return -EOPNOTSUPP;
		new.bitmap = (old.bitmap | mask << 32) & ~mask;
	}
	l2e_write(q, p, new);
	if (drop)
		entry_drop(q, old, true);
	return 0;
}

/* The table to change for `off`. *done is set when there is nothing to do for so many bytes. */
static int zero_table(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *l2_off,
		      uint64_t *done)
{
	if (l1_index(q, off) < q->l1.n && !q->img->has_backing &&
	    !(be64_get(q->l1.e[l1_index(q, off)]) & ENTRY_OFFSET)) {
		*done = min_u64(len, table_span(q, off));
		return 0;
	}
	return l2_own(q, off, l2_off);
}

static int zero_locked(struct qcow2 *q, uint64_t off, uint64_t len, bool unmap,
		       uint64_t *done)
{
	uint64_t at = off, end = off + min_u64(len, slice_span(q, off)), l2_off = 0;
	struct slice *s;
	uint8_t *p;
	int rc = zero_table(q, off, len, &l2_off, done);

	if (rc || *done)
		return rc;
	rc = l2_slice(q, l2_off, off, &s, &p);
	for (; !rc && at < end; p += q->l2e_size) {
		uint64_t in = in_cluster(q, at);
		uint64_t to = min_u64(q->cluster_size, in + end - at);

		rc = entry_zero(q, p, in, to, unmap);
		if (!rc)
			at += to - in;
	}
	if (at > off) {
		meta_dirty(q, s);
		rc = 0; /* the rest comes again */
	}
	*done = at - off;
	return rc;
}

int qcow2_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done)
{
	struct qcow2 *q = img->priv;
	int rc;

	/* A raw data file has to hold the zeros itself. */
	if (q->version < 3 || q->autoclear & AUTO_RAW_DATA)
		return -EOPNOTSUPP;
	*done = 0;
	do {
		rc = step_begin(q);
		if (!rc)
			rc = zero_locked(q, off, len, unmap, done);
	} while (step_again(q, &rc));
	if (!rc && unmap && q->external)
		file_discard(q->data, off, *done);
	return rc;
}

/* ---- discard ---- */

static int discard_locked(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *done)
{
	uint64_t at = off, end = off + min_u64(len, slice_span(q, off)), l2_off = 0;
	struct slice *s;
	uint8_t *p;
	int rc = zero_table(q, off, len, &l2_off, done);

	if (rc || *done)
		return rc;
	rc = l2_slice(q, l2_off, off, &s, &p);
	for (; !rc && at < end; at += q->cluster_size, p += q->l2e_size) {
		struct l2e old = l2e_read(q, p), new = {0};
		bool drop = true;

		if (entry_empty(q, old))
			continue;
		if (q->version >= 3)
			new = entry_zeroed(q, old, true, &drop);
		l2e_write(q, p, new);
		entry_drop(q, old, true);
	}
	if (rc)
		return rc;
	meta_dirty(q, s);
	*done = end - off;
	return 0;
}

int qcow2_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done)
{
	struct qcow2 *q = img->priv;
	int rc;

	*done = len;
	/* Version 2 cannot say "zeros" in front of a backing file. */
	if (q->version < 3 && img->has_backing)
		return 0;
	if (q->autoclear & AUTO_RAW_DATA)
		return file_zero(q->data, off, min_u64(len, img->size - off), true);
	*done = 0;
	do {
		rc = step_begin(q);
		if (!rc)
			rc = discard_locked(q, off, len, done);
	} while (step_again(q, &rc));
	if (!rc && q->external)
		file_discard(q->data, off, *done);
	return rc;
}

/* ---- compressed clusters ---- */

const struct codec_block *qcow2_packer(struct img *img, uint32_t *unit, uint32_t *room,
				       int *level)
{
	const struct qcow2 *q = img->priv;

	if (img->one_pass)
		return qcow2_stream_packer(img, unit, room, level);
	*unit = q->cluster_size;
	*room = q->cluster_size - 1; /* as large as a cluster is not packed */
	*level = 0;
	/* Packed clusters would lie there as they are. */
	return q->external || q->crypt ? NULL : q->codec;
}

/* One reference more for the cluster that the last stream ends in, if it can have one. */
static bool pack_share(struct qcow2 *q)
{
	uint64_t c = q->pack_at >> q->cluster_bits, v, max = ~0ull;

	if (q->rc_order < 6)
		max = BIT(1u << q->rc_order) - 1;
	if (!q->pack_at || !(q->pack_at & (q->cluster_size - 1)))
		return false;
	return !ref_get(q, c, &v) && v && v < max && !ref_set(q, c, v + 1);
}

/*
 * `len` bytes in a row (less than a cluster): behind the last stream, and in the next cluster if that is free; else
 * in a new one. Each cluster that is touched is counted once.
 */
static int pack_alloc(struct qcow2 *q, uint64_t len, uint64_t *at)
{
	uint64_t room = -q->pack_at & (q->cluster_size - 1), c, got;
	uint64_t here = q->pack_at;
	bool shared = pack_share(q);
	int rc;

	if (!shared || len > room) {
		rc = ref_alloc(q, 1, &c, &got);
		if (rc) {
			if (shared)
				ref_drop(q, here >> q->cluster_bits, 1, false);
			return rc;
		}
		if (shared && c << q->cluster_bits != here + room) {
			ref_drop(q, here >> q->cluster_bits, 1, false);
			shared = false;
		}
		if (!shared)
			here = c << q->cluster_bits;
	}
	if ((here + len - 1) >> (62 - (q->cluster_bits - 8)))
		return -EFBIG;
	*at = here;
	q->pack_at = here + len;
	return 0;
}

static void pack_drop(struct qcow2 *q, uint64_t at, uint64_t len)
{
	uint64_t first = at >> q->cluster_bits;

	ref_drop(q, first, ((at + len - 1) >> q->cluster_bits) - first + 1, false);
}

/* The entry of `off`, if a stream may take its place. */
static int pack_entry(struct qcow2 *q, uint64_t off, struct slice **s, uint8_t **p)
{
	struct l2e old;
	uint64_t l2_off;
	int rc = l2_own(q, off, &l2_off);

	if (!rc)
		rc = l2_slice(q, l2_off, off, s, p);
	if (rc)
		return rc;
	old = l2e_read(q, *p);
	return !(old.e & ENTRY_COMPRESSED) && old.e & ENTRY_OFFSET &&
			       old.e & ENTRY_COPIED
		       ? -EEXIST
		       : 0;
}

static int pack_link(struct qcow2 *q, uint64_t off, uint64_t at, uint64_t len)
{
	unsigned shift = 62 - (q->cluster_bits - 8);
	uint64_t sectors = (at + len - 1) / 512 - at / 512;
	struct l2e new = {ENTRY_COMPRESSED | sectors << shift | at, 0};
	struct slice *s;
	uint8_t *p;
	int rc = pack_entry(q, off, &s, &p);

	if (rc)
		return rc;
	entry_drop(q, l2e_read(q, p), false);
	l2e_write(q, p, new);
	meta_dirty(q, s);
	return 0;
}

int qcow2_write_packed(struct img *img, uint64_t off, const void *data, size_t len)
{
	struct qcow2 *q = img->priv;
	struct slice *s;
	uint64_t at = 0;
	uint8_t *p;
	int rc;

	if (img->one_pass)
		return qcow2_stream_packed(img, off, data, len);
	if (q->external || q->crypt || off & (q->cluster_size - 1) || !len ||
	    len >= q->cluster_size)
		return -EINVAL;
	do {
		rc = step_begin(q);
		if (!rc)
			rc = pack_entry(q, off, &s, &p);
		if (!rc)
			rc = pack_alloc(q, len, &at);
	} while (step_again(q, &rc));
	if (rc)
		return rc;
	rc = file_write(q->file, data, at, len);
	if (!rc) {
		do {
			rc = step_begin(q);
			if (!rc)
				rc = pack_link(q, off, at, len);
		} while (step_again(q, &rc));
	}
	if (rc) {
		pthread_mutex_lock(&q->lock);
		pack_drop(q, at, len);
		pthread_mutex_unlock(&q->lock);
	}
	return rc;
}

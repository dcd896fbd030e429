/* img/qcow2/map.c - where a qcow2 image's bytes are. Any thread. */
#include "base/bits.h"
#include "img/qcow2/qcow2_int.h"

/* What a first write to this cluster must fill. */
static uint32_t entry_grain(const struct qcow2 *q, struct l2e v, bool own_table)
{
	bool host = v.e & ENTRY_OFFSET;

	if (v.e & ENTRY_COMPRESSED || (host && !(v.e & ENTRY_COPIED && own_table)))
		return q->cluster_size; /* it moves as a whole */
	return 1u << q->sub_bits;
}

/* Fills *e for the place `in` bytes into the cluster of entry v. */
static int entry_extent(const struct qcow2 *q, struct l2e v, uint64_t in,
			bool own_table, struct img_extent *e)
{
	e->grain = entry_grain(q, v, own_table);
	switch (sub_kind(q, v, (unsigned)(in >> q->sub_bits) & (q->n_subs - 1))) {
	case SUB_BACKING: e->kind = IMG_BACKING; return 0;
	case SUB_ZERO: e->kind = IMG_ZERO; return 0;
	case SUB_DATA:
		if (q->crypt && !q->cipher)
			return -ENOKEY;
		if (v.e & ENTRY_OFFSET & (q->cluster_size - 1))
			return -EIO;
		if (!q->data)
			return -ENXIO;
		e->kind = IMG_DATA;
		e->file = q->data;
		e->file_off = (v.e & ENTRY_OFFSET) + in;
		e->crypt = q->cipher;
		e->writable = q->external || (v.e & ENTRY_COPIED && own_table);
		return 0;
	case SUB_COMPRESSED:
		if (q->external)
			return -EIO;
		e->kind = IMG_PACKED;
		e->file = q->file;
		e->file_off = compressed_off(q, v.e);
		e->packed_len = compressed_len(q, v.e);
		e->codec = q->codec;
		e->unit_len = q->cluster_size;
		e->unit_off = (uint32_t)in;
		return 0;
	case SUB_INVALID: break;
	}
	return -EIO;
}

/* Does `b`, `len` bytes further on, go on with what `a` is? */
static bool extent_continues(const struct img_extent *a, const struct img_extent *b,
			     uint64_t len)
{
	return a->kind == b->kind && a->grain == b->grain &&
	       a->writable == b->writable && a->kind != IMG_PACKED &&
	       (a->kind != IMG_DATA || a->file_off + len == b->file_off);
}

/* The L1 entry has no table: so have perhaps the next ones. */
static void map_no_table(const struct qcow2 *q, uint64_t off, uint64_t len,
			 struct img_extent *e)
{
	unsigned bits = q->cluster_bits + q->l2_bits;
	uint64_t i = off >> bits, n = BIT(bits) - (off & (BIT(bits) - 1));

	while (n < len && ++i < q->l1.n && !(be64_get(q->l1.e[i]) & ENTRY_OFFSET))
		n += BIT(bits);
	e->kind = IMG_BACKING;
	e->grain = 1u << q->sub_bits;
	e->len = min_u64(n, len);
}

/* Bytes at the start of [in, len) of clusters with the entries at p that are one extent. */
static int map_run(const struct qcow2 *q, const uint8_t *p, const uint8_t *end,
		   uint64_t in, uint64_t len, bool own_table, struct img_extent *e)
{
	uint64_t sub = BIT(q->sub_bits), n;
	struct l2e v = l2e_read(q, p);
	int rc = entry_extent(q, v, in, own_table, e);

	if (rc)
		return rc;
	if (e->kind == IMG_PACKED) {
		e->len = min_u64(len, q->cluster_size - in);
		return 0;
	}
	for (n = sub - (in & (sub - 1)); n < len; n += sub) {
		struct img_extent next = {0};
		uint64_t at = (in + n) & (q->cluster_size - 1);

		if (!at) {
			p += q->l2e_size;
			if (p == end)
				break;
			v = l2e_read(q, p);
		}
		/* What is wrong with the next one is its own reader's affair. */
		if (entry_extent(q, v, at, own_table, &next) ||
		    !extent_continues(e, &next, n))
			break;
	}
	e->len = min_u64(n, len);
	return 0;
}

static int map_locked(struct qcow2 *q, uint64_t off, uint64_t len, struct img_extent *e)
{
	uint64_t in = off & (q->cluster_size - 1), i = l1_index(q, off), l1e, pos;
	struct slice *s;
	int rc;

	*e = (struct img_extent){0};
	if (i >= q->l1.n)
		return -EIO;
	l1e = be64_get(q->l1.e[i]);
	if (!(l1e & ENTRY_OFFSET)) {
		map_no_table(q, off, len, e);
		return 0;
	}
	if (l1e & ENTRY_OFFSET & (q->cluster_size - 1))
		return -EIO;
	pos = l2_entry_pos(q, off);
	rc = meta_get(q, (l1e & ENTRY_OFFSET) + pos, SLICE_L2, &s);
	if (rc)
		return rc;
	rc = map_run(q, s->data + (pos & (q->slice_size - 1)), s->data + q->slice_size,
		     in, len, l1e & ENTRY_COPIED, e);
	if (!rc && e->crypt)
		e->crypt_off = qcow2_crypt_off(q, off, e->file_off);
	if (!rc && e->writable && e->file == q->file &&
	    own_meets(q, e->file_off >> q->cluster_bits,
		      ((in + e->len - 1) >> q->cluster_bits) + 1)) {
		/* Data where a table is: damage. Such data is not written in place. */
		e->writable = false;
		e->grain = q->cluster_size;
		e->len = min_u64(e->len, q->cluster_size - in);
	}
	return rc;
}

int qcow2_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct qcow2 *q = img->priv;
	int rc;

	pthread_mutex_lock(&q->lock);
	rc = map_locked(q, off, len, e);
	pthread_mutex_unlock(&q->lock);
	return rc;
}

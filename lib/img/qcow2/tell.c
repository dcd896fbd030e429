/* img/qcow2/tell.c - what qcow2 tells about an image, and how large one will be. One thread. */
#include <string.h>

#include "base/bits.h"
#include "img/qcow2/qcow2_int.h"
#include "img/qcow2/walk.h"

static void bitmaps_details(const struct qcow2 *q, struct details *d)
{
	struct bitmaps b;

	if (bitmaps_load(q, &b, NULL))
		return;
	if (b.n)
		detail_begin(d, "bitmaps", DETAIL_LIST);
	for (size_t i = 0; i < b.n; i++) {
		detail_begin(d, NULL, DETAIL_GROUP);
		detail_begin(d, "flags", DETAIL_LIST);
		if (b.v[i].flags & BITMAP_IN_USE)
			detail_text(d, NULL, "in-use");
		if (b.v[i].flags & BITMAP_AUTO)
			detail_text(d, NULL, "auto");
		detail_end(d);
		detail_text(d, "name", "%s", b.v[i].name);
		detail_number(d, "granularity", BIT(b.v[i].granularity_bits & 63));
		detail_end(d);
	}
	if (b.n)
		detail_end(d);
	bitmaps_fini(&b);
}

void qcow2_details(struct img *img, struct details *d)
{
	const struct qcow2 *q = img->priv;

	detail_text(d, "compat", "%s", q->version < 3 ? "0.10" : "1.1");
	if (q->data_name) {
		detail_text(d, "data-file", "%s", q->data_name);
		detail_bool(d, "data-file-raw", q->autoclear & AUTO_RAW_DATA);
	}
	detail_text(d, "compression-type", "%s", q->codec->name);
	if (q->version >= 3)
		detail_bool(d, "lazy-refcounts", q->compatible & COM_LAZY);
	bitmaps_details(q, d);
	detail_number(d, "refcount-bits", 1u << q->rc_order);
	qcow2_crypt_details(q, d);
	if (q->version < 3)
		return;
	detail_bool(d, "corrupt", q->incompatible & INC_CORRUPT);
	detail_bool(d, "extended-l2", q->incompatible & INC_EXTENDED_L2);
}

/* ---- measuring ---- */

static uint64_t div_up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

/* Clusters with any data in them. */
static uint64_t count_clusters(const struct img_plan *plan, unsigned bits)
{
	uint64_t n = 0, next = 0;

	for (size_t i = 0; i < plan->n_data; i++) {
		const struct img_range *r = &plan->data[i];
		uint64_t first = max_u64(next, r->off >> bits);
		uint64_t end = (r->off + r->len + BIT(bits) - 1) >> bits;

		if (end <= first)
			continue;
		n += end - first;
		next = end;
	}
	return n;
}

/* Bytes of the tables of an image all of whose clusters are there. */
static uint64_t tables_size(uint64_t clusters, uint64_t size, uint64_t l2e_size,
			    unsigned rc_bits)
{
	uint64_t per_block = size * 8 / rc_bits;
	uint64_t l2 = div_up(clusters, size / l2e_size), l1 = div_up(l2, size / 8);
	uint64_t counted = 1 + l2 + l1 + clusters, blocks = 0, table = 0, last;

	do {
		last = blocks + table;
		blocks = div_up(counted + table + blocks, per_block);
		table = div_up(blocks, size / 8);
	} while (blocks + table != last);
	return (1 + l2 + l1 + blocks + table) * size;
}

int qcow2_measure(const struct img_create_opts *o, const struct img_plan *plan,
		  struct img_measure *m, struct err *err)
{
	const struct img_option *v = o->options;
	uint64_t size = img_option_number(v, o->n_options, "cluster_size", 65536);
	uint64_t rc = img_option_number(v, o->n_options, "refcount_bits", 16), all;
	bool extended = img_option_bool(v, o->n_options, "extended_l2", false);
	const char *pre = img_option_text(v, o->n_options, "preallocation", "off");
	uint64_t tables, clusters, crypto;
	int bad = qcow2_crypt_measure(o, &crypto, err);

	if (bad)
		return bad;

	if (!is_pow2(size) || size < 512 || size > 2 << 20)
		return err_set(err, EINVAL,
			       "clusters of %llu bytes: a power of two from 512 to 2M "
			       "is needed",
			       (unsigned long long)size);
	if (!is_pow2(rc) || rc > 64 || o->size > INT64_MAX / 2)
		return err_set(err, EINVAL, "the image cannot be made");
	all = div_up(o->size, size);
	clusters = count_clusters(plan, (unsigned)__builtin_ctzll(size));
	if (!strcmp(pre, "full") || !strcmp(pre, "falloc"))
		clusters = all;
	tables = tables_size(all, size, extended ? 16 : 8, (unsigned)rc) +
		 align_up(crypto, size);
	m->fully_allocated = tables + all * size;
	m->required = tables + clusters * size;
	return 0;
}

/*
 * img/qcow2/stream.c - qcow2 images written to a pipe: what will be data is known from the source's map, so all tables
 * come first, and then the clusters in a row. One thread.
 *
 * Layout: header, reference count table, its blocks, L1 table, L2 tables, data.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/qcow2_int.h"

struct stream {
	uint32_t bits, size; /* of clusters */
	uint64_t l1_n, l1_clusters, n_l2, n_data, rt_clusters, rt_blocks, total;
	const struct img_plan *plan; /* borrowed until the image is closed */
	/* the next data cluster to be written: of the disk, and its range in the plan */
	uint64_t next;
	size_t range;
	uint8_t *buf; /* a cluster */
};

/* ---- walking over the clusters that hold data ---- */

/* The first cluster at or behind `c` with data, from range *i on; UINT64_MAX: none. */
static uint64_t data_from(const struct stream *s, size_t *i, uint64_t c)
{
	for (; *i < s->plan->n_data; ++*i) {
		const struct img_range *r = &s->plan->data[*i];

		if ((r->off + r->len - 1) >> s->bits >= c)
			return max_u64(c, r->off >> s->bits);
	}
	return UINT64_MAX;
}

static void count(struct stream *s)
{
	uint64_t last_l2 = UINT64_MAX, c = 0;
	size_t i = 0;

	while ((c = data_from(s, &i, c)) != UINT64_MAX) {
		uint64_t l2 = c >> (s->bits - 3);

		s->n_l2 += l2 != last_l2;
		last_l2 = l2;
		s->n_data++;
		c++;
	}
}

static int layout(struct stream *s, uint64_t size)
{
	uint64_t l1_span = 2 * s->bits - 3, per_block = s->size / 2;

	s->l1_n = (size + BIT(l1_span) - 1) >> l1_span;
	if (s->l1_n * 8 > MAX_L1_BYTES)
		return -EFBIG;
	s->l1_clusters = max_u64(1, (s->l1_n * 8 + s->size - 1) >> s->bits);
	s->rt_clusters = s->rt_blocks = 1;
	for (;;) {
		uint64_t blocks, table;

		s->total = 1 + s->rt_clusters + s->rt_blocks + s->l1_clusters +
			   s->n_l2 + s->n_data;
		blocks = (s->total + per_block - 1) / per_block;
		table = (blocks * 8 + s->size - 1) >> s->bits;
		if (blocks <= s->rt_blocks && table <= s->rt_clusters)
			break;
		s->rt_blocks = blocks;
		s->rt_clusters = table;
	}
	return s->rt_clusters * s->size > MAX_RT_BYTES ? -EFBIG : 0;
}

/* ---- tables ---- */

static uint64_t l1_at(const struct stream *s)
{
	return 1 + s->rt_clusters + s->rt_blocks;
}

static int put_cluster(struct img *img, const struct stream *s)
{
	return img_append(img, s->buf, s->size);
}

static int put_header(struct img *img, struct stream *s)
{
	struct qcow2_header *h = (void *)s->buf;

	memset(s->buf, 0, s->size);
	h->magic = be32_make(QCOW2_MAGIC);
	h->version = be32_make(3);
	h->cluster_bits = be32_make(s->bits);
	h->size = be64_make(img->size);
	h->rt_off = be64_make(1ull << s->bits);
	h->rt_clusters = be32_make((uint32_t)s->rt_clusters);
	h->l1_off = be64_make(l1_at(s) << s->bits);
	h->l1_size = be32_make((uint32_t)s->l1_n);
	h->refcount_order = be32_make(4);
	h->header_len = be32_make(sizeof(*h));
	return put_cluster(img, s);
}

/* `n` clusters of a table of big-endian numbers: entry i is first + i clusters while i < used. */
static int put_run(struct img *img, struct stream *s, uint64_t n, uint64_t first,
		   uint64_t used, uint64_t flags)
{
	be64 *e = (void *)s->buf;
	uint64_t per = s->size / 8;
	int rc = 0;

	for (uint64_t c = 0; c < n && !rc; c++) {
		for (uint64_t i = 0; i < per; i++) {
			uint64_t k = c * per + i;

			e[i] = be64_make(k < used ? (first + k) << s->bits | flags : 0);
		}
		rc = put_cluster(img, s);
	}
	return rc;
}

static int put_counts(struct img *img, struct stream *s)
{
	uint64_t per = s->size / 2;
	int rc = 0;

	for (uint64_t c = 0; c < s->rt_blocks && !rc; c++) {
		memset(s->buf, 0, s->size);
		for (uint64_t i = 0; i < per && c * per + i < s->total; i++)
			s->buf[2 * i + 1] = 1;
		rc = put_cluster(img, s);
	}
	return rc;
}

/* The L1 table: tables stand in a row, but for those without data, which have none. */
static int put_l1(struct img *img, struct stream *s)
{
	be64 *e = mem_new(s->l1_clusters, s->size);
	uint64_t l2 = l1_at(s) + s->l1_clusters, c = 0;
	size_t i = 0;
	int rc;

	if (!e)
		return -ENOMEM;
	while ((c = data_from(s, &i, c)) != UINT64_MAX) {
		e[c >> (s->bits - 3)] = be64_make(l2++ << s->bits | ENTRY_COPIED);
		c = ((c >> (s->bits - 3)) + 1) << (s->bits - 3);
	}
	rc = img_append(img, e, s->l1_clusters << s->bits);
	free(e);
	return rc;
}

static int put_l2(struct img *img, struct stream *s)
{
	uint64_t at = l1_at(s) + s->l1_clusters + s->n_l2, c = 0;
	be64 *e = (void *)s->buf;
	size_t i = 0;
	int rc = 0;

	c = data_from(s, &i, 0);
	while (c != UINT64_MAX && !rc) {
		uint64_t table = c >> (s->bits - 3);

		memset(s->buf, 0, s->size);
		while (c != UINT64_MAX && c >> (s->bits - 3) == table) {
			e[c & (s->size / 8 - 1)] =
				be64_make(at++ << s->bits | ENTRY_COPIED);
			c = data_from(s, &i, c + 1);
		}
		rc = put_cluster(img, s);
	}
	return rc;
}

static int put_tables(struct img *img, struct stream *s)
{
	int rc = put_header(img, s);

	if (!rc)
		rc = put_run(img, s, s->rt_clusters, 1 + s->rt_clusters, s->rt_blocks,
			     0);
	if (!rc)
		rc = put_counts(img, s);
	if (!rc)
		rc = put_l1(img, s);
	return rc ? rc : put_l2(img, s);
}

/* ---- operations ---- */

static int check_options(const struct img_create_opts *o, const struct img_plan *plan,
			 struct err *err)
{
	if (o->backing_path || plan->packed)
		return err_set(
			err, EINVAL, "a qcow2 image %s cannot be written to a pipe",
			plan->packed ? "that is compressed" : "with a backing file");
	for (unsigned i = 0; i < o->n_options; i++)
		if (strcmp(o->options[i].name, "cluster_size") &&
		    strcmp(o->options[i].name, "compat"))
			return err_set(err, EINVAL,
				       "option '%s' of qcow2 is not known for images "
				       "that are written to a pipe",
				       o->options[i].name);
	if (img_option_text(o->options, o->n_options, "compat", "1.1")[0] == '0')
		return err_set(err, EINVAL,
			       "qcow2 images of compat=0.10 cannot be written to a "
			       "pipe");
	return 0;
}

int qcow2_stream_begin(struct img *img, const struct img_create_opts *opts,
		       const struct img_plan *plan, struct err *err)
{
	struct stream *s;
	uint64_t size;
	int rc;

	if (!img->target->stream)
		return -EOPNOTSUPP;
	rc = check_options(opts, plan, err);
	if (rc)
		return rc;
	size = img_option_number(opts->options, opts->n_options, "cluster_size", 65536);
	if (!is_pow2(size) || size < 512 || size > 2 << 20)
		return err_set(err, EINVAL,
			       "clusters of %llu bytes: a power of two from 512 to 2M "
			       "is needed",
			       (unsigned long long)size);
	img->priv = s = NEW(struct stream);
	if (!s || !(s->buf = mem_new(size, 1)))
		return err_set(err, ENOMEM, "no memory for the image's tables");
	img->one_pass = true;
	img->size = opts->size;
	img->unit = s->size = (uint32_t)size;
	img->zero_unit = 1;
	s->bits = (uint32_t)__builtin_ctz(s->size);
	s->plan = plan;
	count(s);
	rc = layout(s, img->size);
	if (rc)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in an image with clusters of %u "
			       "bytes: use larger clusters",
			       (unsigned long long)img->size, s->size);
	rc = put_tables(img, s);
	s->next = data_from(s, &s->range, 0);
	return rc ? err_sys(err, -rc, "cannot write the image") : 0;
}

/* Data clusters below `c` that turned out to be zeros. */
static int fill_to(struct img *img, struct stream *s, uint64_t c)
{
	int rc = 0;

	memset(s->buf, 0, s->size);
	while (!rc && s->next < c && s->next != UINT64_MAX) {
		rc = put_cluster(img, s);
		s->next = data_from(s, &s->range, s->next + 1);
	}
	return rc;
}

int qcow2_stream_write(struct img *img, uint64_t off, const void *data, size_t len)
{
	struct stream *s = img->priv;
	int rc = fill_to(img, s, off >> s->bits);

	if (rc)
		return rc;
	if (s->next != off >> s->bits || off & (s->size - 1) || len > s->size)
		return -EINVAL;
	memcpy(s->buf, data, len);
	memset(s->buf + len, 0, s->size - len);
	s->next = data_from(s, &s->range, s->next + 1);
	return put_cluster(img, s);
}

int qcow2_stream_close(struct img *img)
{
	struct stream *s = img->priv;
	int rc = 0;

	if (s && s->buf && !img->discard_all)
		rc = fill_to(img, s, UINT64_MAX);
	if (s)
		free(s->buf);
	free(s);
	img->priv = NULL;
	return rc;
}

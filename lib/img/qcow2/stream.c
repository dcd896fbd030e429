/*
 * img/qcow2/stream.c - qcow2 images written to a pipe: what will be data is known from the source's map, so all tables
 * come first, and then the clusters in a row. Compressed ones are packed twice: the first pass only takes down how long
 * each cluster becomes, the second one writes. One thread.
 *
 * Layout: header, reference count table, its blocks, L1 table, L2 tables, data.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/qcow2_int.h"

/* As length of a cluster: it is not packed. */
#define PLAIN      UINT32_MAX
/* What a reference count of 16 bits can tell. */
#define MAX_SHARED 65535

/* Goes over the clusters that will hold data. */
struct walk {
	size_t range; /* of the plan */
	uint64_t c,
		k; /* the cluster of the disk (UINT64_MAX: behind the last), and the how many-th of the plan it is */
	uint64_t at;    /* where its data is, bytes from the data's beginning */
	uint32_t len;   /* of its data there, or PLAIN */
	uint32_t users; /* streams in the last cluster so far */
};

struct stream {
	uint32_t bits, size, version; /* of clusters; of the format */
	bool lazy;
	uint64_t l1_n, l1_clusters, n_l2, n_data, rt_clusters, rt_blocks, total;
	const struct img_plan *plan; /* borrowed until the image is closed */
	const struct codec_block *codec;
	uint32_t *len; /* packed: of each cluster of the plan; 0: it is zeros */
	uint64_t n_len;
	uint16_t *users;  /* packed: streams in each cluster of the data */
	struct walk next; /* what is to be written next */
	uint8_t *buf;     /* a cluster */
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

/* Puts the cluster behind those before it. */
static void walk_place(const struct stream *s, struct walk *w)
{
	uint64_t end = w->at;

	if (w->len == PLAIN || w->users == MAX_SHARED)
		end = align_up(end, s->size);
	if (!(end & (s->size - 1)))
		w->users = 0;
	w->at = end;
}

/* How much room the cluster takes. */
static uint64_t walk_end(const struct stream *s, const struct walk *w)
{
	return w->at + (w->len == PLAIN ? s->size : w->len);
}

/* The first one with anything in it from w->c, w->k on. */
static void walk_settle(const struct stream *s, struct walk *w)
{
	w->c = data_from(s, &w->range, w->c);
	while (s->len && w->c != UINT64_MAX && !s->len[w->k]) {
		w->k++;
		w->c = data_from(s, &w->range, w->c + 1);
	}
	w->len = s->len && w->c != UINT64_MAX ? s->len[w->k] : PLAIN;
	walk_place(s, w);
}

static struct walk walk_first(const struct stream *s)
{
	struct walk w = {0};

	walk_settle(s, &w);
	return w;
}

static void walk_next(const struct stream *s, struct walk *w)
{
	uint64_t end = walk_end(s, w);

	w->users = end >> s->bits == w->at >> s->bits ? w->users + 1 : 1;
	w->at = end;
	w->k++;
	w->c++;
	walk_settle(s, w);
}

static uint64_t table_of(const struct stream *s, uint64_t c)
{
	return c >> (s->bits - 3);
}

static void count(struct stream *s)
{
	uint64_t last_l2 = UINT64_MAX, end = 0;

	s->n_l2 = 0;
	for (struct walk w = walk_first(s); w.c != UINT64_MAX; walk_next(s, &w)) {
		s->n_l2 += table_of(s, w.c) != last_l2;
		last_l2 = table_of(s, w.c);
		end = walk_end(s, &w);
	}
	s->n_data = (end + s->size - 1) >> s->bits;
}

/* Counts the streams in each cluster of the data. */
static int count_users(struct stream *s)
{
	s->users = mem_new(s->n_data + 1, sizeof(*s->users));
	if (!s->users)
		return -ENOMEM;
	for (struct walk w = walk_first(s); w.c != UINT64_MAX; walk_next(s, &w))
		for (uint64_t c = w.at >> s->bits;
		     c <= (walk_end(s, &w) - 1) >> s->bits; c++)
			s->users[c]++;
	return 0;
}

static int layout(struct stream *s, uint64_t size)
{
	uint64_t l1_span = 2 * s->bits - 3, per_block = s->size / 2;

	s->l1_n = max_u64(1, (size + BIT(l1_span) - 1) >> l1_span);
	if (s->l1_n * 8 > MAX_L1_BYTES)
		return -EFBIG;
	count(s);
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
	if (s->len && s->total >= BIT(62 - (s->bits - 8) - s->bits))
		return -EFBIG;
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
	h->version = be32_make(s->version);
	h->cluster_bits = be32_make(s->bits);
	h->size = be64_make(img->size);
	h->rt_off = be64_make(1ull << s->bits);
	h->rt_clusters = be32_make((uint32_t)s->rt_clusters);
	h->l1_off = be64_make(l1_at(s) << s->bits);
	h->l1_size = be32_make((uint32_t)s->l1_n);
	if (s->version < 3)
		return put_cluster(img, s);
	h->refcount_order = be32_make(4);
	h->header_len = be32_make(sizeof(*h));
	h->compatible = be64_make(s->lazy ? COM_LAZY : 0);
	h->compression = s->codec == &codec_block_zstd;
	h->incompatible = be64_make(h->compression ? INC_COMPRESSION : 0);
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
	uint64_t per = s->size / 2, data = s->total - s->n_data;
	int rc = 0;

	for (uint64_t c = 0; c < s->rt_blocks && !rc; c++) {
		be16 *e = (void *)s->buf;

		for (uint64_t i = 0; i < per; i++) {
			uint64_t k = c * per + i;
			bool packed = s->users && k >= data && k < s->total;

			e[i] = be16_make(packed ? s->users[k - data] : k < s->total);
		}
		rc = put_cluster(img, s);
	}
	return rc;
}

/* The L1 table: tables stand in a row, but for those without data, which have none. */
static int put_l1(struct img *img, struct stream *s)
{
	be64 *e = mem_new(s->l1_clusters, s->size);
	uint64_t l2 = l1_at(s) + s->l1_clusters;
	int rc;

	if (!e)
		return -ENOMEM;
	for (struct walk w = walk_first(s); w.c != UINT64_MAX; walk_next(s, &w)) {
		uint64_t i = table_of(s, w.c);

		if (!be64_get(e[i]))
			e[i] = be64_make(l2++ << s->bits | ENTRY_COPIED);
	}
	rc = img_append(img, e, s->l1_clusters << s->bits);
	free(e);
	return rc;
}

/* What the L2 table says of a cluster. */
static uint64_t entry_of(const struct stream *s, const struct walk *w)
{
	uint64_t at = ((s->total - s->n_data) << s->bits) + w->at;
	unsigned shift = 62 - (s->bits - 8);

	if (w->len == PLAIN)
		return at | ENTRY_COPIED;
	return ENTRY_COMPRESSED | ((at + w->len - 1) / 512 - at / 512) << shift | at;
}

static int put_l2(struct img *img, struct stream *s)
{
	struct walk w = walk_first(s);
	be64 *e = (void *)s->buf;
	int rc = 0;

	while (w.c != UINT64_MAX && !rc) {
		uint64_t table = table_of(s, w.c);

		memset(s->buf, 0, s->size);
		for (; w.c != UINT64_MAX && table_of(s, w.c) == table; walk_next(s, &w))
			e[w.c & (s->size / 8 - 1)] = be64_make(entry_of(s, &w));
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

static bool is_old(const struct img_create_opts *o)
{
	const char *compat = img_option_text(o->options, o->n_options, "compat", "1.1");

	return !strcmp(compat, "0.10") || !strcmp(compat, "v2");
}

static bool wants_zstd(const struct img_create_opts *o)
{
	return !strcmp(img_option_text(o->options, o->n_options, "compression_type",
				       o->zstd ? "zstd" : "zlib"),
		       "zstd");
}

static int check_options(const struct img_create_opts *o, struct err *err)
{
	static const char *const known[] = {"cluster_size", "compat",
					    "compression_type", "lazy_refcounts"};

	if (o->backing_path)
		return err_set(err, EINVAL,
			       "a qcow2 image with a backing file cannot be written to "
			       "a pipe");
	for (unsigned i = 0; i < o->n_options; i++) {
		bool found = false;

		for (unsigned k = 0; k < ARRAY_LEN(known); k++)
			found |= !strcmp(o->options[i].name, known[k]);
		if (!found)
			return err_set(err, EINVAL,
				       "option '%s' of qcow2 is not known for images "
				       "that are written to a pipe",
				       o->options[i].name);
	}
	if (is_old(o) && (wants_zstd(o) || img_option_bool(o->options, o->n_options,
							   "lazy_refcounts", false)))
		return err_set(err, EINVAL,
			       "version 2 has neither zstd nor lazy reference counts");
	return 0;
}

static int layout_or_say(struct img *img, struct stream *s, struct err *err)
{
	if (!layout(s, img->size))
		return 0;
	return err_set(err, EFBIG,
		       "%llu bytes do not fit in an image with clusters of %u bytes: "
		       "use larger clusters",
		       (unsigned long long)img->size, s->size);
}

/* The lengths are to be taken down before anything is written. */
static int begin_packed(struct img *img, struct stream *s, struct err *err)
{
	struct walk w = walk_first(s);

	while (w.c != UINT64_MAX)
		walk_next(s, &w);
	s->n_len = w.k;
	s->len = mem_new(s->n_len + 1, sizeof(*s->len));
	if (!s->len)
		return err_set(err, ENOMEM, "no memory for the image's tables");
	img->first_pass = true;
	s->next = (struct walk){0};
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
	rc = check_options(opts, err);
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
	s->version = is_old(opts) ? 2 : 3;
	s->lazy = img_option_bool(opts->options, opts->n_options, "lazy_refcounts",
				  false);
	s->codec = wants_zstd(opts) ? &codec_block_zstd : &codec_block_deflate;
	s->plan = plan;
	rc = layout_or_say(img, s, err);
	if (rc || plan->packed)
		return rc ? rc : begin_packed(img, s, err);
	rc = put_tables(img, s);
	s->next = walk_first(s);
	return rc ? err_sys(err, -rc, "cannot write the image") : 0;
}

int qcow2_stream_second(struct img *img, struct err *err)
{
	struct stream *s = img->priv;
	int rc = layout_or_say(img, s, err);

	if (rc)
		return rc;
	img->first_pass = false;
	rc = count_users(s);
	if (!rc)
		rc = put_tables(img, s);
	s->next = walk_first(s);
	return rc ? err_sys(err, -rc, "cannot write the image") : 0;
}

const struct codec_block *qcow2_stream_packer(struct img *img, uint32_t *unit,
					      uint32_t *room, int *level)
{
	const struct stream *s = img->priv;

	*unit = s->size;
	*room = s->size - 1;
	*level = 0;
	return s->plan->packed ? s->codec : NULL;
}

/* Takes down what the cluster at `off` becomes. */
static int take_down(struct stream *s, uint64_t off, uint32_t len)
{
	struct walk *w = &s->next;

	for (;;) {
		w->c = data_from(s, &w->range, w->c);
		if (w->c >= off >> s->bits || w->k >= s->n_len)
			break;
		w->c++;
		w->k++;
	}
	if (w->c != off >> s->bits || w->k >= s->n_len)
		return -EINVAL;
	s->len[w->k] = len;
	return 0;
}

/* Data clusters below `c` that turned out to be zeros. */
static int fill_to(struct img *img, struct stream *s, uint64_t c)
{
	int rc = 0;

	/* The first pass saw something else than zeros. */
	if (s->len)
		return s->next.c < c ? -ESTALE : 0;
	memset(s->buf, 0, s->size);
	while (!rc && s->next.c < c && s->next.c != UINT64_MAX) {
		rc = put_cluster(img, s);
		walk_next(s, &s->next);
	}
	return rc;
}

/* Zeros up to where the next cluster's data is to be. */
static int fill_gap(struct img *img, struct stream *s, uint64_t at)
{
	uint64_t to = ((s->total - s->n_data) << s->bits) + at;

	if (img->append > to || to - img->append >= s->size)
		return to == img->append ? 0 : -EINVAL;
	memset(s->buf, 0, to - img->append);
	return img_append(img, s->buf, to - img->append);
}

int qcow2_stream_write(struct img *img, uint64_t off, const void *data, size_t len)
{
	struct stream *s = img->priv;
	int rc;

	if (off & (s->size - 1) || len > s->size)
		return -EINVAL;
	if (img->first_pass)
		return take_down(s, off, PLAIN);
	rc = fill_to(img, s, off >> s->bits);
	if (rc)
		return rc;
	if (s->next.c != off >> s->bits || s->next.len != PLAIN)
		return s->len ? -ESTALE : -EINVAL;
	rc = fill_gap(img, s, s->next.at);
	memcpy(s->buf, data, len);
	memset(s->buf + len, 0, s->size - len);
	walk_next(s, &s->next);
	return rc ? rc : put_cluster(img, s);
}

int qcow2_stream_packed(struct img *img, uint64_t off, const void *data, size_t len)
{
	struct stream *s = img->priv;
	int rc;

	if (!s->len || off & (s->size - 1) || !len || len >= s->size)
		return -EINVAL;
	if (img->first_pass)
		return take_down(s, off, (uint32_t)len);
	if (s->next.c != off >> s->bits || s->next.len != len)
		return -ESTALE;
	rc = fill_gap(img, s, s->next.at);
	walk_next(s, &s->next);
	return rc ? rc : img_append(img, data, len);
}

int qcow2_stream_close(struct img *img)
{
	struct stream *s = img->priv;
	int rc = 0;

	if (s && s->buf && !img->discard_all) {
		rc = img->first_pass ? -EINVAL : fill_to(img, s, UINT64_MAX);
		/* Readers take whole sectors. */
		if (!rc && s->len)
			rc = fill_gap(img, s, s->n_data << s->bits);
	}
	if (s) {
		free(s->buf);
		free(s->len);
		free(s->users);
	}
	free(s);
	img->priv = NULL;
	return rc;
}

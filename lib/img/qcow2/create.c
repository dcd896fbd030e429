/* img/qcow2/create.c - makes empty qcow2 images. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/str.h"
#include "img/qcow2/walk.h"

/* A new image's clusters: header, reference count table, its blocks, L1 table. */
struct layout {
	uint32_t cluster_bits, cluster_size, rc_order, version;
	bool extended;
	uint64_t l1_n, l1_clusters, rt_clusters, rt_blocks, total;
	uint64_t crypto_clusters; /* of the LUKS header, the last ones */
};

static int layout_plan(struct layout *l, const struct img_create_opts *o,
		       uint64_t crypto_len, struct err *err)
{
	uint32_t bits = o->refcount_bits ? o->refcount_bits : 16;
	unsigned l1_span;
	uint64_t per_block;

	l->cluster_size = o->cluster_size ? o->cluster_size : 65536;
	l->version = o->version ? o->version : 3;
	l->extended = o->extended_l2;
	if (!is_pow2(l->cluster_size) || l->cluster_size < 512 ||
	    l->cluster_size > 2 << 20)
		return err_set(err, EINVAL,
			       "clusters of %u bytes: a power of two from 512 to 2M is "
			       "needed",
			       l->cluster_size);
	l->cluster_bits = (uint32_t)__builtin_ctz(l->cluster_size);
	if (l->extended && l->cluster_bits < 14)
		return err_set(err, EINVAL,
			       "subclusters need clusters of at least 16k, not %u",
			       l->cluster_size);
	if (!is_pow2(bits) || bits > 64)
		return err_set(err, EINVAL,
			       "reference counts of %u bits: 1, 2, 4, 8, 16, 32 or 64 "
			       "are possible",
			       bits);
	l->rc_order = (uint32_t)__builtin_ctz(bits);
	if (l->version < 2 || l->version > 3)
		return err_set(err, EINVAL, "qcow2 version %u: 2 or 3 is needed",
			       l->version);
	if (l->version == 2 && (bits != 16 || l->extended || o->zstd))
		return err_set(err, EINVAL,
			       "version 2 has neither subclusters, nor zstd, nor "
			       "reference counts other than 16 bits: use version 3");
	l1_span = l->cluster_bits + l->cluster_bits - (l->extended ? 4 : 3);
	if (o->size > (uint64_t)(MAX_L1_BYTES / 8) << l1_span ||
	    o->size > INT64_MAX / 2)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in an image with clusters of %u "
			       "bytes: use larger clusters",
			       (unsigned long long)o->size, l->cluster_size);
	/* QEMU takes an L1 table without entries for none at all, and its cluster for leaked. */
	l->l1_n = max_u64(1, (o->size + BIT(l1_span) - 1) >> l1_span);
	l->l1_clusters =
		max_u64(1, (l->l1_n * 8 + l->cluster_size - 1) >> l->cluster_bits);
	l->crypto_clusters = (crypto_len + l->cluster_size - 1) >> l->cluster_bits;
	per_block = (uint64_t)l->cluster_size * 8 >> l->rc_order;
	l->rt_clusters = l->rt_blocks = 1;
	for (;;) {
		uint64_t blocks, table;

		l->total = 1 + l->l1_clusters + l->rt_clusters + l->rt_blocks +
			   l->crypto_clusters;
		blocks = (l->total + per_block - 1) / per_block;
		table = (blocks * 8 + l->cluster_size - 1) >> l->cluster_bits;
		if (blocks <= l->rt_blocks && table <= l->rt_clusters)
			return 0;
		l->rt_blocks = blocks;
		l->rt_clusters = table;
	}
}

static uint64_t cluster_off(const struct layout *l, uint64_t c)
{
	return c << l->cluster_bits;
}

static void add_be32(struct str *s, uint32_t v)
{
	be32 b = be32_make(v);

	str_add(s, &b, sizeof(b));
}

static void add_extension(struct str *s, uint32_t type, const char *text)
{
	size_t len = strlen(text);

	add_be32(s, type);
	add_be32(s, (uint32_t)len);
	str_add(s, text, len);
	str_add(s, NULL, align_up(len, 8) - len);
}

/* Where the LUKS header is, and how long. */
static void add_crypto(struct str *s, const struct layout *l, uint64_t len)
{
	be64 where[2] = {
		be64_make(cluster_off(l, l->total - l->crypto_clusters)),
		be64_make(len),
	};

	add_be32(s, EXT_CRYPTO);
	add_be32(s, sizeof(where));
	str_add(s, where, sizeof(where));
}

/* What only the settings by name tell. */
struct extras {
	const char *data_file; /* NULL: none */
	bool data_raw, lazy;
	enum img_prealloc prealloc;
	struct crypt_plan crypt;
};

/* The first cluster's content. */
static void header_build(const struct layout *l, const struct img_create_opts *o,
			 const struct extras *x, struct str *s)
{
	struct qcow2_header *h;
	size_t name = 0;

	str_add(s, NULL, l->version == 2 ? QCOW2_V2_LEN : sizeof(*h));
	if (o->backing_path)
		add_extension(s, EXT_BACKING_FORMAT, o->backing_format);
	if (x->data_file)
		add_extension(s, EXT_DATA_FILE, x->data_file);
	if (x->crypt.len)
		add_crypto(s, l, x->crypt.len);
	str_add(s, NULL, 8); /* EXT_END */
	if (o->backing_path)
		name = str_add(s, o->backing_path, strlen(o->backing_path));
	if (s->failed)
		return;
	h = (struct qcow2_header *)s->p;
	h->magic = be32_make(QCOW2_MAGIC);
	h->version = be32_make(l->version);
	if (o->backing_path) {
		h->backing_off = be64_make(name);
		h->backing_len = be32_make((uint32_t)strlen(o->backing_path));
	}
	h->cluster_bits = be32_make(l->cluster_bits);
	h->size = be64_make(o->size);
	h->crypt_method = be32_make(x->crypt.method);
	h->rt_off = be64_make(cluster_off(l, 1));
	h->rt_clusters = be32_make((uint32_t)l->rt_clusters);
	h->l1_off = be64_make(cluster_off(l, 1 + l->rt_clusters + l->rt_blocks));
	h->l1_size = be32_make((uint32_t)l->l1_n);
	if (l->version == 2)
		return;
	h->incompatible = be64_make((l->extended ? INC_EXTENDED_L2 : 0) |
				    (o->zstd ? INC_COMPRESSION : 0) |
				    (x->data_file ? INC_DATA_FILE : 0));
	h->compatible = be64_make(x->lazy ? COM_LAZY : 0);
	h->autoclear = be64_make(x->data_raw ? AUTO_RAW_DATA : 0);
	h->refcount_order = be32_make(l->rc_order);
	h->header_len = be32_make(sizeof(*h));
	h->compression = o->zstd;
}

/* Counts of 1 for the first clusters, and none for the rest of their block. */
static void counts_fill(const struct layout *l, uint8_t *block, uint64_t n)
{
	unsigned bits = 1u << l->rc_order;

	for (uint64_t i = 0; i < n; i++) {
		if (bits < 8)
			block[i * bits / 8] |= (uint8_t)(1u << (i * bits % 8));
		else
			block[(i + 1) * (bits / 8) - 1] = 1; /* big-endian */
	}
}

static int counts_write(struct img_file *f, const struct layout *l)
{
	uint64_t per_block = (uint64_t)l->cluster_size * 8 >> l->rc_order;
	uint8_t *block = malloc(l->cluster_size);
	be64 *table = mem_new(l->rt_clusters, l->cluster_size);
	int rc = block && table ? 0 : -ENOMEM;

	for (uint64_t i = 0; !rc && i < l->rt_blocks; i++) {
		uint64_t at = i * per_block;
		uint64_t off = cluster_off(l, 1 + l->rt_clusters + i);

		memset(block, 0, l->cluster_size);
		if (at < l->total)
			counts_fill(l, block, min_u64(per_block, l->total - at));
		table[i] = be64_make(off);
		rc = file_write(f, block, off, l->cluster_size);
	}
	if (!rc)
		rc = file_write(f, table, cluster_off(l, 1),
				cluster_off(l, l->rt_clusters));
	free(block);
	free(table);
	return rc;
}

/* clang-format off */
const struct img_option_desc qcow2_options[] = {
	{"compat", OPTION_TEXT, "0.10|1.1|v2|v3", "1.1", "0.10: readable by QEMU before 1.1"},
	{"cluster_size", OPTION_SIZE, NULL, "64k", "512 to 2M"},
	{"refcount_bits", OPTION_NUMBER, "1|2|4|8|16|32|64", "16", "bits of a reference count"},
	{"extended_l2", OPTION_BOOL, NULL, "off", "clusters have 32 subclusters"},
	{"compression_type", OPTION_TEXT, "zlib|zstd", "zlib", "of compressed clusters"},
	{"lazy_refcounts", OPTION_BOOL, NULL, "off", "QEMU may bring reference counts up to date later"},
	{"data_file", OPTION_TEXT, NULL, NULL, "the disk's bytes are in this file, beside the image"},
	{"data_file_raw", OPTION_BOOL, NULL, "off", "and the data file is a raw image of the disk"},
	{"preallocation", OPTION_TEXT, "off|metadata|falloc|full", "off", "give everything its place at once"},
	{"encryption", OPTION_BOOL, NULL, "off", "the same as encrypt.format=aes"},
	{"encrypt.format", OPTION_TEXT, "aes|luks", NULL, "encrypt the disk's bytes (aes: not safe, for old programs)"},
	LUKS_OPTIONS("encrypt."),
	{0},
};
/* clang-format on */

static int read_extras(const struct img_create_opts *o, struct extras *x,
		       struct err *err)
{
	static const char *const how[] = {"off", "metadata", "falloc", "full"};
	const struct img_option *v = o->options;
	unsigned n = o->n_options;
	const char *prealloc = img_option_text(v, n, "preallocation", "off");

	x->data_file = img_option_text(v, n, "data_file", NULL);
	x->data_raw = img_option_bool(v, n, "data_file_raw", false);
	x->lazy = img_option_bool(v, n, "lazy_refcounts", false);
	for (unsigned i = 0; i < ARRAY_LEN(how); i++)
		if (!strcmp(prealloc, how[i]))
			x->prealloc = i;
	/* A raw data file has no zero clusters of its own: everything is where it is. */
	if (x->data_raw && x->prealloc == IMG_PREALLOC_OFF)
		x->prealloc = IMG_PREALLOC_METADATA;
	if (o->version == 2 && (x->data_file || x->lazy))
		return err_set(
			err, EINVAL,
			"version 2 has neither data files nor lazy reference counts: "
			"use version 3");
	if (x->data_raw && !x->data_file)
		return err_set(err, EINVAL, "data_file_raw needs a data_file");
	if (o->backing_path && (x->data_raw || x->prealloc))
		return err_set(
			err, EINVAL,
			"with a backing file there is neither preallocation nor a raw "
			"data file");
	return 0;
}

/* The image is made: its data file, and places for everything. */
static int create_extras(struct img_target *t, const struct img_create_opts *o,
			 const struct extras *x, struct err *err)
{
	struct img_opts io = {.no_lock = true, .no_sync = true};
	struct img_file *data;
	size_t len;
	struct img *img;
	int rc = 0, end;

	if (x->data_file) {
		rc = target_add_file(t, x->data_file, &data, err);
		if (!rc && !file_is_device(data) && (rc = file_truncate(data, o->size)))
			err_sys(err, -rc, "cannot make '%s'", x->data_file);
	}
	if (rc || !x->prealloc || !o->size)
		return rc;
	if (x->crypt.method)
		rc = luks_new_secret(o, "encrypt.", &io.secret, &len, err);
	if (rc)
		return rc;
	io.secret_len = x->crypt.method ? len : 0;
	rc = img_open_made(t, &img_qcow2, &io, &img, err);
	if (rc)
		return rc;
	rc = qcow2_preallocate(img, 0, o->size, x->prealloc);
	end = img_close(img);
	rc = rc ? rc : end;
	return rc ? err_sys(err, -rc, "cannot take the image's space") : 0;
}

/* The settings by name take the place of the members. */
static struct img_create_opts by_name(const struct img_create_opts *opts)
{
	struct img_create_opts o = *opts;
	const struct img_option *v = o.options;
	unsigned n = o.n_options;
	const char *compat = img_option_text(v, n, "compat", NULL);

	if (compat)
		o.version = !strcmp(compat, "0.10") || !strcmp(compat, "v2") ? 2 : 3;
	o.cluster_size = (uint32_t)min_u64(
		img_option_number(v, n, "cluster_size", o.cluster_size), UINT32_MAX);
	o.refcount_bits =
		(uint32_t)img_option_number(v, n, "refcount_bits", o.refcount_bits);
	o.extended_l2 = img_option_bool(v, n, "extended_l2", o.extended_l2);
	o.zstd = !strcmp(
		img_option_text(v, n, "compression_type", o.zstd ? "zstd" : "zlib"),
		"zstd");
	return o;
}

int qcow2_create(struct img_target *t, const struct img_create_opts *given,
		 struct err *err)
{
	struct img_create_opts named = by_name(given), *opts = &named;
	struct img_file *f = t->file;
	struct str head = {0};
	struct layout l = {0};
	struct extras x = {0};
	int rc = read_extras(opts, &x, err);

	rc = rc ? rc : qcow2_crypt_plan(opts, &x.crypt, err);
	rc = rc ? rc : layout_plan(&l, opts, x.crypt.len, err);
	if (rc) {
		luks_box_fini(&x.crypt.luks);
		return rc;
	}
	header_build(&l, opts, &x, &head);
	if (head.failed)
		rc = err_set(err, ENOMEM, "no memory for the header");
	else if (head.len > l.cluster_size ||
		 (opts->backing_path && strlen(opts->backing_path) > 1023))
		rc = err_set(err, ENAMETOOLONG,
			     "the backing file's name does not fit in the header");
	if (!rc &&
	    (rc = file_zero(f, cluster_off(&l, 0), cluster_off(&l, l.total), false)))
		err_sys(err, -rc, "cannot write the image");
	if (!rc && x.crypt.len)
		rc = luks_box_write(&x.crypt.luks, f,
				    cluster_off(&l, l.total - l.crypto_clusters), opts,
				    "encrypt.", err);
	luks_box_fini(&x.crypt.luks);
	if (rc) {
		str_fini(&head);
		return rc;
	}
	/* The header, which makes it an image, is last. */
	rc = counts_write(f, &l);
	if (!rc)
		rc = file_write(f, head.p, 0, head.len);
	str_fini(&head);
	return rc ? err_sys(err, -rc, "cannot write the image")
		  : create_extras(t, opts, &x, err);
}

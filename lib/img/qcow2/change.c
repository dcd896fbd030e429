/*
 * img/qcow2/change.c - changes of a whole qcow2 image: its size, version, width of counts, backing file; places for what
 * has none yet. Each comes into force with one write of the header. One thread; nobody else uses the image.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"
#include "img/sealed.h"

/* What is allocated or written in one step. */
#define STEP (16ull << 20)

static unsigned l1_span(const struct qcow2 *q)
{
	return q->cluster_bits + q->l2_bits;
}

static uint64_t l1_entries(const struct qcow2 *q, uint64_t size)
{
	return (size + BIT(l1_span(q)) - 1) >> l1_span(q);
}

static int begin(struct img *img)
{
	int rc = img->writing ? 0 : qcow2_begin_write(img);

	if (!rc)
		img->writing = true;
	return rc;
}

/* ---- places ---- */

static int fill_place(const struct img_place *p, enum img_prealloc how)
{
	struct sealed s = {p->file, p->file_off, p->crypt, p->crypt_off};
	uint64_t end = p->file_off + p->len;
	int rc;

	/* A hole would not read as zeros. */
	if (p->crypt)
		return sealed_write(&s, &(struct sealed_data){.n = p->len});
	rc = p->zero ? 0 : file_zero(p->file, p->file_off, p->len, false);

	/* It lies within the file before any table says so. */
	if (!rc && !file_is_device(p->file) && file_size(p->file) < end)
		rc = file_truncate(p->file, end);
	if (!rc && how == IMG_PREALLOC_FALLOC)
		rc = file_preallocate(p->file, p->file_off, p->len);
	if (!rc && how == IMG_PREALLOC_FULL)
		rc = file_fill(p->file, p->file_off, p->len);
	return rc;
}

int qcow2_preallocate(struct img *img, uint64_t from, uint64_t to,
		      enum img_prealloc how)
{
	struct qcow2 *q = img->priv;
	uint64_t off = align_down(from, q->cluster_size);
	int rc = begin(img);

	to = align_up(to, q->cluster_size);
	while (off < to && !rc) {
		struct img_extent e;
		struct img_place p;

		rc = qcow2_map(img, off, min_u64(to - off, STEP), &e);
		if (rc || e.kind == IMG_DATA || e.kind == IMG_PACKED) {
			off = align_up(off + e.len, q->cluster_size);
			continue;
		}
		rc = qcow2_alloc(img, off, align_up(e.len, q->cluster_size), &p);
		if (rc)
			break;
		if (q->external)
			p.zero = how == IMG_PREALLOC_METADATA;
		rc = fill_place(&p, how);
		if (!rc)
			rc = qcow2_link(img, off, &p);
		if (rc)
			qcow2_unalloc(img, &p);
		off += p.len;
	}
	if (!rc)
		rc = meta_flush(q, true);
	return rc;
}

/* ---- size ---- */

/* Entries of the L2 table at `i` of r->l1 from `first` on become empty: in a copy. */
static int cut_table(struct remake *r, uint64_t i, uint64_t first)
{
	struct qcow2 *q = r->q;
	uint64_t off = be64_get(r->l1[i]) & ENTRY_OFFSET, at = first * q->l2e_size;
	uint8_t *table;
	int rc;

	if (!off)
		return 0;
	table = malloc(q->cluster_size);
	if (!table)
		return -ENOMEM;
	rc = file_read(q->file, table, off, q->cluster_size);
	if (!rc) {
		memset(table + at, 0, q->cluster_size - at);
		rc = remake_put(r, table, q->cluster_size, &off);
	}
	free(table);
	if (!rc)
		r->l1[i] = be64_make(off);
	return rc;
}

/* Snapshots that do not say how large their disk is would take the new size for theirs. */
static void name_sizes(struct remake *r)
{
	for (size_t i = 0; i < r->snaps.n; i++)
		if (r->snaps.v[i].known < 16) {
			r->snaps.v[i].known = 16;
			r->snaps_changed = true;
		}
}

/* Another L1 table's length, and the size; `b`: bitmaps of the old one, NULL or none: leave them alone. */
static int remake_size(struct qcow2 *q, uint64_t l1_n, uint64_t old, uint64_t size,
		       struct bitmaps *b, struct err *err)
{
	struct remake r;
	uint64_t clusters = (size + q->cluster_size - 1) >> q->cluster_bits;
	uint64_t in_table = clusters & (BIT(q->l2_bits) - 1);
	be64 *l1;
	int rc = remake_begin(&r, q, false, err);

	if (rc)
		return rc;
	l1 = mem_new(l1_n + 1, 8);
	if (!l1) {
		remake_abort(&r);
		return err_set(err, ENOMEM, "no memory to resize '%s'", q->img->path);
	}
	memcpy(l1, r.l1, min_u64(l1_entries(q, size), r.l1_n) * 8);
	free(r.l1);
	r.l1 = l1;
	r.l1_n = l1_n;
	r.head.h->size = be64_make(size);
	name_sizes(&r);
	if (size < old && in_table)
		rc = cut_table(&r, l1_n - 1, in_table);
	if (!rc && b && b->n)
		rc = bitmaps_resize(&r, b, old, size);
	if (rc) {
		remake_abort(&r);
		return err_sys(err, -rc, "cannot resize '%s'", q->img->path);
	}
	return remake_commit(&r, err);
}

static int shrink(struct img *img, uint64_t size, struct bitmaps *b, struct err *err)
{
	struct qcow2 *q = img->priv;
	uint64_t n = max_u64(1, l1_entries(q, size));
	int rc = remake_size(q, n, img->size, size, b, err);

	/* A raw data file is the disk. */
	if (!rc && q->external && !file_is_device(q->data) && file_size(q->data) > size)
		file_truncate(q->data, size);
	return rc;
}

/* What the new part must not show: what stands behind the old end in its cluster, and in the backing file. */
static int zero_new(struct img *img, uint64_t old, uint64_t size)
{
	uint64_t tail = min_u64(size, align_up(old, img->unit)), end = tail;

	if (img->backing && img->backing->size > old)
		end = max_u64(end, min_u64(size, img->backing->size));
	return end > old ? img_write_zeroes(img, old, end - old, false) : 0;
}

/* The size, which is last. */
static int set_size(struct qcow2 *q, uint64_t old, uint64_t size, struct bitmaps *b,
		    struct err *err)
{
	struct head h;
	int rc;

	if (b->n || q->n_snapshots)
		return remake_size(q, q->l1.n, old, size, b, err);
	rc = head_load(q, &h, err);
	if (rc)
		return rc;
	h.h->size = be64_make(size);
	rc = head_write(q, &h, err);
	head_fini(&h);
	return rc;
}

static int grow(struct img *img, uint64_t size, enum img_prealloc prealloc,
		struct bitmaps *b, struct err *err)
{
	struct qcow2 *q = img->priv;
	uint64_t old = img->size;
	int rc = 0;

	if (l1_entries(q, size) * 8 > MAX_L1_BYTES)
		return err_set(err, EFBIG,
			       "'%s' cannot have %llu bytes with clusters of %u bytes",
			       img->path, (unsigned long long)size, q->cluster_size);
	if (l1_entries(q, size) > q->l1.n)
		rc = remake_size(q, l1_entries(q, size), old, old, NULL, err);
	if (rc)
		return rc;
	/* The header's size is last: until then what is written here is behind the end. */
	img->size = size;
	rc = zero_new(img, old, size);
	if (!rc && q->external && !file_is_device(q->data) && file_size(q->data) < size)
		rc = file_truncate(q->data, size);
	if (!rc && prealloc)
		rc = qcow2_preallocate(img, old, size, prealloc);
	if (!rc && img->writing)
		rc = meta_flush(q, true);
	if (rc)
		err_sys(err, -rc, "cannot resize '%s'", img->path);
	else
		rc = set_size(q, old, size, b, err);
	if (rc)
		img->size = old;
	return rc;
}

int qcow2_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
		 struct err *err)
{
	struct qcow2 *q = img->priv;
	struct bitmaps b = {0};
	int rc;

	if (q->n_snapshots && q->version < 3)
		return err_set(
			err, ENOTSUP,
			"'%s' is of version 2 and has snapshots, which would not know "
			"their size: amend it to version 3 first",
			img->path);
	if (size < img->size && prealloc)
		return err_set(err, EINVAL, "no space can be taken while '%s' shrinks",
			       img->path);
	if (size < img->size) {
		rc = bitmaps_resizable(q, &b, err);
		rc = rc ? rc : shrink(img, size, &b, err);
		bitmaps_fini(&b);
		return rc;
	}
	if (img->has_backing && !img->backing)
		return err_set(
			err, ENXIO,
			"the backing file of '%s' is not open: what it has behind the "
			"old end would show",
			img->path);
	if (img->has_backing && prealloc)
		return err_set(
			err, ENOTSUP,
			"'%s' has a backing file, which preallocation would hide",
			img->path);
	/* Before anything is written: then they count as in use. */
	rc = bitmaps_resizable(q, &b, err);
	rc = rc ? rc : grow(img, size, prealloc, &b, err);
	bitmaps_fini(&b);
	return rc;
}

/* ---- settings ---- */

/* Zero clusters, which version 2 does not know, become data or nothing at all. */
static int expand_zeros(struct img *img)
{
	static const uint8_t zeros[65536];
	int rc = 0;

	for (uint64_t at = 0; at < img->size && !rc;) {
		struct img_extent e;

		rc = qcow2_map(img, at, img->size - at, &e);
		for (uint64_t k = 0; !rc && e.kind == IMG_ZERO && k < e.len;
		     k += sizeof(zeros))
			rc = img_write(img, zeros, at + k,
				       min_u64(e.len - k, sizeof(zeros)));
		at += rc ? 0 : e.len;
	}
	return rc;
}

/* The same where nothing is behind the image. */
static int drop_zeros(struct remake *r)
{
	struct qcow2 *q = r->q;
	uint8_t *table = malloc(q->cluster_size);
	int rc = table ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < r->l1_n && !rc; i++) {
		uint64_t off = be64_get(r->l1[i]) & ENTRY_OFFSET;
		bool changed = false;

		if (!off)
			continue;
		rc = file_read(q->file, table, off, q->cluster_size);
		for (uint64_t k = 0; k < q->cluster_size; k += 8) {
			uint64_t e = be64_at(table + k);

			if (e & ENTRY_COMPRESSED || !(e & ENTRY_ZERO))
				continue;
			memset(table + k, 0, 8);
			changed = true;
		}
		if (changed && !rc)
			rc = remake_put(r, table, q->cluster_size, &off);
		r->l1[i] = be64_make(off);
	}
	free(table);
	return rc;
}

struct settings {
	uint32_t version, rc_order;
	bool lazy;
};

static int settings_read(struct qcow2 *q, const struct img_option *o, unsigned n,
			 struct settings *s, struct err *err)
{
	const char *compat = img_option_text(o, n, "compat", NULL);

	for (unsigned i = 0; i < n; i++)
		if (strcmp(o[i].name, "compat") && strcmp(o[i].name, "refcount_bits") &&
		    strcmp(o[i].name, "lazy_refcounts"))
			return err_set(
				err, ENOTSUP,
				"'%s' of an existing image cannot be changed: only "
				"compat, lazy_refcounts and refcount_bits",
				o[i].name);
	s->version = q->version;
	if (compat)
		s->version = !strcmp(compat, "0.10") || !strcmp(compat, "v2") ? 2 : 3;
	s->lazy = img_option_bool(o, n, "lazy_refcounts",
				  s->version >= 3 && q->compatible & COM_LAZY);
	s->rc_order = (uint32_t)__builtin_ctzll(
		img_option_number(o, n, "refcount_bits", 1ull << q->rc_order));
	if (s->version >= 3)
		return 0;
	if (s->lazy || s->rc_order != 4)
		return err_set(
			err, EINVAL,
			"version 2 has neither lazy reference counts nor any but of "
			"16 bits");
	if (q->incompatible & ~(INC_DIRTY | INC_CORRUPT))
		return err_set(err, ENOTSUP,
			       "'%s' uses what version 2 does not know: a data file, "
			       "subclusters or zstd",
			       q->img->path);
	if (q->version >= 3 && (q->n_snapshots || q->bm_n))
		return err_set(err, ENOTSUP, "'%s' has %s: it cannot become version 2",
			       q->img->path, q->bm_n ? "bitmaps" : "snapshots");
	return 0;
}

/* The keys of a LUKS image, and nothing else. */
static int keys_amend(struct qcow2 *q, const struct img_option *o, unsigned n,
		      struct err *err)
{
	for (unsigned i = 0; i < n; i++)
		if (strncmp(o[i].name, "encrypt.", 8))
			return err_set(err, EINVAL,
				       "'%s' and keys cannot be changed at once",
				       o[i].name);
	if (q->crypt != CRYPT_LUKS)
		return err_set(err, ENOTSUP, "'%s' is not encrypted with LUKS",
			       q->img->path);
	return luks_box_amend(&q->luks, o, n, "encrypt.", err);
}

int qcow2_amend(struct img *img, const struct img_option *o, unsigned n,
		struct err *err)
{
	struct qcow2 *q = img->priv;
	struct settings s = {0};
	struct remake r;
	bool down;
	int rc;

	if (n && !strncmp(o[0].name, "encrypt.", 8))
		return keys_amend(q, o, n, err);
	rc = settings_read(q, o, n, &s, err);
	if (rc)
		return rc;
	down = s.version < q->version;
	if (down && img->has_backing && !img->backing)
		return err_set(err, ENXIO, "the backing file of '%s' is not open",
			       img->path);
	if (down && img->has_backing && (rc = expand_zeros(img)))
		return err_sys(err, -rc, "cannot write '%s'", img->path);
	rc = remake_begin(&r, q, false, err);
	if (rc)
		return rc;
	if (down && !img->has_backing)
		rc = drop_zeros(&r);
	if (!rc && s.version >= 3)
		rc = head_upgrade(&r.head);
	if (rc) {
		remake_abort(&r);
		return err_sys(err, -rc, "cannot change '%s'", img->path);
	}
	r.rc_order = s.rc_order;
	if (down) {
		head_downgrade(&r.head);
	} else if (s.version >= 3) {
		uint64_t com = be64_get(r.head.h->compatible) & ~COM_LAZY;

		r.head.h->compatible = be64_make(com | (s.lazy ? COM_LAZY : 0));
	}
	return remake_commit(&r, err);
}

/* ---- backing file ---- */

int qcow2_set_backing(struct img *img, const char *path, const char *format,
		      struct err *err)
{
	struct qcow2 *q = img->priv;
	struct head h;
	int rc;

	if (path && strlen(path) > 1023)
		return err_set(err, ENAMETOOLONG,
			       "the backing file's name has %zu bytes", strlen(path));
	if (path && q->autoclear & AUTO_RAW_DATA)
		return err_set(err, ENOTSUP,
			       "'%s' has a raw data file: it can have no backing file",
			       img->path);
	rc = img->writing ? meta_flush(q, true) : 0;
	if (rc)
		return err_sys(err, -rc, "cannot write '%s'", img->path);
	rc = head_load(q, &h, err);
	if (rc)
		return rc;
	if (img_set_text(&h.backing, path) ||
	    head_set_ext(&h, EXT_BACKING_FORMAT, path ? format : NULL,
			 path && format ? (uint32_t)strlen(format) : 0))
		rc = err_set(err, ENOMEM, "no memory to change '%s'", img->path);
	if (!rc)
		rc = head_write(q, &h, err);
	head_fini(&h);
	if (!rc && (img_set_text(&img->backing_path, path) ||
		    img_set_text(&img->backing_format, path ? format : NULL)))
		rc = err_set(err, ENOMEM, "no memory to change '%s'", img->path);
	if (!rc)
		img->has_backing = path != NULL;
	return rc;
}

int qcow2_make_empty(struct img *img, struct err *err)
{
	struct qcow2 *q = img->priv;
	struct remake r;
	int rc;

	if (q->external)
		return err_set(err, ENOTSUP,
			       "'%s' has a data file: it cannot be emptied", img->path);
	rc = remake_begin(&r, q, false, err);
	if (rc)
		return rc;
	memset(r.l1, 0, r.l1_n * 8);
	return remake_commit(&r, err);
}

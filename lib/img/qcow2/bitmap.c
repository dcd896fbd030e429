/*
 * img/qcow2/bitmap.c - qcow2's persistent bitmaps: their directory, and adding, changing and dropping them.
 * One thread; nobody else uses the image.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"

/* As QEMU has it. */
enum {
	MAX_BITMAPS = 65535,
	MAX_NAME = 1023,
	DIRTY_TRACKING = 1,
	MIN_GRAN = 9,
	MAX_GRAN = 31
};
#define MAX_DIR   (1024u * MAX_BITMAPS)
#define MAX_TABLE (0x8000000u)

struct disk_bitmap {
	be64 table_off;
	be32 table_n, flags;
	uint8_t type, granularity_bits;
	be16 name_len;
	be32 extra_len;
};
static_assert(sizeof(struct disk_bitmap) == 24, "as the specification has it");

/* ---- the directory ---- */

static void bitmap_fini(struct bitmap *b)
{
	free(b->extra);
	free(b->name);
}

void bitmaps_fini(struct bitmaps *b)
{
	for (size_t i = 0; i < b->n; i++)
		bitmap_fini(&b->v[i]);
	free(b->v);
	*b = (struct bitmaps){0};
}

static int bitmap_parse(struct bitmap *b, const uint8_t *p, uint64_t left,
			uint64_t *len)
{
	struct disk_bitmap d;
	uint32_t name_len;

	if (left < sizeof(d))
		return -EINVAL;
	memcpy(&d, p, sizeof(d));
	name_len = be16_get(d.name_len);
	*b = (struct bitmap){
		.table_off = be64_get(d.table_off),
		.table_n = be32_get(d.table_n),
		.flags = be32_get(d.flags),
		.type = d.type,
		.granularity_bits = d.granularity_bits,
		.extra_len = be32_get(d.extra_len),
	};
	*len = align_up(sizeof(d) + (uint64_t)b->extra_len + name_len, 8);
	if (*len > left || !name_len || name_len > MAX_NAME || b->table_n > MAX_TABLE ||
	    b->granularity_bits > 63)
		return -EINVAL;
	b->extra = malloc(b->extra_len + 1);
	b->name = strndup((const char *)p + sizeof(d) + b->extra_len, name_len);
	if (b->extra)
		memcpy(b->extra, p + sizeof(d), b->extra_len);
	return b->extra && b->name ? 0 : -ENOMEM;
}

int bitmaps_load(const struct qcow2 *q, struct bitmaps *b, struct err *err)
{
	uint64_t at = 0, len;
	uint8_t *p;
	int rc;

	*b = (struct bitmaps){0};
	if (!q->bm_n)
		return 0;
	if (q->bm_n > MAX_BITMAPS || q->bm_bytes > MAX_DIR ||
	    q->bm_off & (q->cluster_size - 1) ||
	    !range_ok(q->bm_off, q->bm_bytes, file_size(q->file)))
		return err_set(err, EINVAL,
			       "'%s' is damaged: %u bitmaps in %llu bytes at 0x%llx",
			       q->img->path, q->bm_n, (unsigned long long)q->bm_bytes,
			       (unsigned long long)q->bm_off);
	p = mem_new(q->bm_bytes + 1, 1);
	b->v = mem_new(q->bm_n, sizeof(b->v[0]));
	rc = p && b->v ? file_read(q->file, p, q->bm_off, q->bm_bytes) : -ENOMEM;
	while (b->n < q->bm_n && !rc) {
		rc = bitmap_parse(&b->v[b->n++], p + at, q->bm_bytes - at, &len);
		at += rc ? 0 : len;
	}
	free(p);
	if (!rc)
		return 0;
	if (rc == -EINVAL)
		err_set(err, EINVAL, "'%s' is damaged: bitmap %zu of %u", q->img->path,
			b->n, q->bm_n);
	else
		err_sys(err, -rc, "cannot read the bitmaps of '%s'", q->img->path);
	bitmaps_fini(b);
	return rc;
}

void bitmaps_build(const struct bitmaps *b, struct str *out)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct bitmap *x = &b->v[i];
		struct disk_bitmap d = {
			.table_off = be64_make(x->table_off),
			.table_n = be32_make(x->table_n),
			.flags = be32_make(x->flags),
			.type = x->type,
			.granularity_bits = x->granularity_bits,
			.name_len = be16_make((uint16_t)strlen(x->name)),
			.extra_len = be32_make(x->extra_len),
		};

		str_add(out, &d, sizeof(d));
		str_add(out, x->extra, x->extra_len);
		str_add(out, x->name, strlen(x->name));
		str_add(out, NULL, align_up(out->len, 8) - out->len);
	}
}

/* ---- bits ---- */

/* Larger bitmaps are not read into memory. */
#define MAX_BITS_BYTES (256ull << 20)

static uint64_t count_bits(uint64_t size, unsigned granularity_bits)
{
	return (size + BIT(granularity_bits) - 1) >> granularity_bits;
}

/* Of a disk of `size` bytes. */
static uint64_t table_entries(const struct qcow2 *q, uint64_t size,
			      unsigned granularity_bits)
{
	uint64_t bytes = (count_bits(size, granularity_bits) + 7) / 8;

	return (bytes + q->cluster_size - 1) >> q->cluster_bits;
}

/* A bitmap's content for a disk of `size` bytes, whole clusters of it. */
static int bits_load(const struct qcow2 *q, const struct bitmap *b, uint64_t size,
		     uint8_t **out)
{
	uint64_t n = table_entries(q, size, b->granularity_bits);
	uint64_t len = n << q->cluster_bits;
	be64 *table;
	int rc;

	if (b->table_n != n)
		return -EINVAL;
	if (len > MAX_BITS_BYTES)
		return -EFBIG;
	table = mem_new(n + 1, 8);
	*out = mem_new(len + 1, 1);
	rc = table && *out ? file_read(q->file, table, b->table_off, n * 8) : -ENOMEM;
	for (uint64_t i = 0; i < n && !rc; i++) {
		uint64_t e = be64_get(table[i]);
		uint8_t *p = *out + (i << q->cluster_bits);

		if (e & ENTRY_OFFSET)
			rc = file_read(q->file, p, e & ENTRY_OFFSET, q->cluster_size);
		else if (e & 1)
			memset(p, 0xff, q->cluster_size);
	}
	free(table);
	if (rc)
		free(*out);
	return rc;
}

static bool all_zeros(const uint8_t *p, uint64_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* Writes content (NULL: zeros) for a disk of `size` bytes and its table to new places. */
static int bits_store(struct remake *r, struct bitmap *b, uint64_t size,
		      const uint8_t *bits)
{
	struct qcow2 *q = r->q;
	uint64_t n = table_entries(q, size, b->granularity_bits);
	be64 *table;
	int rc = 0;

	if (n > MAX_TABLE)
		return -EFBIG;
	table = mem_new(n + 1, 8);
	if (!table)
		return -ENOMEM;
	for (uint64_t i = 0; bits && i < n && !rc; i++) {
		const uint8_t *p = bits + (i << q->cluster_bits);
		uint64_t off;

		if (all_zeros(p, q->cluster_size))
			continue;
		rc = remake_put(r, p, q->cluster_size, &off);
		table[i] = be64_make(off);
	}
	b->table_n = (uint32_t)n;
	if (!rc)
		rc = remake_put(r, table, n * 8, &b->table_off);
	free(table);
	return rc;
}

/* ---- changes ---- */

static struct bitmap *bitmap_find(struct bitmaps *b, const char *name)
{
	for (size_t i = 0; i < b->n; i++)
		if (!strcmp(b->v[i].name, name))
			return &b->v[i];
	return NULL;
}

static int bitmap_add(struct remake *r, struct bitmaps *b, const char *name,
		      uint64_t granularity)
{
	struct bitmap *v = mem_resize(b->v, b->n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	b->v = v;
	if (!granularity)
		granularity = min_u64(65536, max_u64(4096, r->q->cluster_size));
	v += b->n++;
	*v = (struct bitmap){
		.flags = BITMAP_AUTO,
		.type = DIRTY_TRACKING,
		.granularity_bits = (uint8_t)__builtin_ctzll(granularity),
		.name = strdup(name),
	};
	return v->name ? bits_store(r, v, r->q->img->size, NULL) : -ENOMEM;
}

static void bit_range(uint8_t *bits, uint64_t first, uint64_t last)
{
	for (uint64_t i = first; i <= last; i++) {
		if (!(i & 7) && i + 7 <= last) {
			bits[i / 8] = 0xff;
			i += 7;
			continue;
		}
		bits[i / 8] |= (uint8_t)(1u << (i & 7));
	}
}

/* Sets what is set in `src`, of a bitmap of another granularity perhaps. */
static void bits_merge(uint8_t *dst, unsigned dst_gran, const uint8_t *src,
		       unsigned src_gran, uint64_t size)
{
	uint64_t n = (size + BIT(src_gran) - 1) >> src_gran;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t from = i << src_gran, to = min_u64(size, from + BIT(src_gran));

		if (!(i & 7) && !src[i / 8])
			i += 7;
		else if (src[i / 8] & (1u << (i & 7)))
			bit_range(dst, from >> dst_gran, (to - 1) >> dst_gran);
	}
}

static int bitmap_merge(struct remake *r, struct bitmap *b, struct img *from,
			const char *source, struct err *err)
{
	const struct qcow2 *s = from->priv;
	struct bitmaps all = {0};
	struct bitmap *x;
	uint8_t *dst = NULL, *src = NULL;
	int rc = bitmaps_load(s, &all, err);

	if (rc)
		return rc;
	x = bitmap_find(&all, source);
	if (!x)
		rc = err_set(err, ENOENT, "'%s' has no bitmap '%s'", from->path,
			     source);
	else if (x->flags & BITMAP_IN_USE)
		rc = err_set(err, EINVAL, "bitmap '%s' of '%s' was not closed properly",
			     source, from->path);
	else if (from->size != r->q->img->size)
		rc = err_set(err, EINVAL, "'%s' and '%s' are not of the same size",
			     from->path, r->q->img->path);
	if (!rc && ((rc = bits_load(s, x, from->size, &src)) ||
		    (rc = bits_load(r->q, b, from->size, &dst))))
		err_sys(err, -rc, "cannot read bitmap '%s'", src ? b->name : source);
	if (!rc) {
		bits_merge(dst, b->granularity_bits, src, x->granularity_bits,
			   from->size);
		rc = bits_store(r, b, from->size, dst);
		if (rc)
			err_sys(err, -rc, "cannot write bitmap '%s'", b->name);
		free(dst);
	}
	free(src);
	bitmaps_fini(&all);
	return rc;
}

/* Is that possible with the bitmap of this name (NULL: there is none)? */
static int check_action(const struct img *img, enum img_bitmap_action action,
			const char *name, uint64_t gran, const struct bitmap *b,
			struct err *err)
{
	if (action == IMG_BITMAP_ADD) {
		if (b)
			return err_set(err, EEXIST, "'%s' has a bitmap '%s' already",
				       img->path, name);
		if (!*name || strlen(name) > MAX_NAME)
			return err_set(err, EINVAL, "a bitmap's name has 1 to %d bytes",
				       MAX_NAME);
		if (gran &&
		    (!is_pow2(gran) || gran < BIT(MIN_GRAN) || gran > BIT(MAX_GRAN)))
			return err_set(
				err, EINVAL,
				"a granularity of %llu: a power of two from 512 to "
				"2G is needed",
				(unsigned long long)gran);
		return 0;
	}
	if (!b)
		return err_set(err, ENOENT, "'%s' has no bitmap '%s'", img->path, name);
	if (b->flags & BITMAP_IN_USE && action != IMG_BITMAP_REMOVE)
		return err_set(
			err, EINVAL,
			"bitmap '%s' of '%s' was not closed properly: it can only be "
			"removed",
			name, img->path);
	return 0;
}

static int bitmap_do(struct remake *r, struct bitmaps *b, enum img_bitmap_action action,
		     const char *name, uint64_t gran, struct img *from,
		     const char *source, struct err *err)
{
	struct bitmap *x = bitmap_find(b, name);
	int rc = 0;

	switch (action) {
	case IMG_BITMAP_ADD: rc = bitmap_add(r, b, name, gran); break;
	case IMG_BITMAP_REMOVE:
		bitmap_fini(x);
		b->n--;
		memmove(x, x + 1, (size_t)(b->v + b->n - x) * sizeof(*x));
		break;
	case IMG_BITMAP_CLEAR: rc = bits_store(r, x, r->q->img->size, NULL); break;
	case IMG_BITMAP_ENABLE: x->flags |= BITMAP_AUTO; break;
	case IMG_BITMAP_DISABLE: x->flags &= ~(uint32_t)BITMAP_AUTO; break;
	case IMG_BITMAP_MERGE: return bitmap_merge(r, x, from, source, err);
	}
	return rc ? err_sys(err, -rc, "cannot write bitmap '%s'", name) : 0;
}

int qcow2_bitmap(struct img *img, enum img_bitmap_action action, const char *name,
		 uint64_t granularity, struct img *from, const char *source,
		 struct err *err)
{
	struct qcow2 *q = img->priv;
	struct bitmaps b = {0};
	struct remake r;
	int rc;

	if (q->version < 3)
		return err_set(err, ENOTSUP,
			       "'%s' is of version 2, which has no bitmaps", img->path);
	if (action == IMG_BITMAP_MERGE && strcmp(from->fmt->name, "qcow2"))
		return err_set(err, ENOTSUP,
			       "'%s' is no qcow2 image: it has no bitmaps", from->path);
	rc = bitmaps_load(q, &b, err);
	if (!rc)
		rc = check_action(img, action, name, granularity, bitmap_find(&b, name),
				  err);
	if (!rc)
		rc = remake_begin(&r, q, false, err);
	if (rc) {
		bitmaps_fini(&b);
		return rc;
	}
	rc = bitmap_do(&r, &b, action, name, granularity, from, source, err);
	if (!rc) {
		bitmaps_build(&b, &r.bm_dir);
		r.bm_n = b.n;
		r.bm_changed = true;
		rc = remake_commit(&r, err);
	} else {
		remake_abort(&r);
	}
	bitmaps_fini(&b);
	return rc;
}

/* ---- another size ---- */

int bitmaps_resizable(const struct qcow2 *q, struct bitmaps *b, struct err *err)
{
	int rc = bitmaps_load(q, b, err);

	for (size_t i = 0; i < b->n && !rc; i++)
		if (b->v[i].flags & BITMAP_IN_USE || b->v[i].type != DIRTY_TRACKING)
			rc = err_set(
				err, ENOTSUP,
				"bitmap '%s' of '%s' was not closed properly: remove "
				"it before the image gets another size",
				b->v[i].name, q->img->path);
	if (rc)
		bitmaps_fini(b);
	return rc;
}

static int bitmap_resize(struct remake *r, struct bitmap *b, uint64_t old, uint64_t new)
{
	struct qcow2 *q = r->q;
	uint64_t n = count_bits(new, b->granularity_bits), len, had;
	uint8_t *bits, *more;
	int rc = bits_load(q, b, old, &bits);

	if (rc)
		return rc;
	had = table_entries(q, old, b->granularity_bits) << q->cluster_bits;
	len = table_entries(q, new, b->granularity_bits) << q->cluster_bits;
	if (len > MAX_BITS_BYTES) {
		free(bits);
		return -EFBIG;
	}
	more = realloc(bits, max_u64(len, had) + 1);
	if (!more) {
		free(bits);
		return -ENOMEM;
	}
	if (len > had)
		memset(more + had, 0, len - had);
	/* Nothing is dirty behind the end. */
	if (new < old && n < len * 8) {
		if (n % 8)
			more[n / 8] &= (uint8_t)((1u << (n % 8)) - 1);
		memset(more + (n + 7) / 8, 0, len - (n + 7) / 8);
	}
	rc = bits_store(r, b, new, more);
	free(more);
	return rc;
}

int bitmaps_resize(struct remake *r, struct bitmaps *b, uint64_t old, uint64_t new)
{
	int rc = 0;

	for (size_t i = 0; i < b->n && !rc; i++)
		rc = bitmap_resize(r, &b->v[i], old, new);
	if (rc || !b->n)
		return rc;
	bitmaps_build(b, &r->bm_dir);
	r->bm_n = b->n;
	r->bm_changed = true;
	return 0;
}

/* ---- copying ---- */

static int bitmap_copy(struct remake *r, struct bitmaps *to, struct img *from,
		       const struct bitmap *x, struct err *err)
{
	const struct qcow2 *s = from->priv;
	uint64_t size = r->q->img->size;
	struct bitmap *b;
	uint8_t *src, *dst;
	int rc;

	if (bitmap_find(to, x->name))
		return err_set(err, EEXIST, "'%s' has a bitmap '%s' already",
			       r->q->img->path, x->name);
	if (from->size > size)
		return err_set(err, EINVAL, "'%s' is smaller than the bitmap '%s'",
			       r->q->img->path, x->name);
	rc = bitmap_add(r, to, x->name, BIT(x->granularity_bits));
	if (!rc)
		rc = bits_load(s, x, from->size, &src);
	if (rc)
		return err_sys(err, -rc, "cannot read bitmap '%s'", x->name);
	b = &to->v[to->n - 1];
	b->flags = x->flags & BITMAP_AUTO;
	rc = bits_load(r->q, b, size, &dst);
	if (!rc) {
		bits_merge(dst, b->granularity_bits, src, x->granularity_bits,
			   from->size);
		rc = bits_store(r, b, size, dst);
		free(dst);
	}
	free(src);
	return rc ? err_sys(err, -rc, "cannot write bitmap '%s'", x->name) : 0;
}

/* Takes those away that cannot be copied, or fails because of them. */
static int drop_broken(struct img *from, struct bitmaps *b,
		       const struct img_bitmap_copy *how, struct err *err)
{
	for (size_t i = 0; i < b->n;) {
		struct bitmap *x = &b->v[i];

		if (!(x->flags & BITMAP_IN_USE) && x->type == DIRTY_TRACKING &&
		    x->granularity_bits >= MIN_GRAN &&
		    x->granularity_bits <= MAX_GRAN) {
			i++;
			continue;
		}
		if (!how->skip_broken)
			return err_set(err, EINVAL,
				       "bitmap '%s' of '%s' was not closed properly: "
				       "--skip-broken-bitmaps leaves it out",
				       x->name, from->path);
		if (how->say)
			how->say(how->ctx, x->name);
		bitmap_fini(x);
		b->n--;
		memmove(x, x + 1, (size_t)(b->v + b->n - x) * sizeof(*x));
	}
	return 0;
}

/* Puts copies into the image. */
static int copy_all(struct qcow2 *q, struct img *from, const struct bitmaps *all,
		    struct err *err)
{
	struct bitmaps to;
	struct remake r;
	int rc = bitmaps_load(q, &to, err);

	if (rc)
		return rc;
	rc = remake_begin(&r, q, false, err);
	if (rc) {
		bitmaps_fini(&to);
		return rc;
	}
	for (size_t i = 0; i < all->n && !rc; i++)
		rc = bitmap_copy(&r, &to, from, &all->v[i], err);
	if (rc) {
		remake_abort(&r);
	} else {
		bitmaps_build(&to, &r.bm_dir);
		r.bm_n = to.n;
		r.bm_changed = true;
		rc = remake_commit(&r, err);
	}
	bitmaps_fini(&to);
	return rc;
}

int qcow2_bitmaps_copy(struct img *img, struct img *from,
		       const struct img_bitmap_copy *how, struct err *err)
{
	struct bitmaps all;
	int rc = bitmaps_load(from->priv, &all, err);

	if (rc)
		return rc;
	rc = drop_broken(from, &all, how, err);
	if (!rc && img && all.n)
		rc = copy_all(img->priv, from, &all, err);
	bitmaps_fini(&all);
	return rc;
}

/* ---- writing ---- */

int bitmaps_in_use(struct qcow2 *q)
{
	struct bitmaps b;
	struct str dir = {0};
	bool change = false;
	int rc = bitmaps_load(q, &b, NULL);

	if (rc)
		return rc;
	for (size_t i = 0; i < b.n; i++)
		if (b.v[i].flags & BITMAP_AUTO && !(b.v[i].flags & BITMAP_IN_USE)) {
			b.v[i].flags |= BITMAP_IN_USE;
			change = true;
		}
	if (change) {
		bitmaps_build(&b, &dir);
		rc = dir.failed || dir.len > q->bm_bytes
			     ? -ENOMEM
			     : file_write(q->file, dir.p, q->bm_off, dir.len);
		if (!rc)
			rc = file_sync(q->file);
		str_fini(&dir);
	}
	bitmaps_fini(&b);
	return rc;
}

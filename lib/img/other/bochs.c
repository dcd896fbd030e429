/*
 * img/other/bochs.c - Bochs' redologs: growing disks, and (to be read) the undoable and volatile ones, which stand in front
 * of a disk whose name is theirs without ".redolog". A catalog of extents, each with a bitmap of its
 * sectors, as in the "disk image" chapter of Bochs' development guide. Opening and closing: one thread;
 * the rest: any.
 *
 * Order on disk: data and the zeroed bitmaps of new extents are synced before bitmaps and catalog change, in
 * any order: an extent whose bitmap did not arrive reads as zeros, one that is not in the catalog is not used.
 * Locks: flush_lock, then lock, which guards all that changes in struct bochs.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/img_int.h"
#include "img/meta.h"
#include "img/parent.h"

struct bochs_header {
	char magic[32], type[16], subtype[16];
	le32 version, header, n_catalog, bitmap, extent;
	union {
		le64 size1; /* version 1 */
		struct {
			le32 timestamp;
			le64 size;
		} v2;
	} u;
	uint8_t rest[512 - 84 - 12];
};
static_assert(sizeof(struct bochs_header) == 512, "a sector");

#define BOCHS_FREE  0xffffffffu
#define MAX_CATALOG (8u << 20)
#define MAX_EXTENT  (256u << 20)
#define MAX_BYTES   (8ull << 40) /* of new images: QEMU reads no larger ones */

struct bochs {
	struct img *img; /* borrowed */
	struct bochs_header h;
	uint64_t file_len, data_off, stride, bitmap_len;
	uint32_t extent, n;
	uint32_t next; /* number of the next new extent */
	le32 *catalog;
	pthread_mutex_t flush_lock, lock;
	struct meta_pages pages;
};

static bool is_bochs(const void *head)
{
	const struct bochs_header *h = head;

	return !strncmp(h->magic, "Bochs Virtual HD Image", sizeof(h->magic)) &&
	       !strncmp(h->type, "Redolog", sizeof(h->type));
}

static bool bochs_probe(const struct img_probe *p)
{
	return p->head_len >= sizeof(struct bochs_header) && is_bochs(p->head);
}

static int take_header(struct bochs *b, struct err *err)
{
	const char *path = b->img->path;
	uint32_t version = le32_get(b->h.version), bitmap = le32_get(b->h.bitmap);
	uint64_t size;

	if (!is_bochs(&b->h))
		return err_set(err, EINVAL, "'%s' is no redolog of Bochs", path);
	if (version != 0x10000 && version != 0x20000)
		return err_set(err, ENOTSUP,
			       "'%s' is a redolog of version %#x, known are 0x10000 "
			       "and 0x20000",
			       path, version);
	b->extent = le32_get(b->h.extent);
	b->n = le32_get(b->h.n_catalog);
	size = le64_get(version == 0x10000 ? b->h.u.size1 : b->h.u.v2.size);
	if (!is_pow2(b->extent) || b->extent < 512 || b->extent > MAX_EXTENT)
		return err_set(err, EINVAL,
			       "'%s' is damaged: extents of %u bytes, a power of two "
			       "from 512 to 256 MiB is needed",
			       path, b->extent);
	if (bitmap < (b->extent / 512 + 7) / 8 || bitmap > MAX_EXTENT)
		return err_set(err, EINVAL,
			       "'%s' is damaged: bitmaps of %u bytes for extents of %u",
			       path, bitmap, b->extent);
	if (b->n > MAX_CATALOG || size > (uint64_t)b->n * b->extent)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu bytes in %u extents of %u", path,
			       (unsigned long long)size, b->n, b->extent);
	if (le32_get(b->h.header) < sizeof(b->h) ||
	    !range_ok(le32_get(b->h.header), b->n * 4ull, b->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a catalog of %u extents at %u, the "
			       "file ends at %llu",
			       path, b->n, le32_get(b->h.header),
			       (unsigned long long)b->file_len);
	b->data_off = le32_get(b->h.header) + b->n * 4ull;
	b->bitmap_len = align_up(bitmap, 512);
	b->stride = b->bitmap_len + b->extent;
	b->img->size = size;
	return 0;
}

/* What it stands in front of; growing disks stand alone. */
static int take_base(struct bochs *b, struct err *err)
{
	struct img *img = b->img;
	const char *slash = strrchr(img->path, '/');
	const char *name = slash ? slash + 1 : img->path, *cut;

	if (!strncmp(b->h.subtype, "Growing", sizeof(b->h.subtype)))
		return 0;
	if (strncmp(b->h.subtype, "Undoable", sizeof(b->h.subtype)) &&
	    strncmp(b->h.subtype, "Volatile", sizeof(b->h.subtype)))
		return err_set(err, ENOTSUP, "'%s' is a redolog of kind '%.16s'",
			       img->path, b->h.subtype);
	img->has_backing = true;
	cut = strstr(name, ".redolog");
	if ((!cut || cut == name) && !img->opts.no_backing)
		return err_set(err, EINVAL,
			       "'%s' is a redolog in front of a disk, whose name only "
			       "its own name tells: DISK.redolog",
			       img->path);
	img->backing_path = cut ? strndup(name, (size_t)(cut - name)) : strdup("?");
	return img->backing_path
		       ? 0
		       : err_set(err, ENOMEM, "no memory to open '%s'", img->path);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Written to are only growing disks whose extents are in the file, each at a place of its own. */
static int check_writable(struct bochs *b, struct err *err)
{
	const char *path = b->img->path;
	uint64_t room = (b->file_len - b->data_off + b->stride - 1) / b->stride;
	uint32_t *v, used = 0;

	if (b->img->has_backing)
		return err_set(err, EROFS,
			       "'%s' is a redolog of kind '%.16s': those are read, "
			       "growing ones are written; open it read-only",
			       path, b->h.subtype);
	/* Pages of bitmaps must not hold data, which is written past them. */
	if (b->data_off % 512)
		return err_set(err, ENOTSUP,
			       "'%s' has its extents at %llu, in the middle of a "
			       "sector: it can be read, not written; convert it",
			       path, (unsigned long long)b->data_off);
	v = mem_new(b->n + 1, sizeof(*v));
	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	for (uint32_t i = 0; i < b->n; i++)
		if (le32_get(b->catalog[i]) != BOCHS_FREE)
			v[used++] = le32_get(b->catalog[i]);
	qsort(v, used, sizeof(*v), by_number);
	b->next = used ? v[used - 1] + 1 : 0;
	for (uint32_t i = 0; i < used; i++) {
		bool twice = i && v[i] == v[i - 1];
		uint32_t at = v[i];

		if (!twice && at < room)
			continue;
		free(v);
		return err_set(err, EIO,
			       "'%s' is damaged: extent %u %s; it can be read, not "
			       "written: convert it",
			       path, at,
			       twice ? "is used twice" : "is not in the file");
	}
	free(v);
	return 0;
}

static int bochs_open(struct img *img, struct err *err)
{
	struct bochs *b = NEW(struct bochs);
	int rc;

	if (!b)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = b;
	b->img = img;
	b->file_len = file_size(img->file);
	pthread_mutex_init(&b->flush_lock, NULL);
	pthread_mutex_init(&b->lock, NULL);
	rc = meta_pages_init(&b->pages, img->file, 512);
	if (!rc)
		rc = file_read(img->file, &b->h, 0, sizeof(b->h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	rc = take_header(b, err);
	if (rc)
		return rc;
	img->unit = img->zero_unit = 512;
	b->catalog = mem_new(b->n + 1, sizeof(*b->catalog));
	rc = b->catalog ? file_read(img->file, b->catalog, le32_get(b->h.header),
				    b->n * 4ull)
			: -ENOMEM;
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	rc = take_base(b, err);
	return rc || img->read_only ? rc : check_writable(b, err);
}

static int write_all(struct bochs *b, bool durable)
{
	struct meta_list l;
	int rc;

	pthread_mutex_lock(&b->flush_lock);
	pthread_mutex_lock(&b->lock);
	rc = meta_list_take(&b->pages, &l);
	pthread_mutex_unlock(&b->lock);
	if (!rc && (l.n || durable))
		rc = file_sync(b->img->file);
	if (!rc)
		rc = meta_list_write(b->img->file, &l);
	if (!rc && l.n && durable)
		rc = file_sync(b->img->file);
	pthread_mutex_lock(&b->lock);
	meta_list_done(&b->pages, &l, rc);
	pthread_mutex_unlock(&b->lock);
	meta_list_free(&l);
	pthread_mutex_unlock(&b->flush_lock);
	return rc;
}

static int bochs_flush(struct img *img)
{
	return write_all(img->priv, true);
}

static int bochs_close(struct img *img)
{
	struct bochs *b = img->priv;
	int rc = 0;

	if (!b)
		return 0;
	if (img->writing && !img->discard_all)
		rc = write_all(b, true);
	meta_pages_fini(&b->pages);
	pthread_mutex_destroy(&b->lock);
	pthread_mutex_destroy(&b->flush_lock);
	free(b->catalog);
	free(b);
	img->priv = NULL;
	return rc;
}

/* The bits [first, first + n) of the bitmap at `at` that are like the first one. */
static int bits_run(struct bochs *b, uint64_t at, uint64_t first, uint64_t n, bool *set,
		    uint64_t *run)
{
	uint8_t byte = 0;
	uint64_t i = 0;
	int rc = 0;

	for (; i < n; i++) {
		uint64_t bit = first + i;
		bool is;

		if (!i || bit % 8 == 0)
			rc = meta_read(&b->pages, at + bit / 8, &byte, 1);
		if (rc)
			return rc;
		is = byte >> bit % 8 & 1;
		if (!i)
			*set = is;
		if (is != *set)
			break;
		if (bit % 8 == 0 && byte == (*set ? 0xff : 0))
			i += 7;
	}
	*run = min_u64(i, n);
	return 0;
}

static uint64_t extent_at(const struct bochs *b, uint64_t i)
{
	return b->data_off + le32_get(b->catalog[i]) * b->stride;
}

/* In one extent. */
static int map_locked(struct bochs *b, uint64_t off, uint64_t len, struct img_extent *e)
{
	uint64_t i = off / b->extent, in = off % b->extent, at, n = 0;
	bool set = false;
	int rc;

	if (i >= b->n)
		return -EIO;
	len = min_u64(len, b->extent - in);
	*e = (struct img_extent){.len = len, .file = b->img->file, .grain = 512};
	e->kind = b->img->has_backing ? IMG_BACKING : IMG_ZERO;
	if (le32_get(b->catalog[i]) == BOCHS_FREE)
		return 0;
	at = extent_at(b, i);
	if (at + b->bitmap_len > b->file_len)
		return -EIO;
	rc = bits_run(b, at, in / 512, (in + len - 1) / 512 - in / 512 + 1, &set, &n);
	if (rc)
		return rc;
	e->len = min_u64(n * 512 - in % 512, len);
	if (set) {
		e->kind = IMG_DATA;
		e->writable = !b->img->has_backing;
		e->file_off = at + b->bitmap_len + in;
		if (e->file_off >= b->file_len)
			return -EIO;
	}
	return 0;
}

static int bochs_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct bochs *b = img->priv;
	int rc;

	pthread_mutex_lock(&b->lock);
	rc = map_locked(b, off, len, e);
	pthread_mutex_unlock(&b->lock);
	return rc;
}

/* ---- writing ---- */

static int step_begin(struct bochs *b)
{
	bool pressed;

	pthread_mutex_lock(&b->lock);
	pressed = meta_pages_pressed(&b->pages);
	pthread_mutex_unlock(&b->lock);
	return pressed ? write_all(b, false) : 0;
}

/* A new extent at the end, with a bitmap that says that nothing is there. */
static int extent_add(struct bochs *b, uint64_t i)
{
	le32 number = le32_make(b->next);
	uint64_t at = b->data_off + b->next * b->stride, end = at + b->stride;
	int rc = 0;

	if (b->next == BOCHS_FREE - 1)
		return -EFBIG;
	if (end > b->file_len && file_is_device(b->img->file))
		return -ENOSPC;
	if (at < b->file_len) /* behind the last extent there was something */
		rc = file_zero(b->img->file, at, b->bitmap_len, false);
	meta_pages_forget(&b->pages, at, b->bitmap_len);
	if (!rc && end > b->file_len && !(rc = file_truncate(b->img->file, end)))
		b->file_len = end;
	if (!rc)
		rc = meta_write(&b->pages, le32_get(b->h.header) + i * 4, &number,
				sizeof(number));
	if (rc)
		return rc;
	b->catalog[i] = number;
	b->next++;
	return 0;
}

static int bochs_alloc(struct img *img, uint64_t off, uint64_t len,
		       struct img_place *place)
{
	struct bochs *b = img->priv;
	uint64_t i = off / b->extent, in = off % b->extent;
	int rc = step_begin(b);

	if (rc)
		return rc;
	if (i >= b->n)
		return -EIO;
	pthread_mutex_lock(&b->lock);
	if (le32_get(b->catalog[i]) == BOCHS_FREE)
		rc = extent_add(b, i);
	*place = (struct img_place){
		.len = min_u64(len, b->extent - in),
		.file_off = extent_at(b, i) + b->bitmap_len + in,
		.file = img->file,
	};
	pthread_mutex_unlock(&b->lock);
	return rc;
}

/* The place is there for the next write; nothing shows it. */
static void bochs_unalloc(struct img *img, const struct img_place *place)
{
	(void)img;
	(void)place;
}

/* Sets or clears the bits of sectors [first, first + n) of one extent. */
static int bits_set(struct bochs *b, uint64_t at, uint64_t first, uint64_t n, bool set)
{
	while (n) {
		uint64_t in = first % 8, some = min_u64(n, 8 - in);
		uint8_t mask = (uint8_t)((1u << some) - 1) << in, byte, old;
		int rc = meta_read(&b->pages, at + first / 8, &old, 1);

		byte = set ? old | mask : old & (uint8_t)~mask;
		if (!rc && byte != old)
			rc = meta_write(&b->pages, at + first / 8, &byte, 1);
		if (rc)
			return rc;
		first += some;
		n -= some;
	}
	return 0;
}

static int bochs_link(struct img *img, uint64_t off, const struct img_place *place)
{
	struct bochs *b = img->priv;
	int rc = step_begin(b);

	if (rc)
		return rc;
	pthread_mutex_lock(&b->lock);
	rc = bits_set(b, extent_at(b, off / b->extent), off % b->extent / 512,
		      place->len / 512, true);
	pthread_mutex_unlock(&b->lock);
	return rc;
}

/* What has no bit reads as zeros: no data is written. */
static int bochs_zero(struct img *img, uint64_t off, uint64_t len, bool unmap,
		      uint64_t *done)
{
	struct bochs *b = img->priv;
	uint64_t i = off / b->extent, in = off % b->extent;
	int rc = step_begin(b);

	if (rc)
		return rc;
	if (i >= b->n)
		return -EIO;
	*done = min_u64(len, b->extent - in);
	pthread_mutex_lock(&b->lock);
	if (le32_get(b->catalog[i]) != BOCHS_FREE) {
		rc = bits_set(b, extent_at(b, i), in / 512, *done / 512, false);
		if (!rc && unmap)
			file_discard(img->file, extent_at(b, i) + b->bitmap_len + in,
				     *done);
	}
	pthread_mutex_unlock(&b->lock);
	return rc;
}

static int bochs_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done)
{
	return bochs_zero(img, off, len, true, done);
}

/* ---- making ---- */

/* Catalog and bitmaps grow by turns, as Bochs does it. */
static void new_geometry(uint64_t size, uint32_t *n, uint32_t *bitmap)
{
	bool turn = false;

	*n = 512;
	*bitmap = 1;
	while ((uint64_t)*n * *bitmap * 8 * 512 < size) {
		turn = !turn;
		*(turn ? n : bitmap) *= 2;
	}
}

static int bochs_create(struct img_target *t, const struct img_create_opts *opts,
			struct err *err)
{
	struct bochs_header h = {.magic = "Bochs Virtual HD Image",
				 .type = "Redolog",
				 .subtype = "Growing"};
	uint64_t size = align_up(opts->size, 512);
	uint32_t n, bitmap;
	uint8_t *catalog;
	int rc;

	if (opts->size > MAX_BYTES)
		return err_set(err, EFBIG,
			       "%llu bytes: growing disks of Bochs have at most 8 TiB",
			       (unsigned long long)opts->size);
	new_geometry(size, &n, &bitmap);
	h.version = le32_make(0x20000);
	h.header = le32_make(sizeof(h));
	h.n_catalog = le32_make(n);
	h.bitmap = le32_make(bitmap);
	h.extent = le32_make(bitmap * 8 * 512);
	h.u.v2.size = le64_make(size);
	catalog = mem_new(n, 4);
	if (!catalog)
		return err_set(err, ENOMEM, "no memory to create '%s'", t->path);
	memset(catalog, 0xff, n * 4ull);
	rc = file_write(t->file, &h, 0, sizeof(h));
	if (!rc)
		rc = file_write(t->file, catalog, sizeof(h), n * 4ull);
	free(catalog);
	return rc ? err_sys(err, -rc, "cannot write '%s'", t->path) : 0;
}

static int bochs_measure(const struct img_create_opts *opts,
			 const struct img_plan *plan, struct img_measure *m,
			 struct err *err)
{
	uint32_t n, bitmap;
	uint64_t extent, stride, head;

	if (opts->size > MAX_BYTES)
		return err_set(err, EFBIG,
			       "%llu bytes: growing disks of Bochs have at most 8 TiB",
			       (unsigned long long)opts->size);
	new_geometry(opts->size, &n, &bitmap);
	extent = bitmap * 8ull * 512;
	stride = align_up(bitmap, 512) + extent;
	head = sizeof(struct bochs_header) + n * 4ull;
	m->required = head + plan_blocks(plan, extent) * stride;
	m->fully_allocated = head + (opts->size + extent - 1) / extent * stride;
	return 0;
}

static void bochs_info(struct img *img, struct img_info *info)
{
	const struct bochs *b = img->priv;

	info->version = le32_get(b->h.version) >> 16;
	info->cluster_bytes = b->extent;
}

const struct img_format img_bochs = {
	.name = "bochs",
	.title = "Bochs redolog",
	.probe = bochs_probe,
	.open = bochs_open,
	.close = bochs_close,
	.map = bochs_map,
	.info = bochs_info,
	.alloc = bochs_alloc,
	.link = bochs_link,
	.unalloc = bochs_unalloc,
	.zero = bochs_zero,
	.discard = bochs_discard,
	.flush = bochs_flush,
	.create = bochs_create,
	.measure = bochs_measure,
};

/*
 * img/other/bochs.c - Bochs' redologs, to be read: growing disks, and the undoable and volatile ones, which stand in front
 * of a disk whose name is theirs without ".redolog". A catalog of extents, each with a bitmap of its
 * sectors. Opening and closing: one thread; mapping: any.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/img_int.h"
#include "img/meta.h"

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

struct bochs {
	struct img *img; /* borrowed */
	struct bochs_header h;
	uint64_t file_len, data_off, stride, bitmap_len;
	uint32_t extent, n;
	le32 *catalog;
	pthread_mutex_t lock;
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

static int bochs_open(struct img *img, struct err *err)
{
	struct bochs *b = NEW(struct bochs);
	int rc;

	if (!b)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = b;
	b->img = img;
	b->file_len = file_size(img->file);
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
	return take_base(b, err);
}

static int bochs_close(struct img *img)
{
	struct bochs *b = img->priv;

	if (!b)
		return 0;
	meta_pages_fini(&b->pages);
	pthread_mutex_destroy(&b->lock);
	free(b->catalog);
	free(b);
	img->priv = NULL;
	return 0;
}

static int bit_get(struct bochs *b, uint64_t bitmap, uint64_t sector, bool *set)
{
	uint8_t byte;
	int rc;

	if (bitmap + sector / 8 >= b->file_len)
		return -EIO;
	rc = meta_read(&b->pages, bitmap + sector / 8, &byte, 1);
	*set = !rc && byte >> sector % 8 & 1;
	return rc;
}

/* In one extent. */
static int map_locked(struct bochs *b, uint64_t off, uint64_t len, struct img_extent *e)
{
	uint64_t i = off / b->extent, in = off % b->extent, at, n;
	bool set = false, same = true;
	int rc = 0;

	if (i >= b->n)
		return -EIO;
	len = min_u64(len, b->extent - in);
	*e = (struct img_extent){.len = len, .file = b->img->file, .grain = 512};
	e->kind = b->img->has_backing ? IMG_BACKING : IMG_ZERO;
	if (le32_get(b->catalog[i]) == BOCHS_FREE)
		return 0;
	at = b->data_off + le32_get(b->catalog[i]) * b->stride;
	rc = bit_get(b, at, in / 512, &set);
	for (n = 512 - in % 512; n < len && !rc; n += 512) {
		rc = bit_get(b, at, (in + n) / 512, &same);
		if (same != set)
			break;
	}
	if (rc)
		return rc;
	e->len = min_u64(n, len);
	if (set) {
		e->kind = IMG_DATA;
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
};

/*
 * img/parallels/disk.c - the format "parallels": one file (".hds"), or a bundle of files that DiskDescriptor.xml names:
 * parts of the disk one behind the other, each a plain file or an expanding one, or a chain of them, the
 * current state in front of snapshots. Only the current state is written. Opening and closing: one
 * thread; the rest: any.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parallels/parallels_int.h"

/* A description has a few lines per file. */
#define MAX_DESCRIPTOR (1u << 20)

/* One file; p NULL: a plain one. */
struct layer {
	struct img_file *file; /* borrowed from the image */
	struct parallels *p;
	uint64_t size; /* bytes of the part: a snapshot may be from before it grew */
};

/* [start, end) of the disk; v[0] is the current state, the others are what it stands on. */
struct part {
	uint64_t start, end;
	struct layer *v;
	unsigned n;
};

struct disk {
	struct part *part;
	unsigned n, snapshots;
	bool bundle;
};

static bool is_descriptor(const void *head, size_t len)
{
	return len && *(const char *)head == '<' &&
	       memmem(head, len, "<Parallels_disk_image", 21);
}

static bool parallels_probe(const struct img_probe *p)
{
	return parallels_is_file(p->head, p->head_len) ||
	       is_descriptor(p->head, p->head_len);
}

/* ---- opening ---- */

static int layer_open(struct img *img, struct layer *l, bool writable, struct err *err)
{
	l->p = parallels_file_open(l->file, file_path(l->file), writable,
				   img->opts.repair, err);
	if (!l->p)
		return -err->code;
	l->size = l->p->size;
	return 0;
}

static int open_single(struct img *img, struct disk *d, struct err *err)
{
	struct layer *l;
	int rc;

	d->part = mem_new(1, sizeof(*d->part));
	l = mem_new(1, sizeof(*l));
	if (!d->part || !l) {
		free(l);
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	}
	d->n = 1;
	d->part[0] = (struct part){.v = l, .n = 1};
	l->file = img->file;
	rc = layer_open(img, l, !img->read_only, err);
	if (rc)
		return rc;
	img->size = d->part[0].end = l->p->size;
	img->unit = img->zero_unit = l->p->unit;
	return 0;
}

static int open_layer(struct img *img, const struct part *part, struct layer *l,
		      const struct descriptor_image *i, bool top, struct err *err)
{
	uint64_t len = part->end - part->start;
	int rc = img_open_extern(img, i->name, "file", &l->file, err);

	if (rc)
		return rc;
	if (i->plain)
		l->size = file_size(l->file);
	else
		rc = layer_open(img, l, !img->read_only && top, err);
	if (!rc && l->size < len && top)
		rc = err_set(err, EINVAL,
			     "'%s' is damaged: it has %llu bytes for %llu of the disk",
			     file_path(l->file), (unsigned long long)l->size,
			     (unsigned long long)len);
	return rc;
}

static int open_part(struct img *img, struct part *part, const struct descriptor *x,
		     const struct descriptor_storage *s, struct err *err)
{
	part->start = s->start * 512;
	part->end = s->end * 512;
	part->v = mem_new(x->n_chain, sizeof(*part->v));
	if (!part->v)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	for (unsigned i = 0; i < x->n_chain; i++) {
		const struct descriptor_image *image = descriptor_image(s, x->chain[i]);
		int rc;

		if (!image && !i && x->n_chain == 1 && s->n_images == 1)
			image = &s->image[0]; /* the only one, whatever its name */
		if (!image)
			return err_set(err, EINVAL,
				       "'%s' is damaged: it has no file of snapshot %s",
				       img->path, x->chain[i]);
		rc = open_layer(img, part, &part->v[i], image, !i, err);
		part->n = i + 1;
		if (rc)
			return rc;
	}
	return 0;
}

/* What is allocated is the same everywhere; parts begin where one begins. */
static int bundle_unit(struct img *img, const struct disk *d, struct err *err)
{
	uint32_t unit = 0;

	for (unsigned i = 0; i < d->n; i++) {
		const struct parallels *p = d->part[i].v[0].p;

		if (!p)
			continue;
		if (unit && p->unit != unit && !img->read_only)
			return err_set(err, ENOTSUP,
				       "'%s': its files have blocks of different "
				       "lengths: it can be read, not written; convert "
				       "it",
				       img->path);
		unit = unit ? (uint32_t)min_u64(unit, p->unit) : p->unit;
	}
	img->unit = img->zero_unit = unit ? unit : 512;
	for (unsigned i = 0; i < d->n && !img->read_only; i++)
		if (d->part[i].start % img->unit)
			return err_set(
				err, ENOTSUP,
				"'%s': a part begins at %llu, in the middle of a "
				"block: it can be read, not written; convert it",
				img->path, (unsigned long long)d->part[i].start);
	return 0;
}

static int open_files(struct img *img, struct disk *d, const struct descriptor *x,
		      struct err *err)
{
	d->bundle = true;
	d->snapshots = x->n_chain - 1;
	d->part = mem_new(x->n_storages, sizeof(*d->part));
	if (!d->part)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	for (unsigned i = 0; i < x->n_storages; i++) {
		int rc;

		d->n = i + 1;
		rc = open_part(img, &d->part[i], x, &x->storage[i], err);
		if (rc)
			return rc;
	}
	img->size = x->sectors * 512;
	return bundle_unit(img, d, err);
}

static int open_bundle(struct img *img, struct disk *d, struct err *err)
{
	uint64_t len = file_size(img->file);
	struct descriptor x = {0};
	char *xml;
	int rc;

	if (len > MAX_DESCRIPTOR)
		return err_set(err, EINVAL,
			       "'%s' has %llu bytes, no description is that long",
			       img->path, (unsigned long long)len);
	xml = mem_new(len + 1, 1);
	if (!xml)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	rc = file_read(img->file, xml, 0, len);
	if (rc) {
		err_sys(err, -rc, "cannot read '%s'", img->path);
	} else {
		rc = descriptor_parse(&x, xml, len, err);
		if (rc)
			err_prefix(err, "'%s'", img->path);
	}
	if (!rc)
		rc = open_files(img, d, &x, err);
	descriptor_fini(&x);
	free(xml);
	return rc;
}

static int parallels_open(struct img *img, struct err *err)
{
	struct disk *d = NEW(struct disk);
	uint64_t len = min_u64(IMG_PROBE_LEN, file_size(img->file));
	char head[IMG_PROBE_LEN];
	struct err local = {0};
	int rc;

	if (!d)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	err = err ? err : &local;
	img->priv = d;
	rc = file_read(img->file, head, 0, len);
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	return is_descriptor(head, len) ? open_bundle(img, d, err)
					: open_single(img, d, err);
}

static int parallels_close(struct img *img)
{
	struct disk *d = img->priv;
	int rc = 0;

	for (unsigned i = 0; d && i < d->n; i++) {
		for (unsigned k = 0; k < d->part[i].n; k++) {
			int one = parallels_file_close(d->part[i].v[k].p,
						       !img->discard_all);

			rc = rc ? rc : one;
		}
		free(d->part[i].v);
	}
	if (d)
		free(d->part);
	free(d);
	img->priv = NULL;
	return rc;
}

static void parallels_info(struct img *img, struct img_info *info)
{
	const struct disk *d = img->priv;
	const struct parallels *p = NULL;

	for (unsigned i = 0; i < d->n; i++) {
		const struct parallels *one = d->part[i].v[0].p;

		p = p ? p : one;
		info->dirty |= one && one->unclean;
	}
	info->snapshots = d->snapshots;
	if (!p)
		return;
	info->version = memcmp(p->h.magic, PARALLELS_V2, 16) ? 1 : 2;
	info->cluster_bytes = (uint32_t)p->block;
}

/* ---- mapping ---- */

static struct part *part_at(const struct disk *d, uint64_t off)
{
	unsigned low = 0, high = d->n - 1;

	while (low < high) {
		unsigned mid = low + (high - low + 1) / 2;

		if (d->part[mid].start <= off)
			low = mid;
		else
			high = mid - 1;
	}
	return &d->part[low];
}

static int layer_map(const struct layer *l, uint64_t off, uint64_t len,
		     struct img_extent *e)
{
	if (l->p)
		return off < l->p->n * l->p->block
			       ? parallels_file_map(l->p, off, len, e)
			       : -EIO;
	*e = (struct img_extent){
		.kind = IMG_DATA,
		.writable = true,
		.len = len,
		.file_off = off,
		.file = l->file,
		.grain = 1,
	};
	return 0;
}

static int parallels_map(struct img *img, uint64_t off, uint64_t len,
			 struct img_extent *e)
{
	const struct disk *d = img->priv;
	const struct part *part = part_at(d, off);
	bool last = part == &d->part[d->n - 1];
	int rc = 0;

	/* The last block of the image may reach behind its end. */
	if (!last || !part->v[0].p)
		len = min_u64(len, part->end - off);
	off -= part->start;
	for (unsigned i = 0; i < part->n && !rc; i++) {
		if (i && off >= part->v[i].size)
			break;
		if (i)
			len = min_u64(len, part->v[i].size - off);
		rc = layer_map(&part->v[i], off, len, e);
		if (!rc && i) {
			e->writable = false;
			e->grain = img->unit;
		}
		if (rc || e->kind != IMG_ZERO)
			break;
		len = min_u64(len, e->len);
	}
	return rc;
}

/* ---- writing ---- */

static int parallels_begin_write(struct img *img)
{
	struct disk *d = img->priv;
	int rc = 0;

	for (unsigned i = 0; i < d->n && !rc; i++)
		if (d->part[i].v[0].p)
			rc = parallels_file_begin(d->part[i].v[0].p);
	return rc;
}

static int parallels_alloc(struct img *img, uint64_t off, uint64_t len,
			   struct img_place *place)
{
	const struct disk *d = img->priv;
	const struct part *part = part_at(d, off);

	if (!part->v[0].p)
		return -EIO;
	if (part != &d->part[d->n - 1])
		len = min_u64(len, align_up(part->end, img->unit) - off);
	return parallels_file_alloc(part->v[0].p, len, place);
}

static void parallels_unalloc(struct img *img, const struct img_place *place)
{
	const struct disk *d = img->priv;

	for (unsigned i = 0; i < d->n; i++)
		if (d->part[i].v[0].file == place->file)
			parallels_file_unalloc(d->part[i].v[0].p, place);
}

static int parallels_link(struct img *img, uint64_t off, const struct img_place *place)
{
	const struct part *part = part_at(img->priv, off);

	return parallels_file_link(part->v[0].p, off - part->start, place);
}

/* Blocks stay where they are: their space goes back to the host. */
static int parallels_discard(struct img *img, uint64_t off, uint64_t len,
			     uint64_t *done)
{
	struct img_extent e;
	int rc = parallels_map(img, off, len, &e);

	if (rc)
		return rc;
	if (e.kind == IMG_DATA && e.writable)
		file_discard(e.file, e.file_off, e.len);
	*done = e.len;
	return 0;
}

static int parallels_flush(struct img *img)
{
	struct disk *d = img->priv;
	int rc = 0;

	for (unsigned i = 0; i < d->n && !rc; i++) {
		struct layer *l = &d->part[i].v[0];

		rc = l->p ? parallels_write_all(l->p, true) : file_sync(l->file);
	}
	return rc;
}

/* ---- checking ---- */

static void check_sum(struct img_check *c, const struct img_check *one)
{
	c->corruptions += one->corruptions;
	c->leaks += one->leaks;
	c->corruptions_fixed += one->corruptions_fixed;
	c->leaks_fixed += one->leaks_fixed;
	c->total_clusters += one->total_clusters;
	c->allocated_clusters += one->allocated_clusters;
	c->fragmented_clusters += one->fragmented_clusters;
	c->image_end_offset = one->image_end_offset;
}

/* Snapshots are checked, too, but not changed. */
static int parallels_check(struct img *img, struct img_check *c, struct err *err)
{
	const struct disk *d = img->priv;

	for (unsigned i = 0; i < d->n; i++) {
		for (unsigned k = 0; k < d->part[i].n; k++) {
			struct parallels *p = d->part[i].v[k].p;
			struct img_check one = {
				.fix = k ? 0 : c->fix, .say = c->say, .ctx = c->ctx};
			int rc = p ? parallels_file_check(p, &one, err) : 0;

			if (rc)
				return rc;
			if (d->bundle && (one.corruptions || one.leaks))
				check_say(c, "that is in '%s'", p->path);
			check_sum(c, &one);
		}
	}
	return 0;
}

/* ---- making ---- */

static int write_descriptor(struct img_target *t, uint64_t sectors, uint64_t block,
			    const char *name, struct err *err)
{
	char *xml;
	int len, rc;

	len = asprintf(
		&xml,
		"<?xml version='1.0' encoding='UTF-8'?>\n"
		"<Parallels_disk_image Version=\"1.0\">\n"
		"    <Disk_Parameters>\n"
		"        <Disk_size>%llu</Disk_size>\n"
		"        <Cylinders>%llu</Cylinders>\n"
		"        <PhysicalSectorSize>4096</PhysicalSectorSize>\n"
		"        <Heads>16</Heads>\n"
		"        <Sectors>32</Sectors>\n"
		"        <Padding>0</Padding>\n"
		"    </Disk_Parameters>\n"
		"    <StorageData>\n"
		"        <Storage>\n"
		"            <Start>0</Start>\n"
		"            <End>%llu</End>\n"
		"            <Blocksize>%llu</Blocksize>\n"
		"            <Image>\n"
		"                <GUID>" PARALLELS_TOP "</GUID>\n"
		"                <Type>Compressed</Type>\n"
		"                <File>%s</File>\n"
		"            </Image>\n"
		"        </Storage>\n"
		"    </StorageData>\n"
		"    <Snapshots>\n"
		"        <Shot>\n"
		"            <GUID>" PARALLELS_TOP "</GUID>\n"
		"            <ParentGUID>{00000000-0000-0000-0000-000000000000}"
		"</ParentGUID>\n"
		"        </Shot>\n"
		"    </Snapshots>\n"
		"</Parallels_disk_image>\n",
		(unsigned long long)sectors, (unsigned long long)sectors / 16 / 32,
		(unsigned long long)sectors, (unsigned long long)block / 512, name);
	if (len < 0)
		return err_set(err, ENOMEM, "no memory to create '%s'", t->path);
	rc = file_write(t->file, xml, 0, (uint64_t)len);
	free(xml);
	return rc ? err_sys(err, -rc, "cannot write '%s'", t->path) : 0;
}

/* A file of that name is a bundle's: it names the image's file, which is made beside it. */
static int parallels_create(struct img_target *t, const struct img_create_opts *opts,
			    struct err *err)
{
	static const char name[] = "root.hdd.0." PARALLELS_TOP ".hds";
	const char *slash = strrchr(t->path, '/');
	uint64_t sectors = align_up(opts->size, 512) / 512;
	struct img_file *f;
	int rc;

	if (strcmp(slash ? slash + 1 : t->path, PARALLELS_DESCRIPTOR))
		return parallels_file_create(t->file, opts, err);
	if (!sectors)
		return err_set(err, EINVAL, "a bundle's disk has at least a sector");
	rc = target_add_file(t, name, &f, err);
	if (!rc)
		rc = parallels_file_create(f, opts, err);
	if (!rc)
		rc = write_descriptor(t, sectors, parallels_block_size(opts), name,
				      err);
	return rc;
}

static const char *const aliases[] = {"hds", "hdd", "ploop", NULL};

const struct img_format img_parallels = {
	.name = "parallels",
	.title = "Parallels or OpenVZ (ploop) disk image or bundle",
	.aliases = aliases,
	.options = parallels_options,
	.probe = parallels_probe,
	.open = parallels_open,
	.close = parallels_close,
	.map = parallels_map,
	.info = parallels_info,
	.begin_write = parallels_begin_write,
	.alloc = parallels_alloc,
	.link = parallels_link,
	.unalloc = parallels_unalloc,
	.discard = parallels_discard,
	.flush = parallels_flush,
	.create = parallels_create,
	.check = parallels_check,
	.can_fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS,
};

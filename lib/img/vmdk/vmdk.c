/*
 * img/vmdk/vmdk.c - VMware's VMDK format: finding descriptor and extents, parents, mapping. The layout is VMware's "Virtual
 * Disk Format 5.0". Opening and closing: one thread; mapping: any.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parent.h"
#include "base/guid.h"
#include "img/vmdk/vmdk_int.h"

/* ---- recognition ---- */

/* A descriptor: comments, then its version. */
static bool is_text(const uint8_t *head, size_t len)
{
	const char *p = (const char *)head, *end = p + len;

	while (p < end) {
		const char *to = memchr(p, '\n', (size_t)(end - p));

		if (!to)
			return false;
		if (*p != '#' && *p != '\r' && *p != '\n' && *p != ' ')
			return to - p >= 9 && !strncasecmp(p, "version=", 8) &&
			       p[8] >= '1' && p[8] <= '3' &&
			       (p[9] == '\n' || p[9] == '\r');
		if (to - p >= 21 && !strncasecmp(p, "# Disk DescriptorFile", 21))
			return true;
		p = to + 1;
	}
	return false;
}

static bool vmdk_probe(const struct img_probe *p)
{
	if (p->head_len < 512)
		return is_text(p->head, p->head_len);
	return !memcmp(p->head, "KDMV", 4) || !memcmp(p->head, "COWD", 4) ||
	       is_text(p->head, p->head_len);
}

/* ---- descriptor ---- */

static int desc_read(struct vmdk *v, uint64_t off, uint64_t len, struct err *err)
{
	struct img *img = v->img;
	char *text;
	int rc;

	if (!len || len > VMDK_MAX_TEXT || !range_ok(off, len, file_size(img->file)))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a descriptor of %llu bytes at %llu",
			       img->path, (unsigned long long)len,
			       (unsigned long long)off);
	text = mem_new(len + 1, 1);
	rc = text ? file_read(img->file, text, off, len) : -ENOMEM;
	if (rc) {
		free(text);
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	}
	v->desc_off = off;
	v->desc_room = len;
	return vmdk_desc_parse(&v->desc, text, len, img->path, err);
}

static int parent_find(struct vmdk *v, struct err *err)
{
	struct img *img = v->img;
	char *name;

	if (v->desc.parent_cid == VMDK_NO_PARENT)
		return 0;
	img->has_backing = true;
	img->backing_format = strdup("vmdk");
	if (!v->desc.parent || !*v->desc.parent)
		return err_set(err, EINVAL,
			       "'%s' has a parent, CID %08x, and does not name it",
			       img->path, v->desc.parent_cid);
	if (img->opts.no_backing) {
		img->backing_path = strdup(v->desc.parent);
	} else if (!parent_try(img, strdup(v->desc.parent))) {
		name = strdup(v->desc.parent);
		if (name && strchr(name, '\\'))
			path_from_windows(name);
		parent_try(img, parent_base(name));
	}
	return img->backing_path && img->backing_format
		       ? 0
		       : err_set(err, ENOMEM, "no memory to open '%s'", img->path);
}

static int vmdk_check_backing(struct img *img, struct err *err)
{
	const struct vmdk *v = img->priv, *parent = img->backing->priv;

	if (img->backing->fmt != img->fmt)
		return err_set(err, EINVAL, "the parent of '%s' is no VMDK image",
			       img->path);
	if (parent->desc.cid == v->desc.parent_cid)
		return 0;
	return err_set(err, EINVAL,
		       "the parent of '%s', '%s', was changed after it was made: its "
		       "CID is %08x, not %08x",
		       img->path, img->backing->path, parent->desc.cid,
		       v->desc.parent_cid);
}

/* ---- extents ---- */

/* clang-format off */
static const struct {
	const char *name;
	enum vmdk_kind kind;
} kinds[] = {
	{"FLAT", VMDK_FLAT}, {"VMFS", VMDK_FLAT}, {"ZERO", VMDK_HOLE}, {"SPARSE", VMDK_SPARSE},
	{"VMFSSPARSE", VMDK_COWD}, {"SESPARSE", VMDK_SESPARSE},
};
/* clang-format on */

static int flat_open(struct vmdk *v, struct vmdk_extent *x, const struct vmdk_line *l,
		     struct err *err)
{
	x->flat_off = l->off * VMDK_SECTOR;
	x->file_len = file_size(x->file);
	if (range_ok(x->flat_off, x->size, x->file_len))
		return 0;
	return err_set(err, EINVAL,
		       "'%s', an extent of '%s', is too short: %llu bytes, %llu are "
		       "needed",
		       file_path(x->file), v->img->path,
		       (unsigned long long)x->file_len,
		       (unsigned long long)(x->flat_off + x->size));
}

static int line_open(struct vmdk *v, struct vmdk_extent *x, const struct vmdk_line *l,
		     struct err *err)
{
	unsigned k = 0;
	int rc;

	while (k < ARRAY_LEN(kinds) && strcasecmp(kinds[k].name, l->type))
		k++;
	if (k == ARRAY_LEN(kinds))
		return err_set(err, ENOTSUP,
			       "'%s' has an extent of kind %s, which is not known here",
			       v->img->path, l->type);
	x->kind = kinds[k].kind;
	x->access = l->access;
	x->size = l->sectors * VMDK_SECTOR;
	if (x->kind == VMDK_HOLE)
		return 0;
	rc = img_open_extern(v->img, l->name, "extent", &x->file, err);
	if (rc)
		return rc;
	if (x->kind == VMDK_FLAT)
		return flat_open(v, x, l, err);
	rc = vmdk_sparse_open(v, x, err);
	if (!rc && x->capacity < x->size)
		return err_set(err, EINVAL,
			       "'%s', an extent of '%s', has %llu bytes, %llu are "
			       "needed",
			       file_path(x->file), v->img->path,
			       (unsigned long long)x->capacity,
			       (unsigned long long)x->size);
	return rc;
}

static int lines_open(struct vmdk *v, struct err *err)
{
	struct img *img = v->img;

	if (!v->desc.n)
		return err_set(err, EINVAL, "'%s' is damaged: it names no extent",
			       img->path);
	v->ext = mem_new(v->desc.n, sizeof(*v->ext));
	if (!v->ext)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	for (size_t i = 0; i < v->desc.n; i++) {
		struct vmdk_extent *x = &v->ext[v->n++];
		int rc = line_open(v, x, &v->desc.line[i], err);

		if (rc)
			return rc;
		x->start = img->size;
		img->size += x->size;
		if (img->size > INT64_MAX / 2)
			return err_set(err, EFBIG,
				       "'%s' is damaged: its extents are too large",
				       img->path);
	}
	return 0;
}

/* The file is the only extent itself; a descriptor may be inside. */
static int self_open(struct vmdk *v, enum vmdk_kind kind, const struct vmdk_header *h,
		     struct err *err)
{
	uint64_t off = le64_get(h->desc_off), len = le64_get(h->desc_len);
	int rc = 0;

	v->ext = NEW(struct vmdk_extent);
	if (!v->ext)
		return err_set(err, ENOMEM, "no memory to open '%s'", v->img->path);
	v->n = 1;
	v->ext->kind = kind;
	v->ext->file = v->img->file;
	v->desc.parent_cid = VMDK_NO_PARENT;
	if (kind == VMDK_SPARSE && off && len) {
		if (off > VMDK_MAX_EXTENT || len > VMDK_MAX_EXTENT)
			off = len = 0;
		rc = desc_read(v, off * VMDK_SECTOR, len * VMDK_SECTOR, err);
	}
	if (!rc)
		rc = vmdk_sparse_open(v, v->ext, err);
	if (!rc)
		v->img->size = v->ext->size = v->ext->capacity;
	return rc;
}

static int any_open(struct vmdk *v, struct err *err)
{
	struct img *img = v->img;
	struct vmdk_header h;
	int rc = file_read(img->file, &h, 0, sizeof(h));

	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	if (!memcmp(h.magic, "COWD", 4))
		return self_open(v, VMDK_COWD, &h, err);
	if (!memcmp(h.magic, "KDMV", 4) && le64_get(h.capacity))
		return self_open(v, VMDK_SPARSE, &h, err);
	if (!memcmp(h.magic, "KDMV", 4)) {
		uint64_t off = le64_get(h.desc_off), len = le64_get(h.desc_len);

		if (!len) /* an empty disk */
			return self_open(v, VMDK_SPARSE, &h, err);
		if (off > VMDK_MAX_EXTENT || len > VMDK_MAX_EXTENT)
			off = len = 0;
		rc = desc_read(v, off * VMDK_SECTOR, len * VMDK_SECTOR, err);
		if (!rc && v->desc.n == 1 && !v->desc.line[0].sectors) {
			vmdk_desc_fini(&v->desc);
			return self_open(v, VMDK_SPARSE, &h, err);
		}
	} else {
		v->text = true;
		rc = desc_read(v, 0, file_size(img->file), err);
	}
	return rc ? rc : lines_open(v, err);
}

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t off)
{
	size_t lo = 0, hi = v->n;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (v->ext[mid].start <= off)
			lo = mid;
		else
			hi = mid;
	}
	while (lo &&
	       !v->ext[lo].size) /* at the end: the one before has its last grain */
		lo--;
	return &v->ext[lo];
}

/* ---- opening and closing ---- */

static int vmdk_open(struct img *img, struct err *err)
{
	struct vmdk *v = NEW(struct vmdk);
	int rc;

	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = v;
	v->img = img;
	pthread_mutex_init(&v->flush_lock, NULL);
	pthread_mutex_init(&v->lock, NULL);
	rc = any_open(v, err);
	img->unit = 512;
	for (size_t i = 0; i < v->n && !rc; i++)
		img->unit = (uint32_t)max_u64(img->unit, v->ext[i].grain);
	img->zero_unit = img->unit;
	if (!rc)
		rc = parent_find(v, err);
	if (!rc && !img->read_only)
		rc = vmdk_check_writable(v, err);
	return rc;
}

static int vmdk_close(struct img *img)
{
	struct vmdk *v = img->priv;
	int rc = 0;

	if (!v)
		return 0;
	if (v->stream)
		rc = vmdk_stream_close(v);
	else if (!img->read_only && !img->discard_all && atomic_load(&img->writing))
		rc = vmdk_write_all(v, true);
	for (size_t i = 0; i < v->n; i++)
		vmdk_sparse_close(&v->ext[i]);
	free(v->ext);
	vmdk_desc_fini(&v->desc);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->flush_lock);
	free(v);
	img->priv = NULL;
	return rc;
}

static int vmdk_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct vmdk *v = img->priv;
	struct vmdk_extent *x = vmdk_extent_at(v, off);
	uint64_t in = off - x->start;
	int rc;

	if (x->access == VMDK_NOACCESS)
		return -EACCES;
	if (in < x->size)
		len = min_u64(len, x->size - in);
	if (x->kind == VMDK_FLAT || x->kind == VMDK_HOLE) {
		*e = (struct img_extent){
			.kind = x->kind == VMDK_FLAT ? IMG_DATA : IMG_ZERO,
			.writable = x->kind == VMDK_FLAT && x->access == VMDK_RW,
			.len = len,
			.file = x->file,
			.file_off = x->flat_off + in,
			.grain = 512,
		};
		return 0;
	}
	pthread_mutex_lock(&v->lock);
	rc = vmdk_sparse_map(x, in, len, e);
	pthread_mutex_unlock(&v->lock);
	return rc;
}

/* Grains stay where they are: their space goes back to the host. */
static int vmdk_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done)
{
	struct img_extent e;
	int rc = vmdk_map(img, off, len, &e);

	if (rc)
		return rc;
	if (e.kind == IMG_DATA && e.writable)
		file_discard(e.file, e.file_off, e.len);
	*done = e.len;
	return 0;
}

static void vmdk_info(struct img *img, struct img_info *info)
{
	const struct vmdk *v = img->priv;

	for (size_t i = 0; i < v->n; i++)
		info->compressed |= v->ext[i].compressed;
	info->cluster_bytes = v->n && v->ext[0].grain ? v->ext[0].grain : 0;
}

static void vmdk_details(struct img *img, struct details *d)
{
	static const char *const names[] = {
		[VMDK_FLAT] = "FLAT",         [VMDK_HOLE] = "ZERO",
		[VMDK_SPARSE] = "SPARSE",     [VMDK_COWD] = "VMFSSPARSE",
		[VMDK_SESPARSE] = "SESPARSE",
	};
	const struct vmdk *v = img->priv;

	detail_number(d, "cid", v->desc.cid);
	detail_number(d, "parent-cid", v->desc.parent_cid);
	detail_text(d, "create-type", "%s", v->desc.create_type);
	detail_begin(d, "extents", DETAIL_LIST);
	for (size_t i = 0; i < v->n; i++) {
		const struct vmdk_extent *x = &v->ext[i];

		detail_begin(d, NULL, DETAIL_GROUP);
		detail_number(d, "virtual-size", x->size);
		if (x->file)
			detail_text(d, "filename", "%s", file_path(x->file));
		if (x->grain)
			detail_number(d, "cluster-size", x->grain);
		if (x->compressed)
			detail_bool(d, "compressed", true);
		detail_text(d, "format", "%s", names[x->kind]);
		detail_end(d);
	}
	detail_end(d);
}

const struct img_format img_vmdk = {
	.name = "vmdk",
	.title = "VMware disk image",
	.options = vmdk_options,
	.backing = true,
	.probe = vmdk_probe,
	.open = vmdk_open,
	.check_backing = vmdk_check_backing,
	.close = vmdk_close,
	.map = vmdk_map,
	.info = vmdk_info,
	.begin_write = vmdk_begin_write,
	.alloc = vmdk_alloc,
	.link = vmdk_link,
	.unalloc = vmdk_unalloc,
	.zero = vmdk_zero,
	.discard = vmdk_discard,
	.flush = vmdk_flush,
	.create = vmdk_create,
	.packer = vmdk_packer,
	.write_packed = vmdk_write_packed,
	.stream_begin = vmdk_stream_begin,
	.check = vmdk_check,
	.details = vmdk_details,
};

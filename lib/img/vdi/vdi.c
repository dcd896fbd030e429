/*
 * img/vdi/vdi.c - VirtualBox's VDI format, header versions 0.x, 1.0 and 1.1; fixed, dynamic and differencing
 * images: header, parent, opening, mapping. The layout is VirtualBox's documented one.
 * Opening and closing: one thread; mapping: any.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vdi/vdi_int.h"

/* A folder with more entries than this is not searched for a parent. */
#define MAX_SEARCHED 65536

/* The text before it may be anything. */
static bool has_magic(const void *head)
{
	const struct vdi_header *h = head;

	return le32_get(h->magic) == VDI_MAGIC;
}

static bool vdi_probe(const struct img_probe *p)
{
	return p->head_len >= sizeof(struct vdi_header0) && has_magic(p->head);
}

/* ---- header ---- */

/* Version 0.x in the form of 1.1. */
static void header_widen(struct vdi_header *h)
{
	struct vdi_header0 old;
	uint32_t n;

	memcpy(&old, h, sizeof(old));
	n = le32_get(old.n_blocks);
	h->type = old.type;
	h->flags = old.flags;
	h->map_off = le32_make(sizeof(old));
	h->data_off = le32_make((uint32_t)min_u64(UINT32_MAX, sizeof(old) + n * 4ull));
	h->legacy = old.legacy;
	h->size = old.size;
	h->block_size = old.block_size;
	h->block_extra = le32_make(0);
	h->n_blocks = old.n_blocks;
	h->n_used = old.n_used;
	h->create = old.create;
	h->modify = old.modify;
	h->parent = old.parent;
	memset(&h->parent_modify, 0, sizeof(h->parent_modify));
}

static int header_version(struct vdi *v, struct err *err)
{
	uint32_t version = le32_get(v->h.version), len = le32_get(v->h.header_len);

	v->old = version >> 16 == 0;
	if (version >> 16 > 1)
		return err_set(err, ENOTSUP,
			       "'%s' has VDI version %u.%u, known are 0 and 1",
			       v->img->path, version >> 16, version & 0xffff);
	if (v->old)
		header_widen(&v->h);
	else if (len < VDI_LEN_1_0 || len > 1u << 20)
		return err_set(err, EINVAL, "'%s' is damaged: a header of %u bytes",
			       v->img->path, len);
	return 0;
}

static int header_geometry(struct vdi *v, struct err *err)
{
	const char *path = v->img->path;
	uint64_t size = le64_get(v->h.size),
		 header_end = v->old ? sizeof(struct vdi_header0) : 456;

	if (!is_pow2(v->block_size) || v->block_size < VDI_MIN_BLOCK ||
	    v->block_size > VDI_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "'%s' is damaged: blocks of %u bytes, a power of two "
			       "from 4 KiB to 256 MiB is needed",
			       path, v->block_size);
	if (v->extra > v->block_size || v->extra % 512)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu bytes before each block", path,
			       (unsigned long long)v->extra);
	if (v->n_blocks > VDI_MAX_BLOCKS)
		return err_set(err, EINVAL,
			       "'%s' is damaged or too large: a map of %u blocks, at "
			       "most %u are possible",
			       path, v->n_blocks, VDI_MAX_BLOCKS);
	if (size > (uint64_t)v->n_blocks * v->block_size)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu bytes in %u blocks of %u", path,
			       (unsigned long long)size, v->n_blocks, v->block_size);
	if (v->map_off < header_end || v->map_off % 4 ||
	    v->map_off + 4ull * v->n_blocks > v->data_off ||
	    v->data_off > file_size(v->file))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a map of %u blocks at %llu, blocks at "
			       "%llu, file of %llu bytes",
			       path, v->n_blocks, (unsigned long long)v->map_off,
			       (unsigned long long)v->data_off,
			       (unsigned long long)file_size(v->file));
	/* A disk has whole sectors. */
	v->img->size =
		min_u64(align_up(size, 512), (uint64_t)v->n_blocks * v->block_size);
	return 0;
}

int vdi_header_take(struct vdi *v, const void *head, struct err *err)
{
	int rc;

	memcpy(&v->h, head, sizeof(v->h));
	if (!has_magic(&v->h))
		return err_set(err, EINVAL, "'%s' is no VDI image", v->img->path);
	rc = header_version(v, err);
	if (rc)
		return rc;
	v->type = le32_get(v->h.type);
	if (v->type != VDI_DYNAMIC && v->type != VDI_FIXED && v->type != VDI_DIFF)
		return err_set(err, ENOTSUP,
			       "'%s' is a VDI image of type %u, known are 1 (dynamic), "
			       "2 (fixed) and 4 (differencing)",
			       v->img->path, v->type);
	v->block_size = le32_get(v->h.block_size);
	v->extra = le32_get(v->h.block_extra);
	v->stride = v->block_size + v->extra;
	v->n_blocks = le32_get(v->h.n_blocks);
	v->map_off = le32_get(v->h.map_off);
	v->data_off = le32_get(v->h.data_off);
	return header_geometry(v, err);
}

/* ---- parents ---- */

/* Is the file `name` of folder `dir` the image with that identifier? */
static bool is_parent(int dir, const char *name, const struct guid *want,
		      struct guid *modify)
{
	struct vdi_header h;
	struct stat st;
	bool is = false;
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) &&
	    pread(fd, &h, sizeof(h), 0) == sizeof(h) && has_magic(&h)) {
		if (le32_get(h.version) >> 16 == 0)
			header_widen(&h);
		is = guid_same(&h.create, want);
		*modify = h.modify;
	}
	close(fd);
	return is;
}

/* The name of the parent in a folder; NULL: not there. */
static char *folder_search(const struct vdi *v, const char *folder, struct guid *modify)
{
	DIR *dir = opendir(folder);
	char *found = NULL;
	struct dirent *d;

	for (unsigned i = 0; dir && !found && i < MAX_SEARCHED && (d = readdir(dir));
	     i++) {
		size_t len = strlen(d->d_name);

		if (len > 4 && !strcasecmp(d->d_name + len - 4, ".vdi") &&
		    is_parent(dirfd(dir), d->d_name, &v->h.parent, modify))
			found = strdup(d->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* "dir/name", of a name that is taken over. */
static char *in_folder(const char *dir, char *name)
{
	char *path = NULL;

	if (name && asprintf(&path, "%s/%s", dir, name) < 0)
		path = NULL;
	free(name);
	return path;
}

/*
 * In the image's folder; then where the user lets files be opened: in that folder, or, if that is
 * everywhere, in the one above, where VirtualBox has the machine's first disk when the image is in its
 * Snapshots folder.
 */
static char *parent_search(const struct vdi *v, struct guid *modify)
{
	const char *slash = strrchr(v->img->path, '/');
	const char *allow = v->img->opts.allow_external;
	char *folder = slash ? strndup(v->img->path, (size_t)(slash - v->img->path) + 1)
			     : strdup("./");
	char *found = folder ? folder_search(v, folder, modify) : NULL, *above = NULL;

	if (!found && folder && allow && strcmp(allow, "/"))
		found = in_folder(allow, folder_search(v, allow, modify));
	else if (!found && folder && allow && asprintf(&above, "%s..", folder) >= 0)
		found = in_folder("..", folder_search(v, above, modify));
	free(above);
	free(folder);
	return found;
}

static int parent_open(struct vdi *v, struct err *err)
{
	struct img *img = v->img;
	char text[GUID_TEXT];
	struct guid modify;

	img->has_backing = true;
	img->backing_format = strdup("vdi");
	guid_format(&v->h.parent, false, text);
	if (guid_same(&v->h.parent, &v->h.create))
		return err_set(err, ELOOP, "'%s' is its own parent: %s", img->path,
			       text);
	img->backing_path = parent_search(v, &modify);
	if (!img->backing_path && img->opts.no_backing)
		img->backing_path = strdup(text);
	else if (!img->backing_path)
		return err_set(err, ENOENT,
			       "the parent of '%s', the VDI image %s, is not in its "
			       "folder: put it there, or say with --allow-external "
			       "where it is",
			       img->path, text);
	else if (!img->opts.no_backing && !guid_is_zero(&v->h.parent_modify) &&
		 !guid_same(&v->h.parent_modify, &modify))
		return err_set(err, EINVAL,
			       "the parent of '%s', '%.80s', was changed after it was "
			       "made: their data do not belong together",
			       img->path, img->backing_path);
	return img->backing_path && img->backing_format
		       ? 0
		       : err_set(err, ENOMEM, "no memory to open '%s'", img->path);
}

/* ---- opening and closing ---- */

static int vdi_open(struct img *img, struct err *err)
{
	struct vdi *v = NEW(struct vdi);
	uint8_t head[sizeof(struct vdi_header)];
	int rc;

	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = v;
	v->img = img;
	v->file = img->file;
	rc = blockmap_init(&v->m, v->file, 512);
	if (!rc)
		rc = file_read(v->file, head, 0, sizeof(head));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	rc = vdi_header_take(v, head, err);
	if (rc)
		return rc;
	v->count_on_disk = le32_get(v->h.n_used);
	v->room = (file_size(v->file) - v->data_off + v->stride - 1) / v->stride;
	img->unit = img->zero_unit = v->block_size;
	if (v->type == VDI_DIFF && !guid_is_zero(&v->h.parent))
		rc = parent_open(v, err);
	if (!rc && !img->read_only && !img->opts.repair)
		rc = vdi_places(v, err);
	return rc;
}

static int vdi_close(struct img *img)
{
	struct vdi *v = img->priv;
	int rc = 0;

	if (!v)
		return 0;
	if (!img->read_only && !img->discard_all && atomic_load(&img->writing))
		rc = vdi_write_all(v, true);
	blockmap_fini(&v->m);
	free(v->used);
	free(v);
	img->priv = NULL;
	return rc;
}

static void vdi_info(struct img *img, struct img_info *info)
{
	const struct vdi *v = img->priv;

	info->version = le32_get(v->h.version) >> 16;
}

static void vdi_details(struct img *img, struct details *d)
{
	const struct vdi *v = img->priv;
	char id[GUID_TEXT];

	detail_text(d, "subformat", "%s",
		    v->type == VDI_FIXED  ? "static"
		    : v->type == VDI_DIFF ? "differencing"
					  : "dynamic");
	detail_text(d, "uuid", "%s", guid_format(&v->h.create, false, id));
	if (v->type == VDI_DIFF)
		detail_text(d, "parent-uuid", "%s",
			    guid_format(&v->h.parent, false, id));
}

/* ---- mapping ---- */

int vdi_entry(struct vdi *v, uint64_t block, uint32_t *entry)
{
	le32 e;
	int rc;

	if (block >= v->n_blocks)
		return -EIO;
	rc = meta_read(&v->m.pages, v->map_off + block * 4, &e, sizeof(e));
	*entry = le32_get(e);
	return rc;
}

static int map_block(void *ctx, uint64_t block, uint64_t in, uint64_t len,
		     struct img_extent *e)
{
	struct vdi *v = ctx;
	uint32_t entry;
	int rc = vdi_entry(v, block, &entry);

	*e = (struct img_extent){
		.kind = IMG_ZERO, .grain = v->block_size, .file = v->file, .len = len};
	if (rc)
		return rc;
	if (entry == VDI_FREE && v->img->has_backing)
		e->kind = IMG_BACKING;
	if (entry == VDI_ZERO || entry == VDI_FREE)
		return 0;
	if (entry >= v->room)
		return -EIO; /* behind the end of the file */
	e->kind = IMG_DATA;
	e->writable = true;
	e->file_off = vdi_place_off(v, entry) + in;
	return 0;
}

static int vdi_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct vdi *v = img->priv;

	return blockmap_map(&v->m, v->block_size, map_block, v, off, len, e);
}

const struct img_format img_vdi = {
	.name = "vdi",
	.title = "VirtualBox disk image",
	.options = vdi_options,
	.backing = true,
	.probe = vdi_probe,
	.open = vdi_open,
	.close = vdi_close,
	.map = vdi_map,
	.info = vdi_info,
	.details = vdi_details,
	.begin_write = vdi_begin_write,
	.alloc = vdi_alloc,
	.link = vdi_link,
	.unalloc = vdi_unalloc,
	.zero = vdi_zero,
	.discard = blockmap_discard,
	.flush = vdi_flush,
	.create = vdi_create,
	.measure = vdi_measure,
	.check = vdi_check,
	.can_fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS,
	.resize = vdi_resize,
};

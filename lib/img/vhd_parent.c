/*
 * img/vhd_parent.c - the parents of differencing images: VHD's locators and identifiers, and what VDI and VHDX
 * share with it. While an image is opened or made; one thread.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhd_int.h"
#include "img/vhd_parent.h"

enum { MAX_PATH_BYTES = 4096 };

bool parent_try(struct img *img, char *name)
{
	char *path = NULL;
	bool there;

	if (!name || !*name) {
		free(name);
		return false;
	}
	there = !extern_resolve(img->path, name, "parent", img->opts.allow_external,
				&path, NULL) &&
		!access(path, F_OK);
	free(path);
	if (there || !img->backing_path) {
		free(img->backing_path);
		img->backing_path = name;
	} else {
		free(name);
	}
	return there;
}

char *parent_base(char *path)
{
	char *slash = path ? strrchr(path, '/') : NULL;

	if (slash)
		memmove(path, slash + 1, strlen(slash + 1) + 1);
	return path;
}

int parent_open_new(const struct img_target *t, const struct img_create_opts *opts,
		    const struct img_format *fmt, struct img **out, struct err *err)
{
	struct img_opts o = {.format = opts->backing_format,
			     .read_only = true,
			     .no_lock = true,
			     .allow_external = opts->allow_external};
	char *path;
	int rc = extern_resolve(t->path, opts->backing_path, "parent",
				opts->allow_external, &path, err);

	if (rc)
		return rc;
	rc = img_open(path, &o, out, err);
	free(path);
	if (rc || (*out)->fmt == fmt)
		return rc;
	rc = err_set(err, EINVAL, "the parent of a %s image is of format %s, not %s",
		     fmt->name, (*out)->fmt->name, fmt->name);
	img_close(*out);
	return rc;
}

uint64_t plan_blocks(const struct img_plan *plan, uint64_t block)
{
	uint64_t n = 0, next = 0; /* blocks below `next` are counted */

	for (size_t i = 0; plan && i < plan->n_data; i++) {
		const struct img_range *r = &plan->data[i];
		uint64_t first = max_u64(next, r->off / block), end;

		if (!r->len)
			continue;
		end = (r->off + r->len - 1) / block + 1;
		if (end > first)
			n += end - first;
		next = max_u64(next, end);
	}
	return n;
}

/* The path of a locator, NULL: none, or not a path. */
static char *locator_path(struct vhd *v, const struct vhd_locator *l)
{
	uint32_t len = be32_get(l->len);
	uint64_t off = be64_get(l->off);
	char *path = NULL;
	uint8_t *raw;

	if (!len || len > MAX_PATH_BYTES || !range_ok(off, len, file_size(v->file)))
		return NULL;
	raw = mem_new(len + 1, 1);
	if (!raw || file_read(v->file, raw, off, len)) {
		free(raw);
		return NULL;
	}
	if (!memcmp(l->code, "W2ku", 4) || !memcmp(l->code, "W2ru", 4))
		path = utf16_to_utf8(raw, len, false);
	else if (!memcmp(l->code, "MacX", 4)) /* a URL, in UTF-8 */
		path = strdup(strncmp((char *)raw, "file://", 7) ? (char *)raw
								 : (char *)raw + 7);
	free(raw);
	if (path)
		path_from_windows(path);
	return path;
}

int vhd_parent_find(struct vhd *v, struct err *err)
{
	/* Relative names come first: the whole folder may have been moved. */
	static const char codes[][5] = {"W2ru", "MacX", "W2ku"};
	struct img *img = v->img;
	bool found = false;
	char *name;

	if (guid_same(&v->header.parent_id, &v->footer.id))
		return err_set(err, ELOOP, "'%s' is its own parent", img->path);
	img->has_backing = true;
	img->backing_format = strdup("vpc");
	for (unsigned base = 0; base < 2 && !found; base++)
		for (unsigned c = 0; c < ARRAY_LEN(codes) && !found; c++)
			for (unsigned i = 0; i < VHD_LOCATORS && !found; i++) {
				const struct vhd_locator *l = &v->header.locators[i];

				if (memcmp(l->code, codes[c], 4))
					continue;
				name = locator_path(v, l);
				found = parent_try(img,
						   base ? parent_base(name) : name);
			}
	if (!found) {
		name = utf16_to_utf8(v->header.parent_name,
				     sizeof(v->header.parent_name), true);
		if (name)
			path_from_windows(name);
		parent_try(img, parent_base(name));
	}
	if (!img->backing_path)
		return err_set(err, EINVAL,
			       "'%s' is a differencing image, and does not name its "
			       "parent",
			       img->path);
	return img->backing_format ? 0 : err_set(err, ENOMEM, "no memory");
}

int vhd_check_backing(struct img *img, struct err *err)
{
	const struct vhd *v = img->priv, *parent;
	char want[GUID_TEXT], is[GUID_TEXT];

	if (img->backing->fmt != &img_vhd)
		return err_set(err, EINVAL, "the parent of '%s' is no VHD image",
			       img->path);
	parent = img->backing->priv;
	if (guid_same(&parent->footer.id, &v->header.parent_id))
		return 0;
	return err_set(err, EINVAL, "'%s' is not the parent of '%s': it is %s, not %s",
		       img->backing->path, img->path,
		       guid_format(&parent->footer.id, true, is),
		       guid_format(&v->header.parent_id, true, want));
}

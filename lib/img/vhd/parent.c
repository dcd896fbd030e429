/* img/vhd/parent.c - the parents of VHD images, by locator and identifier. While an image is opened; one thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parent.h"
#include "img/vhd/vhd_int.h"

enum { MAX_PATH_BYTES = 4096 };

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

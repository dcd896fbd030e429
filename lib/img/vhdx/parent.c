/* img/vhdx/parent.c - the parents of differencing VHDX images. [MS-VHDX] 2.6.2.6. While opening; one thread. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parent.h"
#include "img/vhdx/vhdx_int.h"

/* The value of a key, as UTF-8; NULL: it is not there. */
static char *value_of(const uint8_t *raw, uint32_t len, const char *key)
{
	const struct vhdx_locator *l = (const void *)raw;
	const struct vhdx_locator_entry *e = (const void *)(l + 1);

	for (unsigned i = 0; i < le16_get(l->n); i++) {
		uint32_t key_off = le32_get(e[i].key_off);
		uint32_t off = le32_get(e[i].value_off);
		uint16_t key_len = le16_get(e[i].key_len);
		uint16_t value_len = le16_get(e[i].value_len);
		char *name;
		bool is;

		if (!range_ok(key_off, key_len, len) || !range_ok(off, value_len, len))
			continue;
		name = utf16_to_utf8(raw + key_off, key_len, false);
		is = name && !strcmp(name, key);
		free(name);
		if (is)
			return utf16_to_utf8(raw + off, value_len, false);
	}
	return NULL;
}

static void parent_search(struct img *img, const uint8_t *raw, uint32_t len)
{
	static const char *const keys[] = {"relative_path", "absolute_win32_path",
					   "volume_path"};
	bool found = false;

	/* As they are said, then in the image's folder, to which they may all have been moved. */
	for (unsigned base = 0; base < 2 && !found; base++)
		for (unsigned i = 0; i < ARRAY_LEN(keys) && !found; i++) {
			char *name = value_of(raw, len, keys[i]);

			if (name)
				path_from_windows(name);
			found = parent_try(img, base ? parent_base(name) : name);
		}
}

static void link_take(const uint8_t *raw, uint32_t len, const char *key, struct guid *g)
{
	char *text = value_of(raw, len, key);

	if (!text || !guid_parse(text, false, g))
		memset(g, 0, sizeof(*g));
	free(text);
}

int vhdx_parent_take(struct vhdx *v, const uint8_t *raw, uint32_t len, struct err *err)
{
	const struct vhdx_locator *l = (const void *)raw;
	struct img *img = v->img;

	if (len < sizeof(*l) ||
	    !range_ok(sizeof(*l), le16_get(l->n) * sizeof(struct vhdx_locator_entry),
		      len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a parent locator of %u bytes",
			       img->path, len);
	if (!guid_same(&l->type, &vhdx_locator_type))
		return err_set(err, ENOTSUP,
			       "the parent of '%s' is no VHDX image, which is not "
			       "supported",
			       img->path);
	link_take(raw, len, "parent_linkage", &v->parent_link);
	link_take(raw, len, "parent_linkage2", &v->parent_link2);
	parent_search(img, raw, len);
	img->backing_format = strdup("vhdx");
	if (!img->backing_path)
		return err_set(err, EINVAL,
			       "'%s' is a differencing image, and does not name its "
			       "parent",
			       img->path);
	return img->backing_format ? 0 : err_set(err, ENOMEM, "no memory");
}

int vhdx_check_backing(struct img *img, struct err *err)
{
	const struct vhdx *v = img->priv, *parent;
	char want[GUID_TEXT], is[GUID_TEXT];

	if (img->backing->fmt != &img_vhdx)
		return err_set(err, EINVAL, "the parent of '%s' is no VHDX image",
			       img->path);
	parent = img->backing->priv;
	if (guid_same(&parent->header.data_write, &v->parent_link) ||
	    (!guid_is_zero(&v->parent_link2) &&
	     guid_same(&parent->header.data_write, &v->parent_link2)))
		return 0;
	return err_set(err, EINVAL,
		       "'%s' is not the parent of '%s', or was changed after that was "
		       "made: it is %s, not %s",
		       img->backing->path, img->path,
		       guid_format(&parent->header.data_write, false, is),
		       guid_format(&v->parent_link, false, want));
}

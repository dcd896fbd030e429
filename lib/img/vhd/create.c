/* img/vhd/create.c - makes empty VHD images. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhd/vhd_int.h"
#include "img/parent.h"

enum { HEADER_AT = 512, BAT_AT = 1536, DEFAULT_BLOCK = 2 << 20, NAME_LEN = 4096 };

/* What Hyper-V mounts. */
#define MAX_DYNAMIC (2040ull << 30)

/* ---- pieces ---- */

/* As the specification's appendix computes it: the largest geometry that is no larger than the disk. */
void vhd_geometry(uint64_t size, struct vhd_footer *f)
{
	uint64_t sectors = min_u64(size / 512, VHD_CHS_MAX), per_head;
	uint32_t spt, heads;

	if (sectors >= 65535ull * 16 * 63) {
		spt = 255;
		heads = 16;
	} else {
		spt = 17;
		per_head = sectors / spt;
		heads = (uint32_t)max_u64(4, (per_head + 1023) / 1024);
		if (per_head >= heads * 1024ull || heads > 16) {
			spt = 31;
			heads = 16;
			per_head = sectors / spt;
		}
		if (per_head >= heads * 1024ull)
			spt = 63;
	}
	f->cylinders = be16_make((uint16_t)(sectors / spt / heads));
	f->heads = (uint8_t)heads;
	f->sectors = (uint8_t)spt;
}

void vhd_footer_seal(struct vhd_footer *f)
{
	f->checksum = be32_make(
		vhd_checksum(f, sizeof(*f), offsetof(struct vhd_footer, checksum)));
}

void vhd_header_seal(struct vhd_header *h)
{
	h->checksum = be32_make(
		vhd_checksum(h, sizeof(*h), offsetof(struct vhd_header, checksum)));
}

/* Readers take the disk's size from the geometry or from the size field, depending on who made the image; of
 * images by "win " (Hyper-V) they all take the size field, which is exact. */
static int footer_fill(struct vhd_footer *f, uint64_t size, unsigned type)
{
	time_t now = time(NULL);

	memset(f, 0, sizeof(*f));
	memcpy(f->cookie, "conectix", 8);
	f->features = be32_make(2); /* always set */
	f->version = be32_make(0x00010000);
	f->header_off = be64_make(type == VHD_FIXED ? UINT64_MAX : HEADER_AT);
	f->time = be32_make(now > VHD_EPOCH ? (uint32_t)(now - VHD_EPOCH) : 0);
	memcpy(f->creator, "win ", 4);
	f->creator_version = be32_make(0x000a0000);
	memcpy(f->creator_os, "Wi2k", 4);
	f->original_size = f->size = be64_make(size);
	vhd_geometry(size, f);
	f->type = be32_make(type);
	if (guid_make(&f->id, true))
		return -EIO;
	vhd_footer_seal(f);
	return 0;
}

static void header_fill(struct vhd_header *h, uint32_t block, uint32_t n)
{
	memcpy(h->cookie, "cxsparse", 8);
	h->data_off = be64_make(UINT64_MAX);
	h->bat_off = be64_make(BAT_AT);
	h->version = be32_make(0x00010000);
	h->n_blocks = be32_make(n);
	h->block_size = be32_make(block);
	vhd_header_seal(h);
}

/* ---- images ---- */

static int create_fixed(struct img_file *f, uint64_t size, struct vhd_footer *footer)
{
	int rc = file_is_device(f) ? 0 : file_truncate(f, size);

	return rc ? rc : file_write(f, footer, size, sizeof(*footer));
}

/* `h` has what there is to say about a parent, `name` its name, if it has one. */
static int create_dynamic(struct img_file *f, uint64_t size, uint32_t block,
			  struct vhd_footer *footer, struct vhd_header *h,
			  const uint8_t name[NAME_LEN])
{
	uint32_t n = (uint32_t)(size / block + !!(size % block));
	uint64_t bat_len = align_up(4ull * n, 512), end = BAT_AT + bat_len;
	uint8_t *bat = mem_new(1, bat_len + 1);
	int rc;

	if (!bat)
		return -ENOMEM;
	memset(bat, 0xff, bat_len);
	if (name) {
		h->locators[0].off = be64_make(end);
		end += NAME_LEN;
	}
	header_fill(h, block, n);
	rc = file_write(f, bat, BAT_AT, bat_len);
	free(bat);
	if (!rc && name)
		rc = file_write(f, name, BAT_AT + bat_len, NAME_LEN);
	if (!rc)
		rc = file_write(f, footer, end, sizeof(*footer));
	if (!rc)
		rc = file_write(f, h, HEADER_AT, sizeof(*h));
	return rc ? rc : file_write(f, footer, 0, sizeof(*footer));
}

/* Tells the header of its parent, and puts the relative name, as Windows has it, at `name`. */
static int header_parent(struct vhd_header *h, const struct img_target *t,
			 const struct img_create_opts *opts, uint8_t name[NAME_LEN],
			 struct err *err)
{
	char *win = NULL;
	struct img *parent;
	size_t len;
	int rc = parent_open_new(t, opts, &img_vhd, &parent, err);

	if (rc)
		return rc;
	h->parent_id = ((struct vhd *)parent->priv)->footer.id;
	h->parent_time = ((struct vhd *)parent->priv)->footer.time;
	img_close(parent);
	if (asprintf(&win, "%s%s", *opts->backing_path == '/' ? "" : ".\\",
		     opts->backing_path) < 0)
		return err_set(err, ENOMEM, "no memory");
	for (char *p = win; *p; p++)
		if (*p == '/')
			*p = '\\';
	len = utf8_to_utf16(win, name, NAME_LEN, false);
	free(win);
	win = strdup(opts->backing_path);
	if (!len || !win ||
	    !utf8_to_utf16(parent_base(win), h->parent_name, sizeof(h->parent_name),
			   true))
		rc = err_set(err, ENAMETOOLONG, "the parent's name '%s' does not fit",
			     opts->backing_path);
	free(win);
	memcpy(h->locators[0].code, *opts->backing_path == '/' ? "W2ku" : "W2ru", 4);
	h->locators[0].space = be32_make(NAME_LEN);
	h->locators[0].len = be32_make((uint32_t)len);
	return rc;
}

/* clang-format off */
const struct img_option_desc vhd_options[] = {
	{"subformat", OPTION_TEXT, "dynamic|fixed", "dynamic", "fixed: the disk's bytes and a footer"},
	{"block_size", OPTION_SIZE, NULL, "2M", "of dynamic images: 4k to 256M"},
	{"force_size", OPTION_BOOL, NULL, "on", "the size is always exact: accepted for scripts"},
	{0},
};
/* clang-format on */

/* What an image will be like. */
struct layout {
	uint64_t size;
	uint32_t block;
	bool fixed;
};

static int layout_plan(struct layout *l, const struct img_create_opts *opts,
		       struct err *err)
{
	const struct img_option *o = opts->options;
	uint64_t block = img_option_number(
		o, opts->n_options, "block_size",
		opts->cluster_size ? opts->cluster_size : (uint64_t)DEFAULT_BLOCK);

	l->fixed = !strcmp(img_option_text(o, opts->n_options, "subformat", "dynamic"),
			   "fixed");
	l->size = align_up(opts->size, 512);
	if (!is_pow2(block) || block < VHD_MIN_BLOCK || block > VHD_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "blocks of %llu bytes: a power of two from 4 KiB to 256 "
			       "MiB is needed",
			       (unsigned long long)block);
	l->block = (uint32_t)block;
	if (opts->size > INT64_MAX / 2 || (!l->fixed && l->size > MAX_DYNAMIC) ||
	    (!l->fixed && l->size / block >= VHD_MAX_BLOCKS))
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VHD image, which holds 2040 "
			       "GiB: use vhdx",
			       (unsigned long long)opts->size);
	return 0;
}

int vhd_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err)
{
	uint64_t n, tables, stride;
	struct layout l;
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	m->required = m->fully_allocated = l.size + sizeof(struct vhd_footer);
	if (l.fixed)
		return 0;
	n = l.size / l.block + !!(l.size % l.block);
	tables = BAT_AT + align_up(4 * n, 512) + sizeof(struct vhd_footer);
	stride = l.block + align_up(l.block / 512 / 8, 512);
	m->required = tables + plan_blocks(plan, l.block) * stride;
	m->fully_allocated = tables + n * stride;
	return 0;
}

int vhd_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err)
{
	uint8_t name[NAME_LEN] = {0};
	struct vhd_header header = {0};
	struct vhd_footer footer;
	bool diff = opts->backing_path;
	struct layout l;
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	if (diff && l.fixed)
		return err_set(err, EINVAL, "a fixed image has no parent");
	if (diff) {
		rc = header_parent(&header, t, opts, name, err);
		if (rc)
			return rc;
	}
	rc = footer_fill(&footer, l.size,
			 l.fixed ? VHD_FIXED
			 : diff  ? VHD_DIFF
				 : VHD_DYNAMIC);
	if (!rc)
		rc = l.fixed ? create_fixed(t->file, l.size, &footer)
			     : create_dynamic(t->file, l.size, l.block, &footer,
					      &header, diff ? name : NULL);
	return rc ? err_sys(err, -rc, "cannot write the image") : 0;
}

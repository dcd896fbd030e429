/*
 * img/vhd/vhd.c - VHD images (Virtual PC, Hyper-V, Azure, VirtualBox), fixed, dynamic and differencing: footer,
 * header, mapping. Specification: Virtual Hard Disk Image Format, version 1.0. Opening and closing: one
 * thread; mapping: any.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhd/vhd_int.h"

/* ---- footer ---- */

uint32_t vhd_checksum(const void *p, size_t len, size_t field)
{
	const uint8_t *b = p;
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < field || i >= field + 4)
			sum += b[i];
	return ~sum;
}

bool vhd_footer_valid(const struct vhd_footer *f)
{
	return !memcmp(f->cookie, "conectix", 8) &&
	       be32_get(f->checksum) ==
		       vhd_checksum(f, sizeof(*f),
				    offsetof(struct vhd_footer, checksum));
}

/* At the end of the file is what a fixed image has alone; the checksum tells it from a guest's data. */
static bool tail_is_footer(const struct img_probe *p, size_t len)
{
	struct vhd_footer f = {0};

	if (p->tail_len < len)
		return false;
	memcpy(&f, p->tail + p->tail_len - len, len);
	return vhd_footer_valid(&f);
}

static bool vhd_probe(const struct img_probe *p)
{
	if (p->head_len >= sizeof(struct vhd_footer) && !memcmp(p->head, "conectix", 8))
		return true;
	return tail_is_footer(p, sizeof(struct vhd_footer)) ||
	       tail_is_footer(p, VHD_OLD_FOOTER);
}

static bool footer_at(struct vhd *v, uint64_t end, uint32_t len)
{
	struct vhd_footer f = {0};

	if (end < len || file_read(v->file, &f, end - len, len) ||
	    !vhd_footer_valid(&f))
		return false;
	v->footer = f;
	v->footer_len = len;
	v->data_end = end - len;
	return true;
}

int vhd_footer_find(struct vhd *v, struct err *err)
{
	uint64_t end = file_size(v->file);

	if (footer_at(v, end, sizeof(v->footer)) || footer_at(v, end, VHD_OLD_FOOTER))
		return 0;
	if (end >= 512 && footer_at(v, 512, sizeof(v->footer)) &&
	    be32_get(v->footer.type) != VHD_FIXED) {
		v->from_copy = true;
		v->data_end = end;
		return 0;
	}
	return err_set(err, EINVAL,
		       "'%s' is no VHD image, or damaged: no valid footer at its end "
		       "nor a copy of it at its start",
		       v->img->path);
}

/*
 * Virtual PC, and QEMU as such, take the disk's size from the geometry; all others (Hyper-V "win ", Disk2vhd
 * "d2v ", VirtualBox "vbox", Xen "tap", Azure "wa", QEMU with force_size "qem2") from the size field.
 */
uint64_t vhd_size(const struct vhd_footer *f)
{
	static const char by_geometry[][5] = {"vpc ", "vs  ", "qemu"};
	uint64_t chs = (uint64_t)be16_get(f->cylinders) * f->heads * f->sectors;
	uint64_t size = be64_get(f->size);

	for (size_t i = 0; i < ARRAY_LEN(by_geometry); i++)
		if (!memcmp(f->creator, by_geometry[i], 4) && chs && chs < VHD_CHS_MAX)
			return chs * 512;
	return size > INT64_MAX ? size : align_down(size, 512);
}

/* ---- dynamic header ---- */

static bool header_valid(const struct vhd_header *h)
{
	return !memcmp(h->cookie, "cxsparse", 8) &&
	       be32_get(h->checksum) ==
		       vhd_checksum(h, sizeof(*h),
				    offsetof(struct vhd_header, checksum));
}

static int header_geometry(struct vhd *v, struct err *err)
{
	const char *path = v->img->path;

	if (!is_pow2(v->block_size) || v->block_size < VHD_MIN_BLOCK ||
	    v->block_size > VHD_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "'%s' is damaged: blocks of %u bytes, a power of two "
			       "from 4 KiB to 256 MiB is needed",
			       path, v->block_size);
	if (v->n_blocks > VHD_MAX_BLOCKS || v->bat_off % 512 ||
	    !range_ok(v->bat_off, 4ull * v->n_blocks, file_size(v->file)))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a table of %u blocks at %llu in a "
			       "file of %llu bytes",
			       path, v->n_blocks, (unsigned long long)v->bat_off,
			       (unsigned long long)file_size(v->file));
	if (v->img->size > (uint64_t)v->n_blocks * v->block_size)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu bytes in %u blocks of %u", path,
			       (unsigned long long)v->img->size, v->n_blocks,
			       v->block_size);
	return 0;
}

int vhd_header_take(struct vhd *v, struct err *err)
{
	uint64_t off = be64_get(v->footer.header_off);
	int rc;

	if (off % 512 || !range_ok(off, sizeof(v->header), file_size(v->file)))
		return err_set(err, EINVAL, "'%s' is damaged: its header is at %llu",
			       v->img->path, (unsigned long long)off);
	rc = file_read(v->file, &v->header, off, sizeof(v->header));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", v->img->path);
	if (!header_valid(&v->header))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its header at %llu has no mark or a "
			       "wrong checksum",
			       v->img->path, (unsigned long long)off);
	v->block_size = be32_get(v->header.block_size);
	v->n_blocks = be32_get(v->header.n_blocks);
	v->bat_off = be64_get(v->header.bat_off);
	v->bits_len = (uint32_t)align_up(v->block_size / 512 / 8, 512);
	return header_geometry(v, err);
}

/* ---- opening and closing ---- */

static int open_fixed(struct vhd *v, struct err *err)
{
	struct img *img = v->img;

	img->unit = img->zero_unit = 1;
	if (img->size > v->data_end)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a disk of %llu bytes, and %llu before "
			       "the footer",
			       img->path, (unsigned long long)img->size,
			       (unsigned long long)v->data_end);
	return 0;
}

static int open_blocks(struct vhd *v, struct err *err)
{
	int rc = vhd_header_take(v, err);

	if (rc)
		return rc;
	v->img->unit = v->img->zero_unit = v->block_size;
	v->data_end = align_up(v->data_end, 512);
	if (v->type == VHD_DIFF)
		rc = vhd_parent_find(v, err);
	if (!rc && !v->img->read_only && !v->img->opts.repair)
		rc = vhd_blocks_check(v, err);
	return rc;
}

static int vhd_open(struct img *img, struct err *err)
{
	struct vhd *v = NEW(struct vhd);
	int rc;

	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = v;
	v->img = img;
	v->file = img->file;
	if (blockmap_init(&v->m, v->file, 512))
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	rc = vhd_footer_find(v, err);
	if (rc)
		return rc;
	img->size = vhd_size(&v->footer);
	if (img->size > INT64_MAX)
		return err_set(err, EINVAL, "'%s' is damaged: a disk of %llu bytes",
			       img->path, (unsigned long long)img->size);
	v->type = be32_get(v->footer.type);
	switch (v->type) {
	case VHD_FIXED: return open_fixed(v, err);
	case VHD_DYNAMIC:
	case VHD_DIFF: return open_blocks(v, err);
	default:
		return err_set(err, ENOTSUP,
			       "'%s' is a VHD image of type %u, known are 2 (fixed), 3 "
			       "(dynamic) and 4 (differencing)",
			       img->path, v->type);
	}
}

static int vhd_close(struct img *img)
{
	struct vhd *v = img->priv;
	int rc = 0;

	if (!v)
		return 0;
	if (!img->read_only && !img->discard_all && atomic_load(&img->writing))
		rc = vhd_write_all(v, true);
	blockmap_fini(&v->m);
	free(v);
	img->priv = NULL;
	return rc;
}

static void vhd_info(struct img *img, struct img_info *info)
{
	const struct vhd *v = img->priv;

	info->version = be32_get(v->footer.version) >> 16;
}

static void vhd_details(struct img *img, struct details *d)
{
	const struct vhd *v = img->priv;
	char id[GUID_TEXT], creator[5] = {0};

	for (unsigned i = 0; i < 4;
	     i++) /* spaces and zeros end it; it may be anything */
		creator[i] = v->footer.creator[i] > ' ' && v->footer.creator[i] < 127
				     ? v->footer.creator[i]
				     : 0;
	detail_text(d, "subformat", "%s",
		    v->type == VHD_FIXED  ? "fixed"
		    : v->type == VHD_DIFF ? "differencing"
					  : "dynamic");
	detail_text(d, "creator", "%s", creator);
	detail_text(d, "uuid", "%s", guid_format(&v->footer.id, true, id));
	if (v->type == VHD_DIFF)
		detail_text(d, "parent-uuid", "%s",
			    guid_format(&v->header.parent_id, true, id));
}

/* ---- mapping ---- */

int vhd_entry(struct vhd *v, uint64_t block, uint32_t *sector)
{
	be32 e;
	int rc;

	if (block >= v->n_blocks)
		return -EIO;
	rc = meta_read(&v->m.pages, v->bat_off + block * 4, &e, sizeof(e));
	*sector = be32_get(e);
	return rc;
}

uint64_t vhd_block_len(const struct vhd *v, uint64_t block)
{
	return min_u64(v->block_size, v->img->size - block * v->block_size);
}

/* Sectors from `at` on, at most n, whose bits are the same; *set is theirs. */
static int bits_run(struct vhd *v, uint64_t bits_off, uint64_t at, uint64_t n,
		    uint64_t *run, bool *set)
{
	uint64_t i = 0;

	while (i < n) {
		struct meta_page *p;
		uint64_t bit = at + i;
		int rc = meta_page_get(&v->m.pages, bits_off + bit / 8, &p);
		uint8_t byte;

		if (rc)
			return rc;
		byte = p->data[bit / 8 % 512];
		if (!i)
			*set = byte >> (7 - bit % 8) & 1;
		if (!(bit % 8) && n - i >= 8 && byte == (*set ? 0xff : 0)) {
			i += 8;
			continue;
		}
		if ((byte >> (7 - bit % 8) & 1) != *set)
			break;
		i++;
	}
	*run = i;
	return 0;
}

static int map_block(void *ctx, uint64_t block, uint64_t in, uint64_t len,
		     struct img_extent *e)
{
	struct vhd *v = ctx;
	uint64_t bits_off, first = in / 512, run;
	bool set = false;
	uint32_t sector;
	int rc = vhd_entry(v, block, &sector);

	*e = (struct img_extent){
		.kind = v->img->has_backing ? IMG_BACKING : IMG_ZERO,
		.grain = 512,
		.file = v->file,
		.len = len,
	};
	if (rc || sector == VHD_FREE)
		return rc;
	bits_off = sector * 512ull;
	if (!range_ok(bits_off, v->bits_len + vhd_block_len(v, block), v->data_end))
		return -EIO;
	rc = bits_run(v, bits_off, first, (in + len + 511) / 512 - first, &run, &set);
	if (rc)
		return rc;
	e->len = min_u64(len, (first + run) * 512 - in);
	if (set) {
		e->kind = IMG_DATA;
		e->writable = true;
		e->file_off = bits_off + v->bits_len + in;
	}
	return 0;
}

int vhd_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct vhd *v = img->priv;

	if (v->type == VHD_FIXED) {
		*e = (struct img_extent){
			.kind = IMG_DATA,
			.writable = true,
			.len = len,
			.file_off = off,
			.file = v->file,
			.grain = 1,
		};
		return 0;
	}
	return blockmap_map(&v->m, v->block_size, map_block, v, off, len, e);
}

const struct img_format img_vhd = {
	.name = "vpc",
	.title = "Virtual PC, Hyper-V and Azure disk (VHD)",
	.aliases = (const char *const[]){"vhd", NULL},
	.options = vhd_options,
	.backing = true,
	.probe = vhd_probe,
	.open = vhd_open,
	.check_backing = vhd_check_backing,
	.close = vhd_close,
	.map = vhd_map,
	.info = vhd_info,
	.details = vhd_details,
	.begin_write = vhd_begin_write,
	.alloc = vhd_alloc,
	.link = vhd_link,
	.unalloc = vhd_unalloc,
	.discard = blockmap_discard,
	.flush = vhd_flush,
	.create = vhd_create,
	.measure = vhd_measure,
	.check = vhd_check,
	.can_fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS,
	.resize = vhd_resize,
};

/*
 * img/vhdx/vhdx.c - VHDX images (Hyper-V), fixed, dynamic and differencing: opening, closing, mapping.
 * Specification: [MS-VHDX]. Opening and closing: one thread; mapping: any.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhdx/vhdx_int.h"

static bool vhdx_probe(const struct img_probe *p)
{
	return p->head_len >= 8 && !memcmp(p->head, "vhdxfile", 8);
}

/* ---- opening and closing ---- */

static int tables_read(struct vhdx *v, struct err *err)
{
	int rc = vhdx_headers_read(v, err);

	if (!rc)
		rc = vhdx_regions_read(v, err);
	/* The tables that come now may be in the log. */
	if (!rc)
		rc = vhdx_log_read(v, err);
	if (!rc)
		rc = vhdx_metadata_read(v, err);
	return rc;
}

static int vhdx_open(struct img *img, struct err *err)
{
	struct vhdx *v = NEW(struct vhdx);
	char mark[8];
	int rc;

	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = v;
	v->img = img;
	v->file = img->file;
	rc = blockmap_init(&v->m, v->file, VHDX_PAGE);
	if (!rc)
		rc = file_read(v->file, mark, 0, sizeof(mark));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	if (memcmp(mark, "vhdxfile", 8))
		return err_set(err, EINVAL, "'%s' is no VHDX image", img->path);
	rc = tables_read(v, err);
	if (rc)
		return rc;
	img->unit = img->zero_unit = v->block_size;
	v->end = align_up(file_size(v->file), VHDX_MB);
	/* Log, regions: what they have lies before new blocks even if the file is shorter. */
	v->end = max_u64(v->end, v->log_off + v->log_len);
	rc = img->read_only ? vhdx_log_check_places(v, err) : vhdx_replay(v, err);
	if (!rc && !img->read_only && !img->opts.repair)
		rc = vhdx_blocks_check(v, err);
	return rc;
}

static int vhdx_close(struct img *img)
{
	struct vhdx *v = img->priv;
	int rc = 0;

	if (!v)
		return 0;
	if (!img->read_only && !img->discard_all &&
	    (v->fixing || atomic_load(&img->writing)))
		rc = vhdx_finish(v);
	blockmap_fini(&v->m);
	free(v);
	img->priv = NULL;
	return rc;
}

static void vhdx_info(struct img *img, struct img_info *info)
{
	const struct vhdx *v = img->priv;

	info->version = le16_get(v->header.version);
	info->dirty = v->replayed;
}

static void vhdx_details(struct img *img, struct details *d)
{
	const struct vhdx *v = img->priv;
	char id[GUID_TEXT];

	detail_text(d, "subformat", "%s",
		    img->has_backing ? "differencing"
		    : v->fixed       ? "fixed"
				     : "dynamic");
	detail_number(d, "logical-sector-size", v->sector);
	detail_number(d, "log-size", v->log_len);
	detail_bool(d, "log-pending", v->replayed);
	detail_text(d, "uuid", "%s", guid_format(&v->disk_id, false, id));
	detail_text(d, "data-write-uuid", "%s",
		    guid_format(&v->header.data_write, false, id));
	if (img->has_backing)
		detail_text(d, "parent-linkage", "%s",
			    guid_format(&v->parent_link, false, id));
}

/* ---- the table ---- */

uint64_t vhdx_bat_entries(const struct vhdx *v, uint64_t n_blocks)
{
	uint64_t chunks = (n_blocks + v->chunk_ratio - 1) / v->chunk_ratio;

	if (!n_blocks)
		return 0;
	if (v->img->has_backing)
		return chunks * (v->chunk_ratio + 1);
	return n_blocks + chunks - 1;
}

int vhdx_entry(struct vhdx *v, uint64_t index, uint64_t *e)
{
	le64 raw;
	int rc;

	if (index >= v->n_entries)
		return -EIO;
	rc = meta_read(&v->m.pages, v->bat_off + index * 8, &raw, sizeof(raw));
	*e = le64_get(raw);
	return rc;
}

int vhdx_entry_set(struct vhdx *v, uint64_t index, uint64_t e)
{
	le64 raw = le64_make(e);

	if (index >= v->n_entries)
		return -EIO;
	return meta_write(&v->m.pages, v->bat_off + index * 8, &raw, sizeof(raw));
}

/* ---- mapping ---- */

int vhdx_bits_off(struct vhdx *v, uint64_t block, uint64_t *off)
{
	uint64_t e, bits = v->block_size / v->sector;
	int rc = vhdx_entry(v, vhdx_bitmap_index(v, block), &e);

	if (rc)
		return rc;
	if (VHDX_STATE(e) != VHDX_PRESENT || !VHDX_MIB(e) ||
	    VHDX_MIB(e) >= v->end / VHDX_MB)
		return -EIO;
	*off = VHDX_MIB(e) * VHDX_MB + block % v->chunk_ratio * (bits / 8);
	return 0;
}

/* Sectors from `at` of the block on, at most n, whose bits are the same; *set is theirs. */
static int bits_run(struct vhdx *v, uint64_t bits_off, uint64_t at, uint64_t n,
		    uint64_t *run, bool *set)
{
	uint64_t i = 0;

	while (i < n) {
		uint64_t bit = at + i, pos = bits_off + bit / 8;
		struct meta_page *p;
		int rc = meta_page_get(&v->m.pages, pos, &p);
		uint8_t byte;

		if (rc)
			return rc;
		byte = p->data[pos % VHDX_PAGE];
		if (!i)
			*set = byte >> bit % 8 & 1;
		if (!(bit % 8) && n - i >= 8 && byte == (*set ? 0xff : 0)) {
			i += 8;
			continue;
		}
		if ((byte >> bit % 8 & 1) != *set)
			break;
		i++;
	}
	*run = i;
	return 0;
}

static int map_partial(struct vhdx *v, uint64_t block, uint64_t in, uint64_t len,
		       struct img_extent *e)
{
	uint64_t bits_off, first = in / v->sector, run;
	bool set = false;
	int rc;

	if (!v->img->has_backing)
		return -EIO;
	rc = vhdx_bits_off(v, block, &bits_off);
	if (!rc)
		rc = bits_run(v, bits_off, first,
			      (in + len + v->sector - 1) / v->sector - first, &run,
			      &set);
	if (rc)
		return rc;
	e->len = min_u64(len, (first + run) * v->sector - in);
	if (!set) {
		e->kind = IMG_BACKING;
		e->writable = false;
		e->grain = v->sector;
	}
	return 0;
}

/* Block `block`, from byte `in` of it on. */
static int map_block(void *ctx, uint64_t block, uint64_t in, uint64_t len,
		     struct img_extent *e)
{
	struct vhdx *v = ctx;
	uint64_t entry, there;
	int rc = vhdx_entry(v, vhdx_block_index(v, block), &entry);

	if (rc)
		return rc;
	*e = (struct img_extent){
		.kind = IMG_ZERO,
		.grain = v->block_size,
		.file = v->file,
		.len = len,
	};
	switch (VHDX_STATE(entry)) {
	case VHDX_NOT_PRESENT:
		if (v->img->has_backing) {
			e->kind = IMG_BACKING;
			e->grain = v->sector;
		}
		return 0;
	case VHDX_UNDEFINED:
	case VHDX_ZERO:
	case VHDX_UNMAPPED: return 0;
	case VHDX_PRESENT:
	case VHDX_PARTIAL: break;
	default: return -EIO;
	}
	there = min_u64(v->block_size, v->img->size - block * v->block_size);
	if (VHDX_MIB(entry) < 1 || VHDX_MIB(entry) > v->end / VHDX_MB ||
	    !range_ok(VHDX_MIB(entry) * VHDX_MB, there, v->end))
		return -EIO;
	e->kind = IMG_DATA;
	e->writable = true;
	e->file_off = VHDX_MIB(entry) * VHDX_MB + in;
	return VHDX_STATE(entry) == VHDX_PARTIAL ? map_partial(v, block, in, e->len, e)
						 : 0;
}

int vhdx_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct vhdx *v = img->priv;

	return blockmap_map(&v->m, v->block_size, map_block, v, off, len, e);
}

const struct img_format img_vhdx = {
	.name = "vhdx",
	.title = "Hyper-V disk (VHDX)",
	.options = vhdx_options,
	.backing = true,
	.probe = vhdx_probe,
	.open = vhdx_open,
	.check_backing = vhdx_check_backing,
	.close = vhdx_close,
	.map = vhdx_map,
	.info = vhdx_info,
	.details = vhdx_details,
	.begin_write = vhdx_begin_write,
	.alloc = vhdx_alloc,
	.link = vhdx_link,
	.unalloc = vhdx_unalloc,
	.zero = vhdx_zero,
	.discard = blockmap_discard,
	.flush = vhdx_flush,
	.create = vhdx_create,
	.measure = vhdx_measure,
	.check = vhdx_check,
	.can_fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS,
	.resize = vhdx_resize,
};

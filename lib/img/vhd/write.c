/* img/vhd/write.c - changes of VHD images: new blocks, sectors' bits, the table. Any thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhd/vhd_int.h"

/* ---- are the tables sound? ---- */

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The first sectors of all blocks, sorted; there cannot be more of them than fit in the file. */
static int blocks_list(struct vhd *v, uint32_t **out, uint64_t *n, struct err *err)
{
	uint64_t most = v->data_end / (v->block_size + v->bits_len) + 2;
	uint32_t *list = mem_new(min_u64(most, v->n_blocks) + 1, sizeof(*list));

	*n = 0;
	if (!list)
		return err_set(err, ENOMEM, "no memory to open '%s'", v->img->path);
	for (uint64_t i = 0; i < v->n_blocks; i++) {
		uint32_t sector;
		int rc = vhd_entry(v, i, &sector);

		if (!rc && sector == VHD_FREE)
			continue;
		if (!rc && *n == most)
			rc = -EIO; /* some must lie over each other */
		if (rc) {
			free(list);
			return err_set(err, EIO,
				       "'%s' is damaged: its table has more blocks "
				       "than the file: repair it first",
				       v->img->path);
		}
		list[(*n)++] = sector;
	}
	qsort(list, *n, sizeof(*list), by_number);
	*out = list;
	return 0;
}

int vhd_blocks_check(struct vhd *v, struct err *err)
{
	uint64_t stride = v->bits_len + v->block_size, n, tables, header;
	uint32_t *list = NULL;
	int rc = blocks_list(v, &list, &n, err);

	if (rc)
		return rc;
	header = be64_get(v->footer.header_off);
	tables = max_u64(v->bat_off + align_up(4ull * v->n_blocks, 512), header + 1024);
	for (uint64_t i = 0; i < n && !rc; i++) {
		uint64_t at = list[i] * 512ull;

		if (i && at < list[i - 1] * 512ull + stride)
			rc = err_set(err, EIO,
				     "'%s' is damaged: the blocks at %llu and %llu "
				     "overlap: repair it first",
				     v->img->path, list[i - 1] * 512ull,
				     (unsigned long long)at);
		else if (at < 512 || range_overlap(at, stride, header, 1024) ||
			 range_overlap(at, stride, v->bat_off, 4ull * v->n_blocks))
			rc = err_set(err, EIO,
				     "'%s' is damaged: the block at %llu lies over the "
				     "tables: repair it first",
				     v->img->path, (unsigned long long)at);
		else if (at >= v->data_end)
			rc = err_set(err, EIO,
				     "'%s' is damaged: a block is at %llu, the file "
				     "ends at %llu: repair it first",
				     v->img->path, (unsigned long long)at,
				     (unsigned long long)v->data_end);
	}
	/* The last block may be cut where the disk ends; new ones begin behind all of it. */
	if (!rc && n)
		v->data_end = max_u64(v->data_end, list[n - 1] * 512ull + stride);
	v->data_end = max_u64(v->data_end, tables);
	free(list);
	return rc;
}

/* ---- writing back ---- */

int vhd_write_all(struct vhd *v, bool durable)
{
	return blockmap_flush(&v->m, durable, NULL, NULL);
}

int vhd_flush(struct img *img)
{
	return vhd_write_all(img->priv, true);
}

/* A footer that was found at the start is put at the end, too. */
int vhd_begin_write(struct img *img)
{
	struct vhd *v = img->priv;
	int rc;

	if (!v->from_copy)
		return 0;
	rc = file_write(v->file, &v->footer, v->data_end, sizeof(v->footer));
	v->from_copy = rc;
	return rc;
}

static int step_begin(struct vhd *v)
{
	return blockmap_pressed(&v->m) ? vhd_write_all(v, false) : 0;
}

/* ---- new blocks ---- */

int vhd_entry_set(struct vhd *v, uint64_t block, uint32_t sector)
{
	be32 e = be32_make(sector);

	if (block >= v->n_blocks)
		return -EIO;
	return meta_write(&v->m.pages, v->bat_off + block * 4, &e, sizeof(e));
}

/* The bits of a new block: nothing is there yet, or everything, when it cannot have a parent. */
static int bits_begin(struct vhd *v, uint64_t at)
{
	uint8_t piece[4096];
	int rc = 0;

	memset(piece, v->type == VHD_DIFF ? 0 : 0xff, sizeof(piece));
	for (uint64_t i = 0; i < v->bits_len && !rc; i += sizeof(piece))
		rc = file_write(v->file, piece, at + i,
				min_u64(sizeof(piece), v->bits_len - i));
	return rc;
}

/* Space for a block, with its bits written. */
static int block_new(struct vhd *v, uint64_t *at, bool *virgin)
{
	uint64_t end;
	int rc;

	*virgin = !v->n_spare && !file_is_device(v->file);
	if (v->n_spare) {
		*at = v->spare[--v->n_spare];
		return bits_begin(v, *at);
	}
	*at = align_up(v->data_end, 512);
	end = *at + v->bits_len + v->block_size;
	if (*at / 512 >= VHD_FREE)
		return -EFBIG;
	if (file_is_device(v->file) && end + 512 > file_size(v->file))
		return -ENOSPC;
	/* The new footer first: the block's bits go where the old one was. */
	rc = file_write(v->file, &v->footer, end, sizeof(v->footer));
	if (!rc)
		rc = bits_begin(v, *at);
	if (!rc)
		v->data_end = end;
	return rc;
}

/* A sector of a block that is there: up to the end of those that are not written yet. */
static int alloc_sectors(struct vhd *v, uint32_t sector, uint64_t off, uint64_t len,
			 struct img_place *p)
{
	uint64_t in = off % v->block_size;

	p->len = min_u64(len, v->block_size - in);
	p->file_off = sector * 512ull + v->bits_len + in;
	return range_ok(p->file_off - in, v->block_size, v->data_end) ? 0 : -EIO;
}

static int alloc_locked(struct vhd *v, uint64_t off, uint64_t len, struct img_place *p)
{
	uint64_t in = off % v->block_size, at;
	uint32_t sector;
	int rc = vhd_entry(v, off / v->block_size, &sector);

	if (rc)
		return rc;
	if (sector != VHD_FREE)
		return alloc_sectors(v, sector, off, len, p);
	rc = block_new(v, &at, &p->zero);
	if (rc)
		return rc;
	meta_pages_forget(&v->m.pages, at, v->bits_len);
	p->fresh = true;
	p->len = min_u64(len, v->block_size - in);
	p->file_off = at + v->bits_len + in;
	return 0;
}

/* A new block of which not all is filled must read as zeros where it is not: everything counts as there. */
static int fill_rest(struct vhd *v, const struct img_place *p, uint64_t in)
{
	uint64_t data = p->file_off - in;
	int rc;

	if (!p->fresh || p->zero || v->type == VHD_DIFF)
		return 0;
	rc = file_zero(v->file, data, in, false);
	return rc ? rc
		  : file_zero(v->file, data + in + p->len, v->block_size - in - p->len,
			      false);
}

int vhd_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	struct vhd *v = img->priv;
	int rc = step_begin(v);

	*p = (struct img_place){.file = v->file};
	if (rc)
		return rc;
	pthread_mutex_lock(&v->m.lock);
	rc = alloc_locked(v, off, len, p);
	pthread_mutex_unlock(&v->m.lock);
	return rc ? rc : fill_rest(v, p, off % v->block_size);
}

/* ---- what is written counts ---- */

static int bits_set(struct vhd *v, uint64_t bits_off, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n;) {
		struct meta_page *p;
		int rc = meta_page_get(&v->m.pages, bits_off + i / 8, &p);
		uint8_t *byte;

		if (rc)
			return rc;
		byte = &p->data[i / 8 % 512];
		if (!(i % 8) && first + n - i >= 8) {
			*byte = 0xff;
			i += 8;
		} else {
			*byte |= (uint8_t)(0x80 >> i % 8);
			i++;
		}
		meta_page_dirty(&v->m.pages, p);
	}
	return 0;
}

int vhd_link(struct img *img, uint64_t off, const struct img_place *p)
{
	struct vhd *v = img->priv;
	uint64_t in = off % v->block_size, bits_off = p->file_off - in - v->bits_len;
	int rc = step_begin(v);

	if (rc)
		return rc;
	pthread_mutex_lock(&v->m.lock);
	if (!p->fresh || v->type == VHD_DIFF)
		rc = bits_set(v, bits_off, in / 512, (p->len + 511) / 512);
	if (!rc && p->fresh)
		rc = vhd_entry_set(v, off / v->block_size, (uint32_t)(bits_off / 512));
	pthread_mutex_unlock(&v->m.lock);
	return rc;
}

/* Only the last block's space is known to be whole and nobody's. Bits of a differencing image's may still be
 * on their way to it. */
void vhd_unalloc(struct img *img, const struct img_place *p)
{
	struct vhd *v = img->priv;
	uint64_t last;

	if (!p->fresh || v->type == VHD_DIFF)
		return;
	pthread_mutex_lock(&v->m.lock);
	last = v->data_end - v->block_size;
	if (v->n_spare < VHD_SPARES && p->file_off >= last && p->file_off < v->data_end)
		v->spare[v->n_spare++] = last - v->bits_len;
	pthread_mutex_unlock(&v->m.lock);
}

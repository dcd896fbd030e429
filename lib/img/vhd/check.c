/* img/vhd/check.c - VHD images: checking, repairing, compacting, other sizes. One thread, nobody else uses the
 * image meanwhile. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhd/vhd_int.h"

/* More blocks than this are not sorted in memory. */
#define MAX_CHECKED (16u << 20)
#define NO_BLOCK    UINT32_MAX

/* What stands where in the file. */
struct span {
	uint64_t at, end;
	uint32_t block; /* NO_BLOCK: a table */
};

struct spans {
	struct span *v;
	size_t n;
};

static uint64_t stride_of(const struct vhd *v)
{
	return v->bits_len + (uint64_t)v->block_size;
}

static int by_place(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	/* tables first: NO_BLOCK + 1 is 0 */
	return x->block + 1 < y->block + 1 ? -1 : x->block + 1 > y->block + 1;
}

/* The blocks that are in the file at all, and the tables, by their places. */
static int spans_list(struct vhd *v, struct spans *s)
{
	uint64_t header = be64_get(v->footer.header_off), n = 0;
	uint32_t sector;
	int rc = 0;

	for (uint64_t i = 0; i < v->n_blocks && !rc; i++) {
		rc = vhd_entry(v, i, &sector);
		n += !rc && sector != VHD_FREE;
	}
	if (!rc && n > MAX_CHECKED)
		rc = -EFBIG;
	s->n = 0;
	s->v = rc ? NULL : mem_new(n + 3, sizeof(*s->v));
	if (!rc && !s->v)
		rc = -ENOMEM;
	if (rc)
		return rc;
	s->v[s->n++] = (struct span){0, 512, NO_BLOCK};
	s->v[s->n++] = (struct span){header, header + 1024, NO_BLOCK};
	s->v[s->n++] = (struct span){
		v->bat_off, v->bat_off + align_up(4ull * v->n_blocks, 512), NO_BLOCK};
	for (uint32_t i = 0; i < v->n_blocks && s->n < n + 3 && !rc; i++) {
		rc = vhd_entry(v, i, &sector);
		if (!rc && sector != VHD_FREE)
			s->v[s->n++] = (struct span){sector * 512ull,
						     sector * 512ull + stride_of(v), i};
	}
	qsort(s->v, s->n, sizeof(*s->v), by_place);
	return rc;
}

/* ---- moving blocks ---- */

static int bytes_copy(struct vhd *v, uint64_t from, uint64_t to, uint64_t len)
{
	uint32_t piece = (uint32_t)min_u64(len, 1 << 20);
	uint8_t *buf = malloc(piece);
	int rc = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0, n; at < len && !rc; at += n) {
		n = min_u64(piece, len - at);
		rc = file_read(v->file, buf, from + at, n);
		if (!rc)
			rc = file_write(v->file, buf, to + at, n);
	}
	free(buf);
	return rc;
}

/* Gives a block a place of its own at the end of the file. */
static int block_to_end(struct vhd *v, uint32_t block, uint64_t from)
{
	uint64_t at = align_up(v->data_end, 512), end = at + stride_of(v);
	int rc;

	if (at / 512 >= VHD_FREE)
		return -EFBIG;
	rc = file_write(v->file, &v->footer, end, sizeof(v->footer));
	if (!rc)
		rc = bytes_copy(v, from, at, stride_of(v));
	if (rc)
		return rc;
	v->data_end = end;
	return vhd_entry_set(v, block, (uint32_t)(at / 512));
}

/* The footer goes to `end`, and nothing stays behind it. */
static int end_set(struct vhd *v, uint64_t end)
{
	int rc = file_write(v->file, &v->footer, end, sizeof(v->footer));

	if (!rc)
		rc = file_sync(v->file);
	if (!rc && !file_is_device(v->file))
		rc = file_truncate(v->file, end + sizeof(v->footer));
	if (!rc) {
		v->data_end = end;
		v->from_copy = false;
		v->footer_len = sizeof(v->footer);
	}
	return rc;
}

/* Moves the last blocks into the room that is between others. */
static int compact(struct vhd *v)
{
	uint64_t stride = stride_of(v), end = 0;
	struct spans s;
	size_t gap = 1, last;
	int rc = spans_list(v, &s);

	if (rc)
		return rc;
	last = s.n - 1;
	while (gap < s.n && s.v[gap].block == NO_BLOCK)
		gap++; /* before the first block may be what we do not know of */
	for (uint64_t at = gap < s.n ? s.v[gap].end : 0; gap < last && !rc;) {
		if (s.v[gap + 1].at >= at + stride && s.v[last].block != NO_BLOCK) {
			rc = bytes_copy(v, s.v[last].at, at, stride);
			if (!rc)
				rc = vhd_entry_set(v, s.v[last].block,
						   (uint32_t)(at / 512));
			end = max_u64(end, at + stride);
			at += stride;
			last--;
		} else {
			at = s.v[++gap].end;
		}
	}
	/* The old places stay what they are until the table on the disk names the new ones. */
	if (!rc)
		rc = vhd_write_all(v, true);
	for (size_t i = 0; i <= last; i++)
		end = max_u64(end, s.v[i].end);
	free(s.v);
	v->n_spare = 0;
	return rc ? rc : end_set(v, end);
}

/* ---- checking ---- */

/* Is the copy of the footer at the start like the one that counts? */
static int copy_check(struct vhd *v, struct img_check *c, bool *bad)
{
	struct vhd_footer copy;
	int rc = file_read(v->file, &copy, 0, sizeof(copy));

	*bad = !rc && memcmp(&copy, &v->footer, sizeof(copy));
	if (v->footer_len == VHD_OLD_FOOTER && vhd_footer_valid(&copy))
		*bad = false;
	if (*bad) {
		c->corruptions++;
		check_say(c, "the copy of the footer at the start is another one");
	}
	if (v->from_copy) {
		c->corruptions++;
		check_say(c, "the footer at the end is not there or damaged");
	}
	return rc;
}

/* A block that lies where it cannot be. */
static int entry_drop(struct vhd *v, struct img_check *c, const struct span *s)
{
	c->corruptions++;
	check_say(c, "block %u is at %llu, where no block can be", s->block,
		  (unsigned long long)s->at);
	if (!(c->fix & IMG_FIX_ERRORS))
		return 0;
	c->corruptions_fixed++;
	return vhd_entry_set(v, s->block, VHD_FREE);
}

static int span_check(struct vhd *v, struct img_check *c, const struct span *s,
		      const struct span *before, uint64_t covered)
{
	int rc;

	if (s->at >= covered || !before)
		return 0;
	if (s->block == NO_BLOCK)
		return before->block == NO_BLOCK ? 0 : entry_drop(v, c, before);
	if (before->block == NO_BLOCK)
		return entry_drop(v, c, s);
	c->corruptions++;
	check_say(c, "block %u at %llu lies over another block", s->block,
		  (unsigned long long)s->at);
	if (!(c->fix & IMG_FIX_ERRORS))
		return 0;
	rc = block_to_end(v, s->block, s->at);
	c->corruptions_fixed += !rc;
	return rc;
}

/* Blocks' worth of room between spans. */
static uint64_t gap_blocks(const struct vhd *v, const struct span *s, uint64_t covered,
			   bool behind_blocks)
{
	return behind_blocks && s->at > covered ? (s->at - covered) / stride_of(v) : 0;
}

static int blocks_check(struct vhd *v, struct img_check *c)
{
	uint64_t covered = 0, data_end = v->data_end, n = 0;
	const struct span *before = NULL;
	bool blocks = false;
	struct spans s;
	int rc = spans_list(v, &s);

	if (rc)
		return rc;
	/* New places for what has none come behind everything. */
	for (size_t i = 0; i < s.n; i++)
		if (s.v[i].at < data_end)
			v->data_end = max_u64(v->data_end, s.v[i].end);
	for (size_t i = 0; i < s.n && !rc; i++) {
		const struct span *x = &s.v[i];

		n += x->block != NO_BLOCK;
		if (x->block != NO_BLOCK && x->at >= data_end) {
			rc = entry_drop(v, c, x);
			continue;
		}
		c->leaks += gap_blocks(v, x, covered, blocks);
		rc = span_check(v, c, x, before, covered);
		blocks |= x->block != NO_BLOCK;
		if (x->end > covered) {
			covered = x->end;
			before = x;
		}
	}
	c->total_clusters = v->n_blocks;
	c->allocated_clusters = n;
	c->image_end_offset = covered;
	if (data_end > covered)
		c->leaks += (data_end - covered) / stride_of(v);
	if (c->leaks)
		check_say(c, "there is room for %llu blocks that belongs to nobody",
			  (unsigned long long)c->leaks);
	free(s.v);
	return rc;
}

/* Blocks are where they should be: now the footers. */
static int footers_fix(struct vhd *v, struct img_check *c, bool copy_bad)
{
	int rc = vhd_write_all(v, true);

	if (!rc && v->from_copy) {
		rc = end_set(v, v->data_end);
		c->corruptions_fixed += !rc;
	}
	if (!rc && copy_bad && v->type != VHD_FIXED) {
		rc = file_write(v->file, &v->footer, 0, sizeof(v->footer));
		if (!rc)
			rc = file_sync(v->file);
		c->corruptions_fixed += !rc;
	}
	return rc;
}

/* The parent's time is not the one that the child knows: perhaps it was changed. Copying changes it, too. */
static void parent_time_check(const struct vhd *v, const struct img_check *c)
{
	const struct img *back = v->img->backing;
	uint32_t want = be32_get(v->header.parent_time);
	const struct vhd *parent;
	struct stat st;

	if (v->type != VHD_DIFF || !back || back->fmt != &img_vhd)
		return;
	parent = back->priv;
	if (want == be32_get(parent->footer.time) ||
	    (!stat(back->path, &st) && st.st_mtime - VHD_EPOCH == want))
		return;
	check_say(c,
		  "note: '%s' has another time than when '%s' was made: it may have "
		  "been changed",
		  back->path, v->img->path);
}

int vhd_check(struct img *img, struct img_check *c, struct err *err)
{
	struct vhd *v = img->priv;
	bool copy_bad = false;
	int rc = 0;

	if (v->type == VHD_FIXED)
		return 0; /* the footer was checked when it was opened */
	if (!img->read_only && atomic_load(&img->writing))
		rc = vhd_write_all(v, true);
	if (!rc)
		rc = copy_check(v, c, &copy_bad);
	parent_time_check(v, c);
	if (!rc)
		rc = blocks_check(v, c);
	if (!rc && c->fix & IMG_FIX_ERRORS)
		rc = footers_fix(v, c, copy_bad);
	if (!rc && c->fix & IMG_FIX_LEAKS && (c->leaks || c->corruptions_fixed) &&
	    c->corruptions == c->corruptions_fixed) {
		rc = compact(v);
		if (!rc)
			c->leaks_fixed = c->leaks;
	}
	return rc ? err_sys(err, -rc, "cannot check '%s'", img->path) : 0;
}

/* ---- other sizes ---- */

/* The footers say the new size. Only the size field is exact, so it has to be the one that counts. */
static int footers_size(struct vhd *v, uint64_t size, uint64_t end)
{
	int rc;

	v->footer.size = be64_make(size);
	vhd_geometry(size, &v->footer);
	memcpy(v->footer.creator, "win ", 4);
	vhd_footer_seal(&v->footer);
	rc = file_write(v->file, &v->footer, end, sizeof(v->footer));
	if (!rc)
		rc = file_sync(v->file);
	if (!rc && v->type != VHD_FIXED)
		rc = file_write(v->file, &v->footer, 0, sizeof(v->footer));
	if (!rc)
		rc = file_sync(v->file);
	if (!rc)
		v->img->size = size;
	return rc;
}

static int fixed_resize(struct vhd *v, uint64_t size)
{
	uint64_t old_end = v->data_end;
	int rc = 0;

	if (file_is_device(v->file))
		return -ENOTSUP;
	if (size == old_end)
		return footers_size(v, size, size);
	if (size > old_end && size < old_end + sizeof(v->footer)) {
		/* It would lie over the old one: that one goes first to where no data is. */
		rc = file_write(v->file, &v->footer, size + sizeof(v->footer),
				sizeof(v->footer));
		if (!rc)
			rc = file_sync(v->file);
	}
	if (!rc)
		rc = footers_size(v, size, size);
	if (!rc && size > old_end)
		rc = file_zero(v->file, old_end,
			       min_u64(sizeof(v->footer), size - old_end), false);
	if (!rc)
		rc = file_truncate(v->file, size + sizeof(v->footer));
	if (!rc)
		rc = file_sync(v->file);
	v->data_end = size;
	v->footer_len = sizeof(v->footer);
	return rc;
}

static int header_write(struct vhd *v, uint64_t bat_off, uint32_t n_blocks)
{
	int rc;

	v->header.bat_off = be64_make(bat_off);
	v->header.n_blocks = be32_make(n_blocks);
	vhd_header_seal(&v->header);
	rc = file_write(v->file, &v->header, be64_get(v->footer.header_off),
			sizeof(v->header));
	if (!rc)
		rc = file_sync(v->file);
	if (rc)
		return rc;
	v->bat_off = bat_off;
	v->n_blocks = n_blocks;
	return 0;
}

/* A larger table at the end of the file; the header, of which one sector changes, makes it count. */
static int bat_move(struct vhd *v, uint32_t n_blocks)
{
	uint64_t at = align_up(v->data_end, 512), len = align_up(4ull * n_blocks, 512);
	be32 *piece = mem_new(128, sizeof(*piece));
	int rc = piece ? 0 : -ENOMEM;

	if (!rc)
		rc = file_write(v->file, &v->footer, at + len, sizeof(v->footer));
	for (uint64_t i = 0; i < n_blocks && !rc; i += 128) {
		for (unsigned k = 0; k < 128 && !rc; k++) {
			uint32_t sector = VHD_FREE;

			if (i + k < v->n_blocks)
				rc = vhd_entry(v, i + k, &sector);
			piece[k] = be32_make(sector);
		}
		if (!rc)
			rc = file_write(v->file, piece, at + i * 4, 512);
	}
	free(piece);
	if (!rc)
		rc = file_sync(v->file);
	if (!rc)
		rc = header_write(v, at, n_blocks);
	if (rc)
		return rc;
	v->data_end = at + len;
	meta_pages_fini(&v->m.pages);
	return meta_pages_init(&v->m.pages, v->file, 512);
}

/* The table where it is: the new entries first. */
static int bat_extend(struct vhd *v, uint32_t n_blocks)
{
	be32 none = be32_make(VHD_FREE);
	int rc = 0;

	for (uint64_t i = v->n_blocks; i < n_blocks && !rc; i++) {
		rc = meta_write(&v->m.pages, v->bat_off + i * 4, &none, sizeof(none));
		if (!rc && meta_pages_pressed(&v->m.pages))
			rc = vhd_write_all(v, false);
	}
	if (!rc)
		rc = vhd_write_all(v, true);
	return rc ? rc : header_write(v, v->bat_off, n_blocks);
}

static int blocks_grow(struct vhd *v, uint64_t size, uint32_t n_blocks)
{
	uint64_t room = v->data_end;
	struct spans s;
	int rc = 0;

	if (n_blocks > v->n_blocks) {
		rc = spans_list(v, &s);
		if (rc)
			return rc;
		for (size_t i = 0; i < s.n; i++)
			if (s.v[i].at > v->bat_off)
				room = min_u64(room, s.v[i].at);
		free(s.v);
		rc = v->bat_off + 4ull * n_blocks <= room ? bat_extend(v, n_blocks)
							  : bat_move(v, n_blocks);
	}
	return rc ? rc : footers_size(v, size, v->data_end);
}

static int blocks_shrink(struct vhd *v, uint64_t size, uint32_t n_blocks)
{
	int rc = footers_size(v, size, v->data_end);

	for (uint64_t i = n_blocks; i < v->n_blocks && !rc; i++) {
		uint32_t sector;

		rc = vhd_entry(v, i, &sector);
		if (!rc && sector != VHD_FREE)
			rc = vhd_entry_set(v, i, VHD_FREE);
	}
	if (!rc)
		rc = vhd_write_all(v, true);
	return rc ? rc : compact(v);
}

int vhd_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err)
{
	struct vhd *v = img->priv;
	uint64_t old = img->size, n = 0, end;
	int rc;

	size = align_up(size, 512);
	if (v->type == VHD_DIFF)
		return err_set(err, ENOTSUP,
			       "'%s' is a differencing image, which has its parent's "
			       "size",
			       img->path);
	if (prealloc != IMG_PREALLOC_OFF && v->type != VHD_FIXED)
		return err_set(err, ENOTSUP,
			       "dynamic VHD images are not grown preallocated");
	if (v->type != VHD_FIXED) {
		n = size / v->block_size + !!(size % v->block_size);
		if (size > 2040ull << 30 || n > VHD_MAX_BLOCKS)
			return err_set(err, EFBIG,
				       "%llu bytes do not fit in a VHD image, which "
				       "holds 2040 GiB: use vhdx",
				       (unsigned long long)size);
		rc = size < old ? blocks_shrink(v, size, (uint32_t)n)
				: blocks_grow(v, size, (uint32_t)n);
	} else {
		rc = fixed_resize(v, size);
	}
	/* What the last block has behind the disk's old end would come to light. */
	end = v->type == VHD_FIXED ? old : min_u64(align_up(old, v->block_size), size);
	if (!rc && end > old)
		rc = img_write_zeroes(img, old, end - old, false);
	return rc ? err_sys(err, -rc, "cannot resize '%s'", img->path) : 0;
}

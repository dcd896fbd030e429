/* img/vdi/check.c - VDI images: checking, repairing, compacting, other sizes. One thread, nobody else uses the
 * image meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vdi/vdi_int.h"

/* ---- moving blocks ---- */

/* Copies the block at place `from` to place `to`. */
static int place_copy(struct vdi *v, uint64_t from, uint64_t to)
{
	uint32_t piece = (uint32_t)min_u64(v->block_size, 1 << 20);
	uint8_t *buf = malloc(piece);
	int rc = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < v->block_size && !rc; at += piece) {
		rc = file_read(v->file, buf, vdi_place_off(v, from) + at, piece);
		if (!rc)
			rc = file_write(v->file, buf, vdi_place_off(v, to) + at, piece);
	}
	free(buf);
	return rc;
}

/* Which block is at each place below v->next; UINT32_MAX: none. */
static int owners_list(struct vdi *v, uint32_t **out)
{
	uint32_t *list = mem_new(v->next + 1, sizeof(*list));
	int rc = list ? 0 : -ENOMEM;

	if (!rc)
		memset(list, 0xff, (v->next + 1) * sizeof(*list));
	for (uint64_t i = 0; i < v->n_blocks && !rc; i++) {
		uint32_t entry;

		rc = vdi_entry(v, i, &entry);
		if (!rc && entry < v->next)
			list[entry] = (uint32_t)i;
	}
	if (rc) {
		free(list);
		list = NULL;
	}
	*out = list;
	return rc;
}

/* Moves the block at place `from` to the free place `to`; the map follows in memory. */
static int place_move(struct vdi *v, uint32_t *owners, uint64_t from, uint64_t to)
{
	int rc = vdi_place_use(v, to, true);

	if (!rc)
		rc = place_copy(v, from, to);
	if (!rc)
		rc = vdi_entry_set(v, owners[from], (uint32_t)to);
	return rc;
}

static int count_write(struct vdi *v)
{
	v->count_on_disk = (uint32_t)v->next;
	v->h.n_used = le32_make(v->count_on_disk);
	return vdi_header_write(v);
}

/* Leaves no free place between the blocks, and nothing behind the last one. */
static int compact(struct vdi *v)
{
	uint64_t hole = 0, last;
	uint32_t *owners;
	int rc = owners_list(v, &owners);

	if (rc)
		return rc;
	for (last = v->next; last > hole && !rc; last--) {
		if (owners[last - 1] == UINT32_MAX)
			continue;
		while (hole < last - 1 && owners[hole] != UINT32_MAX)
			hole++;
		if (hole >= last - 1)
			break;
		rc = place_move(v, owners, last - 1, hole);
		owners[hole++] = owners[last - 1];
	}
	free(owners);
	/* The old places stay what they are until the map on the disk names the new ones. */
	if (!rc)
		rc = vdi_write_all(v, true);
	if (rc)
		return rc;
	while (last && !vdi_place_used(v, last - 1))
		last--;
	for (uint64_t i = last; i < v->next; i++)
		vdi_place_use(v, i, false);
	v->next = v->scan = last;
	rc = count_write(v);
	if (!rc && !file_is_device(v->file))
		rc = file_truncate(v->file, v->data_off + last * v->stride);
	if (!rc)
		v->room = last;
	return rc ? rc : file_sync(v->file);
}

/* ---- checking ---- */

struct findings {
	uint32_t *twice; /* blocks whose place is another's, too */
	size_t n_twice;
	uint64_t n_used;
};

static int twice_add(struct findings *f, uint64_t block)
{
	if (!(f->n_twice & (f->n_twice - 1))) {
		uint32_t *list = mem_resize(f->twice, f->n_twice ? f->n_twice * 2 : 1,
					    sizeof(*list));

		if (!list)
			return -ENOMEM;
		f->twice = list;
	}
	f->twice[f->n_twice++] = (uint32_t)block;
	return 0;
}

static int entry_check(struct vdi *v, struct img_check *c, uint64_t block,
		       uint32_t entry, uint8_t *seen, struct findings *f)
{
	if (entry >= vdi_place_limit(v)) {
		c->corruptions++;
		check_say(c, "block %llu is said to be at place %u, the file has %llu",
			  (unsigned long long)block, entry,
			  (unsigned long long)v->room);
		if (!(c->fix & IMG_FIX_ERRORS))
			return 0;
		c->corruptions_fixed++;
		return vdi_entry_set(v, block, VDI_FREE);
	}
	if (seen[entry / 8] >> entry % 8 & 1) {
		c->corruptions++;
		check_say(c, "block %llu is at place %u, where another block is",
			  (unsigned long long)block, entry);
		return twice_add(f, block);
	}
	seen[entry / 8] |= (uint8_t)(1u << entry % 8);
	f->n_used++;
	return vdi_place_use(v, entry, true);
}

static int map_check(struct vdi *v, struct img_check *c, struct findings *f)
{
	uint8_t *seen = mem_new(vdi_place_limit(v) / 8 + 1, 1);
	uint64_t expect = 0;
	int rc = seen ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < v->n_blocks && !rc; i++) {
		uint32_t entry;

		rc = vdi_entry(v, i, &entry);
		if (rc || entry == VDI_FREE || entry == VDI_ZERO)
			continue;
		c->allocated_clusters++;
		c->fragmented_clusters += expect && entry != expect;
		expect = entry + 1ull;
		rc = entry_check(v, c, i, entry, seen, f);
	}
	free(seen);
	return rc;
}

/* Each of two blocks at one place gets a copy of its own. */
static int twice_fix(struct vdi *v, struct img_check *c, const struct findings *f)
{
	int rc = 0;

	for (size_t i = 0; i < f->n_twice && !rc; i++) {
		uint64_t to = v->next;
		uint32_t entry;

		rc = vdi_entry(v, f->twice[i], &entry);
		if (!rc && !file_is_device(v->file))
			rc = file_truncate(v->file,
					   max_u64(file_size(v->file),
						   v->data_off + (to + 1) * v->stride));
		if (!rc)
			rc = vdi_place_use(v, to, true);
		if (!rc)
			rc = place_copy(v, entry, to);
		if (!rc)
			rc = vdi_entry_set(v, f->twice[i], (uint32_t)to);
		v->room = max_u64(v->room, to + 1);
		c->corruptions_fixed += !rc;
	}
	return rc;
}

/* The header's count: where other programs put the next block. */
static void count_check(struct vdi *v, struct img_check *c, bool *wrong)
{
	uint32_t says = le32_get(v->h.n_used);

	*wrong = says < v->next;
	if (!*wrong)
		return;
	c->corruptions++;
	check_say(c, "the header counts %u blocks, and there are %llu", says,
		  (unsigned long long)v->next);
}

static int vdi_fix(struct vdi *v, struct img_check *c, const struct findings *f,
		   bool count_wrong)
{
	int rc = 0;

	if (c->fix & IMG_FIX_ERRORS) {
		rc = twice_fix(v, c, f);
		if (!rc)
			rc = vdi_write_all(v, true);
		if (!rc)
			rc = count_write(v);
		if (!rc)
			c->corruptions_fixed += count_wrong;
	}
	/* What is left must be sound before blocks are moved. */
	if (!rc && c->fix & IMG_FIX_LEAKS && (c->leaks || c->corruptions_fixed) &&
	    c->corruptions == c->corruptions_fixed) {
		rc = compact(v);
		if (!rc)
			c->leaks_fixed = c->leaks;
	}
	return rc;
}

int vdi_check(struct img *img, struct img_check *c, struct err *err)
{
	struct vdi *v = img->priv;
	struct findings f = {0};
	bool count_wrong = false;
	int rc;

	if (c->fix && (v->old || v->map_off % 512 || v->data_off % 512))
		return err_set(err, ENOTSUP,
			       "'%s' is an old VDI image, which is not repaired in "
			       "place: convert it",
			       img->path);
	c->total_clusters = v->n_blocks;
	rc = !img->read_only && atomic_load(&img->writing) ? vdi_write_all(v, true) : 0;
	if (!rc)
		rc = map_check(v, c, &f);
	if (!rc) {
		uint64_t behind = v->data_off + v->room * v->stride;

		/* A fixed image's file may be longer than its blocks. */
		c->leaks = v->next - f.n_used;
		if (v->room > v->next && behind <= file_size(v->file) + v->stride - 1)
			c->leaks += v->room - v->next;
		if (c->leaks)
			check_say(c, "%llu blocks of the file belong to nobody",
				  (unsigned long long)c->leaks);
		count_check(v, c, &count_wrong);
		c->image_end_offset = v->data_off + v->next * v->stride;
		rc = c->fix ? vdi_fix(v, c, &f, count_wrong) : 0;
	}
	free(f.twice);
	return rc ? err_sys(err, -rc, "cannot check '%s'", img->path) : 0;
}

/* ---- other sizes ---- */

/* Map entries [from, to) are of blocks that are not there, or (fixed) of new ones. */
static int map_extend(struct vdi *v, uint64_t from, uint64_t to)
{
	int rc = 0;

	for (uint64_t i = from; i < to && !rc; i++) {
		le32 e = le32_make(VDI_FREE);

		if (v->type == VDI_FIXED) {
			e = le32_make((uint32_t)v->next);
			rc = vdi_place_use(v, v->next, true);
		}
		if (!rc)
			rc = meta_write(&v->m.pages, v->map_off + i * 4, &e, sizeof(e));
		/* Before the header says so, nobody looks at them: no order is needed. */
		if (!rc && meta_pages_pressed(&v->m.pages))
			rc = vdi_write_all(v, false);
	}
	if (!rc && v->type == VDI_FIXED) {
		uint64_t len = v->data_off + v->next * v->stride;

		if (file_is_device(v->file))
			rc = len > file_size(v->file) ? -ENOSPC : 0;
		else if (len > file_size(v->file))
			rc = file_truncate(v->file, len);
		v->room = max_u64(v->room, v->next);
	}
	return rc ? rc : vdi_write_all(v, true);
}

/* Moves the blocks at the first `k` places to the end. */
static int places_clear(struct vdi *v, uint64_t k)
{
	uint32_t *owners;
	int rc = owners_list(v, &owners);
	uint64_t n = min_u64(k, v->next);

	if (rc)
		return rc;
	for (uint64_t p = 0; p < n && !rc; p++) {
		uint64_t to = max_u64(v->next, k);

		if (owners[p] == UINT32_MAX)
			continue;
		rc = place_move(v, owners, p, to);
		v->room = max_u64(v->room, to + 1);
	}
	free(owners);
	if (!rc && !file_is_device(v->file))
		rc = file_truncate(v->file, max_u64(file_size(v->file),
						    v->data_off + v->next * v->stride));
	return rc ? rc : vdi_write_all(v, true);
}

/*
 * A map that does not fit where it is: the blocks behind it make room, and a new one is written there. One
 * write of the header makes it count.
 */
static int map_move(struct vdi *v, uint64_t n_blocks)
{
	uint64_t k = (align_up(n_blocks * 4, 4096) + v->stride - 1) / v->stride;
	uint64_t at = v->data_off, data_off = v->data_off + k * v->stride;
	int rc = data_off > UINT32_MAX ? -EFBIG : places_clear(v, k);
	le32 *piece = mem_new(1024, sizeof(*piece));

	if (!rc && !piece)
		rc = -ENOMEM;
	if (!rc && !file_is_device(v->file))
		rc = file_truncate(v->file, max_u64(file_size(v->file), data_off));
	for (uint64_t i = 0; i < n_blocks && !rc; i += 1024) {
		for (unsigned j = 0; j < 1024 && !rc; j++) {
			uint32_t e = VDI_FREE;

			if (i + j < v->n_blocks)
				rc = vdi_entry(v, i + j, &e);
			if (e < VDI_ZERO)
				e -= (uint32_t)k;
			piece[j] = le32_make(e);
		}
		if (!rc)
			rc = file_write(v->file, piece, at + i * 4, 4096);
	}
	free(piece);
	if (!rc)
		rc = file_sync(v->file);
	if (rc)
		return rc;
	v->h.map_off = le32_make((uint32_t)at);
	v->h.data_off = le32_make((uint32_t)data_off);
	v->h.n_used = le32_make((uint32_t)(v->next > k ? v->next - k : 0));
	rc = vdi_header_write(v);
	return rc ? rc : file_sync(v->file);
}

/* Takes everything from the header again. */
static int reopen(struct vdi *v, struct err *err)
{
	struct vdi_header h = v->h;
	int rc;

	meta_pages_fini(&v->m.pages);
	if (meta_pages_init(&v->m.pages, v->file, 512))
		return err_set(err, ENOMEM, "no memory");
	free(v->used);
	v->used = NULL;
	v->used_len = v->next = v->scan = 0;
	rc = vdi_header_take(v, &h, err);
	if (rc)
		return rc;
	v->count_on_disk = le32_get(v->h.n_used);
	v->room = (file_size(v->file) - v->data_off + v->stride - 1) / v->stride;
	return vdi_places(v, err);
}

static int grow(struct vdi *v, uint64_t size, uint64_t n_blocks, struct err *err)
{
	int rc = 0;

	if (v->map_off + n_blocks * 4 > v->data_off) {
		rc = map_move(v, n_blocks);
		rc = rc ? err_sys(err, -rc, "cannot move the map of '%s'", v->img->path)
			: reopen(v, err);
	}
	if (rc)
		return rc;
	rc = map_extend(v, v->n_blocks, n_blocks);
	if (!rc) {
		v->h.size = le64_make(size);
		v->h.n_blocks = le32_make((uint32_t)n_blocks);
		v->h.n_used = le32_make((uint32_t)v->next);
		rc = vdi_header_write(v);
	}
	if (!rc)
		rc = file_sync(v->file);
	return rc ? err_sys(err, -rc, "cannot resize '%s'", v->img->path)
		  : reopen(v, err);
}

static int shrink(struct vdi *v, uint64_t size, uint64_t n_blocks, struct err *err)
{
	int rc;

	v->h.size = le64_make(size);
	v->h.n_blocks = le32_make((uint32_t)n_blocks);
	rc = vdi_write_all(v, true);
	if (!rc)
		rc = vdi_header_write(v);
	if (!rc)
		rc = file_sync(v->file);
	rc = rc ? err_sys(err, -rc, "cannot resize '%s'", v->img->path)
		: reopen(v, err);
	if (rc)
		return rc;
	rc = compact(v);
	return rc ? err_sys(err, -rc, "cannot compact '%s'", v->img->path) : 0;
}

int vdi_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err)
{
	struct vdi *v = img->priv;
	uint64_t old = img->size, n, end;
	int rc;

	size = align_up(size, 512);
	n = size / v->block_size + !!(size % v->block_size);
	if (v->type == VDI_DIFF)
		return err_set(err, ENOTSUP,
			       "'%s' is a differencing image, which has its parent's "
			       "size",
			       img->path);
	if (prealloc != IMG_PREALLOC_OFF && v->type != VDI_FIXED)
		return err_set(err, ENOTSUP, "VDI images are not grown preallocated");
	if (n > VDI_MAX_BLOCKS)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VDI image with blocks of %u "
			       "bytes",
			       (unsigned long long)size, v->block_size);
	/* What the last block has behind the disk's end would come to light when it grows. */
	end = min_u64(align_up(min_u64(size, old), v->block_size),
		      (uint64_t)v->n_blocks * v->block_size);
	rc = size < old ? shrink(v, size, n, err) : grow(v, size, n, err);
	if (!rc && size > old && end > old)
		rc = img_write_zeroes(img, old, min_u64(end, size) - old, false);
	else if (rc)
		return rc;
	return rc ? err_sys(err, -rc, "cannot resize '%s'", img->path) : 0;
}

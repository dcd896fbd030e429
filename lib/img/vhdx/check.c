/* img/vhdx/check.c - VHDX images: checking, repairing, compacting. One thread, nobody else uses the image
 * meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vhdx/vhdx_int.h"

/* More blocks than this are not sorted in memory. */
#define MAX_CHECKED (16u << 20)
#define TABLE       UINT64_MAX

/* What stands where in the file, in MiB. */
struct span {
	uint64_t at, end;
	uint64_t index; /* of the BAT entry; TABLE: something else */
	bool keep;      /* only reserved: is not moved */
};

struct spans {
	struct span *v;
	size_t n, size;
	int rc;
};

static bool is_bitmap(const struct vhdx *v, uint64_t index)
{
	return index % (v->chunk_ratio + 1) == v->chunk_ratio;
}

static uint64_t index_block(const struct vhdx *v, uint64_t index)
{
	return index - index / (v->chunk_ratio + 1);
}

static int by_place(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	/* tables first: TABLE + 1 is 0 */
	return x->index + 1 < y->index + 1 ? -1 : x->index + 1 > y->index + 1;
}

static void span_add(struct spans *s, struct span x)
{
	if (s->rc)
		return;
	if (s->n == s->size) {
		size_t size = s->size ? s->size * 2 : 64;
		struct span *v = size > 2 * MAX_CHECKED
					 ? NULL
					 : mem_resize(s->v, size, sizeof(*v));

		if (!v) {
			s->rc = -ENOMEM;
			return;
		}
		s->v = v;
		s->size = size;
	}
	s->v[s->n++] = x;
}

/* Everything that has a place, sorted. s->v is to be freed in any case. */
static int spans_list(struct vhdx *v, struct spans *s)
{
	*s = (struct spans){0};
	span_add(s, (struct span){0, 1, TABLE, true});
	span_add(s, (struct span){v->log_off / VHDX_MB,
				  (v->log_off + v->log_len) / VHDX_MB, TABLE, true});
	span_add(s, (struct span){v->bat_off / VHDX_MB,
				  (v->bat_off + v->bat_len) / VHDX_MB, TABLE, true});
	span_add(s, (struct span){v->meta_off / VHDX_MB,
				  (v->meta_off + v->meta_len) / VHDX_MB, TABLE, true});
	for (uint64_t i = 0; i < v->n_entries && !s->rc; i++) {
		uint64_t e, len = is_bitmap(v, i) ? 1 : v->block_size / VHDX_MB;
		bool here;

		s->rc = vhdx_entry(v, i, &e);
		here = VHDX_STATE(e) == VHDX_PRESENT || VHDX_STATE(e) == VHDX_PARTIAL;
		if (!s->rc && (here || VHDX_MIB(e)))
			span_add(s, (struct span){VHDX_MIB(e), VHDX_MIB(e) + len, i,
						  !here});
	}
	if (!s->rc)
		qsort(s->v, s->n, sizeof(*s->v), by_place);
	return s->rc;
}

/* ---- moving ---- */

/* Repairing changes tables, not what the guest sees: children keep their parent. */
static int begin_fix(struct vhdx *v)
{
	int rc = 0;

	if (v->fixing || atomic_load(&v->img->writing))
		return 0;
	rc = guid_make(&v->header.file_write, false);
	if (!rc)
		rc = guid_make(&v->log_id, false);
	if (!rc && !file_is_device(v->file) && file_size(v->file) < v->end)
		rc = file_truncate(v->file, v->end);
	if (!rc)
		rc = vhdx_header_update(v);
	v->fixing = !rc;
	return rc;
}

static int bytes_copy(struct vhdx *v, uint64_t from, uint64_t to, uint64_t len)
{
	uint8_t *buf = malloc(VHDX_MB);
	int rc = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < len && !rc; at += VHDX_MB) {
		rc = file_read(v->file, buf, from + at, VHDX_MB);
		if (!rc)
			rc = file_write(v->file, buf, to + at, VHDX_MB);
	}
	free(buf);
	return rc;
}

/* A copy of what `s` is at MiB `to`; its entry follows, in memory. */
static int span_copy(struct vhdx *v, const struct span *s, uint64_t to)
{
	uint64_t e, len = (s->end - s->at) * VHDX_MB;
	int rc = vhdx_entry(v, s->index, &e);

	if (!rc)
		rc = bytes_copy(v, s->at * VHDX_MB, to * VHDX_MB, len);
	if (!rc)
		rc = vhdx_entry_set(v, s->index, to << 20 | VHDX_STATE(e));
	if (!rc && is_bitmap(v, s->index))
		meta_pages_forget(&v->m.pages, to * VHDX_MB, len);
	return rc;
}

static int span_to_end(struct vhdx *v, const struct span *s)
{
	uint64_t to = v->end, len = (s->end - s->at) * VHDX_MB;
	int rc = 0;

	if (!file_is_device(v->file))
		rc = file_truncate(v->file, to + len);
	else if (to + len > file_size(v->file))
		rc = -ENOSPC;
	if (rc)
		return rc;
	v->end = to + len;
	return span_copy(v, s, to / VHDX_MB);
}

int vhdx_compact(struct vhdx *v)
{
	uint64_t end = 0, gap_at;
	struct spans s;
	size_t gap = 0, last;
	int rc = begin_fix(v);

	/* Bitmaps are copied from the file. */
	if (!rc)
		rc = vhdx_write_all(v, true);
	if (!rc)
		rc = spans_list(v, &s);
	else
		return rc;
	last = s.n ? s.n - 1 : 0;
	gap_at = s.n ? s.v[0].end : 0;
	while (gap < last && !rc) {
		struct span *x = &s.v[last];
		uint64_t len = x->end - x->at;

		if (s.v[gap + 1].at >= gap_at + len && !x->keep) {
			rc = span_copy(v, x, gap_at);
			gap_at += len;
			end = max_u64(end, gap_at);
			last--;
		} else {
			gap_at = s.v[++gap].end;
		}
	}
	/* The old places stay what they are until the BAT on the disk names the new ones. */
	if (!rc)
		rc = vhdx_write_all(v, true);
	if (!rc)
		rc = file_sync(v->file);
	for (size_t i = 0; i <= last && i < s.n; i++)
		end = max_u64(end, s.v[i].end);
	for (size_t i = last + 1; i < s.n && !rc; i++)
		meta_pages_forget(&v->m.pages, s.v[i].at * VHDX_MB,
				  is_bitmap(v, s.v[i].index) ? VHDX_MB : 0);
	free(s.v);
	if (rc || file_is_device(v->file) || end * VHDX_MB >= v->end)
		return rc;
	/* The log speaks of a longer file: it has to be empty before. */
	rc = vhdx_finish(v);
	if (!rc)
		rc = file_truncate(v->file, end * VHDX_MB);
	if (!rc)
		v->end = end * VHDX_MB;
	return rc ? rc : file_sync(v->file);
}

/* ---- checking ---- */

static int found(struct img_check *c, const char *what, uint64_t index, uint64_t e)
{
	c->corruptions++;
	check_say(c, "BAT entry %llu (%llx) %s", (unsigned long long)index,
		  (unsigned long long)e, what);
	return c->fix & IMG_FIX_ERRORS;
}

/* One entry by itself. */
static int entry_check(struct vhdx *v, struct img_check *c, uint64_t index)
{
	uint64_t e, fixed = 0, len = is_bitmap(v, index) ? 1 : v->block_size / VHDX_MB;
	const char *what = NULL;
	unsigned state;
	int rc = vhdx_entry(v, index, &e);

	if (rc)
		return rc;
	state = VHDX_STATE(e);
	if (state == VHDX_PRESENT || state == VHDX_PARTIAL) {
		if (!VHDX_MIB(e) || VHDX_MIB(e) >= v->end / VHDX_MB)
			what = "is outside the file";
		else if (is_bitmap(v, index) && state == VHDX_PARTIAL)
			what = "has a state that no bitmap has";
		else if (state == VHDX_PARTIAL && !v->img->has_backing) {
			what = "is a part of a block, and there is no parent";
			fixed = VHDX_MIB(e) << 20 | VHDX_PRESENT;
		}
		if (!what)
			v->used_end = max_u64(v->used_end, VHDX_MIB(e) + len);
	} else if (state > VHDX_UNMAPPED || (is_bitmap(v, index) && state)) {
		what = "has an unknown state";
	}
	if (!what || !found(c, what, index, e))
		return 0;
	c->corruptions_fixed++;
	return vhdx_entry_set(v, index, fixed);
}

/* Parts of blocks need a bitmap. */
static int partial_check(struct vhdx *v, struct img_check *c, uint64_t index)
{
	uint64_t e, bits;
	int rc = vhdx_entry(v, index, &e);

	if (rc || VHDX_STATE(e) != VHDX_PARTIAL)
		return rc;
	rc = vhdx_entry(v, vhdx_bitmap_index(v, index_block(v, index)), &bits);
	if (rc || VHDX_STATE(bits) == VHDX_PRESENT ||
	    !found(c, "is a part of a block, and has no bitmap", index, e))
		return rc;
	c->corruptions_fixed++;
	return vhdx_entry_set(v, index, VHDX_NOT_PRESENT);
}

static int entries_check(struct vhdx *v, struct img_check *c)
{
	int rc = 0;

	v->used_end = 0;
	for (uint64_t i = 0; i < v->n_entries && !rc; i++)
		rc = entry_check(v, c, i);
	for (uint64_t i = 0; i < v->n_entries && !rc && v->img->has_backing; i++)
		if (!is_bitmap(v, i))
			rc = partial_check(v, c, i);
	/* The last block may be cut where the disk ends. */
	v->end = max_u64(v->end, v->used_end * VHDX_MB);
	return rc;
}

/* A span that begins before the end of another one. */
static int overlap_fix(struct vhdx *v, struct img_check *c, const struct span *s,
		       const struct span *before)
{
	uint64_t e = 0;
	int rc;

	if (s->keep && s->index != TABLE) { /* only reserved: nothing is lost */
		if (!(c->fix & IMG_FIX_ERRORS))
			return 0;
		rc = vhdx_entry(v, s->index, &e);
		return rc ? rc : vhdx_entry_set(v, s->index, VHDX_STATE(e));
	}
	if (s->index == TABLE) { /* a block that reaches into a table */
		if (before->index == TABLE)
			return 0;
		s = before;
	}
	vhdx_entry(v, s->index, &e);
	if (!found(c, "lies over something else", s->index, e))
		return 0;
	c->corruptions_fixed++;
	if (before->index == TABLE || s == before)
		return vhdx_entry_set(v, s->index, VHDX_NOT_PRESENT);
	return span_to_end(v, s);
}

static int places_check(struct vhdx *v, struct img_check *c)
{
	uint64_t covered = 0, block = v->block_size / VHDX_MB, end = v->end / VHDX_MB;
	const struct span *before = NULL;
	bool blocks = false; /* tables may have room around them */
	struct spans s;
	int rc = spans_list(v, &s);

	for (size_t i = 0; i < s.n && !rc; i++) {
		const struct span *x = &s.v[i];

		c->allocated_clusters +=
			x->index != TABLE && !x->keep && !is_bitmap(v, x->index);
		if (x->at >= end && x->index != TABLE)
			continue; /* was told */
		if (before && x->at < covered)
			rc = overlap_fix(v, c, x, before);
		else if (x->at > covered && blocks)
			c->leaks += (x->at - covered) / block;
		blocks |= x->index != TABLE;
		if (x->end > covered) {
			covered = x->end;
			before = x;
		}
	}
	free(s.v);
	if (end > covered && blocks)
		c->leaks += (end - covered) / block;
	if (c->leaks)
		check_say(c, "there is room for %llu blocks that belongs to nobody",
			  (unsigned long long)c->leaks);
	c->total_clusters = v->n_blocks;
	c->image_end_offset = covered * VHDX_MB;
	return rc;
}

/* Two of each: one is enough to read the image. */
static int heads_check(struct vhdx *v, struct img_check *c)
{
	bool header = v->header_bad[0] || v->header_bad[1];
	bool regions = v->regions_bad[0] || v->regions_bad[1] || v->regions_differ;
	int rc = 0;

	if (header) {
		c->corruptions++;
		check_say(c, "one of the two headers is damaged");
	}
	if (regions) {
		c->corruptions++;
		check_say(c, "one of the two tables of regions is damaged or old");
	}
	if (v->replayed)
		check_say(c, "the image was not closed: its log has %llu entries, %s",
			  (unsigned long long)v->replayed,
			  v->img->read_only ? "which are heeded"
					    : "which were replayed");
	if (!(c->fix & IMG_FIX_ERRORS))
		return 0;
	if (header) {
		rc = vhdx_header_update(v);
		c->corruptions_fixed += !rc;
	}
	if (!rc && regions) {
		rc = vhdx_regions_write(v);
		c->corruptions_fixed += !rc;
	}
	return rc;
}

int vhdx_check(struct img *img, struct img_check *c, struct err *err)
{
	struct vhdx *v = img->priv;
	int rc = 0;

	if (!img->read_only && atomic_load(&img->writing))
		rc = vhdx_write_all(v, true);
	if (!rc && c->fix)
		rc = begin_fix(v);
	if (!rc)
		rc = heads_check(v, c);
	if (!rc)
		rc = entries_check(v, c);
	if (!rc)
		rc = places_check(v, c);
	if (!rc && c->fix)
		rc = vhdx_write_all(v, true);
	if (!rc && c->fix & IMG_FIX_LEAKS && (c->leaks || c->corruptions_fixed) &&
	    c->corruptions == c->corruptions_fixed) {
		rc = vhdx_compact(v);
		if (!rc)
			c->leaks_fixed = c->leaks;
	}
	return rc ? err_sys(err, -rc, "cannot check '%s'", img->path) : 0;
}

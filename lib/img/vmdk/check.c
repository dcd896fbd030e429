/* img/vmdk/check.c - checks the tables of VMDK images. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vmdk/vmdk_int.h"

/* Parts of a file that something claims; neighbours in a row are one. */
struct claims {
	struct img_range *v;
	size_t n, size;
};

static int claim(struct claims *k, uint64_t off, uint64_t len)
{
	struct img_range *last = k->n ? &k->v[k->n - 1] : NULL;

	if (last && last->off + last->len == off) {
		last->len += len;
		return 0;
	}
	if (k->n == k->size) {
		size_t more = k->size ? k->size * 2 : 64;
		struct img_range *v = mem_resize(k->v, more, sizeof(*v));

		if (!v)
			return -ENOMEM;
		k->v = v;
		k->size = more;
	}
	k->v[k->n++] = (struct img_range){off, len};
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct img_range *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* How many pairs of neighbours overlap? */
static uint64_t overlaps(struct claims *k, const struct vmdk_extent *x,
			 const struct img_check *c)
{
	uint64_t found = 0, end = 0;

	if (k->n)
		qsort(k->v, k->n, sizeof(*k->v), by_offset);
	for (size_t i = 0; i < k->n; i++) {
		if (k->v[i].off < end) {
			check_say(c, "ERROR '%s': two things are at offset %llu",
				  file_path(x->file), (unsigned long long)k->v[i].off);
			found++;
		}
		end = max_u64(end, k->v[i].off + k->v[i].len);
	}
	return found;
}

static uint64_t table_len(const struct vmdk_extent *x)
{
	return align_up(x->gtes * 4ull, 512);
}

static int claim_tables(struct vmdk_extent *x, const uint32_t *gd, struct claims *k,
			struct img_check *c)
{
	int rc = 0;

	for (uint32_t i = 0; gd && i < x->n_gd && !rc; i++) {
		uint64_t at = gd[i] * VMDK_SECTOR;

		if (!at)
			continue;
		if (!range_ok(at, x->gtes * 4ull, x->file_len)) {
			check_say(c, "ERROR '%s': table %u is behind the end, at %llu",
				  file_path(x->file), i, (unsigned long long)at);
			c->corruptions++;
		} else {
			rc = claim(k, at, table_len(x));
		}
	}
	return rc;
}

/* One grain. *next: where the one after it would be if nothing was fragmented. */
static int check_grain(struct vmdk_extent *x, uint64_t grain, struct claims *k,
		       struct img_check *c, uint64_t *next)
{
	struct img_extent e;
	uint64_t len = x->grain, at;
	int rc = vmdk_sparse_map(x, grain * x->grain, x->grain, &e);

	if (rc == -EIO || (!rc && e.kind != IMG_DATA && e.kind != IMG_PACKED)) {
		if (!rc)
			return 0;
		check_say(c, "ERROR '%s': grain %llu is not in the file",
			  file_path(x->file), (unsigned long long)grain);
		c->corruptions++;
		return 0;
	}
	if (rc)
		return rc;
	at = e.file_off;
	c->allocated_clusters++;
	if (e.kind == IMG_PACKED) {
		c->compressed_clusters++;
		at -= x->markers ? VMDK_GRAIN_HEAD : 0;
		len = x->markers ? align_up(VMDK_GRAIN_HEAD + e.packed_len, 512) : 1;
	}
	c->fragmented_clusters += *next && *next != at;
	*next = at + len;
	return claim(k, at, len);
}

static int check_tables(struct vmdk *v, struct vmdk_extent *x, struct claims *k,
			struct img_check *c)
{
	uint64_t n = (x->size + x->grain - 1) / x->grain, next = 0;
	int rc = 0;

	for (uint64_t g = 0; g < n && !rc; g++) {
		uint64_t entry, at;

		if (!x->gd[g / x->gtes]) { /* all of it */
			g += x->gtes - 1 - g % x->gtes;
			continue;
		}
		pthread_mutex_lock(&v->lock);
		rc = vmdk_entry(x, g, &entry, &at);
		if (!rc && entry)
			rc = check_grain(x, g, k, c, &next);
		pthread_mutex_unlock(&v->lock);
		if (rc == -EIO) { /* said above: its table */
			g += x->gtes - 1 - g % x->gtes;
			rc = 0;
		}
	}
	return rc;
}

static int check_extent(struct vmdk *v, struct vmdk_extent *x, struct img_check *c)
{
	uint64_t before = c->corruptions;
	struct claims k = {0};
	int rc;

	c->total_clusters += (x->size + x->grain - 1) / x->grain;
	rc = claim(&k, 0, sizeof(struct vmdk_header));
	if (!rc && x->kind != VMDK_SESPARSE)
		rc = claim(&k, x->gd_off, x->n_gd * 4ull);
	if (!rc && x->rgd)
		rc = claim(&k, x->rgd_off, x->n_gd * 4ull);
	if (!rc && v->desc_room && !v->text && x->file == v->img->file)
		rc = claim(&k, v->desc_off, v->desc_room);
	if (!rc && x->kind != VMDK_SESPARSE)
		rc = claim_tables(x, x->gd, &k, c);
	if (!rc)
		rc = claim_tables(x, x->rgd, &k, c);
	/* Tables named twice would be walked without an end. */
	if (!rc)
		c->corruptions += overlaps(&k, x, c);
	if (!rc && c->corruptions == before)
		rc = check_tables(v, x, &k, c);
	if (!rc && c->corruptions == before)
		c->corruptions += overlaps(&k, x, c);
	free(k.v);
	c->image_end_offset = max_u64(c->image_end_offset, x->file_len);
	return rc;
}

int vmdk_check(struct img *img, struct img_check *c, struct err *err)
{
	struct vmdk *v = img->priv;

	for (size_t i = 0; i < v->n; i++) {
		struct vmdk_extent *x = &v->ext[i];
		int rc = x->grain ? check_extent(v, x, c) : 0;

		if (rc)
			return err_sys(err, -rc, "cannot check '%s'",
				       file_path(x->file));
	}
	return 0;
}

/* img/worklist.c - what of images is to be copied: their maps, put together. One thread. */
#include <stdlib.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/copy.h"

/* More ranges of data than that are put together over the zeros between them: they take 64 MiB then. */
#ifndef MAX_RANGES
#define MAX_RANGES (4u << 20)
#endif
#define FIRST_GAP 4096

static int range_add(struct img_range **v, size_t *n, size_t *size, uint64_t off,
		     uint64_t len)
{
	struct img_range *last = *n ? &(*v)[*n - 1] : NULL;

	if (!len)
		return 0;
	if (last && last->off + last->len == off) {
		last->len += len;
		return 0;
	}
	if (*n == *size) {
		size_t more = *size ? *size * 2 : 64;
		struct img_range *x = mem_resize(*v, more, sizeof(*x));

		if (!x)
			return -ENOMEM;
		*v = x;
		*size = more;
	}
	(*v)[(*n)++] = (struct img_range){off, len};
	return 0;
}

/* Has ranges with no more than w->gap between them be one. */
static void join(struct img_work_list *w)
{
	size_t n = 0;

	w->data_bytes = 0;
	for (size_t i = 0; i < w->n_data; i++) {
		struct img_range *last = n ? &w->data[n - 1] : NULL, r = w->data[i];

		if (last && r.off - (last->off + last->len) <= w->gap)
			last->len = r.off + r.len - last->off;
		else
			w->data[n++] = r;
	}
	w->n_data = n;
	for (size_t i = 0; i < n; i++)
		w->data_bytes += w->data[i].len;
}

/* The same, until there are few enough. Zeros that are read are found again when they are copied. */
static void coarsen(struct img_work_list *w)
{
	while (w->n_data >= MAX_RANGES / 2) {
		w->gap = w->gap ? w->gap * 2 : FIRST_GAP;
		join(w);
	}
}

static int add(struct img_work_list *w, bool zero, uint64_t off, uint64_t len)
{
	struct img_range *last = w->n_data ? &w->data[w->n_data - 1] : NULL;

	if (!zero && w->gap && last && off - (last->off + last->len) <= w->gap) {
		w->data_bytes += off + len - (last->off + last->len);
		last->len = off + len - last->off;
		return 0;
	}
	if (zero)
		return range_add(&w->zero, &w->n_zero, &w->zero_size, off, len);
	w->data_bytes += len;
	return range_add(&w->data, &w->n_data, &w->data_size, off, len);
}

static int add_image(struct img_work_list *w, struct img *img, bool top_only,
		     struct err *err)
{
	struct img_extent e;

	for (uint64_t at = 0; at < img_size(img); at += e.len) {
		int rc = img_map(img, at, img_size(img) - at, &e);

		if (rc)
			return err_sys(err, -rc,
				       "cannot read the tables of '%s' for offset %llu",
				       img_path(img), (unsigned long long)at);
		if (top_only && (e.depth || !e.present))
			continue;
		if (e.kind != IMG_ZERO || top_only)
			rc = add(w, e.kind == IMG_ZERO, w->size + at, e.len);
		if (rc)
			return err_set(err, ENOMEM, "no memory for the map of '%s'",
				       img_path(img));
		if (!top_only && w->n_data >= MAX_RANGES)
			coarsen(w);
	}
	w->size += img_size(img);
	return 0;
}

int img_work_list(const struct img_source *src, bool top_only, struct img_work_list *w,
		  struct err *err)
{
	int rc = 0;

	*w = (struct img_work_list){0};
	for (unsigned i = 0; i < src->n && !rc; i++)
		rc = add_image(w, src->img[i], top_only, err);
	if (rc)
		img_work_free(w);
	return rc;
}

void img_work_free(struct img_work_list *w)
{
	free(w->data);
	free(w->zero);
	*w = (struct img_work_list){0};
}

int img_work_keep(struct img_work_list *w, const struct img_range *keep, size_t n,
		  struct err *err)
{
	struct img_range *v = NULL;
	size_t count = 0, size = 0, k = 0;
	uint64_t bytes = 0;
	int rc = 0;

	for (size_t i = 0; i < w->n_data && !rc; i++) {
		uint64_t at = w->data[i].off, end = at + w->data[i].len;

		while (k < n && keep[k].off + keep[k].len <= at)
			k++;
		for (size_t m = k; m < n && keep[m].off < end && !rc; m++) {
			uint64_t from = max_u64(at, keep[m].off);
			uint64_t to = min_u64(end, keep[m].off + keep[m].len);

			bytes += to - from;
			rc = range_add(&v, &count, &size, from, to - from);
		}
	}
	if (rc) {
		free(v);
		return err_set(err, ENOMEM, "no memory for the map");
	}
	free(w->data);
	w->data = v;
	w->n_data = count;
	w->data_size = size;
	w->data_bytes = bytes;
	w->chosen = true;
	return 0;
}

void img_work_cut(struct img_work_list *w, uint64_t off, uint64_t len)
{
	size_t n = 0;

	w->data_bytes = 0;
	for (size_t i = 0; i < w->n_data; i++) {
		uint64_t from = max_u64(w->data[i].off, off);
		uint64_t to = min_u64(w->data[i].off + w->data[i].len, off + len);

		if (from >= to)
			continue;
		w->data[n++] = (struct img_range){from - off, to - from};
		w->data_bytes += to - from;
	}
	w->n_data = n;
	w->n_zero = 0;
	w->size = len;
}

int img_work_fill(struct img_work_list *w, uint64_t size, struct err *err)
{
	uint64_t at = 0;
	int rc = 0;

	w->n_zero = 0;
	for (size_t i = 0; i < w->n_data && !rc; i++) {
		rc = add(w, true, at, w->data[i].off - at);
		at = w->data[i].off + w->data[i].len;
	}
	if (!rc && at < size)
		rc = add(w, true, at, size - at);
	return rc ? err_set(err, ENOMEM, "no memory for the map") : 0;
}

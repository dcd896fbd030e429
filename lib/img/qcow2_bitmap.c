/*
 * img/qcow2_bitmap.c - qcow2's persistent bitmaps: their directory, and adding, changing and dropping them.
 * One thread; nobody else uses the image.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2_walk.h"

/* As QEMU has it. */
enum {
	MAX_BITMAPS = 65535,
	MAX_NAME = 1023,
	DIRTY_TRACKING = 1,
	MIN_GRAN = 9,
	MAX_GRAN = 31
};
#define MAX_DIR   (1024u * MAX_BITMAPS)
#define MAX_TABLE (0x8000000u)

struct disk_bitmap {
	be64 table_off;
	be32 table_n, flags;
	uint8_t type, granularity_bits;
	be16 name_len;
	be32 extra_len;
};
static_assert(sizeof(struct disk_bitmap) == 24, "as the specification has it");

/* ---- the directory ---- */

static void bitmap_fini(struct bitmap *b)
{
	free(b->extra);
	free(b->name);
}

void bitmaps_fini(struct bitmaps *b)
{
	for (size_t i = 0; i < b->n; i++)
		bitmap_fini(&b->v[i]);
	free(b->v);
	*b = (struct bitmaps){0};
}

static int bitmap_parse(struct bitmap *b, const uint8_t *p, uint64_t left,
			uint64_t *len)
{
	struct disk_bitmap d;
	uint32_t name_len;

	if (left < sizeof(d))
		return -EINVAL;
	memcpy(&d, p, sizeof(d));
	name_len = be16_get(d.name_len);
	*b = (struct bitmap){
		.table_off = be64_get(d.table_off),
		.table_n = be32_get(d.table_n),
		.flags = be32_get(d.flags),
		.type = d.type,
		.granularity_bits = d.granularity_bits,
		.extra_len = be32_get(d.extra_len),
	};
	*len = align_up(sizeof(d) + (uint64_t)b->extra_len + name_len, 8);
	if (*len > left || !name_len || name_len > MAX_NAME || b->table_n > MAX_TABLE ||
	    b->granularity_bits > 63)
		return -EINVAL;
	b->extra = malloc(b->extra_len + 1);
	b->name = strndup((const char *)p + sizeof(d) + b->extra_len, name_len);
	if (b->extra)
		memcpy(b->extra, p + sizeof(d), b->extra_len);
	return b->extra && b->name ? 0 : -ENOMEM;
}

int bitmaps_load(const struct qcow2 *q, struct bitmaps *b, struct err *err)
{
	uint64_t at = 0, len;
	uint8_t *p;
	int rc;

	*b = (struct bitmaps){0};
	if (!q->bm_n)
		return 0;
	if (q->bm_n > MAX_BITMAPS || q->bm_bytes > MAX_DIR ||
	    q->bm_off & (q->cluster_size - 1) ||
	    !range_ok(q->bm_off, q->bm_bytes, file_size(q->file)))
		return err_set(err, EINVAL,
			       "'%s' is damaged: %u bitmaps in %llu bytes at 0x%llx",
			       q->img->path, q->bm_n, (unsigned long long)q->bm_bytes,
			       (unsigned long long)q->bm_off);
	p = mem_new(q->bm_bytes + 1, 1);
	b->v = mem_new(q->bm_n, sizeof(b->v[0]));
	rc = p && b->v ? file_read(q->file, p, q->bm_off, q->bm_bytes) : -ENOMEM;
	while (b->n < q->bm_n && !rc) {
		rc = bitmap_parse(&b->v[b->n++], p + at, q->bm_bytes - at, &len);
		at += rc ? 0 : len;
	}
	free(p);
	if (!rc)
		return 0;
	if (rc == -EINVAL)
		err_set(err, EINVAL, "'%s' is damaged: bitmap %zu of %u", q->img->path,
			b->n, q->bm_n);
	else
		err_sys(err, -rc, "cannot read the bitmaps of '%s'", q->img->path);
	bitmaps_fini(b);
	return rc;
}

void bitmaps_build(const struct bitmaps *b, struct str *out)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct bitmap *x = &b->v[i];
		struct disk_bitmap d = {
			.table_off = be64_make(x->table_off),
			.table_n = be32_make(x->table_n),
			.flags = be32_make(x->flags),
			.type = x->type,
			.granularity_bits = x->granularity_bits,
			.name_len = be16_make((uint16_t)strlen(x->name)),
			.extra_len = be32_make(x->extra_len),
		};

		str_add(out, &d, sizeof(d));
		str_add(out, x->extra, x->extra_len);
		str_add(out, x->name, strlen(x->name));
		str_add(out, NULL, align_up(out->len, 8) - out->len);
	}
}

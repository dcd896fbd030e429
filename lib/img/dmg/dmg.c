/*
 * img/dmg/dmg.c - Apple's disk images (UDIF, ".dmg"), to be read: what hdiutil makes as UDRO, UDCO, UDZO, UDBZ, ULFO,
 * ULMO. Opening and closing: one thread; mapping: any.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "codec/checksum.h"
#include "img/dmg/dmg_int.h"
#include "img/img_int.h"

enum { SUM_NONE = 0, SUM_CRC32 = 2 };

struct checksum {
	be32 kind, bits;
	uint8_t data[128]; /* a CRC in its first four bytes */
};

/* The file's last sector. */
struct koly {
	char magic[4];
	be32 version, header, flags;
	be64 running, data_off, data_len, fork_off, fork_len;
	be32 segment, n_segments;
	uint8_t segment_id[16];
	struct checksum data_sum; /* of the file's bytes from data_off on, data_len */
	be64 xml_off, xml_len;
	uint8_t reserved[120];
	struct checksum sum; /* of the CRCs of all tables, as they stand there */
	be32 variant;
	be64 sectors;
	uint8_t reserved2[12];
};
static_assert(sizeof(struct koly) == 512, "a sector");

/* A table, and what is in it. */
struct mish {
	char magic[4];
	be32 version;
	be64 first, sectors, data_off;
	be32 buffers, id, reserved[6];
	struct checksum
		sum; /* of what its runs hold, those of kind RUN_IGNORE left out */
	be32 n;
};
static_assert(sizeof(struct mish) == 204, "as hdiutil writes it");

struct mish_run {
	be32 type, comment;
	be64 first, sectors, off, len;
};
static_assert(sizeof(struct mish_run) == 40, "as hdiutil writes it");

enum run_type {
	RUN_ZERO = 0,
	RUN_RAW = 1,
	RUN_IGNORE = 2, /* free: reads as zeros */
	RUN_COMMENT = 0x7ffffffe,
	RUN_ADC = 0x80000004u,
	RUN_ZLIB = 0x80000005u,
	RUN_BZIP2 = 0x80000006u,
	RUN_LZFSE = 0x80000007u,
	RUN_LZMA = 0x80000008u,
	RUN_END = 0xffffffffu,
};

/* Larger runs are damage; hdiutil writes 256 KiB to 1 MiB. */
#define MAX_RUN (64u << 20)

struct run {
	uint64_t off, len; /* bytes of the disk */
	uint64_t file_off;
	uint32_t packed;
	uint32_t type;
	uint32_t table;
};

/* A table's checksum. */
struct table_sum {
	bool known;
	uint32_t want, is;
};

struct dmg {
	struct img *img; /* borrowed */
	uint64_t file_len, data_off;
	struct run *v; /* by `off`, none overlaps */
	size_t n, size;
	struct table_sum *table; /* in the order of the file */
	uint32_t n_tables;
	struct koly koly;
};

static const struct codec_block *run_codec(uint32_t type)
{
	switch (type) {
	case RUN_ADC: return &codec_block_adc;
	case RUN_ZLIB: return &codec_block_zlib;
	case RUN_BZIP2: return &codec_block_bzip2;
	case RUN_LZFSE: return &codec_block_lzfse;
	case RUN_LZMA: return &codec_block_xz;
	default: return NULL;
	}
}

static bool is_koly(const void *sector)
{
	const struct koly *k = sector;

	return !memcmp(k->magic, "koly", 4) && be32_get(k->version) == 4 &&
	       be32_get(k->header) == sizeof(*k);
}

static bool is_encrypted(const struct img_probe *p)
{
	return (p->head_len >= 8 && !memcmp(p->head, "encrcdsa", 8)) ||
	       (p->tail_len >= 8 && !memcmp(p->tail + p->tail_len - 8, "cdsaencr", 8));
}

static bool dmg_probe(const struct img_probe *p)
{
	return is_encrypted(p) || (p->tail_len >= sizeof(struct koly) &&
				   is_koly(p->tail + p->tail_len - 512));
}

/* ---- runs ---- */

static int damaged_run(const struct dmg *d, const struct run *r, struct err *err)
{
	return err_set(err, EINVAL,
		       "'%s' is damaged: a run of kind %#x, %llu bytes for %llu at "
		       "%llu, lies at %llu of %llu",
		       d->img->path, r->type, (unsigned long long)r->packed,
		       (unsigned long long)r->len, (unsigned long long)r->off,
		       (unsigned long long)r->file_off,
		       (unsigned long long)d->file_len);
}

static int run_add(struct dmg *d, const struct run *r, struct err *err)
{
	if (d->n == d->size) {
		size_t size = d->size ? d->size * 2 : 256;
		struct run *v = mem_resize(d->v, size, sizeof(*v));

		if (!v)
			return err_set(err, ENOMEM, "no memory to open '%s'",
				       d->img->path);
		d->v = v;
		d->size = size;
	}
	d->v[d->n++] = *r;
	return 0;
}

/* One run of a table whose disk part begins at sector `first`, and whose data begins at data_off. */
static int take_run(struct dmg *d, const struct mish_run *m, uint64_t first,
		    uint64_t data_off, struct err *err)
{
	uint64_t sector, sectors = be64_get(m->sectors), len = be64_get(m->len), at;
	struct run r = {.type = be32_get(m->type), .table = d->n_tables - 1};
	bool stored = r.type == RUN_RAW || run_codec(r.type);

	if (r.type == RUN_COMMENT || r.type == RUN_END || !sectors)
		return 0;
	if (!stored && r.type != RUN_ZERO && r.type != RUN_IGNORE)
		return err_set(err, ENOTSUP,
			       "'%s' has runs of kind %#x, which is not known",
			       d->img->path, r.type);
	if (__builtin_add_overflow(first, be64_get(m->first), &sector) ||
	    !range_ok(sector, sectors, INT64_MAX / 1024))
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu sectors at %llu and %llu",
			       d->img->path, (unsigned long long)sectors,
			       (unsigned long long)first,
			       (unsigned long long)be64_get(m->first));
	r.off = sector * 512;
	r.len = sectors * 512;
	if (!stored)
		return run_add(d, &r, err);
	if (__builtin_add_overflow(data_off, be64_get(m->off), &at))
		at = UINT64_MAX;
	r.file_off = at;
	r.packed = (uint32_t)min_u64(len, UINT32_MAX);
	if (!range_ok(at, len, d->file_len) ||
	    (r.type == RUN_RAW ? len < r.len : r.len > MAX_RUN || len > MAX_RUN))
		return damaged_run(d, &r, err);
	return run_add(d, &r, err);
}

/* The CRC that is there; false: none is, or one of another kind. */
static bool crc_of(const struct checksum *c, uint32_t *crc)
{
	be32 v;

	memcpy(&v, c->data, sizeof(v));
	*crc = be32_get(v);
	return be32_get(c->kind) == SUM_CRC32 && be32_get(c->bits) == 32;
}

static int table_add(struct dmg *d, const struct mish *m, struct err *err)
{
	struct table_sum *v = mem_resize(d->table, d->n_tables + 1, sizeof(*v));

	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", d->img->path);
	d->table = v;
	v += d->n_tables++;
	*v = (struct table_sum){0};
	v->known = crc_of(&m->sum, &v->want);
	return 0;
}

static int take_table(void *ctx, const uint8_t *p, size_t len, struct err *err)
{
	struct dmg *d = ctx;
	struct mish m;
	uint64_t data_off;
	int rc = 0;

	if (len < sizeof(m) || memcmp(p, "mish", 4))
		return 0; /* what it is, nobody knows; QEMU passes over it, too */
	memcpy(&m, p, sizeof(m));
	if (be32_get(m.n) > (len - sizeof(m)) / sizeof(struct mish_run))
		return err_set(err, EINVAL,
			       "'%s' is damaged: %u runs in a table of %zu bytes",
			       d->img->path, be32_get(m.n), len);
	if (__builtin_add_overflow(d->data_off, be64_get(m.data_off), &data_off))
		data_off = UINT64_MAX;
	rc = table_add(d, &m, err);
	for (uint32_t i = 0; i < be32_get(m.n) && !rc; i++) {
		struct mish_run r;

		memcpy(&r, p + sizeof(m) + i * sizeof(r), sizeof(r));
		rc = take_run(d, &r, be64_get(m.first), data_off, err);
	}
	return rc;
}

static int by_offset(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Sorts; the disk ends at the last run, or where the trailer says. */
static int order_runs(struct dmg *d, uint64_t sectors, struct err *err)
{
	uint64_t end = 0;

	if (!d->n)
		return err_set(err, EINVAL, "'%s' is damaged: it has no block tables",
			       d->img->path);
	qsort(d->v, d->n, sizeof(*d->v), by_offset);
	for (size_t i = 0; i < d->n; i++) {
		if (d->v[i].off < end)
			return err_set(err, EINVAL,
				       "'%s' is damaged: sector %llu is there twice",
				       d->img->path,
				       (unsigned long long)d->v[i].off / 512);
		end = d->v[i].off + d->v[i].len;
	}
	if (sectors && (sectors > INT64_MAX / 1024 || sectors * 512 < end))
		return err_set(
			err, EINVAL,
			"'%s' is damaged: %llu sectors, and runs up to byte %llu",
			d->img->path, (unsigned long long)sectors,
			(unsigned long long)end);
	d->img->size = sectors ? sectors * 512 : end;
	return 0;
}

/* ---- opening ---- */

static int read_tables(struct dmg *d, uint64_t off, uint64_t len, bool xml,
		       struct err *err)
{
	const char *path = d->img->path;
	uint8_t *p;
	int rc;

	if (len > DMG_MAX_TABLES || !range_ok(off, len, d->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its %s has %llu bytes at %llu", path,
			       xml ? "property list" : "resource fork",
			       (unsigned long long)len, (unsigned long long)off);
	p = mem_new(len, 1);
	if (!p)
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	rc = file_read(d->img->file, p, off, len);
	if (rc)
		err_sys(err, -rc, "cannot read '%s'", path);
	else if (xml)
		rc = dmg_plist_tables((char *)p, len, take_table, d, err);
	else
		rc = dmg_fork_tables(p, len, take_table, d, err);
	free(p);
	return rc;
}

static int take_koly(struct dmg *d, const struct koly *k, struct err *err)
{
	const char *path = d->img->path;
	int rc;

	if (be32_get(k->n_segments) > 1)
		return err_set(err, ENOTSUP,
			       "'%s' is one of %u parts of an image: join them first "
			       "(hdiutil convert)",
			       path, be32_get(k->n_segments));
	d->data_off = be64_get(k->data_off);
	if (be64_get(k->xml_len))
		rc = read_tables(d, be64_get(k->xml_off), be64_get(k->xml_len), true,
				 err);
	else
		rc = read_tables(d, be64_get(k->fork_off), be64_get(k->fork_len), false,
				 err);
	if (rc)
		return err_prefix(err, "'%s'", path);
	return order_runs(d, be64_get(k->sectors), err);
}

static int dmg_open(struct img *img, struct err *err)
{
	struct dmg *d = NEW(struct dmg);
	struct img_probe p = {0};
	uint8_t head[8];
	struct koly k;
	int rc;

	if (!d)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = d;
	d->img = img;
	d->file_len = file_size(img->file);
	img->unit = img->zero_unit = 512;
	if (d->file_len < sizeof(k))
		return err_set(err, EINVAL, "'%s' is no disk image of Apple",
			       img->path);
	rc = file_read(img->file, head, 0, sizeof(head));
	if (!rc)
		rc = file_read(img->file, &k, d->file_len - sizeof(k), sizeof(k));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	p = (struct img_probe){.head = head,
			       .head_len = sizeof(head),
			       .tail = (void *)&k,
			       .tail_len = sizeof(k)};
	if (is_encrypted(&p))
		return err_set(err, ENOTSUP,
			       "'%s' is encrypted: decrypt it first (hdiutil convert)",
			       img->path);
	if (!is_koly(&k))
		return err_set(err, EINVAL, "'%s' is no disk image of Apple",
			       img->path);
	d->koly = k;
	return take_koly(d, &k, err);
}

static int dmg_close(struct img *img)
{
	struct dmg *d = img->priv;

	if (d) {
		free(d->v);
		free(d->table);
	}
	free(d);
	img->priv = NULL;
	return 0;
}

static int dmg_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	const struct dmg *d = img->priv;
	size_t low = 0, high = d->n;
	const struct run *r;
	uint64_t in;

	/* The last run that begins at or before it. */
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (d->v[mid].off <= off)
			low = mid + 1;
		else
			high = mid;
	}
	r = low ? &d->v[low - 1] : NULL;
	if (!r || off - r->off >= r->len) /* no table tells what is there */
		return -EIO;
	in = off - r->off;
	*e = (struct img_extent){
		.kind = IMG_ZERO,
		.len = min_u64(len, r->len - in),
		.file = img->file,
		.grain = 512,
	};
	if (r->type == RUN_RAW) {
		e->kind = IMG_DATA;
		e->file_off = r->file_off + in;
	} else if ((e->codec = run_codec(r->type))) {
		e->kind = IMG_PACKED;
		e->file_off = r->file_off;
		e->packed_len = r->packed;
		e->unit_len = (uint32_t)r->len;
		e->unit_off = (uint32_t)in;
	}
	return 0;
}

static void dmg_info(struct img *img, struct img_info *info)
{
	const struct dmg *d = img->priv;

	for (size_t i = 0; i < d->n && !info->compressed; i++) {
		const struct codec_block *c = run_codec(d->v[i].type);

		if (!c)
			continue;
		info->compressed = true;
		info->compression = c->name;
		info->cluster_bytes = (uint32_t)d->v[i].len;
	}
}

/* ---- checking ---- */

#define PIECE (1u << 20)

static void wrong(struct img_check *c, const char *what, uint32_t want, uint32_t is)
{
	check_say(c, "ERROR the checksum of %s is %08x, not %08x", what, is, want);
	c->corruptions++;
}

/* What one run holds. Zeros take no time, however many they are. */
static int sum_run(struct dmg *d, const struct run *r, uint8_t *buf, uint32_t *crc)
{
	int rc = 0;

	if (r->type == RUN_ZERO)
		*crc = codec_crc32_zeros(*crc, r->len);
	if (r->type == RUN_ZERO || r->type == RUN_IGNORE)
		return 0;
	for (uint64_t at = 0; at < r->len && !rc;) {
		uint64_t n = min_u64(r->len - at, PIECE);

		rc = img_read(d->img, buf, r->off + at, n);
		if (!rc)
			*crc = codec_crc32(*crc, buf, n);
		at += n;
	}
	return rc;
}

/* The bytes of the file that hold the runs. */
static int check_fork(struct dmg *d, uint8_t *buf, struct img_check *c)
{
	uint64_t off = d->data_off, len = be64_get(d->koly.data_len);
	uint32_t want, is = 0;
	int rc = 0;

	if (!crc_of(&d->koly.data_sum, &want))
		return 0;
	if (!range_ok(off, len, d->file_len)) {
		check_say(c, "ERROR the data is not all in the file");
		c->corruptions++;
		return 0;
	}
	for (uint64_t at = 0; at < len && !rc;) {
		uint64_t n = min_u64(len - at, PIECE);

		rc = file_read(d->img->file, buf, off + at, n);
		if (!rc)
			is = codec_crc32(is, buf, n);
		at += n;
	}
	if (!rc && is != want)
		wrong(c, "the file's data", want, is);
	return rc;
}

static void check_tables(const struct dmg *d, struct img_check *c)
{
	uint32_t want, all = 0;
	bool known = true;

	for (uint32_t i = 0; i < d->n_tables; i++) {
		const struct table_sum *t = &d->table[i];
		be32 v = be32_make(t->want);
		char name[32];

		all = codec_crc32(all, &v, sizeof(v));
		known &= t->known;
		snprintf(name, sizeof(name), "table %u", i + 1);
		if (t->known && t->is != t->want)
			wrong(c, name, t->want, t->is);
	}
	if (known && crc_of(&d->koly.sum, &want) && want != all)
		wrong(c, "the checksums", want, all);
}

/* Reads and unpacks everything, and compares with the checksums that are there. */
static int dmg_check(struct img *img, struct img_check *c, struct err *err)
{
	struct dmg *d = img->priv;
	uint8_t *buf = malloc(PIECE);
	int rc = buf ? check_fork(d, buf, c) : -ENOMEM;

	for (uint32_t i = 0; i < d->n_tables; i++)
		d->table[i].is = 0;
	c->total_clusters = d->n;
	for (size_t i = 0; i < d->n && !rc; i++) {
		const struct run *r = &d->v[i];

		rc = sum_run(d, r, buf, &d->table[r->table].is);
		c->allocated_clusters += r->packed != 0;
		c->compressed_clusters += run_codec(r->type) != NULL;
		if (rc == -EIO || rc == -EINVAL || rc == -EBADMSG) {
			check_say(c, "ERROR sector %llu cannot be unpacked",
				  (unsigned long long)r->off / 512);
			c->corruptions++;
			d->table[r->table].known = false;
			rc = 0;
		}
	}
	if (!rc)
		check_tables(d, c);
	c->image_end_offset = d->file_len;
	free(buf);
	return rc ? err_sys(err, -rc, "cannot read '%s'", img->path) : 0;
}

static const char *const aliases[] = {"udif", NULL};

const struct img_format img_dmg = {
	.name = "dmg",
	.title = "Apple disk image (UDIF)",
	.aliases = aliases,
	.probe = dmg_probe,
	.open = dmg_open,
	.close = dmg_close,
	.map = dmg_map,
	.check = dmg_check,
	.info = dmg_info,
};

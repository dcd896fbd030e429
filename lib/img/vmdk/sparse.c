/*
 * img/vmdk/sparse.c - the sparse extents of VMDK images: VMware's hosted ones (plain and compressed), ESX's COWD and
 * SEsparse. Opening: one thread; mapping: any, with the image's lock.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vmdk/vmdk_int.h"

#define SE_MAGIC          0xcafebabeull
#define SE_VOLATILE_MAGIC 0xcafecafeull
#define SE_VERSION        0x0000000200000001ull

static int damaged(const struct vmdk_extent *x, const char *what, uint64_t is,
		   struct err *err)
{
	return err_set(err, EINVAL, "'%s' is damaged: %s: %llu", file_path(x->file),
		       what, (unsigned long long)is);
}

/* ---- headers ---- */

/* Counts the tables, checks what all kinds have. Sectors. */
static int take_geometry(struct vmdk_extent *x, uint64_t capacity, uint64_t grain,
			 uint64_t gtes, struct err *err)
{
	uint64_t per_table;

	if (!is_pow2(grain) || grain > VMDK_MAX_GRAIN / VMDK_SECTOR)
		return damaged(x, "sectors of a grain, a power of two up to 32768",
			       grain, err);
	if (!gtes || gtes > 65536)
		return damaged(x, "entries of a grain table", gtes, err);
	if (capacity > VMDK_MAX_EXTENT)
		return damaged(x, "sectors", capacity, err);
	x->capacity = capacity * VMDK_SECTOR;
	x->grain = (uint32_t)(grain * VMDK_SECTOR);
	x->gtes = (uint32_t)gtes;
	per_table = (uint64_t)x->grain * gtes;
	if (x->capacity / per_table >= VMDK_MAX_GD)
		return damaged(x, "sectors, more than the grain directory may hold",
			       capacity, err);
	x->n_gd = (uint32_t)((x->capacity + per_table - 1) / per_table);
	return 0;
}

/* The header behind the end of a stream. */
static int take_footer(struct vmdk_extent *x, struct vmdk_header *h, struct err *err)
{
	struct {
		struct vmdk_marker mark;
		struct vmdk_header h;
		struct vmdk_marker end;
	} f;
	int rc;

	if (x->file_len < sizeof(f) + sizeof(*h))
		return damaged(x, "a stream that is cut off, its length", x->file_len,
			       err);
	rc = file_read(x->file, &f, align_down(x->file_len, 512) - sizeof(f),
		       sizeof(f));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", file_path(x->file));
	if (le32_get(f.mark.len) || le32_get(f.mark.type) != VMDK_MARK_FOOTER ||
	    memcmp(f.h.magic, "KDMV", 4) || le64_get(f.end.val) ||
	    le32_get(f.end.len) || le32_get(f.end.type) != VMDK_MARK_END)
		return damaged(x, "a stream without its end, its length", x->file_len,
			       err);
	*h = f.h;
	return 0;
}

static int take_hosted(struct vmdk_extent *x, struct err *err)
{
	struct vmdk_header h;
	uint32_t flags, version;
	int rc = file_read(x->file, &h, 0, sizeof(h));

	if (!rc && memcmp(h.magic, "KDMV", 4))
		return err_set(err, EINVAL, "'%s' is no sparse extent of a VMDK image",
			       file_path(x->file));
	if (!rc && le64_get(h.gd_off) == VMDK_GD_AT_END) {
		rc = take_footer(x, &h, err);
		if (rc)
			return rc;
	}
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", file_path(x->file));
	version = le32_get(h.version);
	flags = le32_get(h.flags);
	if (!version || version > 3)
		return err_set(err, ENOTSUP, "'%s': version %u of VMDK is not known",
			       file_path(x->file), version);
	if (flags & VMDK_FLAG_NEWLINES && memcmp(h.newlines, "\n \r\n", 4))
		return err_set(err, EINVAL,
			       "'%s' is damaged: it was transferred as text",
			       file_path(x->file));
	x->compressed = flags & VMDK_FLAG_COMPRESSED;
	x->markers = flags & VMDK_FLAG_MARKERS;
	x->zero_grains = flags & VMDK_FLAG_ZERO_GRAIN;
	if (x->compressed && le16_get(h.codec) != 1)
		return damaged(x, "way of compression", le16_get(h.codec), err);
	if (le64_get(h.gd_off) > x->file_len / VMDK_SECTOR)
		return damaged(x, "grain directory behind the end, at sector",
			       le64_get(h.gd_off), err);
	x->gd_off = le64_get(h.gd_off) * VMDK_SECTOR;
	if (flags & VMDK_FLAG_REDUNDANT &&
	    le64_get(h.rgd_off) <= x->file_len / VMDK_SECTOR)
		x->rgd_off = le64_get(h.rgd_off) * VMDK_SECTOR;
	if (x->rgd_off == x->gd_off)
		x->rgd_off = 0;
	return take_geometry(x, le64_get(h.capacity), le64_get(h.grain),
			     le32_get(h.gtes), err);
}

static int take_cowd(struct vmdk_extent *x, struct err *err)
{
	struct cowd_header h;
	int rc = file_read(x->file, &h, 0, sizeof(h));

	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", file_path(x->file));
	if (memcmp(h.magic, "COWD", 4))
		return err_set(err, EINVAL, "'%s' is no COWD extent of a VMDK image",
			       file_path(x->file));
	x->gd_off = le32_get(h.gd_off) * VMDK_SECTOR;
	x->free_on_disk = le32_get(h.free);
	rc = take_geometry(x, le32_get(h.capacity), le32_get(h.grain), COWD_GTES, err);
	if (!rc && x->n_gd > le32_get(h.n_gd))
		return damaged(x, "too few entries in its grain directory",
			       le32_get(h.n_gd), err);
	return rc;
}

static int take_sesparse(struct vmdk_extent *x, struct err *err)
{
	struct sesparse_header h;
	struct sesparse_volatile vol;
	uint64_t limit = x->file_len / VMDK_SECTOR;
	int rc = file_read(x->file, &h, 0, sizeof(h));

	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", file_path(x->file));
	if (le64_get(h.magic) != SE_MAGIC)
		return err_set(err, EINVAL,
			       "'%s' is no SEsparse extent of a VMDK image",
			       file_path(x->file));
	if (le64_get(h.version) != SE_VERSION || le64_get(h.grain) != 8 ||
	    le64_get(h.table) != 64 || le64_get(h.flags))
		return err_set(err, ENOTSUP,
			       "'%s': this version of SEsparse is not known",
			       file_path(x->file));
	if (le64_get(h.volatile_off) >= limit || le64_get(h.gd_off) >= limit ||
	    le64_get(h.tables_off) >= limit || le64_get(h.grains_off) > limit)
		return damaged(x, "tables behind its end, its length", x->file_len,
			       err);
	rc = file_read(x->file, &vol, le64_get(h.volatile_off) * VMDK_SECTOR,
		       sizeof(vol));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", file_path(x->file));
	if (le64_get(vol.magic) != SE_VOLATILE_MAGIC)
		return damaged(x, "mark of its second header", le64_get(vol.magic),
			       err);
	if (le64_get(vol.replay))
		return err_set(err, ENOTSUP,
			       "'%s' has a journal that ESX has to replay first",
			       file_path(x->file));
	x->gd_off = le64_get(h.gd_off) * VMDK_SECTOR;
	x->tables_off = le64_get(h.tables_off) * VMDK_SECTOR;
	x->grains_off = le64_get(h.grains_off) * VMDK_SECTOR;
	rc = take_geometry(x, le64_get(h.capacity), 8, 64 * 512 / 8, err);
	if (!rc && x->n_gd > le64_get(h.gd_len) * (512 / 8))
		return damaged(x, "too few sectors of its grain directory",
			       le64_get(h.gd_len), err);
	return rc;
}

/* ---- directories ---- */

static int gd_read(struct vmdk_extent *x, uint64_t off, uint32_t **out, struct err *err)
{
	uint64_t len = x->n_gd * 4ull;
	int rc;

	if (!range_ok(off, len, x->file_len))
		return damaged(x, "grain directory behind the end, at byte", off, err);
	*out = mem_new(x->n_gd + 1, 4);
	if (!*out)
		return err_set(err, ENOMEM, "no memory to open '%s'",
			       file_path(x->file));
	rc = file_read(x->file, *out, off, len); /* the host is little-endian */
	return rc ? err_sys(err, -rc, "cannot read '%s'", file_path(x->file)) : 0;
}

/* Entries of 8 bytes, with a mark, that number the tables. Kept as number + 1. */
static int gd_read_se(struct vmdk_extent *x, struct err *err)
{
	uint64_t len = x->n_gd * 8ull;
	le64 *raw;
	int rc;

	if (!range_ok(x->gd_off, len, x->file_len))
		return damaged(x, "grain directory behind the end, at byte", x->gd_off,
			       err);
	raw = mem_new(x->n_gd + 1, 8);
	x->gd = mem_new(x->n_gd + 1, 4);
	rc = raw && x->gd ? file_read(x->file, raw, x->gd_off, len) : -ENOMEM;
	if (rc)
		err_sys(err, -rc, "cannot read '%s'", file_path(x->file));
	for (uint32_t i = 0; i < x->n_gd && !rc; i++) {
		uint64_t e = le64_get(raw[i]);

		if (e && (e >> 32 != 0x10000000 || (uint32_t)e == UINT32_MAX))
			rc = damaged(x, "entry of its grain directory", e, err);
		else
			x->gd[i] = e ? (uint32_t)e + 1 : 0;
	}
	free(raw);
	return rc;
}

int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, struct err *err)
{
	int rc;

	(void)v;
	x->file_len = file_size(x->file);
	if (meta_pages_init(&x->pages, x->file, 512))
		return err_set(err, ENOMEM, "no memory to open '%s'",
			       file_path(x->file));
	x->has_pages = true;
	switch (x->kind) {
	case VMDK_COWD: rc = take_cowd(x, err); break;
	case VMDK_SESPARSE: rc = take_sesparse(x, err); break;
	default: rc = take_hosted(x, err);
	}
	if (rc)
		return rc;
	x->next = align_up(x->file_len, x->grain);
	if (x->kind == VMDK_SESPARSE)
		return gd_read_se(x, err);
	rc = gd_read(x, x->gd_off, &x->gd, err);
	if (!rc && x->rgd_off && !range_ok(x->rgd_off, x->n_gd * 4ull, x->file_len))
		x->rgd_off = 0;
	if (!rc && x->rgd_off)
		rc = gd_read(x, x->rgd_off, &x->rgd, err);
	return rc;
}

void vmdk_sparse_close(struct vmdk_extent *x)
{
	if (x->has_pages)
		meta_pages_fini(&x->pages);
	free(x->gd);
	free(x->rgd);
	x->gd = x->rgd = NULL;
	x->has_pages = false;
}

/* ---- mapping ---- */

static int entry_se(struct vmdk_extent *x, uint64_t grain, uint64_t *entry)
{
	uint64_t table = x->gd[grain / x->gtes] - 1ull, at;
	le64 e;
	int rc;

	at = x->tables_off + (table * x->gtes + grain % x->gtes) * 8;
	if (!range_ok(at, 8, x->file_len))
		return -EIO;
	rc = meta_read(&x->pages, at, &e, sizeof(e));
	*entry = le64_get(e);
	return rc;
}

int vmdk_entry(struct vmdk_extent *x, uint64_t grain, uint64_t *entry, uint64_t *at)
{
	uint64_t i = grain / x->gtes, off;
	le32 e;
	int rc;

	*entry = *at = 0;
	if (i >= x->n_gd)
		return -EIO;
	if (!x->gd[i])
		return 0;
	if (x->kind == VMDK_SESPARSE)
		return entry_se(x, grain, entry);
	off = x->gd[i] * VMDK_SECTOR + grain % x->gtes * 4;
	if (!range_ok(off, 4, x->file_len))
		return -EIO;
	rc = meta_read(&x->pages, off, &e, sizeof(e));
	*entry = le32_get(e);
	*at = off;
	return rc;
}

/* A grain of a compressed extent: of what length is in front of it. */
static int packed_extent(const struct vmdk_extent *x, uint64_t at, uint64_t in,
			 struct img_extent *e)
{
	le32 head[3];
	uint64_t len = 2ull * x->grain;
	int rc;

	if (x->markers) {
		if (!range_ok(at, sizeof(head), x->file_len))
			return -EIO;
		rc = file_read(x->file, head, at, sizeof(head));
		if (rc)
			return rc;
		at += VMDK_GRAIN_HEAD;
		len = le32_get(head[2]);
		if (!len || len > 2ull * x->grain + 1024)
			return -EIO;
	}
	if (at >= x->file_len)
		return -EIO;
	e->kind = IMG_PACKED;
	e->codec = &codec_block_zlib;
	e->file_off = at;
	e->packed_len = (uint32_t)min_u64(len, x->file_len - at);
	e->unit_len = x->grain;
	e->unit_off = (uint32_t)in;
	return 0;
}

/* Entry to kind and place, SEsparse. */
static int extent_se(const struct vmdk_extent *x, uint64_t entry, uint64_t in,
		     struct img_extent *e)
{
	uint64_t grain;

	switch (entry >> 60) {
	case 0:
		if (entry)
			return -EIO;
		/* fall through */
	case 1: e->kind = IMG_BACKING; return 0;
	case 2: e->kind = IMG_ZERO; return 0;
	case 3: break;
	default: return -EIO;
	}
	grain = (entry & 0xffffffffffffull) << 12 | (entry >> 48 & 0xfff);
	if (grain >= x->file_len / x->grain)
		return -EIO;
	e->kind = IMG_DATA;
	e->file_off = x->grains_off + grain * x->grain + in;
	return e->file_off < x->file_len ? 0 : -EIO;
}

static int extent_of(const struct vmdk_extent *x, uint64_t entry, uint64_t in,
		     struct img_extent *e)
{
	uint64_t at = entry * VMDK_SECTOR;

	e->file = x->file;
	e->grain = x->grain;
	if (x->kind == VMDK_SESPARSE)
		return extent_se(x, entry, in, e);
	if (!entry || (entry == 1 && x->zero_grains)) {
		e->kind = entry ? IMG_ZERO : IMG_BACKING;
		return 0;
	}
	if (at >= x->file_len)
		return -EIO;
	if (x->compressed)
		return packed_extent(x, at, in, e);
	e->kind = IMG_DATA;
	e->writable = x->access == VMDK_RW;
	e->file_off = at + in;
	return 0;
}

int vmdk_sparse_map(struct vmdk_extent *x, uint64_t in, uint64_t len,
		    struct img_extent *e)
{
	uint64_t grain = in / x->grain, n, entry, at;
	int rc = vmdk_entry(x, grain, &entry, &at);

	*e = (struct img_extent){0};
	in %= x->grain;
	if (!rc)
		rc = extent_of(x, entry, in, e);
	if (rc)
		return rc;
	n = x->grain - in;
	while (n < len && e->kind != IMG_PACKED) {
		struct img_extent next = {0};

		if (vmdk_entry(x, ++grain, &entry, &at) ||
		    extent_of(x, entry, 0, &next) || next.kind != e->kind ||
		    (e->kind == IMG_DATA && next.file_off != e->file_off + n))
			break;
		n += x->grain;
	}
	e->len = min_u64(n, len);
	return 0;
}

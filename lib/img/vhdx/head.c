/*
 * img/vhdx/head.c - the headers, the table of regions and the metadata of VHDX images. [MS-VHDX] 2.2, 2.6.
 * While an image is opened, one thread; vhdx_header_update() under flush_lock.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "base/mem.h"
#include "img/vhdx/vhdx_int.h"

/* clang-format off */
#define G(...) {{__VA_ARGS__}}
const struct guid vhdx_bat_id = /* 2dc27766-f623-4200-9d64-115e9bfd4a08 */
	G(0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08);
const struct guid vhdx_meta_id = /* 8b7ca206-4790-4b9a-b8fe-575f050f886e */
	G(0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e);
const struct guid vhdx_locator_type = /* b04aefb7-d19e-4a81-b789-25b8e9445913 */
	G(0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13);
const struct guid vhdx_item_ids[N_ITEMS] = {
	[ITEM_PARAMS] = /* caa16737-fa36-4d43-b3b6-33f0aa44e76b */
		G(0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b),
	[ITEM_SIZE] = /* 2fa54224-cd1b-4876-b211-5dbed83bf4b8 */
		G(0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8),
	[ITEM_DISK_ID] = /* beca12ab-b2e6-4523-93ef-c309e000c746 */
		G(0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46),
	[ITEM_SECTOR] = /* 8141bf1d-a96f-4709-ba47-f233a8faab5f */
		G(0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f),
	[ITEM_PHYSICAL] = /* cda348c7-445d-4471-9cc9-e9885251c556 */
		G(0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56),
	[ITEM_PARENT] = /* a8d35f2d-b30b-454d-abf7-d3d84834ab0c */
		G(0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c),
};
#undef G
/* clang-format on */

uint32_t vhdx_checksum(void *p, size_t len, size_t field)
{
	uint8_t *b = p;
	uint32_t crc = crc32c(0, b, field);

	crc = crc32c(crc, (const uint8_t[4]){0}, 4);
	return crc32c(crc, b + field + 4, len - field - 4);
}

/* ---- headers ---- */

static const uint32_t header_at[2] = {VHDX_HEADER_1, VHDX_HEADER_2};

static bool header_valid(struct vhdx_header *h)
{
	return !memcmp(h->mark, "head", 4) &&
	       le32_get(h->checksum) ==
		       vhdx_checksum(h, sizeof(*h),
				     offsetof(struct vhdx_header, checksum));
}

static int header_check(struct vhdx *v, struct err *err)
{
	const char *path = v->img->path;
	bool used = !guid_is_zero(&v->header.log);

	if (le16_get(v->header.version) != 1)
		return err_set(err, ENOTSUP, "'%s' has VHDX version %u, known is 1",
			       path, le16_get(v->header.version));
	if (used && le16_get(v->header.log_version))
		return err_set(err, ENOTSUP, "'%s' has a log of version %u, known is 0",
			       path, le16_get(v->header.log_version));
	v->log_off = le64_get(v->header.log_off);
	v->log_len = le32_get(v->header.log_len);
	if (v->log_off % VHDX_MB || v->log_len % VHDX_MB || !v->log_len ||
	    v->log_off < VHDX_MB || v->log_len > VHDX_MAX_LOG ||
	    !range_ok(v->log_off, v->log_len, INT64_MAX))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a log of %llu bytes at %llu", path,
			       (unsigned long long)v->log_len,
			       (unsigned long long)v->log_off);
	return 0;
}

int vhdx_headers_read(struct vhdx *v, struct err *err)
{
	struct vhdx_header *h = mem_new(2, sizeof(*h));
	int rc = h ? 0 : -ENOMEM;

	for (unsigned i = 0; i < 2 && !rc; i++) {
		rc = file_read(v->file, &h[i], header_at[i], sizeof(h[i]));
		if (!rc)
			v->header_bad[i] = !header_valid(&h[i]);
	}
	if (rc) {
		free(h);
		return err_sys(err, -rc, "cannot read '%s'", v->img->path);
	}
	if (v->header_bad[0] && v->header_bad[1]) {
		free(h);
		return err_set(err, EINVAL,
			       "'%s' is damaged: both headers have a wrong checksum",
			       v->img->path);
	}
	v->header_slot = v->header_bad[0];
	if (!v->header_bad[0] && !v->header_bad[1])
		v->header_slot =
			le64_get(h[1].sequence) > le64_get(h[0].sequence) ? 1 : 0;
	v->header = h[v->header_slot];
	free(h);
	return header_check(v, err);
}

int vhdx_header_update(struct vhdx *v)
{
	int rc = 0;

	for (unsigned i = 0; i < 2 && !rc; i++) {
		struct vhdx_header *h = &v->header;

		memcpy(h->mark, "head", 4);
		h->sequence = le64_make(le64_get(h->sequence) + 1);
		h->checksum = le32_make(vhdx_checksum(
			h, sizeof(*h), offsetof(struct vhdx_header, checksum)));
		v->header_slot = !v->header_slot;
		rc = file_write(v->file, h, header_at[v->header_slot], sizeof(*h));
		if (!rc)
			rc = file_sync(v->file);
		if (!rc)
			v->header_bad[v->header_slot] = false;
	}
	return rc;
}

/* ---- regions ---- */

static bool regions_valid(struct vhdx_regions *r)
{
	return !memcmp(r->mark, "regi", 4) && le32_get(r->n) <= VHDX_MAX_ENTRIES &&
	       le32_get(r->checksum) ==
		       vhdx_checksum(r, sizeof(*r),
				     offsetof(struct vhdx_regions, checksum));
}

static int region_take(struct vhdx *v, const struct vhdx_region *r, struct err *err)
{
	uint64_t off = le64_get(r->off);
	uint32_t len = le32_get(r->len);
	bool bat = guid_same(&r->id, &vhdx_bat_id);
	bool meta = guid_same(&r->id, &vhdx_meta_id);
	char id[GUID_TEXT];

	if (!bat && !meta)
		return le32_get(r->flags) & 1
			       ? err_set(err, ENOTSUP,
					 "'%s' needs region %s, which is not known",
					 v->img->path, guid_format(&r->id, false, id))
			       : 0;
	if (off < VHDX_MB || off % VHDX_MB || !len || len % VHDX_MB ||
	    !range_ok(off, len, file_size(v->file)) ||
	    range_overlap(off, len, v->log_off, v->log_len) ||
	    range_overlap(off, len, v->bat_off, v->bat_len) ||
	    range_overlap(off, len, v->meta_off, v->meta_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: a region of %u bytes at %llu, file of "
			       "%llu bytes",
			       v->img->path, len, (unsigned long long)off,
			       (unsigned long long)file_size(v->file));
	*(bat ? &v->bat_off : &v->meta_off) = off;
	*(bat ? &v->bat_len : &v->meta_len) = len;
	return 0;
}

int vhdx_regions_read(struct vhdx *v, struct err *err)
{
	struct vhdx_regions *r = mem_new(2, sizeof(*r));
	unsigned use;
	int rc = r ? file_read(v->file, r, VHDX_REGIONS_1, 2 * sizeof(*r)) : -ENOMEM;

	if (rc) {
		free(r);
		return err_sys(err, -rc, "cannot read '%s'", v->img->path);
	}
	v->regions_bad[0] = !regions_valid(&r[0]);
	v->regions_bad[1] = !regions_valid(&r[1]);
	use = v->regions_bad[0];
	v->regions_differ = !v->regions_bad[0] && !v->regions_bad[1] &&
			    memcmp(&r[0], &r[1], sizeof(*r));
	if (v->regions_bad[0] && v->regions_bad[1])
		rc = err_set(err, EINVAL,
			     "'%s' is damaged: both tables of regions have a wrong "
			     "checksum",
			     v->img->path);
	for (uint32_t i = 0; !rc && i < le32_get(r[use].n); i++)
		rc = region_take(v, &r[use].v[i], err);
	if (!rc && (!v->bat_off || !v->meta_off))
		rc = err_set(err, EINVAL, "'%s' is damaged: it has no %s region",
			     v->img->path, v->bat_off ? "metadata" : "BAT");
	free(r);
	return rc;
}

int vhdx_regions_write(struct vhdx *v)
{
	static const uint32_t copy_at[2] = {VHDX_REGIONS_1, VHDX_REGIONS_2};
	unsigned use = v->regions_bad[0];
	struct vhdx_regions *r = NEW(struct vhdx_regions);
	int rc = r ? file_read(v->file, r, copy_at[use], sizeof(*r)) : -ENOMEM;

	for (uint32_t i = 0; !rc && i < min_u64(le32_get(r->n), VHDX_MAX_ENTRIES); i++)
		if (guid_same(&r->v[i].id, &vhdx_bat_id)) {
			r->v[i].off = le64_make(v->bat_off);
			r->v[i].len = le32_make((uint32_t)v->bat_len);
		}
	if (!rc)
		r->checksum = le32_make(vhdx_checksum(
			r, sizeof(*r), offsetof(struct vhdx_regions, checksum)));
	/* First the one that is not in use, or is not read while the other one is whole. */
	for (unsigned i = 0; i < 2 && !rc; i++) {
		rc = file_write(v->file, r, copy_at[use ? i : 1 - i], sizeof(*r));
		if (!rc)
			rc = file_sync(v->file);
	}
	if (!rc)
		v->regions_bad[0] = v->regions_bad[1] = v->regions_differ = false;
	free(r);
	return rc;
}

/* ---- metadata ---- */

/* What a log has for it counts already. */
static int meta_bytes(struct vhdx *v, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *p = buf;
	int rc = 0;

	while (len && !rc) {
		uint32_t n = (uint32_t)min_u64(len, VHDX_PAGE - off % VHDX_PAGE);

		rc = meta_read(&v->m.pages, off, p, n);
		off += n;
		p += n;
		len -= n;
	}
	return rc;
}

static int damaged_item(struct vhdx *v, unsigned id, uint32_t len, struct err *err)
{
	return err_set(
		err, EINVAL,
		"'%s' is damaged: metadata item %u has %u bytes at a wrong place",
		v->img->path, id, len);
}

static const uint32_t item_len[N_ITEMS] = {
	[ITEM_PARAMS] = 8, [ITEM_SIZE] = 8,     [ITEM_DISK_ID] = 16,
	[ITEM_SECTOR] = 4, [ITEM_PHYSICAL] = 4,
};

static int item_take(struct vhdx *v, unsigned id, const uint8_t *raw, uint32_t len,
		     struct err *err)
{
	struct vhdx_params p;

	switch (id) {
	case ITEM_PARAMS:
		memcpy(&p, raw, sizeof(p));
		v->block_size = le32_get(p.block_size);
		v->fixed = le32_get(p.flags) & 1;
		v->img->has_backing = le32_get(p.flags) & 2;
		return 0;
	case ITEM_SIZE: v->img->size = load_u64(raw); return 0;
	case ITEM_DISK_ID: memcpy(&v->disk_id, raw, sizeof(v->disk_id)); return 0;
	case ITEM_SECTOR: v->sector = load_u32(raw); return 0;
	case ITEM_PARENT: return vhdx_parent_take(v, raw, len, err);
	default: return 0;
	}
}

static int item_read(struct vhdx *v, unsigned id, const struct vhdx_item *item,
		     struct err *err)
{
	uint32_t off = le32_get(item->off), len = le32_get(item->len);
	uint8_t *raw;
	int rc;

	if (off < sizeof(struct vhdx_metadata) || !len || len > 65536 ||
	    (item_len[id] && len != item_len[id]) || !range_ok(off, len, v->meta_len))
		return damaged_item(v, id, len, err);
	if (id == ITEM_SIZE)
		v->size_at = v->meta_off + off;
	raw = mem_new(len, 1);
	if (!raw)
		return err_set(err, ENOMEM, "no memory to open '%s'", v->img->path);
	rc = meta_bytes(v, v->meta_off + off, raw, len);
	rc = rc ? err_sys(err, -rc, "cannot read '%s'", v->img->path)
		: item_take(v, id, raw, len, err);
	free(raw);
	return rc;
}

static int items_read(struct vhdx *v, const struct vhdx_metadata *m, struct err *err)
{
	unsigned n = le16_get(m->n), seen = 0;
	char text[GUID_TEXT];
	int rc = 0;

	if (memcmp(m->mark, "metadata", 8) || n > VHDX_MAX_ENTRIES)
		return err_set(err, EINVAL,
			       "'%s' is damaged: no metadata table at %llu",
			       v->img->path, (unsigned long long)v->meta_off);
	for (unsigned i = 0; i < n && !rc; i++) {
		unsigned id = 0;

		while (id < N_ITEMS && !guid_same(&m->v[i].id, &vhdx_item_ids[id]))
			id++;
		if (id == N_ITEMS && le32_get(m->v[i].flags) & 4)
			return err_set(
				err, ENOTSUP,
				"'%s' needs metadata item %s, which is not known",
				v->img->path, guid_format(&m->v[i].id, false, text));
		if (id == N_ITEMS || le32_get(m->v[i].flags) & 1)
			continue;
		if (seen & BIT(id))
			return damaged_item(v, id, le32_get(m->v[i].len), err);
		seen |= (unsigned)BIT(id);
		rc = item_read(v, id, &m->v[i], err);
	}
	if (!rc && (~seen & (BIT(ITEM_PARAMS) | BIT(ITEM_SIZE) | BIT(ITEM_SECTOR)) ||
		    (v->img->has_backing && !(seen & BIT(ITEM_PARENT)))))
		return err_set(err, EINVAL,
			       "'%s' is damaged: its metadata has not all that is "
			       "required",
			       v->img->path);
	return rc;
}

static int geometry_check(struct vhdx *v, struct err *err)
{
	const char *path = v->img->path;

	if (!is_pow2(v->block_size) || v->block_size < VHDX_MIN_BLOCK ||
	    v->block_size > VHDX_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "'%s' is damaged: blocks of %u bytes, a power of two "
			       "from 1 to 256 MiB is needed",
			       path, v->block_size);
	if (v->sector != 512 && v->sector != 4096)
		return err_set(err, EINVAL,
			       "'%s' is damaged: sectors of %u bytes, 512 and 4096 are "
			       "possible",
			       path, v->sector);
	if (v->img->size > VHDX_MAX_SIZE || v->img->size % v->sector)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a disk of %llu bytes, at most 64 TiB "
			       "in whole sectors are possible",
			       path, (unsigned long long)v->img->size);
	v->chunk_ratio = VHDX_CHUNK_SECTORS * v->sector / v->block_size;
	v->n_blocks = v->img->size / v->block_size + !!(v->img->size % v->block_size);
	v->n_entries = vhdx_bat_entries(v, v->n_blocks);
	if (v->n_entries * 8 > v->bat_len)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a BAT of %llu bytes for %llu entries",
			       path, (unsigned long long)v->bat_len,
			       (unsigned long long)v->n_entries);
	return 0;
}

int vhdx_metadata_read(struct vhdx *v, struct err *err)
{
	struct vhdx_metadata *m = NEW(struct vhdx_metadata);
	int rc = m ? meta_bytes(v, v->meta_off, m, sizeof(*m)) : -ENOMEM;

	rc = rc ? err_sys(err, -rc, "cannot read '%s'", v->img->path)
		: items_read(v, m, err);
	free(m);
	return rc ? rc : geometry_check(v, err);
}

/* img/vhdx/create.c - makes empty VHDX images. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parent.h"
#include "img/vhdx/vhdx_int.h"

/* clang-format off */
const struct img_option_desc vhdx_options[] = {
	{"subformat", OPTION_TEXT, "dynamic|fixed", "dynamic", "fixed: all blocks are in the file from the start"},
	{"block_size", OPTION_SIZE, NULL, NULL, "1M to 256M; usually 8M to 64M, by the disk's size"},
	{"log_size", OPTION_SIZE, NULL, "1M", "whole MiB"},
	{"logical_sector_size", OPTION_NUMBER, "512|4096", "512", "that the guest sees"},
	{"block_state_zero", OPTION_BOOL, NULL, "on", "blocks that are not there read as zeros: accepted for scripts"},
	{0},
};
/* clang-format on */

/* Where everything goes. */
struct layout {
	uint64_t size, n_blocks, n_entries, chunk_ratio;
	uint64_t log_len, meta_off, bat_off, bat_len, data_off, end;
	uint32_t block, sector;
	bool fixed;
	char *parent_link, *parent_name; /* NULL: none; owned */
};

enum { LOG_AT = VHDX_MB, ITEMS_AT = 65536 };

static uint32_t usual_block(uint64_t size)
{
	if (size > 32ull << 40)
		return 64 * VHDX_MB;
	if (size > 100ull << 30)
		return 32 * VHDX_MB;
	return size > 1ull << 30 ? 16 * VHDX_MB : 8 * VHDX_MB;
}

static int layout_plan(struct layout *l, const struct img_create_opts *o,
		       struct err *err)
{
	const struct img_option *v = o->options;
	unsigned n = o->n_options;
	uint64_t block, log, chunks;

	l->fixed = !strcmp(img_option_text(v, n, "subformat", "dynamic"), "fixed");
	l->sector = (uint32_t)img_option_number(v, n, "logical_sector_size", 512);
	block = img_option_number(v, n, "block_size", o->cluster_size);
	block = block ? block : usual_block(o->size);
	log = img_option_number(v, n, "log_size", VHDX_MB);
	if (!is_pow2(block) || block < VHDX_MIN_BLOCK || block > VHDX_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "blocks of %llu bytes: a power of two from 1 to 256 MiB "
			       "is needed",
			       (unsigned long long)block);
	if (!log || log % VHDX_MB || log > VHDX_MAX_LOG)
		return err_set(err, EINVAL,
			       "a log of %llu bytes: 1 to 64 whole MiB are needed",
			       (unsigned long long)log);
	if (o->size > VHDX_MAX_SIZE)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a VHDX image, which holds 64 "
			       "TiB",
			       (unsigned long long)o->size);
	l->size = align_up(o->size, l->sector);
	l->block = (uint32_t)block;
	l->chunk_ratio = VHDX_CHUNK_SECTORS * l->sector / block;
	l->n_blocks = l->size / block + !!(l->size % block);
	chunks = (l->n_blocks + l->chunk_ratio - 1) / l->chunk_ratio;
	if (o->backing_path)
		l->n_entries = chunks * (l->chunk_ratio + 1);
	else
		l->n_entries = l->n_blocks ? l->n_blocks + chunks - 1 : 0;
	l->log_len = log;
	l->meta_off = LOG_AT + log;
	l->bat_off = l->meta_off + VHDX_MB;
	l->bat_len = max_u64(VHDX_MB, align_up(l->n_entries * 8, VHDX_MB));
	l->data_off = l->bat_off + l->bat_len;
	l->end = l->data_off + (l->fixed ? l->n_blocks * block : 0);
	return 0;
}

/* ---- pieces ---- */

static int headers_write(struct img_file *f, const struct layout *l)
{
	struct vhdx_header h = {.mark = "head", .version = le16_make(1)};
	int rc = guid_make(&h.file_write, false);

	if (!rc)
		rc = guid_make(&h.data_write, false);
	h.log_len = le32_make((uint32_t)l->log_len);
	h.log_off = le64_make(LOG_AT);
	for (unsigned i = 0; i < 2 && !rc; i++) {
		h.sequence = le64_make(i + 1);
		h.checksum = le32_make(vhdx_checksum(
			&h, sizeof(h), offsetof(struct vhdx_header, checksum)));
		rc = file_write(f, &h, i ? VHDX_HEADER_2 : VHDX_HEADER_1, sizeof(h));
	}
	return rc;
}

static int regions_write(struct img_file *f, const struct layout *l)
{
	struct vhdx_regions *r = NEW(struct vhdx_regions);
	int rc = r ? 0 : -ENOMEM;

	if (rc)
		return rc;
	memcpy(r->mark, "regi", 4);
	r->n = le32_make(2);
	r->v[0] = (struct vhdx_region){vhdx_bat_id, le64_make(l->bat_off),
				       le32_make((uint32_t)l->bat_len), le32_make(1)};
	r->v[1] = (struct vhdx_region){vhdx_meta_id, le64_make(l->meta_off),
				       le32_make(VHDX_MB), le32_make(1)};
	r->checksum = le32_make(
		vhdx_checksum(r, sizeof(*r), offsetof(struct vhdx_regions, checksum)));
	rc = file_write(f, r, VHDX_REGIONS_1, sizeof(*r));
	if (!rc)
		rc = file_write(f, r, VHDX_REGIONS_2, sizeof(*r));
	free(r);
	return rc;
}

/* The parent locator: two keys and their values, in UTF-16. Its length; 0: too long. */
static uint32_t locator_fill(uint8_t *raw, size_t max, const struct layout *l)
{
	const char *texts[] = {"parent_linkage", l->parent_link, "relative_path",
			       l->parent_name};
	struct vhdx_locator *head = (void *)raw;
	struct vhdx_locator_entry *e = (void *)(head + 1);
	size_t at = sizeof(*head) + 2 * sizeof(*e);

	head->type = vhdx_locator_type;
	head->n = le16_make(2);
	for (unsigned i = 0; i < 4; i++) {
		size_t n = utf8_to_utf16(texts[i], raw + at, max - at, false);

		if (!n)
			return 0;
		if (i % 2) {
			e[i / 2].value_off = le32_make((uint32_t)at);
			e[i / 2].value_len = le16_make((uint16_t)n);
		} else {
			e[i / 2].key_off = le32_make((uint32_t)at);
			e[i / 2].key_len = le16_make((uint16_t)n);
		}
		at += n;
	}
	return (uint32_t)at;
}

/* What the locator will say. */
static int parent_take(struct layout *l, const struct img_target *t,
		       const struct img_create_opts *opts, struct err *err)
{
	char id[GUID_TEXT];
	struct img *parent;
	int rc = parent_open_new(t, opts, &img_vhdx, &parent, err);

	if (rc)
		return rc;
	guid_format(&((struct vhdx *)parent->priv)->header.data_write, false, id);
	img_close(parent);
	l->parent_link = strdup(id);
	if (asprintf(&l->parent_name, "%s%s", *opts->backing_path == '/' ? "" : ".\\",
		     opts->backing_path) < 0)
		l->parent_name = NULL;
	if (!l->parent_link || !l->parent_name)
		return err_set(err, ENOMEM, "no memory");
	for (char *p = l->parent_name; *p; p++)
		if (*p == '/')
			*p = '\\';
	return 0;
}

/* The items, one behind the other. */
struct items {
	struct vhdx_params params;
	le64 size;
	struct guid disk_id;
	le32 sector, physical;
	uint8_t parent[8192];
};

static int metadata_write(struct img_file *f, const struct layout *l)
{
	/* clang-format off */
	static const struct { uint8_t id, flags; uint32_t off, len; } rows[] = {
		{ITEM_PARAMS, 4, offsetof(struct items, params), 8},
		{ITEM_SIZE, 6, offsetof(struct items, size), 8},
		{ITEM_DISK_ID, 6, offsetof(struct items, disk_id), 16},
		{ITEM_SECTOR, 6, offsetof(struct items, sector), 4},
		{ITEM_PHYSICAL, 6, offsetof(struct items, physical), 4},
	};
	/* clang-format on */
	struct vhdx_metadata *m = NEW(struct vhdx_metadata);
	struct items items = {
		.params = {le32_make(l->block),
			   le32_make(l->fixed | (l->parent_name ? 2u : 0))},
		.size = le64_make(l->size),
		.sector = le32_make(l->sector),
		.physical = le32_make(4096),
	};
	uint32_t parent_len = 0;
	int rc = m ? guid_make(&items.disk_id, false) : -ENOMEM;

	if (!rc && l->parent_name) {
		parent_len = locator_fill(items.parent, sizeof(items.parent), l);
		rc = parent_len ? 0 : -ENAMETOOLONG;
	}
	if (!rc) {
		memcpy(m->mark, "metadata", 8);
		m->n = le16_make(ARRAY_LEN(rows));
		for (size_t i = 0; i < ARRAY_LEN(rows); i++)
			m->v[i] = (struct vhdx_item){
				.id = vhdx_item_ids[rows[i].id],
				.off = le32_make(ITEMS_AT + rows[i].off),
				.len = le32_make(rows[i].len),
				.flags = le32_make(rows[i].flags),
			};
		if (parent_len) {
			m->n = le16_make(ARRAY_LEN(rows) + 1);
			m->v[ARRAY_LEN(rows)] = (struct vhdx_item){
				.id = vhdx_item_ids[ITEM_PARENT],
				.off = le32_make(ITEMS_AT +
						 offsetof(struct items, parent)),
				.len = le32_make(parent_len),
				.flags = le32_make(4),
			};
		}
		rc = file_write(f, m, l->meta_off, sizeof(*m));
	}
	if (!rc)
		rc = file_write(f, &items, l->meta_off + ITEMS_AT, sizeof(items));
	free(m);
	return rc;
}

/* Of a fixed image: each block in its place. Else all zeros, which is what the file has. */
static int bat_write(struct img_file *f, const struct layout *l)
{
	le64 *piece = mem_new(4096, sizeof(*piece));
	uint64_t block = 0;
	int rc = piece ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < l->n_entries && l->fixed && !rc; i += 4096) {
		uint64_t n = min_u64(4096, l->n_entries - i);

		for (uint64_t k = 0; k < n; k++) {
			bool bitmap = (i + k) % (l->chunk_ratio + 1) == l->chunk_ratio;

			piece[k] = le64_make(bitmap ? 0
						    : (l->data_off + block * l->block) |
							      VHDX_PRESENT);
			block += !bitmap;
		}
		rc = file_write(f, piece, l->bat_off + i * 8, n * 8);
	}
	free(piece);
	return rc;
}

static int mark_write(struct img_file *f)
{
	uint8_t mark[8 + 512] = "vhdxfile";

	utf8_to_utf16("vm-img", mark + 8, 512, false);
	return file_write(f, mark, 0, sizeof(mark));
}

static int image_write(struct img_file *f, const struct layout *l)
{
	int rc;

	if (file_is_device(f))
		rc = l->end > file_size(f) ? -ENOSPC
					   : file_zero(f, 0, l->data_off, true);
	else
		rc = file_truncate(f, l->end);
	if (!rc)
		rc = bat_write(f, l);
	if (!rc)
		rc = metadata_write(f, l);
	if (!rc)
		rc = regions_write(f, l);
	if (!rc)
		rc = headers_write(f, l);
	/* What makes it an image is last. */
	return rc ? rc : mark_write(f);
}

int vhdx_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		 struct img_measure *m, struct err *err)
{
	struct layout l = {0};
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	m->fully_allocated = l.data_off + l.n_blocks * l.block;
	m->required = l.fixed ? m->fully_allocated
			      : l.data_off + plan_blocks(plan, l.block) * l.block;
	return 0;
}

int vhdx_create(struct img_target *t, const struct img_create_opts *opts,
		struct err *err)
{
	struct layout l = {0};
	int rc = layout_plan(&l, opts, err);

	if (rc)
		return rc;
	if (opts->backing_path && l.fixed)
		return err_set(err, EINVAL, "a fixed image has no parent");
	if (opts->backing_path)
		rc = parent_take(&l, t, opts, err);
	if (!rc && (rc = image_write(t->file, &l)))
		err_sys(err, -rc, "cannot write the image");
	free(l.parent_link);
	free(l.parent_name);
	return rc;
}

/*
 * img/vhdx/vhdx_int.h - what the files of the VHDX format share. Specification: [MS-VHDX]. All numbers little-endian.
 *
 * The first MiB has an identifier, two headers (the valid one with the higher sequence number counts) and two
 * copies of the table of regions; then, anywhere, the log, the metadata, the block allocation
 * table (BAT), blocks. In front of a parent, a bit per sector (in sector bitmap blocks of
 * 1 MiB) says whether a sector of a partially present block is in this file.
 *
 * Order on disk: blocks' data, then a log entry with all changed pages of BAT and bitmaps, then these
 * pages. The log is empty (its identifier zero) when the image is closed. So whatever a crash leaves
 * is either the state before or the one after the entry.
 *
 * Locks: flush_lock, then lock, which guards all that changes in struct vhdx.
 */
#ifndef IMG_VHDX_INT_H
#define IMG_VHDX_INT_H

#include <assert.h>

#include "base/bytes.h"
#include "img/img_int.h"
#include "img/blockmap.h"
#include "base/guid.h"

#define VHDX_MB (1u << 20)

enum {
	VHDX_HEADER_1 = 64 << 10,
	VHDX_HEADER_2 = 128 << 10,
	VHDX_REGIONS_1 = 192 << 10,
	VHDX_REGIONS_2 = 256 << 10,
	VHDX_REGIONS_LEN = 64 << 10,
	VHDX_PAGE = 4096,
	VHDX_MAX_ENTRIES = 2047,
};

struct vhdx_header {
	char mark[4]; /* "head" */
	le32 checksum;
	le64 sequence;
	struct guid file_write, data_write, log;
	le16 log_version, version;
	le32 log_len;
	le64 log_off;
	uint8_t reserved[4016];
};
static_assert(sizeof(struct vhdx_header) == 4096, "as the specification has it");

struct vhdx_region {
	struct guid id;
	le64 off;
	le32 len, flags; /* 1: required */
};

struct vhdx_regions {
	char mark[4]; /* "regi" */
	le32 checksum, n, reserved;
	struct vhdx_region v[VHDX_MAX_ENTRIES];
	uint8_t rest[16];
};
static_assert(sizeof(struct vhdx_regions) == VHDX_REGIONS_LEN,
	      "as the specification has it");

struct vhdx_item {
	struct guid id;
	le32 off, len; /* in the region */
	le32 flags;    /* 1: a user's, 2: of the virtual disk, 4: required */
	le32 reserved;
};

struct vhdx_metadata {
	char mark[8]; /* "metadata" */
	le16 reserved, n;
	uint8_t reserved2[20];
	struct vhdx_item v[VHDX_MAX_ENTRIES];
};
static_assert(sizeof(struct vhdx_metadata) == 65536, "as the specification has it");

struct vhdx_params {
	le32 block_size, flags; /* 1: blocks stay allocated (fixed), 2: has a parent */
};

struct vhdx_locator {
	struct guid type;
	le16 reserved, n;
};

struct vhdx_locator_entry {
	le32 key_off, value_off;
	le16 key_len, value_len;
};

struct vhdx_log_entry {
	char mark[4]; /* "loge" */
	le32 checksum, len, tail;
	le64 sequence;
	le32 n_desc, reserved;
	struct guid log;
	le64 flushed_len, last_len;
};
static_assert(sizeof(struct vhdx_log_entry) == 64, "as the specification has it");

struct vhdx_log_desc {
	char mark[4];        /* "desc" or "zero" */
	uint8_t trailing[4]; /* zero: reserved */
	uint8_t leading[8];  /* zero: its length */
	le64 off, sequence;
};
static_assert(sizeof(struct vhdx_log_desc) == 32, "as the specification has it");

struct vhdx_log_data {
	char mark[4]; /* "data" */
	le32 sequence_high;
	uint8_t data[4084];
	le32 sequence_low;
};
static_assert(sizeof(struct vhdx_log_data) == VHDX_PAGE, "as the specification has it");

/* BAT entries: the state, and the place in MiB. */
#define VHDX_STATE(e) ((unsigned)((e)&7))
#define VHDX_MIB(e)   ((e) >> 20)
enum {
	VHDX_NOT_PRESENT = 0,
	VHDX_UNDEFINED = 1,
	VHDX_ZERO = 2,
	VHDX_UNMAPPED = 3,
	VHDX_PRESENT = 6,
	VHDX_PARTIAL = 7,
};

/* Sectors that a sector bitmap block has bits for. */
#define VHDX_CHUNK_SECTORS (8ull << 20)
#define VHDX_MAX_SIZE      (64ull << 40)
#define VHDX_MIN_BLOCK     VHDX_MB
#define VHDX_MAX_BLOCK     (256u * VHDX_MB)
/* Larger logs are damage. */
#define VHDX_MAX_LOG       (64u * VHDX_MB)

struct vhdx {
	struct img *img;           /* borrowed */
	struct img_file *file;     /* borrowed */
	struct vhdx_header header; /* the current one */
	unsigned header_slot;      /* 0 or 1: where it is */
	bool header_bad[2], regions_bad[2], regions_differ;
	uint64_t bat_off, bat_len, meta_off, meta_len, log_off, log_len;
	uint32_t block_size, sector;
	uint64_t n_blocks, chunk_ratio, n_entries; /* of the BAT */
	bool fixed;
	struct guid disk_id;
	struct guid parent_link, parent_link2;
	char *parent_name; /* as the image has it, for check */
	uint64_t replayed; /* log entries that were waiting */
	uint64_t size_at;  /* where in the file the disk's size stands */
	uint64_t used_end; /* check: of the last block, MiB */
	bool fixing;       /* tables were repaired: the log may be in use */

	struct blockmap m; /* of BAT and sector bitmap blocks */
	uint64_t end;      /* of the file, whole MiB: new blocks go there */

	/* log; flush_lock */
	uint64_t log_at; /* where the next entry goes, relative */
	uint64_t log_sequence;
	struct guid log_id; /* of our entries */
	uint64_t
		log_file_len; /* the image's file has at least this length, on the disk */
	uint64_t replay_file_len; /* a replayed log wants the file to be this long */
	bool in_place; /* the last entry's pages may not be on the disk yet */
};

extern const struct guid vhdx_bat_id, vhdx_meta_id, vhdx_locator_type;
enum vhdx_item_id {
	ITEM_PARAMS,
	ITEM_SIZE,
	ITEM_DISK_ID,
	ITEM_SECTOR,
	ITEM_PHYSICAL,
	ITEM_PARENT,
	N_ITEMS
};
extern const struct guid vhdx_item_ids[N_ITEMS];

/* ---- vhdx.c ---- */

/* Where in the BAT the entry of a block or of a chunk's bitmap stands. */
static inline uint64_t vhdx_block_index(const struct vhdx *v, uint64_t block)
{
	return block + block / v->chunk_ratio;
}

static inline uint64_t vhdx_bitmap_index(const struct vhdx *v, uint64_t block)
{
	return (block / v->chunk_ratio + 1) * (v->chunk_ratio + 1) - 1;
}

/* As many entries as a BAT for so many blocks has. */
uint64_t vhdx_bat_entries(const struct vhdx *v, uint64_t n_blocks);
/* lock held */
int vhdx_entry(struct vhdx *v, uint64_t index, uint64_t *e);
int vhdx_entry_set(struct vhdx *v, uint64_t index, uint64_t e);
/* Where in the file the bit of a sector stands: its byte. `first`: of the block in its chunk. lock held. */
int vhdx_bits_off(struct vhdx *v, uint64_t block, uint64_t *off);
int vhdx_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e);

/* ---- vhdx_head.c: headers, regions, metadata ---- */

int vhdx_headers_read(struct vhdx *v, struct err *err);
/* Writes the header with the next sequence number to the other place, twice, so that both are current. */
int vhdx_header_update(struct vhdx *v);
int vhdx_regions_read(struct vhdx *v, struct err *err);
/* Writes both copies, with the places of BAT and metadata as they are now. */
int vhdx_regions_write(struct vhdx *v);
int vhdx_metadata_read(struct vhdx *v, struct err *err);
uint32_t vhdx_checksum(void *p, size_t len, size_t field);

/* ---- vhdx_parent.c ---- */

/* `raw`: the parent locator item. */
int vhdx_parent_take(struct vhdx *v, const uint8_t *raw, uint32_t len, struct err *err);
int vhdx_check_backing(struct img *img, struct err *err);

/* ---- vhdx_log.c ---- */

/* Brings what the log has into v->m.pages; v->replayed says how many entries there were. */
int vhdx_log_read(struct vhdx *v, struct err *err);
/* Is all that it has in tables? Then reading works without writing it to the file. */
int vhdx_log_check_places(struct vhdx *v, struct err *err);
/* Writes these pages (at most as many as fit) as one entry and to the disk. flush_lock held. */
int vhdx_log_write(struct vhdx *v, const struct meta_list *l, size_t first, size_t n);
/* As many pages as one entry takes. */
size_t vhdx_log_room(const struct vhdx *v);

/* ---- vhdx_write.c ---- */

/* Brings a replayed log to the disk and empties it. While the image is opened. */
int vhdx_replay(struct vhdx *v, struct err *err);
int vhdx_blocks_check(struct vhdx *v, struct err *err);
int vhdx_begin_write(struct img *img);
int vhdx_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
int vhdx_link(struct img *img, uint64_t off, const struct img_place *p);
void vhdx_unalloc(struct img *img, const struct img_place *p);
int vhdx_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done);
int vhdx_flush(struct img *img);
int vhdx_write_all(struct vhdx *v, bool durable);
/* Everything is written: the log is empty. */
int vhdx_finish(struct vhdx *v);

/* ---- vhdx_check.c, vhdx_resize.c ---- */

int vhdx_check(struct img *img, struct img_check *c, struct err *err);
/* Leaves no room between blocks, and nothing behind the last one. */
int vhdx_compact(struct vhdx *v);
int vhdx_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
		struct err *err);

/* ---- vhdx_create.c ---- */

extern const struct img_option_desc vhdx_options[];
int vhdx_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		 struct img_measure *m, struct err *err);
int vhdx_create(struct img_target *t, const struct img_create_opts *opts,
		struct err *err);

#endif

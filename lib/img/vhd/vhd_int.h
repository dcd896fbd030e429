/*
 * img/vhd/vhd_int.h - what the files of the VHD format share (Microsoft Virtual Hard Disk Image Format
 * Specification, version 1.0). All numbers big-endian.
 *
 * Fixed: the disk, then a footer of 512 bytes. Dynamic and differencing: a copy of the footer, a header, a
 * table (BAT) with the sector at which each block begins, the blocks, the footer. A block begins with a bit
 * per sector: set, the sector is in this file; clear, it is the parent's, or zeros.
 *
 * Order on disk: a new block's bits and data before the table's entry; data before the bits set
 * later. The footer is written behind a new block before the block overwrites the old one; the
 * copy at the start serves when neither is whole.
 *
 * Locks: flush_lock, then lock, which guards all that changes in struct vhd.
 */
#ifndef IMG_VHD_INT_H
#define IMG_VHD_INT_H

#include <assert.h>

#include "base/bytes.h"
#include "img/img_int.h"
#include "img/blockmap.h"
#include "base/guid.h"

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFF = 4 };

struct vhd_footer {
	char cookie[8]; /* "conectix" */
	be32 features, version;
	be64 header_off;
	be32 time; /* seconds since 2000-01-01 */
	char creator[4];
	be32 creator_version;
	char creator_os[4];
	be64 original_size, size;
	be16 cylinders;
	uint8_t heads, sectors;
	be32 type, checksum;
	struct guid id; /* big-endian fields */
	uint8_t saved_state, reserved[427];
};
static_assert(sizeof(struct vhd_footer) == 512, "as the specification has it");
/* Virtual PC before 2004 wrote one byte less. */
enum { VHD_OLD_FOOTER = 511 };

struct vhd_locator {
	char code[4];
	be32 space, len, reserved; /* len: bytes */
	be64 off;
};

enum { VHD_LOCATORS = 8 };

struct vhd_header {
	char cookie[8]; /* "cxsparse" */
	be64 data_off, bat_off;
	be32 version, n_blocks, block_size, checksum;
	struct guid parent_id;
	be32 parent_time, reserved;
	uint8_t parent_name[512]; /* UTF-16, big-endian */
	struct vhd_locator locators[VHD_LOCATORS];
	uint8_t reserved2[256];
};
static_assert(sizeof(struct vhd_header) == 1024, "as the specification has it");

#define VHD_FREE 0xffffffffu

#define VHD_MIN_BLOCK  4096u
#define VHD_MAX_BLOCK  (256u << 20)
#define VHD_MAX_BLOCKS (128u << 20)
/* Seconds from 1970 to 2000. */
#define VHD_EPOCH      946684800u

/* A geometry of this many sectors says nothing about the disk's size. */
#define VHD_CHS_MAX (65535ull * 16 * 255)

enum { VHD_SPARES = 16 };

struct vhd {
	struct img *img;       /* borrowed */
	struct img_file *file; /* borrowed */
	struct vhd_footer footer;
	struct vhd_header header;
	uint32_t type, n_blocks, block_size,
		bits_len; /* bits_len: bytes, whole sectors */
	uint64_t bat_off;
	uint64_t
		data_end; /* of the blocks: what lies behind it is the footer or nothing */
	bool from_copy; /* the footer at the end is not valid */
	uint32_t footer_len;

	struct blockmap m;          /* of 512 bytes: of the table and of blocks' bits */
	uint64_t spare[VHD_SPARES]; /* places of writes that failed */
	unsigned n_spare;
};

/* ---- vhd.c ---- */

uint32_t vhd_checksum(const void *p, size_t len, size_t field);
/* Is it a footer with the right checksum? len 511 or 512. */
bool vhd_footer_valid(const struct vhd_footer *f);
/* Looks for the footer: at the end, its old form, the copy at the start. */
int vhd_footer_find(struct vhd *v, struct err *err);
/* Checks the dynamic header that v->footer points to and takes what is in it. */
int vhd_header_take(struct vhd *v, struct err *err);
/* The disk's size in bytes, by the rules of the program that made the image. */
uint64_t vhd_size(const struct vhd_footer *f);
/* The sector at which a block begins; lock held. */
int vhd_entry(struct vhd *v, uint64_t block, uint32_t *sector);
int vhd_entry_set(struct vhd *v, uint64_t block, uint32_t sector);
/* Bytes of the disk that block `block` holds. */
uint64_t vhd_block_len(const struct vhd *v, uint64_t block);
int vhd_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e);

/* ---- parent.c ---- */

/* Sets the backing names of a differencing image. */
int vhd_parent_find(struct vhd *v, struct err *err);
int vhd_check_backing(struct img *img, struct err *err);

/* ---- vhd_write.c ---- */

/* Do the blocks lie apart from each other and from the tables? */
int vhd_blocks_check(struct vhd *v, struct err *err);
int vhd_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
int vhd_link(struct img *img, uint64_t off, const struct img_place *p);
void vhd_unalloc(struct img *img, const struct img_place *p);
int vhd_begin_write(struct img *img);
int vhd_flush(struct img *img);
int vhd_write_all(struct vhd *v, bool durable);

/* ---- vhd_check.c ---- */

int vhd_check(struct img *img, struct img_check *c, struct err *err);
int vhd_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err);

/* ---- vhd_create.c ---- */

extern const struct img_option_desc vhd_options[];
int vhd_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err);
int vhd_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err);
void vhd_geometry(uint64_t size, struct vhd_footer *f);
/* Sets the checksums. */
void vhd_footer_seal(struct vhd_footer *f);
void vhd_header_seal(struct vhd_header *h);

#endif

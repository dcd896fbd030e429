/*
 * img/vdi/vdi_int.h - what the files of the VDI format (VirtualBox) share.
 *
 * A header of 512 bytes, a map with a number per block, the blocks. Everything little-endian. Order
 * on disk: the header's count of blocks and the blocks' data before the map that names
 * them, so a crash leaves blocks that nobody names, never one named twice or without its data.
 *
 * Locks: flush_lock, then lock, which guards all that changes in struct vdi.
 */
#ifndef IMG_VDI_INT_H
#define IMG_VDI_INT_H

#include <assert.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "img/img_int.h"
#include "img/blockmap.h"
#include "base/guid.h"

#define VDI_MAGIC 0xbeda107f

enum {
	VDI_DYNAMIC = 1,
	VDI_FIXED = 2,
	VDI_UNDO = 3,
	VDI_DIFF = 4,
};

/* Map entries that are no block numbers. */
#define VDI_ZERO 0xfffffffeu
#define VDI_FREE 0xffffffffu

struct vdi_geometry {
	le32 cylinders, heads, sectors, sector_size;
};

/* Version 1.1; in 1.0 the header ends before `geometry`, and header_len says so. */
struct vdi_header {
	char text[64];
	le32 magic, version;
	le32 header_len; /* from here on */
	le32 type, flags;
	char comment[256];
	le32 map_off, data_off;
	struct vdi_geometry legacy;
	le32 unused;
	le64 size;
	le32 block_size, block_extra, n_blocks, n_used;
	struct guid create, modify, parent, parent_modify;
	struct vdi_geometry geometry;
	uint8_t rest[40];
};
static_assert(sizeof(struct vdi_header) == 512, "a sector");
enum { VDI_HEADER_AT = 72, VDI_LEN_1_0 = 384, VDI_LEN_1_1 = 400 };

/* Version 0.x: no lengths, the map follows the header and the blocks the map. */
struct vdi_header0 {
	char text[64];
	le32 magic, version, type, flags;
	char comment[256];
	struct vdi_geometry legacy;
	le64 size;
	le32 block_size, n_blocks, n_used;
	struct guid create, modify, parent;
};
static_assert(sizeof(struct vdi_header0) == 420, "as VirtualBox had it");

struct vdi {
	struct img *img;       /* borrowed */
	struct img_file *file; /* borrowed */
	struct vdi_header h;   /* version 0 brought into the form of 1.1 */
	bool old;              /* version 0 */
	uint32_t type, n_blocks, block_size;
	uint64_t stride, extra; /* in the file: bytes per block, and before its data */
	uint64_t map_off, data_off;
	uint64_t room; /* blocks that the file has space for */

	struct blockmap m;
	uint8_t *used;     /* writable: a bit per place for a block in the file */
	uint64_t used_len; /* bytes of it */
	uint64_t next;     /* no place from here on is used */
	uint64_t scan;     /* no place below it is free */
	uint32_t count_on_disk;
};

/* Bounds: the map of a disk of 128 TiB. */
#define VDI_MAX_BLOCKS (128u << 20)
#define VDI_MIN_BLOCK  4096u
#define VDI_MAX_BLOCK  (256u << 20)

/* Checks a header (512 bytes of the file) and takes what is in it. */
int vdi_header_take(struct vdi *v, const void *head, struct err *err);

/* Places from here on are damage: nobody leaves so much room. Bounds the memory for them. */
static inline uint64_t vdi_place_limit(const struct vdi *v)
{
	return min_u64(v->room, v->n_blocks * 4ull + 65536);
}

static inline uint64_t vdi_place_off(const struct vdi *v, uint64_t place)
{
	return v->data_off + place * v->stride + v->extra;
}

/* Entry `block` of the map. lock held. */
int vdi_entry(struct vdi *v, uint64_t block, uint32_t *entry);
int vdi_entry_set(struct vdi *v, uint64_t block, uint32_t entry);

/* ---- vdi_write.c ---- */

/* Which places are used; -EIO (or -EINVAL) with a message when the map is not sound. */
int vdi_places(struct vdi *v, struct err *err);
/* Sets or clears the bit of a place. Grows the bitmap: -ENOMEM. */
int vdi_place_use(struct vdi *v, uint64_t place, bool used);
bool vdi_place_used(const struct vdi *v, uint64_t place);
int vdi_begin_write(struct img *img);
int vdi_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
int vdi_link(struct img *img, uint64_t off, const struct img_place *p);
void vdi_unalloc(struct img *img, const struct img_place *p);
int vdi_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done);
int vdi_flush(struct img *img);
int vdi_write_all(struct vdi *v, bool durable);
int vdi_header_write(struct vdi *v);

/* ---- vdi_check.c ---- */

int vdi_check(struct img *img, struct img_check *c, struct err *err);
int vdi_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err);

/* ---- vdi_create.c ---- */

extern const struct img_option_desc vdi_options[];
int vdi_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err);
int vdi_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err);

#endif

/*
 * img/parallels/parallels_int.h - what the files of the Parallels format share.
 *
 * A header of 64 bytes, a table with a number per block, the blocks. Everything little-endian. Order on disk:
 * the mark "in use" before everything, blocks' data before the table that names them.
 *
 * Locks: flush_lock, then lock, which guards all that changes in struct parallels.
 */
#ifndef IMG_PARALLELS_INT_H
#define IMG_PARALLELS_INT_H

#include <assert.h>

#include "base/bytes.h"
#include "img/img_int.h"
#include "img/meta.h"

#define PARALLELS_V1        "WithoutFreeSpace"
#define PARALLELS_V2        "WithouFreSpacExt" /* numbers are of blocks, not sectors */
#define PARALLELS_IN_USE    0x746f6e59u
#define PARALLELS_MAX_BAT   (64u << 20)
#define PARALLELS_MAX_BLOCK (256u << 20)

struct parallels_header {
	char magic[16];
	le32 version, heads, cylinders;
	le32 block; /* sectors */
	le32 n;
	le64 sectors; /* version 1: 32 bits of it */
	le32 in_use;
	le32 data_off; /* sectors; 0: behind the table */
	le32 flags;
	le64 ext_off; /* sectors: what was added later, bitmaps */
};
static_assert(sizeof(struct parallels_header) == 64, "as OpenVZ has it");

struct parallels {
	struct img *img;       /* borrowed */
	struct img_file *file; /* borrowed */
	struct parallels_header h;
	uint64_t block;  /* bytes */
	uint64_t factor; /* bytes that the table's numbers count */
	uint64_t data_off, file_len;
	uint64_t next; /* where new blocks go */
	uint32_t n;
	bool unclean; /* was in use when it was opened */
	bool began;   /* we have marked it */
	pthread_mutex_t flush_lock, lock;
	struct meta_pages pages;
};

/* Entry i of the table, as an offset in the file, 0: none. lock held. */
int parallels_entry(struct parallels *p, uint64_t i, uint64_t *off);
int parallels_entry_set(struct parallels *p, uint64_t i, uint64_t off);
int parallels_write_all(struct parallels *p, bool durable);
/* Writes the mark, or takes it away; the latter when everything is on the disk. */
int parallels_mark(struct parallels *p, bool in_use);

int parallels_check(struct img *img, struct img_check *c, struct err *err);

extern const struct img_option_desc parallels_options[];
int parallels_create(struct img_target *t, const struct img_create_opts *opts,
		     struct err *err);

#endif

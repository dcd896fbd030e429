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

/* One file. An image is one, or several (img/parallels/disk.c). */
struct parallels {
	struct img_file *file; /* borrowed */
	const char *path;      /* borrowed: for messages */
	bool repair;           /* opened to be repaired */
	uint64_t size;         /* bytes of the disk */
	uint32_t unit;         /* what is allocated */
	struct parallels_header h;
	uint64_t block;  /* bytes */
	uint64_t factor; /* bytes that the table's numbers count */
	uint64_t data_off, file_len;
	uint64_t next; /* where new blocks go */
	uint32_t n;
	bool unclean;    /* was in use when it was opened */
	uint32_t closed; /* the mark when it is not in use: some writers have one */
	bool began;      /* we have marked it */
	pthread_mutex_t flush_lock, lock;
	struct meta_pages pages;
};

/* Entry i of the table, as an offset in the file, 0: none. lock held. */
int parallels_entry(struct parallels *p, uint64_t i, uint64_t *off);
int parallels_entry_set(struct parallels *p, uint64_t i, uint64_t off);
int parallels_write_all(struct parallels *p, bool durable);
/* Writes the mark, or takes it away; the latter when everything is on the disk. */
int parallels_mark(struct parallels *p, bool in_use);

/* Opens one; `path` is borrowed. NULL: the message is in *err. */
struct parallels *parallels_file_open(struct img_file *file, const char *path,
				      bool writable, bool repair, struct err *err);
/* Writes what is cached, if it was written to and `write`; frees. NULL is fine. */
int parallels_file_close(struct parallels *p, bool write);
/* As the members of struct img_format. */
int parallels_file_begin(struct parallels *p);
int parallels_file_map(struct parallels *p, uint64_t off, uint64_t len,
		       struct img_extent *e);
int parallels_file_alloc(struct parallels *p, uint64_t len, struct img_place *place);
void parallels_file_unalloc(struct parallels *p, const struct img_place *place);
int parallels_file_link(struct parallels *p, uint64_t off,
			const struct img_place *place);
int parallels_file_check(struct parallels *p, struct img_check *c, struct err *err);

bool parallels_is_file(const void *head, size_t len);

extern const struct img_option_desc parallels_options[];
/* Writes an empty file. */
int parallels_file_create(struct img_file *f, const struct img_create_opts *opts,
			  struct err *err);
/* For messages, and the block size asked for. */
uint64_t parallels_block_size(const struct img_create_opts *opts);

/* ---- bundles (img/parallels/descriptor.c) ---- */

/* The name of a bundle's description. */
#define PARALLELS_DESCRIPTOR "DiskDescriptor.xml"
/* The snapshot that is the current state, if the description does not say. */
#define PARALLELS_TOP        "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
#define PARALLELS_CHAIN      64 /* snapshots in a row */

struct descriptor_image {
	char guid[40]; /* lower case, in braces */
	bool plain;
	char *name;
};

/* A part of the disk, in sectors. */
struct descriptor_storage {
	uint64_t start, end;
	struct descriptor_image *image;
	unsigned n_images;
};

struct descriptor {
	uint64_t sectors;
	struct descriptor_storage *storage; /* by their start, one behind the other */
	unsigned n_storages;
	char chain[PARALLELS_CHAIN][40]; /* the current state, and what it stands on */
	unsigned n_chain;
};

/* Takes the text apart. To be freed by descriptor_fini(), also on failure. */
int descriptor_parse(struct descriptor *d, const char *xml, size_t len,
		     struct err *err);
void descriptor_fini(struct descriptor *d);
/* The storage's image of this identifier, or NULL. */
const struct descriptor_image *descriptor_image(const struct descriptor_storage *s,
						const char *guid);

#endif

/*
 * img/vmdk/vmdk_int.h - what the files of the VMDK format (VMware) share.
 *
 * A descriptor (text: alone in a file, or inside the only extent) names extents: flat files, or sparse ones with
 * a directory of tables of grains. Everything little-endian, in sectors of 512 bytes. Order on disk:
 * a grain's data before the table entry that names it; a new table is zeros before it is named,
 * so a crash leaves grains that nobody names, never one without its data.
 *
 * Locks: flush_lock, then lock, which guards all that changes in struct vmdk.
 */
#ifndef IMG_VMDK_INT_H
#define IMG_VMDK_INT_H

#include <assert.h>

#include "base/bytes.h"
#include "img/img_int.h"
#include "img/meta.h"

#define VMDK_SECTOR     512ull
#define VMDK_GD_AT_END  UINT64_MAX
#define VMDK_NO_PARENT  0xffffffffu
#define VMDK_MAX_TEXT   (1u << 20)  /* of a descriptor */
#define VMDK_MAX_GD     (16u << 20) /* entries of a directory */
#define VMDK_MAX_GRAIN  (16u << 20) /* bytes */
#define VMDK_MAX_EXTENT (INT64_MAX / 1024)

enum {
	VMDK_FLAG_NEWLINES = 1,
	VMDK_FLAG_REDUNDANT = 2,
	VMDK_FLAG_ZERO_GRAIN = 4,
	VMDK_FLAG_COMPRESSED = 1 << 16,
	VMDK_FLAG_MARKERS = 1 << 17,
};

/* A sparse extent's header ("hosted sparse extent"). */
struct vmdk_header {
	char magic[4]; /* "KDMV" */
	le32 version, flags;
	le64 capacity, grain, desc_off, desc_len;
	le32 gtes;
	le64 rgd_off, gd_off, overhead;
	uint8_t unclean;
	char newlines[4]; /* "\n \r\n": shows transfers as text */
	le16 codec;       /* 1: deflate */
	uint8_t rest[433];
};
static_assert(sizeof(struct vmdk_header) == 512, "a sector");

/* ESX's copy-on-write extent ("COWD", vmfsSparse). */
struct cowd_header {
	char magic[4];
	le32 version, flags, capacity, grain, gd_off, n_gd, free;
	uint8_t rest[480];
};
static_assert(sizeof(struct cowd_header) == 512, "a sector");
enum { COWD_GTES = 4096 };

/* ESX's space-efficient sparse extent. */
struct sesparse_header {
	le64 magic, version, capacity, grain, table, flags, unused[4];
	le64 volatile_off, volatile_len, journal_head_off, journal_head_len;
	le64 journal_off, journal_len, gd_off, gd_len, tables_off, tables_len;
	le64 bitmap_off, bitmap_len, backmap_off, backmap_len, grains_off, grains_len;
	uint8_t rest[304];
};
static_assert(sizeof(struct sesparse_header) == 512, "a sector");
struct sesparse_volatile {
	le64 magic, free_table, next_seq, replay;
	uint8_t rest[480];
};
static_assert(sizeof(struct sesparse_volatile) == 512, "a sector");

/* In front of a compressed grain: its first sector and its packed length; else (len 0) a marker. */
struct vmdk_marker {
	le64 val;
	le32 len, type; /* type is the first of the data of a grain */
	uint8_t rest[496];
};
static_assert(sizeof(struct vmdk_marker) == 512, "a sector");
enum { VMDK_GRAIN_HEAD = 12 };
enum { VMDK_MARK_END, VMDK_MARK_TABLE, VMDK_MARK_GD, VMDK_MARK_FOOTER };

/* ---- descriptors (vmdk_text.c) ---- */

enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };

struct vmdk_line {
	enum vmdk_access access;
	uint64_t sectors, off; /* off: in its file */
	char type[16];
	char *name; /* owned; NULL: has none */
};

struct vmdk_desc {
	char *text; /* owned; 0-terminated */
	size_t len;
	uint32_t cid, parent_cid;
	size_t cid_at, cid_len; /* where its digits are; len 0: has none */
	char create_type[32];
	char *parent; /* owned; NULL: none named */
	struct vmdk_line *line;
	size_t n;
};

/* Takes `text` over (new memory of len + 1 bytes). */
int vmdk_desc_parse(struct vmdk_desc *d, char *text, size_t len, const char *path,
		    struct err *err);
void vmdk_desc_fini(struct vmdk_desc *d);

struct vmdk_made {
	const char *create_type, *parent, *adapter, *hw_version, *tools_version;
	uint32_t cid, parent_cid;
	uint64_t size;
	const char *lines; /* of the extents, each with its newline */
};

/* The text of a new descriptor; NULL: no memory. The caller's to free(). */
char *vmdk_desc_make(const struct vmdk_made *m);

/* ---- extents ---- */

enum vmdk_kind { VMDK_FLAT, VMDK_HOLE, VMDK_SPARSE, VMDK_COWD, VMDK_SESPARSE };

struct vmdk_extent {
	enum vmdk_kind kind;
	enum vmdk_access access;
	struct img_file *file; /* borrowed; NULL: VMDK_HOLE */
	uint64_t start, size;  /* on the disk, bytes */
	uint64_t flat_off;     /* flat: bytes */
	/* sparse */
	uint64_t capacity; /* bytes */
	uint32_t grain;    /* bytes */
	uint32_t gtes;     /* entries of a table */
	uint32_t n_gd;
	uint64_t gd_off, rgd_off;        /* bytes; rgd_off 0: has none */
	uint32_t *gd, *rgd;              /* sectors of tables, 0: none; owned */
	uint64_t tables_off, grains_off; /* SEsparse: bytes */
	bool compressed, markers, zero_grains;
	uint64_t file_len;     /* bytes */
	uint64_t next;         /* where new things go, bytes */
	uint64_t free_on_disk; /* COWD: sectors, what its header says */
	struct meta_pages pages;
	bool has_pages;
};

struct vmdk {
	struct img *img; /* borrowed */
	struct vmdk_desc desc;
	uint64_t desc_off, desc_room; /* in img->file, bytes; room 0: no descriptor */
	bool text;                    /* it is the whole file */
	bool changed_parent;
	struct vmdk_extent *ext;
	size_t n;
	struct vmdk_stream *stream; /* being written in one pass */
	pthread_mutex_t flush_lock, lock;
};

/* Opens the tables of a sparse extent, whose file and kind are set. */
int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, struct err *err);
void vmdk_sparse_close(struct vmdk_extent *x);
/* What the grain's entry says; *at: where in the file it stands, 0: there is no table. lock held. */
int vmdk_entry(struct vmdk_extent *x, uint64_t grain, uint64_t *entry, uint64_t *at);
/* What [in, ...) of the extent is, for at most len bytes. lock held. */
int vmdk_sparse_map(struct vmdk_extent *x, uint64_t in, uint64_t len,
		    struct img_extent *e);
struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t off);

/* ---- vmdk_write.c ---- */

int vmdk_begin_write(struct img *img);
int vmdk_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
int vmdk_link(struct img *img, uint64_t off, const struct img_place *p);
void vmdk_unalloc(struct img *img, const struct img_place *p);
int vmdk_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done);
int vmdk_flush(struct img *img);
int vmdk_write_all(struct vmdk *v, bool durable);
/* Can it be written: is each extent's place right, and each table sound? */
int vmdk_check_writable(struct vmdk *v, struct err *err);

/* ---- vmdk_check.c ---- */

int vmdk_check(struct img *img, struct img_check *c, struct err *err);

/* ---- vmdk_create.c, vmdk_stream.c ---- */

extern const struct img_option_desc vmdk_options[];
int vmdk_create(struct img_target *t, const struct img_create_opts *opts,
		struct err *err);
/* Fills what the descriptor says about the image as a whole; *parent_cid from its parent. */
int vmdk_made_fill(struct vmdk_made *m, const struct img_target *t,
		   const struct img_create_opts *opts, struct err *err);
/* The last part of the target's path; -EINVAL when it cannot stand in a descriptor. */
int vmdk_target_name(const struct img_target *t, const char **name, struct err *err);

int vmdk_stream_begin(struct img *img, const struct img_create_opts *opts,
		      const struct img_plan *plan, struct err *err);
int vmdk_stream_create(struct img_target *t, const struct img_create_opts *opts,
		       struct err *err);
const struct codec_block *vmdk_packer(struct img *img, uint32_t *unit, uint32_t *room,
				      int *level);
int vmdk_write_packed(struct img *img, uint64_t off, const void *data, size_t len);
int vmdk_stream_close(struct vmdk *v);

#endif

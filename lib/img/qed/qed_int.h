/*
 * img/qed/qed_int.h - what the files of the QED format share (docs/interop/qed_spec of QEMU).
 *
 * A header, a table of tables (L1), tables (L2) of where clusters are; all offsets are bytes, little-endian. New clusters and
 * tables are put behind everything that is in use. Order on disk: the mark that the image needs a check, before anything
 * is changed; a new cluster's data and a new table's zeros before the entry that names them; and the mark goes
 * when all the rest is there. So a crash leaves clusters that nothing refers to, never one that is used twice or without its data.
 *
 * Locks: those of struct blockmap; its lock guards all that changes in struct qed.
 */
#ifndef IMG_QED_INT_H
#define IMG_QED_INT_H

#include <assert.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "img/blockmap.h"
#include "img/img_int.h"

struct qed_header {
	char magic[4];               /* "QED", 0 */
	le32 cluster, table, header; /* bytes; clusters; clusters */
	le64 features, compat, autoclear, l1_off, size;
	le32 backing_off, backing_len;
};
static_assert(sizeof(struct qed_header) == 64, "as specified");

enum { QED_BACKING = 1, QED_NEED_CHECK = 2, QED_RAW_BACKING = 4, QED_KNOWN = 7 };

#define QED_MIN_CLUSTER 4096u
#define QED_MAX_CLUSTER (64u << 20)
#define QED_MAX_TABLE   16u /* clusters */
#define QED_MAX_NAME    1023u
/* An entry of a table for a cluster that reads as zeros and is nowhere. */
#define QED_ZERO        1u

struct qed {
	struct img *img;       /* borrowed */
	struct img_file *file; /* borrowed */
	struct qed_header h;   /* as on the disk */
	uint32_t cluster;      /* bytes */
	uint64_t table_len;    /* bytes of a table */
	uint64_t entries;      /* of a table */
	uint64_t first;        /* clusters before this offset are the header's */
	uint64_t limit;        /* what begins here or later is not in the file */
	uint64_t next;         /* writable: nothing from here on is in use */
	struct qed_run {
		uint64_t off, len;
	} free[64]; /* below `next`: places that were given back, bytes */
	unsigned n_free;
	struct blockmap m;
};

/* The largest disk that tables of `entries` entries hold. */
uint64_t qed_most(uint64_t entries, uint32_t cluster);
/* May `n` bytes at `off`, a table or a cluster, be there? */
bool qed_place_ok(const struct qed *q, uint64_t off, uint64_t n);
/* Entry of the cluster that `cluster` is the number of; 0 without a table. lock held. */
int qed_entry(struct qed *q, uint64_t cluster, uint64_t *entry);
/* Writes the header's first sector. */
int qed_header_write(struct qed *q);

/* ---- write.c ---- */

int qed_begin_write(struct img *img);
int qed_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
int qed_link(struct img *img, uint64_t off, const struct img_place *p);
void qed_unalloc(struct img *img, const struct img_place *p);
int qed_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done);
int qed_flush(struct img *img);
/* Everything is on the disk, and the mark is gone. */
int qed_end_write(struct qed *q);
/* Makes the file at least `end` bytes long. lock held, or nobody else there. */
int qed_extend(struct qed *q, uint64_t end);
int qed_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err);
int qed_set_backing(struct img *img, const char *path, const char *format,
		    struct err *err);

/* ---- check.c ---- */

int qed_check(struct img *img, struct img_check *c, struct err *err);
/* Before the first change: finds q->next. What a killed writer left is repaired; other damage is -EIO with a message. */
int qed_survey(struct qed *q, struct err *err);

/* ---- create.c ---- */

extern const struct img_option_desc qed_options[];
int qed_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err);
int qed_create(struct img_target *t, const struct img_create_opts *opts,
	       struct err *err);
/* Fills in the backing file's name, to stand at `at` of the header's cluster; NULL: none. -EINVAL: too long. */
int qed_header_backing(struct qed_header *h, const char *path, const char *format,
		       uint32_t at, struct err *err);

#endif

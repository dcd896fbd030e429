/*
 * img/qcow2/walk.h - all of a qcow2 image's metadata at once: what refers to which cluster (qcow2_walk.c), is it what
 * the reference counts say (qcow2_check.c), and new tables in place of the old ones in a single step
 * (qcow2_remake.c). The image is used by nobody else meanwhile; one thread.
 */
#ifndef IMG_QCOW2_WALK_H
#define IMG_QCOW2_WALK_H

#include "base/str.h"
#include "img/qcow2/qcow2_int.h"

/* What check and repair of one image may need at most, for counts; more is damage. Bytes. */
#define REFS_MAX_BYTES     (256u << 20)
/* The same as QEMU's. */
#define MAX_SNAPSHOT_TABLE (64u << 20)

/* ---- internal snapshots (qcow2_snap.c) ---- */

/* A member of the table of snapshots. */
struct snap {
	uint64_t l1_off, clock, vm_state, disk_size, icount;
	uint32_t l1_n, date_sec, date_nsec;
	uint32_t known; /* bytes of extra data that are members here: 0, 8, 16, 24 */
	uint32_t more_len;
	uint8_t *more; /* extra data behind them; owned */
	char *id, *name;
};

struct snaps {
	struct snap *v;
	size_t n;
	uint64_t bytes; /* of the table in the file */
};

/* Reads the table. -EINVAL with a message: it is damaged. */
int snaps_load(const struct qcow2 *q, struct snaps *s, struct err *err);
void snaps_fini(struct snaps *s);
/* The table as it stands in the file. */
void snaps_build(const struct snaps *s, struct str *out);

extern const struct img_snapshot_ops qcow2_snapshot_ops;

/* ---- persistent bitmaps (qcow2_bitmap.c) ---- */

enum { BITMAP_IN_USE = 1, BITMAP_AUTO = 2, BITMAP_EXTRA_OK = 4 };

struct bitmap {
	uint64_t table_off;
	uint32_t table_n, flags;
	uint8_t type, granularity_bits;
	uint32_t extra_len;
	uint8_t *extra; /* owned */
	char *name;
};

struct bitmaps {
	struct bitmap *v;
	size_t n;
};

int bitmaps_load(const struct qcow2 *q, struct bitmaps *b, struct err *err);
void bitmaps_fini(struct bitmaps *b);
void bitmaps_build(const struct bitmaps *b, struct str *out);
/* Bitmaps that follow what guests write are not valid from here on: says so in the file. lock held. */
int bitmaps_in_use(struct qcow2 *q);
/* The bitmaps, if the image may get another size with them: bitmaps_fini(). */
int bitmaps_resizable(const struct qcow2 *q, struct bitmaps *b, struct err *err);
struct remake;
/* Those of a disk of `old` bytes become those of one of `new` bytes; what is new is not dirty. */
int bitmaps_resize(struct remake *r, struct bitmaps *b, uint64_t old, uint64_t new);
int qcow2_bitmaps_copy(struct img *img, struct img *from,
		       const struct img_bitmap_copy *how, struct err *err);
int qcow2_bitmap(struct img *img, enum img_bitmap_action action, const char *name,
		 uint64_t granularity, struct img *from, const char *source,
		 struct err *err);

/* ---- references (qcow2_walk.c) ---- */

/* A count per cluster; memory is taken where there are any. */
struct refs {
	uint8_t **chunk;
	uint64_t n;     /* clusters */
	unsigned shift; /* log2 of a count's bytes */
	uint32_t max;   /* the largest count */
	size_t bytes;
};

uint32_t refs_get(const struct refs *r, uint64_t c);
void refs_set(struct refs *r, uint64_t c,
	      uint32_t v); /* of a cluster that was counted */

/* An L2 table, and how many L1 entries refer to it: all, and those of the active L1 table. */
struct l2_ref {
	uint64_t off;
	uint32_t all, active;
};

struct walk {
	struct qcow2 *q;
	struct img_check *c; /* findings are counted here */
	uint64_t file_len;
	uint64_t n; /* clusters that are looked at: those of the file */
	struct refs refs;
	struct l2_ref *l2;
	size_t n_l2, size_l2, merge_at;
	uint64_t l1_bytes; /* of snapshots' L1 tables so far */
	uint8_t *buf;      /* WALK_WINDOW bytes of tables */
	uint64_t
		beyond; /* clusters up to here are referred to, though the file ends before */
	unsigned said;
	bool fix; /* what walk_right_entry() will drop is not counted */
};

int walk_init(struct walk *w, struct qcow2 *q, struct img_check *c);
void walk_fini(struct walk *w);
void walk_say(struct walk *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* `times` references to [off, off + len). */
int walk_add(struct walk *w, uint64_t off, uint64_t len, uint32_t times);
/* What the entries of an L1 table refer to. */
int walk_l1(struct walk *w, const be64 *l1, uint64_t n, uint32_t all, uint32_t active);
/* Header, snapshots, LUKS header and bitmaps: all but the active L1 table and the reference counts. */
int walk_others(struct walk *w, const struct snaps *s, uint64_t table_off);
/* The L2 tables that were found, and what their entries refer to. */
int walk_l2(struct walk *w);

/* An entry of an active L2 table as it should be: the flag fits the count, and what is damaged beyond use (fix)
 * reads as zeros. */
struct l2e walk_right_entry(const struct walk *w, struct l2e v, bool fix);

/* ---- check (qcow2_check.c) ---- */

/*
 * Counts all references and compares. `w` is filled and the caller's to walk_fini(). `busy`, if not NULL, gets a bit
 * for each cluster of w->n that is counted or referred to.
 */
int check_walk(struct walk *w, struct qcow2 *q, struct img_check *c, uint64_t **busy,
	       struct err *err);
int qcow2_check(struct img *img, struct img_check *c, struct err *err);

/* ---- the first cluster (qcow2_head.c) ---- */

struct head_ext {
	uint32_t type, len;
	uint8_t *data; /* owned */
};

struct head {
	struct qcow2_header *h; /* `raw` */
	struct str raw;         /* the header, all of its header_len bytes */
	struct head_ext *ext;
	size_t n_ext;
	char *backing; /* NULL: none */
	uint64_t used; /* bytes of the cluster that stand on the disk */
};

int head_load(struct qcow2 *q, struct head *h, struct err *err);
void head_fini(struct head *h);
/* len 0 and data NULL: takes it away. */
int head_set_ext(struct head *h, uint32_t type, const void *data, uint32_t len);
/* Version 3 from 2: makes room for the further members. */
int head_upgrade(struct head *h);
void head_downgrade(struct head *h);
/* Writes and syncs; everything before is on the disk first. */
int head_write(struct qcow2 *q, struct head *h, struct err *err);

/* ---- new tables (qcow2_remake.c) ---- */

struct remake {
	struct qcow2 *q;
	struct walk w;
	struct img_check c;
	uint64_t *busy;  /* a bit per cluster: used before, or taken now */
	uint64_t n_busy; /* bits */
	uint64_t n_old;  /* clusters when it began */
	uint64_t beyond; /* as in struct walk */
	uint64_t cursor;
	/* the new state; what is not changed stays as it is */
	struct head head;
	be64 *l1;
	uint64_t l1_n;
	struct snaps snaps;
	bool snaps_changed;
	uint64_t
		twin_off; /* a snapshot's L1 table that is to be as the active one; 0: none */
	struct str bm_dir; /* directory of bitmaps */
	uint64_t bm_n;
	bool bm_changed;
	uint32_t rc_order;
	bool fix;  /* entries beyond use may be dropped */
	bool keep; /* what is not used any more stays on the disk */
};

/* Looks at what there is: -EIO with a message if it is damaged and not `fix`. Nothing is cached any more. */
int remake_begin(struct remake *r, struct qcow2 *q, bool fix, struct err *err);
/* `n` free clusters in a row. */
int remake_alloc(struct remake *r, uint64_t n, uint64_t *first);
/* New clusters with `len` bytes, and zeros up to their end. */
int remake_put(struct remake *r, const void *data, uint64_t len, uint64_t *off);
/* Everything is as the members say from here on, or -errno and as it was. Ends it in any case. */
int remake_commit(struct remake *r, struct err *err);
void remake_abort(struct remake *r);

/* ---- settings (qcow2_change.c) ---- */

int qcow2_begin_write(struct img *img); /* qcow2.c */

int qcow2_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
		 struct err *err);
int qcow2_amend(struct img *img, const struct img_option *o, unsigned n,
		struct err *err);
int qcow2_set_backing(struct img *img, const char *path, const char *format,
		      struct err *err);
int qcow2_make_empty(struct img *img, struct err *err);
/* Gives unallocated places in [from, to) theirs. */
int qcow2_preallocate(struct img *img, uint64_t from, uint64_t to,
		      enum img_prealloc how);

/* ---- counts as they lie in the file ---- */

static inline uint64_t count_at(const uint8_t *block, uint64_t i, unsigned order)
{
	const uint8_t *p = block + ((i << order) >> 3);
	unsigned bits = 1u << order;

	switch (order) {
	case 3: return *p;
	case 4: return __builtin_bswap16(load_u16(p));
	case 5: return __builtin_bswap32(load_u32(p));
	case 6: return be64_at(p);
	default: return (*p >> ((i << order) & 7)) & ((1u << bits) - 1);
	}
}

static inline void count_put(uint8_t *block, uint64_t i, unsigned order, uint64_t v)
{
	uint8_t *p = block + ((i << order) >> 3);
	unsigned bits = 1u << order, at = (unsigned)(i << order) & 7;

	if (order < 3) {
		*p = (uint8_t)((*p & ~(((1u << bits) - 1) << at)) | v << at);
		return;
	}
	v = __builtin_bswap64(v) >> (64 - bits);
	memcpy(p, &v, bits / 8);
}

#endif

/*
 * img/qcow2/qcow2_int.h - what the files of the qcow2 format share. Specification: docs/interop/qcow2.txt of QEMU,
 * versions 2 and 3.
 *
 * Order of metadata on disk (qcow2_meta.c): a cluster's reference count before whatever refers to it, tables
 * before what points to them, and a reference count goes down only when nothing on the disk
 * refers to the cluster any more. So a crash leaves clusters that nobody uses, never one used twice.
 *
 * Locks: flush_lock, then lock. `lock` guards all of struct qcow2 and the cache's slices.
 */
#ifndef IMG_QCOW2_INT_H
#define IMG_QCOW2_INT_H

#include <assert.h>

#include "base/bytes.h"
#include "img/img_int.h"
#include "img/luks/box.h"

#define QCOW2_MAGIC 0x514649fb /* "QFI\xfb" */

struct qcow2_header {
	be32 magic, version;
	be64 backing_off;
	be32 backing_len, cluster_bits;
	be64 size;
	be32 crypt_method, l1_size;
	be64 l1_off, rt_off;
	be32 rt_clusters, n_snapshots;
	be64 snapshots_off;
	/* version 3 */
	be64 incompatible, compatible, autoclear;
	be32 refcount_order, header_len;
	uint8_t compression, padding[7];
};
static_assert(sizeof(struct qcow2_header) == 112, "as the specification has it");

enum { QCOW2_V2_LEN = 72, QCOW2_V3_LEN = 104 };

/* incompatible */
#define INC_DIRTY       BIT(0)
#define INC_CORRUPT     BIT(1)
#define INC_DATA_FILE   BIT(2)
#define INC_COMPRESSION BIT(3)
#define INC_EXTENDED_L2 BIT(4)
#define INC_KNOWN       0x1full
/* compatible */
#define COM_LAZY        BIT(0)
/* autoclear */
#define AUTO_BITMAPS    BIT(0)
#define AUTO_RAW_DATA   BIT(1)

/* encryption */
enum { CRYPT_NONE, CRYPT_AES, CRYPT_LUKS };

/* header extensions */
enum {
	EXT_END = 0,
	EXT_BACKING_FORMAT = 0xe2792aca,
	EXT_FEATURE_NAMES = 0x6803f857,
	EXT_DATA_FILE = 0x44415441,
	EXT_BITMAPS = 0x23852875,
	EXT_CRYPTO = 0x0537be77,
};

/* L1 and L2 entries */
#define ENTRY_COPIED     BIT(63) /* the reference count is exactly 1 */
#define ENTRY_COMPRESSED BIT(62)
#define ENTRY_ZERO       BIT(0)
#define ENTRY_OFFSET     0x00fffffffffffe00ull

/* Bounds of what is read into memory, the same as QEMU's. */
#define MAX_L1_BYTES (32u << 20)
#define MAX_RT_BYTES (8u << 20)

#define SUBCLUSTERS 32

/* Counted clusters this far behind the end of the file are damage, not tables yet to be written. */
#define QCOW2_MAX_BEYOND (1ull << 20)

/* ---- cached pieces of tables ---- */

enum slice_kind { SLICE_REFCOUNT, SLICE_L2 };

struct slice {
	uint64_t off; /* in the file */
	uint8_t *data;
	uint8_t kind;
	bool dirty;   /* differs from the file */
	bool writing; /* a copy of it is on the way to the file: must stay */
	bool recent;
	struct slice *next; /* in its hash bucket */
	unsigned at;        /* in slices[] */
};

/* A table that is in memory as a whole, big-endian as on disk. */
struct table {
	be64 *e;
	uint64_t n;     /* entries */
	uint64_t off;   /* in the file */
	uint8_t *dirty; /* one per piece of TABLE_PIECE entries */
	bool any_dirty;
};
#define TABLE_PIECE 512

/* Clusters whose references are to go down. */
struct unref {
	uint64_t first, n; /* cluster numbers */
	bool punch;        /* give the space back to the host */
};

struct unref_list {
	struct unref *v;
	size_t n, size;
};

struct qcow2 {
	struct img *img;       /* borrowed */
	struct img_file *file; /* borrowed */
	struct img_file *data; /* `file`, or of img_open_extern(); NULL: not opened */
	bool external;         /* guests' data is in an external data file */
	char *data_name;
	uint32_t version, cluster_bits, cluster_size;
	uint32_t l2_bits;  /* log2 of entries in a table */
	uint32_t l2e_size; /* 8, or 16 with subclusters */
	uint32_t sub_bits; /* log2 of a subcluster's bytes, or cluster_bits */
	uint32_t n_subs;   /* per cluster: 32 or 1 */
	uint32_t slice_size;
	uint32_t rc_order; /* log2 of a reference count's bits */
	uint32_t rb_bits;  /* log2 of reference counts in a block */
	uint64_t incompatible, compatible, autoclear;
	const struct codec_block *codec;
	uint32_t crypt;       /* method of encryption: CRYPT_... */
	struct luks_box luks; /* of CRYPT_LUKS */
	struct crypt *aes;    /* of CRYPT_AES; owned */
	struct crypt *cipher; /* one of them, if the key is known; borrowed */
	uint32_t n_snapshots;
	uint64_t snapshots_off;
	/* directory of persistent bitmaps, if it is valid; LUKS header */
	uint32_t bm_n;
	uint64_t bm_off, bm_bytes, crypto_off, crypto_len;

	pthread_mutex_t flush_lock;
	pthread_mutex_t lock;
	struct table l1, rt; /* rt: the reference count table */
	uint32_t rt_clusters;

	/* cache */
	struct slice **slices;
	unsigned n_slices, n_dirty, clock;
	struct slice **buckets;
	unsigned n_buckets; /* a power of two */

	/* allocation */
	uint64_t scan;   /* no cluster below it is free */
	uint64_t virgin; /* from this cluster on the file was never written */
	uint64_t *own;   /* sorted: clusters of tables, once there was a write */
	size_t n_own, own_size;
	struct unref_list fresh; /* still referred to on disk */
	struct unref_list aging; /* not any more, but perhaps by a request under way */
	uint64_t
		pack_at; /* behind the last compressed cluster that was written; 0: none */
	bool corrupt;
};

/* ---- qcow2_meta.c: the cache and the order of writes ---- */

/* The slice that holds byte `off` of the file; valid until the next call of it. lock held. */
int meta_get(struct qcow2 *q, uint64_t off, enum slice_kind kind, struct slice **out);
void meta_dirty(struct qcow2 *q, struct slice *s);
/* The file's cluster `c` holds no table any more. */
void meta_forget(struct qcow2 *q, uint64_t cluster);
bool meta_pressed(const struct qcow2 *q);
void table_set(struct table *t, uint64_t i, uint64_t v);
/* Writes everything in order. `durable`: and what guests wrote is on the disk afterwards. No lock held. */
int meta_flush(struct qcow2 *q, bool durable);
/* A larger reference count table, for at least `entries`. No lock held. */
int meta_grow_rt(struct qcow2 *q, uint64_t entries);
void meta_fini(struct qcow2 *q);
/* Forgets all slices and what was to be freed; nothing of it may be dirty or in use. */
void meta_drop(struct qcow2 *q);

/* ---- qcow2_ref.c: reference counts; lock held ---- */

int ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *value);
/* -EINVAL: no block counts it. */
int ref_set(struct qcow2 *q, uint64_t cluster, uint64_t value);
/* Up to n free clusters in a row, counted once each from now on. -EAGAIN: meta_grow_rt() first. */
int ref_alloc(struct qcow2 *q, uint64_t n, uint64_t *first, uint64_t *got);
/* One reference less, once that is safe. */
void ref_drop(struct qcow2 *q, uint64_t first, uint64_t n, bool punch);
/* Moves the lists on: `done` are those whose references are off the disk. */
void ref_release(struct qcow2 *q, struct unref_list *done);
void unref_free(struct unref_list *l);
/* Tables of the image itself: never to be handed out or written as data. */
int own_build(struct qcow2 *q);
bool own_meets(const struct qcow2 *q, uint64_t first, uint64_t n);
int own_add(struct qcow2 *q, uint64_t first, uint64_t n);
void own_remove(struct qcow2 *q, uint64_t first, uint64_t n);

/* ---- crypt.c: encryption ---- */

/* What the header says about it, and the key if there is a passphrase. After the extensions were read. */
int qcow2_crypt_open(struct qcow2 *q, struct err *err);
void qcow2_crypt_close(struct qcow2 *q);
/* What the cipher counts sectors by for the disk's byte `off` at file_off. */
uint64_t qcow2_crypt_off(const struct qcow2 *q, uint64_t off, uint64_t file_off);

/* A new image's encryption: what the options say, and the LUKS header's length. */
struct crypt_plan {
	uint32_t method;
	struct luks_box luks;
	uint64_t len; /* bytes of the LUKS header; 0: none */
};
int qcow2_crypt_plan(const struct img_create_opts *o, struct crypt_plan *p,
		     struct err *err);
/* As much of it as measuring wants: no key is made. */
int qcow2_crypt_measure(const struct img_create_opts *o, uint64_t *len,
			struct err *err);
bool qcow2_crypt_wanted(const struct img_create_opts *o);
void qcow2_crypt_details(const struct qcow2 *q, struct details *d);

/* ---- qcow2_map.c: which cluster is where ---- */

int qcow2_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e);

/* ---- qcow2_write.c: changing that ---- */

int qcow2_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p);
int qcow2_link(struct img *img, uint64_t off, const struct img_place *p);
void qcow2_unalloc(struct img *img, const struct img_place *p);
int qcow2_zero(struct img *img, uint64_t off, uint64_t len, bool unmap, uint64_t *done);
int qcow2_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done);

const struct codec_block *qcow2_packer(struct img *img, uint32_t *unit, uint32_t *room,
				       int *level);
int qcow2_write_packed(struct img *img, uint64_t off, const void *data, size_t len);

/* ---- qcow2_create.c ---- */

extern const struct img_option_desc qcow2_options[];

int qcow2_create(struct img_target *t, const struct img_create_opts *opts,
		 struct err *err);

/* ---- qcow2_tell.c ---- */

void qcow2_details(struct img *img, struct details *d);
int qcow2_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		  struct img_measure *m, struct err *err);

/* ---- stream.c: to a pipe ---- */

int qcow2_stream_begin(struct img *img, const struct img_create_opts *opts,
		       const struct img_plan *plan, struct err *err);
/* Between the passes of a packed one: writes the tables. */
int qcow2_stream_second(struct img *img, struct err *err);
const struct codec_block *qcow2_stream_packer(struct img *img, uint32_t *unit,
					      uint32_t *room, int *level);
/* -ESTALE: in the first pass it was something else. */
int qcow2_stream_write(struct img *img, uint64_t off, const void *data, size_t len);
int qcow2_stream_packed(struct img *img, uint64_t off, const void *data, size_t len);
int qcow2_stream_close(struct img *img);

/* ---- entries ---- */

/* One cluster's L2 entry, as numbers. */
struct l2e {
	uint64_t e, bitmap;
};

enum sub_kind { SUB_BACKING, SUB_ZERO, SUB_DATA, SUB_COMPRESSED, SUB_INVALID };

static inline uint64_t be64_at(const uint8_t *p)
{
	return __builtin_bswap64(load_u64(p));
}

static inline struct l2e l2e_read(const struct qcow2 *q, const uint8_t *p)
{
	return (struct l2e){be64_at(p), q->l2e_size == 16 ? be64_at(p + 8) : 0};
}

static inline void l2e_write(const struct qcow2 *q, uint8_t *p, struct l2e v)
{
	be64 e = be64_make(v.e), b = be64_make(v.bitmap);

	memcpy(p, &e, 8);
	if (q->l2e_size == 16)
		memcpy(p + 8, &b, 8);
}

static inline uint64_t l1_index(const struct qcow2 *q, uint64_t off)
{
	return off >> (q->cluster_bits + q->l2_bits);
}

/* Where in its L2 table the entry for `off` stands, bytes. */
static inline uint64_t l2_entry_pos(const struct qcow2 *q, uint64_t off)
{
	return ((off >> q->cluster_bits) & ((1ull << q->l2_bits) - 1)) * q->l2e_size;
}

/* What subcluster `sub` is (0 without subclusters). */
static inline enum sub_kind sub_kind(const struct qcow2 *q, struct l2e v, unsigned sub)
{
	bool host = (v.e & ENTRY_OFFSET) || (q->external && v.e & ENTRY_COPIED);

	if (v.e & ENTRY_COMPRESSED)
		return SUB_COMPRESSED;
	if (q->l2e_size == 16) {
		bool there = v.bitmap & BIT(sub), zero = v.bitmap & BIT(32 + sub);

		if (there && (zero || !host))
			return SUB_INVALID;
		return there ? SUB_DATA : zero ? SUB_ZERO : SUB_BACKING;
	}
	if (v.e & ENTRY_ZERO && q->version >= 3)
		return SUB_ZERO;
	return host ? SUB_DATA : SUB_BACKING;
}

/* The clusters of the file that a compressed cluster's stream touches, and where it is. */
static inline uint64_t compressed_off(const struct qcow2 *q, uint64_t e)
{
	return e & (BIT(62 - (q->cluster_bits - 8)) - 1);
}

static inline uint32_t compressed_len(const struct qcow2 *q, uint64_t e)
{
	unsigned shift = 62 - (q->cluster_bits - 8);
	uint64_t sectors = bits_get(e, shift, 62 - shift) + 1;

	return (uint32_t)(sectors * 512 - (compressed_off(q, e) & 511));
}

#endif

/*
 * guest/btrfs.c - btrfs on one device: what is used, by its extent tree. The layout is that of the "On-disk Format"
 * page of its documentation. All numbers are little-endian.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/fs_int.h"

#include "base/mem.h"

#define SUPER       65536u
#define NODE_HEAD   101u
#define MAX_CHUNKS  (1u << 20)
#define MAX_LEVEL   8
#define FIRST_BYTES (1u << 20) /* kept whole: boot code, superblock */

enum { KEY_EXTENT = 168, KEY_METADATA = 169, KEY_ROOT = 132, KEY_CHUNK = 228 };
enum { TREE_EXTENT = 2 };
/* What a chunk may be: single, or twice on the device. */
enum { CHUNK_KINDS = 7, CHUNK_DUP = 0x20 };
/* Incompatible features under which what is done here is right. */
#define KNOWN_FEATURES                                                                 \
	(0x1ull /* backref */ | 0x2 /* default subvolume */ | 0x4 /* mixed groups */ | \
	 0x8 /* LZO */ | 0x10 /* zstd */ | 0x20 /* big metadata */ |                   \
	 0x40 /* extended iref */ | 0x100 /* skinny */ | 0x200 /* no holes */ |        \
	 0x400 /* metadata uuid */)

static const uint64_t mirrors[] = {SUPER, 64ull << 20, 256ull << 30};

struct key {
	uint64_t id;
	uint8_t type;
	uint64_t offset;
};

struct chunk {
	uint64_t logical, len;
	uint64_t phys[2];
	unsigned copies;
};

struct btrfs {
	uint32_t sector, node;
	uint64_t used, features, root, chunk_root, log_root, devices, devid;
	unsigned root_level, chunk_level;
	struct chunk *chunk; /* owned; sorted */
	size_t n_chunks, size_chunks, last;
	uint64_t visited; /* nodes, against trees that go round */
};

/* ---- chunks ---- */

static int add_chunk(struct fs *fs, uint64_t logical, const uint8_t *p, size_t size)
{
	struct btrfs *x = fs->priv;
	struct chunk c = {.logical = logical};
	unsigned stripes;

	if (size < 48)
		return -EUCLEAN;
	stripes = load_u16(p + 44);
	c.len = load_u64(p);
	if (!stripes || size < 48 + 32ull * stripes || c.len > FS_MAX_BYTES)
		return -EUCLEAN;
	if (load_u64(p + 24) & ~(uint64_t)(CHUNK_KINDS | CHUNK_DUP) || stripes > 2)
		return -ENOTSUP; /* RAID */
	c.copies = stripes;
	for (unsigned i = 0; i < stripes; i++) {
		c.phys[i] = load_u64(p + 48 + 32 * i + 8);
		if (load_u64(p + 48 + 32 * i) != x->devid)
			return -ENOTSUP;
		if (!range_ok(c.phys[i], c.len, fs->len))
			return -EUCLEAN;
	}
	for (size_t i = 0; i < x->n_chunks; i++) /* of the superblock, again */
		if (x->chunk[i].logical == logical)
			return 0;
	if (x->n_chunks == x->size_chunks) {
		size_t more = x->size_chunks ? x->size_chunks * 2 : 16;
		struct chunk *v = more > MAX_CHUNKS
					  ? NULL
					  : mem_resize(x->chunk, more, sizeof(*v));

		if (!v)
			return -ENOMEM;
		x->chunk = v;
		x->size_chunks = more;
	}
	x->chunk[x->n_chunks++] = c;
	return 0;
}

static bool in_chunk(const struct chunk *c, uint64_t logical, uint64_t len)
{
	return logical >= c->logical && range_ok(logical - c->logical, len, c->len);
}

/* Items come in order: mostly it is the same as the last time. */
static const struct chunk *find_chunk(struct btrfs *x, uint64_t logical, uint64_t len)
{
	if (x->last < x->n_chunks && in_chunk(&x->chunk[x->last], logical, len))
		return &x->chunk[x->last];
	for (x->last = 0; x->last < x->n_chunks; x->last++)
		if (in_chunk(&x->chunk[x->last], logical, len))
			return &x->chunk[x->last];
	return NULL;
}

/* ---- trees ---- */

static struct key load_key(const uint8_t *p)
{
	return (struct key){load_u64(p), p[8], load_u64(p + 9)};
}

/* A node in new memory; NULL: not there, or not what it should be. */
static uint8_t *load_node(struct fs *fs, uint64_t logical, unsigned level)
{
	struct btrfs *x = fs->priv;
	const struct chunk *c = find_chunk(x, logical, x->node);
	uint8_t *p =
		c ? fs_read_new(fs, c->phys[0] + logical - c->logical, x->node) : NULL;
	uint64_t n;

	if (!p)
		return NULL;
	n = load_u32(p + 96);
	if (++x->visited > fs->len / x->node + 64 || load_u64(p + 48) != logical ||
	    p[100] != level || n > (x->node - NODE_HEAD) / (level ? 33 : 25)) {
		free(p);
		return NULL;
	}
	return p;
}

typedef int visit(struct fs *fs, const struct key *k, const uint8_t *data, size_t size,
		  void *ctx);

static int walk_leaf(struct fs *fs, const uint8_t *p, visit *f, void *ctx)
{
	const struct btrfs *x = fs->priv;
	uint32_t n = load_u32(p + 96);
	int rc = 0;

	for (uint32_t i = 0; i < n && !rc; i++) {
		const uint8_t *item = p + NODE_HEAD + i * 25;
		struct key k = load_key(item);
		uint32_t at = load_u32(item + 17), size = load_u32(item + 21);

		if (!range_ok(at, size, x->node - NODE_HEAD))
			return -EUCLEAN;
		rc = f(fs, &k, p + NODE_HEAD + at, size, ctx);
	}
	return rc;
}

/* All items of a tree, in the order of their keys. */
static int walk_tree(struct fs *fs, uint64_t logical, unsigned level, visit *f,
		     void *ctx)
{
	uint8_t *p;
	uint32_t n;
	int rc = 0;

	if (level >= MAX_LEVEL)
		return -EUCLEAN;
	p = load_node(fs, logical, level);
	if (!p)
		return -EUCLEAN;
	n = load_u32(p + 96);
	if (!level)
		rc = walk_leaf(fs, p, f, ctx);
	for (uint32_t i = 0; level && i < n && !rc; i++)
		rc = walk_tree(fs, load_u64(p + NODE_HEAD + i * 33 + 17), level - 1, f,
			       ctx);
	free(p);
	return rc;
}

/* ---- what it is ---- */

static int read_super(struct fs *fs, const uint8_t *s, struct err *err)
{
	struct btrfs *x = fs->priv;

	if (memcmp(s + 64, "_BHRfS_M", 8) || load_u64(s + 48) != SUPER)
		return fs_damaged(fs, err, "its superblock makes no sense");
	x->root = load_u64(s + 80);
	x->chunk_root = load_u64(s + 88);
	x->log_root = load_u64(s + 96);
	x->used = load_u64(s + 120);
	x->devices = load_u64(s + 136);
	x->sector = load_u32(s + 144);
	x->node = load_u32(s + 148);
	x->features = load_u64(s + 188);
	x->root_level = s[198];
	x->chunk_level = s[199];
	x->devid = load_u64(s + 201);
	fs->info.size = load_u64(s + 201 + 8);
	fs->info.block = x->sector;
	if (!is_pow2(x->node) || x->node < 4096 || x->node > 65536 ||
	    !is_pow2(x->sector) || x->sector < 512 || x->sector > 65536 ||
	    x->used > load_u64(s + 112))
		return fs_damaged(fs, err, "its superblock makes no sense");
	if (x->devices == 1) {
		fs->info.free = fs->info.size - min_u64(x->used, fs->info.size);
		fs->info.has_free = true;
	}
	fs_uuid(fs, s + 32);
	fs_label(fs, s + 299, 256);
	return 0;
}

static int take_sys_chunks(struct fs *fs, const uint8_t *s)
{
	uint32_t size = load_u32(s + 160), at = 0;

	if (size > 2048)
		return -EUCLEAN;
	while (at + 17 + 48 <= size) {
		struct key k = load_key(s + 811 + at);
		const uint8_t *c = s + 811 + at + 17;
		uint32_t len = 48 + 32u * load_u16(c + 44);
		int rc;

		if (k.type != KEY_CHUNK || len > size - at - 17)
			return -EUCLEAN;
		rc = add_chunk(fs, k.offset, c, len);
		if (rc)
			return rc;
		at += 17 + len;
	}
	return 0;
}

static int btrfs_open(struct fs *fs, struct err *err)
{
	uint8_t s[4096];
	struct btrfs *x = fs->priv = NEW(struct btrfs);
	int rc;

	if (!x || fs_read(fs, s, SUPER, sizeof(s)))
		return err_set(err, EIO, "cannot read the superblock of btrfs");
	rc = read_super(fs, s, err);
	if (rc)
		return rc;
	if (x->log_root)
		fs_not_clean(fs, FS_DIRTY, "its log tree has to be replayed");
	else if (load_u64(s + 56) & 0x8 /* seeding */ || x->devices != 1)
		fs_not_clean(fs, FS_DIRTY,
			     "it is part of a file system on several "
			     "devices");
	else if (take_sys_chunks(fs, s))
		fs_not_clean(fs, FS_DIRTY, "its chunks are not of a known kind");
	return 0;
}

static void btrfs_close(struct fs *fs)
{
	struct btrfs *x = fs->priv;

	if (x)
		free(x->chunk);
}

/* ---- what is used ---- */

static int visit_chunk(struct fs *fs, const struct key *k, const uint8_t *data,
		       size_t size, void *ctx)
{
	(void)ctx;
	return k->type == KEY_CHUNK ? add_chunk(fs, k->offset, data, size) : 0;
}

struct extent_root {
	uint64_t logical;
	unsigned level;
};

static int visit_root(struct fs *fs, const struct key *k, const uint8_t *data,
		      size_t size, void *ctx)
{
	struct extent_root *r = ctx;

	(void)fs;
	if (k->id == TREE_EXTENT && k->type == KEY_ROOT && size >= 239) {
		r->logical = load_u64(data + 176);
		r->level = data[238];
	}
	return 0;
}

struct extents {
	struct ranges *used;
	uint64_t bytes, end;
};

static int visit_extent(struct fs *fs, const struct key *k, const uint8_t *data,
			size_t size, void *ctx)
{
	struct btrfs *x = fs->priv;
	struct extents *e = ctx;
	uint64_t len = k->type == KEY_EXTENT ? k->offset : x->node;
	const struct chunk *c;
	int rc = 0;

	(void)data;
	(void)size;
	if (k->type != KEY_EXTENT && k->type != KEY_METADATA)
		return 0;
	c = find_chunk(x, k->id, len);
	if (!c || k->id < e->end)
		return -EUCLEAN;
	e->end = k->id + len;
	e->bytes += len;
	for (unsigned i = 0; i < c->copies && !rc; i++)
		rc = ranges_add(e->used, c->phys[i] + k->id - c->logical, len);
	return rc;
}

static int btrfs_used(struct fs *fs, struct ranges *used, struct err *err)
{
	struct btrfs *x = fs->priv;
	struct extent_root root = {0};
	struct extents e = {.used = used};
	int rc;

	if (x->features & ~KNOWN_FEATURES)
		return err_set(err, ENOTSUP, "btrfs with features %#llx is not known",
			       (unsigned long long)(x->features & ~KNOWN_FEATURES));
	rc = ranges_add(used, 0, min_u64(FIRST_BYTES, fs->info.size));
	for (size_t i = 0; i < ARRAY_LEN(mirrors) && !rc; i++)
		if (mirrors[i] + 4096 <= fs->info.size)
			rc = ranges_add(used, mirrors[i], 4096);
	x->visited = 0;
	if (!rc)
		rc = walk_tree(fs, x->chunk_root, x->chunk_level, visit_chunk, NULL);
	if (!rc)
		rc = walk_tree(fs, x->root, x->root_level, visit_root, &root);
	if (!rc)
		rc = root.logical
			     ? walk_tree(fs, root.logical, root.level, visit_extent, &e)
			     : -EUCLEAN;
	if (rc == -ENOTSUP)
		return err_set(err, ENOTSUP, "btrfs with RAID is not known");
	if (rc == -EUCLEAN)
		return fs_damaged(fs, err, "its trees make no sense");
	/* The superblock's count is of another source. */
	if (!rc && e.bytes != x->used)
		return fs_damaged(fs, err,
				  "its extents and its count of used bytes "
				  "differ");
	return rc;
}

const struct fs_ops fs_btrfs = {
	.types = (const char *const[]){"btrfs", NULL},
	.open = btrfs_open,
	.close = btrfs_close,
	.used = btrfs_used,
};

/*
 * guest/ext.c - ext2, ext3, ext4: what it is, and what is used, by the block bitmaps of its groups. The layout is
 * that of the Linux kernel's Documentation/filesystems/ext4.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/ext_int.h"

#include "base/mem.h"

enum { STATE_VALID = 1, STATE_ERROR = 2 };
enum { GROUP_BLOCK_UNINIT = 2 };
#define MAGIC    0xef53
#define MAX_DESC (512u << 20)
/* Features that change where things are, and are known here. */
#define KNOWN_INCOMPAT                                                                 \
	(0x2u /* file types */ | INCOMPAT_RECOVER | INCOMPAT_JOURNAL_DEV |             \
	 INCOMPAT_META_BG | 0x40 /* extents */ | INCOMPAT_64BIT | 0x100 /* MMP */ |    \
	 0x200 /* flex_bg */ | 0x400 /* large xattrs */ | 0x2000 /* checksum seed */ | \
	 0x4000 /* large dirs */ | 0x8000 /* inline data */ |                          \
	 0x10000 /* encryption */ | 0x20000 /* case folding */)

/* ---- what it is ---- */

static int check_sizes(struct fs *fs, const uint8_t *s, struct err *err)
{
	struct ext *x = fs->priv;
	uint32_t log = load_u32(s + 24), log_cluster = load_u32(s + 28);

	if (load_u16(s + 56) != MAGIC || log > 6 || log_cluster < log ||
	    log_cluster > 20)
		return fs_damaged(fs, err, "its superblock makes no sense");
	x->block = 1024u << log;
	x->cluster = x->ro_compat & RO_BIGALLOC ? 1u << (log_cluster - log) : 1;
	x->first = load_u32(s + 20);
	x->group_blocks = load_u32(s + 32);
	x->group_inodes = load_u32(s + 40);
	x->inodes = load_u32(s);
	x->inode_size = load_u32(s + 76) ? load_u16(s + 88) : 128;
	x->desc_size = x->incompat & INCOMPAT_64BIT ? load_u16(s + 254) : 32;
	x->blocks = load_u32(s + 4);
	if (x->incompat & INCOMPAT_64BIT)
		x->blocks |= (uint64_t)load_u32(s + 336) << 32;
	if (!is_pow2(x->inode_size) || x->inode_size < 128 ||
	    x->inode_size > x->block || !is_pow2(x->desc_size) || x->desc_size < 32 ||
	    x->desc_size > x->block ||
	    (x->incompat & INCOMPAT_64BIT && x->desc_size < 64) || x->first > 1 ||
	    x->group_blocks < 8 || x->group_blocks % x->cluster ||
	    x->group_blocks / x->cluster > x->block * 8 || !x->group_inodes ||
	    x->group_inodes > x->block * 8)
		return fs_damaged(fs, err, "its superblock makes no sense");
	if (x->blocks <= x->first || x->blocks > fs->len / x->block)
		return fs_damaged(fs, err, "it is larger than its partition");
	return 0;
}

static int read_super(struct fs *fs, const uint8_t *s, struct err *err)
{
	struct ext *x = fs->priv;
	uint64_t groups, free;
	int rc;

	x->compat = load_u32(s + 92);
	x->incompat = load_u32(s + 96);
	x->ro_compat = load_u32(s + 100);
	rc = check_sizes(fs, s, err);
	if (rc)
		return rc;
	if (x->incompat & ~KNOWN_INCOMPAT)
		return err_set(err, ENOTSUP, "%s with features %#x is not known",
			       fs->info.type, x->incompat & ~KNOWN_INCOMPAT);
	groups = (x->blocks - x->first + x->group_blocks - 1) / x->group_blocks;
	if (groups * x->desc_size > MAX_DESC ||
	    x->inodes > groups * (uint64_t)x->group_inodes)
		return fs_damaged(fs, err, "it has too many groups");
	x->groups = (uint32_t)groups;
	x->first_meta_bg = load_u32(s + 260);
	x->reserved_gdt = load_u16(s + 206);
	x->backup[0] = load_u32(s + 588);
	x->backup[1] = load_u32(s + 592);
	free = load_u32(s + 12);
	if (x->incompat & INCOMPAT_64BIT)
		free |= (uint64_t)load_u32(s + 344) << 32;
	fs->info.block = x->block;
	fs->info.size = x->blocks * x->block;
	fs->info.free = min_u64(free, x->blocks) * x->block;
	fs->info.has_free = true;
	fs_uuid(fs, s + 104);
	fs_label(fs, s + 120, 16);
	return 0;
}

static void set_state(struct fs *fs, const uint8_t *s)
{
	const struct ext *x = fs->priv;

	if (x->incompat & INCOMPAT_RECOVER)
		fs_not_clean(fs, FS_DIRTY, "the journal has to be replayed");
	else if (load_u16(s + 58) & STATE_ERROR)
		fs_not_clean(fs, FS_DIRTY, "the file system has errors");
	else if (!(load_u16(s + 58) & STATE_VALID))
		fs_not_clean(fs, FS_DIRTY, "the file system was not unmounted");
	else if (load_u32(s + 232))
		fs_not_clean(fs, FS_DIRTY, "deleted files are still to be freed");
	else if (x->incompat & INCOMPAT_JOURNAL_DEV)
		fs_not_clean(fs, FS_DIRTY, "it is the journal of another one");
}

static int ext_open(struct fs *fs, struct err *err)
{
	uint8_t s[1024];
	int rc;

	fs->priv = NEW(struct ext);
	if (!fs->priv || fs_read(fs, s, 1024, sizeof(s)))
		return err_set(err, EIO,
			       "cannot read the superblock of an %s file system",
			       fs->info.type);
	rc = read_super(fs, s, err);
	if (!rc)
		set_state(fs, s);
	return rc;
}

static void ext_close(struct fs *fs)
{
	struct ext *x = fs->priv;

	if (x)
		free(x->desc);
}

/* ---- groups ---- */

static bool power_of(uint32_t n, uint32_t base)
{
	uint64_t p = base;

	while (p < n)
		p *= base;
	return p == n;
}

/* Does the group begin with a copy of the superblock? */
static bool has_super(const struct ext *x, uint32_t n)
{
	if (!n)
		return true;
	if (x->compat & COMPAT_SPARSE2)
		return n == x->backup[0] || n == x->backup[1];
	return n == 1 || !(x->ro_compat & RO_SPARSE) || power_of(n, 3) ||
	       power_of(n, 5) || power_of(n, 7);
}

static uint64_t group_start(const struct ext *x, uint32_t n)
{
	return x->first + (uint64_t)n * x->group_blocks;
}

/* Where block i of the descriptors is. */
static uint64_t desc_block(const struct ext *x, uint32_t i)
{
	uint32_t per_block = x->block / x->desc_size;

	if (!(x->incompat & INCOMPAT_META_BG) || i < x->first_meta_bg)
		return x->first + 1 + i + (x->block == 1024 && !x->first);
	return group_start(x, i * per_block) + has_super(x, i * per_block);
}

int ext_load_groups(struct fs *fs)
{
	struct ext *x = fs->priv;
	uint32_t per_block = x->block / x->desc_size;
	uint32_t n = (x->groups + per_block - 1) / per_block;

	if (x->desc)
		return 0;
	x->desc = mem_new(n, x->block);
	if (!x->desc)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		if (fs_read(fs, x->desc + (uint64_t)i * x->block,
			    desc_block(x, i) * x->block, x->block)) {
			free(x->desc);
			x->desc = NULL;
			return -EIO;
		}
	return 0;
}

void ext_group(const struct ext *x, uint32_t n, struct ext_group *g)
{
	const uint8_t *d = x->desc + (uint64_t)n * x->desc_size;
	bool wide = x->desc_size >= 64;

	g->block_bitmap = load_u32(d);
	g->inode_bitmap = load_u32(d + 4);
	g->inode_table = load_u32(d + 8);
	g->free = load_u16(d + 12);
	if (wide) {
		g->block_bitmap |= (uint64_t)load_u32(d + 32) << 32;
		g->inode_bitmap |= (uint64_t)load_u32(d + 36) << 32;
		g->inode_table |= (uint64_t)load_u32(d + 40) << 32;
		g->free |= (uint32_t)load_u16(d + 44) << 16;
	}
	g->block_uninit = x->ro_compat & (RO_GDT_CSUM | RO_METADATA_CSUM) &&
			  load_u16(d + 18) & GROUP_BLOCK_UNINIT;
}

/* ---- what is used ---- */

static int add_blocks(const struct ext *x, struct ranges *used, uint64_t from,
		      uint64_t n)
{
	if (!range_ok(from, n, x->blocks))
		return -EUCLEAN;
	return ranges_add(used, from * x->block, n * x->block);
}

/* The copies of superblock and descriptors at the beginning of a group whose bitmap was never written. */
static int add_heads(const struct ext *x, uint32_t n, struct ranges *used)
{
	uint32_t per_block = x->block / x->desc_size;
	uint64_t all = (x->groups + per_block - 1) / per_block, len;
	bool super = has_super(x, n);

	if (x->incompat & INCOMPAT_META_BG && n / per_block >= x->first_meta_bg)
		len = 2;
	else if (super)
		len = 1 + x->reserved_gdt +
		      (x->incompat & INCOMPAT_META_BG ? min_u64(all, x->first_meta_bg)
						      : all);
	else
		return 0;
	return add_blocks(x, used, group_start(x, n),
			  min_u64(len, x->blocks - group_start(x, n)));
}

static int add_group(struct fs *fs, uint32_t n, uint8_t *bits, struct ranges *used,
		     uint64_t *free)
{
	const struct ext *x = fs->priv;
	uint64_t start = group_start(x, n), table, zeros = 0;
	uint64_t blocks = min_u64(x->group_blocks, x->blocks - start);
	uint64_t clusters = (blocks + x->cluster - 1) / x->cluster;
	struct ext_group g;
	int rc;

	ext_group(x, n, &g);
	table = ((uint64_t)x->group_inodes * x->inode_size + x->block - 1) / x->block;
	*free += (uint64_t)g.free * x->cluster;
	rc = add_blocks(x, used, g.block_bitmap, 1);
	if (!rc)
		rc = add_blocks(x, used, g.inode_bitmap, 1);
	if (!rc)
		rc = add_blocks(x, used, g.inode_table, table);
	if (rc || g.block_uninit)
		return rc ? rc : add_heads(x, n, used);
	if (fs_read(fs, bits, g.block_bitmap * x->block, x->block))
		return -EIO;
	for (uint64_t i = 0; i < clusters; i++)
		zeros += !((bits[i / 8] >> (i % 8)) & 1);
	if (zeros != g.free)
		return -EUCLEAN;
	return ranges_add_bits(used, bits, clusters, true, start * x->block,
			       (uint64_t)x->cluster * x->block);
}

static int ext_used(struct fs *fs, struct ranges *used, struct err *err)
{
	const struct ext *x = fs->priv;
	uint8_t *bits = mem_new(x->block + 8u, 1);
	uint64_t free_blocks = 0;
	int rc = bits ? ext_load_groups(fs) : -ENOMEM;

	/* what is before the first group: boot code */
	if (!rc)
		rc = ranges_add(used, 0, max_u64(2048, x->first * x->block));
	for (uint32_t n = 0; n < x->groups && !rc; n++)
		rc = add_group(fs, n, bits, used, &free_blocks);
	free(bits);
	if (rc == -EIO)
		return err_set(err, EIO, "its bitmaps cannot be read");
	if (rc == -EUCLEAN || (!rc && free_blocks * x->block != fs->info.free))
		return fs_damaged(fs, err,
				  "its bitmaps and its counts of free blocks differ");
	/* the last cluster may end behind the last block */
	if (!rc)
		ranges_sort(used);
	if (!rc && used->n) {
		struct img_range *last = &used->v[used->n - 1];

		if (last->off + last->len > fs->info.size)
			last->len = fs->info.size - last->off;
	}
	return rc;
}

const struct fs_ops fs_ext = {
	.types = (const char *const[]){"ext2", "ext3", "ext4", NULL},
	.open = ext_open,
	.close = ext_close,
	.used = ext_used,
	.file_open = ext_file_open,
	.file_read = ext_file_read,
};

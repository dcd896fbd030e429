/*
 * guest/xfs.c - XFS: whether its log is clean, and what is used, by the trees of free space of its allocation groups.
 * "XFS Algorithms & Data Structures", 3rd edition, chapters 13 (groups), 14 (log).
 */
#include <stdlib.h>
#include <string.h>

#include "guest/fs_int.h"

#include "base/mem.h"

#define BB         512u /* "basic block": what the log counts in */
#define LOG_MAGIC  0xfeedbabeu
#define MAX_RECORD (256u << 10)
#define UNMOUNT    0x20 /* flag of a log operation */
#define MAX_GROUPS (1u << 20)
#define AG_SECTORS 4 /* superblock, AGF, AGI, AGFL: one sector each */

struct xfs_super {
	char magic[4];
	be32 block;
	be64 blocks, rt_blocks, rt_extents;
	uint8_t uuid[16];
	be64 log_start, root, rbm, rsum;
	be32 rext, ag_blocks, ags, rbm_blocks, log_blocks;
	be16 version, sector, inode, inodes_block;
	char label[12];
	uint8_t block_log, sector_log, inode_log, inopb_log, ag_log, rext_log,
		in_progress, imax;
	be64 icount, ifree, free, rt_free;
	uint8_t rest[48];
	be32 compat, ro_compat, incompat, log_incompat;
};
_Static_assert(sizeof(struct xfs_super) == 224, "as it lies on the disk");

struct xfs_agf {
	char magic[4];
	be32 version, number, length, root[3], level[3], first, last, count, free;
};

struct xfs {
	uint32_t block, ags, ag_blocks, sector, log_blocks;
	uint64_t blocks, log_off, log_bbs;
	bool v5;
};

/* ---- the log ---- */

static int log_read(struct fs *fs, void *buf, uint64_t bb)
{
	const struct xfs *x = fs->priv;

	return fs_read(fs, buf, x->log_off + (bb % x->log_bbs) * BB, BB);
}

/* The cycle that a block of the log was written in. */
static int cycle_of(struct fs *fs, uint64_t bb, uint32_t *cycle)
{
	be32 b[BB / 4];
	int rc = log_read(fs, b, bb);

	if (!rc)
		*cycle = be32_get(b[be32_get(b[0]) == LOG_MAGIC ? 1 : 0]);
	return rc;
}

/* The first block behind what was written last: where the cycle changes. */
static int find_head(struct fs *fs, uint64_t *head)
{
	const struct xfs *x = fs->priv;
	uint64_t lo = 0, hi = x->log_bbs - 1;
	uint32_t first, last, c;

	if (cycle_of(fs, 0, &first) || cycle_of(fs, hi, &last))
		return -EIO;
	if (first == last) { /* it ends with the log's end; zeros: never written */
		*head = first ? x->log_bbs : 0;
		return first ? 0 : -ENOENT;
	}
	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (cycle_of(fs, mid, &c))
			return -EIO;
		if (c == first)
			lo = mid;
		else
			hi = mid;
	}
	*head = hi;
	return 0;
}

/* Does the last record end at the head, and is it the one of an unmount? */
static bool ends_with_unmount(struct fs *fs, uint64_t head)
{
	const struct xfs *x = fs->priv;
	be32 b[BB / 4];

	for (uint64_t back = 1; back <= MAX_RECORD / BB + 16 && back < x->log_bbs;
	     back++) {
		uint64_t at = (head + x->log_bbs - back) % x->log_bbs, heads = 1;
		uint32_t size, len;

		if (log_read(fs, b, at))
			return false;
		if (be32_get(b[0]) != LOG_MAGIC)
			continue;
		len = be32_get(b[3]);
		size = be32_get(b[80]);
		if (be32_get(b[2]) & 2 && size > 32768)
			heads = (size + 32767) / 32768;
		if (len > MAX_RECORD || heads + (len + BB - 1) / BB != back ||
		    be32_get(b[10]) != 1 || log_read(fs, b, at + heads))
			return false;
		return ((const uint8_t *)b)[9] & UNMOUNT;
	}
	return false;
}

static void check_log(struct fs *fs, uint64_t log_start)
{
	const struct xfs *x = fs->priv;
	uint64_t head;
	int rc;

	if (!log_start || !x->log_bbs) {
		fs_not_clean(fs, FS_DIRTY, "its log is on another device");
		return;
	}
	rc = find_head(fs, &head);
	if (rc != -ENOENT && (rc || !ends_with_unmount(fs, head)))
		fs_not_clean(fs, FS_DIRTY, "the log has to be replayed");
}

/* ---- what it is ---- */

/* Where block n of the file system is: the group's number is in the upper bits. */
static uint64_t place(const struct xfs_super *s, uint64_t n)
{
	uint64_t group = n >> s->ag_log, in = n & (BIT(s->ag_log) - 1);

	return (group * be32_get(s->ag_blocks) + in) * be32_get(s->block);
}

static int read_super(struct fs *fs, const struct xfs_super *s, struct err *err)
{
	struct xfs *x = fs->priv;

	x->block = be32_get(s->block);
	x->blocks = be64_get(s->blocks);
	x->ags = be32_get(s->ags);
	x->ag_blocks = be32_get(s->ag_blocks);
	x->sector = be16_get(s->sector);
	x->v5 = (be16_get(s->version) & 15) == 5;
	x->log_blocks = be32_get(s->log_blocks);
	if (memcmp(s->magic, "XFSB", 4) || !is_pow2(x->block) || x->block < 512 ||
	    x->block > 65536 || !is_pow2(x->sector) || x->sector < 512 ||
	    x->sector > 32768 || !x->ags || x->ags > MAX_GROUPS || !x->ag_blocks ||
	    s->ag_log > 31)
		return fs_damaged(fs, err, "its superblock makes no sense");
	if (x->blocks > fs->len / x->block ||
	    (uint64_t)(x->ags - 1) * x->ag_blocks >= x->blocks ||
	    x->blocks > (uint64_t)x->ags * x->ag_blocks)
		return fs_damaged(fs, err, "it is larger than its partition");
	x->log_off = place(s, be64_get(s->log_start));
	x->log_bbs = (uint64_t)x->log_blocks * (x->block / BB);
	if (!range_ok(x->log_off, x->log_bbs * BB, x->blocks * x->block))
		return fs_damaged(fs, err, "its log is behind its end");
	return 0;
}

static int xfs_open(struct fs *fs, struct err *err)
{
	struct xfs_super s;
	const struct xfs *x = fs->priv = NEW(struct xfs);
	int rc;

	if (!x || fs_read(fs, &s, 0, sizeof(s)))
		return err_set(err, EIO, "cannot read the superblock of XFS");
	rc = read_super(fs, &s, err);
	if (rc)
		return rc;
	fs->info.block = x->block;
	fs->info.size = x->blocks * x->block;
	fs->info.free = min_u64(be64_get(s.free), x->blocks) * x->block;
	fs->info.has_free = true;
	fs_uuid(fs, s.uuid);
	fs_label(fs, s.label, sizeof(s.label));
	check_log(fs, be64_get(s.log_start));
	return 0;
}

/* ---- free space ---- */

struct walk {
	struct fs *fs;
	struct ranges free; /* bytes from the group's beginning */
	uint64_t blocks;    /* of the group */
	uint8_t *buf;
};

/* Reads a block of a group's tree and checks its head. */
static int read_node(struct walk *w, uint64_t group, uint32_t n, unsigned level)
{
	const struct xfs *x = w->fs->priv;
	uint32_t head = x->v5 ? 56 : 16, records;

	if (n >= w->blocks ||
	    fs_read(w->fs, w->buf, (group * x->ag_blocks + n) * x->block, x->block))
		return -EUCLEAN;
	records = load_u16(w->buf + 6);
	records = __builtin_bswap16((uint16_t)records);
	if (memcmp(w->buf, x->v5 ? "AB3B" : "ABTB", 4) || w->buf[4] ||
	    w->buf[5] != level || records > (x->block - head) / (level ? 12 : 8))
		return -EUCLEAN;
	return (int)records;
}

/* Adds the records of the leaves, from left to right. */
static int walk_leaves(struct walk *w, uint64_t group, uint32_t n)
{
	const struct xfs *x = w->fs->priv;
	uint32_t head = x->v5 ? 56 : 16;
	uint64_t at = 0;

	for (uint64_t seen = 0; n != UINT32_MAX; seen++) {
		int records = read_node(w, group, n, 0), rc = 0;

		if (records < 0 || seen > w->blocks)
			return -EUCLEAN;
		for (int i = 0; i < records && !rc; i++) {
			const be32 *r = (const be32 *)(w->buf + head + 8 * i);
			uint64_t start = be32_get(r[0]), len = be32_get(r[1]);

			if (start < at || !range_ok(start, len, w->blocks))
				return -EUCLEAN;
			at = start + len;
			rc = ranges_add(&w->free, start * x->block, len * x->block);
		}
		if (rc)
			return rc;
		n = be32_get(((const be32 *)w->buf)[3]);
	}
	return 0;
}

static int walk_group(struct walk *w, uint64_t group)
{
	const struct xfs *x = w->fs->priv;
	uint32_t head = x->v5 ? 56 : 16, n, level;
	uint64_t base = group * x->ag_blocks * x->block;
	struct xfs_agf f;

	w->blocks = min_u64(x->ag_blocks, x->blocks - group * x->ag_blocks);
	w->free.n = 0;
	if (fs_read(w->fs, &f, base + x->sector, sizeof(f)) ||
	    memcmp(f.magic, "XAGF", 4) || be32_get(f.number) != group ||
	    be32_get(f.length) != w->blocks || be32_get(f.level[0]) > 8 ||
	    !be32_get(f.level[0]))
		return -EUCLEAN;
	n = be32_get(f.root[0]);
	for (level = be32_get(f.level[0]) - 1; level; level--) {
		uint32_t max = (x->block - head) / 12;

		if (read_node(w, group, n, level) < 1)
			return -EUCLEAN;
		n = be32_get(*(const be32 *)(w->buf + head + 8ull * max));
	}
	return walk_leaves(w, group, n);
}

static int xfs_used(struct fs *fs, struct ranges *used, struct err *err)
{
	const struct xfs *x = fs->priv;
	struct walk w = {.fs = fs, .buf = mem_new(x->block, 1)};
	uint64_t count = 0;
	int rc = w.buf ? 0 : -ENOMEM;

	for (uint64_t group = 0; group < x->ags && !rc; group++) {
		uint64_t base = group * x->ag_blocks * x->block;

		rc = walk_group(&w, group);
		count += ranges_bytes(&w.free);
		if (!rc)
			rc = ranges_invert(&w.free, w.blocks * x->block, base, used);
		if (!rc)
			rc = ranges_add(used, base, AG_SECTORS * x->sector);
	}
	free(w.buf);
	ranges_fini(&w.free);
	if (rc == -EUCLEAN)
		return fs_damaged(fs, err, "its trees of free space make no sense");
	/* The superblock's count is of another source: it has the trees' own blocks as free, too. */
	if (!rc && count > fs->info.free)
		return fs_damaged(fs, err,
				  "its trees and its count of free blocks differ");
	return rc;
}

const struct fs_ops fs_xfs = {
	.types = (const char *const[]){"xfs", NULL},
	.open = xfs_open,
	.used = xfs_used,
};

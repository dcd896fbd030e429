/* guest/ext_file.c - ext2, ext3, ext4: files by their path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/ext_int.h"

#include "base/mem.h"

#define ROOT_INODE   2
#define MAX_LINKS    16
#define MAX_DEPTH    5 /* of an extent tree */
#define MAX_DIR      (64u << 20)
#define EXTENT_MAGIC 0xf30a

enum { FLAG_EXTENTS = 0x80000, FLAG_INLINE = 0x10000000, FLAG_ENCRYPTED = 0x800 };
enum { S_KIND = 0xf000, S_DIR = 0x4000, S_FILE = 0x8000, S_LINK = 0xa000 };

struct ext_inode {
	uint16_t mode;
	uint32_t flags;
	uint64_t size;
	uint8_t block[60];
};

static int load_inode(struct fs *fs, uint32_t n, struct ext_inode *in)
{
	const struct ext *x = fs->priv;
	uint8_t raw[128];
	struct ext_group g;
	uint64_t at;

	if (!n || n > x->inodes)
		return -EUCLEAN;
	if (ext_load_groups(fs))
		return -EIO;
	ext_group(x, (n - 1) / x->group_inodes, &g);
	if (g.inode_table >= x->blocks)
		return -EUCLEAN;
	at = g.inode_table * x->block +
	     (uint64_t)((n - 1) % x->group_inodes) * x->inode_size;
	if (fs_read(fs, raw, at, sizeof(raw)))
		return -EIO;
	in->mode = load_u16(raw);
	in->flags = load_u32(raw + 32);
	in->size = load_u32(raw + 4) | (uint64_t)load_u32(raw + 108) << 32;
	memcpy(in->block, raw + 40, sizeof(in->block));
	return 0;
}

/* ---- where a file's blocks are: *phys 0: a hole ---- */

/* A node of an extent tree: `size` bytes at p. 1: go on with block *phys; 0: that is it. */
static int extent_step(const uint8_t *p, size_t size, uint64_t want, uint64_t *phys)
{
	unsigned n = load_u16(p + 2), depth = load_u16(p + 6);
	const uint8_t *found = NULL;

	if (load_u16(p) != EXTENT_MAGIC || 12 + 12ull * n > size || depth > MAX_DEPTH)
		return -EUCLEAN;
	*phys = 0;
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *e = p + 12 + 12 * i;

		if (load_u32(e) > want)
			break;
		found = e;
	}
	if (!found)
		return 0;
	if (depth) {
		*phys = load_u32(found + 4) | (uint64_t)load_u16(found + 8) << 32;
		return 1;
	}
	/* longer than 32768: space that was never written */
	if (load_u16(found + 4) <= 32768 &&
	    want - load_u32(found) < load_u16(found + 4))
		*phys = (load_u32(found + 8) | (uint64_t)load_u16(found + 6) << 32) +
			want - load_u32(found);
	return 0;
}

static int map_extents(struct fs *fs, const struct ext_inode *in, uint64_t want,
		       uint64_t *phys)
{
	const struct ext *x = fs->priv;
	int rc = extent_step(in->block, sizeof(in->block), want, phys);

	for (unsigned depth = 0; rc > 0; depth++) {
		uint8_t *p = depth > MAX_DEPTH || *phys >= x->blocks
				     ? NULL
				     : fs_read_new(fs, *phys * x->block, x->block);

		if (!p)
			return -EUCLEAN;
		rc = extent_step(p, x->block, want, phys);
		free(p);
	}
	return rc;
}

/* Direct blocks, then those by one, two, three tables. */
static int map_tables(struct fs *fs, const struct ext_inode *in, uint64_t want,
		      uint64_t *phys)
{
	const struct ext *x = fs->priv;
	uint64_t per = x->block / 4, span = per;
	unsigned level = 1;
	le32 next;

	if (want < 12) {
		*phys = load_u32(in->block + 4 * want);
		return 0;
	}
	for (want -= 12; level <= 3 && want >= span; level++) {
		want -= span;
		span *= per;
	}
	if (level > 3)
		return -EUCLEAN;
	*phys = load_u32(in->block + 4 * (11 + level));
	while (level-- && *phys) {
		span /= per;
		if (*phys >= x->blocks ||
		    fs_read(fs, &next, *phys * x->block + want / span * 4, 4))
			return -EUCLEAN;
		*phys = le32_get(next);
		want %= span;
	}
	return 0;
}

static int inode_read(struct fs *fs, const struct ext_inode *in, void *buf,
		      uint64_t off, size_t len)
{
	const struct ext *x = fs->priv;
	uint8_t *to = buf;
	uint64_t n;

	if (!range_ok(off, len, in->size))
		return -ENXIO;
	if (in->flags & FLAG_INLINE) {
		if (off + len > sizeof(in->block))
			return -ENOTSUP;
		memcpy(buf, in->block + off, len);
		return 0;
	}
	for (; len; len -= n, off += n, to += n) {
		uint64_t phys, at = off % x->block;
		int rc = in->flags & FLAG_EXTENTS
				 ? map_extents(fs, in, off / x->block, &phys)
				 : map_tables(fs, in, off / x->block, &phys);

		n = min_u64(len, x->block - at);
		if (rc)
			return rc;
		if (phys >= x->blocks)
			return -EUCLEAN;
		if (!phys)
			memset(to, 0, n);
		else if (fs_read(fs, to, phys * x->block + at, n))
			return -EIO;
	}
	return 0;
}

/* ---- directories ---- */

/* The inode of a name among the entries in p; 0: it is not there. */
static uint32_t find_entry(const uint8_t *p, size_t size, const char *name, size_t len)
{
	for (size_t at = 0; at + 8 <= size;) {
		const uint8_t *e = p + at;
		size_t rec = load_u16(e + 4);

		if (rec < 8 || rec > size - at || 8u + e[6] > rec)
			return 0;
		if (load_u32(e) && e[6] == len && !memcmp(e + 8, name, len))
			return load_u32(e);
		at += rec;
	}
	return 0;
}

/* Entries do not cross blocks; those of an index look like empty ones. */
static int find_in(struct fs *fs, const struct ext_inode *dir, const char *name,
		   size_t len, uint32_t *out)
{
	const struct ext *x = fs->priv;
	uint8_t *p;
	int rc = 0;

	*out = 0;
	if (dir->flags & FLAG_INLINE) {
		*out = find_entry(dir->block + 4, sizeof(dir->block) - 4, name, len);
		return *out ? 0 : -ENOENT;
	}
	p = mem_new(x->block, 1);
	if (!p)
		return -ENOMEM;
	for (uint64_t at = 0;
	     at + x->block <= min_u64(dir->size, MAX_DIR) && !*out && !rc;
	     at += x->block) {
		rc = inode_read(fs, dir, p, at, x->block);
		if (!rc)
			*out = find_entry(p, x->block, name, len);
	}
	free(p);
	return rc ? rc : *out ? 0 : -ENOENT;
}

static int read_link(struct fs *fs, const struct ext_inode *in, char *to, size_t size)
{
	if (in->size >= size || in->flags & FLAG_ENCRYPTED)
		return -ENOTSUP;
	to[in->size] = 0;
	if (in->size < sizeof(in->block) && !(in->flags & FLAG_EXTENTS)) {
		memcpy(to, in->block, in->size);
		return 0;
	}
	return inode_read(fs, in, to, 0, in->size);
}

/* Puts a link's text before what is left of the path. */
static int follow(struct fs *fs, const struct ext_inode *in, char *path, size_t size)
{
	char link[1024], rest[4096];
	int rc = read_link(fs, in, link, sizeof(link));

	if (rc)
		return rc;
	if ((size_t)snprintf(rest, sizeof(rest), "%s/%s", link, path) >= sizeof(rest) ||
	    strlen(rest) >= size)
		return -ENAMETOOLONG;
	strcpy(path, rest);
	return 0;
}

/* The inode at a path, links followed. */
static int find_path(struct fs *fs, const char *name, struct ext_inode *in)
{
	char path[4096], *p = path;
	uint32_t dir = ROOT_INODE, next;
	unsigned links = 0;
	int rc;

	if (strlen(name) >= sizeof(path))
		return -ENAMETOOLONG;
	strcpy(path, name);
	rc = load_inode(fs, dir, in);
	while (!rc) {
		size_t n;

		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (!n)
			return 0;
		if ((in->mode & S_KIND) != S_DIR)
			return -ENOENT;
		rc = find_in(fs, in, p, n, &next);
		if (!rc)
			rc = load_inode(fs, next, in);
		p += n;
		if (!rc && (in->mode & S_KIND) == S_LINK) {
			memmove(path, p, strlen(p) + 1);
			p = path;
			if (++links > MAX_LINKS)
				return -ELOOP;
			rc = follow(fs, in, path, sizeof(path));
			if (!rc && *path == '/')
				dir = ROOT_INODE;
			if (!rc)
				rc = load_inode(fs, dir, in);
		} else {
			dir = next;
		}
	}
	return rc;
}

int ext_file_open(struct fs *fs, const char *path, struct fs_file *f)
{
	struct ext_inode in;
	int rc = find_path(fs, path, &in);

	if (rc)
		return rc;
	if ((in.mode & S_KIND) != S_FILE || in.flags & FLAG_ENCRYPTED)
		return -ENOENT;
	f->priv = NEW(struct ext_inode);
	if (!f->priv)
		return -ENOMEM;
	*(struct ext_inode *)f->priv = in;
	f->size = in.size;
	return 0;
}

int ext_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len)
{
	return inode_read(f->fs, f->priv, buf, off, len);
}

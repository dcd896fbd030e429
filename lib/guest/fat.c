/* guest/fat.c - FAT12, FAT16, FAT32 (Microsoft's specification 1.03, ECMA-107): what is used, files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "guest/fs_int.h"

#include "base/guid.h"
#include "base/mem.h"

#define MAX_FAT \
	(256u << 20) /* of FAT32's 2^28 clusters there are 1 GiB; discs have fewer */
#define MAX_DIR (4u << 20)

enum { ATTR_VOLUME = 0x08, ATTR_DIR = 0x10, ATTR_LONG = 0x0f };

struct fat_boot {
	uint8_t jump[3];
	char oem[8];
	le16 sector;
	uint8_t cluster;
	le16 reserved;
	uint8_t fats;
	le16 root_entries, sectors16;
	uint8_t media;
	le16 fat_sectors16, track, heads;
	le32 hidden, sectors32;
	/* FAT32; FAT12 and FAT16: at `fat_sectors32`: drive, flags, 0x29, serial, label */
	le32 fat_sectors32;
	le16 flags, version;
	le32 root;
	le16 fsinfo, backup;
	uint8_t zero[12], drive, dirty, mark;
	le32 serial;
	char label[11], type[8];
};
_Static_assert(sizeof(struct fat_boot) == 90, "as it lies on the disk");

struct fat_entry {
	char name[11];
	uint8_t attr, nt, tenths;
	le16 ctime, cdate, adate, cluster_hi, mtime, mdate, cluster_lo;
	le32 size;
};
_Static_assert(sizeof(struct fat_entry) == 32, "as it lies on the disk");

struct fat {
	unsigned bits;
	uint32_t clusters;       /* numbered from 2 */
	uint64_t cluster, data;  /* bytes: of one, offset of the first */
	uint64_t fat, fat_bytes; /* of the first table */
	uint64_t root, root_bytes;
	uint32_t root_cluster; /* FAT32 */
	uint8_t *table;        /* the first table, once it is wanted */
};

struct fat_file {
	uint32_t *chain;
	size_t n;
};

static int load_table(struct fs *fs)
{
	struct fat *x = fs->priv;

	if (!x->table)
		x->table = fs_read_new(fs, x->fat, x->fat_bytes);
	return x->table ? 0 : -EIO;
}

static uint32_t entry(const struct fat *x, uint32_t i)
{
	uint32_t v;

	switch (x->bits) {
	case 32: return load_u32(x->table + i * 4ull) & 0xfffffff;
	case 16: return load_u16(x->table + i * 2ull);
	default: v = load_u16(x->table + i + i / 2); return i & 1 ? v >> 4 : v & 0xfff;
	}
}

/* ---- what it is ---- */

/* The fields of the boot sector. */
static int read_layout(struct fs *fs, const struct fat_boot *b, struct err *err)
{
	struct fat *x = fs->priv;
	uint64_t sector = le16_get(b->sector), fat_sectors = le16_get(b->fat_sectors16);
	uint64_t sectors = le16_get(b->sectors16), first;

	if (!is_pow2(sector) || sector < 512 || sector > 4096 || !is_pow2(b->cluster) ||
	    !b->fats || b->fats > 4 || !le16_get(b->reserved))
		return fs_damaged(fs, err, "its boot sector makes no sense");
	if (!fat_sectors)
		fat_sectors = le32_get(b->fat_sectors32);
	if (!sectors)
		sectors = le32_get(b->sectors32);
	x->cluster = sector * b->cluster;
	x->fat = le16_get(b->reserved) * sector;
	x->fat_bytes = fat_sectors * sector;
	x->root = x->fat + b->fats * x->fat_bytes;
	x->root_bytes = align_up(le16_get(b->root_entries) * 32ull, sector);
	x->data = x->root + x->root_bytes;
	first = x->data / sector;
	if (first >= sectors || sectors * sector > fs->len)
		return fs_damaged(fs, err, "it is larger than its partition");
	x->clusters = (uint32_t)((sectors - first) / b->cluster);
	x->bits = x->clusters < 4085 ? 12 : x->clusters < 65525 ? 16 : 32;
	/* FAT32 with few clusters is told by its table's size. */
	if (!le16_get(b->fat_sectors16))
		x->bits = 32;
	if (x->bits == 32)
		x->root_cluster = le32_get(b->root);
	if (x->fat_bytes > MAX_FAT ||
	    x->fat_bytes < ((x->clusters + 2ull) * x->bits + 7) / 8 + 1)
		return fs_damaged(fs, err, "its table is too small or too large");
	fs->info.block = (uint32_t)x->cluster;
	fs->info.size = sectors * sector;
	return 0;
}

static void read_state(struct fs *fs, const struct fat_boot *b)
{
	const struct fat *x = fs->priv;
	uint8_t head[8], dirty = x->bits == 32 ? b->dirty : ((const uint8_t *)b)[0x25];

	if (fs_read(fs, head, x->fat, sizeof(head))) {
		fs_not_clean(fs, FS_DIRTY, "its table cannot be read");
		return;
	}
	if (dirty & 1 || (x->bits == 32 && !(load_u32(head + 4) & 0x08000000)) ||
	    (x->bits == 16 && !(load_u16(head + 2) & 0x8000)))
		fs_not_clean(fs, FS_DIRTY, "the file system was not unmounted");
}

static void count_free(struct fs *fs, const struct fat_boot *b)
{
	const struct fat *x = fs->priv;
	uint8_t info[512];
	uint64_t free = 0;

	if (x->bits == 32 && le16_get(b->fsinfo) && fs->info.state == FS_CLEAN &&
	    !fs_read(fs, info, (uint64_t)le16_get(b->fsinfo) * le16_get(b->sector),
		     512) &&
	    load_u32(info) == 0x41615252 && load_u32(info + 484) == 0x61417272 &&
	    load_u32(info + 488) <= x->clusters) {
		fs->info.free = load_u32(info + 488) * x->cluster;
		fs->info.has_free = true;
		return;
	}
	if (x->fat_bytes > 8u << 20 || load_table(fs))
		return;
	for (uint32_t i = 2; i < x->clusters + 2; i++)
		free += entry(x, i) == 0;
	fs->info.free = free * x->cluster;
	fs->info.has_free = true;
}

/* ---- files ---- */

/* The clusters from `first` on. */
static int load_chain(struct fs *fs, uint32_t first, uint32_t **chain, size_t *n)
{
	const struct fat *x = fs->priv;
	uint32_t *v = NULL;
	size_t size = 0;

	*n = 0;
	if (load_table(fs))
		return -EIO;
	for (uint32_t c = first; c >= 2 && c < x->clusters + 2; c = entry(x, c)) {
		if (*n == size) {
			uint32_t *more =
				mem_resize(v, size ? size * 2 : 16, sizeof(*v));

			if (!more) {
				free(v);
				return -ENOMEM;
			}
			v = more;
			size = size ? size * 2 : 16;
		}
		v[(*n)++] = c;
		if (*n > x->clusters) { /* it goes round */
			free(v);
			return -EUCLEAN;
		}
	}
	*chain = v;
	return 0;
}

static int read_chain(const struct fs *fs, const uint32_t *chain, size_t n, void *buf,
		      uint64_t off, size_t len)
{
	const struct fat *x = fs->priv;
	uint64_t part;

	for (size_t at = 0; at < len; at += part) {
		uint64_t i = (off + at) / x->cluster, in = (off + at) % x->cluster;
		int rc;

		part = min_u64(len - at, x->cluster - in);
		if (i >= n)
			return -EUCLEAN;
		rc = fs_read(fs, (char *)buf + at,
			     x->data + (chain[i] - 2) * x->cluster + in, part);
		if (rc)
			return rc;
	}
	return 0;
}

/* The entries of a directory; cluster 0: the root. NULL: not readable. */
static struct fat_entry *load_dir(struct fs *fs, uint32_t cluster, size_t *n)
{
	const struct fat *x = fs->priv;
	struct fat_entry *dir;
	uint32_t *chain = NULL;
	size_t clusters, bytes;

	if (!cluster && x->bits != 32) {
		*n = x->root_bytes / 32;
		return fs_read_new(fs, x->root, x->root_bytes);
	}
	if (load_chain(fs, cluster ? cluster : x->root_cluster, &chain, &clusters))
		return NULL;
	bytes = (size_t)min_u64(clusters * x->cluster, MAX_DIR);
	dir = mem_new(bytes + 1, 1);
	if (dir && read_chain(fs, chain, clusters, dir, 0, bytes)) {
		free(dir);
		dir = NULL;
	}
	free(chain);
	*n = bytes / 32;
	return dir;
}

static void short_name(const struct fat_entry *e, char out[13])
{
	unsigned n = 0;

	for (unsigned i = 0; i < 8 && e->name[i] != ' '; i++)
		out[n++] = e->name[i];
	if (e->name[8] != ' ')
		out[n++] = '.';
	for (unsigned i = 8; i < 11 && e->name[i] != ' '; i++)
		out[n++] = e->name[i];
	out[n] = 0;
}

/* Puts the 13 characters of a long name's piece in their place. */
static void take_piece(uint8_t name[512], const struct fat_entry *e)
{
	const uint8_t *p = (const uint8_t *)e;
	unsigned i = (p[0] & 0x3f) - 1u;

	if (i >= 19)
		return;
	if (p[0] & 0x40)
		memset(name, 0, 512);
	memcpy(name + i * 26, p + 1, 10);
	memcpy(name + i * 26 + 10, p + 14, 12);
	memcpy(name + i * 26 + 22, p + 28, 4);
}

static bool long_matches(const uint8_t name[512], const char *want)
{
	char *text = load_u16(name) ? utf16_to_utf8(name, 512, false) : NULL;
	bool same = text && !strcasecmp(text, want);

	free(text);
	return same;
}

static int find_in(struct fs *fs, uint32_t cluster, const char *want,
		   struct fat_entry *out)
{
	uint8_t name[512] = {0};
	size_t n;
	struct fat_entry *dir = load_dir(fs, cluster, &n);
	int rc = dir ? -ENOENT : -EUCLEAN;

	for (size_t i = 0; dir && i < n && dir[i].name[0]; i++) {
		const struct fat_entry *e = &dir[i];
		char text[13];

		if ((uint8_t)e->name[0] == 0xe5)
			continue;
		if (e->attr == ATTR_LONG) {
			take_piece(name, e);
			continue;
		}
		short_name(e, text);
		if (!(e->attr & ATTR_VOLUME) &&
		    (!strcasecmp(text, want) || long_matches(name, want))) {
			*out = *e;
			rc = 0;
			break;
		}
		memset(name, 0, sizeof(name));
	}
	free(dir);
	return rc;
}

static int fat_file_open(struct fs *fs, const char *path, struct fs_file *f)
{
	struct fat_entry e = {.attr = ATTR_DIR};
	struct fat_file *x;
	int rc = 0;

	for (unsigned depth = 0; !rc && depth < 32; depth++) {
		uint32_t cluster =
			le16_get(e.cluster_lo) | (uint32_t)le16_get(e.cluster_hi) << 16;
		char part[256];
		size_t n;

		path += strspn(path, "/");
		n = strcspn(path, "/");
		if (!n)
			break;
		if (n >= sizeof(part) || !(e.attr & ATTR_DIR))
			return -ENOENT;
		memcpy(part, path, n);
		part[n] = 0;
		path += n;
		rc = find_in(fs, cluster, part, &e);
	}
	if (rc)
		return rc;
	if (e.attr & ATTR_DIR)
		return -ENOENT;
	x = f->priv = NEW(struct fat_file);
	if (!x)
		return -ENOMEM;
	f->size = le32_get(e.size);
	return load_chain(
		fs, le16_get(e.cluster_lo) | (uint32_t)le16_get(e.cluster_hi) << 16,
		&x->chain, &x->n);
}

static int fat_file_read(struct fs_file *f, void *buf, uint64_t off, size_t len)
{
	const struct fat_file *x = f->priv;

	return read_chain(f->fs, x->chain, x->n, buf, off, len);
}

static void fat_file_close(struct fs_file *f)
{
	free(((struct fat_file *)f->priv)->chain);
}

/* ---- operations ---- */

/* The label in the root directory is the one that programs change. */
static void read_label(struct fs *fs, const struct fat_boot *b)
{
	const struct fat *x = fs->priv;
	const uint8_t *old = (const uint8_t *)b;
	uint32_t serial = x->bits == 32 ? le32_get(b->serial) : load_u32(old + 39);
	size_t n;
	struct fat_entry *dir = load_dir(fs, 0, &n);

	snprintf(fs->info.uuid, sizeof(fs->info.uuid), "%04X-%04X", serial >> 16,
		 serial & 0xffff);
	for (size_t i = 0; dir && i < n && dir[i].name[0]; i++)
		if ((uint8_t)dir[i].name[0] != 0xe5 && dir[i].attr != ATTR_LONG &&
		    dir[i].attr & ATTR_VOLUME) {
			fs_label(fs, dir[i].name, 11);
			break;
		}
	free(dir);
}

static int fat_open(struct fs *fs, struct err *err)
{
	struct fat_boot b;
	int rc;

	fs->priv = NEW(struct fat);
	if (!fs->priv || fs_read(fs, &b, 0, sizeof(b)))
		return err_set(err, EIO, "cannot read a FAT boot sector");
	rc = read_layout(fs, &b, err);
	if (rc)
		return rc;
	read_state(fs, &b);
	read_label(fs, &b);
	count_free(fs, &b);
	return 0;
}

static void fat_close(struct fs *fs)
{
	struct fat *x = fs->priv;

	if (x)
		free(x->table);
}

static int fat_used(struct fs *fs, struct ranges *used, struct err *err)
{
	const struct fat *x = fs->priv;
	int rc;

	if (load_table(fs))
		return err_set(err, EIO, "cannot read the FAT");
	rc = ranges_add(used, 0, x->data);
	for (uint32_t i = 2; i < x->clusters + 2 && !rc; i++)
		if (entry(x, i))
			rc = ranges_add(used, x->data + (i - 2) * x->cluster,
					x->cluster);
	/* sectors behind the last whole cluster */
	if (!rc)
		rc = ranges_add(used, x->data + x->clusters * x->cluster,
				fs->info.size - x->data - x->clusters * x->cluster);
	return rc;
}

const struct fs_ops fs_fat = {
	.types = (const char *const[]){"vfat", "msdos", NULL},
	.open = fat_open,
	.close = fat_close,
	.used = fat_used,
	.file_open = fat_file_open,
	.file_read = fat_file_read,
	.file_close = fat_file_close,
};

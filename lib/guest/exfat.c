/* guest/exfat.c - exFAT (Microsoft's specification 1.00): what is used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/fs_int.h"

#include "base/guid.h"
#include "base/mem.h"

#define MAX_BITMAP (256u << 20)
#define MAX_DIR    (1u << 20)

enum { ENTRY_BITMAP = 0x81, ENTRY_LABEL = 0x83 };

struct exfat {
	uint64_t fat, data, cluster; /* bytes */
	uint32_t clusters, root;     /* clusters are numbered from 2 */
	uint32_t bitmap_first;
	uint64_t bitmap_bytes;
};

/* Reads what begins at cluster `c`, along its chain: at most `len` bytes, *got of them. */
static int read_chain(struct fs *fs, uint32_t c, uint8_t *buf, uint64_t len,
		      uint64_t *got)
{
	const struct exfat *x = fs->priv;
	uint64_t at = 0;

	while (at < len && c >= 2 && c < x->clusters + 2) {
		uint64_t n = min_u64(len - at, x->cluster);
		le32 next;

		if (fs_read(fs, buf + at, x->data + (c - 2) * x->cluster, n) ||
		    fs_read(fs, &next, x->fat + c * 4ull, 4))
			return -EIO;
		at += n;
		c = le32_get(next);
	}
	*got = at;
	return 0;
}

static int read_root(struct fs *fs, struct err *err)
{
	struct exfat *x = fs->priv;
	uint8_t *dir = mem_new(MAX_DIR, 1);
	uint64_t n = 0;

	if (!dir || read_chain(fs, x->root, dir, MAX_DIR, &n)) {
		free(dir);
		return err_set(err, EIO, "cannot read the root directory");
	}
	for (uint64_t i = 0; i + 32 <= n && dir[i]; i += 32) {
		const uint8_t *e = dir + i;

		if (e[0] == ENTRY_BITMAP && !x->bitmap_first) {
			x->bitmap_first = load_u32(e + 20);
			x->bitmap_bytes = load_u64(e + 24);
		} else if (e[0] == ENTRY_LABEL) {
			char *text =
				utf16_to_utf8(e + 2, min_u64(e[1], 11) * 2ull, false);

			if (text)
				fs_label(fs, text, strlen(text));
			free(text);
		}
	}
	free(dir);
	if (!x->bitmap_first || x->bitmap_bytes < (x->clusters + 7ull) / 8 ||
	    x->bitmap_bytes > MAX_BITMAP)
		return fs_damaged(fs, err, "it has no map of what is used");
	return 0;
}

static uint8_t *load_bitmap(struct fs *fs)
{
	const struct exfat *x = fs->priv;
	uint8_t *bits = mem_new(x->bitmap_bytes + 8, 1);
	uint64_t n = 0;

	if (bits && (read_chain(fs, x->bitmap_first, bits, x->bitmap_bytes, &n) ||
		     n < x->bitmap_bytes)) {
		free(bits);
		return NULL;
	}
	return bits;
}

static void count_free(struct fs *fs)
{
	const struct exfat *x = fs->priv;
	uint8_t *bits = x->bitmap_bytes <= 8u << 20 ? load_bitmap(fs) : NULL;
	uint64_t used = 0;

	if (!bits)
		return;
	for (uint32_t i = 0; i < x->clusters; i++)
		used += (bits[i / 8] >> (i % 8)) & 1;
	fs->info.free = (x->clusters - used) * x->cluster;
	fs->info.has_free = true;
	free(bits);
}

static int exfat_open(struct fs *fs, struct err *err)
{
	uint8_t b[512];
	struct exfat *x = fs->priv = NEW(struct exfat);
	unsigned sector, cluster;
	uint64_t sectors;
	int rc;

	if (!x || fs_read(fs, b, 0, sizeof(b)))
		return err_set(err, EIO, "cannot read an exFAT boot sector");
	sector = b[108];
	cluster = b[109];
	sectors = load_u64(b + 72);
	if (sector < 9 || sector > 12 || cluster > 25 - sector ||
	    sectors > fs->len >> sector)
		return fs_damaged(fs, err, "its boot sector makes no sense");
	x->cluster = 1ull << (sector + cluster);
	x->fat = (uint64_t)load_u32(b + 80) << sector;
	x->data = (uint64_t)load_u32(b + 88) << sector;
	x->clusters = load_u32(b + 92);
	x->root = load_u32(b + 96);
	fs->info.size = sectors << sector;
	fs->info.block = (uint32_t)x->cluster;
	if (x->clusters > UINT32_MAX - 16 ||
	    !range_ok(x->data, x->clusters * x->cluster, fs->info.size) ||
	    !range_ok(x->fat, (x->clusters + 2ull) * 4, fs->info.size))
		return fs_damaged(fs, err, "it is larger than it says");
	if (load_u16(b + 106) & 2)
		fs_not_clean(fs, FS_DIRTY, "the file system was not unmounted");
	if (load_u16(b + 106) & 1 || b[110] != 1)
		return err_set(err, ENOTSUP, "exFAT with two tables is not known");
	snprintf(fs->info.uuid, sizeof(fs->info.uuid), "%04X-%04X",
		 load_u32(b + 100) >> 16, load_u32(b + 100) & 0xffff);
	rc = read_root(fs, err);
	if (!rc)
		count_free(fs);
	return rc;
}

static int exfat_used(struct fs *fs, struct ranges *used, struct err *err)
{
	const struct exfat *x = fs->priv;
	uint8_t *bits = load_bitmap(fs);
	uint64_t end = x->data + x->clusters * x->cluster;
	int rc;

	if (!bits)
		return err_set(err, EUCLEAN, "its map of what is used cannot be read");
	rc = ranges_add(used, 0, x->data);
	if (!rc)
		rc = ranges_add_bits(used, bits, x->clusters, true, x->data,
				     x->cluster);
	if (!rc)
		rc = ranges_add(used, end, fs->info.size - end);
	free(bits);
	return rc;
}

const struct fs_ops fs_exfat = {
	.types = (const char *const[]){"exfat", NULL},
	.open = exfat_open,
	.used = exfat_used,
};

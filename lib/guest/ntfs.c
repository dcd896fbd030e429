/* guest/ntfs.c - NTFS: what it is, whether it was left in order, what is used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/ntfs_int.h"

#include "base/guid.h"
#include "base/mem.h"

#define PIECE (1u << 20) /* of the bitmap, at a time */

/* ---- state ---- */

/*
 * Was the journal closed? Its first two pages say which clients have it open. Version 2 is what Windows 8 and
 * later have while it is mounted, and leave behind with "fast startup".
 */
static void check_log(struct fs *fs)
{
	struct ntfs_stream s;
	uint64_t newest = 0;
	bool any = false, open = false, blank = true;

	if (ntfs_stream_open(fs, REC_LOG, NTFS_DATA, "", &s)) {
		fs_not_clean(fs, FS_DIRTY, "the journal cannot be read");
		return;
	}
	for (uint64_t at = 0; at <= 4096; at += 4096) {
		uint8_t p[512];
		uint32_t area;

		if (ntfs_stream_read(&s, p, at, sizeof(p)))
			continue;
		for (unsigned i = 0; i < sizeof(p); i++)
			blank &= p[i] == 0xff;
		area = load_u16(p + 24);
		if (memcmp(p, "RSTR", 4) || area + 48 > sizeof(p) - 2)
			continue;
		if (any && load_u64(p + area) < newest)
			continue;
		newest = load_u64(p + area);
		any = true;
		/* no client has it open, or it says "clean" */
		open = (load_u16(p + area + 12) != 0xffff &&
			!(load_u16(p + area + 14) & 2)) ||
		       load_u16(p + 28) >= 2;
	}
	ntfs_stream_fini(&s);
	if (!blank && (open || !any))
		fs_not_clean(fs, FS_DIRTY,
			     "the journal is open: Windows did not shut down "
			     "(or has fast startup)");
}

static void check_hibernation(struct fs *fs)
{
	struct fs_file *f;
	char head[4] = "";

	if (fs_file_open(fs, "/hiberfil.sys", &f))
		return;
	if (fs_file_size(f) >= 4096 && !fs_file_read(f, head, 0, 4) &&
	    (!memcmp(head, "hibr", 4) || !memcmp(head, "HIBR", 4) ||
	     !memcmp(head, "RSTR", 4)))
		fs_not_clean(fs, FS_HIBERNATED,
			     "Windows is hibernated (or has fast startup)");
	fs_file_close(f);
}

static void read_volume(struct fs *fs)
{
	struct ntfs_stream s;
	char *text;

	if (!ntfs_stream_open(fs, REC_VOLUME, NTFS_VOLUME_NAME, "", &s)) {
		text = s.resident ? utf16_to_utf8(s.resident, s.size & ~1ull, false)
				  : NULL;
		if (text)
			fs_label(fs, text, strlen(text));
		free(text);
		ntfs_stream_fini(&s);
	}
	if (ntfs_stream_open(fs, REC_VOLUME, NTFS_VOLUME_INFO, "", &s)) {
		fs_not_clean(fs, FS_DIRTY, "it does not tell its state");
		return;
	}
	if (!s.resident || s.size < 12)
		fs_not_clean(fs, FS_DIRTY, "it does not tell its state");
	else if (load_u16(s.resident + 10) & 0x4001)
		fs_not_clean(fs, FS_DIRTY, "it is marked dirty: chkdsk is wanted");
	ntfs_stream_fini(&s);
}

/* ---- the map of clusters ---- */

/*
 * Adds the used clusters to `used` (if it is wanted) and counts them. The map is read piece by piece; what lies
 * before the end of the volume and is not in it makes it damaged.
 */
static int walk_bitmap(struct fs *fs, struct ranges *used, uint64_t *count)
{
	const struct ntfs *x = fs->priv;
	uint64_t bytes = (x->clusters + 7) / 8;
	struct ntfs_stream s;
	uint8_t *buf = mem_new(PIECE, 1);
	int rc = buf ? ntfs_stream_open(fs, REC_BITMAP, NTFS_DATA, "", &s) : -ENOMEM;

	if (rc) {
		free(buf);
		return rc;
	}
	*count = 0;
	for (uint64_t at = 0; at < bytes && !rc; at += PIECE) {
		uint64_t n = min_u64(PIECE, bytes - at), bits, i;

		bits = min_u64(n * 8, x->clusters - at * 8);
		rc = ntfs_stream_read(&s, buf, at, n);
		for (i = 0; !rc && i + 64 <= bits; i += 64)
			*count += (uint64_t)__builtin_popcountll(load_u64(buf + i / 8));
		for (; !rc && i < bits; i++)
			*count += (buf[i / 8] >> (i % 8)) & 1;
		if (!rc && used)
			rc = ranges_add_bits(used, buf, bits, true, at * 8 * x->cluster,
					     x->cluster);
	}
	ntfs_stream_fini(&s);
	free(buf);
	return rc;
}

/* ---- operations ---- */

static int read_boot(struct fs *fs, uint64_t *mft, struct err *err)
{
	struct ntfs *x = fs->priv;
	uint8_t b[512];
	int8_t record;
	uint64_t sectors;

	if (fs_read(fs, b, 0, sizeof(b)))
		return err_set(err, EIO, "cannot read an NTFS boot sector");
	x->sector = load_u16(b + 11);
	/* above 128: a negative power of two */
	x->cluster = x->sector * (b[13] > 0x80 ? 1u << ((256u - b[13]) & 15) : b[13]);
	sectors = load_u64(b + 40);
	record = (int8_t)b[64];
	x->record = record > 0 ? (uint32_t)record * x->cluster : 1u << (-record & 31);
	if (memcmp(b + 3, "NTFS    ", 8) || !is_pow2(x->sector) || x->sector < 256 ||
	    x->sector > 4096 || !is_pow2(x->cluster) || x->cluster > 2u << 20 ||
	    !is_pow2(x->record) || x->record < 512 || x->record > 65536 ||
	    sectors >= fs->len / x->sector + 1 || !sectors)
		return fs_damaged(fs, err, "its boot sector makes no sense");
	x->clusters = sectors * x->sector / x->cluster;
	*mft = load_u64(b + 48);
	if (*mft >= x->clusters)
		return fs_damaged(fs, err, "its file table is behind its end");
	fs->info.size = x->clusters * x->cluster;
	fs->info.block = x->cluster;
	snprintf(fs->info.uuid, sizeof(fs->info.uuid), "%016llX",
		 (unsigned long long)load_u64(b + 72));
	return 0;
}

static int ntfs_open(struct fs *fs, struct err *err)
{
	uint64_t mft = 0, count;
	const struct ntfs *x = fs->priv = NEW(struct ntfs);
	int rc;

	if (!x)
		return err_set(err, ENOMEM, "no memory");
	rc = read_boot(fs, &mft, err);
	if (rc)
		return rc;
	if (ntfs_mft_open(fs, mft))
		return fs_damaged(fs, err, "its file table cannot be read");
	read_volume(fs);
	check_log(fs);
	check_hibernation(fs);
	/* 8 MiB of map: 256 GiB */
	if (x->clusters <= 64u << 20 && !walk_bitmap(fs, NULL, &count)) {
		fs->info.free = (x->clusters - count) * x->cluster;
		fs->info.has_free = true;
	}
	return 0;
}

static void ntfs_close(struct fs *fs)
{
	struct ntfs *x = fs->priv;

	if (x)
		ntfs_stream_fini(&x->mft);
}

static int ntfs_used(struct fs *fs, struct ranges *used, struct err *err)
{
	uint64_t count;
	int rc = walk_bitmap(fs, used, &count);

	if (rc == -ENOMEM || rc == -EFBIG)
		return rc;
	if (rc)
		return fs_damaged(fs, err, "its map of clusters cannot be read");
	/* The spare boot sector is behind the last cluster: fs_used() takes it with the rest. */
	return ranges_add(used, 0, 8192);
}

const struct fs_ops fs_ntfs = {
	.types = (const char *const[]){"ntfs", NULL},
	.open = ntfs_open,
	.close = ntfs_close,
	.used = ntfs_used,
	.file_open = ntfs_file_open,
	.file_read = ntfs_file_read,
	.file_close = ntfs_file_close,
	.file_ranges = ntfs_file_ranges,
};

/*
 * part/content.c - what is in a partition, by libblkid on a view of where file systems, volume managers and
 * encryption have their marks.
 */
#include <blkid/blkid.h>
#include <stdio.h>
#include <string.h>

#include "part/part.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "img/img.h"
#include "part/view.h"

/* Where marks are, from the beginning; and at the end (RAID, ZFS). */
/* clang-format off */
static const struct img_range marks[] = {
	{0, 512u << 10},
	{1u << 20, 64u << 10},   /* VMFS volumes */
	{2u << 20, 4096},        /* VMFS */
	{64u << 20, 4096},       /* the second superblock of btrfs */
};
/* clang-format on */
#define END_BYTES (256u << 10)

/* NTFS has its label in the fourth record of a table that may be anywhere, BitLocker its
 * metadata. */
static int fill_pointed(struct view *v, struct err *err)
{
	uint8_t b[512];
	uint64_t cluster;
	int rc = 0;

	if (v->len < sizeof(b) || view_read(v, b, 0, sizeof(b)))
		return 0;
	cluster = (uint64_t)load_u16(b + 11) * b[13];
	if (!memcmp(b + 3, "NTFS    ", 8) && cluster <= 2u << 20 &&
	    load_u64(b + 0x30) < v->len)
		rc = view_fill(v, load_u64(b + 0x30) * cluster, 65536, err);
	if (!memcmp(b + 3, "-FVE-FS-", 8))
		for (unsigned i = 0; i < 3 && !rc; i++)
			rc = view_fill(v, load_u64(b + 0xb0 + 8 * i), 4096, err);
	return rc;
}

static int fill(struct view *v, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(marks) && !rc; i++)
		rc = view_fill(v, marks[i].off, marks[i].len, err);
	if (!rc && v->len > END_BYTES)
		rc = view_fill(v, align_down(v->len - END_BYTES, 4096),
			       END_BYTES + 4096, err);
	return rc ? rc : fill_pointed(v, err);
}

static void value(blkid_probe pr, const char *name, char *to, size_t size)
{
	const char *text;
	size_t len;

	if (blkid_probe_lookup_value(pr, name, &text, &len))
		return;
	snprintf(to, size, "%.*s", (int)min_u64(len, size - 1), text);
	/* it may be printed: control characters go */
	for (; *to; to++)
		if ((unsigned char)*to < 0x20 || *to == 0x7f)
			*to = '?';
}

static int probe(struct view *v, struct part_content *c, struct err *err)
{
	blkid_probe pr = blkid_new_probe();
	int rc;

	if (!pr || blkid_probe_set_device(pr, v->fd, 0, (blkid_loff_t)v->len)) {
		blkid_free_probe(pr);
		return err_set(err, ENOMEM, "cannot look for file systems");
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(
		pr, BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID | BLKID_SUBLKS_TYPE |
			    BLKID_SUBLKS_USAGE | BLKID_SUBLKS_VERSION);
	rc = blkid_do_safeprobe(pr);
	c->ambivalent = rc == -2;
	if (!rc) {
		value(pr, "TYPE", c->type, sizeof(c->type));
		value(pr, "USAGE", c->usage, sizeof(c->usage));
		value(pr, "LABEL", c->label, sizeof(c->label));
		value(pr, "UUID", c->uuid, sizeof(c->uuid));
		value(pr, "VERSION", c->version, sizeof(c->version));
	}
	blkid_free_probe(pr);
	return 0;
}

int part_recognize(struct img *img, uint64_t off, uint64_t len, struct part_content *c,
		   struct err *err)
{
	struct view v;
	int rc;

	*c = (struct part_content){0};
	if (len < 512)
		return 0;
	rc = view_open(&v, img, off, len, err);
	if (rc)
		return rc;
	rc = fill(&v, err);
	if (!rc)
		rc = probe(&v, c, err);
	view_close(&v);
	return rc;
}

/*
 * part/table.c - partition tables, by libblkid on a view of the sectors that hold them.
 *
 * UEFI specification 2.9, section 5 (GPT); the chain of an MBR's logical partitions has no standard: each
 * extended boot record names one partition and the next record, relative to the extended partition.
 */
#include <blkid/blkid.h>
#include <libfdisk/libfdisk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "part/part.h"

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/img.h"
#include "part/part_int.h"

#define ENDS      (64u << 10) /* at both ends of the image: all small tables */
#define MAX_CHAIN 256
#define MAX_GPT   (4u << 20) /* bytes of entries */

struct mbr_entry {
	uint8_t active, chs[3], type, chs_end[3];
	le32 start, sectors;
};

struct mbr {
	uint8_t code[440];
	le32 id;
	le16 zero;
	struct mbr_entry entry[4];
	uint8_t magic[2];
};
_Static_assert(sizeof(struct mbr) == 512, "one sector");

struct gpt_head {
	char magic[8];
	le32 revision, size, crc, zero;
	le64 self, other, first, last;
	uint8_t guid[16];
	le64 entries;
	le32 n, entry_size, entries_crc;
};

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

/* Brings the chain of logical partitions in. */
static int fill_chain(struct view *v, uint64_t first, struct err *err)
{
	uint64_t at = first;

	for (unsigned i = 0; i < MAX_CHAIN; i++) {
		struct mbr m;
		uint64_t next = 0;
		int rc = view_fill(v, at * 512, 512, err);

		if (rc)
			return rc;
		if (view_read(v, &m, at * 512, sizeof(m)) || m.magic[0] != 0x55 ||
		    m.magic[1] != 0xaa)
			return 0;
		for (unsigned k = 0; k < 4; k++)
			if (is_extended(m.entry[k].type) &&
			    le32_get(m.entry[k].sectors))
				next = first + le32_get(m.entry[k].start);
		if (next <= at)
			return 0;
		at = next;
	}
	return 0;
}

static int fill_mbr(struct view *v, const struct mbr *m, struct err *err)
{
	int rc = 0;

	if (m->magic[0] != 0x55 || m->magic[1] != 0xaa)
		return 0;
	for (unsigned i = 0; i < 4 && !rc; i++) {
		uint64_t start = le32_get(m->entry[i].start);

		if (!m->entry[i].type || !start)
			continue;
		rc = is_extended(m->entry[i].type)
			     ? fill_chain(v, start, err)
			     /* tables within partitions: BSD, Solaris, Minix */
			     : view_fill(v, start * 512, 8192, err);
	}
	return rc;
}

/* Brings the entries of the GPT header at `at` in. */
static int fill_gpt(struct view *v, uint64_t at, uint32_t sector, bool *found,
		    struct err *err)
{
	struct gpt_head h;
	uint64_t bytes;

	if (view_read(v, &h, at, sizeof(h)) || memcmp(h.magic, "EFI PART", 8))
		return 0;
	*found = true;
	bytes = (uint64_t)le32_get(h.n) * le32_get(h.entry_size);
	if (bytes > MAX_GPT || le64_get(h.entries) > v->len / sector)
		return 0;
	return view_fill(v, le64_get(h.entries) * sector, bytes, err);
}

/* All that libblkid looks at to find a table. */
int part_fill_tables(struct view *v, struct part_table *t, struct err *err)
{
	bool small = false, large = false;
	struct mbr m;
	int rc = view_fill(v, 0, ENDS, err);

	if (!rc && v->len > ENDS)
		rc = view_fill(v, align_down(v->len - ENDS, 4096), ENDS + 4096, err);
	if (!rc && v->len >= sizeof(m)) {
		if (view_read(v, &m, 0, sizeof(m)))
			return err_set(err, EIO, "cannot read the first sector of '%s'",
				       img_path(v->img));
		rc = fill_mbr(v, &m, err);
		for (unsigned i = 0; i < sizeof(m.code); i++)
			t->boot_code |= m.code[i] != 0;
		t->boot_code &= m.magic[0] == 0x55 && m.magic[1] == 0xaa;
	}
	for (uint32_t s = 512; s <= 4096 && !rc; s *= 8) {
		bool *found = s == 512 ? &small : &large;

		rc = fill_gpt(v, s, s, found, err);
		if (!rc && v->len >= s)
			rc = fill_gpt(v, align_down(v->len, s) - s, s, found, err);
	}
	t->sector = large && !small ? 4096 : 512;
	return rc;
}

/* What comes from a disk may be printed: control characters go. */
static void copy_text(char *to, size_t size, const char *from)
{
	if (!from)
		return;
	snprintf(to, size, "%s", from);
	for (; *to; to++)
		if ((unsigned char)*to < 0x20 || *to == 0x7f)
			*to = '?';
}

/* The table's own names of types, by libfdisk. */
static void name_type(struct fdisk_context *fdisk, const char *table, struct part *p,
		      unsigned code)
{
	struct fdisk_label *lb = fdisk ? fdisk_get_label(fdisk, table) : NULL;
	struct fdisk_parttype *type;
	char upper[40];
	unsigned i;

	if (!lb)
		return;
	for (i = 0; p->type[i] && i < sizeof(upper) - 1; i++)
		upper[i] = p->type[i] >= 'a' && p->type[i] <= 'z' ? p->type[i] - 32
								  : p->type[i];
	upper[i] = 0;
	type = !strcmp(table, "gpt") ? fdisk_label_get_parttype_from_string(lb, upper)
				     : fdisk_label_get_parttype_from_code(lb, code);
	if (type)
		copy_text(p->type_name, sizeof(p->type_name),
			  fdisk_parttype_get_name(type));
}

static bool take(struct part_table *t, blkid_partition b, uint64_t size,
		 struct fdisk_context *fdisk)
{
	struct part *p = &t->v[t->n];
	uint64_t start = (uint64_t)blkid_partition_get_start(b);
	uint64_t sectors = (uint64_t)blkid_partition_get_size(b);
	int code = blkid_partition_get_type(b);
	const char *text = blkid_partition_get_type_string(b);

	*p = (struct part){.number = (unsigned)blkid_partition_get_partno(b)};
	if (start >= size / 512 || !sectors)
		return false;
	p->off = start * 512;
	p->cut = sectors > (size - p->off + 511) / 512;
	p->len = p->cut ? size - p->off : min_u64(sectors * 512, size - p->off);
	if (text)
		copy_text(p->type, sizeof(p->type), text);
	else
		snprintf(p->type, sizeof(p->type), "0x%02x", (unsigned)code & 0xff);
	copy_text(p->name, sizeof(p->name), blkid_partition_get_name(b));
	copy_text(p->uuid, sizeof(p->uuid), blkid_partition_get_uuid(b));
	p->logical = blkid_partition_is_logical(b);
	p->extended = blkid_partition_is_extended(b);
	if (!strcmp(t->type, "dos"))
		p->active = blkid_partition_get_flags(b) & 0x80;
	else if (!strcmp(t->type, "gpt"))
		p->active = blkid_partition_get_flags(b) & 4; /* legacy BIOS bootable */
	name_type(fdisk, t->type, p, (unsigned)code);
	return true;
}

static int by_number(const void *a, const void *b)
{
	const struct part *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static int take_all(struct part_table *t, blkid_partlist list, uint64_t size,
		    struct err *err)
{
	int n = blkid_partlist_numof_partitions(list);
	blkid_parttable root =
		n ? blkid_partition_get_table(blkid_partlist_get_partition(list, 0))
		  : NULL;
	struct fdisk_context *fdisk;

	if (root) {
		copy_text(t->type, sizeof(t->type), blkid_parttable_get_type(root));
		copy_text(t->id, sizeof(t->id), blkid_parttable_get_id(root));
	}
	n = n > PART_MAX ? PART_MAX : n;
	t->v = mem_new((size_t)n + 1, sizeof(*t->v));
	if (!t->v)
		return err_set(err, ENOMEM, "no memory for a partition table");
	fdisk = fdisk_new_context();
	for (int i = 0; i < n; i++)
		if (take(t, blkid_partlist_get_partition(list, i), size, fdisk))
			t->n++;
	fdisk_unref_context(fdisk);
	qsort(t->v, t->n, sizeof(*t->v), by_number);
	return 0;
}

/* A table without entries. */
static void take_empty(struct part_table *t, blkid_probe pr)
{
	const char *text;

	if (strcmp(t->type, "none"))
		return;
	if (!blkid_probe_lookup_value(pr, "PTTYPE", &text, NULL))
		copy_text(t->type, sizeof(t->type), text);
	if (!blkid_probe_lookup_value(pr, "PTUUID", &text, NULL))
		copy_text(t->id, sizeof(t->id), text);
}

static int probe(struct view *v, struct part_table *t, struct err *err)
{
	blkid_probe pr = blkid_new_probe();
	blkid_partlist list;
	int rc = 0;

	if (!pr || blkid_probe_set_device(pr, v->fd, 0, (blkid_loff_t)v->len)) {
		blkid_free_probe(pr);
		return err_set(err, ENOMEM, "cannot look for a partition table");
	}
	if (t->sector != 512)
		blkid_probe_set_sectorsize(pr, t->sector);
	blkid_probe_enable_superblocks(pr, 0);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_ENTRY_DETAILS);
	list = blkid_probe_get_partitions(pr);
	if (list)
		rc = take_all(t, list, v->len, err);
	if (!rc && !t->n && !blkid_do_safeprobe(pr))
		take_empty(t, pr);
	blkid_free_probe(pr);
	return rc;
}

int part_table_read(struct img *img, struct part_table *t, struct err *err)
{
	struct view v;
	int rc;

	*t = (struct part_table){.type = "none", .sector = 512};
	if (!img_size(img))
		return 0;
	rc = view_open(&v, img, 0, img_size(img), err);
	if (rc)
		return rc;
	rc = part_fill_tables(&v, t, err);
	if (!rc)
		rc = probe(&v, t, err);
	view_close(&v);
	if (rc)
		part_table_free(t);
	return rc;
}

void part_table_free(struct part_table *t)
{
	free(t->v);
	t->v = NULL;
	t->n = 0;
}

const struct part *part_find(const struct part_table *t, unsigned number)
{
	for (unsigned i = 0; i < t->n; i++)
		if (t->v[i].number == number)
			return &t->v[i];
	return NULL;
}

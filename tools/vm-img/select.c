/* vm-img/select.c - which parts of a disk are copied: what its file systems use, chosen partitions. */
#include <stdlib.h>
#include <string.h>

#include "vm-img.h"
#include "select.h"

#include "base/bits.h"
#include "base/mem.h"
#include "base/size.h"
#include "guest/scan.h"

static const char *name_of(const struct guest_volume *v, char buf[32])
{
	if (!v->part.number)
		return "disk";
	snprintf(buf, 32, "partition %u", v->part.number);
	return buf;
}

/* ---- what is used ---- */

static void report_used(struct select *s, const struct volume_used *u)
{
	char name[32], kept[16], dropped[16];
	const char *type = u->v->content.type;

	size_format(u->used, kept, sizeof(kept));
	size_format(u->dropped, dropped, sizeof(dropped));
	str_addf(&s->report, "%s%s%s%s: ", name_of(u->v, name), *type ? " (" : "", type,
		 *type ? ")" : "");
	if (u->verdict == VOLUME_MAPPED)
		str_addf(&s->report, "%s used, %s free: dropped\n", kept, dropped);
	else
		str_addf(&s->report, "%s taken whole: %s\n", kept, u->why);
}

static int keep_used(struct select *s, struct guest_disk *d, struct img_work_list *work,
		     struct err *err)
{
	struct volume_used *report = mem_new(d->n + 1u, sizeof(*report));
	struct ranges used = {0};
	int rc = report ? guest_disk_used(d, &used, report, err)
			: err_set(err, ENOMEM, "no memory");

	if (!rc)
		rc = img_work_keep(work, used.v, used.n, err);
	for (unsigned i = 0; i < d->n && !rc; i++)
		report_used(s, &report[i]);
	ranges_fini(&used);
	free(report);
	return rc;
}

/* ---- chosen partitions ---- */

static bool is_chosen(const char *list, unsigned number)
{
	for (const char *p = list; *p; p += strspn(p, ",")) {
		char *end;

		if (strtoul(p, &end, 10) == number && end != p)
			return true;
		p = end + strcspn(end, ",");
	}
	return false;
}

/* Are all numbers of the list there? */
static int check_list(const char *list, const struct guest_disk *d)
{
	const char *p = list;

	do {
		char *end;
		unsigned long n = strtoul(p, &end, 10);
		const struct part *part;

		if (*p < '0' || *p > '9' || (*end && *end != ',') || n > UINT32_MAX)
			return usage(
				"--partition %s: numbers, with commas between, are "
				"wanted",
				list);
		part = part_find(&d->table, (unsigned)n);
		if (!part || part->extended) {
			struct err err;

			err_set(&err, ENOENT, "'%s' has no partition %lu",
				img_path(d->img), n);
			return fail(&err);
		}
		p = *end ? end + 1 : end;
	} while (*p);
	return 0;
}

/* The table, the gaps, and what was chosen stay. */
static int keep_chosen(struct select *s, struct guest_disk *d,
		       struct img_work_list *work, struct err *err)
{
	struct ranges others = {0}, keep = {0}, chosen = {0};
	char size[16], name[32];
	int rc = 0;

	for (unsigned i = 0; i < d->n && !rc; i++) {
		const struct part *p = &d->v[i].part;

		if (is_chosen(s->partitions, p->number)) {
			rc = ranges_add(&chosen, p->off, p->len);
			continue;
		}
		rc = ranges_add(&others, p->off, p->len);
		size_format(p->len, size, sizeof(size));
		str_addf(&s->report, "%s: %s dropped: not chosen\n",
			 name_of(&d->v[i], name), size);
	}
	ranges_sort(&others);
	if (!rc)
		rc = ranges_invert(&others, img_size(d->img), 0, &keep);
	/* partitions that overlap: what was chosen wins */
	for (size_t i = 0; i < chosen.n && !rc; i++)
		rc = ranges_add(&keep, chosen.v[i].off, chosen.v[i].len);
	ranges_sort(&keep);
	rc = rc ? err_set(err, -rc, "no memory")
		: img_work_keep(work, keep.v, keep.n, err);
	ranges_fini(&others);
	ranges_fini(&keep);
	ranges_fini(&chosen);
	return rc;
}

int select_apply(struct select *s, struct img *img, struct img_work_list *work)
{
	struct guest_disk d;
	struct err err = {0};
	int st = 0;

	if (guest_disk_open(img, &d, &err) < 0)
		return fail(&err);
	if (s->partitions)
		st = check_list(s->partitions, &d);
	if (!st && s->used_only && keep_used(s, &d, work, &err))
		st = fail(&err);
	if (!st && s->partitions && keep_chosen(s, &d, work, &err))
		st = fail(&err);
	guest_disk_close(&d);
	return st;
}

void select_fini(struct select *s)
{
	str_fini(&s->report);
}

int select_find(struct img *img, const char *number, uint64_t *off, uint64_t *len)
{
	struct part_table t;
	struct err err = {0};
	const struct part *p;
	char *end;
	unsigned long n = strtoul(number, &end, 10);
	int st = 0;

	if (*number < '0' || *number > '9' || *end || n > UINT32_MAX)
		return usage("'%s': the number of a partition is wanted", number);
	if (part_table_read(img, &t, &err) < 0)
		return fail(&err);
	p = part_find(&t, (unsigned)n);
	if (!p) {
		err_set(&err, ENOENT, "'%s' has no partition %lu", img_path(img), n);
		st = fail(&err);
	} else if (p->cut) {
		err_set(&err, EINVAL, "partition %lu of '%s' ends behind the disk", n,
			img_path(img));
		st = fail(&err);
	} else {
		*off = p->off;
		*len = p->len;
	}
	part_table_free(&t);
	return st;
}

/* guest/scan.c - what is on a disk, volume by volume; what of it is used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/scan.h"

#include "base/bits.h"
#include "base/mem.h"
#include "guest/os.h"
#include "img/img.h"

static void look_into(struct guest_disk *d, struct guest_volume *v)
{
	struct err err = {0};

	if (part_recognize(d->img, v->part.off, v->part.len, &v->content, &err)) {
		snprintf(v->error, sizeof(v->error), "%.159s", err.msg);
		return;
	}
	if (!fs_known(v->content.type))
		return;
	if (fs_open(d->img, v->part.off, v->part.len, v->content.type, &v->fs, &err)) {
		snprintf(v->error, sizeof(v->error), "%.159s", err.msg);
		return;
	}
	os_find(v->fs, &v->os);
}

/* Boot sectors of volumes (BitLocker's) may look like an MBR without entries. */
static void doubt_table(struct guest_disk *d)
{
	struct part_content c;

	if (!part_recognize(d->img, 0, img_size(d->img), &c, NULL) && *c.type)
		snprintf(d->table.type, sizeof(d->table.type), "none");
}

int guest_disk_open(struct img *img, struct guest_disk *d, struct err *err)
{
	int rc;

	*d = (struct guest_disk){.img = img};
	rc = part_table_read(img, &d->table, err);
	if (rc)
		return rc;
	d->v = mem_new(d->table.n + 1u, sizeof(*d->v));
	if (!d->v) {
		guest_disk_close(d);
		return err_set(err, ENOMEM, "no memory");
	}
	if (!d->table.n)
		doubt_table(d);
	if (!strcmp(d->table.type, "none")) {
		d->v[0].part.len = img_size(img);
		d->n = 1;
	}
	for (unsigned i = 0; i < d->table.n; i++)
		if (!d->table.v[i].extended)
			d->v[d->n++].part = d->table.v[i];
	for (unsigned i = 0; i < d->n; i++)
		look_into(d, &d->v[i]);
	return 0;
}

void guest_disk_close(struct guest_disk *d)
{
	for (unsigned i = 0; i < d->n; i++)
		fs_close(d->v[i].fs);
	free(d->v);
	part_table_free(&d->table);
	*d = (struct guest_disk){0};
}

/* ---- used ---- */

/* Does another partition share bytes with it? Then nothing is known of either. */
static bool overlaps(const struct guest_disk *d, const struct part *p)
{
	for (unsigned i = 0; i < d->table.n; i++) {
		const struct part *o = &d->table.v[i];

		if (o->number != p->number && !o->extended &&
		    range_overlap(p->off, p->len, o->off, o->len))
			return true;
	}
	return false;
}

static void whole(struct volume_used *u, const char *why)
{
	u->verdict = VOLUME_WHOLE;
	u->used = u->v->part.len;
	u->dropped = 0;
	snprintf(u->why, sizeof(u->why), "%s", why);
}

/* Adds what the volume's own map says is free to `dropped`. */
static int drop_free(struct guest_disk *d, struct volume_used *u,
		     struct ranges *dropped)
{
	const struct part *p = &u->v->part;
	struct ranges used = {0};
	struct err err = {0};
	int rc;

	if (overlaps(d, p) || p->cut) {
		whole(u, p->cut ? "it ends behind the disk"
				: "another partition overlaps it");
		return 0;
	}
	if (!u->v->fs) {
		whole(u, *u->v->error          ? u->v->error
			 : *u->v->content.type ? "not a file system that is known here"
					       : "nothing known is in it");
		return 0;
	}
	rc = fs_used(u->v->fs, &used, &err);
	if (rc) {
		whole(u, err.msg);
		ranges_fini(&used);
		return 0;
	}
	u->verdict = VOLUME_MAPPED;
	u->used = ranges_bytes(&used);
	u->dropped = p->len - u->used;
	rc = ranges_invert(&used, p->len, p->off, dropped);
	ranges_fini(&used);
	return rc;
}

int guest_disk_used(struct guest_disk *d, struct ranges *used,
		    struct volume_used *report, struct err *err)
{
	struct ranges dropped = {0};
	int rc = 0;

	for (unsigned i = 0; i < d->n && !rc; i++) {
		report[i] = (struct volume_used){.v = &d->v[i]};
		rc = drop_free(d, &report[i], &dropped);
	}
	ranges_sort(&dropped);
	if (!rc)
		rc = ranges_invert(&dropped, img_size(d->img), 0, used);
	ranges_fini(&dropped);
	return rc ? err_set(err, -rc, "too many pieces of the disk are used") : 0;
}

/*
 * part/grow.c - the last partition up to the end of the disk, by libfdisk on a view of the sectors that hold the table: what
 * differs in the view afterwards is what has to be written.
 */
#include "part/grow.h"

#include <errno.h>
#include <libfdisk/libfdisk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "img/img.h"
#include "part/part_int.h"

#define PIECE 512u

void part_growth_free(struct part_growth *g)
{
	for (size_t i = 0; i < g->n; i++)
		free(g->v[i].data);
	free(g->v);
	g->v = NULL;
	g->n = 0;
}

static int failed(const struct img *img, const char *what, int rc, struct err *err)
{
	return err_set(err, rc < 0 ? -rc : EIO,
		       "cannot change the partition table of '%s' (%s)", img_path(img),
		       what);
}

/* The second GPT, which is where the disk ended before. */
static int fill_second(struct view *v, uint32_t sector, struct err *err)
{
	uint8_t head[512];
	uint64_t at;

	if (view_read(v, head, sector, sizeof(head)) || memcmp(head, "EFI PART", 8))
		return 0;
	at = load_u64(head + 32);
	if (at < 64 || at > v->len / sector - 1)
		return 0;
	return view_fill(v, (at - 33) * sector, 34ull * sector, err);
}

/* ---- which one ---- */

static const struct part *find_last(const struct part_table *t, bool extended)
{
	const struct part *last = NULL;

	for (unsigned i = 0; i < t->n; i++) {
		const struct part *p = &t->v[i];

		if (p->extended == extended &&
		    (!last || p->off + p->len > last->off + last->len))
			last = p;
	}
	return last;
}

static int check_table(const struct img *img, const struct part_table *t,
		       const struct part *p, struct err *err)
{
	if (strcmp(t->type, "gpt") && strcmp(t->type, "dos"))
		return err_set(err, ENOTSUP,
			       "'%s' has a partition table of kind '%s': only GPT and "
			       "MBR are changed",
			       img_path(img), t->type);
	if (!p)
		return err_set(err, ENOENT, "'%s' has no partition that could grow",
			       img_path(img));
	if (p->cut)
		return err_set(err, EUCLEAN,
			       "partition %u of '%s' ends behind the disk's end",
			       p->number, img_path(img));
	/* Partitions within others: BSD disk labels and the like. */
	for (unsigned i = 0; i < t->n; i++)
		if (&t->v[i] != p && !t->v[i].extended && t->v[i].off >= p->off &&
		    t->v[i].off < p->off + p->len)
			return err_set(err, ENOTSUP,
				       "partitions %u and %u of '%s' overlap",
				       p->number, t->v[i].number, img_path(img));
	return 0;
}

/* ---- libfdisk ---- */

static int set_end(struct fdisk_context *f, unsigned number, uint64_t end,
		   uint64_t *start)
{
	struct fdisk_partition *old = NULL, *new = fdisk_new_partition();
	int rc = new ? fdisk_get_partition(f, number - 1, &old) : -ENOMEM;

	if (!rc && !fdisk_partition_has_start(old))
		rc = -EINVAL;
	if (!rc) {
		*start = fdisk_partition_get_start(old);
		if (end > *start + fdisk_partition_get_size(old)) {
			rc = fdisk_partition_set_size(new, end - *start);
			if (!rc)
				rc = fdisk_set_partition(f, number - 1, new);
		} else {
			end = *start + fdisk_partition_get_size(old);
		}
	}
	fdisk_unref_partition(old);
	fdisk_unref_partition(new);
	return rc;
}

static int change(struct view *v, const struct part_table *t, const struct part *p,
		  struct part_growth *g, struct err *err)
{
	struct fdisk_context *f = fdisk_new_context();
	const struct part *outer = p->logical ? find_last(t, true) : NULL;
	bool gpt = !strcmp(t->type, "gpt");
	uint64_t end, start = 0, outer_start;
	char path[64];
	int rc;

	if (!f)
		return failed(v->img, "no memory", -ENOMEM, err);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", v->fd);
	fdisk_disable_dialogs(f, 1);
	rc = fdisk_save_user_sector_size(f, t->sector, t->sector);
	if (!rc)
		rc = fdisk_assign_device(f, path, 0);
	if (rc || !fdisk_has_label(f)) {
		fdisk_unref_context(f);
		return failed(v->img, "libfdisk does not read it", rc, err);
	}
	/* What an MBR can tell ends at 2^32 sectors. */
	end = gpt ? fdisk_get_last_lba(f) + 1 : min_u64(v->len / t->sector, UINT32_MAX);
	if (outer)
		rc = set_end(f, outer->number, end, &outer_start);
	if (!rc)
		rc = set_end(f, p->number, end, &start);
	if (!rc)
		rc = fdisk_write_disklabel(f);
	if (!rc && start * t->sector != p->off)
		rc = -EUCLEAN;
	g->new_len = max_u64(p->len, end * t->sector - p->off);
	fdisk_deassign_device(f, 1);
	fdisk_unref_context(f);
	return rc ? failed(v->img, "libfdisk refuses it", rc, err) : 0;
}

/* ---- what differs ---- */

static int add_patch(struct part_growth *g, uint64_t off, const uint8_t *data)
{
	struct part_patch *v = mem_resize(g->v, g->n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	g->v = v;
	v += g->n;
	*v = (struct part_patch){off, PIECE, malloc(PIECE)};
	if (!v->data)
		return -ENOMEM;
	memcpy(v->data, data, PIECE);
	g->n++;
	return 0;
}

/* `before` holds what `v` held: the image itself may have more in the same pages. */
static int collect(struct view *v, struct view *before, struct part_growth *g,
		   struct err *err)
{
	uint8_t old[PIECE], now[PIECE];
	off_t at = 0, end;
	int rc = 0;

	while (!rc && (at = lseek(v->fd, at, SEEK_DATA)) >= 0) {
		end = lseek(v->fd, at, SEEK_HOLE);
		at = (off_t)align_down((uint64_t)at, PIECE);
		for (; at + (off_t)PIECE <= end && !rc; at += PIECE) {
			uint64_t off = (uint64_t)at;

			if (fd_pread_full(v->fd, now, PIECE, off) != PIECE ||
			    fd_pread_full(before->fd, old, PIECE, off) != PIECE)
				rc = -EIO;
			else if (memcmp(old, now, PIECE))
				rc = add_patch(g, off, now);
		}
		at = max_u64((uint64_t)at, (uint64_t)end);
	}
	return rc ? err_sys(err, -rc, "cannot read '%s'", img_path(v->img)) : 0;
}

static int open_filled(struct view *v, struct img *img, uint32_t sector,
		       struct err *err)
{
	struct part_table t = {0};
	int rc = view_open(v, img, 0, img_size(img), err);

	if (rc)
		return rc;
	rc = part_fill_tables(v, &t, err);
	if (!rc)
		rc = fill_second(v, sector, err);
	if (rc)
		view_close(v);
	return rc;
}

static int grow(struct img *img, const struct part_table *t, struct part_growth *g,
		struct err *err)
{
	const struct part *p = find_last(t, false);
	struct view v, before;
	int rc = check_table(img, t, p, err);

	if (!rc)
		rc = open_filled(&v, img, t->sector, err);
	if (rc)
		return rc;
	rc = open_filled(&before, img, t->sector, err);
	if (rc) {
		view_close(&v);
		return rc;
	}
	g->number = p->number;
	g->off = p->off;
	g->len = p->len;
	rc = change(&v, t, p, g, err);
	if (!rc)
		rc = collect(&v, &before, g, err);
	view_close(&before);
	view_close(&v);
	return rc;
}

int part_grow_last(struct img *img, struct part_growth *g, struct err *err)
{
	struct part_table t;
	int rc = part_table_read(img, &t, err);

	*g = (struct part_growth){0};
	if (rc)
		return rc;
	if (!strcmp(t.type, "none"))
		g->len = g->new_len = img_size(img);
	else
		rc = grow(img, &t, g, err);
	part_table_free(&t);
	if (rc)
		part_growth_free(g);
	return rc;
}

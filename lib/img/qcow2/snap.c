/*
 * img/qcow2/snap.c - qcow2's internal snapshots: their table, and making, applying, dropping and reading them.
 * One thread; nobody else uses the image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/qcow2/walk.h"

#define MAX_SNAPSHOTS 65536

/* A member of the table; extra data, id and name follow, and zeros up to a multiple of 8. */
struct disk_snap {
	be64 l1_off;
	be32 l1_n;
	be16 id_len, name_len;
	be32 date_sec, date_nsec;
	be64 clock;
	be32 vm_state, extra_len;
};
static_assert(sizeof(struct disk_snap) == 40, "as the specification has it");

/* Extra data, of which there may be less or more. */
struct disk_extra {
	be64 vm_state, disk_size, icount;
};

enum { MAX_EXTRA = 1024 };

/* ---- the table ---- */

static void snap_fini(struct snap *s)
{
	free(s->more);
	free(s->id);
	free(s->name);
}

void snaps_fini(struct snaps *s)
{
	for (size_t i = 0; i < s->n; i++)
		snap_fini(&s->v[i]);
	free(s->v);
	*s = (struct snaps){0};
}

static void take_extra(struct snap *s, const uint8_t *p, uint32_t len)
{
	struct disk_extra x = {0};

	memcpy(&x, p, min_u64(len, sizeof(x)));
	s->known = (uint32_t)min_u64(len, sizeof(x)) & ~7u;
	if (len >= 8)
		s->vm_state = be64_get(x.vm_state);
	if (len >= 16)
		s->disk_size = be64_get(x.disk_size);
	s->icount = len >= 24 ? be64_get(x.icount) : ~0ull;
	s->more_len = len > sizeof(x) ? len - (uint32_t)sizeof(x) : 0;
}

/* Reads one member at `off`; *len is how many bytes it takes. */
static int snap_read(const struct qcow2 *q, uint64_t off, struct snap *s, uint64_t *len)
{
	struct disk_snap d;
	uint32_t extra, id_len, name_len;
	uint8_t *p;
	int rc = file_read(q->file, &d, off, sizeof(d));

	if (rc)
		return rc;
	extra = be32_get(d.extra_len);
	id_len = be16_get(d.id_len);
	name_len = be16_get(d.name_len);
	if (extra > MAX_EXTRA)
		return -EINVAL;
	*s = (struct snap){
		.l1_off = be64_get(d.l1_off),
		.l1_n = be32_get(d.l1_n),
		.date_sec = be32_get(d.date_sec),
		.date_nsec = be32_get(d.date_nsec),
		.clock = be64_get(d.clock),
		.vm_state = be32_get(d.vm_state),
		.disk_size = q->img->size,
	};
	*len = align_up(sizeof(d) + extra + id_len + name_len, 8);
	p = mem_new(*len, 1);
	if (!p)
		return -ENOMEM;
	rc = file_read(q->file, p, off + sizeof(d), *len - sizeof(d));
	take_extra(s, p, extra);
	s->id = strndup((char *)p + extra, id_len);
	s->name = strndup((char *)p + extra + id_len, name_len);
	s->more = malloc(s->more_len + 1);
	if (!rc && (!s->id || !s->name || !s->more))
		rc = -ENOMEM;
	if (!rc)
		memcpy(s->more, p + sizeof(struct disk_extra), s->more_len);
	free(p);
	return rc;
}

int snaps_load(const struct qcow2 *q, struct snaps *s, struct err *err)
{
	uint64_t at = q->snapshots_off, len, end = file_size(q->file);
	int rc = 0;

	*s = (struct snaps){0};
	if (!q->n_snapshots)
		return 0;
	if (at & (q->cluster_size - 1) || q->n_snapshots > MAX_SNAPSHOTS || at >= end)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %u snapshots in a table at %llu",
			       q->img->path, q->n_snapshots, (unsigned long long)at);
	s->v = mem_new(q->n_snapshots, sizeof(s->v[0]));
	if (!s->v)
		return err_set(err, ENOMEM, "no memory for %u snapshots",
			       q->n_snapshots);
	while (s->n < q->n_snapshots && !rc) {
		rc = at >= end ? -EINVAL : snap_read(q, at, &s->v[s->n], &len);
		s->n++;
		at += rc ? 0 : len;
		s->bytes = at - q->snapshots_off;
		if (s->bytes > MAX_SNAPSHOT_TABLE)
			rc = -EINVAL;
	}
	if (!rc)
		return 0;
	if (rc == -EINVAL)
		err_set(err, EINVAL,
			"'%s' is damaged: snapshot %zu of %u in the table at 0x%llx",
			q->img->path, s->n, q->n_snapshots,
			(unsigned long long)q->snapshots_off);
	else
		err_sys(err, -rc, "cannot read the snapshots of '%s'", q->img->path);
	snaps_fini(s);
	return rc;
}

void snaps_build(const struct snaps *s, struct str *out)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct snap *x = &s->v[i];
		size_t id = strlen(x->id), name = strlen(x->name);
		uint32_t extra = x->known + x->more_len;
		struct disk_extra e = {be64_make(x->vm_state), be64_make(x->disk_size),
				       be64_make(x->icount)};
		struct disk_snap d = {
			.l1_off = be64_make(x->l1_off),
			.l1_n = be32_make(x->l1_n),
			.id_len = be16_make((uint16_t)id),
			.name_len = be16_make((uint16_t)name),
			.date_sec = be32_make(x->date_sec),
			.date_nsec = be32_make(x->date_nsec),
			.clock = be64_make(x->clock),
			.vm_state = be32_make(
				x->vm_state >> 32 ? 0xffffffff : (uint32_t)x->vm_state),
			.extra_len = be32_make(extra),
		};

		str_add(out, &d, sizeof(d));
		str_add(out, &e, x->known);
		str_add(out, x->more, x->more_len);
		str_add(out, x->id, id);
		str_add(out, x->name, name);
		str_add(out, NULL, align_up(out->len, 8) - out->len);
	}
}

/* By id, else by name. */
static struct snap *snap_find(struct snaps *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].id, name))
			return &s->v[i];
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].name, name))
			return &s->v[i];
	return NULL;
}

static int no_snapshot(const struct img *img, const char *name, struct err *err)
{
	return err_set(err, ENOENT, "'%s' has no snapshot '%s'", img->path, name);
}

/* ---- the list ---- */

static int snap_list(struct img *img, struct img_snapshot **v, size_t *n,
		     struct err *err)
{
	struct qcow2 *q = img->priv;
	struct snaps s;
	int rc = snaps_load(q, &s, err);

	if (rc)
		return rc;
	*n = 0;
	*v = mem_new(s.n + 1, sizeof(**v));
	for (size_t i = 0; *v && i < s.n; i++) {
		struct snap *x = &s.v[i];

		(*v)[(*n)++] = (struct img_snapshot){
			.id = x->id,
			.name = x->name,
			.vm_state_size = x->vm_state,
			.date_sec = x->date_sec,
			.date_nsec = x->date_nsec,
			.vm_clock_nsec = x->clock,
			.icount = x->icount,
			.has_icount = x->known >= 24 && x->icount != ~0ull,
			.disk_size = x->disk_size,
		};
		x->id = x->name = NULL;
	}
	snaps_fini(&s);
	return *v ? 0 : err_set(err, ENOMEM, "no memory for the snapshots");
}

/* ---- changes ---- */

/* Ids are numbers from 1 on. */
static char *next_id(const struct snaps *s)
{
	unsigned long max = 0;
	char *id;

	for (size_t i = 0; i < s->n; i++)
		max = max_u64(max, strtoul(s->v[i].id, NULL, 10));
	return asprintf(&id, "%lu", max + 1) < 0 ? NULL : id;
}

static int snap_add(struct remake *r, const char *name)
{
	struct qcow2 *q = r->q;
	uint64_t n = max_u64(1, (r->l1_n * 8 + q->cluster_size - 1) >> q->cluster_bits);
	struct snap *v = mem_resize(r->snaps.v, r->snaps.n + 1, sizeof(*v));
	struct timespec now;
	uint64_t first = 0;
	int rc;

	if (!v)
		return -ENOMEM;
	r->snaps.v = v;
	rc = remake_alloc(r, n, &first);
	if (rc)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	r->twin_off = first << q->cluster_bits;
	v += r->snaps.n;
	*v = (struct snap){
		.l1_off = r->twin_off,
		.l1_n = (uint32_t)r->l1_n,
		.date_sec = (uint32_t)now.tv_sec,
		.date_nsec = (uint32_t)now.tv_nsec,
		.disk_size = q->img->size,
		.icount = ~0ull,
		.known = sizeof(struct disk_extra),
		.id = next_id(&r->snaps),
		.name = strdup(name),
	};
	r->snaps.n++;
	r->snaps_changed = true;
	/* Counted as the active table's twin; until then it holds nothing. */
	return v->id && v->name
		       ? file_zero(q->file, r->twin_off, n << q->cluster_bits, false)
		       : -ENOMEM;
}

static int snap_create(struct img *img, const char *name, struct err *err)
{
	struct qcow2 *q = img->priv;
	struct remake r;
	int rc;

	if (q->external)
		return err_set(
			err, ENOTSUP,
			"'%s' has an external data file: it can have no snapshots",
			img->path);
	if (!*name || strlen(name) > 255)
		return err_set(err, EINVAL, "a snapshot's name has 1 to 255 bytes");
	rc = remake_begin(&r, q, false, err);
	if (rc)
		return rc;
	if (r.snaps.n >= MAX_SNAPSHOTS)
		rc = err_set(err, EFBIG, "'%s' has %u snapshots, there can be no more",
			     img->path, MAX_SNAPSHOTS);
	else if (snap_find(&r.snaps, name))
		rc = err_set(err, EEXIST, "'%s' has a snapshot '%s' already", img->path,
			     name);
	else if ((rc = snap_add(&r, name)))
		err_sys(err, -rc, "cannot make a snapshot of '%s'", img->path);
	if (rc) {
		remake_abort(&r);
		return rc;
	}
	return remake_commit(&r, err);
}

static int snap_remove(struct img *img, const char *name, struct err *err)
{
	struct remake r;
	struct snap *s;
	int rc = remake_begin(&r, img->priv, false, err);

	if (rc)
		return rc;
	s = snap_find(&r.snaps, name);
	if (!s) {
		remake_abort(&r);
		return no_snapshot(img, name, err);
	}
	snap_fini(s);
	r.snaps.n--;
	memmove(s, s + 1, (size_t)(r.snaps.v + r.snaps.n - s) * sizeof(*s));
	r.snaps_changed = true;
	return remake_commit(&r, err);
}

/* Reads a snapshot's L1 table, with at least the entries that `size` bytes need. */
static int snap_l1(struct qcow2 *q, const struct snap *s, be64 **l1, uint64_t *n)
{
	unsigned span = q->cluster_bits + q->l2_bits;
	int rc;

	*n = max_u64(s->l1_n, (s->disk_size + BIT(span) - 1) >> span);
	if (s->l1_off & (q->cluster_size - 1) || *n * 8 > MAX_L1_BYTES ||
	    s->disk_size > INT64_MAX / 2)
		return -EINVAL;
	*l1 = mem_new(*n + 1, 8);
	if (!*l1)
		return -ENOMEM;
	rc = s->l1_n ? file_read(q->file, *l1, s->l1_off, (uint64_t)s->l1_n * 8) : 0;
	if (rc)
		free(*l1);
	return rc;
}

static int snap_apply(struct img *img, const char *name, struct err *err)
{
	struct qcow2 *q = img->priv;
	struct bitmaps b = {0};
	struct remake r;
	struct snap *s;
	uint64_t n;
	be64 *l1;
	int rc = remake_begin(&r, q, false, err);

	if (rc)
		return rc;
	s = snap_find(&r.snaps, name);
	if (!s) {
		remake_abort(&r);
		return no_snapshot(img, name, err);
	}
	rc = snap_l1(q, s, &l1, &n);
	if (rc) {
		remake_abort(&r);
		return err_sys(err, -rc, "cannot read snapshot '%s' of '%s'", name,
			       img->path);
	}
	free(r.l1);
	r.l1 = l1;
	r.l1_n = n;
	r.head.h->size = be64_make(s->disk_size);
	if (s->disk_size != img->size) {
		rc = bitmaps_resizable(q, &b, err);
		if (!rc && (rc = bitmaps_resize(&r, &b, img->size, s->disk_size)))
			err_sys(err, -rc, "cannot write the bitmaps of '%s'",
				img->path);
		bitmaps_fini(&b);
	}
	if (!rc)
		return remake_commit(&r, err);
	remake_abort(&r);
	return rc;
}

/* "snapshot.id=ID,snapshot.name=NAME", either or both: exactly that one. Anything else: an id or a name. */
static struct snap *snap_find_exact(struct snaps *s, const char *text)
{
	const char *id = strstr(text, "snapshot.id="),
		   *name = strstr(text, "snapshot.name=");

	if (strncmp(text, "snapshot.", 9) || (!id && !name))
		return snap_find(s, text);
	id = id ? id + strlen("snapshot.id=") : NULL;
	name = name ? name + strlen("snapshot.name=") : NULL;
	for (size_t i = 0; i < s->n; i++) {
		size_t id_len = strlen(s->v[i].id), name_len = strlen(s->v[i].name);

		if ((!id || (!strncmp(id, s->v[i].id, id_len) &&
			     (!id[id_len] || id[id_len] == ','))) &&
		    (!name || (!strncmp(name, s->v[i].name, name_len) &&
			       (!name[name_len] || name[name_len] == ','))))
			return &s->v[i];
	}
	return NULL;
}

/* For an image that was just opened, read-only. */
static int snap_load(struct img *img, const char *name, struct err *err)
{
	struct qcow2 *q = img->priv;
	struct snaps all;
	struct snap *s;
	uint64_t n = 0;
	be64 *l1 = NULL;
	int rc = snaps_load(q, &all, err);

	if (rc)
		return rc;
	s = snap_find_exact(&all, name);
	if (!s)
		rc = no_snapshot(img, name, err);
	else if ((rc = snap_l1(q, s, &l1, &n)))
		err_sys(err, -rc, "cannot read snapshot '%s' of '%s'", name, img->path);
	if (!rc) {
		free(q->l1.e);
		q->l1.e = l1;
		q->l1.n = n;
		img->size = s->disk_size;
	}
	snaps_fini(&all);
	return rc;
}

const struct img_snapshot_ops qcow2_snapshot_ops = {
	.list = snap_list,
	.create = snap_create,
	.remove = snap_remove,
	.apply = snap_apply,
	.load = snap_load,
};

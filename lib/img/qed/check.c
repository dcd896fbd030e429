/*
 * img/qed/check.c - which clusters of a QED image are in use, by what; and repairing. Tables are looked at first, so that
 * a damaged entry for data never costs a table. Nobody else uses the image; one thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "img/qed/qed_int.h"

/* Bits for more clusters than this are no image's, but a sparse file's. */
#define MAX_CLUSTERS (1ull << 31)
#define PIECE        512 /* entries that are read at once */

struct survey {
	struct qed *q;
	struct img_check *c;
	uint8_t *used;   /* of the file's clusters */
	uint8_t *tables; /* where tables begin that are to be gone through */
	uint64_t n, n_used, highest; /* clusters; highest: behind the last one in use */
	uint64_t last;
	bool fix;
};

static bool bit(const uint8_t *bits, uint64_t i)
{
	return bits[i / 8] >> i % 8 & 1;
}

/* ---- taking places ---- */

enum taken { TAKEN, OUTSIDE, TWICE };

static enum taken take(struct survey *s, uint64_t off, uint64_t len)
{
	uint32_t cluster = s->q->cluster;
	uint64_t first = off / cluster, n = len / cluster;

	if (off % cluster || !range_ok(first, n, s->n))
		return OUTSIDE;
	for (uint64_t i = first; i < first + n; i++)
		if (bit(s->used, i))
			return TWICE;
	for (uint64_t i = first; i < first + n; i++)
		s->used[i / 8] |= (uint8_t)(1u << i % 8);
	s->n_used += n;
	s->highest = max_u64(s->highest, first + n);
	return TAKEN;
}

static void wrong(struct survey *s, const char *what, uint64_t off, enum taken how)
{
	check_say(s->c, "ERROR: %s at 0x%llx: %s", what, (unsigned long long)off,
		  how == TWICE ? "is used twice" : "is no place in the file");
	s->c->corruptions++;
}

/* ---- going through tables ---- */

/* An entry that is not 0; may change it. 0 or -errno. */
typedef int entry_fn(struct survey *s, uint64_t *entry);

static int piece_each(struct survey *s, le64 *v, uint64_t off, entry_fn *fn)
{
	bool changed = false;
	int rc = 0;

	for (unsigned i = 0; i < PIECE && !rc; i++) {
		uint64_t e = le64_get(v[i]), was = e;

		if (!e)
			continue;
		rc = fn(s, &e);
		if (e != was) {
			v[i] = le64_make(e);
			changed = true;
		}
	}
	if (changed && s->fix && !rc)
		rc = file_write(s->q->file, v, off, PIECE * sizeof(*v));
	return rc;
}

/* All entries of the table at `off`. */
static int table_each(struct survey *s, uint64_t off, entry_fn *fn)
{
	struct img_file *f = s->q->file;
	const uint64_t size = PIECE * sizeof(le64), end = off + s->q->table_len;
	uint64_t n;
	int rc = 0;

	while (off < end && !rc) {
		le64 v[PIECE];

		if (!file_is_data(f, off, end - off, &n) && n >= size) {
			off += align_down(n, size);
			continue;
		}
		rc = file_read(f, v, off, size);
		if (!rc)
			rc = piece_each(s, v, off, fn);
		off += size;
	}
	return rc;
}

static int table_found(struct survey *s, uint64_t *e)
{
	enum taken how = take(s, *e, s->q->table_len);
	uint64_t i = *e / s->q->cluster;

	if (how == TAKEN) {
		s->tables[i / 8] |= (uint8_t)(1u << i % 8);
		return 0;
	}
	wrong(s, "table", *e, how);
	if (s->fix) {
		*e = 0; /* there is no other */
		s->c->corruptions_fixed++;
	}
	return 0;
}

/* What two places of the disk have in one cluster, each has for itself from now on. */
static int copy_cluster(struct survey *s, uint64_t *e)
{
	struct qed *q = s->q;
	uint64_t to = q->limit, len = min_u64(q->cluster, 1u << 20);
	uint8_t *buf = malloc(len);
	int rc = buf ? qed_extend(q, to + q->cluster) : -ENOMEM;

	for (uint64_t at = 0; at < q->cluster && !rc; at += len) {
		rc = file_read(q->file, buf, *e + at, len);
		if (!rc)
			rc = file_write(q->file, buf, to + at, len);
	}
	free(buf);
	if (!rc)
		rc = file_sync(q->file); /* before an entry names it */
	if (rc)
		return rc;
	s->highest = q->limit / q->cluster;
	*e = to;
	return 0;
}

static int cluster_found(struct survey *s, uint64_t *e)
{
	struct img_check *c = s->c;
	enum taken how;
	int rc = 0;

	if (*e == QED_ZERO)
		return 0;
	how = take(s, *e, s->q->cluster);
	if (how == TAKEN) {
		c->allocated_clusters++;
		c->fragmented_clusters += s->last && *e != s->last + s->q->cluster;
		s->last = *e;
		return 0;
	}
	wrong(s, "cluster", *e, how);
	if (!s->fix)
		return 0;
	if (how == TWICE)
		rc = copy_cluster(s, e);
	else
		*e = 0;
	c->corruptions_fixed += !rc;
	return rc;
}

static int table_again(struct survey *s, uint64_t *e)
{
	uint64_t i = *e / s->q->cluster;

	if (*e % s->q->cluster || i >= s->n || !bit(s->tables, i))
		return 0;
	s->tables[i / 8] &= (uint8_t) ~(1u << i % 8); /* of two that are alike, once */
	return table_each(s, *e, cluster_found);
}

/* ---- all of it ---- */

static void survey_fini(struct survey *s)
{
	free(s->used);
	free(s->tables);
}

static int survey_all(struct survey *s, struct qed *q, struct img_check *c, bool fix,
		      struct err *err)
{
	uint64_t l1 = le64_get(q->h.l1_off);
	int rc;

	*s = (struct survey){.q = q, .c = c, .fix = fix, .n = q->limit / q->cluster};
	if (s->n > MAX_CLUSTERS)
		return err_set(err, EFBIG, "'%s' has more clusters than can be checked",
			       q->img->path);
	s->used = mem_new(s->n / 8 + 1, 1);
	s->tables = mem_new(s->n / 8 + 1, 1);
	if (!s->used || !s->tables)
		return err_set(err, ENOMEM, "no memory to check '%s'", q->img->path);
	c->total_clusters = (q->img->size + q->cluster - 1) / q->cluster;
	take(s, 0, min_u64(q->first, s->n * q->cluster));
	take(s, l1, q->table_len);
	rc = table_each(s, l1, table_found);
	if (!rc)
		rc = table_each(s, l1, table_again);
	/* A device has room behind the image. */
	c->leaks = (file_is_device(q->file) ? s->highest : s->n) - s->n_used;
	return rc ? err_sys(err, -rc, "cannot check '%s'", q->img->path) : 0;
}

/* What nobody refers to behind all that is in use: goes. Other leaks stay, the format has no way to use them again. */
static int cut_end(struct survey *s)
{
	struct qed *q = s->q;
	uint64_t end = s->highest * q->cluster;
	int rc = 0;

	if (file_is_device(q->file) || end >= q->limit)
		return 0;
	rc = file_truncate(q->file, end);
	if (rc)
		return rc;
	s->c->leaks_fixed = (q->limit - end) / q->cluster;
	q->limit = end;
	return 0;
}

/* Repairing is over: is the image as it should be? Then the mark goes. */
static int settle(struct survey *s)
{
	struct qed *q = s->q;
	struct img_check *c = s->c;
	int rc = file_sync(q->file);

	meta_pages_fini(&q->m.pages);
	if (meta_pages_init(&q->m.pages, q->file, 4096))
		return -ENOMEM;
	if (!rc && c->fix & IMG_FIX_LEAKS)
		rc = cut_end(s);
	q->next = s->highest * q->cluster;
	if (!rc && c->corruptions == c->corruptions_fixed)
		rc = qed_end_write(q);
	return rc;
}

static void tell_plan(struct survey *s)
{
	struct img_check *c = s->c;
	uint64_t cut = s->n - s->highest;

	check_say(c,
		  "would clear entries that name no place, copy clusters that are "
		  "used twice, and cut off %llu clusters at the end",
		  (unsigned long long)(c->fix & IMG_FIX_LEAKS ? cut : 0));
	if (c->fix & IMG_FIX_ERRORS)
		c->corruptions_fixed = c->corruptions;
	if (c->fix & IMG_FIX_LEAKS)
		c->leaks_fixed = min_u64(c->leaks, cut);
}

int qed_check(struct img *img, struct img_check *c, struct err *err)
{
	struct qed *q = img->priv;
	struct survey s = {0};
	bool fix = c->fix & IMG_FIX_ERRORS && !c->dry_run;
	int rc = img->writing ? qed_flush(img) : 0;

	if (rc)
		return err_sys(err, -rc, "cannot write '%s'", img->path);
	rc = survey_all(&s, q, c, fix, err);
	if (!rc && c->fix && c->dry_run && (c->corruptions || c->leaks)) {
		tell_plan(&s);
	} else if (!rc && c->fix && !c->dry_run) {
		rc = settle(&s);
		if (rc)
			err_sys(err, -rc, "cannot repair '%s'", img->path);
	}
	survey_fini(&s);
	return rc;
}

int qed_survey(struct qed *q, struct err *err)
{
	bool marked = le64_get(q->h.features) & QED_NEED_CHECK;
	struct img_check c = {.fix = marked ? IMG_FIX_ERRORS : 0};
	struct survey s = {0};
	int rc = survey_all(&s, q, &c, marked, err);

	if (!rc && c.corruptions && !marked)
		rc = err_set(err, EIO,
			     "'%s' is damaged in %llu places: repair it first ('vm-img "
			     "repair')",
			     q->img->path, (unsigned long long)c.corruptions);
	if (!rc) {
		q->next = s.highest * q->cluster;
		if (marked && (rc = settle(&s)))
			err_sys(err, -rc, "cannot repair '%s'", q->img->path);
	}
	survey_fini(&s);
	return rc;
}

/*
 * img/ops.c - what is done to a whole image: telling about it, checking, resizing, snapshots, bitmaps. Thin: the
 * formats do it. One thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

/* ---- telling ---- */

static struct detail *detail_add(struct details *d, enum detail_kind kind,
				 const char *key)
{
	if (d->n == d->size) {
		size_t size = d->size ? d->size * 2 : 16;
		struct detail *v = mem_resize(d->v, size, sizeof(*v));

		if (!v) {
			d->failed = true;
			return NULL;
		}
		d->v = v;
		d->size = size;
	}
	d->v[d->n] = (struct detail){.kind = kind, .key = key};
	return &d->v[d->n++];
}

void detail_text(struct details *d, const char *key, const char *fmt, ...)
{
	struct detail *x = detail_add(d, DETAIL_TEXT, key);
	va_list ap;

	if (!x)
		return;
	va_start(ap, fmt);
	if (vasprintf(&x->text, fmt, ap) < 0) {
		x->text = NULL;
		d->failed = true;
		d->n--;
	}
	va_end(ap);
}

void detail_number(struct details *d, const char *key, uint64_t v)
{
	struct detail *x = detail_add(d, DETAIL_NUMBER, key);

	if (x)
		x->number = v;
}

void detail_bool(struct details *d, const char *key, bool v)
{
	struct detail *x = detail_add(d, DETAIL_BOOL, key);

	if (x)
		x->number = v;
}

void detail_begin(struct details *d, const char *key, enum detail_kind kind)
{
	detail_add(d, kind, key);
}

void detail_end(struct details *d)
{
	detail_add(d, DETAIL_END, NULL);
}

void img_details(struct img *img, struct details *d)
{
	*d = (struct details){0};
	if (img->fmt->details)
		img->fmt->details(img, d);
}

void details_fini(struct details *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->v[i].text);
	free(d->v);
	*d = (struct details){0};
}

/* ---- checking ---- */

void check_say(const struct img_check *c, const char *fmt, ...)
{
	char line[400];
	va_list ap;

	if (!c->say)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->say(c->ctx, line);
}

static int cannot(const struct img *img, const char *what, struct err *err)
{
	return err_set(err, ENOTSUP, "'%s': format %s %s", img->path, img->fmt->name,
		       what);
}

static int want_writable(const struct img *img, struct err *err)
{
	return img->read_only ? err_set(err, EROFS, "'%s' is open read-only", img->path)
			      : 0;
}

int img_check(struct img *img, struct img_check *c, struct err *err)
{
	int rc;

	if (!img->fmt->check)
		return cannot(img, "has nothing to check", err);
	if (c->fix & ~img->fmt->can_fix)
		return cannot(img, "cannot be repaired", err);
	if (c->fix && c->undo_path && !img->fmt->can_undo)
		return cannot(img, "cannot take a repair back", err);
	rc = c->fix ? want_writable(img, err) : 0;
	return rc ? rc : img->fmt->check(img, c, err);
}

/* ---- other changes ---- */

int img_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
	       struct err *err)
{
	int rc = want_writable(img, err);

	if (rc)
		return rc;
	if (!img->fmt->resize)
		return cannot(img, "cannot be resized", err);
	if (size > INT64_MAX / 2)
		return err_set(err, EFBIG, "'%s' cannot have %llu bytes", img->path,
			       (unsigned long long)size);
	return img->fmt->resize(img, size, prealloc, err);
}

int img_amend(struct img *img, const struct img_option *options, unsigned n,
	      struct err *err)
{
	int rc = want_writable(img, err);

	if (rc)
		return rc;
	if (!img->fmt->amend)
		return cannot(img, "has no settings that can be changed", err);
	rc = format_check_options(img->fmt, options, n, err);
	return rc ? rc : img->fmt->amend(img, options, n, err);
}

int img_set_backing(struct img *img, const char *path, const char *format,
		    struct err *err)
{
	int rc = want_writable(img, err);

	if (rc)
		return rc;
	if (!img->fmt->set_backing)
		return cannot(img, "cannot change its backing file", err);
	return img->fmt->set_backing(img, path, format, err);
}

int img_make_empty(struct img *img, struct err *err)
{
	int rc = want_writable(img, err);

	if (rc)
		return rc;
	if (!img->fmt->make_empty)
		return cannot(img, "cannot be emptied", err);
	return img->fmt->make_empty(img, err);
}

/* ---- snapshots ---- */

int img_snapshots(struct img *img, struct img_snapshot **v, size_t *n, struct err *err)
{
	*v = NULL;
	*n = 0;
	if (!img->fmt->snapshots)
		return cannot(img, "has no internal snapshots", err);
	return img->fmt->snapshots->list(img, v, n, err);
}

void img_snapshots_free(struct img_snapshot *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].id);
		free(v[i].name);
	}
	free(v);
}

static int snapshot_do(struct img *img,
		       int (*op)(struct img *img, const char *name, struct err *err),
		       const char *name, struct err *err)
{
	int rc = want_writable(img, err);

	if (rc)
		return rc;
	if (!op)
		return cannot(img, "has no internal snapshots", err);
	return op(img, name, err);
}

int img_snapshot_create(struct img *img, const char *name, struct err *err)
{
	const struct img_snapshot_ops *o = img->fmt->snapshots;

	return snapshot_do(img, o ? o->create : NULL, name, err);
}

int img_snapshot_delete(struct img *img, const char *name, struct err *err)
{
	const struct img_snapshot_ops *o = img->fmt->snapshots;

	return snapshot_do(img, o ? o->remove : NULL, name, err);
}

int img_snapshot_apply(struct img *img, const char *name, struct err *err)
{
	const struct img_snapshot_ops *o = img->fmt->snapshots;

	return snapshot_do(img, o ? o->apply : NULL, name, err);
}

/* ---- bitmaps ---- */

int img_bitmap(struct img *img, enum img_bitmap_action action, const char *name,
	       uint64_t granularity, struct img *from, const char *source,
	       struct err *err)
{
	int rc = want_writable(img, err);

	if (rc)
		return rc;
	if (!img->fmt->bitmap)
		return cannot(img, "has no persistent bitmaps", err);
	return img->fmt->bitmap(img, action, name, granularity, from, source, err);
}

/* Can the image have any? */
static int want_bitmaps(struct img *img, struct err *err)
{
	struct img_info i;

	if (img->one_pass)
		return err_set(err, ENOTSUP,
			       "an image that is written to a pipe has no bitmaps");
	if (!img->fmt->bitmaps_copy)
		return cannot(img, "has no persistent bitmaps", err);
	img_info(img, &i);
	return i.version >= 3 ? 0
			      : err_set(err, ENOTSUP,
					"'%s' is of version 2, which has no bitmaps",
					img->path);
}

int img_bitmaps_copy(struct img *img, struct img *from,
		     const struct img_bitmap_copy *how, struct err *err)
{
	int rc = want_bitmaps(from, err);

	if (!rc && img)
		rc = want_bitmaps(img, err);
	if (!rc && img && img->fmt != from->fmt)
		rc = cannot(img, "cannot take the bitmaps of another format", err);
	return rc ? rc : from->fmt->bitmaps_copy(img, from, how, err);
}

/* ---- measuring ---- */

int img_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		struct img_measure *m, struct err *err)
{
	const struct img_format *fmt = format_find(opts->format, err);
	int rc;

	*m = (struct img_measure){0};
	if (!fmt)
		return -ENOTSUP;
	if (!fmt->measure)
		return err_set(err, ENOTSUP,
			       "format %s cannot tell how large an image will be",
			       fmt->name);
	rc = format_check_options(fmt, opts->options, opts->n_options, err);
	return rc ? rc : fmt->measure(opts, plan, m, err);
}

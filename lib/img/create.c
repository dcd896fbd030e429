/*
 * img/create.c - makes images: empty ones, and ones that are filled before they get their name. The formats
 * write them, img/target.c keeps the files. One thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/size.h"
#include "img/img_int.h"

/* Settings that are the same for every format are taken out of the list: `rest` has the others. */
static int take_common(struct img_create_opts *o, struct img_option *rest,
		       struct err *err)
{
	unsigned n = 0;

	for (unsigned i = 0; i < o->n_options; i++) {
		const struct img_option *x = &o->options[i];
		int rc = 0;

		if (!strcmp(x->name, "size"))
			rc = size_parse(x->value, &o->size, err);
		else if (!strcmp(x->name, "backing_file"))
			o->backing_path = *x->value ? x->value : NULL;
		else if (!strcmp(x->name, "backing_fmt"))
			o->backing_format = x->value;
		else
			rest[n++] = *x;
		if (rc)
			return err_prefix(err, "option 'size'");
	}
	o->options = rest;
	o->n_options = n;
	return 0;
}

/* The size of the backing file, for an image that is to have the same. Also tells if it is there at all. */
static int look_at_backing(const char *path, const struct img_create_opts *o,
			   uint64_t *size, struct err *err)
{
	struct img_opts bo = {.format = o->backing_format,
			      .read_only = true,
			      .no_lock = true,
			      .allow_external = o->allow_external};
	struct img *img;
	char *resolved;
	int rc = extern_resolve(path, o->backing_path, "backing file",
				o->allow_external, &resolved, err);

	if (rc)
		return rc;
	rc = img_open(resolved, &bo, &img, err);
	free(resolved);
	if (rc)
		return rc;
	*size = img->size;
	return img_close(img);
}

static int check_backing(const char *path, struct img_create_opts *o,
			 const struct img_format *fmt, struct err *err)
{
	uint64_t size;
	int rc;

	if (!o->backing_path)
		return 0;
	if (!fmt->backing)
		return err_set(err, ENOTSUP,
			       "images of format %s have no backing file: use qcow2",
			       fmt->name);
	if (!o->backing_format)
		return err_set(err, EINVAL, "the format of backing file '%s' is needed",
			       o->backing_path);
	if (o->no_backing_check)
		return 0;
	rc = look_at_backing(path, o, &size, err);
	if (!rc && !o->size)
		o->size = size;
	return rc;
}

/* Checks everything about the options; o->options are in `rest` then, which the caller frees. */
static int prepare(const char *path, struct img_create_opts *o,
		   const struct img_format **fmt, struct img_option **rest,
		   struct err *err)
{
	int rc;

	*rest = NULL;
	*fmt = format_find(o->format, err);
	if (!*fmt)
		return -ENOTSUP;
	if (!(*fmt)->create && !(*fmt)->stream_begin)
		return err_set(err, ENOTSUP, "images of format %s cannot be made",
			       (*fmt)->name);
	*rest = mem_new(o->n_options, sizeof(**rest));
	if (!*rest)
		return err_set(err, ENOMEM, "no memory to create '%s'", path);
	rc = take_common(o, *rest, err);
	if (!rc)
		rc = format_check_options(*fmt, o->options, o->n_options, err);
	if (!rc)
		rc = check_backing(path, o, *fmt, err);
	/* Disks consist of sectors: QEMU would not show what is behind the last whole one. */
	if (!rc && strcmp((*fmt)->name, "raw") && o->size <= INT64_MAX)
		o->size = align_up(o->size, 512);
	return rc;
}

int img_create(const char *path, const struct img_create_opts *opts, struct err *err)
{
	struct img_create_opts o = *opts;
	const struct img_format *fmt;
	struct img_option *rest;
	struct img_target t;
	int rc = prepare(path, &o, &fmt, &rest, err);

	if (!rc && !fmt->create)
		rc = err_set(err, ENOTSUP, "an empty image of format %s cannot be made",
			     fmt->name);
	if (!rc)
		rc = target_begin(&t, path, &o, err);
	if (!rc) {
		rc = file_is_device(t.file) ? 0 : file_truncate(t.file, 0);
		rc = rc ? err_sys(err, -rc, "cannot empty '%s'", path)
			: fmt->create(&t, &o, err);
		if (rc)
			target_abort(&t);
		else
			rc = target_commit(&t, err);
	}
	free(rest);
	return rc;
}

/* ---- images that are filled at once ---- */

/* The passphrase of an image that is made, to open it again. */
static const char *made_secret(const struct img_create_opts *o)
{
	for (unsigned i = o->n_options; i-- > 0;) {
		const char *dot = strrchr(o->options[i].name, '.');

		if (!strcmp(dot ? dot + 1 : o->options[i].name, "key-secret"))
			return o->options[i].value;
	}
	return NULL;
}

/* Opens what create() made, or begins what is written in one pass. */
static int begin_image(struct img_target *t, const struct img_format *fmt,
		       const struct img_create_opts *o, const struct img_plan *plan,
		       struct img **img, struct err *err)
{
	struct img_opts io = {.no_lock = true,
			      .no_backing = o->no_backing_check,
			      .allow_external = o->allow_external,
			      .secret = made_secret(o)};
	int rc = -EOPNOTSUPP;

	if (!io.secret) {
		io.secret = o->secret;
		io.secret_len = o->secret_len;
	}
	if (fmt->stream_begin && plan)
		rc = img_begin_stream(t, fmt, o, plan, img, err);
	if (rc != -EOPNOTSUPP)
		return rc;
	if (t->stream || !fmt->create)
		return err_set(err, ENOTSUP,
			       "an image of format %s cannot be written %s", fmt->name,
			       t->stream ? "to a pipe" : "with these options");
	rc = fmt->create(t, o, err);
	return rc ? rc : img_open_made(t, fmt, &io, img, err);
}

/* `fd`: where it goes, or -1. */
static int target_new(int fd, const char *path, const struct img_create_opts *opts,
		      const struct img_plan *plan, struct img_target **out,
		      struct img **img, struct err *err)
{
	struct img_create_opts o = *opts;
	struct img_target *t = NEW(struct img_target);
	const struct img_format *fmt;
	struct img_option *rest = NULL;
	int rc = t ? prepare(path, &o, &fmt, &rest, err)
		   : err_set(err, ENOMEM, "no memory to create '%s'", path);

	*out = NULL;
	*img = NULL;
	if (!rc && fd >= 0)
		rc = target_begin_fd(t, fd, path, err);
	else if (!rc)
		rc = strcmp(path, "-") ? target_begin(t, path, &o, err)
				       : target_begin_stdout(t, err);
	if (!rc) {
		rc = begin_image(t, fmt, &o, plan, img, err);
		if (rc)
			target_abort(t);
	}
	free(rest);
	if (rc) {
		free(t);
		return rc;
	}
	*out = t;
	return 0;
}

int img_target_new(const char *path, const struct img_create_opts *opts,
		   const struct img_plan *plan, struct img_target **out,
		   struct img **img, struct err *err)
{
	return target_new(-1, path, opts, plan, out, img, err);
}

int img_target_new_fd(int fd, const char *name, const struct img_create_opts *opts,
		      const struct img_plan *plan, struct img_target **out,
		      struct img **img, struct err *err)
{
	return target_new(fd, name, opts, plan, out, img, err);
}

int img_target_commit(struct img_target *t, struct img *img, struct err *err)
{
	int rc = img_close(img);

	if (rc) {
		err_sys(err, -rc, "cannot write '%s'", t->path);
		target_abort(t);
	} else {
		rc = target_commit(t, err);
	}
	free(t);
	return rc;
}

void img_target_drop(struct img_target *t, struct img *img)
{
	if (img)
		img->discard_all = true;
	img_close(img);
	if (t)
		target_abort(t);
	free(t);
}

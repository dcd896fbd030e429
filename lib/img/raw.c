/* img/raw.c - images that are nothing but the disk's bytes: files and block devices. Any thread. */
#include <string.h>

#include "base/bits.h"
#include "img/img_int.h"

static int raw_open(struct img *img, struct err *err)
{
	(void)err;
	img->size = file_size(img->file);
	img->unit = 1;
	img->zero_unit = 1;
	return 0;
}

static int raw_close(struct img *img)
{
	(void)img;
	return 0;
}

static int raw_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	*e = (struct img_extent){
		.kind = IMG_DATA,
		.writable = true,
		.len = len,
		.file_off = off,
		.file = img->file,
		.grain = 1,
	};
	return 0;
}

static int raw_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done)
{
	file_discard(img->file, off, len);
	*done = len;
	return 0;
}

/* Gives [from, to), which is new, its place on the host's disk. */
static int preallocate(struct img_file *f, const char *how, uint64_t from, uint64_t to)
{
	if (to <= from || file_is_device(f) || !strcmp(how, "off"))
		return 0;
	return strcmp(how, "full") ? file_preallocate(f, from, to - from)
				   : file_fill(f, from, to - from);
}

static int raw_create(struct img_target *t, const struct img_create_opts *opts,
		      struct err *err)
{
	const char *how =
		img_option_text(opts->options, opts->n_options, "preallocation", "off");
	int rc = 0;

	if (file_is_device(t->file)) {
		if (file_size(t->file) < opts->size)
			return err_set(err, ENOSPC,
				       "'%s' has %llu bytes, fewer than %llu", t->path,
				       (unsigned long long)file_size(t->file),
				       (unsigned long long)opts->size);
		return 0;
	}
	rc = file_truncate(t->file, opts->size);
	if (!rc)
		rc = preallocate(t->file, how, 0, opts->size);
	return rc ? err_sys(err, -rc, "cannot make '%s' %llu bytes long", t->path,
			    (unsigned long long)opts->size)
		  : 0;
}

static int raw_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
		      struct err *err)
{
	int rc;

	if (prealloc == IMG_PREALLOC_METADATA)
		return err_set(err, ENOTSUP, "raw images have no metadata");
	if (file_is_device(img->file))
		return err_set(err, ENOTSUP, "'%s' is a device: its size is fixed",
			       img->path);
	rc = file_truncate(img->file, size);
	if (!rc && prealloc)
		rc = preallocate(img->file,
				 prealloc == IMG_PREALLOC_FULL ? "full" : "falloc",
				 img->size, size);
	if (rc)
		return err_sys(err, -rc, "cannot make '%s' %llu bytes long", img->path,
			       (unsigned long long)size);
	img->size = size;
	return 0;
}

static int raw_measure(const struct img_create_opts *opts, const struct img_plan *plan,
		       struct img_measure *m, struct err *err)
{
	(void)plan;
	(void)err;
	m->required = m->fully_allocated = opts->size;
	return 0;
}

/* ---- to a pipe: zeros are written, too ---- */

static int raw_stream_begin(struct img *img, const struct img_create_opts *opts,
			    const struct img_plan *plan, struct err *err)
{
	(void)plan;
	(void)err;
	if (!img->target->stream)
		return -EOPNOTSUPP;
	img->size = opts->size;
	img->unit = 65536;
	img->zero_unit = 1;
	img->one_pass = true;
	return 0;
}

static int fill_to(struct img *img, uint64_t off)
{
	int rc = 0;

	if (off < img->append)
		return -EINVAL;
	if (off > img->append)
		rc = file_zero(img->file, img->append, off - img->append, false);
	if (!rc)
		img->append = off;
	return rc;
}

static int raw_write_unit(struct img *img, uint64_t off, const void *data, size_t len)
{
	int rc = fill_to(img, off);

	return rc ? rc : img_append(img, data, len);
}

static int raw_stream_close(struct img *img)
{
	return img->one_pass && !img->discard_all ? fill_to(img, img->size)
						  : raw_close(img);
}

/* clang-format off */
static const struct img_option_desc raw_options[] = {
	{"preallocation", OPTION_TEXT, "off|falloc|full", "off", "take the space on the host's disk at once"},
	{0},
};
/* clang-format on */

const struct img_format img_raw = {
	.name = "raw",
	.title = "the disk's bytes, nothing else",
	.options = raw_options,
	.in_place = true,
	.open = raw_open,
	.close = raw_stream_close,
	.map = raw_map,
	.discard = raw_discard,
	.create = raw_create,
	.stream_begin = raw_stream_begin,
	.write_unit = raw_write_unit,
	.resize = raw_resize,
	.measure = raw_measure,
};

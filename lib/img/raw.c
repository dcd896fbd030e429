/* img/raw.c - images that are nothing but the disk's bytes: files and block devices. Any thread. */
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

static int raw_create(struct img_target *t, const struct img_create_opts *opts,
		      struct err *err)
{
	int rc;

	if (opts->backing_path)
		return err_set(err, EINVAL,
			       "raw images have no backing file: use qcow2");
	rc = file_is_device(t->file) ? 0 : file_truncate(t->file, opts->size);
	return rc ? err_sys(err, -rc, "cannot set the length") : 0;
}

const struct img_format img_raw = {
	.name = "raw",
	.title = "the disk's bytes, nothing else",
	.open = raw_open,
	.close = raw_close,
	.map = raw_map,
	.discard = raw_discard,
	.create = raw_create,
};

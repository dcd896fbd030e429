/*
 * img/luks/luks.c - disks that are encrypted as a whole: a LUKS header, version 1, and behind it the disk's sectors.
 * Specification: LUKS On-Disk Format, version 1.2.3. Opening and closing: one thread; mapping: any.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/luks/box.h"
#include "img/sealed.h"

/* Version 2, which only guests read, is a raw disk as long as nobody says something else. */
static bool luks_probe(const struct img_probe *p)
{
	unsigned version;

	return luks1_probe(p->head, p->head_len, &version) && version == 1;
}

static int luks_open(struct img *img, struct err *err)
{
	struct luks_box *b = NEW(struct luks_box);
	uint64_t all = file_size(img->file);
	int rc;

	if (!b)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = b;
	rc = luks_box_read(b, img->file, 0, all, img->path, err);
	if (rc)
		return rc;
	img->size = align_down(all - b->l.data_off, CRYPT_SECTOR);
	/* Part of a sector is written by one thread at a time, which holds its unit. */
	img->sealed = true;
	img->unit = 4096;
	img->zero_unit = 1;
	if (!img->opts.secret && img->read_only &&
	    (img->opts.repair || img->opts.no_backing))
		return 0; /* it is looked at from outside */
	return luks_box_open(b, &img->opts, err);
}

static int luks_close(struct img *img)
{
	if (img->priv)
		luks_box_fini(img->priv);
	free(img->priv);
	img->priv = NULL;
	return 0;
}

static int luks_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct luks_box *b = img->priv;

	if (!b->crypt)
		return -ENOKEY;
	*e = (struct img_extent){
		.kind = IMG_DATA,
		.writable = true,
		.len = len,
		.file_off = b->l.data_off + off,
		.file = img->file,
		.grain = CRYPT_SECTOR,
		.crypt = b->crypt,
		.crypt_off = off,
	};
	return 0;
}

/* Everything has its place: only parts of sectors come here. */
static int luks_alloc(struct img *img, uint64_t off, uint64_t len, struct img_place *p)
{
	(void)img;
	(void)off;
	(void)len;
	(void)p;
	return -EIO;
}

static void luks_info(struct img *img, struct img_info *info)
{
	(void)img;
	info->encrypted = true;
	info->cluster_bytes = 0;
}

static void luks_details(struct img *img, struct details *d)
{
	luks_box_details(img->priv, false, d);
}

/* Takes [from, to) of the file; what is full is filled with encrypted zeros. */
static int preallocate(struct img_file *f, struct luks_box *b, const char *how,
		       uint64_t size)
{
	struct sealed s = {f, b->l.data_off, b->crypt, 0};

	if (!strcmp(how, "falloc"))
		return file_preallocate(f, 0, b->l.data_off + size);
	return strcmp(how, "full") ? 0
				   : sealed_write(&s, &(struct sealed_data){.n = size});
}

static int luks_create(struct img_target *t, const struct img_create_opts *o,
		       struct err *err)
{
	const char *how =
		img_option_text(o->options, o->n_options, "preallocation", "off");
	uint64_t size = align_up(o->size, CRYPT_SECTOR), all;
	const char *secret;
	struct luks_box b;
	size_t len;
	int rc;

	if (o->size > INT64_MAX / 2)
		return err_set(err, EFBIG, "a disk of %llu bytes is too large",
			       (unsigned long long)o->size);
	rc = luks_new_secret(o, "", &secret, &len, err);
	if (rc)
		return rc;
	rc = luks_box_make(&b, o, "", err);
	all = b.l.data_off + size;
	if (!rc && file_is_device(t->file) && file_size(t->file) < all)
		rc = err_set(err, ENOSPC, "'%s' has %llu bytes, fewer than %llu",
			     t->path, (unsigned long long)file_size(t->file),
			     (unsigned long long)all);
	else if (!rc && !file_is_device(t->file) && (rc = file_truncate(t->file, all)))
		err_sys(err, -rc, "cannot make '%s' %llu bytes long", t->path,
			(unsigned long long)all);
	if (!rc)
		rc = luks_box_write(&b, t->file, 0, o, "", err);
	if (!rc && (rc = preallocate(t->file, &b, how, size)))
		err_sys(err, -rc, "cannot take the image's space");
	luks_box_fini(&b);
	return rc;
}

static int luks_resize(struct img *img, uint64_t size, enum img_prealloc prealloc,
		       struct err *err)
{
	struct luks_box *b = img->priv;
	uint64_t old = img->size;
	struct sealed s = {img->file, b->l.data_off + old, b->crypt, old};
	int rc;

	size = align_up(size, CRYPT_SECTOR);
	if (file_is_device(img->file))
		return err_set(err, ENOTSUP, "'%s' is a device: its size is fixed",
			       img->path);
	if (prealloc == IMG_PREALLOC_METADATA)
		return err_set(err, ENOTSUP, "LUKS images have no metadata");
	rc = file_truncate(img->file, b->l.data_off + size);
	if (!rc && prealloc == IMG_PREALLOC_FALLOC && size > old)
		rc = file_preallocate(img->file, s.off, size - old);
	/* What is new reads as zeros. */
	if (!rc && size > old)
		rc = sealed_write(&s, &(struct sealed_data){.n = size - old});
	if (rc)
		return err_sys(err, -rc, "cannot make '%s' %llu bytes long", img->path,
			       (unsigned long long)size);
	img->size = size;
	return 0;
}

static int luks_amend(struct img *img, const struct img_option *o, unsigned n,
		      struct err *err)
{
	return luks_box_amend(img->priv, o, n, "", err);
}

static int luks_measure(const struct img_create_opts *o, const struct img_plan *plan,
			struct img_measure *m, struct err *err)
{
	uint64_t head;
	int rc = luks_box_measure(o, "", &head, err);

	(void)plan;
	m->required = m->fully_allocated = head + align_up(o->size, CRYPT_SECTOR);
	return rc;
}

/* clang-format off */
static const struct img_option_desc luks_options[] = {
	LUKS_OPTIONS(""),
	{"preallocation", OPTION_TEXT, "off|falloc|full", "off", "take the space on the host's disk at once"},
	{0},
};
/* clang-format on */

const struct img_format img_luks = {
	.name = "luks",
	.title = "LUKS version 1, an encrypted disk",
	.options = luks_options,
	.probe = luks_probe,
	.open = luks_open,
	.close = luks_close,
	.map = luks_map,
	.alloc = luks_alloc,
	.info = luks_info,
	.details = luks_details,
	.create = luks_create,
	.measure = luks_measure,
	.resize = luks_resize,
	.amend = luks_amend,
};

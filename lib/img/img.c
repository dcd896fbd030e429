/*
 * img/img.c - opening images and the files behind them, making new ones. One thread per image; reading and
 * writing is in img/io.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

/* An image and those in front of it, while a chain is opened. */
struct chain {
	const struct img_file *file;
	const struct chain *front;
	unsigned depth;
};

/* ---- one image ---- */

static struct img *img_new(const char *path)
{
	struct img *img = NEW(struct img);

	if (!img)
		return NULL;
	pthread_mutex_init(&img->busy_lock, NULL);
	pthread_mutex_init(&img->begin_lock, NULL);
	pthread_mutex_init(&img->work_lock, NULL);
	pthread_cond_init(&img->busy_gone, NULL);
	img->path = strdup(path);
	return img;
}

int img_close(struct img *img)
{
	int rc = 0;

	while (img) {
		struct img *backing = img->backing;

		if (img->fmt) {
			int one = img->fmt->close(img);

			rc = rc ? rc : one;
		}
		unpack_fini(img);
		if (img->overwritten && !rc)
			rc = file_release(img->file, !img->no_sync);
		if (!img->target) /* whose files they are */
			file_close(img->file);
		for (unsigned i = 0; i < img->n_extra; i++)
			file_close(img->extra[i]);
		free(img->extra);
		pthread_mutex_destroy(&img->busy_lock);
		pthread_mutex_destroy(&img->begin_lock);
		pthread_mutex_destroy(&img->work_lock);
		pthread_cond_destroy(&img->busy_gone);
		free(img->backing_path);
		free(img->backing_format);
		free(img->path);
		free(img);
		img = backing;
	}
	return rc;
}

static int load_snapshot(struct img *img, const char *name, struct err *err)
{
	if (!img->fmt->snapshots || !img->fmt->snapshots->load)
		return err_set(err, ENOTSUP,
			       "'%s': format %s has no internal snapshots", img->path,
			       img->fmt->name);
	if (!img->read_only)
		return err_set(err, EROFS, "a snapshot of '%s' can only be read",
			       img->path);
	return img->fmt->snapshots->load(img, name, err);
}

static struct img *img_new_made(struct img_target *t, const struct img_format *fmt,
				const struct img_opts *opts, struct err *err)
{
	struct img *img = img_new(t->path);

	if (!img || !img->path) {
		img_close(img);
		err_set(err, ENOMEM, "no memory to create '%s'", t->path);
		return NULL;
	}
	img->target = t;
	img->file = t->file;
	img->opts = *opts;
	img->fmt = fmt;
	return img;
}

int img_begin_stream(struct img_target *t, const struct img_format *fmt,
		     const struct img_create_opts *opts, const struct img_plan *plan,
		     struct img **out, struct err *err)
{
	struct img *img = img_new_made(t, fmt, &(struct img_opts){0}, err);
	int rc;

	if (!img)
		return -ENOMEM;
	rc = fmt->stream_begin(img, opts, plan, err);
	if (rc) {
		img->discard_all = true;
		img_close(img);
		return rc;
	}
	*out = img;
	return 0;
}

int img_open_file(struct img_file *f, const char *path, const struct img_format *fmt,
		  const struct img_opts *opts, struct img **out, struct err *err)
{
	struct img *img = img_new(path);
	int rc;

	*out = NULL;
	if (!img || !img->path) {
		file_close(f);
		img_close(img);
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	}
	img->file = f;
	img->no_sync = opts->no_sync;
	img->read_only = opts->read_only;
	img->opts = *opts;
	img->fmt = fmt;
	if (!opts->read_only && !fmt->alloc && !fmt->in_place)
		rc = err_set(err, EROFS,
			     "'%s': images of format %s can only be read: open it "
			     "read-only, or with its changes in a snapshot",
			     path, fmt->name);
	else
		rc = fmt->open(img, err);
	if (!rc && opts->snapshot_name)
		rc = load_snapshot(img, opts->snapshot_name, err);
	if (rc) {
		img_close(img);
		return rc;
	}
	*out = img;
	return 0;
}

/* ---- backing chains ---- */

static int chain_check(const struct chain *c, const char *path, struct err *err)
{
	if (c->depth > IMG_MAX_DEPTH)
		return err_set(err, ELOOP,
			       "the chain of backing files is longer than %d images",
			       IMG_MAX_DEPTH);
	for (const struct chain *f = c->front; f; f = f->front)
		if (file_same(f->file, c->file))
			return err_set(err, ELOOP,
				       "'%s' is its own backing file: the chain of "
				       "backing files is a loop",
				       path);
	return 0;
}

static int open_chain(struct img_file *f, const char *path, const struct img_opts *opts,
		      const struct chain *front, struct img **out, struct err *err);

static int open_backing(struct img *img, const struct img_opts *opts,
			const struct chain *c, struct err *err)
{
	struct img_opts back = *opts;
	struct img_file_opts fo = {.read_only = true, .no_lock = opts->no_lock};
	struct img_file *f;
	char *path;
	int rc = extern_resolve(img->path, img->backing_path, "backing file",
				opts->allow_external, &path, err);

	if (rc)
		return rc;
	back.format = img->backing_format;
	back.read_only = true;
	back.snapshot_name = NULL;
	back.repair = false;
	back.overwrite = false;
	rc = file_open(path, &fo, &f, err);
	if (rc)
		err_prefix(err, "the backing file of '%s'", img->path);
	else
		rc = open_chain(f, path, &back, c, &img->backing, err);
	if (!rc && img->fmt->check_backing)
		rc = img->fmt->check_backing(img, err);
	free(path);
	return rc;
}

static bool has_mark(struct img_file *f)
{
	uint8_t head[64];

	return !file_read(f, head, 0, sizeof(head)) &&
	       file_head_is_mark(head, sizeof(head));
}

/* What was marked as unfinished is only opened to be written anew. */
static int check_finished(struct img_file *f, const char *path,
			  const struct img_opts *opts, struct err *err)
{
	int rc;

	if (opts->overwrite) {
		rc = file_hold(f, false);
		return rc ? err_sys(err, -rc, "cannot read '%s'", path) : 0;
	}
	if (!has_mark(f))
		return 0;
	return err_set(err, EUCLEAN,
		       "'%s' is unfinished: what wrote to it was interrupted: write it "
		       "again",
		       path);
}

/* Opens the image on `f`, which it takes over, and what is behind it. */
static int open_chain(struct img_file *f, const char *path, const struct img_opts *opts,
		      const struct chain *front, struct img **out, struct err *err)
{
	struct chain c = {f, front, front ? front->depth + 1 : 0};
	const struct img_format *fmt = NULL;
	struct img *img;
	int rc = chain_check(&c, path, err);

	*out = NULL;
	if (!rc)
		rc = check_finished(f, path, opts, err);
	if (!rc && opts->format)
		rc = (fmt = format_find(opts->format, err)) ? 0 : -ENOTSUP;
	else if (!rc)
		rc = format_probe_file(f, path, &fmt, err);
	if (rc) {
		file_close(f);
		return rc;
	}
	rc = img_open_file(f, path, fmt, opts, &img, err);
	if (rc)
		return rc;
	img->guard_head = !opts->format && fmt == &img_raw;
	if (img->has_backing && !opts->no_backing)
		rc = open_backing(img, opts, &c, err);
	if (rc) {
		img_close(img);
		return rc;
	}
	*out = img;
	return 0;
}

int img_open_made(struct img_target *t, const struct img_format *fmt,
		  const struct img_opts *opts, struct img **out, struct err *err)
{
	struct img *img = img_new_made(t, fmt, opts, err);
	struct chain c = {t->file, NULL, 0};
	int rc;

	if (!img)
		return -ENOMEM;
	img->no_sync = opts->no_sync;
	rc = fmt->open(img, err);
	if (!rc && img->has_backing && !opts->no_backing)
		rc = open_backing(img, opts, &c, err);
	if (rc) {
		img_close(img);
		return rc;
	}
	*out = img;
	return 0;
}

/* ---- snapshot mode ---- */

/* A file without a name, on disk if possible: it may grow large. */
int img_temp_fd(struct err *err)
{
	const char *dirs[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
	int fd = -1;

	for (size_t i = 0; i < ARRAY_LEN(dirs) && fd < 0; i++) {
		char name[512];

		if (!dirs[i] || !*dirs[i])
			continue;
		fd = open(dirs[i], O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
		if (fd >= 0 || snprintf(name, sizeof(name), "%s/vm-XXXXXX", dirs[i]) >=
				       (int)sizeof(name))
			continue;
		fd = mkostemp(name, O_CLOEXEC); /* a file system without O_TMPFILE */
		if (fd >= 0)
			unlink(name);
	}
	if (fd < 0)
		fd = memfd_create("vm-snapshot", MFD_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "cannot make a temporary file") : fd;
}

static int add_overlay(struct img **img, struct err *err)
{
	/* Subclusters of 2 KiB: the guest's pages are written without copying what is around them. */
	struct img_create_opts co = {.format = "qcow2",
				     .size = (*img)->size,
				     .cluster_size = 65536,
				     .extended_l2 = true};
	struct img_file_opts fo = {.no_lock = true, .no_sync = true};
	struct img_opts io = {.no_sync = true, .no_lock = true};
	struct img_file *f;
	struct img *top;
	int fd = img_temp_fd(err), rc;

	if (fd < 0)
		return fd;
	rc = file_open_fd(fd, "the temporary file", &fo, &f, err);
	if (rc)
		return rc;
	rc = img_qcow2.create(&(struct img_target){.file = f, .path = ""}, &co, err);
	if (rc) {
		file_close(f);
		return rc;
	}
	rc = img_open_file(f, (*img)->path, &img_qcow2, &io, &top, err);
	if (rc)
		return rc;
	top->backing = *img;
	top->has_backing = true;
	top->discard_all = true;
	*img = top;
	return 0;
}

int img_overlay(struct img **img, struct err *err)
{
	int rc = add_overlay(img, err);

	if (rc) {
		img_close(*img);
		*img = NULL;
	}
	return rc;
}

/* ---- public ---- */

static int open_file(struct img_file *f, const char *path, const struct img_opts *opts,
		     struct img **out, struct err *err)
{
	int rc = open_chain(f, path, opts, NULL, out, err);

	return rc || !opts->snapshot ? rc : img_overlay(out, err);
}

static struct img_opts effective(const struct img_opts *opts)
{
	struct img_opts o = opts ? *opts : (struct img_opts){0};

	if (o.snapshot)
		o.read_only = true;
	return o;
}

/* The file to open for a folder: the description of a bundle. NULL: `path` is no such folder. */
static char *bundle_file(const char *path)
{
	struct stat st;
	char *file;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode) ||
	    asprintf(&file, "%s/DiskDescriptor.xml", path) < 0)
		return NULL;
	if (!access(file, F_OK))
		return file;
	free(file);
	return NULL;
}

int img_open(const char *path, const struct img_opts *opts, struct img **out,
	     struct err *err)
{
	struct img_opts o = effective(opts);
	char *bundle = bundle_file(path);
	struct img_file_opts fo = {
		.read_only = o.read_only, .no_lock = o.no_lock, .no_sync = o.no_sync};
	struct img_file *f;
	int rc;

	*out = NULL;
	if (bundle)
		path = bundle;
	rc = file_open(path, &fo, &f, err);
	if (!rc)
		rc = open_file(f, path, &o, out, err);
	free(bundle);
	return rc;
}

int img_open_fd(int fd, const char *name, const struct img_opts *opts, struct img **out,
		struct err *err)
{
	struct img_opts o = effective(opts);
	struct img_file_opts fo = {
		.read_only = o.read_only,
		.no_lock = o.no_lock,
		.no_sync = o.no_sync,
		.part_off = o.part_off,
		.part_len = o.part_len,
	};
	struct img_file *f;
	int rc;

	*out = NULL;
	rc = file_open_fd(fd, name, &fo, &f, err);
	return rc ? rc : open_file(f, name, &o, out, err);
}

int img_overwrite_begin(struct img *img, struct err *err)
{
	int rc = file_mark(img->file);

	return rc ? err_sys(err, -rc, "cannot write '%s'", img->path) : 0;
}

void img_overwrite_done(struct img *img)
{
	img->overwritten = true;
}

bool img_is_unfinished(const char *path)
{
	struct img_file_opts fo = {.read_only = true, .no_lock = true};
	struct img_file *f;
	bool is;

	if (file_open(path, &fo, &f, NULL))
		return false;
	is = has_mark(f);
	file_close(f);
	return is;
}

bool img_one_pass(const struct img *img)
{
	return img->one_pass;
}

uint64_t img_size(const struct img *img)
{
	return img->size;
}

bool img_read_only(const struct img *img)
{
	return img->read_only;
}

bool img_settle(struct img *img)
{
	bool remote = false;

	for (; img; img = img->backing) {
		remote |= img->file && file_settle(img->file);
		for (unsigned i = 0; i < img->n_extra; i++)
			remote |= file_settle(img->extra[i]);
	}
	return remote;
}

bool img_can_discard(const struct img *img)
{
	return !img->read_only && img->fmt->discard;
}

const char *img_format_name(const struct img *img)
{
	return img->fmt->name;
}

const char *img_path(const struct img *img)
{
	return img->path;
}

struct img *img_backing(const struct img *img)
{
	return img->backing;
}

uint32_t img_cluster_size(const struct img *img)
{
	return img->unit < 512 ? 512 : img->unit;
}

void img_info(struct img *img, struct img_info *info)
{
	*info = (struct img_info){
		.backing_path = img->backing_path,
		.backing_format = img->backing_format,
		.file_bytes = file_size(img->file),
		.allocated_bytes = file_allocated(img->file),
		.cluster_bytes = img->unit > 1 ? img->unit : 0,
	};
	for (unsigned i = 0; i < img->n_extra; i++)
		info->allocated_bytes += file_allocated(img->extra[i]);
	if (img->fmt->info)
		img->fmt->info(img, info);
}

unsigned img_n_files(const struct img *img)
{
	return 1 + img->n_extra;
}

const char *img_file_path(const struct img *img, unsigned i)
{
	return i ? i <= img->n_extra ? file_path(img->extra[i - 1]) : NULL : img->path;
}

const char *img_extent_path(const struct img *img, const struct img_extent *e)
{
	return e->file ? file_path(e->file) : img->path;
}

bool img_starts_zero(const struct img *img)
{
	return img->fmt != &img_luks &&
	       (img->fmt != &img_raw || !file_is_device(img->file));
}

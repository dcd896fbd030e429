/*
 * img/img.c - opening images and the files behind them, making new ones. One thread per image; reading and
 * writing is in img/io.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

/* clang-format off */
static const struct img_format *const formats[] = {
	&img_qcow2,
	&img_raw, /* the last: has no mark to find it by */
};
/* clang-format on */

static const struct img_format *format_find(const char *name, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (!strcmp(formats[i]->name, name))
			return formats[i];
	err_set(err, ENOTSUP, "disk image format '%s' is not known", name);
	return NULL;
}

const struct img_format *img_probe(const void *head, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (formats[i]->probe && formats[i]->probe(head, len))
			return formats[i];
	return &img_raw;
}

static int probe_file(struct img_file *f, const char *path,
		      const struct img_format **fmt, struct err *err)
{
	uint8_t *head = mem_new(IMG_PROBE_LEN, 1);
	int rc;

	if (!head)
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	rc = file_read(f, head, 0, IMG_PROBE_LEN);
	if (rc)
		err_sys(err, -rc, "cannot read '%s'", path);
	else
		*fmt = img_probe(head, min_u64(IMG_PROBE_LEN, file_size(f)));
	free(head);
	return rc;
}

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
		file_close(img->file);
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
	rc = fmt->open(img, err);
	if (rc) {
		img_close(img);
		return rc;
	}
	*out = img;
	return 0;
}

/* ---- backing chains ---- */

/*
 * The path of the file behind `img`: relative to its folder. Names with a protocol, as QEMU takes them, are
 * not files. NULL with the message set.
 */
static char *backing_resolve(const struct img *img, struct err *err)
{
	const char *name = img->backing_path, *slash = strrchr(img->path, '/'), *colon;
	char *path = NULL;
	int n;

	if (!strncmp(name, "file:", 5))
		name += 5;
	colon = strchr(name, ':');
	if (colon && colon < name + strcspn(name, "/")) {
		err_set(err, ENOTSUP,
			"the backing file of '%s' is '%.80s': only files can be opened",
			img->path, img->backing_path);
		return NULL;
	}
	if (name[0] == '/' || !slash)
		n = asprintf(&path, "%s", name);
	else
		n = asprintf(&path, "%.*s/%s", (int)(slash - img->path), img->path,
			     name);
	if (n < 0) {
		err_set(err, ENOMEM, "no memory to open '%s'", img->backing_path);
		return NULL;
	}
	return path;
}

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
	char *path = backing_resolve(img, err);
	int rc;

	if (!path)
		return -(err ? err->code : EINVAL);
	back.format = img->backing_format;
	back.read_only = true;
	rc = file_open(path, &fo, &f, err);
	if (rc)
		err_prefix(err, "the backing file of '%s'", img->path);
	else
		rc = open_chain(f, path, &back, c, &img->backing, err);
	free(path);
	return rc;
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
	if (!rc && opts->format)
		rc = (fmt = format_find(opts->format, err)) ? 0 : -ENOTSUP;
	else if (!rc)
		rc = probe_file(f, path, &fmt, err);
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

/* ---- snapshot mode ---- */

/* A file without a name, on disk if possible: it may grow large. */
static int temp_fd(struct err *err)
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

/* Puts an overlay in front of *img that keeps the writes until it is closed. */
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
	int fd = temp_fd(err), rc;

	if (fd < 0)
		return fd;
	rc = file_open_fd(fd, "the temporary file", &fo, &f, err);
	if (rc)
		return rc;
	rc = img_qcow2.create(f, &co, err);
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

/* ---- public ---- */

static int open_file(struct img_file *f, const char *path, const struct img_opts *opts,
		     struct img **out, struct err *err)
{
	int rc = open_chain(f, path, opts, NULL, out, err);

	if (!rc && opts->snapshot) {
		rc = add_overlay(out, err);
		if (rc) {
			img_close(*out);
			*out = NULL;
		}
	}
	return rc;
}

static struct img_opts effective(const struct img_opts *opts)
{
	struct img_opts o = opts ? *opts : (struct img_opts){0};

	if (o.snapshot)
		o.read_only = true;
	return o;
}

int img_open(const char *path, const struct img_opts *opts, struct img **out,
	     struct err *err)
{
	struct img_opts o = effective(opts);
	struct img_file_opts fo = {o.read_only, o.no_lock, o.no_sync};
	struct img_file *f;
	int rc;

	*out = NULL;
	rc = file_open(path, &fo, &f, err);
	return rc ? rc : open_file(f, path, &o, out, err);
}

int img_open_fd(int fd, const char *name, const struct img_opts *opts, struct img **out,
		struct err *err)
{
	struct img_opts o = effective(opts);
	struct img_file_opts fo = {o.read_only, o.no_lock, o.no_sync};
	struct img_file *f;
	int rc;

	*out = NULL;
	rc = file_open_fd(fd, name, &fo, &f, err);
	return rc ? rc : open_file(f, name, &o, out, err);
}

uint64_t img_size(const struct img *img)
{
	return img->size;
}

bool img_read_only(const struct img *img)
{
	return img->read_only;
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
	};
	if (img->fmt->info)
		img->fmt->info(img, info);
}

/* ---- making images ---- */

/* The size of the backing file, for an image that is to have the same. */
static int size_from_backing(const char *path, const struct img_create_opts *opts,
			     uint64_t *size, struct err *err)
{
	struct img front = {.path = (char *)path,
			    .backing_path = (char *)opts->backing_path};
	struct img_opts bo = {.format = opts->backing_format, .read_only = true};
	char *resolved = backing_resolve(&front, err);
	struct img *img;
	int rc;

	if (!resolved)
		return -(err ? err->code : EINVAL);
	rc = img_open(resolved, &bo, &img, err);
	free(resolved);
	if (rc)
		return rc;
	*size = img->size;
	return img_close(img);
}

int img_create(const char *path, const struct img_create_opts *opts, struct err *err)
{
	struct img_create_opts o = *opts;
	const struct img_format *fmt = format_find(o.format, err);
	struct img_file_opts fo = {0};
	struct img_file *f;
	bool made;
	int fd, rc;

	if (!fmt)
		return -ENOTSUP;
	if (!fmt->create)
		return err_set(err, ENOTSUP, "'%s' images cannot be made", fmt->name);
	if (o.backing_path && !o.backing_format)
		return err_set(err, EINVAL, "the format of backing file '%s' is needed",
			       o.backing_path);
	if (o.backing_path && !o.size) {
		rc = size_from_backing(path, &o, &o.size, err);
		if (rc)
			return rc;
	}
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	made = fd >= 0;
	if (!made && errno == EEXIST && o.replace)
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_sys(err, errno, "cannot create '%s'", path);
	rc = file_open_fd(fd, path, &fo, &f, err);
	if (!rc) {
		rc = file_is_device(f) ? 0 : file_truncate(f, 0);
		rc = rc ? err_sys(err, -rc, "cannot empty '%s'", path)
			: fmt->create(f, &o, err);
		if (!rc && (rc = file_sync(f)))
			err_sys(err, -rc, "cannot write '%s'", path);
		file_close(f);
	}
	if (rc && made)
		unlink(path);
	return rc;
}

/*
 * img/extern.c - the files that an image names: backing files, extents, data files. An image may come from
 * anybody, and what it names would be read (and shown to a guest, or written into the converted
 * image) with the rights of whoever opens it; so names lead no further than the image's own folder,
 * unless the user says so. While an image is opened; one thread.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

/* Larger numbers of files are damage: a 2 TiB disk in 2 GiB pieces has a thousand. */
#define MAX_EXTRA 4096

/* The folder of `path`, new memory. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* Names with a protocol, as QEMU takes them, are not files. */
static bool has_protocol(const char *name)
{
	const char *colon = strchr(name, ':');

	return colon && colon < name + strcspn(name, "/");
}

/* Does the real path `path` lie in folder `dir`? */
static bool lies_in(const char *path, const char *dir)
{
	char *real = realpath(dir, NULL);
	size_t n = real ? strlen(real) : 0;
	bool in;

	if (!real)
		return false;
	if (n == 1) /* "/" */
		n = 0;
	in = !strncmp(path, real, n) && path[n] == '/';
	free(real);
	return in;
}

/* May `path` be opened for an image in `folder`? */
static int check_place(const char *path, const char *image, const char *folder,
		       const char *what, const char *allow, struct err *err)
{
	char *real;
	bool ok;

	if (allow && !strcmp(allow, "/"))
		return 0;
	real = realpath(path, NULL);
	if (!real)
		return err_sys(err, errno, "cannot open '%s', the %s of '%s'", path,
			       what, image);
	ok = lies_in(real, folder) || (allow && lies_in(real, allow));
	free(real);
	if (ok)
		return 0;
	return err_set(err, EACCES,
		       "'%s', the %s of '%s', is outside the image's folder: "
		       "--allow-external=DIR lets it be opened",
		       path, what, image);
}

int extern_resolve(const char *path, const char *name, const char *what,
		   const char *allow, char **out, struct err *err)
{
	char *folder, *full = NULL;
	int rc;

	*out = NULL;
	if (!strncmp(name, "file:", 5))
		name += 5;
	if (!strncmp(name, "///", 3))
		name += 2;
	if (!*name || has_protocol(name))
		return err_set(err, ENOTSUP,
			       "the %s of '%s' is '%.80s': only files can be opened",
			       what, path, name);
	folder = folder_of(path);
	if (!folder)
		return err_set(err, ENOMEM, "no memory to open '%s'", name);
	if (name[0] == '/' || !strchr(path, '/'))
		full = strdup(name);
	else if (asprintf(&full, "%s/%s", strcmp(folder, "/") ? folder : "", name) < 0)
		full = NULL;
	rc = full ? check_place(full, path, folder, what, allow, err)
		  : err_set(err, ENOMEM, "no memory to open '%s'", name);
	free(folder);
	if (rc)
		free(full);
	else
		*out = full;
	return rc;
}

static int extra_add(struct img *img, struct img_file *f)
{
	struct img_file **v = mem_resize(img->extra, img->n_extra + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	img->extra = v;
	v[img->n_extra++] = f;
	return 0;
}

/* A file must not be there twice: a write to one part would change the other. */
static int check_twice(struct img *img, struct img_file *f, const char *what,
		       const char *path, struct err *err)
{
	bool twice = file_same(f, img->file);

	for (unsigned i = 0; i < img->n_extra; i++)
		twice |= file_same(f, img->extra[i]);
	return twice ? err_set(err, ELOOP,
			       "'%s', the %s of '%s', is a file of that image already",
			       path, what, img->path)
		     : 0;
}

int img_open_extern(struct img *img, const char *name, const char *what,
		    struct img_file **out, struct err *err)
{
	struct img_file_opts fo = {.read_only = img->read_only,
				   .no_lock = img->opts.no_lock,
				   .no_sync = img->opts.no_sync};
	struct img_file *f = img->target ? target_find(img->target, name) : NULL;
	char *path;
	int rc;

	*out = f;
	if (f)
		return 0;
	if (img->n_extra == MAX_EXTRA)
		return err_set(err, EINVAL,
			       "'%s' is damaged: it consists of more than %u files",
			       img->path, MAX_EXTRA);
	rc = extern_resolve(img->path, name, what, img->opts.allow_external, &path,
			    err);
	if (rc)
		return rc;
	rc = file_open(path, &fo, &f, err);
	if (rc)
		err_prefix(err, "the %s of '%s'", what, img->path);
	if (!rc && (rc = check_twice(img, f, what, path, err)))
		file_close(f);
	if (!rc && (rc = extra_add(img, f))) {
		file_close(f);
		err_set(err, ENOMEM, "no memory to open '%s'", path);
	}
	free(path);
	if (!rc)
		*out = f;
	return rc;
}

/* ---- names in images ---- */

int img_read_backing_path(struct img *img, uint64_t off, uint32_t len, struct err *err)
{
	int rc = -ENOMEM;

	img->has_backing = true;
	img->backing_path = mem_new((size_t)len + 1, 1);
	if (img->backing_path)
		rc = file_read(img->file, img->backing_path, off, len);
	return rc ? err_sys(err, -rc, "cannot read '%s'", img->path) : 0;
}

int img_set_text(char **to, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

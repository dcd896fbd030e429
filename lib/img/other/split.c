/*
 * img/other/split.c - a disk's bytes in several files, one behind the other: NAME.001, NAME.002 ... (as dd, split,
 * 7-Zip and forensic tools cut them), or NAME-f001.EXT, NAME-f002.EXT ... (VMware's flat extents, without their
 * descriptor). The first one is what is opened. Opening and closing: one thread; the rest: any.
 *
 * There is nothing in such files to know them by. So without a format by name they are taken for one disk
 * only to be read, and only if all of them have the same length, a multiple of 512, but the last, which may
 * be shorter; otherwise, and with the format "raw", the first file is a disk of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

#define MAX_PIECES 999

struct piece {
	uint64_t start; /* in the disk */
	struct img_file *file;
};

struct split {
	unsigned n;
	struct piece *v; /* one more stands for the end */
};

/* Where the number is in the name of the first piece; NULL: it is none. */
static const char *number_in(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t len = strlen(name);
	const char *at = NULL;

	if (len > 4 && !strcmp(name + len - 4, ".001"))
		return name + len - 3;
	for (const char *p = name; (p = strstr(p, "-f001")); p++)
		if (p > name && (!p[5] || p[5] == '.'))
			at = p + 2;
	return at;
}

/* The path of piece `i`, from 1, as new memory; `name_only`: without its folder. */
static char *piece_path(const char *first, unsigned i, bool name_only)
{
	const char *number = number_in(first), *slash = strrchr(first, '/');
	const char *from = name_only && slash ? slash + 1 : first;
	char *out;

	if (!number ||
	    asprintf(&out, "%.*s%03u%s", (int)(number - from), from, i, number + 3) < 0)
		return NULL;
	return out;
}

/* Is there such a piece, and how long is it? */
static bool piece_there(const char *first, unsigned i, uint64_t *len)
{
	char *path = piece_path(first, i, false);
	struct stat st;
	bool is = path && !stat(path, &st) && S_ISREG(st.st_mode);

	*len = is ? (uint64_t)st.st_size : 0;
	free(path);
	return is;
}

bool split_is_first(const char *path, uint64_t size)
{
	uint64_t first, len = 0;
	unsigned i = 2;

	if (!number_in(path) || !size || size % 512 || !piece_there(path, 1, &first) ||
	    first != size || !piece_there(path, 2, &len))
		return false;
	for (; i <= MAX_PIECES && piece_there(path, i, &len) && len == first; i++)
		;
	/* The first that differs is the last. */
	if (i <= MAX_PIECES && piece_there(path, i, &len))
		return len && len < first && !piece_there(path, i + 1, &len);
	return true;
}

/* ---- opening ---- */

static int piece_add(struct img *img, struct split *s, struct img_file *f,
		     struct err *err)
{
	struct piece *v = mem_resize(s->v, s->n + 2, sizeof(*v));
	uint64_t start, len = file_size(f);

	if (!v)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	start = s->n ? v[s->n].start : 0;
	s->v = v;
	if (start % 512)
		return err_set(err, EINVAL,
			       "'%s' stands behind a file whose length is no multiple "
			       "of 512",
			       file_path(f));
	if (len > INT64_MAX / 2 - start)
		return err_set(err, EFBIG, "'%s' is too long", file_path(f));
	v[s->n++] = (struct piece){start, f};
	v[s->n] = (struct piece){start + len, NULL};
	return 0;
}

static bool next_there(const struct img *img, const char *name, unsigned i)
{
	uint64_t len;

	return img->target ? target_find(img->target, name) != NULL
			   : piece_there(img->path, i, &len);
}

static int split_open(struct img *img, struct err *err)
{
	struct split *s = NEW(struct split);
	int rc;

	if (!s)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = s;
	img->unit = img->zero_unit = 1;
	if (!number_in(img->path))
		return err_set(err, EINVAL,
			       "'%s' is not the first file of a disk in several: that "
			       "is NAME.001 or NAME-f001.EXT",
			       img->path);
	if (!img->read_only && !img->opts.format && !img->target)
		return err_set(err, EPERM,
			       "'%s' seems to be the first file of a disk in several, "
			       "which may be wrong: name the format, split or raw, to "
			       "write to it",
			       img->path);
	rc = piece_add(img, s, img->file, err);
	for (unsigned i = 2; !rc && i <= MAX_PIECES; i++) {
		char *name = piece_path(img->path, i, true);
		struct img_file *f;

		if (!name)
			rc = err_set(err, ENOMEM, "no memory to open '%s'", img->path);
		else if (!next_there(img, name, i))
			i = MAX_PIECES;
		else if (!(rc = img_open_extern(img, name, "piece", &f, err)))
			rc = piece_add(img, s, f, err);
		free(name);
	}
	if (!rc)
		img->size = s->v[s->n].start;
	return rc;
}

static int split_close(struct img *img)
{
	struct split *s = img->priv;

	if (s)
		free(s->v);
	free(s);
	img->priv = NULL;
	return 0;
}

/* ---- data ---- */

static int split_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	const struct split *s = img->priv;
	unsigned low = 0, high = s->n - 1;

	/* The last piece that begins at or before it; empty ones are passed over. */
	while (low < high) {
		unsigned mid = low + (high - low + 1) / 2;

		if (s->v[mid].start <= off)
			low = mid;
		else
			high = mid - 1;
	}
	if (off >= s->v[low + 1].start)
		return -EIO;
	*e = (struct img_extent){
		.kind = IMG_DATA,
		.writable = true,
		.len = min_u64(len, s->v[low + 1].start - off),
		.file_off = off - s->v[low].start,
		.file = s->v[low].file,
		.grain = 1,
	};
	return 0;
}

static int split_discard(struct img *img, uint64_t off, uint64_t len, uint64_t *done)
{
	struct img_extent e;
	int rc = split_map(img, off, len, &e);

	if (rc)
		return rc;
	file_discard(e.file, e.file_off, e.len);
	*done = e.len;
	return 0;
}

static int split_flush(struct img *img)
{
	const struct split *s = img->priv;
	int rc = 0;

	for (unsigned i = 0; i < s->n && !rc; i++)
		rc = file_sync(s->v[i].file);
	return rc;
}

/* ---- making ---- */

/* clang-format off */
static const struct img_option_desc split_options[] = {
	{"piece_size", OPTION_SIZE, NULL, "2G", "length of each file but the last: a multiple of 512"},
	{0},
};
/* clang-format on */

static int check_new(const struct img_target *t, uint64_t size, uint64_t piece,
		     unsigned *n, struct err *err)
{
	uint64_t len, pieces;

	if (!number_in(t->path))
		return err_set(err, EINVAL,
			       "'%s' cannot be the first file of several: name it "
			       "NAME.001 or NAME-f001.EXT",
			       t->path);
	if (!piece || piece % 512)
		return err_set(err, EINVAL,
			       "pieces of %llu bytes: a multiple of 512 is needed",
			       (unsigned long long)piece);
	if (file_is_device(t->file))
		return err_set(err, EINVAL, "'%s' is a device, no file", t->path);
	pieces = size / piece + !!(size % piece);
	if (pieces > MAX_PIECES)
		return err_set(err, EFBIG,
			       "%llu files of %llu bytes: there can be %d; use larger "
			       "ones (piece_size)",
			       (unsigned long long)pieces, (unsigned long long)piece,
			       MAX_PIECES);
	*n = pieces ? (unsigned)pieces : 1;
	/* What is there from a longer disk would be taken for this one's. */
	if (*n < MAX_PIECES && piece_there(t->path, *n + 1, &len))
		return err_set(
			err, EEXIST,
			"there is a file of number %03u beside '%s', which would "
			"be taken for its %uth part: remove it first",
			*n + 1, t->path, *n + 1);
	return 0;
}

static int split_create(struct img_target *t, const struct img_create_opts *opts,
			struct err *err)
{
	uint64_t piece = img_option_number(opts->options, opts->n_options, "piece_size",
					   2ull << 30);
	unsigned n = 0;
	int rc = check_new(t, opts->size, piece, &n, err);

	for (unsigned i = 1; i <= n && !rc; i++) {
		uint64_t start = (i - 1) * piece;
		struct img_file *f = t->file;
		char *name = piece_path(t->path, i, true);

		if (!name)
			rc = err_set(err, ENOMEM, "no memory to create '%s'", t->path);
		else if (i > 1)
			rc = target_add_file(t, name, &f, err);
		if (!rc) {
			rc = file_truncate(f, min_u64(piece, opts->size - start));
			if (rc)
				err_sys(err, -rc, "cannot make '%s'", name);
		}
		free(name);
	}
	return rc;
}

static int split_measure(const struct img_create_opts *opts,
			 const struct img_plan *plan, struct img_measure *m,
			 struct err *err)
{
	(void)plan;
	(void)err;
	m->required = m->fully_allocated = opts->size;
	return 0;
}

const struct img_format img_split = {
	.name = "split",
	.title = "the disk's bytes in several files: NAME.001, NAME.002 ...",
	.options = split_options,
	.in_place = true,
	.open = split_open,
	.close = split_close,
	.map = split_map,
	.discard = split_discard,
	.flush = split_flush,
	.create = split_create,
	.measure = split_measure,
};

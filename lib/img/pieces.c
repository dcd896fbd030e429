/* img/pieces.c - images whose bytes lie in pieces anywhere in a file: in archives that cut disks. Any thread. */
#include <stdlib.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

struct pieces {
	struct img_piece *v; /* owned, sorted */
	size_t n;
};

static int pieces_open(struct img *img, struct err *err)
{
	(void)err;
	img->unit = 1;
	img->zero_unit = 1;
	return 0;
}

static int pieces_close(struct img *img)
{
	struct pieces *p = img->priv;

	if (p)
		free(p->v);
	free(p);
	return 0;
}

/* The first piece that ends behind `off`. */
static size_t find(const struct pieces *p, uint64_t off)
{
	size_t lo = 0, hi = p->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (p->v[mid].off + p->v[mid].len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int pieces_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	const struct pieces *p = img->priv;
	size_t i = find(p, off);
	uint64_t skip;

	*e = (struct img_extent){.kind = IMG_ZERO, .len = len, .grain = 1};
	if (i == p->n)
		return 0;
	if (p->v[i].off > off) {
		e->len = min_u64(len, p->v[i].off - off);
		return 0;
	}
	skip = off - p->v[i].off;
	e->kind = IMG_DATA;
	e->file = img->file;
	e->file_off = p->v[i].file_off + skip;
	e->len = p->v[i].len - skip;
	/* Neighbours in the file, too: fewer and longer reads. */
	while (e->len < len && ++i < p->n && p->v[i].off == off + e->len &&
	       p->v[i].file_off == e->file_off + e->len)
		e->len += p->v[i].len;
	e->len = min_u64(len, e->len);
	return 0;
}

static const struct img_format img_pieces = {
	.name = "raw",
	.open = pieces_open,
	.close = pieces_close,
	.map = pieces_map,
};

static int check(const struct img_piece *v, size_t n, uint64_t size, uint64_t file_size,
		 const char *name, struct err *err)
{
	uint64_t end = 0;

	for (size_t i = 0; i < n; i++) {
		if (!v[i].len || v[i].off < end || !range_ok(v[i].off, v[i].len, size))
			return err_set(err, EINVAL,
				       "'%s' is damaged: %u bytes of the disk at %llu "
				       "are there twice, or behind its end",
				       name, v[i].len, (unsigned long long)v[i].off);
		if (!range_ok(v[i].file_off, v[i].len, file_size))
			return err_set(err, EINVAL,
				       "'%s' is damaged: it ends before what the disk "
				       "has at %llu",
				       name, (unsigned long long)v[i].off);
		end = v[i].off + v[i].len;
	}
	return 0;
}

int img_open_pieces(int fd, const char *name, uint64_t size, struct img_piece *v,
		    size_t n, struct img **out, struct err *err)
{
	struct img_file_opts fo = {.read_only = true};
	struct img_opts io = {.read_only = true};
	struct pieces *p = NEW(struct pieces);
	struct img_file *f = NULL;
	int rc;

	*out = NULL;
	if (!p) {
		close(fd);
		free(v);
		return err_set(err, ENOMEM, "no memory to open '%s'", name);
	}
	p->v = v;
	p->n = n;
	rc = file_open_fd(fd, name, &fo, &f, err);
	if (!rc) {
		rc = check(v, n, size, file_size(f), name, err);
		if (rc)
			file_close(f);
	}
	if (!rc)
		rc = img_open_file(f, name, &img_pieces, &io, out, err);
	if (rc) {
		free(v);
		free(p);
		return rc;
	}
	(*out)->priv = p;
	(*out)->size = size;
	return 0;
}

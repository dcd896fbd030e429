/*
 * img/chain.c - rebase and commit, on any format that has backing files. An interrupted one can be done again: data
 * is written, and on the disk, before the name is changed or the image emptied. One thread.
 */
#include "img/chain.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/img_int.h"

#define STEP (1u << 20)

static int stopped(const struct img_chain_opts *o, struct err *err)
{
	return o->stop && atomic_load(o->stop) ? err_set(err, EINTR, "interrupted") : 0;
}

static void tell(const struct img_chain_opts *o, uint64_t done, uint64_t total)
{
	if (o->progress)
		o->progress(o->ctx, done, total);
}

static int read_padded(struct img *img, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t there = img && off < img->size ? min_u64(len, img->size - off) : 0;

	memset(buf + there, 0, len - there);
	return there ? img_read(img, buf, off, there) : 0;
}

/* ---- rebase ---- */

struct rebase {
	struct img *img, *now; /* now: the new backing image, or NULL */
	uint8_t *a, *b;
	const struct img_chain_opts *o;
};

/* Copies to the image what differs in [off, off + len), which it does not hold itself. */
static int pull(struct rebase *r, uint64_t off, uint64_t len)
{
	uint64_t unit = max_u64(r->img->unit, 512);
	int rc = img_read(r->img, r->a, off, len);

	if (!rc)
		rc = read_padded(r->now, r->b, off, len);
	for (uint64_t at = 0; at < len && !rc;) {
		uint64_t n = min_u64(len - at, unit - (off + at) % unit);

		if (memcmp(r->a + at, r->b + at, n))
			rc = img_write(r->img, r->a + at, off + at, n);
		at += n;
	}
	return rc;
}

static int pull_all(struct rebase *r, struct err *err)
{
	uint64_t size = r->img->size;
	struct img_extent e;

	for (uint64_t at = 0; at < size; at += e.len) {
		uint64_t n = min_u64(STEP - at % STEP, size - at);
		int rc = stopped(r->o, err);

		if (rc)
			return rc;
		tell(r->o, at, size);
		rc = img_map(r->img, at, n, &e);
		if (!rc && (e.depth || !e.present))
			rc = pull(r, at, e.len);
		if (rc)
			return err_sys(err, -rc, "cannot rebase '%s' at offset %llu",
				       r->img->path, (unsigned long long)at);
	}
	tell(r->o, size, size);
	return 0;
}

static int open_new_backing(const char *path, const char *backing, const char *format,
			    const struct img_chain_opts *o, struct img **out,
			    struct err *err)
{
	struct img_opts io = {.format = format,
			      .read_only = true,
			      .allow_external = o->allow_external};
	char *full;
	int rc = extern_resolve(path, backing, "backing file", o->allow_external, &full,
				err);

	if (rc)
		return rc;
	rc = img_open(full, &io, out, err);
	free(full);
	return rc;
}

/* The image must not stand behind itself. */
static int check_loop(const struct img *img, const struct img *now, struct err *err)
{
	for (; now; now = now->backing)
		if (file_same(img->file, now->file))
			return err_set(err, ELOOP,
				       "'%s' would become its own backing file",
				       img->path);
	return 0;
}

static int rebase(struct rebase *r, struct err *err)
{
	int rc = check_loop(r->img, r->now, err);

	if (rc)
		return rc;
	r->a = malloc(STEP);
	r->b = malloc(STEP);
	if (!r->a || !r->b)
		rc = err_set(err, ENOMEM, "no memory to rebase");
	else
		rc = pull_all(r, err);
	if (!rc && (rc = img_flush(r->img)))
		err_sys(err, -rc, "cannot write '%s'", r->img->path);
	free(r->a);
	free(r->b);
	return rc;
}

static int end_image(struct img *img, int rc, struct err *err)
{
	char *path = img ? strdup(img->path) : NULL;
	int closed = img_close(img);

	if (!rc && closed)
		rc = err_sys(err, -closed, "cannot write '%s'", path ? path : "");
	free(path);
	return rc;
}

int img_rebase(const char *path, const char *backing, const char *backing_format,
	       bool unsafe, const struct img_chain_opts *o, struct err *err)
{
	struct img_opts io = {.format = o->format,
			      .no_backing = unsafe,
			      .no_sync = o->no_sync,
			      .allow_external = o->allow_external};
	struct rebase r = {.o = o};
	int rc = img_open(path, &io, &r.img, err);

	if (rc)
		return rc;
	if (!r.img->fmt->set_backing)
		rc = err_set(err, ENOTSUP,
			     "'%s': format %s cannot change its backing file", path,
			     r.img->fmt->name);
	if (!rc && backing && !unsafe)
		rc = open_new_backing(path, backing, backing_format, o, &r.now, err);
	if (!rc && !unsafe)
		rc = rebase(&r, err);
	if (!rc)
		rc = img_set_backing(r.img, backing, backing_format, err);
	img_close(r.now);
	return end_image(r.img, rc, err);
}

/* ---- commit ---- */

struct commit {
	struct img *view; /* the image and its chain, read-only */
	struct img *base; /* written to */
	unsigned depth;   /* of base in view */
	uint8_t *buf;
	const struct img_chain_opts *o;
};

/* Finds the base in the chain: its depth and its image. */
static int find_base(struct commit *k, const char *base, struct img **found,
		     struct err *err)
{
	struct img *i = k->view->backing;

	if (!i)
		return err_set(err, EINVAL, "'%s' has no backing file", k->view->path);
	for (k->depth = 1; i && base; i = i->backing, k->depth++) {
		struct img_file_opts fo = {.read_only = true, .no_lock = true};
		struct img_file *f;
		bool same = !strcmp(i->path, base);

		if (!same && !file_open(base, &fo, &f, NULL)) {
			same = file_same(f, i->file);
			file_close(f);
		}
		if (same)
			break;
	}
	if (!i)
		return err_set(err, EINVAL, "'%s' is not in the chain of '%s'", base,
			       k->view->path);
	*found = i;
	return 0;
}

static int push(struct commit *k, uint64_t off, const struct img_extent *e)
{
	int rc;

	if (e->kind == IMG_ZERO)
		return img_write_zeroes(k->base, off, e->len, true);
	rc = img_read(k->view, k->buf, off, e->len);
	return rc ? rc : img_write(k->base, k->buf, off, e->len);
}

static int push_all(struct commit *k, struct err *err)
{
	uint64_t size = k->view->size;
	struct img_extent e;

	for (uint64_t at = 0; at < size; at += e.len) {
		uint64_t n = min_u64(STEP - at % STEP, size - at);
		int rc = stopped(k->o, err);

		if (rc)
			return rc;
		tell(k->o, at, size);
		rc = img_map(k->view, at, n, &e);
		if (!rc && e.present && e.depth < k->depth)
			rc = push(k, at, &e);
		if (rc)
			return err_sys(err, -rc, "cannot commit '%s' at offset %llu",
				       k->view->path, (unsigned long long)at);
	}
	tell(k->o, size, size);
	return 0;
}

static int commit(struct commit *k, struct err *err)
{
	int rc = 0;

	k->buf = malloc(STEP);
	if (!k->buf)
		return err_set(err, ENOMEM, "no memory to commit");
	if (k->base->size < k->view->size)
		rc = img_resize(k->base, k->view->size, IMG_PREALLOC_OFF, err);
	if (!rc)
		rc = push_all(k, err);
	if (!rc && (rc = img_flush(k->base)))
		err_sys(err, -rc, "cannot write '%s'", k->base->path);
	free(k->buf);
	return rc;
}

int img_commit(const char *path, const char *base, bool keep,
	       const struct img_chain_opts *o, struct err *err)
{
	/* The image itself is locked by `top`; the view of the chain is not, as its base is written to. */
	struct img_opts vo = {.format = o->format,
			      .read_only = true,
			      .no_lock = true,
			      .allow_external = o->allow_external};
	struct img_opts to = {.format = o->format,
			      .no_backing = true,
			      .no_sync = o->no_sync,
			      .allow_external = o->allow_external};
	struct img_opts bo = {.no_sync = o->no_sync,
			      .allow_external = o->allow_external};
	struct commit k = {.o = o};
	struct img *top = NULL, *found = NULL;
	int rc = img_open(path, &to, &top, err);

	if (!rc)
		rc = img_open(path, &vo, &k.view, err);
	if (!rc)
		rc = find_base(&k, base, &found, err);
	if (!rc) {
		bo.format = found->fmt->name;
		rc = img_open(found->path, &bo, &k.base, err);
	}
	if (!rc)
		rc = commit(&k, err);
	rc = end_image(k.base, rc, err);
	img_close(k.view);
	if (!rc && !keep && !base)
		rc = top->fmt->make_empty ? img_make_empty(top, err) : 0;
	return end_image(top, rc, err);
}

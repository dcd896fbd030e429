/*
 * img/compare.c - compares two images: threads take chunk after chunk; what neither has is not read. The first
 * difference by offset counts, whoever finds it.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/copy.h"
#include "img/img_int.h"

#define CHUNK       (1u << 18)
#define MAX_THREADS 64

struct compare {
	struct img *a, *b;
	const struct img_compare_opts *o;
	uint64_t size; /* of the larger one */

	pthread_mutex_t lock; /* leaf */
	uint64_t at;          /* next byte to look at */
	uint64_t data_end;    /* up to here it is data, as the tables said */
	uint64_t first;       /* difference, UINT64_MAX: none */
	bool allocation;
	bool failed;
	struct err *err;
};

/* Is [off, ...) zeros in `img`, as far as its tables say? For *n bytes. */
static int look(struct img *img, uint64_t off, uint64_t *n, bool *zero, bool *present)
{
	struct img_extent e;
	int rc;

	*zero = true;
	*present = false;
	if (off >= img->size)
		return 0;
	rc = img_map(img, off, min_u64(*n, img->size - off), &e);
	if (rc)
		return rc;
	*n = e.len;
	*zero = e.kind == IMG_ZERO;
	*present = e.present && !e.hole;
	return 0;
}

static void give(struct compare *c, uint64_t *off, uint64_t *len)
{
	*off = c->at;
	*len = min_u64(c->data_end - c->at, CHUNK - c->at % CHUNK);
	c->at += *len;
}

/* The next chunk that has to be read; false at the end. lock held. */
static bool next(struct compare *c, uint64_t *off, uint64_t *len)
{
	while (!c->failed && c->at < c->size && c->at < c->first) {
		bool za, zb, pa, pb;
		uint64_t n = c->size - c->at, m;
		int rc;

		if (c->o->stop && atomic_load(c->o->stop)) {
			c->failed = true;
			err_set(c->err, EINTR, "interrupted");
			return false;
		}
		if (c->at < c->data_end) {
			give(c, off, len);
			return true;
		}
		rc = look(c->a, c->at, &n, &za, &pa);
		m = n;
		rc = rc ? rc : look(c->b, c->at, &m, &zb, &pb);
		if (rc) {
			c->failed = true;
			err_sys(c->err, -rc,
				"cannot read the tables of '%s' or '%s' for offset "
				"%llu",
				c->a->path, c->b->path, (unsigned long long)c->at);
			return false;
		}
		n = min_u64(n, m);
		if (c->o->strict && pa != pb) {
			c->first = c->at;
			c->allocation = true;
			return false;
		}
		if (za && zb)
			c->at += n;
		else
			c->data_end = c->at + n;
	}
	return false;
}

static int read_padded(struct img *img, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t there = off < img->size ? min_u64(len, img->size - off) : 0;

	memset(buf + there, 0, len - there);
	return there ? img_read(img, buf, off, there) : 0;
}

static int compare_chunk(struct compare *c, uint8_t *x, uint8_t *y, uint64_t off,
			 uint64_t len, uint64_t *diff)
{
	const struct img *bad = c->a;
	int rc = read_padded(c->a, x, off, len);

	if (!rc) {
		bad = c->b;
		rc = read_padded(c->b, y, off, len);
	}
	if (rc) {
		pthread_mutex_lock(&c->lock);
		if (!c->failed)
			err_sys(c->err, -rc, "cannot read '%s' at offset %llu",
				bad->path, (unsigned long long)off);
		c->failed = true;
		pthread_mutex_unlock(&c->lock);
		return rc;
	}
	*diff = UINT64_MAX;
	if (!memcmp(x, y, len))
		return 0;
	*diff = 0;
	while (x[*diff] == y[*diff])
		++*diff;
	*diff += off;
	return 0;
}

static void *worker(void *arg)
{
	struct compare *c = arg;
	uint8_t *x = malloc(CHUNK), *y = malloc(CHUNK);
	uint64_t off, len, diff;

	pthread_mutex_lock(&c->lock);
	if ((!x || !y) && !c->failed) {
		c->failed = true;
		err_set(c->err, ENOMEM, "no memory to compare");
	}
	while (next(c, &off, &len)) {
		pthread_mutex_unlock(&c->lock);
		if (compare_chunk(c, x, y, off, len, &diff))
			diff = UINT64_MAX;
		pthread_mutex_lock(&c->lock);
		if (diff < c->first) {
			c->first = diff;
			c->allocation = false;
		}
		if (c->o->progress)
			c->o->progress(c->o->ctx, c->at, c->size);
	}
	pthread_mutex_unlock(&c->lock);
	free(x);
	free(y);
	return NULL;
}

int img_compare(struct img *a, struct img *b, const struct img_compare_opts *o,
		struct img_compare *out, struct err *err)
{
	struct compare c = {.a = a,
			    .b = b,
			    .o = o,
			    .size = max_u64(a->size, b->size),
			    .first = UINT64_MAX,
			    .err = err};
	unsigned threads = o->threads ? o->threads : img_processors(), n = 0;
	pthread_t id[MAX_THREADS];

	threads = (unsigned)min_u64(threads, MAX_THREADS);
	pthread_mutex_init(&c.lock, NULL);
	while (n + 1 < threads && !pthread_create(&id[n], NULL, worker, &c))
		n++;
	worker(&c);
	while (n)
		pthread_join(id[--n], NULL);
	pthread_mutex_destroy(&c.lock);
	if (c.failed)
		return -err->code;
	*out = (struct img_compare){
		.differ = c.first != UINT64_MAX,
		.allocation = c.allocation,
		.offset = c.first,
	};
	return 0;
}

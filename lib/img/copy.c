/*
 * img/copy.c - copies images. The data is cut into chunks; each of the threads takes the next chunk, reads it, packs it
 * if wanted, and writes it. Where the target wants its units in order (one pass, packed), finished chunks
 * wait for their turn in a ring, and whoever finishes the one that is due writes all that can go.
 *
 * The ring bounds the memory: slots of one chunk, packed and not, MAX_MEMORY together.
 * Lock order: `lock` is a leaf; the target's locks are taken without it.
 */
#include "img/copy.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"
#include "img/img_int.h"

#define CHUNK       (1u << 20)
#define MAX_MEMORY  (160u << 20)
#define MAX_THREADS 64
/* Chunks that cannot be cloned before that is given up. */
#define MAX_TRIES   16
/* The unit in which zeros are looked for. */
#define ZERO_GRAIN  4096

/* A packed unit in a slot. */
struct unit {
	uint32_t len; /* 0: zeros; UINT32_MAX: not packed */
	uint8_t *data;
};

enum slot_state { FREE, TAKEN, DONE };

struct slot {
	enum slot_state state;
	uint64_t turn;
	uint64_t off, len; /* the chunk, cut at the end of the target */
	uint64_t data;     /* bytes of it that are data, for the progress */
	size_t first;      /* of the ranges in it */
	uint8_t *buf, *packed;
	struct unit *unit;
};

struct copy {
	const struct img_source *src;
	struct img *dst;
	const struct img_work_list *w;
	const struct img_copy_opts *o;
	uint64_t chunk;
	const struct codec_block *codec;
	uint32_t unit, room;
	int level;
	bool ordered;
	atomic_bool clone;    /* worth a try */
	atomic_uint no_clone; /* chunks that it failed for */

	pthread_mutex_t lock;
	pthread_cond_t freed;
	struct slot *slots;
	unsigned n_slots;
	size_t at;                   /* range of the list with the next data */
	uint64_t in;                 /* bytes of it that were given out */
	uint64_t next_turn, due;     /* given out; to be written */
	bool writing;                /* someone writes what is due */
	uint64_t done, bad, started; /* bytes; ns */
	uint64_t total, before;      /* bytes to be done; done before `started` */
	bool failed;
	struct err *err;
};

unsigned img_processors(void)
{
	cpu_set_t set;
	int n = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		n = CPU_COUNT(&set);
	return n > 0 ? (unsigned)n : 1;
}

/* ---- giving out chunks; lock held ---- */

static bool stopped(struct copy *c)
{
	if (c->o->stop && atomic_load(c->o->stop) && !c->failed) {
		c->failed = true;
		err_set(c->err, EINTR, "interrupted");
	}
	return c->failed;
}

/* The next chunk with data: the range [*off, *off + *len), which begins and ends on chunk boundaries. */
static bool next_chunk(struct copy *c, struct slot *s)
{
	const struct img_range *r;
	uint64_t end;

	if (c->at == c->w->n_data)
		return false;
	r = &c->w->data[c->at];
	s->off = r->off + c->in;
	if (c->codec || c->dst->one_pass)
		s->off -= s->off % c->unit;
	end = s->off - s->off % c->chunk + c->chunk;
	end = min_u64(end, c->w->size);
	/* Where zeros have to be written, what is not in the list is left alone; where it was chosen, not copied. */
	if ((!c->o->zero_known || c->w->chosen) && !c->unit)
		end = min_u64(end, r->off + r->len);
	s->len = end - s->off;
	s->data = 0;
	s->first = c->at;
	/* What else of the list lies in it goes with it. */
	while (c->at < c->w->n_data) {
		uint64_t from, to;

		r = &c->w->data[c->at];
		from = r->off + c->in;
		if (from >= end)
			break;
		to = min_u64(r->off + r->len, end);
		s->data += to - from;
		c->in += to - from;
		if (c->in < r->len)
			break;
		c->at++;
		c->in = 0;
	}
	return true;
}

/* Holds the copy to its rate. */
static void brake(struct copy *c)
{
	double late = 0;
	struct timespec ts;

	if (c->o->rate && !c->dst->first_pass)
		late = (double)(c->done - c->before) / (double)c->o->rate -
		       (double)(time_mono_ns() - c->started) / 1e9;

	if (late <= 0)
		return;
	ts.tv_sec = (time_t)late;
	ts.tv_nsec = (long)((late - (double)ts.tv_sec) * 1e9);
	pthread_mutex_unlock(&c->lock);
	nanosleep(&ts, NULL);
	pthread_mutex_lock(&c->lock);
}

/* A free slot with the next chunk in it; NULL when there is nothing left to do. */
static struct slot *take(struct copy *c)
{
	struct slot *s = NULL;

	brake(c);
	while (!s && !stopped(c) && c->at < c->w->n_data) {
		for (unsigned i = 0; i < c->n_slots && !s; i++)
			if (c->slots[i].state == FREE)
				s = &c->slots[i];
		if (!s)
			pthread_cond_wait(&c->freed, &c->lock);
	}
	if (!s || !next_chunk(c, s))
		return NULL;
	s->state = TAKEN;
	s->turn = c->next_turn++;
	return s;
}

static void fail(struct copy *c, int rc, const char *what, const struct img *img,
		 uint64_t off)
{
	pthread_mutex_lock(&c->lock);
	if (!c->failed && rc == -ESTALE && c->dst->one_pass)
		err_set(c->err, ESTALE,
			"the image was changed while it was copied, at offset %llu",
			(unsigned long long)off);
	else if (!c->failed)
		err_sys(c->err, -rc, "cannot %s '%s' at offset %llu", what, img->path,
			(unsigned long long)off);
	c->failed = true;
	pthread_cond_broadcast(&c->freed);
	pthread_mutex_unlock(&c->lock);
}

/* ---- one chunk ---- */

/* Reads what cannot be read at once sector by sector. */
static int read_salvage(struct copy *c, struct img *img, uint8_t *buf, uint64_t off,
			uint64_t len)
{
	uint64_t bad = 0;

	for (uint64_t at = 0; at < len; at += 512) {
		uint64_t n = min_u64(512, len - at);

		if (img_read(img, buf + at, off + at, n)) {
			memset(buf + at, 0, n);
			bad += n;
		}
	}
	pthread_mutex_lock(&c->lock);
	c->bad += bad;
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static int read_chunk(struct copy *c, struct slot *s)
{
	uint64_t base = 0, at = s->off + c->src->skip, left = s->len;
	uint8_t *to = s->buf;

	for (unsigned i = 0; i < c->src->n && left; i++) {
		struct img *img = c->src->img[i];
		uint64_t n;
		int rc;

		if (at < base + img->size) {
			n = min_u64(left, base + img->size - at);
			rc = img_read(img, to, at - base, n);
			if (rc && c->o->salvage)
				rc = read_salvage(c, img, to, at - base, n);
			if (rc) {
				fail(c, rc, "read", img, at - base);
				return rc;
			}
			to += n;
			at += n;
			left -= n;
		}
		base += img->size;
	}
	return 0;
}

/* Which image holds byte `at` of the sources: *in is where, *n at most to its end. */
static struct img *source_at(const struct copy *c, uint64_t at, uint64_t *in,
			     uint64_t *n)
{
	for (unsigned i = 0; i < c->src->n; i++) {
		struct img *img = c->src->img[i];

		if (at < img->size) {
			*in = at;
			*n = min_u64(*n, img->size - at);
			return img;
		}
		at -= img->size;
	}
	return NULL;
}

/* What is in no range of a chosen list becomes zeros. */
static void blank_chunk(const struct copy *c, struct slot *s)
{
	uint64_t at = s->off, end = s->off + s->len;

	for (size_t i = s->first; i < c->w->n_data && at < end; i++) {
		const struct img_range *r = &c->w->data[i];

		if (r->off > at)
			memset(s->buf + (at - s->off), 0, min_u64(r->off, end) - at);
		at = max_u64(at, r->off + r->len);
	}
	if (at < end)
		memset(s->buf + (at - s->off), 0, end - at);
}

/* Has the target share the blocks of the sources. Not 0: the chunk has to be read and written. */
static int clone_chunk(struct copy *c, const struct slot *s)
{
	struct img_extent e;

	for (uint64_t at = s->off; at < s->off + s->len; at += e.len) {
		uint64_t in, n = s->off + s->len - at;
		struct img *img = source_at(c, at + c->src->skip, &in, &n);
		int rc = img ? img_map(img, in, n, &e) : -EOPNOTSUPP;

		if (!rc && e.kind == IMG_ZERO && c->o->zero_known)
			continue;
		if (!rc)
			rc = e.kind == IMG_DATA && !e.crypt
				     ? img_clone(c->dst, at, e.file, e.file_off, e.len,
						 c->o->offload)
				     : -EOPNOTSUPP;
		if (rc)
			return rc;
	}
	return 0;
}

static bool all_zero(const uint8_t *p, uint64_t len)
{
	if (len < 64) {
		for (uint64_t i = 0; i < len; i++)
			if (p[i])
				return false;
		return true;
	}
	/* Most data shows itself in the first bytes. */
	return !p[0] && !memcmp(p, p + 1, 63) && !memcmp(p, p + 1, len - 1);
}

static int pack_chunk(struct copy *c, struct slot *s, struct codec_work *work)
{
	uint64_t n = (s->len + c->unit - 1) / c->unit;

	if (s->len % c->unit)
		memset(s->buf + s->len, 0, n * c->unit - s->len);
	for (uint64_t i = 0; i < n; i++) {
		struct unit *u = &s->unit[i];
		const uint8_t *p = s->buf + i * c->unit;
		size_t got;

		u->len = 0;
		u->data = s->packed + i * c->room;
		if (all_zero(p, c->unit))
			continue;
		got = c->codec->pack(work, c->level, p, c->unit, u->data, c->room);
		u->len = got ? (uint32_t)got : UINT32_MAX;
	}
	return 0;
}

/* The end of the run of zeros, or of anything else, that begins at `at`; whole grains. */
static uint64_t run_end(const struct slot *s, uint64_t at, bool *zero)
{
	uint64_t end = at;

	for (bool first = true; end < s->len; first = false) {
		uint64_t n = ZERO_GRAIN - (s->off + end) % ZERO_GRAIN;
		bool z;

		n = min_u64(n, s->len - end);
		z = all_zero(s->buf + end, n);
		if (first)
			*zero = z;
		else if (z != *zero)
			break;
		end += n;
	}
	return end;
}

/* Writes a chunk as it is, but for runs of zeros that are long enough. */
static int write_plain(struct copy *c, struct slot *s)
{
	uint64_t at = 0, from = 0;
	int rc = 0;

	while (c->o->sparse && at < s->len && !rc) {
		bool zero = false;
		uint64_t end = run_end(s, at, &zero);

		if (zero && (end - at >= c->o->sparse || end == s->len || !at)) {
			rc = img_write(c->dst, s->buf + from, s->off + from, at - from);
			if (!rc && !c->o->zero_known)
				rc = img_write_zeroes(c->dst, s->off + at, end - at,
						      true);
			from = end;
		}
		at = end;
	}
	if (!rc && from < s->len)
		rc = img_write(c->dst, s->buf + from, s->off + from, s->len - from);
	if (rc)
		fail(c, rc, "write", c->dst, s->off);
	return rc;
}

static int write_one(struct copy *c, struct slot *s, const struct unit *u, uint64_t i)
{
	uint64_t off = s->off + i * c->unit, n = min_u64(c->unit, c->w->size - off);
	int rc = -EEXIST;

	if (!u->len)
		return c->o->zero_known ? 0 : img_write_zeroes(c->dst, off, n, true);
	if (u->len != UINT32_MAX)
		rc = img_write_packed(c->dst, off, u->data, u->len);
	/* It did not become smaller, or what is there must be written in place. */
	if (rc == -EEXIST && c->dst->one_pass)
		rc = img_write_unit(c->dst, off, s->buf + i * c->unit, n);
	else if (rc == -EEXIST)
		rc = img_write(c->dst, s->buf + i * c->unit, off, n);
	return rc;
}

static int write_units(struct copy *c, struct slot *s)
{
	uint64_t n = (s->len + c->unit - 1) / c->unit;
	int rc = 0;

	for (uint64_t i = 0; i < n && !rc; i++) {
		if (c->codec)
			rc = write_one(c, s, &s->unit[i], i);
		else if (!all_zero(s->buf + i * c->unit,
				   min_u64(c->unit, s->len - i * c->unit)))
			rc = img_write_unit(c->dst, s->off + i * c->unit,
					    s->buf + i * c->unit,
					    min_u64(c->unit, s->len - i * c->unit));
	}
	if (rc)
		fail(c, rc, "write", c->dst, s->off);
	return rc;
}

static void slot_release(struct copy *c, struct slot *s)
{
	s->state = FREE;
	c->done += s->data;
	pthread_cond_signal(&c->freed);
	if (c->o->progress)
		c->o->progress(c->o->ctx, c->done, c->total);
}

static struct slot *slot_due(struct copy *c)
{
	for (unsigned i = 0; i < c->n_slots; i++)
		if (c->slots[i].state == DONE && c->slots[i].turn == c->due)
			return &c->slots[i];
	return NULL;
}

/* Writes all chunks that are due and finished. lock held. */
static void write_due(struct copy *c)
{
	struct slot *s;

	if (c->writing)
		return;
	c->writing = true;
	while (!c->failed && (s = slot_due(c))) {
		pthread_mutex_unlock(&c->lock);
		write_units(c, s);
		pthread_mutex_lock(&c->lock);
		c->due++;
		slot_release(c, s);
	}
	c->writing = false;
}

/* Reads a chunk, packs it if wanted, and writes it if it need not wait for its turn. */
static int copy_chunk(struct copy *c, struct slot *s, struct codec_work *work)
{
	int rc = read_chunk(c, s);

	if (!rc && c->w->chosen && c->unit)
		blank_chunk(c, s);
	if (!rc && c->codec)
		rc = pack_chunk(c, s, work);
	if (!rc && !c->ordered)
		rc = write_plain(c, s);
	return rc;
}

static void *worker(void *arg)
{
	struct copy *c = arg;
	struct codec_work *work = c->codec ? codec_work_new() : NULL;
	struct slot *s;

	pthread_mutex_lock(&c->lock);
	if (c->codec && !work && !c->failed) {
		c->failed = true;
		err_set(c->err, ENOMEM, "no memory to compress");
	}
	while ((s = take(c))) {
		int rc;

		pthread_mutex_unlock(&c->lock);
		rc = c->clone ? clone_chunk(c, s) : -EOPNOTSUPP;
		/* Where it failed that often it will not be possible at all. */
		if (rc && c->clone && ++c->no_clone == MAX_TRIES)
			c->clone = false;
		if (rc)
			rc = copy_chunk(c, s, work);
		pthread_mutex_lock(&c->lock);
		if (rc)
			continue;
		s->state = DONE;
		if (c->ordered)
			write_due(c);
		else
			slot_release(c, s);
	}
	pthread_cond_broadcast(&c->freed);
	pthread_mutex_unlock(&c->lock);
	codec_work_free(work);
	return NULL;
}

/* ---- the copy ---- */

static int write_zeros(struct copy *c)
{
	for (size_t i = 0; i < c->w->n_zero; i++) {
		const struct img_range *r = &c->w->zero[i];
		uint64_t n;

		for (uint64_t at = 0; at < r->len; at += n) {
			int rc;

			n = min_u64(r->len - at, 1ull << 30);
			if (stopped(c))
				return -EINTR;
			rc = img_write_zeroes(c->dst, r->off + at, n, true);
			if (rc)
				return err_sys(c->err, -rc,
					       "cannot write '%s' at offset %llu",
					       c->dst->path,
					       (unsigned long long)(r->off + at));
		}
	}
	return 0;
}

static void slots_free(struct copy *c)
{
	for (unsigned i = 0; c->slots && i < c->n_slots; i++) {
		free(c->slots[i].buf);
		free(c->slots[i].packed);
		free(c->slots[i].unit);
	}
	free(c->slots);
}

static int slots_new(struct copy *c, unsigned threads)
{
	uint64_t units = c->unit ? c->chunk / c->unit : 0;
	uint64_t each = c->chunk + (c->codec ? units * c->room : 0);

	c->n_slots = c->ordered ? threads * 3 : threads;
	c->n_slots = (unsigned)max_u64(1, min_u64(c->n_slots, MAX_MEMORY / each));
	c->slots = mem_new(c->n_slots, sizeof(*c->slots));
	if (!c->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < c->n_slots; i++) {
		struct slot *s = &c->slots[i];

		s->buf = aligned_alloc(4096, c->chunk);
		if (c->codec)
			s->packed = malloc(units * c->room);
		if (c->ordered)
			s->unit = mem_new(units, sizeof(*s->unit));
		if (!s->buf || (c->codec && !s->packed) || (c->ordered && !s->unit))
			return -ENOMEM;
	}
	return 0;
}

/* How the target wants it. */
static int plan_target(struct copy *c)
{
	struct img *dst = c->dst;

	c->chunk = CHUNK;
	if (c->o->packed) {
		if (!dst->fmt->packer ||
		    !(c->codec = dst->fmt->packer(dst, &c->unit, &c->room, &c->level)))
			return err_set(c->err, ENOTSUP,
				       "images of format %s cannot be compressed",
				       dst->fmt->name);
	} else if (dst->one_pass && !dst->fmt->write_unit) {
		c->codec = dst->fmt->packer(dst, &c->unit, &c->room, &c->level);
	} else if (dst->one_pass) {
		c->unit = dst->unit < 512 ? 65536 : dst->unit;
	}
	c->ordered = c->codec || dst->one_pass;
	if (c->unit)
		c->chunk = max_u64(c->unit, CHUNK - CHUNK % c->unit);
	return 0;
}

static int run(struct copy *c, unsigned threads)
{
	pthread_t id[MAX_THREADS];
	unsigned n = 0;

	/* Without a second thread this one does it all. */
	while (n + 1 < threads && !pthread_create(&id[n], NULL, worker, c))
		n++;
	worker(c);
	while (n)
		pthread_join(id[--n], NULL);
	return c->failed ? -(c->err->code ? c->err->code : EIO) : 0;
}

/* For the second pass of a target that wants two. */
static void begin_again(struct copy *c)
{
	c->at = 0;
	c->in = c->next_turn = c->due = c->bad = 0;
	c->before = c->done;
	c->started = time_mono_ns();
}

int img_copy(const struct img_source *src, struct img *dst,
	     const struct img_work_list *w, const struct img_copy_opts *o,
	     struct err *err)
{
	struct copy c = {.src = src, .dst = dst, .w = w, .o = o, .err = err};
	unsigned threads = o->threads ? o->threads : img_processors();
	int rc = plan_target(&c);

	threads = (unsigned)min_u64(threads, MAX_THREADS);
	if (rc)
		return rc;
	err->code = 0;
	c.clone = o->clone && o->sparse && !c.ordered;
	if (slots_new(&c, threads)) {
		slots_free(&c);
		return err_set(err, ENOMEM, "no memory to copy");
	}
	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.freed, NULL);
	c.total = dst->first_pass ? 2 * w->data_bytes : w->data_bytes;
	c.started = time_mono_ns();
	rc = dst->one_pass ? 0 : write_zeros(&c);
	if (!rc && dst->first_pass) {
		rc = run(&c, threads);
		if (!rc)
			rc = dst->fmt->stream_second(dst, err);
		begin_again(&c);
	}
	if (!rc)
		rc = run(&c, threads);
	if (o->bad)
		*o->bad = c.bad;
	pthread_mutex_destroy(&c.lock);
	pthread_cond_destroy(&c.freed);
	slots_free(&c);
	return rc;
}

/*
 * img/nbd/remote.c - NBD connections, through libnbd (the protocol: https://github.com/NetworkBlockDevice/nbd, doc/proto.md).
 * libnbd is loaded at run time: it brings TLS and XML libraries with it, which other images do not wait for.
 *
 * Each request has a connection for itself and is cut into pieces that are under way together. Where the server says that
 * several connections see the same data, there are several. A server that stays silent is given up after a while, and
 * its connection with it. Any thread, but for opening and closing.
 * Lock order: edge_lock, then lock or map_lock (leaves).
 */
#include "img/nbd/remote.h"

#include <dlfcn.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"
#include "img/nbd/remote_int.h"

#define MAX_CONN    4
/* A request's pieces, and how many of them are under way. */
#define PIECE       (256u << 10)
#define DEPTH       8
#define ZERO_PIECE  (1u << 30)
#define BOUNCE      (1u << 20)
#define STATUS_STEP (1u << 30)
/* Ranges of one answer that are kept; more of it is asked for again. */
#define MAX_SPANS   4096
/* A server may be silent for so long; a request may take so many times that. */
#define SILENCE_SEC 30
#define PATIENCE    20

/* clang-format off */
#define API(F) \
	F(nbd_create) F(nbd_close) F(nbd_get_error) F(nbd_get_errno) \
	F(nbd_aio_connect_uri) F(nbd_aio_connect_systemd_socket_activation) F(nbd_get_uri) \
	F(nbd_add_meta_context) F(nbd_can_meta_context) F(nbd_get_size) F(nbd_get_block_size) \
	F(nbd_is_read_only) F(nbd_can_multi_conn) F(nbd_can_zero) F(nbd_can_trim) F(nbd_can_flush) \
	F(nbd_set_strict_mode) F(nbd_poll) F(nbd_aio_is_connecting) F(nbd_aio_is_ready) \
	F(nbd_aio_is_dead) F(nbd_aio_is_closed) F(nbd_aio_disconnect) F(nbd_aio_command_completed) \
	F(nbd_aio_pread) F(nbd_aio_pwrite) F(nbd_aio_zero) F(nbd_aio_trim) F(nbd_aio_flush) \
	F(nbd_aio_block_status)
/* clang-format on */

struct api {
#define MEMBER(f) __typeof__(f) *f;
	API(MEMBER)
#undef MEMBER
};

struct conn {
	struct nbd_handle *h; /* NULL: was given up */
	bool busy;
};

/* Ranges of the disk, one behind the other from `from` on. */
struct spans {
	uint64_t from;
	size_t n;
	struct {
		uint32_t len;
		bool data;
	} v[MAX_SPANS];
};

struct remote {
	void *lib;
	struct api api;
	char *url;
	struct remote_route route;
	bool read_only;
	int silence_ms;
	uint64_t size;
	uint32_t min, piece; /* smallest unit of a request, a power of two; largest */
	bool can_zero, can_trim, can_flush, can_status;

	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct conn conn[MAX_CONN];
	unsigned n_conn, max_conn;

	pthread_mutex_t edge_lock; /* parts of units are read, changed, written */

	pthread_mutex_t map_lock;
	struct spans *map; /* the last answer; NULL: nothing is known, or it changes */
};

enum kind { READ, WRITE, ZERO, ZERO_KEEP, TRIM, FLUSH, STATUS };

/* One of a request's pieces. */
struct ask {
	enum kind kind;
	void *buf;
	uint64_t off, len;
};

/* ---- libnbd ---- */

static int api_load(struct remote *r, struct err *err)
{
	r->lib = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!r->lib)
		return err_set(err, ENOTSUP,
			       "cannot open '%s': that needs libnbd, which is not "
			       "installed (Debian package libnbd0)",
			       r->url);
#define LOAD(f)                                                                      \
	r->api.f = (__typeof__(f) *)dlsym(r->lib, #f);                               \
	if (!r->api.f)                                                               \
		return err_set(err, ENOTSUP,                                         \
			       "cannot open '%s': libnbd is too old: it has no " #f, \
			       r->url);
	API(LOAD)
#undef LOAD
	return 0;
}

/* Waits for something to happen on a connection: 0, -ETIMEDOUT, -EIO. */
static int wait_event(struct remote *r, struct nbd_handle *h, uint64_t deadline)
{
	int n;

	if (time_mono_ns() >= deadline)
		return -ETIMEDOUT;
	n = r->api.nbd_poll(h, r->silence_ms);
	if (n < 0)
		return r->api.nbd_get_errno() == EINTR ? 0 : -EIO;
	return n ? 0 : -ETIMEDOUT;
}

static uint64_t deadline_of(const struct remote *r)
{
	return time_mono_ns() + (uint64_t)r->silence_ms * PATIENCE * 1000000u;
}

/* ---- connections ---- */

static int connect_handle(struct remote *r, struct nbd_handle *h)
{
	uint64_t deadline = deadline_of(r);
	int rc;

	r->api.nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION);
	/* The last unit may be cut by the end of the disk. */
	r->api.nbd_set_strict_mode(h, LIBNBD_STRICT_COMMANDS | LIBNBD_STRICT_FLAGS |
					      LIBNBD_STRICT_BOUNDS |
					      LIBNBD_STRICT_ZERO_SIZE);
	rc = r->route.uri ? r->api.nbd_aio_connect_uri(h, r->route.uri)
			  : r->api.nbd_aio_connect_systemd_socket_activation(
				    h, r->route.argv);
	if (rc < 0)
		return -EIO;
	while (r->api.nbd_aio_is_connecting(h) > 0 ||
	       (r->api.nbd_aio_is_ready(h) <= 0 && r->api.nbd_aio_is_dead(h) <= 0 &&
		r->api.nbd_aio_is_closed(h) <= 0)) {
		rc = wait_event(r, h, deadline);
		if (rc)
			return rc;
	}
	return r->api.nbd_aio_is_ready(h) > 0 ? 0 : -EIO;
}

/* Connects once more. NULL with errno-like *rc. */
static struct nbd_handle *connect_new(struct remote *r, int *rc)
{
	struct nbd_handle *h = r->api.nbd_create();

	*rc = h ? connect_handle(r, h) : -ENOMEM;
	return h;
}

/* Says goodbye, if the server still listens. */
static void hang_up(struct remote *r, struct nbd_handle *h)
{
	uint64_t deadline = time_mono_ns() + 2000000000u;

	if (!h)
		return;
	if (r->api.nbd_aio_is_ready(h) > 0 && !r->api.nbd_aio_disconnect(h, 0))
		while (r->api.nbd_aio_is_closed(h) <= 0 &&
		       r->api.nbd_aio_is_dead(h) <= 0 && time_mono_ns() < deadline &&
		       r->api.nbd_poll(h, 500) > 0)
			;
	r->api.nbd_close(h);
}

/* A further connection, in a slot that is taken. lock held. */
static struct conn *conn_add(struct remote *r)
{
	struct conn *c = &r->conn[r->n_conn++];
	struct nbd_handle *h;
	int rc;

	c->busy = true;
	pthread_mutex_unlock(&r->lock);
	h = connect_new(r, &rc);
	pthread_mutex_lock(&r->lock);
	if (!rc) {
		c->h = h;
		return c;
	}
	/* The server wants no more of them. */
	r->api.nbd_close(h);
	r->max_conn = 0;
	c->busy = false;
	pthread_cond_broadcast(&r->idle);
	return NULL;
}

/* An idle connection; NULL when all are lost. */
static struct conn *conn_take(struct remote *r)
{
	struct conn *found = NULL;
	bool hope = true;

	pthread_mutex_lock(&r->lock);
	while (!found && hope) {
		hope = false;
		for (unsigned i = 0; i < r->n_conn && !found; i++) {
			struct conn *c = &r->conn[i];

			hope |= c->busy || c->h;
			if (!c->busy && c->h)
				found = c;
		}
		if (!found && hope && r->n_conn < r->max_conn)
			found = conn_add(r);
		else if (!found && hope)
			pthread_cond_wait(&r->idle, &r->lock);
	}
	if (found)
		found->busy = true;
	pthread_mutex_unlock(&r->lock);
	return found;
}

/* `lost`: something is still under way on it, or it is broken. */
static void conn_give(struct remote *r, struct conn *c, bool lost)
{
	struct nbd_handle *h = lost ? c->h : NULL;

	pthread_mutex_lock(&r->lock);
	if (lost)
		c->h = NULL;
	c->busy = false;
	/* All wait anew when there is one less. */
	if (lost)
		pthread_cond_broadcast(&r->idle);
	else
		pthread_cond_signal(&r->idle);
	pthread_mutex_unlock(&r->lock);
	if (h)
		r->api.nbd_close(h);
}

/* ---- requests ---- */

/* Fills the spans of an answer; called from within wait_event(). */
static int on_extents(void *ctx, const char *name, uint64_t off, uint32_t *entries,
		      size_t n_entries, int *error)
{
	struct spans *s = ctx;

	(void)error;
	if (strcmp(name, LIBNBD_CONTEXT_BASE_ALLOCATION) || off != s->from)
		return 0;
	s->n = 0;
	for (size_t i = 0; i + 1 < n_entries && s->n < MAX_SPANS && entries[i];
	     i += 2) {
		s->v[s->n].len = entries[i];
		s->v[s->n++].data = !(entries[i + 1] & LIBNBD_STATE_ZERO);
	}
	return 0;
}

/* A cookie, or -1. */
static int64_t start(struct remote *r, struct nbd_handle *h, const struct ask *a,
		     uint64_t at, uint64_t n)
{
	uint64_t off = a->off + at;
	uint8_t *p = a->buf ? (uint8_t *)a->buf + at : NULL;

	switch (a->kind) {
	case READ: return r->api.nbd_aio_pread(h, p, n, off, NBD_NULL_COMPLETION, 0);
	case WRITE: return r->api.nbd_aio_pwrite(h, p, n, off, NBD_NULL_COMPLETION, 0);
	case ZERO: return r->api.nbd_aio_zero(h, n, off, NBD_NULL_COMPLETION, 0);
	case ZERO_KEEP:
		return r->api.nbd_aio_zero(h, n, off, NBD_NULL_COMPLETION,
					   LIBNBD_CMD_FLAG_NO_HOLE);
	case TRIM: return r->api.nbd_aio_trim(h, n, off, NBD_NULL_COMPLETION, 0);
	case FLUSH: return r->api.nbd_aio_flush(h, NBD_NULL_COMPLETION, 0);
	case STATUS:
		return r->api.nbd_aio_block_status(
			h, n, off,
			(nbd_extent_callback){.callback = on_extents,
					      .user_data = a->buf},
			NBD_NULL_COMPLETION, 0);
	}
	return -1;
}

/* Waits for one piece. *lost: the connection cannot be used any more. */
static int finish(struct remote *r, struct nbd_handle *h, int64_t cookie,
		  uint64_t deadline, bool *lost)
{
	int done, rc;

	while (!(done = r->api.nbd_aio_command_completed(h, (uint64_t)cookie))) {
		rc = wait_event(r, h, deadline);
		if (rc) {
			*lost = true;
			return rc;
		}
	}
	if (done > 0)
		return 0;
	rc = r->api.nbd_get_errno();
	*lost |= r->api.nbd_aio_is_dead(h) > 0 || r->api.nbd_aio_is_closed(h) > 0;
	return rc > 0 ? -rc : -EIO;
}

/* Does a request of at most `piece` bytes at a time. */
static int request(struct remote *r, const struct ask *a, uint64_t piece)
{
	struct conn *c = conn_take(r);
	uint64_t deadline = deadline_of(r), at = 0;
	bool lost = false;
	int rc = 0;

	if (!c)
		return -ENOTCONN;
	do {
		int64_t cookie[DEPTH];
		unsigned n = 0;

		do {
			uint64_t len = min_u64(piece, a->len - at);

			cookie[n] = start(r, c->h, a, at, len);
			if (cookie[n] < 0) {
				rc = -EIO;
				lost = true;
				break;
			}
			n++;
			at += len;
		} while (n < DEPTH && at < a->len);
		for (unsigned i = 0; i < n && !lost; i++) {
			int one = finish(r, c->h, cookie[i], deadline, &lost);

			rc = rc ? rc : one;
		}
	} while (!rc && at < a->len);
	conn_give(r, c, lost);
	return rc;
}

/* ---- reading and writing ---- */

static bool whole(const struct remote *r, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	return !(off & (r->min - 1)) && (!(end & (r->min - 1)) || end == r->size);
}

/* The whole units around a part of the disk of at most BOUNCE bytes. */
struct units {
	uint64_t off, len; /* of the units */
	uint64_t skip, n;  /* the part in them */
};

static struct units units_of(const struct remote *r, uint64_t off, uint64_t len)
{
	struct units u = {.off = align_down(off, r->min)};
	uint64_t room = max_u64(BOUNCE, r->min) - (off - u.off);

	u.skip = off - u.off;
	u.n = min_u64(len, room);
	u.len = min_u64(align_up(off + u.n, r->min), r->size) - u.off;
	return u;
}

int remote_read(struct remote *r, void *buf, uint64_t off, uint64_t len)
{
	uint8_t *to = buf, *bounce;
	int rc = 0;

	if (!len)
		return 0;
	if (!range_ok(off, len, r->size))
		return -EINVAL;
	if (whole(r, off, len))
		return request(r, &(struct ask){READ, buf, off, len}, r->piece);
	bounce = malloc(max_u64(BOUNCE, r->min));
	if (!bounce)
		return -ENOMEM;
	while (len && !rc) {
		struct units u = units_of(r, off, len);

		rc = request(r, &(struct ask){READ, bounce, u.off, u.len}, r->piece);
		if (!rc)
			memcpy(to, bounce + u.skip, u.n);
		to += u.n;
		off += u.n;
		len -= u.n;
	}
	free(bounce);
	return rc;
}

/* Writes parts of units: src NULL is zeros. */
static int write_parts(struct remote *r, const uint8_t *src, uint64_t off, uint64_t len)
{
	uint8_t *bounce = malloc(max_u64(BOUNCE, r->min));
	int rc = bounce ? 0 : -ENOMEM;

	while (len && !rc) {
		struct units u = units_of(r, off, len);

		pthread_mutex_lock(&r->edge_lock);
		rc = request(r, &(struct ask){READ, bounce, u.off, u.len}, r->piece);
		if (!rc && src)
			memcpy(bounce + u.skip, src, u.n);
		else if (!rc)
			memset(bounce + u.skip, 0, u.n);
		if (!rc)
			rc = request(r, &(struct ask){WRITE, bounce, u.off, u.len},
				     r->piece);
		pthread_mutex_unlock(&r->edge_lock);
		src = src ? src + u.n : NULL;
		off += u.n;
		len -= u.n;
	}
	free(bounce);
	return rc;
}

int remote_write(struct remote *r, const void *buf, uint64_t off, uint64_t len)
{
	if (!len)
		return 0;
	if (r->read_only)
		return -EROFS;
	if (!range_ok(off, len, r->size))
		return -ENOSPC;
	if (whole(r, off, len))
		return request(r, &(struct ask){WRITE, (void *)buf, off, len},
			       r->piece);
	return write_parts(r, buf, off, len);
}

int remote_zero(struct remote *r, uint64_t off, uint64_t len, bool unmap)
{
	uint64_t from, to;
	int rc = 0;

	if (!len)
		return 0;
	if (r->read_only)
		return -EROFS;
	if (!range_ok(off, len, r->size))
		return -ENOSPC;
	if (!r->can_zero)
		return -EOPNOTSUPP;
	from = align_up(off, r->min);
	to = off + len == r->size ? r->size : align_down(off + len, r->min);
	if (from >= to)
		return write_parts(r, NULL, off, len);
	if (from > off)
		rc = write_parts(r, NULL, off, from - off);
	if (!rc)
		rc = request(
			r,
			&(struct ask){unmap ? ZERO : ZERO_KEEP, NULL, from, to - from},
			ZERO_PIECE);
	if (!rc && to < off + len)
		rc = write_parts(r, NULL, to, off + len - to);
	return rc;
}

void remote_discard(struct remote *r, uint64_t off, uint64_t len)
{
	uint64_t from, to;

	if (r->read_only || !r->can_trim || !range_ok(off, len, r->size))
		return;
	from = align_up(off, r->min);
	to = off + len == r->size ? r->size : align_down(off + len, r->min);
	if (from < to)
		request(r, &(struct ask){TRIM, NULL, from, to - from}, ZERO_PIECE);
}

int remote_flush(struct remote *r)
{
	if (r->read_only || !r->can_flush)
		return 0;
	return request(r, &(struct ask){FLUSH, NULL, 0, 0}, 0);
}

/* ---- data and holes ---- */

/* What a list of spans says about `off`. */
static bool spans_tell(const struct spans *s, uint64_t off, uint64_t *n, bool *data)
{
	uint64_t at = s->from;

	for (size_t i = 0; i < s->n; i++) {
		uint64_t end = at + s->v[i].len;

		if (off >= at && off < end) {
			*n = min_u64(*n, end - off);
			*data = s->v[i].data;
			return true;
		}
		at = end;
	}
	return false;
}

bool remote_is_data(struct remote *r, uint64_t off, uint64_t len, uint64_t *n)
{
	bool data = true, known = false;
	struct spans *s;

	*n = len;
	if (!r->can_status || !len || !range_ok(off, len, r->size))
		return true;
	pthread_mutex_lock(&r->map_lock);
	if (r->map)
		known = spans_tell(r->map, off, n, &data);
	pthread_mutex_unlock(&r->map_lock);
	if (known)
		return data;
	s = NEW(struct spans);
	if (!s)
		return true;
	s->from = align_down(off, r->min);
	if (!request(r,
		     &(struct ask){STATUS, s, s->from,
				   min_u64(STATUS_STEP, r->size - s->from)},
		     STATUS_STEP))
		known = spans_tell(s, off, n, &data);
	if (r->read_only) {
		struct spans *old;

		pthread_mutex_lock(&r->map_lock);
		old = r->map;
		r->map = s;
		pthread_mutex_unlock(&r->map_lock);
		s = old;
	}
	free(s);
	return !known || data;
}

/* ---- opening and closing ---- */

uint64_t remote_size(const struct remote *r)
{
	return r->size;
}

static int silence_ms(void)
{
	const char *text = getenv("VM_NBD_TIMEOUT");
	long sec = text ? strtol(text, NULL, 10) : 0;

	return (int)(sec > 0 && sec <= 3600 ? sec : SILENCE_SEC) * 1000;
}

/* What the server says about itself. */
static int examine(struct remote *r, struct nbd_handle *h, struct err *err)
{
	int64_t size = r->api.nbd_get_size(h);
	int64_t min = r->api.nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
	int64_t max = r->api.nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return err_set(err, EIO, "cannot open '%s': its size is not known",
			       r->url);
	if (min > 65536 || (min > 0 && !is_pow2((uint64_t)min)))
		return err_set(err, EINVAL,
			       "cannot open '%s': the server has units of %lld bytes",
			       r->url, (long long)min);
	r->size = (uint64_t)size;
	r->min = min > 0 ? (uint32_t)min : 1;
	r->piece = PIECE;
	if (max > 0 && max < PIECE)
		r->piece = (uint32_t)max_u64(align_down((uint64_t)max, r->min), r->min);
	r->can_zero = r->api.nbd_can_zero(h) > 0;
	r->can_trim = r->api.nbd_can_trim(h) > 0;
	r->can_flush = r->api.nbd_can_flush(h) > 0;
	r->can_status =
		r->api.nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	r->max_conn = r->api.nbd_can_multi_conn(h) > 0 ? MAX_CONN : 1;
	if (!r->read_only && r->api.nbd_is_read_only(h) != 0)
		return err_set(err, EROFS,
			       "cannot open '%s' for writing: the server does not "
			       "allow it",
			       r->url);
	return 0;
}

static int open_first(struct remote *r, struct err *err)
{
	struct nbd_handle *h;
	const char *why;
	int rc;

	h = connect_new(r, &rc);
	r->conn[0].h = h;
	r->n_conn = 1;
	if (rc == -ETIMEDOUT)
		return err_set(err, ETIMEDOUT,
			       "cannot open '%s': the server does not answer", r->url);
	if (rc) {
		why = r->api.nbd_get_error();
		return err_set(err, EIO, "cannot open '%.90s': %.120s", r->url,
			       why ? why : strerror(-rc));
	}
	/* Further connections go to the server that was started for the first one. */
	if (!r->route.uri)
		r->route.uri = r->api.nbd_get_uri(h);
	rc = examine(r, h, err);
	if (!r->route.uri)
		r->max_conn = 1;
	return rc;
}

int remote_open(const char *url, bool read_only, struct remote **out, struct err *err)
{
	struct remote *r = NEW(struct remote);
	int rc;

	*out = NULL;
	if (!r)
		return err_set(err, ENOMEM, "no memory to open '%s'", url);
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->edge_lock, NULL);
	pthread_mutex_init(&r->map_lock, NULL);
	pthread_cond_init(&r->idle, NULL);
	r->read_only = read_only;
	r->silence_ms = silence_ms();
	r->url = strdup(url);
	rc = r->url ? api_load(r, err)
		    : err_set(err, ENOMEM, "no memory to open '%s'", url);
	if (!rc)
		rc = route_find(url, read_only, &r->route, err);
	if (!rc)
		rc = open_first(r, err);
	if (rc) {
		remote_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

/* The socket of a server that was started, and the folder made for it. */
static void remove_socket(const char *uri)
{
	static const char key[] = "socket=";
	const char *at = uri ? strstr(uri, key) : NULL;
	char *path, *slash;

	if (!at || strchr(at, '%') || strchr(at, '&'))
		return;
	path = strdup(at + sizeof(key) - 1);
	slash = path ? strrchr(path, '/') : NULL;
	if (slash && slash > path && !unlink(path)) {
		*slash = 0;
		rmdir(path);
	}
	free(path);
}

void remote_settle(struct remote *r)
{
	struct conn *c;

	pthread_mutex_lock(&r->lock);
	while (r->n_conn < r->max_conn && (c = conn_add(r)))
		c->busy = false;
	r->max_conn = r->n_conn;
	pthread_mutex_unlock(&r->lock);
	if (r->route.argv[0])
		remove_socket(r->route.uri);
}

void remote_close(struct remote *r)
{
	if (!r)
		return;
	/* The first one last: a server that was started ends with it. */
	for (unsigned i = r->n_conn; i-- > 0;)
		hang_up(r, r->conn[i].h);
	route_fini(&r->route);
	free(r->map);
	free(r->url);
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->edge_lock);
	pthread_mutex_destroy(&r->map_lock);
	pthread_cond_destroy(&r->idle);
	if (r->lib)
		dlclose(r->lib);
	free(r);
}

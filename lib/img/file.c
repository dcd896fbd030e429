/*
 * img/file.c - a host file, block device or remote disk that holds an image. Any thread.
 */
#include "img/file.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "img/lock.h"
#include "img/nbd/remote.h"

/* Eager files are written back in pieces of this. */
#define EAGER        8388608ull
#define MAX_OFFSET   INT64_MAX
/* Pieces of a write to a remote disk are put together up to this. */
#define JOIN         (256u << 10)
/* What file systems that share blocks have as smallest one. */
#define CLONE_GRAIN  4096
/* The bytes that the mark takes the place of. Moved back by the mark's own length they fit behind it, when their
 * last ones are zeros. */
#define HEAD_LEN     4096
#define MARK_LEN     64
#define MARK         "unfinished: vm-img did not get to the end of writing this\n"
/* Devices zero and discard whole logical blocks only. */
#define DEVICE_GRAIN 4096

struct head {
	pthread_mutex_t lock;  /* leaf */
	uint8_t now[HEAD_LEN]; /* as it is to be */
	bool marked;           /* the mark is on the disk */
};

struct img_file {
	int fd;
	struct head *head;     /* NULL: nothing is held back */
	struct remote *remote; /* instead of fd; NULL: is no remote disk */
	char *path;
	bool read_only;
	bool device; /* has a size of its own; also remote disks */
	bool no_sync;
	bool eager;
	atomic_ullong written; /* eager: bytes */
	bool stream;
	uint64_t streamed; /* bytes written to it */
	/* Only this part of the host's file is it (read-only). part_len 0: all of it. */
	uint64_t part_off, part_len;
	/* What the host said it cannot do is not tried again. */
	atomic_bool no_punch, no_zero, no_holes, no_clone, no_copy;
	dev_t dev; /* which file it is: of the device itself for a device */
	ino_t ino;
};

/* ---- positions in iovecs ---- */

void iov_pos_advance(struct iov_pos *p, uint64_t len)
{
	while (len) {
		uint64_t room = p->v->iov_len - p->skip;

		if (len < room) {
			p->skip += len;
			return;
		}
		len -= room;
		p->v++;
		p->n--;
		p->skip = 0;
	}
}

/* The next at most `len` bytes that lie in one piece; moves on. */
static uint64_t iov_pos_next(struct iov_pos *p, uint64_t len, uint8_t **at)
{
	uint64_t n;

	while (p->v->iov_len == p->skip) { /* used up, or empty */
		p->v++;
		p->n--;
		p->skip = 0;
	}
	n = min_u64(len, p->v->iov_len - p->skip);
	*at = (uint8_t *)p->v->iov_base + p->skip;
	p->skip += n;
	return n;
}

void iov_pos_zero(struct iov_pos *p, uint64_t len)
{
	while (len) {
		uint8_t *at;
		uint64_t n = iov_pos_next(p, len, &at);

		memset(at, 0, n);
		len -= n;
	}
}

void iov_pos_put(struct iov_pos *p, const void *src, uint64_t len)
{
	for (const uint8_t *from = src; len;) {
		uint8_t *at;
		uint64_t n = iov_pos_next(p, len, &at);

		memcpy(at, from, n);
		from += n;
		len -= n;
	}
}

void iov_pos_get(struct iov_pos *p, void *dst, uint64_t len)
{
	for (uint8_t *to = dst; len;) {
		uint8_t *at;
		uint64_t n = iov_pos_next(p, len, &at);

		memcpy(to, at, n);
		to += n;
		len -= n;
	}
}

uint64_t iov_pos_take(const struct iov_pos *p, uint64_t len, struct iovec *out, int max,
		      int *n_out)
{
	uint64_t total = 0;
	size_t skip = p->skip;
	int n = 0;

	for (unsigned i = 0; i < p->n && n < max && total < len; i++) {
		uint64_t here = min_u64(p->v[i].iov_len - skip, len - total);

		if (here) {
			out[n].iov_base = (uint8_t *)p->v[i].iov_base + skip;
			out[n++].iov_len = here;
			total += here;
		}
		skip = 0;
	}
	*n_out = n;
	return total;
}

/* ---- opening ---- */

static int file_examine(struct img_file *f, const char *path, struct err *err)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return err_sys(err, errno, "cannot examine '%s'", path);
	if (f->stream)
		return 0;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, EINVAL,
			       "'%s' is neither a regular file nor a block device",
			       path);
	f->device = S_ISBLK(st.st_mode);
	f->dev = f->device ? st.st_rdev : st.st_dev;
	f->ino = f->device ? 0 : st.st_ino;
	if (f->part_len && (!f->read_only || f->device ||
			    !range_ok(f->part_off, f->part_len, (uint64_t)st.st_size)))
		return err_set(err, EINVAL,
			       "bytes %llu to %llu of '%s' are no part of it that can "
			       "be read as an image",
			       (unsigned long long)f->part_off,
			       (unsigned long long)(f->part_off + f->part_len), path);
	return 0;
}

int file_open_fd(int fd, const char *path, const struct img_file_opts *opts,
		 struct img_file **out, struct err *err)
{
	struct img_file *f = NEW(struct img_file);
	int rc;

	*out = NULL;
	if (!f) {
		close(fd);
		return err_set(err, ENOMEM, "no memory to open '%s'", path);
	}
	f->fd = fd;
	f->path = strdup(path);
	f->read_only = opts->read_only;
	f->no_sync = opts->no_sync || opts->stream;
	f->stream = opts->stream;
	f->part_off = opts->part_off;
	f->part_len = opts->part_len;
	f->eager = opts->eager && !opts->stream;
	rc = f->path ? file_examine(f, path, err)
		     : err_set(err, ENOMEM, "no memory to open '%s'", path);
	if (!rc && !opts->no_lock)
		rc = lock_image(fd, !opts->read_only, path, err);
	if (rc) {
		file_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

static int file_open_remote(const char *url, const struct img_file_opts *opts,
			    struct img_file **out, struct err *err)
{
	struct img_file *f = NEW(struct img_file);
	int rc;

	if (!f || !(f->path = strdup(url))) {
		free(f);
		return err_set(err, ENOMEM, "no memory to open '%s'", url);
	}
	f->fd = -1;
	f->device = true;
	f->read_only = opts->read_only;
	f->no_sync = opts->no_sync;
	rc = remote_open(url, opts->read_only, &f->remote, err);
	if (rc) {
		file_close(f);
		return rc;
	}
	*out = f;
	return 0;
}

int file_open(const char *path, const struct img_file_opts *opts, struct img_file **out,
	      struct err *err)
{
	/* O_NONBLOCK: a FIFO must not hold us up before it is refused. */
	int flags = (opts->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK |
		    O_NOCTTY;
	int fd;

	*out = NULL;
	if (remote_is_url(path))
		return file_open_remote(path, opts, out, err);
	fd = open(path, flags);
	if (fd < 0)
		return err_sys(err, errno, "cannot open '%s'%s", path,
			       opts->read_only ? "" : " for writing");
	return file_open_fd(fd, path, opts, out, err);
}

bool file_settle(struct img_file *f)
{
	if (f->remote)
		remote_settle(f->remote);
	return f->remote != NULL;
}

void file_close(struct img_file *f)
{
	if (!f)
		return;
	remote_close(f->remote);
	if (f->head)
		pthread_mutex_destroy(&f->head->lock);
	free(f->head);
	if (f->fd >= 0)
		close(f->fd); /* the locks go with it */
	free(f->path);
	free(f);
}

/* ---- what it is ---- */

const char *file_path(const struct img_file *f)
{
	return f->path;
}

uint64_t file_size(const struct img_file *f)
{
	struct stat st;
	off_t end;

	if (f->stream)
		return f->streamed;
	if (f->remote)
		return remote_size(f->remote);
	if (f->part_len)
		return f->part_len;
	if (!f->device)
		return fstat(f->fd, &st) < 0 ? 0 : (uint64_t)st.st_size;
	end = lseek(f->fd, 0, SEEK_END);
	return end < 0 ? 0 : (uint64_t)end;
}

bool file_is_device(const struct img_file *f)
{
	return f->device;
}

bool file_read_only(const struct img_file *f)
{
	return f->read_only;
}

uint64_t file_allocated(const struct img_file *f)
{
	struct stat st;

	if (f->device || f->part_len)
		return file_size(f);
	return fstat(f->fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

bool file_same(const struct img_file *a, const struct img_file *b)
{
	if (a->remote || b->remote)
		return a->remote && b->remote && !strcmp(a->path, b->path);
	return a->device == b->device && a->dev == b->dev && a->ino == b->ino &&
	       a->part_off == b->part_off && a->part_len == b->part_len;
}

/* ---- transfers ---- */

static int remote_readv(struct img_file *f, struct iov_pos *p, uint64_t off,
			uint64_t len)
{
	uint64_t size = remote_size(f->remote);
	uint64_t there = off < size ? min_u64(len, size - off) : 0, left = there;
	int rc = 0;

	while (left && !rc) {
		uint8_t *at;
		uint64_t n = iov_pos_next(p, left, &at);

		rc = remote_read(f->remote, at, off, n);
		off += n;
		left -= n;
	}
	if (!rc)
		iov_pos_zero(p, len - there);
	return rc;
}

/* Small pieces go out together. */
static int remote_writev(struct img_file *f, struct iov_pos *p, uint64_t off,
			 uint64_t len)
{
	uint8_t *joined = NULL;
	int rc = 0;

	while (len && !rc) {
		struct iovec v;
		int n_pieces;
		uint64_t n = iov_pos_take(p, len, &v, 1, &n_pieces);

		if (n && (n == len || n >= JOIN)) {
			rc = remote_write(f->remote, v.iov_base, off, n);
			iov_pos_advance(p, n);
		} else if (!joined && !(joined = malloc(JOIN))) {
			rc = -ENOMEM;
		} else {
			n = min_u64(len, JOIN);
			iov_pos_get(p, joined, n);
			rc = remote_write(f->remote, joined, off, n);
		}
		off += n;
		len -= n;
	}
	free(joined);
	return rc;
}

/* What of [off, off + len) is held back: how many bytes. */
static uint64_t held(const struct img_file *f, uint64_t off, uint64_t len)
{
	return f->head && off < HEAD_LEN ? min_u64(len, HEAD_LEN - off) : 0;
}

static int read_host(struct img_file *f, struct iov_pos *p, uint64_t off, uint64_t len)
{
	while (len) {
		struct iovec iov[IOV_BATCH];
		ssize_t got;
		int n;

		if (!iov_pos_take(p, len, iov, IOV_BATCH, &n))
			return -EINVAL;
		got = preadv(f->fd, iov, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0) {
			iov_pos_zero(p, len);
			break;
		}
		iov_pos_advance(p, (uint64_t)got);
		off += (uint64_t)got;
		len -= (uint64_t)got;
	}
	return 0;
}

int file_readv(struct img_file *f, struct iov_pos *p, uint64_t off, uint64_t len)
{
	uint64_t first = held(f, off, len), in;
	int rc;

	if (!range_ok(off, len, MAX_OFFSET))
		return -EIO;
	if (first) {
		pthread_mutex_lock(&f->head->lock);
		iov_pos_put(p, f->head->now + off, first);
		pthread_mutex_unlock(&f->head->lock);
		off += first;
		len -= first;
	}
	if (f->remote)
		return remote_readv(f, p, off, len);
	in = len;
	if (f->part_len)
		in = off < f->part_len ? min_u64(len, f->part_len - off) : 0;
	rc = read_host(f, p, f->part_off + off, in);
	if (!rc)
		iov_pos_zero(p, len - in);
	return rc;
}

/* The host begins to write what is in [off - EAGER, off). */
static void write_back(struct img_file *f, uint64_t end, uint64_t len)
{
	uint64_t before = atomic_fetch_add(&f->written, len);
	uint64_t from = end > 2 * EAGER ? end - 2 * EAGER : 0;

	if (before / EAGER != (before + len) / EAGER)
		sync_file_range(f->fd, (off_t)from, (off_t)(end - from),
				SYNC_FILE_RANGE_WRITE);
}

int file_writev(struct img_file *f, struct iov_pos *p, uint64_t off, uint64_t len)
{
	uint64_t first = held(f, off, len);

	if (!range_ok(off, len, MAX_OFFSET))
		return -EFBIG;
	if (f->stream && off != f->streamed)
		return -ESPIPE;
	if (first) {
		pthread_mutex_lock(&f->head->lock);
		iov_pos_get(p, f->head->now + off, first);
		pthread_mutex_unlock(&f->head->lock);
		off += first;
		len -= first;
	}
	if (f->remote)
		return remote_writev(f, p, off, len);
	if (f->eager)
		write_back(f, off + len, len);
	while (len) {
		struct iovec iov[IOV_BATCH];
		ssize_t got;
		int n;

		if (!iov_pos_take(p, len, iov, IOV_BATCH, &n))
			return -EINVAL;
		got = f->stream ? writev(f->fd, iov, n)
				: pwritev(f->fd, iov, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENOSPC;
		f->streamed += f->stream ? (uint64_t)got : 0;
		iov_pos_advance(p, (uint64_t)got);
		off += (uint64_t)got;
		len -= (uint64_t)got;
	}
	return 0;
}

int file_read(struct img_file *f, void *buf, uint64_t off, uint64_t len)
{
	struct iovec v = {buf, len};
	struct iov_pos p = {&v, 1, 0};

	return file_readv(f, &p, off, len);
}

int file_write(struct img_file *f, const void *buf, uint64_t off, uint64_t len)
{
	struct iovec v = {(void *)buf, len};
	struct iov_pos p = {&v, 1, 0};

	return file_writev(f, &p, off, len);
}

/* ---- zeros and holes ---- */

static bool host_cannot(int e)
{
	return e == EOPNOTSUPP || e == ENOSYS || e == ENODEV || e == EINVAL ||
	       e == EPERM;
}

static int file_allocate(struct img_file *f, int mode, uint64_t off, uint64_t len)
{
	int rc;

	do
		rc = fallocate(f->fd, mode, (off_t)off, (off_t)len);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

static int file_write_zeros(struct img_file *f, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[65536];
	int rc = 0;

	while (len && !rc) {
		uint64_t n = min_u64(len, sizeof(zeros));

		rc = file_write(f, zeros, off, n);
		off += n;
		len -= n;
	}
	return rc;
}

int file_zero(struct img_file *f, uint64_t off, uint64_t len, bool unmap)
{
	uint64_t first = held(f, off, len);
	int rc;

	if (!range_ok(off, len, MAX_OFFSET))
		return -EFBIG;
	if (first) {
		pthread_mutex_lock(&f->head->lock);
		memset(f->head->now + off, 0, first);
		pthread_mutex_unlock(&f->head->lock);
		off += first;
		len -= first;
	}
	if (!len)
		return 0;
	if (f->remote) {
		rc = remote_zero(f->remote, off, len, unmap);
		return rc == -EOPNOTSUPP ? file_write_zeros(f, off, len) : rc;
	}
	if (f->stream || (f->device && (off | len) % DEVICE_GRAIN))
		return file_write_zeros(f, off, len);
	/* A hole does not make the file longer, the other ways do. */
	if (unmap && !f->no_punch && (f->device || off + len <= file_size(f))) {
		rc = file_allocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
				   len);
		if (!rc || !host_cannot(-rc))
			return rc;
		f->no_punch = true;
	}
	if (!f->no_zero) {
		/* A device knows ZERO_RANGE only with KEEP_SIZE. */
		rc = file_allocate(
			f, FALLOC_FL_ZERO_RANGE | (f->device ? FALLOC_FL_KEEP_SIZE : 0),
			off, len);
		if (!rc || !host_cannot(-rc))
			return rc;
		f->no_zero = true;
	}
	return file_write_zeros(f, off, len);
}

void file_discard(struct img_file *f, uint64_t off, uint64_t len)
{
	uint64_t first = held(f, off, len);
	int rc;

	off += first;
	len -= first;
	if (f->remote) {
		remote_discard(f->remote, off, len);
		return;
	}
	if (f->no_punch || !len || !range_ok(off, len, MAX_OFFSET) ||
	    (f->device && (off | len) % DEVICE_GRAIN))
		return;
	rc = file_allocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
	if (rc && host_cannot(-rc))
		f->no_punch = true;
}

int file_preallocate(struct img_file *f, uint64_t off, uint64_t len)
{
	int rc = -EFBIG;

	if (range_ok(off, len, MAX_OFFSET))
		rc = f->remote ? -EOPNOTSUPP : file_allocate(f, 0, off, len);
	return rc && host_cannot(-rc) ? file_write_zeros(f, off, len) : rc;
}

int file_fill(struct img_file *f, uint64_t off, uint64_t len)
{
	return range_ok(off, len, MAX_OFFSET) ? file_write_zeros(f, off, len) : -EFBIG;
}

/* The host copies; what it has copied when it fails is written once more by the caller. */
static int host_copies(struct img_file *f, uint64_t to, const struct img_file *src,
		       uint64_t from, uint64_t len)
{
	off_t in = (off_t)from, out = (off_t)to;

	while (len) {
		ssize_t n = copy_file_range(src->fd, &in, f->fd, &out, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			f->no_copy = true;
			return -EOPNOTSUPP;
		}
		len -= (uint64_t)n;
	}
	return 0;
}

bool file_may_clone(const struct img_file *f, bool copy)
{
	return !f->remote && !f->stream && (!f->no_clone || (copy && !f->no_copy));
}

int file_clone(struct img_file *f, uint64_t to, const struct img_file *src,
	       uint64_t from, uint64_t len, bool copy)
{
	struct file_clone_range r = {.src_fd = src->fd,
				     .src_offset = src->part_off + from,
				     .src_length = len,
				     .dest_offset = to};

	if (!file_may_clone(f, copy) || src->remote || held(f, to, len) || src->head ||
	    !len || !range_ok(to, len, MAX_OFFSET) ||
	    !range_ok(from, len, file_size(src)))
		return -EOPNOTSUPP;
	from += src->part_off;
	if (!f->no_clone && !f->device && !src->device &&
	    (to | from | len) % CLONE_GRAIN == 0) {
		if (!ioctl(f->fd, FICLONERANGE, &r))
			return 0;
		/* EINVAL: blocks of other sizes, perhaps */
		f->no_clone = errno != EINVAL && errno != EINTR;
	}
	return copy && !f->no_copy ? host_copies(f, to, src, from, len) : -EOPNOTSUPP;
}

int file_truncate(struct img_file *f, uint64_t size)
{
	if (size > MAX_OFFSET)
		return -EFBIG;
	if (f->remote)
		return size > remote_size(f->remote) ? -ENOSPC : 0;
	return ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
}

int file_sync(struct img_file *f)
{
	if (f->no_sync || f->read_only)
		return 0;
	if (f->remote)
		return remote_flush(f->remote);
	return fdatasync(f->fd) < 0 ? -errno : 0;
}

int file_commit(struct img_file *f)
{
	if (f->read_only || f->stream)
		return 0;
	if (f->remote)
		return remote_flush(f->remote);
	return fdatasync(f->fd) < 0 ? -errno : 0;
}

/* ---- the unfinished mark ---- */

bool file_head_is_mark(const void *head, size_t len)
{
	return len >= 16 && !memcmp(head, MARK, min_u64(len, sizeof(MARK) - 1));
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

int file_hold(struct img_file *f, bool fresh)
{
	struct head *h;
	int rc;

	static_assert(sizeof(MARK) < MARK_LEN, "its last byte says what follows");
	if (f->head || f->stream || file_size(f) < HEAD_LEN)
		return 0;
	h = NEW(struct head);
	if (!h)
		return -ENOMEM;
	rc = fresh ? 0 : file_read(f, h->now, 0, HEAD_LEN);
	if (rc) {
		free(h);
		return rc;
	}
	if (file_head_is_mark(h->now, MARK_LEN)) {
		size_t n = h->now[MARK_LEN - 1] ? HEAD_LEN - MARK_LEN : 0;

		memmove(h->now, h->now + MARK_LEN, n);
		memset(h->now + n, 0, HEAD_LEN - n);
	}
	pthread_mutex_init(&h->lock, NULL);
	f->head = h;
	return 0;
}

int file_mark(struct img_file *f)
{
	struct head *h = f->head;
	uint8_t block[HEAD_LEN] = MARK;
	int rc;

	if (!h || h->marked)
		return 0;
	pthread_mutex_lock(&h->lock);
	if (is_zero(h->now + HEAD_LEN - MARK_LEN, MARK_LEN)) {
		block[MARK_LEN - 1] = 1;
		memcpy(block + MARK_LEN, h->now, HEAD_LEN - MARK_LEN);
	}
	pthread_mutex_unlock(&h->lock);
	f->head = NULL; /* this goes to the disk */
	rc = file_write(f, block, 0, HEAD_LEN);
	if (!rc)
		rc = file_commit(f);
	f->head = h;
	h->marked = !rc;
	return rc;
}

int file_release(struct img_file *f, bool sync)
{
	struct head *h = f->head;
	int rc = 0;

	if (!h || !h->marked)
		return 0;
	if (sync)
		rc = file_commit(f);
	f->head = NULL;
	if (!rc)
		rc = file_write(f, h->now, 0, HEAD_LEN);
	if (!rc && sync)
		rc = file_commit(f);
	pthread_mutex_destroy(&h->lock);
	free(h);
	return rc;
}

bool file_is_data(struct img_file *f, uint64_t off, uint64_t len, uint64_t *n)
{
	off_t data, hole;

	*n = held(f, off, len);
	if (*n)
		return true;
	*n = len;
	if (f->remote)
		return remote_is_data(f->remote, off, len, n);
	if (f->device || f->no_holes || !range_ok(off, len, MAX_OFFSET))
		return true;
	if (f->part_len) {
		if (off >= f->part_len)
			return false;
		*n = len = min_u64(len, f->part_len - off);
		off += f->part_off;
	}
	data = lseek(f->fd, (off_t)off, SEEK_DATA);
	if (data < 0) {
		if (errno == ENXIO) /* nothing but a hole up to the end, or behind it */
			return false;
		f->no_holes = true;
		return true;
	}
	if ((uint64_t)data > off) {
		*n = min_u64(len, (uint64_t)data - off);
		return false;
	}
	hole = lseek(f->fd, (off_t)off, SEEK_HOLE);
	if (hole > (off_t)off)
		*n = min_u64(len, (uint64_t)hole - off);
	return true;
}

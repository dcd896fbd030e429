/*
 * img/io.c - reading, writing, zeroing and mapping of images of any format, written once over
 * struct img_format. Any thread.
 *
 * A first write to a place (copy on write) holds the range of clusters it changes (img/busy.c), so a format
 * sees one of them at a time per cluster. Writes to what is there already hold nothing.
 * Lock order: begin_lock, a busy range, the format's locks, busy_lock and work_lock (leaves).
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "img/img_int.h"
#include "img/sealed.h"

/* New places are filled in steps of at most this: bounds both the range held and what an error undoes. */
#define ALLOC_STEP   (8u << 20)
/* Zeros around new data are written; when they are more than this, the host is asked for them. */
#define ZERO_BY_HOST (32u << 10)
/* Zeroing and discarding hold at most this much at a time. */
#define ZERO_STEP    (1ull << 30)

/* ---- data where it is ---- */

static struct sealed extent_sealed(const struct img_extent *e)
{
	return (struct sealed){e->file, e->file_off, e->crypt, e->crypt_off};
}

static int extent_read(const struct img_extent *e, struct iov_pos *p, uint64_t n)
{
	struct sealed s = extent_sealed(e);

	return e->crypt ? sealed_readv(&s, p, n)
			: file_readv(e->file, p, e->file_off, n);
}

/* src NULL: zeros. */
static int extent_write(const struct img_extent *e, struct iov_pos *src, uint64_t n)
{
	struct sealed s = extent_sealed(e);

	if (e->crypt)
		return sealed_write(&s, &(struct sealed_data){.p = src, .n = n});
	return src ? file_writev(e->file, src, e->file_off, n)
		   : file_zero(e->file, e->file_off, n, false);
}

/* May a write go there without holding the range? Parts of encrypted sectors are read and written again. */
static bool in_place(const struct img_extent *e)
{
	return e->kind == IMG_DATA && e->writable && !e->crypt;
}

/* ---- reading ---- */

static int read_at(struct img *img, struct iov_pos *p, uint64_t off, uint64_t len);

/* [off, off + len) of what is behind `img`; zeros behind its end. */
static int read_backing(struct img *img, struct iov_pos *p, uint64_t off, uint64_t len)
{
	uint64_t there = 0;
	unsigned ticket;
	int rc = 0;

	if (!img->backing && img->has_backing)
		return -ENXIO; /* it was not opened */
	if (img->backing && off < img->backing->size)
		there = min_u64(len, img->backing->size - off);
	if (there) {
		ticket = grace_enter(&img->backing->grace);
		rc = read_at(img->backing, p, off, there);
		grace_exit(&img->backing->grace, ticket);
	}
	if (!rc)
		iov_pos_zero(p, len - there);
	return rc;
}

/* The caller is inside grace_enter(). */
static int read_at(struct img *img, struct iov_pos *p, uint64_t off, uint64_t len)
{
	int rc = 0;

	while (len && !rc) {
		struct img_extent e;
		uint64_t n;

		rc = img->fmt->map(img, off, len, &e);
		if (rc)
			break;
		n = min_u64(len, e.len);
		switch (e.kind) {
		case IMG_DATA: rc = extent_read(&e, p, n); break;
		case IMG_ZERO: iov_pos_zero(p, n); break;
		case IMG_BACKING: rc = read_backing(img, p, off, n); break;
		case IMG_PACKED: rc = unpack_read(img, &e, p, n); break;
		}
		off += n;
		len -= n;
	}
	return rc;
}

/*
 * A writer of other bytes of the same sector writes all of it anew, and the half of that which a reader may see could
 * not be decrypted: reads of parts of sectors wait for it.
 */
static bool reads_alone(const struct img *img, uint64_t off, uint64_t len)
{
	return img->sealed && !img->read_only && (off | len) % CRYPT_SECTOR;
}

int img_readv(struct img *img, const struct iovec *iov, unsigned n_iov, uint64_t off,
	      uint64_t len)
{
	struct iov_pos p = {iov, n_iov, 0};
	struct img_busy b;
	bool alone;
	unsigned ticket;
	int rc;

	if (!range_ok(off, len, img->size))
		return -EINVAL;
	alone = reads_alone(img, off, len);
	ticket = grace_enter(&img->grace);
	if (alone)
		busy_lock(img, &b, align_down(off, img->unit),
			  align_up(off + len, img->unit));
	rc = read_at(img, &p, off, len);
	if (alone)
		busy_unlock(img, &b);
	grace_exit(&img->grace, ticket);
	return rc;
}

int img_read(struct img *img, void *buf, uint64_t off, uint64_t len)
{
	struct iovec v = {buf, len};

	return img_readv(img, &v, 1, off, len);
}

/* ---- first writes ---- */

/* Does this extent read as zeros for certain, for how many of its bytes? */
static bool reads_zero(const struct img *img, const struct img_extent *e, uint64_t off,
		       uint64_t *n)
{
	if (e->kind == IMG_ZERO)
		return true;
	if (e->kind != IMG_BACKING || (!img->backing && img->has_backing))
		return false;
	if (!img->backing || off >= img->backing->size)
		return true;
	*n = min_u64(*n, img->backing->size - off);
	return false;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* What is around new data in its grains. */
struct margin {
	uint64_t off, len; /* in the image */
	uint8_t *old;      /* what was there; NULL: zeros */
};

/* Is it certain, without reading, that [off, off + len) is zeros? */
static bool maps_zero(struct img *img, uint64_t off, uint64_t len)
{
	while (len) {
		struct img_extent e;
		uint64_t n, all;

		if (img->fmt->map(img, off, len, &e))
			return false;
		n = all = min_u64(len, e.len);
		if (!reads_zero(img, &e, off, &n))
			return false;
		off += all;
		len -= all;
	}
	return true;
}

/* Reads what stands at a margin now; what is behind the image's end counts as zeros. */
static int margin_read(struct img *img, struct margin *m)
{
	uint64_t there = m->off < img->size ? min_u64(m->len, img->size - m->off) : 0;
	struct iovec v;
	struct iov_pos p = {&v, 1, 0};
	int rc;

	if (maps_zero(img, m->off, there))
		return 0;
	m->old = malloc(m->len);
	if (!m->old)
		return -ENOMEM;
	v = (struct iovec){m->old, m->len};
	rc = read_at(img, &p, m->off, there);
	if (rc)
		return rc;
	memset(m->old + there, 0, m->len - there);
	if (all_zero(m->old, m->len)) {
		free(m->old);
		m->old = NULL;
	}
	return 0;
}

/* Can the margin go out together with the data? Nothing to write is fine, too. */
static bool margin_joins(const struct margin *m, const struct img_place *place)
{
	return m->old || !m->len || place->zero || m->len <= ZERO_BY_HOST;
}

/* Adds the margin to an array of iovecs, if the place does not read like it already. */
static int margin_iov(const struct margin *m, const struct img_place *place,
		      struct iovec *v)
{
	static const uint8_t zeros[ZERO_BY_HOST];

	if (!m->len || (!m->old && place->zero))
		return 0;
	v->iov_base = m->old ? m->old : (void *)zeros;
	v->iov_len = m->len;
	return 1;
}

static int margin_write(const struct margin *m, const struct img_place *place,
			uint64_t at)
{
	if (!m->len || (!m->old && place->zero))
		return 0;
	if (!m->old)
		return file_zero(place->file, at, m->len, false);
	return file_write(place->file, m->old, at, m->len);
}

/* Margins and data in one transfer; -E2BIG when the data has too many pieces. */
static int fill_joined(const struct img_place *place, const struct margin *head,
		       const struct margin *tail, struct iov_pos *src, uint64_t n)
{
	struct iovec v[IOV_BATCH];
	struct iov_pos p = {v, 0, 0};
	uint64_t at = place->file_off, len = n;
	int n_data, rc;

	if (margin_iov(head, place, v)) {
		p.n = 1;
		len += head->len;
	} else {
		at += head->len;
	}
	if (iov_pos_take(src, n, v + p.n, IOV_BATCH - 2, &n_data) < n)
		return -E2BIG;
	p.n += (unsigned)n_data;
	if (margin_iov(tail, place, v + p.n)) {
		p.n++;
		len += tail->len;
	}
	rc = file_writev(place->file, &p, at, len);
	if (!rc)
		iov_pos_advance(src, n);
	return rc;
}

/* Fills a new place. src NULL: the data is zeros. */
static int place_fill(const struct img_place *place, const struct margin *head,
		      const struct margin *tail, struct iov_pos *src, uint64_t n)
{
	uint64_t at = place->file_off + head->len;
	int rc = -E2BIG;

	if (place->crypt)
		return sealed_write(&(struct sealed){place->file, place->file_off,
						     place->crypt, place->crypt_off},
				    &(struct sealed_data){head->old, head->len, src, n,
							  tail->old, tail->len});
	if (src && margin_joins(head, place) && margin_joins(tail, place))
		rc = fill_joined(place, head, tail, src, n);
	if (rc != -E2BIG)
		return rc;
	rc = margin_write(head, place, place->file_off);
	if (!rc && src)
		rc = file_writev(place->file, src, at, n);
	else if (!rc) /* also where it reads as zeros: behind the end of the file */
		rc = file_zero(place->file, at, n, false);
	if (!rc)
		rc = margin_write(tail, place, at + n);
	return rc;
}

/*
 * Writes [off, off + n) to a new place, which it fills to whole grains. The range is held. *done bytes were
 * written.
 */
static int write_new(struct img *img, uint32_t grain, struct iov_pos *src, uint64_t off,
		     uint64_t n, uint64_t *done)
{
	uint64_t start = align_down(off, grain), end = align_up(off + n, grain);
	struct margin head = {start, off - start, NULL};
	struct margin tail = {0, 0, NULL};
	struct img_place place = {0};
	int rc;

	rc = img->fmt->alloc(img, start, end - start, &place);
	if (rc)
		return rc;
	n = min_u64(n, place.len - head.len);
	tail.off = off + n;
	tail.len = start + place.len - tail.off;
	rc = margin_read(img, &head);
	if (!rc)
		rc = margin_read(img, &tail);
	if (!rc)
		rc = place_fill(&place, &head, &tail, src, n);
	if (!rc)
		rc = img->fmt->link(img, start, &place);
	if (rc)
		img->fmt->unalloc(img, &place);
	free(head.old);
	free(tail.old);
	*done = n;
	return rc;
}

/* One step of a write that needs a new place, if it still does: looks again with the range held. */
static int write_first(struct img *img, struct iov_pos *src, uint64_t off, uint64_t len,
		       uint64_t *done)
{
	struct img_extent e;
	struct img_busy b;
	uint64_t n = min_u64(len, ALLOC_STEP);
	int rc;

	busy_lock(img, &b, align_down(off, img->unit), align_up(off + n, img->unit));
	rc = img->fmt->map(img, off, n, &e);
	if (!rc) {
		n = min_u64(n, e.len);
		*done = n;
		if (e.kind == IMG_DATA && e.writable)
			rc = extent_write(&e, src, n);
		else if (!img->fmt->alloc)
			rc = -EROFS;
		else
			rc = write_new(img, e.grain, src, off, n, done);
	}
	busy_unlock(img, &b);
	return rc;
}

/* ---- writing ---- */

/* What has to happen before the first change: once. */
static int begin_write(struct img *img)
{
	int rc = 0;

	if (img->read_only)
		return -EROFS;
	if (atomic_load_explicit(&img->writing, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&img->begin_lock);
	if (!img->writing && img->fmt->begin_write)
		rc = img->fmt->begin_write(img);
	if (!rc)
		atomic_store_explicit(&img->writing, true, memory_order_release);
	pthread_mutex_unlock(&img->begin_lock);
	return rc;
}

/* src NULL: zeros. The caller is inside grace_enter(). */
static int write_at(struct img *img, struct iov_pos *src, uint64_t off, uint64_t len)
{
	int rc = 0;

	while (len && !rc) {
		struct img_extent e;
		uint64_t n;

		rc = img->fmt->map(img, off, len, &e);
		if (rc)
			break;
		n = min_u64(len, e.len);
		if (in_place(&e))
			rc = extent_write(&e, src, n);
		else
			rc = write_first(img, src, off, n, &n);
		off += n;
		len -= n;
	}
	return rc;
}

/* Puts what of a write at `off` lies in [at, at + n) over `buf`. */
static void overlay(uint8_t *buf, uint64_t at, uint64_t n, struct iov_pos p,
		    uint64_t off, uint64_t len)
{
	uint64_t from = max_u64(at, off), to = min_u64(at + n, off + len);

	if (from >= to)
		return;
	iov_pos_advance(&p, from - off);
	iov_pos_get(&p, buf + (from - at), to - from);
}

/*
 * The format of a raw image was guessed. A guest that could write another format's header would choose
 * which of the host's files are opened next time.
 */
static int guard_ends(struct img *img, struct iov_pos p, uint64_t off, uint64_t len)
{
	uint8_t *buf = calloc(1, IMG_PROBE_LEN + IMG_TAIL_LEN);
	struct img_probe probe = {
		.head = buf,
		.head_len = min_u64(IMG_PROBE_LEN, img->size),
		.tail = buf + IMG_PROBE_LEN,
		.tail_len = min_u64(IMG_TAIL_LEN, img->size),
		.size = img->size,
	};
	uint64_t tail_at = img->size - probe.tail_len;
	int rc = buf ? file_read(img->file, buf, 0, probe.head_len) : -ENOMEM;

	if (!rc)
		rc = file_read(img->file, buf + IMG_PROBE_LEN, tail_at, probe.tail_len);
	if (!rc) {
		overlay(buf, 0, probe.head_len, p, off, len);
		overlay(buf + IMG_PROBE_LEN, tail_at, probe.tail_len, p, off, len);
		rc = format_probe(&probe) == &img_raw ? 0 : -EPERM;
	}
	free(buf);
	return rc;
}

static bool at_ends(const struct img *img, uint64_t off, uint64_t len)
{
	return off < IMG_PROBE_LEN || off + len + IMG_TAIL_LEN > img->size;
}

int img_writev(struct img *img, const struct iovec *iov, unsigned n_iov, uint64_t off,
	       uint64_t len)
{
	struct iov_pos p = {iov, n_iov, 0};
	unsigned ticket;
	int rc;

	if (!range_ok(off, len, img->size) || img->one_pass)
		return -EINVAL;
	rc = begin_write(img);
	if (!rc && img->guard_head && at_ends(img, off, len))
		rc = guard_ends(img, p, off, len);
	if (rc)
		return rc;
	ticket = grace_enter(&img->grace);
	rc = write_at(img, &p, off, len);
	grace_exit(&img->grace, ticket);
	return rc;
}

int img_write(struct img *img, const void *buf, uint64_t off, uint64_t len)
{
	struct iovec v = {(void *)buf, len};

	return img_writev(img, &v, 1, off, len);
}

/* A new place that shares the blocks at `from`. The range is held. */
static int clone_new(struct img *img, uint64_t off, const struct img_file *src,
		     uint64_t from, uint64_t n, bool copy, uint64_t *done)
{
	struct img_place place = {0};
	int rc = img->fmt->alloc(img, off, n, &place);

	if (rc)
		return rc;
	n = min_u64(n, place.len);
	rc = n < place.len ? -EOPNOTSUPP
			   : file_clone(place.file, place.file_off, src, from, n, copy);
	if (!rc)
		rc = img->fmt->link(img, off, &place);
	if (rc)
		img->fmt->unalloc(img, &place);
	*done = n;
	return rc;
}

static int clone_step(struct img *img, uint64_t off, const struct img_file *src,
		      uint64_t from, uint64_t *n, bool copy)
{
	struct img_extent e;
	struct img_busy b;
	int rc;

	busy_lock(img, &b, align_down(off, img->unit), align_up(off + *n, img->unit));
	rc = img->fmt->map(img, off, *n, &e);
	if (!rc) {
		*n = min_u64(*n, e.len);
		if (e.kind == IMG_DATA && e.writable)
			rc = file_clone(e.file, e.file_off, src, from, *n, copy);
		else if (!img->fmt->alloc || !file_may_clone(img->file, copy) ||
			 (off | *n) & (e.grain - 1))
			rc = -EOPNOTSUPP;
		else
			rc = clone_new(img, off, src, from, *n, copy, n);
	}
	busy_unlock(img, &b);
	return rc;
}

int img_clone(struct img *img, uint64_t off, const struct img_file *src, uint64_t from,
	      uint64_t len, bool copy)
{
	unsigned ticket;
	int rc;

	if (!range_ok(off, len, img->size) || img->one_pass)
		return -EINVAL;
	if (img->sealed || (img->guard_head && at_ends(img, off, len)))
		return -EOPNOTSUPP;
	rc = begin_write(img);
	if (rc)
		return rc;
	ticket = grace_enter(&img->grace);
	while (len && !rc) {
		uint64_t n = min_u64(len, ALLOC_STEP);

		rc = clone_step(img, off, src, from, &n, copy);
		off += n;
		from += n;
		len -= n;
	}
	grace_exit(&img->grace, ticket);
	return rc;
}

int img_write_packed(struct img *img, uint64_t off, const void *data, size_t len)
{
	struct img_busy b;
	unsigned ticket;
	int rc;

	if (!img->fmt->write_packed)
		return -EOPNOTSUPP;
	if (off >= img->size)
		return -EINVAL;
	if (img->one_pass)
		return img->fmt->write_packed(img, off, data, len);
	rc = begin_write(img);
	if (rc)
		return rc;
	ticket = grace_enter(&img->grace);
	busy_lock(img, &b, off, align_up(off + 1, img->unit));
	rc = img->fmt->write_packed(img, off, data, len);
	busy_unlock(img, &b);
	grace_exit(&img->grace, ticket);
	return rc;
}

int img_write_unit(struct img *img, uint64_t off, const void *data, size_t len)
{
	if (!img->one_pass || !img->fmt->write_unit)
		return -EOPNOTSUPP;
	if (!range_ok(off, len, img->size))
		return -EINVAL;
	return img->fmt->write_unit(img, off, data, len);
}

int img_append(struct img *img, const void *data, uint64_t len)
{
	int rc = file_write(img->file, data, img->append, len);

	if (!rc)
		img->append += len;
	return rc;
}

/* ---- zeros ---- */

/* Zeros by the format's own means for a prefix of whole units; -EOPNOTSUPP. */
static int zero_by_format(struct img *img, uint64_t off, uint64_t len, bool unmap,
			  uint64_t *done)
{
	struct img_busy b;
	int rc;

	if (!img->fmt->zero)
		return -EOPNOTSUPP;
	busy_lock(img, &b, align_down(off, img->unit), align_up(off + len, img->unit));
	rc = img->fmt->zero(img, off, len, unmap, done);
	busy_unlock(img, &b);
	return rc;
}

/* Zeros in place, or in new places; what reads as zeros already is left alone. */
static int zero_by_data(struct img *img, uint64_t off, uint64_t len, bool unmap,
			uint64_t *done)
{
	struct img_extent e;
	uint64_t n = len;
	int rc = img->fmt->map(img, off, len, &e);

	if (rc)
		return rc;
	n = min_u64(n, e.len);
	if (reads_zero(img, &e, off, &n)) {
		*done = n;
		return 0;
	}
	*done = n;
	if (in_place(&e))
		return file_zero(e.file, e.file_off, n, unmap);
	return write_first(img, NULL, off, n, done);
}

/* How far the next step of zeroing goes, and whether the format may do it. */
static uint64_t zero_step(const struct img *img, uint64_t off, uint64_t len,
			  bool *whole)
{
	uint64_t unit = img->zero_unit, into = off & (unit - 1);
	uint64_t end = off + len;

	if (into || (len < unit && end != img->size)) {
		*whole = false;
		return min_u64(len, unit - into);
	}
	*whole = true;
	if (len > ZERO_STEP)
		return ZERO_STEP;
	/* The last unit of the image may reach behind its end. */
	return end == img->size ? align_up(len, unit) : align_down(len, unit);
}

static int zero_at(struct img *img, uint64_t off, uint64_t len, bool unmap)
{
	int rc = 0;

	while (len && !rc) {
		bool whole;
		uint64_t n = zero_step(img, off, len, &whole), done = 0;

		rc = whole ? zero_by_format(img, off, n, unmap, &done) : -EOPNOTSUPP;
		if (rc == -EOPNOTSUPP)
			rc = zero_by_data(img, off, min_u64(n, len), unmap, &done);
		done = min_u64(done, len);
		off += done;
		len -= done;
	}
	return rc;
}

int img_write_zeroes(struct img *img, uint64_t off, uint64_t len, bool unmap)
{
	unsigned ticket;
	int rc;

	if (!range_ok(off, len, img->size))
		return -EINVAL;
	rc = begin_write(img);
	if (rc)
		return rc;
	ticket = grace_enter(&img->grace);
	rc = zero_at(img, off, len, unmap);
	grace_exit(&img->grace, ticket);
	return rc;
}

int img_discard(struct img *img, uint64_t off, uint64_t len)
{
	uint64_t start = align_up(off, img->unit), end = off + len;
	unsigned ticket;
	int rc;

	if (!range_ok(off, len, img->size))
		return -EINVAL;
	rc = begin_write(img);
	if (rc || !img->fmt->discard)
		return rc;
	end = end == img->size ? align_up(end, img->unit) : align_down(end, img->unit);
	ticket = grace_enter(&img->grace);
	while (!rc && start < end) {
		uint64_t n = min_u64(end - start, ZERO_STEP), done = 0;
		struct img_busy b;

		busy_lock(img, &b, start, start + n);
		rc = img->fmt->discard(img, start, n, &done);
		busy_unlock(img, &b);
		start += done;
	}
	grace_exit(&img->grace, ticket);
	return rc;
}

int img_flush(struct img *img)
{
	if (img->read_only)
		return 0;
	if (img->fmt->flush)
		return img->fmt->flush(img);
	return file_sync(img->file);
}

/* ---- mapping ---- */

int img_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	uint32_t depth = 0;
	uint64_t n;

	if (!len || !range_ok(off, len, img->size))
		return -EINVAL;
	for (;; depth++, img = img->backing) {
		unsigned ticket = grace_enter(&img->grace);
		int rc = img->fmt->map(img, off, len, e);

		grace_exit(&img->grace, ticket);
		if (rc)
			return rc;
		e->len = len = min_u64(len, e->len);
		e->depth = depth;
		e->present = e->kind != IMG_BACKING;
		e->hole = false;
		if (e->present)
			break;
		n = len;
		if (reads_zero(img, e, off, &n)) {
			e->kind = IMG_ZERO;
			break;
		}
		if (!img->backing)
			return -ENXIO;
		len = n;
	}
	if (e->crypt)
		return 0; /* a hole there does not read as zeros */
	if (e->kind == IMG_DATA && !file_is_data(e->file, e->file_off, e->len, &n)) {
		e->kind = IMG_ZERO;
		e->hole = true;
		e->len = n;
	} else if (e->kind == IMG_DATA) {
		e->len = n;
	}
	return 0;
}

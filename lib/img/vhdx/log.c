/*
 * img/vhdx/log.c - the log of VHDX images: finding what waits in it, adding to it. [MS-VHDX] 2.3. Reading: while
 * an image is opened, one thread; writing: under flush_lock.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "base/mem.h"
#include "img/vhdx/vhdx_int.h"

/* A log may zero at most so many pages. */
#define MAX_ZEROED (64u * VHDX_MB / VHDX_PAGE)

/* Entries in a row in the log. */
struct sequence {
	uint64_t head;          /* where the last one is */
	uint64_t end;           /* behind it */
	uint64_t tail;          /* where replay begins */
	uint64_t number;        /* of the last one; 0: none */
	uint64_t flushed, last; /* its file lengths */
	bool whole;             /* the tail is one of them */
};

/* ---- finding ---- */

/* The log is a ring. */
static int ring_read(struct vhdx *v, uint64_t at, void *buf, uint64_t len)
{
	uint64_t n = min_u64(len, v->log_len - at);
	int rc = file_read(v->file, buf, v->log_off + at, n);

	return rc || n == len
		       ? rc
		       : file_read(v->file, (uint8_t *)buf + n, v->log_off, len - n);
}

static uint64_t ring_add(const struct vhdx *v, uint64_t at, uint64_t n)
{
	return (at + n) % v->log_len;
}

/* Pages that header and descriptors take. */
static uint64_t desc_pages(uint64_t n_desc)
{
	return (sizeof(struct vhdx_log_entry) + n_desc * sizeof(struct vhdx_log_desc) +
		VHDX_PAGE - 1) /
	       VHDX_PAGE;
}

/* Can this be an entry's header, as far as it alone tells? */
static bool entry_plausible(const struct vhdx *v, const struct vhdx_log_entry *e)
{
	uint32_t len = le32_get(e->len), tail = le32_get(e->tail);

	return !memcmp(e->mark, "loge", 4) && len && len % VHDX_PAGE == 0 &&
	       len <= v->log_len && tail % VHDX_PAGE == 0 && tail < v->log_len &&
	       le64_get(e->sequence) && guid_same(&e->log, &v->header.log) &&
	       desc_pages(le32_get(e->n_desc)) <= len / VHDX_PAGE;
}

static const struct vhdx_log_desc *desc_at(const uint8_t *entry, uint64_t i)
{
	return (const struct vhdx_log_desc *)(entry + sizeof(struct vhdx_log_entry)) +
	       i;
}

/* Do descriptors and data belong to this entry? */
static bool entry_consistent(const uint8_t *raw)
{
	const struct vhdx_log_entry *e = (const void *)raw;
	uint64_t n = le32_get(e->n_desc), pages = desc_pages(n), data = 0;
	uint64_t sequence = le64_get(e->sequence);

	for (uint64_t i = 0; i < n; i++) {
		const struct vhdx_log_desc *d = desc_at(raw, i);
		bool is_data = !memcmp(d->mark, "desc", 4);

		if ((!is_data && memcmp(d->mark, "zero", 4)) ||
		    le64_get(d->sequence) != sequence || le64_get(d->off) % VHDX_PAGE ||
		    (!is_data && load_u64(d->leading) % VHDX_PAGE))
			return false;
		data += is_data;
	}
	if (pages + data > le32_get(e->len) / VHDX_PAGE)
		return false;
	for (uint64_t i = 0; i < data; i++) {
		const struct vhdx_log_data *p =
			(const void *)(raw + (pages + i) * VHDX_PAGE);

		if (memcmp(p->mark, "data", 4) ||
		    le32_get(p->sequence_high) != sequence >> 32 ||
		    le32_get(p->sequence_low) != (uint32_t)sequence)
			return false;
	}
	return true;
}

/*
 * The entry at `at`, new memory; NULL: there is none, or no memory (*rc). *work is how many bytes may still be
 * summed up: entries that lie over each other are not there to keep us busy.
 */
static uint8_t *entry_read(struct vhdx *v, uint64_t at, uint64_t *work, int *rc)
{
	struct vhdx_log_entry e;
	uint8_t *raw;
	uint32_t len;

	*rc = ring_read(v, at, &e, sizeof(e));
	if (*rc || !entry_plausible(v, &e))
		return NULL;
	len = le32_get(e.len);
	if (len > *work) {
		*rc = -EINVAL;
		return NULL;
	}
	*work -= len;
	raw = mem_new(len, 1);
	*rc = raw ? ring_read(v, at, raw, len) : -ENOMEM;
	if (!*rc &&
	    le32_get(e.checksum) ==
		    vhdx_checksum(raw, len,
				  offsetof(struct vhdx_log_entry, checksum)) &&
	    entry_consistent(raw))
		return raw;
	free(raw);
	return NULL;
}

/* The entries in a row that begin at `start`. */
static int sequence_read(struct vhdx *v, uint64_t start, uint64_t *work,
			 struct sequence *s)
{
	uint64_t at = start, total = 0;
	int rc = 0;

	*s = (struct sequence){.end = start};
	while (total < v->log_len) {
		uint8_t *raw = entry_read(v, at, work, &rc);
		const struct vhdx_log_entry *e = (const void *)raw;
		uint64_t number;

		if (!raw)
			break;
		number = le64_get(e->sequence);
		if (s->number && number != s->number + 1) {
			free(raw);
			break;
		}
		s->number = number;
		s->head = at;
		s->tail = le32_get(e->tail);
		s->flushed = le64_get(e->flushed_len);
		s->last = le64_get(e->last_len);
		total += le32_get(e->len);
		s->end = at = ring_add(v, at, le32_get(e->len));
		free(raw);
	}
	/* From the start round the ring to the head: is the tail there? */
	s->whole = s->number && (s->tail + v->log_len - start) % v->log_len <=
					(s->head + v->log_len - start) % v->log_len;
	return rc;
}

/* The sequence that counts: the whole one with the highest number. */
static int sequence_find(struct vhdx *v, struct sequence *best)
{
	uint64_t work = 4 * v->log_len, at = 0;
	uint64_t there = file_size(v->file);
	int rc = 0;

	*best = (struct sequence){0};
	there = there > v->log_off ? min_u64(v->log_len, there - v->log_off) : 0;
	while (at < there && !rc) {
		struct sequence s;

		rc = sequence_read(v, at, &work, &s);
		if (rc)
			break;
		if (s.whole && s.number > best->number)
			*best = s;
		if (!s.number)
			at += VHDX_PAGE;
		else if (s.end <= at)
			break; /* round the ring */
		else
			at = s.end;
	}
	return rc;
}

/* ---- replaying into memory ---- */

static bool place_ok(const struct vhdx *v, uint64_t off, uint64_t len)
{
	return off >= VHDX_MB && range_ok(off, len, INT64_MAX) &&
	       !range_overlap(off, len, v->log_off, v->log_len);
}

static int page_put(struct vhdx *v, uint64_t off, const struct vhdx_log_desc *d,
		    const struct vhdx_log_data *data)
{
	struct meta_page *p;
	int rc = meta_page_get(&v->m.pages, off, &p);

	if (rc)
		return rc;
	if (data) {
		memcpy(p->data, d->leading, 8);
		memcpy(p->data + 8, data->data, sizeof(data->data));
		memcpy(p->data + VHDX_PAGE - 4, d->trailing, 4);
	} else {
		memset(p->data, 0, VHDX_PAGE);
	}
	meta_page_dirty(&v->m.pages, p);
	return 0;
}

static int entry_apply(struct vhdx *v, const uint8_t *raw, uint64_t *zeroed)
{
	const struct vhdx_log_entry *e = (const void *)raw;
	uint64_t n = le32_get(e->n_desc);
	const struct vhdx_log_data *data =
		(const void *)(raw + desc_pages(n) * VHDX_PAGE);
	int rc = 0;

	for (uint64_t i = 0; i < n && !rc; i++) {
		const struct vhdx_log_desc *d = desc_at(raw, i);
		bool is_data = !memcmp(d->mark, "desc", 4);
		uint64_t off = le64_get(d->off);
		uint64_t len = is_data ? VHDX_PAGE : load_u64(d->leading);

		if (!place_ok(v, off, len) ||
		    (!is_data && len / VHDX_PAGE > MAX_ZEROED - *zeroed))
			return -EINVAL;
		if (is_data) {
			rc = page_put(v, off, d, data++);
			continue;
		}
		*zeroed += len / VHDX_PAGE;
		for (uint64_t at = 0; at < len && !rc; at += VHDX_PAGE)
			rc = page_put(v, off + at, NULL, NULL);
	}
	return rc;
}

static int sequence_apply(struct vhdx *v, const struct sequence *s)
{
	uint64_t work = 2 * v->log_len, at = s->tail, zeroed = 0;

	for (;;) {
		int rc;
		uint8_t *raw = entry_read(v, at, &work, &rc);
		uint32_t len = raw ? le32_get(((struct vhdx_log_entry *)raw)->len) : 0;

		if (!raw)
			return rc ? rc : -EIO;
		rc = entry_apply(v, raw, &zeroed);
		free(raw);
		v->replayed++;
		if (rc || at == s->head)
			return rc;
		at = ring_add(v, at, len);
	}
}

int vhdx_log_read(struct vhdx *v, struct err *err)
{
	const char *path = v->img->path;
	struct sequence s;
	int rc;

	v->log_sequence = 1;
	if (guid_is_zero(&v->header.log))
		return 0;
	rc = sequence_find(v, &s);
	if (rc)
		return err_sys(err, -rc, "cannot read the log of '%s'", path);
	if (!s.number)
		return 0; /* it was begun, and nothing was written */
	if (file_size(v->file) < s.flushed)
		return err_set(err, EINVAL,
			       "'%s' is cut: it has %llu bytes, and had %llu when its "
			       "log was written",
			       path, (unsigned long long)file_size(v->file),
			       (unsigned long long)s.flushed);
	rc = sequence_apply(v, &s);
	if (rc)
		return err_sys(err, -rc, "cannot replay the log of '%s'", path);
	v->log_sequence = s.number + 1;
	v->log_at = s.end;
	v->replay_file_len = s.last;
	return 0;
}

/* Is the page in a table? */
static bool page_in_tables(struct vhdx *v, uint64_t off)
{
	if (range_overlap(off, VHDX_PAGE, v->bat_off, v->bat_len) ||
	    range_overlap(off, VHDX_PAGE, v->meta_off, v->meta_len))
		return true;
	if (!v->img->has_backing)
		return false;
	for (uint64_t b = 0; b < v->n_blocks; b += v->chunk_ratio) {
		uint64_t e;

		if (!vhdx_entry(v, vhdx_bitmap_index(v, b), &e) &&
		    VHDX_STATE(e) == VHDX_PRESENT && off / VHDX_MB == VHDX_MIB(e))
			return true;
	}
	return false;
}

int vhdx_log_check_places(struct vhdx *v, struct err *err)
{
	struct meta_list l;
	int rc;

	if (!v->replayed)
		return 0;
	rc = meta_list_take(&v->m.pages, &l);
	if (rc)
		return err_set(err, ENOMEM, "no memory to open '%s'", v->img->path);
	for (size_t i = 0; i < l.n && !rc; i++)
		if (!page_in_tables(v, l.v[i].off))
			rc = err_set(err, EROFS,
				     "the log of '%s' changes more than tables: it can "
				     "be read when that is done, open it for writing",
				     v->img->path);
	meta_list_done(&v->m.pages, &l, true); /* they stay in memory */
	meta_list_free(&l);
	return rc;
}

/* ---- writing ---- */

size_t vhdx_log_room(const struct vhdx *v)
{
	uint64_t n = v->log_len / VHDX_PAGE - 1;

	while (n > 1 && desc_pages(n) + n > v->log_len / VHDX_PAGE)
		n--;
	return n;
}

static void desc_fill(struct vhdx_log_desc *d, struct vhdx_log_data *p,
		      const struct meta_copy *c, uint64_t sequence)
{
	memcpy(d->mark, "desc", 4);
	memcpy(d->leading, c->data, 8);
	memcpy(d->trailing, c->data + VHDX_PAGE - 4, 4);
	d->off = le64_make(c->off);
	d->sequence = le64_make(sequence);
	memcpy(p->mark, "data", 4);
	p->sequence_high = le32_make((uint32_t)(sequence >> 32));
	memcpy(p->data, c->data + 8, sizeof(p->data));
	p->sequence_low = le32_make((uint32_t)sequence);
}

static void entry_fill(const struct vhdx *v, uint8_t *raw, uint64_t len,
		       const struct meta_copy *c, size_t n)
{
	struct vhdx_log_entry *e = (void *)raw;
	uint64_t pages = desc_pages(n);

	memcpy(e->mark, "loge", 4);
	e->len = le32_make((uint32_t)len);
	e->tail = le32_make((uint32_t)v->log_at); /* all before it is in place */
	e->sequence = le64_make(v->log_sequence);
	e->n_desc = le32_make((uint32_t)n);
	e->log = v->log_id;
	e->flushed_len = e->last_len = le64_make(v->log_file_len);
	for (size_t i = 0; i < n; i++)
		desc_fill((struct vhdx_log_desc *)(e + 1) + i,
			  (struct vhdx_log_data *)(raw + (pages + i) * VHDX_PAGE),
			  &c[i], v->log_sequence);
	e->checksum = le32_make(
		vhdx_checksum(raw, len, offsetof(struct vhdx_log_entry, checksum)));
}

int vhdx_log_write(struct vhdx *v, const struct meta_list *l, size_t first, size_t n)
{
	struct meta_list part = {.v = l->v + first, .n = n, .size = l->size};
	uint64_t len = (desc_pages(n) + n) * VHDX_PAGE;
	uint8_t *raw = mem_new(len, 1);
	int rc = raw ? 0 : -ENOMEM;

	/* What the entry before changed must be in place before this one takes its part. */
	if (!rc && v->in_place)
		rc = file_sync(v->file);
	if (!rc) {
		v->in_place = false;
		if (v->log_at + len > v->log_len)
			v->log_at = 0;
		entry_fill(v, raw, len, part.v, n);
		rc = file_write(v->file, raw, v->log_off + v->log_at, len);
	}
	if (!rc)
		rc = file_sync(v->file);
	free(raw);
	if (!rc && !guid_same(&v->header.log, &v->log_id)) {
		v->header.log = v->log_id; /* from now on the log counts */
		rc = vhdx_header_update(v);
	}
	if (rc)
		return rc;
	v->log_at = (v->log_at + len) % v->log_len;
	v->log_sequence++;
	v->in_place = true;
	return meta_list_write(v->file, &part);
}

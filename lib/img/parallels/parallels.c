/*
 * img/parallels/parallels.c - one file of Parallels' and OpenVZ's (ploop) expanding disk images, versions 1 and 2: header,
 * mapping, new blocks. The layout is docs/interop/parallels of QEMU and OpenVZ's ploop1_image.h. Opening and
 * closing: one thread; the rest: any.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parallels/parallels_int.h"

static bool has_magic(const void *head)
{
	return !memcmp(head, PARALLELS_V1, 16) || !memcmp(head, PARALLELS_V2, 16);
}

bool parallels_is_file(const void *head, size_t len)
{
	const struct parallels_header *h = head;

	return len >= sizeof(*h) && has_magic(h) && le32_get(h->version) == 2;
}

/* ---- opening and closing ---- */

static int take_header(struct parallels *p, struct err *err)
{
	const char *path = p->path;
	bool ext = !memcmp(p->h.magic, PARALLELS_V2, 16);
	uint64_t sectors = le64_get(p->h.sectors), table;

	if (!has_magic(&p->h) || le32_get(p->h.version) != 2)
		return err_set(err, EINVAL, "'%s' is no Parallels image", path);
	if (!ext)
		sectors = (uint32_t)sectors;
	p->n = le32_get(p->h.n);
	p->block = le32_get(p->h.block) * 512ull;
	p->factor = ext ? p->block : 512;
	p->data_off = le32_get(p->h.data_off) * 512ull;
	p->unclean = le32_get(p->h.in_use) == PARALLELS_IN_USE;
	p->closed = p->unclean ? 0 : le32_get(p->h.in_use);
	if (!p->block || p->block > PARALLELS_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "'%s' is damaged: blocks of %llu bytes, up to 256 MiB "
			       "are possible",
			       path, (unsigned long long)p->block);
	if (p->n > PARALLELS_MAX_BAT || sectors > INT64_MAX / 1024 ||
	    sectors * 512 > p->n * p->block)
		return err_set(err, EINVAL,
			       "'%s' is damaged: %llu sectors in %u blocks of %llu "
			       "bytes",
			       path, (unsigned long long)sectors, p->n,
			       (unsigned long long)p->block);
	table = sizeof(p->h) + p->n * 4ull;
	if (!p->data_off)
		p->data_off = align_up(table, 512);
	if (table > p->file_len || p->data_off < table)
		return err_set(err, EINVAL,
			       "'%s' is damaged: a table of %u blocks, data at %llu, "
			       "file of %llu bytes",
			       path, p->n, (unsigned long long)p->data_off,
			       (unsigned long long)p->file_len);
	p->size = sectors * 512;
	return 0;
}

/* Written to are only images that a check finds nothing in. */
static int check_writable(struct parallels *p, struct err *err)
{
	const char *path = p->path;
	struct img_check c = {0};
	int rc;

	if (!is_pow2(p->block))
		return err_set(err, ENOTSUP,
			       "'%s' has blocks of %llu bytes, no power of two: it can "
			       "be read, not written; convert it first",
			       path, (unsigned long long)p->block);
	if (p->repair)
		return 0;
	if (p->unclean)
		return err_set(
			err, EIO,
			"'%s' is marked as in use: a program has it open, or did "
			"not close it: open it read-only, or repair it first",
			path);
	if (le64_get(p->h.ext_off))
		return err_set(err, ENOTSUP,
			       "'%s' has an extension (dirty bitmaps) that would not "
			       "know of what is written: it can be read; convert it",
			       path);
	rc = parallels_file_check(p, &c, err);
	if (!rc && c.corruptions)
		return err_set(err, EIO,
			       "'%s' is damaged in %llu places: repair it first", path,
			       (unsigned long long)c.corruptions);
	return rc;
}

static int file_begin(struct parallels *p, bool writable, struct err *err)
{
	int rc = meta_pages_init(&p->pages, p->file, 512);

	if (!rc)
		rc = file_read(p->file, &p->h, 0, sizeof(p->h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", p->path);
	rc = take_header(p, err);
	if (rc)
		return rc;
	p->unit = is_pow2(p->block) ? (uint32_t)p->block : 512;
	p->next = max_u64(p->file_len, p->data_off);
	p->next = (p->next + p->factor - 1) / p->factor * p->factor;
	return writable ? check_writable(p, err) : 0;
}

struct parallels *parallels_file_open(struct img_file *file, const char *path,
				      bool writable, bool repair, struct err *err)
{
	struct parallels *p = NEW(struct parallels);

	if (!p) {
		err_set(err, ENOMEM, "no memory to open '%s'", path);
		return NULL;
	}
	p->file = file;
	p->path = path;
	p->repair = repair;
	p->file_len = file_size(file);
	pthread_mutex_init(&p->flush_lock, NULL);
	pthread_mutex_init(&p->lock, NULL);
	if (!file_begin(p, writable, err))
		return p;
	parallels_file_close(p, false);
	return NULL;
}

int parallels_file_close(struct parallels *p, bool write)
{
	int rc = 0;

	if (!p)
		return 0;
	if (p->began && write) {
		rc = parallels_write_all(p, true);
		if (!rc)
			rc = parallels_mark(p, false);
	}
	meta_pages_fini(&p->pages);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->flush_lock);
	free(p);
	return rc;
}

/* ---- mapping ---- */

int parallels_entry(struct parallels *p, uint64_t i, uint64_t *off)
{
	le32 e;
	int rc;

	if (i >= p->n)
		return -EIO;
	rc = meta_read(&p->pages, sizeof(p->h) + i * 4, &e, sizeof(e));
	*off = le32_get(e) * p->factor;
	return rc;
}

int parallels_entry_set(struct parallels *p, uint64_t i, uint64_t off)
{
	le32 e = le32_make((uint32_t)(off / p->factor));

	return i >= p->n ? -EIO
			 : meta_write(&p->pages, sizeof(p->h) + i * 4, &e, sizeof(e));
}

static int map_locked(struct parallels *p, uint64_t off, uint64_t len,
		      struct img_extent *e)
{
	uint64_t i = off / p->block, in = off % p->block, n, at, more;
	int rc = parallels_entry(p, i, &at);

	if (rc)
		return rc;
	if (at && (at < p->data_off || at + in >= p->file_len))
		return -EIO;
	for (n = p->block - in; n < len; n += p->block)
		if (parallels_entry(p, ++i, &more) || !at != !more ||
		    (at && (more != at + in + n || more >= p->file_len)))
			break;
	*e = (struct img_extent){
		.kind = at ? IMG_DATA : IMG_ZERO,
		.writable = at,
		.len = min_u64(n, len),
		.file = p->file,
		.file_off = at + in,
		.grain = p->unit,
	};
	return 0;
}

int parallels_file_map(struct parallels *p, uint64_t off, uint64_t len,
		       struct img_extent *e)
{
	int rc;

	pthread_mutex_lock(&p->lock);
	rc = map_locked(p, off, len, e);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

/* ---- writing back ---- */

int parallels_mark(struct parallels *p, bool in_use)
{
	int rc;

	p->h.in_use = le32_make(in_use ? PARALLELS_IN_USE : p->closed);
	rc = file_write(p->file, &p->h, 0, sizeof(p->h));
	/* Others read the table, whose beginning is in the same page. */
	pthread_mutex_lock(&p->lock);
	if (!rc)
		rc = meta_write(&p->pages, 0, &p->h, sizeof(p->h));
	pthread_mutex_unlock(&p->lock);
	return rc ? rc : file_sync(p->file);
}

int parallels_file_begin(struct parallels *p)
{
	p->h.flags = le32_make(le32_get(p->h.flags) & ~1u); /* "empty" */
	p->began = true;
	return parallels_mark(p, true);
}

int parallels_write_all(struct parallels *p, bool durable)
{
	struct meta_list l;
	int rc;

	pthread_mutex_lock(&p->flush_lock);
	pthread_mutex_lock(&p->lock);
	rc = meta_list_take(&p->pages, &l);
	pthread_mutex_unlock(&p->lock);
	if (!rc && (l.n || durable))
		rc = file_sync(p->file);
	if (!rc)
		rc = meta_list_write(p->file, &l);
	if (!rc && l.n && durable)
		rc = file_sync(p->file);
	pthread_mutex_lock(&p->lock);
	meta_list_done(&p->pages, &l, rc);
	pthread_mutex_unlock(&p->lock);
	meta_list_free(&l);
	pthread_mutex_unlock(&p->flush_lock);
	return rc;
}

/* ---- new blocks ---- */

static int step_begin(struct parallels *p)
{
	bool pressed;

	pthread_mutex_lock(&p->lock);
	pressed = meta_pages_pressed(&p->pages);
	pthread_mutex_unlock(&p->lock);
	return pressed ? parallels_write_all(p, false) : 0;
}

int parallels_file_alloc(struct parallels *p, uint64_t len, struct img_place *place)
{
	uint64_t old;
	int rc = step_begin(p);

	if (rc)
		return rc;
	pthread_mutex_lock(&p->lock);
	old = p->file_len;
	if ((p->next + len) / p->factor > UINT32_MAX)
		rc = -EFBIG;
	else if (file_is_device(p->file))
		rc = p->next + len <= old ? 0 : -ENOSPC;
	else if (p->next + len > old && !(rc = file_truncate(p->file, p->next + len)))
		p->file_len = p->next + len;
	*place = (struct img_place){
		.len = len,
		.file_off = p->next,
		.file = p->file,
		.zero = p->next >= old,
		.fresh = true,
	};
	if (!rc)
		p->next += len;
	pthread_mutex_unlock(&p->lock);
	return rc;
}

void parallels_file_unalloc(struct parallels *p, const struct img_place *place)
{
	pthread_mutex_lock(&p->lock);
	if (p->next == place->file_off + place->len)
		p->next = place->file_off;
	pthread_mutex_unlock(&p->lock);
}

int parallels_file_link(struct parallels *p, uint64_t off,
			const struct img_place *place)
{
	uint64_t first = off / p->block, n = place->len / p->block, i = 0;
	int rc = step_begin(p);

	if (rc)
		return rc;
	pthread_mutex_lock(&p->lock);
	for (; i < n && !rc; i++)
		rc = parallels_entry_set(p, first + i, place->file_off + i * p->block);
	/* What was set is in memory: setting it again cannot fail. */
	for (; rc && i > 1; i--)
		parallels_entry_set(p, first + i - 2, 0);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

/* img/parallels/check.c - checks, repairs and makes Parallels images. One thread. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/parallels/parallels_int.h"

/* ---- checking ---- */

struct block {
	uint64_t off;
	uint32_t i;
};

struct check {
	struct parallels *p;
	struct img_check *c;
	struct block *v;
	size_t n, size;
	uint64_t end; /* of the last block */
};

static int by_offset(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return x->i < y->i ? -1 : x->i > y->i;
}

static int block_add(struct check *k, uint64_t off, uint32_t i)
{
	if (k->n == k->size) {
		size_t more = k->size ? k->size * 2 : 256;
		struct block *v = mem_resize(k->v, more, sizeof(*v));

		if (!v)
			return -ENOMEM;
		k->v = v;
		k->size = more;
	}
	k->v[k->n++] = (struct block){off, i};
	k->end = max_u64(k->end, off + k->p->block);
	return 0;
}

static bool fixes(const struct check *k)
{
	return k->c->fix & IMG_FIX_ERRORS;
}

/* Blocks whose place is not in the file, or where no data can be, are let go. */
static int collect(struct check *k)
{
	struct parallels *p = k->p;
	uint64_t last = 0, off;
	int rc = 0;

	for (uint32_t i = 0; i < p->n && !rc; i++) {
		rc = parallels_entry(p, i, &off);
		if (rc || !off)
			continue;
		if (off >= p->data_off && off < p->file_len) {
			k->c->allocated_clusters++;
			k->c->fragmented_clusters += last && off != last + p->block;
			last = off;
			rc = block_add(k, off, i);
			continue;
		}
		check_say(k->c, "ERROR block %u is at %llu, outside the data", i,
			  (unsigned long long)off);
		k->c->corruptions++;
		if (fixes(k)) {
			rc = parallels_entry_set(p, i, 0);
			k->c->corruptions_fixed += !rc;
		}
	}
	return rc;
}

/* A block's content at a place of its own. */
static int block_part(struct check *k, const struct block *b, uint8_t *buf)
{
	struct parallels *p = k->p;
	uint64_t to = max_u64(p->next, k->end);
	int rc;

	to = (to + p->factor - 1) / p->factor * p->factor;
	if ((to + p->block) / p->factor > UINT32_MAX)
		return -EFBIG;
	rc = file_read(p->file, buf, b->off, p->block);
	if (!rc)
		rc = file_write(p->file, buf, to, p->block);
	if (!rc)
		rc = parallels_entry_set(p, b->i, to);
	if (rc)
		return rc;
	p->next = k->end = to + p->block;
	p->file_len = max_u64(p->file_len, p->next);
	k->c->corruptions_fixed++;
	return 0;
}

static int find_twice(struct check *k)
{
	uint8_t *buf = fixes(k) ? mem_new(k->p->block, 1) : NULL;
	uint64_t end = 0;
	int rc = fixes(k) && !buf ? -ENOMEM : 0;

	if (k->n)
		qsort(k->v, k->n, sizeof(*k->v), by_offset);
	for (size_t i = 0; i < k->n && !rc; i++) {
		const struct block *b = &k->v[i];

		if (b->off < end) {
			check_say(k->c, "ERROR block %u is where another one is: %llu",
				  b->i, (unsigned long long)b->off);
			k->c->corruptions++;
			if (fixes(k))
				rc = block_part(k, b, buf);
		} else {
			end = b->off + k->p->block;
		}
	}
	free(buf);
	return rc;
}

/* What is behind the last block belongs to nobody. */
static int find_leaks(struct check *k)
{
	struct parallels *p = k->p;
	uint64_t end = max_u64(k->end, p->data_off);
	int rc;

	k->c->image_end_offset = end;
	if (file_is_device(p->file)) /* the file's end is none of the image */
		p->next = (end + p->factor - 1) / p->factor * p->factor;
	if (p->file_len <= end || file_is_device(p->file) || le64_get(p->h.ext_off))
		return 0;
	k->c->leaks = (p->file_len - end + p->block - 1) / p->block;
	check_say(k->c, "%llu bytes behind the last block are not used",
		  (unsigned long long)(p->file_len - end));
	if (!(k->c->fix & IMG_FIX_LEAKS))
		return 0;
	rc = file_truncate(p->file, end);
	if (rc)
		return rc;
	p->file_len = end;
	p->next = (end + p->factor - 1) / p->factor * p->factor;
	k->c->leaks_fixed = k->c->leaks;
	return 0;
}

static int check_mark(struct check *k)
{
	int rc;

	if (!k->p->unclean)
		return 0;
	check_say(k->c, "ERROR the image was not closed");
	k->c->corruptions++;
	if (!fixes(k))
		return 0;
	rc = parallels_write_all(k->p, true);
	if (!rc)
		rc = parallels_mark(k->p, false);
	k->p->unclean = rc;
	k->c->corruptions_fixed += !rc;
	return rc;
}

int parallels_file_check(struct parallels *p, struct img_check *c, struct err *err)
{
	struct check k = {.p = p, .c = c};
	int rc;

	c->total_clusters = k.p->n;
	pthread_mutex_lock(&k.p->lock);
	rc = collect(&k);
	if (!rc)
		rc = find_twice(&k);
	if (!rc)
		rc = find_leaks(&k);
	pthread_mutex_unlock(&k.p->lock);
	if (!rc && c->corruptions_fixed)
		rc = parallels_write_all(k.p, true);
	if (!rc)
		rc = check_mark(&k);
	free(k.v);
	return rc ? err_sys(err, -rc, "cannot check '%s'", p->path) : 0;
}

/* ---- making ---- */

/* clang-format off */
const struct img_option_desc parallels_options[] = {
	{"cluster_size", OPTION_SIZE, NULL, "1M", "block size: a power of two, 4k to 256M"},
	{0},
};
/* clang-format on */

uint64_t parallels_block_size(const struct img_create_opts *opts)
{
	return img_option_number(opts->options, opts->n_options, "cluster_size",
				 opts->cluster_size ? opts->cluster_size : 1u << 20);
}

int parallels_file_create(struct img_file *f, const struct img_create_opts *opts,
			  struct err *err)
{
	uint64_t block = parallels_block_size(opts);
	uint64_t size = align_up(opts->size, 512), n, data;
	struct parallels_header h = {0};
	int rc;

	if (!is_pow2(block) || block < 4096 || block > PARALLELS_MAX_BLOCK)
		return err_set(err, EINVAL,
			       "blocks of %llu bytes: a power of two from 4 KiB to 256 "
			       "MiB is needed",
			       (unsigned long long)block);
	n = size / block + !!(size % block);
	if (opts->size > INT64_MAX / 2 || n > PARALLELS_MAX_BAT)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a Parallels image with blocks "
			       "of %llu bytes: use larger blocks",
			       (unsigned long long)opts->size,
			       (unsigned long long)block);
	data = align_up(sizeof(h) + n * 4, block);
	memcpy(h.magic, PARALLELS_V2, 16);
	h.version = le32_make(2);
	h.heads = le32_make(16);
	h.cylinders = le32_make((uint32_t)min_u64(UINT32_MAX, size / 512 / 16 / 32));
	h.block = le32_make((uint32_t)(block / 512));
	h.n = le32_make((uint32_t)n);
	h.sectors = le64_make(size / 512);
	h.data_off = le32_make((uint32_t)(data / 512));
	rc = file_is_device(f) ? file_zero(f, 0, data, false) : file_truncate(f, data);
	if (!rc)
		rc = file_write(f, &h, 0, sizeof(h));
	return rc ? err_sys(err, -rc, "cannot write '%s'", file_path(f)) : 0;
}

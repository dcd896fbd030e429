/*
 * img/other/cloop.c - compressed loop images of Knoppix, format 2.0, to be read: zlib blocks and an index of where each
 * begins. Any thread.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "img/img_int.h"
#include "img/meta.h"

struct cloop_header {
	char script[128];
	be32 block, n;
};
static_assert(sizeof(struct cloop_header) == 136, "as the module has it");

#define MAX_BLOCK (64u << 20)

struct cloop {
	uint64_t file_len;
	uint32_t block, n;
	pthread_mutex_t lock;
	struct meta_pages pages; /* the index */
};

static bool is_cloop(const void *head)
{
	static const char magic[] = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0";

	return !memcmp(head, magic, sizeof(magic) - 1);
}

static bool cloop_probe(const struct img_probe *p)
{
	return p->head_len >= sizeof(struct cloop_header) && is_cloop(p->head);
}

static int cloop_open(struct img *img, struct err *err)
{
	struct cloop *c = NEW(struct cloop);
	struct cloop_header h;
	int rc;

	if (!c)
		return err_set(err, ENOMEM, "no memory to open '%s'", img->path);
	img->priv = c;
	c->file_len = file_size(img->file);
	pthread_mutex_init(&c->lock, NULL);
	rc = meta_pages_init(&c->pages, img->file, 512);
	if (!rc)
		rc = file_read(img->file, &h, 0, sizeof(h));
	if (rc)
		return err_sys(err, -rc, "cannot read '%s'", img->path);
	if (!is_cloop(&h))
		return err_set(err, EINVAL, "'%s' is no cloop image of format 2.0",
			       img->path);
	c->block = be32_get(h.block);
	c->n = be32_get(h.n);
	if (!c->block || c->block % 512 || c->block > MAX_BLOCK)
		return err_set(err, EINVAL,
			       "'%s' is damaged: blocks of %u bytes, a multiple of 512 "
			       "up to 64 MiB is needed",
			       img->path, c->block);
	if (!range_ok(sizeof(h), (c->n + 1ull) * 8, c->file_len))
		return err_set(err, EINVAL,
			       "'%s' is damaged: an index of %u blocks in a file of "
			       "%llu bytes",
			       img->path, c->n, (unsigned long long)c->file_len);
	img->size = (uint64_t)c->n * c->block;
	img->unit = img->zero_unit = 512;
	return 0;
}

static int cloop_close(struct img *img)
{
	struct cloop *c = img->priv;

	if (!c)
		return 0;
	meta_pages_fini(&c->pages);
	pthread_mutex_destroy(&c->lock);
	free(c);
	img->priv = NULL;
	return 0;
}

static int index_get(struct cloop *c, uint64_t i, uint64_t *off)
{
	be64 e;
	int rc = meta_read(&c->pages, sizeof(struct cloop_header) + i * 8, &e,
			   sizeof(e));

	*off = be64_get(e);
	return rc;
}

static int cloop_map(struct img *img, uint64_t off, uint64_t len, struct img_extent *e)
{
	struct cloop *c = img->priv;
	uint64_t i = off / c->block, in = off % c->block, from = 0, to = 0;
	int rc;

	if (i >= c->n)
		return -EIO;
	pthread_mutex_lock(&c->lock);
	rc = index_get(c, i, &from);
	if (!rc)
		rc = index_get(c, i + 1, &to);
	pthread_mutex_unlock(&c->lock);
	if (rc)
		return rc;
	/* What does not shrink grows by a few bytes. */
	if (from >= to || to > c->file_len || to - from > 2ull * c->block)
		return -EIO;
	*e = (struct img_extent){
		.kind = IMG_PACKED,
		.len = min_u64(len, c->block - in),
		.file = img->file,
		.file_off = from,
		.codec = &codec_block_zlib,
		.packed_len = (uint32_t)(to - from),
		.unit_len = c->block,
		.unit_off = (uint32_t)in,
	};
	return 0;
}

static void cloop_info(struct img *img, struct img_info *info)
{
	const struct cloop *c = img->priv;

	info->compressed = true;
	info->compression = "zlib";
	info->cluster_bytes = c->block;
}

const struct img_format img_cloop = {
	.name = "cloop",
	.title = "compressed loop image",
	.probe = cloop_probe,
	.open = cloop_open,
	.close = cloop_close,
	.map = cloop_map,
	.info = cloop_info,
};

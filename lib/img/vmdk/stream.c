/*
 * img/vmdk/stream.c - writes streamOptimized VMDK images from their beginning to their end: header, descriptor,
 * compressed grains with their tables between them, the directory, a footer. One thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"
#include "base/mem.h"
#include "img/vmdk/vmdk_int.h"

enum { GRAIN = 128, GTES = 512, DESC_LEN = 20 };
#define GRAIN_BYTES (GRAIN * 512u)
#define MAX_SIZE    (2ull << 40)

struct vmdk_stream {
	struct img_file *file; /* borrowed */
	uint64_t at;           /* bytes written */
	uint64_t next;         /* the first grain that may come */
	le32 *gd;
	uint32_t n_gd;
	le32 table[GTES];
	bool table_used;
	struct vmdk_header h;
	uint8_t sector[512 + GRAIN_BYTES + 2048];
};

/* Adds to the end, filled up to whole sectors. */
static int put(struct vmdk_stream *s, const void *data, size_t len)
{
	static const uint8_t zeros[512];
	int rc = file_write(s->file, data, s->at, len);

	s->at += len;
	if (!rc && len % 512) {
		rc = file_write(s->file, zeros, s->at, 512 - len % 512);
		s->at += 512 - len % 512;
	}
	return rc;
}

static int put_marker(struct vmdk_stream *s, uint32_t type, uint64_t sectors)
{
	struct vmdk_marker m = {.val = le64_make(sectors), .type = le32_make(type)};

	return put(s, &m, sizeof(m));
}

/* The table that is being filled, `i`, is complete. */
static int table_end(struct vmdk_stream *s, uint64_t i)
{
	int rc;

	if (!s->table_used)
		return 0;
	rc = put_marker(s, VMDK_MARK_TABLE, sizeof(s->table) / 512);
	if (!rc && s->at / 512 > UINT32_MAX)
		rc = -EFBIG;
	if (rc)
		return rc;
	s->gd[i] = le32_make((uint32_t)(s->at / 512));
	rc = put(s, s->table, sizeof(s->table));
	memset(s->table, 0, sizeof(s->table));
	s->table_used = false;
	return rc;
}

static int put_grain(struct vmdk_stream *s, uint64_t grain, const void *data,
		     size_t len)
{
	le64 first = le64_make(grain * GRAIN);
	le32 n = le32_make((uint32_t)len);
	int rc = 0;

	if (grain < s->next || grain / GTES >= s->n_gd ||
	    len + VMDK_GRAIN_HEAD > sizeof(s->sector))
		return -EINVAL;
	if (s->next && grain / GTES != (s->next - 1) / GTES)
		rc = table_end(s, (s->next - 1) / GTES);
	if (!rc && s->at / 512 > UINT32_MAX)
		rc = -EFBIG;
	if (rc)
		return rc;
	s->table[grain % GTES] = le32_make((uint32_t)(s->at / 512));
	s->table_used = true;
	s->next = grain + 1;
	memcpy(s->sector, &first, sizeof(first));
	memcpy(s->sector + 8, &n, sizeof(n));
	memcpy(s->sector + VMDK_GRAIN_HEAD, data, len);
	return put(s, s->sector, len + VMDK_GRAIN_HEAD);
}

static int finish(struct vmdk_stream *s)
{
	uint64_t sectors = (s->n_gd * 4ull + 511) / 512;
	int rc = s->next ? table_end(s, (s->next - 1) / GTES) : 0;

	if (!rc)
		rc = put_marker(s, VMDK_MARK_GD, sectors);
	s->h.gd_off = le64_make(s->at / 512);
	if (!rc)
		rc = put(s, s->gd, sectors * 512);
	if (!rc)
		rc = put_marker(s, VMDK_MARK_FOOTER, 1);
	if (!rc)
		rc = put(s, &s->h, sizeof(s->h));
	return rc ? rc : put_marker(s, VMDK_MARK_END, 0);
}

static int put_head(struct vmdk_stream *s, const char *text)
{
	uint64_t fill = GRAIN * 512 - 512 - DESC_LEN * 512;
	char *area = mem_new(DESC_LEN * 512 + fill, 1);
	int rc = area ? 0 : -ENOMEM;

	if (!rc)
		memcpy(area, text, strlen(text));
	if (!rc)
		rc = put(s, &s->h, sizeof(s->h));
	if (!rc)
		rc = put(s, area, DESC_LEN * 512 + fill);
	free(area);
	return rc;
}

static void fill_header(struct vmdk_stream *s, uint64_t size)
{
	s->h = (struct vmdk_header){
		.version = le32_make(3),
		.flags = le32_make(VMDK_FLAG_NEWLINES | VMDK_FLAG_COMPRESSED |
				   VMDK_FLAG_MARKERS),
		.capacity = le64_make(size / 512),
		.grain = le64_make(GRAIN),
		.desc_off = le64_make(1),
		.desc_len = le64_make(DESC_LEN),
		.gtes = le32_make(GTES),
		.gd_off = le64_make(VMDK_GD_AT_END),
		.overhead = le64_make(GRAIN),
		.codec = le16_make(1),
	};
	memcpy(s->h.magic, "KDMV", 4);
	memcpy(s->h.newlines, "\n \r\n", 4);
}

static void stream_free(struct vmdk_stream *s)
{
	if (s)
		free(s->gd);
	free(s);
}

static int stream_new(struct vmdk_stream **out, struct img_target *t,
		      const struct img_create_opts *opts, struct err *err)
{
	struct vmdk_stream *s = NEW(struct vmdk_stream);
	struct vmdk_made m = {.create_type = "streamOptimized"};
	char line[400], *text;
	const char *name;
	int rc;

	*out = s;
	if (!s)
		return err_set(err, ENOMEM, "no memory to create '%s'", t->path);
	if (opts->backing_path)
		return err_set(err, EINVAL, "a streamOptimized image has no parent");
	if (opts->size > MAX_SIZE)
		return err_set(err, EFBIG,
			       "%llu bytes do not fit in a streamOptimized image, at "
			       "most %llu do",
			       (unsigned long long)opts->size,
			       (unsigned long long)MAX_SIZE);
	rc = vmdk_target_name(t, &name, err);
	if (!rc)
		rc = vmdk_made_fill(&m, t, opts, err);
	if (rc)
		return rc;
	snprintf(line, sizeof(line), "RW %llu SPARSE \"%.255s\"\n",
		 (unsigned long long)(m.size / 512), t->stream ? "disk.vmdk" : name);
	m.lines = line;
	s->file = t->file;
	s->n_gd = (uint32_t)((m.size + (uint64_t)GRAIN_BYTES * GTES - 1) /
			     ((uint64_t)GRAIN_BYTES * GTES));
	s->gd = mem_new(align_up(s->n_gd, 128) + 1, sizeof(*s->gd));
	text = vmdk_desc_make(&m);
	if (!s->gd || !text) {
		free(text);
		return err_set(err, ENOMEM, "no memory to create '%s'", t->path);
	}
	fill_header(s, m.size);
	rc = put_head(s, text);
	free(text);
	return rc ? err_sys(err, -rc, "cannot write '%s'", t->path) : 0;
}

/* ---- an empty one ---- */

int vmdk_stream_create(struct img_target *t, const struct img_create_opts *opts,
		       struct err *err)
{
	struct vmdk_stream *s;
	int rc = stream_new(&s, t, opts, err);

	if (!rc && (rc = finish(s)))
		err_sys(err, -rc, "cannot write '%s'", t->path);
	stream_free(s);
	return rc;
}

/* ---- one that is filled ---- */

int vmdk_stream_begin(struct img *img, const struct img_create_opts *opts,
		      const struct img_plan *plan, struct err *err)
{
	const char *sub =
		img_option_text(opts->options, opts->n_options, "subformat", NULL);
	struct vmdk *v;
	int rc;

	(void)plan;
	/* To a pipe there is no other kind. */
	if (sub ? strcasecmp(sub, "streamOptimized") : !img->target->stream)
		return -EOPNOTSUPP;
	img->priv = v = NEW(struct vmdk);
	if (!v)
		return err_set(err, ENOMEM, "no memory to create '%s'", img->path);
	v->img = img;
	pthread_mutex_init(&v->flush_lock, NULL);
	pthread_mutex_init(&v->lock, NULL);
	rc = stream_new(&v->stream, (struct img_target *)img->target, opts, err);
	if (rc)
		return rc;
	img->append = v->stream->at;
	img->size = align_up(opts->size, 512);
	img->unit = img->zero_unit = GRAIN_BYTES;
	img->one_pass = true;
	return 0;
}

const struct codec_block *vmdk_packer(struct img *img, uint32_t *unit, uint32_t *room,
				      int *level)
{
	const struct vmdk *v = img->priv;

	*unit = GRAIN_BYTES;
	*room = GRAIN_BYTES + 1024;
	*level = 0;
	return v->stream ? &codec_block_zlib : NULL;
}

int vmdk_write_packed(struct img *img, uint64_t off, const void *data, size_t len)
{
	struct vmdk *v = img->priv;
	int rc;

	if (!v->stream)
		return -EOPNOTSUPP;
	if (off % GRAIN_BYTES)
		return -EINVAL;
	rc = put_grain(v->stream, off / GRAIN_BYTES, data, len);
	img->append = v->stream->at;
	return rc;
}

int vmdk_stream_close(struct vmdk *v)
{
	int rc = v->img->discard_all ? 0 : finish(v->stream);

	stream_free(v->stream);
	v->stream = NULL;
	return rc;
}

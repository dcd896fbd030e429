/* codec/block.c - blocks of known size: deflate (RFC 1951), zstd (RFC 8878). Any thread. */
#include "codec/block.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/mem.h"

/* Each is made when it is first needed. */
struct codec_work {
	struct libdeflate_decompressor *inflate;
	struct libdeflate_compressor *compress;
	int compress_level;
	ZSTD_DCtx *unzstd;
	ZSTD_CCtx *zstd;
	z_stream deflate;
	int deflate_level; /* 0: not initialised */
};

struct codec_work *codec_work_new(void)
{
	return NEW(struct codec_work);
}

void codec_work_free(struct codec_work *w)
{
	if (!w)
		return;
	if (w->inflate)
		libdeflate_free_decompressor(w->inflate);
	if (w->compress)
		libdeflate_free_compressor(w->compress);
	ZSTD_freeDCtx(w->unzstd);
	ZSTD_freeCCtx(w->zstd);
	if (w->deflate_level)
		deflateEnd(&w->deflate);
	free(w);
}

/* ---- deflate ---- */

static int deflate_unpack(struct codec_work *w, const void *in, size_t in_len,
			  void *out, size_t out_len)
{
	enum libdeflate_result r;
	size_t used, got = 0;

	if (!w->inflate && !(w->inflate = libdeflate_alloc_decompressor()))
		return -ENOMEM;
	r = libdeflate_deflate_decompress_ex(w->inflate, in, in_len, out, out_len,
					     &used, &got);
	return r == LIBDEFLATE_SUCCESS && got == out_len ? 0 : -EINVAL;
}

/* libdeflate cannot be held to a small window, so this is zlib's. */
static size_t deflate_pack(struct codec_work *w, int level, const void *in,
			   size_t in_len, void *out, size_t out_len)
{
	z_stream *z = &w->deflate;

	if (level < 1 || level > 9)
		level = 6;
	if (in_len > UINT32_MAX || out_len > UINT32_MAX)
		return 0;
	if (w->deflate_level != level) {
		if (w->deflate_level)
			deflateEnd(z);
		*z = (z_stream){0};
		w->deflate_level = 0;
		if (deflateInit2(z, level, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) !=
		    Z_OK)
			return 0;
		w->deflate_level = level;
	} else {
		deflateReset(z);
	}
	z->next_in = (Bytef *)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_len;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? out_len - z->avail_out : 0;
}

/* ---- zlib ---- */

static int zlib_unpack(struct codec_work *w, const void *in, size_t in_len, void *out,
		       size_t out_len)
{
	enum libdeflate_result r;
	size_t used, got = 0;

	if (!w->inflate && !(w->inflate = libdeflate_alloc_decompressor()))
		return -ENOMEM;
	r = libdeflate_zlib_decompress_ex(w->inflate, in, in_len, out, out_len, &used,
					  &got);
	if (r != LIBDEFLATE_SUCCESS)
		return -EINVAL;
	memset((char *)out + got, 0, out_len - got);
	return 0;
}

static size_t zlib_pack(struct codec_work *w, int level, const void *in, size_t in_len,
			void *out, size_t out_len)
{
	if (level < 1 || level > 12)
		level = 6;
	if (w->compress && w->compress_level != level) {
		libdeflate_free_compressor(w->compress);
		w->compress = NULL;
	}
	if (!w->compress && !(w->compress = libdeflate_alloc_compressor(level)))
		return 0;
	w->compress_level = level;
	return libdeflate_zlib_compress(w->compress, in, in_len, out, out_len);
}

/* ---- zstd ---- */

static int zstd_unpack(struct codec_work *w, const void *in, size_t in_len, void *out,
		       size_t out_len)
{
	size_t at = 0, done = 0;

	if (!w->unzstd && !(w->unzstd = ZSTD_createDCtx()))
		return -ENOMEM;
	while (done < out_len) {
		const char *p = (const char *)in + at;
		size_t n = ZSTD_findFrameCompressedSize(p, in_len - at), got;

		if (ZSTD_isError(n))
			return -EINVAL;
		got = ZSTD_decompressDCtx(w->unzstd, (char *)out + done, out_len - done,
					  p, n);
		if (ZSTD_isError(got))
			return -EINVAL;
		done += got;
		at += n;
	}
	return 0;
}

static size_t zstd_pack(struct codec_work *w, int level, const void *in, size_t in_len,
			void *out, size_t out_len)
{
	size_t n;

	if (!w->zstd && !(w->zstd = ZSTD_createCCtx()))
		return 0;
	n = ZSTD_compressCCtx(w->zstd, out, out_len, in, in_len, level ? level : 3);
	return ZSTD_isError(n) ? 0 : n;
}

const struct codec_block codec_block_deflate = {
	.name = "zlib",
	.unpack = deflate_unpack,
	.pack = deflate_pack,
};

const struct codec_block codec_block_zlib = {
	.name = "zlib",
	.unpack = zlib_unpack,
	.pack = zlib_pack,
};

const struct codec_block codec_block_zstd = {
	.name = "zstd",
	.unpack = zstd_unpack,
	.pack = zstd_pack,
};

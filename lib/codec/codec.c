/* codec/codec.c - compression formats behind one structure. Any thread. */
#include "codec/codec.h"

#include <bzlib.h>
#include <libdeflate.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/mem.h"

/* ---- output that grows up to a bound ---- */

struct sink {
	uint8_t *p;
	size_t len, size, max;
};

/* Makes room behind len: doubles. 0, -EFBIG, -ENOMEM. */
static int sink_grow(struct sink *s, size_t at_least)
{
	size_t size = max_u64(s->size * 2, 1 << 16);
	uint8_t *p;

	if (at_least > s->max - s->len)
		return -EFBIG;
	size = min_u64(max_u64(size, s->len + at_least), s->max);
	p = mem_resize(s->p, size, 1);
	if (!p)
		return -ENOMEM;
	s->p = p;
	s->size = size;
	return 0;
}

/* Ends an unpack: hands the bytes over, or frees them. */
static int sink_end(struct sink *s, int rc, uint8_t **out, size_t *out_len)
{
	if (rc) {
		free(s->p);
		return rc;
	}
	*out = s->p;
	*out_len = s->len;
	return 0;
}

/* ---- gzip ---- */

static int gzip_unpack(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
		       size_t *out_len, size_t *in_used)
{
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	struct sink s = {.max = max_out};
	int rc = d ? sink_grow(&s, min_u64(max_out, in_len * 4 + 4096)) : -ENOMEM;

	while (!rc) {
		enum libdeflate_result r = libdeflate_gzip_decompress_ex(
			d, in, in_len, s.p, s.size, in_used, &s.len);

		if (r == LIBDEFLATE_SUCCESS)
			break;
		s.len = 0;
		if (r != LIBDEFLATE_INSUFFICIENT_SPACE)
			rc = -EINVAL;
		else if (s.size == max_out)
			rc = -EFBIG;
		else
			rc = sink_grow(&s, s.size + 1 > max_out ? max_out : s.size + 1);
	}
	if (d)
		libdeflate_free_decompressor(d);
	return sink_end(&s, rc, out, out_len);
}

/* ---- xz, lzma ---- */

static int lzma_any(lzma_stream *z, lzma_ret rc_init, const uint8_t *in, size_t in_len,
		    size_t max_out, uint8_t **out, size_t *out_len, size_t *in_used)
{
	struct sink s = {.max = max_out};
	int rc = rc_init == LZMA_OK ? 0 : -ENOMEM;

	z->next_in = in;
	z->avail_in = in_len;
	while (!rc) {
		lzma_ret r;

		if (s.len == s.size && (rc = sink_grow(&s, 1)))
			break;
		z->next_out = s.p + s.len;
		z->avail_out = s.size - s.len;
		r = lzma_code(z, LZMA_RUN);
		s.len = s.size - z->avail_out;
		if (r == LZMA_STREAM_END)
			break;
		if (r != LZMA_OK || (!z->avail_in && z->avail_out))
			rc = r == LZMA_MEM_ERROR || r == LZMA_MEMLIMIT_ERROR ? -ENOMEM
									     : -EINVAL;
	}
	*in_used = in_len - z->avail_in;
	lzma_end(z);
	return sink_end(&s, rc, out, out_len);
}

#define LZMA_MEMORY (256u << 20)

static int xz_unpack(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
		     size_t *out_len, size_t *in_used)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r = lzma_stream_decoder(&z, LZMA_MEMORY, 0);

	return lzma_any(&z, r, in, in_len, max_out, out, out_len, in_used);
}

static int lzma_unpack(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
		       size_t *out_len, size_t *in_used)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret r = lzma_alone_decoder(&z, LZMA_MEMORY);

	return lzma_any(&z, r, in, in_len, max_out, out, out_len, in_used);
}

/* ---- bzip2 ---- */

static int bzip2_unpack(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
			size_t *out_len, size_t *in_used)
{
	struct sink s = {.max = max_out};
	bz_stream z = {0};
	int rc = BZ2_bzDecompressInit(&z, 0, 0) == BZ_OK ? 0 : -ENOMEM;

	if (rc)
		return rc;
	z.next_in = (char *)in;
	z.avail_in = (unsigned)min_u64(in_len, UINT32_MAX);
	while (!rc) {
		unsigned room;
		int r;

		if (s.len == s.size && (rc = sink_grow(&s, 1)))
			break;
		room = (unsigned)min_u64(s.size - s.len, 1u << 30);
		z.next_out = (char *)s.p + s.len;
		z.avail_out = room;
		r = BZ2_bzDecompress(&z);
		s.len += room - z.avail_out;
		if (r == BZ_STREAM_END)
			break;
		if (r != BZ_OK || (!z.avail_in && z.avail_out))
			rc = r == BZ_MEM_ERROR ? -ENOMEM : -EINVAL;
	}
	*in_used = (size_t)((uint8_t *)z.next_in - in);
	BZ2_bzDecompressEnd(&z);
	return sink_end(&s, rc, out, out_len);
}

/* ---- zstd ---- */

static int zstd_unpack(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
		       size_t *out_len, size_t *in_used)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer ib = {in, in_len, 0};
	struct sink s = {.max = max_out};
	int rc = z ? 0 : -ENOMEM;

	if (z)
		ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax,
				       28); /* Linux: up to 2^27 */
	while (!rc) {
		ZSTD_outBuffer ob;
		size_t r;

		if (s.len == s.size && (rc = sink_grow(&s, 1)))
			break;
		ob = (ZSTD_outBuffer){s.p, s.size, s.len};
		r = ZSTD_decompressStream(z, &ob, &ib);
		s.len = ob.pos;
		if (r == 0)
			break;
		if (ZSTD_isError(r) || (ib.pos == ib.size && ob.pos < ob.size))
			rc = -EINVAL;
	}
	*in_used = ib.pos;
	ZSTD_freeDStream(z);
	return sink_end(&s, rc, out, out_len);
}

/* ---- lz4 ---- */

/* The legacy frame: magic, then blocks of at most 8 MiB behind their le32 packed size. */
static int lz4_legacy_unpack(const uint8_t *in, size_t in_len, size_t max_out,
			     uint8_t **out, size_t *out_len, size_t *in_used)
{
	enum { BLOCK = 8 << 20, MAGIC = 0x184c2102 };
	struct sink s = {.max = max_out};
	size_t at = 4;
	int rc = 0;

	while (!rc && in_len - at >= 4) {
		uint32_t n = load_u32(in + at);
		size_t room;
		int got;

		if (n == MAGIC) { /* archives put together */
			at += 4;
			continue;
		}
		if (!n || n > LZ4_COMPRESSBOUND(BLOCK) || n > in_len - at - 4)
			break; /* what follows is not ours */
		room = min_u64(BLOCK, s.max - s.len);
		if (s.size - s.len < room && (rc = sink_grow(&s, room)))
			break;
		got = LZ4_decompress_safe((const char *)in + at + 4,
					  (char *)s.p + s.len, (int)n, (int)room);
		if (got < 0) {
			rc = room < BLOCK ? -EFBIG : -EINVAL;
			break;
		}
		s.len += (size_t)got;
		at += 4 + n;
		if (got < BLOCK)
			break;
	}
	*in_used = at;
	return sink_end(&s, rc || s.len ? rc : -EINVAL, out, out_len);
}

static int lz4_frame_unpack(const uint8_t *in, size_t in_len, size_t max_out,
			    uint8_t **out, size_t *out_len, size_t *in_used)
{
	struct sink s = {.max = max_out};
	LZ4F_dctx *d = NULL;
	size_t at = 0;
	int rc = LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION))
			 ? -ENOMEM
			 : 0;

	while (!rc) {
		size_t room, n = in_len - at, r;

		if (s.len == s.size && (rc = sink_grow(&s, 1)))
			break;
		room = s.size - s.len;
		r = LZ4F_decompress(d, s.p + s.len, &room, in + at, &n, NULL);
		s.len += room;
		at += n;
		if (r == 0)
			break;
		if (LZ4F_isError(r) || (at == in_len && s.len < s.size))
			rc = -EINVAL;
	}
	*in_used = at;
	LZ4F_freeDecompressionContext(d);
	return sink_end(&s, rc, out, out_len);
}

/* ---- lzop, as the Linux kernel build writes it ---- */

enum {
	LZOP_ADLER_D = 0x01,
	LZOP_ADLER_C = 0x02,
	LZOP_EXTRA = 0x40,
	LZOP_CRC_D = 0x100,
	LZOP_CRC_C = 0x200,
	LZOP_FILTER = 0x800,
};

static uint32_t be32_at(const uint8_t *p)
{
	return __builtin_bswap32(load_u32(p));
}

/* Length of the header, and its flags; 0 when it is damaged. */
static size_t lzop_header(const uint8_t *p, size_t len, uint32_t *flags)
{
	size_t at = 9;
	unsigned version;

	if (len < 64)
		return 0;
	version = (unsigned)p[at] << 8 | p[at + 1];
	at += version >= 0x0940
		      ? 7
		      : 5; /* version, library version, needed version, method */
	if (version >= 0x0940)
		at++; /* level */
	*flags = be32_at(p + at);
	at += 4;
	if (*flags & LZOP_FILTER)
		at += 4;
	at += version >= 0x0940 ? 12 : 8; /* mode, time low, time high */
	if (at >= len || p[at] + at + 5 > len)
		return 0;
	at += 1u + p[at] + 4; /* name, checksum */
	return *flags & LZOP_EXTRA ? 0 : at;
}

static int lzop_unpack(const uint8_t *in, size_t in_len, size_t max_out, uint8_t **out,
		       size_t *out_len, size_t *in_used)
{
	struct sink s = {.max = max_out};
	uint32_t flags = 0;
	size_t at = lzop_header(in, in_len, &flags);
	int rc = at ? 0 : -EINVAL;

	while (!rc) {
		uint32_t raw, packed;
		lzo_uint got;

		if (in_len - at < 4) {
			rc = -EINVAL;
			break;
		}
		raw = be32_at(in + at);
		at += 4;
		if (!raw)
			break;
		if (in_len - at < 4) {
			rc = -EINVAL;
			break;
		}
		packed = be32_at(in + at);
		at += 4 + (flags & LZOP_ADLER_D ? 4 : 0) + (flags & LZOP_CRC_D ? 4 : 0);
		if (packed < raw)
			at += (flags & LZOP_ADLER_C ? 4 : 0) +
			      (flags & LZOP_CRC_C ? 4 : 0);
		if (packed > raw || at > in_len || packed > in_len - at ||
		    raw > 64u << 20) {
			rc = -EINVAL;
			break;
		}
		if (s.size - s.len < raw && (rc = sink_grow(&s, raw)))
			break;
		got = raw;
		if (packed == raw)
			memcpy(s.p + s.len, in + at, raw);
		else if (lzo1x_decompress_safe(in + at, packed, s.p + s.len, &got,
					       NULL) != LZO_E_OK ||
			 got != raw)
			rc = -EINVAL;
		s.len += raw;
		at += packed;
	}
	*in_used = at;
	return sink_end(&s, rc, out, out_len);
}

/* ---- the table ---- */

/* clang-format off */
static const struct codec codecs[] = {
	{"gzip", {0x1f, 0x8b}, 2, gzip_unpack},
	{"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, xz_unpack},
	{"bzip2", {'B', 'Z', 'h'}, 3, bzip2_unpack},
	{"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, zstd_unpack},
	{"lz4", {0x02, 0x21, 0x4c, 0x18}, 4, lz4_legacy_unpack},
	{"lz4 frame", {0x04, 0x22, 0x4d, 0x18}, 4, lz4_frame_unpack},
	{"lzop", {0x89, 'L', 'Z', 'O', 0, 0x0d, 0x0a, 0x1a, 0x0a}, 9, lzop_unpack},
	{"lzma", {0x5d, 0, 0}, 3, lzma_unpack},
};
/* clang-format on */

const struct codec *codec_find_magic(const void *p, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(codecs); i++)
		if (len >= codecs[i].magic_len &&
		    !memcmp(p, codecs[i].magic, codecs[i].magic_len))
			return &codecs[i];
	return NULL;
}

int codec_unpack(const struct codec *c, const void *in, size_t in_len, size_t max_out,
		 void **out, size_t *out_len, size_t *in_used, struct err *err)
{
	uint8_t *p = NULL;
	size_t used = 0;
	int rc;

	*out = NULL;
	if (in_len < c->magic_len)
		return err_set(err, EINVAL, "%s data is cut short", c->name);
	/* One more than may come out: some streams end only behind their last byte. */
	rc = c->unpack(in, in_len, max_out < SIZE_MAX ? max_out + 1 : max_out, &p,
		       out_len, &used);
	if (!rc && *out_len > max_out) {
		free(p);
		rc = -EFBIG;
	}
	if (rc == -EFBIG)
		return err_set(err, EFBIG, "%s data unpacks to more than %zu bytes",
			       c->name, max_out);
	if (rc == -ENOMEM)
		return err_set(err, ENOMEM, "no memory to unpack %s data", c->name);
	if (rc)
		return err_set(err, EINVAL, "%s data is damaged", c->name);
	*out = p;
	if (in_used)
		*in_used = used;
	return 0;
}

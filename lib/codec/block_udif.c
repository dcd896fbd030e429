/*
 * codec/block_udif.c - the further ways in which blocks of Apple's disk images are packed: ADC ("Apple data
 * compression"), bzip2, xz. They are only unpacked. Any thread.
 */
#include <bzlib.h>
#include <errno.h>
#include <lzma.h>
#include <stdint.h>
#include <string.h>

#include "base/bits.h"
#include "codec/block.h"

/* What a block of these may need: xz' largest presets take 65 MiB. */
#define XZ_MEMORY (128u << 20)

/* One operation of ADC: `literals` bytes follow it, or `match` bytes are copied from `distance` behind. */
struct adc_op {
	unsigned len, literals, match, distance;
};

static void adc_op(const uint8_t *p, struct adc_op *o)
{
	uint8_t c = p[0];

	if (c & 0x80)
		*o = (struct adc_op){.len = 1, .literals = (c & 0x7fu) + 1};
	else if (c & 0x40)
		*o = (struct adc_op){.len = 3,
				     .match = (c & 0x3fu) + 4,
				     .distance = ((unsigned)p[1] << 8 | p[2]) + 1};
	else
		*o = (struct adc_op){.len = 2,
				     .match = (c >> 2 & 15u) + 3,
				     .distance = ((c & 3u) << 8 | p[1]) + 1};
}

static int adc_unpack(struct codec_work *w, const void *in, size_t in_len, void *out,
		      size_t out_len)
{
	const uint8_t *p = in, *end = p + in_len;
	uint8_t *to = out;
	size_t done = 0;

	(void)w;
	while (done < out_len && p < end) {
		uint8_t head[3] = {0};
		struct adc_op o;

		memcpy(head, p, min_u64(sizeof(head), (uint64_t)(end - p)));
		adc_op(head, &o);
		if (o.len + o.literals > (size_t)(end - p) ||
		    o.literals + o.match > out_len - done || o.distance > done)
			return -EINVAL;
		memcpy(to + done, p + o.len, o.literals);
		p += o.len + o.literals;
		done += o.literals;
		for (; o.match; o.match--, done++)
			to[done] = to[done - o.distance];
	}
	return done == out_len ? 0 : -EINVAL;
}

static int bzip2_unpack(struct codec_work *w, const void *in, size_t in_len, void *out,
			size_t out_len)
{
	unsigned got = (unsigned)out_len;
	int rc;

	(void)w;
	if (in_len > UINT32_MAX || out_len > UINT32_MAX)
		return -EINVAL;
	rc = BZ2_bzBuffToBuffDecompress(out, &got, (char *)in, (unsigned)in_len, 0, 0);
	if (rc == BZ_MEM_ERROR)
		return -ENOMEM;
	return rc == BZ_OK && got == out_len ? 0 : -EINVAL;
}

static int xz_unpack(struct codec_work *w, const void *in, size_t in_len, void *out,
		     size_t out_len)
{
	uint64_t limit = XZ_MEMORY;
	size_t in_pos = 0, out_pos = 0;
	lzma_ret rc = lzma_stream_buffer_decode(&limit, 0, NULL, in, &in_pos, in_len,
						out, &out_pos, out_len);

	(void)w;
	if (rc == LZMA_MEM_ERROR || rc == LZMA_MEMLIMIT_ERROR)
		return -ENOMEM;
	return rc == LZMA_OK && out_pos == out_len ? 0 : -EINVAL;
}

const struct codec_block codec_block_adc = {.name = "adc", .unpack = adc_unpack};
const struct codec_block codec_block_bzip2 = {.name = "bzip2", .unpack = bzip2_unpack};
const struct codec_block codec_block_xz = {.name = "xz", .unpack = xz_unpack};

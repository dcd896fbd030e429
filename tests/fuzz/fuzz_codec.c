/* tests/fuzz/fuzz_codec.c - any bytes as a compressed stream, or as a block of a disk image. */
#include <stdint.h>
#include <stdlib.h>

#include "base/bits.h"
#include "codec/block.h"
#include "codec/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_OUT (1u << 20)

static void unpack_stream(const uint8_t *data, size_t len)
{
	const struct codec *c = codec_find_magic(data, len);
	size_t out_len, used;
	struct err err;
	void *out;

	if (!c || codec_unpack(c, data, len, MAX_OUT, &out, &out_len, &used, &err))
		return;
	if (out_len > MAX_OUT || used > len)
		abort();
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct codec_block *const blocks[] = {
		&codec_block_deflate, &codec_block_zstd,  &codec_block_zlib,
		&codec_block_adc,     &codec_block_bzip2, &codec_block_lzfse,
		&codec_block_xz};
	static uint8_t out[65536];
	struct codec_work *w = codec_work_new();

	unpack_stream(data, len);
	for (unsigned i = 0; w && i < ARRAY_LEN(blocks); i++)
		for (size_t n = 512; n <= sizeof(out); n *= 128)
			blocks[i]->unpack(w, data, len, out, n);
	codec_work_free(w);
	return 0;
}

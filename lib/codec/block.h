/*
 * codec/block.h - blocks of known size, as disk formats hold them. Any thread, each with its own
 * struct codec_work.
 */
#ifndef CODEC_BLOCK_H
#define CODEC_BLOCK_H

#include <stddef.h>

/* The libraries' working memory, kept between blocks; used by one thread at a time. */
struct codec_work;

struct codec_work *codec_work_new(void); /* NULL: no memory */
void codec_work_free(struct codec_work *w);

struct codec_block {
	const char *name; /* as qcow2 calls it: "zlib", "zstd" */
	/*
	 * Fills exactly out_len bytes; what stands behind the stream at `in` is left alone.
	 * 0, -EINVAL (damaged, or of another size), -ENOMEM.
	 */
	int (*unpack)(struct codec_work *w, const void *in, size_t in_len, void *out,
		      size_t out_len);
	/* NULL: is only unpacked. The packed size; 0 when it would not fit in out_len. level 0: the codec's usual one. */
	size_t (*pack)(struct codec_work *w, int level, const void *in, size_t in_len,
		       void *out, size_t out_len);
};

/* Raw deflate (RFC 1951) with the 4 KiB window that readers of qcow2 expect. */
extern const struct codec_block codec_block_deflate;
/*
 * zlib streams (RFC 1950) with any window, as VMDK, cloop and DMG have them. One that unpacks to less than out_len is
 * filled up with zeros: some writers cut a disk's last unit.
 */
extern const struct codec_block codec_block_zlib;
/* Zstandard frames (RFC 8878), one or several to a block. */
extern const struct codec_block codec_block_zstd;
/* What Apple's disk images have besides; these have no pack(). xz: whole .xz files. */
extern const struct codec_block codec_block_adc;
extern const struct codec_block codec_block_bzip2;
extern const struct codec_block codec_block_lzfse;
extern const struct codec_block codec_block_xz;

#endif

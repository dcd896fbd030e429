/* img/chain.h - changes of chains of images. One thread. */
#ifndef IMG_CHAIN_H
#define IMG_CHAIN_H

#include <stdatomic.h>

#include "img/copy.h"

struct img_chain_opts {
	const char *format; /* of the image; NULL: recognized */
	const char *allow_external;
	bool no_sync;
	img_progress *progress; /* may be NULL */
	void *ctx;
	const atomic_bool *stop; /* may be NULL */
};

/*
 * Puts the image at `path` in front of `backing` (NULL: nothing), as it will stand in the image, of format
 * `backing_format`. What shows through the image from the old backing files and differs from the new one is copied into
 * the image first, so that its content stays; `unsafe`: only the name is written.
 */
int img_rebase(const char *path, const char *backing, const char *backing_format,
	       bool unsafe, const struct img_chain_opts *o, struct err *err);

/*
 * Writes what the image at `path` holds to its backing file, and empties it, if not `keep`. `base`: to this image of
 * its chain instead (as the chain has its name); then nothing is emptied.
 */
int img_commit(const char *path, const char *base, bool keep,
	       const struct img_chain_opts *o, struct err *err);

#endif

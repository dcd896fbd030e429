/* pack/tar.h - what a tar file holds and where, without reading the content. Any thread. */
#ifndef PACK_TAR_H
#define PACK_TAR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tar_entry {
	const char *name;   /* as it stands there, without leading "./"; borrowed */
	uint64_t size, off; /* bytes of content, and where in the file they begin */
};

/* Does a file with these first bytes (512 wanted) look like tar? */
bool tar_looks_like(const void *head, size_t len);

/*
 * Calls each() for every regular file in the tar file `fd`, in its order, until that is not 0: which is then the result. The
 * content must lie there as it is: -ENOTSUP for sparse entries. `name` is for messages.
 */
int tar_walk(int fd, const char *name,
	     int (*each)(void *ctx, const struct tar_entry *e, struct err *err),
	     void *ctx, const atomic_bool *stop, struct err *err);

#endif

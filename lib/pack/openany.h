/*
 * pack/openany.h - opens the disk that a name means: an image, the disk of a package that has one, what is packed with gzip,
 * xz, zstd and the like (through a temporary file), or standard input ("-"). Any thread.
 */
#ifndef PACK_OPENANY_H
#define PACK_OPENANY_H

#include "pack/package.h"
#include "pack/rootfs.h"

/*
 * As img_open(), to read or with opts->snapshot; what is not an image by itself is never written. A package with several
 * disks: -EINVAL; if `want` is not NULL a package is left there instead (package_close()), *out is then NULL. `stop` (may be
 * NULL) as in package_open().
 */
int pack_open_image(const char *path, const struct img_opts *opts,
		    const atomic_bool *stop, struct package **want, struct img **out,
		    struct err *err);

/* Is there a package at `path`, or something packed: a disk that is only read? Looks at its beginning. */
bool pack_is_sealed(const char *path);

/* What is at `name`, packed or not: a package, or else the tree of a root file system; the other is NULL. 0 or -errno. */
int pack_open_package(const char *name, const atomic_bool *stop, struct package **p,
		      struct rootfs **tree, struct err *err);

#endif

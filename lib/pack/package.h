/*
 * pack/package.h - packages that hold whole machines or disks: OVA and OVF, Vagrant boxes, Xen XVA, Proxmox VMA, folders
 * of VMware and Parallels. Nothing is unpacked: disks are read where they lie. One thread per package; images opened
 * from it do not need it any more.
 */
#ifndef PACK_PACKAGE_H
#define PACK_PACKAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "img/img.h"

struct package;

struct package_disk_info {
	const char *name; /* of the file in the package, or of the disk */
	const char
		*format; /* as the package says or the content shows; NULL: not known */
	const char *bus; /* "ide", "scsi", "sata", ...; NULL: not told */
	uint64_t size;   /* bytes of the disk; 0: only known when it is opened */
};

/* What a package says about its machine. Strings belong to the package; NULL, 0: not told. */
struct package_info {
	const char *kind;  /* "ova", "xva", ... */
	const char *title; /* for people */
	const char *name, *os, *firmware;
	uint64_t memory; /* bytes */
	unsigned cpus;
	unsigned n_disks;
};

/*
 * Opens what is at `path` (file or folder): 0 and *out; 0 and NULL: it is not a package; or -errno. `stop` may be NULL and
 * is kept: set, it ends what is under way with -EINTR.
 */
int package_open(const char *path, const atomic_bool *stop, struct package **out,
		 struct err *err);
/* The same for an open regular file, which it takes over (also on failure). */
int package_open_fd(int fd, const char *name, const atomic_bool *stop,
		    struct package **out, struct err *err);
void package_close(struct package *p);

void package_info(const struct package *p, struct package_info *info);
void package_disk_info(const struct package *p, unsigned i,
		       struct package_disk_info *info);

/* Disk `i`, read-only. Of `opts` (may be NULL) only no_lock and allow_external count. */
int package_open_disk(struct package *p, unsigned i, const struct img_opts *opts,
		      struct img **out, struct err *err);

/* Compares everything with the digests that the package carries: *n how many there were. -EBADMSG: it is not what it was. */
int package_verify(struct package *p, unsigned *n, struct err *err);

/* The i-th kind, for lists; false behind the last. */
bool package_kind_at(unsigned i, const char **name, const char **title);

#endif

/* pack/ovawrite.h - writes OVA packages: description, manifest, streamOptimized VMDK disks. One thread. */
#ifndef PACK_OVAWRITE_H
#define PACK_OVAWRITE_H

#include <stdint.h>

#include "base/err.h"
#include "img/copy.h"

#define OVA_MAX_DISKS 30

struct ova_machine {
	const char *name;     /* UTF-8 */
	const char *os;       /* of ova_os_at() */
	const char *firmware; /* "bios" or "efi" */
	const char *bus;      /* "ide", "sata", "scsi": of the disks */
	uint64_t memory;      /* bytes */
	unsigned cpus;
};

/* The systems that the description has a number for; NULL behind the last. */
const char *ova_os_at(unsigned i);

/*
 * Writes the package to `path` ("-": standard output, by way of a temporary file). An existing file is only replaced with
 * `replace`. `how`: progress, threads, stop; the rest of it is chosen here. 0 or -errno: nothing is left behind.
 */
int ova_write(const char *path, bool replace, const struct ova_machine *m,
	      struct img *const *disk, unsigned n, const struct img_copy_opts *how,
	      struct err *err);

#endif

/*
 * img/dmg/dmg_int.h - what the files of Apple's disk image format (UDIF) share. Everything is big-endian. The file's last
 * sector, "koly", tells where the property list (or, in old images, the resource fork) is that holds a "mish"
 * table per partition: runs of sectors, each zeros, bytes, or packed.
 */
#ifndef IMG_DMG_INT_H
#define IMG_DMG_INT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Property lists and resource forks are at most this long: tables for about 100 GiB. */
#define DMG_MAX_TABLES (32u << 20)

/* Called for each "blkx" table, whose bytes are borrowed. 0 or -errno: ends the search. */
typedef int dmg_take(void *ctx, const uint8_t *data, size_t len, struct err *err);

/* Finds the tables in a property list. -EINVAL: is none, or damaged. */
int dmg_plist_tables(const char *xml, size_t len, dmg_take *take, void *ctx,
		     struct err *err);
/* Finds them in a resource fork. */
int dmg_fork_tables(const uint8_t *p, size_t len, dmg_take *take, void *ctx,
		    struct err *err);

#endif

/* guest/boot_int.h - Private to lib/guest. */
#ifndef GUEST_BOOT_INT_H
#define GUEST_BOOT_INT_H

#include "guest/boot.h"

/* Adds a finding; behind the last place they only count for the verdict. */
void boot_say(struct guest_boot *b, enum boot_weight weight, const char *id,
	      const struct guest_volume *v, const char *remedy, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

/* What the registry of the Windows in `v` says of disk drivers. */
void boot_windows(struct guest_boot *b, struct guest_volume *v);

#endif

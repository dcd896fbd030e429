/* dev/hpet.h - a high precision event timer: 3 comparators, 64-bit counter at 100 MHz. */
#ifndef DEV_HPET_H
#define DEV_HPET_H

#include "vm/env.h"

#define HPET_BASE      0xfed00000u
#define HPET_TIMERS    3
#define HPET_PERIOD_FS 10000000u /* 10 ns */

struct hpet;

struct hpet_cfg {
	struct irq gsi;  /* n is replaced by the I/O APIC input a timer is routed to */
	uint32_t routes; /* which inputs that may be: bit per input */
	struct irq legacy[2]; /* replacement of the PIT's and the RTC's line */
	/* Legacy replacement was turned on or off: the PIT and the RTC follow. May be NULL. */
	void (*legacy_changed)(void *ctx, bool on);
	void *ctx; /* borrowed */
};

/* At HPET_BASE. `cfg` is copied. NULL with *err. Machine lock held. */
struct hpet *hpet_new(const struct vm_env *env, const struct hpet_cfg *cfg,
		      struct err *err);
void hpet_free(struct hpet *h);
void hpet_reset(struct hpet *h);

#endif

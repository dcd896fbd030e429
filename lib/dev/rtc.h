/* dev/rtc.h - the MC146818 real-time clock with its CMOS memory. */
#ifndef DEV_RTC_H
#define DEV_RTC_H

#include "vm/env.h"

#define RTC_NVRAM   256  /* bytes: 128 behind ports 70h/71h, 128 more behind 72h/73h */
#define RTC_FIRST   0x0e /* the first byte that is memory */
#define RTC_CENTURY 0x32

struct rtc;

/*
 * At ports 70h-73h. `irq` (copied): line 8. `epoch`: what the clock shows now, in seconds since
 * 1970 (UTC, or local time for guests that keep it). NULL with *err. Machine lock held.
 */
struct rtc *rtc_new(const struct vm_env *env, const struct irq *irq, int64_t epoch,
		    struct err *err);
void rtc_free(struct rtc *rtc);
/* The reset line: interrupts off; time and memory stay. */
void rtc_reset(struct rtc *rtc);

/* What the clock shows now, in seconds since 1970. */
void rtc_set_time(struct rtc *rtc, int64_t epoch);
int64_t rtc_time(struct rtc *rtc);

/* CMOS memory, `at` RTC_FIRST..RTC_NVRAM - 1 but for the century; others are ignored. */
void rtc_set_nvram(struct rtc *rtc, unsigned at, uint8_t val);
uint8_t rtc_nvram(const struct rtc *rtc, unsigned at);

/* Whether the interrupt reaches its line: not while the HPET replaces it. */
void rtc_connect(struct rtc *rtc, bool connected);

#endif

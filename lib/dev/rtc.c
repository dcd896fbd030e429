/*
 * dev/rtc.c - the MC146818 real-time clock with its CMOS memory.
 *
 * Specification: Motorola MC146818 data sheet; century byte and second bank: ICH9 data sheet 13.6.
 * Threads: machine lock held.
 *
 * The time is a number of seconds that was right at a moment of the guest's clock; registers are
 * made of it when read. Timers run only for interrupts that are enabled; without them the flags of
 * register C are worked out when it is read. Periodic interrupts that the guest was too late for are
 * made up for, up to a second's worth.
 */
#include "dev/rtc.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"

enum reg {
	REG_SEC,
	REG_SEC_ALARM,
	REG_MIN,
	REG_MIN_ALARM,
	REG_HOUR,
	REG_HOUR_ALARM,
	REG_WDAY,
	REG_DAY,
	REG_MONTH,
	REG_YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
};

enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_32K = 0x20, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08 };
enum { B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQ = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80 };
enum { HOUR_PM = 0x80, ALARM_ANY = 0xc0 };

#define UIP_NS        244000ull /* the flag goes up so long before an update */
#define BASE_HZ       32768ull
#define DAY           86400
#define MIN_EPOCH     -62167219200ll /* year 0 */
#define MAX_EPOCH     253402300799ll /* year 9999 */
#define MIN_REPEAT_NS 61000ull       /* between interrupts that are made up for */

struct rtc {
	uint8_t nvram[RTC_NVRAM];
	uint8_t index, index2;
	uint8_t connected;
	uint8_t stopped; /* SET, or the divider in reset: nvram holds the time */
	int64_t epoch;   /* the time at clock time `epoch_ns` */
	uint64_t epoch_ns;
	int64_t seen;     /* second up to which updates and alarms were noticed */
	uint64_t periods; /* periodic interrupts up to here were noticed */
	uint32_t lost;    /* periodic interrupts to be made up for */
	struct irq irq;
	struct timer periodic, second;
	struct loop *loop; /* borrowed */
	struct bus *pio;   /* borrowed */
	struct io_range io;
};

/* ---- time ---- */

static uint64_t since_epoch(const struct rtc *rtc)
{
	uint64_t now = clock_now(rtc->loop);

	return now > rtc->epoch_ns ? now - rtc->epoch_ns : 0;
}

static int64_t seconds_now(const struct rtc *rtc)
{
	return rtc->epoch + (int64_t)(since_epoch(rtc) / NS_PER_SEC);
}

static uint8_t encode(const struct rtc *rtc, int v)
{
	if (rtc->nvram[REG_B] & B_BINARY)
		return (uint8_t)v;
	return (uint8_t)(v / 10 % 10 << 4 | v % 10);
}

static int decode(const struct rtc *rtc, uint8_t v)
{
	if (rtc->nvram[REG_B] & B_BINARY)
		return v;
	return (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *rtc, int h)
{
	if (rtc->nvram[REG_B] & B_24H)
		return encode(rtc, h);
	return (uint8_t)(encode(rtc, h % 12 ? h % 12 : 12) | (h >= 12 ? HOUR_PM : 0));
}

static int decode_hour(const struct rtc *rtc, uint8_t v)
{
	if (rtc->nvram[REG_B] & B_24H)
		return decode(rtc, v);
	return decode(rtc, v & ~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* Puts the time into the registers. */
static void time_to_regs(struct rtc *rtc)
{
	time_t t = (time_t)seconds_now(rtc);
	struct tm tm;
	int year;

	if (!gmtime_r(&t, &tm))
		return;
	year = tm.tm_year + 1900;
	rtc->nvram[REG_SEC] = encode(rtc, tm.tm_sec);
	rtc->nvram[REG_MIN] = encode(rtc, tm.tm_min);
	rtc->nvram[REG_HOUR] = encode_hour(rtc, tm.tm_hour);
	rtc->nvram[REG_WDAY] = encode(rtc, tm.tm_wday + 1);
	rtc->nvram[REG_DAY] = encode(rtc, tm.tm_mday);
	rtc->nvram[REG_MONTH] = encode(rtc, tm.tm_mon + 1);
	rtc->nvram[REG_YEAR] = encode(rtc, year % 100);
	/* The century byte is always BCD: firmware keeps it, not the chip. */
	rtc->nvram[RTC_CENTURY] = (uint8_t)(year / 1000 % 10 << 4 | year / 100 % 10);
}

/* Takes the time from the registers; days and months out of range carry over. */
static void regs_to_time(struct rtc *rtc)
{
	uint8_t c = rtc->nvram[RTC_CENTURY];
	int year = ((c >> 4) * 10 + (c & 15)) * 100 + decode(rtc, rtc->nvram[REG_YEAR]);
	struct tm tm = {
		.tm_sec = decode(rtc, rtc->nvram[REG_SEC]),
		.tm_min = decode(rtc, rtc->nvram[REG_MIN]),
		.tm_hour = decode_hour(rtc, rtc->nvram[REG_HOUR]),
		.tm_mday = decode(rtc, rtc->nvram[REG_DAY]),
		.tm_mon = decode(rtc, rtc->nvram[REG_MONTH]) - 1,
		.tm_year = year - 1900,
	};

	rtc->epoch = timegm(&tm);
	if (rtc->epoch > MAX_EPOCH) /* the digits go up to f */
		rtc->epoch = MAX_EPOCH;
	if (rtc->epoch < MIN_EPOCH) /* day 0 of year 0 */
		rtc->epoch = MIN_EPOCH;
	rtc->seen = rtc->epoch;
}

/* ---- interrupts ---- */

/* Sets flags of register C and the interrupt line. */
static void flag(struct rtc *rtc, uint8_t flags)
{
	uint8_t c = rtc->nvram[REG_C] | flags;

	if (c & rtc->nvram[REG_B] & (C_PF | C_AF | C_UF))
		c |= C_IRQ;
	else
		c &= ~C_IRQ;
	rtc->nvram[REG_C] = c;
	if (rtc->connected)
		irq_set(&rtc->irq, c & C_IRQ);
}

/* Ticks of 32.768 kHz between periodic interrupts; 0: none. */
static uint32_t period(const struct rtc *rtc)
{
	unsigned rate = rtc->nvram[REG_A] & A_RATE;

	if (!rate || (rtc->nvram[REG_A] & A_DIVIDER) != A_DIVIDER_32K)
		return 0;
	return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t period_ns(const struct rtc *rtc)
{
	return period(rtc) * NS_PER_SEC / BASE_HZ;
}

static uint64_t base_ticks(const struct rtc *rtc)
{
	return clock_ticks(rtc->loop, BASE_HZ);
}

/* How many periods have passed since the last look. */
static uint64_t passed_periods(struct rtc *rtc)
{
	uint32_t p = period(rtc);
	uint64_t n, now = base_ticks(rtc);

	if (!p || now < rtc->periods)
		return 0;
	n = (now - rtc->periods) / p;
	rtc->periods += n * p;
	return n;
}

static void arm_periodic(struct rtc *rtc)
{
	uint64_t at, now = clock_now(rtc->loop);
	unsigned __int128 next;

	if (!period(rtc) || !(rtc->nvram[REG_B] & B_PIE)) {
		timer_cancel(&rtc->periodic);
		return;
	}
	next = (unsigned __int128)(rtc->periods + period(rtc)) * NS_PER_SEC;
	at = (uint64_t)((next + BASE_HZ - 1) / BASE_HZ);
	/* The lost ones come as soon as the guest has read register C. */
	if (rtc->lost && !(rtc->nvram[REG_C] & C_PF))
		at = min_u64(at, now + max_u64(period_ns(rtc) / 4, MIN_REPEAT_NS));
	timer_set(&rtc->periodic, at);
}

static void on_periodic(void *ctx)
{
	struct rtc *rtc = ctx;
	uint64_t n = passed_periods(rtc);

	if (!period(rtc))
		return;
	n += rtc->lost;
	/* Only one can be pending; more than a second's worth is forgotten. */
	if (n && !(rtc->nvram[REG_C] & C_PF)) {
		flag(rtc, C_PF);
		n--;
	}
	rtc->lost = (uint32_t)min_u64(n, BASE_HZ / period(rtc));
	arm_periodic(rtc);
}

/* Does the alarm ring at second t of the clock? */
static bool alarm_at(const struct rtc *rtc, int64_t t)
{
	const uint8_t *r = rtc->nvram;
	int64_t day = ((t % DAY) + DAY) % DAY;

	if (r[REG_SEC_ALARM] < ALARM_ANY && decode(rtc, r[REG_SEC_ALARM]) != day % 60)
		return false;
	if (r[REG_MIN_ALARM] < ALARM_ANY &&
	    decode(rtc, r[REG_MIN_ALARM]) != day / 60 % 60)
		return false;
	return r[REG_HOUR_ALARM] >= ALARM_ANY ||
	       decode_hour(rtc, r[REG_HOUR_ALARM]) == day / 3600;
}

/* Notices the seconds that have begun since the last look: update and alarm. */
static void notice_seconds(struct rtc *rtc)
{
	int64_t now = seconds_now(rtc);
	uint8_t flags = 0;

	if (rtc->stopped || now <= rtc->seen)
		return;
	flags = C_UF;
	if (now - rtc->seen > DAY)
		rtc->seen = now - DAY; /* a day has every alarm */
	while (rtc->seen < now && !(flags & C_AF))
		if (alarm_at(rtc, ++rtc->seen))
			flags |= C_AF;
	rtc->seen = now;
	flag(rtc, flags);
}

static void arm_second(struct rtc *rtc)
{
	if (rtc->stopped || !(rtc->nvram[REG_B] & (B_UIE | B_AIE)))
		timer_cancel(&rtc->second);
	else
		timer_set(&rtc->second, rtc->epoch_ns + (since_epoch(rtc) / NS_PER_SEC +
							 1) * NS_PER_SEC);
}

static void on_second(void *ctx)
{
	struct rtc *rtc = ctx;

	notice_seconds(rtc);
	arm_second(rtc);
}

/* ---- registers ---- */

static bool is_time(unsigned at)
{
	return at == REG_SEC || at == REG_MIN ||
	       (at >= REG_HOUR && at <= REG_YEAR && at != REG_HOUR_ALARM) ||
	       at == RTC_CENTURY;
}

/* Registers A or B changed: stops or starts the time. */
static void run_or_stop(struct rtc *rtc, bool divider_released)
{
	bool stop = rtc->nvram[REG_B] & B_SET ||
		    (rtc->nvram[REG_A] & A_DIVIDER) != A_DIVIDER_32K;
	uint64_t now = clock_now(rtc->loop);

	if (stop && !rtc->stopped) {
		time_to_regs(rtc);
		rtc->stopped = 1;
	} else if (!stop && rtc->stopped) {
		uint64_t phase = since_epoch(rtc) % NS_PER_SEC;

		regs_to_time(rtc);
		/* SET leaves the divider running; its reset makes the update come in 500 ms. */
		if (divider_released)
			phase = NS_PER_SEC / 2;
		rtc->epoch_ns = now - min_u64(phase, now);
		rtc->stopped = 0;
	}
}

static uint8_t read_a(struct rtc *rtc)
{
	uint64_t phase = since_epoch(rtc) % NS_PER_SEC;
	bool uip = !rtc->stopped && phase >= NS_PER_SEC - UIP_NS;

	return (uint8_t)((rtc->nvram[REG_A] & ~A_UIP) | (uip ? A_UIP : 0));
}

static uint8_t read_c(struct rtc *rtc)
{
	uint8_t val;

	notice_seconds(rtc);
	if (!(rtc->nvram[REG_B] & B_PIE) && passed_periods(rtc))
		flag(rtc, C_PF);
	val = rtc->nvram[REG_C];
	rtc->nvram[REG_C] = 0;
	flag(rtc, 0);
	if (rtc->lost)
		arm_periodic(rtc);
	return val;
}

static void write_a(struct rtc *rtc, uint8_t val)
{
	uint8_t old = rtc->nvram[REG_A];

	notice_seconds(rtc);
	rtc->nvram[REG_A] = val & ~A_UIP;
	run_or_stop(rtc, (old & A_DIVIDER) != A_DIVIDER_32K);
	if ((old ^ val) & (A_DIVIDER | A_RATE)) {
		/* The divider goes on running: the phase is that of the new rate. */
		rtc->lost = 0;
		rtc->periods = base_ticks(rtc);
		if (period(rtc))
			rtc->periods -= rtc->periods % period(rtc);
	}
	arm_periodic(rtc);
	arm_second(rtc);
}

static void write_b(struct rtc *rtc, uint8_t val)
{
	uint8_t old = rtc->nvram[REG_B];

	notice_seconds(rtc);
	if (val & B_SET) {
		/* Stop in the old format: what is written from now on is in the new one. */
		val &= ~B_UIE;
		rtc->nvram[REG_B] = old | B_SET;
		run_or_stop(rtc, false);
	}
	rtc->nvram[REG_B] = val;
	run_or_stop(rtc, false);
	if ((val & B_PIE) && !(old & B_PIE)) {
		passed_periods(rtc);
		rtc->lost = 0;
	}
	flag(rtc, 0);
	arm_periodic(rtc);
	arm_second(rtc);
}

static uint8_t reg_read(struct rtc *rtc, unsigned at)
{
	if (is_time(at) && !rtc->stopped)
		time_to_regs(rtc);
	switch (at) {
	case REG_A: return read_a(rtc);
	case REG_C: return read_c(rtc);
	case REG_D: return D_VALID;
	default: return rtc->nvram[at];
	}
}

static void reg_write(struct rtc *rtc, unsigned at, uint8_t val)
{
	switch (at) {
	case REG_A: write_a(rtc, val); return;
	case REG_B: write_b(rtc, val); return;
	case REG_C:
	case REG_D: return; /* read-only */
	default: break;
	}
	if (!is_time(at) || rtc->stopped) {
		rtc->nvram[at] = val;
		return;
	}
	/* Written while it runs: the second goes on from where it is. */
	notice_seconds(rtc);
	time_to_regs(rtc);
	rtc->epoch_ns = clock_now(rtc->loop) - since_epoch(rtc) % NS_PER_SEC;
	rtc->nvram[at] = val;
	regs_to_time(rtc);
	arm_second(rtc);
}

static uint64_t rtc_read(void *dev, uint64_t off, unsigned size)
{
	struct rtc *rtc = dev;

	(void)size;
	switch (off) {
	case 0: return rtc->index; /* ICH9 lets it be read back; older chips give ff */
	case 1: return reg_read(rtc, rtc->index & 0x7f);
	case 2: return rtc->index2;
	default: return rtc->nvram[128 | rtc->index2];
	}
}

static void rtc_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct rtc *rtc = dev;

	(void)size;
	switch (off) {
	case 0: rtc->index = (uint8_t)val; break; /* bit 7 masks NMI: there are none */
	case 1: reg_write(rtc, rtc->index & 0x7f, (uint8_t)val); break;
	case 2: rtc->index2 = val & 0x7f; break;
	default: rtc->nvram[128 | rtc->index2] = (uint8_t)val; break;
	}
}

static const struct io_ops rtc_ops = {
	.read = rtc_read, .write = rtc_write, .min = 1, .max = 1};

/* ---- state ---- */

static const struct state_field fields[] = {
	STATE(struct rtc, nvram),
	STATE(struct rtc, index),
	STATE(struct rtc, index2),
	STATE(struct rtc, connected),
	STATE(struct rtc, stopped),
	STATE(struct rtc, epoch),
	STATE(struct rtc, epoch_ns),
	STATE(struct rtc, seen),
	STATE(struct rtc, periods),
	STATE(struct rtc, lost),
	{0},
};

static int loaded(void *dev)
{
	struct rtc *rtc = dev;

	if (rtc->epoch < MIN_EPOCH || rtc->epoch > MAX_EPOCH || rtc->seen < MIN_EPOCH ||
	    rtc->seen > 2 * MAX_EPOCH || rtc->index2 > 127 || rtc->lost > BASE_HZ ||
	    rtc->epoch_ns > UINT64_MAX / 2 || rtc->periods > UINT64_MAX / 2)
		return -EINVAL;
	arm_periodic(rtc);
	arm_second(rtc);
	return 0;
}

/* ---- public ---- */

void rtc_set_time(struct rtc *rtc, int64_t epoch)
{
	rtc->epoch = epoch;
	rtc->epoch_ns = clock_now(rtc->loop);
	rtc->seen = epoch;
	if (rtc->stopped)
		time_to_regs(rtc);
	arm_second(rtc);
}

int64_t rtc_time(struct rtc *rtc)
{
	return rtc->stopped ? rtc->epoch : seconds_now(rtc);
}

void rtc_set_nvram(struct rtc *rtc, unsigned at, uint8_t val)
{
	if (at >= RTC_FIRST && at < RTC_NVRAM && at != RTC_CENTURY)
		rtc->nvram[at] = val;
}

uint8_t rtc_nvram(const struct rtc *rtc, unsigned at)
{
	return at < RTC_NVRAM ? rtc->nvram[at] : 0xff;
}

void rtc_connect(struct rtc *rtc, bool connected)
{
	rtc->connected = connected;
	flag(rtc, 0);
}

void rtc_reset(struct rtc *rtc)
{
	rtc->nvram[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	rtc->nvram[REG_C] = 0;
	rtc->index = 0;
	rtc->index2 = 0;
	rtc->lost = 0;
	rtc->connected = 1;
	flag(rtc, 0);
	arm_periodic(rtc);
	arm_second(rtc);
}

void rtc_free(struct rtc *rtc)
{
	if (!rtc)
		return;
	timer_cancel(&rtc->periodic);
	timer_cancel(&rtc->second);
	bus_unmap(rtc->pio, &rtc->io);
	free(rtc);
}

struct rtc *rtc_new(const struct vm_env *env, const struct irq *irq, int64_t epoch,
		    struct err *err)
{
	struct rtc *rtc = NEW(struct rtc);

	if (!rtc) {
		err_set(err, ENOMEM, "no memory for the real-time clock");
		return NULL;
	}
	rtc->pio = env->pio;
	rtc->loop = env->loop;
	rtc->irq = *irq;
	rtc->io = (struct io_range){.ops = &rtc_ops, .dev = rtc, .name = "rtc"};
	timer_init(&rtc->periodic, env->loop, on_periodic, rtc);
	timer_init(&rtc->second, env->loop, on_second, rtc);
	rtc->nvram[REG_A] = A_DIVIDER_32K | 6; /* 1024 Hz, as PC firmware sets it */
	rtc->nvram[REG_B] = B_24H;
	rtc_set_time(rtc, epoch);
	rtc_reset(rtc);
	if (bus_map(env->pio, &rtc->io, 0x70, 4)) {
		err_set(err, EEXIST, "the real-time clock's ports are taken");
		rtc_free(rtc);
		return NULL;
	}
	state_add(env->state, "rtc", -1, rtc, fields, NULL, loaded);
	return rtc;
}

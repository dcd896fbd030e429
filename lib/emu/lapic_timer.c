/*
 * emu/lapic_timer.c - the local APIC's timer: one-shot, periodic, TSC deadline.
 *
 * Specification: SDM volume 3A 11.5.4. Registers are written by the vCPU, expiry runs in the loop
 * thread; both under lapic.lock. The count is not stored: it follows from `start` and the clock.
 */
#include "emu/lapic.h"

#include "base/bits.h"

#define NEVER         UINT64_MAX
/* A shorter period than this is stretched: the guest could otherwise occupy the loop. */
#define MIN_PERIOD_NS 20000

static uint32_t lvt(const struct lapic *l)
{
	return atomic_load_explicit(&l->lvt[0], memory_order_relaxed);
}

/* log2 of the divisor: bits 3, 1, 0 of the divide configuration; 7 means divide by 1. */
static unsigned div_shift(uint32_t divide)
{
	return (((divide & 3) | (divide & 8) >> 1) + 1) & 7;
}

/* A full count in nanoseconds: the bus clock is 1 GHz. */
static uint64_t period(const struct lapic *l)
{
	return (uint64_t)l->count << div_shift(l->divide);
}

/* When TSC value `deadline` comes, on the guest's clock. */
static uint64_t tsc_to_clock(struct lapic *l, uint64_t deadline)
{
	uint64_t now = clock_now(l->set->loop), tsc = l->set->ops->tsc(l->cpu);
	unsigned __int128 ns;

	if (deadline <= tsc)
		return now;
	ns = (unsigned __int128)(deadline - tsc) * 1000000 / l->set->tsc_khz + 1;
	return ns > NEVER / 2 ? NEVER / 2 : now + (uint64_t)ns;
}

/* The next expiry from `now` on, NEVER when there is none. */
static uint64_t next_expiry(const struct lapic *l, uint64_t now)
{
	uint64_t len = period(l), end = l->start + len;

	if (!l->running)
		return NEVER;
	if (end > now || !(lvt(l) & LVT_PERIODIC))
		return end;
	return now + len - (now - l->start) % len;
}

/* Arms the loop's timer for what the registers say; lock held. */
static void schedule(struct lapic *l)
{
	uint32_t v = lvt(l);
	uint64_t now, at;

	if ((v & LVT_TIMER_MODE) == LVT_DEADLINE) {
		if (l->tsc_deadline)
			timer_set(&l->timer, tsc_to_clock(l, l->tsc_deadline));
		else
			timer_cancel(&l->timer);
		return;
	}
	now = clock_now(l->set->loop);
	at = next_expiry(l, now);
	/* A masked timer counts without waking anybody. */
	if (at == NEVER || (v & LVT_MASKED) || at < now)
		timer_cancel(&l->timer);
	else
		timer_set(&l->timer, at);
}

/* Did the count (or the deadline) end by now? Then goes on with the next one; lock held. */
static bool expire(struct lapic *l)
{
	uint32_t v = lvt(l);
	uint64_t now = clock_now(l->set->loop), at;

	if ((v & LVT_TIMER_MODE) == LVT_DEADLINE) {
		if (!l->tsc_deadline)
			return false;
		if (l->set->ops->tsc(l->cpu) < l->tsc_deadline) {
			schedule(l); /* the clocks drift apart a little */
			return false;
		}
		l->tsc_deadline = 0;
		return true;
	}
	if (!l->running || now < l->start + period(l))
		return false;
	if (!(v & LVT_PERIODIC)) {
		l->running = false;
		return true;
	}
	/* Missed periods are dropped, the phase is kept. */
	l->start = now - (now - l->start) % period(l);
	at = l->start + period(l);
	timer_set(&l->timer, max_u64(at, now + MIN_PERIOD_NS));
	return true;
}

static void fire(void *ctx)
{
	struct lapic *l = ctx;
	bool hit;

	pthread_mutex_lock(&l->lock);
	hit = expire(l);
	pthread_mutex_unlock(&l->lock);
	if (hit)
		lapic_lvt_fire(l, 0);
}

void lapic_timer_init(struct lapic *l)
{
	pthread_mutex_init(&l->lock, NULL);
	timer_init(&l->timer, l->set->loop, fire, l);
}

void lapic_timer_reset(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	timer_cancel(&l->timer);
	l->count = 0;
	l->divide = 0;
	l->start = 0;
	l->tsc_deadline = 0;
	l->running = false;
	pthread_mutex_unlock(&l->lock);
}

void lapic_timer_lvt(struct lapic *l, uint32_t old, uint32_t val)
{
	pthread_mutex_lock(&l->lock);
	if ((old ^ val) & LVT_DEADLINE) { /* into or out of deadline mode disarms */
		l->tsc_deadline = 0;
		l->running = false;
		l->count = 0;
	}
	atomic_store_explicit(&l->lvt[0], val, memory_order_relaxed);
	if ((old ^ val) & (LVT_TIMER_MODE | LVT_MASKED))
		schedule(l);
	pthread_mutex_unlock(&l->lock);
}

void lapic_timer_set_count(struct lapic *l, uint32_t val)
{
	pthread_mutex_lock(&l->lock);
	if ((lvt(l) & LVT_TIMER_MODE) != LVT_DEADLINE) { /* else ignored */
		l->count = val;
		l->start = clock_now(l->set->loop);
		l->running = val != 0;
		schedule(l);
	}
	pthread_mutex_unlock(&l->lock);
}

static uint32_t current_locked(struct lapic *l)
{
	uint64_t now = clock_now(l->set->loop), at = next_expiry(l, now);

	if (at == NEVER || at <= now)
		return 0;
	return (uint32_t)min_u64((at - now) >> div_shift(l->divide), UINT32_MAX);
}

/* The divisor changes on the way: what is left of the count goes on at the new rate. */
void lapic_timer_set_divide(struct lapic *l, uint32_t val)
{
	uint64_t left;

	pthread_mutex_lock(&l->lock);
	left = current_locked(l);
	l->divide = val & 0xb;
	if (l->running) {
		uint64_t gone = (l->count - min_u64(left, l->count))
				<< div_shift(l->divide);

		l->start = clock_now(l->set->loop);
		l->start -= min_u64(gone, l->start);
		schedule(l);
	}
	pthread_mutex_unlock(&l->lock);
}

uint32_t lapic_timer_current(struct lapic *l)
{
	uint32_t v;

	pthread_mutex_lock(&l->lock);
	v = current_locked(l);
	pthread_mutex_unlock(&l->lock);
	return v;
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
	uint64_t v;

	pthread_mutex_lock(&l->lock);
	v = l->tsc_deadline;
	pthread_mutex_unlock(&l->lock);
	return v;
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	pthread_mutex_lock(&l->lock);
	if ((lvt(l) & LVT_TIMER_MODE) == LVT_DEADLINE) { /* else ignored */
		l->tsc_deadline = tsc;
		schedule(l);
	}
	pthread_mutex_unlock(&l->lock);
}

void lapic_tsc_changed(struct lapic *l)
{
	pthread_mutex_lock(&l->lock);
	if (l->tsc_deadline)
		schedule(l);
	pthread_mutex_unlock(&l->lock);
}

uint64_t lapic_timer_left(struct lapic *l)
{
	uint64_t now, at;

	pthread_mutex_lock(&l->lock);
	now = clock_now(l->set->loop);
	at = next_expiry(l, now);
	pthread_mutex_unlock(&l->lock);
	return at == NEVER ? NEVER : at - min_u64(now, at);
}

void lapic_timer_load(struct lapic *l, uint32_t count, uint32_t divide, uint64_t left)
{
	pthread_mutex_lock(&l->lock);
	l->count = count;
	l->divide = divide & 0xb;
	l->tsc_deadline = 0;
	l->running = count && left != NEVER;
	left = min_u64(left, period(l));
	l->start = clock_now(l->set->loop) + left - period(l);
	if (l->start > clock_now(l->set->loop)) /* before the clock's beginning */
		l->start = 0;
	schedule(l);
	pthread_mutex_unlock(&l->lock);
}

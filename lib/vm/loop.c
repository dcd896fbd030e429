/*
 * vm/loop.c - the event loop, and the guest's clock with its timers.
 *
 * Lock order: machine lock, then loop->mutex. The mutex guards the timer heap, the posted calls and
 * the descriptors; it is never held while a callback runs. One timerfd is armed for the earliest
 * timer, so that setting a timer from a vCPU needs no wake-up of the loop.
 */
#include "vm/loop.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"

#define MAX_TIMERS 256
#define MAX_FDS    128
#define MAX_HOOKS  4
#define MAX_EVENTS 16
#define NOT_ARMED  UINT64_MAX

struct loop_fd {
	int fd;
	bool used;
	uint32_t events, gen;
	void (*fn)(void *ctx, uint32_t events);
	void *ctx;
};

struct loop_call {
	struct loop_call *next;
	void (*fn)(void *ctx);
	void *ctx;
};

struct loop_hook {
	void (*before)(void *ctx, int *timeout_ms);
	void (*after)(void *ctx);
	void *ctx;
};

struct loop {
	pthread_mutex_t *lock; /* borrowed: the machine lock */
	pthread_mutex_t mutex;
	int epoll, wake, timerfd;
	atomic_bool stop;
	struct loop_fd fds[MAX_FDS];
	struct loop_call *calls, **calls_end;
	struct loop_hook hooks[MAX_HOOKS];
	unsigned n_hooks;
	struct timer
		*heap[MAX_TIMERS + 1]; /* from 1: heap[i] <= heap[2i], heap[2i+1] */
	int n_timers;
	uint64_t armed; /* host time the timerfd is set to */
	/* Guest clock = host monotonic time - offset; while paused it is `paused_at`. */
	_Atomic uint64_t offset, paused_at;
	atomic_bool paused;
};

/* The two descriptors of the loop itself, as epoll data. */
enum { TAG_WAKE = MAX_FDS, TAG_TIMER };

static int watch(struct loop *loop, int fd, uint32_t tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = tag};

	return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev);
}

struct loop *loop_new(pthread_mutex_t *lock, struct err *err)
{
	struct loop *loop = NEW(struct loop);

	if (!loop) {
		err_set(err, ENOMEM, "no memory for the event loop");
		return NULL;
	}
	loop->lock = lock;
	loop->calls_end = &loop->calls;
	loop->armed = NOT_ARMED;
	pthread_mutex_init(&loop->mutex, NULL);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	atomic_store(&loop->offset, time_mono_ns());
	if (loop->epoll < 0 || loop->wake < 0 || loop->timerfd < 0 ||
	    watch(loop, loop->wake, TAG_WAKE) < 0 ||
	    watch(loop, loop->timerfd, TAG_TIMER) < 0) {
		err_sys(err, errno, "cannot make the event loop");
		loop_free(loop);
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	struct loop_call *next;

	if (!loop)
		return;
	for (struct loop_call *c = loop->calls; c; c = next) {
		next = c->next;
		free(c);
	}
	if (loop->epoll >= 0)
		close(loop->epoll);
	if (loop->wake >= 0)
		close(loop->wake);
	if (loop->timerfd >= 0)
		close(loop->timerfd);
	pthread_mutex_destroy(&loop->mutex);
	free(loop);
}

void loop_wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->wake, &one, sizeof(one));

	(void)n; /* full: it is awake */
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	loop_wake(loop);
}

/* ---- descriptors ---- */

static struct loop_fd *fd_slot(struct loop *loop, int fd)
{
	struct loop_fd *spare = NULL;

	for (unsigned i = 0; i < MAX_FDS; i++) {
		struct loop_fd *f = &loop->fds[i];

		if (f->used && f->fd == fd)
			return f;
		if (!f->used && !spare)
			spare = f;
	}
	return spare;
}

int loop_fd_set(struct loop *loop, int fd, uint32_t events,
		void (*fn)(void *ctx, uint32_t events), void *ctx)
{
	struct epoll_event ev = {.events = events};
	struct loop_fd *f;
	int rc = 0;

	pthread_mutex_lock(&loop->mutex);
	f = fd_slot(loop, fd);
	if (!f) {
		rc = -ENOSPC;
	} else {
		bool watched = f->used && f->events;

		if (!f->used)
			f->gen++;
		ev.data.u64 = (uint64_t)f->gen << 32 | (uint64_t)(f - loop->fds);
		/* A hang-up is told whatever was asked for: silence means not to watch. */
		if ((events || watched) && epoll_ctl(loop->epoll,
						     !events   ? EPOLL_CTL_DEL
						     : watched ? EPOLL_CTL_MOD
							       : EPOLL_CTL_ADD,
						     fd, &ev) < 0)
			rc = -errno;
		else
			*f = (struct loop_fd){fd, true, events, f->gen, fn, ctx};
	}
	pthread_mutex_unlock(&loop->mutex);
	return rc;
}

void loop_fd_remove(struct loop *loop, int fd)
{
	struct loop_fd *f;

	pthread_mutex_lock(&loop->mutex);
	f = fd_slot(loop, fd);
	if (f && f->used) {
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL);
		f->used = false;
		f->gen++; /* an event already fetched is for nobody */
	}
	pthread_mutex_unlock(&loop->mutex);
}

/* ---- posted calls ---- */

int loop_post(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	struct loop_call *c = NEW(struct loop_call);

	if (!c)
		return -ENOMEM;
	c->fn = fn;
	c->ctx = ctx;
	pthread_mutex_lock(&loop->mutex);
	*loop->calls_end = c;
	loop->calls_end = &c->next;
	pthread_mutex_unlock(&loop->mutex);
	loop_wake(loop);
	return 0;
}

static void run_calls(struct loop *loop)
{
	struct loop_call *c, *next;

	pthread_mutex_lock(&loop->mutex);
	c = loop->calls;
	loop->calls = NULL;
	loop->calls_end = &loop->calls;
	pthread_mutex_unlock(&loop->mutex);
	for (; c; c = next) {
		next = c->next;
		c->fn(c->ctx);
		free(c);
	}
}

int loop_hook_add(struct loop *loop, void (*before)(void *ctx, int *timeout_ms),
		  void (*after)(void *ctx), void *ctx)
{
	if (loop->n_hooks == MAX_HOOKS)
		return -ENOSPC;
	loop->hooks[loop->n_hooks++] = (struct loop_hook){before, after, ctx};
	return 0;
}

/* ---- the guest's clock ---- */

uint64_t clock_now(const struct loop *loop)
{
	if (atomic_load_explicit(&loop->paused, memory_order_acquire))
		return atomic_load(&loop->paused_at);
	return time_mono_ns() -
	       atomic_load_explicit(&loop->offset, memory_order_relaxed);
}

uint64_t clock_ticks(const struct loop *loop, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)clock_now(loop) * hz / NS_PER_SEC);
}

/* Sets the timerfd to the earliest timer; mutex held. */
static void rearm(struct loop *loop)
{
	uint64_t at = NOT_ARMED;
	struct itimerspec its = {0};

	if (loop->n_timers && !atomic_load(&loop->paused)) {
		at = loop->heap[1]->deadline + atomic_load(&loop->offset);
		if (at < loop->heap[1]->deadline)
			at = NOT_ARMED; /* beyond the end of time */
	}
	if (at == loop->armed)
		return;
	loop->armed = at;
	if (at != NOT_ARMED) {
		at = at ? at : 1;
		its.it_value.tv_sec = (time_t)min_u64(at / NS_PER_SEC, INT64_MAX / 4);
		its.it_value.tv_nsec = (long)(at % NS_PER_SEC);
	}
	timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &its, NULL);
}

void clock_pause(struct loop *loop)
{
	pthread_mutex_lock(&loop->mutex);
	if (!atomic_load(&loop->paused)) {
		atomic_store(&loop->paused_at, clock_now(loop));
		atomic_store_explicit(&loop->paused, true, memory_order_release);
		rearm(loop);
	}
	pthread_mutex_unlock(&loop->mutex);
}

void clock_resume(struct loop *loop)
{
	pthread_mutex_lock(&loop->mutex);
	if (atomic_load(&loop->paused)) {
		atomic_store(&loop->offset,
			     time_mono_ns() - atomic_load(&loop->paused_at));
		atomic_store_explicit(&loop->paused, false, memory_order_release);
		rearm(loop);
	}
	pthread_mutex_unlock(&loop->mutex);
}

void clock_set(struct loop *loop, uint64_t now)
{
	pthread_mutex_lock(&loop->mutex);
	atomic_store(&loop->paused_at, now);
	atomic_store(&loop->offset, time_mono_ns() - now);
	rearm(loop);
	pthread_mutex_unlock(&loop->mutex);
}

/* ---- timers: a binary heap by deadline; mutex held ---- */

static void heap_put(struct loop *loop, int at, struct timer *t)
{
	loop->heap[at] = t;
	t->heap_at = at;
}

static void heap_up(struct loop *loop, int at)
{
	struct timer *t = loop->heap[at];

	for (; at > 1 && loop->heap[at / 2]->deadline > t->deadline; at /= 2)
		heap_put(loop, at, loop->heap[at / 2]);
	heap_put(loop, at, t);
}

static void heap_down(struct loop *loop, int at)
{
	struct timer *t = loop->heap[at];

	while (2 * at <= loop->n_timers) {
		int child = 2 * at;

		if (child < loop->n_timers &&
		    loop->heap[child + 1]->deadline < loop->heap[child]->deadline)
			child++;
		if (loop->heap[child]->deadline >= t->deadline)
			break;
		heap_put(loop, at, loop->heap[child]);
		at = child;
	}
	heap_put(loop, at, t);
}

static void heap_remove(struct loop *loop, struct timer *t)
{
	int at = t->heap_at;
	struct timer *last;

	if (!at)
		return;
	t->heap_at = 0;
	last = loop->heap[loop->n_timers--];
	if (last == t)
		return;
	heap_put(loop, at, last);
	heap_up(loop, at);
	heap_down(loop, last->heap_at);
}

void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	*t = (struct timer){.loop = loop, .fn = fn, .ctx = ctx};
}

void timer_set(struct timer *t, uint64_t deadline)
{
	struct loop *loop = t->loop;

	pthread_mutex_lock(&loop->mutex);
	heap_remove(loop, t);
	t->deadline = deadline;
	if (loop->n_timers < MAX_TIMERS) {
		loop->heap[++loop->n_timers] = t;
		t->heap_at = loop->n_timers;
		heap_up(loop, loop->n_timers);
	}
	rearm(loop);
	pthread_mutex_unlock(&loop->mutex);
}

void timer_cancel(struct timer *t)
{
	pthread_mutex_lock(&t->loop->mutex);
	heap_remove(t->loop, t);
	rearm(t->loop);
	pthread_mutex_unlock(&t->loop->mutex);
}

static void run_timers(struct loop *loop)
{
	uint64_t expired, now = clock_now(loop);
	ssize_t n = read(loop->timerfd, &expired, sizeof(expired));

	(void)n;
	pthread_mutex_lock(&loop->mutex);
	loop->armed = NOT_ARMED;
	while (loop->n_timers && !atomic_load(&loop->paused) &&
	       loop->heap[1]->deadline <= now) {
		struct timer *t = loop->heap[1];

		heap_remove(loop, t);
		pthread_mutex_unlock(&loop->mutex);
		t->fn(t->ctx);
		pthread_mutex_lock(&loop->mutex);
	}
	rearm(loop);
	pthread_mutex_unlock(&loop->mutex);
}

/* ---- the loop ---- */

static void dispatch(struct loop *loop, const struct epoll_event *ev)
{
	uint32_t tag = (uint32_t)ev->data.u64;
	struct loop_fd f;
	uint64_t count;

	if (tag == TAG_TIMER) {
		run_timers(loop);
	} else if (tag == TAG_WAKE) {
		if (read(loop->wake, &count, sizeof(count)) > 0)
			run_calls(loop);
	} else {
		pthread_mutex_lock(&loop->mutex);
		f = loop->fds[tag];
		pthread_mutex_unlock(&loop->mutex);
		if (f.used && f.events && f.gen == ev->data.u64 >> 32)
			f.fn(f.ctx, ev->events);
	}
}

void loop_run(struct loop *loop)
{
	struct epoll_event ev[MAX_EVENTS];

	while (!atomic_load(&loop->stop)) {
		int timeout = -1, n;

		pthread_mutex_lock(loop->lock);
		for (unsigned i = 0; i < loop->n_hooks; i++)
			loop->hooks[i].before(loop->hooks[i].ctx, &timeout);
		pthread_mutex_unlock(loop->lock);
		n = epoll_wait(loop->epoll, ev, MAX_EVENTS, timeout);
		pthread_mutex_lock(loop->lock);
		for (int i = 0; i < n; i++)
			dispatch(loop, &ev[i]);
		for (unsigned i = 0; i < loop->n_hooks; i++)
			loop->hooks[i].after(loop->hooks[i].ctx);
		pthread_mutex_unlock(loop->lock);
	}
}

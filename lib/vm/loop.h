/*
 * vm/loop.h - the event loop: file descriptors, posted calls, and timers of the guest's clock.
 *
 * Callbacks run in the loop thread with the machine lock held. The guest's clock counts
 * nanoseconds since the machine was made, and stands still while the machine is paused.
 */
#ifndef VM_LOOP_H
#define VM_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;

/* `lock`: the machine lock, recursive, borrowed. NULL without resources. */
struct loop *loop_new(pthread_mutex_t *lock, struct err *err);
void loop_free(struct loop *loop);

/* Runs until loop_stop(). The calling thread becomes the loop thread. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread, signal-safe */

/*
 * Calls fn(ctx, events) while `fd` has one of `events` (EPOLLIN, EPOLLOUT, ...). events = 0 keeps it
 * registered and silent. One registration per fd. Any thread, machine lock held. 0 or -errno.
 */
int loop_fd_set(struct loop *loop, int fd, uint32_t events,
		void (*fn)(void *ctx, uint32_t events), void *ctx);
void loop_fd_remove(struct loop *loop, int fd);

/* Calls fn(ctx) once in the loop thread soon. Any thread. 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *ctx), void *ctx);

/* Ends a wait that may be under way, so that the hooks below run again. Any thread, signal-safe. */
void loop_wake(struct loop *loop);

/*
 * For libraries that poll by themselves (libslirp): `before` may lower *timeout_ms and is called before each
 * wait, `after` behind it. At most 4. Loop thread or before loop_run().
 */
int loop_hook_add(struct loop *loop, void (*before)(void *ctx, int *timeout_ms),
		  void (*after)(void *ctx), void *ctx);

/* ---- the guest's clock ---- */

/* Nanoseconds of the guest's clock. Any thread. */
uint64_t clock_now(const struct loop *loop);
/* The same in ticks of a counter of `hz`, which started at 0. */
uint64_t clock_ticks(const struct loop *loop, uint64_t hz);
/* Stops and restarts the clock; clock_set() when a saved machine is restored (paused). */
void clock_pause(struct loop *loop);
void clock_resume(struct loop *loop);
void clock_set(struct loop *loop, uint64_t now);

/* Embedded in a device; zero-initialised, then timer_init(). */
struct timer {
	struct loop *loop; /* borrowed */
	void (*fn)(void *ctx);
	void *ctx;
	uint64_t deadline; /* guest clock, ns */
	int heap_at;       /* place in the loop's heap, from 1; 0 = not armed */
};

void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *ctx), void *ctx);
/* (Re)arms it: fn runs once at or soon after `deadline`. Any thread. */
void timer_set(struct timer *t, uint64_t deadline);
/* Disarms it. With the machine lock held fn does not run afterwards. Any thread. */
void timer_cancel(struct timer *t);

#endif

/*
 * tests/unit/machine.h - a machine without processors for tests of devices: buses, memory, lines
 * that are counted, and the loop's interface (vm/loop.h) with a clock that moves when told. Included
 * by one file per program; it takes the place of vm/loop.c.
 */
#ifndef TESTS_MACHINE_H
#define TESTS_MACHINE_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/time.h"
#include "vm/chr.h"
#include "vm/env.h"

/* ---- vm/loop.h in virtual time ---- */

#define MAX_ARMED 64

struct loop {
	uint64_t now;
	struct timer *armed[MAX_ARMED];
};

struct loop *loop_new(pthread_mutex_t *lock, struct err *err)
{
	(void)lock;
	(void)err;
	return calloc(1, sizeof(struct loop));
}

void loop_free(struct loop *loop)
{
	free(loop);
}

void loop_run(struct loop *loop)
{
	(void)loop;
}

void loop_stop(struct loop *loop)
{
	(void)loop;
}

int loop_fd_set(struct loop *loop, int fd, uint32_t events,
		void (*fn)(void *ctx, uint32_t events), void *ctx)
{
	(void)loop;
	(void)fd;
	(void)events;
	(void)fn;
	(void)ctx;
	return 0;
}

void loop_fd_remove(struct loop *loop, int fd)
{
	(void)loop;
	(void)fd;
}

int loop_post(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	(void)loop;
	fn(ctx);
	return 0;
}

void loop_wake(struct loop *loop)
{
	(void)loop;
}

int loop_hook_add(struct loop *loop, void (*before)(void *ctx, int *timeout_ms),
		  void (*after)(void *ctx), void *ctx)
{
	(void)loop;
	(void)before;
	(void)after;
	(void)ctx;
	return 0;
}

uint64_t clock_now(const struct loop *loop)
{
	return loop->now;
}

uint64_t clock_ticks(const struct loop *loop, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)loop->now * hz / NS_PER_SEC);
}

void clock_pause(struct loop *loop)
{
	(void)loop;
}

void clock_resume(struct loop *loop)
{
	(void)loop;
}

void clock_set(struct loop *loop, uint64_t now)
{
	loop->now = now;
}

void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
	*t = (struct timer){.loop = loop, .fn = fn, .ctx = ctx};
}

void timer_cancel(struct timer *t)
{
	if (t->heap_at)
		t->loop->armed[t->heap_at - 1] = NULL;
	t->heap_at = 0;
}

void timer_set(struct timer *t, uint64_t deadline)
{
	timer_cancel(t);
	for (int i = 0; i < MAX_ARMED; i++) {
		if (t->loop->armed[i])
			continue;
		t->loop->armed[i] = t;
		t->heap_at = i + 1;
		t->deadline = deadline;
		return;
	}
	abort();
}

static struct timer *earliest(struct loop *loop)
{
	struct timer *best = NULL;

	for (int i = 0; i < MAX_ARMED; i++)
		if (loop->armed[i] &&
		    (!best || loop->armed[i]->deadline < best->deadline))
			best = loop->armed[i];
	return best;
}

/* ---- the machine ---- */

#define MAX_LINES 64
#define MAX_MSIS  64

struct machine {
	pthread_mutex_t lock;
	struct bus pio, mmio;
	struct ram ram;
	struct state state;
	struct loop loop;
	struct vm_env env;
	bool line[MAX_LINES];
	unsigned edges[MAX_LINES]; /* rising ones */
	struct {
		uint64_t addr;
		uint32_t data;
	} msi[MAX_MSIS];
	unsigned n_msis;
	unsigned calls, called; /* of a callback, and its last argument */
	unsigned fired;         /* timers */
};

static void machine_line(void *ctx, unsigned n, bool level)
{
	struct machine *m = ctx;

	if (level && !m->line[n])
		m->edges[n]++;
	m->line[n] = level;
}

static inline struct irq machine_irq(struct machine *m, unsigned n)
{
	return (struct irq){machine_line, m, n};
}

static void machine_msi(void *ctx, uint64_t addr, uint32_t data)
{
	struct machine *m = ctx;

	m->msi[m->n_msis % MAX_MSIS].addr = addr;
	m->msi[m->n_msis++ % MAX_MSIS].data = data;
}

/* In zeroed memory; it must not move. */
static inline void machine_init(struct machine *m)
{
	pthread_mutexattr_t attr;

	memset(m, 0, sizeof(*m));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&m->lock, &attr);
	bus_init(&m->pio, "I/O port", 0x10000, &m->lock);
	bus_init(&m->mmio, "memory", 1ull << 52, &m->lock);
	m->loop.now = NS_PER_SEC; /* devices may look back */
	m->env = (struct vm_env){.lock = &m->lock,
				 .pio = &m->pio,
				 .mmio = &m->mmio,
				 .ram = &m->ram,
				 .loop = &m->loop,
				 .state = &m->state,
				 .msi = {machine_msi, m}};
}

static inline void machine_fini(struct machine *m)
{
	bus_fini(&m->pio);
	bus_fini(&m->mmio);
	ram_fini(&m->ram);
	pthread_mutex_destroy(&m->lock);
}

/* Lets `ns` pass; timers run when they are due. */
static inline void machine_advance(struct machine *m, uint64_t ns)
{
	uint64_t end = m->loop.now + ns;

	for (;;) {
		struct timer *t = earliest(&m->loop);

		if (!t || t->deadline > end)
			break;
		if (t->deadline > m->loop.now)
			m->loop.now = t->deadline;
		timer_cancel(t);
		m->fired++;
		t->fn(t->ctx);
	}
	m->loop.now = end;
}

/* `ns` pass in which nothing runs, then every timer that is due once: a host that was busy. */
static inline void machine_stall(struct machine *m, uint64_t ns)
{
	struct timer *due[MAX_ARMED];
	unsigned n = 0;

	m->loop.now += ns;
	for (int i = 0; i < MAX_ARMED; i++)
		if (m->loop.armed[i] && m->loop.armed[i]->deadline <= m->loop.now)
			due[n++] = m->loop.armed[i];
	while (n--) {
		timer_cancel(due[n]);
		due[n]->fn(due[n]->ctx);
	}
}

static inline uint8_t inb(struct machine *m, unsigned port)
{
	uint64_t v = 0;

	bus_read(&m->pio, port, 1, &v);
	return (uint8_t)v;
}

static inline uint32_t inl(struct machine *m, unsigned port)
{
	uint64_t v = 0;

	bus_read(&m->pio, port, 4, &v);
	return (uint32_t)v;
}

static inline void outb(struct machine *m, unsigned port, unsigned val)
{
	bus_write(&m->pio, port, 1, val);
}

static inline void outw(struct machine *m, unsigned port, unsigned val)
{
	bus_write(&m->pio, port, 2, val);
}

static inline void outl(struct machine *m, unsigned port, uint32_t val)
{
	bus_write(&m->pio, port, 4, val);
}

static inline uint64_t mmio_read(struct machine *m, uint64_t addr, unsigned size)
{
	uint64_t v = 0;

	bus_read(&m->mmio, addr, size, &v);
	return v;
}

static inline void mmio_write(struct machine *m, uint64_t addr, unsigned size,
			      uint64_t val)
{
	bus_write(&m->mmio, addr, size, val);
}

/* Saves all devices; the caller frees. */
static inline struct str machine_save(struct machine *m)
{
	struct str s = {0};

	assert_int_equal(state_save(&m->state, &s, NULL), 0);
	return s;
}

static inline void machine_load(struct machine *m, struct str *s)
{
	struct err err = {0};

	if (state_load(&m->state, s->p, s->len, &err))
		fail_msg("%s", err.msg);
	str_fini(s);
}

/* A callback that counts. */
static inline void machine_called(void *ctx, unsigned arg)
{
	struct machine *m = ctx;

	m->calls++;
	m->called = arg;
}

#endif

/*
 * x86/system.c - what the processors of a machine share: pages with decoded code, the memory map's
 * host addresses, and the safepoints at which a processor may change another one's TLB.
 *
 * Each processor has a seat: inside (guest code runs, its TLB is its own) or outside (in a callback,
 * waiting, or not running; others may change its TLB). Exclusivity means that all other seats are
 * outside and stay so. To enter, a processor sets its seat and then looks at `stop`; to stop the
 * others, one sets `stop` and then looks at the seats; both are sequentially consistent, so one of
 * the two sees the other. Whoever waits has left its own seat before, so two that want
 * exclusivity at once do not wait for each other. What the owner of exclusivity wrote is seen by the
 * others since they enter after taking the lock, or read `stop` after it was cleared.
 *
 * Lock order: the machine's locks, then `lock` here. Callbacks are never called with it held.
 */
#include "x86/sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"
#include "x86/jit/lockstep.h"

/* Guest pages by number, in two levels: 46 address bits. */
#define GPA_BITS  46
#define LEAF_BITS 15
#define DIR_BITS  (GPA_BITS - 12 - LEAF_BITS)

/* Bits of guest_page.host beside the address. */
enum { HOST_WRITABLE = 1 };

struct guest_page {
	struct codepage code;
	_Atomic uintptr_t host; /* 0: not known */
};

struct seat {
	_Atomic uint32_t inside;
	uint64_t epoch;           /* of the memory map, when it was last inside */
	_Atomic pthread_t thread; /* that is or was inside */
} __attribute__((aligned(64)));

struct sys_priv {
	pthread_mutex_t lock;
	pthread_cond_t change; /* of a seat to outside, of stop to 0 */
	_Atomic uint32_t stop;
	unsigned depth;  /* under lock: of exclusivity, 0 = nobody has it */
	pthread_t owner; /* under lock */
	_Atomic uint64_t epoch;
	uint64_t tsc_base;
	struct seat seat[256];
	_Atomic(struct guest_page *) *dir;
};

static struct sys_priv *priv(const struct x86_system *sys)
{
	return sys->priv;
}

/* ---- life ---------------------------------------------------------------------------------------- */

struct x86_system *x86_system_new(const struct x86_ops *ops, void *sys_ctx,
				  const struct log *log)
{
	struct x86_system *sys = NEW(struct x86_system);
	struct sys_priv *p = NULL;

	if (!sys || posix_memalign((void **)&p, 64, sizeof(*p))) {
		free(sys);
		return NULL;
	}
	*p = (struct sys_priv){.tsc_base = ops && ops->tsc ? 0 : -host_tsc()};
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->change, NULL);
	p->dir = mem_new(1u << DIR_BITS, sizeof(*p->dir));
	sys->priv = p;
	sys->ops = ops;
	sys->ctx = sys_ctx;
	sys->log = log;
	if (!p->dir || x86_vec_init(sys)) {
		x86_system_free(sys);
		return NULL;
	}
	return sys;
}

int x86_system_translate(struct x86_system *sys, size_t code_cache, unsigned runs)
{
	if (sys->n_cpus)
		return -EBUSY;
	sys->translates = true;
	sys->code_cache = code_cache;
	sys->translate_after = runs ? runs : 1;
	return 0;
}

int x86_system_lockstep(struct x86_system *sys)
{
	if (sys->n_cpus)
		return -EBUSY;
	if (!sys->translates)
		return -EINVAL;
	sys->lockstep = true;
	return 0;
}

int x86_system_profile(struct x86_system *sys)
{
	if (sys->n_cpus)
		return -EBUSY;
	sys->profile = true;
	return 0;
}

void x86_system_free(struct x86_system *sys)
{
	struct sys_priv *p;

	if (!sys)
		return;
	p = priv(sys);
	x86_vec_fini(sys);
	if (p->dir) {
		for (size_t n = 0; n < 1u << DIR_BITS; n++)
			free(atomic_load(&p->dir[n]));
	}
	free((void *)p->dir);
	pthread_cond_destroy(&p->change);
	pthread_mutex_destroy(&p->lock);
	free(p);
	free(sys);
}

int sys_attach(struct x86_system *sys, struct x86_cpu *c)
{
	if (c->index >= ARRAY_LEN(sys->cpus) || sys->cpus[c->index])
		return -EINVAL;
	sys->cpus[c->index] = c;
	if (sys->n_cpus <= c->index)
		sys->n_cpus = c->index + 1;
	return 0;
}

void sys_detach(struct x86_system *sys, struct x86_cpu *c)
{
	if (sys->cpus[c->index] == c)
		sys->cpus[c->index] = NULL;
}

uint64_t sys_tsc_base(const struct x86_system *sys)
{
	return priv(sys)->tsc_base;
}

/* ---- seats and exclusivity ------------------------------------------------------------------------ */

void x86_leave_guest(struct x86_cpu *c)
{
	struct sys_priv *p = priv(c->sys);

	atomic_store(&p->seat[c->index].inside, 0);
	if (unlikely(atomic_load(&p->stop))) {
		pthread_mutex_lock(&p->lock);
		pthread_cond_broadcast(&p->change);
		pthread_mutex_unlock(&p->lock);
	}
}

/* The memory map changed while the processor was outside: it leaves its block. */
static void map_changed(struct x86_cpu *c, struct seat *s, uint64_t epoch)
{
	s->epoch = epoch;
	if (c->cur)
		c->end = c->cur + 1;
}

void x86_enter_guest(struct x86_cpu *c)
{
	struct sys_priv *p = priv(c->sys);
	struct seat *s = &p->seat[c->index];
	pthread_t me = pthread_self();
	uint64_t epoch;

	atomic_store_explicit(&s->thread, me, memory_order_relaxed);
	atomic_store(&s->inside, 1);
	while (unlikely(atomic_load(&p->stop))) {
		bool mine;

		pthread_mutex_lock(&p->lock);
		mine = p->depth && pthread_equal(p->owner, me);
		if (!mine) {
			atomic_store(&s->inside, 0);
			pthread_cond_broadcast(&p->change);
			while (p->depth)
				pthread_cond_wait(&p->change, &p->lock);
			atomic_store(&s->inside, 1);
		}
		pthread_mutex_unlock(&p->lock);
		if (mine)
			break;
	}
	epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed);
	if (unlikely(s->epoch != epoch))
		map_changed(c, s, epoch);
}

void x86_safepoint(struct x86_cpu *c)
{
	atomic_fetch_and(&c->request, ~(uint32_t)REQ_SAFEPOINT);
	x86_leave_guest(c);
	x86_enter_guest(c);
}

/* Is a processor inside that this thread does not run? Asks them to come out. Lock held. */
static bool others_inside_locked(struct x86_system *sys, pthread_t me, bool ask)
{
	struct sys_priv *p = priv(sys);
	bool any = false;

	for (unsigned n = 0; n < sys->n_cpus; n++) {
		struct x86_cpu *o = sys->cpus[n];

		if (!o || !atomic_load(&p->seat[n].inside) ||
		    pthread_equal(atomic_load(&p->seat[n].thread), me))
			continue;
		any = true;
		if (ask)
			atomic_fetch_or(&o->request, REQ_SAFEPOINT);
	}
	return any;
}

/* `self`: the processor whose thread this is, if it is inside; else NULL. */
static void exclusive_begin(struct x86_system *sys, struct x86_cpu *self)
{
	struct sys_priv *p = priv(sys);
	pthread_t me = pthread_self();
	bool inside = self && atomic_load(&p->seat[self->index].inside);

	pthread_mutex_lock(&p->lock);
	if (p->depth && pthread_equal(p->owner, me)) {
		p->depth++;
		pthread_mutex_unlock(&p->lock);
		return;
	}
	if (inside) {
		atomic_store(&p->seat[self->index].inside, 0);
		pthread_cond_broadcast(&p->change);
	}
	while (p->depth)
		pthread_cond_wait(&p->change, &p->lock);
	p->depth = 1;
	p->owner = me;
	atomic_store(&p->stop, 1);
	for (bool ask = true; others_inside_locked(sys, me, ask); ask = false)
		pthread_cond_wait(&p->change, &p->lock);
	if (inside)
		atomic_store(&p->seat[self->index].inside, 1);
	pthread_mutex_unlock(&p->lock);
}

static void exclusive_end(struct x86_system *sys)
{
	struct sys_priv *p = priv(sys);

	pthread_mutex_lock(&p->lock);
	if (!--p->depth) {
		atomic_store(&p->stop, 0);
		pthread_cond_broadcast(&p->change);
	}
	pthread_mutex_unlock(&p->lock);
}

void x86_exclusive_begin(struct x86_cpu *c)
{
	if (c->sys->n_cpus > 1)
		exclusive_begin(c->sys, c);
}

void x86_exclusive_end(struct x86_cpu *c)
{
	if (c->sys->n_cpus > 1)
		exclusive_end(c->sys);
}

/* ---- guest pages ------------------------------------------------------------------------------------ */

static struct guest_page *leaf_of(const struct x86_system *sys, uint64_t gpa)
{
	if (gpa >> GPA_BITS)
		return NULL;
	return atomic_load_explicit(&priv(sys)->dir[gpa >> (12 + LEAF_BITS)],
				    memory_order_acquire);
}

static struct guest_page *page_find(const struct x86_system *sys, uint64_t gpa)
{
	struct guest_page *leaf = leaf_of(sys, gpa);

	return leaf ? &leaf[gpa >> 12 & ((1u << LEAF_BITS) - 1)] : NULL;
}

static struct guest_page *page_make(struct x86_system *sys, uint64_t gpa)
{
	struct guest_page *leaf = leaf_of(sys, gpa), *other = NULL;

	if (gpa >> GPA_BITS)
		return NULL;
	if (!leaf) {
		leaf = mem_new(1u << LEAF_BITS, sizeof(*leaf));
		if (!leaf)
			return NULL;
		if (!atomic_compare_exchange_strong(
			    &priv(sys)->dir[gpa >> (12 + LEAF_BITS)], &other, leaf)) {
			free(leaf);
			leaf = other;
		}
	}
	return &leaf[gpa >> 12 & ((1u << LEAF_BITS) - 1)];
}

struct codepage *codepage_get(struct x86_system *sys, uint64_t gpa)
{
	struct guest_page *g = page_make(sys, gpa);

	return g ? &g->code : NULL;
}

struct codepage *sys_codepage(struct x86_system *sys, uint64_t gpa)
{
	struct guest_page *g = page_find(sys, gpa);

	return g ? &g->code : NULL;
}

void *sys_page(struct x86_cpu *c, uint64_t gpa, bool *writable)
{
	struct guest_page *g = page_find(c->sys, gpa);
	uintptr_t v =
		g ? atomic_load_explicit(&g->host, memory_order_acquire) : (uintptr_t)0;
	uint64_t epoch;
	void *p;

	if (likely(v)) {
		*writable = v & HOST_WRITABLE;
		return (void *)(v & ~(uintptr_t)HOST_WRITABLE);
	}
	do { /* what a map that is gone meanwhile said does not count */
		*writable = false;
		epoch = atomic_load(&priv(c->sys)->epoch);
		p = c->ops->page(c->sys->ctx, gpa, writable);
	} while (epoch != atomic_load(&priv(c->sys)->epoch));
	if (!p)
		return NULL;
	g = page_make(c->sys, gpa);
	if (g)
		atomic_store_explicit(&g->host,
				      (uintptr_t)p | (*writable ? HOST_WRITABLE : 0),
				      memory_order_release);
	return p;
}

/* ---- decoded code ------------------------------------------------------------------------------------- */

/* The 64-byte pieces of its page that [gpa, gpa + len) touches. */
static uint64_t chunk_mask(uint64_t gpa, uint64_t len)
{
	unsigned first = gpa >> 6 & 63;
	unsigned last = (unsigned)min_u64((gpa & ~PAGE_MASK) + len - 1, 4095) >> 6;

	return (~0ull >> (63 - last)) & (~0ull << first);
}

/*
 * The first mark of a page is made while all others are outside, and their write tags are taken
 * away there: later marks need no waiting, since no processor gets a tag while chunks != 0.
 */
void codepage_mark(struct x86_cpu *c, struct codepage *cp, uint64_t gpa, unsigned len)
{
	uint64_t mask = chunk_mask(gpa, len);
	uint64_t old = atomic_load(&cp->chunks);

	while (old) {
		if ((old & mask) == mask) {
			atomic_thread_fence(memory_order_seq_cst);
			return;
		}
		if (atomic_compare_exchange_weak(&cp->chunks, &old, old | mask))
			return;
	}
	x86_exclusive_begin(c);
	atomic_fetch_or(&cp->chunks, mask);
	for (unsigned n = 0; n < c->sys->n_cpus; n++) {
		if (c->sys->cpus[n])
			tlb_protect_code(c->sys->cpus[n], gpa);
	}
	x86_exclusive_end(c);
}

/* Forgets all marks, then what was decoded under them. */
static void drop_code(struct x86_system *sys, struct codepage *cp)
{
	atomic_store(&cp->chunks, 0);
	atomic_fetch_add(&cp->gen, 1);
	for (unsigned n = 0; sys->translates && n < sys->n_cpus; n++) {
		if (sys->cpus[n])
			atomic_fetch_or(&sys->cpus[n]->request, REQ_CODE);
	}
}

void codepage_written(struct x86_cpu *c, struct codepage *cp, uint64_t gpa,
		      unsigned len)
{
	if (!len || !(atomic_load(&cp->chunks) & chunk_mask(gpa, len)))
		return;
	lockstep_code(c, cp);
	drop_code(c->sys, cp);
	if (c->cur)
		c->end = c->cur + 1;
}

/* ---- from outside ---------------------------------------------------------------------------------------- */

/* Calls fn for the known pages of [gpa, gpa + len). */
static void each_page(struct x86_system *sys, uint64_t gpa, uint64_t len,
		      void (*fn)(struct x86_system *sys, struct guest_page *g,
				 uint64_t mask))
{
	uint64_t end = gpa + len < gpa ? ~0ull : gpa + len;

	end = min_u64(end, 1ull << GPA_BITS);
	while (gpa < end) {
		struct guest_page *g = page_find(sys, gpa);
		uint64_t next = (gpa & PAGE_MASK) + PAGE_SIZE;

		if (g)
			fn(sys, g, chunk_mask(gpa, min_u64(next, end) - gpa));
		else
			next = ((gpa >> (12 + LEAF_BITS)) + 1) << (12 + LEAF_BITS);
		gpa = next;
	}
}

static void page_forget(struct x86_system *sys, struct guest_page *g, uint64_t mask)
{
	(void)mask;
	if (!atomic_load(&g->host) && !atomic_load(&g->code.chunks))
		return;
	drop_code(sys, &g->code);
	atomic_store(&g->host, 0);
}

void x86_flush_memory(struct x86_system *sys, uint64_t gpa, uint64_t len)
{
	exclusive_begin(sys, NULL);
	atomic_fetch_add(&priv(sys)->epoch, 1);
	each_page(sys, gpa, len, page_forget);
	for (unsigned n = 0; n < sys->n_cpus; n++) {
		if (sys->cpus[n]) {
			tlb_flush_all(sys->cpus[n]);
			atomic_fetch_or(&sys->cpus[n]->request, REQ_SAFEPOINT);
		}
	}
	exclusive_end(sys);
}

static void page_written(struct x86_system *sys, struct guest_page *g, uint64_t mask)
{
	if (atomic_load(&g->code.chunks) & mask)
		drop_code(sys, &g->code);
}

/* The bytes were stored before: see mmu.c on the order. */
void x86_memory_written(struct x86_system *sys, uint64_t gpa, uint64_t len)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (len)
		each_page(sys, gpa, len, page_written);
}

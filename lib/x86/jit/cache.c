/*
 * x86/jit/cache.c - translations: their memory, how they are found, linked and forgotten.
 *
 * Host code is in a memfd that is mapped twice, writable and executable. When it is full,
 * everything is forgotten: a new epoch begins, so that this takes no longer the more there was. A page whose code was written is noticed by its generation: whoever
 * changes that sets REQ_CODE, and translations are left for a request before they go round.
 * vCPU thread.
 */
#include "x86/jit/jit_int.h"
#include "x86/jit/lockstep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "x86/op_tmpl.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define ARENA_SIZE (256u << 10)

struct jit_arena {
	struct jit_arena *next;
	size_t used;
	uint64_t mem[ARENA_SIZE / 8];
};

/* ---- memory --------------------------------------------------------------------------------------- */

void *jit_alloc(struct jit *j, size_t size)
{
	struct jit_arena *a = j->arena;
	void *p;

	size = align_up(size, 16);
	if (!a || sizeof(a->mem) - a->used < size) {
		a = j->spare;
		if (a)
			j->spare = a->next;
		else
			a = malloc(sizeof(*a));
		if (!a)
			return NULL;
		a->next = j->arena;
		a->used = 0;
		j->arena = a;
	}
	p = (char *)a->mem + a->used;
	a->used += size;
	memset(p, 0, size);
	return p;
}

/* All that was allocated is free for use again. */
static void arena_recycle(struct jit *j)
{
	while (j->arena) {
		struct jit_arena *a = j->arena;

		j->arena = a->next;
		a->next = j->spare;
		j->spare = a;
	}
}

static void arena_free(struct jit *j)
{
	arena_recycle(j);
	while (j->spare) {
		struct jit_arena *a = j->spare;

		j->spare = a->next;
		free(a);
	}
}

/* What follows the instruction that is interpreted. */
static void op_return(struct x86_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
}

static bool map_code(struct jit *j, size_t size)
{
	int fd = memfd_create("x86-translated-code", MFD_CLOEXEC | MFD_EXEC);

	j->rw = j->rx = MAP_FAILED;
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("x86-translated-code", MFD_CLOEXEC);
	if (fd < 0)
		return false;
	if (ftruncate(fd, (off_t)size) == 0) {
		j->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		j->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	}
	close(fd);
	j->size = size;
	return j->rw != MAP_FAILED && j->rx != MAP_FAILED;
}

struct jit *jit_new(struct x86_cpu *c, size_t cache_size)
{
	struct jit *j = NEW(struct jit);

	if (!j)
		return NULL;
	j->c = c;
	c->jit_fp = 0xff;
	j->bmi2 = __builtin_cpu_supports("bmi2");
	if (!map_code(j, align_up(cache_size, PAGE_SIZE))) {
		jit_free(j);
		return NULL;
	}
	j->one[1] = (struct insn){.fn = op_return};
	jit_make_thunks(j);
	jit_flush(j);
	return j;
}

void jit_free(struct jit *j)
{
	if (!j)
		return;
	arena_free(j);
	if (j->rw && j->rw != MAP_FAILED)
		munmap(j->rw, j->size);
	if (j->rx && j->rx != MAP_FAILED)
		munmap(j->rx, j->size);
	free(j);
}

/* ---- links ------------------------------------------------------------------------------------------ */

static void set_rel(uint8_t *rel, const uint8_t *to_rw)
{
	int32_t d = (int32_t)(to_rw - (rel + 4));

	memcpy(rel, &d, 4);
}

static void unlink_in(struct jit_code *code)
{
	while (code->in) {
		struct jit_link *l = code->in;

		code->in = l->next_in;
		l->to = NULL;
		set_rel(l->rel, l->away);
	}
}

static uint64_t page_of(const struct block *b)
{
	return b->key >> BLOCK_KEY_BITS & PAGE_MASK;
}

static void unlink_one(struct jit_link *l)
{
	struct jit_link **at = &l->to->in;

	while (*at != l)
		at = &(*at)->next_in;
	*at = l->next_in;
	l->to = NULL;
}

/* Lets l go to `to` if it may. The TLB has just found `to`. */
static void link_to(struct jit *j, struct jit_link *l, struct jit_code *to)
{
	const struct jit_code *from = l->from;
	uint64_t gpa = page_of(to->b);

	if (l->rip != to->rip || l->solo != to->solo || from->mode != to->mode ||
	    (from->b->key ^ to->b->key) & ((1u << BLOCK_KEY_BITS) - 1))
		return;
	if (!l->gpa && gpa != page_of(from->b))
		return;
	l->epoch = j->c->jit_epoch;
	if (l->to == to)
		return;
	if (l->to)
		unlink_one(l);
	if (l->gpa)
		memcpy(l->gpa, &gpa, 8);
	set_rel(l->rel, j->rw + (to->entry - j->rx));
	l->to = to;
	l->next_in = to->in;
	to->in = l;
}

static bool is_32(const struct block *b)
{
	return (b->key & BLOCK_MODE) == MODE_32;
}

/* The pair. */
static struct jit_target *target_of(struct jit *j, const struct jit_code *code)
{
	uint32_t h = (uint32_t)code->rip ^ (uint32_t)code->rip >> 4;

	return j->target[code->mode][is_32(code->b)][h & (JIT_TARGETS - 1)];
}

static void target_put(struct jit *j, const struct jit_code *code)
{
	struct jit_target *t = target_of(j, code);

	if (t[0].rip != code->rip)
		t[1] = t[0];
	t[0] = (struct jit_target){.rip = code->rip,
				   .epoch = j->c->jit_epoch,
				   .gpa = page_of(code->b),
				   .entry = code->entry};
}

/* ---- pages ------------------------------------------------------------------------------------------- */

/* Nothing goes there by itself any more. */
static void isolate(struct jit *j, struct jit_code *code)
{
	struct jit_target *t = target_of(j, code);

	unlink_in(code);
	for (unsigned n = 0; n < 2; n++) {
		if (t[n].entry == code->entry)
			t[n] = NO_TARGET;
	}
}

static void page_drop(struct jit *j, struct jit_page *p)
{
	for (struct jit_code *code = p->codes; code; code = code->next_of_page) {
		isolate(j, code);
		code->b->jit = NULL;
		code->b->hot = 0;
	}
	p->codes = NULL;
	p->drops++;
	j->n_drops++;
	j->link = NULL;
}

struct jit_page *jit_page_get(struct jit *j, struct codepage *cp)
{
	struct jit_page **h =
		&j->hash[((uintptr_t)cp >> 4) * 0x9e3779b1u >> 8 & (JIT_PAGE_HASH - 1)];
	struct jit_page *p = *h;
	uint32_t gen = atomic_load_explicit(&cp->gen, memory_order_acquire);

	while (p && p->cp != cp)
		p = p->next_hash;
	if (p && p->gen != gen)
		page_drop(j, p);
	if (!p) {
		p = jit_alloc(j, sizeof(*p));
		if (!p)
			return NULL;
		p->cp = cp;
		p->next_hash = *h;
		*h = p;
		p->next = j->pages;
		j->pages = p;
	}
	p->gen = gen;
	return p;
}

void jit_revalidate(struct jit *j)
{
	for (struct jit_page *p = j->pages; p; p = p->next) {
		uint32_t gen = atomic_load_explicit(&p->cp->gen, memory_order_acquire);

		if (p->gen == gen)
			continue;
		if (p->codes)
			page_drop(j, p);
		p->gen = gen;
	}
}

void jit_codes_add(struct jit *j, struct jit_page *p, struct jit_code *code)
{
	struct block *b = code->b;

	for (struct jit_code *k = b->crosses ? p->codes : NULL; k;
	     k = k->next_of_page) {
		if (k->b->key == b->key && k->b != b)
			isolate(j, k);
	}
	code->next_of_page = p->codes;
	p->codes = code;
	code->next_of_block = jit_codes(j, b);
	b->jit = code;
	b->jit_epoch = j->epoch;
}

void jit_flush(struct jit *j)
{
	uint64_t start = __builtin_ia32_rdtsc();

	j->epoch++;
	memset(j->hash, 0, sizeof(j->hash));
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned n = 0; n < 4 * JIT_TARGETS; n++)
			j->target[m][n & 1][n / 4][n / 2 & 1] = NO_TARGET;
	}
	j->pages = NULL;
	j->link = NULL;
	j->used = j->fixed;
	j->n_sites = 0;
	tlb_forget_sites(j->c);
	arena_recycle(j);
	j->n_flushes++;
	j->flush_ticks = max_u64(j->flush_ticks, __builtin_ia32_rdtsc() - start);
}

/* ---- running ------------------------------------------------------------------------------------------- */

static bool may_translate(const struct x86_cpu *c, const struct block *b)
{
	unsigned mode = b->key & ((1u << BLOCK_KEY_BITS) - 1);

	return c->mmu_mode != MMU_USER_AC &&
	       (mode == BLOCK_64 || mode == BLOCK_32_FLAT);
}

static struct jit_code *find(struct jit *j, struct block *b, bool solo)
{
	struct x86_cpu *c = j->c;
	struct jit_code *code = jit_codes(j, b);

	for (; code; code = code->next_of_block) {
		if (code->rip == c->rip && code->mode == c->mmu_mode &&
		    code->solo == solo)
			return code;
	}
	if (!may_translate(c, b) || ++b->hot < c->sys->translate_after)
		return NULL;
	b->hot = 0;
	return jit_translate(j, b, solo);
}

void jit_enter(struct x86_cpu *c, const struct jit_code *code)
{
	struct jit *j = c->jit;

	c->jit_link = NULL;
	j->n_run++;
	time_is(c, X86_TIME_TRANSLATED);
	((void (*)(struct x86_cpu *, const void *))j->enter)(c, code->entry);
	time_is(c, X86_TIME_INTERPRETER);
	if (c->jit_link)
		c->rip = ((struct jit_link *)c->jit_link)->rip;
}

bool jit_run(struct x86_cpu *c, struct block *b)
{
	struct jit *j = c->jit;
	bool solo = j->link && j->link->solo && j->link->rip == c->rip;
	struct jit_code *code;
	struct jit_link *l;

	if (unlikely(c->lockstep != NULL))
		solo = lockstep_solo(c->lockstep);
	code = c->jit_skip ? NULL : find(j, b, solo);
	l = j->link; /* NULL if everything was just forgotten */

	j->link = NULL;
	c->jit_skip = false;
	if (!code)
		return false;
	code->epoch = c->jit_epoch;
	if (unlikely(c->lockstep != NULL)) {
		lockstep_run(c, b, code);
		return true;
	}
	if (l)
		link_to(j, l, code);
	if (!solo)
		target_put(j, code);
	jit_enter(c, code);
	j->link = c->jit_link;
	j->n_unlinked += j->link != NULL;
	return true;
}

void jit_stats(const struct jit *j, struct x86_stats *st)
{
	if (!j->c->counts)
		st->insns += j->n_interp;
	st->translated = j->n_codes;
	st->entered = j->n_run;
	st->single = j->n_interp;
	st->forgotten = j->n_flushes - 1; /* the first is jit_new()'s */
	st->forget_ticks = max_u64(st->forget_ticks, j->flush_ticks);
	st->unlinked = j->n_unlinked;
	st->dropped = j->n_drops;
	st->code_bytes = j->used;
}

/*
 * x86/jit/lockstep.c - runs a block both ways and compares. vCPU thread.
 *
 * First the interpreter: each store takes the slow path, which tells it before (lockstep.h), and
 * the line of memory is kept. Then registers and the bytes that were stored get their old values
 * back, and the translation runs from them; for that time the pages have the write tags that its stores look for.
 * Translations are never linked, so it ends where the block does. Other processors
 * stand still meanwhile; what devices write in between is told from a difference by doing all of it again.
 *
 * A block that meets a device, the time or a random number is not repeated: the interpreter did it, and
 * that is that. Requests of others wait until the block is done.
 *
 * Behind a block, status flags that nobody reads may differ. So they are compared where it raised an exception
 * only: the next block's translation begins with what this one's left, while the interpreter goes on with its own.
 */
#include "x86/jit/lockstep_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define MAX_TRIES     4  /* until a difference is believed */
#define MAX_DISTURBED 64 /* and until the interpreter's result is taken without one */

/* Requests that a block makes itself. */
#define REQ_OWN ((uint32_t)(REQ_SHADOW | REQ_TRAP))

#define SPAN_TO(first, last)                                          \
	{                                                             \
		offsetof(struct x86_cpu, first),                      \
			offsetof(struct x86_cpu, last) +              \
				sizeof(((struct x86_cpu *)0)->last) - \
				offsetof(struct x86_cpu, first)       \
	}
#define SPAN(field) SPAN_TO(field, field)

const struct ls_span ls_spans[] = {
	SPAN(gpr_),
	SPAN(st),
	SPAN(rip),
	SPAN_TO(seg_base, ev),
	SPAN_TO(star, tsc_offset),
	{offsetof(struct x86_cpu, xsave), 832},
	SPAN(shutdown),
	SPAN(irq_waits),
	SPAN_TO(tf_armed, dr_hit),
};
const unsigned ls_n_spans = ARRAY_LEN(ls_spans);

/* ---- registers ---------------------------------------------------------------------------------- */

const uint8_t *ls_snap_at(const struct ls_snap *s, size_t off)
{
	size_t at = 0;

	for (unsigned n = 0; n < ARRAY_LEN(ls_spans); n++) {
		if (off - ls_spans[n].off < ls_spans[n].len)
			return s->bytes + at + (off - ls_spans[n].off);
		at += ls_spans[n].len;
	}
	return NULL;
}

static void snap_take(struct x86_cpu *c, struct ls_snap *s)
{
	size_t at = 0;

	for (unsigned n = 0; n < ARRAY_LEN(ls_spans); n++) {
		memcpy(s->bytes + at, (const char *)c + ls_spans[n].off,
		       ls_spans[n].len);
		at += ls_spans[n].len;
	}
	s->exc = c->exc;
	s->cr2 = c->exc_cr2;
}

static void snap_put(struct x86_cpu *c, const struct ls_snap *s)
{
	size_t at = 0;

	for (unsigned n = 0; n < ARRAY_LEN(ls_spans); n++) {
		memcpy((char *)c + ls_spans[n].off, s->bytes + at, ls_spans[n].len);
		at += ls_spans[n].len;
	}
	c->exc = s->exc;
	c->exc_cr2 = s->cr2;
	c->tlb = c->tlbs[c->mmu_mode];
}

/* ---- memory ------------------------------------------------------------------------------------- */

static struct ls_line *line_find(struct lockstep *ls, const uint8_t *host,
				 uint32_t *slot)
{
	uint32_t h = (uint32_t)((uintptr_t)host / LS_LINE * 0x9e3779b1u);

	for (h %= LS_HASH; ls->hash[h].stamp == ls->stamp; h = (h + 1) % LS_HASH) {
		if (ls->line[ls->hash[h].line].host == host)
			return &ls->line[ls->hash[h].line];
	}
	*slot = h;
	return NULL;
}

/* The line at `host`, kept if it is new. NULL: there are too many. */
static struct ls_line *line_get(struct lockstep *ls, uint8_t *host)
{
	uint32_t slot;
	struct ls_line *l = line_find(ls, host, &slot);

	if (l || ls->n_lines == LS_LINES)
		return l;
	l = &ls->line[ls->n_lines];
	ls->hash[slot].stamp = ls->stamp;
	ls->hash[slot].line = ls->n_lines++;
	l->host = host;
	l->written = 0;
	memcpy(l->before, host, LS_LINE);
	if (ls->phase == LS_TRANSLATOR)
		memcpy(l->after, host, LS_LINE);
	return l;
}

static void entry_note(struct lockstep *ls, struct tlb_entry *t)
{
	for (unsigned n = 0; n < ls->n_entries; n++) {
		if (ls->entry[n] == t)
			return;
	}
	if (ls->n_entries < LS_ENTRIES) /* else its stores take the slow path */
		ls->entry[ls->n_entries++] = t;
}

void lockstep_note_store(struct x86_cpu *c, struct tlb_entry *t, void *host,
			 unsigned len)
{
	struct lockstep *ls = c->lockstep;
	uint8_t *p = host;

	if (ls->phase == LS_IDLE || ls->unique)
		return;
	if (ls->phase == LS_INTERPRETER)
		entry_note(ls, t);
	while (len) {
		unsigned off = (uintptr_t)p % LS_LINE;
		unsigned n = (unsigned)min_u64(len, LS_LINE - off);
		struct ls_line *l = line_get(ls, p - off);

		if (!l) {
			ls->unique = ls->phase == LS_INTERPRETER;
			return;
		}
		l->written |= (~0ull >> (64 - n)) << off;
		p += n;
		len -= n;
	}
}

static void lines_forget(struct lockstep *ls)
{
	ls->n_lines = ls->n_entries = ls->n_codes = 0;
	if (!++ls->stamp) {
		memset(ls->hash, 0, sizeof(ls->hash));
		ls->stamp = 1;
	}
}

/* Stores the written bytes of each line, and no others: devices write, too. */
static void lines_put(struct lockstep *ls, bool after)
{
	for (unsigned n = 0; n < ls->n_lines; n++) {
		struct ls_line *l = &ls->line[n];
		const uint8_t *from = after ? l->after : l->before;

		if (l->written == ~0ull) {
			memcpy(l->host, from, LS_LINE);
			continue;
		}
		for (uint64_t w = l->written; w; w &= w - 1)
			l->host[__builtin_ctzll(w)] = from[__builtin_ctzll(w)];
	}
}

static void lines_keep(struct lockstep *ls)
{
	for (unsigned n = 0; n < ls->n_lines; n++)
		memcpy(ls->line[n].after, ls->line[n].host, LS_LINE);
}

static bool lines_agree(const struct lockstep *ls)
{
	for (unsigned n = 0; n < ls->n_lines; n++) {
		if (memcmp(ls->line[n].after, ls->line[n].host, LS_LINE) != 0)
			return false;
	}
	return true;
}

/* The pages that the interpreter wrote to get their write tags, or lose them. */
static void tags(struct lockstep *ls, bool give)
{
	for (unsigned n = 0; n < ls->n_entries; n++)
		tlb_write_tag(ls->c, ls->entry[n], give);
}

/* ---- what else is told ---------------------------------------------------------------------------- */

void lockstep_note_walk(struct x86_cpu *c, const void *host)
{
	struct lockstep *ls = c->lockstep;
	const uint8_t *p = host;
	uint32_t slot;

	/* to undo the store would undo the walk's flag, and no walk would set it again */
	if (ls->phase == LS_INTERPRETER &&
	    line_find(ls, p - (uintptr_t)p % LS_LINE, &slot))
		ls->unique = true;
}

void lockstep_note_code(struct x86_cpu *c, struct codepage *cp)
{
	struct lockstep *ls = c->lockstep;

	if (ls->phase != LS_INTERPRETER)
		return;
	if (ls->n_codes == LS_CODES) {
		ls->unique = true;
		return;
	}
	ls->code_page[ls->n_codes].cp = cp;
	ls->code_page[ls->n_codes++].chunks = atomic_load(&cp->chunks);
}

void lockstep_note_unmap(struct x86_cpu *c)
{
	c->lockstep->unmapped = true;
}

/* What follows may wait for another processor. */
void lockstep_note_once(struct x86_cpu *c)
{
	struct lockstep *ls = c->lockstep;

	if (ls->phase == LS_IDLE)
		return;
	ls->unique |= ls->phase == LS_INTERPRETER;
	ls->device |= ls->phase == LS_TRANSLATOR;
	if (ls->exclusive)
		x86_exclusive_end(c);
	ls->exclusive = false;
}

/* ---- running -------------------------------------------------------------------------------------- */

/* From instruction i of the block to its end. */
static void interpret_from(struct lockstep *ls, const struct insn *i)
{
	struct x86_cpu *c = ls->c;

	c->block_rip = ls->rip;
	c->end = ls->b->end;
	do {
		c->cur = i;
		i->fn(c, i);
		i = c->cur + 1;
	} while (i != c->end);
	i--;
	c->stats.insns += i->idx + 1u;
	if (!(i->flags & I_END))
		c->rip = next_rip(c, i);
	c->cur = NULL;
}

static void interpret(struct lockstep *ls)
{
	interpret_from(ls, ls->b->insn);
}

/* The translation, and what it leaves to the interpreter. */
static void translated(struct lockstep *ls)
{
	struct x86_cpu *c = ls->c;
	const struct jit_link *link;

	jit_enter(c, ls->code);
	link = c->jit_link;
	if (!c->jit_skip && !(link && link->solo))
		return;
	c->jit_skip = false;
	for (unsigned n = 0; n < ls->b->n; n++) {
		if (c->rip == rip_wrap(c, ls->rip + ls->b->insn[n].off)) {
			interpret_from(ls, &ls->b->insn[n]);
			return;
		}
	}
}

/* Requests of others wait; returns those of the processor's own. */
static uint32_t requests_park(struct x86_cpu *c, uint32_t *parked)
{
	uint32_t req = atomic_exchange(&c->request, REQ_JIT);

	req &= ~(uint32_t)REQ_JIT;
	*parked |= req & ~REQ_OWN;
	c->lockstep->disturbed |= req & ~REQ_OWN & ~(uint32_t)REQ_CODE;
	return req & REQ_OWN;
}

static void run(struct lockstep *ls, enum ls_phase phase,
		void (*fn)(struct lockstep *ls), struct ls_snap *s, uint32_t *parked)
{
	struct x86_cpu *c = ls->c;

	ls->phase = phase;
	s->raised = false;
	if (!setjmp(c->jmp)) {
		fn(ls);
	} else {
		x86_abandon(c);
		s->raised = true;
	}
	c->cur = NULL;
	c->blocks->link = NULL;
	x86_fp_sync(c);
	ls->phase = LS_IDLE;
	snap_take(c, s);
	s->own = requests_park(c, parked);
}

/* Back to where the block began. */
static void undo(struct lockstep *ls)
{
	struct x86_cpu *c = ls->c;

	lines_put(ls, false);
	snap_put(c, &ls->s0);
	for (unsigned n = 0; n < ls->n_codes; n++)
		atomic_fetch_or(&ls->code_page[n].cp->chunks, ls->code_page[n].chunks);
	if (ls->unmapped)
		tlb_flush_all(c);
	ls->unmapped = false;
}

/* ---- comparing ------------------------------------------------------------------------------------ */

static bool raised_same(const struct ls_snap *a, const struct ls_snap *b)
{
	const struct exc *x = &a->exc, *y = &b->exc;

	if (!a->raised || !b->raised)
		return a->raised == b->raised;
	return x->vec == y->vec && x->has_code == y->has_code &&
	       (!x->has_code || x->code == y->code) && x->soft == y->soft &&
	       x->trap == y->trap && (!x->trap || x->rip == y->rip) &&
	       (x->vec != EX_PF || a->cr2 == b->cr2);
}

static bool agree(const struct lockstep *ls)
{
	const struct ls_snap *a = &ls->s1, *b = &ls->s2;
	size_t at = 0;

	for (unsigned n = 0; n < ARRAY_LEN(ls_spans); n++) {
		if ((ls_spans[n].off != offsetof(struct x86_cpu, st) || a->raised) &&
		    memcmp(a->bytes + at, b->bytes + at, ls_spans[n].len) != 0)
			return false;
		at += ls_spans[n].len;
	}
	return !ls->device && a->own == b->own && raised_same(a, b) && lines_agree(ls);
}

static uint64_t events(const struct x86_cpu *c)
{
	return c->stats.irqs + c->stats.exceptions;
}

/* The status flags that the translation begins with. */
static void flags_for_translator(struct lockstep *ls)
{
	const struct ls_last *l = &ls->last;

	if (l->next == ls->rip && l->events == events(ls->c) && l->st.w == ls->c->st.w)
		ls->c->st = l->st_translator;
}

/* Both ways; false: they differ. */
static bool both(struct lockstep *ls, uint32_t *parked)
{
	ls->unique = ls->device = ls->unmapped = ls->disturbed = false;
	lines_forget(ls);
	run(ls, LS_INTERPRETER, interpret, &ls->s1, parked);
	if (ls->unique)
		return true;
	lines_keep(ls);
	/*
	 * Perhaps it was left in the middle of a REP. The translation would come further, and its stores in
	 * lines that are not kept could not be undone.
	 */
	if (ls->disturbed)
		return false;
	undo(ls);
	flags_for_translator(ls);
	tags(ls, true);
	run(ls, LS_TRANSLATOR, translated, &ls->s2, parked);
	tags(ls, false);
	return agree(ls);
}

/* The interpreter's result, without a comparison. */
static bool give_up(struct lockstep *ls)
{
	undo(ls);
	lines_put(ls, true);
	return true;
}

static void done(struct lockstep *ls, bool same, const struct x86_stats *st)
{
	struct x86_cpu *c = ls->c;
	struct ls_last last = {.rip = ls->rip};

	if (!same) {
		ls_report(ls);
		ls->differs = true;
		lines_put(ls, true);
	}
	snap_put(c, &ls->s1);
	c->shutdown |= !same;
	if (!ls->unique)
		c->stats = *st;
	last.next = c->rip;
	last.events = events(c);
	last.st = last.st_translator = c->st;
	if (!ls->unique && !ls->s1.raised)
		last.st_translator = ls_snap_st(&ls->s2);
	ls->last = last;
	ls->compared += !ls->unique;
	ls->n_unique += ls->unique;
}

void lockstep_run(struct x86_cpu *c, struct block *b, const struct jit_code *code)
{
	struct lockstep *ls = c->lockstep;
	struct x86_stats stats;
	uint32_t parked = 0;
	unsigned disturbed = 0;
	bool same = false;

	if (atomic_load(&c->request) & ~(uint32_t)REQ_JIT)
		return;
	x86_exclusive_begin(c);
	if (!block_valid(b)) {
		x86_exclusive_end(c);
		return;
	}
	ls->exclusive = true;
	ls->b = b;
	ls->code = code;
	ls->rip = c->rip;
	memcpy(ls->out, c->jmp, sizeof(ls->out));
	x86_fp_sync(c);
	snap_take(c, &ls->s0);
	requests_park(c, &parked);
	for (unsigned n = 0; n < MAX_TRIES && !same;) {
		if (n + disturbed)
			undo(ls);
		stats = c->stats;
		same = both(ls, &parked);
		if (same || !ls->disturbed)
			n++;
		else if (++disturbed == MAX_DISTURBED)
			same = ls->unique = give_up(ls);
	}
	if (ls->s1.raised)
		stats.exceptions++;
	stats.insns = c->stats.insns;
	done(ls, same, &stats);
	memcpy(c->jmp, ls->out, sizeof(ls->out));
	atomic_fetch_or(&c->request, parked | ls->s1.own);
	if (ls->exclusive)
		x86_exclusive_end(c);
	ls->exclusive = false;
	if (same && ls->s1.raised)
		longjmp(c->jmp, 1);
}

/* ---- life ------------------------------------------------------------------------------------------ */

struct lockstep *lockstep_new(struct x86_cpu *c)
{
	struct lockstep *ls = NEW(struct lockstep);

	if (ls)
		ls->c = c;
	return ls;
}

/* Translations without groups are tried, too. */
bool lockstep_solo(const struct lockstep *ls)
{
	return (ls->compared & 7) == 7;
}

void lockstep_free(struct lockstep *ls)
{
	free(ls);
}

bool lockstep_differs(const struct lockstep *ls)
{
	return ls->differs;
}

void lockstep_stats(const struct lockstep *ls, struct x86_stats *st)
{
	st->compared = ls->compared;
	st->unique = ls->n_unique;
}

/*
 * x86/jit/lockstep.h - lockstep: each block is interpreted, then run by its translation from the
 * same state, and the results compared. Private to lib/x86. vCPU thread.
 *
 * The slow paths of memory tell what they do here. In lockstep TLBs have no write tags while a block
 * is interpreted, so that every store is told of.
 */
#ifndef X86_JIT_LOCKSTEP_H
#define X86_JIT_LOCKSTEP_H

#include "x86/x86_int.h"

struct block;
struct jit_code;

/* NULL: no memory. */
struct lockstep *lockstep_new(struct x86_cpu *c);
void lockstep_free(struct lockstep *ls);

/*
 * Runs block b, which lies at c->rip and whose translation is `code`: the interpreter's result stands.
 * Nothing runs when something waits to be served. Raises what the block raises. A difference
 * that comes again each time is reported to the log and stops the processor.
 */
void lockstep_run(struct x86_cpu *c, struct block *b, const struct jit_code *code);

/* Is the next block to run by its translation without groups of accesses? */
bool lockstep_solo(const struct lockstep *ls);
/* Has a difference stopped the processor? */
bool lockstep_differs(const struct lockstep *ls);
void lockstep_stats(const struct lockstep *ls, struct x86_stats *st);

/* ---- for c->lockstep only: called by the inline functions below */

void lockstep_note_store(struct x86_cpu *c, struct tlb_entry *t, void *host,
			 unsigned len);
void lockstep_note_walk(struct x86_cpu *c, const void *host);
void lockstep_note_code(struct x86_cpu *c, struct codepage *cp);
void lockstep_note_unmap(struct x86_cpu *c);
void lockstep_note_once(struct x86_cpu *c);

/* ---- what is told ----------------------------------------------------------------------------- */

/* Before `len` bytes at `host`, in the page that t translates, are changed. */
static inline void lockstep_store(struct x86_cpu *c, struct tlb_entry *t, void *host,
				  unsigned len)
{
	if (unlikely(c->lockstep != NULL))
		lockstep_note_store(c, t, host, len);
}

/* A page table's entry at `host` was changed by a walk. */
static inline void lockstep_walk(struct x86_cpu *c, const void *host)
{
	if (unlikely(c->lockstep != NULL))
		lockstep_note_walk(c, host);
}

/* Before the marks of decoded code in a page are dropped. */
static inline void lockstep_code(struct x86_cpu *c, struct codepage *cp)
{
	if (unlikely(c->lockstep != NULL))
		lockstep_note_code(c, cp);
}

/* Translations of addresses were forgotten. */
static inline void lockstep_unmap(struct x86_cpu *c)
{
	if (unlikely(c->lockstep != NULL))
		lockstep_note_unmap(c);
}

/* Before something that cannot be done twice: devices, time, random numbers. */
static inline void lockstep_once(struct x86_cpu *c)
{
	if (unlikely(c->lockstep != NULL))
		lockstep_note_once(c);
}

#endif

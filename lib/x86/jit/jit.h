/*
 * x86/jit/jit.h - the translator: blocks of guest code as host code. Private to lib/x86.
 *
 * A processor that translates has a struct jit; its blocks (block.h) are interpreted until they are
 * hot, then translated. Everything here runs in the vCPU thread; a processor's translations are its
 * own, so nothing is locked.
 */
#ifndef X86_JIT_JIT_H
#define X86_JIT_JIT_H

#include "x86/block.h"

struct jit;

/* Room below struct x86_cpu that translated code and signal handlers use as stack. */
#define JIT_STACK (64u << 10)

/* The least host code that makes sense. */
#define JIT_CACHE_MIN (1u << 20)

/* cache_size: bytes of host code, at most. NULL: no memory, or this host cannot. */
struct jit *jit_new(struct x86_cpu *c, size_t cache_size);
void jit_free(struct jit *j);

/* All translations are forgotten: blocks are about to be. */
void jit_flush(struct jit *j);

/* After REQ_CODE: forgets the translations of pages whose code was written. */
void jit_revalidate(struct jit *j);

/*
 * Runs the translation of `b`, which lies at c->rip, and what follows it; false: it has none yet,
 * and is to be interpreted. Raises like a handler. Afterwards c->rip is where to go on.
 */
bool jit_run(struct x86_cpu *c, struct block *b);

/* Fills what of *st is about translations. */
void jit_stats(const struct jit *j, struct x86_stats *st);

#endif

/*
 * x86/op_jump.h - how a branch reaches its next block: directly when it has been there before.
 * Private to op_*.c. vCPU thread.
 *
 * A jump to the block's own page goes there without looking at the TLB: the page was translated
 * when this block was entered, and whatever changes translations ends the block by I_STOP. A jump
 * to another page keeps the block as a guess that the TLB has to confirm.
 */
#ifndef X86_OP_JUMP_H
#define X86_OP_JUMP_H

#include "x86/block.h"
#include "x86/op_tmpl.h"

/* Leaves the block to run.c, which goes on at `rip`. */
INLINE void jump_leave(struct x86_cpu *c, const struct insn *i, uint64_t rip)
{
	c->rip = rip;
	c->end = i + 1;
}

/* Goes into block `b`, which is valid and lies at `rip`, from instruction i of another. */
INLINE void jump_enter(struct x86_cpu *c, const struct insn *i, const struct block *b,
		       uint64_t rip)
{
	c->stats.insns += i->idx + 1u;
	c->block_rip = rip;
	c->end = b->end;
	c->cur = b->insn;
	b->insn[0].fn(c, b->insn);
}

/*
 * Going from block to block within handlers needs tail calls that are jumps: else the host's stack would
 * grow without end.
 */
#ifdef __has_feature
#define WITH_ASAN __has_feature(address_sanitizer)
#else
#define WITH_ASAN 0
#endif
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !WITH_ASAN
#define CHAIN 1
#else
#define CHAIN 0
#endif

INLINE bool jump_may_chain(const struct x86_cpu *c)
{
#if CHAIN
	return likely(!atomic_load_explicit(&c->request, memory_order_relaxed));
#else
	(void)c;
	return false;
#endif
}

/* To a target that is always the same distance away; `rip` is its linear address. */
INLINE void jump_direct(struct x86_cpu *c, const struct insn *i, uint64_t rip)
{
	const struct block *b = i->data;

	if (likely(b != NULL) && jump_may_chain(c) && likely(block_valid(b))) {
		if (likely(i->flags & I_NEAR)) {
			jump_enter(c, i, b, rip);
			return;
		} else {
			const struct tlb_entry *t = tlb_of(c, rip, false);

			if (likely(t->tag_exec == (rip & PAGE_MASK)) &&
			    likely(t->gpa == (b->key >> BLOCK_KEY_BITS & PAGE_MASK))) {
				jump_enter(c, i, b, rip);
				return;
			}
		}
	}
	c->blocks->link = (struct insn *)i; /* blocks are this thread's to change */
	jump_leave(c, i, rip);
}

/*
 * To a computed linear address; registers are as they will be behind the jump. mode: BLOCK_64 or
 * BLOCK_32_FLAT, which does not change.
 */
INLINE void jump_indirect(struct x86_cpu *c, const struct insn *i, uint64_t rip,
			  unsigned mode)
{
	if (jump_may_chain(c)) {
		const struct block *b = block_lookup(c, rip, mode);

		if (likely(b != NULL)) {
			jump_enter(c, i, b, rip);
			return;
		}
	}
	jump_leave(c, i, rip);
}

/* A near branch to rip + imm in 16- and 32-bit code: wrapped, and checked against CS.limit. */
void jump_direct_legacy(struct x86_cpu *c, const struct insn *i);

#endif

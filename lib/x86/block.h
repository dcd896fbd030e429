/*
 * x86/block.h - blocks of decoded instructions: their form, and how to find one quickly.
 * Private to block.c, run.c and the branches (op_jump.h). vCPU thread.
 */
#ifndef X86_BLOCK_H
#define X86_BLOCK_H

#include "x86/x86_int.h"

struct jit_code;

/* What a block was decoded for, beside its address. */
enum {
	BLOCK_MODE = 3,      /* mask of MODE_* */
	BLOCK_FLAT = 4,      /* CS has base 0 and no limit */
	BLOCK_FLAT_DATA = 8, /* = DECODE_FLAT_DATA */
	BLOCK_USED = 16,     /* always: no key is 0 */
	BLOCK_KEY_BITS = 5,
	BLOCK_64 = MODE_64 | BLOCK_FLAT | BLOCK_USED,
	BLOCK_32 = MODE_32 | BLOCK_FLAT | BLOCK_USED,
	BLOCK_32_FLAT = BLOCK_32 | BLOCK_FLAT_DATA,
};

/*
 * A run of instructions in one page, or one instruction that crosses into a second page. Execution
 * may leave it in the middle (branches); its last entry has I_STOP or is op_block_end.
 */
struct block {
	uint64_t
		key; /* guest-physical address << BLOCK_KEY_BITS | MODE_* | BLOCK_FLAT... */
	struct codepage *cp;
	uint32_t gen; /* cp->gen when it was decoded: valid while equal */
	uint16_t len; /* of the code in bytes */
	uint8_t n;    /* instructions */
	bool crosses; /* into a second page: */
	uint32_t gen2;
	struct codepage *cp2;
	uint64_t gpa2;          /* of that page */
	const struct insn *end; /* behind the last entry */
	struct block *next;     /* of the same hash */
	struct jit_code *jit;   /* its translations, */
	uint32_t jit_epoch;     /* if this is the translator's */
	uint32_t hot;           /* times it was interpreted (jit/cache.c) */
	struct insn insn[];     /* n, one op_block_end, then the code's bytes */
};

#define BLOCK_HASH_BITS 14

struct block_slot {
	uint64_t key;
	struct block *b;
};

struct block_cache {
	struct block_slot
		slot[1u << BLOCK_HASH_BITS]; /* the first of each chain, with its key */
	struct insn *
		link; /* branch that was just left without knowing its next block, or NULL */
	struct chunk *spare;  /* memory of forgotten blocks */
	uint64_t flush_ticks; /* the longest block_cache_flush() */
	struct jit *jit;      /* borrowed: translates blocks; or NULL */
	struct chunk *chunks; /* memory of the blocks */
	size_t total;         /* bytes of it */
	struct insn one[2];   /* for execution instruction by instruction */
};

/*
 * The block at c->rip for the current mode: found, made valid again, or decoded. Raises #PF, and
 * #GP(0) beyond CS.limit. NULL: not in blocks, use block_one().
 */
struct block *block_get(struct x86_cpu *c);

/*
 * Decodes the instruction at c->rip alone into bc->one, followed by op_block_end; for single
 * steps and interrupt shadows. Raises #PF, #GP(0).
 */
const struct insn *block_one(struct x86_cpu *c);

/* Tells that branch `from` (bc->link) goes to block `b` of the same mode. */
void block_link(struct x86_cpu *c, struct insn *from, struct block *b);

static inline struct block *block_of(const struct insn *i)
{
	return container_of(i - i->idx, struct block, insn[0]);
}

static inline bool block_valid(const struct block *b)
{
	return atomic_load_explicit(&b->cp->gen, memory_order_relaxed) == b->gen;
}

static inline struct block_slot *block_slot(struct block_cache *bc, uint64_t key)
{
	return &bc->slot[(key * 0x9e3779b97f4a7c15ull) >> (64 - BLOCK_HASH_BITS)];
}

/*
 * The block at linear address `rip` when it is at hand: translated, first of its chain, valid, in
 * one page. mode: as in the key. NULL: block_get() will know.
 */
static inline struct block *block_lookup(struct x86_cpu *c, uint64_t rip, unsigned mode)
{
	const struct tlb_entry *t = tlb_at(c, rip, false);
	struct block_slot *s;
	uint64_t key;

	if (unlikely(t->tag_exec != (rip & PAGE_MASK)))
		return NULL;
	key = (t->gpa | (rip & ~PAGE_MASK)) << BLOCK_KEY_BITS | mode;
	s = block_slot(c->blocks, key);
	if (unlikely(s->key != key) || unlikely(!block_valid(s->b)) || s->b->crosses)
		return NULL;
	return s->b;
}

#endif

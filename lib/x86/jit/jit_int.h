/*
 * x86/jit/jit_int.h - inside the translator. vCPU thread.
 *
 * Registers while translated code runs:
 *   rsp            struct x86_cpu; what lies below it is the stack
 *   rax rcx rdx rbx rbp rsi rdi r8   the guest's own
 *   r9 r10 r11     the guest's r12 r13 r14
 *   r15            the guest's rsp
 *   r12 r13 r14    for the translator; r14 holds addresses
 * The guest's r9 r10 r11 r15 stay in c->gpr. Vector registers: fp.c. Status flags are in the host's flags, in c->st, or both.
 *
 * An access to memory is a TLB look-up in line, or uses an earlier one (trans_mem.c). What misses leaves the line of execution, has
 * the interpreter execute the whole instruction and comes back behind it: so a fault finds
 * the state that the interpreter expects. Instructions that are not translated go the same way.
 *
 * A translation belongs to a guest-physical and a linear address and an enum mmu_mode. It ends in
 * jumps to others, which are patched when the target is known; a target in another page is behind
 * a comparison with the TLB.
 */
#ifndef X86_JIT_INT_H
#define X86_JIT_INT_H

#include "x86/jit/jit.h"

/* A jump from one translation to another. */
struct jit_link {
	uint64_t epoch; /* to another page: while jit_epoch is this, rip is there */
	uint64_t rip;   /* of the target */
	uint8_t *rel;   /* the jump's displacement, in the writable mapping */
	uint8_t *gpa;   /* the number to compare the TLB with; NULL: same page */
	uint8_t *away;  /* where the jump goes when the target is not known */
	bool solo;      /* to a translation without groups (trans_mem.c) */
	struct jit_code *from;
	struct jit_code *to;      /* NULL: not linked */
	struct jit_link *next_in; /* of those with the same target */
};

struct jit_page;

/* A translation. */
struct jit_code {
	struct block *b;
	uint64_t rip;
	uint64_t
		epoch; /* if it crosses pages: while jit_epoch is this, the second is there */
	uint8_t *entry; /* executable mapping */
	uint32_t size;  /* bytes of host code */
	uint8_t mode;   /* enum mmu_mode */
	bool solo;
	struct jit_link *in;
	struct jit_code *next_of_block, *next_of_page;
};

/* The translations of one guest page. */
struct jit_page {
	struct codepage *cp;
	uint32_t gen;
	uint32_t drops; /* how often its translations were forgotten */
	struct jit_code *codes;
	struct jit_page *next, *next_hash;
};

/* Pairs of targets of indirect jumps, for each mode and code size. */
#define JIT_TARGETS 1024

/* What an indirect jump to `rip` leads to: at once while jit_epoch is `epoch`, else if the page is at gpa. */
struct jit_target {
	uint64_t rip, epoch, gpa;
	uint8_t *entry;
};

#define NO_EPOCH  (~0ull)
#define NO_TARGET ((struct jit_target){.rip = 1, .epoch = NO_EPOCH, .gpa = TLB_NONE})

#define JIT_PAGE_HASH 1024

struct jit_arena;

struct jit {
	struct x86_cpu *c;
	uint8_t *rw, *rx;         /* the same memory */
	size_t size, used, fixed; /* fixed: bytes of what is never forgotten */
	struct jit_arena *arena, *spare;
	struct jit_page *pages, *hash[JIT_PAGE_HASH];
	struct jit_link *link; /* jump that was just left without knowing its target */
	unsigned n_sites;      /* used of c->jit_site */
	bool bmi2;             /* of the host */
	/* common pieces, executable mapping */
	const uint8_t *enter, *interp, *leave, *leave_link, *jump[MMU_MODES][2];
	const uint8_t *fp_save, *fp_enter;
	struct jit_target target[MMU_MODES][2][JIT_TARGETS][2]; /* the newer first */
	struct insn one[2]; /* the instruction that is interpreted, and what ends it */
	uint64_t n_codes, n_flushes, n_interp, n_run, n_unlinked, n_drops;
	uint64_t flush_ticks; /* the longest jit_flush() */
	uint32_t epoch;       /* what was translated in another is forgotten */
};

/* ---- cache.c ---- */

void *jit_alloc(struct jit *j, size_t size); /* until jit_flush(); NULL: no memory */
struct jit_page *jit_page_get(struct jit *j, struct codepage *cp);
/* The block's translations; NULL: none. */
static inline struct jit_code *jit_codes(const struct jit *j, const struct block *b)
{
	return b->jit_epoch == j->epoch ? b->jit : NULL;
}
/* A new translation; its block's page has no other any more that was made of other code in a second page. */
void jit_codes_add(struct jit *j, struct jit_page *p, struct jit_code *code);
void jit_set_rel(struct jit *j, uint8_t *rel, const uint8_t *target_rx);
static inline uint8_t *jit_to_rx(const struct jit *j, const uint8_t *rw)
{
	return j->rx + (rw - j->rw);
}

/*
 * Runs translation `code` and what it is linked to; then c->rip is where to go on, and c->jit_link the
 * jump by which it was left, if its target was not known.
 */
void jit_enter(struct x86_cpu *c, const struct jit_code *code);

/* ---- thunk.c ---- */

struct emit;

/*
 * To linear address T_B, if what is there is known and nothing waits; else by the jumps whose displacements
 * are returned: a request, an unknown target, one that has to be looked at again.
 */
uint8_t *jit_put_look(struct jit *j, struct emit *e, unsigned mode, unsigned m32,
		      uint8_t **unknown, uint8_t **old);
/* Writes the common pieces. */
void jit_make_thunks(struct jit *j);
/* Between the guest's registers and c->gpr; rsp is c - `depth`. Flags stay. */
void jit_put_regs(struct emit *e, bool store, int32_t depth);

/* ---- fp.c ---- */

/* Writes j->fp_save and j->fp_enter. */
void jit_make_fp(struct jit *j, struct emit *e);

/* ---- trans.c ---- */

/* Translates b at c->rip; solo: without groups. NULL: no room, or not for the translator. */
struct jit_code *jit_translate(struct jit *j, struct block *b, bool solo);

#endif

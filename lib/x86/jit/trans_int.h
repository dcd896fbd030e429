/*
 * x86/jit/trans_int.h - inside the translation of one block (trans*.c). vCPU thread.
 *
 * Vector registers and x87 are the host's (fp.c): a block that has such instructions looks at c->jit_fp
 * where it begins and behind what was interpreted, while no flags are in the host's.
 */
#ifndef X86_JIT_TRANS_INT_H
#define X86_JIT_TRANS_INT_H

#include "x86/jit/emit.h"
#include "x86/jit/lift.h"

/* Where the guest's status flags are. */
enum flags_at {
	FL_AT_MEM,  /* c->st */
	FL_AT_HOST, /* the host's flags */
	FL_AT_BOTH,
	FL_AT_NONE, /* nobody asks for them */
};

/* What lies behind the translation's straight line. */
struct side {
	enum side_kind {
		SIDE_INTERP, /* the interpreter does instruction n; then `back` */
		SIDE_SOLO,   /* the same; then a translation without groups */
		SIDE_EXIT,   /* to `rip` */
		SIDE_SITE,   /* looks up what the site does not know; then `back` */
		SIDE_FP, /* gets what instruction n and those behind need; then `back` */
	} kind;
	uint8_t *from; /* displacement of the jump that comes here */
	uint8_t *back;
	uint8_t n; /* instruction */
	bool load_flags, save_flags;
	int8_t x87; /* instruction whose pointers are not stored yet; -1: none */
	uint64_t rip;
	/* SIDE_SITE: */
	uint16_t site, size;
	uint8_t reg; /* host's: of `size` bytes at [reg + off] */
	int32_t off;
	bool write;
	bool solo; /* when that fails, SIDE_SOLO, else SIDE_INTERP back to `done` */
	uint8_t *done;
};

/*
 * Accesses to [base + displacement] with the same base, whose page is looked up once: before the first
 * of them, for the bytes from lo to hi. What is added to such an address to get the host's is in
 * c->jit_group meanwhile.
 */
struct group {
	uint8_t base;        /* guest register */
	uint8_t first, last; /* instructions */
	uint8_t n;           /* accesses */
	bool write;
	uint8_t align; /* address bits of some are those of displacement `rest` */
	uint8_t rest;
	int32_t lo, hi; /* from where the base points at the first access */
};

#define SIDES_MAX (BLOCK_MAX * 4)
/* The most that a translation takes. */
#define CODE_MAX  (BLOCK_MAX * 512u)

struct trans {
	struct emit e;
	struct jit *j;
	struct x86_cpu *c;
	struct block *b;
	struct jit_code *code;
	uint64_t rip;
	int32_t tlb; /* from c to its TLB in this mode */
	bool m64;
	uint8_t word;  /* of the stack: 8 or 4 */
	uint8_t flags; /* enum flags_at */
	int8_t x87;    /* as struct side's */
	unsigned n_sides;
	struct side side[SIDES_MAX];
	struct lift l[BLOCK_MAX + 1];
	uint8_t live[BLOCK_MAX + 1];  /* flags needed behind the instruction */
	uint8_t taken[BLOCK_MAX + 1]; /* and at the target of its branch */
	uint8_t fp[BLOCK_MAX + 2]; /* enum lift_fp: of this one and those behind it */
	bool loop;                 /* it jumps to its own start */
	bool solo;                 /* without groups */
	struct group group[JIT_GROUPS];
	int8_t group_of[BLOCK_MAX + 1]; /* of an instruction's access; -1: none */
	int8_t at_a;                    /* the group whose addend is in T_A, -1: none */
	bool failed;
};

static inline int32_t gpr_at(unsigned guest)
{
	return CPU_OFF(gpr) + (int32_t)guest * 8;
}

/* The guest's register in a host register: its own, or `tmp` after loading it. */
static inline unsigned reg_in(struct trans *t, unsigned guest, unsigned tmp)
{
	if (!in_memory(guest))
		return host_of[guest];
	e_load(&t->e, 8, tmp, gpr_at(guest));
	return tmp;
}

static inline uint64_t wrap(const struct trans *t, uint64_t rip)
{
	return t->m64 ? rip : (uint32_t)rip;
}

/* ---- trans.c ---- */

void jt_save(struct trans *t); /* host's flags -> c->st */
void jt_load(struct trans *t); /* and back */
/* Before the host's flags are destroyed: keeps those of `need`. */
void jt_flags_keep(struct trans *t, unsigned need);
/* Into the host's flags. */
void jt_flags_fetch(struct trans *t, unsigned need);
/* A new way out for instruction n, by the jump whose displacement is at `from`. */
struct side *jt_side_add(struct trans *t, enum side_kind kind, uint8_t *from,
			 unsigned n);
/* The instruction is done: here the slow path comes back. */
void jt_side_done(struct trans *t, struct side *s);

/* ---- trans_mem.c ---- */

/* An access to memory that can be done now: its operand, and its slow path if it has one. */
struct mem_op {
	struct side *s, *unaligned;
	struct host_rm rm;
};

/* Finds the groups, once all instructions are lifted. */
void jt_groups(struct trans *t);
/* Is instruction n's access one of a group, and not the first? Then it does not fault, and flags stay. */
bool jt_looked_up(const struct trans *t, unsigned n);
/* Is a group in use behind instruction n? */
bool jt_grouped(const struct trans *t, unsigned n);
/* dst = address of the memory operand of i, without the segment's base. Flags stay. */
void jt_ea(struct trans *t, const struct insn *i, unsigned size, unsigned dst);
/*
 * Instruction n's memory operand of `size` bytes. Flags are kept as far as needed; T_A to T_C change.
 * Address bits `align` must be 0, else the interpreter raises #GP.
 */
struct mem_op jt_access(struct trans *t, unsigned n, unsigned size, bool write,
			unsigned align);
/* A word at [base + disp]: the stack. Flags are kept as far as needed behind n. */
struct mem_op jt_stack(struct trans *t, unsigned n, unsigned base, int32_t disp,
		       bool write);
/* Behind the straight line: the look-up for a site. */
void jt_site_fill(struct trans *t, const struct side *s);
/* The instruction is done. */
void jt_access_done(struct trans *t, struct mem_op a);
void jt_string(struct trans *t, unsigned n);

/* ---- trans_op.c ---- */

void jt_flags_before(struct trans *t, unsigned n);
void jt_flags_after(struct trans *t, unsigned n);
void jt_op(struct trans *t, unsigned n);
void jt_plain(struct trans *t, unsigned n);
void jt_lea(struct trans *t, unsigned n);
void jt_mov_imm(struct trans *t, unsigned n);
void jt_bswap(struct trans *t, unsigned n);
void jt_div(struct trans *t, unsigned n);
void jt_sp_add(struct trans *t, int32_t v);
void jt_push(struct trans *t, unsigned n);
void jt_pop(struct trans *t, unsigned n);
void jt_leave(struct trans *t, unsigned n);

/* ---- trans_branch.c ---- */

/*
 * When instructions are counted (x86_system_count()): at the start, leaves if the block is longer than what is left;
 * before each way out behind instruction n, adds what was executed. No flags are in the host's.
 */
void jt_count_enter(struct trans *t);
void jt_count(struct trans *t, unsigned n);

/* Has the interpreter execute instruction n; flags are in c->st. */
void jt_interp(struct trans *t, unsigned n);
/*
 * Goes on at `rip` from instruction n; flags are in c->st as far as anybody asks. A jump backwards,
 * or to another page, looks whether something waits: so no circle goes without.
 */
void jt_second_page(struct trans *t);
void jt_exit(struct trans *t, uint64_t rip, unsigned n, bool solo);
void jt_jcc(struct trans *t, unsigned n);
/* The target of a branch into T_B, and going there. */
void jt_jump_ind(struct trans *t, unsigned n);
void jt_push_return(struct trans *t, unsigned n);
void jt_call_indirect(struct trans *t, unsigned n);
void jt_ret(struct trans *t, unsigned n);

/* ---- trans_vec.c ---- */

void jt_gen(struct trans *t, unsigned n);
void jt_x87(struct trans *t, unsigned n);
/* Stores FOP and FIP of the x87 instruction `n`, if it is one. Flags stay. */
void jt_x87_note(struct trans *t, int n);
/* Looks whether instruction n and those behind it may run here. No flags are in the host's. */
void jt_fp_check(struct trans *t, unsigned n);
/* Behind the straight line: gets what is needed from instruction n on, else has it interpreted. */
void jt_fp_get(struct trans *t, unsigned n);

#endif

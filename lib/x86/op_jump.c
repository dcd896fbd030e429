/*
 * x86/op_jump.c - near JMP CALL RET, LOOPcc, JrCXZ, and the end of a block. SDM 2A/2B.
 * vCPU thread.
 */
#include "x86/op_jump.h"

/* ---- 64-bit mode -------------------------------------------------------------------------------- */

static inline bool is_canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

/* Pushes the return address; nothing after it may fault. */
INLINE void push_return(struct x86_cpu *c, const struct insn *i)
{
	uint64_t sp = get64(c, RSP) - 8, ret = c->block_rip + i->off + i->len;
	uint64_t *p = write_ptr(c, sp, 8);

	if (likely(p != NULL))
		*p = ret;
	else
		mem_store_slow(c, sp, 8, ret);
	put64(c, RSP, sp);
}

void op_jmp_64(struct x86_cpu *c, const struct insn *i)
{
	jump_direct(c, i, c->block_rip + i->imm);
}

void op_call_64(struct x86_cpu *c, const struct insn *i)
{
	push_return(c, i);
	jump_direct(c, i, c->block_rip + i->imm);
}

void op_ret_64(struct x86_cpu *c, const struct insn *i)
{
	uint64_t sp = get64(c, RSP), rip = load64(c, sp);

	if (unlikely(!is_canonical(rip)))
		x86_raise_code(c, EX_GP, 0);
	put64(c, RSP, sp + 8 + i->imm);
	jump_indirect(c, i, rip, BLOCK_64);
}

INLINE void jmp_ind_64(struct x86_cpu *c, const struct insn *i, uint64_t rip)
{
	if (unlikely(!is_canonical(rip)))
		x86_raise_code(c, EX_GP, 0);
	jump_indirect(c, i, rip, BLOCK_64);
}

/* A call to no address: faults of the push come first (AMD), but nothing is written. */
static void __attribute__((cold, noinline)) call_nowhere(struct x86_cpu *c)
{
	stack_probe(c, get64(c, RSP) - 8, 8);
	x86_raise_code(c, EX_GP, 0);
}

INLINE void call_ind_64(struct x86_cpu *c, const struct insn *i, uint64_t rip)
{
	if (unlikely(!is_canonical(rip)))
		call_nowhere(c);
	push_return(c, i);
	jump_indirect(c, i, rip, BLOCK_64);
}

HANDLER(jmp_ind, ri, 64)
{
	jmp_ind_64(c, i, get64(c, i->rm));
}

HANDLER(jmp_ind, mi, 64)
{
	jmp_ind_64(c, i, load64(c, ea_linear(c, i, 8, ACC_READ)));
}

HANDLER(call_ind, ri, 64)
{
	call_ind_64(c, i, get64(c, i->rm));
}

HANDLER(call_ind, mi, 64)
{
	call_ind_64(c, i, load64(c, ea_linear(c, i, 8, ACC_READ)));
}

/* ---- 16- and 32-bit code ---------------------------------------------------------------------------- */

/* The target as EIP has it; #GP(0) beyond the limit. */
static uint64_t legacy_target(struct x86_cpu *c, const struct insn *i, uint64_t rip)
{
	rip = i->osize == 2 ? (uint16_t)rip : (uint32_t)rip;
	if (rip > c->seg[X86_CS].limit)
		x86_raise_code(c, EX_GP, 0);
	return rip;
}

void jump_direct_legacy(struct x86_cpu *c, const struct insn *i)
{
	uint64_t rip = c->block_rip + i->imm;

	if (i->osize == 8) {
		jump_direct(c, i, rip);
		return;
	}
	rip = legacy_target(c, i, rip);
	if (i->osize == 4)
		jump_direct(c, i, rip);
	else
		jump_leave(c, i, rip);
}

void op_jmp(struct x86_cpu *c, const struct insn *i)
{
	jump_direct_legacy(c, i);
}

/* Behind a computed target in `flat` 32-bit code the mode is the same; else run.c finds out. */
INLINE void jump_legacy(struct x86_cpu *c, const struct insn *i, uint64_t rip)
{
	if (i->flat)
		jump_indirect(c, i, rip, BLOCK_32_FLAT);
	else
		jump_leave(c, i, rip);
}

void op_call(struct x86_cpu *c, const struct insn *i)
{
	legacy_target(c, i, c->block_rip + i->imm);
	push_legacy(c, i, i->osize, next_rip(c, i));
	jump_direct_legacy(c, i);
}

void op_ret(struct x86_cpu *c, const struct insn *i)
{
	uint64_t rip;

	if (i->osize == 4 && i->flat) {
		uint32_t sp = get32(c, RSP);

		rip = load32(c, sp);
		put32(c, RSP, sp + 4 + (uint32_t)i->imm);
		jump_indirect(c, i, rip, BLOCK_32_FLAT);
		return;
	}
	rip = legacy_target(c, i, stack_peek(c, i->osize, 0));
	stack_drop(c, i->osize + (unsigned)i->imm);
	jump_leave(c, i, rip);
}

#define LEGACY_IND(bits, ...)                                                      \
	HANDLER(jmp_ind, ri, bits)                                                 \
	{                                                                          \
		jump_legacy(c, i, legacy_target(c, i, get##bits(c, i->rm)));       \
	}                                                                          \
	HANDLER(jmp_ind, mi, bits)                                                 \
	{                                                                          \
		uint64_t rip = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                   \
		jump_legacy(c, i, legacy_target(c, i, rip));                       \
	}                                                                          \
	HANDLER(call_ind, ri, bits)                                                \
	{                                                                          \
		uint64_t rip = legacy_target(c, i, get##bits(c, i->rm));           \
                                                                                   \
		push_legacy(c, i, bits / 8, next_rip(c, i));                       \
		jump_legacy(c, i, rip);                                            \
	}                                                                          \
	HANDLER(call_ind, mi, bits)                                                \
	{                                                                          \
		uint64_t rip = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                   \
		rip = legacy_target(c, i, rip);                                    \
		push_legacy(c, i, bits / 8, next_rip(c, i));                       \
		jump_legacy(c, i, rip);                                            \
	}
LEGACY_IND(16)
LEGACY_IND(32)

const struct opset set_jmp_ind = {{
	[F_RI] = SIZES_WDQ(h_jmp_ind, ri),
	[F_MI + EA_ANY] = SIZES_WDQ(h_jmp_ind, mi),
}};

const struct opset set_call_ind = {{
	[F_RI] = SIZES_WDQ(h_call_ind, ri),
	[F_MI + EA_ANY] = SIZES_WDQ(h_call_ind, mi),
}};

/* ---- LOOP, JrCXZ -------------------------------------------------------------------------------------- */

/* The counter is rCX of the address size; the branch may raise #GP, so it is stored last. */
static void loop_if(struct x86_cpu *c, const struct insn *i, bool cond)
{
	uint64_t n = reg_get(c, RCX, i->asize) - 1;

	n = i->asize == 8 ? n : i->asize == 4 ? (uint32_t)n : (uint16_t)n;
	if (n && cond) {
		if (i->osize != 8)
			legacy_target(c, i, c->block_rip + i->imm);
		reg_set(c, RCX, i->asize, n);
		jump_direct_legacy(c, i);
		return;
	}
	reg_set(c, RCX, i->asize, n);
	op_next(c, i);
}

void op_loop(struct x86_cpu *c, const struct insn *i)
{
	loop_if(c, i, true);
}

void op_loope(struct x86_cpu *c, const struct insn *i)
{
	loop_if(c, i, COND_z(c));
}

void op_loopne(struct x86_cpu *c, const struct insn *i)
{
	loop_if(c, i, COND_nz(c));
}

void op_jcxz(struct x86_cpu *c, const struct insn *i)
{
	if (reg_get(c, RCX, i->asize) == 0)
		jump_direct_legacy(c, i);
	else
		op_next(c, i);
}

/* ---- the end of a block ----------------------------------------------------------------------------------- */

/*
 * Behind the last instruction of a block that is no branch. It counts as none: its idx is that of
 * the instruction before it, its imm the length of the block; osize 0: not to be linked.
 */
void op_block_end(struct x86_cpu *c, const struct insn *i)
{
	if (i->osize)
		jump_direct(c, i, rip_wrap(c, c->block_rip + i->imm));
	else
		jump_leave(c, i, rip_wrap(c, c->block_rip + i->imm));
}

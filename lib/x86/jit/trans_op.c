/*
 * x86/jit/trans_op.c - translates operations, moves and what uses the stack. vCPU thread.
 */
#include "x86/jit/trans_int.h"

/* ---- operations -------------------------------------------------------------------------------------------- */

static void put_imm(struct emit *e, const struct lift *l, uint64_t v)
{
	switch (l->imm_size) {
	case 1: e8(e, (uint8_t)v); break;
	case 2:
		e8(e, (uint8_t)v);
		e8(e, (uint8_t)(v >> 8));
		break;
	case 4: e32(e, (uint32_t)v); break;
	}
}

void jt_flags_before(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];

	jt_flags_fetch(t, l->rd | (l->mod ? t->live[n] & ~(unsigned)l->kill : 0));
}

void jt_flags_after(struct trans *t, unsigned n)
{
	if (t->l[n].mod)
		t->flags = FL_AT_HOST;
}

void jt_op(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	struct emit *e = &t->e;
	unsigned reg = l->reg, rm_host = 0;
	struct mem_op a = {0};
	struct host_rm rm;
	uint64_t imm = i->imm;

	if (l->mem)
		a = jt_access(t, n, l->mem_size, l->rm_w, 0);
	jt_flags_before(t, n);
	if (!l->digit && !l->reg_high) {
		reg = host_of[l->reg];
		if (reg == H_SP) {
			reg = T_B;
			if (l->reg_r || l->size < 4)
				e_load(e, 8, T_B, gpr_at(l->reg));
		}
	}
	if (l->mem) {
		rm = a.rm;
	} else {
		rm_host = l->rm_high ? l->rm : host_of[l->rm];
		if (rm_host == H_SP && !l->rm_high) {
			rm_host = T_C;
			if (l->rm_r || l->size < 4 || l->map)
				e_load(e, 8, T_C, gpr_at(l->rm));
		}
		rm = rm_reg(rm_host);
	}
	if (l->lock)
		e8(e, 0xf0);
	if (l->map == 1 && (l->op == 0xa4 || l->op == 0xac))
		imm = i->imm;
	e_op(e, l->size, l->prefix, l->map, l->op, reg, rm, l->reg_byte && !l->reg_high,
	     l->rm_byte && !l->rm_high);
	put_imm(e, l, imm);
	if (l->reg_w && reg == T_B)
		e_store(e, 8, T_B, gpr_at(l->reg));
	if (l->rm_w && !l->mem && rm_host == T_C)
		e_store(e, 8, T_C, gpr_at(l->rm));
	jt_flags_after(t, n);
	jt_access_done(t, a);
}

void jt_plain(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];

	jt_flags_before(t, n);
	if (l->size == 2)
		e8(&t->e, 0x66);
	if (l->size == 8)
		e8(&t->e, 0x48);
	e8(&t->e, l->op);
	jt_flags_after(t, n);
}

void jt_lea(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	bool direct = l->size >= 4 && !in_memory(l->reg);
	unsigned dst = direct ? host_of[l->reg] : T_A;

	jt_ea(t, i, l->size == 4 || i->asize == 4 ? 4 : 8, dst);
	if (direct)
		return;
	if (l->size == 2)
		e_rm(&t->e, 2, 0x89, T_A,
		     in_memory(l->reg) ? rm_cpu(gpr_at(l->reg))
				       : rm_reg(host_of[l->reg]));
	else
		e_store(&t->e, 8, T_A, gpr_at(l->reg));
}

void jt_mov_imm(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	uint64_t v = t->b->insn[n].imm;
	unsigned dst = in_memory(l->rm) ? T_B : host_of[l->rm];

	if (l->size == 2) {
		e_imm(&t->e, T_C, (uint16_t)v);
		e_rm(&t->e, 2, 0x89, T_C,
		     in_memory(l->rm) ? rm_cpu(gpr_at(l->rm)) : rm_reg(dst));
		return;
	}
	e_imm(&t->e, dst, l->size == 4 ? (uint32_t)v : v);
	if (dst == T_B)
		e_store(&t->e, 8, T_B, gpr_at(l->rm));
}

void jt_bswap(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	unsigned reg = reg_in(t, l->rm, T_B);

	e8(&t->e, 0x40 | (l->size == 8 ? 8 : 0) | (reg & 8 ? 1 : 0));
	e8(&t->e, 0x0f);
	e8(&t->e, 0xc8 | (reg & 7));
	if (reg == T_B)
		e_store(&t->e, 8, T_B, gpr_at(l->rm));
}

/* The interpreter raises what a division by 0, or one with too large a quotient, raises. */
void jt_div(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	unsigned size = l->size;
	struct emit *e = &t->e;
	struct side *bad[2];
	struct mem_op a = {0};

	if (l->mem) {
		a = jt_access(t, n, size, false, 0);
		e_rm(e, size, 0x8b, T_B, a.rm);
	} else {
		jt_flags_keep(t, LF_ALL);
		e_mov(e, size, T_B, reg_in(t, l->rm, T_B));
	}
	if (l->reg == 6) {
		e_rm(e, size, 0x39, T_B, rm_reg(H_DX));
		bad[0] = bad[1] = jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_NB), n);
	} else { /* rdx is rax's sign, and the divisor neither 0 nor -1 */
		e_mov(e, size, T_C, H_AX);
		e_rm(e, size, 0xc1, 7, rm_reg(T_C));
		e8(e, size * 8 - 1);
		e_rm(e, size, 0x39, T_C, rm_reg(H_DX));
		bad[0] = jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_NZ), n);
		e_lea(e, size, T_C, T_B, H_SP, 0, 1);
		e_alu_imm(e, size, 7, rm_reg(T_C), 1);
		bad[1] = jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_BE), n);
	}
	jt_flags_before(t, n);
	e_rm(e, size, 0xf7, l->reg, rm_reg(T_B));
	jt_flags_after(t, n);
	jt_side_done(t, bad[0]);
	jt_side_done(t, bad[1]);
	jt_access_done(t, a);
}

/* ---- the stack ---------------------------------------------------------------------------------------------- */

void jt_sp_add(struct trans *t, int32_t v)
{
	e_lea(&t->e, t->word, G_SP, G_SP, H_SP, 0, v);
}

void jt_push(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	struct mem_op a, b = {0};
	struct emit *e = &t->e;
	unsigned reg;

	if (l->mem) {
		b = jt_access(t, n, t->word, false, 0);
		e_rm(e, t->word, 0x8b, T_B, b.rm);
		e_store(e, 8, T_B, CPU_OFF(jit_tmp));
	}
	a = jt_stack(t, n, X86_RSP, -(int32_t)t->word, true);
	if (l->kind == L_PUSH_IMM) {
		e_rm(e, t->word, 0xc7, 0, a.rm);
		e32(e, (uint32_t)i->imm);
	} else {
		if (l->mem)
			e_load(e, 8, reg = T_B, CPU_OFF(jit_tmp));
		else
			reg = reg_in(t, l->rm, T_B);
		e_rm(e, t->word, 0x89, reg, a.rm);
	}
	jt_sp_add(t, -(int32_t)t->word);
	jt_access_done(t, a);
	jt_access_done(t, b);
}

void jt_pop(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	unsigned dst = in_memory(l->rm) ? T_B : host_of[l->rm];
	struct emit *e = &t->e;
	struct mem_op a;

	a = jt_stack(t, n, X86_RSP, 0, false);
	e_rm(e, t->word, 0x8b, dst, a.rm);
	if (l->rm != X86_RSP)
		jt_sp_add(t, t->word);
	if (dst == T_B)
		e_store(e, 8, T_B, gpr_at(l->rm));
	jt_access_done(t, a);
}

void jt_leave(struct trans *t, unsigned n)
{
	struct emit *e = &t->e;
	struct mem_op a;

	a = jt_stack(t, n, X86_RBP, 0, false);
	e_lea(e, t->word, G_SP, H_BP, H_SP, 0, t->word);
	e_rm(e, t->word, 0x8b, H_BP, a.rm);
	jt_access_done(t, a);
}

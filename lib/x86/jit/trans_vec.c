/*
 * x86/jit/trans_vec.c - translates vector and x87 instructions, and those on general registers whose
 * encoding is like theirs: the host's own instruction with its register numbers and memory operand
 * replaced. vCPU thread.
 */
#include "x86/jit/trans_int.h"

#include "x86/vec.h"

/* ---- where the state is -------------------------------------------------------------------------------- */

/* ZF clear: something of `fp` is not so. */
static void put_test(struct trans *t, unsigned fp)
{
	e_rm(&t->e, 1, 0xf6, 0, rm_cpu(CPU_OFF(jit_fp)));
	e8(&t->e, fp);
}

void jt_fp_check(struct trans *t, unsigned n)
{
	struct side *s;

	if (!t->fp[n])
		return;
	jt_flags_keep(t, LF_ALL);
	put_test(t, t->fp[n]);
	s = jt_side_add(t, SIDE_FP, e_jcc(&t->e, CC_NZ), n);
	s->back = t->e.p;
}

void jt_fp_get(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	struct emit *e = &t->e;
	uint8_t *done;

	if (!t->fp[n])
		return;
	e_imm(e, T_B, t->fp[n]);
	e_call_to(t->j, e, t->j->fp_enter);
	put_test(t, t->fp[n]);
	done = e_jcc(e, CC_Z);
	e_rm(e, 1, 0xc6, 0, rm_cpu(CPU_OFF(jit_skip)));
	e8(e, 1);
	e_imm(e, T_B, wrap(t, t->rip + i->off));
	e_jmp_to(t->j, e, t->j->leave);
	e_patch(done, e->p);
}

/* ---- vectors ------------------------------------------------------------------------------------------- */

static const uint8_t prefix_of[4] = {0, 0x66, 0xf3, 0xf2};

/* The host's register for a field; a general register in memory is loaded into `tmp`. */
static unsigned field_in(struct trans *t, unsigned field, unsigned n, unsigned tmp,
			 bool load)
{
	if (field != F_GPR)
		return field == F_NONE ? 0 : n;
	if (!in_memory(n))
		return host_of[n];
	if (load)
		e_load(&t->e, 8, tmp, gpr_at(n));
	return tmp;
}

static void field_out(struct trans *t, unsigned field, unsigned n, unsigned tmp,
		      bool store)
{
	if (field == F_GPR && store && in_memory(n))
		e_store(&t->e, 8, tmp, gpr_at(n));
}

static void put_gen(struct trans *t, const struct lift *l, unsigned reg, unsigned v,
		    struct host_rm rm)
{
	struct emit *e = &t->e;

	if (l->no_modrm) {
		e8(e, 0xc5), e8(e, 0xf8 | l->l1 << 2), e8(e, l->op);
		return;
	}
	if (l->vex) {
		e_vex(e, l->w, l->l1, l->pp, l->map, l->op, reg, v, rm);
		return;
	}
	if (l->osz)
		e8(e, 0x66);
	e_op(e, l->w ? 8 : 4, prefix_of[l->pp], l->map, l->op, reg, rm, false,
	     l->rm_byte);
}

void jt_gen(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	unsigned rm_host = 0, t_v = l->mem ? T_C : T_A, reg, v;
	bool partial = l->mem_size == 2; /* writes may leave the upper bits */
	struct mem_op a = {0};
	struct host_rm rm;

	if (l->mem)
		a = jt_access(t, n, l->mem_size, l->rm_w, l->align);
	rm = a.rm;
	jt_flags_before(t, n);
	reg = field_in(t, l->f_reg, l->reg, T_B, l->reg_r || partial);
	v = field_in(t, l->f_v, l->v, t_v, l->v_r);
	if (!l->mem) {
		rm_host = field_in(t, l->f_rm, l->rm, T_C, l->rm_r || partial);
		rm = rm_reg(rm_host);
	}
	put_gen(t, l, reg, v, rm);
	if (l->imm_size)
		e8(&t->e, l->imm8);
	field_out(t, l->f_v, l->v, t_v, l->v_w);
	field_out(t, l->f_reg, l->reg, T_B, l->reg_w); /* MULX: the same, perhaps */
	if (!l->mem)
		field_out(t, l->f_rm, l->rm, T_C, l->rm_w);
	jt_flags_after(t, n);
	if (t_v == T_A)
		t->at_a = -1;
	jt_access_done(t, a);
}

/* ---- x87 ------------------------------------------------------------------------------------------------- */

static void put_store_imm(struct trans *t, unsigned size, int32_t off, uint32_t v)
{
	e_rm(&t->e, size, 0xc7, 0, rm_cpu(CPU_OFF(xsave) + off));
	if (size == 2)
		e8(&t->e, v), e8(&t->e, v >> 8);
	else
		e32(&t->e, v);
}

void jt_x87_note(struct trans *t, int n)
{
	const struct insn *i;
	uint64_t rip;

	if (n < 0)
		return;
	i = &t->b->insn[n];
	rip = wrap(t, t->rip + i->off);
	put_store_imm(t, 2, XS_FOP, (t->l[n].op & 7u) << 8 | i->modrm);
	if (rip == (uint64_t)(int64_t)(int32_t)rip) {
		put_store_imm(t, 8, XS_FIP, (uint32_t)rip);
		return;
	}
	put_store_imm(t, 4, XS_FIP, (uint32_t)rip);
	put_store_imm(t, 4, XS_FIP + 4, (uint32_t)(rip >> 32));
}

void jt_x87(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	struct emit *e = &t->e;
	struct mem_op a = {0};

	if (l->mem)
		a = jt_access(t, n, l->mem_size, l->rm_w, 0);
	jt_flags_before(t, n);
	if (l->mem) {
		e_rm(e, 4, l->op, i->modrm >> 3 & 7, a.rm);
	} else {
		e8(e, l->op);
		e8(e, i->modrm);
	}
	jt_flags_after(t, n);
	if (l->mem && l->note) {
		jt_ea(t, i, i->asize, T_A);
		e_store(e, 8, T_A, CPU_OFF(xsave) + XS_FDP);
	}
	if (l->note)
		t->x87 = (int8_t)n;
	jt_access_done(t, a);
}

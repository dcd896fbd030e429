/*
 * x86/jit/trans_branch.c - translates branches, exits, and what the interpreter executes. vCPU thread.
 */
#include "x86/jit/trans_int.h"

/* ---- branches ------------------------------------------------------------------------------------------------ */

/* r12, r13: what interp() wants to know. */
void jt_interp(struct trans *t, unsigned n)
{
	e_imm(&t->e, T_B, (uint64_t)(uintptr_t)&t->b->insn[n]);
	e_imm(&t->e, T_C, t->rip);
	e_call_to(t->j, &t->e, t->j->interp);
}

/*
 * The block's second page must be the one that it was made of: looked up since TLB entries were cleared, which
 * jit_run() notes, and not written. Else C looks for the block anew.
 */
void jt_second_page(struct trans *t)
{
	struct emit *e = &t->e;
	uint8_t *old, *good;

	e_imm(e, T_B, (uint64_t)(uintptr_t)&t->code->epoch);
	e_load(e, 8, T_C, CPU_OFF(jit_epoch));
	e_rm(e, 8, 0x39, T_C, rm_mem(T_B, H_SP, 0));
	old = e_jcc(e, CC_NZ);
	e_imm(e, T_B, (uint64_t)(uintptr_t)&t->b->cp2->gen);
	e_rm(e, 4, 0x81, 7, rm_mem(T_B, H_SP, 0)); /* cmp */
	e32(e, t->b->gen2);
	good = e_jcc(e, CC_Z);
	e_patch(old, e->p);
	e_imm(e, T_B, t->rip);
	e_jmp_to(t->j, e, t->j->leave);
	e_patch(good, e->p);
}

/* cmp [c + off], v */
static void put_cmp_cpu(struct trans *t, int32_t off, uint64_t v)
{
	if (v == (uint64_t)(int64_t)(int32_t)v) {
		e_alu_imm(&t->e, 8, 7, rm_cpu(off), (int32_t)v);
		return;
	}
	e_imm(&t->e, T_B, v);
	e_rm(&t->e, 8, 0x39, T_B, rm_cpu(off));
}

void jt_count_enter(struct trans *t)
{
	struct emit *e = &t->e;
	uint8_t *fits;

	if (!t->c->counts)
		return;
	e_alu_imm(e, 8, 7, rm_cpu(CPU_OFF(stats.insns)), -(int32_t)t->b->n); /* cmp */
	fits = e_jcc(e, CC_NG);
	e_imm(e, T_B, t->rip);
	e_jmp_to(t->j, e, t->j->leave);
	e_patch(fits, e->p);
}

void jt_count(struct trans *t, unsigned n)
{
	if (t->c->counts)
		e_alu_imm(&t->e, 8, 0, rm_cpu(CPU_OFF(stats.insns)),
			  t->b->insn[n].idx + 1); /* add */
}

/* Is link l's target still where it was? Then to its jump, else by the jumps whose displacements are in `out`. */
static void put_look_again(struct trans *t, struct jit_link *l, uint8_t **out)
{
	int32_t at = t->tlb + (int32_t)((l->rip >> 12 & (TLB_SIZE - 1)) *
					sizeof(struct tlb_entry));
	struct emit *e = &t->e;

	put_cmp_cpu(t, at + (int32_t)offsetof(struct tlb_entry, tag_exec),
		    l->rip & PAGE_MASK);
	out[0] = e_jcc(e, CC_NZ);
	e8(e, 0x49), e8(e, 0xb8 | (T_B & 7)); /* mov r12, gpa */
	l->gpa = e->p;
	e64(e, TLB_NONE);
	e_rm(e, 8, 0x39, T_B, rm_cpu(at + (int32_t)offsetof(struct tlb_entry, gpa)));
	out[1] = e_jcc(e, CC_NZ);
	e_imm(e, T_B, (uint64_t)(uintptr_t)&l->epoch);
	e_rm(e, 8, 0x89, T_C, rm_mem(T_B, H_SP, 0));
	e_patch(e_jmp(e), l->rel - 1);
}

void jt_exit(struct trans *t, uint64_t rip, unsigned n, bool solo)
{
	uint64_t here = wrap(t, t->rip + t->b->insn[n].off);
	struct jit_link *l = jit_alloc(t->j, sizeof(*l));
	bool far = (rip ^ t->rip) & PAGE_MASK;
	uint8_t *out[3] = {NULL}, *old = NULL;
	struct emit *e = &t->e;

	if (!l) {
		t->failed = true;
		return;
	}
	jt_count(t, n);
	l->rip = rip;
	l->epoch = NO_EPOCH;
	l->from = t->code;
	l->solo = solo;
	if (rip <= here) {
		e_rm(e, 4, 0xf7, 0, rm_cpu(CPU_OFF(request)));
		e32(e, ~(uint32_t)REQ_JIT);
		out[0] = e_jcc(e, CC_NZ);
	}
	if (far) {
		e_imm(e, T_B, (uint64_t)(uintptr_t)&l->epoch);
		e_load(e, 8, T_C, CPU_OFF(jit_epoch));
		e_rm(e, 8, 0x39, T_C, rm_mem(T_B, H_SP, 0));
		old = e_jcc(e, CC_NZ);
	}
	l->rel = e_jmp(e);
	if (far) {
		e_patch(old, e->p);
		put_look_again(t, l, out + 1);
	}
	l->away = e->p;
	e_patch(l->rel, e->p);
	for (unsigned k = 0; k < 3; k++) {
		if (out[k])
			e_patch(out[k], e->p);
	}
	e_imm(e, T_B, (uint64_t)(uintptr_t)l);
	e_jmp_to(t->j, e, t->j->leave_link);
}

/* jcc: may be told from c->st without loading it. Returns the jump's displacement. */
static uint8_t *put_cond(struct trans *t, unsigned cc)
{
	static const uint8_t mask[8] = {0,     FL_CF, FL_ZF, FL_CF | FL_ZF,
					FL_SF, FL_PF, 0,     0};
	struct emit *e = &t->e;

	if (t->flags == FL_AT_MEM && mask[cc >> 1]) {
		e_rm(e, 0, 0xf6, 0, rm_cpu(CPU_OFF(st) + 1));
		e8(e, mask[cc >> 1]);
		return e_jcc(e, cc & 1 ? CC_Z : CC_NZ);
	}
	jt_flags_fetch(t, LF_ALL);
	return e_jcc(e, cc);
}

void jt_jcc(struct trans *t, unsigned n)
{
	uint64_t rip = wrap(t, t->rip + t->b->insn[n].imm);
	struct side *s = jt_side_add(t, SIDE_EXIT, put_cond(t, t->l[n].cc), n);

	s->rip = rip;
	s->save_flags = t->flags == FL_AT_HOST && t->taken[n];
}

/* The target in T_B must be canonical, else the interpreter raises #GP. */
static void put_check_canonical(struct trans *t, unsigned n)
{
	struct emit *e = &t->e;

	if (!t->m64)
		return;
	e_mov(e, 8, T_C, T_B);
	e_rm(e, 8, 0xc1, 4, rm_reg(T_C));
	e8(e, 16);
	e_rm(e, 8, 0xc1, 7, rm_reg(T_C));
	e8(e, 16);
	e_rm(e, 8, 0x39, T_B, rm_reg(T_C));
	jt_side_done(t, jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_NZ), n));
}

/*
 * To linear address T_B. In line, the host predicts it by itself; a return is better off with the common piece,
 * as it is short.
 */
static void put_jump_indirect(struct trans *t, unsigned n, bool in_line)
{
	struct emit *e = &t->e;
	uint8_t *away[3];

	jt_count(t, n);
	if (in_line) {
		away[0] = jit_put_look(t->j, e, t->code->mode, !t->m64, &away[1],
				       &away[2]);
		for (unsigned k = 0; k < 3; k++)
			e_patch(away[k], e->p);
	}
	e_jmp_to(t->j, e, t->j->jump[t->code->mode][!t->m64]);
}

/* The target of an indirect branch into T_B. */
static void put_target(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	struct mem_op a = {0};

	jt_flags_keep(t, LF_ALL);
	if (l->mem) {
		a = jt_access(t, n, t->word, false, 0);
		e_rm(&t->e, t->word, 0x8b, T_B, a.rm);
	} else if (in_memory(l->rm)) {
		e_load(&t->e, t->word, T_B, gpr_at(l->rm));
	} else {
		e_mov(&t->e, t->word, T_B, host_of[l->rm]);
	}
	put_check_canonical(t, n);
	jt_access_done(t, a);
}

void jt_jump_ind(struct trans *t, unsigned n)
{
	put_target(t, n);
	put_jump_indirect(t, n, true);
}

void jt_push_return(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	uint64_t ret = wrap(t, t->rip + i->off + i->len);
	struct emit *e = &t->e;
	struct mem_op a;

	jt_flags_keep(t, LF_ALL);
	a = jt_stack(t, n, X86_RSP, -(int32_t)t->word, true);
	if (t->word == 4 || ret == (uint64_t)(int64_t)(int32_t)ret) {
		e_rm(e, t->word, 0xc7, 0, a.rm);
		e32(e, (uint32_t)ret);
	} else {
		e_imm(e, T_B, ret);
		e_rm(e, 8, 0x89, T_B, a.rm);
	}
	jt_sp_add(t, -(int32_t)t->word);
	jt_access_done(t, a);
}

void jt_call_indirect(struct trans *t, unsigned n)
{
	put_target(t, n);
	e_store(&t->e, 8, T_B, CPU_OFF(jit_tmp));
	jt_push_return(t, n);
	e_load(&t->e, 8, T_B, CPU_OFF(jit_tmp));
	put_jump_indirect(t, n, true);
}

void jt_ret(struct trans *t, unsigned n)
{
	struct emit *e = &t->e;
	struct mem_op a;

	jt_flags_keep(t, LF_ALL);
	a = jt_stack(t, n, X86_RSP, 0, false);
	e_rm(e, t->word, 0x8b, T_B, a.rm);
	put_check_canonical(t, n);
	jt_sp_add(t, t->word + (int32_t)t->b->insn[n].imm);
	put_jump_indirect(t, n, false);
	jt_access_done(t, a);
}

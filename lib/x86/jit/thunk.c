/*
 * x86/jit/thunk.c - the common pieces of host code: entering and leaving translated code, having one
 * instruction interpreted, indirect jumps. vCPU thread.
 */
#include "x86/jit/emit.h"

#include "x86/op_tmpl.h"

void jit_put_regs(struct emit *e, bool store, int32_t depth)
{
	for (unsigned n = 0; n < 16; n++) {
		if (in_memory(n))
			continue;
		if (store)
			e_store(e, 8, host_of[n],
				CPU_OFF(gpr) + (int32_t)n * 8 + depth);
		else
			e_load(e, 8, host_of[n], CPU_OFF(gpr) + (int32_t)n * 8 + depth);
	}
}

static const uint8_t saved[] = {H_BX, H_BP, H_12, H_13, H_14, H_15};

static void push_pop(struct emit *e, unsigned op, unsigned reg)
{
	if (reg & 8)
		e8(e, 0x41);
	e8(e, op | (reg & 7));
}

/* void enter(struct x86_cpu *c, const void *entry) */
static void make_enter(struct emit *e)
{
	for (unsigned n = 0; n < sizeof(saved); n++)
		push_pop(e, 0x50, saved[n]);
	e_alu_imm(e, 8, 5, rm_reg(H_SP), 8);
	e_mov(e, 8, T_B, H_SI);
	e_mov(e, 8, T_C, H_SP);
	e_mov(e, 8, H_SP, H_DI);
	e_store(e, 8, T_C, CPU_OFF(jit_sp));
	jit_put_regs(e, false, 0);
	e_rm(e, 0, 0xff, 4, rm_reg(T_B)); /* jmp */
}

/* Back to who called enter(). */
static void put_return(struct emit *e)
{
	e_load(e, 8, H_SP, CPU_OFF(jit_sp));
	e_alu_imm(e, 8, 0, rm_reg(H_SP), 8);
	for (unsigned n = sizeof(saved); n-- > 0;)
		push_pop(e, 0x58, saved[n]);
	e8(e, 0xc3);
}

/*
 * Interprets instruction T_B of the block whose start is at T_C. false: execution goes on elsewhere, at
 * c->rip. Handlers end in a call of the next one's: so the instruction is copied to where a
 * handler that only returns follows.
 */
static bool interp(struct x86_cpu *c, struct insn *i, uint64_t rip)
{
	struct jit *j = c->jit;
	struct insn *one = j->one;
	const struct insn *last;
	unsigned mode = c->mmu_mode;
	enum x86_time was;

	j->n_interp++;
	was = time_is(c, X86_TIME_HELPERS);
	*one = *i;
	c->block_rip = rip;
	c->cur = one;
	c->end = one + 2;
	one->fn(c, one);
	if (unlikely(one->fn != i->fn)) /* it chose a better handler for next time */
		*i = *one;
	time_is(c, was);
	if (likely(c->end == one + 2) && likely(c->mmu_mode == mode) &&
	    !(i->flags & I_STOP) &&
	    !(atomic_load_explicit(&c->request, memory_order_relaxed) &
	      ~(uint32_t)REQ_JIT)) {
		c->cur = NULL;
		return true;
	}
	last = c->cur == one + 1 ? one : c->cur;
	if (c->counts)
		c->stats.insns += last->idx + 1u;
	if (!(last->flags & I_END) ||
	    (c->end == one + 2 && !(last->flags & I_STOP))) /* it did not branch */
		c->rip = next_rip(c, last);
	c->cur = NULL;
	c->blocks->link = NULL;
	return false;
}

/* Called in translated code with T_B, T_C as above. */
static void make_interp(struct jit *j, struct emit *e)
{
	uint8_t *leave;

	jit_put_regs(e, true, 8);
	e_rm(e, 8, 0x8d, H_DI, rm_mem(H_SP, H_SP, 8)); /* lea */
	e_call_to(j, e, j->fp_save);
	e_mov(e, 8, H_SI, T_B);
	e_mov(e, 8, H_DX, T_C);
	e_mov(e, 8, H_BX, H_SP);
	e_load(e, 8, H_SP, CPU_OFF(jit_sp) + 8);
	e_imm(e, H_AX, (uint64_t)(uintptr_t)interp);
	e_rm(e, 4, 0xff, 2, rm_reg(H_AX)); /* call */
	e_mov(e, 8, H_SP, H_BX);
	e_op(e, 1, 0, 0, 0x84, H_AX, rm_reg(H_AX), true, true);
	leave = e_jcc(e, CC_Z);
	jit_put_regs(e, false, 8);
	e8(e, 0xc3);
	e_patch(leave, e->p);
	e_alu_imm(e, 8, 0, rm_reg(H_SP), 8);
	put_return(e);
}

/* Leaves for C: T_B is stored at `off`. */
static const uint8_t *make_leave(struct jit *j, struct emit *e, int32_t off)
{
	const uint8_t *start = jit_to_rx(j, e->p);

	e_store(e, 8, T_B, off);
	jit_put_regs(e, true, 0);
	e_mov(e, 8, H_DI, H_SP);
	e_call_to(j, e, j->fp_save);
	put_return(e);
	return start;
}

static void put_to_target(struct emit *e)
{
	e_rm(e, 4, 0xff, 4,
	     rm_mem(T_C, H_SP, offsetof(struct jit_target, entry))); /* jmp */
}

/* To the target at T_C if that is T_B's. */
static void put_compare_target(struct emit *e, uint8_t **other, uint8_t **old)
{
	e_rm(e, 8, 0x39, T_B, rm_mem(T_C, H_SP, 0));
	*other = e_jcc(e, CC_NZ);
	e_rm(e, 8, 0x8b, T_A, rm_mem(T_C, H_SP, offsetof(struct jit_target, epoch)));
	e_rm(e, 8, 0x3b, T_A, rm_cpu(CPU_OFF(jit_epoch)));
	*old = e_jcc(e, CC_NZ);
	put_to_target(e);
}

uint8_t *jit_put_look(struct jit *j, struct emit *e, unsigned mode, unsigned m32,
		      uint8_t **unknown, uint8_t **old)
{
	uint8_t *wait;

	e_rm(e, 4, 0xf7, 0, rm_cpu(CPU_OFF(request)));
	e32(e, ~(uint32_t)REQ_JIT);
	wait = e_jcc(e, CC_NZ);
	e_mov(e, 4, T_C, T_B);
	e_rm(e, 4, 0xc1, 5, rm_reg(T_C));
	e8(e, 4);
	e_rm(e, 4, 0x31, T_B, rm_reg(T_C));
	e_alu_imm(e, 4, 4, rm_reg(T_C), JIT_TARGETS - 1);
	e_rm(e, 4, 0xc1, 4, rm_reg(T_C));
	e8(e, 6);
	e_imm(e, T_A, (uint64_t)(uintptr_t)j->target[mode][m32]);
	e_rm(e, 8, 0x01, T_A, rm_reg(T_C));
	put_compare_target(e, unknown, old);
	return wait;
}

/* To linear address T_B. */
static void make_jump(struct jit *j, struct emit *e, unsigned mode, unsigned m32)
{
	int32_t tlb = CPU_OFF(tlbs) + (int32_t)(mode * sizeof(j->c->tlbs[0]));
	uint8_t *out[2], *back[2], *second, *old[2];

	out[0] = jit_put_look(j, e, mode, m32, &second, &old[0]);
	e_patch(second, e->p);
	e_alu_imm(e, 8, 0, rm_reg(T_C), sizeof(struct jit_target));
	put_compare_target(e, &out[1], &old[1]);
	e_patch(old[0], e->p);
	e_patch(old[1], e->p);
	e_mov(e, 8, T_A, T_B);
	e_rm(e, 8, 0xc1, 5, rm_reg(T_A));
	e8(e, 6);
	e_alu_imm(e, 4, 4, rm_reg(T_A), (TLB_SIZE - 1) << 6);
	e_alu_imm(e, 8, 4, rm_reg(T_B), -(int32_t)PAGE_SIZE);
	e_rm(e, 8, 0x3b, T_B,
	     rm_cpu_index(T_A, tlb + (int32_t)offsetof(struct tlb_entry, tag_exec)));
	back[0] = e_jcc(e, CC_NZ);
	e_rm(e, 8, 0x8b, T_B, rm_mem(T_C, H_SP, offsetof(struct jit_target, gpa)));
	e_rm(e, 8, 0x3b, T_B,
	     rm_cpu_index(T_A, tlb + (int32_t)offsetof(struct tlb_entry, gpa)));
	back[1] = e_jcc(e, CC_NZ);
	e_load(e, 8, T_A, CPU_OFF(jit_epoch));
	e_rm(e, 8, 0x89, T_A, rm_mem(T_C, H_SP, offsetof(struct jit_target, epoch)));
	put_to_target(e);
	e_patch(back[0], e->p);
	e_patch(back[1], e->p);
	e_rm(e, 8, 0x8b, T_B, rm_mem(T_C, H_SP, 0));
	e_patch(out[0], e->p);
	e_patch(out[1], e->p);
	e_jmp_to(j, e, j->leave);
}

void jit_make_thunks(struct jit *j)
{
	struct emit e = {j->rw};

	j->enter = jit_to_rx(j, e.p);
	make_enter(&e);
	jit_make_fp(j, &e);
	j->interp = jit_to_rx(j, e.p);
	make_interp(j, &e);
	j->leave_link = make_leave(j, &e, CPU_OFF(jit_link));
	j->leave = make_leave(j, &e, CPU_OFF(rip));
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned m32 = 0; m32 < 2; m32++) {
			j->jump[m][m32] = jit_to_rx(j, e.p);
			make_jump(j, &e, m, m32);
		}
	}
	j->fixed = j->used = (size_t)(e.p - j->rw + 63) & ~(size_t)63;
}

/*
 * x86/vec_run.c - executes vector and MMX instructions by their host code.
 *
 * The handlers differ by class (legacy SSE, VEX, MMX: SDM volume 2, sections 2.4 and 2.5, and
 * volume 3 section 13.1) and by where modrm.rm is. vCPU thread.
 */
#include "x86/vec.h"

/* ---- may it run? ---------------------------------------------------------------------------- */

void vec_refuse_sse(struct x86_cpu *c)
{
	x86_raise(c, c->cr0 & CR0_EM || !(c->cr4 & CR4_OSFXSR) ? EX_UD : EX_NM);
}

void vec_refuse_vex(struct x86_cpu *c)
{
	x86_raise(c, vec_vex_enabled(c) ? EX_NM : EX_UD);
}

void vec_check_mmx(struct x86_cpu *c)
{
	if (unlikely(c->cr0 & (CR0_EM | CR0_TS)))
		x86_raise(c, c->cr0 & CR0_EM ? EX_UD : EX_NM);
	x87_sync(c);
	if (unlikely(*xs16(c, XS_FSW) & FSW_ES && c->cr0 & CR0_NE))
		x86_raise(c, EX_MF);
}

/* ST0 of the image is physical register TOP; MM0 is physical register 0. */
void vec_enter_mmx(struct x86_cpu *c)
{
	x87_rotate(c, 0);
	c->xsave[XS_FTW] = 0xff;
}

/* ---- operands ---------------------------------------------------------------------------------- */

/* Register operand: insn counts in units of 8 bytes from where its kind of registers starts. */
static inline void *reg_at(struct x86_cpu *c, uint16_t base, uint8_t n)
{
	return (char *)c + base + 8u * n;
}

static void call_init(struct x86_cpu *c, const struct insn *i,
		      const struct vec_code_entry *e, struct vec_call *call)
{
	call->code = e;
	call->r = reg_at(c, e->r, i->reg);
	call->m = reg_at(c, e->m, i->rm);
	call->v = reg_at(c, e->v, i->vvvv);
	call->l = xs_xmm(c, i->sel);
}

/* The same and the call, for what runs as it is: no buffer, no exception to expect. */
static inline void call_direct(struct x86_cpu *c, const struct insn *i,
			       const struct vec_code_entry *e, void *m)
{
	e->fn(reg_at(c, e->r, i->reg), m, reg_at(c, e->v, i->vvvv), xs_xmm(c, i->sel),
	      c);
}

/* MXCSR.MM (APM 1 4.2.2): load-op instructions take any address. */
static bool misaligned_allowed(struct x86_cpu *c, const struct vec_code_entry *e)
{
	uint32_t v = c->fp_live & FP_LIVE_MXCSR ? host_stmxcsr() : *xs_mxcsr(c);

	return v & MXCSR_MM && !(e->flags & V_VA);
}

static uint64_t mem_at(struct x86_cpu *c, const struct insn *i,
		       const struct vec_code_entry *e, enum access acc)
{
	uint64_t va = ea_linear(c, i, 1, acc);

	if (unlikely(va & e->align) && !misaligned_allowed(c, e))
		x86_raise_code(c, EX_GP, 0);
	vec_check_aligned(c, va, e->size == 32 ? 16 : e->size,
			  e->size); /* as AMD does */
	return ea_linear(c, i, e->size, acc);
}

/* Where the fast paths begin: mem_at() for what they leave to a slow one. */
static inline uint64_t fast_at(struct x86_cpu *c, const struct insn *i,
			       const struct vec_code_entry *e, enum access acc)
{
	if (unlikely(i->flags & I_SEGCHK))
		return mem_at(c, i, e, acc);
	return ea_offset(c, i) + c->seg_base[i->seg];
}

/* MXCSR into the host's register: only when it leaves no exception unmasked. */
static bool mxcsr_go_live(struct x86_cpu *c)
{
	uint32_t v = *xs_mxcsr(c);

	if ((v & MXCSR_MASKS) != MXCSR_MASKS)
		return false;
	host_ldmxcsr(v);
	c->fp_live |= FP_LIVE_MXCSR;
	return true;
}

bool vec_mxcsr_enter(struct x86_cpu *c)
{
	return c->fp_live & FP_LIVE_MXCSR || mxcsr_go_live(c);
}

static void call_run(struct x86_cpu *c, const struct vec_call *k)
{
	if (k->code->flags & V_FP && !(c->fp_live & FP_LIVE_MXCSR) && !mxcsr_go_live(c))
		vec_call_unmasked(c, k);
	else
		k->code->fn(k->r, k->m, k->v, k->l, c);
}

/* Does `e` need MXCSR, which is not in the host's register? */
static inline bool needs_mxcsr(const struct x86_cpu *c, const struct vec_code_entry *e)
{
	return e->flags & V_FP && !(c->fp_live & FP_LIVE_MXCSR);
}

/* ---- all cases, by a buffer --------------------------------------------------------------------- */

#define SLOW __attribute__((noinline, cold))

SLOW static void reg_slow(struct x86_cpu *c, const struct insn *i)
{
	struct vec_call k;

	call_init(c, i, i->data, &k);
	call_run(c, &k);
}

SLOW static void load_slow(struct x86_cpu *c, const struct insn *i)
{
	const struct vec_code_entry *e = i->data;
	uint8_t buf[32] __attribute__((aligned(32)));
	uint64_t va = mem_at(c, i, e, ACC_READ);
	struct vec_call k;

	mem_read(c, va, buf, va & e->align ? e->mm_size : e->size);
	call_init(c, i, e, &k);
	k.m = buf;
	call_run(c, &k);
}

SLOW static void store_slow(struct x86_cpu *c, const struct insn *i)
{
	const struct vec_code_entry *e = i->data;
	uint8_t buf[32] __attribute__((aligned(32)));
	uint64_t va = mem_at(c, i, e, ACC_WRITE);
	struct vec_call k;

	mem_probe_write(c, va, e->size);
	call_init(c, i, e, &k);
	k.m = buf;
	call_run(c, &k);
	mem_write(c, va, buf, e->size);
}

/* ---- handlers ---------------------------------------------------------------------------------- */

#define CLASS(name, check)                                                        \
	static void name##_reg(struct x86_cpu *c, const struct insn *i)           \
	{                                                                         \
		const struct vec_code_entry *e = i->data;                         \
                                                                                  \
		check(c);                                                         \
		if (unlikely(needs_mxcsr(c, e)))                                  \
			reg_slow(c, i);                                           \
		else                                                              \
			call_direct(c, i, e, reg_at(c, e->m, i->rm));             \
		vec_next(c, i);                                                   \
	}                                                                         \
	static void name##_load(struct x86_cpu *c, const struct insn *i)          \
	{                                                                         \
		const struct vec_code_entry *e = i->data;                         \
		uint64_t va;                                                      \
		const struct tlb_entry *t;                                        \
                                                                                  \
		check(c);                                                         \
		va = fast_at(c, i, e, ACC_READ);                                  \
		t = tlb_at(c, va, false);                                         \
		if (likely(((va + e->size - 1) & PAGE_MASK) == t->tag_read) &&    \
		    likely(!(va & e->align)) && likely(!needs_mxcsr(c, e)))       \
			call_direct(c, i, e, (void *)(va + t->addend));           \
		else                                                              \
			load_slow(c, i);                                          \
		vec_next(c, i);                                                   \
	}                                                                         \
	static void name##_store(struct x86_cpu *c, const struct insn *i)         \
	{                                                                         \
		const struct vec_code_entry *e = i->data;                         \
		uint64_t va;                                                      \
		const struct tlb_entry *t;                                        \
                                                                                  \
		check(c);                                                         \
		va = fast_at(c, i, e, ACC_WRITE);                                 \
		t = tlb_at(c, va, true);                                          \
		if (likely(((va + e->size - 1) & PAGE_MASK) == t->tag_write) &&   \
		    likely(!(va & e->align)) && likely(!(e->flags & V_FP))) {     \
			call_direct(c, i, e, (void *)(va + t->addend));           \
			vec_next(c, i);                                           \
			return;                                                   \
		}                                                                 \
		store_slow(c, i); /* may have lowered c->end: back to the loop */ \
	}
CLASS(sse, vec_check_sse)
CLASS(vex, vec_check_vex)
#undef CLASS

/* MMX, some with an XMM operand: registers are in c->xsave while it runs. */
static void mmx_run(struct x86_cpu *c, const struct insn *i)
{
	const struct vec_code_entry *e = i->data;

	if (e->xmm)
		vec_check_sse(c);
	vec_check_mmx(c);
	if (!(i->flags & I_MEM)) {
		vec_enter_mmx(c);
		reg_slow(c, i);
	} else if (e->dst == K_Q || e->dst == K_E || e->dst == K_M) {
		mem_probe_write(c, mem_at(c, i, e, ACC_WRITE), e->size);
		vec_enter_mmx(c);
		store_slow(c, i);
	} else {
		uint8_t buf[16] __attribute__((aligned(16)));
		struct vec_call k;

		mem_read(c, mem_at(c, i, e, ACC_READ), buf, e->size);
		vec_enter_mmx(c);
		call_init(c, i, e, &k);
		k.m = buf;
		call_run(c, &k);
	}
}

/* ---- first execution ------------------------------------------------------------------------------ */

static bool has_kind(const struct vec_op *v, unsigned kind)
{
	for (unsigned n = 0; n < 4; n++)
		if (VEC_KIND(v->opr[n]) == kind)
			return true;
	return false;
}

bool vec_w_matters(const struct vec_op *v, bool long64)
{
	if (v->flags & V_W1)
		return true;
	if (v->flags & V_WX)
		return long64;
	for (unsigned n = 0; n < 4; n++)
		if (v->opr[n] && VEC_SIZE(v->opr[n]) == S_Y)
			return long64;
	return false;
}

static void want_of(const struct x86_cpu *c, const struct insn *i, struct vec_want *w)
{
	const struct vec_op *v = i->data;

	memset(w, 0, sizeof(*w));
	w->op = v;
	w->map = (uint8_t)i->sel;
	w->vex = i->flags & I_VEX;
	w->l1 = w->vex && i->flags & I_L1 && !(v->flags & V_LIG);
	w->w = i->flags & I_W && vec_w_matters(v, in_long64(c));
	w->mem = i->flags & I_MEM;
	if (has_kind(v, K_I))
		w->imm = (uint8_t)i->imm;
}

/* CVTPI2PD from memory uses no MMX register; on AMD neither does CVTPI2PS. */
bool vec_uses_mmx(const struct vec_want *w)
{
	const struct vec_op *v = w->op;

	if (has_kind(v, K_P) || has_kind(v, K_N))
		return true;
	return has_kind(v, K_Q) && !(w->mem && (v->pp || vec_host_is_amd()));
}

static op_fn handler_of(const struct vec_want *w, const struct vec_code_entry *e)
{
	bool store = e->dst == K_M || e->dst == K_W || e->dst == K_E;

	if (vec_uses_mmx(w))
		return mmx_run;
	if (!w->mem)
		return w->vex ? vex_reg : sse_reg;
	if (store)
		return w->vex ? vex_store : sse_store;
	return w->vex ? vex_load : sse_load;
}

/* Registers as numbers become units of 8 bytes: XMM and MMX are 16 bytes apart. */
static void operands_scale(struct x86_cpu *c, const struct vec_op *v, struct insn *i)
{
	if (has_kind(v, K_P))
		i->reg = (i->reg & 7) * 2;
	else if (!has_kind(v, K_G))
		i->reg = (uint8_t)(i->reg * 2);
	if (has_kind(v, K_Q) || has_kind(v, K_N))
		i->rm = (i->rm & 7) * 2;
	else if (!has_kind(v, K_E))
		i->rm = (uint8_t)(i->rm * 2);
	i->vvvv = (uint8_t)(i->vvvv * 2);
	i->sel = 0;
	if (has_kind(v, K_L))
		i->sel = (uint16_t)(i->imm >> 4 & (in_long64(c) ? 15 : 7));
}

/*
 * Gives the instruction its code. The block belongs to this processor, and nobody else runs it, so
 * its instruction may change under the const.
 */
void vec_first(struct x86_cpu *c, const struct insn *ci)
{
	struct insn *i = (struct insn *)ci;
	const struct vec_op *v = i->data;
	const struct vec_code_entry *e;
	struct vec_want w;

	if (v->flags & V_W64 && i->flags & I_W && !in_long64(c)) {
		i->fn = op_ud;
		x86_raise(c, EX_UD);
	}
	want_of(c, i, &w);
	e = vec_cache_get(c->sys->vec, &w);
	if (!e) {
		log_msg(c->sys->log, LOG_ERROR, "no room for the code of '%s'",
			v->name);
		x86_raise(c, EX_UD);
	}
	operands_scale(c, v, i);
	i->data = e;
	i->fn = handler_of(&w, e);
	i->fn(c, i);
}

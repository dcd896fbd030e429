/*
 * x86/vec_fpexc.c - SIMD floating-point instructions while MXCSR leaves an exception unmasked.
 *
 * SDM volume 1, section 11.5. First the instruction runs with all exceptions masked, to learn
 * which are raised; only if one is unmasked does it run again so that the host traps, for the flags
 * that the hardware leaves. vCPU thread.
 */
#include "x86/vec.h"

#define FLAGS     0x3fu
#define MXCSR_UE  (1u << 4)
#define MXCSR_UM  (1u << 11)
#define MXCSR_FTZ (1u << 15)

/* What the code writes, to take it back. */
struct undo {
	uint8_t lo[16], hi[16];
	union status st;
	uint8_t *at;
	unsigned len;
	bool has_hi;
};

static void undo_save(struct x86_cpu *c, const struct vec_call *k, struct undo *u)
{
	u->st = c->st;
	u->has_hi = false;
	u->len = 0;
	switch (k->code->dst) {
	case K_V:
		u->at = k->r;
		u->len = 16;
		u->has_hi = true;
		break;
	case K_P:
		u->at = k->r;
		u->len = 10;
		break;
	case K_G:
		u->at = k->r;
		u->len = 8;
		break;
	case K_W:
	case K_U:
		if (k->code->size) /* memory: a buffer */
			break;
		u->at = k->m;
		u->len = 16;
		u->has_hi = true;
		break;
	}
	if (u->len)
		memcpy(u->lo, u->at, u->len);
	if (u->has_hi)
		memcpy(u->hi, u->at + VEC_HI, sizeof(u->hi));
}

static void undo_apply(struct x86_cpu *c, const struct undo *u)
{
	c->st = u->st;
	if (u->len)
		memcpy(u->at, u->lo, u->len);
	if (u->has_hi)
		memcpy(u->at + VEC_HI, u->hi, sizeof(u->hi));
}

/* Runs with all masked and the flags clear; returns the flags raised. */
static uint32_t masked_run(struct x86_cpu *c, const struct vec_call *k, uint32_t mxcsr)
{
	uint32_t v = (mxcsr | MXCSR_MASKS) & ~FLAGS;

	/*
	 * Unmasked, underflow is raised for every tiny result, masked only for inexact ones; but
	 * flushing to zero reports every tiny one.
	 */
	if (!(mxcsr & MXCSR_UM))
		v |= MXCSR_FTZ;
	host_ldmxcsr(v);
	k->code->fn(k->r, k->m, k->v, k->l, c);
	v = host_stmxcsr() & FLAGS;
	host_ldmxcsr(MXCSR_HOST);
	return v;
}

void vec_call_unmasked(struct x86_cpu *c, const struct vec_call *k)
{
	uint32_t mxcsr = *xs_mxcsr(c), raised;
	struct undo u;

	undo_save(c, k, &u);
	raised = masked_run(c, k, mxcsr);
	if (!(raised & ~(mxcsr >> 7) & FLAGS)) {
		*xs_mxcsr(c) = mxcsr | raised;
		return;
	}
	undo_apply(c, &u);
	if (!vec_trap_run(c, k, xs_mxcsr(c)))
		return;
	undo_apply(c, &u);
	x86_raise(c, c->cr4 & CR4_OSXMMEXCPT ? EX_XM : EX_UD);
}

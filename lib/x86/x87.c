/*
 * x86/x87.c - the x87 instructions.
 *
 * SDM volume 1 chapter 8, volume 2 appendix A.5 (escape opcodes D8-DF). While the control word masks
 * all exceptions, the guest's x87 registers live in the host's and an instruction is just that
 * (FP_LIVE_X87). Otherwise each one runs between loading and storing the state: an exception
 * becomes pending in the status word and is raised by the next waiting instruction. The pointers FOP,
 * FIP, FDP are kept here: the host's are about host addresses. vCPU thread.
 */
#include "x86/vec.h"

#include <string.h>

#define SLOW __attribute__((noinline, cold))

enum x87_flag {
	F_STORE = 1 << 0, /* writes memory */
	F_NOWAIT = 1 << 1,
	F_CTL = 1 << 2,   /* leaves FOP, FIP, FDP alone */
	F_FLAGS = 1 << 3, /* uses or sets the status flags */
};

/* Rows of the escape opcodes: vec_op with size of memory in `quirk` and x87_flag in `flags`. */
#define LD(n, s)                      \
	{                             \
		.name = n, .quirk = s \
	}
#define ST(n, s)                                        \
	{                                               \
		.name = n, .quirk = s, .flags = F_STORE \
	}
#define RR(n)             \
	{                 \
		.name = n \
	}
#define FL(n)                               \
	{                                   \
		.name = n, .flags = F_FLAGS \
	}
#define CT(n, s, f, fn)                                                    \
	{                                                                  \
		.name = n, .quirk = s, .flags = F_CTL | (f), .special = fn \
	}
#define UD                   \
	{                    \
		.name = NULL \
	}

static void x87_fldcw(struct x86_cpu *c, const struct insn *i);
static void x87_fnstcw(struct x86_cpu *c, const struct insn *i);
static void x87_fnstsw(struct x86_cpu *c, const struct insn *i);
static void x87_fnstsw_ax(struct x86_cpu *c, const struct insn *i);
static void x87_fnclex(struct x86_cpu *c, const struct insn *i);
static void x87_fninit(struct x86_cpu *c, const struct insn *i);
static void x87_nop(struct x86_cpu *c, const struct insn *i);

/* clang-format off */
static const struct vec_op x87_mem[8][8] = {
	{LD("fadd", 4), LD("fmul", 4), LD("fcom", 4), LD("fcomp", 4),
	 LD("fsub", 4), LD("fsubr", 4), LD("fdiv", 4), LD("fdivr", 4)},
	{LD("fld", 4), UD, ST("fst", 4), ST("fstp", 4),
	 CT("fldenv", 0, 0, x87_fldenv), CT("fldcw", 2, 0, x87_fldcw),
	 CT("fnstenv", 0, F_NOWAIT, x87_fnstenv), CT("fnstcw", 2, F_NOWAIT, x87_fnstcw)},
	{LD("fiadd", 4), LD("fimul", 4), LD("ficom", 4), LD("ficomp", 4),
	 LD("fisub", 4), LD("fisubr", 4), LD("fidiv", 4), LD("fidivr", 4)},
	{LD("fild", 4), ST("fisttp", 4), ST("fist", 4), ST("fistp", 4),
	 UD, LD("fld", 10), UD, ST("fstp", 10)},
	{LD("fadd", 8), LD("fmul", 8), LD("fcom", 8), LD("fcomp", 8),
	 LD("fsub", 8), LD("fsubr", 8), LD("fdiv", 8), LD("fdivr", 8)},
	{LD("fld", 8), ST("fisttp", 8), ST("fst", 8), ST("fstp", 8),
	 CT("frstor", 0, 0, x87_frstor), UD,
	 CT("fnsave", 0, F_NOWAIT, x87_fnsave), CT("fnstsw", 2, F_NOWAIT, x87_fnstsw)},
	{LD("fiadd", 2), LD("fimul", 2), LD("ficom", 2), LD("ficomp", 2),
	 LD("fisub", 2), LD("fisubr", 2), LD("fidiv", 2), LD("fidivr", 2)},
	{LD("fild", 2), ST("fisttp", 2), ST("fist", 2), ST("fistp", 2),
	 LD("fbld", 10), LD("fild", 8), ST("fbstp", 10), ST("fistp", 8)},
};

/* Register forms by modrm.reg; a group's NULL rows are looked up in x87_single. */
static const struct vec_op x87_reg[8][8] = {
	{RR("fadd"), RR("fmul"), RR("fcom"), RR("fcomp"),
	 RR("fsub"), RR("fsubr"), RR("fdiv"), RR("fdivr")},
	{RR("fld"), RR("fxch"), UD, RR("fstpnce"), UD, UD, UD, UD},
	{FL("fcmovb"), FL("fcmove"), FL("fcmovbe"), FL("fcmovu"), UD, UD, UD, UD},
	{FL("fcmovnb"), FL("fcmovne"), FL("fcmovnbe"), FL("fcmovnu"),
	 UD, FL("fucomi"), FL("fcomi"), UD},
	{RR("fadd"), RR("fmul"), RR("fcom2"), RR("fcomp3"),
	 RR("fsubr"), RR("fsub"), RR("fdivr"), RR("fdiv")},
	{RR("ffree"), RR("fxch4"), RR("fst"), RR("fstp"), RR("fucom"), RR("fucomp"), UD, UD},
	{RR("faddp"), RR("fmulp"), RR("fcomp5"), UD,
	 RR("fsubrp"), RR("fsubp"), RR("fdivrp"), RR("fdivp")},
	{RR("ffreep"), RR("fxch7"), RR("fstp8"), RR("fstp9"),
	 UD, FL("fucomip"), FL("fcomip"), UD},
};

/* Register forms that are one modrm byte each. */
static const struct x87_single {
	uint8_t op, modrm;
	struct vec_op v;
} x87_single[] = {
	{0xd9, 0xd0, RR("fnop")},
	{0xd9, 0xe0, RR("fchs")},
	{0xd9, 0xe1, RR("fabs")},
	{0xd9, 0xe4, RR("ftst")},
	{0xd9, 0xe5, RR("fxam")},
	{0xd9, 0xe8, RR("fld1")},
	{0xd9, 0xe9, RR("fldl2t")},
	{0xd9, 0xea, RR("fldl2e")},
	{0xd9, 0xeb, RR("fldpi")},
	{0xd9, 0xec, RR("fldlg2")},
	{0xd9, 0xed, RR("fldln2")},
	{0xd9, 0xee, RR("fldz")},
	{0xd9, 0xf0, RR("f2xm1")},
	{0xd9, 0xf1, RR("fyl2x")},
	{0xd9, 0xf2, RR("fptan")},
	{0xd9, 0xf3, RR("fpatan")},
	{0xd9, 0xf4, RR("fxtract")},
	{0xd9, 0xf5, RR("fprem1")},
	{0xd9, 0xf6, RR("fdecstp")},
	{0xd9, 0xf7, RR("fincstp")},
	{0xd9, 0xf8, RR("fprem")},
	{0xd9, 0xf9, RR("fyl2xp1")},
	{0xd9, 0xfa, RR("fsqrt")},
	{0xd9, 0xfb, RR("fsincos")},
	{0xd9, 0xfc, RR("frndint")},
	{0xd9, 0xfd, RR("fscale")},
	{0xd9, 0xfe, RR("fsin")},
	{0xd9, 0xff, RR("fcos")},
	{0xda, 0xe9, RR("fucompp")},
	{0xdb, 0xe0, CT("fneni", 0, F_NOWAIT, x87_nop)},
	{0xdb, 0xe1, CT("fndisi", 0, F_NOWAIT, x87_nop)},
	{0xdb, 0xe2, CT("fnclex", 0, F_NOWAIT, x87_fnclex)},
	{0xdb, 0xe3, CT("fninit", 0, F_NOWAIT, x87_fninit)},
	{0xdb, 0xe4, CT("fnsetpm", 0, F_NOWAIT, x87_nop)},
	{0xde, 0xd9, RR("fcompp")},
	{0xdf, 0xe0, CT("fnstsw", 0, F_NOWAIT, x87_fnstsw_ax)},
};
/* clang-format on */

const struct vec_op *x87_find(uint8_t op, uint8_t modrm)
{
	const struct vec_op *v;

	if (op < 0xd8 || op > 0xdf)
		return NULL;
	if (modrm < 0xc0) {
		v = &x87_mem[op & 7][modrm >> 3 & 7];
		return v->name ? v : NULL;
	}
	v = &x87_reg[op & 7][modrm >> 3 & 7];
	if (v->name)
		return v;
	for (unsigned n = 0; n < ARRAY_LEN(x87_single); n++)
		if (x87_single[n].op == op && x87_single[n].modrm == modrm)
			return &x87_single[n].v;
	return NULL;
}

bool x87_stores(const struct vec_op *v)
{
	return v->flags & F_STORE;
}

bool x87_uses_flags(const struct vec_op *v)
{
	return v->flags & F_FLAGS;
}

/* ---- the state -------------------------------------------------------------------------------- */

/* The x87 part of an FXSAVE image; the rest of `img` is ours. */
#define X87_BYTES 160

/* Not to be called while MXCSR is needed: FXRSTOR loads all of it. */
static void host_load(struct x86_cpu *c)
{
	uint8_t img[512] __attribute__((aligned(16)));
	uint32_t mxcsr = host_stmxcsr();

	memcpy(img, c->xsave, X87_BYTES);
	memset(img + XS_FOP, 0, 24 - XS_FOP); /* FOP, FIP, FDP */
	memcpy(img + 24, &mxcsr, 4);
	memset(img + X87_BYTES, 0, 512 - X87_BYTES);
	__asm__ volatile("fxrstor64 %0"
			 :
			 : "m"(img)
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
			   "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
			   "xmm14", "xmm15");
}

/* Stores the host's x87 registers as the guest's and leaves the host's in initial state. */
static void host_store(struct x86_cpu *c)
{
	uint8_t img[512] __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0\n\tfninit" : "=m"(img));
	memcpy(c->xsave, img, XS_FOP);
	memcpy(c->xsave + XS_ST, img + XS_ST, X87_BYTES - XS_ST);
}

void x87_sync(struct x86_cpu *c)
{
	if (!(c->fp_live & FP_LIVE_X87))
		return;
	host_store(c);
	c->fp_live &= (uint8_t)~FP_LIVE_X87;
}

void x86_fp_sync(struct x86_cpu *c)
{
	x87_sync(c);
	if (c->fp_live & FP_LIVE_MXCSR) {
		*xs_mxcsr(c) = host_stmxcsr();
		host_ldmxcsr(MXCSR_HOST);
		c->fp_live &= (uint8_t)~FP_LIVE_MXCSR;
	}
}

void x87_fix_es(struct x86_cpu *c)
{
	uint16_t *fsw = xs16(c, XS_FSW);

	*fsw &= (uint16_t) ~(FSW_ES | FSW_B);
	if (*fsw & ~*xs16(c, XS_FCW) & FSW_EXC)
		*fsw |= FSW_ES | FSW_B;
}

/* TOP changes and physical registers stay: what the image has as ST(i) moves. */
void x87_rotate(struct x86_cpu *c, unsigned top)
{
	unsigned by = (top - (*xs16(c, XS_FSW) >> 11)) & 7;
	uint8_t st[128];

	if (by) {
		memcpy(st, c->xsave + XS_ST, sizeof(st));
		for (unsigned n = 0; n < 8; n++)
			memcpy(c->xsave + XS_ST + 16 * n, st + 16 * ((n + by) & 7), 16);
	}
	*xs16(c, XS_FSW) = (uint16_t)((*xs16(c, XS_FSW) & ~FSW_TOP) | top << 11);
}

void x87_init_state(struct x86_cpu *c)
{
	x87_rotate(c, 0);
	*xs16(c, XS_FCW) = 0x37f;
	*xs16(c, XS_FSW) = 0;
	c->xsave[XS_FTW] = 0;
	*xs16(c, XS_FOP) = 0;
	*xs64(c, XS_FIP) = 0;
	*xs64(c, XS_FDP) = 0;
}

void x86_fp_reset(struct x86_cpu *c, bool init)
{
	x86_fp_sync(c);
	if (init) /* SDM 3A table 9-1: x87, SSE, AVX are unchanged */
		return;
	memset(c->xsave, 0, sizeof(c->xsave));
	x87_init_state(c);
	*xs16(c, XS_FCW) = 0x40;
	c->xsave[XS_FTW] = 0xff; /* tag word 5555h: not empty */
	*xs_mxcsr(c) = MXCSR_HOST;
}

/* x87 state into the host's registers: only when no exception is unmasked or pending. */
static bool x87_go_live(struct x86_cpu *c)
{
	if ((*xs16(c, XS_FCW) & FSW_EXC) != FSW_EXC)
		return false;
	host_load(c);
	c->fp_live |= FP_LIVE_X87;
	return true;
}

bool x87_enter(struct x86_cpu *c)
{
	return !(c->cr0 & (CR0_EM | CR0_TS)) &&
	       (c->fp_live & FP_LIVE_X87 || x87_go_live(c));
}

/* ---- checks -------------------------------------------------------------------------------------- */

static void x87_check(struct x86_cpu *c)
{
	if (unlikely(c->cr0 & (CR0_EM | CR0_TS)))
		x86_raise(c, EX_NM);
}

/*
 * With CR0.NE = 0 the exception would be an interrupt by FERR#, IRQ 13; the machine has no such
 * line, so the instruction just goes on as with IGNNE# asserted.
 */
static void x87_raise_pending(struct x86_cpu *c)
{
	if (!(c->fp_live & FP_LIVE_X87) && *xs16(c, XS_FSW) & FSW_ES && c->cr0 & CR0_NE)
		x86_raise(c, EX_MF);
}

void op_fwait(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	if ((c->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		x86_raise(c, EX_NM);
	x87_raise_pending(c);
}

void op_emms(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	vec_check_mmx(c);
	vec_enter_mmx(c);
	c->xsave[XS_FTW] = 0;
}

/* ---- control instructions ------------------------------------------------------------------------- */

static void x87_fldcw(struct x86_cpu *c, const struct insn *i)
{
	uint16_t v;

	x87_check(c);
	x87_raise_pending(c);
	v = mem_load16(c, ea_linear(c, i, 2, ACC_READ));
	if ((v & FSW_EXC) == FSW_EXC && c->fp_live & FP_LIVE_X87) {
		__asm__ volatile("fldcw %0" : : "m"(v));
		return;
	}
	x87_sync(c);
	*xs16(c, XS_FCW) = (v & 0x1f3f) | 0x40;
	x87_fix_es(c);
}

static uint16_t fcw_get(struct x86_cpu *c)
{
	uint16_t v;

	if (!(c->fp_live & FP_LIVE_X87))
		return *xs16(c, XS_FCW);
	__asm__ volatile("fnstcw %0" : "=m"(v));
	return v;
}

static uint16_t fsw_get(struct x86_cpu *c)
{
	uint16_t v;

	if (!(c->fp_live & FP_LIVE_X87))
		return *xs16(c, XS_FSW);
	__asm__ volatile("fnstsw %0" : "=a"(v));
	return v;
}

static void x87_fnstcw(struct x86_cpu *c, const struct insn *i)
{
	x87_check(c);
	mem_store16(c, ea_linear(c, i, 2, ACC_WRITE), fcw_get(c));
}

static void x87_fnstsw(struct x86_cpu *c, const struct insn *i)
{
	x87_check(c);
	mem_store16(c, ea_linear(c, i, 2, ACC_WRITE), fsw_get(c));
}

static void x87_fnstsw_ax(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x87_check(c);
	*reg16(c, R_OFF(X86_RAX)) = fsw_get(c);
}

static void x87_fnclex(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x87_check(c);
	if (c->fp_live & FP_LIVE_X87)
		__asm__ volatile("fnclex");
	else
		*xs16(c, XS_FSW) &= (uint16_t) ~(FSW_EXC | FSW_SF | FSW_ES | FSW_B);
}

static void x87_fninit(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x87_check(c);
	x87_sync(c);
	x87_init_state(c);
}

static void x87_nop(struct x86_cpu *c, const struct insn *i)
{
	(void)i;
	x87_check(c);
}

/* ---- all others -------------------------------------------------------------------------------------- */

static void pointers_note(struct x86_cpu *c, const struct insn *i, uint64_t ea)
{
	*xs16(c, XS_FOP) = (uint16_t)((i->op & 7) << 8 | i->modrm);
	*xs64(c, XS_FIP) = insn_rip(c, i);
	*xs64(c, XS_FDP) = ea;
}

/* insn.data is the code; insn.sel the memory size, insn.vvvv the x87_flag. */
static void code_call(struct x86_cpu *c, const struct insn *i, void *m)
{
	const struct vec_code_entry *e = i->data;

	e->fn(NULL, m, NULL, NULL, c);
}

/*
 * Runs with the state in memory; exceptions may be unmasked. The sticky flags are cleared
 * meanwhile, to see which the instruction raises. Returns whether a result in memory is
 * stored: not after an unmasked exception other than #P.
 */
static bool x87_run_unmasked(struct x86_cpu *c, const struct insn *i, void *m)
{
	uint16_t *fsw = xs16(c, XS_FSW);
	uint16_t sticky = *fsw & (FSW_EXC | FSW_SF);
	uint16_t raised;

	*fsw &= (uint16_t) ~(FSW_EXC | FSW_SF | FSW_ES | FSW_B);
	host_load(c);
	code_call(c, i, m);
	host_store(c);
	raised = *fsw & ~*xs16(c, XS_FCW) & FSW_EXC;
	*fsw |= sticky;
	x87_fix_es(c);
	return !(raised & ~0x20);
}

static bool x87_run(struct x86_cpu *c, const struct insn *i, void *m)
{
	if (c->fp_live & FP_LIVE_X87 || x87_go_live(c)) {
		code_call(c, i, m);
		return true;
	}
	return x87_run_unmasked(c, i, m);
}

/* The usual case: the state is in the host's registers, so no exception is unmasked. */
static inline bool is_live(const struct x86_cpu *c)
{
	return likely(c->fp_live & FP_LIVE_X87) &&
	       likely(!(c->cr0 & (CR0_EM | CR0_TS)));
}

void x87_check_wait(struct x86_cpu *c)
{
	x87_check(c);
	x87_raise_pending(c);
}

SLOW static void reg_slow(struct x86_cpu *c, const struct insn *i)
{
	x87_check_wait(c);
	x87_run(c, i, NULL);
}

SLOW static void load_slow(struct x86_cpu *c, const struct insn *i)
{
	uint8_t buf[16];

	uint64_t va;

	x87_check_wait(c);
	va = ea_linear(c, i, i->sel, ACC_READ);
	vec_check_aligned(c, va, i->sel == 10 ? 8 : i->sel, i->sel);
	mem_read(c, va, buf, i->sel);
	x87_run(c, i, buf);
}

SLOW static void store_slow(struct x86_cpu *c, const struct insn *i)
{
	uint8_t buf[16];
	uint64_t va;
	bool stored;

	x87_check_wait(c);
	va = ea_linear(c, i, i->sel, ACC_WRITE);
	vec_check_aligned(c, va, i->sel == 10 ? 8 : i->sel, i->sel);
	mem_probe_write(c, va, i->sel);
	stored = x87_run(c, i, buf);
	pointers_note(c, i, ea_offset(c, i));
	if (stored)
		mem_write(c, va, buf, i->sel);
}

static void x87_op_reg(struct x86_cpu *c, const struct insn *i)
{
	if (is_live(c))
		code_call(c, i, NULL);
	else
		reg_slow(c, i);
	pointers_note(c, i, *xs64(c, XS_FDP));
	vec_next(c, i);
}

static void x87_op_load(struct x86_cpu *c, const struct insn *i)
{
	uint64_t va = is_live(c) ? ea_linear(c, i, i->sel, ACC_READ) : 0;
	const struct tlb_entry *t = tlb_at(c, va, false);

	if (is_live(c) && likely(((va + i->sel - 1) & PAGE_MASK) == t->tag_read))
		code_call(c, i, (void *)(va + t->addend));
	else
		load_slow(c, i);
	pointers_note(c, i, ea_offset(c, i));
	vec_next(c, i);
}

static void x87_op_store(struct x86_cpu *c, const struct insn *i)
{
	uint64_t va = is_live(c) ? ea_linear(c, i, i->sel, ACC_WRITE) : 0;
	const struct tlb_entry *t = tlb_at(c, va, true);

	if (!is_live(c) || unlikely(((va + i->sel - 1) & PAGE_MASK) != t->tag_write)) {
		store_slow(c, i); /* may have lowered c->end: back to the loop */
		return;
	}
	code_call(c, i, (void *)(va + t->addend));
	pointers_note(c, i, ea_offset(c, i));
	vec_next(c, i);
}

static void x87_first(struct x86_cpu *c, const struct insn *ci)
{
	struct insn *i = (struct insn *)ci; /* see vec_first() */
	const struct vec_op *v = i->data;
	const struct vec_code_entry *e;

	e = vec_cache_get_x87(c->sys->vec, i->op & 7,
			      i->modrm < 0xc0 ? i->modrm & 0x38 : i->modrm,
			      v->flags & F_FLAGS);
	if (!e) {
		log_msg(c->sys->log, LOG_ERROR, "no room for the code of '%s'",
			v->name);
		x86_raise(c, EX_UD);
	}
	i->data = e;
	i->sel = v->quirk;
	i->fn = !(i->flags & I_MEM)  ? x87_op_reg
		: v->flags & F_STORE ? x87_op_store
				     : x87_op_load;
	i->fn(c, i);
}

void x87_bind(const struct vec_op *v, struct insn *i)
{
	i->data = v;
	i->fn = v->special ? v->special : x87_first;
}

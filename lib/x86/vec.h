/*
 * x86/vec.h - inside the vector, MMX and x87 instructions (vec_*.c, x87*.c, xsave.c).
 * Private to those files.
 *
 * Such an instruction runs as the host's own. vec_find.c finds it in the tables (vec_tab*.c),
 * which read like the manual's opcode map; at its first execution vec_cache.c gives a piece of host
 * code that loads the operands through pointers, runs the instruction on fixed registers and
 * stores the result; vec_run.c resolves the pointers, checks what the processor would
 * check, and calls it. Code is never changed or freed while the system lives.
 */
#ifndef X86_VEC_H
#define X86_VEC_H

#include <string.h>

#include "x86/x86_int.h"

/* ---- tables ----------------------------------------------------------------------------- */

/* Operand kinds, as in the opcode map (SDM 2D appendix A.2.1). */
enum vec_kind {
	K_NONE,
	K_V,  /* modrm.reg: XMM or YMM */
	K_H,  /* VEX.vvvv: XMM or YMM; the legacy form does not have this operand */
	K_W,  /* modrm.rm: XMM, YMM or memory */
	K_U,  /* modrm.rm: XMM or YMM */
	K_M,  /* modrm.rm: memory */
	K_P,  /* modrm.reg: MMX */
	K_Q,  /* modrm.rm: MMX or memory */
	K_N,  /* modrm.rm: MMX */
	K_G,  /* modrm.reg: general register */
	K_E,  /* modrm.rm: general register or memory */
	K_L,  /* imm8[7:4]: XMM or YMM */
	K_X0, /* XMM0, implied */
	K_I,  /* imm8 */
};

/* Operand sizes; they matter for memory, and y for general registers. */
enum vec_size {
	S_B,  /* 1 byte */
	S_W,  /* 2 */
	S_D,  /* 4 */
	S_Q,  /* 8 */
	S_DQ, /* 16 */
	S_QQ, /* 32 */
	S_X,  /* 16, with VEX.L 32 */
	S_H,  /* half of x */
	S_F,  /* a quarter of x */
	S_E,  /* an eighth of x */
	S_Y,  /* 4, with W 8 */
	S_DD, /* 8, with VEX.L 32 (MOVDDUP) */
};

#define VEC_OPERAND(k, s) (K_##k << 4 | S_##s)
#define VEC_KIND(o)       ((o) >> 4)
#define VEC_SIZE(o)       ((o)&15)

/* CPUID features of the host that a row needs. */
enum vec_feat {
	NONE, /* no such form */
	MMX,
	SSE,
	SSE2,
	SSE3,
	SSSE3,
	SSE41,
	SSE42,
	AES,
	PCLMUL,
	SHA,
	AVX,
	AVX2,
	FMA,
	F16C,
};

enum vec_flag {
	V_FP = 1 << 0,     /* uses MXCSR, may raise #XM */
	V_ST = 1 << 1,     /* sets the status flags */
	V_UA = 1 << 2,     /* legacy form: 16-byte memory operand need not be aligned */
	V_VA = 1 << 3,     /* VEX form: memory operand must be aligned */
	V_W0 = 1 << 4,     /* VEX.W must be 0 */
	V_W1 = 1 << 5,     /* VEX.W must be 1 */
	V_WX = 1 << 6,     /* W chooses between operations */
	V_REG = 1 << 7,    /* modrm must name a register */
	V_MEM = 1 << 8,    /* modrm must name memory */
	V_LIG = 1 << 9,    /* VEX.L is ignored */
	V_RD = 1 << 10,    /* VEX form reads its destination */
	V_ESTR = 1 << 11,  /* reads rAX and rDX */
	V_RCX = 1 << 12,   /* writes rCX */
	V_XMM0 = 1 << 13,  /* writes XMM0 */
	V_NOMOD = 1 << 14, /* no modrm byte */
	V_W64 = 1 << 15,   /* W = 1 is undefined outside of 64-bit mode */
};

/* One row of the opcode map. */
struct vec_op {
	uint8_t op;
	uint8_t pp;       /* 0 none, 1 66, 2 F3, 3 F2 */
	uint8_t digit;    /* /n of a group: n + 1; 0 = modrm.reg is an operand */
	uint8_t quirk;    /* enum vec_quirk; x87: size of the memory operand */
	const char *name; /* of the legacy form */
	uint8_t opr[4];   /* destination first */
	uint8_t legacy, vex128, vex256; /* enum vec_feat */
	uint16_t flags;                 /* enum vec_flag */
	op_fn special;                  /* not executed by generated code */
};

/* Where processors of the host's maker differ from the manual: enum vec_flag has no room left. */
enum vec_quirk {
	Q_AMD_W = 1,   /* AMD ignores the W that the row asks for */
	Q_AMD_UA = 2,  /* AMD does not ask for alignment */
	Q_AMD_LOW = 4, /* AMD reads only the half it needs of an unaligned operand */
};

extern const struct vec_op vec_map1[], vec_map2[],
	vec_map3[]; /* 0F, 0F38, 0F3A; by op */
extern const unsigned vec_map1_n, vec_map2_n, vec_map3_n;

/* What is particular to this host. */
struct vec_host {
	bool amd;
	uint8_t pointer_bits; /* FIP and FDP are sign-extended from so many bits */
	bool pointers; /* FXSAVE stores FOP, FIP, FDP even when no exception is pending */
	uint32_t mxcsr_mask; /* valid bits of MXCSR */
};

const struct vec_host *vec_host_of(const struct x86_cpu *c);
bool vec_host_is_amd(void); /* any thread */

/* Does this host have it? Any thread. */
bool vec_host_has(enum vec_feat f);
/* Size of the memory operand of `o` in bytes. */
unsigned vec_mem_size(unsigned o, bool l1, bool w);

/* ---- host code --------------------------------------------------------------------------- */

/*
 * A piece of host code: r, m, v, l point to the operands modrm.reg, modrm.rm (register or
 * memory), VEX.vvvv, imm8[7:4]. An XMM operand is 16 bytes in c->xsave, its upper YMM half
 * VEC_HI bytes behind.
 */
typedef void (*vec_code)(void *r, void *m, const void *v, const void *l,
			 struct x86_cpu *c);

#define XS_XMM 160 /* XMM0 in c->xsave */
#define XS_YMM 576 /* upper half of YMM0 */
#define XS_ST  32  /* ST0 or, with TOP = 0, MM0 */
#define VEC_HI (XS_YMM - XS_XMM)

struct vec_code_entry {
	uint32_t key;
	uint16_t flags; /* enum vec_flag */
	uint8_t size;   /* of the memory operand */
	uint8_t align;  /* mask of address bits that must be 0 */
	vec_code fn;
	uint16_t r, m,
		v; /* where operands start in struct x86_cpu; registers are 8 n from it */
	uint8_t dst;     /* enum vec_kind of the destination */
	bool xmm;        /* has an XMM operand */
	uint8_t mm_size; /* of the memory operand when it is unaligned (MXCSR.MM) */
};

/* What a piece of code is for. */
struct vec_want {
	const struct vec_op *op;
	uint8_t map;
	bool vex, l1, w, mem;
	uint8_t digit; /* modrm.reg of a group */
	uint8_t imm;
};

/* Does W make a difference to this instruction? */
bool vec_w_matters(const struct vec_op *v, bool long64);
/* Fills all fields of e but key and fn. Any thread. */
void vec_describe(const struct vec_want *w, struct vec_code_entry *e);

/*
 * The code for `w`, made at first use; NULL when the code memory is full. Any thread. It stays
 * valid as long as the system.
 */
const struct vec_code_entry *vec_cache_get(struct vec_cache *vc,
					   const struct vec_want *w);
/* The same for x87 instruction D8+n modrm (register form, or memory at [m]). */
const struct vec_code_entry *vec_cache_get_x87(struct vec_cache *vc, unsigned n,
					       uint8_t modrm, bool flags);
/* Writes the code for `w` to p (at most VEC_CODE_MAX bytes); returns the length. (vec_emit.c) */
#define VEC_CODE_MAX 96
unsigned vec_emit(const struct vec_want *w, uint8_t *p);
unsigned vec_emit_x87(unsigned n, uint8_t modrm, bool flags, uint8_t *p);

/* ---- execution ----------------------------------------------------------------------------- */

void vec_first(struct x86_cpu *c, const struct insn *i);

/* As op_next() of op_tmpl.h: the next instruction of the block; the last thing a handler does. */
static inline void vec_next(struct x86_cpu *c, const struct insn *i)
{
	c->cur = i + 1;
	i[1].fn(c, i + 1);
}

_Noreturn void vec_refuse_sse(struct x86_cpu *c);
_Noreturn void vec_refuse_vex(struct x86_cpu *c);

/* May a vector instruction run now? Raises #UD or #NM. */
static inline void vec_check_sse(struct x86_cpu *c)
{
	if (unlikely(c->cr0 & (CR0_EM | CR0_TS)) || unlikely(!(c->cr4 & CR4_OSFXSR)))
		vec_refuse_sse(c);
}

static inline bool vec_vex_enabled(const struct x86_cpu *c)
{
	return c->cr4 & CR4_OSXSAVE && (c->xcr0 & 6) == 6 && in_protected(c);
}

static inline void vec_check_vex(struct x86_cpu *c)
{
	if (unlikely(c->cr0 & CR0_TS) || unlikely(!vec_vex_enabled(c)))
		vec_refuse_vex(c);
}

/* #AC(0) while alignment is checked, for `len` bytes at va that is no multiple of `align`. */
static inline void vec_check_aligned(struct x86_cpu *c, uint64_t va, unsigned align,
				     unsigned len)
{
	if (unlikely(c->mmu_mode == MMU_USER_AC) && va & (align - 1)) {
		mem_check_range(c, va, len);
		x86_raise_code(c, EX_AC, 0);
	}
}

/*
 * Can all of [va, va + len) be accessed? The manual does not say which byte the fault of a long
 * operand names; AMD's processors look at the first `unit` bytes and then at the last one.
 */
static inline void vec_probe_write(struct x86_cpu *c, uint64_t va, unsigned len,
				   unsigned unit)
{
	vec_check_aligned(c, va, unit, len);
	mem_probe_write(c, va, unit);
	mem_probe_write(c, va + len - 1, 1);
}

static inline void vec_probe_read(struct x86_cpu *c, uint64_t va, unsigned len,
				  unsigned unit)
{
	uint8_t b[4];

	vec_check_aligned(c, va, unit, len);
	mem_read(c, va, b, unit);
	mem_load8(c, va + len - 1);
}

/* MMX: #UD, #NM, #MF; then x87 state is in c->xsave with TOP = 0 and all tags valid. */
void vec_check_mmx(struct x86_cpu *c);
void vec_enter_mmx(struct x86_cpu *c);
/* Does it change the host's x87 state to MMX? (vec_run.c) */
bool vec_uses_mmx(const struct vec_want *w);

/* Host's MXCSR as this library and the rest of the program want it. */
#define MXCSR_HOST  0x1f80u
#define MXCSR_MASKS 0x1f80u
#define MXCSR_MM    (1u << 17) /* AMD: unaligned memory operands of SSE are allowed */

static inline uint32_t *xs_mxcsr(struct x86_cpu *c)
{
	return (uint32_t *)(c->xsave + 24);
}

static inline uint8_t *xs_xmm(struct x86_cpu *c, unsigned n)
{
	return c->xsave + XS_XMM + 16 * n;
}

static inline void host_ldmxcsr(uint32_t v)
{
	__asm__ volatile("ldmxcsr %0" : : "m"(v));
}

static inline uint32_t host_stmxcsr(void)
{
	uint32_t v;

	__asm__ volatile("stmxcsr %0" : "=m"(v));
	return v;
}

/* One call of generated code with its operands. */
struct vec_call {
	const struct vec_code_entry *code;
	void *r, *m;
	const void *v, *l;
};

/* Runs floating-point code when MXCSR leaves an exception unmasked; may raise #XM. (vec_fpexc.c) */
void vec_call_unmasked(struct x86_cpu *c, const struct vec_call *call);

/* Runs `call` under *mxcsr while SIGFPE is ours: did it trap? *mxcsr as the hardware left it,
 * the result to be thrown away after a trap. (vec_trap.c) */
bool vec_trap_run(struct x86_cpu *c, const struct vec_call *call, uint32_t *mxcsr);

/* Instructions that are not generated code (vec_special.c). */
void op_vzero(struct x86_cpu *c, const struct insn *i);
void op_maskmovq(struct x86_cpu *c, const struct insn *i);
void op_maskmovdqu(struct x86_cpu *c, const struct insn *i);
void op_vmaskmov_load(struct x86_cpu *c, const struct insn *i);
void op_vmaskmov_store(struct x86_cpu *c, const struct insn *i);
void op_vgather(struct x86_cpu *c, const struct insn *i);

/* ---- x87 (x87.c, x87_env.c) ------------------------------------------------------------------ */

enum { /* in c->xsave */
       XS_FCW = 0,
       XS_FSW = 2,
       XS_FTW = 4, /* one bit per physical register: not empty */
       XS_FOP = 6,
       XS_FIP = 8,
       XS_FDP = 16,
};

enum {
	FSW_EXC = 0x3f,
	FSW_SF = 1 << 6,
	FSW_ES = 1 << 7,
	FSW_TOP = 7 << 11,
	FSW_B = 1 << 15,
};

static inline uint16_t *xs16(struct x86_cpu *c, unsigned off)
{
	return (uint16_t *)(c->xsave + off);
}

static inline uint64_t *xs64(struct x86_cpu *c, unsigned off)
{
	return (uint64_t *)(c->xsave + off);
}

/* The x87 instruction D8+n modrm; NULL: #UD. */
const struct vec_op *x87_find(uint8_t op, uint8_t modrm);
void x87_bind(const struct vec_op *v, struct insn *i);
/* Does it write memory; does it use or set the status flags? */
bool x87_stores(const struct vec_op *v);
bool x87_uses_flags(const struct vec_op *v);
/* x87 state into the host's registers; false: an exception is unmasked, or x87 is disabled. */
bool x87_enter(struct x86_cpu *c);
/* MXCSR into the host's register; false: an exception is unmasked. (vec_run.c) */
bool vec_mxcsr_enter(struct x86_cpu *c);

/* x87 state to c->xsave. */
void x87_sync(struct x86_cpu *c);
/* Recomputes FSW.ES and B from the flags and masks of c->xsave. */
void x87_fix_es(struct x86_cpu *c);
/* #NM or #MF if a waiting x87 instruction would raise it now. x87 state is not changed. */
void x87_check_wait(struct x86_cpu *c);
void x87_rotate(struct x86_cpu *c, unsigned top); /* changes TOP */
void x87_init_state(struct x86_cpu *c);           /* as FNINIT leaves it */

void x87_fldenv(struct x86_cpu *c, const struct insn *i);
void x87_fnstenv(struct x86_cpu *c, const struct insn *i);
void x87_frstor(struct x86_cpu *c, const struct insn *i);
void x87_fnsave(struct x86_cpu *c, const struct insn *i);

#endif

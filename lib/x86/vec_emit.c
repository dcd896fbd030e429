/*
 * x86/vec_emit.c - the host code that runs one vector, MMX or x87 instruction.
 *
 * SDM volume 2, chapter 2 (encoding). The code is a function vec_code (vec.h): by the System V ABI
 * its arguments are in rdi, rsi, rdx, rcx, r8. Operands are loaded into fixed registers, the
 * instruction follows with those registers, and the result is stored. Any thread; no state.
 */
#include "x86/vec.h"

/* Registers that hold the arguments. */
enum { A_R = 7 /* rdi */, A_M = 6 /* rsi */, A_V = 2 /* rdx */, A_L = 1 /* rcx */ };
/* Host registers of the operands; a general register is always rax. */
enum { HX_0 = 0, HX_V = 1, HX_H = 2, HX_W = 3, HX_L = 4, HX_ZERO = 5 };

struct code {
	uint8_t *p;
	unsigned n;
};

#define PUT(c, ...) \
	put(c, (const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

static void put(struct code *c, const uint8_t *b, unsigned n)
{
	memcpy(c->p + c->n, b, n);
	c->n += n;
}

static void put32(struct code *c, uint32_t v)
{
	put(c, (const uint8_t *)&v, 4);
}

static uint8_t modrm(unsigned mod, unsigned reg, unsigned rm)
{
	return (uint8_t)(mod << 6 | reg << 3 | rm);
}

/* Bytes of struct x86_cpu, which r8 points to: modrm (mod 2, REX.B) and displacement. */
static void put_cpu(struct code *c, unsigned reg, size_t off)
{
	PUT(c, modrm(2, reg, 0));
	put32(c, (uint32_t)off);
}

/* xmm/ymm <-> [a]; the upper half of a YMM register is VEC_HI bytes behind the lower. */
static void vec_load(struct code *c, const struct vec_want *w, unsigned x, unsigned a)
{
	if (w->vex)
		PUT(c, 0xc5, 0xf8, 0x10, modrm(0, x, a)); /* vmovups */
	else
		PUT(c, 0x0f, 0x10, modrm(0, x, a)); /* movups */
	if (w->l1) {
		uint8_t vvvv = (uint8_t)(~x & 15) << 3;

		PUT(c, 0xc4, 0xe3, vvvv | 5, 0x18, modrm(2, x, a)); /* vinsertf128 */
		put32(c, VEC_HI);
		PUT(c, 1);
	}
}

static void vec_store(struct code *c, const struct vec_want *w, unsigned x, unsigned a)
{
	if (!w->vex) {
		PUT(c, 0x0f, 0x11, modrm(0, x, a)); /* movups */
		return;
	}
	PUT(c, 0xc5, 0xf8, 0x11, modrm(0, x, a)); /* vmovups */
	if (w->l1) {
		PUT(c, 0xc4, 0xe3, 0x7d, 0x19, modrm(2, x, a)); /* vextractf128 */
		put32(c, VEC_HI);
		PUT(c, 1);
	} else {
		PUT(c, 0xc5, 0xd0, 0x57, 0xed); /* vxorps xmm5, xmm5, xmm5 */
		PUT(c, 0xc5, 0xf8, 0x11, modrm(2, HX_ZERO, a)); /* vmovups */
		put32(c, VEC_HI);
	}
}

/* XMM0 as an implied operand. */
static void xmm0_load(struct code *c)
{
	PUT(c, 0x41, 0x0f, 0x10);
	put_cpu(c, HX_0, offsetof(struct x86_cpu, xsave) + XS_XMM);
}

static void xmm0_store(struct code *c, bool vex)
{
	PUT(c, 0x41, 0x0f, 0x11);
	put_cpu(c, HX_0, offsetof(struct x86_cpu, xsave) + XS_XMM);
	if (!vex)
		return;
	PUT(c, 0x0f, 0x57, 0xed); /* xorps xmm5, xmm5 */
	PUT(c, 0x41, 0x0f, 0x11);
	put_cpu(c, HX_ZERO, offsetof(struct x86_cpu, xsave) + XS_YMM);
}

static void operand_load(struct code *c, const struct vec_want *w, unsigned kind)
{
	switch (kind) {
	case K_V: vec_load(c, w, HX_V, A_R); break;
	case K_H: vec_load(c, w, HX_H, A_V); break;
	case K_U: vec_load(c, w, HX_W, A_M); break;
	case K_W:
		if (!w->mem)
			vec_load(c, w, HX_W, A_M);
		break;
	case K_L: vec_load(c, w, HX_L, A_L); break;
	case K_X0: xmm0_load(c); break;
	case K_P: PUT(c, 0x0f, 0x6f, modrm(0, HX_V, A_R)); break; /* movq mm, [] */
	case K_N: PUT(c, 0x0f, 0x6f, modrm(0, HX_W, A_M)); break;
	case K_Q:
		if (!w->mem)
			PUT(c, 0x0f, 0x6f, modrm(0, HX_W, A_M));
		break;
	case K_G: PUT(c, 0x48, 0x8b, modrm(0, 0, A_R)); break; /* mov rax, [] */
	case K_E:
		if (!w->mem)
			PUT(c, 0x48, 0x8b, modrm(0, 0, A_M));
		break;
	}
}

static void mmx_store(struct code *c, unsigned mm, unsigned a)
{
	PUT(c, 0x0f, 0x7f, modrm(0, mm, a));               /* movq [], mm */
	PUT(c, 0x66, 0xc7, modrm(1, 0, a), 8, 0xff, 0xff); /* movw [+8], -1: exponent */
}

static void operand_store(struct code *c, const struct vec_want *w, unsigned kind)
{
	switch (kind) {
	case K_V: vec_store(c, w, HX_V, A_R); break;
	case K_H: vec_store(c, w, HX_H, A_V); break;
	case K_U: vec_store(c, w, HX_W, A_M); break;
	case K_W:
		if (!w->mem)
			vec_store(c, w, HX_W, A_M);
		break;
	case K_P: mmx_store(c, HX_V, A_R); break;
	case K_N: mmx_store(c, HX_W, A_M); break;
	case K_Q:
		if (!w->mem)
			mmx_store(c, HX_W, A_M);
		break;
	case K_G: PUT(c, 0x48, 0x89, modrm(0, 0, A_R)); break; /* mov [], rax */
	case K_E:
		if (!w->mem)
			PUT(c, 0x48, 0x89, modrm(0, 0, A_M));
		break;
	}
}

/* Whether operand `n` exists in this form: the legacy form has no VEX.vvvv. */
static bool operand_there(const struct vec_want *w, unsigned n)
{
	unsigned k = VEC_KIND(w->op->opr[n]);

	return k != K_NONE && (k != K_H || w->vex);
}

/* Index of the destination; -1: none is written (what sets flags, MASKMOV). */
static int destination(const struct vec_want *w)
{
	if (w->op->flags & V_ST)
		return -1;
	return operand_there(w, 0) ? 0 : 1;
}

/* The instruction itself, with the registers above and memory at [rsi]. */
static void put_insn(struct code *c, const struct vec_want *w)
{
	const struct vec_op *o = w->op;
	unsigned reg = 0, rm = 0, vvvv = 0, mod = w->mem ? 0 : 3, imm = w->imm;
	bool has_imm = false;

	for (unsigned n = 0; n < 4; n++) {
		switch (VEC_KIND(o->opr[n])) {
		case K_V:
		case K_P: reg = HX_V; break;
		case K_W:
		case K_U:
		case K_Q:
		case K_N: rm = HX_W; break;
		case K_H: vvvv = HX_H; break;
		case K_I: has_imm = true; break;
		case K_L:
			has_imm = true;
			imm = HX_L << 4;
			break;
		}
	}
	if (o->digit)
		reg = o->digit - 1u;
	if (w->mem)
		rm = A_M;
	if (w->vex) {
		PUT(c, 0xc4, 0xe0 | w->map,
		    (uint8_t)(w->w << 7 | (~vvvv & 15) << 3 | w->l1 << 2 | o->pp));
	} else {
		static const uint8_t prefix[] = {0, 0x66, 0xf3, 0xf2};

		if (o->pp)
			PUT(c, prefix[o->pp]);
		if (w->w)
			PUT(c, 0x48);
		PUT(c, 0x0f);
		if (w->map > 1)
			PUT(c, w->map == 2 ? 0x38 : 0x3a);
	}
	PUT(c, o->op, modrm(mod, reg, rm));
	if (has_imm)
		PUT(c, (uint8_t)imm);
}

/* The guest's status flags <-> the host's: c->st is what LAHF and SETO leave. */
static void put_flags_load(struct code *c)
{
	PUT(c, 0x66, 0x41, 0x8b); /* mov ax, [st] */
	put_cpu(c, 0, offsetof(struct x86_cpu, st));
	PUT(c, 0x04, 0x7f); /* add al, 127: OF = AL */
	PUT(c, 0x9e);       /* sahf */
}

static void put_flags_store(struct code *c)
{
	PUT(c, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
	PUT(c, 0x66, 0x41, 0x89);       /* mov [st], ax */
	put_cpu(c, 0, offsetof(struct x86_cpu, st));
}

unsigned vec_emit(const struct vec_want *w, uint8_t *p)
{
	const struct vec_op *o = w->op;
	int dst = destination(w);
	struct code c = {p, 0};

	for (int n = 0; n < 4; n++) {
		unsigned k = VEC_KIND(o->opr[n]);

		if (!operand_there(w, (unsigned)n))
			continue;
		if (n != dst || !w->vex || (o->flags & V_RD))
			operand_load(&c, w, k);
	}
	if (o->flags & V_ESTR) {
		PUT(&c, 0x49, 0x8b); /* mov rax, [] */
		put_cpu(&c, X86_RAX, offsetof(struct x86_cpu, gpr[X86_RAX]));
		PUT(&c, 0x49, 0x8b); /* mov rdx, [] */
		put_cpu(&c, X86_RDX, offsetof(struct x86_cpu, gpr[X86_RDX]));
	}
	put_insn(&c, w);
	if (o->flags & V_ST)
		put_flags_store(&c);
	if (dst >= 0)
		operand_store(&c, w, VEC_KIND(o->opr[dst]));
	if (o->flags & V_RCX) {
		PUT(&c, 0x49, 0x89); /* mov [], rcx */
		put_cpu(&c, X86_RCX, offsetof(struct x86_cpu, gpr[X86_RCX]));
	}
	if (o->flags & V_XMM0)
		xmm0_store(&c, w->vex);
	if (vec_uses_mmx(w))
		PUT(&c, 0x0f, 0x77); /* emms */
	else if (w->l1)
		PUT(&c, 0xc5, 0xf8, 0x77); /* vzeroupper */
	PUT(&c, 0xc3);
	return c.n;
}

unsigned vec_emit_x87(unsigned n, uint8_t m, bool flags, uint8_t *p)
{
	struct code c = {p, 0};

	if (flags)
		put_flags_load(&c);
	PUT(&c, (uint8_t)(0xd8 + n), m < 0xc0 ? modrm(0, m >> 3 & 7, A_M) : m);
	if (flags)
		put_flags_store(&c);
	PUT(&c, 0xc3);
	return c.n;
}

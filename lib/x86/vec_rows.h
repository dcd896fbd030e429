/*
 * x86/vec_rows.h - the words in which the vector tables (vec_tab*.c) are written.
 */
#ifndef X86_VEC_ROWS_H
#define X86_VEC_ROWS_H

#include "x86/vec.h"

enum { NP, P66, PF3, PF2 };

/* clang-format off */
/* Operands: kind and size as in the manual's opcode map. */
enum {
	Vx = VEC_OPERAND(V, X), Vd = VEC_OPERAND(V, D), Vq = VEC_OPERAND(V, Q),
	Hx = VEC_OPERAND(H, X), Lx = VEC_OPERAND(L, X),
	Wx = VEC_OPERAND(W, X), Wh = VEC_OPERAND(W, H), Wf = VEC_OPERAND(W, F),
	We = VEC_OPERAND(W, E), Wb = VEC_OPERAND(W, B), Ww = VEC_OPERAND(W, W),
	Wd = VEC_OPERAND(W, D), Wq = VEC_OPERAND(W, Q), Wdq = VEC_OPERAND(W, DQ),
	Wdd = VEC_OPERAND(W, DD), Ux = VEC_OPERAND(U, X),
	Mx = VEC_OPERAND(M, X), Md = VEC_OPERAND(M, D), Mq = VEC_OPERAND(M, Q),
	Mdq = VEC_OPERAND(M, DQ), My = VEC_OPERAND(M, Y),
	Pq = VEC_OPERAND(P, Q), Qq = VEC_OPERAND(Q, Q), Qd = VEC_OPERAND(Q, D),
	Nq = VEC_OPERAND(N, Q),
	Gd = VEC_OPERAND(G, D), Gy = VEC_OPERAND(G, Y),
	Eb = VEC_OPERAND(E, B), Ew = VEC_OPERAND(E, W), Ed = VEC_OPERAND(E, D),
	Ey = VEC_OPERAND(E, Y),
	X0 = VEC_OPERAND(X0, X), Ib = VEC_OPERAND(I, B),
};

#define __ NONE
#define O(...) {__VA_ARGS__}
#define R(o, p, n, operands, leg, v128, v256, f)                                             \
	{.op = o, .pp = p, .name = n, .opr = operands, .legacy = leg, .vex128 = v128,        \
	 .vex256 = v256, .flags = f}
/* Group: modrm.reg = d. */
#define G(o, p, d, n, operands, leg, v128, v256, f)                                          \
	{.op = o, .pp = p, .digit = (d) + 1, .name = n, .opr = operands, .legacy = leg,      \
	 .vex128 = v128, .vex256 = v256, .flags = f}
/* With a quirk of the host's maker. */
#define Q(o, p, n, operands, leg, v128, v256, f, q)                                          \
	{.op = o, .pp = p, .quirk = q, .name = n, .opr = operands, .legacy = leg,            \
	 .vex128 = v128, .vex256 = v256, .flags = f}
/* With a handler of its own. */
#define S(o, p, n, operands, leg, v128, v256, f, fn)                                         \
	{.op = o, .pp = p, .name = n, .opr = operands, .legacy = leg, .vex128 = v128,        \
	 .vex256 = v256, .flags = f, .special = fn}
/* Packed and scalar, single and double. */
#define ARITH(o, n)                                                                          \
	R(o, NP,  n "ps", O(Vx, Hx, Wx), SSE,  AVX, AVX, V_FP),                              \
	R(o, P66, n "pd", O(Vx, Hx, Wx), SSE2, AVX, AVX, V_FP),                              \
	R(o, PF3, n "ss", O(Vx, Hx, Wd), SSE,  AVX, __,  V_FP | V_LIG),                      \
	R(o, PF2, n "sd", O(Vx, Hx, Wq), SSE2, AVX, __,  V_FP | V_LIG)
#define LOGIC(o, n)                                                                          \
	R(o, NP,  n "ps", O(Vx, Hx, Wx), SSE,  AVX, AVX, 0),                                 \
	R(o, P66, n "pd", O(Vx, Hx, Wx), SSE2, AVX, AVX, 0)
/* Integer: MMX and XMM; MMX of SSE, SSE2. */
#define INT(o, n) INT_(o, n, MMX)
#define INT_(o, n, feat)                                                                     \
	R(o, NP,  n, O(Pq, Qq),     feat, __,  __,   0),                                     \
	R(o, P66, n, O(Vx, Hx, Wx), SSE2, AVX, AVX2, 0)
#define SHIFT(o, n)                                                                          \
	R(o, NP,  n, O(Pq, Qq),      MMX,  __,  __,   0),                                    \
	Q(o, P66, n, O(Vx, Hx, Wdq), SSE2, AVX, AVX2, 0, Q_AMD_LOW)
#define SHIFT_IMM(o, d, n)                                                                   \
	G(o, NP,  d, n, O(Nq, Ib),     MMX,  __,  __,   V_REG),                              \
	G(o, P66, d, n, O(Hx, Ux, Ib), SSE2, AVX, AVX2, V_REG)
#define SSSE3_INT(o, n)                                                                      \
	R(o, NP,  n, O(Pq, Qq),     SSSE3, __,  __,   0),                                    \
	R(o, P66, n, O(Vx, Hx, Wx), SSSE3, AVX, AVX2, 0)
#define SSSE3_ABS(o, n)                                                                      \
	R(o, NP,  n, O(Pq, Qq),     SSSE3, __,  __,   0),                                    \
	R(o, P66, n, O(Vx, Wx),     SSSE3, AVX, AVX2, 0)
#define SSE41_INT(o, n) R(o, P66, n, O(Vx, Hx, Wx), SSE41, AVX, AVX2, 0)
/* FMA: W chooses single or double. */
#define FMA_P(o, n)                                                                          \
	R(o, P66, n "ps", O(Vx, Hx, Wx), __, FMA, FMA, V_FP | V_RD | V_W0),                  \
	R(o, P66, n "pd", O(Vx, Hx, Wx), __, FMA, FMA, V_FP | V_RD | V_W1)
#define FMA_S(o, n)                                                                          \
	R(o, P66, n "ss", O(Vx, Hx, Wd), __, FMA, __,  V_FP | V_RD | V_W0 | V_LIG),          \
	R(o, P66, n "sd", O(Vx, Hx, Wq), __, FMA, __,  V_FP | V_RD | V_W1 | V_LIG)
/* clang-format on */

#endif

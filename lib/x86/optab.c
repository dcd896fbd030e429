/*
 * x86/optab.c - the one-byte opcode map. SDM 2D table A-2; groups: table A-6.
 * Prefixes (26 2E 36 3E 40-4F 64-67 F0 F2 F3), the escapes (0F) and VEX (C4 C5 62) are decode.c's.
 */
#include "x86/ops.h"

/* clang-format off */
#define LOCK A_LOCK

/* The six forms of an arithmetic instruction. */
#define ARITH(base, name, lock)                                                             \
	[(base) + 0] = OP(name, Eb, Gb, lock),                                              \
	[(base) + 1] = OP(name, Ev, Gv, lock),                                              \
	[(base) + 2] = OP(name, Gb, Eb, 0),                                                 \
	[(base) + 3] = OP(name, Gv, Ev, 0),                                                 \
	[(base) + 4] = OP(name, rAL, Ib, 0),                                                \
	[(base) + 5] = OP(name, rAX, Iz, 0)

#define GROUP1(E, I)                                                                        \
	{                                                                                   \
		OP(add, E, I, LOCK), OP(or, E, I, LOCK), OP(adc, E, I, LOCK),               \
		OP(sbb, E, I, LOCK), OP(and, E, I, LOCK), OP(sub, E, I, LOCK),              \
		OP(xor, E, I, LOCK), OP(cmp, E, I, 0),                                      \
	}
static const struct opcode g80[8] = GROUP1(Eb, Ib);
static const struct opcode g81[8] = GROUP1(Ev, Iz);
static const struct opcode g83[8] = GROUP1(Ev, Is);

#define GROUP2(E, I)                                                                        \
	{                                                                                   \
		OP(rol, E, I, 0), OP(ror, E, I, 0), OP(rcl, E, I, 0), OP(rcr, E, I, 0),     \
		OP(shl, E, I, 0), OP(shr, E, I, 0), OP(shl, E, I, 0), OP(sar, E, I, 0),     \
	}
#define GROUP2_CL(E)                                                                        \
	{                                                                                   \
		OP(rol_cl, E, rCL, 0), OP(ror_cl, E, rCL, 0), OP(rcl_cl, E, rCL, 0),        \
		OP(rcr_cl, E, rCL, 0), OP(shl_cl, E, rCL, 0), OP(shr_cl, E, rCL, 0),        \
		OP(shl_cl, E, rCL, 0), OP(sar_cl, E, rCL, 0),                               \
	}
static const struct opcode gc0[8] = GROUP2(Eb, Ib);
static const struct opcode gc1[8] = GROUP2(Ev, Ib);
static const struct opcode gd0[8] = GROUP2(Eb, I1);
static const struct opcode gd1[8] = GROUP2(Ev, I1);
static const struct opcode gd2[8] = GROUP2_CL(Eb);
static const struct opcode gd3[8] = GROUP2_CL(Ev);

/* MOV from and to ES CS SS DS FS GS; not to CS. */
static const struct opcode g8c[8] = {[0 ... 5] = FN(mov_sreg, Ev, 0, 0)};
static const struct opcode g8e[8] = {
	[0] = FN(mov_sreg, Ev, 0, A_STOP),
	[2 ... 5] = FN(mov_sreg, Ev, 0, A_STOP),
};
static const struct opcode g8f[8] = {[0] = OP(pop, Ev, 0, A_D64)};
static const struct opcode gc6[8] = {[0] = OP(mov, Eb, Ib, 0)};
static const struct opcode gc7[8] = {[0] = OP(mov, Ev, Iz, 0)};
static const struct opcode gf6[8] = {
	OP(test, Eb, Ib, 0), OP(test, Eb, Ib, 0), OP(not, Eb, 0, LOCK), OP(neg, Eb, 0, LOCK),
	OP(mul, Eb, 0, 0),   OP(imul, Eb, 0, 0),  OP(div, Eb, 0, 0),    OP(idiv, Eb, 0, 0),
};
static const struct opcode gf7[8] = {
	OP(test, Ev, Iz, 0), OP(test, Ev, Iz, 0), OP(not, Ev, 0, LOCK), OP(neg, Ev, 0, LOCK),
	OP(mul, Ev, 0, 0),   OP(imul, Ev, 0, 0),  OP(div, Ev, 0, 0),    OP(idiv, Ev, 0, 0),
};
static const struct opcode gfe[8] = {OP(inc, Eb, 0, LOCK), OP(dec, Eb, 0, LOCK)};
static const struct opcode gff[8] = {
	[0] = OP(inc, Ev, 0, LOCK),
	[1] = OP(dec, Ev, 0, LOCK),
	[2] = OP(call_ind, Ev, 0, A_F64 | A_END),
	[3] = FN(call_far, M, 0, A_MEM | A_END),
	[4] = OP(jmp_ind, Ev, 0, A_F64 | A_END),
	[5] = FN(jmp_far, M, 0, A_MEM | A_END),
	[6] = OP(push, Ev, 0, A_D64),
};

/* 63: ARPL, in 64-bit mode MOVSXD. 90: NOP, with REX.B XCHG (decode.c), with F3 PAUSE. */
static const struct opcode m63[2] = {FN(arpl, Ew, Gw, 0), OP(movsx_d, Gv, Ed, 0)};
static const struct opcode p90[4] = {FN(nop, 0, 0, 0), FN(nop, 0, 0, 0), FN(pause, 0, 0, A_STOP),
				     FN(nop, 0, 0, 0)};

#define MODE2(a, b) SUB(K_MODE, ((const struct opcode[2]){a, b}))
#define JB(name)                                                                            \
	MODE2(FN(name, Jb, 0, A_REL | A_JCC), FN(name##_64, Jb, 0, A_F64 | A_REL | A_JCC))

const struct opcode optab_1[256] = {
	ARITH(0x00, add, LOCK),
	[0x06] = FN(push_sreg, 0, 0, A_I64),
	[0x07] = FN(pop_sreg, 0, 0, A_I64 | A_STOP),
	ARITH(0x08, or, LOCK),
	[0x0e] = FN(push_sreg, 0, 0, A_I64),
	ARITH(0x10, adc, LOCK),
	[0x16] = FN(push_sreg, 0, 0, A_I64),
	[0x17] = FN(pop_sreg, 0, 0, A_I64 | A_STOP),
	ARITH(0x18, sbb, LOCK),
	[0x1e] = FN(push_sreg, 0, 0, A_I64),
	[0x1f] = FN(pop_sreg, 0, 0, A_I64 | A_STOP),
	ARITH(0x20, and, LOCK),
	[0x27] = FN(daa, 0, 0, A_I64),
	ARITH(0x28, sub, LOCK),
	[0x2f] = FN(das, 0, 0, A_I64),
	ARITH(0x30, xor, LOCK),
	[0x37] = FN(aaa, 0, 0, A_I64),
	ARITH(0x38, cmp, 0),
	[0x3f] = FN(aas, 0, 0, A_I64),
	[0x40 ... 0x47] = OP(inc, Zv, 0, A_I64),
	[0x48 ... 0x4f] = OP(dec, Zv, 0, A_I64),
	[0x50 ... 0x57] = OP(push, Zv, 0, A_D64),
	[0x58 ... 0x5f] = OP(pop, Zv, 0, A_D64),
	[0x60] = FN(pusha, 0, 0, A_I64),
	[0x61] = FN(popa, 0, 0, A_I64),
	[0x62] = FN(bound, Gv, M, A_I64 | A_MEM),
	[0x63] = SUB(K_MODE, m63),
	[0x68] = OP(push_imm, Iz, 0, A_D64),
	[0x69] = OP3(imul3, Gv, Ev, Iz, 0),
	[0x6a] = OP(push_imm, Is, 0, A_D64),
	[0x6b] = OP3(imul3, Gv, Ev, Is, 0),
	[0x6c] = FN(ins, Xb, 0, A_REP | A_STOP),
	[0x6d] = FN(ins, Xz, 0, A_REP | A_STOP),
	[0x6e] = FN(outs, Xb, 0, A_REP | A_STOP),
	[0x6f] = FN(outs, Xz, 0, A_REP | A_STOP),
	[0x70] = JB(jo), [0x71] = JB(jno), [0x72] = JB(jb), [0x73] = JB(jnb),
	[0x74] = JB(jz), [0x75] = JB(jnz), [0x76] = JB(jbe), [0x77] = JB(jnbe),
	[0x78] = JB(js), [0x79] = JB(jns), [0x7a] = JB(jp), [0x7b] = JB(jnp),
	[0x7c] = JB(jl), [0x7d] = JB(jnl), [0x7e] = JB(jle), [0x7f] = JB(jnle),
	[0x80] = SUB(K_REG, g80),
	[0x81] = SUB(K_REG, g81),
	[0x82] = MODE2(SUB(K_REG, g80), {0}),
	[0x83] = SUB(K_REG, g83),
	[0x84] = OP(test, Eb, Gb, 0),
	[0x85] = OP(test, Ev, Gv, 0),
	[0x86] = OP(xchg, Eb, Gb, LOCK),
	[0x87] = OP(xchg, Ev, Gv, LOCK),
	[0x88] = OP(mov, Eb, Gb, 0),
	[0x89] = OP(mov, Ev, Gv, 0),
	[0x8a] = OP(mov, Gb, Eb, 0),
	[0x8b] = OP(mov, Gv, Ev, 0),
	[0x8c] = SUB(K_REG, g8c),
	[0x8d] = OP(lea, Gv, M, A_MEM),
	[0x8e] = SUB(K_REG, g8e),
	[0x8f] = SUB(K_REG, g8f),
	[0x90] = SUB(K_PREFIX, p90),
	[0x91 ... 0x97] = OP(xchg, Zv, rAX, 0),
	[0x98] = FN(cbw, Xv, 0, 0),
	[0x99] = FN(cwd, Xv, 0, 0),
	[0x9a] = FN(call_far, Ap, 0, A_I64 | A_END),
	[0x9b] = FN(fwait, 0, 0, 0),
	[0x9c] = FN(pushf, 0, 0, A_D64),
	[0x9d] = FN(popf, 0, 0, A_D64 | A_STOP),
	[0x9e] = FN(sahf, 0, 0, 0),
	[0x9f] = FN(lahf, 0, 0, 0),
	[0xa0] = FN(mov_moffs_load, rAL, Ob, 0),
	[0xa1] = FN(mov_moffs_load, rAX, Ov, 0),
	[0xa2] = FN(mov_moffs_store, Ob, rAL, 0),
	[0xa3] = FN(mov_moffs_store, Ov, rAX, 0),
	[0xa4] = FN(movs, Xb, 0, A_REP),
	[0xa5] = FN(movs, Xv, 0, A_REP),
	[0xa6] = FN(cmps, Xb, 0, A_REP),
	[0xa7] = FN(cmps, Xv, 0, A_REP),
	[0xa8] = OP(test, rAL, Ib, 0),
	[0xa9] = OP(test, rAX, Iz, 0),
	[0xaa] = FN(stos, Xb, 0, A_REP),
	[0xab] = FN(stos, Xv, 0, A_REP),
	[0xac] = FN(lods, Xb, 0, A_REP),
	[0xad] = FN(lods, Xv, 0, A_REP),
	[0xae] = FN(scas, Xb, 0, A_REP),
	[0xaf] = FN(scas, Xv, 0, A_REP),
	[0xb0 ... 0xb7] = OP(mov, Zb, Ib, 0),
	[0xb8 ... 0xbf] = OP(mov, Zv, Iv, 0),
	[0xc0] = SUB(K_REG, gc0),
	[0xc1] = SUB(K_REG, gc1),
	[0xc2] = MODE2(FN(ret, Iw, 0, A_END), FN(ret_64, Iw, 0, A_F64 | A_END)),
	[0xc3] = MODE2(FN(ret, 0, 0, A_END), FN(ret_64, 0, 0, A_F64 | A_END)),
	[0xc4] = FN(load_far, Gv, M, A_I64 | A_MEM | A_STOP),
	[0xc5] = FN(load_far, Gv, M, A_I64 | A_MEM | A_STOP),
	[0xc6] = SUB(K_REG, gc6),
	[0xc7] = SUB(K_REG, gc7),
	[0xc8] = FN3(enter, Iw, Ib, 0, A_D64),
	[0xc9] = FN(leave, 0, 0, A_D64),
	[0xca] = FN(ret_far, Iw, 0, A_END),
	[0xcb] = FN(ret_far, 0, 0, A_END),
	[0xcc] = FN(int3, 0, 0, A_STOP),
	[0xcd] = FN(int, Ib, 0, A_END),
	[0xce] = FN(into, 0, 0, A_I64 | A_STOP),
	[0xcf] = FN(iret, 0, 0, A_END),
	[0xd0] = SUB(K_REG, gd0),
	[0xd1] = SUB(K_REG, gd1),
	[0xd2] = SUB(K_REG, gd2),
	[0xd3] = SUB(K_REG, gd3),
	[0xd4] = FN(aam, Ib, 0, A_I64),
	[0xd5] = FN(aad, Ib, 0, A_I64),
	[0xd6] = FN(salc, 0, 0, A_I64),
	[0xd7] = FN(xlat, Xb, 0, 0),
	[0xd8 ... 0xdf] = VEC,
	[0xe0] = FN(loopne, Jb, 0, A_F64 | A_REL | A_JCC),
	[0xe1] = FN(loope, Jb, 0, A_F64 | A_REL | A_JCC),
	[0xe2] = FN(loop, Jb, 0, A_F64 | A_REL | A_JCC),
	[0xe3] = FN(jcxz, Jb, 0, A_F64 | A_REL | A_JCC),
	[0xe4] = FN(in_imm, rAL, Ib, 0),
	[0xe5] = FN(in_imm, Xz, Ib, 0),
	[0xe6] = FN(out_imm, rAL, Ib, A_STOP),
	[0xe7] = FN(out_imm, Xz, Ib, A_STOP),
	[0xe8] = MODE2(FN(call, Jz, 0, A_REL | A_END), FN(call_64, Jz, 0, A_F64 | A_REL | A_END)),
	[0xe9] = MODE2(FN(jmp, Jz, 0, A_REL | A_END), FN(jmp_64, Jz, 0, A_F64 | A_REL | A_END)),
	[0xea] = FN(jmp_far, Ap, 0, A_I64 | A_END),
	[0xeb] = MODE2(FN(jmp, Jb, 0, A_REL | A_END), FN(jmp_64, Jb, 0, A_F64 | A_REL | A_END)),
	[0xec] = FN(in_dx, rAL, rDX, 0),
	[0xed] = FN(in_dx, Xz, rDX, 0),
	[0xee] = FN(out_dx, rAL, rDX, A_STOP),
	[0xef] = FN(out_dx, Xz, rDX, A_STOP),
	[0xf1] = FN(int1, 0, 0, A_STOP),
	[0xf4] = FN(hlt, 0, 0, A_STOP),
	[0xf5] = FN(cmc, 0, 0, 0),
	[0xf6] = SUB(K_REG, gf6),
	[0xf7] = SUB(K_REG, gf7),
	[0xf8] = FN(clc, 0, 0, 0),
	[0xf9] = FN(stc, 0, 0, 0),
	[0xfa] = FN(cli, 0, 0, 0),
	[0xfb] = FN(sti, 0, 0, A_STOP),
	[0xfc] = FN(cld, 0, 0, 0),
	[0xfd] = FN(std, 0, 0, 0),
	[0xfe] = SUB(K_REG, gfe),
	[0xff] = SUB(K_REG, gff),
};
/* clang-format on */

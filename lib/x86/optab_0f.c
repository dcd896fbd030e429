/*
 * x86/optab_0f.c - the opcode map behind 0F. SDM 2D table A-3; groups: table A-6.
 * Vector instructions are not listed: VEC asks the vector tables.
 */
#include "x86/ops.h"

/* clang-format off */
#define LOCK A_LOCK
#define MODE2(a, b) SUB(K_MODE, ((const struct opcode[2]){a, b}))
#define MOD2(mem, reg) SUB(K_MOD, ((const struct opcode[2]){mem, reg}))
#define PREFIX(none, p66, f3, f2) SUB(K_PREFIX, ((const struct opcode[4]){none, p66, f3, f2}))
#define RM8(...) SUB(K_RM, ((const struct opcode[8]){__VA_ARGS__}))
#define UD {0}

static const struct opcode g00[8] = {
	FN(sldt, Ev, 0, 0), FN(str, Ev, 0, 0), FN(lldt, Ew, 0, A_STOP), FN(ltr, Ew, 0, A_STOP),
	FN(verr, Ew, 0, 0), FN(verw, Ew, 0, 0),
};

#define NP(...) SUB(K_PREFIX, ((const struct opcode[4]){__VA_ARGS__}))

static const struct opcode g01[8] = {
	[0] = MOD2(FN(sgdt, M, 0, 0),
		   RM8([1] = NP(FN(vmcall, 0, 0, A_STOP)))),
	[1] = MOD2(FN(sidt, M, 0, 0),
		   RM8(NP(FN(monitor, 0, 0, 0)), NP(FN(mwait, 0, 0, A_STOP)),
		       NP(FN(clac, 0, 0, A_STOP)), NP(FN(stac, 0, 0, A_STOP)))),
	[2] = MOD2(FN(lgdt, M, 0, 0),
		   RM8(NP(FN(xgetbv, 0, 0, 0)), NP(FN(xsetbv, 0, 0, A_STOP)))),
	[3] = MOD2(FN(lidt, M, 0, 0),
		   RM8([1] = FN(vmcall, 0, 0, A_STOP))),
	[4] = FN(smsw, Ev, 0, 0),
	/* [5] register: CET's SAVEPREVSSP and friends, not advertised */
	[6] = FN(lmsw, Ew, 0, A_STOP),
	[7] = MOD2(FN(invlpg, M, 0, A_STOP),
		   RM8(FN(swapgs, 0, 0, A_O64), FN(rdtscp, 0, 0, 0))),
};

/* 3DNow! PREFETCH, PREFETCHW; SSE PREFETCHh: all eight are hints. */
static const struct opcode g18[8] = {
	[0 ... 7] = FN(nop, Ev, 0, 0),
};

static const struct opcode g71[8] = {[2] = VEC, [4] = VEC, [6] = VEC};
static const struct opcode g73[8] = {[2] = VEC, [3] = VEC, [6] = VEC, [7] = VEC};

/* 0F AE: memory forms, then what has a register: F3 FSGSBASE, plain fences. */
static const struct opcode gae_mem[8] = {
	PREFIX(FN(fxsave, M, 0, 0), UD, UD, UD),
	PREFIX(FN(fxrstor, M, 0, 0), UD, UD, UD),
	PREFIX(FN(ldmxcsr, Md, 0, 0), UD, UD, UD),
	PREFIX(FN(stmxcsr, Md, 0, 0), UD, UD, UD),
	PREFIX(FN(xsave, M, 0, 0), UD, UD, UD),
	PREFIX(FN(xrstor, M, 0, 0), UD, UD, UD),
	PREFIX(FN(xsaveopt, M, 0, 0), FN(clflush, M, 0, 0), UD, UD), /* 66: CLWB */
	PREFIX(FN(clflush, M, 0, 0), FN(clflush, M, 0, 0), UD, UD), /* CLFLUSH, CLFLUSHOPT */
};
static const struct opcode gae_reg[8] = {
	PREFIX(UD, UD, FN(rdfsbase, Ey, 0, A_O64), UD),
	PREFIX(UD, UD, FN(rdfsbase, Ey, 0, A_O64), UD),
	PREFIX(UD, UD, FN(rdfsbase, Ey, 0, A_O64), UD),
	PREFIX(UD, UD, FN(rdfsbase, Ey, 0, A_O64), UD),
	UD,
	PREFIX(FN(fence, 0, 0, 0), UD, UD, UD),
	PREFIX(FN(fence, 0, 0, 0), UD, UD, UD),
	PREFIX(FN(fence, 0, 0, 0), UD, UD, UD),
};

static const struct opcode gba[8] = {
	[4] = OP(bt_imm, Ev, Ib, 0),
	[5] = OP(bts_imm, Ev, Ib, LOCK),
	[6] = OP(btr_imm, Ev, Ib, LOCK),
	[7] = OP(btc_imm, Ev, Ib, LOCK),
};

static const struct opcode gc7[8] = {
	[1] = FN(cmpxchg8b, M, 0, LOCK | A_MEM),
	[4] = MOD2(PREFIX(FN(xsavec, M, 0, 0), UD, UD, UD), UD),
	[6] = MOD2(UD, PREFIX(FN(rdrand, Ev, 0, 0), FN(rdrand, Ev, 0, 0), UD, UD)),
	[7] = MOD2(UD, PREFIX(FN(rdseed, Ev, 0, 0), FN(rdseed, Ev, 0, 0),
			      FN(rdpid, Rq, 0, 0), UD)),
};

#define JZ(name)                                                                            \
	MODE2(FN(name, Jz, 0, A_REL | A_JCC), FN(name##_64, Jz, 0, A_F64 | A_REL | A_JCC))
#define CMOV(cc) OP(cmov##cc, Gv, Ev, 0)
#define SETCC(cc) OP(set##cc, Eb, 0, 0)

const struct opcode optab_0f[256] = {
	[0x00] = SUB(K_REG, g00),
	[0x01] = SUB(K_REG, g01),
	[0x02] = FN(lar, Gv, Ew, 0),
	[0x03] = FN(lsl, Gv, Ew, 0),
	[0x05] = FN(syscall, 0, 0, A_END),
	[0x06] = FN(clts, 0, 0, A_STOP),
	[0x07] = FN(sysret, 0, 0, A_END),
	[0x08] = FN(invd, 0, 0, A_STOP),
	[0x09] = FN(wbinvd, 0, 0, A_STOP),
	[0x0b] = FN(ud, 0, 0, A_STOP),
	[0x0d] = FN(nop, M, 0, A_MEM),
	[0x10 ... 0x17] = VEC,
	[0x18] = SUB(K_REG, g18),
	[0x19 ... 0x1f] = FN(nop, Ev, 0, 0), /* hints; with F3 1E: CET's ENDBR, RDSSP */
	[0x20] = FN(mov_cr, Rq, 0, 0),
	[0x21] = FN(mov_dr, Rq, 0, 0),
	[0x22] = FN(mov_cr, Rq, 0, A_STOP),
	[0x23] = FN(mov_dr, Rq, 0, A_STOP),
	[0x28 ... 0x2f] = VEC,
	[0x30] = FN(wrmsr, 0, 0, A_STOP),
	[0x31] = FN(rdtsc, 0, 0, 0),
	[0x32] = FN(rdmsr, 0, 0, 0),
	[0x33] = FN(rdpmc, 0, 0, 0),
	[0x34] = FN(sysenter, 0, 0, A_END),
	[0x35] = FN(sysexit, 0, 0, A_END),
	[0x40] = CMOV(o), [0x41] = CMOV(no), [0x42] = CMOV(b), [0x43] = CMOV(nb),
	[0x44] = CMOV(z), [0x45] = CMOV(nz), [0x46] = CMOV(be), [0x47] = CMOV(nbe),
	[0x48] = CMOV(s), [0x49] = CMOV(ns), [0x4a] = CMOV(p), [0x4b] = CMOV(np),
	[0x4c] = CMOV(l), [0x4d] = CMOV(nl), [0x4e] = CMOV(le), [0x4f] = CMOV(nle),
	[0x50 ... 0x70] = VEC,
	[0x71] = SUB(K_REG, g71),
	[0x72] = SUB(K_REG, g71),
	[0x73] = SUB(K_REG, g73),
	[0x74 ... 0x76] = VEC,
	[0x77] = PREFIX(FN(emms, 0, 0, 0), UD, UD, UD),
	[0x78 ... 0x7f] = VEC,
	[0x80] = JZ(jo), [0x81] = JZ(jno), [0x82] = JZ(jb), [0x83] = JZ(jnb),
	[0x84] = JZ(jz), [0x85] = JZ(jnz), [0x86] = JZ(jbe), [0x87] = JZ(jnbe),
	[0x88] = JZ(js), [0x89] = JZ(jns), [0x8a] = JZ(jp), [0x8b] = JZ(jnp),
	[0x8c] = JZ(jl), [0x8d] = JZ(jnl), [0x8e] = JZ(jle), [0x8f] = JZ(jnle),
	[0x90] = SETCC(o), [0x91] = SETCC(no), [0x92] = SETCC(b), [0x93] = SETCC(nb),
	[0x94] = SETCC(z), [0x95] = SETCC(nz), [0x96] = SETCC(be), [0x97] = SETCC(nbe),
	[0x98] = SETCC(s), [0x99] = SETCC(ns), [0x9a] = SETCC(p), [0x9b] = SETCC(np),
	[0x9c] = SETCC(l), [0x9d] = SETCC(nl), [0x9e] = SETCC(le), [0x9f] = SETCC(nle),
	[0xa0] = FN(push_sreg, 0, 0, A_D64),
	[0xa1] = FN(pop_sreg, 0, 0, A_D64 | A_STOP),
	[0xa2] = FN(cpuid, 0, 0, 0),
	[0xa3] = OP(bt, Ev, Gv, 0),
	[0xa4] = OP3(shld, Ev, Gv, Ib, 0),
	[0xa5] = OP3(shld_cl, Ev, Gv, rCL, 0),
	[0xa8] = FN(push_sreg, 0, 0, A_D64),
	[0xa9] = FN(pop_sreg, 0, 0, A_D64 | A_STOP),
	[0xaa] = FN(rsm, 0, 0, A_END),
	[0xab] = OP(bts, Ev, Gv, LOCK),
	[0xac] = OP3(shrd, Ev, Gv, Ib, 0),
	[0xad] = OP3(shrd_cl, Ev, Gv, rCL, 0),
	[0xae] = SUB(K_MOD, ((const struct opcode[2]){SUB(K_REG, gae_mem), SUB(K_REG, gae_reg)})),
	[0xaf] = OP(imul2, Gv, Ev, 0),
	[0xb0] = OP(cmpxchg, Eb, Gb, LOCK),
	[0xb1] = OP(cmpxchg, Ev, Gv, LOCK),
	[0xb2] = FN(load_far, Gv, M, A_MEM | A_STOP),
	[0xb3] = OP(btr, Ev, Gv, LOCK),
	[0xb4] = FN(load_far, Gv, M, A_MEM | A_STOP),
	[0xb5] = FN(load_far, Gv, M, A_MEM | A_STOP),
	[0xb6] = OP(movzx_b, Gv, Eb, 0),
	[0xb7] = OP(movzx_w, Gv, Ew, 0),
	[0xb8] = PREFIX(UD, UD, OP(popcnt, Gv, Ev, 0), UD),
	[0xb9] = FN(ud, Gv, Ev, A_STOP), /* UD1 */
	[0xba] = SUB(K_REG, gba),
	[0xbb] = OP(btc, Ev, Gv, LOCK),
	[0xbc] = PREFIX(OP(bsf, Gv, Ev, 0), OP(bsf, Gv, Ev, 0), OP(tzcnt, Gv, Ev, 0),
			OP(bsf, Gv, Ev, 0)),
	[0xbd] = PREFIX(OP(bsr, Gv, Ev, 0), OP(bsr, Gv, Ev, 0), OP(lzcnt, Gv, Ev, 0),
			OP(bsr, Gv, Ev, 0)),
	[0xbe] = OP(movsx_b, Gv, Eb, 0),
	[0xbf] = OP(movsx_w, Gv, Ew, 0),
	[0xc0] = OP(xadd, Eb, Gb, LOCK),
	[0xc1] = OP(xadd, Ev, Gv, LOCK),
	[0xc2] = VEC,
	[0xc3] = PREFIX(FN(movnti, My, Gy, A_MEM), UD, UD, UD),
	[0xc4 ... 0xc6] = VEC,
	[0xc7] = SUB(K_REG, gc7),
	[0xc8 ... 0xcf] = FN(bswap, Zv, 0, 0),
	[0xd0 ... 0xfe] = VEC,
	[0xff] = FN(ud, Gv, Ev, A_STOP), /* UD0 */
};

/*
 * 0F 38: MOVBE, CRC32, ADCX, ADOX, INVPCID; all else is the vector tables'.
 */
const struct opcode optab_0f38[256] = {
	[0x00 ... 0x7f] = VEC,
	[0x80 ... 0x81] = UD, /* INVEPT, INVVPID: no VMX */
	[0x82] = PREFIX(UD, FN(invpcid, Gq, M, A_MEM | A_STOP), UD, UD),
	[0x83 ... 0xef] = VEC,
	[0xf0] = PREFIX(OP(movbe, Gv, Mv, A_MEM), OP(movbe, Gv, Mv, A_MEM), UD,
			FN(crc32_b, Gv, Eb, 0)),
	[0xf1] = PREFIX(OP(movbe, Mv, Gv, A_MEM), OP(movbe, Mv, Gv, A_MEM), UD,
			FN(crc32, Gv, Ev, 0)),
	[0xf2 ... 0xf5] = VEC,
	[0xf6] = PREFIX(UD, OP(adcx, Gy, Ey, 0), OP(adox, Gy, Ey, 0), UD),
	[0xf7 ... 0xff] = VEC,
};

/*
 * VEX maps 2 and 3: BMI1 and BMI2.
 */
static const struct opcode vf3[8] = {
	[1] = PREFIX(FN(blsr, By, Ey, 0), UD, UD, UD),
	[2] = PREFIX(FN(blsmsk, By, Ey, 0), UD, UD, UD),
	[3] = PREFIX(FN(blsi, By, Ey, 0), UD, UD, UD),
};

const struct opcode optab_vex2[256] = {
	[0x00 ... 0xf1] = VEC,
	[0xf2] = PREFIX(FN3(andn, Gy, By, Ey, 0), UD, UD, UD),
	[0xf3] = SUB(K_REG, vf3),
	[0xf5] = PREFIX(FN3(bzhi, Gy, Ey, By, 0), UD, FN3(pext, Gy, By, Ey, 0),
			FN3(pdep, Gy, By, Ey, 0)),
	[0xf6] = PREFIX(UD, UD, UD, FN3(mulx, Gy, By, Ey, 0)),
	[0xf7] = PREFIX(FN3(bextr, Gy, Ey, By, 0), FN3(shlx, Gy, Ey, By, 0),
			FN3(sarx, Gy, Ey, By, 0), FN3(shrx, Gy, Ey, By, 0)),
};

const struct opcode optab_vex3[256] = {
	[0x00 ... 0xef] = VEC,
	[0xf0] = PREFIX(UD, UD, UD, FN3(rorx, Gy, Ey, Ib, A_V0)),
	[0xf1 ... 0xff] = VEC,
};
/* clang-format on */

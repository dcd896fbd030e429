/*
 * x86/ops.h - the opcode tables' rows, and the names of all handlers. Private to lib/x86.
 *
 * A row says what the manual's opcode map says: the instruction, its operands in the manual's
 * three-character codes, and what is special about it. decode.c turns that into a struct insn and
 * picks the handler: an instruction in the hot part of the set (struct opset) has one handler per
 * operand form and size; all others have one, which looks at the insn's fields.
 */
#ifndef X86_OPS_H
#define X86_OPS_H

#include "x86/x86_int.h"

/*
 * Operand forms. In these the decoder normalises the registers: `rm` is the destination (or only)
 * register and `reg` the source, whichever field of the modrm byte they came from; with a memory
 * operand `reg` is the register. EA classes of memory forms: +EA_BD, +EA_64, +EA_ANY.
 */
enum form {
	F_RR,             /* register, register */
	F_RI,             /* register, immediate; register only */
	F_RM,             /* register, memory */
	F_MR = F_RM + 3,  /* memory, register */
	F_MI = F_MR + 3,  /* memory, immediate; memory only */
	F_LMR = F_MI + 3, /* F_MR with LOCK */
	F_LMI,            /* F_MI with LOCK */
	F_COUNT
};

enum ea_class {
	EA_BD, /* base + displacement, 64-bit addresses, base of the segment 0 */
	EA_64, /* segment base + base + index + displacement, 64-bit addresses, nothing to check */
	EA_ANY, /* everything: ea_linear() */
};

struct opset {
	op_fn fn[F_COUNT]
		[4]; /* [form][log2(operand size)]; a NULL EA class: see EA_ANY */
};

/* Operands. Letter: where; suffix: how large. As in SDM 2D appendix A.2. */
enum operand {
	O_NONE,
	Eb, /* modrm.rm: register or memory */
	Ew,
	Ed,
	Ey, /* 4 bytes, 8 with REX.W */
	Eq, /* 8 bytes in 64-bit mode, else 4 */
	Ev, /* the operand size */
	Gb, /* modrm.reg */
	Gw,
	Gd,
	Gy,
	Gq, /* 8 bytes in 64-bit mode, else 4 */
	Gv,
	Gz, /* the operand size, at most 4 */
	M,  /* memory; the operand size says nothing */
	Mb,
	Mw,
	Md,
	My,
	Mq,
	Mv,
	Rq, /* modrm.rm, always a register, 8 bytes in 64-bit mode, else 4 */
	By, /* VEX.vvvv */
	Zb, /* low bits of the opcode */
	Zv,
	rAL,
	rAX,
	rDX,
	Ib, /* immediate, zero-extended */
	Is, /* immediate byte, sign-extended to the operand size (the manual's "Ib" of 83, 6A, 6B) */
	Iw,
	Iz,  /* 2 or 4 bytes, sign-extended */
	Iv,  /* 2, 4 or 8 bytes */
	I1,  /* the constant 1 */
	rCL, /* a shift by CL */
	Jb,
	Jz,
	Ap, /* far pointer */
	Ob, /* memory at an offset of the address size */
	Ov,
	Xb, /* string operands: no modrm, only a size */
	Xv,
	Xz,
	O_COUNT
};

enum {
	A_LOCK = 1 << 0, /* LOCK is allowed when the destination is memory */
	A_I64 = 1 << 1,  /* not in 64-bit mode */
	A_O64 = 1 << 2,  /* only in 64-bit mode */
	A_D64 = 1 << 3,  /* 64-bit mode: operand size is 8, or 2 with 66 */
	A_F64 = 1 << 4,  /* 64-bit mode: operand size is 8 */
	A_END = 1 << 5,  /* the handler has set c->rip when it returns: I_END */
	A_STOP = 1 << 6, /* changes what decoding or the run loop depends on: I_STOP */
	A_JCC = 1 << 7, /* may leave the block: I_END, but decoding goes on behind it */
	A_REG = 1 << 8, /* modrm.mod must be 3 */
	A_MEM = 1 << 9, /* modrm.mod must not be 3 */
	A_V0 = 1 << 10, /* VEX.vvvv must be 1111b */
	A_REL = 1 << 11, /* near branch */
	A_REP = 1 << 12, /* string instruction: as A_JCC when it has a REP prefix */
};

/* What a row is. */
enum opcode_kind {
	K_UD,     /* undefined */
	K_OP,     /* an instruction */
	K_REG,    /* sub[modrm.reg] */
	K_MOD,    /* sub[modrm.mod == 3] */
	K_RM,     /* sub[modrm.rm] */
	K_PREFIX, /* sub[mandatory prefix: 0 none, 1 66, 2 F3, 3 F2] */
	K_MODE,   /* sub[64-bit mode] */
	K_VEC,    /* vec_find() knows */
};

struct opcode {
	uint8_t kind;
	uint8_t a, b; /* enum operand */
	uint8_t c;    /* a third operand: immediate, rCL or By */
	uint16_t attr;
	const struct opset *set; /* either this */
	op_fn fn;                /* or this */
	const struct opcode *sub;
};

/* Rows: instruction with handlers by form; with one handler; a table of rows. */
#define OP_(SET, A, B, C, ATTR)                                             \
	{                                                                   \
		.kind = K_OP, .a = (A), .b = (B), .c = (C), .attr = (ATTR), \
		.set = &set_##SET                                           \
	}
#define OP(name, A, B, ATTR)     OP_(name, A, B, 0, ATTR)
#define OP3(name, A, B, C, ATTR) OP_(name, A, B, C, ATTR)
#define FN(name, A, B, ATTR)     FN3(name, A, B, 0, ATTR)
#define FN3(name, A, B, C, ATTR)                                            \
	{                                                                   \
		.kind = K_OP, .a = (A), .b = (B), .c = (C), .attr = (ATTR), \
		.fn = op_##name                                             \
	}
#define SUB(K, table)                       \
	{                                   \
		.kind = (K), .sub = (table) \
	}
#define VEC                   \
	{                     \
		.kind = K_VEC \
	}

/* The opcode maps. */
extern const struct opcode optab_1[256];    /* one byte */
extern const struct opcode optab_0f[256];   /* 0F */
extern const struct opcode optab_0f38[256]; /* 0F 38 */
extern const struct opcode optab_vex2[256]; /* VEX, map 2: general-purpose registers */
extern const struct opcode optab_vex3[256]; /* VEX, map 3 */

/* ---- handlers ------------------------------------------------------------------------------ */

#define OP_DECL(name)  void op_##name(struct x86_cpu *c, const struct insn *i)
#define SET_DECL(name) extern const struct opset set_##name

/* op_alu.c */
SET_DECL(add);
SET_DECL(or);
SET_DECL(adc);
SET_DECL(sbb);
SET_DECL(and);
SET_DECL(sub);
SET_DECL(xor);
SET_DECL(cmp);
SET_DECL(test);
SET_DECL(inc);
SET_DECL(dec);
SET_DECL(not );
SET_DECL(neg);

/* op_shift.c */
SET_DECL(rol);
SET_DECL(ror);
SET_DECL(rcl);
SET_DECL(rcr);
SET_DECL(shl);
SET_DECL(shr);
SET_DECL(sar);
SET_DECL(rol_cl);
SET_DECL(ror_cl);
SET_DECL(rcl_cl);
SET_DECL(rcr_cl);
SET_DECL(shl_cl);
SET_DECL(shr_cl);
SET_DECL(sar_cl);
SET_DECL(shld);
SET_DECL(shrd);
SET_DECL(shld_cl);
SET_DECL(shrd_cl);

/* op_mul.c */
SET_DECL(mul);
SET_DECL(imul);
SET_DECL(div);
SET_DECL(idiv);
SET_DECL(imul2);
SET_DECL(imul3);
OP_DECL(mulx);
OP_DECL(cbw);
OP_DECL(cwd);

/* op_mov.c */
SET_DECL(mov);
SET_DECL(movzx_b);
SET_DECL(movzx_w);
SET_DECL(movsx_b);
SET_DECL(movsx_w);
SET_DECL(movsx_d);
SET_DECL(lea);
SET_DECL(movbe);
SET_DECL(xchg);
OP_DECL(mov_moffs_load);
OP_DECL(mov_moffs_store);
OP_DECL(bswap);
OP_DECL(xlat);
OP_DECL(movnti);
OP_DECL(nop);

/* op_cond.c */
/* clang-format off */
#define CC_EACH(X)                                                                    \
	X(o) X(no) X(b) X(nb) X(z) X(nz) X(be) X(nbe)                                 \
	X(s) X(ns) X(p) X(np) X(l) X(nl) X(le) X(nle)
/* clang-format on */
#define X(cc)                \
	SET_DECL(cmov##cc);  \
	SET_DECL(set##cc);   \
	OP_DECL(j##cc##_64); \
	OP_DECL(j##cc);
CC_EACH(X)
#undef X

/* op_jump.c */
OP_DECL(jmp_64);
OP_DECL(jmp);
OP_DECL(call_64);
OP_DECL(call);
SET_DECL(jmp_ind);
SET_DECL(call_ind);
OP_DECL(ret);
OP_DECL(ret_64);
OP_DECL(loop);
OP_DECL(loope);
OP_DECL(loopne);
OP_DECL(jcxz);
OP_DECL(block_end);

/* op_stack.c */
SET_DECL(push);
SET_DECL(push_imm);
SET_DECL(pop);
OP_DECL(pusha);
OP_DECL(popa);
OP_DECL(enter);
OP_DECL(leave);

/* op_string.c */
OP_DECL(movs);
OP_DECL(cmps);
OP_DECL(stos);
OP_DECL(lods);
OP_DECL(scas);

/* op_bit.c */
SET_DECL(bt);
SET_DECL(bts);
SET_DECL(btr);
SET_DECL(btc);
SET_DECL(bt_imm);
SET_DECL(bts_imm);
SET_DECL(btr_imm);
SET_DECL(btc_imm);
SET_DECL(bsf);
SET_DECL(bsr);
SET_DECL(tzcnt);
SET_DECL(lzcnt);
SET_DECL(popcnt);
OP_DECL(andn);
OP_DECL(bextr);
OP_DECL(blsr);
OP_DECL(blsmsk);
OP_DECL(blsi);
OP_DECL(bzhi);
OP_DECL(pdep);
OP_DECL(pext);
OP_DECL(rorx);
OP_DECL(sarx);
OP_DECL(shlx);
OP_DECL(shrx);
SET_DECL(adcx);
SET_DECL(adox);
OP_DECL(crc32_b);
OP_DECL(crc32);

/* op_atomic.c */
SET_DECL(xadd);
SET_DECL(cmpxchg);
OP_DECL(cmpxchg8b);

/* op_misc.c */
OP_DECL(daa);
OP_DECL(das);
OP_DECL(aaa);
OP_DECL(aas);
OP_DECL(aam);
OP_DECL(aad);
OP_DECL(clc);
OP_DECL(stc);
OP_DECL(cmc);
OP_DECL(cld);
OP_DECL(std);
OP_DECL(lahf);
OP_DECL(sahf);
OP_DECL(salc);
OP_DECL(bound);
OP_DECL(fence);
OP_DECL(clflush);
OP_DECL(rdrand);
OP_DECL(rdseed);
OP_DECL(pause);

/* op_sys.c, far.c, msr.c, cpuid.c ... */
OP_DECL(mov_cr);
OP_DECL(mov_dr);
OP_DECL(mov_sreg);
OP_DECL(push_sreg);
OP_DECL(pop_sreg);
OP_DECL(load_far);
OP_DECL(jmp_far);
OP_DECL(call_far);
OP_DECL(ret_far);
OP_DECL(iret);
OP_DECL(int);
OP_DECL(int3);
OP_DECL(into);
OP_DECL(int1);
OP_DECL(pushf);
OP_DECL(popf);
OP_DECL(cli);
OP_DECL(sti);
OP_DECL(hlt);
OP_DECL(lgdt);
OP_DECL(lidt);
OP_DECL(sgdt);
OP_DECL(sidt);
OP_DECL(lldt);
OP_DECL(sldt);
OP_DECL(ltr);
OP_DECL(str);
OP_DECL(lmsw);
OP_DECL(smsw);
OP_DECL(invlpg);
OP_DECL(invpcid);
OP_DECL(clts);
OP_DECL(lar);
OP_DECL(lsl);
OP_DECL(verr);
OP_DECL(verw);
OP_DECL(arpl);
OP_DECL(syscall);
OP_DECL(sysret);
OP_DECL(sysenter);
OP_DECL(sysexit);
OP_DECL(swapgs);
OP_DECL(rdtsc);
OP_DECL(rdtscp);
OP_DECL(rdpmc);
OP_DECL(rdpid);
OP_DECL(rdmsr);
OP_DECL(wrmsr);
OP_DECL(cpuid);
OP_DECL(wbinvd);
OP_DECL(invd);
OP_DECL(monitor);
OP_DECL(mwait);
OP_DECL(vmcall);
OP_DECL(in_imm);
OP_DECL(in_dx);
OP_DECL(out_imm);
OP_DECL(out_dx);
OP_DECL(ins);
OP_DECL(outs);
OP_DECL(rdfsbase);
OP_DECL(clac);
OP_DECL(stac);
OP_DECL(xgetbv);
OP_DECL(xsetbv);
OP_DECL(rsm);

/* vec_*.c */
OP_DECL(fxsave);
OP_DECL(fxrstor);
OP_DECL(ldmxcsr);
OP_DECL(stmxcsr);
OP_DECL(xsave);
OP_DECL(xrstor);
OP_DECL(xsaveopt);
OP_DECL(xsavec);
OP_DECL(fwait);
OP_DECL(emms);

#endif

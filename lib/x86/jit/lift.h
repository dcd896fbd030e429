/*
 * x86/jit/lift.h - what the translator knows of an instruction. Private to lib/x86/jit.
 */
#ifndef X86_JIT_LIFT_H
#define X86_JIT_LIFT_H

#include "x86/x86_int.h"

enum lift_kind {
	L_INTERP, /* the interpreter does it */
	L_NOP,
	L_OP,      /* an operation with a modrm byte */
	L_PLAIN,   /* no operands to replace: bytes as in `op`, on rax, rdx */
	L_MOV_IMM, /* register rm = imm */
	L_BSWAP,
	L_DIV, /* reg: 6 unsigned, 7 signed */
	L_LEA,
	L_JCC,
	L_JMP,
	L_CALL,
	L_JMP_IND, /* rm or memory */
	L_CALL_IND,
	L_RET,
	L_PUSH,
	L_PUSH_IMM,
	L_POP,
	L_LEAVE,
	L_STRING, /* MOVS, STOS; prefix F3: repeated */
	L_GEN, /* vectors, and general registers in VEX or three-byte opcodes: enum lift_field */
	L_X87,
	L_END, /* the block's */
};

/* What a field of an L_GEN names. */
enum lift_field {
	F_NONE,
	F_GPR,
	F_VEC,
	F_DIGIT, /* the opcode's number */
};

/* Of the floating-point and vector state: what must be so for an instruction to run in line. */
enum lift_fp {
	FP_HERE = 1 << 0, /* the vector registers are in the host's */
	FP_SSE = 1 << 1,  /* SSE is enabled */
	FP_VEX = 1 << 2,  /* AVX is, and upper halves are in the host's registers too */
	FP_MXCSR = 1 << 3, /* is in the host's register */
	FP_X87 = 1 << 4,   /* x87 is enabled, and its state in the host's registers */
};

/* Status flags in sets. */
enum {
	LF_C = 1,
	LF_P = 2,
	LF_A = 4,
	LF_Z = 8,
	LF_S = 16,
	LF_O = 32,
	LF_ALL = 63,
};

struct lift {
	uint8_t kind;
	uint8_t op, map, prefix; /* of the host's instruction; prefix F2, F3 or 0 */
	uint8_t size;            /* operand size: 1, 2, 4, 8 */
	uint8_t mem_size;        /* of the memory operand */
	uint8_t reg, rm;         /* guest registers; digit: reg is the opcode's */
	uint8_t imm_size;
	uint8_t cc;
	bool digit, mem, lock;
	bool reg_r, reg_w, rm_r, rm_w;
	bool reg_byte, rm_byte; /* are byte registers */
	bool reg_high, rm_high; /* are AH..BH: the number is 4..7 */
	uint8_t rd, mod, kill;  /* flags read; changed in any way; surely overwritten */
	/* L_GEN: */
	uint8_t f_reg, f_rm, f_v; /* enum lift_field of modrm.reg, modrm.rm, VEX.vvvv */
	uint8_t v;                /* VEX.vvvv */
	uint8_t imm8;
	uint8_t pp; /* 0 none, 1 66, 2 F3, 3 F2 */
	bool vex, w, l1, no_modrm, osz;
	bool v_r, v_w;
	uint8_t align; /* mask of address bits that must be 0 */
	uint8_t fp;    /* enum lift_fp */
	/* L_X87: */
	bool note; /* FOP, FIP and FDP change */
};

/* Says what instruction i is, whose bytes are at p. m64: 64-bit code, else flat 32-bit code. */
void lift_insn(const struct insn *i, const uint8_t *p, bool m64, struct lift *l);

/* Prefixes and opcode of an instruction, as far as they matter here. */
struct raw {
	uint8_t rex, rep; /* rep: F2, F3 or 0 */
	uint8_t map;      /* 0; 1: 0F, 2: 0F38, 3: 0F3A */
	uint8_t op;
	bool vex, w, l1;
	uint8_t pp, vvvv;
};

/* Registers as modrm, REX and VEX name them; whether rm is memory. (lift.c) */
void lift_operands(const struct insn *i, const struct raw *r, struct lift *l);
/* The instructions of lift_vec.c; l->kind stays L_INTERP for others. */
void lift_gpr(const struct insn *i, const struct raw *r, bool m64, struct lift *l);
void lift_vec(const struct insn *i, const struct raw *r, bool m64, struct lift *l);
void lift_x87(const struct insn *i, const struct raw *r, struct lift *l);

/* The general registers that it may write, as bits; what ends a block is not asked for. */
unsigned lift_writes(const struct lift *l);

/* The flags that condition cc (0-15) reads. */
uint8_t lift_cc_flags(unsigned cc);

#endif

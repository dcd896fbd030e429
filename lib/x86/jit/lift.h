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
	L_END, /* the block's */
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
};

/* Says what instruction i is, whose bytes are at p. m64: 64-bit code, else flat 32-bit code. */
void lift_insn(const struct insn *i, const uint8_t *p, bool m64, struct lift *l);

/* The flags that condition cc (0-15) reads. */
uint8_t lift_cc_flags(unsigned cc);

#endif

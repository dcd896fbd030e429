/*
 * x86/op_cond.c - Jcc, SETcc, CMOVcc: one handler per condition. SDM 2A, 1 appendix B.
 * vCPU thread.
 */
#include "x86/op_jump.h"

#define CMOV(bits, cc)                                                                 \
	HANDLER(cmov##cc, rr, bits)                                                    \
	{                                                                              \
		uint##bits##_t a = get##bits(c, i->rm), b = get##bits(c, i->reg);      \
                                                                                       \
		put##bits(c, i->rm, COND_##cc(c) ? b : a);                             \
		op_next(c, i);                                                         \
	}                                                                              \
	HANDLER(cmov##cc, rm, bits)                                                    \
	{                                                                              \
		uint##bits##_t b = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, COND_##cc(c) ? b : get##bits(c, i->reg));         \
		op_next(c, i);                                                         \
	}

#define COND_HANDLERS(cc)                                                     \
	EACH_WDQ(CMOV, cc)                                                    \
	const struct opset set_cmov##cc = {{                                  \
		[F_RR] = SIZES_WDQ(h_cmov##cc, rr),                           \
		[F_RM + EA_ANY] = SIZES_WDQ(h_cmov##cc, rm),                  \
	}};                                                                   \
	HANDLER(set##cc, ri, 8)                                               \
	{                                                                     \
		put8(c, i->rm, !!COND_##cc(c));                               \
		op_next(c, i);                                                \
	}                                                                     \
	HANDLER(set##cc, mi, 8)                                               \
	{                                                                     \
		mem_store8(c, ea_linear(c, i, 1, ACC_WRITE), !!COND_##cc(c)); \
	}                                                                     \
	const struct opset set_set##cc = {{                                   \
		[F_RI] = {h_set##cc##_ri_8},                                  \
		[F_MI + EA_ANY] = {h_set##cc##_mi_8},                         \
	}};                                                                   \
	void op_j##cc##_64(struct x86_cpu *c, const struct insn *i)           \
	{                                                                     \
		if (COND_##cc(c))                                             \
			jump_direct(c, i, c->block_rip + i->imm);             \
		else                                                          \
			op_next(c, i);                                        \
	}                                                                     \
	void op_j##cc(struct x86_cpu *c, const struct insn *i)                \
	{                                                                     \
		if (COND_##cc(c))                                             \
			jump_direct_legacy(c, i);                             \
		else                                                          \
			op_next(c, i);                                        \
	}
CC_EACH(COND_HANDLERS)

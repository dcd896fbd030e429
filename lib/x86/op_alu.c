/*
 * x86/op_alu.c - ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NOT NEG. SDM 2A/2B.
 * Each is computed by the host's own instruction, whose flags are kept. vCPU thread.
 */
#include "x86/op_tmpl.h"

/*
 * The instruction itself, `w` being st.w before and after. MODE "=&a": it takes no flags.
 * do_*: on registers; lock_*: on memory, with LOCK.
 */
#define COMPUTE2(bits, name, insn, IN, MODE)                                          \
	INLINE uint##bits##_t do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a, \
						 uint##bits##_t b)                    \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		__asm__(IN insn " %[b], %[a]" FLAGS_OUT                               \
			: [a] "+&r"(a), MODE(w)                                       \
			: [b] "r"(b)                                                  \
			: "cc");                                                      \
		c->st.w = (uint16_t)w;                                                \
		return a;                                                             \
	}                                                                             \
	INLINE void lock_##name##_##bits(struct x86_cpu *c, uint##bits##_t *p,        \
					 uint##bits##_t b)                            \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		__asm__ volatile(IN "lock " insn " %[b], %[m]" FLAGS_OUT              \
				 : [m] "+m"(*p), MODE(w)                              \
				 : [b] "r"(b)                                         \
				 : "cc", "memory");                                   \
		c->st.w = (uint16_t)w;                                                \
	}

/* One operand; `b` is there so that the forms below fit, and is not used. */
#define COMPUTE1(bits, name, insn, IN, MODE)                                          \
	INLINE uint##bits##_t do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a, \
						 uint##bits##_t b)                    \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		(void)b;                                                              \
		__asm__(IN insn " %[a]" FLAGS_OUT : [a] "+&r"(a), MODE(w) : : "cc");  \
		c->st.w = (uint16_t)w;                                                \
		return a;                                                             \
	}                                                                             \
	INLINE void lock_##name##_##bits(struct x86_cpu *c, uint##bits##_t *p,        \
					 uint##bits##_t b)                            \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		(void)b;                                                              \
		__asm__ volatile(IN "lock " insn SUFFIX_##bits " %[m]" FLAGS_OUT      \
				 : [m] "+m"(*p), MODE(w)                              \
				 :                                                    \
				 : "cc", "memory");                                   \
		c->st.w = (uint16_t)w;                                                \
	}

EACH_BITS(COMPUTE2, add, "add", "", "=&a")
EACH_BITS(COMPUTE2, or, "or", "", "=&a")
EACH_BITS(COMPUTE2, adc, "adc", CF_IN, "+&a")
EACH_BITS(COMPUTE2, sbb, "sbb", CF_IN, "+&a")
EACH_BITS(COMPUTE2, and, "and", "", "=&a")
EACH_BITS(COMPUTE2, sub, "sub", "", "=&a")
EACH_BITS(COMPUTE2, xor, "xor", "", "=&a")
EACH_BITS(COMPUTE1, inc, "inc", CF_IN, "+&a")
EACH_BITS(COMPUTE1, dec, "dec", CF_IN, "+&a")
EACH_BITS(COMPUTE1, neg, "neg", "", "=&a")

/* NOT leaves the flags alone. */
#define COMPUTE_NOT(bits, ...)                                                   \
	INLINE uint##bits##_t do_not_##bits(struct x86_cpu *c, uint##bits##_t a, \
					    uint##bits##_t b)                    \
	{                                                                        \
		(void)c;                                                         \
		(void)b;                                                         \
		return (uint##bits##_t) ~a;                                      \
	}                                                                        \
	INLINE void lock_not_##bits(struct x86_cpu *c, uint##bits##_t *p,        \
				    uint##bits##_t b)                            \
	{                                                                        \
		(void)c;                                                         \
		(void)b;                                                         \
		__asm__ volatile("lock not" SUFFIX_##bits " %0"                  \
				 : "+m"(*p)                                      \
				 :                                               \
				 : "memory");                                    \
	}
EACH_BITS(COMPUTE_NOT)

/* CMP and TEST write flags only. */
#define COMPUTE_CMP(bits, name, insn)                                       \
	INLINE void do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a, \
				       uint##bits##_t b)                    \
	{                                                                   \
		uint32_t w;                                                 \
                                                                            \
		__asm__(insn " %[b], %[a]" FLAGS_OUT                        \
			: "=&a"(w)                                          \
			: [a] "r"(a), [b] "r"(b)                            \
			: "cc");                                            \
		c->st.w = (uint16_t)w;                                      \
	}
EACH_BITS(COMPUTE_CMP, cmp, "cmp")
EACH_BITS(COMPUTE_CMP, test, "test")

/* ---- forms ------------------------------------------------------------------------------------ */

#define FORM_R(bits, name, form, SRC)                                                 \
	HANDLER(name, form, bits)                                                     \
	{                                                                             \
		put##bits(c, i->rm, do_##name##_##bits(c, get##bits(c, i->rm), SRC)); \
		op_next(c, i);                                                        \
	}

#define FORM_RM(bits, name, form, EA)                                                  \
	HANDLER(name, form, bits)                                                      \
	{                                                                              \
		uint##bits##_t b = load##bits(c, ea_of(c, i, EA, bits / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, do_##name##_##bits(c, get##bits(c, i->reg), b));  \
		op_next(c, i);                                                         \
	}

/* What is not on the fast path of the two forms below. */
#define FORM_SLOW(bits, name, form, SRC)                                              \
	HANDLER(name, form, bits)                                                     \
	{                                                                             \
		uint64_t va = ea_linear(c, i, bits / 8, ACC_WRITE);                   \
		struct rmw r;                                                         \
                                                                                      \
		rmw_begin(c, &r, va, bits / 8, i->flags & I_LOCK);                    \
		if (r.p && i->flags & I_LOCK) {                                       \
			lock_##name##_##bits(c, r.p, SRC);                            \
		} else {                                                              \
			uint##bits##_t a = (uint##bits##_t)rmw_load(c, &r, bits / 8); \
                                                                                      \
			rmw_end(c, &r, bits / 8, do_##name##_##bits(c, a, SRC));      \
		}                                                                     \
	}

#define FORM_LOCK(bits, name, form, SLOW, SRC)                                        \
	HANDLER(name, form, bits)                                                     \
	{                                                                             \
		uint##bits##_t *p =                                                   \
			write_ptr(c, ea_linear(c, i, bits / 8, ACC_WRITE), bits / 8); \
                                                                                      \
		if (unlikely(!p)) {                                                   \
			h_##name##_##SLOW##_##bits(c, i);                             \
			return;                                                       \
		}                                                                     \
		lock_##name##_##bits(c, p, SRC);                                      \
		op_next(c, i);                                                        \
	}

#define FORM_M(bits, name, form, SLOW, EA, SRC)                                       \
	HANDLER(name, form, bits)                                                     \
	{                                                                             \
		uint##bits##_t *p =                                                   \
			write_ptr(c, ea_of(c, i, EA, bits / 8, ACC_WRITE), bits / 8); \
                                                                                      \
		if (unlikely(!p)) {                                                   \
			h_##name##_##SLOW##_##bits(c, i);                             \
			return;                                                       \
		}                                                                     \
		*p = do_##name##_##bits(c, *p, SRC);                                  \
		op_next(c, i);                                                        \
	}

#define SRC_REG(bits)  get##bits(c, i->reg)
#define SRC_IMM(bits)  ((uint##bits##_t)i->imm)
#define SRC_NONE(bits) 0

#define ALL_FORMS2(bits, name)                              \
	FORM_R(bits, name, rr, SRC_REG(bits))               \
	FORM_R(bits, name, ri, SRC_IMM(bits))               \
	FORM_RM(bits, name, rm0, EA_BD)                     \
	FORM_RM(bits, name, rm1, EA_64)                     \
	FORM_RM(bits, name, rm2, EA_ANY)                    \
	FORM_SLOW(bits, name, smr, SRC_REG(bits))           \
	FORM_LOCK(bits, name, lmr, smr, SRC_REG(bits))      \
	FORM_SLOW(bits, name, smi, SRC_IMM(bits))           \
	FORM_LOCK(bits, name, lmi, smi, SRC_IMM(bits))      \
	FORM_M(bits, name, mr0, smr, EA_BD, SRC_REG(bits))  \
	FORM_M(bits, name, mr1, smr, EA_64, SRC_REG(bits))  \
	FORM_M(bits, name, mr2, smr, EA_ANY, SRC_REG(bits)) \
	FORM_M(bits, name, mi0, smi, EA_BD, SRC_IMM(bits))  \
	FORM_M(bits, name, mi1, smi, EA_64, SRC_IMM(bits))  \
	FORM_M(bits, name, mi2, smi, EA_ANY, SRC_IMM(bits))

#define ALL_FORMS1(bits, name)                              \
	FORM_R(bits, name, ri, SRC_NONE(bits))              \
	FORM_SLOW(bits, name, smi, SRC_NONE(bits))          \
	FORM_LOCK(bits, name, lmi, smi, SRC_NONE(bits))     \
	FORM_M(bits, name, mi0, smi, EA_BD, SRC_NONE(bits)) \
	FORM_M(bits, name, mi1, smi, EA_64, SRC_NONE(bits)) \
	FORM_M(bits, name, mi2, smi, EA_ANY, SRC_NONE(bits))

#define SET2(name)                              \
	EACH_BITS(ALL_FORMS2, name)             \
	const struct opset set_##name = {{      \
		[F_RR] = SIZES(h_##name, rr),   \
		[F_RI] = SIZES(h_##name, ri),   \
		EACH_EA(F_RM, h_##name, rm),    \
		EACH_EA(F_MR, h_##name, mr),    \
		EACH_EA(F_MI, h_##name, mi),    \
		[F_LMR] = SIZES(h_##name, lmr), \
		[F_LMI] = SIZES(h_##name, lmi), \
	}};

#define SET1(name)                              \
	EACH_BITS(ALL_FORMS1, name)             \
	const struct opset set_##name = {{      \
		[F_RI] = SIZES(h_##name, ri),   \
		EACH_EA(F_MI, h_##name, mi),    \
		[F_LMI] = SIZES(h_##name, lmi), \
	}};

SET2(add)
SET2(or)
SET2(adc)
SET2(sbb)
SET2(and)
SET2(sub)
SET2(xor)
SET1(inc)
SET1(dec)
SET1(neg)
SET1(not )

/* ---- CMP, TEST ---------------------------------------------------------------------------------- */

#define CMP_R(bits, name, form, SRC)                             \
	HANDLER(name, form, bits)                                \
	{                                                        \
		do_##name##_##bits(c, get##bits(c, i->rm), SRC); \
		op_next(c, i);                                   \
	}

#define CMP_RM(bits, name, form, EA)                                                   \
	HANDLER(name, form, bits)                                                      \
	{                                                                              \
		uint##bits##_t b = load##bits(c, ea_of(c, i, EA, bits / 8, ACC_READ)); \
                                                                                       \
		do_##name##_##bits(c, get##bits(c, i->reg), b);                        \
		op_next(c, i);                                                         \
	}

#define CMP_M(bits, name, form, EA, SRC)                                               \
	HANDLER(name, form, bits)                                                      \
	{                                                                              \
		uint##bits##_t a = load##bits(c, ea_of(c, i, EA, bits / 8, ACC_READ)); \
                                                                                       \
		do_##name##_##bits(c, a, SRC);                                         \
		op_next(c, i);                                                         \
	}

#define CMP_FORMS(bits, name)                         \
	CMP_R(bits, name, rr, SRC_REG(bits))          \
	CMP_R(bits, name, ri, SRC_IMM(bits))          \
	CMP_RM(bits, name, rm0, EA_BD)                \
	CMP_RM(bits, name, rm1, EA_64)                \
	CMP_RM(bits, name, rm2, EA_ANY)               \
	CMP_M(bits, name, mr0, EA_BD, SRC_REG(bits))  \
	CMP_M(bits, name, mr1, EA_64, SRC_REG(bits))  \
	CMP_M(bits, name, mr2, EA_ANY, SRC_REG(bits)) \
	CMP_M(bits, name, mi0, EA_BD, SRC_IMM(bits))  \
	CMP_M(bits, name, mi1, EA_64, SRC_IMM(bits))  \
	CMP_M(bits, name, mi2, EA_ANY, SRC_IMM(bits))

#define SET_CMP(name)                         \
	EACH_BITS(CMP_FORMS, name)            \
	const struct opset set_##name = {{    \
		[F_RR] = SIZES(h_##name, rr), \
		[F_RI] = SIZES(h_##name, ri), \
		EACH_EA(F_RM, h_##name, rm),  \
		EACH_EA(F_MR, h_##name, mr),  \
		EACH_EA(F_MI, h_##name, mi),  \
	}};

SET_CMP(cmp)
SET_CMP(test)

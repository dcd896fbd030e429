/*
 * x86/op_shift.c - ROL ROR RCL RCR SHL SHR SAR SHLD SHRD. SDM 2B.
 * By the host's own instruction, with the flags as they were loaded before it, so that what the
 * manual leaves undefined is what this host does. vCPU thread.
 */
#include "x86/op_tmpl.h"

/* A shift by `n` (masked by the instruction itself); no flag changes for 0. */
#define COMPUTE(bits, name)                                                           \
	INLINE uint##bits##_t do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a, \
						 uint8_t n)                           \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		__asm__(FLAGS_IN #name " %%cl, %[a]" FLAGS_OUT                        \
			: [a] "+&r"(a), "+&a"(w)                                      \
			: "c"(n)                                                      \
			: "cc");                                                      \
		c->st.w = (uint16_t)w;                                                \
		return a;                                                             \
	}

#define SHIFT_R(bits, name, set, COUNT)                                       \
	HANDLER(set, ri, bits)                                                \
	{                                                                     \
		put##bits(c, i->rm,                                           \
			  do_##name##_##bits(c, get##bits(c, i->rm), COUNT)); \
		op_next(c, i);                                                \
	}

#define SHIFT_M(bits, name, set, COUNT)                                    \
	HANDLER(set, mi, bits)                                             \
	{                                                                  \
		uint64_t va = ea_linear(c, i, bits / 8, ACC_WRITE);        \
		uint##bits##_t a, *p = write_ptr(c, va, bits / 8);         \
		struct rmw r;                                              \
                                                                           \
		if (likely(p)) {                                           \
			*p = do_##name##_##bits(c, *p, COUNT);             \
			op_next(c, i);                                     \
			return;                                            \
		}                                                          \
		rmw_begin(c, &r, va, bits / 8, false);                     \
		a = (uint##bits##_t)rmw_load(c, &r, bits / 8);             \
		rmw_end(c, &r, bits / 8, do_##name##_##bits(c, a, COUNT)); \
	}

#define SHIFT_FORMS(bits, name)                      \
	SHIFT_R(bits, name, name, (uint8_t)i->imm)   \
	SHIFT_M(bits, name, name, (uint8_t)i->imm)   \
	SHIFT_R(bits, name, name##_cl, get8(c, RCX)) \
	SHIFT_M(bits, name, name##_cl, get8(c, RCX))

#define SET(name)                                           \
	EACH_BITS(COMPUTE, name)                            \
	EACH_BITS(SHIFT_FORMS, name)                        \
	const struct opset set_##name = {{                  \
		[F_RI] = SIZES(h_##name, ri),               \
		[F_MI + EA_ANY] = SIZES(h_##name, mi),      \
	}};                                                 \
	const struct opset set_##name##_cl = {{             \
		[F_RI] = SIZES(h_##name##_cl, ri),          \
		[F_MI + EA_ANY] = SIZES(h_##name##_cl, mi), \
	}};

SET(rol)
SET(ror)
SET(rcl)
SET(rcr)
SET(shl)
SET(shr)
SET(sar)

/* ---- SHLD, SHRD ----------------------------------------------------------------------------------- */

#define DOUBLE(bits, name)                                                            \
	INLINE uint##bits##_t do_##name##_##bits(struct x86_cpu *c, uint##bits##_t a, \
						 uint##bits##_t b, uint8_t n)         \
	{                                                                             \
		uint32_t w = c->st.w;                                                 \
                                                                                      \
		__asm__(FLAGS_IN #name " %%cl, %[b], %[a]" FLAGS_OUT                  \
			: [a] "+&r"(a), "+&a"(w)                                      \
			: [b] "r"(b), "c"(n)                                          \
			: "cc");                                                      \
		c->st.w = (uint16_t)w;                                                \
		return a;                                                             \
	}                                                                             \
	DOUBLE_FORMS(bits, name, name, (uint8_t)i->imm)                               \
	DOUBLE_FORMS(bits, name, name##_cl, get8(c, RCX))

#define DOUBLE_FORMS(bits, name, set, COUNT)                                \
	HANDLER(set, rr, bits)                                              \
	{                                                                   \
		put##bits(c, i->rm,                                         \
			  do_##name##_##bits(c, get##bits(c, i->rm),        \
					     get##bits(c, i->reg), COUNT)); \
		op_next(c, i);                                              \
	}                                                                   \
	HANDLER(set, mr, bits)                                              \
	{                                                                   \
		uint64_t va = ea_linear(c, i, bits / 8, ACC_WRITE);         \
		uint##bits##_t a;                                           \
		struct rmw r;                                               \
                                                                            \
		rmw_begin(c, &r, va, bits / 8, false);                      \
		a = (uint##bits##_t)rmw_load(c, &r, bits / 8);              \
		a = do_##name##_##bits(c, a, get##bits(c, i->reg), COUNT);  \
		rmw_end(c, &r, bits / 8, a);                                \
	}

#define DOUBLE_SET(name)                                   \
	const struct opset set_##name = {{                 \
		[F_RR] = SIZES_WDQ(h_##name, rr),          \
		[F_MR + EA_ANY] = SIZES_WDQ(h_##name, mr), \
	}};
EACH_WDQ(DOUBLE, shld)
EACH_WDQ(DOUBLE, shrd)
DOUBLE_SET(shld)
DOUBLE_SET(shrd)
DOUBLE_SET(shld_cl)
DOUBLE_SET(shrd_cl)

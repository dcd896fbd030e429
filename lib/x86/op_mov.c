/*
 * x86/op_mov.c - MOV MOVZX MOVSX MOVSXD LEA MOVBE XCHG BSWAP XLAT MOVNTI NOP. SDM 2A/2B.
 * vCPU thread.
 */
#include "x86/op_tmpl.h"

/* A store of `v`, whose address is known; the last thing of a handler. */
#define STORE(bits)                                                           \
	INLINE void store_next##bits(struct x86_cpu *c, const struct insn *i, \
				     uint64_t va, uint##bits##_t v)           \
	{                                                                     \
		uint##bits##_t *p = write_ptr(c, va, bits / 8);               \
                                                                              \
		if (unlikely(!p)) {                                           \
			mem_store_slow(c, va, bits / 8, v);                   \
			return;                                               \
		}                                                             \
		*p = v;                                                       \
		op_next(c, i);                                                \
	}
STORE(8)
STORE(16)
STORE(32)
STORE(64)

/* ---- MOV ---------------------------------------------------------------------------------------- */

#define MOV_R(bits, form, SRC)            \
	HANDLER(mov, form, bits)          \
	{                                 \
		put##bits(c, i->rm, SRC); \
		op_next(c, i);            \
	}
#define MOV_RM(bits, form, EA)                                                 \
	HANDLER(mov, form, bits)                                               \
	{                                                                      \
		put##bits(c, i->reg,                                           \
			  load##bits(c, ea_of(c, i, EA, bits / 8, ACC_READ))); \
		op_next(c, i);                                                 \
	}
#define MOV_M(bits, form, EA, SRC)                                                 \
	HANDLER(mov, form, bits)                                                   \
	{                                                                          \
		store_next##bits(c, i, ea_of(c, i, EA, bits / 8, ACC_WRITE), SRC); \
	}
#define MOV_FORMS(bits, ...)                            \
	MOV_R(bits, rr, get##bits(c, i->reg))           \
	MOV_R(bits, ri, (uint##bits##_t)i->imm)         \
	MOV_RM(bits, rm0, EA_BD)                        \
	MOV_RM(bits, rm1, EA_64)                        \
	MOV_RM(bits, rm2, EA_ANY)                       \
	MOV_M(bits, mr0, EA_BD, get##bits(c, i->reg))   \
	MOV_M(bits, mr1, EA_64, get##bits(c, i->reg))   \
	MOV_M(bits, mr2, EA_ANY, get##bits(c, i->reg))  \
	MOV_M(bits, mi0, EA_BD, (uint##bits##_t)i->imm) \
	MOV_M(bits, mi1, EA_64, (uint##bits##_t)i->imm) \
	MOV_M(bits, mi2, EA_ANY, (uint##bits##_t)i->imm)
EACH_BITS(MOV_FORMS)

const struct opset set_mov = {{
	[F_RR] = SIZES(h_mov, rr),
	[F_RI] = SIZES(h_mov, ri),
	EACH_EA(F_RM, h_mov, rm),
	EACH_EA(F_MR, h_mov, mr),
	EACH_EA(F_MI, h_mov, mi),
}};

/* MOV between the accumulator and memory at an offset in the instruction. */
static uint64_t moffs_linear(struct x86_cpu *c, const struct insn *i, enum access acc)
{
	if (i->flags & I_SEGCHK)
		return seg_linear_checked(c, i->seg, i->imm, i->osize, acc);
	return i->imm + c->seg_base[i->seg];
}

void op_mov_moffs_load(struct x86_cpu *c, const struct insn *i)
{
	uint64_t v = mem_load(c, moffs_linear(c, i, ACC_READ), i->osize);

	reg_set(c, RAX, i->osize, v);
	op_next(c, i);
}

void op_mov_moffs_store(struct x86_cpu *c, const struct insn *i)
{
	mem_store(c, moffs_linear(c, i, ACC_WRITE), i->osize,
		  reg_get(c, RAX, i->osize));
}

/* ---- MOVZX, MOVSX --------------------------------------------------------------------------------- */

/* `bits` of the destination, `from` of the source, TYPE the source's with its sign. */
#define EXTEND(bits, name, from, TYPE)                                           \
	HANDLER(name, rr, bits)                                                  \
	{                                                                        \
		put##bits(c, i->rm, (uint##bits##_t)(TYPE)get##from(c, i->reg)); \
		op_next(c, i);                                                   \
	}                                                                        \
	EXTEND_M(bits, name, rm0, EA_BD, from, TYPE)                             \
	EXTEND_M(bits, name, rm1, EA_64, from, TYPE)                             \
	EXTEND_M(bits, name, rm2, EA_ANY, from, TYPE)
#define EXTEND_M(bits, name, form, EA, from, TYPE)                                     \
	HANDLER(name, form, bits)                                                      \
	{                                                                              \
		uint##from##_t v = load##from(c, ea_of(c, i, EA, from / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, (uint##bits##_t)(TYPE)v);                         \
		op_next(c, i);                                                         \
	}
#define EXTEND_SET(name, from, TYPE)              \
	EACH_WDQ(EXTEND, name, from, TYPE)        \
	const struct opset set_##name = {{        \
		[F_RR] = SIZES_WDQ(h_##name, rr), \
		EACH_EA_WDQ(F_RM, h_##name, rm),  \
	}};

/* The source's register was named by the operand's own size (Eb, Ew, Ed): AH..BH are right. */
EXTEND_SET(movzx_b, 8, uint8_t)
EXTEND_SET(movzx_w, 16, uint16_t)
EXTEND_SET(movsx_b, 8, int8_t)
EXTEND_SET(movsx_w, 16, int16_t)
EXTEND_SET(movsx_d, 32, int32_t)

/* ---- LEA -------------------------------------------------------------------------------------------- */

#define LEA(bits, form, ADDR)                                 \
	HANDLER(lea, form, bits)                              \
	{                                                     \
		put##bits(c, i->reg, (uint##bits##_t)(ADDR)); \
		op_next(c, i);                                \
	}
#define LEA_FORMS(bits, ...)                                           \
	LEA(bits, rm0, get64(c, i->base) + (uint64_t)(int64_t)i->disp) \
	LEA(bits, rm1,                                                 \
	    get64(c, i->base) + (get64(c, i->index) << i->scale) +     \
		    (uint64_t)(int64_t)i->disp)                        \
	LEA(bits, rm2, ea_offset(c, i))
EACH_WDQ(LEA_FORMS)

const struct opset set_lea = {{EACH_EA_WDQ(F_RM, h_lea, rm)}};

/* ---- MOVBE, BSWAP ------------------------------------------------------------------------------------- */

#define MOVBE(bits, ...)                                                               \
	HANDLER(movbe, rm, bits)                                                       \
	{                                                                              \
		uint##bits##_t v = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, __builtin_bswap##bits(v));                        \
		op_next(c, i);                                                         \
	}                                                                              \
	HANDLER(movbe, mr, bits)                                                       \
	{                                                                              \
		store_next##bits(c, i, ea_linear(c, i, bits / 8, ACC_WRITE),           \
				 __builtin_bswap##bits(get##bits(c, i->reg)));         \
	}
EACH_WDQ(MOVBE)

const struct opset set_movbe = {{
	[F_RM + EA_ANY] = SIZES_WDQ(h_movbe, rm),
	[F_MR + EA_ANY] = SIZES_WDQ(h_movbe, mr),
}};

void op_bswap(struct x86_cpu *c, const struct insn *i)
{
	if (i->osize == 8) {
		put64(c, i->rm, __builtin_bswap64(get64(c, i->rm)));
	} else if (i->osize == 4) {
		put32(c, i->rm, __builtin_bswap32(get32(c, i->rm)));
	} else { /* undefined: as the host does it */
		uint64_t v = get64(c, i->rm);

		__asm__(".byte 0x66, 0x0f, 0xc8" : "+a"(v));
		put64(c, i->rm, v);
	}
	op_next(c, i);
}

/* ---- XCHG ------------------------------------------------------------------------------------------------ */

/* With memory it locks without being told. */
#define XCHG(bits, ...)                                                         \
	HANDLER(xchg, rr, bits)                                                 \
	{                                                                       \
		uint##bits##_t v = get##bits(c, i->reg);                        \
                                                                                \
		put##bits(c, i->reg, get##bits(c, i->rm));                      \
		put##bits(c, i->rm, v);                                         \
		op_next(c, i);                                                  \
	}                                                                       \
	HANDLER(xchg, mr, bits)                                                 \
	{                                                                       \
		uint64_t va = ea_linear(c, i, bits / 8, ACC_WRITE);             \
		uint##bits##_t v = get##bits(c, i->reg),                        \
			       *p = write_ptr(c, va, bits / 8);                 \
		struct rmw r;                                                   \
                                                                                \
		if (likely(p)) {                                                \
			put##bits(c, i->reg,                                    \
				  __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)); \
			op_next(c, i);                                          \
			return;                                                 \
		}                                                               \
		rmw_begin(c, &r, va, bits / 8, true);                           \
		if (r.p) {                                                      \
			v = __atomic_exchange_n((uint##bits##_t *)r.p, v,       \
						__ATOMIC_SEQ_CST);              \
			put##bits(c, i->reg, v);                                \
		} else {                                                        \
			put##bits(c, i->reg,                                    \
				  (uint##bits##_t)rmw_load(c, &r, bits / 8));   \
			rmw_end(c, &r, bits / 8, v);                            \
		}                                                               \
	}
EACH_BITS(XCHG)

const struct opset set_xchg = {{
	[F_RR] = SIZES(h_xchg, rr),
	[F_MR + EA_ANY] = SIZES(h_xchg, mr),
	[F_LMR] = SIZES(h_xchg, mr),
}};

/* ---- the rest ---------------------------------------------------------------------------------------------- */

void op_xlat(struct x86_cpu *c, const struct insn *i)
{
	uint64_t off = get64(c, RBX) + get8(c, RAX);

	if (i->asize != 8)
		off = i->asize == 4 ? (uint32_t)off : (uint16_t)off;
	if (i->flags & I_SEGCHK)
		off = seg_linear_checked(c, i->seg, off, 1, ACC_READ);
	else
		off += c->seg_base[i->seg];
	put8(c, RAX, mem_load8(c, off));
	op_next(c, i);
}

void op_movnti(struct x86_cpu *c, const struct insn *i)
{
	mem_store(c, ea_linear(c, i, i->osize, ACC_WRITE), i->osize,
		  reg_get(c, i->reg, i->osize));
}

void op_nop(struct x86_cpu *c, const struct insn *i)
{
	op_next(c, i);
}

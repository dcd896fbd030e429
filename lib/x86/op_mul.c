/*
 * x86/op_mul.c - MUL IMUL MULX DIV IDIV, CBW CWDE CDQE, CWD CDQ CQO. SDM 2A/2B.
 * By the host's own instruction, with the flags loaded before it (what the manual leaves undefined
 * is what this host does); a quotient that does not fit is found before the host would trap.
 * vCPU thread.
 */
#include "x86/op_tmpl.h"

/*
 * An instruction with rAX and rDX as operands, while ax also carries the flags: st.w goes in
 * and out in ax, rAX's value in a register of its own.
 */
#define WITH_RAX(insn) \
	FLAGS_IN "movq %q[lo], %%rax\n\t" insn "\n\tmovq %%rax, %q[lo]" FLAGS_OUT

/* ---- MUL, IMUL with one operand ----------------------------------------------------------------- */

/* rDX:rAX = rAX * b */
#define MUL(bits, name)                                                     \
	INLINE void do_##name##_##bits(struct x86_cpu *c, uint##bits##_t b) \
	{                                                                   \
		uint64_t lo = get64(c, RAX), hi;                            \
		uint32_t w = c->st.w;                                       \
                                                                            \
		__asm__(WITH_RAX(#name " %[b]")                             \
			: [lo] "+&r"(lo), "=&d"(hi), "+&a"(w)               \
			: [b] "r"(b)                                        \
			: "cc");                                            \
		c->st.w = (uint16_t)w;                                      \
		put##bits(c, RAX, (uint##bits##_t)lo);                      \
		put##bits(c, RDX, (uint##bits##_t)hi);                      \
	}

/* AX = AL * b */
#define MUL_8(name)                                             \
	INLINE void do_##name##_8(struct x86_cpu *c, uint8_t b) \
	{                                                       \
		uint64_t lo = get64(c, RAX);                    \
		uint32_t w = c->st.w;                           \
                                                                \
		__asm__(WITH_RAX(#name " %[b]")                 \
			: [lo] "+&r"(lo), "+&a"(w)              \
			: [b] "q"(b)                            \
			: "cc");                                \
		c->st.w = (uint16_t)w;                          \
		put64(c, RAX, lo);                              \
	}

#define ONE_OPERAND(bits, name)                                                 \
	HANDLER(name, ri, bits)                                                 \
	{                                                                       \
		do_##name##_##bits(c, get##bits(c, i->rm));                     \
		op_next(c, i);                                                  \
	}                                                                       \
	HANDLER(name, mi, bits)                                                 \
	{                                                                       \
		do_##name##_##bits(                                             \
			c, load##bits(c, ea_linear(c, i, bits / 8, ACC_READ))); \
		op_next(c, i);                                                  \
	}

#define SET_ONE(name)                                  \
	EACH_BITS(ONE_OPERAND, name)                   \
	const struct opset set_##name = {{             \
		[F_RI] = SIZES(h_##name, ri),          \
		[F_MI + EA_ANY] = SIZES(h_##name, mi), \
	}};

MUL_8(mul)
EACH_WDQ(MUL, mul)
SET_ONE(mul)
MUL_8(imul)
EACH_WDQ(MUL, imul)
SET_ONE(imul)

/* ---- IMUL with two and three operands ------------------------------------------------------------- */

#define IMUL2(bits, ...)                                                               \
	INLINE uint##bits##_t do_imul2_##bits(struct x86_cpu *c, uint##bits##_t a,     \
					      uint##bits##_t b)                        \
	{                                                                              \
		uint32_t w = c->st.w;                                                  \
                                                                                       \
		__asm__(FLAGS_IN "imul %[b], %[a]" FLAGS_OUT                           \
			: [a] "+&r"(a), "+&a"(w)                                       \
			: [b] "r"(b)                                                   \
			: "cc");                                                       \
		c->st.w = (uint16_t)w;                                                 \
		return a;                                                              \
	}                                                                              \
	HANDLER(imul2, rr, bits)                                                       \
	{                                                                              \
		put##bits(c, i->rm,                                                    \
			  do_imul2_##bits(c, get##bits(c, i->rm),                      \
					  get##bits(c, i->reg)));                      \
		op_next(c, i);                                                         \
	}                                                                              \
	HANDLER(imul2, rm, bits)                                                       \
	{                                                                              \
		uint##bits##_t b = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, do_imul2_##bits(c, get##bits(c, i->reg), b));     \
		op_next(c, i);                                                         \
	}                                                                              \
	HANDLER(imul3, rr, bits)                                                       \
	{                                                                              \
		put##bits(c, i->rm,                                                    \
			  do_imul2_##bits(c, get##bits(c, i->reg),                     \
					  (uint##bits##_t)i->imm));                    \
		op_next(c, i);                                                         \
	}                                                                              \
	HANDLER(imul3, rm, bits)                                                       \
	{                                                                              \
		uint##bits##_t b = load##bits(c, ea_linear(c, i, bits / 8, ACC_READ)); \
                                                                                       \
		put##bits(c, i->reg, do_imul2_##bits(c, b, (uint##bits##_t)i->imm));   \
		op_next(c, i);                                                         \
	}
EACH_WDQ(IMUL2)

const struct opset set_imul2 = {{
	[F_RR] = SIZES_WDQ(h_imul2, rr),
	[F_RM + EA_ANY] = SIZES_WDQ(h_imul2, rm),
}};
const struct opset set_imul3 = {{
	[F_RR] = SIZES_WDQ(h_imul3, rr),
	[F_RM + EA_ANY] = SIZES_WDQ(h_imul3, rm),
}};

/* VEX: reg = high half, vvvv = low half of rDX * r/m; no flags. High half last (same register). */
void op_mulx(struct x86_cpu *c, const struct insn *i)
{
	uint64_t b;

	vex_gpr_check(c);
	b = i->flags & I_MEM
		    ? mem_load(c, ea_linear(c, i, i->osize, ACC_READ), i->osize)
		    : reg_get(c, i->rm, i->osize);
	if (i->osize == 8) {
		unsigned __int128 p = (unsigned __int128)get64(c, RDX) * b;

		put64(c, R_OFF(i->vvvv), (uint64_t)p);
		put64(c, i->reg, (uint64_t)(p >> 64));
	} else {
		uint64_t p = (uint64_t)get32(c, RDX) * (uint32_t)b;

		put32(c, R_OFF(i->vvvv), (uint32_t)p);
		put32(c, i->reg, (uint32_t)(p >> 32));
	}
	op_next(c, i);
}

/* ---- DIV, IDIV -------------------------------------------------------------------------------------- */

/* Does the unsigned quotient of hi:lo / b fit? It does when hi < b; b = 0 never. */
static inline bool div_fits(uint64_t hi, uint64_t b)
{
	return hi < b;
}

static inline uint64_t magnitude(int64_t v)
{
	return v < 0 ? -(uint64_t)v : (uint64_t)v;
}

/* Does the signed quotient of the 128-bit n / b fit into `bits` bits? */
static bool idiv_fits(__int128 n, int64_t b, unsigned bits)
{
	unsigned __int128 mag = n < 0 ? -(unsigned __int128)n : (unsigned __int128)n;
	bool neg = (n < 0) != (b < 0);
	uint64_t hi = (uint64_t)(mag >> 64), q = (uint64_t)mag, limit, d = magnitude(b);

	if (hi >= d)
		return false;
	__asm__("divq %[d]" : "+a"(q), "+d"(hi) : [d] "r"(d) : "cc");
	limit = (1ull << (bits - 1)) - !neg;
	return q <= limit;
}

#define DIVIDE(bits, name)                                                   \
	INLINE void run_##name##_##bits(struct x86_cpu *c, uint##bits##_t b) \
	{                                                                    \
		uint64_t lo = get64(c, RAX), hi = get64(c, RDX);             \
		uint32_t w = c->st.w;                                        \
                                                                             \
		__asm__(WITH_RAX(#name " %[b]")                              \
			: [lo] "+&r"(lo), "+&d"(hi), "+&a"(w)                \
			: [b] "r"(b)                                         \
			: "cc");                                             \
		c->st.w = (uint16_t)w;                                       \
		put##bits(c, RAX, (uint##bits##_t)lo);                       \
		put##bits(c, RDX, (uint##bits##_t)hi);                       \
	}
EACH_WDQ(DIVIDE, div)
EACH_WDQ(DIVIDE, idiv)

#define DIVIDE_8(name)                                           \
	INLINE void run_##name##_8(struct x86_cpu *c, uint8_t b) \
	{                                                        \
		uint64_t lo = get64(c, RAX);                     \
		uint32_t w = c->st.w;                            \
                                                                 \
		__asm__(WITH_RAX(#name " %[b]")                  \
			: [lo] "+&r"(lo), "+&a"(w)               \
			: [b] "q"(b)                             \
			: "cc");                                 \
		c->st.w = (uint16_t)w;                           \
		put64(c, RAX, lo);                               \
	}
DIVIDE_8(div)
DIVIDE_8(idiv)

/* The dividend: rDX:rAX, 8 bits: AX. */
#define DO_DIV(bits, ...)                                                                         \
	INLINE void do_div_##bits(struct x86_cpu *c, uint##bits##_t b)                            \
	{                                                                                         \
		if (unlikely(!div_fits(                                                           \
			    bits == 8 ? get8(c, RAX + 1) : get##bits(c, RDX), b)))                \
			x86_raise(c, EX_DE);                                                      \
		run_div_##bits(c, b);                                                             \
	}                                                                                         \
	INLINE void do_idiv_##bits(struct x86_cpu *c, uint##bits##_t b)                           \
	{                                                                                         \
		uint##bits##_t hi = bits == 8 ? get8(c, RAX + 1) : get##bits(c, RDX);             \
		uint##bits##_t lo = get##bits(c, RAX);                                            \
		bool extended =                                                                   \
			hi == (uint##bits##_t)((int##bits##_t)lo >> (bits - 1));                  \
		__int128 n = (__int128)((unsigned __int128)(__int128)(int##bits##_t)hi            \
						<< bits |                                         \
					lo);                                                      \
                                                                                                  \
		/* CWD and the like made rDX: only the most negative number over -1 overflows,  \
		 * so anything but a divisor of 0 and -1 is fine */ \
		if (likely(extended && (uint##bits##_t)(b + 1) > 1)) {                            \
			run_idiv_##bits(c, b);                                                    \
			return;                                                                   \
		}                                                                                 \
		if (!b || !idiv_fits(n, (int##bits##_t)b, bits))                                  \
			x86_raise(c, EX_DE);                                                      \
		run_idiv_##bits(c, b);                                                            \
	}
EACH_BITS(DO_DIV)
SET_ONE(div)
SET_ONE(idiv)

/* ---- sign extension of the accumulator ---------------------------------------------------------------- */

void op_cbw(struct x86_cpu *c, const struct insn *i)
{
	switch (i->osize) {
	case 2: put16(c, RAX, (uint16_t)(int8_t)get8(c, RAX)); break;
	case 4: put32(c, RAX, (uint32_t)(int16_t)get16(c, RAX)); break;
	default: put64(c, RAX, (uint64_t)(int32_t)get32(c, RAX)); break;
	}
	op_next(c, i);
}

void op_cwd(struct x86_cpu *c, const struct insn *i)
{
	switch (i->osize) {
	case 2: put16(c, RDX, (uint16_t)((int16_t)get16(c, RAX) >> 15)); break;
	case 4: put32(c, RDX, (uint32_t)((int32_t)get32(c, RAX) >> 31)); break;
	default: put64(c, RDX, (uint64_t)((int64_t)get64(c, RAX) >> 63)); break;
	}
	op_next(c, i);
}

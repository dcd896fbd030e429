/*
 * x86/op_tmpl.h - what the handlers are made of: going on to the next instruction, operands,
 * the host's flags. Private to op_*.c. vCPU thread.
 *
 * Handlers of a block call each other: op_next() is a tail call of the next instruction's handler
 * (without optimisation a plain call, at most BLOCK_MAX deep). A handler that simply returns is
 * followed by the loop in run.c, which also sees that c->end was lowered: so a store that took
 * the slow path returns instead of going on.
 */
#ifndef X86_OP_TMPL_H
#define X86_OP_TMPL_H

#include "x86/ops.h"

#define INLINE   static inline __attribute__((always_inline, unused))
#define NOINLINE __attribute__((noinline, cold))

/* Goes on with the next instruction of the block. The last thing that a handler does. */
INLINE void op_next(struct x86_cpu *c, const struct insn *i)
{
	c->cur = i + 1;
	i[1].fn(c, i + 1);
}

/* ---- registers ------------------------------------------------------------------------------- */

#define REG_ACCESS(bits, wide)                                                   \
	INLINE uint##bits##_t get##bits(struct x86_cpu *c, unsigned off)         \
	{                                                                        \
		return *(uint##bits##_t *)((char *)c->gpr + off);                \
	}                                                                        \
	INLINE void put##bits(struct x86_cpu *c, unsigned off, uint##bits##_t v) \
	{                                                                        \
		*(uint##wide##_t *)((char *)c->gpr + off) = v;                   \
	}
REG_ACCESS(8, 8)
REG_ACCESS(16, 16)
REG_ACCESS(32, 64)
REG_ACCESS(64, 64)
#undef REG_ACCESS

#define RAX R_OFF(X86_RAX)
#define RCX R_OFF(X86_RCX)
#define RDX R_OFF(X86_RDX)
#define RBX R_OFF(X86_RBX)
#define RSP R_OFF(X86_RSP)
#define RBP R_OFF(X86_RBP)
#define RSI R_OFF(X86_RSI)
#define RDI R_OFF(X86_RDI)

/* ---- memory ---------------------------------------------------------------------------------- */

/* Linear address of the memory operand; `k` (a constant) is the EA class of the handler. */
INLINE uint64_t ea_of(struct x86_cpu *c, const struct insn *i, enum ea_class k,
		      unsigned len, enum access acc)
{
	if (k == EA_BD)
		return get64(c, i->base) + (uint64_t)(int64_t)i->disp;
	if (k == EA_64)
		return get64(c, i->base) + (get64(c, i->index) << i->scale) +
		       (uint64_t)(int64_t)i->disp + c->seg_base[i->seg];
	return ea_linear(c, i, len, acc);
}

/* = tlb_at(), in fewer instructions. */
INLINE struct tlb_entry *tlb_of(struct x86_cpu *c, uint64_t va, bool write)
{
	return (struct tlb_entry *)((char *)(c->tlb + (write ? TLB_WRITE : 0)) +
				    (va >> (12 - 6) & ((TLB_SIZE - 1) << 6)));
}

/*
 * The slow path of a load, called so that the handler keeps its registers: a handler with an
 * ordinary call in it would save and restore registers on its fast path too. The thunk keeps all
 * registers but rax; op_*.c are compiled without the red zone.
 */
typedef uint8_t unaligned8;
typedef uint16_t unaligned16 __attribute__((aligned(1)));
typedef uint32_t unaligned32 __attribute__((aligned(1)));
typedef uint64_t unaligned64 __attribute__((aligned(1)));

#define LOAD_SLOW(bits)                                                            \
	INLINE uint64_t load_slow##bits(struct x86_cpu *c, uint64_t va)            \
	{                                                                          \
		__asm__ volatile("call x86_load_slow" #bits                        \
				 : "+a"(va)                                        \
				 : "D"(c)                                          \
				 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", \
				   "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
				   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",    \
				   "xmm15");                                       \
		return va;                                                         \
	}                                                                          \
	INLINE uint##bits##_t load##bits(struct x86_cpu *c, uint64_t va)           \
	{                                                                          \
		const struct tlb_entry *t = tlb_of(c, va, false);                  \
                                                                                   \
		if (likely(((va + bits / 8 - 1) & PAGE_MASK) == t->tag_read))      \
			return *(const unaligned##bits *)(va + t->addend);         \
		return (uint##bits##_t)load_slow##bits(c, va);                     \
	}
LOAD_SLOW(8)
LOAD_SLOW(16)
LOAD_SLOW(32)
LOAD_SLOW(64)
#undef LOAD_SLOW

/* Host address for writing `len` (constant) bytes at va, NULL: take the slow path. */
INLINE void *write_ptr(struct x86_cpu *c, uint64_t va, unsigned len)
{
	const struct tlb_entry *t = tlb_of(c, va, true);

	if (likely(((va + len - 1) & PAGE_MASK) == t->tag_write))
		return (void *)(va + t->addend);
	return NULL;
}

/* Linear address of the memory operand moved by `delta` bytes, EA_ANY. */
INLINE uint64_t ea_linear_at(struct x86_cpu *c, const struct insn *i, uint64_t delta,
			     unsigned len, enum access acc)
{
	uint64_t off = ea_offset(c, i) + delta;

	if (i->asize != 8)
		off = i->asize == 4 ? (uint32_t)off : (uint16_t)off;
	if (i->flags & I_SEGCHK)
		return seg_linear_checked(c, i->seg, off, len, acc);
	return off + c->seg_base[i->seg];
}

/* VEX instructions on general-purpose registers: not in real and virtual-8086 mode, nor without the
 * host's help. */
INLINE void vex_gpr_check(struct x86_cpu *c)
{
	if (unlikely(!in_protected(c)) || unlikely(!__builtin_cpu_supports("bmi2")))
		x86_raise(c, EX_UD);
}

/* ---- flags ------------------------------------------------------------------------------------- */

/*
 * Parts of inline assembly. FLAGS_OUT leaves the status flags in ax as union status has them,
 * FLAGS_IN takes them from there, CF_IN only CF. FLAGS_IN goes before instructions that leave some
 * flags as they were, or undefined: then they are what this host makes of them.
 */
#define FLAGS_OUT "\n\tlahf\n\tseto %%al"
#define FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t"
#define CF_IN     "btl $8, %%eax\n\t"

/* The sixteen conditions, by name; on the stored flags. */
#define COND_o(c)   ((c)->st.of)
#define COND_b(c)   ((c)->st.lo & FL_CF)
#define COND_z(c)   ((c)->st.lo & FL_ZF)
#define COND_be(c)  ((c)->st.lo & (FL_CF | FL_ZF))
#define COND_s(c)   ((c)->st.lo & FL_SF)
#define COND_p(c)   ((c)->st.lo & FL_PF)
#define COND_l(c)   (((c)->st.lo >> 7) ^ (c)->st.of)
#define COND_le(c)  (((c)->st.lo & FL_ZF) | (((c)->st.lo >> 7) ^ (c)->st.of))
#define COND_no(c)  (!COND_o(c))
#define COND_nb(c)  (!COND_b(c))
#define COND_nz(c)  (!COND_z(c))
#define COND_nbe(c) (!COND_be(c))
#define COND_ns(c)  (!COND_s(c))
#define COND_np(c)  (!COND_p(c))
#define COND_nl(c)  (!COND_l(c))
#define COND_nle(c) (!COND_le(c))

/* ---- handlers by form ---------------------------------------------------------------------------- */

/*
 * Read-modify-write of a memory operand that is not on the fast path (op_atomic.c). Without one
 * host address (page crossing, device memory) it is done in steps, exclusive for LOCK.
 */
struct rmw {
	void *p; /* host address, or NULL: in steps */
	uint64_t va;
};

/* Begins: afterwards nothing faults, unless another processor changes page tables meanwhile. */
void rmw_begin(struct x86_cpu *c, struct rmw *r, uint64_t va, unsigned size, bool lock);
/* In steps: the old value, storing the new one. */
uint64_t rmw_load(struct x86_cpu *c, const struct rmw *r, unsigned size);
void rmw_end(struct x86_cpu *c, struct rmw *r, unsigned size, uint64_t v);
/* After a fault in the middle of it. */
void rmw_leave(struct x86_cpu *c);

/* Pushes outside of 64-bit mode; false when it went the slow way. */
INLINE bool push_legacy(struct x86_cpu *c, const struct insn *i, unsigned size,
			uint64_t v)
{
	uint32_t sp, *p;

	if (size != 4 || !i->flat) {
		stack_push(c, size, v);
		return false;
	}
	sp = get32(c, RSP) - 4;
	p = write_ptr(c, sp, 4);
	if (likely(p != NULL))
		*p = (uint32_t)v;
	else
		mem_store_slow(c, sp, 4, v);
	put32(c, RSP, sp);
	return p != NULL;
}

#define HANDLER(name, form, bits) \
	static void h_##name##_##form##_##bits(struct x86_cpu *c, const struct insn *i)

#define EACH_BITS(X, ...) \
	X(8, __VA_ARGS__) X(16, __VA_ARGS__) X(32, __VA_ARGS__) X(64, __VA_ARGS__)
#define EACH_WDQ(X, ...) X(16, __VA_ARGS__) X(32, __VA_ARGS__) X(64, __VA_ARGS__)
#define SUFFIX_8         "b"
#define SUFFIX_16        "w"
#define SUFFIX_32        "l"
#define SUFFIX_64        "q"

/* Rows of a struct opset from handlers named h_NAME_FORM_BITS. */
#define SIZES(h, form)                                                            \
	{                                                                         \
		h##_##form##_8, h##_##form##_16, h##_##form##_32, h##_##form##_64 \
	}
#define SIZES_WDQ(h, form)                                              \
	{                                                               \
		NULL, h##_##form##_16, h##_##form##_32, h##_##form##_64 \
	}
#define EACH_EA(F, h, form)                                               \
	[F + EA_BD] = SIZES(h, form##0), [F + EA_64] = SIZES(h, form##1), \
	     [F + EA_ANY] = SIZES(h, form##2)
#define EACH_EA_WDQ(F, h, form)                                                   \
	[F + EA_BD] = SIZES_WDQ(h, form##0), [F + EA_64] = SIZES_WDQ(h, form##1), \
	     [F + EA_ANY] = SIZES_WDQ(h, form##2)

#endif

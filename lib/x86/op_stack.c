/*
 * x86/op_stack.c - PUSH POP PUSHA POPA ENTER LEAVE. SDM 2A/2B; 1 section 6.2.
 * In 64-bit mode the stack is 64 bits wide and flat; else stack_push() and friends know.
 * vCPU thread.
 */
#include "x86/op_tmpl.h"

/* ---- PUSH --------------------------------------------------------------------------------------- */

INLINE void push64(struct x86_cpu *c, const struct insn *i, uint64_t v)
{
	uint64_t sp = get64(c, RSP) - 8, *p = write_ptr(c, sp, 8);

	if (unlikely(!p)) {
		mem_store_slow(c, sp, 8, v);
		put64(c, RSP, sp);
		return;
	}
	*p = v;
	put64(c, RSP, sp);
	op_next(c, i);
}

HANDLER(push, ri, 64)
{
	push64(c, i, get64(c, i->rm));
}

HANDLER(push_imm, ri, 64)
{
	push64(c, i, i->imm);
}

HANDLER(push, mi, 64)
{
	push64(c, i, load64(c, ea_linear(c, i, 8, ACC_READ)));
}

INLINE void push_legacy_next(struct x86_cpu *c, const struct insn *i, unsigned size,
			     uint64_t v)
{
	if (push_legacy(c, i, size, v))
		op_next(c, i);
}

#define PUSH_LEGACY(bits, ...)                                                        \
	HANDLER(push, ri, bits)                                                       \
	{                                                                             \
		push_legacy_next(c, i, bits / 8, get##bits(c, i->rm));                \
	}                                                                             \
	HANDLER(push_imm, ri, bits)                                                   \
	{                                                                             \
		push_legacy_next(c, i, bits / 8, (uint##bits##_t)i->imm);             \
	}                                                                             \
	HANDLER(push, mi, bits)                                                       \
	{                                                                             \
		push_legacy_next(c, i, bits / 8,                                      \
				 load##bits(c, ea_linear(c, i, bits / 8, ACC_READ))); \
	}
PUSH_LEGACY(16)
PUSH_LEGACY(32)

const struct opset set_push = {{
	[F_RI] = SIZES_WDQ(h_push, ri),
	[F_MI + EA_ANY] = SIZES_WDQ(h_push, mi),
}};

const struct opset set_push_imm = {{[F_RI] = SIZES_WDQ(h_push_imm, ri)}};

/* ---- POP ------------------------------------------------------------------------------------------ */

HANDLER(pop, ri, 64)
{
	uint64_t sp = get64(c, RSP), v = load64(c, sp);

	put64(c, RSP, sp + 8);
	put64(c, i->rm, v); /* POP RSP: the value stays */
	op_next(c, i);
}

#define POP_LEGACY(bits, ...)                                   \
	HANDLER(pop, ri, bits)                                  \
	{                                                       \
		uint32_t sp = get32(c, RSP);                    \
		uint##bits##_t v;                               \
                                                                \
		if (bits == 32 && i->flat) {                    \
			v = load##bits(c, sp);                  \
			put32(c, RSP, sp + 4);                  \
			put##bits(c, i->rm, v);                 \
			op_next(c, i);                          \
			return;                                 \
		}                                               \
		v = (uint##bits##_t)stack_peek(c, bits / 8, 0); \
                                                                \
		stack_drop(c, bits / 8);                        \
		put##bits(c, i->rm, v);                         \
		op_next(c, i);                                  \
	}
POP_LEGACY(16)
POP_LEGACY(32)

/* To memory: an address that uses rSP uses it as it is behind the POP. */
INLINE void pop_mem(struct x86_cpu *c, const struct insn *i, unsigned size)
{
	uint64_t v = stack_peek(c, size, 0), sp = get64(c, RSP), off, va;

	stack_drop(c, size);
	off = ea_offset(c, i);
	put64(c, RSP, sp);
	if (i->flags & I_SEGCHK)
		va = seg_linear_checked(c, i->seg, off, size, ACC_WRITE);
	else
		va = off + c->seg_base[i->seg];
	mem_store(c, va, size, v);
	stack_drop(c, size);
}

#define POP_MEM(bits, ...)               \
	HANDLER(pop, mi, bits)           \
	{                                \
		pop_mem(c, i, bits / 8); \
	}
EACH_WDQ(POP_MEM)

const struct opset set_pop = {{
	[F_RI] = SIZES_WDQ(h_pop, ri),
	[F_MI + EA_ANY] = SIZES_WDQ(h_pop, mi),
}};

/* ---- PUSHA, POPA ------------------------------------------------------------------------------------ */

/* rSP and rBP as the stack's size has them. */
static uint64_t stack_wrap(const struct x86_cpu *c, uint64_t v)
{
	return c->stack_size == 8 ? v : c->stack_size == 4 ? (uint32_t)v : (uint16_t)v;
}

static uint64_t stack_linear(struct x86_cpu *c, uint64_t off, unsigned len,
			     enum access acc)
{
	off = stack_wrap(c, off);
	return c->stack_size == 8 ? off : seg_linear_checked(c, X86_SS, off, len, acc);
}

/* rSP with its low stack_size bytes replaced by those of `v`. */
static uint64_t stack_value(struct x86_cpu *c, uint64_t v)
{
	if (c->stack_size == 2)
		return (get64(c, RSP) & ~0xffffull) | (uint16_t)v;
	return stack_wrap(c, v);
}

/* The registers change when nothing can fault any more. */
void op_pusha(struct x86_cpu *c, const struct insn *i)
{
	uint64_t sp = get64(c, RSP);
	unsigned n = i->osize;

	for (unsigned r = X86_RAX; r <= X86_RDI; r++)
		mem_store(c, stack_linear(c, sp - (r + 1) * n, n, ACC_WRITE), n,
			  reg_get(c, R_OFF(r), n));
	put64(c, RSP, stack_value(c, sp - 8 * n));
}

void op_popa(struct x86_cpu *c, const struct insn *i)
{
	uint64_t sp = get64(c, RSP);
	unsigned n = i->osize;

	/* registers popped before a fault keep their new values, and are popped again */
	for (unsigned r = 0; r < 8; r++) {
		uint64_t v = mem_load(c, stack_linear(c, sp + r * n, n, ACC_READ), n);

		if (7 - r != X86_RSP)
			reg_set(c, R_OFF(7 - r), n, v);
	}
	put64(c, RSP, stack_value(c, sp + 8 * n));
	op_next(c, i);
}

/* ---- ENTER, LEAVE ------------------------------------------------------------------------------------- */

void stack_probe(struct x86_cpu *c, uint64_t va, unsigned n)
{
	if (unlikely(c->mmu_mode == MMU_USER_AC) && va & (n - 1)) {
		mem_check_range(c, va, n);
		x86_raise_code(c, EX_AC, 0);
	}
	mem_probe_write(c, va, n);
}

/* All loads and stores use rSP's future values; the registers change when nothing can fault. */
void op_enter(struct x86_cpu *c, const struct insn *i)
{
	unsigned n = i->osize, level = i->sel & 31;
	uint64_t sp = get64(c, RSP), bp = get64(c, RBP), frame;

	sp -= n;
	mem_store(c, stack_linear(c, sp, n, ACC_WRITE), n, reg_get(c, RBP, n));
	frame = stack_value(c, sp);
	for (unsigned k = 1; k < level; k++) {
		uint64_t v;

		bp -= n;
		v = mem_load(c, stack_linear(c, bp, n, ACC_READ), n);
		sp -= n;
		mem_store(c, stack_linear(c, sp, n, ACC_WRITE), n, v);
	}
	if (level) {
		sp -= n;
		mem_store(c, stack_linear(c, sp, n, ACC_WRITE), n, frame);
	}
	sp -= (uint16_t)i->imm;
	stack_probe(c, stack_linear(c, sp, n, ACC_WRITE),
		    n); /* SDM: #PF there faults */
	reg_set(c, RBP, n, frame);
	put64(c, RSP, stack_value(c, sp));
}

void op_leave(struct x86_cpu *c, const struct insn *i)
{
	unsigned n = i->osize;
	uint64_t sp = stack_wrap(c, get64(c, RBP)), v;

	v = mem_load(c, stack_linear(c, sp, n, ACC_READ), n);
	put64(c, RSP, stack_value(c, sp + n));
	reg_set(c, RBP, n, v);
	op_next(c, i);
}

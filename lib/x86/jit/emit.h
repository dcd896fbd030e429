/*
 * x86/jit/emit.h - writes host instructions. Private to lib/x86/jit.
 */
#ifndef X86_JIT_EMIT_H
#define X86_JIT_EMIT_H

#include <string.h>

#include "x86/jit/jit_int.h"

enum host_reg {
	H_AX,
	H_CX,
	H_DX,
	H_BX,
	H_SP,
	H_BP,
	H_SI,
	H_DI,
	H_8,
	H_9,
	H_10,
	H_11,
	H_12,
	H_13,
	H_14,
	H_15
};

/* Scratch registers; T_A holds addresses. Where the guest's rsp is. */
#define T_A  H_14
#define T_B  H_12
#define T_C  H_13
#define G_SP H_15

/* The guest's registers; H_SP: in c->gpr. Those that compilers use least are in memory. */
static const uint8_t host_of[16] = {H_AX, H_CX, H_DX, H_BX, G_SP, H_BP, H_SI, H_DI,
				    H_8,  H_SP, H_SP, H_SP, H_9,  H_10, H_11, H_SP};

static inline bool in_memory(unsigned guest)
{
	return host_of[guest] == H_SP;
}

struct emit {
	uint8_t *p; /* next byte, writable mapping */
};

static inline void e8(struct emit *e, unsigned v)
{
	*e->p++ = (uint8_t)v;
}

static inline void e32(struct emit *e, uint32_t v)
{
	memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void e64(struct emit *e, uint64_t v)
{
	memcpy(e->p, &v, 8);
	e->p += 8;
}

#define CPU_OFF(field) ((int32_t)offsetof(struct x86_cpu, field))

/* An operand in modrm.rm: a register, or [base + index << scale + disp]; index H_SP: none. */
struct host_rm {
	bool mem;
	uint8_t reg; /* or the base */
	uint8_t index, scale;
	int32_t disp;
};

static inline struct host_rm rm_reg(unsigned r)
{
	return (struct host_rm){.reg = (uint8_t)r, .index = H_SP};
}

static inline struct host_rm rm_mem(unsigned base, unsigned index, int32_t disp)
{
	return (struct host_rm){true, (uint8_t)base, (uint8_t)index, 0, disp};
}

/* [T_A] */
static inline struct host_rm rm_ptr(void)
{
	return rm_mem(T_A, H_SP, 0);
}

static inline struct host_rm rm_cpu(int32_t disp)
{
	return rm_mem(H_SP, H_SP, disp);
}

static inline struct host_rm rm_cpu_index(unsigned index, int32_t disp)
{
	return rm_mem(H_SP, index, disp);
}

/* REX bits for modrm.reg = reg and rm. */
static inline unsigned rex_of(unsigned reg, struct host_rm rm)
{
	return (reg & 8 ? 4 : 0) | (rm.index & 8 ? 2 : 0) | (rm.reg & 8 ? 1 : 0);
}

/* modrm, SIB and displacement. */
static inline void e_modrm(struct emit *e, unsigned reg, struct host_rm rm)
{
	bool sib = rm.index != H_SP || (rm.reg & 7) == 4;
	unsigned mod = !rm.disp && (rm.reg & 7) != 5      ? 0
		       : rm.disp >= -128 && rm.disp < 128 ? 1
							  : 2;

	if (!rm.mem) {
		e8(e, 0xc0 | (reg & 7) << 3 | (rm.reg & 7));
		return;
	}
	e8(e, mod << 6 | (reg & 7) << 3 | (sib ? 4 : rm.reg & 7));
	if (sib)
		e8(e, rm.scale << 6 | (rm.index & 7) << 3 | (rm.reg & 7));
	if (mod == 1)
		e8(e, (uint32_t)rm.disp);
	else if (mod == 2)
		e32(e, (uint32_t)rm.disp);
}

/*
 * An instruction with a modrm byte. size 1, 2, 4, 8 gives prefix and REX.W; map 0: one byte, 1: 0F,
 * 2: 0F38, 3: 0F3A; byte_reg, byte_rm: low byte registers are meant (which need a REX prefix from 4
 * on).
 */
static inline void e_op(struct emit *e, unsigned size, unsigned prefix, unsigned map,
			unsigned op, unsigned reg, struct host_rm rm, bool byte_reg,
			bool byte_rm)
{
	unsigned rex = (size == 8 ? 8 : 0) | rex_of(reg, rm);

	if (size == 2)
		e8(e, 0x66);
	if (prefix)
		e8(e, prefix);
	if (rex || (byte_reg && reg >= 4) || (byte_rm && !rm.mem && rm.reg >= 4))
		e8(e, 0x40 | rex);
	if (map)
		e8(e, 0x0f);
	if (map > 1)
		e8(e, map == 2 ? 0x38 : 0x3a);
	e8(e, op);
	e_modrm(e, reg, rm);
}

/* One with a VEX prefix; pp: 0 none, 1 66, 2 F3, 3 F2. */
static inline void e_vex(struct emit *e, bool w, bool l, unsigned pp, unsigned map,
			 unsigned op, unsigned reg, unsigned vvvv, struct host_rm rm)
{
	e8(e, 0xc4);
	e8(e, (~rex_of(reg, rm) & 7) << 5 | map);
	e8(e, w << 7 | (~vvvv & 15) << 3 | l << 2 | pp);
	e8(e, op);
	e_modrm(e, reg, rm);
}

/* The same for whole registers. */
static inline void e_rm(struct emit *e, unsigned size, unsigned op, unsigned reg,
			struct host_rm rm)
{
	e_op(e, size, 0, 0, op, reg, rm, false, false);
}

static inline void e_mov(struct emit *e, unsigned size, unsigned dst, unsigned src)
{
	e_rm(e, size, 0x89, src, rm_reg(dst));
}

static inline void e_load(struct emit *e, unsigned size, unsigned dst, int32_t cpu_off)
{
	e_rm(e, size, 0x8b, dst, rm_cpu(cpu_off));
}

static inline void e_store(struct emit *e, unsigned size, unsigned src, int32_t cpu_off)
{
	e_rm(e, size, 0x89, src, rm_cpu(cpu_off));
}

/* reg = v, flags stay. */
static inline void e_imm(struct emit *e, unsigned reg, uint64_t v)
{
	if (v == (uint32_t)v) {
		if (reg & 8)
			e8(e, 0x41);
		e8(e, 0xb8 | (reg & 7));
		e32(e, (uint32_t)v);
	} else if (v == (uint64_t)(int64_t)(int32_t)v) {
		e_rm(e, 8, 0xc7, 0, rm_reg(reg));
		e32(e, (uint32_t)v);
	} else {
		e8(e, 0x48 | (reg & 8 ? 1 : 0));
		e8(e, 0xb8 | (reg & 7));
		e64(e, v);
	}
}

/* reg = [base + index << scale + disp]: address only. base or index H_SP: none of it. */
static inline void e_lea(struct emit *e, unsigned size, unsigned reg, unsigned base,
			 unsigned index, unsigned scale, int32_t disp)
{
	unsigned b = base == H_SP ? 5 : base & 7;
	bool sib = index != H_SP || base == H_SP || (base & 7) == 4;
	bool d8 = disp >= -128 && disp < 128 && base != H_SP;
	unsigned mod = base == H_SP ? 0 : !disp && b != 5 ? 0 : d8 ? 1 : 2;
	unsigned rex = (size == 8 ? 8 : 0) | (reg & 8 ? 4 : 0) |
		       (index != H_SP && index & 8 ? 2 : 0) |
		       (base != H_SP && base & 8 ? 1 : 0);

	if (rex)
		e8(e, 0x40 | rex);
	e8(e, 0x8d);
	e8(e, mod << 6 | (reg & 7) << 3 | (sib ? 4 : b));
	if (sib)
		e8(e, scale << 6 | (index == H_SP ? 4 : index & 7) << 3 | b);
	if (mod == 1)
		e8(e, (uint32_t)disp);
	else if (mod == 2 || base == H_SP)
		e32(e, (uint32_t)disp);
}

/* op: 0 add 1 or 4 and 5 sub 7 cmp */
static inline void e_alu_imm(struct emit *e, unsigned size, unsigned op,
			     struct host_rm rm, int32_t v)
{
	bool d8 = v >= -128 && v < 128;

	e_rm(e, size, d8 ? 0x83 : 0x81, op, rm);
	if (d8)
		e8(e, (uint32_t)v);
	else
		e32(e, (uint32_t)v);
}

/* A jump or a conditional one (cc 0-15) to an address in the code; its displacement's place. */
static inline uint8_t *e_jmp(struct emit *e)
{
	e8(e, 0xe9);
	e32(e, 0);
	return e->p - 4;
}

static inline uint8_t *e_jcc(struct emit *e, unsigned cc)
{
	e8(e, 0x0f);
	e8(e, 0x80 | cc);
	e32(e, 0);
	return e->p - 4;
}

/* Lets the jump whose displacement is at `rel` go to `to`; both in the writable mapping. */
static inline void e_patch(uint8_t *rel, const uint8_t *to)
{
	int32_t d = (int32_t)(to - (rel + 4));

	memcpy(rel, &d, 4);
}

/* jmp and call to a common piece (executable mapping). */
static inline void e_jmp_to(struct jit *j, struct emit *e, const uint8_t *rx)
{
	uint8_t *rel = e_jmp(e);

	e_patch(rel, j->rw + (rx - j->rx));
}

static inline void e_call_to(struct jit *j, struct emit *e, const uint8_t *rx)
{
	e8(e, 0xe8);
	e32(e, 0);
	e_patch(e->p - 4, j->rw + (rx - j->rx));
}

enum { CC_O, CC_NO, CC_B, CC_NB, CC_Z, CC_NZ, CC_BE, CC_NBE, CC_NG = 14 };

#endif

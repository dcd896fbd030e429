/*
 * x86/vec_special.c - vector instructions that access memory element by element, and VZEROUPPER.
 *
 * SDM volume 2: MASKMOVQ, MASKMOVDQU, VMASKMOV, VPMASKMOV, VGATHER, VPGATHER, VZEROALL. Elements that
 * the mask leaves out cause no fault. Register fields of these instructions are numbers.
 * vCPU thread.
 */
#include "x86/vec.h"

#include <string.h>

/* A YMM register's halves, 32 bytes in order. */
static void ymm_get(struct x86_cpu *c, unsigned n, uint8_t v[32])
{
	memcpy(v, xs_xmm(c, n), 16);
	memcpy(v + 16, xs_xmm(c, n) + VEC_HI, 16);
}

static void ymm_set(struct x86_cpu *c, unsigned n, const uint8_t v[32])
{
	memcpy(xs_xmm(c, n), v, 16);
	memcpy(xs_xmm(c, n) + VEC_HI, v + 16, 16);
}

void op_vzero(struct x86_cpu *c, const struct insn *i)
{
	unsigned n = in_long64(c) ? 16 : 8;

	vec_check_vex(c);
	if (i->flags & I_L1)
		memset(c->xsave + XS_XMM, 0, 16 * n);
	memset(c->xsave + XS_YMM, 0, 16 * n);
}

/* Linear address of `len` bytes at offset `off` of segment `seg`. */
static uint64_t linear(struct x86_cpu *c, unsigned seg, uint64_t off, unsigned len,
		       enum access acc)
{
	if (!in_long64(c))
		return seg_linear_checked(c, seg, off, len, acc);
	return off + c->seg_base[seg];
}

/* As addresses wrap that the instruction computes. */
static uint64_t wrapped(const struct insn *i, uint64_t off)
{
	return i->asize == 8 ? off : i->asize == 4 ? (uint32_t)off : (uint16_t)off;
}

/* ---- MASKMOV -------------------------------------------------------------------------------------- */

/*
 * Stores the bytes of v whose mask byte has bit 7 set at DS:rDI. The whole operand must be writable:
 * the manual leaves open whether bytes that are masked out fault, and AMD's processors do so, eight bytes at a time.
 */
static void mask_store(struct x86_cpu *c, const struct insn *i, const uint8_t *v,
		       const uint8_t *mask, unsigned n)
{
	uint64_t off = reg_get(c, R_OFF(X86_RDI), i->asize);
	uint64_t va = linear(c, i->seg, off, 8, ACC_WRITE);

	vec_check_aligned(c, va, 8, 8);
	mem_probe_write(c, va, 8);
	linear(c, i->seg, off, n, ACC_WRITE);
	mem_probe_write(c, va, n);
	for (unsigned k = 0; k < n; k++)
		if (mask[k] & 0x80)
			mem_store8(c, va + k, v[k]);
}

void op_maskmovdqu(struct x86_cpu *c, const struct insn *i)
{
	if (i->flags & I_VEX)
		vec_check_vex(c);
	else
		vec_check_sse(c);
	mask_store(c, i, xs_xmm(c, i->reg), xs_xmm(c, i->rm), 16);
}

void op_maskmovq(struct x86_cpu *c, const struct insn *i)
{
	vec_check_mmx(c);
	vec_enter_mmx(c);
	mask_store(c, i, c->xsave + XS_ST + 16 * (i->reg & 7),
		   c->xsave + XS_ST + 16 * (i->rm & 7), 8);
}

/* ---- VMASKMOV -------------------------------------------------------------------------------------- */

static unsigned elem_size(const struct insn *i)
{
	if (i->op == 0x8c || i->op == 0x8e)
		return i->flags & I_W ? 8 : 4;
	return i->op & 1 ? 8 : 4; /* 2C, 2E: ps; 2D, 2F: pd */
}

static bool elem_on(const uint8_t *mask, unsigned at, unsigned size)
{
	return mask[at + size - 1] & 0x80;
}

void op_vmaskmov_load(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = elem_size(i), len = i->flags & I_L1 ? 32 : 16;
	uint8_t mask[32], v[32] = {0};
	uint64_t off;

	vec_check_vex(c);
	off = ea_offset(c, i);
	ymm_get(c, i->vvvv, mask);
	for (unsigned k = 0; k < len; k += size) {
		if (elem_on(mask, k, size))
			mem_read(c,
				 linear(c, i->seg, wrapped(i, off + k), size, ACC_READ),
				 v + k, size);
	}
	ymm_set(c, i->reg, v);
}

void op_vmaskmov_store(struct x86_cpu *c, const struct insn *i)
{
	unsigned size = elem_size(i), len = i->flags & I_L1 ? 32 : 16;
	uint8_t mask[32], v[32];
	uint64_t off;

	vec_check_vex(c);
	off = ea_offset(c, i);
	ymm_get(c, i->vvvv, mask);
	ymm_get(c, i->reg, v);
	for (unsigned k = 0; k < len; k += size)
		if (elem_on(mask, k, size))
			mem_probe_write(
				c,
				linear(c, i->seg, wrapped(i, off + k), size, ACC_WRITE),
				size);
	for (unsigned k = 0; k < len; k += size) {
		if (elem_on(mask, k, size))
			mem_write(
				c,
				linear(c, i->seg, wrapped(i, off + k), size, ACC_WRITE),
				v + k, size);
	}
}

/* ---- gathers ------------------------------------------------------------------------------------------ */

/* The index register is a vector one: index 4, which decodes to "none", is XMM4. */
static unsigned vsib_index(const struct insn *i)
{
	return i->index == R_ZERO ? 4 : i->index / 8;
}

static uint64_t vsib_offset(struct x86_cpu *c, const struct insn *i,
			    const uint8_t *index, unsigned index_size)
{
	int64_t x;
	uint64_t a;

	if (index_size == 4) {
		int32_t d;

		memcpy(&d, index, 4);
		x = d;
	} else {
		memcpy(&x, index, 8);
	}
	a = *reg64(c, i->base) + ((uint64_t)x << i->scale) + (uint64_t)(int64_t)i->disp;
	return wrapped(i, a);
}

void op_vgather(struct x86_cpu *c, const struct insn *i)
{
	unsigned xs = i->op & 1 ? 8 : 4, size = i->flags & I_W ? 8 : 4;
	unsigned len = i->flags & I_L1 ? 32 : 16;
	unsigned n = len / (xs > size ? xs : size);
	unsigned xr = vsib_index(i);
	uint8_t index[32], mask[32], v[32], out[32] = {0};

	vec_check_vex(c);
	if ((i->modrm & 7) != 4 || i->asize == 2 || xr == i->reg || xr == i->vvvv ||
	    i->reg == i->vvvv)
		x86_raise(c, EX_UD);
	ymm_get(c, xr, index);
	ymm_get(c, i->vvvv, mask);
	ymm_get(c, i->reg, v);
	for (unsigned k = 0; k < n; k++) {
		if (elem_on(mask, k * size, size)) {
			uint64_t off = vsib_offset(c, i, index + k * xs, xs);

			mem_read(c, linear(c, i->seg, off, size, ACC_READ),
				 v + k * size, size);
			ymm_set(c, i->reg, v);
		}
		/* visible if a later element faults: this one is done */
		memset(mask + k * size, 0, size);
		ymm_set(c, i->vvvv, mask);
	}
	memcpy(out, v, n * size);
	ymm_set(c, i->reg, out);
	memset(out, 0, sizeof(out));
	ymm_set(c, i->vvvv, out);
}

/*
 * x86/xsave.c - FXSAVE, XSAVE and their relatives; MXCSR.
 *
 * SDM volume 1, section 10.5 and chapter 13; volume 2 for each instruction. Components: x87 (0),
 * SSE (1), AVX (2). The processor tracks no modifications: XSAVEOPT's modified optimisation is not
 * used, which the manual allows. vCPU thread.
 */
#include "x86/vec.h"

#include <string.h>

enum { X_X87 = 1, X_SSE = 2, X_AVX = 4, X_ALL = 7 };

#define FX_SIZE       512
#define FX_STORED     464 /* the rest is the software's */
#define HDR_SIZE      64
#define AREA_STD      (XS_YMM + 256)
#define MXCSR_AT      24
#define XCOMP_COMPACT BIT(63)

/* 16-byte registers of a kind that the mode has. */
static unsigned n_vec(const struct x86_cpu *c)
{
	return in_long64(c) ? 16 : 8;
}

/* ---- MXCSR ---------------------------------------------------------------------------------- */

/* The VEX forms come with I_VEX. */
static void mxcsr_check(struct x86_cpu *c, const struct insn *i)
{
	if (i->flags & I_VEX)
		vec_check_vex(c);
	else
		vec_check_sse(c);
}

static void mxcsr_set(struct x86_cpu *c, uint32_t v)
{
	if (c->fp_live & FP_LIVE_MXCSR) {
		host_ldmxcsr(MXCSR_HOST);
		c->fp_live &= (uint8_t)~FP_LIVE_MXCSR;
	}
	*xs_mxcsr(c) = v;
}

void op_ldmxcsr(struct x86_cpu *c, const struct insn *i)
{
	uint32_t v;

	mxcsr_check(c, i);
	v = mem_load32(c, ea_linear(c, i, 4, ACC_READ));
	if (v & ~vec_host_of(c)->mxcsr_mask)
		x86_raise_code(c, EX_GP, 0);
	mxcsr_set(c, v);
}

void op_stmxcsr(struct x86_cpu *c, const struct insn *i)
{
	mxcsr_check(c, i);
	mem_store32(c, ea_linear(c, i, 4, ACC_WRITE),
		    c->fp_live & FP_LIVE_MXCSR ? host_stmxcsr() : *xs_mxcsr(c));
}

/* ---- FXSAVE ------------------------------------------------------------------------------------ */

/* The legacy region as FXSAVE writes it: pointers in the form of REX.W, MXCSR_MASK. */
static void legacy_make(struct x86_cpu *c, const struct insn *i, uint8_t *img)
{
	const struct vec_host *h = vec_host_of(c);

	memcpy(img, c->xsave, FX_SIZE);
	img[XS_FTW + 1] = 0;
	if (!(i->flags & I_W)) { /* 32-bit offset, selector */
		memset(img + XS_FIP + 4, 0, 4);
		memset(img + XS_FDP + 4, 0, 4);
	}
	for (unsigned n = 0; n < 8; n++)
		memset(img + XS_ST + 16 * n + 10, 0, 6);
	memcpy(img + MXCSR_AT + 4, &h->mxcsr_mask, 4);
	if (!h->pointers && !(*xs16(c, XS_FSW) & FSW_ES))
		memset(img + XS_FOP, 0, MXCSR_AT - XS_FOP);
}

/* FIP and FDP hold as many bits as a linear address of the host has. */
static void pointer_trim(const struct x86_cpu *c, uint64_t *p)
{
	unsigned unused = 64 - vec_host_of(c)->pointer_bits;

	*p = (uint64_t)((int64_t)(*p << unused) >> unused);
}

/* `wide`: the pointers have 64 bits (REX.W). */
static void x87_take(struct x86_cpu *c, bool wide, const uint8_t *img)
{
	memcpy(c->xsave, img, MXCSR_AT);
	c->xsave[XS_FTW + 1] = 0;
	if (!wide) {
		memset(c->xsave + XS_FIP + 4, 0, 4);
		memset(c->xsave + XS_FDP + 4, 0, 4);
	}
	pointer_trim(c, xs64(c, XS_FIP));
	pointer_trim(c, xs64(c, XS_FDP));
	*xs16(c, XS_FCW) = (*xs16(c, XS_FCW) & 0x1f3f) | 0x40;
	*xs16(c, XS_FOP) &= 0x7ff;
	for (unsigned n = 0; n < 8; n++) {
		memcpy(c->xsave + XS_ST + 16 * n, img + XS_ST + 16 * n, 10);
		memset(c->xsave + XS_ST + 16 * n + 10, 0, 6);
	}
	x87_fix_es(c);
}

static void fx_check(struct x86_cpu *c)
{
	if (c->cr0 & (CR0_EM | CR0_TS))
		x86_raise(c, EX_NM);
}

static uint64_t area_at(struct x86_cpu *c, const struct insn *i, unsigned align,
			unsigned len, enum access acc)
{
	uint64_t va = ea_linear(c, i, 1, acc);

	if (va & (align - 1))
		x86_raise_code(c, EX_GP, 0);
	return ea_linear(c, i, len, acc);
}

/* Linear address of the byte at `off` of the operand's segment, accessible. */
static uint64_t fx_touch(struct x86_cpu *c, const struct insn *i, uint64_t off,
			 enum access acc)
{
	uint64_t va = i->flags & I_SEGCHK ? seg_linear_checked(c, i->seg, off, 1, acc)
					  : off + c->seg_base[i->seg];

	if (acc == ACC_WRITE)
		mem_probe_write(c, va, 1);
	else
		mem_load8(c, va);
	return va;
}

/*
 * The area of FXSAVE and FXRSTOR, accessible. A non-canonical address comes before alignment; which
 * byte a page fault names is open, on AMD it is the last one, whose offset wraps as addresses do.
 * The alignment that #AC watches is open too, on AMD it is four bytes.
 */
static uint64_t fx_area_at(struct x86_cpu *c, const struct insn *i, enum access acc)
{
	uint64_t off = ea_offset(c, i), last = off + FX_SIZE - 1;
	uint64_t va = ea_linear(c, i, 4, ACC_READ);

	mem_check_range(c, va, 4);
	vec_check_aligned(c, va, 4, 4);
	if (va & 15)
		x86_raise_code(c, EX_GP, 0);
	if (i->asize != 8)
		last &= i->asize == 4 ? UINT32_MAX : UINT16_MAX;
	fx_touch(c, i, last, acc);
	return fx_touch(c, i, off, acc);
}

void op_fxsave(struct x86_cpu *c, const struct insn *i)
{
	uint8_t img[FX_SIZE];
	uint64_t va;

	fx_check(c);
	va = fx_area_at(c, i, ACC_WRITE);
	x86_fp_sync(c);
	legacy_make(c, i, img);
	if (!in_long64(c)) { /* XMM8-15 are not written */
		mem_write(c, va, img, XS_XMM + 8 * 16);
		return;
	}
	mem_write(c, va, img, XS_XMM + 16 * 16);
}

void op_fxrstor(struct x86_cpu *c, const struct insn *i)
{
	uint8_t img[FX_SIZE];
	uint32_t mxcsr;
	uint64_t va;

	fx_check(c);
	va = fx_area_at(c, i, ACC_READ);
	mem_read(c, va, img, FX_SIZE);
	memcpy(&mxcsr, img + MXCSR_AT, 4);
	if (mxcsr & ~vec_host_of(c)->mxcsr_mask)
		x86_raise_code(c, EX_GP, 0);
	x86_fp_sync(c);
	x87_take(c, i->flags & I_W, img);
	*xs_mxcsr(c) = mxcsr;
	memcpy(c->xsave + XS_XMM, img + XS_XMM, 16 * n_vec(c));
}

/* ---- XSAVE ---------------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t k = 0; k < n; k++)
		if (p[k])
			return false;
	return true;
}

static bool x87_is_init(struct x86_cpu *c)
{
	return *xs16(c, XS_FCW) == 0x37f &&
	       all_zero(c->xsave + XS_FSW, MXCSR_AT - XS_FSW) &&
	       all_zero(c->xsave + XS_ST, 128);
}

uint64_t x86_xinuse(struct x86_cpu *c)
{
	x86_fp_sync(c);
	return (x87_is_init(c) ? 0 : X_X87) |
	       (all_zero(c->xsave + XS_XMM, 256) ? 0 : X_SSE) |
	       (all_zero(c->xsave + XS_YMM, 256) ? 0 : X_AVX);
}

/* #UD, #NM; returns the requested-feature bitmap. */
static uint64_t xs_begin(struct x86_cpu *c)
{
	uint64_t edx_eax =
		*reg32(c, R_OFF(X86_RAX)) | (uint64_t)*reg32(c, R_OFF(X86_RDX)) << 32;

	if (!(c->cr4 & CR4_OSXSAVE))
		x86_raise(c, EX_UD);
	if (c->cr0 & CR0_TS)
		x86_raise(c, EX_NM);
	return edx_eax & c->xcr0;
}

/* What a save writes: pieces of `img`. */
struct piece {
	unsigned from, len;
};

static void pieces_write(struct x86_cpu *c, uint64_t va, const uint8_t *img,
			 const struct piece *p, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		mem_write(c, va + p[k].from, img + p[k].from, p[k].len);
}

/* Pieces of the legacy region for `save`; `mxcsr`: that is written too. */
static unsigned legacy_pieces(const struct x86_cpu *c, uint64_t save, bool mxcsr,
			      struct piece *p)
{
	unsigned n = 0;

	if (save & X_X87)
		p[n++] = (struct piece){0, MXCSR_AT};
	if (mxcsr)
		p[n++] = (struct piece){MXCSR_AT, 8};
	if (save & X_X87)
		p[n++] = (struct piece){XS_ST, 128};
	if (save & X_SSE)
		p[n++] = (struct piece){XS_XMM, 16 * n_vec(c)};
	return n;
}

/* XSAVE and XSAVEOPT: standard format; `opt`: components in initial state are not written. */
static void save_standard(struct x86_cpu *c, const struct insn *i, bool opt)
{
	uint64_t rfbm = xs_begin(c), inuse, bv, save, va;
	uint8_t img[AREA_STD];
	struct piece p[8];
	unsigned n;

	va = area_at(c, i, 64, rfbm & X_AVX ? AREA_STD : FX_SIZE + HDR_SIZE, ACC_WRITE);
	vec_probe_write(c, va, rfbm & X_AVX ? AREA_STD : FX_SIZE + HDR_SIZE, 1);
	inuse = x86_xinuse(c);
	bv = mem_load64(c, va + FX_SIZE);
	bv = (bv & ~rfbm) | (rfbm & inuse);
	save = opt ? rfbm & inuse : rfbm;
	legacy_make(c, i, img);
	memcpy(img + FX_SIZE, &bv, 8);
	memcpy(img + XS_YMM, c->xsave + XS_YMM, 256);
	n = legacy_pieces(c, save, rfbm & (X_SSE | X_AVX), p);
	p[n++] = (struct piece){FX_SIZE, 8};
	if (save & X_AVX)
		p[n++] = (struct piece){XS_YMM, 16 * n_vec(c)};
	pieces_write(c, va, img, p, n);
}

void op_xsave(struct x86_cpu *c, const struct insn *i)
{
	save_standard(c, i, false);
}

void op_xsaveopt(struct x86_cpu *c, const struct insn *i)
{
	save_standard(c, i, true);
}

/* Compacted format: with these components AVX state is at the same place as in the standard one. */
void op_xsavec(struct x86_cpu *c, const struct insn *i)
{
	uint64_t rfbm = xs_begin(c), va, hdr[2], save;
	uint8_t img[AREA_STD];
	struct piece p[8];
	unsigned n;

	va = area_at(c, i, 64, rfbm & X_AVX ? AREA_STD : FX_SIZE + HDR_SIZE, ACC_WRITE);
	vec_probe_write(c, va, rfbm & X_AVX ? AREA_STD : FX_SIZE + HDR_SIZE, 1);
	save = x86_xinuse(c) & rfbm;
	if (rfbm & X_SSE && *xs_mxcsr(c) != MXCSR_HOST)
		save |= X_SSE;
	hdr[0] = save;
	hdr[1] = rfbm | XCOMP_COMPACT;
	legacy_make(c, i, img);
	memcpy(img + FX_SIZE, hdr, sizeof(hdr));
	memcpy(img + XS_YMM, c->xsave + XS_YMM, 256);
	n = legacy_pieces(c, save, save & X_SSE, p);
	p[n++] = (struct piece){FX_SIZE, sizeof(hdr)};
	if (save & X_AVX)
		p[n++] = (struct piece){XS_YMM, 16 * n_vec(c)};
	pieces_write(c, va, img, p, n);
}

/* ---- XRSTOR ------------------------------------------------------------------------------------------ */

/* #GP unless the header is one that XRSTOR takes (SDM 1 13.8). */
static void header_check(struct x86_cpu *c, const uint64_t h[8])
{
	uint64_t bv = h[0], comp = h[1], rest = 0;

	for (unsigned n = 2; n < 8; n++)
		rest |= h[n];
	if (comp & XCOMP_COMPACT) {
		comp &= ~XCOMP_COMPACT;
		if (comp & ~c->xcr0 || bv & ~comp || rest)
			x86_raise_code(c, EX_GP, 0);
		return;
	}
	if (bv & ~c->xcr0 || comp || h[2])
		x86_raise_code(c, EX_GP, 0);
}

static void sse_take(struct x86_cpu *c, const uint8_t *img)
{
	memcpy(c->xsave + XS_XMM, img + XS_XMM, 16 * n_vec(c));
}

void op_xrstor(struct x86_cpu *c, const struct insn *i)
{
	uint64_t rfbm = xs_begin(c), va, h[8], load;
	uint8_t img[AREA_STD] = {0};
	uint32_t mxcsr = MXCSR_HOST;
	bool compact;

	va = area_at(c, i, 64, rfbm & X_AVX ? AREA_STD : FX_SIZE + HDR_SIZE, ACC_READ);
	mem_load8(c, va);
	mem_read(c, va + FX_SIZE, h, sizeof(h));
	header_check(c, h);
	compact = h[1] & XCOMP_COMPACT;
	load = rfbm & h[0];
	/* AMD looks at the end of the area, whether the component is in it or initial */
	if (rfbm & X_AVX && (!compact || h[0] & X_AVX))
		mem_load8(c, va + AREA_STD - 1);
	mem_read(c, va, img, FX_SIZE);
	if (load & X_AVX)
		mem_read(c, va + XS_YMM, img + XS_YMM, 16 * n_vec(c));
	if (compact ? load & X_SSE : rfbm & (X_SSE | X_AVX))
		memcpy(&mxcsr, img + MXCSR_AT, 4);
	if (mxcsr & ~vec_host_of(c)->mxcsr_mask)
		x86_raise_code(c, EX_GP, 0);
	x86_fp_sync(c);
	if (load & X_X87) {
		x87_take(c, i->flags & I_W, img);
	} else if (rfbm & X_X87) {
		x87_init_state(c);
		memset(c->xsave + XS_ST, 0, 128);
	}
	if (compact ? rfbm & X_SSE : rfbm & (X_SSE | X_AVX))
		*xs_mxcsr(c) = mxcsr;
	if (rfbm & X_SSE) {
		if (!(load & X_SSE))
			memset(img + XS_XMM, 0, 256);
		sse_take(c, img);
	}
	if (rfbm & X_AVX)
		memcpy(c->xsave + XS_YMM, img + XS_YMM, 16 * n_vec(c));
}

/* ---- the state as a whole ------------------------------------------------------------------------------ */

void x86_fp_get(struct x86_cpu *c, uint8_t xsave[X86_XSAVE_SIZE])
{
	const uint64_t bv = X_ALL;

	x86_fp_sync(c);
	memcpy(xsave, c->xsave, X86_XSAVE_SIZE);
	memcpy(xsave + FX_SIZE, &bv, sizeof(bv));
}

bool x86_fp_set(struct x86_cpu *c, const uint8_t xsave[X86_XSAVE_SIZE])
{
	uint64_t h[2];
	uint32_t mxcsr;

	memcpy(&mxcsr, xsave + MXCSR_AT, sizeof(mxcsr));
	memcpy(h, xsave + FX_SIZE, sizeof(h));
	if (mxcsr & ~vec_host_of(c)->mxcsr_mask || h[0] & ~(uint64_t)X_ALL || h[1])
		return false;
	x86_fp_sync(c);
	memset(c->xsave, 0, sizeof(c->xsave));
	if (h[0] & X_X87)
		x87_take(c, true, xsave);
	else
		x87_init_state(c);
	*xs_mxcsr(c) = mxcsr;
	if (h[0] & X_SSE)
		memcpy(c->xsave + XS_XMM, xsave + XS_XMM, 256);
	if (h[0] & X_AVX)
		memcpy(c->xsave + XS_YMM, xsave + XS_YMM, 256);
	return true;
}

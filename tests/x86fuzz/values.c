/*
 * x86fuzz/values.c - random numbers, and values that make instructions show their edges.
 */
#include "fuzz.h"

#include <string.h>

static uint64_t rng[2];

void fz_seed(uint64_t seed)
{
	rng[0] = seed * 0x9e3779b97f4a7c15ull + 1;
	rng[1] = seed ^ 0xd1b54a32d192ed03ull;
	for (unsigned n = 0; n < 8; n++)
		fz_rand();
}

/* xoroshiro128+ */
uint64_t fz_rand(void)
{
	uint64_t a = rng[0], b = rng[1], r = a + b;

	b ^= a;
	rng[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	rng[1] = b << 37 | b >> 27;
	return r;
}

unsigned fz_below(unsigned n)
{
	return (unsigned)((fz_rand() >> 32) * n >> 32);
}

bool fz_one_in(unsigned n)
{
	return fz_below(n) == 0;
}

uint64_t fz_int(void)
{
	static const uint64_t edges[] = {0,
					 1,
					 2,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x100000000,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0xffffffffffffffff,
					 0xfffffffffffffffe,
					 0xffffffff80000000,
					 0x8000000080000000,
					 0x5555555555555555,
					 0x8080808080808080,
					 0x0123456789abcdef};
	switch (fz_below(6)) {
	case 0: return edges[fz_below(sizeof(edges) / sizeof(edges[0]))];
	case 1: return fz_below(70);
	case 2: return fz_rand() >> fz_below(64);
	case 3: return -(fz_rand() >> fz_below(64));
	case 4: return 1ull << fz_below(64);
	default: return fz_rand();
	}
}

static uint32_t rand_float(void)
{
	static const uint32_t edges[] = {
		0,          0x80000000, 0x3f800000, 0xbf800000, 1,          0x80000001,
		0x007fffff, 0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
		0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xffbfffff, 0x4f000000,
		0xcf000000, 0x5f000000, 0xdf000000, 0x3f000000, 0x4b000001, 0x4effffff,
		0x3fc00000, 0x34000000};
	uint32_t r = (uint32_t)fz_rand();

	switch (fz_below(4)) {
	case 0: return edges[fz_below(sizeof(edges) / sizeof(edges[0]))];
	case 1: /* near one */
		return (r & 0x807fffff) | (127 - 26 + fz_below(52)) << 23;
	case 2: /* near the ends */
		return (r & 0x807fffff) |
		       (fz_one_in(2) ? fz_below(28) : 254 - fz_below(28)) << 23;
	default: return r;
	}
}

static uint64_t rand_double(void)
{
	static const uint64_t edges[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		1,
		0x000fffffffffffff,
		0x0010000000000000,
		0x7fefffffffffffff,
		0x7ff0000000000000,
		0xfff0000000000000,
		0x7ff8000000000000,
		0xfff8000000000000,
		0x7ff0000000000001,
		0xfff7ffffffffffff,
		0x41e0000000000000,
		0xc1e0000000000000,
		0x43e0000000000000,
		0xc3e0000000000000,
		0x41dfffffffc00000,
		0x3fe0000000000000,
		0x47efffffe0000000,
		0x47effffff0000000,
		0x3690000000000000,
		0x380fffffffffffff,
	};
	uint64_t r = fz_rand();

	switch (fz_below(4)) {
	case 0: return edges[fz_below(sizeof(edges) / sizeof(edges[0]))];
	case 1: return (r & 0x800fffffffffffff) | (1023ull - 56 + fz_below(112)) << 52;
	case 2:
		return (r & 0x800fffffffffffff) |
		       (uint64_t)(fz_one_in(2) ? fz_below(60) : 2046 - fz_below(60))
			       << 52;
	default: return r;
	}
}

static uint64_t rand_masks(void)
{
	uint64_t v = 0;

	for (unsigned n = 0; n < 8; n++)
		v |= (uint64_t)(fz_one_in(2) ? 0xff : fz_below(3) * 0x40) << 8 * n;
	return v;
}

void fz_vector(void *p, unsigned n)
{
	uint8_t *b = p;
	unsigned kind = fz_below(7);

	for (unsigned k = 0; k + 8 <= n; k += 8) {
		uint64_t v;

		switch (kind) {
		case 0:
		case 1: v = rand_float() | (uint64_t)rand_float() << 32; break;
		case 2:
		case 3: v = rand_double(); break;
		case 4: v = rand_masks(); break;
		case 5: v = fz_int(); break;
		default: v = fz_rand(); break;
		}
		memcpy(b + k, &v, 8);
	}
}

/* An 80-bit number; all classes, the unsupported ones too. */
static void rand_ext(uint8_t *p)
{
	static const uint64_t mants[] = {0,
					 0x8000000000000000,
					 0xc000000000000000,
					 0xffffffffffffffff,
					 0x8000000000000001,
					 0x4000000000000000,
					 0x7fffffffffffffff,
					 1,
					 0xfffffffffffff800,
					 0xffffff0000000000};
	static const uint16_t exps[] = {0,      1,      0x7fff, 0x7ffe,
					0x3fff, 0x3ffe, 0x403e, 0x401e};
	uint64_t mant = fz_rand();
	uint16_t exp;

	switch (fz_below(4)) {
	case 0: exp = exps[fz_below(8)]; break;
	case 1: exp = (uint16_t)fz_rand() & 0x7fff; break;
	default: exp = (uint16_t)(0x3fff - 70 + (int)fz_below(140)); break;
	}
	if (fz_one_in(3))
		mant = mants[fz_below(sizeof(mants) / sizeof(mants[0]))];
	else if (exp && !fz_one_in(16))
		mant |= 1ull << 63;
	exp |= (uint16_t)(fz_one_in(2) << 15);
	memcpy(p, &mant, 8);
	memcpy(p + 8, &exp, 2);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

/* x87 part of an FXSAVE image, with a status word that fits the control word. */
void fz_x87_state(uint8_t *xsave)
{
	unsigned fcw = 0x37f, fsw, ftw;

	memset(xsave, 0, 24);
	if (fz_one_in(2))
		fcw = 0x7f | fz_below(16) << 8;
	if (fz_one_in(4))
		fcw = (fcw & ~0x3fu) | fz_below(64);
	fsw = fz_below(8) << 11 | (fz_below(16) << 8 & 0x4700);
	if (fz_one_in(2))
		fsw |= fz_below(128) & fcw; /* no exception pending */
	if (fz_one_in(24))
		fsw |= fz_below(64);
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	switch (fz_below(3)) {
	case 0: ftw = 0xff; break;
	case 1: ftw = fz_below(256); break;
	default: ftw = 0xff00 >> fz_below(9) & 0xff; break;
	}
	put16(xsave, fcw);
	put16(xsave + 2, fsw);
	xsave[4] = (uint8_t)ftw;
	put16(xsave + 6, fz_below(0x800));
	if (fz_one_in(2)) {
		uint64_t fip = fz_rand() >> 32, fdp = fz_rand() >> 32;

		memcpy(xsave + 8, &fip, 8);
		memcpy(xsave + 16, &fdp, 8);
	}
	for (unsigned n = 0; n < 8; n++) {
		uint8_t *st = xsave + 32 + 16 * n;

		memset(st, 0, 16);
		rand_ext(st);
		if (fz_one_in(8)) { /* MMX contents */
			fz_vector(st, 8);
			put16(st + 8, 0xffff);
		}
	}
}

/* Has MXCSR the bit that allows misaligned operands? AMD's has. */
static bool host_has_mm(void)
{
	uint8_t img[512] __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0" : "=m"(img));
	return img[30] & 2;
}

uint32_t fz_mxcsr(void)
{
	uint32_t v = 0x1f80;

	if (fz_one_in(2))
		v |= fz_below(4) << 13 | fz_below(2) << 15 | fz_below(2) << 6 |
		     fz_below(64);
	if (fz_one_in(5))
		v &= ~(fz_below(64) << 7);
	if (fz_one_in(16) && host_has_mm())
		v |= 1u << 17;
	return v;
}

void fz_xsave_area(uint8_t *p)
{
	uint32_t mxcsr = fz_mxcsr();
	uint64_t h[8] = {fz_below(8)};

	for (unsigned n = 160; n < 512; n += 32)
		fz_vector(p + n, 32);
	fz_x87_state(p);
	if (fz_one_in(8))
		mxcsr = (uint32_t)fz_rand();
	memcpy(p + 24, &mxcsr, 4);
	if (fz_one_in(2)) {
		h[1] = 1ull << 63 | fz_below(8);
		h[0] &= h[1] | (fz_one_in(8) ? 7 : 0);
	}
	if (fz_one_in(12))
		h[fz_below(8)] |= fz_one_in(2) ? 1ull << fz_below(64) : fz_rand();
	memcpy(p + 512, h, sizeof(h));
}

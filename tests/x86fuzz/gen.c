/*
 * x86fuzz/gen.c - every form of every opcode map, and cases of it.
 *
 * A form is mode, encoding, map, opcode, mandatory prefix, W and L; modrm, registers, addresses and
 * immediates are random. Nothing here knows what an instruction does, so undefined opcodes
 * are compared as well; what cannot be compared is in one table, with the reason.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/x86_int.h"

/* ---- what is left out ----------------------------------------------------------------------- */

enum { ANY = 0xff, HAS_66 = 0xfe, HAS_LOCK = 0xfd };
enum { BOTH, M32, M64 };
enum { L_ANY, L_LEGACY, L_VEX, L_VEX_L1 };
enum { R_ANY, R_REG, R_MEM };

struct exclusion {
	uint8_t enc, map, lo, hi; /* opcodes lo..hi */
	uint8_t digit;            /* modrm.reg, ANY */
	uint8_t rm;
	uint8_t pp; /* ANY, HAS_66, HAS_LOCK, or as in fz_form */
	uint8_t mode;
	const char *why;
};

/* clang-format off */
static const struct exclusion exclusions[] = {
	/* what the operating system sees */
	{L_LEGACY, 0, 0xcd, 0xcd, ANY, R_ANY, ANY, BOTH, "INT n: the kernel's gates, system calls"},
	{L_LEGACY, 1, 0x05, 0x05, ANY, R_ANY, ANY, BOTH, "SYSCALL"},
	{L_LEGACY, 1, 0x34, 0x35, ANY, R_ANY, ANY, BOTH, "SYSENTER, SYSEXIT"},
	{L_LEGACY, 1, 0x00, 0x01, ANY, R_ANY, ANY, BOTH, "descriptor tables, hypercalls, the kernel's UMIP"},
	{L_LEGACY, 1, 0x02, 0x03, ANY, R_ANY, ANY, BOTH, "LAR, LSL: the kernel's descriptors"},
	/* segments: they would change this process */
	{L_LEGACY, 0, 0x8e, 0x8e, ANY, R_ANY, ANY, BOTH, "MOV to a segment register"},
	{L_LEGACY, 0, 0x07, 0x07, ANY, R_ANY, ANY, M32, "POP ES"},
	{L_LEGACY, 0, 0x17, 0x17, ANY, R_ANY, ANY, M32, "POP SS"},
	{L_LEGACY, 0, 0x1f, 0x1f, ANY, R_ANY, ANY, M32, "POP DS"},
	{L_LEGACY, 0, 0xc4, 0xc5, ANY, R_MEM, ANY, M32, "LES, LDS"},
	{L_LEGACY, 1, 0xa1, 0xa1, ANY, R_ANY, ANY, BOTH, "POP FS"},
	{L_LEGACY, 1, 0xa9, 0xa9, ANY, R_ANY, ANY, BOTH, "POP GS"},
	{L_LEGACY, 1, 0xb2, 0xb2, ANY, R_ANY, ANY, BOTH, "LSS"},
	{L_LEGACY, 1, 0xb4, 0xb5, ANY, R_ANY, ANY, BOTH, "LFS, LGS"},
	{L_LEGACY, 0, 0x9a, 0x9a, ANY, R_ANY, ANY, M32, "CALL far"},
	{L_LEGACY, 0, 0xea, 0xea, ANY, R_ANY, ANY, M32, "JMP far"},
	{L_LEGACY, 0, 0xca, 0xcb, ANY, R_ANY, ANY, BOTH, "RET far"},
	{L_LEGACY, 0, 0xcf, 0xcf, ANY, R_ANY, ANY, BOTH, "IRET"},
	{L_LEGACY, 0, 0xff, 0xff, 3, R_MEM, ANY, BOTH, "CALL far"},
	{L_LEGACY, 0, 0xff, 0xff, 5, R_MEM, ANY, BOTH, "JMP far"},
	{L_LEGACY, 1, 0xae, 0xae, 0, R_REG, 2, M64, "RDFSBASE"},
	{L_LEGACY, 1, 0xae, 0xae, 1, R_REG, 2, M64, "RDGSBASE"},
	{L_LEGACY, 1, 0xae, 0xae, 2, R_REG, 2, M64, "WRFSBASE"},
	{L_LEGACY, 1, 0xae, 0xae, 3, R_REG, 2, M64, "WRGSBASE"},
	/* not the same twice */
	{L_LEGACY, 1, 0x31, 0x31, ANY, R_ANY, ANY, BOTH, "RDTSC"},
	{L_LEGACY, 1, 0x33, 0x33, ANY, R_ANY, ANY, BOTH, "RDPMC"},
	{L_LEGACY, 1, 0xa2, 0xa2, ANY, R_ANY, ANY, BOTH, "CPUID"},
	{L_LEGACY, 1, 0xc7, 0xc7, 6, R_REG, ANY, BOTH, "RDRAND"},
	{L_LEGACY, 1, 0xc7, 0xc7, 7, R_REG, ANY, BOTH, "RDSEED, RDPID"},
	/* features of the host that lib/x86 does not have */
	{L_LEGACY, 0, 0x62, 0x62, ANY, R_ANY, ANY, M64, "AVX-512"},
	{L_LEGACY, 0, 0x62, 0x62, ANY, R_REG, ANY, M32, "AVX-512"},
	{L_VEX, 1, 0x41, 0x4b, ANY, R_ANY, ANY, BOTH, "AVX-512 masks"},
	{L_VEX, 1, 0x90, 0x93, ANY, R_ANY, ANY, BOTH, "AVX-512 masks"},
	{L_VEX, 1, 0x98, 0x99, ANY, R_ANY, ANY, BOTH, "AVX-512 masks"},
	{L_VEX, 3, 0x30, 0x33, ANY, R_ANY, ANY, BOTH, "AVX-512 masks"},
	{L_VEX, 2, 0x50, 0x53, ANY, R_ANY, ANY, BOTH, "AVX-VNNI"},
	{L_VEX_L1, 2, 0xdc, 0xdf, ANY, R_ANY, ANY, BOTH, "VAES"},
	{L_VEX_L1, 3, 0x44, 0x44, ANY, R_ANY, ANY, BOTH, "VPCLMULQDQ"},
	{L_ANY, 2, 0xcf, 0xcf, ANY, R_ANY, ANY, BOTH, "GFNI"},
	{L_ANY, 3, 0xce, 0xcf, ANY, R_ANY, ANY, BOTH, "GFNI"},
	{L_LEGACY, 1, 0x78, 0x79, ANY, R_ANY, ANY, BOTH, "SSE4A, VMREAD"},
	{L_LEGACY, 1, 0x2b, 0x2b, ANY, R_ANY, 2, BOTH, "SSE4A"},
	{L_LEGACY, 1, 0x2b, 0x2b, ANY, R_ANY, 3, BOTH, "SSE4A"},
	{L_LEGACY, 1, 0xc7, 0xc7, 3, R_MEM, ANY, BOTH, "XRSTORS"},
	{L_LEGACY, 1, 0xc7, 0xc7, 5, R_MEM, ANY, BOTH, "XSAVES"},
	{L_LEGACY, 0, 0xf1, 0xf1, ANY, R_ANY, ANY, BOTH, "INT1: hypervisors inject it with another RIP"},
	{L_LEGACY, 0, 0xe0, 0xe1, ANY, R_ANY, 2, BOTH, "REP with LOOPcc is reserved"},
	{L_LEGACY, 0, 0xe0, 0xe1, ANY, R_ANY, 3, BOTH, "REP with LOOPcc is reserved"},
	/* AMD and Intel differ */
	{L_LEGACY, 1, 0x20, 0x22, ANY, R_ANY, HAS_LOCK, BOTH, "LOCK MOV CR0 is CR8 on AMD"},
	{L_LEGACY, 0, 0xe8, 0xe9, ANY, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 1, 0x80, 0x8f, ANY, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 0, 0x70, 0x7f, ANY, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 0, 0xe0, 0xe3, ANY, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 0, 0xeb, 0xeb, ANY, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 0, 0xc2, 0xc3, ANY, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 0, 0xff, 0xff, 2, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
	{L_LEGACY, 0, 0xff, 0xff, 4, R_ANY, HAS_66, M64, "16-bit near branches in 64-bit mode"},
};
/* clang-format on */

void fz_list_excluded(void)
{
	static const char *const maps[] = {"", "0F ", "0F38 ", "0F3A "};

	for (unsigned n = 0; n < ARRAY_LEN(exclusions); n++) {
		const struct exclusion *e = &exclusions[n];

		printf("%s%s%02X", e->enc >= L_VEX ? "VEX " : "", maps[e->map], e->lo);
		if (e->hi != e->lo)
			printf("-%02X", e->hi);
		if (e->digit != ANY)
			printf(" /%u", e->digit);
		printf(": %s\n", e->why);
	}
}

/* An instruction's parts, as far as they can be told from the bytes. */
struct parts {
	unsigned enc, map, op, pp, l, modrm;
	bool has_66, has_lock;
};

static void parts_of(const struct fz_case *k, struct parts *p)
{
	const uint8_t *b = k->code;

	memset(p, 0, sizeof(*p));
	for (;; b++) {
		bool rex = !k->m32 && (*b & 0xf0) == 0x40;

		p->has_66 |= *b == 0x66;
		p->has_lock |= *b == 0xf0;
		if (*b == 0xf3)
			p->pp = 2;
		else if (*b == 0xf2)
			p->pp = 3;
		else if (*b == 0x66 && !p->pp)
			p->pp = 1;
		else if (!rex && *b != 0x66 && *b != 0x67 && *b != 0x2e && *b != 0x36 &&
			 *b != 0x26 && *b != 0x3e && *b != 0xf0)
			break;
	}
	if ((*b == 0xc4 || *b == 0xc5) && (!k->m32 || b[1] >= 0xc0)) {
		p->enc = FZ_VEX;
		p->map = *b == 0xc4 ? b[1] & 31 : 1;
		b += *b == 0xc4 ? 2 : 1;
		p->pp = *b & 3;
		p->l = *b >> 2 & 1;
		b++;
	} else if (*b == 0x0f) {
		b++;
		p->map = *b == 0x38 ? 2 : *b == 0x3a ? 3 : 1;
		b += p->map > 1;
	}
	p->op = b[0];
	p->modrm = b[1];
}

static bool excludes(const struct exclusion *e, const struct fz_case *k,
		     const struct parts *p)
{
	if ((e->enc == L_LEGACY && p->enc != FZ_LEGACY) ||
	    (e->enc >= L_VEX && p->enc != FZ_VEX) || (e->enc == L_VEX_L1 && !p->l))
		return false;
	if (e->map != p->map || p->op < e->lo || p->op > e->hi)
		return false;
	if (e->digit != ANY && e->digit != (p->modrm >> 3 & 7))
		return false;
	if (e->rm != R_ANY && (e->rm == R_REG) != (p->modrm >= 0xc0))
		return false;
	if (e->pp == HAS_66 || e->pp == HAS_LOCK) {
		if (!(e->pp == HAS_66 ? p->has_66 : p->has_lock))
			return false;
	} else if (e->pp != ANY && e->pp != p->pp) {
		return false;
	}
	return e->mode == BOTH || (e->mode == M32) == k->m32;
}

const char *fz_excluded(const struct fz_case *k)
{
	struct parts p;

	parts_of(k, &p);
	for (unsigned n = 0; n < ARRAY_LEN(exclusions); n++)
		if (excludes(&exclusions[n], k, &p))
			return exclusions[n].why;
	return NULL;
}

/* ---- forms ------------------------------------------------------------------------------------- */

/* Bytes that are no opcode in the one-byte map: prefixes. */
static bool is_prefix(bool m32, unsigned map, unsigned op)
{
	if (map == 1)
		return op == 0x38 || op == 0x3a;
	if (map)
		return false;
	if (!m32 && (op & 0xf0) == 0x40)
		return true;
	return op == 0x0f || op == 0x26 || op == 0x2e || op == 0x36 || op == 0x3e ||
	       (op >= 0x64 && op <= 0x67) || op == 0xf0 || op == 0xf2 || op == 0xf3 ||
	       (!m32 && (op == 0xc4 || op == 0xc5));
}

static void forms_of_mode(struct fz_form *f, unsigned *n, bool m32)
{
	for (unsigned map = 0; map < 4; map++)
		for (unsigned op = 0; op < 256; op++)
			for (unsigned x = 0; x < 8; x++)
				if (!is_prefix(m32, map, op) && !(m32 && x & 4))
					f[(*n)++] =
						(struct fz_form){.m32 = m32,
								 .map = (uint8_t)map,
								 .op = (uint8_t)op,
								 .pp = x & 3,
								 .w = x >> 2 & 1};
	for (unsigned map = 1; map < 4; map++)
		for (unsigned op = 0; op < 256; op++)
			for (unsigned x = 0; x < 16; x++)
				f[(*n)++] = (struct fz_form){.m32 = m32,
							     .enc = FZ_VEX,
							     .map = (uint8_t)map,
							     .op = (uint8_t)op,
							     .pp = x & 3,
							     .w = x >> 2 & 1,
							     .l = x >> 3 & 1};
}

struct fz_form *fz_forms(unsigned *n)
{
	static struct fz_form forms[2 * (4 * 256 * 8 + 3 * 256 * 16)];

	*n = 0;
	forms_of_mode(forms, n, false);
	forms_of_mode(forms, n, true);
	return forms;
}

void fz_form_name(const struct fz_form *f, char *buf, size_t size)
{
	static const char *const maps[] = {"", "0f", "0f38", "0f3a"};
	static const char *const pps[] = {"", "66.", "f3.", "f2."};

	snprintf(buf, size, "%s.%s%s%s%s%s%s%02x", f->m32 ? "32" : "64",
		 f->enc == FZ_VEX ? "vex." : "", pps[f->pp], f->w ? "w1." : "",
		 f->enc == FZ_VEX && f->l ? "l1." : "", maps[f->map], f->map ? "." : "",
		 f->op);
}

/* ---- cases --------------------------------------------------------------------------------------- */

struct out {
	struct fz_case *k;
	unsigned rex; /* WRXB */
};

static void byte(struct out *o, unsigned b)
{
	o->k->code[o->k->len++] = (uint8_t)b;
}

static void put_legacy(struct out *o, const struct fz_form *f)
{
	static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e};

	if (fz_one_in(24))
		byte(o, segs[fz_below(4)]);
	if (fz_one_in(10))
		byte(o, 0x67);
	if (fz_one_in(20))
		byte(o, 0xf0);
	if (f->pp >= 2 && fz_one_in(6))
		byte(o, 0x66);
	if (f->pp)
		byte(o, f->pp == 1 ? 0x66 : f->pp == 2 ? 0xf3 : 0xf2);
	o->rex = f->w ? 8 : 0;
	if (!f->m32) {
		if (fz_one_in(2))
			o->rex |= fz_below(8);
		if (o->rex || fz_one_in(4))
			byte(o, 0x40 | o->rex);
	}
	if (f->map)
		byte(o, 0x0f);
	if (f->map > 1)
		byte(o, f->map == 2 ? 0x38 : 0x3a);
	byte(o, f->op);
}

static void put_vex(struct out *o, const struct fz_form *f)
{
	unsigned vvvv = fz_one_in(2) ? 15 : fz_below(16);

	if (fz_one_in(12))
		byte(o, 0x67);
	if (fz_one_in(64))
		byte(o, fz_one_in(2) ? 0x66 : 0xf0);
	o->rex = fz_one_in(2) ? fz_below(8) : 0;
	if (f->m32) {
		o->rex = 0;
		vvvv |= 8;
	}
	if (f->w)
		o->rex |= 8;
	if (f->map == 1 && !(o->rex & 11) && fz_one_in(2)) {
		byte(o, 0xc5);
		byte(o, (~o->rex & 4) << 5 | vvvv << 3 | (unsigned)f->l << 2 | f->pp);
	} else {
		if (f->m32 && fz_one_in(4)) /* ignored there */
			vvvv &= 7;
		byte(o, 0xc4);
		byte(o, (~o->rex & 7) << 5 | f->map);
		byte(o, (unsigned)f->w << 7 | vvvv << 3 | (unsigned)f->l << 2 | f->pp);
	}
	byte(o, f->op);
}

uint64_t fz_pick_target(void)
{
	uint64_t t;

	switch (fz_below(16)) {
	case 0: /* over the end: a part is not mapped */
		t = FZ_DATA + 2 * FZ_PAGE - fz_below(72);
		break;
	case 1: t = FZ_DATA + FZ_PAGE - fz_below(72); break;
	case 2: t = FZ_RO + fz_below(4000); break;
	case 3: t = FZ_DATA - fz_below(72); break;
	case 4: t = FZ_DATA + 64 * fz_below(100) - fz_below(34); break;
	case 5: t = FZ_DATA + fz_below(8000); break;
	case 6: t = FZ_STACK + fz_below(8000); break;
	case 7: t = FZ_CODE + fz_below(8000); break;
	default: t = FZ_DATA + 64 * fz_below(120); break;
	}
	if (fz_one_in(3))
		t &= ~7ull;
	return t;
}

static void gpr_fill(struct fz_case *k)
{
	for (unsigned n = 0; n < 16; n++) {
		uint64_t v = fz_one_in(4) ? fz_pick_target() : fz_int();

		k->in.gpr[n] = k->m32 ? (uint32_t)v : v;
	}
	if (fz_one_in(2)) /* string instructions */
		k->in.gpr[X86_RCX] = fz_below(9);
	if (fz_one_in(2)) {
		k->in.gpr[X86_RSI] = fz_pick_target();
		k->in.gpr[X86_RDI] = fz_pick_target();
	}
	k->in.gpr[X86_RSP] = FZ_STACK + FZ_PAGE + 8 * fz_below(64);
	if (fz_one_in(12))
		k->in.gpr[X86_RSP] = FZ_STACK + fz_below(2 * FZ_PAGE);
	if (fz_one_in(3))
		k->in.gpr[X86_RBP] = k->in.gpr[X86_RSP] + 16;
}

/* Sets registers so that the memory operand `modrm`, at code[at], is at k->target. */
static void aim(struct out *o, unsigned at)
{
	struct fz_case *k = o->k;
	const uint8_t *b = k->code + at;
	unsigned mod = b[0] >> 6, rm = b[0] & 7, base = rm, index = 4, scale = 0;
	int32_t disp = 0;
	uint64_t a;

	b++;
	if (rm == 4) {
		base = *b & 7;
		index = (*b >> 3 & 7) | (o->rex & 2 ? 8 : 0);
		scale = *b >> 6;
		b++;
	}
	if (mod == 1)
		disp = (int8_t)*b;
	else if (mod == 2 || (mod == 0 && base == 5))
		memcpy(&disp, b, 4);
	if (mod == 0 && base == 5) { /* no base: the displacement is aimed */
		struct insn i;
		uint32_t d = (uint32_t)k->target;

		if (rm == 5 && !k->m32) {
			unsigned len = x86_decode(k->code, 15, MODE_64, &i);

			d -= (uint32_t)k->in.rip + len;
		} else if (index != 4) {
			d -= (uint32_t)(k->in.gpr[index] << scale);
		}
		memcpy(k->code + (b - k->code), &d, 4);
		return;
	}
	base |= o->rex & 1 ? 8 : 0;
	a = k->target - (uint64_t)(int64_t)disp;
	if (index != 4 && index != base) {
		k->in.gpr[index] =
			fz_one_in(2) ? fz_below(64) : 0 - (uint64_t)fz_below(64);
		a -= k->in.gpr[index] << scale;
	} else if (index == base) {
		return;
	}
	k->in.gpr[base] = a;
	if (k->m32)
		k->in.gpr[base] = (uint32_t)a;
	if (k->m32 && index != 4)
		k->in.gpr[index] = (uint32_t)k->in.gpr[index];
}

/*
 * The XSAVE family gets aligned areas, whose header is often acceptable, and only the components that
 * both processors have.
 */
static void xsave_case(struct fz_case *k)
{
	k->target = (FZ_DATA + 64 * fz_below(128)) & ~63ull;
	if (fz_one_in(4))
		k->target &= ~0xfffull;
	k->in.gpr[X86_RAX] = fz_below(8);
	k->in.gpr[X86_RDX] = 0;
	k->xsave = true;
}

/* modrm and what follows; random bytes serve as SIB, displacement and immediate. */
static void put_rest(struct out *o)
{
	struct fz_case *k = o->k;
	unsigned at = k->len, modrm = fz_below(256);

	if (fz_one_in(2))
		modrm |= 0xc0;
	byte(o, modrm);
	for (unsigned n = 0; n < 12; n++)
		byte(o, fz_one_in(3) ? fz_below(16) : fz_below(256));
	k->target = fz_pick_target();
	if (k->form->map == 1 && (k->form->op == 0xae || k->form->op == 0xc7) &&
	    k->form->enc == FZ_LEGACY)
		xsave_case(k);
	if (modrm < 0xc0 && !fz_one_in(16))
		aim(o, at);
	else
		k->target = 0;
}

static void place_code(struct fz_case *k)
{
	switch (fz_below(24)) {
	case 0: k->in.rip = FZ_CODE + FZ_PAGE - fz_below(15); break;
	case 1: k->in.rip = FZ_CODE + 2 * FZ_PAGE - 1 - fz_below(15); break;
	default: k->in.rip = FZ_CODE + 0x700 + fz_below(256); break;
	}
}

bool fz_make_case(struct fz_form *f, struct fz_case *k)
{
	struct out o = {.k = k};
	uint32_t mxcsr = fz_mxcsr();
	struct insn i;
	unsigned len;

	k->form = f;
	k->m32 = f->m32;
	k->len = 0;
	k->xsave = false;
	k->target = 0;
	place_code(k);
	gpr_fill(k);
	k->in.rflags = 0x202 | (fz_rand() & 0xcd5);
	if (fz_one_in(2))
		k->in.rflags &= ~(uint64_t)0x400;
	if (fz_one_in(12))
		k->in.rflags |= 0x40000; /* AC: alignment is checked */
	memset(k->in.xsave, 0, sizeof(k->in.xsave));
	fz_x87_state(k->in.xsave);
	memcpy(k->in.xsave + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 16; n++) {
		fz_vector(k->in.xsave + 160 + 16 * n, 16);
		if (!fz_one_in(8))
			fz_vector(k->in.xsave + 576 + 16 * n, 16);
	}
	if (f->enc == FZ_VEX)
		put_vex(&o, f);
	else
		put_legacy(&o, f);
	put_rest(&o);
	len = x86_decode(k->code, 15, k->m32 ? MODE_32 : MODE_64, &i);
	if (len && len <= 15)
		k->len = len;
	/* components that only the host has */
	if (k->xsave && k->in.gpr[X86_RAX] & ~0x1full & 0xfff)
		return false;
	return !fz_excluded(k);
}

/* ---- instructions of blocks ------------------------------------------------------------------------- */

/*
 * Which registers are pointers: those whose number ends in 3, 5, 6 and 7. Results go to others, and the
 * numbers of vector registers do not matter.
 */
static void put_operands(struct out *o)
{
	static const uint8_t pointers[] = {3, 5, 6, 7}, values[] = {0, 2, 0, 2, 1};
	unsigned reg = fz_one_in(5) ? fz_below(8) : values[fz_below(5)];
	unsigned rm = fz_one_in(8) ? fz_below(8) : values[fz_below(5)];
	unsigned mod = fz_one_in(2) ? 3 : fz_one_in(2) ? 1 : fz_below(3);

	if (mod == 3) {
		byte(o, 0xc0 | reg << 3 | rm);
		return;
	}
	rm = fz_one_in(4) ? 4 : pointers[fz_below(4)];
	if (fz_one_in(32))
		rm = fz_below(8);
	byte(o, mod << 6 | reg << 3 | rm);
	if (rm == 4) {
		unsigned index = fz_one_in(2) ? 4 : fz_one_in(4) ? 0 : 1;

		byte(o, fz_below(4) << 6 | index << 3 | pointers[fz_below(4)]);
	}
	if (mod == 1) {
		byte(o, fz_one_in(2) ? 16 * fz_below(8) : fz_below(256));
	} else if (mod == 2) {
		uint32_t d = fz_one_in(4) ? FZ_PAGE - fz_below(80) : 8 * fz_below(64);

		if (fz_one_in(2))
			d = 0 - d;
		for (unsigned n = 0; n < 4; n++)
			byte(o, d >> 8 * n & 255);
	}
}

bool fz_kernel;

unsigned fz_make_insn(struct fz_form *f, uint8_t *buf)
{
	static struct fz_case k;
	struct out o = {.k = &k};
	struct insn i;
	unsigned len;

	k.form = f;
	k.m32 = f->m32;
	k.len = 0;
	if (f->enc == FZ_VEX)
		put_vex(&o, f);
	else
		put_legacy(&o, f);
	put_operands(&o);
	for (unsigned n = 0; n < 8; n++)
		byte(&o, fz_one_in(3) ? fz_below(64) : fz_below(256));
	len = x86_decode(k.code, 15, k.m32 ? MODE_32 : MODE_64, &i);
	if (!len || (!fz_kernel && fz_excluded(&k)))
		return 0;
	if ((i.fn == op_ud || i.fn == op_gp) && !fz_one_in(1000))
		return 0;
	if (i.flags & I_REL && !fz_one_in(50)) /* to anywhere */
		return 0;
	memcpy(buf, k.code, len);
	return len;
}

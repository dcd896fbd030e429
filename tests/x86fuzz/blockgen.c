/*
 * x86fuzz/blockgen.c - makes blocks: instructions of all forms, mixed with what blocks are made of:
 * stack, branches, calls, loops, flags and who asks for them, stores into the code itself.
 *
 * Registers whose numbers end in 3, 5, 6 and 7 hold pointers (rbx rbp rsi rdi r11 r13-r15), the
 * others values; rcx is small.
 */
#include "fuzz.h"

#include <string.h>

struct gen {
	struct fz_block *b;
	struct fz_form *forms;
	unsigned n_forms;
	unsigned open
		[8]; /* places of displacements of a byte that a later instruction is the target of */
	unsigned n_open;
};

static void put(struct gen *g, unsigned v)
{
	struct fz_case *k = &g->b->k;

	if (k->len < FZ_CODE_MAX)
		k->code[k->len++] = (uint8_t)v;
}

static void put_bytes(struct gen *g, const char *p, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		put(g, (uint8_t)p[k]);
}
#define PUT(g, s) put_bytes(g, s, sizeof(s) - 1)

static void put32(struct gen *g, uint32_t v)
{
	for (unsigned n = 0; n < 4; n++)
		put(g, v >> 8 * n & 255);
}

static bool m32(const struct gen *g)
{
	return g->b->k.m32;
}

/* Sometimes REX.W in 64-bit code. */
static void put_w(struct gen *g)
{
	if (!m32(g) && fz_one_in(2))
		put(g, 0x48);
}

static unsigned value_reg(void)
{
	static const uint8_t regs[] = {0, 2, 0, 2, 1};

	return regs[fz_below(5)];
}

/* ---- instructions by form ----------------------------------------------------------------------- */

static void any_form(struct gen *g)
{
	for (unsigned tries = 0; tries < 64; tries++) {
		struct fz_form *f = &g->forms[fz_below(g->n_forms)];
		unsigned len;

		if (f->m32 != m32(g))
			continue;
		len = fz_make_insn(f, g->b->k.code + g->b->k.len);
		g->b->k.len += len;
		if (len)
			return;
	}
}

/* Of the integer operations, which compilers use most. */
static void integer(struct gen *g)
{
	static const uint8_t ops[] = {
		0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x11,
		0x12, 0x13, 0x18, 0x19, 0x1a, 0x1b, 0x20, 0x21, 0x22, 0x23, 0x28, 0x29,
		0x2a, 0x2b, 0x30, 0x31, 0x32, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d,
		0x63, 0x69, 0x6b, 0x80, 0x81, 0x83, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87,
		0x88, 0x89, 0x8a, 0x8b, 0x89, 0x8b, 0x8d, 0x98, 0x99, 0xa8, 0xa9, 0xb0,
		0xb8, 0xba, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0, 0xd1, 0xd2, 0xd3, 0xf5, 0xf6,
		0xf7, 0xf8, 0xf9, 0xfe, 0xff, 0x9e, 0x9f, 0xa4, 0xa5, 0xaa, 0xab, 0xac};
	static const uint8_t ops_0f[] = {
		0x40, 0x42, 0x44, 0x46, 0x48, 0x4a, 0x4c, 0x4e, 0x41, 0x45, 0x4f,
		0x90, 0x91, 0x92, 0x94, 0x96, 0x98, 0x9a, 0x9c, 0x9e, 0xa3, 0xa4,
		0xa5, 0xab, 0xac, 0xad, 0xaf, 0xb0, 0xb1, 0xb3, 0xb6, 0xb7, 0xb8,
		0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf, 0xc0, 0xc1, 0xc8, 0xca};
	struct fz_form f = {.m32 = m32(g), .w = !m32(g) && fz_one_in(2)};

	for (unsigned tries = 0; tries < 8; tries++) {
		unsigned len;

		f.map = fz_one_in(4);
		f.op = f.map ? ops_0f[fz_below(sizeof(ops_0f))]
			     : ops[fz_below(sizeof(ops))];
		f.pp = fz_one_in(8) ? 1 : f.map && f.op == 0xb8 ? 2 : 0;
		len = fz_make_insn(&f, g->b->k.code + g->b->k.len);
		g->b->k.len += len;
		if (len)
			return;
	}
}

/* ---- the stack -------------------------------------------------------------------------------------- */

static void stack(struct gen *g)
{
	switch (fz_below(12)) {
	case 0:
	case 1: put(g, 0x50 | fz_below(8)); break;
	case 2: put(g, 0x58 | value_reg()); break;
	case 3: PUT(g, "\x68"), put32(g, (uint32_t)fz_rand()); break;
	case 4: PUT(g, "\xff\x76"), put(g, 8 * fz_below(16)); break; /* push 8(%rsi) */
	case 5: PUT(g, "\x8f\x47"), put(g, 8 * fz_below(16)); break; /* pop 8(%rdi) */
	case 6: /* add, sub sp, imm8 */
		if (!m32(g))
			put(g, 0x48);
		put(g, 0x83), put(g, fz_one_in(2) ? 0xc4 : 0xec),
			put(g, 4 * fz_below(9));
		break;
	case 7: PUT(g, "\x9c"), put(g, 0x58 | value_reg()); break; /* pushf; pop */
	case 8: /* push flags; popf */
		PUT(g, "\x68"),
			put32(g, (uint32_t)fz_rand() & (fz_one_in(8) ? 0xcd5 : 0x8d5));
		put(g, 0x9d);
		break;
	case 9: /* mov 8(%rsp), reg or back */
		put_w(g), put(g, fz_one_in(2) ? 0x89 : 0x8b);
		put(g, 0x44 | value_reg() << 3), put(g, 0x24), put(g, 8 * fz_below(8));
		break;
	case 10: /* enter-like: push rbp; mov rsp, rbp; ... leave */
		PUT(g, "\x55");
		if (!m32(g))
			put(g, 0x48);
		PUT(g, "\x89\xe5");
		if (fz_one_in(2))
			put(g, 0xc9);
		break;
	default: /* lea -x(%rsp), %rsp */
		if (!m32(g))
			put(g, 0x48);
		PUT(g, "\x8d\x64\x24"), put(g, (8 * (fz_below(9) - 4u)) & 255);
		break;
	}
}

/* ---- flags --------------------------------------------------------------------------------------------- */

static void flags_used(struct gen *g)
{
	unsigned cc = fz_below(16);

	switch (fz_below(8)) {
	case 0: PUT(g, "\x0f"), put(g, 0x90 | cc), put(g, 0xc0 | value_reg()); break;
	case 1: /* setcc 4(%rbx) */
		PUT(g, "\x0f"), put(g, 0x90 | cc), put(g, 0x43), put(g, fz_below(128));
		break;
	case 2: put_w(g), PUT(g, "\x0f"), put(g, 0x40 | cc), put(g, 0xc2); break;
	case 3: put_w(g), PUT(g, "\x11\xc2"); break; /* adc */
	case 4: put_w(g), PUT(g, "\x19\xd0"); break; /* sbb */
	case 5: PUT(g, "\x9f"); break;               /* lahf */
	case 6: PUT(g, "\x9c"), put(g, 0x58 | value_reg()); break;
	default: put_w(g), PUT(g, "\xd1\xd0"); break; /* rcl */
	}
}

/* ---- branches -------------------------------------------------------------------------------------------- */

/* A displacement that fits to a later instruction. */
static void put_open(struct gen *g)
{
	if (g->n_open < 8)
		g->open[g->n_open++] = g->b->k.len;
	put(g, 0);
}

/* Some open displacements lead here. */
static void close(struct gen *g, bool all)
{
	struct fz_case *k = &g->b->k;

	for (unsigned n = 0; n < g->n_open;) {
		unsigned d = k->len - (g->open[n] + 1);

		if (d > 127) {
			g->open[n] = g->open[--g->n_open];
			continue;
		}
		if (all || d > 90 || fz_one_in(3)) {
			k->code[g->open[n]] = (uint8_t)d;
			g->open[n] = g->open[--g->n_open];
			continue;
		}
		n++;
	}
}

/* Offset of an instruction that is there already. */
static unsigned earlier(struct gen *g)
{
	return g->b->n ? g->b->at[fz_below(g->b->n)] : 0;
}

static void branch(struct gen *g)
{
	struct fz_case *k = &g->b->k;
	unsigned at = k->len;

	switch (fz_below(12)) {
	case 0: /* jmp, over what is perhaps jumped into */
		put(g, 0xeb), put_open(g);
		break;
	case 1: /* loop back: rcx is small */
		at = earlier(g);
		if (k->len - at < 100)
			PUT(g, "\xe2"), put(g, (0u - (k->len + 1 - at)) & 255);
		break;
	case 2: /* into the middle of something */
		put(g, 0x70 | fz_below(16)), put(g, fz_below(24));
		break;
	case 3: /* call f; jmp over; f: ...; ret */
		PUT(g, "\xe8\x02\x00\x00\x00\xeb"), put_open(g);
		for (unsigned n = fz_below(3); n-- > 0;)
			integer(g);
		if (fz_one_in(4))
			PUT(g, "\xc2\x00\x00");
		else
			put(g, 0xc3);
		break;
	case 4: /* call f; f: pop */
		PUT(g, "\xe8\x00\x00\x00\x00"), put(g, 0x58 | value_reg());
		break;
	case 5: /* jump by register: call 1f; 1: add n, (%rsp); ret */
		PUT(g, "\xe8\x00\x00\x00\x00");
		if (!m32(g))
			put(g, 0x48);
		PUT(g, "\x83\x04\x24"), put(g, m32(g) ? 5 : 6), put(g, 0xc3);
		break;
	case 6: /* lea 2(%rip), %rax; jmp *%rax */
		if (m32(g))
			put(g, 0xb8), put32(g, (uint32_t)k->in.rip + at + 7);
		else
			PUT(g, "\x48\x8d\x05\x02\x00\x00\x00");
		PUT(g, "\xff\xe0");
		break;
	default: put(g, 0x70 | fz_below(16)), put_open(g); break;
	}
}

/* ---- code that changes ------------------------------------------------------------------------------------- */

/* A byte of the block is overwritten: of an instruction before or behind this one, or of this one. */
static void self_modify(struct gen *g)
{
	struct fz_case *k = &g->b->k;
	unsigned len = m32(g) ? 7 : 7;
	int64_t to = fz_one_in(2) ? (int64_t)fz_below(40) : -(int64_t)fz_below(40);
	uint64_t next = k->in.rip + k->len + len;
	static const uint8_t bytes[] = {0x90, 0xcc, 0x40, 0x50, 0x01, 0x29, 0xc0, 0xeb};
	uint8_t v = fz_one_in(2) ? bytes[fz_below(8)] : (uint8_t)fz_rand();

	if (fz_one_in(8)) /* into the other page */
		to = (int64_t)fz_below(2 * FZ_PAGE) - (int64_t)(next - FZ_CODE);
	PUT(g, "\xc6\x05"); /* movb v, to */
	put32(g, m32(g) ? (uint32_t)(next + (uint64_t)to) : (uint32_t)to);
	put(g, v);
	if (fz_one_in(2)) { /* what follows has something worth changing */
		put(g, 0xb8 | value_reg());
		put32(g, (uint32_t)fz_rand());
	}
}

/* ---- blocks -------------------------------------------------------------------------------------------------- */

static void registers(struct fz_case *k)
{
	uint64_t hot = fz_pick_target();
	uint32_t mxcsr = fz_mxcsr();

	for (unsigned n = 0; n < 16; n++) {
		unsigned low = n & 7;
		uint64_t v = fz_int();

		if (low == 3 || low >= 5) {
			v = fz_one_in(3) ? fz_pick_target() : hot;
			if (fz_one_in(2))
				v &= ~15ull;
			if (fz_one_in(16) && !fz_kernel) /* the block's own code */
				v = k->in.rip + fz_below(64);
		}
		if (low == 1)
			v = fz_below(9);
		k->in.gpr[n] = k->m32 ? (uint32_t)v : v;
	}
	k->in.gpr[4] = FZ_STACK + FZ_PAGE + 8 * fz_below(64) - (fz_one_in(4) ? 200 : 0);
	if (fz_one_in(16))
		k->in.gpr[4] = FZ_STACK + fz_below(128);
	if (fz_one_in(3))
		k->in.gpr[5] = k->in.gpr[4] + 16;
	k->in.rflags = 0x202 | (fz_rand() & 0x8d5) | (fz_one_in(24) ? 0x400 : 0) |
		       (fz_one_in(64) ? 0x40000 : 0);
	memset(k->in.xsave, 0, sizeof(k->in.xsave));
	fz_x87_state(k->in.xsave);
	if (!fz_one_in(
		    8)) { /* mostly without a pending exception, and all of them masked */
		k->in.xsave[0] |= 0x3f;
		k->in.xsave[2] &= 0x7f;
		k->in.xsave[3] &= 0x7f;
		mxcsr |= 0x1f80;
	}
	memcpy(k->in.xsave + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 16; n++) {
		fz_vector(k->in.xsave + 160 + 16 * n, 16);
		fz_vector(k->in.xsave + 576 + 16 * n, 16);
	}
}

void fz_make_block(struct fz_block *b, struct fz_form *forms, unsigned n_forms)
{
	struct gen g = {.b = b, .forms = forms, .n_forms = n_forms};
	unsigned n = 3 + fz_below(fz_one_in(2) ? 10 : 38), vectors = fz_below(4);
	struct fz_case *k = &b->k;

	k->form = NULL;
	k->m32 = fz_one_in(3);
	k->xsave = false;
	k->target = 0;
	k->len = 0;
	b->n = 0;
	k->in.rip = FZ_CODE + 0x200 + fz_below(1024);
	if (fz_one_in(6))
		k->in.rip = FZ_CODE + FZ_PAGE - fz_below(100);
	registers(k);
	while (b->n < n && k->len < FZ_CODE_MAX - 64) {
		unsigned what = fz_below(100);

		close(&g, false);
		b->at[b->n++] = (uint16_t)k->len;
		if (what < 10)
			stack(&g);
		else if (what < 22)
			flags_used(&g);
		else if (what < 34)
			branch(&g);
		else if (what < 36 && !fz_kernel)
			self_modify(&g);
		else if (what < 45 + 12 * vectors)
			any_form(&g);
		else
			integer(&g);
	}
	b->at[b->n] = (uint16_t)k->len;
	close(&g, true);
}

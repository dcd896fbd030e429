/*
 * x86/op_misc.c - decimal arithmetic, single flags, BOUND, fences and hints, RDRAND. SDM 2A/2B.
 * vCPU thread.
 */
#include <sys/random.h>

#include "x86/jit/lockstep.h"
#include "x86/op_tmpl.h"

/* ---- DAA DAS AAA AAS AAM AAD: the host does not have them in 64-bit mode -------------------------- */

/* a + b, or a - b, with the host's flags. */
#define ADD(bits)                                                            \
	static uint##bits##_t add##bits(struct x86_cpu *c, uint##bits##_t a, \
					uint##bits##_t b, bool sub)          \
	{                                                                    \
		uint32_t w;                                                  \
                                                                             \
		if (sub)                                                     \
			__asm__("sub %[b], %[a]" FLAGS_OUT                   \
				: [a] "+&d"(a), "=&a"(w)                     \
				: [b] "c"(b)                                 \
				: "cc");                                     \
		else                                                         \
			__asm__("add %[b], %[a]" FLAGS_OUT                   \
				: [a] "+&d"(a), "=&a"(w)                     \
				: [b] "c"(b)                                 \
				: "cc");                                     \
		c->st.w = (uint16_t)w;                                       \
		return a;                                                    \
	}
ADD(8)
ADD(16)
#undef ADD

static void set_cf_af(struct x86_cpu *c, bool cf, bool af)
{
	c->st.lo = (uint8_t)((c->st.lo & ~(FL_CF | FL_AF)) | (cf ? FL_CF : 0) |
			     (af ? FL_AF : 0));
}

/*
 * SDM's pseudocode. The flags that it leaves undefined are those of the addition, as AMD's processors
 * have it. `sub`: DAS.
 */
static void decimal_adjust(struct x86_cpu *c, bool sub)
{
	uint8_t old = get8(c, RAX), by = 0;
	bool old_cf = c->st.lo & FL_CF, cf = false, af = false;

	if ((old & 15) > 9 || c->st.lo & FL_AF) {
		cf = old_cf || (sub ? old < 6 : old > 0xff - 6);
		by = 6;
		af = true;
	}
	if (old > 0x99 || old_cf) {
		by += 0x60;
		cf = true;
	}
	put8(c, RAX, add8(c, old, by, sub));
	set_cf_af(c, cf, af);
}

void op_daa(struct x86_cpu *c, const struct insn *i)
{
	decimal_adjust(c, false);
	op_next(c, i);
}

void op_das(struct x86_cpu *c, const struct insn *i)
{
	decimal_adjust(c, true);
	op_next(c, i);
}

/* The undefined flags are those of the addition to AX, before AL's high half is cleared. */
static void ascii_adjust(struct x86_cpu *c, bool sub)
{
	uint16_t ax = get16(c, RAX);
	bool adjust = (ax & 15) > 9 || c->st.lo & FL_AF;

	ax = add16(c, ax, adjust ? 0x106 : 0, sub);
	set_cf_af(c, adjust, adjust);
	put16(c, RAX, ax & 0xff0f);
}

void op_aaa(struct x86_cpu *c, const struct insn *i)
{
	ascii_adjust(c, false);
	op_next(c, i);
}

void op_aas(struct x86_cpu *c, const struct insn *i)
{
	ascii_adjust(c, true);
	op_next(c, i);
}

void op_aam(struct x86_cpu *c, const struct insn *i)
{
	uint8_t al = get8(c, RAX), base = (uint8_t)i->imm;

	if (!base)
		x86_raise(c, EX_DE);
	put16(c, RAX, (uint16_t)(al / base << 8 | al % base));
	add8(c, al % base, 0, false);
	op_next(c, i);
}

void op_aad(struct x86_cpu *c, const struct insn *i)
{
	uint8_t by = (uint8_t)(get8(c, RAX + 1) * (uint8_t)i->imm);

	put16(c, RAX, add8(c, get8(c, RAX), by, false));
	op_next(c, i);
}

/* ---- flags ------------------------------------------------------------------------------------------ */

void op_clc(struct x86_cpu *c, const struct insn *i)
{
	c->st.lo &= (uint8_t)~FL_CF;
	op_next(c, i);
}

void op_stc(struct x86_cpu *c, const struct insn *i)
{
	c->st.lo |= FL_CF;
	op_next(c, i);
}

void op_cmc(struct x86_cpu *c, const struct insn *i)
{
	c->st.lo ^= FL_CF;
	op_next(c, i);
}

void op_cld(struct x86_cpu *c, const struct insn *i)
{
	c->rflags &= ~(uint64_t)FL_DF;
	op_next(c, i);
}

void op_std(struct x86_cpu *c, const struct insn *i)
{
	c->rflags |= FL_DF;
	op_next(c, i);
}

void op_lahf(struct x86_cpu *c, const struct insn *i)
{
	put8(c, RAX + 1, c->st.lo | 2);
	op_next(c, i);
}

void op_sahf(struct x86_cpu *c, const struct insn *i)
{
	c->st.lo = (get8(c, RAX + 1) & 0xd5) | 2;
	op_next(c, i);
}

void op_salc(struct x86_cpu *c, const struct insn *i)
{
	put8(c, RAX, c->st.lo & FL_CF ? 0xff : 0);
	op_next(c, i);
}

/* ---- BOUND -------------------------------------------------------------------------------------------- */

void op_bound(struct x86_cpu *c, const struct insn *i)
{
	unsigned n = i->osize;
	uint64_t va = ea_linear(c, i, 2 * n, ACC_READ);
	int64_t low, high, v;

	if (n == 2) {
		low = (int16_t)mem_load16(c, va);
		high = (int16_t)mem_load16(c, va + 2);
		v = (int16_t)get16(c, i->reg);
	} else {
		low = (int32_t)mem_load32(c, va);
		high = (int32_t)mem_load32(c, va + 4);
		v = (int32_t)get32(c, i->reg);
	}
	if (v < low || v > high)
		x86_raise(c, EX_BR);
	op_next(c, i);
}

/* ---- fences, caches, hints -------------------------------------------------------------------------------- */

void op_fence(struct x86_cpu *c, const struct insn *i)
{
	atomic_thread_fence(memory_order_seq_cst);
	op_next(c, i);
}

/* CLFLUSH, CLFLUSHOPT, CLWB: there is no cache to flush, but they fault as a load does. */
void op_clflush(struct x86_cpu *c, const struct insn *i)
{
	mem_load8(c, ea_linear(c, i, 1, ACC_READ));
	op_next(c, i);
}

/* Ends its block, so that a processor that spins sees requests soon. */
void op_pause(struct x86_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
	__builtin_ia32_pause();
}

/* ---- RDRAND, RDSEED ------------------------------------------------------------------------------------------ */

/* CF: a number was there; else 0 and the guest tries again. All other flags are cleared. */
static void random_number(struct x86_cpu *c, const struct insn *i)
{
	uint64_t v = 0;
	bool ok = true;

	lockstep_once(c);
	if (c->ops->random)
		v = c->ops->random(c->ctx);
	else
		ok = getrandom(&v, sizeof(v), GRND_NONBLOCK) == sizeof(v);
	reg_set(c, i->rm, i->osize, ok ? v : 0);
	status_set(c, ok ? FL_CF : 0);
}

void op_rdrand(struct x86_cpu *c, const struct insn *i)
{
	random_number(c, i);
}

void op_rdseed(struct x86_cpu *c, const struct insn *i)
{
	random_number(c, i);
}

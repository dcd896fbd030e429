/*
 * x86/vec_find.c - finds the row of a vector, MMX or x87 instruction, for the decoder.
 *
 * Any thread; depends on the host's features and the instruction's bytes only.
 */
#include <cpuid.h>

#include "x86/vec.h"

bool vec_host_is_amd(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_is("amd");
}

/* Bit of eax, ebx, ecx, edx (reg 0-3) of a leaf; false where the leaf is missing. */
static bool cpuid_bit(unsigned leaf, unsigned reg, unsigned bit)
{
	unsigned r[4] = {0};

	return __get_cpuid_count(leaf, 0, &r[0], &r[1], &r[2], &r[3]) &&
	       (r[reg] >> bit & 1);
}

bool vec_host_has(enum vec_feat f)
{
	__builtin_cpu_init();
	switch (f) {
	case NONE: return false;
	case MMX: return __builtin_cpu_supports("mmx");
	case SSE: return __builtin_cpu_supports("sse");
	case SSE2: return __builtin_cpu_supports("sse2");
	case SSE3: return __builtin_cpu_supports("sse3");
	case SSSE3: return __builtin_cpu_supports("ssse3");
	case SSE41: return __builtin_cpu_supports("sse4.1");
	case SSE42: return __builtin_cpu_supports("sse4.2");
	case AES: return __builtin_cpu_supports("aes");
	case PCLMUL: return __builtin_cpu_supports("pclmul");
	case SHA: return cpuid_bit(7, 1, 29);
	case AVX: return __builtin_cpu_supports("avx");
	case AVX2: return __builtin_cpu_supports("avx2");
	case FMA: return __builtin_cpu_supports("fma");
	case F16C: return __builtin_cpu_supports("avx") && cpuid_bit(1, 2, 29);
	}
	return false;
}

unsigned vec_mem_size(unsigned o, bool l1, bool w)
{
	unsigned x = l1 ? 32 : 16;

	switch (VEC_SIZE(o)) {
	case S_B: return 1;
	case S_W: return 2;
	case S_D: return 4;
	case S_Q: return 8;
	case S_DQ: return 16;
	case S_QQ: return 32;
	case S_X: return x;
	case S_H: return x / 2;
	case S_F: return x / 4;
	case S_E: return x / 8;
	case S_Y: return w ? 8 : 4;
	case S_DD: return l1 ? 32 : 8;
	}
	return 0;
}

/* Operand kinds that tell whether modrm.rm may be memory, a register. */
static bool kind_in(const struct vec_op *v, unsigned kinds)
{
	for (unsigned n = 0; n < 4; n++)
		if (kinds >> VEC_KIND(v->opr[n]) & 1)
			return true;
	return false;
}

static bool form_there(const struct vec_op *v, unsigned flags)
{
	enum vec_feat f;

	if (!(flags & I_VEX))
		return v->legacy && vec_host_has(v->legacy);
	if (v->flags & V_W0 && flags & I_W)
		return false;
	if (v->flags & V_W1 && !(flags & I_W) &&
	    !(v->quirk & Q_AMD_W && vec_host_is_amd()))
		return false;
	f = flags & I_L1 && !(v->flags & V_LIG) ? v->vex256 : v->vex128;
	return f && vec_host_has(AVX) && vec_host_has(f);
}

static bool row_matches(const struct vec_op *v, unsigned pp, unsigned flags,
			uint8_t modrm)
{
	bool mem = modrm < 0xc0;

	if (v->pp != pp)
		return false;
	if (v->digit && v->digit - 1 != (modrm >> 3 & 7))
		return false;
	if (v->flags & V_NOMOD)
		return form_there(v, flags);
	if (v->flags & (mem ? V_REG : V_MEM))
		return false;
	return form_there(v, flags);
}

const struct vec_op *vec_find(unsigned map, uint8_t op, unsigned pp, unsigned flags,
			      uint8_t modrm, bool *has_imm8)
{
	const struct vec_op *rows = map == 1   ? vec_map1
				    : map == 2 ? vec_map2
					       : vec_map3;
	unsigned n = map == 1 ? vec_map1_n : map == 2 ? vec_map2_n : vec_map3_n;
	unsigned lo = 0, hi = n;

	*has_imm8 = false;
	if (flags & I_EVEX || map > 3 || pp > 3)
		return NULL;
	if (map == 0)
		return flags & I_VEX ? NULL : x87_find(op, modrm);
	while (lo < hi) { /* the first row of `op` */
		unsigned mid = (lo + hi) / 2;

		if (rows[mid].op < op)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < n && rows[lo].op == op; lo++) {
		if (row_matches(&rows[lo], pp, flags, modrm)) {
			*has_imm8 = kind_in(&rows[lo], BIT(K_I) | BIT(K_L));
			return &rows[lo];
		}
	}
	return NULL;
}

void vec_bind(const struct vec_op *v, unsigned map, unsigned pp, struct insn *i)
{
	(void)pp;
	if (i->flags & I_LOCK) {
		i->fn = op_ud;
		return;
	}
	if (map == 0) {
		x87_bind(v, i);
		return;
	}
	if (i->flags & I_VEX && i->vvvv && !kind_in(v, BIT(K_H))) {
		i->fn = op_ud;
		return;
	}
	i->data = v;
	i->sel = (uint16_t)map;
	i->fn = v->special ? v->special : vec_first;
}

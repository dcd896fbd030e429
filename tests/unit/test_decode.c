/*
 * tests/unit/test_decode.c - x86_decode() against an independent decoder (Zydis): the same lengths
 * for the same bytes, the same opinion on what is undefined, except where the lists here say why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "x86/ops.h"

#define ROUNDS 400000

static const struct {
	ZydisMachineMode machine;
	ZydisStackWidth stack;
	unsigned mode;
	const char *name;
} modes[] = {
	{ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, MODE_64, "64-bit"},
	{ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32, MODE_32, "32-bit"},
	{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16, MODE_16, "16-bit"},
};

/* Extensions that this processor does not have: undefined here, known there. */
static const ZydisISAExt absent[] = {
	ZYDIS_ISA_EXT_AMD3DNOW,
	ZYDIS_ISA_EXT_AMD_INVLPGB,
	ZYDIS_ISA_EXT_AMX_BF16,
	ZYDIS_ISA_EXT_AMX_INT8,
	ZYDIS_ISA_EXT_AMX_TILE,
	ZYDIS_ISA_EXT_AVX512EVEX,
	ZYDIS_ISA_EXT_AVX512VEX,
	ZYDIS_ISA_EXT_AVX_VNNI,
	ZYDIS_ISA_EXT_CLZERO,
	ZYDIS_ISA_EXT_ENQCMD,
	ZYDIS_ISA_EXT_FMA4,
	ZYDIS_ISA_EXT_GFNI,
	ZYDIS_ISA_EXT_HRESET,
	ZYDIS_ISA_EXT_KEYLOCKER,
	ZYDIS_ISA_EXT_KEYLOCKER_WIDE,
	ZYDIS_ISA_EXT_MCOMMIT,
	ZYDIS_ISA_EXT_MONITORX,
	ZYDIS_ISA_EXT_MOVDIR,
	ZYDIS_ISA_EXT_PADLOCK,
	ZYDIS_ISA_EXT_PCONFIG,
	ZYDIS_ISA_EXT_PKU,
	ZYDIS_ISA_EXT_PT,
	ZYDIS_ISA_EXT_RDPRU,
	ZYDIS_ISA_EXT_RTM,
	ZYDIS_ISA_EXT_SERIALIZE,
	ZYDIS_ISA_EXT_SGX,
	ZYDIS_ISA_EXT_SGX_ENCLV,
	ZYDIS_ISA_EXT_SHA,
	ZYDIS_ISA_EXT_SMX,
	ZYDIS_ISA_EXT_SNP,
	ZYDIS_ISA_EXT_SSE4A,
	ZYDIS_ISA_EXT_SVM,
	ZYDIS_ISA_EXT_TBM,
	ZYDIS_ISA_EXT_TDX,
	ZYDIS_ISA_EXT_TSX_LDTRK,
	ZYDIS_ISA_EXT_UINTR,
	ZYDIS_ISA_EXT_VAES,
	ZYDIS_ISA_EXT_VMFUNC,
	ZYDIS_ISA_EXT_VPCLMULQDQ,
	ZYDIS_ISA_EXT_VTX,
	ZYDIS_ISA_EXT_WAITPKG,
	ZYDIS_ISA_EXT_XOP,
	ZYDIS_ISA_EXT_XSAVES,
	ZYDIS_ISA_EXT_CET,
	ZYDIS_ISA_EXT_KNC,
	ZYDIS_ISA_EXT_KNCE,
	ZYDIS_ISA_EXT_KNCV,
};

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

/* Random bytes behind a few prefixes and an escape: evenly random ones are mostly one-byte opcodes. */
static void make_bytes(uint8_t b[16])
{
	static const uint8_t prefix[] = {0x66, 0xf2, 0xf3, 0xf0, 0x2e,
					 0x65, 0x67, 0x48, 0x41, 0x4f};
	unsigned n = 0;

	for (unsigned k = 0; k < 16; k += 8) {
		uint64_t v = rng();

		memcpy(b + k, &v, 8);
	}
	for (unsigned k = rng() % 8; k > 4; k--)
		b[n++] = prefix[rng() % sizeof(prefix)];
	switch (rng() % 8) {
	case 0:
	case 1: b[n++] = 0x0f; break;
	case 2:
		b[n++] = 0x0f;
		b[n++] = rng() & 1 ? 0x38 : 0x3a;
		break;
	case 3:
		b[n++] = 0xc4;
		b[n] = (uint8_t)((b[n] & 0xe0) | (1 + b[n] % 3));
		break;
	case 4: b[n++] = 0xc5; break;
	}
}

static bool is_absent(const ZydisDecodedInstruction *z)
{
	for (unsigned k = 0; k < ARRAY_LEN(absent); k++) {
		if (z->meta.isa_ext == absent[k])
			return true;
	}
	return false;
}

/* Undefined by definition, which has a name there; 0F 0D with a register (AMD: undefined). */
static bool is_ud(const ZydisDecodedInstruction *z)
{
	return z->mnemonic == ZYDIS_MNEMONIC_UD0 || z->mnemonic == ZYDIS_MNEMONIC_UD1 ||
	       z->mnemonic == ZYDIS_MNEMONIC_UD2 ||
	       (z->mnemonic == ZYDIS_MNEMONIC_NOP && z->opcode == 0x0d);
}

/*
 * What is defined here and not there: control and debug registers and the registers of VGATHER,
 * which the handlers judge; the reserved hints of 0F 18 to 0F 1F; VEX.W of VPERMQ and VPERMPD, which
 * AMD ignores; outside 64-bit mode bit 3 of VEX.vvvv, which is ignored also where vvvv is not used.
 */
static bool is_defined_only_here(const struct insn *i, const uint8_t *b, unsigned mode)
{
	if (i->fn == op_mov_cr || i->fn == op_mov_dr || i->fn == op_nop)
		return true;
	if (!(i->flags & I_VEX))
		return false;
	if ((i->op >= 0x90 && i->op <= 0x93) || i->op <= 1)
		return true;
	while (*b != 0xc4 && *b != 0xc5)
		b++;
	return mode != MODE_64 && *b == 0xc4 && !(b[2] & 0x40);
}

static void complain(const char *mode, const uint8_t *b, const char *what,
		     unsigned ours, const ZydisDecodedInstruction *z)
{
	char hex[64] = "";

	for (unsigned k = 0; k < 15; k++)
		snprintf(hex + 3 * k, 4, "%02x ", b[k]);
	printf("# %s: %s: %s ours %u, Zydis %u (%s)\n", mode, hex, what, ours,
	       z ? z->length : 0, z ? ZydisMnemonicGetString(z->mnemonic) : "-");
}

/* 0: the same. */
static unsigned compare(const ZydisDecoder *d, unsigned m, const uint8_t *b)
{
	ZydisDecodedInstruction z;
	struct insn i;
	unsigned len = x86_decode(b, 16, modes[m].mode, &i);
	bool known = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, NULL, b, 15, &z));

	if (len < 1 || len > 15) {
		complain(modes[m].name, b, "length", len, NULL);
		return 1;
	}
	if (i.fn == op_gp)
		return 0;
	if (!known) {
		if (i.fn == op_ud || is_defined_only_here(&i, b, modes[m].mode))
			return 0;
		complain(modes[m].name, b, "undefined there", len, NULL);
		return 1;
	}
	if (i.fn == op_ud) {
		if (is_absent(&z) || is_ud(&z))
			return 0;
		complain(modes[m].name, b, "undefined here", len, &z);
		return 1;
	}
	if (len == z.length)
		return 0;
	complain(modes[m].name, b, "length", len, &z);
	return 1;
}

static void random_bytes(void **state)
{
	unsigned bad = 0;

	(void)state;
	rng_state = 0x9e3779b97f4a7c15ull;
	for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
		ZydisDecoder d;

		ZydisDecoderInit(&d, modes[m].machine, modes[m].stack);
		for (unsigned k = 0; k < ROUNDS && bad < 40; k++) {
			uint8_t b[16];

			make_bytes(b);
			bad += compare(&d, m, b);
		}
	}
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

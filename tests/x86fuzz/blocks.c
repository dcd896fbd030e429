/*
 * x86fuzz/blocks.c - blocks on the host's processor and on lib/x86: twice there, so that the second run
 * finds translations and links that the first made. What differs is made smaller before it is told:
 * instructions become NOPs as long as it still differs.
 */
#include "fuzz.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "x86/x86.h"

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>
#endif

/* Memory as it was before a case. */
static uint8_t before[FZ_N_MEM][4 * FZ_PAGE];

static unsigned region_size(unsigned r)
{
	return fz_regions[r].pages * (unsigned)FZ_PAGE;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The code in INT3s, and new data now and then. */
static void prepare(const struct fz_case *k, bool everything)
{
	for (unsigned r = 1; everything && r < FZ_N_MEM; r++) {
		for (unsigned b = 0; b < region_size(r); b += 32)
			fz_vector(before[r] + b, 32);
	}
	memset(before[0], 0xcc, region_size(0));
	memcpy(before[0] + (k->in.rip - FZ_CODE), k->code, k->len);
}

/* Gives lib/x86's memory its first contents, telling it of code that is not so any more. */
static void emu_restore(bool first)
{
	for (unsigned r = 0; r < FZ_N_MEM; r++) {
		uint8_t *e = fz_emu_mem(r);
		bool same = !memcmp(e, before[r], region_size(r));

		if (same && (r || !first))
			continue;
		memcpy(e, before[r], region_size(r));
		fz_emu_touched(r);
	}
}

static void native_restore(void)
{
	for (unsigned r = 0; r < FZ_N_MEM; r++)
		memcpy(fz_native_mem(r), before[r], region_size(r));
}

/*
 * false: they differ, and the results are what they were then. *runs: how often lib/x86 ran it.
 */
static bool try_once(const struct fz_case *k, struct fz_result *native,
		     struct fz_result *emu)
{
	native_restore();
	fz_native_run(k, native);
	if (native->vec == FZ_HANG) /* a long loop: nothing to compare */
		return true;
	for (unsigned n = 0; n < 2; n++) {
		emu_restore(n == 0);
		fz_emu_run(k, emu);
		if (!fz_equal(k, native, emu))
			return false;
	}
	return true;
}

/* A context switch loses the x87 pointers of AMD's processors: not every time. */
static bool agrees(const struct fz_case *k, struct fz_result *native,
		   struct fz_result *emu)
{
	for (unsigned n = 0; n < 3; n++) {
		if (try_once(k, native, emu))
			return true;
	}
	return false;
}

/*
 * Did it end at, or perhaps execute, what cannot be compared? Jumps into the middle of instructions and
 * code that changes find such.
 */
static bool excluded_at(const struct fz_case *k, uint64_t rip)
{
	static struct fz_case one;

	if (rip - FZ_CODE > region_size(0) - 16)
		return false;
	one.m32 = k->m32;
	memcpy(one.code, fz_native_mem(0) + (rip - FZ_CODE), 16);
	for (unsigned n = 0; n < 15; n++) { /* another FS and GS */
		if ((one.code[n] & 0xfe) == 0x64)
			return true;
	}
	return fz_excluded(&one);
}

/*
 * May it store x87 selectors that the host's processor keeps and lib/x86 says it does not
 * (CPUID.(7,0):EBX[13])? FNSTENV, FNSAVE.
 */
static bool has_selectors(void)
{
	const uint8_t *p = fz_native_mem(0);
	unsigned a, b = 0, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || b >> 13 & 1)
		return false;
	for (unsigned at = 0; at + 1 < region_size(0); at++) {
		unsigned op = p[at], modrm = p[at + 1];

		if ((op == 0xd9 || op == 0xdd) && (modrm >> 3 & 7) == 6 && modrm < 0xc0)
			return true;
	}
	return false;
}

static bool cannot_compare(const struct fz_case *k, const struct fz_result *native,
			   const struct fz_result *emu)
{
	static const uint8_t unlike[][2] = {{0x0f, 0x31}, {0x0f, 0xa2}, {0x0f, 0xc7},
					    {0x0f, 0x33}, {0x0f, 0x01}, {0x0f, 0x05},
					    {0x0f, 0x00}, {0x0f, 0x34}, {0xcd, 0x80}};

	if (emu->vec == FZ_HANG) /* a loop that takes long */
		return true;
	if (excluded_at(k, native->s.rip) || excluded_at(k, emu->s.rip))
		return true;
	/* 16-bit near branches are so on AMD's processors only */
	if (!k->m32 && (native->s.rip < 0x10000 || emu->s.rip < 0x10000))
		return true;
	if (has_selectors())
		return true;
	for (unsigned at = 0; at + 1 < region_size(0); at++) {
		for (unsigned n = 0; n < sizeof(unlike) / 2; n++) {
			if (!memcmp(fz_native_mem(0) + at, unlike[n], 2))
				return true;
		}
	}
	return false;
}

/* Does it differ in a way that counts? */
static bool differs(const struct fz_case *k, struct fz_result *native,
		    struct fz_result *emu)
{
	return !agrees(k, native, emu) && !cannot_compare(k, native, emu);
}

static void make_smaller(struct fz_block *b)
{
	struct fz_result native, emu;

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned n = b->n; n-- > 0;) {
			unsigned at = b->at[n], len = b->at[n + 1] - at;
			uint8_t keep[FZ_CODE_MAX];

			memcpy(keep, b->k.code + at, len);
			memset(b->k.code + at, 0x90, len);
			prepare(&b->k, false);
			if (!differs(&b->k, &native, &emu))
				memcpy(b->k.code + at, keep, len);
		}
	}
	prepare(&b->k, false);
}

/* ---- telling ---------------------------------------------------------------------------------------- */

static void disassemble(const struct fz_case *k)
{
	unsigned at = 0;

	while (at < k->len) {
		unsigned len = 1;
		const char *text = "";
#ifdef HAVE_ZYDIS
		ZydisDisassembledInstruction insn;

		text = "(undefined)";
		if (ZYAN_SUCCESS(ZydisDisassembleIntel(
			    k->m32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
				   : ZYDIS_MACHINE_MODE_LONG_64,
			    k->in.rip + at, k->code + at, k->len - at, &insn))) {
			len = insn.info.length;
			text = insn.text;
		}
#endif
		if (k->code[at] != 0x90 || len != 1) {
			printf("  %llx:", (unsigned long long)k->in.rip + at);
			for (unsigned n = 0; n < len; n++)
				printf(" %02x", k->code[at + n]);
			printf("%*s %s\n", len < 10 ? (int)(3 * (10 - len)) : 0, "",
			       text);
		}
		at += len;
	}
}

static void tell(const struct fz_block *b, uint64_t run, const struct fz_result *native,
		 const struct fz_result *emu)
{
	const struct fz_case *k = &b->k;

	printf("DIFFERENCE in block %llu, %s code, made smaller; NOPs are not shown\n",
	       (unsigned long long)run, k->m32 ? "32-bit" : "64-bit");
	disassemble(k);
	for (unsigned r = 0; r < 16; r++)
		printf("  r%-3u%016llx%s", r, (unsigned long long)k->in.gpr[r],
		       r % 4 == 3 ? "\n" : "");
	printf("  rflags %llx mxcsr %02x%02x fcw %02x%02x fsw %02x%02x\n"
	       "  ended   native vector %u at %llx, lib/x86 vector %u at %llx\n",
	       (unsigned long long)k->in.rflags, k->in.xsave[25], k->in.xsave[24],
	       k->in.xsave[1], k->in.xsave[0], k->in.xsave[3], k->in.xsave[2],
	       native->vec, (unsigned long long)native->s.rip, emu->vec,
	       (unsigned long long)emu->s.rip);
	fz_report_state(k, native, emu);
	fflush(stdout);
}

int fz_blocks(const struct fz_options *o, struct fz_form *forms, unsigned n)
{
	static struct fz_block b;
	static struct fz_result native, emu;
	uint64_t runs = 0, differences = 0, faults = 0, insns = 0, left_out = 0,
		 wrong = 0;
	unsigned checked = 0;
	double end = now() + o->seconds;

	for (; o->runs ? runs < o->runs : now() < end; runs++) {
		if (o->check)
			wrong += fz_check_code(fz_emu_cpu(), &checked);
		fz_make_block(&b, forms, n);
		prepare(&b.k, runs % 64 == 0);
		insns += b.n;
		if (agrees(&b.k, &native, &emu)) {
			faults += native.vec != 3;
			continue;
		}
		if (cannot_compare(&b.k, &native, &emu)) {
			left_out++;
			continue;
		}
		if (differences++ < o->max_reports) {
			make_smaller(&b);
			agrees(&b.k, &native, &emu);
			tell(&b, runs, &native, &emu);
		}
	}
	printf("%llu blocks of %llu instructions, %llu ended in exceptions, "
	       "%llu left out, %llu differences\n",
	       (unsigned long long)runs, (unsigned long long)insns,
	       (unsigned long long)faults, (unsigned long long)left_out,
	       (unsigned long long)differences);
	if (o->check)
		printf("%u translations looked through, %llu faults\n", checked,
		       (unsigned long long)wrong);
	return differences || wrong ? 1 : 0;
}

/* ---- CPL 0 -------------------------------------------------------------------------------------------- */

int fz_kernel_blocks(const struct fz_options *o, struct fz_form *forms, unsigned n)
{
	static struct fz_block b;
	static struct fz_result emu;
	uint64_t runs = 0, ends[4] = {0};
	double end = now() + o->seconds;

	for (; o->runs ? runs < o->runs : now() < end; runs++) {
		fz_make_block(&b, forms, n);
		if (runs % 64 == 0) {
			prepare(&b.k, true);
			for (unsigned r = 1; r < FZ_N_MEM; r++)
				memcpy(fz_emu_mem(r), before[r], region_size(r));
			fz_emu_memory_keep();
		}
		fz_emu_memory_restore();
		prepare(&b.k, false);
		emu_restore(true);
		fz_native_skip();
		fz_emu_run(&b.k, &emu);
		if (emu.vec == FZ_HANG + X86_EXIT_DIFFERENCE) {
			printf("DIFFERENCE in block %llu\n", (unsigned long long)runs);
			disassemble(&b.k);
			printf("1 difference\n");
			return 1;
		}
		ends[emu.vec == 3         ? 0
		     : emu.vec < 256      ? 1
		     : emu.vec == FZ_HANG ? 2
					  : 3]++;
	}
	printf("%llu blocks at CPL 0: %llu to their end, %llu to other exceptions, "
	       "%llu "
	       "stopped, %llu shut down; 0 differences\n",
	       (unsigned long long)runs, (unsigned long long)ends[0],
	       (unsigned long long)ends[1], (unsigned long long)ends[2],
	       (unsigned long long)ends[3]);
	return 0;
}

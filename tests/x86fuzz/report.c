/*
 * x86fuzz/report.c - are two results equal, and what differs if not.
 */
#include "fuzz.h"

#include "x86/x86.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>
#endif

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					  "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					  "r12", "r13", "r14", "r15"};

void fz_disassemble(const struct fz_case *k, char *buf, size_t size)
{
	snprintf(buf, size, "(no disassembler)");
#ifdef HAVE_ZYDIS
	ZydisDisassembledInstruction insn;
	ZyanStatus st = ZydisDisassembleIntel(k->m32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
						     : ZYDIS_MACHINE_MODE_LONG_64,
					      k->in.rip, k->code, 15, &insn);

	snprintf(buf, size, "%s", ZYAN_SUCCESS(st) ? insn.text : "(undefined)");
#else
	(void)k;
#endif
}

/* Called with what differs; prints only when told to. */
struct diff {
	bool print, differs;
};

__attribute__((format(printf, 2, 3))) static void differ(struct diff *d,
							 const char *fmt, ...)
{
	va_list ap;

	d->differs = true;
	if (!d->print)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}

static void hex(struct diff *d, const char *what, const uint8_t *in, const uint8_t *n,
		const uint8_t *e, unsigned len)
{
	const uint8_t *rows[3] = {in, n, e};
	static const char *const names[3] = {"before", "native", "lib/x86"};

	if (!memcmp(n, e, len))
		return;
	differ(d, "  %s\n", what);
	for (unsigned r = 0; r < 3; r++) {
		if (!rows[r])
			continue;
		differ(d, "    %-8s", names[r]);
		for (unsigned k = len; k-- > 0;)
			differ(d, "%02x%s", rows[r][k], k % 8 || !k ? "" : "_");
		differ(d, "\n");
	}
}

static unsigned get16(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

static void diff_gprs(struct diff *d, const struct fz_case *k, const struct fz_state *n,
		      const struct fz_state *e)
{
	for (unsigned r = 0; r < (k->m32 ? 8u : 16u); r++)
		if (n->gpr[r] != e->gpr[r])
			differ(d,
			       "  %-7s before %016llx native %016llx lib/x86 %016llx\n",
			       gpr_names[r], (unsigned long long)k->in.gpr[r],
			       (unsigned long long)n->gpr[r],
			       (unsigned long long)e->gpr[r]);
	if (n->rip != e->rip)
		differ(d, "  rip     before %016llx native %016llx lib/x86 %016llx\n",
		       (unsigned long long)k->in.rip, (unsigned long long)n->rip,
		       (unsigned long long)e->rip);
	if (n->rflags != e->rflags)
		differ(d, "  rflags  before %06llx native %06llx lib/x86 %06llx\n",
		       (unsigned long long)k->in.rflags, (unsigned long long)n->rflags,
		       (unsigned long long)e->rflags);
}

/* AMD's FXSAVE gives the pointers only while an exception is pending, else 0. */
static bool without_pointers(const uint8_t *n)
{
	static const uint8_t zero[18];

	return !(get16(n + 2) & 0x80) && !memcmp(n + 6, zero, 18);
}

static void diff_x87(struct diff *d, const struct fz_case *k, const uint8_t *n,
		     const uint8_t *e)
{
	static const struct {
		const char *name;
		unsigned off, len;
	} fields[] = {{"fcw", 0, 2}, {"fsw", 2, 2}, {"ftw", 4, 1}, {"fop", 6, 2}};
	char name[16];

	for (unsigned f = 0; f < 4; f++) {
		unsigned at = fields[f].off;
		unsigned mask = fields[f].len == 1 ? 0xff : 0xffff;

		if (f == 3 && without_pointers(n))
			break;
		if ((get16(n + at) ^ get16(e + at)) & mask)
			differ(d, "  %s     before %04x native %04x lib/x86 %04x\n",
			       fields[f].name, get16(k->in.xsave + at), get16(n + at),
			       get16(e + at));
	}
	if (!without_pointers(n)) {
		hex(d, "fip", k->in.xsave + 8, n + 8, e + 8, 8);
		hex(d, "fdp", k->in.xsave + 16, n + 16, e + 16, 8);
	}
	for (unsigned r = 0; r < 8; r++) {
		unsigned at = 32 + 16 * r;

		if (!memcmp(n + at, e + at, 10))
			continue;
		snprintf(name, sizeof(name), "st%u", r);
		hex(d, name, k->in.xsave + at, n + at, e + at, 10);
	}
}

static void diff_vectors(struct diff *d, const struct fz_case *k, const uint8_t *n,
			 const uint8_t *e)
{
	char name[16];

	hex(d, "mxcsr", k->in.xsave + 24, n + 24, e + 24, 4);
	for (unsigned r = 0; r < 16; r++) {
		unsigned lo = 160 + 16 * r, hi = 576 + 16 * r;

		if (!memcmp(n + lo, e + lo, 16) && !memcmp(n + hi, e + hi, 16))
			continue;
		snprintf(name, sizeof(name), "xmm%u", r);
		hex(d, name, k->in.xsave + lo, n + lo, e + lo, 16);
		snprintf(name, sizeof(name), "ymm%u high", r);
		hex(d, name, k->in.xsave + hi, n + hi, e + hi, 16);
	}
}

static void diff_memory(struct diff *d)
{
	for (unsigned r = 0; r < FZ_N_MEM; r++) {
		unsigned len = fz_regions[r].pages * FZ_PAGE, shown = 0;
		const uint8_t *n = fz_native_mem(r), *e = fz_emu_mem(r);

		if (!memcmp(n, e, len))
			continue;
		for (unsigned k = 0; k < len && shown < 64; k++) {
			if (n[k] == e[k])
				continue;
			shown++;
			differ(d, "  memory  %llx native %02x lib/x86 %02x\n",
			       (unsigned long long)(fz_regions[r].va + k), n[k], e[k]);
		}
	}
}

static bool has_error_code(unsigned vec)
{
	return vec == 8 || (vec >= 10 && vec <= 14) || vec == 17;
}

static void diff_exception(struct diff *d, const struct fz_result *n,
			   const struct fz_result *e)
{
	uint64_t nerr = n->err, eerr = e->err;

	if (n->vec != e->vec) {
		differ(d, "  vector  native %u lib/x86 %u\n", n->vec, e->vec);
		return;
	}
	if (n->vec == 14) {
		if (n->cr2 != e->cr2)
			differ(d, "  cr2     native %llx lib/x86 %llx\n",
			       (unsigned long long)n->cr2, (unsigned long long)e->cr2);
		/* the kernel shows none of its own memory as absent */
		if (n->cr2 >= 0x7ffffffff000)
			nerr &= ~1ull, eerr &= ~1ull;
	}
	if (has_error_code(n->vec) && nerr != eerr)
		differ(d, "  error   native %llx lib/x86 %llx\n",
		       (unsigned long long)nerr, (unsigned long long)eerr);
}

/*
 * An undefined instruction at the end of the last code page: #UD, or #PF because more of it would have
 * been read. Where a processor stops reading is its own affair.
 */
static bool fetch_or_undefined(const struct fz_result *a, const struct fz_result *b)
{
	return a->vec == 6 && b->vec == 14 && b->cr2 == FZ_CODE + 2 * FZ_PAGE &&
	       a->s.rip == b->s.rip;
}

/* XRSTOR of an area that names components which the host has and lib/x86 has not (AVX-512, PKRU). */
static bool host_has_more(const struct fz_case *k, const struct fz_result *n,
			  const struct fz_result *e)
{
	uint32_t lo, hi;
	uint64_t h[2]; /* XSTATE_BV, XCOMP_BV */

	if (!k->xsave || e->vec != 13 || n->vec == 13)
		return false;
	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	for (unsigned r = 0; r < FZ_N_MEM; r++) {
		uint64_t at = k->target + 512 - fz_regions[r].va;

		if (at > fz_regions[r].pages * FZ_PAGE - sizeof(h))
			continue;
		memcpy(h, fz_native_mem(r) + at, sizeof(h));
		return (h[0] | h[1]) & ((uint64_t)hi << 32 | lo) & ~(uint64_t)FZ_XCR0;
	}
	return false;
}

static bool compare(const struct fz_case *k, const struct fz_result *n,
		    const struct fz_result *e, bool print)
{
	struct diff d = {.print = print};

	if (e->vec == FZ_HANG + X86_EXIT_DIFFERENCE)
		differ(&d, "  lockstep differs\n");
	if (host_has_more(k, n, e))
		return true;
	if (!fetch_or_undefined(n, e) && !fetch_or_undefined(e, n))
		diff_exception(&d, n, e);
	diff_gprs(&d, k, &n->s, &e->s);
	diff_x87(&d, k, n->s.xsave, e->s.xsave);
	diff_vectors(&d, k, n->s.xsave, e->s.xsave);
	diff_memory(&d);
	return !d.differs;
}

bool fz_equal(const struct fz_case *k, const struct fz_result *n,
	      const struct fz_result *e)
{
	return compare(k, n, e, false);
}

void fz_report_state(const struct fz_case *k, const struct fz_result *n,
		     const struct fz_result *e)
{
	compare(k, n, e, true);
}

void fz_report(const struct fz_case *k, const struct fz_result *n,
	       const struct fz_result *e)
{
	char text[128], name[64];

	fz_form_name(k->form, name, sizeof(name));
	fz_disassemble(k, text, sizeof(text));
	printf("DIFFERENCE %s: %s\n  bytes  ", name, text);
	for (unsigned b = 0; b < k->len && b < 15; b++)
		printf(" %02x", k->code[b]);
	printf("\n  at      %llx, memory operand aimed at %llx\n",
	       (unsigned long long)k->in.rip, (unsigned long long)k->target);
	printf("  ended   native vector %u at %llx, lib/x86 vector %u at %llx; rflags "
	       "%llx\n",
	       n->vec, (unsigned long long)n->s.rip, e->vec,
	       (unsigned long long)e->s.rip, (unsigned long long)k->in.rflags);
	printf("  fcw %04x fsw %04x ftw %02x mxcsr %04x\n", get16(k->in.xsave),
	       get16(k->in.xsave + 2), k->in.xsave[4], get16(k->in.xsave + 24));
	for (unsigned r = 0; r < 16; r++)
		printf("  %-4s%016llx%s", gpr_names[r],
		       (unsigned long long)k->in.gpr[r], r % 4 == 3 ? "\n" : "");
	compare(k, n, e, true);
	fflush(stdout);
}

/*
 * x86/jit/lockstep_report.c - tells in which way a block's translation and the interpreter differ: the
 * block with its instructions, registers before and after both, exceptions, memory. vCPU thread.
 */
#include "x86/jit/lockstep_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "x86/jit/lift.h"

#define TELL(ls, ...) log_msg((ls)->c->sys->log, LOG_ERROR, __VA_ARGS__)

/* ---- registers ---------------------------------------------------------------------------------- */

struct field {
	const char *name; /* with the number of the element when there are some */
	uint16_t off;
	uint8_t size; /* of an element */
	uint8_t n;
};

#define F(text, member, count)                                                 \
	{                                                                      \
		text, offsetof(struct x86_cpu, member),                        \
			sizeof(((struct x86_cpu *)0)->member) / (count), count \
	}
#define XS(text, off, size, n)                                         \
	{                                                              \
		text, offsetof(struct x86_cpu, xsave) + (off), size, n \
	}

/* clang-format off */
static const struct field fields[] = {
	F("rip", rip, 1), F("rflags", rflags, 1),
	F("cpl", cpl, 1), F("mmu mode", mmu_mode, 1), F("code size", code_size, 1), F("stack size", stack_size, 1),
	F("seg base", seg_base, 9), F("seg", seg, 8), F("gdtr", gdtr, 1), F("idtr", idtr, 1),
	F("cr0", cr0, 1), F("cr2", cr2, 1), F("cr3", cr3, 1), F("cr4", cr4, 1), F("xcr0", xcr0, 1),
	F("efer", efer, 1), F("apic base", apic_base, 1), F("dr", dr, 8), F("pdpte", pdpte, 4), F("events", ev, 1),
	F("star", star, 1), F("lstar", lstar, 1), F("cstar", cstar, 1), F("sfmask", sfmask, 1),
	F("kernel gs base", kernel_gs_base, 1), F("sysenter cs", sysenter_cs, 1),
	F("sysenter esp", sysenter_esp, 1), F("sysenter eip", sysenter_eip, 1), F("pat", pat, 1),
	F("tsc aux", tsc_aux, 1), F("spec ctrl", spec_ctrl, 1), F("tsc offset", tsc_offset, 1),
	XS("fcw", 0, 2, 1), XS("fsw", 2, 2, 1), XS("ftw", 4, 2, 1), XS("fop", 6, 2, 1), XS("fip", 8, 8, 1), XS("fdp", 16, 8, 1),
	XS("mxcsr", 24, 4, 1), XS("st", 32, 16, 8), XS("xmm", 160, 16, 16), XS("xstate", 512, 8, 8), XS("ymm high", 576, 16, 16),
	F("shutdown", shutdown, 1), F("tf armed", tf_armed, 1), F("ss shadow", ss_shadow, 1), F("dr hit", dr_hit, 1),
};
/* clang-format on */

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					  "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					  "r12", "r13", "r14", "r15"};

/* Bytes from the highest to the lowest, as one number. */
static void number(char *buf, const uint8_t *p, unsigned size)
{
	for (unsigned n = size; n-- > 0; buf += 2)
		snprintf(buf, 3, "%02x", p[n]);
}

static void tell_gprs(const struct lockstep *ls)
{
	for (unsigned n = 0; n < 16; n++) {
		size_t off = offsetof(struct x86_cpu, gpr) + 8 * n;
		const uint8_t *v[3] = {ls_snap_at(&ls->s0, off),
				       ls_snap_at(&ls->s1, off),
				       ls_snap_at(&ls->s2, off)};
		char text[3][17];

		for (unsigned k = 0; k < 3; k++)
			number(text[k], v[k], 8);
		TELL(ls, "%c %-6s %s  %s  %s", memcmp(v[1], v[2], 8) ? '*' : ' ',
		     gpr_names[n], text[0], text[1], text[2]);
	}
}

static void tell_status(const struct lockstep *ls)
{
	union status a = ls_snap_st(&ls->s0), b = ls_snap_st(&ls->s1),
		     c = ls_snap_st(&ls->s2);

	TELL(ls, "  status %02x of %u            %02x of %u            %02x of %u",
	     a.lo, a.of, b.lo, b.of, c.lo, c.of);
	if (ls->last.next == ls->rip && ls->last.st_translator.w != a.w)
		TELL(ls,
		     "  the translation began with status %02x of %u, as that of the "
		     "block before, at 0x%llx, left it",
		     ls->last.st_translator.lo, ls->last.st_translator.of,
		     (unsigned long long)ls->last.rip);
}

static void tell_fields(const struct lockstep *ls)
{
	for (unsigned n = 0; n < ARRAY_LEN(fields); n++) {
		const struct field *f = &fields[n];

		for (unsigned k = 0; k < f->n; k++) {
			size_t off = f->off + (size_t)k * f->size;
			const uint8_t *a = ls_snap_at(&ls->s1, off),
				      *b = ls_snap_at(&ls->s2, off);
			char text[3][65], name[32];

			if (!memcmp(a, b, f->size))
				continue;
			number(text[0], ls_snap_at(&ls->s0, off), f->size);
			number(text[1], a, f->size);
			number(text[2], b, f->size);
			snprintf(name, sizeof(name), f->n > 1 ? "%s%u" : "%s", f->name,
				 k);
			TELL(ls, "* %-6s %s  %s  %s", name, text[0], text[1], text[2]);
		}
	}
}

/* ---- exceptions ----------------------------------------------------------------------------------- */

void ls_describe(const struct ls_snap *s, char *buf, size_t size)
{
	int n;

	if (!s->raised) {
		snprintf(buf, size, "no exception");
		return;
	}
	n = snprintf(buf, size, "exception %u", s->exc.vec);
	if (s->exc.has_code && (size_t)n < size)
		n += snprintf(buf + n, size - (size_t)n, ", code 0x%x", s->exc.code);
	if (s->exc.vec == EX_PF && (size_t)n < size)
		snprintf(buf + n, size - (size_t)n, ", cr2 0x%llx",
			 (unsigned long long)s->cr2);
}

static void tell_exceptions(const struct lockstep *ls)
{
	char a[80], b[80];

	ls_describe(&ls->s1, a, sizeof(a));
	ls_describe(&ls->s2, b, sizeof(b));
	if (strcmp(a, b) != 0)
		TELL(ls, "* interpreter: %s; translation: %s", a, b);
	else if (ls->s1.raised)
		TELL(ls, "  both: %s", a);
	if (ls->s1.own != ls->s2.own)
		TELL(ls, "* requests: interpreter 0x%x, translation 0x%x", ls->s1.own,
		     ls->s2.own);
	if (ls->device)
		TELL(ls, "* only the translation used a device, the time or a random "
			 "number");
}

/* ---- memory --------------------------------------------------------------------------------------- */

#define MEMORY_MAX 64 /* lines told */

/* The guest-physical address of host address p, as far as a TLB knows it; else all ones. */
static uint64_t gpa_of(const struct x86_cpu *c, const uint8_t *p)
{
	const uint8_t *page = p - (uintptr_t)p % PAGE_SIZE;

	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned n = 0; n < TLB_SLOTS; n++) {
			if (c->tlbs[m][n].va != TLB_NONE && c->tlbs[m][n].host == page)
				return c->tlbs[m][n].gpa + (uint64_t)(p - page);
		}
	}
	return ~0ull;
}

static void tell_memory(const struct lockstep *ls)
{
	unsigned told = 0;

	for (unsigned n = 0; n < ls->n_lines && told < MEMORY_MAX; n++) {
		const struct ls_line *l = &ls->line[n];

		for (unsigned k = 0; k < LS_LINE; k += 8) {
			char text[3][17];

			if (!memcmp(l->after + k, l->host + k, 8))
				continue;
			number(text[0], l->before + k, 8);
			number(text[1], l->after + k, 8);
			number(text[2], l->host + k, 8);
			TELL(ls, "* memory %llx: %s  %s  %s",
			     (unsigned long long)gpa_of(ls->c, l->host + k), text[0],
			     text[1], text[2]);
			told++;
		}
	}
}

/* ---- the block -------------------------------------------------------------------------------------- */

#define HOST_BYTES 512 /* of the translation */

static void tell_code(const struct lockstep *ls)
{
	const struct block *b = ls->b;
	const uint8_t *bytes = (const uint8_t *)&b->insn[b->n + 1];
	bool m64 = (b->key & BLOCK_MODE) == MODE_64;

	for (unsigned n = 0; n < b->n; n++) {
		const struct insn *i = &b->insn[n];
		char text[2 * 15 + 1];
		struct lift l;

		for (unsigned k = 0; k < i->len && k < 15; k++)
			snprintf(text + 2 * k, 3, "%02x", bytes[i->off + k]);
		lift_insn(i, bytes + i->off, m64, &l);
		TELL(ls, "  %llx: %-30s%s",
		     (unsigned long long)(m64 ? ls->rip + i->off
					      : (uint32_t)(ls->rip + i->off)),
		     text, l.kind == L_INTERP ? " (interpreted)" : "");
	}
}

static void tell_host_code(const struct lockstep *ls)
{
	const struct jit *j = ls->c->jit;
	const uint8_t *p = j->rw + (ls->code->entry - j->rx);
	size_t n = ls->code->size;

	TELL(ls, "  the translation is at %p:", (const void *)ls->code->entry);
	if (n > HOST_BYTES)
		n = HOST_BYTES;
	for (size_t k = 0; k < n; k += 32) {
		char text[65];

		for (size_t m = 0; m < 32 && k + m < n; m++)
			snprintf(text + 2 * m, 3, "%02x", p[k + m]);
		TELL(ls, "  %s", text);
	}
}

void ls_report(const struct lockstep *ls)
{
	static const char *const modes[MMU_MODES] = {"user", "kernel", "kernel, AC = 1",
						     "user, AC = 1"};

	TELL(ls,
	     "lockstep: processor %u: the translation of the block at 0x%llx differs "
	     "from the interpreter (%s code, %s)",
	     ls->c->index, (unsigned long long)ls->rip,
	     (ls->b->key & BLOCK_MODE) == MODE_64 ? "64-bit" : "32-bit",
	     modes[ls->code->mode]);
	tell_code(ls);
	TELL(ls, "  %-6s %-16s  %-16s  %s", "", "before", "interpreter", "translation");
	tell_gprs(ls);
	tell_status(ls);
	tell_fields(ls);
	tell_exceptions(ls);
	tell_memory(ls);
	tell_host_code(ls);
}

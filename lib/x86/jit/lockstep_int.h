/*
 * x86/jit/lockstep_int.h - inside lockstep: what is kept of a block that is run both ways.
 * vCPU thread.
 */
#ifndef X86_JIT_LOCKSTEP_INT_H
#define X86_JIT_LOCKSTEP_INT_H

#include "x86/block.h"
#include "x86/jit/jit_int.h"
#include "x86/jit/lockstep.h"

#define LS_LINE    64   /* bytes: memory is logged in lines */
#define LS_LINES   2048 /* that one block may write; more: it is not compared */
#define LS_HASH    (4 * LS_LINES)
#define LS_ENTRIES 64 /* translations of addresses by which it wrote */
#define LS_CODES   16 /* pages whose decoded code it wrote */
#define LS_SNAP    2560

/* The registers, and what was raised. */
struct ls_snap {
	uint8_t bytes[LS_SNAP]; /* the spans of struct x86_cpu one after the other */
	struct exc exc;
	uint64_t cr2;
	uint32_t own; /* requests of the processor's own */
	bool raised;
};

struct ls_line {
	uint8_t *host;
	uint64_t written;                        /* bit n: byte n was stored to */
	uint8_t before[LS_LINE], after[LS_LINE]; /* after: by the interpreter */
};

enum ls_phase { LS_IDLE, LS_INTERPRETER, LS_TRANSLATOR };

/* The block before. */
struct ls_last {
	uint64_t rip, next;
	uint64_t events; /* interrupts and exceptions until then */
	union status st, st_translator;
};

struct lockstep {
	struct x86_cpu *c;
	struct block *b;
	const struct jit_code *code;
	uint64_t rip;
	enum ls_phase phase;
	bool unique;    /* it cannot be repeated: the interpreter's result stands */
	bool device;    /* the translation did what cannot be repeated */
	bool disturbed; /* a request came: the translation may have been left early */
	bool unmapped;  /* translations of addresses were forgotten */
	bool exclusive; /* other processors stand still */
	bool differs;
	struct ls_last last;
	jmp_buf out;               /* of x86_run() */
	struct ls_snap s0, s1, s2; /* before; interpreter; translator */
	uint32_t n_lines, stamp;
	struct ls_line line[LS_LINES];
	struct {
		uint32_t stamp, line;
	} hash[LS_HASH];
	unsigned n_entries, n_codes;
	struct tlb_entry *entry[LS_ENTRIES];
	struct {
		struct codepage *cp;
		uint64_t chunks;
	} code_page[LS_CODES];
	uint64_t compared, n_unique;
};

/* A part of struct x86_cpu that a block may change. */
struct ls_span {
	uint16_t off, len;
};
extern const struct ls_span ls_spans[];
extern const unsigned ls_n_spans;

/* Where byte `off` of struct x86_cpu is in s->bytes. */
const uint8_t *ls_snap_at(const struct ls_snap *s, size_t off);
static inline union status ls_snap_st(const struct ls_snap *s)
{
	union status st;

	__builtin_memcpy(&st, ls_snap_at(s, offsetof(struct x86_cpu, st)), sizeof(st));
	return st;
}

/* lockstep_report.c: tells the log all that differs. */
void ls_report(const struct lockstep *ls);
/* Names the exception of s. */
void ls_describe(const struct ls_snap *s, char *buf, size_t size);

#endif

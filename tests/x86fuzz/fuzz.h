/*
 * x86fuzz/fuzz.h - compares lib/x86 with the processor it runs on, one instruction at a time.
 *
 * A case is an instruction's bytes, the whole user-mode state before it and the memory around it. It
 * runs natively in this process (native.c) and on lib/x86 at CPL 3 with the same linear
 * addresses (emu.c); registers, flags, vectors, x87, memory, and the exception with its error code
 * and CR2 must be equal. One thread.
 */
#ifndef X86FUZZ_H
#define X86FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Linear addresses, below 4 GiB for 32-bit code. What lies between is not mapped. */
#define FZ_CODE  0x10000000ull /* two pages, read and execute */
#define FZ_DATA  0x20000000ull /* two pages, read and write */
#define FZ_RO    0x20004000ull /* one page, read only */
#define FZ_STACK 0x30000000ull /* two pages, read and write */
#define FZ_PAGE  4096ull
#define FZ_N_MEM 4 /* regions */

struct fz_region {
	uint64_t va;
	unsigned pages;
	bool write, exec;
};

extern struct fz_region fz_regions[FZ_N_MEM]; /* --blocks: code is writable */

#define FZ_XSAVE 832 /* x87, SSE, AVX in the standard format */
#define FZ_XCR0  7   /* these components */

struct fz_state {
	uint64_t gpr[16], rip, rflags; /* gpr in the order of the encoding */
	uint8_t xsave[FZ_XSAVE] __attribute__((aligned(64)));
};

#define FZ_HANG 256 /* does not end: not an exception vector */

struct fz_result {
	struct fz_state s;
	unsigned vec; /* 3: arrived at the INT3 behind the instruction or elsewhere */
	uint64_t err, cr2;
};

enum fz_enc { FZ_LEGACY, FZ_VEX };

/* Which instruction: all else (operands, modrm.reg) is random. */
struct fz_form {
	bool m32;
	uint8_t enc, map, op;
	uint8_t pp; /* 0 none, 1 66, 2 F3, 3 F2 */
	uint8_t w, l;
	uint8_t dull; /* how often it was #UD on both, while it never was not */
	bool reported;
	bool alive; /* it was something else than #UD once */
};

#define FZ_CODE_MAX 1024 /* bytes */
#define FZ_INSNS    64

struct fz_case {
	struct fz_form *form;
	bool m32;
	uint8_t code[FZ_CODE_MAX];
	unsigned len;    /* as far as is known */
	bool xsave;      /* of the XSAVE family: memory is to be seeded so */
	uint64_t target; /* where the memory operand is likely to be; 0: unknown */
	struct fz_state in;
};

/* ---- random numbers, values (values.c) ------------------------------------------------------ */

void fz_seed(uint64_t seed);
uint64_t fz_rand(void);
unsigned fz_below(unsigned n); /* 0 .. n-1 */
bool fz_one_in(unsigned n);
uint64_t fz_int(void);               /* biased to edges */
void fz_vector(void *p, unsigned n); /* n bytes: floats, integers, masks */
void fz_x87_state(uint8_t *xsave);
uint32_t fz_mxcsr(void);
void fz_xsave_area(uint8_t *p); /* legacy region and header, mostly valid; 576 bytes */

/* ---- forms and cases (gen.c) ----------------------------------------------------------------- */

/* All forms; the number of them in *n. */
struct fz_form *fz_forms(unsigned *n);
void fz_form_name(const struct fz_form *f, char *buf, size_t size);
/* Makes a case of `f`: false when the random instruction is one that cannot be compared. */
bool fz_make_case(struct fz_form *f, struct fz_case *k);
/* Why the instruction in k cannot be compared, NULL if it can. */
const char *fz_excluded(const struct fz_case *k);
void fz_list_excluded(void);

/*
 * Makes one instruction of `f` at `out` (15 bytes and more), whose operands are those of a block: addresses
 * near registers that hold pointers, results in others. Returns its length; 0: not a good one.
 */
unsigned fz_make_insn(struct fz_form *f, uint8_t *out);
extern bool fz_kernel; /* cases run at CPL 0, where nothing is left out */
/* An address that is likely to be interesting. */
uint64_t fz_pick_target(void);

/* ---- blocks (blockgen.c, blocks.c) -------------------------------------------------------------- */

struct fz_block {
	struct fz_case k;
	unsigned n; /* instructions, of a few bytes or of a few instructions each */
	uint16_t at[FZ_INSNS + 1]; /* offsets in k.code */
};

/* forms, n: of fz_forms(). */
void fz_make_block(struct fz_block *b, struct fz_form *forms, unsigned n);

struct fz_options {
	unsigned seconds;
	uint64_t seed, runs;
	const char *form;
	unsigned max_reports;
	bool list, excluded, all, translate, lockstep, blocks, kernel, check, hostile;
};

/* --blocks: 0 without differences, else 1. */
int fz_blocks(const struct fz_options *o, struct fz_form *forms, unsigned n);
/* --kernel: at CPL 0, the translator against the interpreter in lockstep. */
int fz_kernel_blocks(const struct fz_options *o, struct fz_form *forms, unsigned n);

/* --hostile: guests that try to break out; nothing is compared (hostile.c). */
int fz_hostile(const struct fz_options *o, struct fz_form *forms, unsigned n);

/* ---- native.c --------------------------------------------------------------------------------- */

/* Maps the regions and takes the signals. false: message on stderr. */
bool fz_native_init(void);
uint8_t *fz_native_mem(unsigned region); /* writable view */
void fz_native_run(const struct fz_case *k, struct fz_result *r);
/* Nothing runs natively: lib/x86 began another case. */
void fz_native_skip(void);

/* ---- emu.c ------------------------------------------------------------------------------------- */

/* translate: by the translator, from the first execution on. */
extern const struct x86_ops
	fz_quiet_ops; /* of a computer without devices; .page is for others to set */
bool fz_emu_init(bool translate, bool lockstep);
uint8_t *fz_emu_mem(unsigned region);
/* Memory of `region` was changed from outside. */
void fz_emu_touched(unsigned region);
void fz_emu_run(const struct fz_case *k, struct fz_result *r);
/* All of its memory as now, and back to that. */
void fz_emu_memory_keep(void);
void fz_emu_memory_restore(void);
void fz_emu_kick(void); /* from a signal handler: ends a run that hangs */

/* ---- check.c ------------------------------------------------------------------------------------- */

struct x86_cpu;
struct x86_cpu *fz_emu_cpu(void); /* emu.c */
/* What is wrong in c's translations, told on stdout; adds their number to *n. */
unsigned fz_check_code(const struct x86_cpu *c, unsigned *n);

/* ---- report.c ---------------------------------------------------------------------------------- */

/* Compares; prints nothing. Memory of all regions included. */
bool fz_equal(const struct fz_case *k, const struct fz_result *n,
	      const struct fz_result *e);
/* Prints what differs. */
void fz_report_state(const struct fz_case *k, const struct fz_result *n,
		     const struct fz_result *e);
void fz_report(const struct fz_case *k, const struct fz_result *n,
	       const struct fz_result *e);
void fz_disassemble(const struct fz_case *k, char *buf, size_t size);

#endif

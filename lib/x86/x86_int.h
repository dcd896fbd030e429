/*
 * x86/x86_int.h - inside the processor: its state, decoded instructions, memory access.
 * Private to lib/x86. Everything here runs in the vCPU thread unless it says otherwise.
 *
 * How it fits together:
 *   decode.c   bytes -> struct insn by the opcode tables (optab*.c), which read like the manual
 *   block.c    runs of instructions, keyed by physical address and mode; code pages
 *   run.c      the loop: requests, interrupts, blocks, exceptions
 *   op_*.c     one handler per instruction, named after it: op_add(), op_lgdt()
 *   mmu.c      TLB fill: page walks, access to memory that is not on the fast path
 *   except.c   exceptions and interrupts; seg.c: segments; far.c, task.c: far transfers
 *   vec_*.c    vector, x87 and MMX instructions, executed as the host's own
 *
 * Faults: x86_raise() leaves the handler by longjmp. A handler therefore does all loads, checks
 * and stores that can fault before it changes a register (or restores it).
 */
#ifndef X86_INT_H
#define X86_INT_H

#include <setjmp.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "x86/x86.h"

/* ---- flags ------------------------------------------------------------------------------- */

enum {
	FL_CF = 1 << 0,
	FL_PF = 1 << 2,
	FL_AF = 1 << 4,
	FL_ZF = 1 << 6,
	FL_SF = 1 << 7,
	FL_TF = 1 << 8,
	FL_IF = 1 << 9,
	FL_DF = 1 << 10,
	FL_OF = 1 << 11,
	FL_IOPL = 3 << 12,
	FL_NT = 1 << 14,
	FL_RF = 1 << 16,
	FL_VM = 1 << 17,
	FL_AC = 1 << 18,
	FL_VIF = 1 << 19,
	FL_VIP = 1 << 20,
	FL_ID = 1 << 21,
};

#define FL_STATUS (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

enum { /* exception vectors */
       EX_DE = 0,
       EX_DB = 1,
       EX_NMI = 2,
       EX_BP = 3,
       EX_OF = 4,
       EX_BR = 5,
       EX_UD = 6,
       EX_NM = 7,
       EX_DF = 8,
       EX_TS = 10,
       EX_NP = 11,
       EX_SS = 12,
       EX_GP = 13,
       EX_PF = 14,
       EX_MF = 16,
       EX_AC = 17,
       EX_MC = 18,
       EX_XM = 19,
};

enum {
	CR0_PE = 1 << 0,
	CR0_MP = 1 << 1,
	CR0_EM = 1 << 2,
	CR0_TS = 1 << 3,
	CR0_ET = 1 << 4,
	CR0_NE = 1 << 5,
	CR0_WP = 1 << 16,
	CR0_AM = 1 << 18,
	CR0_NW = 1 << 29,
	CR0_CD = 1 << 30,
};
#define CR0_PG (1u << 31)

enum {
	CR4_VME = 1 << 0,
	CR4_PVI = 1 << 1,
	CR4_TSD = 1 << 2,
	CR4_DE = 1 << 3,
	CR4_PSE = 1 << 4,
	CR4_PAE = 1 << 5,
	CR4_MCE = 1 << 6,
	CR4_PGE = 1 << 7,
	CR4_PCE = 1 << 8,
	CR4_OSFXSR = 1 << 9,
	CR4_OSXMMEXCPT = 1 << 10,
	CR4_UMIP = 1 << 11,
	CR4_FSGSBASE = 1 << 16,
	CR4_PCIDE = 1 << 17,
	CR4_OSXSAVE = 1 << 18,
	CR4_SMEP = 1 << 20,
	CR4_SMAP = 1 << 21,
};

enum { EFER_SCE = 1 << 0, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11 };

/* ---- decoded instructions ------------------------------------------------------------------ */

struct insn;
typedef void (*op_fn)(struct x86_cpu *c, const struct insn *i);

/*
 * Registers are byte offsets into x86_cpu.gpr[], so that AH..BH need no special case
 * (AH = offset 1). Offset R_ZERO names an entry that is always 0 (no base, no index).
 */
#define R_OFF(n) ((n)*8)
#define R_ZERO   R_OFF(16)
#define R_BLOCK \
	R_OFF(17) /* c->block_rip: the base of rip-relative operands (block.c) */

/* Segments in address calculation: 0-5 as x86_seg_id; SEG_FLAT has base 0 and is never checked. */
enum { SEG_FLAT = X86_NSEG };

enum insn_flag {
	I_LOCK = 1 << 0,
	I_REP = 1 << 1,    /* F3 */
	I_REPNE = 1 << 2,  /* F2 */
	I_MEM = 1 << 3,    /* modrm names memory: ea fields are valid */
	I_RIPREL = 1 << 4, /* ea is relative to the next instruction */
	I_SEGCHK =
		1
		<< 5, /* the segment's limit and rights are to be checked (not 64-bit mode) */
	I_END = 1
		<< 6, /* when execution leaves the block here, the handler has set c->rip */
	I_REX = 1 << 7,
	I_OPSZ = 1 << 8, /* a 66 prefix was there */
	I_VEX = 1 << 9,
	I_EVEX = 1 << 10,
	I_L1 = 1 << 11, /* VEX.L: 256 bits */
	I_W = 1 << 12,  /* REX.W or VEX.W */
	I_REL = 1
		<< 13, /* near branch: imm is relative to the next instruction; in a block, to
			     the block's start */
	I_NEAR =
		1
		<< 14, /* (block.c) the target of a near branch is in the block's own page */
	I_STOP = 1 << 15, /* ends the block, and execution goes on behind it */
};

/* One decoded instruction: 48 bytes, so that a block stays in the cache. */
struct insn {
	op_fn fn;
	uint64_t
		imm; /* immediate, sign-extended as the instruction says; far pointers: offset */
	int32_t disp;   /* displacement of the memory operand */
	uint16_t flags; /* enum insn_flag */
	uint16_t off;   /* of the instruction from the block's start, in bytes */
	uint8_t len;    /* in bytes, 1..15 */
	uint8_t osize;  /* operand size in bytes: 1, 2, 4, 8 (vectors: 16, 32) */
	uint8_t asize;  /* address size in bytes: 2, 4, 8 */
	uint8_t seg;    /* of the memory operand */
	uint8_t reg; /* modrm.reg (or opcode's register): gpr byte offset; vectors: number */
	uint8_t rm; /* modrm.rm when it is a register: gpr byte offset; vectors: number */
	uint8_t vvvv;  /* VEX.vvvv: number of the third register */
	uint8_t base;  /* memory operand: gpr byte offset, or R_ZERO */
	uint8_t index; /* likewise */
	uint8_t scale; /* shift of index: 0..3 */
	uint8_t op;    /* opcode byte, the last one */
	uint8_t modrm; /* as it was in the instruction */
	uint16_t sel;  /* far pointers: selector; else free for the handler's own use */
	uint8_t idx;   /* (block.c) number of the instruction in its block */
	uint8_t flat; /* 32-bit code whose DS, ES and SS are flat (decode.h): the stack is, too */
	const void *
		data; /* the handler's own: a vector instruction's code; branches: next block */
};

/* ---- TLB ------------------------------------------------------------------------------------- */

#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))

#define TLB_BITS  10
#define TLB_SIZE  (1u << TLB_BITS)
/*
 * A page has its place for reads and execution by its number's low bits, and the one for writes TLB_WRITE
 * places further: what is copied does not take its copy's place.
 */
#define TLB_WRITE (TLB_SIZE / 2)
#define TLB_SLOTS (TLB_SIZE + TLB_WRITE)
/* A tag that no page address equals, nor one with a few low bits (alignment, checked at once). */
#define TLB_NONE  0xfffull

/*
 * A translation of one 4 KiB page. tag_* is the virtual page address where that access may use
 * `addend` directly, else TLB_NONE: write tags are absent from clean pages, ROM, device memory,
 * and pages that hold decoded code. host address = virtual address + addend.
 */
struct tlb_entry {
	uint64_t tag_read, tag_write, tag_exec;
	uint64_t addend;
	uint64_t gpa; /* page's guest-physical address */
	uint64_t
		va; /* virtual page of this entry for the slow paths, TLB_NONE = empty */
	uint8_t prot;   /* enum tlb_prot */
	uint8_t global; /* survives MOV CR3 */
	uint16_t pcid;
	uint32_t spare;
	void *host; /* NULL: device memory */
};

enum tlb_prot { PROT_R = 1, PROT_W = 2, PROT_X = 4, PROT_ROM = 8 };

/* Who accesses: each has its own TLB, so that CPL and EFLAGS.AC changes need no flush. */
enum mmu_mode {
	MMU_USER,    /* CPL 3 */
	MMU_KERN,    /* CPL 0-2, SMAP applies (EFLAGS.AC = 0 or implicit access) */
	MMU_KERN_AC, /* CPL 0-2, EFLAGS.AC = 1: SMAP suspended */
	MMU_USER_AC, /* CPL 3, alignment is checked: never the fast path for data */
	MMU_MODES,
};

/* Look-ups that a translation keeps (jit/trans_mem.c). */
#define JIT_GROUPS 16

/*
 * Places in loops remember their page: JIT_SITES of them. An access at most `room` bytes into the page
 * needs no look-up; 0: the page is not known.
 */
#define JIT_SITES 4096

struct jit_site {
	uint64_t page, addend;
};

/* ---- the processor ----------------------------------------------------------------------------- */

/* Bits of x86_cpu.request: looked at before each block. */
enum {
	REQ_KICK = 1 << 0,
	REQ_IRQ = 1 << 1,
	REQ_NMI = 1 << 2,
	REQ_INIT = 1 << 3,
	REQ_SIPI = 1 << 4,
	REQ_SAFEPOINT = 1 << 5, /* another vCPU waits for us (system.c) */
	REQ_SHADOW =
		1 << 6, /* interrupt shadow: run one instruction, then look again */
	REQ_TRAP =
		1
		<< 7, /* single step or a data breakpoint hit: #DB after the instruction */
	REQ_CODE = 1 << 8, /* code was written: the translator looks where */
	REQ_JIT =
		1
		<< 9, /* always, with a translator or when counting: blocks end in run.c */
};

struct exc {
	uint8_t vec;
	bool has_code, pending;
	bool soft; /* INT n, INT3, INTO: gate DPL is checked, rip is the next instruction's */
	bool trap; /* reported behind the instruction: the frame's RF is 0 */
	bool irq;  /* an external interrupt or NMI */
	uint64_t
		rip; /* soft, ICEBP: of the instruction itself, for faults of its delivery */
	uint32_t code;
};

struct block_cache;
struct jit;
struct lockstep;
struct vec_cache;

/* Guest state that is in the host's registers at the moment, and in c->xsave out of date. */
enum fp_live {
	FP_LIVE_X87 =
		1
		<< 0, /* the x87 registers and control word: no exception is unmasked */
	FP_LIVE_MXCSR = 1 << 1,
};

/*
 * The status flags live apart, as LAHF and SETO leave them: flags.lo is the low byte of EFLAGS
 * (SF ZF AF PF CF; bit 1 set), flags.of is 0 or 1. Handlers compute them by the host's own
 * instruction followed by lahf and seto, and store the 16 bits at once. `rflags` holds all others
 * (status bits there are 0).
 */
union status {
	uint16_t w;
	struct {
		uint8_t of; /* AL of "lahf; seto %al" */
		uint8_t lo; /* AH */
	};
};

struct x86_cpu {
	/* hot: first cache lines */
	union {
		uint64_t gpr[18]; /* [16] is always 0: R_ZERO */
		struct {
			uint64_t gpr_[16], zero;
			uint64_t block_rip; /* rip of the running block's start */
		};
	};
	union status st;
	_Atomic uint32_t request; /* REQ_*; any thread */
	uint64_t rip;           /* valid between blocks; in a handler use insn_rip() */
	const struct insn *cur; /* running instruction; NULL outside a block */
	const struct insn *
		end; /* one past the last; lowered to cur + 1 to leave the block early */
	struct tlb_entry *tlb;           /* = tlbs[mmu_mode] */
	uint64_t seg_base[X86_NSEG + 1]; /* copies of seg[].base; [SEG_FLAT] = 0 */

	uint64_t rflags;
	uint8_t cpl;
	uint8_t mmu_mode;   /* enum mmu_mode of explicit accesses now */
	uint8_t code_size;  /* 2, 4 or 8: CS.D/L */
	uint8_t stack_size; /* 2, 4 or 8: SS.B, or 8 in 64-bit mode */
	bool long_mode;     /* EFER.LMA */
	struct x86_seg seg[X86_NSEG];
	struct x86_dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, xcr0, efer, apic_base;
	uint64_t dr[8];
	uint64_t pdpte[4];
	struct x86_events ev;
	struct exc exc;        /* being raised */
	struct exc delivering; /* whose delivery raised it: double fault logic */
	uint64_t exc_cr2;
	jmp_buf jmp; /* in x86_run(): the way out of a handler; __builtin_setjmp is fine too */

	/* MSRs without a place above */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, misc_enable, tsc_aux, spec_ctrl, xss, mcg_status, feature_control;
	uint64_t mtrr_def_type, mtrr_fix[11], mtrr_var[16], tsc_adjust;
	uint64_t tsc_offset; /* guest TSC = host TSC + offset */

	/* x87, SSE, AVX in the XSAVE standard format (offset 0: FXSAVE image; AVX at 576) */
	uint8_t xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));
	uint8_t fp_live; /* enum fp_live: what is in the host's registers: x86_fp_sync() */

	/* the translator's (jit/) */
	struct jit *jit;                /* owned; NULL: everything is interpreted */
	uint64_t jit_sp;                /* the host's rsp while translated code runs */
	void *jit_link;                 /* the jump by which it was left */
	uint64_t jit_tmp;               /* for one instruction */
	uint8_t jit_fp;                 /* enum lift_fp: what is not so (jit/fp.c) */
	bool jit_skip;                  /* the next block is to be interpreted */
	uint64_t jit_epoch;             /* grows when TLB entries are cleared */
	bool jit_stale;                 /* TLB entries were cleared or lost rights */
	uint64_t jit_group[JIT_GROUPS]; /* jit/trans_mem.c */
	struct lockstep *lockstep;      /* owned; jit/lockstep.c; NULL: off */

	struct x86_cpuid *cpuid; /* owned */
	size_t n_cpuid;
	uint8_t sipi_vector;
	unsigned index;
	bool shutdown;
	void *ctx; /* of the callbacks */
	struct x86_system *sys;
	const struct x86_ops *ops;  /* = sys->ops */
	struct block_cache *blocks; /* owned; block.c */
	struct x86_stats stats;
	struct { /* x86_system_profile() */
		bool on;
		uint8_t now;    /* enum x86_time */
		uint8_t before; /* the callback */
		uint64_t since; /* TSC */
		uint64_t ticks[X86_TIMES];
	} profile;
	/* count.c */
	bool counts;         /* instructions, exactly: stats.insns then ends at 0 */
	bool in_block;       /* one of several instructions runs: no callbacks */
	bool single;         /* the next one runs alone */
	uint64_t count_base; /* instructions executed - stats.insns */
	bool irq_waits; /* run.c: an interrupt may be there when EFLAGS.IF becomes 1 */
	bool rmw_exclusive; /* op_atomic.c: a locked access in steps has exclusivity */

	/* sys.h: MMU, debug registers, machine check */
	uint64_t phys_mask; /* bits that a physical address may have */
	uint64_t tlb_large
		[2][2]; /* first and last large-page address, lower and upper half */
	/* which entries are filled: with non-global translations, with global ones */
	uint64_t tlb_used[MMU_MODES][2][TLB_SLOTS / 64];
	bool tf_armed; /* TF was set when the running instruction began */
	bool rf_loaded; /* the running instruction loaded RF: it stays for the next one */
	bool ss_shadow;   /* it loaded SS: no #DB before the next one is done */
	uint8_t dr_watch; /* breakpoints enabled in DR7: bits 0-3 data, 4-7 execution */
	uint8_t dr_hit;   /* data breakpoints that the running instruction hit */
	uint64_t mcg_ctl, mci[40], hwcr;
	uint32_t feat; /* of CPUID, those asked for often: enum feature (sys.h) */
	/* jit/trans_mem.c */
	struct jit_site jit_site[JIT_SITES];
	uint64_t jit_room[JIT_SITES];
	uint64_t jit_known[JIT_SITES / 64]; /* a bit for each room that is not 0 */
	bool jit_sites_known;
	struct tlb_entry tlbs[MMU_MODES][TLB_SLOTS] __attribute__((aligned(64)));
};

/* From here on time is that; returns what it was. */
static inline enum x86_time time_is(struct x86_cpu *c, enum x86_time what)
{
	enum x86_time was = (enum x86_time)c->profile.now;
	uint64_t now;

	if (likely(!c->profile.on))
		return was;
	now = __builtin_ia32_rdtsc();
	c->profile.ticks[was] += now - c->profile.since;
	c->profile.since = now;
	c->profile.now = (uint8_t)what;
	return was;
}

/* ---- small accessors ------------------------------------------------------------------------------ */

static inline uint64_t *reg64(struct x86_cpu *c, unsigned off)
{
	return (uint64_t *)((char *)c->gpr + off);
}

static inline uint32_t *reg32(struct x86_cpu *c, unsigned off)
{
	return (uint32_t *)((char *)c->gpr + off);
}

static inline uint16_t *reg16(struct x86_cpu *c, unsigned off)
{
	return (uint16_t *)((char *)c->gpr + off);
}

static inline uint8_t *reg8(struct x86_cpu *c, unsigned off)
{
	return (uint8_t *)c->gpr + off;
}

/* Reads the register at byte offset `off` as `size` bytes, zero-extended. */
static inline uint64_t reg_get(struct x86_cpu *c, unsigned off, unsigned size)
{
	switch (size) {
	case 1: return *reg8(c, off);
	case 2: return *reg16(c, off);
	case 4: return *reg32(c, off);
	default: return *reg64(c, off);
	}
}

/* Writes it; 32-bit writes clear the upper half, smaller ones keep the rest. */
static inline void reg_set(struct x86_cpu *c, unsigned off, unsigned size, uint64_t v)
{
	switch (size) {
	case 1: *reg8(c, off) = (uint8_t)v; break;
	case 2: *reg16(c, off) = (uint16_t)v; break;
	case 4: *reg64(c, off) = (uint32_t)v; break;
	default: *reg64(c, off) = v; break;
	}
}

/* rip of the running instruction, and of the one behind it (wrapped to the code size). */
static inline uint64_t rip_wrap(const struct x86_cpu *c, uint64_t rip)
{
	return c->code_size == 8   ? rip
	       : c->code_size == 4 ? (uint32_t)rip
				   : (uint16_t)rip;
}

static inline uint64_t insn_rip(const struct x86_cpu *c, const struct insn *i)
{
	return rip_wrap(c, c->block_rip + i->off);
}

static inline uint64_t next_rip(const struct x86_cpu *c, const struct insn *i)
{
	return rip_wrap(c, c->block_rip + i->off + i->len);
}

static inline bool in_long64(const struct x86_cpu *c)
{
	return c->code_size == 8;
}

static inline bool in_protected(const struct x86_cpu *c) /* and not virtual-8086 */
{
	return (c->cr0 & CR0_PE) && !(c->rflags & FL_VM);
}

/* EFLAGS as the guest sees it. */
static inline uint64_t rflags_get(const struct x86_cpu *c)
{
	return c->rflags | 2 | (c->st.lo & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) |
	       (c->st.of ? FL_OF : 0);
}

/* Sets the six status bits from `v`, nothing else. */
static inline void status_set(struct x86_cpu *c, uint64_t v)
{
	c->st.lo = (uint8_t)((v & 0xd5) | 2);
	c->st.of = !!(v & FL_OF);
}

/* ---- exceptions (except.c) ------------------------------------------------------------------------ */

/* Raises `vec` at the running instruction and does not return: longjmp to x86_run(). */
_Noreturn void x86_raise(struct x86_cpu *c, unsigned vec);
_Noreturn void x86_raise_code(struct x86_cpu *c, unsigned vec, uint32_t code);
/* #PF: sets the CR2 that delivery will load. */
_Noreturn void x86_raise_pf(struct x86_cpu *c, uint64_t va, uint32_t code);
/* INT n, INT3, INTO, ICEBP: c->rip must be the next instruction's; does not return. */
_Noreturn void x86_raise_soft(struct x86_cpu *c, unsigned vec, bool icebp);

/*
 * After x86_raise()'s longjmp, before delivery: the instruction that was left did not happen, and
 * c->rip is the exception's.
 */
void x86_abandon(struct x86_cpu *c);

/* Leaves the running instruction, which has done nothing yet, and has it run alone (count.c). */
#define JMP_ALONE 2 /* to longjmp(): no exception */
_Noreturn void x86_retry_alone(struct x86_cpu *c);

/*
 * Delivers c->exc (after x86_raise's longjmp): pushes the frame, enters the handler; contributory
 * exceptions become #DF, a fault while delivering that sets c->shutdown. May itself x86_raise().
 */
void x86_deliver_exception(struct x86_cpu *c);
/* Delivers external interrupt `vec` or NMI between instructions. May x86_raise(). */
void x86_deliver_interrupt(struct x86_cpu *c, unsigned vec);
/* After each instruction while TF or enabled breakpoints ask for it: raises #DB traps. */
void x86_check_traps(struct x86_cpu *c);
/* Before each instruction with REQ_TRAP: raises #DB when a breakpoint is at c->rip. */
void x86_check_break(struct x86_cpu *c);

/* Sets RFLAGS bits `mask` (status bits included) to those of v, and what hangs on them:
 * mmu_mode (AC), interrupt shadow, TF. */
void rflags_set(struct x86_cpu *c, uint64_t v, uint64_t mask);

/* Recomputes cpl-, CS-, CR-dependent fields: code_size, stack_size, long_mode, mmu_mode, seg_base. */
void x86_update_mode(struct x86_cpu *c);

/*
 * What run.c does with the requests of the same name, at a block boundary (cpu.c): INIT# (SDM 3A
 * table 9-1: TSC, MSRs, caches, x87 and SSE state stay), and the start of a processor that waits
 * for a start-up IPI, in real mode at vector << 12.
 */
void cpu_init_signal(struct x86_cpu *c);
void cpu_startup(struct x86_cpu *c, uint8_t vector);

/* ---- memory (mmu.c) ---------------------------------------------------------------------------------- */

enum access { ACC_READ, ACC_WRITE, ACC_EXEC };

/*
 * Slow paths, va = linear address, size 1, 2, 4, 8: TLB miss, page crossing, device memory, code
 * pages. Explicit accesses (mode = c->mmu_mode). They raise #PF.
 */
uint64_t mem_load_slow(struct x86_cpu *c, uint64_t va, unsigned size);
void mem_store_slow(struct x86_cpu *c, uint64_t va, unsigned size, uint64_t v);
/* Any length up to 4096 (vector, FXSAVE, task segments), any alignment; faults before it writes. */
void mem_read(struct x86_cpu *c, uint64_t va, void *buf, unsigned len);
void mem_write(struct x86_cpu *c, uint64_t va, const void *buf, unsigned len);
/* The same with supervisor rights whatever CPL is (descriptor tables, TSS, interrupt frames). */
void mem_read_sys(struct x86_cpu *c, uint64_t va, void *buf, unsigned len);
void mem_write_sys(struct x86_cpu *c, uint64_t va, const void *buf, unsigned len);

/*
 * Host address for a read-modify-write of `size` bytes at va that is checked for writing, dirty
 * marked and, when it holds decoded code, dropped from it. NULL when one host address cannot do
 * (page crossing, device memory): then the caller does it in steps, under x86_exclusive_begin()
 * when LOCK was given. Raises #PF.
 */
void *mem_rmw_ptr(struct x86_cpu *c, uint64_t va, unsigned size);

/* Raises what [va, va + len) raises before its pages are looked at: #GP(0) or #SS(0). */
void mem_check_range(struct x86_cpu *c, uint64_t va, unsigned len);
/* Checks that [va, va + len) can be written (len <= 4096) without writing it. Raises #PF. */
void mem_probe_write(struct x86_cpu *c, uint64_t va, unsigned len);

/* Translation for instruction fetch: the entry whose tag_exec matches va's page. Raises #PF. */
const struct tlb_entry *mem_fetch_page(struct x86_cpu *c, uint64_t va);

/* All translations; those of non-global pages; of one page; of one PCID. */
void tlb_flush_all(struct x86_cpu *c);
void tlb_flush_nonglobal(struct x86_cpu *c);
void tlb_flush_page(struct x86_cpu *c, uint64_t va);
/* Gives t the write tag that its page may have, or takes it away. (lockstep) */
void tlb_write_tag(struct x86_cpu *c, struct tlb_entry *t, bool give);
/* No access of translated code knows its page any more: rights were lost, or the places of the sites were given anew. */
void tlb_forget_sites(struct x86_cpu *c);
/* Takes the write tags away from the translations of guest-physical page `gpa`. */
void tlb_protect_code(struct x86_cpu *c, uint64_t gpa);

/* The place of va's page for reads and execution; for writes. */
static inline unsigned tlb_slot(uint64_t va, bool write)
{
	return ((va >> 12) & (TLB_SIZE - 1)) + (write ? TLB_WRITE : 0);
}

static inline struct tlb_entry *tlb_at(struct x86_cpu *c, uint64_t va, bool write)
{
	return &c->tlb[tlb_slot(va, write)];
}

/* Loads and stores at linear address va. A page-crossing access never matches the tag. */
#define MEM_FAST(bits)                                                              \
	static inline uint##bits##_t mem_load##bits(struct x86_cpu *c, uint64_t va) \
	{                                                                           \
		const struct tlb_entry *t = tlb_at(c, va, false);                   \
                                                                                    \
		if (likely(((va + bits / 8 - 1) & PAGE_MASK) == t->tag_read)) {     \
			uint##bits##_t v;                                           \
                                                                                    \
			__builtin_memcpy(&v, (const void *)(va + t->addend),        \
					 sizeof(v));                                \
			return v;                                                   \
		}                                                                   \
		return (uint##bits##_t)mem_load_slow(c, va, bits / 8);              \
	}                                                                           \
	static inline void mem_store##bits(struct x86_cpu *c, uint64_t va,          \
					   uint##bits##_t v)                        \
	{                                                                           \
		const struct tlb_entry *t = tlb_at(c, va, true);                    \
                                                                                    \
		if (likely(((va + bits / 8 - 1) & PAGE_MASK) == t->tag_write))      \
			__builtin_memcpy((void *)(va + t->addend), &v, sizeof(v));  \
		else                                                                \
			mem_store_slow(c, va, bits / 8, v);                         \
	}
MEM_FAST(8)
MEM_FAST(16)
MEM_FAST(32)
MEM_FAST(64)
#undef MEM_FAST

static inline uint64_t mem_load(struct x86_cpu *c, uint64_t va, unsigned size)
{
	switch (size) {
	case 1: return mem_load8(c, va);
	case 2: return mem_load16(c, va);
	case 4: return mem_load32(c, va);
	default: return mem_load64(c, va);
	}
}

static inline void mem_store(struct x86_cpu *c, uint64_t va, unsigned size, uint64_t v)
{
	switch (size) {
	case 1: mem_store8(c, va, (uint8_t)v); break;
	case 2: mem_store16(c, va, (uint16_t)v); break;
	case 4: mem_store32(c, va, (uint32_t)v); break;
	default: mem_store64(c, va, v); break;
	}
}

/* ---- segmentation (seg.c) ------------------------------------------------------------------------------ */

/*
 * Linear address of seg:off for an access of `len` bytes: limit, type and canonical checks, #GP(0)
 * or #SS(0). The fast case (flat segment) is inline in ea_linear().
 */
uint64_t seg_linear_checked(struct x86_cpu *c, unsigned seg, uint64_t off, unsigned len,
			    enum access acc);

/* Loads a segment register by the rules of MOV/POP/LxS in the current mode; raises. */
void seg_load(struct x86_cpu *c, unsigned seg, uint16_t sel);

/* Effective address (offset in the segment) of the memory operand, wrapped to the address size. */
static inline uint64_t ea_offset(struct x86_cpu *c, const struct insn *i)
{
	uint64_t a = *reg64(c, i->base) + (*reg64(c, i->index) << i->scale) +
		     (int64_t)i->disp;

	if (i->flags & I_RIPREL)
		a += c->block_rip + i->off + i->len;
	if (i->asize == 8)
		return a;
	return i->asize == 4 ? (uint32_t)a : (uint16_t)a;
}

/* Linear address of the memory operand for an access of `len` bytes; may raise #GP or #SS. */
static inline uint64_t ea_linear(struct x86_cpu *c, const struct insn *i, unsigned len,
				 enum access acc)
{
	uint64_t off = ea_offset(c, i);

	if (unlikely(i->flags & I_SEGCHK))
		return seg_linear_checked(c, i->seg, off, len, acc);
	return off +
	       c->seg_base
		       [i->seg]; /* 64-bit: the TLB holds no non-canonical page, so the
					     slow path raises #GP/#SS for those */
}

/* Pushes and pops with the current stack size and operand size `size`; rsp changes last. */
void stack_push(struct x86_cpu *c, unsigned size, uint64_t v);
uint64_t stack_peek(struct x86_cpu *c, unsigned size,
		    unsigned at); /* at: bytes above rsp */
void stack_drop(struct x86_cpu *c, unsigned bytes);
/* Raises unless `n` bytes could be pushed at linear address va. */
void stack_probe(struct x86_cpu *c, uint64_t va, unsigned n);

/* ---- decoding (decode.c), blocks (block.c) --------------------------------------------------------------- */

/* Largest number of instructions in a block. */
#define BLOCK_MAX 48

/* The mode bits that decoding depends on; part of a block's key. */
enum { MODE_16, MODE_32, MODE_64 };

/*
 * Decodes one instruction at bytes p[0 .. avail) for mode MODE_*. Returns its length (1..15) and
 * fills *i (off excluded), 0 when `avail` (< 15) is too short to tell. An undefined or too long
 * one decodes to op_ud() resp. op_gp() with the length read so far. Depends on nothing else: any
 * thread, no processor needed.
 */
unsigned x86_decode(const uint8_t *p, unsigned avail, unsigned mode, struct insn *i);

/* The cache of decoded blocks: NULL when there is no memory. free(NULL) is fine. */
struct block_cache *block_cache_new(void);
void block_cache_free(struct block_cache *bc);
/* Forgets all blocks; not inside a block. Never needed for correctness. */
void block_cache_flush(struct block_cache *bc);

/* ---- vector and x87 instructions (vec_*.c) ---------------------------------------------------------------- */

/* What decode.c needs of the vector tables before it can finish an instruction. */
struct vec_op; /* private to vec_*.c */

/*
 * The vector, MMX or x87 instruction with these: map 1 = 0F, 2 = 0F38, 3 = 0F3A, 0 = D8-DF (x87);
 * pp 0 = none, 1 = 66, 2 = F3, 3 = F2 (mandatory prefix or VEX.pp); flags I_VEX, I_EVEX, I_L1, I_W.
 * NULL: there is none, #UD. *has_imm8: an immediate byte follows.
 */
const struct vec_op *vec_find(unsigned map, uint8_t op, unsigned pp, unsigned flags,
			      uint8_t modrm, bool *has_imm8);

/* Completes *i (all fields but fn and data are filled; reg, rm, vvvv are register numbers). */
void vec_bind(const struct vec_op *v, unsigned map, unsigned pp, struct insn *i);

/* Handlers that decode.c's tables name (xsave.c, x87.c). */
void op_fxsave(struct x86_cpu *c, const struct insn *i);
void op_fxrstor(struct x86_cpu *c, const struct insn *i);
void op_ldmxcsr(struct x86_cpu *c, const struct insn *i);
void op_stmxcsr(struct x86_cpu *c, const struct insn *i);
void op_xsave(struct x86_cpu *c, const struct insn *i);
void op_xrstor(struct x86_cpu *c, const struct insn *i);
void op_xsaveopt(struct x86_cpu *c, const struct insn *i);
void op_xsavec(struct x86_cpu *c, const struct insn *i);
void op_fwait(struct x86_cpu *c, const struct insn *i);
void op_emms(struct x86_cpu *c, const struct insn *i);
/* XINUSE (SDM 1 13.6): the state components that are not in their initial state. XGETBV(1). */
uint64_t x86_xinuse(struct x86_cpu *c);

/* Code memory for vector instructions, made when a system is made. 0 or -errno. */
int x86_vec_init(struct x86_system *sys);
void x86_vec_fini(struct x86_system *sys);

/* Writes x87/MMX/MXCSR state that is live in the host's registers back to c->xsave, and gives the
 * host its own control words: before any callback and on leaving x86_run(). Cheap when nothing
 * is live. */
void x86_fp_sync(struct x86_cpu *c);
/* x87, SSE and AVX state in the standard format of XSAVE, all components in XSTATE_BV. */
void x86_fp_get(struct x86_cpu *c, uint8_t xsave[X86_XSAVE_SIZE]);
/* Components that XSTATE_BV does not have get their initial state. false: not a valid image. */
bool x86_fp_set(struct x86_cpu *c, const uint8_t xsave[X86_XSAVE_SIZE]);
void x86_fp_reset(struct x86_cpu *c, bool init); /* RESET# (false) or INIT# (true) */

/* ---- what processors share (system.c) --------------------------------------------------------------------------- */

/*
 * A guest page that holds decoded code. gen changes when code in it was written: blocks remember
 * the gen they were decoded at. chunks: bit n = bytes [64 n, 64 n + 64) are decoded somewhere;
 * 0 = the page may have write tags in TLBs.
 */
struct codepage {
	_Atomic uint32_t gen;
	_Atomic uint64_t chunks;
};

/* The entry of guest-physical page `gpa`; never NULL after x86_system_new() except out of memory. */
struct codepage *codepage_get(struct x86_system *sys, uint64_t gpa);
/*
 * Before decoding bytes [gpa, gpa + len) of one page: marks them. When the page had no code, all
 * processors lose their write tags for it before this returns (they pass a safepoint).
 */
void codepage_mark(struct x86_cpu *c, struct codepage *cp, uint64_t gpa, unsigned len);
/* A write to [gpa, gpa + len) of one page is about to happen: drops the code there (gen changes). If
 * it hits the running block, c->end is lowered so that the block ends behind this instruction. */
void codepage_written(struct x86_cpu *c, struct codepage *cp, uint64_t gpa,
		      unsigned len);

/* Stops all other processors of the system at a safepoint until _end: LOCK across pages. */
void x86_exclusive_begin(struct x86_cpu *c);
void x86_exclusive_end(struct x86_cpu *c);
/* At a block boundary with REQ_SAFEPOINT, and around callbacks: outside guest code. */
void x86_safepoint(struct x86_cpu *c);
void x86_leave_guest(struct x86_cpu *c);
void x86_enter_guest(struct x86_cpu *c);

struct x86_system {
	const struct x86_ops *ops;
	void *ctx;
	const struct log *log;
	struct x86_cpu *cpus[256];
	unsigned n_cpus;
	void *priv;               /* of system.c: code page table, safepoint lock */
	bool translates;          /* processors have a translator */
	bool lockstep;            /* and compare it with the interpreter */
	bool profile;             /* they note what their time goes to */
	bool counts;              /* they count instructions exactly */
	size_t code_cache;        /* bytes of host code for each, at most */
	unsigned translate_after; /* times a block is interpreted before */
	struct vec_cache *vec;    /* of vec_cache.c: host code of vector instructions */
};

/* ---- handlers that more than one file names --------------------------------------------------------------------- */

void op_ud(struct x86_cpu *c, const struct insn *i); /* raises #UD */
void op_gp(struct x86_cpu *c,
	   const struct insn *i); /* raises #GP(0): longer than 15 bytes */

#endif

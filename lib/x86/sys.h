/*
 * x86/sys.h - what the files of the system side share: memory with given rights, descriptors,
 * prospective stacks, privilege checks. Private to mmu.c, walk.c, system.c, cpu.c, except.c, seg.c,
 * far.c, task.c, op_sys*.c, op_io.c, msr.c, cpuid.c. vCPU thread.
 */
#ifndef X86_SYS_H
#define X86_SYS_H

#include "x86/jit/lockstep.h"
#include "x86/ops.h"

/* CPUID features that handlers ask for (x86_cpu.feat). */
enum feature {
	FEAT_AMD = 1 << 0, /* or Hygon */
	FEAT_RDTSCP = 1 << 1,
	FEAT_RDPID = 1 << 2,
	FEAT_SMAP = 1 << 3,
	FEAT_INVPCID = 1 << 4,
	FEAT_MONITOR = 1 << 5,
};

/* ---- walk.c: page tables --------------------------------------------------------------------- */

/* Bits of a #PF error code. */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

struct walk {
	uint64_t gpa; /* of the 4 KiB page */
	uint8_t prot; /* enum tlb_prot; PROT_W only when the dirty flag is set */
	bool global;
	uint8_t shift; /* of the page size: 12, 21, 22, 30 */
};

/*
 * Translates va for an access by `mode`: permissions are checked, accessed and dirty flags set.
 * True with *w; false with the error code of the #PF in *code.
 */
bool mmu_walk(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, enum access acc,
	      struct walk *w, uint32_t *code);

/* MOV CR3 and its like under PAE paging: reads the four PDPTEs of cr3; #GP(0) when reserved. */
void mmu_load_pdptes(struct x86_cpu *c, uint64_t cr3);

static inline bool is_pae_legacy(const struct x86_cpu *c)
{
	return (c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE) && !c->long_mode;
}

static inline bool is_canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

/* ---- mmu.c: memory with the rights of `mode` --------------------------------------------------- */

void mmu_read(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, void *buf,
	      unsigned len);
void mmu_write(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, const void *buf,
	       unsigned len);
/* Raises what an access to [va, va + len) would raise; len <= 4096. */
void mmu_probe(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, unsigned len,
	       enum access acc);
/* The same as mem_rmw_ptr(). */
void *mmu_rmw_ptr(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, unsigned size);

/* Implicit little-endian loads and stores with supervisor rights. */
static inline uint64_t sys_load(struct x86_cpu *c, uint64_t va, unsigned size)
{
	uint64_t v = 0;

	mem_read_sys(c, va, &v, size);
	return v;
}

static inline void sys_store(struct x86_cpu *c, uint64_t va, unsigned size, uint64_t v)
{
	mem_write_sys(c, va, &v, size);
}

/* ---- system.c ---------------------------------------------------------------------------------- */

/*
 * Host address of guest page `gpa` (page-aligned) as ops->page gives it, remembered until
 * x86_flush_memory(). NULL: no memory.
 */
void *sys_page(struct x86_cpu *c, uint64_t gpa, bool *writable);
/* The entry of a page when it has one: NULL means that no code was ever decoded there. */
struct codepage *sys_codepage(struct x86_system *sys, uint64_t gpa);
/* 0 or -EINVAL: the place is taken. */
int sys_attach(struct x86_system *sys, struct x86_cpu *c);
void sys_detach(struct x86_system *sys, struct x86_cpu *c);
uint64_t sys_tsc_base(const struct x86_system *sys);

/* Around callbacks that may take locks or run device models. */
static inline void callback_begin(struct x86_cpu *c)
{
	lockstep_once(c);
	if (unlikely(c->in_block))
		x86_retry_alone(c);
	x86_fp_sync(c);
	x86_leave_guest(c);
	c->profile.before = (uint8_t)time_is(c, X86_TIME_DEVICES);
}

static inline void callback_end(struct x86_cpu *c)
{
	time_is(c, (enum x86_time)c->profile.before);
	x86_enter_guest(c);
}

static inline uint64_t host_tsc(void)
{
	return __builtin_ia32_rdtsc();
}

/* What the processor's TSC is an offset from. */
static inline uint64_t tsc_source(struct x86_cpu *c)
{
	return unlikely(c->ops->tsc != NULL) ? c->ops->tsc(c->ctx) : host_tsc();
}

/* ---- seg.c: descriptors -------------------------------------------------------------------------- */

enum { /* system descriptor types */
       DT_TSS16 = 1,
       DT_LDT = 2,
       DT_TSS16_BUSY = 3,
       DT_CALL16 = 4,
       DT_TASK = 5,
       DT_INT16 = 6,
       DT_TRAP16 = 7,
       DT_TSS32 = 9,
       DT_TSS32_BUSY = 11,
       DT_CALL32 = 12,
       DT_INT32 = 14,
       DT_TRAP32 = 15,
};

enum { /* type bits of code and data segments */
       TYPE_A = 1,
       TYPE_W = 2, /* data: writable */
       TYPE_R = 2, /* code: readable */
       TYPE_E = 4, /* data: expand-down */
       TYPE_C = 4, /* code: conforming */
       TYPE_CODE = 8,
};

/* A descriptor, parsed. For gates only type, dpl, present and raw mean something. */
struct desc {
	uint64_t raw, raw_hi; /* raw_hi: the second half of 16-byte descriptors */
	uint64_t va;          /* where it is */
	struct x86_seg seg;   /* sel as given */
	uint8_t type, dpl;
	bool s, present;
};

/* EXT bit of error codes: an event other than INT n is being delivered. */
static inline uint32_t ext_bit(const struct x86_cpu *c)
{
	return c->delivering.pending && !c->delivering.soft;
}

static inline bool sel_is_null(uint16_t sel)
{
	return (sel & 0xfffc) == 0;
}

/* Error code of a selector. */
static inline uint32_t sel_err(const struct x86_cpu *c, uint16_t sel)
{
	return (sel & 0xfffcu) | ext_bit(c);
}

/*
 * Reads the descriptor of `sel` (not null). Beyond its table: raises `vec` with the selector as
 * code. wide: system descriptors of 16 bytes (long mode); the upper half's type must be 0.
 */
void desc_read(struct x86_cpu *c, uint16_t sel, unsigned vec, bool wide,
	       struct desc *d);
/* The code segment that a gate names, as calls and interrupts through it ask for; raises. */
void gate_code(struct x86_cpu *c, uint16_t sel, struct desc *cs);
/* The same without raising: false when beyond the table. */
bool desc_try(struct x86_cpu *c, uint16_t sel, bool wide, struct desc *d);
/* Sets the accessed flag of a code or data descriptor in memory, if it is clear. */
void desc_accessed(struct x86_cpu *c, struct desc *d);
/* Sets (true) or clears the busy flag of a TSS descriptor in memory. */
void desc_busy(struct x86_cpu *c, const struct desc *d, bool busy);

static inline bool desc_is_code(const struct desc *d)
{
	return d->s && (d->type & TYPE_CODE);
}

static inline bool desc_is_conforming(const struct desc *d)
{
	return (d->type & (TYPE_CODE | TYPE_C)) == (TYPE_CODE | TYPE_C);
}

static inline bool desc_is_writable_data(const struct desc *d)
{
	return d->s && (d->type & (TYPE_CODE | TYPE_W)) == TYPE_W;
}

static inline bool seg_is_usable(const struct x86_seg *s)
{
	return s->attr & X86_ATTR_P;
}

static inline unsigned seg_dpl(const struct x86_seg *s)
{
	return s->attr >> X86_ATTR_DPL_SHIFT & 3;
}

/* Puts a segment register; base copies follow. Not for CS and SS (update_mode is needed). */
void seg_set(struct x86_cpu *c, unsigned seg, const struct x86_seg *s);
/* What a real-mode or V86 load of `sel` makes of it. */
void seg_set_real(struct x86_cpu *c, unsigned seg, uint16_t sel);
/* An unusable register with selector `sel`. */
void seg_set_null(struct x86_cpu *c, unsigned seg, uint16_t sel);
/* Loads LDTR from `sel`; faults are `vec`, not present `np`. */
void seg_load_ldtr(struct x86_cpu *c, uint16_t sel, unsigned vec, unsigned np);
/* Checks an SS of a stack switch to privilege `cpl`: #TS, #SS with the selector. */
void seg_check_inner_ss(struct x86_cpu *c, uint16_t sel, unsigned cpl, struct desc *d);
/* After a return to outer privilege: data segments that are no longer allowed become null. */
void seg_drop_privileged(struct x86_cpu *c);

/* ---- stacks that are not yet the processor's ------------------------------------------------------- */

struct stack {
	struct x86_seg ss;
	uint64_t sp;
	uint8_t width; /* of sp: 2, 4, 8 */
	uint8_t mode;  /* enum mmu_mode of the accesses */
	uint32_t err;  /* code of #SS */
};

/* The current stack. */
void stack_now(struct x86_cpu *c, struct stack *s);
void stack_put(struct x86_cpu *c, struct stack *s, unsigned size, uint64_t v);
uint64_t stack_take(struct x86_cpu *c, struct stack *s, unsigned size);
/* Makes s->sp the stack pointer, respecting its width; SS is not touched. */
void stack_commit_sp(struct x86_cpu *c, const struct stack *s);

/* ---- far.c, task.c, except.c ----------------------------------------------------------------------- */

/*
 * A code segment to go to: checked by desc, loaded by cs_commit(). `cpl` is the new privilege,
 * also of the selector.
 */
void cs_commit(struct x86_cpu *c, const struct desc *d, unsigned cpl);
/* Raises #GP(0) (with EXT) when `rip` is outside the code segment described by d. */
void cs_check_rip(struct x86_cpu *c, const struct desc *d, uint64_t rip);

/* SS:SP of the TSS for privilege `cpl`, checked; sets up *s. Not in long mode. */
void tss_inner_stack(struct x86_cpu *c, unsigned cpl, struct stack *s);
/* RSPn (ist 0) or ISTn of the 64-bit TSS. */
uint64_t tss_rsp(struct x86_cpu *c, unsigned cpl, unsigned ist);

enum task_why { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };

/*
 * Hardware task switch to TSS `sel`. has_code: `code` is pushed on the new stack (exceptions).
 * c->rip must be what the old task goes on with. Raises.
 */
void task_switch(struct x86_cpu *c, uint16_t sel, enum task_why why, bool has_code,
		 uint32_t code);
/* Delivers an interrupt of virtual-8086 mode through the IVT (redirection by VME). */
void v86_redirect(struct x86_cpu *c, unsigned vec);
/* Records what data and I/O breakpoints an access of [addr, addr + len) hits. */
void debug_access(struct x86_cpu *c, uint64_t addr, unsigned len, bool write, bool io);
/* After DR0-3, DR7, CR4.DE or TF changed. */
void debug_update(struct x86_cpu *c);

/* CR0, CR4, EFER with the checks of MOV; raise #GP(0). */
void cr0_write(struct x86_cpu *c, uint64_t v);
void cr3_write(struct x86_cpu *c, uint64_t v);
void cr4_write(struct x86_cpu *c, uint64_t v);

static inline unsigned iopl(const struct x86_cpu *c)
{
	return c->rflags >> 12 & 3;
}

static inline bool cpuid_is_amd(const struct x86_cpu *c)
{
	return c->feat & FEAT_AMD;
}

static inline bool in_v86(const struct x86_cpu *c)
{
	return c->rflags & FL_VM;
}

static inline bool in_real(const struct x86_cpu *c)
{
	return !(c->cr0 & CR0_PE);
}

/* #GP(0) outside CPL 0. */
static inline void need_cpl0(struct x86_cpu *c)
{
	if (c->cpl)
		x86_raise_code(c, EX_GP, 0);
}

/* ---- cpuid.c ----------------------------------------------------------------------------------------- */

/* The leaf that CPUID finds, after limits; NULL: all zero. */
const struct x86_cpuid *cpuid_find(const struct x86_cpu *c, uint32_t leaf,
				   uint32_t sub);
/* Registers 0 eax .. 3 edx of a leaf, 0 when it is not there. */
uint32_t cpuid_reg(const struct x86_cpu *c, uint32_t leaf, uint32_t sub, unsigned reg);
/* Sets c->feat from the leaves. */
void cpuid_note_features(struct x86_cpu *c);

#endif

/*
 * x86fuzz/emu.c - runs a case on lib/x86: a processor with paging, at CPL 3, in a machine that is
 * nothing but memory.
 *
 * Each vector's handler is HLT at an address that tells the vector; the exception's frame is on the
 * supervisor stack. The kernel's own tables are at high addresses, as the host's are.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/x86.h"

/* Guest-physical memory: first the regions, then the tables. */
#define PHYS_PAGES 64u
#define PHYS_SIZE  (PHYS_PAGES * FZ_PAGE)

enum { /* pages behind the regions' */
       P_TABLES = 16,
       P_SYS = 48, /* GDT, IDT, TSS, handlers, stack: mapped at SYS */
};

#define SYS       0xffffc0de00000000ull
#define SYS_GDT   (SYS + 0x0000)
#define SYS_TSS   (SYS + 0x0200)
#define SYS_IDT   (SYS + 0x1000)
#define SYS_CODE  (SYS + 0x2000) /* 16 bytes a vector */
#define SYS_STACK (SYS + 0x4000) /* its top */

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40 };
#define PTE_NX (1ull << 63)

static struct {
	uint8_t *phys, *kept;
	unsigned region_page[FZ_N_MEM], tables;
	uint64_t cr3;
	struct x86_system *sys;
	struct x86_cpu *cpu;
	struct x86_regs base; /* what is the same in all cases */
} m;

/* ---- callbacks ------------------------------------------------------------------------------ */

static void *cb_page(void *ctx, uint64_t gpa, bool *writable)
{
	(void)ctx;
	*writable = true;
	return gpa < PHYS_SIZE ? m.phys + (gpa & ~(FZ_PAGE - 1)) : NULL;
}

static uint64_t cb_mmio_read(void *ctx, uint64_t gpa, unsigned size)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	return ~0ull;
}

static void cb_mmio_write(void *ctx, uint64_t gpa, unsigned size, uint64_t val)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	(void)val;
}

static uint32_t cb_in(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	(void)port;
	(void)size;
	return ~0u;
}

static void cb_out(void *ctx, uint16_t port, unsigned size, uint32_t val)
{
	(void)ctx;
	(void)port;
	(void)size;
	(void)val;
}

static int cb_irq_take(void *ctx)
{
	(void)ctx;
	return -1;
}

static bool cb_irq_ready(void *ctx)
{
	(void)ctx;
	return false;
}

static uint64_t cb_cr8_get(void *ctx)
{
	(void)ctx;
	return 0;
}

static void cb_cr8_set(void *ctx, uint64_t v)
{
	(void)ctx;
	(void)v;
}

static bool cb_msr_get(void *ctx, uint32_t msr, uint64_t *v)
{
	(void)ctx;
	(void)msr;
	(void)v;
	return false;
}

static bool cb_msr_set(void *ctx, uint32_t msr, uint64_t v)
{
	(void)ctx;
	(void)msr;
	(void)v;
	return false;
}

static uint64_t cb_hypercall(void *ctx, const uint64_t arg[5])
{
	(void)ctx;
	(void)arg;
	return ~0ull;
}

const struct x86_ops fz_quiet_ops = {
	.mmio_read = cb_mmio_read,
	.mmio_write = cb_mmio_write,
	.pio_in = cb_in,
	.pio_out = cb_out,
	.irq_take = cb_irq_take,
	.irq_ready = cb_irq_ready,
	.cr8_get = cb_cr8_get,
	.cr8_set = cb_cr8_set,
	.msr_get = cb_msr_get,
	.msr_set = cb_msr_set,
	.hypercall = cb_hypercall,
};

static struct x86_ops ops;

/* ---- the guest's tables ------------------------------------------------------------------------ */

static uint64_t table_new(void)
{
	return (uint64_t)m.tables++ * FZ_PAGE;
}

static void map_page(uint64_t va, uint64_t pa, uint64_t flags)
{
	uint64_t table = m.cr3;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *e = (uint64_t *)(m.phys + table) + (va >> shift & 511);

		if (!*e)
			*e = table_new() | PTE_P | PTE_W | PTE_U | PTE_A;
		table = *e & 0xffffffffff000;
	}
	((uint64_t *)(m.phys + table))[va >> 12 & 511] =
		pa | flags | PTE_P | PTE_A | PTE_D;
}

static void map_all(void)
{
	unsigned page = 1;

	m.tables = P_TABLES;
	m.cr3 = table_new();
	for (unsigned r = 0; r < FZ_N_MEM; r++) {
		const struct fz_region *g = &fz_regions[r];

		m.region_page[r] = page;
		for (unsigned n = 0; n < g->pages; n++, page++)
			map_page(g->va + n * FZ_PAGE, page * FZ_PAGE,
				 PTE_U | (g->write ? PTE_W : 0) |
					 (g->exec ? 0 : PTE_NX));
	}
	for (unsigned n = 0; n < 4; n++)
		map_page(SYS + n * FZ_PAGE, (P_SYS + n) * FZ_PAGE, PTE_W);
}

/* Gates of all vectors; INT3 and INTO from CPL 3. */
static void fill_tables(void)
{
	uint8_t *sys = m.phys + P_SYS * FZ_PAGE;
	static const uint64_t gdt[] = {
		[2] = 0x00af9b000000ffff, /* 10: kernel code */
		[3] = 0x00cf93000000ffff, /* 18: kernel data */
		[4] = 0x00cffb000000ffff, /* 23: 32-bit user code */
		[5] = 0x00cff3000000ffff, /* 2b: user data */
		[6] = 0x00affb000000ffff, /* 33: user code */
	};
	uint64_t rsp0 = SYS_STACK;

	memcpy(sys, gdt, sizeof(gdt));
	memcpy(sys + 0x200 + 4, &rsp0, 8);
	sys[0x200 + 102] = 104; /* no I/O bitmap */
	memset(sys + 0x2000, 0xf4, 16 * 256);
	for (unsigned v = 0; v < 256; v++) {
		uint64_t a = SYS_CODE + 16 * v, dpl = v == 3 || v == 4 ? 3 : 0;
		uint64_t gate[2] = {(a & 0xffff) | 0x10ull << 16 |
					    (0x8e | dpl << 5) << 40 |
					    (a >> 16 & 0xffff) << 48,
				    a >> 32};

		memcpy(sys + 0x1000 + 16 * v, gate, 16);
	}
}

static struct x86_seg segment(uint16_t sel, uint16_t attr)
{
	return (struct x86_seg){.sel = sel, .attr = attr, .limit = 0xffffffff};
}

static void fill_base(void)
{
	struct x86_regs *r = &m.base;

	x86_get_regs(m.cpu, r);
	r->cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
	r->cr3 = m.cr3;
	r->cr4 = 0x506e8; /* OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PGE MCE PAE DE */
	r->efer = 0xd01;  /* NXE LMA LME SCE */
	r->xcr0 = FZ_XCR0;
	for (unsigned s = X86_ES; s <= X86_GS; s++)
		r->seg[s] = segment(s >= X86_FS ? 0 : 0x2b, s >= X86_FS ? 0 : 0xc0f3);
	r->seg[X86_LDTR] = (struct x86_seg){0};
	r->seg[X86_TR] = (struct x86_seg){
		.sel = 0x40, .attr = 0x8b, .limit = 103, .base = SYS_TSS};
	r->gdtr = (struct x86_dtable){SYS_GDT, 0x37};
	r->idtr = (struct x86_dtable){SYS_IDT, 0xfff};
}

static void log_line(void *ctx, enum log_level level, const char *msg)
{
	(void)ctx;
	(void)level;
	printf("%s\n", msg);
}

static const struct log logger = {.emit = log_line, .level = LOG_ERROR};

bool fz_emu_init(bool translate, bool lockstep)
{
	static struct x86_cpuid leaves[128];
	size_t n = x86_cpuid_supported(leaves, 128);
	struct err err;

	m.phys = aligned_alloc(FZ_PAGE, PHYS_SIZE);
	if (!m.phys)
		return false;
	memset(m.phys, 0, PHYS_SIZE);
	map_all();
	fill_tables();
	ops = fz_quiet_ops;
	ops.page = cb_page;
	m.sys = x86_system_new(&ops, NULL, &logger);
	if (m.sys && translate)
		x86_system_translate(m.sys, 4 << 20, 1);
	if (m.sys && lockstep)
		x86_system_lockstep(m.sys);
	if (m.sys)
		m.cpu = x86_cpu_new(m.sys, 0, NULL, leaves, n, &err);
	if (!m.cpu) {
		fprintf(stderr, "x86fuzz: cannot make a processor\n");
		return false;
	}
	fill_base();
	return true;
}

uint8_t *fz_emu_mem(unsigned region)
{
	return m.phys + m.region_page[region] * FZ_PAGE;
}

void fz_emu_touched(unsigned region)
{
	x86_memory_written(m.sys, m.region_page[region] * FZ_PAGE,
			   fz_regions[region].pages * FZ_PAGE);
}

struct x86_cpu *fz_emu_cpu(void)
{
	return m.cpu;
}

void fz_emu_memory_keep(void)
{
	if (!m.kept)
		m.kept = aligned_alloc(FZ_PAGE, PHYS_SIZE);
	if (!m.kept)
		abort();
	memcpy(m.kept, m.phys, PHYS_SIZE);
}

void fz_emu_memory_restore(void)
{
	for (uint64_t gpa = 0; gpa < PHYS_SIZE; gpa += FZ_PAGE) {
		if (!memcmp(m.phys + gpa, m.kept + gpa, FZ_PAGE))
			continue;
		memcpy(m.phys + gpa, m.kept + gpa, FZ_PAGE);
		x86_memory_written(m.sys, gpa, FZ_PAGE);
	}
}

void fz_emu_kick(void)
{
	if (m.cpu)
		x86_kick(m.cpu);
}

/* ---- a case ------------------------------------------------------------------------------------ */

static bool pushes_code(unsigned vec)
{
	return vec == 8 || (vec >= 10 && vec <= 14) || vec == 17 || vec == 21;
}

/* The exception's frame is what the supervisor stack holds. */
static void take_frame(const struct x86_regs *g, struct fz_result *r)
{
	const uint8_t *top = m.phys + P_SYS * FZ_PAGE + (SYS_STACK - SYS);
	uint64_t frame[6]; /* error code, rip, cs, rflags, rsp, ss */

	memcpy(frame, top - sizeof(frame), sizeof(frame));
	r->vec = (unsigned)((g->rip - SYS_CODE) / 16);
	r->err = pushes_code(r->vec) ? frame[0] : 0;
	r->cr2 = g->cr2;
	r->s.rip = frame[1];
	r->s.rflags = frame[3];
	r->s.gpr[X86_RSP] = frame[4];
}

void fz_emu_run(const struct fz_case *k, struct fz_result *r)
{
	struct x86_regs g = m.base;
	enum x86_exit why;

	memcpy(g.gpr, k->in.gpr, sizeof(g.gpr));
	g.rip = k->in.rip;
	g.rflags = k->in.rflags;
	g.seg[X86_CS] = segment(k->m32 ? 0x23 : 0x33, k->m32 ? 0xc0fb : 0xa0fb);
	if (fz_kernel) {
		g.seg[X86_CS] = segment(0x10, k->m32 ? 0xc09b : 0xa09b);
		g.seg[X86_SS] = segment(0x18, 0xc093);
	}
	memcpy(g.xsave, k->in.xsave, FZ_XSAVE);
	memset(g.xsave + 512, 0, 64);
	g.xsave[512] = 7;
	if (x86_set_regs(m.cpu, &g) < 0) {
		fprintf(stderr, "x86fuzz: the processor does not take the state\n");
		exit(1);
	}
	why = x86_run(m.cpu);
	x86_get_regs(m.cpu, &g);
	memset(&r->s, 0, sizeof(r->s));
	memcpy(r->s.gpr, g.gpr, sizeof(g.gpr));
	memcpy(r->s.xsave, g.xsave, FZ_XSAVE);
	if (why == X86_EXIT_HALT) {
		take_frame(&g, r);
		return;
	}
	r->vec = why == X86_EXIT_KICK ? FZ_HANG : FZ_HANG + (unsigned)why;
	r->s.rip = g.rip;
	r->s.rflags = g.rflags;
}

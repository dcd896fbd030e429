/*
 * x86/debug.c - single steps and breakpoints: DR0-DR7. SDM 3B chapter 17. vCPU thread.
 *
 * While TF or a breakpoint is on, REQ_TRAP makes run.c execute one instruction at a time. Pages with
 * data breakpoints have no tags in the TLB (mmu.c), so every access to them comes by here.
 */
#include "x86/sys.h"

enum { DR7_RW_EXEC = 0, DR7_RW_WRITE = 1, DR7_RW_IO = 2, DR7_RW_ALL = 3 };

#define DR6_BS (1u << 14)

static unsigned bp_kind(const struct x86_cpu *c, unsigned n)
{
	return c->dr[7] >> (16 + n * 4) & 3;
}

static bool bp_enabled(const struct x86_cpu *c, unsigned n)
{
	return c->dr[7] >> (n * 2) & 3;
}

/* Length field: 1, 2, 8, 4. */
static unsigned bp_len(const struct x86_cpu *c, unsigned n)
{
	static const uint8_t len[4] = {1, 2, 8, 4};

	return len[c->dr[7] >> (18 + n * 4) & 3];
}

void debug_update(struct x86_cpu *c)
{
	uint8_t watch = 0;
	bool any = c->rflags & FL_TF;

	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = bp_kind(c, n);

		if (!bp_enabled(c, n))
			continue;
		any = true;
		if (kind == DR7_RW_EXEC)
			watch |= (uint8_t)(0x10 << n);
		else if (kind != DR7_RW_IO)
			watch |= (uint8_t)(1 << n);
	}
	if ((watch | c->dr_watch) & 15)
		tlb_flush_all(c); /* tags of watched pages come and go */
	c->dr_watch = watch;
	if (any)
		atomic_fetch_or(&c->request, REQ_TRAP);
	else
		atomic_fetch_and(&c->request, ~(uint32_t)REQ_TRAP);
}

void debug_access(struct x86_cpu *c, uint64_t addr, unsigned len, bool write, bool io)
{
	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = bp_kind(c, n), bl = bp_len(c, n);
		uint64_t first = c->dr[n] & ~(uint64_t)(bl - 1);

		if (!bp_enabled(c, n) || kind == DR7_RW_EXEC)
			continue;
		if (io ? kind != DR7_RW_IO : kind == DR7_RW_IO)
			continue;
		if (kind == DR7_RW_WRITE && !write)
			continue;
		if (addr - first < bl || first - addr < len)
			c->dr_hit |= (uint8_t)(1 << n);
	}
}

static _Noreturn void raise_db(struct x86_cpu *c, uint64_t bits)
{
	c->dr[6] |= bits;
	c->exc = (struct exc){.vec = EX_DB, .pending = true, .trap = true};
	c->stats.exceptions++;
	longjmp(c->jmp, 1);
}

void x86_check_break(struct x86_cpu *c)
{
	uint64_t va = c->rip, bits = 0;

	if (!(c->dr_watch >> 4) || c->rflags & FL_RF || c->ss_shadow)
		return;
	if (!in_long64(c))
		va = (uint32_t)(c->seg[X86_CS].base + c->rip);
	for (unsigned n = 0; n < 4; n++) {
		if (c->dr_watch & 0x10 << n && c->dr[n] == va)
			bits |= 1u << n;
	}
	if (bits)
		raise_db(c, bits);
}

void x86_check_traps(struct x86_cpu *c)
{
	uint64_t bits;
	bool tf = c->tf_armed;

	c->tf_armed = c->rflags & FL_TF;
	if (!c->rf_loaded)
		c->rflags &= ~(uint64_t)FL_RF;
	c->rf_loaded = false;
	if (c->ss_shadow) {
		c->ss_shadow = false;
		return;
	}
	bits = c->dr_hit;
	c->dr_hit = 0;
	if (tf)
		bits |= DR6_BS;
	if (bits)
		raise_db(c, bits);
}

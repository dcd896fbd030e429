/*
 * x86/mmu.c - the TLB, and memory access that is not on the fast path: misses, page crossings,
 * device memory, pages with decoded code, watched pages. SDM 3A chapter 4 and 5. vCPU thread.
 *
 * Order of a store to a page that holds code: first the bytes, then a fence, then the look at the
 * page's chunks. A processor that decodes does it the other way round (marks, then reads), so
 * either it sees the bytes, or the store sees the mark and makes what was decoded invalid.
 */
#include "x86/sys.h"
#include "x86/jit/lockstep.h"

#include <string.h>

/* ---- the TLB ---------------------------------------------------------------------------------- */

static void entry_clear(struct tlb_entry *t)
{
	t->tag_read = t->tag_write = t->tag_exec = TLB_NONE;
	t->va = TLB_NONE;
}

void tlb_forget_sites(struct x86_cpu *c)
{
	c->jit_stale = true;
	if (!c->jit_sites_known)
		return;
	c->jit_sites_known = false;
	for (unsigned n = 0; n < JIT_SITES / 64; n++) {
		for (uint64_t w = c->jit_known[n]; w; w &= w - 1)
			c->jit_room[n * 64 + (unsigned)__builtin_ctzll(w)] = 0;
		c->jit_known[n] = 0;
	}
}

static void flush_kind(struct x86_cpu *c, unsigned kind)
{
	lockstep_unmap(c);
	tlb_forget_sites(c);
	c->jit_epoch++;
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned n = 0; n < TLB_SLOTS / 64; n++) {
			uint64_t used = c->tlb_used[m][kind][n];

			c->tlb_used[m][kind][n] = 0;
			for (; used; used &= used - 1)
				entry_clear(
					&c->tlbs[m][n * 64 + __builtin_ctzll(used)]);
		}
	}
}

void tlb_flush_nonglobal(struct x86_cpu *c)
{
	flush_kind(c, 0);
}

void tlb_flush_all(struct x86_cpu *c)
{
	flush_kind(c, 0);
	flush_kind(c, 1);
	for (unsigned half = 0; half < 2; half++) {
		c->tlb_large[half][0] = ~0ull;
		c->tlb_large[half][1] = 0;
	}
}

/* All pieces of the large page at va. */
static void flush_large(struct x86_cpu *c, uint64_t va)
{
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned n = 0; n < TLB_SLOTS / 64; n++) {
			uint64_t used = c->tlb_used[m][0][n] | c->tlb_used[m][1][n];

			for (; used; used &= used - 1) {
				struct tlb_entry *t =
					&c->tlbs[m][n * 64 + __builtin_ctzll(used)];

				if (t->spare > 12 && !((t->va ^ va) >> t->spare))
					entry_clear(t);
			}
		}
	}
}

void tlb_flush_page(struct x86_cpu *c, uint64_t va)
{
	unsigned half = va >> 63;

	lockstep_unmap(c);
	tlb_forget_sites(c);
	c->jit_epoch++;
	va &= PAGE_MASK;
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned write = 0; write < 2; write++) {
			struct tlb_entry *t = &c->tlbs[m][tlb_slot(va, write)];

			if (t->va == va)
				entry_clear(t);
		}
	}
	if (va >= c->tlb_large[half][0] && va <= c->tlb_large[half][1])
		flush_large(c, va);
}

void tlb_protect_code(struct x86_cpu *c, uint64_t gpa)
{
	tlb_forget_sites(c);
	gpa &= PAGE_MASK;
	for (unsigned m = 0; m < MMU_MODES; m++) {
		for (unsigned n = 0; n < TLB_SLOTS / 64; n++) {
			uint64_t used = c->tlb_used[m][0][n] | c->tlb_used[m][1][n];

			for (; used; used &= used - 1) {
				struct tlb_entry *t =
					&c->tlbs[m][n * 64 + __builtin_ctzll(used)];

				if (t->gpa == gpa)
					t->tag_write = TLB_NONE;
			}
		}
	}
}

/* Notes the extent of the large page, so that INVLPG knows when to look for its pieces. */
static void note_large(struct x86_cpu *c, uint64_t va, unsigned shift)
{
	uint64_t *r = c->tlb_large[va >> 63];
	uint64_t first = va & ~((1ull << shift) - 1);
	uint64_t last = va | ((1ull << shift) - 1);

	r[0] = min_u64(r[0], first);
	r[1] = max_u64(r[1], last);
}

/* Does an enabled data breakpoint lie in the page? Then accesses take the slow path. */
static bool is_watched(const struct x86_cpu *c, uint64_t va)
{
	for (unsigned n = 0; n < 4; n++) {
		if (c->dr_watch & 1u << n && ((c->dr[n] ^ va) & PAGE_MASK) == 0)
			return true;
	}
	return false;
}

/* May a store go to the page without anybody noticing? */
static bool is_plain_ram(struct x86_cpu *c, const struct tlb_entry *t)
{
	const struct codepage *cp;

	if (!t->host || !(t->prot & PROT_W) || t->prot & PROT_ROM)
		return false;
	cp = sys_codepage(c->sys, t->gpa);
	return !cp || !atomic_load_explicit(&cp->chunks, memory_order_acquire);
}

/* Gives an entry the tags that its translation allows. */
static void set_tags(struct x86_cpu *c, enum mmu_mode mode, struct tlb_entry *t)
{
	t->tag_read = t->tag_write = t->tag_exec = TLB_NONE;
	if (!t->host)
		return;
	if (t->prot & PROT_X)
		t->tag_exec = t->va;
	if (mode == MMU_USER_AC || (unlikely(c->dr_watch & 15) && is_watched(c, t->va)))
		return;
	if (t->prot & PROT_R)
		t->tag_read = t->va;
	if (likely(!c->lockstep) && is_plain_ram(c, t))
		t->tag_write = t->va;
}

void tlb_write_tag(struct x86_cpu *c, struct tlb_entry *t, bool give)
{
	enum mmu_mode mode = (enum mmu_mode)((t - c->tlbs[0]) / TLB_SLOTS);

	if (!give)
		tlb_forget_sites(c);
	t->tag_write = TLB_NONE;
	if (give && t->va != TLB_NONE && mode != MMU_USER_AC &&
	    !(c->dr_watch & 15 && is_watched(c, t->va)) && is_plain_ram(c, t))
		t->tag_write = t->va;
}

static _Noreturn void page_fault(struct x86_cpu *c, uint64_t va, uint32_t code)
{
	x86_raise_pf(c, va, code);
}

static void note_used(struct x86_cpu *c, enum mmu_mode mode, unsigned at, bool global)
{
	c->tlb_used[mode][global][at / 64] |= 1ull << (at & 63);
	c->tlb_used[mode][!global][at / 64] &= ~(1ull << (at & 63));
}

/* Translates the page of va and enters it, for other accesses, too, where there is room. Raises #PF. */
static struct tlb_entry *fill(struct x86_cpu *c, enum mmu_mode mode, uint64_t va,
			      enum access acc)
{
	unsigned at = tlb_slot(va, acc == ACC_WRITE), other;
	struct tlb_entry *t = &c->tlbs[mode][at];
	struct walk w = {0};
	uint32_t code;
	bool writable = false;

	c->stats.tlb_misses++;
	c->stats.tlb_misses_of[mode]++;
	if (!mmu_walk(c, mode, va, acc, &w, &code))
		page_fault(c, va, code);
	t->va = va & PAGE_MASK;
	t->gpa = w.gpa;
	t->prot = w.prot;
	t->global = w.global;
	t->pcid = c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
	t->spare = w.shift;
	t->host = sys_page(c, w.gpa, &writable);
	t->addend = (uint64_t)t->host - t->va;
	if (!writable)
		t->prot |= PROT_ROM;
	set_tags(c, mode, t);
	note_used(c, mode, at, w.global);
	if (w.shift > 12)
		note_large(c, va, w.shift);
	other = tlb_slot(va, acc != ACC_WRITE);
	if (c->tlbs[mode][other].va == TLB_NONE &&
	    t->prot & (acc == ACC_WRITE ? PROT_R | PROT_X : PROT_W)) {
		c->tlbs[mode][other] = *t;
		note_used(c, mode, other, w.global);
	}
	return t;
}

static const uint8_t acc_prot[] = {
	[ACC_READ] = PROT_R, [ACC_WRITE] = PROT_W, [ACC_EXEC] = PROT_X};

/* The translation of va's page that allows `acc`. Raises #PF. */
static struct tlb_entry *lookup(struct x86_cpu *c, enum mmu_mode mode, uint64_t va,
				enum access acc)
{
	struct tlb_entry *t = &c->tlbs[mode][tlb_slot(va, acc == ACC_WRITE)];

	if (likely(t->va == (va & PAGE_MASK)) && likely(t->prot & acc_prot[acc]))
		return t;
	return fill(c, mode, va, acc);
}

/* ---- addresses --------------------------------------------------------------------------------- */

/* Less than a page away from the address in register n. */
static bool is_near(const struct x86_cpu *c, uint64_t va, unsigned n)
{
	uint64_t d = va + PAGE_SIZE - c->gpr[n];

	return (in_long64(c) ? d : (uint32_t)d) < 2 * PAGE_SIZE;
}

/*
 * Does the address belong to the stack segment in 64-bit mode? Memory operands do by their base
 * register (overrides of SS do not count there); all other accesses of instructions that have no
 * memory operand near it, near RSP, are pushes and pops.
 */
static bool is_stack_access(struct x86_cpu *c, uint64_t va)
{
	const struct insn *i = c->cur;

	if (!i)
		return false;
	if (i->flags & I_VEX &&
	    (i->op & 0xfc) == 0x90) /* gathers: the index is a vector */
		return i->seg == SEG_FLAT &&
		       (i->base == R_OFF(X86_RSP) || i->base == R_OFF(X86_RBP));
	if (i->flags & I_MEM) {
		uint64_t ea = ea_offset(c, i) + c->seg_base[i->seg];

		if (va - ea < PAGE_SIZE || (i->op & 0xe7) == 0xa3) /* BT goes far */
			return i->seg == SEG_FLAT &&
			       (i->base == R_OFF(X86_RSP) || i->base == R_OFF(X86_RBP));
	}
	if (is_near(c, va, X86_RSP))
		return true;
	/* ENTER and LEAVE */
	return (i->op == 0xc8 || i->op == 0xc9) && is_near(c, va, X86_RBP);
}

/* #GP(0) or #SS(0) when [va, va + len) is not canonical. */
static void check_canonical(struct x86_cpu *c, uint64_t va, unsigned len)
{
	if (likely(is_canonical(va) && is_canonical(va + len - 1)) || !c->long_mode)
		return;
	x86_raise_code(c, is_stack_access(c, va) ? EX_SS : EX_GP, ext_bit(c));
}

/*
 * An access of an instruction runs over the end of a flat segment in 32-bit code: such instructions do
 * not check limits themselves.
 */
static void check_wrap(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, unsigned len)
{
	if (likely((va + len - 1) >> 32 == 0) || in_long64(c) || mode != c->mmu_mode)
		return;
	if (c->cur && c->cur->flat && !(c->cur->flags & I_SEGCHK))
		x86_raise_code(c, is_stack_access(c, va) ? EX_SS : EX_GP, 0);
}

void mem_check_range(struct x86_cpu *c, uint64_t va, unsigned len)
{
	check_canonical(c, va, len);
	check_wrap(c, c->mmu_mode, va, len);
}

/* The address behind a page's end; linear addresses have 32 bits outside 64-bit mode. */
static uint64_t next_page(const struct x86_cpu *c, uint64_t va)
{
	va = (va & PAGE_MASK) + PAGE_SIZE;
	return in_long64(c) ? va : (uint32_t)va;
}

static bool crosses(uint64_t va, unsigned len)
{
	return ((va + len - 1) ^ va) & PAGE_MASK;
}

static void check_aligned(struct x86_cpu *c, enum mmu_mode mode, uint64_t va,
			  unsigned size)
{
	if (unlikely(mode == MMU_USER_AC) && va & (size - 1))
		x86_raise_code(c, EX_AC, 0);
}

/* ---- one page ------------------------------------------------------------------------------------ */

/* Guest memory is shared with other processors: aligned accesses are single ones. */
static uint64_t host_load(const void *p, unsigned size)
{
	switch (size) {
	case 1: return *(const volatile uint8_t *)p;
	case 2: return *(const volatile uint16_t *)p;
	case 4: return *(const volatile uint32_t *)p;
	default: return *(const volatile uint64_t *)p;
	}
}

static void host_store(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1: *(volatile uint8_t *)p = (uint8_t)v; break;
	case 2: *(volatile uint16_t *)p = (uint16_t)v; break;
	case 4: *(volatile uint32_t *)p = (uint32_t)v; break;
	default: *(volatile uint64_t *)p = v; break;
	}
}

static uint64_t device_load(struct x86_cpu *c, uint64_t gpa, unsigned size)
{
	uint64_t v;

	c->stats.mmio++;
	callback_begin(c);
	v = c->ops->mmio_read(c->ctx, gpa, size);
	callback_end(c);
	return size == 8 ? v : v & ((1ull << size * 8) - 1);
}

static void device_store(struct x86_cpu *c, uint64_t gpa, unsigned size, uint64_t v)
{
	c->stats.mmio++;
	callback_begin(c);
	c->ops->mmio_write(c->ctx, gpa, size,
			   size == 8 ? v : v & ((1ull << size * 8) - 1));
	callback_end(c);
}

/* The largest access that devices know within `len` bytes. */
static unsigned piece(unsigned len)
{
	return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

/* After bytes were stored to [va, va + len) of the page: decoded code there becomes invalid. */
static void stored(struct x86_cpu *c, struct tlb_entry *t, uint64_t va, unsigned len)
{
	struct codepage *cp;

	atomic_thread_fence(memory_order_seq_cst);
	cp = sys_codepage(c->sys, t->gpa);
	if (cp && atomic_load_explicit(&cp->chunks, memory_order_seq_cst))
		codepage_written(c, cp, t->gpa | (va & ~PAGE_MASK), len);
}

/* Reads bytes within one page. */
static void page_read(struct x86_cpu *c, const struct tlb_entry *t, uint64_t va,
		      uint8_t *buf, unsigned len)
{
	unsigned off = va & ~PAGE_MASK;
	uint64_t gpa = t->gpa | off;

	if (unlikely(c->dr_watch & 15))
		debug_access(c, va, len, false, false);
	if (t->host) {
		memcpy(buf, (const uint8_t *)t->host + off, len);
		return;
	}
	while (len) {
		unsigned n = piece(len);
		uint64_t v = device_load(c, gpa, n);

		memcpy(buf, &v, n);
		buf += n;
		gpa += n;
		len -= n;
	}
}

static void page_write(struct x86_cpu *c, struct tlb_entry *t, uint64_t va,
		       const uint8_t *buf, unsigned len)
{
	unsigned off = va & ~PAGE_MASK;
	uint64_t gpa = t->gpa | off;

	if (unlikely(c->dr_watch & 15))
		debug_access(c, va, len, true, false);
	if (t->host && !(t->prot & PROT_ROM)) {
		lockstep_store(c, t, (uint8_t *)t->host + off, len);
		memcpy((uint8_t *)t->host + off, buf, len);
		stored(c, t, va, len);
		return;
	}
	while (len) {
		unsigned n = piece(len);
		uint64_t v = 0;

		memcpy(&v, buf, n);
		device_store(c, gpa, n, v);
		buf += n;
		gpa += n;
		len -= n;
	}
}

/* ---- any length ------------------------------------------------------------------------------------ */

void mmu_probe(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, unsigned len,
	       enum access acc)
{
	if (!len)
		return;
	check_canonical(c, va, len);
	check_wrap(c, mode, va, len);
	lookup(c, mode, va, acc);
	if (crosses(va, len))
		lookup(c, mode, next_page(c, va), acc);
}

/*
 * The translation of the first page may be evicted by that of the second only when both share a
 * set, which neighbours do not.
 */
void mmu_read(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, void *buf,
	      unsigned len)
{
	unsigned first;
	uint64_t va2;

	if (!len)
		return;
	check_canonical(c, va, len);
	check_wrap(c, mode, va, len);
	if (!crosses(va, len)) {
		page_read(c, lookup(c, mode, va, ACC_READ), va, buf, len);
		return;
	}
	first = (unsigned)(PAGE_SIZE - (va & ~PAGE_MASK));
	va2 = next_page(c, va);
	lookup(c, mode, va, ACC_READ);
	lookup(c, mode, va2, ACC_READ);
	page_read(c, lookup(c, mode, va, ACC_READ), va, buf, first);
	page_read(c, lookup(c, mode, va2, ACC_READ), va2, (uint8_t *)buf + first,
		  len - first);
}

void mmu_write(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, const void *buf,
	       unsigned len)
{
	unsigned first;
	uint64_t va2;

	if (!len)
		return;
	mmu_probe(c, mode, va, len, ACC_WRITE);
	if (!crosses(va, len)) {
		page_write(c, lookup(c, mode, va, ACC_WRITE), va, buf, len);
		return;
	}
	first = (unsigned)(PAGE_SIZE - (va & ~PAGE_MASK));
	va2 = next_page(c, va);
	page_write(c, lookup(c, mode, va, ACC_WRITE), va, buf, first);
	page_write(c, lookup(c, mode, va2, ACC_WRITE), va2,
		   (const uint8_t *)buf + first, len - first);
}

void mem_read(struct x86_cpu *c, uint64_t va, void *buf, unsigned len)
{
	mmu_read(c, c->mmu_mode, va, buf, len);
}

void mem_write(struct x86_cpu *c, uint64_t va, const void *buf, unsigned len)
{
	mmu_write(c, c->mmu_mode, va, buf, len);
}

void mem_read_sys(struct x86_cpu *c, uint64_t va, void *buf, unsigned len)
{
	mmu_read(c, MMU_KERN, va, buf, len);
}

void mem_write_sys(struct x86_cpu *c, uint64_t va, const void *buf, unsigned len)
{
	mmu_write(c, MMU_KERN, va, buf, len);
}

void mem_probe_write(struct x86_cpu *c, uint64_t va, unsigned len)
{
	mmu_probe(c, c->mmu_mode, va, len, ACC_WRITE);
}

/* ---- the processor's own sizes ---------------------------------------------------------------------- */

uint64_t mem_load_slow(struct x86_cpu *c, uint64_t va, unsigned size)
{
	struct tlb_entry *t;
	uint64_t v = 0;

	check_canonical(c, va, size);
	check_wrap(c, c->mmu_mode, va, size);
	check_aligned(c, c->mmu_mode, va, size);
	if (unlikely(crosses(va, size))) {
		mmu_read(c, c->mmu_mode, va, &v, size);
		return v;
	}
	t = lookup(c, c->mmu_mode, va, ACC_READ);
	if (unlikely(c->dr_watch & 15))
		debug_access(c, va, size, false, false);
	if (likely(t->host != NULL))
		return host_load((const uint8_t *)t->host + (va & ~PAGE_MASK), size);
	return device_load(c, t->gpa | (va & ~PAGE_MASK), size);
}

void mem_store_slow(struct x86_cpu *c, uint64_t va, unsigned size, uint64_t v)
{
	struct tlb_entry *t;

	check_canonical(c, va, size);
	check_wrap(c, c->mmu_mode, va, size);
	check_aligned(c, c->mmu_mode, va, size);
	if (unlikely(crosses(va, size))) {
		mmu_write(c, c->mmu_mode, va, &v, size);
		return;
	}
	t = lookup(c, c->mmu_mode, va, ACC_WRITE);
	if (unlikely(c->dr_watch & 15))
		debug_access(c, va, size, true, false);
	if (unlikely(!t->host || t->prot & PROT_ROM)) {
		device_store(c, t->gpa | (va & ~PAGE_MASK), size, v);
		return;
	}
	lockstep_store(c, t, (uint8_t *)t->host + (va & ~PAGE_MASK), size);
	host_store((uint8_t *)t->host + (va & ~PAGE_MASK), size, v);
	if (t->tag_write == TLB_NONE) {
		stored(c, t, va, size);
		set_tags(c, c->mmu_mode, t);
	}
}

/*
 * The write comes after the check here, so code in the page is dropped before: always when other
 * processors could be decoding it, else where it is hit. A page without code stays so until this
 * processor passes a safepoint, that is, until the write is done.
 */
void *mmu_rmw_ptr(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, unsigned size)
{
	struct tlb_entry *t;
	struct codepage *cp;

	check_canonical(c, va, size);
	check_wrap(c, mode, va, size);
	check_aligned(c, mode, va, size);
	if (crosses(va, size)) {
		mmu_probe(c, mode, va, size, ACC_WRITE);
		return NULL;
	}
	t = lookup(c, mode, va, ACC_WRITE);
	if (!t->host || t->prot & PROT_ROM)
		return NULL;
	if (unlikely(c->dr_watch & 15))
		debug_access(c, va, size, true, false);
	cp = sys_codepage(c->sys, t->gpa);
	if (cp && atomic_load_explicit(&cp->chunks, memory_order_seq_cst)) {
		bool all = c->sys->n_cpus > 1;

		codepage_written(c, cp, t->gpa | (all ? 0 : va & ~PAGE_MASK),
				 all ? PAGE_SIZE : size);
	}
	if (t->tag_write == TLB_NONE)
		set_tags(c, mode, t);
	lockstep_store(c, t, (uint8_t *)t->host + (va & ~PAGE_MASK), size);
	return (uint8_t *)t->host + (va & ~PAGE_MASK);
}

void *mem_rmw_ptr(struct x86_cpu *c, uint64_t va, unsigned size)
{
	return mmu_rmw_ptr(c, c->mmu_mode, va, size);
}

const struct tlb_entry *mem_fetch_page(struct x86_cpu *c, uint64_t va)
{
	if (unlikely(c->long_mode && !is_canonical(va)))
		x86_raise_code(c, EX_GP, 0);
	return lookup(c, c->mmu_mode, va, ACC_EXEC);
}

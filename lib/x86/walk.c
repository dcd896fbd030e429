/*
 * x86/walk.c - page tables: 32-bit, PAE and 4-level walks with their checks.
 * SDM 3A chapter 4; PSE-36: 4.3; error codes: 4.7; accessed and dirty flags: 4.8. vCPU thread.
 *
 * Entries are read and written through the host address of their page; a table outside memory
 * reads as all ones, as an undriven bus does. Flags are set by compare-exchange, since other
 * processors and the guest's own atomic instructions work on the same words.
 */
#include "x86/sys.h"
#include "x86/jit/lockstep.h"

enum {
	PTE_P = 1 << 0,
	PTE_W = 1 << 1,
	PTE_U = 1 << 2,
	PTE_A = 1 << 5,
	PTE_D = 1 << 6,
	PTE_PS = 1 << 7,
	PTE_G = 1 << 8,
};
#define PTE_NX   (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

#define MAX_LEVELS 4
#define MAX_RETRIES \
	64 /* when others keep changing the entries: then flags are set anyway */

/* An entry that the walk used. */
struct pte_ref {
	void *host; /* NULL: outside memory or read-only */
	uint64_t gpa;
	uint64_t val;
};

/* A walk in progress. */
struct walker {
	struct x86_cpu *c;
	uint64_t va;
	struct pte_ref ref[MAX_LEVELS];
	unsigned n;
	uint64_t rights; /* U and W: of all levels */
	bool nx;
};

/* ---- entries ----------------------------------------------------------------------------------- */

/* Reads the entry of `size` (4 or 8) bytes at gpa. */
static uint64_t pte_read(struct walker *k, uint64_t gpa, unsigned size)
{
	struct pte_ref *r = &k->ref[k->n++];
	bool writable = false;
	uint8_t *page = sys_page(k->c, gpa & PAGE_MASK, &writable);

	r->gpa = gpa;
	r->host = NULL;
	if (!page) {
		r->val = size == 8 ? ~0ull : 0xffffffffu;
		return r->val;
	}
	page += gpa & ~PAGE_MASK;
	if (writable)
		r->host = page;
	r->val = size == 8 ? __atomic_load_n((uint64_t *)page, __ATOMIC_ACQUIRE)
			   : __atomic_load_n((uint32_t *)page, __ATOMIC_ACQUIRE);
	k->rights &= r->val;
	return r->val;
}

/* Sets `bits` in an entry that still has the value read; false: it changed meanwhile. */
static bool pte_set(struct walker *k, const struct pte_ref *r, uint32_t bits,
		    unsigned size, bool force)
{
	struct codepage *cp;
	bool ok;

	if ((r->val & bits) == bits || !r->host)
		return true;
	if (force) {
		__atomic_fetch_or((uint32_t *)r->host, bits, __ATOMIC_SEQ_CST);
		ok = true;
	} else if (size == 8) {
		uint64_t old = r->val;

		ok = __atomic_compare_exchange_n((uint64_t *)r->host, &old, old | bits,
						 false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST);
	} else {
		uint32_t old = (uint32_t)r->val;

		ok = __atomic_compare_exchange_n((uint32_t *)r->host, &old, old | bits,
						 false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST);
	}
	lockstep_walk(k->c, r->host);
	cp = sys_codepage(k->c->sys, r->gpa & PAGE_MASK);
	if (ok && unlikely(cp != NULL) &&
	    atomic_load_explicit(&cp->chunks, memory_order_seq_cst))
		codepage_written(k->c, cp, r->gpa, size);
	return ok;
}

/* Accessed flags of all levels, the dirty flag of the last. False: walk again. */
static bool set_flags(struct walker *k, bool dirty, unsigned size, bool force)
{
	for (unsigned n = 0; n < k->n; n++) {
		uint32_t bits = PTE_A;

		if (n == k->n - 1 && dirty)
			bits |= PTE_D;
		if (!pte_set(k, &k->ref[n], bits, size, force))
			return false;
	}
	return true;
}

/* ---- permissions (SDM 3A 4.6) -------------------------------------------------------------------- */

/* What `mode` may do with a page: enum tlb_prot. */
static uint8_t permissions(const struct walker *k, enum mmu_mode mode)
{
	const struct x86_cpu *c = k->c;
	bool user = mode == MMU_USER || mode == MMU_USER_AC;
	bool upage = k->rights & PTE_U, wpage = k->rights & PTE_W;
	uint8_t prot = 0;

	if (user) {
		if (!upage)
			return 0;
		prot = PROT_R | PROT_X | (wpage ? PROT_W : 0);
	} else {
		if (!upage || !(c->cr4 & CR4_SMAP) || mode == MMU_KERN_AC) {
			prot = PROT_R;
			if (wpage || !(c->cr0 & CR0_WP))
				prot |= PROT_W;
		}
		if (!upage || !(c->cr4 & CR4_SMEP))
			prot |= PROT_X;
	}
	if (k->nx)
		prot &= (uint8_t)~PROT_X;
	return prot;
}

static uint32_t error_code(const struct x86_cpu *c, enum mmu_mode mode, enum access acc,
			   uint32_t code)
{
	bool nx = (c->cr4 & CR4_PAE) && (c->efer & EFER_NXE);

	if (acc == ACC_WRITE)
		code |= PF_W;
	if (acc == ACC_EXEC && (nx || c->cr4 & CR4_SMEP))
		code |= PF_I;
	if (mode == MMU_USER || mode == MMU_USER_AC)
		code |= PF_U;
	return code;
}

static const uint8_t acc_prot[] = {
	[ACC_READ] = PROT_R, [ACC_WRITE] = PROT_W, [ACC_EXEC] = PROT_X};

/* ---- the formats ---------------------------------------------------------------------------------- */

/* Bits of a 64-bit entry that must be 0. leaf: it maps a page. */
static uint64_t reserved64(const struct x86_cpu *c, unsigned shift, bool leaf)
{
	uint64_t r = PTE_ADDR & ~c->phys_mask;

	if (!(c->efer & EFER_NXE))
		r |= PTE_NX;
	if (!c->long_mode)
		r |= 0x7ff0000000000000ull; /* PAE: 62:52 */
	if (shift == 39)
		r |= PTE_PS;
	if (leaf && shift > 12)
		r |= ((1ull << shift) - 1) & ~0x1fffull; /* bit 12 is PAT */
	return r;
}

/* From the table at `table`, indexed by va from bit `shift` on. False: #PF with *code. */
static bool walk64(struct walker *k, uint64_t table, unsigned shift, struct walk *w,
		   uint32_t *code)
{
	struct x86_cpu *c = k->c;

	for (;; shift -= 9) {
		uint64_t e = pte_read(k, table + ((k->va >> shift) & 511) * 8, 8);
		bool leaf = shift == 12 || (shift <= 30 && e & PTE_PS);

		if (!(e & PTE_P)) {
			*code = 0;
			return false;
		}
		if (e & reserved64(c, shift, leaf)) {
			*code = PF_P | PF_RSVD;
			return false;
		}
		k->nx |= !!(e & PTE_NX); /* reserved unless NXE */
		table = e & PTE_ADDR;
		if (!leaf)
			continue;
		w->shift = (uint8_t)shift;
		w->global = e & PTE_G && c->cr4 & CR4_PGE;
		w->gpa = ((table & ~((1ull << shift) - 1)) |
			  (k->va & ((1ull << shift) - 1))) &
			 PAGE_MASK;
		return true;
	}
}

static bool walk_pae(struct walker *k, struct walk *w, uint32_t *code)
{
	uint64_t e = k->c->pdpte[k->va >> 30 & 3];

	if (!(e & PTE_P)) {
		*code = 0;
		return false;
	}
	return walk64(k, e & PTE_ADDR, 21, w, code);
}

/* The 4 MiB page of PSE-36: address bits 39:32 are in bits 20:13 of the entry. */
static bool large32(const struct walker *k, uint32_t e, struct walk *w, uint32_t *code)
{
	uint64_t base = (e & 0xffc00000u) | (uint64_t)(e >> 13 & 0xff) << 32;

	if (e & 1u << 21 || base & ~k->c->phys_mask) {
		*code = PF_P | PF_RSVD;
		return false;
	}
	w->shift = 22;
	w->gpa = base | (k->va & 0x3ff000);
	return true;
}

static bool walk32(struct walker *k, struct walk *w, uint32_t *code)
{
	struct x86_cpu *c = k->c;
	uint32_t e;

	e = (uint32_t)pte_read(k, (c->cr3 & 0xfffff000u) + (k->va >> 22 & 1023) * 4, 4);
	*code = 0;
	if (!(e & PTE_P))
		return false;
	if (e & PTE_PS && c->cr4 & CR4_PSE) {
		w->global = e & PTE_G && c->cr4 & CR4_PGE;
		return large32(k, e, w, code);
	}
	e = (uint32_t)pte_read(k, (e & 0xfffff000u) + (k->va >> 12 & 1023) * 4, 4);
	if (!(e & PTE_P))
		return false;
	w->global = e & PTE_G && c->cr4 & CR4_PGE;
	w->shift = 12;
	w->gpa = e & 0xfffff000u;
	return true;
}

bool mmu_walk(struct x86_cpu *c, enum mmu_mode mode, uint64_t va, enum access acc,
	      struct walk *w, uint32_t *code)
{
	struct walker k = {.c = c, .va = va};
	unsigned size = c->cr4 & CR4_PAE ? 8 : 4;

	if (!(c->cr0 & CR0_PG)) {
		*w = (struct walk){.gpa = (uint32_t)va & PAGE_MASK,
				   .prot = PROT_R | PROT_W | PROT_X,
				   .shift = 12};
		return true;
	}
	for (unsigned tries = 0;; tries++) {
		bool ok, dirty;

		k.n = 0;
		k.rights = ~0ull;
		k.nx = false;
		if (c->long_mode)
			ok = walk64(&k, c->cr3 & PTE_ADDR, 39, w, code);
		else if (c->cr4 & CR4_PAE)
			ok = walk_pae(&k, w, code);
		else
			ok = walk32(&k, w, code);
		if (ok) {
			w->prot = permissions(&k, mode);
			*code = PF_P;
			ok = w->prot & acc_prot[acc];
		}
		if (!ok) {
			*code = error_code(c, mode, acc, *code);
			return false;
		}
		if (!set_flags(&k, acc == ACC_WRITE, size, tries > MAX_RETRIES))
			continue;
		dirty = acc == ACC_WRITE || k.ref[k.n - 1].val & PTE_D;
		if (!dirty)
			w->prot &= (uint8_t)~PROT_W;
		return true;
	}
}

void mmu_load_pdptes(struct x86_cpu *c, uint64_t cr3)
{
	uint64_t pdpte[4];
	uint64_t reserved = ~(c->phys_mask & PTE_ADDR) & ~0xe19ull;

	for (unsigned n = 0; n < 4; n++) {
		uint64_t gpa = (cr3 & 0xffffffe0u) + n * 8;
		bool writable;
		uint8_t *page = sys_page(c, gpa & PAGE_MASK, &writable);

		pdpte[n] = page ? __atomic_load_n((uint64_t *)(page + (gpa & 0xfff)),
						  __ATOMIC_ACQUIRE)
				: ~0ull;
		if (pdpte[n] & PTE_P && pdpte[n] & reserved)
			x86_raise_code(c, EX_GP, 0);
	}
	for (unsigned n = 0; n < 4; n++)
		c->pdpte[n] = pdpte[n];
}

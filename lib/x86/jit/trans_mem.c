/*
 * x86/jit/trans_mem.c - translates accesses to memory: addresses, the look-up in the TLB, groups of accesses
 * that share one, sites in loops that remember theirs, strings. vCPU thread.
 *
 * A translation may use what it has found in the TLB until it ends: other processors wait for that
 * (x86_safepoint) before they take rights away. What the interpreter does meanwhile may take some,
 * and says so (c->jit_stale). When the look-up for a group fails, for whatever reason,
 * the rest of the block runs by a translation without groups.
 *
 * What a site remembers outlives the translation's run: it is forgotten whenever TLB entries are cleared or
 * lose rights (mmu.c), though an entry that only made room for another may live on in a site.
 */
#include "x86/jit/trans_int.h"

/* The most bytes that a group spans: the more, the more often they lie in two pages. */
#define SPAN_MAX 512

/* ---- groups --------------------------------------------------------------------------------------------- */

/* An access that may be in a group. */
struct member {
	uint8_t base, size, align;
	bool write;
	int32_t disp;
};

static bool operand_member(const struct trans *t, unsigned n, struct member *m)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];

	if (!l->mem || i->base == R_ZERO || i->base == R_BLOCK || i->index != R_ZERO ||
	    i->seg != SEG_FLAT || i->asize != t->word)
		return false;
	*m = (struct member){.base = i->base / 8,
			     .size = l->kind == L_JMP_IND ? t->word : l->mem_size,
			     .align = l->align,
			     .write = l->rm_w && l->kind != L_JMP_IND,
			     .disp = i->disp};
	return true;
}

static bool member_of(const struct trans *t, unsigned n, struct member *m)
{
	*m = (struct member){.base = X86_RSP, .size = t->word};
	switch (t->l[n].kind) {
	case L_OP:
	case L_GEN:
	case L_X87:
	case L_DIV:
	case L_JMP_IND: return operand_member(t, n, m);
	case L_PUSH:
		if (t->l[n].mem)
			return false;
		/* fallthrough */
	case L_PUSH_IMM:
	case L_CALL:
	case L_CALL_IND:
		m->disp = -(int32_t)t->word;
		m->write = true;
		return true;
	case L_LEAVE: m->base = X86_RBP; return true;
	case L_POP:
	case L_RET: return true;
	default: return false;
	}
}

/* The constant that instruction n adds to register *r; false: it does something else. */
static bool adds(const struct trans *t, unsigned n, unsigned *r, int64_t *v)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];

	*r = X86_RSP;
	switch (l->kind) {
	case L_PUSH:
	case L_PUSH_IMM: *v = -(int64_t)t->word; return true;
	case L_POP: *v = t->word; return l->rm != X86_RSP;
	case L_LEA:
		*r = l->reg;
		*v = i->disp;
		return l->size == t->word && i->asize == t->word &&
		       i->index == R_ZERO && i->base == l->reg * 8;
	case L_OP:
		*r = l->rm;
		*v = l->reg == 5 ? -(int64_t)i->imm : (int64_t)i->imm;
		return !l->mem && !l->map && (l->op == 0x81 || l->op == 0x83) &&
		       (l->reg == 0 || l->reg == 5) && l->size == t->word;
	default: return false;
	}
}

/* How far each base has moved, since something else was written to it. */
struct track {
	unsigned n_groups;
	int64_t moved[16];
	uint8_t value[16]; /* changes when something else is written */
	/* of each group, when it began */
	int64_t at_moved[JIT_GROUPS];
	uint8_t at_value[JIT_GROUPS];
};

static bool fits(const struct group *g, const struct member *m, int64_t at, unsigned n)
{
	int64_t lo = at < g->lo ? at : g->lo;
	int64_t hi = at + m->size > g->hi ? at + m->size : g->hi;
	unsigned both = g->align & m->align;

	return hi - lo <= SPAN_MAX && !(((uint64_t)at ^ g->rest) & both) &&
	       n > g->first;
}

static void group_add(struct group *g, const struct member *m, int32_t at, unsigned n)
{
	if (at < g->lo)
		g->lo = at;
	if (at + m->size > g->hi)
		g->hi = at + m->size;
	if (m->align > g->align) {
		g->align = m->align;
		g->rest = (uint8_t)(at & m->align);
	}
	g->write |= m->write;
	g->last = (uint8_t)n;
	g->n++;
}

/* The group of access m of instruction n, a new one if need be; -1: none. */
static int group_get(struct trans *t, struct track *k, unsigned n,
		     const struct member *m)
{
	unsigned g;

	for (g = 0; g < k->n_groups; g++) {
		int64_t at = m->disp + k->moved[m->base] - k->at_moved[g];

		if (t->group[g].base != m->base ||
		    k->at_value[g] != k->value[m->base] ||
		    !fits(&t->group[g], m, at, n))
			continue;
		group_add(&t->group[g], m, (int32_t)at, n);
		return (int)g;
	}
	if (g == JIT_GROUPS)
		return -1;
	k->n_groups++;
	t->group[g] = (struct group){
		.base = m->base, .first = (uint8_t)n, .lo = m->disp, .hi = m->disp};
	k->at_moved[g] = k->moved[m->base];
	k->at_value[g] = k->value[m->base];
	group_add(&t->group[g], m, m->disp, n);
	return (int)g;
}

static void track_writes(struct track *k, const struct trans *t, unsigned n)
{
	unsigned mask = lift_writes(&t->l[n]), r;
	int64_t v;

	if (t->l[n].kind == L_INTERP)
		mask = 0xffff;
	else if (adds(t, n, &r, &v)) {
		k->moved[r] += v;
		mask &= ~(1u << r);
	}
	for (r = 0; r < 16; r++)
		k->value[r] += mask >> r & 1;
}

void jt_groups(struct trans *t)
{
	struct track k = {0};
	struct member m;

	memset(t->group_of, -1, sizeof(t->group_of));
	if (t->solo)
		return;
	for (unsigned n = 0; n <= t->b->n; n++) {
		if (t->l[n].kind != L_INTERP && member_of(t, n, &m))
			t->group_of[n] = (int8_t)group_get(t, &k, n, &m);
		track_writes(&k, t, n);
	}
	for (unsigned n = 0; n <= t->b->n; n++) {
		if (t->group_of[n] >= 0 && t->group[t->group_of[n]].n == 1 && !t->loop)
			t->group_of[n] = -1;
	}
	for (unsigned g = k.n_groups; g < JIT_GROUPS; g++)
		t->group[g].n = 0;
}

bool jt_grouped(const struct trans *t, unsigned n)
{
	if (t->solo)
		return false;
	for (unsigned g = 0; g < JIT_GROUPS; g++) {
		const struct group *p = &t->group[g];

		if (p->n > 1 && p->first <= n && n < p->last)
			return true;
	}
	return false;
}

/* ---- look-up ---------------------------------------------------------------------------------------------- */

/* T_B = place of T_A's page in the TLB. */
static void put_tlb_index(struct trans *t)
{
	struct emit *e = &t->e;

	if (t->j->bmi2) {
		e_vex(e, false, false, 3, 3, 0xf0, T_B, 0, rm_reg(T_A)); /* rorx */
	} else {
		e_mov(e, 4, T_B, T_A);
		e_rm(e, 4, 0xc1, 5, rm_reg(T_B));
	}
	e8(e, 6);
	e_alu_imm(e, 4, 4, rm_reg(T_B), (TLB_SIZE - 1) << 6);
}

/* The first place for such accesses. */
static int32_t tlb_places(const struct trans *t, bool write)
{
	return t->tlb + (write ? (int32_t)(TLB_WRITE * sizeof(struct tlb_entry)) : 0);
}

/* ZF: the page of T_C, which is changed, is the one at T_B, and may be accessed directly. */
static void put_tlb_tag(struct trans *t, bool write, unsigned align)
{
	struct emit *e = &t->e;
	int32_t tag = write ? (int32_t)offsetof(struct tlb_entry, tag_write)
			    : (int32_t)offsetof(struct tlb_entry, tag_read);

	e_alu_imm(e, 8, 4, rm_reg(T_C), -4096 | (int32_t)align);
	e_rm(e, 8, 0x3b, T_C, rm_cpu_index(T_B, tlb_places(t, write) + tag));
}

/*
 * ZF: [T_A, T_A + size) may be accessed directly, T_B is the place in the TLB; T_C is changed. An
 * aligned operand does not leave its page.
 */
static void put_tlb_compare(struct trans *t, unsigned size, bool write, unsigned align)
{
	put_tlb_index(t);
	if (size > 1 && !align)
		e_lea(&t->e, 8, T_C, T_A, H_SP, 0, (int32_t)size - 1);
	else
		e_mov(&t->e, 8, T_C, T_A);
	put_tlb_tag(t, write, align);
}

static struct host_rm addend_at(const struct trans *t, bool write)
{
	return rm_cpu_index(T_B, tlb_places(t, write) +
					 (int32_t)offsetof(struct tlb_entry, addend));
}

/* ---- sites --------------------------------------------------------------------------------------------- */

static int32_t page_at(unsigned site)
{
	return CPU_OFF(jit_site) + (int32_t)(site * sizeof(struct jit_site));
}

static int32_t kept_addend(unsigned site)
{
	return page_at(site) + (int32_t)offsetof(struct jit_site, addend);
}

static int32_t room_at(unsigned site)
{
	return CPU_OFF(jit_room) + 8 * (int32_t)site;
}

/* In a loop: the next site of all. -1: look-ups are not kept. */
static int site_new(struct trans *t)
{
	return t->loop && t->j->n_sites < JIT_SITES ? (int)t->j->n_sites++ : -1;
}

/*
 * `size` bytes at [reg + off] lie in the page that the site knows: else it gets to know it. T_C is
 * changed, T_A, too, if it is not reg.
 */
static struct side *put_site(struct trans *t, unsigned site, unsigned n, unsigned reg,
			     int32_t off, unsigned size)
{
	struct emit *e = &t->e;
	struct side *s;

	e_lea(e, 8, T_C, reg, H_SP, 0, off);
	e_rm(e, 8, 0x2b, T_C, rm_cpu(page_at(site)));
	e_rm(e, 8, 0x3b, T_C, rm_cpu(room_at(site)));
	s = jt_side_add(t, SIDE_SITE, e_jcc(e, CC_NB), n);
	s->site = (uint16_t)site;
	s->reg = (uint8_t)reg;
	s->off = off;
	s->size = (uint16_t)size;
	s->back = e->p;
	return s;
}

void jt_site_fill(struct trans *t, const struct side *s)
{
	struct emit *e = &t->e;
	struct side *f;

	if (s->reg != T_A || s->off)
		e_lea(e, 8, T_A, s->reg, H_SP, 0, s->off);
	put_tlb_compare(t, s->size, s->write, 0);
	f = jt_side_add(t, s->solo ? SIDE_SOLO : SIDE_INTERP, e_jcc(e, CC_NZ), s->n);
	f->back = s->done;
	f->load_flags = s->load_flags;
	f->x87 = s->x87;
	e_mov(e, 8, T_C, T_A);
	e_alu_imm(e, 8, 4, rm_reg(T_C), -(int32_t)PAGE_SIZE);
	e_store(e, 8, T_C, page_at(s->site));
	e_rm(e, 8, 0x8b, T_C, addend_at(t, s->write));
	e_store(e, 8, T_C, kept_addend(s->site));
	e_rm(e, 8, 0xc7, 0, rm_cpu(room_at(s->site)));
	e32(e, (uint32_t)PAGE_SIZE - s->size + 1);
	e_op(e, 4, 0, 1, 0xba, 5, /* bts */
	     rm_cpu(CPU_OFF(jit_known) + s->site / 32 * 4), false, false);
	e8(e, s->site % 32);
	e_rm(e, 1, 0xc6, 0, rm_cpu(CPU_OFF(jit_sites_known)));
	e8(e, 1);
	e_patch(e_jmp(e), s->back);
}

/* ---- accesses ------------------------------------------------------------------------------------------ */

/* Address bits `align` of [reg + off] are 0, else `kind`. T_B may be changed. */
static struct side *put_align(struct trans *t, unsigned n, unsigned reg, int32_t off,
			      unsigned align, enum side_kind kind)
{
	struct emit *e = &t->e;

	if ((unsigned)off & align) {
		e_lea(e, 8, T_B, reg, H_SP, 0, off);
		reg = T_B;
	}
	e_op(e, 1, 0, 0, 0xf6, 0, rm_reg(reg), false, true);
	e8(e, align);
	return jt_side_add(t, kind, e_jcc(e, CC_NZ), n);
}

/* T_A: linear address, becomes the host's. */
static struct mem_op put_probe(struct trans *t, unsigned n, unsigned size, bool write,
			       unsigned align)
{
	struct mem_op a = {.rm = rm_ptr()};
	int site = site_new(t);

	if (site >= 0) {
		if (align)
			a.unaligned = put_align(t, n, T_A, 0, align, SIDE_INTERP);
		a.s = put_site(t, (unsigned)site, n, T_A, 0, size);
		a.s->write = write;
		e_rm(&t->e, 8, 0x03, T_A, rm_cpu(kept_addend((unsigned)site)));
	} else {
		put_tlb_compare(t, size, write, align);
		a.s = jt_side_add(t, SIDE_INTERP, e_jcc(&t->e, CC_NZ), n);
		e_rm(&t->e, 8, 0x03, T_A, addend_at(t, write));
	}
	t->at_a = -1;
	return a;
}

static int32_t slot_of(unsigned g)
{
	return CPU_OFF(jit_group) + 8 * (int32_t)g;
}

/* Base of an address: its register, or `tmp` after loading it. In 32-bit code upper halves may be anything. */
static unsigned base_in(struct trans *t, unsigned guest, unsigned tmp)
{
	if (!in_memory(guest) && t->word == 8)
		return host_of[guest];
	if (in_memory(guest))
		e_load(&t->e, t->word, tmp, gpr_at(guest));
	else
		e_mov(&t->e, t->word, tmp, host_of[guest]);
	return tmp;
}

/*
 * Looks up group g before its first access, that of instruction n. The rest of the block runs without
 * groups if that fails, or the interpreter does a single access.
 */
static struct mem_op put_group_probe(struct trans *t, unsigned g, unsigned n)
{
	const struct group *p = &t->group[g];
	unsigned size = (unsigned)(p->hi - p->lo);
	unsigned base = base_in(t, p->base, T_A);
	bool single = p->n == 1;
	struct mem_op a = {.s = NULL};
	struct emit *e = &t->e;
	int site = site_new(t);

	if (p->align)
		a.unaligned = put_align(t, n, base, p->rest, p->align,
					single ? SIDE_INTERP : SIDE_SOLO);
	if (site >= 0) {
		a.s = put_site(t, (unsigned)site, n, base, p->lo, size);
		a.s->write = p->write;
		a.s->solo = !single;
		e_load(e, 8, T_A, kept_addend((unsigned)site));
	} else {
		e_lea(e, 8, T_A, base, H_SP, 0, p->lo);
		put_tlb_compare(t, size, p->write, 0);
		a.s = jt_side_add(t, single ? SIDE_INTERP : SIDE_SOLO, e_jcc(e, CC_NZ),
				  n);
		e_rm(e, 8, 0x8b, T_A, addend_at(t, p->write));
	}
	t->at_a = (int8_t)g;
	if (single)
		return a;
	e_store(e, 8, T_A, slot_of(g));
	return (struct mem_op){.s = NULL}; /* nothing comes back */
}

static struct mem_op put_grouped(struct trans *t, unsigned n, unsigned base,
				 int32_t disp)
{
	unsigned g = (unsigned)t->group_of[n];
	struct emit *e = &t->e;
	struct mem_op a = {.s = NULL};

	if (t->group[g].first == n)
		a = put_group_probe(t, g, n);
	if (t->at_a != (int)g)
		e_load(e, 8, T_A, slot_of(g));
	t->at_a = (int8_t)g;
	base = base_in(t, base, T_C);
	a.rm = rm_mem(base, T_A, disp);
	if (base == T_C) {
		e_lea(e, 8, T_A, T_C, T_A, 0, disp);
		t->at_a = -1;
		a.rm = rm_ptr();
	}
	return a;
}

void jt_side_done(struct trans *t, struct side *s)
{
	if (s->kind == SIDE_SITE)
		s->done = t->e.p;
	else
		s->back = t->e.p;
	s->load_flags = t->flags == FL_AT_HOST || t->flags == FL_AT_BOTH;
	t->at_a = -1;
}

void jt_access_done(struct trans *t, struct mem_op a)
{
	if (a.s)
		jt_side_done(t, a.s);
	if (a.unaligned)
		jt_side_done(t, a.unaligned);
}

/* ---- operands ----------------------------------------------------------------------------------------------- */

void jt_ea(struct trans *t, const struct insn *i, unsigned size, unsigned dst)
{
	struct emit *e = &t->e;
	unsigned base = H_SP, index = H_SP;

	if (dst == T_A)
		t->at_a = -1;
	if (i->base == R_BLOCK) {
		uint64_t a = wrap(t, t->rip + (uint64_t)(int64_t)i->disp);

		e_imm(e, dst, size == 8 ? a : (uint32_t)a);
		return;
	}
	if (i->base == R_ZERO && i->index == R_ZERO) {
		uint64_t a = (uint64_t)(int64_t)i->disp;

		e_imm(e, dst, size == 8 ? a : (uint32_t)a);
		return;
	}
	if (i->base != R_ZERO)
		base = reg_in(t, i->base / 8, T_B);
	if (i->index != R_ZERO)
		index = reg_in(t, i->index / 8, T_C);
	if (index == H_SP && !i->disp && size == 8)
		e_mov(e, 8, dst, base);
	else
		e_lea(e, size, dst, base, index, i->scale, i->disp);
}

bool jt_looked_up(const struct trans *t, unsigned n)
{
	int g = t->group_of[n];

	return g >= 0 && t->group[g].first != n;
}

/* Is it the operand of instruction n that is in a group, not its word of the stack? */
static bool operand_is_grouped(const struct trans *t, unsigned n)
{
	struct member m;

	return t->group_of[n] >= 0 && t->l[n].kind != L_CALL_IND &&
	       operand_member(t, n, &m);
}

struct mem_op jt_access(struct trans *t, unsigned n, unsigned size, bool write,
			unsigned align)
{
	const struct insn *i = &t->b->insn[n];
	bool own = operand_is_grouped(t, n);

	if (!own || !jt_looked_up(t, n))
		jt_flags_keep(t, LF_ALL);
	if (own)
		return put_grouped(t, n, i->base / 8, i->disp);
	jt_ea(t, i, i->asize, T_A);
	if (i->seg != SEG_FLAT)
		e_rm(&t->e, 8, 0x03, T_A,
		     rm_cpu(CPU_OFF(seg_base) + 8 * (int32_t)i->seg));
	return put_probe(t, n, size, write, align);
}

struct mem_op jt_stack(struct trans *t, unsigned n, unsigned base, int32_t disp,
		       bool write)
{
	if (!jt_looked_up(t, n))
		jt_flags_keep(t, LF_ALL);
	if (t->group_of[n] >= 0)
		return put_grouped(t, n, base, disp);
	e_lea(&t->e, t->word, T_A, host_of[base], H_SP, 0, disp);
	return put_probe(t, n, t->word, write, 0);
}

/* ---- strings -------------------------------------------------------------------------------------------------- */

/* Looks up all that register `reg` points at. T_A = what makes its addresses the host's. */
static struct side *put_string_probe(struct trans *t, unsigned n, unsigned reg,
				     bool write)
{
	const struct lift *l = &t->l[n];
	struct emit *e = &t->e;
	struct side *s;

	e_mov(e, t->word, T_A, reg);
	put_tlb_index(t);
	if (l->prefix)
		e_lea(e, 8, T_C, T_A, H_CX, (unsigned)__builtin_ctz(l->size), -1);
	else
		e_lea(e, 8, T_C, T_A, H_SP, 0, l->size - 1);
	put_tlb_tag(t, write, 0);
	s = jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_NZ), n);
	e_rm(e, 8, 0x8b, T_A, addend_at(t, write));
	return s;
}

/* The host's instruction, on [rsi + T_B] and [rdi + T_A]. */
static void put_string(struct trans *t, const struct lift *l)
{
	bool movs = l->op < 0xa8;
	struct emit *e = &t->e;

	if (t->word ==
	    4) { /* upper halves may be left from 64-bit code: not looked up */
		if (movs)
			e_mov(e, 4, H_SI, H_SI);
		e_mov(e, 4, H_DI, H_DI);
	}
	if (movs)
		e_rm(e, 8, 0x01, T_B, rm_reg(H_SI));
	e_rm(e, 8, 0x01, T_A, rm_reg(H_DI));
	if (l->prefix)
		e8(e, l->prefix);
	if (l->size == 2)
		e8(e, 0x66);
	if (l->size == 8)
		e8(e, 0x48);
	e8(e, l->op);
	if (movs)
		e_rm(e, 8, 0x29, T_B, rm_reg(H_SI));
	e_rm(e, 8, 0x29, T_A, rm_reg(H_DI));
	if (t->word == 4) { /* what ends at 4 GiB */
		if (movs)
			e_mov(e, 4, H_SI, H_SI);
		e_mov(e, 4, H_DI, H_DI);
	}
}

/* Within a page, upwards; else the interpreter does it, a page at a time. */
void jt_string(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	bool movs = l->op < 0xa8;
	struct emit *e = &t->e;
	struct side *s[4] = {NULL};
	uint8_t *none = NULL;

	jt_flags_keep(t, LF_ALL);
	e_rm(e, 4, 0xf7, 0, rm_cpu(CPU_OFF(rflags)));
	e32(e, FL_DF);
	s[0] = jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_NZ), n);
	if (l->prefix) {
		if (t->word == 4)
			e_mov(e, 4, H_CX, H_CX);
		e_alu_imm(e, 8, 7, rm_reg(H_CX), (int32_t)(PAGE_SIZE / l->size));
		s[1] = jt_side_add(t, SIDE_INTERP, e_jcc(e, CC_NBE), n);
		e_rm(e, 8, 0x85, H_CX, rm_reg(H_CX));
		none = e_jcc(e, CC_Z);
	}
	if (movs) {
		s[2] = put_string_probe(t, n, H_SI, false);
		e_store(e, 8, T_A, CPU_OFF(jit_tmp));
	}
	s[3] = put_string_probe(t, n, H_DI, true);
	if (movs)
		e_load(e, 8, T_B, CPU_OFF(jit_tmp));
	put_string(t, l);
	if (none)
		e_patch(none, e->p);
	for (unsigned k = 0; k < 4; k++) {
		if (s[k])
			jt_side_done(t, s[k]);
	}
}

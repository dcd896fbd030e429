/*
 * x86/jit/trans.c - translates a block. See jit_int.h for how the code looks. vCPU thread.
 *
 * Flags: a first pass from the end finds which status flags are needed behind each instruction; what
 * lies behind the block needs all that its own first instructions do not overwrite.
 */
#include "x86/jit/emit.h"

#include "x86/decode.h"
#include "x86/jit/lift.h"
#include "x86/op_tmpl.h"

/* Where the guest's status flags are. */
enum flags_at {
	FL_AT_MEM,  /* c->st */
	FL_AT_HOST, /* the host's flags */
	FL_AT_BOTH,
	FL_AT_NONE, /* nobody asks for them */
};

/* What lies behind the translation's straight line. */
struct side {
	uint8_t *from; /* displacement of the jump that comes here */
	uint8_t *back; /* where to go on; NULL: an exit */
	uint8_t n;     /* instruction */
	bool load_flags, save_flags;
	uint64_t rip; /* exits */
};

#define SIDES_MAX (BLOCK_MAX * 3)
/* The most that a translation takes. */
#define CODE_MAX  (BLOCK_MAX * 320u)

struct trans {
	struct emit e;
	struct jit *j;
	struct x86_cpu *c;
	struct block *b;
	struct jit_code *code;
	uint64_t rip;
	int32_t tlb; /* from c to its TLB in this mode */
	bool m64;
	uint8_t word;  /* of the stack: 8 or 4 */
	uint8_t flags; /* enum flags_at */
	unsigned n_sides;
	struct side side[SIDES_MAX];
	struct lift l[BLOCK_MAX + 1];
	uint8_t live[BLOCK_MAX + 1];  /* flags needed behind the instruction */
	uint8_t taken[BLOCK_MAX + 1]; /* and at the target of its branch */
	bool failed;
};

static const uint8_t host_of[16] = {H_AX, H_CX, H_DX, H_BX, G_SP, H_BP, H_SI, H_DI,
				    H_8,  H_9,  H_10, H_11, H_SP, H_SP, H_SP, H_SP};

static bool in_memory(unsigned guest)
{
	return host_of[guest] == H_SP;
}

static int32_t gpr_at(unsigned guest)
{
	return CPU_OFF(gpr) + (int32_t)guest * 8;
}

/* The guest's register in a host register: its own, or `tmp` after loading it. */
static unsigned reg_in(struct trans *t, unsigned guest, unsigned tmp)
{
	if (!in_memory(guest))
		return host_of[guest];
	e_load(&t->e, 8, tmp, gpr_at(guest));
	return tmp;
}

/* ---- flags ------------------------------------------------------------------------------------------- */

static void put_save(struct trans *t)
{
	struct emit *e = &t->e;

	e_mov(e, 8, T_B, H_AX);
	e8(e, 0x9f);
	e8(e, 0x0f), e8(e, 0x90), e8(e, 0xc0);
	e_store(e, 2, H_AX, CPU_OFF(st));
	e_mov(e, 8, H_AX, T_B);
}

static void put_load(struct trans *t)
{
	struct emit *e = &t->e;

	e_mov(e, 8, T_B, H_AX);
	e_rm(e, 2, 0x8b, H_AX, rm_cpu(CPU_OFF(st)));
	e8(e, 0x04), e8(e, 0x7f);
	e8(e, 0x9e);
	e_mov(e, 8, H_AX, T_B);
}

/* Before the host's flags are destroyed: keeps those of `need`. */
static void flags_keep(struct trans *t, unsigned need)
{
	if (!need && t->flags != FL_AT_MEM)
		t->flags = t->flags == FL_AT_BOTH ? FL_AT_MEM : FL_AT_NONE;
	if (t->flags == FL_AT_HOST)
		put_save(t);
	if (t->flags != FL_AT_NONE)
		t->flags = FL_AT_MEM;
}

/* Into the host's flags. */
static void flags_fetch(struct trans *t, unsigned need)
{
	if (need && t->flags == FL_AT_MEM) {
		put_load(t);
		t->flags = FL_AT_BOTH;
	}
}

/* ---- first pass ------------------------------------------------------------------------------------------ */

static uint64_t wrap(const struct trans *t, uint64_t rip)
{
	return t->m64 ? rip : (uint32_t)rip;
}

/*
 * Flags needed at linear address `rip`, as far as a few instructions there tell. Those are marked like the
 * block's own code, so that the translation is forgotten when they change.
 */
static unsigned needed_at(struct trans *t, uint64_t rip)
{
	const struct tlb_entry *e = tlb_of(t->c, rip);
	uint64_t page = t->b->key >> BLOCK_KEY_BITS & PAGE_MASK;
	unsigned off = rip & ~PAGE_MASK, need = LF_ALL, res = 0;

	if ((rip ^ t->rip) & PAGE_MASK || e->tag_exec != (rip & PAGE_MASK) ||
	    !e->host || e->gpa != page)
		return LF_ALL;
	for (unsigned n = 0; n < 6 && need; n++) {
		const uint8_t *p = (const uint8_t *)e->host + off;
		struct insn i;
		struct lift l;
		unsigned len;

		if (off > PAGE_SIZE - 16)
			break;
		codepage_mark(t->c, t->b->cp, page | off, 15);
		len = decode_at(p, 15, t->m64 ? MODE_64 : MODE_32 | DECODE_FLAT_DATA, 0,
				&i);
		if (!len)
			break;
		lift_insn(&i, p, t->m64, &l);
		if (l.kind == L_INTERP || (l.kind >= L_JCC && l.kind <= L_RET) ||
		    l.kind == L_END)
			break;
		res |= l.rd & need;
		need &= ~(unsigned)l.kill;
		off += len;
	}
	return res | need;
}

static void first_pass(struct trans *t)
{
	const struct block *b = t->b;
	const uint8_t *bytes = (const uint8_t *)&b->insn[b->n + 1];
	unsigned need = LF_ALL;

	for (unsigned n = 0; n <= b->n; n++)
		lift_insn(&b->insn[n], bytes + b->insn[n].off, t->m64, &t->l[n]);
	for (unsigned n = b->n + 1; n-- > 0;) {
		const struct insn *i = &b->insn[n];
		struct lift *l = &t->l[n];

		t->taken[n] = LF_ALL;
		if (l->kind == L_JCC || l->kind == L_JMP || l->kind == L_END)
			t->taken[n] = (uint8_t)needed_at(t, wrap(t, t->rip + i->imm));
		if (l->kind == L_JMP || l->kind == L_END)
			need = 0;
		else if (n == b->n || (l->kind >= L_CALL && l->kind <= L_RET))
			need = LF_ALL;
		if (l->kind == L_JMP || l->kind == L_JCC || l->kind == L_END)
			need |= t->taken[n];
		t->live[n] = (uint8_t)need;
		need = (need & ~(unsigned)l->kill) | l->rd;
	}
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static struct side *side_add(struct trans *t, uint8_t *from, unsigned n)
{
	struct side *s = &t->side[t->n_sides < SIDES_MAX ? t->n_sides++ : 0];

	t->failed |= t->n_sides == SIDES_MAX;
	*s = (struct side){.from = from, .n = (uint8_t)n};
	return s;
}

/* Where an access's slow path begins; what it returns to is told by probe_done(). */
struct probe {
	struct side *s;
};

static void put_tlb_compare(struct trans *t, unsigned size, bool write)
{
	struct emit *e = &t->e;
	int32_t tag = t->tlb + (int32_t)(write ? offsetof(struct tlb_entry, tag_write)
					       : offsetof(struct tlb_entry, tag_read));

	e_mov(e, 4, T_B, T_A);
	e_rm(e, 4, 0xc1, 5, rm_reg(T_B));
	e8(e, 6);
	e_alu_imm(e, 4, 4, rm_reg(T_B), (TLB_SIZE - 1) << 6);
	if (size > 1)
		e_lea(e, 8, T_C, T_A, H_SP, 0, (int32_t)size - 1);
	else
		e_mov(e, 8, T_C, T_A);
	e_alu_imm(e, 8, 4, rm_reg(T_C), -4096);
	e_rm(e, 8, 0x3b, T_C, rm_cpu_index(T_B, tag));
}

/* T_A: linear address, becomes the host's. */
static struct probe put_probe(struct trans *t, unsigned n, unsigned size, bool write)
{
	struct emit *e = &t->e;
	struct probe p;

	put_tlb_compare(t, size, write);
	p.s = side_add(t, e_jcc(e, CC_NZ), n);
	e_rm(e, 8, 0x03, T_A,
	     rm_cpu_index(T_B, t->tlb + (int32_t)offsetof(struct tlb_entry, addend)));
	return p;
}

/* The instruction is done: the slow path comes back here. */
static void probe_done(struct trans *t, struct probe p)
{
	p.s->back = t->e.p;
	p.s->load_flags = t->flags == FL_AT_HOST;
	if (t->flags == FL_AT_BOTH)
		p.s->load_flags = true;
}

/* T_A = address of the memory operand of i, without the segment's base. Flags stay. */
static void put_ea(struct trans *t, const struct insn *i, unsigned size, unsigned dst)
{
	struct emit *e = &t->e;
	unsigned base = H_SP, index = H_SP;

	if (i->base == R_BLOCK) {
		e_imm(e, dst, wrap(t, t->rip + (uint64_t)(int64_t)i->disp));
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

/* Address and look-up of i's memory operand; flags are kept before as far as needed. */
static struct probe put_operand(struct trans *t, unsigned n, unsigned size, bool write)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];

	flags_keep(t, l->rd | (t->live[n] & ~(unsigned)l->kill));
	put_ea(t, i, i->asize, T_A);
	if (i->seg != SEG_FLAT)
		e_rm(&t->e, 8, 0x03, T_A,
		     rm_cpu(CPU_OFF(seg_base) + 8 * (int32_t)i->seg));
	return put_probe(t, n, size, write);
}

/* ---- operations -------------------------------------------------------------------------------------------- */

static void put_imm(struct emit *e, const struct lift *l, uint64_t v)
{
	switch (l->imm_size) {
	case 1: e8(e, (uint8_t)v); break;
	case 2:
		e8(e, (uint8_t)v);
		e8(e, (uint8_t)(v >> 8));
		break;
	case 4: e32(e, (uint32_t)v); break;
	}
}

static void flags_before(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];

	flags_fetch(t, l->rd | (l->mod ? t->live[n] & ~(unsigned)l->kill : 0));
}

static void flags_after(struct trans *t, unsigned n)
{
	if (t->l[n].mod)
		t->flags = FL_AT_HOST;
}

static void put_op(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	struct emit *e = &t->e;
	unsigned reg = l->reg, rm_host = 0;
	struct probe p = {0};
	struct host_rm rm;
	uint64_t imm = i->imm;

	if (l->mem)
		p = put_operand(t, n, l->mem_size, l->rm_w);
	flags_before(t, n);
	if (!l->digit && !l->reg_high) {
		reg = host_of[l->reg];
		if (reg == H_SP) {
			reg = T_B;
			if (l->reg_r || l->size < 4)
				e_load(e, 8, T_B, gpr_at(l->reg));
		}
	}
	if (l->mem) {
		rm = rm_ptr();
	} else {
		rm_host = l->rm_high ? l->rm : host_of[l->rm];
		if (rm_host == H_SP && !l->rm_high) {
			rm_host = T_C;
			if (l->rm_r || l->size < 4 || l->map)
				e_load(e, 8, T_C, gpr_at(l->rm));
		}
		rm = rm_reg(rm_host);
	}
	if (l->lock)
		e8(e, 0xf0);
	if (l->map == 1 && (l->op == 0xa4 || l->op == 0xac))
		imm = i->imm;
	e_op(e, l->size, l->prefix, l->map, l->op, reg, rm, l->reg_byte && !l->reg_high,
	     l->rm_byte && !l->rm_high);
	put_imm(e, l, imm);
	if (l->reg_w && reg == T_B)
		e_store(e, 8, T_B, gpr_at(l->reg));
	if (l->rm_w && !l->mem && rm_host == T_C)
		e_store(e, 8, T_C, gpr_at(l->rm));
	flags_after(t, n);
	if (l->mem)
		probe_done(t, p);
}

static void put_plain(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];

	flags_before(t, n);
	if (l->size == 2)
		e8(&t->e, 0x66);
	if (l->size == 8)
		e8(&t->e, 0x48);
	e8(&t->e, l->op);
	flags_after(t, n);
}

static void put_lea(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	bool direct = l->size >= 4 && !in_memory(l->reg);
	unsigned dst = direct ? host_of[l->reg] : T_A;

	put_ea(t, i, l->size == 4 || i->asize == 4 ? 4 : 8, dst);
	if (direct)
		return;
	if (l->size == 2)
		e_rm(&t->e, 2, 0x89, T_A,
		     in_memory(l->reg) ? rm_cpu(gpr_at(l->reg))
				       : rm_reg(host_of[l->reg]));
	else
		e_store(&t->e, 8, T_A, gpr_at(l->reg));
}

static void put_mov_imm(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	uint64_t v = t->b->insn[n].imm;
	unsigned dst = in_memory(l->rm) ? T_B : host_of[l->rm];

	if (l->size == 2) {
		e_imm(&t->e, T_C, (uint16_t)v);
		e_rm(&t->e, 2, 0x89, T_C,
		     in_memory(l->rm) ? rm_cpu(gpr_at(l->rm)) : rm_reg(dst));
		return;
	}
	e_imm(&t->e, dst, l->size == 4 ? (uint32_t)v : v);
	if (dst == T_B)
		e_store(&t->e, 8, T_B, gpr_at(l->rm));
}

static void put_bswap(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	unsigned reg = reg_in(t, l->rm, T_B);

	e8(&t->e, 0x40 | (l->size == 8 ? 8 : 0) | (reg & 8 ? 1 : 0));
	e8(&t->e, 0x0f);
	e8(&t->e, 0xc8 | (reg & 7));
	if (reg == T_B)
		e_store(&t->e, 8, T_B, gpr_at(l->rm));
}

/* ---- the stack ---------------------------------------------------------------------------------------------- */

/* Room for a word below rsp: T_A is its host address. */
static struct probe put_push_probe(struct trans *t, unsigned n)
{
	e_lea(&t->e, t->word, T_A, G_SP, H_SP, 0, -(int32_t)t->word);
	return put_probe(t, n, t->word, true);
}

static void put_sp_add(struct trans *t, int32_t v)
{
	e_lea(&t->e, t->word, G_SP, G_SP, H_SP, 0, v);
}

static void put_push(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	const struct lift *l = &t->l[n];
	struct emit *e = &t->e;
	struct probe p, q = {0};
	unsigned reg;

	if (l->mem) {
		q = put_operand(t, n, t->word, false);
		e_rm(e, t->word, 0x8b, T_B, rm_ptr());
		e_store(e, 8, T_B, CPU_OFF(jit_tmp));
	}
	flags_keep(t, t->live[n]);
	p = put_push_probe(t, n);
	if (l->kind == L_PUSH_IMM) {
		e_rm(e, t->word, 0xc7, 0, rm_ptr());
		e32(e, (uint32_t)i->imm);
	} else {
		if (l->mem)
			e_load(e, 8, reg = T_B, CPU_OFF(jit_tmp));
		else
			reg = reg_in(t, l->rm, T_B);
		e_rm(e, t->word, 0x89, reg, rm_ptr());
	}
	put_sp_add(t, -(int32_t)t->word);
	probe_done(t, p);
	if (l->mem)
		probe_done(t, q);
}

static void put_pop(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	struct emit *e = &t->e;
	struct probe p;

	flags_keep(t, t->live[n]);
	e_mov(e, t->word, T_A, G_SP);
	p = put_probe(t, n, t->word, false);
	put_sp_add(t, t->word);
	if (in_memory(l->rm)) {
		e_rm(e, t->word, 0x8b, T_B, rm_ptr());
		e_store(e, 8, T_B, gpr_at(l->rm));
	} else {
		e_rm(e, t->word, 0x8b, host_of[l->rm], rm_ptr());
	}
	probe_done(t, p);
}

static void put_leave(struct trans *t, unsigned n)
{
	struct emit *e = &t->e;
	struct probe p;

	flags_keep(t, t->live[n]);
	e_mov(e, t->word, T_A, H_BP);
	p = put_probe(t, n, t->word, false);
	e_lea(e, t->word, G_SP, H_BP, H_SP, 0, t->word);
	e_rm(e, t->word, 0x8b, H_BP, rm_ptr());
	probe_done(t, p);
}

/* ---- branches ------------------------------------------------------------------------------------------------ */

/* r12 = what interp() wants to know of instruction n; then the call. Flags are in c->st. */
static void put_interp(struct trans *t, unsigned n)
{
	e_imm(&t->e, T_B, (uint64_t)(uintptr_t)&t->b->insn[n]);
	e_imm(&t->e, T_C, t->rip);
	e_call_to(t->j, &t->e, t->j->interp);
}

/* cmp [c + off], v */
static void put_cmp_cpu(struct trans *t, int32_t off, uint64_t v)
{
	if (v == (uint64_t)(int64_t)(int32_t)v) {
		e_alu_imm(&t->e, 8, 7, rm_cpu(off), (int32_t)v);
		return;
	}
	e_imm(&t->e, T_B, v);
	e_rm(&t->e, 8, 0x39, T_B, rm_cpu(off));
}

/*
 * Goes on at `rip` from instruction n; flags are in c->st as far as anybody asks. A jump backwards, or to
 * another page, looks whether something waits: so no circle goes without.
 */
static void put_exit(struct trans *t, uint64_t rip, unsigned n)
{
	uint64_t here = wrap(t, t->rip + t->b->insn[n].off);
	struct jit_link *l = jit_alloc(t->j, sizeof(*l));
	bool far = (rip ^ t->rip) & PAGE_MASK;
	uint8_t *out[3] = {NULL};
	struct emit *e = &t->e;

	if (!l) {
		t->failed = true;
		return;
	}
	l->rip = rip;
	l->from = t->code;
	if (rip <= here) {
		e_rm(e, 4, 0xf7, 0, rm_cpu(CPU_OFF(request)));
		e32(e, ~(uint32_t)REQ_JIT);
		out[0] = e_jcc(e, CC_NZ);
	}
	if (far) {
		int32_t at = t->tlb + (int32_t)((rip >> 12 & (TLB_SIZE - 1)) *
						sizeof(struct tlb_entry));

		put_cmp_cpu(t, at + (int32_t)offsetof(struct tlb_entry, tag_exec),
			    rip & PAGE_MASK);
		out[1] = e_jcc(e, CC_NZ);
		e8(e, 0x49), e8(e, 0xb8 | (T_B & 7)); /* mov r12, gpa */
		l->gpa = e->p;
		e64(e, TLB_NONE);
		e_rm(e, 8, 0x39, T_B,
		     rm_cpu(at + (int32_t)offsetof(struct tlb_entry, gpa)));
		out[2] = e_jcc(e, CC_NZ);
	}
	l->rel = e_jmp(e);
	l->away = e->p;
	e_patch(l->rel, e->p);
	for (unsigned k = 0; k < 3; k++) {
		if (out[k])
			e_patch(out[k], e->p);
	}
	e_imm(e, T_B, (uint64_t)(uintptr_t)l);
	e_jmp_to(t->j, e, t->j->leave_link);
}

/* jcc: may be told from c->st without loading it. Returns the jump's displacement. */
static uint8_t *put_cond(struct trans *t, unsigned cc)
{
	static const uint8_t mask[8] = {0,     FL_CF, FL_ZF, FL_CF | FL_ZF,
					FL_SF, FL_PF, 0,     0};
	struct emit *e = &t->e;

	if (t->flags == FL_AT_MEM && mask[cc >> 1]) {
		e_rm(e, 0, 0xf6, 0, rm_cpu(CPU_OFF(st) + 1));
		e8(e, mask[cc >> 1]);
		return e_jcc(e, cc & 1 ? CC_Z : CC_NZ);
	}
	flags_fetch(t, LF_ALL);
	return e_jcc(e, cc);
}

static void put_jcc(struct trans *t, unsigned n)
{
	uint64_t rip = wrap(t, t->rip + t->b->insn[n].imm);
	struct side *s = side_add(t, put_cond(t, t->l[n].cc), n);

	s->rip = rip;
	s->save_flags = t->flags == FL_AT_HOST && t->taken[n];
}

/* The target in T_B must be canonical, else the interpreter raises #GP. */
static void put_check_canonical(struct trans *t, unsigned n)
{
	struct emit *e = &t->e;

	if (!t->m64)
		return;
	e_mov(e, 8, T_C, T_B);
	e_rm(e, 8, 0xc1, 4, rm_reg(T_C));
	e8(e, 16);
	e_rm(e, 8, 0xc1, 7, rm_reg(T_C));
	e8(e, 16);
	e_rm(e, 8, 0x39, T_B, rm_reg(T_C));
	side_add(t, e_jcc(e, CC_NZ), n)->back = e->p;
}

static void put_jump_indirect(struct trans *t)
{
	e_jmp_to(t->j, &t->e, t->j->jump[t->code->mode][!t->m64]);
}

/* The target of an indirect branch into T_B. */
static struct probe put_target(struct trans *t, unsigned n)
{
	const struct lift *l = &t->l[n];
	struct probe p = {0};

	flags_keep(t, LF_ALL);
	if (l->mem) {
		p = put_operand(t, n, t->word, false);
		e_rm(&t->e, t->word, 0x8b, T_B, rm_ptr());
	} else if (in_memory(l->rm)) {
		e_load(&t->e, t->word, T_B, gpr_at(l->rm));
	} else {
		e_mov(&t->e, t->word, T_B, host_of[l->rm]);
	}
	put_check_canonical(t, n);
	if (l->mem)
		probe_done(t, p);
	return p;
}

static void put_push_return(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	uint64_t ret = wrap(t, t->rip + i->off + i->len);
	struct emit *e = &t->e;
	struct probe p;

	flags_keep(t, LF_ALL);
	p = put_push_probe(t, n);
	if (t->word == 4 || ret == (uint64_t)(int64_t)(int32_t)ret) {
		e_rm(e, t->word, 0xc7, 0, rm_ptr());
		e32(e, (uint32_t)ret);
	} else {
		e_imm(e, T_B, ret);
		e_rm(e, 8, 0x89, T_B, rm_ptr());
	}
	put_sp_add(t, -(int32_t)t->word);
	probe_done(t, p);
}

static void put_call_indirect(struct trans *t, unsigned n)
{
	put_target(t, n);
	e_store(&t->e, 8, T_B, CPU_OFF(jit_tmp));
	put_push_return(t, n);
	e_load(&t->e, 8, T_B, CPU_OFF(jit_tmp));
	put_jump_indirect(t);
}

static void put_ret(struct trans *t, unsigned n)
{
	struct emit *e = &t->e;
	struct probe p;

	flags_keep(t, LF_ALL);
	e_mov(e, t->word, T_A, G_SP);
	p = put_probe(t, n, t->word, false);
	e_rm(e, t->word, 0x8b, T_B, rm_ptr());
	put_check_canonical(t, n);
	put_sp_add(t, t->word + (int32_t)t->b->insn[n].imm);
	put_jump_indirect(t);
	probe_done(t, p);
}

/* ---- blocks -------------------------------------------------------------------------------------------------- */

/* Returns false when nothing follows. */
static bool put_insn(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	uint64_t rip = wrap(t, t->rip + i->imm);

	switch (t->l[n].kind) {
	case L_NOP: return true;
	case L_OP: put_op(t, n); return true;
	case L_PLAIN: put_plain(t, n); return true;
	case L_MOV_IMM: put_mov_imm(t, n); return true;
	case L_BSWAP: put_bswap(t, n); return true;
	case L_LEA: put_lea(t, n); return true;
	case L_PUSH:
	case L_PUSH_IMM: put_push(t, n); return true;
	case L_POP: put_pop(t, n); return true;
	case L_LEAVE: put_leave(t, n); return true;
	case L_JCC: put_jcc(t, n); return true;
	case L_JMP:
	case L_END:
		flags_keep(t, t->taken[n]);
		put_exit(t, rip, n);
		return false;
	case L_CALL:
		put_push_return(t, n);
		put_exit(t, rip, n);
		return false;
	case L_JMP_IND:
		put_target(t, n);
		put_jump_indirect(t);
		return false;
	case L_CALL_IND: put_call_indirect(t, n); return false;
	case L_RET: put_ret(t, n); return false;
	default:
		flags_keep(t, LF_ALL);
		put_interp(t, n);
		t->flags = FL_AT_MEM;
		return !(i->flags & I_STOP);
	}
}

static void put_side(struct trans *t, const struct side *s)
{
	struct emit *e = &t->e;

	e_patch(s->from, e->p);
	if (!s->back) {
		if (s->save_flags)
			put_save(t);
		put_exit(t, s->rip, s->n);
		return;
	}
	put_interp(t, s->n);
	if (s->load_flags)
		put_load(t);
	e_patch(e_jmp(e), s->back);
}

static struct jit_code *translate(struct trans *t)
{
	struct jit *j = t->j;
	uint8_t *start = j->rw + j->used;

	first_pass(t);
	t->e.p = start;
	t->flags = FL_AT_MEM;
	for (unsigned n = 0; n <= t->b->n; n++) {
		if (!put_insn(t, n))
			break;
	}
	for (unsigned n = 0; n < t->n_sides; n++)
		put_side(t, &t->side[n]);
	if (t->failed)
		return NULL;
	j->used = align_up((size_t)(t->e.p - j->rw), 16);
	t->code->entry = jit_to_rx(j, start);
	return t->code;
}

struct jit_code *jit_translate(struct jit *j, struct block *b)
{
	struct trans t = {.j = j, .c = j->c, .b = b, .rip = j->c->rip};
	struct jit_page *page;

	if (j->size - j->used < CODE_MAX)
		jit_flush(j);
	t.m64 = (b->key & BLOCK_MODE) == MODE_64;
	t.word = t.m64 ? 8 : 4;
	t.tlb = CPU_OFF(tlbs) + (int32_t)(j->c->mmu_mode * sizeof(j->c->tlbs[0]));
	t.code = jit_alloc(j, sizeof(*t.code));
	page = jit_page_get(j, b->cp);
	if (!t.code || !page || page->gen != b->gen)
		return NULL;
	t.code->b = b;
	t.code->rip = t.rip;
	t.code->mode = j->c->mmu_mode;
	if (!translate(&t))
		return NULL;
	t.code->next_of_block = b->jit;
	b->jit = t.code;
	t.code->next_of_page = page->codes;
	page->codes = t.code;
	j->n_codes++;
	return t.code;
}

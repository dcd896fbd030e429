/*
 * x86/jit/trans.c - translates a block. See jit_int.h for how the code looks. vCPU thread.
 *
 * Flags: a first pass from the end finds which status flags are needed behind each instruction; what
 * lies behind the block needs all that its own first instructions do not overwrite.
 */
#include "x86/jit/trans_int.h"

#include "x86/decode.h"
#include "x86/op_tmpl.h"

/* ---- flags ------------------------------------------------------------------------------------------- */

void jt_save(struct trans *t)
{
	struct emit *e = &t->e;

	e_mov(e, 8, T_C, H_AX);
	e8(e, 0x9f);
	e8(e, 0x0f), e8(e, 0x90), e8(e, 0xc0);
	e_store(e, 2, H_AX, CPU_OFF(st));
	e_mov(e, 8, H_AX, T_C);
}

void jt_load(struct trans *t)
{
	struct emit *e = &t->e;

	e_mov(e, 8, T_C, H_AX);
	e_rm(e, 2, 0x8b, H_AX, rm_cpu(CPU_OFF(st)));
	e8(e, 0x04), e8(e, 0x7f);
	e8(e, 0x9e);
	e_mov(e, 8, H_AX, T_C);
}

void jt_flags_keep(struct trans *t, unsigned need)
{
	if (!need && t->flags != FL_AT_MEM)
		t->flags = t->flags == FL_AT_BOTH ? FL_AT_MEM : FL_AT_NONE;
	if (t->flags == FL_AT_HOST)
		jt_save(t);
	if (t->flags != FL_AT_NONE)
		t->flags = FL_AT_MEM;
}

/* Into the host's flags. */
void jt_flags_fetch(struct trans *t, unsigned need)
{
	if (need && t->flags == FL_AT_MEM) {
		jt_load(t);
		t->flags = FL_AT_BOTH;
	}
}

struct side *jt_side_add(struct trans *t, enum side_kind kind, uint8_t *from,
			 unsigned n)
{
	struct side *s = &t->side[t->n_sides < SIDES_MAX ? t->n_sides++ : 0];

	t->failed |= t->n_sides == SIDES_MAX;
	*s = (struct side){.kind = kind, .from = from, .n = (uint8_t)n, .x87 = t->x87};
	return s;
}

/* ---- first pass ------------------------------------------------------------------------------------------ */

/* The frame of an exception has all flags. */
static bool may_fault(const struct lift *l)
{
	return l->kind == L_INTERP || l->kind == L_DIV || l->kind == L_STRING ||
	       (l->mem && l->kind != L_LEA) ||
	       (l->kind >= L_CALL && l->kind <= L_LEAVE);
}

/*
 * Flags needed at linear address `rip`, as far as a few instructions there tell. Those are marked like the
 * block's own code, so that the translation is forgotten when they change.
 */
static unsigned needed_at(struct trans *t, uint64_t rip)
{
	const struct tlb_entry *e = tlb_of(t->c, rip, false);
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
		if (may_fault(&l) || (l.kind >= L_JCC && l.kind <= L_RET) ||
		    l.kind == L_END)
			break;
		res |= l.rd & need;
		need &= ~(unsigned)l.kill;
		off += len;
	}
	return res | need;
}

static void lift_block(struct trans *t)
{
	const struct block *b = t->b;
	const uint8_t *bytes = (const uint8_t *)&b->insn[b->n + 1];

	for (unsigned n = 0; n <= b->n; n++) {
		const struct insn *i = &b->insn[n];
		struct lift *l = &t->l[n];

		lift_insn(i, bytes + i->off, t->m64, l);
		t->loop |= (l->kind == L_JCC || l->kind == L_JMP) &&
			   wrap(t, t->rip + i->imm) == t->rip;
	}
}

/* After the groups are known: what was looked up does not fault. */
static void first_pass(struct trans *t)
{
	const struct block *b = t->b;
	unsigned need = LF_ALL;

	t->fp[b->n + 1] = 0;
	for (unsigned n = b->n + 1; n-- > 0;) {
		const struct insn *i = &b->insn[n];
		struct lift *l = &t->l[n];

		t->fp[n] = t->fp[n + 1] | l->fp;
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
		if (may_fault(l) && !jt_looked_up(t, n))
			need = LF_ALL;
	}
}

/* ---- blocks -------------------------------------------------------------------------------------------------- */

/* By the interpreter; false when nothing follows. */
static bool put_interpreted(struct trans *t, unsigned n)
{
	jt_flags_keep(t, LF_ALL);
	jt_interp(t, n);
	t->flags = FL_AT_MEM;
	t->at_a = -1;
	if (t->b->insn[n].flags & I_STOP)
		return false;
	jt_fp_check(t, n + 1);
	return true;
}

static bool ends(unsigned kind)
{
	return (kind >= L_JMP && kind <= L_RET) || kind == L_END || kind == L_INTERP;
}

/* Returns false when nothing follows. */
static bool put_insn(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	uint64_t rip = wrap(t, t->rip + i->imm);

	if (ends(t->l[n].kind)) {
		jt_x87_note(t, t->x87);
		t->x87 = -1;
	}
	switch (t->l[n].kind) {
	case L_NOP: return true;
	case L_OP: jt_op(t, n); return true;
	case L_PLAIN: jt_plain(t, n); return true;
	case L_MOV_IMM: jt_mov_imm(t, n); return true;
	case L_BSWAP: jt_bswap(t, n); return true;
	case L_LEA: jt_lea(t, n); return true;
	case L_DIV: jt_div(t, n); return true;
	case L_PUSH:
	case L_PUSH_IMM: jt_push(t, n); return true;
	case L_POP: jt_pop(t, n); return true;
	case L_LEAVE: jt_leave(t, n); return true;
	case L_STRING: jt_string(t, n); return true;
	case L_GEN: jt_gen(t, n); return true;
	case L_X87: jt_x87(t, n); return true;
	case L_JCC: jt_jcc(t, n); return true;
	case L_JMP:
	case L_END:
		jt_flags_keep(t, t->taken[n]);
		jt_exit(t, rip, n, false);
		return false;
	case L_CALL:
		jt_push_return(t, n);
		jt_exit(t, rip, n, false);
		return false;
	case L_JMP_IND: jt_jump_ind(t, n); return false;
	case L_CALL_IND: jt_call_indirect(t, n); return false;
	case L_RET: jt_ret(t, n); return false;
	default: return put_interpreted(t, n);
	}
}

/* Instruction n by the interpreter, while a group is in use: it may end that. */
static void put_side_stale(struct trans *t, unsigned n)
{
	const struct insn *i = &t->b->insn[n];
	struct emit *e = &t->e;
	uint8_t *fresh;

	e_rm(e, 1, 0xc6, 0, rm_cpu(CPU_OFF(jit_stale)));
	e8(e, 0);
	jt_interp(t, n);
	e_rm(e, 1, 0x80, 7, rm_cpu(CPU_OFF(jit_stale))); /* cmp */
	e8(e, 0);
	fresh = e_jcc(e, CC_Z);
	jt_exit(t, wrap(t, t->rip + i->off + i->len), n, false);
	e_patch(fresh, e->p);
}

static void put_side(struct trans *t, const struct side *s)
{
	const struct insn *i = &t->b->insn[s->n];

	e_patch(s->from, t->e.p);
	if (s->kind != SIDE_SITE)
		jt_x87_note(t, s->x87);
	switch (s->kind) {
	case SIDE_SITE: jt_site_fill(t, s); return;
	case SIDE_EXIT:
		if (s->save_flags)
			jt_save(t);
		jt_exit(t, s->rip, s->n, false);
		return;
	case SIDE_SOLO:
		jt_interp(t, s->n);
		jt_exit(t, wrap(t, t->rip + i->off + i->len), s->n, true);
		return;
	case SIDE_INTERP:
		if (jt_grouped(t, s->n))
			put_side_stale(t, s->n);
		else
			jt_interp(t, s->n);
		jt_fp_get(t, s->n + 1u);
		break;
	case SIDE_FP: jt_fp_get(t, s->n); break;
	}
	if (s->load_flags)
		jt_load(t);
	e_patch(e_jmp(&t->e), s->back);
}

static struct jit_code *translate(struct trans *t)
{
	struct jit *j = t->j;
	uint8_t *start = j->rw + j->used;

	lift_block(t);
	jt_groups(t);
	first_pass(t);
	t->e.p = start;
	t->flags = FL_AT_MEM;
	t->x87 = t->at_a = -1;
	if (t->b->crosses && !t->c->lockstep) /* there the interpreter ran it before */
		jt_second_page(t);
	jt_count_enter(t);
	jt_fp_check(t, 0);
	for (unsigned n = 0; n <= t->b->n; n++) {
		if (!put_insn(t, n))
			break;
	}
	for (unsigned n = 0; n < t->n_sides; n++)
		put_side(t, &t->side[n]);
	if (t->failed)
		return NULL;
	t->code->size = (uint32_t)(t->e.p - start);
	j->used = align_up((size_t)(t->e.p - j->rw), 16);
	t->code->entry = jit_to_rx(j, start);
	return t->code;
}

static struct jit_code *translate_block(struct jit *j, struct block *b, bool solo)
{
	struct trans t = {.j = j, .c = j->c, .b = b, .rip = j->c->rip, .solo = solo};
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
	t.code->solo = solo;
	if (!translate(&t))
		return NULL;
	jit_codes_add(j, page, t.code);
	j->n_codes++;
	return t.code;
}

struct jit_code *jit_translate(struct jit *j, struct block *b, bool solo)
{
	enum x86_time was = time_is(j->c, X86_TIME_TRANSLATOR);
	struct jit_code *code = translate_block(j, b, solo);

	time_is(j->c, was);
	return code;
}

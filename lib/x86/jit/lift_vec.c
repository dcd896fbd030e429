/*
 * x86/jit/lift_vec.c - the lift of vector and x87 instructions, by the tables that the interpreter
 * uses, and of those on general registers that have a VEX prefix or a three-byte opcode. SDM 2A-2D.
 * Any thread.
 */
#include "x86/jit/lift.h"

#include "x86/vec.h"

/* ---- general registers ------------------------------------------------------------------------------ */

/* What happens to modrm.reg, modrm.rm, VEX.vvvv. */
enum { REG_R = 1, REG_W = 2, RM_R = 4, RM_W = 8, V_R = 16, V_W = 32 };
#define SZOC (LF_S | LF_Z | LF_O | LF_C)

static const struct gpr_row {
	uint8_t map, op, pp, vex, digit; /* digit: modrm.reg + 1, 0: any */
	uint8_t what;
	uint8_t rd, mod, kill; /* status flags */
	uint8_t byte;          /* rm is one */
} gpr_rows[] = {
	/* clang-format off */
	{2, 0xf2, 0, 1, 0, REG_W | V_R | RM_R, 0, LF_ALL, SZOC, 0},          /* ANDN */
	{2, 0xf3, 0, 1, 2, V_W | RM_R, 0, LF_ALL, SZOC, 0},                  /* BLSR */
	{2, 0xf3, 0, 1, 3, V_W | RM_R, 0, LF_ALL, SZOC, 0},                  /* BLSMSK */
	{2, 0xf3, 0, 1, 4, V_W | RM_R, 0, LF_ALL, SZOC, 0},                  /* BLSI */
	{2, 0xf5, 0, 1, 0, REG_W | RM_R | V_R, 0, LF_ALL, SZOC, 0},          /* BZHI */
	{2, 0xf5, 2, 1, 0, REG_W | V_R | RM_R, 0, 0, 0, 0},                  /* PEXT */
	{2, 0xf5, 3, 1, 0, REG_W | V_R | RM_R, 0, 0, 0, 0},                  /* PDEP */
	{2, 0xf6, 3, 1, 0, REG_W | V_W | RM_R, 0, 0, 0, 0},                  /* MULX */
	{2, 0xf7, 0, 1, 0, REG_W | RM_R | V_R, 0, LF_ALL, LF_Z | LF_O | LF_C, 0}, /* BEXTR */
	{2, 0xf7, 1, 1, 0, REG_W | RM_R | V_R, 0, 0, 0, 0},                  /* SHLX */
	{2, 0xf7, 2, 1, 0, REG_W | RM_R | V_R, 0, 0, 0, 0},                  /* SARX */
	{2, 0xf7, 3, 1, 0, REG_W | RM_R | V_R, 0, 0, 0, 0},                  /* SHRX */
	{3, 0xf0, 3, 1, 0, REG_W | RM_R, 0, 0, 0, 0},                        /* RORX */
	{2, 0xf0, 0, 0, 0, REG_W | RM_R, 0, 0, 0, 0},                        /* MOVBE */
	{2, 0xf1, 0, 0, 0, REG_R | RM_W, 0, 0, 0, 0},
	{2, 0xf0, 1, 0, 0, REG_R | REG_W | RM_R, 0, 0, 0, 0},
	{2, 0xf1, 1, 0, 0, REG_R | RM_W, 0, 0, 0, 0},
	{2, 0xf0, 3, 0, 0, REG_R | REG_W | RM_R, 0, 0, 0, 1},                /* CRC32 */
	{2, 0xf1, 3, 0, 0, REG_R | REG_W | RM_R, 0, 0, 0, 0},
	{2, 0xf6, 1, 0, 0, REG_R | REG_W | RM_R, LF_C, LF_C, LF_C, 0},       /* ADCX */
	{2, 0xf6, 2, 0, 0, REG_R | REG_W | RM_R, LF_O, LF_O, LF_O, 0},       /* ADOX */
	/* clang-format on */
};

static bool row_is(const struct gpr_row *g, const struct insn *i, const struct raw *r)
{
	return g->map == r->map && g->op == r->op && g->pp == r->pp &&
	       g->vex == r->vex && (!g->digit || g->digit - 1 == (i->modrm >> 3 & 7));
}

/* VEX forms only in 64-bit code: elsewhere the processor's mode decides whether they exist. */
void lift_gpr(const struct insn *i, const struct raw *r, bool m64, struct lift *l)
{
	const struct gpr_row *g = gpr_rows, *end = gpr_rows + ARRAY_LEN(gpr_rows);

	while (g < end && !row_is(g, i, r))
		g++;
	if (g == end || (r->vex && !m64))
		return;
	l->kind = L_GEN;
	l->map = r->map;
	l->op = r->op;
	l->pp = r->pp;
	l->vex = r->vex;
	l->w = m64 && r->w;
	l->osz = !r->vex && r->pp == 3 && i->flags & I_OPSZ;
	l->digit = g->digit;
	lift_operands(i, r, l);
	l->f_reg = l->digit ? F_DIGIT : F_GPR;
	l->f_rm = F_GPR;
	l->f_v = r->vex && g->what & (V_R | V_W) ? F_GPR : F_NONE;
	l->reg_r = g->what & REG_R;
	l->reg_w = g->what & REG_W;
	l->rm_r = g->what & RM_R;
	l->rm_w = g->what & RM_W;
	l->v_r = g->what & V_R;
	l->v_w = g->what & V_W;
	l->rm_byte = g->byte;
	if (g->byte && !r->rex && l->rm >= 4 && !l->mem) { /* AH..BH */
		l->kind = L_INTERP;
		return;
	}
	l->imm_size = r->map == 3;
	l->imm8 = (uint8_t)i->imm;
	l->mem_size = g->byte ? 1 : l->w ? 8 : i->flags & I_OPSZ && !r->vex ? 2 : 4;
	if (g->pp == 1 && r->op == 0xf6) /* there 66 is part of the opcode */
		l->mem_size = l->w ? 8 : 4;
	l->rd = g->rd;
	l->mod = g->mod;
	l->kill = g->kill;
}

/* ---- vectors ----------------------------------------------------------------------------------------- */

static bool has_kind(const struct vec_op *v, unsigned kinds)
{
	for (unsigned n = 0; n < 4; n++)
		if (kinds >> VEC_KIND(v->opr[n]) & 1)
			return true;
	return false;
}

static void set_field(uint8_t *f, bool *read, bool *write, unsigned kind, bool dst)
{
	*f = (uint8_t)kind;
	*read = !dst;
	*write = dst;
}

/* Fields by operand; `want` and `e` say what the manual says. */
static void set_operands(struct lift *l, const struct vec_want *want,
			 const struct vec_code_entry *e)
{
	const struct vec_op *v = want->op;
	bool ignored;

	for (unsigned n = 0; n < 4; n++) {
		unsigned k = VEC_KIND(v->opr[n]);

		switch (k) {
		case K_V: set_field(&l->f_reg, &ignored, &ignored, F_VEC, false); break;
		case K_H:
			if (want->vex)
				set_field(&l->f_v, &ignored, &ignored, F_VEC, false);
			break;
		case K_W:
		case K_U: set_field(&l->f_rm, &ignored, &ignored, F_VEC, false); break;
		case K_G:
			set_field(&l->f_reg, &l->reg_r, &l->reg_w, F_GPR, e->dst == k);
			break;
		case K_E:
			set_field(&l->f_rm, &l->rm_r, &l->rm_w, F_GPR, e->dst == k);
			break;
		case K_I:
		case K_L: l->imm_size = 1; break;
		}
	}
	if (want->mem)
		l->rm_w = e->dst == K_W || e->dst == K_M || e->dst == K_E;
	if (v->digit)
		l->f_reg = F_DIGIT;
}

/* VZEROUPPER, VZEROALL: in 32-bit code they leave half of the registers. */
static void lift_vzero(const struct raw *r, bool m64, struct lift *l)
{
	if (!m64 || !vec_host_has(AVX))
		return;
	l->kind = L_GEN;
	l->no_modrm = l->vex = true;
	l->map = 1;
	l->op = 0x77;
	l->l1 = r->l1;
	l->fp = FP_HERE | FP_VEX;
}

void lift_vec(const struct insn *i, const struct raw *r, bool m64, struct lift *l)
{
	struct vec_want want = {.map = r->map, .vex = r->vex, .mem = i->flags & I_MEM};
	unsigned in_flags = i->flags & (I_VEX | I_L1 | I_W);
	struct vec_code_entry e = {0};
	const struct vec_op *v;
	bool imm8;

	if (r->vex && r->map == 1 && r->op == 0x77 && !r->pp) {
		lift_vzero(r, m64, l);
		return;
	}
	v = vec_find(r->map, r->op, r->pp, in_flags, i->modrm, &imm8);
	if (!v || v->special || has_kind(v, BIT(K_P) | BIT(K_Q) | BIT(K_N)) ||
	    (v->flags & V_W64 && i->flags & I_W && !m64))
		return;
	want.op = v;
	want.l1 = r->vex && r->l1 && !(v->flags & V_LIG);
	want.w = r->w && vec_w_matters(v, m64);
	vec_describe(&want, &e);
	l->kind = L_GEN;
	l->map = r->map;
	l->op = r->op;
	l->pp = r->pp;
	l->vex = r->vex;
	l->w = want.w;
	l->l1 = want.l1;
	l->digit = v->digit;
	lift_operands(i, r, l);
	set_operands(l, &want, &e);
	l->mem_size = e.size;
	l->align = e.align;
	l->fp = FP_HERE | (r->vex ? FP_VEX : FP_SSE) | (v->flags & V_FP ? FP_MXCSR : 0);
	l->imm8 = (uint8_t)(has_kind(v, BIT(K_L)) && !m64 ? i->imm & 0x7f : i->imm);
	if (v->flags & V_ST)
		l->mod = l->kill = LF_ALL;
}

/* ---- x87 -------------------------------------------------------------------------------------------- */

/* Control instructions that run as they are while the state is in the host's registers. */
static bool control(unsigned op, unsigned modrm, struct lift *l)
{
	unsigned digit = modrm >> 3 & 7;

	if (op == 0xdf && modrm == 0xe0) /* FNSTSW AX */
		return true;
	if (modrm >= 0xc0 || (op != 0xd9 && op != 0xdd) || digit != 7)
		return false;
	l->mem_size = 2; /* FNSTCW, FNSTSW */
	l->rm_w = true;
	return true;
}

void lift_x87(const struct insn *i, const struct raw *r, struct lift *l)
{
	const struct vec_op *v = x87_find(r->op, i->modrm);

	if (!v)
		return;
	lift_operands(i, r, l);
	l->fp = FP_X87;
	l->op = r->op;
	if (v->special) {
		if (control(r->op, i->modrm, l))
			l->kind = L_X87;
		return;
	}
	l->kind = L_X87;
	l->note = true;
	l->mem_size = v->quirk;
	l->rm_w = x87_stores(v);
	if (!x87_uses_flags(v))
		return;
	if (r->op == 0xda || (r->op == 0xdb && i->modrm < 0xe0)) /* FCMOVcc */
		l->rd = LF_C | LF_Z | LF_P;
	else
		l->mod = LF_ALL, l->kill = LF_C | LF_Z | LF_P;
}

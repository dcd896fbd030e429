/*
 * x86/decode.c - bytes to struct insn, by the opcode tables (optab*.c).
 * SDM 2A chapter 2 (instruction format), 2D appendix A (opcode maps). Any thread.
 */
#include "x86/decode.h"

#include <string.h>

#include "x86/ops.h"

#define INSN_MAX 15

/* An instruction while it is being taken apart. */
struct dec {
	const uint8_t *p;
	unsigned avail, pos;
	unsigned mode; /* MODE_* */
	struct insn *i;
	int off;   /* in its block, -1: none */
	bool flat; /* DECODE_FLAT_DATA */
	bool opsz, adsz, lock, rep, repne;
	uint8_t rex; /* as REX: W R X B in the low bits, also when it came from VEX */
	uint8_t vex_l;
	uint8_t seg; /* override, X86_NSEG: none */
	uint8_t pp;  /* mandatory prefix: 0, 1 66, 2 F3, 3 F2 */
	uint8_t map; /* 0 one byte, 1 0F, 2 0F38, 3 0F3A */
	bool has_modrm, has_imm;
	bool bad;
};

enum { REX_B = 1, REX_X = 2, REX_R = 4, REX_W = 8 };

/* ---- operands: where they are, how large ------------------------------------------------------ */

enum where {
	W_NONE,
	W_E, /* modrm.rm, register or memory */
	W_R, /* modrm.rm, a register whatever mod says */
	W_G, /* modrm.reg */
	W_B, /* VEX.vvvv */
	W_Z, /* low opcode bits */
	W_ACC,
	W_I,
	W_J,
	W_A,
	W_O,
	W_X,
};

enum size_code { S_NONE, S_B, S_W, S_D, S_Y, S_Q, S_V, S_Z, S_SB };

/* clang-format off */
static const struct {
	uint8_t where, size;
} operands[O_COUNT] = {
	[O_NONE] = {W_NONE, S_NONE},
	[Eb] = {W_E, S_B}, [Ew] = {W_E, S_W}, [Ed] = {W_E, S_D}, [Ey] = {W_E, S_Y},
	[Eq] = {W_E, S_Q}, [Ev] = {W_E, S_V},
	[Gb] = {W_G, S_B}, [Gw] = {W_G, S_W}, [Gd] = {W_G, S_D}, [Gy] = {W_G, S_Y},
	[Gq] = {W_G, S_Q}, [Gv] = {W_G, S_V}, [Gz] = {W_G, S_Z},
	[M] = {W_E, S_NONE}, [Mb] = {W_E, S_B}, [Mw] = {W_E, S_W}, [Md] = {W_E, S_D},
	[My] = {W_E, S_Y}, [Mq] = {W_E, S_Q}, [Mv] = {W_E, S_V},
	[Rq] = {W_R, S_Q},
	[By] = {W_B, S_Y},
	[Zb] = {W_Z, S_B}, [Zv] = {W_Z, S_V},
	[rAL] = {W_ACC, S_B}, [rAX] = {W_ACC, S_V}, [rDX] = {W_NONE, S_NONE},
	[Ib] = {W_I, S_B}, [Is] = {W_I, S_SB}, [Iw] = {W_I, S_W}, [Iz] = {W_I, S_Z},
	[Iv] = {W_I, S_V}, [I1] = {W_I, S_NONE},
	[rCL] = {W_NONE, S_NONE},
	[Jb] = {W_J, S_B}, [Jz] = {W_J, S_Z},
	[Ap] = {W_A, S_NONE},
	[Ob] = {W_O, S_B}, [Ov] = {W_O, S_V},
	[Xb] = {W_X, S_B}, [Xv] = {W_X, S_V}, [Xz] = {W_X, S_Z},
};
/* clang-format on */

/* ---- bytes ------------------------------------------------------------------------------------- */

/* The byte at `at`, 0 behind the end. */
static unsigned peek(const struct dec *d, unsigned at)
{
	return at < d->avail ? d->p[at] : 0;
}

/* The next `n` bytes as a number. Running out of bytes shows in d->pos. */
static uint64_t fetch(struct dec *d, unsigned n)
{
	uint64_t v = 0;

	if (d->pos + n <= d->avail)
		memcpy(&v, d->p + d->pos, n);
	d->pos += n;
	return v;
}

static int64_t fetch_signed(struct dec *d, unsigned n)
{
	uint64_t v = fetch(d, n);

	switch (n) {
	case 1: return (int8_t)v;
	case 2: return (int16_t)v;
	case 4: return (int32_t)v;
	default: return (int64_t)v;
	}
}

/* ---- prefixes ---------------------------------------------------------------------------------- */

/* Takes the prefixes; the opcode's first byte is returned. */
static uint8_t prefixes(struct dec *d)
{
	for (;;) {
		uint8_t b = (uint8_t)fetch(d, 1);

		if (d->mode == MODE_64 && (b & 0xf0) == 0x40) {
			d->rex = b;
			continue;
		}
		switch (b) {
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
			if (d->mode != MODE_64)
				d->seg = (b >> 3) & 3;
			break;
		case 0x64: d->seg = X86_FS; break;
		case 0x65: d->seg = X86_GS; break;
		case 0x66: d->opsz = true; break;
		case 0x67: d->adsz = true; break;
		case 0xf0: d->lock = true; break;
		case 0xf2:
			d->repne = true;
			d->rep = false;
			break;
		case 0xf3:
			d->rep = true;
			d->repne = false;
			break;
		default: return b;
		}
		d->rex = 0; /* counts only directly before the opcode */
		if (d->pos > INSN_MAX || d->pos > d->avail)
			return 0;
	}
}

/* C4, C5 or 62 that is VEX or EVEX rather than LES, LDS, BOUND. */
static bool is_vex(const struct dec *d, uint8_t b)
{
	return (b == 0xc4 || b == 0xc5 || b == 0x62) &&
	       (d->mode == MODE_64 || peek(d, d->pos) >= 0xc0);
}

/* Behind C4 or C5: the rest of a VEX prefix. Returns the opcode. */
static uint8_t vex(struct dec *d, uint8_t b)
{
	unsigned v = (unsigned)fetch(d, 1), map = 1;

	d->bad |= d->rex || d->opsz || d->rep || d->repne || d->lock;
	d->rex = v & 0x80 ? 0 : REX_R;
	if (b == 0xc4) {
		d->rex |= (v & 0x40 ? 0 : REX_X) | (v & 0x20 ? 0 : REX_B);
		map = v & 31;
		v = (unsigned)fetch(d, 1);
		if (v & 0x80)
			d->rex |= REX_W;
	}
	if (d->mode != MODE_64)
		d->rex &= REX_W;
	d->bad |= map < 1 || map > 3;
	d->map = (uint8_t)map;
	d->i->vvvv = ~v >> 3 & 15;
	d->pp = v & 3;
	d->vex_l = v >> 2 & 1;
	d->i->flags |= I_VEX | (d->vex_l ? I_L1 : 0);
	return (uint8_t)fetch(d, 1);
}

/* ---- modrm ------------------------------------------------------------------------------------- */

static uint8_t gpr_off(const struct dec *d, unsigned n, bool byte)
{
	if (byte && !d->rex && !(d->i->flags & I_VEX) && n >= 4)
		return (uint8_t)(R_OFF(n - 4) + 1);
	return (uint8_t)R_OFF(n);
}

static void memory_16(struct dec *d, unsigned mod, unsigned rm)
{
	static const uint8_t base[8] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
					X86_RSI, X86_RDI, X86_RBP, X86_RBX};
	struct insn *i = d->i;

	if (mod == 0 && rm == 6) {
		i->disp = (int32_t)fetch_signed(d, 2);
		return;
	}
	i->base = R_OFF(base[rm]);
	if (rm < 4)
		i->index = rm & 1 ? R_OFF(X86_RDI) : R_OFF(X86_RSI);
	if (mod)
		i->disp = (int32_t)fetch_signed(d, mod);
	if (base[rm] == X86_RBP)
		i->seg = X86_SS;
}

static void memory_32(struct dec *d, unsigned mod, unsigned rm)
{
	struct insn *i = d->i;
	unsigned base = rm;

	if (rm == 4) {
		unsigned sib = (unsigned)fetch(d, 1);
		unsigned index = (sib >> 3 & 7) | (d->rex & REX_X ? 8 : 0);

		base = sib & 7;
		if (index != 4) /* as a vector register it is one: vec_special.c */
			i->index = (uint8_t)R_OFF(index);
		i->scale = (uint8_t)(sib >> 6);
	}
	if (mod == 0 && base == 5) {
		i->disp = (int32_t)fetch_signed(d, 4);
		if (d->mode == MODE_64 && rm == 5)
			i->flags |= I_RIPREL;
		return;
	}
	if (base == 4 || base == 5)
		i->seg = X86_SS;
	i->base = (uint8_t)R_OFF(base | (d->rex & REX_B ? 8 : 0));
	if (mod)
		i->disp = (int32_t)fetch_signed(d, mod == 1 ? 1 : 4);
}

static void memory(struct dec *d)
{
	unsigned mod = d->i->modrm >> 6, rm = d->i->modrm & 7;

	d->i->flags |= I_MEM;
	d->i->seg = X86_DS;
	if (d->i->asize == 2)
		memory_16(d, mod, rm);
	else
		memory_32(d, mod, rm);
}

/* The segment that is meant, after the default is in i->seg. */
static void segment(struct dec *d)
{
	if (d->seg != X86_NSEG)
		d->i->seg = d->seg;
	else if (d->mode == MODE_64)
		d->i->seg = SEG_FLAT;
	if (d->flat && d->seg == X86_NSEG)
		d->i->seg = SEG_FLAT;
	else if (d->mode != MODE_64)
		d->i->flags |= I_SEGCHK;
}

static bool modrm_is_mem(const struct dec *d)
{
	return d->i->modrm < 0xc0;
}

static void take_modrm(struct dec *d)
{
	if (!d->has_modrm) {
		d->i->modrm = (uint8_t)fetch(d, 1);
		d->has_modrm = true;
	}
}

/* ---- table rows -------------------------------------------------------------------------------- */

/* Follows a row to the instruction's own; the modrm byte is taken when that needs it. */
static const struct opcode *resolve(struct dec *d, const struct opcode *o)
{
	for (;;) {
		switch (o->kind) {
		case K_REG:
			take_modrm(d);
			o = &o->sub[d->i->modrm >> 3 & 7];
			break;
		case K_MOD:
			take_modrm(d);
			o = &o->sub[!modrm_is_mem(d)];
			break;
		case K_RM:
			take_modrm(d);
			o = &o->sub[d->i->modrm & 7];
			break;
		case K_PREFIX: o = &o->sub[d->pp]; break;
		case K_MODE: o = &o->sub[d->mode == MODE_64]; break;
		default: return o;
		}
	}
}

/* Size in bytes of a size code, 0 for none. `v` is the effective operand size. */
static unsigned size_of(const struct dec *d, unsigned code, unsigned v)
{
	switch (code) {
	case S_B: return 1;
	case S_W: return 2;
	case S_D: return 4;
	case S_Y: return d->mode == MODE_64 && d->rex & REX_W ? 8 : 4;
	case S_Q: return d->mode == MODE_64 ? 8 : 4;
	case S_V: return v;
	case S_Z: return v == 2 ? 2 : 4;
	default: return 0;
	}
}

static unsigned operand_size(const struct dec *d, unsigned attr)
{
	if (d->mode == MODE_64) {
		if (attr & A_F64 || d->rex & REX_W)
			return 8;
		if (attr & A_D64)
			return d->opsz ? 2 : 8;
		return d->opsz ? 2 : 4;
	}
	return (d->mode == MODE_32) != d->opsz ? 4 : 2;
}

static void immediate(struct dec *d, unsigned o, unsigned v)
{
	struct insn *i = d->i;
	uint64_t val;

	switch (o) {
	case I1: val = 1; break;
	case Ib: val = fetch(d, 1); break;
	case Is: val = (uint64_t)fetch_signed(d, 1); break;
	case Iw: val = fetch(d, 2); break;
	case Iz: val = (uint64_t)fetch_signed(d, v == 2 ? 2 : 4); break;
	default: val = fetch(d, v); break;
	}
	if (d->has_imm)
		i->sel = (uint16_t)val;
	else
		i->imm = val;
	d->has_imm = true;
}

/* What an operand adds to the instruction: memory, immediate. Registers come later. */
static void operand(struct dec *d, unsigned o, unsigned v)
{
	struct insn *i = d->i;

	switch (operands[o].where) {
	case W_E:
		take_modrm(d);
		if (modrm_is_mem(d)) {
			memory(d);
			segment(d);
		} else if (operands[o].size == S_NONE) {
			d->bad |= o == M;
		}
		break;
	case W_R:
	case W_G: take_modrm(d); break;
	case W_J:
		i->imm = (uint64_t)fetch_signed(d, o == Jb ? 1 : v == 2 ? 2 : 4);
		break;
	case W_A:
		i->imm = fetch(d, v);
		i->sel = (uint16_t)fetch(d, 2);
		break;
	case W_O:
		i->imm = fetch(d, i->asize);
		i->seg = X86_DS;
		segment(d);
		break;
	case W_X:
		i->seg = X86_DS;
		segment(d);
		break;
	default: break;
	}
}

/* gpr byte offset of a register operand; `mem` of W_E does not come here. */
static uint8_t operand_reg(const struct dec *d, unsigned o)
{
	const struct insn *i = d->i;
	bool byte = operands[o].size == S_B;

	switch (operands[o].where) {
	case W_E:
	case W_R: return gpr_off(d, (i->modrm & 7) | (d->rex & REX_B ? 8 : 0), byte);
	case W_G:
		return gpr_off(d, (i->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0), byte);
	case W_Z: return gpr_off(d, (i->op & 7) | (d->rex & REX_B ? 8 : 0), byte);
	default: return 0; /* the accumulator */
	}
}

/* How well an address is known: which handler for it. */
static enum ea_class ea_class_of(const struct insn *i)
{
	if (i->asize != 8 || i->flags & (I_SEGCHK | I_RIPREL))
		return EA_ANY;
	return i->index == R_ZERO && i->seg == SEG_FLAT ? EA_BD : EA_64;
}

/* Picks the handler of an instruction that has them by form, and puts the registers in place. */
static void bind_set(struct dec *d, const struct opcode *o)
{
	struct insn *i = d->i;
	unsigned wa = operands[o->a].where, wb = operands[o->b].where;
	bool mem = i->flags & I_MEM;
	unsigned size = (unsigned)__builtin_ctz(i->osize), form;

	if (wa == W_E && mem) {
		form = wb == W_G || wb == W_ACC ? F_MR : F_MI;
		i->reg = operand_reg(d, o->b);
	} else if (wa == W_G && wb == W_E && mem) {
		form = F_RM;
		i->reg = operand_reg(d, o->a);
	} else {
		form = wb == W_NONE || wb == W_I ? F_RI : F_RR;
		i->rm = operand_reg(d, o->a);
		i->reg = operand_reg(d, o->b);
	}
	if (d->lock)
		form = form == F_MR ? F_LMR : F_LMI;
	else if (mem && o->set->fn[form + ea_class_of(i)][size])
		form += ea_class_of(i);
	else if (mem)
		form += EA_ANY;
	i->fn = o->set->fn[form][size];
	if (!i->fn)
		i->fn = op_ud;
}

/* The other instructions: registers as modrm says. */
static void bind_fn(struct dec *d, const struct opcode *o)
{
	struct insn *i = d->i;

	i->fn = o->fn;
	i->reg = gpr_off(d, (i->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0),
			 o->a == Gb || o->b == Gb);
	i->rm = gpr_off(d, (i->modrm & 7) | (d->rex & REX_B ? 8 : 0),
			o->a == Eb || o->b == Eb);
	if (operands[o->a].where == W_Z)
		i->reg = i->rm = operand_reg(d, o->a);
}

static void set_flags(struct dec *d, const struct opcode *o)
{
	struct insn *i = d->i;

	if (o->attr & A_END)
		i->flags |= I_END | I_STOP;
	if (o->attr & A_JCC || (o->attr & A_REP && (d->rep || d->repne)))
		i->flags |= I_END;
	if (o->attr & A_STOP)
		i->flags |= I_STOP;
	if (o->attr & A_REL)
		i->flags |= I_REL;
}

/* Rules that make an encoding undefined. */
static bool is_undefined(const struct dec *d, const struct opcode *o)
{
	const struct insn *i = d->i;
	bool mem = i->flags & I_MEM;

	if (d->bad || (o->attr & A_I64 && d->mode == MODE_64) ||
	    (o->attr & A_O64 && d->mode != MODE_64))
		return true;
	if ((o->attr & A_REG && mem) || (o->attr & A_MEM && !mem))
		return true;
	if (d->lock && !(o->attr & A_LOCK && mem && operands[o->a].where == W_E))
		return true;
	if (i->flags & I_VEX)
		return d->vex_l || (o->attr & A_V0 && i->vvvv);
	return false;
}

static void finish_op(struct dec *d, const struct opcode *o)
{
	struct insn *i = d->i;
	unsigned v = operand_size(d, o->attr), size;

	if (o->attr & A_I64 && d->mode == MODE_64) {
		i->fn = op_ud; /* before operands are fetched: it cannot be too long */
		i->flags |= I_STOP;
		return;
	}

	operand(d, o->a, v);
	operand(d, o->b, v);
	operand(d, o->c, v);
	if (operands[o->a].where == W_I)
		immediate(d, o->a, v);
	if (operands[o->b].where == W_I)
		immediate(d, o->b, v);
	if (operands[o->c].where == W_I)
		immediate(d, o->c, v);
	size = operands[o->a].where == W_I || operands[o->a].where == W_J
		       ? 0
		       : size_of(d, operands[o->a].size, v);
	i->osize = (uint8_t)(size ? size : v);
	if (is_undefined(d, o)) {
		i->fn = op_ud;
		i->flags |= I_STOP;
		return;
	}
	set_flags(d, o);
}

/* VGATHER: the memory operand has to have a SIB byte, whose index is a vector. */
static bool is_bad_gather(const struct dec *d)
{
	const struct insn *i = d->i;

	return i->flags & I_VEX && d->map == 2 && i->op >= 0x90 && i->op <= 0x93 &&
	       (!modrm_is_mem(d) || (i->modrm & 7) != 4 || i->asize == 2);
}

/* A vector, MMX or x87 instruction. */
static void finish_vec(struct dec *d)
{
	struct insn *i = d->i;
	const struct vec_op *v;
	bool imm8 = false;

	if (!(i->flags & I_VEX && d->map == 1 && i->op == 0x77))
		take_modrm(d);
	else
		i->modrm = 0xc0;
	v = is_bad_gather(d) ? NULL
			     : vec_find(d->map, i->op, d->map ? d->pp : 0, i->flags,
					i->modrm, &imm8);
	if (d->bad || d->lock)
		v = NULL;
	if (modrm_is_mem(d)) {
		memory(d);
		segment(d);
	}
	if (d->map == 1 && i->op == 0xf7) { /* MASKMOVQ, MASKMOVDQU: DS:rDI */
		i->seg = X86_DS;
		segment(d);
	}
	if (imm8 || (!v && d->map == 3))
		i->imm = fetch(d, 1);
	if (!v) {
		i->fn = op_ud;
		i->flags |= I_STOP;
		return;
	}
	i->osize = d->map ? (d->vex_l ? 32 : 16) : (uint8_t)operand_size(d, 0);
	i->reg = (uint8_t)((i->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0));
	i->rm = (uint8_t)((i->modrm & 7) | (d->rex & REX_B ? 8 : 0));
	i->data = v;
}

/* Finds the row of the opcode that starts with byte `b`. */
static const struct opcode *find_row(struct dec *d, uint8_t b)
{
	static const struct opcode vec_row = VEC, ud_row = {0};
	struct insn *i = d->i;

	d->pp = d->repne ? 3 : d->rep ? 2 : d->opsz ? 1 : 0;
	if (is_vex(d, b)) {
		if (b == 0x62)
			return &ud_row; /* AVX-512 is above the feature level of this library */
		i->op = vex(d, b);
		return d->bad        ? &ud_row
		       : d->map == 1 ? &vec_row
		       : d->map == 2 ? &optab_vex2[i->op]
				     : &optab_vex3[i->op];
	}
	i->op = b;
	if (b == 0x90 && d->rex & REX_B)
		return &optab_1[0x91]; /* XCHG r8, rAX */
	if (b != 0x0f)
		return &optab_1[b];
	d->map = 1;
	i->op = (uint8_t)fetch(d, 1);
	if (i->op != 0x38 && i->op != 0x3a)
		return &optab_0f[i->op];
	d->map = i->op == 0x38 ? 2 : 3;
	i->op = (uint8_t)fetch(d, 1);
	return d->map == 2 ? &optab_0f38[i->op] : &vec_row;
}

/* In a block: rip-relative operands and branches become relative to the block's start. */
static void fold_rip(struct dec *d)
{
	struct insn *i = d->i;
	int64_t add = d->off + (int)d->pos;

	if (i->flags & I_REL)
		i->imm += (uint64_t)add;
	if (i->flags & I_RIPREL && i->asize == 8 &&
	    i->disp + add == (int32_t)(i->disp + add)) {
		i->disp += (int32_t)add;
		i->base = R_BLOCK;
		i->flags &= (uint16_t)~I_RIPREL;
	}
}

static unsigned decode(struct dec *d)
{
	static const uint8_t asize[3][2] = {{2, 4}, {4, 2}, {8, 4}};
	struct insn *i = d->i;
	const struct opcode *o;
	uint8_t b = prefixes(d);

	i->asize = asize[d->mode][d->adsz];
	o = resolve(d, find_row(d, b));
	i->flags |= (d->lock ? I_LOCK : 0) | (d->rep ? I_REP : 0) |
		    (d->repne ? I_REPNE : 0) |
		    (d->rex && !(i->flags & I_VEX) ? I_REX : 0) |
		    (d->opsz ? I_OPSZ : 0) | (d->rex & REX_W ? I_W : 0);
	switch (o->kind) {
	case K_OP: finish_op(d, o); break;
	case K_VEC: finish_vec(d); break;
	default: i->fn = op_ud; i->flags |= I_STOP;
	}
	if (d->pos > d->avail && d->avail < INSN_MAX)
		return 0;
	if (d->pos > INSN_MAX) {
		i->fn = op_gp;
		i->flags = I_STOP;
		d->pos = INSN_MAX;
	}
	i->len = (uint8_t)d->pos;
	if (i->fn)
		return i->len;
	if (d->off >= 0)
		fold_rip(d);
	if (o->kind == K_VEC)
		vec_bind(i->data, d->map, d->map ? d->pp : 0, i);
	else if (o->set)
		bind_set(d, o);
	else
		bind_fn(d, o);
	if (d->mode != MODE_64) /* where no register is named all of it must be 0 */
		i->vvvv &= 7;
	return i->len;
}

unsigned decode_at(const uint8_t *p, unsigned avail, unsigned mode, int off,
		   struct insn *i)
{
	struct dec d = {.p = p,
			.avail = avail < INSN_MAX ? avail : INSN_MAX,
			.mode = mode & ~(unsigned)DECODE_FLAT_DATA,
			.flat = mode & DECODE_FLAT_DATA,
			.i = i,
			.off = off,
			.seg = X86_NSEG};

	memset(i, 0, sizeof(*i));
	i->base = i->index = R_ZERO;
	i->seg = SEG_FLAT;
	i->flat = d.flat;
	return decode(&d);
}

unsigned x86_decode(const uint8_t *p, unsigned avail, unsigned mode, struct insn *i)
{
	return decode_at(p, avail, mode, -1, i);
}

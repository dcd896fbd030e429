/*
 * x86/jit/lift.c - tells which instructions the translator executes by host instructions, on which
 * operands, and what they do to the status flags. SDM 2A-2D. Any thread.
 */
#include "x86/jit/lift.h"

#include "x86/ops.h"

uint8_t lift_cc_flags(unsigned cc)
{
	static const uint8_t rd[8] = {LF_O, LF_C, LF_Z,        LF_C | LF_Z,
				      LF_S, LF_P, LF_S | LF_O, LF_S | LF_O | LF_Z};

	return rd[cc >> 1 & 7];
}

/* C4 and C5: as the bits of a REX prefix. */
static bool vex_parse(const uint8_t *p, unsigned len, bool m64, struct raw *r)
{
	bool three = p[0] == 0xc4;
	uint8_t b = p[three ? 2 : 1];

	if (len < (three ? 4 : 3))
		return false;
	r->vex = true;
	r->map = three ? p[1] & 31 : 1;
	r->rex = (uint8_t)(0x40 | (~p[1] >> 7 & 1) << 2);
	if (three)
		r->rex |= (uint8_t)((~p[1] >> 6 & 1) << 1 | (~p[1] >> 5 & 1));
	r->w = three && b >> 7;
	r->l1 = b >> 2 & 1;
	r->pp = b & 3;
	r->vvvv = ~b >> 3 & (m64 ? 15 : 7);
	r->op = p[three ? 3 : 2];
	return r->map <= 3;
}

static bool raw_parse(const uint8_t *p, unsigned len, const struct insn *i, bool m64,
		      struct raw *r)
{
	*r = (struct raw){0};
	for (unsigned n = 0; n < len; n++) {
		uint8_t b = p[n];

		if (m64 && (b & 0xf0) == 0x40) {
			r->rex = b;
			continue;
		}
		switch (b) {
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
		case 0x66:
		case 0x67:
		case 0xf0: r->rex = 0; continue;
		case 0xf2:
		case 0xf3:
			r->rep = b;
			r->rex = 0;
			continue;
		case 0xc4:
		case 0xc5:
			if (i->flags & I_VEX)
				return vex_parse(p + n, len - n, m64, r);
			r->op = b;
			return true;
		case 0x0f:
			if (n + 2 >= len &&
			    (n + 1 >= len || p[n + 1] == 0x38 || p[n + 1] == 0x3a))
				return false;
			r->map = p[n + 1] == 0x38 ? 2 : p[n + 1] == 0x3a ? 3 : 1;
			r->op = r->map > 1 ? p[n + 2] : p[n + 1];
			r->w = r->rex >> 3 & 1;
			r->pp = r->rep == 0xf3      ? 2
				: r->rep            ? 3
				: i->flags & I_OPSZ ? 1
						    : 0;
			return true;
		default: r->op = b; return true;
		}
	}
	return false;
}

void lift_operands(const struct insn *i, const struct raw *r, struct lift *l)
{
	l->reg = (uint8_t)((i->modrm >> 3 & 7) | (r->rex & 4 && !l->digit ? 8 : 0));
	l->rm = (uint8_t)((i->modrm & 7) | (r->rex & 1 ? 8 : 0));
	l->v = r->vvvv;
	l->mem = i->flags & I_MEM;
}

static void flags(struct lift *l, unsigned rd, unsigned mod, unsigned kill)
{
	l->rd = (uint8_t)rd;
	l->mod = (uint8_t)mod;
	l->kill = (uint8_t)kill;
}

/* Operand kinds of an L_OP: what happens to modrm.reg and modrm.rm. */
enum {
	REG_R = 1,
	REG_W = 2,
	RM_R = 4,
	RM_W = 8,
	DIGIT = 16, /* modrm.reg belongs to the opcode */
	BYTE = 32,  /* byte operands */
};

static void high_byte(const struct raw *r, uint8_t n, bool byte, bool *high)
{
	*high = byte && !r->rex && n >= 4 && n < 8;
}

static void operation(const struct insn *i, const struct raw *r, struct lift *l,
		      unsigned what)
{
	l->kind = L_OP;
	l->op = r->op;
	l->map = r->map;
	l->size = what & BYTE ? 1 : i->osize;
	l->digit = what & DIGIT;
	lift_operands(i, r, l);
	l->mem_size = l->size;
	l->reg_r = what & REG_R;
	l->reg_w = what & REG_W;
	l->rm_r = what & RM_R;
	l->rm_w = what & RM_W;
	l->reg_byte = what & BYTE && !l->digit;
	l->rm_byte = what & BYTE;
	high_byte(r, l->reg, l->reg_byte, &l->reg_high);
	high_byte(r, l->rm, l->rm_byte && !l->mem, &l->rm_high);
}

/* op rm, imm with `digit`; for forms without a modrm byte, on rax. */
static void on_rax(const struct insn *i, struct lift *l, unsigned op, unsigned digit,
		   bool byte, bool write)
{
	l->kind = L_OP;
	l->op = (uint8_t)op;
	l->size = byte ? 1 : i->osize;
	l->digit = true;
	l->reg = (uint8_t)digit;
	l->rm_r = true;
	l->rm_w = write;
	l->rm_byte = byte;
}

static uint8_t imm_of(const struct lift *l)
{
	return l->size == 8 ? 4 : l->size;
}

static void alu_flags(struct lift *l, unsigned alu)
{
	flags(l, alu == 2 || alu == 3 ? LF_C : 0, LF_ALL, LF_ALL);
}

static void lift_alu(const struct insn *i, const struct raw *r, struct lift *l)
{
	unsigned alu = r->op >> 3, cmp = alu == 7;

	switch (r->op & 7) {
	case 0:
	case 1:
		operation(i, r, l,
			  REG_R | RM_R | (cmp ? 0 : RM_W) | (r->op & 1 ? 0 : BYTE));
		break;
	case 2:
	case 3:
		operation(i, r, l,
			  REG_R | RM_R | (cmp ? 0 : REG_W) | (r->op & 1 ? 0 : BYTE));
		break;
	default:
		on_rax(i, l, r->op & 1 ? 0x81 : 0x80, alu, !(r->op & 1), !cmp);
		l->imm_size = imm_of(l);
	}
	alu_flags(l, alu);
}

static void lift_group1(const struct insn *i, const struct raw *r, struct lift *l)
{
	unsigned alu = i->modrm >> 3 & 7;

	operation(i, r, l,
		  DIGIT | RM_R | (alu == 7 ? 0 : RM_W) | (r->op & 1 ? 0 : BYTE));
	if (l->op == 0x82) /* another name of 80 in 32-bit code */
		l->op = 0x80;
	l->imm_size = r->op == 0x81 ? imm_of(l) : 1;
	alu_flags(l, alu);
}

/* Shifts by a constant that is not 0 overwrite all flags, rotations OF and CF. */
static void lift_shift(const struct insn *i, const struct raw *r, struct lift *l)
{
	unsigned op = i->modrm >> 3 & 7;
	bool by_cl = r->op >= 0xd2, rcx = op == 2 || op == 3;
	unsigned n = r->op <= 0xc1 ? (unsigned)i->imm : 1;

	operation(i, r, l, DIGIT | RM_R | RM_W | (r->op & 1 ? 0 : BYTE));
	l->imm_size = r->op <= 0xc1;
	if (by_cl)
		flags(l, rcx ? LF_C : 0, LF_ALL, 0);
	else if (!(n & (l->size == 8 ? 63 : 31)))
		flags(l, rcx ? LF_C : 0, LF_ALL, 0);
	else if (op < 4)
		flags(l, rcx ? LF_C : 0, LF_C | LF_O, rcx ? LF_C : LF_C | LF_O);
	else
		flags(l, 0, LF_ALL, LF_ALL);
}

static void lift_group3(const struct insn *i, const struct raw *r, struct lift *l)
{
	unsigned op = i->modrm >> 3 & 7, byte = r->op & 1 ? 0 : BYTE;

	switch (op) {
	case 0:
	case 1:
		operation(i, r, l, DIGIT | RM_R | byte);
		l->imm_size = imm_of(l);
		flags(l, 0, LF_ALL, LF_ALL);
		break;
	case 2: operation(i, r, l, DIGIT | RM_R | RM_W | byte); break;
	case 3:
		operation(i, r, l, DIGIT | RM_R | RM_W | byte);
		flags(l, 0, LF_ALL, LF_ALL);
		break;
	case 4:
	case 5:
		operation(i, r, l, DIGIT | RM_R | byte);
		flags(l, 0, LF_ALL, LF_C | LF_O);
		break;
	default:
		if (byte || i->osize == 2)
			return;
		operation(i, r, l, DIGIT | RM_R);
		l->kind = L_DIV;
		flags(l, 0, LF_ALL, 0);
	}
}

static void lift_group45(const struct insn *i, const struct raw *r, struct lift *l,
			 bool m64)
{
	unsigned op = i->modrm >> 3 & 7, byte = r->op & 1 ? 0 : BYTE;

	if (op < 2) {
		operation(i, r, l, DIGIT | RM_R | RM_W | byte);
		flags(l, 0, LF_ALL & ~LF_C, LF_ALL & ~LF_C);
	} else if (!byte && (op == 2 || op == 4 || op == 6) &&
		   i->osize == (m64 ? 8 : 4)) {
		operation(i, r, l, DIGIT | RM_R);
		l->kind = op == 2 ? L_CALL_IND : op == 4 ? L_JMP_IND : L_PUSH;
	}
}

static void with_reg(struct lift *l, unsigned kind, const struct raw *r)
{
	l->kind = (uint8_t)kind;
	l->rm = (uint8_t)((r->op & 7) | (r->rex & 1 ? 8 : 0));
}

static void plain(const struct insn *i, struct lift *l, unsigned op)
{
	l->kind = L_PLAIN;
	l->op = (uint8_t)op;
	l->size = i->osize;
}

/* `word`: bytes of an address. */
static void lift_string(const struct insn *i, const struct raw *r, struct lift *l,
			unsigned word)
{
	if (i->asize != word || i->seg != SEG_FLAT || i->flags & I_SEGCHK)
		return;
	l->kind = L_STRING;
	l->op = r->op;
	l->size = i->osize;
	l->prefix = i->flags & (I_REP | I_REPNE) ? 0xf3 : 0;
}

static void lift_map0(const struct insn *i, const struct raw *r, bool m64,
		      struct lift *l)
{
	unsigned op = r->op, byte = op & 1 ? 0 : BYTE;
	bool word = i->osize == (m64 ? 8 : 4);

	if (op < 0x40) {
		if ((op & 7) < 6)
			lift_alu(i, r, l);
		return;
	}
	switch (op) {
	case 0x40 ... 0x4f: /* INC, DEC of 32-bit code */
		on_rax(i, l, 0xff, op >> 3 & 1, false, true);
		l->rm = op & 7;
		flags(l, 0, LF_ALL & ~LF_C, LF_ALL & ~LF_C);
		break;
	case 0x50 ... 0x57:
		if (word)
			with_reg(l, L_PUSH, r);
		break;
	case 0x58 ... 0x5f:
		if (word)
			with_reg(l, L_POP, r);
		break;
	case 0x63:
		if (!m64)
			break;
		operation(i, r, l, REG_W | RM_R);
		l->mem_size = i->osize == 2 ? 2 : 4;
		break;
	case 0x68:
	case 0x6a:
		if (word)
			l->kind = L_PUSH_IMM;
		break;
	case 0x69:
	case 0x6b:
		operation(i, r, l, REG_W | RM_R);
		l->imm_size = op == 0x69 ? imm_of(l) : 1;
		flags(l, 0, LF_ALL, LF_C | LF_O);
		break;
	case 0x70 ... 0x7f:
		if (i->osize != 2)
			l->kind = L_JCC;
		break;
	case 0x80 ... 0x83: lift_group1(i, r, l); break;
	case 0x84:
	case 0x85:
		operation(i, r, l, REG_R | RM_R | byte);
		flags(l, 0, LF_ALL, LF_ALL);
		break;
	case 0x86:
	case 0x87: operation(i, r, l, REG_R | REG_W | RM_R | RM_W | byte); break;
	case 0x88:
	case 0x89: operation(i, r, l, REG_R | RM_W | byte); break;
	case 0x8a:
	case 0x8b: operation(i, r, l, REG_W | RM_R | byte); break;
	case 0x8d:
		operation(i, r, l, REG_W);
		l->kind = L_LEA;
		break;
	case 0x91 ... 0x97:
		on_rax(i, l, 0x87, 0, false, true);
		l->digit = false;
		l->reg_r = l->reg_w = true;
		with_reg(l, L_OP, r);
		break;
	case 0x98:
	case 0x99: plain(i, l, op); break;
	case 0xa4:
	case 0xa5:
	case 0xaa:
	case 0xab: lift_string(i, r, l, m64 ? 8 : 4); break;
	case 0xa8:
	case 0xa9:
		on_rax(i, l, op & 1 ? 0xf7 : 0xf6, 0, !(op & 1), false);
		l->imm_size = imm_of(l);
		flags(l, 0, LF_ALL, LF_ALL);
		break;
	case 0x9b: /* FWAIT: no exception is unmasked while x87 is here */
		l->kind = L_NOP;
		l->fp = FP_X87;
		break;
	case 0xb0 ... 0xb7:
		on_rax(i, l, 0xc6, 0, true, true);
		with_reg(l, L_OP, r);
		l->rm_r = false;
		l->imm_size = 1;
		high_byte(r, l->rm, true, &l->rm_high);
		break;
	case 0xb8 ... 0xbf:
		with_reg(l, L_MOV_IMM, r);
		l->size = i->osize;
		break;
	case 0xc0:
	case 0xc1:
	case 0xd0 ... 0xd3: lift_shift(i, r, l); break;
	case 0xc2:
	case 0xc3:
		if (word)
			l->kind = L_RET;
		break;
	case 0xc6:
	case 0xc7:
		operation(i, r, l, DIGIT | RM_W | byte);
		l->imm_size = imm_of(l);
		break;
	case 0xc9:
		if (word)
			l->kind = L_LEAVE;
		break;
	case 0xe8:
		if (i->osize != 2)
			l->kind = L_CALL;
		break;
	case 0xe9:
	case 0xeb:
		if (i->osize != 2)
			l->kind = L_JMP;
		break;
	case 0xf5:
		plain(i, l, op);
		flags(l, LF_C, LF_C, LF_C);
		break;
	case 0xf8:
	case 0xf9:
		plain(i, l, op);
		flags(l, 0, LF_C, LF_C);
		break;
	case 0xf6:
	case 0xf7: lift_group3(i, r, l); break;
	case 0xfe:
	case 0xff: lift_group45(i, r, l, m64); break;
	default: break;
	}
}

static void lift_map1(const struct insn *i, const struct raw *r, struct lift *l)
{
	unsigned op = r->op;

	switch (op) {
	case 0x40 ... 0x4f:
		operation(i, r, l, REG_R | REG_W | RM_R);
		flags(l, lift_cc_flags(op & 15), 0, 0);
		break;
	case 0x80 ... 0x8f:
		if (i->osize != 2)
			l->kind = L_JCC;
		break;
	case 0x90 ... 0x9f:
		operation(i, r, l, DIGIT | RM_W | BYTE);
		l->reg = 0;
		flags(l, lift_cc_flags(op & 15), 0, 0);
		break;
	case 0xa3:
	case 0xab:
	case 0xb3:
	case 0xbb:
		if (i->flags & I_MEM) /* anywhere */
			break;
		operation(i, r, l, REG_R | RM_R | (op == 0xa3 ? 0 : RM_W));
		flags(l, 0, LF_ALL, LF_C);
		break;
	case 0xba:
		operation(i, r, l,
			  DIGIT | RM_R | ((i->modrm >> 3 & 7) == 4 ? 0 : RM_W));
		l->imm_size = 1;
		flags(l, 0, LF_ALL, LF_C);
		break;
	case 0xa4:
	case 0xac:
	case 0xa5:
	case 0xad:
		operation(i, r, l, REG_R | RM_R | RM_W);
		l->imm_size = !(op & 1);
		flags(l, 0, LF_ALL, 0);
		break;
	case 0xaf:
		operation(i, r, l, REG_R | REG_W | RM_R);
		flags(l, 0, LF_ALL, LF_C | LF_O);
		break;
	case 0xb0:
	case 0xb1:
	case 0xc0:
	case 0xc1:
		operation(i, r, l,
			  REG_R | (op >= 0xc0 ? REG_W : 0) | RM_R | RM_W |
				  (op & 1 ? 0 : BYTE));
		flags(l, 0, LF_ALL, LF_ALL);
		break;
	case 0xb6:
	case 0xb7:
	case 0xbe:
	case 0xbf:
		operation(i, r, l, REG_W | RM_R);
		l->rm_byte = !(op & 1);
		l->mem_size = op & 1 ? 2 : 1;
		high_byte(r, l->rm, l->rm_byte && !l->mem, &l->rm_high);
		break;
	case 0xb8:
	case 0xbc:
	case 0xbd:
		operation(i, r, l, REG_R | REG_W | RM_R);
		l->prefix = r->rep == 0xf3 ? 0xf3 : 0;
		if (op == 0xb8 && r->rep != 0xf3)
			l->kind = L_INTERP;
		flags(l, 0, LF_ALL, op == 0xb8 ? LF_ALL : LF_Z);
		break;
	case 0xc8 ... 0xcf:
		if (i->osize == 2)
			break;
		with_reg(l, L_BSWAP, r);
		l->size = i->osize;
		break;
	default: break;
	}
}

static unsigned bit_of(unsigned n, bool high)
{
	return 1u << (high ? n & 3 : n);
}

/* Registers that are not in modrm. */
static unsigned implied_writes(const struct lift *l)
{
	unsigned ax = 1u << X86_RAX, dx = 1u << X86_RDX;

	switch (l->kind) {
	case L_DIV:
	case L_PLAIN: return ax | dx;
	case L_PUSH:
	case L_PUSH_IMM:
	case L_POP: return 1u << X86_RSP;
	case L_LEAVE: return 1u << X86_RSP | 1u << X86_RBP;
	case L_STRING: return 1u << X86_RCX | 1u << X86_RSI | 1u << X86_RDI;
	case L_X87: return ax;                              /* FNSTSW AX */
	case L_GEN: return l->map == 3 ? 1u << X86_RCX : 0; /* PCMPISTRI */
	case L_OP:
		if (!l->map && (l->op == 0xf6 || l->op == 0xf7) && l->digit &&
		    l->reg >= 4)
			return ax | dx;
		return l->map && (l->op == 0xb0 || l->op == 0xb1) ? ax : 0;
	default: return 0;
	}
}

unsigned lift_writes(const struct lift *l)
{
	unsigned res = implied_writes(l);

	switch (l->kind) {
	case L_MOV_IMM:
	case L_BSWAP:
	case L_POP: return res | 1u << l->rm;
	case L_LEA: return res | 1u << l->reg;
	case L_OP:
	case L_GEN: break;
	default: return res;
	}
	if (l->reg_w && !l->digit)
		res |= bit_of(l->reg, l->reg_high);
	if (l->rm_w && !l->mem)
		res |= bit_of(l->rm, l->rm_high);
	if (l->v_w)
		res |= 1u << l->v;
	return res;
}

void lift_insn(const struct insn *i, const uint8_t *p, bool m64, struct lift *l)
{
	struct raw r;

	*l = (struct lift){.kind = L_INTERP};
	if (i->fn == op_block_end) {
		l->kind = L_END;
		return;
	}
	if (i->fn == op_nop) {
		l->kind = L_NOP;
		return;
	}
	if (i->fn == op_ud || i->fn == op_gp || i->flags & I_EVEX ||
	    !raw_parse(p, i->len, i, m64, &r))
		goto interp;
	if (!r.vex && r.map == 0)
		lift_map0(i, &r, m64, l);
	else if (!r.vex && r.map == 1)
		lift_map1(i, &r, l);
	if (l->kind == L_INTERP && (r.vex || r.map > 1))
		lift_gpr(i, &r, m64, l);
	if (l->kind == L_INTERP && (r.vex || r.map))
		lift_vec(i, &r, m64, l);
	else if (l->kind == L_INTERP && r.op >= 0xd8 && r.op <= 0xdf)
		lift_x87(i, &r, l);
	l->lock = i->flags & I_LOCK;
	if (l->kind == L_JCC)
		l->cc = r.op & 15, l->rd = lift_cc_flags(r.op & 15);
	if (l->mem && (i->asize == 2 || i->flags & (I_SEGCHK | I_RIPREL)) &&
	    l->kind != L_LEA)
		goto interp;
	if (l->kind == L_LEA && (i->asize == 2 || i->flags & I_RIPREL))
		goto interp;
	if (l->reg_high && l->mem)
		goto interp;
	if ((l->rm_high && !l->reg_byte && !l->digit &&
	     (l->size == 8 || l->reg == X86_RSP)))
		goto interp;
	if (l->kind != L_INTERP)
		return;
interp:
	*l = (struct lift){.kind = L_INTERP, .rd = LF_ALL};
}

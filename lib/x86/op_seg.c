/*
 * x86/op_seg.c - instructions on segment registers and descriptor tables: MOV, PUSH, POP of segment
 * registers, LDS and its like, LGDT LIDT SGDT SIDT LLDT SLDT LTR STR, LAR LSL VERR VERW ARPL.
 * SDM 2A/2B. vCPU thread.
 */
#include "x86/sys.h"

static void need_protected(struct x86_cpu *c)
{
	if (!in_protected(c))
		x86_raise(c, EX_UD);
}

/* UMIP: SGDT and its like are the system's. */
static void check_umip(struct x86_cpu *c)
{
	if (c->cr4 & CR4_UMIP && c->cpl)
		x86_raise_code(c, EX_GP, 0);
}

/* The 16-bit operand modrm.rm. */
static uint16_t rm_load16(struct x86_cpu *c, const struct insn *i)
{
	if (!(i->flags & I_MEM))
		return *reg16(c, i->rm);
	return mem_load16(c, ea_linear(c, i, 2, ACC_READ));
}

/* Stores a selector-like value: 16 bits to memory, the operand size to a register. */
static void rm_store16(struct x86_cpu *c, const struct insn *i, uint64_t v)
{
	if (i->flags & I_MEM)
		mem_store16(c, ea_linear(c, i, 2, ACC_WRITE), (uint16_t)v);
	else
		reg_set(c, i->rm, i->osize, v);
}

/* After SS was loaded: no interrupt and no #DB before the next instruction is done. */
static void stack_shadow(struct x86_cpu *c)
{
	c->ev.int_shadow = true;
	c->ss_shadow = true;
	atomic_fetch_or_explicit(&c->request, REQ_SHADOW, memory_order_relaxed);
}

/* ---- MOV PUSH POP -------------------------------------------------------------------------------- */

void op_mov_sreg(struct x86_cpu *c, const struct insn *i)
{
	unsigned seg = i->modrm >> 3 & 7;

	if (seg > X86_GS || (i->op == 0x8e && seg == X86_CS))
		x86_raise(c, EX_UD);
	if (i->op == 0x8c) {
		rm_store16(c, i, c->seg[seg].sel);
		return;
	}
	seg_load(c, seg, rm_load16(c, i));
	if (seg == X86_SS)
		stack_shadow(c);
}

/* Of the opcode: 06 0E 16 1E, 0F A0, 0F A8 and the POPs behind them. */
static unsigned opcode_seg(const struct insn *i)
{
	if (i->op >= 0xa0)
		return i->op >= 0xa8 ? X86_GS : X86_FS;
	return i->op >> 3 & 3;
}

/* A 32-bit push writes only the selector's 16 bits, on AMD all 32; 64-bit ones all. */
void op_push_sreg(struct x86_cpu *c, const struct insn *i)
{
	uint16_t sel = c->seg[opcode_seg(i)].sel;
	struct stack st;

	if (i->osize != 4 || cpuid_is_amd(c)) {
		stack_push(c, i->osize, sel);
		return;
	}
	stack_now(c, &st);
	st.sp -= 2;
	stack_put(c, &st, 2, sel);
	stack_commit_sp(c, &st);
}

void op_pop_sreg(struct x86_cpu *c, const struct insn *i)
{
	unsigned seg = opcode_seg(i);
	uint16_t sel = (uint16_t)stack_peek(c, i->osize == 4 ? 2 : i->osize, 0);
	unsigned width = c->stack_size;

	seg_load(c, seg, sel);
	if (seg != X86_SS) {
		stack_drop(c, i->osize);
		return;
	}
	/* the old stack's width counts */
	if (width == 2)
		*reg16(c, R_OFF(X86_RSP)) += i->osize;
	else
		*reg64(c, R_OFF(X86_RSP)) = (uint32_t)(c->gpr[X86_RSP] + i->osize);
	stack_shadow(c);
}

void op_load_far(struct x86_cpu *c, const struct insn *i)
{
	static const uint8_t segs[8] = {
		[0xb2 & 7] = X86_SS, [0xb4 & 7] = X86_FS, [0xb5 & 7] = X86_GS};
	uint64_t va = ea_linear(c, i, i->osize + 2u, ACC_READ);
	uint64_t off = mem_load(c, va, i->osize);
	uint16_t sel;
	unsigned seg;

	va += i->osize;
	sel = mem_load16(c, in_long64(c) ? va : (uint32_t)va);
	seg = i->op == 0xc4 ? X86_ES : i->op == 0xc5 ? X86_DS : segs[i->op & 7];
	seg_load(c, seg, sel);
	reg_set(c, i->reg, i->osize, off);
	if (seg == X86_SS)
		stack_shadow(c);
}

/* ---- GDTR IDTR ------------------------------------------------------------------------------------ */

static void load_table(struct x86_cpu *c, const struct insn *i, struct x86_dtable *t)
{
	unsigned size = in_long64(c) ? 8 : 4;
	uint64_t va, base;
	uint16_t limit;

	if (in_v86(c))
		x86_raise_code(c, EX_GP, 0);
	need_cpl0(c);
	va = ea_linear(c, i, size + 2, ACC_READ);
	limit = mem_load16(c, va);
	va += 2;
	base = mem_load(c, in_long64(c) ? va : (uint32_t)va, size);
	if (size == 4 && i->osize == 2)
		base &= 0xffffff;
	if (!is_canonical(base))
		x86_raise_code(c, EX_GP, 0);
	t->limit = limit;
	t->base = base;
}

static void store_table(struct x86_cpu *c, const struct insn *i,
			const struct x86_dtable *t)
{
	unsigned size = in_long64(c) ? 8 : 4;
	uint8_t buf[10];
	uint64_t va;

	check_umip(c);
	va = ea_linear(c, i, size + 2, ACC_WRITE);
	__builtin_memcpy(buf, &t->limit, 2);
	__builtin_memcpy(buf + 2, &t->base, 8);
	mem_write(c, va, buf, size + 2);
}

void op_lgdt(struct x86_cpu *c, const struct insn *i)
{
	load_table(c, i, &c->gdtr);
}

void op_lidt(struct x86_cpu *c, const struct insn *i)
{
	load_table(c, i, &c->idtr);
}

void op_sgdt(struct x86_cpu *c, const struct insn *i)
{
	store_table(c, i, &c->gdtr);
}

void op_sidt(struct x86_cpu *c, const struct insn *i)
{
	store_table(c, i, &c->idtr);
}

/* ---- LDTR TR -------------------------------------------------------------------------------------- */

void op_lldt(struct x86_cpu *c, const struct insn *i)
{
	need_protected(c);
	need_cpl0(c);
	seg_load_ldtr(c, rm_load16(c, i), EX_GP, EX_NP);
}

void op_sldt(struct x86_cpu *c, const struct insn *i)
{
	need_protected(c);
	check_umip(c);
	rm_store16(c, i, c->seg[X86_LDTR].sel);
}

void op_ltr(struct x86_cpu *c, const struct insn *i)
{
	struct desc d;
	uint16_t sel;

	need_protected(c);
	need_cpl0(c);
	sel = rm_load16(c, i);
	if (sel_is_null(sel))
		x86_raise_code(c, EX_GP, 0);
	if (sel & 4)
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	desc_read(c, sel, EX_GP, c->long_mode, &d);
	if (d.s || (d.type != DT_TSS32 && (d.type != DT_TSS16 || c->long_mode)) ||
	    (c->long_mode && d.raw_hi >> 40 & 31))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	if (!d.present)
		x86_raise_code(c, EX_NP, sel_err(c, sel));
	if (!is_canonical(d.seg.base))
		x86_raise_code(c, EX_GP, sel_err(c, sel));
	desc_busy(c, &d, true);
	d.seg.attr |= 2;
	seg_set(c, X86_TR, &d.seg);
}

void op_str(struct x86_cpu *c, const struct insn *i)
{
	need_protected(c);
	check_umip(c);
	rm_store16(c, i, c->seg[X86_TR].sel);
}

/* ---- LAR LSL VERR VERW ARPL: looking without loading --------------------------------------------------- */

static void set_zf(struct x86_cpu *c, bool zf)
{
	status_set(c, (rflags_get(c) & ~(uint64_t)FL_ZF) | (zf ? FL_ZF : 0));
}

/* Reads the descriptor when sel may be looked at from here; conforming code always may. */
static bool peek(struct x86_cpu *c, uint16_t sel, struct desc *d)
{
	if (sel_is_null(sel) || !desc_try(c, sel, false, d))
		return false;
	if (d->s && desc_is_conforming(d))
		return true;
	return d->dpl >= c->cpl && d->dpl >= (sel & 3u);
}

/* System descriptor types that LAR and LSL accept. */
static bool sys_type_ok(const struct x86_cpu *c, unsigned type, bool lsl)
{
	uint32_t ok;

	if (c->long_mode)
		ok = BIT(DT_LDT) | BIT(DT_TSS32) | BIT(DT_TSS32_BUSY) |
		     (lsl ? 0 : BIT(DT_CALL32));
	else
		ok = BIT(DT_TSS16) | BIT(DT_LDT) | BIT(DT_TSS16_BUSY) | BIT(DT_TSS32) |
		     BIT(DT_TSS32_BUSY) |
		     (lsl ? 0 : BIT(DT_CALL16) | BIT(DT_CALL32) | BIT(DT_TASK));
	return ok >> type & 1;
}

void op_lar(struct x86_cpu *c, const struct insn *i)
{
	struct desc d;
	bool ok;

	need_protected(c);
	ok = peek(c, rm_load16(c, i), &d) && (d.s || sys_type_ok(c, d.type, false));
	if (ok)
		reg_set(c, i->reg, i->osize, d.raw >> 32 & 0x00ffff00);
	set_zf(c, ok);
}

void op_lsl(struct x86_cpu *c, const struct insn *i)
{
	struct desc d;
	bool ok;

	need_protected(c);
	ok = peek(c, rm_load16(c, i), &d) && (d.s || sys_type_ok(c, d.type, true));
	if (ok)
		reg_set(c, i->reg, i->osize, d.seg.limit);
	set_zf(c, ok);
}

void op_verr(struct x86_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	set_zf(c, peek(c, rm_load16(c, i), &d) && d.s &&
			  (d.type & (TYPE_CODE | TYPE_R)) != TYPE_CODE);
}

void op_verw(struct x86_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	set_zf(c, peek(c, rm_load16(c, i), &d) && desc_is_writable_data(&d));
}

void op_arpl(struct x86_cpu *c, const struct insn *i)
{
	uint16_t rpl = *reg16(c, i->reg) & 3, v;
	bool mem = i->flags & I_MEM, low;

	need_protected(c);
	if (mem) {
		v = mem_load16(c, ea_linear(c, i, 2, ACC_READ));
	} else {
		v = *reg16(c, i->rm);
	}
	low = (v & 3) < rpl;
	if (low) {
		v = (uint16_t)((v & ~3) | rpl);
		if (mem)
			mem_store16(c, ea_linear(c, i, 2, ACC_WRITE), v);
		else
			*reg16(c, i->rm) = v;
	}
	set_zf(c, low);
}

/*
 * x86fuzz/check.c - looks through the host code of all translations: what it accesses and where it goes must
 * be of the few forms that the translator means (x86/jit/jit_int.h).
 *
 *   memory    [rsp + n] in struct x86_cpu; [rsp + r12 or r13 + n] in its TLBs; [r14 + small] behind an
 *             addition of what a TLB has to r14; [register + r14 + small] behind a load of r14
 *             from a TLB, or from struct x86_cpu, where an earlier look-up left it
 *   strings   MOVS and STOS between additions of the same to rdi and rsi, and subtractions
 *   branches  direct, to the code cache; indirect ones by struct jit_target: [r13 + n] behind an addition of
 *             r14 to r13; the epoch of a struct jit_link or jit_code, the generation of a struct
 *             codepage: [r12] behind a constant in r12
 *   nothing else: no returns or indirect branches, no system calls, no privileged instructions
 */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

#include "x86/jit/jit_int.h"

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>

#define NEAR_MAX 4096 /* bytes of a displacement from r14 */

/* Where r14 has what it holds from. */
enum r14 { R14_OTHER, R14_TLB, R14_KEPT };

struct follow {
	enum r14 r14;
	bool rdi, rsi; /* are the host's addresses */
	bool target;   /* r13 points to a struct jit_target */
	bool link;     /* r12 is a constant: where an epoch or a generation is */
};

static bool memory_ok(const ZydisDecodedOperandMem *m, unsigned size,
		      const struct follow *f, bool write)
{
	enum r14 r14 = f->r14;
	int64_t at = m->disp.has_displacement ? m->disp.value : 0;
	int64_t tlbs = (int64_t)offsetof(struct x86_cpu, tlbs);
	int64_t end = tlbs + (int64_t)sizeof(((struct x86_cpu *)0)->tlbs);

	if (m->type == ZYDIS_MEMOP_TYPE_AGEN) /* LEA */
		return true;
	if (m->segment == ZYDIS_REGISTER_FS || m->segment == ZYDIS_REGISTER_GS)
		return false;
	if (m->base == ZYDIS_REGISTER_R14 && m->index == ZYDIS_REGISTER_NONE)
		return r14 == R14_TLB && at >= -NEAR_MAX && at <= NEAR_MAX;
	if (m->index == ZYDIS_REGISTER_R14 && m->scale == 1)
		return r14 == R14_KEPT;
	if (m->base == ZYDIS_REGISTER_R12 && m->index == ZYDIS_REGISTER_NONE)
		return f->link && !at && (size == 8 || (size == 4 && !write));
	if (m->base == ZYDIS_REGISTER_R13 && m->index == ZYDIS_REGISTER_NONE)
		return f->target && !write && at >= 0 &&
		       at + size <= (int64_t)sizeof(struct jit_target);
	if (m->base != ZYDIS_REGISTER_RSP)
		return false;
	if (m->index == ZYDIS_REGISTER_NONE)
		return at >= 0 && at + size <= end;
	return (m->index == ZYDIS_REGISTER_R12 || m->index == ZYDIS_REGISTER_R13) &&
	       m->scale == 1 && at >= tlbs && at + size <= end;
}

static bool kind_ok(const ZydisDecodedInstruction *i, const struct follow *f)
{
	switch (i->meta.category) {
	case ZYDIS_CATEGORY_STRINGOP:
		return f->rdi && (i->opcode == 0xaa || i->opcode == 0xab ||
				  (f->rsi && (i->opcode == 0xa4 || i->opcode == 0xa5)));
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_SEGOP: return false;
	default: return !(i->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED);
	}
}

static enum r14 r14_after(const ZydisDecodedInstruction *i,
			  const ZydisDecodedOperand *op, enum r14 r14)
{
	const ZydisDecodedOperandMem *m = &op[1].mem;

	if (!i->operand_count || op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
					     op[0].reg.value) != ZYDIS_REGISTER_R14 ||
	    !(op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return r14;
	if (r14 == R14_KEPT && /* the address is added */
	    (i->mnemonic == ZYDIS_MNEMONIC_ADD ||
	     (i->mnemonic == ZYDIS_MNEMONIC_LEA && m->index == ZYDIS_REGISTER_R14)))
		return R14_TLB;
	if (op[1].type != ZYDIS_OPERAND_TYPE_MEMORY || m->base != ZYDIS_REGISTER_RSP)
		return R14_OTHER;
	if (m->index == ZYDIS_REGISTER_NONE &&
	    m->disp.value - (int64_t)offsetof(struct x86_cpu, seg_base) <
		    (int64_t)sizeof(((struct x86_cpu *)0)->seg_base))
		return R14_OTHER;
	if (i->mnemonic == ZYDIS_MNEMONIC_ADD)
		return R14_TLB;
	return i->mnemonic == ZYDIS_MNEMONIC_MOV ? R14_KEPT : R14_OTHER;
}

static bool is_reg(const ZydisDecodedOperand *op, ZydisRegister r)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value == r;
}

static void follow(struct follow *f, const ZydisDecodedInstruction *i,
		   const ZydisDecodedOperand *op)
{
	bool add = i->mnemonic == ZYDIS_MNEMONIC_ADD;

	if ((add || i->mnemonic == ZYDIS_MNEMONIC_SUB) &&
	    is_reg(&op[0], ZYDIS_REGISTER_RDI) && is_reg(&op[1], ZYDIS_REGISTER_R14))
		f->rdi = add && f->r14 == R14_KEPT;
	if ((add || i->mnemonic == ZYDIS_MNEMONIC_SUB) &&
	    is_reg(&op[0], ZYDIS_REGISTER_RSI) && is_reg(&op[1], ZYDIS_REGISTER_R12))
		f->rsi = add;
	if (i->operand_count && is_reg(&op[0], ZYDIS_REGISTER_R13) &&
	    op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		f->target = add && is_reg(&op[1], ZYDIS_REGISTER_R14);
	if (i->operand_count && op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
					     op[0].reg.value) == ZYDIS_REGISTER_R12 &&
	    op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		f->link = i->mnemonic == ZYDIS_MNEMONIC_MOV &&
			  op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	f->r14 = r14_after(i, op, f->r14);
}

/* What is wrong with the instruction at `rx`; NULL: nothing. */
static const char *wrong(const struct jit *j, const ZydisDecodedInstruction *i,
			 const ZydisDecodedOperand *op, const uint8_t *rx,
			 const struct follow *f)
{
	bool string = i->meta.category == ZYDIS_CATEGORY_STRINGOP;

	if (!kind_ok(i, f))
		return "is not for translations";
	for (unsigned n = 0; n < i->operand_count; n++) {
		if (op[n].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			/* calls push below struct x86_cpu */
			if (op[n].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
			    i->meta.category == ZYDIS_CATEGORY_CALL)
				continue;
			if (!string &&
			    !memory_ok(&op[n].mem, op[n].size / 8, f,
				       op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
				return "accesses other memory";
		}
		if (op[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		    op[n].imm.is_relative) {
			const uint8_t *to = rx + i->length + op[n].imm.value.s;

			if (to < j->rx || to >= j->rx + j->used)
				return "leaves the code";
		}
	}
	if (i->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
	    !(i->attributes & ZYDIS_ATTRIB_IS_RELATIVE) &&
	    !(f->target && op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
	      op[0].mem.base == ZYDIS_REGISTER_R13 &&
	      op[0].mem.disp.value == offsetof(struct jit_target, entry)))
		return "goes anywhere";
	return NULL;
}

/* AMD's processors take VPERMQ and VPERMPD without VEX.W, too. */
static void read_code(uint8_t buf[16], const uint8_t *rw)
{
	memcpy(buf, rw, 16);
	if (buf[0] == 0xc4 && (buf[1] & 31) == 3 && buf[3] <= 1)
		buf[2] |= 0x80;
}

static unsigned check_one(const struct jit *j, const ZydisDecoder *d,
			  const struct jit_code *code)
{
	const uint8_t *rx = code->entry, *end = rx + code->size;
	struct follow f = {0};
	unsigned bad = 0;

	while (rx < end) {
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction i;
		const uint8_t *rw = j->rw + (rx - j->rx);
		const char *what = "is undefined";
		uint8_t buf[16];

		read_code(buf, rw);
		i.length = 1;
		if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, buf, 15, &i, op))) {
			what = wrong(j, &i, op, rx, &f);
			follow(&f, &i, op);
		}
		if (what && !bad++) {
			printf("host code at %p %s:", (const void *)rx, what);
			for (unsigned n = 0; n < i.length; n++)
				printf(" %02x", rw[n]);
			printf("\n");
		}
		if (what && i.length == 1)
			return bad;
		rx += i.length;
	}
	return bad;
}

unsigned fz_check_code(const struct x86_cpu *c, unsigned *n)
{
	const struct jit *j = c->jit;
	unsigned bad = 0;
	ZydisDecoder d;

	if (!j)
		return 0;
	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (const struct jit_page *p = j->pages; p; p = p->next) {
		for (const struct jit_code *k = p->codes; k; k = k->next_of_page, ++*n)
			bad += check_one(j, &d, k);
	}
	return bad;
}

#else

unsigned fz_check_code(const struct x86_cpu *c, unsigned *n)
{
	(void)c;
	(void)n;
	return 0;
}
#endif

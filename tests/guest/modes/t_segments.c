/* tests/guest/modes/t_segments.c - loading segment registers; limits and rights. SDM 3A 3.4, 5.3 to 5.6. */
#include "guest.h"

u16 sel; /* for the functions below */

FAULTS(load_ds, "movw sel, %%ax", "movw %%ax, %%ds")
FAULTS(load_es, "movw sel, %%ax", "movw %%ax, %%es")
FAULTS(load_ss, "movw sel, %%ax", "movw %%ax, %%ss; movw $0x10, %%ax; movw %%ax, %%ss")
FAULTS(load_fs, "movw sel, %%ax", "movw %%ax, %%fs")
FAULTS(load_cs, "movw sel, %%ax", ".byte 0x8e, 0xc8") /* mov %ax, %cs */
FAULTS(load_seg6, "movw sel, %%ax", ".byte 0x8e, 0xf0")
FAULTS(null_read, "xorl %%eax, %%eax; movw %%ax, %%es", "movl %%es:scratch, %%eax")
FAULTS(lldt_sel, "movw sel, %%ax", "lldt %%ax")
FAULTS(ltr_sel, "movw sel, %%ax", "ltr %%ax")
FAULTS(pop_es, "movl $0x1fb, %%eax; pushl %%eax", "popl %%es")
FAULTS(lds_bad, "", "les bad_pointer, %%eax")

u32 bad_pointer[2] = {0x12345678, 0x1f8};

/* Accesses through ES, loaded with sel. */
FAULTS(es_read_0, "movw sel, %%ax; movw %%ax, %%es; xorl %%edx, %%edx",
       "movl %%es:(%%edx), %%eax")
FAULTS(es_read_10, "movw sel, %%ax; movw %%ax, %%es; movl $0xffd, %%edx",
       "movl %%es:(%%edx), %%eax")
FAULTS(es_read_fc, "movw sel, %%ax; movw %%ax, %%es; movl $0xffc, %%edx",
       "movl %%es:(%%edx), %%eax")
FAULTS(es_read_1000, "movw sel, %%ax; movw %%ax, %%es; movl $0x1000, %%edx",
       "movl %%es:(%%edx), %%eax")
FAULTS(es_read_top, "movw sel, %%ax; movw %%ax, %%es; movl $0xfffd, %%edx",
       "movl %%es:(%%edx), %%eax")
FAULTS(es_write, "movw sel, %%ax; movw %%ax, %%es; xorl %%edx, %%edx",
       "movl %%eax, %%es:(%%edx)")
FAULTS(es_rmw, "movw sel, %%ax; movw %%ax, %%es; xorl %%edx, %%edx",
       "lock; addl %%eax, %%es:(%%edx)")
FAULTS(es_stos, "pushl %%edi; movw sel, %%ax; movw %%ax, %%es; xorl %%edi, %%edi",
       "stosl; popl %%edi")
FAULTS(cs_write, "", "movl %%eax, %%cs:scratch")
FAULTS(cs_read, "", "movl %%cs:scratch, %%eax")

#define S SEL_FREE

static void loading(void)
{
	sel = 0;
	expect("DS takes a null selector", catch (load_ds), NO_TRAP, -1);
	sel = 3;
	expect("and one with RPL 3", catch (load_ds), NO_TRAP, -1);
	expect("an access through a null ES is #GP(0)", catch (null_read), GP, 0);
	sel = 0;
	expect("SS does not take a null selector", catch (load_ss), GP, 0);
	sel = SEL_LIMIT;
	expect("DS beyond the GDT is #GP(sel)", catch (load_ds), GP, SEL_LIMIT);
	sel = SEL_LIMIT + 3;
	expect("its RPL is not in the code", catch (load_es), GP, SEL_LIMIT);
	sel = SEL_TSS;
	expect("DS from a TSS is #GP(sel)", catch (load_ds), GP, SEL_TSS);
	sel = SEL_DATA;
	expect("MOV to CS is #UD", catch (load_cs), UD, -1);
	expect("MOV to segment register 6 is #UD", catch (load_seg6), UD, -1);
	expect("POP ES beyond the GDT is #GP(sel)", catch (pop_es), GP, 0x1f8);
	expect("LES beyond the GDT is #GP(sel)", catch (lds_bad), GP, 0x1f8);

	sel = S;
	gdt_set(S, seg_desc(0, 0xfffff, 0xc13));
	expect("DS not present is #NP(sel)", catch (load_ds), NP, S);
	expect("SS not present is #SS(sel)", catch (load_ss), SS, S);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc91));
	expect("SS read-only is #GP(sel)", catch (load_ss), GP, S);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc9b));
	expect("SS with code is #GP(sel)", catch (load_ss), GP, S);
	gdt_set(S, seg_desc(0, 0xfffff, 0xcf3));
	expect("SS of privilege 3 is #GP(sel)", catch (load_ss), GP, S);
	sel = SEL_DATA | 3;
	expect("SS with RPL 3 is #GP(sel)", catch (load_ss), GP, SEL_DATA);
	expect("DS of privilege 0 with RPL 3 is #GP(sel)", catch (load_ds), GP,
	       SEL_DATA);
	sel = S;
	gdt_set(S, seg_desc(0, 0xfffff, 0xc99));
	expect("DS with execute-only code is #GP(sel)", catch (load_ds), GP, S);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc9a));
	expect("DS with readable code", catch (load_ds), NO_TRAP, -1);
	check_eq("marks it accessed", gdt_access(S), 0x9b);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc9f));
	sel = S | 3;
	expect("conforming code loads with any RPL", catch (load_fs), NO_TRAP, -1);
	sel = S;
	gdt_set(S, seg_desc(0, 0xfffff, 0xc12));
	expect("a segment that is not present", catch (load_ds), NP, S);
	check_eq("is not marked accessed", gdt_access(S), 0x12);
}

static void tables(void)
{
	sel = 4;
	expect("DS from the LDT without one is #GP(sel)", catch (load_ds), GP, 4);
	sel = SEL_DATA;
	expect("LLDT of a data segment is #GP(sel)", catch (lldt_sel), GP, SEL_DATA);
	sel = SEL_LIMIT + 8;
	expect("LLDT beyond the GDT is #GP(sel)", catch (lldt_sel), GP, SEL_LIMIT + 8);
	sel = SEL_LDT | 4;
	expect("LLDT from the LDT is #GP(sel)", catch (lldt_sel), GP, SEL_LDT | 4);
	gdt_set(SEL_LDT, gdt[SEL_LDT / 8] & ~(0x80ull << 40));
	sel = SEL_LDT;
	expect("LLDT not present is #NP(sel)", catch (lldt_sel), NP, SEL_LDT);
	gdt_set(SEL_LDT, gdt[SEL_LDT / 8] | 0x80ull << 40);
	expect("LLDT", catch (lldt_sel), NO_TRAP, -1);
	ldt[1] = seg_desc(0, 0xfffff, 0xc92);
	sel = 0xc;
	expect("DS from the LDT", catch (load_ds), NO_TRAP, -1);
	check_eq("marks the entry there accessed", (u8)(ldt[1] >> 40), 0x93);
	sel = 0x84;
	expect("DS beyond the LDT is #GP(sel)", catch (load_ds), GP, 0x84);
	sel = 0;
	expect("LLDT of null", catch (lldt_sel), NO_TRAP, -1);
	sel = 0xc;
	expect("takes the LDT away", catch (load_ds), GP, 0xc);

	sel = 0;
	expect("LTR of null is #GP(0)", catch (ltr_sel), GP, 0);
	sel = SEL_TSS;
	expect("LTR of a busy TSS is #GP(sel)", catch (ltr_sel), GP, SEL_TSS);
	check_eq("which LTR made busy", gdt_access(SEL_TSS), 0x8b);
	sel = SEL_DATA;
	expect("LTR of a data segment is #GP(sel)", catch (ltr_sel), GP, SEL_DATA);
	gdt_set(S, seg_desc((u32)&tss2, 0x67, 0x09));
	sel = S;
	expect("LTR not present is #NP(sel)", catch (ltr_sel), NP, S);
}

static void limits(void)
{
	sel = S;
	gdt_set(S, seg_desc((u32)scratch, 0xfff, 0x493));
	expect("the last bytes of a segment", catch (es_read_fc), NO_TRAP, -1);
	expect("one byte behind its limit is #GP(0)", catch (es_read_10), GP, 0);
	expect("so is all behind it", catch (es_read_1000), GP, 0);
	gdt_set(S, seg_desc((u32)scratch - 0x1000, 0xfff, 0x497));
	expect("expand-down: above the limit", catch (es_read_1000), NO_TRAP, -1);
	expect("expand-down: below it is #GP(0)", catch (es_read_0), GP, 0);
	expect("expand-down: across it is #GP(0)", catch (es_read_fc), GP, 0);
	gdt_set(S, seg_desc((u32)scratch - 0x1000, 0xfff, 0x097));
	expect("expand-down with B = 0 ends at 64 KiB", catch (es_read_top), GP, 0);
	gdt_set(S, seg_desc((u32)scratch, 1, 0xc93));
	expect("a limit in pages", catch (es_read_1000), NO_TRAP, -1);
	gdt_set(S, seg_desc((u32)scratch, 0, 0xc93));
	expect("ends with its last byte", catch (es_read_10), GP, 0);

	gdt_set(S, seg_desc((u32)scratch, 0xfff, 0x491));
	expect("reading read-only data", catch (es_read_0), NO_TRAP, -1);
	expect("writing it is #GP(0)", catch (es_write), GP, 0);
	expect("so is LOCK ADD", catch (es_rmw), GP, 0);
	expect("so is STOS", catch (es_stos), GP, 0);
	gdt_set(S, seg_desc((u32)scratch, 0xfff, 0x49b));
	expect("writing a code segment is #GP(0)", catch (es_write), GP, 0);
	expect("also through CS", catch (cs_write), GP, 0);
	expect("reading through CS", catch (cs_read), NO_TRAP, -1);
}

/* LAR, LSL, VERR, VERW, ARPL: ZF and result. */
static u32 lar(u32 s, u32 *v)
{
	u8 zf;

	__asm__ volatile("lar %2, %0; setz %1" : "+r"(*v), "=q"(zf) : "r"(s) : "cc");
	return zf;
}

static u32 lsl(u32 s, u32 *v)
{
	u8 zf;

	__asm__ volatile("lsl %2, %0; setz %1" : "+r"(*v), "=q"(zf) : "r"(s) : "cc");
	return zf;
}

static u32 verr(u32 s)
{
	u8 zf;

	__asm__ volatile("verr %w1; setz %0" : "=q"(zf) : "r"(s) : "cc");
	return zf;
}

static u32 verw(u32 s)
{
	u8 zf;

	__asm__ volatile("verw %w1; setz %0" : "=q"(zf) : "r"(s) : "cc");
	return zf;
}

static void looking(void)
{
	u32 v = 0;
	u16 w = 0x10;
	u8 zf;

	gdt_set(S, seg_desc(0x12345678, 0xabcde, 0xdf3));
	check_eq("LAR of data", lar(S, &v), 1);
	check_eq("gives the attributes", v & 0xf0ff00, 0xd0f300);
	check_eq("LSL of data", lsl(S, &v), 1);
	check_eq("gives the limit in bytes", v, 0xabcdefff);
	v = 77;
	check_eq("LAR of null", lar(0, &v), 0);
	check_eq("leaves the register", v, 77);
	check_eq("LAR beyond the GDT", lar(SEL_LIMIT, &v), 0);
	check_eq("LAR of a TSS", lar(SEL_TSS, &v), 1);
	check_eq("LSL of a TSS", lsl(SEL_TSS, &v), 1);
	check_eq("is its limit", v, sizeof(struct tss) - 1);
	gdt_set(S, gate_desc(SEL_CODE, 0, 0x8c));
	check_eq("LAR of a call gate", lar(S, &v), 1);
	check_eq("LSL of a call gate", lsl(S, &v), 0);
	gdt_set(S, gate_desc(SEL_CODE, 0, 0x8e));
	check_eq("LAR of an interrupt gate", lar(S, &v), 0);
	check_eq("LAR of privilege 0 with RPL 3", lar(SEL_DATA | 3, &v), 0);
	check_eq("VERR of data", verr(SEL_DATA), 1);
	check_eq("VERW of data", verw(SEL_DATA), 1);
	check_eq("VERR of code", verr(SEL_CODE), 1);
	check_eq("VERW of code", verw(SEL_CODE), 0);
	check_eq("VERR of a TSS", verr(SEL_TSS), 0);
	__asm__ volatile("arpl %w2, %0; setz %1" : "+r"(w), "=q"(zf) : "r"(3) : "cc");
	check_eq("ARPL raises the RPL", w, 0x13);
	check_eq("and says so", zf, 1);
	__asm__ volatile("arpl %w2, %0; setz %1" : "+r"(w), "=q"(zf) : "r"(1) : "cc");
	check_eq("but does not lower it", w, 0x13);
	check_eq("and says that", zf, 0);
}

void test_segments(void)
{
	loading();
	tables();
	limits();
	looking();
}

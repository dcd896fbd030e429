/* tests/guest/modes/t_gates.c - interrupts and exceptions through the IDT at privilege 0. SDM 3A chapter 6. */
#include "guest.h"

#define V             0x60 /* the vector that the tests change */
#define ERR(vec, ext) ((vec)*8 + 2 + (ext))

TRAPS(int_v, "", "int $0x60")
FAULTS(int_v_fault, "", "int $0x60")
TRAPS(int3, "", "int3")
TRAPS(into, "movb $0x7f, %%al; addb $1, %%al", "into")
FAULTS(into_clear, "xorl %%eax, %%eax", "into")
TRAPS(icebp, "", ".byte 0xf1")
FAULTS(divide, "xorl %%ecx, %%ecx; xorl %%edx, %%edx", "divl %%ecx")
FAULTS(divide_big, "movl $1, %%ecx; movl $1, %%edx", "divl %%ecx")
FAULTS(aam0, "", "aam $0")
FAULTS(bound, "movl $5, %%eax", "bound %%eax, bounds")
FAULTS(bound_ok, "movl $3, %%eax", "bound %%eax, bounds")
FAULTS(ud2, "", "ud2")
FAULTS(lock_nop, "", ".byte 0xf0, 0x90")
FAULTS(lock_reg, "", ".byte 0xf0, 0x01, 0xc0")
FAULTS(too_long, "",
       ".byte "
       "0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,"
       "0x90")
FAULTS(fpu_ts, "", "fninit")
FAULTS(cs_gp, "", "movl %%eax, %%cs:scratch")

u32 bounds[2] = {1, 4};

extern u8 trap_entries[];

void handler32(void);
void handler16(void);

/* Handlers of their own, which look at their frames and return. */
__asm__("handler32:\n"
	"	pushfl\n"
	"	popl gate_flags\n"
	"	movl %esp, gate_esp\n"
	"	iret\n"
	"handler16:\n"
	"	pushfl\n"
	"	popl gate_flags\n"
	"	movl %esp, gate_esp\n"
	"	iretw\n");
u32 gate_flags, gate_esp;

static u32 flags_in(u32 set)
{
	u32 esp;

	__asm__ volatile(
		"movl %%esp, %0; pushfl; orl %1, (%%esp); popfl; int $0x60; cli"
		: "=&r"(esp)
		: "r"(set)
		: "memory", "cc");
	return esp - gate_esp;
}

static void gates(void)
{
	idt[V] = 0;
	expect("INT through an empty gate is #GP(vector)", catch (int_v_fault), GP,
	       ERR(V, 0));
	idt[V] = gate_desc(SEL_CODE, (u32)trap_entries, 0x0e);
	expect("INT through a gate not present is #NP(vector)", catch (int_v_fault), NP,
	       ERR(V, 0));
	idt[V] = gate_desc(0, (u32)trap_entries, 0x8e);
	expect("INT to a null selector is #GP(0)", catch (int_v_fault), GP, 0);
	idt[V] = gate_desc(SEL_DATA, (u32)trap_entries, 0x8e);
	expect("INT to data is #GP(sel)", catch (int_v_fault), GP, SEL_DATA);
	idt[V] = gate_desc(SEL_LIMIT, (u32)trap_entries, 0x8e);
	expect("INT beyond the GDT is #GP(sel)", catch (int_v_fault), GP, SEL_LIMIT);
	idt[V] = gate_desc(SEL_CODE3, (u32)trap_entries, 0x8e);
	expect("INT to privilege 3 is #GP(sel)", catch (int_v_fault), GP,
	       SEL_CODE3 & ~3);
	gdt_set(SEL_FREE, seg_desc(0, 0xfffff, 0xc1b));
	idt[V] = gate_desc(SEL_FREE, (u32)trap_entries, 0x8e);
	expect("INT to code not present is #NP(sel)", catch (int_v_fault), NP,
	       SEL_FREE);
	gdt_set(SEL_FREE, seg_desc(0, 0xfff, 0x49b));
	idt[V] = gate_desc(SEL_FREE, 0x1000, 0x8e);
	expect("INT beyond the code's limit is #GP(0)", catch (int_v_fault), GP, 0);
	idt[V] = gate_desc(SEL_CODE, 0, 0x8c);
	expect("INT through a call gate is #GP(vector)", catch (int_v_fault), GP,
	       ERR(V, 0));
	idt[V] = gate_desc(SEL_CODE, 0, 0x9e);
	expect("INT through a data descriptor is #GP(vector)", catch (int_v_fault), GP,
	       ERR(V, 0));

	idt[V] = gate_desc(SEL_CODE, (u32)handler32, 0x8e);
	check_eq("a 32-bit gate pushes three words", flags_in(0x200), 12);
	check_eq("an interrupt gate clears IF", gate_flags & 0x200, 0);
	idt[V] = gate_desc(SEL_CODE, (u32)handler32, 0x8f);
	flags_in(0x4200);
	check_eq("a trap gate keeps IF", gate_flags & 0x200, 0x200);
	check_eq("and clears NT", gate_flags & 0x4000, 0);
	__asm__ volatile("pushfl; andl $0xffffbfff, (%%esp); popfl" ::: "memory", "cc");
}

/* The 16-bit handler has to lie in the first 64 KiB for its offset: a copy of it does. */
static void gates16(void)
{
	u8 *copy = (u8 *)0x6000;
	const u8 *from = (const u8 *)handler16;

	for (u32 n = 0; n < 64; n++)
		copy[n] = from[n];
	gdt_set(SEL_FREE, seg_desc(0, 0xfffff, 0xc9b));
	idt[V] = gate_desc(SEL_FREE, 0xffff6000, 0x86);
	/* IRETW cuts EIP to 16 bits, so the interrupted code lies there as well */
	copy = (u8 *)0x6100;
	copy[0] = 0xcd; /* int $0x60; lret */
	copy[1] = V;
	copy[2] = 0xcb;
	__asm__ volatile("pushl %%ebx; movl %%esp, %%ebx; lcall $0x50, $0x6100;"
			 "subl gate_esp, %%ebx; movl %%ebx, gate_esp; popl %%ebx" ::
				 : "memory", "cc");
	check_eq("a 16-bit gate pushes three half-words", gate_esp, 8 + 6);
}

static void exceptions(void)
{
	idt_reset();
	expect("INT n is a trap", catch (int_v), V, -1);
	expect("INT3 is a trap", catch (int3), BP, -1);
	expect("INTO with OF is a trap", catch (into), OF, -1);
	expect("INTO without OF is nothing", catch (into_clear), NO_TRAP, -1);
	expect("INT1 is #DB behind it", catch (icebp), DB, -1);
	expect("DIV by 0 is #DE", catch (divide), DE, -1);
	check_eq("whose frame has RF", trap.eflags >> 16 & 1, 1);
	expect("DIV overflow is #DE", catch (divide_big), DE, -1);
	expect("AAM 0 is #DE", catch (aam0), DE, -1);
	expect("BOUND outside is #BR", catch (bound), BR, -1);
	expect("BOUND inside is nothing", catch (bound_ok), NO_TRAP, -1);
	expect("UD2 is #UD", catch (ud2), UD, -1);
	expect("LOCK NOP is #UD", catch (lock_nop), UD, -1);
	expect("LOCK on a register is #UD", catch (lock_reg), UD, -1);
	expect("16 bytes are too long: #GP(0)", catch (too_long), GP, 0);
	set_cr0(cr0() | 8);
	expect("x87 with CR0.TS is #NM", catch (fpu_ts), NM, -1);
	__asm__ volatile("clts");
	set_cr0(cr0() | 4);
	expect("x87 with CR0.EM is #NM", catch (fpu_ts), NM, -1);
	set_cr0(cr0() & ~4u);
}

/* Faults while a fault is delivered. */
static void double_faults(void)
{
	idt[UD] = gate_desc(SEL_CODE, (u32)trap_entries, 0x0e);
	expect("#UD through a gate not present is #NP with EXT", catch (ud2), NP,
	       ERR(UD, 1));
	idt[UD] = gate_desc(SEL_DATA, (u32)trap_entries, 0x8e);
	expect("#UD to data is #GP(sel) with EXT", catch (ud2), GP, SEL_DATA + 1);
	idt_reset();
	idt[GP] = gate_desc(SEL_CODE, (u32)trap_entries, 0x0e);
	expect("#GP through a gate not present is #DF(0)", catch (cs_gp), DF, 0);
	idt_reset();
	idt[DE] = gate_desc(SEL_CODE, (u32)trap_entries, 0x0e);
	expect("#DE through a gate not present is #DF(0)", catch (divide), DF, 0);
	idt_reset();
	idt[BP] = gate_desc(SEL_CODE, (u32)trap_entries, 0x6e);
	fault_at = 0;
	catch (int3);
	check_eq("INT3 through a gate not present is #NP", trap.vec, NP);
	check_eq("without EXT", trap.err, ERR(BP, 0));
	fault_at = 0;
	idt_reset();
}

void test_gates(void)
{
	gates();
	gates16();
	exceptions();
	double_faults();
}

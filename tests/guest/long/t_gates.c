/* tests/guest/long/t_gates.c - 64-bit interrupt gates, stacks, IRETQ. SDM 3A 6.14. */
#include "guest64.h"

#define V             0x60
#define ERR(vec, ext) ((vec)*8 + 2 + (ext))

extern u8 trap_entries[];

FAULTS(int_fault, "", "int $0x60")
TRAPS(int_trap, "", "int $0x60")
FAULTS(ud2, "", "ud2")
FAULTS(odd_stack, "pushq %%rbp; movq %%rsp, %%rbp; subq $5, %%rsp", "ud2")
FAULTS(iret_nt, "pushfq; orl $0x4000, (%%rsp); popfq", "iretq")
FAULTS(iret_ss0,
       "movq %%rsp, %%rax; pushq $0; pushq %%rax; pushfq; pushq $8; pushq $1f",
       "iretq; 1: movl $0x10, %%eax; movl %%eax, %%ss")
FAULTS(iret_ss0_user, "pushq $0; pushq %%rsp; pushfq; pushq $0x2b; pushq $1f",
       "iretq; 1:")
FAULTS(iret_ss3_user, "pushq $3; pushq %%rsp; pushfq; pushq $0x2b; pushq $1f",
       "iretq; 1:")
FAULTS(iret_code_l_d, "pushq $0x10; pushq %%rsp; pushfq; pushq $0x50; pushq $1f",
       "iretq; 1:")
FAULTS(step, "pushfq; orl $0x100, (%%rsp); popfq; nop", "nop")
FAULTS(null_ss, "xorl %%eax, %%eax; movl %%eax, %%ss",
       "pushq %%rax; popq %%rax; movl $0x10, %%eax; movl %%eax, %%ss")
FAULTS(store_hole, "movabs $0x800000000000, %%rcx", "movl %%eax, (%%rcx)")
FAULTS(cs_mem, "", "movl %%eax, %%cs:scratch")

USER(u_nothing, "", "nop")
USER(u_int3, "", "int3")
USER(u_ss_null, "xorl %eax, %eax", "movl %eax, %ss")
USER(u_closed, "", "int $0x60")

static void gates(void)
{
	idt[V].lo = 0;
	expect("INT through an empty gate is #GP(vector)", catch (int_fault), GP,
	       ERR(V, 0));
	idt_set(V, SEL_CODE, trap_entries + 16 * V, 0x0e, 0);
	expect("a gate not present is #NP(vector)", catch (int_fault), NP, ERR(V, 0));
	idt_set(V, SEL_CODE, trap_entries + 16 * V, 0x86, 0);
	expect("a 16-bit gate is #GP(vector)", catch (int_fault), GP, ERR(V, 0));
	idt_set(V, SEL_CODE, trap_entries + 16 * V, 0x85, 0);
	expect("a task gate is #GP(vector)", catch (int_fault), GP, ERR(V, 0));
	idt_set(V, 0, trap_entries + 16 * V, 0x8e, 0);
	expect("a null selector is #GP(0)", catch (int_fault), GP, 0);
	idt_set(V, SEL_CODE32, trap_entries + 16 * V, 0x8e, 0);
	expect("32-bit code is #GP(sel)", catch (int_fault), GP, SEL_CODE32);
	idt_set(V, SEL_CODE3, trap_entries + 16 * V, 0x8e, 0);
	expect("code of privilege 3 is #GP(sel)", catch (int_fault), GP,
	       SEL_CODE3 & ~3);
	idt_set(V, SEL_CODE, (void *)0x800000000000, 0x8e, 0);
	expect("a handler in the hole is #GP(0)", catch (int_fault), GP, 0);
	idt_set(V, SEL_CODE, trap_entries + 16 * V, 0x8e, 2);
	tss.ist[1] = 0x800000000000;
	expect("a stack in the hole is #SS(0)", catch (int_fault), SS, 0);
	tss.ist[1] = 0;
	idt_reset();
	idt_set(UD, SEL_CODE, trap_entries + 16 * UD, 0x0e, 0);
	expect("#UD through a gate not present is #NP with EXT", catch (ud2), NP,
	       ERR(UD, 1));
	idt_reset();
	idt_set(GP, SEL_CODE, trap_entries + 16 * GP, 0x0e, 0);
	idt_set(DF, SEL_CODE, trap_entries + 16 * DF, 0x8e, 1);
	fault_at = 0;
	check_eq("#GP through a gate not present is #DF", catch (store_hole), DF);
	check_eq("on the stack of its IST",
		 trap.err == 0 && trap.rsp - (u64)ist_stack >= sizeof(ist_stack), 1);
	idt_reset();
}

static void frames(void)
{
	expect("INT", catch (int_trap), V, -1);
	check_eq("has CS in the frame", trap.cs, SEL_CODE);
	check_eq("and SS", trap.ss, SEL_DATA);
	catch (odd_stack);
	check_eq("the frame is aligned to 16 bytes, RSP in it is not",
		 (u64)(trap.rsp & 7), 3);
	fault_at = 0;
	expect("IRETQ with NT is #GP(0)", catch (iret_nt), GP, 0);
	__asm__ volatile("pushfq; andl $0xffffbfff, (%%rsp); popfq" ::: "memory", "cc");
	expect("IRETQ with a null SS at privilege 0", catch (iret_ss0), NO_TRAP, -1);
	expect("but not to privilege 3: #GP(0)", catch (iret_ss0_user), GP, 0);
	expect("with RPL 3 neither", catch (iret_ss3_user), GP, 0);
	gdt[SEL_FREE / 8] = seg_desc(0xe9b);
	expect("IRETQ to code with L and D is #GP(sel)", catch (iret_code_l_d), GP,
	       SEL_FREE);
	expect("a null SS serves at privilege 0", catch (null_ss), NO_TRAP, -1);
	expect("segments have no rights here", catch (cs_mem), NO_TRAP, -1);
	fault_at = 0;
	check_eq("single step", catch (step), DB);

	expect("a program at privilege 3", run_user(u_nothing, 0), DONE, -1);
	check_eq("has its CS in the frame", trap.cs, SEL_CODE3);
	check_eq("its SS", trap.ss, SEL_DATA3);
	check_eq("its RSP", trap.rsp, (u64)user_stack + 4096);
	expect("INT3 through an open gate", run_user(u_int3, u_int3_at + 1), BP, -1);
	expect("INT through a closed one", run_user(u_closed, u_closed_at), GP,
	       ERR(V, 0));
	expect("a null SS at privilege 3 is #GP(0)", run_user(u_ss_null, u_ss_null_at),
	       GP, 0);
}

void test_gates(void)
{
	gates();
	frames();
}

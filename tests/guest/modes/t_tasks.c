/* tests/guest/modes/t_tasks.c - hardware task switches: JMP, CALL, IRET, task gates. SDM 3A chapter 7. */
#include "guest.h"

#define S SEL_FREE

extern u8 trap_entries[];
u32 task_count, task_err;
static u8 task_stack[2048] __attribute__((aligned(16)));

FAULTS(call_task, "", "lcall *task_ptr_mem")
FAULTS(jmp_task, "", "ljmp *task_ptr_mem")
FAULTS(int_task, "", "int $0x60")
FAULTS(ud2, "", "ud2")
FAULTS(iret_nt, "pushfl; orl $0x4000, (%%esp); popfl", "iret")

u32 task_ptr_mem[2];

/* The other tasks: each goes back, and goes on behind that when it is entered again. */
void task_iret(void);
void task_jmp(void);
void task_code(void);
__asm__(".text\n"
	"task_iret:\n"
	"	incl task_count\n"
	"	iret\n"
	"	jmp task_iret\n"
	"task_jmp:\n"
	"	incl task_count\n"
	"	ljmp $0x28, $0\n"
	"	jmp task_jmp\n"
	"task_code:\n"
	"	popl task_err\n"
	"	incl task_count\n"
	"	addl $2, tss + 32\n" /* behind UD2 */
	"	iret\n"
	"	jmp task_code\n");

static void new_task(void (*fn)(void))
{
	u8 *p = (u8 *)&tss2;

	for (u32 n = 0; n < sizeof(tss2); n++)
		p[n] = 0;
	tss2.eip = (u32)fn;
	tss2.eflags = 2;
	tss2.esp = (u32)task_stack + sizeof(task_stack);
	tss2.cs = SEL_CODE;
	tss2.ss = tss2.ds = tss2.es = tss2.fs = tss2.gs = SEL_DATA;
	tss2.ebx = 0x12345678;
	tss2.cr3 = 0;
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x67, 0x89));
	gdt_set(SEL_TSS, seg_desc((u32)&tss, sizeof(tss) - 1, 0x8b));
	task_ptr_mem[1] = SEL_TSS2;
	task_count = 0;
	fault_at = 0;
}

static u32 task_register(void)
{
	u32 v;

	__asm__ volatile("str %0" : "=r"(v));
	return v & 0xffff;
}

/* After a fault inside the new task: back to the first one, whose TSS is not busy then. */
static void first_task(void)
{
	gdt_set(SEL_TSS, seg_desc((u32)&tss, sizeof(tss) - 1, 0x89));
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
	__asm__ volatile("clts; pushfl; andl $0xffffbfff, (%%esp); popfl" ::
				 : "memory", "cc");
}

static void switches(void)
{
	new_task(task_iret);
	check_eq("CALL of a task and IRET", catch (call_task), NO_TRAP);
	check_eq("the task ran", task_count, 1);
	check_eq("the first task is in TR again", task_register(), SEL_TSS);
	check_eq("and busy", gdt_access(SEL_TSS), 0x8b);
	check_eq("the other one is not", gdt_access(SEL_TSS2), 0x89);
	check_eq("its back link named the first", tss2.link, SEL_TSS);
	check_eq("NT is clear in what IRET saved", tss2.eflags & 0x4000, 0);
	check_eq("CR0.TS is set", cr0() & 8, 8);
	check_eq("CALL again goes on behind IRET", catch (call_task), NO_TRAP);
	check_eq("the task ran again", task_count, 2);
	check_eq("its registers were kept", tss2.ebx, 0x12345678);

	new_task(task_jmp);
	check_eq("JMP to a task and back", catch (jmp_task), NO_TRAP);
	check_eq("the task ran", task_count, 1);
	check_eq("no back link", tss2.link, 0);
	check_eq("it is not busy", gdt_access(SEL_TSS2), 0x89);

	new_task(task_iret);
	gdt_set(S, gate_desc(SEL_TSS2, 0, 0x85));
	task_ptr_mem[1] = S;
	check_eq("CALL of a task gate", catch (call_task), NO_TRAP);
	check_eq("the task ran", task_count, 1);

	new_task(task_iret);
	idt[0x60] = gate_desc(SEL_TSS2, 0, 0x85);
	check_eq("INT through a task gate", catch (int_task), NO_TRAP);
	check_eq("the task ran", task_count, 1);

	new_task(task_code);
	idt[UD] = gate_desc(SEL_LIMIT, 0, 0x85);
	expect("a task gate beyond the GDT is #GP(sel) with EXT", catch (ud2), GP,
	       SEL_LIMIT + 1);
	idt_reset();
	__asm__ volatile("clts");
}

static void faults(void)
{
	new_task(task_iret);
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x67, 0x8b));
	expect("CALL of a busy task is #GP(sel)", catch (call_task), GP, SEL_TSS2);
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x67, 0x09));
	expect("CALL of a task not present is #NP(sel)", catch (call_task), NP,
	       SEL_TSS2);
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x66, 0x89));
	expect("a TSS that is too short is #TS(sel)", catch (call_task), TS, SEL_TSS2);
	tss.link = SEL_LIMIT;
	expect("IRET to a bad back link is #TS(sel)", catch (iret_nt), TS, SEL_LIMIT);
	tss.link = SEL_TSS2;
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x67, 0x89));
	expect("IRET to a task that is not busy is #TS(sel)", catch (iret_nt), TS,
	       SEL_TSS2);
	__asm__ volatile("pushfl; andl $0xffffbfff, (%%esp); popfl" ::: "memory", "cc");
	tss.link = 0;

	new_task(task_iret);
	tss2.ds = SEL_LIMIT;
	check_eq("a bad DS in the new task", catch (call_task), TS);
	check_eq("is #TS(sel)", trap.err, SEL_LIMIT);
	check_eq("in the new task", trap.eip, (u32)task_iret);
	check_eq("whose TSS is in TR", task_register(), SEL_TSS2);
	first_task();
	new_task(task_iret);
	first_task();
	tss2.cs = SEL_DATA;
	check_eq("a CS with data in the new task", catch (call_task), TS);
	check_eq("is #TS(sel)", trap.err, SEL_DATA);
	first_task();
	new_task(task_iret);
	first_task();
	tss2.ldt = SEL_DATA;
	check_eq("an LDT that is none in the new task", catch (call_task), TS);
	check_eq("is #TS(sel)", trap.err, SEL_DATA);
	first_task();
	new_task(task_iret);
	first_task();
	tss2.trap = 1;
	check_eq("a TSS with the debug flag", catch (call_task), DB);
	check_eq("traps at the first instruction", trap.eip, (u32)task_iret);
	first_task();
	new_task(task_iret);
	first_task();
}

void test_tasks(void)
{
	switches();
	faults();
	__asm__ volatile("clts");
}

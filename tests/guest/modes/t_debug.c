/* tests/guest/modes/t_debug.c - single steps and the debug registers. SDM 3B chapter 17. */
#include "guest.h"

enum { B0 = 1, B1 = 2, BD = 1 << 13, BS = 1 << 14 };

static u32 dr6(void)
{
	u32 v;

	__asm__ volatile("mov %%dr6, %0" : "=r"(v));
	return v & 0xe00f;
}

static void arm(u32 n, void *at, u32 type, u32 len)
{
	u32 dr7 = 0x400 | 2u << (n * 2) | type << (16 + n * 4) |
		  (len - 1) << (18 + n * 4);

	__asm__ volatile("mov %0, %%dr6" ::"r"(0));
	if (n)
		__asm__ volatile("mov %0, %%dr1" ::"r"(at));
	else
		__asm__ volatile("mov %0, %%dr0" ::"r"(at));
	__asm__ volatile("mov %0, %%dr7" ::"r"(dr7));
}

static void disarm(void)
{
	__asm__ volatile("mov %0, %%dr7" ::"r"(0x400));
	__asm__ volatile("mov %0, %%dr6" ::"r"(0));
}

/* TF is set by POPF: the instruction behind it runs, then comes the trap. */
TRAPS(step, "pushfl; orl $0x100, (%%esp); popfl", "nop")
TRAPS(write_byte, "", "movb $1, scratch + 5")
TRAPS(write_near, "", "movb $1, scratch + 8")
TRAPS(write_long, "", "movl $1, scratch + 2")
TRAPS(read_long, "", "movl scratch + 4, %%eax")
TRAPS(movs_long,
      "pushl %%esi; pushl %%edi; movl $scratch, %%esi; movl $scratch + 4, %%edi",
      "movsl")
FAULTS(general_detect, "movl $0x2400, %%eax; movl %%eax, %%dr7", "movl %%dr0, %%eax")
FAULTS(dr4_de, "", "movl %%dr4, %%eax")
TRAPS(out_port, "movw $0x80, %%dx", "outb %%al, %%dx")

void brk_here(void);
extern u8 brk_at[];
__asm__(".text\n"
	"brk_here: nop\n"
	"brk_at: nop\n"
	"	ret\n");

/* Goes through the breakpoint by IRET with RF set. */
static void with_rf(void)
{
	__asm__ volatile(
		"call 1f; jmp 2f\n"
		"1:	pushfl; orl $0x10000, (%%esp); pushl $8; pushl $brk_at; iret\n"
		"2:" ::
			: "memory", "cc");
}

static void single_steps(void)
{
	disarm();
	expect("TF traps behind the next instruction", catch (step), DB, -1);
	check_eq("with DR6.BS", dr6(), BS);
	check_eq("the frame has TF", trap.eflags >> 8 & 1, 1);
	check_eq("but not RF", trap.eflags >> 16 & 1, 0);
}

static void breakpoints(void)
{
	arm(0, scratch + 4, 1, 4);
	expect("a write to a watched word traps behind it", catch (write_byte), DB, -1);
	check_eq("with DR6.B0", dr6(), B0);
	fault_at = 0;
	check_eq("a write beside it does not", catch (write_near), NO_TRAP);
	expect("one that reaches into it does", catch (write_long), DB, -1);
	check_eq("a read does not", catch (read_long), NO_TRAP);
	expect("MOVS does", catch (movs_long), DB, -1);
	arm(1, scratch + 4, 3, 4);
	expect("a read of a word watched for both does", catch (read_long), DB, -1);
	check_eq("with DR6.B1", dr6(), B1);

	arm(0, brk_at, 0, 1);
	fault_at = (u32)brk_at;
	expect("an execution breakpoint faults before it", catch (brk_here), DB, -1);
	check_eq("with DR6.B0", dr6(), B0);
	fault_at = 0;
	expect("RF lets one instruction through", catch (with_rf), NO_TRAP, -1);
	disarm();
	expect("no breakpoint, no trap", catch (write_byte), NO_TRAP, -1);

	expect("DR0 with DR7.GD is #DB", catch (general_detect), DB, -1);
	check_eq("with DR6.BD", dr6(), BD);
	disarm();
	set_cr4(cr4() | 8);
	expect("DR4 with CR4.DE is #UD", catch (dr4_de), UD, -1);
	arm(0, (void *)0x80, 2, 1);
	expect("an I/O breakpoint traps behind OUT", catch (out_port), DB, -1);
	disarm();
	set_cr4(cr4() & ~8u);
	expect("DR4 without is DR6", catch (dr4_de), NO_TRAP, -1);
}

void test_debug(void)
{
	single_steps();
	breakpoints();
}

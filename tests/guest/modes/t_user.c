/* tests/guest/modes/t_user.c - privilege 3: what it may not do, call gates, stacks of the TSS, I/O bitmap. */
#include "guest.h"

#define ERR(vec, ext) ((vec)*8 + 2 + (ext))
#define S             SEL_FREE

/* A program for privilege 3; `insn` is where it is expected to fault. Ends by INT 80h. */
#define USER(name, setup, insn)                                        \
	void name(void);                                               \
	extern u8 name##_at[];                                         \
	__asm__(".text\n" #name ":\n\t" setup "\n" #name "_at:\t" insn \
		"\n\tint $0x80\n");

USER(u_nothing, "", "nop")
USER(u_cli, "", "cli")
USER(u_sti, "", "sti")
USER(u_hlt, "", "hlt")
USER(u_lgdt, "", "lgdt gdt")
USER(u_clts, "", "clts")
USER(u_cr0_read, "", "movl %cr0, %eax")
USER(u_cr0_write, "", "movl %eax, %cr0")
USER(u_dr_read, "", "movl %dr7, %eax")
USER(u_rdmsr, "", "rdmsr")
USER(u_invd, "", "invd")
USER(u_ltr, "movw $0x28, %ax", "ltr %ax")
USER(u_in, "movw $0x80, %dx", "inb %dx, %al")
USER(u_in32, "movw $0x7f, %dx", "inl %dx, %eax")
USER(u_outs, "movw $0x80, %dx; movl $scratch, %esi", "outsb")
USER(u_int_closed, "", "int $0x60")
USER(u_int_open, "", "int $0x80")
USER(u_int3, "", "int3; nop")
USER(u_ds_inner, "movw $0x10, %ax", "movw %ax, %ds")
USER(u_ss_null, "xorl %eax, %eax", "movw %ax, %ss")
USER(u_popf, "pushfl; xorl $0x3200, (%esp); popfl; pushfl; popl %eax", "nop")
USER(u_jmp_inner, "", "ljmp $0x08, $0")
USER(u_call_gate, "pushl $0x11111111; pushl $0x22222222",
     "lcall $0x53, $0; addl $8, %esp")
USER(u_call_gate0, "", "lcall $0x53, $0")
USER(u_div, "xorl %ecx, %ecx", "divl %ecx")
USER(u_nt_iret, "pushl $0x4002; popfl", "iret")
USER(u_unaligned, "movl $scratch + 1, %ebx", "movl (%ebx), %eax")
USER(u_aligned, "movl $scratch + 4, %ebx", "movl (%ebx), %eax")
USER(u_smsw, "", "smsw %ax")
USER(u_sidt, "", "sidt scratch")
USER(u_str, "", "str %ax")

static u32 user_eip, user_flags;

static void enter(void)
{
	to_user(user_eip, user_flags);
}

static u32 run(void (*fn)(void), const u8 *at)
{
	user_eip = (u32)fn;
	user_flags = 2;
	fault_at = (u32)at;
	return catch (enter);
}

#define EXPECT(text, name, vec, err) expect(text, run(name, name##_at), vec, err)
/* The program runs to its end. */
static void expect_done(const char *text, void (*fn)(void))
{
	expect(text, run(fn, 0), DONE, -1);
}

static void privileged(void)
{
	expect_done("a program at privilege 3", u_nothing);
	check_eq("has its selectors in the frame", trap.cs << 16 | trap.ss,
		 SEL_CODE3 << 16 | SEL_DATA3);
	check_eq("and its stack pointer", trap.esp, (u32)user_stack + 4096);
	EXPECT("CLI with IOPL 0 is #GP(0)", u_cli, GP, 0);
	EXPECT("STI with IOPL 0 is #GP(0)", u_sti, GP, 0);
	EXPECT("HLT is #GP(0)", u_hlt, GP, 0);
	EXPECT("LGDT is #GP(0)", u_lgdt, GP, 0);
	EXPECT("CLTS is #GP(0)", u_clts, GP, 0);
	EXPECT("reading CR0 is #GP(0)", u_cr0_read, GP, 0);
	EXPECT("writing CR0 is #GP(0)", u_cr0_write, GP, 0);
	EXPECT("reading DR7 is #GP(0)", u_dr_read, GP, 0);
	EXPECT("RDMSR is #GP(0)", u_rdmsr, GP, 0);
	EXPECT("INVD is #GP(0)", u_invd, GP, 0);
	EXPECT("LTR is #GP(0)", u_ltr, GP, 0);
	EXPECT("DS of privilege 0 is #GP(sel)", u_ds_inner, GP, SEL_DATA);
	EXPECT("SS with null is #GP(0)", u_ss_null, GP, 0);
	EXPECT("JMP to privilege 0 is #GP(sel)", u_jmp_inner, GP, SEL_CODE);
	EXPECT("INT through a gate of privilege 0 is #GP(vector)", u_int_closed, GP,
	       ERR(0x60, 0));
	expect("INT3 through an open one", run(u_int3, u_int3_at + 1), BP, -1);
	EXPECT("DIV by 0", u_div, DE, -1);
	expect_done("POPF", u_popf);
	check_eq("changes neither IOPL nor IF", trap.eax & 0x3200, 0);
	EXPECT("IRET with NT and no back link is #TS(0)", u_nt_iret, TS, 0);
}

static void ports(void)
{
	tss.iomap = sizeof(tss);
	EXPECT("IN without a bitmap is #GP(0)", u_in, GP, 0);
	tss.iomap = (u16)((u8 *)tss.io - (u8 *)&tss);
	for (u32 n = 0; n < sizeof(tss.io); n++)
		tss.io[n] = 0;
	/* port 80h lies behind the bitmap's 9 bytes (8 of them count) */
	EXPECT("IN beyond the bitmap is #GP(0)", u_in, GP, 0);
	tss.iomap -= 0x10; /* now ports up to (9 + 10h) * 8 - 1 are in the TSS */
	for (u32 n = 0; n < sizeof(tss.redirect); n++)
		tss.redirect[n] = 0;
	expect_done("IN of a port whose bit is 0", u_in);
	((u8 *)&tss)[tss.iomap + 0x10] = 1;
	EXPECT("IN of a port whose bit is 1 is #GP(0)", u_in, GP, 0);
	EXPECT("OUTS of it too", u_outs, GP, 0);
	EXPECT("IN of 4 ports where one bit is 1 is #GP(0)", u_in32, GP, 0);
	((u8 *)&tss)[tss.iomap + 0x10] = 0;
	expect_done("IN of 4 ports across a byte of the bitmap", u_in32);
	tss.iomap = sizeof(tss);
	user_eip = (u32)u_in;
	user_flags = 0x3002;
	expect("IN with IOPL 3", catch (enter), DONE, -1);
	user_eip = (u32)u_cli;
	expect("CLI with IOPL 3", catch (enter), DONE, -1);
}

/* The other side of a call gate: looks at its stack and goes back. */
void gate_target(void);
extern u8 gate_ret[];
u32 gate_saw[6];
__asm__(".text\n"
	"gate_target:\n"
	"	movw $0x10, %ax\n"
	"	movw %ax, %ds\n"
	"	movl (%esp), %eax\n"
	"	movl %eax, gate_saw\n"
	"	movl 4(%esp), %eax\n"
	"	movl %eax, gate_saw + 4\n"
	"	movl 8(%esp), %eax\n"
	"	movl %eax, gate_saw + 8\n"
	"	movl 12(%esp), %eax\n"
	"	movl %eax, gate_saw + 12\n"
	"	movl 20(%esp), %eax\n"
	"	movl %eax, gate_saw + 16\n"
	"	movl %esp, gate_saw + 20\n"
	"gate_ret:\n"
	"	lret $8\n");

static void call_gates(void)
{
	extern u8 trap_stack_top[];

	gdt_set(S, gate_desc(SEL_CODE, (u32)gate_target, 0x8c));
	EXPECT("CALL through a gate of privilege 0 is #GP(gate)", u_call_gate0, GP, S);
	gdt_set(S, gate_desc(SEL_CODE, (u32)gate_target, 0x6c));
	EXPECT("CALL through a gate not present is #NP(gate)", u_call_gate0, NP, S);
	gdt_set(S, gate_desc(SEL_CODE, (u32)gate_target, 0xec) | 2ull << 32);
	expect_done("CALL through a gate and back", u_call_gate);
	check_eq("the frame has the old CS", gate_saw[1], SEL_CODE3);
	check_eq("the last parameter", gate_saw[2], 0x22222222);
	check_eq("the first one", gate_saw[3], 0x11111111);
	check_eq("the old SS", gate_saw[4], SEL_DATA3);
	check_eq("on the stack of the TSS", gate_saw[5], (u32)trap_stack_top - 24);
	check_eq("the way back makes the privilege 0 DS null", trap.ds, 0);
	check_eq("and leaves ES", trap.es & 0xffff, SEL_DATA3);
}

/*
 * Without a stack at privilege 0 no fault can be delivered there but to a task. This one notes the
 * error code, and leaves for catch() as if it were the first task.
 */
void inner_task(void);
static u8 inner_stack[1024] __attribute__((aligned(16)));
u32 inner_vec;
__asm__(".text\n"
	"inner_task:\n"
	"	popl trap + 52\n"
	"	movl inner_vec, %eax\n"
	"	movl %eax, trap + 48\n"
	"	movl tss + 32, %eax\n"
	"	movl %eax, trap + 56\n"
	"	andb $0xfd, gdt + 0x28 + 5\n" /* not busy */
	"	movw $0x28, %ax\n"
	"	ltr %ax\n"
	"	clts\n"
	"	pushl $2\n"
	"	popfl\n"
	"	jmp catch_resume\n");

static void no_stack(const char *name, u32 ss0, u32 vec, u32 err)
{
	u8 *p = (u8 *)&tss2;

	for (u32 n = 0; n < sizeof(tss2); n++)
		p[n] = 0;
	tss2.eip = (u32)inner_task;
	tss2.eflags = 2;
	tss2.esp = (u32)inner_stack + sizeof(inner_stack);
	tss2.cs = SEL_CODE;
	tss2.ss = tss2.ds = tss2.es = SEL_DATA;
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x67, 0x89));
	idt[vec] = gate_desc(SEL_TSS2, 0, 0x85);
	inner_vec = vec;
	tss.ss0 = ss0;
	expect(name, run(u_int_open, u_int_open_at), vec, (int)err);
	tss.ss0 = SEL_DATA;
	idt_reset();
}

static void inner_stacks(void)
{
	no_stack("a null SS0 is #TS(0)", 0, TS, 0);
	no_stack("an SS0 beyond the GDT is #TS(sel)", SEL_LIMIT, TS, SEL_LIMIT);
	no_stack("an SS0 of privilege 3 is #TS(sel)", SEL_DATA3, TS, SEL_DATA3 & ~3);
	no_stack("an SS0 with code is #TS(sel)", SEL_CODE, TS, SEL_CODE);
	gdt_set(S + 8, seg_desc(0, 0xfffff, 0xc13));
	no_stack("an SS0 not present is #SS(sel)", S + 8, SS, S + 8);
	gdt_set(S + 8, seg_desc((u32)scratch, 0xf, 0x493));
	no_stack("an SS0 without room is #SS(sel)", S + 8, SS, S + 8);
}

static void set_ac(int on)
{
	set_cr0(on ? cr0() | 1u << 18 : cr0() & ~(1u << 18));
}

static void alignment(void)
{
	set_ac(1);
	user_flags = 0x40002;
	user_eip = (u32)u_unaligned;
	fault_at = (u32)u_unaligned_at;
	expect("an unaligned read with AC is #AC(0)", catch (enter), AC, 0);
	user_eip = (u32)u_aligned;
	expect("an aligned one is not", catch (enter), DONE, -1);
	expect_done("nor is one without AC", u_unaligned);
	set_ac(0);
	user_flags = 0x40002;
	user_eip = (u32)u_unaligned;
	expect("nor one without CR0.AM", catch (enter), DONE, -1);
}

static void umip(void)
{
	u32 r[4];

	expect_done("SMSW at privilege 3", u_smsw);
	expect_done("SIDT at privilege 3", u_sidt);
	cpuid(7, 0, r);
	if (!(r[2] & 4))
		return;
	set_cr4(cr4() | 1u << 11);
	EXPECT("SMSW with UMIP is #GP(0)", u_smsw, GP, 0);
	EXPECT("SIDT with UMIP is #GP(0)", u_sidt, GP, 0);
	EXPECT("STR with UMIP is #GP(0)", u_str, GP, 0);
	set_cr4(cr4() & ~(1u << 11));
}

void test_user(void)
{
	privileged();
	ports();
	call_gates();
	inner_stacks();
	alignment();
	umip();
}

/* tests/guest/long/t_calls.c - SYSCALL, SYSENTER, call gates, compatibility mode. SDM 2A, 2B. */
#include "guest64.h"

enum {
	MSR_EFER = 0xc0000080,
	MSR_STAR,
	MSR_LSTAR,
	MSR_CSTAR,
	MSR_SFMASK,
	MSR_SYSENTER_CS = 0x174,
};

USER(u_syscall, "movl $0x12345678, %edx; stc; std", "syscall; movl %eax, %esi")
USER(u_gate, "", "lcall *gate_ptr; nop")
USER(u_compat, "", "ljmp *compat_ptr")
USER(u_sysret, "", "sysretq")
USER(u_sysexit, "", "sysexitl")
FAULTS(sysenter, "", "sysenter")
FAULTS(syscall_off, "", "syscall")
FAULTS(jmp_mem, "", "ljmp *gate_ptr")
FAULTS(call_mem, "", "lcall *gate_ptr")
FAULTS(jmp_16, "", "rex.W ljmp *wide_ptr; 1:")
FAULTS(ltr_free, "movl $0x50, %%eax", "ltr %%ax")
FAULTS(lldt_free, "movl $0x50, %%eax", "lldt %%ax")

struct {
	u32 off;
	u16 sel;
} __attribute__((packed)) gate_ptr = {0, SEL_FREE | 3}, compat_ptr;

struct {
	u64 off;
	u16 sel;
} __attribute__((packed)) wide_ptr;

u64 seen_rcx, seen_r11, seen_flags, seen_cs, seen_ss, seen_rsp;

/* Handlers of SYSCALL and of the call gate; 32-bit code for compatibility mode. */
void on_syscall(void);
void on_gate(void);
void compat_code(void);
__asm__(".text\n"
	"on_syscall:\n"
	"	movq %rcx, seen_rcx\n"
	"	movq %r11, seen_r11\n"
	"	movq %rsp, seen_rsp\n"
	"	movq $trap_stack + 8192, %rsp\n"
	"	pushfq\n"
	"	popq seen_flags\n"
	"	movl %cs, %eax\n"
	"	movl %eax, seen_cs\n"
	"	movl %ss, %eax\n"
	"	movl %eax, seen_ss\n"
	"	movq seen_rsp, %rsp\n"
	"	movl $77, %eax\n"
	"	sysretq\n"
	"on_gate:\n"
	"	movq %rsp, seen_rsp\n"
	"	movq 8(%rsp), %rax\n"
	"	movq %rax, seen_cs\n"
	"	movq 16(%rsp), %rax\n"
	"	movq %rax, seen_flags\n"
	"	movl %ss, %eax\n"
	"	movl %eax, seen_ss\n"
	"	lretq\n"
	".code32\n"
	"compat_code:\n"
	"	xorl %eax, %eax\n"
	"	incl %eax\n" /* 40h: a REX prefix in 64-bit mode */
	"	pushl %eax\n"
	"	int $0x80\n"
	".code64\n");

static void gate_at(u32 sel, u32 code, const void *to, u32 attr)
{
	u64 off = (u64)to;

	gdt[sel / 8] = (off & 0xffff) | (u64)code << 16 | (u64)attr << 40 |
		       (off >> 16 & 0xffff) << 48;
	gdt[sel / 8 + 1] = off >> 32;
}

static void syscalls(void)
{
	wrmsr(MSR_STAR, (u64)(SEL_CODE32_3 & ~3) << 48 | (u64)SEL_CODE << 32);
	wrmsr(MSR_LSTAR, (u64)on_syscall);
	wrmsr(MSR_SFMASK, 0x600); /* DF, IF */
	expect("SYSCALL and SYSRET", run_user(u_syscall, 0), DONE, -1);
	check_eq("RCX was the address behind it", seen_rcx, (u64)u_syscall_at + 2);
	check_eq("R11 the flags", seen_r11 & 0x401, 0x401);
	check_eq("those in SFMASK were cleared", seen_flags & 0x600, 0);
	check_eq("others not", seen_flags & 1, 1);
	check_eq("CS of STAR", (u32)seen_cs, SEL_CODE);
	check_eq("SS behind it", (u32)seen_ss, SEL_DATA);
	check_eq("RSP was the program's", seen_rsp, (u64)user_stack + 4096);
	check_eq("SYSRET's CS", trap.cs, SEL_CODE3);
	check_eq("its SS", trap.ss, SEL_DATA3);
	check_eq("the result came back", trap.rsi, 77);
	check_eq("so did the flags", trap.rflags & 0x401, 0x401);
	expect("SYSRET at privilege 3 is #GP(0)", run_user(u_sysret, u_sysret_at), GP,
	       0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
	expect("SYSCALL without EFER.SCE is #UD", catch (syscall_off), UD, -1);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
	if (!is_intel()) {
		expect("SYSENTER in long mode is #UD on AMD", catch (sysenter), UD, -1);
		return;
	}
	wrmsr(MSR_SYSENTER_CS, 0);
	expect("SYSENTER without a CS is #GP(0)", catch (sysenter), GP, 0);
	expect("SYSEXIT at privilege 3 is #GP(0)", run_user(u_sysexit, u_sysexit_at),
	       GP, 0);
}

static void call_gates(void)
{
	gate_at(SEL_FREE, SEL_CODE, on_gate, 0xec);
	expect("a call gate to privilege 0 and back", run_user(u_gate, 0), DONE, -1);
	check_eq("the frame had CS", seen_cs, SEL_CODE3);
	check_eq("and RSP", seen_flags, (u64)user_stack + 4096);
	check_eq("SS was null", (u32)seen_ss, 0);
	check_eq("on the stack of the TSS", seen_rsp,
		 (u64)trap_stack + sizeof(trap_stack) - 32);
	gate_at(SEL_FREE, SEL_CODE, on_gate, 0x8c);
	expect("a gate of privilege 0 is #GP(gate)", run_user(u_gate, u_gate_at), GP,
	       SEL_FREE);
	gate_at(SEL_FREE, SEL_CODE, on_gate, 0x6c);
	expect("a gate not present is #NP(gate)", run_user(u_gate, u_gate_at), NP,
	       SEL_FREE);
	gate_at(SEL_FREE, SEL_CODE32, on_gate, 0xec);
	expect("a gate to 32-bit code is #GP(its selector)",
	       run_user(u_gate, u_gate_at), GP, SEL_CODE32);
	gate_at(SEL_FREE, SEL_CODE, on_gate, 0xec);
	gdt[SEL_FREE / 8 + 1] |= 0x0cull << 40;
	expect("a gate whose upper half has a type is #GP(gate)",
	       run_user(u_gate, u_gate_at), GP, SEL_FREE);
	gate_at(SEL_FREE, SEL_CODE, on_gate, 0xe4);
	expect("a 16-bit call gate is #GP(gate)", run_user(u_gate, u_gate_at), GP,
	       SEL_FREE);
	gate_ptr.sel = SEL_TSS;
	expect("JMP to a TSS is #GP(sel)", catch (jmp_mem), GP, SEL_TSS);
	gate_ptr.sel = SEL_FREE;
	gdt[SEL_FREE / 8] = seg_desc(0xe9b);
	expect("JMP to code with L and D is #GP(sel)", catch (jmp_mem), GP, SEL_FREE);
	gate_ptr.sel = 0;
	expect("CALL to null is #GP(0)", catch (call_mem), GP, 0);
	gate_ptr.sel = SEL_FREE | 3;
	wide_ptr.sel = SEL_CODE;
	wide_ptr.off = 0x800000000000;
	if (is_intel())
		expect("a 64-bit far pointer into the hole is #GP(0)", catch (jmp_16),
		       GP, 0);
}

static void compatibility(void)
{
	compat_ptr.off = (u32)(u64)compat_code;
	compat_ptr.sel = SEL_CODE32_3;
	expect("32-bit code under a 64-bit kernel", run_user(u_compat, 0), DONE, -1);
	check_eq("is decoded as such", trap.rax, 1);
	check_eq("its CS", trap.cs, SEL_CODE32_3);
	check_eq("its pushes have 4 bytes", trap.rsp, (u64)user_stack + 4092);
}

static void descriptors(void)
{
	gdt[SEL_FREE / 8] = 0x67 | 0x89ull << 40;
	gdt[SEL_FREE / 8 + 1] = 0x8000; /* base 0000_8000_0000_0000h */
	expect("LTR with a base in the hole is #GP(sel)", catch (ltr_free), GP,
	       SEL_FREE);
	gdt[SEL_FREE / 8] = 0x67 | 0x81ull << 40;
	gdt[SEL_FREE / 8 + 1] = 0;
	expect("LTR of a 16-bit TSS is #GP(sel)", catch (ltr_free), GP, SEL_FREE);
	gdt[SEL_FREE / 8] = 0x67 | 0x82ull << 40;
	gdt[SEL_FREE / 8 + 1] = 0x1full << 40;
	expect("LLDT whose upper half has a type is #GP(sel)", catch (lldt_free), GP,
	       SEL_FREE);
	gdt[SEL_FREE / 8 + 1] = 0;
	expect("LLDT", catch (lldt_free), NO_TRAP, -1);
	__asm__ volatile("lldt %w0" ::"r"(0));
}

void test_calls(void)
{
	syscalls();
	call_gates();
	compatibility();
	descriptors();
}

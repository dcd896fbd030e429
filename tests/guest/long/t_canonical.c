/* tests/guest/long/t_canonical.c - addresses with 48 bits; what 64-bit mode has not. SDM 1 3.3.7.1. */
#include "guest64.h"

#define HOLE "$0x800000000000"

FAULTS(load, "movabs " HOLE ", %%rcx", "movq (%%rcx), %%rax")
FAULTS(store, "movabs " HOLE ", %%rcx", "movq %%rax, (%%rcx)")
FAULTS(load_byte, "movabs $0xffff7fffffffffff, %%rcx", "movb (%%rcx), %%al")
FAULTS(across, "movabs $0x7ffffffffffc, %%rcx", "movq (%%rcx), %%rax")
FAULTS(load_rbp, "pushq %%rbp; movabs " HOLE ", %%rbp", "movq 8(%%rbp), %%rax")
FAULTS(load_rbp_fs, "movabs " HOLE ", %%rbp", "movq %%fs:8(%%rbp), %%rax")
FAULTS(load_rsp, "movq %%rsp, %%r11; movabs " HOLE ", %%rsp", "movq (%%rsp), %%rax")
FAULTS(push, "movabs $0x800000000008, %%rsp", "pushq %%rax")
FAULTS(pop, "movabs " HOLE ", %%rsp", "popq %%rax")
FAULTS(call_push, "movabs $0x800000000008, %%rsp", "call 1f; 1:")
FAULTS(push_mem, "movabs " HOLE ", %%rcx", "pushq (%%rcx)")
FAULTS(jmp, "movabs " HOLE ", %%rcx", "jmp *%%rcx")
FAULTS(call, "movabs " HOLE ", %%rcx", "call *%%rcx")
FAULTS(ret, "movabs " HOLE ", %%rcx; pushq %%rcx", "ret")
FAULTS(iret,
       "movabs " HOLE
       ", %%rcx; pushq $0x10; pushq %%rsp; pushfq; pushq $8; pushq %%rcx",
       "iretq")
FAULTS(movs, "movabs " HOLE ", %%rsi; movq $scratch, %%rdi", "movsq")
FAULTS(lgdt, "", "lgdt bad_table")
FAULTS(invlpg, "movabs " HOLE ", %%rcx", "invlpg (%%rcx)")
FAULTS(wrmsr_lstar, "movl $0xc0000082, %%ecx; movl $0x8000, %%edx; xorl %%eax, %%eax",
       "wrmsr")
FAULTS(wrmsr_fs, "movl $0xc0000100, %%ecx; movl $0x8000, %%edx; xorl %%eax, %%eax",
       "wrmsr")
FAULTS(lock_add, "movabs " HOLE ", %%rcx", "lock; addq %%rax, (%%rcx)")

struct {
	u16 limit;
	u64 base;
} __attribute__((packed)) bad_table = {0xff, 0x800000000000};

static void addresses(void)
{
	expect("a load from the hole is #GP(0)", catch (load), GP, 0);
	expect("a store to it", catch (store), GP, 0);
	expect("a load of a byte below the upper half", catch (load_byte), GP, 0);
	expect("a load across the end of the lower half", catch (across), GP, 0);
	expect("LOCK ADD", catch (lock_add), GP, 0);
	expect("MOVS", catch (movs), GP, 0);
	expect("a load by RBP is #SS(0)", catch (load_rbp), SS, 0);
	expect("a load by RBP through FS is #GP(0)", catch (load_rbp_fs), GP, 0);
	expect("PUSH of a memory operand there is #GP(0)", catch (push_mem), GP, 0);
	expect("JMP to it is #GP(0) at the JMP", catch (jmp), GP, 0);
	expect("CALL", catch (call), GP, 0);
	expect("RET", catch (ret), GP, 0);
	expect("IRETQ", catch (iret), GP, 0);
	expect("LGDT with such a base is #GP(0)", catch (lgdt), GP, 0);
	expect("INVLPG of it is nothing", catch (invlpg), NO_TRAP, -1);
	expect("WRMSR of LSTAR", catch (wrmsr_lstar), GP, 0);
	expect("WRMSR of FS_BASE", catch (wrmsr_fs), GP, 0);
	/* with such a stack, the fault needs another one */
	idt_set(SS, SEL_CODE, (u8 *)(idt[SS].lo & 0xffff) + (idt[SS].lo >> 48 << 16),
		0x8e, 1);
	expect("a load by RSP is #SS(0)", catch (load_rsp), SS, 0);
	expect("PUSH", catch (push), SS, 0);
	expect("POP", catch (pop), SS, 0);
	expect("CALL's push", catch (call_push), SS, 0);
	idt_reset();
}

/* One-byte opcodes that are undefined in 64-bit mode. */
static u8 opcode[16];

static void run_opcode(void)
{
	fault_at = (u64)opcode;
	__asm__ volatile("call *%0" ::"r"(opcode) : CLOBBERS);
}

static void undefined(void)
{
	static const u8 ops[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f,
				 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82,
				 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea};
	u32 wrong = 0;

	for (u32 n = 0; n < sizeof(ops); n++) {
		opcode[0] = ops[n];
		wrong += catch (run_opcode) != UD || trap.rip != (u64)opcode;
	}
	fault_at = 0;
	check_eq("opcodes that 64-bit mode has not are #UD", wrong, 0);
	opcode[0] = 0xf0;
	opcode[1] = 0x87; /* lock xchg %eax, %eax */
	opcode[2] = 0xc0;
	expect("LOCK on registers is #UD", catch (run_opcode), UD, -1);
}

void test_canonical(void)
{
	addresses();
	undefined();
}

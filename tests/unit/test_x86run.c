/*
 * tests/unit/test_x86run.c - guest programs that end in HLT with a known result: branches, string
 * instructions, the stack, self-modifying code, instructions across pages, all three code sizes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "x86/x86.h"

#define RAM_SIZE (8u << 20)
#define CODE     0x100000
#define DATA     0x200000
#define STACK    0x300000
#define TABLES   0x1000

static uint8_t *ram;
static struct x86_system *sys;
static struct x86_cpu *cpu;
static unsigned kicks; /* how often x86_run() came back early */

/* ---- the machine ------------------------------------------------------------------------------ */

static void *page(void *sys_ctx, uint64_t gpa, bool *writable)
{
	(void)sys_ctx;
	*writable = true;
	return gpa < RAM_SIZE ? ram + gpa : NULL;
}

static uint64_t mmio[16]; /* device memory at RAM_SIZE: eight-byte registers */

static uint64_t mmio_read(void *ctx, uint64_t gpa, unsigned size)
{
	uint64_t v = 0;

	(void)ctx;
	if (range_ok(gpa - RAM_SIZE, size, sizeof(mmio)))
		memcpy(&v, (uint8_t *)mmio + (gpa - RAM_SIZE), size);
	return v;
}

static void mmio_write(void *ctx, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)ctx;
	if (range_ok(gpa - RAM_SIZE, size, sizeof(mmio)))
		memcpy((uint8_t *)mmio + (gpa - RAM_SIZE), &v, size);
}

static int irq_take(void *ctx)
{
	(void)ctx;
	return -1;
}

static bool irq_ready(void *ctx)
{
	(void)ctx;
	return false;
}

static const struct x86_ops ops = {
	.page = page,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.irq_take = irq_take,
	.irq_ready = irq_ready,
};

static int setup(void **state)
{
	bool translate = *state, lockstep = *state == &cpu;
	struct err err;

	ram = aligned_alloc(4096, RAM_SIZE);
	sys = x86_system_new(&ops, NULL, NULL);
	if (!ram || !sys)
		return -1;
	if (translate)
		assert_int_equal(x86_system_translate(sys, 1 << 20, 1), 0);
	if (lockstep)
		assert_int_equal(x86_system_lockstep(sys), 0);
	memset(ram, 0, RAM_SIZE);
	memset(mmio, 0, sizeof(mmio));
	cpu = x86_cpu_new(sys, 0, NULL, NULL, 0, &err);
	return cpu ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	x86_cpu_free(cpu);
	x86_system_free(sys);
	free(ram);
	return 0;
}

/* ---- programs ------------------------------------------------------------------------------------ */

#define PROGRAM(name, code_size, body)                                                \
	extern const uint8_t name[], name##_end[];                                    \
	__asm__(".section .rodata\n.globl " #name ", " #name "_end\n.code" #code_size \
		"\n" #name ":\n" body "\n hlt\n" #name "_end:\n.code64\n.text\n")

static struct x86_regs r;

static void put64(uint64_t gpa, uint64_t v)
{
	memcpy(ram + gpa, &v, sizeof(v));
}

static uint64_t get64(uint64_t gpa)
{
	uint64_t v;

	memcpy(&v, ram + gpa, sizeof(v));
	return v;
}

static void flat_segments(uint16_t code_attr)
{
	for (unsigned s = 0; s < X86_LDTR; s++)
		r.seg[s] = (struct x86_seg){
			.sel = 16, .attr = 0xc093, .limit = 0xffffffff};
	r.seg[X86_CS] =
		(struct x86_seg){.sel = 8, .attr = code_attr, .limit = 0xffffffff};
}

/* Registers for a start at CODE; 64-bit with 16 MiB mapped one to one, 32-bit unpaged, or real. */
static void regs_for(unsigned bits)
{
	x86_cpu_reset(cpu);
	x86_get_regs(cpu, &r);
	memset(r.gpr, 0, sizeof(r.gpr));
	r.rip = CODE;
	r.rflags = 2;
	r.gpr[X86_RSI] = DATA;
	r.gpr[X86_RDI] = DATA + 0x10000;
	r.gpr[X86_RSP] = STACK;
	if (bits == 64) {
		put64(TABLES, (TABLES + 0x1000) | 3);
		put64(TABLES + 0x1000, (TABLES + 0x2000) | 3);
		for (unsigned k = 0; k < 8; k++)
			put64(TABLES + 0x2000 + 8 * k, ((uint64_t)k << 21) | 0x83);
		r.cr0 = 0x80000033;
		r.cr4 = 0x6a0;
		r.cr3 = TABLES;
		r.efer = 0x500;
		flat_segments(0xa09b);
	} else if (bits == 32) {
		r.cr0 = 0x33;
		flat_segments(0xc09b);
	} else {
		r.rip = 0;
		r.seg[X86_CS] = (struct x86_seg){
			.sel = 0x1000, .attr = 0x9b, .limit = 0xffff, .base = 0x10000};
		for (unsigned s = 0; s < X86_LDTR; s++) {
			if (s != X86_CS)
				r.seg[s] = (struct x86_seg){.sel = 0x2000,
							    .attr = 0x93,
							    .limit = 0xffff,
							    .base = 0x20000};
		}
		r.gpr[X86_RSI] = r.gpr[X86_RDI] = 0;
		r.gpr[X86_RSP] = 0x8000;
	}
}

/* Runs what is at the start address to HLT; the registers are then in `r`. */
static void run_there(void)
{
	enum x86_exit e;

	assert_int_equal(x86_set_regs(cpu, &r), 0);
	x86_memory_written(sys, 0, RAM_SIZE);
	do {
		e = x86_run(cpu);
		kicks += e == X86_EXIT_KICK;
	} while (e == X86_EXIT_KICK);
	assert_int_equal(e, X86_EXIT_HALT);
	x86_get_regs(cpu, &r);
}

static void run_at(uint64_t gpa, const uint8_t *from, const uint8_t *end)
{
	memcpy(ram + gpa, from, (size_t)(end - from));
	run_there();
}

#define RUN(bits, name)                                                \
	do {                                                           \
		regs_for(bits);                                        \
		run_at(bits == 16 ? 0x10000 : CODE, name, name##_end); \
	} while (0)

/* ---- branches -------------------------------------------------------------------------------------- */

PROGRAM(p_branches, 64,
	"  mov $10, %ecx\n"
	"  xor %eax, %eax\n"
	"1: add %rcx, %rax\n"
	"  loop 1b\n" /* 55 */
	"  jrcxz 2f\n"
	"  hlt\n"
	"2: call 3f\n"
	"  jmp 4f\n"
	"3: lea 1(%rax), %rax\n" /* 56 */
	"  ret\n"
	"4: lea 5f(%rip), %rdx\n"
	"  push %rdx\n"
	"  call *(%rsp)\n"
	"  jmp 6f\n"
	"5: add $2, %rax\n" /* 58 */
	"  ret $8\n"
	"6: cmp $58, %rax\n"
	"  setz %bl\n"
	"  cmovnz %rcx, %rax\n");

static void branches(void **state)
{
	(void)state;
	RUN(64, p_branches);
	assert_int_equal(r.gpr[X86_RAX], 58);
	assert_int_equal(r.gpr[X86_RBX], 1);
	assert_int_equal(r.gpr[X86_RSP], STACK);
}

/* The number of instructions is exact, whichever way a block is left. */
PROGRAM(p_count, 64,
	"  mov $1000, %ecx\n"
	"1: test $1, %cl\n"
	"  jz 2f\n"
	"  nop\n"
	"2: dec %ecx\n"
	"  jnz 1b\n");

static void counted(void **state)
{
	struct x86_stats a, b;

	(void)state;
	x86_get_stats(cpu, &a);
	RUN(64, p_count);
	x86_get_stats(cpu, &b);
	assert_int_equal(b.insns - a.insns, 1 + 1000 * 4 + 500 + 1);
}

/* ---- strings ------------------------------------------------------------------------------------------ */

PROGRAM(p_copy, 64,
	"  mov $20000, %ecx\n"
	"  rep movsb\n"
	"  mov $0x1122334455667788, %rax\n"
	"  lea 3(%rdi), %rdi\n"
	"  mov $1500, %ecx\n"
	"  rep stosq\n");

static void copy_and_fill(void **state)
{
	(void)state;
	for (unsigned k = 0; k < 20000; k++)
		ram[DATA + k] = (uint8_t)(k * 7 + (k >> 8));
	regs_for(64);
	r.gpr[X86_RSI] = DATA + 5;
	r.gpr[X86_RDI] = DATA + 0x10ff9;
	run_at(CODE, p_copy, p_copy_end);
	assert_memory_equal(ram + DATA + 0x10ff9, ram + DATA + 5, 20000);
	assert_int_equal(r.gpr[X86_RSI], DATA + 5 + 20000);
	assert_int_equal(r.gpr[X86_RDI], DATA + 0x10ff9 + 20000 + 3 + 12000);
	for (unsigned k = 0; k < 1500; k++)
		assert_int_equal(get64(DATA + 0x10ff9 + 20003 + 8 * k),
				 0x1122334455667788);
	assert_int_equal(r.gpr[X86_RCX], 0);
}

/* A destination just above the source repeats a pattern; downwards it moves. */
PROGRAM(p_overlap, 64,
	"  lea 3(%rsi), %rdi\n"
	"  mov $5000, %ecx\n"
	"  rep movsb\n"
	"  lea 0x8000(%rdi), %rdi\n"
	"  mov %rdi, %rsi\n"
	"  add $2, %rdi\n"
	"  mov $5000, %ecx\n"
	"  std\n"
	"  rep movsw\n"
	"  cld\n");

static void overlapping(void **state)
{
	uint8_t want[16384];
	uint64_t at = DATA + 3 + 5000 + 0x8000;

	(void)state;
	memcpy(ram + DATA, "abc", 3);
	for (unsigned k = 0; k < sizeof(want); k++)
		want[k] = ram[at - 10000 + k] = (uint8_t)(k ^ k >> 7);
	RUN(64, p_overlap);
	for (unsigned k = 0; k < 5003; k++)
		assert_int_equal(ram[DATA + k], "abc"[k % 3]);
	memmove(want + 10002 - 9998, want + 10000 - 9998, 10000);
	assert_memory_equal(ram + at - 10000, want, 10004);
}

PROGRAM(p_search, 64,
	"  xor %eax, %eax\n"
	"  mov %rsi, %rdi\n"
	"  mov $-1, %rcx\n"
	"  repne scasb\n" /* strlen: rcx = -2 - length */
	"  not %rcx\n"
	"  lea -1(%rcx), %rdx\n"
	"  lea 0x2000(%rsi), %rdi\n"
	"  mov %rdx, %rcx\n"
	"  repe cmpsb\n" /* the first difference */
	"  seta %bl\n"
	"  mov %rcx, %r8\n");

static void searching(void **state)
{
	(void)state;
	memset(ram + DATA, 'x', 5000);
	ram[DATA + 5000] = 0;
	memset(ram + DATA + 0x2000, 'x', 5000);
	ram[DATA + 0x2000 + 4321] = 'b';
	RUN(64, p_search);
	assert_int_equal(r.gpr[X86_RDX], 5000);
	assert_int_equal(r.gpr[8], 5000 - 4322);
	assert_int_equal(r.gpr[X86_RBX], 1);
	assert_int_equal(r.gpr[X86_RSI], DATA + 4322);
}

/* ---- code that changes ---------------------------------------------------------------------------------- */

/* Writes the immediate of the instruction behind the store, in the same block. */
PROGRAM(p_patch, 64,
	"  mov $50, %ecx\n"
	"1: mov %ecx, 2f+1(%rip)\n"
	"2: mov $0, %edx\n"
	"  add %rdx, %rax\n"
	"  dec %ecx\n"
	"  jnz 1b\n");

static void self_modifying(void **state)
{
	(void)state;
	RUN(64, p_patch);
	assert_int_equal(r.gpr[X86_RAX], 50 * 51 / 2);
}

/* An instruction across two pages, of which the second is written each round. */
PROGRAM(p_cross, 64,
	"  mov $20, %ecx\n"
	"1: call 3f\n"
	"  add %rdx, %rax\n"
	"  incl 3f+3(%rip)\n"
	"  dec %ecx\n"
	"  jnz 1b\n"
	"  jmp 4f\n"
	"  .fill 4096 - 3 - (. - p_cross), 1, 0x90\n"
	"3: mov $0x01000000, %edx\n"
	"  ret\n"
	"4: nop\n");

static void across_pages(void **state)
{
	(void)state;
	RUN(64, p_cross);
	/* bytes 2.. of the immediate count up: 0x01000000 + k * 0x10000 */
	assert_int_equal(r.gpr[X86_RAX],
			 20 * 0x01000000ull + 0x10000ull * (19 * 20 / 2));
}

/* What a device writes is seen without any instruction of the guest. */
PROGRAM(p_one, 64, "  mov $1, %eax\n");
PROGRAM(p_two, 64, "  mov $2, %eax\n");

static void written_from_outside(void **state)
{
	(void)state;
	RUN(64, p_one);
	assert_int_equal(r.gpr[X86_RAX], 1);
	regs_for(64);
	memcpy(ram + CODE, p_two, (size_t)(p_two_end - p_two));
	x86_memory_written(sys, CODE + 1, 1);
	run_there();
	assert_int_equal(r.gpr[X86_RAX], 2);
}

/* ---- locked and unaligned accesses ---------------------------------------------------------------------- */

PROGRAM(p_locked, 64,
	"  mov $100, %ecx\n"
	"1: lock addl $3, 4094(%rsi)\n" /* across pages */
	"  lock incq 8(%rsi)\n"
	"  dec %ecx\n"
	"  jnz 1b\n"
	"  mov $5, %edx\n"
	"  lock xadd %edx, 4094(%rsi)\n"
	"  mov $305, %eax\n"
	"  mov $7, %ebx\n"
	"  lock cmpxchg %ebx, 4094(%rsi)\n"
	"  setz %r8b\n"
	"  xchg %ebx, 4094(%rsi)\n"
	"  mov 4094(%rsi), %r9d\n"
	"  mov $0x800000, %r10d\n" /* device memory */
	"  movq $40, (%r10)\n"
	"  lock addq $2, (%r10)\n"
	"  btsq $63, (%r10)\n");

static void locked(void **state)
{
	(void)state;
	regs_for(64);
	run_at(CODE, p_locked, p_locked_end);
	assert_int_equal(r.gpr[X86_RDX], 300);
	assert_int_equal(r.gpr[8], 1);
	assert_int_equal(r.gpr[X86_RBX], 7);
	assert_int_equal(r.gpr[9], 7);
	assert_int_equal(get64(DATA + 8), 100);
	assert_int_equal(mmio[0], 42 | 1ull << 63);
}

/* ---- 32- and 16-bit code ----------------------------------------------------------------------------------- */

PROGRAM(p_32, 32,
	"  mov $0x12345678, %eax\n"
	"  mov $0xdeadbeef, %ebx\n"
	"  pusha\n"
	"  xor %eax, %eax\n"
	"  xor %ebx, %ebx\n"
	"  popa\n"
	"  enter $16, $2\n"
	"  mov %ebp, %edx\n"
	"  leave\n"
	"  push $0x00990007\n"
	"  popw %cx\n" /* low half */
	"  addl $2, %esp\n"
	"  call 1f\n"
	"  jmp 2f\n"
	"1: bswap %eax\n"
	"  ret\n"
	"2: movb $0x15, %al\n"
	"  addb $0x27, %al\n"
	"  daa\n" /* 42 */
	"  movw $3, %cx\n"
	"3: inc %ebx\n"
	"  addr16 loop 3b\n");

static void code32(void **state)
{
	(void)state;
	RUN(32, p_32);
	assert_int_equal(r.gpr[X86_RAX], 0x78563442);
	assert_int_equal(r.gpr[X86_RBX], 0xdeadbef2);
	assert_int_equal(r.gpr[X86_RDX], STACK - 4);
	assert_int_equal(r.gpr[X86_RSP], STACK);
}

PROGRAM(p_16, 16,
	"  movw $0x1234, %ax\n"
	"  movw %ax, (0x100)\n"
	"  movw $0xf0, %bx\n"
	"  movw $0x10, %si\n"
	"  movw (%bx,%si), %dx\n"
	"  call 1f\n"
	"  jmp 2f\n"
	"1: movl $0xaabbccdd, %ecx\n"
	"  ret\n"
	"2: movw $0xffff, %di\n"
	"  movb $0x77, 2(%di)\n" /* wraps to 1 */
	"  movb (1), %ah\n"
	"  pushl %ecx\n"
	"  popw %bx\n"
	"  popw %si\n");

static void code16(void **state)
{
	(void)state;
	RUN(16, p_16);
	assert_int_equal(r.gpr[X86_RDX], 0x1234);
	assert_int_equal(r.gpr[X86_RCX], 0xaabbccdd);
	assert_int_equal(r.gpr[X86_RAX], 0x7734);
	assert_int_equal(r.gpr[X86_RBX], 0xccdd);
	assert_int_equal(r.gpr[X86_RSI], 0xaabb);
	assert_int_equal(r.gpr[X86_RSP], 0x8000);
}

/* ---- tail calls -------------------------------------------------------------------------------- */

/* Handlers of all kinds, a million times: the host's stack must not grow from block to block. */
PROGRAM(p_long, 64,
	"  mov $1000000, %ecx\n"
	"1: lock xadd %rax, (%rsi)\n"
	"  xchg %rbx, 8(%rsi)\n"
	"  lock cmpxchg %rbx, 8(%rsi)\n"
	"  shll $3, 16(%rsi)\n"
	"  rolb %cl, 17(%rsi)\n"
	"  shld $3, %eax, 24(%rsi)\n"
	"  lock incl 32(%rsi)\n"
	"  btsl %ecx, 64(%rsi)\n"
	"  bt $3, %ecx\n"
	"  setc 40(%rsi)\n"
	"  cmovz 8(%rsi), %rax\n"
	"  imul $3, 8(%rsi), %r8\n"
	"  mul %r8\n"
	"  or $1, %ebx\n"
	"  xor %edx, %edx\n"
	"  div %rbx\n"
	"  movbe 16(%rsi), %eax\n"
	"  rdrand %r9\n"
	"  popcnt %r8, %r9\n"
	"  lodsb\n"
	"  dec %rsi\n"
	"  push 8(%rsi)\n"
	"  pop 48(%rsi)\n"
	"  lahf\n"
	"  cld\n"
	"  jmp 2f\n"
	"2: call 3f\n"
	"  dec %ecx\n"
	"  jnz 1b\n"
	"  jmp 4f\n"
	"3: ret\n"
	"4: nop\n");

static void long_run(void **state)
{
	(void)state;
	RUN(64, p_long);
	assert_int_equal(r.gpr[X86_RCX], 0);
	assert_int_equal(r.gpr[X86_RSP], STACK);
}

/* ---- many blocks ---------------------------------------------------------------------------------------------- */

/* More code than the cache holds: all is forgotten in between, and nothing goes wrong. */
static void full_cache(void **state)
{
	uint8_t *p = ram + 0x400000;
	const unsigned n = 300000;

	(void)state;
	for (unsigned k = 0; k < n; k++) { /* inc rax; jmp +0 */
		memcpy(p, "\x48\xff\xc0\xeb\x00", 5);
		p += 5;
	}
	*p = 0xf4;
	for (unsigned round = 0; round < 2; round++) {
		regs_for(64);
		r.rip = 0x400000;
		run_there();
		assert_int_equal(r.gpr[X86_RAX], n);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TRANSLATED(f)                                       \
	{                                                   \
		"translated: " #f, f, setup, teardown, &sys \
	}
#define LOCKSTEP(f)                                       \
	{                                                 \
		"lockstep: " #f, f, setup, teardown, &cpu \
	}
#define BOTH(f) TEST(f), TRANSLATED(f), LOCKSTEP(f)
	const struct CMUnitTest tests[] = {
		BOTH(branches),      TEST(counted),
		BOTH(copy_and_fill), BOTH(overlapping),
		BOTH(searching),     BOTH(self_modifying),
		BOTH(across_pages),  BOTH(written_from_outside),
		BOTH(locked),        BOTH(code32),
		BOTH(code16),        BOTH(full_cache),
		BOTH(long_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

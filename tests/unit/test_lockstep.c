/*
 * tests/unit/test_lockstep.c - lockstep finds translations that are wrong: bytes of their host code are
 * changed, and what the log says of it is looked at.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

#include "x86_guest.h"

#include "x86/jit/jit_int.h"

#define CODE   0x100000
#define DATA   0x200000
#define STACK  0x300000
#define TABLES 0x1000

/* A number that is in a program's code once, and so in its translation. */
#define MARK "0x11223344"

static struct guest g;
static char text[1 << 16]; /* the log */

/* ---- the machine ------------------------------------------------------------------------------ */

static void emit(void *ctx, enum log_level level, const char *msg)
{
	size_t n = strlen(text);

	(void)ctx;
	(void)level;
	snprintf(text + n, sizeof(text) - n, "%s\n", msg);
}

static const struct log logger = {.emit = emit, .level = LOG_ERROR};

static void machine_new(bool lockstep)
{
	struct x86_cpuid leaf[128];
	size_t n = x86_cpuid_supported(leaf, 128);
	struct err err = {0};

	guest_new(&g);
	x86_cpu_free(g.cpu);
	x86_system_free(g.sys);
	g.sys = x86_system_new(&g.ops, &g, &logger);
	assert_non_null(g.sys);
	assert_int_equal(x86_system_lockstep(g.sys), -EINVAL);
	assert_int_equal(x86_system_translate(g.sys, 1 << 20, 1), 0);
	if (lockstep)
		assert_int_equal(x86_system_lockstep(g.sys), 0);
	g.cpu = x86_cpu_new(g.sys, 0, &g, leaf, n, &err);
	assert_non_null(g.cpu);
	assert_int_equal(x86_system_lockstep(g.sys), -EBUSY);
	text[0] = 0;
}

static int setup(void **state)
{
	(void)state;
	machine_new(true);
	return 0;
}

static int setup_alone(void **state)
{
	(void)state;
	machine_new(false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	guest_free(&g);
	return 0;
}

static void put64(uint64_t gpa, uint64_t v)
{
	memcpy(g.ram + gpa, &v, sizeof(v));
}

/* 64-bit code with 8 MiB mapped one to one. IDT: vector n's handler is HLT at 0x6000 + n. */
static void start(void)
{
	struct x86_regs r;

	put64(TABLES, (TABLES + 0x1000) | 3);
	put64(TABLES + 0x1000, (TABLES + 0x2000) | 3);
	for (unsigned k = 0; k < 4; k++)
		put64(TABLES + 0x2000 + 8 * k, ((uint64_t)k << 21) | 0x83);
	put64(0x5008, 0x00af9b000000ffff);
	for (unsigned v = 0; v < 32; v++) {
		put64(0x4000 + 16 * v, (0x6000 + v) | 8 << 16 | 0x8eull << 40);
		g.ram[0x6000 + v] = 0xf4;
	}
	x86_cpu_reset(g.cpu);
	x86_get_regs(g.cpu, &r);
	memset(r.gpr, 0, sizeof(r.gpr));
	for (unsigned s = 0; s < X86_LDTR; s++)
		r.seg[s] = (struct x86_seg){
			.sel = 16, .attr = 0xc093, .limit = 0xffffffff};
	r.seg[X86_CS] = (struct x86_seg){.sel = 8, .attr = 0xa09b, .limit = 0xffffffff};
	r.gdtr = (struct x86_dtable){0x5000, 0x17};
	r.idtr = (struct x86_dtable){0x4000, 0x1ff};
	r.rip = CODE;
	r.rflags = 2;
	r.gpr[X86_RBX] = DATA;
	r.gpr[X86_RSP] = STACK;
	r.cr0 = 0x80010033;
	r.cr4 = 0x6a0;
	r.cr3 = TABLES;
	r.efer = 0x500;
	assert_int_equal(x86_set_regs(g.cpu, &r), 0);
}

static enum x86_exit run(void)
{
	enum x86_exit e;

	start();
	do
		e = x86_run(g.cpu);
	while (e == X86_EXIT_KICK);
	return e;
}

#define PROGRAM(name, body)                                              \
	extern const uint8_t name[], name##_end[];                       \
	__asm__(".section .rodata\n.balign 64\n.globl " #name ", " #name \
		"_end\n" #name ":\n" body "\n hlt\n" #name "_end:\n.text\n")
#define LOAD(name) memcpy(g.ram + CODE, name, (size_t)(name##_end - name))

/* Adds `by` to the mark in the translations; how many there were. */
static unsigned damage(uint32_t by)
{
	static const uint8_t mark[4] = {0x44, 0x33, 0x22, 0x11};
	const struct x86_cpu *c = g.cpu;
	struct jit *j = c->jit;
	unsigned n = 0;

	for (size_t at = j->fixed; at + 4 <= j->used; at++) {
		uint32_t v;

		if (memcmp(j->rw + at, mark, 4) != 0)
			continue;
		memcpy(&v, mark, 4);
		v += by;
		memcpy(j->rw + at, &v, 4);
		n++;
	}
	return n;
}

/* Right as it is, and wrong when the mark is changed by `by`. */
static void breaks(uint32_t by)
{
	assert_int_equal(run(), X86_EXIT_HALT);
	assert_string_equal(text, "");
	assert_int_equal(damage(by), 1);
	assert_int_equal(run(), X86_EXIT_DIFFERENCE);
	assert_int_equal(x86_run(g.cpu), X86_EXIT_DIFFERENCE);
}

static void told(const char *what)
{
	if (!strstr(text, what))
		fail_msg("no '%s' in:\n%s", what, text);
}

/* ---- tests --------------------------------------------------------------------------------------- */

PROGRAM(reg, "mov $5, %ecx\n add $" MARK ", %eax");

static void a_register(void **state)
{
	struct x86_regs r;

	(void)state;
	LOAD(reg);
	breaks(1);
	told("the block at 0x100000 differs");
	told("  100000: b905000000");
	told("* rax    0000000000000000  0000000011223344  0000000011223345");
	told("  rcx    0000000000000000  0000000000000005  0000000000000005");
	x86_get_regs(g.cpu, &r); /* the interpreter's result stands */
	assert_int_equal(r.gpr[X86_RAX], 0x11223344);
}

PROGRAM(store, "movl $1, 64(%rbx)\n movl $" MARK ", 8(%rbx)");

static void memory(void **state)
{
	(void)state;
	LOAD(store);
	breaks(0x100);
	told("* memory 200008: 0000000011223344  0000000011223344  0000000011223444");
	assert_memory_equal(g.ram + DATA + 8, "\x44\x33\x22\x11", 4);
}

PROGRAM(elsewhere, "mov $7, %ecx\n add $" MARK " - 0x11000000, %rbx\n"
		   "mov %ecx, -0x223344(%rbx)\n lea " MARK "(%rax), %rax\n"
		   "mov %ecx, 4096 - " MARK "(%rax,%rbx)");

/* The translation writes where the interpreter did not. */
static void wild(void **state)
{
	(void)state;
	LOAD(elsewhere);
	breaks(0x1000);
	told("* memory");
}

PROGRAM(fault,
	"mov $" MARK " - 0x11000000, %eax\n mov " MARK " - 0x11223344(%rbx), %ecx\n"
	"lea " MARK "(%rbx), %rdx\n mov -" MARK "(%rdx), %ecx");

static void an_exception(void **state)
{
	(void)state;
	LOAD(fault);
	breaks(0x40000000);
	told("* interpreter: no exception; translation: exception 14, code 0x0, cr2 "
	     "0x40200000");
}

PROGRAM(flags, "mov $" MARK " - 0x10000000, %eax\n add $0x10000000, %eax\n"
	       "mov $1, %edx\n cmp $" MARK ", %eax\n jmp 1f\n .balign 64\n"
	       "1: jne 2f\n mov $3, %edx\n 2:");

/* Flags are not compared, but what comes of them. */
static void flags_of_the_block_before(void **state)
{
	(void)state;
	LOAD(flags);
	breaks(1);
	told("the block at 0x100040 differs");
	told("as that of the block before, at 0x100000, left it");
}

PROGRAM(dead, "cmp $" MARK ", %eax\n jmp 1f\n .balign 64\n 1: xor %ecx, %ecx");

static void dead_flags(void **state)
{
	(void)state;
	LOAD(dead);
	assert_int_equal(run(), X86_EXIT_HALT);
	damage(1);
	assert_int_equal(run(), X86_EXIT_HALT);
	assert_string_equal(text, "");
}

PROGRAM(device, "mov $0x80, %dx\n in %dx, %eax\n out %al, $0xe9\n rdtsc\n rdrand %eax\n"
		"mov $" MARK ", %ecx");

/* What cannot be repeated is done once. */
static void once(void **state)
{
	struct x86_stats st;

	(void)state;
	LOAD(device);
	assert_int_equal(run(), X86_EXIT_HALT);
	assert_int_equal(g.n_text, 1);
	x86_get_stats(g.cpu, &st);
	assert_true(st.unique > 0);
	assert_string_equal(text, "");
}

PROGRAM(many, "fninit\n 1: mov %rsp, %rdi\n sub $0x20000, %rdi\n mov $0x1000, %ecx\n "
	      "rep stosb\n"
	      "push %rax\n incq (%rbx)\n lock addl $3, 8(%rbx)\n movb $0x90, 3f(%rip)\n"
	      "pop %rdx\n movdqu %xmm1, 4090(%rbx)\n fildl (%rbx)\n fistpl 16(%rbx)\n"
	      "3: nop\n cmpq $1000, (%rbx)\n jb 1b\n ud2");

/* Stores of all kinds, code that writes to itself, an exception: nothing differs. */
static void agreement(void **state)
{
	struct x86_stats st;
	struct x86_regs r;
	uint32_t n;

	(void)state;
	LOAD(many);
	assert_int_equal(run(), X86_EXIT_HALT);
	assert_string_equal(text, "");
	x86_get_regs(g.cpu, &r);
	assert_int_equal(r.rip, 0x6000 + 6 + 1); /* #UD's handler */
	memcpy(&n, g.ram + DATA + 8, 4);
	assert_int_equal(n, 3000);
	x86_get_stats(g.cpu, &st);
	assert_true(st.compared > 2000);
}

PROGRAM(counts,
	"mov $10000, %r12d\n 1: addl $1, (%rbx)\n call 2f\n addl $1, 4(%rbx)\n"
	"lea 64(%rbx), %rsi\n lea 128(%rbx), %rdi\n mov $8, %ecx\n rep movsq\n"
	"mov $40, %ecx\n mov $1, %eax\n lea 512(%rbx), %rdi\n rep stosb\n"
	"incq 16(%rbx)\n pushf\n pop %rax\n cli\n addl $1, 32(%rbx)\n"
	"lock incq 24(%rbx)\n xadd %rdx, 40(%rbx)\n push %rax\n popf\n sub $1, %r12d\n"
	"jnz 1b\n jmp 3f\n 2: addl $1, 8(%rbx)\n addl $1, 12(%rbx)\n ret\n 3:");

static _Atomic bool stop;

static void *notifier(void *arg)
{
	(void)arg;
	while (!stop)
		x86_irq_notify(g.cpu);
	return NULL;
}

/* Requests of others come at every moment, and nothing is done twice or not at all. */
static void interrupted(void **state)
{
	uint32_t n[8];
	pthread_t t;

	(void)state;
	LOAD(counts);
	stop = false;
	assert_int_equal(pthread_create(&t, NULL, notifier, NULL), 0);
	assert_int_equal(run(), X86_EXIT_HALT);
	stop = true;
	pthread_join(t, NULL);
	assert_string_equal(text, "");
	memcpy(n, g.ram + DATA, sizeof(n));
	for (unsigned k = 0; k < 4; k++)
		assert_int_equal(n[k], 10000);
	assert_int_equal(n[4], 10000);
	assert_int_equal(n[6], 10000);
	memcpy(n, g.ram + DATA + 32, 4);
	assert_int_equal(n[0], 10000);
}

PROGRAM(rights, "mov $0x400000, %ebx\n mov $100, %ecx\n"
		"1: mov (%rbx), %eax\n add %eax, %edx\n dec %ecx\n jnz 1b\n"
		"out %al, $0xf4\n mov $100, %ecx\n jmp 2f\n"
		"2: mov %eax, (%rbx)\n dec %ecx\n jnz 2b");

/* What a loop's access knew of its page is not what the next one at its place knows. */
static void flushed(void **state)
{
	struct x86_regs r;

	(void)state;
	LOAD(rights);
	start();
	put64(TABLES + 0x2000 + 8 * 2, (2 << 21) | 0x81); /* read only */
	while (!g.ended)
		assert_int_equal(x86_run(g.cpu), X86_EXIT_KICK);
	jit_flush(g.cpu->jit);
	assert_int_equal(guest_run(&g), X86_EXIT_HALT);
	assert_string_equal(text, "");
	x86_get_regs(g.cpu, &r);
	assert_int_equal(r.rip, 0x6000 + 14 + 1);
}

/* mov $1, %eax lies across the end of the page; its third byte becomes 1, then another page's 2. */
PROGRAM(crossing,
	"mov $50, %ecx\n"
	"1: call crossing + 0xffd\n add %rax, %rdx\n dec %ecx\n jnz 1b\n"
	"movb $1, 0x101000\n mov $50, %ecx\n"
	"2: call crossing + 0xffd\n add %rax, %rdx\n dec %ecx\n jnz 2b\n"
	"movq $0x202003, 0x8000 + 8 * 0x101\n invlpg 0x101000\n mov $50, %ecx\n"
	"3: call crossing + 0xffd\n add %rax, %rdx\n dec %ecx\n jnz 3b");

static void across_pages(void **state)
{
	static const uint8_t insn[] = {0xb8, 1, 0, 0, 0, 0xc3};
	struct x86_regs r;

	(void)state;
	LOAD(crossing);
	memcpy(g.ram + 0x100ffd, insn, 6);
	memcpy(g.ram + 0x202000, insn + 3, 3);
	g.ram[0x202000] = 2;
	start();
	for (unsigned k = 0; k < 512; k++)
		put64(0x8000 + 8 * k, ((uint64_t)k << 12) | 3);
	put64(TABLES + 0x2000, 0x8003);
	assert_int_equal(guest_run(&g), X86_EXIT_HALT);
	assert_string_equal(text, "");
	x86_get_regs(g.cpu, &r);
	assert_int_equal(r.gpr[X86_RDX], 50 * (3 + 0x30000));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_register),
		TEST(memory),
		TEST(wild),
		TEST(an_exception),
		TEST(flags_of_the_block_before),
		TEST(interrupted),
		TEST(across_pages),
		cmocka_unit_test_setup_teardown(across_pages, setup_alone, teardown),
		cmocka_unit_test_setup_teardown(flushed, setup_alone, teardown),
		TEST(dead_flags),
		TEST(once),
		TEST(agreement),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

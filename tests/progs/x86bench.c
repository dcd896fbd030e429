/*
 * tests/progs/x86bench.c - how fast lib/x86 interprets: small 64-bit guest loops in a flat paged
 * guest, million instructions per second each. Usage: x86bench [SECONDS-PER-LOOP [NAME]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "x86/x86.h"

#define RAM_SIZE (16u << 20)
#define CODE     0x100000
#define DATA     0x200000
#define STACK    0x400000
#define TABLES   0x1000

static uint8_t *ram;

/*
 * The guest's loops: rcx = rounds, rsi = data, all end with HLT. Position-independent.
 */
#define LOOP(name, body)                                           \
	extern const uint8_t guest_##name[], guest_##name##_end[]; \
	__asm__(".section .rodata\n"                               \
		".globl guest_" #name ", guest_" #name "_end\n"    \
		"guest_" #name ":\n" body "\n hlt\n"               \
		"guest_" #name "_end:\n"                           \
		".text\n")

LOOP(alu, "1: add %rax, %rbx\n"
	  "   xor %rbx, %rdx\n"
	  "   lea 3(%rax,%rdx,2), %rax\n"
	  "   sub $7, %rbx\n"
	  "   shl $3, %rdx\n"
	  "   and $0xffff, %edx\n"
	  "   mov %rdx, %r8\n"
	  "   or %r8, %r9\n"
	  "   dec %rcx\n"
	  "   jnz 1b\n");

LOOP(memory, "1: mov (%rsi), %rax\n"
	     "   add 8(%rsi), %rax\n"
	     "   mov %rax, 16(%rsi)\n"
	     "   movzbl 5(%rsi), %edx\n"
	     "   mov %dl, 32(%rsi,%rdx)\n"
	     "   add %rdx, 24(%rsi)\n"
	     "   mov 40(%rsi,%rdx,2), %ebx\n"
	     "   dec %rcx\n"
	     "   jnz 1b\n");

LOOP(calls, "   jmp 1f\n"
	    "2: push %rbx\n"
	    "   mov %rdi, %rbx\n"
	    "   lea 1(%rbx), %rax\n"
	    "   pop %rbx\n"
	    "   ret\n"
	    "1: mov %rax, %rdi\n"
	    "   call 2b\n"
	    "   dec %rcx\n"
	    "   jnz 1b\n");

LOOP(branches, "1: imul $1103515245, %eax, %eax\n"
	       "   add $12345, %eax\n"
	       "   test $0x10000, %eax\n"
	       "   jz 2f\n"
	       "   inc %rbx\n"
	       "2: cmp $0x40000000, %eax\n"
	       "   jl 3f\n"
	       "   inc %rdx\n"
	       "3: test $0x20000, %eax\n"
	       "   jnz 4f\n"
	       "   dec %rdx\n"
	       "4: dec %rcx\n"
	       "   jnz 1b\n");

/* One row of a schoolbook multiplication, as in big-number arithmetic. */
LOOP(bignum, "1: xor %r8d, %r8d\n"
	     "   xor %r9d, %r9d\n"
	     "   mov $0x123456789abcdef, %rbx\n"
	     "2: mov (%rsi,%r8,8), %rax\n"
	     "   mul %rbx\n"
	     "   add %r9, %rax\n"
	     "   adc $0, %rdx\n"
	     "   add %rax, 1024(%rsi,%r8,8)\n"
	     "   adc $0, %rdx\n"
	     "   mov %rdx, %r9\n"
	     "   inc %r8\n"
	     "   cmp $64, %r8\n"
	     "   jne 2b\n"
	     "   dec %rcx\n"
	     "   jnz 1b\n");

LOOP(sort, "1: lea 2048(%rsi), %rdi\n"
	   "2: mov (%rdi), %eax\n"
	   "   mov -4(%rdi), %edx\n"
	   "   cmp %edx, %eax\n"
	   "   jae 3f\n"
	   "   mov %eax, -4(%rdi)\n"
	   "   mov %edx, (%rdi)\n"
	   "3: sub $4, %rdi\n"
	   "   cmp %rsi, %rdi\n"
	   "   ja 2b\n"
	   "   lea (%rsi,%rcx,8), %rdi\n"
	   "   and $0x7fc, %edi\n"
	   "   mov %ecx, (%rsi,%rdi)\n"
	   "   dec %rcx\n"
	   "   jnz 1b\n");

/* Scalar and packed floating point, integer vectors. */
LOOP(sse, "1: movsd (%rsi), %xmm0\n"
	  "   mulsd 8(%rsi), %xmm0\n"
	  "   addsd %xmm0, %xmm1\n"
	  "   movsd %xmm1, 16(%rsi)\n"
	  "   movdqa 32(%rsi), %xmm2\n"
	  "   paddd 48(%rsi), %xmm2\n"
	  "   pshufd $0x4e, %xmm2, %xmm3\n"
	  "   pxor %xmm3, %xmm4\n"
	  "   movdqu %xmm4, 65(%rsi)\n"
	  "   dec %rcx\n"
	  "   jnz 1b\n");

LOOP(avx, "1: vmovups (%rsi), %ymm0\n"
	  "   vmulps 32(%rsi), %ymm0, %ymm1\n"
	  "   vfmadd231ps %ymm0, %ymm1, %ymm2\n"
	  "   vaddpd %ymm1, %ymm2, %ymm3\n"
	  "   vpaddd 64(%rsi), %ymm4, %ymm4\n"
	  "   vpermd %ymm4, %ymm0, %ymm5\n"
	  "   vmovups %ymm5, 97(%rsi)\n"
	  "   dec %rcx\n"
	  "   jnz 1b\n");

LOOP(x87, "   fninit\n"
	  "1: fldl (%rsi)\n"
	  "   fmull 8(%rsi)\n"
	  "   fldpi\n"
	  "   faddp\n"
	  "   fld %st(0)\n"
	  "   fsqrt\n"
	  "   fxch\n"
	  "   fstpl 16(%rsi)\n"
	  "   fstpt 32(%rsi)\n"
	  "   dec %rcx\n"
	  "   jnz 1b\n");

LOOP(mmx, "1: movq (%rsi), %mm0\n"
	  "   paddw 8(%rsi), %mm0\n"
	  "   pmullw %mm0, %mm1\n"
	  "   movq %mm1, 16(%rsi)\n"
	  "   dec %rcx\n"
	  "   jnz 1b\n");

static const struct {
	const char *name;
	const uint8_t *code, *end;
} loops[] = {
	{"alu", guest_alu, guest_alu_end},
	{"memory", guest_memory, guest_memory_end},
	{"calls", guest_calls, guest_calls_end},
	{"branches", guest_branches, guest_branches_end},
	{"bignum", guest_bignum, guest_bignum_end},
	{"sort", guest_sort, guest_sort_end},
	{"sse", guest_sse, guest_sse_end},
	{"avx", guest_avx, guest_avx_end},
	{"x87", guest_x87, guest_x87_end},
	{"mmx", guest_mmx, guest_mmx_end},
};

/* ---- the machine: memory and nothing else --------------------------------------------------------- */

static void *page(void *sys_ctx, uint64_t gpa, bool *writable)
{
	(void)sys_ctx;
	*writable = true;
	return gpa < RAM_SIZE ? ram + gpa : NULL;
}

static uint64_t mmio_read(void *ctx, uint64_t gpa, unsigned size)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	return 0;
}

static void mmio_write(void *ctx, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	(void)v;
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

static void put64(uint64_t gpa, uint64_t v)
{
	memcpy(ram + gpa, &v, sizeof(v));
}

/* 64-bit mode at CODE, the first 16 MiB mapped one to one. */
static int start(struct x86_cpu *c, uint64_t rounds)
{
	static struct x86_regs r;

	put64(TABLES, (TABLES + 0x1000) | 3);
	put64(TABLES + 0x1000, (TABLES + 0x2000) | 3);
	for (unsigned k = 0; k < 8; k++)
		put64(TABLES + 0x2000 + 8 * k, ((uint64_t)k << 21) | 0x83);
	x86_cpu_reset(c);
	x86_get_regs(c, &r);
	r.cr0 = 0x80000033;
	r.cr4 = 0x406a0;
	r.xcr0 = 7;
	r.cr3 = TABLES;
	r.efer = 0x500;
	r.rip = CODE;
	r.rflags = 2;
	r.seg[X86_CS] = (struct x86_seg){.sel = 8, .attr = 0xa09b, .limit = 0xffffffff};
	for (unsigned s = 0; s < X86_LDTR; s++) {
		if (s != X86_CS)
			r.seg[s] = (struct x86_seg){
				.sel = 16, .attr = 0xc093, .limit = 0xffffffff};
	}
	memset(r.gpr, 0, sizeof(r.gpr));
	r.gpr[X86_RCX] = rounds;
	r.gpr[X86_RSI] = DATA;
	r.gpr[X86_RSP] = STACK;
	return x86_set_regs(c, &r);
}

/* Processor time, so that what else runs on the machine counts less. */
static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Runs `rounds` rounds; seconds, or < 0. */
static double run(struct x86_cpu *c, uint64_t rounds, uint64_t *insns)
{
	struct x86_stats a, b;
	enum x86_exit e;
	double t;

	if (start(c, rounds) < 0)
		return -1;
	x86_get_stats(c, &a);
	t = now();
	do
		e = x86_run(c);
	while (e == X86_EXIT_KICK);
	t = now() - t;
	x86_get_stats(c, &b);
	*insns = b.insns - a.insns;
	return e == X86_EXIT_HALT ? t : -1;
}

static int bench(struct x86_cpu *c, unsigned k, double seconds)
{
	uint64_t rounds = 1000, insns;
	double s;

	memset(ram + DATA, 0, 0x10000);
	memcpy(ram + CODE, loops[k].code, (size_t)(loops[k].end - loops[k].code));
	for (;;) {
		s = run(c, rounds, &insns);
		if (s < 0) {
			printf("%-10s failed\n", loops[k].name);
			return 1;
		}
		if (s >= seconds / 4)
			break;
		rounds *= 4;
	}
	printf("%-10s %7.1f million instructions/s\n", loops[k].name,
	       (double)insns / s / 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0.5;
	struct x86_system *sys;
	struct x86_cpuid leaves[256];
	struct x86_cpu *c;
	struct err err;
	int bad = 0;

	ram = aligned_alloc(4096, RAM_SIZE);
	sys = ram ? x86_system_new(&ops, NULL, NULL) : NULL;
	if (!sys)
		return 1;
	memset(ram, 0, RAM_SIZE);
	for (unsigned k = 0; k < ARRAY_LEN(loops); k++) {
		if (argc > 2 && strcmp(argv[2], loops[k].name))
			continue;
		/* a processor each: code is written behind its back */
		c = x86_cpu_new(sys, 0, NULL, leaves, x86_cpuid_supported(leaves, 256),
				&err);
		if (!c) {
			fprintf(stderr, "x86bench: %s\n", err.msg);
			return 1;
		}
		bad |= bench(c, k, seconds);
		x86_cpu_free(c);
	}
	x86_system_free(sys);
	free(ram);
	return bad;
}

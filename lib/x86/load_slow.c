/*
 * x86/load_slow.c - mem_load_slow() for inline assembly: keeps all registers but rax (op_tmpl.h).
 *
 * In: rdi = struct x86_cpu, rax = linear address. Out: rax = the value. The caller's stack need
 * not be aligned. An exception leaves through it by longjmp like through any function.
 */
#include "x86/x86_int.h"

#define THUNK(bits, bytes)                                 \
	__asm__(".text\n"                                  \
		".globl x86_load_slow" bits "\n"           \
		".type x86_load_slow" bits ", @function\n" \
		"x86_load_slow" bits ":\n"                 \
		"	push %rbp\n"                             \
		"	mov %rsp, %rbp\n"                        \
		"	push %rcx\n"                             \
		"	push %rdx\n"                             \
		"	push %rsi\n"                             \
		"	push %rdi\n"                             \
		"	push %r8\n"                              \
		"	push %r9\n"                              \
		"	push %r10\n"                             \
		"	push %r11\n"                             \
		"	and $-16, %rsp\n"                        \
		"	mov %rax, %rsi\n"                        \
		"	mov $" bytes ", %edx\n"            \
		"	call mem_load_slow\n"                    \
		"	lea -64(%rbp), %rsp\n"                   \
		"	pop %r11\n"                              \
		"	pop %r10\n"                              \
		"	pop %r9\n"                               \
		"	pop %r8\n"                               \
		"	pop %rdi\n"                              \
		"	pop %rsi\n"                              \
		"	pop %rdx\n"                              \
		"	pop %rcx\n"                              \
		"	pop %rbp\n"                              \
		"	ret\n"                                   \
		".size x86_load_slow" bits ", .-x86_load_slow" bits "\n")

THUNK("8", "1");
THUNK("16", "2");
THUNK("32", "4");
THUNK("64", "8");

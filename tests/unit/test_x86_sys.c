/* tests/unit/test_x86_sys.c - modes, faults and system state of the processor, by small guests. */
#include "x86_guest.h"

extern const uint8_t modes_start[], modes_end[];

/* From real mode through protected mode to 64-bit mode with paging, and back to a port. */
__asm__(".section .rodata\n"
	".code16\n"
	"modes_start:\n"
	"	.set M, modes_start - 0x8000\n"
	"	cli\n"
	"	lgdtl gdtr - M\n"
	"	mov %cr0, %eax\n"
	"	or $1, %al\n"
	"	mov %eax, %cr0\n"
	"	ljmpl $0x8, $(1f - M)\n"
	".code32\n"
	"1:	mov $0x10, %ax\n"
	"	mov %ax, %ds\n"
	"	mov %ax, %es\n"
	"	mov %ax, %ss\n"
	"	mov $0x90000, %esp\n"
	/* page tables at 0x100000: 1 GiB of 2 MiB pages */
	"	mov $0x101003, %eax\n"
	"	mov %eax, 0x100000\n"
	"	mov $0x102003, %eax\n"
	"	mov %eax, 0x101000\n"
	"	mov $0x102000, %edi\n"
	"	mov $0x83, %eax\n"
	"	mov $512, %ecx\n"
	"2:	mov %eax, (%edi)\n"
	"	add $8, %edi\n"
	"	add $0x200000, %eax\n"
	"	loop 2b\n"
	"	mov %cr4, %eax\n"
	"	or $0x20, %eax\n"
	"	mov %eax, %cr4\n"
	"	mov $0x100000, %eax\n"
	"	mov %eax, %cr3\n"
	"	mov $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	or $0x100, %eax\n"
	"	wrmsr\n"
	"	mov %cr0, %eax\n"
	"	or $0x80000000, %eax\n"
	"	mov %eax, %cr0\n"
	"	ljmp $0x18, $(3f - M)\n"
	".code64\n"
	"3:	mov $0x10, %eax\n"
	"	mov %eax, %ss\n"
	"	movabs $0x123456789abcdef0, %rbx\n"
	"	push %rbx\n"
	"	pop %rax\n"
	"	shr $32, %rax\n"
	"	out %eax, $0xf4\n"
	"	hlt\n"
	"	.balign 8\n"
	"gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff\n"
	"gdtr:	.word 31\n"
	"	.long gdt - M\n"
	"modes_end:\n"
	".previous\n"
	".code64\n");

static void modes_to_long(void **state)
{
	struct guest g;

	(void)state;
	guest_new(&g);
	guest_load(&g, 0x8000, modes_start, (size_t)(modes_end - modes_start));
	assert_int_equal(guest_run(&g), X86_EXIT_KICK);
	assert_int_equal(g.result, 0x12345678);
	guest_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes_to_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/guest/long/long.S - into 64-bit mode; traps, and the way back from them. */
	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.global _start
_start:
	cli
	cld
	mov %ebx, multiboot_info
	mov $trap_stack, %esp
	movl $pdpt + 7, pml4
	movl $dir + 7, pdpt
	mov $dir, %edi
	mov $0x87, %eax
	mov $512, %ecx
1:	mov %eax, (%edi)
	add $8, %edi
	add $0x200000, %eax
	loop 1b
	mov %cr4, %eax
	or $0x20, %eax
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x901, %eax			/* SCE LME NXE */
	wrmsr
	mov %cr0, %eax
	or $0x80010001, %eax		/* PG WP PE */
	mov %eax, %cr0
	lgdt boot_gdtr
	ljmp $0x08, $2f
	.code64
2:	xor %eax, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %fs
	mov %eax, %gs
	mov $0x10, %eax
	mov %eax, %ss
	mov $stack_top, %rsp
	mov $0xff, %al
	out %al, $0x21
	out %al, $0xa1
	call main
	out %eax, $0xf4
3:	hlt
	jmp 3b

	.altmacro
	.macro trap_entry n
	.balign 16
	.if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17
	.else
	push $0
	.endif
	push $\n
	jmp record
	.endm

	.balign 16
	.global trap_entries
trap_entries:
	.set n, 0
	.rept 256
	trap_entry %n
	.set n, n + 1
	.endr

record:
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	and $-16, %rsp
	call trap_entry

/* u64 catch(void (*fn)(void)) */
	.global catch
catch:
	push %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	pushf
	mov %rsp, catch_rsp
	call *%rdi
	mov $0x100, %eax
	jmp 4f
	.global catch_resume
catch_resume:
	mov $0x10, %eax
	mov %eax, %ss
	mov catch_rsp, %rsp
	mov trap + 120, %rax		/* vec */
4:	movq $0, catch_rsp
	popf
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	ret

/* void to_user(u64 rip, u64 rflags) */
	.global to_user
to_user:
	push $0x23
	push $user_stack + 4096
	push %rsi
	push $0x2b
	push %rdi
	iretq

	.data
	.balign 8
	.global catch_rsp
catch_rsp:
	.quad 0
boot_gdtr:
	.word 0xff
	.quad gdt
	.global idtr
idtr:	.word 0xfff
	.quad idt

	.global gdt
	.balign 16
gdt:	.quad 0
	.quad 0x00af9b000000ffff	/* 08 code64, 0 */
	.quad 0x00cf93000000ffff	/* 10 data, 0 */
	.quad 0x00cffb000000ffff	/* 18 code32, 3 */
	.quad 0x00cff3000000ffff	/* 20 data, 3 */
	.quad 0x00affb000000ffff	/* 28 code64, 3 */
	.quad 0x00cf9b000000ffff	/* 30 code32, 0 */
	.fill 25, 8, 0

	.bss
	.balign 4096
	.global pml4, pdpt, dir
pml4:	.skip 4096
pdpt:	.skip 4096
dir:	.skip 4096
	.skip 16384
stack_top:

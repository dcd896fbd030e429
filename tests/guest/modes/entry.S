/* tests/guest/modes/entry.S - the start, traps, and the way back from them. 32-bit protected mode. */
	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.global _start
_start:
	cli
	cld
	mov %ebx, multiboot_info
	mov $stack_top, %esp
	call setup_gdt
	lgdt gdtr
	ljmp $0x08, $1f
1:	mov $0x10, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	lidt idtr
	mov $0xff, %al			/* no interrupts of devices */
	out %al, $0x21
	out %al, $0xa1
	call main
	out %eax, $0xf4
2:	hlt
	jmp 2b

	.altmacro
/* ---- traps -------------------------------------------------------------------------------- */

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
	pusha
	push %ds
	push %es
	push %fs
	push %gs
	mov $0x10, %ax
	mov %ax, %ds
	mov %ax, %es
	cld
	push %esp
	call trap_entry
	/* trap_entry does not return */

/* u32 catch(void (*fn)(void)) */
	.global catch
catch:
	push %ebp
	push %ebx
	push %esi
	push %edi
	pushf
	mov %esp, catch_esp
	mov 24(%esp), %eax
	call *%eax
	mov $0x100, %eax
	jmp 3f
	.global catch_resume
catch_resume:
	mov $0x10, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov catch_esp, %esp
	mov trap + 48, %eax		/* vec */
3:	movl $0, catch_esp
	popf
	pop %edi
	pop %esi
	pop %ebx
	pop %ebp
	ret

/* void to_user(u32 eip, u32 eflags) */
	.global to_user
to_user:
	mov 4(%esp), %eax
	mov 8(%esp), %ecx
	mov $0x23, %edx
	mov %dx, %ds
	mov %dx, %es
	push %edx
	push $user_stack + 4096
	push %ecx
	push $0x1b
	push %eax
	iret

/* void to_v86(u32 cs, u32 ip, u32 ss, u32 sp, u32 eflags) */
	.global to_v86
to_v86:
	mov %esp, %ebp
	push $0x4000			/* gs */
	push $0x3000			/* fs */
	push $0x2000			/* ds */
	push $0x1000			/* es */
	push 12(%ebp)
	push 16(%ebp)
	mov 20(%ebp), %eax
	or $0x20000, %eax
	push %eax
	push 4(%ebp)
	push 8(%ebp)
	iret

	.data
	.balign 4
	.global catch_esp
catch_esp:
	.long 0
gdtr:	.word 0xff
	.long gdt
	.word 0
	.global idtr
idtr:	.word 0x7ff
	.long idt

	.bss
	.balign 16
	.skip 16384
	.global stack_top
stack_top:
	.skip 8192
	.global trap_stack_top
trap_stack_top:

/*
 * tests/guest/modes/real.S - into real mode and back. What runs there is copied to REAL_BASE, below 64 KiB:
 * symbols are used relative to real_start.
 */
	.set BASE, 0x8000
	.set SNIPPET, 0x7800

	.text
	.global real_run
/* void real_run(void): runs the bytes at SNIPPET until something is raised; see real_saw. */
real_run:
	pusha
	mov %esp, real_esp
	lidt real_idtr
	ljmp $0x40, $(real_start - real_start + BASE)

	.global real_back
real_back:
	mov $0x10, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov real_esp, %esp
	lidt idtr
	popa
	ret

	.code16
	.global real_start, real_end, real_stubs
real_start:
	mov $0x48, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov %cr0, %eax
	and $0xfffffffe, %eax
	mov %eax, %cr0
	ljmp $0, $(1f - real_start + BASE)
1:	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov $0x5000, %sp
	xor %bx, %bx
	pushw $2
	popfw
	jmp *snippet_at - real_start + BASE
snippet_at:
	.word SNIPPET

/* One of eight bytes for each vector. */
	.balign 8
real_stubs:
	.set n, 0
	.rept 256
	.byte 0x68			/* push $n */
	.word n
	jmp real_record
	.balign 8
	.set n, n + 1
	.endr

/* Stores vector, IP, CS, FLAGS, SP, AX, BX at 7700h. */
real_record:
	mov %ax, %cs:0x770a
	mov %bx, %cs:0x770c
	xor %ax, %ax
	mov %ax, %ds
	pop %ax
	mov %ax, 0x7700
	pop %ax
	mov %ax, 0x7702
	pop %ax
	mov %ax, 0x7704
	pop %ax
	mov %ax, 0x7706
	mov %sp, 0x7708
	mov %ss, 0x770e
	lgdtl real_gdtr - real_start + BASE
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $0x08, $real_back
real_gdtr:
	.word 0xff
	.long gdt
real_end:
	.code32

	.data
	.balign 4
real_esp:
	.long 0
real_idtr:
	.word 0x3ff
	.long 0

/*
 * boot/loader.S - the code that a BIOS starts from a disk of ours: the sector it reads, and the sectors behind that, which
 * load a Linux kernel and its initial RAM disk from lists of sectors and start it. 16-bit code, nothing else of the disk is
 * looked at; what the lists say was checked when they were made (boot/boot.c).
 *
 * INT 13h extensions (EDD 3.0, section 8), INT 15h E801h, INT 10h; Linux: Documentation/arch/x86/boot.rst.
 * Memory: 7c00 this sector, 8000 the rest with the lists, 10000 buffer, 90000 the kernel's real-mode part, its stack up to
 * 9e000, its command line from there on.
 */
#define SECTOR_AT 0x7c00
#define STAGE_AT  0x8000
#define A(label)  ((label) - boot_sector + SECTOR_AT)
#define B(label)  ((label) - boot_stage + STAGE_AT)
#define CHUNK     64 /* sectors */

	.section .rodata
	.code16
	.globl boot_sector, boot_sector_count, boot_sector_end
	.globl boot_stage, boot_stage_end
boot_sector:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$SECTOR_AT, %sp
	sti
	movb	$0x41, %ah		/* are there the extensions? */
	movw	$0x55aa, %bx
	pushw	%dx
	int	$0x13
	popw	%dx
	movw	$A(no_extensions), %si
	jc	sector_fail
	cmpw	$0xaa55, %bx
	jne	sector_fail
	movb	$0x42, %ah
	movw	$A(packet), %si
	int	$0x13
	movw	$A(not_read), %si
	jc	sector_fail
	cmpl	$0x4c4d5631, STAGE_AT + 4 /* the mark at boot_stage + 4 */
	jne	sector_fail
	ljmp	$0, $STAGE_AT
sector_fail:
	lodsb
	testb	%al, %al
	jz	1f
	movb	$0x0e, %ah
	movw	$7, %bx
	int	$0x10
	jmp	sector_fail
1:	hlt
	jmp	1b
no_extensions:
	.asciz	"boot: this BIOS cannot read beyond the first 8 GiB\r\n"
not_read:
	.asciz	"boot: the loader cannot be read\r\n"
	.balign	4
packet:	.byte	16, 0
boot_sector_count:
	.word	0			/* sectors: filled in */
	.word	STAGE_AT, 0
	.quad	1
boot_sector_end:

/* ---- the rest; DL is the drive ---- */

	.balign	16
boot_stage:
	jmp	begin
	.balign	4
	.long	0x4c4d5631
begin:	movb	%dl, B(drive)
	movw	$0x2401, %ax		/* A20: by the BIOS, then by port 92h */
	int	$0x15
	inb	$0x92, %al
	orb	$2, %al
	andb	$0xfe, %al
	outb	%al, $0x92

	/* The initial RAM disk goes to the end of the memory below its limit. */
	xorw	%cx, %cx
	xorw	%dx, %dx
	movw	$0xe801, %ax
	int	$0x15
	movw	$B(no_memory), %si
	jc	fail
	testw	%cx, %cx
	jz	1f
	movw	%cx, %ax
	movw	%dx, %bx
1:	movzwl	%ax, %eax		/* KiB from 1 MiB on */
	shll	$10, %eax
	addl	$0x100000, %eax
	testw	%bx, %bx
	jz	2f
	movzwl	%bx, %eax		/* 64 KiB from 16 MiB on */
	addl	$0x100, %eax
	cmpl	$0x10000, %eax
	jb	1f
	movl	$0xffff, %eax
1:	shll	$16, %eax
2:	movl	B(initrd_limit), %edx
	cmpl	%edx, %eax
	jbe	3f
	movl	%edx, %eax
3:	subl	B(initrd_room), %eax
	jc	fail
	andl	$0xfffff000, %eax
	cmpl	B(kernel_end), %eax
	jb	fail
	movl	%eax, B(initrd_at)

	movw	$B(boot_lists), %si
next:	movl	8(%si), %ecx
	testl	%ecx, %ecx
	jz	start
	movl	12(%si), %eax
	testl	%eax, %eax		/* 0: behind the list before */
	jz	2f
	cmpl	$1, %eax		/* 1: the initial RAM disk */
	jne	1f
	movl	B(initrd_at), %eax
1:	movl	%eax, B(to)
2:	call	load
	addw	$16, %si
	jmp	next

/* Loads the list at SI. */
load:	movl	8(%si), %ecx
	cmpl	$CHUNK, %ecx
	jbe	1f
	movl	$CHUNK, %ecx
1:	movw	%cx, B(wanted)
	movl	(%si), %eax
	movl	4(%si), %edx
	movl	%eax, B(lba)
	movl	%edx, B(lba) + 4
	orl	%edx, %eax
	jnz	2f
	movw	$0x1000, %ax		/* sector 0: zeros */
	movw	%ax, %es
	xorw	%di, %di
	xorl	%eax, %eax
	movw	$(CHUNK * 128), %cx
	rep stosl
	jmp	3f
2:	call	read
3:	movzwl	B(wanted), %ecx
	call	copy
	movzwl	B(wanted), %ecx
	movl	%ecx, %eax
	shll	$9, %eax
	addl	%eax, B(to)
	cmpl	$0, B(lba)
	jne	4f
	cmpl	$0, B(lba) + 4
	je	5f
4:	addl	%ecx, (%si)
	adcl	$0, 4(%si)
5:	subl	%ecx, 8(%si)
	jnz	load
	ret

/* Reads to the buffer, three times at most. */
read:	movb	$3, B(tries)
1:	movw	B(wanted), %ax
	movw	%ax, B(count)
	pushw	%si
	movw	$B(disk_packet), %si
	movb	$0x42, %ah
	movb	B(drive), %dl
	int	$0x13
	popw	%si
	jnc	2f
	decb	B(tries)
	jz	3f
	xorb	%ah, %ah
	movb	B(drive), %dl
	int	$0x13
	jmp	1b
2:	ret
3:	movw	$B(disk_error), %si
	jmp	fail

/* Copies ECX sectors of the buffer to where they belong; only the data segments become those of protected mode. */
copy:	pushl	%esi
	cli
	lgdtl	B(gdt_place)
	movl	B(to), %edi
	shll	$7, %ecx
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	jmp	1f
1:	movw	$8, %bx
	movw	%bx, %ds
	movw	%bx, %es
	movl	$0x10000, %esi
	.byte	0x67			/* 32-bit addresses */
	rep movsl
	movw	$16, %bx
	movw	%bx, %ds
	movw	%bx, %es
	andb	$0xfe, %al
	movl	%eax, %cr0
	jmp	2f
2:	xorw	%bx, %bx
	movw	%bx, %ds
	movw	%bx, %es
	sti
	popl	%esi
	ret

start:	movw	$B(boot_command), %si
	movw	$0x9e00, %ax
	movw	%ax, %es
	xorw	%di, %di
	movw	$512, %cx
	rep movsl
	movw	$0x9000, %ax
	movw	%ax, %es
	movl	B(initrd_size), %ecx
	movl	B(initrd_at), %edx
	testl	%ecx, %ecx
	jnz	1f
	xorl	%edx, %edx
1:	movw	$0xffff, %es:0x1fa	/* the usual video mode */
	movb	$0xff, %es:0x210	/* a loader without a number */
	orb	$0x80, %es:0x211	/* there is a heap */
	movl	%edx, %es:0x218
	movl	%ecx, %es:0x21c
	movw	$0xde00, %es:0x224
	movl	$0x9e000, %es:0x228
	cli
	movw	%ax, %ds
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movw	$0xe000, %sp
	ljmp	$0x9020, $0

fail:	lodsb
	testb	%al, %al
	jz	1f
	movb	$0x0e, %ah
	movw	$7, %bx
	int	$0x10
	jmp	fail
1:	hlt
	jmp	1b

no_memory:
	.asciz	"boot: the computer has too little memory for the kernel and its initial RAM disk\r\n"
disk_error:
	.asciz	"boot: the disk cannot be read\r\n"
drive:	.byte	0
tries:	.byte	0
	.balign	8
gdt:	.quad	0
	.quad	0x00cf92000000ffff	/* 4 GiB of data */
	.quad	0x000092000000ffff	/* 64 KiB, for the way back */
gdt_place:
	.word	23
	.long	B(gdt)
	.balign	4
disk_packet:
	.byte	16, 0
count:	.word	0, 0, 0x1000
lba:	.quad	0
to:	.long	0
wanted:	.word	0
	.balign	4
initrd_at:
	.long	0

/* ---- filled in by boot/boot.c, see struct loader_data ---- */
	.balign	16
	.globl boot_data
boot_data:
initrd_size:
	.long	0
initrd_room:
	.long	0
initrd_limit:
	.long	0
kernel_end:
	.long	0
boot_command:
	.skip	2048
boot_lists:
boot_stage_end:
	.section .note.GNU-stack,"",@progbits

/* tests/guest/modes/t_v86.c - virtual-8086 mode. SDM 3B chapter 20. */
#include "guest.h"

#define ERR(vec, ext) ((vec)*8 + 2 + (ext))

enum {
	CODE = 0x6800,
	VSTACK = 0x5000
}; /* linear; the segments are CODE / 16 and so on */

static u8 *code = (u8 *)CODE;
static u32 v86_flags, v86_ip;

static void enter(void)
{
	to_v86(CODE / 16, v86_ip, VSTACK / 16, 0x100, v86_flags);
}

/* Runs these bytes, `at` bytes into which the trap must be. */
static u32 run(const u8 *bytes, u32 n, u32 flags, u32 at)
{
	for (u32 k = 0; k < n; k++)
		code[k] = bytes[k];
	v86_flags = flags;
	v86_ip = 0;
	fault_at = at;
	return catch (enter);
}

#define IOPL3               0x3002
#define IOPL0               0x2
#define BYTES(...)          ((const u8[]){__VA_ARGS__}), sizeof((const u8[]){__VA_ARGS__})
#define RUN(flags, at, ...) run(BYTES(__VA_ARGS__), flags, at)

/* At offset 0 fault_at cannot be given: 0 means anywhere. So all start with NOP. */

static void privileged(void)
{
	expect("INT n with IOPL 3 goes through the IDT",
	       RUN(IOPL3, 3, 0x90, 0xcd, DONE), DONE, -1);
	check_eq("the frame has VM", trap.eflags >> 17 & 1, 1);
	check_eq("CS", trap.cs & 0xffff, CODE / 16);
	check_eq("SS", trap.ss & 0xffff, VSTACK / 16);
	check_eq("ES", trap.v86_es & 0xffff, 0x1000);
	check_eq("GS", trap.v86_gs & 0xffff, 0x4000);
	check_eq("the handler's DS is null", trap.ds & 0xffff, 0);
	expect("INT n with IOPL 0 is #GP(0)", RUN(IOPL0, 1, 0x90, 0xcd, DONE), GP, 0);
	expect("INT3 with IOPL 0 goes through the IDT", RUN(IOPL0, 2, 0x90, 0xcc), BP,
	       -1);
	expect("INT n through a gate of privilege 0 is #GP(vector)",
	       RUN(IOPL3, 1, 0x90, 0xcd, 0x60), GP, ERR(0x60, 0));
	expect("CLI with IOPL 0 is #GP(0)", RUN(IOPL0, 1, 0x90, 0xfa), GP, 0);
	expect("STI with IOPL 0 is #GP(0)", RUN(IOPL0, 1, 0x90, 0xfb), GP, 0);
	expect("PUSHF with IOPL 0 is #GP(0)", RUN(IOPL0, 1, 0x90, 0x9c), GP, 0);
	expect("POPF with IOPL 0 is #GP(0)", RUN(IOPL0, 1, 0x90, 0x9d), GP, 0);
	expect("IRET with IOPL 0 is #GP(0)", RUN(IOPL0, 1, 0x90, 0xcf), GP, 0);
	expect("HLT is #GP(0)", RUN(IOPL3, 1, 0x90, 0xf4), GP, 0);
	expect("MOV from CR0 is #GP(0)", RUN(IOPL3, 1, 0x90, 0x0f, 0x20, 0xc0), GP, 0);
	expect("LGDT is #GP(0)", RUN(IOPL3, 1, 0x90, 0x0f, 0x01, 0x17), GP, 0);
	expect("LLDT is #UD", RUN(IOPL3, 1, 0x90, 0x0f, 0x00, 0xd0), UD, -1);
	expect("LAR is #UD", RUN(IOPL3, 1, 0x90, 0x0f, 0x02, 0xc0), UD, -1);
	expect("ARPL is #UD", RUN(IOPL3, 1, 0x90, 0x63, 0xc0), UD, -1);
	expect("IN is #GP(0) even with IOPL 3", RUN(IOPL3, 1, 0x90, 0xe4, 0x80), GP, 0);
}

static void segments(void)
{
	/* mov $0x1234, %ax; mov %ax, %es; mov %es:0x10, %bl ... */
	((u8 *)0x6010)[0] = 0xa5;
	expect("segments are real mode's",
	       RUN(IOPL3, 0, 0xb8, 0x00, 0x06, 0x8e, 0xc0, 0x26, 0xa0, 0x10, 0x00, 0xcd,
		   DONE),
	       DONE, -1);
	check_eq("their base is sixteen times the selector", trap.eax & 0xff, 0xa5);
	expect("a word at offset FFFFh is #GP(0)",
	       RUN(IOPL3, 1, 0x90, 0xa1, 0xff, 0xff, 0xcd, DONE), GP, 0);
	expect("a 32-bit offset above 64 KiB is #GP(0)",
	       RUN(IOPL3, 6, 0x66, 0xbb, 0, 0, 1, 0, 0x67, 0x8a, 0x03, 0xcd, DONE), GP,
	       0);
	expect("POP at FFFFh of the stack is #SS(0)",
	       RUN(IOPL3, 3, 0xbc, 0xff, 0xff, 0x58, 0xcd, DONE), SS, 0);
	expect("JMP FAR",
	       RUN(IOPL3, 0, 0xea, 0x05, 0x00, CODE / 16 & 0xff, CODE / 16 >> 8, 0xcd,
		   DONE),
	       DONE, -1);
	expect("CALL FAR and RET",
	       RUN(IOPL3, 0, 0x9a, 0x07, 0x00, CODE / 16 & 0xff, CODE / 16 >> 8, 0xcd,
		   DONE, 0xcb),
	       DONE, -1);
	check_eq("leave the stack as it was", trap.esp, 0x100);
	expect("PUSHF with IOPL 3", RUN(IOPL3, 0, 0x9c, 0x58, 0xcd, DONE), DONE, -1);
	check_eq("shows IOPL", trap.eax & 0x3000, 0x3000);
	expect("POPF with IOPL 3 keeps IOPL",
	       RUN(IOPL3, 0, 0x6a, 0x00, 0x9d, 0x9c, 0x58, 0xcd, DONE), DONE, -1);
	check_eq("which it shows", trap.eax & 0x3000, 0x3000);
	expect("DIV by 0", RUN(IOPL3, 3, 0xb9, 0, 0, 0xf7, 0xf1), DE, -1);
}

static void ports(void)
{
	tss.iomap = 104;
	for (u32 n = 0; n < sizeof(tss.redirect); n++)
		tss.redirect[n] = 0;
	expect("IN of a port that the bitmap allows", RUN(IOPL0, 0, 0xe4, 0x80, 0xcc),
	       BP, -1);
	tss.redirect[0x10] = 1;
	expect("IN of one that it does not is #GP(0)", RUN(IOPL3, 1, 0x90, 0xe4, 0x80),
	       GP, 0);
	tss.iomap = sizeof(tss);
}

/* CR4.VME: virtual IF, and interrupts that the bitmap gives back to the program. */
static void vme(void)
{
	u32 r[4];
	u16 *ivt = (u16 *)0;

	cpuid(1, 0, r);
	if (!(r[3] & 2))
		return;
	set_cr4(cr4() | 1);
	tss.iomap = 104 + 32;
	for (u32 n = 0; n < 32; n++)
		tss.redirect[n] = 0xff;
	expect("VME: INT with its bit set is #GP(0)", RUN(IOPL0, 1, 0x90, 0xcd, 0x61),
	       GP, 0);
	tss.redirect[0x61 / 8] = (u8) ~(1u << (0x61 & 7));
	ivt[0x61 * 2] = 0x20;
	ivt[0x61 * 2 + 1] = CODE / 16;
	code[0x20] = 0x58; /* pop %ax; pop %bx; pop %cx; int3 */
	code[0x21] = 0x5b;
	code[0x22] = 0x59;
	code[0x23] = 0xcc;
	expect("VME: INT with its bit clear goes through the real-mode table",
	       RUN(IOPL0, 0x24, 0x90, 0xcd, 0x61), BP, -1);
	check_eq("pushing IP", trap.eax & 0xffff, 3);
	check_eq("and CS", trap.ebx & 0xffff, CODE / 16);
	check_eq("and FLAGS with IOPL 3", trap.ecx & 0x3200, 0x3000);
	expect("VME: STI sets VIF", RUN(IOPL0, 0, 0xfb, 0xcc), BP, -1);
	check_eq("which the frame shows", trap.eflags >> 19 & 1, 1);
	expect("VME: PUSHF shows VIF as IF", RUN(IOPL0, 0, 0xfb, 0x9c, 0x58, 0xcc), BP,
	       -1);
	check_eq("and IOPL 3", trap.eax & 0x3200, 0x3200);
	expect("VME: CLI clears VIF", RUN(IOPL0 | 1u << 19, 0, 0xfa, 0xcc), BP, -1);
	check_eq("which the frame shows", trap.eflags >> 19 & 1, 0);
	expect("VME: STI with VIP is #GP(0)", RUN(IOPL0 | 1u << 20, 1, 0x90, 0xfb), GP,
	       0);
	expect("VME: POPF with IF and VIP is #GP(0)",
	       RUN(IOPL0 | 1u << 20, 3, 0x68, 0x00, 0x02, 0x9d), GP, 0);
	expect("VME: POPFD is #GP(0)", RUN(IOPL0, 1, 0x90, 0x66, 0x9d), GP, 0);
	set_cr4(cr4() & ~1u);
	tss.iomap = sizeof(tss);
}

void test_v86(void)
{
	privileged();
	segments();
	ports();
	vme();
}

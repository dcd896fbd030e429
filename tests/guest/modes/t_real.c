/* tests/guest/modes/t_real.c - real mode: the interrupt table, limits, what is undefined. SDM 3B 20.1. */
#include "guest.h"

enum { BASE = 0x8000, SNIPPET = 0x7800, SAW = 0x7700, R_DONE = 0x61 };

extern u8 real_start[], real_end[], real_stubs[];
void real_run(void);

/* What real_record stored. */
static volatile u16 *const saw = (volatile u16 *)SAW;
enum { VEC, IP, CS, FLAGS, SP, AX, BX, SS_SEL };

static u32 run(const u8 *bytes, u32 n)
{
	u8 *p = (u8 *)SNIPPET;

	for (u32 k = 0; k < n; k++)
		p[k] = bytes[k];
	real_run();
	return saw[VEC];
}

#define BYTES(...) ((const u8[]){__VA_ARGS__}), sizeof((const u8[]){__VA_ARGS__})

/* The vector, and how far into the bytes it was raised. */
static void real(const char *name, u32 vec, u32 at, const u8 *bytes, u32 n)
{
	u32 got = run(bytes, n);

	check_eq(name, got << 16 | (u16)(saw[IP] - SNIPPET), vec << 16 | at);
}
#define REAL(name, vec, at, ...) real(name, vec, at, BYTES(__VA_ARGS__))

static void interrupts(void)
{
	REAL("real: INT n", R_DONE, 3, 0x90, 0xcd, R_DONE);
	check_eq("real: pushes CS", saw[CS], 0);
	check_eq("real: and three words", saw[SP], 0x5000);
	REAL("real: INT3", BP, 2, 0x90, 0xcc);
	REAL("real: INTO", OF, 5, 0xb0, 0x7f, 0xfe, 0xc0, 0xce);
	REAL("real: DIV by 0", DE, 2, 0x31, 0xc9, 0xf7, 0xf1);
	REAL("real: BOUND", BR, 3, 0xb8, 9, 0, 0x62, 0x06, 0x00, 0x76);
	REAL("real: an interrupt clears IF, the frame has it", R_DONE, 4, 0x90, 0xfb,
	     0xcd, R_DONE);
	check_eq("real: the frame's IF", saw[FLAGS] >> 9 & 1, 1);
	/* pushf; push %cs; push $8 bytes further on; iret */
	REAL("real: IRET", R_DONE, 10, 0x9c, 0x0e, 0x68, (SNIPPET + 8) & 0xff,
	     SNIPPET >> 8, 0xcf, 0x0f, 0x0b, 0xcd, R_DONE);
	REAL("real: PUSHF and POPF keep IOPL and NT", R_DONE, 8, 0x68, 0x00, 0x70, 0x9d,
	     0x9c, 0x58, 0xcd, R_DONE);
	check_eq("real: as they were set", saw[AX] & 0x7000, 0x7000);
}

static void limits(void)
{
	REAL("real: a word at FFFFh", GP, 1, 0x90, 0xa1, 0xff, 0xff, 0xcd, R_DONE);
	REAL("real: a byte at FFFFh", R_DONE, 5, 0xa0, 0xff, 0xff, 0xcd, R_DONE);
	REAL("real: a word of the stack at FFFFh", SS, 5, 0xbd, 0xff, 0xff, 0x90, 0x90,
	     0x8b, 0x46, 0x00);
	REAL("real: a 32-bit offset of 10000h", GP, 6, 0x66, 0xbb, 0, 0, 1, 0, 0x67,
	     0x8a, 0x03);
	REAL("real: MOVSD that ends behind FFFFh", GP, 3, 0xbe, 0xfd, 0xff, 0x66, 0xa5);
	((u8 *)0x7610)[0] = 0x77;
	REAL("real: segments are sixteen times the selector", R_DONE, 11, 0xb8, 0x60,
	     0x07, 0x8e, 0xc0, 0x26, 0xa0, 0x10, 0x00, 0xcd, R_DONE);
	check_eq("real: the byte there", saw[AX] & 0xff, 0x77);
}

static void undefined(void)
{
	REAL("real: LLDT", UD, 1, 0x90, 0x0f, 0x00, 0xd0);
	REAL("real: LTR", UD, 1, 0x90, 0x0f, 0x00, 0xd8);
	REAL("real: SLDT", UD, 1, 0x90, 0x0f, 0x00, 0xc0);
	REAL("real: LAR", UD, 1, 0x90, 0x0f, 0x02, 0xc0);
	REAL("real: VERR", UD, 1, 0x90, 0x0f, 0x00, 0xe0);
	REAL("real: ARPL", UD, 1, 0x90, 0x63, 0xc0);
	REAL("real: UD2", UD, 1, 0x90, 0x0f, 0x0b);
	REAL("real: MOV CS", UD, 1, 0x90, 0x8e, 0xc8);
	REAL("real: LOCK NOP", UD, 1, 0x90, 0xf0, 0x90);
	REAL("real: LEA of a register", UD, 1, 0x90, 0x8d, 0xc0);
	REAL("real: MOV CR0 with PG and without PE", GP, 6, 0x66, 0xb8, 0x10, 0, 0,
	     0x80, 0x0f, 0x22, 0xc0);
	REAL("real: SMSW is allowed", R_DONE, 5, 0x0f, 0x01, 0xe0, 0xcd, R_DONE);
	check_eq("real: and shows PE clear", saw[AX] & 1, 0);
}

static void far_code(void)
{
	/* call 0780:0009; int; ...; retf */
	REAL("real: CALL FAR and RETF", R_DONE, 7, 0x9a, 0x09, 0x00, 0x80, 0x07, 0xcd,
	     R_DONE, 0x90, 0x90, 0xcb);
	check_eq("real: leave the stack as it was", saw[SP], 0x5000);
	run(BYTES(0xea, 0x07, 0x00, 0x80, 0x07, 0x90, 0x90, 0xcd, R_DONE));
	check_eq("real: JMP FAR", (u32)saw[CS] << 16 | saw[IP], 0x07800009);
}

/* Limits of protected mode stay in real mode: read above 1 MiB with a 32-bit offset. */
static void unreal(void)
{
	*(volatile u32 *)scratch = 0x5a5aa5a5;
	gdt_set(SEL_DATA16, seg_desc(0, 0xfffff, 0x893));
	REAL("real: with the limit of 4 GiB, any offset", R_DONE, 11, 0x66, 0xbb,
	     (u8)(u32)scratch, (u8)((u32)scratch >> 8), (u8)((u32)scratch >> 16),
	     (u8)((u32)scratch >> 24), 0x67, 0x8b, 0x03, 0xcd, R_DONE);
	check_eq("real: reads what is there", saw[AX], 0xa5a5);
	gdt_set(SEL_DATA16, seg_desc(0, 0xffff, 0x93));
}

void test_real(void)
{
	u32 *ivt = (u32 *)0;
	u32 trap_entries = BASE + (u32)(real_stubs - real_start);

	for (u32 n = 0; n < (u32)(real_end - real_start); n++)
		((u8 *)BASE)[n] = real_start[n];
	for (u32 n = 0; n < 256; n++)
		ivt[n] = trap_entries + n * 8;
	((u16 *)0x7600)[0] = 1; /* for BOUND */
	((u16 *)0x7600)[1] = 4;
	interrupts();
	limits();
	undefined();
	far_code();
	unreal();
}

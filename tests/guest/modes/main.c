/* tests/guest/modes/main.c - tables, output, and the order of the tests. */
#include "../groups.h"
#include "guest.h"

enum { COM1 = 0x3f8, DEBUG_PORT = 0xe9 };

volatile struct trap trap;
volatile u32 fault_at;
u64 gdt[SEL_LIMIT / 8] __attribute__((aligned(16)));
u64 idt[256] __attribute__((aligned(16)));
u64 ldt[16] __attribute__((aligned(16)));
struct tss tss, tss2;
u8 scratch[8192] __attribute__((aligned(4096)));
unsigned multiboot_info = 1; /* set before anything else: not in .bss */
u8 user_stack[4096] __attribute__((aligned(4096)));

extern u8 trap_entries[], trap_stack_top[];
extern u32 catch_esp;
void catch_resume(void) __attribute__((noreturn));
void trap_entry(struct trap *t);
int main(void);
void setup_gdt(void);
void *memcpy(void *d, const void *s, __SIZE_TYPE__ n);
void *memset(void *d, int v, __SIZE_TYPE__ n);

static u32 n_tests, n_failed;

/* ---- output ------------------------------------------------------------------------------------- */

static void put(const char *s)
{
	for (; *s; s++) {
		outb(DEBUG_PORT, (u8)*s);
		outb(COM1, (u8)*s);
	}
}

static void put_hex(u32 v)
{
	char buf[11] = "0x";
	u32 n = 2;
	int shift = 28;

	while (shift && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		buf[n++] = "0123456789abcdef"[v >> shift & 15];
	buf[n] = 0;
	put(buf);
}

static void put_dec(u32 v)
{
	char buf[11];
	u32 n = sizeof(buf);

	buf[--n] = 0;
	do {
		buf[--n] = (char)('0' + v % 10);
	} while (v /= 10);
	put(buf + n);
}

static void line(const char *name, int ok)
{
	n_tests++;
	n_failed += !ok;
	put(ok ? "ok " : "not ok ");
	put_dec(n_tests);
	put(" - ");
	put(name);
	put("\n");
}

void check(const char *name, int ok)
{
	line(name, ok);
}

void check_eq(const char *name, u32 got, u32 want)
{
	line(name, got == want);
	if (got == want)
		return;
	put("# got ");
	put_hex(got);
	put(", expected ");
	put_hex(want);
	put("\n");
}

void expect(const char *name, u32 got, u32 vec, int err)
{
	int ok = got == vec;

	if (ok && vec != NO_TRAP) {
		ok = err < 0 || trap.err == (u32)err;
		ok = ok && (!fault_at || trap.eip == fault_at);
	}
	line(name, ok);
	if (!ok) {
		put("# vector ");
		put_hex(got);
		put(" error ");
		put_hex(trap.err);
		put(" eip ");
		put_hex(trap.eip);
		put(" cr2 ");
		put_hex(trap.cr2);
		put("; expected vector ");
		put_hex(vec);
		put(" error ");
		put_hex((u32)err);
		put(" eip ");
		put_hex(fault_at);
		put("\n");
	}
	fault_at = 0;
}

/* ---- traps ------------------------------------------------------------------------------------- */

void *memcpy(void *d, const void *s, __SIZE_TYPE__ n)
{
	u8 *a = d;
	const u8 *b = s;

	while (n--)
		*a++ = *b++;
	return d;
}

void *memset(void *d, int v, __SIZE_TYPE__ n)
{
	u8 *a = d;

	while (n--)
		*a++ = (u8)v;
	return d;
}

void trap_entry(struct trap *t)
{
	memcpy((void *)&trap, t, sizeof(trap) - 4);
	__asm__ volatile("mov %%cr2, %0" : "=r"(trap.cr2));
	if (catch_esp)
		catch_resume();
	put("Bail out! unexpected vector ");
	put_hex(t->vec);
	put(" error ");
	put_hex(t->err);
	put(" at ");
	put_hex(t->cs);
	put(":");
	put_hex(t->eip);
	put(" cr2 ");
	put_hex(trap.cr2);
	put("\n");
	outb(0xf4, 2);
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* ---- tables -------------------------------------------------------------------------------------- */

u64 seg_desc(u32 base, u32 limit, u32 attr)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 |
	       (u64)(attr & 0xff) << 40 | (u64)(limit >> 16 & 15) << 48 |
	       (u64)(attr >> 8 & 15) << 52 | (u64)(base >> 24) << 56;
}

u64 gate_desc(u32 sel, u32 off, u32 attr)
{
	return (off & 0xffff) | (u64)(sel & 0xffff) << 16 | (u64)(attr & 0xff) << 40 |
	       (u64)(off >> 16) << 48;
}

void gdt_set(u32 sel, u64 d)
{
	gdt[sel / 8] = d;
}

u8 gdt_access(u32 sel)
{
	return (u8)(gdt[sel / 8] >> 40);
}

void idt_reset(void)
{
	for (u32 n = 0; n < 256; n++)
		idt[n] = gate_desc(SEL_CODE, (u32)trap_entries + 16 * n,
				   n == DONE || n == BP || n == OF ? 0xee : 0x8e);
}

/* Before segments can be loaded they have to be there: entry.S calls this first. */
void setup_gdt(void)
{
	gdt_set(SEL_CODE, seg_desc(0, 0xfffff, 0xc9b));
	gdt_set(SEL_DATA, seg_desc(0, 0xfffff, 0xc93));
	gdt_set(SEL_CODE3 & ~7, seg_desc(0, 0xfffff, 0xcfb));
	gdt_set(SEL_DATA3 & ~7, seg_desc(0, 0xfffff, 0xcf3));
	gdt_set(SEL_TSS, seg_desc((u32)&tss, sizeof(tss) - 1, 0x89));
	gdt_set(SEL_TSS2, seg_desc((u32)&tss2, 0x67, 0x89));
	gdt_set(SEL_LDT, seg_desc((u32)ldt, sizeof(ldt) - 1, 0x82));
	gdt_set(SEL_CODE16, seg_desc(0, 0xffff, 0x9b));
	gdt_set(SEL_DATA16, seg_desc(0, 0xffff, 0x93));
}

static void setup_tables(void)
{
	tss.ss0 = SEL_DATA;
	tss.esp0 = (u32)trap_stack_top;
	tss.iomap = sizeof(tss);
	idt_reset();
	__asm__ volatile("lldt %w0; ltr %w1" ::"r"(0), "r"(SEL_TSS));
}

static const struct group groups[] = {
	{"segments", test_segments}, {"transfers", test_transfers},
	{"gates", test_gates},       {"user", test_user},
	{"debug", test_debug},       {"tasks", test_tasks},
	{"v86", test_v86},           {"paging", test_paging},
	{"real", test_real},
};

int main(void)
{
	setup_tables();
	run_groups(groups, sizeof(groups) / sizeof(groups[0]));
	put("1..");
	put_dec(n_tests);
	put("\n");
	return n_failed ? 1 : 0;
}

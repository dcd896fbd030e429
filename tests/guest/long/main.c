/* tests/guest/long/main.c - tables, output, and the order of the tests. */
#include "../groups.h"
#include "guest64.h"

enum { COM1 = 0x3f8, DEBUG_PORT = 0xe9 };

volatile struct trap trap;
volatile u64 fault_at;
struct gate idt[256] __attribute__((aligned(16)));
struct tss tss;
u8 scratch[8192] __attribute__((aligned(4096)));
unsigned multiboot_info = 1; /* set before anything else: not in .bss */
u8 user_stack[4096] __attribute__((aligned(4096)));
u8 trap_stack[8192] __attribute__((aligned(4096)));
u8 ist_stack[4096] __attribute__((aligned(4096)));

extern u8 trap_entries[];
extern u64 catch_rsp;
extern u8 idtr[];
void catch_resume(void) __attribute__((noreturn));
void trap_entry(struct trap *t);
int main(void);
void *memcpy(void *d, const void *s, __SIZE_TYPE__ n);

static u32 n_tests, n_failed;
static u64 user_rip;

static void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static void put(const char *s)
{
	for (; *s; s++) {
		outb(DEBUG_PORT, (u8)*s);
		outb(COM1, (u8)*s);
	}
}

static void put_hex(u64 v)
{
	int shift = 60;

	put("0x");
	while (shift && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4) {
		char s[2] = {"0123456789abcdef"[v >> shift & 15], 0};

		put(s);
	}
}

static void put_dec(u32 v)
{
	char s[2] = {(char)('0' + v % 10), 0};

	if (v >= 10)
		put_dec(v / 10);
	put(s);
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

void check_eq(const char *name, u64 got, u64 want)
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

static void explain(u64 got)
{
	put("# vector ");
	put_hex(got);
	put(" error ");
	put_hex(trap.err);
	put(" rip ");
	put_hex(trap.rip);
	put(" cr2 ");
	put_hex(trap.cr2);
	put(", expected rip ");
	put_hex(fault_at);
	put("\n");
}

void expect(const char *name, u64 got, u64 vec, int err)
{
	int ok = got == vec;

	if (ok && vec != NO_TRAP)
		ok = (err < 0 || trap.err == (u64)err) &&
		     (!fault_at || trap.rip == fault_at);
	line(name, ok);
	if (!ok)
		explain(got);
	fault_at = 0;
}

void pf(const char *name, u64 got, u64 code, u64 cr2)
{
	int ok = got == PF && trap.err == code && trap.cr2 == cr2 &&
		 (!fault_at || trap.rip == fault_at);

	line(name, ok);
	if (!ok)
		explain(got);
	fault_at = 0;
}

void *memcpy(void *d, const void *s, __SIZE_TYPE__ n)
{
	u8 *a = d;
	const u8 *b = s;

	while (n--)
		*a++ = *b++;
	return d;
}

void trap_entry(struct trap *t)
{
	memcpy((void *)&trap, t, sizeof(trap) - 8);
	__asm__ volatile("mov %%cr2, %0" : "=r"(trap.cr2));
	if (catch_rsp)
		catch_resume();
	put("Bail out! unexpected trap\n");
	explain(t->vec);
	outb(0xf4, 2);
	for (;;)
		__asm__ volatile("cli; hlt");
}

u64 seg_desc(u32 attr)
{
	return 0xffff | (u64)(attr & 0xff) << 40 | 15ull << 48 |
	       (u64)(attr >> 8 & 15) << 52;
}

void idt_set(u32 vec, u32 sel, const void *to, u32 attr, u32 ist)
{
	u64 off = (u64)to;

	idt[vec].lo = (off & 0xffff) | (u64)sel << 16 | (u64)ist << 32 |
		      (u64)attr << 40 | (off >> 16 & 0xffff) << 48;
	idt[vec].hi = off >> 32;
}

void idt_reset(void)
{
	for (u32 n = 0; n < 256; n++)
		idt_set(n, SEL_CODE, trap_entries + 16 * n,
			n == DONE || n == BP ? 0xee : 0x8e, 0);
}

static void enter(void)
{
	to_user(user_rip, 2);
}

u64 run_user(void (*fn)(void), const u8 *at)
{
	user_rip = (u64)fn;
	fault_at = (u64)at;
	return catch (enter);
}

static void setup_tables(void)
{
	u64 base = (u64)&tss;

	idt_reset();
	__asm__ volatile("lidt (%0)" ::"r"(idtr));
	tss.rsp[0] = (u64)trap_stack + sizeof(trap_stack);
	tss.ist[0] = (u64)ist_stack + sizeof(ist_stack);
	tss.iomap = sizeof(tss);
	gdt[SEL_TSS / 8] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
			   (base >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = base >> 32;
	__asm__ volatile("lldt %w0; ltr %w1" ::"r"(0), "r"(SEL_TSS));
}

static const struct group groups[] = {
	{"canonical", test_canonical}, {"gates", test_gates},   {"calls", test_calls},
	{"system", test_system},       {"paging", test_paging},
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

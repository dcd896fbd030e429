/* tests/guest/long/t_paging.c - 4-level paging, PCID, SMEP and SMAP, code across pages. SDM 3A 4. */
#include "guest64.h"

#define P    1ull
#define W    2ull
#define U    4ull
#define A    0x20ull
#define D    0x40ull
#define PS   0x80ull
#define NX   (1ull << 63)
#define TEST 0x8000000000ull /* the second entry of the top level */

enum { EP = 1, EW = 2, EU = 4, ERSVD = 8, EI = 16 };

static u64 pdpt2[512] __attribute__((aligned(4096)));
static u64 dir2[512] __attribute__((aligned(4096)));
static u64 table2[512] __attribute__((aligned(4096)));

u64 test_va = TEST, new_cr3, inv_type, inv_desc[2];

FAULTS(read, "movq test_va, %%rcx", "movq (%%rcx), %%rax")
FAULTS(write, "movq test_va, %%rcx", "movq %%rax, (%%rcx)")
FAULTS(exec, "movq test_va, %%rcx", "movq %%rcx, fault_at; call *%%rcx")
FAULTS(load_cr3, "movq new_cr3, %%rax", "movq %%rax, %%cr3")
FAULTS(set_pcide, "movq %%cr4, %%rax; btsq $17, %%rax", "movq %%rax, %%cr4")
FAULTS(invpcid, "movq inv_type, %%rax", "invpcid inv_desc, %%rax")
FAULTS(read_ac, "movq test_va, %%rcx; stac", "movq (%%rcx), %%rax; clac")
FAULTS(stac, "", "stac; clac")
USER(u_read, "movabs $0x8000000000, %rcx", "movq (%rcx), %rax")
USER(u_write, "movabs $0x8000000000, %rcx", "movq %rax, (%rcx)")
USER(u_exec, "movabs $0x8000000000, %rcx", "jmp *%rcx")

static void flush(void)
{
	set_cr3(cr3());
}

static void map(u64 pte)
{
	table2[0] = pte;
	flush();
}

static void levels(void)
{
	pml4[1] = 0;
	pf("no top-level entry", catch (read), 0, TEST);
	pml4[1] = (u64)pdpt2 | P | W | U | PS;
	pf("PS in it is reserved", catch (read), EP | ERSVD, TEST);
	pml4[1] = (u64)pdpt2 | P | W | U;
	pf("no PDPT entry", catch (write), EW, TEST);
	pdpt2[0] = (u64)dir2 | P | W | U;
	pf("no directory entry", catch (read), 0, TEST);
	dir2[0] = (u64)table2 | P | W | U;
	pf("no page", run_user(u_read, u_read_at), EU, TEST);
	map((u64)scratch | P | W | U);
	expect("a page", catch (read), NO_TRAP, -1);
	check_eq("its A", table2[0] & (A | D), A);
	expect("a write", catch (write), NO_TRAP, -1);
	check_eq("sets D", table2[0] & (A | D), A | D);
	check_eq("A of all levels",
		 (pml4[1] & pdpt2[0] & dir2[0] & A) && !(dir2[0] & D), 1);
	map((u64)scratch | P | W | U | 1ull << 51);
	pf("an address bit that is not there", catch (read), EP | ERSVD, TEST);
	dir2[0] = P | W | U | PS | 1 << 14;
	flush();
	pf("a reserved bit of a 2 MiB page", catch (read), EP | ERSVD, TEST);
	pdpt2[0] = P | W | U | PS;
	flush();
	test_va = TEST + (u64)scratch;
	*(u64 *)scratch = 0x1234;
	expect("a page of 1 GiB", catch (read), NO_TRAP, -1);
	check_eq("shows what is there", *(volatile u64 *)test_va, 0x1234);
	test_va = TEST;
	pdpt2[0] |= 1 << 20;
	flush();
	pf("a reserved bit of it", catch (read), EP | ERSVD, TEST);
	pdpt2[0] = (u64)dir2 | P | W | U;
	dir2[0] = (u64)table2 | P | W | U;
	flush();
}

static void rights(void)
{
	scratch[0] = 0xc3;
	map((u64)scratch | P | W);
	pf("a user's read of a supervisor page", run_user(u_read, u_read_at), EP | EU,
	   TEST);
	map((u64)scratch | P | U);
	pf("a user's write to a read-only page", run_user(u_write, u_write_at),
	   EP | EU | EW, TEST);
	pf("a supervisor's write with WP", catch (write), EP | EW, TEST);
	set_cr0(cr0() & ~(1ull << 16));
	expect("without WP", catch (write), NO_TRAP, -1);
	set_cr0(cr0() | 1ull << 16);
	scratch[0] = 0xc3;
	expect("a call into a page", catch (exec), NO_TRAP, -1);
	map((u64)scratch | P | U | NX);
	pf("with NX", catch (exec), EP | EI, TEST);
	pf("a user's jump to it", run_user(u_exec, (u8 *)TEST), EP | EU | EI, TEST);
	map((u64)scratch | P | U);
	dir2[0] |= NX;
	flush();
	pf("NX of the directory counts", catch (exec), EP | EI, TEST);
	dir2[0] &= ~NX;
	pdpt2[0] &= ~W;
	flush();
	map((u64)scratch | P | W | U);
	pf("read-only of the PDPT counts", catch (write), EP | EW, TEST);
	pdpt2[0] |= W;
	flush();
}

/* An instruction that begins in one page and ends in the next. */
static void across(void)
{
	static u8 code[8192] __attribute__((aligned(4096)));

	table2[0] = (u64)code | P | W;
	table2[1] = (u64)(code + 4096) | P | W;
	flush();
	code[4094] = 0x48; /* mov %rax, %rax; ret */
	code[4095] = 0x89;
	code[4096] = 0xc0;
	code[4097] = 0xc3;
	test_va = TEST + 4094;
	expect("an instruction across two pages", catch (exec), NO_TRAP, -1);
	table2[1] = 0;
	__asm__ volatile("invlpg (%0)" ::"r"(TEST + 4096) : "memory");
	pf("whose second page is not there", catch (exec), EI, TEST + 4096);
	/* the second page becomes another one */
	scratch[0] = 0xd0; /* mov %rdx, %rax */
	scratch[1] = 0xc3;
	table2[1] = (u64)scratch | P | W;
	__asm__ volatile("invlpg (%0)" ::"r"(TEST + 4096) : "memory");
	expect("whose second page is another", catch (exec), NO_TRAP, -1);
	test_va = TEST;
}

/* Writing code that was executed, through another mapping of it. */
static u32 call_test(void)
{
	u32 v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(TEST) : "memory", "cc");
	return v;
}

static void rewritten(void)
{
	static const u8 code[] = {0xb8, 1, 0, 0, 0, 0xc3}; /* mov $1, %eax; ret */
	u32 sum = 0;

	for (u32 n = 0; n < sizeof(code); n++)
		scratch[n] = code[n];
	map((u64)scratch | P | W);
	for (u32 n = 0; n < 100; n++) {
		scratch[1] = (u8)n;
		sum += call_test();
	}
	check_eq("code that is written between calls", sum, 4950);
}

static void smep_smap(void)
{
	u32 r[4];
	u64 *low = dir;

	cpuid(7, 0, r);
	if (!(r[1] & 1u << 20)) {
		expect("STAC is #UD", catch (stac), UD, -1);
		return;
	}
	for (u32 n = 0; n < 512; n++)
		low[n] &= ~U;
	scratch[0] = 0xc3;
	map((u64)scratch | P | W | U);
	set_cr4(cr4() | 1ull << 20 | 1ull << 21);
	pf("SMEP: a supervisor's call into a user page", catch (exec), EP | EI, TEST);
	pf("SMAP: a supervisor's read of it", catch (read), EP, TEST);
	pf("SMAP: a write", catch (write), EP | EW, TEST);
	expect("STAC allows it", catch (read_ac), NO_TRAP, -1);
	pf("CLAC forbids it again", catch (read), EP, TEST);
	set_cr4(cr4() & ~(3ull << 20));
	for (u32 n = 0; n < 512; n++)
		low[n] |= U;
	flush();
}

static void pcid(void)
{
	u32 r[4], r7[4];

	cpuid(1, 0, r);
	cpuid(7, 0, r7);
	if (!(r[2] & 1u << 17) || !(r7[1] & 1u << 10))
		return;
	new_cr3 = cr3() | 5;
	expect("CR3 with low bits", catch (load_cr3), NO_TRAP, -1);
	expect("then PCIDE is #GP(0)", catch (set_pcide), GP, 0);
	set_cr3(cr3() & ~0xfffull);
	expect("CR4.PCIDE", catch (set_pcide), NO_TRAP, -1);
	map((u64)scratch | P | W | U);
	*(u64 *)scratch = 1;
	*(u64 *)(scratch + 4096) = 2;
	check_eq("PCID 0 reads", *(volatile u64 *)TEST, 1);
	set_cr3((u64)pml4 | 7 | 1ull << 63);
	check_eq("bit 63 of CR3 is not kept", cr3(), (u64)pml4 | 7);
	table2[0] = (u64)(scratch + 4096) | P | W | U;
	inv_type = 0;
	inv_desc[0] = 7;
	inv_desc[1] = TEST;
	expect("INVPCID of an address", catch (invpcid), NO_TRAP, -1);
	check_eq("makes the new page visible", *(volatile u64 *)TEST, 2);
	table2[0] = (u64)scratch | P | W | U;
	inv_type = 1;
	expect("INVPCID of a PCID", catch (invpcid), NO_TRAP, -1);
	check_eq("as well", *(volatile u64 *)TEST, 1);
	table2[0] = (u64)(scratch + 4096) | P | W | U;
	inv_type = 3;
	expect("INVPCID of all", catch (invpcid), NO_TRAP, -1);
	check_eq("as well", *(volatile u64 *)TEST, 2);
	inv_type = 4;
	expect("INVPCID of type 4 is #GP(0)", catch (invpcid), GP, 0);
	inv_type = 0;
	inv_desc[0] = 1 << 12;
	expect("a PCID of 13 bits is #GP(0)", catch (invpcid), GP, 0);
	inv_desc[0] = 0;
	inv_desc[1] = 0x800000000000;
	expect("an address in the hole is #GP(0)", catch (invpcid), GP, 0);
	set_cr3((u64)pml4);
	set_cr4(cr4() & ~(1ull << 17));
}

void test_paging(void)
{
	levels();
	rights();
	across();
	rewritten();
	smep_smap();
	pcid();
}

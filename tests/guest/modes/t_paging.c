/* tests/guest/modes/t_paging.c - 32-bit and PAE paging: faults, their codes and CR2, A and D, NX, SMEP. */
#include "guest.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80 };
enum { EP = 1, EW = 2, EU = 4, ERSVD = 8, EI = 16 };

#define TEST 0x40000000u /* where the pages of the tests are mapped */

static u32 dir[1024] __attribute__((aligned(4096)));
static u32 table[1024] __attribute__((aligned(4096)));
static u32 low[1024] __attribute__((aligned(4096)));
static u64 pdpt[4] __attribute__((aligned(4096)));
static u64 pae_dir[2048] __attribute__((aligned(4096)));
static u64 pae_table[512] __attribute__((aligned(4096)));
static u64 pae_low[1024] __attribute__((aligned(4096)));

FAULTS(read, "", "movl 0x40000000, %%eax")
FAULTS(write, "", "movl %%eax, 0x40000000")
FAULTS(locked, "", "lock; addl $0, 0x40000000")
FAULTS(read_cross, "", "movl 0x40000ffe, %%eax")
FAULTS(write_cross, "", "movl %%eax, 0x40000ffd")
FAULTS(read_far, "", "movl 0x80000000, %%eax")
FAULTS(exec, "", "movl $0x40000000, %%eax; movl %%eax, fault_at; call *%%eax")
FAULTS(write_cr0_pe, "movl $0x80000010, %%eax", "movl %%eax, %%cr0")
FAULTS(write_cr0_nw,
       "movl %%cr0, %%eax; andl $0xbfffffff, %%eax; orl $0x20000000, %%eax",
       "movl %%eax, %%cr0")
FAULTS(write_cr4, "movl $0x80000000, %%eax", "movl %%eax, %%cr4")
FAULTS(load_cr3, "movl new_cr3, %%eax", "movl %%eax, %%cr3")
FAULTS(read_ac, "pushfl; orl $0x40000, (%%esp); popfl",
       "movl 0x40000000, %%eax; pushfl; andl $0xfffbffff, (%%esp); popfl")

u32 new_cr3;

/* User programs; they end by INT 80h. */
void p_read(void);
void p_write(void);
__asm__(".text\n"
	"p_read: movl 0x40000000, %eax; int $0x80\n"
	"p_write: movl %eax, 0x40000000; int $0x80\n");

static u32 user_eip;

static void enter(void)
{
	to_user(user_eip, 2);
}

static u32 user(void (*fn)(void))
{
	user_eip = (u32)fn;
	fault_at = user_eip;
	return catch (enter);
}

static void flush(void)
{
	__asm__ volatile("mov %%cr3, %%eax; mov %%eax, %%cr3" ::: "eax", "memory");
}

/* A page fault with this code at this address. */
static void pf(const char *name, u32 got, u32 code, u32 cr2)
{
	int ok = got == PF && trap.cr2 == cr2 && (!fault_at || trap.eip == fault_at);

	if (ok && trap.err == code) {
		check(name, 1);
		fault_at = 0;
		return;
	}
	expect(name, got, PF, (int)code);
	if (got == PF)
		check_eq("  its CR2", trap.cr2, cr2);
}

static void map(u32 n, u32 pte)
{
	table[n] = pte;
	flush();
}

/* ---- 32-bit ---------------------------------------------------------------------------------- */

static void paging_on(void)
{
	for (u32 n = 0; n < 1024; n++)
		low[n] = n << 12 | P | W | U;
	dir[0] = (u32)low | P | W | U;
	dir[1] = 0;
	dir[TEST >> 22] = (u32)table | P | W | U;
	set_cr3((u32)dir);
	set_cr0((cr0() | 1u << 31) & ~(1u << 16));
}

static void not_present(void)
{
	pf("a read of a page not present", catch (read), 0, TEST);
	pf("a write", catch (write), EW, TEST);
	pf("without a page table", catch (read_far), 0, 0x80000000);
	pf("LOCK ADD is a write", catch (locked), EW, TEST);
	pf("a user's read", user(p_read), EU, TEST);
	pf("a user's write", user(p_write), EU | EW, TEST);
	map(0, (u32)scratch | P | W);
	pf("a read into the next page", catch (read_cross), 0, TEST + 0x1000);
	pf("a write into the next page", catch (write_cross), EW, TEST + 0x1000);
	check_eq("which did not write the first", *(u32 *)(scratch + 0xffc), 0);
	map(0, 0);
	pf("a call", catch (exec), 0, TEST);
}

static void rights(void)
{
	map(0, (u32)scratch | P);
	expect("a write to a read-only page without WP", catch (write), NO_TRAP, -1);
	pf("a user's read of a supervisor page", user(p_read), EP | EU, TEST);
	map(0, (u32)scratch | P | U);
	user_eip = (u32)p_read;
	expect("a user's read", catch (enter), DONE, -1);
	pf("a user's write to a read-only page", user(p_write), EP | EU | EW, TEST);
	set_cr0(cr0() | 1u << 16);
	pf("a write to a read-only page with WP", catch (write), EP | EW, TEST);
	pf("LOCK ADD too", catch (locked), EP | EW, TEST);
	expect("a read", catch (read), NO_TRAP, -1);
	map(0, (u32)scratch | P | W | U);
	dir[TEST >> 22] = (u32)table | P | U;
	flush();
	pf("read-only in the directory counts", catch (write), EP | EW, TEST);
	dir[TEST >> 22] = (u32)table | P | W;
	flush();
	pf("so does supervisor", user(p_read), EP | EU, TEST);
	dir[TEST >> 22] = (u32)table | P | W | U;
	set_cr0(cr0() & ~(1u << 16));
	flush();
}

static void accessed(void)
{
	map(0, (u32)scratch | P | W);
	dir[TEST >> 22] &= ~(u32)A;
	flush();
	catch (read);
	check_eq("a read sets A", table[0] & (A | D), A);
	check_eq("in the directory too", dir[TEST >> 22] & (A | D), A);
	catch (write);
	check_eq("a write sets D", table[0] & (A | D), A | D);
	check_eq("not in the directory", dir[TEST >> 22] & D, 0);
	*(u32 *)scratch = 0x11111111;
	*(u32 *)(scratch + 4096) = 0x22222222;
	table[0] = (u32)(scratch + 4096) | P | W;
	__asm__ volatile("invlpg 0x40000000" ::: "memory");
	check_eq("INVLPG makes a new translation visible", *(volatile u32 *)TEST,
		 0x22222222);
	fault_at = 0;
}

static void large(void)
{
	u32 at = (u32)scratch & 0x3fffff;

	set_cr4(cr4() | 0x10);
	dir[TEST >> 22] = P | W | PS;
	flush();
	*(u32 *)scratch = 0x33333333;
	check_eq("a page of 4 MiB", *(volatile u32 *)(TEST + at), 0x33333333);
	check_eq("its A", dir[TEST >> 22] & (A | D), A);
	*(volatile u32 *)(TEST + at) = 1;
	check_eq("its D", dir[TEST >> 22] & (A | D), A | D);
	dir[TEST >> 22] = P | W | PS | 1u << 21;
	flush();
	pf("a reserved bit of it", catch (read), EP | ERSVD, TEST);
	dir[TEST >> 22] = (u32)table | P | W | U;
	set_cr4(cr4() & ~0x10u);
	flush();
}

static void paging_off(void)
{
	set_cr0(cr0() & ~(1u << 31));
}

static void bad_registers(void)
{
	expect("CR0 with PG and without PE is #GP(0)", catch (write_cr0_pe), GP, 0);
	expect("CR0 with NW and without CD is #GP(0)", catch (write_cr0_nw), GP, 0);
	expect("CR4 with an unknown bit is #GP(0)", catch (write_cr4), GP, 0);
}

/* ---- PAE --------------------------------------------------------------------------------------- */

static void set_efer(u32 set, u32 clear)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(0xc0000080));
	__asm__ volatile("wrmsr" ::"a"((lo | set) & ~clear), "d"(hi), "c"(0xc0000080));
}

static void pae_on(u32 user_bit)
{
	for (u32 n = 0; n < 1024; n++)
		pae_low[n] = (u64)n << 12 | P | W | user_bit;
	for (u32 n = 0; n < 4; n++)
		pdpt[n] = (u32)(pae_dir + n * 512) | P;
	pae_dir[0] = (u32)pae_low | P | W | U;
	pae_dir[1] = (u32)(pae_low + 512) | P | W | U;
	pae_dir[TEST >> 21] = (u32)pae_table | P | W | U;
	set_cr4(cr4() | 0x20);
	set_cr3((u32)pdpt);
	set_cr0(cr0() | 1u << 31);
}

static void pae_map(u64 pte)
{
	pae_table[0] = pte;
	flush();
}

static void pae(void)
{
	scratch[0] = 0xc3; /* ret */
	pae_on(U);
	pf("PAE: a page not present", catch (read), 0, TEST);
	pae_map((u32)scratch | P | W | U);
	expect("PAE: a page", catch (read), NO_TRAP, -1);
	check_eq("PAE: its A", (u32)pae_table[0] & (A | D), A);
	expect("PAE: a call into it", catch (exec), NO_TRAP, -1);
	pae_map((u64)1 << 63 | (u32)scratch | P | W | U);
	pf("PAE: NX without NXE is reserved", catch (read), EP | ERSVD, TEST);
	set_efer(1u << 11, 0);
	flush();
	expect("PAE: a read of a page with NX", catch (read), NO_TRAP, -1);
	pf("PAE: a call into it", catch (exec), EP | EI, TEST);
	pae_map(0);
	pf("PAE: a call to a page not present", catch (exec), EI, TEST);
	pae_map((u64)1 << 62 | (u32)scratch | P | W | U);
	pf("PAE: bit 62 is reserved", catch (read), EP | ERSVD, TEST);
	set_efer(0, 1u << 11);
	pae_dir[TEST >> 21] = ((u32)scratch & ~0x1fffffu) | P | W | PS;
	flush();
	check_eq("PAE: a page of 2 MiB",
		 *(volatile u8 *)(TEST + ((u32)scratch & 0x1fffff)), 0xc3);
	pae_dir[TEST >> 21] |= 1u << 13;
	flush();
	pf("PAE: a reserved bit of it", catch (read), EP | ERSVD, TEST);
	pae_dir[TEST >> 21] = (u32)pae_table | P | W | U;
	flush();
	pdpt[3] |= 2;
	new_cr3 = (u32)pdpt;
	expect("PAE: a reserved bit of a PDPTE is #GP(0)", catch (load_cr3), GP, 0);
	pdpt[3] &= ~2ull;
	expect("PAE: without it CR3 loads", catch (load_cr3), NO_TRAP, -1);
}

/* Supervisor code must not execute or read user pages: the low pages are the supervisor's here. */
static void smep_smap(void)
{
	u32 r[4];

	cpuid(7, 0, r);
	pae_on(0);
	pae_map((u32)scratch | P | W | U);
	expect("a supervisor's call into a user page", catch (exec), NO_TRAP, -1);
	if (r[1] & 1u << 7) {
		set_cr4(cr4() | 1u << 20);
		pf("with SMEP", catch (exec), EP | EI, TEST);
		set_cr4(cr4() & ~(1u << 20));
	}
	if (r[1] & 1u << 20) {
		set_cr4(cr4() | 1u << 21);
		pf("a supervisor's read of a user page with SMAP", catch (read), EP,
		   TEST);
		pf("a write", catch (write), EP | EW, TEST);
		expect("a read with EFLAGS.AC", catch (read_ac), NO_TRAP, -1);
		set_cr4(cr4() & ~(1u << 21));
	}
	paging_off();
	set_cr4(cr4() & ~0x20u);
}

void test_paging(void)
{
	bad_registers();
	paging_on();
	not_present();
	rights();
	accessed();
	large();
	paging_off();
	pae();
	smep_smap();
}

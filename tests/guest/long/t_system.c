/* tests/guest/long/t_system.c - control registers, MSRs, FS and GS bases, time stamps. SDM 3A 2.5. */
#include "guest64.h"

FAULTS(cr0_high, "movabs $0x180010011, %%rax", "movq %%rax, %%cr0")
FAULTS(cr0_no_pg, "movq %%cr0, %%rax; btr $31, %%rax", "movq %%rax, %%cr0")
FAULTS(cr4_no_pae, "movq %%cr4, %%rax; btr $5, %%rax", "movq %%rax, %%cr4")
FAULTS(cr4_bad, "movq %%cr4, %%rax; btsq $30, %%rax", "movq %%rax, %%cr4")
FAULTS(cr3_high, "movq %%cr3, %%rax; btsq $60, %%rax", "movq %%rax, %%cr3")
FAULTS(cr1, "", ".byte 0x0f, 0x20, 0xc8")
FAULTS(cr5, "", ".byte 0x0f, 0x22, 0xe8")
FAULTS(cr8_big, "movl $16, %%eax", "movq %%rax, %%cr8")
FAULTS(dr7_high, "movabs $0x100000400, %%rax", "movq %%rax, %%dr7")
FAULTS(efer_lme, "movl $0xc0000080, %%ecx; rdmsr; btrl $8, %%eax", "wrmsr")
FAULTS(efer_bad, "movl $0xc0000080, %%ecx; rdmsr; btsl $2, %%eax", "wrmsr")
FAULTS(msr_unknown, "movl $0x12345, %%ecx", "rdmsr")
FAULTS(pat_bad, "movl $0x277, %%ecx; rdmsr; movb $2, %%al", "wrmsr")
FAULTS(wrfsbase, "xorl %%eax, %%eax", "wrfsbase %%rax")
FAULTS(wrgsbase_bad, "movabs $0x800000000000, %%rax", "wrgsbase %%rax")
FAULTS(xgetbv, "xorl %%ecx, %%ecx", "xgetbv")
FAULTS(xsetbv_0, "xorl %%ecx, %%ecx; xorl %%edx, %%edx; xorl %%eax, %%eax", "xsetbv")
FAULTS(xsetbv_avx, "xorl %%ecx, %%ecx; xorl %%edx, %%edx; movl $5, %%eax", "xsetbv")
FAULTS(xsetbv_1, "movl $1, %%ecx; xorl %%edx, %%edx; movl $3, %%eax", "xsetbv")
FAULTS(rdpmc, "movl $0x12345, %%ecx", "rdpmc")
FAULTS(rsm, "", "rsm")
FAULTS(cmpxchg16b, "", "cmpxchg16b scratch + 8")

USER(u_rdtsc, "", "rdtsc")
USER(u_cr8, "", "movq %cr8, %rax")
USER(u_swapgs, "", "swapgs")
USER(u_wbinvd, "", "wbinvd")
USER(u_xsetbv, "xorl %ecx, %ecx; xorl %edx, %edx; movl $3, %eax", "xsetbv")
USER(u_sgdt, "", "sgdt scratch")

static void control(void)
{
	u64 v;

	expect("CR0 with an upper bit is #GP(0)", catch (cr0_high), GP, 0);
	expect("CR0 without PG in 64-bit code is #GP(0)", catch (cr0_no_pg), GP, 0);
	expect("CR4 without PAE is #GP(0)", catch (cr4_no_pae), GP, 0);
	expect("CR4 with an unknown bit is #GP(0)", catch (cr4_bad), GP, 0);
	expect("CR3 with a reserved bit is #GP(0)", catch (cr3_high), GP, 0);
	expect("CR1 is #UD", catch (cr1), UD, -1);
	expect("CR5 is #UD", catch (cr5), UD, -1);
	expect("CR8 above 15 is #GP(0)", catch (cr8_big), GP, 0);
	__asm__ volatile("movq %0, %%cr8" ::"r"(5ull));
	__asm__ volatile("movq %%cr8, %0" : "=r"(v));
	check_eq("CR8 keeps its value", v, 5);
	__asm__ volatile("movq %0, %%cr8" ::"r"(0ull));
	expect("DR7 with an upper bit is #GP(0)", catch (dr7_high), GP, 0);
	expect("RSM is #UD", catch (rsm), UD, -1);
	expect("CMPXCHG16B unaligned is #GP(0)", catch (cmpxchg16b), GP, 0);
	expect("CR8 at privilege 3 is #GP(0)", run_user(u_cr8, u_cr8_at), GP, 0);
	expect("SWAPGS", run_user(u_swapgs, u_swapgs_at), GP, 0);
	expect("WBINVD", run_user(u_wbinvd, u_wbinvd_at), GP, 0);
	expect("SGDT is allowed", run_user(u_sgdt, 0), DONE, -1);
}

static void msrs(void)
{
	u64 v, w;

	expect("EFER.LME cannot change under paging: #GP(0)", catch (efer_lme), GP, 0);
	expect("EFER with a reserved bit is #GP(0)", catch (efer_bad), GP, 0);
	expect("an MSR that is not there is #GP(0)", catch (msr_unknown), GP, 0);
	expect("PAT with a type that is not there is #GP(0)", catch (pat_bad), GP, 0);
	expect("RDPMC of a counter that is not there is #GP(0)", catch (rdpmc), GP, 0);
	wrmsr(0xc0000101, 0x1111);
	wrmsr(0xc0000102, 0xffff800000002222);
	__asm__ volatile("swapgs");
	check_eq("SWAPGS", rdmsr(0xc0000101), 0xffff800000002222);
	check_eq("puts the old base away", rdmsr(0xc0000102), 0x1111);
	v = rdmsr(0x10);
	__asm__ volatile("rdtsc; shlq $32, %%rdx; orq %%rdx, %0" : "=a"(w)::"rdx");
	check_eq("RDTSC and the MSR agree", w - v < 100000000, 1);
	wrmsr(0x10, v + 1000000000000ull);
	check_eq("a write of the TSC moves it", rdmsr(0x10) - v >= 1000000000000ull, 1);
	check_eq("and TSC_ADJUST", rdmsr(0x3b) > 900000000000ull, 1);
	wrmsr(0x3b, 0);
	check_eq("as TSC_ADJUST moves the TSC", rdmsr(0x10) - v < 100000000000ull, 1);
	expect("RDTSC at privilege 3", run_user(u_rdtsc, 0), DONE, -1);
	set_cr4(cr4() | 4);
	expect("with CR4.TSD it is #GP(0)", run_user(u_rdtsc, u_rdtsc_at), GP, 0);
	set_cr4(cr4() & ~4ull);
}

static void bases(void)
{
	u32 r[4];
	u64 v;

	cpuid(7, 0, r);
	if (!(r[1] & 1))
		return;
	expect("WRFSBASE without CR4.FSGSBASE is #UD", catch (wrfsbase), UD, -1);
	set_cr4(cr4() | 1 << 16);
	__asm__ volatile("wrfsbase %0" ::"r"(scratch));
	*(u64 *)(scratch + 16) = 0x1122334455667788;
	__asm__ volatile("movq %%fs:16, %0" : "=r"(v));
	check_eq("WRFSBASE sets the base", v, 0x1122334455667788);
	__asm__ volatile("rdfsbase %0" : "=r"(v));
	check_eq("RDFSBASE reads it", v, (u64)scratch);
	expect("WRGSBASE with an address in the hole is #GP(0)", catch (wrgsbase_bad),
	       GP, 0);
	__asm__ volatile("movl %0, %%fs" ::"r"(0));
	check_eq("a null selector clears the base", rdmsr(0xc0000100), 0);
	set_cr4(cr4() & ~(1ull << 16));
}

static void xcr0(void)
{
	u32 r[4];

	cpuid(1, 0, r);
	if (!(r[2] & 1u << 26))
		return;
	check_eq("CPUID.OSXSAVE follows CR4", r[2] >> 27 & 1, 0);
	expect("XGETBV without it is #UD", catch (xgetbv), UD, -1);
	set_cr4(cr4() | 1 << 18);
	cpuid(1, 0, r);
	check_eq("and with it", r[2] >> 27 & 1, 1);
	expect("XSETBV without x87 is #GP(0)", catch (xsetbv_0), GP, 0);
	expect("XSETBV of AVX without SSE is #GP(0)", catch (xsetbv_avx), GP, 0);
	expect("XSETBV of XCR1 is #GP(0)", catch (xsetbv_1), GP, 0);
	expect("XSETBV at privilege 3 is #GP(0)", run_user(u_xsetbv, u_xsetbv_at), GP,
	       0);
	__asm__ volatile("xsetbv" ::"a"(3), "d"(0), "c"(0));
	cpuid(13, 0, r);
	check_eq("CPUID.D follows XCR0", r[1], 576);
	set_cr4(cr4() & ~(1ull << 18));
}

void test_system(void)
{
	control();
	msrs();
	bases();
	xcr0();
}

/*
 * tests/guest/long/guest64.h - what the tests of 64-bit mode are made of: as tests/guest/modes, with the
 * processor in long mode.
 */
#ifndef GUEST64_H
#define GUEST64_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum {
	SEL_CODE = 0x08, /* SYSCALL takes this and the next */
	SEL_DATA = 0x10,
	SEL_CODE32_3 = 0x1b, /* SYSRET takes this and the two behind it */
	SEL_DATA3 = 0x23,
	SEL_CODE3 = 0x2b,
	SEL_CODE32 = 0x30,
	SEL_TSS = 0x40, /* two entries */
	SEL_FREE = 0x50,
	SEL_LIMIT = 0x100,
};

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC };

#define NO_TRAP 0x100
#define DONE    0x80

struct trap {
	u64 r15, r14, r13, r12, r11, r10, r9, r8;
	u64 rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vec, err, rip, cs, rflags, rsp, ss, cr2;
};

struct tss {
	u32 spare0;
	u64 rsp[3], spare1, ist[7], spare2;
	u16 spare3, iomap;
} __attribute__((packed));

struct gate {
	u64 lo, hi;
};

extern volatile struct trap trap;
extern volatile u64 fault_at;
extern u64 gdt[SEL_LIMIT / 8];
extern struct gate idt[256];
extern struct tss tss;
extern u8 scratch[8192];
extern u8 user_stack[4096], trap_stack[8192], ist_stack[4096];
extern u64 pml4[512], pdpt[512],
	dir[512]; /* the first GiB in 2 MiB pages, open to all */

u64 catch (void (*fn)(void));
void expect(const char *name, u64 got, u64 vec, int err);
void check_eq(const char *name, u64 got, u64 want);
void pf(const char *name, u64 got, u64 code, u64 cr2);

u64 seg_desc(u32 attr); /* flat; access byte | flags << 8 */
void idt_reset(void);
void idt_set(u32 vec, u32 sel, const void *to, u32 attr, u32 ist);

/* Goes to privilege 3 at rip. */
void to_user(u64 rip, u64 rflags);

void test_canonical(void);
void test_gates(void);
void test_calls(void);
void test_system(void);
void test_paging(void);

#define CR(n)                                                            \
	static inline u64 cr##n(void)                                    \
	{                                                                \
		u64 v;                                                   \
                                                                         \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(v));        \
		return v;                                                \
	}                                                                \
	static inline void set_cr##n(u64 v)                              \
	{                                                                \
		__asm__ volatile("mov %0, %%cr" #n ::"r"(v) : "memory"); \
	}
CR(0)
CR(3)
CR(4)

static inline u64 rdmsr(u32 n)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(n));
	return lo | (u64)hi << 32;
}

static inline void wrmsr(u32 n, u64 v)
{
	__asm__ volatile("wrmsr" ::"a"((u32)v), "d"((u32)(v >> 32)), "c"(n));
}

static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
			 : "a"(leaf), "c"(sub));
}

static inline int is_intel(void)
{
	u32 r[4];

	cpuid(0, 0, r);
	return r[1] == 0x756e6547;
}

/* Functions for catch(): rax, rcx, rdx, rsi, rdi, r8 to r11 may be changed. */
#define CLOBBERS \
	"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc"
#define FAULTS(name, setup, insn)                                                  \
	static void name(void)                                                     \
	{                                                                          \
		__asm__ volatile(setup "\n\tmovq $9f, fault_at\n9:\t" insn "\n" :: \
					 : CLOBBERS);                              \
	}
#define TRAPS(name, setup, insn)                                                     \
	static void name(void)                                                       \
	{                                                                            \
		__asm__ volatile(setup "\n\tmovq $9f, fault_at\n\t" insn "\n9:\n" :: \
					 : CLOBBERS);                                \
	}
/* A program for privilege 3, which ends by INT 80h. */
#define USER(name, setup, insn)                                        \
	void name(void);                                               \
	extern u8 name##_at[];                                         \
	__asm__(".text\n" #name ":\n\t" setup "\n" #name "_at:\t" insn \
		"\n\tint $0x80\n");

/* Runs a user program; at: where the trap must be, NULL anywhere. */
u64 run_user(void (*fn)(void), const u8 *at);

#endif

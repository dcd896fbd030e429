/*
 * tests/guest/modes/guest.h - what the tests of processor modes are made of. These programs run on the bare
 * processor (emulated, KVM or real) as a multiboot kernel, print TAP to the debug port and the first
 * serial port, and end by a write to port 0xf4.
 */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* Selectors. From SEL_FREE on the tests put what they want. */
enum {
	SEL_CODE = 0x08,
	SEL_DATA = 0x10,
	SEL_CODE3 = 0x1b,
	SEL_DATA3 = 0x23,
	SEL_TSS = 0x28,
	SEL_TSS2 = 0x30,
	SEL_LDT = 0x38,
	SEL_CODE16 = 0x40,
	SEL_DATA16 = 0x48,
	SEL_FREE = 0x50,
	SEL_LIMIT = 0x100,
};

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC };

#define NO_TRAP 0x100 /* catch(): nothing happened */
#define DONE    0x80  /* the vector by which user and virtual-8086 programs end */

struct trap {
	u32 gs, fs, es, ds;
	u32 edi, esi, ebp, esp0, ebx, edx, ecx, eax;
	u32 vec, err, eip, cs, eflags;
	u32 esp, ss;                        /* from outer privilege */
	u32 v86_es, v86_ds, v86_fs, v86_gs; /* from virtual-8086 mode */
	u32 cr2;
};

struct tss {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
	u8 redirect[32], io[9];
} __attribute__((packed));

extern volatile struct trap trap;
extern volatile u32
	fault_at; /* where the next trap must say that it happened; 0: anywhere */
extern u64 gdt[SEL_LIMIT / 8];
extern u64 idt[256];
extern u64 ldt[16];
extern struct tss tss, tss2;
extern u8 scratch[8192]; /* page-aligned memory for data */
extern u8 user_stack[4096];

/* Runs fn until it returns (NO_TRAP) or something is raised: its vector; `trap` says more. */
u32 catch (void (*fn)(void));

/* One line of TAP: was it `vec` with error code `err` (-1: none is looked at), at fault_at? */
void expect(const char *name, u32 got, u32 vec, int err);
void check(const char *name, int ok);
void check_eq(const char *name, u32 got, u32 want);

u64 seg_desc(u32 base, u32 limit,
	     u32 attr); /* attr: access byte | flags (AVL L D/B G) << 8 */
u64 gate_desc(u32 sel, u32 off, u32 attr);
void gdt_set(u32 sel, u64 d);
void idt_reset(void); /* every vector to the recorder; DONE and INT3 open to all */
u8 gdt_access(u32 sel);

/* Goes to privilege 3 at eip; comes back by a trap only. */
void to_user(u32 eip, u32 eflags);
void to_v86(u32 cs, u32 ip, u32 ss, u32 sp, u32 eflags);

void test_segments(void);
void test_transfers(void);
void test_gates(void);
void test_user(void);
void test_debug(void);
void test_tasks(void);
void test_v86(void);
void test_paging(void);
void test_real(void);

static inline void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline u32 cr0(void)
{
	u32 v;

	__asm__ volatile("mov %%cr0, %0" : "=r"(v));
	return v;
}

static inline void set_cr0(u32 v)
{
	__asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory");
}

static inline u32 cr4(void)
{
	u32 v;

	__asm__ volatile("mov %%cr4, %0" : "=r"(v));
	return v;
}

static inline void set_cr4(u32 v)
{
	__asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory");
}

static inline void set_cr3(u32 v)
{
	__asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory");
}

static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
			 : "a"(leaf), "c"(sub));
}

/*
 * A function for catch(): `setup`, then `insn`, at whose address the trap must say it happened.
 * TRAPS: behind it. All but ebx, esi, edi, ebp, esp may be changed.
 */
#define FAULTS(name, setup, insn)                                                \
	static void name(void)                                                   \
	{                                                                        \
		__asm__ volatile(setup "\n\tmovl $9f, fault_at\n9:\t" insn "\n"  \
				       "\tmovw $0x10, %%ax\n\tmovw %%ax, %%ds\n" \
				       "\tmovw %%ax, %%es\n\tmovw %%ax, %%fs\n"  \
				       "\tmovw %%ax, %%gs\n"                     \
				 :                                               \
				 :                                               \
				 : "eax", "ecx", "edx", "memory", "cc");         \
	}
#define TRAPS(name, setup, insn)                                                  \
	static void name(void)                                                    \
	{                                                                         \
		__asm__ volatile(setup "\n\tmovl $9f, fault_at\n\t" insn "\n9:\n" \
				 :                                                \
				 :                                                \
				 : "eax", "ecx", "edx", "memory", "cc");          \
	}

#endif

/*
 * x86fuzz/hostile.c - guests that try to break out: random code at CPL 0 and 3, in real, 32-bit and 64-bit
 * mode, with random system registers, page tables, descriptors and interrupt gates in memory that
 * it overwrites itself.
 *
 * Guest memory is pieces of 64 KiB, each between pages of the host that nobody may touch; the last one is
 * ROM, which the host may only read. Nothing is compared: an access outside is a signal, which ends
 * the test. Now and then all host code is looked through (check.c). Every second guest has two
 * processors, which change each other's code and tables.
 */
#include "fuzz.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "x86/x86.h"

#define PIECE    0x10000u
#define GUARD    0x10000u
#define N_PIECES 16u /* 1 MiB; then devices */
#define N_CPUS   2u
#define ROM      (N_PIECES - 1)

enum {                    /* guest-physical addresses of what code is likely to find */
       G_TABLES = 0x1000, /* a page for each level */
       G_GDT = 0x6000,
       G_IDT = 0x7000,
       G_TSS = 0x8000,
       G_CODE = 0x10000, /* 128 KiB */
};

static struct {
	uint8_t *map, *piece[N_PIECES];
	struct x86_system *sys;
	struct x86_cpu *cpu[N_CPUS];
	uint64_t guest, exits[8];
	uint64_t seed;
	uint32_t start[2 * PIECE / 64]; /* of blocks, guest-physical */
	unsigned n_starts;
	uint64_t gpr[16]; /* those that the last block is made for */
} h;

/* ---- the machine ------------------------------------------------------------------------------- */

static void *cb_page(void *ctx, uint64_t gpa, bool *writable)
{
	(void)ctx;
	if (gpa / PIECE >= N_PIECES)
		return NULL;
	*writable = gpa / PIECE != ROM;
	return h.piece[gpa / PIECE] + (gpa % PIECE & ~(FZ_PAGE - 1));
}

static uint64_t cb_read(void *ctx, uint64_t gpa, unsigned size)
{
	(void)ctx;
	return gpa * 0x9e3779b97f4a7c15 >> size;
}

static uint32_t cb_in(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	return port * 0x9e3779b1u >> size;
}

static bool cb_msr_get(void *ctx, uint32_t msr, uint64_t *v)
{
	(void)ctx;
	*v = msr;
	return msr & 1;
}

static bool cb_msr_set(void *ctx, uint32_t msr, uint64_t v)
{
	(void)ctx;
	(void)v;
	return msr & 1;
}

static uint64_t cb_hypercall(void *ctx, const uint64_t arg[5])
{
	(void)ctx;
	return arg[0];
}

static struct x86_ops ops;

static void ops_set(void)
{
	ops = fz_quiet_ops;
	ops.page = cb_page;
	ops.mmio_read = cb_read;
	ops.pio_in = cb_in;
	ops.msr_get = cb_msr_get;
	ops.msr_set = cb_msr_set;
	ops.hypercall = cb_hypercall;
}

static bool make_memory(void)
{
	size_t size = (size_t)N_PIECES * (PIECE + GUARD) + GUARD;

	h.map = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		     -1, 0);
	if (h.map == MAP_FAILED)
		return false;
	for (unsigned n = 0; n < N_PIECES; n++) {
		h.piece[n] = h.map + GUARD + (size_t)n * (PIECE + GUARD);
		if (mprotect(h.piece[n], PIECE, PROT_READ | PROT_WRITE) < 0)
			return false;
	}
	return true;
}

static uint8_t *at(uint64_t gpa)
{
	return h.piece[gpa / PIECE] + gpa % PIECE;
}

static void on_crash(int sig, siginfo_t *si, void *context)
{
	char text[160];
	int n = snprintf(text, sizeof(text),
			 "ESCAPE: signal %d at %p in guest %llu of seed %llu\n", sig,
			 si->si_addr, (unsigned long long)h.guest,
			 (unsigned long long)h.seed);

	(void)context;
	if (write(STDOUT_FILENO, text, (size_t)n) < 0)
		_exit(4);
	_exit(3);
}

static void on_alarm(int sig)
{
	(void)sig;
	for (unsigned n = 0; n < N_CPUS; n++)
		x86_kick(h.cpu[n]);
}

static bool make_machine(bool translate)
{
	static struct x86_cpuid leaves[128];
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO};
	size_t n = x86_cpuid_supported(leaves, 128);
	struct err err;

	ops_set();
	h.sys = x86_system_new(&ops, NULL, NULL);
	if (!make_memory() || !h.sys)
		return false;
	if (translate)
		x86_system_translate(h.sys, 1 << 20, 1);
	for (unsigned c = 0; c < N_CPUS; c++) {
		h.cpu[c] = x86_cpu_new(h.sys, c, NULL, leaves, n, &err);
		if (!h.cpu[c])
			return false;
	}
	for (unsigned s = 0; s < sizeof(crashes) / sizeof(crashes[0]); s++)
		sigaction(crashes[s], &sa, NULL);
	signal(SIGALRM, on_alarm);
	return true;
}

/* ---- a guest ----------------------------------------------------------------------------------- */

static void put64(uint64_t gpa, uint64_t v)
{
	memcpy(at(gpa), &v, 8);
}

/* Instructions for the system, operands to follow at random. */
static unsigned system_insn(uint8_t *p)
{
	static const char *const text[] = {
		"\x0f\x00",     "\x0f\x01",     "\x0f\x01",     "\x0f\x20",
		"\x0f\x21",     "\x0f\x22",     "\x0f\x23",     "\x0f\x30",
		"\x0f\x32",     "\x0f\x05",     "\x0f\x07",     "\x0f\x34",
		"\x0f\x35",     "\x0f\x06",     "\x0f\x08",     "\x0f\x09",
		"\x0f\xa2",     "\x0f\x31",     "\x0f\xc7",     "\x0f\xae",
		"\x0f\x0b",     "\xcf",         "\x48\xcf",     "\xcd",
		"\x9d",         "\xfa",         "\xfb",         "\xea",
		"\xcb",         "\xca",         "\x8e",         "\xe4",
		"\xe6",         "\xec",         "\xee",         "\x6c",
		"\x6e",         "\xf3\x6c",     "\xf3\xa4",     "\xf3\xaa",
		"\xf3\x48\xa5", "\xf3\x48\xab", "\x48\x0f\x22", "\x66\x0f\x38\x82",
		"\xff",         "\x48\x0f\x07", "\x67\xf3\xa5", "\xc8",
		"\xc9",         "\x62"};
	unsigned pick = fz_below(sizeof(text) / sizeof(text[0]));
	unsigned len = (unsigned)strlen(text[pick]);
	uint64_t more = fz_rand();

	memcpy(p, text[pick], len);
	memcpy(p + len, &more, 8);
	return len + fz_below(5);
}

/* Code everywhere in its room: good blocks, system instructions, noise. */
static void put_code(struct fz_form *forms, unsigned n)
{
	static struct fz_block b;
	unsigned pos = 0;

	h.n_starts = 0;
	while (pos + FZ_CODE_MAX + 32 < PIECE) {
		uint8_t *p = at(G_CODE + pos), *q = at(G_CODE + PIECE + pos);

		fz_make_block(&b, forms, n);
		memcpy(p, b.k.code, b.k.len);
		memcpy(q, b.k.code, b.k.len);
		for (unsigned x = fz_below(6); x; x--)
			system_insn(p + fz_below(b.k.len));
		for (unsigned x = fz_below(4); x; x--)
			q[fz_below(b.k.len)] = (uint8_t)fz_rand();
		for (unsigned x = 0; x < 2 && h.n_starts < sizeof(h.start) / 4; x++)
			h.start[h.n_starts++] = G_CODE + x * PIECE + pos;
		pos += b.k.len;
	}
	memcpy(h.gpr, b.k.in.gpr, sizeof(h.gpr));
}

/* The last level: mostly what is there without paging, so that code and tables are found. */
static uint64_t last_entry(unsigned n)
{
	static const uint64_t flags[] = {7, 7, 7, 3, 5, 1, 0x67, 0x107, 1ull << 63 | 7,
					 0};
	uint64_t to = (n & (N_PIECES * 16 - 1)) * FZ_PAGE;

	if (n < 16 || !fz_one_in(6))
		return to | 7;
	if (fz_one_in(3))
		to = (uint64_t)fz_below(N_PIECES * 16 + 2) * FZ_PAGE;
	return to | flags[fz_below(10)];
}

/* Each address is mapped: every table is one whose entries lead to the next level's only one. */
static void put_tables(void)
{
	for (unsigned level = 0; level < 4; level++) {
		for (unsigned n = 0; n < 512; n++) {
			uint64_t e = (G_TABLES + (level + 1) * FZ_PAGE) | 7;

			if (level == 3)
				e = last_entry(n);
			else if (level == 2 && fz_one_in(16)) /* a large page */
				e = (fz_one_in(4) ? fz_below(2) << 21 : 0) | 0x87;
			if (n >= 16 && fz_one_in(64))
				e = fz_rand();
			put64(G_TABLES + level * FZ_PAGE + n * 8, e);
		}
	}
}

static uint64_t code_address(void)
{
	if (fz_one_in(8))
		return G_CODE + fz_below(2 * PIECE);
	return h.start[fz_below(h.n_starts)];
}

static void put_gates(bool m64)
{
	static const uint64_t gdt[] = {0,
				       0x00af9b000000ffff,
				       0x00cf93000000ffff,
				       0x00cffb000000ffff,
				       0x00cff3000000ffff,
				       0x00affb000000ffff,
				       0x00cf9b000000ffff,
				       0x00009b000000ffff};

	for (unsigned n = 0; n < 64; n++)
		put64(G_GDT + n * 8, n < 8 ? gdt[n] : fz_rand());
	for (unsigned v = 0; v < 256; v++) {
		uint64_t to = code_address(),
			 kind = fz_one_in(8) ? fz_rand() & 0xff : 0xee;
		uint64_t gate =
			(to & 0xffff) | 8ull << 16 | kind << 40 | (to >> 16) << 48;

		gate |= m64 && !fz_one_in(4) ? 1ull << 32 : 0; /* a good stack */
		if (!m64)
			gate += 0x28ull << 16; /* 32-bit code */
		if (m64) {
			put64(G_IDT + 16 * v, gate);
			put64(G_IDT + 16 * v + 8, fz_one_in(32) ? fz_rand() : 0);
		} else {
			put64(G_IDT + 8 * v, gate);
		}
	}
	for (unsigned n = 0; n < 26; n++) /* stacks */
		put64(G_TSS + 4 + n * 8,
		      fz_one_in(16) ? fz_rand() : 0x9000 + fz_below(0x6000));
}

static struct x86_seg segment(uint16_t sel, uint16_t attr)
{
	return (struct x86_seg){.sel = sel, .attr = attr, .limit = 0xffffffff};
}

enum kind { REAL, KERNEL32, USER32, KERNEL64, USER64, KINDS };

static void fill_regs(struct x86_regs *r, enum kind kind)
{
	bool user = kind == USER32 || kind == USER64, m64 = kind >= KERNEL64;

	for (unsigned n = 0; n < 16; n++)
		r->gpr[n] = fz_one_in(3)   ? fz_int()
			    : fz_one_in(3) ? fz_below(N_PIECES * PIECE + 64)
					   : h.gpr[n];
	r->rip = code_address();
	r->rflags = 2 | (fz_rand() & 0xcd5) | (fz_one_in(4) ? 0x3000 : 0) |
		    (fz_one_in(32) ? 0x100 : 0);
	if (kind == REAL) {
		r->rip &= 0xffff;
		r->seg[X86_CS].base = G_CODE;
		r->seg[X86_CS].sel = G_CODE >> 4;
		return;
	}
	r->cr0 = fz_one_in(4) && !m64 ? 0x33 : 0x80050033;
	r->cr3 = G_TABLES;
	r->cr4 = 0x506e8 | (fz_rand() & 0x320010);
	r->efer = m64 ? 0xd01 : 0x801;
	if (!m64) { /* PAE's tables begin a level lower */
		r->cr3 = G_TABLES + FZ_PAGE;
		for (unsigned n = 0; n < 4; n++) {
			r->pdpte[n] = (G_TABLES + 2 * FZ_PAGE) | 1;
			put64(r->cr3 + n * 8, r->pdpte[n]);
		}
	}
	r->xcr0 = FZ_XCR0;
	for (unsigned s = X86_ES; s <= X86_GS; s++)
		r->seg[s] = user ? segment(0x23, 0xc0f3) : segment(0x10, 0xc093);
	r->seg[X86_CS] = m64 ? segment(user ? 0x2b : 8, user ? 0xa0fb : 0xa09b)
			     : segment(user ? 0x1b : 0x30, user ? 0xc0fb : 0xc09b);
	r->seg[X86_LDTR] = (struct x86_seg){0};
	r->seg[X86_TR] = (struct x86_seg){
		.sel = 0x40, .attr = 0x8b, .limit = 103, .base = G_TSS};
	r->gdtr = (struct x86_dtable){G_GDT, 0x1ff};
	r->idtr = (struct x86_dtable){G_IDT, 0xfff};
}

static bool make_guest(struct fz_form *forms, unsigned n)
{
	enum kind kind = (enum kind)fz_below(KINDS);
	static struct x86_regs r;

	mprotect(h.piece[ROM], PIECE, PROT_READ | PROT_WRITE);
	for (unsigned p = 0; p < N_PIECES; p++)
		for (unsigned b = 0; b < PIECE; b += 1024)
			fz_vector(h.piece[p] + b, 32);
	put_code(forms, n);
	put_tables();
	put_gates(kind >= KERNEL64);
	memcpy(h.piece[ROM], at(G_CODE), PIECE);
	mprotect(h.piece[ROM], PIECE, PROT_READ);
	x86_memory_written(h.sys, 0, N_PIECES * PIECE);
	for (unsigned c = 0; c < N_CPUS; c++) {
		x86_cpu_reset(h.cpu[c]);
		x86_get_regs(h.cpu[c], &r);
		fill_regs(&r, kind);
		if (x86_set_regs(h.cpu[c], &r) < 0)
			return false;
	}
	return true;
}

static void *run_cpu(void *cpu)
{
	enum x86_exit why = x86_run(cpu);

	__atomic_fetch_add(&h.exits[why & 7], 1, __ATOMIC_RELAXED);
	return NULL;
}

/* For 3 ms, or until the guest halts or shuts down. */
static bool run_guest(unsigned cpus)
{
	struct timespec limit = {0, 3000000};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec once = {.it_value = limit, .it_interval = limit}, off = {0};
	static timer_t timer;
	static bool made;
	pthread_t other;

	if (!made && timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0)
		return false;
	made = true;
	timer_settime(timer, 0, &once, NULL);
	if (cpus > 1 && pthread_create(&other, NULL, run_cpu, h.cpu[1]) != 0)
		return false;
	run_cpu(h.cpu[0]);
	if (cpus > 1)
		pthread_join(other, NULL);
	timer_settime(timer, 0, &off, NULL);
	return true;
}

int fz_hostile(const struct fz_options *o, struct fz_form *forms, unsigned n)
{
	struct timespec t;
	unsigned checked = 0, wrong = 0;
	struct x86_stats st;
	time_t end;

	clock_gettime(CLOCK_MONOTONIC, &t);
	end = t.tv_sec + o->seconds;
	h.seed = o->seed;
	fz_kernel = true; /* no instruction is left out */
	if (!make_machine(o->translate)) {
		fprintf(stderr, "x86fuzz: cannot make a machine\n");
		return 1;
	}
	for (; o->runs ? h.guest < o->runs : t.tv_sec < end; h.guest++) {
		if (!make_guest(forms, n) || !run_guest(1 + h.guest % 2)) {
			printf("guest %llu cannot be run\n",
			       (unsigned long long)h.guest);
			return 1;
		}
		for (unsigned c = 0; h.guest % 8 == 0 && c < N_CPUS; c++)
			wrong += fz_check_code(h.cpu[c], &checked);
		clock_gettime(CLOCK_MONOTONIC, &t);
	}
	x86_get_stats(h.cpu[0], &st);
	printf("%llu hostile guests: %llu stopped, %llu halted, %llu shut down; %llu "
	       "exceptions, %llu translations; %u looked through, %u faults\n",
	       (unsigned long long)h.guest, (unsigned long long)h.exits[X86_EXIT_KICK],
	       (unsigned long long)h.exits[X86_EXIT_HALT],
	       (unsigned long long)h.exits[X86_EXIT_SHUTDOWN],
	       (unsigned long long)st.exceptions, (unsigned long long)st.translated,
	       checked, wrong);
	for (unsigned c = 0; c < N_CPUS; c++)
		x86_cpu_free(h.cpu[c]);
	x86_system_free(h.sys);
	return wrong != 0;
}

/*
 * x86fuzz/native.c - runs a case on the processor itself.
 *
 * The kernel does the switching: a trap into a signal handler, which changes the interrupted context
 * to the case's and returns into it; the case ends in a trap (INT3 is everywhere behind the
 * instruction), whose handler takes the state and puts the first context back.
 */
#include "fuzz.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef UC_SIGCONTEXT_SS
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4
#endif

#define FRAME_MAX 8192 /* of floating-point state in a signal frame */

enum phase { IDLE, ENTER, RUN };

static volatile enum phase phase;
static const struct fz_case *cur_case;
static struct fz_result *cur_result;
static greg_t main_gregs[NGREG];
static unsigned long main_flags;
static uint8_t main_fp[FRAME_MAX];
static unsigned main_fp_size;
static volatile unsigned run_count, last_tick, ticks;
static uint8_t *views[FZ_N_MEM];
static uint64_t main_fs; /* 0: cannot be restored */

struct fz_region fz_regions[FZ_N_MEM] = {
	{FZ_CODE, 2, false, true},
	{FZ_DATA, 2, true, false},
	{FZ_RO, 1, false, false},
	{FZ_STACK, 2, true, false},
};

/* ucontext's registers in the order of the encoding. */
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				REG_R12, REG_R13, REG_R14, REG_R15};

static uint8_t *fp_of(ucontext_t *uc)
{
	return (uint8_t *)uc->uc_mcontext.fpregs;
}

/* Bytes of the frame's floating-point state: in the software-reserved bytes of FXSAVE. */
static unsigned fp_size(ucontext_t *uc)
{
	uint32_t magic, size;

	memcpy(&magic, fp_of(uc) + 464, 4);
	memcpy(&size, fp_of(uc) + 468, 4);
	return magic == 0x46505853 && size <= FRAME_MAX ? size : 512;
}

static void context_enter(ucontext_t *uc)
{
	const struct fz_state *s = &cur_case->in;
	greg_t *g = uc->uc_mcontext.gregs;
	uint64_t bv = 7;

	memcpy(main_gregs, g, sizeof(main_gregs));
	main_flags = uc->uc_flags;
	main_fp_size = fp_size(uc);
	memcpy(main_fp, fp_of(uc), main_fp_size);

	for (unsigned n = 0; n < 16; n++)
		g[greg_of[n]] = (greg_t)s->gpr[n];
	g[REG_RIP] = (greg_t)s->rip;
	g[REG_EFL] = (greg_t)s->rflags;
	if (cur_case->m32)
		g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | 0x23;
	memcpy(fp_of(uc), s->xsave, 28);
	memcpy(fp_of(uc) + 32, s->xsave + 32, 416 - 32);
	memcpy(fp_of(uc) + 512, &bv, 8);
	memcpy(fp_of(uc) + 576, s->xsave + 576, 256);
	phase = RUN;
}

static void context_leave(ucontext_t *uc)
{
	struct fz_result *r = cur_result;
	greg_t *g = uc->uc_mcontext.gregs;
	uint64_t bv;

	memset(&r->s, 0, sizeof(r->s));
	for (unsigned n = 0; n < 16; n++)
		r->s.gpr[n] = (uint64_t)g[greg_of[n]];
	r->s.rip = (uint64_t)g[REG_RIP];
	r->s.rflags = (uint64_t)g[REG_EFL];
	memcpy(r->s.xsave, fp_of(uc), FZ_XSAVE);
	memcpy(&bv, fp_of(uc) + 512, 8);
	if (!(bv & 1)) {
		uint32_t mxcsr;

		memcpy(&mxcsr, r->s.xsave + 24, 4);
		memset(r->s.xsave, 0, 160);
		r->s.xsave[0] = 0x7f;
		r->s.xsave[1] = 3;
		memcpy(r->s.xsave + 24, &mxcsr, 4);
	}
	if (!(bv & 2))
		memset(r->s.xsave + 160, 0, 256);
	if (!(bv & 4))
		memset(r->s.xsave + 576, 0, 256);
	r->vec = (unsigned)g[REG_TRAPNO];
	r->err = (uint64_t)g[REG_ERR];
	r->cr2 = (uint64_t)g[REG_CR2];

	memcpy(g, main_gregs, sizeof(main_gregs));
	memcpy(fp_of(uc), main_fp, main_fp_size);
	uc->uc_flags = main_flags | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	phase = IDLE;
}

/* A trap outside of the case: lib/x86 itself fails. */
static void crashed(int sig, const ucontext_t *uc)
{
	char text[128];

	fflush(stdout);
	if (cur_case) {
		fz_disassemble(cur_case, text, sizeof(text));
		fprintf(stderr, "x86fuzz: signal %d at %llx after '%s',", sig,
			(unsigned long long)uc->uc_mcontext.gregs[REG_RIP], text);
		for (unsigned n = 0; n < 15; n++)
			fprintf(stderr, " %02x", cur_case->code[n]);
		fprintf(stderr, "\n");
	}
	signal(sig, SIG_DFL);
}

/* Into C code: a jump into the middle of an instruction may have loaded FS; the kernel leaves AC. */
static void own_state(void)
{
	if (main_fs)
		__asm__ volatile("wrfsbase %0" : : "r"(main_fs));
	__asm__ volatile("pushfq; andl $~0x40000, (%%rsp); popfq" : : : "memory", "cc");
}

static void on_trap(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;

	(void)si;
	own_state();
	if (phase == ENTER) {
		context_enter(uc);
	} else if (phase == RUN) {
		context_leave(uc);
	} else {
		crashed(sig, uc);
	}
}

static void on_tick(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)si;
	own_state();
	if (run_count != last_tick) {
		last_tick = run_count;
		ticks = 0;
		return;
	}
	ticks++;
	if (phase == RUN && ticks > 4) {
		context_leave(context);
		cur_result->vec = FZ_HANG;
	} else if (
		phase == IDLE &&
		ticks > (fz_kernel
				 ? 8
				 : 250)) { /* slower than the processor, but not so much */
		fz_emu_kick();
	}
}

static bool map_region(unsigned n)
{
	const struct fz_region *g = &fz_regions[n];
	size_t size = g->pages * FZ_PAGE;
	int prot = PROT_READ | (g->write ? PROT_WRITE : 0) | (g->exec ? PROT_EXEC : 0);
	int fd = memfd_create("x86fuzz", 0);
	void *p = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, (off_t)size) == 0)
		p = mmap((void *)g->va, size, prot,
			 MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, 0);
	if (p != MAP_FAILED)
		views[n] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED || views[n] == MAP_FAILED) {
		fprintf(stderr, "x86fuzz: cannot map 0x%llx: %s\n",
			(unsigned long long)g->va, strerror(errno));
		return false;
	}
	close(fd);
	return true;
}

bool fz_native_init(void)
{
	static const int traps[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction sa = {.sa_sigaction = on_trap,
			       .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct itimerval every = {{0, 4000}, {0, 4000}};
	static uint8_t stack[1 << 18];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	for (unsigned n = 0; n < FZ_N_MEM; n++)
		if (!map_region(n))
			return false;
	sigaltstack(&ss, NULL);
	sigfillset(&sa.sa_mask);
	for (unsigned n = 0; n < sizeof(traps) / sizeof(traps[0]); n++)
		sigaction(traps[n], &sa, NULL);
	sa.sa_sigaction = on_tick;
	sigaction(SIGPROF, &sa, NULL);
	setitimer(ITIMER_PROF, &every, NULL);
	if (getauxval(AT_HWCAP2) & 2) /* FSGSBASE */
		__asm__ volatile("rdfsbase %0" : "=r"(main_fs));
	return true;
}

uint8_t *fz_native_mem(unsigned region)
{
	return views[region];
}

void fz_native_skip(void)
{
	run_count++;
}

void fz_native_run(const struct fz_case *k, struct fz_result *r)
{
	uint16_t ds = 0x2b;

	/* for 32-bit code; 64-bit code does not use them */
	__asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(ds));
	cur_case = k;
	cur_result = r;
	run_count++;
	phase = ENTER;
	__asm__ volatile("int3" : : : "memory");
	/* what returning from a signal does not restore: ID, NT */
	__asm__ volatile("pushfq; andl $~0x204000, (%%rsp); popfq"
			 :
			 :
			 : "memory", "cc");
	run_count++;
}

/*
 * tests/unit/test_emu.c - the emulator engine: small real-mode guests that use the local APIC through
 * its x2APIC registers, start each other, sleep and are woken, and are saved and restored.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/time.h"
#include "emu/emu.h"
#include "vm/dma.h"

#define CPUS      2
#define RAM_SIZE  (1u << 20)
#define CODE      0x1000u /* where guests start */
#define SCRATCH   0x5000u /* what they count in */
#define PORT      0x80    /* what they tell */
#define MAX_TOLD  64
#define LIMIT_SEC 20

/* clang-format off */
#define GUEST(name, body)                                              \
	extern const uint8_t guest_##name[], guest_##name##_end[];     \
	__asm__(".pushsection .rodata\n.code16\n"                      \
		"guest_" #name ":\n" body "\nguest_" #name "_end:\n"   \
		".code64\n.popsection\n")

/* Interrupt vector `vec` goes to `label` of this guest; DS = 0. */
#define VECTOR(vec, guest, label)                                      \
	"movw $0x1000 + " label " - guest_" guest ", " vec " * 4\n"    \
	"movw $0, " vec " * 4 + 2\n"
#define WRMSR(msr, high, low)                                          \
	"movl $" msr ", %ecx\nmovl $" high ", %edx\nmovl $" low ", %eax\nwrmsr\n"
#define X2APIC WRMSR("0x1b", "0", "0xfee00d00") WRMSR("0x80f", "0", "0x1ff")
#define X2APIC_AP WRMSR("0x1b", "0", "0xfee00c00") WRMSR("0x80f", "0", "0x1ff")
#define TELL(v) "movb $" v ", %al\noutb %al, $0x80\n"

/* The timer wakes it; it starts processor 1, which sends it an interrupt, which it answers by an NMI. */
GUEST(smp,
	VECTOR("0x40", "smp", "1f") VECTOR("0x41", "smp", "2f") VECTOR("2", "smp", "4f")
	X2APIC
	WRMSR("0x832", "0", "0x40") WRMSR("0x83e", "0", "0xb") WRMSR("0x838", "0", "1000000")
	"sti\n hlt\n cli\n"
	TELL("3")
	WRMSR("0x830", "1", "0x4500")	/* INIT */
	WRMSR("0x830", "1", "0x4602")	/* start at 2000h */
	"sti\n hlt\n"
	TELL("6")
	WRMSR("0x830", "1", "0x4400")	/* NMI */
	"cli\n hlt\n"
	"1:\n" TELL("1") WRMSR("0x80b", "0", "0") TELL("2") "iretw\n"
	"2:\n" TELL("5") WRMSR("0x80b", "0", "0") "iretw\n"
	"4:\n" TELL("7") "iretw\n"
	".org guest_smp + 0x1000\n"
	X2APIC_AP
	TELL("4")
	WRMSR("0x830", "0", "0x41")
	"cli\n hlt\n"
	"hlt\n");

/* Counts interrupt 50h, asleep in between. */
GUEST(count,
	VECTOR("0x50", "count", "1f")
	X2APIC
	TELL("1")
	"2: sti\n hlt\n jmp 2b\n"
	"1: incl 0x5000\n" WRMSR("0x80b", "0", "0") "iretw\n");

/* The 8259's interrupt, while the APIC is as after reset. */
GUEST(extint,
	VECTOR("0x08", "extint", "1f")
	"sti\n hlt\n"
	TELL("2") "cli\n hlt\n"
	"1: " TELL("1") "iretw\n");

GUEST(fault,
	"lidt 0x1000 + 3f - guest_fault\n ud2\n"
	"3: .word 0, 0, 0\n");

/* A clock at 6000h, then asleep without interrupts. */
GUEST(clock,
	VECTOR("2", "clock", "1f")
	WRMSR("0x4b564d01", "0", "0x6001") WRMSR("0x4b564d00", "0", "0x6100")
	"movl $0x10, %ecx\n rdmsr\n movl %eax, 0x5000\n movl %edx, 0x5004\n"
	TELL("1")
	"cli\n hlt\n"
	"rdmsr\n movl %eax, 0x5008\n movl %edx, 0x500c\n"
	TELL("2")
	"cli\n hlt\n"
	"1: iretw\n");
/* clang-format on */

struct fixture {
	pthread_mutex_t lock;
	struct loop *loop;
	struct bus pio, mmio;
	struct ram ram;
	struct io_range io;
	struct engine_env env;
	struct engine *e;
	pthread_t loop_thread, cpu[CPUS];
	_Atomic unsigned n_told;
	uint8_t told[MAX_TOLD];
	atomic_bool pic, stopping;
	_Atomic int why[CPUS]; /* how run() ended */
};

struct cpu_arg {
	struct fixture *f;
	unsigned index;
};

static void told(void *dev, uint64_t off, unsigned size, uint64_t val)
{
	struct fixture *f = dev;
	unsigned n = atomic_load(&f->n_told);

	(void)off;
	(void)size;
	if (n < MAX_TOLD)
		f->told[n] = (uint8_t)val;
	atomic_store(&f->n_told, n + 1);
}

static const struct io_ops told_ops = {.write = told, .min = 1, .max = 1};

static bool pic_ready(void *ctx)
{
	return atomic_load(&((struct fixture *)ctx)->pic);
}

static int pic_take(void *ctx)
{
	struct fixture *f = ctx;

	atomic_store(&f->pic, false);
	f->e->ops->extint(f->e, false);
	return 8;
}

static void *loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void *cpu_main(void *arg)
{
	struct cpu_arg *a = arg;
	struct err err = {0};

	enum vcpu_exit why;

	do
		why = a->f->e->ops->run(a->f->e, a->index, &err);
	while (why == VCPU_KICKED && !atomic_load(&a->f->stopping));
	atomic_store(&a->f->why[a->index], why);
	free(a);
	return NULL;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

#define WAIT_FOR(cond)                                                  \
	do {                                                            \
		uint64_t end = time_mono_ns() + LIMIT_SEC * NS_PER_SEC; \
                                                                        \
		while (!(cond) && time_mono_ns() < end)                 \
			nap();                                          \
		assert_true(cond);                                      \
	} while (0)

static void start(struct fixture *f)
{
	atomic_store(&f->stopping, false);
	for (unsigned i = 0; i < CPUS; i++) {
		struct cpu_arg *a = malloc(sizeof(*a));

		*a = (struct cpu_arg){f, i};
		atomic_store(&f->why[i], -1);
		assert_int_equal(pthread_create(&f->cpu[i], NULL, cpu_main, a), 0);
	}
}

/* All processors leave run(). */
static void stop(struct fixture *f)
{
	atomic_store(&f->stopping, true);
	for (unsigned i = 0; i < CPUS; i++)
		f->e->ops->kick(f->e, i);
	for (unsigned i = 0; i < CPUS; i++)
		pthread_join(f->cpu[i], NULL);
	clock_pause(f->loop);
}

static void go_on(struct fixture *f)
{
	clock_resume(f->loop);
	f->e->ops->resumed(f->e);
	start(f);
}

static void new_engine(struct fixture *f)
{
	struct err err = {0};

	if (f->e)
		f->e->ops->destroy(f->e);
	f->e = engine_emulator.create(&f->env, &err);
	if (!f->e)
		fail_msg("%s", err.msg);
	for (unsigned i = 0; i < CPUS; i++) {
		struct cpuid_leaf leaf[CPUID_MAX_LEAVES];
		unsigned n = f->e->ops->cpuid_supported(f->e, leaf, CPUID_MAX_LEAVES);
		struct cpuid_topology t = {CPUS,       i,    f->e->ops->tsc_khz(f->e),
					   EMU_BUS_HZ, true, EMU_KVM_FEATURES};

		cpuid_apply(leaf, &n, &t);
		assert_int_equal(f->e->ops->set_cpuid(f->e, i, leaf, n, NULL), 0);
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&f->lock, &attr);
	f->loop = loop_new(&f->lock, NULL);
	clock_pause(f->loop);
	bus_init(&f->pio, "I/O port", 0x10000, &f->lock);
	bus_init(&f->mmio, "memory", 1ull << 52, &f->lock);
	assert_int_equal(ram_init(&f->ram, RAM_SIZE, NULL), 0);
	assert_int_equal(ram_add(&f->ram, 0, RAM_SIZE, NULL), 0);
	f->io = (struct io_range){.ops = &told_ops, .dev = f, .name = "told"};
	assert_int_equal(bus_map(&f->pio, &f->io, PORT, 1), 0);
	f->env = (struct engine_env){.ram = &f->ram,
				     .pio = &f->pio,
				     .mmio = &f->mmio,
				     .loop = f->loop,
				     .lock = &f->lock,
				     .n_cpus = CPUS,
				     .pic_take = pic_take,
				     .pic_ready = pic_ready,
				     .ctx = f};
	new_engine(f);
	assert_int_equal(pthread_create(&f->loop_thread, NULL, loop_main, f->loop), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	loop_stop(f->loop);
	pthread_join(f->loop_thread, NULL);
	f->e->ops->destroy(f->e);
	loop_free(f->loop);
	ram_fini(&f->ram);
	bus_fini(&f->pio);
	bus_fini(&f->mmio);
	pthread_mutex_destroy(&f->lock);
	free(f);
	return 0;
}

/* Puts a guest at CODE and processor 0 at its beginning. */
static void load(struct fixture *f, const uint8_t *p, const uint8_t *end)
{
	struct cpu_state *s = calloc(1, sizeof(*s));

	assert_true(dma_write(&f->ram, CODE, p, (size_t)(end - p)));
	assert_int_equal(f->e->ops->get_state(f->e, 0, s, NULL), 0);
	s->seg[SEG_CS].sel = 0;
	s->seg[SEG_CS].base = 0;
	s->rip = CODE;
	s->gpr[4] = 0x8000;
	assert_int_equal(f->e->ops->set_state(f->e, 0, s, NULL), 0);
	free(s);
}

#define LOAD(f, name) load(f, guest_##name, guest_##name##_end)

static uint32_t peek(struct fixture *f, unsigned at)
{
	return __atomic_load_n((uint32_t *)(f->ram.base + at), __ATOMIC_SEQ_CST);
}

static uint64_t peek64(struct fixture *f, unsigned at)
{
	return peek(f, at) | (uint64_t)peek(f, at + 4) << 32;
}

static void test_smp(void **state)
{
	static const uint8_t want[] = {1, 2, 3, 4, 5, 6, 7};
	struct fixture *f = *state;

	/* Processor 1's NMI handler is in the same table. */
	LOAD(f, smp);
	go_on(f);
	WAIT_FOR(atomic_load(&f->n_told) >= sizeof(want));
	stop(f);
	assert_int_equal(f->n_told, sizeof(want));
	assert_memory_equal(f->told, want, sizeof(want));
	assert_int_equal(f->why[0], VCPU_KICKED);
	assert_int_equal(f->why[1], VCPU_KICKED);
}

/* No wake-up is lost, however the message and the HLT fall together. */
static void test_wakeups(void **state)
{
	struct fixture *f = *state;

	LOAD(f, count);
	go_on(f);
	WAIT_FOR(atomic_load(&f->n_told) == 1);
	for (unsigned i = 1; i <= 3000; i++) {
		uint64_t end = time_mono_ns() + 10 * NS_PER_SEC;

		f->e->ops->msi(f->e, 0xfee00000, 0x50);
		while (peek(f, SCRATCH) != i && time_mono_ns() < end)
			;
		assert_int_equal(peek(f, SCRATCH), i);
	}
	stop(f);
}

static void test_extint(void **state)
{
	struct fixture *f = *state;

	LOAD(f, extint);
	go_on(f);
	nap();
	atomic_store(&f->pic, true);
	f->e->ops->extint(f->e, true);
	WAIT_FOR(atomic_load(&f->n_told) == 2);
	stop(f);
	assert_int_equal(f->told[0], 1);
}

static void test_shutdown(void **state)
{
	struct fixture *f = *state;

	LOAD(f, fault);
	go_on(f);
	WAIT_FOR(f->why[0] == VCPU_SHUTDOWN);
	stop(f);
	/* A reset brings it back. */
	assert_int_equal(f->e->ops->reset(f->e, 0, NULL), 0);
	LOAD(f, extint);
	go_on(f);
	atomic_store(&f->pic, true);
	f->e->ops->extint(f->e, true);
	WAIT_FOR(atomic_load(&f->n_told) == 2);
	stop(f);
}

/* What the guest computes of its clock's structure at TSC value `tsc`; ns. */
static uint64_t read_clock(struct fixture *f, uint64_t tsc)
{
	const uint8_t *p = f->ram.base + 0x6000;
	int8_t shift = (int8_t)p[28];
	unsigned __int128 d = tsc - load_u64(p + 8);

	assert_int_equal(load_u32(p) & 1, 0);
	assert_int_equal(p[29], 1); /* stable */
	d = shift < 0 ? d >> -shift : d << shift;
	return load_u64(p + 16) + (uint64_t)(d * load_u32(p + 24) >> 32);
}

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static void test_clock(void **state)
{
	struct fixture *f = *state;
	uint64_t before, now, tsc;

	LOAD(f, clock);
	before = clock_now(f->loop);
	go_on(f);
	WAIT_FOR(atomic_load(&f->n_told) == 1);
	now = read_clock(f, peek64(f, SCRATCH));
	assert_in_range(now + 100000, before, clock_now(f->loop) + 200000);
	assert_true(distance(peek(f, 0x6104), (uint64_t)time(NULL)) < 60);
	/* Paused for half a second: neither TSC nor clock moves. */
	stop(f);
	nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
	go_on(f);
	f->e->ops->nmi(f->e, 0); /* out of HLT */
	WAIT_FOR(atomic_load(&f->n_told) >= 2);
	tsc = peek64(f, SCRATCH + 8);
	now = read_clock(f, tsc);
	assert_true(distance(now, clock_now(f->loop)) < 400 * NS_PER_MS);
	stop(f);
}

/* Saved in the middle of a timer's count, with an interrupt waiting, and moved to another engine. */
static void test_move(void **state)
{
	struct fixture *f = *state;
	struct cpu_state *s = calloc(CPUS, sizeof(*s)), *t = calloc(1, sizeof(*t));
	uint64_t clock;

	LOAD(f, count);
	go_on(f);
	WAIT_FOR(atomic_load(&f->n_told) == 1);
	stop(f);
	f->e->ops->msi(f->e, 0xfee00000, 0x50);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(f->e->ops->get_state(f->e, i, &s[i], NULL), 0);
	assert_int_equal(s[0].tsc, s[1].tsc);
	assert_int_equal(s[1].mp, CPU_WAIT_SIPI);
	assert_int_equal(load_u32(s[0].lapic + 0x220), 1u << 16); /* IRR: 50h */
	clock = clock_now(f->loop) + 1000 * NS_PER_SEC; /* another machine's clock */
	new_engine(f);
	clock_set(f->loop, clock);
	for (unsigned i = 0; i < CPUS; i++) {
		assert_int_equal(f->e->ops->set_state(f->e, i, &s[i], NULL), 0);
		assert_int_equal(f->e->ops->get_state(f->e, i, t, NULL), 0);
		assert_int_equal(t->tsc, s[i].tsc);
		assert_memory_equal(t->gpr, s[i].gpr, sizeof(t->gpr));
		assert_memory_equal(t->lapic, s[i].lapic, sizeof(t->lapic));
		assert_int_equal(t->n_msrs, s[i].n_msrs);
		assert_memory_equal(t->xsave, s[i].xsave, sizeof(t->xsave));
	}
	go_on(f);
	WAIT_FOR(peek(f, SCRATCH) == 1);
	f->e->ops->msi(f->e, 0xfee00000, 0x50);
	WAIT_FOR(peek(f, SCRATCH) == 2);
	stop(f);
	/* States that make no sense are refused. */
	s[0].n_msrs = CPU_MAX_MSRS + 1;
	assert_true(f->e->ops->set_state(f->e, 0, &s[0], NULL) < 0);
	s[1].mp = 7;
	assert_true(f->e->ops->set_state(f->e, 1, &s[1], NULL) < 0);
	free(s);
	free(t);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_smp),      T(test_wakeups), T(test_extint),
		T(test_shutdown), T(test_clock),   T(test_move),
	};

	alarm(300);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

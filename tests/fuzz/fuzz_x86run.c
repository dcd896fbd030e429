/*
 * tests/fuzz/fuzz_x86run.c - a guest made of arbitrary bytes, at the highest privilege, in 64-bit,
 * 32-bit and real mode: whatever it does, the host survives and x86_run() comes back when kicked.
 *
 * Exception handlers skip a byte and go on, so that one bad instruction is not the end of it. The first
 * byte of the input chooses the mode, the next 64 are eight registers, the rest is code.
 */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "x86/x86.h"

#define RAM_SIZE (2u << 20)
#define CODE     0x8000
#define STACK    0x7000
#define TABLES   0x10000
#define IDT      0x20000
#define GDT      0x21000
#define HANDLERS 0x22000
#define RUN_NSEC 500000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint8_t *ram;
static struct x86_system *sys;
static struct x86_cpu *cpu;
static timer_t timer;
static uint64_t noise;

/* ---- the machine: devices answer with noise --------------------------------------------------- */

static uint64_t next_noise(void)
{
	noise = noise * 6364136223846793005ull + 1442695040888963407ull;
	return noise >> 8;
}

static void *page(void *ctx, uint64_t gpa, bool *writable)
{
	(void)ctx;
	*writable = gpa < RAM_SIZE - 0x10000;
	return gpa < RAM_SIZE ? ram + gpa : NULL;
}

static uint64_t mmio_read(void *ctx, uint64_t gpa, unsigned size)
{
	(void)ctx;
	(void)gpa;
	(void)size;
	return next_noise();
}

static void mmio_write(void *ctx, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)ctx;
	(void)size;
	noise ^= gpa ^ v;
}

static uint32_t pio_in(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	(void)port;
	(void)size;
	return (uint32_t)next_noise();
}

static void pio_out(void *ctx, uint16_t port, unsigned size, uint32_t v)
{
	(void)ctx;
	(void)size;
	noise ^= port ^ v;
}

static int irq_take(void *ctx)
{
	(void)ctx;
	return next_noise() & 1 ? (int)(next_noise() & 0xff) : -1;
}

static bool irq_ready(void *ctx)
{
	(void)ctx;
	return next_noise() & 1;
}

static uint64_t cr8_get(void *ctx)
{
	(void)ctx;
	return next_noise() & 15;
}

static void cr8_set(void *ctx, uint64_t v)
{
	(void)ctx;
	noise ^= v;
}

static bool msr_get(void *ctx, uint32_t msr, uint64_t *v)
{
	(void)ctx;
	*v = next_noise();
	return msr & 1;
}

static bool msr_set(void *ctx, uint32_t msr, uint64_t v)
{
	(void)ctx;
	noise ^= v;
	return msr & 1;
}

static uint64_t hypercall(void *ctx, const uint64_t arg[5])
{
	(void)ctx;
	return arg[0] ^ arg[4];
}

static const struct x86_ops ops = {
	.page = page,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.pio_in = pio_in,
	.pio_out = pio_out,
	.irq_take = irq_take,
	.irq_ready = irq_ready,
	.cr8_get = cr8_get,
	.cr8_set = cr8_set,
	.msr_get = msr_get,
	.msr_set = msr_set,
	.hypercall = hypercall,
};

static void on_timer(int sig)
{
	(void)sig;
	x86_kick(cpu);
}

static void setup(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct x86_cpuid leaves[256];
	struct err err;

	ram = aligned_alloc(4096, RAM_SIZE);
	sys = ram ? x86_system_new(&ops, NULL, NULL) : NULL;
	cpu = sys ? x86_cpu_new(sys, 0, NULL, leaves, x86_cpuid_supported(leaves, 256),
				&err)
		  : NULL;
	if (!cpu || timer_create(CLOCK_MONOTONIC, &event, &timer))
		abort();
	signal(SIGUSR1, on_timer);
}

/* ---- the guest's tables ---------------------------------------------------------------------------- */

static void put(uint64_t gpa, uint64_t v, unsigned size)
{
	memcpy(ram + gpa, &v, size);
}

/* Vectors that push an error code. */
static bool has_code(unsigned vec)
{
	return vec == 8 || (vec >= 10 && vec <= 14) || vec == 17;
}

/* Drop the error code; skip one byte; return. One pair of handlers per code size. */
static const uint8_t skip_64[] = {0x48, 0x83, 0xc4, 0x08, 0x48,
				  0xff, 0x04, 0x24, 0x48, 0xcf};
static const uint8_t skip_32[] = {0x83, 0xc4, 0x04, 0xff, 0x04, 0x24, 0xcf};
static const uint8_t skip_16[] = {0x55, 0x89, 0xe5, 0xff, 0x46, 0x02, 0x5d, 0xcf};

static void tables_64(struct x86_regs *r)
{
	memcpy(ram + HANDLERS, skip_64, sizeof(skip_64));
	for (unsigned v = 0; v < 256; v++) {
		uint64_t to = HANDLERS + (has_code(v) ? 0 : 4);

		put(IDT + v * 16,
		    (to & 0xffff) | 8 << 16 | 0x8e00ull << 32 | to >> 16 << 48, 8);
		put(IDT + v * 16 + 8, 0, 8);
	}
	put(TABLES, (TABLES + 0x1000) | 7, 8);
	put(TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
	for (unsigned k = 0; k < 4; k++)
		put(TABLES + 0x2000 + 8 * k, ((uint64_t)k << 21) | 0x87, 8);
	r->cr0 = 0x80000033;
	r->cr4 = 0x406a0;
	r->cr3 = TABLES;
	r->efer = 0xd01;
	r->xcr0 = 7;
	r->seg[X86_CS].attr = 0xa09b;
}

static void tables_32(struct x86_regs *r)
{
	memcpy(ram + HANDLERS, skip_32, sizeof(skip_32));
	for (unsigned v = 0; v < 256; v++) {
		uint64_t to = HANDLERS + (has_code(v) ? 0 : 3);

		put(IDT + v * 8,
		    (to & 0xffff) | 8 << 16 | 0x8e00ull << 32 | to >> 16 << 48, 8);
	}
	r->cr0 = 0x33;
	r->cr4 = 0x40600;
	r->xcr0 = 7;
	r->seg[X86_CS].attr = 0xc09b;
}

static void protected_mode(struct x86_regs *r, bool is64)
{
	for (unsigned s = 0; s < X86_LDTR; s++)
		r->seg[s] = (struct x86_seg){
			.sel = 16, .attr = 0xc093, .limit = 0xffffffff};
	r->seg[X86_CS].sel = 8;
	put(GDT, 0, 8);
	put(GDT + 8, is64 ? 0x00af9b000000ffff : 0x00cf9b000000ffff, 8);
	put(GDT + 16, 0x00cf93000000ffff, 8);
	r->gdtr = (struct x86_dtable){.base = GDT, .limit = 23};
	r->idtr = (struct x86_dtable){.base = IDT, .limit = is64 ? 4095 : 2047};
	if (is64)
		tables_64(r);
	else
		tables_32(r);
}

static void real_mode(struct x86_regs *r)
{
	memcpy(ram + 0x600, skip_16, sizeof(skip_16));
	for (unsigned v = 0; v < 256; v++)
		put(v * 4, 0x600, 4);
	for (unsigned s = 0; s < X86_LDTR; s++)
		r->seg[s] = (struct x86_seg){.attr = s == X86_CS ? 0x9b : 0x93,
					     .limit = 0xffff};
	r->idtr = (struct x86_dtable){.limit = 0x3ff};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct itimerspec once = {.it_value = {.tv_nsec = RUN_NSEC}},
				       never;
	static struct x86_regs r;

	if (len < 66)
		return 0;
	if (!cpu)
		setup();
	memset(ram, 0, RAM_SIZE);
	noise = len;
	x86_cpu_reset(cpu);
	x86_get_regs(cpu, &r);
	memcpy(r.gpr, data + 1, 64);
	memcpy(r.gpr + 8, data + 1, 64);
	for (unsigned k = 0; k < 16; k += 2)
		r.gpr[k] &= 0x1fffff; /* half of them are addresses of memory */
	r.gpr[X86_RSP] = STACK;
	r.rip = CODE;
	r.rflags = 2;
	if (data[0] % 3 == 2)
		real_mode(&r);
	else
		protected_mode(&r, data[0] % 3 == 0);
	memcpy(ram + CODE, data + 65, min_u64(len - 65, 0x8000));
	if (x86_set_regs(cpu, &r))
		abort();
	x86_flush_memory(sys, 0, RAM_SIZE);
	timer_settime(timer, 0, &once, NULL);
	x86_run(cpu);
	timer_settime(timer, 0, &never, NULL);
	return 0;
}

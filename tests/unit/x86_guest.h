/*
 * tests/unit/x86_guest.h - a machine of nothing but memory and a port, for processor tests.
 *
 * Guests are assembled into the test itself by top-level asm, and copied to guest memory. A write to
 * port 0xf4 ends the run with its value; bytes written to port 0xe9 are collected as text.
 */
#ifndef TESTS_X86_GUEST_H
#define TESTS_X86_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "x86/x86.h"

#define GUEST_RAM  (16u << 20)
#define GUEST_ROM  0xfff00000u /* 64 KiB of ROM for tests that want one */
#define GUEST_MMIO 0x40000000u /* one page of device registers */

struct guest {
	uint8_t *ram;
	uint8_t rom[4096] __attribute__((aligned(4096)));
	uint8_t mmio[4096];
	unsigned mmio_reads, mmio_writes;
	char text[8192];
	size_t n_text;
	uint32_t result;
	bool ended;
	int irq; /* vector to give, -1: none */
	struct x86_system *sys;
	struct x86_cpu *cpu;
	struct x86_ops ops;
};

static void *guest_page(void *ctx, uint64_t gpa, bool *writable)
{
	struct guest *g = ctx;

	*writable = gpa < GUEST_RAM;
	if (gpa < GUEST_RAM)
		return g->ram + gpa;
	return gpa == GUEST_ROM ? g->rom : NULL;
}

static uint64_t guest_mmio_read(void *ctx, uint64_t gpa, unsigned size)
{
	struct guest *g = ctx;
	uint64_t v = ~0ull;

	g->mmio_reads++;
	if (gpa - GUEST_MMIO < sizeof(g->mmio)) {
		v = 0;
		memcpy(&v, g->mmio + (gpa - GUEST_MMIO), size);
	}
	return v;
}

static void guest_mmio_write(void *ctx, uint64_t gpa, unsigned size, uint64_t v)
{
	struct guest *g = ctx;

	g->mmio_writes++;
	if (gpa - GUEST_MMIO < sizeof(g->mmio))
		memcpy(g->mmio + (gpa - GUEST_MMIO), &v, size);
}

static uint32_t guest_in(void *ctx, uint16_t port, unsigned size)
{
	(void)ctx;
	(void)size;
	return port == 0x80 ? 0x12345678 : 0xffffffff;
}

static void guest_out(void *ctx, uint16_t port, unsigned size, uint32_t v)
{
	struct guest *g = ctx;

	(void)size;
	if (port == 0xe9 && g->n_text < sizeof(g->text) - 1)
		g->text[g->n_text++] = (char)v;
	if (port == 0xf4) {
		g->result = v;
		g->ended = true;
		x86_kick(g->cpu);
	}
}

static int guest_irq_take(void *ctx)
{
	struct guest *g = ctx;
	int v = g->irq;

	g->irq = -1;
	return v;
}

static bool guest_irq_ready(void *ctx)
{
	return ((struct guest *)ctx)->irq >= 0;
}

static uint64_t guest_cr8_get(void *ctx)
{
	(void)ctx;
	return 0;
}

static void guest_cr8_set(void *ctx, uint64_t v)
{
	(void)ctx;
	(void)v;
}

static void guest_new(struct guest *g)
{
	struct x86_cpuid leaf[128];
	size_t n = x86_cpuid_supported(leaf, 128);
	struct err err = {0};

	memset(g, 0, sizeof(*g));
	g->irq = -1;
	g->ram = aligned_alloc(4096, GUEST_RAM);
	assert_non_null(g->ram);
	memset(g->ram, 0, GUEST_RAM);
	g->ops = (struct x86_ops){.page = guest_page,
				  .mmio_read = guest_mmio_read,
				  .mmio_write = guest_mmio_write,
				  .pio_in = guest_in,
				  .pio_out = guest_out,
				  .irq_take = guest_irq_take,
				  .irq_ready = guest_irq_ready,
				  .cr8_get = guest_cr8_get,
				  .cr8_set = guest_cr8_set};
	g->sys = x86_system_new(&g->ops, g, NULL);
	assert_non_null(g->sys);
	g->cpu = x86_cpu_new(g->sys, 0, g, leaf, n, &err);
	assert_non_null(g->cpu);
}

static void guest_free(struct guest *g)
{
	x86_cpu_free(g->cpu);
	x86_system_free(g->sys);
	free(g->ram);
}

/* Puts code at `gpa` and starts there in real mode, CS = 0, SP = 0x7000. */
static inline void guest_load(struct guest *g, uint32_t gpa, const void *code,
			      size_t len)
{
	struct x86_regs r;

	memcpy(g->ram + gpa, code, len);
	x86_cpu_reset(g->cpu);
	x86_get_regs(g->cpu, &r);
	r.seg[X86_CS].sel = 0;
	r.seg[X86_CS].base = 0;
	r.rip = gpa;
	r.gpr[X86_RSP] = 0x7000;
	assert_int_equal(x86_set_regs(g->cpu, &r), 0);
}

/* Runs until the guest ends or the processor stops; what made it stop. */
static inline enum x86_exit guest_run(struct guest *g)
{
	enum x86_exit e;

	do
		e = x86_run(g->cpu);
	while (e == X86_EXIT_KICK && !g->ended);
	return e;
}

#endif

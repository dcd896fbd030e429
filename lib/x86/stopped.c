/*
 * x86/stopped.c - what the machine changes in a processor that does not run: its TSC, its halt.
 */
#include "x86/x86_int.h"

uint64_t x86_tsc_offset(const struct x86_cpu *c)
{
	return __atomic_load_n(&c->tsc_offset, __ATOMIC_RELAXED);
}

void x86_set_tsc_offset(struct x86_cpu *c, uint64_t offset)
{
	__atomic_store_n(&c->tsc_offset, offset, __ATOMIC_RELAXED);
}

void x86_unhalt(struct x86_cpu *c)
{
	c->ev.halted = false;
}

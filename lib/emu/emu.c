/*
 * emu/emu.c - the emulator engine: processors of lib/x86 in a machine.
 *
 * A processor's thread calls run(). Others reach it by the local APIC (lapic.c, lock-free), by
 * x86_kick() and by a futex while it sleeps in HLT. A sleeper sets `sleeping`, then looks for
 * reasons not to sleep; who has a reason states it, then looks at `sleeping`.
 */
#include "emu/emu_int.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"

static_assert(EMU_BUS_HZ == LAPIC_BUS_HZ, "one bus clock");

/* ---- sleeping ---- */

void emu_wake(struct emu_cpu *c)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_exchange(&c->sleeping, 0))
		syscall(SYS_futex, &c->sleeping, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Waits until an interrupt, NMI, INIT, start-up IPI, wake-up hypercall or kick. */
static void wait_for_event(struct emu_cpu *c)
{
	for (;;) {
		atomic_store(&c->sleeping, 1);
		if (atomic_load(&c->kicked) || x86_wakeup_pending(c->x))
			break;
		if (atomic_exchange(&c->unhalt, false)) {
			x86_unhalt(c->x);
			break;
		}
		syscall(SYS_futex, &c->sleeping, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
	}
	atomic_store(&c->sleeping, 0);
}

/* ---- what the local APIC does to its processor ---- */

static void ap_notify(void *cpu)
{
	struct emu_cpu *c = cpu;

	if (!c->x)
		return;
	x86_irq_notify(c->x);
	emu_wake(c);
}

static void ap_nmi(void *cpu)
{
	struct emu_cpu *c = cpu;

	if (!c->x)
		return;
	x86_nmi(c->x);
	emu_wake(c);
}

static void ap_init(void *cpu)
{
	struct emu_cpu *c = cpu;

	if (!c->x)
		return;
	atomic_store(&c->init_came, true);
	x86_init(c->x);
	x86_kick(c->x); /* run() resets the local APIC */
	emu_wake(c);
}

static void ap_sipi(void *cpu, uint8_t vector)
{
	struct emu_cpu *c = cpu;

	if (!c->x)
		return;
	x86_sipi(c->x, vector);
	emu_wake(c);
}

static uint64_t ap_tsc(void *cpu)
{
	struct emu_cpu *c = cpu;

	return c->x ? emu_host_tsc() + x86_tsc_offset(c->x) : 0;
}

static void ap_eoi(void *ctx, unsigned vector)
{
	struct emu *e = ctx;

	if (e->env.ioapic_eoi)
		e->env.ioapic_eoi(e->env.ctx, vector);
}

static bool ap_pic_ready(void *ctx)
{
	struct emu *e = ctx;

	return atomic_load_explicit(&e->extint, memory_order_relaxed);
}

static int ap_pic_take(void *ctx)
{
	struct emu *e = ctx;

	return e->env.pic_take ? e->env.pic_take(e->env.ctx) : -1;
}

static const struct lapic_ops apic_ops = {
	.notify = ap_notify,
	.nmi = ap_nmi,
	.init = ap_init,
	.sipi = ap_sipi,
	.tsc = ap_tsc,
	.eoi = ap_eoi,
	.pic_ready = ap_pic_ready,
	.pic_take = ap_pic_take,
};

/* ---- what the processor asks of the machine ---- */

static void *cb_page(void *sys_ctx, uint64_t gpa, bool *writable)
{
	const struct emu *e = sys_ctx;
	const struct ram_region *r = ram_find(e->env.ram, gpa);

	if (!r)
		return NULL;
	*writable = r->kind == RAM_RAM;
	return r->host + (gpa - r->gpa);
}

static uint64_t cb_mmio_read(void *cpu, uint64_t gpa, unsigned size)
{
	struct emu_cpu *c = cpu;
	uint64_t val;

	if (lapic_owns(&c->lapic, gpa))
		return lapic_mmio_read(&c->lapic, gpa, size);
	bus_read(c->emu->env.mmio, gpa, size, &val);
	return val;
}

static void cb_mmio_write(void *cpu, uint64_t gpa, unsigned size, uint64_t val)
{
	struct emu_cpu *c = cpu;

	if (lapic_owns(&c->lapic, gpa))
		lapic_mmio_write(&c->lapic, gpa, size, val);
	else
		bus_write(c->emu->env.mmio, gpa, size, val);
}

static uint32_t cb_pio_in(void *cpu, uint16_t port, unsigned size)
{
	struct emu_cpu *c = cpu;
	uint64_t val;

	bus_read(c->emu->env.pio, port, size, &val);
	return (uint32_t)val;
}

static void cb_pio_out(void *cpu, uint16_t port, unsigned size, uint32_t val)
{
	struct emu_cpu *c = cpu;

	bus_write(c->emu->env.pio, port, size, val);
}

static int cb_irq_take(void *cpu)
{
	struct emu_cpu *c = cpu;

	return lapic_take(&c->lapic);
}

static bool cb_irq_ready(void *cpu)
{
	struct emu_cpu *c = cpu;

	return lapic_ready(&c->lapic);
}

static uint64_t cb_cr8_get(void *cpu)
{
	struct emu_cpu *c = cpu;

	return lapic_cr8(&c->lapic);
}

static void cb_cr8_set(void *cpu, uint64_t val)
{
	struct emu_cpu *c = cpu;

	lapic_set_cr8(&c->lapic, val);
}

#define MSR_APIC_BASE 0x1b

static bool cb_msr_get(void *cpu, uint32_t msr, uint64_t *val)
{
	struct emu_cpu *c = cpu;

	return lapic_msr_get(&c->lapic, msr, val) || emu_pv_msr_get(c, msr, val);
}

/* The APIC page is looked for only where no memory is: it must not be moved onto memory. */
static bool base_allowed(struct emu_cpu *c, uint64_t val)
{
	if (!(val & APIC_BASE_EN) || !ram_find(c->emu->env.ram, val & APIC_BASE_ADDR))
		return true;
	log_msg(c->emu->env.log, LOG_WARN,
		"processor %u wants its local APIC at 0x%llx, where memory is: refused",
		c->index, (unsigned long long)(val & APIC_BASE_ADDR));
	return false;
}

static bool cb_msr_set(void *cpu, uint32_t msr, uint64_t val)
{
	struct emu_cpu *c = cpu;

	if (msr == MSR_APIC_BASE && !base_allowed(c, val))
		return false;
	return lapic_msr_set(&c->lapic, msr, val) || emu_pv_msr_set(c, msr, val);
}

static uint64_t cb_hypercall(void *cpu, const uint64_t arg[5])
{
	return emu_hypercall(cpu, arg);
}

static const struct x86_ops callbacks = {
	.page = cb_page,
	.mmio_read = cb_mmio_read,
	.mmio_write = cb_mmio_write,
	.pio_in = cb_pio_in,
	.pio_out = cb_pio_out,
	.irq_take = cb_irq_take,
	.irq_ready = cb_irq_ready,
	.cr8_get = cb_cr8_get,
	.cr8_set = cb_cr8_set,
	.msr_get = cb_msr_get,
	.msr_set = cb_msr_set,
	.hypercall = cb_hypercall,
};

static void ram_written(void *ctx, uint64_t gpa, uint64_t len)
{
	struct emu *e = ctx;

	x86_memory_written(e->sys, gpa, len);
}

/* ---- making ---- */

/* All but processor 0 wait for a start-up IPI. */
static int wait_sipi(struct emu_cpu *c)
{
	struct x86_regs *r;
	int rc;

	if (!c->index)
		return 0;
	r = NEW(struct x86_regs);
	if (!r)
		return -ENOMEM;
	x86_get_regs(c->x, r);
	r->ev.wait_sipi = true;
	rc = x86_set_regs(c->x, r);
	free(r);
	return rc;
}

int emu_cpu_make(struct emu *e, unsigned index, const struct x86_cpuid *leaf, size_t n,
		 struct err *err)
{
	struct emu_cpu *c = &e->cpu[index];
	struct x86_cpuid all[CPUID_MAX_LEAVES];

	if (c->x)
		return 0;
	if (!leaf) {
		leaf = all;
		n = min_u64(x86_cpuid_supported(all, ARRAY_LEN(all)), ARRAY_LEN(all));
	}
	c->x = x86_cpu_new(e->sys, index, c, leaf, n, err);
	if (!c->x)
		return -ENOMEM;
	x86_set_tsc_offset(c->x, 0 - emu_clock_stop(e, false));
	if (wait_sipi(c) < 0)
		return err_set(err, ENOMEM, "no memory for processor %u", index);
	return 0;
}

static void emu_destroy(struct engine *en)
{
	struct emu *e = emu_of(en);

	if (!e)
		return;
	if (e->env.ram->written_ctx == e) {
		e->env.ram->written = NULL;
		e->env.ram->written_ctx = NULL;
	}
	for (unsigned i = 0; e->cpu && i < e->env.n_cpus; i++) {
		lapic_fini(&e->cpu[i].lapic);
		x86_cpu_free(e->cpu[i].x);
	}
	x86_system_free(e->sys);
	free(e->set.apic);
	free(e->cpu);
	free(e);
}

/* A block is interpreted so often before it is worth translating. */
#define TRANSLATE_AFTER 12

static struct engine *emu_create(const struct engine_env *env, struct err *err)
{
	struct emu *e;

	if (!env->n_cpus || env->n_cpus > 255) {
		err_set(err, EINVAL, "%u processors: the emulator has 1 to 255",
			env->n_cpus);
		return NULL;
	}
	e = NEW(struct emu);
	if (!e)
		goto no_memory;
	e->engine.ops = &engine_emulator;
	e->env = *env;
	e->tsc_khz = emu_tsc_measure();
	if (!e->tsc_khz) {
		err_set(err, ENODEV, "this computer's time stamp counter stands still");
		goto fail;
	}
	emu_clock_init(e);
	e->cpu = mem_new(env->n_cpus, sizeof(e->cpu[0]));
	e->set = (struct lapic_set){.ops = &apic_ops,
				    .ctx = e,
				    .loop = env->loop,
				    .tsc_khz = e->tsc_khz,
				    .n_cpus = env->n_cpus,
				    .apic = mem_new(env->n_cpus, sizeof(void *))};
	e->sys = x86_system_new(&callbacks, e, env->log);
	if (!e->cpu || !e->set.apic || !e->sys)
		goto no_memory;
	if (env->translate)
		x86_system_translate(e->sys, env->code_cache,
				     env->lockstep ? 1 : TRANSLATE_AFTER);
	if (env->translate && env->lockstep)
		x86_system_lockstep(e->sys);
	if (env->profile)
		x86_system_profile(e->sys);
	for (unsigned i = 0; i < env->n_cpus; i++) {
		struct emu_cpu *c = &e->cpu[i];

		c->emu = e;
		c->index = i;
		lapic_init(&c->lapic, &e->set, i, c);
		e->set.apic[i] = &c->lapic;
	}
	env->ram->written = ram_written;
	env->ram->written_ctx = e;
	return &e->engine;
no_memory:
	err_set(err, ENOMEM, "no memory for the emulator");
fail:
	if (e)
		emu_destroy(&e->engine);
	return NULL;
}

static unsigned emu_cpuid_supported(struct engine *en, struct cpuid_leaf *out,
				    unsigned max)
{
	struct x86_cpuid all[CPUID_MAX_LEAVES];
	size_t n = x86_cpuid_supported(all, ARRAY_LEN(all));

	(void)en;
	n = min_u64(n, min_u64(max, ARRAY_LEN(all)));
	for (size_t i = 0; i < n; i++)
		out[i] = (struct cpuid_leaf){
			all[i].leaf, all[i].subleaf, all[i].has_subleaf, all[i].eax,
			all[i].ebx,  all[i].ecx,     all[i].edx};
	return (unsigned)n;
}

static int emu_set_cpuid(struct engine *en, unsigned index,
			 const struct cpuid_leaf *leaf, unsigned n, struct err *err)
{
	struct emu *e = emu_of(en);
	struct x86_cpuid all[CPUID_MAX_LEAVES];

	if (index >= e->env.n_cpus || n > ARRAY_LEN(all))
		return err_set(err, EINVAL, "processor %u with %u leaves of CPUID",
			       index, n);
	if (e->cpu[index].x)
		return err_set(err, EBUSY,
			       "CPUID of processor %u is to be set before it is used",
			       index);
	for (unsigned i = 0; i < n; i++)
		all[i] = (struct x86_cpuid){
			leaf[i].leaf, leaf[i].subleaf, leaf[i].has_subleaf, leaf[i].eax,
			leaf[i].ebx,  leaf[i].ecx,     leaf[i].edx};
	return emu_cpu_make(e, index, all, n, err);
}

static uint32_t emu_tsc_khz(struct engine *en)
{
	return emu_of(en)->tsc_khz;
}

/* ---- running ---- */

static enum vcpu_exit emu_run(struct engine *en, unsigned index, struct err *err)
{
	struct emu *e = emu_of(en);
	struct emu_cpu *c = &e->cpu[index];

	if (emu_cpu_make(e, index, NULL, 0, err) < 0)
		return VCPU_FAILED;
	for (;;) {
		enum x86_exit why;

		if (atomic_exchange(&c->kicked, false))
			return VCPU_KICKED;
		why = x86_run(c->x);
		c->exits[why]++;
		if (atomic_load(&c->init_came) && atomic_exchange(&c->init_came, false))
			lapic_reset(&c->lapic, true);
		if (why == X86_EXIT_SHUTDOWN)
			return VCPU_SHUTDOWN;
		if (why == X86_EXIT_DIFFERENCE) {
			err_set(err, EPROTO,
				"processor %u: the translator and the interpreter "
				"differ",
				index);
			return VCPU_FAILED;
		}
		if (why != X86_EXIT_KICK)
			wait_for_event(c);
	}
}

static void emu_kick(struct engine *en, unsigned index)
{
	struct emu_cpu *c = &emu_of(en)->cpu[index];

	atomic_store(&c->kicked, true);
	if (c->x)
		x86_kick(c->x);
	emu_wake(c);
}

static int emu_reset(struct engine *en, unsigned index, struct err *err)
{
	struct emu *e = emu_of(en);
	struct emu_cpu *c = &e->cpu[index];
	int rc = emu_cpu_make(e, index, NULL, 0, err);

	if (rc)
		return rc;
	x86_cpu_reset(c->x);
	x86_set_tsc_offset(c->x, 0 - emu_clock_stop(e, false));
	lapic_reset(&c->lapic, false);
	atomic_store(&c->init_came, false);
	atomic_store(&c->unhalt, false);
	c->msr_time = 0;
	c->msr_wall = 0;
	if (wait_sipi(c) < 0)
		return err_set(err, ENOMEM, "no memory to reset processor %u", index);
	return 0;
}

/* ---- interrupts from outside ---- */

static void emu_msi(struct engine *en, uint64_t addr, uint32_t data)
{
	lapic_msi(&emu_of(en)->set, addr, data);
}

static void emu_extint(struct engine *en, bool level)
{
	struct emu *e = emu_of(en);

	if (atomic_exchange(&e->extint, level) != level && level)
		lapic_extint(&e->set);
}

static void emu_nmi(struct engine *en, unsigned index)
{
	struct emu *e = emu_of(en);

	if (index < e->env.n_cpus)
		ap_nmi(&e->cpu[index]);
}

/* Nothing to prepare: the trigger mode comes with each message and is kept in the TMR. */
static void emu_ioapic_routes(struct engine *en, const uint64_t entry[24], unsigned n)
{
	(void)en;
	(void)entry;
	(void)n;
}

static void emu_resumed(struct engine *en)
{
	emu_clock_resumed(emu_of(en));
}

/* A device's handler runs in the vCPU's thread anyway: an eventfd would only be slower. */
static int emu_ioeventfd(struct engine *en, uint64_t gpa, unsigned size, int fd,
			 bool add)
{
	(void)en;
	(void)gpa;
	(void)size;
	(void)fd;
	(void)add;
	return -ENOTSUP;
}

const struct engine_ops engine_emulator = {
	.name = "emulator",
	.create = emu_create,
	.destroy = emu_destroy,
	.cpuid_supported = emu_cpuid_supported,
	.set_cpuid = emu_set_cpuid,
	.tsc_khz = emu_tsc_khz,
	.run = emu_run,
	.kick = emu_kick,
	.get_state = emu_get_state,
	.set_state = emu_set_state,
	.reset = emu_reset,
	.msi = emu_msi,
	.extint = emu_extint,
	.nmi = emu_nmi,
	.ioapic_routes = emu_ioapic_routes,
	.resumed = emu_resumed,
	.ioeventfd = emu_ioeventfd,
	.figures = emu_figures,
};

/*
 * emu/pvclock.c - time for the guest: TSC frequency and offsets, KVM's paravirtual clock and
 * hypercalls.
 *
 * Specification: Linux Documentation/virt/kvm/x86/{msr,hypercalls}.rst. Called in vCPU threads, or
 * while the machine is paused.
 */
#include "emu/emu_int.h"

#include <assert.h>
#include <cpuid.h>
#include <sched.h>
#include <time.h>
#include <x86intrin.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/time.h"
#include "vm/dma.h"

/* In guest memory, written by us; the guest reads until version is even and unchanged. */
struct pv_time {
	le32 version, pad0;
	le64 tsc_timestamp;
	le64 system_time; /* ns at tsc_timestamp */
	le32 tsc_mul;     /* ns = (ticks << shift) * mul >> 32 */
	int8_t tsc_shift;
	uint8_t flags, pad[2];
};
static_assert(sizeof(struct pv_time) == 32, "pvclock structure");

struct pv_wall {
	le32 version, sec, nsec;
};

#define PV_STABLE 1 /* all processors' clocks agree */
#define PV_ENABLE 1 /* bit 0 of the MSR */

uint64_t emu_host_tsc(void)
{
	return __rdtsc();
}

/* ---- frequency ---- */

/* TSC and monotonic clock at one moment: of some tries the one with the shortest gap. */
static void sample(uint64_t *tsc, uint64_t *ns)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 8; i++) {
		uint64_t a = __rdtsc(), t = time_mono_ns(), b = __rdtsc();

		if (b - a < best) {
			best = b - a;
			*tsc = a + (b - a) / 2;
			*ns = t;
		}
	}
}

/* What CPUID says, kHz; 0: nothing. */
static uint32_t tsc_from_cpuid(void)
{
	unsigned a, b, c, d;

	__cpuid(1, a, b, c, d);
	if (c >> 31) {
		__cpuid(0x40000000, a, b, c, d);
		if (a >= 0x40000010 && a < 0x40001000) {
			__cpuid(0x40000010, a, b, c, d);
			return a;
		}
	}
	if (__get_cpuid_max(0, NULL) < 0x15)
		return 0;
	__cpuid_count(0x15, 0, a, b, c, d);
	if (!a || !b || !c)
		return 0;
	return (uint32_t)((uint64_t)c * b / a / 1000);
}

uint32_t emu_tsc_measure(void)
{
	struct timespec nap = {.tv_nsec = 5 * 1000 * 1000};
	uint64_t t0 = 0, t1 = 0, n0 = 0, n1 = 0, measured, told = tsc_from_cpuid();

	sample(&t0, &n0);
	nanosleep(&nap, NULL);
	sample(&t1, &n1);
	if (n1 <= n0 || t1 <= t0)
		return (uint32_t)told;
	measured = (uint64_t)((unsigned __int128)(t1 - t0) * 1000000 / (n1 - n0));
	/* CPUID is exact when it is true: within 0.1 % of the measured value. */
	if (told > measured - measured / 1000 && told < measured + measured / 1000)
		return (uint32_t)told;
	return (uint32_t)measured;
}

static uint64_t ns_to_ticks(const struct emu *e, uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * e->tsc_khz / 1000000);
}

/* ---- pausing ---- */

/* Host time minus guest clock: grows while the clock is paused. */
static uint64_t paused_total(const struct emu *e)
{
	return time_mono_ns() - clock_now(e->env.loop);
}

void emu_clock_init(struct emu *e)
{
	e->pause_ns = paused_total(e);
	e->ref_tsc = __rdtsc();
	e->ref_ns = clock_now(e->env.loop);
}

uint64_t emu_clock_stop(struct emu *e, bool load)
{
	uint64_t now = clock_now(e->env.loop);
	int64_t gone;

	if (e->stop_tsc && e->stop_ns == now)
		return e->stop_tsc;
	e->stop_ns = now;
	if (now != e->ref_ns && load) /* the clock was set: another machine's time */
		emu_clock_init(e);
	if (e->stop_ns == e->ref_ns) {
		e->stop_tsc = e->ref_tsc;
	} else {
		gone = (int64_t)(paused_total(e) - e->pause_ns);
		e->stop_tsc = __rdtsc() - ns_to_ticks(e, gone > 0 ? (uint64_t)gone : 0);
	}
	return e->stop_tsc;
}

void emu_clock_resumed(struct emu *e)
{
	uint64_t total = paused_total(e), ticks;
	int64_t gone = (int64_t)(total - e->pause_ns);

	e->stop_tsc = 0;
	if (gone < 1000) /* the clocks' own jitter */
		return;
	ticks = ns_to_ticks(e, (uint64_t)gone);
	e->pause_ns = total;
	e->ref_tsc += ticks;
	for (unsigned i = 0; i < e->env.n_cpus; i++) {
		struct emu_cpu *c = &e->cpu[i];

		if (!c->x)
			continue;
		x86_set_tsc_offset(c->x, x86_tsc_offset(c->x) - ticks);
		lapic_tsc_changed(&c->lapic);
	}
}

/* ---- the clock's structures ---- */

/* shift and mul with ns = (ticks << shift) * mul >> 32; mul as large as fits. */
static void time_scale(uint32_t khz, int8_t *shift, uint32_t *mul)
{
	for (int s = -31; s < 32; s++) {
		unsigned __int128 num = (unsigned __int128)1000000 << 64;
		unsigned __int128 den = (unsigned __int128)khz << (32 + s);
		unsigned __int128 m = num / den;

		if (m <= UINT32_MAX) {
			*shift = (int8_t)s;
			*mul = (uint32_t)m;
			return;
		}
	}
}

static bool write_time(struct emu_cpu *c)
{
	const struct emu *e = c->emu;
	uint64_t gpa = c->msr_time & ~1ull;
	struct pv_time t = {0};
	uint32_t mul = 0;

	if (!(c->msr_time & PV_ENABLE))
		return true;
	c->pv_version += 2;
	time_scale(e->tsc_khz, &t.tsc_shift, &mul);
	t.version = le32_make(c->pv_version);
	t.tsc_timestamp = le64_make(e->ref_tsc + x86_tsc_offset(c->x));
	t.system_time = le64_make(e->ref_ns);
	t.tsc_mul = le32_make(mul);
	t.flags = PV_STABLE;
	return dma_write(e->env.ram, gpa, &t, sizeof(t));
}

/* The wall clock time at which the guest's clock was 0. */
static bool write_wall(struct emu_cpu *c)
{
	struct timespec ts;
	uint64_t ns;
	struct pv_wall w;

	clock_gettime(CLOCK_REALTIME, &ts);
	ns = (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec -
	     clock_now(c->emu->env.loop);
	w.version = le32_make(2);
	w.sec = le32_make((uint32_t)(ns / NS_PER_SEC));
	w.nsec = le32_make((uint32_t)(ns % NS_PER_SEC));
	return dma_write(c->emu->env.ram, c->msr_wall, &w, sizeof(w));
}

bool emu_pv_msr_get(struct emu_cpu *c, uint32_t msr, uint64_t *val)
{
	switch (msr) {
	case MSR_KVM_TIME:
	case MSR_KVM_TIME_OLD: *val = c->msr_time; return true;
	case MSR_KVM_WALL:
	case MSR_KVM_WALL_OLD: *val = c->msr_wall; return true;
	default: return false;
	}
}

bool emu_pv_msr_set(struct emu_cpu *c, uint32_t msr, uint64_t val)
{
	switch (msr) {
	case MSR_KVM_TIME:
	case MSR_KVM_TIME_OLD: c->msr_time = val; return write_time(c);
	case MSR_KVM_WALL:
	case MSR_KVM_WALL_OLD: c->msr_wall = val; return write_wall(c);
	default: return false;
	}
}

/* ---- hypercalls ---- */

enum { HC_VAPIC_POLL_IRQ = 1, HC_KICK_CPU = 5, HC_SEND_IPI = 10, HC_SCHED_YIELD = 11 };
#define HC_ENOSYS ((uint64_t)-1000)

/* Wakes the processor with this APIC id out of HLT. */
static uint64_t kick_cpu(struct emu *e, uint64_t id)
{
	for (unsigned i = 0; i < e->env.n_cpus; i++) {
		struct emu_cpu *t = &e->cpu[i];

		if (atomic_load(&t->lapic.id) != id)
			continue;
		atomic_store(&t->unhalt, true);
		emu_wake(t);
		break;
	}
	return 0;
}

/* An IPI to the processors min + n for each bit n of the 128-bit map; returns how many. */
static uint64_t send_ipi(struct emu *e, uint64_t low, uint64_t high, uint64_t min,
			 uint64_t icr)
{
	struct lapic_msg m = {
		.vector = (uint8_t)icr, .mode = (icr >> 8) & 7, .wide = true};
	uint64_t sent = 0;

	if (m.mode != APIC_FIXED && m.mode != APIC_NMI)
		return HC_ENOSYS;
	for (unsigned n = 0; n < 128; n++) {
		uint64_t bit = n < 64 ? low >> n : high >> (n - 64);

		if (!(bit & 1) || min > UINT32_MAX - 128)
			continue;
		m.dest = (uint32_t)min + n;
		lapic_send(&e->set, &m, NULL);
		sent++;
	}
	return sent;
}

uint64_t emu_hypercall(struct emu_cpu *c, const uint64_t arg[5])
{
	switch (arg[0]) {
	case HC_VAPIC_POLL_IRQ: return 0;
	case HC_KICK_CPU: return kick_cpu(c->emu, arg[2]);
	case HC_SEND_IPI: return send_ipi(c->emu, arg[1], arg[2], arg[3], arg[4]);
	case HC_SCHED_YIELD: sched_yield(); return 0;
	default: return HC_ENOSYS;
	}
}

/*
 * kvm/engine.c - the engine over /dev/kvm: a machine, its memory, its processors' run loop.
 * Specification: Documentation/virt/kvm/api.rst. Threads as vm/cpu.h says.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"
#include "kvm/kvm_int.h"

#define IOAPIC_PINS 24
#define MAX_CPUID   256
#define IDENTITY_MAP \
	0xfffbc000ull /* four pages below the firmware that real mode may need */
#define TSS_ADDR 0xfffbd000ul

static struct kvm_engine *kvm_of(struct engine *e)
{
	return container_of(e, struct kvm_engine, engine);
}

/* ---- life ---- */

static int make_vm(struct kvm_engine *k, struct err *err)
{
	struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP,
				       .args = {IOAPIC_PINS}};
	uint64_t identity = IDENTITY_MAP;
	int size;

	k->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (k->kvm < 0)
		return err_sys(err, errno, "cannot open '/dev/kvm'");
	size = ioctl(k->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	k->vm = ioctl(k->kvm, KVM_CREATE_VM, 0);
	if (k->vm < 0 || size < (int)sizeof(struct kvm_run))
		return err_sys(err, errno, "KVM makes no machine");
	k->run_size = (size_t)size;
	if (ioctl(k->vm, KVM_SET_TSS_ADDR, TSS_ADDR) < 0 ||
	    ioctl(k->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(k->vm, KVM_ENABLE_CAP, &split) < 0)
		return err_sys(err, errno, "KVM gives no split interrupt controller");
	return 0;
}

static int map_memory(struct kvm_engine *k, struct err *err)
{
	const struct ram *ram = k->env.ram;

	for (unsigned i = 0; i < ram->n_regions; i++) {
		const struct ram_region *r = &ram->region[i];
		struct kvm_userspace_memory_region m = {
			.slot = i,
			.flags = r->kind == RAM_ROM ? KVM_MEM_READONLY : 0,
			.guest_phys_addr = r->gpa,
			.memory_size = r->size,
			.userspace_addr = (uintptr_t)r->host,
		};

		if (ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &m) < 0)
			return err_sys(err, errno, "KVM takes no memory at 0x%" PRIx64,
				       r->gpa);
	}
	return 0;
}

/* In KVM_RUN only the kick signal is let through. */
static int set_signal_mask(struct kvm_vcpu *v)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t bits;
	} __attribute__((packed)) mask = {.head.len = 8};

	mask.bits = ~(1ull << (kvm_signal() - 1));
	return ioctl(v->fd, KVM_SET_SIGNAL_MASK, &mask) < 0 ? -errno : 0;
}

static int make_vcpu(struct kvm_engine *k, unsigned index, struct err *err)
{
	struct kvm_vcpu *v = &k->vcpu[index];

	v->engine = k;
	v->index = index;
	v->fresh = true;
	v->fd = ioctl(k->vm, KVM_CREATE_VCPU, (unsigned long)index);
	if (v->fd < 0)
		return err_sys(err, errno, "KVM makes no processor %u", index);
	v->run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return err_sys(err, errno, "cannot map processor %u of KVM", index);
	}
	if (set_signal_mask(v) < 0)
		return err_sys(err, errno, "KVM takes no signal mask");
	return 0;
}

static void kvm_destroy(struct engine *e)
{
	struct kvm_engine *k = kvm_of(e);

	for (unsigned i = 0; k->vcpu && i < k->env.n_cpus; i++) {
		if (k->vcpu[i].run)
			munmap(k->vcpu[i].run, k->run_size);
		if (k->vcpu[i].fd > 0)
			close(k->vcpu[i].fd);
		free(k->vcpu[i].cpuid);
	}
	if (k->vm >= 0)
		close(k->vm);
	if (k->kvm >= 0)
		close(k->kvm);
	free(k->vcpu);
	free(k->msrs);
	free(k);
}

static struct engine *kvm_create(const struct engine_env *env, struct err *err)
{
	struct kvm_engine *k = NEW(struct kvm_engine);
	int rc;

	if (!k) {
		err_set(err, ENOMEM, "no memory for the KVM engine");
		return NULL;
	}
	k->engine.ops = &engine_kvm;
	k->env = *env;
	k->kvm = k->vm = -1;
	kvm_install_signal();
	k->vcpu = mem_new(env->n_cpus, sizeof(*k->vcpu));
	rc = k->vcpu ? make_vm(k, err)
		     : err_set(err, ENOMEM, "no memory for processors");
	rc = rc ? rc : map_memory(k, err);
	for (unsigned i = 0; i < env->n_cpus && !rc; i++)
		rc = make_vcpu(k, i, err);
	rc = rc ? rc : kvm_state_list_msrs(k, err);
	if (!rc)
		return &k->engine;
	kvm_destroy(&k->engine);
	return NULL;
}

/* ---- CPUID and time ---- */

static struct kvm_cpuid2 *cpuid_new(void)
{
	struct kvm_cpuid2 *c =
		mem_new(1, sizeof(*c) + MAX_CPUID * sizeof(struct kvm_cpuid_entry2));

	if (c)
		c->nent = MAX_CPUID;
	return c;
}

static unsigned kvm_cpuid_supported(struct engine *e, struct cpuid_leaf *out,
				    unsigned max)
{
	struct kvm_cpuid2 *c = cpuid_new();
	unsigned n = 0;

	if (c && ioctl(kvm_of(e)->kvm, KVM_GET_SUPPORTED_CPUID, c) == 0)
		for (unsigned i = 0; i < c->nent && n < max; i++) {
			const struct kvm_cpuid_entry2 *s = &c->entries[i];

			out[n++] = (struct cpuid_leaf){
				s->function,
				s->index,
				s->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX ? 1 : 0,
				s->eax,
				s->ebx,
				s->ecx,
				s->edx,
			};
		}
	free(c);
	return n;
}

static int kvm_set_cpuid(struct engine *e, unsigned index,
			 const struct cpuid_leaf *leaf, unsigned n, struct err *err)
{
	struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];
	struct kvm_cpuid2 *c = cpuid_new();

	if (!c || n > MAX_CPUID) {
		free(c);
		return err_set(err, ENOMEM, "%u CPUID leaves do not fit", n);
	}
	c->nent = n;
	for (unsigned i = 0; i < n; i++)
		c->entries[i] = (struct kvm_cpuid_entry2){
			.function = leaf[i].leaf,
			.index = leaf[i].subleaf,
			.flags = leaf[i].has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX
						     : 0,
			.eax = leaf[i].eax,
			.ebx = leaf[i].ebx,
			.ecx = leaf[i].ecx,
			.edx = leaf[i].edx,
		};
	free(v->cpuid);
	v->cpuid = c;
	if (ioctl(v->fd, KVM_SET_CPUID2, c) < 0)
		return err_sys(err, errno, "KVM refuses the CPUID of processor %u",
			       index);
	return 0;
}

static uint32_t kvm_tsc_khz(struct engine *e)
{
	int khz = ioctl(kvm_of(e)->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint32_t)khz : 0;
}

/* ---- running ---- */

static void do_io(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *p = (uint8_t *)run + run->io.data_offset;
	struct bus *pio = v->engine->env.pio;

	for (uint32_t i = 0; i < run->io.count; i++, p += run->io.size) {
		uint64_t val = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&val, p, min_u64(run->io.size, 4));
			bus_write(pio, run->io.port, run->io.size, val);
		} else {
			bus_read(pio, run->io.port, run->io.size, &val);
			memcpy(p, &val, min_u64(run->io.size, 4));
		}
	}
}

static void do_mmio(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	struct bus *mmio = v->engine->env.mmio;
	unsigned len = (unsigned)min_u64(run->mmio.len, 8), done = 0;

	while (done < len) { /* the length need not be a power of two */
		unsigned n = 8;
		uint64_t val = 0;

		while (n > len - done)
			n /= 2;
		if (run->mmio.is_write) {
			memcpy(&val, run->mmio.data + done, n);
			bus_write(mmio, run->mmio.phys_addr + done, n, val);
		} else {
			bus_read(mmio, run->mmio.phys_addr + done, n, &val);
			memcpy(run->mmio.data + done, &val, n);
		}
		done += n;
	}
}

/* The 8259's interrupt goes to the boot processor, when it takes one. */
static void inject_extint(struct kvm_vcpu *v)
{
	struct kvm_engine *k = v->engine;
	struct kvm_interrupt irq;
	int vec;

	if (v->index || !atomic_load(&k->extint)) {
		v->run->request_interrupt_window = 0;
		return;
	}
	if (v->run->ready_for_interrupt_injection) {
		vec = k->env.pic_take(k->env.ctx);
		irq.irq = (uint32_t)vec;
		if (vec >= 0)
			ioctl(v->fd, KVM_INTERRUPT, &irq);
	}
	v->run->request_interrupt_window = k->env.pic_ready(k->env.ctx);
}

/* KVM cannot go on: what it was about to do. */
static enum vcpu_exit give_up(struct kvm_vcpu *v, const char *what, uint64_t code,
			      struct err *err)
{
	struct kvm_regs r = {0};
	struct kvm_sregs s = {0};
	char bytes[3 * 15 + 1] = "";
	const uint8_t *p;

	ioctl(v->fd, KVM_GET_REGS, &r);
	ioctl(v->fd, KVM_GET_SREGS, &s);
	p = ram_ptr(v->engine->env.ram, s.cs.base + r.rip, 15, false);
	for (unsigned i = 0; p && !(s.cr0 & 0x80000000u) && i < 15; i++)
		snprintf(bytes + 3 * i, 4, "%02x ", p[i]);
	err_set(err, EIO,
		"KVM %s (%" PRIu64 ") at %04x:%" PRIx64 ", cr0 %" PRIx64
		", cr3 %" PRIx64 ", rax %" PRIx64 ", rsp %" PRIx64
		"%s%s; '--engine emulator' may get further",
		what, code, s.cs.selector, (uint64_t)r.rip, (uint64_t)s.cr0,
		(uint64_t)s.cr3, (uint64_t)r.rax, (uint64_t)r.rsp,
		*bytes ? ", code " : "", bytes);
	return VCPU_FAILED;
}

/* The kick signal that ended KVM_RUN is still pending, as it is blocked outside: takes it away. */
static void eat_signal(void)
{
	struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, kvm_signal());
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
}

/* Time since *from goes to *to. */
static void note_time(const struct kvm_vcpu *v, uint64_t *from, uint64_t *to)
{
	uint64_t now;

	if (!v->engine->env.profile)
		return;
	now = time_mono_ns();
	*to += now - *from;
	*from = now;
}

static enum vcpu_exit kvm_run(struct engine *e, unsigned index, struct err *err)
{
	struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];
	const struct engine_env *env = &v->engine->env;

	uint64_t from = env->profile ? time_mono_ns() : 0;

	v->thread = pthread_self();
	atomic_store(&v->running, true);
	for (;;) {
		uint32_t reason;
		int rc;

		if (atomic_exchange(&v->kicked, false))
			return VCPU_KICKED;
		inject_extint(v);
		note_time(v, &from, &v->device_ns);
		rc = ioctl(v->fd, KVM_RUN, 0);
		note_time(v, &from, &v->guest_ns);
		if (rc < 0) {
			if (errno == EINTR || errno == EAGAIN) {
				eat_signal();
				continue;
			}
			err_sys(err, errno, "KVM does not run processor %u", index);
			return VCPU_FAILED;
		}
		reason = v->run->exit_reason;
		v->exits[min_u64(reason, KVM_MAX_EXIT - 1)]++;
		switch (reason) {
		case KVM_EXIT_IO: do_io(v); break;
		case KVM_EXIT_MMIO: do_mmio(v); break;
		case KVM_EXIT_IRQ_WINDOW_OPEN:
		case KVM_EXIT_INTR: break;
		case KVM_EXIT_IOAPIC_EOI:
			env->ioapic_eoi(env->ctx, v->run->eoi.vector);
			break;
		case KVM_EXIT_SHUTDOWN: return VCPU_SHUTDOWN;
		case KVM_EXIT_FAIL_ENTRY:
			return give_up(v, "refuses the processor's state",
				       v->run->fail_entry.hardware_entry_failure_reason,
				       err);
		case KVM_EXIT_INTERNAL_ERROR:
			return give_up(v, "cannot emulate an instruction",
				       v->run->internal.suberror, err);
		default:
			return give_up(v, "stopped for an unknown reason", reason, err);
		}
	}
}

static void poke(struct kvm_vcpu *v)
{
	if (atomic_load(&v->running))
		pthread_kill(v->thread, kvm_signal());
}

static void kvm_kick(struct engine *e, unsigned index)
{
	struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];

	atomic_store(&v->kicked, true);
	poke(v);
}

/* ---- interrupts ---- */

static void kvm_msi(struct engine *e, uint64_t addr, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)addr,
		.address_hi = (uint32_t)(addr >> 32),
		.data = data,
	};

	ioctl(kvm_of(e)->vm, KVM_SIGNAL_MSI, &msi);
}

static void kvm_extint(struct engine *e, bool level)
{
	struct kvm_engine *k = kvm_of(e);

	atomic_store(&k->extint, level);
	if (level)
		poke(&k->vcpu[0]);
}

static void kvm_nmi(struct engine *e, unsigned index)
{
	ioctl(kvm_of(e)->vcpu[index].fd, KVM_NMI, 0);
}

/*
 * The I/O APIC's redirection table as KVM's routes: KVM reports the end of a level-triggered interrupt
 * (KVM_EXIT_IOAPIC_EOI) for the vectors it finds there.
 */
static void kvm_ioapic_routes(struct engine *e, const uint64_t entry[24], unsigned n)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[IOAPIC_PINS];
	} r = {.head.nr = 0};

	for (unsigned i = 0; i < n && i < IOAPIC_PINS; i++) {
		struct kvm_irq_routing_entry *to = &r.e[r.head.nr];
		uint64_t rte = entry[i];

		if (bits_get(rte, 16, 1)) /* masked */
			continue;
		to->gsi = i;
		to->type = KVM_IRQ_ROUTING_MSI;
		to->u.msi.address_lo =
			(uint32_t)(0xfee00000 | bits_get(rte, 56, 8) << 12 |
				   bits_get(rte, 11, 1) << 2);
		to->u.msi.data =
			(uint32_t)(bits_get(rte, 0, 8) | bits_get(rte, 8, 3) << 8 |
				   BIT(14) | bits_get(rte, 15, 1) << 15);
		r.head.nr++;
	}
	ioctl(kvm_of(e)->vm, KVM_SET_GSI_ROUTING, &r);
}

static int kvm_set_ioeventfd(struct engine *e, uint64_t gpa, unsigned size, int fd,
			     bool add)
{
	struct kvm_ioeventfd ev = {
		.addr = gpa,
		.len = size,
		.fd = fd,
		.flags = add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	return ioctl(kvm_of(e)->vm, KVM_IOEVENTFD, &ev) < 0 ? -errno : 0;
}

static void kvm_resumed(struct engine *e)
{
	struct kvm_engine *k = kvm_of(e);

	for (unsigned i = 0; i < k->env.n_cpus;
	     i++) /* fails where there is no kvmclock: fine */
		ioctl(k->vcpu[i].fd, KVM_KVMCLOCK_CTRL, 0);
}

/* ---- state ---- */

static int kvm_get_state(struct engine *e, unsigned index, struct cpu_state *s,
			 struct err *err)
{
	struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];
	int rc = kvm_state_get(v->engine, v, s, err);

	if (!rc && v->fresh) { /* untouched yet: what a reset brings back */
		v->reset = *s;
		v->fresh = false;
	}
	return rc;
}

static int kvm_set_state(struct engine *e, unsigned index, const struct cpu_state *s,
			 struct err *err)
{
	struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];

	if (v->fresh) {
		int rc = kvm_state_get(v->engine, v, &v->reset, err);

		if (rc)
			return rc;
		v->fresh = false;
	}
	return kvm_state_set(v->engine, v, s, err);
}

static int kvm_reset(struct engine *e, unsigned index, struct err *err)
{
	struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];

	if (v->fresh) /* nothing has changed it since KVM made it */
		return kvm_get_state(e, index, &v->reset, err);
	atomic_store(&v->engine->extint, false);
	return kvm_state_set(v->engine, v, &v->reset, err);
}

static unsigned kvm_figures(struct engine *e, unsigned index,
			    struct figure out[FIGURES_MAX])
{
	static const struct {
		unsigned reason;
		const char *key, *text;
	} shown[] = {
		{KVM_EXIT_IO, "exits-pio", "  port accesses"},
		{KVM_EXIT_MMIO, "exits-mmio", "  device memory"},
		{KVM_EXIT_INTR, "exits-signal", "  signals"},
		{KVM_EXIT_IRQ_WINDOW_OPEN, "exits-window", "  interrupt windows"},
		{KVM_EXIT_IOAPIC_EOI, "exits-eoi", "  ends of level interrupts"},
		{KVM_EXIT_SHUTDOWN, "exits-shutdown", "  triple faults"},
	};
	const struct kvm_vcpu *v = &kvm_of(e)->vcpu[index];
	struct figure *total, *other;
	unsigned n = 0;

	if (v->engine->env.profile) {
		out[n++] = (struct figure){"time-kvm", "time in KVM, idle too",
					   FIGURE_NS, v->guest_ns};
		out[n++] = (struct figure){"time-devices", "  in devices", FIGURE_NS,
					   v->device_ns};
	}
	total = &out[n++];
	*total = (struct figure){"exits", "exits", FIGURE_COUNT, 0};
	for (unsigned i = 0; i < KVM_MAX_EXIT; i++)
		total->value += v->exits[i];
	other = &out[n + ARRAY_LEN(shown)];
	*other = (struct figure){"exits-other", "  others", FIGURE_COUNT, total->value};
	for (size_t s = 0; s < ARRAY_LEN(shown); s++) {
		uint64_t count = v->exits[shown[s].reason];

		out[n++] = (struct figure){shown[s].key, shown[s].text, FIGURE_COUNT,
					   count};
		other->value -= count;
	}
	return n + 1;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.create = kvm_create,
	.destroy = kvm_destroy,
	.cpuid_supported = kvm_cpuid_supported,
	.set_cpuid = kvm_set_cpuid,
	.tsc_khz = kvm_tsc_khz,
	.run = kvm_run,
	.kick = kvm_kick,
	.get_state = kvm_get_state,
	.set_state = kvm_set_state,
	.reset = kvm_reset,
	.msi = kvm_msi,
	.extint = kvm_extint,
	.nmi = kvm_nmi,
	.ioapic_routes = kvm_ioapic_routes,
	.resumed = kvm_resumed,
	.ioeventfd = kvm_set_ioeventfd,
	.figures = kvm_figures,
};

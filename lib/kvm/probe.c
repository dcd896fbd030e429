/*
 * kvm/probe.c - does KVM run guests here, and how fast? Small guests in four modes give the answer;
 * a /dev/kvm that opens says nothing. Runs in the child process that prove.c makes.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/time.h"
#include "kvm/kvm.h"
#include "kvm/kvm_int.h"

#define MEM_SIZE  0x10000u
#define CODE      0x1000u
#define HANDLER   0x1800u
#define PML4      0x2000u
#define PDPT      0x3000u
#define PD        0x4000u
#define GDT       0x5000u
#define IDT       0x6000u
#define DATA      0x7000u
#define BUDGET_NS (400 * NS_PER_MS)
#define N_EXITS   32
#define N_FIRST   500u /* times round the loop: tells how long it may be */
#define LONGER    20u  /* times as long is the next */
#define N_LOOP    (N_FIRST * LONGER * LONGER)
#define TRIES     5u /* of each loop: the quickest counts, the others were interrupted */
#define QUICK_NS  (NS_PER_MS / 5) /* a longer loop can be measured better */
#define ANSWER    500500u         /* 1 + 2 + ... + 1000 */
#define COOKIE    0x5aa5c33cu

/* Guest code below this share of the native rate is not run by the processor itself. */
#define SLOWEST 0.2

enum {
	PORT_ANSWER = 0x10,
	PORT_TICK = 0x11,
	PORT_LOOP = 0x12,
	PORT_UD = 0x13,
	PORT_MAP = 0x14
};

/* clang-format off */
static const uint8_t code_real[] = {
	0x31, 0xc0,             /* xor ax, ax */
	0xb9, 0xe8, 0x03,       /* mov cx, 1000 */
	0x01, 0xc8,             /* add ax, cx */
	0xe2, 0xfc,             /* loop */
	0xe7, PORT_ANSWER,      /* out ax */
	0xb9, N_EXITS, 0x00,    /* mov cx */
	0xe6, PORT_TICK,        /* out al */
	0xe2, 0xfc,             /* loop */
	0xf4,                   /* hlt */
};

static const uint8_t code_protected[] = {
	0x31, 0xc0,
	0xb9, 0xe8, 0x03, 0x00, 0x00,
	0x01, 0xc8,
	0xe2, 0xfc,
	0xe7, PORT_ANSWER,
	0xb9, N_EXITS, 0x00, 0x00, 0x00,
	0xe6, PORT_TICK,
	0xe2, 0xfc,
	0xf4,
};

static const uint8_t code_pae[] = {
	0x31, 0xc0,
	0xb9, 0xe8, 0x03, 0x00, 0x00,
	0x01, 0xc8,
	0xe2, 0xfc,
	0xe7, PORT_ANSWER,
	0xc7, 0x05, 0x08, 0x40, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, /* mov dword [PD + 8], 83h */
	0x0f, 0x20, 0xd8,               /* mov eax, cr3 */
	0x0f, 0x22, 0xd8,               /* mov cr3, eax */
	0xa1, 0x10, 0x70, 0x20, 0x00,   /* mov eax, [200000h + DATA + 10h] */
	0xe7, PORT_MAP,
	0xb9, N_EXITS, 0x00, 0x00, 0x00,
	0xe6, PORT_TICK,
	0xe2, 0xfc,
	0xf4,
};

static const uint8_t code_long[] = {
	0x31, 0xc0,
	0xb9, 0xe8, 0x03, 0x00, 0x00,
	0x01, 0xc8,
	0xe2, 0xfc,
	0xe7, PORT_ANSWER,
	0x0f, 0x01, 0x1c, 0x25, 0x00, 0x70, 0x00, 0x00, /* lidt [DATA] */
	0x0f, 0x0b,                                     /* ud2: the handler skips it */
	0x48, 0xc7, 0x04, 0x25, 0x08, 0x40, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, /* mov qword [PD + 8], 83h */
	0x0f, 0x20, 0xd8,                               /* mov rax, cr3 */
	0x0f, 0x22, 0xd8,                               /* mov cr3, rax */
	0x8b, 0x04, 0x25, 0x10, 0x70, 0x20, 0x00,       /* mov eax, [200000h + DATA + 10h] */
	0xe7, PORT_MAP,
	0xb9, N_EXITS, 0x00, 0x00, 0x00,
	0xe6, PORT_TICK,
	0xe2, 0xfc,
	0x8b, 0x0c, 0x25, 0x18, 0x70, 0x00, 0x00,       /* mov ecx, [DATA + 18h] */
	0x85, 0xc9,                                     /* test ecx, ecx */
	0x74, 0x0c,                                     /* jz to hlt */
	0xe6, PORT_LOOP,
	0x01, 0xc8,                                     /* add eax, ecx */
	0xff, 0xc9,                                     /* dec ecx */
	0x75, 0xfa,                                     /* jnz */
	0xe6, PORT_LOOP,                                /* the host says how long the next loop is */
	0xeb, 0xe9,                                     /* jmp to mov */
	0xf4,
};

static const uint8_t code_handler[] = {
	0xe6, PORT_UD,
	0x48, 0x83, 0x04, 0x24, 0x02, /* add qword [rsp], 2 */
	0x48, 0xcf,                   /* iretq */
};

static const struct {
	const char *name;
	const uint8_t *code;
	size_t len;
} modes[KVM_N_MODES] = {
	[KVM_REAL] = {"real mode", code_real, sizeof(code_real)},
	[KVM_PROTECTED] = {"protected mode", code_protected, sizeof(code_protected)},
	[KVM_PAE] = {"PAE mode with paging", code_pae, sizeof(code_pae)},
	[KVM_LONG] = {"64-bit mode", code_long, sizeof(code_long)},
};

/* What vm-run cannot do without, and what people ask about. */
static const struct {
	int cap;
	bool needed;
	const char *id, *name;
} caps[KVM_N_CAPS] = {
	{KVM_CAP_USER_MEMORY, true, "user-memory", "user memory"},
	{KVM_CAP_SPLIT_IRQCHIP, true, "split-irqchip", "split interrupt controller"},
	{KVM_CAP_IRQ_ROUTING, true, "irq-routing", "interrupt routing"},
	{KVM_CAP_SIGNAL_MSI, true, "signal-msi", "MSI injection"},
	{KVM_CAP_EXT_CPUID, true, "ext-cpuid", "CPUID"},
	{KVM_CAP_MP_STATE, true, "mp-state", "processor states"},
	{KVM_CAP_VCPU_EVENTS, true, "vcpu-events", "pending events"},
	{KVM_CAP_XSAVE, true, "xsave", "XSAVE"},
	{KVM_CAP_XCRS, true, "xcrs", "XCRs"},
	{KVM_CAP_DEBUGREGS, true, "debugregs", "debug registers"},
	{KVM_CAP_IMMEDIATE_EXIT, true, "immediate-exit", "immediate exit"},
	{KVM_CAP_IOEVENTFD, true, "ioeventfd", "ioeventfd"},
	{KVM_CAP_NR_VCPUS, false, "nr-vcpus", "recommended processors"},
	{KVM_CAP_MAX_VCPUS, false, "max-vcpus", "processors"},
	{KVM_CAP_NR_MEMSLOTS, false, "memslots", "memory slots"},
	{KVM_CAP_IRQCHIP, false, "irqchip", "interrupt controller in the kernel"},
	{KVM_CAP_NESTED_STATE, false, "nested-state", "nested state"},
	{KVM_CAP_X86_SMM, false, "smm", "system management mode"},
	{KVM_CAP_HYPERV, false, "hyperv", "Hyper-V enlightenments"},
	{KVM_CAP_X2APIC_API, false, "x2apic-api", "x2APIC"},
	{KVM_CAP_TSC_CONTROL, false, "tsc-control", "TSC scaling"},
	{KVM_CAP_SYNC_MMU, false, "sync-mmu", "MMU notifiers"},
	{KVM_CAP_READONLY_MEM, false, "readonly-mem", "read-only memory"},
	{KVM_CAP_COALESCED_MMIO, false, "coalesced-mmio", "coalesced MMIO"},
};
/* clang-format on */

struct probe {
	int kvm, vm, vcpu;
	uint8_t *mem;
	struct kvm_run *run;
	size_t run_size;
	/* The watchdog ends a KVM_RUN that takes longer than the budget. */
	pthread_t watchdog, runner;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
	uint64_t deadline;
	char why[100]; /* what went wrong in the guest that ran last */
};

int kvm_signal(void)
{
	return SIGRTMIN + 3;
}

static void on_signal(int sig)
{
	(void)sig; /* only ends the system call */
}

void kvm_install_signal(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(kvm_signal(), &sa, NULL);
}

static void *watchdog_main(void *arg)
{
	struct probe *p = arg;
	struct timespec until = {(time_t)(p->deadline / NS_PER_SEC),
				 (long)(p->deadline % NS_PER_SEC)};

	pthread_mutex_lock(&p->mutex);
	while (!p->done && time_mono_ns() < p->deadline)
		pthread_cond_timedwait(&p->cond, &p->mutex, &until);
	while (!p->done) { /* until the runner has noticed */
		struct timespec soon = {.tv_nsec = 5000000};

		p->run->immediate_exit = 1;
		pthread_kill(p->runner, kvm_signal());
		pthread_mutex_unlock(&p->mutex);
		nanosleep(&soon, NULL);
		pthread_mutex_lock(&p->mutex);
	}
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

/* ---- the guests ---- */

static void put64(struct probe *p, unsigned at, uint64_t v)
{
	memcpy(p->mem + at, &v, sizeof(v));
}

static void lay_out(struct probe *p, enum kvm_mode mode)
{
	memset(p->mem, 0, MEM_SIZE);
	memcpy(p->mem + CODE, modes[mode].code, modes[mode].len);
	memcpy(p->mem + HANDLER, code_handler, sizeof(code_handler));
	put64(p, PML4, PDPT | 3);
	put64(p, PDPT, PD | (mode == KVM_PAE ? 1 : 3)); /* PAE reserves bit 1 */
	put64(p, PD, 0x83);                             /* 2 MiB at 0 */
	put64(p, GDT + 8, 0x00af9b000000ffff);
	put64(p, GDT + 16, 0x00cf93000000ffff);
	put64(p, IDT + 16 * 6, HANDLER | 8 << 16 | 0x8e00ull << 32); /* #UD */
	p->mem[DATA] = 0xff; /* IDT pseudo-descriptor */
	p->mem[DATA + 1] = 0x0f;
	put64(p, DATA + 2, IDT);
	put64(p, DATA + 0x10, COOKIE);
	put64(p, DATA + 0x18, N_FIRST);
}

static void flat(struct kvm_segment *s, uint16_t sel, uint8_t type, bool db, bool l)
{
	*s = (struct kvm_segment){.selector = sel,
				  .limit = 0xffffffff,
				  .type = type,
				  .present = 1,
				  .s = 1,
				  .g = 1,
				  .db = db,
				  .l = l};
}

static int enter(struct probe *p, enum kvm_mode mode)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = 0xf000};
	struct kvm_sregs s;

	if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0)
		return -errno;
	if (mode == KVM_REAL) {
		s.cs.selector = 0;
		s.cs.base = 0;
	} else {
		flat(&s.cs, 8, 11, mode != KVM_LONG, mode == KVM_LONG);
		flat(&s.ds, 16, 3, true, false);
		s.es = s.ss = s.fs = s.gs = s.ds;
		s.gdt.base = GDT;
		s.gdt.limit = 23;
		s.cr0 |= 1;
	}
	if (mode == KVM_PAE || mode == KVM_LONG) {
		s.cr3 = mode == KVM_PAE ? PDPT : PML4;
		s.cr4 |= 0x20;
		s.efer |= mode == KVM_LONG ? 0x500 : 0;
		s.cr0 |= 0x80000000u;
	}
	if (ioctl(p->vcpu, KVM_SET_SREGS, &s) < 0 ||
	    ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

struct answers {
	uint32_t answer, mapped;
	unsigned exits, ticks, uds, loops;
	uint64_t tick_ns;    /* first to last */
	uint64_t loop_start; /* 0: between two loops */
	uint64_t loop_ns;    /* the quickest of this length */
	uint32_t length;     /* of the loop */
	unsigned tries;      /* of this length */
};

/* The end of a loop: one that was quick (first: above 7 MIPS) is followed by longer ones. */
static void end_loop(struct probe *p, struct answers *a, uint64_t ns)
{
	uint32_t next = 0;

	a->loops++;
	a->loop_ns = a->tries++ ? min_u64(a->loop_ns, ns) : ns;
	if (a->length < N_LOOP && ns < QUICK_NS) {
		a->length = next = a->length * LONGER;
		a->tries = 0;
	} else if (a->tries < TRIES) {
		next = a->length;
	}
	put64(p, DATA + 0x18, next);
}

static void on_loop(struct probe *p, struct answers *a, uint64_t now)
{
	if (a->loop_start)
		end_loop(p, a, now - a->loop_start);
	a->loop_start = a->loop_start ? 0 : now;
}

static void on_out(struct probe *p, struct answers *a, unsigned port, uint32_t val)
{
	uint64_t now = time_mono_ns();

	switch (port) {
	case PORT_ANSWER: a->answer = val; break;
	case PORT_MAP: a->mapped = val; break;
	case PORT_UD: a->uds++; break;
	case PORT_TICK: a->tick_ns = a->ticks++ ? a->tick_ns : now; break;
	case PORT_LOOP: on_loop(p, a, now); break;
	}
	if (port == PORT_TICK && a->ticks == N_EXITS)
		a->tick_ns = now - a->tick_ns;
}

/* Runs until HLT. 0, or -errno with p->why. */
static int run_guest(struct probe *p, struct answers *a)
{
	for (;;) {
		struct kvm_run *run = p->run;
		uint32_t val = 0;

		if (ioctl(p->vcpu, KVM_RUN, 0) < 0) {
			if (errno == EINTR && time_mono_ns() < p->deadline &&
			    !run->immediate_exit)
				continue;
			snprintf(p->why, sizeof(p->why), "%s",
				 errno == EINTR ? "it did not end within 400 ms"
						: strerrordesc_np(errno));
			return errno == EINTR ? -ETIMEDOUT : -errno;
		}
		a->exits++;
		switch (run->exit_reason) {
		case KVM_EXIT_HLT: return 0;
		case KVM_EXIT_IO:
			memcpy(&val, (char *)run + run->io.data_offset,
			       min_u64(run->io.size, sizeof(val)));
			on_out(p, a, run->io.port, val);
			break;
		default:
			snprintf(p->why, sizeof(p->why),
				 "it stopped with exit reason %u%s", run->exit_reason,
				 run->exit_reason == KVM_EXIT_INTERNAL_ERROR
					 ? " (an instruction that KVM cannot emulate)"
				 : run->exit_reason == KVM_EXIT_SHUTDOWN
					 ? " (triple fault)"
					 : "");
			return -EIO;
		}
	}
}

static double native_mips(void)
{
	uint64_t best = UINT64_MAX;

	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t n = N_LOOP, sum = 0;
		uint64_t t0 = time_mono_ns();

		__asm__ volatile("1: addl %1, %0\n\tdecl %1\n\tjnz 1b"
				 : "+r"(sum), "+r"(n)
				 :
				 : "cc");
		best = min_u64(best, time_mono_ns() - t0);
	}
	return 3.0 * N_LOOP * 1000 / (double)max_u64(best, 1);
}

static int probe_mode(struct probe *p, enum kvm_mode mode, struct kvm_probe_result *r)
{
	struct answers a = {.length = N_FIRST};
	uint32_t want = mode == KVM_REAL ? (uint16_t)ANSWER : ANSWER;
	int rc;

	lay_out(p, mode);
	rc = enter(p, mode);
	if (rc) {
		snprintf(p->why, sizeof(p->why), "its state is refused: %s",
			 strerrordesc_np(-rc));
		return rc;
	}
	rc = run_guest(p, &a);
	if (rc)
		return rc;
	r->exits[mode] = a.exits;
	if (a.answer != want || a.ticks != N_EXITS ||
	    (mode >= KVM_PAE && a.mapped != COOKIE) ||
	    (mode == KVM_LONG && (a.uds != 1 || !a.loops || a.loop_start))) {
		snprintf(p->why, sizeof(p->why), "its answers are wrong");
		return -EIO;
	}
	r->ok[mode] = true;
	r->exit_ns[mode] = (double)a.tick_ns / (N_EXITS - 1);
	if (mode == KVM_LONG) { /* the loop's time holds one exit */
		uint64_t exit = (uint64_t)r->exit_ns[mode];
		uint64_t ns = a.loop_ns > 2 * exit ? a.loop_ns - exit : a.loop_ns;

		r->guest_mips = 3.0 * a.length * 1000 / (double)max_u64(ns, 1);
	}
	return 0;
}

/* ---- the whole ---- */

static int verdict(struct kvm_probe_result *r, enum kvm_verdict v, int code,
		   struct err *err)
{
	r->verdict = v;
	return code ? err_set(err, code, "%s", r->reason) : 0;
}

static int open_device(struct probe *p, struct kvm_probe_result *r, struct err *err)
{
	struct stat st;
	bool missing;
	int code;

	if (stat(r->device, &st) == 0 && !S_ISCHR(st.st_mode)) {
		snprintf(r->reason, sizeof(r->reason),
			 "%s is no device but a %s: something else stands in its place",
			 r->device,
			 S_ISSOCK(st.st_mode)   ? "socket"
			 : S_ISFIFO(st.st_mode) ? "pipe"
			 : S_ISDIR(st.st_mode)  ? "folder"
						: "file");
		return verdict(r, KVM_NONSENSE, ENOTTY, err);
	}
	p->kvm = open(r->device, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (p->kvm >= 0)
		return 0;
	code = errno;
	missing = code == ENOENT || code == ENODEV || code == ENXIO;
	snprintf(r->reason, sizeof(r->reason), "%s %s%s", r->device,
		 missing          ? "is not there"
		 : code == EACCES ? "may not be opened by this user (group kvm?)"
		 : code == EPERM
			 ? "may not be opened here (a container without the device?)"
			 : "cannot be opened: ",
		 missing || code == EACCES || code == EPERM ? ""
							    : strerrordesc_np(code));
	return verdict(r,
		       missing                           ? KVM_MISSING
		       : code == EACCES || code == EPERM ? KVM_FORBIDDEN
		       : code == EBUSY                   ? KVM_BUSY
							 : KVM_NONSENSE,
		       code, err);
}

static int check_device(struct probe *p, struct kvm_probe_result *r, struct err *err)
{
	int rc = open_device(p, r, err);

	if (rc)
		return rc;
	r->stage = KVM_STAGE_ASK;
	r->api_version = ioctl(p->kvm, KVM_GET_API_VERSION, 0);
	if (r->api_version != KVM_API_VERSION) {
		bool wild = r->api_version <= 0 || r->api_version > 99;

		snprintf(r->reason, sizeof(r->reason),
			 "%s answers version %d, not %d%s", r->device, r->api_version,
			 KVM_API_VERSION, wild ? ": this is not KVM" : "");
		return verdict(r, wild ? KVM_NONSENSE : KVM_UNFIT, ENOTSUP, err);
	}
	for (size_t i = 0; i < ARRAY_LEN(caps); i++)
		r->caps[i] = ioctl(p->kvm, KVM_CHECK_EXTENSION, caps[i].cap);
	for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
		if (r->caps[i] < 0) {
			snprintf(r->reason, sizeof(r->reason),
				 "%s answers nonsense: no number for %s", r->device,
				 caps[i].name);
			return verdict(r, KVM_NONSENSE, ENOTSUP, err);
		}
		if (r->caps[i] > 0 || !caps[i].needed)
			continue;
		snprintf(r->reason, sizeof(r->reason), "%s lacks %s", r->device,
			 caps[i].name);
		return verdict(r, KVM_UNFIT, ENOTSUP, err);
	}
	return 0;
}

/* A machine or processor that was made just now is an open file above the device. */
static bool is_new(const struct probe *p, int *fd)
{
	if (*fd > p->kvm && fcntl(*fd, F_GETFD) >= 0)
		return true;
	*fd = -1; /* not to be closed: it may be another's */
	return false;
}

/* 0, -EBADFD: what it made is none, or -errno. */
static int make_guest(struct probe *p)
{
	struct kvm_userspace_memory_region mem = {.memory_size = MEM_SIZE};
	int size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	p->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0 || p->mem == MAP_FAILED || size < (int)sizeof(*p->run))
		return -errno;
	if (!is_new(p, &p->vm))
		return -EBADFD;
	mem.userspace_addr = (uintptr_t)p->mem;
	if (ioctl(p->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0 ||
	    ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &mem) < 0)
		return -errno;
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return -errno;
	if (!is_new(p, &p->vcpu))
		return -EBADFD;
	p->run_size = (size_t)size;
	p->run =
		mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	return p->run == MAP_FAILED ? -errno : 0;
}

/* The guest's CPUID is the host's: 64-bit mode must be there before it is entered. */
static int give_cpuid(struct probe *p)
{
	enum { MAX = 256 };
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + MAX * sizeof(c->entries[0]));
	int rc = 0;

	if (!c)
		return -ENOMEM;
	c->nent = MAX;
	if (ioctl(p->kvm, KVM_GET_SUPPORTED_CPUID, c) < 0 ||
	    ioctl(p->vcpu, KVM_SET_CPUID2, c) < 0)
		rc = -errno;
	free(c);
	return rc;
}

/* All modes are tried; the first that failed is told. A guest that is interpreted may fail in some. */
static int run_modes(struct probe *p, struct kvm_probe_result *r, struct err *err)
{
	char failed[160] = "";
	int rc = 0;

	for (int m = 0; m < KVM_N_MODES; m++) {
		int mode_rc = probe_mode(p, m, r);

		if (!mode_rc || rc)
			continue;
		rc = mode_rc;
		snprintf(failed, sizeof(failed), "a small guest in %s fails: %s",
			 modes[m].name, p->why);
		if (rc == -ETIMEDOUT)
			break;
	}
	if (r->ok[KVM_LONG] && r->guest_mips < SLOWEST * r->native_mips) {
		snprintf(r->reason, sizeof(r->reason),
			 "%s opens, but runs guest code %.0f times slower than "
			 "native (%.1f million instructions/s)",
			 r->device, r->native_mips / r->guest_mips, r->guest_mips);
		return verdict(r, KVM_SLOW, ENOTSUP, err);
	}
	if (rc) {
		snprintf(r->reason, sizeof(r->reason), "%s opens, but %s", r->device,
			 failed);
		return verdict(r, KVM_BROKEN, -rc, err);
	}
	snprintf(r->reason, sizeof(r->reason),
		 "guest code runs at %.0f %% of native speed, %.1f us an exit",
		 100 * r->guest_mips / r->native_mips, r->exit_ns[KVM_LONG] / 1000);
	return verdict(r, KVM_WORKS, 0, err);
}

static void probe_fini(struct probe *p)
{
	if (p->run && p->run != MAP_FAILED)
		munmap(p->run, p->run_size);
	if (p->mem && p->mem != MAP_FAILED)
		munmap(p->mem, MEM_SIZE);
	if (p->vcpu >= 0)
		close(p->vcpu);
	if (p->vm >= 0)
		close(p->vm);
	if (p->kvm >= 0)
		close(p->kvm);
	pthread_mutex_destroy(&p->mutex);
	pthread_cond_destroy(&p->cond);
}

static int probe_watched(struct probe *p, struct kvm_probe_result *r, struct err *err)
{
	int rc;

	p->runner = pthread_self();
	p->deadline = time_mono_ns() + BUDGET_NS;
	rc = pthread_create(&p->watchdog, NULL, watchdog_main, p);
	if (rc)
		return err_sys(err, rc, "cannot start the watchdog of the KVM probe");
	rc = run_modes(p, r, err);
	pthread_mutex_lock(&p->mutex);
	p->done = true;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->mutex);
	pthread_join(p->watchdog, NULL);
	return rc;
}

int kvm_probe_here(struct kvm_probe_result *r, struct err *err)
{
	struct probe p = {.kvm = -1, .vm = -1, .vcpu = -1};
	pthread_condattr_t mono;
	int rc;

	r->native_mips = native_mips();
	pthread_condattr_init(&mono);
	pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	pthread_mutex_init(&p.mutex, NULL);
	pthread_cond_init(&p.cond, &mono);
	pthread_condattr_destroy(&mono);
	kvm_install_signal();
	rc = check_device(&p, r, err);
	if (!rc) {
		r->stage = KVM_STAGE_MAKE;
		rc = make_guest(&p);
		rc = rc ? rc : give_cpuid(&p);
		if (rc == -EBADFD) {
			snprintf(r->reason, sizeof(r->reason),
				 "%s answers nonsense: the machine it made is none",
				 r->device);
			rc = verdict(r, KVM_NONSENSE, -rc, err);
		} else if (rc) {
			snprintf(r->reason, sizeof(r->reason),
				 "%s opens, but makes no machine: %s%s", r->device,
				 strerrordesc_np(-rc),
				 rc == -EBUSY ? " (another hypervisor holds the "
						"processor's virtualization)"
					      : "");
			rc = verdict(r, rc == -EBUSY ? KVM_BUSY : KVM_BROKEN, -rc, err);
		} else {
			r->stage = KVM_STAGE_RUN;
			rc = probe_watched(&p, r, err);
		}
	}
	probe_fini(&p);
	return rc;
}

const char *kvm_cap_id(unsigned i)
{
	return i < KVM_N_CAPS ? caps[i].id : NULL;
}

/*
 * pc/q35.c - the q35 board without firmware: what is where, what is wired to what, and how a kernel is
 * started on it. Loop thread, machine lock held, or before the machine runs.
 *
 * Memory: RAM below 2 GiB and above 4 GiB; a0000h-bffffh is left to a VGA, c0000h-fffffh holds the ACPI and
 * SMBIOS tables; ECAM at b0000000h, 32-bit BARs from c0000000h, the I/O APIC and HPET at their usual
 * places, 64-bit BARs above all memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "emu/emu.h"
#include "fw/kernel.h"
#include "pc/board.h"

#define LOW_MAX     (2ull << 30)
#define HIGH_BASE   (4ull << 30)
#define HOLE_BASE   0xa0000ull
#define HOLE_END    0xc0000ull
#define TABLES_BASE 0xe0000ull
#define SMBIOS_BASE 0xf8000ull
#define ECAM_BASE   0xb0000000ull
#define ECAM_SIZE   0x10000000ull
#define MMIO32_BASE 0xc0000000ull
#define MMIO32_END  0xfec00000ull
#define MMIO64_SIZE (32ull << 30)
#define PIO_BASE    0x6000u /* of BARs; below are the fixed devices */
#define PM_BASE     0x600
#define MAX_FILE    (4ull << 30)

/* The ISA interrupt of each PIRQ line, as firmware sets it. */
static const uint8_t pirq_isa[8] = {10, 10, 11, 11, 10, 10, 11, 11};

/* ---- memory ---- */

static int add_memory(struct pc *pc, struct err *err)
{
	uint64_t size = pc->cfg.memory, low = min_u64(size, LOW_MAX);
	struct ram *ram = &pc->ram;
	struct sysinfo host;
	int rc;

	if (sysinfo(&host) == 0 && size > (uint64_t)host.totalram * host.mem_unit)
		return err_set(
			err, ENOMEM,
			"%llu MiB of memory are more than the %llu MiB of this "
			"computer",
			(unsigned long long)(size >> 20),
			(unsigned long long)((uint64_t)host.totalram * host.mem_unit >>
					     20));
	rc = ram_init(ram, size, err);
	rc = rc ? rc : ram_add(ram, 0, HOLE_BASE, err);
	rc = rc ? rc : ram_add(ram, HOLE_END, low - HOLE_END, err);
	if (!rc && size > low)
		rc = ram_add(ram, HIGH_BASE, size - low, err);
	return rc;
}

/* The end of everything below which 64-bit BARs must not lie. */
static uint64_t mmio64_base(const struct pc *pc)
{
	uint64_t high = pc->cfg.memory > LOW_MAX ? pc->cfg.memory - LOW_MAX : 0;

	return align_up(HIGH_BASE + high, MMIO64_SIZE);
}

static int make_e820(struct pc *pc, struct e820 *map, struct err *err)
{
	static const struct {
		uint64_t base, len;
	} reserved[] = {
		{HOLE_END, 0x100000 - HOLE_END},
		{ECAM_BASE, ECAM_SIZE},
		{0xfec00000, 0x1000},
		{0xfed00000, 0x1000},
		{0xfee00000, 0x1000},
	};
	int rc = e820_add_ram(map, &pc->ram, err);

	for (size_t i = 0; i < ARRAY_LEN(reserved) && !rc; i++)
		rc = e820_add(map, reserved[i].base, reserved[i].len, E820_RESERVED,
			      err);
	return rc;
}

/* ---- wires ---- */

static void set_isa_irq(void *ctx, unsigned n, bool level)
{
	struct board *b = ctx;
	struct irq to_apic =
		ioapic_line(b->ioapic, n ? n : 2); /* the timer is at input 2 */
	struct irq to_pic = i8259_line(b->pic, n);

	irq_set(&to_pic, level);
	irq_set(&to_apic, level);
}

static struct irq isa_irq(struct board *b, unsigned n)
{
	return (struct irq){set_isa_irq, b, n};
}

static void set_intr(void *ctx, unsigned n, bool level)
{
	struct pc *pc = ctx;

	(void)n;
	pc->engine->ops->extint(pc->engine, level);
}

static int take_pic(void *ctx)
{
	struct pc *pc = ctx;
	int vec;

	pthread_mutex_lock(&pc->lock);
	vec = i8259_take(pc->board->pic);
	pthread_mutex_unlock(&pc->lock);
	return vec;
}

static bool pic_is_ready(void *ctx)
{
	struct pc *pc = ctx;

	return i8259_ready(pc->board->pic);
}

static void on_eoi(void *ctx, unsigned vector)
{
	struct pc *pc = ctx;

	pthread_mutex_lock(&pc->lock);
	ioapic_eoi(pc->board->ioapic, vector);
	pthread_mutex_unlock(&pc->lock);
}

static void on_routes(void *ctx, const uint64_t entry[IOAPIC_PINS], unsigned n)
{
	struct pc *pc = ctx;

	if (pc->engine->ops->ioapic_routes)
		pc->engine->ops->ioapic_routes(pc->engine, entry, n);
}

static void send_msi(void *ctx, uint64_t addr, uint32_t data)
{
	struct pc *pc = ctx;

	pc->engine->ops->msi(pc->engine, addr, data);
}

static int set_ioeventfd(void *ctx, uint64_t gpa, unsigned size, int fd, bool add)
{
	struct pc *pc = ctx;

	return pc->engine->ops->ioeventfd(pc->engine, gpa, size, fd, add);
}

/* ---- processors ---- */

static int make_engine(struct pc *pc, struct err *err)
{
	const struct engine_env env = {
		.log = pc->cfg.log,
		.ram = &pc->ram,
		.pio = &pc->pio,
		.mmio = &pc->mmio,
		.loop = pc->loop,
		.lock = &pc->lock,
		.n_cpus = pc->cfg.cpus,
		.translate = pc->cfg.translate,
		.lockstep = pc->cfg.lockstep,
		.code_cache = pc->cfg.code_cache,
		.profile = pc->cfg.profile,
		.pic_take = take_pic,
		.pic_ready = pic_is_ready,
		.ioapic_eoi = on_eoi,
		.ctx = pc,
	};

	pc->engine = pc->cfg.engine->create(&env, err);
	if (!pc->engine)
		return -err->code;
	pc->env = (struct vm_env){
		.log = pc->cfg.log,
		.lock = &pc->lock,
		.pio = &pc->pio,
		.mmio = &pc->mmio,
		.ram = &pc->ram,
		.loop = pc->loop,
		.state = &pc->state,
		.msi = {send_msi, pc},
	};
	if (pc->engine->ops->ioeventfd) {
		pc->env.ioeventfd = set_ioeventfd;
		pc->env.ioeventfd_ctx = pc;
	}
	return 0;
}

/* Paravirtual features: the emulator's own, or what KVM names in its leaf. */
static uint32_t kvm_features(const struct pc *pc, const struct cpuid_leaf *l,
			     unsigned n)
{
	if (pc->cfg.engine == &engine_emulator)
		return EMU_KVM_FEATURES;
	for (unsigned i = 0; i < n; i++)
		if (l[i].leaf == 0x40000001)
			return l[i].eax;
	return 0;
}

static int set_cpuids(struct pc *pc, struct err *err)
{
	const struct engine_ops *ops = pc->engine->ops;
	struct cpuid_leaf l[CPUID_MAX_LEAVES];
	int rc = 0;

	for (unsigned i = 0; i < pc->cfg.cpus && !rc; i++) {
		unsigned n = ops->cpuid_supported(pc->engine, l, CPUID_MAX_LEAVES);
		const struct cpuid_topology t = {
			.n_cpus = pc->cfg.cpus,
			.index = i,
			.tsc_khz = ops->tsc_khz(pc->engine),
			.bus_hz =
				EMU_BUS_HZ, /* KVM's local APIC timer runs at 1 GHz, too */
			.hypervisor = true,
			.kvm_features = kvm_features(pc, l, n),
		};

		cpuid_apply(l, &n, &t);
		rc = ops->set_cpuid(pc->engine, i, l, n, err);
	}
	return rc;
}

/* ---- life ---- */

int board_new(struct pc *pc, struct err *err)
{
	struct board *b = NEW(struct board);
	int rc;

	if (!b)
		return err_set(err, ENOMEM, "no memory for the board");
	pc->board = b;
	b->pc = pc;
	rc = add_memory(pc, err);
	rc = rc ? rc : make_engine(pc, err);
	rc = rc ? rc : set_cpuids(pc, err);
	if (rc)
		return rc;
	const struct board_wires w = {
		.intr = {set_intr, pc, 0},
		.routes = {on_routes, pc},
		.ecam = ECAM_BASE,
		.pm_base = PM_BASE,
	};

	for (unsigned i = 0; i < 16; i++)
		b->isa[i] = isa_irq(b, i);
	return parts_new(b, &w, err);
}

void board_free(struct pc *pc)
{
	if (!pc->board)
		return;
	parts_free(pc->board);
	acpi_tables_fini(&pc->board->acpi);
	smbios_tables_fini(&pc->board->smbios);
	free(pc->board);
	pc->board = NULL;
}

void board_reset(struct pc *pc)
{
	for (unsigned i = 0; i < pc->ram.n_regions; i++)
		if (pc->ram.region[i].kind == RAM_RAM)
			dma_written(&pc->ram, pc->ram.region[i].gpa,
				    pc->ram.region[i].size);
	parts_reset(pc->board);
}

void board_power_button(struct pc *pc)
{
	if (acpi_pm_power_button(pc->board->pm))
		return;
	log_msg(pc->cfg.log, LOG_WARN,
		"the guest does not listen to the power button; a second SIGTERM, or "
		"ctrl-a x, quits");
}

void board_quiesce(struct pc *pc)
{
	parts_quiesce(pc->board);
}

/* ---- starting a kernel ---- */

static int load_file(const struct pc_file *f, void **p, size_t *len, struct err *err)
{
	struct stat st;
	int64_t n;

	*p = NULL;
	*len = 0;
	if (!f->path)
		return 0;
	if (fstat(f->fd, &st) < 0)
		return err_sys(err, errno, "cannot examine '%s'", f->path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "'%s' is not a regular file", f->path);
	if ((uint64_t)st.st_size > min_u64(MAX_FILE, SIZE_MAX))
		return err_set(err, EFBIG, "'%s' is larger than 4 GiB", f->path);
	*p = malloc((size_t)st.st_size + 1);
	if (!*p)
		return err_set(err, ENOMEM, "no memory for '%s'", f->path);
	n = fd_pread_full(f->fd, *p, (size_t)st.st_size, 0);
	if (n < 0)
		return err_sys(err, (int)-n, "cannot read '%s'", f->path);
	*len = (size_t)n;
	return 0;
}

/* What firmware leaves behind: BARs, interrupt routing, tables. */
static int act_as_firmware(struct pc *pc, struct err *err)
{
	const struct pci_window mmio32 = {MMIO32_BASE, MMIO32_END - MMIO32_BASE};
	const struct pci_window mmio64 = {mmio64_base(pc), MMIO64_SIZE};
	const struct pci_window io = {PIO_BASE, 0x10000 - PIO_BASE};
	struct board *b = pc->board;
	int rc;

	pci_lpc_route(b->lpc, pirq_isa);
	bus_write(&pc->pio, 0x4d1, 1, 1 << (9 - 8) | 1 << (10 - 8) | 1 << (11 - 8));
	acpi_pm_set_sci_en(b->pm, true);
	rc = pci_assign_resources(&b->pci, &mmio32, &mmio64, &io, err);
	if (!rc && !b->acpi.blob) {
		const struct tables_place place = {
			.acpi = TABLES_BASE,
			.smbios = SMBIOS_BASE,
			.ecam = {ECAM_BASE, ECAM_SIZE},
			.mmio32 = mmio32,
			.mmio64 = mmio64,
			.below_4g = min_u64(pc->cfg.memory, LOW_MAX),
		};

		rc = tables_build(b, &place, err);
	}
	return rc ? rc : tables_place(b, err);
}

static int load_modules(struct pc *pc, struct boot_module *m, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < pc->cfg.n_modules && !rc; i++) {
		void *p;

		rc = load_file(&pc->cfg.modules[i], &p, &m[i].len, err);
		m[i].data = p;
		m[i].name = pc->cfg.modules[i].path;
		m[i].cmdline = pc->cfg.modules[i].cmdline;
	}
	return rc;
}

static int start_kernel(struct pc *pc, struct boot_params_in *in,
			struct boot_module *modules, struct err *err)
{
	const struct engine_ops *ops = pc->engine->ops;
	struct cpu_state *state = &pc->cpus[0].state;
	void *kernel = NULL, *initrd = NULL;
	struct boot_info *info = NEW(struct boot_info);
	int rc = info ? 0 : err_set(err, ENOMEM, "no memory");

	rc = rc ? rc : load_file(&pc->cfg.kernel, &kernel, &in->kernel_len, err);
	rc = rc ? rc : load_file(&pc->cfg.initrd, &initrd, &in->initrd_len, err);
	rc = rc ? rc : load_modules(pc, modules, err);
	in->kernel = kernel;
	in->initrd = initrd;
	if (initrd && !in->initrd_len)
		rc = err_set(err, EINVAL, "'%s' is empty", pc->cfg.initrd.path);
	for (unsigned i = 0; i < pc->cfg.cpus && !rc; i++)
		rc = ops->reset(pc->engine, i, err);
	rc = rc ? rc : ops->get_state(pc->engine, 0, state, err);
	if (!rc && in->initrd_len > pc->cfg.memory)
		rc = err_set(err, ENOSPC,
			     "initrd '%s' has %zu bytes: more than the memory",
			     pc->cfg.initrd.path, in->initrd_len);
	rc = rc ? rc : boot_load(&pc->ram, in, state, info, err);
	rc = rc ? rc : ops->set_state(pc->engine, 0, state, err);
	if (!rc)
		log_msg(pc->cfg.log, LOG_DEBUG, "%s %s, entered by %s at 0x%llx",
			kernel_kind_name(info->kind), info->version, info->protocol,
			(unsigned long long)info->entry);
	free(info);
	free(kernel);
	free(initrd);
	return rc;
}

int board_boot(struct pc *pc, struct err *err)
{
	struct boot_module modules[PC_MAX_MODULES] = {{0}};
	struct e820 *map = NEW(struct e820);
	struct boot_params_in in = {
		.log = pc->cfg.log,
		.name = pc->cfg.kernel.path,
		.cmdline = pc->cfg.cmdline,
		.modules = modules,
		.n_modules = pc->cfg.n_modules,
		.e820 = map,
	};
	int rc = map ? make_e820(pc, map, err) : err_set(err, ENOMEM, "no memory");

	rc = rc ? rc : act_as_firmware(pc, err);
	in.rsdp = pc->board->acpi.rsdp;
	rc = rc ? rc : start_kernel(pc, &in, modules, err);
	for (unsigned i = 0; i < pc->cfg.n_modules; i++)
		free((void *)modules[i].data);
	free(map);
	return rc;
}

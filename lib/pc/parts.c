/* pc/parts.c - the devices of a board: made, reset and freed in one place each. */
#include <stdlib.h>
#include <time.h>

#include "base/bits.h"
#include "pc/board.h"

#define S5_TYPE 0 /* as acpi_config_q35() tells the guest */

static const struct {
	uint16_t base;
	uint8_t irq;
} com_ports[PC_MAX_SERIAL] = {{0x3f8, 4}, {0x2f8, 3}};

static void on_sleep(void *ctx, unsigned type)
{
	struct board *b = ctx;

	if (type == S5_TYPE)
		pc_stop(b->pc, PC_POWEROFF, 0);
	else
		log_msg(b->pc->cfg.log, LOG_WARN,
			"the guest wants to sleep (type %u): ignored", type);
}

static void on_reset(void *ctx)
{
	struct board *b = ctx;

	pc_ask(b->pc, PC_ASK_RESET);
}

static void on_cf9(void *ctx, bool hard)
{
	(void)hard; /* without firmware both start the guest anew */
	on_reset(ctx);
}

static void on_debug_exit(void *ctx, uint32_t value)
{
	struct board *b = ctx;

	pc_stop(b->pc, PC_DEBUG_EXIT, value);
}

static void on_panic(void *ctx, unsigned events)
{
	struct board *b = ctx;

	if (events & PVPANIC_PANICKED)
		pc_stop(b->pc, PC_PANIC, 0);
}

/* The HPET takes the place of the PIT and the RTC on their lines, or gives it back. */
static void on_hpet_legacy(void *ctx, bool on)
{
	struct board *b = ctx;

	i8254_connect(b->pit, !on);
	rtc_connect(b->rtc, !on);
}

static void set_gsi(void *ctx, unsigned n, bool level)
{
	struct board *b = ctx;
	struct irq line = ioapic_line(b->ioapic, n);

	irq_set(&line, level);
}

/* ---- making ---- */

static int make_interrupts(struct board *b, const struct board_wires *w,
			   struct err *err)
{
	const struct vm_env *env = &b->pc->env;
	const struct hpet_cfg hpet = {
		.gsi = {set_gsi, b, 0},
		.routes = 0x00ff0104, /* inputs 2, 8, 16-23 */
		.legacy = {b->isa[0], b->isa[8]},
		.legacy_changed = on_hpet_legacy,
		.ctx = b,
	};

	b->pic = i8259_new(env, &w->intr, err);
	b->ioapic = b->pic ? ioapic_new(env, 0, &w->routes, err) : NULL;
	b->pit = b->ioapic ? i8254_new(env, &b->isa[0], err) : NULL;
	b->rtc = b->pit ? rtc_new(env, &b->isa[8], time(NULL), err) : NULL;
	b->hpet = b->rtc ? hpet_new(env, &hpet, err) : NULL;
	return b->hpet ? 0 : -err->code;
}

/* One register each: resets, and what a guest tells its machine. */
static int make_ports(struct board *b, struct err *err)
{
	const struct vm_env *env = &b->pc->env;
	const struct port92_user p92 = {.reset = on_reset, .ctx = b};
	static const uint16_t debug_ports[2] = {0x402, 0xe9};

	b->port92 = port92_new(env, &p92, err);
	b->cf9 = b->port92 ? cf9_new(env, on_cf9, b, err) : NULL;
	b->debug_exit =
		b->cf9 ? debug_exit_new(env, 0xf4, on_debug_exit, b, err) : NULL;
	b->pvpanic = b->debug_exit ? pvpanic_new(env, on_panic, b, err) : NULL;
	b->fw_cfg = b->pvpanic ? fw_cfg_new(env, err) : NULL;
	if (!b->fw_cfg)
		return -err->code;
	for (unsigned i = 0; i < ARRAY_LEN(debug_ports); i++) {
		b->debugcon[i] =
			debugcon_new(env, debug_ports[i], b->pc->cfg.debug, err);
		if (!b->debugcon[i])
			return -err->code;
	}
	fw_cfg_set_u16(b->fw_cfg, FW_CFG_CPUS, (uint16_t)b->pc->cfg.cpus);
	fw_cfg_set_u16(b->fw_cfg, FW_CFG_MAX_CPUS, (uint16_t)b->pc->cfg.cpus);
	fw_cfg_set_u32(b->fw_cfg, FW_CFG_RAM_SIZE,
		       (uint32_t)min_u64(b->pc->cfg.memory, UINT32_MAX));
	return 0;
}

static int make_legacy(struct board *b, const struct board_wires *w, struct err *err)
{
	const struct vm_env *env = &b->pc->env;
	const struct acpi_pm_user pm_user = {on_sleep, b};
	const struct i8042_user kbc_user = {.reset = on_reset, .ctx = b};

	b->pm = acpi_pm_new(env, w->pm_base, &b->isa[9], &pm_user, err);
	b->kbc = b->pm ? i8042_new(env, &b->isa[1], &b->isa[12], &kbc_user, err) : NULL;
	if (!b->kbc)
		return -err->code;
	for (unsigned i = 0; i < PC_MAX_SERIAL; i++) {
		if (i && !b->pc->cfg.serial[i])
			continue;
		b->uart[i] = uart16550_new(env, i, com_ports[i].base,
					   &b->isa[com_ports[i].irq],
					   b->pc->cfg.serial[i], err);
		if (!b->uart[i])
			return -err->code;
	}
	return 0;
}

static int make_pci(struct board *b, const struct board_wires *w, struct err *err)
{
	struct pci_lpc_cfg lpc = {.kind = PCI_LPC_ICH9, .pm_base = w->pm_base};

	pci_bus_init(&b->pci, &b->pc->env);
	b->has_pci = true;
	for (unsigned i = 0; i < 16; i++)
		lpc.isa[i] = b->isa[i];
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		lpc.apic[i] = ioapic_line(b->ioapic, 16 + i);
	b->host = pci_host_new(&b->pci, PCI_HOST_Q35, w->ecam, err);
	b->lpc = b->host ? pci_lpc_new(&b->pci, &lpc, err) : NULL;
	b->next_slot = 1;
	return b->lpc ? 0 : -err->code;
}

static unsigned next_devfn(struct board *b)
{
	return PCI_DEVFN(b->next_slot++, 0);
}

/* The paravirtual devices, each in a slot of its own from 1 on. */
static int make_virtio(struct board *b, struct err *err)
{
	const struct pc_config *cfg = &b->pc->cfg;
	const struct vm_env *env = &b->pc->env;
	unsigned queues = (unsigned)min_u64(cfg->cpus, 4);

	b->rng = virtio_rng_new(env, &b->pci, next_devfn(b), err);
	b->balloon =
		b->rng ? virtio_balloon_new(env, &b->pci, next_devfn(b), err) : NULL;
	if (!b->balloon)
		return -err->code;
	if (cfg->console) {
		b->console = virtio_console_new(env, &b->pci, next_devfn(b),
						cfg->console, err);
		if (!b->console)
			return -err->code;
	}
	for (unsigned i = 0; i < cfg->n_nets; i++) {
		b->net[i] =
			virtio_net_new(env, &b->pci, next_devfn(b), cfg->nets[i], err);
		if (!b->net[i])
			return -err->code;
	}
	for (unsigned i = 0; i < cfg->n_disks; i++) {
		b->blk[i] = virtio_blk_new(env, &b->pci, next_devfn(b), cfg->disks[i],
					   queues, err);
		if (!b->blk[i])
			return -err->code;
	}
	return 0;
}

int parts_new(struct board *b, const struct board_wires *w, struct err *err)
{
	int rc = make_interrupts(b, w, err);

	rc = rc ? rc : make_legacy(b, w, err);
	rc = rc ? rc : make_ports(b, err);
	rc = rc ? rc : make_pci(b, w, err);
	return rc ? rc : make_virtio(b, err);
}

/* ---- reset, quiet, end ---- */

void parts_reset(struct board *b)
{
	pci_bus_reset(&b->pci);
	i8259_reset(b->pic);
	ioapic_reset(b->ioapic);
	i8254_reset(b->pit);
	rtc_reset(b->rtc);
	acpi_pm_reset(b->pm);
	i8042_reset(b->kbc);
	hpet_reset(b->hpet);
	port92_reset(b->port92);
	cf9_reset(b->cf9);
	fw_cfg_reset(b->fw_cfg);
	for (unsigned i = 0; i < PC_MAX_SERIAL; i++)
		if (b->uart[i])
			uart16550_reset(b->uart[i]);
}

void parts_quiesce(struct board *b)
{
	for (unsigned i = 0; i < PC_MAX_DISKS; i++)
		if (b->blk[i])
			virtio_blk_quiesce(b->blk[i]);
}

void parts_free(struct board *b)
{
	for (unsigned i = 0; i < PC_MAX_DISKS; i++)
		if (b->blk[i])
			virtio_blk_free(b->blk[i]);
	for (unsigned i = 0; i < PC_MAX_NETS; i++)
		if (b->net[i])
			virtio_net_free(b->net[i]);
	if (b->console)
		virtio_console_free(b->console);
	if (b->balloon)
		virtio_balloon_free(b->balloon);
	if (b->rng)
		virtio_rng_free(b->rng);
	if (b->lpc)
		pci_lpc_free(b->lpc);
	if (b->host)
		pci_host_free(b->host);
	for (unsigned i = 0; i < PC_MAX_SERIAL; i++)
		if (b->uart[i])
			uart16550_free(b->uart[i]);
	for (unsigned i = 0; i < ARRAY_LEN(b->debugcon); i++)
		if (b->debugcon[i])
			debugcon_free(b->debugcon[i]);
	if (b->fw_cfg)
		fw_cfg_free(b->fw_cfg);
	if (b->pvpanic)
		pvpanic_free(b->pvpanic);
	if (b->debug_exit)
		debug_exit_free(b->debug_exit);
	if (b->cf9)
		cf9_free(b->cf9);
	if (b->port92)
		port92_free(b->port92);
	if (b->hpet)
		hpet_free(b->hpet);
	if (b->kbc)
		i8042_free(b->kbc);
	if (b->pm)
		acpi_pm_free(b->pm);
	if (b->rtc)
		rtc_free(b->rtc);
	if (b->pit)
		i8254_free(b->pit);
	if (b->ioapic)
		ioapic_free(b->ioapic);
	if (b->pic)
		i8259_free(b->pic);
}

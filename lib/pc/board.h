/* pc/board.h - the parts of a board and the tables that describe them. Private to lib/pc. */
#ifndef PC_BOARD_H
#define PC_BOARD_H

#include "dev/acpi_pm.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/ioapic.h"
#include "dev/isa_misc.h"
#include "dev/pci.h"
#include "dev/pci_host.h"
#include "dev/pci_lpc.h"
#include "dev/rtc.h"
#include "dev/uart16550.h"
#include "dev/virtio_balloon.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_rng.h"
#include "fw/acpi.h"
#include "fw/smbios.h"
#include "pc/pc_int.h"

struct board {
	struct pc *pc; /* borrowed */
	struct irq isa[16];
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct i8254 *pit;
	struct rtc *rtc;
	struct i8042 *kbc;
	struct hpet *hpet;
	struct fw_cfg *fw_cfg;
	struct port92 *port92;
	struct cf9 *cf9;
	struct debugcon *debugcon[2]; /* ports 402h and e9h */
	struct debug_exit *debug_exit;
	struct pvpanic *pvpanic;
	struct acpi_pm *pm;
	struct uart16550 *uart[PC_MAX_SERIAL];
	struct pci_bus pci;
	bool has_pci;
	struct pci_host *host;
	struct pci_lpc *lpc;
	unsigned next_slot;
	struct virtio_rng *rng;
	struct virtio_balloon *balloon;
	struct virtio_console *console;
	struct virtio_net *net[PC_MAX_NETS];
	struct virtio_blk *blk[PC_MAX_DISKS];
	struct acpi_tables acpi;
	struct smbios_tables smbios;
};

/* What the board wires its parts to. */
struct board_wires {
	struct irq intr; /* the 8259's output */
	struct ioapic_user routes;
	uint64_t ecam;
	uint16_t pm_base;
};

/* parts.c: makes, resets, quiesces, frees the devices. */
int parts_new(struct board *b, const struct board_wires *w, struct err *err);
void parts_reset(struct board *b);
void parts_quiesce(struct board *b);
void parts_free(struct board *b);

struct tables_place {
	uint64_t acpi, smbios;
	struct pci_window ecam, mmio32, mmio64;
	uint64_t below_4g;
};

/* tables.c: the ACPI and SMBIOS tables; placed again after each reset. */
int tables_build(struct board *b, const struct tables_place *place, struct err *err);
int tables_place(struct board *b, struct err *err);

#endif

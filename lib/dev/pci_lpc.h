/*
 * dev/pci_lpc.h - south bridges: the PCI-to-ISA function, which routes PCI interrupt pins, and where the
 * power management block is. Constructors: before the machine runs; otherwise machine lock held.
 */
#ifndef DEV_PCI_LPC_H
#define DEV_PCI_LPC_H

#include "dev/pci.h"

enum pci_lpc_kind {
	PCI_LPC_ICH9,  /* 8086:2918 at 00:1f.0 */
	PCI_LPC_PIIX3, /* 8086:7000 at 00:01.0 and the PIIX4's 8086:7113 at 00:01.3 */
};

struct pci_lpc_cfg {
	enum pci_lpc_kind kind;
	/* The inputs 0-15 of the 8259 pair (and of the I/O APIC, if the board ties them). */
	struct irq isa[16];
	/* ICH9: I/O APIC inputs 16-23, which PIRQA#-PIRQH# also reach. */
	struct irq apic[PCI_PIRQS];
	/* The power management block's I/O base was set; 0: it is disabled. May be NULL. */
	void (*pm_moved)(void *ctx, uint16_t base);
	void *pm_ctx;     /* borrowed */
	uint16_t pm_base; /* after a reset; 0: disabled until firmware enables it */
};

struct pci_lpc;

struct pci_lpc *pci_lpc_new(struct pci_bus *bus, const struct pci_lpc_cfg *cfg,
			    struct err *err);
void pci_lpc_free(struct pci_lpc *lpc);

/*
 * What firmware does: routes the PIRQs to 8259 inputs (`isa`: for PIRQ A-H, 8 numbers; PIIX3 takes the first
 * 4). Their ELCR bits must be set to level by the caller. Before pci_assign_resources().
 */
void pci_lpc_route(struct pci_lpc *lpc, const uint8_t isa[PCI_PIRQS]);

#endif

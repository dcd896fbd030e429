/*
 * dev/pci_host.h - host bridges: how processors reach PCI configuration space. Constructors: before the
 * machine runs; otherwise machine lock held.
 */
#ifndef DEV_PCI_HOST_H
#define DEV_PCI_HOST_H

#include "dev/pci.h"

enum pci_host_kind {
	PCI_HOST_Q35,    /* 8086:29c0, with PCIEXBAR */
	PCI_HOST_I440FX, /* 8086:1237 */
};

struct pci_host;

/*
 * The host bridge at 00:00.0 with ports CF8h and CFCh. `ecam`: where PCIEXBAR's 256 MiB are after a reset, 0 =
 * disabled until firmware enables it (q35 only). NULL with *err.
 */
struct pci_host *pci_host_new(struct pci_bus *bus, enum pci_host_kind kind,
			      uint64_t ecam, struct err *err);
void pci_host_free(struct pci_host *h);

/* Where the memory-mapped configuration space is now; size 0 when it is nowhere. */
struct pci_window pci_host_ecam(const struct pci_host *h);

#endif

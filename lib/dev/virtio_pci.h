/*
 * dev/virtio_pci.h - the PCI transport of virtio devices (virtio 1.2, 4.1): modern interface only, MSI-X or
 * INTx.
 */
#ifndef DEV_VIRTIO_PCI_H
#define DEV_VIRTIO_PCI_H

#include "dev/pci.h"
#include "dev/virtio.h"

struct virtio_pci;

/*
 * Puts an initialised device on the bus, at 1AF4:1040 + type, and registers its saved state ("pci.DEVFN",
 * "msix.DEVFN", "virtio.DEVFN"). `v` stays the caller's and must outlive it. NULL with *err.
 * Machine lock held or before the machine runs.
 */
struct virtio_pci *virtio_pci_new(struct virtio *v, struct pci_bus *bus, unsigned devfn,
				  struct err *err);
/* Takes it off the bus; no vCPU, worker or loop runs any more. */
void virtio_pci_free(struct virtio_pci *t);

/* The PCI function, for tests and boot order. */
struct pci_dev *virtio_pci_dev(struct virtio_pci *t);

#endif

/*
 * dev/msix.h - MSI-X (PCI Local Bus Specification 3.0, 6.8.2): a device's message table and pending
 * bits in one of its BARs.
 *
 * Lock order: machine lock, a device's lock, msix->lock. Messages leave without any of the last two.
 */
#ifndef DEV_MSIX_H
#define DEV_MSIX_H

#include "dev/pci.h"

#define MSIX_MAX_VECTORS 64
#define MSIX_TABLE_LEN   0x1000 /* room in the BAR for either part */

/* Embedded in a device. */
struct msix {
	struct pci_dev *pci; /* borrowed */
	struct msi_target msi;
	pthread_mutex_t lock; /* all below */
	unsigned n, cap;
	bool enabled, masked; /* message control */
	bool master;          /* bus mastering is on */
	uint8_t table[16 * MSIX_MAX_VECTORS];
	uint64_t pending;
	struct io_range table_range, pba_range;
};

/*
 * Adds the capability with `n` vectors to a device that is not on the bus yet. Table at `off` of BAR `bar`,
 * pending bits at off + MSIX_TABLE_LEN; their saved state is "msix.DEVFN".
 */
void msix_init(struct msix *m, struct pci_dev *pci, const struct vm_env *env,
	       unsigned n, unsigned bar, uint32_t off);
/* After pci_dev_add(). */
void msix_add_state(struct msix *m, struct state *state);
void msix_fini(struct msix *m);

/* From the device's pci_dev_ops.written, .reset and .loaded. Machine lock held. */
void msix_cfg_written(struct msix *m);
void msix_reset(struct msix *m);

/* Does the driver use MSI-X (else INTx)? Any thread. */
bool msix_enabled(struct msix *m);
/* Sends the message of a vector, or notes it while masked. Any thread, no device lock held. */
void msix_notify(struct msix *m, unsigned vector);

#endif

/* dev/virtio_blk.h - virtio block device (virtio 1.2, 5.2). */
#ifndef DEV_VIRTIO_BLK_H
#define DEV_VIRTIO_BLK_H

#include "dev/pci.h"
#include "vm/blk.h"

struct virtio_blk;

/*
 * A disk on the PCI bus with `n_queues` request queues (1-8: one a vCPU). `blk` is borrowed and must outlive it. NULL
 * with *err. Before the machine runs.
 */
struct virtio_blk *virtio_blk_new(const struct vm_env *env, struct pci_bus *pci,
				  unsigned devfn, struct blk *blk, unsigned n_queues,
				  struct err *err);
/* Waits for requests under way. No vCPU or loop runs any more. */
void virtio_blk_free(struct virtio_blk *b);

/*
 * Returns when no request is under way: before the machine's memory is saved. vCPUs stand still, machine lock
 * held; the driver's further requests stay in the queues.
 */
void virtio_blk_quiesce(struct virtio_blk *b);
/* The backend's size has changed: tells the driver. Machine lock held. */
void virtio_blk_resized(struct virtio_blk *b);

#endif

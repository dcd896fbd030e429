/* dev/virtio_balloon.h - virtio memory balloon (virtio 1.2, 5.5). */
#ifndef DEV_VIRTIO_BALLOON_H
#define DEV_VIRTIO_BALLOON_H

#include "dev/pci.h"

struct virtio_balloon;

/* What the driver told about its memory, in the order of the tags of 5.5.6.4. */
enum virtio_balloon_stat {
	BALLOON_SWAP_IN, /* bytes */
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS,
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE,      /* bytes */
	BALLOON_TOTAL,     /* bytes */
	BALLOON_AVAILABLE, /* bytes */
	BALLOON_CACHES,    /* bytes */
	BALLOON_HUGE_ALLOCS,
	BALLOON_HUGE_FAILURES,
	BALLOON_STATS
};

/* A balloon that returns guest memory to the host. NULL with *err. Before the machine runs. */
struct virtio_balloon *virtio_balloon_new(const struct vm_env *env, struct pci_bus *pci,
					  unsigned devfn, struct err *err);
void virtio_balloon_free(struct virtio_balloon *b);

/* Machine lock held for these. */

/* Asks the driver to give `bytes` of its memory back (rounded down to 4 KiB). */
void virtio_balloon_set_target(struct virtio_balloon *b, uint64_t bytes);
/* How much the driver says it gave. */
uint64_t virtio_balloon_actual(const struct virtio_balloon *b);
/* Asks the driver for fresh statistics; false when it offers none. */
bool virtio_balloon_ask_stats(struct virtio_balloon *b);
/* The last statistics; UINT64_MAX for what the driver did not tell. */
uint64_t virtio_balloon_stat(const struct virtio_balloon *b,
			     enum virtio_balloon_stat which);

#endif

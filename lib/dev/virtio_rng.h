/* dev/virtio_rng.h - virtio entropy device (virtio 1.2, 5.4). */
#ifndef DEV_VIRTIO_RNG_H
#define DEV_VIRTIO_RNG_H

#include "dev/pci.h"

struct virtio_rng;

/* Hands out the host's random bytes, at most VIRTIO_RNG_RATE a second. NULL with *err. */
#define VIRTIO_RNG_RATE (1u << 20)
struct virtio_rng *virtio_rng_new(const struct vm_env *env, struct pci_bus *pci,
				  unsigned devfn, struct err *err);
void virtio_rng_free(struct virtio_rng *r);

#endif

/* dev/virtio_net.h - virtio network device (virtio 1.2, 5.1), one queue pair. */
#ifndef DEV_VIRTIO_NET_H
#define DEV_VIRTIO_NET_H

#include "dev/pci.h"
#include "vm/net.h"

struct virtio_net;

/* A network card with the address net->mac; sets net->peer. `net` is borrowed. NULL with *err. */
struct virtio_net *virtio_net_new(const struct vm_env *env, struct pci_bus *pci,
				  unsigned devfn, struct net *net, struct err *err);
void virtio_net_free(struct virtio_net *n);

/* Plugs or pulls the cable. Machine lock held. */
void virtio_net_set_link(struct virtio_net *n, bool up);

#endif

/* vm/net.h - a network as device models see it; backends implement it (host/). */
#ifndef VM_NET_H
#define VM_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define NET_MAX_FRAME \
	65550 /* Ethernet header and the largest frame with segmentation offload */

struct net;

/* The device's end; called in the loop thread, machine lock held. */
struct net_peer {
	/* Is there room for a frame? If not, the device calls net->ops->poke() once there is. */
	bool (*can_receive)(void *dev);
	/* Takes one Ethernet frame (no FCS, no virtio header); copies it. */
	void (*receive)(void *dev, const void *frame, size_t len);
	void *dev; /* borrowed */
};

struct net_ops {
	/* Sends one Ethernet frame (no header in front of it). Machine lock held. */
	void (*send)(struct net *n, const struct iovec *iov, unsigned n_iov);
	/* can_receive() has become true. Machine lock held. */
	void (*poke)(struct net *n);
	void (*close)(struct net *n);
};

struct net {
	const struct net_ops *ops;
	struct net_peer peer; /* set by the device before the machine runs */
	uint8_t mac[6];
};

#endif

/*
 * host/net.h - networks on the host for network cards. Constructors return NULL with *err;
 * ops->close() frees. Frames are handed to the device in the loop thread.
 */
#ifndef HOST_NET_H
#define HOST_NET_H

#include "base/err.h"
#include "base/log.h"
#include "vm/loop.h"
#include "vm/net.h"

/* One forwarding of a host port to the guest. */
struct net_forward {
	bool udp;
	uint32_t host_addr; /* host byte order; default 127.0.0.1 */
	uint16_t host_port;
	uint16_t guest_port; /* at the guest's DHCP address */
};

/* Reads "tcp:2222:22", "udp:5353:53" or "tcp:0.0.0.0:8080:80". 0 or -EINVAL. */
int net_forward_parse(const char *text, struct net_forward *f, struct err *err);

/*
 * A network of our own behind the user's sockets (libslirp): guest 10.0.2.15 by DHCP, gateway
 * and host's loopback at 10.0.2.2, DNS at 10.0.2.3. Needs no rights.
 */
struct net *net_user_new(struct loop *loop, const struct net_forward *fwd,
			 unsigned n_fwd, const struct log *log, struct err *err);

/* An existing tap interface, or a new one where the user may. */
struct net *net_tap_new(struct loop *loop, const char *ifname, struct err *err);

#endif

/* host/net_tap.c - a tap interface of the host. Loop thread or machine lock held. */
#include "host/net.h"

#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/mem.h"

#define BURST 64 /* frames taken in one go, so that other events have their turn */

struct net_tap {
	struct net net;
	struct loop *loop; /* borrowed */
	int fd;
};

static void on_frame(void *ctx, uint32_t events);

static void tap_listen(struct net_tap *t, bool on)
{
	loop_fd_set(t->loop, t->fd, on ? EPOLLIN : 0, on_frame, t);
}

static void on_frame(void *ctx, uint32_t events)
{
	struct net_tap *t = ctx;
	const struct net_peer *peer = &t->net.peer;
	uint8_t frame[NET_MAX_FRAME];

	(void)events;
	for (unsigned i = 0; i < BURST; i++) {
		ssize_t n;

		if (!peer->receive || !peer->can_receive(peer->dev)) {
			tap_listen(t, false);
			return;
		}
		n = read(t->fd, frame, sizeof(frame));
		if (n <= 0)
			return;
		peer->receive(peer->dev, frame, (size_t)n);
	}
}

static void tap_send(struct net *n, const struct iovec *iov, unsigned n_iov)
{
	struct net_tap *t = container_of(n, struct net_tap, net);
	ssize_t done = writev(t->fd, iov, (int)n_iov);

	(void)done; /* a full queue drops the frame, as a wire would */
}

static void tap_poke(struct net *n)
{
	tap_listen(container_of(n, struct net_tap, net), true);
}

static void tap_close(struct net *n)
{
	struct net_tap *t = container_of(n, struct net_tap, net);

	if (t->fd >= 0) {
		loop_fd_remove(t->loop, t->fd);
		close(t->fd);
	}
	free(t);
}

static const struct net_ops tap_ops = {
	.send = tap_send,
	.poke = tap_poke,
	.close = tap_close,
};

struct net *net_tap_new(struct loop *loop, const char *ifname, struct err *err)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	struct net_tap *t;

	if (!*ifname || strlen(ifname) >= sizeof(ifr.ifr_name)) {
		err_set(err, EINVAL,
			"'%s' is not an interface name (1 to %zu characters)", ifname,
			sizeof(ifr.ifr_name) - 1);
		return NULL;
	}
	t = NEW(struct net_tap);
	if (!t) {
		err_set(err, ENOMEM, "no memory for tap '%s'", ifname);
		return NULL;
	}
	t->net.ops = &tap_ops;
	t->loop = loop;
	strcpy(ifr.ifr_name, ifname);
	t->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0) {
		err_sys(err, errno, "cannot open '/dev/net/tun' for tap '%s'", ifname);
		goto fail;
	}
	if (ioctl(t->fd, TUNSETIFF, &ifr) < 0) {
		err_sys(err, errno,
			"cannot use tap '%s' (make it with 'ip tuntap add %s mode tap "
			"user $USER')",
			ifname, ifname);
		goto fail;
	}
	tap_listen(t, true);
	return &t->net;
fail:
	tap_close(&t->net);
	return NULL;
}

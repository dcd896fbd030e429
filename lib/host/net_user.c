/*
 * host/net_user.c - user network over libslirp. Loop thread or machine lock held.
 *
 * libslirp wants to be polled: before each wait of the loop it names its descriptors, which are
 * watched so that they end the wait; behind it poll() tells which are ready.
 */
#include "host/net.h"

#include <arpa/inet.h>
#include <slirp/libslirp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/bits.h"
#include "base/mem.h"
#include "base/time.h"

#define MAX_POLL    64
#define QUEUE_BYTES (1u << 20) /* frames that wait for room in the guest */

struct frame {
	struct frame *next;
	size_t len;
	uint8_t data[];
};

struct slirp_timer {
	struct timer timer;
	SlirpTimerCb cb;
	void *cb_opaque;
};

struct net_user {
	struct net net;
	struct loop *loop; /* borrowed */
	const struct log *log;
	Slirp *slirp;
	struct pollfd poll[MAX_POLL];
	unsigned n_poll;
	struct pollfd watched[MAX_POLL]; /* what the loop knows: fd, events */
	unsigned n_watched;
	struct frame *queue, **queue_end;
	size_t queued;
	uint64_t clock_ahead; /* of the guest's clock, ns: see learn_nameserver() */
};

/* ---- frames ---- */

static bool guest_takes(struct net_user *u, const void *p, size_t len)
{
	const struct net_peer *peer = &u->net.peer;

	if (!peer->receive || !peer->can_receive(peer->dev))
		return false;
	peer->receive(peer->dev, p, len);
	return true;
}

static ssize_t on_packet(const void *buf, size_t len, void *opaque)
{
	struct net_user *u = opaque;
	struct frame *f;

	if (!u->queue && guest_takes(u, buf, len))
		return (ssize_t)len;
	if (u->queued + len > QUEUE_BYTES)
		return (ssize_t)len; /* as a full switch would: dropped */
	f = mem_new(1, sizeof(*f) + len);
	if (!f)
		return (ssize_t)len;
	f->len = len;
	memcpy(f->data, buf, len);
	*u->queue_end = f;
	u->queue_end = &f->next;
	u->queued += len;
	return (ssize_t)len;
}

static void drain_queue(struct net_user *u)
{
	struct frame *f;

	while ((f = u->queue) && guest_takes(u, f->data, f->len)) {
		u->queue = f->next;
		if (!u->queue)
			u->queue_end = &u->queue;
		u->queued -= f->len;
		free(f);
	}
}

static void user_send(struct net *n, const struct iovec *iov, unsigned n_iov)
{
	struct net_user *u = container_of(n, struct net_user, net);
	uint8_t flat[NET_MAX_FRAME];
	size_t len = 0;

	for (unsigned i = 0; i < n_iov; i++) {
		if (!range_ok(len, iov[i].iov_len, sizeof(flat)))
			return;
		memcpy(flat + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	slirp_input(u->slirp, flat, (int)len);
	loop_wake(u->loop); /* it may have opened a socket */
}

static void user_poke(struct net *n)
{
	drain_queue(container_of(n, struct net_user, net));
}

/* ---- callbacks of libslirp ---- */

static void on_guest_error(const char *msg, void *opaque)
{
	struct net_user *u = opaque;

	log_msg(u->log, LOG_DEBUG, "network: %s", msg);
}

static int64_t on_clock(void *opaque)
{
	struct net_user *u = opaque;

	return (int64_t)(clock_now(u->loop) + u->clock_ahead);
}

static void on_timer(void *ctx)
{
	struct slirp_timer *t = ctx;

	t->cb(t->cb_opaque);
}

static void *on_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct net_user *u = opaque;
	struct slirp_timer *t = NEW(struct slirp_timer);

	if (!t)
		abort(); /* libslirp does not check */
	timer_init(&t->timer, u->loop, on_timer, t);
	t->cb = cb;
	t->cb_opaque = cb_opaque;
	return t;
}

static void on_timer_free(void *timer, void *opaque)
{
	struct slirp_timer *t = timer;

	(void)opaque;
	timer_cancel(&t->timer);
	free(t);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct slirp_timer *t = timer;

	(void)opaque;
	timer_set(&t->timer, expire_ms > 0 ? (uint64_t)expire_ms * NS_PER_MS : 0);
}

static void on_register_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque; /* it becomes known by add_poll() */
}

static void on_unregister_fd(int fd, void *opaque)
{
	struct net_user *u = opaque;

	for (unsigned i = 0; i < u->n_watched; i++)
		if (u->watched[i].fd == fd) {
			u->watched[i] = u->watched[--u->n_watched];
			break;
		}
	loop_fd_remove(u->loop, fd);
}

static void on_notify(void *opaque)
{
	struct net_user *u = opaque;

	loop_wake(u->loop);
}

static const SlirpCb callbacks = {
	.send_packet = on_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_register_fd,
	.unregister_poll_fd = on_unregister_fd,
	.notify = on_notify,
};

/* ---- polling ---- */

static int add_poll(int fd, int events, void *opaque)
{
	struct net_user *u = opaque;
	short ev = 0;

	if (u->n_poll == MAX_POLL)
		return -1;
	if (events & SLIRP_POLL_IN)
		ev |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		ev |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		ev |= POLLPRI;
	u->poll[u->n_poll] = (struct pollfd){.fd = fd, .events = ev};
	return (int)u->n_poll++;
}

static int get_revents(int idx, void *opaque)
{
	struct net_user *u = opaque;
	int r = 0;
	short ev;

	if (idx < 0 || (unsigned)idx >= u->n_poll)
		return 0;
	ev = u->poll[idx].revents;
	if (ev & POLLIN)
		r |= SLIRP_POLL_IN;
	if (ev & POLLOUT)
		r |= SLIRP_POLL_OUT;
	if (ev & POLLPRI)
		r |= SLIRP_POLL_PRI;
	if (ev & POLLERR)
		r |= SLIRP_POLL_ERR;
	if (ev & POLLHUP)
		r |= SLIRP_POLL_HUP;
	return r;
}

static void on_ready(void *ctx, uint32_t events)
{
	(void)ctx;
	(void)events; /* only ends the wait: after_wait() asks poll() */
}

static struct pollfd *watched_at(struct net_user *u, int fd)
{
	for (unsigned i = 0; i < u->n_watched; i++)
		if (u->watched[i].fd == fd)
			return &u->watched[i];
	return NULL;
}

static void watch(struct net_user *u, const struct pollfd *p)
{
	struct pollfd *w = watched_at(u, p->fd);

	if (w && w->events == p->events)
		return;
	/* POLLIN, POLLOUT, POLLPRI have the same values as EPOLLIN, ... */
	if (loop_fd_set(u->loop, p->fd, (uint32_t)p->events, on_ready, u) < 0)
		return;
	if (!w && u->n_watched < MAX_POLL)
		w = &u->watched[u->n_watched++];
	if (w)
		*w = *p;
}

static void before_wait(void *ctx, int *timeout_ms)
{
	struct net_user *u = ctx;
	uint32_t timeout = UINT32_MAX;

	u->n_poll = 0;
	slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
	for (unsigned i = 0; i < u->n_poll; i++)
		watch(u, &u->poll[i]);
	for (unsigned i = 0; i < u->n_watched; i++) {
		struct pollfd *w = &u->watched[i];
		bool seen = false;

		for (unsigned k = 0; k < u->n_poll; k++)
			seen |= u->poll[k].fd == w->fd;
		if (!seen && w->events) {
			w->events = 0;
			loop_fd_set(u->loop, w->fd, 0, on_ready, u);
		}
	}
	if (timeout <= INT32_MAX && (*timeout_ms < 0 || (int)timeout < *timeout_ms))
		*timeout_ms = (int)timeout;
}

static void after_wait(void *ctx)
{
	struct net_user *u = ctx;

	if (u->n_poll && poll(u->poll, u->n_poll, 0) < 0)
		u->n_poll = 0;
	slirp_pollfds_poll(u->slirp, 0, get_revents, u);
	drain_queue(u);
}

/*
 * libslirp looks into resolv.conf when the guest first asks its nameserver, and again when the file has changed
 * since it last looked; a sandboxed process cannot. So it is asked here, with an empty datagram to
 * 10.0.2.3 port 53, twice: it remembers what the file was from the second time on, which must be a second
 * later by its clock.
 */
static void learn_nameserver(struct net_user *u)
{
	static const uint8_t frame[] = {
		0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x08, 0x00,
		/* IPv4 from 10.0.2.15 to 10.0.2.3, UDP, 28 bytes */
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x62, 0xc0, 10, 0, 2, 15, 10, 0, 2,
		3,
		/* port 1 to port 53, 8 bytes, no checksum */
		0, 1, 0, 53, 0, 8, 0, 0};

	for (unsigned i = 0; i < 2; i++) {
		uint32_t timeout = 0;

		u->clock_ahead += 2 * NS_PER_SEC;
		u->n_poll = 0;
		slirp_pollfds_fill(u->slirp, &timeout, add_poll,
				   u); /* reads the clock */
		slirp_input(u->slirp, frame, sizeof(frame));
	}
	u->n_poll = 0;
}

/* ---- life ---- */

static void user_close(struct net *n)
{
	struct net_user *u = container_of(n, struct net_user, net);
	struct frame *next;

	if (u->slirp)
		slirp_cleanup(u->slirp);
	for (struct frame *f = u->queue; f; f = next) {
		next = f->next;
		free(f);
	}
	free(u);
}

static const struct net_ops user_ops = {
	.send = user_send,
	.poke = user_poke,
	.close = user_close,
};

static struct in_addr addr4(uint32_t host_order)
{
	return (struct in_addr){.s_addr = htonl(host_order)};
}

struct net *net_user_new(struct loop *loop, const struct net_forward *fwd,
			 unsigned n_fwd, const struct log *log, struct err *err)
{
	enum { NET = 10u << 24 | 2 << 8 }; /* 10.0.2.0 */
	SlirpConfig cfg = {
		.version = 4,
		.in_enabled = true,
		.vnetwork = addr4(NET),
		.vnetmask = addr4(0xffffff00),
		.vhost = addr4(NET | 2),
		.vdhcp_start = addr4(NET | 15),
		.vnameserver = addr4(NET | 3),
		.vhostname = "guest",
	};
	struct net_user *u = NEW(struct net_user);

	if (!u) {
		err_set(err, ENOMEM, "no memory for the user network");
		return NULL;
	}
	u->net.ops = &user_ops;
	u->loop = loop;
	u->log = log;
	u->queue_end = &u->queue;
	u->slirp = slirp_new(&cfg, &callbacks, u);
	if (!u->slirp) {
		err_set(err, EIO, "libslirp refuses to start");
		goto fail;
	}
	for (unsigned i = 0; i < n_fwd; i++) {
		const struct net_forward *f = &fwd[i];

		if (slirp_add_hostfwd(u->slirp, f->udp, addr4(f->host_addr),
				      f->host_port, addr4(NET | 15),
				      f->guest_port) < 0) {
			err_sys(err, errno, "cannot forward host port %u",
				f->host_port);
			goto fail;
		}
	}
	if (loop_hook_add(loop, before_wait, after_wait, u) < 0) {
		err_set(err, ENOSPC, "too many user networks");
		goto fail;
	}
	learn_nameserver(u);
	return &u->net;
fail:
	user_close(&u->net);
	return NULL;
}

int net_forward_parse(const char *text, struct net_forward *f, struct err *err)
{
	char proto[4], addr[16] = "127.0.0.1";
	unsigned host, guest;
	struct in_addr a;
	int end = 0;

	if (sscanf(text, "%3[a-z]:%u:%u%n", proto, &host, &guest, &end) != 3 ||
	    text[end]) {
		end = 0;
		if (sscanf(text, "%3[a-z]:%15[0-9.]:%u:%u%n", proto, addr, &host,
			   &guest, &end) != 4 ||
		    text[end])
			goto bad;
	}
	if ((strcmp(proto, "tcp") && strcmp(proto, "udp")) || !inet_aton(addr, &a) ||
	    !host || host > 65535 || !guest || guest > 65535)
		goto bad;
	*f = (struct net_forward){
		.udp = !strcmp(proto, "udp"),
		.host_addr = ntohl(a.s_addr),
		.host_port = (uint16_t)host,
		.guest_port = (uint16_t)guest,
	};
	return 0;
bad:
	return err_set(err, EINVAL,
		       "'%s' is not a forwarding: write tcp:HOSTPORT:GUESTPORT, as in "
		       "tcp:2222:22",
		       text);
}

/*
 * host/chr.c - byte streams on the host for serial lines and consoles.
 *
 * Output goes through a buffer to a writer thread, so that a vCPU does not wait for a terminal.
 * When the buffer is full, a stream with a fixed reader makes the guest wait; one whose reader may
 * come and go (pseudo-terminal, socket) drops the output.
 */
#include "host/chr.h"

#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "host/leftovers.h"

#define BUF_SIZE (256u << 10)

struct chr_host {
	struct chr chr;
	struct loop *loop; /* borrowed */
	struct chr_filter filter;
	int in_fd, out_fd, listen_fd, slave_fd;
	bool own_fds, drops, always_ready;

	pthread_t writer;
	bool has_writer;
	pthread_mutex_t
		mutex; /* the buffer and out_fd; no other lock is taken inside */
	pthread_cond_t filled, drained;
	bool closing;
	size_t head, count; /* of buf, a ring */
	uint8_t buf[BUF_SIZE];
};

static struct chr_host *host_of(struct chr *c)
{
	return container_of(c, struct chr_host, chr);
}

/* ---- output ---- */

/* Takes up to `max` bytes out of the ring; mutex held. */
static size_t ring_take(struct chr_host *h, uint8_t *p, size_t max)
{
	size_t n = min_u64(min_u64(h->count, max), BUF_SIZE - h->head);

	memcpy(p, h->buf + h->head, n);
	h->head = (h->head + n) % BUF_SIZE;
	h->count -= n;
	return n;
}

static void *writer_main(void *arg)
{
	struct chr_host *h = arg;
	uint8_t part[4096];

	pthread_mutex_lock(&h->mutex);
	for (;;) {
		size_t n;
		int fd;

		while (!h->count && !h->closing)
			pthread_cond_wait(&h->filled, &h->mutex);
		if (!h->count)
			break;
		n = ring_take(h, part, sizeof(part));
		fd = h->out_fd;
		pthread_cond_broadcast(&h->drained);
		pthread_mutex_unlock(&h->mutex);
		if (fd >= 0)
			fd_write_full(fd, part, n); /* a reader that left: dropped */
		pthread_mutex_lock(&h->mutex);
	}
	pthread_mutex_unlock(&h->mutex);
	return NULL;
}

static void host_write(struct chr *c, const uint8_t *p, size_t len)
{
	struct chr_host *h = host_of(c);

	pthread_mutex_lock(&h->mutex);
	while (len) {
		size_t tail = (h->head + h->count) % BUF_SIZE;
		size_t n = min_u64(min_u64(len, BUF_SIZE - h->count), BUF_SIZE - tail);

		if (!n && (h->drops || h->closing))
			break;
		if (!n) {
			pthread_cond_wait(&h->drained, &h->mutex);
			continue;
		}
		memcpy(h->buf + tail, p, n);
		h->count += n;
		p += n;
		len -= n;
		pthread_cond_signal(&h->filled);
	}
	pthread_mutex_unlock(&h->mutex);
}

/* ---- input ---- */

static void hang_up(struct chr_host *h);

/* Moves what is there to the guest. Loop thread. Returns false when there will be no more. */
static bool pump(struct chr_host *h)
{
	uint8_t part[512], keep[512];
	size_t room, n_keep = 0;
	ssize_t n;

	room = h->chr.peer.room ? h->chr.peer.room(h->chr.peer.dev) : sizeof(part);
	if (!room) {
		if (!h->always_ready)
			loop_fd_set(h->loop, h->in_fd, 0, NULL, NULL);
		return true;
	}
	n = read(h->in_fd, part, min_u64(room, sizeof(part)));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	for (ssize_t i = 0; i < n; i++)
		if (!h->filter.byte || !h->filter.byte(h->filter.ctx, part[i]))
			keep[n_keep++] = part[i];
	if (n_keep && h->chr.peer.receive)
		h->chr.peer.receive(h->chr.peer.dev, keep, n_keep);
	return true;
}

static void on_input(void *ctx, uint32_t events)
{
	struct chr_host *h = ctx;

	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !pump(h))
		hang_up(h);
}

/* A file as input is always readable, which epoll does not do: read as room appears. */
static void pump_file(void *ctx)
{
	struct chr_host *h = ctx;

	while (h->in_fd >= 0 &&
	       (!h->chr.peer.room || h->chr.peer.room(h->chr.peer.dev)))
		if (!pump(h))
			h->in_fd = -1;
}

static void host_poke(struct chr *c)
{
	struct chr_host *h = host_of(c);

	if (h->in_fd < 0)
		return;
	if (h->always_ready)
		loop_post(h->loop, pump_file, h);
	else
		loop_fd_set(h->loop, h->in_fd, EPOLLIN, on_input, h);
}

static void on_client(void *ctx, uint32_t events)
{
	struct chr_host *h = ctx;
	int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	loop_fd_set(h->loop, h->listen_fd, 0, on_client, h); /* one client at a time */
	pthread_mutex_lock(&h->mutex);
	h->in_fd = h->out_fd = fd;
	pthread_mutex_unlock(&h->mutex);
	loop_fd_set(h->loop, fd, EPOLLIN, on_input, h);
}

/* The input ended: a socket waits for its next client. */
static void hang_up(struct chr_host *h)
{
	int fd = h->in_fd;

	if (h->slave_fd >= 0)
		return;
	loop_fd_remove(h->loop, fd);
	h->in_fd = -1;
	if (h->listen_fd < 0)
		return;
	pthread_mutex_lock(&h->mutex);
	h->out_fd = -1;
	pthread_mutex_unlock(&h->mutex);
	close(fd);
	loop_fd_set(h->loop, h->listen_fd, EPOLLIN, on_client, h);
}

/* ---- life ---- */

static void host_close(struct chr *c)
{
	struct chr_host *h = host_of(c);

	if (h->has_writer) {
		pthread_mutex_lock(&h->mutex);
		h->closing = true;
		pthread_cond_broadcast(&h->filled);
		pthread_cond_broadcast(&h->drained);
		pthread_mutex_unlock(&h->mutex);
		pthread_join(h->writer, NULL);
	}
	if (h->in_fd >= 0 && !h->always_ready)
		loop_fd_remove(h->loop, h->in_fd);
	if (h->listen_fd >= 0) {
		loop_fd_remove(h->loop, h->listen_fd);
		close(h->listen_fd);
	}
	if (h->own_fds && h->in_fd >= 0 && h->in_fd != h->out_fd)
		close(h->in_fd);
	if (h->own_fds && h->out_fd >= 0)
		close(h->out_fd);
	if (h->slave_fd >= 0)
		close(h->slave_fd);
	pthread_mutex_destroy(&h->mutex);
	pthread_cond_destroy(&h->filled);
	pthread_cond_destroy(&h->drained);
	free(h);
}

static const struct chr_ops host_ops = {
	.write = host_write,
	.poke = host_poke,
	.close = host_close,
};

static struct chr_host *host_new(struct loop *loop, struct err *err)
{
	struct chr_host *h = NEW(struct chr_host);

	if (!h) {
		err_set(err, ENOMEM, "no memory for a serial line");
		return NULL;
	}
	h->chr.ops = &host_ops;
	h->loop = loop;
	h->in_fd = h->out_fd = h->listen_fd = h->slave_fd = -1;
	pthread_mutex_init(&h->mutex, NULL);
	pthread_cond_init(&h->filled, NULL);
	pthread_cond_init(&h->drained, NULL);
	return h;
}

static struct chr *host_start(struct chr_host *h, struct err *err)
{
	int rc = pthread_create(&h->writer, NULL, writer_main, h);

	if (rc) {
		err_sys(err, rc, "cannot start the writer of a serial line");
		host_close(&h->chr);
		return NULL;
	}
	h->has_writer = true;
	if (h->in_fd >= 0 && !h->always_ready &&
	    loop_fd_set(h->loop, h->in_fd, EPOLLIN, on_input, h) < 0) {
		h->always_ready = true;
		loop_post(h->loop, pump_file, h);
	}
	return &h->chr;
}

struct chr *chr_fd_new(struct loop *loop, int in_fd, int out_fd,
		       const struct chr_filter *filter, struct err *err)
{
	struct chr_host *h = host_new(loop, err);

	if (!h)
		return NULL;
	h->in_fd = in_fd;
	h->out_fd = out_fd;
	if (filter)
		h->filter = *filter;
	return host_start(h, err);
}

struct chr *chr_file_new(struct loop *loop, const char *path, struct err *err)
{
	struct chr_host *h = host_new(loop, err);

	if (!h)
		return NULL;
	h->own_fds = true;
	h->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (h->out_fd < 0) {
		err_sys(err, errno, "cannot write '%s'", path);
		host_close(&h->chr);
		return NULL;
	}
	return host_start(h, err);
}

struct chr *chr_pty_new(struct loop *loop, const struct log *log, struct err *err)
{
	struct chr_host *h = host_new(loop, err);
	struct termios raw;
	char name[64];
	int master;

	if (!h)
		return NULL;
	if (openpty(&master, &h->slave_fd, name, NULL, NULL) < 0) {
		err_sys(err, errno, "cannot open a pseudo-terminal");
		host_close(&h->chr);
		return NULL;
	}
	/* Our own hold on the slave keeps the master usable while nobody has it open. */
	if (tcgetattr(h->slave_fd, &raw) == 0) {
		cfmakeraw(&raw);
		tcsetattr(h->slave_fd, TCSANOW, &raw);
	}
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fcntl(h->slave_fd, F_SETFD, FD_CLOEXEC);
	fcntl(master, F_SETFL, O_NONBLOCK);
	h->in_fd = h->out_fd = master;
	h->own_fds = h->drops = true;
	log_msg(log, LOG_INFO, "serial line at %s", name);
	return host_start(h, err);
}

struct chr *chr_socket_new(struct loop *loop, const char *path, struct err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct chr_host *h;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		err_set(err, ENAMETOOLONG, "socket path '%s' is longer than %zu bytes",
			path, sizeof(sa.sun_path) - 1);
		return NULL;
	}
	h = host_new(loop, err);
	if (!h)
		return NULL;
	strcpy(sa.sun_path, path);
	h->drops = h->own_fds = true;
	h->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (h->listen_fd < 0 ||
	    bind(h->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(h->listen_fd, 1) < 0) {
		err_sys(err, errno, "cannot listen on '%s'", path);
		host_close(&h->chr);
		return NULL;
	}
	if (leftovers_add(path, err) < 0) {
		host_close(&h->chr);
		unlink(path);
		return NULL;
	}
	loop_fd_set(loop, h->listen_fd, EPOLLIN, on_client, h);
	return host_start(h, err);
}

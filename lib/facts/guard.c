/*
 * facts/guard.c - reads a computer in a child process: a file system in user space or a driver may never answer, and
 * not even a signal handler runs while a read waits for FUSE. What was read comes back through a pipe. Main thread.
 */
#include "facts/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/time.h"
#include "facts/collect.h"

#define MAX_STREAM (16u << 20)
#define REAP_MS    50

/* The stream: one head, then for each file a record with its path and content. */
struct head {
	int rc;
	struct err err;
	uint32_t n;
};

struct record {
	uint32_t path_len, len;
	int32_t error;
};

static void put(struct str *t, const void *p, size_t len)
{
	if (len)
		str_add(t, p, len);
}

static void child(const char *root, int fd, char *where)
{
	struct snap s = {.where = where};
	struct head h = {0};
	struct str t = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (root)
		h.rc = collect_root(&s, root, &h.err);
	else
		collect_live(&s);
	h.n = (uint32_t)s.n;
	put(&t, &h, sizeof(h));
	for (size_t i = 0; i < s.n; i++) {
		const struct snap_file *f = &s.files[i];
		struct record r = {(uint32_t)strlen(f->path), (uint32_t)f->len,
				   f->error};

		put(&t, &r, sizeof(r));
		put(&t, f->path, r.path_len);
		put(&t, f->data, r.len);
	}
	if (!t.failed)
		fd_write_full(fd, t.p, t.len);
	syscall(SYS_exit_group, 0); /* nothing of the parent's is flushed or freed */
	__builtin_unreachable();
}

int guard_start(struct guard *g, const char *root, struct err *err)
{
	int ends[2];

	*g = (struct guard){.fd = -1, .start_ns = time_mono_ns()};
	g->where = mmap(NULL, SNAP_WHERE, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->where == MAP_FAILED)
		return err_sys(err, errno, "cannot start reading");
	if (pipe2(ends, O_CLOEXEC) < 0) {
		munmap(g->where, SNAP_WHERE);
		return err_sys(err, errno, "cannot start reading");
	}
	g->pid = fork();
	if (g->pid == 0)
		child(root, ends[1], g->where);
	close(ends[1]);
	g->fd = ends[0];
	if (g->pid < 0) {
		int code = errno;

		close(ends[0]);
		munmap(g->where, SNAP_WHERE);
		return err_sys(err, code, "cannot start reading");
	}
	return 0;
}

/* All that the child writes, until it ends. False: it did not end in time, or wrote too much. */
static bool read_stream(const struct guard *g, uint64_t until, struct str *t)
{
	struct pollfd p = {.fd = g->fd, .events = POLLIN};
	static const unsigned chunk = 65536;
	char *buf = malloc(chunk);
	uint64_t now;
	bool ended = false;

	while (buf && !ended && t->len < MAX_STREAM && (now = time_mono_ns()) < until) {
		ssize_t n;

		if (poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) <= 0)
			continue;
		n = read(g->fd, buf, chunk);
		if (n > 0)
			str_add(t, buf, (size_t)n);
		else if (n == 0 || errno != EINTR)
			ended = true;
	}
	free(buf);
	return ended && !t->failed;
}

/* A child that is stuck in the kernel is left to init. */
static void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	for (int ms = 0; ms < REAP_MS; ms++) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return;
		usleep(1000);
	}
}

static bool take(const struct str *t, size_t *at, void *out, size_t len)
{
	if (t->len - *at < len)
		return false;
	memcpy(out, t->p + *at, len);
	*at += len;
	return true;
}

static bool unpack(struct snap *s, const struct str *t, struct head *h)
{
	char path[SNAP_WHERE];
	struct record r;
	size_t at = 0;

	if (!take(t, &at, h, sizeof(*h)))
		return false;
	for (uint32_t i = 0; i < h->n; i++) {
		if (!take(t, &at, &r, sizeof(r)) || r.path_len >= sizeof(path) ||
		    !take(t, &at, path, r.path_len) || t->len - at < r.len)
			return false;
		path[r.path_len] = 0;
		snap_add(s, path, t->p + at, r.len, r.error);
		at += r.len;
	}
	return at == t->len;
}

int guard_finish(struct guard *g, struct snap *s, unsigned ms, struct err *err)
{
	struct str t = {0};
	struct head h = {0};
	bool ended = read_stream(g, g->start_ns + ms * NS_PER_MS, &t);
	int rc;

	reap(g->pid);
	close(g->fd);
	if (!ended && !t.failed && t.len < MAX_STREAM)
		rc = err_set(err, ETIMEDOUT,
			     "reading '%.150s' takes more than %.1f s: could not tell",
			     g->where[0] ? g->where : "/", ms / 1000.0);
	else if (!ended || !unpack(s, &t, &h))
		rc = err_set(err, EIO, "reading ended early: could not tell");
	else if ((rc = h.rc) && err)
		*err = h.err;
	munmap(g->where, SNAP_WHERE);
	str_fini(&t);
	snap_sort(s);
	return rc;
}

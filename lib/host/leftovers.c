/* host/leftovers.c - a child that removes files when the process has ended. */
#include "host/leftovers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_PATHS 8

static char *paths[MAX_PATHS]; /* owned */
static unsigned n_paths;
static int alive_fd = -1; /* closing it (or dying) tells the child to begin */
static int done_fd = -1;  /* ends when the child has */

int leftovers_add(const char *path, struct err *err)
{
	if (n_paths == MAX_PATHS)
		return err_set(err, E2BIG, "more than %d files to remove at the end",
			       MAX_PATHS);
	paths[n_paths] = strdup(path);
	if (!paths[n_paths])
		return err_set(err, ENOMEM, "no memory");
	n_paths++;
	return 0;
}

static void remove_all(void)
{
	for (unsigned n = 0; n < n_paths; n++)
		unlink(paths[n]);
}

/* Locks, terminals and pipes of the parent must not stay open here. */
static void close_others(int a, int b)
{
	int low = a < b ? a : b, high = a < b ? b : a;

	if (low > 0)
		syscall(SYS_close_range, 0, low - 1, 0);
	if (high > low + 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

/* Only what may be called in the child of a process with threads. */
static _Noreturn void child(int wait_fd, int tell_fd)
{
	sigset_t all;
	char c;

	sigfillset(&all); /* ctrl-c is for the parent */
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "vm-leftovers");
	close_others(wait_fd, tell_fd);
	while (read(wait_fd, &c, 1) < 0 && errno == EINTR)
		;
	remove_all();
	_exit(0);
}

int leftovers_watch(struct err *err)
{
	int alive[2], done[2];
	pid_t pid;

	if (!n_paths)
		return 0;
	if (pipe2(alive, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	if (pipe2(done, O_CLOEXEC) < 0) {
		close(alive[0]);
		close(alive[1]);
		return err_sys(err, errno, "cannot make a pipe");
	}
	pid = fork();
	if (!pid) {
		close(alive[1]);
		child(alive[0], done[1]);
	}
	close(alive[0]);
	close(done[1]);
	alive_fd = alive[1];
	done_fd = done[0];
	return pid < 0 ? err_sys(err, errno, "cannot start a process") : 0;
}

void leftovers_remove(void)
{
	char c;

	if (alive_fd < 0) {
		remove_all();
	} else {
		close(alive_fd);
		while (read(done_fd, &c, 1) < 0 && errno == EINTR)
			;
		close(done_fd);
		alive_fd = -1;
	}
	for (unsigned n = 0; n < n_paths; n++)
		free(paths[n]);
	n_paths = 0;
}

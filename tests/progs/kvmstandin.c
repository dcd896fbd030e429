/*
 * tests/progs/kvmstandin.c - kvmstandin ask|make|VALUE COMMAND [ARG...]: runs COMMAND on a computer whose KVM hangs or
 * lies: each KVM ioctl, on whatever device, is answered here (seccomp_unotify(2)). ask, make: the version, the new
 * machine, is never answered. VALUE: version 12, then this. Ends with COMMAND's status; 77: not possible here.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VERSION = 0xae00, CREATE_VM = 0xae01, RUN_SIZE = 0xae04, CANNOT = 77 };

/* KVM's ioctls, by the second byte of the request, are asked about; all else runs. */
static int listen_here(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, args[1])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xae00, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			    SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

static void child(int out, int go[2], char **argv)
{
	int fd = listen_here();

	if (write(out, &fd, sizeof(fd)) != sizeof(fd) || fd < 0)
		_exit(CANNOT);
	close(go[1]);
	if (read(go[0], &fd, 1) < 0) /* until the parent has the listener */
		_exit(CANNOT);
	execv(argv[0], argv);
	_exit(127);
}

static void answer(int fd, uint32_t hang, int64_t value)
{
	struct seccomp_notif req = {0};
	struct seccomp_notif_resp resp = {0};
	uint32_t op;

	if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &req) < 0)
		return;
	op = (uint32_t)req.data.args[1];
	if (op == hang)
		return; /* the caller waits until it is killed */
	resp.id = req.id;
	resp.val = op == VERSION ? 12 : op == RUN_SIZE ? 4096 : value;
	ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp);
}

/* Until no process has the filter any more. */
static void serve(int fd, const char *what)
{
	uint32_t hang = !strcmp(what, "ask")    ? VERSION
			: !strcmp(what, "make") ? CREATE_VM
						: 0;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 20000) > 0 && !(p.revents & (POLLHUP | POLLERR)))
		answer(fd, hang, hang ? 1 : strtoll(what, NULL, 0));
}

int main(int argc, char **argv)
{
	int ends[2], go[2], theirs = -1, fd, pidfd, st;
	pid_t pid;

	if (argc < 3 || pipe(ends) < 0 || pipe(go) < 0)
		return 2;
	pid = fork();
	if (pid == 0)
		child(ends[1], go, argv + 2);
	close(ends[1]);
	if (pid < 0 || read(ends[0], &theirs, sizeof(theirs)) != sizeof(theirs) ||
	    theirs < 0)
		return CANNOT;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
	if (fd < 0) {
		kill(pid, SIGKILL);
		return CANNOT;
	}
	close(go[1]);
	serve(fd, argv[1]);
	return waitpid(pid, &st, 0) == pid && WIFEXITED(st) ? WEXITSTATUS(st) : 128;
}

/*
 * kvm/prove.c - runs the probe in a child process with a deadline: opening a device, asking it and running
 * a guest may each hang in the kernel for ever. The main thread, before others are started.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/time.h"
#include "kvm/kvm.h"
#include "kvm/kvm_int.h"

#define DEADLINE_MS 1500
#define REAP_MS     50

/* What parent and child share. */
struct shared {
	struct kvm_probe_result r;
	struct err err;
	int rc;
	bool done;
};

static void child(struct shared *s, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent) {
		s->rc = kvm_probe_here(&s->r, &s->err);
		__atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
	}
	syscall(SYS_exit_group, 0); /* nothing of the parent's is flushed or freed */
	__builtin_unreachable();
}

/* Until the child's end of the pipe is closed, or the deadline. */
static void wait_end(int fd)
{
	uint64_t until = time_mono_ns() + DEADLINE_MS * NS_PER_MS, now;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while ((now = time_mono_ns()) < until &&
	       poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) < 0 && errno == EINTR)
		;
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

static int judge(struct shared *s, struct kvm_probe_result *r, struct err *err)
{
	static const char *const where[] = {
		[KVM_STAGE_OPEN] = "opening it does not end",
		[KVM_STAGE_ASK] = "it opens, but does not answer",
		[KVM_STAGE_MAKE] = "it opens, but making a machine does not end",
		[KVM_STAGE_RUN] = "it opens, but a small guest does not end",
	};
	bool done = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);

	*r = s->r;
	r->error = done ? s->err.code : ETIMEDOUT;
	if (done) {
		if (err && s->rc)
			*err = s->err;
		return s->rc;
	}
	r->verdict = KVM_HANGS;
	snprintf(r->reason, sizeof(r->reason), "%s hangs: %s (waited %.1f s)",
		 r->device, where[r->stage & 3], DEADLINE_MS / 1000.0);
	return err_set(err, ETIMEDOUT, "%s", r->reason);
}

int kvm_probe(const char *device, struct kvm_probe_result *r, struct err *err)
{
	uint64_t start = time_mono_ns();
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ends[2] = {-1, -1}, rc;
	pid_t pid, self = getpid();

	*r = (struct kvm_probe_result){.verdict = KVM_BROKEN};
	if (s == MAP_FAILED || pipe2(ends, O_CLOEXEC) < 0) {
		rc = err_sys(err, errno, "cannot start the KVM probe");
		goto end;
	}
	snprintf(s->r.device, sizeof(s->r.device), "%s", device ? device : "/dev/kvm");
	pid = fork();
	if (pid == 0)
		child(s, self);
	close(ends[1]);
	ends[1] = -1;
	if (pid < 0) {
		rc = err_sys(err, errno, "cannot start the KVM probe");
		goto end;
	}
	wait_end(ends[0]);
	reap(pid);
	rc = judge(s, r, err);
end:
	if (rc && !r->reason[0] && err)
		snprintf(r->reason, sizeof(r->reason), "%.190s", err->msg);
	r->seconds = (double)(time_mono_ns() - start) / NS_PER_SEC;
	for (int i = 0; i < 2; i++)
		if (ends[i] >= 0)
			close(ends[i]);
	if (s != MAP_FAILED)
		munmap(s, sizeof(*s));
	return rc;
}

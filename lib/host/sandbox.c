/*
 * host/sandbox.c - a seccomp filter for the running machine (libseccomp).
 * Called once by the main thread; the filter is put on all threads (TSYNC).
 */
#include "host/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>

#include "base/bits.h"

/* clang-format off */
static const int allowed[] = {
	/* data */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev),
	SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(pwritev),
	SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(fsync),
	SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(close),
	SCMP_SYS(fstat), SCMP_SYS(copy_file_range), SCMP_SYS(sync_file_range),
	/* waiting */
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(poll),
	SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(timerfd_settime),
	SCMP_SYS(futex), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(sched_yield), SCMP_SYS(restart_syscall), SCMP_SYS(eventfd2),
	/* memory */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
	SCMP_SYS(membarrier),
	/* threads and signals */
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigtimedwait), SCMP_SYS(sigaltstack), SCMP_SYS(tgkill), SCMP_SYS(gettid),
	SCMP_SYS(getpid), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq), SCMP_SYS(getrandom), SCMP_SYS(getrusage), SCMP_SYS(sysinfo),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(getcpu),
	/* libslirp looks whether resolv.conf changed; that tells no content */
	SCMP_SYS(stat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
};

static const int network[] = {
	SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(accept),
	SCMP_SYS(getpeername), SCMP_SYS(getsockname), SCMP_SYS(setsockopt),
	SCMP_SYS(getsockopt), SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg), SCMP_SYS(shutdown), SCMP_SYS(accept4),
};

static const int remote[] = {
	SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg), SCMP_SYS(recvmsg),
	SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
};

/* libnbd ends a server that it started, which ends without, too, with the process. */
static const int remote_refused[] = {
	SCMP_SYS(kill), SCMP_SYS(wait4), SCMP_SYS(unlink), SCMP_SYS(rmdir),
};

/* These fail instead of ending the process: libraries try them and live without. */
static const int refused[] = {
	SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(access),
	SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
};

static const unsigned long ioctls[] = {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, FIONREAD,
				       FIONBIO};
/* clang-format on */

#define KVMIO 0xae

static int add_all(scmp_filter_ctx ctx, uint32_t action, const int *list, unsigned n)
{
	int rc = 0;

	for (unsigned i = 0; i < n && !rc; i++)
		rc = seccomp_rule_add(ctx, action, list[i], 0);
	return rc;
}

static int add_checked(scmp_filter_ctx ctx, const struct sandbox_config *cfg)
{
	int rc = 0;

	/* Memory that is not executable. */
	rc = rc ? rc
		: seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				   SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	rc = rc ? rc
		: seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				   SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	for (unsigned i = 0; i < ARRAY_LEN(ioctls) && !rc; i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				      SCMP_A1(SCMP_CMP_EQ, ioctls[i], 0));
	if (!rc && cfg->kvm)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				      SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, KVMIO << 8));
	for (int op = 0; op < 2 && !rc; op++) {
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				      SCMP_A1(SCMP_CMP_EQ, op ? F_SETFL : F_GETFL, 0));
		rc = rc ? rc
			: seccomp_rule_add(
				  ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				  SCMP_A1(SCMP_CMP_EQ, op ? F_SETFD : F_GETFD, 0));
	}
	return rc;
}

int sandbox_enter(const struct sandbox_config *cfg, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc;

	if (!ctx)
		return err_set(err, ENOMEM, "no memory for the sandbox");
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	rc = rc ? rc : add_all(ctx, SCMP_ACT_ALLOW, allowed, ARRAY_LEN(allowed));
	rc = rc ? rc
		: add_all(ctx, SCMP_ACT_ERRNO(EACCES), refused, ARRAY_LEN(refused));
	rc = rc ? rc : add_checked(ctx, cfg);
	if (cfg->network || cfg->sockets)
		rc = rc ? rc
			: add_all(ctx, SCMP_ACT_ALLOW, network, ARRAY_LEN(network));
	if (cfg->remote && !cfg->network && !cfg->sockets)
		rc = rc ? rc : add_all(ctx, SCMP_ACT_ALLOW, remote, ARRAY_LEN(remote));
	if (cfg->remote)
		rc = rc ? rc
			: add_all(ctx, SCMP_ACT_ERRNO(EPERM), remote_refused,
				  ARRAY_LEN(remote_refused));
	if (cfg->network)
		rc = rc ? rc
			: seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 0);
	if (cfg->rename)
		rc = rc ? rc
			: seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(rename), 0);
	rc = rc ? rc : seccomp_load(ctx);
	seccomp_release(ctx);
	if (rc < 0)
		return err_sys(err, -rc, "cannot enter the sandbox");
	return 0;
}

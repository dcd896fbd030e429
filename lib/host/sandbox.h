/*
 * host/sandbox.h - what a running machine may still ask of the kernel.
 *
 * Everything is opened before; behind sandbox_enter() no path can be opened (openat fails with EACCES),
 * no memory can become executable, and a call that is not on the list ends the process (SIGSYS).
 */
#ifndef HOST_SANDBOX_H
#define HOST_SANDBOX_H

#include <stdbool.h>

#include "base/err.h"

struct sandbox_config {
	bool network; /* sockets may be made (user network) */
	bool sockets; /* clients may be accepted (serial line on a socket) */
	bool remote;  /* connections that are there go on (disks of NBD servers) */
	bool kvm;     /* KVM's ioctls */
	bool rename;  /* a finished file may be given its name (saving) */
};

/*
 * For all threads of the process, for good; threads made later inherit it, but making them needs to have
 * happened before. 0 or -errno.
 */
int sandbox_enter(const struct sandbox_config *cfg, struct err *err);

#endif

/*
 * facts/guard.h - collect_live() and collect_root() within a time: they read files that may never answer, so a
 * child process does it. Main thread, before others are started.
 */
#ifndef FACTS_GUARD_H
#define FACTS_GUARD_H

#include <stdint.h>
#include <sys/types.h>

#include "facts/snap.h"

struct guard {
	pid_t pid;
	int fd;
	uint64_t start_ns;
	char *where; /* shared with the child: what it is reading */
};

/* Begins to read `root` (as collect_root()), or this computer where it is NULL. 0 or -errno. */
int guard_start(struct guard *g, const char *root, struct err *err);

/*
 * Adds to *s what was read, and sorts, at the latest `ms` milliseconds after guard_start(). 0; -ETIMEDOUT and the
 * name of the file that does not answer; or what collect_root() said. The child is ended in any case.
 */
int guard_finish(struct guard *g, struct snap *s, unsigned ms, struct err *err);

#endif

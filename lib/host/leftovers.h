/*
 * host/leftovers.h - files that must not outlive the process, however it ends: sockets, half-written
 * files. Inside the sandbox nothing can be removed, so a child outside of it waits for the end.
 * Main thread. One list for the process.
 */
#ifndef HOST_LEFTOVERS_H
#define HOST_LEFTOVERS_H

#include "base/err.h"

/* Remembers `path` (copied). Before leftovers_watch(). 0 or -ENOMEM, -E2BIG (8 are possible). */
int leftovers_add(const char *path, struct err *err);

/* Starts the child, which holds nothing of this process open; without paths, none. Before the sandbox. 0 or
 * -errno. */
int leftovers_watch(struct err *err);

/* The process is about to end: returns when the files are gone, whether it was started or not. */
void leftovers_remove(void);

#endif

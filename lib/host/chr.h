/*
 * host/chr.h - byte streams on the host for serial lines and consoles.
 *
 * All constructors return NULL with *err; ops->close() flushes what is buffered and frees.
 */
#ifndef HOST_CHR_H
#define HOST_CHR_H

#include <stdbool.h>

#include "base/log.h"
#include "vm/chr.h"
#include "vm/loop.h"

/* Looks at input before the guest does: returns true for a byte it keeps. Loop thread. */
struct chr_filter {
	bool (*byte)(void *ctx, uint8_t byte);
	void *ctx; /* borrowed */
};

/*
 * Reads from `in_fd` (-1: no input) and writes to `out_fd` (-1: discards); both stay the caller's. A
 * reader that is slow slows the guest down; nothing is dropped. `filter` may be NULL.
 */
struct chr *chr_fd_new(struct loop *loop, int in_fd, int out_fd,
		       const struct chr_filter *filter, struct err *err);

/* Writes to a new or truncated file. */
struct chr *chr_file_new(struct loop *loop, const char *path, struct err *err);

/* A pseudo-terminal, whose name is logged at LOG_INFO. Output nobody reads is dropped. */
struct chr *chr_pty_new(struct loop *loop, const struct log *log, struct err *err);

/* Listens on a Unix socket at `path`, which must not exist; one client at a time. It is
 * one of host/leftovers.h. */
struct chr *chr_socket_new(struct loop *loop, const char *path, struct err *err);

#endif

/*
 * img/nbd/remote.h - bytes that are held by another program or computer: NBD servers through libnbd, and
 * http, https, ftp, ssh by way of nbdkit. Both are loaded when the first address is opened.
 * Reading, writing and asking: any thread, any number at once. Opening and closing: one thread.
 */
#ifndef IMG_NBD_REMOTE_H
#define IMG_NBD_REMOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct remote;

/* Is it an address that remote_open() understands? */
bool remote_is_url(const char *path);

/*
 * Connects. nbd://, nbds://, nbd+unix://, nbds+unix:// and QEMU's nbd:HOST:PORT[:exportname=NAME], nbd:unix:SOCKET[...]; http://,
 * https://, ftp:// (read only) and ssh:// need nbdkit. 0 and *out, or -errno: -ENOTSUP what it needs is not installed,
 * -EROFS the server lets nobody write, -ETIMEDOUT it does not answer.
 */
int remote_open(const char *url, bool read_only, struct remote **out, struct err *err);
/* NULL is fine. What was written and not flushed may be lost. */
void remote_close(struct remote *r);

uint64_t remote_size(const struct remote *r); /* bytes; does not change */

/*
 * Makes all connections that requests may want, so that none of them makes one: for a process that is about to lose the
 * right to. Nobody else can reach a server that was started for this any more. Before other threads use it.
 */
void remote_settle(struct remote *r);

/* Whole transfers within the size: 0 or -errno. Any alignment. */
int remote_read(struct remote *r, void *buf, uint64_t off, uint64_t len);
int remote_write(struct remote *r, const void *buf, uint64_t off, uint64_t len);
/* -EOPNOTSUPP: the server cannot. `unmap`: it may give the space back. */
int remote_zero(struct remote *r, uint64_t off, uint64_t len, bool unmap);
/* A hint: whole blocks of it, if the server can. */
void remote_discard(struct remote *r, uint64_t off, uint64_t len);
int remote_flush(struct remote *r);
/* Is `off` data (true also when that is not known), and for how many bytes, at most `len`? */
bool remote_is_data(struct remote *r, uint64_t off, uint64_t len, uint64_t *n);

#endif

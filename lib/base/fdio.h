/* base/fdio.h - whole reads and writes on file descriptors. Any thread. */
#ifndef BASE_FDIO_H
#define BASE_FDIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

/* Reads until `len` bytes or end of file; returns the bytes read or -errno. */
int64_t fd_read_full(int fd, void *buf, size_t len);

/* As fd_read_full() at offset `off`. */
int64_t fd_pread_full(int fd, void *buf, size_t len, uint64_t off);

/* Writes all `len` bytes; returns 0 or -errno. */
int fd_write_full(int fd, const void *buf, size_t len);
int fd_pwrite_full(int fd, const void *buf, size_t len, uint64_t off);

/*
 * The whole of file `path` in new memory (*buf, the caller frees; one 0 byte stands behind it).
 * Files above `max` bytes are refused with -EFBIG.
 */
int fd_load_file(const char *path, uint64_t max, void **buf, size_t *len,
		 struct err *err);

#endif

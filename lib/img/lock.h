/*
 * img/lock.h - keeps two programs from using one image at once, in the way QEMU does, so that each side
 * sees the other. While an image is opened.
 */
#ifndef IMG_LOCK_H
#define IMG_LOCK_H

#include <stdbool.h>

#include "base/err.h"

/* Locks for reading, or for writing too. The locks end with the descriptor. 0 or -EBUSY; a host that has no
 * such locks is no failure. */
int lock_image(int fd, bool write, const char *path, struct err *err);

#endif

/*
 * img/undo.h - files that hold what a repair changes, so that it can be taken back as long as the image was not
 * changed otherwise. One thread.
 */
#ifndef IMG_UNDO_H
#define IMG_UNDO_H

#include "img/file.h"

/*
 * Saves the file's length and its first `len` bytes in a new file at `path`, which is on the disk when this
 * returns. A repair of qcow2 writes whatever else it writes to places that nothing refers to. 0 or -errno: -EEXIST.
 */
int undo_write(const char *path, struct img_file *f, uint64_t len, struct err *err);

/* Puts back what undo_write() saved. -EINVAL: that is no such file. */
int undo_apply(const char *path, struct img_file *f, struct err *err);

#endif

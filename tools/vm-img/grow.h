/* vm-img/grow.h - the last partition of a larger disk, and what is in it. Main thread. */
#ifndef VM_IMG_GROW_H
#define VM_IMG_GROW_H

#include "vm-img.h"

/*
 * The last partition gets all that is behind it, and its file system too, where a program for that is there. `undo`: what is
 * overwritten is saved in this new file first, which is removed when everything is done (NULL: beside the image). Tells what was
 * done. 0 or an exit status.
 */
int grow_last(const struct common *c, struct img *img, const char *undo);
/* Puts back what is in such a file, and removes it. 0 or an exit status. */
int grow_take_back(struct img *img, const char *undo);

#endif

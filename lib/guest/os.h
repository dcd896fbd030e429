/* guest/os.h - the operating system in a file system. Private to lib/guest. One thread. */
#ifndef GUEST_OS_H
#define GUEST_OS_H

#include "guest/scan.h"

/* OS_NONE if there is none, or it is not known. */
void os_find(struct fs *fs, struct guest_os *os);

#endif

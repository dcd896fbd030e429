/* pack/newfile.h - a file that gets its name when it is whole and on the disk. One thread. */
#ifndef PACK_NEWFILE_H
#define PACK_NEWFILE_H

#include <stdbool.h>

#include "base/err.h"

struct newfile {
	int fd;     /* where to write; seekable */
	char *path; /* NULL: standard output, by way of a temporary file */
	char *tmp;
	bool replace;
};

/* Begins one; "-" is standard output. An existing file is only replaced with `replace`. */
int newfile_begin(struct newfile *f, const char *path, bool replace, struct err *err);
/* Brings it to the disk and gives it its name, or sends it to standard output. Ends it in any case. */
int newfile_commit(struct newfile *f, struct err *err);
/* Leaves nothing behind. */
void newfile_drop(struct newfile *f);

#endif

/*
 * facts/snap.h - what was read of a computer: files of /proc and /sys, device nodes, CPUID, MSRs, as one
 * list of named texts. The live machine, a captured tree and a captured text give the same list, and
 * everything that is judged is judged from it. Any thread, one at a time.
 *
 * As one text (the form tests keep):
 *     lines before the first header are comment
 *     === proc/cpuinfo
 *     content, up to the next header
 *     === sys/module/kvm/            a folder: ends with a slash, has no content
 *     === dev/cpu/0/msr !EACCES      could not be read
 *     === sys/.../SecureBoot-x hex   content as hex bytes
 */
#ifndef FACTS_SNAP_H
#define FACTS_SNAP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

#define SNAP_MAX_FILES 4096
#define SNAP_MAX_FILE  65536 /* longer files are cut */
#define SNAP_MAX_TEXT  (4u << 20)

#define SNAP_WHERE 1024

struct snap_file {
	char *path; /* without leading slash; a folder's ends with one */
	char *data; /* 0-terminated; NULL: could not be read */
	size_t len;
	int error; /* errno value, 0: none */
};

/* Zero-initialise. */
struct snap {
	struct snap_file *files; /* owned */
	size_t n, size;
	size_t bytes;
	bool full;   /* something did not fit */
	char *where; /* borrowed, SNAP_WHERE bytes, or NULL: gets what is being read */
};

void snap_fini(struct snap *s);

/* Says what is being read next, for whoever waits. */
void snap_reading(struct snap *s, const char *root, const char *path);

/* Adds a file (data copied, cut at SNAP_MAX_FILE) or, with `error`, one that could not be read. */
void snap_add(struct snap *s, const char *path, const void *data, size_t len,
	      int error);

/* The entry of this path or NULL; `path` may be a folder's without its slash. */
const struct snap_file *snap_find(const struct snap *s, const char *path);

/* The content of a file as a string, or NULL when it is not there or could not be read. */
const char *snap_text(const struct snap *s, const char *path);

/* The first line of a file without blanks around it, in buf; "" when there is none. Returns buf. */
char *snap_line(const struct snap *s, const char *path, char *buf, size_t len);

/*
 * The next name in folder `dir` ("sys/module/") from position *pos (begin with 0) on, in buf. False at the end.
 * A sorted list gives each name once.
 */
bool snap_next(const struct snap *s, const char *dir, size_t *pos, char *buf,
	       size_t len);

/* How many names there are in folder `dir`. */
unsigned snap_count(const struct snap *s, const char *dir);

/* Sorts by path: after the last snap_add(). */
void snap_sort(struct snap *s);

/* Reads the text form and sorts. 0 or -EINVAL, -EFBIG with the line. */
int snap_parse(struct snap *s, const char *text, size_t len, struct err *err);

/* Writes the text form. */
void snap_print(const struct snap *s, struct str *out);

#endif

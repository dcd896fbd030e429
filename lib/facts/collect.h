/*
 * facts/collect.h - reads what is judged: of this computer, or of a captured tree. Only what the table in
 * collect.c names is read: no serial numbers, host names, addresses. Main thread.
 */
#ifndef FACTS_COLLECT_H
#define FACTS_COLLECT_H

#include "facts/snap.h"

/* Of this computer: files, device nodes, CPUID, MSRs where readable, the kernel log, who runs. */
void collect_live(struct snap *s);

/*
 * Of `root`: a folder that holds proc/, sys/, dev/, vm-check/ (snap_save()), or a file in the text form.
 * 0 or -errno.
 */
int collect_root(struct snap *s, const char *root, struct err *err);

/* Writes the list as a tree to folder `dir`, which is made or empty. 0 or -errno. */
int snap_save(const struct snap *s, const char *dir, struct err *err);

#endif

/*
 * guest/hive.h - reads single keys and values of a Windows registry hive where it lies, without loading it. What is
 * only in the hive's log files (.LOG1) is not seen. One thread.
 */
#ifndef GUEST_HIVE_H
#define GUEST_HIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/fs.h"

struct hive {
	struct fs_file *file; /* borrowed */
	uint32_t root, size;  /* cells are offsets from the first bin; its bytes */
	bool torn; /* the last change was not finished: the log files have it */
};

/* 0, -EUCLEAN: not a hive; -EIO. */
int hive_open(struct hive *h, struct fs_file *file);
/* The key at `path` ("Microsoft\\Windows NT") below `key`; case of ASCII letters does not matter. 0, -ENOENT, -EUCLEAN. */
int hive_find(struct hive *h, uint32_t key, const char *path, uint32_t *out);
/* The value as UTF-8 (free()), if it is text; NULL: there is none. */
char *hive_text(struct hive *h, uint32_t key, const char *name);
/* The same for 32-bit numbers: 0, -ENOENT, -EUCLEAN. */
int hive_number(struct hive *h, uint32_t key, const char *name, uint32_t *out);

#endif

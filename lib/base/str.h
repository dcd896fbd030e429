/* base/str.h - a growing byte string, for text and binary built piece by piece. Any thread. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise. `p` is always 0-terminated once something was added. */
struct str {
	char *p;     /* owned */
	size_t len;  /* without the terminator */
	size_t size; /* allocated */
	bool failed; /* out of memory: what was added since is missing */
};

void str_fini(struct str *s);

/* Adds `len` bytes (NULL: zero bytes); returns their offset. */
size_t str_add(struct str *s, const void *p, size_t len);
size_t str_addf(struct str *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif

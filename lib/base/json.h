/*
 * base/json.h - JSON text, built piece by piece, indented by four blanks. Keys are NULL within lists and for the
 * outermost value. Any thread.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* Zero-initialise. The text is in `s`; s.failed: no memory. */
struct json {
	struct str s;
	unsigned depth;
	uint64_t lists; /* bit n: what was begun at depth n is a list */
	bool more;      /* something stands before: a comma is wanted */
};

/* At most 64 within each other. */
void json_object(struct json *j, const char *key);
void json_list(struct json *j, const char *key);
/* Ends the last object or list that was begun. */
void json_end(struct json *j);
void json_number(struct json *j, const char *key, uint64_t v);
void json_bool(struct json *j, const char *key, bool v);
/* `text` may hold any bytes: what is not UTF-8 becomes U+FFFD. */
void json_text(struct json *j, const char *key, const char *text);
void json_fini(struct json *j);

#endif

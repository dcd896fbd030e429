/* base/guid.h - identifiers (GUID) and UTF-16 names as disks and images have them. Any thread. */
#ifndef BASE_GUID_H
#define BASE_GUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An identifier of 16 bytes as it lies on the disk. */
struct guid {
	uint8_t b[16];
};

/* A random one (RFC 4122 version 4); 0 or -EIO. `be`: its first three fields are big-endian (VHD). */
int guid_make(struct guid *g, bool be);
bool guid_is_zero(const struct guid *g);
bool guid_same(const struct guid *a, const struct guid *b);

/* "{caa16737-fa36-4d43-b3b6-33f0aa44e76b}" and the terminator. */
#define GUID_TEXT 39
char *guid_format(const struct guid *g, bool be, char out[GUID_TEXT]);
/* Reads that form, braces or not, of any case. */
bool guid_parse(const char *text, bool be, struct guid *g);

/* UTF-16 text of n bytes, up to a zero, as UTF-8 on the heap (free()); what is no character becomes
 * U+FFFD. NULL: no memory. */
char *utf16_to_utf8(const void *p, size_t n, bool be);

/* UTF-8 as UTF-16 without terminator into at most `max` bytes at `out`; its length in bytes, 0 if it does
 * not fit or is not UTF-8. */
size_t utf8_to_utf16(const char *s, void *out, size_t max, bool be);

/*
 * A Windows or POSIX path that stands in an image, as a path here: "\" becomes "/", and the drive letter and a
 * leading "./" go. In place.
 */
void path_from_windows(char *path);

#endif

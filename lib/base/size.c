/* base/size.c - byte counts as people write and read them. Any thread. */
#include "base/size.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char units[] = "kMGTPE";

/* The shift that a unit suffix stands for, or -1. */
static int unit_shift(const char *s)
{
	const char *u;

	if (!*s || !strcasecmp(s, "b"))
		return 0;
	for (u = units; *u; u++)
		if (tolower((unsigned char)*s) == tolower((unsigned char)*u))
			break;
	if (!*u)
		return -1;
	s++;
	if (*s && strcasecmp(s, "b") && strcasecmp(s, "ib"))
		return -1;
	return 10 * (int)(u - units + 1);
}

int size_parse(const char *text, uint64_t *out, struct err *err)
{
	uint64_t whole, frac = 0, scale = 1, bytes;
	const char *p;
	char *end;
	int shift;

	if (!isdigit((unsigned char)*text))
		goto bad;
	errno = 0;
	whole = strtoull(text, &end, 10);
	if (errno)
		goto range;
	p = end;
	if (*p == '.') {
		for (p++; isdigit((unsigned char)*p); p++) {
			if (scale >= 1000000)
				continue; /* finer than a millionth: not a size */
			frac = frac * 10 + (unsigned)(*p - '0');
			scale *= 10;
		}
	}
	shift = unit_shift(p);
	if (shift < 0 || (shift == 0 && scale > 1))
		goto bad;
	if (__builtin_mul_overflow(whole, 1ull << shift, &bytes))
		goto range;
	frac = (uint64_t)(((unsigned __int128)frac << shift) / scale);
	if (__builtin_add_overflow(bytes, frac, out))
		goto range;
	return 0;
bad:
	return err_set(
		err, EINVAL,
		"'%s' is not a size: write a number and k, M, G or T, as in 512M",
		text);
range:
	return err_set(err, ERANGE, "size '%s' is too large: it must fit in 64 bits",
		       text);
}

char *size_format(uint64_t bytes, char *buf, unsigned buf_len)
{
	unsigned u = 0;
	uint64_t tenths;

	if (bytes < 1024) {
		snprintf(buf, buf_len, "%u B", (unsigned)bytes);
		return buf;
	}
	while ((bytes >> 10 * (u + 1)) >= 1024)
		u++;
	tenths = (uint64_t)(((unsigned __int128)bytes * 10) >> 10 * (u + 1));
	if (tenths % 10)
		snprintf(buf, buf_len, "%u.%u %ciB", (unsigned)(tenths / 10),
			 (unsigned)(tenths % 10), units[u] == 'k' ? 'K' : units[u]);
	else
		snprintf(buf, buf_len, "%u %ciB", (unsigned)(tenths / 10),
			 units[u] == 'k' ? 'K' : units[u]);
	return buf;
}

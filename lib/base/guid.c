/* base/guid.c - identifiers (GUID) and UTF-16 names as disks and images have them. Any thread. */
#include "base/guid.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- identifiers ---- */

int guid_make(struct guid *g, bool be)
{
	if (getrandom(g->b, sizeof(g->b), 0) != sizeof(g->b))
		return -EIO;
	g->b[be ? 6 : 7] = (uint8_t)((g->b[be ? 6 : 7] & 0x0f) | 0x40);
	g->b[8] = (uint8_t)((g->b[8] & 0x3f) | 0x80);
	return 0;
}

bool guid_is_zero(const struct guid *g)
{
	static const struct guid zero;

	return guid_same(g, &zero);
}

bool guid_same(const struct guid *a, const struct guid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* Which byte stands where in the text. */
static const uint8_t order_le[16] = {3, 2, 1,  0,  5,  4,  7,  6,
				     8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t order_be[16] = {0, 1, 2,  3,  4,  5,  6,  7,
				     8, 9, 10, 11, 12, 13, 14, 15};

static bool dash_before(unsigned byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

char *guid_format(const struct guid *g, bool be, char out[GUID_TEXT])
{
	const uint8_t *order = be ? order_be : order_le;
	char *p = out;

	*p++ = '{';
	for (unsigned i = 0; i < 16; i++) {
		if (dash_before(i))
			*p++ = '-';
		p += sprintf(p, "%02x", g->b[order[i]]);
	}
	strcpy(p, "}");
	return out;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool guid_parse(const char *text, bool be, struct guid *g)
{
	const uint8_t *order = be ? order_be : order_le;

	if (*text == '{')
		text++;
	for (unsigned i = 0; i < 16; i++) {
		int high, low;

		if (dash_before(i) && *text++ != '-')
			return false;
		high = hex_digit(text[0]);
		low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return false;
		g->b[order[i]] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	return !*text || !strcmp(text, "}");
}

/* ---- text ---- */

static uint32_t unit_at(const uint8_t *p, bool be)
{
	return be ? (uint32_t)(p[0] << 8 | p[1]) : (uint32_t)(p[1] << 8 | p[0]);
}

static char *put_utf8(char *o, uint32_t c)
{
	if (c < 0x80) {
		*o++ = (char)c;
	} else if (c < 0x800) {
		*o++ = (char)(0xc0 | c >> 6);
		*o++ = (char)(0x80 | (c & 63));
	} else if (c < 0x10000) {
		*o++ = (char)(0xe0 | c >> 12);
		*o++ = (char)(0x80 | (c >> 6 & 63));
		*o++ = (char)(0x80 | (c & 63));
	} else {
		*o++ = (char)(0xf0 | c >> 18);
		*o++ = (char)(0x80 | (c >> 12 & 63));
		*o++ = (char)(0x80 | (c >> 6 & 63));
		*o++ = (char)(0x80 | (c & 63));
	}
	return o;
}

char *utf16_to_utf8(const void *src, size_t n, bool be)
{
	const uint8_t *p = src;
	char *out = malloc(n / 2 * 3 + 1), *o = out;

	if (!out)
		return NULL;
	for (; n >= 2; p += 2, n -= 2) {
		uint32_t c = unit_at(p, be), low;

		if (!c)
			break;
		if (c >= 0xd800 && c < 0xe000) {
			low = n >= 4 ? unit_at(p + 2, be) : 0;
			if (c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
				p += 2;
				n -= 2;
			} else {
				c = 0xfffd;
			}
		}
		o = put_utf8(o, c);
	}
	*o = 0;
	return out;
}

/* The character at *s, which moves on; 0 when it is none. */
static uint32_t take_utf8(const unsigned char **s)
{
	const unsigned char *p = *s;
	unsigned n = *p < 0x80   ? 0
		     : *p < 0xc2 ? 9
		     : *p < 0xe0 ? 1
		     : *p < 0xf0 ? 2
		     : *p < 0xf5 ? 3
				 : 9;
	uint32_t c;

	if (n == 9)
		return 0;
	c = n ? *p & (0x3fu >> n) : *p;
	for (unsigned i = 1; i <= n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	*s = p + n + 1;
	return c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : c;
}

static void put_unit(uint8_t *o, uint32_t v, bool be)
{
	o[be ? 0 : 1] = (uint8_t)(v >> 8);
	o[be ? 1 : 0] = (uint8_t)v;
}

size_t utf8_to_utf16(const char *s, void *out, size_t max, bool be)
{
	const unsigned char *p = (const unsigned char *)s;
	uint8_t *o = out;
	size_t n = 0;

	while (*p) {
		uint32_t c = take_utf8(&p);
		unsigned need = c >= 0x10000 ? 4 : 2;

		if (!c || max - n < need)
			return 0;
		if (need == 4) {
			put_unit(o + n, 0xd800 | (c - 0x10000) >> 10, be);
			put_unit(o + n + 2, 0xdc00 | ((c - 0x10000) & 0x3ff), be);
		} else {
			put_unit(o + n, c, be);
		}
		n += need;
	}
	return n;
}

void path_from_windows(char *path)
{
	char *from = path;

	for (char *p = path; *p; p++)
		if (*p == '\\')
			*p = '/';
	if (isalpha((unsigned char)from[0]) && from[1] == ':')
		from += 2;
	while (from[0] == '.' && from[1] == '/')
		from += 2;
	memmove(path, from, strlen(from) + 1);
}

/* base/json.c - JSON text, built piece by piece. Any thread. */
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Length of the UTF-8 character at `p`, 0 if it is none. */
static unsigned utf8_len(const unsigned char *p)
{
	unsigned n = *p < 0x80                 ? 1
		     : *p >= 0xc2 && *p < 0xe0 ? 2
		     : *p < 0xc0               ? 0
		     : *p < 0xf0               ? 3
		     : *p < 0xf5               ? 4
					       : 0;

	if (*p == 0xc0 || *p == 0xc1)
		return 0;
	for (unsigned i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
	    (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

static void quote(struct json *j, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	str_add(&j->s, "\"", 1);
	while (*p) {
		unsigned n = utf8_len(p);

		if (*p == '"' || *p == '\\')
			str_addf(&j->s, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			str_addf(&j->s, "\\u%04x", *p);
		else if (!n)
			str_add(&j->s, "\xef\xbf\xbd", 3);
		else
			str_add(&j->s, p, n);
		p += n ? n : 1;
	}
	str_add(&j->s, "\"", 1);
}

/* What stands before a value: comma, line, key. */
static void lead(struct json *j, const char *key)
{
	if (j->more)
		str_add(&j->s, ",", 1);
	if (j->depth)
		str_addf(&j->s, "\n%*s", (int)(4 * j->depth), "");
	if (key) {
		quote(j, key);
		str_add(&j->s, ": ", 2);
	}
	j->more = true;
}

static void begin(struct json *j, const char *key, bool list)
{
	uint64_t bit = 1ull << (j->depth & 63);

	lead(j, key);
	str_add(&j->s, list ? "[" : "{", 1);
	j->lists = list ? j->lists | bit : j->lists & ~bit;
	j->depth++;
	j->more = false;
}

void json_object(struct json *j, const char *key)
{
	begin(j, key, false);
}

void json_list(struct json *j, const char *key)
{
	begin(j, key, true);
}

void json_end(struct json *j)
{
	bool list;

	j->depth--;
	list = j->lists >> (j->depth & 63) & 1;
	if (j->more)
		str_addf(&j->s, "\n%*s", (int)(4 * j->depth), "");
	str_add(&j->s, list ? "]" : "}", 1);
	j->more = true;
	if (!j->depth)
		str_add(&j->s, "\n", 1);
}

void json_number(struct json *j, const char *key, uint64_t v)
{
	lead(j, key);
	str_addf(&j->s, "%" PRIu64, v);
}

void json_bool(struct json *j, const char *key, bool v)
{
	lead(j, key);
	str_addf(&j->s, "%s", v ? "true" : "false");
}

void json_text(struct json *j, const char *key, const char *text)
{
	lead(j, key);
	quote(j, text);
}

void json_fini(struct json *j)
{
	str_fini(&j->s);
}

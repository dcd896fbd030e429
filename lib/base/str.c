/* base/str.c - a growing byte string. Any thread. */
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void str_fini(struct str *s)
{
	free(s->p);
	*s = (struct str){0};
}

static bool str_grow(struct str *s, size_t more)
{
	size_t need, size = s->size ? s->size : 64;
	char *p;

	if (s->failed || __builtin_add_overflow(s->len + 1, more, &need))
		goto fail;
	while (size < need)
		if (__builtin_mul_overflow(size, 2, &size))
			goto fail;
	if (size == s->size)
		return true;
	p = mem_resize(s->p, size, 1);
	if (!p)
		goto fail;
	s->p = p;
	s->size = size;
	return true;
fail:
	s->failed = true;
	return false;
}

size_t str_add(struct str *s, const void *p, size_t len)
{
	size_t at = s->len;

	if (!str_grow(s, len))
		return at;
	if (p)
		memcpy(s->p + at, p, len);
	else
		memset(s->p + at, 0, len);
	s->len += len;
	s->p[s->len] = 0;
	return at;
}

size_t str_addf(struct str *s, const char *fmt, ...)
{
	size_t at = s->len;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !str_grow(s, (size_t)n))
		return at;
	va_start(ap, fmt);
	vsnprintf(s->p + at, (size_t)n + 1, fmt, ap);
	va_end(ap);
	s->len += (size_t)n;
	return at;
}

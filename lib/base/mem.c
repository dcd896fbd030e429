/* base/mem.c - heap allocation whose sizes cannot overflow. */
#include "base/mem.h"

#include <stdlib.h>

void *mem_new(size_t n, size_t size)
{
	return calloc(n ? n : 1, size);
}

void *mem_resize(void *p, size_t n, size_t size)
{
	return reallocarray(p, n ? n : 1, size);
}

/* base/mem.h - heap allocation whose sizes cannot overflow. Any thread. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

/* Zeroed memory for `n` items of `size` bytes; NULL when there is none or n * size wraps. */
void *mem_new(size_t n, size_t size);

/* `p` grown or shrunk to n * size bytes, new bytes not zeroed; NULL leaves `p` as it was. */
void *mem_resize(void *p, size_t n, size_t size);

#define NEW(type) ((type *)mem_new(1, sizeof(type)))

#endif

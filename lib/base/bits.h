/* base/bits.h - small integer arithmetic: minimum, alignment, bit fields, checked ranges. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)       (1ull << (n))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* The structure that holds member `m` at address `p`. */
#define container_of(p, type, m) ((type *)((char *)(p)-offsetof(type, m)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* `align` is a power of two. align_up() wraps to 0 past the top. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

/* `len` low bits of `v` from bit `pos` on; len 1..63. */
static inline uint64_t bits_get(uint64_t v, unsigned pos, unsigned len)
{
	return (v >> pos) & ((1ull << len) - 1);
}

/* Is [off, off + len) within [0, size)? Exact for all values: nothing wraps. */
static inline bool range_ok(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

/* Do [a, a + alen) and [b, b + blen) share a byte? Neither range may wrap. */
static inline bool range_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return alen && blen && a < b + blen && b < a + alen;
}

#endif

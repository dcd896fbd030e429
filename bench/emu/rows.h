/*
 * bench/emu/rows.h - what the files of the benchmark program share. A row is a fixed piece of work
 * with a checksum; it runs the same natively and in a guest, as 64-bit and as 32-bit code.
 */
#ifndef BENCH_EMU_ROWS_H
#define BENCH_EMU_ROWS_H

#include <stdint.h>
#include <string.h>

enum {
	NEED_AVX2 = 1, /* and FMA */
	NEED_SSE42 = 2,
	NEED_AES = 4,
	NEED_TWO_CPUS = 8,
	NEED_64_BIT = 16,
	NEED_DISK = 32, /* a disk that may be overwritten, named by $BENCH_DISK */
};

struct row {
	const char *name; /* class.row */
	const char *unit; /* of work */
	double work;      /* units done at scale 1 */
	/* Does the work times `scale`; the checksum, or a constant where there is none. */
	uint64_t (*run)(double scale);
	unsigned needs; /* NEED_* */
	unsigned in_32; /* part of the 32-bit set, too */
};

extern const struct row rows_int[], rows_mem[], rows_jit[], rows_fp[], rows_simd[],
	rows_sys[], rows_smp[], rows_blk[];

/* How often a loop of `n` rounds is run at this scale: once at least. */
static inline long rounds(double n, double scale)
{
	return n * scale < 1 ? 1 : (long)(n * scale);
}

/* A cheap sequence of numbers (xorshift64*); *seed is not 0. */
static inline uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed >> 12;
	*seed ^= *seed << 25;
	*seed ^= *seed >> 27;
	return *seed * 0x2545f4914f6cdd1du;
}

static inline uint64_t mix(uint64_t sum, uint64_t v)
{
	return sum * 31 + v;
}

static inline uint64_t sum_bytes(const void *p, size_t len)
{
	const unsigned char *b = p;
	uint64_t sum = 17;

	for (size_t i = 0; i < len; i++)
		sum = mix(sum, b[i]);
	return sum;
}

static inline uint64_t double_bits(double d)
{
	uint64_t v;

	memcpy(&v, &d, sizeof(v));
	return v;
}

/* The compiler must take all memory to be read and written here. */
#define MEMORY_USED() __asm__ volatile("" ::: "memory")

#endif

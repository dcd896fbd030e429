/* bench/emu/rows_mem.c - memory: pointer chases, copies, string instructions; and code that is made at run time. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "rows.h"

static void *map(size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

/* Follows one cycle through all cache lines of `len` bytes, in random order (Sattolo). */
static uint64_t chase(size_t len, long steps)
{
	size_t n = len / 64, j;
	char *lines = map(len, PROT_READ | PROT_WRITE);
	uint32_t *perm = malloc(n * sizeof(*perm)), t;
	uint64_t seed = 9, at;
	void **p = (void **)lines;

	for (size_t i = 0; i < n; i++)
		perm[i] = (uint32_t)i;
	for (size_t i = n - 1; i; i--) {
		j = (size_t)((next_random(&seed) >> 16) % i);
		t = perm[i];
		perm[i] = perm[j];
		perm[j] = t;
	}
	for (size_t i = 0; i < n; i++)
		*(void **)(lines + i * 64) = lines + (size_t)perm[i] * 64;
	while (steps--)
		p = *p;
	at = (uint64_t)((char *)p - lines);
	munmap(lines, len);
	free(perm);
	return at;
}

static uint64_t chase_l1(double scale)
{
	return chase(16384, rounds(3e7, scale));
}

static uint64_t chase_16m(double scale)
{
	return chase(16 << 20, rounds(4e6, scale));
}

static uint64_t copy_16m(double scale)
{
	enum { LEN = 16 << 20 };
	char *a = map(LEN, PROT_READ | PROT_WRITE),
	     *b = map(LEN, PROT_READ | PROT_WRITE);
	uint64_t sum;

	memset(a, 0x5a, LEN);
	memset(b, 0x5a, LEN);
	for (long n = rounds(40, scale); n--;) {
		a[n] = (char)n;
		memcpy(b, a, LEN);
		MEMORY_USED();
	}
	sum = sum_bytes(b, 4096);
	munmap(a, LEN);
	munmap(b, LEN);
	return sum;
}

static uint64_t copy_small(double scale)
{
	static char from[8192], to[8192];
	long n = rounds(8e6, scale);

	for (long i = 0; i < n; i++) {
		uint32_t r = (uint32_t)i * 2654435761u;

		memcpy(to + (r & 4095), from + (r >> 8 & 4095), 16 + (r >> 24));
		from[r & 8191] = (char)i;
	}
	return sum_bytes(to, sizeof(to));
}

static uint64_t rep_movsb(double scale)
{
	enum { LEN = 65536 };
	static char from[LEN], to[LEN];
	long n = rounds(8000, scale);

	for (int i = 0; i < LEN; i++)
		from[i] = (char)(i * 7);
	for (long i = 0; i < n; i++) {
		void *d = to, *s = from;
		size_t count = LEN;

		__asm__ volatile("rep movsb"
				 : "+D"(d), "+S"(s), "+c"(count)
				 :
				 : "memory");
		d = from + 64;
		count = 512;
		__asm__ volatile("rep stosl"
				 : "+D"(d), "+c"(count)
				 : "a"((int)i)
				 : "memory");
	}
	return sum_bytes(to, LEN);
}

static uint64_t str_len(double scale)
{
	static char text[4096];
	uint64_t sum = 0;
	long n = rounds(1e6, scale);

	memset(text, 'x', sizeof(text) - 1);
	for (long i = 0; i < n; i++) {
		const char *p = text + (i & 63);

		__asm__ volatile("" : "+r"(p));
		sum += strlen(p) + (strchr(p, 'y') != NULL);
	}
	return sum;
}

typedef unsigned made(void);

/* Makes 1024 functions in fresh places, calls each once. */
static uint64_t jit_fresh(double scale)
{
	enum { LEN = 65536, EACH = 64 };
	unsigned char *page = map(LEN, PROT_READ | PROT_WRITE | PROT_EXEC), *p;
	uint64_t sum = 0;
	uint32_t v;
	long n = rounds(300, scale);

	for (long i = 0; i < n; i++) {
		for (p = page; p < page + LEN; p += EACH) {
			v = (uint32_t)(i * 1024 + (p - page));
			p[0] = 0xb8; /* mov $v, %eax */
			memcpy(p + 1, &v, 4);
			p[5] = 0x35; /* xor $v * 3, %eax */
			v *= 3;
			memcpy(p + 6, &v, 4);
			p[10] = 0xc3;
		}
		for (p = page; p < page + LEN; p += EACH)
			sum = mix(sum, ((made *)(void *)p)());
	}
	munmap(page, LEN);
	return sum;
}

/* Changes the constant in one function before each call. */
static uint64_t jit_patch(double scale)
{
	unsigned char *p = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	uint64_t sum = 0;
	uint32_t n = (uint32_t)rounds(200000, scale);

	p[0] = 0xb8;
	p[5] = 0xc3;
	for (uint32_t i = 0; i < n; i++) {
		memcpy(p + 1, &i, 4);
		sum = mix(sum, ((made *)(void *)p)());
	}
	munmap(p, 4096);
	return sum;
}

/* Data that is written in the page of the function that is called. */
static uint64_t jit_samepage(double scale)
{
	unsigned char *p = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	volatile uint32_t *data = (volatile uint32_t *)(void *)(p + 2048);
	uint64_t sum = 0;
	uint32_t n = (uint32_t)rounds(1e6, scale);

	p[0] = 0xb8;
	p[1] = 7;
	p[5] = 0xc3;
	for (uint32_t i = 0; i < n; i++) {
		data[i & 255] = i;
		sum += ((made *)(void *)p)();
	}
	munmap(p, 4096);
	return sum;
}

/* clang-format off */
const struct row rows_mem[] = {
	{"mem.chase_l1", "Mload", 30, chase_l1, 0, 0},
	{"mem.chase_16m", "Mload", 4, chase_16m, 0, 0},
	{"mem.memcpy_16m", "MB", 40 * 16.777216, copy_16m, 0, 0},
	{"mem.memcpy_small", "Mcopy", 8, copy_small, 0, 0},
	{"mem.repmovsb", "MB", 8000 * 67584 / 1e6, rep_movsb, 0, 0},
	{"mem.strlen", "MB", 8000, str_len, 0, 0},
	{0},
};

const struct row rows_jit[] = {
	{"jit.fresh", "Kfunc", 300 * 1.024, jit_fresh, 0, 0},
	{"jit.patch", "Kpatch", 200, jit_patch, 0, 0},
	{"jit.samepage", "Kwrite", 1000, jit_samepage, 0, 0},
	{0},
};
/* clang-format on */

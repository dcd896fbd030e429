/* bench/emu/rows_int.c - integer arithmetic, branches, calls, flags. */
#include <stdlib.h>

#include "rows.h"

#define BUF 65536

/* Table-driven CRC: a dependent load a byte. */
static uint64_t crc32(double scale)
{
	static unsigned char data[BUF];
	static uint32_t table[256];
	uint32_t crc = ~0u;
	uint64_t seed = 1;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
	}
	for (int i = 0; i < BUF; i++)
		data[i] = (unsigned char)next_random(&seed);
	for (long n = rounds(400, scale); n--;)
		for (int i = 0; i < BUF; i++)
			crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
	return ~crc;
}

#define SIEVE 1000000

static uint64_t sieve(double scale)
{
	unsigned char *prime = malloc(SIEVE + 1);
	uint64_t count = 0;

	for (long n = rounds(25, scale); n--;) {
		memset(prime, 1, SIEVE + 1);
		for (int i = 2; i * i <= SIEVE; i++)
			for (int j = prime[i] ? i * i : SIEVE + 1; j <= SIEVE; j += i)
				prime[j] = 0;
		count = 0;
		for (int i = 2; i <= SIEVE; i++)
			count += prime[i];
		MEMORY_USED();
	}
	free(prime);
	return count;
}

/* What Dhrystone was made of: records, strings, small calls, a switch. */
struct card {
	struct card *from;
	int suit, low, high;
	char title[32];
};

static __attribute__((noinline)) int pick(const struct card *c, int suit)
{
	return c->suit == suit ? c->low : c->high;
}

static __attribute__((noinline)) void deal(struct card *to, struct card *from, int low)
{
	*to = *from;
	to->low = low;
	to->from = from;
	to->suit = pick(from, low & 3) & 3;
}

static __attribute__((noinline)) int order(const char *a, const char *b)
{
	for (; *a && *a == *b; a++)
		b++;
	return (unsigned char)*a - (unsigned char)*b;
}

static uint64_t dhry(double scale)
{
	struct card a = {.title = "records, strings and calls: one"}, b = a;
	int pot[64] = {0};
	uint64_t sum = 0;
	long n = rounds(4e6, scale);

	for (long i = 0; i < n; i++) {
		a.high = (int)i;
		deal(&b, &a, (int)(i * 7 & 0xffff));
		b.title[28] = 't';
		sum += order(a.title, b.title) > 0;
		switch (b.suit) {
		case 0: pot[i & 63] += b.low; break;
		case 1: pot[(i + 1) & 63] -= b.high; break;
		case 2: pot[5] ^= (int)i; break;
		default: pot[(b.low + i) & 63]++;
		}
		a.suit = pot[(i * 3) & 63] & 3;
		a.title[28] = (char)('q' + (i & 7));
		sum = mix(sum, (unsigned)pot[i & 63]);
	}
	return sum;
}

static uint32_t ror(uint32_t v, int n)
{
	return v >> n | v << (32 - n);
}

/* The rounds of SHA-256; the constants are fractions of the cube roots of primes (FIPS 180-4). */
static uint64_t sha256(double scale)
{
	static uint32_t k[64];
	uint32_t h[8] = {1, 2, 3, 5, 7, 11, 13, 17}, s[8], w[64], t, u;
	uint64_t seed = 3;
	long n = rounds(150000, scale);

	for (int i = 0; i < 64; i++)
		k[i] = (uint32_t)next_random(
			&seed); /* any will do for the time it takes */
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)next_random(&seed);
	for (long r = 0; r < n; r++) {
		w[0] ^= (uint32_t)r;
		for (int i = 16; i < 64; i++) {
			t = w[i - 15];
			u = w[i - 2];
			w[i] = w[i - 16] + w[i - 7] +
			       (ror(t, 7) ^ ror(t, 18) ^ t >> 3) +
			       (ror(u, 17) ^ ror(u, 19) ^ u >> 10);
		}
		memcpy(s, h, sizeof(s));
		for (int i = 0; i < 64; i++) {
			t = s[7] + k[i] + w[i] +
			    (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
			    ((s[4] & s[5]) ^ (~s[4] & s[6]));
			u = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
			    ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
			s[7] = s[6];
			s[6] = s[5];
			s[5] = s[4];
			s[4] = s[3] + t;
			s[3] = s[2];
			s[2] = s[1];
			s[1] = s[0];
			s[0] = t + u;
		}
		for (int i = 0; i < 8; i++)
			h[i] += s[i];
	}
	return (uint64_t)h[0] << 32 | h[7];
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t sort(double scale)
{
	enum { N = 100000 };
	uint32_t *v = malloc(N * sizeof(*v));
	uint64_t seed = 5, sum = 0;

	for (long n = rounds(10, scale); n--;) {
		for (int i = 0; i < N; i++)
			v[i] = (uint32_t)next_random(&seed);
		qsort(v, N, sizeof(*v), compare);
		for (int i = 0; i < N; i += 97)
			sum = mix(sum, v[i]);
	}
	free(v);
	return sum;
}

static __attribute__((noinline)) unsigned fib_of(unsigned n)
{
	return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static uint64_t fib(double scale)
{
	uint64_t sum = 0;

	for (long n = rounds(12, scale); n--;)
		sum += fib_of(30);
	return sum;
}

/* A byte-code interpreter: one indirect jump an operation. */
static uint64_t interp(double scale)
{
	static const void *const to[] = {&&add,  &&xor, &&sub, &&rol, &&mul5, &&plus,
					 &&shr,  &&sum, &&odd, &&shl, &&less, &&not,
					 &&swap, &&cmp, &&imm, &&last};
	static unsigned char code[4096];
	const unsigned char *pc = code;
	uint64_t a = 1, b = 2, c = 3, t, seed = 11;
	long n = rounds(8000, scale);

	for (int i = 0; i < 4095; i++)
		code[i] = (unsigned char)((next_random(&seed) >> 33) % 15);
	code[4095] = 15;
#define NEXT goto *to[*pc++]
	/* clang-format off */
	NEXT;
add:	a += b; NEXT;
xor:	b ^= c; NEXT;
sub:	c -= a; NEXT;
rol:	a = a << 3 | a >> 61; NEXT;
mul5:	b *= 5; NEXT;
plus:	c += 0x9e3779b9; NEXT;
shr:	a ^= b >> 7; NEXT;
sum:	b += c; NEXT;
odd:	if (a & 1) c++; NEXT;
shl:	c ^= c << 13; NEXT;
less:	a -= 77; NEXT;
not:	b = ~b; NEXT;
swap:	t = a; a = c; c = t; NEXT;
cmp:	if (b > c) b -= c; NEXT;
imm:	a += *pc; NEXT;
last:	if (--n) { pc = code; NEXT; }
	/* clang-format on */
#undef NEXT
	return a ^ b ^ c;
}

static uint64_t muldiv(double scale)
{
	uint64_t a = 0x123456789abcdef, sum = 0;
	long n = rounds(8e6, scale);

	for (long i = 1; i <= n; i++) {
		a = a * 6364136223846793005u + 1442695040888963407u;
		sum += a / ((uint64_t)i | 0x10001) + a % 1000003;
	}
	return sum;
}

/* Carries through four words, then consumers of flags of all kinds. */
static uint64_t flags(double scale)
{
	uint64_t sum = 0;
#ifdef __x86_64__
	uint64_t x[4] = {1, 2, 3, 4}, y[4], seed = 13;
	unsigned char carry;

	for (int i = 0; i < 4; i++)
		y[i] = next_random(&seed);
	for (long n = rounds(1e7, scale); n--;) {
		__asm__ volatile("addq %5, %0\n\tadcq %6, %1\n\tadcq %7, %2\n\t"
				 "adcq %8, %3\n\tsetc %4"
				 : "+r"(x[0]), "+r"(x[1]), "+r"(x[2]), "+r"(x[3]),
				   "=q"(carry)
				 : "m"(y[0]), "m"(y[1]), "m"(y[2]), "m"(y[3])
				 : "cc");
		sum += carry + (x[1] > x[2] ? x[0] : x[3]);
		sum += (uint64_t)(__builtin_popcountll(x[0]) +
				  __builtin_ctzll(x[1] | 1));
		if ((int64_t)x[3] < 0)
			sum ^= x[2];
	}
#else
	(void)scale;
#endif
	return sum;
}

/* clang-format off */
const struct row rows_int[] = {
	{"int.crc32", "MB", 400 * BUF / 1e6, crc32, 0, 1},
	{"int.sieve", "Melem", 25, sieve, 0, 0},
	{"int.dhry", "Mloop", 4, dhry, 0, 1},
	{"int.sha256", "MB", 150000 * 64 / 1e6, sha256, 0, 1},
	{"int.qsort", "Melem", 1, sort, 0, 1},
	{"int.fib", "Mcall", 12 * 2.692537, fib, 0, 0},
	{"int.interp", "Mop", 8000 * 4096 / 1e6, interp, 0, 1},
	{"int.muldiv", "Mdiv", 16, muldiv, 0, 0},
	{"int.flags", "Mloop", 10, flags, NEED_64_BIT, 0},
	{0},
};
/* clang-format on */

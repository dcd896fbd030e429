/* bench/emu/rows_fp.c - floating point: scalar, SSE2, x87. Results are the same to the bit on every correct processor. */
#include <emmintrin.h>
#include <math.h>

#include "rows.h"

#define N 128

static double a[N][N] __attribute__((aligned(64))),
	b[N][N] __attribute__((aligned(64))), c[N][N] __attribute__((aligned(64)));

static void fill(void)
{
	uint64_t seed = 21;

	memset(c, 0, sizeof(c));
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			a[i][j] = (double)(next_random(&seed) >> 40) / 65536;
			b[i][j] = (double)(next_random(&seed) >> 40) / 65536;
		}
}

static uint64_t sum_of_c(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++)
			sum = mix(sum, double_bits(c[i][j]));
	return sum;
}

__attribute__((optimize("no-tree-vectorize"))) static uint64_t
matmul_scalar(double scale)
{
	fill();
	for (long n = rounds(60, scale); n--;)
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) {
				double s = 0;

				for (int k = 0; k < N; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
				MEMORY_USED();
			}
	return sum_of_c();
}

/* Eight columns of one row. */
static void columns_sse2(int i, int j)
{
	__m128d s[4] = {_mm_setzero_pd(), _mm_setzero_pd(), _mm_setzero_pd(),
			_mm_setzero_pd()};

	for (int k = 0; k < N; k++) {
		__m128d x = _mm_set1_pd(a[i][k]);

		for (int v = 0; v < 4; v++)
			s[v] = _mm_add_pd(s[v],
					  _mm_mul_pd(x, _mm_load_pd(&b[k][j + 2 * v])));
	}
	for (int v = 0; v < 4; v++)
		_mm_store_pd(&c[i][j + 2 * v], s[v]);
	MEMORY_USED();
}

static uint64_t matmul_sse2(double scale)
{
	fill();
	for (long n = rounds(150, scale); n--;)
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j += 8)
				columns_sse2(i, j);
	return sum_of_c();
}

static uint64_t nbody(double scale)
{
	struct {
		double x, y, z, vx, vy, vz, m;
	} p[5];
	uint64_t seed = 23;

	for (int i = 0; i < 5; i++) {
		p[i].x = (double)(next_random(&seed) >> 44) / 1e5;
		p[i].y = (double)(next_random(&seed) >> 44) / 1e5;
		p[i].z = (double)(next_random(&seed) >> 44) / 1e5;
		p[i].vx = p[i].vy = p[i].vz = 0;
		p[i].m = 1 + i;
	}
	for (long n = rounds(300000, scale); n--;) {
		for (int i = 0; i < 5; i++)
			for (int j = i + 1; j < 5; j++) {
				double dx = p[i].x - p[j].x, dy = p[i].y - p[j].y,
				       dz = p[i].z - p[j].z,
				       d2 = dx * dx + dy * dy + dz * dz + 0.01,
				       f = 0.001 / (d2 * sqrt(d2));

				p[i].vx -= dx * p[j].m * f;
				p[i].vy -= dy * p[j].m * f;
				p[i].vz -= dz * p[j].m * f;
				p[j].vx += dx * p[i].m * f;
				p[j].vy += dy * p[i].m * f;
				p[j].vz += dz * p[i].m * f;
			}
		for (int i = 0; i < 5; i++) {
			p[i].x += 0.001 * p[i].vx;
			p[i].y += 0.001 * p[i].vy;
			p[i].z += 0.001 * p[i].vz;
		}
	}
	return double_bits(p[0].x) ^ double_bits(p[1].y) ^ double_bits(p[2].z) ^
	       double_bits(p[3].vx);
}

/* The logistic map and a series, in 80 bits. */
static uint64_t x87_arith(double scale)
{
	long double x = 0.3L, series = 0, p = 1;
	long n = rounds(6e6, scale);

	for (long i = 1; i <= n; i++) {
		x = 3.99L * x * (1 - x);
		series += x / (long double)i;
		p = p * 0.999999L + x;
		if (p > 1e6L)
			p -= 1e6L;
	}
	return double_bits((double)(series + p + x));
}

/* Processors differ in the last bits of these: no checksum. */
static uint64_t x87_trig(double scale)
{
	double x = 0.1, s, cs, l, sum = 0;

	for (long n = rounds(600000, scale); n--; x += 0.001) {
		__asm__ volatile("fldl %2\n\tfsincos\n\tfstpl %1\n\tfstpl %0"
				 : "=m"(s), "=m"(cs)
				 : "m"(x));
		__asm__ volatile("fldln2\n\tfldl %1\n\tfyl2x\n\tfstpl %0"
				 : "=m"(l)
				 : "m"(x));
		sum += s * cs + l;
	}
	return isnan(sum);
}

static uint64_t convert(double scale)
{
	double x = 1.5;
	float f = 0.5f;
	int64_t sum = 0;
	long n = rounds(1e7, scale);

	for (long i = 0; i < n; i++) {
		x = x * 1.0000001 + (double)(int)(i & 1023);
		if (x > 1e6)
			x *= 0.5;
		f *= 1.01f;
		if (!(f < 100.0f))
			f = (float)x * 1e-6f;
		sum += (int64_t)x + (int)f;
	}
	return (uint64_t)sum;
}

/* clang-format off */
const struct row rows_fp[] = {
	{"fp.matmul_scalar", "MFLOP", 60 * 2.0 * N * N * N / 1e6, matmul_scalar, 0, 0},
	{"fp.matmul_sse2", "MFLOP", 150 * 2.0 * N * N * N / 1e6, matmul_sse2, 0, 0},
	{"fp.nbody", "Kstep", 300, nbody, 0, 1},
	{"fp.x87_arith", "Mloop", 6, x87_arith, 0, 1},
	{"fp.x87_trig", "Mop", 1.2, x87_trig, 0, 1},
	{"fp.convert", "Mloop", 10, convert, 0, 0},
	{0},
};
/* clang-format on */

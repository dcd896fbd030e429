/* bench/emu/rows_simd.c - vector instructions: SSE2 integers, AVX2, FMA, CRC32, AES. */
#include <immintrin.h>

#include "rows.h"

#define N   128
#define BUF 65536

static uint64_t sse2_int(double scale)
{
	static uint8_t p[BUF] __attribute__((aligned(16))),
		q[BUF] __attribute__((aligned(16)));
	__m128i sum = _mm_setzero_si128(), x, y, v;
	uint64_t seed = 29, out[2];

	for (int i = 0; i < BUF; i++) {
		p[i] = (uint8_t)(next_random(&seed) >> 32);
		q[i] = (uint8_t)(next_random(&seed) >> 32);
	}
	for (long n = rounds(3000, scale); n--;)
		for (int i = 0; i < BUF; i += 16) {
			x = _mm_load_si128((void *)(p + i));
			y = _mm_load_si128((void *)(q + i));
			v = _mm_srli_epi16(_mm_subs_epu8(x, y), 1);
			v = _mm_adds_epu8(_mm_avg_epu8(x, y), v);
			sum = _mm_add_epi64(sum, _mm_sad_epu8(v, y));
			v = _mm_xor_si128(v, _mm_cmpgt_epi8(x, y));
			_mm_store_si128((void *)(p + i), v);
		}
	_mm_storeu_si128((void *)out, sum);
	return mix(out[0], out[1]);
}

static float a[N][N] __attribute__((aligned(64))), b[N][N] __attribute__((aligned(64))),
	c[N][N] __attribute__((aligned(64)));

/* 32 columns of one row. */
__attribute__((target("avx2,fma"))) static void columns_fma(int i, int j)
{
	__m256 s[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
		       _mm256_setzero_ps()};

	for (int k = 0; k < N; k++) {
		__m256 x = _mm256_broadcast_ss(&a[i][k]);

		for (int v = 0; v < 4; v++)
			s[v] = _mm256_fmadd_ps(x, _mm256_load_ps(&b[k][j + 8 * v]),
					       s[v]);
	}
	for (int v = 0; v < 4; v++)
		_mm256_store_ps(&c[i][j + 8 * v], s[v]);
	MEMORY_USED();
}

static uint64_t avx2_fma(double scale)
{
	uint64_t seed = 21;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			a[i][j] = (float)(next_random(&seed) >> 48) / 256;
			b[i][j] = (float)(next_random(&seed) >> 48) / 256;
		}
	for (long n = rounds(500, scale); n--;)
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j += 32)
				columns_fma(i, j);
	return sum_bytes(c, sizeof(c));
}

__attribute__((target("avx2"))) static uint64_t avx2_int(double scale)
{
	static uint8_t p[BUF] __attribute__((aligned(32)));
	__m256i sum = _mm256_setzero_si256(), shift = _mm256_set1_epi32(0x03020100), x;
	uint64_t seed = 31, out[4];

	for (int i = 0; i < BUF; i++)
		p[i] = (uint8_t)(next_random(&seed) >> 32);
	for (long n = rounds(6000, scale); n--;)
		for (int i = 0; i < BUF; i += 32) {
			x = _mm256_load_si256((void *)(p + i));
			x = _mm256_shuffle_epi8(_mm256_add_epi8(x, shift), x);
			sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, shift));
			_mm256_store_si256((void *)(p + i), x);
		}
	_mm256_storeu_si256((void *)out, sum);
	return mix(mix(out[0], out[1]), mix(out[2], out[3]));
}

__attribute__((target("sse4.2"))) static uint64_t crc32c(double scale)
{
	static uint64_t data[BUF / 8];
	uint64_t seed = 33, crc = 0;

	for (int i = 0; i < BUF / 8; i++)
		data[i] = next_random(&seed);
	for (long n = rounds(4000, scale); n--;)
		for (int i = 0; i < BUF / 8; i++) {
#ifdef __x86_64__
			crc = _mm_crc32_u64(crc, data[i]);
#else
			crc = _mm_crc32_u32((uint32_t)crc, (uint32_t)data[i]);
			crc = _mm_crc32_u32((uint32_t)crc, (uint32_t)(data[i] >> 32));
#endif
		}
	return crc;
}

__attribute__((target("aes,sse4.1"))) static uint64_t aesni(double scale)
{
	__m128i key[11], x[4];
	uint64_t seed = 35, out[2];

	for (int i = 0; i < 11; i++) {
		out[0] = next_random(&seed);
		out[1] = next_random(&seed);
		key[i] = _mm_loadu_si128((void *)out);
	}
	memcpy(x, key + 1, sizeof(x));
	for (long n = rounds(2e6, scale); n--;) {
		for (int r = 1; r < 10; r++)
			for (int i = 0; i < 4; i++)
				x[i] = _mm_aesenc_si128(x[i], key[r]);
		for (int i = 0; i < 4; i++)
			x[i] = _mm_aesenclast_si128(x[i], key[10]);
	}
	return sum_bytes(x, sizeof(x));
}

/* clang-format off */
const struct row rows_simd[] = {
	{"simd.sse2_int", "MB", 3000 * BUF / 1e6, sse2_int, 0, 0},
	{"simd.avx2_fma", "MFLOP", 500 * 2.0 * N * N * N / 1e6, avx2_fma, NEED_AVX2, 0},
	{"simd.avx2_int", "MB", 6000 * BUF / 1e6, avx2_int, NEED_AVX2, 0},
	{"simd.crc32c", "MB", 4000 * BUF / 1e6, crc32c, NEED_SSE42, 0},
	{"simd.aesni", "MB", 2e6 * 64 / 1e6, aesni, NEED_AES, 0},
	{0},
};
/* clang-format on */

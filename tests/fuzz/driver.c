/*
 * tests/fuzz/driver.c - runs a libFuzzer target without libFuzzer: the files of its corpus, then
 * deterministic mutations of them for a bounded time. Prints TAP. Usage: TARGET [SECONDS [SEED]].
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/time.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_SEEDS   256
#define INPUT_LIMIT 65536

struct seed {
	uint8_t *p;
	size_t len;
};

static struct seed seeds[MAX_SEEDS];
static unsigned n_seeds;
static uint8_t input[INPUT_LIMIT];
static size_t input_len;
static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

/* The input that crashed is worth more than the crash: keep it. */
static void on_crash(int sig)
{
	static const char path[] = "crash-input";
	FILE *f = fopen(path, "wb");

	if (f) {
		fwrite(input, 1, input_len, f);
		fclose(f);
	}
	printf("not ok 1 - signal %d, the input is in '%s'\n1..1\n", sig, path);
	fflush(stdout);
	_exit(1);
}

static void load_corpus(const char *dir)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)) && n_seeds < MAX_SEEDS) {
		char path[512];
		void *p;
		size_t len;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (e->d_name[0] == '.' ||
		    fd_load_file(path, INPUT_LIMIT, &p, &len, NULL))
			continue;
		seeds[n_seeds++] = (struct seed){p, len};
	}
	if (d)
		closedir(d);
}

static void mutate(void)
{
	unsigned n = 1 + rng() % 8;

	input_len = 0;
	if (n_seeds && rng() % 8) {
		const struct seed *s = &seeds[rng() % n_seeds];

		memcpy(input, s->p, s->len);
		input_len = s->len;
	}
	if (!input_len) {
		input_len = 1 + rng() % 512;
		for (size_t i = 0; i < input_len; i++)
			input[i] = (uint8_t)rng();
	}
	while (n--) {
		size_t at = rng() % input_len;
		static const uint8_t edge[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};

		switch (rng() % 6) {
		case 0: input[at] ^= (uint8_t)(1 << rng() % 8); break;
		case 1: input[at] = (uint8_t)rng(); break;
		case 2: input[at] = edge[rng() % sizeof(edge)]; break;
		case 3:
			for (size_t i = 0; i < 4 && at + i < input_len; i++)
				input[at + i] = edge[rng() % sizeof(edge)];
			break;
		case 4: input_len = 1 + at; break;
		case 5: {
			size_t from = rng() % input_len;
			size_t room = input_len - (from > at ? from : at);

			memmove(input + at, input + from, min_u64(8, room));
			break;
		}
		}
	}
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 2;
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	uint64_t end, runs = 0;
	char dir[256];

	rng_state = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 0x9e3779b97f4a7c15ull;
	snprintf(dir, sizeof(dir), "tests/fuzz/corpus/%s", name);
	load_corpus(dir);
	signal(SIGSEGV, on_crash);
	signal(SIGABRT, on_crash);
	signal(SIGFPE, on_crash);
	signal(SIGALRM, on_crash);
	end = time_mono_ns() + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i < n_seeds; i++, runs++) {
		memcpy(input, seeds[i].p, seeds[i].len);
		input_len = seeds[i].len;
		alarm(20);
		LLVMFuzzerTestOneInput(input, input_len);
	}
	while (time_mono_ns() < end) {
		mutate();
		alarm(20);
		LLVMFuzzerTestOneInput(input, input_len);
		runs++;
	}
	printf("ok 1 - %s: %llu inputs, %u seeds\n1..1\n", name,
	       (unsigned long long)runs, n_seeds);
	return 0;
}

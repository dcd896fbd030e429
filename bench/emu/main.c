/*
 * bench/emu/main.c - the benchmark program, run natively and in guests by bench/emu/run.
 *   rows SCALE REPEAT PREFIX NAMES   NAMES: rows with commas between, or "all"; PREFIX: before names
 *   rows --list PREFIX               names of the rows
 *   rows --tool NAME UNIT WORK BUSYBOX COMMAND   times a shell command and sums up its output
 *   rows --nothing                   status 0
 * A row prints "B name" when it begins, "E name seconds rate unit checksum" with the best of REPEAT
 * runs, or "S name" where the processor cannot do it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rows.h"

static const struct row *const all_rows[] = {rows_int,  rows_mem, rows_jit, rows_fp,
					     rows_simd, rows_sys, rows_smp, rows_blk};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int can(unsigned needs)
{
	__builtin_cpu_init();
	if ((needs & NEED_AVX2) &&
	    !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
		return 0;
	if ((needs & NEED_SSE42) && !__builtin_cpu_supports("sse4.2"))
		return 0;
	if ((needs & NEED_AES) && !__builtin_cpu_supports("aes"))
		return 0;
	if ((needs & NEED_TWO_CPUS) && sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return 0;
	return !(needs & NEED_DISK) || getenv("BENCH_DISK");
}

/* Whether the row belongs to this program at all. */
static int mine(const struct row *r)
{
	return sizeof(void *) == 8 || (r->in_32 && !(r->needs & NEED_64_BIT));
}

static int wanted(const char *names, const char *prefix, const char *name)
{
	char full[64];
	size_t len;

	if (!strcmp(names, "all"))
		return 1;
	len = (size_t)snprintf(full, sizeof(full), "%s%s", prefix, name);
	for (const char *p = names; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
		if (!strncmp(p, full, len) && (p[len] == ',' || !p[len]))
			return 1;
	return 0;
}

static void print_end(const char *prefix, const char *name, double seconds, double work,
		      const char *unit, uint64_t sum)
{
	printf("E %s%s %.6f %.6g %s/s %016llx\n", prefix, name, seconds, work / seconds,
	       unit, (unsigned long long)sum);
}

static void run_row(const struct row *r, double scale, int repeat, const char *prefix)
{
	double best = 1e30, t;
	uint64_t sum = 0;

	if (!can(r->needs)) {
		printf("S %s%s\n", prefix, r->name);
		return;
	}
	printf("B %s%s\n", prefix, r->name);
	for (int i = 0; i < repeat; i++) {
		t = now();
		sum = r->run(scale);
		t = now() - t;
		best = t < best ? t : best;
	}
	print_end(prefix, r->name, best, r->work * scale, r->unit, sum);
}

static int run_tool(char **argv)
{
	unsigned char buf[65536];
	uint64_t sum = 0;
	int out[2], st = 0;
	double t = now();
	pid_t pid;
	ssize_t n;

	printf("B %s\n", argv[2]);
	if (pipe(out) < 0)
		return 1;
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		close(out[0]);
		close(out[1]);
		execl(argv[5], "busybox", "sh", "-c", argv[6], (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	while ((n = read(out[0], buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			sum = mix(sum, buf[i]);
	close(out[0]);
	waitpid(pid, &st, 0);
	print_end("", argv[2], now() - t, atof(argv[4]), argv[3], st ? 0xbad : sum);
	return 0;
}

int main(int argc, char **argv)
{
	int list = argc == 3 && !strcmp(argv[1], "--list");
	const struct row *r;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return 0;
	if (argc == 7 && !strcmp(argv[1], "--tool"))
		return run_tool(argv);
	if (argc != 5 && !list)
		return 2;
	for (unsigned i = 0; i < sizeof(all_rows) / sizeof(all_rows[0]); i++)
		for (r = all_rows[i]; r->name; r++) {
			if (!mine(r))
				continue;
			if (list)
				printf("%s%s\n", argv[2], r->name);
			else if (wanted(argv[4], argv[3], r->name))
				run_row(r, atof(argv[1]), atoi(argv[2]), argv[3]);
		}
	return 0;
}

/* bench/emu/rows_sys.c - ways into the kernel and back: calls, faults, signals, processes, files, time; and disks. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rows.h"

#define PAGE 4096

static char *map(size_t len, int prot)
{
	char *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static uint64_t call(double scale)
{
	uint64_t sum = 0;

	for (long n = rounds(2e6, scale); n--;)
		sum += syscall(SYS_getppid) >= 0;
	return sum;
}

static uint64_t gettime(double scale)
{
	struct timespec t;

	for (long n = rounds(4e6, scale); n--;)
		clock_gettime(CLOCK_MONOTONIC, &t);
	return 0;
}

static uint64_t rdtsc(double scale)
{
	uint32_t lo, hi;

	for (long n = rounds(1e7, scale); n--;)
		__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return 0;
}

static uint64_t cpuid(double scale)
{
	uint32_t a, b, c, d;

	for (long n = rounds(20000, scale); n--;)
		__asm__ volatile("cpuid"
				 : "=a"(a), "=b"(b), "=c"(c), "=d"(d)
				 : "0"(0), "2"(0));
	return 0;
}

static uint64_t page_fault(double scale)
{
	char *p;

	for (long n = rounds(60, scale); n--;) {
		p = map(1024 * PAGE, PROT_READ | PROT_WRITE);
		madvise(p, 1024 * PAGE, MADV_NOHUGEPAGE);
		for (int i = 0; i < 1024; i++)
			p[i * PAGE] = 1;
		munmap(p, 1024 * PAGE);
	}
	return 0;
}

static uint64_t protect(double scale)
{
	char *p = map(16 * PAGE, PROT_READ | PROT_WRITE);
	uint64_t sum = 0;

	for (long n = rounds(100000, scale); n--;) {
		mprotect(p, 16 * PAGE, PROT_READ);
		sum += (uint64_t)p[PAGE];
		mprotect(p, 16 * PAGE, PROT_READ | PROT_WRITE);
		p[(n & 15) * PAGE] = 1;
	}
	munmap(p, 16 * PAGE);
	return sum;
}

static volatile sig_atomic_t signals;

static void on_segv(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	signals++;
	mprotect((void *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1)), PAGE,
		 PROT_READ | PROT_WRITE);
}

static uint64_t segv(double scale)
{
	struct sigaction act = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
	char *p = map(PAGE, PROT_READ);

	signals = 0;
	sigaction(SIGSEGV, &act, NULL);
	for (long n = rounds(60000, scale); n--;) {
		mprotect(p, PAGE, PROT_READ);
		*(volatile char *)p = 1;
	}
	munmap(p, PAGE);
	signal(SIGSEGV, SIG_DFL);
	return (uint64_t)signals;
}

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

static uint64_t raise_signal(double scale)
{
	signals = 0;
	signal(SIGUSR1, on_signal);
	for (long n = rounds(200000, scale); n--;)
		raise(SIGUSR1);
	return (uint64_t)signals;
}

/* A byte goes to another process and comes back one higher. */
static uint64_t pipes(double scale)
{
	long n = rounds(60000, scale);
	unsigned char c = 0;
	uint64_t sum = 0;
	int to[2], from[2];
	pid_t pid;

	if (pipe(to) || pipe(from))
		return 0xbad;
	pid = fork();
	if (!pid) {
		while (n-- && read(to[0], &c, 1) == 1) {
			c++;
			if (write(from[1], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	while (n--) {
		if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
			return 0xbad;
		sum += c;
	}
	waitpid(pid, NULL, 0);
	for (int i = 0; i < 2; i++) {
		close(to[i]);
		close(from[i]);
	}
	return sum;
}

static uint64_t forks(double scale)
{
	uint64_t sum = 0;
	pid_t pid;
	int st;

	for (long n = rounds(1500, scale); n--;) {
		pid = fork();
		if (!pid)
			_exit(3);
		waitpid(pid, &st, 0);
		sum += (uint64_t)WEXITSTATUS(st);
	}
	return sum;
}

static uint64_t execs(double scale)
{
	char self[256];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	volatile uint64_t sum = 1; /* past vfork() */
	pid_t pid;
	int st;

	if (len < 0)
		return 0xbad;
	self[len] = 0;
	for (long n = rounds(600, scale); n--;) {
		pid = vfork();
		if (!pid) {
			execl(self, "rows", "--nothing", (char *)NULL);
			_exit(9);
		}
		waitpid(pid, &st, 0);
		sum += (uint64_t)WEXITSTATUS(st);
	}
	return sum;
}

static int scratch(char name[64])
{
	int fd;

	snprintf(name, 64, "/tmp/bench-emu.%d", (int)getpid());
	fd = open(name, O_CREAT | O_RDWR, 0600);
	if (fd < 0)
		abort();
	return fd;
}

static uint64_t open_close(double scale)
{
	char name[64];
	struct stat st;
	uint64_t sum = 0;
	int fd = scratch(name);

	close(fd);
	for (long n = rounds(80000, scale); n--;) {
		fd = open(name, O_CREAT | O_RDWR, 0600);
		sum += !fstat(fd, &st);
		close(fd);
	}
	unlink(name);
	return sum;
}

static uint64_t file_io(double scale)
{
	enum { LEN = 65536 };
	char name[64], *buf = calloc(1, LEN);
	int fd = scratch(name);
	uint64_t sum = 0;

	for (long n = rounds(3000, scale); n--;) {
		off_t at = (n & 63) * LEN;

		sum += (uint64_t)(pwrite(fd, buf, LEN, at) + pread(fd, buf, LEN, at));
	}
	close(fd);
	unlink(name);
	free(buf);
	return sum;
}

/* `count` requests of `len` bytes past the page cache, in order or anywhere. */
static uint64_t disk(long count, size_t len, int anywhere, int write)
{
	int fd = open(getenv("BENCH_DISK"), O_RDWR | O_DIRECT);
	off_t places = lseek(fd, 0, SEEK_END) / (off_t)len, at;
	uint64_t seed = 51, sum = 0;
	void *buf;

	if (fd < 0 || places <= 0 || posix_memalign(&buf, PAGE, len))
		return 0xbad;
	memset(buf, 7, len);
	for (long i = 0; i < count; i++) {
		at = anywhere ? (off_t)((next_random(&seed) >> 20) % (uint64_t)places)
			      : i % places;
		at *= (off_t)len;
		sum += (uint64_t)(write ? pwrite(fd, buf, len, at)
					: pread(fd, buf, len, at));
	}
	close(fd);
	free(buf);
	return sum;
}

static uint64_t disk_seq(double scale)
{
	return disk(rounds(512, scale), 1 << 20, 0, 0);
}

static uint64_t disk_read(double scale)
{
	return disk(rounds(8000, scale), PAGE, 1, 0);
}

static uint64_t disk_write(double scale)
{
	return disk(rounds(2000, scale), 65536, 1, 1);
}

/* clang-format off */
const struct row rows_sys[] = {
	{"sys.getppid", "Kcall", 2000, call, 0, 1},
	{"sys.clock_gettime", "Kcall", 4000, gettime, 0, 0},
	{"sys.rdtsc", "Kop", 10000, rdtsc, 0, 0},
	{"sys.cpuid", "Kop", 20, cpuid, 0, 0},
	{"sys.pagefault", "Kfault", 60 * 1.024, page_fault, 0, 0},
	{"sys.mprotect", "Kpair", 100, protect, 0, 0},
	{"sys.segv", "Kfault", 60, segv, 0, 0},
	{"sys.signal", "Ksig", 200, raise_signal, 0, 0},
	{"sys.pipe", "Ktrip", 60, pipes, 0, 0},
	{"sys.fork", "proc", 1500, forks, 0, 0},
	{"sys.exec", "proc", 600, execs, 0, 0},
	{"sys.openclose", "Kop", 80, open_close, 0, 0},
	{"sys.fileio64k", "MB", 3000 * 131072 / 1e6, file_io, 0, 0},
	{0},
};

const struct row rows_blk[] = {
	{"blk.seqread1m", "MB", 512 * 1.048576, disk_seq, NEED_DISK, 0},
	{"blk.randread4k", "Kop", 8, disk_read, NEED_DISK, 0},
	{"blk.randwrite64k", "MB", 2000 * 0.065536, disk_write, NEED_DISK, 0},
	{0},
};
/* clang-format on */

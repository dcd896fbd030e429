/*
 * tests/progs/imgfail.c - changes an image with lib/img, and has the n-th write to the disk go wrong:
 *   imgfail MODE N COMMAND...
 * MODE: count (prints how many writes there are), kill (ends before the n-th), half (ends in the middle of it), eio (the
 * n-th fails), full (the n-th and all later ones fail with ENOSPC).
 *     write IMAGE FORMAT | resize IMAGE FORMAT SIZE | snapshot IMAGE create|apply|delete NAME
 *     commit IMAGE | rebase IMAGE BACKING FORMAT | repair IMAGE FORMAT | amend IMAGE NAME VALUE
 *     convert SOURCE TARGET FORMAT [packed]
 * Status 0: done; 1: failed with a message; 9: ended as asked for.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/size.h"
#include "img/chain.h"
#include "img/copy.h"
#include "img/img.h"

/* ---- writes that go wrong ---- */

static enum { COUNT, KILL, HALF, EIO_ONCE, FULL } mode;
static unsigned long wanted, writes;

/* 0: do it; else what errno is to be. */
static int strike(bool *half)
{
	unsigned long n = __atomic_add_fetch(&writes, 1, __ATOMIC_SEQ_CST);

	*half = false;
	if (mode == COUNT || n < wanted || (n > wanted && mode != FULL))
		return 0;
	if (mode == KILL)
		_exit(9);
	*half = mode == HALF;
	return mode == EIO_ONCE ? EIO : mode == FULL ? ENOSPC : 0;
}

/* The library's system calls come by here: the program's own symbols are found before libc's. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	bool half;
	int e = strike(&half);

	if (e) {
		errno = e;
		return -1;
	}
	if (half) {
		/* Disks write whole sectors. */
		struct iovec v = {iov[0].iov_base, iov[0].iov_len / 2 / 512 * 512};

		syscall(SYS_pwritev, fd, &v, 1, off, 0);
		_exit(9);
	}
	return syscall(SYS_pwritev, fd, iov, n, off, 0);
}

int fallocate(int fd, int how, off_t off, off_t len)
{
	bool half;
	int e = strike(&half);

	if (e) {
		errno = e;
		return -1;
	}
	if (half)
		_exit(9);
	return (int)syscall(SYS_fallocate, fd, how, off, len);
}

int ftruncate(int fd, off_t len)
{
	bool half;
	int e = strike(&half);

	if (e) {
		errno = e;
		return -1;
	}
	if (half)
		_exit(9);
	return (int)syscall(SYS_ftruncate, fd, len);
}

/* ---- commands ---- */

static int open_for_write(const char *path, const char *format, bool repair,
			  struct img **img, struct err *err)
{
	struct img_opts o = {.format = format, .repair = repair};

	return img_open(path, &o, img, err);
}

static int put(struct img *img, uint64_t off, uint64_t len, int byte)
{
	static uint8_t buf[1 << 20];

	memset(buf, byte, len);
	return img_write(img, buf, off, len);
}

/* First writes, writes in place, zeros, discards, over a few tables. */
static int do_writes(struct img *img)
{
	uint64_t size = img_size(img);
	int rc = 0;

	for (unsigned i = 0; i < 12 && !rc; i++) {
		uint64_t off = (i * 7919ull << 13) % (size - (256 << 10));

		rc = put(img, off, 3000 + i * 9001, 0x40 + (int)i);
		if (!rc && i == 5)
			rc = img_flush(img);
		if (!rc && i == 7)
			rc = img_write_zeroes(img, off & ~65535ull, 65536, true);
		if (!rc && i == 9)
			rc = img_discard(img, 0, 256 << 10);
	}
	return rc ? rc : img_flush(img);
}

static int end(struct img *img, int rc, const char *what, struct err *err)
{
	int closed = img_close(img);

	if (rc && !err->code)
		err_sys(err, -rc, "%s", what);
	if (!rc && closed)
		rc = err_sys(err, -closed, "close");
	return rc;
}

static int cmd_write(char **a, struct err *err)
{
	struct img *img;
	int rc = open_for_write(a[0], a[1], false, &img, err);

	return rc ? rc : end(img, do_writes(img), "write", err);
}

static int cmd_resize(char **a, struct err *err)
{
	struct img *img;
	uint64_t size = 0;
	int rc = open_for_write(a[0], a[1], false, &img, err);

	if (rc)
		return rc;
	size_parse(a[2], &size, err);
	return end(img, img_resize(img, size, IMG_PREALLOC_OFF, err), "resize", err);
}

static int cmd_snapshot(char **a, struct err *err)
{
	struct img *img;
	int rc = open_for_write(a[0], NULL, false, &img, err);

	if (rc)
		return rc;
	if (!strcmp(a[1], "create"))
		rc = img_snapshot_create(img, a[2], err);
	else if (!strcmp(a[1], "apply"))
		rc = img_snapshot_apply(img, a[2], err);
	else
		rc = img_snapshot_delete(img, a[2], err);
	return end(img, rc, "snapshot", err);
}

static int cmd_commit(char **a, struct err *err)
{
	struct img_chain_opts o = {0};

	return img_commit(a[0], NULL, false, &o, err);
}

static int cmd_rebase(char **a, struct err *err)
{
	struct img_chain_opts o = {0};

	return img_rebase(a[0], a[1], a[2], false, &o, err);
}

static int cmd_repair(char **a, struct err *err)
{
	struct img_check c = {.fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS};
	struct img *img;
	int rc = open_for_write(a[0], a[1], true, &img, err);

	return rc ? rc : end(img, img_check(img, &c, err), "repair", err);
}

static int cmd_amend(char **a, struct err *err)
{
	struct img_option o = {a[1], a[2]};
	struct img *img;
	int rc = open_for_write(a[0], NULL, false, &img, err);

	return rc ? rc : end(img, img_amend(img, &o, 1, err), "amend", err);
}

static int cmd_convert(char **a, struct err *err)
{
	struct img_opts io = {.read_only = true};
	struct img_create_opts co = {.format = a[2], .replace = true};
	struct img_copy_opts o = {.sparse = 4096, .zero_known = true};
	struct img_work_list w = {0};
	struct img_target *t = NULL;
	struct img_plan plan;
	struct img *in, *out = NULL;
	struct img_source src = {.img = &in, .n = 1};
	int rc = img_open(a[0], &io, &in, err);

	if (rc)
		return rc;
	o.packed = a[3] != NULL;
	o.threads = 1;
	rc = img_work_list(&src, false, &w, err);
	co.size = w.size;
	plan = (struct img_plan){w.data, w.n_data, o.packed};
	if (!rc)
		rc = img_target_new(a[1], &co, &plan, &t, &out, err);
	if (!rc)
		rc = img_copy(&src, out, &w, &o, err);
	if (rc)
		img_target_drop(t, out);
	else
		rc = img_target_commit(t, out, err);
	img_work_free(&w);
	img_close(in);
	return rc;
}

/* clang-format off */
static const struct {
	const char *name;
	int (*run)(char **args, struct err *err);
	int args;
} commands[] = {
	{"write", cmd_write, 2}, {"resize", cmd_resize, 3}, {"snapshot", cmd_snapshot, 3},
	{"commit", cmd_commit, 1}, {"rebase", cmd_rebase, 3}, {"repair", cmd_repair, 2},
	{"amend", cmd_amend, 3}, {"convert", cmd_convert, 3},
};
/* clang-format on */

int main(int argc, char **argv)
{
	static const char *const modes[] = {"count", "kill", "half", "eio", "full"};
	struct err err = {0};
	unsigned i = 0;
	int rc;

	if (argc < 4)
		return 2;
	while (i < ARRAY_LEN(modes) - 1 && strcmp(modes[i], argv[1]))
		i++;
	mode = i;
	wanted = strtoul(argv[2], NULL, 10);
	for (i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(commands[i].name, argv[3]) && argc - 4 >= commands[i].args)
			break;
	if (i == ARRAY_LEN(commands))
		return 2;
	rc = commands[i].run(argv + 4, &err);
	if (mode == COUNT)
		printf("%lu\n", writes);
	if (rc)
		fprintf(stderr, "imgfail: %s\n", err.msg);
	return rc ? 1 : 0;
}

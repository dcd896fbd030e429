/*
 * tests/progs/imgio.c - lib/img for the tests that compare it with qemu-img:
 *   imgio [-r] [-s] [-b] [-U] [-n] [-f FORMAT] [-S PASSPHRASE] IMAGE COMMAND...
 *     info | cat | map | write OFF LEN BYTE | zero OFF LEN | unmap OFF LEN | discard OFF LEN
 *     hold: waits for the end of its input with the image open
 *     random SEED OPS THREADS BLOCK MODEL [crash]: changes the image and the raw file MODEL alike, in
 *       THREADS threads whose blocks of BLOCK bytes lie between each other; then compares
 *   imgio create PATH FORMAT SIZE [cluster=N] [bits=N] [version=N] [ext] [zstd] [back=PATH,FORMAT]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/size.h"
#include "img/img.h"

#define CHUNK (1u << 20)

static int fail(const char *what, int rc)
{
	fprintf(stderr, "imgio: %s: %s\n", what, strerror(-rc));
	return 1;
}

static int fail_err(const struct err *err)
{
	fprintf(stderr, "imgio: %s\n", err->msg);
	return 1;
}

/* ---- whole images ---- */

static int cat(struct img *img)
{
	static uint8_t buf[CHUNK];

	for (uint64_t at = 0; at < img_size(img);) {
		uint64_t n = min_u64(CHUNK, img_size(img) - at);
		int rc = img_read(img, buf, at, n);

		if (rc || fwrite(buf, 1, n, stdout) != n)
			return fail("read", rc);
		at += n;
	}
	return fflush(stdout) ? 1 : 0;
}

static int map(struct img *img)
{
	static const char *const kinds[] = {"data", "zero", "backing", "packed"};
	struct img_extent e;

	for (uint64_t at = 0; at < img_size(img); at += e.len) {
		int rc = img_map(img, at, img_size(img) - at, &e);

		if (rc)
			return fail("map", rc);
		printf("%" PRIu64 " %" PRIu64 " %s %u\n", at, e.len, kinds[e.kind],
		       e.depth);
	}
	return 0;
}

static int info(struct img *img)
{
	struct img_info i;

	img_info(img, &i);
	printf("format %s\nsize %" PRIu64 "\ncluster %u\nversion %u\nbits %u\n",
	       img_format_name(img), img_size(img), img_cluster_size(img), i.version,
	       i.refcount_bits);
	printf("backing %s\ncompression %s\nsnapshots %u\n",
	       i.backing_path ? i.backing_path : "-",
	       i.compression ? i.compression : "-", i.snapshots);
	return 0;
}

/* ---- random changes ---- */

struct worker {
	struct img *img;
	int model;
	uint64_t rng, block;
	unsigned ops, index, n;
	int rc;
	pthread_t thread;
};

static uint64_t rng(struct worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng;
}

static int put(struct worker *w, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint8_t fill = (uint8_t)rng(w);
	struct iovec v[3] = {{buf, len / 3}, {buf, 0}, {buf, len - len / 3}};

	for (uint64_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(fill + i / 97);
	v[1].iov_base = v[2].iov_base = buf + len / 3;
	if (fd_pwrite_full(w->model, buf, len, off) < 0)
		return -EIO;
	return img_writev(w->img, v, 3, off, len);
}

static int zero(struct worker *w, uint8_t *buf, uint64_t off, uint64_t len)
{
	memset(buf, 0, len);
	if (fd_pwrite_full(w->model, buf, len, off) < 0)
		return -EIO;
	return img_write_zeroes(w->img, off, len, rng(w) & 1);
}

/* Each byte is then what it was, or zero. */
static int discard(struct worker *w, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint8_t *old = malloc(len);
	int rc = fd_pread_full(w->model, old, len, off) == (int64_t)len ? 0 : -EIO;

	rc = rc ? rc : img_discard(w->img, off, len);
	rc = rc ? rc : img_read(w->img, buf, off, len);
	for (uint64_t i = 0; i < len && !rc; i++)
		if (buf[i] != old[i] && buf[i])
			rc = -EBADMSG;
	rc = rc ? rc : fd_pwrite_full(w->model, buf, len, off);
	free(old);
	return rc;
}

static int check(struct worker *w, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint8_t *old = malloc(len);
	int rc = fd_pread_full(w->model, old, len, off) == (int64_t)len ? 0 : -EIO;

	rc = rc ? rc : img_read(w->img, buf, off, len);
	if (!rc && memcmp(buf, old, len))
		rc = -EBADMSG;
	free(old);
	return rc;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t size = img_size(w->img), blocks = (size + w->block - 1) / w->block;
	uint8_t *buf = malloc(w->block);

	for (unsigned i = 0; i < w->ops && !w->rc; i++) {
		uint64_t b = rng(w) % blocks / w->n * w->n + w->index, off, len;
		unsigned op = rng(w) % 100;

		if (b >= blocks)
			continue;
		off = b * w->block + rng(w) % w->block;
		/* Other blocks are other threads'. */
		if (rng(w) % 4 == 0 && align_down(off, 512) >= b * w->block)
			off = align_down(off, 512);
		if (off >= size)
			continue;
		len = 1 + rng(w) % min_u64(w->block - off % w->block, size - off);
		if (op < 55)
			w->rc = put(w, buf, off, len);
		else if (op < 65)
			w->rc = zero(w, buf, off, len);
		else if (op < 75)
			w->rc = discard(w, buf, off, len);
		else if (op < 98)
			w->rc = check(w, buf, off, len);
		else
			w->rc = img_flush(w->img);
		if (w->rc)
			fprintf(stderr,
				"imgio: op %u kind %u at %" PRIu64 "+%" PRIu64 "\n", i,
				op, off, len);
	}
	free(buf);
	return NULL;
}

static int compare(struct img *img, int model)
{
	static uint8_t a[CHUNK], b[CHUNK];

	for (uint64_t at = 0; at < img_size(img); at += CHUNK) {
		uint64_t n = min_u64(CHUNK, img_size(img) - at);
		int rc = img_read(img, a, at, n);

		if (rc)
			return rc;
		if (fd_pread_full(model, b, n, at) != (int64_t)n)
			return -EIO;
		if (memcmp(a, b, n))
			return -EBADMSG;
	}
	return 0;
}

/* argv: SEED OPS THREADS BLOCK MODEL [crash] */
static int random_ops(struct img *img, int argc, char **argv)
{
	struct worker w[16] = {0};
	unsigned n = argc > 4 ? (unsigned)atoi(argv[2]) : 0;
	int model, rc = 0;

	if (n < 1 || n > ARRAY_LEN(w))
		return fail("random", -EINVAL);
	model = open(argv[4], O_RDWR);
	if (model < 0)
		return fail(argv[4], -errno);
	for (unsigned i = 0; i < n; i++) {
		w[i].img = img;
		w[i].model = model;
		w[i].rng = (strtoull(argv[0], NULL, 0) + i) * 0x9e3779b97f4a7c15ull | 1;
		w[i].block = strtoull(argv[3], NULL, 0);
		w[i].ops = (unsigned)atoi(argv[1]);
		w[i].index = i;
		w[i].n = n;
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(w[i].thread, NULL);
		rc = rc ? rc : w[i].rc;
	}
	if (!rc)
		rc = compare(img, model);
	if (!rc && argc > 5)
		_exit(0);
	close(model);
	return rc ? fail("random", rc) : 0;
}

/* ---- commands ---- */

static int ranged(struct img *img, int argc, char **argv)
{
	uint64_t off, len;
	uint8_t *buf;
	int rc;

	if (argc < 3 || size_parse(argv[1], &off, NULL) ||
	    size_parse(argv[2], &len, NULL))
		return fail(argv[0], -EINVAL);
	if (!strcmp(argv[0], "zero")) {
		rc = img_write_zeroes(img, off, len, false);
	} else if (!strcmp(argv[0], "unmap")) {
		rc = img_write_zeroes(img, off, len, true);
	} else if (!strcmp(argv[0], "discard")) {
		rc = img_discard(img, off, len);
	} else if (!strcmp(argv[0], "write") && argc == 4) {
		buf = malloc(len);
		memset(buf, atoi(argv[3]), len);
		rc = img_write(img, buf, off, len);
		free(buf);
	} else {
		rc = -EINVAL;
	}
	return rc ? fail(argv[0], rc) : 0;
}

static int command(struct img *img, int argc, char **argv)
{
	if (!strcmp(argv[0], "info"))
		return info(img);
	if (!strcmp(argv[0], "cat"))
		return cat(img);
	if (!strcmp(argv[0], "map"))
		return map(img);
	if (!strcmp(argv[0], "hold"))
		return puts("ready"), fflush(stdout), getchar() != EOF;
	if (!strcmp(argv[0], "random"))
		return random_ops(img, argc - 1, argv + 1);
	return ranged(img, argc, argv);
}

static int create(int argc, char **argv)
{
	struct img_create_opts o = {.replace = true, .allow_external = "/"};
	struct err err = {0};
	char *comma;

	if (argc < 3)
		return fail("create", -EINVAL);
	o.format = argv[1];
	if (size_parse(argv[2], &o.size, &err))
		return fail_err(&err);
	for (int i = 3; i < argc; i++) {
		char *v = strchr(argv[i], '=');

		if (!strcmp(argv[i], "ext"))
			o.extended_l2 = true;
		else if (!strcmp(argv[i], "zstd"))
			o.zstd = true;
		else if (!v)
			return fail(argv[i], -EINVAL);
		else if (!strncmp(argv[i], "cluster=", 8))
			o.cluster_size = (uint32_t)atoi(v + 1);
		else if (!strncmp(argv[i], "bits=", 5))
			o.refcount_bits = (uint32_t)atoi(v + 1);
		else if (!strncmp(argv[i], "version=", 8))
			o.version = (uint32_t)atoi(v + 1);
		else if (!strncmp(argv[i], "back=", 5) && (comma = strchr(v, ','))) {
			*comma = 0;
			o.backing_path = v + 1;
			o.backing_format = comma + 1;
		}
	}
	return img_create(argv[0], &o, &err) ? fail_err(&err) : 0;
}

int main(int argc, char **argv)
{
	struct img_opts o = {.allow_external = "/"};
	struct err err = {0};
	struct img *img;
	int c, rc, end;

	while ((c = getopt(argc, argv, "+rsbUnf:S:")) != -1) {
		switch (c) {
		case 'r': o.read_only = true; break;
		case 's': o.snapshot = true; break;
		case 'b': o.no_backing = true; break;
		case 'U': o.no_lock = true; break;
		case 'n': o.no_sync = true; break;
		case 'f': o.format = optarg; break;
		case 'S': o.secret = optarg; break;
		default: return 2;
		}
	}
	argc -= optind;
	argv += optind;
	if (argc < 2)
		return 2;
	if (!strcmp(argv[0], "create"))
		return create(argc - 1, argv + 1);
	if (img_open(argv[0], &o, &img, &err))
		return fail_err(&err);
	rc = command(img, argc - 1, argv + 1);
	end = img_close(img);
	return end ? fail("close", end) : rc;
}

/*
 * tests/progs/imgtool.c - what lib/img does to whole images, for the tests that compare it with qemu-img:
 *   imgtool [-n] [-l SNAPSHOT] [-S PASSPHRASE] [-R] IMAGE COMMAND...
 *     check: prints "corruptions leaks errors total allocated fragmented compressed end"
 *     repair leaks|all|dry [UNDO-FILE] | undo FILE
 *     snapshots | create NAME | apply NAME | delete NAME | cat
 *     resize SIZE [off|metadata|falloc|full] | amend NAME=VALUE... | backing [PATH FORMAT] | empty
 *     bitmap add|remove|clear|enable|disable|merge NAME [GRANULARITY|FROM SOURCE]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/size.h"
#include "img/img.h"
#include "img/undo.h"

#define CHUNK (1u << 20)

static bool verbose;

static void say(void *ctx, const char *line)
{
	(void)ctx;
	if (verbose)
		fprintf(stderr, "%s\n", line);
}

static int check(struct img *img, unsigned fix, bool dry, const char *undo,
		 struct err *err)
{
	struct img_check c = {
		.fix = fix, .say = say, .dry_run = dry, .undo_path = undo};
	int rc = img_check(img, &c, err);

	if (rc)
		return rc;
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
	       " %" PRIu64 " %" PRIu64 "\n",
	       c.corruptions, c.leaks, c.check_errors, c.total_clusters,
	       c.allocated_clusters, c.fragmented_clusters, c.compressed_clusters,
	       c.image_end_offset);
	if (fix)
		printf("fixed %" PRIu64 " %" PRIu64 "\n", c.corruptions_fixed,
		       c.leaks_fixed);
	return 0;
}

static int repair(struct img *img, int argc, char **argv, struct err *err)
{
	bool leaks = !strcmp(argv[0], "leaks");

	return check(img, IMG_FIX_LEAKS | (leaks ? 0 : IMG_FIX_ERRORS),
		     !strcmp(argv[0], "dry"), argc > 1 ? argv[1] : NULL, err);
}

static int list(struct img *img, struct err *err)
{
	struct img_snapshot *v;
	size_t n;
	int rc = img_snapshots(img, &v, &n, err);

	for (size_t i = 0; !rc && i < n; i++)
		printf("%s %s %" PRIu64 " %" PRIu64 "\n", v[i].id, v[i].name,
		       v[i].vm_state_size, v[i].disk_size);
	if (!rc)
		img_snapshots_free(v, n);
	return rc;
}

static int cat(struct img *img)
{
	static uint8_t buf[CHUNK];

	for (uint64_t at = 0; at < img_size(img);) {
		uint64_t n = min_u64(CHUNK, img_size(img) - at);
		int rc = img_read(img, buf, at, n);

		if (rc || fwrite(buf, 1, n, stdout) != n)
			return rc ? rc : -EIO;
		at += n;
	}
	return fflush(stdout) ? -EIO : 0;
}

/* The place of `s` among words; 0 if it is none of them. */
static unsigned word(const char *s, const char *const *words)
{
	for (unsigned i = 0; words[i]; i++)
		if (!strcmp(s, words[i]))
			return i;
	return 0;
}

static int resize(struct img *img, int argc, char **argv, struct err *err)
{
	static const char *const words[] = {"off", "metadata", "falloc", "full", NULL};
	uint64_t size;
	int rc = size_parse(argv[0], &size, err);

	return rc ? rc
		  : img_resize(img, size, argc > 1 ? word(argv[1], words) : 0, err);
}

static int amend(struct img *img, int argc, char **argv, struct err *err)
{
	struct img_option o[16];
	unsigned n = 0;

	for (; n < ARRAY_LEN(o) && (int)n < argc; n++) {
		char *eq = strchr(argv[n], '=');

		if (!eq)
			return err_set(err, EINVAL, "no value: %s", argv[n]);
		*eq = 0;
		o[n] = (struct img_option){argv[n], eq + 1};
	}
	return img_amend(img, o, n, err);
}

static int bitmap(struct img *img, int argc, char **argv, struct err *err)
{
	static const char *const words[] = {"add",     "remove", "clear", "enable",
					    "disable", "merge",  NULL};
	unsigned what = word(argv[0], words);
	struct img *from = img;
	uint64_t gran = 0;
	int rc;

	if (argc < 2)
		return -EINVAL;
	if (what == IMG_BITMAP_ADD && argc > 2)
		gran = strtoull(argv[2], NULL, 0);
	if (what == IMG_BITMAP_MERGE && argc < 4)
		return err_set(err, EINVAL, "merge what?");
	if (what == IMG_BITMAP_MERGE && strcmp(argv[2], "-") &&
	    (rc = img_open(argv[2], &(struct img_opts){.read_only = true}, &from, err)))
		return rc;
	rc = img_bitmap(img, what, argv[1], gran, from, argc > 3 ? argv[3] : NULL, err);
	if (from != img)
		img_close(from);
	return rc;
}

static int command(struct img *img, int argc, char **argv, struct err *err)
{
	const char *c = argv[0];

	if (!strcmp(c, "check"))
		return check(img, 0, false, NULL, err);
	if (!strcmp(c, "repair") && argc > 1)
		return repair(img, argc - 1, argv + 1, err);
	if (!strcmp(c, "snapshots"))
		return list(img, err);
	if (!strcmp(c, "cat"))
		return cat(img);
	if (!strcmp(c, "create") && argc > 1)
		return img_snapshot_create(img, argv[1], err);
	if (!strcmp(c, "apply") && argc > 1)
		return img_snapshot_apply(img, argv[1], err);
	if (!strcmp(c, "delete") && argc > 1)
		return img_snapshot_delete(img, argv[1], err);
	if (!strcmp(c, "resize") && argc > 1)
		return resize(img, argc - 1, argv + 1, err);
	if (!strcmp(c, "amend"))
		return amend(img, argc - 1, argv + 1, err);
	if (!strcmp(c, "backing"))
		return img_set_backing(img, argc > 2 ? argv[1] : NULL,
				       argc > 2 ? argv[2] : NULL, err);
	if (!strcmp(c, "empty"))
		return img_make_empty(img, err);
	if (!strcmp(c, "bitmap") && argc > 1)
		return bitmap(img, argc - 1, argv + 1, err);
	return err_set(err, EINVAL, "no such command: %s", c);
}

static int undo(const char *image, const char *path, struct err *err)
{
	struct img_file *f;
	int rc = file_open(image, &(struct img_file_opts){0}, &f, err);

	if (rc)
		return rc;
	rc = undo_apply(path, f, err);
	file_close(f);
	return rc;
}

int main(int argc, char **argv)
{
	struct img_opts o = {.allow_external = "/", .format = "qcow2"};
	struct err err = {0};
	struct img *img;
	int c, rc, end;

	while ((c = getopt(argc, argv, "+nvl:S:R")) != -1) {
		switch (c) {
		case 'n': o.no_sync = true; break;
		case 'v': verbose = true; break;
		case 'l': o.snapshot_name = optarg; break;
		case 'S': o.secret = optarg; break;
		case 'R': o.no_backing = true; break;
		default: return 2;
		}
	}
	argc -= optind;
	argv += optind;
	if (argc < 2)
		return 2;
	o.repair = !strcmp(argv[1], "repair") || !strcmp(argv[1], "check");
	o.read_only = !strcmp(argv[1], "check") || !strcmp(argv[1], "snapshots") ||
		      !strcmp(argv[1], "cat");
	if (!strcmp(argv[1], "undo") && argc > 2) {
		rc = undo(argv[0], argv[2], &err);
	} else {
		rc = img_open(argv[0], &o, &img, &err);
		if (!rc) {
			rc = command(img, argc - 1, argv + 1, &err);
			end = img_close(img);
			rc = rc ? rc : end;
		}
	}
	if (rc)
		fprintf(stderr, "imgtool: %s\n", *err.msg ? err.msg : strerror(-rc));
	return rc ? 1 : 0;
}

/* vm-img/check.c - `check` looks for damage in an image's tables, `repair` repairs it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "img/undo.h"
#include "vm-img.h"

enum { OPT_REPAIR = OPT_FIRST };
/* qemu-img check's */
enum { QEMU_CORRUPT = 2, QEMU_LEAKS = 3, QEMU_NO_CHECK = 63 };

static struct common c;
static unsigned fix;
static int dry_run;
static char *undo, *take_back;

static int apply(int opt, char *v)
{
	if (opt != OPT_REPAIR)
		return 0;
	if (strcmp(v, "leaks") && strcmp(v, "all"))
		return usage("-r %s: leaks or all is wanted", v);
	fix = IMG_FIX_LEAKS | (strcmp(v, "all") ? 0 : IMG_FIX_ERRORS);
	return 0;
}

static void say(void *ctx, const char *line)
{
	(void)ctx;
	if (!want_json(&c))
		printf("%s\n", line);
}

/* ---- the answer ---- */

static void number_if(struct json *j, const char *key, uint64_t v)
{
	if (v || !as_qemu_img)
		json_number(j, key, v);
}

static int tell_json(const struct img *img, const struct img_check *k)
{
	struct json j = {0};

	json_object(&j, NULL);
	if (!as_qemu_img)
		json_number(&j, "version", 1);
	json_text(&j, "filename", img_path(img));
	json_text(&j, "format", img_format_name(img));
	json_number(&j, "check-errors", k->check_errors);
	number_if(&j, "corruptions", k->corruptions);
	number_if(&j, "leaks", k->leaks);
	number_if(&j, "corruptions-fixed", k->corruptions_fixed);
	number_if(&j, "leaks-fixed", k->leaks_fixed);
	if (k->image_end_offset)
		json_number(&j, "image-end-offset", k->image_end_offset);
	if (k->total_clusters) {
		json_number(&j, "total-clusters", k->total_clusters);
		json_number(&j, "allocated-clusters", k->allocated_clusters);
		number_if(&j, "fragmented-clusters", k->fragmented_clusters);
		number_if(&j, "compressed-clusters", k->compressed_clusters);
	}
	json_end(&j);
	return print_json(&j);
}

static double part(uint64_t n, uint64_t of)
{
	return of ? 100.0 * (double)n / (double)of : 0;
}

static void tell_text(const struct img_check *k)
{
	if (!k->corruptions && !k->leaks && !k->check_errors) {
		if (!c.quiet)
			printf("No errors were found on the image.\n");
	} else {
		if (k->corruptions)
			printf("\n%" PRIu64 " errors were found on the image.\n"
			       "Data may be corrupted, or further writes to the image "
			       "may corrupt it.\n",
			       k->corruptions);
		if (k->leaks)
			printf("\n%" PRIu64 " leaked clusters were found on the "
			       "image.\nThis means waste of disk space, but no harm to "
			       "data.\n",
			       k->leaks);
		if (k->check_errors)
			printf("\n%" PRIu64 " internal errors have occurred during the "
			       "check.\n",
			       k->check_errors);
	}
	if (c.quiet)
		return;
	if (k->total_clusters)
		printf("%" PRIu64 "/%" PRIu64 " = %.2f%% allocated, %.2f%% fragmented, "
		       "%.2f%% compressed clusters\n",
		       k->allocated_clusters, k->total_clusters,
		       part(k->allocated_clusters, k->total_clusters),
		       part(k->fragmented_clusters, k->allocated_clusters),
		       part(k->compressed_clusters, k->allocated_clusters));
	if (k->image_end_offset)
		printf("Image end offset: %" PRIu64 "\n", k->image_end_offset);
}

static int answer(const struct img_check *k)
{
	if (k->check_errors)
		return CLI_FAILED;
	if (k->corruptions)
		return status(CLI_NO, QEMU_CORRUPT);
	return k->leaks ? status(CLI_NO, QEMU_LEAKS) : CLI_DONE;
}

/* ---- the work ---- */

/* Repairs, and looks again: what the second look finds is what is left. */
static int repair(struct img *img, struct img_check *k, struct err *err)
{
	struct img_check again = {.say = say};
	int rc = img_check(img, k, err);

	if (rc)
		return rc;
	if (!k->corruptions_fixed && !k->leaks_fixed)
		return 0;
	if (!want_json(&c))
		printf("The following inconsistencies were found and repaired:\n\n"
		       "    %" PRIu64 " leaked clusters\n    %" PRIu64
		       " corruptions\n\nDouble checking the fixed image now...\n",
		       k->leaks_fixed, k->corruptions_fixed);
	rc = img_check(img, &again, err);
	again.corruptions_fixed = k->corruptions_fixed;
	again.leaks_fixed = k->leaks_fixed;
	*k = again;
	return rc;
}

/* An image that was not written to its end: there is nothing else to say. */
static int tell_unfinished(void)
{
	struct json j = {0};

	if (!want_json(&c)) {
		printf("ERROR '%s' is unfinished: what wrote to it was interrupted: "
		       "write it again\n",
		       c.args[0]);
		return status(CLI_NO, QEMU_CORRUPT);
	}
	json_object(&j, NULL);
	if (!as_qemu_img)
		json_number(&j, "version", 1);
	json_text(&j, "filename", c.args[0]);
	json_bool(&j, "unfinished", true);
	json_number(&j, "check-errors", 0);
	json_number(&j, "corruptions", 1);
	json_end(&j);
	return print_json(&j) ? CLI_FAILED : status(CLI_NO, QEMU_CORRUPT);
}

static int check(void)
{
	struct img_check k = {.fix = dry_run ? 0 : fix,
			      .say = c.quiet ? NULL : say,
			      .undo_path = undo};
	unsigned flags = OPEN_NO_BACKING | OPEN_REPAIR | (k.fix ? OPEN_WRITE : 0);
	struct err err = {0};
	struct img *img;
	int st, rc, closed;

	if (img_is_unfinished(c.args[0]))
		return tell_unfinished();
	st = image_open(&c, c.args[0], c.format, flags, NULL, &img);
	if (st)
		return st;
	rc = k.fix ? repair(img, &k, &err) : img_check(img, &k, &err);
	if (rc == -ENOTSUP) {
		fail(&err);
		st = status(CLI_FAILED, QEMU_NO_CHECK);
	} else if (rc) {
		st = fail(&err);
	} else {
		st = want_json(&c) ? tell_json(img, &k) : (tell_text(&k), 0);
		st = st ? st : answer(&k);
	}
	closed = image_close(img);
	return st ? st : closed;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"repair", 'r', POPT_ARG_STRING, NULL, OPT_REPAIR,
		 "repair leaks, or all", "WHAT"},
		{"source-cache", 'T', POPT_ARG_STRING, &c.src_cache, 0,
		 "accepted: the host's page cache is used", "MODE"},
		O_JSON(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, apply, &st))
		return st;
	if (fix && c.share)
		return usage("-r: an image that another program writes to is not "
			     "repaired");
	return check();
}

const struct command cmd_check = {
	.name = "check",
	.run = run,
	.usage = "[OPTION...] IMAGE",
	.summary = "Looks for damage in an image's tables: status 0 if it is clean, 3 "
		   "if not.",
	.examples = "  vm-img check disk.qcow2\n  vm-img check -r leaks disk.qcow2\n",
};

/* Puts back what a repair changed. */
static int undo_repair(void)
{
	struct img_file *f;
	struct err err = {0};
	int rc = file_open(c.args[0], &(struct img_file_opts){0}, &f, &err);

	if (rc)
		return fail(&err);
	rc = undo_apply(take_back, f, &err);
	file_close(f);
	return rc ? fail(&err) : CLI_DONE;
}

static int run_repair(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"dry-run", 'n', POPT_ARG_NONE, &dry_run, 0,
		 "only tell what would be repaired", NULL},
		{"what", 0, POPT_ARG_STRING, NULL, OPT_REPAIR,
		 "leaks, or all (default all)", "WHAT"},
		{"undo", 0, POPT_ARG_STRING, &undo, 0,
		 "new file that --take-back needs", "FILE"},
		{"take-back", 0, POPT_ARG_STRING, &take_back, 0,
		 "undo a repair: nothing may have been written since", "FILE"},
		O_JSON(&c),
		O_QUIET(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	int st;

	fix = IMG_FIX_LEAKS | IMG_FIX_ERRORS;
	if (args_parse(cmd, table, argc, argv, &c, 1, 1, apply, &st))
		return st;
	if (take_back)
		return undo_repair();
	return check();
}

const struct command cmd_repair = {
	.name = "repair",
	.run = run_repair,
	.usage = "[OPTION...] IMAGE",
	.summary = "Repairs an image's tables: status 0 if nothing is left, 3 if "
		   "something is.",
	.examples = "  vm-img repair --dry-run disk.qcow2\n"
		    "  vm-img repair --undo before.undo disk.qcow2\n"
		    "  vm-img repair --take-back before.undo disk.qcow2\n",
};

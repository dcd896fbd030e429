/* vm-img/extract.c - `extract`: one partition of a disk as an image of its own. */
#include <stdio.h>
#include <string.h>

#include "vm-img.h"
#include "select.h"

static struct common c;
static char *out_name;
static int packed;

static int copy_part(struct img *in, uint64_t off, uint64_t len)
{
	struct img_source src = {.img = &in, .n = 1, .skip = off};
	struct img_work_list work;
	struct img_plan plan;
	struct img_create_opts o = {
		.format = c.target_format ? c.target_format : "raw",
		.size = len,
		.replace = true,
		.allow_external = c.allow_external,
		.options = c.options,
		.n_options = c.n_options,
	};
	struct cli_progress p;
	struct img_copy_opts co = {
		.sparse = 4096,
		.packed = packed,
		.clone = true,
		.progress = job_progress,
		.ctx = &p,
		.stop = &stop,
	};
	struct img_target *t = NULL;
	struct img *out = NULL;
	struct err err = {0};
	int rc = img_work_list(&src, false, &work, &err);

	if (rc)
		return fail(&err);
	img_work_cut(&work, off, len);
	plan = (struct img_plan){work.data, work.n_data, packed};
	rc = img_target_new(out_name, &o, &plan, &t, &out, &err);
	if (!rc) {
		co.zero_known = img_starts_zero(out);
		if (!co.zero_known)
			rc = img_work_fill(&work, len, &err);
	}
	if (!rc) {
		job_start(&c, &p);
		rc = img_copy(&src, out, &work, &co, &err);
		cli_progress_end(&p, !rc);
	}
	if (!rc)
		rc = img_target_commit(t, out, &err);
	else
		img_target_drop(t, out);
	img_work_free(&work);
	return rc ? fail(&err) : 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"target-format", 'O', POPT_ARG_STRING, &c.target_format, 0,
		 "format of the target (default raw)", "FMT"},
		{"to", 'o', POPT_ARG_STRING, &out_name, 0,
		 "the new image; '-' is standard output", "FILE"},
		{"compress", 'c', POPT_ARG_NONE, &packed, 0, "compress it", NULL},
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	uint64_t off = 0, len = 0;
	struct img *in;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 2, 2, NULL, &st))
		return st;
	if (!out_name)
		return usage("-o FILE is wanted: where the partition goes");
	st = image_open(&c, c.args[0], c.format, OPEN_COPY, NULL, &in);
	if (st)
		return st;
	st = select_find(in, c.args[1], &off, &len);
	if (!st)
		st = copy_part(in, off, len);
	img_close(in);
	return st;
}

const struct command cmd_extract = {
	.name = "extract",
	.run = run,
	.usage = "[OPTION...] IMAGE N -o FILE",
	.summary = "Copies partition N of a disk to an image of its own.",
	.examples = "  vm-img extract disk.vmdk 2 -o root.raw\n"
		    "  vm-img extract -O qcow2 -c disk.raw 1 -o esp.qcow2\n",
};

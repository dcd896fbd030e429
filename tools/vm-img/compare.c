/* vm-img/compare.c - `compare`: do two images hold the same? */
#include <inttypes.h>
#include <stdio.h>

#include "vm-img.h"

static struct common c;
static char *second_format;
static int strict;

static int tell(const struct img *a, const struct img *b, const struct img_compare *r)
{
	bool sizes = img_size(a) != img_size(b);
	struct json j = {0};

	if (want_json(&c)) {
		json_object(&j, NULL);
		json_number(&j, "version", 1);
		json_bool(&j, "identical", !r->differ && !(sizes && strict));
		json_bool(&j, "same-size", !sizes);
		if (r->differ) {
			json_number(&j, "offset", r->offset);
			json_text(&j, "what", r->allocation ? "allocation" : "content");
		}
		json_end(&j);
		if (print_json(&j))
			return status(1, 2);
	} else if (sizes && strict) {
		printf("Strict mode: Image size mismatch!\n");
	} else if (r->differ && !c.quiet) {
		if (sizes && r->offset >= img_size(img_size(a) < img_size(b) ? a : b))
			printf("Warning: Image size mismatch!\n");
		printf(r->allocation ? "Strict mode: Offset %" PRIu64
				       " allocation mismatch!\n"
				     : "Content mismatch at offset %" PRIu64 "!\n",
		       as_qemu_img ? r->offset - r->offset % 512 : r->offset);
	} else if (!c.quiet) {
		if (sizes)
			printf("Warning: Image size mismatch!\n");
		printf("Images are identical.\n");
	}
	return r->differ || (sizes && strict) ? status(CLI_NO, 1) : 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"second-format", 'F', POPT_ARG_STRING, &second_format, 0,
		 "the second image's format", "FMT"},
		{"strict", 's', POPT_ARG_NONE, &strict, 0,
		 "sizes and allocation have to be the same, too", NULL},
		{"source-cache", 'T', POPT_ARG_STRING, &c.src_cache, 0,
		 "accepted: the host's page cache is used", "MODE"},
		O_JSON(&c),
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img_compare_opts o = {.progress = job_progress, .stop = &stop};
	struct img_compare r = {0};
	struct img *a, *b = NULL;
	struct cli_progress p;
	struct err err = {0};
	int st, rc;

	if (args_parse(cmd, table, argc, argv, &c, 2, 2, NULL, &st))
		return st && c.n_args == 2 ? status(st, 2) : st;
	st = image_open(&c, c.args[0], c.format, 0, NULL, &a);
	if (!st)
		st = image_open(&c, c.args[1], second_format, 0, NULL, &b);
	if (!st) {
		o.strict = strict;
		o.ctx = &p;
		job_start(&c, &p);
		rc = img_compare(a, b, &o, &r, &err);
		cli_progress_end(&p, !rc);
		st = rc ? (fail(&err), status(1, 3)) : tell(a, b, &r);
	} else {
		st = status(st, 2);
	}
	img_close(a);
	img_close(b);
	return st;
}

const struct command cmd_compare = {
	.name = "compare",
	.run = run,
	.usage = "[OPTION...] IMAGE IMAGE",
	.summary = "Tells if two images hold the same: status 0 if so, 3 if not.",
	.examples = "  vm-img compare disk.qcow2 disk.vmdk && rm disk.vmdk\n",
};

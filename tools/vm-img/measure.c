/* vm-img/measure.c - `measure`: how large will an image be? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vm-img.h"

enum { OPT_SIZE = OPT_FIRST };

static struct common c;
static char *snapshot, *size_text;

static int tell(const struct img_measure *m)
{
	struct json j = {0};

	if (want_json(&c)) {
		json_object(&j, NULL);
		if (!as_qemu_img)
			json_number(&j, "version", 1);
		json_number(&j, "required", m->required);
		json_number(&j, "fully-allocated", m->fully_allocated);
		if (m->has_bitmaps)
			json_number(&j, "bitmaps", m->bitmaps);
		json_end(&j);
		return print_json(&j);
	}
	printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
	       m->required, m->fully_allocated);
	if (m->has_bitmaps)
		printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
	return 0;
}

/* Persistent bitmaps are copied by nobody: they need no space. */
static bool counts_bitmaps(struct img *img, const char *format)
{
	struct img_info i;

	if (!img || strcmp(format, "qcow2") || strcmp(img_format_name(img), "qcow2"))
		return false;
	for (unsigned k = 0; k < c.n_options; k++)
		if (!strcmp(c.options[k].name, "compat") &&
		    (!strcmp(c.options[k].value, "0.10") ||
		     !strcmp(c.options[k].value, "v2")))
			return false;
	img_info(img, &i);
	return !i.has_bitmaps;
}

static int measure(const struct img_work_list *w, struct img *img, uint64_t size)
{
	struct img_create_opts o = {
		.format = c.target_format ? c.target_format : "raw",
		.size = size,
		.options = c.options,
		.n_options = c.n_options,
	};
	struct img_plan plan = {w->data, w->n_data, false};
	struct img_measure m;
	struct err err;

	if (img_measure(&o, &plan, &m, &err) < 0)
		return fail(&err);
	m.has_bitmaps |= counts_bitmaps(img, o.format);
	return tell(&m);
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"target-format", 'O', POPT_ARG_STRING, &c.target_format, 0,
		 "format of the target (default raw)", "FMT"},
		O_OPTIONS,
		{"size", 0, POPT_ARG_STRING, &size_text, 0,
		 "of an empty disk of that size, not of an image", "SIZE"},
		{"snapshot", 'l', POPT_ARG_STRING, &snapshot, 0,
		 "of this internal snapshot", "SNAPSHOT"},
		O_JSON(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img_work_list w = {0};
	struct img *img = NULL;
	uint64_t size = 0;
	struct err err;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 0, 1, NULL, &st))
		return st;
	if (c.options_help)
		return print_options(c.target_format ? c.target_format : "raw");
	if (!size_text == !c.n_args)
		return usage("either an image or --size is wanted");
	if (size_text)
		st = parse_size("--size", size_text, &size);
	else
		st = image_open(&c, c.args[0], c.format, 0, snapshot, &img);
	if (!st && img) {
		struct img_source src = {.img = &img, .n = 1};

		size = img_size(img);
		if (img_work_list(&src, false, &w, &err) < 0)
			st = fail(&err);
	}
	if (!st)
		st = measure(&w, img, size);
	img_work_free(&w);
	img_close(img);
	return st;
}

const struct command cmd_measure = {
	.name = "measure",
	.run = run,
	.usage = "[OPTION...] IMAGE | --size SIZE",
	.summary = "Tells how large a file an image will need once it is converted.",
	.examples = "  vm-img measure -O qcow2 disk.vmdk\n",
};

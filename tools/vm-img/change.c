/* vm-img/change.c - small changes of an image: `resize`, `amend`, `snapshot`, `bitmap`. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/size.h"
#include "grow.h"
#include "vm-img.h"

static struct common c;

/* Ends a command: closes the image; the first failure counts. */
static int done(struct img *img, int rc, const struct err *err)
{
	int st = rc ? fail(err) : 0, closed = image_close(img);

	return st ? st : closed;
}

/* ---- resize ---- */

static char *prealloc_text;
static char *undo_path, *take_back;
static int shrink, grow;

static int parse_prealloc(enum img_prealloc *p)
{
	static const char *const names[] = {"off", "metadata", "falloc", "full"};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (!prealloc_text || !strcmp(prealloc_text, names[i])) {
			*p = (enum img_prealloc)i;
			return 0;
		}
	}
	return usage("--preallocation %s: off, metadata, falloc or full is wanted",
		     prealloc_text);
}

/* "10G", "+1G", "-1G" */
static int new_size(const char *text, uint64_t old, uint64_t *size)
{
	char sign = *text == '+' || *text == '-' ? *text : 0;
	int st = parse_size("size", text + !!sign, size);

	if (st || !sign)
		return st;
	if (sign == '-' && *size > old)
		return usage("the image has only %" PRIu64 " bytes", old);
	*size = sign == '+' ? old + *size : old - *size;
	return 0;
}

/* 0, an exit status, or -errno with *err. */
static int resize(struct img *img, const char *text, struct err *err)
{
	enum img_prealloc prealloc = IMG_PREALLOC_OFF;
	uint64_t size;
	int rc, st = parse_prealloc(&prealloc);

	if (!st)
		st = new_size(text, img_size(img), &size);
	if (st)
		return st;
	if (size < img_size(img) && !shrink)
		return err_set(err, EINVAL,
			       "'%s' would lose what lies behind %" PRIu64
			       " bytes: --shrink allows that",
			       img_path(img), size);
	rc = img_resize(img, align_up(size, 512), prealloc, err);
	if (!rc && !c.quiet)
		printf("Image resized.\n");
	return rc;
}

static int change_size(struct img *img, const char *text)
{
	struct err err = {0};
	int st = 0, closed;

	if (take_back)
		st = grow_take_back(img, take_back);
	else if (text)
		st = resize(img, text, &err);
	if (st < 0)
		st = fail(&err);
	if (!st && grow)
		st = grow_last(&c, img, undo_path);
	closed = image_close(img);
	return st ? st : closed;
}

static int run_resize(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"shrink", 0, POPT_ARG_NONE, &shrink, 0,
		 "what lies behind the new end may be lost", NULL},
		{"preallocation", 0, POPT_ARG_STRING, &prealloc_text, 0,
		 "of what is new: off, metadata, falloc, full", "MODE"},
		{"grow-last", 0, POPT_ARG_NONE, &grow, 0,
		 "the last partition and its file system grow, too", NULL},
		{"undo", 0, POPT_ARG_STRING, &undo_path, 0,
		 "of --grow-last: where what is overwritten is kept meanwhile "
		 "(default: IMAGE.undo)",
		 "FILE"},
		{"take-back", 0, POPT_ARG_STRING, &take_back, 0,
		 "put back what such a file holds, after --grow-last did not end",
		 "FILE"},
		O_QUIET(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	const char *size = argc > 1 ? argv[argc - 1] : NULL;
	bool negative = size && size[0] == '-' && size[1] >= '0' && size[1] <= '9';
	struct img *img;
	int st;

	/* "-1G" is no option. */
	if (args_parse(cmd, table, argc - negative, argv, &c, 1, 2 - negative, NULL,
		       &st))
		return st;
	if (!negative)
		size = c.n_args > 1 ? c.args[1] : NULL;
	if (!size && !grow && !take_back)
		return usage("an argument is missing");
	if (grow && (shrink || negative))
		return usage("--grow-last does not go with a smaller size");
	if (take_back && (grow || size))
		return usage("--take-back goes with an image alone");
	st = image_open(&c, c.args[0], c.format, OPEN_WRITE, NULL, &img);
	return st ? st : change_size(img, size);
}

const struct command cmd_resize = {
	.name = "resize",
	.run = run_resize,
	.usage = "[OPTION...] IMAGE [+|-]SIZE",
	.summary = "Makes an image's disk larger or smaller, and its last partition "
		   "larger.\n"
		   "--grow-last works without SIZE, too: then it takes what is free.",
	.examples = "  vm-img resize disk.qcow2 +10G\n"
		    "  vm-img resize --grow-last disk.vmdk 40G\n"
		    "  vm-img resize --shrink disk.qcow2 20G\n",
};

/* ---- amend ---- */

/* The size is for resize(): takes it out of the settings. 0 or -errno. */
static int amend_size(struct img *img, struct err *err)
{
	uint64_t size = 0;
	unsigned n = 0;
	bool given = false;

	for (unsigned i = 0; i < c.n_options; i++) {
		if (strcmp(c.options[i].name, "size")) {
			c.options[n++] = c.options[i];
			continue;
		}
		if (size_parse(c.options[i].value, &size, err) < 0)
			return err_prefix(err, "setting 'size'");
		given = true;
	}
	c.n_options = n;
	if (!given)
		return 0;
	size = align_up(size, 512);
	if (size < img_size(img))
		return err_set(err, EINVAL,
			       "'%s' would lose what lies behind %" PRIu64
			       " bytes: 'vm-img resize --shrink' allows that",
			       img_path(img), size);
	return img_resize(img, size, IMG_PREALLOC_OFF, err);
}

static int run_amend(const struct command *cmd, int argc, const char **argv)
{
	static int force;
	const struct poptOption table[] = {
		O_FORMAT(&c),
		O_OPTIONS,
		{"force", 0, POPT_ARG_NONE, &force, 0,
		 "accepted: nothing dangerous is offered", NULL},
		O_CACHE(&c),
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct err err = {0};
	struct img *img;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, NULL, &st))
		return st;
	if (c.options_help)
		return print_options(c.format ? c.format : "qcow2");
	if (!c.n_options)
		return usage("-o is wanted: what is to be changed?");
	st = image_open(&c, c.args[0], c.format, OPEN_WRITE, NULL, &img);
	if (st)
		return st;
	st = fill_secrets(&c, c.options, c.n_options);
	if (st) {
		image_close(img);
		return st;
	}
	st = amend_size(img, &err);
	if (!st && c.n_options)
		st = img_amend(img, c.options, c.n_options, &err);
	return done(img, st, &err);
}

const struct command cmd_amend = {
	.name = "amend",
	.run = run_amend,
	.usage = "-o NAME=VALUE,... IMAGE",
	.summary = "Changes an image's settings.",
	.examples = "  vm-img amend -o compat=1.1,lazy_refcounts=on disk.qcow2\n",
};

/* ---- snapshot ---- */

enum { SNAP_NONE, SNAP_LIST = OPT_FIRST, SNAP_APPLY, SNAP_CREATE, SNAP_DELETE };

static int action = SNAP_NONE;
static char *snapshot_name;

static int take_action(int opt, char *v)
{
	if (action != SNAP_NONE)
		return usage("only one of -l, -a, -c and -d can be given");
	action = opt;
	snapshot_name = v;
	return 0;
}

static int list(struct img *img, struct err *err)
{
	struct img_snapshot *v;
	struct json j = {0};
	size_t n;
	int rc = img_snapshots(img, &v, &n, err), st = 0;

	if (rc == -ENOTSUP && as_qemu_img) {
		img_close(img);
		return 0;
	}
	if (rc)
		return done(img, rc, err);
	if (!want_json(&c)) {
		if (n || !as_qemu_img) {
			printf("Snapshot list:\n");
			print_snapshots(v, n);
		}
	} else {
		json_object(&j, NULL);
		json_number(&j, "version", 1);
		json_list(&j, "snapshots");
		for (size_t i = 0; i < n; i++) {
			json_object(&j, NULL);
			json_text(&j, "id", v[i].id);
			json_text(&j, "name", v[i].name);
			json_number(&j, "vm-state-size", v[i].vm_state_size);
			json_number(&j, "date-sec", v[i].date_sec);
			json_number(&j, "date-nsec", v[i].date_nsec);
			json_number(&j, "vm-clock-nsec", v[i].vm_clock_nsec);
			json_number(&j, "disk-size", v[i].disk_size);
			json_end(&j);
		}
		json_end(&j);
		json_end(&j);
		st = print_json(&j);
	}
	img_snapshots_free(v, n);
	img_close(img);
	return st;
}

static int run_snapshot(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"list", 'l', POPT_ARG_NONE, NULL, SNAP_LIST, "list them (default)",
		 NULL},
		{"create", 'c', POPT_ARG_STRING, NULL, SNAP_CREATE, "make one", "NAME"},
		{"apply", 'a', POPT_ARG_STRING, NULL, SNAP_APPLY,
		 "go back to one: what is in the image now is lost", "SNAPSHOT"},
		{"delete", 'd', POPT_ARG_STRING, NULL, SNAP_DELETE, "delete one",
		 "SNAPSHOT"},
		O_JSON(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct err err = {0};
	struct img *img;
	int st, rc = 0;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, take_action, &st))
		return st;
	if (action == SNAP_NONE)
		action = SNAP_LIST;
	st = image_open(&c, c.args[0], c.format,
			action == SNAP_LIST ? OPEN_NO_BACKING : OPEN_WRITE, NULL, &img);
	if (st)
		return st;
	switch (action) {
	case SNAP_LIST: return list(img, &err);
	case SNAP_CREATE: rc = img_snapshot_create(img, snapshot_name, &err); break;
	case SNAP_APPLY: rc = img_snapshot_apply(img, snapshot_name, &err); break;
	case SNAP_DELETE: rc = img_snapshot_delete(img, snapshot_name, &err); break;
	}
	return done(img, rc, &err);
}

const struct command cmd_snapshot = {
	.name = "snapshot",
	.run = run_snapshot,
	.usage = "[OPTION...] IMAGE",
	.summary = "Lists, makes, applies and deletes snapshots inside an image.",
	.examples = "  vm-img snapshot -c before-upgrade disk.qcow2\n"
		    "  vm-img snapshot -l disk.qcow2\n"
		    "  vm-img snapshot -a before-upgrade disk.qcow2\n",
};

/* ---- bitmap ---- */

enum { BITMAP_FIRST = OPT_FIRST, GRANULARITY = OPT_FIRST + 16 };

static struct {
	enum img_bitmap_action what;
	char *source;
} actions[16];
static unsigned n_actions;
static uint64_t granularity;

static int add_action(int opt, char *v)
{
	if (opt == GRANULARITY)
		return parse_size("-g", v, &granularity);
	if (n_actions == ARRAY_LEN(actions))
		return usage("more than %u actions", n_actions);
	actions[n_actions].what = (enum img_bitmap_action)(opt - BITMAP_FIRST);
	actions[n_actions++].source = v;
	return 0;
}

static int run_actions(struct img *img, struct img *from, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < n_actions && !rc; i++)
		rc = img_bitmap(img, actions[i].what, c.args[1], granularity,
				from ? from : img, actions[i].source, err);
	return rc;
}

static int run_bitmap(const struct command *cmd, int argc, const char **argv)
{
	static char *source_file, *source_format;
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"add", 0, POPT_ARG_NONE, NULL, BITMAP_FIRST + IMG_BITMAP_ADD,
		 "make it", NULL},
		{"remove", 0, POPT_ARG_NONE, NULL, BITMAP_FIRST + IMG_BITMAP_REMOVE,
		 "remove it", NULL},
		{"clear", 0, POPT_ARG_NONE, NULL, BITMAP_FIRST + IMG_BITMAP_CLEAR,
		 "nothing is dirty any more", NULL},
		{"enable", 0, POPT_ARG_NONE, NULL, BITMAP_FIRST + IMG_BITMAP_ENABLE,
		 "record writes", NULL},
		{"disable", 0, POPT_ARG_NONE, NULL, BITMAP_FIRST + IMG_BITMAP_DISABLE,
		 "do not", NULL},
		{"merge", 0, POPT_ARG_STRING, NULL, BITMAP_FIRST + IMG_BITMAP_MERGE,
		 "add what is dirty in another one", "BITMAP"},
		{"granularity", 'g', POPT_ARG_STRING, NULL, GRANULARITY,
		 "bytes per bit, of --add", "SIZE"},
		{"source-file", 'b', POPT_ARG_STRING, &source_file, 0,
		 "the image with the bitmap of --merge", "IMAGE"},
		{"source-format", 'F', POPT_ARG_STRING, &source_format, 0, "its format",
		 "FMT"},
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img *img, *from = NULL;
	struct err err = {0};
	bool merges = false;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 2, 2, add_action, &st))
		return st;
	for (unsigned i = 0; i < n_actions; i++)
		merges |= actions[i].what == IMG_BITMAP_MERGE;
	if (source_format && !source_file)
		return usage("-F goes with -b");
	if (source_file && !merges)
		return usage("-b goes with --merge");
	if (!n_actions)
		return usage("one of --add, --remove, --clear, --enable, --disable, "
			     "--merge is wanted");
	st = image_open(&c, c.args[0], c.format, OPEN_WRITE, NULL, &img);
	if (st)
		return st;
	if (source_file)
		st = image_open(&c, source_file, source_format, OPEN_NO_BACKING, NULL,
				&from);
	if (st) {
		img_close(img);
		return st;
	}
	st = done(img, run_actions(img, from, &err), &err);
	img_close(from);
	return st;
}

const struct command cmd_bitmap = {
	.name = "bitmap",
	.run = run_bitmap,
	.usage = "ACTION... IMAGE BITMAP",
	.summary = "Changes persistent dirty bitmaps, which incremental backups use.",
	.examples = "  vm-img bitmap --add -g 64k disk.qcow2 backup\n",
};

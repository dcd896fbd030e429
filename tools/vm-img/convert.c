/* vm-img/convert.c - `convert`: copies images of any format to a new one of any format. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/size.h"
#include "vm-img.h"
#include "select.h"

enum {
	OPT_SPARSE = OPT_FIRST,
	OPT_THREADS,
	OPT_RATE,
	OPT_SNAPSHOT,
	OPT_SOURCE_CACHE,
};

static struct common c;
static char *backing, *backing_format, *snapshot;
static char *partitions;
static int used_only;
static int packed, existing, out_of_order, offload, target_zero, salvage, bitmaps,
	skip_broken, target_opts;
static uint64_t sparse = 4096, rate;
static bool sparse_given;
static unsigned threads;
static struct select chosen;

static int apply(int opt, char *v)
{
	uint64_t n;
	int rc;

	switch (opt) {
	case OPT_SPARSE:
		sparse_given = true;
		rc = parse_size("-S", v, &sparse);
		if (!rc && (sparse % 512 || sparse > 1 << 30))
			return usage("-S %s: a multiple of 512 is wanted", v);
		return rc;
	case OPT_THREADS:
		rc = parse_size("-m", v, &n);
		if (!rc && (n < 1 || n > 64))
			return usage("-m %s: 1 to 64 is wanted", v);
		if (!rc && as_qemu_img && n > 16)
			return usage("-m %s: 1 to 16 is wanted", v);
		/* qemu-img's coroutines are no threads */
		threads = as_qemu_img ? 0 : (unsigned)n;
		return rc;
	case OPT_RATE: return parse_size("-r", v, &rate);
	case OPT_SNAPSHOT: snapshot = v; return 0;
	}
	return 0;
}

/* ---- sources and target ---- */

struct job {
	struct img *in[MAX_ARGS];
	struct img_source src;
	struct img_work_list work;
	struct img_plan plan;
	struct img_target *target;
	struct img *out;
	struct img_create_opts create;
	struct img_option options[MAX_OPTIONS];
	const char *out_name;
};

static int open_sources(struct job *b)
{
	for (unsigned i = 0; i + 1 < c.n_args; i++) {
		int st = image_open(&c, c.args[i], c.format, OPEN_COPY, snapshot,
				    &b->in[i]);

		if (st)
			return st;
		b->src.n++;
	}
	return 0;
}

static void set_option(struct job *b, const char *name, const char *value)
{
	for (unsigned i = 0; i < b->create.n_options; i++)
		if (!strcmp(b->options[i].name, name))
			return;
	if (b->create.n_options < MAX_OPTIONS)
		b->options[b->create.n_options++] = (struct img_option){name, value};
}

/* What the target will be. */
static int plan_target(struct job *b)
{
	const char *format = c.target_format ? c.target_format : "raw";
	struct img_format_info fi;
	struct err err;
	int st;

	if (img_format_find(format, &fi, &err) < 0)
		return fail(&err);
	b->create = (struct img_create_opts){
		.format = fi.name,
		.size = b->work.size,
		.backing_path = backing,
		.backing_format = backing_format,
		.replace = true,
		.no_sync = c.cache && !strcmp(c.cache, "unsafe"),
		.allow_external = c.allow_external ? c.allow_external
				  : as_qemu_img    ? "/"
						   : NULL,
		.options = b->options,
		.n_options = c.n_options,
	};
	memcpy(b->options, c.options, sizeof(c.options[0]) * c.n_options);
	st = find_secret(&c, &b->create.secret, &b->create.secret_len);
	if (!st)
		st = fill_secrets(&c, b->options, c.n_options);
	if (st)
		return st;
	/* Readers of zstd clusters: qcow2 version 3 with compression type 1. */
	if (packed && !as_qemu_img && !strcmp(fi.name, "qcow2")) {
		bool old = false;

		for (unsigned i = 0; i < c.n_options; i++)
			old |= !strcmp(c.options[i].name, "compat") &&
			       (!strcmp(c.options[i].value, "0.10") ||
				!strcmp(c.options[i].value, "v2"));
		if (!old)
			set_option(b, "compression_type", "zstd");
	}
	return 0;
}

/* Opens the target of -n, which is there already. */
static int open_existing(struct job *b)
{
	struct common t = c;
	int st;

	t.image_opts = target_opts;
	t.share = 0;
	st = image_open(&t, b->out_name, c.target_format, OPEN_WRITE | OPEN_OVERWRITE,
			NULL, &b->out);
	if (!st && backing && !img_backing(b->out) && !as_qemu_img) {
		struct err err;

		err_set(&err, EINVAL,
			"'%s' has no backing file: what '%s' holds would be missing",
			b->out_name, backing);
		st = fail(&err);
	}
	if (!st && img_size(b->out) < b->work.size) {
		struct err err;

		err_set(&err, ENOSPC,
			"'%s' has %" PRIu64 " bytes, fewer than the %" PRIu64
			" that are to be copied",
			b->out_name, img_size(b->out), b->work.size);
		st = fail(&err);
	}
	return st;
}

static int open_target(struct job *b)
{
	struct err err = {0};

	b->plan = (struct img_plan){b->work.data, b->work.n_data, packed};

	if (existing)
		return open_existing(b);
	if (img_target_new(b->out_name, &b->create, &b->plan, &b->target, &b->out,
			   &err) < 0)
		return fail(&err);
	return 0;
}

/* ---- the copy ---- */

/* What has to be written, with a target that reads as zeros where nothing is, or does not. */
static int plan_work(struct job *b, bool *zero_known)
{
	struct err err;
	bool top = backing != NULL;
	uint64_t size = b->work.size;

	*zero_known = !top;
	if (existing && top) {
		; /* what is not in the source's top stays as the target has it */
	} else if (existing && !target_zero) {
		*zero_known = false;
		if (img_work_fill(&b->work, size, &err) < 0)
			return fail(&err);
	} else if (!existing && !img_starts_zero(b->out)) {
		*zero_known = false;
		if (img_work_fill(&b->work, size, &err) < 0)
			return fail(&err);
	}
	return 0;
}

static int list_work(struct job *b)
{
	struct err err;

	b->src.img = b->in;
	if (img_work_list(&b->src, backing != NULL, &b->work, &err) < 0)
		return fail(&err);
	if (!sparse && !backing && b->work.size) {
		/* All of it is written. */
		struct img_range *all = calloc(1, sizeof(*all));

		if (!all)
			return CLI_FAILED;
		all->len = b->work.size;
		free(b->work.data);
		b->work.data = all;
		b->work.n_data = b->work.data_size = 1;
		b->work.data_bytes = b->work.size;
		b->work.n_zero = 0;
	}
	return chosen.used_only || chosen.partitions
		       ? select_apply(&chosen, b->in[0], &b->work)
		       : 0;
}

static int copy(struct job *b)
{
	struct cli_progress p;
	uint64_t bad = 0;
	struct img_copy_opts o = {
		.threads = threads,
		.sparse = (uint32_t)sparse,
		.packed = packed,
		.clone = true,
		.offload = offload,
		.salvage = salvage,
		.rate = rate,
		.progress = job_progress,
		.ctx = &p,
		.stop = &stop,
		.bad = &bad,
	};
	struct err err = {0};
	int rc, st = plan_work(b, &o.zero_known);

	/* Blocks that were asked for stay. */
	for (unsigned i = 0; i < c.n_options; i++)
		o.clone &= strcmp(c.options[i].name, "preallocation") != 0;

	if (st)
		return st;
	if (existing && img_overwrite_begin(b->out, &err) < 0)
		return fail(&err);
	job_start(&c, &p);
	rc = img_copy(&b->src, b->out, &b->work, &o, &err);
	cli_progress_end(&p, !rc);
	if (bad)
		fprintf(stderr,
			"%s: warning: %" PRIu64
			" bytes could not be read and are zeros\n",
			page.name, bad);
	return rc ? fail(&err) : 0;
}

static void say_skipped(void *ctx, const char *name)
{
	(void)ctx;
	fprintf(stderr,
		"%s: warning: bitmap '%s' was not closed properly and is left out\n",
		page.name, name);
}

/* Can they be copied (out NULL), or copies them. */
static int copy_bitmaps(struct job *b, struct img *out)
{
	struct img_bitmap_copy how = {skip_broken, out ? say_skipped : NULL, NULL};
	struct err err;

	return bitmaps && img_bitmaps_copy(out, b->in[0], &how, &err) ? fail(&err) : 0;
}

/* The same, before anything is copied: the target has to be able to have some. */
static int check_bitmaps(struct job *b)
{
	const char *compat = "";

	for (unsigned i = 0; i < c.n_options; i++)
		if (!strcmp(c.options[i].name, "compat"))
			compat = c.options[i].value;
	if (!bitmaps)
		return 0;
	if (!c.target_format || strcmp(c.target_format, "qcow2") ||
	    !strcmp(compat, "0.10") || !strcmp(compat, "v2") ||
	    !strcmp(b->out_name, "-"))
		return usage("--bitmaps: the target has no bitmaps: qcow2 files of "
			     "version 3 have");
	return copy_bitmaps(b, NULL);
}

static int finish(struct job *b)
{
	struct img *out = b->out;
	struct img_target *t = b->target;
	struct err err = {0};

	b->out = NULL;
	b->target = NULL;
	if (existing) {
		img_overwrite_done(out);
		return image_close(out);
	}
	return img_target_commit(t, out, &err) < 0 ? fail(&err) : 0;
}

static int convert(struct job *b)
{
	int st = open_sources(b);

	if (!st)
		st = check_bitmaps(b);
	if (!st)
		st = list_work(b);
	if (!st && !existing)
		st = plan_target(b);
	if (!st)
		st = open_target(b);
	if (!st)
		st = copy(b);
	if (!st)
		st = copy_bitmaps(b, b->out);
	if (!st)
		st = finish(b);
	if (b->target)
		img_target_drop(b->target, b->out);
	else
		img_close(b->out);
	for (unsigned i = 0; i < b->src.n; i++)
		img_close(b->in[i]);
	img_work_free(&b->work);
	if (!st && !c.quiet && chosen.report.p)
		fputs(chosen.report.p, strcmp(b->out_name, "-") ? stdout : stderr);
	select_fini(&chosen);
	return st;
}

static int check_options(void)
{
	for (unsigned i = 0; i < c.n_options && !backing; i++)
		if (!strcmp(c.options[i].name, "backing_file"))
			backing = (char *)c.options[i].value;
	if (existing && c.n_options && !c.image_opts)
		return usage("-n: the target is there already, -o makes no sense");
	if (!existing && (target_zero || target_opts))
		return usage("--target-is-zero and --target-image-opts go with -n");
	if (target_opts && c.target_format)
		return usage("--target-image-opts and -O exclude each other");
	if (target_zero && backing)
		return usage("--target-is-zero and -B exclude each other");
	if (offload && (packed || salvage || sparse_given))
		return usage("-C excludes -c, -S and --salvage");
	if (snapshot && c.n_args > 2)
		return usage("-l goes with one image");
	if (backing_format && !backing)
		return usage("-F goes with -B");
	if (skip_broken && !bitmaps)
		return usage("--skip-broken-bitmaps goes with --bitmaps");
	if (bitmaps && (c.n_args > 2 || snapshot || used_only || partitions))
		return usage("--bitmaps goes with one whole image");
	if (backing && c.n_args > 2)
		return usage("-B: only one image can be copied in front of a backing "
			     "file");
	chosen.used_only = used_only;
	chosen.partitions = partitions;
	if ((used_only || partitions) && (backing || c.n_args > 2 || !sparse))
		return usage(
			"--used-only and --partition go with one image, and without "
			"-B and -S 0");
	if (packed && sparse == 0)
		return usage("-c and -S 0 exclude each other");
	return 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	static struct job b;
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"target-format", 'O', POPT_ARG_STRING, &c.target_format, 0,
		 "format of the target (default raw)", "FMT"},
		O_OPTIONS,
		{"compress", 'c', POPT_ARG_NONE, &packed, 0,
		 "compress the target (qcow2: zstd, or -o compression_type=zlib)",
		 NULL},
		{"used-only", 0, POPT_ARG_NONE, &used_only, 0,
		 "drop what the file systems say is free", NULL},
		{"partition", 0, POPT_ARG_STRING, &partitions, 0,
		 "only these partitions; the others become zeros", "N,..."},
		{"backing", 'B', POPT_ARG_STRING, &backing, 0,
		 "put the target in front of this file, which holds the rest", "FILE"},
		{"backing-format", 'F', POPT_ARG_STRING, &backing_format, 0,
		 "the backing file's format", "FMT"},
		{"snapshot", 'l', POPT_ARG_STRING, NULL, OPT_SNAPSHOT,
		 "copy this internal snapshot", "SNAPSHOT"},
		{"no-create", 'n', POPT_ARG_NONE, &existing, 0,
		 "write into the target that is there", NULL},
		{"target-is-zero", 0, POPT_ARG_NONE, &target_zero, 0,
		 "with -n: the target holds nothing but zeros", NULL},
		{"sparse", 'S', POPT_ARG_STRING, NULL, OPT_SPARSE,
		 "as many zeros become a hole (default 4k; 0: none)", "SIZE"},
		{"threads", 'm', POPT_ARG_STRING, NULL, OPT_THREADS,
		 "threads (default: one per processor)", "N"},
		{"out-of-order", 'W', POPT_ARG_NONE, &out_of_order, 0,
		 "accepted: the order is chosen by the target's format", NULL},
		{"rate", 'r', POPT_ARG_STRING, NULL, OPT_RATE,
		 "at most so many bytes a second", "SIZE"},
		{"salvage", 0, POPT_ARG_NONE, &salvage, 0,
		 "what cannot be read becomes zeros", NULL},
		{"bitmaps", 0, POPT_ARG_NONE, &bitmaps, 0,
		 "copy persistent bitmaps, too", NULL},
		{"skip-broken-bitmaps", 0, POPT_ARG_NONE, &skip_broken, 0,
		 "and leave out those that were not closed properly", NULL},
		{"copy-offloading", 'C', POPT_ARG_NONE, &offload, 0,
		 "have the host copy where it can (blocks are shared anyway)", NULL},
		{"target-image-opts", 0, POPT_ARG_NONE, &target_opts, 0,
		 "with -n: the target is given as --image-opts has it", NULL},
		O_CACHE(&c),
		{"source-cache", 'T', POPT_ARG_STRING, &c.src_cache, 0,
		 "accepted: the host's page cache is used", "MODE"},
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 2, MAX_ARGS, apply, &st))
		return st;
	if (c.options_help)
		return print_options(c.target_format ? c.target_format : "raw");
	st = check_options();
	if (st)
		return st;
	if (as_qemu_img && !c.cache)
		c.cache = (char *)"unsafe";
	b.out_name = c.args[c.n_args - 1];
	return convert(&b);
}

const struct command cmd_convert = {
	.name = "convert",
	.run = run,
	.usage = "[OPTION...] IMAGE... TARGET",
	.summary = "Copies an image (or several, one behind the other) to a new one.\n"
		   "TARGET gets its name when it is whole and on the disk; '-' is "
		   "standard output.",
	.examples = "  vm-img convert -O qcow2 -c disk.vmdk disk.qcow2\n"
		    "  vm-img convert -O vdi -p disk.raw disk.vdi\n"
		    "  vm-img convert --used-only -O qcow2 /dev/sda laptop.qcow2\n"
		    "  vm-img convert -l before-upgrade disk.qcow2 old.raw\n",
};

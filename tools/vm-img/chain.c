/* vm-img/chain.c - changes of chains of images: `rebase`, `commit`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "img/chain.h"
#include "vm-img.h"

static struct common c;

static struct img_chain_opts chain_opts(struct cli_progress *p, const char *format)
{
	return (struct img_chain_opts){
		.format = format,
		.allow_external = c.allow_external ? c.allow_external
				  : as_qemu_img    ? "/"
						   : NULL,
		.no_sync = c.cache && !strcmp(c.cache, "unsafe"),
		.progress = job_progress,
		.ctx = p,
		.stop = &stop,
	};
}

static int run_rebase(const struct command *cmd, int argc, const char **argv)
{
	static char *backing, *backing_format;
	static int unsafe;
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"backing", 'b', POPT_ARG_STRING, &backing, 0,
		 "the new backing file; '' for none", "FILE"},
		{"backing-format", 'F', POPT_ARG_STRING, &backing_format, 0,
		 "its format", "FMT"},
		{"unsafe", 'u', POPT_ARG_NONE, &unsafe, 0,
		 "only write the name: the content must be the same", NULL},
		O_CACHE(&c),
		{"source-cache", 'T', POPT_ARG_STRING, &c.src_cache, 0,
		 "accepted: the host's page cache is used", "MODE"},
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct cli_progress p;
	struct img_chain_opts o;
	const char *name, *format;
	struct err err = {0};
	int st, rc;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, NULL, &st))
		return st;
	name = c.args[0];
	format = c.format;
	if (!backing)
		return usage("-b is wanted: the new backing file, or '' for none");
	if (*backing && !backing_format)
		return usage("-F is wanted: the format of '%s'", backing);
	st = image_opts(&c, &name, &format);
	if (st)
		return st;
	o = chain_opts(&p, format);
	job_start(&c, &p);
	rc = img_rebase(name, *backing ? backing : NULL, backing_format, unsafe, &o,
			&err);
	cli_progress_end(&p, !rc);
	return rc ? fail(&err) : 0;
}

const struct command cmd_rebase = {
	.name = "rebase",
	.run = run_rebase,
	.usage = "[OPTION...] -b FILE IMAGE",
	.summary = "Puts an image in front of another backing file.",
	.examples = "  vm-img rebase -b new-base.qcow2 -F qcow2 overlay.qcow2\n"
		    "  vm-img rebase -b '' overlay.qcow2\n",
};

static int run_commit(const struct command *cmd, int argc, const char **argv)
{
	static char *base, *rate;
	static int keep;
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"base", 'b', POPT_ARG_STRING, &base, 0,
		 "the image of the chain to write to (default: the backing file)",
		 "FILE"},
		{"keep", 'd', POPT_ARG_NONE, &keep, 0, "do not empty the image", NULL},
		{"rate", 'r', POPT_ARG_STRING, &rate, 0,
		 "accepted: the rate is not limited", "SIZE"},
		O_CACHE(&c),
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct cli_progress p;
	struct img_chain_opts o;
	const char *name, *format;
	struct err err = {0};
	int st, rc;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, NULL, &st))
		return st;
	name = c.args[0];
	format = c.format;
	st = image_opts(&c, &name, &format);
	if (st)
		return st;
	o = chain_opts(&p, format);
	job_start(&c, &p);
	rc = img_commit(name, base, keep, &o, &err);
	cli_progress_end(&p, !rc);
	if (rc)
		return fail(&err);
	if (!c.quiet)
		printf("Image committed.\n");
	return 0;
}

const struct command cmd_commit = {
	.name = "commit",
	.run = run_commit,
	.usage = "[OPTION...] IMAGE",
	.summary = "Writes what is in an image to its backing file.",
	.examples = "  vm-img commit overlay.qcow2\n",
};

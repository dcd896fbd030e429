/* vm-check/options.c - the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vm-check.h"

enum { OPT_HELP = 1, OPT_VERSION };

/* What the arguments may not be, or not together. Status or -1. */
static int check(const struct options *o, const char *arg)
{
	int modes = !!o->json + !!o->report + !!o->require + !!o->fix + !!o->explain;

	if (arg)
		return cli_usage_error(&page, "'%s' is not expected", arg);
	if (modes > 1)
		return cli_usage_error(&page,
				       "only one of --json, --report, --require, "
				       "--fix and --explain can be given");
	if (o->quiet && modes && !o->require)
		return cli_usage_error(&page,
				       "'--quiet' prints nothing: it goes alone, "
				       "with --require or --capture");
	if (o->require && !*o->require)
		return cli_usage_error(&page,
				       "'--require' wants a fact ('--explain list')");
	if (o->device && !*o->device)
		return cli_usage_error(&page, "'--device' wants a file");
	if (o->apply && !o->fix)
		return cli_usage_error(&page, "'--apply' goes with '--fix'");
	if (o->apply && o->root)
		return cli_usage_error(&page, "'--apply' mends this computer, not the "
					      "one that '--root' names");
	if (o->root && o->device)
		return cli_usage_error(&page, "'--device' is tried on this computer, "
					      "not in the tree that '--root' names");
	return -1;
}

int options_parse(struct options *o, int argc, const char **argv)
{
	/* clang-format off */
	const struct poptOption table[] = {
		{"json", 'j', POPT_ARG_NONE, &o->json, 0, "print everything as JSON", NULL},
		{"all", 'a', POPT_ARG_NONE, &o->all, 0, "a line also for each flaw that the processor does not have", NULL},
		{"quiet", 'q', POPT_ARG_NONE, &o->quiet, 0, "print nothing: the exit status is the answer", NULL},
		{"require", 'r', POPT_ARG_STRING, &o->require, 0, "status 0 only if all these facts are 'ok'", "FACT[,...]"},
		{"fix", 'f', POPT_ARG_NONE, &o->fix, 0, "print the commands that mend what can be mended here", NULL},
		{"apply", 0, POPT_ARG_NONE, &o->apply, 0, "with --fix, as root: run them, after asking", NULL},
		{"explain", 'e', POPT_ARG_STRING, &o->explain, 0, "tell what a fact or problem means ('list': all)", "TOPIC"},
		{"report", 0, POPT_ARG_NONE, &o->report, 0, "everything for a bug report; no serial numbers, no names", NULL},
		{"root", 0, POPT_ARG_STRING, &o->root, 0, "judge a captured tree instead of this computer", "DIR"},
		{"capture", 0, POPT_ARG_STRING, &o->capture, 0, "write what was read as such a tree", "DIR"},
		{"device", 0, POPT_ARG_STRING, &o->device, 0, "try this instead of /dev/kvm", "FILE"},
		{"version", 'V', POPT_ARG_NONE, NULL, OPT_VERSION, "print the version", NULL},
		{"help", 'h', POPT_ARG_NONE, NULL, OPT_HELP, "print this", NULL},
		POPT_TABLEEND,
	};
	/* clang-format on */
	poptContext ctx = poptGetContext(NULL, argc, argv, table, POPT_CONTEXT_NO_EXEC);
	int opt, status = -1;

	while (status < 0 && (opt = poptGetNextOpt(ctx)) >= 0) {
		if (opt == OPT_HELP)
			cli_help(&page, table);
		else
			printf("vm-check %s\n", VM_VERSION);
		status = cli_finish(&page, CLI_DONE);
	}
	if (status < 0 && opt < -1)
		status = cli_usage_error(&page, "%s: %s",
					 poptBadOption(ctx, POPT_BADOPTION_NOALIAS),
					 poptStrerror(opt));
	if (status < 0)
		status = check(o, poptGetArg(ctx));
	poptFreeContext(ctx);
	return status;
}

void options_free(struct options *o)
{
	char *const all[] = {o->require, o->explain, o->root, o->capture, o->device};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		free(all[i]);
}

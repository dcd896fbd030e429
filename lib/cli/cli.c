/* cli/cli.c - what the tools share at the command line. Main thread; the log: any thread. */
#include "cli/cli.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cli_start(void)
{
	setlocale(LC_CTYPE, "");
	setlocale(LC_MESSAGES, "");
}

static void help_option(const struct poptOption *o)
{
	char left[64];
	int n = snprintf(left, sizeof(left), "%s%.1s%s%s%s",
			 o->shortName ? "-" : "    ", &o->shortName,
			 o->shortName && o->longName ? ", " : "",
			 o->longName ? "--" : "", o->longName ? o->longName : "");

	if (o->argDescrip)
		snprintf(left + n, sizeof(left) - (size_t)n, " %s", o->argDescrip);
	printf("  %-30s %s\n", left, o->descrip ? o->descrip : "");
}

void cli_help(const struct cli_page *page, const struct poptOption *table)
{
	printf("Usage: %s %s\n%s\n\nOptions:\n", page->name, page->usage,
	       page->summary);
	for (const struct poptOption *o = table;
	     o->longName || o->shortName || o->descrip; o++) {
		if (!o->longName && !o->shortName)
			printf("%s\n", o->descrip); /* a heading */
		else
			help_option(o);
	}
	printf("\nExamples:\n%s\nSee also: man %.*s\n", page->examples,
	       (int)strcspn(page->name, " "), page->name); /* a tool has one page */
}

int cli_usage_error(const struct cli_page *page, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", page->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry '%s --help'.\n", page->name);
	return CLI_USAGE;
}

int cli_fail(const struct cli_page *page, const struct err *err)
{
	fprintf(stderr, "%s: %s\n", page->name, err->msg);
	return CLI_FAILED;
}

int cli_finish(const struct cli_page *page, int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "%s: cannot write to standard output: %s\n", page->name,
		strerror(errno));
	return status ? status : CLI_FAILED;
}

static void emit(void *ctx, enum log_level level, const char *msg)
{
	const struct cli_log *l = ctx;

	(void)level;
	fprintf(stderr, "%s: %s%s\n", l->name, msg, l->raw ? "\r" : "");
}

void cli_log_init(struct cli_log *l, const char *name, bool verbose)
{
	*l = (struct cli_log){
		.log = {emit, l, verbose ? LOG_DEBUG : LOG_INFO},
		.name = name,
	};
}

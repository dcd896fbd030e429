/*
 * cli/cli.h - what the tools share at the command line: options by popt, messages, statuses.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <popt.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"

/* Exit statuses (see the man pages). */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_NO = 3 };

struct cli_page {
	const char *name;     /* "vm-run" */
	const char *usage;    /* "[OPTION...] GUEST" */
	const char *summary;  /* one line */
	const char *examples; /* lines, each indented by two blanks */
};

/* Prints --help to stdout: usage, summary, the options of `table`, examples, the man page. */
void cli_help(const struct cli_page *page, const struct poptOption *table);

/* Prints two lines on stderr: the message, and where help is. Returns CLI_USAGE. */
int cli_usage_error(const struct cli_page *page, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* "vm-run: message" on stderr. Returns CLI_FAILED. */
int cli_fail(const struct cli_page *page, const struct err *err);

/* Flushes stdout; a full disk is not success. Returns `status`, or CLI_FAILED. */
int cli_finish(const struct cli_page *page, int status);

/* Sets up locale (LC_CTYPE, LC_MESSAGES only). First thing in main(). */
void cli_start(void);

/* A log that writes "vm-run: message" lines to stderr; in raw terminal mode with CR. */
struct cli_log {
	struct log log;
	const char *name;
	bool raw; /* the terminal does not turn LF into CR LF */
};

void cli_log_init(struct cli_log *l, const char *name, bool verbose);

#endif

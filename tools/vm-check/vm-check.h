/* vm-check/vm-check.h - between the files of the tool. Main thread. */
#ifndef VM_CHECK_H
#define VM_CHECK_H

#include "cli/cli.h"
#include "facts/collect.h"
#include "facts/facts.h"
#include "facts/guard.h"

extern const struct cli_page page;

struct options {
	int json, quiet, all, fix, apply, report;
	char *require, *explain, *root, *capture, *device; /* owned */
};

/* Status to end with, or -1: go on. */
int options_parse(struct options *o, int argc, const char **argv);
void options_free(struct options *o);

/* Tries guests on `device` (NULL: /dev/kvm) and adds "vm-check/proof". */
void proof_run(struct snap *s, const char *device);

/* The report for people, on stdout; `all`: a line for flaws that this processor does not have, too. */
void text_print(const struct facts *f, bool all);

/* A line with a sign, and what mends it (NULL: nothing); a sentence at the end. What is not printable is not printed. */
void text_item(enum fact_state state, const char *text, const char *fix);
void text_verdict(enum fact_state state, const char *text);
void text_plain(const char *text);

/* 0 or -errno. */
int json_print(const struct facts *f, struct err *err);

/* --report: text, JSON, snapshot, for a bug report. 0 or -errno. */
int report_print(const struct facts *f, struct err *err);

/* --fix, --apply. Returns an exit status. */
int fix_run(const struct facts *f, bool apply);

/* --explain: 0, or 2 with a message. */
int explain_print(const char *topic);

/* --require: an exit status; tells what is missing on stderr. */
int require_check(const struct facts *f, const char *list, bool quiet);

/* `status`, or CLI_FAILED with a message if not all that was printed could be written. */
static inline int finish(const struct cli_page *of, int status)
{
	return cli_finish(of, CLI_DONE) ? CLI_FAILED : status;
}

#endif

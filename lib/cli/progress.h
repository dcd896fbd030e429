/*
 * cli/progress.h - how far a long job is: a bar on the terminal, "N/100" lines for programs, a line on request. Calls
 * come one at a time, from any thread.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum cli_progress_kind {
	CLI_PROGRESS_NONE,
	CLI_PROGRESS_BAR,   /* on stderr: bar, rate, time left */
	CLI_PROGRESS_LINES, /* "N/100" lines to `fd` */
	CLI_PROGRESS_QEMU,  /* "    (N.NN/100%)" on stdout, as qemu-img -p does */
};

struct cli_progress {
	enum cli_progress_kind kind;
	int fd;
	const char *name;                     /* of the tool */
	const volatile sig_atomic_t *request; /* grows: print a line; may be NULL */
	/* private */
	uint64_t started_ns, last_ns, first_done;
	sig_atomic_t answered;
	int last_percent;
	bool shown;
};

/* Call when the job begins. */
void cli_progress_start(struct cli_progress *p);
void cli_progress_update(struct cli_progress *p, uint64_t done, uint64_t total);
/* Ends the bar's line. */
void cli_progress_end(struct cli_progress *p, bool success);

#endif

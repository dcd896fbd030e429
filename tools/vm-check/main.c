/* vm-check/main.c - what this computer can virtualize, proved. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "vm-check.h"

/* clang-format off */
const struct cli_page page = {
	.name = "vm-check",
	.usage = "[OPTION...]",
	.summary = "Tells what virtual machines this computer can run at full speed, proves it by running small\n"
		   "guests on KVM, and says for each problem how to mend it.",
	.examples =
		"  vm-check\n"
		"  vm-check --quiet && echo 'full speed'\n"
		"  vm-check --require kvm-access,full-speed,nested\n"
		"  sudo vm-check --fix --apply\n"
		"  vm-check --explain firmware-off\n",
};
/* clang-format on */

/* Files of /proc and /sys may hang (a FUSE file system, a driver); the proof has a deadline of its own. */
#define BUDGET_US 1950000

static void on_alarm(int sig)
{
	static const char msg[] = "vm-check: reading this computer's files takes more "
				  "than 2 s: could not tell\n";

	(void)sig;
	if (write(STDERR_FILENO, msg, sizeof(msg) - 1) < 0)
		_exit(VERDICT_UNKNOWN);
	_exit(VERDICT_UNKNOWN);
}

static void set_budget(long us)
{
	struct itimerval t = {.it_value = {us / 1000000, us % 1000000}};

	signal(SIGALRM, us ? on_alarm : SIG_DFL);
	setitimer(ITIMER_REAL, &t, NULL);
}

static int collect(const struct options *o, struct snap *s, struct err *err)
{
	int rc = 0;

	set_budget(BUDGET_US);
	if (o->root) {
		rc = collect_root(s, o->root, err);
	} else {
		collect_live(s);
		proof_run(s, o->device);
	}
	set_budget(0);
	if (!rc && o->capture)
		rc = snap_save(s, o->capture, err);
	return rc;
}

/* The status of a run that printed what it found. */
static int run(const struct options *o, const struct facts *f, struct err *err)
{
	int rc = 0;

	if (o->require)
		return require_check(f, o->require, o->quiet);
	if (o->fix)
		return fix_run(f, o->apply);
	if (o->report)
		rc = report_print(f, err);
	else if (o->json)
		rc = json_print(f, err);
	else if (!o->quiet)
		text_print(f, o->all);
	if (rc)
		return cli_fail(&page, err);
	if (f->verdict == VERDICT_UNKNOWN)
		fprintf(stderr, "vm-check: could not tell: %s\n", f->because);
	return (int)f->verdict;
}

int main(int argc, const char **argv)
{
	struct options o = {0};
	struct snap snap = {0};
	struct err err = {0};
	struct facts *f = NULL;
	int status;

	cli_start();
	status = options_parse(&o, argc, argv);
	if (status < 0 && o.explain)
		status = cli_finish(&page, explain_print(o.explain));
	if (status < 0) {
		f = calloc(1, sizeof(*f));
		if (!f)
			err_set(&err, ENOMEM, "no memory");
		if (!f || collect(&o, &snap, &err) < 0) {
			status = cli_fail(&page, &err);
		} else {
			facts_judge(f, &snap);
			status = cli_finish(&page, run(&o, f, &err));
		}
	}
	free(f);
	snap_fini(&snap);
	options_free(&o);
	return status;
}

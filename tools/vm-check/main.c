/* vm-check/main.c - what this computer can virtualize, proved. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
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
		"  vm-check --explain firmware-off\n"
		"  sudo vm-check disk /dev/sda\n"
		"  vm-check guest laptop.qcow2\n",
};
/* clang-format on */

/* Files of /proc and /sys may hang (a FUSE file system, a driver); the proof has a deadline of its own, below this. */
#define BUDGET_MS 1850

/* Files are read in one child process while the proof runs in another. */
static int collect(const struct options *o, struct snap *s, struct err *err)
{
	struct guard g;
	int rc = guard_start(&g, o->root, err);

	if (rc)
		return rc;
	if (!o->root)
		proof_run(s, o->device);
	rc = guard_finish(&g, s, BUDGET_MS, err);
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
	if (argc > 1 && (!strcmp(argv[1], "disk") || !strcmp(argv[1], "guest")))
		return guest_run(argc, argv);
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
			status = finish(&page, run(&o, f, &err));
		}
	}
	free(f);
	snap_fini(&snap);
	options_free(&o);
	return status;
}

/* facts/verdict.c - one answer: does this computer run virtual machines at full speed, and why (not)? Any thread. */
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

/* Problems that commands on this computer, or its user's rights, can mend. */
static bool mendable_here(const char *id)
{
	static const char *const ids[] = {"no-module", "container",   "no-device",
					  "busy",      "interpreted", "no-permission",
					  "xen-dom0",  "clearcpuid",  "32-bit-kernel",
					  "unfit",     "broken",      "hyperv-root"};

	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		if (!strcmp(ids[i], id))
			return true;
	return false;
}

static const struct problem *first_stop(const struct facts *f)
{
	for (unsigned i = 0; i < f->n_problems; i++)
		if (f->problems[i].severity == SEV_STOP)
			return &f->problems[i];
	return NULL;
}

/* Is this the problem that decides, whatever else there is? */
static const struct problem *find(const struct facts *f, const char *id)
{
	for (unsigned i = 0; i < f->n_problems; i++)
		if (!strcmp(f->problems[i].id, id))
			return &f->problems[i];
	return NULL;
}

static void set(struct facts *f, enum verdict v, const char *answer,
		const char *because)
{
	f->verdict = v;
	snprintf(f->answer, sizeof(f->answer), "%s", answer);
	snprintf(f->because, sizeof(f->because), "%s", because);
}

static void advise(struct facts *f)
{
	bool can = f->kernel64 || !f->machine[0];
	const char *text =
		!strcmp(f->proof.verdict, "works") ? "vm-run takes KVM"
		: !can ? "vm-run does not run here: it is a program for x86-64"
		: !strcmp(f->proof.verdict, "slow")
			? "vm-run takes its built-in emulator: it is faster than this "
			  "KVM"
			: "vm-run takes its built-in emulator until that is mended";

	snprintf(f->advice, sizeof(f->advice), "%s", text);
}

static void judge_works(struct facts *f)
{
	char text[320];
	const struct problem *p = find(f, "no-nested-paging");

	if (p) {
		set(f, VERDICT_PROBLEMS, "only", p->text);
		return;
	}
	snprintf(text, sizeof(text),
		 "small guests in real, protected, PAE and 64-bit mode gave the right "
		 "answers, %.1f us an exit, ring 0 at %s",
		 f->proof.exit_ns[3] / 1000, "native speed");
	set(f, VERDICT_FULL, "yes", text);
}

void verdict_find(struct facts *f)
{
	const struct problem *stop = first_stop(f), *p;

	if (!strcmp(f->proof.verdict, "works")) {
		judge_works(f);
	} else if ((p = find(f, "no-answer"))) {
		set(f, VERDICT_UNKNOWN, "unknown", p->text);
	} else if ((p = find(f, "interpreted")) || (p = find(f, "broken")) ||
		   (p = find(f, "busy")) || (p = find(f, "unfit"))) {
		set(f, VERDICT_PROBLEMS, "no", p->text);
	} else if (stop) {
		set(f, mendable_here(stop->id) ? VERDICT_PROBLEMS : VERDICT_EMULATION,
		    "no", stop->text);
	} else if (!f->machine[0] && !snap_text(f->snap, "proc/cpuinfo")) {
		set(f, VERDICT_UNKNOWN, "unknown", "/proc/cpuinfo cannot be read");
	} else if (!f->proof.there && snap_find(f->snap, "dev/kvm")) {
		set(f, VERDICT_UNKNOWN, "unknown",
		    "no guest was tried, so nothing is proved");
	} else if (!f->virt_shown) {
		set(f, VERDICT_EMULATION, "no",
		    "no VT-x or AMD-V is to be seen, and /dev/kvm is not there");
	} else {
		set(f, VERDICT_UNKNOWN, "unknown",
		    f->proof.reason[0] ? f->proof.reason
				       : "what is wrong could not be told");
	}
	advise(f);
}

/* vm-check/fix.c - --fix, --explain, --require. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm-check.h"

static bool wants_fix(const struct problem *p)
{
	return p->severity != SEV_INFO && p->commands[0];
}

static void print_fixes(const struct facts *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->n_problems; i++) {
		const struct problem *p = &f->problems[i];

		if (p->severity == SEV_INFO)
			continue;
		n++;
		printf("# %s\n", p->text);
		if (p->commands[0]) {
			fputs(p->commands, stdout);
			continue;
		}
		printf("# no command on this computer mends that:\n");
		for (const char *l = p->fix; *l;) {
			size_t len = strcspn(l, "\n");

			printf("#   %.*s\n", (int)len, l);
			l += len + (l[len] != 0);
		}
	}
	if (!n)
		printf("# nothing to mend\n");
}

/* yes, y: true. At the end of input: no. */
static bool confirmed(void)
{
	char line[16];

	fprintf(stderr, "Run these? [y/N] ");
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static int run_commands(const char *commands)
{
	pid_t pid = fork();
	int st;

	if (pid == 0) {
		execl("/bin/sh", "sh", "-e", "-x", "-c", commands, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &st, 0) < 0)
		return CLI_FAILED;
	return WIFEXITED(st) && WEXITSTATUS(st) == 0 ? CLI_DONE : CLI_FAILED;
}

/* The status of the verdict, unless commands ran: done or failed. */
static int apply_fixes(const struct facts *f)
{
	int status = CLI_DONE;
	bool ran = false;

	for (unsigned i = 0; i < f->n_problems && !status; i++) {
		const struct problem *p = &f->problems[i];

		if (!wants_fix(p))
			continue;
		fprintf(stderr, "%s:\n%s", p->text, p->commands);
		if (!confirmed())
			continue;
		ran = true;
		status = run_commands(p->commands);
		if (status)
			fprintf(stderr,
				"vm-check: a command failed: '%s' is not mended\n",
				p->id);
	}
	return ran ? status : (int)f->verdict;
}

int fix_run(const struct facts *f, bool apply)
{
	bool any = false;

	for (unsigned i = 0; i < f->n_problems; i++)
		any |= wants_fix(&f->problems[i]);
	if (!apply || !any) {
		print_fixes(f);
		return (int)f->verdict;
	}
	if (geteuid() != 0) {
		fprintf(stderr, "vm-check: '--apply' needs root: sudo vm-check --fix "
				"--apply\n");
		return CLI_FAILED;
	}
	fflush(stdout);
	return apply_fixes(f);
}

static void explain_list(void)
{
	const struct fact *row;
	const char *id;

	printf("Facts:\n");
	for (unsigned i = 0; (row = fact_at(i)); i++)
		printf("  %-22s %s\n", row->id, row->title);
	printf("Problems:\n");
	for (unsigned i = 0; (id = problem_id(i)); i++)
		printf("  %s\n", id);
}

int explain_print(const char *topic)
{
	int i = fact_find(topic);
	const char *problem = problem_explain(topic);

	if (!strcmp(topic, "list")) {
		explain_list();
		return CLI_DONE;
	}
	if (i < 0 && !problem)
		return cli_usage_error(
			&page, "'--explain %s': no such topic ('--explain list')",
			topic);
	if (i >= 0)
		printf("%s\n", fact_at((unsigned)i)->explain);
	if (problem)
		printf("%s%s\n", i >= 0 ? "As a problem: " : "", problem);
	return CLI_DONE;
}

int require_check(const struct facts *f, const char *list, bool quiet)
{
	bool miss = false, unknown = false;
	char name[64];

	while (*list) {
		size_t n = strcspn(list, ",");
		int i;

		snprintf(name, sizeof(name), "%.*s", (int)(n < 63 ? n : 63), list);
		list += n + (list[n] != 0);
		i = fact_find(name);
		if (i < 0)
			return cli_usage_error(
				&page, "--require: no fact '%s' ('--explain list')",
				name);
		if (f->values[i].state == FACT_OK)
			continue;
		unknown |= f->values[i].state == FACT_UNKNOWN;
		miss |= f->values[i].state != FACT_UNKNOWN;
		if (!quiet)
			fprintf(stderr, "vm-check: %s: %s\n", name, f->values[i].text);
	}
	return miss ? CLI_NO : unknown ? CLI_FAILED : CLI_DONE;
}

/* vm-check/json.c - everything as JSON (vm-check(1) describes the keys), and the bug report. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/json.h"
#include "vm-check.h"

static void add_env(struct json *j, const char *key, const struct env *e)
{
	json_text(j, key, e ? e->id : "none");
}

static void add_proof(struct json *j, const struct proof *p)
{
	static const char *const modes[] = {"real", "protected", "pae", "long"};

	json_object(j, "proof");
	json_text(j, "result", p->there ? p->verdict : "not-tried");
	if (p->error[0])
		json_text(j, "error", p->error);
	json_text(j, "reason", p->reason);
	json_number(j, "api-version", p->api > 0 ? (uint64_t)p->api : 0);
	json_object(j, "modes");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		json_object(j, modes[i]);
		json_bool(j, "works", p->ok[i]);
		json_number(j, "exits", p->exits[i]);
		json_number(j, "exit-ns", (uint64_t)p->exit_ns[i]);
		json_end(j);
	}
	json_end(j);
	json_number(j, "guest-instructions-per-second",
		    (uint64_t)(p->guest_mips * 1e6));
	json_number(j, "native-instructions-per-second",
		    (uint64_t)(p->native_mips * 1e6));
	json_end(j);
}

static void add_lines(struct json *j, const char *key, const char *lines)
{
	char line[400];

	json_list(j, key);
	while (*lines) {
		size_t n = strcspn(lines, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)min_u64(n, 399), lines);
		json_text(j, NULL, line);
		lines += n + (lines[n] != 0);
	}
	json_end(j);
}

static void add_problem(struct json *j, const struct problem *p)
{
	static const char *const severities[] = {
		[SEV_INFO] = "info", [SEV_WARN] = "warning", [SEV_STOP] = "stop"};

	json_object(j, NULL);
	json_text(j, "id", p->id);
	json_text(j, "severity", severities[p->severity]);
	json_text(j, "text", p->text);
	json_text(j, "fix", p->fix);
	add_lines(j, "commands", p->commands);
	json_end(j);
}

static void build(struct json *j, const struct facts *f)
{
	char flag[32];
	size_t pos = 0;
	const struct fact *row;

	json_object(j, NULL);
	json_number(j, "version", 1);
	json_text(j, "full-speed", f->answer);
	json_number(j, "status", f->verdict);
	json_text(j, "because", f->because);
	json_text(j, "advice", f->advice);
	json_text(j, "machine", f->machine);
	add_env(j, "virtual-machine", f->vm);
	add_env(j, "container", f->container);
	add_env(j, "wsl", f->wsl);
	add_proof(j, &f->proof);
	json_list(j, "cpu-flags");
	while (cpu_next_flag(f, &pos, flag, sizeof(flag)))
		json_text(j, NULL, flag);
	json_end(j);
	json_list(j, "facts");
	for (unsigned i = 0; i < f->n_values && (row = fact_at(i)); i++) {
		json_object(j, NULL);
		json_text(j, "id", row->id);
		json_text(j, "group", row->group);
		json_text(j, "title", row->title);
		json_text(j, "state", fact_state_name(f->values[i].state));
		json_text(j, "text", f->values[i].text);
		json_end(j);
	}
	json_end(j);
	json_list(j, "problems");
	for (unsigned i = 0; i < f->n_problems; i++)
		add_problem(j, &f->problems[i]);
	json_end(j);
	json_end(j);
}

int json_print(const struct facts *f, struct err *err)
{
	struct json j = {0};
	int rc = 0;

	build(&j, f);
	if (j.s.failed)
		rc = err_set(err, ENOMEM, "no memory");
	else
		printf("%s%s", j.s.p,
		       j.s.len && j.s.p[j.s.len - 1] == '\n' ? "" : "\n");
	json_fini(&j);
	return rc;
}

int report_print(const struct facts *f, struct err *err)
{
	struct str t = {0};
	int rc = 0;

	snap_print(f->snap, &t);
	if (t.failed) {
		rc = err_set(err, ENOMEM, "no memory");
	} else {
		printf("vm-check %s\n\n", VM_VERSION);
		text_print(f, true);
		printf("\nWhat it was read from ('vm-check --root FILE' judges it "
		       "again):\n%s",
		       t.p ? t.p : "");
	}
	str_fini(&t);
	return rc;
}

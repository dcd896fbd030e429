/*
 * vm-run/stats.c - --stats: the profile of the guest, as a table for people or as JSON for programs.
 * Loop thread, or after pc_run().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/time.h"
#include "vm-run.h"

#define COLUMNS_MAX 8 /* processors; of more, only the sum */

struct stats {
	struct pc *pc;               /* borrowed */
	const struct pc_config *cfg; /* borrowed */
	const struct cli_log *log;   /* borrowed */
	bool json;
	int fd; /* of the JSON text: STDERR_FILENO, or owned */
	uint64_t start_ns;
};

int stats_open(struct stats **out, const struct options *o, const struct cli_log *log,
	       struct err *err)
{
	const char *form = o->stats_form;
	struct stats *s;

	*out = NULL;
	if (!o->stats)
		return 0;
	s = NEW(struct stats);
	if (!s)
		return err_set(err, ENOMEM, "no memory");
	s->log = log;
	s->fd = STDERR_FILENO;
	s->json = form != NULL;
	s->start_ns = time_mono_ns();
	if (form && form[4] == ':') {
		s->fd = open(form + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (s->fd < 0) {
			free(s);
			return err_sys(err, errno, "cannot write '%s'", form + 5);
		}
	}
	*out = s;
	return 0;
}

void stats_start(struct stats *s, struct pc *pc, const struct pc_config *cfg)
{
	if (!s)
		return;
	s->pc = pc;
	s->cfg = cfg;
}

void stats_close(struct stats *s)
{
	if (s && s->fd != STDERR_FILENO)
		close(s->fd);
	free(s);
}

/* ---- both forms ---- */

static void write_all(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		p += n;
		len -= (size_t)n;
	}
}

/* Adds a processor's figure to the machine's. */
static void add(struct figure *sum, const struct figure *f)
{
	if (f->unit != FIGURE_MAX_NS)
		sum->value += f->value;
	else if (sum->value < f->value)
		sum->value = f->value;
}

/*
 * The figures of all processors, then the machine's: FIGURES_MAX each, *n of them used. All of one moment, as
 * the processors may run on. NULL: no memory; the caller's.
 */
static struct figure *collect(const struct stats *s, unsigned *n)
{
	unsigned cpus = s->cfg->cpus;
	struct figure *f = mem_new(cpus + 1, sizeof(*f) * FIGURES_MAX);
	struct figure *sum;

	if (!f)
		return NULL;
	sum = f + (size_t)cpus * FIGURES_MAX;
	for (unsigned c = 0; c < cpus; c++) {
		struct figure *of = f + (size_t)c * FIGURES_MAX;

		*n = pc_figures(s->pc, c, of);
		if (!c)
			memcpy(sum, of, sizeof(*of) * *n);
		for (unsigned i = 0; c && i < *n; i++)
			add(&sum[i], &of[i]);
	}
	return f;
}

/* ---- for people ---- */

static void put_value(struct str *t, const struct figure *f)
{
	double v = (double)f->value;

	switch (f->unit) {
	case FIGURE_NS: str_addf(t, " %11.3f s ", v / 1e9); return;
	case FIGURE_MAX_NS: str_addf(t, " %11.3f ms", v / 1e6); return;
	case FIGURE_BYTES: str_addf(t, " %9.1f MiB ", v / (1 << 20)); return;
	case FIGURE_COUNT: str_addf(t, " %11" PRIu64 "   ", f->value); return;
	}
}

static void put_table(const struct stats *s, struct str *t)
{
	unsigned cpus = s->cfg->cpus, shown = cpus > COLUMNS_MAX ? 0 : cpus, n = 0;
	struct figure *f = collect(s, &n), *sum;

	if (!f)
		return;
	sum = f + (size_t)cpus * FIGURES_MAX;
	str_addf(t, "engine %s, %.3f s\n%-34s", s->cfg->engine->name,
		 (double)(time_mono_ns() - s->start_ns) / 1e9, "");
	for (unsigned c = 0; cpus > 1 && c < shown; c++)
		str_addf(t, "   processor %-3u", c);
	str_addf(t, "%s\n", cpus > 1 ? "           all" : "");
	for (unsigned i = 0; i < n; i++) {
		if (!sum[i].value)
			continue;
		str_addf(t, "%-34s", sum[i].text);
		for (unsigned c = 0; cpus > 1 && c < shown; c++)
			put_value(t, &f[(size_t)c * FIGURES_MAX + i]);
		put_value(t, &sum[i]);
		while (t->len && t->p[t->len - 1] == ' ')
			t->len--;
		str_addf(t, "\n");
	}
	free(f);
}

/* On a raw terminal each line needs a carriage return. */
static void print_table(const struct stats *s)
{
	struct str t = {0};
	const char *line, *end;

	put_table(s, &t);
	for (line = t.p; line && (end = strchr(line, '\n')); line = end + 1) {
		write_all(STDERR_FILENO, line, (size_t)(end - line));
		write_all(STDERR_FILENO, &"\r\n"[!s->log->raw], 1 + s->log->raw);
	}
	str_fini(&t);
}

/* ---- for programs ---- */

static const char *const unit_suffix[] = {[FIGURE_COUNT] = "",
					  [FIGURE_BYTES] = "",
					  [FIGURE_NS] = "-ns",
					  [FIGURE_MAX_NS] = "-ns"};

static void put_object(struct json *j, const char *key, const struct figure *f,
		       unsigned n)
{
	char name[80];

	json_object(j, key);
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%s", f[i].key, unit_suffix[f[i].unit]);
		json_number(j, name, f[i].value);
	}
	json_end(j);
}

static void print_json(const struct stats *s)
{
	unsigned cpus = s->cfg->cpus, n = 0;
	struct figure *f = collect(s, &n);
	struct json j = {0};

	if (!f)
		return;
	json_object(&j, NULL);
	json_number(&j, "version", 1);
	json_text(&j, "engine", s->cfg->engine->name);
	json_number(&j, "elapsed-ns", time_mono_ns() - s->start_ns);
	put_object(&j, "sum", f + (size_t)cpus * FIGURES_MAX, n);
	json_list(&j, "processors");
	for (unsigned c = 0; c < cpus; c++)
		put_object(&j, NULL, f + (size_t)c * FIGURES_MAX, n);
	json_end(&j);
	json_end(&j);
	if (!j.s.failed) {
		write_all(s->fd, j.s.p, j.s.len);
		write_all(s->fd, "\n", 1);
	}
	json_fini(&j);
	free(f);
}

void stats_print(void *ctx)
{
	const struct stats *s = ctx;

	if (s && s->pc)
		print_table(s);
}

void stats_end(struct stats *s)
{
	if (s && s->pc && s->json)
		print_json(s);
	else
		stats_print(s);
}

/* facts/judge.c - from a snapshot to facts, problems, verdict. Any thread. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

void fact_set(struct fact_value *v, enum fact_state state, const char *fmt, ...)
{
	va_list ap;

	v->state = state;
	va_start(ap, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
}

const struct fact *fact_at(unsigned i)
{
	static const struct fact *const tables[] = {
		facts_cpu, facts_lscpu, facts_kvm, facts_host, facts_flaws, facts_peers,
	};

	for (size_t t = 0; t < ARRAY_LEN(tables); t++)
		for (const struct fact *f = tables[t]; f->id; f++)
			if (i-- == 0)
				return f;
	return NULL;
}

int fact_find(const char *id)
{
	const struct fact *f;

	for (unsigned i = 0; (f = fact_at(i)); i++)
		if (!strcmp(f->id, id))
			return (int)i;
	return -1;
}

const char *fact_state_name(enum fact_state s)
{
	static const char *const names[] = {"info", "ok", "warning", "missing",
					    "unknown"};

	return (unsigned)s < ARRAY_LEN(names) ? names[s] : "unknown";
}

void facts_judge(struct facts *f, const struct snap *s)
{
	const struct fact *row;

	memset(f, 0, sizeof(*f));
	f->snap = s;
	facts_read_basis(f);
	for (unsigned i = 0; i < FACTS_MAX && (row = fact_at(i)); i++) {
		if (row->read)
			row->read(f, &f->values[i]);
		else
			row->read_arg(f, row->arg, &f->values[i]);
		f->n_values++;
	}
	problems_find(f);
	verdict_find(f);
}

/* vm-check/text.c - the report for people: a line a fact, problems, the verdict. */
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "vm-check.h"

#define TITLE_WIDTH 21
#define INDENT      (2 + 3 + TITLE_WIDTH)

struct page_style {
	bool colour, utf8;
	unsigned width; /* 0: lines are not wrapped */
};

static const struct {
	const char *utf8, *ascii, *colour;
} signs[] = {
	[FACT_INFO] = {"  ", "  ", ""},
	[FACT_OK] = {"\u2713 ", "ok", "\033[32m"},
	[FACT_WARN] = {"! ", "! ", "\033[33m"},
	[FACT_MISSING] = {"\u2717 ", "no", "\033[31m"},
	[FACT_UNKNOWN] = {"? ", "? ", "\033[33m"},
};

static struct page_style style_of_stdout(void)
{
	const char *term = getenv("TERM"), *plain = getenv("NO_COLOR");
	struct page_style s = {.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8")};
	struct winsize w;

	if (!isatty(STDOUT_FILENO))
		return s;
	s.colour = !(plain && *plain) && term && strcmp(term, "dumb");
	s.width = 80;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 50)
		s.width = (unsigned)min_u64(w.ws_col, 160);
	return s;
}

static const char *colour(const struct page_style *s, const char *code)
{
	return s->colour && *code ? code : "";
}

/* Bytes that are not printable ASCII come from files: not to the terminal. */
static void put_safe(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		putchar((unsigned char)p[i] < 32 || (unsigned char)p[i] > 126 ? '?'
									      : p[i]);
}

/* Prints `text`, wrapped at blanks; further lines begin at column `indent`. "\n" ends a line. */
static void put_wrapped(const struct page_style *s, const char *text, unsigned indent)
{
	size_t room = s->width > indent + 20 ? s->width - indent : (size_t)-1;

	while (*text) {
		size_t line = strcspn(text, "\n"), n = line;

		if (n > room) {
			n = room;
			while (n > room / 2 && text[n] != ' ')
				n--;
			if (text[n] != ' ')
				n = room;
		}
		put_safe(text, n);
		text += n;
		text += n == line ? *text == '\n' : strspn(text, " ");
		putchar('\n');
		if (*text)
			printf("%*s", (int)indent, "");
	}
}

static void print_fact(const struct page_style *s, const struct fact *row,
		       const struct fact_value *v)
{
	const char *sign = s->utf8 ? signs[v->state].utf8 : signs[v->state].ascii;
	const char *on = colour(s, signs[v->state].colour);

	printf("  %s%s%s %-*s", on, sign, *on ? "\033[0m" : "", TITLE_WIDTH,
	       row->title);
	put_wrapped(s, v->text, INDENT);
}

static void print_item(const struct page_style *s, enum fact_state state,
		       const char *text, const char *fix)
{
	const char *on = colour(s, signs[state].colour);

	printf("  %s%s%s ", on, s->utf8 ? signs[state].utf8 : signs[state].ascii,
	       *on ? "\033[0m" : "");
	put_wrapped(s, text, 5);
	if (!fix)
		return;
	printf("     %s ", s->utf8 ? "\u2192" : "=>");
	put_wrapped(s, fix, s->utf8 ? 7 : 8);
}

void text_item(enum fact_state state, const char *text, const char *fix)
{
	struct page_style s = style_of_stdout();

	print_item(&s, state, text, fix);
}

void text_plain(const char *text)
{
	for (const char *p = text; *p; p++) /* a name may be in any script */
		putchar((unsigned char)*p < 32 || *p == 127 ? '?' : *p);
}

void text_verdict(enum fact_state state, const char *text)
{
	struct page_style s = style_of_stdout();

	printf("\n%s%s", colour(&s, "\033[1m"), colour(&s, signs[state].colour));
	text_plain(text);
	printf("%s\n", colour(&s, "\033[0m"));
}

static void print_problem(const struct page_style *s, const struct problem *p)
{
	static const enum fact_state states[] = {[SEV_INFO] = FACT_INFO,
						 [SEV_WARN] = FACT_WARN,
						 [SEV_STOP] = FACT_MISSING};

	print_item(s, states[p->severity], p->text, p->fix);
}

static void print_verdict(const struct page_style *s, const struct facts *f)
{
	const char *on = colour(s, f->verdict == VERDICT_FULL        ? "\033[1;32m"
				   : f->verdict == VERDICT_EMULATION ? "\033[1;31m"
								     : "\033[1;33m");
	char line[700];

	snprintf(line, sizeof(line),
		 "This computer runs virtual machines at full speed: %s%s%s.",
		 f->answer,
		 !strcmp(f->answer, "only") ? " in part, because " : ", because ",
		 f->because);
	printf("\n%s", on);
	put_wrapped(s, line, 0);
	printf("%s", *on ? "\033[0m" : "");
	snprintf(line, sizeof(line), "%s.", f->advice);
	put_wrapped(s, line, 0);
}

/* The flaws that this processor does not have, in one line at their group's end. */
static void print_folded(const struct page_style *s, const struct facts *f,
			 const char *group, bool all)
{
	char line[400] = "";
	size_t at = 0;
	const struct fact *row;

	for (unsigned i = 0; !all && i < f->n_values && (row = fact_at(i)); i++)
		if (row->group == group && f->values[i].state == FACT_OK &&
		    !strcmp(f->values[i].text, "Not affected") && at < 350)
			at += (size_t)snprintf(line + at, sizeof(line) - at, "%s%s",
					       at ? ", " : "", row->title);
	if (!at)
		return;
	printf("  %s%s%s %-*s", colour(s, signs[FACT_OK].colour),
	       s->utf8 ? signs[FACT_OK].utf8 : signs[FACT_OK].ascii,
	       colour(s, "\033[0m"), TITLE_WIDTH, "not affected");
	put_wrapped(s, line, INDENT);
}

void text_print(const struct facts *f, bool all)
{
	struct page_style s = style_of_stdout();
	const char *group = "";
	const struct fact *row;

	for (unsigned i = 0; i < f->n_values && (row = fact_at(i)); i++) {
		if (!all && !strcmp(f->values[i].text, "Not affected") &&
		    f->values[i].state == FACT_OK)
			continue; /* in print_folded() */
		if (strcmp(group, row->group)) {
			if (*group)
				print_folded(&s, f, group, all);
			printf("%s%s%s%s\n", *group ? "\n" : "", colour(&s, "\033[1m"),
			       row->group, colour(&s, "\033[0m"));
			group = row->group;
		}
		print_fact(&s, row, &f->values[i]);
	}
	if (f->n_problems)
		printf("\n%s%s%s\n", colour(&s, "\033[1m"),
		       "Problems, and what mends them", colour(&s, "\033[0m"));
	for (unsigned i = 0; i < f->n_problems; i++)
		print_problem(&s, &f->problems[i]);
	print_verdict(&s, f);
}

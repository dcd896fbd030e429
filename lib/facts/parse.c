/* facts/parse.c - the forms of /proc, /sys and of captured texts. Any content is fine. Any thread. */
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

static const char *next_line(const char *p)
{
	p += strcspn(p, "\n");
	return *p ? p + 1 : p;
}

/* Copies n bytes, as far as there is room; control characters become '?'. */
static void copy_word(const char *p, size_t n, char *buf, size_t len)
{
	n = min_u64(n, len - 1);
	memcpy(buf, p, n);
	buf[n] = 0;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)buf[i] < 32 || (unsigned char)buf[i] == 127)
			buf[i] = '?';
}

/* Copies a line's rest without blanks at its ends. */
static void copy_value(const char *p, char *buf, size_t len)
{
	size_t n;

	p += strspn(p, " \t:=");
	n = strcspn(p, "\r\n");
	while (n && isspace((unsigned char)p[n - 1]))
		n--;
	copy_word(p, n, buf, len);
}

/* The rest of the line of this key, or NULL. */
static const char *find_key(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *p = text; p && *p; p = next_line(p))
		if (!strncmp(p, key, n) && strchr(" \t:=", p[n]) && p[n])
			return p + n;
	return NULL;
}

bool parse_key(const char *text, const char *key, char *buf, size_t len)
{
	const char *p = text ? find_key(text, key) : NULL;

	buf[0] = 0;
	if (!p)
		return false;
	copy_value(p, buf, len);
	return true;
}

/* The word within [list, end of line). */
static bool line_has_word(const char *list, const char *word)
{
	size_t n = strlen(word), len = list ? strcspn(list, "\n") : 0;

	for (size_t at = 0; at < len;) {
		size_t w = strcspn(list + at, " \t,:\n");

		if (w == n && !memcmp(list + at, word, n))
			return true;
		at += w + 1;
	}
	return false;
}

bool parse_has_word(const char *list, const char *word)
{
	for (const char *p = list; p && *p; p = next_line(p))
		if (line_has_word(p, word))
			return true;
	return false;
}

bool cpu_flag(const struct facts *f, const char *flag)
{
	const char *info = snap_text(f->snap, "proc/cpuinfo");

	return info && line_has_word(find_key(info, "flags"), flag);
}

bool cpu_next_flag(const struct facts *f, size_t *pos, char *buf, size_t len)
{
	const char *info = snap_text(f->snap, "proc/cpuinfo");
	const char *list = info ? find_key(info, "flags") : NULL;
	size_t end = list ? strcspn(list, "\n") : 0, n;

	buf[0] = 0;
	if (*pos >= end)
		return false;
	*pos += strspn(list + *pos, " \t:");
	if (*pos >= end)
		return false;
	n = strcspn(list + *pos, " \t\n");
	copy_word(list + *pos, n, buf, len);
	*pos += n;
	return true;
}

bool vmx_flag(const struct facts *f, const char *flag)
{
	const char *info = snap_text(f->snap, "proc/cpuinfo");

	return info && line_has_word(find_key(info, "vmx flags"), flag);
}

bool parse_cpuid(const struct snap *s, uint32_t leaf, uint32_t sub, struct cpuid *out)
{
	const char *p = snap_text(s, "vm-check/cpuid");
	unsigned l, n;

	for (; p && *p; p = next_line(p))
		if (sscanf(p, "%8x %8x %8x %8x %8x %8x", &l, &n, &out->a, &out->b,
			   &out->c, &out->d) == 6 &&
		    l == leaf && n == sub)
			return true;
	*out = (struct cpuid){0};
	return false;
}

bool parse_msr(const struct snap *s, unsigned cpu, uint32_t reg, uint64_t *out)
{
	const char *p = snap_text(s, "vm-check/msr");
	unsigned long long v;
	unsigned c, r;

	for (; p && *p; p = next_line(p)) {
		if (sscanf(p, "%9u %8x %16llx", &c, &r, &v) == 3 && c == cpu &&
		    r == reg) {
			*out = v;
			return true;
		}
	}
	return false;
}

static bool digits(const char *p, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)*p))
		return false;
	errno = 0;
	*out = strtoull(p, &end, 10);
	return !errno && (!*end || isspace((unsigned char)*end));
}

bool parse_number(const struct snap *s, const char *path, uint64_t *out)
{
	char line[40];

	return digits(snap_line(s, path, line, sizeof(line)), out);
}

bool parse_meminfo(const struct snap *s, const char *key, uint64_t *out)
{
	char value[40];

	return parse_key(snap_text(s, "proc/meminfo"), key, value, sizeof(value)) &&
	       digits(value, out) && !__builtin_mul_overflow(*out, 1024, out);
}

unsigned parse_cpu_list(const char *text)
{
	unsigned long n = 0;

	while (isdigit((unsigned char)*text)) {
		char *end;
		unsigned long a = strtoul(text, &end, 10), b = a;

		if (*end == '-' && isdigit((unsigned char)end[1]))
			b = strtoul(end + 1, &end, 10);
		if (b < a || b > 1 << 20)
			return 0;
		n += b - a + 1;
		text = *end == ',' ? end + 1 : end;
		if (*end != ',')
			break;
	}
	return n > 1 << 20 ? 0 : (unsigned)n;
}

enum tri parse_param(const struct snap *s, const char *module, const char *name)
{
	char path[120], line[16];

	snprintf(path, sizeof(path), "sys/module/%s/parameters/%s", module, name);
	snap_line(s, path, line, sizeof(line));
	if (!line[0])
		return MAYBE;
	return !strcmp(line, "N") || !strcmp(line, "0") ? NO : YES;
}

bool parse_node(const struct snap *s, const char *path, struct node *out)
{
	const char *p = snap_text(s, path);

	*out = (struct node){0};
	return p &&
	       sscanf(p, "%c %7o %9u %9u %9u %9u %15s", &out->type, &out->mode,
		      &out->uid, &out->gid, &out->major, &out->minor, out->access) == 7;
}

/* ---- the proof ---- */

static const char *const modes[] = {"real", "protected", "pae", "long"};

static double ranged(double v)
{
	return v >= 0 && v < 1e12 ? v : 0;
}

static void proof_mode(struct proof *p, const char *value)
{
	char name[16], state[16];
	double ns;
	unsigned exits;

	if (sscanf(value, "%15s %15s %lf %9u", name, state, &ns, &exits) != 4)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
		if (strcmp(modes[i], name))
			continue;
		p->ok[i] = !strcmp(state, "ok");
		p->exit_ns[i] = ranged(ns);
		p->exits[i] = exits;
	}
}

void parse_proof(const struct snap *s, struct proof *p)
{
	const char *t = snap_text(s, "vm-check/proof");
	char value[64];

	*p = (struct proof){0};
	if (!t)
		return;
	p->there = parse_key(t, "verdict", p->verdict, sizeof(p->verdict));
	parse_key(t, "error", p->error, sizeof(p->error));
	parse_key(t, "reason", p->reason, sizeof(p->reason));
	if (parse_key(t, "api", value, sizeof(value)))
		p->api = atoi(value);
	if (parse_key(t, "guest-mips", value, sizeof(value)))
		p->guest_mips = ranged(strtod(value, NULL));
	if (parse_key(t, "native-mips", value, sizeof(value)))
		p->native_mips = ranged(strtod(value, NULL));
	for (const char *l = t; *l; l = next_line(l)) {
		if (strncmp(l, "mode ", 5))
			continue;
		copy_value(l + 5, value, sizeof(value));
		proof_mode(p, value);
	}
}

int proof_cap(const struct facts *f, const char *name)
{
	const char *t = snap_text(f->snap, "vm-check/proof");
	char cap[32];
	int n;

	for (; t && *t; t = next_line(t))
		if (sscanf(t, "cap %31s %9d", cap, &n) == 2 && !strcmp(cap, name))
			return n < 0 ? -1 : n;
	return -1;
}

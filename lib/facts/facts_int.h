/* facts/facts_int.h - between the files that judge. Private to lib/facts. */
#ifndef FACTS_FACTS_INT_H
#define FACTS_FACTS_INT_H

#include <stdint.h>

#include "facts/facts.h"

struct cpuid {
	uint32_t a, b, c, d;
};

/* parse.c */

/* The value of "key : value" (or "key value") lines of /proc files in buf; false: no such key. */
bool parse_key(const char *text, const char *key, char *buf, size_t len);
/* Is `word` in the list, separated by blanks? `list` may be NULL. */
bool parse_has_word(const char *list, const char *word);
/* The flags line of /proc/cpuinfo has this flag. */
bool cpu_flag(const struct facts *f, const char *flag);
/* The "vmx flags" line has this one (kernels from 5.9 on). */
bool vmx_flag(const struct facts *f, const char *flag);
bool parse_cpuid(const struct snap *s, uint32_t leaf, uint32_t sub, struct cpuid *out);
bool parse_msr(const struct snap *s, unsigned cpu, uint32_t reg, uint64_t *out);
/* A line of decimal digits in this file; false: none, or does not fit. */
bool parse_number(const struct snap *s, const char *path, uint64_t *out);
/* kB lines of /proc/meminfo, in bytes. */
bool parse_meminfo(const struct snap *s, const char *key, uint64_t *out);
/* "0-3,8" names so many. */
unsigned parse_cpu_list(const char *text);
/* Y, 1, and not 0: a module's boolean parameter. */
enum tri parse_param(const struct snap *s, const char *module, const char *name);
void parse_proof(const struct snap *s, struct proof *p);
/* "cap NAME N" of the proof; -1: not told. */
int proof_cap(const struct facts *f, const char *name);

struct node {
	char type;
	unsigned mode, uid, gid, major, minor;
	char access[16]; /* "ok", "EACCES" */
};
bool parse_node(const struct snap *s, const char *path, struct node *out);

/* basis.c: the first part of struct facts. */
void facts_read_basis(struct facts *f);

/* env.c */
void env_find(struct facts *f);

/* problems.c, verdict.c: after the facts. */
void problems_find(struct facts *f);
void verdict_find(struct facts *f);

/* Sets state and text. */
void fact_set(struct fact_value *v, enum fact_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* clang-format off */
#define FACT(i, g, t, r, e)        {.id = (i), .group = (g), .title = (t), .read = (r), .explain = (e)}
#define FACT_ARG(i, g, t, e, r, a) {.id = (i), .group = (g), .title = (t), .explain = (e), .read_arg = (r), .arg = (a)}
/* clang-format on */

/* facts_cpu.c, facts_lscpu.c, facts_kvm.c, facts_host.c, facts_peers.c: NULL-terminated by .id. */
extern const struct fact facts_cpu[], facts_lscpu[], facts_kvm[], facts_host[],
	facts_flaws[], facts_peers[];

/* The name of group `gid` in etc/group, of those that were kept. */
bool group_name(const struct facts *f, unsigned gid, char *name, size_t len);

#endif

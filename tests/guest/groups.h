/*
 * tests/guest/groups.h - the groups of a bare guest's tests: all run, or the one that the multiboot
 * command line names by "group=NAME". Multiboot 0.6.96 section 3.3.
 */
#ifndef GROUPS_H
#define GROUPS_H

struct group {
	const char *name;
	void (*run)(void);
};

extern unsigned multiboot_info; /* as the loader left it in EBX; 0: none */

/* The text behind "group=" in the command line, 0: there is none. */
static inline const char *group_wanted(void)
{
	const unsigned *info = (const unsigned *)(unsigned long)multiboot_info;
	const char *s, *want = "group=";

	if (!info || !(info[0] & 4))
		return 0;
	for (s = (const char *)(unsigned long)info[4]; *s; s++) {
		unsigned n = 0;

		while (want[n] && s[n] == want[n])
			n++;
		if (!want[n])
			return s + n;
	}
	return 0;
}

static inline int same_word(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return !*a && (!*b || *b == ' ');
}

static inline void run_groups(const struct group *g, unsigned n)
{
	const char *want = group_wanted();

	for (; n; n--, g++)
		if (!want || same_word(g->name, want))
			g->run();
}

#endif

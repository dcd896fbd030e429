/* vm-run/options.c - the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/size.h"
#include "vm-run.h"

enum {
	OPT_HELP = 1,
	OPT_VERSION,
	OPT_MEMORY,
	OPT_MODULE,
	OPT_DISK,
	OPT_NET,
	OPT_FORWARD,
	OPT_SERIAL,
	OPT_CPUS,
	OPT_CODE_CACHE,
	OPT_TIMEOUT,
};

/* Not an option: a line of --help. popt takes an entry without names and without `arg` for the end. */
static char heading[1];

#define HEADING(text)                              \
	{                                          \
		NULL, 0, 0, heading, 0, text, NULL \
	}

/* Adds a repeatable option's value to a list. */
static int list_add(char **list, unsigned *n, unsigned max, const char *name,
		    const char *value)
{
	if (*n == max)
		return cli_usage_error(&page, "'--%s' can be given %u times at most",
				       name, max);
	list[*n] = strdup(value);
	if (!list[(*n)++])
		abort();
	return 0;
}

static int set_number(const char *text, const char *name, unsigned max, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (!*text || *end || !v || v > max)
		return cli_usage_error(&page,
				       "'--%s %s': a number from 1 to %u is wanted",
				       name, text, max);
	*out = (unsigned)v;
	return 0;
}

static int set_timeout(struct options *o, const char *text)
{
	char *end;

	o->timeout = strtod(text, &end);
	if (!*text || *end || !(o->timeout > 0) || o->timeout > 1e9)
		return cli_usage_error(
			&page, "'--timeout %s': seconds are wanted, as in 60", text);
	return 0;
}

#define CODE_CACHE_MIN (1u << 20)
#define CODE_CACHE_MAX (1u << 30)

/* An option with a value that is not just stored. */
static int apply(struct options *o, int opt, const char *v)
{
	struct err err;

	switch (opt) {
	case OPT_MEMORY:
		if (size_parse(v, &o->memory, &err) < 0)
			return cli_usage_error(&page, "--memory: %s", err.msg);
		return 0;
	case OPT_CODE_CACHE:
		if (size_parse(v, &o->code_cache, &err) < 0)
			return cli_usage_error(&page, "--code-cache: %s", err.msg);
		return 0;
	case OPT_CPUS: return set_number(v, "cpus", PC_MAX_CPUS, &o->cpus);
	case OPT_TIMEOUT: return set_timeout(o, v);
	case OPT_MODULE:
		return list_add(o->modules, &o->n_modules, ARRAY_LEN(o->modules),
				"module", v);
	case OPT_DISK:
		return list_add(o->disks, &o->n_disks, ARRAY_LEN(o->disks), "disk", v);
	case OPT_NET:
		return list_add(o->nets, &o->n_nets, ARRAY_LEN(o->nets), "net", v);
	case OPT_FORWARD:
		return list_add(o->forwards, &o->n_forwards, ARRAY_LEN(o->forwards),
				"forward", v);
	case OPT_SERIAL:
		return list_add(o->serials, &o->n_serials, ARRAY_LEN(o->serials),
				"serial", v);
	}
	return 0;
}

/* What must hold once everything is known. */
static int check(struct options *o)
{
	static const char *const engines[] = {"auto", "kvm", "emulator"};
	bool known = false;

	for (unsigned i = 0; i < ARRAY_LEN(engines); i++)
		known |= !strcmp(o->engine ? o->engine : "auto", engines[i]);
	if (!known)
		return cli_usage_error(&page,
				       "'--engine %s': auto, kvm or emulator is wanted",
				       o->engine);
	if (o->emulator && strcmp(o->emulator, "interpreter") &&
	    strcmp(o->emulator, "translator") && strcmp(o->emulator, "lockstep"))
		return cli_usage_error(&page,
				       "'--emulator %s': translator, interpreter or "
				       "lockstep is wanted",
				       o->emulator);
	if (o->code_cache < CODE_CACHE_MIN || o->code_cache > CODE_CACHE_MAX)
		return cli_usage_error(&page, "--code-cache: from 1M to 1G are wanted");
	if (!o->guest && !o->restore)
		return cli_usage_error(
			&page, "what is to be run? Name a kernel, or '--restore'");
	if (o->memory % (1 << 20) || o->memory < (4 << 20) || o->memory > (1ull << 40))
		return cli_usage_error(
			&page, "--memory: whole mebibytes from 4M to 1T are wanted");
	return 0;
}

/* popt has no options whose value may be missing: --stats=FORM is taken out before. */
static int take_stats(struct options *o, int argc, const char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strncmp(argv[i], "--stats=", 8) != 0)
			continue;
		o->stats_form = argv[i] + 8;
		if (strcmp(o->stats_form, "json") != 0 &&
		    (strncmp(o->stats_form, "json:", 5) != 0 || !o->stats_form[5]))
			return cli_usage_error(&page,
					       "'%s': --stats, --stats=json or "
					       "--stats=json:FILE is wanted",
					       argv[i]);
		argv[i] = "--stats";
	}
	return 0;
}

int options_parse(struct options *o, int argc, const char **argv)
{
	/* clang-format off */
	const struct poptOption table[] = {
		HEADING("\nGuest"),
		{"initrd", 'i', POPT_ARG_STRING, &o->initrd, 0, "initial RAM disk of a Linux kernel", "FILE"},
		{"append", 'a', POPT_ARG_STRING, &o->append, 0, "the kernel's command line", "TEXT"},
		{"module", 0, POPT_ARG_STRING, NULL, OPT_MODULE, "multiboot or PVH module and its arguments; repeatable", "'FILE ARGS'"},
		HEADING("\nMachine"),
		{"memory", 'm', POPT_ARG_STRING, NULL, OPT_MEMORY, "memory, as in 512M or 2G (default 512M)", "SIZE"},
		{"cpus", 'c', POPT_ARG_STRING, NULL, OPT_CPUS, "processors (default 1)", "N"},
		{"engine", 'e', POPT_ARG_STRING, &o->engine, 0, "auto, kvm or emulator (default auto)", "NAME"},
		{"disk", 'd', POPT_ARG_STRING, NULL, OPT_DISK, "virtio disk; options: ro, snapshot, format=FMT, allow-external=DIR, key-file=FILE, serial=TEXT", "FILE[,OPTION...]"},
		{"emulator", 0, POPT_ARG_STRING, &o->emulator, 0, "translator, interpreter, or lockstep, which compares the two (default translator)", "NAME"},
		{"code-cache", 0, POPT_ARG_STRING, NULL, OPT_CODE_CACHE, "translated code of each processor (default 32M)", "SIZE"},
		{"snapshot", 's', POPT_ARG_NONE, &o->snapshot, 0, "discard what the guest writes to any disk", NULL},
		{"net", 'n', POPT_ARG_STRING, NULL, OPT_NET, "none, user or tap=IFNAME (default none)", "KIND"},
		{"forward", 'f', POPT_ARG_STRING, NULL, OPT_FORWARD, "host port to guest port, as in tcp:2222:22 (implies --net user)", "PROTO:HOST:GUEST"},
		{"serial", 0, POPT_ARG_STRING, NULL, OPT_SERIAL, "stdio, none, pty, file:PATH or socket:PATH (default stdio)", "WHERE"},
		{"console", 0, POPT_ARG_STRING, &o->console, 0, "virtio console (hvc0), as --serial", "WHERE"},
		{"debugcon", 0, POPT_ARG_STRING, &o->debug, 0, "debug ports e9 and 402, as --serial", "WHERE"},
		HEADING("\nRunning"),
		{"save", 0, POPT_ARG_STRING, &o->save, 0, "where ctrl-a s or SIGUSR1 save the running machine", "FILE"},
		{"restore", 'r', POPT_ARG_STRING, &o->restore, 0, "go on with a saved machine (same devices)", "FILE"},
		{"timeout", 't', POPT_ARG_STRING, NULL, OPT_TIMEOUT, "stop after so many seconds, with status 13", "SECONDS"},
		{"no-reboot", 0, POPT_ARG_NONE, &o->no_reboot, 0, "stop when the guest resets, with status 10", NULL},
		{"no-sandbox", 0, POPT_ARG_NONE, &o->no_sandbox, 0, "no system call filter, for debugging", NULL},
		{"dump-acpi", 0, POPT_ARG_STRING, &o->dump_acpi, 0, "write the ACPI tables there and end", "DIR"},
		{"stats", 0, POPT_ARG_NONE, &o->stats, 0, "tell at the end what the guest's time went to; --stats=json[:FILE] for programs", NULL},
		{"verbose", 'v', POPT_ARG_NONE, &o->verbose, 0, "say more", NULL},
		{"version", 'V', POPT_ARG_NONE, NULL, OPT_VERSION, "print the version", NULL},
		{"help", 'h', POPT_ARG_NONE, NULL, OPT_HELP, "print this", NULL},
		POPT_TABLEEND,
	};
	/* clang-format on */
	int rc = take_stats(o, argc, argv);
	poptContext ctx = poptGetContext(NULL, argc, argv, table, POPT_CONTEXT_NO_EXEC);
	const char *guest;
	char *value;
	int opt = -1;

	o->memory = 512 << 20;
	o->cpus = 1;
	o->code_cache = 32 << 20;
	while (!rc && (opt = poptGetNextOpt(ctx)) >= 0) {
		if (opt == OPT_HELP) {
			cli_help(&page, table);
			exit(cli_finish(&page, CLI_DONE));
		}
		if (opt == OPT_VERSION) {
			printf("vm-run %s\n", VM_VERSION);
			exit(cli_finish(&page, CLI_DONE));
		}
		value = poptGetOptArg(ctx);
		rc = apply(o, opt, value);
		free(value);
	}
	if (!rc && opt < -1)
		rc = cli_usage_error(&page, "%s: %s",
				     poptBadOption(ctx, POPT_BADOPTION_NOALIAS),
				     poptStrerror(opt));
	guest = poptGetArg(ctx);
	if (guest)
		o->guest = strdup(guest); /* popt's own dies with the context */
	if (!rc && poptPeekArg(ctx))
		rc = cli_usage_error(&page, "only one guest can be run, not also '%s'",
				     poptPeekArg(ctx));
	poptFreeContext(ctx);
	return rc ? rc : check(o);
}

static void free_list(char **list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(list[i]);
}

void options_free(struct options *o)
{
	char *const one[] = {o->guest,    o->initrd, o->append,  o->engine,
			     o->emulator, o->save,   o->restore, o->dump_acpi,
			     o->console,  o->debug};

	for (unsigned i = 0; i < ARRAY_LEN(one); i++)
		free(one[i]);
	free_list(o->modules, o->n_modules);
	free_list(o->disks, o->n_disks);
	free_list(o->nets, o->n_nets);
	free_list(o->forwards, o->n_forwards);
	free_list(o->serials, o->n_serials);
}

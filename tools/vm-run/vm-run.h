/* vm-run/vm-run.h - what the files of vm-run share. */
#ifndef VM_RUN_H
#define VM_RUN_H

#include "cli/cli.h"
#include "host/chr.h"
#include "host/net.h"
#include "pc/pc.h"

/* The command line, as parsed; strings are owned. */
struct options {
	char *guest, *initrd, *append, *engine, *emulator, *save, *restore, *dump_acpi;
	char *modules[PC_MAX_MODULES]; /* "FILE ARGUMENTS" */
	unsigned n_modules;
	char *disks[PC_MAX_DISKS];
	unsigned n_disks;
	char *nets[PC_MAX_NETS];
	unsigned n_nets;
	char *forwards[16];
	unsigned n_forwards;
	char *serials[PC_MAX_SERIAL];
	unsigned n_serials;
	char *console, *debug;
	uint64_t memory, code_cache;
	unsigned cpus;
	double timeout;
	int snapshot, no_reboot, no_sandbox, verbose, stats;
	const char *stats_form; /* of --stats=FORM, "json..."; argv's */
};

extern const struct cli_page page; /* main.c */

/* options.c: 0, or a status for exit() + 1 (help, version, usage error). */
int options_parse(struct options *o, int argc, const char **argv);
void options_free(struct options *o);

/* backends.c: fills disks, nets and serial lines of `cfg`. 0 or -errno. */
int backends_open(const struct options *o, struct pc *pc, struct pc_config *cfg,
		  const struct chr_filter *escape, const struct log *log,
		  struct err *err);
/* Whether some backend needs sockets, for the sandbox. */
bool backends_use_network(const struct options *o);
bool backends_use_listeners(const struct options *o);

/* stats.c: the guest's profile; all take NULL: without --stats. 0 or -errno. */
struct stats;
int stats_open(struct stats **s, const struct options *o, const struct cli_log *log,
	       struct err *err);
void stats_start(struct stats *s, struct pc *pc, const struct pc_config *cfg);
/* As text on stderr, now; ctx: struct stats. */
void stats_print(void *ctx);
/* When the machine has stopped: in the form that was asked for. */
void stats_end(struct stats *s);
void stats_close(struct stats *s);

/* console.c: the terminal in raw mode with an escape key, and the signals. */
struct console;
struct console *console_new(struct cli_log *log);
/* Input passes through it first. */
const struct chr_filter *console_filter(struct console *t);
/* From here on the keys and signals act on `pc`; raw: the terminal is the guest's. */
int console_start(struct console *t, struct pc *pc, bool raw, struct err *err);
/* Gives the terminal back as it was. Also done at exit and by fatal signals. */
void console_stop(struct console *t);

#endif

/* vm-img/vm-img.h - what the sub-commands of vm-img share. Main thread, but for the progress. */
#ifndef VM_IMG_H
#define VM_IMG_H

#include <stdatomic.h>

#include "base/json.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "img/copy.h"
#include "img/img.h"
#include "pack/package.h"
#include "pack/rootfs.h"

/* A sub-command: options are parsed by run(), with args_parse(). */
struct command {
	const char *name;
	int (*run)(const struct command *c, int argc, const char **argv);
	const char *usage, *summary, *examples;
};

extern const struct command cmd_amend, cmd_bitmap, cmd_check, cmd_commit, cmd_compare,
	cmd_convert, cmd_create, cmd_dd, cmd_extract, cmd_formats, cmd_info, cmd_list,
	cmd_map, cmd_measure, cmd_rebase, cmd_repair, cmd_resize, cmd_snapshot;

extern const struct command cmd_export, cmd_import;

/* Was it called as qemu-img? Then statuses, defaults and output are qemu-img's. */
extern bool as_qemu_img;
/* "vm-img info", for messages. */
extern struct cli_page page;

/* ---- options ---- */

#define MAX_ARGS    64
#define MAX_OPTIONS 64

/* What many sub-commands know. Strings live as long as the process. */
struct common {
	char *format, *target_format, *output, *cache, *src_cache, *allow_external;
	char *progress_fd;
	int share, json, quiet, progress, image_opts;
	/* -o lists, cut to pieces */
	struct img_option options[MAX_OPTIONS];
	unsigned n_options;
	bool options_help;
	char *secret_id[8], *secret[8];
	unsigned n_secrets;
	char *key; /* of --key-file, or asked for */
	size_t key_len;
	const char *args[MAX_ARGS]; /* what is not an option */
	unsigned n_args;
};

enum {
	OPT_HELP = 1,
	OPT_LIST,   /* -o */
	OPT_OBJECT, /* --object */
	OPT_KEY,    /* --key-file */
	OPT_FIRST,  /* a sub-command's own begin here */
};

/* Lines of option tables. */
/* clang-format off */
#define O_FORMAT(c)  {"format", 'f', POPT_ARG_STRING, &(c)->format, 0, "the image's format (default: recognized)", "FMT"}
#define O_JSON(c)    {"json", 'j', POPT_ARG_NONE, &(c)->json, 0, "print JSON", NULL}, \
		     {"output", 0, POPT_ARG_STRING, &(c)->output, 0, "human or json", "KIND"}
#define O_SHARE(c)   {"force-share", 'U', POPT_ARG_NONE, &(c)->share, 0, "even if another program writes to it", NULL}
#define O_QUIET(c)   {"quiet", 'q', POPT_ARG_NONE, &(c)->quiet, 0, "print errors only", NULL}
#define O_EXTERN(c)  {"allow-external", 0, POPT_ARG_STRING, &(c)->allow_external, 0, "where files that images name may be, too (/: everywhere)", "DIR"}
#define O_OPTIONS    {"options", 'o', POPT_ARG_STRING, NULL, OPT_LIST, "settings of the format: 'vm-img formats FMT' lists them", "NAME=VALUE,..."}
#define O_CACHE(c)   {"cache", 't', POPT_ARG_STRING, &(c)->cache, 0, "unsafe: do not wait for the disk (none, writeback, ... do)", "MODE"}
#define O_PROGRESS(c) {NULL, 'p', POPT_ARG_NONE, &(c)->progress, 0, "show a progress bar (default on a terminal)", NULL}, \
		     {"progress", 0, POPT_ARG_STRING, &(c)->progress_fd, 0, "write N/100 lines to a descriptor", "FD"}
#define O_COMMON(c)  {"object", 0, POPT_ARG_STRING, NULL, OPT_OBJECT, "a passphrase: secret,id=ID,data=TEXT or file=PATH", "SECRET"}, \
		     {"key-file", 0, POPT_ARG_STRING, NULL, OPT_KEY, "the passphrase of encrypted images is in this file", "FILE"}, \
		     {"image-opts", 0, POPT_ARG_NONE, &(c)->image_opts, 0, "images are given as driver=FMT,file.filename=PATH", NULL}, \
		     {"help", 'h', POPT_ARG_NONE, NULL, OPT_HELP, "print this", NULL}, \
		     POPT_TABLEEND
/* clang-format on */

/*
 * Parses a sub-command's options. `apply` gets those with a number from OPT_FIRST on (value: its own memory, which may
 * be kept); NULL: there are none. min and max are how many arguments there may be. 0, or -1 with the exit
 * status in *status: the command is over.
 */
int args_parse(const struct command *cmd, const struct poptOption *table, int argc,
	       const char **argv, struct common *c, unsigned min, unsigned max,
	       int (*apply)(int opt, char *value), int *status);

/* "a=b,c=d" (",," is a comma) to c->options. 0 or an exit status. */
int options_add(struct common *c, const char *text);
bool want_json(const struct common *c);
/* A size, or an exit status above 0. */
int parse_size(const char *what, const char *text, uint64_t *out);
/* The passphrase that an option "...key-secret" names, or the only one, or NULL, and its length. 0 or an exit status. */
int find_secret(const struct common *c, const char **secret, size_t *len);
/* Puts the passphrases that options "...-secret" name in the place of their names. 0 or an exit status. */
int fill_secrets(const struct common *c, struct img_option *o, unsigned n);

/* ---- images ---- */

enum {
	OPEN_WRITE = 1,
	OPEN_NO_BACKING = 2,
	OPEN_REPAIR = 4,
	OPEN_COPY = 8,
	OPEN_OVERWRITE = 16
};

/* Opens one for a sub-command. Without OPEN_WRITE and OPEN_COPY also one that is in use, and says so. Prints the
 * failure: 0 or CLI_FAILED. */
int image_open(const struct common *c, const char *name, const char *format,
	       unsigned flags, const char *snapshot, struct img **out);
/* The same; a package is handed back as *want (NULL: its only disk is opened), and *out is NULL then. */
int image_open_any(const struct common *c, const char *name, const char *format,
		   unsigned flags, const char *snapshot, struct package **want,
		   struct img **out);
/* The file and the format that --image-opts names in *name and *format (and a passphrase's id in c->options). 0 or an
 * exit status. */
int image_opts(struct common *c, const char **name, const char **format);
/* Closes; an error of the last writes is told. 0 or CLI_FAILED. */
int image_close(struct img *img);

/* ---- packages ---- */

/* Opens the package at `name` ("-": standard input), which may be packed, or the tree of files. 0 and *p or *tree, both
 * NULL if it is neither; or -errno. */
int open_package(const char *name, struct package **p, struct rootfs **tree,
		 struct err *err);
int package_json(const struct package *p, const char *name);
void package_text(const struct package *p, const char *name);

/* ---- output, end ---- */

/* Prints the JSON and ends it. */
int print_json(struct json *j);
int fail(const struct err *err);
int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The status as vm-img and as qemu-img have it. */
int status(int ours, int qemu);

/* The settings of a format. Returns the exit status. */
int print_options(const char *format);
/* The table of snapshot -l. */
void print_snapshots(const struct img_snapshot *v, size_t n);

/* ---- long jobs ---- */

/* Set by SIGINT, SIGTERM. */
extern atomic_bool stop;
void job_start(const struct common *c, struct cli_progress *p);
void job_progress(void *ctx, uint64_t done, uint64_t total);

#endif

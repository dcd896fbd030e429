/* vm-img/args.c - what the sub-commands' options have in common. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/size.h"
#include "cli/secret.h"
#include "vm-img.h"

/* Memory that lives as long as the process is held here. */
static void **kept;
static size_t n_kept;

static void *keep(void *p)
{
	void **v = mem_resize(kept, n_kept + 1, sizeof(*v));

	if (!v || !p) {
		fprintf(stderr, "%s: no memory\n", page.name);
		exit(CLI_FAILED);
	}
	kept = v;
	kept[n_kept++] = p;
	return p;
}

int fail(const struct err *err)
{
	return cli_fail(&page, err);
}

int usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", page.name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry '%s --help'.\n", page.name);
	return status(CLI_USAGE, 1);
}

int status(int ours, int qemu)
{
	return as_qemu_img ? qemu : ours;
}

/* ---- lists of settings ---- */

/* Cuts the next piece off: up to a comma that is not doubled. */
static char *next_piece(const char **text)
{
	char *piece = keep(malloc(strlen(*text) + 1)), *to = piece;
	const char *p = *text;

	for (; *p && (*p != ',' || p[1] == ','); p++) {
		if (*p == ',')
			p++;
		*to++ = *p;
	}
	*to = 0;
	*text = *p ? p + 1 : p;
	return piece;
}

int options_add(struct common *c, const char *text)
{
	while (*text) {
		char *piece = next_piece(&text), *eq = strchr(piece, '=');

		if (!strcmp(piece, "help") || !strcmp(piece, "?")) {
			c->options_help = true;
			continue;
		}
		if (!*piece)
			continue;
		if (c->n_options == MAX_OPTIONS)
			return usage("more than %d settings", MAX_OPTIONS);
		if (eq)
			*eq = 0;
		c->options[c->n_options++] =
			(struct img_option){piece, eq ? eq + 1 : "on"};
	}
	return 0;
}

/* "secret,id=ID,data=TEXT" */
static int add_secret(struct common *c, const char *text)
{
	char *kind = next_piece(&text), *id = NULL, *data = NULL;
	bool base64 = false;
	struct err err;
	void *buf;
	size_t len;
	long n;

	if (strcmp(kind, "secret"))
		return usage("--object %s: only 'secret' objects are known", kind);
	while (*text) {
		char *piece = next_piece(&text);

		if (!strncmp(piece, "id=", 3))
			id = piece + 3;
		else if (!strncmp(piece, "data=", 5))
			data = piece + 5;
		else if (!strncmp(piece, "file=", 5)) {
			if (fd_load_file(piece + 5, 65536, &buf, &len, &err) < 0)
				return fail(&err);
			data = keep(buf);
			if (memchr(buf, 0, len))
				return usage("--object secret: '%s' is not text: use "
					     "--key-file",
					     piece + 5);
		} else if (!strcmp(piece, "format=base64"))
			base64 = true;
		else if (strcmp(piece, "format=raw"))
			return usage("--object secret: '%s' is not known", piece);
	}
	if (!id || !data)
		return usage(
			"--object secret: 'id=' and 'data=' or 'file=' are wanted");
	if (base64 && (n = cli_secret_base64(data)) != (long)strlen(data))
		return usage("--object secret: '%s' is %s", id,
			     n < 0 ? "not base64" : "not text: use --key-file");
	if (c->n_secrets == ARRAY_LEN(c->secret))
		return usage("more than %u secrets", c->n_secrets);
	c->secret_id[c->n_secrets] = id;
	c->secret[c->n_secrets++] = data;
	return 0;
}

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), k = strlen(end);

	return n >= k && !strcmp(name + n - k, end);
}

/* NULL with the failure told. */
static const char *secret_by_id(const struct common *c, const char *id)
{
	for (unsigned k = 0; k < c->n_secrets; k++)
		if (!strcmp(id, c->secret_id[k]))
			return c->secret[k];
	usage("no secret with id '%s': give it with --object secret,id=%s,...", id, id);
	return NULL;
}

int find_secret(const struct common *c, const char **secret, size_t *len)
{
	*len = 0;
	*secret = c->n_secrets == 1 ? c->secret[0] : NULL;
	if (c->key) {
		*secret = c->key;
		*len = c->key_len;
	}
	for (unsigned i = 0; i < c->n_options; i++)
		if (ends_with(c->options[i].name, "key-secret")) {
			*len = 0;
			*secret = secret_by_id(c, c->options[i].value);
			return *secret ? 0 : status(CLI_USAGE, 1);
		}
	return 0;
}

int fill_secrets(const struct common *c, struct img_option *o, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!ends_with(o[i].name, "-secret") || !*o[i].value)
			continue;
		o[i].value = secret_by_id(c, o[i].value);
		if (!o[i].value)
			return status(CLI_USAGE, 1);
	}
	return 0;
}

bool want_json(const struct common *c)
{
	return c->json || (c->output && !strcmp(c->output, "json"));
}

int parse_size(const char *what, const char *text, uint64_t *out)
{
	struct err err;

	return size_parse(text, out, &err) < 0 ? usage("%s: %s", what, err.msg) : 0;
}

/* ---- parsing ---- */

static int check_common(const struct common *c)
{
	static const char *const modes[] = {"none", "writeback", "writethrough",
					    "directsync", "unsafe"};
	const char *const given[] = {c->cache, c->src_cache};

	if (c->image_opts && c->format)
		return usage("--image-opts and -f exclude each other");
	if (c->output && strcmp(c->output, "json") && strcmp(c->output, "human"))
		return usage("'--output %s': human or json is wanted", c->output);
	for (unsigned i = 0; i < 2; i++) {
		bool known = !given[i];

		for (unsigned k = 0; k < ARRAY_LEN(modes); k++)
			known |= given[i] && !strcmp(given[i], modes[k]);
		if (!known)
			return usage("cache mode '%s': none, writeback, writethrough, "
				     "directsync or unsafe is wanted",
				     given[i]);
	}
	return 0;
}

static int take_args(poptContext ctx, struct common *c, unsigned min, unsigned max)
{
	const char *arg;

	while ((arg = poptGetArg(ctx))) {
		if (c->n_args == max || c->n_args == MAX_ARGS)
			return usage("'%s': too many arguments", arg);
		c->args[c->n_args++] = keep(strdup(arg));
	}
	if (c->n_args < min && !c->options_help)
		return usage("an argument is missing");
	return 0;
}

static int apply_common(struct common *c, int opt, char *value)
{
	struct err err;

	if (opt == OPT_LIST)
		return options_add(c, value);
	if (opt == OPT_OBJECT)
		return add_secret(c, value);
	if (c->key)
		return usage("only one --key-file can be given");
	if (cli_secret_file(value, &c->key, &c->key_len, &err) < 0)
		return fail(&err);
	keep(c->key);
	return 0;
}

int args_parse(const struct command *cmd, const struct poptOption *table, int argc,
	       const char **argv, struct common *c, unsigned min, unsigned max,
	       int (*apply)(int opt, char *value), int *st)
{
	poptContext ctx = poptGetContext(NULL, argc, argv, table, POPT_CONTEXT_NO_EXEC);
	int opt = 0, rc = 0;

	while (!rc && (opt = poptGetNextOpt(ctx)) >= 0) {
		char *value = poptGetOptArg(ctx);

		if (opt == OPT_HELP) {
			page.usage = cmd->usage;
			page.summary = cmd->summary;
			page.examples = cmd->examples;
			cli_help(&page, table);
			poptFreeContext(ctx);
			*st = cli_finish(&page, CLI_DONE);
			return -1;
		}
		if (value)
			keep(value);
		rc = opt < OPT_FIRST ? apply_common(c, opt, value) : apply(opt, value);
	}
	if (!rc && opt < -1)
		rc = usage("%s: %s", poptBadOption(ctx, POPT_BADOPTION_NOALIAS),
			   poptStrerror(opt));
	if (!rc)
		rc = take_args(ctx, c, min, max);
	if (!rc)
		rc = check_common(c);
	poptFreeContext(ctx);
	*st = rc;
	return rc ? -1 : 0;
}

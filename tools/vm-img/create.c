/* vm-img/create.c - `create` makes empty images; `formats` tells which there are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "vm-img.h"

static struct common c;
static char *backing, *backing_format;
static int unchecked;

/* What qemu-img says when it makes an image. */
static void tell(const struct img_create_opts *o, const char *path)
{
	struct img_format_info fi;

	if (c.quiet || !as_qemu_img || img_format_find(o->format, &fi, NULL) < 0)
		return;
	printf("Formatting '%s', fmt=%s", path, fi.name);
	if (o->size)
		printf(" size=%llu", (unsigned long long)o->size);
	if (o->backing_path)
		printf(" backing_file=%s", o->backing_path);
	if (o->backing_format)
		printf(" backing_fmt=%s", o->backing_format);
	for (unsigned i = 0; i < o->n_options; i++)
		printf(" %s=%s", o->options[i].name, o->options[i].value);
	printf("\n");
}

static bool has_option(const char *name)
{
	for (unsigned i = 0; i < c.n_options; i++)
		if (!strcmp(c.options[i].name, name))
			return true;
	return false;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		{"format", 'f', POPT_ARG_STRING, &c.format, 0,
		 "the format (default raw)", "FMT"},
		O_OPTIONS,
		{"backing", 'b', POPT_ARG_STRING, &backing, 0,
		 "the image shows what is in this file until it is written to", "FILE"},
		{"backing-format", 'F', POPT_ARG_STRING, &backing_format, 0,
		 "the backing file's format", "FMT"},
		{"unchecked", 'u', POPT_ARG_NONE, &unchecked, 0,
		 "the backing file need not be there", NULL},
		O_QUIET(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img_create_opts o = {.replace = true,
				    .no_sync = c.cache && !strcmp(c.cache, "unsafe")};
	bool sized = false;
	struct err err = {0};
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 2, NULL, &st))
		return st;
	if (c.options_help)
		return print_options(c.format ? c.format : "raw");
	o.format = c.format ? c.format : "raw";
	o.backing_path = backing;
	o.backing_format = backing_format;
	o.no_backing_check = unchecked;
	o.allow_external = c.allow_external ? c.allow_external
			   : as_qemu_img    ? "/"
					    : NULL;
	st = find_secret(&c, &o.secret, &o.secret_len);
	if (st)
		return st;
	o.options = c.options;
	o.n_options = c.n_options;
	for (unsigned i = 0; i < c.n_options; i++)
		sized |= !strcmp(c.options[i].name, "size") ||
			 !strcmp(c.options[i].name, "backing_file");
	if (c.n_args == 2 && (st = parse_size("size", c.args[1], &o.size)))
		return st;
	if (backing_format && !backing && !has_option("backing_file"))
		return usage("-F goes with -b");
	if (c.n_args < 2 && unchecked && !has_option("size"))
		return usage("-u: a size is wanted, as in 20G: nothing else tells it");
	if (c.n_args < 2 && !sized && !backing)
		return usage("a size is wanted, as in 20G");
	tell(&o, c.args[0]);
	st = fill_secrets(&c, c.options, c.n_options);
	if (st)
		return st;
	return img_create(c.args[0], &o, &err) < 0 ? fail(&err) : 0;
}

const struct command cmd_create = {
	.name = "create",
	.run = run,
	.usage = "[OPTION...] IMAGE [SIZE]",
	.summary = "Makes an empty image.",
	.examples = "  vm-img create -f qcow2 disk.qcow2 20G\n"
		    "  vm-img create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n",
};

/* ---- formats ---- */

int print_options(const char *format)
{
	struct img_format_info fi;
	struct err err;

	if (img_format_find(format, &fi, &err) < 0)
		return fail(&err);
	printf("Settings of format %s (-o NAME=VALUE,...):\n", fi.name);
	printf("  %-20s %-14s %s\n", "size", "size", "of the disk");
	if (fi.backing) {
		printf("  %-20s %-14s %s\n", "backing_file", "text", "as -b");
		printf("  %-20s %-14s %s\n", "backing_fmt", "text", "as -F");
	}
	for (const struct img_option_desc *d = fi.options; d && d->name; d++) {
		static const char *const kinds[] = {"text", "on|off", "size", "number"};

		printf("  %-20s %-14s %s", d->name,
		       d->choices ? d->choices : kinds[d->kind], d->help);
		if (d->usual)
			printf(" (usually %s)", d->usual);
		printf("\n");
	}
	return 0;
}

static void format_json(struct json *j, const struct img_format_info *f)
{
	json_object(j, NULL);
	json_text(j, "name", f->name);
	json_text(j, "title", f->title);
	json_list(j, "aliases");
	for (const char *const *a = f->aliases; a && *a; a++)
		json_text(j, NULL, *a);
	json_end(j);
	json_bool(j, "write", f->writes);
	json_bool(j, "create", f->creates);
	json_bool(j, "backing", f->backing);
	json_bool(j, "compress", f->packs);
	json_bool(j, "check", f->checks);
	json_bool(j, "repair", f->repairs);
	json_bool(j, "resize", f->resizes);
	json_bool(j, "snapshots", f->snapshots);
	json_list(j, "options");
	for (const struct img_option_desc *d = f->options; d && d->name; d++)
		json_text(j, NULL, d->name);
	json_end(j);
	json_end(j);
}

static void packages_json(struct json *j)
{
	const char *name, *title;

	json_list(j, "packages");
	for (unsigned i = 0; package_kind_at(i, &name, &title); i++) {
		json_object(j, NULL);
		json_text(j, "name", name);
		json_text(j, "title", title);
		json_end(j);
	}
	json_end(j);
}

static int formats(const struct command *cmd, int argc, const char **argv)
{
	static struct common f;
	const struct poptOption table[] = {O_JSON(&f), O_COMMON(&f)};
	struct img_format_info i;
	struct json j = {0};
	int st;

	if (args_parse(cmd, table, argc, argv, &f, 0, 1, NULL, &st))
		return st;
	if (f.n_args)
		return print_options(f.args[0]);
	if (want_json(&f)) {
		json_object(&j, NULL);
		json_number(&j, "version", 1);
		json_list(&j, "formats");
		for (unsigned k = 0; img_format_at(k, &i); k++)
			format_json(&j, &i);
		json_end(&j);
		packages_json(&j);
		json_end(&j);
		return print_json(&j);
	}
	printf("%-10s %-6s %-6s %-7s %-8s %-6s %-7s %-7s %s\n", "FORMAT", "WRITE",
	       "CREATE", "BACKING", "COMPRESS", "CHECK", "REPAIR", "RESIZE", "WHAT");
	for (unsigned k = 0; img_format_at(k, &i); k++)
		printf("%-10s %-6s %-6s %-7s %-8s %-6s %-7s %-7s %s\n", i.name,
		       i.writes ? "yes" : "-", i.creates ? "yes" : "-",
		       i.backing ? "yes" : "-", i.packs ? "yes" : "-",
		       i.checks ? "yes" : "-", i.repairs ? "yes" : "-",
		       i.resizes ? "yes" : "-", i.title);
	return 0;
}

const struct command cmd_formats = {
	.name = "formats",
	.run = formats,
	.usage = "[OPTION...] [FORMAT]",
	.summary = "Lists the formats, or the settings of one (-o of create, convert).",
	.examples = "  vm-img formats\n  vm-img formats qcow2\n",
};

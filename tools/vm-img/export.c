/* vm-img/export.c - `export`: writes images as a package (OVA) that hypervisors import. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pack/ovawrite.h"
#include "vm-img.h"

enum { OPT_MEMORY = OPT_FIRST, OPT_CPUS };

static struct common c;
static char *out_path;
static struct ova_machine machine = {.os = "other",
				     .firmware = "bios",
				     .bus = "sata",
				     .memory = 2ull << 30,
				     .cpus = 1};

static int apply(int opt, char *v)
{
	uint64_t n;
	int rc = parse_size(opt == OPT_MEMORY ? "--memory" : "--cpus", v, &n);

	if (rc)
		return rc;
	if (opt == OPT_CPUS) {
		if (n < 1 || n > 256)
			return usage("--cpus %s: 1 to 256 is wanted", v);
		machine.cpus = (unsigned)n;
		return 0;
	}
	if (n < 1 << 20 || n % (1 << 20) || n > 1ull << 44)
		return usage("--memory %s: whole MiB are wanted", v);
	machine.memory = n;
	return 0;
}

static bool one_of(const char *what, const char *const *v)
{
	for (; *v; v++)
		if (!strcmp(what, *v))
			return true;
	return false;
}

static int check_options(void)
{
	static const char *const firmware[] = {"bios", "efi", NULL};
	static const char *const bus[] = {"sata", "scsi", "ide", NULL};
	const char *os;

	if (!out_path)
		return usage("-o is missing: the package to write");
	if (!one_of(machine.firmware, firmware))
		return usage("--firmware %s: bios or efi is wanted", machine.firmware);
	if (!one_of(machine.bus, bus))
		return usage("--bus %s: sata, scsi or ide is wanted", machine.bus);
	for (unsigned i = 0; (os = ova_os_at(i)); i++)
		if (!strcmp(os, machine.os))
			return 0;
	return usage(
		"--os %s: other, linux, debian, ubuntu, rhel or windows7 is wanted",
		machine.os);
}

/* "web" of "dir/web.ova" */
static char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	const char *dot = strrchr(base, '.');

	if (!strcmp(path, "-"))
		return strdup("machine");
	return dot && dot > base ? strndup(base, (size_t)(dot - base)) : strdup(base);
}

static int export_all(struct img *const *in, unsigned n)
{
	struct cli_progress bar;
	struct img_copy_opts how = {
		.progress = job_progress, .ctx = &bar, .stop = &stop};
	char *name = machine.name ? NULL : name_of(out_path);
	struct err err = {0};
	int rc;

	if (name)
		machine.name = name;
	if (!machine.name)
		return CLI_FAILED;
	job_start(&c, &bar);
	rc = ova_write(out_path, true, &machine, in, n, &how, &err);
	cli_progress_end(&bar, !rc);
	free(name);
	return rc ? fail(&err) : 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"to", 'o', POPT_ARG_STRING, &out_path, 0,
		 "the package to write; '-' is standard output", "FILE"},
		{"name", 0, POPT_ARG_STRING, &machine.name, 0,
		 "the machine's name (default: the file's)", "NAME"},
		{"memory", 0, POPT_ARG_STRING, NULL, OPT_MEMORY,
		 "its memory (default 2G)", "SIZE"},
		{"cpus", 0, POPT_ARG_STRING, NULL, OPT_CPUS,
		 "its processors (default 1)", "N"},
		{"os", 0, POPT_ARG_STRING, &machine.os, 0,
		 "other, linux, debian, ubuntu, rhel or windows7", "OS"},
		{"firmware", 0, POPT_ARG_STRING, &machine.firmware, 0,
		 "bios (default) or efi", "KIND"},
		{"bus", 0, POPT_ARG_STRING, &machine.bus, 0,
		 "what the disks are on: sata (default), scsi or ide", "BUS"},
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img *in[OVA_MAX_DISKS] = {0};
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, OVA_MAX_DISKS, apply, &st))
		return st;
	st = check_options();
	for (unsigned i = 0; i < c.n_args && !st; i++)
		st = image_open(&c, c.args[i], c.format, OPEN_COPY, NULL, &in[i]);
	if (!st)
		st = export_all(in, c.n_args);
	for (unsigned i = 0; i < c.n_args; i++)
		img_close(in[i]);
	return st;
}

const struct command cmd_export = {
	.name = "export",
	.run = run,
	.usage = "[OPTION...] -o PACKAGE IMAGE...",
	.summary =
		"Writes images as an OVA package, which VMware, VirtualBox and others "
		"import:\ndescription, manifest (SHA-256), compressed VMDK disks.",
	.examples = "  vm-img export -o web.ova --memory 4G --cpus 2 --os debian "
		    "disk.qcow2\n"
		    "  vm-img export -o - --firmware efi sys.vdi data.vdi | ssh host "
		    "'cat >vm.ova'\n",
};

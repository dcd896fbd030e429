/*
 * vm-img/main.c - disk images of every hypervisor: finds the sub-command. Called as qemu-img it behaves as
 * that program does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vm-img.h"

bool as_qemu_img;
struct cli_page page = {.name = "vm-img"};

/* clang-format off */
static const struct command *const commands[] = {
	&cmd_amend, &cmd_bitmap, &cmd_check, &cmd_commit, &cmd_compare, &cmd_convert,
	&cmd_create, &cmd_dd, &cmd_export, &cmd_extract, &cmd_formats, &cmd_import, &cmd_info,
	&cmd_list, &cmd_map, &cmd_measure,
	&cmd_rebase, &cmd_repair, &cmd_resize, &cmd_snapshot,
};

static const char examples[] =
	"  vm-img info disk.vmdk\n"
	"  vm-img convert -O qcow2 -c disk.vmdk disk.qcow2\n"
	"  vm-img create -f qcow2 disk.qcow2 20G\n"
	"  vm-img compare a.vdi b.vhdx\n"
	"  vm-img import appliance.ova\n";
/* clang-format on */

static int help(void)
{
	printf("Usage: %s COMMAND [OPTION...] ...\n"
	       "Looks at, makes, converts, checks and changes disk images of every "
	       "hypervisor.\n\nCommands:\n",
	       page.name);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		printf("  %-10s %.*s\n", commands[i]->name,
		       (int)strcspn(commands[i]->summary, "\n"), commands[i]->summary);
	printf("\n'%s COMMAND --help' tells more about one of them.\n\nExamples:\n%s\n"
	       "See also: man vm-img\n",
	       page.name, examples);
	return cli_finish(&page, CLI_DONE);
}

static const struct command *find(const char *name)
{
	if (!strcmp(name, "copy"))
		return &cmd_dd;
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	return NULL;
}

int main(int argc, const char **argv)
{
	static char name[64];
	const char *self = argc ? strrchr(argv[0], '/') : NULL;
	const struct command *c;

	cli_start();
	self = self ? self + 1 : argc ? argv[0] : "vm-img";
	as_qemu_img = !strcmp(self, "qemu-img");
	if (as_qemu_img)
		page.name = "qemu-img";
	/* Tracing is QEMU's own affair. */
	while (as_qemu_img && argc > 3 &&
	       (!strcmp(argv[1], "-T") || !strcmp(argv[1], "--trace"))) {
		argc -= 2;
		argv += 2;
	}
	if (argc < 2)
		return usage("a command is wanted");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help"))
		return help();
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		/* Scripts look for the word and a number behind it. */
		if (as_qemu_img)
			printf("qemu-img version 7.2 (vm-img %s)\n", VM_VERSION);
		else
			printf("%s %s\n", page.name, VM_VERSION);
		return cli_finish(&page, CLI_DONE);
	}
	c = find(argv[1]);
	if (!c)
		return usage("'%s' is not a command", argv[1]);
	snprintf(name, sizeof(name), "%s %s", page.name, c->name);
	page.name = name;
	argv[1] = name;
	return cli_finish(&page, c->run(c, argc - 1, argv + 1));
}

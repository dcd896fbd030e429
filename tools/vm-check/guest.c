/*
 * vm-check/guest.c - `vm-check disk DEVICE`, `vm-check guest IMAGE`: will what is on it start in vm-run, with what
 * firmware and which disk controller, and what stands in the way. Main thread.
 */
#include "guest.h"
#include "vm-check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "cli/cli.h"
#include "guest/boot.h"
#include "img/img.h"

/* Exit statuses: as of vm-check. */
enum { STARTS = 0, COULD_NOT_TELL = 1, STARTS_WITH_PROBLEMS = 3, DOES_NOT_START = 4 };

/* What vm-run of this version starts disks with. */
static const bool vm_run_has[] = {[FIRMWARE_BIOS] = false, [FIRMWARE_UEFI] = false};

static const char *const firmwares[] = {"none", "bios", "uefi"};
static const char *const controllers[] = {"any", "ahci", "ide", "virtio"};
static const char *const weights[] = {"note", "problem", "stop"};
static const enum fact_state states[] = {FACT_INFO, FACT_WARN, FACT_MISSING};

struct guest_options {
	bool disk; /* a device: its bytes, as they are */
	int json, quiet, any_machine;
	char *format, *external; /* owned */
	char *name;              /* owned */
};

static struct cli_page guest_page = {
	.usage = "[OPTION...] IMAGE",
	.summary =
		"Tells whether what is on a disk starts in vm-run, with which firmware "
		"and disk\ncontroller, and what stands in the way.",
};

/* ---- what is found ---- */

/* Is a partition of the device mounted, or part of something? */
static void check_in_use(const char *path, struct guest_boot *b)
{
	struct stat st;
	int fd;

	if (stat(path, &st) || !S_ISBLK(st.st_mode))
		return;
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		close(fd);
	else if (errno == EBUSY && b->n < BOOT_FINDINGS)
		b->v[b->n++] = (struct boot_finding){
			.weight = BOOT_NOTE,
			.id = "in-use",
			.text = "the disk is in use: its file systems are open now",
			.remedy = "copy it when it is not, or start it with --snapshot",
		};
}

static int status_of(const struct guest_options *o, const struct guest_boot *b)
{
	if (b->worst == BOOT_STOP || (!o->any_machine && !vm_run_has[b->firmware]))
		return DOES_NOT_START;
	return b->worst == BOOT_PROBLEM ? STARTS_WITH_PROBLEMS : STARTS;
}

static const char *verdict_of(int status)
{
	return status == STARTS                 ? "starts"
	       : status == STARTS_WITH_PROBLEMS ? "starts-with-problems"
						: "does-not-start";
}

/* Why vm-run does not, whatever is on the disk; NULL: it does. */
static const char *vm_run_reason(const struct guest_options *o,
				 const struct guest_boot *b)
{
	if (o->any_machine || vm_run_has[b->firmware] || !b->firmware)
		return NULL;
	return "this version of vm-run has no firmware and starts kernels: give it the "
	       "system's kernel and initrd, and the image by --disk";
}

/* ---- telling ---- */

static int print_json(const struct guest_options *o, const struct guest_disk *d,
		      const struct guest_boot *b, int status)
{
	const char *reason = vm_run_reason(o, b);
	struct json j = {0};
	int rc = 0;

	json_object(&j, NULL);
	json_number(&j, "version", 1);
	json_text(&j, "filename", o->name);
	json_text(&j, "format", img_format_name(d->img));
	json_number(&j, "size", img_size(d->img));
	json_text(&j, "partition-table", d->table.type);
	json_text(&j, "verdict", verdict_of(status));
	if (reason)
		json_text(&j, "vm-run", reason);
	json_text(&j, "firmware", firmwares[b->firmware]);
	json_bool(&j, "bios-loader", b->bios);
	json_bool(&j, "uefi-loader", b->uefi);
	json_text(&j, "controller", controllers[b->controller]);
	if (b->os)
		json_text(&j, "operating-system", b->os->name);
	json_list(&j, "findings");
	for (unsigned i = 0; i < b->n; i++) {
		const struct boot_finding *f = &b->v[i];

		json_object(&j, NULL);
		json_text(&j, "id", f->id);
		json_text(&j, "weight", weights[f->weight]);
		if (f->number)
			json_number(&j, "partition", f->number);
		json_text(&j, "text", f->text);
		if (f->remedy)
			json_text(&j, "remedy", f->remedy);
		json_end(&j);
	}
	json_end(&j);
	json_end(&j);
	if (j.s.failed)
		rc = -ENOMEM;
	else
		fputs(j.s.p, stdout);
	json_fini(&j);
	return rc;
}

static void print_text(const struct guest_options *o, const struct guest_boot *b,
		       int status)
{
	const char *reason = vm_run_reason(o, b);
	char line[400];

	printf("System:      ");
	text_plain(b->os ? b->os->name : "not recognized");
	putchar('\n');
	printf("Firmware:    %s%s\n", firmwares[b->firmware],
	       b->uefi && b->bios ? " (bios, too)" : "");
	printf("Controller:  %s\n", controllers[b->controller]);
	if (b->n || reason)
		putchar('\n');
	for (unsigned i = 0; i < b->n; i++) {
		const struct boot_finding *f = &b->v[i];
		int at = 0;

		if (f->number)
			at = snprintf(line, sizeof(line), "partition %u: ", f->number);
		snprintf(line + at, sizeof(line) - (size_t)at, "%s", f->text);
		text_item(states[f->weight], line, f->remedy);
	}
	if (reason)
		text_item(FACT_MISSING, reason, NULL);
	snprintf(line, sizeof(line), "%.200s in %s: %s", o->name,
		 o->any_machine ? "a virtual machine" : "vm-run",
		 status == STARTS                 ? "starts"
		 : status == STARTS_WITH_PROBLEMS ? "starts, with problems"
						  : "does not start");
	text_verdict(status == STARTS                 ? FACT_OK
		     : status == STARTS_WITH_PROBLEMS ? FACT_WARN
						      : FACT_MISSING,
		     line);
}

static int judge(const struct guest_options *o, struct img *img, struct err *err)
{
	struct guest_boot *b = calloc(1, sizeof(*b));
	struct guest_disk d;
	int status, rc = b ? guest_disk_open(img, &d, err)
			   : err_set(err, ENOMEM, "no memory");

	if (rc) {
		free(b);
		return cli_fail(&guest_page, err);
	}
	guest_boot_judge(&d, b);
	check_in_use(o->name, b);
	status = status_of(o, b);
	if (o->json && print_json(o, &d, b, status)) {
		err_set(err, ENOMEM, "no memory");
		status = cli_fail(&guest_page, err);
	} else if (!o->json && !o->quiet) {
		print_text(o, b, status);
	}
	guest_disk_close(&d);
	free(b);
	return status;
}

/* ---- the command ---- */

static int open_and_judge(const struct guest_options *o)
{
	struct img_opts io = {
		.format = o->disk ? "raw" : o->format,
		.read_only = true,
		.no_lock = true,
		.allow_external = o->external,
	};
	struct err err = {0};
	struct img *img;
	int status;

	if (img_open(o->name, &io, &img, &err) < 0)
		return cli_fail(&guest_page, &err);
	status = judge(o, img, &err);
	img_close(img);
	return finish(&guest_page, status);
}

static int parse(struct guest_options *o, int argc, const char **argv)
{
	/* clang-format off */
	const struct poptOption table[] = {
		{"format", 'f', POPT_ARG_STRING, &o->format, 0, "the image's format (default: recognized)", "FMT"},
		{"allow-external", 0, POPT_ARG_STRING, &o->external, 0, "where files that the image names may be, too (/: everywhere)", "DIR"},
		{"json", 'j', POPT_ARG_NONE, &o->json, 0, "print everything as JSON", NULL},
		{"quiet", 'q', POPT_ARG_NONE, &o->quiet, 0, "print nothing: the exit status is the answer", NULL},
		{"any-machine", 0, POPT_ARG_NONE, &o->any_machine, 0, "judge for any virtual machine, not for this version of vm-run", NULL},
		{"help", 'h', POPT_ARG_NONE, NULL, 1, "print this", NULL},
		POPT_TABLEEND,
	};
	/* clang-format on */
	/* A device is raw and names no other files. */
	const struct poptOption *mine = o->disk ? table + 2 : table;
	poptContext ctx = poptGetContext(NULL, argc, argv, mine, POPT_CONTEXT_NO_EXEC);
	int opt = poptGetNextOpt(ctx), status = -1;
	const char *arg = NULL;

	if (opt == 1) {
		cli_help(&guest_page, mine);
		status = cli_finish(&guest_page, CLI_DONE);
	} else if (opt < -1) {
		status = cli_usage_error(&guest_page, "%s: %s",
					 poptBadOption(ctx, POPT_BADOPTION_NOALIAS),
					 poptStrerror(opt));
	} else if (!(arg = poptGetArg(ctx)) || !(o->name = strdup(arg))) {
		status = cli_usage_error(&guest_page, "%s is wanted",
					 o->disk ? "a device" : "an image");
	} else if (poptGetArg(ctx)) {
		status = cli_usage_error(&guest_page, "only one is looked at");
	} else if (o->json && o->quiet) {
		status = cli_usage_error(&guest_page,
					 "only one of --json and --quiet can be given");
	}
	poptFreeContext(ctx);
	return status;
}

int guest_run(int argc, const char **argv)
{
	struct guest_options o = {.disk = !strcmp(argv[1], "disk")};
	int status;

	guest_page.name = o.disk ? "vm-check disk" : "vm-check guest";
	guest_page.usage = o.disk ? "[OPTION...] DEVICE" : "[OPTION...] IMAGE";
	guest_page.examples = o.disk ? "  sudo vm-check disk /dev/sda\n"
				     : "  vm-check guest laptop.qcow2\n"
				       "  vm-check guest --json old.vdi\n";
	argv[1] = guest_page.name;
	status = parse(&o, argc - 1, argv + 1);
	if (status < 0)
		status = open_and_judge(&o);
	free(o.format);
	free(o.external);
	free(o.name);
	return status;
}

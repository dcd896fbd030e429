/* vm-img/import.c - `import`: lists what packages (OVA, XVA, VMA, ...) hold, and makes images of their disks. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "pack/bootdisk.h"
#include "pack/package.h"
#include "vm-img.h"

enum { OPT_DISK = OPT_FIRST, OPT_SIZE };

static struct common c;
static char *kernel, *initrd, *append; /* that a tree gets */
static char *out_path, *label, *wanted = (char *)"qcow2";
static const char *format; /* that of `wanted` */
static uint64_t fs_size;   /* of the file system made of a tree; 0: as it needs */
static int list_only, packed, no_verify;
static unsigned only; /* this disk, from 1 on; 0: all */

static int apply(int opt, char *v)
{
	uint64_t n;
	int rc = parse_size(opt == OPT_SIZE ? "--size" : "--disk", v, &n);

	if (opt == OPT_SIZE) {
		fs_size = n;
		if (!rc && (n % (1 << 20) || n < 16 << 20))
			return usage("--size %s: whole MiB, 16M or more, are wanted",
				     v);
		return rc;
	}
	if (!rc && (n < 1 || n > 256))
		return usage("--disk %s: 1 to 256 is wanted", v);
	only = (unsigned)n;
	return rc;
}

/* ---- telling ---- */

static void disk_json(struct json *j, const struct package_disk_info *d)
{
	json_object(j, NULL);
	json_text(j, "name", d->name);
	if (d->format)
		json_text(j, "format", d->format);
	if (d->bus)
		json_text(j, "bus", d->bus);
	if (d->size)
		json_number(j, "virtual-size", d->size);
	json_end(j);
}

int package_json(const struct package *p, const char *name)
{
	struct package_info i;
	struct json j = {0};

	package_info(p, &i);
	json_object(&j, NULL);
	json_number(&j, "version", 1);
	json_text(&j, "filename", name);
	json_text(&j, "package", i.kind);
	if (i.name)
		json_text(&j, "name", i.name);
	if (i.os)
		json_text(&j, "os", i.os);
	if (i.firmware)
		json_text(&j, "firmware", i.firmware);
	if (i.memory)
		json_number(&j, "memory", i.memory);
	if (i.cpus)
		json_number(&j, "cpus", i.cpus);
	json_list(&j, "disks");
	for (unsigned k = 0; k < i.n_disks; k++) {
		struct package_disk_info d;

		package_disk_info(p, k, &d);
		disk_json(&j, &d);
	}
	json_end(&j);
	json_end(&j);
	return print_json(&j);
}

/* What comes from packages must not control the terminal. */
static void print_safe(const char *key, const char *text)
{
	if (!text)
		return;
	printf("%s: ", key);
	for (; *text; text++)
		putchar(iscntrl((unsigned char)*text) ? '?' : *text);
	printf("\n");
}

void package_text(const struct package *p, const char *name)
{
	struct package_info i;
	char size[16];

	package_info(p, &i);
	printf("package: %s\nkind: %s (%s)\n", name, i.kind, i.title);
	print_safe("name", i.name);
	print_safe("operating system", i.os);
	print_safe("firmware", i.firmware);
	if (i.memory)
		printf("memory: %s\n", size_format(i.memory, size, sizeof(size)));
	if (i.cpus)
		printf("processors: %u\n", i.cpus);
	for (unsigned k = 0; k < i.n_disks; k++) {
		struct package_disk_info d;

		package_disk_info(p, k, &d);
		printf("disk %u", k + 1);
		print_safe("", d.name);
		if (d.size)
			printf("    virtual size: %s (%" PRIu64 " bytes)\n",
			       size_format(d.size, size, sizeof(size)), d.size);
		print_safe("    format", d.format);
		print_safe("    bus", d.bus);
	}
	if (!i.n_disks)
		printf("no disks\n");
}

/* ---- one disk ---- */

static const char *extension(const char *fmt)
{
	static const char *const other[][2] = {{"vpc", "vhd"}, {"parallels", "hds"}};

	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
		if (!strcmp(fmt, other[i][0]))
			return other[i][1];
	return fmt;
}

/* "folder/disk1.qcow2" of "sub/disk1.vmdk": what a package says never leads out of the folder. */
static char *path_in(const char *folder, const struct package_disk_info *d, unsigned k,
		     const char *fmt)
{
	const char *slash = strrchr(d->name, '/'), *base = slash ? slash + 1 : d->name;
	const char *dot = strrchr(base, '.');
	size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
	char name[201], *path;

	snprintf(name, sizeof(name), "%.*s", (int)(n > 200 ? 200 : n), base);
	for (char *s = name; *s; s++)
		if (iscntrl((unsigned char)*s) || *s == '/' || *s == ':')
			*s = '_';
	if (!*name || name[0] == '.')
		snprintf(name, sizeof(name), "disk%u", k + 1);
	if (asprintf(&path, "%s/%s.%s", folder, name, extension(fmt)) < 0)
		return NULL;
	return path;
}

struct import {
	struct img *in, *out;
	struct img_target *target;
	struct img_work_list work;
};

static int copy_disk(struct import *m, const char *to, bool replace, struct err *err)
{
	struct img_source src = {.img = &m->in, .n = 1};
	struct cli_progress bar;
	struct img_copy_opts o = {.sparse = 4096,
				  .packed = packed,
				  .progress = job_progress,
				  .ctx = &bar,
				  .stop = &stop};
	struct img_create_opts create = {.format = format,
					 .replace = replace,
					 .options = c.options,
					 .n_options = c.n_options};
	struct img_plan plan;
	int rc = img_work_list(&src, false, &m->work, err);

	if (rc)
		return rc;
	create.size = m->work.size;
	plan = (struct img_plan){m->work.data, m->work.n_data, packed};
	rc = img_target_new(to, &create, &plan, &m->target, &m->out, err);
	if (rc)
		return rc;
	o.zero_known = img_starts_zero(m->out);
	if (!o.zero_known)
		rc = img_work_fill(&m->work, m->work.size, err);
	if (!rc) {
		job_start(&c, &bar);
		rc = img_copy(&src, m->out, &m->work, &o, err);
		cli_progress_end(&bar, !rc);
	}
	if (!rc) {
		rc = img_target_commit(m->target, m->out, err);
		m->target = NULL;
		m->out = NULL;
	}
	return rc;
}

static int import_image(struct img *in, const char *to, bool replace, struct err *err)
{
	struct import m = {.in = in};
	int rc = copy_disk(&m, to, replace, err);

	if (m.target)
		img_target_drop(m.target, m.out);
	img_work_free(&m.work);
	return rc;
}

static int import_disk(struct package *p, unsigned k, const char *to, bool replace)
{
	struct img_opts o = {.no_lock = c.share, .allow_external = c.allow_external};
	struct img *in;
	struct err err = {0};

	if (package_open_disk(p, k, &o, &in, &err) < 0)
		return fail(&err);
	if (import_image(in, to, replace, &err) < 0) {
		img_close(in);
		return fail(&err);
	}
	img_close(in);
	if (!c.quiet && strcmp(to, "-"))
		printf("%s\n", to);
	return 0;
}

/* ---- all of them ---- */

static bool is_folder(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static int check_disks(const struct package *p, const char *name)
{
	struct package_info i;
	struct err err;

	package_info(p, &i);
	if (!i.n_disks) {
		err_set(&err, ENOENT, "there is no disk in '%s'", name);
		return fail(&err);
	}
	if (only > i.n_disks) {
		err_set(&err, ENOENT, "'%s' has %u disks, not %u", name, i.n_disks,
			only);
		return fail(&err);
	}
	if (i.n_disks > 1 && !only && out_path && !is_folder(out_path)) {
		err_set(&err, EINVAL,
			"'%s' has %u disks: -o must be a folder that is there, or "
			"--disk tells which one is wanted",
			name, i.n_disks);
		return fail(&err);
	}
	return 0;
}

static int import_all(struct package *p, const char *name)
{
	bool folder = !out_path || is_folder(out_path);
	struct package_info i;
	struct err err = {0};
	unsigned n = 0;
	int st = check_disks(p, name);

	if (!st && !no_verify && package_verify(p, &n, &err) < 0)
		return fail(&err);
	package_info(p, &i);
	for (unsigned k = 0; k < i.n_disks && !st; k++) {
		struct package_disk_info d;
		char *to;

		if (only && k + 1 != only)
			continue;
		package_disk_info(p, k, &d);
		to = folder ? path_in(out_path ? out_path : ".", &d, k, format)
			    : strdup(out_path);
		/* A name that the package chose replaces nothing. */
		st = to ? import_disk(p, k, to, !folder) : CLI_FAILED;
		free(to);
	}
	return st;
}

/* ---- trees of files ---- */

static int tree_tell(const struct rootfs *r, const char *name)
{
	struct json j = {0};

	if (!want_json(&c)) {
		printf("tree of files: %s\nkind: %s\nlayers: %u\n", name,
		       rootfs_kind(r), rootfs_layers(r));
		return 0;
	}
	json_object(&j, NULL);
	json_number(&j, "version", 1);
	json_text(&j, "filename", name);
	json_text(&j, "package", rootfs_kind(r));
	json_number(&j, "layers", rootfs_layers(r));
	json_end(&j);
	return print_json(&j);
}

/* "folder/debian.qcow2" of "dir/debian.tar.xz" */
static char *tree_target(const char *name)
{
	struct package_disk_info d = {.name = "rootfs"};
	size_t n = strlen(name);
	char *base, *path;

	while (n > 1 && name[n - 1] == '/')
		n--;
	base = strndup(name, n);
	if (base && strcmp(name, "-")) {
		char *tar = strcasestr(base, ".tar");

		if (tar && tar > base && tar[-1] != '/')
			*tar = 0;
		d.name = base;
	}
	path = path_in(out_path ? out_path : ".", &d, 0, format);
	free(base);
	return path;
}

/* What the disk needs to be started. */
static void tell_boot(const struct rootfs_disk *d)
{
	if (!d->bootable)
		fprintf(stderr,
			"vm-img import: no kernel in /boot: the disk is the file "
			"system alone, which 'vm-run KERNEL -d DISK -a root=/dev/vda' "
			"starts; --kernel makes a bootable one\n");
	else if (!d->initrd[0])
		fprintf(stderr,
			"vm-img import: no initial RAM disk of '%s': the kernel needs "
			"the drivers of disk and ext4 built in\n",
			d->kernel);
	if (d->bootable && !d->has_init && !strstr(d->line, "init="))
		fprintf(stderr,
			"vm-img import: there is no /sbin/init: the kernel starts "
			"/bin/sh if there is one; --append init=PROGRAM names "
			"another\n");
}

/* The kernel that was given is the topmost layer. */
static int add_kernel(struct rootfs *r, int *fd, struct err *err)
{
	if (!kernel)
		return 0;
	*fd = bootdisk_kernel_tar(kernel, initrd, err);
	return *fd < 0 ? *fd : rootfs_add_tar(r, *fd, err);
}

static int import_tree(struct rootfs *r, const char *name)
{
	struct rootfs_disk d = {.size = fs_size, .label = label, .command = append};
	int top = -1;
	bool folder = !out_path || is_folder(out_path);
	char *to = folder ? tree_target(name) : strdup(out_path);
	struct img_opts o = {.format = "raw", .read_only = true};
	struct img *in = NULL;
	struct err err = {0};
	int fd = img_temp_fd(&err), again, rc = fd < 0 ? fd : 0;

	if (!to)
		rc = err_set(&err, ENOMEM, "no memory");
	if (!rc)
		rc = add_kernel(r, &top, &err);
	if (!rc)
		rc = rootfs_write(r, fd, &d, &err);
	if (!rc && (again = dup(fd)) >= 0)
		rc = img_open_fd(again, "the file system", &o, &in, &err);
	if (!rc)
		rc = import_image(in, to, !folder, &err);
	img_close(in);
	if (fd >= 0)
		close(fd);
	if (top >= 0)
		close(top);
	if (!rc && !c.quiet)
		tell_boot(&d);
	if (!rc && !c.quiet && strcmp(to, "-"))
		printf("%s\n", to);
	free(to);
	return rc ? fail(&err) : 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		{"target-format", 'O', POPT_ARG_STRING, &wanted, 0,
		 "format of the images (default qcow2)", "FMT"},
		{"to", 'o', POPT_ARG_STRING, &out_path, 0,
		 "image or folder to write to (default: this folder)", "PATH"},
		{"options", 0, POPT_ARG_STRING, NULL, OPT_LIST,
		 "settings of the format: 'vm-img formats FMT' lists them",
		 "NAME=VALUE,..."},
		{"disk", 0, POPT_ARG_STRING, NULL, OPT_DISK,
		 "only this disk, from 1 on", "N"},
		{"size", 0, POPT_ARG_STRING, NULL, OPT_SIZE,
		 "of the file system made of a tree (default: a quarter more than "
		 "it needs)",
		 "SIZE"},
		{"label", 0, POPT_ARG_STRING, &label, 0, "of that file system", "NAME"},
		{"kernel", 0, POPT_ARG_STRING, &kernel, 0,
		 "a Linux kernel for a tree, as /boot/vmlinuz", "FILE"},
		{"initrd", 0, POPT_ARG_STRING, &initrd, 0,
		 "its initial RAM disk, as /boot/initrd.img", "FILE"},
		{"append", 0, POPT_ARG_STRING, &append, 0,
		 "the kernel's command line, behind root= (default: console=tty0 "
		 "console=ttyS0)",
		 "TEXT"},
		{"compress", 'c', POPT_ARG_NONE, &packed, 0, "compress the images",
		 NULL},
		{"list", 'l', POPT_ARG_NONE, &list_only, 0,
		 "only tell what is in the package", NULL},
		{"no-verify", 0, POPT_ARG_NONE, &no_verify, 0,
		 "do not compare with the package's digests", NULL},
		O_JSON(&c),
		O_PROGRESS(&c),
		O_QUIET(&c),
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img_format_info fi;
	struct package *p = NULL;
	struct rootfs *tree = NULL;
	struct err err = {0};
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 1, 1, apply, &st))
		return st;
	if (c.options_help)
		return print_options(wanted);
	if (initrd && !kernel)
		return usage("--initrd is that of --kernel");
	if (img_format_find(wanted, &fi, &err) < 0)
		return fail(&err);
	format = fi.name;
	st = open_package(c.args[0], &p, &tree, &err);
	if (!st && p && (kernel || append)) {
		package_close(p);
		return usage("--kernel and --append are for trees of files");
	}
	if (tree) {
		st = list_only ? tree_tell(tree, c.args[0])
			       : import_tree(tree, c.args[0]);
		rootfs_close(tree);
		return st;
	}
	if (!st && !p)
		st = err_set(&err, EINVAL,
			     "'%s' is not a package: 'convert' copies images",
			     c.args[0]);
	if (st)
		return fail(&err);
	if (!list_only) {
		st = import_all(p, c.args[0]);
	} else if (want_json(&c)) {
		st = package_json(p, c.args[0]);
	} else {
		package_text(p, c.args[0]);
	}
	package_close(p);
	return st;
}

const struct command cmd_import = {
	.name = "import",
	.run = run,
	.usage = "[OPTION...] PACKAGE",
	.summary =
		"Makes images of the disks in a package: OVA, OVF, Vagrant box, Xen "
		"XVA, Proxmox VMA,\nfolder of VMware or Parallels; or a disk with an "
		"ext4 file system of a tree of files:\ntar file, docker save, OCI "
		"image, folder. '-' is standard input; what is packed by\ngzip, "
		"xz, zstd, bzip2 or lz4 is unpacked.",
	.examples =
		"  docker save debian | vm-img import -o debian.qcow2 --size 4G -\n"
		"  vm-img import --kernel vmlinuz --initrd initrd.img -o alpine.qcow2 "
		"alpine-rootfs.tar\n"
		"  vm-img import --list appliance.ova\n"
		"  vm-img import -O qcow2 -o disks/ appliance.ova\n"
		"  vm-img import -O raw --disk 1 -o disk.raw vm.vma.zst\n"
		"  curl -s https://example.org/a.ova | vm-img import -\n",
};

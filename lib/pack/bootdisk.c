/*
 * pack/bootdisk.c - looks for a kernel in a tree of files, and puts a loader before the file system that starts it. One thread.
 */
#include "pack/bootdisk.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "base/guid.h"
#include "boot/boot.h"
#include "img/img.h"
#include "pack/ext4.h"

#define MAX_LINKS 16

/* ---- names in the tree ---- */

static uint32_t child_of(const struct tree *t, uint32_t dir, const char *name,
			 size_t len)
{
	uint32_t i = t->node[dir].child;

	while (i != TREE_NONE &&
	       (t->node[i].object == TREE_NONE || strlen(t->node[i].name) != len ||
		memcmp(t->node[i].name, name, len)))
		i = t->node[i].next;
	return i;
}

/* Follows symbolic links; `links` counts them down. */
static uint32_t look_up(const struct tree *t, uint32_t from, const char *path,
			unsigned *links)
{
	uint32_t at = *path == '/' ? TREE_ROOT : from;

	for (;;) {
		size_t len;
		uint32_t next;
		const struct tree_object *o;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (!len || at == TREE_NONE)
			return at;
		if (len == 2 && !memcmp(path, "..", 2)) {
			at = at == TREE_ROOT ? at : t->node[at].parent;
		} else if (len != 1 || *path != '.') {
			next = child_of(t, at, path, len);
			if (next == TREE_NONE)
				return next;
			o = &t->object[t->node[next].object];
			if (S_ISLNK(o->mode)) {
				if (!*links)
					return TREE_NONE;
				--*links;
				next = look_up(t, at, o->target, links);
			}
			at = next;
		}
		path += len;
	}
}

/* The object of a regular file, or TREE_NONE. */
static uint32_t file_at(const struct tree *t, uint32_t dir, const char *path)
{
	unsigned links = MAX_LINKS;
	uint32_t i = look_up(t, dir, path, &links);

	if (i == TREE_NONE || t->node[i].object == TREE_NONE ||
	    !S_ISREG(t->object[t->node[i].object].mode))
		return TREE_NONE;
	return t->node[i].object;
}

static uint32_t boot_dir(const struct tree *t)
{
	unsigned links = MAX_LINKS;

	return look_up(t, TREE_ROOT, "/boot", &links);
}

/* ---- the kernel ---- */

struct choice {
	char kernel[256], initrd[256]; /* names in /boot; "" if there is none */
	uint32_t kernel_object, initrd_object;
};

/* "vmlinuz" by itself (that is what was asked for), else the newest "vmlinuz-VERSION". */
static void choose_kernel(const struct tree *t, uint32_t dir, struct choice *c)
{
	const char *best = NULL;

	for (uint32_t i = t->node[dir].child; i != TREE_NONE; i = t->node[i].next) {
		const char *name = t->node[i].name;
		bool exact = !strcmp(name, "vmlinuz");

		if (strlen(name) >= sizeof(c->kernel) ||
		    (!exact && strncmp(name, "vmlinuz-", 8)) ||
		    file_at(t, dir, name) == TREE_NONE)
			continue;
		if (!best || exact ||
		    (strcmp(best, "vmlinuz") && strverscmp(name, best) > 0))
			best = name;
	}
	if (!best)
		return;
	strcpy(c->kernel, best);
	c->kernel_object = file_at(t, dir, best);
}

/* What distributions call the initial RAM disk of that kernel. */
static void choose_initrd(const struct tree *t, uint32_t dir, struct choice *c)
{
	static const char *const names[] = {"initrd.img%s%s", "initramfs%s%s.img",
					    "initrd%s%s", "initramfs%s%s",
					    "initrd%s%s.img"};
	const char *version = c->kernel[7] ? c->kernel + 8 : "";

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		char name[300];

		snprintf(name, sizeof(name), names[i], *version ? "-" : "", version);
		c->initrd_object = file_at(t, dir, name);
		if (c->initrd_object == TREE_NONE || strlen(name) >= sizeof(c->initrd))
			continue;
		strcpy(c->initrd, name);
		return;
	}
}

static bool has_init(const struct tree *t)
{
	static const char *const names[] = {"/sbin/init", "/etc/init", "/bin/init"};
	bool has = false;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		has |= file_at(t, TREE_ROOT, names[i]) != TREE_NONE;
	return has;
}

/* ---- the command line ---- */

/* root= by the disk's number, which is the same on every kind of controller. */
static int make_line(struct rootfs_disk *d, uint32_t id, const char *command,
		     struct err *err)
{
	const char *rest = d->command ? d->command : "console=tty0 console=ttyS0";
	char init[600] = "", args[600] = "";
	int n;

	if (!d->has_init && command && !strstr(rest, "init=")) {
		size_t first = strcspn(command, " ");

		if (strlen(command) >= sizeof(init) - 8)
			return err_set(err, E2BIG,
				       "the container's command is too long");
		snprintf(init, sizeof(init), " init=%.*s", (int)first, command);
		if (command[first])
			snprintf(args, sizeof(args), " --%s", command + first);
	}
	n = snprintf(d->line, sizeof(d->line), "root=PARTUUID=%08x-01 rw%s %s%s", id,
		     init, rest, args);
	if (n < 0 || (size_t)n >= sizeof(d->line))
		return err_set(err, E2BIG, "the kernel's command line is too long");
	return 0;
}

/* ---- writing ---- */

static int write_loader(int fd, uint64_t size, struct rootfs_disk *d,
			const char *command, const struct ext4_file *f, unsigned n,
			struct err *err)
{
	struct boot_file kernel = {f[0].run, f[0].n, f[0].size}, initrd = {0};
	uint8_t *gap = calloc(1, BOOT_GAP), head[BOOT_KERNEL_HEAD];
	struct guid g;
	uint32_t id;
	int rc = gap ? guid_make(&g, true) : -ENOMEM;

	if (n > 1)
		initrd = (struct boot_file){f[1].run, f[1].n, f[1].size};
	if (rc) {
		free(gap);
		return err_sys(err, -rc, "cannot make a loader");
	}
	memcpy(&id, g.b, sizeof(id));
	if (!kernel.n || !kernel.run[0].first ||
	    fd_pread_full(fd, head, sizeof(head), kernel.run[0].first * 512) !=
		    (int64_t)sizeof(head))
		rc = err_set(err, EINVAL, "the kernel is no Linux kernel for x86");
	if (!rc)
		rc = make_line(d, id, command, err);
	if (!rc)
		rc = boot_make(gap, size / 512, id, head, &kernel, &initrd, d->line,
			       err);
	if (rc)
		err_prefix(err, "'/boot/%s'", d->kernel);
	else if (pwrite(fd, gap, BOOT_GAP, 0) != BOOT_GAP)
		rc = err_sys(err, errno, "cannot write the loader");
	free(gap);
	return rc;
}

int bootdisk_write(int fd, uint64_t size, struct rootfs_disk *d, const char *command,
		   struct tree *t, const struct tree_layer *v, unsigned n,
		   struct err *err)
{
	struct choice c = {.kernel_object = TREE_NONE, .initrd_object = TREE_NONE};
	uint32_t dir = boot_dir(t);
	struct ext4_file f[2] = {{0}};
	unsigned n_files;
	int rc;

	if (dir != TREE_NONE)
		choose_kernel(t, dir, &c);
	if (c.kernel_object != TREE_NONE)
		choose_initrd(t, dir, &c);
	d->bootable = c.kernel_object != TREE_NONE;
	d->has_init = has_init(t);
	memcpy(d->kernel, c.kernel, sizeof(d->kernel));
	memcpy(d->initrd, c.initrd, sizeof(d->initrd));
	f[0].object = c.kernel_object;
	f[1].object = c.initrd_object;
	n_files = !d->bootable ? 0 : c.initrd_object == TREE_NONE ? 1 : 2;
	rc = ext4_write(fd, d->bootable ? BOOT_GAP : 0, size, d->label, t, v, n, f,
			n_files, err);
	if (!rc && d->bootable)
		rc = write_loader(fd, size, d, command, f, n_files, err);
	free(f[0].run);
	free(f[1].run);
	return rc;
}

/* ---- a kernel from elsewhere ---- */

static int put(struct archive *a, const char *path, const char *name, struct err *err)
{
	struct archive_entry *e = archive_entry_new();
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc = 0;
	char buf[65536];
	struct stat st;
	ssize_t n = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		rc = err_sys(err, errno, "cannot open '%s'", path);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(err, EINVAL, "'%s' is not a regular file", path);
	if (!rc) {
		archive_entry_set_pathname(e, name);
		archive_entry_set_mode(e, S_IFREG | 0644);
		archive_entry_set_size(e, st.st_size);
		archive_entry_set_mtime(e, st.st_mtime, 0);
		if (archive_write_header(a, e) != ARCHIVE_OK)
			rc = err_set(err, EIO, "cannot copy '%s'", path);
	}
	while (!rc && (n = read(fd, buf, sizeof(buf))) > 0)
		if (archive_write_data(a, buf, (size_t)n) != n)
			rc = err_set(err, EIO, "cannot copy '%s': %.100s", path,
				     archive_error_string(a));
	if (!rc && n < 0)
		rc = err_sys(err, errno, "cannot read '%s'", path);
	if (fd >= 0)
		close(fd);
	archive_entry_free(e);
	return rc;
}

int bootdisk_kernel_tar(const char *kernel, const char *initrd, struct err *err)
{
	struct archive *a = archive_write_new();
	int fd = img_temp_fd(err), rc = fd < 0 ? fd : 0;

	if (!rc && (!a || archive_write_set_format_ustar(a) != ARCHIVE_OK ||
		    archive_write_open_fd(a, fd) != ARCHIVE_OK))
		rc = err_set(err, ENOMEM, "no memory to copy '%s'", kernel);
	if (!rc)
		rc = put(a, kernel, "boot/vmlinuz", err);
	if (!rc && initrd)
		rc = put(a, initrd, "boot/initrd.img", err);
	if (!rc && archive_write_close(a) != ARCHIVE_OK)
		rc = err_set(err, EIO, "cannot copy '%s'", kernel);
	archive_write_free(a);
	if (rc && fd >= 0)
		close(fd);
	return rc ? rc : fd;
}

/* facts/collect.c - reads what is judged, by one table of paths. Main thread. */
#include "facts/collect.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "facts/collect_int.h"

#define MAX_PATH    512
#define MAX_NAMES   1024 /* of one pattern */
#define MAX_ENTRIES 20000

enum kind {
	TEXT,  /* the content */
	NAME,  /* only that it is there */
	NODE,  /* type, rights, numbers, may it be opened */
	FIRST, /* the first paragraph */
	WORDS, /* the words that begin with one of `words` */
	LINES, /* the lines that hold one of `words` */
};

struct source {
	const char *path; /* a component may be a pattern */
	enum kind kind;
	const char *words; /* separated by blanks */
};

/* clang-format off */
static const struct source sources[] = {
	{"proc/cpuinfo", FIRST, NULL},
	{"proc/meminfo", TEXT, NULL},
	{"proc/modules", LINES, "kvm vbox vmmon vmnet vhost vfio tun xen hv_ hyperv irqbypass bridge ccp sev tdx prl_"},
	{"proc/misc", TEXT, NULL},
	{"proc/cmdline", WORDS, "kvm intel_iommu amd_iommu iommu= mitigations nosmt clearcpuid nox2apic hugepages "
		"hugepagesz default_hugepagesz transparent_hugepage lockdown= nopti pti= spec nospec l1tf mds tsx nosvm "
		"module_blacklist modprobe.blacklist nomodule nested pci=noats vfio iommufd sev mem_encrypt tdx noapic nolapic xen"},
	{"proc/sys/kernel/osrelease", TEXT, NULL},
	{"proc/sys/kernel/modules_disabled", TEXT, NULL},
	{"proc/sys/vm/overcommit_memory", TEXT, NULL},
	{"proc/sys/vm/nr_hugepages", TEXT, NULL},
	{"proc/version", LINES, "icrosoft gVisor"},
	{"proc/1/cgroup", LINES, "docker kubepods lxc libpod machine.slice containerd ecs buildkit crio garden"},
	{"proc/self/status", LINES, "CapEff Seccomp: NoNewPrivs"},
	{"proc/self/ns/*", NAME, NULL},
	{"proc/self/uid_map", TEXT, NULL},
	{"proc/xen/capabilities", TEXT, NULL},
	{"proc/vz", NAME, NULL},
	{"proc/bc", NAME, NULL},
	{"proc/config.gz", NAME, NULL},
	{"etc/os-release", LINES, "ID= ID_LIKE= PRETTY_NAME= VERSION_ID="},
	{"etc/group", LINES, "kvm: libvirt:"},
	{"etc/modprobe.d/*.conf", LINES, "kvm vhost"},
	{"run/systemd/container", TEXT, NULL},
	{"run/host/container-manager", TEXT, NULL},
	{".dockerenv", NAME, NULL},
	{"run/.containerenv", NAME, NULL},
	{"run/WSL", NAME, NULL},
	{"dev/lxd", NAME, NULL},
	{"run/udev/control", NAME, NULL},
	{"sys/module/*", NAME, NULL},
	{"sys/module/kvm*/parameters/*", TEXT, NULL},
	{"sys/module/vfio*/parameters/*", TEXT, NULL},
	{"sys/hypervisor/type", TEXT, NULL},
	{"sys/hypervisor/properties/features", TEXT, NULL},
	{"sys/kernel/security/lockdown", TEXT, NULL},
	{"sys/kernel/iommu_groups/*/devices/*", NAME, NULL},
	{"sys/class/iommu/*", NAME, NULL},
	{"sys/class/dmi/id/sys_vendor", TEXT, NULL},
	{"sys/class/dmi/id/product_name", TEXT, NULL},
	{"sys/class/dmi/id/product_version", TEXT, NULL},
	{"sys/class/dmi/id/board_vendor", TEXT, NULL},
	{"sys/class/dmi/id/board_name", TEXT, NULL},
	{"sys/class/dmi/id/bios_vendor", TEXT, NULL},
	{"sys/class/dmi/id/bios_version", TEXT, NULL},
	{"sys/class/dmi/id/bios_date", TEXT, NULL},
	{"sys/class/dmi/id/chassis_type", TEXT, NULL},
	{"sys/class/dmi/id/chassis_asset_tag", LINES, "7783-7084-3265-9085-8269-3286-77"}, /* Azure, nothing else */
	{"sys/firmware/efi", NAME, NULL},
	{"sys/firmware/efi/fw_platform_size", TEXT, NULL},
	{"sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", TEXT, NULL},
	{"sys/firmware/acpi/tables/DMAR", NAME, NULL},
	{"sys/firmware/acpi/tables/IVRS", NAME, NULL},
	{"sys/kernel/mm/hugepages/*/nr_hugepages", TEXT, NULL},
	{"sys/kernel/mm/hugepages/*/free_hugepages", TEXT, NULL},
	{"sys/kernel/mm/transparent_hugepage/enabled", TEXT, NULL},
	{"sys/kernel/mm/ksm/run", TEXT, NULL},
	{"sys/devices/system/cpu/online", TEXT, NULL},
	{"sys/devices/system/cpu/present", TEXT, NULL},
	{"sys/devices/system/cpu/offline", TEXT, NULL},
	{"sys/devices/system/cpu/cpu0/topology/thread_siblings_list", TEXT, NULL},
	{"sys/devices/system/cpu/cpu0/topology/core_siblings_list", TEXT, NULL},
	{"sys/devices/system/cpu/cpu0/cache/index*/level", TEXT, NULL},
	{"sys/devices/system/cpu/cpu0/cache/index*/type", TEXT, NULL},
	{"sys/devices/system/cpu/cpu0/cache/index*/size", TEXT, NULL},
	{"sys/devices/system/cpu/cpu0/cache/index*/shared_cpu_list", TEXT, NULL},
	{"sys/devices/system/cpu/smt/active", TEXT, NULL},
	{"sys/devices/system/cpu/vulnerabilities/*", TEXT, NULL},
	{"sys/devices/system/node/node*", NAME, NULL},
	{"sys/devices/system/node/node*/cpulist", TEXT, NULL},
	{"sys/fs/fuse/connections", NAME, NULL},
	{"sys/fs/cgroup/cgroup.controllers", TEXT, NULL},
	{"sys/fs/cgroup/*", NAME, NULL},
	{"sys/class/net/*/bridge", NAME, NULL},
	{"sys/devices/virtual/misc/tdx_guest", NAME, NULL},
	{"dev/kvm", NODE, NULL},
	{"dev/sev", NODE, NULL},
	{"dev/sev-guest", NODE, NULL},
	{"dev/vhost-net", NODE, NULL},
	{"dev/vhost-vsock", NODE, NULL},
	{"dev/net/tun", NODE, NULL},
	{"dev/vfio/vfio", NODE, NULL},
	{"dev/iommu", NODE, NULL},
	{"dev/fuse", NODE, NULL},
	{"dev/vboxdrv", NODE, NULL},
	{"dev/vmmon", NODE, NULL},
	{"dev/mshv", NODE, NULL},
	{"dev/dxg", NODE, NULL},
	{"dev/cpu/0/msr", NODE, NULL},
};

/* Below lib/modules/RELEASE. */
static const struct source modules[] = {
	{"modules.builtin", LINES, "kvm vhost vfio /tun."},
	{"modules.dep", LINES, "kvm vhost vfio /tun."},
};

/* In a captured tree only: what collect_live() gets elsewhere. */
static const char *const captured[] = {
	"vm-check/cpuid", "vm-check/msr", "vm-check/kernel-log", "vm-check/user", "vm-check/processes", "vm-check/proof",
};
/* clang-format on */

struct collector {
	struct snap *s;
	const char *root; /* without trailing slash; "" for this computer */
	bool live;
	unsigned names, entries;
};

static bool has_word(const char *line, size_t len, const char *words, bool at_start)
{
	while (*words) {
		size_t n = strcspn(words, " ");

		if (n && n <= len &&
		    (at_start ? !memcmp(line, words, n)
			      : memmem(line, len, words, n) != NULL))
			return true;
		words += n + strspn(words + n, " ");
	}
	return false;
}

/* Keeps the pieces (ended by one of `ends`) of buf that are wanted; returns the new length. */
static size_t keep(char *buf, size_t len, const struct source *src)
{
	const char *ends = src->kind == WORDS ? " \n" : "\n";
	size_t out = 0, n;

	for (size_t at = 0; at < len; at += n) {
		n = 0;
		while (at + n < len && !memchr(ends, buf[at + n], strlen(ends)))
			n++;
		n += at + n < len;
		if (has_word(buf + at, n, src->words, src->kind == WORDS)) {
			memmove(buf + out, buf + at, n);
			out += n;
		}
	}
	return out;
}

static void add_text(struct collector *c, const char *path, int fd,
		     const struct source *src)
{
	size_t max = src->kind == LINES ? 1 << 20 : SNAP_MAX_FILE;
	char *buf = malloc(max + 1), *gap;
	int64_t n = buf ? fd_read_full(fd, buf, max) : -ENOMEM;

	if (n < 0) {
		snap_add(c->s, path, NULL, 0, (int)-n);
		free(buf);
		return;
	}
	buf[n] = 0;
	if (src->kind == FIRST && (gap = strstr(buf, "\n\n")))
		n = gap + 1 - buf;
	if (src->kind == LINES || src->kind == WORDS)
		n = (int64_t)keep(buf, (size_t)n, src);
	snap_add(c->s, path, buf, (size_t)n, 0);
	free(buf);
}

/* "crw-rw---- UID GID MAJOR MINOR ACCESS" */
static void add_node(struct collector *c, const char *path, const char *full,
		     const struct stat *st)
{
	char text[120];
	int n, rc = access(full, R_OK | W_OK) ? errno : 0;
	char type = S_ISCHR(st->st_mode)    ? 'c'
		    : S_ISBLK(st->st_mode)  ? 'b'
		    : S_ISFIFO(st->st_mode) ? 'p'
		    : S_ISSOCK(st->st_mode) ? 's'
		    : S_ISDIR(st->st_mode)  ? 'd'
					    : '-';

	n = snprintf(text, sizeof(text), "%c %04o %u %u %u %u %s\n", type,
		     (unsigned)st->st_mode & 07777, (unsigned)st->st_uid,
		     (unsigned)st->st_gid, major(st->st_rdev), minor(st->st_rdev),
		     rc ? strerrorname_np(rc) : "ok");
	snap_add(c->s, path, text, (size_t)n, 0);
}

static void add_file(struct collector *c, const char *path, const struct source *src)
{
	char full[MAX_PATH + 256];
	struct stat st;
	int fd;

	snprintf(full, sizeof(full), "%s/%s", c->root, path);
	snap_reading(c->s, c->root, path);
	if (stat(full, &st) < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			snap_add(c->s, path, NULL, 0, errno);
		return;
	}
	if (src->kind == NODE && c->live) {
		add_node(c, path, full, &st);
		return;
	}
	if (src->kind == NAME || S_ISDIR(st.st_mode)) {
		char name[MAX_PATH + 2];

		snprintf(name, sizeof(name), "%s%s", path,
			 S_ISDIR(st.st_mode) ? "/" : "");
		snap_add(c->s, name, "", 0, 0);
		return;
	}
	fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0 && S_ISREG(st.st_mode))
		add_text(c, path, fd, src);
	else
		snap_add(c->s, path, NULL, 0, fd < 0 ? errno : EINVAL);
	if (fd >= 0)
		close(fd);
}

/* Names that the text form could not hold are no names of /proc, /sys, /dev. */
static bool name_ok(const char *name)
{
	if (name[0] == '.')
		return false;
	for (; *name; name++)
		if ((unsigned char)*name <= ' ' || (unsigned char)*name > '~')
			return false;
	return true;
}

/* Adds what `rest` (a pattern) names below `done`. */
static void expand(struct collector *c, const char *done, const char *rest,
		   const struct source *src)
{
	size_t n = strcspn(rest, "/");
	char part[128], path[MAX_PATH], full[MAX_PATH + 256];
	struct dirent *d;
	DIR *dir;

	if (n >= sizeof(part) || strlen(done) + n + 2 > sizeof(path))
		return;
	memcpy(part, rest, n);
	part[n] = 0;
	if (!strpbrk(part, "*?")) {
		snprintf(path, sizeof(path), "%s%s%s", done, *done ? "/" : "", part);
		if (rest[n])
			expand(c, path, rest + n + 1, src);
		else if (c->names++ < MAX_NAMES)
			add_file(c, path, src);
		return;
	}
	snprintf(full, sizeof(full), "%s/%s", c->root, done);
	snap_reading(c->s, c->root, done);
	dir = opendir(full);
	while (dir && (d = readdir(dir)) && c->entries++ < MAX_ENTRIES) {
		int len = snprintf(path, sizeof(path), "%s/%s", done, d->d_name);

		if (!name_ok(d->d_name) || fnmatch(part, d->d_name, 0) || len < 0 ||
		    (size_t)len >= sizeof(path))
			continue;
		if (rest[n])
			expand(c, path, rest + n + 1, src);
		else if (c->names++ < MAX_NAMES)
			add_file(c, path, src);
	}
	if (dir)
		closedir(dir);
}

static void collect_files(struct collector *c)
{
	char release[128];

	for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
		c->names = c->entries = 0;
		expand(c, "", sources[i].path, &sources[i]);
	}
	snap_line(c->s, "proc/sys/kernel/osrelease", release, sizeof(release));
	if (!release[0] || strchr(release, '/') || release[0] == '.')
		return;
	for (size_t i = 0; i < ARRAY_LEN(modules); i++) {
		char path[MAX_PATH];

		snprintf(path, sizeof(path), "lib/modules/%s/%s", release,
			 modules[i].path);
		add_file(c, path, &modules[i]);
	}
}

void collect_live(struct snap *s)
{
	struct collector c = {.s = s, .root = "", .live = true};

	collect_files(&c);
	collect_user(s);
	collect_cpuid(s);
	collect_msr(s);
	collect_log(s);
	collect_processes(s);
	snap_sort(s);
}

static int load_text(struct snap *s, const char *path, struct err *err)
{
	void *text;
	size_t len;
	int rc = fd_load_file(path, 2 * SNAP_MAX_TEXT, &text, &len, err);

	if (rc)
		return rc;
	rc = snap_parse(s, text, len, err);
	free(text);
	return rc ? err_prefix(err, "cannot read '%s'", path) : 0;
}

int collect_root(struct snap *s, const char *root, struct err *err)
{
	static const struct source whole = {"", TEXT, NULL};
	struct collector c = {.s = s, .root = root};
	struct stat st;

	if (stat(root, &st) < 0)
		return err_sys(err, errno, "cannot open '%s'", root);
	if (S_ISREG(st.st_mode))
		return load_text(s, root, err);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "'%s' is no captured tree", root);
	collect_files(&c);
	for (size_t i = 0; i < ARRAY_LEN(captured); i++)
		add_file(&c, captured[i], &whole);
	snap_sort(s);
	if (!s->n)
		return err_set(err, ENOENT,
			       "'%s' holds nothing of proc/, sys/, dev/, vm-check/",
			       root);
	return 0;
}

/* ---- writing a tree ---- */

static int make_parents(char *path, size_t from)
{
	for (char *p = path + from; (p = strchr(p + 1, '/'));) {
		*p = 0;
		if (mkdir(path, 0777) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

static int save_file(const struct snap_file *f, const char *dir)
{
	char path[2 * MAX_PATH];
	int fd, rc, n = snprintf(path, sizeof(path), "%s/%s", dir, f->path);

	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	rc = make_parents(path, strlen(dir));
	if (rc || path[n - 1] == '/' || f->error)
		return rc; /* what could not be read is absent */
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return -errno;
	rc = fd_write_full(fd, f->data, f->len);
	if (close(fd) < 0 && !rc)
		rc = -errno;
	return rc;
}

int snap_save(const struct snap *s, const char *dir, struct err *err)
{
	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		return err_sys(err, errno, "cannot make '%s'", dir);
	if (rmdir(dir) < 0) /* only an empty folder can be removed */
		return err_sys(err, errno, "'%s' must be a new or empty folder", dir);
	if (mkdir(dir, 0777) < 0)
		return err_sys(err, errno, "cannot make '%s'", dir);
	for (size_t i = 0; i < s->n; i++) {
		int rc = save_file(&s->files[i], dir);

		if (rc)
			return err_sys(err, -rc, "cannot write '%s/%s'", dir,
				       s->files[i].path);
	}
	return 0;
}

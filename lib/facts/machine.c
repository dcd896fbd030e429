/*
 * facts/machine.c - the sources that are no files: the CPUID instruction, model-specific registers, the
 * kernel log, rights, processes. Main thread.
 */
#include <cpuid.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdio.h"
#include "facts/collect_int.h"

#define MAX_CPUS      4096
#define MAX_PROCESSES 65536
#define MAX_LOG       (8u << 20)
#define MAX_LOG_LINES 120
#define LOG_READ_ALL  3 /* syslog(2) */
#define LOG_SIZE      10

#define MSR_FEATURE_CONTROL 0x3a
#define MSR_VM_CR           0xc0010114u

/* clang-format off */
static const struct { uint32_t leaf, sub; } leaves[] = {
	{0, 0}, {1, 0}, {7, 0}, {7, 1}, {0x21, 0},
	{0x40000000, 0}, {0x40000001, 0}, {0x40000003, 0}, {0x40000100, 0},
	{0x80000000, 0}, {0x80000001, 0}, {0x80000002, 0}, {0x80000003, 0}, {0x80000004, 0},
	{0x80000007, 0}, {0x80000008, 0}, {0x8000000a, 0}, {0x8000001f, 0},
};

/* On processor 0: what VMX can do (Intel SDM, volume 3, appendix A), encryption of memory. */
static const uint32_t vmx_msrs[] = {0x480, 0x481, 0x482, 0x485, 0x48b, 0x48c, 0x48d, 0x491, 0x492};
static const uint32_t sev_msrs[] = {0xc0010010, 0xc0010131};

static const char *const log_words[] = {
	"kvm:", "kvm_intel", "kvm_amd", "KVM", "VMX", "SVM", "VT-d", "DMAR", "AMD-Vi", "IVRS", "Hypervisor", "SEV", "TDX",
	"tdx", "lockdown", "vboxdrv", "vmmon", "gVisor", "feature_control", "Secure boot", "x2apic",
	"unsigned module", "with unavailable key",
};

static const char *const programs[] = {
	"libvirtd", "virtqemud", "dockerd", "containerd", "podman", "lxd", "incusd", "lxc-start", "xenstored", "oxenstored",
	"xenconsoled", "VBoxSVC", "VBoxHeadless", "VirtualBoxVM", "vmware-vmx", "vmware-authdlau", "prl_disp_servic",
	"qemu-system-x86", "qemu-kvm", "kvm", "firecracker", "cloud-hyperviso", "crosvm", "systemd-machine", "multipassd",
	"vm-run", "runsc", "sysbox-runc",
};
/* clang-format on */

void collect_cpuid(struct snap *s)
{
	struct str t = {0};
	uint32_t a, b, c, d, max_basic = 0, max_ext = 0, max_hyper = 0;

	for (size_t i = 0; i < ARRAY_LEN(leaves); i++) {
		uint32_t leaf = leaves[i].leaf, kind = leaf >> 28;
		uint32_t *max = kind == 8   ? &max_ext
				: kind == 4 ? &max_hyper
					    : &max_basic;

		if (leaf & 0xfffffff && leaf > *max && leaf != 0x40000100)
			continue;
		__cpuid_count(leaf, leaves[i].sub, a, b, c, d);
		if (!(leaf & 0xfffffff))
			*max = a;
		str_addf(&t, "%08x %x %08x %08x %08x %08x\n", leaf, leaves[i].sub, a, b,
			 c, d);
	}
	snap_add(s, "vm-check/cpuid", t.p, t.len, t.failed ? ENOMEM : 0);
	str_fini(&t);
}

static int add_msr(struct str *t, unsigned cpu, uint32_t reg)
{
	char path[48];
	uint64_t v;
	int fd, rc = 0;

	snprintf(path, sizeof(path), "/dev/cpu/%u/msr", cpu);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, &v, sizeof(v), reg) == (ssize_t)sizeof(v))
		str_addf(t, "%u %x %llx\n", cpu, reg, (unsigned long long)v);
	else
		rc = -errno;
	close(fd);
	return rc;
}

void collect_msr(struct snap *s)
{
	const char *info = snap_text(s, "proc/cpuinfo");
	bool intel = info && strstr(info, "GenuineIntel");
	const uint32_t *list = intel ? vmx_msrs : sev_msrs;
	size_t n = intel ? ARRAY_LEN(vmx_msrs) : ARRAY_LEN(sev_msrs);
	struct str t = {0};
	int rc = 0;

	snap_reading(s, "", "dev/cpu/0/msr");
	for (unsigned cpu = 0; cpu < MAX_CPUS && !rc; cpu++)
		rc = add_msr(&t, cpu, intel ? MSR_FEATURE_CONTROL : MSR_VM_CR);
	for (size_t i = 0; i < n && t.len; i++)
		add_msr(&t, 0, list[i]);
	if (t.len)
		snap_add(s, "vm-check/msr", t.p, t.len, 0);
	else
		snap_add(s, "vm-check/msr", NULL, 0, rc ? -rc : ENOENT);
	str_fini(&t);
}

static bool log_line_wanted(const char *p, size_t len)
{
	for (size_t i = 0; i < ARRAY_LEN(log_words); i++)
		if (memmem(p, len, log_words[i], strlen(log_words[i])) &&
		    !memmem(p, len, "ommand line", 11))
			return true;
	return false;
}

void collect_log(struct snap *s)
{
	int size = klogctl(LOG_SIZE, NULL, 0), n;
	struct str t = {0};
	char *buf;

	snap_reading(s, "", "dev/kmsg");
	if (size <= 0) {
		snap_add(s, "vm-check/kernel-log", NULL, 0, size ? errno : ENODATA);
		return;
	}
	size = (int)min_u64((uint64_t)size, MAX_LOG);
	buf = malloc((size_t)size);
	n = buf ? klogctl(LOG_READ_ALL, buf, size) : -1;
	for (int at = 0, lines = 0; at < n && lines < MAX_LOG_LINES;) {
		char *nl = memchr(buf + at, '\n', (size_t)(n - at));
		size_t len = nl ? (size_t)(nl + 1 - (buf + at)) : (size_t)(n - at);

		if (log_line_wanted(buf + at, len)) {
			str_add(&t, buf + at, len);
			lines++;
		}
		at += (int)len;
	}
	snap_add(s, "vm-check/kernel-log", t.p, t.len, n < 0 ? errno : 0);
	str_fini(&t);
	free(buf);
}

void collect_user(struct snap *s)
{
	struct utsname u;
	struct str t = {0};
	gid_t groups[256];
	struct stat one, mine;
	int n = getgroups(ARRAY_LEN(groups), groups);

	if (uname(&u) == 0)
		str_addf(&t, "machine %s\n", u.machine);
	str_addf(&t, "root %d\n", geteuid() == 0);
	str_addf(&t, "gid %u\n", (unsigned)getegid());
	for (int i = 0; i < n; i++)
		str_addf(&t, "gid %u\n", (unsigned)groups[i]);
	if (stat("/proc/1/root/", &one) == 0 && stat("/", &mine) == 0)
		str_addf(&t, "chroot %d\n",
			 one.st_dev != mine.st_dev || one.st_ino != mine.st_ino);
	snap_add(s, "vm-check/user", t.p, t.len, t.failed ? ENOMEM : 0);
	str_fini(&t);
}

static void add_program(struct str *t, uint64_t *seen, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
		if (strcmp(programs[i], name) || *seen & BIT(i))
			continue;
		*seen |= BIT(i);
		str_addf(t, "%s\n", name);
	}
}

void collect_processes(struct snap *s)
{
	DIR *dir = opendir("/proc");
	struct str t = {0};
	struct dirent *d;
	uint64_t seen = 0;

	for (unsigned i = 0; dir && (d = readdir(dir)) && i < MAX_PROCESSES; i++) {
		char path[300], name[64];
		int64_t n;
		int fd;

		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		snap_reading(s, "", path + 1);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		n = fd_read_full(fd, name, sizeof(name) - 1);
		close(fd);
		if (n <= 0)
			continue;
		name[n] = 0;
		name[strcspn(name, "\n")] = 0;
		add_program(&t, &seen, name);
	}
	if (dir)
		closedir(dir);
	snap_add(s, "vm-check/processes", t.p ? t.p : "", t.len, dir ? 0 : EACCES);
	str_fini(&t);
}

/* facts/facts_host.c - what surrounds guests: memory, I/O, where this computer lives, who else is here. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/size.h"
#include "facts/facts_int.h"

/* ---- where ---- */

static void read_vm(const struct facts *f, struct fact_value *v)
{
	if (f->xen_dom0)
		fact_set(v, FACT_WARN, "Xen dom0: Xen holds the hardware");
	else if (f->hyperv_root)
		fact_set(v, FACT_WARN,
			 "Hyper-V root partition: Hyper-V holds the hardware");
	else if (f->vm)
		fact_set(v, FACT_INFO, "yes: %s", f->vm->title);
	else
		fact_set(v, FACT_INFO, "no");
}

static void read_virt_type(const struct facts *f, struct fact_value *v)
{
	char type[32];
	struct cpuid c;
	bool para;

	snap_line(f->snap, "sys/hypervisor/type", type, sizeof(type));
	para = !strcmp(type, "xen") && (f->xen_dom0 || !cpu_flag(f, "hypervisor"));
	if (!f->vm && !f->xen_dom0)
		fact_set(v, FACT_INFO, "none");
	else if (parse_cpuid(f->snap, 0x40000000, 0, &c) || !para)
		fact_set(v, FACT_INFO, "full (vendor: %s)", f->vm ? f->vm->id : "xen");
	else
		fact_set(v, FACT_INFO, "para");
}

static void read_container(const struct facts *f, struct fact_value *v)
{
	fact_set(v, FACT_INFO, "%s%s", f->container ? "yes: " : "no",
		 f->container ? f->container->title : "");
}

static void read_wsl(const struct facts *f, struct fact_value *v)
{
	fact_set(v, FACT_INFO, "%s%s", f->wsl ? "yes: " : "no",
		 f->wsl ? f->wsl->title : "");
}

/* As "systemd-detect-virt --private-users": root in here is another user outside. */
static void read_user_namespace(const struct facts *f, struct fact_value *v)
{
	const char *map = snap_text(f->snap, "proc/self/uid_map");
	unsigned in, out, n;

	if (!map || sscanf(map, "%10u %10u %10u", &in, &out, &n) != 3)
		fact_set(v, FACT_UNKNOWN, "not told");
	else if (!in && !out && n == 4294967295u)
		fact_set(v, FACT_INFO, "no");
	else
		fact_set(v, FACT_INFO, "yes: user %u in here is %u outside", in, out);
}

/* As "systemd-detect-virt --chroot". */
static void read_chroot(const struct facts *f, struct fact_value *v)
{
	char text[8];

	if (!parse_key(snap_text(f->snap, "vm-check/user"), "chroot", text,
		       sizeof(text)))
		fact_set(v, FACT_UNKNOWN, "not told to this user");
	else
		fact_set(v, FACT_INFO, "%s", !strcmp(text, "1") ? "yes" : "no");
}

/* As "systemd-detect-virt --cvm": is this guest's memory hidden from its host? */
static void read_confidential(const struct facts *f, struct fact_value *v)
{
	const char *log = snap_text(f->snap, "vm-check/kernel-log");
	const char *sev = log ? strstr(log, "Features active:") : NULL;

	if (cpu_flag(f, "tdx_guest"))
		fact_set(v, FACT_INFO, "yes: TDX");
	else if (sev && strstr(sev, "SEV-SNP"))
		fact_set(v, FACT_INFO, "yes: SEV-SNP");
	else if (sev && strstr(sev, "SEV"))
		fact_set(v, FACT_INFO, "yes: SEV");
	else if (snap_find(f->snap, "dev/sev-guest"))
		fact_set(v, FACT_INFO, "yes: SEV-SNP (/dev/sev-guest)");
	else
		fact_set(v, FACT_INFO, "no");
}

static void read_kernel(const struct facts *f, struct fact_value *v)
{
	char release[100];

	snap_line(f->snap, "proc/sys/kernel/osrelease", release, sizeof(release));
	fact_set(v, release[0] ? FACT_INFO : FACT_UNKNOWN, "%s",
		 release[0] ? release : "not told");
}

static void read_distro(const struct facts *f, struct fact_value *v)
{
	char name[100];
	const char *p = name;

	if (!parse_key(snap_text(f->snap, "etc/os-release"), "PRETTY_NAME", name,
		       sizeof(name))) {
		fact_set(v, FACT_UNKNOWN, "not told");
		return;
	}
	p += *p == '"' || *p == '\'';
	fact_set(v, FACT_INFO, "%.*s", (int)strcspn(p, "\"'"), p);
}

static void read_board(const struct facts *f, struct fact_value *v)
{
	char vendor[48], name[64], bios[32];

	snap_line(f->snap, "sys/class/dmi/id/sys_vendor", vendor, sizeof(vendor));
	snap_line(f->snap, "sys/class/dmi/id/product_name", name, sizeof(name));
	snap_line(f->snap, "sys/class/dmi/id/bios_version", bios, sizeof(bios));
	if (!vendor[0] && !name[0])
		fact_set(v, FACT_UNKNOWN, "no SMBIOS to read");
	else
		fact_set(v, FACT_INFO, "%s %s%s%s", vendor, name,
			 bios[0] ? ", firmware " : "", bios);
}

static void read_firmware(const struct facts *f, struct fact_value *v)
{
	uint64_t bits;

	if (parse_number(f->snap, "sys/firmware/efi/fw_platform_size", &bits))
		fact_set(v, FACT_INFO, "UEFI, %u bits", (unsigned)min_u64(bits, 128));
	else if (snap_find(f->snap, "sys/firmware/efi"))
		fact_set(v, FACT_INFO, "UEFI");
	else if (f->container || f->wsl)
		fact_set(v, FACT_UNKNOWN, "not told in here");
	else
		fact_set(v, FACT_INFO, "BIOS, or none");
}

static void read_secure_boot(const struct facts *f, struct fact_value *v)
{
	const struct snap_file *s =
		snap_find(f->snap, "sys/firmware/efi/efivars/"
				   "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");

	if (s && s->len == 5)
		fact_set(v, FACT_INFO, "%s", s->data[4] ? "on" : "off");
	else
		fact_set(v, FACT_INFO, "%s",
			 snap_find(f->snap, "sys/firmware/efi") ? "not told"
								: "not there");
}

static void read_lockdown(const struct facts *f, struct fact_value *v)
{
	char line[80], *p, *end;

	snap_line(f->snap, "sys/kernel/security/lockdown", line, sizeof(line));
	p = strchr(line, '[');
	end = p ? strchr(p, ']') : NULL;
	if (!end) {
		fact_set(v, FACT_INFO, "not told");
		return;
	}
	*end = 0;
	fact_set(v, FACT_INFO, "%s", p + 1);
}

static void read_others(const struct facts *f, struct fact_value *v)
{
	static const char *const modules[] = {"vboxdrv",        "vmmon",
					      "prl_hypervisor", "xen_privcmd",
					      "mshv_root",      "mshv"};
	const char *procs = snap_text(f->snap, "vm-check/processes");
	char text[140] = "";
	size_t at = 0;

	for (size_t i = 0; i < ARRAY_LEN(modules); i++) {
		char path[64];

		snprintf(path, sizeof(path), "sys/module/%s", modules[i]);
		if (snap_find(f->snap, path) && at < 110)
			at += (size_t)snprintf(text + at, sizeof(text) - at,
					       "%s%s (module)", at ? ", " : "",
					       modules[i]);
	}
	while (procs && *procs && at < 110) {
		size_t n = strcspn(procs, "\n");

		if (n && n < 20)
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.*s",
					       at ? ", " : "", (int)n, procs);
		procs += n + (procs[n] != 0);
	}
	fact_set(v, FACT_INFO, "%s", at ? text : "none");
}

static void read_mitigations(const struct facts *f, struct fact_value *v)
{
	static const char dir[] = "sys/devices/system/cpu/vulnerabilities/";
	char name[64], path[128], line[160], text[140] = "";
	size_t pos = 0, at = 0;
	bool any = false, open = false;

	while (snap_next(f->snap, dir, &pos, name, sizeof(name))) {
		snprintf(path, sizeof(path), "%s%s", dir, name);
		snap_line(f->snap, path, line, sizeof(line));
		any = true;
		if (strstr(line, "Vulnerable") == line)
			open = true;
		/* What costs at each exit or with each guest. */
		if ((!strcmp(name, "l1tf") && strstr(line, "cache flushes")) ||
		    (!strcmp(name, "mds") && strstr(line, "Clear CPU buffers")) ||
		    (!strcmp(name, "mmio_stale_data") && strstr(line, "Clear")) ||
		    (!strcmp(name, "retbleed") && strstr(line, "Mitigation")) ||
		    (!strcmp(name, "meltdown") && strstr(line, "PTI")) ||
		    (!strcmp(name, "itlb_multihit") && strstr(line, "Split huge")) ||
		    (!strcmp(name, "vmscape") && strstr(line, "IBPB"))) {
			if (at < 100)
				at += (size_t)snprintf(text + at, sizeof(text) - at,
						       "%s%s", at ? ", " : "", name);
		}
	}
	if (!any)
		fact_set(v, FACT_UNKNOWN, "not told");
	else
		fact_set(v, at ? FACT_WARN : FACT_OK, "%s%s%s",
			 at ? "cost time at exits: " : "none that cost at exits", text,
			 open ? " (some flaws left open)" : "");
}

/* ---- memory ---- */

static void read_memory(const struct facts *f, struct fact_value *v)
{
	uint64_t total, avail;
	char a[16], b[16];

	if (!parse_meminfo(f->snap, "MemTotal", &total)) {
		fact_set(v, FACT_UNKNOWN, "not told");
		return;
	}
	if (!parse_meminfo(f->snap, "MemAvailable", &avail) &&
	    !parse_meminfo(f->snap, "MemFree", &avail))
		avail = 0;
	fact_set(v, avail < 512ull << 20 ? FACT_WARN : FACT_OK,
		 "%s, %s free for guests", size_format(total, a, sizeof(a)),
		 size_format(avail, b, sizeof(b)));
}

static void read_huge(const struct facts *f, struct fact_value *v)
{
	static const char dir[] = "sys/kernel/mm/hugepages/";
	char name[48], path[128], text[120] = "";
	size_t pos = 0, at = 0;
	uint64_t n, left;

	while (snap_next(f->snap, dir, &pos, name, sizeof(name)) && at < 90) {
		snprintf(path, sizeof(path), "%s%s/nr_hugepages", dir, name);
		if (!parse_number(f->snap, path, &n) || !n)
			continue;
		snprintf(path, sizeof(path), "%s%s/free_hugepages", dir, name);
		if (!parse_number(f->snap, path, &left))
			left = 0;
		at += (size_t)snprintf(
			text + at, sizeof(text) - at, "%s%llu of %s (%llu free)",
			at ? ", " : "", (unsigned long long)n,
			!strncmp(name, "hugepages-", 10) ? name + 10 : name,
			(unsigned long long)left);
	}
	fact_set(v, at ? FACT_OK : FACT_INFO, "%s", at ? text : "none reserved");
}

/* The word in brackets of "always [madvise] never". */
static void read_thp(const struct facts *f, struct fact_value *v)
{
	char line[80], *p, *end;

	snap_line(f->snap, "sys/kernel/mm/transparent_hugepage/enabled", line,
		  sizeof(line));
	p = strchr(line, '[');
	end = p ? strchr(p, ']') : NULL;
	if (!end) {
		fact_set(v, FACT_UNKNOWN, "not told");
		return;
	}
	*end = 0;
	fact_set(v, strcmp(p + 1, "never") ? FACT_OK : FACT_WARN, "%s", p + 1);
}

static void read_overcommit(const struct facts *f, struct fact_value *v)
{
	uint64_t n;

	if (!parse_number(f->snap, "proc/sys/vm/overcommit_memory", &n) || n > 2)
		fact_set(v, FACT_UNKNOWN, "not told");
	else
		fact_set(v, n == 2 ? FACT_WARN : FACT_OK, "%s",
			 n == 2   ? "strict (2): a guest's memory counts in full"
			 : n == 1 ? "always (1)"
				  : "heuristic (0)");
}

static void read_ksm(const struct facts *f, struct fact_value *v)
{
	uint64_t n;

	if (!parse_number(f->snap, "sys/kernel/mm/ksm/run", &n))
		fact_set(v, FACT_INFO, "not there");
	else
		fact_set(v, FACT_INFO, "%s", n == 1 ? "on" : "off");
}

/* ---- input and output ---- */

static void node_fact(const struct facts *f, struct fact_value *v, const char *path,
		      enum fact_state absent)
{
	struct node n;

	if (!snap_find(f->snap, path))
		fact_set(v, absent, "/%s is not there", path);
	else if (!parse_node(f->snap, path, &n))
		fact_set(v, FACT_UNKNOWN, "/%s cannot be looked at", path);
	else if (n.type != 'c')
		fact_set(v, FACT_MISSING, "/%s is no device", path);
	else if (strcmp(n.access, "ok"))
		fact_set(v, FACT_WARN, "/%s is there, not for this user (%s)", path,
			 n.access);
	else
		fact_set(v, FACT_OK, "/%s", path);
}

static void read_vhost_net(const struct facts *f, struct fact_value *v)
{
	node_fact(f, v, "dev/vhost-net", FACT_INFO);
}

static void read_vhost_vsock(const struct facts *f, struct fact_value *v)
{
	node_fact(f, v, "dev/vhost-vsock", FACT_INFO);
}

static void read_tun(const struct facts *f, struct fact_value *v)
{
	node_fact(f, v, "dev/net/tun", FACT_WARN);
}

static void read_fuse(const struct facts *f, struct fact_value *v)
{
	node_fact(f, v, "dev/fuse", FACT_INFO);
}

static void read_vfio(const struct facts *f, struct fact_value *v)
{
	node_fact(f, v, snap_find(f->snap, "dev/iommu") ? "dev/iommu" : "dev/vfio/vfio",
		  FACT_INFO);
}

static void read_bridge(const struct facts *f, struct fact_value *v)
{
	static const char dir[] = "sys/class/net/";
	unsigned n = snap_count(f->snap, dir);

	fact_set(v, FACT_INFO, n ? "%u" : "none", n);
}

static void read_iommu(const struct facts *f, struct fact_value *v)
{
	bool table = snap_find(f->snap, "sys/firmware/acpi/tables/DMAR") ||
		     snap_find(f->snap, "sys/firmware/acpi/tables/IVRS");
	unsigned units = snap_count(f->snap, "sys/class/iommu/");
	unsigned groups = snap_count(f->snap, "sys/kernel/iommu_groups/");

	if (groups)
		fact_set(v, FACT_OK, "on (%s), %u group%s",
			 f->vendor == VENDOR_AMD ? "AMD-Vi" : "VT-d", groups,
			 groups > 1 ? "s" : "");
	else if (units || table)
		fact_set(v, FACT_WARN, "in the hardware, not used by the kernel");
	else
		fact_set(v, FACT_INFO, "none");
}

static void read_remapping(const struct facts *f, struct fact_value *v)
{
	const char *log = snap_text(f->snap, "vm-check/kernel-log");

	if (log && (strstr(log, "DMAR-IR: Enabled") ||
		    strstr(log, "AMD-Vi: Interrupt remapping enabled")))
		fact_set(v, FACT_OK, "on");
	else if (!snap_count(f->snap, "sys/kernel/iommu_groups/"))
		fact_set(v, FACT_INFO, "none");
	else if (!log)
		fact_set(v, FACT_UNKNOWN, "the kernel log cannot be read");
	else
		fact_set(v, FACT_INFO, "not told by the kernel log");
}

/* How well devices are set apart: the largest group. */
static void read_acs(const struct facts *f, struct fact_value *v)
{
	static const char dir[] = "sys/kernel/iommu_groups/";
	char name[32], path[96];
	unsigned groups = 0, devices = 0, largest = 0;
	size_t pos = 0;

	while (snap_next(f->snap, dir, &pos, name, sizeof(name)) && groups < 1024) {
		unsigned n;

		snprintf(path, sizeof(path), "%s%s/devices/", dir, name);
		n = snap_count(f->snap, path);
		devices += n;
		largest = n > largest ? n : largest;
		groups++;
	}
	if (!groups)
		fact_set(v, FACT_INFO, "none");
	else
		fact_set(v, FACT_INFO, "%u device%s in %u group%s, at most %u in one",
			 devices, devices == 1 ? "" : "s", groups,
			 groups == 1 ? "" : "s", largest);
}

static void read_cgroups(const struct facts *f, struct fact_value *v)
{
	static const char *const names[] = {"cpu",     "cpuacct", "cpuset", "memory",
					    "devices", "freezer", "blkio",  "io"};
	char line[200], text[140] = "", path[48];
	size_t at = 0;

	snap_line(f->snap, "sys/fs/cgroup/cgroup.controllers", line, sizeof(line));
	if (line[0]) {
		fact_set(v, FACT_OK, "version 2: %.120s", line);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "sys/fs/cgroup/%s", names[i]);
		if (snap_find(f->snap, path))
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %s",
					       names[i]);
	}
	if (at)
		fact_set(v, FACT_OK, "version 1:%s", text);
	else
		fact_set(v, FACT_INFO, "none mounted");
}

static void read_namespaces(const struct facts *f, struct fact_value *v)
{
	char name[32], text[140] = "";
	size_t pos = 0, at = 0;

	while (snap_next(f->snap, "proc/self/ns/", &pos, name, sizeof(name)) &&
	       at < 100)
		if (!strstr(name, "_for_children"))
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s",
					       at ? " " : "", name);
	fact_set(v, at ? FACT_OK : FACT_UNKNOWN, "%s", at ? text : "not told");
}

/* clang-format off */
const struct fact facts_host[] = {
	FACT("vm", "Surroundings", "virtual machine", read_vm, "Is this computer itself a virtual machine, and under what? Then virtualization in here (nesting) is the outer host's matter."),
	FACT("virt-type", "Surroundings", "virtualization type", read_virt_type, "As lscpu has it: full or para, and whose."),
	FACT("container", "Surroundings", "container", read_container, "Is this a container? Then /dev/kvm must be passed in from outside."),
	FACT("wsl", "Surroundings", "WSL", read_wsl, "Windows Subsystem for Linux."),
	FACT("user-namespace", "Surroundings", "private users", read_user_namespace, "Is this a user namespace? Then root in here is another user outside, whose rights at /dev/kvm count."),
	FACT("chroot", "Surroundings", "changed root", read_chroot, "Is the root directory another than that of process 1?"),
	FACT("confidential", "Surroundings", "confidential guest", read_confidential, "SEV or TDX keep the host out of this machine's memory; such machines cannot nest."),
	FACT("board", "Surroundings", "computer", read_board, "From SMBIOS; no serial numbers are read."),
	FACT("firmware", "Surroundings", "firmware", read_firmware, "What started this kernel."),
	FACT("secure-boot", "Surroundings", "Secure Boot", read_secure_boot, "When on, unsigned modules (vboxdrv, vmmon) do not load."),
	FACT("kernel", "Surroundings", "kernel", read_kernel, "The kernel's release."),
	FACT("distribution", "Surroundings", "distribution", read_distro, "Decides which commands are proposed."),
	FACT("lockdown", "Surroundings", "lockdown", read_lockdown, "When not none, model-specific registers cannot be read, not even by root, and modules must be signed."),
	FACT("mitigations", "Surroundings", "mitigations", read_mitigations, "Measures against processor flaws that cost time whenever a guest exits."),
	FACT("other-hypervisors", "Surroundings", "also here", read_others, "Hypervisors, machine and container managers that are loaded or running."),
	FACT("memory", "Memory", "memory", read_memory, "A guest's memory must fit in what is free."),
	FACT("huge-pages", "Memory", "huge pages", read_huge, "Reserved pages of 2 MiB or 1 GiB for guests."),
	FACT("thp", "Memory", "transparent pages", read_thp, "Transparent huge pages: always or madvise make guests faster."),
	FACT("overcommit", "Memory", "overcommit", read_overcommit, "vm.overcommit_memory."),
	FACT("ksm", "Memory", "page merging", read_ksm, "Kernel samepage merging."),
	FACT("tun", "Devices", "tun/tap", read_tun, "Network interfaces for guests; not needed for the user-mode network."),
	FACT("vhost-net", "Devices", "vhost-net", read_vhost_net, "Network packets without leaving the kernel."),
	FACT("vhost-vsock", "Devices", "vhost-vsock", read_vhost_vsock, "Sockets between host and guest."),
	FACT("bridge", "Devices", "bridges", read_bridge, "Network bridges of this computer."),
	FACT("fuse", "Devices", "FUSE", read_fuse, "File systems in user space."),
	FACT("iommu", "Devices", "IOMMU", read_iommu, "VT-d or AMD-Vi: needed to give a guest a device of this computer."),
	FACT("iommu-groups", "Devices", "device isolation", read_acs, "Devices of one IOMMU group can only be given to a guest together (ACS splits groups)."),
	FACT("interrupt-remapping", "Devices", "interrupt remapping", read_remapping, "Keeps a device of a guest from forging interrupts."),
	FACT("vfio", "Devices", "VFIO", read_vfio, "The interface by which devices are given to guests."),
	FACT("cgroups", "Devices", "control groups", read_cgroups, "Limits for guests and containers."),
	FACT("namespaces", "Devices", "namespaces", read_namespaces, "What containers are made of."),
	{0},
};
/* clang-format on */

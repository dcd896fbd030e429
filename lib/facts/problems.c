/*
 * facts/problems.c - what stands in the way, and the exact step that mends it on this distribution: one table,
 * the rows in the order in which they must be mended. Any thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

#define KVM_MINOR 232

static void text(char *buf, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void text(char *buf, size_t len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, len, fmt, ap);
	va_end(ap);
}

#define TEXT(p, ...)     text((p)->text, sizeof((p)->text), __VA_ARGS__)
#define FIX(p, ...)      text((p)->fix, sizeof((p)->fix), __VA_ARGS__)
#define COMMANDS(p, ...) text((p)->commands, sizeof((p)->commands), __VA_ARGS__)

static bool verdict_is(const struct facts *f, const char *v)
{
	return !strcmp(f->proof.verdict, v);
}

/* The proof ran to its end: what flags and files say no longer matters. */
static bool proved(const struct facts *f)
{
	return verdict_is(f, "works") || verdict_is(f, "slow");
}

static const char *virt_name(const struct facts *f)
{
	return f->vendor == VENDOR_AMD ? "AMD-V" : "VT-x";
}

/* How the outer host passes virtualization on; its processor is of the vendor that is seen here. */
static const char *outer_step(const struct facts *f, char *buf, size_t len)
{
	const char *t = f->vm->nested;
	int n = (int)strcspn(t, "@");

	snprintf(buf, len, "%.*s%s%s", n, t, t[n] ? f->module : "",
		 t[n] ? t + n + 1 : "");
	return buf;
}

/* ---- the processor ---- */

static bool find_not_x86(const struct facts *f, struct problem *p)
{
	if (f->x86 || !f->machine[0])
		return false;
	TEXT(p, "this computer is not x86-64 but %s", f->machine);
	FIX(p, "use an x86-64 computer: PC guests cannot run at full speed here, and "
	       "vm-run is a program for x86-64");
	return true;
}

static bool find_32bit(const struct facts *f, struct problem *p)
{
	if (!f->x86 || f->long_mode)
		return false;
	TEXT(p, "the processor is a 32-bit one (no long mode)");
	FIX(p, "use a 64-bit computer: 64-bit guests cannot run here, and vm-run is a "
	       "program for x86-64");
	return true;
}

static bool find_32bit_kernel(const struct facts *f, struct problem *p)
{
	if (!f->x86 || !f->long_mode || f->kernel64)
		return false;
	TEXT(p, "the processor has 64 bits, the kernel (%s) has 32", f->machine);
	FIX(p, "install a 64-bit kernel%s",
	    !strcmp(f->distro, "debian") ? ": dpkg --add-architecture amd64, apt "
					   "install linux-image-amd64:amd64"
					 : " or a 64-bit system");
	if (!strcmp(f->distro, "debian"))
		COMMANDS(p, "dpkg --add-architecture amd64\napt-get update\napt-get "
			    "install -y linux-image-amd64:amd64\n");
	return true;
}

static bool find_no_virt(const struct facts *f, struct problem *p)
{
	if (!f->x86 || !f->long_mode || f->virt_raw != NO || f->hypervisor || proved(f))
		return false;
	TEXT(p, "the processor has no VT-x or AMD-V");
	FIX(p, "use a computer whose processor has it (nearly all from 2008 on); "
	       "guests run on the built-in emulator");
	return true;
}

static bool find_no_nesting(const struct facts *f, struct problem *p)
{
	char step[300];

	if (!f->hypervisor || f->virt_raw != NO || f->virt_shown || !f->vm || proved(f))
		return false;
	TEXT(p,
	     "this is a virtual machine (%s) and its hypervisor passes no VT-x/AMD-V "
	     "on",
	     f->vm->title);
	FIX(p, "the outer host must switch nesting on: %s",
	    outer_step(f, step, sizeof(step)));
	return true;
}

static bool find_wsl1(const struct facts *f, struct problem *p)
{
	if (!f->wsl || strcmp(f->wsl->id, "wsl1"))
		return false;
	TEXT(p, "WSL 1 has no Linux kernel and so no KVM");
	FIX(p, "%s, then %s",
	    f->wsl->device ? f->wsl->device
			   : "in Windows: wsl --set-version DISTRIBUTION 2",
	    "nestedVirtualization=true under [wsl2] in .wslconfig");
	return true;
}

/* Where the switch is in the set-up menus, by who made the board. */
static const char *menu(const struct facts *f)
{
	/* clang-format off */
	static const struct { const char *maker, *intel, *amd; } menus[] = {
		{"ASUS", "Advanced > CPU Configuration > Intel (VMX) Virtualization Technology", "Advanced > CPU Configuration > SVM Mode"},
		{"Gigabyte", "Tweaker (or M.I.T.) > Advanced CPU Settings > Intel Virtualization Technology", "Tweaker (or M.I.T.) > Advanced CPU Settings > SVM Mode"},
		{"Micro-Star", "OC > CPU Features > Intel Virtualization Tech", "OC > Advanced CPU Configuration > SVM Mode"},
		{"MSI", "OC > CPU Features > Intel Virtualization Tech", "OC > Advanced CPU Configuration > SVM Mode"},
		{"ASRock", "Advanced > CPU Configuration > Intel Virtualization Technology", "Advanced > CPU Configuration > SVM Mode"},
		{"Dell", "Virtualization Support > Virtualization (server: System BIOS > Processor Settings > Virtualization Technology)", "Virtualization Support > AMD-V Technology (server: Processor Settings > Virtualization Technology)"},
		{"HP", "Security (or Advanced) > System Options > Virtualization Technology (VTx)", "Security (or Advanced) > System Options > SVM CPU Virtualization"},
		{"Hewlett", "Security (or Advanced) > System Options > Virtualization Technology (VTx)", "Security (or Advanced) > System Options > SVM CPU Virtualization"},
		{"HPE", "RBSU > Virtualization Options > Intel Virtualization Technology", "RBSU > Virtualization Options > AMD Virtualization Technology"},
		{"LENOVO", "Security > Virtualization > Intel Virtualization Technology (ThinkCentre: Advanced > CPU Setup)", "Security > Virtualization > AMD-V Technology (ThinkCentre: Advanced > CPU Setup > SVM)"},
		{"Acer", "Advanced (or Main) > Intel VTX", "Advanced (or Main) > SVM Support"},
		{"Supermicro", "Advanced > CPU Configuration > Intel Virtualization Technology", "Advanced > CPU Configuration > SVM Mode"},
		{"Intel", "Advanced > Security (or CPU) > Intel Virtualization Technology", "CPU > SVM Mode"},
		{"TOSHIBA", "Advanced > System Configuration > Virtualization Technology", "Advanced > System Configuration > SVM"},
		{"Fujitsu", "Advanced > CPU Configuration > Virtualization Technology", "Advanced > CPU Configuration > SVM Support"},
	};
	/* clang-format on */
	static const char *const files[] = {"sys/class/dmi/id/board_vendor",
					    "sys/class/dmi/id/sys_vendor"};
	char maker[64];

	for (size_t k = 0; k < ARRAY_LEN(files); k++) {
		snap_line(f->snap, files[k], maker, sizeof(maker));
		for (size_t i = 0; maker[0] && i < ARRAY_LEN(menus); i++)
			if (strcasestr(maker, menus[i].maker))
				return f->vendor == VENDOR_AMD ? menus[i].amd
							       : menus[i].intel;
	}
	return f->vendor == VENDOR_AMD ? "Advanced > CPU Configuration > SVM Mode "
					 "(also: AMD-V, Secure Virtual Machine)"
				       : "Advanced > CPU Configuration > Intel "
					 "Virtualization Technology (also: VT-x, VMX)";
}

static bool find_firmware_off(const struct facts *f, struct problem *p)
{
	char step[300];

	if (f->firmware_off != YES || f->hyperv_root || f->xen_dom0 || proved(f) ||
	    f->wsl)
		return false;
	if (f->hypervisor) {
		if (!f->vm || f->virt_raw == NO)
			return false;
		TEXT(p, "%s is switched off by the virtual firmware of %s",
		     virt_name(f), f->vm->title);
		FIX(p, "the outer host must switch nesting on: %s",
		    outer_step(f, step, sizeof(step)));
		return true;
	}
	TEXT(p, "%s is in the processor but switched off by the firmware%s",
	     virt_name(f), f->cpus_off ? " (its registers say so)" : "");
	FIX(p,
	    "switch it on in the firmware's set-up: %s; save, switch the power off and "
	    "on%s",
	    menu(f),
	    snap_find(f->snap, "sys/firmware/efi")
		    ? "\n'systemctl reboot --firmware-setup' goes there"
		    : "");
	return true;
}

static bool find_clearcpuid(const struct facts *f, struct problem *p)
{
	const char *cmdline = snap_text(f->snap, "proc/cmdline");

	if (!cmdline || !strstr(cmdline, "clearcpuid") || f->virt_raw != YES ||
	    f->virt_shown)
		return false;
	TEXT(p, "the kernel's command line (clearcpuid=) hides %s", virt_name(f));
	FIX(p,
	    "remove clearcpuid= from the boot loader's configuration and boot again");
	return true;
}

/* ---- who holds the hardware ---- */

static bool find_xen(const struct facts *f, struct problem *p)
{
	if (!f->xen_dom0)
		return false;
	TEXT(p, "this is Xen's dom0: Xen holds the hardware, KVM cannot run beside it");
	FIX(p, "choose the boot menu's entry without Xen%s",
	    !strcmp(f->distro, "debian")
		    ? " (or: apt remove 'xen-system-*', update-grub)"
		    : "");
	return true;
}

static bool find_hyperv(const struct facts *f, struct problem *p)
{
	if (!f->hyperv_root || proved(f))
		return false;
	TEXT(p, "this is Hyper-V's root partition: Hyper-V holds the hardware");
	FIX(p, "boot Linux without Hyper-V, or use /dev/mshv with a program that knows "
	       "it");
	return true;
}

static bool find_busy(const struct facts *f, struct problem *p)
{
	bool vbox = snap_find(f->snap, "sys/module/vboxdrv");
	bool vmware = snap_find(f->snap, "sys/module/vmmon");

	if (!verdict_is(f, "busy"))
		return false;
	TEXT(p, "%s holds %s: KVM is told that it is busy",
	     vbox     ? "VirtualBox"
	     : vmware ? "VMware"
		      : "another hypervisor",
	     virt_name(f));
	FIX(p, "end the machines of %s, then unload its module%s",
	    vbox     ? "VirtualBox"
	    : vmware ? "VMware"
		     : "the other hypervisor",
	    vbox     ? ": modprobe -r vboxnetflt vboxnetadp vboxdrv"
	    : vmware ? ": systemctl stop vmware; modprobe -r vmmon"
		     : "");
	if (vbox || vmware)
		COMMANDS(p, "%s",
			 vbox ? "modprobe -r vboxnetflt vboxnetadp vboxdrv\n"
			      : "modprobe -r vmmon\n");
	return true;
}

/* ---- modules ---- */

static bool file_has(const struct facts *f, const char *name, const char *word)
{
	char release[100], path[200];
	const char *t;

	snap_line(f->snap, "proc/sys/kernel/osrelease", release, sizeof(release));
	snprintf(path, sizeof(path), "lib/modules/%s/%s", release, name);
	t = snap_text(f->snap, path);
	return t && strstr(t, word);
}

/* The file of /etc/modprobe.d that forbids `module`. */
static bool blacklisted(const struct facts *f, const char *module, char *file,
			size_t len)
{
	static const char dir[] = "etc/modprobe.d/";
	char path[300], name[200], line[80];
	size_t pos = 0;

	while (snap_next(f->snap, dir, &pos, name, sizeof(name))) {
		const char *t;

		snprintf(path, sizeof(path), "%s%s", dir, name);
		t = snap_text(f->snap, path);
		snprintf(line, sizeof(line), "blacklist %s", module);
		if (t &&
		    (strstr(t, line) || (strstr(t, "install ") && strstr(t, module) &&
					 strstr(t, "/bin/false")))) {
			snprintf(file, len, "/%s", path);
			return true;
		}
	}
	return false;
}

static const char *package_of_kvm(const struct facts *f)
{
	return !strcmp(f->distro, "debian") ? "apt install linux-image-amd64 (Ubuntu: "
					      "linux-modules-extra-$(uname -r))"
	       : !strcmp(f->distro, "fedora")
		       ? "dnf install kernel-modules-core kernel-modules"
	       : !strcmp(f->distro, "suse")
		       ? "zypper install kernel-default (not kernel-default-base)"
	       : !strcmp(f->distro, "arch") ? "pacman -S linux, then boot again"
	       : !strcmp(f->distro, "alpine")
		       ? "apk add linux-lts (linux-virt has no KVM)"
		       : "install a kernel with CONFIG_KVM";
}

static bool find_no_module(const struct facts *f, struct problem *p)
{
	const char *log = snap_text(f->snap, "vm-check/kernel-log");
	char file[320];
	uint64_t locked = 0;

	if (f->holder[0] || !f->virt_shown || f->container || f->xen_dom0 ||
	    proved(f) || f->proof.api || f->firmware_off == YES || !f->kernel64 ||
	    (f->wsl && !strcmp(f->wsl->id, "wsl1")))
		return false;
	parse_number(f->snap, "proc/sys/kernel/modules_disabled", &locked);
	if (locked) {
		TEXT(p,
		     "%s is not loaded, and the kernel takes no more modules "
		     "(modules_disabled)",
		     f->module);
		FIX(p,
		    "load %s at start: echo %s > /etc/modules-load.d/kvm.conf, then "
		    "boot again",
		    f->module, f->module);
		COMMANDS(p, "echo %s > /etc/modules-load.d/kvm.conf\n", f->module);
	} else if (blacklisted(f, f->module, file, sizeof(file)) ||
		   blacklisted(f, "kvm", file, sizeof(file))) {
		TEXT(p, "%s is not loaded: %.120s forbids it", f->module, file);
		FIX(p, "remove the line from %s, then: modprobe %s", file, f->module);
		COMMANDS(p, "modprobe %s\n", f->module);
	} else if (snap_find(f->snap, "sys/module/vboxdrv") && log &&
		   strstr(log, "kvm")) {
		TEXT(p, "%s is not loaded, and VirtualBox holds %s", f->module,
		     virt_name(f));
		FIX(p, "modprobe -r vboxnetflt vboxnetadp vboxdrv; modprobe %s",
		    f->module);
		COMMANDS(p, "modprobe -r vboxnetflt vboxnetadp vboxdrv\nmodprobe %s\n",
			 f->module);
	} else if (!file_has(f, "modules.dep", "kvm") &&
		   !file_has(f, "modules.builtin", "kvm")) {
		TEXT(p,
		     "%s is not loaded, and not installed for this kernel as far as "
		     "can be seen",
		     f->module);
		FIX(p, "%s, then: modprobe %s", package_of_kvm(f), f->module);
		COMMANDS(p, "modprobe %s\n", f->module);
	} else {
		TEXT(p, "the module %s is not loaded", f->module);
		FIX(p,
		    "modprobe %s; to keep it: echo %s > /etc/modules-load.d/kvm.conf",
		    f->module, f->module);
		COMMANDS(p, "modprobe %s\necho %s > /etc/modules-load.d/kvm.conf\n",
			 f->module, f->module);
	}
	return true;
}

/* Modules of one's own that are not signed are refused; a distribution's kvm is signed. */
static bool find_lockdown(const struct facts *f, struct problem *p)
{
	const char *log = snap_text(f->snap, "vm-check/kernel-log");

	if (f->holder[0] || !f->virt_shown || proved(f) || f->proof.api || !log ||
	    (!strstr(log, "unsigned module loading is restricted") &&
	     !strstr(log, "Loading of module with unavailable key is rejected")))
		return false;
	TEXT(p, "the kernel refused a module without a signature that it trusts "
		"(lockdown, Secure Boot)");
	FIX(p,
	    "take %s of the distribution's own kernel; or sign the module and enroll "
	    "the key:\nmokutil --import KEY.der, then boot again; or switch Secure "
	    "Boot off in the firmware's set-up",
	    f->module);
	return true;
}

/* ---- the device ---- */

static bool find_container_device(const struct facts *f, struct problem *p)
{
	bool refused = verdict_is(f, "forbidden") && !strcmp(f->proof.error, "EPERM");

	if (!f->container || proved(f) || (snap_find(f->snap, "dev/kvm") && !refused) ||
	    (!f->virt_shown && !f->kvm_loaded && f->virt_raw != YES))
		return false;
	TEXT(p, "this is a container (%s) that was not given /dev/kvm",
	     f->container->title);
	FIX(p, "%s", f->container->device);
	return true;
}

static bool find_no_device(const struct facts *f, struct problem *p)
{
	if (snap_find(f->snap, "dev/kvm") || !f->holder[0] || f->container)
		return false;
	TEXT(p, "%s is loaded, but /dev/kvm is not there (udev or devtmpfs?)",
	     f->holder);
	FIX(p, "mknod /dev/kvm c 10 232; chgrp kvm /dev/kvm; chmod 660 /dev/kvm");
	COMMANDS(p, "mknod /dev/kvm c 10 %d\nchgrp kvm /dev/kvm\nchmod 660 /dev/kvm\n",
		 KVM_MINOR);
	return true;
}

bool group_name(const struct facts *f, unsigned gid, char *name, size_t len)
{
	const char *t = snap_text(f->snap, "etc/group");

	for (; t && *t; t += strcspn(t, "\n"), t += *t == '\n') {
		unsigned n;
		char g[33];

		if (sscanf(t, "%32[^:]:%*[^:]:%9u:", g, &n) == 2 && n == gid) {
			snprintf(name, len, "%s", g);
			return true;
		}
	}
	return false;
}

static bool find_forbidden(const struct facts *f, struct problem *p)
{
	char group[33] = "kvm";
	struct node n;
	bool known;

	if (!parse_node(f->snap, "dev/kvm", &n) || n.type != 'c' || f->proof.api ||
	    proved(f))
		return false;
	if (!verdict_is(f, "forbidden") && (f->proof.there || !strcmp(n.access, "ok")))
		return false;
	if (f->container && !strcmp(f->proof.error, "EPERM"))
		return false; /* told as the container's */
	known = group_name(f, n.gid, group, sizeof(group));
	TEXT(p, "this user may not open /dev/kvm (mode %04o, group %s)", n.mode,
	     known   ? group
	     : n.gid ? "not known here"
		     : "root");
	if (f->container && !known && n.gid) {
		FIX(p, "%s and with --group-add %u", f->container->device, n.gid);
	} else if (n.gid && n.mode & 060) {
		FIX(p,
		    "sudo usermod -aG %s \"$USER\", then log out and in (or: newgrp "
		    "%s)",
		    group, group);
		COMMANDS(p, "usermod -aG %s \"${SUDO_USER:-$USER}\"\n", group);
	} else {
		FIX(p, "as root: chgrp kvm /dev/kvm && chmod 660 /dev/kvm (group "
		       "missing: groupadd -r kvm), then\n"
		       "usermod -aG kvm USER and a new login; to keep it, in "
		       "/etc/udev/rules.d/65-kvm.rules:\n"
		       "KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\"");
		COMMANDS(p, "getent group kvm >/dev/null || groupadd -r kvm\nchgrp kvm "
			    "/dev/kvm\nchmod 660 /dev/kvm\n"
			    "usermod -aG kvm \"${SUDO_USER:-$USER}\"\n");
	}
	return true;
}

/* ---- what the proof found ---- */

static bool find_interpreted(const struct facts *f, struct problem *p)
{
	char step[300];

	if (!verdict_is(f, "slow"))
		return false;
	TEXT(p,
	     "/dev/kvm opens, but %sinterprets ring 0 at %.1f million instructions/s, "
	     "%.0f times slower than native",
	     !strcmp(f->holder, "kvm_pvm") ? "is kvm_pvm, software: it " : "",
	     f->proof.guest_mips,
	     f->proof.native_mips /
		     (f->proof.guest_mips > 0 ? f->proof.guest_mips : 1));
	FIX(p,
	    "use the built-in emulator (vm-run does so by itself): it is faster; with "
	    "other programs: -accel tcg%s%s",
	    f->vm ? "\nfor full speed the outer host must switch nesting on: " : "",
	    f->vm ? outer_step(f, step, sizeof(step)) : "");
	return true;
}

static bool find_broken(const struct facts *f, struct problem *p)
{
	char step[300];

	if (!verdict_is(f, "broken"))
		return false;
	TEXT(p, "%s",
	     f->proof.reason[0] ? f->proof.reason
				: "/dev/kvm opens, but runs no guest");
	FIX(p, "see the kernel log (dmesg | grep kvm); a newer kernel may help%s%s",
	    f->vm ? ", or the outer host: " : "; vm-run takes the emulator",
	    f->vm ? outer_step(f, step, sizeof(step)) : "");
	return true;
}

static bool find_unfit(const struct facts *f, struct problem *p)
{
	if (!verdict_is(f, "unfit"))
		return false;
	TEXT(p, "%s", f->proof.reason);
	FIX(p, "take a newer kernel (5.4 or later)");
	return true;
}

static bool find_nonsense(const struct facts *f, struct problem *p)
{
	if (!verdict_is(f, "hangs") && !verdict_is(f, "nonsense"))
		return false;
	TEXT(p, "%s", f->proof.reason);
	FIX(p,
	    "find out what stands in for /dev/kvm: ls -l /dev/kvm; modprobe -r and "
	    "modprobe %s makes it anew",
	    f->module);
	return true;
}

/* ---- what costs speed ---- */

static bool find_no_ept(const struct facts *f, struct problem *p)
{
	bool amd = f->vendor == VENDOR_AMD;
	int i = fact_find("ept");

	if (!f->virt_shown || i < 0 || f->values[i].state != FACT_WARN)
		return false;
	if (parse_param(f->snap, f->module, amd ? "npt" : "ept") == NO &&
	    strstr(f->values[i].text, "parameter")) {
		TEXT(p,
		     "nested paging (%s) is switched off by a module parameter: guests "
		     "are several times slower",
		     amd ? "NPT" : "EPT");
		FIX(p,
		    "remove '%s=0' from /etc/modprobe.d; modprobe -r %s; modprobe %s",
		    amd ? "npt" : "ept", f->module, f->module);
		COMMANDS(p, "modprobe -r %s\nmodprobe %s %s=1\n", f->module, f->module,
			 amd ? "npt" : "ept");
	} else {
		TEXT(p, "no nested paging (EPT/NPT): guests that use much memory are "
			"several times slower");
		FIX(p, "nothing mends this but another processor%s",
		    f->vm ? " (or the outer hypervisor passing it on)" : "");
	}
	return true;
}

static bool find_no_unrestricted(const struct facts *f, struct problem *p)
{
	int i = fact_find("unrestricted-guest");

	if (!f->virt_shown || i < 0 || f->values[i].state != FACT_WARN)
		return false;
	TEXT(p, "no unrestricted guest: KVM interprets real mode (boot loaders, DOS), "
		"slowly");
	FIX(p, "nothing to do for Linux guests; processors from 2010 on have it%s",
	    parse_param(f->snap, "kvm_intel", "unrestricted_guest") == NO
		    ? ", check kvm_intel's parameters ept and unrestricted_guest"
		    : "");
	return true;
}

static bool find_little_memory(const struct facts *f, struct problem *p)
{
	uint64_t avail;

	if (!parse_meminfo(f->snap, "MemAvailable", &avail) || avail >= 512ull << 20)
		return false;
	TEXT(p, "only %llu MiB of memory are free for guests",
	     (unsigned long long)(avail >> 20));
	FIX(p, "end programs, or give the guest less: vm-run --memory %lluM",
	    (unsigned long long)(avail >> 21 ? avail >> 21 : 1));
	return true;
}

static bool find_tun(const struct facts *f, struct problem *p)
{
	struct node n;

	if (!parse_node(f->snap, "dev/net/tun", &n) || !strcmp(n.access, "ok") ||
	    f->container)
		return false;
	TEXT(p, "this user may not open /dev/net/tun: no tap interfaces (the user-mode "
		"network needs none)");
	FIX(p, "as root: ip tuntap add dev tap0 mode tap user \"$USER\", or chmod 666 "
	       "/dev/net/tun");
	COMMANDS(p, "chmod 666 /dev/net/tun\n");
	return true;
}

static bool find_iommu_off(const struct facts *f, struct problem *p)
{
	int i = fact_find("iommu");

	if (i < 0 || f->values[i].state != FACT_WARN || f->hypervisor)
		return false;
	TEXT(p, "the IOMMU is not used: devices of this computer cannot be given to "
		"guests");
	FIX(p, "%s",
	    f->vendor == VENDOR_AMD
		    ? "add 'iommu=pt' to the kernel's command line and switch IOMMU on "
		      "in the firmware"
		    : "add 'intel_iommu=on iommu=pt' to the kernel's command line");
	return true;
}

static bool find_nested_off(const struct facts *f, struct problem *p)
{
	if (!f->holder[0] || parse_param(f->snap, f->holder, "nested") != NO ||
	    !strcmp(f->holder, "kvm_pvm"))
		return false;
	TEXT(p, "guests cannot run virtual machines of their own (%s nested=0)",
	     f->holder);
	FIX(p,
	    "echo 'options %s nested=1' > /etc/modprobe.d/kvm-nested.conf; modprobe -r "
	    "%s; modprobe %s",
	    f->holder, f->holder, f->holder);
	COMMANDS(p,
		 "echo 'options %s nested=1' > "
		 "/etc/modprobe.d/kvm-nested.conf\nmodprobe -r %s\nmodprobe %s\n",
		 f->holder, f->holder, f->holder);
	return true;
}

/* clang-format off */
static const struct {
	const char *id;
	enum severity severity;
	bool (*find)(const struct facts *f, struct problem *p);
	const char *explain;
} table[] = {
	{"not-x86", SEV_STOP, find_not_x86, "PC guests are x86; only an x86-64 processor runs them itself."},
	{"32-bit-processor", SEV_STOP, find_32bit, "No long mode (flag lm): neither 64-bit guests nor vm-run."},
	{"32-bit-kernel", SEV_STOP, find_32bit_kernel, "A 64-bit kernel runs 32-bit programs as well."},
	{"no-virtualization", SEV_STOP, find_no_virt, "CPUID has neither VMX nor SVM, and this is no virtual machine: the processor lacks it."},
	{"wsl1", SEV_STOP, find_wsl1, "WSL 1 translates system calls; WSL 2 is a virtual machine with a Linux kernel and nested KVM."},
	{"no-nesting", SEV_STOP, find_no_nesting, "Inside a virtual machine VT-x/AMD-V is there only when the outer hypervisor passes it on."},
	{"firmware-off", SEV_STOP, find_firmware_off,
		"The firmware locks IA32_FEATURE_CONTROL without VMX, or sets SVMDIS. Kernels from 5.6 (Intel) or 6.7 (AMD) on then clear the flag in /proc/cpuinfo, so that egrep and kvm-ok say 'does not support'."},
	{"clearcpuid", SEV_STOP, find_clearcpuid, "clearcpuid= on the kernel's command line takes processor features away."},
	{"xen-dom0", SEV_STOP, find_xen, "Under Xen the first Linux is a guest too."},
	{"hyperv-root", SEV_STOP, find_hyperv, "Hyper-V runs below its root partition as well."},
	{"busy", SEV_STOP, find_busy, "VT-x and AMD-V have one owner at a time: VirtualBox and VMware take them while their modules are in use."},
	{"no-module", SEV_STOP, find_no_module, "The processor can, the kernel's module that uses it is not loaded."},
	{"lockdown", SEV_STOP, find_lockdown, "With Secure Boot the kernel is locked down: it loads signed modules only."},
	{"container", SEV_STOP, find_container_device, "A container sees only the devices it was given."},
	{"no-device", SEV_STOP, find_no_device, "The module is there, the device node is not."},
	{"no-permission", SEV_STOP, find_forbidden, "/dev/kvm has an owner, a group and a mode; membership in a group counts from the next login on."},
	{"interpreted", SEV_STOP, find_interpreted, "There are /dev/kvm without VT-x/AMD-V behind them: user code of guests runs at full speed, kernel code is interpreted. kvm-ok and virt-host-validate do not notice."},
	{"broken", SEV_STOP, find_broken, "The device opens and makes machines, but a guest of a few bytes does not come to its answer."},
	{"unfit", SEV_STOP, find_unfit, "An old kernel, or something that is only like KVM."},
	{"no-answer", SEV_STOP, find_nonsense, "What stands at /dev/kvm does not behave as KVM does; nothing can be told."},
	{"no-nested-paging", SEV_WARN, find_no_ept, "Without EPT or NPT KVM keeps shadow page tables."},
	{"no-unrestricted-guest", SEV_WARN, find_no_unrestricted, "The first VT-x processors could not run real mode."},
	{"little-memory", SEV_WARN, find_little_memory, "A guest's memory comes from what is free."},
	{"no-tun", SEV_INFO, find_tun, "Tap interfaces join a guest to the host's networks."},
	{"iommu-off", SEV_INFO, find_iommu_off, "ACPI has a DMAR or IVRS table, the kernel made no IOMMU groups."},
	{"nested-off", SEV_INFO, find_nested_off, "Only matters when a guest is to be a host itself."},
};
/* clang-format on */

void problems_find(struct facts *f)
{
	for (size_t i = 0; i < ARRAY_LEN(table) && f->n_problems < FACTS_PROBLEMS;
	     i++) {
		struct problem *p = &f->problems[f->n_problems];

		*p = (struct problem){.id = table[i].id, .severity = table[i].severity};
		f->n_problems += table[i].find(f, p);
	}
}

const char *problem_id(unsigned i)
{
	return i < ARRAY_LEN(table) ? table[i].id : NULL;
}

const char *problem_explain(const char *id)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (!strcmp(table[i].id, id))
			return table[i].explain;
	return NULL;
}

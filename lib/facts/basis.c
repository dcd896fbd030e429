/* facts/basis.c - what many facts and problems ask for, read once. Any thread. */
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

#define FEATURE_LOCKED 1u
#define FEATURE_VMX    4u /* VMX outside SMX */
#define VM_CR_SVMDIS   0x10u
#define MAX_CPUS       4096

static void read_arch(struct facts *f)
{
	const char *info = snap_text(f->snap, "proc/cpuinfo");
	char vendor[64];

	if (!parse_key(snap_text(f->snap, "vm-check/user"), "machine", f->machine,
		       sizeof(f->machine)))
		snprintf(f->machine, sizeof(f->machine), "%s",
			 info && parse_key(info, "vendor_id", vendor, sizeof(vendor))
				 ? cpu_flag(f, "lm") ? "x86_64" : "i686"
				 : "");
	f->kernel64 = !strcmp(f->machine, "x86_64");
	f->x86 = f->kernel64 || (f->machine[0] == 'i' && strstr(f->machine, "86"));
	f->long_mode = cpu_flag(f, "lm");
	f->root = parse_key(snap_text(f->snap, "vm-check/user"), "root", vendor,
			    sizeof(vendor)) &&
		  !strcmp(vendor, "1");
}

static void read_vendor(struct facts *f)
{
	const char *info = snap_text(f->snap, "proc/cpuinfo");
	char vendor[64] = "";

	parse_key(info, "vendor_id", vendor, sizeof(vendor));
	if (!strcmp(vendor, "GenuineIntel") || !strcmp(vendor, "CentaurHauls") ||
	    !strcmp(vendor, "  Shanghai  ") || !strcmp(vendor, "Shanghai"))
		f->vendor = VENDOR_INTEL; /* VT-x, whoever made it */
	else if (!strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine"))
		f->vendor = VENDOR_AMD;
	f->module = f->vendor == VENDOR_AMD ? "kvm_amd" : "kvm_intel";
}

static enum tri firmware_by_msr(struct facts *f)
{
	uint64_t v;
	bool any = false;

	for (unsigned cpu = 0; cpu < MAX_CPUS; cpu++) {
		bool off;

		if (f->vendor == VENDOR_INTEL) {
			if (!parse_msr(f->snap, cpu, 0x3a, &v))
				break;
			off = (v & FEATURE_LOCKED) && !(v & FEATURE_VMX);
		} else {
			if (!parse_msr(f->snap, cpu, 0xc0010114, &v))
				break;
			off = v & VM_CR_SVMDIS;
		}
		any = true;
		f->cpus_off += off;
	}
	return !any ? MAYBE : f->cpus_off ? YES : NO;
}

static bool log_says_off(const struct facts *f)
{
	static const char *const lines[] = {
		"disabled by bios",       "disabled by the bios", "VMX not enabled",
		"(outside TXT) disabled", "SVM disabled",
	};
	const char *log = snap_text(f->snap, "vm-check/kernel-log");

	for (size_t i = 0; log && i < ARRAY_LEN(lines); i++)
		if (strcasestr(log, lines[i]))
			return true;
	return false;
}

static void read_virt(struct facts *f)
{
	const char *cmdline = snap_text(f->snap, "proc/cmdline");
	struct cpuid c;

	f->virt_shown = cpu_flag(f, "vmx") || cpu_flag(f, "svm");
	f->virt_raw = f->virt_shown ? YES : MAYBE;
	if (f->vendor == VENDOR_AMD) {
		if (parse_cpuid(f->snap, 0x80000001, 0, &c))
			f->virt_raw = c.c & BIT(2) ? YES : NO;
	} else if (parse_cpuid(f->snap, 1, 0, &c)) {
		f->virt_raw = c.c & BIT(5) ? YES : NO;
	}
	if (f->virt_shown)
		f->virt_raw = YES;
	f->firmware_off = firmware_by_msr(f);
	if (f->firmware_off != MAYBE)
		return;
	if (log_says_off(f))
		f->firmware_off = YES;
	else if (f->virt_raw == YES && !f->virt_shown &&
		 !(cmdline && strstr(cmdline, "clearcpuid")))
		f->firmware_off = YES; /* the kernel clears the flag then */
	else if (f->virt_shown && f->kvm_loaded && f->holder[0])
		f->firmware_off = NO;
}

static void read_modules(struct facts *f)
{
	static const char *const vendors[] = {"kvm_intel", "kvm_amd", "kvm_pvm"};

	f->kvm_loaded = snap_find(f->snap, "sys/module/kvm") != NULL;
	for (size_t i = 0; i < ARRAY_LEN(vendors); i++) {
		char path[48];

		snprintf(path, sizeof(path), "sys/module/%s", vendors[i]);
		if (snap_find(f->snap, path))
			snprintf(f->holder, sizeof(f->holder), "%s", vendors[i]);
	}
}

static void read_distro(struct facts *f)
{
	static const struct {
		const char *id, *distro;
	} known[] = {
		{"debian", "debian"}, {"ubuntu", "debian"}, {"fedora", "fedora"},
		{"rhel", "fedora"},   {"centos", "fedora"}, {"arch", "arch"},
		{"suse", "suse"},     {"alpine", "alpine"}, {"nixos", "nixos"},
	};
	const char *os = snap_text(f->snap, "etc/os-release");
	char id[64], like[128];

	f->distro = "other";
	parse_key(os, "ID", id, sizeof(id));
	parse_key(os, "ID_LIKE", like, sizeof(like));
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (strstr(id, known[i].id) || strstr(like, known[i].id)) {
			f->distro = known[i].distro;
			return;
		}
	}
}

void facts_read_basis(struct facts *f)
{
	struct cpuid c;

	read_arch(f);
	read_vendor(f);
	read_modules(f);
	read_virt(f);
	read_distro(f);
	f->hypervisor = cpu_flag(f, "hypervisor") ||
			(parse_cpuid(f->snap, 1, 0, &c) && c.c & BIT(31));
	parse_proof(f->snap, &f->proof);
	env_find(f);
}

/*
 * facts/facts_cpu.c - what the processor can do (Intel SDM volume 3, chapters 24 and A; AMD APM volume 2,
 * chapter 15; /proc/cpuinfo). Any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

/* VMX capability MSRs, high half: what may be 1. */
#define MSR_PROCBASED2 0x48b
#define MSR_EPT_VPID   0x48c

static void read_model(const struct facts *f, struct fact_value *v)
{
	const char *info = snap_text(f->snap, "proc/cpuinfo");
	char name[100], vendor[32];

	if (!parse_key(info, "model name", name, sizeof(name)) &&
	    !parse_key(info, "Processor", name, sizeof(name)) &&
	    !parse_key(info, "Model", name, sizeof(name))) {
		fact_set(v, FACT_UNKNOWN, "not told by /proc/cpuinfo");
		return;
	}
	parse_key(info, "vendor_id", vendor, sizeof(vendor));
	fact_set(v, FACT_INFO, "%s%s%s%s", name, vendor[0] ? " (" : "", vendor,
		 vendor[0] ? ")" : "");
}

static void read_arch(const struct facts *f, struct fact_value *v)
{
	if (!f->machine[0])
		fact_set(v, FACT_UNKNOWN, "not told");
	else if (!f->x86)
		fact_set(v, FACT_MISSING, "%s, not x86-64", f->machine);
	else if (!f->long_mode)
		fact_set(v, FACT_MISSING, "a 32-bit processor: 32-bit guests only");
	else if (!f->kernel64)
		fact_set(v, FACT_MISSING, "64-bit processor under a 32-bit kernel (%s)",
			 f->machine);
	else
		fact_set(v, FACT_OK, "yes (long mode, %s kernel)", f->machine);
}

static void read_count(const struct facts *f, struct fact_value *v)
{
	char line[128], smt[8];
	unsigned n = parse_cpu_list(snap_line(f->snap, "sys/devices/system/cpu/online",
					      line, sizeof(line)));
	unsigned nodes = snap_count(f->snap, "sys/devices/system/node/");

	if (!n) {
		fact_set(v, FACT_UNKNOWN, "not told");
		return;
	}
	snap_line(f->snap, "sys/devices/system/cpu/smt/active", smt, sizeof(smt));
	fact_set(v, FACT_INFO, "%u online, %s, %u memory node%s", n,
		 !strcmp(smt, "1") ? "with hyper-threading" : "no hyper-threading",
		 nodes ? nodes : 1, nodes > 1 ? "s" : "");
}

static void read_virt(const struct facts *f, struct fact_value *v)
{
	const char *name = f->vendor == VENDOR_AMD ? "AMD-V (SVM)" : "VT-x (VMX)";

	if (!f->x86)
		fact_set(v, FACT_MISSING, "none that x86 guests could use");
	else if (f->virt_shown)
		fact_set(v, FACT_OK, "%s", name);
	else if (f->virt_raw == YES)
		fact_set(v, FACT_MISSING,
			 "%s is in the processor, but the kernel does not show it",
			 name);
	else if (f->virt_raw == NO)
		fact_set(v, FACT_MISSING, "none%s",
			 f->hypervisor ? ": the hypervisor passes none on" : "");
	else
		fact_set(v, FACT_MISSING, "not in /proc/cpuinfo (no CPUID to compare)");
}

static void read_firmware_switch(const struct facts *f, struct fact_value *v)
{
	if (f->firmware_off == YES && f->cpus_off)
		fact_set(v, FACT_MISSING, "switched off on %u processor%s (%s)",
			 f->cpus_off, f->cpus_off > 1 ? "s" : "",
			 f->vendor == VENDOR_AMD ? "VM_CR" : "IA32_FEATURE_CONTROL");
	else if (f->firmware_off == YES)
		fact_set(v, FACT_MISSING, "switched off");
	else if (f->firmware_off == NO)
		fact_set(v, FACT_OK, "switched on");
	else if (f->virt_raw == NO)
		fact_set(v, FACT_INFO, "nothing to switch");
	else
		fact_set(v, FACT_UNKNOWN, "%s",
			 f->virt_shown ? "the registers cannot be read; nothing "
					 "says that it is off"
				       : "the registers cannot be read");
}

/* State of a feature that cpuinfo, CPUID or an MSR may show; `have` MAYBE: not to be told. */
static void feature(const struct facts *f, struct fact_value *v, enum tri have,
		    enum fact_state absent, const char *name)
{
	if (f->virt_raw == NO || !f->x86)
		fact_set(v, FACT_INFO, "no: no virtualization to extend");
	else if (have == MAYBE)
		fact_set(v, FACT_UNKNOWN, "not told to this user");
	else if (have == YES)
		fact_set(v, FACT_OK, "%s", name);
	else
		fact_set(v, absent, "no");
}

static enum tri svm_feature(const struct facts *f, unsigned bit, const char *flag)
{
	struct cpuid c;

	if (flag && cpu_flag(f, flag))
		return YES;
	if (!parse_cpuid(f->snap, 0x8000000a, 0, &c))
		return f->virt_shown ? NO : MAYBE;
	return c.d & BIT(bit) ? YES : NO;
}

/* In "vmx flags" or, on older kernels, "flags"; or as MSR 48Bh has it. */
static enum tri vmx_feature(const struct facts *f, unsigned bit, const char *flag)
{
	uint64_t msr;

	if (vmx_flag(f, flag) || cpu_flag(f, flag))
		return YES;
	if (parse_msr(f->snap, 0, MSR_PROCBASED2, &msr))
		return msr >> 32 & BIT(bit) ? YES : NO;
	return f->virt_shown && vmx_flag(f, "vnmi") ? NO : MAYBE;
}

static enum tri by_parameter(const struct facts *f, const char *name, enum tri have)
{
	enum tri p = parse_param(f->snap, f->module, name);

	return have == MAYBE ? p : have;
}

static void read_ept(const struct facts *f, struct fact_value *v)
{
	bool amd = f->vendor == VENDOR_AMD;
	const char *name = amd ? "npt" : "ept";
	enum tri have = by_parameter(
		f, name, amd ? svm_feature(f, 0, "npt") : vmx_feature(f, 1, "ept"));

	if (have == YES && parse_param(f->snap, f->module, name) == NO)
		fact_set(v, FACT_WARN,
			 "in the processor, switched off by parameter %s=0 of %s", name,
			 f->module);
	else
		feature(f, v, have, FACT_WARN, amd ? "yes (NPT)" : "yes (EPT)");
}

static void read_unrestricted(const struct facts *f, struct fact_value *v)
{
	if (f->vendor == VENDOR_AMD)
		feature(f, v, YES, FACT_INFO, "yes (always on AMD)");
	else
		feature(f, v,
			by_parameter(f, "unrestricted_guest",
				     vmx_feature(f, 7, "unrestricted_guest")),
			FACT_WARN, "yes");
}

static void read_vpid(const struct facts *f, struct fact_value *v)
{
	char text[64] = "yes (VPID)";
	struct cpuid c;

	if (f->vendor == VENDOR_AMD) {
		bool told = parse_cpuid(f->snap, 0x8000000a, 0, &c);

		if (told)
			snprintf(text, sizeof(text), "%u ASIDs", c.b);
		feature(f, v, !told ? MAYBE : c.b > 1 ? YES : NO, FACT_WARN, text);
	} else {
		feature(f, v, by_parameter(f, "vpid", vmx_feature(f, 5, "vpid")),
			FACT_WARN, text);
	}
}

static void read_apicv(const struct facts *f, struct fact_value *v)
{
	bool amd = f->vendor == VENDOR_AMD;
	enum tri have = amd ? svm_feature(f, 13, "avic")
			    : vmx_feature(f, 9, vmx_flag(f, "vid") ? "vid" : "apicv");
	enum tri used = amd ? parse_param(f->snap, "kvm_amd", "avic")
			    : parse_param(f->snap, "kvm_intel", "enable_apicv");
	char text[64];

	snprintf(text, sizeof(text), "%s%s", amd ? "AVIC" : "APICv",
		 used == NO    ? ", not used by KVM"
		 : used == YES ? ", used"
			       : "");
	feature(f, v, have, FACT_INFO, text);
}

static void read_posted(const struct facts *f, struct fact_value *v)
{
	uint64_t msr;
	enum tri have = f->vendor == VENDOR_AMD      ? svm_feature(f, 13, "avic")
			: vmx_flag(f, "posted_intr") ? YES
						     : MAYBE;

	if (have == MAYBE && parse_msr(f->snap, 0, 0x481, &msr))
		have = msr >> 32 & BIT(7) ? YES : NO;
	if (have == MAYBE && vmx_flag(f, "vnmi"))
		have = NO;
	feature(f, v, have, FACT_INFO, f->vendor == VENDOR_AMD ? "yes (AVIC)" : "yes");
}

static void read_tsc_scaling(const struct facts *f, struct fact_value *v)
{
	feature(f, v,
		f->vendor == VENDOR_AMD ? svm_feature(f, 4, "tsc_scale")
					: vmx_feature(f, 25, "tsc_scaling"),
		FACT_INFO, "yes");
}

static void read_vnested(const struct facts *f, struct fact_value *v)
{
	if (f->vendor == VENDOR_AMD)
		feature(f, v, svm_feature(f, 15, "v_vmsave_vmload"), FACT_INFO,
			"yes (virtual VMSAVE/VMLOAD)");
	else
		feature(f, v, vmx_feature(f, 14, "shadow_vmcs"), FACT_INFO,
			"yes (shadow VMCS)");
}

static void read_1g(const struct facts *f, struct fact_value *v)
{
	if (cpu_flag(f, "pdpe1gb"))
		fact_set(v, FACT_OK, "yes");
	else
		fact_set(v, f->x86 ? FACT_WARN : FACT_INFO, "no");
}

static void read_tsc(const struct facts *f, struct fact_value *v)
{
	bool good = cpu_flag(f, "constant_tsc") && cpu_flag(f, "nonstop_tsc");

	if (!f->x86)
		fact_set(v, FACT_INFO, "no");
	else
		fact_set(v, good ? FACT_OK : FACT_WARN, "%s",
			 good ? "yes" : "no: guests may fall back to slow clocks");
}

static void read_bits(const struct facts *f, struct fact_value *v)
{
	char text[80];

	if (parse_key(snap_text(f->snap, "proc/cpuinfo"), "address sizes", text,
		      sizeof(text)))
		fact_set(v, FACT_INFO, "%s", text);
	else
		fact_set(v, FACT_UNKNOWN, "not told");
}

static void read_x2apic(const struct facts *f, struct fact_value *v)
{
	if (cpu_flag(f, "x2apic"))
		fact_set(v, FACT_OK, "yes");
	else
		fact_set(v, FACT_INFO, "no");
}

/* Memory encryption: CPUID 8000001Fh has it, kvm_amd's parameter uses it. */
static void sev_level(const struct facts *f, struct fact_value *v, unsigned bit,
		      const char *flag, const char *param)
{
	struct cpuid c;
	bool have = cpu_flag(f, flag);
	enum tri used = parse_param(f->snap, "kvm_amd", param);

	if (f->vendor != VENDOR_AMD) {
		fact_set(v, FACT_INFO, "no (AMD only)");
		return;
	}
	if (parse_cpuid(f->snap, 0x8000001f, 0, &c) && c.a & BIT(bit))
		have = true;
	if (!have)
		fact_set(v, FACT_INFO, "no");
	else if (used == YES && snap_find(f->snap, "dev/sev"))
		fact_set(v, FACT_OK, "ready (kvm_amd %s=Y, /dev/sev)", param);
	else
		fact_set(v, FACT_INFO, "in the processor, %s",
			 used == YES ? "but /dev/sev is not there" : "not used by KVM");
}

static void read_sev(const struct facts *f, struct fact_value *v)
{
	sev_level(f, v, 1, "sev", "sev");
}

static void read_sev_es(const struct facts *f, struct fact_value *v)
{
	sev_level(f, v, 3, "sev_es", "sev_es");
}

static void read_sev_snp(const struct facts *f, struct fact_value *v)
{
	sev_level(f, v, 4, "sev_snp", "sev_snp");
}

static void read_tdx(const struct facts *f, struct fact_value *v)
{
	const char *log = snap_text(f->snap, "vm-check/kernel-log");
	enum tri used = parse_param(f->snap, "kvm_intel", "tdx");

	if (f->vendor != VENDOR_INTEL)
		fact_set(v, FACT_INFO, "no (Intel only)");
	else if (cpu_flag(f, "tdx_guest"))
		fact_set(v, FACT_INFO, "this is a TDX guest");
	else if (used == YES)
		fact_set(v, FACT_OK, "ready (kvm_intel tdx=Y)");
	else if (cpu_flag(f, "tdx_host_platform") ||
		 (log && strstr(log, "virt/tdx: BIOS enabled")))
		fact_set(v, FACT_INFO, "in the processor, not used by KVM");
	else
		fact_set(v, FACT_INFO, "no");
}

/* clang-format off */
const struct fact facts_cpu[] = {
	FACT("cpu-model", "Processor", "model", read_model, "The processor as /proc/cpuinfo names it."),
	FACT("cpus", "Processor", "processors", read_count, "Processors that are online; a guest should not have more than that."),
	FACT("64-bit", "Processor", "64-bit guests", read_arch, "Guests of 64 bits need a 64-bit processor under a 64-bit kernel. vm-run itself needs x86-64 too."),
	FACT("virt", "Processor", "virtualization", read_virt,
		"VT-x (flag vmx) or AMD-V (flag svm). The CPUID instruction tells what is in the processor, /proc/cpuinfo what the kernel uses; where they differ, the firmware switched it off."),
	FACT("firmware-switch", "Processor", "firmware switch", read_firmware_switch,
		"IA32_FEATURE_CONTROL (bit 0 locked, bit 2 VMX) or VM_CR (bit 4 SVMDIS) where /dev/cpu/N/msr may be read; else the kernel log, else CPUID against /proc/cpuinfo."),
	FACT("ept", "Processor", "nested paging", read_ept, "EPT (Intel) or NPT (AMD): the processor translates guest addresses. Without it KVM keeps shadow page tables: several times slower."),
	FACT("unrestricted-guest", "Processor", "unrestricted guest", read_unrestricted, "Real mode runs on the processor. Without it KVM interprets boot loaders and the like: slow, and not always right."),
	FACT("vpid", "Processor", "VPID / ASIDs", read_vpid, "The TLB is tagged by guest: no flush at each exit."),
	FACT("apicv", "Processor", "APICv / AVIC", read_apicv, "The processor keeps the guest's interrupt controller: fewer exits."),
	FACT("posted-interrupts", "Processor", "posted interrupts", read_posted, "Interrupts reach a running guest without an exit."),
	FACT("tsc-scaling", "Processor", "TSC scaling", read_tsc_scaling, "A guest moved from another computer keeps its clock rate."),
	FACT("nested-assist", "Processor", "nested assistance", read_vnested, "Shadow VMCS or virtual VMSAVE/VMLOAD: virtual machines within guests run faster."),
	FACT("1g-pages", "Processor", "1 GiB pages", read_1g, "Pages of 1 GiB: fewer TLB misses for large guests."),
	FACT("invariant-tsc", "Processor", "invariant TSC", read_tsc, "A time stamp counter of constant rate: guests read the clock without an exit."),
	FACT("x2apic", "Processor", "x2APIC", read_x2apic, "Interrupt controller by registers instead of memory; more than 255 processors."),
	FACT("address-bits", "Processor", "address bits", read_bits, "Physical and virtual address width."),
	FACT("sev", "Processor", "SEV", read_sev, "Guest memory encrypted by the processor (AMD)."),
	FACT("sev-es", "Processor", "SEV-ES", read_sev_es, "Guest registers encrypted too (AMD)."),
	FACT("sev-snp", "Processor", "SEV-SNP", read_sev_snp, "Guest memory protected from changes too (AMD)."),
	FACT("tdx", "Processor", "TDX", read_tdx, "Guests hidden from the host (Intel)."),
	{0},
};
/* clang-format on */

/* facts/facts_kvm.c - KVM: modules, the device, what it answers, the proof. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

static void read_module(const struct facts *f, struct fact_value *v)
{
	if (!strcmp(f->holder, "kvm_pvm"))
		fact_set(v, FACT_WARN,
			 "kvm with kvm_pvm: software virtualization, no VT-x/AMD-V");
	else if (f->holder[0])
		fact_set(v, FACT_OK, "kvm, %s", f->holder);
	else if (f->kvm_loaded)
		fact_set(v, FACT_MISSING, "kvm without %s",
			 f->vendor == VENDOR_OTHER ? "a vendor module" : f->module);
	else if (f->proof.there && f->proof.api == 12)
		fact_set(v, FACT_INFO, "not shown by /sys/module, but it answers");
	else
		fact_set(v, FACT_MISSING, "not loaded");
}

static void read_params(const struct facts *f, struct fact_value *v)
{
	static const char *const names[] = {
		"nested", "ept", "npt",          "unrestricted_guest", "vpid",
		"avic",   "sev", "enable_apicv", "flexpriority"};
	char text[160] = "";
	size_t at = 0;

	for (size_t i = 0; i < ARRAY_LEN(names) && at < 120; i++) {
		enum tri p = parse_param(f->snap, f->holder, names[i]);

		if (p != MAYBE)
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s=%s",
					       at ? " " : "", names[i],
					       p == YES ? "Y" : "N");
	}
	fact_set(v, FACT_INFO, "%s", at ? text : "none to be read");
}

static void read_nested(const struct facts *f, struct fact_value *v)
{
	enum tri p = parse_param(f->snap, f->holder, "nested");

	if (!f->holder[0] || p == MAYBE)
		fact_set(v, FACT_INFO, "not offered");
	else if (p == YES)
		fact_set(v, FACT_OK, "on");
	else
		fact_set(v, FACT_INFO, "off (%s nested=0)", f->holder);
}

/* The device's rights, and who could get them. */
static void tell_rights(const struct facts *f, const struct node *n,
			struct fact_value *v)
{
	char group[33] = "", owner[16];

	if (!group_name(f, n->gid, group, sizeof(group)))
		snprintf(group, sizeof(group), n->gid ? "%u" : "root", n->gid);
	snprintf(owner, sizeof(owner), n->uid ? "%u" : "root", n->uid);
	fact_set(v, FACT_OK, "/dev/kvm, mode %04o, owner %s, group %s: for %s", n->mode,
		 owner, group,
		 (n->mode & 6) == 6       ? "everybody"
		 : (n->mode & 060) == 060 ? "the members of the group"
					  : "the owner only");
}

static void read_device(const struct facts *f, struct fact_value *v)
{
	const struct snap_file *file = snap_find(f->snap, "dev/kvm");
	struct node n;

	if (!file)
		fact_set(v, FACT_MISSING, "/dev/kvm is not there");
	else if (!parse_node(f->snap, "dev/kvm", &n))
		fact_set(v, FACT_UNKNOWN, "/dev/kvm cannot be looked at");
	else if (n.type != 'c')
		fact_set(v, FACT_MISSING, "/dev/kvm is no device");
	else
		tell_rights(f, &n, v);
}

static void read_access(const struct facts *f, struct fact_value *v)
{
	bool refused = !strcmp(f->proof.verdict, "forbidden");
	struct node n;

	if (!parse_node(f->snap, "dev/kvm", &n))
		fact_set(v, FACT_MISSING, "nothing to open");
	else if (refused)
		fact_set(v, FACT_MISSING, "refused (%s)", f->proof.error);
	else if (f->proof.api)
		fact_set(v, FACT_OK, "this user may open it");
	else if (!strcmp(n.access, "ok"))
		fact_set(v, FACT_OK, "this user may open it");
	else
		fact_set(v, FACT_MISSING, "refused (%s)", n.access);
}

static void read_api(const struct facts *f, struct fact_value *v)
{
	if (!f->proof.api)
		fact_set(v, FACT_MISSING, "no answer");
	else
		fact_set(v, f->proof.api == 12 ? FACT_OK : FACT_MISSING, "%d",
			 f->proof.api);
}

static void read_caps(const struct facts *f, struct fact_value *v)
{
	static const char *const needed[] = {
		"user-memory", "split-irqchip", "irq-routing",    "signal-msi",
		"ext-cpuid",   "mp-state",      "vcpu-events",    "xsave",
		"xcrs",        "debugregs",     "immediate-exit", "ioeventfd",
	};
	char miss[120] = "";
	size_t at = 0;

	if (proof_cap(f, "user-memory") < 0) {
		fact_set(v, FACT_MISSING, "no answer");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(needed) && at < 90; i++)
		if (proof_cap(f, needed[i]) <= 0)
			at += (size_t)snprintf(miss + at, sizeof(miss) - at, " %s",
					       needed[i]);
	if (at)
		fact_set(v, FACT_MISSING, "lacks%s", miss);
	else
		fact_set(v, FACT_OK, "all %zu that vm-run uses", ARRAY_LEN(needed));
}

static void read_vcpus(const struct facts *f, struct fact_value *v)
{
	int max = proof_cap(f, "max-vcpus"), soft = proof_cap(f, "nr-vcpus");

	if (max < 0)
		fact_set(v, FACT_MISSING, "no answer");
	else
		fact_set(v, FACT_INFO, "%d (recommended: up to %d)", max, soft);
}

static void read_extras(const struct facts *f, struct fact_value *v)
{
	static const struct {
		const char *cap, *name;
	} extras[] = {{"smm", "SMM"},
		      {"hyperv", "Hyper-V"},
		      {"x2apic-api", "x2APIC"},
		      {"nested-state", "nested state"},
		      {"tsc-control", "TSC scaling"},
		      {"readonly-mem", "ROM"}};
	char text[160] = "";
	size_t at = 0;

	for (size_t i = 0; i < ARRAY_LEN(extras); i++)
		if (proof_cap(f, extras[i].cap) >= 0 && at < 120)
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s %s",
					       at ? ", " : "", extras[i].name,
					       proof_cap(f, extras[i].cap) ? "yes"
									   : "no");
	fact_set(v, at ? FACT_INFO : FACT_MISSING, "%s", at ? text : "no answer");
}

/* ---- the proof ---- */

static void read_mode(const struct facts *f, struct fact_value *v, unsigned mode)
{
	const struct proof *p = &f->proof;

	if (!p->there)
		fact_set(v, FACT_UNKNOWN, "not tried");
	else if (p->ok[mode])
		fact_set(v, FACT_OK, "right answer, %u exits of %.1f us",
			 p->exits[mode], p->exit_ns[mode] / 1000);
	else if (!strcmp(p->verdict, "works") || !strcmp(p->verdict, "slow") ||
		 !strcmp(p->verdict, "broken"))
		fact_set(v, FACT_MISSING, "%s",
			 p->exits[mode] ? "fails on the way" : "does not run");
	else
		fact_set(v, FACT_MISSING, "no guest could be started");
}

static void read_real(const struct facts *f, struct fact_value *v)
{
	read_mode(f, v, 0);
}

static void read_protected(const struct facts *f, struct fact_value *v)
{
	read_mode(f, v, 1);
}

static void read_pae(const struct facts *f, struct fact_value *v)
{
	read_mode(f, v, 2);
}

static void read_long(const struct facts *f, struct fact_value *v)
{
	read_mode(f, v, 3);
}

static void read_speed(const struct facts *f, struct fact_value *v)
{
	const struct proof *p = &f->proof;

	if (!p->there)
		fact_set(v, FACT_UNKNOWN, "not tried");
	else if (!(p->guest_mips > 0) || !(p->native_mips > 0))
		fact_set(v, FACT_MISSING, "not measured");
	else if (!strcmp(p->verdict, "slow"))
		fact_set(v, FACT_MISSING,
			 "%.1f million instructions/s: interpreted, %.0f times slower "
			 "than native",
			 p->guest_mips, p->native_mips / p->guest_mips);
	else
		fact_set(v, FACT_OK, "native (%.0f of %.0f million instructions/s)",
			 p->guest_mips, p->native_mips);
}

static void read_full(const struct facts *f, struct fact_value *v)
{
	const struct proof *p = &f->proof;

	if (!p->there)
		fact_set(v, FACT_UNKNOWN, "not tried");
	else
		fact_set(v, strcmp(p->verdict, "works") ? FACT_MISSING : FACT_OK, "%s",
			 strcmp(p->verdict, "works") ? "no" : "yes, proved");
}

/* clang-format off */
const struct fact facts_kvm[] = {
	FACT("kvm-module", "KVM", "modules", read_module, "KVM is the module kvm with kvm_intel or kvm_amd (or built in)."),
	FACT("kvm-parameters", "KVM", "parameters", read_params, "Parameters of the vendor module, from /sys/module."),
	FACT("nested", "KVM", "nested guests", read_nested, "May guests run virtual machines of their own? Parameter nested of the module."),
	FACT("kvm-device", "KVM", "device", read_device, "/dev/kvm as it stands: rights, owner, group, and who may open it by them."),
	FACT("kvm-access", "KVM", "access", read_access, "Opened for reading and writing, not just looked at: containers refuse devices whose rights look fine."),
	FACT("kvm-api", "KVM", "API version", read_api, "KVM_GET_API_VERSION: 12 since 2007."),
	FACT("kvm-capabilities", "KVM", "capabilities", read_caps, "What vm-run's KVM engine needs, by KVM_CHECK_EXTENSION."),
	FACT("kvm-extras", "KVM", "extras", read_extras, "Capabilities some guests profit from."),
	FACT("max-vcpus", "KVM", "guest processors", read_vcpus, "KVM_CAP_MAX_VCPUS and KVM_CAP_NR_VCPUS."),
	FACT("proof-real", "Proof", "real mode", read_real, "A guest of a few bytes in real mode computed its answer."),
	FACT("proof-protected", "Proof", "protected mode", read_protected, "The same in 32-bit protected mode."),
	FACT("proof-pae", "Proof", "PAE with paging", read_pae, "The same with PAE page tables, changed while it runs."),
	FACT("proof-long", "Proof", "64-bit with paging", read_long, "The same in 64-bit mode, with an exception and changed page tables."),
	FACT("ring0-speed", "Proof", "ring-0 speed", read_speed, "A loop in ring 0 of the guest against the same loop here. There are /dev/kvm that interpret ring 0 at about 1 million instructions a second."),
	FACT("full-speed", "Proof", "full speed", read_full, "All modes gave the right answers at the processor's own speed."),
	{0},
};
/* clang-format on */

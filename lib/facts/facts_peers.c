/*
 * facts/facts_peers.c - what other tools would say here, by their own rules, and why they are wrong where the
 * proof differs: grep, kvm-ok (cpu-checker 1.5), virt-host-validate (libvirt 9), systemd-detect-virt (252),
 * virt-what (1.25). Any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

enum guess {
	CANNOT,
	CAN,
	NO_WORD, /* nothing that could be right or wrong */
};

/* The guess against the proof: state and one sentence. `says`: in its own words. */
static void compare(const struct facts *f, struct fact_value *v, enum guess guess,
		    const char *says, const char *looks_at)
{
	const struct proof *p = &f->proof;
	bool works = !strcmp(p->verdict, "works"), slow = !strcmp(p->verdict, "slow");

	if (!p->there || guess == NO_WORD)
		fact_set(v, FACT_INFO, "%s", says);
	else if (guess == CANNOT && works)
		fact_set(v, FACT_WARN, "%s: wrong, it looks only at %s; guests do run",
			 says, looks_at);
	else if (guess == CANNOT && slow)
		fact_set(v, FACT_WARN,
			 "%s, because it looks only at %s; /dev/kvm is there and runs "
			 "guests, but interprets their ring 0",
			 says, looks_at);
	else if (guess == CAN && slow)
		fact_set(v, FACT_WARN,
			 "%s: wrong, it looks only at %s; ring 0 is interpreted", says,
			 looks_at);
	else if (guess == CAN && !works)
		fact_set(v, FACT_WARN, "%s: wrong, it looks only at %s; no guest ran",
			 says, looks_at);
	else
		fact_set(v, FACT_INFO, "%s", says);
}

static const char *shown_flag(const struct facts *f)
{
	return cpu_flag(f, "vmx") ? "vmx" : cpu_flag(f, "svm") ? "svm" : NULL;
}

static void read_grep(const struct facts *f, struct fact_value *v)
{
	const char *flag = shown_flag(f);
	char says[60];

	snprintf(says, sizeof(says), "%s%s", flag ? "finds " : "finds neither",
		 flag ? flag : "");
	compare(f, v, flag ? CAN : CANNOT, says, "the flags of /proc/cpuinfo");
}

static void read_kvm_ok(const struct facts *f, struct fact_value *v)
{
	static const char no[] = "\"KVM acceleration can NOT be used\"",
			  yes[] = "\"KVM acceleration can be used\"";
	bool device = snap_find(f->snap, "dev/kvm");

	if (!f->x86)
		fact_set(v, FACT_INFO, "not asked: this is not x86");
	else if (!shown_flag(f))
		compare(f, v, CANNOT,
			f->root ? no : "\"Your CPU does not support KVM extensions\"",
			"the flags of /proc/cpuinfo");
	else if (device)
		compare(f, v, CAN, yes, "flags and the name /dev/kvm");
	else if (!f->root)
		compare(f, v, CANNOT, "\"/dev/kvm does not exist\", and no verdict",
			"flags and the name /dev/kvm");
	else
		compare(f, v, f->cpus_off ? CANNOT : CAN, f->cpus_off ? no : yes,
			"flags and one register");
}

static void read_validate(const struct facts *f, struct fact_value *v)
{
	struct node n;
	bool open = parse_node(f->snap, "dev/kvm", &n) && !strcmp(n.access, "ok");

	if (!f->x86)
		fact_set(v, FACT_INFO, "not asked: this is not x86");
	else if (!shown_flag(f))
		compare(f, v, CANNOT, "hardware virtualization: FAIL",
			"the flags of /proc/cpuinfo");
	else if (!snap_find(f->snap, "dev/kvm"))
		compare(f, v, CANNOT,
			"hardware virtualization: PASS, /dev/kvm exists: FAIL",
			"flags and the name /dev/kvm");
	else
		compare(f, v, open ? CAN : CANNOT,
			open ? "hardware virtualization: PASS, /dev/kvm: PASS"
			     : "hardware virtualization: PASS, /dev/kvm is accessible: "
			       "FAIL",
			"flags and rights of /dev/kvm");
}

/* clang-format off */
/* Names of the rows in env.c; NULL: as in the row. */
static const struct {
	const char *env, *systemd, *what;
} names[] = {
	{"wsl2", "wsl", "hyperv"}, {"amazon", "amazon", "kvm aws"}, {"google", "kvm", "google_cloud kvm"},
	{"azure", "microsoft", "hyperv"}, {"digitalocean", "kvm", "kvm"}, {"hetzner", "kvm", "kvm"},
	{"alibaba", "kvm", "alibaba_cloud kvm"}, {"openstack", "kvm", "kvm"}, {"virtualbox", "oracle", "virtualbox"},
	{"vmware", "vmware", "vmware"}, {"parallels", "parallels", "parallels"}, {"bhyve", "bhyve", "bhyve"},
	{"qnx", "qnx", "nothing"}, {"acrn", "acrn", "nothing"}, {"apple", "apple", "nothing"}, {"bochs", "bochs", "nothing"},
	{"firecracker", "kvm", "kvm"}, {"hyperv", "microsoft", "hyperv"}, {"xen", "xen", "xen"}, {"tcg", "qemu", "qemu"},
	{"kvm", "kvm", "kvm"}, {"qemu", "qemu", "qemu"}, {"vm", "vm-other", "nothing"},
	{"gvisor", "none", "nothing"}, {"openvz", "openvz", "openvz"}, {"kubernetes", "docker", "docker"},
	{"podman", "podman", "podman"}, {"docker", "docker", "docker"}, {"lxd", "lxc", "lxc"}, {"lxc", "lxc", "lxc"},
	{"systemd-nspawn", "systemd-nspawn", "nothing"}, {"container", "container-other", "nothing"},
};
/* clang-format on */

static const char *peer_name(const struct env *e, bool systemd)
{
	for (size_t i = 0; e && i < ARRAY_LEN(names); i++)
		if (!strcmp(names[i].env, e->id))
			return systemd ? names[i].systemd : names[i].what;
	return NULL;
}

static void say_names(const struct facts *f, struct fact_value *v, bool systemd,
		      const char *none)
{
	const char *c = peer_name(f->container, systemd);
	const char *m = f->xen_dom0 ? systemd ? none : "xen xen-dom0"
				    : peer_name(f->vm, systemd);

	if (c && !strcmp(c, none))
		c = NULL;
	if (m && !strcmp(m, none))
		m = NULL;
	if (c && m)
		fact_set(v, FACT_INFO, "%s (the container); %s (the machine)", c, m);
	else
		fact_set(v, FACT_INFO, "%s", c ? c : m ? m : none);
}

static void read_detect(const struct facts *f, struct fact_value *v)
{
	say_names(f, v, true, "none");
}

static void read_what(const struct facts *f, struct fact_value *v)
{
	say_names(f, v, false, "nothing");
}

/* clang-format off */
const struct fact facts_peers[] = {
	FACT("says-grep", "What other tools say", "egrep '(vmx|svm)'", read_grep, "The flags of /proc/cpuinfo: there although the module, the rights or the device are missing; not there although /dev/kvm works, when a software KVM or the firmware's switch is behind it."),
	FACT("says-kvm-ok", "What other tools say", "kvm-ok", read_kvm_ok, "kvm-ok looks for vmx or svm in /proc/cpuinfo, then whether /dev/kvm exists, then, as root, at one register. It never opens /dev/kvm."),
	FACT("says-virt-host-validate", "What other tools say", "virt-host-validate", read_validate, "libvirt looks for vmx or svm in /proc/cpuinfo, then whether /dev/kvm exists and access(2) allows it. It never opens it."),
	FACT("says-detect-virt", "What other tools say", "systemd-detect-virt", read_detect, "The name it uses for what this computer lives in; 'none' is no statement about KVM."),
	FACT("says-virt-what", "What other tools say", "virt-what", read_what, "The names it uses for what this computer lives in; needs root."),
	{0},
};
/* clang-format on */

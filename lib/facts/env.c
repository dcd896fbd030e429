/*
 * facts/env.c - where this computer lives: under which hypervisor, in which container. One table of places,
 * one of what each is known by (CPUID leaf 40000000h, SMBIOS, files). Any thread.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "facts/facts_int.h"

/* clang-format off */
static const struct env vms[] = {
	{"wsl2", "WSL 2 (Hyper-V)", "in %UserProfile%\\.wslconfig under [wsl2]: nestedVirtualization=true, then 'wsl --shutdown' (needs Windows 11)", NULL},
	{"amazon", "Amazon EC2", "take a .metal instance, or an instance type with nested virtualization switched on in its CPU options", NULL},
	{"google", "Google Compute Engine", "gcloud compute instances update NAME --enable-nested-virtualization (Haswell or later; not E2, not AMD)", NULL},
	{"azure", "Microsoft Azure", "take a size with nested virtualization (Dv3/Ev3 and later, not B-series), security type 'Standard'", NULL},
	{"digitalocean", "DigitalOcean", "ask the provider for nested virtualization, or take bare metal", NULL},
	{"hetzner", "Hetzner Cloud", "take a dedicated server: cloud servers pass no virtualization on", NULL},
	{"alibaba", "Alibaba Cloud", "take an ECS bare metal instance (ebm*)", NULL},
	{"openstack", "OpenStack", "on the compute host: options @ nested=1, and cpu_mode=host-passthrough in nova.conf", NULL},
	{"virtualbox", "VirtualBox", "with the machine off: VBoxManage modifyvm NAME --nested-hw-virt on", NULL},
	{"vmware", "VMware", "with the machine off: vhv.enable = \"TRUE\" in its .vmx file (Processors: Virtualize Intel VT-x/EPT or AMD-V/RVI)", NULL},
	{"parallels", "Parallels", "in the machine's Hardware > CPU & Memory > Advanced: Enable nested virtualization", NULL},
	{"bhyve", "bhyve", "bhyve passes no virtualization on: run this on the host", NULL},
	{"qnx", "QNX hypervisor", "the hypervisor passes no virtualization on", NULL},
	{"acrn", "ACRN", "on the service VM: start the machine with nested virtualization (--nested)", NULL},
	{"apple", "Apple Virtualization", "macOS 15 on an M3 or later can nest, for ARM guests only", NULL},
	{"bochs", "Bochs", "in bochsrc: cpu: model=..., add_features=vmx", NULL},
	{"firecracker", "Firecracker", "the host must allow it: options @ nested=1, and a CPU template that keeps VMX or SVM", NULL},
	{"hyperv", "Microsoft Hyper-V", "on the host, with the machine off: Set-VMProcessor -VMName NAME -ExposeVirtualizationExtensions $true", NULL},
	{"xen", "Xen", "on dom0: nestedhvm=1 in the domain's configuration (HVM only, experimental)", NULL},
	{"tcg", "QEMU (TCG, emulated)", "start QEMU with -accel kvm -cpu host; under TCG: -cpu max,+svm", NULL},
	{"kvm", "KVM", "on the host: echo 'options @ nested=1' > /etc/modprobe.d/kvm.conf, reload the module, start the machine with -cpu host (libvirt: <cpu mode='host-passthrough'/>)", NULL},
	{"qemu", "QEMU", "start QEMU with -accel kvm -cpu host", NULL},
	{"vm", "an unknown hypervisor", "ask whoever runs the hypervisor to pass VT-x or AMD-V on", NULL},
};

static const struct env containers[] = {
	{"gvisor", "gVisor", NULL, "gVisor passes no KVM on: use another runtime (runc, Kata)"},
	{"openvz", "OpenVZ", NULL, "on the host: vzctl set CTID --devnodes kvm:rw --save"},
	{"kubernetes", "Kubernetes", NULL, "give the pod the device: a device plugin for devices.kubevirt.io/kvm (or smarter-device-manager), or privileged: true with a hostPath of /dev/kvm"},
	{"podman", "Podman", NULL, "start the container with: podman run --device /dev/kvm --group-add keep-groups ..."},
	{"docker", "Docker", NULL, "start the container with: docker run --device /dev/kvm ..."},
	{"lxd", "LXD/Incus", NULL, "on the host: lxc config device add NAME kvm unix-char path=/dev/kvm (incus: the same)"},
	{"lxc", "LXC", NULL, "on the host, in the container's configuration: lxc.cgroup2.devices.allow = c 10:232 rwm and lxc.mount.entry = /dev/kvm dev/kvm none bind,create=file"},
	{"systemd-nspawn", "systemd-nspawn", NULL, "start it with: --bind=/dev/kvm --property='DeviceAllow=/dev/kvm rw'"},
	{"container", "a container", NULL, "pass /dev/kvm into the container"},
};

static const struct env wsl1 = {"wsl1", "WSL 1", "in Windows: wsl --set-version DISTRIBUTION 2", NULL};

enum how {
	SIGNATURE, /* CPUID leaf 40000000h, EBX ECX EDX */
	HOLDS,     /* the file holds the text */
	EXISTS,    /* the path is there */
	LOG,       /* the kernel log holds it */
};

struct clue {
	const char *env;
	enum how how;
	const char *path, *text;
};

#define DMI "sys/class/dmi/id/"

/* The first that fits decides: clouds before the hypervisor they run on. */
static const struct clue vm_clues[] = {
	{"wsl2", HOLDS, "proc/version", "microsoft-standard"},
	{"wsl2", HOLDS, "proc/sys/kernel/osrelease", "WSL2"},
	{"wsl2", HOLDS, "proc/sys/kernel/osrelease", "microsoft-standard"},
	{"amazon", HOLDS, DMI "sys_vendor", "Amazon EC2"},
	{"amazon", HOLDS, DMI "bios_version", "amazon"},
	{"google", HOLDS, DMI "product_name", "Google Compute Engine"},
	{"azure", HOLDS, DMI "chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"},
	{"digitalocean", HOLDS, DMI "sys_vendor", "DigitalOcean"},
	{"hetzner", HOLDS, DMI "sys_vendor", "Hetzner"},
	{"alibaba", HOLDS, DMI "sys_vendor", "Alibaba Cloud"},
	{"openstack", HOLDS, DMI "product_name", "OpenStack"},
	{"openstack", HOLDS, DMI "sys_vendor", "OpenStack Foundation"},
	{"virtualbox", HOLDS, DMI "product_name", "VirtualBox"},
	{"virtualbox", HOLDS, DMI "sys_vendor", "innotek GmbH"},
	{"virtualbox", SIGNATURE, NULL, "VBoxVBoxVBox"},
	{"vmware", SIGNATURE, NULL, "VMwareVMware"},
	{"vmware", HOLDS, DMI "sys_vendor", "VMware"},
	{"parallels", SIGNATURE, NULL, " lrpepyh  vr"},
	{"parallels", SIGNATURE, NULL, " prl hyperv "},
	{"parallels", HOLDS, DMI "sys_vendor", "Parallels"},
	{"bhyve", SIGNATURE, NULL, "bhyve bhyve "},
	{"bhyve", HOLDS, DMI "product_name", "BHYVE"},
	{"qnx", SIGNATURE, NULL, "QNXQVMBSQG"},
	{"acrn", SIGNATURE, NULL, "ACRNACRNACRN"},
	{"apple", HOLDS, DMI "sys_vendor", "Apple Inc."},
	{"bochs", HOLDS, DMI "bios_vendor", "Bochs"},
	{"tcg", SIGNATURE, NULL, "TCGTCGTCGTCG"},
	{"xen", SIGNATURE, NULL, "XenVMMXenVMM"},
	{"xen", HOLDS, "sys/hypervisor/type", "xen"},
	{"firecracker", HOLDS, DMI "sys_vendor", "Amazon Firecracker"},
	{"firecracker", LOG, NULL, "FIRECK"},
	{"hyperv", SIGNATURE, NULL, "Microsoft Hv"},
	{"kvm", SIGNATURE, NULL, "KVMKVMKVM"},
	{"kvm", SIGNATURE, NULL, "Linux KVM Hv"},
	{"kvm", HOLDS, DMI "product_name", "KVM"},
	{"qemu", HOLDS, DMI "sys_vendor", "QEMU"},
	{"kvm", LOG, NULL, "Hypervisor detected: KVM"},
};

static const struct clue container_clues[] = {
	{"gvisor", HOLDS, "proc/version", "gVisor"},
	{"gvisor", LOG, NULL, "gVisor"},
	{"kubernetes", HOLDS, "proc/1/cgroup", "kubepods"},
	{"podman", HOLDS, "run/systemd/container", "podman"},
	{"podman", EXISTS, "run/.containerenv", NULL},
	{"docker", HOLDS, "run/systemd/container", "docker"},
	{"docker", EXISTS, ".dockerenv", NULL},
	{"docker", HOLDS, "proc/1/cgroup", "docker"},
	{"lxd", HOLDS, "run/host/container-manager", "lxd"},
	{"lxd", EXISTS, "dev/lxd", NULL},
	{"lxc", HOLDS, "run/systemd/container", "lxc"},
	{"lxc", HOLDS, "run/host/container-manager", "lxc"},
	{"lxc", HOLDS, "proc/1/cgroup", "lxc"},
	{"systemd-nspawn", HOLDS, "run/systemd/container", "systemd-nspawn"},
	{"systemd-nspawn", HOLDS, "run/host/container-manager", "systemd-nspawn"},
	{"podman", HOLDS, "proc/1/cgroup", "libpod"},
	{"container", HOLDS, "proc/1/cgroup", "containerd"},
	{"container", HOLDS, "proc/1/cgroup", "buildkit"},
	{"container", HOLDS, "proc/1/cgroup", "garden"},
};
/* clang-format on */

static bool signature_is(const struct snap *s, const char *text)
{
	char sig[13] = "";
	struct cpuid c;

	if (!parse_cpuid(s, 0x40000000, 0, &c))
		return false;
	memcpy(sig, &c.b, 4);
	memcpy(sig + 4, &c.c, 4);
	memcpy(sig + 8, &c.d, 4);
	return !strncmp(sig, text, strlen(text));
}

static bool clue_fits(const struct snap *s, const struct clue *c)
{
	const char *text;

	switch (c->how) {
	case SIGNATURE: return signature_is(s, c->text);
	case EXISTS: return snap_find(s, c->path) != NULL;
	case HOLDS: text = snap_text(s, c->path); break;
	case LOG: text = snap_text(s, "vm-check/kernel-log"); break;
	default: return false;
	}
	return text && strcasestr(text, c->text);
}

static const struct env *find(const struct env *e, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(e[i].id, id))
			return &e[i];
	return NULL;
}

static const struct env *first(const struct snap *s, const struct clue *c,
			       size_t n_clues, const struct env *e, size_t n)
{
	for (size_t i = 0; i < n_clues; i++)
		if (clue_fits(s, &c[i]))
			return find(e, n, c[i].env);
	return NULL;
}

/* Hyper-V's root partition manages the processors: CPUID 40000003h, EBX bit 12. Creating partitions guests may, too. */
static bool is_hyperv_root(const struct facts *f)
{
	struct cpuid c;

	return signature_is(f->snap, "Microsoft Hv") &&
	       ((parse_cpuid(f->snap, 0x40000003, 0, &c) && c.b & BIT(12)) ||
		snap_find(f->snap, "dev/mshv"));
}

void env_find(struct facts *f)
{
	const struct snap *s = f->snap;
	const char *xen = snap_text(s, "proc/xen/capabilities");
	const char *version = snap_text(s, "proc/version");

	f->xen_dom0 = xen && strstr(xen, "control_d");
	f->hyperv_root = is_hyperv_root(f);
	f->container = first(s, container_clues, ARRAY_LEN(container_clues), containers,
			     ARRAY_LEN(containers));
	if (!f->container && snap_find(s, "proc/vz") && !snap_find(s, "proc/bc"))
		f->container = find(containers, ARRAY_LEN(containers), "openvz");
	f->vm = first(s, vm_clues, ARRAY_LEN(vm_clues), vms, ARRAY_LEN(vms));
	if (f->vm && !strcmp(f->vm->id, "wsl2"))
		f->wsl = f->vm;
	else if (version && strstr(version, "Microsoft"))
		f->wsl = &wsl1;
	if (f->xen_dom0 || f->hyperv_root)
		f->vm = NULL;
	else if (!f->vm && f->hypervisor)
		f->vm = find(vms, ARRAY_LEN(vms), "vm");
	/* SMBIOS alone makes no virtual machine: vendors of clouds have metal, Apple makes computers. */
	if (f->vm && f->x86 && !f->hypervisor && !f->wsl && strcmp(f->vm->id, "xen") &&
	    strcmp(f->vm->id, "bochs") && strcmp(f->vm->id, "qemu"))
		f->vm = NULL;
}

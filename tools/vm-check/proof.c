/* vm-check/proof.c - tries guests on KVM and puts the result among the facts. */
#include <string.h>

#include "kvm/kvm.h"
#include "vm-check.h"

static const char *const verdicts[KVM_N_VERDICTS] = {
	[KVM_WORKS] = "works", [KVM_MISSING] = "missing", [KVM_FORBIDDEN] = "forbidden",
	[KVM_UNFIT] = "unfit", [KVM_BROKEN] = "broken",   [KVM_SLOW] = "slow",
	[KVM_BUSY] = "busy",   [KVM_HANGS] = "hangs",     [KVM_NONSENSE] = "nonsense",
};

static const char *const modes[KVM_N_MODES] = {
	[KVM_REAL] = "real",
	[KVM_PROTECTED] = "protected",
	[KVM_PAE] = "pae",
	[KVM_LONG] = "long",
};

void proof_run(struct snap *s, const char *device)
{
	struct kvm_probe_result r;
	struct err err = {0};
	struct str t = {0};

	kvm_probe(device, &r, &err);
	str_addf(&t, "verdict %s\n", verdicts[r.verdict]);
	if (r.error)
		str_addf(&t, "error %s\n",
			 strerrorname_np(r.error) ? strerrorname_np(r.error) : "?");
	str_addf(&t, "reason %s\n", r.reason);
	if (r.api_version)
		str_addf(&t, "api %d\n", r.api_version);
	for (int m = 0; m < KVM_N_MODES; m++)
		str_addf(&t, "mode %s %s %.0f %u\n", modes[m],
			 r.ok[m] ? "ok" : "failed", r.exit_ns[m], r.exits[m]);
	str_addf(&t, "guest-mips %.2f\nnative-mips %.2f\nseconds %.3f\n", r.guest_mips,
		 r.native_mips, r.seconds);
	for (unsigned i = 0; r.api_version && i < KVM_N_CAPS; i++)
		str_addf(&t, "cap %s %d\n", kvm_cap_id(i), r.caps[i]);
	snap_add(s, "vm-check/proof", t.p, t.len, t.failed ? ENOMEM : 0);
	str_fini(&t);
}

/* tests/progs/kvmprobe.c - prints what kvm_probe() found; status 0 when KVM is worth choosing. */
#include <stdio.h>

#include "kvm/kvm.h"

int main(void)
{
	static const char *const names[] = {"real", "protected", "pae", "long"};
	struct kvm_probe_result r;
	struct err err = {0};
	int rc = kvm_probe(NULL, &r, &err);

	printf("verdict %d: %s\n", (int)r.verdict, r.reason);
	for (int m = 0; m < KVM_N_MODES; m++)
		printf("%s: %s, %.0f ns an exit\n", names[m], r.ok[m] ? "ok" : "failed",
		       r.exit_ns[m]);
	printf("guest %.1f MIPS, native %.1f MIPS\n", r.guest_mips, r.native_mips);
	return rc ? 1 : 0;
}

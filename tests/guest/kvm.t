#!/bin/sh
# kvm.t - the KVM engine in the lab: a real /dev/kvm on an emulated AMD processor. TAP.
. "$(dirname "$0")/../lib.sh"
probe=$O/tests/progs/kvmprobe
t 'the probe passes in the lab' tests/kvm-lab -- "$probe"
if [ -e /dev/kvm ]; then
	# Here it may go either way, but at once and with a reason.
	start=$(date +%s%N)
	"$probe" >"$TMP/probe"
	t 'the probe decides here within two seconds' test $((($(date +%s%N) - start) / 1000000)) -lt 2000
	t 'and says why' grep -q '^verdict [0-9]: .\{20\}' "$TMP/probe"
fi
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
tests/guest/make-initrd "$dir" "$TMP/initrd" || exit 1
tests/kvm-lab --file "$VM_RUN" --file "$kernel" --file "$TMP/initrd" --file "$PWD/tests/guest/in-lab" -- \
	/bin/sh "$PWD/tests/guest/in-lab" "$VM_RUN" "$kernel" "$TMP/initrd" >"$TMP/lab" 2>&1
status=$?
came_to_its_end() { [ $status = 0 ] || { cat "$TMP/lab"; return 1; }; }
t 'the lab came to its end' came_to_its_end
lab() { grep -q "^LAB $1 ok" "$TMP/lab" || { cat "$TMP/lab"; return 1; }; }
for name in one-processor sees-one says-its-engine two-processors sees-two disk dhcp tcp save restore goes-on; do
	t "under KVM: $name" lab $name
done
done_testing

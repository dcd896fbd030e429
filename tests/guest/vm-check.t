#!/bin/sh
# vm-check.t - vm-check in the lab, where KVM is real: full speed, proved; the device or the module taken
# away, told and mended. TAP.
. "$(dirname "$0")/../lib.sh"
script=$PWD/tests/guest/in-lab-check
tests/kvm-lab --file "$O/vm-check" --file "$script" -- /bin/sh "$script" "$O/vm-check" >"$TMP/lab" 2>&1
status=$?
came_to_its_end() { [ $status = 0 ] || { cat "$TMP/lab"; return 1; }; }
t 'the lab came to its end' came_to_its_end
lab() { grep -q "^LAB $1 ok" "$TMP/lab" || { cat "$TMP/lab"; return 1; }; }
for name in full-speed says-so by-what ten-times-the-same required required-and-missing no-device fix-is-printed \
	nothing-without-an-answer nothing-after-no applied-after-yes mended no-module no-nested-paging no-permission; do
	t "vm-check in the lab: $name" lab $name
done
done_testing

#!/bin/sh
# modes-kvm.t - the tests of processor modes under the KVM engine, compared with the interpreter, which
# passes them all (modes.t, long.t). Where KVM runs at full speed: on this computer's processor, every
# test must pass. Else in the lab, whose emulated processor has faults of its own: lab-differences
# lists the tests that fail there, and any other failure is one of ours. TAP.
. "$(dirname "$0")/../lib.sh"
known=tests/guest/lab-differences
modes=$O/tests/guest/modes.elf long=$O/tests/guest/long.elf script=$PWD/tests/guest/in-lab-modes
if "$O/tests/progs/kvmprobe" >/dev/null 2>&1; then
	known=/dev/null
	"$script" "$VM_RUN" "$modes" "$long" >"$TMP/out" 2>&1
else
	tests/kvm-lab --timeout 400 --file "$VM_RUN" --file "$modes" --file "$long" --file "$script" -- \
		/bin/sh "$script" "$VM_RUN" "$modes" "$long" >"$TMP/out" 2>&1
fi
t 'all groups were started' grep -qx END "$TMP/out"
# "guest group: name" of each failed test; "(ends early)" for a group without its plan.
awk '/^GROUP / { if (g && !plan) print g ": (ends early)"; g = $2 " " $3; plan = 0 }
     /^not ok / { sub(/^not ok [0-9]* - /, ""); print g ": " $0 }
     /^ok / { passed++ } /^1\.\./ { plan = 1 }
     END { print passed > "/dev/stderr"; if (!plan) print g ": (ends early)" }' \
	"$TMP/out" 2>"$TMP/passed" | sort -u >"$TMP/failed"
grep -v '^#' "$known" | sort -u >"$TMP/known"
comm -23 "$TMP/failed" "$TMP/known" >"$TMP/new"
new() { cat "$TMP/new"; [ ! -s "$TMP/new" ]; }
t "nothing fails under KVM but what is known of the lab" new
enough() { cat "$TMP/passed"; [ "$(cat "$TMP/passed")" -ge 350 ]; }
t 'at least 350 tests pass under KVM' enough
done_testing

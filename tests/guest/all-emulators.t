#!/bin/sh
# all-emulators.t - every guest of loaders.t and linux.t under the translator and in lockstep. Lockstep takes
# minutes for each guest: only with VM_TEST_LOCKSTEP=1. (lockstep.t has the bounded part.) TAP.
cd "$(dirname "$0")/../.." || exit 1
if [ -z "$VM_TEST_LOCKSTEP" ]; then
	echo "1..0 # SKIP set VM_TEST_LOCKSTEP=1 to run it"
	exit 0
fi
n=0
for emulator in translator lockstep; do
	for test in loaders linux; do
		n=$((n + 1))
		EMULATOR=$emulator LIMIT=${LIMIT:-900} "tests/guest/$test.t" >"${O:-build}/$test-$emulator.tap" 2>&1
		if grep -q '^not ok' "${O:-build}/$test-$emulator.tap" || ! grep -q '^1\.\.' "${O:-build}/$test-$emulator.tap"; then
			echo "not ok $n - $test.t, $emulator"
			grep '^not ok' "${O:-build}/$test-$emulator.tap" | sed 's/^/# /'
		else
			echo "ok $n - $test.t, $emulator"
		fi
	done
done
echo "1..$n"

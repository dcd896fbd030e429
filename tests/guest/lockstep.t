#!/bin/sh
# lockstep.t - the translator does as the interpreter, block by block: in the tests of processor
# modes, and in the boot of Debian's cloud kernel as far as it comes in LOCKSTEP_SECONDS (25; its
# whole boot takes about 100). TAP.
. "$(dirname "$0")/../lib.sh"
run="$VM_RUN --engine emulator --emulator lockstep --stats"

guest() { # guest NAME TESTS: that many tests of its own pass
	$run --timeout 60 "$O/tests/guest/$1.elf" </dev/null >"$TMP/out" 2>&1
	tail -n 40 "$TMP/out"
	[ "$(grep -c '^ok ' "$TMP/out")" -ge "$2" ] && ! grep -q '^not ok\|differ from\|differs' "$TMP/out"
}
t 'real, protected and virtual-8086 mode' guest modes 350
t '64-bit mode' guest long 150

dir=$(tests/fetch-kernel)
tests/guest/make-initrd "$dir" "$TMP/initrd" || exit 1
boot() { # boot OPTIONS...
	$run --timeout "${LOCKSTEP_SECONDS:-25}" "$@" -i "$TMP/initrd" -a 'console=ttyS0 quiet panic=-1' \
		"$(echo "$dir"/boot/vmlinuz-*)" </dev/null >"$TMP/out" 2>&1
	status=$?
	tail -n 60 "$TMP/out"
	[ $status = 0 ] || [ $status = 13 ]
}
compared() { # compared BLOCKS: at least so many
	blocks=$(sed -n 's/^blocks compared in lockstep *\([0-9]*\).*/\1/p' "$TMP/out")
	echo "$blocks blocks compared"
	[ "${blocks:-0}" -ge "$1" ]
}
t 'the cloud kernel boots without a difference' boot
t 'more than a million blocks were compared' compared 1000000
LOCKSTEP_SECONDS=10
t 'two processors' boot -c 2
done_testing

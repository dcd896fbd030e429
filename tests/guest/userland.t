#!/bin/sh
# userland.t - a Debian userland on the emulator ($EMULATOR chooses another than the translator), with two
# processors: zlib compiled by gcc and tested, a program under node, both with the results of the host's
# processor; then stress-ng for USERLAND_STRESS seconds (600). Only with VM_TEST_USERLAND=1: it
# fetches 110 MB of packages and takes a quarter of an hour. TAP.
. "$(dirname "$0")/../lib.sh"
if [ -z "$VM_TEST_USERLAND" ]; then
	echo "1..0 # SKIP set VM_TEST_USERLAND=1 to run it"
	exit 0
fi
seconds=${USERLAND_STRESS:-600}
dir=$O/guests/userland
t 'the disk is made' tests/guest/make-userland "$dir"
kernel=$(echo "$(tests/fetch-kernel)"/boot/vmlinuz-*)

# guest JOB LIMIT: what it says is in $TMP/JOB
guest() {
	"$VM_RUN" --engine emulator ${EMULATOR:+--emulator $EMULATOR} -c 2 -m 1G --timeout "$2" -s -d "$dir/disk.raw,format=raw" \
		-i "$dir/initrd" -a "console=ttyS0 panic=-1 userland=$1 seconds=$seconds" "$kernel" \
		</dev/null >"$TMP/$1.out" 2>&1
	status=$?
	tr -d '\r' <"$TMP/$1.out" >"$TMP/$1"
	grep '^TOOK' "$TMP/$1"
	[ $status = 0 ] && grep -q '^USERLAND done' "$TMP/$1" || { tail -n 15 "$TMP/$1"; return 1; }
}
# host JOB: the same programs on the host's processor
host() {
	cp -r "$dir/root" "$TMP/root" 2>/dev/null
	# shellcheck disable=SC2016
	unshare -rm sh -c 'mount --rbind /dev "$1/dev" && exec env -i "$(command -v chroot)" "$1" /bin/bash /userland-init "$2"' \
		sh "$TMP/root" "$1" >"$TMP/$1.host" 2>&1
	rm -rf "$TMP/root"
	grep -q '^USERLAND done' "$TMP/$1.host" || { tail -n 15 "$TMP/$1.host"; return 1; }
}
# same JOB LINES: as many results at least, and all as on the host
same() {
	grep '^RESULT' "$TMP/$1" >"$TMP/guest.results"
	grep '^RESULT' "$TMP/$1.host" >"$TMP/host.results"
	diff "$TMP/host.results" "$TMP/guest.results" && [ "$(wc -l <"$TMP/guest.results")" -ge "$2" ]
}
for job in zlib node; do
	t "$job in the guest" guest $job 900
	if unshare -rm true 2>/dev/null; then
		t "$job on the host" host $job
		t "$job: the same results" same $job 15
	else
		skip "$job: the same results" 'no user namespaces here'
	fi
done
t "zlib's own test passes" grep -q 'RESULT zlib: .*zlib test OK' "$TMP/zlib"
t "node came to its end" grep -q 'RESULT node: done true' "$TMP/node"
t "stress-ng for $seconds seconds" guest stress $((seconds + 300))
t 'it found nothing wrong' grep -q 'STRESS status 0' "$TMP/stress"
t 'nor does the kernel complain' sh -c "! grep '^COMPLAINT' '$TMP/stress'"
done_testing

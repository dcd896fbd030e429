#!/bin/sh
# linux.t - Debian's cloud kernel on the emulator ($ENGINE chooses another): processors, disk,
# network, every way to stop, saving and restoring. TAP.
. "$(dirname "$0")/../lib.sh"
run="$VM_RUN --engine ${ENGINE:-emulator} ${EMULATOR:+--emulator $EMULATOR} --timeout ${LIMIT:-120}"
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
initrd=$TMP/initrd
tests/guest/make-initrd "$dir" "$initrd" || exit 1
args='console=ttyS0 quiet panic=-1'

# boot NAME 'KERNEL ARGS' OPTIONS...: boots to the end of the report; the output stays in $TMP/NAME.
boot() {
	log=$1 more=$2
	shift 2
	$run "$@" -i "$initrd" -a "$args $more" "$kernel" </dev/null >"$TMP/$log" 2>"$TMP/$log.err"
	status=$?
	tr -d '\r' <"$TMP/$log" >"$TMP/$log.txt"
	tail -n 12 "$TMP/$log.txt" "$TMP/$log.err"
	return $status
}
ends() { # ends STATUS boot-arguments
	want=$1
	shift
	boot "$@"
	[ $? = "$want" ] || { echo "status $status, not $want"; return 1; }
}
saw() { grep -q -- "$2" "$TMP/$1.txt" || { cat "$TMP/$1.txt"; return 1; }; }

t 'one processor: boots and powers off' boot up ''
t 'the report is whole' saw up '^GUEST done'
t 'it sees one processor' saw up '^GUEST cpus 1$'
t 'two processors' boot smp '' -c 2
t 'it sees both' saw smp '^GUEST cpus 2$'

# A disk whose first line the guest reads, in both formats, with and without --snapshot.
{ echo 'a disk of the tests' && head -c 8388588 /dev/zero; } >"$TMP/disk.raw"
cp "$TMP/disk.raw" "$TMP/before.raw"
t 'a raw disk' boot raw 'vm.disk' -d "$TMP/disk.raw"
t 'its content is seen' saw raw 'first: a disk of the tests'
t 'it is written and read back' saw raw 'read back: ok'
t 'the file has what was written' sh -c "dd if='$TMP/disk.raw' bs=64k skip=16 count=16 2>/dev/null | grep -q 'vm-run writes this'"
cp "$TMP/before.raw" "$TMP/disk.raw"
t 'with --snapshot' boot snap 'vm.disk' -s -d "$TMP/disk.raw"
t 'it is written and read back' saw snap 'read back: ok'
t 'the file is unchanged' cmp "$TMP/disk.raw" "$TMP/before.raw"
if command -v qemu-img >/dev/null; then
	qemu-img create -q -f qcow2 -b before.raw -F raw "$TMP/disk.qcow2"
	t 'a qcow2 disk with a backing file' boot qcow2 'vm.disk' -d "$TMP/disk.qcow2"
	t 'its content is seen' saw qcow2 'first: a disk of the tests'
	t 'it is written and read back' saw qcow2 'read back: ok'
	t 'qemu-img finds nothing wrong with it' qemu-img check -q "$TMP/disk.qcow2"
	t 'qemu-img reads what was written' sh -c "qemu-img convert -O raw '$TMP/disk.qcow2' '$TMP/c.raw' && dd if='$TMP/c.raw' bs=64k skip=16 count=16 2>/dev/null | grep -q 'vm-run writes this'"
fi

# The network: a server here that the guest talks to.
python3 - "$TMP/port" <<'P' &
import os, socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(1)
open(sys.argv[1] + ".new", "w").write(str(s.getsockname()[1])); os.rename(sys.argv[1] + ".new", sys.argv[1])
s.settimeout(200)
c, _ = s.accept(); c.settimeout(10); said = c.recv(100).decode().strip(); c.sendall(("heard %s\n" % said).encode()); c.close()
P
server=$!
while [ ! -s "$TMP/port" ] && kill -0 $server; do sleep 0.05; done
t 'the user network' boot net "vm.net=$(cat "$TMP/port")" -n user
t 'an address by DHCP' saw net '^GUEST address 10.0.2.15'
t 'a TCP connection to the host' saw net '^GUEST tcp heard hello from the guest'
kill $server 2>/dev/null

t '--no-reboot: status 10' ends 10 reset 'vm.end=reboot' --no-reboot
t 'a panic: status 11' ends 11 panic 'vm.end=panic panic=0'
t 'the time is over: status 13' ends 13 hang 'vm.end=hang' -t 12

# One SIGTERM presses the power button.
"$VM_RUN" --engine "${ENGINE:-emulator}" ${EMULATOR:+--emulator $EMULATOR} --timeout 100 -i "$initrd" -a 'console=ttyS0 quiet vm.end=button' "$kernel" \
	</dev/null >"$TMP/button.txt" 2>&1 &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q 'waits for the button' "$TMP/button.txt"; do sleep 0.1; done
kill -TERM $pid
wait $pid
t 'one SIGTERM is the power button: status 0' test $? = 0
t 'the guest saw it' saw button '^GUEST button pressed'

# Signals, once the guest is up: SIGTERM twice quits.
up() { # up NAME: waits until the guest's report is out
	i=0
	while ! grep -q 'GUEST done' "$TMP/$1" 2>/dev/null; do
		i=$((i + 1))
		[ $i -lt 1200 ] || return 1
		sleep 0.05
	done
}
$run -i "$initrd" -a "$args vm.end=hang" "$kernel" </dev/null >"$TMP/term" 2>"$TMP/term.err" &
pid=$!
up term
kill -TERM $pid
sleep 0.3
kill -TERM $pid
wait $pid
t 'two SIGTERMs: status 14' test $? = 14

# A running machine goes into a file, and on from there.
$run --save "$TMP/saved" -c 2 -i "$initrd" -a "$args vm.count" "$kernel" </dev/null >"$TMP/count" 2>"$TMP/count.err" &
pid=$!
i=0
while ! grep -q 'GUEST count 3' "$TMP/count" && [ $i -lt 1200 ]; do sleep 0.05; i=$((i + 1)); done
kill -USR1 $pid
wait $pid
t 'SIGUSR1 saves: status 0' test $? = 0
t 'the file is there, and no other' sh -c "[ -s '$TMP/saved' ] && [ \$(ls '$TMP' | grep -c '^saved') = 1 ]"
restore() {
	$run --restore "$TMP/saved" </dev/null >"$TMP/restored" 2>&1
	status=$?
	tr -d '\r' <"$TMP/restored" >"$TMP/restored.txt"
	tail -n 20 "$TMP/restored.txt"
	return $status
}
t 'it goes on and powers off' restore
t 'where it was' sh -c "! grep -q 'GUEST count 1\$' '$TMP/restored.txt' && grep -q 'GUEST count 12\$' '$TMP/restored.txt'"
done_testing

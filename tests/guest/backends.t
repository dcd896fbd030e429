#!/bin/sh
# backends.t - where serial lines, consoles and networks of a guest can go: files, sockets, terminals,
# forwarded ports, a tap interface. On the emulator ($ENGINE chooses another). TAP.
. "$(dirname "$0")/../lib.sh"
run="$VM_RUN --engine ${ENGINE:-emulator} --timeout 100"
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
initrd=$TMP/initrd
tests/guest/make-initrd "$dir" "$initrd" || exit 1
args='console=ttyS0 quiet panic=-1'
start() { $run -i "$initrd" "$@" "$kernel" </dev/null >"$TMP/out" 2>"$TMP/err" & pid=$!; }
ended() { wait $pid; status=$?; cat "$TMP/err"; return $status; }
holds() { tr -d '\r' <"$1" | grep -q -- "$2" || { tail -n 12 "$1" "$TMP/err"; return 1; }; }
# wait_for FILE TEXT: while the guest runs
wait_for() { while kill -0 $pid 2>/dev/null && ! grep -q -- "$2" "$1" 2>/dev/null; do sleep 0.05; done; }

start -a "$args vm.hvc" --serial "file:$TMP/serial" --console "file:$TMP/hvc"
t '--serial file: the guest ends' ended
t 'its output is in the file' holds "$TMP/serial" '^GUEST done'
t 'nothing is on standard output' test ! -s "$TMP/out"
t '--console: the line written to hvc0' holds "$TMP/hvc" '^GUEST on the virtio console'

start -a "$args earlyprintk=ttyS0" --serial "socket:$TMP/sock"
python3 - "$TMP/sock" >"$TMP/heard" <<'P'
import socket, sys, time
for _ in range(200):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        break
    except OSError:
        time.sleep(0.02)
s.settimeout(90)
while True:
    d = s.recv(4096)
    if not d:
        break
    sys.stdout.buffer.write(d)
P
t '--serial socket: the guest ends' ended
t 'who connects reads its output' holds "$TMP/heard" '^GUEST done'
t 'the socket is gone' test ! -e "$TMP/sock"

start -a "$args vm.end=hang" --serial "socket:$TMP/sock" --save "$TMP/saved"
while kill -0 $pid 2>/dev/null && [ ! -S "$TMP/sock" ]; do sleep 0.05; done
sleep 1
kill -KILL $pid
wait $pid 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$TMP/sock" ] && sleep 0.1; done
t 'killed, it leaves no socket' test ! -e "$TMP/sock"
t 'and no half of a saved machine' sh -c '! ls "$1"/saved*' sh "$TMP"

start -a "$args vm.shell" --serial pty
wait_for "$TMP/err" /dev/pts
pty=$(sed -n 's|.*\(/dev/pts/[0-9]*\).*|\1|p' "$TMP/err")
python3 - "$pty" >"$TMP/heard" <<'P'
import os, sys, time, select
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
seen, sent, end = b"", False, time.time() + 90
while time.time() < end:
    if not select.select([fd], [], [], 1)[0]:
        continue
    try:
        d = os.read(fd, 4096)
    except OSError:
        break
    if not d:
        break
    seen += d
    if not sent and b"/ #" in seen:
        os.write(fd, b"echo sum $((40 + 2)); poweroff -f\n")
        sent = True
sys.stdout.buffer.write(seen)
P
t '--serial pty: the guest ends' ended
t 'what was typed there was done' holds "$TMP/heard" '^sum 42'

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start -a "$args vm.listen" --forward "tcp:$port:2222"
wait_for "$TMP/out" 'GUEST listens'
python3 - "$port" >"$TMP/heard" <<'P'
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30)
s.sendall(b"hello, guest\n")
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode())
P
t '--forward: the guest ends' ended
t 'the host heard the guest' holds "$TMP/heard" '^hello, host'
t 'the guest heard the host' holds "$TMP/out" '^GUEST heard hello, guest'

# A network namespace of the test's own.
if [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] && unshare -n true 2>/dev/null; then
	tap() {
		unshare -n sh -c "ip tuntap add tap0 mode tap && ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up &&
			$run -n tap=tap0 -i $initrd -a '$args vm.ip=192.0.2.2' $kernel" </dev/null >"$TMP/out" 2>"$TMP/err" ||
			{ cat "$TMP/err"; return 1; }
	}
	t '--net tap: the guest ends' tap
	t 'it reached the host' holds "$TMP/out" '^GUEST ping 3 packets transmitted, 3 packets received'
else
	skip '--net tap' 'needs root, /dev/net/tun and network namespaces'
fi
t '--net tap: a name that is no interface' says "cannot" $run -n tap=lo -i "$initrd" "$kernel"

mkdir "$TMP/acpi"
t '--dump-acpi' $run --dump-acpi "$TMP/acpi" "$kernel"
t 'the tables are there' sh -c 'for n in APIC FACP DSDT HPET MCFG; do ls "$1" | grep -q "^$n" || exit 1; done' sh "$TMP/acpi"
if command -v iasl >/dev/null; then
	t 'iasl takes the DSDT apart' sh -c 'cd "$1" && iasl -d DSDT* && grep -q _S5 DSDT.dsl' sh "$TMP/acpi"
fi
done_testing

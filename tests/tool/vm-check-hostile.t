#!/bin/sh
# vm-check-hostile.t - what stands at /dev/kvm is no KVM, hangs or lies; /proc and /sys hold rubbish: no crash, no
# hang beyond 2 s, status 1 with the reason. TAP.
. "$(dirname "$0")/../lib.sh"
check=$O/vm-check

# cannot_tell TEXT COMMAND...: status 1 within 2 s, and TEXT on standard error.
cannot_tell() {
	text=$1
	shift
	start=$(date +%s%N)
	"$@" </dev/null >/dev/null 2>"$TMP/.err"
	got=$?
	took=$((($(date +%s%N) - start) / 1000000))
	cat "$TMP/.err"
	echo "status $got, $took ms"
	[ $got = 1 ] && [ $took -lt 2000 ] && grep -qF -- "$text" "$TMP/.err"
}
# lives COMMAND...: ends by itself with a status of its own within 2 s.
lives() {
	timeout -s KILL 2 "$@" </dev/null >"$TMP/.out" 2>&1
	got=$?
	echo "status $got"
	[ $got -le 4 ] && [ $got != 2 ] || { cat "$TMP/.out"; return 1; }
}

python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$TMP/socket"
mkfifo "$TMP/fifo"
: >"$TMP/file"
t 'a socket at /dev/kvm' cannot_tell 'no device but a socket' "$check" --device "$TMP/socket"
t 'a FIFO' cannot_tell 'no device but a pipe' "$check" --device "$TMP/fifo"
t 'a file' cannot_tell 'no device but a file' "$check" --device "$TMP/file"
t 'a folder' cannot_tell 'no device but a folder' "$check" --device "$TMP"
t 'another device' cannot_tell 'this is not KVM' "$check" --device /dev/null
t 'a terminal' cannot_tell 'this is not KVM' "$check" --device /dev/ptmx
t '--json of it is JSON' sh -c "$check --json --device /dev/null 2>/dev/null | python3 -m json.tool"
t 'the device is no reason to end --json with another status' exits 1 "$check" --json --device /dev/null

# A file system that never answers: reads that wait for FUSE run no signal handler, only SIGKILL ends them.
mkdir "$TMP/hang"
: >"$TMP/hang-log"
python3 tests/tool/hangfs.py "$TMP/hang" </dev/null >"$TMP/hang-log" 2>&1 &
hangfs=$!
for i in 1 2 3 4 5 6 7 8 9 10; do grep -q . "$TMP/hang-log" && break || sleep 0.1; done
if grep -q ready "$TMP/hang-log"; then
	t 'a file that does not answer' cannot_tell "reading '$TMP/hang/proc/cpuinfo' takes more than" "$check" --root "$TMP/hang"
	t 'a file of FUSE at /dev/kvm' cannot_tell 'no device but a file' "$check" --device "$TMP/hang/dev/kvm"
	t 'a name at /dev/kvm that does not answer' cannot_tell 'opening it does not end' "$check" --device "$TMP/hang/never"
else
	skip 'a file system that never answers' "$(head -n 1 "$TMP/hang-log")"
fi
kill $hangfs 2>/dev/null
wait $hangfs 2>/dev/null
umount -l "$TMP/hang" 2>/dev/null

# A driver that hangs or lies: its ioctls are answered by another process.
standin=$O/tests/progs/kvmstandin
"$standin" 1 /bin/true
if [ $? = 77 ]; then
	skip 'drivers that hang or lie' 'no seccomp listeners here'
else
	t 'it does not answer' cannot_tell 'it opens, but does not answer' "$standin" ask "$check" --device /dev/null
	t 'making a machine hangs' cannot_tell 'making a machine does not end' "$standin" make "$check" --device /dev/null
	for lie in 1 2 5 4096 2147483647; do
		t "it answers $lie to all" cannot_tell 'answers nonsense: the machine it made is none' \
			"$standin" $lie "$check" --device /dev/null
	done
	t 'it answers numbers below 0' cannot_tell 'answers nonsense: no number for user memory' \
		"$standin" -7 "$check" --device /dev/null
	t 'it answers 0' lives "$standin" 0 "$check" --device /dev/null
	t 'the emulator is recommended then' says 'vm-run takes its built-in emulator' \
		"$standin" 0 "$check" --device /dev/null
fi

# An open() that hangs, by a function of our own before that of the C library.
case $O in
*san*) skip 'an open that hangs' 'sanitizer build' ;;
*)
	cat >"$TMP/shim.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int open64(const char *path, int flags, ...)
{
	while (!strcmp(path, "/dev/null") && (flags & O_RDWR))
		pause();
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
}
C
	${CC:-gcc} -shared -fPIC -o "$TMP/open.so" "$TMP/shim.c"
	t 'opening it hangs' cannot_tell 'opening it does not end' env LD_PRELOAD="$TMP/open.so" "$check" --device /dev/null
	;;
esac

t 'a tree that is not there' fails "cannot open '$TMP/nowhere'" "$check" --root "$TMP/nowhere"
t 'an empty file as tree' fails "there is no '=== NAME' line" "$check" --root "$TMP/file"
mkdir "$TMP/empty"
t 'an empty folder as tree' fails 'holds nothing' "$check" --root "$TMP/empty"
mkdir -p "$TMP/fifos/proc" "$TMP/fifos/dev" "$TMP/fifos/vm-check"
for f in proc/cpuinfo proc/meminfo dev/kvm vm-check/proof vm-check/cpuid; do mkfifo "$TMP/fifos/$f"; done
t 'FIFOs in place of files' cannot_tell 'cannot be read' "$check" --root "$TMP/fifos"
mkdir -p "$TMP/dirs/proc/cpuinfo" "$TMP/dirs/dev/kvm" "$TMP/dirs/vm-check/proof"
t 'folders in place of files' lives "$check" --root "$TMP/dirs"
mkdir -p "$TMP/up/proc"
printf '=== ../../etc/passwd\nx\n' >"$TMP/up.txt"
t 'names that lead out of the tree are refused' fails 'is no name' "$check" --root "$TMP/up.txt" --capture "$TMP/up2"
ln -s /dev/zero "$TMP/up/proc/cpuinfo"
t 'an endless device in place of a file' lives "$check" --root "$TMP/up"
mkdir -p "$TMP/sparse/proc"
truncate -s 100G "$TMP/sparse/proc/cpuinfo"
t 'a file of 100 GiB' lives "$check" --root "$TMP/sparse"
cp -r "$TMP/sparse" "$TMP/many" 2>/dev/null || mkdir -p "$TMP/many/proc"
rm -f "$TMP/many/proc/cpuinfo"
mkdir -p "$TMP/many/sys/module"
(cd "$TMP/many/sys/module" && seq 6000 | xargs mkdir)
t 'thousands of names' lives "$check" --root "$TMP/many"
for seed in 1 2 3 4 5 6 7 8; do
	python3 - "$seed" "$TMP/noise$seed" <<'P'
import os, random, sys
r = random.Random(int(sys.argv[1]))
top = sys.argv[2]
names = """proc/cpuinfo proc/meminfo proc/misc proc/cmdline proc/version proc/1/cgroup etc/os-release etc/group
sys/kernel/security/lockdown sys/devices/system/cpu/online sys/devices/system/cpu/vulnerabilities/mds dev/kvm
vm-check/proof vm-check/cpuid vm-check/msr vm-check/user vm-check/processes vm-check/kernel-log
sys/module/kvm_intel/parameters/nested sys/class/dmi/id/board_vendor sys/kernel/mm/transparent_hugepage/enabled
proc/sys/vm/overcommit_memory proc/sys/kernel/osrelease etc/modprobe.d/x.conf""".split()
words = [b"flags\t: vmx lm", b"processor\t: 0\n", b"verdict works\n", b"mode real ok 1e999 99999999999\n", b"[", b"]", b"\n",
         b"\0", b"\x1b[2J", b"%s%n", b"0-4294967295", b"-1", b"999999999999999999999999", b":", b" ", b"\xff\xfe", b"c 0660",
         b"MemTotal: 99999999999999999999 kB\n", b"A" * 5000]
for n in names:
    os.makedirs(os.path.dirname(os.path.join(top, n)), exist_ok=True)
    with open(os.path.join(top, n), "wb") as f:
        f.write(b"".join(r.choice(words) for _ in range(r.randrange(40))))
P
	t "noise $seed" lives "$check" --root "$TMP/noise$seed"
	t "noise $seed: nothing for the terminal in the output" sh -c "! LC_ALL=C grep -q '[[:cntrl:]]' '$TMP/.out'"
	t "noise $seed: JSON is JSON" sh -c "$check --json --root '$TMP/noise$seed' 2>/dev/null | python3 -m json.tool"
done
done_testing

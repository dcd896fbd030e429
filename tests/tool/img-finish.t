#!/bin/sh
# img-finish.t - what is made is whole: data and folder are on the disk before a conversion says so, and what is written in
# place (devices, -n) says of itself that it is unfinished until it is whole. TAP.
. "$(dirname "$0")/../lib.sh"
command -v qemu-img >/dev/null || { echo "1..0 # SKIP no qemu-img"; exit 0; }
cd "$TMP" || exit 1
trap '[ -z "$loop" ] || losetup -d $loop; rm -rf "$TMP"' EXIT
seq 1 400000 | dd of=a.raw bs=64k seek=3 conv=notrunc status=none
truncate -s 8388608 a.raw

# ---- the disk has it ----
# synced TRACE FOLDER: in the trace, every write to the image is followed by a sync of that descriptor before the image gets
# its name, and a sync of the folder comes after that.
cat >synced.py <<'E2'
import re, sys
dirty, named, folder, folder_fd, wrote = set(), False, False, None, 0
for line in open(sys.argv[1], errors="replace"):
    m = re.search(r"(\w+)\((.*)\)\s+= (-?\d+)", line)
    if not m or m[3].startswith("-"):
        continue
    call, args, ret = m[1], m[2], int(m[3])
    fd = int(re.match(r"(\d+)", args)[1]) if re.match(r"\d", args) else None
    if call in ("pwritev", "pwrite64", "write", "fallocate", "ftruncate", "copy_file_range") and fd != 1 and fd != 2:
        assert not named, "written after it got its name: " + line
        dirty.add(fd); wrote += 1
    elif call in ("fdatasync", "fsync"):
        dirty.discard(fd)
        folder |= named and fd == folder_fd
    elif call in ("linkat", "renameat2", "rename", "renameat"):
        assert not dirty, "gets its name before it is on the disk: %s %s" % (dirty, line)
        named = True
    elif call == "openat" and "O_DIRECTORY" in args:
        folder_fd = ret
assert wrote, "nothing was written"
assert named or sys.argv[2] == "device", "it got no name"
assert not dirty, "not on the disk: %s" % dirty
assert folder or sys.argv[2] == "device", "the folder is not on the disk"
E2
# traced KIND COMMAND...
traced() {
	kind=$1
	shift
	# Leaks are not looked for: that, too, is ptrace's work.
	ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o trace -e trace=pwritev,pwrite64,write,fallocate,ftruncate,copy_file_range,fdatasync,fsync,linkat,rename,renameat,renameat2,openat \
		"$@" || return 1
	sed 's/^[0-9]* *//; s/<unfinished.*//' trace >trace.1
	python3 synced.py trace.1 "$kind" 2>&1 || { grep -v openat trace.1 | tail -30; return 1; }
}
if strace -o /dev/null true 2>/dev/null; then
	for f in raw qcow2 vdi vhdx vpc vmdk parallels; do
		t "$f: on the disk before it has its name, and the folder after it" traced file "$VM_IMG" convert -m 1 -O $f a.raw new.$f
	done
	t 'compressed' traced file "$VM_IMG" convert -m 1 -c -O qcow2 a.raw new.c
	t 'stream' traced file "$VM_IMG" convert -m 1 -O vmdk -o subformat=streamOptimized a.raw new.s
	t 'in the place of another' traced file "$VM_IMG" convert -m 1 -O qcow2 a.raw new.c
	t 'create' traced file "$VM_IMG" create -f qcow2 made.qcow2 1G
	qemu-img create -q -f qcow2 there.qcow2 8M
	t '-n' traced device "$VM_IMG" convert -m 1 -n -O qcow2 a.raw there.qcow2
	t 'a check that can fail' sh -c '! python3 synced.py /dev/null file 2>/dev/null'
else
	skip 'on the disk before it has its name' 'processes cannot be traced here'
fi

# ---- the unfinished mark ----
killed() { # killed COMMAND...: is killed on its way
	timeout -s KILL 1 "$@"
	[ $? = 137 ]
}
made() { "$VM_IMG" compare -F raw "$1" a.raw; }
qemu-img create -q -f qcow2 q.img 8M
qemu-io -c 'write -P 3 0 8M' q.img >/dev/null
t 'qcow2, -n, killed' killed "$VM_IMG" convert -r 200k -n -O qcow2 a.raw q.img
t 'info says so' fails 'is unfinished' "$VM_IMG" info q.img
t 'also when it is told the format' fails 'is unfinished' "$VM_IMG" info -f qcow2 q.img
t 'check says so' exits 3 "$VM_IMG" check q.img
t 'in JSON' says '"unfinished": true' "$VM_IMG" check --json q.img
t 'nothing is read from it' fails 'is unfinished' "$VM_IMG" convert q.img x.raw
t 'nor with it behind another' sh -c 'qemu-img create -q -u -f qcow2 -b q.img -F qcow2 top.img 8M && ! "$1" convert top.img x.raw 2>e
	grep "is unfinished" e' - "$VM_IMG"
t 'nor written in place' fails 'is unfinished' "$VM_IMG" resize q.img 16M
t 'a second try finds its old head again' sh -c '"$1" convert -n -O qcow2 a.raw q.img && qemu-img check q.img' - "$VM_IMG"
t 'and is whole' made q.img
t 'a failed copy leaves the mark' sh -c 'head -c 8388608 /dev/urandom >big.raw && qemu-img create -q -f qcow2 small.img 8M &&
	(ulimit -f 4096; trap "" XFSZ; ! "$1" convert -n -O qcow2 big.raw small.img) && "$1" check small.img; [ $? = 3 ]' - "$VM_IMG"
head -c 8388608 /dev/urandom >r.img
t 'raw, -n, killed' killed "$VM_IMG" convert -r 200k -n -O raw a.raw r.img
t 'raw: info says so' fails 'is unfinished' "$VM_IMG" info r.img
t 'raw: a second try' sh -c '"$1" convert -n -O raw a.raw r.img && cmp r.img a.raw' - "$VM_IMG"
t 'a target that is too small is left as it was' sh -c 'head -c 1M /dev/urandom >s.img && cp s.img s.0 && ! "$1" convert -n -O raw a.raw s.img &&
	cmp s.img s.0' - "$VM_IMG"

truncate -s 64M disk
head -c 4000000 /dev/urandom | dd of=disk conv=notrunc status=none
loop=$(losetup --show -f "$PWD/disk" 2>/dev/null)
if [ -n "$loop" ]; then
	t 'device: killed' killed "$VM_IMG" convert -r 200k -O raw a.raw "$loop"
	t 'device: info says so' fails 'is unfinished' "$VM_IMG" info "$loop"
	t 'device: check says so' exits 3 "$VM_IMG" check "$loop"
	for f in raw qcow2 vdi; do
		t "device: $f" sh -c '"$1" convert -O $3 a.raw "$2" && "$1" compare -f $3 -F raw "$2" a.raw' - "$VM_IMG" "$loop" $f
		[ $f = raw ] || t "device: $f as qemu-img sees it" qemu-img compare -f $f -F raw "$loop" a.raw
	done
else
	skip 'device' 'no loop devices here'
fi
done_testing

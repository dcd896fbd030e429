#!/bin/sh
# img-clone.t - conversions on a file system that shares blocks (XFS in a file) take no space; -C lets the host copy. TAP.
. "$(dirname "$0")/../lib.sh"
cd "$TMP" || exit 1
trap 'umount mnt 2>/dev/null; rm -rf "$TMP"' EXIT
head -c 30000000 /dev/urandom >a.raw
truncate -s 40M a.raw
strace -o /dev/null true 2>/dev/null && traced=1
if [ -n "$traced" ]; then
	t '-C: the host copies' sh -c 'ASAN_OPTIONS=detect_leaks=0 strace -f -o trace -e trace=copy_file_range,ioctl "$1" convert -C a.raw b.raw &&
		cmp a.raw b.raw && ! grep -q "copy_file_range.*= -1" trace && grep -Eq "copy_file_range|FICLONERANGE.*= 0" trace' - "$VM_IMG"
else
	skip '-C: the host copies' 'processes cannot be traced here'
fi
mkdir mnt
truncate -s 400M fs
if ! mkfs.xfs -q fs 2>/dev/null || ! mount -o loop fs mnt 2>/dev/null; then
	skip 'blocks are shared' 'XFS cannot be mounted here'
	done_testing
fi
cp a.raw mnt
used() { sync -f mnt && df --output=used -k mnt | tail -1; }
cheap() { # cheap COMMAND...: takes less than 4 MiB
	before=$(used)
	"$@" || return 1
	[ $(($(used) - before)) -lt 4096 ] || { echo "took $(($(used) - before)) KiB"; return 1; }
}
for f in raw qcow2 vmdk; do
	t "raw to $f shares its blocks" cheap "$VM_IMG" convert -O $f mnt/a.raw mnt/b.$f
	t "$f: the content" "$VM_IMG" compare mnt/a.raw mnt/b.$f
	t "$f to raw shares its blocks" cheap "$VM_IMG" convert -O raw mnt/b.$f mnt/c.$f
	t "$f to raw: the content" cmp mnt/a.raw mnt/c.$f
done
t '-S 0 writes all of it' sh -c '"$1" convert -S 0 -O raw mnt/a.raw mnt/d.raw && [ $(stat -c %b mnt/d.raw) -ge 81920 ] && cmp mnt/a.raw mnt/d.raw' - "$VM_IMG"
t 'so does preallocation' sh -c '! "$1" convert -o preallocation=full -O raw mnt/a.raw mnt/e.raw ||
	[ $(stat -c %b mnt/e.raw) -ge 81920 ]' - "$VM_IMG"
t 'what shares blocks is not changed with the other' sh -c '"$1" convert mnt/a.raw mnt/f.raw && dd if=/dev/urandom of=mnt/f.raw bs=1M count=1 conv=notrunc status=none &&
	cmp a.raw mnt/a.raw' - "$VM_IMG"
done_testing

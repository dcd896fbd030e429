#!/bin/sh
# img-parallels.t - Parallels images: those of qemu-img read and changed here, those made here read by qemu-img; version 1
# and damaged ones come from old-images.py. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/old-images.py parallels"
cd "$TMP" || exit 1
SEED=${SEED:-1}
truncate -s 12000768 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none

same() { timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"; }
sound() { "$img" check -q "$1" && qemu-img check -q -f parallels "$1" && qemu-img compare -q -f parallels -F raw "$1" "$2"; }
random() {
	timeout 100 "$imgio" -n "$1" random "$SEED" 200 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 300 4 4096 "$2"
}
by_qemu() {
	cp disk.raw model.raw
	qemu-img convert -O parallels ${1:+-o "$1"} disk.raw x.hds && same x.hds disk.raw && random x.hds model.raw &&
		sound x.hds model.raw && same x.hds model.raw
}
ours() {
	rm -f x.hds
	cp disk.raw model.raw
	"$img" convert -q -O parallels ${1:+-o "$1"} disk.raw x.hds && sound x.hds disk.raw && random x.hds model.raw && sound x.hds model.raw
}
t 'of qemu-img' by_qemu
t 'of qemu-img, blocks of 64 KiB' by_qemu cluster_size=64k
t 'made here' ours
t 'made here, blocks of 4 KiB' ours cluster_size=4k
t 'is recognized' says 'format parallels' "$imgio" -r x.hds info
turns() {
	for i in 1 2 3; do
		qemu-io -f parallels -c "write -P $i ${i}M 700k" x.hds >/dev/null && qemu-io -f raw -c "write -P $i ${i}M 700k" model.raw >/dev/null &&
			"$imgio" -n x.hds random $i 40 2 65536 model.raw && sound x.hds model.raw || return 1
	done
}
t 'written here and by qemu by turns' turns
v1() {
	cp disk.raw model.raw
	$make v1.hds disk.raw magic=1 && same v1.hds disk.raw && random v1.hds model.raw && sound v1.hds model.raw
}
t 'version 1' v1
t 'blocks of 63 sectors are read' sh -c "$make odd.hds disk.raw magic=1 block=63 && $imgio -r odd.hds cat | cmp - disk.raw"
t 'not written' fails 'no power of two' "$imgio" odd.hds write 0 512 1
bad() { m=$1; shift; $make bad.hds disk.raw "$@" && fails "$m" timeout 10 sh -c "$imgio ${FLAGS--r} bad.hds cat >cat.raw"; }
t 'blocks of 0 sectors' bad 'blocks of 0 bytes' rawblock=0
t 'blocks of 2^31 sectors' bad 'blocks of 1099511627776 bytes' rawblock=2147483648
t 'a table of 2^32 - 1 blocks' bad 'is damaged' n=4294967295
t 'a table behind the end' bad 'a table of 60000000 blocks' n=60000000
t 'a disk larger than its blocks' bad 'is damaged' sectors=99999999
t 'a block behind the end' bad 'Input/output error' bat0=5000
FLAGS=
t 'is not written' bad 'repair it first' bat0=5000
t 'two blocks at one place are not written' bad 'repair it first' bat0=2
repaired() {
	$make bad.hds disk.raw "$@" && exits 3 "$img" check -q bad.hds && "$img" repair bad.hds && "$img" check -q bad.hds &&
		qemu-img check -q -f parallels bad.hds && "$imgio" bad.hds write 5M 2M 7 && qemu-img check -q -f parallels bad.hds
}
t 'a block behind the end is let go' repaired bat0=5000
t 'two blocks at one place are parted' repaired bat3=2
t 'an image that was not closed' repaired inuse=0x746f6e59
t 'space at the end is given back' repaired tail=3000000
t 'all at once' repaired bat0=5000 bat1=3 inuse=0x746f6e59 tail=3000000
$make a.hds disk.raw inuse=0x746f6e59
t 'an image that is marked as in use is read' same a.hds disk.raw
t 'it is not written over' fails 'marked as in use' "$imgio" a.hds write 0 512 1
t 'but repaired, and then written' sh -c "$img repair a.hds && $imgio a.hds write 0 512 1 && qemu-img check -q -f parallels a.hds"
$make a.hds disk.raw ext=1
t 'an image with an extension is read' same a.hds disk.raw
t 'it is not written: the extension would be wrong' fails 'has an extension' "$imgio" a.hds write 0 512 1
odd() {
	rm -f x.hds model.raw && truncate -s 5000192 model.raw && "$img" create -q -f parallels x.hds 5000192 && random x.hds model.raw && sound x.hds model.raw
}
t 'a size that is no whole number of blocks' odd
holes() {
	qemu-img convert -O parallels disk.raw x.hds && before=$(stat -c %b x.hds) && "$imgio" x.hds discard 0 12000768 && after=$(stat -c %b x.hds) &&
		[ $((before - after)) -gt 2000 ] && qemu-img check -q -f parallels x.hds
}
t 'discarding gives space back' holes
mark() { # a program that dies
	rm -f m.hds model.raw && truncate -s 5M model.raw && "$img" create -q -f parallels m.hds 5M && { "$imgio" m.hds random 1 60 2 65536 model.raw crash || true; } &&
		[ "$(dd if=m.hds bs=1 skip=44 count=4 status=none)" = Ynot ] && fails 'marked as in use' "$imgio" m.hds write 0 512 1 &&
		"$img" repair m.hds && "$img" check -q m.hds && qemu-img check -q -f parallels m.hds && "$imgio" m.hds write 0 512 1 &&
		[ "$(dd if=m.hds bs=1 skip=44 count=4 status=none | tr -d '\0')" = '' ]
}
t 'a program that dies leaves its mark, which is repaired' mark
t 'blocks that overlap are parted' repaired magic=1 bat3=4100
overlaid() { $make bad.hds disk.raw bat3=2 && "$imgio" -r bad.hds cat >want.raw && "$img" repair bad.hds && same bad.hds want.raw; }
t 'repairing keeps the data' overlaid
closed() { # another mark of a closed image is kept
	$make v.hds disk.raw inuse=0x312e3276 && "$imgio" v.hds write 0 512 1 && [ "$(dd if=v.hds bs=1 skip=44 count=4 status=none)" = v2.1 ]
}
t 'the mark of ploop version 2.1 is kept' closed
device() { # new blocks go behind the last one, not behind the device's end
	cp disk.raw model.raw && qemu-img convert -O parallels disk.raw d.hds && head -c 20000000 /dev/urandom >>d.hds && truncate -s 40M d.hds &&
		dev=$(losetup -f --show d.hds) && "$imgio" -f parallels -n "$dev" random 5 100 2 65536 model.raw &&
		timeout 60 "$imgio" -f parallels -r "$dev" cat >got.raw && cmp got.raw model.raw
	rc=$?
	[ -z "$dev" ] || losetup -d "$dev"
	return $rc
}
if losetup -f >/dev/null 2>&1 && [ -w "$(losetup -f)" ]; then
	t 'on a block device' device
else
	skip 'on a block device' 'there is no loop device'
fi
done_testing

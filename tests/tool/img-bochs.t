#!/bin/sh
# img-bochs.t - growing disks of Bochs: those of bximage read, changed and given back; those made here read by bximage and
# qemu-img. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/old-images.py bochs"
cd "$TMP" || exit 1
SEED=${SEED:-1}
# A whole number of Bochs' cylinders: 16 heads of 63 sectors.
truncate -s $((25 * 16 * 63 * 512)) disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
head -c 1000 /dev/urandom | dd of=disk.raw bs=1 seek=$((25 * 16 * 63 * 512 - 1000)) conv=notrunc status=none

same() { timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"; }
random() {
	timeout 100 "$imgio" -n "$1" random "$SEED" 200 1 300000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 300 4 4096 "$2"
}
peer() { qemu-img compare -q -f bochs -F raw "$1" "$2"; }
bx() { bximage -q "$@" >bx.log 2>&1 || { cat bx.log; return 1; }; }
by_bximage() {
	rm -f x.bochs y.raw && bx -func=convert -imgmode=growing disk.raw x.bochs && cp disk.raw model.raw && same x.bochs disk.raw &&
		random x.bochs model.raw && same x.bochs model.raw && peer x.bochs model.raw
}
back() { bx -func=convert -imgmode=flat "$1" y.raw && cmp y.raw "$2"; }
ours() {
	rm -f x.bochs y.raw && cp disk.raw model.raw && "$img" convert -q -f raw -O bochs disk.raw x.bochs && peer x.bochs disk.raw &&
		random x.bochs model.raw && peer x.bochs model.raw && same x.bochs model.raw
}
large() {
	rm -f l.bochs && "$img" create -q -f bochs l.bochs "$1" && "$imgio" -n l.bochs write "$2" 70001 7 &&
		qemu-io -r -f bochs -c "read -P 7 $2 70001" -c "read -P 0 1M 70001" l.bochs >io && ! grep -v -e ^read -e ops io
}
if command -v bximage >/dev/null; then
	t 'of bximage' by_bximage
	t 'changed here, read by bximage' back x.bochs model.raw
	t 'made here' ours
	t 'made here, read by bximage' back x.bochs model.raw
	rm -f e.bochs
	t 'the same geometry as bximage for 512 MiB' sh -c "bximage -q -func=create -hd=512M -imgmode=growing e.bochs >/dev/null &&
		$img create -q -f bochs f.bochs \$($img info --json e.bochs | sed -n 's/.*\"virtual-size\": *\\([0-9]*\\).*/\\1/p') &&
		cmp -n 76 e.bochs f.bochs && cmp -i 80 e.bochs f.bochs"
else
	skip 'bximage' 'bximage is not installed'
	t 'made here' ours
fi
t 'recognized' says 'format bochs' "$imgio" -r x.bochs info
t '100 GiB' large 100G 99999999999
t '8 TiB' large 8T 8796000000000
t 'more than 8 TiB' fails 'at most 8 TiB' "$img" create -q -f bochs l.bochs 9T
t 'an empty one' sh -c "$img create -q -f bochs n.bochs 0 && qemu-img info -f bochs n.bochs"
zeros() {
	cp disk.raw model.raw && cp x.bochs z.bochs && "$img" convert -q -f raw -O bochs disk.raw z.bochs &&
		"$imgio" -n z.bochs zero 100000 3M &&
		qemu-io -f raw -c 'write -z 100000 3M' model.raw >/dev/null && same z.bochs model.raw && peer z.bochs model.raw &&
		"$imgio" -n z.bochs write 200000 5000 9 && qemu-io -f raw -c 'write -P 9 200000 5000' model.raw >/dev/null && peer z.bochs model.raw
}
t 'zeros take no space, and are written over' zeros
measured() { [ "$("$img" measure -f raw -O bochs disk.raw | sed -n 's/^required size: *//p')" -ge "$(wc -c <x.bochs)" ]; }
"$img" convert -q -f raw -O bochs disk.raw x.bochs
t 'measure says no less than it takes' measured
bad() { m=$1; shift; $make bad disk.raw "$@" && fails "$m" timeout 10 "$imgio" bad write 0 512 1; }
t 'an extent behind the end is not written' bad 'is not in the file' entry0=4000000
t 'an extent that is there twice is not written' bad 'is used twice' entry5=1
t 'extents that begin in a sector are not written' bad 'in the middle of a sector' odd=1
$make disk.raw.redolog disk.raw base=disk.raw subtype=Undoable
t 'an undoable redolog is not written' fails 'growing ones are written' "$imgio" disk.raw.redolog write 0 512 1
t 'of version 1 is written' sh -c "$make v1 disk.raw version=0x10000 && cp disk.raw model.raw && $imgio -n v1 random 3 50 2 65536 model.raw && qemu-img compare -q -f bochs -F raw v1 model.raw"
tail_used() { # what a killed writer leaves behind the last extent is not shown
	$make k disk.raw tail=0 && head -c 3000000 /dev/urandom >>k && cp disk.raw model.raw && random k model.raw && same k model.raw && peer k model.raw
}
t 'garbage behind the last extent' tail_used
done_testing

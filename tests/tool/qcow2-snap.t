#!/bin/sh
# qcow2-snap.t - internal snapshots of qcow2 images, made and used by both sides. TAP.
. "$(dirname "$0")/../lib.sh"
tool="timeout 60 $O/tests/progs/imgtool -n"
imgio="timeout 60 $O/tests/progs/imgio -n"
cd "$TMP" || exit 1
seq 1 300000 >text
truncate -s 6000128 disk.raw
dd if=text of=disk.raw bs=4096 seek=50 conv=notrunc status=none

clean() { qemu-img check -q -f qcow2 x.qcow2 && [ "$($tool x.qcow2 check | cut -d' ' -f1-3)" = '0 0 0' ]; }
change() { # change SEED: the same in x.qcow2 and model.raw
	$imgio x.qcow2 random "$1" 60 1 200000 model.raw && clean
}
has() { # has SNAPSHOT RAW, for both programs
	qemu-img convert -l "$1" -O raw x.qcow2 got.raw && cmp got.raw "$2" && $tool -l "$1" x.qcow2 cat >got.raw &&
		cmp got.raw "$2"
}
begin() {
	rm -f x.qcow2
	cp disk.raw model.raw
	qemu-img convert -f raw -O qcow2 ${1:+-o "$1"} disk.raw x.qcow2
}
life() {
	begin "$1" && $tool x.qcow2 create one && clean && change 1 && cp model.raw two.raw &&
		$tool x.qcow2 create two && clean && change 2 && has one disk.raw && has two two.raw &&
		qemu-img snapshot -c three x.qcow2 && cp model.raw three.raw && change 3 && has three three.raw &&
		$tool x.qcow2 apply 1 && clean && cp disk.raw model.raw && qemu-img compare x.qcow2 model.raw && change 4 &&
		has one disk.raw && $tool x.qcow2 delete two && clean && has three three.raw && has one disk.raw &&
		qemu-img snapshot -a three x.qcow2 && clean && cp three.raw model.raw && qemu-img compare x.qcow2 model.raw &&
		change 5 && $tool x.qcow2 delete three && clean && qemu-img snapshot -d one x.qcow2 && clean &&
		change 6 && qemu-img compare x.qcow2 model.raw && [ -z "$($tool x.qcow2 snapshots)" ]
}
for o in '' compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=64,cluster_size=1k \
	refcount_bits=4,cluster_size=4k lazy_refcounts=on; do
	t "snapshots: $o" life "$o"
done
listed() {
	begin cluster_size=4k && $tool x.qcow2 create one && qemu-img snapshot -c two x.qcow2 && $tool x.qcow2 snapshots >ours &&
		qemu-img snapshot -l x.qcow2 && printf '1 one 0 6000128\n2 two 0 6000128\n' | cmp - ours &&
		qemu-img snapshot -l x.qcow2 | grep -q '^1 *one'
}
t 'the list' listed
t 'the same name twice' fails "has a snapshot 'one' already" $tool x.qcow2 create one
t 'a name that is not there' fails "has no snapshot 'five'" $tool x.qcow2 apply five
t 'the image is as it was' clean
one_bit() {
	begin refcount_bits=1 && fails 'use more refcount_bits' $tool x.qcow2 create one && clean &&
		qemu-img compare x.qcow2 disk.raw
}
t 'counts that are too narrow' one_bit
data() { begin data_file=x.data && fails 'external data file' $tool x.qcow2 create one; }
t 'with a data file' data
grown() { # a snapshot of a smaller disk
	begin cluster_size=4k && $tool x.qcow2 create one && qemu-img resize -q x.qcow2 60M &&
		$tool -l one x.qcow2 cat | cmp - disk.raw &&
		$tool x.qcow2 apply one && clean && [ "$($imgio x.qcow2 info | grep size)" = "size 6000128" ] &&
		qemu-img compare x.qcow2 disk.raw
}
t 'the disk grew since' grown
first() {
	begin cluster_size=4k && $tool x.qcow2 create one && $tool x.qcow2 create two && $tool x.qcow2 delete one && clean &&
		[ "$($tool x.qcow2 snapshots)" = '2 two 0 6000128' ] && has two disk.raw
}
t 'the first of two is dropped' first
space() { # does not grow without end
	begin && for i in 1 2 3 4 5 6; do $tool x.qcow2 create a && $tool x.qcow2 delete a || return 1; done
	[ "$(stat -c %s x.qcow2)" -lt 4500000 ]
}
t 'space is used again' space
done_testing

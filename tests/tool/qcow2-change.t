#!/bin/sh
# qcow2-change.t - size, settings, places and data files of qcow2 images, beside qemu-img. TAP.
. "$(dirname "$0")/../lib.sh"
tool="timeout 60 $O/tests/progs/imgtool -n"
imgio="timeout 60 $O/tests/progs/imgio -n"
img=$O/vm-img
cd "$TMP" || exit 1
seq 1 300000 >text
truncate -s 6000128 disk.raw
dd if=text of=disk.raw bs=4096 seek=50 conv=notrunc status=none

clean() { qemu-img check -q -f qcow2 x.qcow2 && [ "$($tool x.qcow2 check | cut -d' ' -f1-3)" = '0 0 0' ]; }
same() { clean && qemu-img compare -q -s -f qcow2 -F raw x.qcow2 model.raw || qemu-img compare -f qcow2 -F raw x.qcow2 model.raw; }
change() { $imgio x.qcow2 random "$1" 60 1 200000 model.raw && same; }
begin() {
	rm -f x.qcow2 x.data
	cp disk.raw model.raw
	qemu-img convert -f raw -O qcow2 ${1:+-o "$1"} disk.raw x.qcow2
}
size() { # size BYTES [PREALLOCATION]
	$tool x.qcow2 resize "$@" && truncate -s "$1" model.raw && same && qemu-img info x.qcow2 | grep -q "($1 bytes)"
}
resized() {
	begin "$1" && size 9000448 && change 1 && size 400000000 && change 2 && size 5000192 && change 3 && size 1000448 &&
		size 7000064 && change 4 && size 512 && size 3000320 && change 5
}
for o in '' compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=64,cluster_size=1k \
	data_file=x.data; do
	t "resized: $o" resized "$o"
done
kept() { # snapshots keep their size
	begin cluster_size=4k && $tool x.qcow2 create a && size 20000256 && change 1 && size 2000384 && change 2 &&
		$tool -l a x.qcow2 cat | cmp - disk.raw &&
		$tool x.qcow2 apply a && clean && cp disk.raw model.raw && same
}
t 'resized with a snapshot' kept
v2() { begin compat=0.10 && qemu-img snapshot -c a x.qcow2 && fails 'amend it' $tool x.qcow2 resize 10M && clean; }
t 'version 2 with a snapshot is not resized' v2
behind() { # a backing file that is larger does not show in the new part
	cp disk.raw back.raw && rm -f x.qcow2 && qemu-img create -q -f qcow2 -b back.raw -F raw -o "$1" x.qcow2 1000448 &&
		head -c 1000448 disk.raw >model.raw && size 4000256 && size 8000000 && change 1
}
t 'the larger backing file does not show' behind cluster_size=4k
t 'the larger backing file does not show: version 2' behind compat=0.10
places() { # places HOW: grown with places for all
	begin cluster_size=4k && size 9000448 "$1" && change 1 && "$img" map --output=json x.qcow2 >/dev/null
}
for how in metadata falloc full; do t "grown with $how" places $how; done
taken() { # taken HOW: created with places
	rm -f x.qcow2 model.raw && "$img" create -q -f qcow2 -o "preallocation=$1${2:+,$2}" x.qcow2 10M && truncate -s 10M model.raw &&
		same && qemu-img check --output=json x.qcow2 | grep -q "\"allocated-clusters\": $3" && change 1
}
t 'created with metadata' taken metadata '' 160
t 'created with falloc' taken falloc cluster_size=4k 2560
t 'created with full' taken full extended_l2=on 160
space() { [ "$(du -k x.qcow2 | cut -f1)" -ge 10000 ]; }
t 'full takes the space' space

# ---- data files ----
data() { # data OPTIONS
	rm -f x.qcow2 x.data model.raw && "$img" create -q -f qcow2 -o "data_file=x.data${1:+,$1}" x.qcow2 10M && truncate -s 10M model.raw &&
		same && change 1 && qemu-img info x.qcow2 | grep -q 'data file: x.data'
}
t 'a data file' data
t 'a data file with subclusters' data extended_l2=on
raw() { data data_file_raw=on && cmp x.data model.raw && size 20000256 && change 2 && cmp -n 20000256 x.data model.raw; }
t 'a raw data file' raw

# ---- settings ----
says_info() { qemu-img info --output=json x.qcow2 | grep -q "\"$1\": $2"; }
amended() { # amended SETTING KEY VALUE: then the image is that and as before
	$tool x.qcow2 amend "$1" && clean && says_info "$2" "$3" && same
}
settings() {
	begin && $tool x.qcow2 create a && $tool x.qcow2 delete a && $imgio x.qcow2 discard 0 2M && $imgio x.qcow2 zero 3M 1M &&
		qemu-img convert -O raw x.qcow2 model.raw && for b in 1 2 4 8 32 64 16; do
		amended refcount_bits=$b refcount-bits $b && change $b || return 1
	done
	amended lazy_refcounts=on lazy-refcounts true && amended lazy_refcounts=off lazy-refcounts false &&
		amended compat=0.10 compat '"0.10"' && change 9 && amended compat=1.1 compat '"1.1"' && change 10
}
t 'settings' settings
down() { # zeros in front of a backing file
	cp disk.raw back.raw && rm -f x.qcow2 && qemu-img create -q -f qcow2 -b back.raw -F raw x.qcow2 &&
		qemu-io -c 'write -z 200k 1M' -c 'write 3M 64k' x.qcow2 >/dev/null && qemu-img convert -O raw x.qcow2 model.raw &&
		amended compat=0.10 compat '"0.10"' && change 1
}
t 'version 2 in front of a backing file' down
narrow() { begin && $tool x.qcow2 create a && fails 'use more refcount_bits' $tool x.qcow2 amend refcount_bits=1 && same; }
t 'counts that would be too narrow' narrow
t 'what cannot be changed' fails 'cannot be changed' $tool x.qcow2 amend cluster_size=4k

# ---- backing files ----
backing() {
	cp disk.raw back.raw && rm -f x.qcow2 && qemu-img create -q -f qcow2 x.qcow2 6000128 && $tool x.qcow2 backing back.raw raw &&
		cp disk.raw model.raw && same && change 1 && $tool x.qcow2 backing &&
		! qemu-img info x.qcow2 | grep back.raw && clean
}
t 'another backing file, and none' backing
empty() { begin && $tool x.qcow2 create a && $tool x.qcow2 empty && truncate -s 0 model.raw && truncate -s 6000128 model.raw &&
	same && qemu-img convert -O raw -l a x.qcow2 a.raw && cmp a.raw disk.raw && change 1; }
t 'emptied' empty
done_testing

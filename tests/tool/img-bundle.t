#!/bin/sh
# img-bundle.t - Parallels' bundles (".hdd" folders) and ploop's: plain, expanding, split, with snapshots; their files are
# qemu-img's. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
bundle="python3 $(cd "$(dirname "$0")" && pwd)/bundle.py"
cd "$TMP" || exit 1
SEED=${SEED:-1}
truncate -s 12M disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
head -c 4194304 disk.raw >1.raw
tail -c +4194305 disk.raw >2.raw
same() { timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"; }
random() {
	timeout 100 "$imgio" -n "$1" random "$SEED" 150 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 200 4 4096 "$2"
}
hds() { qemu-img convert -f raw -O parallels -o cluster_size="${3:-64k}" "$1" "$2"; }
sound() { "$img" check -q "$1"; }

rm -rf a.hdd && $bundle a.hdd 24576 part=0:24576 file=T:Compressed:a.hds shot=T:0
hds disk.raw a.hdd/a.hds
t 'one file' same a.hdd disk.raw
t 'by its description' same a.hdd/DiskDescriptor.xml disk.raw
t 'is recognized' says 'parallels' "$img" info a.hdd/DiskDescriptor.xml
written() { cp disk.raw model.raw && random a.hdd model.raw && same a.hdd model.raw && sound a.hdd && qemu-img compare -q -f parallels -F raw a.hdd/a.hds model.raw && qemu-img check -q -f parallels a.hdd/a.hds; }
t 'is written' written
t 'converted' sh -c "$img convert -q -O raw a.hdd c.raw && cmp c.raw model.raw"

split() {
	rm -rf s.hdd && $bundle s.hdd 24576 part=8192:24576 "file=T:$1:2.hds" part=0:8192 "file=T:$2:1.hds" && cp disk.raw model.raw &&
		case $1 in Plain) cp 2.raw s.hdd/2.hds ;; *) hds 2.raw s.hdd/2.hds ;; esac &&
		case $2 in Plain) cp 1.raw s.hdd/1.hds ;; *) hds 1.raw s.hdd/1.hds ;; esac &&
		same s.hdd disk.raw && random s.hdd model.raw && same s.hdd model.raw && sound s.hdd
}
t 'two expanding files' split Compressed Compressed
t 'an expanding file behind a plain one' split Compressed Plain
t 'a plain file behind an expanding one' split Plain Compressed
t 'two plain files' split Plain Plain
plain() { rm -rf p.hdd && $bundle p.hdd 24576 part=0:24576 file=T:Plain:p && cp disk.raw p.hdd/p && cp disk.raw model.raw && random p.hdd model.raw && cmp p.hdd/p model.raw; }
t 'a plain file' plain

# The state on two snapshots; what they hold stays as it is.
snapshots() {
	rm -rf n.hdd && $bundle n.hdd 24576 part=0:24576 file=a:Compressed:base.hds file=b:Compressed:mid.hds "file=$1:Compressed:top.hds" "shot=a:0" "shot=b:a" "shot=$1:b" ${2:+"$2"} &&
		hds disk.raw n.hdd/base.hds && cp disk.raw model.raw &&
		qemu-img create -q -f parallels -o cluster_size=64k n.hdd/mid.hds 12M && qemu-img create -q -f parallels -o cluster_size=64k n.hdd/top.hds 12M &&
		same n.hdd disk.raw &&
		"$imgio" -n n.hdd/mid.hds write 1M 64k 7 && qemu-io -f raw -c 'write -P 7 1M 64k' model.raw >/dev/null &&
		"$imgio" -n n.hdd/mid.hds write 8M 1M 8 && qemu-io -f raw -c 'write -P 8 8M 1M' model.raw >/dev/null &&
		same n.hdd model.raw && cp n.hdd/mid.hds mid && cp n.hdd/base.hds base && random n.hdd model.raw && same n.hdd model.raw &&
		cmp n.hdd/mid.hds mid && cmp n.hdd/base.hds base && sound n.hdd
}
t 'snapshots' snapshots T
t 'snapshots, the top is named' snapshots c top=c
older() { # a snapshot from before the disk grew, which is a plain file
	rm -rf o.hdd && $bundle o.hdd 24576 part=0:24576 file=a:Plain:base file=T:Compressed:top.hds shot=a:0 shot=T:a && cp 1.raw o.hdd/base &&
		qemu-img create -q -f parallels o.hdd/top.hds 12M && cp 1.raw model.raw && truncate -s 12M model.raw && same o.hdd model.raw &&
		random o.hdd model.raw && same o.hdd model.raw && cmp o.hdd/base 1.raw
}
t 'a snapshot that is smaller' older
made() {
	mkdir m.hdd && cp disk.raw model.raw && "$img" convert -q -f raw -O parallels disk.raw m.hdd/DiskDescriptor.xml && same m.hdd disk.raw &&
		random m.hdd model.raw && same m.hdd model.raw && qemu-img compare -q -f parallels -F raw m.hdd/root.hdd.0.*.hds model.raw
}
t 'one is made' made
t 'zeros over a snapshot' sh -c "$imgio -n n.hdd zero 8M 1M && $imgio -r n.hdd cat >z && dd if=z bs=1M skip=8 count=1 status=none | cmp -n 1048576 - /dev/zero"

bad() { m=$1; shift; rm -rf bad.hdd && $bundle bad.hdd 24576 "$@" && cp a.hdd/a.hds disk.raw bad.hdd && fails "$m" timeout 10 "$img" info bad.hdd; }
t 'a file that is outside' bad 'is outside the image' part=0:24576 file=T:Plain:/etc/passwd
t 'by ../' bad 'is outside the image' part=0:24576 file=T:Plain:../disk.raw
t 'a file that is not there' bad 'No such file' part=0:24576 file=T:Plain:none
t 'one file twice' bad 'is a file of that image already' part=0:8192 file=T:Plain:disk.raw part=8192:24576 file=T:Plain:disk.raw
t 'the description itself' bad 'is a file of that image already' part=0:24576 file=T:Plain:DiskDescriptor.xml
t 'parts that overlap' bad 'parts overlap' part=0:8193 file=T:Plain:disk.raw part=8192:24576 file=T:Plain:a.hds
t 'a part that is missing' bad 'parts overlap, or one is missing' part=8192:24576 file=T:Plain:disk.raw
t 'parts that are too short' bad 'do not add up' part=0:8192 file=T:Plain:disk.raw
t 'a part that ends before it begins' bad 'has no place' part=8192:0 file=T:Plain:disk.raw
t 'a part of 2^63 sectors' bad 'has no place' part=0:9223372036854775807 file=T:Plain:disk.raw
t 'no parts' bad 'no StorageData'
t 'a file that is too short' bad 'bytes for' part=0:24576 file=T:Plain:a.hds
t 'snapshots in a circle' bad 'is a loop' part=0:24576 file=T:Plain:disk.raw shot=T:a shot=a:b shot=b:T
t 'a snapshot that is missing' bad 'snapshot is missing' part=0:24576 file=T:Plain:disk.raw shot=T:a
t 'a snapshot without a file' bad 'no file of snapshot' part=0:24576 file=T:Plain:disk.raw shot=T:a shot=a:0
t 'a file of unknown type' bad 'unknown type' part=0:24576 file=T:Diff:disk.raw
t 'two files of one snapshot' bad 'one identifier' part=0:24576 file=T:Plain:disk.raw file=T:Plain:a.hds
t 'entities' bad 'document type' part=0:24576 file=T:Plain:disk.raw 'extra=<!DOCTYPE a [<!ENTITY b "c">]>'
t 'what is no XML' bad 'no XML' part=0:24576 'file=T:Plain:<'
t 'a folder without a description' fails "neither" "$img" info .
done_testing

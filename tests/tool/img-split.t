#!/bin/sh
# img-split.t - raw disks in several files, and when files are taken for one disk. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
cd "$TMP" || exit 1
SEED=${SEED:-1}
truncate -s 10M disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
size() { [ "$("$img" info --json "$1" | sed -n 's/.*"virtual-size": *\([0-9]*\).*/\1/p')" = "$2" ] || { "$img" info "$1"; return 1; }; }
joined() { cat "$1"* | cmp - "$2"; }
cut() { split -b 3M -d -a 3 --numeric-suffixes=1 disk.raw "$1"; }
cut d.
t 'pieces of split(1) are one disk' sh -c "$img convert -q -O raw d.001 out.raw && cmp out.raw disk.raw"
t 'recognized' says 'file format: split' "$img" info d.001
t 'the second one is a disk of its own' size d.002 3145728
t 'as raw, so is the first' says 'virtual size: 3 MiB' "$img" info -f raw d.001
t 'they are not written without a format' fails 'name the format, split or raw' "$img" resize d.001 +1M
written() { cp disk.raw model.raw && timeout 60 "$imgio" -f split -n d.001 random "$SEED" 200 4 1000000 model.raw && joined d. model.raw; }
t 'written' written
vmware() { for i in 1 2 3 4; do cp d.00$i v-f00$i.vmdk; done && "$img" convert -q -O raw v-f001.vmdk out.raw && cmp out.raw model.raw; }
t 'as VMware names them' vmware

made() { rm -f m.*; "$img" convert -q -f raw -O split -o piece_size=4M disk.raw "$1" && [ "$(ls $2 | wc -l)" = 3 ] && cat $2 | cmp - disk.raw && "$img" convert -q -O raw "$1" out.raw && cmp out.raw disk.raw; }
t 'made' made m.001 'm.0*'
t 'made, as VMware names them' made m-f001.raw 'm-f*'
t 'an empty one' sh -c "$img create -q -f split -o piece_size=1M e.001 2500000 && cat e.0* | cmp -n 2500000 - /dev/zero && [ \$(stat -c %s e.003) = 402944 ]"
t 'with another name it is not made' fails 'NAME.001' "$img" create -q -f split x.raw 10M
t 'more than 999 files are not made' fails 'there can be 999' "$img" create -q -f split -o piece_size=512 x.001 10M
stale() { "$img" create -q -f split -o piece_size=1M n.001 3M && rm n.001 && fails 'remove it first' "$img" create -q -f split -o piece_size=1M n.001 1M; }
t 'what is left of a longer one is no part of it' stale
t 'a format that is not split' fails 'is not the first file' "$img" info -f split d.002

alone() { rm -f a.0* && cp disk.raw a.001 && size a.001 10485760; }
t 'one file is raw' alone
t 'files of other lengths are disks of their own' sh -c "head -c 1048576 disk.raw >o.001; head -c 2097152 disk.raw >o.002; $img info o.001 | grep -q 'format: raw'"
t 'so is one with a short file in the middle' sh -c "cp o.001 p.001; head -c 5120 disk.raw >p.002; cp o.001 p.003; $img info p.001 | grep -q 'format: raw'"
t 'and one whose length is no multiple of 512' sh -c "head -c 1000 disk.raw >q.001; head -c 1000 disk.raw >q.002; $img info q.001 | grep -q 'format: raw'"
t 'by name, lengths are what they are' sh -c "$img convert -q -f split -O raw p.001 out.raw && cat p.00* | cmp - out.raw"
t 'pieces of a qcow2 image are none of a disk' sh -c "$img create -q -f qcow2 c.001 1M; cp c.001 c.002; $img info c.001 | grep -q 'format: qcow2'"
t 'a link that leads outside' sh -c "mkdir in; cp o.001 in/l.001; ln -s ../o.001 in/l.002; ! $img info in/l.001 2>err && grep -q 'outside the image' err"
done_testing

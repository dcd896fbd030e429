#!/bin/sh
# img-export.t - OVA packages made here: read by tar, xmllint, sha256sum, qemu-img, and by import. TAP.
. "$(dirname "$0")/../lib.sh"
img=$O/vm-img
cd "$TMP" || exit 1
truncate -s 12000768 a.raw
seq 1 200000 | dd of=a.raw bs=4096 seek=50 conv=notrunc status=none
truncate -s 3000320 b.raw
head -c 300000 /dev/urandom | dd of=b.raw bs=4096 seek=400 conv=notrunc status=none
qemu-img convert -O qcow2 a.raw a.qcow2

made() { "$img" export -q -o web.ova --memory 1G --cpus 2 --os debian --firmware efi a.qcow2 b.raw && mkdir un && tar -C un -xf web.ova; }
t 'a package of two disks' made
t 'the description stands first, the manifest next' sh -c "tar tf web.ova | tr '\n' ' ' | grep -qx 'web.ovf web.mf web-disk1.vmdk web-disk2.vmdk '"
if command -v xmllint >/dev/null; then
	t 'the description is XML' xmllint --noout un/web.ovf
else
	skip 'the description is XML' 'no xmllint'
fi
t 'it tells the sizes' sh -c "grep -q 'ovf:size=\"$(stat -c %s un/web-disk1.vmdk)\"' un/web.ovf && grep -q 'capacity=\"12000768\"' un/web.ovf"
t 'the manifest fits' sh -c "cd un && sed 's/(/ (/;s/)=/) =/' web.mf | sha256sum -c --strict"
t 'qemu-img reads the first disk' qemu-img compare -q -F raw un/web-disk1.vmdk a.raw
t 'and the second' qemu-img compare -q -F raw un/web-disk2.vmdk b.raw
t 'import reads it' sh -c "mkdir in && $img import -q -O raw -o in web.ova && cmp in/web-disk1.raw a.raw && cmp in/web-disk2.raw b.raw"
t 'info, too' says 'processors: 2' "$img" info web.ova
t 'through a pipe' sh -c "$img export -o - a.qcow2 | $img import -q -O raw -o p.raw - && cmp p.raw a.raw"
t 'names that XML minds' sh -c "$img export -q -o n.ova --name 'a <b> & \"c\"' a.raw && $img info n.ova | grep -qF 'name: a <b> & \"c\"'"
t 'a name that is not UTF-8' fails 'is not UTF-8' "$img" export -q -o n2.ova --name "$(printf 'a\377')" a.raw
for b in ide scsi sata; do
	t "disks on $b" sh -c "$img export -q -o bus.ova --bus $b a.raw b.raw b.raw && [ \$($img info bus.ova | grep -c 'bus: $b') = 3 ]"
done
t 'five disks are too many for IDE' fails 'cannot have 5 disks' "$img" export -o x.ova --bus ide a.raw a.raw a.raw a.raw a.raw
t 'an image of packages' sh -c "$img export -q -o again.ova bus.ova 2>&1 | grep -q 'package with 3 disks'"
t 'a disk of nothing' sh -c ": >0.raw && $img export -q -o 0.ova 0.raw && $img import -q -O raw -o 00.raw 0.ova && [ ! -s 00.raw ]"
t 'a full disk is a failure' sh -c "$img export -q -o - a.raw >/dev/full; [ \$? = 1 ]"
t 'a source that is missing leaves nothing' sh -c "$img export -q -o y.ova a.raw none.raw; [ ! -e y.ova ]"
t 'nothing else is left' sh -c "! ls -A | grep part"
t 'no target' exits 2 "$img" export a.raw
t 'an unknown system' exits 2 "$img" export -o x.ova --os beos a.raw
t 'memory that is no number of MiB' exits 2 "$img" export -o x.ova --memory 1000 a.raw
done_testing

#!/bin/sh
# img-packed.t - images packed by gzip, xz, zstd, bzip2, lz4, lzop: read by every command, from a file and from a pipe. TAP.
. "$(dirname "$0")/../lib.sh"
img=$O/vm-img
cd "$TMP" || exit 1
truncate -s 30000640 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=5000 conv=notrunc status=none
qemu-img convert -O qcow2 disk.raw disk.qcow2

for z in gzip xz zstd bzip2 lz4 lzop; do
	if ! command -v $z >/dev/null; then
		skip "$z" "no $z"
		continue
	fi
	$z -c disk.qcow2 >d.$z 2>/dev/null
	$z -c disk.raw >r.$z 2>/dev/null
	t "$z: convert" sh -c "$img convert -O raw d.$z x.raw && cmp x.raw disk.raw"
	t "$z: a raw disk" sh -c "$img convert -O raw r.$z x.raw && cmp x.raw disk.raw"
	t "$z: zeros are holes" sh -c "[ \$(stat -c %b x.raw) -lt 20000 ]"
	t "$z: from a pipe" sh -c "$img convert -O raw - x.raw <d.$z && cmp x.raw disk.raw && cat r.$z | $img convert -O raw - x.raw && cmp x.raw disk.raw"
	t "$z: compare" "$img" compare -q d.$z disk.raw
	t "$z: info" says 'file format: qcow2' "$img" info d.$z
	head -c "$(($(stat -c %s r.$z) / 2))" r.$z >cut.$z
	t "$z: one that was cut" fails "cannot" "$img" convert -O raw cut.$z y.raw
	t "$z: as it is with -f raw" sh -c "$img convert -f raw -O raw d.$z x.raw && cmp -n $(stat -c %s d.$z) x.raw d.$z"
done
t 'nothing is left of failures' sh -c '[ ! -e y.raw ]'
for o in -F -C -1 -9 --crc32; do t "lzop $o" sh -c "lzop -q $o -c disk.raw >l.lzo && $img compare -q l.lzo disk.raw"; done
t 'without the program lzop' sh -c "PATH=/none $img compare -q l.lzo disk.raw"
changed() { # a byte of the first block's content
	cp l.lzo bad.lzo
	printf '\377\377\377\377' | dd of=bad.lzo bs=1 seek=5000 conv=notrunc status=none
	fails 'it is damaged' "$img" convert -O raw bad.lzo y.raw
}
t 'lzop: what was changed is noticed' changed
t 'raw to a pipe' sh -c "$img convert -O raw d.gzip - | cmp - disk.raw"
t 'stream VMDK through pipes' sh -c "$img convert -O vmdk disk.raw - | $img convert -O raw - x.raw && cmp x.raw disk.raw"
t 'qcow2 through pipes' sh -c "$img convert -O qcow2 disk.raw - | $img convert -O raw - x.raw && cmp x.raw disk.raw"
done_testing

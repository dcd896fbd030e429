#!/bin/sh
# img-packed.t - images packed by gzip, xz, zstd, bzip2, lz4, lzop: read by every command, from a file and from a pipe. TAP.
. "$(dirname "$0")/../lib.sh"
img=$O/vm-img
here=$PWD/tests/tool
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

# ---- compressed qcow2 through a pipe: packed twice, no temporary file ----
for o in '' cluster_size=512 cluster_size=2M compression_type=zlib compat=0.10 compat=0.10,cluster_size=4k lazy_refcounts=on; do
	for c in '' -c; do
		t "qcow2 to a pipe $c $o" sh -c "$img convert -O qcow2 $c ${o:+-o $o} disk.raw - | cat >x.qcow2 && qemu-img check -q x.qcow2 && $img check -q x.qcow2 && qemu-img compare -q x.qcow2 disk.raw"
	done
done
t 'it is not larger than a file would be by more than a tenth' sh -c "$img convert -O qcow2 -c disk.raw y.qcow2 && $img convert -O qcow2 -c disk.raw - >x.qcow2 && [ \$(stat -c %s x.qcow2) -lt \$((\$(stat -c %s y.qcow2) * 11 / 10 + 300000)) ]"
t 'nothing but zeros' sh -c "truncate -s 70M zero.raw && $img convert -O qcow2 -c zero.raw - >x.qcow2 && qemu-img check -q x.qcow2 && qemu-img compare -q x.qcow2 zero.raw"
t 'nothing at all' sh -c "truncate -s 0 none.raw && $img convert -O qcow2 -c none.raw - >x.qcow2 && qemu-img check -q x.qcow2"
head -c 3000000 /dev/urandom >noise.raw
t 'what does not become smaller' sh -c "$img convert -O qcow2 -c noise.raw - >x.qcow2 && qemu-img check -q x.qcow2 && qemu-img convert -O raw x.qcow2 x.raw && cmp -n 3000000 x.raw noise.raw && [ \$(stat -c %s x.raw) = 3000320 ]"
for f in qcow2 vdi vmdk vhdx vpc parallels qed; do
	t "a part of a sector at the end: $f" sh -c "$img convert -O $f noise.raw x.$f && qemu-img convert -f $f -O raw x.$f x.raw && cmp -n 3000000 x.raw noise.raw"
done
t 'an empty disk leaks nothing' sh -c "$img create -q -f qcow2 x.qcow2 0 && qemu-img check -q x.qcow2"
t 'zeros that are written out' sh -c "cp --sparse=never zero.raw full.raw && $img convert -O qcow2 -c full.raw - >x.qcow2 && [ \$(stat -c %s x.qcow2) -lt 400000 ] && qemu-img check -q x.qcow2"
t 'by any number of threads the same' sh -c "$img convert -m 1 -O qcow2 -c disk.raw - | cksum >1; $img convert -m 5 -O qcow2 -c disk.raw - | cksum >5; cmp 1 5"
t 'from pipe to pipe' sh -c "$img convert -O qcow2 -c - - <disk.qcow2 | $img compare -q - disk.raw"
t 'into a pipe that closes' sh -c "! $img convert -O qcow2 -c noise.raw - 2>err | head -c 1000 >/dev/null; [ ! -s err ] || grep -q 'Broken pipe' err"
t 'not with a backing file' fails 'backing file cannot be written to a pipe' "$img" convert -O qcow2 -c -B disk.qcow2 -F qcow2 disk.qcow2 -
t 'no setting is passed over' fails "option 'refcount_bits'" "$img" convert -O qcow2 -o refcount_bits=64 disk.raw -

# ---- everything that a pipe can bring ----
$img convert -O vmdk disk.raw s.vmdk
$img export -q -o s.ova disk.raw
for k in xva vma; do python3 "$here/packages.py" $k s.$k disk.raw; done
for f in s.vmdk s.ova s.xva s.vma; do
	for z in cat gzip xz zstd lz4 lzop; do
		command -v $z >/dev/null || continue
		t "$z <$f" sh -c "$z -c <$f 2>/dev/null >in || cat $f >in; cat in | $img convert -O qcow2 -c - - | $img compare -q - disk.raw"
	done
	t "$f becomes an OVA in a pipe" sh -c "cat $f | $img export -q -o - - | $img convert -O raw - - | cmp - disk.raw"
done
mkdir tree && echo hi >tree/hi && tar cf tree.tar -C tree .
t 'a tar file is no disk' fails "'vm-img import' makes a disk" "$img" convert -O raw tree.tar x.raw
t 'not from a pipe either' sh -c "! cat tree.tar | $img convert -O raw - x.raw 2>err && grep -q import err"
t 'unless asked for' sh -c "cat tree.tar | $img convert -f raw -O raw - x.raw && cmp -n 10240 x.raw tree.tar"
t 'import makes one of it' sh -c "cat tree.tar | $img import -q -O qcow2 -o t.qcow2 - && $img extract t.qcow2 1 -o fs.raw 2>/dev/null || $img convert -O raw t.qcow2 fs.raw && e2fsck -fn fs.raw"
done_testing

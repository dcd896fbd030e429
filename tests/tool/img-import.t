#!/bin/sh
# img-import.t - packages: OVA, OVF, boxes, XVA, VMA, folders; from packages.py, whole and damaged, and hostile ones. TAP.
. "$(dirname "$0")/../lib.sh"
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/packages.py"
bundle="python3 $(cd "$(dirname "$0")" && pwd)/bundle.py"
cd "$TMP" || exit 1
truncate -s 12000768 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 300000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
truncate -s 3145728 two.raw
echo two | dd of=two.raw bs=4096 seek=300 conv=notrunc status=none
qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw disk1.vmdk
qemu-img convert -O vmdk -o subformat=streamOptimized two.raw disk2.vmdk

taken() { # taken PACKAGE N RAW: disk N is RAW
	rm -f got.raw
	timeout 30 "$img" import -q -O raw --disk "$2" -o got.raw "$1" && cmp got.raw "$3"
}
piped() { # piped COMMAND... : its output is a package with disk.raw
	rm -f got.raw
	"$@" | timeout 30 "$img" import -q -O raw --disk 1 -o got.raw - && cmp got.raw disk.raw
}

# ---- OVA ----
$make ova a.ova disk1.vmdk disk2.vmdk
t 'an OVA is recognized' says 'kind: ova' "$img" info a.ova
t 'its machine' says 'memory: 512 MiB' "$img" info a.ova
t 'its disks' says 'disk 2: disk2.vmdk' "$img" import --list a.ova
t 'as JSON' sh -c "$img info --json a.ova | python3 -c 'import json, sys; d = json.load(sys.stdin); assert d[\"package\"] == \"ova\" and len(d[\"disks\"]) == 2 and d[\"disks\"][0][\"bus\"] == \"sata\"'"
t 'the first disk' taken a.ova 1 disk.raw
t 'the second' taken a.ova 2 two.raw
for f in 0 1 2; do
	$make ova f.ova disk1.vmdk format=$f
	t "tar of kind $f" taken f.ova 1 disk.raw
done
all() { mkdir -p out && "$img" import -q -O qcow2 -c -o out a.ova && "$img" compare -q out/disk1.qcow2 disk.raw && "$img" compare -q out/disk2.qcow2 two.raw; }
t 'all into a folder' all
t 'what is there is not replaced' fails 'File exists' "$img" import -q -o out a.ova
t 'two disks need a folder' fails 'must be a folder' "$img" import -o x.raw a.ova
t 'nor does convert guess' fails "package with 2 disks" "$img" convert a.ova x.raw
t 'convert takes the only one' sh -c "$img convert f.ova x.raw && cmp x.raw disk.raw"
t 'with -f raw it is a file' sh -c "$img convert -f raw a.ova x.raw && cmp x.raw a.ova"
t 'from a pipe' piped cat a.ova
t 'packed by gzip, from a pipe' piped gzip -c a.ova
t 'packed by zstd' sh -c "zstd -qf a.ova && $img import -q -O raw --disk 2 -o x.raw a.ova.zst && cmp x.raw two.raw"
for h in SHA1 SHA512 none; do
	$make ova h.ova disk1.vmdk hash=$h
	t "a manifest of $h" taken h.ova 1 disk.raw
done
gzip -c disk1.vmdk >disk1.gz
$make ova z.ova disk1.gz fileattr=' ovf:compression=%gzip%'
t 'a disk that is packed in it' taken z.ova 1 disk.raw
damage() { $make ova bad.ova disk1.vmdk disk2.vmdk "$@"; }
bad() { m=$1; shift; damage "$@"; fails "$m" timeout 20 "$img" import -O raw --disk 1 -o x.raw bad.ova; }
t 'a changed disk is noticed' bad 'its SHA256 is not what the manifest says' damage=1
t '--no-verify does not look' sh -c "$img import -q --no-verify -O raw --disk 2 -o x.raw bad.ova"
t 'a file that is not there' bad 'which is not in it' href=disk3.vmdk
t 'a file elsewhere' bad 'which is not in it' href=/etc/passwd
t 'a file above' bad 'which is not in it' href=../../etc/passwd
t 'a file of another computer' bad 'which is not in it' href=http://localhost/x
t 'a disk without a file' bad 'is not listed' ref=f9
t 'a file in chunks' bad 'cut into chunks' 'fileattr= ovf:chunkSize=%100%'
t 'an unknown packing' bad 'is compressed by' 'fileattr= ovf:compression=%lzma%'
t 'a document type' bad 'document type' 'doctype=<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' 'name=&a;'
t 'a manifest that names more' bad 'not in the package' 'extra=SHA1(x.vmdk)~ da39a3ee5e6b4b0d3255bfef95601890afd80709'
t 'a manifest that is none' bad 'line 4 of the manifest' 'extra=nonsense'
t 'a capacity beyond all' says 'disk 1' sh -c "$make ova c.ova disk1.vmdk capacity=99999999999999999999 && $img info c.ova"
t 'units beyond all' says 'disk 1' sh -c "$make ova c.ova disk1.vmdk 'units=byte * 2^60' capacity=1000 && $img info c.ova"
cut() { head -c 100000 a.ova >cut.ova && fails 'cut.ova' timeout 10 "$img" info cut.ova; }
t 'one that was cut' cut
control() { $make ova c.ova disk1.vmdk "name=a$(printf '\t')[31mb" && "$img" info c.ova | grep -q 'name: a?'; }
t 'names do not reach the terminal as they are' control
inside() { # an image inside that names a file outside is not followed
	qemu-img create -q -f qcow2 -b "$PWD/disk.raw" -F raw back.qcow2
	$make ova back.ova back.qcow2 && fails 'outside the image' "$img" import -O raw -o x.raw back.ova
}
t 'a backing file is not followed out of the package' inside
beside() { # nor one that would lie beside the package
	qemu-img create -q -f qcow2 -b disk.raw -F raw back.qcow2
	$make ova back.ova back.qcow2 && fails 'Not a directory' "$img" import -O raw -o x.raw back.ova
}
t 'nor beside it' beside

# ---- OVF in a folder ----
mkdir folder && cp disk1.vmdk folder/ && $make ovf folder/vm.ovf disk1.vmdk
t 'an OVF with files' taken folder/vm.ovf 1 disk.raw
(cd folder && sha256sum --tag disk1.vmdk | sed 's/ (/(/;s/ =/=/' >vm.mf)
t 'with a manifest' taken folder/vm.ovf 1 disk.raw
printf 'SHA256(disk1.vmdk)= %064d\n' 0 >folder/vm.mf
t 'that does not fit' fails 'not what the manifest says' "$img" import -O raw -o x.raw folder/vm.ovf
rm folder/vm.mf folder/disk1.vmdk && ln -s ../disk1.vmdk folder/
t 'a link out of the folder' fails 'leads out of it' "$img" import -O raw -o x.raw folder/vm.ovf

# ---- Vagrant ----
qemu-img convert -O qcow2 disk.raw box.img
$make box b.box box.img
t 'a Vagrant box' taken b.box 1 disk.raw
t 'is recognized' says 'kind: box' "$img" info b.box

# ---- XVA ----
for k in alive=1 xx=1 none=1; do
	$make xva x.xva disk.raw two.raw $k
	t "XVA ($k), first disk" taken x.xva 1 disk.raw
	t "XVA ($k), second disk" taken x.xva 2 two.raw
done
t 'its machine' says 'processors: 3' "$img" info x.xva
t 'from a pipe' piped cat x.xva
xbad() { m=$1; shift; $make xva bad.xva disk.raw "$@"; fails "$m" timeout 10 "$img" import -O raw -o x.raw bad.xva; }
t 'a changed block is noticed' xbad 'does not have the digest' damage=1
t 'by the other digest, too' xbad 'does not have the digest' damage=1 xx=1
t 'blocks twice' xbad 'out of order' number=1
t 'a disk that is too small for its blocks' xbad 'blocks up to' size=1000
t 'a disk beyond all' xbad 'is damaged: disk' size=9223372036854775807
t 'a block number beyond all' says 'no disks' sh -c "$make xva bad.xva disk.raw number=99999999999999999999 && $img info bad.xva"

# ---- VMA ----
$make vma v.vma disk.raw two.raw
t 'VMA' taken v.vma 1 disk.raw
t 'the second disk' taken v.vma 2 two.raw
t 'its machine' says 'processors: 4' "$img" info v.vma
t 'from a pipe' piped cat v.vma
for z in 'zstd -q' gzip 'lzop -q'; do
	rm -f v.vma.*
	$z -k v.vma 2>/dev/null || $z v.vma
	t "packed by $z" taken v.vma.* 1 disk.raw
done
$make vma s.vma disk.raw two.raw shuffle=1
t 'clusters in any order' taken s.vma 1 disk.raw
vbad() { m=$1; shift; $make vma bad.vma disk.raw "$@"; fails "$m" timeout 10 "$img" import -O raw -o x.raw bad.vma; }
t 'another version' vbad 'version 2' version=2
t 'a changed extent is noticed' vbad 'does not have the digest' damage=1
t 'a cluster of no disk' vbad 'belongs to no disk' dev=7
t 'a cluster behind the end' vbad 'behind the end' move=1000
t 'a disk that is too small' vbad 'behind the end' size=65536
t 'a disk beyond all' vbad 'no size' size=9223372036854775807
t 'blocks that do not add up' vbad 'more or fewer blocks' blocks=3
t 'names beyond the header' vbad 'sizes in its header' blob=4294967295
t 'a header of 4 GiB' vbad 'sizes in its header' head=4294966784
t 'clusters twice' sh -c "cat s.vma >tw.vma && tail -c +$((12288 + 512 + 1)) s.vma >>tw.vma; $img import -O raw --disk 1 -o x.raw tw.vma 2>&1 | grep -q 'there twice'"

# ---- folders ----
mkdir m.vmwarevm && qemu-img convert -O vmdk disk.raw m.vmwarevm/sys.vmdk
vmx() { printf '.encoding = "UTF-8"\ndisplayName = "fusion"\nmemsize = "1024"\nscsi0.present = "TRUE"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "%s"\nide1:0.fileName = "x.iso"\nide1:0.deviceType = "cdrom-image"\nide1:0.present = "TRUE"\n' "$1" >m.vmwarevm/m.vmx; }
vmx sys.vmdk
t 'a VMware folder' taken m.vmwarevm 1 disk.raw
t 'its machine' says 'name: fusion' "$img" info m.vmwarevm
t 'its .vmx file' taken m.vmwarevm/m.vmx 1 disk.raw
vmx ../disk1.vmdk
t 'a disk outside of it' fails 'outside the package' "$img" import -O raw -o x.raw m.vmwarevm
snapshot() { # its state is a file on the snapshot's
	qemu-img create -q -f vmdk -b sys.vmdk -F vmdk m.vmwarevm/sys-000001.vmdk && qemu-io -f vmdk -c 'write -P 7 1M 64k' m.vmwarevm/sys-000001.vmdk >/dev/null &&
		cp disk.raw now.raw && qemu-io -f raw -c 'write -P 7 1M 64k' now.raw >/dev/null && vmx sys-000001.vmdk &&
		printf 'snapshot.numSnapshots = "1"\nsnapshot0.displayName = "before"\nsnapshot0.disk0.fileName = "sys.vmdk"\n' >m.vmwarevm/m.vmsd &&
		taken m.vmwarevm 1 now.raw && "$img" convert -O raw m.vmwarevm/sys.vmdk old.raw && "$img" compare -q old.raw disk.raw
}
t 'a VMware folder with a snapshot' snapshot
mkdir -p p.pvm/h.hdd && qemu-img convert -O parallels disk.raw p.pvm/h.hdd/h.hds
printf '<?xml version="1.0"?>\n<ParallelsVirtualMachine><Identification><VmName>mac</VmName></Identification><Hardware><Memory><RAM>768</RAM></Memory><Cpu><Number>2</Number></Cpu><Hdd><Enabled>1</Enabled><SystemName>h.hdd</SystemName><InterfaceType>2</InterfaceType></Hdd></Hardware></ParallelsVirtualMachine>\n' >p.pvm/config.pvs
rm -r p.pvm/h.hdd && $bundle p.pvm/h.hdd 23439 part=0:23439 file=T:Compressed:h.hds shot=T:0
qemu-img convert -O parallels disk.raw p.pvm/h.hdd/h.hds
t 'a Parallels folder' sh -c "$img convert p.pvm x.raw && $img compare -q x.raw disk.raw"
t 'its machine' says 'bus: sata' "$img" info p.pvm
pvm_snapshot() {
	cp -r p.pvm s.pvm && $bundle s.pvm/h.hdd 23439 part=0:23439 file=a:Compressed:h.hds file=T:Compressed:top.hds shot=a:0 shot=T:a &&
		qemu-img create -q -f parallels -o cluster_size=64k s.pvm/h.hdd/top.hds 12000768 && "$imgio" -n s.pvm/h.hdd/top.hds write 1M 64k 7 &&
		"$img" convert s.pvm x.raw && "$img" compare -q x.raw now.raw
}
imgio=$O/tests/progs/imgio
t 'a Parallels folder with a snapshot' pvm_snapshot
t 'a bundle alone is an image' fails 'is not a package' "$img" import p.pvm/h.hdd
mv p.pvm/h.hdd other.hdd && ln -s ../other.hdd p.pvm/h.hdd
t 'a disk elsewhere' fails 'leads out of it' "$img" info p.pvm
t 'the kinds are listed' sh -c "$img formats --json | grep -q '\"name\": \"xva\"'"
t 'what is no package' fails 'is not a package' "$img" import disk.raw
done_testing

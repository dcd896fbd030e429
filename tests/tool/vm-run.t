#!/bin/sh
# vm-run.t - the command line, and bad input: one clear line and the right status. TAP.
. "$(dirname "$0")/../lib.sh"
run="$VM_RUN --engine emulator"
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)

t '--help goes to stdout' sh -c "[ -n \"\$($VM_RUN --help 2>/dev/null)\" ]"
t '--help is status 0' exits 0 "$VM_RUN" --help
t '--help shows examples' says 'Examples:' "$VM_RUN" --help
t '--version' says 'vm-run 0' "$VM_RUN" --version
t 'no guest is a usage error' exits 2 "$VM_RUN"
t 'an unknown option is a usage error' exits 2 "$VM_RUN" --frobnicate
t 'and names it' says '--frobnicate' "$VM_RUN" --frobnicate
t 'two guests are a usage error' exits 2 "$VM_RUN" a b
t 'a bad engine is a usage error' exits 2 "$VM_RUN" --engine fast "$kernel"
t 'a bad size is a usage error' exits 2 "$VM_RUN" -m lots "$kernel"
t 'a bad number of processors is a usage error' exits 2 "$VM_RUN" -c 0 "$kernel"
t 'too many processors' exits 2 "$VM_RUN" -c 1000 "$kernel"

t 'a missing guest' fails "cannot open '$TMP/nowhere': No such file or directory" $run "$TMP/nowhere"
t 'a folder as guest' fails "$TMP" $run "$TMP"
: >"$TMP/empty"
t 'an empty guest' fails "$TMP/empty" $run "$TMP/empty"
head -c 100000 /dev/urandom >"$TMP/noise"
t 'noise as guest' fails "$TMP/noise" $run "$TMP/noise"
head -c 3000000 "$kernel" >"$TMP/cut"
t 'a truncated bzImage' fails "cut" $run "$TMP/cut"
truncate -s 600M "$TMP/huge"
t 'an initrd larger than memory' fails "$TMP/huge" $run -m 512M -i "$TMP/huge" "$kernel"
t 'more memory than there can be' fails 'memory' $run -m 900G "$kernel"
t 'too little memory' fails 'memory' $run -m 16M "$kernel"

if command -v qemu-img >/dev/null; then
	truncate -s 3M "$TMP/disk.raw"
	for f in qcow2 vdi vpc vhdx; do
		qemu-img convert -f raw -O $f "$TMP/disk.raw" "$TMP/disk.$f"
		mkdir "$TMP/acpi.$f"
		t "a $f disk is opened" $run -d "$TMP/disk.$f" --dump-acpi "$TMP/acpi.$f" "$kernel"
	done
	mkdir "$TMP/in" "$TMP/acpi.ext"
	(cd "$TMP/in" && qemu-img create -q -f qcow2 -b ../disk.qcow2 -F qcow2 over.qcow2)
	t 'a backing file elsewhere is not opened' fails 'allow-external' $run -d "$TMP/in/over.qcow2" "$kernel"
	t 'but with allow-external' $run -d "$TMP/in/over.qcow2,allow-external=$TMP" --dump-acpi "$TMP/acpi.ext" "$kernel"
fi
# What holds one disk is opened as vm-img opens it, to read or with a snapshot.
make="python3 $(cd "$(dirname "$0")" && pwd)/packages.py"
head -c 3M /dev/urandom >"$TMP/pack.raw"
$make xva "$TMP/one.xva" "$TMP/pack.raw"
$make vma "$TMP/one.vma" "$TMP/pack.raw"
$make vma "$TMP/two.vma" "$TMP/pack.raw" "$TMP/pack.raw"
gzip -k "$TMP/pack.raw"
gzip -c "$TMP/one.vma" >"$TMP/one.vma.gz"
for f in one.xva one.vma pack.raw.gz one.vma.gz; do
	for how in ro snapshot; do
		mkdir "$TMP/acpi.$f.$how"
		t "$f is opened with $how" $run -d "$TMP/$f,$how" --dump-acpi "$TMP/acpi.$f.$how" "$kernel"
	done
done
t 'a package of two disks is refused' fails 'package with 2 disks' $run -d "$TMP/two.vma,snapshot" "$kernel"
t 'a missing disk' fails "cannot open '$TMP/nodisk'" $run -d "$TMP/nodisk" "$kernel"
t 'an unknown disk option' fails "'fast'" $run -d "$TMP/noise,fast" "$kernel"
t 'an unknown format' fails "'vhdy'" $run -d "$TMP/noise,format=vhdy" "$kernel"
t 'a bad forwarding' fails "'tcp:x:22'" $run -f tcp:x:22 "$kernel"
t 'a bad network' fails "'--net wifi'" $run -n wifi "$kernel"
t 'a bad serial line' fails "'--serial tape'" $run --serial tape "$kernel"
t 'stdio twice' fails 'only one serial line can be stdio' $run --serial stdio --serial stdio "$kernel"
if command -v qemu-img >/dev/null; then
	(cd "$TMP" && qemu-img create -q -f qcow2 a.qcow2 1M && qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 &&
		qemu-img rebase -u -b b.qcow2 -F qcow2 a.qcow2)
	t 'a loop of backing files' fails 'a.qcow2' $run -d "$TMP/b.qcow2" "$kernel"
fi
printf 'not a machine' >"$TMP/notsaved"
t 'a file that is no saved machine' fails "$TMP/notsaved" $run --restore "$TMP/notsaved"
t 'nothing is left of a failed save' sh -c "$run --save '$TMP/s' '$TMP/nowhere' 2>/dev/null; ! ls '$TMP'/s*"
t 'a full disk is not success' sh -c "$VM_RUN --help >/dev/full; [ \$? = 1 ]"
done_testing

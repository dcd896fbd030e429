#!/bin/sh
# img-old.t - formats that are read: qcow version 1 of qemu-img; Bochs' redologs and cloop from
# old-images.py, which qemu-img reads, too. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/old-images.py"
cd "$TMP" || exit 1
truncate -s 12000768 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
same() { timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"; }
damaged() { fails "$1" timeout 10 sh -c "$imgio -r bad cat >cat.raw"; }
poke() { # poke FROM OFFSET BYTES
	cp "$1" bad && printf "$3" | dd of=bad bs=1 seek="$2" conv=notrunc status=none
}

# ---- qcow ----
t 'qcow' sh -c "qemu-img convert -O qcow disk.raw x.qcow && $imgio -r x.qcow cat | cmp - disk.raw && $img check -q x.qcow"
qcow_packed() { qemu-img convert -c -O qcow disk.raw c.qcow; same c.qcow disk.raw && "$img" check -q c.qcow; }
t 'qcow, compressed' qcow_packed
t 'qcow is recognized' says 'format qcow' "$imgio" -r x.qcow info
qcow_child() {
	cp disk.raw base.raw && qemu-img create -q -f qcow -b base.raw -F raw k.qcow 2>/dev/null && qemu-io -f qcow -c 'write -P 5 3M 1M' k.qcow >/dev/null &&
		qemu-img convert -f qcow -O raw k.qcow want.raw && same k.qcow want.raw
}
t 'qcow in front of a raw disk' qcow_child
poke x.qcow 36 '\000\000\000\001'
t 'AES needs a passphrase' damaged 'its passphrase is needed'
poke x.qcow 36 '\000\000\000\002'
t 'another encryption is refused' damaged 'encrypted by method 2'
poke x.qcow 32 '\077'
t 'clusters of 2^63 bytes' damaged 'clusters of 2^63'
poke x.qcow 33 '\077'
t 'tables of 2^63 entries' damaged 'tables of 2^63'
poke x.qcow 24 '\177\377\377'
t 'a disk of 2^63 bytes' damaged 'too large'
poke x.qcow 40 '\000\000\377\377'
t 'a table behind the end' damaged 'its table is at'

# ---- Bochs ----
bochs() { $make bochs b.img disk.raw "$@" && same b.img disk.raw && qemu-img compare -q -f bochs -F raw b.img disk.raw; }
t 'a growing redolog' bochs
t 'of version 1' bochs version=0x10000
t 'is recognized' says 'format bochs' "$imgio" -r b.img info
undo() {
	cp disk.raw want.raw && head -c 100000 /dev/urandom >new && dd if=new of=want.raw bs=512 seek=3000 conv=notrunc,sync status=none && cp disk.raw base.img &&
		$make bochs base.img.redolog want.raw base=base.img subtype=Undoable && same base.img.redolog want.raw
}
t 'an undoable redolog in front of its disk' undo
volatile() { $make bochs base.img.redolog_x want.raw base=base.img subtype=Volatile && same base.img.redolog_x want.raw; }
t 'a volatile one' volatile
t 'one whose name does not tell its disk' sh -c "cp base.img.redolog lone && ! $imgio -r lone info 2>err && grep -q 'DISK.redolog' err"
badb() { m=$1; shift; $make bochs bad disk.raw "$@" && damaged "$m"; }
t 'extents of 0 bytes' badb 'extents of 0 bytes' extent=0
t 'extents of 2^31 bytes' badb 'extents of 2147483648' extent=2147483648
t 'bitmaps that are too short' badb 'bitmaps of 1 bytes' bitmap=1
t 'a catalog of 2^32 - 1 extents' badb 'is damaged' n=4294967295
t 'a catalog behind the end' badb 'a catalog of 8000000' n=8000000
t 'an extent behind the end' badb 'Input/output error' entry0=4000000
t 'a disk larger than its extents' badb 'is damaged' size=99999999999

# ---- cloop ----
t 'cloop' sh -c "$make cloop x.cloop disk.raw && $imgio -r x.cloop cat >got.raw && cmp -n 12000768 got.raw disk.raw"
t 'cloop is read by qemu-img alike' qemu-img compare -q -f cloop -F raw x.cloop got.raw
t 'cloop is recognized' says 'format cloop' "$imgio" -r x.cloop info
badc() { m=$1; shift; $make cloop bad disk.raw "$@" && damaged "$m"; }
t 'blocks of 0 bytes' badc 'blocks of 0 bytes' block=0
t 'blocks of 2^31 bytes' badc 'blocks of 2147483648 bytes' block=2147483648
t 'an index of 2^32 - 1 blocks' badc 'an index of' n=4294967295
t 'an index that goes back' badc 'Input/output error' index1=5
t 'a block behind the end' badc 'Input/output error' index2=99999999999
t 'a block that unpacks to more' badc 'Input/output error' block=512
done_testing

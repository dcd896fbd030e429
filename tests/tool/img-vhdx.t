#!/bin/sh
# img-vhdx.t - VHDX images: those of qemu-img read and changed here, those made here read by qemu-img; the
# differencing ones, logs and damaged ones come from vhd-images.py. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/vhd-images.py"
cd "$TMP" || exit 1
SEED=${SEED:-1}
truncate -s 12000768 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none

same() { # same IMAGE RAW
	timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"
}
sound() { # sound IMAGE MODEL
	qemu-img check -q -f vhdx "$1" && qemu-img compare -f vhdx -F raw "$1" "$2"
}
random() { # random IMAGE MODEL: one thread in large pieces, then several whose pieces share blocks
	timeout 100 "$imgio" -n "$1" random "$SEED" 300 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 400 4 4096 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 2))" 100 3 131072 "$2"
}
by_qemu() { # by_qemu OPTIONS
	rm -f x.vhdx
	cp disk.raw model.raw
	qemu-img convert -f raw -O vhdx -o "$1" disk.raw x.vhdx && same x.vhdx disk.raw &&
		random x.vhdx model.raw && sound x.vhdx model.raw && same x.vhdx model.raw
}
t 'dynamic, of qemu-img' by_qemu subformat=dynamic
t 'fixed, of qemu-img' by_qemu subformat=fixed
t 'blocks of 1 MiB, a large log' by_qemu block_size=1M,log_size=4M
t 'blocks without a state' by_qemu block_state_zero=off
t 'is recognized' says 'format vhdx' "$imgio" -r x.vhdx info
ours() { # ours SIZE OPTIONS
	rm -f x.vhdx model.raw
	truncate -s "$1" model.raw && "$img" create -q -f vhdx ${2:+-o "$2"} x.vhdx "$1" && sound x.vhdx model.raw &&
		random x.vhdx model.raw && sound x.vhdx model.raw
}
t 'made here' ours 20M
t 'made here, of a size that is no whole number of blocks' ours 5000192
t 'made here, fixed' ours 20M subformat=fixed
t 'made here, blocks of 1 MiB' ours 20M block_size=1M
t 'made here, the largest blocks and log' ours 20M block_size=256M,log_size=64M
t 'made here, empty' sh -c "$img create -q -f vhdx e.vhdx 0 && $imgio -r e.vhdx cat | cmp - /dev/null"
sectors() {
	rm -f x.vhdx model.raw
	truncate -s 20M model.raw && "$img" create -q -f vhdx -o logical_sector_size=4096 x.vhdx 20M &&
		random x.vhdx model.raw && same x.vhdx model.raw
}
t 'made here, sectors of 4 KiB' sectors
t 'a large one: several chunks' sh -c "$img create -q -f vhdx -o block_size=1M l.vhdx 20T &&
	$imgio l.vhdx write 9000G 1M 7 && qemu-io -f vhdx -r -c 'read -P 7 9000G 1M' l.vhdx | grep -q 'read 1048576' &&
	qemu-img check -q l.vhdx"
mixed() { # both sides write by turns
	rm -f x.vhdx model.raw
	truncate -s 9M model.raw && "$img" create -q -f vhdx -o block_size=1M x.vhdx 9M || return 1
	for i in 1 2 3 4; do
		qemu-io -f vhdx -c "write -P $i ${i}M 700k" x.vhdx >/dev/null &&
			qemu-io -f raw -c "write -P $i ${i}M 700k" model.raw >/dev/null &&
			"$imgio" -n x.vhdx random $i 40 2 65536 model.raw && sound x.vhdx model.raw || return 1
	done
}
t 'written here and by qemu by turns' mixed
holes() {
	qemu-img convert -O vhdx disk.raw x.vhdx && before=$(stat -c %b x.vhdx) &&
		"$imgio" x.vhdx discard 0 12000768 && after=$(stat -c %b x.vhdx) && [ $((before - after)) -gt 2000 ]
}
t 'discarding gives space back' holes

# ---- the log ----
crashed() { # stops without closing: what was flushed is in the log, qemu-img replays it
	rm -f x.vhdx
	cp disk.raw model.raw && truncate -s 20M model.raw && "$img" create -q -f vhdx -o block_size=1M x.vhdx 20M &&
		qemu-img convert -n -O vhdx disk.raw x.vhdx &&
		"$imgio" -n x.vhdx random "$SEED" 400 2 40000 model.raw crash && cp x.vhdx y.vhdx || return 1
	qemu-img check -q -r all x.vhdx && timeout 60 "$imgio" -r y.vhdx cat >got.raw
}
t 'an image that was not closed' crashed
logs() { # logs OPTIONS...
	$make vhdx g.vhdx data=disk.raw log=5 "$@" && cp g.vhdx before.vhdx && same g.vhdx disk.raw &&
		cmp g.vhdx before.vhdx
}
t 'a log is replayed in memory when the image is read' logs
t 'one that goes round its end, too' logs ring=1
replayed() {
	cp disk.raw model.raw && timeout 60 "$imgio" -n g.vhdx random 1 300 3 50000 model.raw && sound g.vhdx model.raw
}
t 'and in the file when it is written' replayed
t 'as qemu-img replays it' sh -c "$make vhdx g.vhdx data=disk.raw log=5 && qemu-img check -q -r all g.vhdx &&
	qemu-img compare -f vhdx -F raw g.vhdx disk.raw && $imgio -r g.vhdx cat | cmp - disk.raw"
t 'a log of another image is not' sh -c "$make vhdx g.vhdx data=disk.raw && $imgio -r g.vhdx cat | cmp - disk.raw"

# ---- headers ----
heads() { # heads OPTIONS...
	$make vhdx h.vhdx data=disk.raw "$@" && same h.vhdx disk.raw
}
t 'the first header is damaged' heads header1=bad
t 'the second header is damaged' heads header2=bad
t 'the first table of regions is damaged' heads regions1=bad
t 'the second table of regions is damaged' heads regions2=bad
t 'an unknown region that is not required' heads region=0
t 'an unknown item that is not required' heads item=0
large_sectors() {
	head -c 11997184 disk.raw >disk.4k
	$make vhdx h.vhdx data=disk.4k sector=4096 && same h.vhdx disk.4k
}
t 'sectors of 4 KiB' large_sectors
t 'blocks of 2 MiB' heads block=2097152

# ---- parents ----
child() { # child OPTIONS...: sectors 3 and 9000 are its own, block 5 is zeros
	$make vhdx base.vhdx data=disk.raw id=11 && $make vhdx child.vhdx size=12000768 id=22 parent=11 \
		sector3=x sector9000=yz block5=zero "$@" || return 1
	cp disk.raw model.raw
	head -c 512 /dev/zero | tr '\0' x | dd of=model.raw bs=512 seek=3 conv=notrunc status=none
	yes yz | tr -d '\n' | head -c 512 | dd of=model.raw bs=512 seek=9000 conv=notrunc status=none
	dd if=/dev/zero of=model.raw bs=1M seek=5 count=1 conv=notrunc status=none
	same child.vhdx model.raw
}
t 'a differencing image, by a relative name' child relative_path='.\base.vhdx'
t 'by an absolute Windows path' child absolute_win32_path='C:\VMs\base.vhdx'
t 'by a volume path' child volume_path='\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\base.vhdx'
before=$(cksum <base.vhdx)
t 'a differencing image is written' sh -c "timeout 100 $imgio -n child.vhdx random 1 400 3 50000 model.raw &&
	$imgio -r child.vhdx cat | cmp - model.raw && timeout 100 $imgio -n child.vhdx random 2 100 1 3000000 model.raw &&
	$imgio -r child.vhdx cat | cmp - model.raw"
t 'its parent is not' [ "$before" = "$(cksum <base.vhdx)" ]
fresh() { # one that has nothing of its own yet
	$make vhdx child.vhdx size=12000768 id=22 parent=11 relative_path=base.vhdx && cp disk.raw model.raw &&
		same child.vhdx disk.raw && timeout 100 "$imgio" -n child.vhdx random 3 400 3 9000 model.raw &&
		same child.vhdx model.raw
}
t 'the first writes to a differencing image' fresh
t 'a parent that was changed is noticed' sh -c "$imgio base.vhdx write 0 512 1
	! $imgio -r child.vhdx cat 2>err >/dev/null && grep 'was changed' err"
rm base.vhdx
t 'a missing parent is named' fails 'base.vhdx' "$imgio" -r child.vhdx cat
$make vhdx one.vhdx size=1048576 id=11 parent=12 relative_path=two.vhdx
$make vhdx two.vhdx size=1048576 id=12 parent=11 relative_path=one.vhdx
t 'a ring of parents' fails 'is a loop' timeout 10 "$imgio" -r one.vhdx cat
$make vhdx self.vhdx size=1048576 id=11 parent=11 relative_path=self.vhdx
t 'its own parent' fails 'is a loop' timeout 10 "$imgio" -r self.vhdx cat
$make vhdx none.vhdx size=1048576 id=11 parent=12
t 'no name of the parent' fails 'does not name its parent' "$imgio" -r none.vhdx cat

# ---- damage ----
bad() { # bad MESSAGE OPTIONS...
	message=$1
	shift
	$make vhdx bad.vhdx data=disk.raw "$@" && fails "$message" timeout 10 sh -c "$imgio ${FLAGS--r} bad.vhdx cat >cat.raw"
}
t 'blocks of 0 bytes' bad 'blocks of 0 bytes' raw_block=0
t 'blocks of 2^31 bytes' bad 'blocks of 2147483648 bytes' raw_block=2147483648
t 'blocks of 3 MiB' bad 'a power of two' raw_block=3145728
t 'sectors of 1000 bytes' bad 'sectors of 1000 bytes' raw_sector=1000
t 'a disk of 2^63 bytes' bad 'at most 64 TiB' raw_size=9223372036854775808
t 'a disk larger than its table' bad 'entries' raw_size=9000000000000
t 'a table larger than the file' bad 'a region of' raw_bat_len=4293918720
t 'regions over each other' bad 'a region of' raw_meta=3145728
t 'a log of 0 bytes' bad 'a log of 0 bytes' log_len=0
t 'a log of 4 GiB' bad 'a log of 4293918720 bytes' log_len=4293918720
t 'version 2' bad 'version 2' version=2
t 'both headers damaged' bad 'both headers' header1=bad header2=bad
t 'both tables of regions damaged' bad 'both tables' regions1=bad regions2=bad
t 'an unknown region that is required' bad 'needs region {66666666' region=1
t 'an unknown item that is required' bad 'needs metadata item {77777777' item=4
t 'a file cut after its log was written' bad 'is cut' log=5 flushed=999999999999
t 'an entry with an unknown state' bad 'Input/output error' entry2=5
t 'a block behind the end' bad 'Input/output error' entry2=0x7700000006
t 'a block at 0' bad 'Input/output error' entry2=6
t 'a partial block without a parent' bad 'Input/output error' entry2=0x400007
FLAGS=
t 'a block behind the end is not written' bad 'repair it first' entry2=0x7700000006
t 'overlapping blocks are not written' bad 'overlaps' entry2=0x400006
t 'a block over the log is not written' bad 'overlaps' entry2=0x100006
t 'making a too large one' fails '64 TiB' "$img" create -q -f vhdx y.vhdx 100T
t 'making one with blocks of 3 bytes' fails 'a power of two' "$img" create -q -f vhdx -o block_size=3 y.vhdx 1M

# ---- checking, repairing, other sizes ----
resized() { # resized SIZE OPTIONS
	rm -f r.vhdx
	qemu-img convert -O vhdx -o "$2" disk.raw r.vhdx && cp disk.raw model.raw &&
		truncate -s "$1" model.raw && "$img" resize --shrink r.vhdx "$1" && "$img" check r.vhdx && sound r.vhdx model.raw &&
		timeout 60 "$imgio" -n r.vhdx random 1 200 2 70000 model.raw && sound r.vhdx model.raw && "$img" check r.vhdx
}
t 'grows' resized 30M block_size=1M
t 'grows within a block' resized 12002304 block_size=8M
t 'grows, fixed' resized 30M subformat=fixed
t 'shrinks' resized 5M block_size=1M
t 'shrinks within a block' resized 11900416 block_size=8M
t 'shrinks, fixed' resized 5M subformat=fixed
t 'grows, and its table has to move' sh -c "qemu-img convert -O vhdx -o block_size=1M disk.raw r.vhdx &&
	$img resize r.vhdx 1T && $img check r.vhdx && qemu-img check -q r.vhdx && $imgio r.vhdx write 900G 1M 7 &&
	qemu-img check -q r.vhdx && $img resize --shrink r.vhdx 12000768 && $img check r.vhdx &&
	qemu-img compare -f vhdx -F raw r.vhdx disk.raw"
tail_zero() { # what was behind the end does not come back
	rm -f r.vhdx
	"$img" create -q -f vhdx r.vhdx 2M && "$imgio" r.vhdx write 0 2M 9 && "$img" resize --shrink r.vhdx 1M &&
		"$img" resize r.vhdx 2M && "$imgio" -r r.vhdx cat | tail -c 1M | cmp -n 1048576 - /dev/zero
}
t 'what was cut off does not come back' tail_zero
repaired() { # repaired OPTIONS...
	$make vhdx bad.vhdx data=disk.raw "$@" && exits 3 "$img" check -q bad.vhdx && "$img" repair bad.vhdx &&
		"$img" check bad.vhdx && "$imgio" bad.vhdx write 5M 2M 7 && "$img" check bad.vhdx && qemu-img check -q bad.vhdx
}
t 'two blocks at one place are parted' repaired entry1=0x400006
t 'overlapping blocks are parted' repaired block=2097152 entry2=0x500006
t 'a block behind the end is let go' repaired entry1=0x7700000006
t 'a block over the log is let go' repaired entry1=0x100006
t 'an unknown state' repaired entry2=5
t 'a part of a block without a parent becomes one' repaired entry0=0x400007
t 'a damaged header' repaired header1=bad
t 'a damaged table of regions' repaired regions2=bad
t 'room that nobody has is given back' repaired entry1=0
t 'all at once' repaired entry0=0 entry1=0x500006 entry2=5 entry3=0x300006 header2=bad regions1=bad
t 'a sound image is' "$img" check x.vhdx
t 'a log is told about' sh -c "$make vhdx g.vhdx data=disk.raw log=5 && $img check g.vhdx | grep 'log has 2 entries'"
orphan() { # a differencing image whose bitmap is lost
	$make vhdx bad.vhdx size=3000320 parent=11 relative_path=x.vhdx sector3=x entry4096=0 && exits 3 "$img" check -q bad.vhdx &&
		"$img" repair bad.vhdx && "$img" check bad.vhdx
}
t 'parts of blocks without a bitmap' orphan

# ---- in front of a parent, made here ----
made_child() {
	rm -f parent.vhdx kid.vhdx
	cp disk.raw model.raw
	"$img" convert -q -O vhdx disk.raw parent.vhdx && "$img" create -q -f vhdx -b parent.vhdx -F vhdx kid.vhdx &&
		same kid.vhdx disk.raw && timeout 100 "$imgio" -n kid.vhdx random 1 400 3 30000 model.raw &&
		same kid.vhdx model.raw && timeout 100 "$imgio" -n kid.vhdx random 2 100 1 3000000 model.raw &&
		same kid.vhdx model.raw && same parent.vhdx disk.raw
}
t 'an image in front of a parent is made and written' made_child
t 'it keeps its size' fails 'has its parent' "$img" resize kid.vhdx 30M
t 'a parent of another format is refused' fails 'is of format raw' "$img" create -q -f vhdx -b disk.raw -F raw z.vhdx
measured() { # measured [OPTIONS]: as large as the image will be
	"$img" convert -q -O vhdx ${1:+-o "$1"} disk.raw m.img && says "required size: $(stat -c %s m.img)" \
		"$img" measure -O vhdx ${1:+-o "$1"} disk.raw
}
t 'the size is known before' measured
t 'the size is known before, all allocated' measured subformat=fixed
full() { # the file cannot grow: an error, and no damage
	rm -f full.img
	"$img" create -q -f vhdx -o block_size=1M full.img 50M || return 1
	sh -c "ulimit -f 24000; trap '' XFSZ; $imgio full.img write 0 40M 1" && return 1
	"$img" check full.img && "$imgio" full.img write 0 30M 2 && "$img" check full.img
}
t 'a full disk is an error' full
done_testing

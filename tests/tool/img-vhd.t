#!/bin/sh
# img-vhd.t - VHD images: those of qemu-img read and changed here, those made here read by qemu-img; the
# differencing ones, other creators' and damaged ones come from vhd-images.py. TAP.
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
	qemu-img compare -f vpc -F raw "$1" "$2"
}
random() { # random IMAGE MODEL: one thread in large pieces, then several whose pieces share blocks
	timeout 100 "$imgio" -n "$1" random "$SEED" 300 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 400 4 4096 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 2))" 100 3 131072 "$2"
}
by_qemu() { # by_qemu OPTIONS
	rm -f x.vhd
	qemu-img convert -f raw -O vpc -o "$1" disk.raw x.vhd && qemu-img convert -f vpc -O raw x.vhd model.raw &&
		same x.vhd model.raw && random x.vhd model.raw && sound x.vhd model.raw && same x.vhd model.raw
}
t 'dynamic, of qemu-img' by_qemu subformat=dynamic
t 'dynamic, its exact size' by_qemu subformat=dynamic,force_size=on
t 'which is that of the source' says 'size 12000768' "$imgio" -r x.vhd info
t 'fixed, of qemu-img' by_qemu subformat=fixed
t 'fixed, its exact size' by_qemu subformat=fixed,force_size=on
t 'a fixed one is recognized, which qemu-img takes for raw' says 'format vpc' "$imgio" -r x.vhd info
t 'its size is without the footer' says 'size 12000768' "$imgio" -r x.vhd info
ours() { # ours SIZE OPTIONS...
	rm -f x.vhd model.raw
	truncate -s "$1" model.raw && "$imgio" create x.vhd vhd "$@" && sound x.vhd model.raw &&
		random x.vhd model.raw && sound x.vhd model.raw
}
t 'made here' ours 20M
t 'made here, of a size that no geometry has' ours 5000192
t 'made here, small blocks' ours 20M cluster=4096
t 'made here, large blocks' ours 20M cluster=8388608
mixed() { # both sides write by turns
	rm -f x.vhd model.raw
	truncate -s 9M model.raw && "$imgio" create x.vhd vpc 9M || return 1
	for i in 1 2 3 4; do
		qemu-io -f vpc -c "write -P $i ${i}M 700k" x.vhd >/dev/null &&
			qemu-io -f raw -c "write -P $i ${i}M 700k" model.raw >/dev/null &&
			"$imgio" -n x.vhd random $i 40 2 65536 model.raw && sound x.vhd model.raw || return 1
	done
}
t 'written here and by qemu by turns' mixed
t 'the footer is at the end, and at the start' sh -c 'tail -c 512 x.vhd >a && head -c 512 x.vhd >b && cmp a b'
holes() {
	qemu-img convert -O vpc disk.raw x.vhd && before=$(stat -c %b x.vhd) &&
		"$imgio" x.vhd discard 0 10M && after=$(stat -c %b x.vhd) && [ $((before - after)) -gt 2000 ]
}
t 'discarding gives space back' holes

# ---- sizes ----
sized() { # sized CREATOR WANT: 5000192 bytes in the size field, 9 * 16 * 63 sectors in the geometry
	$make vhd s.vhd data=disk.raw size=5000192 chs=9,16,63 creator="$1" && says "size $2" "$imgio" -r s.vhd info
}
t 'Virtual PC: the geometry' sized 'vpc ' 4644864
t 'Virtual Server: the geometry' sized 'vs  ' 4644864
t 'QEMU: the geometry' sized qemu 4644864
for c in 'win ' 'd2v ' vbox tap CTXS qem2 wa; do
	t "creator '$c': the size field" sized "$c" 5000192
done
t 'a geometry that is the largest says nothing' sh -c "$make vhd s.vhd data=disk.raw size=5000192 \
	chs=65535,16,255 creator='vpc ' && $imgio -r s.vhd info | grep 'size 5000192'"

# ---- footers ----
footers() { # footers OPTIONS...
	$make vhd f.vhd data=disk.raw "$@" && same f.vhd disk.raw
}
t 'a footer of 511 bytes, fixed' footers type=fixed footer=511
t 'a footer of 511 bytes, dynamic' footers footer=511
t 'no footer at the end' footers footer=none
t 'a damaged footer' footers footer=damaged
healed() {
	"$imgio" f.vhd write 0 512 1 && tail -c 512 f.vhd | cmp - f.vhd -n 512
}
t 'is there again after a write' healed
t 'what the bits say is not there is zeros' footers junk=1
t 'and is written over' sh -c "cp disk.raw model.raw && timeout 60 $imgio -n f.vhd random 1 300 3 50000 model.raw"

# ---- parents ----
mkdir sub
child() { # child OPTIONS...: sectors 3 and 9000 are its own
	$make vhd base.vhd data=disk.raw id=11 && $make vhd child.vhd type=diff size=12000768 id=22 parent=11 \
		sector3=x sector9000=yz "$@" || return 1
	cp disk.raw model.raw
	head -c 512 /dev/zero | tr '\0' x | dd of=model.raw bs=512 seek=3 conv=notrunc status=none
	yes yz | tr -d '\n' | head -c 512 | dd of=model.raw bs=512 seek=9000 conv=notrunc status=none
	same child.vhd model.raw
}
t 'a differencing image, by a relative name' child W2ru='.\base.vhd'
t 'by an absolute Windows path' child W2ku='C:\VMs\base.vhd'
t 'by a URL' child MacX='file://./base.vhd'
t 'by its name alone' child name=base.vhd
t 'a name that leads outside is looked for in the folder' child W2ru='..\..\base.vhd' W2ku='D:\x\y\base.vhd'
before=$(cksum <base.vhd)
t 'a differencing image is written' sh -c "timeout 100 $imgio -n child.vhd random 1 400 3 50000 model.raw &&
	$imgio -r child.vhd cat | cmp - model.raw && timeout 100 $imgio -n child.vhd random 2 100 1 3000000 model.raw &&
	$imgio -r child.vhd cat | cmp - model.raw"
t 'its parent is not' [ "$before" = "$(cksum <base.vhd)" ]
chained() {
	$make vhd top.vhd type=diff size=12000768 id=33 parent=22 W2ru=child.vhd sector3=q &&
		head -c 512 /dev/zero | tr '\0' q | dd of=model.raw bs=512 seek=3 conv=notrunc status=none &&
		same top.vhd model.raw
}
t 'a chain of three' chained
t 'the wrong parent is noticed' sh -c "$make vhd base.vhd data=disk.raw id=12
	! $imgio -r child.vhd cat 2>err >/dev/null && grep 'is not the parent' err"
rm base.vhd
t 'a missing parent is named' fails 'base.vhd' "$imgio" -r child.vhd cat
$make vhd self.vhd type=diff size=1048576 id=11 parent=11 name=self.vhd
t 'its own parent' fails 'its own parent' "$imgio" -r self.vhd cat
$make vhd one.vhd type=diff size=1048576 id=11 parent=12 name=two.vhd
$make vhd two.vhd type=diff size=1048576 id=12 parent=11 name=one.vhd
t 'a ring of parents' fails 'is a loop' timeout 10 "$imgio" -r one.vhd cat
$make vhd none.vhd type=diff size=1048576 id=11 parent=12
t 'no name of the parent' fails 'does not name its parent' "$imgio" -r none.vhd cat

# ---- damage ----
bad() { # bad MESSAGE OPTIONS...
	message=$1
	shift
	$make vhd bad.vhd data=disk.raw "$@" && fails "$message" timeout 10 sh -c "$imgio ${FLAGS--r} bad.vhd cat >cat.raw"
}
t 'blocks of 0 bytes' bad 'blocks of 0 bytes' raw_block=0
t 'blocks of 2^31 bytes' bad 'blocks of 2147483648 bytes' raw_block=2147483648
t 'a table of 2^32 - 1 blocks' bad 'a table of 4294967295 blocks' raw_blocks=4294967295
t 'a table behind the end' bad 'a table of 6 blocks' bat_off=1000000000
t 'a disk larger than its blocks' bad 'bytes in 6 blocks' raw_size=1000000000000
t 'a fixed disk larger than its file' bad 'before the footer' type=fixed raw_size=1000000000000
t 'an unknown type' bad 'of type 9' type=9
t 'a block behind the end' bad 'Input/output error' entry1=5000000
FLAGS=
t 'is not written' bad 'repair it first' entry1=5000000
t 'overlapping blocks are not written' bad 'overlap' entry1=20
t 'a block over the table is not written' bad 'over the tables' entry1=2
t 'making a too large one' fails 'use vhdx' "$imgio" create y.vhd vpc 3000G
t 'making one with blocks of 3 bytes' fails 'a power of two' "$imgio" create y.vhd vpc 1M cluster=3

# ---- checking, repairing, other sizes ----
resized() { # resized SIZE [OPTIONS]
	rm -f r.vhd
	qemu-img convert -O vpc -o "force_size=on${2:+,$2}" disk.raw r.vhd && cp disk.raw model.raw &&
		truncate -s "$1" model.raw && "$img" resize --shrink r.vhd "$1" && "$img" check r.vhd && sound r.vhd model.raw &&
		timeout 60 "$imgio" -n r.vhd random 1 200 2 70000 model.raw && sound r.vhd model.raw && "$img" check r.vhd
}
t 'grows' resized 30M
t 'grows, and its table has to move' resized 2000M
t 'grows, fixed' resized 30M subformat=fixed
t 'grows by a sector, fixed' resized 12001280 subformat=fixed
t 'grows within a block' resized 12002304
t 'shrinks' resized 5M
t 'shrinks within a block' resized 11900416
t 'shrinks, fixed' resized 5M subformat=fixed
t 'grows and shrinks' sh -c "$img resize r.vhd 3G && $img resize --shrink r.vhd 1M && $img check r.vhd &&
	truncate -s 1M z.raw && head -c 1M model.raw | cmp - z.raw -n 0 && $imgio -r r.vhd info | grep 'size 1048576'"
tail_zero() { # what was behind the end does not come back
	rm -f r.vhd
	"$img" create -q -f vpc r.vhd 2M && "$imgio" r.vhd write 0 2M 9 && "$img" resize --shrink r.vhd 1M &&
		"$img" resize r.vhd 2M && "$imgio" -r r.vhd cat | tail -c 1M | cmp -n 1048576 - /dev/zero
}
t 'what was cut off does not come back' tail_zero
t 'more than 2040 GiB' fails 'use vhdx' "$img" resize r.vhd 3000G
repaired() { # repaired OPTIONS...
	$make vhd bad.vhd data=disk.raw block=65536 "$@" && exits 3 "$img" check -q bad.vhd && "$img" repair bad.vhd &&
		"$img" check bad.vhd && "$imgio" bad.vhd write 5M 2M 7 && "$img" check bad.vhd &&
		qemu-img convert -f vpc -O raw bad.vhd w.raw
}
t 'two blocks at one place are parted' repaired entry4=5
t 'as qemu-img reads it' same bad.vhd w.raw
t 'overlapping blocks are parted' repaired entry3=30
t 'a block behind the end is let go' repaired entry3=7777777
t 'a block over the tables is let go' repaired entry3=3
t 'a missing footer' repaired footer=none
t 'a damaged footer' repaired footer=damaged
t 'room that nobody has is given back' repaired entry4=0xffffffff
t 'all at once' repaired entry3=30 entry4=0xffffffff entry5=2 entry9=88888888 footer=none
t 'a sound image is' "$img" check x.vhd

# ---- in front of a parent, made here ----
made_child() {
	rm -f parent.vhd kid.vhd
	cp disk.raw model.raw
	"$img" convert -q -O vpc disk.raw parent.vhd && "$img" create -q -f vpc -b parent.vhd -F vpc kid.vhd &&
		same kid.vhd disk.raw && timeout 100 "$imgio" -n kid.vhd random 1 400 3 30000 model.raw &&
		same kid.vhd model.raw && timeout 100 "$imgio" -n kid.vhd random 2 100 1 3000000 model.raw &&
		same kid.vhd model.raw && same parent.vhd disk.raw
}
t 'an image in front of a parent is made and written' made_child
t 'it keeps its size' fails 'has its parent' "$img" resize kid.vhd 30M
t 'a parent of another format is refused' fails 'is of format raw' "$img" create -q -f vpc -b disk.raw -F raw z.vhd
measured() { # measured SLACK [OPTIONS]: as large as the image will be, or that much larger
	"$img" convert -q -O vpc ${2:+-o "$2"} disk.raw m.img || return 1
	real=$(stat -c %s m.img)
	told=$("$img" measure -O vpc ${2:+-o "$2"} disk.raw | sed -n 's/^required size: //p')
	echo "$told told, $real made"
	[ "$told" -ge "$real" ] && [ "$told" -le $((real + $1)) ]
}
# The file system may tell a block of zeros as data: convert looks at it, measure does not.
t 'the size is known before' measured 4194304
t 'the size is known before, all allocated' measured 0 subformat=fixed
full() { # the file cannot grow: an error, and no damage
	rm -f full.img
	"$img" create -q -f vpc  full.img 50M || return 1
	sh -c "ulimit -f 24000; trap '' XFSZ; $imgio full.img write 0 40M 1" && return 1
	"$img" check full.img && "$imgio" full.img write 0 30M 2 && "$img" check full.img
}
t 'a full disk is an error' full
done_testing

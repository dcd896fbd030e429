#!/bin/sh
# img-vdi.t - VDI images: those of qemu-img read and changed here, those made here read by qemu-img; the
# differencing ones and old versions come from vhd-images.py. TAP.
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
	qemu-img check -q -f vdi "$1" && qemu-img compare -f vdi -F raw "$1" "$2"
}
random() { # random IMAGE MODEL: one thread in large pieces, then several whose pieces share blocks
	timeout 100 "$imgio" -n "$1" random "$SEED" 300 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 400 4 4096 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 2))" 100 3 131072 "$2"
}
by_qemu() { # by_qemu OPTIONS
	rm -f x.vdi
	cp disk.raw model.raw
	qemu-img convert -f raw -O vdi ${1:+-o "$1"} disk.raw x.vdi && same x.vdi disk.raw &&
		random x.vdi model.raw && sound x.vdi model.raw && same x.vdi model.raw
}
t 'dynamic, of qemu-img' by_qemu
t 'static, of qemu-img' by_qemu static=on
t 'is recognized' says 'format vdi' "$imgio" -r x.vdi info
ours() { # ours SIZE
	rm -f x.vdi model.raw
	truncate -s "$1" model.raw && "$imgio" create x.vdi vdi "$1" && sound x.vdi model.raw &&
		random x.vdi model.raw && sound x.vdi model.raw
}
t 'made here' ours 20M
t 'made here, of a size that is no whole number of blocks' ours 5000192
t 'made here, empty' sh -c "$imgio create e.vdi vdi 0 && $imgio -r e.vdi cat | cmp - /dev/null"
mixed() { # both sides write by turns
	rm -f x.vdi model.raw
	truncate -s 9M model.raw && "$imgio" create x.vdi vdi 9M || return 1
	for i in 1 2 3 4; do
		qemu-io -f vdi -c "write -P $i ${i}M 700k" x.vdi >/dev/null &&
			qemu-io -f raw -c "write -P $i ${i}M 700k" model.raw >/dev/null &&
			"$imgio" -n x.vdi random $i 40 2 65536 model.raw && sound x.vdi model.raw || return 1
	done
}
t 'written here and by qemu by turns' mixed
holes() {
	qemu-img convert -O vdi disk.raw x.vdi && before=$(stat -c %b x.vdi) &&
		"$imgio" x.vdi discard 0 12000768 && after=$(stat -c %b x.vdi) &&
		[ $((before - after)) -gt 2000 ] && qemu-img check -q x.vdi
}
t 'discarding gives space back' holes

# ---- by hand ----
t 'any signature text, 64 KiB blocks' sh -c "$make vdi a.vdi block=65536 text=anything data=disk.raw &&
	$imgio -r a.vdi cat | cmp - disk.raw"
t 'bytes before each block' sh -c "$make vdi a.vdi extra=512 data=disk.raw && $imgio -r a.vdi cat | cmp - disk.raw"
t 'version 1.0, a shorter header' sh -c "$make vdi a.vdi minor=0 data=disk.raw && $imgio -r a.vdi cat | cmp - disk.raw"
t 'version 0' sh -c "$make vdi a.vdi version=0 data=disk.raw && $imgio -r a.vdi cat | cmp - disk.raw"
t 'version 0 is not written' fails 'old VDI image' "$imgio" a.vdi write 0 512 1
cp disk.raw model.raw
diff() { # a differencing image: a block of its own, one of zeros, the rest the parent's
	$make vdi base.vdi data=disk.raw create=11 modify=22 &&
		$make vdi child.vdi type=4 size=12000768 create=33 parent=11 pmodify=22 block1=x block3=zero || return 1
	head -c 1048576 /dev/zero | tr '\0' x | dd of=model.raw bs=1M seek=1 conv=notrunc status=none
	dd if=/dev/zero of=model.raw bs=1M seek=3 count=1 conv=notrunc status=none
	same child.vdi model.raw
}
t 'a differencing image' diff
t 'its parent is found by its identifier' says 'backing base.vdi' "$imgio" -r child.vdi info
before=$(cksum <base.vdi)
t 'a differencing image is written' sh -c "timeout 100 $imgio -n child.vdi random 1 300 3 50000 model.raw &&
	$imgio -r child.vdi cat | cmp - model.raw"
t 'its parent is not' [ "$before" = "$(cksum <base.vdi)" ]
changed_parent() {
	"$imgio" base.vdi write 0 512 1 && fails 'was changed after it was made' "$imgio" -r child.vdi cat
}
t 'a parent that was changed is noticed' changed_parent
rm base.vdi
t 'a missing parent is named' fails 'is not in its folder' "$imgio" -r child.vdi cat
$make vdi child.vdi type=4 size=12000768 create=33 parent=11
t 'without parents, what is in them is an error' fails 'No such device' sh -c "$imgio -r -b child.vdi cat >cat.raw"

# ---- damage ----
bad() { # bad MESSAGE OPTIONS...
	message=$1
	shift
	$make vdi bad.vdi data=disk.raw "$@" && fails "$message" timeout 10 sh -c "$imgio ${FLAGS--r} bad.vdi cat >cat.raw"
}
t 'its own parent' bad 'its own parent' type=4 create=11 parent=11
t 'blocks of 0 bytes' bad 'blocks of 0 bytes' raw_block=0
t 'blocks of 2^31 bytes' bad 'blocks of 2147483648 bytes' raw_block=2147483648
t 'blocks of 3 MiB' bad 'a power of two' raw_block=3145728
t 'a map of 2^32 - 1 blocks' bad 'too large' raw_blocks=4294967295
t 'a map that does not fit before the data' bad 'a map of 100000000 blocks' raw_blocks=100000000
t 'a disk larger than its blocks' bad 'bytes in 12 blocks' raw_size=1000000000000
t 'an undo image' bad 'of type 3' type=3
t 'version 2' bad 'version 2' version=2
t 'a block behind the end' bad 'Input/output error' entry2=77
FLAGS=
t 'is not written' bad 'repair it first' entry2=77
t 'two blocks at one place are not written' bad 'two blocks are at place 1' entry2=1
FLAGS=-r
t 'but read' sh -c "$make vdi a.vdi data=disk.raw entry2=1 && $imgio -r a.vdi cat >/dev/null"
t 'making one with blocks of 3 bytes' fails 'a power of two' "$imgio" create y.vdi vdi 1M cluster=3
t 'making a too large one' fails 'use larger blocks' "$imgio" create y.vdi vdi 1048576G
t 'nothing is left of it' [ ! -e y.vdi ]

# ---- checking, repairing, other sizes ----
resized() { # resized SIZE OPTIONS
	rm -f r.vdi
	cp disk.raw model.raw && truncate -s "$1" model.raw && qemu-img convert -O vdi ${2:+-o "$2"} disk.raw r.vdi &&
		"$img" resize --shrink r.vdi "$1" && sound r.vdi model.raw &&
		timeout 60 "$imgio" -n r.vdi random 1 200 2 70000 model.raw && sound r.vdi model.raw
}
t 'grows' resized 30M
t 'grows, and its map has to move' resized 2000M
t 'grows, static' resized 1500M static=on
t 'shrinks' resized 5M
t 'shrinks within a block' resized 11900416
t 'shrinks to nothing' sh -c "$img resize --shrink r.vdi 0 && qemu-img check -q r.vdi"
t 'grows and shrinks' sh -c "$img resize r.vdi 3G && $img resize --shrink r.vdi 1M && $img check r.vdi &&
	qemu-img check -q r.vdi && truncate -s 1M z.raw && qemu-img compare -f vdi -F raw r.vdi z.raw"
repaired() { # repaired OPTIONS...
	$make vdi bad.vdi data=disk.raw "$@" && exits 3 "$img" check -q bad.vdi && "$img" repair bad.vdi &&
		"$img" check bad.vdi && qemu-img check -q bad.vdi && "$imgio" bad.vdi write 5M 2M 7 && qemu-img check -q bad.vdi
}
t 'two blocks at one place are parted' repaired entry2=1
t 'a block behind the end is let go' repaired entry3=77777
t 'blocks that nobody has are given back' repaired entry1=0xffffffff
t 'all at once' repaired entry0=2 entry1=0xffffffff entry3=1000 entry4=2
t 'a sound image is' "$img" check x.vdi
overlaid() { # both keep what they had
	$make vdi bad.vdi data=disk.raw entry3=1 && "$imgio" -r bad.vdi cat >want.raw && "$img" repair bad.vdi &&
		same bad.vdi want.raw
}
t 'repairing keeps the data' overlaid

# ---- in front of a parent, made here ----
made_child() {
	rm -f parent.vdi kid.vdi
	cp disk.raw model.raw
	"$img" convert -q -O vdi disk.raw parent.vdi && "$img" create -q -f vdi -b parent.vdi -F vdi kid.vdi &&
		same kid.vdi disk.raw && timeout 100 "$imgio" -n kid.vdi random 1 400 3 30000 model.raw &&
		same kid.vdi model.raw && timeout 100 "$imgio" -n kid.vdi random 2 100 1 3000000 model.raw &&
		same kid.vdi model.raw && same parent.vdi disk.raw
}
t 'an image in front of a parent is made and written' made_child
t 'it keeps its size' fails 'has its parent' "$img" resize kid.vdi 30M
t 'a parent of another format is refused' fails 'is of format raw' "$img" create -q -f vdi -b disk.raw -F raw z.vdi
snapshots() { # as VirtualBox has them: the first disk above the folder Snapshots
	mkdir -p Snapshots && $make vdi Snapshots/kid.vdi type=4 size=12000768 create=7 parent=77 &&
		$make vdi first.vdi data=disk.raw create=77 && timeout 60 "$imgio" -r Snapshots/kid.vdi cat | cmp - disk.raw
}
t 'a parent in the folder above' snapshots
t 'is found only where it is allowed' fails 'is not in its folder' "$img" convert -O raw Snapshots/kid.vdi no.raw
t 'info tells the kind' says 'dynamic' "$img" info first.vdi
t 'a place that only a huge file has' sh -c "$make vdi far.vdi data=disk.raw block=4096 entry0=4000000000 &&
	truncate -s 15T far.vdi && ! (ulimit -v 500000; timeout 20 $img check far.vdi)"
measured() { # measured [OPTIONS]: as large as the image will be
	"$img" convert -q -O vdi ${1:+-o "$1"} disk.raw m.img && says "required size: $(stat -c %s m.img)" \
		"$img" measure -O vdi ${1:+-o "$1"} disk.raw
}
t 'the size is known before' measured
t 'the size is known before, all allocated' measured static=on
full() { # the file cannot grow: an error, and no damage
	rm -f full.img
	"$img" create -q -f vdi  full.img 50M || return 1
	sh -c "ulimit -f 24000; trap '' XFSZ; $imgio full.img write 0 40M 1" && return 1
	"$img" check full.img && "$imgio" full.img write 0 30M 2 && "$img" check full.img
}
t 'a full disk is an error' full
done_testing

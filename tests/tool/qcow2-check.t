#!/bin/sh
# qcow2-check.t - checking and repairing qcow2 images: the numbers of qemu-img check for sound and damaged images,
# and what is repaired is clean for it. TAP.
. "$(dirname "$0")/../lib.sh"
tool="timeout 60 $O/tests/progs/imgtool -n"
damage=$PWD/tests/tool/qcow2-damage.py
cd "$TMP" || exit 1
{
	seq 1 100000
	head -c 300000 /dev/urandom
} >text
truncate -s 6000128 disk.raw
dd if=text of=disk.raw bs=4096 seek=50 conv=notrunc status=none

# agree IMAGE: both count the same.
agree() {
	$tool "$1" check >ours || return 1
	"$damage" counts "$1" >theirs || return 1
	cmp ours theirs || { cat ours theirs; $tool -v "$1" check; qemu-img check "$1"; return 1; }
}
made() { # made OPTIONS CONVERT-OPTIONS...
	o=$1
	shift
	rm -f x.qcow2 x.data
	qemu-img convert -f raw -O qcow2 ${o:+-o "$o"} "$@" disk.raw x.qcow2
}
busy() { # with snapshots and bitmaps and holes
	made "$@" && qemu-img snapshot -c a x.qcow2 && qemu-io -c 'write -P 3 100k 900k' -c 'write -z 2M 1M' \
		-c 'discard 4M 512k' x.qcow2 >/dev/null && qemu-img snapshot -c b x.qcow2 &&
		qemu-img snapshot -d a x.qcow2 && qemu-io -c 'write -P 4 300k 64k' x.qcow2 >/dev/null
}
sound() { busy "$@" && agree x.qcow2 && qemu-img check -q x.qcow2; }
for o in '' compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=64 \
	refcount_bits=2,cluster_size=4k refcount_bits=8 preallocation=metadata; do
	t "sound: $o" sound "$o"
done
t 'sound: compressed' sound cluster_size=4k -c
data() { made data_file=x.data && agree x.qcow2; }
t 'sound: a data file' data
bitmaps() {
	made cluster_size=4k && qemu-img bitmap --add x.qcow2 one && qemu-img bitmap --add -g 4k x.qcow2 two &&
		agree x.qcow2
}
t 'sound: bitmaps' bitmaps
luks() { # without a measurement of this computer's speed, which can fail
	qemu-img create -q -f qcow2 --object secret,id=s,data=abc \
		-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 x.qcow2 4M 2>err ||
		{ grep -q 'accurate CPU usage' err; return; }
	# No passphrase is needed to look at the tables; qemu-img wants one.
	$tool x.qcow2 check | grep '^0 0 0 '
}
t 'sound: LUKS' luks

# ---- damaged ----
# One process of Python does all of a loop's rounds: starting it takes longer than a round.
seeds=$(seq 1 "${ROUNDS:-12}")
named() { for seed in $seeds; do echo "$1.qcow2.$seed"; done; }
agrees_often() { # agrees_often N-DAMAGES OPTIONS...
	n_dam=$1
	shift
	busy "$@" && "$damage" pokes x.qcow2 "$n_dam" $seeds || return 1
	for seed in $seeds; do
		$tool x.qcow2.$seed check || { echo "seed $seed"; return 1; }
	done >ours
	"$damage" counts $(named x) >theirs && cmp ours theirs
}
for o in '' cluster_size=4k extended_l2=on,cluster_size=16k compat=0.10,cluster_size=1k; do
	t "damaged once: $o" agrees_often 1 "$o"
	t "damaged in 5 places: $o" agrees_often 5 "$o"
done
t 'damaged: compressed' agrees_often 3 cluster_size=4k -c

# ---- repaired ----
repaired() { # nothing is left of what can be repaired; what is read is as it was, or as qemu-img's repair has it
	busy "$@" && "$damage" pokes x.qcow2 4 $seeds || return 1
	for seed in $seeds; do
		x=x.qcow2.$seed
		cp $x y.qcow2.$seed && cp $x z.qcow2.$seed
		$tool $x repair dry >/dev/null && cmp $x z.qcow2.$seed || return 1
		rm -f undo.$seed
		$tool $x repair all undo.$seed || return 1
		qemu-img check -q -r all y.qcow2.$seed >/dev/null 2>&1
	done
	# Only what has no remedy is left, as with qemu-img.
	"$damage" counts $(named x) | cut -d ' ' -f 1,2 >ours
	"$damage" counts $(named y) | cut -d ' ' -f 1 >theirs
	paste -d ' ' ours theirs >both && [ "$(wc -l <both)" = "$(echo "$seeds" | wc -l)" ] || return 1
	while read -r a l b; do
		[ "$a" -le "$b" ] && [ "$l" = 0 ] || { echo "$a and $l leaks, qemu-img $b"; return 1; }
	done <both
	for seed in $seeds; do
		x=x.qcow2.$seed
		qemu-img convert -O raw $x x.raw 2>/dev/null && qemu-img convert -O raw z.qcow2.$seed y.raw 2>/dev/null &&
			{ cmp x.raw y.raw || { echo "content, seed $seed"; return 1; }; }
		# Taken back, it is as damaged as before.
		$tool z.qcow2.$seed check >theirs
		[ ! -e undo.$seed ] || { $tool $x undo undo.$seed && $tool $x check >ours && cmp ours theirs; } || return 1
	done
}
for o in '' cluster_size=4k extended_l2=on,cluster_size=16k compat=0.10,cluster_size=1k refcount_bits=2; do
	t "repaired: $o" repaired "$o"
done
leaks() {
	made cluster_size=4k && qemu-io -c 'write 1M 64k' x.qcow2 >/dev/null || return 1
	python3 - x.qcow2 <<-'END'
	import struct, sys
	f = open(sys.argv[1], 'r+b')
	f.seek(40); l1, = struct.unpack('>Q', f.read(8))
	f.seek(l1); f.write(bytes(8))
	END
	says '0 223 0 1465 ' $tool x.qcow2 check || return 1
	$tool x.qcow2 repair leaks && qemu-img check x.qcow2
}
t 'leaks' leaks
# What a killed writer with lazy reference counts leaves is repaired when it is opened for writing.
killed() {
	made lazy_refcounts=on,"$1" && qemu-io -c 'write -P 7 1M 300k' -c flush -c abort x.qcow2 >/dev/null 2>&1
	says 'dirty flag: true' qemu-img info -f qcow2 --output=human x.qcow2 || "$O/vm-img" info --output=json x.qcow2 | grep -q '"dirty-flag": true' || return 1
	qemu-img convert -O raw x.qcow2 want.raw || return 1
	cp x.qcow2 before.qcow2 && "$O/vm-img" convert -O raw x.qcow2 got.raw && cmp got.raw want.raw && cmp x.qcow2 before.qcow2 || return 1
	timeout 20 "$O/tests/progs/imgio" x.qcow2 write 5000 70000 9 && qemu-io -f raw -c 'write -P 9 5000 70000' want.raw >/dev/null || return 1
	qemu-img check x.qcow2 && "$O/vm-img" check -q x.qcow2 && qemu-img compare -f qcow2 -F raw x.qcow2 want.raw && agree x.qcow2
}
for o in cluster_size=4k extended_l2=on refcount_bits=64; do
	t "a killed writer's image: $o" killed "$o"
done
beyond() { # with damage that cannot be repaired it stays as it is
	made lazy_refcounts=on && "$damage" poke x.qcow2 1 1 >/dev/null && printf '\001' | dd of=x.qcow2 bs=1 seek=79 conv=notrunc status=none &&
		python3 - x.qcow2 <<-'END'
	import struct, sys
	f = open(sys.argv[1], 'r+b')
	f.seek(40); l1, = struct.unpack('>Q', f.read(8))
	f.seek(l1); l2, = struct.unpack('>Q', f.read(8))
	f.seek((l2 & 0xfffffffffffe00)); f.write(struct.pack('>Q', 1 << 63 | 0x1234200))
	END
	fails 'could be repaired' "$O/tests/progs/imgio" x.qcow2 write 0 512 1
}
t 'a killed writer and damage' beyond
taken_back() {
	busy cluster_size=4k && "$damage" poke x.qcow2 6 2 && cp x.qcow2 before.qcow2 && rm -f undo
	$tool x.qcow2 check >theirs
	"$O/vm-img" repair --undo undo x.qcow2
	"$O/vm-img" repair --take-back undo x.qcow2 && $tool x.qcow2 check >ours && cmp ours theirs
}
t 'vm-img repair, taken back' taken_back
done_testing

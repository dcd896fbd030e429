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
agrees_often() { # agrees_often N-DAMAGES OPTIONS...
	n_dam=$1
	shift
	busy "$@" || return 1
	cp x.qcow2 good.qcow2
	for seed in $(seq 1 "${ROUNDS:-12}"); do
		cp good.qcow2 x.qcow2
		"$damage" poke x.qcow2 "$seed" "$n_dam"
		agree x.qcow2 || { echo "seed $seed"; return 1; }
	done
}
for o in '' cluster_size=4k extended_l2=on,cluster_size=16k compat=0.10,cluster_size=1k; do
	t "damaged once: $o" agrees_often 1 "$o"
	t "damaged in 5 places: $o" agrees_often 5 "$o"
done
t 'damaged: compressed' agrees_often 3 cluster_size=4k -c

# ---- repaired ----
repaired() { # nothing is left of what can be repaired; what is read is as it was, or as qemu-img's repair has it
	busy "$@" || return 1
	cp x.qcow2 good.qcow2
	for seed in $(seq 1 "${ROUNDS:-12}"); do
		cp good.qcow2 x.qcow2
		"$damage" poke x.qcow2 "$seed" 4
		cp x.qcow2 y.qcow2
		cp x.qcow2 before.qcow2
		$tool x.qcow2 repair dry >/dev/null && cmp x.qcow2 before.qcow2 || return 1
		rm -f undo
		$tool x.qcow2 repair all undo || return 1
		# Only what has no remedy is left, as with qemu-img.
		qemu-img check -q -r all y.qcow2 >/dev/null 2>&1
		"$damage" counts x.qcow2 >ours
		"$damage" counts y.qcow2 >theirs
		read -r a l _ <ours
		read -r b _ <theirs
		[ "$a" -le "$b" ] && [ "$l" = 0 ] || { echo "seed $seed: $a and $l leaks, qemu-img $b"; return 1; }
		qemu-img convert -O raw x.qcow2 x.raw 2>/dev/null && qemu-img convert -O raw before.qcow2 y.raw 2>/dev/null &&
			{ cmp x.raw y.raw || { echo "content, seed $seed"; return 1; }; }
		# Taken back, it is as damaged as before.
		$tool before.qcow2 check >theirs
		[ ! -e undo ] || { $tool x.qcow2 undo undo && $tool x.qcow2 check >ours && cmp ours theirs; } || return 1
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
taken_back() {
	busy cluster_size=4k && "$damage" poke x.qcow2 6 2 && cp x.qcow2 before.qcow2 && rm -f undo
	$tool x.qcow2 check >theirs
	"$O/vm-img" repair --undo undo x.qcow2
	"$O/vm-img" repair --take-back undo x.qcow2 && $tool x.qcow2 check >ours && cmp ours theirs
}
t 'vm-img repair, taken back' taken_back
done_testing

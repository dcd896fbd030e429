#!/bin/sh
# vm-img-matrix.t - every format that can be made, made by qemu-img and by vm-img, written to by qemu-io and by lib/img, and
# read by the other one. Formats come from `vm-img formats`, so a new one is tested by being there. TAP.
. "$(dirname "$0")/../lib.sh"
command -v qemu-img >/dev/null || { echo "1..0 # SKIP no qemu-img"; exit 0; }
imgio=$O/tests/progs/imgio
cd "$TMP" || exit 1
img() { timeout 60 "$VM_IMG" "$@"; }

# 12 MiB and a sector: text, noise, zeros, holes.
truncate -s 12583424 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=10 conv=notrunc status=none
head -c 900000 /dev/urandom | dd of=disk.raw bs=4096 seek=1000 conv=notrunc status=none
head -c 500000 /dev/zero | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
printf end | dd of=disk.raw bs=1 seek=12583421 conv=notrunc status=none

# Settings worth a round of their own.
settings() {
	case $1 in
	qcow2) echo compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=1 refcount_bits=64 ;;
	vdi) echo preallocation=metadata ;;
	vpc) echo subformat=fixed,force_size=on subformat=dynamic,force_size=on ;;
	vhdx) echo subformat=fixed block_size=1M ;;
	qed) echo cluster_size=4096,table_size=2 cluster_size=1M,table_size=16 ;;
	vmdk) echo subformat=monolithicSparse subformat=monolithicFlat subformat=twoGbMaxExtentSparse \
		subformat=twoGbMaxExtentFlat subformat=streamOptimized ;;
	esac
}

# clean FILE FORMAT: qemu-img check has nothing to say (63: it has no check).
clean() {
	qemu-img check -q -f "$2" "$1" >/dev/null 2>&1
	case $? in 0 | 63) ;; *) qemu-img check -f "$2" "$1" 2>&1 | tail -5; return 1 ;; esac
}

# alike FILE FORMAT RAW: both programs read RAW; what is behind its end, as formats round sizes up, is zeros.
alike() {
	qemu-img compare -f "$2" -F raw "$1" "$3" && img compare -q -f "$2" -F raw "$1" "$3"
}

# pokes FILE FORMAT: the same writes with qemu-io.
pokes() {
	qemu-io -f "$2" -c 'write -P 1 100k 70k' -c 'write -P 2 5M 1M' -c 'write -P 3 7000000 512' -c 'write -z 4200000 60k' \
		-c 'write -P 4 12583000 424' "$1" >poke.log 2>&1 || { cat poke.log; return 1; }
	! grep -q 'failed' poke.log || { cat poke.log; return 1; }
}

by_us() { # by_us FORMAT SETTINGS
	rm -f x* && img convert -f raw -O "$1" ${2:+-o "$2"} disk.raw x.img && alike x.img "$1" disk.raw && clean x.img "$1"
}
by_them() {
	rm -f x* && qemu-img convert -f raw -O "$1" ${2:+-o "$2"} disk.raw x.img && alike x.img "$1" disk.raw
}
written_by_them() {
	by_us "$@" || return 1
	pokes x.img "$1" && cp --sparse=always disk.raw y.raw && pokes y.raw raw && alike x.img "$1" y.raw
}
written_by_us() {
	by_them "$@" || return 1
	cp --sparse=always disk.raw y.raw
	truncate -s "$(qemu-img info -f "$1" --output=json x.img | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | head -1)" y.raw
	timeout 60 "$imgio" -f "$1" x.img random 7 150 2 4096 y.raw && alike x.img "$1" y.raw && clean x.img "$1"
}
empty() {
	rm -f x* && img create -f "$1" ${2:+-o "$2"} x.img 40M && truncate -s 40M z.raw && alike x.img "$1" z.raw && clean x.img "$1"
}
found() { # recognized by content
	by_us "$@" && img info x.img | grep -qx "file format: $1"
}
piped() {
	by_us "$1" && img convert -f "$1" -O raw x.img - | cmp -n 12583424 - disk.raw
}

img formats --json >formats.json
for f in $(python3 -c 'import json; print(*[f["name"] for f in json.load(open("formats.json"))["formats"] if f["create"]])'); do
	case $f in luks | split) continue ;; esac # a passphrase and names of their own: img-luks.t, img-split.t
	for o in '' $(settings "$f"); do
		qemu-img create -q -f "$f" ${o:+-o "$o"} try.img 4M >/dev/null 2>&1 || { rm -f try*; continue; }
		rm -f try*
		name="$f${o:+ $o}"
		t "$name: ours is theirs" by_us "$f" "$o"
		t "$name: theirs is ours" by_them "$f" "$o"
		case $o in *streamOptimized*) continue ;; esac
		t "$name: empty" empty "$f" "$o"
		t "$name: theirs writes to ours" written_by_them "$f" "$o"
		t "$name: ours writes to theirs" written_by_us "$f" "$o"
	done
	[ "$f" = raw ] || t "$f: is recognized" found "$f"
	t "$f: to a pipe" piped "$f"
	t "$f: from every other" sh -c "rm -f z* && for g in qcow2 vdi vpc vhdx; do qemu-img convert -f raw -O \$g disk.raw z.\$g && '$VM_IMG' convert -f \$g -O $f z.\$g z.img && qemu-img compare -f $f -F raw z.img disk.raw || exit 1; done"
done
done_testing

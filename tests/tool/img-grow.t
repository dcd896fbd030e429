#!/bin/sh
# img-grow.t - resize --grow-last: the last partition and its file system, in every format; nothing is left half done. TAP.
. "$(dirname "$0")/../lib.sh"
PATH=$PATH:/usr/sbin:/sbin
for x in sfdisk mke2fs e2fsck resize2fs debugfs; do
	command -v $x >/dev/null || { echo "1..0 # SKIP no $x"; exit 0; }
done
img=$O/vm-img
cd "$TMP" || exit 1
mkdir src
seq 1 100000 >src/f
head -c 300000 /dev/urandom >src/r

# disk TABLE START SECTORS MKFS...: 40 MiB in disk.raw, with a file system in its last partition
disk() {
	script=$1 off=$2 sectors=$3
	shift 3
	rm -f disk.raw fs
	truncate -s 40M disk.raw
	[ -z "$script" ] || printf "$script" | sfdisk -q disk.raw || return 1
	truncate -s $((sectors * 512)) fs && "$@" fs >/dev/null 2>&1 && dd if=fs of=disk.raw bs=512 seek="$off" conv=notrunc,sparse status=none
}
gpt='label: gpt\nsize=2048,start=2048\nstart=4096,size=69632\n'
mbr='label: dos\nsize=2048,start=2048\nstart=4096,size=69632\n'
logical='label: dos\nsize=2048,start=2048,type=83\nstart=4096,size=71680,type=5\nstart=6144,size=2048\nstart=10240,size=59392\n'
ext() { mke2fs -q -t "${1:-ext4}" ${2:+$2} -d src fs; }
ext4() { mke2fs -q -t ext4 -d src "$@"; }

# last FILE: "START SECTORS" of the partition that ends last
last() { sfdisk -J "$1" | python3 -c 'import json, sys
p = max((p for p in json.load(sys.stdin)["partitiontable"]["partitions"] if p["type"] not in ("5", "f")), key=lambda p: p["start"])
print(p["start"], p["size"])'; }
# sound RAW [SECTORS]: the table is right, the file system is clean, as large as its partition, and has what it had
sound() {
	sfdisk -V "$1" >sf.log 2>&1 || { cat sf.log; return 1; }
	set -- "$1" "$2" $(last "$1")
	[ -z "$2" ] || [ "$4" -ge "$2" ] || { echo "$4 sectors, not $2"; return 1; }
	rm -f part && dd if="$1" of=part bs=512 skip="$3" count="$4" conv=sparse status=none && truncate -s $(($4 * 512)) part
	holds part $(($4 * 512))
}
holds() { # holds FILE BYTES: an ext file system, clean, nearly so large
	e2fsck -fn "$1" >fsck.log 2>&1 || { cat fsck.log; return 1; }
	blocks=$(dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Block count: *//p') size=$(dumpe2fs -h "$1" 2>/dev/null | sed -n 's/^Block size: *//p')
	for f in f r; do debugfs -R "dump $f out" "$1" 2>/dev/null && cmp out src/$f || return 1; done
	grown=$((blocks * size))
	[ $grown -le "$2" ] && [ $grown -gt $(($2 - $2 / 20)) ] || { echo "$grown of $2 bytes"; return 1; }
}

grown() { # grown FORMAT: disk.raw as that, grown to 150 MiB
	rm -f x.img x.img.undo y.raw
	"$img" convert -q -O "$1" ${2:+-o $2} disk.raw x.img && "$img" resize --grow-last ${1:+-f $1} x.img 150M >log 2>&1 || { cat log; return 1; }
	[ ! -e x.img.undo ] && "$img" convert -q -f "$1" -O raw x.img y.raw && sound y.raw 230000 && grep -q 'File system' log
}
t 'GPT: made' disk "$gpt" 4096 69632 ext4
for f in $("$VM_IMG" formats --json | python3 -c "import json, sys
print(*[f['name'] for f in json.load(sys.stdin)['formats'] if f['resize'] and f['create'] and f['write']])"); do
	case $f in luks) continue ;; esac
	t "GPT, ext4, $f" grown "$f"
done
checked() { qemu-img check -q -f qcow2 x.img; }
t 'GPT, ext4, qcow2 of small clusters' grown qcow2 cluster_size=4k
t 'which is clean' checked
second() { grown raw && sfdisk -V y.raw 2>&1 | grep -q 'No errors'; }
t "the second table is at the disk's end" second
again() { "$img" resize --grow-last -f raw y.raw 2>&1 | grep -q 'no room' && sound y.raw; }
t 'a second time there is no room' again
without() { rm -f z.raw && cp disk.raw z.raw && truncate -s 80M z.raw && "$img" resize --grow-last -q -f raw z.raw && sound z.raw 150000; }
t 'without a size: what is free already' without
t 'MBR: made' disk "$mbr" 4096 69632 ext4
t 'MBR, ext4' grown qcow2
t 'MBR, ext4, raw' grown raw
t 'logical: made' disk "$logical" 10240 59392 ext4
t 'a logical partition, and the extended one around it' grown qcow2
chain() { sfdisk -J y.raw | python3 -c 'import json, sys
p = json.load(sys.stdin)["partitiontable"]["partitions"]; e = [q for q in p if q["type"] == "5"][0]
sys.exit(e["start"] + e["size"] != 150 * 2048 or len(p) != 4 or (p[2]["start"], p[2]["size"]) != (6144, 2048))'; }
t 'the others are as they were' chain
for k in ext2 ext3; do
	t "$k: made" disk "$gpt" 4096 69632 mke2fs -q -t $k -b 1024 -d src
	t "$k, blocks of 1 KiB" grown qcow2
done
t 'no room for descriptors: made' disk "$gpt" 4096 69632 mke2fs -q -t ext4 -b 1024 -O ^resize_inode -d src
t 'data has to move' grown qcow2
whole() {
	rm -f x.img && "$img" convert -q -O qcow2 disk.raw x.img && "$img" resize -q --grow-last x.img 100M && "$img" convert -O raw x.img y.raw &&
		holds y.raw $((100 << 20))
}
t 'no table: made' disk '' 0 81920 ext4
t 'a disk without a partition table' whole

# ---- other file systems ----
noted() { # noted TEXT: the partition grows, that is said, and what is in it stays
	rm -f x.img && "$img" convert -q -O qcow2 disk.raw x.img && "$img" resize --grow-last x.img 150M >log && grep -q "$1" log &&
		"$img" convert -O raw x.img y.raw && set -- $(last y.raw) && [ "$2" -gt 290000 ] && dd if=y.raw of=part bs=512 skip="$1" count=69632 status=none &&
		cmp -n 35651584 part fs
}
if command -v mkswap >/dev/null; then
	t 'swap: made' disk "$gpt" 4096 69632 mkswap
	t 'swap stays' noted mkswap
fi
if command -v mkfs.btrfs >/dev/null; then
	mkfs_btrfs() { truncate -s 120M "$1" && mkfs.btrfs -q "$1"; }
	big() {
		rm -f disk.raw fs && truncate -s 125M disk.raw && printf 'label: gpt\nstart=4096,size=245760\n' | sfdisk -q disk.raw &&
			mkfs_btrfs fs && dd if=fs of=disk.raw bs=512 seek=4096 conv=notrunc,sparse status=none
	}
	t 'btrfs: made' big
	t 'btrfs has to be mounted' noted 'btrfs filesystem resize'
fi
if command -v mkntfs >/dev/null && command -v ntfsresize >/dev/null; then
	ntfs() { mkntfs -F -q -f -p 4096 -H 255 -S 63 "$1" && ntfscp -q -f "$1" src/f f; }
	t 'NTFS: made' disk "$gpt" 4096 69632 ntfs
	ntfs_grown() {
		rm -f x.img && "$img" convert -q -O qcow2 disk.raw x.img && "$img" resize --grow-last x.img 150M >log 2>&1 || { cat log; return 1; }
		"$img" convert -O raw x.img y.raw && set -- $(last y.raw) && dd if=y.raw of=part bs=512 skip="$1" count="$2" conv=sparse status=none &&
			truncate -s $(($2 * 512)) part && ntfscat -f part f | cmp - src/f && ntfsinfo -m -f part | grep -q "Volume Size in Clusters: 3[67]" &&
			ntfsresize -i -f -f part >/dev/null
	}
	t 'NTFS' ntfs_grown
fi

# ---- what cannot be done is said, and nothing is changed ----
t 'smaller: no' exits 2 "$img" resize --grow-last --shrink x.img 10M
refused() { # refused TEXT: the disk's size apart, nothing changes
	cp disk.raw z.raw && ! "$img" resize -q --grow-last -f raw z.raw 150M 2>log && grep -q "$1" log && cmp -n 41943040 z.raw disk.raw && [ ! -e z.raw.undo ]
}
t 'damage: made' disk "$gpt" 4096 69632 ext4
printf '\377\377\377\377' | dd of=disk.raw bs=1 seek=$((4096 * 512 + 1024 + 32)) conv=notrunc status=none
t 'a damaged file system' refused 'e2fsck failed'
t 'made' disk "$gpt" 4096 69632 ext4
: >z.raw.undo
there() { cp disk.raw z.raw && fails "undo file 'z.raw.undo': File exists" "$img" resize -q --grow-last -f raw z.raw 150M && cmp -n 41943040 z.raw disk.raw; }
t 'an undo file that is there' there
rm -f z.raw.undo
journal() { # a file system that was not unmounted
	debugfs -w -R 'ssv state 0' fs 2>/dev/null && debugfs -w -R 'feature +needs_recovery' fs 2>/dev/null &&
		dd if=fs of=disk.raw bs=512 seek=4096 conv=notrunc status=none && grown qcow2
}
t 'one that was not unmounted' journal
t 'no undo file' fails 'no undo file' "$img" resize -q -f raw --take-back src/f z.raw

# ---- stopped anywhere ----
sound_fs() { set -- "$1" $(last "$1") && dd if="$1" of=part bs=512 skip="$2" count="$3" conv=sparse status=none && truncate -s $(($3 * 512)) part && holds part $(($3 * 512)); }
stopped() { # stopped CALL WHAT: at every so many-th write to the image, or to the undo file
	disk "$gpt" 4096 69632 ext4 && cp disk.raw start.raw && ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -qq -e trace="$1" -o tr "$img" resize -q -f raw --grow-last disk.raw 60M || return 1
	sound disk.raw 100000 || return 1
	total=$(grep -c "^$1" tr)
	step=$((total / ${MOST:-7} + 1)) at=1 undone=0 back=0
	while [ $at -le "$total" ]; do
		rm -f z.raw z.raw.undo && cp start.raw z.raw
		ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 timeout 30 strace -qq -o /dev/null -e trace="$1" -e inject="$1:$2:when=$at" "$img" resize -q -f raw --grow-last z.raw 60M >run.log 2>&1
		if [ -e z.raw.undo ]; then
			undone=$((undone + 1))
			if "$img" resize -f raw --take-back z.raw.undo z.raw 2>back.log; then back=$((back + 1)); else grep -q 'no end\|no undo file' back.log || { cat back.log; return 1; }; fi
		fi
		# the first table may say that the second one is where the disk ended before
		sound z.raw >sound.log 2>&1 || { grep -q 'backup GPT' sf.log && sound_fs z.raw; } || { echo "$1 at $at of $total"; cat sound.log run.log; return 1; }
		at=$((at + step))
	done
	echo "$total writes, $undone undo files, $back put back"
	case $2 in *KILL) [ $undone -gt 0 ] ;; *) [ $undone = 0 ] ;; esac
}
if command -v strace >/dev/null && strace -qq -o /dev/null true 2>/dev/null; then
	for how in signal=KILL error=EIO error=ENOSPC; do
		t "image, stopped: $how" stopped pwritev $how
		t "undo file, stopped: $how" stopped write $how
	done
fi
done_testing

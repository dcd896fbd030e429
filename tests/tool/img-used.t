#!/bin/sh
# img-used.t - convert --used-only, --partition; extract: what is free is dropped, nothing else; the file systems' own
# checkers and readers say so. TAP.
. "$(dirname "$0")/../lib.sh"
. tests/tool/guest-disks.sh
cd "$TMP" || exit 1
t 'a GPT disk is made' make_gpt gpt.raw
t 'an MBR disk is made' make_mbr mbr.raw
img=$VM_IMG

# ---- what a file system's own programs read ----
same_ext() { # same_ext FILE LIST: files 1, 2, ...
	e2fsck -fn "$1" || return 1
	for i in $2; do
		debugfs -R "cat /data/f$i" "$1" 2>/dev/null | cmp - "tree/data/f$i" || return 1
	done
	debugfs -R 'cat /data/deep/random' "$1" 2>/dev/null | cmp - tree/data/deep/random
}
same_fat() { fsck.vfat -n "$1" && mcopy -n -i "$1" ::/f1 got.f && cmp got.f tree/data/f1 && rm got.f &&
	mcopy -n -i "$1" ::/EFI/BOOT/BOOTX64.EFI got.f && cmp got.f tree/data/f4 && rm got.f; }
same_ntfs() { ntfsfix -n "$1" && for i in 1 2 3 4; do ntfscat -f "$1" "f$i" | cmp - "tree/data/f$i" || return 1; done; }
same_btrfs() { btrfs check --check-data-csum "$1" && rm -rf restored && mkdir restored && btrfs restore "$1" restored &&
	for i in 1 2 8; do cmp "restored/data/f$i" "tree/data/f$i" || return 1; done; }
same_xfs() { # each file by its block map
	xfs_repair -n "$1" || return 1
	for i in 1 2 4 5; do
		python3 - "$1" "$i" <<'PY' || return 1
import re, subprocess, sys
disk, n = sys.argv[1:]
def db(*c): return subprocess.run(["xfs_db", "-r"] + [x for y in c for x in ("-c", y)] + [disk], capture_output=True, text=True).stdout
bs = int(db("sb", "p blocksize").split()[-1])
want = open("tree/data/f" + n, "rb").read()
ino = [l.split()[1] for l in db("path /data", "ls").splitlines() if l.split()[-2] == "f" + n or l.split()[4:5] == ["f" + n]]
got = b""
m = db("path /data/f" + n, "bmap")
f = open(disk, "rb")
agb = int(db("sb", "p agblocks").split()[-1])
for line in m.splitlines():
    r = re.search(r"offset (\d+) startblock \d+ \((\d+)/(\d+)\) count (\d+)", line)
    f.seek((int(r[2]) * agb + int(r[3])) * bs)
    got = got.ljust(int(r[1]) * bs, b"\0") + f.read(int(r[4]) * bs)
sys.exit(not got or got[:len(want)] != want)
PY
	done
}
all_same() { # all_same DISK
	cut_out "$1" 1 40 q && same_fat q && cut_out "$1" 41 100 q && same_ext q '1 2 4 5 6 7 8' &&
		cut_out "$1" 205 320 q && same_xfs q && cut_out "$1" 525 160 q && same_btrfs q &&
		cut_out "$1" 685 100 q && same_ntfs q && cut_out "$1" 785 60 q && fsck.exfat -n q &&
		cut_out "$1" 141 64 q && [ "$(blkid -p -s LABEL -o value q)" = swapper ] &&
		cut_out "$1" 845 20 q && cmp q p8
}
dd if=gpt.raw of=p8 bs=1M skip=845 count=20 status=none
t 'the checks can fail' sh -c '! cmp p8 p1'
t 'the disk itself is sound' all_same gpt.raw

# ---- --used-only ----
t 'what is used' sh -c "$img convert --used-only gpt.raw u.raw >said"
t 'each partition is named with what was dropped' sh -c "cat said; [ \$(grep -c 'free: dropped' said) = 7 ] && grep -q 'partition 2 (ext4): 16.1 MiB used, 83.8 MiB free: dropped' said"
t 'what is not understood is taken whole, and named' grep -q 'partition 8: 20 MiB taken whole: nothing known' said
t 'all files are the same, all checkers content' all_same u.raw
# Tables of inodes that were never written may hold some.
junk_in() { grep -ao 'what was deleted' "$1" | wc -l; }
little_junk() { echo "$(junk_in "$1") of $(junk_in "$2")"; [ "$(junk_in "$1")" -gt 100000 ] && [ $(($(junk_in "$2") * 50)) -lt "$(junk_in "$1")" ]; }
t 'what was deleted is not there' little_junk gpt.raw u.raw
t 'it is smaller' sh -c '[ $(($(stat -c %b gpt.raw) / 3)) -gt $(stat -c %b u.raw) ]'
same_disk() { # same_disk OPTIONS FILE: as u.raw
	rm -f "$2"
	# shellcheck disable=SC2086
	"$img" convert -q --used-only $1 gpt.raw "$2" && "$img" compare "$2" u.raw
}
t 'to qcow2' same_disk '-O qcow2' x.qcow2
t 'to compressed qcow2' same_disk '-O qcow2 -c' x.qcow2
t 'to a VMDK that is written in one pass' same_disk '-O vmdk -o subformat=streamOptimized' x.vmdk
t 'to VDI, by one thread' same_disk '-O vdi -m 1' x.vdi
t 'from compressed qcow2' sh -c "$img convert -O qcow2 -c gpt.raw s.qcow2 && $img convert --used-only -q s.qcow2 y.raw && cmp y.raw u.raw"
t 'to a pipe' sh -c "$img convert --used-only -q -O raw gpt.raw - | cmp - u.raw"
t 'over a target that is there' sh -c "cp gpt.raw n.raw && $img convert -q -n --used-only gpt.raw n.raw && cmp n.raw u.raw"
t 'once more changes nothing' sh -c "$img convert -q --used-only u.raw uu.raw && cmp u.raw uu.raw"
t 'an MBR disk' "$img" convert --used-only mbr.raw mu.raw
t 'what was deleted is not there' little_junk mbr.raw mu.raw
mbr_same() {
	cut_out mu.raw 1 40 q && same_ext q '1 2 4' && cut_out mu.raw 62 40 q && same_ext q '1 2 8' &&
		cut_out mu.raw 41 20 q && same_fat q && cut_out mu.raw 103 10 q && same_fat q &&
		[ "$(sfdisk -d mu.raw | sed 's/mu.raw//')" = "$(sfdisk -d mbr.raw | sed 's/mbr.raw//')" ]
}
t 'its files are the same' mbr_same
t 'a disk without a table' sh -c "$img convert -q --used-only p2 p2u && [ \$(stat -c %b p2u) -lt 40000 ]"
t 'has its files' same_ext p2u '1 2 4 5 6 7 8'

# ---- file systems of other shapes ----
shape() { # shape CHECK FILE [ARG...]
	check=$1 f=$2
	shift 2
	"$img" convert --used-only "$f" "$f.u" >said && cat said && grep -q 'free: dropped' said && "$check" "$f.u" "$@"
}
ext_shape() { # ext_shape OPTIONS
	rm -f e e.u
	# shellcheck disable=SC2086
	truncate -s 200M e && junk e && mkfs.ext4 -q -F -E nodiscard -d tree $1 e && shape same_ext e '1 2 3'
}
t 'ext4: 1 KiB blocks' ext_shape '-b 1024'
t 'ext4: clusters' ext_shape '-b 4096 -O bigalloc -C 16384'
t 'ext4: meta_bg, 64 bit' ext_shape '-b 1024 -O meta_bg,64bit,^resize_inode'
t 'ext4: no flex_bg, no checksums' ext_shape '-b 1024 -O ^flex_bg,^metadata_csum,^64bit'
t 'ext4: sparse_super2' ext_shape '-b 1024 -O sparse_super2'
t 'ext4: groups without bitmaps' ext_shape '-b 1024 -O uninit_bg,^metadata_csum'
t 'ext4: small groups' ext_shape '-b 1024 -g 1024'
xfs_shape() { rm -f x x.u && make_xfs x "$@" && shape same_xfs x; }
t 'XFS: version 4' xfs_shape 320M four -m crc=0
t 'XFS: 1 KiB blocks' xfs_shape 320M small -b size=1024
t 'XFS: many groups' xfs_shape 500M many -d agcount=6
t 'XFS: sectors of 4 KiB' xfs_shape 320M sect -s size=4096
btrfs_shape() { rm -f b b.u && make_btrfs b "$@" && shape same_btrfs b; }
t 'btrfs: single' btrfs_shape 300M b -m single -d single
t 'btrfs: data twice' btrfs_shape 300M b -m dup -d dup
t 'btrfs: mixed' btrfs_shape 100M b --mixed
t 'btrfs: small nodes' btrfs_shape 300M b -n 4096
t 'NTFS: small clusters' sh -c "truncate -s 50M n && mkntfs -q -F -Q -c 512 n 2>/dev/null >&2 && ntfscp -q n tree/data/f1 f1 && $img convert --used-only n n.u && ntfsfix -n n.u && ntfscat -f n.u f1 | cmp - tree/data/f1"
t 'NTFS: the spare boot sector is there' sh -c 'tail -c 512 n | cmp - n.u 2>/dev/null; tail -c 512 n >a; tail -c 512 n.u >b; cmp a b'
files_of_grown_ntfs() { # a table and a map in pieces
	rm -f n n.u
	truncate -s 60M n && mkntfs -q -F -Q n 2>/dev/null >&2 || return 1
	i=0
	while [ $i -lt 90 ]; do
		ntfscp -q n tree/data/f1 "g$i" || return 1
		i=$((i + 1))
	done
	"$img" convert --used-only n n.u && for i in 0 40 89; do ntfscat -f n.u "g$i" | cmp - tree/data/f1 || return 1; done
}
t 'NTFS: many files' files_of_grown_ntfs

# ---- what cannot be trusted is taken whole ----
whole() { # whole FILE TEXT
	"$img" convert --used-only "$1" w >said && cat said && grep -q "taken whole: .*$2" said && cmp "$1" w
}
t 'ext4 with an open journal' sh -c "cp p2 d && debugfs -w -R 'feature needs_recovery' d 2>/dev/null"
t 'is whole' whole d 'journal'
t 'ext4 whose counts are wrong' sh -c "cp p2 d && debugfs -w -R 'freeb 20000 50' d; debugfs -w -R 'setb 60000 3' d; debugfs -w -R 'ssv free_blocks_count 77' d"
t 'is whole, too' whole d 'differ'
t 'XFS with a changed tree' sh -c "cp --sparse=always p4 d && xfs_db -x -c 'agf 1' -c 'write -d bnoroot 77' d"
t 'is whole as well' whole d 'damaged'
t 'FAT that is mounted' sh -c "cp p1 d && printf '\001' | dd of=d bs=1 seek=65 conv=notrunc status=none"
t 'is whole again' whole d 'not unmounted'
t 'hibernated swap' sh -c "cp p3 d && printf 'S1SUSPEND\0' | dd of=d bs=1 seek=4086 conv=notrunc status=none"
t 'is whole once more' whole d 'hibernated'
t 'btrfs on two devices' sh -c "truncate -s 120M b1 b2 && mkfs.btrfs -q -f -d single -m single b1 b2"
t 'is whole at last' whole b1 'several'
t 'two partitions that overlap' sh -c "cp --sparse=always gpt.raw o.raw; printf 'label: dos\nstart=2048,size=81920,type=c\n' | sfdisk -q o.raw; printf '\0\0\0\0\203\0\0\0\0\100\0\0\0\0\1\0' | dd of=o.raw bs=1 seek=462 conv=notrunc status=none; $img convert --used-only o.raw w >said; cat said; grep -q 'overlaps' said && cmp o.raw w"

# ---- --partition, extract ----
t 'one partition: the table stays' sh -c "$img convert --partition 2 gpt.raw one.raw && $img list -j one.raw | grep -c '\"number\"' | grep -q 8 && [ \"\$(sfdisk -d one.raw | sed 's/one.raw//')\" = \"\$(sfdisk -d gpt.raw | sed 's/gpt.raw//')\" ]"
t 'it is whole' sh -c "cmp -i 42991616 -n 104857600 one.raw gpt.raw"
t 'the others are zeros' sh -c "cmp -n 67108864 -i 147849216:0 one.raw /dev/zero && cmp -n 41943040 -i 1048576:0 one.raw /dev/zero"
t 'two, and of them what is used' sh -c "$img convert --used-only --partition 2,8 gpt.raw two.raw >said; cat said; grep -q 'partition 4: 320 MiB dropped: not chosen' said && cmp -i 886046720 -n 20971520 two.raw gpt.raw && [ \$(stat -c %b two.raw) -lt 90000 ]"
t 'one that is not there' fails 'has no partition 9' "$img" convert --partition 9 gpt.raw no.raw
t 'nothing was made' sh -c '! [ -e no.raw ]'
t 'no number' exits 2 "$img" convert --partition x gpt.raw no.raw
t 'several images' exits 2 "$img" convert --used-only gpt.raw mbr.raw no.raw
t 'extract' sh -c "$img extract gpt.raw 2 -o e.raw && cmp e.raw p2"
t 'extract from and to other formats' sh -c "$img extract -O qcow2 -c s.qcow2 6 -o e.qcow2 && $img compare e.qcow2 p6"
t 'extract to VMDK in one pass' sh -c "$img extract -O vmdk s.qcow2 1 -o e.vmdk && $img compare e.vmdk p1"
t 'extract to a pipe' sh -c "$img extract s.qcow2 1 -o - | cmp - p1"
t 'extract a logical one' sh -c "$img extract mbr.raw 5 -o e.raw && cmp e.raw m5"
t 'extract one that is not there' fails 'has no partition 4' "$img" extract mbr.raw 4 -o no.raw
t 'extract to nowhere' exits 2 "$img" extract mbr.raw 1
done_testing

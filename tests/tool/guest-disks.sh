# guest-disks.sh - disks with file systems made by their own tools, without mounting anything; to be sourced.
# Paths are relative to the current folder.
PATH=$PATH:/usr/sbin:/sbin

# files DIR SEED: some files of known content, once
files() {
	[ ! -d "$1" ] || return 0
	mkdir -p "$1/etc" "$1/usr/lib" "$1/data/deep"
	printf 'NAME="Test Linux"\nPRETTY_NAME="Test Linux 7 (\\"seven\\")"\nVERSION_ID=7\n' >"$1/usr/lib/os-release"
	ln -sf ../usr/lib/os-release "$1/etc/os-release"
	for i in 1 2 3 4 5 6 7 8; do
		seq "$i" "$(($2 * 1000 + i * 7000))" >"$1/data/f$i"
	done
	head -c 3000000 /dev/urandom >"$1/data/deep/random"
}

# A file system of SIZE with files in it, and with junk where files were deleted.
make_ext() { # make_ext TYPE FILE SIZE LABEL
	rm -f "$2"
	truncate -s "$3" "$2" && junk "$2" &&
		mkfs."$1" -q -F -L "$4" -E nodiscard -d tree "$2" &&
		debugfs -w -R 'rm /data/f3' "$2" 2>/dev/null
}
make_xfs() { # make_xfs FILE SIZE LABEL [OPTION...]
	f=$1 size=$2 label=$3
	shift 3
	rm -f "$f"
	{
		printf '/dev/null\n0 0\nd--755 0 0\ndata d--755 0 0\n'
		for i in 1 2 4 5; do echo "f$i ---644 0 0 $PWD/tree/data/f$i"; done
		printf '$\n$\n'
	} >proto
	truncate -s "$size" "$f" && junk "$f" && mkfs.xfs -q -K -L "$label" -p proto "$@" "$f"
}
make_btrfs() { # make_btrfs FILE SIZE LABEL [OPTION...]
	f=$1 size=$2 label=$3
	shift 3
	rm -f "$f"
	truncate -s "$size" "$f" && junk "$f" && mkfs.btrfs -q -K -L "$label" --rootdir tree "$@" "$f" >/dev/null
}
make_fat() { # make_fat BITS FILE SIZE LABEL
	rm -f "$2"
	truncate -s "$3" "$2" && junk "$2" && mkfs.vfat -F "$1" -n "$4" "$2" >/dev/null &&
		mcopy -i "$2" tree/data/f1 tree/data/f2 tree/data/f3 ::/ && mdel -i "$2" ::/f2 &&
		mmd -i "$2" ::/EFI ::/EFI/BOOT ::/EFI/Microsoft &&
		mcopy -i "$2" tree/data/f4 ::/EFI/BOOT/BOOTX64.EFI
}
make_exfat() { # make_exfat FILE SIZE LABEL
	rm -f "$1"
	truncate -s "$2" "$1" && junk "$1" && mkfs.exfat -L "$3" "$1" >/dev/null
}
make_ntfs() { # make_ntfs FILE SIZE LABEL
	rm -f "$1"
	truncate -s "$2" "$1" && junk "$1" && mkntfs -q -F -Q -L "$3" "$1" >/dev/null 2>&1 &&
		for i in 1 2 3 4; do ntfscp -q "$1" "tree/data/f$i" "f$i" >/dev/null 2>&1 || return 1; done
}
make_swap() { # make_swap FILE SIZE LABEL
	rm -f "$1"
	truncate -s "$2" "$1" && junk "$1" && mkswap -q -L "$3" "$1" 2>/dev/null
}
# Something that is no zero, where nothing is used later.
junk() {
	size=$(stat -c %s "$1")
	yes 'what was deleted' | dd of="$1" bs=1M seek=$((size / 2097152)) count=$((size / 4194304)) \
		iflag=fullblock conv=notrunc status=none
}
# put FILE DISK MIB: copies it to there
put() {
	dd if="$1" of="$2" bs=1M seek="$3" conv=notrunc,sparse status=none
}
# cut DISK MIB SIZE-MIB FILE
cut_out() {
	rm -f "$4"
	dd if="$1" of="$4" bs=1M skip="$2" count="$3" conv=sparse status=none
}

make_gpt() { # make_gpt DISK: eight partitions, 700 MiB
	files tree 5
	rm -f "$1"
	truncate -s 1100M "$1" &&
		sfdisk -q "$1" <<'SFDISK' &&
label: gpt
label-id: 11111111-2222-3333-4444-555555555555
size=40M, type=U, name="esp"
size=100M, type=L, name="root", uuid=AAAAAAAA-2222-3333-4444-555555555555
size=64M, type=S
size=320M, type=L, name="data"
size=160M, type=L
size=100M, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
size=60M, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
size=20M, type=L, attrs=LegacyBIOSBootable
SFDISK
		make_fat 32 p1 40M ESP && put p1 "$1" 1 &&
		make_ext ext4 p2 100M rootfs && put p2 "$1" 41 &&
		make_swap p3 64M swapper && put p3 "$1" 141 &&
		make_xfs p4 320M xdata && put p4 "$1" 205 &&
		make_btrfs p5 160M bdata && put p5 "$1" 525 &&
		make_ntfs p6 100M ndata && put p6 "$1" 685 &&
		make_exfat p7 60M edata && put p7 "$1" 785 &&
		yes 'raw data' | dd of="$1" bs=1M seek=845 count=20 iflag=fullblock conv=notrunc status=none
}
make_mbr() { # make_mbr DISK: with logical partitions
	files tree 5
	rm -f "$1"
	truncate -s 260M "$1" &&
		sfdisk -q "$1" <<'SFDISK' &&
label: dos
label-id: 0xcafebabe
start=2048, size=40M, type=83, bootable
start=83968, size=20M, type=c
start=124928, type=f
start=126976, size=40M, type=83
start=210944, size=10M, type=6
SFDISK
		make_ext ext3 m1 40M old && put m1 "$1" 1 &&
		make_fat 16 m2 20M DOS && put m2 "$1" 41 &&
		make_ext ext2 m5 40M logical && put m5 "$1" 62 &&
		make_fat 12 m6 10M SMALL && put m6 "$1" 103
}

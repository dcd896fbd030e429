#!/bin/sh
# img-read.t - images that qemu-img made, read by lib/img: the bytes are those that qemu-img reads. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
cd "$TMP" || exit 1

# 24 MiB of text, noise, holes and zeros, with an odd length.
make_disk() {
	truncate -s 25166336 disk.raw
	seq 1 300000 | dd of=disk.raw bs=4096 seek=10 conv=notrunc status=none
	head -c 700000 /dev/urandom | dd of=disk.raw bs=4096 seek=1000 conv=notrunc status=none
	seq 5 3 200000 | dd of=disk.raw bs=1000 seek=9001 conv=notrunc status=none
	head -c 2000000 /dev/zero | dd of=disk.raw bs=4096 seek=2900 conv=notrunc status=none
	head -c 300000 /dev/urandom | dd of=disk.raw bs=512 seek=47000 conv=notrunc status=none
	printf end | dd of=disk.raw bs=1 seek=25166333 conv=notrunc status=none
}

# same IMAGE [RAW]: what imgio reads is what RAW, or qemu-img's reading of it, says.
same() {
	[ -n "$2" ] || qemu-img convert -O raw "$1" want.raw || return 1
	timeout 60 "$imgio" -r "$1" cat >got.raw || return 1
	cmp got.raw "${2:-want.raw}"
}

# made OPTIONS CONVERT-OPTIONS...: an image with these is read right.
made() {
	options=$1
	shift
	rm -f x.qcow2 x.data
	qemu-img convert -f raw -O qcow2 ${options:+-o "$options"} "$@" disk.raw x.qcow2 &&
		same x.qcow2 disk.raw
}

make_disk
t 'raw' same disk.raw disk.raw
for o in compat=0.10 compat=1.1 \
	cluster_size=512 cluster_size=1k cluster_size=4k cluster_size=32k cluster_size=2M \
	compat=0.10,cluster_size=512 \
	extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M \
	refcount_bits=1 refcount_bits=2 refcount_bits=4 refcount_bits=8 refcount_bits=32 refcount_bits=64 \
	lazy_refcounts=on preallocation=metadata preallocation=falloc preallocation=full \
	data_file=x.data data_file=x.data,data_file_raw=on extended_l2=on,data_file=x.data; do
	t "qcow2 $o" made "$o"
done
for o in compression_type=zlib compression_type=zstd \
	compression_type=zlib,cluster_size=512 compression_type=zstd,cluster_size=4k \
	compression_type=zlib,cluster_size=2M compression_type=zstd,cluster_size=2M \
	extended_l2=on,compression_type=zstd compat=0.10; do
	t "compressed qcow2 $o" made "$o" -c
done

# ---- chains ----
chain() {
	mkdir -p sub
	qemu-img create -q -f qcow2 -b ../disk.raw -F raw sub/one.qcow2 30M &&
		qemu-img create -q -f qcow2 -o cluster_size=4k -b sub/one.qcow2 -F qcow2 two.qcow2 20M &&
		qemu-img create -q -f qcow2 -o extended_l2=on -b "$TMP/two.qcow2" -F qcow2 three.qcow2 40M &&
		qemu-io -c 'write -P 1 100k 300k' -c 'write -P 2 26M 1M' -c 'write -z 1M 700k' sub/one.qcow2 &&
		qemu-io -c 'write -P 3 130k 5k' -c 'write -P 4 19M 512' -c 'write -z -u 9M 64k' two.qcow2 &&
		qemu-io -c 'write -P 5 132k 512' -c 'write -P 6 21M 3k' -c 'write -z 12M 6k' three.qcow2 &&
		same three.qcow2 && same two.qcow2 && same sub/one.qcow2
}
t 'a chain of four, of different sizes, clusters and folders' chain
t 'the map goes down the chain' says '19922944 4096 data 1' "$imgio" -r three.qcow2 map
rebased() {
	qemu-img create -q -f qcow2 -b disk.raw -F raw x.qcow2 && qemu-img rebase -u -F '' -b disk.raw x.qcow2
	same x.qcow2 disk.raw
}
t 'a backing file without a format in the header' rebased
t 'without backing files, what is in them is an error' fails 'No such device or address' "$imgio" -r -b three.qcow2 cat
t 'but the image is told about' says 'backing two.qcow2' sh -c "$imgio -r -b three.qcow2 info | sed s,$TMP/,,"

# ---- internal snapshots ----
snapshots() {
	qemu-img convert -O qcow2 disk.raw x.qcow2 && qemu-img snapshot -c a x.qcow2 &&
		qemu-io -c 'write -P 7 1M 300k' -c 'discard 2M 1M' x.qcow2 &&
		qemu-img snapshot -c b x.qcow2 && qemu-io -c 'write -P 8 1100k 64k' x.qcow2 && same x.qcow2
}
t 'internal snapshots' snapshots
t 'are counted' says 'snapshots 2' "$imgio" -r x.qcow2 info

# ---- what is refused ----
loop() {
	qemu-img create -q -f qcow2 loop.qcow2 1M && qemu-img rebase -u -b loop.qcow2 -F qcow2 loop.qcow2
}
loop
t 'a backing file that is the image' fails 'is a loop' timeout 10 "$imgio" -r loop.qcow2 cat
loop2() {
	qemu-img create -q -f qcow2 l1.qcow2 1M
	qemu-img create -q -f qcow2 -b l1.qcow2 -F qcow2 l2.qcow2
	ln -s l2.qcow2 l3.qcow2
	qemu-img rebase -u -b l3.qcow2 -F qcow2 l1.qcow2
}
loop2
t 'a loop through a link' fails 'is a loop' timeout 10 "$imgio" -r l2.qcow2 cat
deep() {
	qemu-img create -q -f qcow2 d0 1M
	i=0
	while [ $i -lt 202 ]; do
		qemu-img create -q -u -f qcow2 -b d$i -F qcow2 d$((i + 1)) 1M
		i=$((i + 1))
	done
}
deep
t 'a chain of 202 files' fails 'longer than 200' timeout 20 "$imgio" -r d202 cat
t 'a chain of 200 files' timeout 20 "$imgio" -r d200 info
qemu-img create -q -u -f qcow2 -b nothere -F raw x.qcow2 1M
t 'a missing backing file' fails "cannot open 'nothere': No such file or directory" "$imgio" -r x.qcow2 cat
qemu-img create -q -u -f qcow2 -b nbd://localhost/x -F raw x.qcow2 1M
t 'a backing file behind a protocol' fails 'only files can be opened' "$imgio" -r x.qcow2 cat
qemu-img create -q -u -f qcow2 -b disk.raw -F blkdebug x.qcow2 1M
t 'a backing format that is not known' fails "format 'blkdebug' is not known" "$imgio" -r x.qcow2 cat
mkfifo pipe
t 'a FIFO' fails "'pipe' is neither a regular file nor a block device" timeout 5 "$imgio" -r pipe cat
t 'a folder' fails "'sub' is neither" "$imgio" -r sub cat
# Marked as LUKS by hand: qemu-img measures the computer's speed for that, and fails when it is busy.
qemu-img create -q -f qcow2 x.qcow2 1M
printf '\000\000\000\002' | dd of=x.qcow2 bs=1 seek=32 conv=notrunc 2>/dev/null
t 'an encrypted image without its header' fails 'a LUKS header of 0 bytes' "$imgio" -r x.qcow2 cat
# byte IMAGE OFFSET OCTAL
byte() {
	printf "\\$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
qemu-img create -q -f qcow2 x.qcow2 1M
byte x.qcow2 79 040
t 'an incompatible feature that is not known' fails 'needs feature 5' "$imgio" -r x.qcow2 cat
byte x.qcow2 79 002
t 'a corrupt image is read' exits 0 "$imgio" -r x.qcow2 info
t 'but not written' fails 'marked corrupt' "$imgio" x.qcow2 info
byte x.qcow2 79 001
t 'a dirty image is repaired when it is opened for writing' sh -c "cp x.qcow2 d.qcow2; $imgio d.qcow2 info && qemu-img info --output=json d.qcow2 | grep '\"dirty-flag\": false'"
byte x.qcow2 23 040
t 'clusters of 2^32 bytes' fails 'clusters of 2^32 bytes' "$imgio" -r x.qcow2 info

# ---- locks ----
qemu-img create -q -f qcow2 x.qcow2 1M
holds() { # holds HOLDER -- COMMAND: COMMAND, while HOLDER has the image open
	mkfifo hold.in hold.out
	sh -c "$1" <hold.in >hold.out 2>&1 &
	exec 3>hold.in 4<hold.out
	read -r _ <&4
	shift 2
	"$@"
	rc=$?
	exec 3>&- 4<&-
	wait
	rm -f hold.in hold.out
	return $rc
}
cat >qio.sh <<'E'
{ echo 'read 0 512'; cat; } | stdbuf -oL qemu-io x.qcow2
E
qemu_holds='sh qio.sh'
t 'an image that QEMU writes to is not opened' holds "$qemu_holds" -- fails "'x.qcow2' is in use" "$imgio" -r x.qcow2 info
t 'unless asked for' holds "$qemu_holds" -- "$imgio" -r -U x.qcow2 info
t 'QEMU does not open an image that is written here' holds "$imgio x.qcow2 hold" -- says 'lock' qemu-img info x.qcow2
t 'nor do we' holds "$imgio x.qcow2 hold" -- fails 'is in use' "$imgio" -r x.qcow2 info
t 'two may read' holds "$imgio -r x.qcow2 hold" -- "$imgio" -r x.qcow2 info
t 'QEMU may read, too' holds "$imgio -r x.qcow2 hold" -- qemu-img info x.qcow2
t 'nobody writes what is being read' holds "$imgio -r x.qcow2 hold" -- fails 'is in use' "$imgio" x.qcow2 info
done_testing

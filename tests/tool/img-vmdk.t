#!/bin/sh
# img-vmdk.t - VMDK images: those of qemu-img read and changed here, those made here read by qemu-img; COWD, SEsparse
# and damaged ones come from vmdk-images.py. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/vmdk-images.py"
cd "$TMP" || exit 1
SEED=${SEED:-1}
truncate -s 12000768 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none

same() { # same IMAGE RAW
	timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"
}
sound() { # sound IMAGE MODEL
	"$img" check -q "$1" && { qemu-img check -q -f vmdk "$1" || [ $? = 63 ]; } &&
		qemu-img compare -q -f vmdk -F raw "$1" "$2"
}
random() { # random IMAGE MODEL
	timeout 100 "$imgio" -n "$1" random "$SEED" 200 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 300 4 4096 "$2"
}
by_qemu() { # by_qemu OPTIONS
	rm -f x*.vmdk
	cp disk.raw model.raw
	qemu-img convert -f raw -O vmdk -o "$1" disk.raw x.vmdk && same x.vmdk disk.raw &&
		random x.vmdk model.raw && sound x.vmdk model.raw && same x.vmdk model.raw
}
ours() { # ours OPTIONS
	rm -f x*.vmdk
	cp disk.raw model.raw
	"$img" convert -q -f raw -O vmdk -o "$1" disk.raw x.vmdk && sound x.vmdk disk.raw && same x.vmdk disk.raw &&
		random x.vmdk model.raw && sound x.vmdk model.raw
}
for s in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
	t "$s of qemu-img" by_qemu "subformat=$s"
	t "$s made here" ours "subformat=$s"
done
t 'marked zeros' ours zeroed_grain=on
t 'of qemu-img' by_qemu zeroed_grain=on
t 'vmfs' ours subformat=vmfs
cowd() {
	rm -f x*.vmdk
	cp disk.raw model.raw
	"$img" convert -q -O vmdk -o subformat=vmfsSparse disk.raw x.vmdk && same x.vmdk disk.raw &&
		random x.vmdk model.raw && same x.vmdk model.raw && "$img" check -q x.vmdk &&
		qemu-img compare -q -f vmdk -F raw x.vmdk model.raw
}
t 'vmfsSparse' cowd
t 'a disk in three files' sh -c "$img create -q -f vmdk -o subformat=twoGbMaxExtentSparse big.vmdk 5G &&
	qemu-io -f vmdk -c 'write -P 7 2147480000 20000' big.vmdk >/dev/null && ls big-s003.vmdk >/dev/null &&
	$imgio -r big.vmdk info | grep -q 5368709120"

# ---- streams ----
stream_ours() {
	"$img" convert -q -O vmdk -o subformat=streamOptimized disk.raw s.vmdk && sound s.vmdk disk.raw && same s.vmdk disk.raw
}
t 'a stream made here' stream_ours
t 'a stream of qemu-img' sh -c "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw q.vmdk && $img check -q q.vmdk &&
	$imgio -r q.vmdk cat | cmp - disk.raw"
t 'a stream to a pipe' sh -c "$img convert -O vmdk disk.raw - | cat >p.vmdk && qemu-img compare -f vmdk -F raw p.vmdk disk.raw"
t 'an empty stream' sh -c "$img create -q -f vmdk -o subformat=streamOptimized e.vmdk 1G && qemu-img convert -f vmdk -O raw e.vmdk e.raw &&
	[ \$(stat -c %b e.raw) -lt 100 ]"
t 'a stream of nothing' sh -c "$img create -q -f vmdk -o subformat=streamOptimized e0.vmdk 0 && $img info e0.vmdk >/dev/null"
t 'a stream is not written to' fails 'written in one pass' "$imgio" s.vmdk write 0 512 1
cut() { head -c "$(($(stat -c %s s.vmdk) - 1024))" s.vmdk >c.vmdk && fails 'without its end' "$imgio" -r c.vmdk info; }
t 'a stream that was cut is refused' cut

# ---- parents ----
child() {
	rm -f kid.vmdk parent.vmdk
	cp disk.raw model.raw
	"$img" convert -q -O vmdk disk.raw parent.vmdk &&
		"$img" create -q -f vmdk -o "$1" -b parent.vmdk -F vmdk kid.vmdk && same kid.vmdk disk.raw &&
		random kid.vmdk model.raw && same kid.vmdk model.raw && qemu-img compare -q -f vmdk -F raw kid.vmdk model.raw &&
		same parent.vmdk disk.raw
}
t 'a child with marked zeros' child zeroed_grain=on
t 'a child' child zeroed_grain=off
child_qemu() {
	rm -f kid.vmdk
	cp disk.raw model.raw
	qemu-img create -q -f vmdk -b parent.vmdk -F vmdk kid.vmdk && same kid.vmdk disk.raw && random kid.vmdk model.raw &&
		qemu-img compare -q -f vmdk -F raw kid.vmdk model.raw
}
t 'a child of qemu-img' child_qemu
changed() { "$imgio" parent.vmdk write 0 512 9 && fails 'was changed after it was made' "$imgio" -r kid.vmdk cat; }
t 'a parent that was changed is noticed' changed

# ---- what it names ----
desc() { # desc LINES...
	printf '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=%s\ncreateType="custom"\n' "${PARENT:-ffffffff}" >d.vmdk
	for l; do printf '%s\n' "$l" >>d.vmdk; done
}
named() { m=$1; shift; desc "$@"; fails "$m" timeout 10 "$img" check d.vmdk; }
t 'a file elsewhere is not opened' named 'outside the image' 'RW 1 FLAT "/etc/passwd" 0'
t 'nor one above' named 'outside the image' 'RW 1 FLAT "../../etc/passwd" 0'
t 'nor the descriptor itself' named 'is a file of that image already' 'RW 0 FLAT "d.vmdk" 0'
t 'no extent' named 'names no extent'
t 'an extent twice' named 'is a file of that image already' 'RW 1 FLAT "disk.raw" 0' 'RW 1 FLAT "disk.raw" 0'
t 'an extent that is too short' named 'too short' 'RW 99999999 FLAT "disk.raw" 0'
t 'a size that is none' named 'line 6 of its descriptor' 'RW 99999999999999999999 FLAT "disk.raw" 0'
t 'an unknown kind' named 'of kind RDM' 'RW 4 RDM "disk.raw" 0'
t 'sizes that add up to too much' named 'too large' 'RW 9000000000000000 ZERO' 'RW 9000000000000000 ZERO'
PARENT=00000001
t 'a parent without a name' named 'does not name it' 'RW 4 ZERO'
named_read() { m=$1; shift; desc "$@"; fails "$m" timeout 10 "$imgio" -r d.vmdk info; }
t 'its own parent' named_read 'its own backing file' 'RW 4 ZERO' 'parentFileNameHint="d.vmdk"'
PARENT=
zeros() { desc 'RW 100 FLAT "disk.raw" 400' 'RW 50 ZERO' && { dd if=disk.raw bs=512 skip=400 count=100 status=none; head -c 25600 /dev/zero; } >m.raw && same d.vmdk m.raw; }
t 'flat from an offset, then zeros' zeros
t 'a descriptor alone is recognized' says 'format vmdk' "$imgio" -r d.vmdk info

# ---- by hand ----
t 'SEsparse' sh -c "$make se se disk.raw && printf '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"seSparse\"\nRW 23439 SESPARSE \"se\"\n' >sed.vmdk &&
	$imgio -r sed.vmdk cat | cmp - disk.raw"
t 'SEsparse is read by qemu-img alike' qemu-img compare -q -f vmdk -F raw sed.vmdk disk.raw
bad() { m=$1; shift; $make sparse bad.vmdk "$@" && fails "$m" timeout 10 sh -c "$imgio ${FLAGS--r} bad.vmdk cat >cat.raw"; }
t 'one by hand' sh -c "$make sparse a.vmdk && $img check -q a.vmdk"
t 'grains of 0 bytes' bad 'a power of two' grain=0
t 'grains of 2^31 sectors' bad 'a power of two' grain=2147483648
t 'grains of 3 sectors' bad 'a power of two' grain=3
t 'tables of 0 entries' bad 'entries of a grain table' gtes=0
t 'tables of 2^32 - 1 entries' bad 'entries of a grain table' gtes=4294967295
t 'a disk of 2^64 - 1 sectors' bad 'is damaged: sectors' capacity=18446744073709551615
t 'an oversized directory' bad 'directory' capacity=9000000000000
t 'a directory behind the end' bad 'behind the end' gd=1000000
t 'a table behind the end' bad 'Input/output error' gde0=100000
t 'a grain behind the end' bad 'Input/output error' gte1=4000000
t 'version 9' bad 'version 9' version=9
t 'transferred as text' bad 'transferred as text' newlines=0
FLAGS=
t 'grains twice are not written' bad 'is damaged in 1 places' gte1=128 gte2=128
t 'a grain over the tables is not written' bad 'is damaged in' gte1=21
t 'and found by the check' sh -c "$make sparse bad.vmdk gte1=21; $img check -q bad.vmdk; [ \$? = 3 ]"
t 'a table twice is found' sh -c "$make sparse bad.vmdk gde1=22; $img check -q bad.vmdk; [ \$? = 3 ]"
FLAGS=-r
t 'a compressed grain of 4 GiB' bad 'Input/output error' compressed=1 gte1=128 packed=4294967295
t 'a compressed grain of junk' bad 'Input/output error' compressed=1 gte1=128 packed=40
done_testing

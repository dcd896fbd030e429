#!/bin/sh
# img-write.t - images changed by lib/img, at random and beside a raw file changed alike: then qemu-img finds
# no fault and reads the same. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
cd "$TMP" || exit 1
SEED=${SEED:-1}
{
	seq 1 200000
	head -c 500000 /dev/urandom
} >text
truncate -s 12000768 disk.raw
dd if=text of=disk.raw bs=4096 seek=50 conv=notrunc status=none

# sound IMAGE MODEL: no fault, and the same bytes.
sound() {
	case $1 in *.raw) ;; *) qemu-img check -q -f qcow2 "$1" || return 1 ;; esac
	qemu-img compare -f "${1##*.}" -F raw "$1" "$2"
}

# changed IMAGE MODEL: one thread in large pieces, then four whose pieces share clusters.
changed() {
	timeout 100 "$imgio" -n "$1" random "$SEED" 500 1 1000000 "$2" && sound "$1" "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 500 4 4096 "$2" && sound "$1" "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 2))" 100 3 131072 "$2" && sound "$1" "$2"
}

# by_qemu OPTIONS CONVERT-OPTIONS...: an image that qemu-img made, changed.
by_qemu() {
	options=$1
	shift
	rm -f x.qcow2 x.data
	cp --sparse=always disk.raw model.raw
	qemu-img convert -f raw -O qcow2 ${options:+-o "$options"} "$@" disk.raw x.qcow2 &&
		changed x.qcow2 model.raw
}

cp disk.raw x.raw && cp disk.raw model.raw
t 'raw' changed x.raw model.raw
for o in compat=0.10 compat=1.1 cluster_size=512 cluster_size=4k cluster_size=2M \
	extended_l2=on extended_l2=on,cluster_size=16k extended_l2=on,cluster_size=2M \
	refcount_bits=1 refcount_bits=2,cluster_size=512 refcount_bits=4 refcount_bits=8 \
	refcount_bits=32,cluster_size=512 refcount_bits=64,cluster_size=512 \
	lazy_refcounts=on preallocation=metadata preallocation=full \
	data_file=x.data data_file=x.data,data_file_raw=on extended_l2=on,data_file=x.data; do
	t "qcow2 $o" by_qemu "$o"
done
t 'a raw data file is the disk' sh -c '
	qemu-img create -q -f qcow2 -o data_file=y.data,data_file_raw=on y.qcow2 5M
	truncate -s 5M y.model
	'"$imgio"' -n y.qcow2 random 4 500 1 100000 y.model && cmp y.data y.model'
for o in compression_type=zlib compression_type=zstd compression_type=zstd,cluster_size=512 \
	extended_l2=on,compression_type=zlib compat=0.10 compression_type=zlib,cluster_size=2M; do
	t "compressed qcow2 $o" by_qemu "$o" -c
done

# ---- images of our own ----
ours() { # ours SIZE OPTIONS...
	rm -f x.qcow2 model.raw
	truncate -s "$1" model.raw && "$imgio" create x.qcow2 qcow2 "$@" && sound x.qcow2 model.raw &&
		changed x.qcow2 model.raw
}
t 'made here' ours 20M
t 'made here: version 2' ours 20000256 version=2
t 'made here: small clusters, a growing reference count table' ours 30M cluster=512 bits=64
t 'made here: subclusters' ours 20M ext
t 'made here: large clusters' ours 20M cluster=2097152 bits=8
over() { # over OPTIONS...: in front of a smaller backing file
	rm -f x.qcow2
	cp disk.raw model.raw && truncate -s 15M model.raw
	"$imgio" create x.qcow2 qcow2 15M back=disk.raw,raw "$@" && sound x.qcow2 model.raw &&
		changed x.qcow2 model.raw
}
cp disk.raw before.raw
t 'in front of a backing file' over
t 'in front of a backing file: version 2' over version=2
t 'in front of a backing file: subclusters' over ext
t 'in front of a backing file: small clusters' over cluster=512
t 'which was not changed' cmp disk.raw before.raw
t 'the size of the backing file' says 'size 12000768' sh -c "
	$imgio create s.qcow2 qcow2 0 back=disk.raw,raw && $imgio s.qcow2 info"

# ---- internal snapshots ----
snapshots() { # snapshots OPTIONS
	rm -f x.qcow2
	cp disk.raw model.raw
	qemu-img convert -O qcow2 -o "$1" disk.raw x.qcow2 && qemu-img snapshot -c a x.qcow2 &&
		changed x.qcow2 model.raw && cp model.raw model2.raw && qemu-img snapshot -c b x.qcow2 &&
		changed x.qcow2 model.raw && qemu-img convert -l a -O raw x.qcow2 a.raw && cmp a.raw disk.raw &&
		qemu-img convert -l b -O raw x.qcow2 b.raw && cmp b.raw model2.raw &&
		qemu-img snapshot -d a x.qcow2 && qemu-img snapshot -d b x.qcow2 && changed x.qcow2 model.raw
}
t 'internal snapshots keep what they have' snapshots cluster_size=64k
t 'internal snapshots, subclusters' snapshots extended_l2=on
t 'internal snapshots, small clusters, version 2' snapshots compat=0.10,cluster_size=512
t 'internal snapshots, 2-bit counts' snapshots refcount_bits=2,cluster_size=4k

# ---- snapshot mode ----
discarded() {
	sum=$(cat "$1"* | cksum)
	qemu-img convert -O raw "$1" model.raw && stamp=$(stat -c %Y.%s "$1") &&
		timeout 100 "$imgio" -s "$1" random "$SEED" 500 4 8192 model.raw &&
		timeout 100 "$imgio" -s "$1" cat >got.raw && qemu-img compare -F raw "$1" got.raw &&
		[ "$sum" = "$(cat "$1"* | cksum)" ] && [ "$stamp" = "$(stat -c %Y.%s "$1")" ]
}
t 'snapshot mode leaves a raw file alone' discarded disk.raw
chmod a-w disk.raw
t 'snapshot mode needs no write permission' discarded disk.raw
chmod u+w disk.raw
t 'snapshot mode leaves a qcow2 image alone' discarded x.qcow2
t 'and no temporary file behind' sh -c "TMPDIR=$TMP/tmp; mkdir \$TMPDIR; export TMPDIR
	$imgio -s x.qcow2 write 0 5M 1 && [ -z \"\$(ls \$TMPDIR)\" ]"
# Its size is no whole number of clusters, sectors or anything.
head -c 1000001 text >odd.raw
t 'snapshot mode of an odd size' discarded odd.raw

# ---- what else a write does ----
bitmap() {
	qemu-img create -q -f qcow2 x.qcow2 5M && qemu-img bitmap --add x.qcow2 b || return 1
	"$imgio" x.qcow2 info && qemu-img info x.qcow2 | grep -q 'name: b' &&
		qemu-img bitmap --add --disable x.qcow2 c && "$imgio" x.qcow2 write 0 512 1 &&
		qemu-img info --output=json x.qcow2 >info && python3 - <<-'END'
	import json
	bitmaps = json.load(open('info'))['format-specific']['data']['bitmaps']
	assert {b['name']: 'in-use' in b['flags'] for b in bitmaps} == {'b': True, 'c': False}
	END
}
t 'a write, not opening alone, makes bitmaps invalid that follow writes' bitmap
discards() {
	rm -f x.qcow2
	qemu-img convert -O qcow2 disk.raw x.qcow2 && before=$(stat -c %b x.qcow2) &&
		"$imgio" x.qcow2 discard 0 10M && after=$(stat -c %b x.qcow2) && echo "$before $after" &&
		[ $((before - after)) -gt 2500 ] && qemu-img check x.qcow2 &&
		"$imgio" x.qcow2 write 1M 1M 7 && [ "$(stat -c %s x.qcow2)" -lt 13000000 ]
}
t 'discarding gives space back, and it is used again' discards
guarded() {
	truncate -s 1M probed.raw
	"$imgio" create y.qcow2 qcow2 1M && head -c 512 y.qcow2 >head || return 1
	"$imgio" probed.raw write 0 512 81 && "$imgio" -f raw probed.raw write 0 4k 0
}
t 'a guessed raw image is written' guarded
crash() { # after a crash, clusters may be lost but no reference is wrong
	for s in 1 2 3 4; do
		rm -f x.qcow2
		truncate -s 12000768 model.raw
		cp disk.raw model.raw
		qemu-img convert -O qcow2 -o "$1" disk.raw x.qcow2
		"$imgio" -n x.qcow2 random $((SEED + s)) 400 2 40000 model.raw crash || return 1
		qemu-img check x.qcow2
		case $? in 0 | 3) ;; *) return 1 ;; esac
	done
}
t 'a crash leaves nothing worse than lost clusters' crash cluster_size=4k
t 'a crash, 512-byte clusters' crash cluster_size=512,refcount_bits=64
t 'writing behind the end is an error' fails 'Invalid argument' "$imgio" x.qcow2 write 12000000 1000 1
t 'writing to a read-only image is an error' fails 'Read-only file system' "$imgio" -r x.qcow2 write 0 512 1
t 'a full disk is an error' sh -c "ulimit -f 8000; trap '' XFSZ
	$imgio create y.qcow2 qcow2 50M; $imgio y.qcow2 write 0 20M 1; [ \$? = 1 ] && qemu-img check y.qcow2 || [ \$? = 3 ]"

# ---- making ----
t 'clusters of a wrong size' fails 'a power of two' "$imgio" create y.qcow2 qcow2 1M cluster=1000
t 'counts of a wrong width' fails 'reference counts of 3 bits' "$imgio" create y.qcow2 qcow2 1M bits=3
t 'too large for its clusters' fails 'use larger clusters' "$imgio" create y.qcow2 qcow2 1T cluster=512
t 'a backing file for a raw image' fails 'use qcow2' "$imgio" create y.raw raw 1M back=disk.raw,raw
t 'nothing is left of an image that could not be made' [ ! -e y.raw ]
done_testing

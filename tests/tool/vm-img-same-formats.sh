# vm-img-same-formats.sh - the scripts of vm-img-same-formats.t.

# ---- the other formats: what qemu-img documents, at least ten cases each ----
# about FORMAT: of x.FORMAT, which qemu-img made
about() {
	m="$theirs convert -O $1 ${2:+-o $2} disk.raw x.$1"
	same "$1: info${2:+ ($2)}" "$m && qemu-img info x.$1 | sed 's/format: *[A-Z]*$/format:/; /cid:/d' | sort"
	# QEMU says nothing of the extents of its own sparse VMDK images
	same "$1: info, JSON${2:+ ($2)}" "$m && qemu-img info --output=json x.$1 | sed 's/\"format\": \"[A-Z]*\"/\"format\": \"\"/'"
	# of these QEMU does not tell where the host's file has holes
	case $1$2 in vpc* | vhdx* | parallels* | *Flat) ;; *)
		same "$1: map, JSON${2:+ ($2)}" "$m && qemu-img map --output=json x.$1" ;;
	esac
	same "$1: to raw${2:+ ($2)}" "$m && qemu-img convert -f $1 -O raw x.$1 y.raw" y.raw
	# a VHD's size is not rounded up here
	set -- "$1" "$2" "$([ "$1" = vpc ] && echo force_size=on)"
	same "$1: made${2:+ ($2)}" "qemu-img convert -O $1 ${2:+-o $2} ${3:+-o $3} disk.raw x.$1" x.$1
}
# rest FORMAT IMAGE: commands that it can or cannot do, by status and output; PREPARE makes the image
rest() {
	same "$1: compare" "$3; qemu-img compare -f $1 -F raw $2 disk.raw && qemu-img compare $2 other.raw"
	same "$1: dd" "$3; qemu-img dd -f $1 -O raw if=$2 of=y.raw bs=64k skip=3 count=20" y.raw
	same "$1: to qcow2, a part in front of a backing file" "$3; qemu-img convert -f $1 -B disk.raw -F raw -O qcow2 $2 y.qcow2" y.qcow2
	[ "$1" = vpc ] || same "$1: check" "$3; qemu-img check -f $1 $2 >/dev/null"
	same "$1: snapshot -l" "$3; qemu-img snapshot -l $2"
	same "$1: snapshot -c" "$3; qemu-img snapshot -c one $2"
	same "$1: bitmap" "$3; qemu-img bitmap --add -f $1 $2 b"
	same "$1: amend" "$3; qemu-img amend -f $1 -o nosuch=1 $2"
	same "$1: rebase" "$3; qemu-img rebase -f $1 -b disk.raw -F raw $2; echo \$?"
	same "$1: commit" "$3; qemu-img commit -f $1 -q $2"
	same "$1: measure as raw" "$3; qemu-img measure -f $1 -O raw --output=json $2"
	same "$1: a snapshot that is not there" "$3; qemu-img convert -f $1 -l one -O raw $2 y.raw"
	same "$1: taken for another format" "$3; qemu-img info -f vhdx $2 >/dev/null; qemu-img info -f qcow2 $2"
}
theirs=$(command -v qemu-img)
for f in vdi vmdk vhdx vpc parallels qed; do
	about $f
	rest $f x.$f "$theirs convert -O $f disk.raw x.$f"
	size=$([ $f = vpc ] && echo '-o force_size=on')
	same "$f: create" "qemu-img create -q -f $f $size x.$f 30M" x.$f
	same "$f: create with an unknown setting" "qemu-img create -q -f $f -o nosuch=1 x.$f 30M"
	same "$f: create without a size" "qemu-img create -q -f $f x.$f"
	same "$f: convert -n" "$theirs create -q -f $f x.$f 16M && qemu-img convert -n -O $f disk.raw x.$f" x.$f
	same "$f: from qcow2" "qemu-img convert -O $f $size over.qcow2 x.$f" x.$f
done
about vdi static=on
about vhdx subformat=fixed
about vhdx block_size=2M
about vmdk subformat=streamOptimized
about vmdk subformat=twoGbMaxExtentSparse
about vmdk subformat=monolithicFlat
about qed cluster_size=4k
about parallels cluster_size=2M
same 'vpc: fixed' 'qemu-img convert -O vpc -o subformat=fixed,force_size=on disk.raw x.vpc && qemu-img convert -f vpc -O raw x.vpc y.raw' y.raw
same 'qed: resize' 'qemu-img convert -O qed disk.raw x.qed && qemu-img resize -q x.qed 40M' x.qed
same 'qed: resize to less' 'qemu-img convert -O qed disk.raw x.qed && qemu-img resize -q --shrink x.qed 4M'
same 'qed: in front of a file' 'qemu-img create -q -f qed -b disk.raw -F raw x.qed && qemu-io -c "write -P 3 1M 100k" x.qed >/dev/null && qemu-img convert -O raw x.qed y.raw && qemu-img commit -q x.qed' y.raw disk.raw
same 'qed: rebase' 'qemu-img create -q -f qed -b disk.raw -F raw x.qed && qemu-img rebase -b other.raw -F raw x.qed' x.qed
head -c 6000640 disk.raw >cut.raw
for f in bochs cloop; do
	python3 "$here/tests/tool/old-images.py" $f old.$f cut.raw
	rest $f old.$f :
	same "$f: info" "qemu-img info old.$f"
	same "$f: info, JSON" "qemu-img info -f $f --output=json old.$f"
	same "$f: to raw" "qemu-img convert -O raw old.$f y.raw" y.raw
	same "$f: to qcow2" "qemu-img convert -f $f -O qcow2 old.$f y.qcow2" y.qcow2
	same "$f: resize" "qemu-img resize -q -f $f old.$f 20M"
	same "$f: a backing file of others" "qemu-img create -q -f qcow2 -b old.$f -F $f y.qcow2 && qemu-img convert -O raw y.qcow2 y.raw" y.raw y.qcow2
done
same 'cloop: create' 'qemu-img create -q -f cloop x.cloop 3M'

#!/bin/sh
# qcow2-bitmap.t - persistent bitmaps of qcow2 images, made and used by both sides. TAP.
. "$(dirname "$0")/../lib.sh"
tool="timeout 60 $O/tests/progs/imgtool -n"
cd "$TMP" || exit 1

clean() { qemu-img check -q -f qcow2 x.qcow2 && [ "$($tool x.qcow2 check | cut -d' ' -f1-3)" = '0 0 0' ]; }
# list: "name granularity flag..." of all, as qemu-img has them
list() {
	qemu-img info --output=json "${1:-x.qcow2}" >info && python3 - <<-'END'
	import json
	d = json.load(open('info'))['format-specific']['data']
	print(' '.join(f"{b['name']}:{b['granularity']}:{'+'.join(b['flags'])}" for b in d.get('bitmaps', [])))
	END
}
is() { clean && [ "$(list)" = "$1" ] || { list; return 1; }; }
# dirty NAME: what is dirty, as an NBD client sees it
dirty() {
	rm -f sock
	qemu-nbd -r -f qcow2 -B "$1" -k "$PWD/sock" x.qcow2 &
	for i in 1 2 3 4 5 6 7 8 9; do [ -S sock ] && break; sleep 0.1; done
	qemu-img map --output=json --image-opts \
		"driver=nbd,server.type=unix,server.path=$PWD/sock,x-dirty-bitmap=qemu:dirty-bitmap:$1" |
		python3 -c 'import json,sys
print(*[f"{e[0]}+{e[1]}" for e in [(x["start"], x["length"]) for x in json.load(sys.stdin) if not x["data"]]])'
	wait
}
begin() { rm -f x.qcow2 && qemu-img create -q -f qcow2 -o "${1:-cluster_size=64k}" x.qcow2 10M; }
made() {
	begin "$1" && $tool x.qcow2 bitmap add a && is "a:$2:auto" && $tool x.qcow2 bitmap add b 512 &&
		is "a:$2:auto b:512:auto" && $tool x.qcow2 bitmap disable a && is "a:$2: b:512:auto" &&
		qemu-img bitmap --enable x.qcow2 a && $tool x.qcow2 bitmap enable a && is "a:$2:auto b:512:auto" &&
		$tool x.qcow2 bitmap remove a && is 'b:512:auto' && $tool x.qcow2 bitmap clear b &&
		qemu-img bitmap --remove x.qcow2 b && is '' && $tool x.qcow2 bitmap add c && $tool x.qcow2 bitmap remove c && is ''
}
t 'made and dropped' made cluster_size=64k 65536
t 'made and dropped, 512-byte clusters' made cluster_size=512 4096
t 'made and dropped, large clusters' made cluster_size=2M 65536
merged() {
	begin cluster_size=4k && qemu-img bitmap --add -g 64k x.qcow2 a && qemu-io -c 'write 1M 300k' -c 'write 9M 1' x.qcow2 >/dev/null &&
		qemu-img bitmap --disable x.qcow2 a && qemu-img bitmap --add -g 4k x.qcow2 b && qemu-io -c 'write 5M 5k' x.qcow2 >/dev/null &&
		$tool x.qcow2 bitmap disable b && $tool x.qcow2 bitmap merge b - a && clean &&
		[ "$(dirty b)" = "1048576+327680 5242880+8192 9437184+65536" ] || { dirty b; return 1; }
}
t 'merged' merged
coarser() { $tool x.qcow2 bitmap add d 1048576 && $tool x.qcow2 bitmap disable d && $tool x.qcow2 bitmap merge d x2.qcow2 b && clean &&
	[ "$(dirty d)" = "1048576+1048576 5242880+1048576 9437184+1048576" ] || { dirty d; return 1; }; }
cp x.qcow2 x2.qcow2
t 'merged from another image, coarser' coarser
cleared() { $tool x.qcow2 bitmap clear d && clean && [ -z "$(dirty d)" ]; }
t 'cleared' cleared
kept() { # other changes leave them alone
	$tool x.qcow2 create s && $tool x.qcow2 delete s && clean && [ "$(dirty b)" = "1048576+327680 5242880+8192 9437184+65536" ]
}
t 'a snapshot does not change them' kept
t 'the same name twice' fails 'already' $tool x.qcow2 bitmap add a
t 'a name that is not there' fails 'no bitmap' $tool x.qcow2 bitmap clear z
t 'a wrong granularity' fails 'a power of two' $tool x.qcow2 bitmap add z 1000
# ---- another size: bitmaps as qemu-img has them afterwards ----
resized() { # resized OPTIONS SIZE...
	begin "$1" && shift && qemu-img bitmap --add -g 64k x.qcow2 a && qemu-img bitmap --add -g 512 x.qcow2 e &&
		qemu-io -c 'write 1M 300k' -c 'write 9M 1' -c 'write 10485248 512' x.qcow2 >/dev/null || return 1
	for size; do
		cp x.qcow2 theirs.qcow2
		qemu-img resize -q --shrink theirs.qcow2 "$size" && "$O/vm-img" resize -q --shrink x.qcow2 "$size" && clean || return 1
		[ "$(list)" = "$(list theirs.qcow2)" ] || { list; list theirs.qcow2; return 1; }
		qemu-img compare -q x.qcow2 theirs.qcow2 || return 1
		for b in a e; do
			ours=$(dirty $b)
			mv x.qcow2 ours.qcow2 && cp theirs.qcow2 x.qcow2
			yours=$(dirty $b)
			mv ours.qcow2 x.qcow2
			[ "$ours" = "$yours" ] || { echo "$size $b: $ours, not $yours"; return 1; }
		done
	done
}
t 'resized' resized cluster_size=64k 20M 3G 9437184 1152k 64M 512
t 'resized, small clusters' resized cluster_size=512 20M 300M 5M 5000192 6M 1M
t 'resized, subclusters' resized cluster_size=32k,extended_l2=on 11M 2M
applied() { # a snapshot of another size
	begin && qemu-img bitmap --add x.qcow2 a && qemu-io -c 'write 1M 300k' x.qcow2 >/dev/null && $tool x.qcow2 create s &&
		"$O/vm-img" resize -q x.qcow2 30M && qemu-io -c 'write 20M 1M' x.qcow2 >/dev/null && $tool x.qcow2 apply s && clean &&
		qemu-img info x.qcow2 | grep -q '10 MiB' && [ "$(dirty a)" = '1048576+327680' ] || { dirty a; return 1; }
}
t 'a snapshot of another size' applied
broken() { # broken: one that was not closed properly
	begin && qemu-img bitmap --add x.qcow2 a && qemu-img bitmap --add x.qcow2 b && qemu-img bitmap --disable x.qcow2 b && $O/tests/progs/imgio -n x.qcow2 write 0 64k 1 &&
		[ "$(list)" = 'a:65536:in-use+auto b:65536:' ] || { list; return 1; }
}
t 'written here: not valid any more' broken
t 'such an image keeps its size' fails "bitmap 'a' of 'x.qcow2' was not closed properly" "$O/vm-img" resize x.qcow2 20M

# ---- convert --bitmaps ----
t 'convert --bitmaps: not with a broken one' fails "--skip-broken-bitmaps" "$O/vm-img" convert --bitmaps -O qcow2 x.qcow2 y.qcow2
left_out() { says "bitmap 'a' was not closed properly and is left out" "$O/vm-img" convert --bitmaps --skip-broken-bitmaps -O qcow2 x.qcow2 y.qcow2 &&
	[ "$(list y.qcow2)" = 'b:65536:' ] && qemu-img compare -q x.qcow2 y.qcow2 && qemu-img check -q y.qcow2; }
t 'but without it' left_out
copied() { # copied OPTIONS...
	begin cluster_size=4k && qemu-img bitmap --add -g 512 x.qcow2 a && qemu-io -c 'write 1M 300k' -c 'write 9M 1' x.qcow2 >/dev/null &&
		qemu-img bitmap --disable x.qcow2 a && qemu-img bitmap --add x.qcow2 b && qemu-io -c 'write 5M 5k' x.qcow2 >/dev/null || return 1
	"$O/vm-img" convert --bitmaps -O qcow2 "$@" x.qcow2 y.qcow2 && qemu-img check -q y.qcow2 && qemu-img compare -q x.qcow2 y.qcow2 &&
		[ "$(list y.qcow2)" = "$(list)" ] || return 1
	for b in a b; do
		want=$(dirty $b)
		mv x.qcow2 from.qcow2 && cp y.qcow2 x.qcow2
		got=$(dirty $b)
		mv from.qcow2 x.qcow2
		[ -n "$got" ] && [ "$got" = "$want" ] || { echo "$got, not $want"; return 1; }
	done
}
t 'convert --bitmaps' copied
t 'convert --bitmaps -c' copied -c
t 'convert --bitmaps, other clusters' copied -o cluster_size=512,refcount_bits=1
into() { qemu-img create -q -f qcow2 y.qcow2 "$1" && "$O/vm-img" convert -n --bitmaps -O qcow2 x.qcow2 y.qcow2 && qemu-img check -q y.qcow2 &&
	[ "$(list y.qcow2)" = "$(list)" ]; }
t 'convert -n --bitmaps' into 10M
t 'convert -n --bitmaps into a larger one' into 30M
t 'which has them then' fails "has a bitmap 'a' already" "$O/vm-img" convert -n --bitmaps -O qcow2 x.qcow2 y.qcow2
t 'raw has none' exits 2 "$O/vm-img" convert --bitmaps -O raw x.qcow2 y.raw
t 'a pipe has none' exits 2 "$O/vm-img" convert --bitmaps -O qcow2 x.qcow2 -
t 'raw has none to copy' fails 'raw' "$O/vm-img" convert --bitmaps -O qcow2 info y.qcow2
v2() { begin compat=0.10 && fails 'version 2' $tool x.qcow2 bitmap add a; }
t 'version 2' v2
done_testing

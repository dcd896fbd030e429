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
t 'a size for which there are bitmaps' fails 'remove them first' $tool x.qcow2 resize 20M
v2() { begin compat=0.10 && fails 'version 2' $tool x.qcow2 bitmap add a; }
t 'version 2' v2
done_testing

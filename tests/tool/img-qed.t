#!/bin/sh
# img-qed.t - QED images: those of qemu-img read, changed, repaired here, those made here read, changed and checked by
# qemu-img. TAP.
. "$(dirname "$0")/../lib.sh"
command -v qemu-img >/dev/null || { echo "1..0 # SKIP no qemu-img"; exit 0; }
imgio=$O/tests/progs/imgio
img=$O/vm-img
cd "$TMP" || exit 1
SEED=${SEED:-1}
truncate -s 12000768 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
same() { timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw "$2"; }
sound() { # sound IMAGE MODEL
	qemu-img check -q -f qed "$1" && "$img" check -q "$1" && qemu-img compare -f qed -F raw "$1" "$2"
}
random() { # random IMAGE MODEL: one thread in large pieces, then several whose pieces share clusters
	timeout 100 "$imgio" -n "$1" random "$SEED" 200 1 1000000 "$2" &&
		timeout 100 "$imgio" -n "$1" random "$((SEED + 1))" 300 4 4096 "$2"
}
# edit FILE: the Python of the standard input changes it. h(at): a number of the header; g, p: 8 bytes of the file.
edit() {
	{
		cat <<-'END'
		import struct, sys
		f = open(sys.argv[1], 'r+b')
		def g(at): f.seek(at); return struct.unpack('<Q', f.read(8))[0]
		def p(at, v): f.seek(at); f.write(struct.pack('<Q', v))
		f.seek(4); cluster, table = struct.unpack('<II', f.read(8))
		l1 = g(40); l2 = g(l1)
		END
		cat
	} | python3 - "$1"
}

# ---- reading and writing ----
theirs() { # theirs OPTIONS
	rm -f x.qed && cp disk.raw model.raw && qemu-img convert -f raw -O qed ${1:+-o "$1"} disk.raw x.qed && same x.qed disk.raw &&
		sound x.qed disk.raw && random x.qed model.raw && sound x.qed model.raw && same x.qed model.raw
}
t 'of qemu-img' theirs
t 'of qemu-img, small clusters and tables' theirs cluster_size=8192,table_size=2
t 'is recognized' says 'format qed' "$imgio" -r x.qed info
ours() { # ours SIZE OPTIONS
	rm -f x.qed model.raw && truncate -s "$1" model.raw && "$img" create -q -f qed ${2:+-o "$2"} x.qed "$1" && sound x.qed model.raw &&
		random x.qed model.raw && sound x.qed model.raw
}
t 'made here' ours 20M
t 'made here, small tables' ours 50M cluster_size=8k,table_size=2
t 'made here, of a size that is no whole number of clusters' ours 5000192
mixed() { # both sides write by turns
	rm -f x.qed model.raw && truncate -s 9M model.raw && "$img" create -q -f qed -o cluster_size=4k,table_size=2 x.qed 9M || return 1
	for i in 1 2 3 4; do
		qemu-io -f qed -c "write -P $i ${i}M 700k" x.qed >/dev/null && qemu-io -f raw -c "write -P $i ${i}M 700k" model.raw >/dev/null &&
			"$imgio" -n x.qed random $i 40 2 65536 model.raw && sound x.qed model.raw || return 1
	done
}
t 'written here and by qemu by turns' mixed
holes() {
	qemu-img convert -O qed disk.raw x.qed && before=$(stat -c %b x.qed) && "$imgio" x.qed discard 0 12000768 &&
		after=$(stat -c %b x.qed) && [ $((before - after)) -gt 2000 ] && qemu-img check -q x.qed
}
t 'discarding gives space back' holes
t 'tables too small for the disk' fails 'hold 1073741824' "$img" create -f qed -o cluster_size=4k,table_size=1 n.qed 2G
t 'clusters that are not possible' fails 'a power of two' "$img" create -f qed -o cluster_size=2k n.qed 1M
t 'tables that are not possible' fails 'are possible' "$img" create -f qed -o table_size=3 n.qed 1M
measured() {
	want=$("$img" measure -O qed disk.raw | sed -n 's/^required size: //p') && "$img" convert -O qed disk.raw m.qed &&
		[ "$want" = "$(stat -c %s m.qed)" ]
}
t 'measured' measured

# ---- backing files, sizes ----
child() {
	cp disk.raw base.raw && rm -f c.qed && "$img" create -q -f qed -b base.raw -F raw c.qed && sound c.qed disk.raw &&
		qemu-io -f qed -c 'write -P 5 3M 1M' -c 'write -z 5M 1M' c.qed >/dev/null && qemu-img convert -f qed -O raw c.qed want.raw && same c.qed want.raw &&
		qemu-img info --output=json c.qed | grep -q '"backing-filename-format": "raw"'
}
t 'in front of a raw disk' child
child_written() { cp want.raw model.raw && random c.qed model.raw && sound c.qed model.raw && cmp base.raw disk.raw; }
t 'in front of a raw disk, written' child_written
zeros() { "$imgio" c.qed zero 0 12000768 && truncate -s 0 z.raw && truncate -s 12000768 z.raw && sound c.qed z.raw; }
t 'zeros hide what is behind' zeros
rebased() {
	child && cp base.raw other.raw && printf different | dd of=other.raw bs=1 seek=9000000 conv=notrunc status=none &&
		"$img" rebase -q -b other.raw -F raw c.qed && sound c.qed want.raw &&
		says 'backing file: other.raw' qemu-img info c.qed && "$img" rebase -q -u -b base.raw -F raw c.qed &&
		says 'backing file: base.raw' qemu-img info c.qed && "$img" rebase -q -b '' c.qed && ! qemu-img info c.qed | grep backing && sound c.qed want.raw
}
t 'rebased' rebased
committed() { child && "$img" commit -q -d c.qed && cmp base.raw want.raw; }
t 'committed' committed
grown() {
	qemu-img convert -O qed disk.raw x.qed && cp disk.raw model.raw && "$img" resize -q x.qed 30M && truncate -s 30M model.raw && sound x.qed model.raw &&
		random x.qed model.raw && sound x.qed model.raw
}
t 'grown' grown
unhidden() { # what the backing file has behind the end does not show
	cp disk.raw base.raw && rm -f c.qed && qemu-img create -q -f qed -b base.raw -F raw c.qed 1000448 && "$img" resize -q c.qed 12000768 &&
		head -c 1000448 disk.raw >model.raw && truncate -s 12000768 model.raw && sound c.qed model.raw
}
t 'grown in front of a larger disk' unhidden
t 'not made smaller' fails 'cannot become smaller' "$img" resize --shrink x.qed 1M

# ---- the mark ----
marked() { qemu-io -f raw -c 'read -v 16 8' "$1" | head -1 | grep -q '00000010:  0[2367]'; }
held() { # is marked while it is written to, and not before or after
	qemu-img convert -O qed disk.raw x.qed && ! marked x.qed || return 1
	mkfifo hold && "$imgio" x.qed hold <hold &
	exec 3>hold
	sleep 0.3
	exec 3>&-
	wait
	! marked x.qed && "$imgio" x.qed write 0 70000 9 && ! marked x.qed && qemu-img check -q x.qed
}
t 'no mark when it is closed' held
killed() { # what a killed writer left is read as it is, and checked when it is opened for writing
	qemu-img convert -O qed disk.raw x.qed && qemu-io -f qed -c 'write -P 7 6M 300k' -c flush -c abort x.qed >/dev/null 2>&1
	marked x.qed || return 1
	qemu-img convert -U -f qed -O raw x.qed want.raw && cp x.qed before.qed && same x.qed want.raw && cmp x.qed before.qed || return 1
	says 'dirty flag: true' "$img" info x.qed || "$img" info --output=json x.qed | grep -q '"dirty-flag": true' || return 1
	"$imgio" x.qed write 5000 70000 9 && qemu-io -f raw -c 'write -P 9 5000 70000' want.raw >/dev/null && ! marked x.qed && sound x.qed want.raw
}
t 'what a killed writer left' killed
killed_by_us() {
	cp disk.raw model.raw && qemu-img convert -O qed disk.raw x.qed && "$O/tests/progs/imgfail" kill 9 write x.qed qed
	marked x.qed && qemu-img check -f qed x.qed >/dev/null
	case $? in 0 | 3) ;; *) return 1 ;; esac
	qemu-img check -q -r all x.qed >/dev/null; "$imgio" x.qed write 0 512 1 && ! marked x.qed && "$img" repair -q x.qed; qemu-img check -f qed x.qed; [ $? != 2 ]
}
t 'what a killed writer of ours left' killed_by_us
killed_damaged() {
	qemu-img convert -O qed disk.raw x.qed && edit x.qed <<-'END' && "$imgio" x.qed write 0 512 1 && qemu-img check -q x.qed
	p(16, g(16) | 2); p(l2 + 8 * 100, g(l2 + 8 * 4))
	END
}
t 'a mark, and damage' killed_damaged

# ---- checking and repairing ----
repaired() { # DAMAGE: Python; WHAT: of the disk, what is zeros then
	qemu-img convert -O qed disk.raw x.qed && qemu-img convert -O raw x.qed want.raw && echo "$1" | edit x.qed && exits 3 "$img" check -q x.qed || return 1
	qemu-img check -q x.qed; [ $? = 2 ] || { echo 'qemu-img finds nothing'; return 1; }
	fails 'repair it first' "$imgio" x.qed write 0 512 1 || return 1
	cp x.qed before.qed && "$img" repair -q --dry-run x.qed >/dev/null; cmp x.qed before.qed || return 1
	"$img" repair x.qed; qemu-img check x.qed
	case $? in 0 | 3) ;; *) return 1 ;; esac
	"$imgio" x.qed write 0 512 1
}
twice() { repaired 'p(l2 + 8 * 100, g(l2 + 8 * 4))' && qemu-img convert -O raw x.qed got.raw && cmp -n 65536 -i 6553600:262144 got.raw want.raw && cmp -n 65536 -i 262144:262144 got.raw want.raw; }
t 'a cluster used twice' twice
t 'a cluster behind the end' repaired 'p(l2 + 8 * 100, 1 << 40)'
t 'a cluster that is the header' repaired 'p(l2 + 8 * 100, 0); p(l2 + 8 * 101, 65536)'
t 'a cluster that is the table' repaired 'p(l2 + 8 * 100, l1)'
t 'an offset that is not of a cluster' repaired 'p(l2 + 8 * 4, g(l2 + 8 * 4) + 512)'
t 'a table behind the end' repaired 'p(l1 + 8, 1 << 50)'
t 'a table that is data' repaired 'p(l1 + 8, g(l2 + 8 * 4))'
leaks() {
	qemu-img convert -O qed disk.raw x.qed && truncate -s +300000 x.qed && exits 3 "$img" check -q x.qed && "$img" repair -q x.qed && sound x.qed disk.raw
}
t 'leaks at the end' leaks

# ---- hostile ----
qemu-img convert -O qed disk.raw x.qed
damaged() { fails "$1" timeout 10 sh -c "$imgio -r bad cat >cat.raw"; }
poke() { # poke FROM OFFSET BYTES
	cp "$1" bad && printf "$3" | dd of=bad bs=1 seek="$2" conv=notrunc status=none
}
t 'clusters of 0 bytes' sh -c "cp x.qed bad; head -c 4 /dev/zero | dd of=bad bs=1 seek=4 conv=notrunc status=none; ! $imgio -r bad info 2>err && grep -q 'clusters of 0 bytes' err"
poke x.qed 4 '\000\000\000\200'
t 'clusters of 2^31 bytes' damaged 'clusters of 2147483648 bytes'
poke x.qed 8 '\377\377\377\377'
t 'tables of 2^32 - 1 clusters' damaged 'at most 16'
poke x.qed 16 '\000\001'
t 'an unknown feature' damaged 'features not known'
poke x.qed 40 '\000\000\377\377\377'
t 'a table behind the end' damaged 'its table is at'
poke x.qed 40 '\000\000\000\000'
t 'a table that is the header' damaged 'its table is at'
poke x.qed 48 '\000\000\000\000\000\000\000\177'
t 'a disk of 2^63 bytes' damaged 'its tables hold'
poke x.qed 48 '\001'
t 'a disk of no whole sectors' damaged 'not whole sectors'
poke x.qed 16 '\001\000\000\000'
t 'a backing file without a name' damaged "backing file's name has 0 bytes"
done_testing

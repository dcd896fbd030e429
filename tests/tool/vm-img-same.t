#!/bin/sh
# vm-img-same.t - vm-img called as qemu-img does what qemu-img does: each script runs with both programs in folders of
# their own; status, output and the images that are left are compared. TAP.
. "$(dirname "$0")/../lib.sh"
command -v qemu-img >/dev/null || { echo "1..0 # SKIP no qemu-img"; exit 0; }
here=$PWD
mkdir -p "$TMP/bin" "$TMP/theirs" "$TMP/ours" "$TMP/data"
ln -s "$VM_IMG" "$TMP/bin/qemu-img"
cd "$TMP/data" || exit 1

# What the scripts find in their folder.
truncate -s 12582912 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=10 conv=notrunc status=none
head -c 900000 /dev/urandom | dd of=disk.raw bs=4096 seek=1000 conv=notrunc status=none
head -c 500000 /dev/zero | dd of=disk.raw bs=4096 seek=2000 conv=notrunc status=none
qemu-img convert -O qcow2 disk.raw disk.qcow2
qemu-img convert -c -O qcow2 disk.raw small.qcow2
qemu-img convert -c -O qcow2 -o compression_type=zstd,cluster_size=32k disk.raw zstd.qcow2
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2 16M
qemu-io -c 'write -P 7 1M 300k' -c 'write -z 3M 1M' -c 'write -P 9 14M 64k' over.qcow2 >/dev/null
cp disk.raw other.raw
printf x | dd of=other.raw bs=1 seek=7000001 conv=notrunc status=none
truncate -s 20M longer.raw
dd if=disk.raw of=longer.raw conv=notrunc status=none

cat >"$TMP/compare.py" <<'P'
# Theirs and ours: JSON holds at least the same keys and values, text is equal but for sizes on the host's disk.
import json, re, sys
a, b = (open(p).read() for p in sys.argv[1:3])
volatile = {"actual-size", "date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec", "icount", "cid", "parent-cid", "children"}
def within(x, y, path=""):
    if isinstance(x, dict) and isinstance(y, dict):
        for k in x:
            if k in volatile: continue
            if k not in y: sys.exit("%s.%s is missing" % (path, k))
            within(x[k], y[k], path + "." + k)
    elif isinstance(x, list) and isinstance(y, list):
        if len(x) != len(y): sys.exit("%s: %d members, not %d" % (path, len(y), len(x)))
        for i, (p, q) in enumerate(zip(x, y)): within(p, q, "%s[%d]" % (path, i))
    elif x != y: sys.exit("%s: %r, not %r" % (path, y, x))
try:
    within(json.loads(a), json.loads(b))
except ValueError:
    def norm(t):
        t = re.sub(r"(disk size: ).*", r"\1*", t)
        t = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", t)
        t = re.sub(r"(\d\d:\d\d:\d\d\.\d\d\d) +0$", r"\1", t, flags=re.M)
        return "\n".join(l.rstrip() for l in t.splitlines() if not l.startswith("Formatting "))
    if norm(a) != norm(b):
        sys.exit("theirs:\n%s\nours:\n%s" % (a, b))
P

# both SCRIPT: the script, in each program's folder; $TMP/{theirs,ours}.{out,err,status}
both() {
	for who in theirs ours; do
		rm -rf "$TMP/$who"
		cp -r --sparse=always "$TMP/data" "$TMP/$who"
		path=$PATH
		[ $who = theirs ] || path=$TMP/bin:$PATH
		(cd "$TMP/$who" && PATH=$path timeout 60 sh -c "$1" >"$TMP/$who.out" 2>"$TMP/$who.err" </dev/null)
		echo $? >"$TMP/$who.status"
	done
}

# same NAME SCRIPT [IMAGE...]: status, output and what is in the images are the same.
same() {
	t "$1" same_try "$@"
}
same_try() {
	script=$2
	shift 2
	both "$script"
	a=$(cat "$TMP/theirs.status") b=$(cat "$TMP/ours.status")
	[ "$a" = "$b" ] || { echo "status $b, not $a"; cat "$TMP/theirs.err" "$TMP/ours.err"; return 1; }
	python3 "$TMP/compare.py" "$TMP/theirs.out" "$TMP/ours.out" || return 1
	for image; do
		qemu-img compare "$TMP/theirs/$image" "$TMP/ours/$image" || return 1
		case $image in *.qcow2) qemu-img check -q "$TMP/ours/$image" || return 1 ;; esac
		x=$(qemu-img info --output=json "$TMP/theirs/$image" | grep -E '"(format|virtual-size|backing-filename)"')
		y=$(qemu-img info --output=json "$TMP/ours/$image" | grep -E '"(format|virtual-size|backing-filename)"')
		[ "$x" = "$y" ] || { echo "$x"; echo "$y"; return 1; }
	done
}

# can FORMAT WHAT: does vm-img do it?
can() {
	"$VM_IMG" formats --json | python3 -c "import json, sys
sys.exit(not any(f['name'] == '$1' and f['$2'] for f in json.load(sys.stdin)['formats']))"
}

. "$here/tests/tool/${scripts:-vm-img-same.sh}"
cd "$here" || exit 1
done_testing

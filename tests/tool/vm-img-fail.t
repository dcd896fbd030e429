#!/bin/sh
# vm-img-fail.t - each write of each command that changes an image goes wrong in turn: the process is killed before it or in
# its middle, it fails, the disk is full. The image must be whole, or have lost clusters at worst, and hold what it held. TAP.
. "$(dirname "$0")/../lib.sh"
command -v qemu-img >/dev/null || { echo "1..0 # SKIP no qemu-img"; exit 0; }
imgfail=$O/tests/progs/imgfail
cd "$TMP" || exit 1
mkdir data work
cd data || exit 1
truncate -s 3145728 disk.raw
seq 1 60000 | dd of=disk.raw bs=4096 seek=10 conv=notrunc status=none
head -c 300000 /dev/urandom | dd of=disk.raw bs=4096 seek=300 conv=notrunc status=none
cd ..

# The formats that vm-img can do something with, between blanks.
that() { printf ' '; "$VM_IMG" formats --json | python3 -c "import json, sys
print(*[f['name'] for f in json.load(sys.stdin)['formats'] if all(f[w] for w in sys.argv[1:])], '')" "$@"; }
checked=$(that check)

# whole FILE FORMAT: no corruption, says qemu-img, and vm-img too where it can tell.
whole() {
	qemu-img check -f "$2" "$1" >check.log 2>&1
	sound $? "$2" || return 1
	case $checked in *" $2 "*) ;; *) return 0 ;; esac
	"$VM_IMG" check -f "$2" "$1" >check.log 2>&1
	sound $? "$2"
}

# sound STATUS FORMAT: what a check said in check.log means no worse than lost clusters. Two formats are faulted for what a
# killed writer cannot avoid: VDI's header counts blocks that its table lists, and no order of writes keeps two places alike;
# Parallels marks an image in use.
sound() {
	case $1.$2 in
	0.* | 3.* | 63.*) return 0 ;;
	2.vdi) ! grep -v 'allocated blocks mismatch' check.log | grep '^ERROR' ;;
	2.parallels) ! grep -v 'not closed' check.log | grep -v 'space leaked' | grep '^ERROR' ;;
	*) cat check.log && false ;;
	esac
}

# each PREPARE VERIFY COMMAND...: for every mode and MOST n, evenly spread (MOST=1000: every one). PREPARE fills ./work, once;
# VERIFY says if it is still good.
each() {
	prepare=$1 verify=$2
	shift 2
	rm -rf work ready && mkdir work && $prepare && cp -a work ready || return 1
	total=$(cd work && timeout 20 "$imgfail" count 0 "$@") || { echo "does not work: $total"; return 1; }
	$verify || { echo "not good after all went well"; return 1; }
	step=$((total / ${MOST:-8} + 1))
	for how in kill half eio full; do
		at=1
		while [ $at -le "$total" ]; do
			rm -rf work && cp -a ready work || return 1
			(cd work && timeout 20 "$imgfail" $how $at "$@" >../run.log 2>&1)
			st=$?
			case $how.$st in *.0 | *.1 | kill.9 | half.9) ;; *) echo "$how $at of $total: status $st"; cat run.log; return 1 ;; esac
			$verify || { echo "$how $at of $total"; return 1; }
			at=$((at + step))
		done
	done
	echo "$total writes"
}

# ---- a guest's writes, in each format ----
prepare_format() {
	qemu-img convert -f raw -O $fmt ${opts:+-o $opts} data/disk.raw work/x.img 2>/dev/null ||
		"$VM_IMG" convert -f raw -O $fmt ${opts:+-o $opts} data/disk.raw work/x.img
}
verify_format() { whole work/x.img $fmt; }
for fmt in $(that write create); do
	case $fmt in raw | split | luks) continue ;; esac # no tables; luks needs a passphrase
	opts=
	t "$fmt: writes" each prepare_format verify_format write x.img $fmt
done
fmt=qcow2
for opts in cluster_size=4k extended_l2=on,cluster_size=16k refcount_bits=1 compat=0.10; do
	t "qcow2 $opts: writes" each prepare_format verify_format write x.img $fmt
done
prepare_snapped() { prepare_format && qemu-img snapshot -c one work/x.img; }
verify_snapped() { whole work/x.img qcow2 && qemu-img convert -l one -O raw work/x.img s.raw && cmp -n 3145728 s.raw data/disk.raw; }
opts=cluster_size=4k
t 'qcow2 with a snapshot: writes' each prepare_snapped verify_snapped write x.img qcow2

# ---- commands that leave the content as it is ----
same_content() { whole work/x.img qcow2 && qemu-img convert -O raw work/x.img s.raw && cmp -n 3145728 s.raw data/disk.raw; }
can() { case $(that "$1") in *' qcow2 '*) ;; *) return 1 ;; esac; }
can resize && t 'resize' each prepare_format same_content resize x.img qcow2 5G
if can snapshots; then
	t 'snapshot, made' each prepare_snapped same_content snapshot x.img create two
	t 'snapshot, applied' each prepare_snapped same_content snapshot x.img apply one
	t 'snapshot, deleted' each prepare_snapped same_content snapshot x.img delete one
fi
prepare_chain() {
	qemu-img create -q -f qcow2 -o cluster_size=4k -b x.base -F raw -u work/x.img 3M && cp data/disk.raw work/x.base &&
		qemu-io -c 'write -P 7 100k 300k' -c 'write -z 1M 64k' work/x.img >/dev/null && cp work/x.base work/other.raw &&
		printf different | dd of=work/other.raw bs=1 seek=2500000 conv=notrunc status=none && qemu-img convert -O raw work/x.img want.raw
}
same_chain() { whole work/x.img qcow2 && qemu-img convert -O raw work/x.img s.raw && cmp s.raw want.raw; }
# A format that cannot change its backing file says so.
rm -rf work && mkdir work && prepare_chain
if (cd work && "$VM_IMG" rebase -q -b other.raw -F raw x.img 2>/dev/null); then
	t 'rebase' each prepare_chain same_chain rebase x.img other.raw raw
	t 'commit' each prepare_chain same_chain commit x.img
fi

# ---- new images: there, and whole, or not there ----
prepare_source() { cp data/disk.raw work/in.raw; }
all_or_nothing() {
	cmp -s work/in.raw data/disk.raw || { echo 'the source is changed'; return 1; }
	[ "$(find work -name '.*' -type f | wc -l)" = 0 ] || { ls -a work; return 1; }
	[ ! -e work/out ] || { whole work/out $fmt && qemu-img convert -f $fmt -O raw work/out s.raw && cmp -n 3145728 s.raw data/disk.raw; }
}
for fmt in raw qcow2 vdi vpc vhdx; do
	t "convert to $fmt" each prepare_source all_or_nothing convert in.raw out $fmt
done
fmt=qcow2
t 'convert to compressed qcow2' each prepare_source all_or_nothing convert in.raw out qcow2 packed
done_testing

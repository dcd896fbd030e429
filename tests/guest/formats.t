#!/bin/sh
# formats.t - a guest reads a known disk in every format there is, and writes to it: those that are written in place hold
# it afterwards, the files of all others are as they were. A boot takes 16 disks. TAP.
. "$(dirname "$0")/../lib.sh"
run="$VM_RUN --engine ${ENGINE:-emulator} --timeout ${LIMIT:-200}"
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
tests/guest/make-initrd "$dir" "$TMP/initrd" || exit 1
tool=$PWD/tests/tool
cd "$TMP" || exit 1
trap 'kill $(cat ./*.pid 2>/dev/null) 2>/dev/null; rm -rf "$TMP"' EXIT
img() { "$VM_IMG" "$@" >>made.log 2>&1; }
packages() { python3 "$tool/packages.py" "$@"; }
old() { python3 "$tool/old-images.py" "$@"; }

truncate -s 6M disk.raw
seq 1 100000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 1500000 /dev/urandom | dd of=disk.raw bs=4096 seek=400 conv=notrunc status=none
seq 5 50000 | dd of=disk.raw bs=4096 seek=1400 count=100 iflag=fullblock conv=notrunc status=none
sum=$(md5sum <disk.raw | cut -d' ' -f1)
printf 'open sesame' >key

# ---- the disks: a folder each, with one name: NAME HOW FILE OPTIONS; HOW is rw (written in place) or ro (with snapshot) ----
: >list
disk() { # disk NAME HOW FILE [OPTIONS]: made already
	if [ -e "$3" ] || [ "${3#*://}" != "$3" ]; then echo "$1 $2 $3 ${4:-}" >>list; else t "$1: is made" tail -n 3 made.log; t "$1: is there" test -e "$3"; fi
}
to() { # to NAME FORMAT FILE [OPTIONS]: by vm-img
	mkdir -p "$1"
	img convert -f raw -O "$2" ${4:+-o "$4"} disk.raw "$1/$3"
	disk "$1" rw "$1/$3"
}
mkdir raw split qcow v1 se cloop dmg ova ovf xva vma gz xz zst bz2 lz4 vmagz vmazst vmalzo box luks back nbd pvm
cp disk.raw raw/disk.img
disk raw rw raw/disk.img ,format=raw
img convert -f raw -O split -o piece_size=2M disk.raw split/d.001
disk split rw split/d.001 ,format=split
to qcow2 qcow2 d.qcow2
to qcow2-512 qcow2 d.qcow2 cluster_size=512,compat=0.10
to qcow2-sub qcow2 d.qcow2 extended_l2=on,lazy_refcounts=on
to qed qed d.qed
to vdi vdi d.vdi
to vdi-static vdi d.vdi static=on
for s in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat vmfs vmfsSparse; do
	to "vmdk-$s" vmdk d.vmdk subformat=$s
done
to vhd vpc d.vhd force_size=on
to vhd-fixed vpc d.vhd subformat=fixed,force_size=on
to vhdx vhdx d.vhdx
to vhdx-fixed vhdx d.vhdx subformat=fixed
to parallels parallels d.hds
to bundle parallels DiskDescriptor.xml
to bochs bochs d.bochs
mkdir packed
img convert -f raw -O qcow2 -c disk.raw packed/d.qcow2
disk packed rw packed/d.qcow2
python3 "$tool/bundle.py" plain.hdd 12288 part=0:12288 file=T:Plain:p && cp disk.raw plain.hdd/p
disk bundle-plain rw plain.hdd
old parallels v1/d.hds disk.raw magic=1
disk parallels-1 rw v1/d.hds
cp disk.raw back/base.raw
for f in qcow2 qed vdi vmdk vpc vhdx; do
	b=base.$f
	img convert -f raw -O $f disk.raw back/$b
	img create -f $f -b $b -F $f "back/top.$f"
	disk "child-$f" rw "back/top.$f"
done
img convert -f raw -O luks --key-file key -o iter-time=10 disk.raw luks/d.luks
disk luks rw luks/d.luks ,key-file=key
img convert -f raw -O qcow2 --key-file key -o encrypt.format=luks,encrypt.iter-time=10 disk.raw luks/d.qcow2
disk qcow2-luks rw luks/d.qcow2 ,key-file=key
if command -v qemu-nbd >/dev/null; then
	cp disk.raw nbd/raw
	qemu-nbd -f raw -t --fork -k "$TMP/nbd/socket" --pid-file=nbd.pid nbd/raw
	disk nbd rw "nbd+unix:///?socket=$TMP/nbd/socket" ,format=raw
fi
if command -v nbdkit python3 >/dev/null; then
	mkdir http && cp disk.raw http/d.raw
	python3 - <<'P' &
import http.server, os, re
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    data = open("http/d.raw", "rb").read()
    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
    def do_GET(self):
        a, b = map(int, re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        part = self.data[a:b + 1]
        self.send_response(206)
        self.send_header("Content-Range", "bytes %d-%d/%d" % (a, a + len(part) - 1, len(self.data)))
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
    def log_message(self, *a):
        pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
open("port.new", "w").write(str(s.server_address[1])); os.rename("port.new", "port")
s.serve_forever()
P
	echo $! >http.pid
	i=0
	while [ ! -s port ] && [ $i -lt 100 ]; do i=$((i + 1)); sleep 0.1; done
	disk http ro "http://127.0.0.1:$(cat port)/d.raw" ,format=raw
fi
if command -v qemu-img >/dev/null; then
	qemu-img convert -f raw -O qcow disk.raw qcow/d.qcow
	disk qcow ro qcow/d.qcow
fi
python3 "$tool/vmdk-images.py" se se/d-sesparse.vmdk disk.raw
printf '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="seSparse"\nRW 12288 SESPARSE "d-sesparse.vmdk"\n' >se/d.vmdk
disk vmdk-seSparse ro se/d.vmdk
img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw ova/d.vmdk
disk vmdk-stream ro ova/d.vmdk
packages ova ova/d.ova ova/d.vmdk
disk ova ro ova/d.ova
cp ova/d.vmdk ovf/ && packages ovf ovf/d.ovf ovf/d.vmdk
disk ovf ro ovf/d.ovf
old cloop cloop/d.cloop disk.raw
disk cloop ro cloop/d.cloop
for c in zlib bzip2 adc lzfse lzma; do
	python3 "$tool/dmg-images.py" dmg/$c.dmg disk.raw codec=$c
	disk dmg-$c ro dmg/$c.dmg
done
packages xva xva/d.xva disk.raw
disk xva ro xva/d.xva
packages vma vma/d.vma disk.raw
disk vma ro vma/d.vma
packed() { # packed NAME FILE COMMAND...
	to=$1/$2 what=$1
	shift 2
	command -v "$1" >/dev/null || return 0
	"$@" <"${from:-disk.raw}" >"$to"
	disk "$what" ro "$to"
}
packed gz d.gz gzip -c
packed xz d.xz xz -c
packed zst d.zst zstd -qc
packed bz2 d.bz2 bzip2 -c
packed lz4 d.lz4 lz4 -qc
from=vma/d.vma
packed vmagz d.vma.gz gzip -c
packed vmazst d.vma.zst zstd -qc
packed vmalzo d.vma.lzo lzop -qc
img convert -f raw -O qcow2 disk.raw box/box.img
packages box box/d.box box/box.img
disk box ro box/d.box
mkdir m.vmwarevm p.pvm
img convert -f raw -O vmdk disk.raw m.vmwarevm/sys.vmdk
printf '.encoding = "UTF-8"\nscsi0.present = "TRUE"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "sys.vmdk"\n' >m.vmwarevm/m.vmx
disk vmwarevm ro m.vmwarevm
mkdir p.pvm/h.hdd && img convert -f raw -O parallels disk.raw p.pvm/h.hdd/DiskDescriptor.xml
printf '<?xml version="1.0"?>\n<ParallelsVirtualMachine><Hardware><Hdd><Enabled>1</Enabled><SystemName>h.hdd</SystemName><InterfaceType>2</InterfaceType></Hdd></Hardware></ParallelsVirtualMachine>\n' >p.pvm/config.pvs
disk pvm ro p.pvm
# The formats that are always written are taken with --snapshot, too.
for f in vmdk:vmdk-twoGbMaxExtentSparse/d.vmdk vhdx:vhdx/d.vhdx bundle:bundle/DiskDescriptor.xml; do
	mkdir "snap-${f%%:*}" && cp "$(dirname "${f#*:}")"/* "snap-${f%%:*}"
	disk "snap-${f%%:*}" ro "snap-${f%%:*}/${f##*/}"
done

# ---- the boots ----
export TMPDIR="$TMP"
total=$(wc -l <list)
cp -r . "$TMP.kept"
trap 'kill $(cat ./*.pid 2>/dev/null) 2>/dev/null; rm -rf "$TMP" "$TMP.kept"' EXIT
booted() { # booted FROM: 16 disks from that line on
	tail -n "+$1" list | head -n 16 >these
	set --
	while read -r what how file options; do
		[ "$how" = rw ] || options=$options,snapshot
		set -- "$@" -d "$(printf '%s' "$file" | sed 's/,/,,/g')$options,serial=$(short "$what")"
	done <these
	$run "$@" -i initrd -a 'console=ttyS0 quiet panic=-1 vm.disks' "$kernel" </dev/null >out 2>err
	status=$?
	tr -d '\r' <out >>report
	tail -n 20 out err
	return $status
}
short() { printf '%.20s' "$(printf '%s' "$1" | sed 's/MaxExtent//')"; }
i=1
while [ $i -le "$total" ]; do
	t "a guest with the disks from $i on" booted $i
	i=$((i + 16))
done

# ---- what it saw, and what it left ----
content() { # content FILE OPTIONS: in got.raw
	case $1 in
	luks/*) "$VM_IMG" convert --key-file key -O raw "$1" got.raw ;;
	nbd*) cp nbd/raw got.raw ;;
	*) "$VM_IMG" convert ${2:+-f "${2#,format=}"} -O raw "$1" got.raw ;;
	esac
}
left() { # left NAME HOW FILE OPTIONS
	if [ "$2" = ro ]; then
		case $3 in http*) set -- "$1" "$2" http ;; esac
		diff -r "$3" "$TMP.kept/$3"
	else
		cp disk.raw model.raw && yes "$(short "$1")" | head -c 1048576 | dd of=model.raw bs=64k seek=32 conv=notrunc status=none &&
			content "$3" "$4" && cmp -n 6291456 got.raw model.raw
	fi
}
while read -r what how file options <&3; do
	s=$(short "$what")
	t "$what: the guest reads it" grep -x "GUEST disk $s md5 $sum" report
	t "$what: and writes to it" grep -x "GUEST disk $s written" report
	case $how in
	rw) t "$what: it is in the image" left "$what" rw "$file" "$options" ;;
	*) t "$what: the files are as they were" left "$what" ro "$file" ;;
	esac
done 3<list
t 'nothing is left of the servers' sh -c "! ls -d '$TMP'/libnbd*"
t 'the parents are as they were' sh -c "for f in back/base.*; do cmp \"\$f\" '$TMP.kept'/\"\$f\" || exit 1; done"

# ---- read-only ones without --snapshot ----
refused() { # refused FILE
	"$VM_RUN" --engine emulator --timeout 5 -d "$1" "$kernel" </dev/null >out 2>err
	status=$?
	cat err
	[ $status = 1 ] && grep -v ': engine ' err | grep -q snapshot
}
while read -r what how file options <&3; do
	case $what:$how in
	snap-*) ;; # they could be written
	*:ro) t "$what: is not written without snapshot" refused "$file" ;;
	esac
done 3<list
done_testing

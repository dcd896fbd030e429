#!/bin/sh
# img-dmg.t - Apple's disk images, made by dmg-images.py, as qemu-img and dmg2img read them; and damaged ones. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/dmg-images.py"
cd "$TMP" || exit 1
truncate -s 3000320 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=50 count=300 iflag=fullblock conv=notrunc status=none
head -c 300000 /dev/urandom | dd of=disk.raw bs=4096 seek=600 conv=notrunc status=none
# What long matches and far distances come from.
dd if=disk.raw of=disk.raw bs=4096 skip=60 seek=420 count=40 conv=notrunc status=none

same() { timeout 60 "$imgio" -r "$1" cat >got.raw && cmp got.raw disk.raw; }
is() { $make x.dmg disk.raw "$@" && same x.dmg; }
peer() { is "$@" && qemu-img compare -q -f dmg -F raw x.dmg disk.raw; }
other() { # dmg2img leaves out zeros at the end
	is "$@" && rm -f y.raw && dmg2img -s x.dmg y.raw && truncate -s 3000320 y.raw && cmp y.raw disk.raw
}
t 'raw' peer codec=raw
t 'zlib' peer codec=zlib
t 'zlib, as dmg2img reads it' other codec=zlib
t 'bzip2, as dmg2img reads it' other codec=bzip2
t 'ADC, as dmg2img reads it' other codec=adc
t 'LZFSE' is codec=lzfse
t 'xz' is codec=lzma
t 'all of them in one' is codec=mixed run=100 parts=3
t 'several tables' peer codec=zlib parts=4
t 'a resource fork' peer codec=zlib fork=1 parts=3
t 'data that begins later' peer pad=100 koly.data_off=0
t 'runs of one sector' peer codec=zlib run=1
t 'is recognized' says 'format dmg' "$imgio" -r x.dmg info
$make x.dmg disk.raw codec=bzip2
t 'one that begins with bzip2 is no bzip2 file' says 'file format: dmg' "$img" info x.dmg
t 'converted' sh -c "$img convert -q -O qcow2 x.dmg y.qcow2 && qemu-img compare -q -f qcow2 -F raw y.qcow2 disk.raw"
t 'is not written' fails 'can only be read' "$imgio" x.dmg write 0 512 1
random() { $make x.dmg disk.raw codec=mixed run=64 && "$imgio" -r x.dmg cat >got.raw && cmp got.raw disk.raw; }
t 'small runs' random


# ---- checksums ----
sound() { $make x.dmg disk.raw "$@" && exits 0 "$img" check x.dmg; }
unsound() { m=$1; shift; $make x.dmg disk.raw "$@" && exits 3 "$img" check x.dmg >said && grep "$m" said; }
t 'checksums: zlib' sound codec=zlib
t 'checksums: all codecs, several tables' sound codec=mixed run=100 parts=3
t 'checksums: data that begins later' sound pad=100 koly.data_off=0
t 'no checksums' sound codec=raw sums=0
t 'a changed byte' unsound 'checksum of table 1' codec=raw damage=100000
t 'is seen in the file as a whole, too' grep "checksum of the file's data" said
t 'a changed byte that cannot be unpacked' unsound 'cannot be unpacked' codec=bzip2 damage=30000
t 'another checksum of a table' unsound 'checksum of table 2 is .*, not 00000007' codec=zlib parts=3 run=512 sum.1=7
t 'is noticed in the sum of sums' grep 'checksum of the checksums' said
t 'as JSON' sh -c "$img check --json x.dmg | grep -q '\"corruptions\": 2'"

bad() { m=$1; shift; $make bad disk.raw "$@" && fails "$m" timeout 10 sh -c "$imgio -r bad cat >cat.raw"; }
t 'a run behind the end of the file' bad 'is damaged: a run' run.2.off=99999999
t 'a run of 2^63 bytes' bad 'is damaged: a run' run.2.len=0x7fffffffffffffff
t 'a run of 2^40 sectors' bad 'is damaged' run.2.sectors=0x10000000000
t 'at sector 2^64 - 1' bad 'is damaged' run.2.first=0xffffffffffffffff
t 'runs of an unknown kind' bad 'kind 0x80000009' run.2.type=0x80000009
t 'bytes that are too few' bad 'is damaged: a run' codec=raw run.2.len=512
t 'another codec' bad 'Input/output error' codec=zlib run.2.type=0x80000007
t 'a sector that is there twice' bad 'is there twice' twice=1
t 'a sector that no table has' bad 'Input/output error' gap=1
t '2^32 - 1 runs' bad 'runs in a table' mish.n=0xffffffff
t 'a table that begins at 2^64 - 1' bad 'is damaged' mish.first=0xffffffffffffffff
t 'data that begins at 2^64 - 1' bad 'is damaged' koly.data_off=0xffffffffffffffff
t 'a property list behind the end' bad 'its property list has' koly.xml_off=99999999
t 'a property list of 2^40 bytes' bad 'its property list has' koly.xml_len=0x10000000000
t 'no tables at all' bad 'resource fork is damaged' koly.xml_len=0
t 'a table without runs' bad 'no block tables' mish.n=0
t 'a resource fork behind the end' bad 'its resource fork has' fork=1 koly.fork_off=99999999
t 'a disk that is too short' bad 'is damaged' koly.sectors=5
t 'a part of several' bad 'one of 3 parts' koly.segments=3
t 'entities' bad 'defines entities' 'doctype=<!DOCTYPE a [<!ENTITY b "c">]>'
t 'XML that is none' bad 'property list is damaged' 'doctype=<a'
crypt() { printf encrcdsa >bad && head -c 100000 /dev/zero >>bad && fails 'is encrypted' "$imgio" -r bad info; }
t 'an encrypted one' crypt
done_testing

#!/bin/sh
# img-list.t - `vm-img list`: tables, file systems, systems, of disks made by sfdisk and the mkfs programs. TAP.
. "$(dirname "$0")/../lib.sh"
. tests/tool/guest-disks.sh
cd "$TMP" || exit 1
t 'a GPT disk is made' make_gpt gpt.raw
t 'an MBR disk is made' make_mbr mbr.raw

# has IMAGE EXPRESSION: over `d`, the JSON, and p, the volumes by number
has() {
	timeout 20 "$VM_IMG" list --json "$1" >list.json && python3 - "$2" <<'PY'
import json, sys
d = json.load(open("list.json"))
p = {v.get("number", 0): v for v in d["volumes"]}
ok = eval(sys.argv[1])
print(ok, json.dumps(d, indent=1)[:3000])
sys.exit(not ok)
PY
}
t 'the kind of table, and its id' has gpt.raw \
	'd["version"] == 1 and d["partition-table"]["type"] == "gpt" and d["partition-table"]["id"] == "11111111-2222-3333-4444-555555555555"'
t 'all partitions' has gpt.raw 'sorted(p) == [1, 2, 3, 4, 5, 6, 7, 8]'
t 'start, size, name and UUID' has gpt.raw \
	'p[2]["start"] == 41 << 20 and p[2]["size"] == 100 << 20 and p[2]["name"] == "root" and p[2]["partition-uuid"] == "aaaaaaaa-2222-3333-4444-555555555555"'
t 'types and their names' has gpt.raw \
	'p[1]["type-name"] == "EFI System" and p[1]["type"] == "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" and p[6]["type-name"] == "Microsoft basic data"'
t 'contents' has gpt.raw \
	'[p[i].get("content") for i in range(1, 9)] == ["vfat", "ext4", "swap", "xfs", "btrfs", "ntfs", "exfat", None]'
t 'labels' has gpt.raw \
	'[p[i].get("label") for i in range(1, 8)] == ["ESP", "rootfs", "swapper", "xdata", "bdata", "ndata", "edata"]'
t 'a partition that is marked for the BIOS' has gpt.raw 'p[8]["active"] and not p[1]["active"]'
t 'UUIDs, as blkid has them' sh -c "
	for i in 1 2 3 4 5 6 7; do echo \"\$i \$(blkid -p -s UUID -o value p\$i)\"; done >want
	$VM_IMG list -j gpt.raw | python3 -c '
import json, sys
for v in json.load(sys.stdin)[\"volumes\"]:
    if \"uuid\" in v: print(v[\"number\"], v[\"uuid\"])' >got; diff want got"
t 'the system in ext4' has gpt.raw \
	'p[2]["operating-system"] == {"kind": "linux", "name": "Test Linux 7 (\"seven\")", "version": "7"}'
t 'all are clean' has gpt.raw 'all(p[i]["file-system"]["state"] == "clean" for i in range(1, 8))'

# free IMAGE NUMBER BYTES SLACK: what the file system's own tools say is free
free() {
	has "$1" "abs(p[$2][\"file-system\"][\"free\"] - int(\"$3\")) <= $4"
}
t 'free: FAT, by mtools' free gpt.raw 1 \
	"$(mdir -i p1 ::/ | grep 'bytes free' | tr -cd 0-9)" 0
t 'free: ext4, by dumpe2fs' free gpt.raw 2 \
	"$(($(dumpe2fs -h p2 2>/dev/null | sed -n 's/^Free blocks: *//p') * $(dumpe2fs -h p2 2>/dev/null | sed -n 's/^Block size: *//p')))" 0
t 'free: XFS, by xfs_db' free gpt.raw 4 \
	"$(($(xfs_db -r -c sb -c 'p fdblocks' p4 | sed 's/.*= //') * 4096))" 0
t 'free: NTFS, by ntfsinfo' free gpt.raw 6 \
	"$(($(ntfsinfo -m p6 2>/dev/null | sed -n 's/.*Free Clusters: \([0-9]*\).*/\1/p') * 4096))" 0
t 'used: btrfs, by its superblock' has gpt.raw \
	"p[5]['file-system']['used'] == $(btrfs inspect-internal dump-super p5 | sed -n 's/^bytes_used[^0-9]*//p')"

t 'an MBR: logical partitions, active, types' has mbr.raw \
	'd["partition-table"]["type"] == "dos" and d["partition-table"]["id"] == "cafebabe" and sorted(p) == [1, 2, 5, 6] and p[5]["logical"] and not p[1]["logical"] and p[1]["active"] and p[2]["type"] == "0x0c"'
t 'contents of these' has mbr.raw '[p[i]["content"] for i in (1, 2, 5, 6)] == ["ext3", "vfat", "ext2", "vfat"]'
t 'free: FAT16' free mbr.raw 2 "$(mdir -i m2 ::/ | grep 'bytes free' | tr -cd 0-9)" 0
t 'free: FAT12' free mbr.raw 6 "$(mdir -i m6 ::/ | grep 'bytes free' | tr -cd 0-9)" 0
t 'free: ext2' free mbr.raw 5 \
	"$(($(dumpe2fs -h m5 2>/dev/null | sed -n 's/^Free blocks: *//p') * $(dumpe2fs -h m5 2>/dev/null | sed -n 's/^Block size: *//p')))" 0

# ---- other images, other tables ----
"$VM_IMG" list -j gpt.raw | grep -v '"filename"\|"format"' >want.json
for f in qcow2 vdi vmdk vhdx parallels; do
	t "the same inside $f" sh -c "$VM_IMG convert -O $f gpt.raw x.$f && $VM_IMG list -j x.$f | grep -v '\"filename\"\|\"format\"' | diff want.json - && rm x.$f"
done
t 'and compressed' sh -c "$VM_IMG convert -O qcow2 -c gpt.raw x.qcow2 && $VM_IMG list -j x.qcow2 | grep -v '\"filename\"\|\"format\"' | diff want.json -"
t 'no table: the whole disk' has p2 'd["partition-table"]["type"] == "none" and p[0]["content"] == "ext4" and p[0]["operating-system"]["version"] == "7"'
t 'no table: FAT' has p1 'p[0]["content"] == "vfat" and d["partition-table"]["type"] == "none"'
t 'no table: NTFS' has p6 'p[0]["content"] == "ntfs" and d["partition-table"]["type"] == "none"'
t 'nothing' sh -c "truncate -s 0 empty; truncate -s 1M zeros; truncate -s 100 small; for f in empty zeros small; do $VM_IMG list \$f || exit 1; done"
k4() { # a GPT of 4096-byte sectors with one partition
	python3 - <<'PY'
import binascii, struct, uuid
def guid(t): return uuid.UUID(t).bytes_le
n = 25600
entry = guid('0FC63DAF-8483-4772-8E79-3D69D8477DE4') + guid('12345678-2222-3333-4444-555555555555')
entry += struct.pack('<QQQ', 256, 256 + 2559, 0) + 'four'.encode('utf-16le').ljust(72, b'\0')
table = entry.ljust(128 * 128, b'\0')
def head(at, other, entries):
    h = b'EFI PART' + struct.pack('<IIIIQQQQ', 0x10000, 92, 0, 0, at, other, 6, n - 7)
    h += guid('99999999-2222-3333-4444-555555555555') + struct.pack('<QIII', entries, 128, 128, binascii.crc32(table))
    return h[:16] + struct.pack('<I', binascii.crc32(h)) + h[20:]
f = open('k4', 'wb')
f.truncate(n * 4096)
mbr = bytearray(512)
mbr[446:462] = struct.pack('<BBBBBBBBII', 0, 0, 2, 0, 0xee, 255, 255, 255, 1, n - 1)
mbr[510:] = b'\x55\xaa'
for at, data in ((0, mbr), (1, head(1, n - 1, 2)), (2, table), (n - 5, table), (n - 1, head(n - 1, 1, n - 5))):
    f.seek(at * 4096)
    f.write(data)
PY
}
t 'a table of 4096-byte sectors is made' k4
t 'and read' has k4 'd["partition-table"]["sector-size"] == 4096 and p[1]["start"] == 1 << 20 and p[1]["size"] == 10 << 20 and p[1]["name"] == "four"'
t 'a GPT whose first header is gone' sh -c "cp --sparse=always gpt.raw broken.raw && dd if=/dev/zero of=broken.raw bs=512 seek=1 count=1 conv=notrunc status=none"
t 'is read from its copy' has broken.raw 'sorted(p) == [1, 2, 3, 4, 5, 6, 7, 8]'
t 'a disk that is cut off' sh -c "head -c 900M gpt.raw >cut.raw; truncate -s 60M cut2.raw; dd if=mbr.raw of=cut2.raw bs=1M count=60 conv=notrunc,sparse status=none"
t 'tells that partitions end behind it' has cut2.raw 'p[2]["ends-behind-disk"] and "error" in p[2]'
# ---- not left in order ----
t 'ext4 that needs its journal' sh -c "cp p2 d2 && debugfs -w -R 'feature needs_recovery' d2 2>/dev/null"
t 'is told' has d2 'p[0]["file-system"]["state"] == "dirty" and "journal" in p[0]["file-system"]["reason"]'
t 'hibernated swap' sh -c "cp p3 d3 && printf 'S1SUSPEND\0' | dd of=d3 bs=1 seek=4086 conv=notrunc status=none"
t 'is told, too' has d3 'p[0]["file-system"]["state"] == "hibernated"'
t 'FAT that is mounted' sh -c "cp p1 d1 && printf '\001' | dd of=d1 bs=1 seek=65 conv=notrunc status=none"
t 'is told as well' has d1 'p[0]["file-system"]["state"] == "dirty"'
t 'NTFS that is marked' sh -c "cp p6 d6 && python3 - <<'PY'
import struct
d = bytearray(open('d6', 'rb').read())
cl = struct.unpack_from('<H', d, 11)[0] * d[13]
rec = struct.unpack_from('<Q', d, 48)[0] * cl + 3 * 1024
at = rec + struct.unpack_from('<H', d, rec + 20)[0]
while struct.unpack_from('<I', d, at)[0] != 0x70:
    at += struct.unpack_from('<I', d, at + 4)[0]
d[at + 24 + 10] |= 1
open('d6', 'wb').write(d)
PY"
t 'is dirty' has d6 'p[0]["file-system"]["state"] == "dirty" and "chkdsk" in p[0]["file-system"]["reason"]'
t 'XFS without its unmount record' sh -c "cp --sparse=always p4 d4 && python3 - <<'PY'
import struct
f = open('d4', 'r+b')
sb = f.read(512)
bs, = struct.unpack_from('>I', sb, 4)
log, = struct.unpack_from('>Q', sb, 48)
agb, = struct.unpack_from('>I', sb, 84)
at = ((log >> sb[124]) * agb + (log & (1 << sb[124]) - 1)) * bs
f.seek(at)
h = bytearray(f.read(1024))
h[512 + 9] &= ~0x20
f.seek(at)
f.write(h)
PY"
t 'is dirty, too' has d4 'p[0]["file-system"]["state"] == "dirty" and "log" in p[0]["file-system"]["reason"]'

# ---- text ----
t 'people get lines' says 'partition 2: Test Linux 7' "$VM_IMG" list gpt.raw
t 'a label cannot control the terminal' sh -c "cp p3 e3 && printf '\033[31mred' | dd of=e3 bs=1 seek=1052 conv=notrunc status=none && $VM_IMG list e3 | grep -q '?\[31mred'"
t 'a missing image is a failure' fails "cannot open 'nowhere'" "$VM_IMG" list nowhere
done_testing

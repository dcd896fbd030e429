#!/bin/sh
# vm-check-guest.t - `vm-check guest`, `vm-check disk`: will it start, and what stands in the way. TAP.
. "$(dirname "$0")/../lib.sh"
. tests/tool/guest-disks.sh
check=$O/vm-check
hive="python3 $PWD/tests/tool/make-hive.py"
cd "$TMP" || exit 1

# tells IMAGE STATUS EXPRESSION [OPTION...]: over `d`, the JSON, and f, the findings by id
tells() {
	image=$1 want=$2 expr=$3
	shift 3
	timeout 20 "$check" guest --json --any-machine "$@" "$image" >said.json
	got=$?
	cat said.json
	[ $got = "$want" ] || { echo "status $got, not $want"; return 1; }
	python3 - "$expr" <<'PY'
import json, sys
d = json.load(open("said.json"))
f = {x["id"]: x for x in d["findings"]}
sys.exit(not eval(sys.argv[1]))
PY
}

# ---- Linux ----
files tree 5
printf 'UUID=1234 / ext4 defaults 0 1\n' >tree/etc/fstab
esp() { # esp DISK LOADER
	truncate -s 40M e && mkfs.vfat -F 32 e >/dev/null && mmd -i e ::/EFI ::/EFI/BOOT ::/EFI/debian &&
		{ [ -z "$2" ] || mcopy -i e tree/data/f1 "::$2"; } && put e "$1" 1
	rm -f e
}
linux() { # linux DISK [LOADER]: GPT, ESP, root
	rm -f "$1"
	truncate -s 120M "$1" && printf 'label: gpt\nsize=40M, type=U\nsize=60M, type=L\n' | sfdisk -q "$1" &&
		esp "$1" "$2" && truncate -s 60M r && mkfs.ext4 -q -F -d tree r && put r "$1" 41
	rm -f r
}
t 'UEFI: a disk is made' linux uefi.raw /EFI/BOOT/BOOTX64.EFI
t 'UEFI: it starts' tells uefi.raw 0 \
	'd["version"] == 1 and d["verdict"] == "starts" and d["firmware"] == "uefi" and d["uefi-loader"] and not d["bios-loader"] and d["operating-system"].startswith("Test Linux 7") and not d["findings"]'
t 'UEFI: inside qcow2' sh -c "$VM_IMG convert -O qcow2 uefi.raw u.qcow2"
t 'UEFI: the same' tells u.qcow2 0 'd["firmware"] == "uefi" and d["format"] == "qcow2"'
t 'no fallback loader: made' linux named.raw /EFI/debian/grubx64.efi
t 'no fallback loader: a problem, with a remedy' tells named.raw 3 \
	'f["no-fallback-loader"]["weight"] == "problem" and "BOOTX64.EFI" in f["no-fallback-loader"]["remedy"] and d["firmware"] == "uefi"'
t 'no loader: made' linux none.raw
t 'no loader: it does not start' tells none.raw 4 'f["no-boot-loader"]["weight"] == "stop" and d["firmware"] == "none" and d["verdict"] == "does-not-start"'
bios() { # bios DISK ACTIVE TEXT
	truncate -s 80M "$1" && printf 'label: dos\nstart=2048, size=60M, type=83%s\n' "$2" | sfdisk -q "$1" &&
		printf '\353\143%s' "$3" | dd of="$1" conv=notrunc status=none && truncate -s 60M r && mkfs.ext4 -q -F -d tree r && put r "$1" 1
}
t 'BIOS: made' bios bios.raw ', bootable' code
t 'BIOS: it starts' tells bios.raw 0 'd["firmware"] == "bios" and d["bios-loader"]'
t 'BIOS: made again' bios grub.raw '' 'GRUB loading'
t 'BIOS: it starts, too' tells grub.raw 0 'd["firmware"] == "bios"'
t 'BIOS: no active partition: made' bios inactive.raw '' code
t 'BIOS: no active partition' tells inactive.raw 4 '"no-active-partition" in f'
printf '/dev/nvme0n1p2 / ext4 defaults 0 1\n' >tree/etc/fstab
t 'fstab with names: made' linux nvme.raw /EFI/BOOT/BOOTX64.EFI
t 'fstab with names: a problem' tells nvme.raw 3 '"/dev/nvme0n1p2" in f["fstab-names"]["text"] and f["fstab-names"]["partition"] == 2'
t 'hibernated Linux' sh -c "cp uefi.raw h.raw; truncate -s 140M h.raw; sfdisk -q --delete h.raw 2>/dev/null; printf 'label: gpt\nsize=40M, type=U\nsize=60M, type=L\nsize=10M, type=S\n' | sfdisk -q --no-reread h.raw; truncate -s 10M s; mkswap -q s; printf 'S1SUSPEND\0' | dd of=s bs=1 seek=4086 conv=notrunc status=none; dd if=s of=h.raw bs=1M seek=101 conv=notrunc status=none"
t 'is a problem' tells h.raw 3 'f["hibernated"]["partition"] == 3'
t 'LUKS' sh -c "cp uefi.raw l.raw; printf 'LUKS\272\276\0\2' | dd of=l.raw bs=1M seek=41 conv=notrunc status=none; dd if=/dev/zero of=l.raw bs=512 seek=83970 count=8 conv=notrunc status=none"
t 'is named' tells l.raw 0 'f["luks"]["partition"] == 2 and "no-system" in f'
t 'a dirty ext4 is a note' sh -c "cp uefi.raw j.raw; dd if=j.raw of=r bs=1M skip=41 count=60 status=none; debugfs -w -R 'feature needs_recovery' r 2>/dev/null; dd if=r of=j.raw bs=1M seek=41 conv=notrunc status=none"
t 'and no more' tells j.raw 0 'f["not-clean"]["weight"] == "note"'
t 'an empty disk' sh -c 'truncate -s 10M empty.raw'
t 'does not start' tells empty.raw 4 '"no-boot-loader" in f and "no-system" in f'

# ---- Windows ----
mkdir -p mnt
truncate -s 60M w && mkntfs -q -F -Q w >/dev/null 2>&1
if ntfs-3g w mnt 2>/dev/null; then
	umount mnt
	SW='Microsoft\Windows NT\CurrentVersion'
	windows() { # windows DISK PRODUCT BUILD 'SERVICE:NAME=VALUE'...
		disk=$1 product=$2 build=$3
		shift 3
		set -- $(for s; do printf 'ControlSet001\\Services\\%s ' "$s"; done)
		rm -rf hives && mkdir -p hives && $hive hives/SOFTWARE "$SW:ProductName=$product" "$SW:CurrentBuildNumber=$build" \
			"$SW:CurrentMajorVersionNumber=10" "$SW:CurrentMinorVersionNumber=0" &&
			$hive hives/SYSTEM 'Select:Current=1' 'ControlSet001\Services\Tcpip:Start=1' "$@" || return 1
		rm -f w && truncate -s 60M w && mkntfs -q -F -Q w >/dev/null 2>&1 && ntfs-3g w mnt || return 1
		mkdir -p mnt/Windows/System32/config
		i=0
		while [ $i -lt 200 ]; do # so that the folder has an index
			: >"mnt/Windows/System32/a rather long name of a file $i.dll"
			i=$((i + 1))
		done
		cp hives/* mnt/Windows/System32/config/
		[ -z "$HIBER" ] || { head -c 8192 /dev/zero; } >mnt/hiberfil.sys
		[ -z "$HIBER" ] || printf '%s' "$HIBER" | dd of=mnt/hiberfil.sys conv=notrunc status=none
		umount mnt
		rm -f "$disk" && truncate -s 62M "$disk" && printf 'label: dos\nstart=2048, size=60M, type=7, bootable\n' | sfdisk -q "$disk" &&
			printf '\063\300code' | dd of="$disk" conv=notrunc status=none && put w "$disk" 1
	}
	HIBER=
	t 'Windows 10: made' windows w10.raw 'Windows 10 Pro' 19045 storahci:Start=0 stornvme:Start=0
	t 'Windows 10: starts with AHCI' tells w10.raw 0 'd["operating-system"] == "Windows 10 Pro" and d["controller"] == "ahci" and d["firmware"] == "bios"'
	t 'its version in list' sh -c "$VM_IMG list --json w10.raw | grep -q '\"version\": \"10.0.19045\"'"
	t 'Windows 11: made' windows w11.raw 'Windows 10 Home' 22631 storahci:Start=0 'storahci\StartOverride:0=0'
	t 'Windows 11: its name, its override of 0' tells w11.raw 0 'd["operating-system"] == "Windows 11 Home" and d["controller"] == "ahci"'
	t 'Windows from NVMe: made' windows nv.raw 'Windows 10 Pro' 19045 storahci:Start=0 'storahci\StartOverride:0=3' stornvme:Start=0
	t 'Windows from NVMe: no driver for AHCI' tells nv.raw 4 '"0x7B" in f["no-disk-driver"]["text"]'
	t 'Windows from RAID: made' windows raid.raw 'Windows 10 Pro' 19045 storahci:Start=3 iaStorAC:Start=0
	t 'Windows from RAID: named' tells raid.raw 4 '"iaStorAC" in f["no-disk-driver"]["text"]'
	t 'Windows 7: made' windows w7.raw 'Windows 7 Professional' 7601 msahci:Start=0 intelide:Start=3
	t 'Windows 7: starts with AHCI' tells w7.raw 0 'd["controller"] == "ahci"'
	t 'Windows 7 from IDE: made' windows w7i.raw 'Windows 7 Professional' 7601 msahci:Start=3 intelide:Start=0
	t 'Windows 7 from IDE: IDE' tells w7i.raw 0 'd["controller"] == "ide"'
	t 'Windows with virtio: made' windows wv.raw 'Windows Server 2019' 17763 viostor:Start=0
	t 'Windows with virtio: virtio' tells wv.raw 0 'd["controller"] == "virtio"'
	HIBER=HIBR
	t 'hibernated Windows: made' windows hib.raw 'Windows 10 Pro' 19045 storahci:Start=0
	t 'hibernated Windows: a problem, and what to do' tells hib.raw 3 '"powercfg" in f["hibernated"]["remedy"] and f["hibernated"]["partition"] == 1'
	t 'is taken whole by convert --used-only' sh -c "$VM_IMG convert --used-only hib.raw x.raw | grep -q 'taken whole: Windows is hibernated'"
	HIBER=wake
	t 'a hiberfil.sys of a system that woke up: made' windows wake.raw 'Windows 10 Pro' 19045 storahci:Start=0
	t 'is no problem' tells wake.raw 0 '"hibernated" not in f'
else
	skip 'Windows' 'ntfs-3g cannot mount here'
fi
t 'BitLocker' python3 - <<'PY'
import struct
d = bytearray(64 << 20)
d[0:3] = b"\xeb\x58\x90"
d[3:11] = b"-FVE-FS-"
struct.pack_into("<H", d, 11, 512)
d[13] = 8
d[160:176] = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
for i in range(3):
    struct.pack_into("<Q", d, 176 + 8 * i, 0x200000 + i * 0x100000)
    struct.pack_into("<8sHH", d, 0x200000 + i * 0x100000, b"-FVE-FS-", 0, 2)
d[510:512] = b"\x55\xaa"
open("bl.raw", "wb").write(d)
PY
t 'is a problem, and what to do' tells bl.raw 3 '"manage-bde" in f["bitlocker"]["remedy"]'

# ---- the command ----
t 'people get lines' says 'Firmware:    uefi' "$check" guest --any-machine uefi.raw
t 'this vm-run starts kernels: it says so' says 'starts kernels' "$check" guest uefi.raw
t 'with its status' exits 4 "$check" guest uefi.raw
t 'quiet' sh -c "[ -z \"\$($check guest -q --any-machine uefi.raw)\" ]"
t 'disk: the bytes of a device as they are' exits 4 "$check" disk --any-machine u.qcow2
t 'a missing image could not be told' fails "cannot open 'nowhere'" "$check" guest nowhere
t 'nothing is a usage error' exits 2 "$check" guest
t 'two, too' exits 2 "$check" guest a b
mkdir -p evil/etc
printf 'PRETTY_NAME="Evil\033]0;x\007 Linux"\n' >evil/etc/os-release
truncate -s 20M evil.raw && mkfs.ext4 -q -F -d evil evil.raw
"$check" guest --any-machine evil.raw >evil.txt
t 'a system whose name is made for terminals' grep -q 'System:      Evil.* Linux' evil.txt
t 'does not reach them' sh -c "! LC_ALL=C grep -q '[[:cntrl:]]' evil.txt"
t 'help' says 'will it' sh -c "$check guest --help | grep -q 'what stands in the way' && echo will it"
done_testing

#!/bin/sh
# loaders.t - kernels of other kinds than a bzImage, and ones that cannot be started, out of Debian's
# packages, on the emulator ($ENGINE chooses another). TAP.
. "$(dirname "$0")/../lib.sh"
run="$VM_RUN --engine ${ENGINE:-emulator} ${EMULATOR:+--emulator $EMULATOR}"
pkg=$O/guests/pkg
mkdir -p "$pkg"

# package NAME: unpacks it to $pkg/NAME, once.
package() {
	[ -e "$pkg/$1" ] && return
	rm -rf "$pkg/part" && mkdir -p "$pkg/part"
	(cd "$pkg/part" && apt-get -q download "$1" >/dev/null 2>&1) &&
		dpkg-deb -x "$pkg"/part/*.deb "$pkg/part/x" && mv "$pkg/part/x" "$pkg/$1"
}

# shows TEXT OPTIONS...: starts it and waits for the text; stops it then.
shows() {
	text=$1
	shift
	$run --timeout "${LIMIT:-100}" "$@" </dev/null >"$TMP/out" 2>&1 &
	pid=$!
	while kill -0 $pid 2>/dev/null && ! grep -aqF -- "$text" "$TMP/out"; do sleep 0.1; done
	kill -TERM $pid 2>/dev/null
	sleep 0.2
	kill -TERM $pid 2>/dev/null
	wait $pid 2>/dev/null
	grep -aqF -- "$text" "$TMP/out" || { tail -n 15 "$TMP/out"; return 1; }
}
refused() { # refused TEXT OPTIONS...: status 1 and the text
	text=$1
	shift
	$run "$@" </dev/null >"$TMP/out" 2>&1
	got=$?
	cat "$TMP/out"
	[ $got = 1 ] && grep -qF -- "$text" "$TMP/out"
}

# The uncompressed kernel, as a person would take it out of a bzImage.
vmlinux() {
	python3 - "$1" "$2" <<'P'
import struct, subprocess, sys
d = open(sys.argv[1], "rb").read()
at = (d[0x1f1] + 1) * 512 + struct.unpack_from("<I", d, 0x248)[0]
tool = {b"\x02\x21": "lz4", b"\xfd7": "xz", b"\x28\xb5": "zstd", b"\x1f\x8b": "gzip"}[d[at:at + 2]]
n = struct.unpack_from("<I", d, 0x24c)[0] - (0 if tool == "gzip" else 4)
open(sys.argv[2], "wb").write(subprocess.run([tool, "-dc"], input=d[at:at + n], stdout=subprocess.PIPE).stdout)
P
}

dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
initrd=$TMP/initrd
tests/guest/make-initrd "$dir" "$initrd" || exit 1
vmlinux "$kernel" "$TMP/vmlinux"
t 'vmlinux, by its PVH note' shows 'GUEST done' -v "$TMP/vmlinux" -i "$initrd" -a 'console=ttyS0 quiet'
t 'it was entered there' grep -aq 'entered by PVH' "$TMP/out"
# Without the note it is entered as a boot loader would.
sed 's/Xen\x00/xEN\x00/g' "$TMP/vmlinux" >"$TMP/plain"
t 'vmlinux without a note' shows 'GUEST done' -v "$TMP/plain" -i "$initrd" -a 'console=ttyS0 quiet'
t 'it was entered by the boot protocol' grep -aq 'entered by Linux 64-bit' "$TMP/out"
gzip -1c "$TMP/vmlinux" >"$TMP/vmlinux.gz"
t 'vmlinux.gz' shows 'GUEST done' "$TMP/vmlinux.gz" -i "$initrd" -a 'console=ttyS0 quiet'
t 'too little memory' refused 'give the guest more memory' -m 32M "$kernel"
t 'an initrd larger than memory' refused 'initrd' -m 64M "$kernel" -i "$TMP/vmlinux"
head -c 5000000 "$kernel" >"$TMP/cut"
t 'a kernel that is cut off' refused 'is cut off' "$TMP/cut"
t 'a program is no kernel' refused 'is an ELF file, but no kernel' /bin/ls

if package memtest86+; then
	t 'memtest86+: bzImage without a payload' shows 'Memtest86+ v' \
		"$pkg/memtest86+/boot/memtest86+x64.bin" -a 'console=ttyS0,115200'
else
	skip 'memtest86+' 'the package cannot be fetched'
fi
if package gnumach-image-1.8-486; then
	t 'GNU Mach: multiboot, compressed' shows 'No bootstrap code loaded' \
		"$(echo "$pkg"/gnumach-image-1.8-486/boot/gnumach-*.gz)" -a console=com0
else
	skip 'GNU Mach' 'the package cannot be fetched'
fi
if package xen-hypervisor-4.17-amd64; then
	xen=$(echo "$pkg"/xen-hypervisor-4.17-amd64/boot/xen-*.gz)
	t 'Xen: multiboot with modules' shows 'about to get started...' "$xen" -m 1G \
		-a 'console=com1 com1=115200,8n1 dom0_mem=256M' \
		--module "$kernel console=hvc0" --module "$initrd"
	t 'it found the ACPI tables' grep -q 'ACPI: .*RSDP\|(XEN) ACPI' "$TMP/out"
else
	skip 'Xen' 'the package cannot be fetched'
fi
if package ipxe; then
	t 'iPXE needs a BIOS' refused 'calls a BIOS' "$pkg/ipxe/boot/ipxe.lkrn"
else
	skip 'iPXE' 'the package cannot be fetched'
fi
done_testing

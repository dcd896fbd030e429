#!/bin/sh
# boot.t - trees of files become disks that start: by SeaBIOS and our loader (under QEMU), and by vm-run with the same kernel;
# the kernel in /boot or given, from a tar file, a folder, a docker archive. TAP.
. "$(dirname "$0")/../lib.sh"
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
version=${kernel##*/vmlinuz-}
make="python3 $PWD/tests/tool/layers.py"
mods=$(echo "$dir"/lib/modules/*)/kernel
qemu=qemu-system-x86_64
mkinitramfs=$O/tests/progs/mkinitramfs
cd "$TMP" || exit 1

# The initial RAM disk of a distribution, in short: modules, then the root file system.
cat >init <<'I'
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 crc32c_generic mbcache jbd2 ext4; do
	[ -f /mod/$m.ko ] && $bb insmod /mod/$m.ko
done
for w in $($bb cat /proc/cmdline); do
	case $w in init=*) start=${w#init=} ;; root=PARTUUID=*) root=/dev/vda1 ;; root=*) root=${w#root=} ;; esac
done
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b "$root" ] && break; $bb usleep 100000; done
$bb mount -t ext4 $root /root && exec $bb switch_root /root ${start:-/sbin/init}
I
chmod +x init
set -- bin/ dev/ proc/ mod/ root/ "bin/busybox=$(command -v busybox)" "init=$TMP/init" dev/console#5:1
for m in virtio/virtio virtio/virtio_ring virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev virtio/virtio_pci block/virtio_blk; do
	[ -f "$mods/drivers/$m.ko" ] && set -- "$@" "mod/${m##*/}.ko=$mods/drivers/$m.ko"
done
for m in lib/crc16 crypto/crc32c_generic fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4; do
	[ -f "$mods/$m.ko" ] && set -- "$@" "mod/${m##*/}.ko=$mods/$m.ko"
done
"$mkinitramfs" initrd "$@" || exit 1

{ head -c 65536 /dev/zero && cat initrd; } >initrd.holes # the file system keeps no zeros

mkdir -p root/sbin root/bin root/proc root/etc
cp "$(command -v busybox)" root/bin/busybox
ln -s busybox root/bin/sh
cat >root/sbin/init <<'I'
#!/bin/sh
/bin/busybox mount -t proc proc /proc
echo "ROOT $(/bin/busybox cat /etc/name) $(/bin/busybox grep ' / ' /proc/mounts | /bin/busybox tail -n 1 | /bin/busybox cut -d' ' -f1,3)"
echo "ROOT line $(/bin/busybox cat /proc/cmdline)"
echo was here >/seen
/bin/busybox mount -o remount,ro /
/bin/busybox poweroff -f
I
chmod +x root/sbin/init
echo tree >root/etc/name
args='console=ttyS0 quiet panic=-1'

saw() { tr -d '\r' <"$1" | grep -q -- "$2" || { tail -n 20 "$1"; return 1; }; }
bios() { # bios DISK FORMAT LOG
	timeout "${LIMIT:-200}" $qemu -accel tcg -m 512 -display none -serial "file:$3" -monitor none -no-reboot -drive "file=$1,format=$2,if=virtio" </dev/null
}
import() { "$VM_IMG" import "$@" >"$TMP/told" 2>&1; st=$?; cat "$TMP/told"; return $st; }
fs_of() { dd if="$1" of=fs.raw bs=1M skip=1 status=none && e2fsck -fn fs.raw; }
PATH=$PATH:/usr/sbin:/sbin

# ---- the kernel is given ----
t 'a tree gets a kernel' import -O raw -o given.raw --kernel "$kernel" --initrd initrd.holes --append "$args" root
t 'the partition holds a whole file system' fs_of given.raw
t 'the table is one' says 'partition' "$VM_IMG" list given.raw
t 'vm-run starts it' sh -c "timeout 200 '$VM_RUN' --engine emulator --timeout 150 -d given.raw,snapshot -i initrd -a 'root=/dev/vda1 rw $args' '$kernel' </dev/null >run.log 2>&1"
t 'from its partition' saw run.log '^ROOT tree /dev/vda1 ext4'
if command -v $qemu >/dev/null; then
	t 'a BIOS starts it' bios given.raw raw bios.log
	t 'the kernel finds its root' saw bios.log '^ROOT tree /dev/vda1 ext4'
	t 'and has its command line' saw bios.log "^ROOT line root=PARTUUID=[0-9a-f]*-01 rw $args"
	t 'what it wrote is there' sh -c "dd if=given.raw of=fs.raw bs=1M skip=1 status=none && debugfs -R 'cat /seen' fs.raw | grep -q 'was here'"
fi

# ---- the kernel is in the tree, the newest of two, as a docker archive ----
mkdir -p root/boot
cp "$kernel" "root/boot/vmlinuz-$version"
cp initrd "root/boot/initrd.img-$version"
echo nothing >root/boot/vmlinuz-1.0
echo tar >root/etc/name
tar --owner=0 --group=0 -C root -cf root.tar .
t 'a tar file with a kernel' import -o tar.qcow2 --append "$args" --size 256M root.tar
if command -v $qemu >/dev/null; then
	t 'a BIOS starts it' bios tar.qcow2 qcow2 tar.log
	t 'its root' saw tar.log '^ROOT tar /dev/vda1 ext4'
fi
# A container: its command is what is started.
mv root/sbin/init root/bin/serve
echo container >root/etc/name
tar --owner=0 --group=0 -C root -cf layer.tar .
printf '[{"Config":"c.json","RepoTags":null,"Layers":["layer.tar"]}]' >manifest.json
printf '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/bin/serve"],"Cmd":["--now"]}}' >c.json
tar -cf docker.tar manifest.json c.json layer.tar
t 'a container image' import -O raw -o docker.raw --append "$args" docker.tar
if command -v $qemu >/dev/null; then
	t 'a BIOS starts it' bios docker.raw raw docker.log
	t 'its command is run' saw docker.log '^ROOT container /dev/vda1 ext4'
	t 'with its arguments' saw docker.log '^ROOT line .* init=/bin/serve .* -- --now'
fi

# ---- what cannot ----
rm -r root/boot
t 'without a kernel it is told' says '--kernel makes a bootable one' "$VM_IMG" import -O raw -o none.raw root
t 'and the disk is the file system' e2fsck -fn none.raw
t 'without init it is told' says 'there is no /sbin/init' "$VM_IMG" import -O raw -o x.raw --kernel "$kernel" root
t 'without an initial RAM disk it is told' says 'no initial RAM disk' "$VM_IMG" import -O raw -o x.raw --kernel "$kernel" root
t 'what is no kernel' fails 'no Linux kernel' "$VM_IMG" import -q -O raw -o y.raw --kernel init root
t 'a kernel that is not there' fails 'No such file' "$VM_IMG" import -q -O raw -o y.raw --kernel nowhere root
t 'a long command line' fails 'too long' "$VM_IMG" import -q -O raw -o y.raw --kernel "$kernel" --append "$(seq -s, 1 1000)" root
t 'an initrd alone' exits 2 "$VM_IMG" import --initrd initrd root
t 'nothing is left of failures' sh -c '! ls y.raw*'
done_testing

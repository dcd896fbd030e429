#!/bin/sh
# img-rootfs.t - trees of files become disks: tar files, folders, docker save, OCI images; checked by e2fsck, read by debugfs.
# TAP.
. "$(dirname "$0")/../lib.sh"
PATH=$PATH:/usr/sbin:/sbin
img=$O/vm-img
make="python3 $(cd "$(dirname "$0")" && pwd)/layers.py"
cd "$TMP" || exit 1

mkdir -p root/etc root/usr/bin root/a
echo host >root/etc/hostname
head -c 300000 /dev/urandom >root/usr/bin/tool
ln root/usr/bin/tool root/usr/bin/alias
ln -s usr/bin root/bin
ln -s "$(printf 'x%.0s' 1 2 3 4 5 6 7 8 9 10)$(seq -s - 1 60)" root/longlink
truncate -s 20M root/sparse && echo end >>root/sparse
i=0
while [ $i -lt 300 ]; do i=$((i + 1)); echo $i >root/a/a-name-that-is-long-enough-to-make-the-folder-grow-$i; done
chmod 4755 root/usr/bin/tool
touch -d 2001-02-03T04:05:06Z root/etc/hostname
tar --owner=1000 --group=70000 -C root -cf r.tar .

made() { # made SOURCE [OPTION...]: fs.raw, which e2fsck likes
	rm -f fs.raw
	timeout 60 "$img" import -q -O raw -o fs.raw "$@" && e2fsck -fn fs.raw
}
dump() { rm -rf dump && mkdir dump && debugfs -R 'rdump / dump' fs.raw 2>/dev/null && rmdir dump/lost+found; }
same() { made "$@" && dump && diff -r --no-dereference root dump; }
stat_is() { debugfs -R "stat $1" fs.raw 2>/dev/null | grep -q -- "$2"; }
content() { [ "$(debugfs -R "cat $1" fs.raw 2>/dev/null)" = "$2" ]; }
gone() { ! debugfs -R "stat $1" fs.raw 2>/dev/null | grep -q Inode; }

t 'a tar file' same r.tar
t 'owners' stat_is /etc/hostname 'User:  1000   Group: 70000'
t 'rights' stat_is /usr/bin/tool 'Mode:  04755'
t 'times' stat_is /etc/hostname 'Sat Feb  3 04:05:06 2001'
t 'hard links are one file' stat_is /usr/bin/alias 'Links: 2'
t 'zeros are holes' sh -c "debugfs -R 'stat /sparse' fs.raw 2>/dev/null | grep -q 'Blockcount: 8'"
t 'there is room' sh -c "dumpe2fs -h fs.raw 2>/dev/null | awk '/^Free blocks/ { exit !(\$3 > 10000) }'"
t 'and a journal' sh -c "dumpe2fs -h fs.raw 2>/dev/null | grep -q 'ournal size'"
t 'a folder' same root
t 'links in it, too' stat_is /usr/bin/alias 'Links: 2'
t 'from a pipe, packed' sh -c "gzip -c r.tar | $img import -q -O raw -o fs.raw - && e2fsck -fn fs.raw"
t 'as qcow2' sh -c "$img import -q -o fs.qcow2 --size 1G --label data r.tar && $img info fs.qcow2 | grep -q '1 GiB'"
t 'its label' sh -c "$img convert fs.qcow2 l.raw && dumpe2fs -h l.raw 2>/dev/null | grep -q 'name: *data'"
t 'resize2fs takes it' sh -c "truncate -s 2G l.raw && e2fsck -fp l.raw; resize2fs l.raw && e2fsck -fn l.raw"
t 'it has a name of its own without -o' sh -c "mkdir w && cd w && $img import -q ../r.tar && [ -s r.qcow2 ]"
t 'what is told' says 'kind: folder' "$img" import --list root
mkdir big && head -c 15000000 /dev/urandom >big/file
t 'a file system that is too small' fails 'do not fit' "$img" import -O raw --size 16M -o x.raw big
t 'a size that is none' exits 2 "$img" import --size 100 -o x.raw r.tar

# ---- layers ----
merged() {
	made "$1" && content /etc/keep 1 && content /etc/changed new && gone /etc/gone && gone /opaque/old && gone /opaque/sub &&
		content /opaque/new 2 && gone /tree/a && content /tree/c 3 && content /file-then-dir/in 2 && content /dir-then-file 2 &&
		content /bin/tool TOOL && content /bin/alias tool && stat_is /bin/alias 'Links: 1' && stat_is /etc/link '/etc/passwd' &&
		! debugfs -R 'ls /etc' fs.raw 2>/dev/null | grep -q '\.wh\.'
}
for k in docker oci oci-gzip; do
	$make $k $k.tar
	t "$k: layers on one another" merged $k.tar
done
$make oci-folder layout
t 'an OCI layout in a folder' merged layout
t 'is told as such' says 'layers: 3' "$img" import --list layout
$make oci-damage damage.tar
t 'a layer that was changed' fails 'its SHA-256 is not its name' "$img" import -o x.raw damage.tar
blob_all() { for f in layout/blobs/sha256/*; do b=$(basename "$f"); mv "$f" "b-$b" && ln -s "$PWD/b-$b" "$f"; done; fails 'leads out of it' "$img" import -o x.raw layout; }
t 'blobs that are links out of the layout' blob_all

# ---- hostile ones ----
bad() { $make bad "$1" bad.tar && fails "$2" timeout 20 "$img" import -O raw -o x.raw bad.tar; }
good() { $make bad "$1" bad.tar && made bad.tar; }
t 'names with ..' bad dotdot 'leads out of the tree'
t 'absolute names stay inside' sh -c "$make bad absolute bad.tar && $img import -q -O raw -o fs.raw bad.tar && e2fsck -fn fs.raw && debugfs -R 'cat /usr/y' fs.raw | grep -q y"
t 'through a link' bad through-link 'lies below what is no folder'
t 'a hard link to nothing' bad hard-to-nothing 'is not there'
t 'a hard link above' bad hard-above 'leads out of the tree'
t 'a hard link to a folder' bad hard-dir 'a link to a folder'
t 'below a file' bad below-file 'no folder'
t 'a name of 300 bytes' bad long 'too long a name'
t 'a thousand folders deep' bad deep 'too long a name'
t 'devices are only entries' good devices
t 'their numbers' stat_is /dev/sda 'Type: block special'
t 'the same name again and again' good twice
t 'a tar file that was cut' sh -c "head -c 200000 r.tar >cut.tar; $img import -O raw -o x.raw cut.tar; [ \$? = 1 ]"
t 'nothing is left of failures' sh -c "[ ! -e x.raw ]"
done_testing

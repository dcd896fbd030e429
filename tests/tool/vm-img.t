#!/bin/sh
# vm-img.t - vm-img where it is not qemu-img: statuses, pipes, external files, names that appear at the end, progress. TAP.
. "$(dirname "$0")/../lib.sh"
command -v qemu-img >/dev/null || { echo "1..0 # SKIP no qemu-img"; exit 0; }
here=$PWD
export VM_IMG here
cd "$TMP" || exit 1
img() { timeout 60 "$VM_IMG" "$@"; }

truncate -s 12582912 disk.raw
seq 1 200000 | dd of=disk.raw bs=4096 seek=10 conv=notrunc status=none
head -c 900000 /dev/urandom | dd of=disk.raw bs=4096 seek=1000 conv=notrunc status=none
qemu-img convert -O qcow2 disk.raw disk.qcow2
qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2 16M
qemu-io -c 'write -P 7 1M 300k' -c 'write -z 3M 1M' over.qcow2 >/dev/null

# ---- the command line ----
t 'help is help' says 'convert' img --help
t 'a command has help' says '--target-is-zero' img convert --help
t 'no option without a name' sh -c "'$VM_IMG' --help | sed -n 's/^  \([a-z]*\) .*/\1/p' | while read -r c; do '$VM_IMG' \$c --help; done | grep -A2 '(null)' && exit 1; true"
t 'help on a full disk' sh -c "'$VM_IMG' --help >/dev/full; [ \$? = 1 ]"
t 'version' says 'vm-img ' img --version
t 'no command is a usage error' exits 2 img
t 'an unknown command is a usage error' exits 2 img nosuch
t 'an unknown option is a usage error' exits 2 img info --nosuch disk.raw
t 'a missing argument is a usage error' exits 2 img info
t 'a missing file' fails "cannot open 'nowhere': No such file or directory" img info nowhere
t 'a folder' fails "'$TMP'" img info "$TMP"
t 'formats' says 'qcow2' img formats
t 'formats, JSON' sh -c "'$VM_IMG' formats --json | python3 -m json.tool | grep -q '\"name\": \"qcow2\"'"
t 'settings of a format' says 'cluster_size' img formats qcow2
t '-o help' says 'cluster_size' img create -f qcow2 -o help x
t 'same images: 0' exits 0 img compare disk.raw disk.qcow2
t 'different images: 3' exits 3 img compare disk.raw over.qcow2
t 'no answer: 1' exits 1 img compare disk.raw nowhere
t 'compare finds the byte' sh -c "cp disk.raw o.raw; printf x | dd of=o.raw bs=1 seek=7000001 conv=notrunc status=none
	'$VM_IMG' compare disk.raw o.raw | grep -q 'offset 7000001!'"
t 'compare, JSON' sh -c "'$VM_IMG' compare --json disk.raw o.raw | grep -q '\"offset\": 7000001'"

t 'completion: commands' sh -c "bash -c '. \"\$here/tools/vm-img/completion.bash\"; COMP_WORDS=(\"\$VM_IMG\" con); COMP_CWORD=1; _vm_img; [ \"\${COMPREPLY[*]}\" = convert ]'"
t 'completion: formats' sh -c "bash -c '. \"\$here/tools/vm-img/completion.bash\"; COMP_WORDS=(\"\$VM_IMG\" convert -O qcow2); COMP_CWORD=3; _vm_img; [[ \" \${COMPREPLY[*]} \" = *\" qcow2 \"* ]]'"
t 'completion: options' sh -c "bash -c '. \"\$here/tools/vm-img/completion.bash\"; COMP_WORDS=(\"\$VM_IMG\" convert --target-is); COMP_CWORD=2; _vm_img; [ \"\${COMPREPLY[*]}\" = --target-is-zero ]'"

# ---- pipes ----
t 'raw to a pipe' sh -c "'$VM_IMG' convert -O raw over.qcow2 - | cat >p.raw && qemu-img compare -F raw over.qcow2 p.raw"
t 'qcow2 to a pipe' sh -c "'$VM_IMG' convert -O qcow2 over.qcow2 - | cat >p.qcow2 && qemu-img check -q p.qcow2 && qemu-img compare over.qcow2 p.qcow2"
t 'qcow2 of small clusters to a pipe' sh -c "'$VM_IMG' convert -O qcow2 -o cluster_size=512 over.qcow2 - | cat >p.qcow2 && qemu-img check -q p.qcow2 && qemu-img compare over.qcow2 p.qcow2"
t 'an empty image to a pipe' sh -c "truncate -s 1M e.raw; '$VM_IMG' convert -O qcow2 e.raw - | cat >p.qcow2 && qemu-img check -q p.qcow2 && qemu-img compare e.raw p.qcow2"
t 'raw from a pipe' sh -c "cat disk.raw | '$VM_IMG' convert -O qcow2 - p.qcow2 && qemu-img compare disk.raw p.qcow2"
t 'qcow2 from a pipe' sh -c "cat disk.qcow2 | '$VM_IMG' convert -O raw - p.raw && cmp disk.raw p.raw"
t 'from a pipe to a pipe' sh -c "cat disk.qcow2 | '$VM_IMG' convert -O raw - - | cmp - disk.raw"
for z in gzip xz zstd bzip2 lz4 lzop; do
	t "packed by $z" sh -c "$z -c <disk.qcow2 >d.$z && '$VM_IMG' compare disk.raw d.$z && '$VM_IMG' convert -O raw - p.raw <d.$z && cmp disk.raw p.raw"
	t "packed by $z, cut off" sh -c "head -c 100000 d.$z >cut.$z; ! '$VM_IMG' convert -O raw cut.$z p2.raw && [ ! -e p2.raw ]"
done
t 'with -f raw a packed file is what it is' sh -c "'$VM_IMG' convert -f raw -O raw d.gzip p.raw && cmp -n \$(stat -c %s d.gzip) d.gzip p.raw"
t 'an empty pipe' fails "'standard input' is empty" img info -
t 'no file called -' test ! -e ./-
t 'a pipe that ends is a failure' sh -c "{ timeout 60 '$VM_IMG' convert -O raw disk.raw - 2>e; echo \$? >s; } | head -c 100 >/dev/null; grep -q '^1\$' s && grep -q 'standard output' e"

# ---- files that images name ----
mkdir -p in out
cp disk.qcow2 out/base.qcow2
(cd in && qemu-img create -q -f qcow2 -b ../out/base.qcow2 -F qcow2 leak.qcow2 12M)
(cd in && qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw passwd.qcow2 1M)
ln -s ../out/base.qcow2 in/link.qcow2
(cd in && qemu-img create -q -f qcow2 -b link.qcow2 -F qcow2 linked.qcow2 12M)
t 'a backing file outside the folder is not opened' fails "outside the image's folder: --allow-external=DIR" img convert -O raw in/leak.qcow2 x.raw
t 'nor is it an absolute one' fails '/etc/passwd' img map in/passwd.qcow2
t 'nor by a link' fails 'outside' img map in/linked.qcow2
t 'info shows the name and opens nothing' says 'backing file: /etc/passwd' img info in/passwd.qcow2
t 'with --allow-external it is opened' img convert --allow-external=out -O raw in/leak.qcow2 x.raw
t 'but not elsewhere' fails 'outside' img convert --allow-external=/usr -O raw in/leak.qcow2 x.raw
t '--allow-external=/ is everywhere' img map --allow-external=/ in/passwd.qcow2
t 'a new image with a backing file outside' fails 'outside' img create -f qcow2 -b ../disk.qcow2 -F qcow2 in/new.qcow2
t 'a protocol is no file' sh -c "qemu-img create -q -f qcow2 -u -b nbd://h/x -F raw n.qcow2 1M; '$VM_IMG' map n.qcow2 2>&1 | grep -q 'only files'"

# ---- names appear at the end ----
t 'a failed conversion leaves nothing' sh -c "mkdir d; cp disk.qcow2 d/b.qcow2; printf XXXX | dd of=d/b.qcow2 bs=1 seek=262144 conv=notrunc status=none
	'$VM_IMG' convert -O raw d/nowhere d/y.raw; '$VM_IMG' convert -O raw -o nosuch=1 disk.raw d/y.raw; [ \"\$(ls -A d)\" = b.qcow2 ]"
t 'a full disk leaves nothing, and what was there' sh -c "echo old >d/t.raw; (ulimit -f 2000; '$VM_IMG' convert -O raw disk.raw d/t.raw); [ \$? != 0 ] && [ \"\$(cat d/t.raw)\" = old ] && [ \$(ls -A d | wc -l) = 2 ]"
t 'a killed conversion leaves nothing' sh -c "for i in 1 2 3 4 5 6; do timeout -s KILL 0.0\$i '$VM_IMG' convert -c -O qcow2 -o compression_type=zlib disk.raw d/k.qcow2
	[ ! -e d/k.qcow2 ] || qemu-img compare -q disk.raw d/k.qcow2 || exit 1; rm -f d/k.qcow2; done; [ \$(ls -A d | wc -l) = 2 ]"
t 'ctrl-c leaves nothing' sh -c "timeout -s INT 0.3 '$VM_IMG' convert -r 1M -O raw disk.raw d/c.raw; [ \$? != 0 ] && [ ! -e d/c.raw ] && [ \$(ls -A d | wc -l) = 2 ]"
t 'an image that is a source is no target' fails 'in use' img convert -O qcow2 disk.qcow2 disk.qcow2
t 'and it is whole' qemu-img compare disk.raw disk.qcow2
t 'a link is followed, not replaced' sh -c "ln -s t.raw d/l.raw; '$VM_IMG' convert -O raw disk.raw d/l.raw && [ -L d/l.raw ] && cmp disk.raw d/t.raw"
t 'the mode of what is replaced stays' sh -c "chmod 600 d/t.raw; '$VM_IMG' convert -O raw disk.raw d/t.raw; [ \$(stat -c %a d/t.raw) = 600 ]"

# ---- compression, holes ----
t 'qcow2 is compressed by zstd' sh -c "'$VM_IMG' convert -c -O qcow2 disk.raw z.qcow2 && qemu-img info z.qcow2 | grep -q 'compression type: zstd' && qemu-img check -q z.qcow2 && qemu-img compare disk.raw z.qcow2"
t 'by zlib when asked' sh -c "'$VM_IMG' convert -c -O qcow2 -o compression_type=zlib disk.raw z.qcow2 && qemu-img info z.qcow2 | grep -q 'compression type: zlib' && qemu-img compare disk.raw z.qcow2"
t 'by zlib in version 2' sh -c "'$VM_IMG' convert -c -O qcow2 -o compat=0.10 disk.raw z.qcow2 && qemu-img compare disk.raw z.qcow2"
t 'with one thread and with nine' sh -c "'$VM_IMG' convert -m 1 -c -O qcow2 disk.raw z1.qcow2 && '$VM_IMG' convert -m 9 -c -O qcow2 disk.raw z9.qcow2 && cmp z1.qcow2 z9.qcow2"
t 'holes stay holes' sh -c "truncate -s 1G h.raw; printf x | dd of=h.raw bs=1 seek=500000000 conv=notrunc status=none
	'$VM_IMG' convert -O raw h.raw h2.raw && [ \$(stat -c %b h2.raw) -le 64 ] && cmp h.raw h2.raw"
t 'an overlay is converted in front of the same file' sh -c "'$VM_IMG' convert -O qcow2 -B disk.qcow2 -F qcow2 over.qcow2 ov.qcow2 && qemu-img compare over.qcow2 ov.qcow2 && [ \$(stat -c %s ov.qcow2) -lt 1000000 ]"
t 'a compressed one, too' sh -c "'$VM_IMG' convert -c -O qcow2 -B disk.qcow2 -F qcow2 over.qcow2 ov.qcow2 && qemu-img compare over.qcow2 ov.qcow2 && [ \$(stat -c %s ov.qcow2) -lt 1000000 ]"

# ---- in use, progress ----
t 'what is in use is looked at, and said' sh -c "{ sleep 3 | timeout 20 qemu-io disk.qcow2 >/dev/null; } & sleep 1
	'$VM_IMG' info disk.qcow2 2>&1 | grep -q \"note: 'disk.qcow2' is in use\"; a=\$?; '$VM_IMG' convert -O raw disk.qcow2 u.raw 2>&1 | grep -q 'in use'; b=\$?; wait; [ \$a = 0 ] && [ \$b = 0 ]"
t 'progress for programs' sh -c "'$VM_IMG' convert --progress=3 -O raw disk.raw x.raw 3>p && tail -1 p | grep -qx 100/100"
t 'a line on SIGUSR1' sh -c "'$VM_IMG' convert -r 1M -O raw disk.raw x.raw 2>e & sleep 0.5; kill -USR1 \$!; wait; grep -q 'vm-img convert: .* %' e"
t '-q is quiet' sh -c "[ -z \"\$('$VM_IMG' convert -q -p -O raw disk.raw x.raw 2>&1)\" ]"
done_testing

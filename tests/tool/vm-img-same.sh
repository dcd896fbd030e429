# vm-img-same.sh - the scripts of vm-img-same.t.

# ---- info, map ----
same 'info raw' 'qemu-img info -f raw disk.raw'
same 'info of a raw image, recognized' 'qemu-img info disk.raw'
for i in disk.qcow2 small.qcow2 zstd.qcow2 over.qcow2; do
	same "info $i" "qemu-img info $i"
	same "info $i, JSON" "qemu-img info --output=json $i"
	same "info --backing-chain $i" "qemu-img info --backing-chain $i"
	same "info --backing-chain $i, JSON" "qemu-img info --backing-chain --output=json $i"
done
same 'info compat=0.10' 'qemu-img create -q -f qcow2 -o compat=0.10 x.qcow2 1M; qemu-img info x.qcow2'
same 'info raw, JSON' 'qemu-img info --output=json disk.raw'
same 'info of what is not there' 'qemu-img info nowhere'
same 'info with an unknown format' 'qemu-img info -f nosuch disk.raw'
same 'info with a wrong format' 'qemu-img info -f qcow2 disk.raw'
same 'map raw' 'qemu-img map -f raw disk.raw'
same 'map raw, JSON' 'qemu-img map --output=json -f raw disk.raw'
same 'map qcow2' 'qemu-img map disk.qcow2'
same 'map qcow2, JSON' 'qemu-img map --output=json disk.qcow2'
same 'map of a chain' 'qemu-img map over.qcow2'
same 'map of a chain, JSON' 'qemu-img map --output=json over.qcow2'
same 'map from an offset' 'qemu-img map --output=json --start-offset=1M --max-length=3M over.qcow2'
same 'map with -U' 'qemu-img map -U --output=json disk.qcow2'

# ---- create ----
same 'create raw' 'qemu-img create -q -f raw x.raw 3M' x.raw
same 'create qcow2' 'qemu-img create -q -f qcow2 x.qcow2 1G' x.qcow2
same 'create without a size' 'qemu-img create -q -f qcow2 x.qcow2'
same 'create with the size as a setting' 'qemu-img create -q -f qcow2 -o size=5M x.qcow2' x.qcow2
same 'create in front of a file' 'qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 x.qcow2' x.qcow2
same 'create in front of a file without its format' 'qemu-img create -q -f qcow2 -b disk.qcow2 x.qcow2'
same 'create in front of nothing' 'qemu-img create -q -f qcow2 -b nowhere -F raw x.qcow2'
same 'create in front of nothing with -u' 'qemu-img create -q -u -f qcow2 -b nowhere -F raw x.qcow2 5M && echo made'
same 'create raw in front of a file' 'qemu-img create -q -f raw -b disk.qcow2 -F qcow2 x.raw 3M'
same 'create with an unknown setting' 'qemu-img create -q -f qcow2 -o nosuch=1 x.qcow2 3M'
same 'create with a bad cluster size' 'qemu-img create -q -f qcow2 -o cluster_size=3000 x.qcow2 3M'
same 'create over an image' 'qemu-img create -q -f qcow2 disk.qcow2 3M' disk.qcow2
same 'create in no folder' 'qemu-img create -q -f qcow2 no/x.qcow2 3M'
same 'create with a bad size' 'qemu-img create -q -f raw x.raw lots'
same 'create -o preallocation=falloc' 'qemu-img create -q -f raw -o preallocation=falloc x.raw 3M && stat -c %b x.raw' x.raw

# ---- convert ----
for i in disk.raw disk.qcow2 small.qcow2 zstd.qcow2 over.qcow2; do
	same "convert $i to raw" "qemu-img convert -O raw $i x.raw" x.raw
	same "convert $i to qcow2" "qemu-img convert -O qcow2 $i x.qcow2" x.qcow2
	same "convert -c $i" "qemu-img convert -c -O qcow2 $i x.qcow2" x.qcow2
done
for o in compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=1 refcount_bits=64 \
	compression_type=zstd compression_type=zlib; do
	same "convert -o $o" "qemu-img convert -O qcow2 -o $o disk.raw x.qcow2" x.qcow2
	same "convert -c -o $o" "qemu-img convert -c -O qcow2 -o $o disk.raw x.qcow2" x.qcow2
done
same 'convert -f' 'qemu-img convert -f raw -O raw disk.qcow2 x.raw' x.raw
same 'convert several' 'qemu-img convert -O qcow2 disk.raw over.qcow2 disk.qcow2 x.qcow2' x.qcow2
same 'convert with -p -q -m -W -t -T' 'qemu-img convert -q -p -m 4 -W -t none -T none -O raw disk.qcow2 x.raw' x.raw
same 'convert -n' 'qemu-img create -q -f qcow2 x.qcow2 16M && qemu-io -c "write -P 3 0 16M" x.qcow2 >/dev/null && qemu-img convert -n -O qcow2 disk.raw x.qcow2' x.qcow2
same 'convert -n to something smaller' 'qemu-img create -q -f raw x.raw 2M && qemu-img convert -n -O raw disk.raw x.raw'
same 'convert -n to nothing' 'qemu-img convert -n -O raw disk.raw x.raw'
same 'convert --target-is-zero' 'qemu-img create -q -f raw x.raw 12M && qemu-img convert -n --target-is-zero -O raw disk.raw x.raw' x.raw
same 'convert -B' 'qemu-img convert -O qcow2 -B disk.qcow2 -F qcow2 over.qcow2 x.qcow2' x.qcow2
same 'convert -o backing_file' 'qemu-img convert -O qcow2 -o backing_file=disk.qcow2,backing_fmt=qcow2 over.qcow2 x.qcow2' x.qcow2
same 'convert -S 0' 'qemu-img convert -S 0 -O raw disk.raw x.raw && stat -c %b x.raw' x.raw
same 'convert -S 64k' 'qemu-img convert -S 64k -O raw disk.raw x.raw' x.raw
same 'convert --image-opts' 'qemu-img convert --image-opts -O raw driver=qcow2,file.filename=disk.qcow2 x.raw' x.raw
same 'convert from nothing' 'qemu-img convert -O raw nowhere x.raw; s=$?; ls x.raw; exit $s'
same 'convert to an unknown format' 'qemu-img convert -O nosuch disk.raw x.raw'
same 'convert without a target' 'qemu-img convert disk.raw'
same 'convert -U' 'qemu-img convert -U -O raw disk.qcow2 x.raw' x.raw
same 'dd' 'qemu-img dd -O qcow2 if=disk.raw of=x.qcow2 bs=1M count=3 skip=2' x.qcow2
same 'dd without a count' 'qemu-img dd -f qcow2 -O raw if=over.qcow2 of=x.raw bs=4k' x.raw
same 'dd of too much' 'qemu-img dd -O raw if=disk.raw of=x.raw bs=1M count=300 skip=11' x.raw
same 'dd with an unknown operand' 'qemu-img dd if=disk.raw of=x.raw conv=sync'

# ---- compare ----
same 'compare with itself' 'qemu-img compare disk.raw disk.raw'
same 'compare raw and qcow2' 'qemu-img compare disk.raw disk.qcow2'
same 'compare raw and compressed qcow2' 'qemu-img compare -f raw -F qcow2 disk.raw small.qcow2'
same 'compare different ones' 'qemu-img compare disk.raw other.raw'
same 'compare a longer one with zeros behind' 'qemu-img compare disk.raw longer.raw'
same 'compare a longer one with data behind' 'qemu-img compare disk.raw over.qcow2'
same 'compare -s, sizes differ' 'qemu-img compare -s disk.raw longer.raw'
same 'compare -q' 'qemu-img compare -q disk.raw other.raw'
same 'compare with nothing' 'qemu-img compare disk.raw nowhere'

# ---- measure ----
same 'measure raw' 'qemu-img measure -O raw disk.qcow2'
same 'measure raw --size' 'qemu-img measure -O raw --size 5G --output=json'
for o in '' cluster_size=512 cluster_size=2M refcount_bits=1 extended_l2=on compat=0.10; do
	for i in disk.raw disk.qcow2 small.qcow2 over.qcow2; do
		same "measure $i ${o:+-o $o}" "qemu-img measure ${o:+-o $o} -O qcow2 $i"
	done
	same "measure --size ${o:+-o $o}" "qemu-img measure --output=json ${o:+-o $o} -O qcow2 --size 70G"
done
same 'measure without anything' 'qemu-img measure -O raw'

# ---- the command line ----
same 'no command' 'qemu-img'
same 'an unknown command' 'qemu-img nosuch'
same 'an unknown option' 'qemu-img info --nosuch disk.raw'
same 'a bad cache mode' 'qemu-img convert -t fast -O raw disk.raw x.raw'
same 'a bad output kind' 'qemu-img info --output=xml disk.raw'
same 'resize raw' 'qemu-img resize -f raw disk.raw +1M' disk.raw
same 'resize raw, smaller, without --shrink' 'qemu-img resize -f raw disk.raw 1M'
same 'resize raw, smaller' 'qemu-img resize -f raw --shrink disk.raw 1M' disk.raw
same 'resize raw by a difference' 'qemu-img resize -f raw --shrink disk.raw -1M' disk.raw
same 'check raw' 'qemu-img check -f raw disk.raw'
same 'snapshot of raw' 'qemu-img snapshot -c x disk.raw'

# ---- check ----
for i in disk.qcow2 small.qcow2 zstd.qcow2 over.qcow2; do
	same "check $i" "qemu-img check $i"
	same "check $i, JSON" "qemu-img check --output=json $i"
done
same 'check -q' 'qemu-img check -q disk.qcow2'
for f in vdi vhdx; do
	same "check $f" "qemu-img convert -O $f disk.raw x.$f && qemu-img check -q x.$f"
	same "check $f, JSON" "qemu-img convert -O $f disk.raw x.$f && qemu-img check --output=json x.$f"
done
# A leak: a count of 1 for a cluster that nothing uses; damage: a count of 0 for one that is used.
leak='printf "\000\001" | dd of=disk.qcow2 bs=1 seek=$((131072 + 2 * 1000)) conv=notrunc status=none; truncate -s 70M disk.qcow2'
hurt='printf "\000\000" | dd of=disk.qcow2 bs=1 seek=$((131072 + 2 * 6)) conv=notrunc status=none'
same 'check finds a leak' "$leak; qemu-img check disk.qcow2 >/dev/null"
same 'check finds a leak, JSON' "$leak; qemu-img check --output=json disk.qcow2 | grep -v end-offset"
same 'check finds damage' "$hurt; qemu-img check disk.qcow2 >/dev/null"
same 'check finds damage, JSON' "$hurt; qemu-img check --output=json disk.qcow2"
same 'check -r leaks repairs a leak' "$leak; qemu-img check -r leaks disk.qcow2 >/dev/null && qemu-img check disk.qcow2 >/dev/null" disk.qcow2
same 'check -r all repairs damage' "$hurt; qemu-img check -r all disk.qcow2 >/dev/null" disk.qcow2
same 'check with a bad -r' 'qemu-img check -r some disk.qcow2'

# ---- snapshots ----
same 'snapshot -l, none' 'qemu-img snapshot -l disk.qcow2'
same 'snapshot -c' 'qemu-img snapshot -c one disk.qcow2 && qemu-img snapshot -l disk.qcow2' disk.qcow2
same 'snapshots in info' 'qemu-img snapshot -c one disk.qcow2 && qemu-img snapshot -c two disk.qcow2 && qemu-img info --output=json disk.qcow2'
same 'snapshot -a' 'qemu-img snapshot -c one disk.qcow2 && qemu-io -c "write -P 5 0 3M" disk.qcow2 >/dev/null && qemu-img snapshot -a one disk.qcow2' disk.qcow2
same 'snapshot -a by number' 'qemu-img snapshot -c one disk.qcow2 && qemu-io -c "write -P 5 0 3M" disk.qcow2 >/dev/null && qemu-img snapshot -a 1 disk.qcow2' disk.qcow2
same 'snapshot -d' 'qemu-img snapshot -c one disk.qcow2 && qemu-img snapshot -c two disk.qcow2 && qemu-img snapshot -d one disk.qcow2 && qemu-img snapshot -l disk.qcow2' disk.qcow2
same 'snapshot -d of what is not there' 'qemu-img snapshot -d one disk.qcow2'
same 'snapshot -a of what is not there' 'qemu-img snapshot -a one disk.qcow2'
same 'snapshot of no qcow2' 'qemu-img create -q -f vdi x.vdi 1M; qemu-img snapshot -c one x.vdi'
same 'convert -l' 'qemu-img snapshot -c one disk.qcow2 && qemu-io -c "write -P 5 0 3M" disk.qcow2 >/dev/null && qemu-img convert -l one -O raw disk.qcow2 x.raw' x.raw
same 'convert -l snapshot.name=' 'qemu-img snapshot -c one disk.qcow2 && qemu-io -c "write -P 5 0 3M" disk.qcow2 >/dev/null && qemu-img convert -l snapshot.name=one -O raw disk.qcow2 x.raw' x.raw
same 'convert -l of what is not there' 'qemu-img convert -l one -O raw disk.qcow2 x.raw'

# ---- resize ----
if can qcow2 resize; then
	same 'resize to more' 'qemu-img resize disk.qcow2 64M' disk.qcow2
	same 'resize by a difference' 'qemu-img resize disk.qcow2 +7G' disk.qcow2
	same 'resize to less' 'qemu-img resize -q --shrink disk.qcow2 8M' disk.qcow2
fi
same 'resize qcow2 to less without --shrink' 'qemu-img resize -q disk.qcow2 8M' disk.qcow2
same 'resize with a bad size' 'qemu-img resize -q disk.qcow2 large'

# ---- amend, bitmaps ----
same 'amend compat' 'qemu-img create -q -f qcow2 -o compat=0.10 x.qcow2 1M && qemu-img amend -o compat=1.1 x.qcow2 && qemu-img info x.qcow2' x.qcow2
same 'amend lazy_refcounts' 'qemu-img amend -o lazy_refcounts=on disk.qcow2 && qemu-img info disk.qcow2' disk.qcow2
same 'amend of what cannot be changed' 'qemu-img amend -o cluster_size=4k disk.qcow2'
same 'amend without settings' 'qemu-img amend disk.qcow2'
same 'amend of raw' 'qemu-img amend -f raw -o size=1M disk.raw'
same 'bitmap --add' 'qemu-img bitmap --add disk.qcow2 b && qemu-img info --output=json disk.qcow2' disk.qcow2
same 'bitmap --add -g --disable' 'qemu-img bitmap --add -g 32k disk.qcow2 b && qemu-img bitmap --disable disk.qcow2 b && qemu-img info --output=json disk.qcow2' disk.qcow2
same 'bitmap --remove' 'qemu-img bitmap --add disk.qcow2 b && qemu-img bitmap --remove disk.qcow2 b && qemu-img info --output=json disk.qcow2' disk.qcow2
same 'bitmap --merge' 'qemu-img bitmap --add disk.qcow2 b && qemu-img bitmap --add disk.qcow2 d && qemu-img bitmap --merge b --clear disk.qcow2 d' disk.qcow2
same 'bitmap of what is not there' 'qemu-img bitmap --remove disk.qcow2 b'
same 'bitmap twice' 'qemu-img bitmap --add disk.qcow2 b && qemu-img bitmap --add disk.qcow2 b'
same 'bitmap without an action' 'qemu-img bitmap disk.qcow2 b'
same 'bitmap of raw' 'qemu-img bitmap --add -f raw disk.raw b'

same 'amend size' 'qemu-img amend -q -o size=20M disk.qcow2' disk.qcow2
same 'bitmap -b without --merge' 'qemu-img bitmap -b disk.qcow2 --add disk.qcow2 b'
same 'snapshot -l -c' 'qemu-img snapshot -l -c x disk.qcow2'
over='qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 x.qcow2 16M'
same 'convert -n -B' "$over && qemu-img convert -n -B disk.qcow2 -F qcow2 -O qcow2 over.qcow2 x.qcow2" x.qcow2
same 'convert -n --salvage' "$over && qemu-img convert -n --salvage -O qcow2 disk.raw x.qcow2" x.qcow2
same 'convert -r' 'qemu-img convert -r 500M -O qcow2 disk.raw x.qcow2' x.qcow2
same 'convert -C' 'qemu-img convert -C -O raw disk.raw x.raw' x.raw
same 'convert -C -S' 'qemu-img convert -C -S 4k -O raw disk.raw x.raw'
same 'convert -C -c' 'qemu-img convert -C -c -O qcow2 disk.raw x.qcow2'
same 'convert --target-is-zero without -n' 'qemu-img convert --target-is-zero -O raw disk.raw x.raw'
same 'convert -F without -B' 'qemu-img convert -F qcow2 -O qcow2 over.qcow2 x.qcow2'
same 'convert -n --target-image-opts' "$over && qemu-img convert -n --target-image-opts disk.raw driver=qcow2,file.filename=x.qcow2" x.qcow2
same 'convert --target-image-opts -O' "$over && qemu-img convert -n --target-image-opts -O qcow2 disk.raw driver=qcow2,file.filename=x.qcow2"
same 'convert --image-opts -f' 'qemu-img convert --image-opts -f raw -O raw driver=raw,file.filename=disk.raw x.raw'
two='qemu-img snapshot -c one disk.qcow2 && qemu-io -c "write -P 5 0 3M" disk.qcow2 >/dev/null && qemu-img snapshot -c two disk.qcow2'
same 'convert -l by id and name' "$two && qemu-img convert -l snapshot.name=one,snapshot.id=1 -O raw disk.qcow2 x.raw" x.raw
same 'convert -l by the wrong id and name' "$two && qemu-img convert -l snapshot.id=2,snapshot.name=one -O raw disk.qcow2 x.raw"
same 'convert -l by id' "$two && qemu-img convert -l snapshot.id=2 -O raw disk.qcow2 x.raw" x.raw
same 'convert -l of several' "$two && qemu-img convert -l one -O raw disk.qcow2 disk.qcow2 x.raw"
same 'create -u without a size' 'qemu-img create -q -u -f qcow2 -b disk.qcow2 -F qcow2 x.qcow2'
same 'create -F without -b' 'qemu-img create -q -f qcow2 -F qcow2 x.qcow2 3M'
same 'check -r -U' 'qemu-img check -r all -U disk.qcow2'
same 'rebase --image-opts' 'qemu-img rebase --image-opts -b other.raw -F raw driver=qcow2,file.filename=over.qcow2' over.qcow2
same 'commit --image-opts' 'qemu-img commit -q --image-opts driver=qcow2,file.filename=over.qcow2' disk.qcow2
same 'compare with one' 'qemu-img compare disk.raw'
same 'trace before the command' 'qemu-img -T enable=none info disk.raw'

bits='qemu-img bitmap --add disk.qcow2 b && qemu-img bitmap --add -g 4k --disable disk.qcow2 d'
same 'convert --bitmaps' "$bits && qemu-img convert --bitmaps -O qcow2 disk.qcow2 x.qcow2 && qemu-img info --output=json x.qcow2" x.qcow2
same 'convert --bitmaps to raw' "$bits && qemu-img convert --bitmaps -O raw disk.qcow2 x.raw"
same 'convert --bitmaps from raw' 'qemu-img convert --bitmaps -O qcow2 disk.raw x.qcow2'
same 'convert --bitmaps of several' "$bits && qemu-img convert --bitmaps -O qcow2 disk.qcow2 disk.qcow2 x.qcow2"
same 'convert --skip-broken-bitmaps alone' 'qemu-img convert --skip-broken-bitmaps -O qcow2 disk.qcow2 x.qcow2'
same 'resize with bitmaps' "$bits && qemu-img resize -q disk.qcow2 +5M && qemu-img info --output=json disk.qcow2" disk.qcow2
same 'resize to less with bitmaps' "$bits && qemu-img resize -q --shrink disk.qcow2 5M && qemu-img info --output=json disk.qcow2" disk.qcow2

# ---- rebase, commit ----
same 'rebase' 'qemu-img rebase -b other.raw -F raw over.qcow2' over.qcow2
same 'rebase to a shorter one' 'truncate -s 5M short.raw && qemu-img rebase -b short.raw -F raw over.qcow2' over.qcow2
same 'rebase to nothing' 'qemu-img rebase -b "" over.qcow2' over.qcow2
same 'rebase -u' 'cp disk.qcow2 same.qcow2 && qemu-img rebase -u -b same.qcow2 -F qcow2 over.qcow2' over.qcow2
same 'rebase to what is not there' 'qemu-img rebase -b nowhere -F raw over.qcow2'
same 'rebase of raw' 'qemu-img rebase -f raw -b disk.qcow2 -F qcow2 disk.raw'
same 'rebase without -b' 'qemu-img rebase over.qcow2'
same 'commit' 'qemu-img commit -q over.qcow2' over.qcow2 disk.qcow2
same 'commit says so' 'qemu-img commit over.qcow2'
same 'commit -d' 'qemu-img commit -q -d over.qcow2' over.qcow2 disk.qcow2
same 'commit to the base of a longer chain' 'qemu-img create -q -f qcow2 -b over.qcow2 -F qcow2 top.qcow2 && qemu-io -c "write -P 8 2M 64k" top.qcow2 >/dev/null && qemu-img commit -q -b disk.qcow2 top.qcow2' disk.qcow2
same 'commit without a backing file' 'qemu-img commit -q disk.qcow2'
same 'commit to what is not in the chain' 'qemu-img commit -q -b other.raw over.qcow2'

#!/bin/sh
# img-luks.t - encrypted images: LUKS version 1 in qcow2 and by itself, qcow's AES. What one of vm-img and qemu-img
# writes the other reads. TAP.
. "$(dirname "$0")/../lib.sh"
imgio=$O/tests/progs/imgio
img=$VM_IMG
cd "$TMP" || exit 1
truncate -s 6000128 disk.raw
seq 1 100000 | dd of=disk.raw bs=4096 seek=50 conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=disk.raw bs=512 seek=9000 conv=notrunc status=none
printf 'open sesame\n' >key
secret='secret,id=s,data=open sesame'
# qemu-img measures the computer's speed and fails when it is busy: it is asked again.
peer() {
	for i in 1 2 3 4 5; do
		qemu-img "$@" 2>err && return
		grep -q 'accurate CPU usage' err || break
	done
	cat err
	return 1
}
# how FILE: as qemu-img's --image-opts.
how() {
	case $1 in
	*.luks) echo "driver=luks,key-secret=s,file.filename=$1" ;;
	*.qcow) echo "driver=qcow,encrypt.key-secret=s,file.filename=$1" ;;
	*.qcow2) echo "driver=qcow2,encrypt.key-secret=s,file.filename=$1" ;;
	*) echo "driver=raw,file.filename=$1" ;;
	esac
}
peer_same() { peer compare -q --object "$secret" --image-opts "$(how "$1")" "$(how "${2:-disk.raw}")"; }
our_same() { timeout 60 "$imgio" -r -S 'open sesame' "$1" cat >got.raw && cmp got.raw "${2:-disk.raw}"; }
peer_io() { f=$1; shift; timeout 60 qemu-io --object "$secret" --image-opts "$(how "$f")" "$@" >/dev/null; }
fast=iter-time=10

# ---- both ways, every cipher ----
settings() { # settings PREFIX ENCRYPTION-OPTIONS [OPTIONS]
	printf '%s%skey-secret=s' "${3:+$3,}" "$1"
	for x in $(echo "$2" | tr , ' '); do printf ',%s%s' "$1" "$x"; done
}
# made FORMAT FILE PREFIX OPTIONS: by qemu-img, which takes 2 s to measure the computer.
made() { rm -f "$2" && peer convert --object "$secret" -O "$1" -o "$(settings "$3" "$4" "$5")" disk.raw "$2" && our_same "$2"; }
# both FORMAT FILE PREFIX OPTIONS: ours, read by both, and then written to by qemu-img.
both() {
	rm -f "$2"
	"$img" convert --object "$secret" -O "$1" -o "$(settings "$3" "$4" "$5")" disk.raw "$2" && peer_same "$2" && our_same "$2" &&
		peer convert -n --object "$secret" --target-image-opts -f raw other.raw "$(how "$2")" && our_same "$2" other.raw
}
dd if=disk.raw of=other.raw bs=1k iseek=1 status=none && truncate -s 6000128 other.raw
t 'luks of qemu-img' made luks x.luks '' $fast
t 'luks of qemu-img, essiv' made luks x.luks '' $fast,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512
t 'qcow2 of qemu-img' made qcow2 x.qcow2 encrypt. format=luks,$fast
t 'qcow2 of qemu-img, AES' made qcow2 x.qcow2 encrypt. format=aes
for o in $fast \
	$fast,cipher-alg=aes-128 $fast,cipher-alg=aes-192 \
	$fast,cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256 \
	$fast,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha1 \
	$fast,hash-alg=sha512 $fast,cipher-alg=aes-256,cipher-mode=ecb; do
	t "luks: $o" both luks x.luks '' "$o"
done
for o in cipher-alg=serpent-256 cipher-alg=twofish-256 cipher-alg=serpent-128,cipher-mode=cbc \
	cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=plain64 hash-alg=ripemd160; do
	if rm -f x.luks && "$img" create --key-file key -f luks -o "$fast,$o" x.luks 1M && qemu-io --object "$secret" --image-opts "$(how x.luks)" -c 'read 0 512' >/dev/null 2>&1; then
		t "luks: $o" both luks x.luks '' "$fast,$o"
	else # qemu-img's library has it not: at least ours with itself
		t "luks: $o (alone)" sh -c "rm -f x.luks; $img convert --key-file key -O luks -o $fast,$o disk.raw x.luks && $imgio -r -S 'open sesame' x.luks cat | cmp - disk.raw"
	fi
done
t 'qcow2' both qcow2 x.qcow2 encrypt. "format=luks,$fast"
t 'it is clean' "$img" check -q x.qcow2
t 'qemu-img says so, too' peer check -q --object "$secret" --image-opts "$(how x.qcow2)"
t 'qcow2, AES' both qcow2 x.qcow2 encrypt. format=aes
t 'qcow2, AES by its old name' both qcow2 x.qcow2 encrypt. '' encryption=on
for o in cluster_size=512 cluster_size=2M extended_l2=on compat=0.10; do
	t "qcow2: $o" both qcow2 x.qcow2 encrypt. "format=luks,$fast" "$o"
done
for o in metadata falloc full; do
	t "qcow2: preallocation=$o" both qcow2 x.qcow2 encrypt. "format=luks,$fast" "preallocation=$o"
done
zeros() { # an empty image reads as zeros, wherever its clusters are
	truncate -s 3M zero.raw && rm -f x.qcow2
	"$img" create -f qcow2 --key-file key -o "encrypt.format=luks,encrypt.$fast,preallocation=$1" x.qcow2 3M &&
		peer_same x.qcow2 zero.raw && our_same x.qcow2 zero.raw
}
for o in off metadata full; do t "zeros, preallocation=$o" zeros $o; done
data_file() {
	rm -f x.qcow2 x.data
	"$img" convert --key-file key -O qcow2 -o "encrypt.format=luks,encrypt.$fast,data_file=x.data" disk.raw x.qcow2 &&
		peer_same x.qcow2 && our_same x.qcow2 && ! cmp -s x.data disk.raw
}
t 'qcow2: a data file' data_file
t 'nothing of the disk is in the clear' sh -c "! LC_ALL=C grep -qa '^123456\$' x.data"
qcow1() { rm -f x.qcow; peer convert --object "$secret" -O qcow -o encrypt.format=aes,encrypt.key-secret=s disk.raw x.qcow && our_same x.qcow; }
t 'qcow, AES' qcow1

# ---- writing in place ----
fresh() { # fresh FILE [OPTIONS]
	rm -f "$1" model.raw
	case $1 in
	*.luks) "$img" create -f luks --key-file key -o "$fast" "$1" 3M && peer convert --object "$secret" --image-opts -O raw "$(how "$1")" model.raw ;;
	*) "$img" create -f qcow2 --key-file key -o "${2:-encrypt.format=luks,encrypt.$fast}" "$1" 3M && truncate -s 3M model.raw ;;
	esac
}
random() { # random FILE OPTIONS BLOCK
	fresh "$1" "$2" && timeout 100 "$imgio" -n -S 'open sesame' "$1" random 7 400 3 "$3" model.raw && peer_same "$1" model.raw &&
		peer_io "$1" -c 'write -P 7 1000 5000' -c 'write -z 70000 100000' -c 'write -P 9 1M 100k' &&
		timeout 60 qemu-io -f raw -c 'write -P 7 1000 5000' -c 'write -z 70000 100000' -c 'write -P 9 1M 100k' model.raw >/dev/null &&
		our_same "$1" model.raw && timeout 100 "$imgio" -n -S 'open sesame' "$1" random 8 300 3 "$3" model.raw && peer_same "$1" model.raw
}
# Threads' blocks of 100 bytes share sectors, and those of 4096 clusters.
t 'luks, three threads within sectors' random x.luks '' 100
t 'luks, three threads' random x.luks '' 4096
t 'qcow2, three threads within sectors' random x.qcow2 '' 100
t 'qcow2, three threads' random x.qcow2 '' 4096
t 'qcow2 with subclusters' random x.qcow2 "encrypt.format=luks,encrypt.$fast,extended_l2=on,cluster_size=16k" 1000
t 'qcow2, AES, three threads' random x.qcow2 encrypt.format=aes 700
t 'and it is clean' "$img" check -q x.qcow2
snapshots() {
	fresh x.qcow2 && "$imgio" -S 'open sesame' x.qcow2 write 0 1M 1 && "$img" snapshot --key-file key -c one x.qcow2 &&
		"$imgio" -S 'open sesame' x.qcow2 write 500000 1M 2 && "$img" check -q x.qcow2 && "$img" convert --key-file key -O raw -l one x.qcow2 one.raw &&
		peer convert --object "$secret" --image-opts -O raw -l snapshot.name=one "$(how x.qcow2)" two.raw && cmp one.raw two.raw &&
		peer convert --object "$secret" --image-opts -O raw "$(how x.qcow2)" two.raw && our_same x.qcow2 two.raw
}
t 'snapshots' snapshots
clone() { # no blocks are shared with what is encrypted: --reflink, or the host's own copying
	fresh x.qcow2 && "$imgio" -S 'open sesame' x.qcow2 write 0 1M 1 && peer convert --object "$secret" --image-opts -O raw "$(how x.qcow2)" want.raw &&
		"$img" convert --key-file key -O raw x.qcow2 c.raw && cmp c.raw want.raw && "$img" convert --key-file key -C -O raw x.qcow2 c.raw && cmp c.raw want.raw &&
		"$img" convert -C --key-file key -O luks -o $fast want.raw c.luks && our_same c.luks want.raw
}
t 'nothing is shared with an encrypted image' clone
chain() {
	rm -f x.qcow2 && "$img" create -f qcow2 --key-file key -b disk.raw -F raw -o "encrypt.format=luks,encrypt.$fast" x.qcow2 &&
		"$imgio" -S 'open sesame' x.qcow2 write 1000 70000 5 && cp disk.raw want.raw && timeout 9 qemu-io -f raw -c 'write -P 5 1000 70000' want.raw >/dev/null &&
		our_same x.qcow2 want.raw && peer_same x.qcow2 want.raw
}
t 'in front of a raw disk' chain
grown() {
	"$img" resize -q --key-file key "$1" 8M && cp "$2" want.raw && truncate -s 8M want.raw && our_same "$1" want.raw && peer_same "$1" want.raw &&
		"$img" resize -q --shrink --key-file key "$1" 2M && truncate -s 2M want.raw && our_same "$1" want.raw && peer_same "$1" want.raw
}
cp want.raw old.raw
t 'qcow2 grows and shrinks' grown x.qcow2 old.raw
luks_grown() { "$img" convert --key-file key -O luks -o $fast disk.raw g.luks && grown g.luks disk.raw; }
t 'luks grows and shrinks' luks_grown
t 'it is measured' sh -c "$img measure --size 1G -O qcow2 -o encrypt.format=luks >a; $img measure --size 1G -O luks >b; cat a b; grep -q 'required size: 2490368' a && grep -q 'required size: 1075810304' b"

# ---- what is told ----
t 'info needs no passphrase' says 'cipher alg: aes-256' "$img" info x.qcow2
same_info() {
	"$img" info --output=json "$1" >a.json && qemu-img info --output=json "$1" >b.json &&
		python3 -c 'import json; a, b = (json.load(open(n))["format-specific"] for n in ("a.json", "b.json")); assert a == b, (a, b)'
}
t 'info of qcow2 is as qemu-img has it' same_info x.qcow2
t 'info of luks is as qemu-img has it' same_info g.luks
t 'it is recognized' says 'file format: luks' "$img" info g.luks
t 'no offset is told of what is encrypted' sh -c "$img map --output=json --key-file key g.luks | tee m | grep -q '\"data\": true' && ! grep -q offset m"

# ---- keys ----
t 'none is given' fails "'x.qcow2' is encrypted: its passphrase is needed" "$img" convert -O raw x.qcow2 no.raw
printf 'wrong' >bad.key
t 'a wrong one' fails "the passphrase does not open 'x.qcow2'" "$img" convert --key-file bad.key -O raw x.qcow2 no.raw
t 'a wrong one of luks' fails "the passphrase does not open 'g.luks'" "$img" convert --key-file bad.key -O raw g.luks no.raw
t 'nothing was written' test ! -e no.raw
t 'an unknown name' exits 2 "$img" convert --object "$secret" --image-opts -O raw driver=qcow2,encrypt.key-secret=t,file.filename=x.qcow2 no.raw
t 'creating without' fails 'needs a passphrase' "$img" create -f qcow2 -o encrypt.format=luks no.qcow2 1M
t 'creating luks without' fails 'needs a passphrase' "$img" create -f luks no.luks 1M
t 'an unknown cipher' exits 1 "$img" create -f luks --key-file key -o cipher-alg=rot13 no.luks 1M
t 'a cipher too small for its mode' fails 'has no mode xts' "$img" create -f luks --key-file key -o cipher-alg=cast5-128 no.luks 1M
t 'options without a format' fails 'nothing without' "$img" create -f qcow2 --key-file key -o encrypt.cipher-alg=aes-128 no.qcow2 1M
printf 'open sesame' | base64 >b64
t 'base64' "$img" convert --object secret,id=s,format=base64,file=b64 -O raw x.qcow2 b64.raw
t 'not base64' exits 2 "$img" convert --object secret,id=s,format=base64,data=abc -O raw x.qcow2 no.raw
t 'compression is refused' exits 1 "$img" convert -c --key-file key -O qcow2 -o encrypt.format=luks,encrypt.$fast disk.raw no.qcow2
binary() { # any bytes, as cryptsetup has them
	head -c 64 /dev/urandom >bin.key && printf '\0\n' >>bin.key && rm -f b.luks
	"$img" convert --key-file bin.key -O luks -o $fast disk.raw b.luks && "$img" compare -q --key-file bin.key b.luks disk.raw &&
		fails 'does not open' "$img" compare --key-file key b.luks disk.raw
}
t 'a key of any bytes' binary
add_key() {
	"$img" amend --object "$secret" --object secret,id=n,data=second --key-file key -o "$2new-secret=n,$2$fast" "$1" &&
		"$imgio" -r -S second "$1" info && peer convert --object secret,id=s,data=second --image-opts -O raw "$(how "$1")" k.raw && our_same "$1" k.raw
}
remove_key() { # that of qemu-img, or ours
	"$img" amend --object "$secret" --object secret,id=n,data=second --key-file key -o "$2state=inactive,$2old-secret=n" "$1" &&
		fails 'does not open' "$imgio" -r -S second "$1" info && our_same "$1" k.raw
}
for f in x.qcow2,encrypt. g.luks,; do
	t "${f%,*}: a second key" add_key "${f%,*}" "${f#*,}"
	t "${f%,*}: a key in a slot that is taken" exits 1 "$img" amend --object secret,id=n,data=third --key-file key -o "${f#*,}new-secret=n,${f#*,}keyslot=1" "${f%,*}"
	t "${f%,*}: removed" remove_key "${f%,*}" "${f#*,}"
	t "${f%,*}: the last one stays" fails 'without its last key' "$img" amend --key-file key -o "${f#*,}state=inactive,${f#*,}keyslot=0" "${f%,*}"
done
peer_key() {
	peer amend --object "$secret" --object secret,id=n,data=third --image-opts "$(how x.qcow2)" -o encrypt.state=active,encrypt.new-secret=n,encrypt.$fast &&
		"$imgio" -r -S third x.qcow2 info
}
t 'a key that qemu-img added' peer_key

# ---- hostile headers ----
poke() { # poke OFFSET BYTES: of the header
	cp g.luks bad.luks && printf "$2" | dd of=bad.luks bs=1 seek="$1" conv=notrunc status=none
}
bad() { fails "$1" timeout 10 sh -c "$imgio -r -f luks -S 'open sesame' bad.luks cat >cat.raw"; }
poke 6 '\000\002'
t 'LUKS 2' bad 'LUKS version 2'
t 'a disk with it is raw, if nobody says something else' says 'file format: raw' "$img" info bad.luks
poke 108 '\377\377\377\377'
t 'a key of 2^32 - 1 bytes' bad 'a key of 4294967295 bytes'
poke 104 '\377\377\377\377'
t 'data behind the end' bad 'is damaged'
poke 212 '\377\377\377\377'
t '2^32 - 1 rounds' bad 'made to stall'
poke 164 '\377\377\377\377'
t '2^32 - 1 rounds of the digest' bad 'made to stall'
poke 252 '\377\377\377\377'
t '2^32 - 1 stripes' bad 'key slot 0 has 4294967295 stripes'
poke 248 '\000\000\000\000'
t 'key material on the header' bad 'key slot 0'
poke 296 '\000\000\000\010'
t 'key slots that overlap' bad 'key slots 0 and 1 overlap'
poke 208 '\001\002\003\004'
t 'a slot in no state' bad 'key slot 0 is in state'
poke 8 'rot13\000'
t 'an unknown cipher' bad "cipher 'rot13"
poke 72 'md4\000\000\000\000'
t 'an unknown hash' bad "hash 'md4' is not known"
poke 4096 '\377\377\377\377\000\000\000\000'
t 'damaged key material' bad 'does not open'
poke 112 '\377\377\377\377'
t 'a wrong digest' bad 'does not open'
truncate -s 300 bad.luks
t 'a cut header' bad 'LUKS header of 300 bytes'
done_testing

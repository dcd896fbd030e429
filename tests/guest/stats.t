#!/bin/sh
# stats.t - vm-run --stats: the profile of a guest, as text and as JSON, for interpreter and translator;
# and --code-cache: a boot with the smallest one, which is emptied often, never for longer than a
# millisecond. TAP.
. "$(dirname "$0")/../lib.sh"
dir=$(tests/fetch-kernel)
kernel=$(echo "$dir"/boot/vmlinuz-*)
tests/guest/make-initrd "$dir" "$TMP/initrd" || exit 1
boot() { # boot NAME OPTIONS...: to the end of the report, in $TMP/NAME
	name=$1
	shift
	"$VM_RUN" --engine emulator --timeout 100 "$@" -i "$TMP/initrd" -a 'console=ttyS0 quiet panic=-1' "$kernel" \
		</dev/null >"$TMP/$name" 2>"$TMP/$name.err"
	status=$?
	tail -n 50 "$TMP/$name.err"
	return $status
}
has() { # has NAME TEXT...: the profile says them all
	file=$TMP/$1.err
	shift
	for text; do grep -q -- "$text" "$file" || { echo "lacks: $text"; cat "$file"; return 1; }; done
}
# json FILE EXPRESSION: j is the document, s its sum, p the processors
json() {
	python3 -c 'import json, sys
j = json.load(open(sys.argv[1])); s = j["sum"]; p = j["processors"]
print(json.dumps(j, indent=1))
sys.exit(not eval(sys.argv[2]))' "$TMP/$1" "$2"
}

t 'translator, two processors' boot two -c 2 --stats
t 'the time is told' has two 'engine emulator' 'time in translated code .* s$' ' translating ' ' idle ' ' in devices '
t 'and what was done' has two 'blocks translated' 'TLB misses' '  user' '  kernel' 'unlinked jump' 'interrupts'
t 'a column for each processor' has two 'processor 0 *processor 1 *all'
t 'JSON into a file' boot file -c 2 --stats="json:$TMP/two.json"
t 'nothing else is printed' sh -c "! grep -q 'TLB misses' '$TMP/file.err'"
t 'it is a document of version 1' json two.json 'j["version"] == 1 and j["engine"] == "emulator" and len(p) == 2'
t 'the sum is the sum' json two.json 'all(s[k] == sum(q[k] for q in p) for k in s if k != "eviction-longest-ns")'
t 'times are what passed' json two.json \
	'all(0.5 < sum(q[k] for k in q if k.startswith("time-")) / j["elapsed-ns"] < 1.01 for q in p)'
t 'misses by mode are all misses' json two.json \
	's["tlb-misses"] == sum(s[k] for k in s if k.startswith("tlb-misses-")) > 10000'
t 'most runs translated' json two.json 's["time-translated-ns"] > 0 and s["blocks-translated"] > 5000'
t 'interpreter' boot one --emulator interpreter --stats=json
t 'JSON on standard error' sh -c "sed -n '/^{/,\$p' '$TMP/one.err' >'$TMP/one.json'"
t 'it interprets' json one.json 's["instructions-interpreted"] > 10**8 and "blocks-translated" not in s and len(p) == 1'
t 'without --stats nothing is printed' sh -c "'$VM_RUN' --engine emulator -t 2 '$kernel' -a quiet </dev/null 2>&1 | grep -c 'TLB' | grep -qx 0"
t 'another form is refused' exits 2 "$VM_RUN" --stats=xml "$kernel"
t 'a file that cannot be written' fails 'cannot write' "$VM_RUN" --stats=json:/nowhere/x "$kernel"

# The profile of a running guest.
"$VM_RUN" --engine emulator --stats -t 60 -i "$TMP/initrd" -a 'console=ttyS0 quiet vm.end=hang' "$kernel" \
	</dev/null >"$TMP/live" 2>"$TMP/live.err" &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q 'GUEST done' "$TMP/live"; do sleep 0.1; done
kill -USR2 $pid
i=0
while ! grep -q 'interrupts' "$TMP/live.err" && [ $i -lt 100 ]; do i=$((i + 1)) && sleep 0.1; done
t 'SIGUSR2 prints it at once' has live 'engine emulator' 'interrupts'
kill -TERM $pid
sleep 0.2
kill -TERM $pid 2>/dev/null
wait $pid

# The smallest code cache.
t 'a code cache of 1M: boots' boot small -c 2 --code-cache 1M --stats="json:$TMP/small.json"
t 'the report is whole' grep -q '^GUEST done' "$TMP/small"
t 'it was emptied often' json small.json 's["evictions"] > 10'
t 'and never holds more' json small.json 'all(q["code-bytes"] <= 1 << 20 for q in p)'
# a bound of the test's: a busy computer may take the processor away meanwhile
t 'how long emptying takes is told' json small.json "s['eviction-longest-ns'] > 0"
t 'less than 1M is refused' exits 2 "$VM_RUN" --code-cache 512k "$kernel"
done_testing

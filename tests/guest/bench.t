#!/bin/sh
# bench.t - the rows of bench/emu come to the same checksums in a guest as natively, under the
# interpreter and the translator, with two processors. TAP.
. "$(dirname "$0")/../lib.sh"
rows=int.,mem.,jit.,fp.,simd.,sys.,smp.,32:,tool.sha1sum

# right EMULATOR: every row that runs natively has a figure and native's checksum.
right() {
	bench/emu/run -n 1 -s 0.002 -c 2 --no-peer -j -t 120 -r "$rows" -e "$1" >"$TMP/$1.json"
	status=$?
	python3 - "$TMP/$1.json" <<'P' && [ $status != 1 ]
import json, sys
j = json.load(open(sys.argv[1]))
(r,) = j["emulators"].values()
print(r["wrong"], sorted(set(j["native"]) - set(r["rows"])))
sys.exit(bool(r["wrong"] or len(r["rows"]) < 50 or set(j["native"]) - set(r["rows"])))
P
}
t 'the translator: all checksums are those of this processor' right translator
t 'the interpreter: all checksums are those of this processor' right interpreter
done_testing

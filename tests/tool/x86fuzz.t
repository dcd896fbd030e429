#!/bin/sh
# x86fuzz.t - lib/x86 against this computer's processor: X86FUZZ_RUNS (60000) random instructions
# from X86FUZZ_SEED (1). Where the manual leaves the order of faults and some flags open, lib/x86 does
# as AMD's processors do; elsewhere a difference is reported, but is no failure. TAP.
. "$(dirname "$0")/../lib.sh"
fuzz=$O/tests/x86fuzz/x86fuzz

todo=
grep -q AuthenticAMD /proc/cpuinfo || todo=' # TODO only the details of AMD processors are known'
# The sanitizers' shadow memory lies at addresses that cases use: there only lib/x86 itself is watched.
watched() {
	ASAN_OPTIONS=exitcode=99 UBSAN_OPTIONS=exitcode=99 "$@"
	[ $? -le 1 ]
}
agree=
case $O in *-san) agree=watched ;; esac
t "no instruction differs from the processor's$todo" \
	$agree "$fuzz" --runs "${X86FUZZ_RUNS:-60000}" --seed "${X86FUZZ_SEED:-2}" --reports 3
t "nor by the translator$todo" \
	$agree "$fuzz" --translate --runs "${X86FUZZ_RUNS:-60000}" --seed "${X86FUZZ_SEED:-2}" --reports 3
# Blocks of instructions: branches, loops, calls, the stack, code that changes itself.
t "nor do blocks of instructions$todo" \
	$agree "$fuzz" --blocks --runs "${X86FUZZ_BLOCKS:-12000}" --seed "${X86FUZZ_SEED:-12}" --reports 3
# --check: the translations' host code is of the forms that it should be
t "nor blocks by the translator$todo" \
	$agree "$fuzz" --blocks --translate --check --runs "${X86FUZZ_BLOCKS:-12000}" --seed "${X86FUZZ_SEED:-12}" --reports 3
t "nor, at CPL 0, the translator from the interpreter" \
	$agree "$fuzz" --kernel --runs "${X86FUZZ_BLOCKS:-12000}" --seed "${X86FUZZ_SEED:-12}"
# Guests that try to break out of their memory: X86FUZZ_HOSTILE (400) of each kind
t "no guest breaks out of the interpreter" \
	"$fuzz" --hostile --runs "${X86FUZZ_HOSTILE:-400}" --seed "${X86FUZZ_SEED:-1}"
t "nor out of the translator, whose host code is as it should be" \
	"$fuzz" --hostile --translate --runs "${X86FUZZ_HOSTILE:-400}" --seed "${X86FUZZ_SEED:-1}"
t 'the same seed makes the same cases' \
	sh -c '[ "$("$1" --runs 300 --seed 7)" = "$("$1" --runs 300 --seed 7)" ]' sh "$fuzz"
t 'wrong usage has status 2' exits 2 "$fuzz" --nonsense
t 'what is not compared is listed with reasons' says 'SYSCALL' "$fuzz" --excluded
done_testing

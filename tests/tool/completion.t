#!/bin/sh
# completion.t - bash completion of vm-check and vm-run: every word it proposes comes from the program. TAP.
. "$(dirname "$0")/../lib.sh"
export here=$PWD

# completes WANT TOOL FUNCTION WORD...: the last word is completed to exactly WANT (words, in any order).
completes() {
	want=$1
	shift
	bash -c '
		tool=$1 fn=$2
		shift 2
		. "$here/tools/$tool/completion.bash" || exit 1
		COMP_WORDS=("$O/$tool" "$@") COMP_CWORD=$#
		$fn
		printf "%s\n" "${COMPREPLY[@]}" | sort' - "$@" >"$TMP/got"
	cat "$TMP/got"
	[ "$(printf '%s\n' $want | sort)" = "$(cat "$TMP/got")" ]
}
check() {
	want=$1
	shift
	completes "$want" vm-check _vm_check "$@"
}
run() {
	want=$1
	shift
	completes "$want" vm-run _vm_run "$@"
}

t 'vm-check: an option' check --capture --cap
t 'vm-check: several' check '--require --report --root' --r
t 'vm-check: a fact to --require' check 'unrestricted-guest' --require unres
t 'vm-check: a second fact' check 'full-speed,tun' -r full-speed,tu
t 'vm-check: no problem to --require' check '' --require firmware-o
t 'vm-check: a problem to --explain' check 'firmware-off' --explain firmware-o
t 'vm-check: --explain=' check 'firmware-off' --explain = firmware-o
t 'vm-check: list' check 'list' -e lis
t 'vm-check: a command' check 'guest' gu
mkdir "$TMP/tree"
t 'vm-check: a file of a command' check "$TMP/tree" disk "$TMP/tre"
t 'vm-check: a folder' check "$TMP/tree" --capture "$TMP/tr"
t 'vm-run: an option' run '--code-cache' --code
t 'vm-run: an engine' run 'emulator' --engine em
t 'vm-run: where the serial line goes' run 'socket: stdio' --serial s
: >"$TMP/vmlinuz"
t 'vm-run: a file' run "$TMP/vmlinuz" "$TMP/vml"
t 'vm-run: nothing for a number' run '' --cpus ''
t 'vm-run: engines are those the program knows' sh -c "$VM_RUN --help | grep -q 'auto, kvm or emulator'"
t 'vm-run: emulators too' sh -c "$VM_RUN --help | grep -q 'translator, interpreter, or lockstep'"
t 'they are installed' sh -c "make -s O='$O' DESTDIR='$TMP/root' prefix=/usr install >'$TMP/log' 2>&1 && cd '$TMP/root/usr/share/bash-completion/completions' && ls vm-check vm-img vm-run"
done_testing

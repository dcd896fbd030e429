# lib.sh - TAP for shell tests: source it, then `t NAME COMMAND...`, at the end `done_testing`.
# O is the build folder, VM_RUN and VM_IMG are the tools, TMP a folder of the test's own.
cd "$(dirname "$0")/../.." || exit 1
O=${O:-build}
case $O in /*) ;; *) O=$PWD/$O ;; esac
export O
VM_RUN=$O/vm-run
VM_IMG=$O/vm-img
TMP=$(mktemp -d "${TMPDIR:-/tmp}/vmtest.XXXXXX")
trap 'rm -rf "$TMP"' EXIT
n=0
failed=0

# t NAME COMMAND...: one test; passes when COMMAND succeeds.
t() {
	n=$((n + 1))
	name=$1
	shift
	if "$@" >"$TMP/.log" 2>&1; then
		echo "ok $n - $name"
	else
		failed=1
		echo "not ok $n - $name"
		{ # on stderr, where prove shows it
			echo "# $0: not ok $n - $name"
			tail -n 15 "$TMP/.log" | tr -d '\r' | sed 's/^/# /'
		} >&2
	fi
}

skip() { # skip NAME REASON
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

# exits STATUS COMMAND...
exits() {
	want=$1
	shift
	"$@" </dev/null
	got=$?
	[ $got = "$want" ] || { echo "status $got, not $want"; return 1; }
}

# says TEXT COMMAND...: its output (both streams) holds TEXT.
says() {
	text=$1
	shift
	"$@" </dev/null >"$TMP/.out" 2>&1
	cat "$TMP/.out"
	grep -qF -- "$text" "$TMP/.out" || { echo "does not say: $text"; return 1; }
}

# fails TEXT COMMAND...: exactly one line on stderr with TEXT, status 1, nothing on stdout.
fails() {
	text=$1
	shift
	"$@" </dev/null >"$TMP/.out" 2>"$TMP/.err"
	got=$?
	cat "$TMP/.out" "$TMP/.err"
	[ $got = 1 ] || { echo "status $got, not 1"; return 1; }
	[ ! -s "$TMP/.out" ] || { echo "prints to stdout"; return 1; }
	grep -v ': engine ' "$TMP/.err" >"$TMP/.err1"
	[ "$(wc -l <"$TMP/.err1")" = 1 ] || { echo "not one line"; return 1; }
	grep -qF -- "$text" "$TMP/.err1" || { echo "does not say: $text"; return 1; }
}

done_testing() {
	echo "1..$n"
	exit $failed
}

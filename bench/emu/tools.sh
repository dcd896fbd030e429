# tools.sh - busybox's tools as rows, sourced by `init` in the guest and by `run` natively. $ROWS: the benchmark program, $BB:
# busybox, $W: a folder for files, $names: what is wanted (names with commas between, or "all").
export PATH=/nonexistent BB W
tool() { # tool NAME UNIT WORK COMMAND
	case ,$names, in ,all, | *,"$1",*) "$ROWS" --tool "$1" "$2" "$3" "$BB" "$4" ;; esac
}
case $names in all | *tool.*)
	$BB awk 'BEGIN { s = 12345
		for (i = 0; i < 60000; i++) {
			s = (s * 1103515245 + 12345) % 2147483648
			printf "%d line %d %x the quick brown fox %d\n", s, i, s, s % 97
		} }' >"$W/text"
	$BB gzip -c "$W/text" >"$W/text.gz"
	;;
esac
tool tool.gzip MB 2.9 '$BB gzip -c $W/text | $BB gunzip -c | $BB md5sum'
tool tool.gunzip MB 14.5 'for i in 1 2 3 4 5; do $BB gunzip -c $W/text.gz; done | $BB md5sum'
tool tool.awk Mloop 0.5 '$BB awk '\''BEGIN {
	for (i = 0; i < 500000; i++) { a[i % 1000] += i * 3; s = s substr("abcdef", i % 6 + 1, 1); if (length(s) > 40) s = "" }
	print a[7], s }'\'
tool tool.sort Kline 60 '$BB sort $W/text'
tool tool.grep MB 29 "for i in 1 2 3 4 5 6 7 8 9 10; do \$BB grep -c 'f1[0-9]*.*ox 9' \$W/text; done"
tool tool.sha1sum MB 29 'for i in 1 2 3 4 5 6 7 8 9 10; do $BB sha1sum <$W/text; done'
tool tool.shloop Kiter 100 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $i'
tool tool.forkloop proc 200 'i=0; while [ $i -lt 200 ]; do $BB true; i=$((i+1)); done; echo $i'

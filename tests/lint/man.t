#!/bin/sh
# man.t - the manual pages: mandoc finds nothing wrong, every option of --help is described. TAP.
cd "$(dirname "$0")/../.." || exit 1
O=${O:-build}
n=0
ok() { # ok STATUS NAME
	n=$((n + 1))
	[ "$1" = 0 ] && echo "ok $n - $2" || echo "not ok $n - $2"
}
for page in man/*.[0-9]; do
	out=$(mandoc -T lint -W warning "$page" 2>&1 | grep -v 'referenced manual not found\|missing date\|Mdocdate')
	[ -z "$out" ]
	ok $? "$page is clean mdoc"
	[ -z "$out" ] || echo "$out" | sed 's/^/# /'
	tool=$(basename "$page" .1)
	[ -x "$O/$tool" ] || continue
	miss=$("$O/$tool" --help | sed -n 's/.*--\([a-z-]*\).*/\1/p' | sort -u | while read -r opt; do
		grep -q -- "^\.It Fl \(. , \)\?-$opt\b" "$page" || printf ' --%s' "$opt"; done)
	[ -z "$miss" ]
	ok $? "$page describes each option of $tool --help$miss"
done
echo "1..$n"

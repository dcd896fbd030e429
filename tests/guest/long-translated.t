#!/bin/sh
# long-translated.t - the tests of long.t with all code translated when it comes for the second time.
cd "$(dirname "$0")/../.." || exit 1
exec "${O:-build}/tests/progs/x86guest" "${O:-build}/tests/guest/long.elf" 1

#!/bin/sh
# long.t - faults and privileges of 64-bit mode on the interpreter: the guest itself prints TAP.
cd "$(dirname "$0")/../.." || exit 1
exec "${O:-build}/tests/progs/x86guest" "${O:-build}/tests/guest/long.elf"

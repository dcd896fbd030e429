#!/bin/sh
# modes-translated.t - the tests of modes.t with all code translated when it comes for the second time.
cd "$(dirname "$0")/../.." || exit 1
exec "${O:-build}/tests/progs/x86guest" "${O:-build}/tests/guest/modes.elf" 1

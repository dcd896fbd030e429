#!/bin/sh
# modes.t - faults and privileges of real, protected and virtual-8086 mode on the interpreter: the guest
# itself prints TAP. On another engine: boot build/tests/guest/modes.elf as a multiboot kernel.
cd "$(dirname "$0")/../.." || exit 1
exec "${O:-build}/tests/progs/x86guest" "${O:-build}/tests/guest/modes.elf"

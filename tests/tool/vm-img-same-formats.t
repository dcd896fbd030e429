#!/bin/sh
# vm-img-same-formats.t - the same as vm-img-same.t for the formats that are not QEMU's own. TAP.
scripts=vm-img-same-formats.sh
. "$(dirname "$0")/vm-img-same.t"

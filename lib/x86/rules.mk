# Handlers call the slow path of a load from inline assembly: no red zone (op_tmpl.h).
CFLAGS_lib_x86 += -mno-red-zone -fomit-frame-pointer -fno-tree-slp-vectorize -foptimize-sibling-calls
# Guest memory and the MMU's fast path are as unaligned as the guest likes.
ifdef SAN
CFLAGS_lib_x86 += -fno-sanitize=alignment
endif
# The decoder's test compares it with another one.
$(O)/tests/unit/test_decode: ALL_LIBS += -lZydis

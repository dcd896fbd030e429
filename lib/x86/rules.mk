# Handlers call the slow path of a load from inline assembly: no red zone (op_tmpl.h).
CFLAGS_lib_x86 += -mno-red-zone -fomit-frame-pointer -fno-tree-slp-vectorize -foptimize-sibling-calls
# Guest memory and the MMU's fast path are as unaligned as the guest likes.
ifdef SAN
CFLAGS_lib_x86 += -fno-sanitize=alignment
endif
# The decoder's test compares it with another one.
$(O)/tests/unit/test_decode: ALL_LIBS += -lZydis

# The comparison with the host's processor: a program of several files, Zydis if it is there.
X86FUZZ_OBJ := $(patsubst %.c,$(O)/%.o,$(wildcard tests/x86fuzz/*.c))
ifeq ($(wildcard /usr/include/Zydis/Zydis.h),)
X86FUZZ_LIBS :=
else
CFLAGS_tests_x86fuzz += -DHAVE_ZYDIS
X86FUZZ_LIBS := -lZydis
endif
$(O)/tests/x86fuzz/x86fuzz: $(X86FUZZ_OBJ) $(O)/libvm.a
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(X86FUZZ_LIBS) $(ALL_LIBS)
tests: $(O)/tests/x86fuzz/x86fuzz
-include $(X86FUZZ_OBJ:.o=.d)

# Bare guests that test 64-bit mode: linked as 64-bit code, then put into the 32-bit container that
# multiboot loaders take.
LONG_SRC  := $(sort $(wildcard tests/guest/long/*.c tests/guest/long/*.S))
GUEST_BIN += $(O)/tests/guest/long.elf
GUEST64   := -m64 -std=gnu11 -O1 -Wall -Wextra -ffreestanding -fno-pic -no-pie -mno-red-zone -nostdlib \
	     -static -mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-strict-aliasing \
	     -fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noexecstack \
	     -Wl,--no-warn-rwx-segments

$(O)/tests/guest/long.elf: $(LONG_SRC) tests/guest/long/guest64.h tests/guest/groups.h tests/guest/modes/link.ld
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST64) -T tests/guest/modes/link.ld -o $@.64 $(LONG_SRC)
	$(Q)objcopy -O elf32-i386 $@.64 $@

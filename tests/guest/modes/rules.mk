# Bare guests that test processor modes: 32-bit code for a multiboot loader, run by any engine.
MODES_SRC := $(sort $(wildcard tests/guest/modes/*.c tests/guest/modes/*.S))
GUEST_BIN += $(O)/tests/guest/modes.elf
GUEST32   := -m32 -std=gnu11 -O1 -Wall -Wextra -ffreestanding -fno-pic -no-pie -nostdlib -static \
	     -mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-strict-aliasing \
	     -fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments

$(O)/tests/guest/modes.elf: $(MODES_SRC) tests/guest/modes/guest.h tests/guest/groups.h tests/guest/modes/link.ld
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST32) -T tests/guest/modes/link.ld -o $@ $(MODES_SRC)

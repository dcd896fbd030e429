# Makefile - everything is built out of tree, in $(O). `make help` lists the targets.

O      ?= build
CC     ?= gcc
prefix ?= /usr/local
PROVE  ?= prove
J      ?= $(shell nproc)

VERSION := 0.1

CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings \
	   -Wno-gnu-variable-sized-type-not-at-end
ifdef WERROR
WARN    += -Werror
endif
# SAN=1: address and undefined-behaviour sanitizers, in a folder of their own.
ifdef SAN
ifeq ($(origin O),file)
O       := build-san
endif
CFLAGS  += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif

PKGS    := popt libzstd libdeflate liblzma liblz4 lzo2 libarchive libseccomp jansson blkid fdisk
PKGS    += libxml-2.0 nettle libgcrypt ext2fs com_err
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lslirp -lbz2 # slirp.pc wants glib.pc, which we do not
ALL_CFLAGS  = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DVM_VERSION='"$(VERSION)"' \
	      -fno-strict-aliasing -pthread $(WARN) -Ilib -I$(O)/gen $(PKG_CFLAGS) $(CFLAGS)
ALL_LIBS    = $(PKG_LIBS) -lm -pthread

LIB_SRC   := $(sort $(wildcard lib/*/*.c lib/*/*/*.c))
LIB_ASM   := $(sort $(wildcard lib/*/*.S))
LIB_OBJ   := $(LIB_SRC:%.c=$(O)/%.o) $(LIB_ASM:%.S=$(O)/%.o)
TOOLS     := $(notdir $(patsubst %/main.c,%,$(wildcard tools/*/main.c)))
TOOL_SRC  := $(wildcard $(TOOLS:%=tools/%/*.c))
TOOL_OBJ  := $(TOOL_SRC:%.c=$(O)/%.o)
UNIT_SRC  := $(sort $(wildcard tests/unit/*.c))
UNIT_BIN  := $(UNIT_SRC:%.c=$(O)/%)
PROG_SRC  := $(sort $(wildcard tests/progs/*.c))
PROG_BIN  := $(PROG_SRC:%.c=$(O)/%)
FUZZ_SRC  := $(filter-out tests/fuzz/driver.c,$(sort $(wildcard tests/fuzz/*.c)))
FUZZ_BIN  := $(FUZZ_SRC:%.c=$(O)/%)
LIBFUZZ   := $(FUZZ_SRC:tests/fuzz/%.c=$(O)/libfuzzer/%)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

##@ Build
all: $(O)/libvm.a $(TOOLS:%=$(O)/%) ## the tools, at build/vm-*

# Per-folder additions (flags, generated sources) live beside their folder.
-include $(wildcard lib/*/rules.mk tests/guest/*/rules.mk)

$(O)/libvm.a: $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $(LIB_OBJ)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(CFLAGS_$(subst /,_,$(patsubst %/,%,$(dir $<)))) -MMD -MP -c -o $@ $<

$(O)/%.o: %.S
	@mkdir -p $(@D)
	$(Q)$(CC) -MMD -MP -c -o $@ $<

define tool_rule
$(O)/$(1): $$(filter $(O)/tools/$(1)/%,$$(TOOL_OBJ)) $(O)/libvm.a
	$$(Q)$$(CC) $$(ALL_CFLAGS) $$(LDFLAGS) -o $$@ $$^ $$(ALL_LIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rule,$(t))))

$(O)/tests/unit/%: $(O)/tests/unit/%.o $(O)/libvm.a
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(ALL_LIBS)

$(O)/tests/progs/%: $(O)/tests/progs/%.o $(O)/libvm.a
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(ALL_LIBS)

# A fuzz target with the deterministic driver: what `make check` runs for a bounded time.
$(O)/tests/fuzz/%: $(O)/tests/fuzz/%.o $(O)/tests/fuzz/driver.o $(O)/libvm.a
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(ALL_LIBS)

# A fuzz target under libFuzzer, over a library of its own; an archive, so that a target may bring
# its own version of a module.
LIBFUZZ_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize=alignment
LIBFUZZ_OBJ   := $(LIB_SRC:%.c=$(O)/libfuzzer/%.o) $(LIB_ASM:%.S=$(O)/libfuzzer/%.o)

$(O)/libfuzzer/lib/%.o: lib/%.c
	@mkdir -p $(@D)
	$(Q)clang $(ALL_CFLAGS) $(CFLAGS_$(subst /,_,$(patsubst %/,%,$(dir $<)))) $(LIBFUZZ_FLAGS) \
		-fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

$(O)/libfuzzer/lib/%.o: lib/%.S
	@mkdir -p $(@D)
	$(Q)clang -MMD -MP -c -o $@ $<

$(O)/libfuzzer/libvm.a: $(LIBFUZZ_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $(LIBFUZZ_OBJ)

$(O)/libfuzzer/%: tests/fuzz/%.c $(O)/libfuzzer/libvm.a
	$(Q)clang $(ALL_CFLAGS) $(LIBFUZZ_FLAGS) -fsanitize=fuzzer -o $@ $^ $(ALL_LIBS)

tests: all $(UNIT_BIN) $(PROG_BIN) $(FUZZ_BIN) $(GUEST_BIN) ## build the tests without running them

##@ Use
demo: ## install what is missing, build, boot a real guest
	@tests/deps build demo
	@$(MAKE) --no-print-directory -j$(J) all
	@O=$(O) tests/demo

##@ Test
check: ## install what is missing, build, run the tests
	@tests/deps build check
	@$(MAKE) --no-print-directory -j$(J) tests
	O=$(O) tests/run

fuzz: $(LIBFUZZ) ## coverage-guided fuzz targets (clang), at build/libfuzzer

san: ## the sanitizer build and its tests, in build-san
	@tests/deps build check
	@$(MAKE) --no-print-directory -j$(J) SAN=1 tests
	O=build-san tests/run unit fuzz tool

lint: ## formatting, layers, headers, man pages
	O=$(O) tests/run lint

compile_commands.json: ## for clangd and clang-tidy
	@tests/deps dev
	@bear --output $@ -- $(MAKE) --no-print-directory -B O=$(O)/bear all >/dev/null

##@ Install
install: all ## to $(DESTDIR)$(prefix)
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/share/man/man1
	install -m 755 $(TOOLS:%=$(O)/%) $(DESTDIR)$(prefix)/bin/
	install -m 644 $(wildcard man/*.1) $(DESTDIR)$(prefix)/share/man/man1/
	install -d $(DESTDIR)$(prefix)/share/bash-completion/completions
	$(foreach t,$(TOOLS),$(if $(wildcard tools/$(t)/completion.bash),install -m 644 tools/$(t)/completion.bash $(DESTDIR)$(prefix)/share/bash-completion/completions/$(t);))

clean: ## remove what was built
	rm -rf $(O) build-san

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	     /^[a-z_.]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: all tests demo check fuzz san lint install clean help

ifneq ($(V),1)
Q = @printf '  %-4s %s\n' $(if $(findstring .o,$@),CC,LINK) $@;
endif

-include $(LIB_OBJ:.o=.d) $(LIBFUZZ_OBJ:.o=.d) $(TOOL_OBJ:.o=.d) $(UNIT_BIN:%=%.d) $(PROG_BIN:%=%.d) $(FUZZ_BIN:%=%.d)

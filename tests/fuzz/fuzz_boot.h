/* tests/fuzz/fuzz_boot.h - loads a kernel file into 64 MiB of guest memory and checks the result. */
#ifndef FUZZ_BOOT_H
#define FUZZ_BOOT_H

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "fw/kernel.h"

#define FUZZ_RAM (64u << 20)

static struct ram fuzz_ram;
static struct e820 fuzz_map;

static void fuzz_setup(void)
{
	struct err err;

	if (fuzz_ram.base)
		return;
	if (ram_init(&fuzz_ram, FUZZ_RAM, &err) ||
	    ram_add(&fuzz_ram, 0, 0xa0000, &err) ||
	    ram_add(&fuzz_ram, 1 << 20, FUZZ_RAM - (1 << 20), &err) ||
	    e820_add_ram(&fuzz_map, &fuzz_ram, &err) ||
	    e820_add(&fuzz_map, 0x9fc00, 0x400, E820_RESERVED, &err))
		abort();
}

/* What was loaded lies in memory, apart from each other, and the entry does. */
static void fuzz_check(const struct boot_info *info, const struct cpu_state *cpu)
{
	for (unsigned i = 0; i < info->n_ranges; i++) {
		const struct boot_range *r = &info->range[i];

		if (!e820_all(&fuzz_map, r->gpa, r->len, E820_RAM))
			abort();
		for (unsigned k = 0; k < i; k++)
			if (range_overlap(r->gpa, r->len, info->range[k].gpa,
					  info->range[k].len))
				abort();
	}
	if (!e820_all(&fuzz_map, cpu->rip, 1, E820_RAM))
		abort();
}

static void fuzz_boot(const uint8_t *data, size_t len)
{
	static const struct boot_module module = {"m", "module", 6, "args"};
	static struct cpu_state cpu;
	static struct boot_info info;
	struct boot_params_in in = {.name = "fuzz",
				    .kernel = data,
				    .kernel_len = len,
				    .initrd = "initrd",
				    .initrd_len = 6,
				    .cmdline = "x=y",
				    .e820 = &fuzz_map};
	enum kernel_kind kind;
	struct err err = {0};

	fuzz_setup();
	kind = kernel_identify(data, len);
	if (kind == KERNEL_MULTIBOOT || kind == KERNEL_ELF_PVH) {
		in.modules = &module;
		in.n_modules = 1;
	}
	if (boot_load(&fuzz_ram, &in, &cpu, &info, &err)) {
		if (!err.code || !err.msg[0])
			abort();
	} else if (kind != info.kind) {
		abort();
	} else {
		fuzz_check(&info, &cpu);
	}
}

#endif

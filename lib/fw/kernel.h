/*
 * fw/kernel.h - starts a kernel without firmware: what kind of file it is, its parts into guest
 * memory, and the processor state it is entered with.
 *
 * Files are hostile: every number in them is checked. One thread, before the processors run.
 */
#ifndef FW_KERNEL_H
#define FW_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "fw/e820.h"
#include "vm/cpu.h"
#include "vm/ram.h"

enum kernel_kind {
	KERNEL_UNKNOWN,
	KERNEL_BZIMAGE, /* Linux' bzImage or zImage, and what looks like one (memtest86+) */
	KERNEL_ELF_PVH, /* ELF with a PVH entry note: vmlinux, Xen */
	KERNEL_ELF_LINUX, /* ELF, x86-64, without such a note: vmlinux by the 64-bit boot protocol */
	KERNEL_MULTIBOOT, /* multiboot 1: ELF or with addresses in its header */
};

/*
 * What the file is, by its content. A compressed file (vmlinux.gz, xen.gz) is what its unpacked
 * content is; damaged or unknown: KERNEL_UNKNOWN.
 */
enum kernel_kind kernel_identify(const void *p, size_t len);

/* "Linux bzImage", "PVH kernel", ...; for messages. */
const char *kernel_kind_name(enum kernel_kind kind);

struct boot_module {
	const char *
		name; /* the file's; multiboot has it before the command line; may be NULL */
	const void *data;
	size_t len;
	const char *cmdline; /* NULL: none */
};

#define BOOT_MAX_MODULES 64

/* What to start. Everything is borrowed for the call. */
struct boot_params_in {
	const struct log *log; /* may be NULL */
	const char *name;      /* the kernel's file name, for messages */
	const void *kernel;
	size_t kernel_len;
	const void *initrd; /* NULL: none */
	size_t initrd_len;
	const char *cmdline; /* NULL: empty */
	const struct boot_module
		*modules; /* behind the initrd: multiboot and PVH only */
	unsigned n_modules;
	const struct e820 *e820; /* complete: the loader uses only its RAM ranges */
	uint64_t rsdp;           /* guest address of the ACPI RSDP; 0: no ACPI */
	bool vga_text;           /* a VGA in 80x25 text mode is there */
};

/* A range of guest memory and what was put there. */
struct boot_range {
	uint64_t gpa, len;
	const char *what; /* static text: "kernel", "initrd", "page tables" ... */
};

#define BOOT_MAX_RANGES (64 + 2 * BOOT_MAX_MODULES)

struct boot_info {
	enum kernel_kind kind;
	const char *
		protocol; /* "Linux 64-bit", "Linux 32-bit", "Linux real mode", "PVH", "multiboot" */
	uint64_t entry;   /* linear address of the first instruction */
	char version[80]; /* a bzImage's version text, else "" */
	struct boot_range range[BOOT_MAX_RANGES];
	unsigned n_ranges;
};

/*
 * Loads the kernel, its initrd, command line and tables into `ram`, and changes `cpu`, which holds the reset
 * state of the boot processor, to the entry state. 0; or -ENOEXEC (no kernel, or one that cannot
 * be started like this), -EINVAL (damaged), -ENOSPC (does not fit into the memory), -ENOMEM.
 * After an error guest memory may hold parts of it.
 */
int boot_load(struct ram *ram, const struct boot_params_in *in, struct cpu_state *cpu,
	      struct boot_info *info, struct err *err);

#endif

/*
 * boot/boot.h - makes a disk bootable by a BIOS: a partition table with one partition, and a loader of our own before it that
 * starts a Linux kernel from lists of sectors. When the kernel's file is moved or replaced the lists must be made anew.
 * Any thread.
 */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define BOOT_GAP     (1u << 20) /* bytes before the partition */
#define BOOT_COMMAND 2047       /* characters of a kernel's command line */

/* Sectors of 512 bytes, one behind the other. first 0: zeros, which are not on the disk. */
struct boot_run {
	uint64_t first;
	uint64_t n;
};

struct boot_file {
	const struct boot_run *run; /* borrowed; they cover `size` */
	unsigned n;
	uint64_t size; /* bytes; 0: there is none */
};

/* As much of the kernel's file as boot_make() looks at. */
#define BOOT_KERNEL_HEAD 1024

/*
 * Fills `gap` (BOOT_GAP bytes, zero) for a disk whose partition begins behind it and has `sectors` sectors. `head` is the
 * beginning of the kernel's file. 0 or -errno: -EINVAL it is no Linux kernel that a BIOS can start, -E2BIG the files are in
 * too many pieces, or the command line is too long.
 */
int boot_make(uint8_t *gap, uint64_t sectors, uint32_t id, const uint8_t *head,
	      const struct boot_file *kernel, const struct boot_file *initrd,
	      const char *command, struct err *err);

#endif

/*
 * guest/boot.h - will what is on a disk start in a virtual machine: with which firmware, on which disk controller, and
 * what stands in the way. One thread.
 */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include "guest/scan.h"

enum boot_firmware { FIRMWARE_NONE, FIRMWARE_BIOS, FIRMWARE_UEFI };
enum boot_controller {
	CONTROLLER_ANY,
	CONTROLLER_AHCI,
	CONTROLLER_IDE,
	CONTROLLER_VIRTIO
};
enum boot_weight {
	BOOT_NOTE,    /* good to know */
	BOOT_PROBLEM, /* it starts, but not as it should */
	BOOT_STOP,    /* it does not start */
};

struct boot_finding {
	enum boot_weight weight;
	const char *id;     /* "hibernated": for programs */
	unsigned number;    /* of the partition; 0: the disk */
	char text[240];     /* what there is */
	const char *remedy; /* what to do; NULL: nothing */
};

#define BOOT_FINDINGS 64

struct guest_boot {
	enum boot_firmware firmware;
	bool bios, uefi; /* what has a boot loader; both may */
	enum boot_controller controller;
	const struct guest_os *os; /* borrowed of the disk; NULL: none was found */
	struct boot_finding v[BOOT_FINDINGS];
	unsigned n;
	enum boot_weight worst; /* BOOT_NOTE: nothing stands in the way */
};

void guest_boot_judge(struct guest_disk *d, struct guest_boot *b);

#endif

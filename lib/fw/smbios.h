/*
 * fw/smbios.h - what the guest is told about the computer: SMBIOS structures (DMTF DSP0134) of
 * types 0 1 3 4 16 17 19 32 127. One thread, before the processors start.
 */
#ifndef FW_SMBIOS_H
#define FW_SMBIOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vm/ram.h"

/* NULL strings are left out. Strings longer than 64 bytes are cut. */
struct smbios_config {
	uint64_t memory;   /* bytes of RAM */
	uint64_t below_4g; /* how much of it lies below 4 GiB */
	unsigned n_cpus;   /* one socket each */
	bool entry_3_0;   /* 64-bit entry point (3.0) instead of the 32-bit one (2.8) */
	uint8_t uuid[16]; /* bytes as in the UUID's text; all zero: not set */
	const char *bios_vendor, *bios_version, *bios_date; /* date: MM/DD/YYYY */
	const char *manufacturer, *product, *version, *serial, *sku, *family;
	const char *chassis_manufacturer, *chassis_serial, *chassis_asset;
	const char *cpu_manufacturer, *cpu_version;
	uint16_t cpu_mhz;
};

/* Zero-initialise. The entry point is at the blob's start (in the F segment it is found by search). */
struct smbios_tables {
	uint8_t *blob; /* owned */
	size_t len,
		anchor_len; /* the structures begin at anchor_len rounded up to 16 */
	uint64_t base;
};

/* For guest address `base`, a multiple of 16 below 1 MiB. 0, -EINVAL, -ENOMEM. */
int smbios_build(const struct smbios_config *cfg, uint64_t base,
		 struct smbios_tables *out, struct err *err);
/* Copies them to their place. 0, -ENOSPC (no RAM there). */
int smbios_place(const struct smbios_tables *t, struct ram *ram, struct err *err);
void smbios_tables_fini(struct smbios_tables *t);

#endif

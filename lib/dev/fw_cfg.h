/*
 * dev/fw_cfg.h - what the machine tells its firmware: numbered items and named files.
 */
#ifndef DEV_FW_CFG_H
#define DEV_FW_CFG_H

#include "vm/env.h"

#define FW_CFG_PORT 0x510 /* selector 510h, data 511h, DMA 514h */

/* Item numbers that firmware knows. */
enum {
	FW_CFG_SIGNATURE = 0x00,
	FW_CFG_ID = 0x01,
	FW_CFG_UUID = 0x02,
	FW_CFG_RAM_SIZE = 0x03,
	FW_CFG_NOGRAPHIC = 0x04,
	FW_CFG_CPUS = 0x05,
	FW_CFG_MACHINE_ID = 0x06,
	FW_CFG_KERNEL_ADDR = 0x07,
	FW_CFG_KERNEL_SIZE = 0x08,
	FW_CFG_INITRD_ADDR = 0x0a,
	FW_CFG_INITRD_SIZE = 0x0b,
	FW_CFG_NUMA = 0x0d,
	FW_CFG_BOOT_MENU = 0x0e,
	FW_CFG_MAX_CPUS = 0x0f,
	FW_CFG_KERNEL_DATA = 0x11,
	FW_CFG_INITRD_DATA = 0x12,
	FW_CFG_CMDLINE_ADDR = 0x13,
	FW_CFG_CMDLINE_SIZE = 0x14,
	FW_CFG_CMDLINE_DATA = 0x15,
	FW_CFG_SETUP_ADDR = 0x16,
	FW_CFG_SETUP_SIZE = 0x17,
	FW_CFG_SETUP_DATA = 0x18,
	FW_CFG_DIR = 0x19,
	FW_CFG_FILE_FIRST = 0x20,
	FW_CFG_ARCH_LOCAL =
		0x8000, /* + 0: ACPI tables, 1: SMBIOS, 2: IRQ0 override, 3: e820 */
};

#define FW_CFG_MAX_FILES   64
#define FW_CFG_MAX_NAME    55
#define FW_CFG_MAX_WRITTEN 16 /* bytes of a file that the guest may write */

struct fw_cfg;

/* NULL with *err. Machine lock held for all functions. */
struct fw_cfg *fw_cfg_new(const struct vm_env *env, struct err *err);
void fw_cfg_free(struct fw_cfg *fw);
void fw_cfg_reset(struct fw_cfg *fw);

/*
 * Sets item `key` (below FW_CFG_FILE_FIRST, or FW_CFG_ARCH_LOCAL + 0-15; not the signature, id and
 * directory) to a copy of `data`. 0, -EINVAL, -ENOMEM.
 */
int fw_cfg_set(struct fw_cfg *fw, unsigned key, const void *data, size_t len);
int fw_cfg_set_u16(struct fw_cfg *fw, unsigned key, uint16_t val); /* little-endian */
int fw_cfg_set_u32(struct fw_cfg *fw, unsigned key, uint32_t val);
/* Adds a file with a copy of `data`, or replaces it. 0, -ENOSPC, -ENAMETOOLONG, -ENOMEM. */
int fw_cfg_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
		struct err *err);
/*
 * A file of `len` zero bytes (at most FW_CFG_MAX_WRITTEN) that the guest can write; `written` (may be
 * NULL) is called after it did. At most 4.
 */
int fw_cfg_writable(struct fw_cfg *fw, const char *name, size_t len,
		    void (*written)(void *ctx, const uint8_t *data, size_t len),
		    void *ctx, struct err *err);

#endif
